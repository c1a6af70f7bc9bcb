/* Typed rows: the user's own tables, brought in line with what decide planned.
 *
 * What the feed carries must be what the database holds. Storage changes a value only where the
 * column's affinity disagrees with the value's type, a default is taken, or a trigger of the
 * application steps in; exactly then the row is read back, otherwise the planned values stand. A
 * statement that a constraint stops becomes a refusal with a code; constraint texts of SQLite name
 * tables, columns and checks, never values. */
#include "server/store_sqlite.h"

#include <math.h>
#include <stdlib.h>

/* ---- keys and values ---- */

static godwit_status bind_part(db *d, arena *a, sqlite3_stmt *stmt, int index, key_kind kind,
                               slice part) {
    value v;
    char digits[24];
    switch (kind) {
    case KEY_TEXT:
        v = (value){.type = VALUE_TEXT, .u.s = part};
        return db_bind_value(d, stmt, index, &v);
    case KEY_INTEGER:
        if (part.len == 0 || part.len >= sizeof digits) {
            return GODWIT_INVALID;
        }
        memcpy(digits, part.ptr, part.len);
        digits[part.len] = '\0';
        return db_bind_int(d, stmt, index, strtoll(digits, NULL, 10));
    case KEY_BLOB:
        break;
    }
    uint8_t *data = arena_alloc(a, part.len / 2 + 1);
    if (!data || part.len % 2 || !id_hex_decode(part, data, part.len / 2)) {
        return data ? GODWIT_INVALID : GODWIT_NOMEM;
    }
    v = (value){.type = VALUE_BLOB, .u.s = {(const char *)data, part.len / 2}};
    return db_bind_value(d, stmt, index, &v);
}

godwit_status typed_bind_key(db *d, arena *a, sqlite3_stmt *stmt, int index, const schema_table *t,
                             slice id) {
    if (t->key_count == 1 && t->key_kinds[0] == KEY_TEXT) {
        return bind_part(d, a, stmt, index, KEY_TEXT, id);
    }
    slice parts[KEY_COLUMNS_MAX];
    godwit_status status = schema_id_parts(a, t, id, parts);
    for (size_t i = 0; status == GODWIT_OK && i < t->key_count; i++) {
        status = bind_part(d, a, stmt, index + (int)i, t->key_kinds[i], parts[i]);
    }
    return status;
}

godwit_status typed_read_values(sqlite3_stmt *stmt, const schema_table *t, arena *a, value *out) {
    for (size_t i = 0; i < t->column_count; i++) {
        db_column_value(stmt, (int)i, &out[i]);
        bool bytes_inside = out[i].type == VALUE_TEXT || out[i].type == VALUE_BLOB;
        if (out[i].type == VALUE_TEXT && !json_utf8_valid(out[i].u.s)) {
            out[i].type = VALUE_BLOB; /* written by other hands; it could not travel as text */
        }
        if (bytes_inside && a) {
            out[i].u.s = arena_copy(a, out[i].u.s);
            if (!out[i].u.s.ptr) {
                return GODWIT_NOMEM;
            }
        }
    }
    return GODWIT_OK;
}

godwit_status typed_select(store *st, arena *a, const schema_table *t, slice id,
                           sqlite3_stmt **stmt, bool *found) {
    const table_info *info = tables_info(st->tables.tables, t);
    table_stmts *s = &st->tables.stmts[info - st->tables.tables->infos];
    *found = false;
    godwit_status status = stmt_once(&st->d, &s->select, info->select_sql);
    *stmt = s->select;
    if (status == GODWIT_OK) {
        status = typed_bind_key(&st->d, a, s->select, 1, t, id);
    }
    return status == GODWIT_OK ? db_step(&st->d, s->select, found) : status;
}

/* Might a column of this affinity hold something else than the value it was given? */
static bool storage_changes(char affinity, const value *v) {
    switch ((value_type)v->type) {
    case VALUE_NULL:
    case VALUE_BLOB:
        return false;
    case VALUE_INT:
        return affinity == 'T' || affinity == 'R';
    case VALUE_REAL:
        /* NaN is stored as NULL; whole numbers become integers where they can */
        return affinity == 'T' || affinity == 'I' || affinity == 'N' || isnan(v->u.d);
    case VALUE_TEXT:
        return affinity == 'I' || affinity == 'N' || affinity == 'R';
    case VALUE_SPECIAL:
        return true;
    }
    return true;
}

/* ---- refusals ---- */

