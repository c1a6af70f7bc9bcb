/* Writes from elsewhere become commits (semantics 6): by a pass of the writer's every moment, and
 * before a push that meets one of them.
 *
 * A transaction is one commit in each scope it touched, bounded as a device's are. No row of the
 * application is locked or read: what was noted is enough, in its order. A row whose scope nobody
 * has said is put aside (its table's `scope` or `scope_column` says it, or a row that is known). */
#include <stdio.h>
#include <stdlib.h>

#include "server/log.h"
#include "server/service_inner.h"

#define PASS_FACTS   2000 /* in one transaction */
#define COMMIT_FACTS 1000 /* in one commit, as a device's large transactions */

typedef struct {
    store_fact *facts;
    size_t count;
    slice *scopes; /* sorted */
    size_t scope_count;
    int64_t *heads; /* [scope_count] 0 = as before */
} pass;

/* ---- where ---- */

static slice text_of(arena *a, const value *v) {
    char digits[32];
    switch ((value_type)v->type) {
    case VALUE_TEXT:
        return v->u.s;
    case VALUE_INT:
        snprintf(digits, sizeof digits, "%lld", (long long)v->u.i);
        return arena_copy(a, slice_of(digits));
    case VALUE_NULL:
    case VALUE_REAL:
    case VALUE_BLOB:
    case VALUE_SPECIAL:
        break;
    }
    return (slice){0};
}

static void place(arena *a, store_fact *fact) {
    const schema_table *t = fact->table;
    if (!t) {
        fact->scope = (slice){0};
    } else if (t->scope.len) {
        fact->scope = t->scope;
    } else if (t->scope_column >= 0) {
        fact->scope = text_of(a, &fact->values[t->scope_column]);
    }
    if (fact->scope.len > NAME_BYTES_MAX) {
        fact->scope = (slice){0};
    }
}

static int by_bytes(const void *x, const void *y) {
    return slice_compare(*(const slice *)x, *(const slice *)y);
}

static godwit_status find_scopes(arena *a, pass *p) {
    p->scopes = ARENA_ARRAY(a, slice, p->count);
    p->heads = ARENA_ARRAY(a, int64_t, p->count);
    if (!p->scopes || !p->heads) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < p->count; i++) {
        place(a, &p->facts[i]);
        if (p->facts[i].scope.len) {
            p->scopes[p->scope_count++] = p->facts[i].scope;
        }
    }
    if (a->failed) {
        return GODWIT_NOMEM;
    }
    qsort(p->scopes, p->scope_count, sizeof *p->scopes, by_bytes);
    size_t distinct = 0;
    for (size_t i = 0; i < p->scope_count; i++) {
        if (distinct == 0 || !slice_equal(p->scopes[distinct - 1], p->scopes[i])) {
            p->scopes[distinct++] = p->scopes[i];
        }
    }
    p->scope_count = distinct;
    return GODWIT_OK;
}

/* ---- commits of one scope ---- */

static godwit_status load_rows(service *s, decide_context *c, const pass *p, slice scope) {
    decide_row **rows = ARENA_ARRAY(c->a, decide_row *, p->count);
    size_t count = 0;
    for (size_t i = 0; rows && i < p->count; i++) {
        const store_fact *fact = &p->facts[i];
        if (!slice_equal(fact->scope, scope)) {
            continue;
        }
        size_t before = c->row_count;
        decide_row *row = decide_row_of(c, fact->table, fact->entity_id);
        if (!row) {
            return GODWIT_NOMEM;
        }
        if (c->row_count > before) {
            rows[count++] = row;
        }
    }
    return rows ? store_rows_known(s->store, c, rows, count) : GODWIT_NOMEM;
}

/* Is this row deleted, where deleting leaves it in the table with a mark? */
static bool marked_deleted(const store_fact *fact) {
    int column = fact->table->deleted_column;
    const value *mark = column >= 0 && !fact->is_delete ? &fact->values[column] : NULL;
    return mark && mark->type != VALUE_NULL && !(mark->type == VALUE_INT && mark->u.i == 0);
}

