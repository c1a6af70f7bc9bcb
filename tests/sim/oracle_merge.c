/* Judges one commit: groups whole, no value lost or overwritten without a trace (I7, I10, I13,
 * I18). */
#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

typedef struct {
    world *w;
    int scope, first; /* decisions[first..] */
    int64_t seq;
    int at; /* the decision at hand, its operation, the row before the commit */
    const known_op *op;
    const version *before;
} judge;

static const known_op *op_of(const oracle *o, const decision *d) {
    return d->key->op ? &o->ops[d->key->op - 1] : NULL;
}

/* The group is whole and alone in its commit. */
static void judge_group(const judge *j) {
    const oracle *o = &j->w->oracle;
    const known_op *head = op_of(o, &o->decisions[j->first]);
    bool effect = o->decisions[j->first].effect;
    for (int i = j->first; i < o->decision_count; i++) {
        const known_op *k = op_of(o, &o->decisions[i]);
        if (!k || !head) {
            return; /* of a writer the checker does not know */
        }
        if (k->group_first != head->group_first || k->maker != head->maker ||
            o->decision_count - j->first != k->group_size) {
            sim_fail(j->w, "I13", "commit %lld of s%d has %d operations of a group of %lld",
                     (long long)j->seq, j->scope, o->decision_count - j->first,
                     (long long)k->group_size);
        }
        if (o->decisions[i].effect != effect) {
            sim_fail(j->w, "I13", "commit %lld of s%d took effect in part", (long long)j->seq,
                     j->scope);
        }
    }
}

static bool recorded(const judge *j) {
    sqlite3_stmt *q = query(j->w->server.observer,
                            "SELECT 1 FROM godwit_conflict WHERE scope = ?1 AND commit_seq = ?2 AND"
                            " lower(hex(op_key)) = ?3");
    sqlite3_bind_text(q, 1, j->scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 2, j->seq);
    sqlite3_bind_text(q, 3, j->op->key->text, -1, SQLITE_STATIC);
    bool found = query_next(q);
    query_done(q);
    j->w->seen[SEEN_CONFLICT] += found;
    return found;
}

int64_t oracle_seen(const oracle *o, int scope, const known_op *k) {
    const oracle_scope *s = &o->scopes[scope];
    bool known =
        k->base_seq > 0 && k->base_seq <= s->head && s->salts[k->base_seq - 1] == k->base_salt;
    return known ? k->base_seq : 0;
}

int oracle_author(const oracle *o, const decision *d) {
    const oracle_scope *s = &o->scopes[d->scope];
    int at = 0;
    while (at < s->stream_count && s->streams[at].device != d->device) {
        at++;
    }
    return at;
}

static int64_t seen(const judge *j) {
    return oracle_seen(&j->w->oracle, j->scope, j->op);
}

static int author_of(const judge *j) {
    return oracle_author(&j->w->oracle, &j->w->oracle.decisions[j->at]);
}

/* The column's last write is the author's own, or one it knew, and so is its last change (who
 * writes what is there already may count or not): its word counts. */
static bool causal(const judge *j, int c) {
    const version *v = j->before;
    int author = author_of(j) + 1;
    return (v->written[c] <= seen(j) || v->writer[c] == author) &&
           (v->ver[c] <= seen(j) || v->changer[c] == author);
}

/* The value is another's, and the author can't have known it. */
static bool unseen(const judge *j, int c) {
    int author = author_of(j);
    return j->before->ver[c] > seen(j) && j->before->changer[c] != author + 1 &&
           !(j->before->authors[c] >> author & 1);
}

/* Columns of a table have the policy that the seed gives them; all others let the later edit win.
 */
