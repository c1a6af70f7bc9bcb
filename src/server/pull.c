/* The feed: pages of whole commits after a cursor, for GET /v1/sync/changes and as the second half
 * of POST /v1/sync; both write the same bytes for the same page.
 *
 * Stored JSON is spliced into the answer as it is. A commit without anything for the reader (a
 * refusal or a no-op of somebody else, other tables) is left out; its number only moves the cursor.
 * What many devices come for is read once (pages.h).
 */
#include "server/service_inner.h"

#include <stdio.h>
#include <stdlib.h>

#define SCAN_COMMITS_MAX                                                                           \
    20000 /* commits looked at for one page, so that skipping is bounded too                       \
           */

typedef struct {
    service *s;
    service_reader *r;
    service_job *job;
    const registry *reg;
    const pull_query *query;
    bytes *b;
    table_filter filter;
    store_scope scope;
    wire_cursor cursor; /* where the page begins, then where it ends */
    const slice **mine; /* query->device and those before it that are the caller's */
    size_t mine_count;
    bool more;
    size_t commits;
    const schema_table *table; /* of the change before: found again without looking */
    int64_t now_ms;
} pull;

/* ---- tables= ---- */

static int by_text(const void *a, const void *b) {
    return slice_compare(*(const slice *)a, *(const slice *)b);
}

godwit_status table_filter_parse(arena *a, const registry *reg, slice names, table_filter *out,
                                 slice *unknown) {
    *out = (table_filter){.conflicts = true};
    *unknown = (slice){0};
    if (names.len == 0) {
        return GODWIT_OK;
    }
    size_t count = 1;
    for (size_t i = 0; i < names.len; i++) {
        count += names.ptr[i] == ',';
    }
    slice *list = ARENA_ARRAY(a, slice, count);
    out->wanted = ARENA_ARRAY(a, bool, reg->schema.table_count);
    out->conflicts = false;
    if (!list || !out->wanted) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        const char *comma = memchr(names.ptr, ',', names.len);
        size_t len = comma ? (size_t)(comma - names.ptr) : names.len;
        list[i] = (slice){names.ptr, len};
        names = (slice){names.ptr + len + (comma ? 1 : 0), names.len - len - (comma ? 1 : 0)};
        const schema_table *t = schema_find(&reg->schema, list[i]);
        if (t) {
            out->wanted[t - reg->schema.tables] = true;
        } else if (slice_is(list[i], "_conflicts")) {
            out->conflicts = true;
        } else {
            *unknown = list[i];
            return GODWIT_INVALID;
        }
    }
    qsort(list, count, sizeof *list, by_text);
    out->hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < list[i].len; k++) {
            out->hash = (out->hash ^ (unsigned char)list[i].ptr[k]) * UINT64_C(1099511628211);
        }
        out->hash = (out->hash ^ ',') * UINT64_C(1099511628211);
    }
    out->hash = out->hash ? out->hash : 1;
    return GODWIT_OK;
}

/* ---- where the page begins ---- */

typedef struct {
    int http;
    const char *type, *detail;
} refusal;

static godwit_status check_cursor(pull *p, refusal *why) {
    service_reader *r = p->r;
    const slice text = p->query->cursor;
    int64_t salt = 0;
    p->cursor = (wire_cursor){.scope = p->query->scope, .tables_hash = p->filter.hash};
    if (text.len == 0) {
        if (p->scope.horizon > 0) {
            *why =
                (refusal){410, "bootstrap-required", "the log no longer begins at the beginning"};
        }
        return GODWIT_OK;
    }
    wire_cursor given;
    godwit_status status = wire_cursor_parse(&r->scratch, text, &given);
    if (status == GODWIT_INVALID) {
        *why = (refusal){410, "cursor-invalid", "the cursor can't be read"};
        return GODWIT_OK;
    }
    if (status != GODWIT_OK) {
        return status;
    }
    if (!slice_equal(given.scope, p->query->scope)) {
        *why = (refusal){410, "cursor-invalid", "the cursor is of another scope"};
    } else if (given.tables_hash != p->filter.hash) {
        *why = (refusal){410, "cursor-invalid", "the cursor is of another list of tables"};
    } else if (given.seq > p->scope.head) {
        *why = (refusal){410, "cursor-invalid", "the cursor is ahead of this history"};
    } else if (given.seq < p->scope.horizon) {
        *why = (refusal){410, "cursor-expired", "the log at the cursor is no longer kept"};
    }
    if (why->http) {
        return GODWIT_OK;
    }
    status = store_read_salt(r->store, given.scope, given.seq, &salt);
    if (status == GODWIT_NOT_FOUND || (status == GODWIT_OK && salt != given.salt)) {
        *why = (refusal){410, "cursor-invalid", "the cursor is of another history"};
        return GODWIT_OK;
    }
    p->cursor.seq = given.seq;
    p->cursor.salt = given.salt;
    return status;
}