static op_code code_of(int extended) {
    switch (extended) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return CODE_UNIQUE_VIOLATION;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return CODE_FK_VIOLATION;
    case SQLITE_CONSTRAINT_CHECK:
        return CODE_CHECK_FAILED;
    case SQLITE_CONSTRAINT_NOTNULL:
        return CODE_NOT_NULL;
    case SQLITE_CONSTRAINT_DATATYPE:
    case SQLITE_MISMATCH:
        return CODE_INVALID_VALUE;
    case SQLITE_TOOBIG:
        return CODE_TOO_LARGE;
    case SQLITE_CONSTRAINT_TRIGGER:
    default:
        return CODE_VALIDATION;
    }
}

/* Steps a writing statement to its end; CONSTRAINT with the refusal set. */
static godwit_status write_step(typed_writer *w, sqlite3_stmt *stmt) {
    db *d = &w->st->d;
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE || rc == SQLITE_ROW) {
        sqlite3_reset(stmt);
        return GODWIT_OK;
    }
    int extended = sqlite3_extended_errcode(d->handle);
    godwit_status status = db_status(d, rc);
    int primary = extended & 0xff;
    if (primary == SQLITE_CONSTRAINT || primary == SQLITE_MISMATCH || primary == SQLITE_TOOBIG ||
        primary == SQLITE_ERROR) {
        w->refusal->code = code_of(extended);
        w->refusal->detail = arena_copy(w->c->a, slice_of(d->message));
        status = w->refusal->detail.ptr ? GODWIT_CONSTRAINT : GODWIT_NOMEM;
    }
    sqlite3_reset(stmt);
    return status;
}

/* ---- writing ---- */

/* What a row held that typed_make_room took out. */
struct kept_row {
    const decide_row *row;
    value *values;
    struct kept_row *next;
};

static const value *kept_value(const typed_writer *w, const decide_row *row, int column) {
    for (const struct kept_row *k = w->kept; k; k = k->next) {
        if (k->row == row) {
            return &k->values[column];
        }
    }
    return NULL;
}

/* The value of a column the server maintains itself. */
static value local_value(const typed_writer *w, const decide_change *change, int column) {
    const schema_table *t = change->row->table;
    const value *kept = kept_value(w, change->row, column);
    value v = {.type = VALUE_NULL};
    if (kept && (column == t->created_by_device_column ||
                 (column == t->deleted_column && !change->is_delete && !change->full))) {
        v = *kept;
    } else if (column == t->updated_at_column) {
        v = (value){.type = VALUE_TEXT, .u.s = slice_of(w->now_text)};
    } else if (column == t->vector_clock_column) {
        v = (value){.type = VALUE_TEXT, .u.s = change->clock_json};
    } else if (column == t->created_by_device_column && w->author->device_id.len) {
        v = (value){.type = VALUE_TEXT, .u.s = w->author->device_id};
    } else if (column == t->deleted_column && change->is_delete) {
        v = (value){.type = VALUE_TEXT, .u.s = slice_of(w->now_text)};
    }
    return v;
}

/* Binds column i to parameter i + 1. *read_back is raised when storage may change the value. */
static godwit_status bind_column(typed_writer *w, sqlite3_stmt *stmt, const table_info *info,
                                 decide_change *change, size_t i, bool *read_back) {
    db *d = &w->st->d;
    if (info->table->columns[i].local) {
        value v = local_value(w, change, (int)i);
        return db_bind_value(d, stmt, (int)i + 1, &v);
    }
    const value *v = &change->row->row.values[i];
    *read_back = *read_back || storage_changes(info->columns[i].affinity, v);
    return db_bind_value(d, stmt, (int)i + 1, v);
}

static godwit_status insert_row(typed_writer *w, const table_info *info, table_stmts *s,
                                decide_change *change, bool *read_back) {
    db *d = &w->st->d;
    const schema_table *t = info->table;
    godwit_status status = stmt_once(d, &s->insert, info->insert_sql);
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        status = bind_column(w, s->insert, info, change, i, read_back);
        if (status == GODWIT_OK && info->columns[i].has_default) {
            bool take = change->full && change->given && !change->given[i] && !t->columns[i].is_key;
            *read_back = *read_back || take;
            status = db_bind_int(d, s->insert, (int)(t->column_count + i) + 1, take);
        }
    }
    return status == GODWIT_OK ? write_step(w, s->insert) : status;
}

static void mask_set(uint64_t *mask, size_t column) {
    mask[column / 64] |= UINT64_C(1) << column % 64;
}
static bool mask_has(const uint64_t *mask, size_t column) {
    return (mask[column / 64] >> column % 64) & 1;
}

static void update_mask(const schema_table *t, const decide_change *change, uint64_t *mask) {
    for (size_t i = 0; i < t->column_count; i++) {
        bool synced = !t->columns[i].local && !t->columns[i].is_key;
        if (synced && !change->is_delete && (change->full || change->columns[i])) {
            mask_set(mask, i);
        }
    }
    if (t->deleted_column >= 0 && (change->is_delete || change->full)) {
        mask_set(mask, (size_t)t->deleted_column);
    }
    if (t->updated_at_column >= 0) {
        mask_set(mask, (size_t)t->updated_at_column);
    }
    if (t->vector_clock_column >= 0) {
        mask_set(mask, (size_t)t->vector_clock_column);
    }
}