static void judge_policy(const judge *j, int c, const atom *was, const atom *now) {
    const known_row *r = &j->w->oracle.rows[j->op->row];
    title_policy policy = r->table == 2 && c == 0 ? j->w->swarm.title : TITLE_LWW;
    const atom *wanted = j->op->now[c];
    bool told = j->op->old_mask >> c & 1;
    if (policy == TITLE_LWW || was == wanted || (told && j->op->old[c] == was) || !unseen(j, c)) {
        return;
    }
    if (now != (policy == TITLE_SERVER_WINS ? was : wanted)) {
        sim_fail(j->w, "I18",
                 "commit %lld: %s of %s was %s, somebody else wants %s, and it is %s against its"
                 " policy",
                 (long long)j->seq, oracle_tables[r->table].column[c], r->id->text, was->text,
                 wanted->text, now->text);
    }
    j->w->seen[SEEN_POLICY]++;
}

static void judge_column(const judge *j, int c) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    char kind = oracle_tables[o->rows[k->row].table].kinds[c];
    if (kind == 'c' || kind == 's') {
        return; /* all writes count: oracle_types.c */
    }
    const version *after = oracle_at(o, k->row, j->seq);
    const char *table = oracle_tables[o->rows[k->row].table].name;
    const char *column = oracle_tables[o->rows[k->row].table].column[c];
    const atom *was = j->before->value[c], *now = after->value[c], *wanted = k->now[c];
    bool foreign = unseen(j, c) && kind == 'p'; /* an extreme contains the other value */
    bool certain = !j->w->swarm.retain && (k->old_mask >> c & 1);
    if (causal(j, c) && now != wanted && (certain || !recorded(j))) {
        sim_fail(j->w, "I10",
                 "commit %lld: %s of %s %s was set to %s by one who knew %s, and is %s",
                 (long long)j->seq, column, table, o->rows[k->row].id->text, wanted->text,
                 was->text, now->text);
    }
    bool overwritten =
        foreign && now == wanted && was != wanted && !((k->old_mask >> c & 1) && k->old[c] == was);
    if ((overwritten || now != wanted) && !recorded(j)) {
        sim_fail(j->w, "I18",
                 "commit %lld: %s of %s %s had %s, wanted %s, is %s, and nothing is recorded",
                 (long long)j->seq, column, table, o->rows[k->row].id->text, was->text,
                 wanted->text, now->text);
    }
    judge_policy(j, c, was, now);
}

/* Whether a later operation of the commit decides about the same column of the row. */
static bool overtaken(const judge *j, int c) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    for (int i = j->at + 1; i < o->decision_count; i++) {
        const known_op *later = op_of(o, &o->decisions[i]);
        if (later && later->row == k->row && (later->kind != 'u' || later->mask >> c & 1)) {
            return true;
        }
    }
    return false;
}

static bool first_on_row(const judge *j, int c) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    for (int i = j->first; i < j->at; i++) {
        const known_op *earlier = op_of(o, &o->decisions[i]);
        if (earlier && earlier->row == k->row && (earlier->kind != 'u' || earlier->mask >> c & 1)) {
            return false;
        }
    }
    return true;
}

/* A row that was deleted and came back has values of more than one hand. */
static bool was_deleted(const oracle *o, const version *v) {
    while (v->present && v->before >= 0) {
        v = &o->versions[v->before];
    }
    return !v->present;
}

static void judge_update(const judge *j) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    const version *before = j->before;
    const version *after = oracle_at(o, k->row, j->seq);
    if (!before || !before->present || !after || !after->present) {
        return; /* deleted meanwhile: judged by what is recorded */
    }
    int columns = oracle_tables[o->rows[k->row].table].columns;
    bool known = !j->w->swarm.retain && !was_deleted(o, before);
    for (int c = 0; c < columns; c++) {
        known = known && (!(k->mask >> c & 1) || (causal(j, c) && first_on_row(j, c)));
    }
    if (known && strcmp(o->decisions[j->at].outcome->text, "merged") == 0) {
        sim_fail(j->w, "I10", "commit %lld: an update of %s by one who knew all of it was merged",
                 (long long)j->seq, o->rows[k->row].id->text);
    }
    for (int c = 0; c < columns; c++) {
        if ((k->mask >> c & 1) && !overtaken(j, c) && first_on_row(j, c)) {
            judge_column(j, c);
        }
    }
}

