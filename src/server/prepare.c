/* First stage of a job, on a pool thread: parsing, bounds, and every refusal that needs no
 * database. */
#include "server/service_inner.h"

#include <stdio.h>

#define LIST_LIMIT 100

static void refuse(service_job *job, const char *detail) {
    service_problem(job, 400, "invalid-request", detail, NULL);
}

static void forbid(service_job *job) {
    service_problem(job, 403, "scope-forbidden", "the token does not allow this scope", NULL);
}

static bool may_write(const service *s, const service_job *job, slice scope) {
    for (size_t i = 0; i < s->read_only_count; i++) {
        if (slice_equal(s->read_only[i], scope)) {
            return false;
        }
    }
    return principal_may_write(&job->who, scope);
}

static slice default_scope(const principal *p) {
    if (p->scope_count) {
        return p->scopes[0];
    }
    return p->read_scope_count ? p->read_scopes[0] : (slice){0};
}

/* Whole numbers from 0 on; empty text leaves *out as it is. */
static bool parse_number(slice text, int64_t *out) {
    int64_t v = 0;
    if (text.len == 0) {
        return true;
    }
    if (text.len > 9) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (text.ptr[i] - '0');
    }
    *out = v;
    return true;
}

static void prepare_meta(const service *s, service_job *job) {
    bytes *b = &job->answer;
    char now[32];
    wire_time_write(service_now(s), now);
    bytes_printf(
        b,
        "{\"protocol\":1,\"serverTime\":\"%s\",\"capabilities\":[\"gzip\",\"longPoll\",\"events\","
        "\"snapshot\"],\"limits\":{\"pushOperations\":%d,\"pushBytes\":%u,\"groupOperations\":%d,"
        "\"groupBytes\":%u,\"rowBytes\":%u,\"jsonDepth\":%d,\"pageCommits\":%d,\"pageBytes\":%u,"
        "\"snapshotRows\":%d,\"waitSeconds\":%d,\"scopes\":%d,\"tables\":%d,\"columns\":%d,"
        "\"entityIdBytes\":%d,\"idempotencyKeyBytes\":%d}}",
        now, PUSH_OPS_MAX, PUSH_BYTES_MAX, GROUP_OPS_MAX, GROUP_BYTES_MAX, ROW_BYTES_MAX,
        JSON_DEPTH_MAX, PAGE_COMMITS_MAX, PAGE_BYTES_MAX, SNAPSHOT_ROWS_MAX, WAIT_S_MAX, SCOPES_MAX,
        TABLES_MAX, COLUMNS_MAX, ENTITY_ID_BYTES_MAX, IDEM_KEY_BYTES_MAX);
    service_done(job);
}

static void prepare_register(service_job *job, job_state *state) {
    wire_error error = {0};
    const char *reason = NULL;
    godwit_status status = wire_register_parse(&job->memory, job->body, &state->reg, &error);
    if (status == GODWIT_NOMEM) {
        service_fail(job, status);
        return;
    }
    if (status != GODWIT_OK) {
        service_problem(job, error.http, error.type, error.detail, NULL);
        return;
    }
    if (!admit_named(job, state->reg.device_id)) {
        return;
    }
    for (size_t i = 0; i < state->reg.scope_count; i++) {
        if (!principal_may_read(&job->who, state->reg.scopes[i])) {
            forbid(job);
            return;
        }
    }
    if (state->reg.tables) {
        status = schema_from_json(&job->memory, state->reg.tables, &state->declared, &reason);
    }
    if (status == GODWIT_NOMEM) {
        service_fail(job, status);
    } else if (status != GODWIT_OK) {
        refuse(job, reason);
    } else {
        job->wants_write = true;
    }
}

