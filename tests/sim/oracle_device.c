/* A device as the application sees it, against what it must be. See oracle.h. */
#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

#define WAITING "state IN ('pending', 'acked', 'parked') AND state <> 'retired'"

typedef struct {
    world *w;
    device *d;
    oracle *o;
    int overlay; /* operations waiting */
} check;

/* ---- operations ---- */

static unsigned take_values(check *c, const known_op *k, const char *text, const atom **out) {
    unsigned mask = 0;
    const oracle_table *t = &oracle_tables[c->o->rows[k->row].table];
    sqlite3_stmt *q = query(c->d->db, "SELECT key, quote(value) FROM json_each(?1)");
    sqlite3_bind_text(q, 1, text, -1, SQLITE_TRANSIENT);
    while (query_next(q)) {
        for (int i = 0; i < t->columns; i++) {
            if (strcmp(t->column[i], query_text(q, 0)) == 0) {
                out[i] = oracle_atom(c->o, query_text(q, 1));
                mask |= 1u << i;
            }
        }
    }
    query_done(q);
    return mask;
}

/* What was committed together is sealed as one group (I13). */
static void learn_group(check *c, int64_t lsn, int64_t group) {
    for (unsigned i = 0; i < WRITTEN_KEPT; i++) {
        together *t = &c->d->know.written[i];
        if (lsn < t->first || lsn > t->last) {
            continue;
        }
        if (t->group && t->group != group) {
            sim_fail(c->w, "I13",
                     "device %d: operations %lld to %lld were committed together, and"
                     " %lld is of another group",
                     c->d->number, (long long)t->first, (long long)t->last, (long long)lsn);
        }
        t->group = group;
    }
}

/* What an update says it replaced is what its author had: the server's state at its base, where no
 * operation of his own on the row came between (I18: later it decides whether something is lost).
 */
static void judge_old(check *c, const known_op *k) {
    const oracle *o = c->o;
    const oracle_scope *s = &o->scopes[c->d->scope];
    if (k->kind != 'u' || k->base_seq < 1 || k->base_seq > s->head || c->d->copied ||
        s->salts[k->base_seq - 1] != k->base_salt || c->d->late_column || s->lost_history ||
        c->w->swarm.resolves) {
        return;
    }
    for (int at = k->previous; at; at = o->ops[at - 1].previous) {
        const known_op *p = &o->ops[at - 1];
        const decision *d = p->key->decided ? &o->decisions[p->key->decided - 1] : NULL;
        /* values of a refused REPLACE are shown until a snapshot tells the old ones */
        if (p->row == k->row &&
            (!d || d->commit > k->base_seq || strcmp(d->outcome->text, "rejected") == 0)) {
            return;
        }
    }
    const version *v = oracle_at(o, k->row, k->base_seq);
    for (int i = 0; v && v->present && i < COLUMNS; i++) {
        if ((k->mask & k->old_mask) >> i & 1 && k->old[i] != v->value[i]) {
            sim_fail(
                c->w, "I18",
                "device %d: an update of %s says it replaced %s, and its author had %s at %lld",
                c->d->number, o->rows[k->row].id->text, k->old[i]->text, v->value[i]->text,
                (long long)k->base_seq);
        }
    }
}

static void learn(check *c, sqlite3_stmt *q) {
    oracle *o = c->o;
    atom *key = oracle_atom(o, query_text(q, 1));
    int table = oracle_table_of(query_text(q, 3));
    c->d->know.op_seen = sqlite3_column_int64(q, 0);
    if (key->op) {
        o->ops[key->op - 1].shared |= o->ops[key->op - 1].maker != c->d->number;
        oracle_learn_order(c->w, c->d->number, key->op - 1, c->d->know.op_seen);
    }
    if (key->op || table < 0) {
        return;
    }
    if (o->op_count == o->op_cap) {
        o->op_cap = o->op_cap ? o->op_cap * 2 : 128;
        o->ops = realloc(o->ops, (size_t)o->op_cap * sizeof *o->ops);
        if (!o->ops) {
            abort();
        }
    }
    known_op *k = &o->ops[o->op_count];
    *k = (known_op){.key = key,
                    .kind = query_text(q, 2)[0],
                    .row = oracle_row(o, table, query_text(q, 4), c->d->scope),
                    .seq = sqlite3_column_int64(q, 7),
                    .base_seq = sqlite3_column_int64(q, 8),
                    .base_salt = sqlite3_column_int64(q, 9),
                    .group_first = sqlite3_column_int64(q, 10),
                    .group_size = sqlite3_column_int64(q, 11),
                    .device = oracle_atom(o, query_text(q, 12)),
                    .maker = c->d->number};
    const atom *null = oracle_atom(o, "NULL");
    for (int i = 0; i < COLUMNS; i++) {
        k->now[i] = k->old[i] = null;
    }
    k->mask = take_values(c, k, query_text(q, 5), k->now);
    if (sqlite3_column_type(q, 6) != SQLITE_NULL) {
        k->old_mask = take_values(c, k, query_text(q, 6), k->old);
    }
    k->reverts = strncmp(query_text(q, 13), "revert ", 7) == 0
                     ? oracle_atom(o, query_text(q, 13) + 7)
                     : NULL;
    learn_group(c, c->d->know.op_seen, k->group_first);
    key->op = ++o->op_count;
    oracle_learn_order(c->w, c->d->number, key->op - 1, c->d->know.op_seen);
    judge_old(c, k);
    sim_trace(c->w, "device %d sealed %lld: %s %s %s", c->d->number, (long long)c->d->know.op_seen,
              query_text(q, 2), query_text(q, 3), query_text(q, 4));
}

