/* The server's history, read from its own tables. See oracle.h. */
#include "sim/oracle.h"

#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

#define BUCKETS 4096

const oracle_table oracle_tables[TABLES] = {
    {"pins", 5, {"title", "note", "n", "lat", "extra"}, "ppppp", true},
    {"forms", 3, {"pin_id", "body", "slug"}, "ppp", false},
    {"tallies", 5, {"title", "total", "tags", "top", "low"}, "pcsxn", true},
};

static void *grown(void *block, int *cap, int count, size_t size) {
    if (count < *cap) {
        return block;
    }
    *cap = *cap ? *cap * 2 : 64;
    block = realloc(block, (size_t)*cap * size);
    if (!block) {
        abort();
    }
    return block;
}

/* ---- names ---- */

atom *oracle_atom(oracle *o, const char *text) {
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *c = text; *c; c++) {
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    }
    atom **at = &o->atoms[hash % BUCKETS];
    for (; *at; at = &(*at)->next) {
        if ((*at)->hash == hash && strcmp((*at)->text, text) == 0) {
            return *at;
        }
    }
    size_t len = strlen(text) + 1;
    *at = calloc(1, sizeof **at + len);
    if (!*at) {
        abort();
    }
    (*at)->hash = hash;
    memcpy((*at)->text, text, len);
    return *at;
}

