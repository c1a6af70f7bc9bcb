/* Sealing: captured rows become operations (semantics 5.3), strictly by lsn, group by group.
 *
 *   godwit_log + godwit_group  -> read a group -> coalesce -> write operations per scope
 *
 * One pass over the log, in one transaction. A group over the limits of semantics 3 is cut into
 * groups of GROUP_SPLIT_OPS; the cut depends only on what was captured, so two copies of a database
 * seal alike. Sealed log rows are deleted as the run goes on, except the newest row of the log.
 */
#include "client/event.h"
#include "client/seal.h"

#include <math.h>
#include <stdlib.h>

#include "core/limits.h"

#define WIRE_OP_BYTES  700        /* an operation's names, ids and digests on the wire */
#define ESTIMATE_FROM  (1u << 20) /* below this a group can't reach GROUP_BYTES_MAX */
#define SPLIT_BYTES    (GROUP_BYTES_MAX / 2)
#define FORGET_ROWS    500
#define QUEUED_PER_ROW 2 /* what reading a hash costs less than looking a row up */

/* ---- The log statement ---- */

static int numbered(const char *name, char letter) {
    if (name[0] != letter || name[1] < '0' || name[1] > '9') {
        return -1;
    }
    long n = strtol(name + 1, NULL, 10);
    return n >= 0 && n < COLUMNS_MAX ? (int)n : -1;
}

static void map_column(seal_run_state *s, const char *name, int at) {
    static const struct {
        const char *name;
        size_t offset;
    } fixed[] = {
        {"op", offsetof(seal_run_state, at_op)},     {"tbl", offsetof(seal_run_state, at_tbl)},
        {"pk", offsetof(seal_run_state, at_pk)},     {"mask", offsetof(seal_run_state, at_mask)},
        {"wall", offsetof(seal_run_state, at_wall)}, {"nonce", offsetof(seal_run_state, at_nonce)},
    };
    for (size_t i = 0; i < COUNT_OF(fixed); i++) {
        if (strcmp(name, fixed[i].name) == 0) {
            memcpy((char *)s + fixed[i].offset, &at, sizeof at);
            return;
        }
    }
    int n = numbered(name, 'v');
    if (n >= 0) {
        s->at_v[n] = at;
    } else if ((n = numbered(name, 'o')) >= 0) {
        s->at_o[n] = at;
    } else if ((n = numbered(name, 'k')) > 0 && n < KEY_COLUMNS_MAX) {
        s->at_k[n] = at;
    } else if ((n = numbered(name, 'm')) > 0 && n < SEAL_WORDS) {
        s->at_m[n] = at;
    }
}

static void map_columns(seal_run_state *s) {
    for (size_t i = 0; i < COUNT_OF(s->at_v); i++) {
        s->at_v[i] = -1;
        s->at_o[i] = -1;
    }
    for (size_t i = 0; i < COUNT_OF(s->at_k); i++) {
        s->at_k[i] = -1;
    }
    for (size_t i = 0; i < COUNT_OF(s->at_m); i++) {
        s->at_m[i] = -1;
    }
    for (int i = 0; i < sqlite3_column_count(s->log); i++) {
        map_column(s, sqlite3_column_name(s->log, i), i);
    }
    s->at_k[0] = s->at_pk;
    s->at_m[0] = s->at_mask;
}

/* ---- Reading one captured row ---- */

/* Bytes the text takes inside a JSON string inside a JSON string, at most. */
static size_t wire_bytes(const value *v) {
    if (v->type == VALUE_BLOB) {
        return v->u.s.len / 3 * 4 + 16;
    }
    if (v->type != VALUE_TEXT) {
        return 24;
    }
    size_t n = v->u.s.len + 8;
    for (size_t i = 0; i < v->u.s.len; i++) {
        unsigned char c = (unsigned char)v->u.s.ptr[i];
        n += c < 0x20 ? 6 : (c == '"' || c == '\\') ? 3 : 0;
    }
    return n;
}

static godwit_status take_value(seal_run_state *s, seal_row *row, int at, value *out) {
    if (at < 0) {
        return GODWIT_OK;
    }
    db_column_value(s->log, at, out);
    row->raw_bytes += 8;
    if (out->type == VALUE_TEXT || out->type == VALUE_BLOB) {
        row->raw_bytes += out->u.s.len;
        if (out->type == VALUE_TEXT && !json_utf8_valid(out->u.s)) {
            row->refused = op_code_name(CODE_INVALID_VALUE);
        }
        out->u.s = arena_copy(&s->group, out->u.s);
        return out->u.s.ptr ? GODWIT_OK : GODWIT_NOMEM;
    }
    return GODWIT_OK;
}

