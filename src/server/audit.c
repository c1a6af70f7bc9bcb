/* GET /v1/audit: what happened, for people who have to explain it.
 *
 *   ?entityType=&entityId=        every version of a row, newest first: who, when, by which
 * operation, and whom it met in a conflict ?device=&sequenceNumber=      one operation: whether it
 * was applied, which of its values are not the row's any more, why, and what replaced them
 *
 * A version is followed to the one before it in the change log; an operation finds the row it wrote
 * by the row's vector clock, which holds its number. What the log no longer has is not told. */
#include "server/service_inner.h"

static bool owns(const store_commit_row *commit, const store_change_row *change, int64_t seq,
                 arena *a) {
    vclock clock;
    if (change->clock.len == 0) {
        return change->clock_seq == seq;
    }
    return clock_parse(a, change->clock, &clock) == GODWIT_OK &&
           clock_get(&clock, commit->device_id) == seq;
}

/* Number of the operation in the commit's stream that wrote the change; 0 = none. */
static int64_t writer_of(const store_commit_row *commit, const store_change_row *change, arena *a) {
    vclock clock;
    if (commit->first_seq == 0) {
        return 0;
    }
    if (change->clock.len == 0) {
        return change->clock_seq;
    }
    return clock_parse(a, change->clock, &clock) == GODWIT_OK ? clock_get(&clock, commit->device_id)
                                                              : 0;
}

static void write_operation(bytes *b, const store_ledger_row *op) {
    char id[UUID_TEXT_BYTES];
    id_operation(op->lineage, op->lsn, id);
    list_text(b, "{\"id\":", slice_of(id));
    bytes_text(b, ",\"sequenceNumber\":");
    bytes_int(b, op->seq);
    bytes_text(b, ",\"idempotencyKey\":");
    json_write_hex(b, op->key.ptr, op->key.len);
    list_text(b, ",\"outcome\":", slice_of(op_outcome_name(op->outcome)));
    if (op->code != CODE_NONE) {
        list_text(b, ",\"code\":", slice_of(op_code_name(op->code)));
        list_text(b, ",\"detail\":", op->detail);
    }
    bytes_char(b, '}');
}

/* The operation at one place of a stream, or null. */
static godwit_status write_ledger(service_reader *r, bytes *b, slice scope, slice device,
                                  int64_t seq, int64_t *commit_seq) {
    store_ledger_row op;
    bool found = false;
    godwit_status status =
        seq > 0 ? store_ledger_open(r->store, scope, device, seq, seq) : GODWIT_OK;
    if (status == GODWIT_OK && seq > 0) {
        status = store_ledger_next(r->store, &op, &found);
    }
    if (status == GODWIT_OK && found) {
        write_operation(b, &op);
    } else {
        bytes_text(b, "null");
    }
    *commit_seq = found ? op.commit_seq : 0;
    if (seq > 0) {
        store_ledger_close(r->store);
    }
    return status;
}

/* Records of one commit; id empty = of every row. */
static godwit_status write_conflicts(service_reader *r, bytes *b, slice scope, int64_t seq,
                                     const schema_table *t, slice id) {
    store_conflict_row row;
    bool found = true, first = true;
    godwit_status status = store_conflicts_open(r->store, scope, (slice){0}, seq + 1);
    bytes_char(b, '[');
    while (status == GODWIT_OK) {
        status = store_conflicts_next(r->store, &row, &found);
        if (status != GODWIT_OK || !found || row.commit_seq != seq) {
            break;
        }
        if (!t || (slice_equal(row.table, t->name) && slice_equal(row.entity_id, id))) {
            json_comma(b, &first);
            list_conflict(b, r->reg, &row);
        }
    }
    store_conflicts_close(r->store);
    bytes_char(b, ']');
    return status;
}

/* ---- A row ---- */

static godwit_status write_version(service_reader *r, service_job *job, const schema_table *t,
                                   const store_commit_row *commit, const store_change_row *change) {
    const job_state *state = job->state;
    bytes *b = &job->answer;
    int64_t ignored = 0;
    bytes_text(b, "{\"seq\":");
    bytes_int(b, commit->seq);
    list_time(b, ",\"at\":", commit->at_ms);
    list_text(b, ",\"userId\":", commit->user_id);
    list_text(b, ",\"deviceId\":", commit->device_id);
    list_text(b, ",\"outcome\":", slice_of(op_outcome_name(commit->outcome)));
    list_text(b, ",\"kind\":", change->is_delete ? SLICE("delete") : SLICE("upsert"));
    list_json(b, ",\"columns\":", change->columns);
    bytes_text(b, change->full ? ",\"full\":true" : ",\"full\":false");
    bytes_text(b, ",\"vectorClock\":");
    if (change->clock.len) {
        bytes_slice(b, change->clock);
    } else {
        clock_write_plain(b, commit->device_id, change->clock_seq, commit->seq);
    }
    bytes_text(b, ",\"operation\":");
    godwit_status status = write_ledger(r, b, state->scope, commit->device_id,
                                        writer_of(commit, change, &job->memory), &ignored);
    bytes_text(b, ",\"conflicts\":");
    if (status == GODWIT_OK) {
        status = write_conflicts(r, b, state->scope, commit->seq, t, job->q_entity_id);
    }
    bytes_char(b, '}');
    return status;
}