static godwit_status add_mine(pull *p, const slice *id) {
    decide_device device;
    service_reader *r = p->r;
    godwit_status status = store_read_device(r->store, &r->scratch, p->query->scope, *id, &device);
    if (status == GODWIT_OK && slice_equal(device.user_id, p->job->who.user)) {
        p->mine[p->mine_count++] = id;
        if (id == &p->query->device) {
            int64_t pulled = p->query->cursor.len ? p->cursor.seq : -1;
            seen_note(p->s, p->query->scope, &device,
                      &(seen_news){.pulled_seq = pulled, .confirmed_seq = -1});
        }
    }
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

/* Whose commits come with their outcomes. */
static godwit_status find_mine(pull *p) {
    const pull_query *query = p->query;
    godwit_status status = GODWIT_OK;
    if (!query->device.len) {
        return status;
    }
    p->mine = ARENA_ARRAY(&p->r->scratch, const slice *, query->earlier_count + 1);
    status = p->mine ? add_mine(p, &query->device) : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < query->earlier_count; i++) {
        status = add_mine(p, &query->earlier[i]);
    }
    return status;
}

static bool is_mine(const pull *p, slice device) {
    for (size_t i = 0; i < p->mine_count; i++) {
        if (slice_equal(*p->mine[i], device)) {
            return true;
        }
    }
    return false;
}

static godwit_status begin(pull *p, refusal *why) {
    service_reader *r = p->r;
    slice unknown;
    godwit_status status = store_read_scope(r->store, p->query->scope, &p->scope);
    if (status == GODWIT_OK) {
        status = table_filter_parse(&r->scratch, p->reg, p->query->tables, &p->filter, &unknown);
        if (status == GODWIT_INVALID) {
            *why = (refusal){400, "invalid-request", "tables names a table that is not known"};
            return GODWIT_OK;
        }
    }
    if (status == GODWIT_OK) {
        status = check_cursor(p, why);
    }
    return status == GODWIT_OK && !why->http ? find_mine(p) : status;
}

/* ---- one commit ---- */

void clock_write_plain(bytes *b, slice device, int64_t seq, int64_t floor) {
    if (seq > 0 && device.len) {
        bytes_text(b, "{\"$\":0,\"");
        bytes_slice(b, device);
        bytes_text(b, "\":");
        bytes_int(b, seq);
        bytes_char(b, '}');
    } else {
        bytes_text(b, "{\"$\":");
        bytes_int(b, floor);
        bytes_char(b, '}');
    }
}

/* The name on the wire; false when the reader does not want the table. */
static bool table_wanted(pull *p, slice table, slice *entity) {
    if (slice_is(table, "_conflicts")) {
        *entity = table;
        return p->filter.conflicts;
    }
    if (!p->table || !slice_equal(p->table->name, table)) {
        p->table = NULL;
        for (size_t i = 0; i < p->reg->schema.table_count; i++) {
            if (slice_equal(p->reg->schema.tables[i].name, table)) {
                p->table = &p->reg->schema.tables[i];
            }
        }
    }
    if (!p->table) {
        return false; /* no longer synced */
    }
    *entity = p->table->entity;
    return !p->filter.wanted || p->filter.wanted[p->table - p->reg->schema.tables];
}