static void learn_all(check *c) {
    sqlite3_stmt *q = query(
        c->d->db, "SELECT o.lsn, lower(hex(o.idempotency_key)), o.operation, t.name, o.entity_id,"
                  " o.payload, o.base, o.sequence_number, o.base_seq, o.base_salt, o.group_first,"
                  " o.group_size, o.device_id, o.resolves FROM godwit_op o JOIN godwit_table t ON "
                  "t.tbl = o.tbl"
                  " WHERE o.lsn > ?1 ORDER BY o.lsn");
    sqlite3_bind_int64(q, 1, c->d->know.op_seen);
    while (query_next(q)) {
        learn(c, q);
    }
    query_done(q);
}

static bool readable(const device *d) {
    return d->g && d->db && !d->disk.halted && sqlite3_get_autocommit(d->db);
}

void oracle_learn(world *w, int number) {
    device *d = &w->devices[number];
    check c = {.w = w, .d = d, .o = &w->oracle};
    if (readable(d)) {
        d->disk.quiet++;
        learn_all(&c);
        d->disk.quiet--;
    }
}

/* ---- what the application shows ---- */

static void show_table(check *c, int table) {
    const oracle_table *t = &oracle_tables[table];
    char sql[512];
    oracle_select(t, t->columns - (table == 0 && !c->d->upgraded), sql);
    sqlite3_stmt *q = query(c->d->db, sql);
    while (query_next(q)) {
        shown_row *r = &c->d->know.rows[oracle_row(c->o, table, query_text(q, 0), c->d->scope)];
        r->present = true;
        for (int i = 0; i < t->columns; i++) {
            bool has = i + 1 < sqlite3_column_count(q);
            r->value[i] = oracle_atom(c->o, has ? query_text(q, i + 1) : "NULL");
        }
    }
    query_done(q);
}

static void compare(check *c, const char *invariant, const shown_row *want, int table,
                    const char *what) {
    const shown_row *shown = c->d->know.rows;
    for (int i = 0; i < c->o->row_count; i++) {
        const known_row *r = &c->o->rows[i];
        if (r->table != table || r->scope != c->d->scope) {
            continue;
        }
        if (shown[i].present != want[i].present) {
            sim_fail(c->w, invariant, "device %d %s %s %s: %s", c->d->number,
                     shown[i].present ? "shows" : "does not show", oracle_tables[table].name,
                     r->id->text, what);
        }
        for (int k = 0; want[i].present && k < oracle_tables[table].columns; k++) {
            bool has = table != 0 || k != 4 || (c->d->upgraded && !c->d->late_column);
            if (has && shown[i].value[k] != want[i].value[k]) {
                sim_fail(c->w, invariant, "device %d shows %s of %s %s as %s, not %s: %s",
                         c->d->number, oracle_tables[table].column[k], oracle_tables[table].name,
                         r->id->text, shown[i].value[k]->text, want[i].value[k]->text, what);
            }
        }
    }
}

/* ---- captured changes ---- */

