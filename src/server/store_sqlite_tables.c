/* What the SQLite store knows about each typed table, made once per registry: the text of its
 * statements, affinities, defaults, which foreign keys to check; and per connection the prepared
 * statements. Identifiers go into SQL text here and only here. */
#include "server/store_sqlite.h"

#include <stdlib.h>

const table_info *tables_info(const store_tables *tables, const schema_table *t) {
    size_t at = (size_t)(t - tables->schema->tables);
    ASSERT(at < tables->schema->table_count);
    return &tables->infos[at];
}

const schema_table *tables_by_name(const store_tables *tables, slice name) {
    for (size_t i = 0; i < tables->schema->table_count; i++) {
        if (slice_equal(tables->schema->tables[i].name, name)) {
            return &tables->schema->tables[i];
        }
    }
    return NULL;
}

/* SQLite's rules for the affinity of a declared type, in their order. */
static bool type_contains(slice type, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= type.len; i++) {
        if (sqlite3_strnicmp(type.ptr + i, word, (int)n) == 0) {
            return true;
        }
    }
    return false;
}

static char affinity_of(slice type) {
    if (type_contains(type, "INT")) {
        return 'I';
    }
    if (type_contains(type, "CHAR") || type_contains(type, "CLOB") || type_contains(type, "TEXT")) {
        return 'T';
    }
    if (type.len == 0 || type_contains(type, "BLOB")) {
        return 'B';
    }
    if (type_contains(type, "REAL") || type_contains(type, "FLOA") || type_contains(type, "DOUB")) {
        return 'R';
    }
    return 'N';
}

static const char *text_of(arena *a, bytes *b) {
    a->failed = a->failed || b->failed;
    slice s = b->failed ? (slice){0} : arena_copy(a, bytes_view(b));
    return s.ptr;
}

/* " WHERE k1 = ?n AND k2 = ?n+1" */
static void where_key(bytes *b, const schema_table *t, size_t index) {
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_text(b, i ? " AND " : " WHERE ");
        bytes_identifier(b, t->columns[t->key[i]].name);
        bytes_printf(b, " = ?%zu", index + i);
    }
}

static const char *select_text(arena *a, bytes *b, const schema_table *t) {
    bytes_clear(b);
    bytes_text(b, "SELECT ");
    for (size_t i = 0; i < t->column_count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_identifier(b, t->columns[i].name);
    }
    bytes_text(b, " FROM ");
    bytes_identifier(b, t->name);
    where_key(b, t, 1);
    return text_of(a, b);
}

/* One parameter per column; a column with a default has two: ?column_count+i true = take the
 * default. */
static const char *insert_text(arena *a, bytes *b, const schema_table *t, const slice *defaults) {
    bytes_clear(b);
    bytes_text(b, "INSERT INTO ");
    bytes_identifier(b, t->name);
    for (size_t i = 0; i < t->column_count; i++) {
        bytes_text(b, i ? ", " : "(");
        bytes_identifier(b, t->columns[i].name);
    }
    for (size_t i = 0; i < t->column_count; i++) {
        bytes_text(b, i ? ", " : ") VALUES (");
        if (defaults[i].len) {
            bytes_printf(b, "CASE WHEN ?%zu THEN (", t->column_count + i + 1);
            bytes_slice(b, defaults[i]);
            bytes_printf(b, ") ELSE ?%zu END", i + 1);
        } else {
            bytes_printf(b, "?%zu", i + 1);
        }
    }
    bytes_char(b, ')');
    return text_of(a, b);
}

static const char *delete_text(arena *a, bytes *b, const schema_table *t) {
    bytes_clear(b);
    bytes_text(b, "DELETE FROM ");
    bytes_identifier(b, t->name);
    where_key(b, t, 1);
    return text_of(a, b);
}