static void write_change(bytes *b, const store_change_row *change, slice entity, slice author) {
    bytes_text(b, "{\"entityType\":");
    json_write_text(b, entity);
    bytes_text(b, ",\"entityId\":");
    json_write_text(b, change->id);
    if (change->is_delete) {
        bytes_text(b, ",\"kind\":\"delete\"");
    } else {
        bytes_text(b, ",\"kind\":\"upsert\",\"columns\":");
        bytes_slice(b, change->columns);
        bytes_text(b, change->full ? ",\"full\":true" : ",\"full\":false");
    }
    if (entity.ptr[0] != '_') {
        bytes_text(b, ",\"vectorClock\":");
        if (change->clock.len) {
            bytes_slice(b, change->clock);
        } else {
            clock_write_plain(b, author, change->clock_seq, change->commit_seq);
        }
    }
    bytes_char(b, '}');
}

void pull_write_result(bytes *b, const store_ledger_row *row) {
    char id[UUID_TEXT_BYTES];
    id_operation(row->lineage, row->lsn, id);
    bytes_text(b, "{\"id\":\"");
    bytes_text(b, id);
    bytes_text(b, "\",\"status\":\"");
    bytes_text(b, push_answer_status(row->outcome));
    bytes_text(b, "\",\"outcome\":\"");
    bytes_text(b, op_outcome_name(row->outcome));
    bytes_text(b, "\",\"commitSeq\":");
    bytes_int(b, row->commit_seq);
    bytes_text(b, ",\"sequenceNumber\":");
    bytes_int(b, row->seq);
    bytes_text(b, ",\"idempotencyKey\":\"");
    bytes_hex(b, row->key.ptr, row->key.len);
    bytes_char(b, '"');
    if (row->code != CODE_NONE) {
        push_answer_error(b, row->code, row->detail);
    }
    if (row->conflicts.len) {
        bytes_text(b, ",\"conflicts\":");
        bytes_slice(b, row->conflicts);
    }
    bytes_char(b, '}');
}

static godwit_status write_own(pull *p, const store_commit_row *commit) {
    bytes *b = p->b;
    store_ledger_row row;
    bool found = true;
    bytes_text(b, ",\"own\":{\"first\":");
    bytes_int(b, commit->first_seq);
    bytes_text(b, ",\"last\":");
    bytes_int(b, commit->last_seq);
    bytes_text(b, ",\"outcome\":\"");
    bytes_text(b, op_outcome_name(commit->outcome));
    bytes_text(b, "\",\"results\":[");
    godwit_status status = store_ledger_open(p->r->store, p->query->scope, commit->device_id,
                                             commit->first_seq, commit->last_seq);
    for (bool first = true; status == GODWIT_OK && found; first = false) {
        status = store_ledger_next(p->r->store, &row, &found);
        if (status == GODWIT_OK && found) {
            bytes_text(b, first ? "" : ",");
            pull_write_result(b, &row);
        }
    }
    store_ledger_close(p->r->store);
    bytes_text(b, "]}");
    return status;
}

static void write_head(bytes *b, const store_commit_row *commit) {
    char text[32];
    bytes_text(b, "{\"seq\":");
    bytes_int(b, commit->seq);
    wire_u64_write(commit->salt, text);
    bytes_text(b, ",\"salt\":\"");
    bytes_text(b, text);
    wire_time_write(commit->at_ms, text);
    bytes_text(b, "\",\"at\":\"");
    bytes_text(b, text);
    bytes_text(b, "\",\"author\":{\"deviceId\":");
    if (commit->device_id.len) {
        json_write_text(b, commit->device_id);
    } else {
        bytes_text(b, "null");
    }
    bytes_text(b, ",\"userId\":");
    json_write_text(b, commit->user_id);
    bytes_text(b, "},\"changes\":[");
}