static void row_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    const schema_table *t = schema_find(&r->reg->schema, job->q_entity_type);
    bytes *b = &job->answer;
    int64_t seq = 0, count = 0;
    if (!t) {
        service_problem(job, 400, "invalid-request", "entityType names no table", NULL);
        return;
    }
    if (!list_before(job, &seq)) {
        return;
    }
    godwit_status status = GODWIT_OK;
    bool more = true;
    bytes_text(b, "{\"changes\":[");
    while (more && status == GODWIT_OK && count < state->pull.limit) {
        store_commit_row commit;
        store_change_row change;
        status = store_history(r->store, state->scope, t, job->q_entity_id, seq, &commit, &change);
        if (status != GODWIT_OK) {
            break; /* NOT_FOUND: an unknown row, or the log no longer reaches back */
        }
        bytes_text(b, count ? "," : "");
        seq = change.prev_seq;
        more = seq > 0;
        count++;
        status = write_version(r, job, t, &commit, &change);
    }
    more = more && status == GODWIT_OK;
    bytes_text(b, "],\"cursor\":");
    if (more) {
        bytes_printf(b, "\"%lld\"", (long long)seq);
    } else {
        bytes_text(b, "null");
    }
    bytes_text(b, more ? ",\"more\":true}" : ",\"more\":false}");
    if (status != GODWIT_OK && status != GODWIT_NOT_FOUND) {
        service_fail(job, status);
    } else {
        service_done(job);
    }
}

/* ---- An operation ---- */

/* What the operation wrote, kept while the log is read on. */
typedef struct {
    const schema_table *t;
    slice id;
    const json *columns; /* NULL: a delete */
    int64_t commit;
} effect;

