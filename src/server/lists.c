/* Lists for people: the conflict records of a scope, newest first, and the history of one row,
 * which follows the change log from a version to the one before it. */
#include "server/service_inner.h"

static void text_member(bytes *b, const char *name, slice text) {
    bytes_text(b, name);
    if (text.ptr) {
        json_write_text(b, text);
    } else {
        bytes_text(b, "null");
    }
}

static void json_member(bytes *b, const char *name, slice json_text_or_empty) {
    bytes_text(b, name);
    bytes_slice(b, json_text_or_empty.len ? json_text_or_empty : SLICE("null"));
}

static void time_member(bytes *b, const char *name, int64_t ms) {
    char text[32];
    wire_time_write(ms, text);
    bytes_text(b, name);
    bytes_char(b, '"');
    bytes_text(b, text);
    bytes_char(b, '"');
}

/* The name on the wire. */
static slice entity_of(const registry *reg, slice table) {
    for (size_t i = 0; i < reg->schema.table_count; i++) {
        if (slice_equal(reg->schema.tables[i].name, table)) {
            return reg->schema.tables[i].entity;
        }
    }
    return table;
}

static void write_conflict(bytes *b, const registry *reg, const store_conflict_row *row) {
    text_member(b, "{\"id\":", row->id);
    bytes_text(b, ",\"commitSeq\":");
    bytes_int(b, row->commit_seq);
    text_member(b, ",\"entityType\":", entity_of(reg, row->table));
    text_member(b, ",\"entityId\":", row->entity_id);
    text_member(b, ",\"kind\":", row->kind);
    text_member(b, ",\"operation\":", row->operation);
    json_member(b, ",\"columns\":", row->columns);
    json_member(b, ",\"base\":", row->base);
    json_member(b, ",\"theirs\":", row->theirs);
    json_member(b, ",\"ours\":", row->ours);
    json_member(b, ",\"chosen\":", row->chosen);
    json_member(b, ",\"writers\":", row->writers);
    text_member(b, ",\"policy\":", row->policy);
    text_member(b, ",\"winner\":", row->winner);
    text_member(b, ",\"state\":", row->state);
    text_member(b, ",\"deviceId\":", row->device_id);
    text_member(b, ",\"resolvedBy\":", row->resolved_by);
    bytes_text(b, ",\"resolvedCommit\":");
    if (row->resolved_commit) {
        bytes_int(b, row->resolved_commit);
    } else {
        bytes_text(b, "null");
    }
    time_member(b, ",\"at\":", row->at_ms);
    bytes_char(b, '}');
}

/* Lists go on with ?cursor=: the number of the last commit shown. */
static bool parse_before(service_job *job, int64_t *out) {
    int64_t v = 0;
    for (size_t i = 0; i < job->q_cursor.len; i++) {
        char c = job->q_cursor.ptr[i];
        if (c < '0' || c > '9' || i >= 18) {
            service_problem(job, 400, "invalid-request", "cursor must be that of the page before",
                            NULL);
            return false;
        }
        v = v * 10 + (c - '0');
    }
    *out = v;
    return true;
}

static bool conflict_wanted(const service_job *job, const registry *reg,
                            const store_conflict_row *row) {
    bool type = job->q_entity_type.len == 0 ||
                slice_equal(entity_of(reg, row->table), job->q_entity_type) ||
                slice_equal(row->table, job->q_entity_type);
    return type && (job->q_entity_id.len == 0 || slice_equal(row->entity_id, job->q_entity_id));
}

void conflicts_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    const registry *reg = r->reg;
    bytes *b = &job->answer;
    int64_t before = 0;
    int64_t count = 0;
    int64_t last_commit = 0;
    bool more = false;
    if (!parse_before(job, &before)) {
        return;
    }
    godwit_status status = store_conflicts_open(r->store, state->scope, job->q_state, before);
    bytes_text(b, "{\"conflicts\":[");
    while (status == GODWIT_OK) {
        store_conflict_row row;
        bool found = false;
        status = store_conflicts_next(r->store, &row, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        if (!conflict_wanted(job, reg, &row)) {
            continue;
        }
        /* the records of one commit stay together: a page ends between commits */
        if (count >= state->pull.limit && row.commit_seq != last_commit) {
            more = true;
            break;
        }
        bytes_text(b, count ? "," : "");
        write_conflict(b, reg, &row);
        last_commit = row.commit_seq;
        count++;
    }
    store_conflicts_close(r->store);
    bytes_text(b, "],\"cursor\":");
    if (more) {
        bytes_char(b, '"');
        bytes_int(b, last_commit);
        bytes_char(b, '"');
    } else {
        bytes_text(b, "null");
    }
    bytes_text(b, more ? ",\"more\":true}" : ",\"more\":false}");
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else {
        service_done(job);
    }
}

static void write_version(bytes *b, const store_commit_row *commit,
                          const store_change_row *change) {
    bytes_text(b, "{\"seq\":");
    bytes_int(b, commit->seq);
    time_member(b, ",\"at\":", commit->at_ms);
    text_member(b, ",\"userId\":", commit->user_id);
    text_member(b, ",\"deviceId\":", commit->device_id);
    bytes_text(b, ",\"outcome\":\"");
    bytes_text(b, op_outcome_name(commit->outcome));
    bytes_text(b, change->is_delete ? "\",\"kind\":\"delete\"" : "\",\"kind\":\"upsert\"");
    json_member(b, ",\"columns\":", change->columns);
    bytes_text(b, change->full ? ",\"full\":true" : ",\"full\":false");
    bytes_text(b, ",\"vectorClock\":");
    if (change->clock.len) {
        bytes_slice(b, change->clock);
    } else {
        clock_write_plain(b, commit->device_id, change->clock_seq, commit->seq);
    }
    bytes_char(b, '}');
}

void history_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    const schema_table *t = schema_find(&r->reg->schema, job->q_entity_type);
    bytes *b = &job->answer;
    int64_t seq = 0;
    int64_t count = 0;
    if (!t) {
        service_problem(job, 400, "invalid-request", "entityType names no table", NULL);
        return;
    }
    if (!parse_before(job, &seq)) {
        return;
    }
    godwit_status status = GODWIT_OK;
    bool more = true;
    bytes_text(b, "{\"changes\":[");
    while (more && count < state->pull.limit) {
        store_commit_row commit;
        store_change_row change;
        status = store_history(r->store, state->scope, t, job->q_entity_id, seq, &commit, &change);
        if (status != GODWIT_OK) {
            break; /* NOT_FOUND: an unknown row, or the log no longer reaches back */
        }
        bytes_text(b, count ? "," : "");
        write_version(b, &commit, &change);
        seq = change.prev_seq;
        more = seq > 0;
        count++;
    }
    more = more && status == GODWIT_OK;
    bytes_text(b, "],\"cursor\":");
    if (more) {
        bytes_char(b, '"');
        bytes_int(b, seq);
        bytes_char(b, '"');
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
