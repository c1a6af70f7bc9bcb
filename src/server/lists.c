/* Lists for people: the conflict records of a scope, newest first. */
#include "server/service_inner.h"

void list_text(bytes *b, const char *name, slice text) {
    bytes_text(b, name);
    if (text.ptr) {
        json_write_text(b, text);
    } else {
        bytes_text(b, "null");
    }
}

void list_json(bytes *b, const char *name, slice json_text_or_empty) {
    bytes_text(b, name);
    bytes_slice(b, json_text_or_empty.len ? json_text_or_empty : SLICE("null"));
}

void list_time(bytes *b, const char *name, int64_t ms) {
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

void list_conflict(bytes *b, const registry *reg, const store_conflict_row *row) {
    list_text(b, "{\"id\":", row->id);
    bytes_text(b, ",\"commitSeq\":");
    bytes_int(b, row->commit_seq);
    list_text(b, ",\"entityType\":", entity_of(reg, row->table));
    list_text(b, ",\"entityId\":", row->entity_id);
    list_text(b, ",\"kind\":", row->kind);
    list_text(b, ",\"operation\":", row->operation);
    list_json(b, ",\"columns\":", row->columns);
    list_json(b, ",\"base\":", row->base);
    list_json(b, ",\"theirs\":", row->theirs);
    list_json(b, ",\"ours\":", row->ours);
    list_json(b, ",\"chosen\":", row->chosen);
    list_json(b, ",\"writers\":", row->writers);
    list_text(b, ",\"policy\":", row->policy);
    list_text(b, ",\"winner\":", row->winner);
    list_text(b, ",\"state\":", row->state);
    list_text(b, ",\"deviceId\":", row->device_id);
    list_text(b, ",\"resolvedBy\":", row->resolved_by);
    bytes_text(b, ",\"resolvedCommit\":");
    if (row->resolved_commit) {
        bytes_int(b, row->resolved_commit);
    } else {
        bytes_text(b, "null");
    }
    list_time(b, ",\"at\":", row->at_ms);
    bytes_char(b, '}');
}

/* Lists go on with ?cursor=: the number of the last commit shown. */
bool list_before(service_job *job, int64_t *out) {
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
    if (!list_before(job, &before)) {
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
        list_conflict(b, reg, &row);
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