static void prepare_push(service *s, service_job *job, job_state *state) {
    wire_error error = {0};
    push_request *request = &state->push;
    godwit_status status = wire_push_parse(&job->memory, job->body, job->verb == VERB_SYNC,
                                           default_scope(&job->who), request, &error);
    if (status == GODWIT_NOMEM) {
        service_fail(job, status);
        return;
    }
    if (status != GODWIT_OK) {
        service_problem(job, error.http, error.type, error.detail, NULL);
        return;
    }
    state->scope = request->scope.len ? request->scope : default_scope(&job->who);
    if (!principal_may_read(&job->who, state->scope)) {
        forbid(job);
        return;
    }
    if (request->op_count && !may_write(s, job, state->scope)) {
        service_problem(job, 403, "scope-read-only", "this scope may only be read", NULL);
        return;
    }
    if (!admit_named(job, request->device_id)) {
        return;
    }
    if (request->dry_run) {
        refuse(job, "dryRun is not supported by this version");
        return;
    }
    job->device = request->device_id;
    state->pull = (pull_query){.scope = state->scope,
                               .cursor = request->cursor,
                               .device = request->device_id,
                               .tables = request->tables,
                               .earlier = request->earlier,
                               .earlier_count = request->earlier_count,
                               .limit = request->limit};
    job->wants_write = job->pushes = request->op_count > 0;
    job->wants_read = job->verb == VERB_SYNC || request->op_count == 0;
    ask_prepare(s, job);
}

static void prepare_reconcile(service_job *job, job_state *state) {
    wire_error error = {0};
    godwit_status status = wire_reconcile_parse(&job->memory, job->body, &state->reconcile, &error);
    if (status == GODWIT_NOMEM) {
        service_fail(job, status);
        return;
    }
    if (status != GODWIT_OK) {
        service_problem(job, error.http, error.type, error.detail, NULL);
        return;
    }
    state->scope = state->reconcile.scope;
    if (!principal_may_read(&job->who, state->scope)) {
        forbid(job);
        return;
    }
    job->wants_read = true;
}

static bool prepare_query(service_job *job, job_state *state) {
    int64_t wait_s = 0;
    state->scope = job->q_scope.len ? job->q_scope : default_scope(&job->who);
    state->pull = (pull_query){.scope = state->scope,
                               .cursor = job->q_cursor,
                               .device = job->q_device,
                               .tables = job->q_tables};
    if (!principal_may_read(&job->who, state->scope)) {
        forbid(job);
        return false;
    }
    if (!parse_number(job->q_limit, &state->pull.limit)) {
        refuse(job, "limit must be a number");
        return false;
    }
    if (!parse_number(job->q_wait, &wait_s)) {
        refuse(job, "wait must be a number of seconds");
        return false;
    }
    if (job->q_device.len && !id_device_valid(job->q_device)) {
        refuse(job, "device is not a device id");
        return false;
    }
    if (job->q_cursor.len > CURSOR_BYTES_MAX) {
        service_problem(job, 410, "cursor-invalid", "the cursor can't be read", NULL);
        return false;
    }
    job->device = job->q_device;
    state->pull.wait = wait_s > 0;
    job->wait_ms = (wait_s < WAIT_S_MAX ? wait_s : WAIT_S_MAX) * 1000;
    job->wants_read = true;
    return true;
}

static void prepare_list(service_job *job, job_state *state) {
    if (!prepare_query(job, state)) {
        return;
    }
    if (state->pull.limit == 0 || state->pull.limit > SNAPSHOT_ROWS_MAX) {
        state->pull.limit = state->pull.limit ? SNAPSHOT_ROWS_MAX : LIST_LIMIT;
    }
    bool row = job->q_entity_type.len && job->q_entity_id.len;
    if (job->verb == VERB_HISTORY && !row &&
        (!job->q_device.len || !parse_number(job->q_sequence, &state->sequence) ||
         state->sequence < 1)) {
        refuse(job, "entityType and entityId are needed, or device and sequenceNumber");
    }
}

void service_prepare(service *s, service_job *job) {
    job_state *state = ARENA_NEW(&job->memory, job_state);
    job->state = state;
    if (!state) {
        service_fail(job, GODWIT_NOMEM);
        return;
    }
    switch (job->verb) {
    case VERB_META:
        prepare_meta(s, job);
        break;
    case VERB_REGISTER:
        prepare_register(job, state);
        break;
    case VERB_SYNC:
    case VERB_PUSH:
        prepare_push(s, job, state);
        break;
    case VERB_CHANGES:
    case VERB_SNAPSHOT:
        (void)prepare_query(job, state);
        break;
    case VERB_CONFLICTS:
    case VERB_HISTORY:
        prepare_list(job, state);
        break;
    case VERB_RECONCILE:
        prepare_reconcile(job, state);
        break;
    }
}
