/* Foreign keys of the typed tables, checked for the rows a group touched once the group is written.
 *
 * The connection does not enforce them: an enforced key fires ON DELETE actions, which would change
 * rows behind the log's back. A device's cascades arrive as operations of their own, in the same
 * group, in any order; so what counts is the state at the group's end.
 *
 * A row may only refer to a live row of its own scope (or of its table's constant scope): a key
 * taken in another scope must look the same as one that doesn't exist. */
#include "server/store_sqlite.h"

static godwit_status refuse(typed_writer *w, const fk_info *key) {
    w->refusal->code = CODE_FK_VIOLATION;
    w->refusal->detail = slice_of(key->detail);
    return GODWIT_CONSTRAINT;
}

static slice scope_of(const typed_writer *w, const schema_table *t) {
    return t->scope.len ? t->scope : w->c->scope;
}

/* Is there a live row of this id in the scope of its table? */
static godwit_status row_live(typed_writer *w, const schema_table *t, slice id, bool *live) {
    slice scope = scope_of(w, t);
    const decide_row *known = slice_equal(scope, w->c->scope) ? decide_row_find(w->c, t, id) : NULL;
    if (known && known->row.exists && !known->row.deleted) {
        *live = true;
        return GODWIT_OK;
    }
    store *st = w->st;
    db *d = &st->d;
    int64_t scope_no = 0;
    *live = false;
    godwit_status status =
        stmt_once(d, &st->hot[HOT_ROW_LIVE],
                  "SELECT 1 FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3"
                  " AND del_ver IS NULL");
    sqlite3_stmt *stmt = st->hot[HOT_ROW_LIVE];
    if (status == GODWIT_OK) {
        status = sqlite_name(st, scope, &scope_no);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, scope_no);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, t->name);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 3, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, live);
    }
    sqlite3_reset(stmt);
    return status;
}

/* Text form of one key value; ptr NULL where the value is of another class than the key. */
static slice key_text(arena *a, key_kind kind, const value *v) {
    char *text = NULL;
    switch (kind) {
    case KEY_TEXT:
        return v->type == VALUE_TEXT ? v->u.s : (slice){0};
    case KEY_INTEGER:
        return v->type == VALUE_INT ? slice_of(arena_printf(a, "%lld", (long long)v->u.i))
                                    : (slice){0};
    case KEY_BLOB:
        if (v->type == VALUE_BLOB) {
            text = arena_alloc(a, v->u.s.len * 2 + 1);
        }
        if (text) {
            id_hex_encode((const uint8_t *)v->u.s.ptr, v->u.s.len, text);
        }
        return slice_of(text);
    }
    return (slice){0};
}

/* The id of the parent found by the key's statement. */
static godwit_status parent_id(typed_writer *w, const fk_info *key, sqlite3_stmt *stmt,
                               slice *out) {
    arena *a = w->c->a;
    const schema_table *t = key->parent;
    slice parts[KEY_COLUMNS_MAX];
    bytes id;
    *out = (slice){0};
    for (size_t i = 0; i < t->key_count; i++) {
        value v;
        db_column_value(stmt, (int)i, &v);
        parts[i] = key_text(a, t->key_kinds[i], &v);
        if (!parts[i].ptr) {
            return a->failed ? GODWIT_NOMEM : GODWIT_OK;
        }
    }
    bytes_init(&id, NULL, 0);
    schema_id_write(&id, parts, t->key_count);
    a->failed = a->failed || id.failed;
    if (id.len <= ENTITY_ID_BYTES_MAX && !a->failed) { /* a longer one is no row's */
        *out = arena_copy(a, bytes_view(&id));
    }
    bytes_deinit(&id);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status parent_by_statement(typed_writer *w, const fk_info *key, sqlite3_stmt **slot,
                                         const value *values, bool *live) {
    db *d = &w->st->d;
    bool found = false;
    slice id = {0};
    *live = false;
    godwit_status status = stmt_once(d, slot, key->parent_sql);
    for (size_t i = 0; status == GODWIT_OK && i < key->fk->count; i++) {
        status = db_bind_value(d, *slot, (int)i + 1, &values[key->fk->columns[i]]);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, *slot, &found);
    }
    if (status == GODWIT_OK && found && key->parent) {
        status = parent_id(w, key, *slot, &id);
    }
    sqlite3_reset(*slot);
    if (status == GODWIT_OK && found && key->parent) {
        return id.ptr ? row_live(w, key->parent, id, live) : GODWIT_OK;
    }
    *live = found;
    return status;
}