static void take_mask(seal_run_state *s, seal_row *row) {
    bool all = row->kind != OP_UPDATE || sqlite3_column_type(s->log, s->at_mask) == SQLITE_NULL;
    for (size_t i = 0; i < row->t->data_count; i++) {
        int at = s->at_m[i / 63];
        if (all || (at >= 0 && (sqlite3_column_int64(s->log, at) >> (i % 63) & 1))) {
            seal_set_bit(row->mask, i);
        }
    }
}

static godwit_status take_key(seal_run_state *s, seal_row *row) {
    const schema_table *shape = &row->t->shape;
    row->key = ARENA_ARRAY(&s->group, value, shape->key_count + 1);
    if (!row->key) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < shape->key_count; i++) {
        godwit_status status = take_value(s, row, s->at_k[i], &row->key[i]);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    godwit_status status = client_key_text(&s->group, row->t, row->key, &row->id);
    if (status == GODWIT_INVALID) {
        row->refused = op_code_name(CODE_INVALID_VALUE);
        row->id = SLICE("");
        status = GODWIT_OK;
    }
    return status;
}

static godwit_status take_values(seal_run_state *s, seal_row *row) {
    size_t n = row->t->data_count;
    godwit_status status = GODWIT_OK;
    row->now = row->kind == OP_DELETE ? NULL : ARENA_ARRAY(&s->group, value, n + 1);
    row->old = row->kind == OP_CREATE ? NULL : ARENA_ARRAY(&s->group, value, n + 1);
    if ((row->kind != OP_DELETE && !row->now) || (row->kind != OP_CREATE && !row->old)) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < n && status == GODWIT_OK; i++) {
        bool in = seal_bit(row->mask, i);
        if (row->now && (in || row->t->data_columns[i] == row->t->shape.scope_column)) {
            status = take_value(s, row, s->at_v[i], &row->now[i]);
        }
        if (status == GODWIT_OK && row->old && in) {
            status = take_value(s, row, s->at_o[i], &row->old[i]);
        }
    }
    return status;
}

static godwit_status take_queue_entry(seal_run_state *s, seal_row *row) {
    slice id = db_column_slice(s->log, s->at_pk);
    slice payload = db_column_slice(s->log, s->at_v[0]);
    int64_t kind = sqlite3_column_int64(s->log, s->at_mask);
    row->kind = kind == 1 ? OP_CREATE : kind == 2 ? OP_UPDATE : OP_DELETE;
    row->raw_bytes = payload.len;
    row->id = arena_copy(&s->group, id);
    row->payload = arena_copy(&s->group, payload.ptr ? payload : SLICE("{}"));
    if (payload.len > ROW_BYTES_MAX) {
        row->refused = op_code_name(CODE_TOO_LARGE);
    }
    return row->id.ptr && row->payload.ptr ? GODWIT_OK : GODWIT_NOMEM;
}

static godwit_status step_hints(seal_run_state *s) {
    godwit_status status = db_step(&s->g->db, s->hints, &s->hint_open);
    s->hint_lsn = s->hint_open ? sqlite3_column_int64(s->hints, 0) : INT64_MAX;
    return status;
}

static godwit_status take_hint(seal_run_state *s, seal_row *row) {
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && s->hint_lsn < row->lsn) {
        status = step_hints(s);
    }
    if (status == GODWIT_OK && s->hint_lsn == row->lsn) {
        row->hinted = true;
        slice key = db_column_slice(s->hints, 1);
        slice depends = db_column_slice(s->hints, 2);
        slice resolves = db_column_slice(s->hints, 3);
        row->client_key = key.ptr ? arena_copy(&s->group, key) : key;
        row->depends_on = depends.ptr ? arena_copy(&s->group, depends) : depends;
        row->resolves = resolves.ptr ? arena_copy(&s->group, resolves) : resolves;
        status = s->group.failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    return status;
}