static void judge_create(const judge *j) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    const version *after = oracle_at(o, k->row, j->seq);
    int columns = oracle_tables[o->rows[k->row].table].columns;
    bool lost = false, whole = true;
    for (int c = 0; c < columns; c++) {
        whole = whole && !overtaken(j, c) && first_on_row(j, c);
        bool adds = strchr("cs", oracle_tables[o->rows[k->row].table].kinds[c]) != NULL;
        lost = lost || (after && !adds && (k->mask >> c & 1) && after->value[c] != k->now[c]);
    }
    if (!whole) {
        return;
    }
    if ((!after || !after->present) && !recorded(j)) {
        sim_fail(j->w, "I10", "commit %lld: created %s is not there", (long long)j->seq,
                 o->rows[k->row].id->text);
    }
    if (lost && after->present && !recorded(j)) {
        sim_fail(j->w, "I18", "commit %lld: values of created %s are not there, nor recorded",
                 (long long)j->seq, o->rows[k->row].id->text);
    }
}

static void judge_delete(const judge *j) {
    const oracle *o = &j->w->oracle;
    const known_op *k = j->op;
    const version *before = j->before;
    const version *after = oracle_at(o, k->row, j->seq);
    if (!before || !before->present || overtaken(j, 0) || !first_on_row(j, 0)) {
        return;
    }
    bool foreign = false;
    int columns = oracle_tables[o->rows[k->row].table].columns;
    for (int c = 0; c < columns; c++) {
        foreign = foreign || unseen(j, c);
    }
    bool gone = !after->present;
    if (gone == foreign && !recorded(j)) {
        sim_fail(j->w, gone ? "I18" : "I10",
                 "commit %lld: %s %s although %s, and nothing is recorded", (long long)j->seq,
                 o->rows[k->row].id->text, gone ? "was deleted" : "stayed",
                 foreign ? "somebody had edited it meanwhile" : "nobody else had touched it");
    }
    bool deletes_win = o->rows[k->row].table == 2 && j->w->swarm.deletes_win;
    if (foreign && gone != deletes_win) {
        sim_fail(j->w, "I18",
                 "commit %lld: %s %s although somebody had edited it, and %s win there",
                 (long long)j->seq, o->rows[k->row].id->text, gone ? "was deleted" : "stayed",
                 deletes_win ? "deletes" : "edits");
    }
    j->w->seen[SEEN_DELETE_WON] += foreign && gone;
}

/* Held as a whole: what it stands on is lost or forgotten. Its content must be kept. */
static void judge_held(const judge *j) {
    world *w = j->w;
    char sql[160];
    w->seen[SEEN_HELD]++;
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM godwit_conflict WHERE scope = 's%d' AND commit_seq = %lld",
             j->scope, (long long)j->seq);
    if (!w->swarm.retain && !w->oracle.scopes[j->scope].lost_history) {
        sim_fail(j->w, "I10", "commit %lld of s%d is held, and nothing was lost or forgotten",
                 (long long)j->seq, j->scope);
    }
    if (query_int(w->server.observer, sql) < 1) {
        sim_fail(j->w, "I18", "commit %lld of s%d is held, and nothing is recorded",
                 (long long)j->seq, j->scope);
    }
}

void oracle_judge(world *w, int scope, int64_t seq, int first) {
    judge j = {.w = w, .scope = scope, .first = first, .seq = seq};
    const oracle *o = &w->oracle;
    if (first == o->decision_count) {
        return;
    }
    judge_group(&j);
    for (int i = first; i < o->decision_count; i++) {
        j.at = i;
        j.op = op_of(o, &o->decisions[i]);
        if (!j.op || !o->decisions[i].effect || j.op->row < 0) {
            continue;
        }
        if (strcmp(o->decisions[i].outcome->text, "conflict") == 0) {
            judge_held(&j);
            continue;
        }
        j.before = oracle_at(o, j.op->row, seq - 1);
        if (j.op->kind == 'u') {
            judge_update(&j);
        } else if (j.op->kind == 'c') {
            judge_create(&j);
        } else if (j.op->kind == 'd') {
            judge_delete(&j);
        }
    }
}