static void replay_log(check *c, shown_row *rows, int64_t after) {
    sqlite3_stmt *q =
        query(c->d->db, "SELECT l.lsn, l.op, t.name, l.pk, l.mask, quote(l.v0), quote(l.v1),"
                        " quote(l.v2), quote(l.v3), quote(l.v4), quote(l.o0), quote(l.o1),"
                        " quote(l.o2), quote(l.o3), quote(l.o4) FROM godwit_log l JOIN"
                        " godwit_table t ON t.tbl = l.tbl WHERE l.lsn > ?1 ORDER BY l.lsn");
    sqlite3_bind_int64(q, 1, after);
    while (query_next(q)) {
        int op = sqlite3_column_int(q, 1), table = oracle_table_of(query_text(q, 2));
        if (table < 0 || op == 4) {
            continue;
        }
        shown_row *r = &rows[oracle_row(c->o, table, query_text(q, 3), c->d->scope)];
        bool all = sqlite3_column_type(q, 4) == SQLITE_NULL;
        int64_t mask = sqlite3_column_int64(q, 4);
        for (int i = 0; op <= 2 && i < oracle_tables[table].columns; i++) {
            char kind = oracle_tables[table].kinds[i];
            if (op == 2 && r->present && kind != 'p' && mask >> i & 1) {
                const atom *old = oracle_atom(c->o, query_text(q, 10 + i));
                const atom *now = oracle_atom(c->o, query_text(q, 5 + i));
                r->value[i] = oracle_commute(c->o, kind, r->value[i], old, now);
            } else if (all || mask >> i & 1 || (op == 1 && !r->present)) {
                r->value[i] =
                    oracle_atom(c->o, all || mask >> i & 1 ? query_text(q, 5 + i) : "NULL");
            }
        }
        r->present = op == 1 || (op == 2 && r->present);
    }
    query_done(q);
}

/* The application has committed, or a process died while it did: the row and its operation are both
 * there, or neither is. */
static void check_capture(check *c, shown_row *rows) {
    replay_log(c, rows, c->d->know.log_seen);
    for (int t = 0; t < c->w->swarm.tables; t++) {
        if (t != 1 || c->d->has_forms) {
            compare(c, "I1", rows, t, "rows and captured operations disagree");
        }
    }
}

static void check_log(check *c, bool together_written) {
    int64_t newest = query_int(c->d->db, "SELECT coalesce(max(lsn), 0) FROM godwit_log");
    if (newest < c->d->know.log_seen) {
        sim_fail(c->w, "I1", "device %d: operation %lld was committed and is not there",
                 c->d->number, (long long)c->d->know.log_seen);
    }
    if (together_written && newest > c->d->know.log_seen + 1) {
        c->d->know.written[c->d->know.written_at++ % WRITTEN_KEPT] =
            (together){.first = c->d->know.log_seen + 1, .last = newest};
    }
    c->d->know.log_seen = newest;
}

/* ---- the server's state with what waits on top ---- */

static void replay_op(oracle *o, shown_row *rows, const known_op *k) {
    const char *kinds = oracle_tables[o->rows[k->row].table].kinds;
    shown_row *r = &rows[k->row];
    if (k->kind == 'd') {
        r->present = false;
    } else if (k->kind == 'c' || (k->kind == 'u' && r->present)) {
        for (int i = 0; i < COLUMNS; i++) {
            if (k->kind == 'u' && k->mask & k->old_mask & 1u << i) {
                r->value[i] = oracle_commute(o, kinds[i], r->value[i], k->old[i], k->now[i]);
            } else if ((k->mask >> i & 1) || (k->kind == 'c' && !r->present)) {
                r->value[i] = k->now[i];
            }
        }
        r->present = true;
    }
}

static void replay_waiting(check *c, shown_row *rows) {
    sqlite3_stmt *q = query(c->d->db, "SELECT lower(hex(idempotency_key)), operation FROM godwit_op"
                                      " WHERE " WAITING " ORDER BY lsn");
    while (query_next(q)) {
        int op = oracle_atom(c->o, query_text(q, 0))->op;
        c->overlay++;
        if (op && query_text(q, 1)[0] != 'v') {
            replay_op(c->o, rows, &c->o->ops[op - 1]);
        }
    }
    query_done(q);
    int64_t sealed = query_int(c->d->db, "SELECT coalesce((SELECT CAST(v AS INTEGER) FROM"
                                         " godwit_meta WHERE k = 'sealed_lsn'), 0)");
    c->overlay += c->d->know.log_seen > sealed;
    replay_log(c, rows, sealed);
}

/* Counts when it was left behind the horizon, and when it has begun anew. */
static void count_position(check *c, bool live, int64_t seq) {
    oracle_device *know = &c->d->know;
    bool behind = live && seq < c->o->scopes[c->d->scope].horizon;
    c->w->seen[SEEN_HORIZON] += behind && !know->behind;
    c->w->seen[SEEN_SNAPSHOT] += live && know->starting && seq > 0;
    know->fresh = live && know->starting && seq > 0;
    know->behind = behind;
    know->starting = !live;
}

