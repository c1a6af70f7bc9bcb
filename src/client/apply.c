/* Reading and writing rows of the application's tables by prepared statements, a few kept per
 * table.
 *
 * Statements say OR ABORT: a table whose constraints say ON CONFLICT REPLACE must not lose rows in
 * silence here. */
#include "client/settle.h"
#include "client/track.h"

/* ---- Statements ---- */

/* By index, and byte by byte: under NOCASE another row would answer, too. */
static void key_condition(bytes *b, const client_table *t, int first_parameter) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? " AND " : " WHERE ");
        bytes_identifier(b, t->shape.columns[t->shape.key[i]].name);
        bytes_printf(b, " = ?%d", first_parameter + (int)i);
        if (t->shape.key_kinds[i] == KEY_TEXT) {
            bytes_text(b, " AND ");
            bytes_identifier(b, t->shape.columns[t->shape.key[i]].name);
            bytes_printf(b, " = ?%d COLLATE BINARY", first_parameter + (int)i);
        }
    }
}

static godwit_status prepare_text(settle *s, bytes *b, sqlite3_stmt **out) {
    godwit_status status = b->failed ? GODWIT_NOMEM : db_prepare(s->d, b->ptr, out);
    bytes_deinit(b);
    return status;
}

static godwit_status prepare_select(settle *s, apply_table *table) {
    const client_table *t = table->t;
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT 1");
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(&b, ", ");
        bytes_identifier(&b, t->shape.columns[t->data_columns[i]].name);
    }
    bytes_text(&b, " FROM main.");
    bytes_identifier(&b, t->shape.name);
    key_condition(&b, t, 1);
    return prepare_text(s, &b, &table->select);
}

static godwit_status prepare_remove(settle *s, apply_table *table) {
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "DELETE FROM main.");
    bytes_identifier(&b, table->t->shape.name);
    key_condition(&b, table->t, 1);
    return prepare_text(s, &b, &table->remove);
}

/* Parameters: key columns first, then the columns of the set. */
static godwit_status prepare_shape(settle *s, const client_table *t, apply_shape *shape) {
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    int parameter = (int)t->shape.key_count;
    bytes_text(&b, shape->kind == 'I' ? "INSERT OR ABORT INTO main." : "UPDATE OR ABORT main.");
    bytes_identifier(&b, t->shape.name);
    bytes_text(&b, shape->kind == 'I' ? " (" : " SET ");
    bool first = true;
    for (size_t i = 0; shape->kind == 'I' && i < t->shape.key_count; i++) {
        json_comma(&b, &first);
        bytes_identifier(&b, t->shape.columns[t->shape.key[i]].name);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        if (shape->columns[i / 64] >> (i % 64) & 1) {
            json_comma(&b, &first);
            bytes_identifier(&b, t->shape.columns[t->data_columns[i]].name);
            parameter++;
            if (shape->kind == 'U') {
                bytes_printf(&b, " = ?%d", parameter);
            }
        }
    }
    if (shape->kind == 'I') {
        for (int i = 1; i <= parameter; i++) {
            bytes_printf(&b, i == 1 ? ") VALUES (?%d" : ", ?%d", i);
        }
        bytes_char(&b, ')');
    } else {
        key_condition(&b, t, 1);
    }
    return prepare_text(s, &b, &shape->stmt);
}

static godwit_status shape_of(settle *s, apply_table *table, char kind, const uint64_t columns[4],
                              sqlite3_stmt **out) {
    for (size_t i = 0; i < APPLY_SHAPES; i++) {
        apply_shape *shape = &table->shapes[i];
        if (shape->kind == kind && memcmp(shape->columns, columns, sizeof shape->columns) == 0) {
            *out = shape->stmt;
            return GODWIT_OK;
        }
    }
    apply_shape *shape = &table->shapes[table->next_shape];
    table->next_shape = (table->next_shape + 1) % APPLY_SHAPES;
    db_done(s->d, shape->stmt);
    shape->kind = kind;
    shape->stmt = NULL;
    memcpy(shape->columns, columns, sizeof shape->columns);
    godwit_status status = prepare_shape(s, table->t, shape);
    if (status != GODWIT_OK) {
        shape->kind = 0;
    }
    *out = shape->stmt;
    return status;
}