static godwit_status build_columns(db *d, arena *a, bytes *b, table_info *info) {
    const schema_table *t = info->table;
    info->columns = ARENA_ARRAY(a, column_info, t->column_count);
    slice *defaults = ARENA_ARRAY(a, slice, t->column_count);
    if (!info->columns || !defaults) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        godwit_status status = db_text(
            d, a, &defaults[i], "SELECT dflt_value FROM pragma_table_xinfo(?1) WHERE name = ?2",
            "ss", t->name, t->columns[i].name);
        if (status != GODWIT_OK) {
            return status;
        }
        info->columns[i].affinity = affinity_of(t->columns[i].type);
        info->columns[i].has_default = defaults[i].len > 0;
        info->has_defaults = info->has_defaults || defaults[i].len > 0;
        bytes_clear(b);
        json_write_text(b, t->columns[i].name);
        bytes_char(b, ':');
        a->failed = a->failed || b->failed;
        info->columns[i].json_key = arena_copy(a, bytes_view(b));
    }
    int64_t triggers = 0;
    godwit_status status =
        db_int(d, &triggers,
               "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1"
               " COLLATE NOCASE",
               "s", t->name);
    info->triggers = triggers > 0;
    int64_t columns = 0;
    if (status == GODWIT_OK) {
        status = db_int(d, &columns, "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE hidden = 0",
                        "s", t->name);
    }
    info->whole = columns == (int64_t)t->column_count;
    info->select_sql = select_text(a, b, t);
    info->insert_sql = insert_text(a, b, t, defaults);
    info->delete_sql = delete_text(a, b, t);
    if (!info->select_sql || !info->insert_sql || !info->delete_sql) {
        return GODWIT_NOMEM;
    }
    return status;
}

/* " AND deleted_at IS NULL" for tables whose deleted rows stay. */
static void only_live(bytes *b, const schema_table *t) {
    if (t && t->deleted_column >= 0) {
        bytes_text(b, " AND ");
        bytes_identifier(b, t->columns[t->deleted_column].name);
        bytes_text(b, " IS NULL");
    }
}

static const char *parent_text(arena *a, bytes *b, const fk_info *f) {
    bytes_clear(b);
    bytes_text(b, "SELECT ");
    for (size_t i = 0; f->parent && i < f->parent->key_count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_identifier(b, f->parent->columns[f->parent->key[i]].name);
    }
    bytes_text(b, f->parent ? " FROM " : "1 FROM ");
    bytes_identifier(b, f->fk->table);
    for (size_t i = 0; i < f->fk->count; i++) {
        bytes_text(b, i ? " AND " : " WHERE ");
        bytes_identifier(b, f->fk->ref_columns[i]);
        bytes_printf(b, " = ?%zu", i + 1);
    }
    only_live(b, f->parent);
    return text_of(a, b);
}

static const char *child_text(arena *a, bytes *b, const fk_info *f) {
    bytes_clear(b);
    bytes_text(b, "SELECT 1 FROM ");
    bytes_identifier(b, f->child->name);
    for (size_t i = 0; i < f->fk->count; i++) {
        bytes_text(b, i ? " AND " : " WHERE ");
        bytes_identifier(b, f->child->columns[f->fk->columns[i]].name);
        bytes_printf(b, " = ?%zu", i + 1);
    }
    only_live(b, f->child);
    bytes_text(b, " LIMIT 1");
    return text_of(a, b);
}

static const char *detail_text(arena *a, bytes *b, const fk_info *f) {
    bytes_clear(b);
    stored_reference_write(b, f->child, f->fk);
    return text_of(a, b);
}

/* Table names in REFERENCES are compared without regard to case. */
static const schema_table *parent_of(const schema *s, slice name) {
    for (size_t i = 0; i < s->table_count; i++) {
        if (s->tables[i].name.len == name.len &&
            sqlite3_strnicmp(s->tables[i].name.ptr, name.ptr, (int)name.len) == 0) {
            return &s->tables[i];
        }
    }
    return NULL;
}

static int column_named(const schema_table *t, slice name) {
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].name.len == name.len &&
            sqlite3_strnicmp(t->columns[i].name.ptr, name.ptr, (int)name.len) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static godwit_status build_key(arena *a, bytes *b, store_tables *tables, const schema_table *child,
                               fk_info *f) {
    f->child = child;
    f->parent = parent_of(tables->schema, f->fk->table);
    bool by_key = false;
    if (f->parent) {
        int *columns = ARENA_ARRAY(a, int, f->fk->count);
        if (!columns) {
            return GODWIT_NOMEM;
        }
        table_info *parent = &tables->infos[f->parent - tables->schema->tables];
        for (size_t i = 0; i < f->fk->count; i++) {
            columns[i] = column_named(f->parent, f->fk->ref_columns[i]);
            if (columns[i] < 0) {
                return GODWIT_INVALID;
            }
            if (!f->parent->columns[columns[i]].is_key) {
                parent->referenced_outside_key = true;
            }
        }
        f->parent_columns = columns;
        by_key = f->fk->count == 1 && f->parent->key_count == 1 && columns[0] == f->parent->key[0];
    }
    f->by_key = by_key;
    f->parent_sql = parent_text(a, b, f);
    f->child_sql = child_text(a, b, f);
    f->detail = detail_text(a, b, f);
    return f->parent_sql && f->child_sql && f->detail ? GODWIT_OK : GODWIT_NOMEM;
}

