/* Bootstrap pages: the live rows of a scope, table by table (parents first), by key, then the
 * conflicts that wait for a person (entity _conflicts, as in the feed).
 *
 * Pages are read at different times: each row carries its version, and the first page pins where
 * the log goes on afterwards. The token is the cursor of that place, then table and key of the last
 * row:
 *
 *   cursor "." base64url(table) "." base64url(key)
 *
 * It gives no rights: scope and history are checked like those of a cursor. */
#include "core/base64.h"
#include "server/service_inner.h"

#define CONFLICTS "_conflicts"

typedef struct {
    service_reader *r;
    service_job *job;
    const registry *reg;
    const pull_query *query;
    bytes *b;
    table_filter filter;
    store_scope scope;
    wire_cursor pinned;
    size_t table; /* index in reg->order; behind its end: the conflicts */
    slice after;  /* key of the last row sent, in scratch */
    size_t rows;
    bool full; /* the page is */
} snapshot;

/* ---- token ---- */

static bool read_part(arena *a, slice text, slice *out) {
    uint8_t *data = arena_alloc(a, BASE64_DECODED_MAX(text.len));
    size_t len = 0;
    if (!data || !base64url_decode(text, data, &len)) {
        return false;
    }
    *out = (slice){(const char *)data, len};
    return true;
}

static bool split(slice token, slice parts[3]) {
    for (int i = 0; i < 3; i++) {
        const char *dot = i < 2 && token.len ? memchr(token.ptr, '.', token.len) : NULL;
        if (i < 2 && !dot) {
            return false;
        }
        size_t len = dot ? (size_t)(dot - token.ptr) : token.len;
        parts[i] = (slice){token.ptr, len};
        token = (slice){token.ptr + len + (dot ? 1 : 0), token.len - len - (dot ? 1 : 0)};
    }
    return true;
}