/* false: nothing can be said, it is about to start anew or knows a history that is no more. */
static bool base_rows(check *c, shown_row *rows) {
    sqlite3_stmt *q = query(c->d->db, "SELECT commit_seq, salt, state FROM godwit_cursor WHERE"
                                      " scope = ?1");
    sqlite3_bind_text(q, 1, c->d->scope ? "s1" : "s0", -1, SQLITE_STATIC);
    bool row = query_next(q);
    int64_t seq = row ? sqlite3_column_int64(q, 0) : 0, salt = row ? sqlite3_column_int64(q, 1) : 0;
    bool live = row && strcmp(query_text(q, 2), "live") == 0;
    query_done(q);
    const oracle_scope *s = &c->o->scopes[c->d->scope];
    count_position(c, row && live, seq);
    c->d->know.lived |= live && seq > 0;
    /* a snapshot of a server that has nothing begins at 0: until it is shown the rows are the
     * former ones */
    if ((!live && (seq > 0 || c->d->know.lived)) || seq > s->head ||
        (seq > 0 && s->salts[seq - 1] != salt)) {
        return false;
    }
    for (int i = 0; i < c->o->row_count; i++) {
        const version *v = oracle_at(c->o, i, seq);
        if (v && v->present && c->o->rows[i].scope == c->d->scope) {
            rows[i].present = true;
            memcpy(rows[i].value, v->value, sizeof v->value);
        }
    }
    return true;
}

static void check_overlay(check *c) {
    shown_row rows[ROWS_MAX];
    memset(rows, 0, sizeof rows);
    if (base_rows(c, rows)) {
        replay_waiting(c, rows);
        const char *invariant = c->d->know.fresh ? "I16" : c->overlay ? "I12" : "I11";
        for (int t = 0; t < c->w->swarm.tables; t++) {
            if (oracle_tables[t].strict) {
                compare(c, invariant, rows, t, "not the server's state with its own on top");
            }
        }
        if (!c->overlay && c->d->has_forms) {
            compare(c, c->d->know.fresh ? "I16" : "I11", rows, 1, "not the server's state");
        }
    }
}

/* ---- the queue ---- */

/* A record of a refusal that somebody has dealt with is kept for a while only, here; the server
 * that comes back from a backup may not know it either. */
static void learn_replaced(check *c) {
    sqlite3_stmt *q = query(c->d->db, "SELECT lower(hex(idempotency_key)) FROM godwit_outcome WHERE"
                                      " resolution IS NOT NULL");
    while (query_next(q)) {
        int op = oracle_atom(c->o, query_text(q, 0))->op;
        if (op) {
            c->o->ops[op - 1].replaced = true;
        }
    }
    query_done(q);
}

static void check_queue(check *c) {
    sqlite3 *db = c->d->db;
    if (query_int(db,
                  "SELECT count(*) FROM (SELECT 1 FROM godwit_op WHERE " WAITING
                  " GROUP BY scope, device_id, group_first HAVING count(*) <> max(group_size))") !=
        0) {
        sim_fail(c->w, "I13", "device %d: a part of a group waits", c->d->number);
    }
    if (query_int(db, "SELECT count(*) FROM godwit_op AS o WHERE state IN ('rejected', 'blocked',"
                      " 'conflict') AND state <> 'retired' AND NOT EXISTS (SELECT 1 FROM"
                      " godwit_outcome x WHERE x.lsn = o.lsn AND x.payload IS NOT NULL)") != 0) {
        sim_fail(c->w, "I3", "device %d: a refused operation without its content", c->d->number);
    }
    learn_replaced(c);
    if (c->o->scopes[c->d->scope].lost_history || c->w->server.disk.halted) {
        return;
    }
    sqlite3_stmt *q = query(db, "SELECT lower(hex(idempotency_key)), lsn FROM godwit_op WHERE state"
                                " = 'acked' OR state = 'retired'");
    while (query_next(q)) {
        if (!oracle_atom(c->o, query_text(q, 0))->decided) {
            sim_fail(c->w, "I2", "device %d: operation %lld counts as delivered, and is not",
                     c->d->number, (long long)sqlite3_column_int64(q, 1));
        }
    }
    query_done(q);
}

void oracle_device_check(world *w, int number, bool wrote) {
    device *d = &w->devices[number];
    check c = {.w = w, .d = d, .o = &w->oracle};
    if (!readable(d)) {
        return;
    }
    oracle_server(w);
    d->disk.quiet++;
    learn_all(&c);
    shown_row before[ROWS_MAX];
    memcpy(before, d->know.rows, sizeof before);
    memset(d->know.rows, 0, sizeof d->know.rows);
    for (int t = 0; t < w->swarm.tables; t++) {
        if (t != 1 || d->has_forms) {
            show_table(&c, t);
        }
    }
    if (wrote && !d->victim && !d->migrating) {
        check_capture(&c, before);
    }
    check_log(&c, wrote && !d->foreign && !d->migrating);
    if (!d->victim && !d->migrating) {
        check_overlay(&c);
        check_queue(&c);
    }
    d->disk.quiet--;
}
