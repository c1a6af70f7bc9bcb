/* Taking back what a policy decided (I19): the value that lost comes back, unless somebody has
 * edited the column since. See oracle.h. */
#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

typedef struct {
    world *w;
    const known_op *k;
    int64_t seq, conflict_seq;
} revert;

static void judge_value(const revert *r, const char *name, const atom *lost) {
    const oracle *o = &r->w->oracle;
    const oracle_table *t = &oracle_tables[o->rows[r->k->row].table];
    const version *before = oracle_at(o, r->k->row, r->seq - 1);
    const version *after = oracle_at(o, r->k->row, r->seq);
    for (int c = 0; c < t->columns; c++) {
        if (strcmp(t->column[c], name) != 0 || !before || !before->present || !after ||
            !after->present || before->written[c] > r->conflict_seq) {
            continue;
        }
        r->w->seen[SEEN_TAKEN_BACK]++;
        if (after->value[c] != lost) {
            sim_fail(r->w, "I19",
                     "commit %lld takes a decision back: %s of %s had lost %s, and is %s",
                     (long long)r->seq, name, o->rows[r->k->row].id->text, lost->text,
                     after->value[c]->text);
        }
    }
}

/* A deletion that had won over an edit is taken back: the row is there as the edit would have left
 * it, with the values it was deleted with. */
static void judge_row(const revert *r, int scope) {
    const oracle *o = &r->w->oracle;
    const version *before = oracle_at(o, r->k->row, r->seq - 1);
    const version *after = oracle_at(o, r->k->row, r->seq);
    sqlite3_stmt *q = query(r->w->server.observer,
                            "SELECT commit_seq, lower(hex(op_key)) FROM godwit_conflict WHERE scope"
                            " = ?1 AND conflict_id = ?2 AND kind = 'delete_update' AND winner ="
                            " 'theirs'");
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, r->k->reverts->text, -1, SQLITE_STATIC);
    bool found = query_next(q) && before && !before->present && after;
    int64_t seq = found ? sqlite3_column_int64(q, 0) : 0;
    int op = found ? oracle_atom(&r->w->oracle, query_text(q, 1))->op : 0;
    query_done(q);
    const version *gone = before;
    const known_op *lost = op ? &o->ops[op - 1] : NULL;
    while (lost && gone && gone->seq > seq && !gone->present) {
        gone = gone->before >= 0 ? &o->versions[gone->before] : NULL;
    }
    if (!lost || !gone || gone->present) {
        return; /* it was there since, or the edit is of a writer the checker does not know */
    }
    const oracle_table *t = &oracle_tables[o->rows[r->k->row].table];
    for (int c = 0; c < t->columns; c++) {
        const atom *want = lost->mask >> c & 1 ? lost->now[c] : gone->value[c];
        if (!after->present || after->value[c] != want) {
            sim_fail(r->w, "I19",
                     "commit %lld takes a deletion back: %s of %s was to be %s, and is %s",
                     (long long)r->seq, t->column[c], o->rows[r->k->row].id->text, want->text,
                     after->present ? after->value[c]->text : "gone");
        }
    }
    r->w->seen[SEEN_ROW_BACK]++;
}

static void judge(revert *r, int scope) {
    sqlite3_stmt *q = query(
        r->w->server.observer,
        "SELECT commit_seq, state, j.key, quote(j.value) FROM godwit_conflict, json_each(CASE "
        "winner"
        " WHEN 'ours' THEN theirs ELSE ours END) AS j WHERE scope = ?1 AND conflict_id = ?2 AND"
        " kind IN ('field', 'create_create') AND winner IN ('ours', 'theirs') AND (cols IS NULL OR "
        "j.key IN (SELECT"
        " value FROM json_each(cols)))");
    sqlite3_bind_text(q, 1, scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, r->k->reverts->text, -1, SQLITE_STATIC);
    while (query_next(q)) {
        r->conflict_seq = sqlite3_column_int64(q, 0);
        if (strcmp(query_text(q, 1), "resolved") == 0) {
            break; /* somebody decided otherwise before */
        }
        if (strcmp(query_text(q, 1), "reverted") != 0) {
            sim_fail(r->w, "I19", "commit %lld takes conflict %s back, and its state is %s",
                     (long long)r->seq, r->k->reverts->text, query_text(q, 1));
        }
        judge_value(r, query_text(q, 2), oracle_atom(&r->w->oracle, query_text(q, 3)));
    }
    query_done(q);
}

void oracle_revert(world *w, int scope, int64_t seq, int first) {
    const oracle *o = &w->oracle;
    if (o->scopes[scope].lost_history) {
        return; /* a conflict is named by its commit, whose number may be another's now */
    }
    for (int i = first; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        revert r = {.w = w, .k = d->key->op ? &o->ops[d->key->op - 1] : NULL, .seq = seq};
        if (r.k && r.k->reverts && oracle_effective(d)) {
            judge(&r, scope);
            judge_row(&r, scope);
        }
    }
}