/* Writes the commit, or nothing when there is nothing in it for this reader. */
static godwit_status write_commit(pull *p, const store_commit_row *commit) {
    bytes *b = p->b;
    size_t begin_len = b->len;
    size_t changes = 0;
    bool own = commit->first_seq > 0 && is_mine(p, commit->device_id);
    godwit_status status = GODWIT_OK;
    if (p->commits > 0) {
        bytes_char(b, ',');
    }
    write_head(b, commit);
    for (bool row = true; status == GODWIT_OK;) {
        store_change_row change;
        slice entity;
        status = store_feed_change(p->r->store, commit->seq, &change, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        if (table_wanted(p, change.table, &entity)) {
            bytes_text(b, changes ? "," : "");
            write_change(b, &change, entity, commit->device_id);
            changes++;
        }
    }
    bytes_char(b, ']');
    if (status == GODWIT_OK && own) {
        status = write_own(p, commit);
    }
    bytes_char(b, '}');
    if (changes == 0 && !own && !b->failed) {
        b->len = begin_len;
    } else {
        p->commits++;
    }
    return status;
}

/* ---- the page ---- */

/* Commits from the database. Notes what others need to know who come for the same page. */
static godwit_status read_commits(pull *p, feed_page *made) {
    bytes *b = p->b;
    size_t begin_len = b->len;
    godwit_status status = GODWIT_OK;
    bool row = p->cursor.seq < p->scope.head;
    int64_t scanned = 0;
    if (row) {
        status = store_feed_open(p->r->store, p->query->scope, p->cursor.seq);
    }
    while (status == GODWIT_OK && row) {
        store_commit_row commit;
        if ((int64_t)p->commits >= made->key.limit || b->len - begin_len >= PAGE_BYTES_MAX ||
            scanned >= SCAN_COMMITS_MAX) {
            made->full = true;
            break;
        }
        status = store_feed_commit(p->r->store, &commit, &row);
        if (status == GODWIT_OK && row) {
            p->cursor.seq = commit.seq;
            p->cursor.salt = commit.salt;
            scanned++;
            page_author(made, &p->r->scratch, commit.first_seq > 0 ? commit.device_id : (slice){0});
            status = write_commit(p, &commit);
        }
    }
    store_feed_close(p->r->store);
    made->commits = (slice){b->ptr + begin_len, b->len - begin_len};
    made->end_seq = p->cursor.seq;
    made->end_salt = p->cursor.salt;
    return status;
}

/* A page is the same for all who had no part in it. One that was kept is good while the history
 * still goes through its end: another server may have taken its place meanwhile, with less of it.
 */
static godwit_status write_commits(pull *p) {
    feed_page made = {.key = {.registry = p->reg,
                              .scope = p->query->scope,
                              .seq = p->cursor.seq,
                              .salt = p->cursor.salt,
                              .tables = p->filter.hash,
                              .limit = p->query->limit > 0 && p->query->limit < PAGE_COMMITS_MAX
                                           ? p->query->limit
                                           : PAGE_COMMITS_MAX}};
    size_t begin_len = p->b->len;
    bool shared = p->job->who.role.len == 0 && p->cursor.seq < p->scope.head;
    if (shared && pages_find(&p->s->pages, &made, p->scope.head, p->mine, p->mine_count, p->b)) {
        int64_t salt = 0;
        godwit_status status = store_read_salt(p->r->store, p->query->scope, made.end_seq, &salt);
        if (status == GODWIT_OK && salt == made.end_salt) {
            p->cursor.seq = made.end_seq;
            p->cursor.salt = made.end_salt;
            return GODWIT_OK;
        }
        p->b->len = begin_len;
        if (status != GODWIT_OK && status != GODWIT_NOT_FOUND) {
            return status;
        }
    }
    godwit_status status = read_commits(p, &made);
    if (status == GODWIT_OK && shared && !p->b->failed) {
        pages_keep(&p->s->pages, &made, p->mine, p->mine_count);
    }
    return status;
}

static godwit_status write_page(pull *p) {
    bytes *b = p->b;
    bytes_text(b, "{\"from\":");
    bytes_int(b, p->cursor.seq);
    bytes_text(b, ",\"commits\":[");
    godwit_status status = write_commits(p);
    if (status != GODWIT_OK) {
        return status;
    }
    p->more = p->cursor.seq < p->scope.head;
    bytes_text(b, "],\"cursor\":\"");
    wire_cursor_write(b, &p->cursor);
    bytes_text(b, "\",\"head\":");
    bytes_int(b, p->scope.head);
    names_write(b, p->reg);
    bytes_text(b, p->more ? ",\"more\":true}" : ",\"more\":false}");
    return GODWIT_OK;
}

/* ---- GET /v1/sync/changes ---- */

static void run_changes(pull *p) {
    service_job *job = p->job;
    refusal why = {0};
    char tag[sizeof job->etag];
    godwit_status status = begin(p, &why);
    if (status == GODWIT_OK && why.http) {
        service_problem(job, why.http, why.type, why.detail, NULL);
        return;
    }
    snprintf(tag, sizeof tag, "\"%lld\"", (long long)p->scope.head);
    bool nothing_new = p->cursor.seq >= p->scope.head;
    if (status == GODWIT_OK && nothing_new && p->query->wait && !job->wait_over) {
        job->park = true;
        job->park_scope = p->query->scope;
        job->park_head = p->scope.head;
        return;
    }
    if (status == GODWIT_OK && job->q_if_none_match.len && slice_is(job->q_if_none_match, tag)) {
        job->status = 304;
        job->content_type = "application/json";
        job->wants_read = false;
        memcpy(job->etag, tag, sizeof tag);
        return;
    }
    if (status == GODWIT_OK) {
        status = write_page(p);
    }
    if (status != GODWIT_OK) {
        service_fail(job, status);
        return;
    }
    memcpy(job->etag, tag, sizeof tag);
    service_done(job);
}

/* ---- POST /v1/sync, and pushes without operations ---- */

/* A request without operations has not been to the writer: its device is looked at here. */
static godwit_status answer_empty_push(pull *p, bool *refused) {
    service_job *job = p->job;
    const job_state *state = job->state;
    const push_request *request = &state->push;
    decide_device device = {0};
    decide_context context = {.scope = state->scope};
    store_scope scope;
    int64_t applied = -1;
    godwit_status status = store_read_scope(p->r->store, state->scope, &scope);
    if (status == GODWIT_OK && request->stream) {
        status = store_read_device(p->r->store, &p->r->scratch, state->scope, request->device_id,
                                   &device);
        stream_verdict verdict = STREAM_FORBIDDEN_DEVICE;
        if (status == GODWIT_OK) {
            verdict = decide_stream(&context, &device, job->who.user, request, NULL);
        }
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
        *refused = status == GODWIT_OK && push_refuse_stream(job, verdict, &device);
        applied = device.applied_seq;
        if (status == GODWIT_OK && !*refused) {
            seen_note(p->s, state->scope, &device,
                      &(seen_news){.pulled_seq = -1,
                                   .confirmed_seq = request->confirmed_seq,
                                   .report = request->has_report ? &request->report : NULL});
        }
    }
    if (status == GODWIT_OK && !*refused) {
        push_answer_write(job, NULL, applied, scope.head, p->now_ms, job->verb == VERB_SYNC);
    }
    return status;
}

static void run_sync(pull *p) {
    service_job *job = p->job;
    const job_state *state = job->state;
    refusal why = {0};
    bool refused = false;
    godwit_status status = GODWIT_OK;
    if (state->push.op_count == 0) {
        status = answer_empty_push(p, &refused);
    }
    if (refused) {
        return;
    }
    if (status == GODWIT_OK && job->verb == VERB_SYNC) {
        status = begin(p, &why);
        if (status == GODWIT_OK && why.http) {
            bytes_text(p->b, ",\"changes\":null,\"changesProblem\":\"");
            bytes_text(p->b, why.type);
            bytes_text(p->b, "\"}");
        } else if (status == GODWIT_OK) {
            bytes_text(p->b, ",\"changes\":");
            status = write_page(p);
            bytes_char(p->b, '}');
        }
    }
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else {
        service_done(job);
    }
}

void pull_run(service *s, service_reader *r, service_job *job) {
    const job_state *state = job->state;
    pull p = {.s = s,
              .r = r,
              .job = job,
              .reg = r->reg,
              .query = &state->pull,
              .b = &job->answer,
              .now_ms = service_now(s)};
    if (job->verb == VERB_CHANGES) {
        run_changes(&p);
    } else {
        run_sync(&p);
    }
}