/* OK with *valid false: start again. */
static godwit_status read_token(snapshot *p, bool *valid) {
    arena *a = &p->r->scratch;
    slice parts[3];
    slice table;
    int64_t salt;
    *valid = false;
    if (!split(p->job->q_token, parts) || !read_part(a, parts[1], &table) ||
        !read_part(a, parts[2], &p->after)) {
        return a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    godwit_status status = wire_cursor_parse(a, parts[0], &p->pinned);
    if (status != GODWIT_OK) {
        return status == GODWIT_INVALID ? GODWIT_OK : status;
    }
    if (!slice_equal(p->pinned.scope, p->query->scope) || p->pinned.tables_hash != p->filter.hash ||
        p->pinned.seq > p->scope.head || p->pinned.seq < p->scope.horizon) {
        return GODWIT_OK;
    }
    status = store_read_salt(p->r->store, p->pinned.scope, p->pinned.seq, &salt);
    if (status != GODWIT_OK || salt != p->pinned.salt) {
        return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    p->table = p->reg->schema.table_count;
    *valid = slice_is(table, CONFLICTS);
    for (size_t i = 0; i < p->reg->schema.table_count; i++) {
        if (slice_equal(p->reg->order[i]->name, table)) {
            p->table = i;
            *valid = true;
        }
    }
    return GODWIT_OK;
}

/* ---- rows ---- */

static void write_row(snapshot *p, const schema_table *t, const store_live_row *row) {
    bytes *b = p->b;
    bytes_text(b, p->rows ? ",{\"entityType\":" : "{\"entityType\":");
    json_write_text(b, t->entity);
    bytes_text(b, ",\"entityId\":");
    json_write_text(b, row->id);
    bytes_text(b, ",\"ver\":");
    bytes_int(b, row->ver);
    bytes_text(b, ",\"columns\":");
    store_row_json(t, row->values, b);
    bytes_text(b, ",\"vectorClock\":");
    if (row->clock.len) {
        bytes_slice(b, row->clock);
    } else {
        clock_write_plain(b, row->clock_device, row->clock_seq, row->ver);
    }
    bytes_char(b, '}');
    p->rows++;
}

static godwit_status write_table(snapshot *p, const schema_table *t, size_t rows_max) {
    godwit_status status = store_live_open(p->r->store, p->query->scope, t, p->after);
    slice last = {0};
    while (status == GODWIT_OK) {
        store_live_row row;
        bool found = false;
        status = store_live_next(p->r->store, &row, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        write_row(p, t, &row);
        if (p->rows >= rows_max || p->b->len >= PAGE_BYTES_MAX) {
            last = arena_copy(&p->r->scratch, row.id);
            status = last.ptr ? GODWIT_OK : GODWIT_NOMEM;
            p->full = true;
            break;
        }
    }
    store_live_close(p->r->store);
    p->after = last;
    return status;
}

static slice entity_of(const registry *reg, slice table) {
    for (size_t i = 0; i < reg->schema.table_count; i++) {
        if (slice_equal(reg->schema.tables[i].name, table)) {
            return reg->schema.tables[i].entity;
        }
    }
    return table;
}

static void write_conflict(snapshot *p, const store_conflict_row *row) {
    bytes *b = p->b;
    bytes_text(b, p->rows ? ",{\"entityType\":\"" : "{\"entityType\":\"");
    bytes_text(b, CONFLICTS "\",\"entityId\":");
    json_write_text(b, row->id);
    bytes_text(b, ",\"ver\":");
    bytes_int(b, row->commit_seq);
    bytes_text(b, ",\"columns\":");
    store_conflict_json(b, entity_of(p->reg, row->table), row);
    bytes_char(b, '}');
    p->rows++;
}

static godwit_status write_conflicts(snapshot *p, size_t rows_max) {
    godwit_status status = store_conflicts_waiting(p->r->store, p->query->scope, p->after);
    slice last = {0};
    while (status == GODWIT_OK && !p->full) {
        store_conflict_row row;
        bool found = false;
        status = store_conflicts_next(p->r->store, &row, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        write_conflict(p, &row);
        p->full = p->rows >= rows_max || p->b->len >= PAGE_BYTES_MAX;
        if (p->full) {
            last = arena_copy(&p->r->scratch, row.id);
            status = last.ptr ? GODWIT_OK : GODWIT_NOMEM;
        }
    }
    store_conflicts_close(p->r->store);
    p->after = last;
    return status;
}

static godwit_status write_rows(snapshot *p) {
    size_t rows_max = p->query->limit > 0 && p->query->limit < SNAPSHOT_ROWS_MAX
                          ? (size_t)p->query->limit
                          : SNAPSHOT_ROWS_MAX;
    godwit_status status = GODWIT_OK;
    bytes_text(p->b, "{\"rows\":[");
    while (status == GODWIT_OK && p->table < p->reg->schema.table_count) {
        const schema_table *t = p->reg->order[p->table];
        if (!p->filter.wanted || p->filter.wanted[t - p->reg->schema.tables]) {
            status = write_table(p, t, rows_max);
        }
        if (p->full) {
            break;
        }
        p->after = (slice){0};
        p->table++;
    }
    if (status == GODWIT_OK && !p->full && p->filter.conflicts) {
        status = write_conflicts(p, rows_max);
    }
    return status;
}

static void write_end(snapshot *p) {
    bytes *b = p->b;
    char salt[17];
    wire_u64_write(p->pinned.salt, salt);
    bytes_text(b, "],\"asOf\":");
    bytes_int(b, p->pinned.seq);
    bytes_text(b, ",\"salt\":\"");
    bytes_text(b, salt);
    bytes_text(b, "\",\"head\":");
    bytes_int(b, p->scope.head);
    names_write(b, p->reg);
    bytes_text(b, ",\"cursor\":\"");
    wire_cursor_write(b, &p->pinned);
    if (p->full) {
        bytes_text(b, "\",\"token\":\"");
        wire_cursor_write(b, &p->pinned);
        bytes_char(b, '.');
        base64url_encode(b, p->table < p->reg->schema.table_count ? p->reg->order[p->table]->name
                                                            : SLICE(CONFLICTS));
        bytes_char(b, '.');
        base64url_encode(b, p->after);
        bytes_text(b, "\",\"more\":true}");
    } else {
        bytes_text(b, "\",\"token\":null,\"more\":false}");
    }
}

void snapshot_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    snapshot p = {
        .r = r, .job = job, .reg = r->reg, .query = &state->pull, .b = &job->answer};
    slice unknown;
    bool valid = true;
    godwit_status status = store_read_scope(r->store, p.query->scope, &p.scope);
    if (status == GODWIT_OK) {
        status = table_filter_parse(&r->scratch, p.reg, p.query->tables, &p.filter, &unknown);
        if (status == GODWIT_INVALID) {
            service_problem(job, 400, "invalid-request", "tables names a table that is not known",
                            NULL);
            return;
        }
    }
    if (status == GODWIT_OK && job->q_token.len) {
        status = read_token(&p, &valid);
    } else if (status == GODWIT_OK) {
        p.pinned = (wire_cursor){
            .seq = p.scope.head, .scope = p.query->scope, .tables_hash = p.filter.hash};
        status = store_read_salt(r->store, p.query->scope, p.pinned.seq, &p.pinned.salt);
    }
    if (status == GODWIT_OK && !valid) {
        service_problem(job, 410, "cursor-invalid", "the token is of another history: start again",
                        NULL);
        return;
    }
    if (status == GODWIT_OK) {
        status = write_rows(&p);
    }
    if (status != GODWIT_OK) {
        service_fail(job, status);
        return;
    }
    write_end(&p);
    service_done(job);
}