static godwit_status take_row(seal_run_state *s, seal_row *row) {
    static const op_kind kinds[] = {OP_NONE, OP_CREATE, OP_UPDATE, OP_DELETE, OP_NONE, OP_DELETE};
    memset(row, 0, sizeof *row);
    row->lsn = sqlite3_column_int64(s->log, 0);
    row->nonce = sqlite3_column_int64(s->log, s->at_nonce);
    row->wall_ms =
        (int64_t)llround((sqlite3_column_double(s->log, s->at_wall) - 2440587.5) * 86400000.0);
    int64_t op = sqlite3_column_int64(s->log, s->at_op);
    row->t = client_table_by_number(s->g, sqlite3_column_int64(s->log, s->at_tbl));
    if (!row->t || op < 1 || op > 5) {
        return client_fail(s->g, GODWIT_CORRUPT,
                           "captured change %lld names an unknown table or kind",
                           (long long)row->lsn);
    }
    godwit_status status = GODWIT_OK;
    if (op == 4) {
        status = take_queue_entry(s, row);
    } else {
        row->kind = kinds[op];
        take_mask(s, row);
        status = take_key(s, row);
        if (status == GODWIT_OK) {
            status = take_values(s, row);
        }
    }
    if (status == GODWIT_OK) {
        row->hash = client_row_hash(row->t->tbl, row->id);
        status = take_hint(s, row);
    }
    return status;
}

static size_t estimate(const seal_row *row) {
    size_t n = WIRE_OP_BYTES + row->payload.len * 2;
    for (size_t i = 0; !row->t->queue && i < row->t->data_count; i++) {
        n += row->now ? wire_bytes(&row->now[i]) : 0;
        n += row->old ? wire_bytes(&row->old[i]) : 0;
    }
    return n;
}

/* ---- Groups ---- */

static godwit_status step_ranges(seal_run_state *s) {
    godwit_status status = db_step(&s->g->db, s->ranges, &s->range_open);
    s->range_first = s->range_open ? sqlite3_column_int64(s->ranges, 0) : INT64_MAX;
    s->range_last = s->range_open ? sqlite3_column_int64(s->ranges, 1) : INT64_MAX;
    return status;
}

static void new_group(seal_run_state *s) {
    arena_reset(&s->group);
    s->row_count = 0;
}

static godwit_status add_row(seal_run_state *s) {
    if (s->row_count == s->row_cap) {
        size_t cap = s->row_cap ? s->row_cap * 2 : 64;
        seal_row *rows = mem_resize(s->g->allocator, s->rows, cap * sizeof *rows);
        if (!rows) {
            return GODWIT_NOMEM;
        }
        s->rows = rows;
        s->row_cap = cap;
    }
    godwit_status status = take_row(s, &s->rows[s->row_count]);
    s->row_count += status == GODWIT_OK;
    return status;
}

/* The log forgets what is in operations, in small parts while the run goes on: the pages that fall
 * free take the next operations, and none is written only to say that it is free (SQLite as Debian
 * builds it overwrites them). The newest row stays: lsn must never repeat. */
static godwit_status forget_rows(seal_run_state *s) {
    s->forgotten = s->sealed;
    return db_run(&s->g->db,
                  "DELETE FROM godwit_log WHERE lsn <= ?1 AND lsn < (SELECT max(lsn) FROM"
                  " godwit_log)",
                  "i", s->sealed_lsn);
}

static godwit_status finish_group(seal_run_state *s) {
    if (s->row_count == 0) {
        return GODWIT_OK;
    }
    s->first_lsn = s->rows[0].lsn;
    s->sealed_lsn = s->rows[s->row_count - 1].lsn;
    s->sealed += (int64_t)s->row_count;
    godwit_status status = seal_coalesce(s);
    if (status == GODWIT_OK) {
        status = seal_write_group(s);
    }
    if (status == GODWIT_OK && s->sealed - s->forgotten >= FORGET_ROWS) {
        status = forget_rows(s);
    }
    new_group(s);
    return status;
}

static godwit_status rewind_log(seal_run_state *s, int64_t after, bool *row) {
    sqlite3_reset(s->log);
    sqlite3_reset(s->hints);
    s->hint_lsn = -1;
    godwit_status status = db_bind_int(&s->g->db, s->log, 1, after);
    if (status == GODWIT_OK) {
        status = db_bind_int(&s->g->db, s->hints, 1, after);
    }
    if (status == GODWIT_OK) {
        status = step_hints(s);
    }
    return status == GODWIT_OK ? db_step(&s->g->db, s->log, row) : status;
}

/* The log stands on a row inside the range first..last. Reads on behind it. A range that is over
 * the limits, or whose beginning is sealed already, is cut. */