/* ---- Tables ---- */

static bool has(slice type, const char *upper) {
    size_t len = strlen(upper);
    for (size_t i = 0; i + len <= type.len; i++) {
        size_t n = 0;
        while (n < len && (type.ptr[i + n] & ~0x20) == upper[n]) {
            n++;
        }
        if (n == len) {
            return true;
        }
    }
    return false;
}

/* https://sqlite.org/datatype3.html, 3.1. ANY depends on whether the table is STRICT. */
static char affinity_of(slice type) {
    if (has(type, "INT")) {
        return 'I';
    }
    if (has(type, "CHAR") || has(type, "CLOB") || has(type, "TEXT")) {
        return 'T';
    }
    if (type.len == 0 || has(type, "BLOB")) {
        return 'B';
    }
    if (has(type, "REAL") || has(type, "FLOA") || has(type, "DOUB")) {
        return 'R';
    }
    return type.len == 3 && has(type, "ANY") ? '?' : 'N';
}

/* Longest path of foreign keys below; bounded by the number of tables, so that cycles end. */
static int rank_of(const godwit *g, const client_table *t, int *ranks) {
    for (size_t round = 0; round < g->registry.count; round++) {
        bool moved = false;
        for (size_t c = 0; c < g->registry.count; c++) {
            const client_table *child = &g->registry.tables[c];
            for (size_t f = 0; f < child->shape.fk_count; f++) {
                for (size_t p = 0; p < g->registry.count; p++) {
                    if (p != c &&
                        slice_equal(g->registry.tables[p].shape.name, child->shape.fks[f].table) &&
                        ranks[c] <= ranks[p] && ranks[p] < (int)g->registry.count) {
                        ranks[c] = ranks[p] + 1;
                        moved = true;
                    }
                }
            }
        }
        if (!moved) {
            break;
        }
    }
    return ranks[t - g->registry.tables];
}

/* A column that this device has made NOT NULL with a default may hold NULL on the server: the rows
 * there are older than the column, or come from devices that do not have it. The default is text of
 * the application's own schema. */
static godwit_status read_fallback(settle *s, apply_table *table, size_t at, slice expression) {
    bytes b;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT (");
    bytes_slice(&b, expression);
    bytes_text(&b, "\n)");
    godwit_status status = prepare_text(s, &b, &stmt);
    if (status == GODWIT_OK) {
        status = db_step(s->d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        value *v = &table->fallback[at];
        db_column_value(stmt, 0, v);
        if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
            v->u.s = v->u.s.len ? arena_copy(&s->a, v->u.s) : SLICE("");
            status = v->u.s.ptr ? GODWIT_OK : GODWIT_NOMEM;
        }
    }
    db_done(s->d, stmt);
    return status;
}

static godwit_status read_fallbacks(settle *s, apply_table *table) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    const client_table *t = table->t;
    godwit_status status = db_prepare(s->d,
                                      "SELECT name, dflt_value FROM pragma_table_info(?1, 'main')"
                                      " WHERE \"notnull\" AND dflt_value IS NOT NULL",
                                      &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 1, t->shape.name);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        int column = status == GODWIT_OK && row
                         ? schema_column_index(&t->shape, db_column_slice(stmt, 0))
                         : -1;
        if (column >= 0 && table->data_of[column] >= 0) {
            status =
                read_fallback(s, table, (size_t)table->data_of[column], db_column_slice(stmt, 1));
        }
    }
    db_done(s->d, stmt);
    return status;
}