/* One transaction of somebody's, or a part of it. */
static godwit_status take_over(service *s, decide_context *c, const store_fact *const *facts,
                               size_t count) {
    decide_fact *list = ARENA_ARRAY(c->a, decide_fact, count);
    decide_commit *commit = ARENA_NEW(c->a, decide_commit);
    decide_refusal refusal;
    const store_author author = {
        .scope = c->scope, .user_id = facts[0]->actor, .now_ms = c->now_ms, .elsewhere = true};
    if (!list || !commit) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        decide_row *row = decide_row_find(c, facts[i]->table, facts[i]->entity_id);
        ASSERT(row);
        list[i] = (decide_fact){.row = row,
                                .is_delete = facts[i]->is_delete || marked_deleted(facts[i]),
                                .whole = facts[i]->whole,
                                .columns = facts[i]->columns,
                                .values = facts[i]->values};
    }
    godwit_status status = decide_facts(c, list, count, facts[count - 1]->at_ms, commit);
    if (status == GODWIT_OK && commit->change_count > 0) {
        status = store_group_save(s->store, c, &author, NULL, commit, &refusal);
    }
    return status;
}

static godwit_status run_scope(service *s, const pass *p, size_t at) {
    store_scope state;
    const registry *reg = service_registry(s);
    godwit_status status = store_scope_load(s->store, p->scopes[at], &state);
    decide_context *c = ARENA_NEW(&s->batch, decide_context);
    const store_fact **facts = ARENA_ARRAY(&s->batch, const store_fact *, p->count);
    if (!c || !facts) {
        return GODWIT_NOMEM;
    }
    *c = (decide_context){.a = &s->batch,
                          .schema = &reg->schema,
                          .scope = p->scopes[at],
                          .head = state.head,
                          .ledger_floor = state.ledger_floor,
                          .horizon = state.horizon,
                          .now_ms = service_now(s),
                          .hash_seed = (uint64_t)service_mono_us() ^ (uint64_t)(uintptr_t)s};
    if (status == GODWIT_OK) {
        status = decide_init(c, p->count);
    }
    if (status == GODWIT_OK) {
        status = load_rows(s, c, p, c->scope);
    }
    size_t count = 0;
    for (size_t i = 0; i <= p->count && status == GODWIT_OK; i++) {
        const store_fact *fact = i < p->count ? &p->facts[i] : NULL;
        bool other = fact && !slice_equal(fact->scope, c->scope);
        bool end =
            !fact ||
            (!other && count > 0 &&
             (count == COMMIT_FACTS || !slice_equal(fact->transaction, facts[0]->transaction)));
        if (end && count > 0) {
            status = take_over(s, c, facts, count);
            count = 0;
        }
        if (fact && !other) {
            facts[count++] = fact;
        }
    }
    decide_refusal refusal;
    if (status == GODWIT_OK) {
        status = store_flush(s->store, &refusal);
    }
    if (status == GODWIT_OK) {
        status = store_scope_save(s->store, c->scope, &state, c->head);
    }
    p->heads[at] = c->head > state.head ? c->head : 0;
    return status;
}

/* ---- a pass ---- */

static godwit_status run_pass(service *s, size_t most, service_commit_fn on_commit, void *context,
                              bool *more) {
    pass p = {0};
    *more = false;
    arena_reset(&s->batch);
    godwit_status status = store_begin(s->store);
    if (status == GODWIT_OK) {
        status = store_outbox_take(s->store, &s->batch, most, &p.facts, &p.count);
    }
    if (status == GODWIT_OK) {
        status = find_scopes(&s->batch, &p);
    }
    for (size_t i = 0; status == GODWIT_OK && i < p.scope_count; i++) {
        status = run_scope(s, &p, i);
    }
    if (status == GODWIT_OK && p.count > 0) {
        status = store_outbox_done(s->store, p.facts, p.count);
    }
    if (status == GODWIT_OK) {
        status = store_commit(s->store);
    }
    if (status != GODWIT_OK) {
        store_rollback(s->store);
        return status;
    }
    for (size_t i = 0; i < p.scope_count && on_commit; i++) {
        if (p.heads[i] > 0) {
            on_commit(context, p.scopes[i], p.heads[i]);
        }
    }
    *more = p.count == most;
    return GODWIT_OK;
}

bool service_external(service *s, service_commit_fn on_commit, void *context) {
    bool any = false, more = false;
    if (!s->has_outbox) {
        return false;
    }
    godwit_status status = store_outbox_any(s->store, &any);
    if (status == GODWIT_OK && any) {
        status = run_pass(s, PASS_FACTS, on_commit, context, &more);
    }
    if (status != GODWIT_OK && status != GODWIT_BUSY) {
        log_limited(LOG_ERROR, "outbox", "reason=\"%s\"", store_message(s->store));
        atomic_fetch_add(&s->stats.failures, 1);
    }
    if (status == GODWIT_CONSTRAINT) {
        /* one at a time, until the one that can't be read is put aside */
        status = run_pass(s, 1, on_commit, context, &more);
    }
    return status == GODWIT_OK && more;
}