/* UPDATE t SET c = ?(index of c)+1 .. WHERE key = ?column_count+1 .. for the columns of the mask.
 */
static godwit_status update_statement(typed_writer *w, const schema_table *t, table_stmts *s,
                                      const uint64_t *mask, sqlite3_stmt **out) {
    for (size_t i = 0; i < UPDATE_SLOTS; i++) {
        if (s->updates[i].stmt &&
            memcmp(s->updates[i].mask, mask, sizeof s->updates[i].mask) == 0) {
            *out = s->updates[i].stmt;
            return GODWIT_OK;
        }
    }
    bytes *sql = &w->st->text;
    const char *separator = " SET ";
    bytes_clear(sql);
    bytes_text(sql, "UPDATE ");
    bytes_identifier(sql, t->name);
    for (size_t i = 0; i < t->column_count; i++) {
        if (mask_has(mask, i)) {
            bytes_text(sql, separator);
            bytes_identifier(sql, t->columns[i].name);
            bytes_printf(sql, " = ?%zu", i + 1);
            separator = ", ";
        }
    }
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_text(sql, i ? " AND " : " WHERE ");
        bytes_identifier(sql, t->columns[t->key[i]].name);
        bytes_printf(sql, " = ?%zu", t->column_count + i + 1);
    }
    if (sql->failed) {
        return GODWIT_NOMEM;
    }
    update_slot *slot = &s->updates[s->update_next++ % UPDATE_SLOTS];
    sqlite3_finalize(slot->stmt);
    slot->stmt = NULL;
    godwit_status status = stmt_once(&w->st->d, &slot->stmt, sql->ptr);
    memcpy(slot->mask, mask, sizeof slot->mask);
    *out = slot->stmt;
    return status;
}

/* Other rows may refer to columns beside the key: what these held is needed for the check. */
static godwit_status note_old(typed_writer *w, const table_info *info,
                              const decide_change *change) {
    for (size_t k = 0; k < info->child_count; k++) {
        const fk_info *key = info->children[k];
        bool changes = false;
        for (size_t i = 0; i < key->fk->count; i++) {
            int column = key->parent_columns[i];
            changes = changes || (change->columns[column] && !info->table->columns[column].is_key);
        }
        if (!changes) {
            continue;
        }
        sqlite3_stmt *stmt = NULL;
        bool found = false;
        old_reference *old = ARENA_NEW(w->c->a, old_reference);
        value *values = ARENA_ARRAY(w->c->a, value, info->table->column_count);
        if (!old || !values) {
            return GODWIT_NOMEM;
        }
        godwit_status status =
            typed_select(w->st, w->c->a, info->table, change->row->id, &stmt, &found);
        if (status == GODWIT_OK && found) {
            status = typed_read_values(stmt, info->table, w->c->a, values);
            *old = (old_reference){key, values, w->old};
            w->old = old;
        }
        sqlite3_reset(stmt);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    return GODWIT_OK;
}

/* *hit false: there is no such row in the typed table. */
static godwit_status update_row(typed_writer *w, const table_info *info, table_stmts *s,
                                decide_change *change, bool *read_back, bool *hit) {
    db *d = &w->st->d;
    const schema_table *t = info->table;
    uint64_t mask[MASK_WORDS] = {0};
    sqlite3_stmt *stmt = NULL;
    bool any = false;
    *hit = true;
    update_mask(t, change, mask);
    for (size_t i = 0; i < MASK_WORDS; i++) {
        any = any || mask[i];
    }
    if (!any) {
        return GODWIT_OK; /* a table of nothing but its key */
    }
    godwit_status status =
        info->referenced_outside_key && !change->is_delete ? note_old(w, info, change) : GODWIT_OK;
    if (status == GODWIT_OK) {
        status = update_statement(w, t, s, mask, &stmt);
    }
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        if (mask_has(mask, i)) {
            status = bind_column(w, stmt, info, change, i, read_back);
        }
    }
    if (status == GODWIT_OK) {
        status = typed_bind_key(d, w->c->a, stmt, (int)t->column_count + 1, t, change->row->id);
    }
    if (status == GODWIT_OK) {
        status = write_step(w, stmt);
        *hit = status != GODWIT_OK || sqlite3_changes(d->handle) > 0;
    }
    return status;
}