godwit_status apply_open(settle *s, const client_table *t, apply_table **out) {
    size_t at = (size_t)(t - s->g->registry.tables);
    *out = s->tables[at];
    if (*out) {
        return GODWIT_OK;
    }
    apply_table *table = ARENA_NEW(&s->a, apply_table);
    int *ranks = ARENA_ARRAY(&s->a, int, s->g->registry.count + 1);
    if (!table || !ranks) {
        return GODWIT_NOMEM;
    }
    table->t = t;
    table->missing = t->queue || !t->active;
    table->data_of = ARENA_ARRAY(&s->a, int, t->shape.column_count + 1);
    table->affinity = ARENA_ARRAY(&s->a, char, t->data_count + 1);
    table->parents = ARENA_ARRAY(&s->a, sqlite3_stmt *, t->shape.fk_count + 1);
    table->fallback = ARENA_ARRAY(&s->a, value, t->data_count + 1);
    if (!table->data_of || !table->affinity || !table->parents || !table->fallback) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < t->shape.column_count; i++) {
        table->data_of[i] = -1;
    }
    for (size_t i = 0; i < t->data_count; i++) {
        table->data_of[t->data_columns[i]] = (int)i;
        table->affinity[i] = affinity_of(t->shape.columns[t->data_columns[i]].type);
    }
    table->rank = rank_of(s->g, t, ranks);
    s->tables[at] = table;
    godwit_status status = t->queue         ? GODWIT_OK
                           : table->missing ? GODWIT_INVALID
                                            : prepare_select(s, table);
    if (status == GODWIT_INVALID) { /* what is passed over is fetched when the table is back */
        char key[TRACK_MISSED_BYTES];
        client_log(s->g, GODWIT_LOG_WARN, "event=table-%s table=" SLICE_FMT,
                   table->missing ? "not-tracked" : "missing", SLICE_ARG(t->shape.name));
        table->missing = true;
        track_missed_key(t, key);
        status = client_meta_set_int(s->g, key, 1);
    } else if (status == GODWIT_OK && !t->queue) {
        status = read_fallbacks(s, table);
    }
    *out = status == GODWIT_OK ? table : NULL;
    return status;
}

void apply_close(settle *s) {
    for (size_t i = 0; s->tables && i < s->g->registry.count; i++) {
        apply_table *table = s->tables[i];
        if (!table) {
            continue;
        }
        db_done(s->d, table->select);
        db_done(s->d, table->remove);
        for (size_t f = 0; f < table->t->shape.fk_count; f++) {
            db_done(s->d, table->parents[f]);
        }
        for (size_t k = 0; k < APPLY_SHAPES; k++) {
            db_done(s->d, table->shapes[k].stmt);
        }
        s->tables[i] = NULL;
    }
}

/* ---- Rows ---- */

static godwit_status bind_key(settle *s, sqlite3_stmt *stmt, const client_table *t,
                              const value *key) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < t->shape.key_count && status == GODWIT_OK; i++) {
        status = db_bind_value(s->d, stmt, (int)i + 1, &key[i]);
    }
    return status;
}

static godwit_status run_once(settle *s, sqlite3_stmt *stmt) {
    godwit_status status = db_status(s->d, sqlite3_step(stmt));
    sqlite3_reset(stmt);
    return status;
}

godwit_status apply_read(settle *s, apply_table *table, const value *key, row_image *out) {
    bool row = false;
    godwit_status status = image_init(&s->a, table->t, out);
    if (status == GODWIT_OK) {
        status = bind_key(s, table->select, table->t, key);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, table->select, &row);
    }
    out->present = row;
    for (size_t i = 0; row && i < table->t->data_count; i++) {
        value *v = &out->values[i];
        db_column_value(table->select, (int)i + 1, v);
        out->known[i] = true;
        if ((v->type == VALUE_TEXT || v->type == VALUE_BLOB) && v->u.s.len) {
            v->u.s = arena_copy(&s->a, v->u.s);
            if (!v->u.s.ptr) {
                status = GODWIT_NOMEM;
                break;
            }
        } else if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
            v->u.s = SLICE("");
        }
    }
    sqlite3_reset(table->select);
    return status;
}

static godwit_status write_columns(settle *s, apply_table *table, char kind,
                                   const uint64_t columns[4], const value *key,
                                   const row_image *image) {
    sqlite3_stmt *stmt = NULL;
    godwit_status status = shape_of(s, table, kind, columns, &stmt);
    if (status == GODWIT_OK) {
        status = bind_key(s, stmt, table->t, key);
    }
    int parameter = (int)table->t->shape.key_count;
    for (size_t i = 0; i < table->t->data_count && status == GODWIT_OK; i++) {
        if (columns[i / 64] >> (i % 64) & 1) {
            status = db_bind_value(s->d, stmt, ++parameter, &image->values[i]);
        }
    }
    return status == GODWIT_OK ? run_once(s, stmt) : status;
}