static godwit_status take_range(seal_run_state *s, int64_t first, int64_t last, bool *row) {
    bool cut = last - first >= GROUP_OPS_MAX || s->sealed_lsn >= first;
    size_t raw = 0, wire = 0;
    godwit_status status = GODWIT_OK;
    new_group(s);
    while (status == GODWIT_OK && *row && sqlite3_column_int64(s->log, 0) <= last) {
        status = add_row(s);
        if (status != GODWIT_OK) {
            break;
        }
        raw += s->rows[s->row_count - 1].raw_bytes + WIRE_OP_BYTES;
        if (raw > ESTIMATE_FROM && wire == 0) {
            for (size_t i = 0; i < s->row_count; i++) {
                wire += estimate(&s->rows[i]);
            }
        } else if (wire) {
            wire += estimate(&s->rows[s->row_count - 1]);
        }
        if (!cut && wire > GROUP_BYTES_MAX) {
            cut = true;
            raw = wire = 0;
            new_group(s);
            status = rewind_log(s, first - 1, row);
            continue;
        }
        if (cut && (s->row_count == GROUP_SPLIT_OPS || wire > SPLIT_BYTES)) {
            raw = wire = 0;
            status = finish_group(s);
        }
        if (status == GODWIT_OK) {
            status = db_step(&s->g->db, s->log, row);
        }
    }
    if (status == GODWIT_OK && cut) {
        client_log(s->g, GODWIT_LOG_INFO, "event=group-split first_lsn=%lld last_lsn=%lld",
                   (long long)first, (long long)last);
    }
    return status == GODWIT_OK ? finish_group(s) : status;
}

static godwit_status take_all(seal_run_state *s, int64_t limit, bool *more) {
    bool row = false;
    godwit_status status = rewind_log(s, s->sealed_lsn, &row);
    if (status == GODWIT_OK && row) {
        status = step_ranges(s);
    }
    while (status == GODWIT_OK && row && s->sealed < limit) {
        int64_t lsn = sqlite3_column_int64(s->log, 0);
        while (status == GODWIT_OK && s->range_last < lsn) {
            status = step_ranges(s);
        }
        if (status == GODWIT_OK && s->range_first <= lsn) {
            status = take_range(s, s->range_first, s->range_last, &row);
        } else if (status == GODWIT_OK) {
            new_group(s);
            status = add_row(s);
            if (status == GODWIT_OK) {
                status = finish_group(s);
            }
            if (status == GODWIT_OK) {
                status = db_step(&s->g->db, s->log, &row);
            }
        }
    }
    *more = status == GODWIT_OK && row;
    return status;
}

/* ---- The run ---- */

/* Filters for the rows of this run. Where much is sealed while little is queued, the queued rows go
 * into them too: reading their hashes from the index is cheaper than looking each new row up. */
static godwit_status make_filters(seal_run_state *s, int64_t rows) {
    db *d = &s->g->db;
    sqlite3_stmt *stmt = NULL;
    int64_t queued = 0;
    bool row = true;
    godwit_status status = db_int(d, &queued,
                                  "SELECT coalesce(sum(n), 0) FROM godwit_counter WHERE name GLOB"
                                  " 'op:*'",
                                  "");
    s->queue_seen = queued <= rows * QUEUED_PER_ROW;
    int64_t expected = rows + (s->queue_seen ? queued : 0);
    s->look_bits = SEAL_LOOK_BITS_MIN;
    while (s->look_bits < SEAL_LOOK_BITS_MAX && (expected * 16) >> s->look_bits) {
        s->look_bits++;
    }
    s->seen = arena_alloc(&s->run, (size_t)1 << (s->look_bits - 3));
    s->created = arena_alloc(&s->run, (size_t)1 << (s->look_bits - 3));
    s->tables = ARENA_ARRAY(&s->run, seal_table, s->g->registry.count + 1);
    if (!s->tables || !s->seen || !s->created) {
        return GODWIT_NOMEM;
    }
    if (status == GODWIT_OK && s->queue_seen) {
        status = db_prepare(d, "SELECT row_hash FROM godwit_op WHERE state <> 'retired'", &stmt);
    }
    while (status == GODWIT_OK && stmt && row) {
        status = db_step(d, stmt, &row);
        if (status == GODWIT_OK && row) {
            seal_remember(s, (uint64_t)sqlite3_column_int64(stmt, 0), true);
        }
    }
    db_done(d, stmt);
    return status;
}