int oracle_table_of(const char *name) {
    for (int i = 0; i < TABLES; i++) {
        if (strcmp(oracle_tables[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int oracle_row(oracle *o, int table, const char *id, int scope) {
    char name[128];
    snprintf(name, sizeof name, "%d/%s/%s", scope, oracle_tables[table].name, id);
    atom *a = oracle_atom(o, name);
    if (!a->row) {
        if (o->row_count == ROWS_MAX) {
            fprintf(stderr, "sim: too many rows\n");
            abort();
        }
        o->rows[o->row_count++] =
            (known_row){.table = table, .id = oracle_atom(o, id), .last = -1, .scope = scope};
        a->row = o->row_count;
    }
    return a->row - 1;
}

const version *oracle_at(const oracle *o, int row, int64_t seq) {
    int at = o->rows[row].last;
    while (at >= 0 && o->versions[at].seq > seq) {
        at = o->versions[at].before;
    }
    return at >= 0 ? &o->versions[at] : NULL;
}

void oracle_init(oracle *o) {
    memset(o, 0, sizeof *o);
    o->atoms = calloc(BUCKETS, sizeof *o->atoms);
    if (!o->atoms) {
        abort();
    }
}

void oracle_deinit(oracle *o) {
    for (size_t i = 0; i < BUCKETS; i++) {
        while (o->atoms[i]) {
            atom *next = o->atoms[i]->next;
            free(o->atoms[i]);
            o->atoms[i] = next;
        }
    }
    free(o->atoms);
    free(o->versions);
    free(o->ops);
    free(o->decisions);
    free(o->tags);
    for (int i = 0; i < SCOPES; i++) {
        free(o->scopes[i].salts);
    }
}

/* ---- the log ---- */

static version *next_version(oracle *o, int row, int64_t seq) {
    int last = o->rows[row].last;
    if (last >= 0 && o->versions[last].seq == seq) {
        return &o->versions[last];
    }
    o->versions = grown(o->versions, &o->version_cap, o->version_count, sizeof *o->versions);
    version *v = &o->versions[o->version_count];
    memset(v, 0, sizeof *v);
    if (last >= 0) {
        *v = o->versions[last];
    }
    const atom *null = oracle_atom(o, "NULL");
    for (int c = 0; c < COLUMNS; c++) {
        v->value[c] = v->value[c] ? v->value[c] : null;
    }
    v->seq = seq;
    v->row = row;
    v->before = last;
    o->rows[row].last = o->version_count++;
    return v;
}

static void set_column(const oracle *o, version *v, int c, const atom *value) {
    if (v->value[c] != value) {
        v->changer[c] = v->writer[c] = o->scopes[o->rows[v->row].scope].committing;
        v->written[c] = v->seq;
        v->value[c] = value;
        v->ver[c] = v->seq;
        v->authors[c] = 0;
    }
}

static void read_columns(world *w, version *v, const char *text, bool full) {
    const oracle_table *t = &oracle_tables[w->oracle.rows[v->row].table];
    sqlite3_stmt *q = query(w->server.observer, "SELECT key, quote(value) FROM json_each(?1)");
    bool seen[COLUMNS] = {false};
    sqlite3_bind_text(q, 1, text, -1, SQLITE_TRANSIENT);
    while (query_next(q)) {
        for (int c = 0; c < t->columns; c++) {
            if (strcmp(t->column[c], query_text(q, 0)) == 0) {
                seen[c] = true;
                set_column(&w->oracle, v, c, oracle_atom(&w->oracle, query_text(q, 1)));
            }
        }
    }
    query_done(q);
    for (int c = 0; full && c < t->columns; c++) {
        if (!seen[c]) {
            set_column(&w->oracle, v, c, oracle_atom(&w->oracle, "NULL"));
        }
    }
}

/* A row that comes back has what its deletion kept of it: values that the same commit had written
 * before it deleted the row are in no change of the log. */
static void settle_return(version *v, int64_t seq) {
    for (int c = 0; c < COLUMNS && v->gone; c++) {
        if (v->ver[c] == seq) {
            v->ver[c] = v->written[c] = v->gone;
            v->changer[c] = v->writer[c] = v->gone_by;
        }
    }
}

static void read_changes(world *w, int scope, int64_t seq, bool must_be_none) {
    sqlite3_stmt *q =
        query(w->server.observer, "SELECT tbl, pk, kind, full_row, cols FROM godwit_change WHERE"
                                  " scope = (SELECT no FROM godwit_name WHERE name = ?1) AND"
                                  " commit_seq = ?2 ORDER BY idx");
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 2, seq);
    while (query_next(q)) {
        int table = oracle_table_of(query_text(q, 0));
        if (table < 0) {
            continue; /* _conflicts */
        }
        if (must_be_none) {
            sim_fail(w, "I4", "commit %lld of s%d decided nothing and yet changed %s %s",
                     (long long)seq, scope, query_text(q, 0), query_text(q, 1));
        }
        int row = oracle_row(&w->oracle, table, query_text(q, 1), scope);
        version *v = next_version(&w->oracle, row, seq);
        bool upsert = query_text(q, 2)[0] == 'U', full = sqlite3_column_int(q, 3) != 0;
        bool was = v->present;
        v->present = upsert;
        v->gone = upsert ? v->gone : seq;
        v->gone_by = upsert ? v->gone_by : w->oracle.scopes[scope].committing;
        if (upsert && (full || was)) {
            read_columns(w, v, query_text(q, 4), full);
            if (!was) {
                settle_return(v, seq);
            }
        } else if (upsert) {
            sim_fail(w, "I11", "commit %lld of s%d changes columns of %s %s, which is not there",
                     (long long)seq, scope, query_text(q, 0), query_text(q, 1));
        }
    }
    query_done(q);
}

static stream *stream_of(world *w, int scope, const atom *name) {
    oracle_scope *s = &w->oracle.scopes[scope];
    for (int i = 0; i < s->stream_count; i++) {
        if (s->streams[i].device == name) {
            return &s->streams[i];
        }
    }
    if (s->stream_count == (int)COUNT_OF(s->streams)) {
        sim_fail(w, "I24", "more identities in s%d than anyone needs", scope);
    }
    s->streams[s->stream_count] = (stream){.device = name};
    return &s->streams[s->stream_count++];
}

/* Whoever wrote the value a column has now, first or again, has seen it. */
static void claim_columns(world *w, int scope, int64_t seq, int first) {
    oracle *o = &w->oracle;
    for (int i = first; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        const known_op *k = d->key->op && d->effect ? &o->ops[d->key->op - 1] : NULL;
        if (!k || (k->kind != 'u' && k->kind != 'c') || o->rows[k->row].last < 0) {
            continue;
        }
        int at = (int)(stream_of(w, scope, d->device) - o->scopes[scope].streams);
        version *v = next_version(o, k->row, seq);
        const version *was = oracle_at(o, k->row, seq - 1);
        bool back = v->present && (!was || !was->present), fresh = k->kind == 'c' && back;
        for (int c = 0; c < COLUMNS; c++) {
            v->ver[c] = fresh ? seq : v->ver[c];
            v->changer[c] = fresh ? at + 1 : v->changer[c];
            bool named = k->kind == 'c' || k->mask >> c & 1;
            if (v->present && named) { /* who wanted another value believes it to be there */
                bool equal = v->value[c] == k->now[c];
                /* what the deletion had kept, and is written again, is as old as it was */
                if (back && equal && !(was && was->value[c] == v->value[c])) {
                    v->ver[c] = seq;
                    v->changer[c] = at + 1;
                }
                v->written[c] = equal ? seq : v->written[c];
                v->writer[c] = equal ? at + 1 : v->writer[c];
                v->authors[c] = (v->authors[c] & ~(UINT64_C(1) << at)) | (uint64_t)equal << at;
            }
        }
    }
}

bool oracle_effective(const decision *d) {
    return d->effect && strcmp(d->outcome->text, "conflict") != 0;
}

/* The outcome was given before for this key: the first time, or when the server had forgotten that.
 */
static bool was_said(const oracle *o, const decision *d) {
    for (int i = o->decision_count - 1; i >= 0; i--) {
        const decision *x = &o->decisions[i];
        if (x->key == d->key && x->scope == d->scope && x->outcome == d->outcome) {
            return true;
        }
    }
    return false;
}

/* A key has its effect once, and one outcome, whoever carries it. */
static void take_decision(world *w, decision d) {
    oracle *o = &w->oracle;
    atom *key = oracle_atom(o, d.key->text);
    if (key->decided) {
        const decision *before = &o->decisions[key->decided - 1];
        if (before->scope == d.scope && oracle_effective(before) && oracle_effective(&d)) {
            sim_fail(w, "I4", "key %.16s took effect in commit %lld and again in %lld", d.key->text,
                     (long long)before->commit, (long long)d.commit);
        }
        if (before->scope == d.scope && o->scopes[d.scope].duplicate && !was_said(o, &d)) {
            sim_fail(w, "I5", "key %.16s was %s in commit %lld, and is said to be %s in %lld",
                     d.key->text, before->outcome->text, (long long)before->commit, d.outcome->text,
                     (long long)d.commit);
        }
    } else if (o->scopes[d.scope].duplicate) {
        sim_fail(w, "I4", "key %.16s is called a duplicate of nothing", d.key->text);
    }
    o->decisions = grown(o->decisions, &o->decision_cap, o->decision_count, sizeof *o->decisions);
    o->decisions[o->decision_count++] = d;
    if (!key->decided) {
        key->decided = o->decision_count;
    }
}

static void read_ledger(world *w, int scope, int64_t seq, const char *name, int64_t first,
                        int64_t last) {
    sqlite3_stmt *q = query(
        w->server.observer,
        "SELECT seq, lower(hex(op_key)), outcome, commit_seq FROM godwit_op WHERE scope = (SELECT "
        "no"
        " FROM godwit_name WHERE name = ?1) AND device_id = (SELECT no FROM godwit_name WHERE name"
        " = ?2) AND seq BETWEEN ?3 AND ?4 ORDER BY seq");
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 3, first);
    sqlite3_bind_int64(q, 4, last);
    int64_t at = first;
    for (; query_next(q); at++) {
        const char *outcome = query_text(q, 2);
        if (sqlite3_column_int64(q, 0) != at || sqlite3_column_int64(q, 3) != seq) {
            sim_fail(w, "I6", "the ledger of %s lacks %lld, or it is of another commit than %lld",
                     name, (long long)at, (long long)seq);
        }
        take_decision(w, (decision){.key = oracle_atom(&w->oracle, query_text(q, 1)),
                                    .device = oracle_atom(&w->oracle, name),
                                    .outcome = oracle_atom(&w->oracle, outcome),
                                    .seq = at,
                                    .commit = seq,
                                    .effect = strcmp(outcome, "rejected") != 0 &&
                                              !w->oracle.scopes[scope].duplicate,
                                    .scope = scope});
    }
    query_done(q);
    if (at != last + 1) {
        sim_fail(w, "I6", "commit %lld has operations %lld to %lld, the ledger ends at %lld",
                 (long long)seq, (long long)first, (long long)last, (long long)at - 1);
    }
}

static void add_salt(oracle_scope *s, int64_t seq, int64_t salt) {
    if ((size_t)seq > s->salt_cap) {
        s->salt_cap = s->salt_cap ? s->salt_cap * 2 : 256;
        s->salts = realloc(s->salts, s->salt_cap * sizeof *s->salts);
        if (!s->salts) {
            abort();
        }
    }
    s->salts[seq - 1] = salt;
    s->head = seq;
}

static void trace_values(world *w, const known_op *k) {
    const oracle_table *t = &oracle_tables[w->oracle.rows[k->row].table];
    for (int c = 0; c < t->columns; c++) {
        if (k->mask >> c & 1) {
            bool told = k->old_mask >> c & 1;
            sim_trace(w, "    %s: %s -> %s", t->column[c], told ? k->old[c]->text : "?",
                      k->now[c]->text);
        }
    }
}

static void read_commit(world *w, int scope, sqlite3_stmt *q) {
    oracle_scope *s = &w->oracle.scopes[scope];
    int64_t seq = sqlite3_column_int64(q, 0);
    if (seq != s->head + 1) {
        sim_fail(w, "I8", "s%d: commit %lld follows %lld", scope, (long long)seq,
                 (long long)s->head);
    }
    add_salt(s, seq, sqlite3_column_int64(q, 1));
    int first = w->oracle.decision_count;
    const char *outcome = query_text(q, 5);
    s->committing = 0;
    s->duplicate = strcmp(query_text(q, 5), "duplicate") == 0;
    if (sqlite3_column_type(q, 2) != SQLITE_NULL && sqlite3_column_int64(q, 3) > 0) {
        const char *name = query_text(q, 2);
        stream *st = stream_of(w, scope, oracle_atom(&w->oracle, name));
        if (sqlite3_column_int64(q, 3) != st->applied + 1) {
            sim_fail(w, "I6", "s%d: stream %.8s goes on at %lld after %lld", scope, name,
                     (long long)sqlite3_column_int64(q, 3), (long long)st->applied);
        }
        st->applied = sqlite3_column_int64(q, 4);
        s->committing = (int)(st - s->streams) + 1;
        read_ledger(w, scope, seq, name, sqlite3_column_int64(q, 3), st->applied);
    }
    bool nothing = strcmp(outcome, "rejected") == 0 || strcmp(outcome, "duplicate") == 0 ||
                   strcmp(outcome, "noop") == 0 || strcmp(outcome, "conflict") == 0;
    read_changes(w, scope, seq, nothing);
    claim_columns(w, scope, seq, first);
    w->commits++;
    w->seen[SEEN_SECOND_TENANT] += scope;
    w->seen[SEEN_DUPLICATE] += s->duplicate;
    w->seen[SEEN_REJECTED] += strcmp(outcome, "rejected") == 0;
    sim_trace(w, "commit s%d %lld %s", scope, (long long)seq, outcome);
    for (int i = first; i < w->oracle.decision_count; i++) {
        const decision *d = &w->oracle.decisions[i];
        const known_op *k = d->key->op ? &w->oracle.ops[d->key->op - 1] : NULL;
        if (k) {
            trace_values(w, k);
            sim_trace(w, "  %c %s %s of device %d (%lld), base %lld: %s", k->kind,
                      oracle_tables[w->oracle.rows[k->row].table].name,
                      w->oracle.rows[k->row].id->text, k->maker, (long long)d->seq,
                      (long long)k->base_seq, d->outcome->text);
        }
    }
    oracle_judge(w, scope, seq, first);
    oracle_types(w, scope, seq, first);
    oracle_order(w, scope, seq, first);
    oracle_revert(w, scope, seq, first);
}

void oracle_select(const oracle_table *t, int columns, char sql[512]) {
    size_t len = (size_t)snprintf(sql, 512, "SELECT id");
    for (int c = 0; c < columns; c++) {
        len += (size_t)snprintf(sql + len, 512 - len, ", quote(%s)", t->column[c]);
    }
    snprintf(sql + len, 512 - len, " FROM %s", t->name);
}

/* The tables are what the log says (I11 on the server). */
static void compare_tables(world *w, int scope) {
    oracle *o = &w->oracle;
    for (int t = 0; t < w->swarm.tables; t++) {
        char sql[512];
        int live = 0, shown = 0;
        oracle_select(&oracle_tables[t], oracle_tables[t].columns - (t == 0 && !w->server.upgraded),
                      sql);
        size_t len = strlen(sql);
        snprintf(
            sql + len, sizeof sql - len,
            " AS t JOIN godwit_row r ON r.tbl = '%s' AND r.pk = t.id"
            " AND r.del_ver IS NULL AND r.scope = (SELECT no FROM godwit_name WHERE name = 's%d')",
            oracle_tables[t].name, scope);
        sqlite3_stmt *q = query(w->server.observer, sql);
        for (; query_next(q); shown++) {
            const known_row *r = &o->rows[oracle_row(o, t, query_text(q, 0), scope)];
            const version *v = r->last >= 0 ? &o->versions[r->last] : NULL;
            if (!v || !v->present) {
                sim_fail(w, "I11", "the server shows %s %s, the log has deleted it",
                         oracle_tables[t].name, query_text(q, 0));
            }
            for (int c = 0; c + 1 < sqlite3_column_count(q); c++) {
                if (strcmp(v->value[c]->text, query_text(q, c + 1)) != 0) {
                    sim_fail(w, "I11", "the server shows %s of %s %s as %s, the log says %s",
                             oracle_tables[t].column[c], oracle_tables[t].name, query_text(q, 0),
                             query_text(q, c + 1), v->value[c]->text);
                }
            }
        }
        query_done(q);
        for (int i = 0; i < o->row_count; i++) {
            live += o->rows[i].table == t && o->rows[i].scope == scope && o->rows[i].last >= 0 &&
                    o->versions[o->rows[i].last].present;
        }
        if (live != shown) {
            sim_fail(w, "I11", "s%d: %d rows of %s by the log, %d in the table", scope, live,
                     oracle_tables[t].name, shown);
        }
    }
}

static void read_scope(world *w, int scope) {
    oracle_scope *s = &w->oracle.scopes[scope];
    sqlite3_stmt *q =
        query(w->server.observer,
              "SELECT c.commit_seq, c.salt, d.name, c.first_seq, c.last_seq, c.outcome FROM"
              " godwit_commit c LEFT JOIN godwit_name d ON d.no = c.device_id WHERE c.scope ="
              " (SELECT no FROM godwit_name WHERE name = ?1) AND c.commit_seq > ?2 ORDER BY"
              " c.commit_seq");
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 2, s->head);
    int64_t before = s->head;
    while (query_next(q)) {
        read_commit(w, scope, q);
    }
    query_done(q);
    char sql[96];
    snprintf(sql, sizeof sql, "SELECT coalesce(max(head), 0) FROM godwit_scope WHERE scope = 's%d'",
             scope);
    if (query_int(w->server.observer, sql) != s->head) {
        sim_fail(w, "I8", "s%d: the head is not the last commit %lld", scope, (long long)s->head);
    }
    snprintf(sql, sizeof sql,
             "SELECT coalesce(max(horizon), 0) FROM godwit_scope WHERE scope = 's%d'", scope);
    s->horizon = query_int(w->server.observer, sql);
    if (s->head != before) {
        compare_tables(w, scope);
    }
}

void oracle_server(world *w) {
    if (!w->server.service || w->server.disk.halted) {
        return;
    }
    w->server.disk.quiet++;
    if (!w->server.observer && sqlite3_open_v2("/tmp/store.db", &w->server.observer,
                                               SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        sim_fail(w, "I28", "the server's store does not open");
    }
    for (int i = 0; i < SCOPES; i++) {
        read_scope(w, i);
    }
    w->server.disk.quiet--;
}

/* ---- after a restore ---- */

static int64_t common_prefix(world *w, int scope) {
    const oracle_scope *s = &w->oracle.scopes[scope];
    sqlite3_stmt *q = query(w->server.observer,
                            "SELECT commit_seq, salt FROM godwit_commit WHERE scope = (SELECT no"
                            " FROM godwit_name WHERE name = ?1) ORDER BY commit_seq");
    int64_t common = 0;
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    while (query_next(q)) {
        int64_t seq = sqlite3_column_int64(q, 0);
        if (seq > s->head || s->salts[seq - 1] != sqlite3_column_int64(q, 1)) {
            break;
        }
        common = seq;
    }
    query_done(q);
    return common;
}

static void forget_after(oracle *o, int scope, int64_t seq, int64_t *lost) {
    for (int i = 0; i < o->row_count; i++) {
        known_row *r = &o->rows[i];
        while (r->scope == scope && r->last >= 0 && o->versions[r->last].seq > seq) {
            r->last = o->versions[r->last].before;
        }
    }
    oracle_scope *s = &o->scopes[scope];
    for (int i = 0; i < s->stream_count; i++) {
        s->streams[i].applied = 0;
    }
    for (int i = 0; i < o->decision_count; i++) {
        decision *d = &o->decisions[i];
        if (d->scope == scope && d->commit > seq) {
            atom *key = oracle_atom(o, d->key->text);
            key->decided = key->decided == i + 1 ? 0 : key->decided;
            if (key->op) {
                o->ops[key->op - 1].lost = true;
            }
            d->scope = -1; /* of a history that is no more */
        }
    }
    for (int i = 0; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        if (d->scope == scope) {
            for (int k = 0; k < s->stream_count; k++) {
                if (s->streams[k].device == d->device && s->streams[k].applied < d->seq) {
                    s->streams[k].applied = d->seq;
                }
            }
        }
    }
    oracle_types_forget(o, scope, seq);
    s->lost_history = s->lost_history || s->head > seq;
    *lost += s->head > seq;
    s->head = seq;
}

void oracle_rewind(world *w) {
    w->server.disk.quiet++;
    if (sqlite3_open_v2("/tmp/store.db", &w->server.observer, SQLITE_OPEN_READWRITE, NULL) !=
        SQLITE_OK) {
        sim_fail(w, "I28", "the server's restored store does not open");
    }
    for (int i = 0; i < SCOPES; i++) {
        forget_after(&w->oracle, i, common_prefix(w, i), &w->seen[SEEN_RESTORED_SERVER]);
    }
    w->server.disk.quiet--;
}