godwit_status apply_insert(settle *s, apply_table *table, const value *key,
                           const row_image *image) {
    uint64_t columns[4] = {0};
    for (size_t i = 0; i < table->t->data_count; i++) {
        columns[i / 64] |= (uint64_t)image->known[i] << (i % 64);
    }
    return write_columns(s, table, 'I', columns, key, image);
}

godwit_status apply_update(settle *s, apply_table *table, const value *key, const row_image *from,
                           const row_image *to) {
    uint64_t columns[4] = {0};
    for (size_t i = 0; i < table->t->data_count; i++) {
        bool differs =
            to->known[i] && (!from->known[i] || !value_equal(&from->values[i], &to->values[i]));
        columns[i / 64] |= (uint64_t)differs << (i % 64);
    }
    if (!(columns[0] | columns[1] | columns[2] | columns[3])) {
        return GODWIT_OK;
    }
    return write_columns(s, table, 'U', columns, key, to);
}

godwit_status apply_delete(settle *s, apply_table *table, const value *key) {
    godwit_status status = table->remove ? GODWIT_OK : prepare_remove(s, table);
    if (status == GODWIT_OK) {
        status = bind_key(s, table->remove, table->t, key);
    }
    return status == GODWIT_OK ? run_once(s, table->remove) : status;
}

godwit_status apply_change(settle *s, apply_table *table, const value *key, const row_image *from,
                           const row_image *to) {
    if (!to->present) {
        return from->present ? apply_delete(s, table, key) : GODWIT_OK;
    }
    return from->present ? apply_update(s, table, key, from, to) : apply_insert(s, table, key, to);
}

/* ---- Foreign keys ---- */

static godwit_status prepare_parent(settle *s, apply_table *table, size_t f) {
    const schema_fk *fk = &table->t->shape.fks[f];
    const client_table *parent = NULL;
    for (size_t i = 0; i < s->g->registry.count; i++) {
        if (!s->g->registry.tables[i].queue &&
            slice_equal(s->g->registry.tables[i].shape.name, fk->table)) {
            parent = &s->g->registry.tables[i];
        }
    }
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT 1 FROM main.");
    bytes_identifier(&b, fk->table);
    for (size_t i = 0; i < fk->count; i++) {
        slice name = fk->ref_columns[i];
        if (!name.len && parent && fk->count == parent->shape.key_count) {
            name = parent->shape.columns[parent->shape.key[i]].name;
        }
        bytes_text(&b, i ? " AND " : " WHERE ");
        if (name.len) {
            bytes_identifier(&b, name);
        } else {
            bytes_text(&b, "rowid");
        }
        bytes_printf(&b, " = ?%d", (int)i + 1);
    }
    return prepare_text(s, &b, &table->parents[f]);
}

static const value *column_value(const apply_table *table, int column, const value *key,
                                 const row_image *image) {
    if (table->data_of[column] >= 0) {
        return &image->values[table->data_of[column]];
    }
    for (size_t i = 0; i < table->t->shape.key_count; i++) {
        if (table->t->shape.key[i] == column) {
            return &key[i];
        }
    }
    return NULL;
}

godwit_status apply_parent_exists(settle *s, apply_table *table, size_t f, const value *key,
                                  const row_image *image, bool *exists) {
    const schema_fk *fk = &table->t->shape.fks[f];
    godwit_status status = table->parents[f] ? GODWIT_OK : prepare_parent(s, table, f);
    *exists = true;
    if (status == GODWIT_INVALID) {
        return GODWIT_OK; /* a table that is not there can't be checked */
    }
    for (size_t i = 0; i < fk->count && status == GODWIT_OK; i++) {
        const value *v = column_value(table, fk->columns[i], key, image);
        if (!v || v->type == VALUE_NULL) {
            return GODWIT_OK;
        }
        status = db_bind_value(s->d, table->parents[f], (int)i + 1, v);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, table->parents[f], exists);
        sqlite3_reset(table->parents[f]);
    }
    return status;
}