/* Only the keys SQLite knows: declared ones (adopted tables) come behind them and are not enforced.
 */
static godwit_status build_keys(db *d, arena *a, bytes *b, store_tables *tables, table_info *info) {
    int64_t enforced = 0;
    godwit_status status =
        db_int(d, &enforced, "SELECT count(DISTINCT id) FROM pragma_foreign_key_list(?1)", "s",
               info->table->name);
    if (status != GODWIT_OK) {
        return status;
    }
    ASSERT((size_t)enforced <= info->table->fk_count);
    info->parents = ARENA_ARRAY(a, fk_info, (size_t)enforced);
    if (!info->parents) {
        return GODWIT_NOMEM;
    }
    for (int64_t i = 0; status == GODWIT_OK && i < enforced; i++) {
        info->parents[i].fk = &info->table->fks[i];
        status = build_key(a, b, tables, info->table, &info->parents[i]);
        info->parent_count++;
    }
    return status;
}

static godwit_status build_children(arena *a, store_tables *tables) {
    const schema *s = tables->schema;
    for (size_t p = 0; p < s->table_count; p++) {
        table_info *parent = &tables->infos[p];
        for (int pass = 0; pass < 2; pass++) {
            size_t count = 0;
            for (size_t c = 0; c < s->table_count; c++) {
                table_info *child = &tables->infos[c];
                for (size_t k = 0; k < child->parent_count; k++) {
                    if (child->parents[k].parent != parent->table) {
                        continue;
                    }
                    if (pass == 1) {
                        parent->children[count] = &child->parents[k];
                    }
                    count++;
                }
            }
            if (pass == 0) {
                parent->children = ARENA_ARRAY(a, fk_info *, count);
                if (!parent->children) {
                    return GODWIT_NOMEM;
                }
            }
            parent->child_count = count;
        }
    }
    return GODWIT_OK;
}

godwit_status lite_tables_build(store *st, arena *a, const schema *all, store_tables **out) {
    *out = NULL;
    store_tables *tables = ARENA_NEW(a, store_tables);
    if (!tables) {
        return GODWIT_NOMEM;
    }
    tables->schema = all;
    tables->infos = ARENA_ARRAY(a, table_info, all->table_count);
    godwit_status status = tables->infos ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < all->table_count; i++) {
        tables->infos[i].table = &all->tables[i];
        status = build_columns(&st->d, a, &st->text, &tables->infos[i]);
    }
    for (size_t i = 0; status == GODWIT_OK && i < all->table_count; i++) {
        status = build_keys(&st->d, a, &st->text, tables, &tables->infos[i]);
    }
    if (status == GODWIT_OK) {
        status = build_children(a, tables);
    }
    if (status == GODWIT_OK && a->failed) {
        status = GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        *out = tables;
    }
    return status;
}

/* ---- per connection ---- */

void connection_tables_drop(connection_tables *ct) {
    if (!ct->tables) {
        return;
    }
    for (size_t i = 0; i < ct->tables->schema->table_count; i++) {
        table_stmts *s = &ct->stmts[i];
        const table_info *info = &ct->tables->infos[i];
        sqlite3_finalize(s->select);
        sqlite3_finalize(s->insert);
        sqlite3_finalize(s->remove);
        for (size_t k = 0; k < UPDATE_SLOTS; k++) {
            sqlite3_finalize(s->updates[k].stmt);
        }
        for (size_t k = 0; s->parents && k < info->parent_count; k++) {
            sqlite3_finalize(s->parents[k]);
        }
        for (size_t k = 0; s->children && k < info->child_count; k++) {
            sqlite3_finalize(s->children[k]);
        }
        free(s->parents);
        free(s->children);
    }
    free(ct->stmts);
    *ct = (connection_tables){0};
}

godwit_status connection_tables_use(connection_tables *ct, const store_tables *tables) {
    if (ct->tables == tables) {
        return GODWIT_OK;
    }
    connection_tables_drop(ct);
    size_t count = tables->schema->table_count;
    ct->stmts = calloc(count + 1, sizeof *ct->stmts);
    if (!ct->stmts) {
        return GODWIT_NOMEM;
    }
    ct->tables = tables;
    for (size_t i = 0; i < count; i++) {
        ct->stmts[i].parents = calloc(tables->infos[i].parent_count + 1, sizeof(sqlite3_stmt *));
        ct->stmts[i].children = calloc(tables->infos[i].child_count + 1, sizeof(sqlite3_stmt *));
        if (!ct->stmts[i].parents || !ct->stmts[i].children) {
            connection_tables_drop(ct);
            return GODWIT_NOMEM;
        }
    }
    return GODWIT_OK;
}
