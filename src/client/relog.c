/* Writing to the log what no trigger has captured: an operation that is made again, a resolution
 * that changes nothing. */
#include "client/relog.h"

#include "client/seal.h"

static size_t words_of(const client_table *t) {
    return t->data_count ? (t->data_count + 62) / 63 : 1;
}

/* Name of the column that holds word i of the mask. */
static void mask_name(bytes *b, size_t i) {
    if (i) {
        bytes_printf(b, "m%zu", i);
    } else {
        bytes_text(b, "mask");
    }
}

/* ---- A new row ---- */

static void insert_text(bytes *b, const client_table *t) {
    size_t words = words_of(t);
    size_t parameters = 3 + words + t->shape.key_count + 2 * t->data_count;
    bytes_text(b, "INSERT INTO main.godwit_log (op, tbl, wall, nonce");
    for (size_t i = 0; i < words; i++) {
        bytes_text(b, ", ");
        mask_name(b, i);
    }
    bytes_text(b, ", pk");
    for (size_t i = 1; i < t->shape.key_count; i++) {
        bytes_printf(b, ", k%zu", i);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(b, ", v%zu", i);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(b, ", o%zu", i);
    }
    bytes_text(b, ") VALUES (?1, ?2, ?3, random()");
    for (size_t i = 4; i <= parameters; i++) {
        bytes_printf(b, ", ?%zu", i);
    }
    bytes_char(b, ')');
}

static bool told(const relog_change *change, size_t i) {
    return change->kind != OP_UPDATE || change->now->known[i];
}

static godwit_status bind_both(db *d, sqlite3_stmt *stmt, const relog_change *change, int at) {
    static const value none = {.type = VALUE_NULL};
    const client_table *t = change->t;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < t->data_count && status == GODWIT_OK; i++) {
        bool in = told(change, i);
        const value *v = in && change->kind != OP_DELETE ? &change->now->values[i] : &none;
        const value *o = in && change->kind != OP_CREATE && change->old->present
                             ? &change->old->values[i]
                             : &none;
        if (!in && t->data_columns[i] == t->shape.scope_column && change->old->present) {
            v = &change->old->values[i]; /* sealing finds the row's scope here */
        }
        status = db_bind_value(d, stmt, at + (int)i, v);
        if (status == GODWIT_OK) {
            status = db_bind_value(d, stmt, at + (int)(t->data_count + i), o);
        }
    }
    return status;
}

static godwit_status bind_head(db *d, sqlite3_stmt *stmt, const relog_change *change, int *at) {
    const client_table *t = change->t;
    uint64_t mask[SEAL_WORDS] = {0};
    for (size_t i = 0; i < t->data_count; i++) {
        if (told(change, i)) {
            seal_set_bit(mask, i);
        }
    }
    int64_t op = change->kind == OP_CREATE ? 1 : change->kind == OP_UPDATE ? 2 : 3;
    godwit_status status = db_bind_int(d, stmt, 1, op);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_status(
            d, sqlite3_bind_double(stmt, 3, (double)change->now_ms / 86400000.0 + 2440587.5));
    }
    *at = 4;
    for (size_t i = 0; status == GODWIT_OK && i < words_of(t); i++) {
        status = db_bind_int(d, stmt, (*at)++, (int64_t)mask[i]);
    }
    for (size_t i = 0; status == GODWIT_OK && i < t->shape.key_count; i++) {
        status = db_bind_value(d, stmt, (*at)++, &change->key[i]);
    }
    return status;
}

godwit_status relog_write(godwit *g, const relog_change *change) {
    db *d = &g->db;
    sqlite3_stmt *stmt = NULL;
    int at = 0;
    bytes b;
    bytes_init(&b, g->allocator, 0);
    insert_text(&b, change->t);
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    if (status == GODWIT_OK) {
        status = bind_head(d, stmt, change, &at);
    }
    if (status == GODWIT_OK) {
        status = bind_both(d, stmt, change, at);
    }
    if (status == GODWIT_OK) {
        status = db_status(d, sqlite3_step(stmt));
    }
    db_done(d, stmt);
    return status;
}

/* ---- A captured row ---- */

static void find_text(bytes *b, const client_table *t) {
    bytes_text(b, "SELECT lsn");
    for (size_t i = 0; i < words_of(t); i++) {
        bytes_text(b, ", ");
        mask_name(b, i);
    }
    bytes_text(b, " FROM main.godwit_log WHERE lsn > ?1 AND tbl = ?2 AND op = ?3 AND pk IS ?4");
    for (size_t i = 1; i < t->shape.key_count; i++) {
        bytes_printf(b, " AND k%zu IS ?%zu", i, i + 4);
    }
    bytes_text(b, " ORDER BY lsn LIMIT 1");
}

godwit_status relog_find(godwit *g, const relog_change *change, int64_t after, int64_t *lsn,
                         bool *captured) {
    const client_table *t = change->t;
    db *d = &g->db;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    bytes b;
    bytes_init(&b, g->allocator, 0);
    find_text(&b, t);
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    *lsn = 0;
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, after);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 3,
                             change->kind == OP_DELETE   ? 3
                             : change->kind == OP_CREATE ? 1
                                                         : 2);
    }
    for (size_t i = 0; i < t->shape.key_count && status == GODWIT_OK; i++) {
        status = db_bind_value(d, stmt, (int)i + 4, &change->key[i]);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *lsn = sqlite3_column_int64(stmt, 0);
        for (size_t i = 0; i < t->data_count; i++) {
            captured[i] = sqlite3_column_int64(stmt, (int)(i / 63) + 1) >> (i % 63) & 1;
        }
    }
    db_done(d, stmt);
    return status;
}

static void widen_text(bytes *b, const client_table *t, const uint64_t mask[SEAL_WORDS],
                       const bool *extra) {
    bool first = true;
    bytes_text(b, "UPDATE main.godwit_log SET ");
    for (size_t i = 0; i < words_of(t); i++) {
        if (mask[i]) {
            json_comma(b, &first);
            mask_name(b, i);
            bytes_text(b, " = coalesce(");
            mask_name(b, i);
            bytes_printf(b, ", 0) | %llu", (unsigned long long)mask[i]);
        }
    }
    for (size_t i = 0; i < t->data_count; i++) {
        if (extra[i]) {
            bytes_printf(b, ", v%zu = ?%zu, o%zu = ?%zu", i, i + 2, i, i + 2);
        }
    }
    bytes_text(b, " WHERE lsn = ?1");
}

godwit_status relog_widen(godwit *g, const relog_change *change, int64_t lsn, const bool *extra) {
    const client_table *t = change->t;
    db *d = &g->db;
    uint64_t mask[SEAL_WORDS] = {0};
    sqlite3_stmt *stmt = NULL;
    bool any = false;
    bytes b;
    for (size_t i = 0; i < t->data_count; i++) {
        if (extra[i]) {
            seal_set_bit(mask, i);
            any = true;
        }
    }
    if (!any) {
        return GODWIT_OK;
    }
    bytes_init(&b, g->allocator, 0);
    widen_text(&b, t, mask, extra);
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, lsn);
    }
    for (size_t i = 0; i < t->data_count && status == GODWIT_OK; i++) {
        if (extra[i]) {
            status = db_bind_value(d, stmt, (int)i + 2, &change->now->values[i]);
        }
    }
    if (status == GODWIT_OK) {
        status = db_status(d, sqlite3_step(stmt));
    }
    db_done(d, stmt);
    return status;
}
