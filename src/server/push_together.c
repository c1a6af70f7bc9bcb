/* Small pushes of many devices as one: what they need is asked for at once, they are decided one
 * after the other on the same working rows, and written at once. A database that is asked over a
 * connection then costs the same for two hundred pushes as for one.
 *
 * When a constraint fails all of it is undone and each goes its own way, in the same order: nobody
 * is refused for what another one did. Not for pushes that depend on more than the rows: a role
 * sees others, hooks take their time, callers without a stream keep their answers by key. */
#include "server/push.h"

#define JOINS_OPS_MAX 64 /* of a push: a large one fills its statements by itself */

bool push_joins(const scope_run *run, const service_job *job) {
    const job_state *state = job->state;
    const push_request *request = &state->push;
    if (!request->stream || run->s->hooks || job->who.role.len > 0 || request->op_count == 0 ||
        request->op_count > JOINS_OPS_MAX) {
        return false;
    }
    for (size_t i = 1; i < request->op_count; i++) {
        if (!slice_equal(request->ops[i].lineage, request->ops[0].lineage)) {
            return false;
        }
    }
    return true;
}

/* Those that may go on are moved to the front. */
static godwit_status load_streams(scope_run *run, service_job *const *jobs, push *list,
                                  size_t *count) {
    slice *ids = ARENA_ARRAY(run->a, slice, *count);
    decide_device *devices = ARENA_ARRAY(run->a, decide_device, *count);
    size_t left = 0;
    if (!ids || !devices) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < *count; i++) {
        ids[i] = ((const job_state *)jobs[i]->state)->push.device_id;
    }
    godwit_status status = store_devices_load(run->st, run->a, run->c.scope, ids, *count, devices);
    for (size_t i = 0; status == GODWIT_OK && i < *count; i++) {
        push *p = &list[left];
        bool refused = false;
        status = push_start(p, run, jobs[i]);
        if (status == GODWIT_OK) {
            p->device = devices[i];
            status = push_check_stream(p, &refused);
        }
        left += !refused;
    }
    *count = left;
    return status;
}

static godwit_status load(push *list, size_t count) {
    godwit_status status = push_load_origins(list, count);
    if (status == GODWIT_OK) {
        status = push_load_salts(list, count);
    }
    return status == GODWIT_OK ? push_load_rows_of(list, count, false) : status;
}

static godwit_status decide_all(push *list, size_t count) {
    decide_refusal refusal;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = push_decide(&list[i], &refusal);
    }
    return status == GODWIT_OK ? store_flush(list->scope->st, &refusal) : status;
}

/* As it was before decide_all, and then each by itself. */
static godwit_status apart(push *list, size_t count, const decide_device *before, int64_t head) {
    scope_run *run = list->scope;
    store_rollback_to(run->st);
    run->c.head = head;
    for (size_t i = 0; i < count; i++) {
        list[i].device = before[i];
    }
    godwit_status status = push_load_rows_of(list, count, true);
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = push_groups(&list[i]);
    }
    return status;
}

godwit_status push_together(scope_run *run, service_job *const *jobs, size_t count) {
    const store_role nobody = {0};
    push *list = ARENA_ARRAY(run->a, push, count);
    decide_device *before = ARENA_ARRAY(run->a, decide_device, count);
    int64_t head = run->c.head;
    if (!list || !before) {
        return GODWIT_NOMEM;
    }
    run->c.asks = NULL;
    store_write_as(run->st, &nobody);
    godwit_status status = load_streams(run, jobs, list, &count);
    if (status != GODWIT_OK || count == 0) {
        return status;
    }
    status = load(list, count);
    for (size_t i = 0; i < count; i++) {
        before[i] = list[i].device;
    }
    if (status == GODWIT_OK) {
        status = store_savepoint(run->st);
    }
    if (status == GODWIT_OK) {
        status = decide_all(list, count);
        status = status == GODWIT_OK           ? store_release(run->st)
                 : status == GODWIT_CONSTRAINT ? apart(list, count, before, head)
                                               : status;
    }
    if (status == GODWIT_OK) {
        status = push_save_streams(list, count);
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        push_reply(&list[i]);
        push_tally(&list[i]);
    }
    return status;
}