static godwit_status find_effect(service_reader *r, service_job *job, slice device, int64_t seq,
                                 int64_t commit_seq, effect *out) {
    const job_state *state = job->state;
    store_commit_row commit;
    store_change_row change;
    bool found = false, row = true;
    godwit_status status = store_feed_open(r->store, state->scope, commit_seq - 1);
    if (status == GODWIT_OK) {
        status = store_feed_commit(r->store, &commit, &found);
    }
    found = status == GODWIT_OK && found && commit.seq == commit_seq &&
            slice_equal(commit.device_id, device);
    while (found && status == GODWIT_OK && !out->t) {
        status = store_feed_change(r->store, commit_seq, &change, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        if (!slice_is(change.table, "_conflicts") && owns(&commit, &change, seq, &job->memory)) {
            slice text = arena_copy(&job->memory, change.columns);
            out->t = schema_find(&r->reg->schema, change.table);
            out->id = arena_copy(&job->memory, change.id);
            out->commit = commit_seq;
            if (change.columns.len) {
                status = json_parse(&job->memory, text, &out->columns, NULL);
            }
        }
    }
    store_feed_close(r->store);
    return status;
}

typedef struct {
    int64_t commit_seq, at_ms; /* 0: the value is the row's */
    slice device_id, user_id;
    slice value; /* JSON; empty = the row was deleted */
} replacement;

static slice value_text(arena *a, const json *node) {
    bytes b;
    value v;
    bytes_init(&b, NULL, 0);
    if (value_from_json(a, node, &v) == GODWIT_OK) {
        value_to_json(&b, &v);
    }
    slice text = b.failed || !b.len ? (slice){0} : arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    return text;
}

/* The newest later write of each column, by reading the row's history down to the operation. */
static godwit_status find_replacements(service_reader *r, service_job *job, const effect *e,
                                       replacement *out) {
    const job_state *state = job->state;
    arena *a = &job->memory;
    int64_t seq = 0, left = SNAPSHOT_ROWS_MAX;
    godwit_status status = GODWIT_OK;
    do {
        store_commit_row commit;
        store_change_row change;
        const json *columns = NULL;
        status = store_history(r->store, state->scope, e->t, e->id, seq, &commit, &change);
        if (status != GODWIT_OK || commit.seq <= e->commit) {
            break;
        }
        slice text = arena_copy(a, change.columns);
        if (change.columns.len) {
            status = json_parse(a, text, &columns, NULL);
        }
        const json *name = json_first(e->columns);
        for (uint32_t i = 0; i < e->columns->count; i++, name = json_after(name + 1)) {
            const json *later = columns ? json_find(columns, name->u.s) : NULL;
            if (out[i].commit_seq || (!later && !change.is_delete)) {
                continue;
            }
            out[i] = (replacement){.commit_seq = commit.seq,
                                   .value = later ? value_text(a, later) : (slice){0},
                                   .at_ms = commit.at_ms,
                                   .device_id = arena_copy(a, commit.device_id),
                                   .user_id = arena_copy(a, commit.user_id)};
        }
        seq = change.prev_seq;
    } while (status == GODWIT_OK && seq > 0 && --left > 0);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status write_values(service_reader *r, service_job *job, const effect *e) {
    bytes *b = &job->answer;
    replacement *by = ARENA_ARRAY(&job->memory, replacement, e->columns->count + 1);
    godwit_status status = by ? find_replacements(r, job, e, by) : GODWIT_NOMEM;
    const json *name = json_first(e->columns);
    for (uint32_t i = 0; status == GODWIT_OK && i < e->columns->count; i++) {
        bytes_text(b, i ? "," : "");
        list_text(b, "{\"column\":", name->u.s);
        list_json(b, ",\"value\":", value_text(&job->memory, name + 1));
        bytes_text(b, by[i].commit_seq ? ",\"current\":false" : ",\"current\":true");
        if (by[i].commit_seq) {
            bytes_printf(b, ",\"replacedBy\":{\"commitSeq\":%lld", (long long)by[i].commit_seq);
            list_time(b, ",\"at\":", by[i].at_ms);
            list_text(b, ",\"userId\":", by[i].user_id);
            list_text(b, ",\"deviceId\":", by[i].device_id);
            list_json(b, ",\"value\":", by[i].value);
            bytes_char(b, '}');
        }
        bytes_char(b, '}');
        name = json_after(name + 1);
    }
    return status;
}

static godwit_status write_effect(service_reader *r, service_job *job, const effect *e) {
    bytes *b = &job->answer;
    godwit_status status = GODWIT_OK;
    if (!e->t) { /* it changed nothing, or the log no longer has it */
        bytes_text(b, ",\"entityType\":null,\"entityId\":null,\"kind\":null,\"values\":[]");
        return status;
    }
    list_text(b, ",\"entityType\":", e->t->entity);
    list_text(b, ",\"entityId\":", e->id);
    list_text(b, ",\"kind\":", e->columns ? SLICE("upsert") : SLICE("delete"));
    bytes_text(b, ",\"values\":[");
    if (e->columns) {
        status = write_values(r, job, e);
    }
    bytes_char(b, ']');
    return status;
}

/* Where a role decides about rows, users are told about their own operations only. */
static godwit_status may_ask(service_reader *r, const service_job *job, bool *may) {
    const job_state *state = job->state;
    decide_device device;
    *may = job->who.role.len == 0;
    if (*may) {
        return GODWIT_OK;
    }
    godwit_status status =
        store_read_device(r->store, &r->scratch, state->scope, job->q_device, &device);
    *may = status == GODWIT_OK && slice_equal(device.user_id, job->who.user);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static void operation_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    bytes *b = &job->answer;
    int64_t commit_seq = 0;
    bool may = false;
    effect e = {0};
    bytes_text(b, "{\"operation\":");
    godwit_status status = may_ask(r, job, &may);
    if (status == GODWIT_OK && may) {
        status = write_ledger(r, b, state->scope, job->q_device, state->sequence, &commit_seq);
    }
    if (status == GODWIT_OK && commit_seq == 0) {
        bytes_clear(b);
        service_problem(job, 404, "not-found",
                        "no operation of this device has this number, or it is not kept any more",
                        NULL);
        return;
    }
    list_text(b, ",\"deviceId\":", job->q_device);
    bytes_printf(b, ",\"commitSeq\":%lld", (long long)commit_seq);
    if (status == GODWIT_OK) {
        status = find_effect(r, job, job->q_device, state->sequence, commit_seq, &e);
    }
    if (status == GODWIT_OK) {
        status = write_effect(r, job, &e);
    }
    bytes_text(b, ",\"conflicts\":");
    if (status == GODWIT_OK) {
        status = write_conflicts(r, b, state->scope, commit_seq, e.t, e.id);
    }
    bytes_char(b, '}');
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else {
        service_done(job);
    }
}

void history_run(service_reader *r, service_job *job) {
    if (job->q_entity_id.len) {
        row_run(r, job);
    } else {
        operation_run(r, job);
    }
}