static godwit_status delete_row(typed_writer *w, const table_info *info, table_stmts *s,
                                decide_change *change) {
    godwit_status status = stmt_once(&w->st->d, &s->remove, info->delete_sql);
    if (status == GODWIT_OK) {
        status = typed_bind_key(&w->st->d, w->c->a, s->remove, 1, info->table, change->row->id);
    }
    return status == GODWIT_OK ? write_step(w, s->remove) : status;
}

/* Who wrote the columns of this change. */
static merge_meta cause_of(const typed_writer *w, const decide_change *change) {
    const merge_row *r = &change->row->row;
    for (size_t i = 0; i < change->row->table->column_count; i++) {
        if (change->columns[i] && r->meta[i].ver == w->commit_seq) {
            return r->meta[i];
        }
    }
    return (merge_meta){.ver = w->commit_seq, .at_ms = w->c->now_ms};
}

/* Takes over what the database made of the row. */
static godwit_status take_stored(typed_writer *w, const table_info *info, decide_change *change) {
    const schema_table *t = info->table;
    arena *a = w->c->a;
    merge_row *r = &change->row->row;
    const merge_meta cause = cause_of(w, change);
    sqlite3_stmt *stmt = NULL;
    bool found = false;
    value *stored = ARENA_ARRAY(a, value, t->column_count);
    if (!stored) {
        return GODWIT_NOMEM;
    }
    godwit_status status = typed_select(w->st, a, t, change->row->id, &stmt, &found);
    if (status == GODWIT_OK && found) {
        status = typed_read_values(stmt, t, a, stored);
    }
    sqlite3_reset(stmt);
    for (size_t i = 0; status == GODWIT_OK && found && i < t->column_count; i++) {
        if (t->columns[i].local || t->columns[i].is_key || value_equal(&stored[i], &r->values[i])) {
            continue;
        }
        if (!change->columns[i]) {
            change->columns[i] = true; /* a trigger's doing: the author of the change caused it */
            r->meta[i] = cause;
        }
        r->values[i] = stored[i];
    }
    return status;
}

godwit_status typed_write(typed_writer *w, decide_change *change) {
    decide_row *row = change->row;
    const table_info *info = tables_info(w->st->tables.tables, row->table);
    table_stmts *s = &w->st->tables.stmts[info - w->st->tables.tables->infos];
    bool read_back = info->triggers;
    bool hit = true;
    godwit_status status;
    if (change->is_delete && row->table->deleted_column < 0) {
        status = row->typed ? delete_row(w, info, s, change) : GODWIT_OK;
        row->typed = false;
        return status;
    }
    if (row->typed) {
        status = update_row(w, info, s, change, &read_back, &hit);
        if (status != GODWIT_OK || hit) {
            return status == GODWIT_OK && read_back && !change->is_delete
                       ? take_stored(w, info, change)
                       : status;
        }
    }
    if (change->is_delete) {
        return GODWIT_OK; /* nothing there to mark */
    }
    status = insert_row(w, info, s, change, &read_back);
    if (status == GODWIT_OK) {
        row->typed = true;
        status = read_back ? take_stored(w, info, change) : GODWIT_OK;
    }
    return status;
}

static godwit_status take_out(typed_writer *w, const table_info *info, decide_change *change) {
    arena *a = w->c->a;
    table_stmts *s = &w->st->tables.stmts[info - w->st->tables.tables->infos];
    struct kept_row *kept = ARENA_NEW(a, struct kept_row);
    value *values = ARENA_ARRAY(a, value, info->table->column_count);
    sqlite3_stmt *stmt = NULL;
    bool found = false;
    if (!kept || !values) {
        return GODWIT_NOMEM;
    }
    godwit_status status = info->referenced_outside_key ? note_old(w, info, change) : GODWIT_OK;
    if (status == GODWIT_OK) {
        status = typed_select(w->st, a, info->table, change->row->id, &stmt, &found);
    }
    if (status == GODWIT_OK && found) {
        status = typed_read_values(stmt, info->table, a, values);
        *kept = (struct kept_row){change->row, values, w->kept};
        w->kept = kept;
    }
    sqlite3_reset(stmt);
    if (status == GODWIT_OK) {
        status = delete_row(w, info, s, change);
        change->row->typed = false;
    }
    return status;
}

godwit_status typed_make_room(typed_writer *w, const schema_table *table, decide_change *changes,
                              size_t count) {
    const table_info *info = tables_info(w->st->tables.tables, table);
    godwit_status status = GODWIT_OK;
    if (!info->whole) { /* columns that are not synced would not come back */
        w->refusal->code = CODE_UNIQUE_VIOLATION;
        w->refusal->detail = slice_of("a unique value is taken");
        return GODWIT_CONSTRAINT;
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        const decide_row *row = changes[i].row;
        if (row->table == table && row->typed && !changes[i].is_delete) {
            status = take_out(w, info, &changes[i]);
        }
    }
    return status;
}