static godwit_status check_parent(typed_writer *w, const fk_info *key, sqlite3_stmt **slot,
                                  const value *values) {
    bool live = false;
    for (size_t i = 0; i < key->fk->count; i++) {
        if (values[key->fk->columns[i]].type == VALUE_NULL) {
            return GODWIT_OK;
        }
    }
    if (key->by_key) {
        slice id = key_text(w->c->a, key->parent->key_kinds[0], &values[key->fk->columns[0]]);
        godwit_status status = id.ptr ? row_live(w, key->parent, id, &live) : GODWIT_OK;
        if (status != GODWIT_OK || live) {
            return status;
        }
    }
    godwit_status status = parent_by_statement(w, key, slot, values, &live);
    return status == GODWIT_OK && !live ? refuse(w, key) : status;
}

static godwit_status check_parents(typed_writer *w, const table_info *info, table_stmts *s,
                                   const decide_change *change) {
    godwit_status status = GODWIT_OK;
    for (size_t k = 0; status == GODWIT_OK && k < info->parent_count; k++) {
        const fk_info *key = &info->parents[k];
        bool changes = change->full;
        for (size_t i = 0; i < key->fk->count; i++) {
            changes = changes || change->columns[key->fk->columns[i]];
        }
        if (changes) {
            status = check_parent(w, key, &s->parents[k], change->row->row.values);
        }
    }
    return status;
}

/* Does some row hold the values that are referred to now? */
static godwit_status values_taken_over(typed_writer *w, const fk_info *key, const value *values,
                                       bool *found) {
    const store_tables *tables = w->st->tables.tables;
    const table_info *child = tables_info(tables, key->child);
    sqlite3_stmt **slot = &w->st->tables.stmts[child - tables->infos].parents[key - child->parents];
    godwit_status status = stmt_once(&w->st->d, slot, key->parent_sql);
    for (size_t i = 0; status == GODWIT_OK && i < key->fk->count; i++) {
        status = db_bind_value(&w->st->d, *slot, (int)i + 1, &values[key->parent_columns[i]]);
    }
    if (status == GODWIT_OK) {
        status = db_step(&w->st->d, *slot, found);
    }
    sqlite3_reset(*slot);
    return status;
}

/* Nothing may refer any more to what `values` of the parent were, unless another row has them now.
 */
static godwit_status check_child(typed_writer *w, const fk_info *key, sqlite3_stmt **slot,
                                 const value *values) {
    db *d = &w->st->d;
    bool found = false;
    bool taken_over = false;
    godwit_status status = stmt_once(d, slot, key->child_sql);
    for (size_t i = 0; status == GODWIT_OK && i < key->fk->count; i++) {
        const value *v = &values[key->parent_columns[i]];
        if (v->type == VALUE_NULL) {
            return GODWIT_OK;
        }
        status = db_bind_value(d, *slot, (int)i + 1, v);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, *slot, &found);
    }
    sqlite3_reset(*slot);
    if (status == GODWIT_OK && found && !key->by_key) {
        status = values_taken_over(w, key, values, &taken_over);
    }
    return status == GODWIT_OK && found && !taken_over ? refuse(w, key) : status;
}

static godwit_status check_children(typed_writer *w, const table_info *info, table_stmts *s,
                                    const decide_change *change) {
    godwit_status status = GODWIT_OK;
    for (size_t k = 0; status == GODWIT_OK && k < info->child_count; k++) {
        status = check_child(w, info->children[k], &s->children[k], change->row->row.values);
    }
    return status;
}

static godwit_status check_old(typed_writer *w) {
    const store_tables *tables = w->st->tables.tables;
    godwit_status status = GODWIT_OK;
    for (const old_reference *old = w->old; status == GODWIT_OK && old; old = old->next) {
        const table_info *info = tables_info(tables, old->key->parent);
        for (size_t k = 0; status == GODWIT_OK && k < info->child_count; k++) {
            if (info->children[k] == old->key) {
                table_stmts *s = &w->st->tables.stmts[info - tables->infos];
                status = check_child(w, old->key, &s->children[k], old->values);
            }
        }
    }
    return status;
}

godwit_status typed_check_references(typed_writer *w, decide_change *changes, size_t count,
                                     size_t *at) {
    const store_tables *tables = w->st->tables.tables;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        const table_info *info = tables_info(tables, changes[i].row->table);
        if (info->parent_count == 0 && info->child_count == 0) {
            continue;
        }
        table_stmts *s = &w->st->tables.stmts[info - tables->infos];
        *at = i;
        status = changes[i].is_delete ? check_children(w, info, s, &changes[i])
                                      : check_parents(w, info, s, &changes[i]);
    }
    return status == GODWIT_OK ? check_old(w) : status;
}
