/* The janitor: goes through the scopes, one after the other, and has the store forget what
 * core/retain says may go.
 *
 * It works on the writer's thread, in transactions of a hundred rows, so that a push waits for
 * one of them at most; the pool says for how long it may go on. What it deletes need not be on disk
 * at once: after a crash it is deleted again. */
#include "server/service_inner.h"

#define STEP_ROWS    100
#define STEP_SCOPES  16
#define SCAN_COMMITS 1000 /* looked at for one move of a mark */

static godwit_status move_marks(service *s, store_keeping *scope, int64_t now_ms) {
    const retain_policy *policy = &s->retain;
    retain_scope *marks = &scope->marks;
    const retain_scope before = *marks;
    int64_t aged, expired, settled;
    godwit_status status = store_commits_before(s->store, scope->name, marks->horizon, SCAN_COMMITS,
                                                retain_before(now_ms, policy->log_ms), &aged);
    if (status == GODWIT_OK) {
        status = store_commits_before(s->store, scope->name, marks->horizon, SCAN_COMMITS,
                                      retain_before(now_ms, policy->log_max_ms), &expired);
    }
    if (status == GODWIT_OK) {
        marks->horizon = retain_horizon(policy, marks, aged, expired);
        status = store_commits_before(s->store, scope->name, marks->ledger_floor, SCAN_COMMITS,
                                      retain_before(now_ms, policy->ledger_ms), &settled);
    }
    if (status == GODWIT_OK) {
        marks->ledger_floor = retain_ledger_floor(marks, settled);
    }
    bool moved = marks->horizon != before.horizon || marks->ledger_floor != before.ledger_floor;
    return status == GODWIT_OK && moved ? store_marks_save(s->store, scope->name, marks) : status;
}

static godwit_status tend(service *s, store_keeping *scope, int64_t *rows_left) {
    int64_t now_ms = service_now(s);
    int64_t horizon = scope->marks.horizon;
    int64_t floor = scope->marks.ledger_floor;
    godwit_status status = move_marks(s, scope, now_ms);
    if (status == GODWIT_OK) {
        const store_past past = {.marks = scope->marks,
                                 .conflicts_ms = retain_before(now_ms, s->retain.conflicts_ms),
                                 .keys_ms = retain_before(now_ms, s->retain.ledger_ms),
                                 .silent_ms = retain_before(now_ms, s->retain.device_ms)};
        status = store_forget(s->store, scope->name, &past, rows_left);
    }
    /* marks move a bounded way at once: the scope has its turn again */
    if (scope->marks.horizon - horizon >= SCAN_COMMITS ||
        scope->marks.ledger_floor - floor >= SCAN_COMMITS) {
        *rows_left = 0;
    }
    return status;
}

/* One transaction. *end: behind the last scope. */
static godwit_status step(service *s, bool *end) {
    int64_t rows_left = STEP_ROWS;
    *end = false;
    arena_reset(&s->batch);
    godwit_status status = store_begin(s->store);
    for (int i = 0; status == GODWIT_OK && rows_left > 0 && i < STEP_SCOPES && !*end; i++) {
        store_keeping scope;
        bool row = false;
        slice after = {s->tended, s->tended_len};
        status = store_keeping_next(s->store, &s->batch, after,
                                    retain_before(service_now(s), s->retain.log_ms), &scope, &row);
        *end = status == GODWIT_OK && !row;
        if (status == GODWIT_OK && row) {
            status = tend(s, &scope, &rows_left);
        }
        if (status == GODWIT_OK && row && rows_left > 0) { /* else it has its turn again */
            ASSERT(scope.name.len <= sizeof s->tended);
            memcpy(s->tended, scope.name.ptr, scope.name.len);
            s->tended_len = scope.name.len;
        }
    }
    if (status == GODWIT_OK) {
        status = store_commit(s->store);
    }
    if (status != GODWIT_OK) {
        store_rollback(s->store);
    }
    return status;
}

bool service_janitor(service *s, int64_t budget_ms) {
    int64_t begun_us = service_mono_us();
    int64_t until_us = service_mono_us() + budget_ms * 1000;
    bool end = false;
    godwit_status status = GODWIT_OK;
    store_durable(s->store, false);
    do {
        status = step(s, &end);
    } while (status == GODWIT_OK && !end && service_mono_us() < until_us);
    store_durable(s->store, true);
    if (end || status != GODWIT_OK) { /* a failure passes or is reported by the next push */
        s->tended_len = 0;
        store_tidy(s->store, budget_ms);
    }
    stats_step_took(&s->stats, STEP_TIDY, service_mono_us() - begun_us);
    return !end && status == GODWIT_OK;
}