static godwit_status begin(seal_run_state *s, int64_t newest_lsn) {
    godwit *g = s->g;
    godwit_status status = client_meta_text(g, &s->run, "lineage", &s->lineage);
    if (status == GODWIT_OK && !s->lineage.ptr) {
        status = client_fail(g, GODWIT_CORRUPT, "the database has lost its lineage");
    }
    if (status == GODWIT_OK) {
        status = client_scope(g, &s->run, &s->default_scope);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status; /* tables may name their own */
    }
    if (status == GODWIT_OK) { /* again: another handle may have sealed before the lock was ours */
        status = client_meta_int(g, "sealed_lsn", 0, &s->sealed_lsn);
    }
    if (status == GODWIT_OK) {
        status = make_filters(s, newest_lsn - s->sealed_lsn);
    }
    /* the rows of a table whose first contents are still being queued come before what is captured
     * later */
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db,
                            "SELECT * FROM godwit_log WHERE lsn > ?1 AND lsn < coalesce((SELECT"
                            " min(next_lsn) FROM godwit_initial), 9223372036854775807) ORDER BY"
                            " lsn",
                            &s->log);
    }
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db,
                            "SELECT first, last FROM godwit_group WHERE last > ?1 ORDER BY first",
                            &s->ranges);
    }
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db,
                            "SELECT lsn, client_key, depends_on, resolves FROM godwit_hint WHERE"
                            " lsn > ?1 ORDER BY lsn",
                            &s->hints);
    }
    if (status == GODWIT_OK) {
        map_columns(s);
        status = db_bind_int(&g->db, s->ranges, 1, s->sealed_lsn);
    }
    return status;
}

static void release(seal_run_state *s) {
    sqlite3_stmt *all[] = {s->log,     s->ranges,    s->hints,  s->insert,
                           s->row_ops, s->row_known, s->add_dep};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        db_done(&s->g->db, all[i]);
    }
    s->log = s->ranges = s->hints = s->insert = s->row_ops = s->row_known = s->add_dep = NULL;
}

/* Everything up to sealed_lsn is in operations: the log forgets it. */
static godwit_status forget(seal_run_state *s) {
    db *d = &s->g->db;
    godwit_status status = client_meta_set_int(s->g, "sealed_lsn", s->sealed_lsn);
    for (size_t i = 0; i < s->scope_count && status == GODWIT_OK; i++) {
        status = db_run(
            d, "UPDATE godwit_identity SET next_seq = ?3 WHERE scope = ?1 AND device_id = ?2",
            "ssi", s->scopes[i].scope, s->scopes[i].device_id, s->scopes[i].next_seq);
    }
    if (status == GODWIT_OK) {
        status = forget_rows(s);
    }
    if (status == GODWIT_OK) {
        status = db_run(d, "DELETE FROM godwit_group WHERE first <= ?1 AND last <= ?1", "i",
                        s->sealed_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_run(d, "DELETE FROM godwit_hint WHERE lsn <= ?1", "i", s->sealed_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_run(d, "DELETE FROM godwit_gap WHERE last <= ?1", "i", s->sealed_lsn);
    }
    if (status == GODWIT_OK) {
        status = count_ops(s->g, s->made);
    }
    return status == GODWIT_OK ? count_add(s->g, "failed", s->made[OP_REJECTED]) : status;
}

static godwit_status run(seal_run_state *s, int64_t limit, int64_t newest_lsn, bool *more) {
    godwit *g = s->g;
    client_make_room(g);
    godwit_status status = db_begin(&g->db);
    bool open = status == GODWIT_OK;
    if (open) {
        status = begin(s, newest_lsn);
    }
    const int64_t before_lsn = s->sealed_lsn;
    if (status == GODWIT_OK) {
        status = take_all(s, limit, more);
    }
    release(s);
    if (status == GODWIT_OK && s->sealed > 0) {
        status = forget(s);
    }
    if (status == GODWIT_OK && s->sealed > 0) {
        status = event_queued(g, before_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK && open) {
        db_rollback(&g->db);
        *more = false;
    }
    return status;
}

godwit_status seal_run(godwit *g, int64_t limit, bool *more) {
    int64_t newest_lsn = 0, sealed_lsn = 0;
    *more = false;
    godwit_status status = db_int(&g->db, &newest_lsn, "SELECT max(lsn) FROM godwit_log", "");
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "sealed_lsn", 0, &sealed_lsn);
    }
    if (status != GODWIT_OK || newest_lsn <= sealed_lsn) {
        return status;
    }
    seal_run_state *s = mem_resize(g->allocator, NULL, sizeof *s);
    if (!s) {
        return GODWIT_NOMEM;
    }
    memset(s, 0, sizeof *s);
    s->g = g;
    arena_init(&s->run, g->allocator, 0);
    arena_init(&s->group, g->allocator, 0);
    bytes_init(&s->payload, g->allocator, 0);
    bytes_init(&s->base, g->allocator, 0);
    status = run(s, limit, newest_lsn, more);
    mem_free(g->allocator, s->rows);
    mem_free(g->allocator, s->scopes);
    bytes_deinit(&s->payload);
    bytes_deinit(&s->base);
    arena_deinit(&s->group);
    arena_deinit(&s->run);
    mem_free(g->allocator, s);
    return status;
}
