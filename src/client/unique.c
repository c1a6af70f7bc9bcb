/* Which UNIQUE indexes of a table let a REPLACE remove a row of another key (see shape_uniques). */
#include "client/track.h"

#define UNIQUES_MAX 64

/* Skips one token of SQL: a quoted text or name, a comment, or one character. */
static size_t skip_token(slice sql, size_t i) {
    char c = sql.ptr[i];
    char close = c == '[' ? ']' : c;
    if (c == '\'' || c == '"' || c == '`' || c == '[') {
        for (i++; i < sql.len && sql.ptr[i] != close; i++) {
        }
        return i + 1; /* a doubled quote is read as two texts, which comes to the same */
    }
    if (c == '-' && i + 1 < sql.len && sql.ptr[i + 1] == '-') {
        while (i < sql.len && sql.ptr[i] != '\n') {
            i++;
        }
        return i;
    }
    if (c == '/' && i + 1 < sql.len && sql.ptr[i + 1] == '*') {
        for (i += 2; i + 1 < sql.len && !(sql.ptr[i] == '*' && sql.ptr[i + 1] == '/'); i++) {
        }
        return i + 2;
    }
    return i + 1;
}

/* The condition of CREATE UNIQUE INDEX .. ON t (..) WHERE condition: what follows the list. */
static slice condition_of(slice sql) {
    int depth = 0;
    size_t i = 0;
    while (i < sql.len) {
        char c = sql.ptr[i];
        depth += c == '(';
        depth -= c == ')';
        i = skip_token(sql, i);
        if (c == ')' && depth == 0) {
            break;
        }
    }
    while (i < sql.len && sql.ptr[i] != 'w' && sql.ptr[i] != 'W') {
        i = skip_token(sql, i);
    }
    return i + 5 < sql.len ? (slice){sql.ptr + i + 5, sql.len - i - 5} : (slice){0};
}

/* *usable false: an index on an expression, or the primary key where bytes decide anyway. */
static godwit_status read_index(godwit *g, arena *a, slice index, bool is_key, shape_unique *out,
                                bool *usable) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    bool binary = true;
    *usable = true;
    memset(out, 0, sizeof *out);
    godwit_status status = db_prepare(
        &g->db, "SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, index);
    }
    while (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        if (sqlite3_column_type(stmt, 0) == SQLITE_NULL || out->count == COUNT_OF(out->columns)) {
            *usable = false;
            break;
        }
        out->columns[out->count] = arena_copy(a, db_column_slice(stmt, 0));
        out->collations[out->count] = arena_copy(a, db_column_slice(stmt, 1));
        if (!out->columns[out->count].ptr || !out->collations[out->count].ptr) {
            status = GODWIT_NOMEM;
        }
        binary = binary && slice_is(out->collations[out->count], "BINARY");
        out->count++;
    }
    db_done(&g->db, stmt);
    *usable = *usable && out->count > 0 && !(is_key && binary);
    return status;
}

godwit_status shape_uniques(godwit *g, arena *a, const client_table *t, shape_unique **out,
                            size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    shape_unique *list = ARENA_ARRAY(a, shape_unique, UNIQUES_MAX);
    *out = list;
    *count = 0;
    if (!list) {
        return GODWIT_NOMEM;
    }
    godwit_status status = db_prepare(
        &g->db,
        "SELECT l.name, l.origin = 'pk', CASE WHEN l.partial THEN s.sql END FROM"
        " pragma_index_list(?1, 'main') AS l LEFT JOIN sqlite_schema AS s ON s.type = 'index' AND"
        " s.name = l.name WHERE l.\"unique\" ORDER BY l.name",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, t->shape.name);
    }
    while (status == GODWIT_OK && *count < UNIQUES_MAX) {
        bool usable = false;
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        slice index = arena_copy(a, db_column_slice(stmt, 0));
        slice sql = arena_copy(a, db_column_slice(stmt, 2));
        bool is_key = sqlite3_column_int(stmt, 1) != 0;
        shape_unique *u = &list[*count];
        status = index.ptr ? read_index(g, a, index, is_key, u, &usable) : GODWIT_NOMEM;
        if (status == GODWIT_OK && sql.len) {
            u->where = condition_of(sql);
            usable = usable && u->where.len > 0;
        }
        *count += status == GODWIT_OK && usable;
    }
    db_done(&g->db, stmt);
    return status;
}
