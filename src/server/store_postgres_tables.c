/* What the PostgreSQL store knows about each tracked table, made once per registry: how its columns
 * are typed, its key as parameters, its foreign keys; and the texts of statements over many of its
 * rows. Identifiers go into SQL text here, quoted. */
#include "server/store_postgres.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- keys ---- */

static bool part_fits(const pg_column *column, slice part) {
    if (part.len && memchr(part.ptr, '\0', part.len)) {
        return false;
    }
    if (column->class == PG_CLASS_UUID) {
        return pg_uuid_canonical(part);
    }
    if (column->class == PG_CLASS_INT && !slice_is(column->sql_type, "bigint")) {
        long long v = part.len < 21 ? strtoll(part.ptr, NULL, 10) : INT64_MAX;
        bool small = slice_is(column->sql_type, "smallint");
        return v >= (small ? INT16_MIN : INT32_MIN) && v <= (small ? INT16_MAX : INT32_MAX);
    }
    return true;
}

static bool key_parts(arena *a, const pg_table *info, slice id, slice *parts) {
    const schema_table *t = info->table;
    if (schema_id_parts(a, t, id, parts) != GODWIT_OK) {
        return false;
    }
    for (size_t i = 0; i < t->key_count; i++) {
        if (!part_fits(&info->columns[t->key[i]], parts[i])) {
            return false;
        }
    }
    return true;
}

bool pg_key_fits(arena *a, const pg_table *info, slice id) {
    slice parts[KEY_COLUMNS_MAX];
    return key_parts(a, info, id, parts);
}

/* Text of a part as its column reads it. */
static slice part_text(arena *a, const pg_column *column, slice part) {
    if (column->class != PG_CLASS_BYTEA) {
        return part.ptr ? part : SLICE("");
    }
    return slice_of(arena_printf(a, "\\x%.*s", SLICE_ARG(part)));
}

godwit_status pg_key_arrays(pg_link *l, arena *a, const pg_table *info, const slice *ids,
                            size_t count) {
    const schema_table *t = info->table;
    size_t width = t->key_count;
    slice *parts = ARENA_ARRAY(a, slice, count * width);
    if (!parts) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        slice one[KEY_COLUMNS_MAX];
        bool fits = key_parts(a, info, ids[i], one);
        for (size_t k = 0; fits && k < width; k++) {
            parts[i * width + k] = part_text(a, &info->columns[t->key[k]], one[k]);
        }
    }
    for (size_t k = 0; k < width; k++) {
        pg_array(l, PG_OID_TEXT, count);
        for (size_t i = 0; i < count; i++) {
            pg_item(l, parts[i * width + k]);
        }
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* ---- texts ---- */

static const char *text_of(arena *a, bytes *b) {
    a->failed = a->failed || b->failed;
    slice s = b->failed ? (slice){0} : arena_copy(a, bytes_view(b));
    return s.ptr;
}

static void column_of(bytes *b, const char *alias, const schema_table *t, size_t i) {
    bytes_text(b, alias);
    bytes_identifier(b, t->columns[i].name);
}

/* t."id", to_json(t."tags"), .. */
static const char *select_list(arena *a, bytes *b, const pg_table *info) {
    const schema_table *t = info->table;
    bytes_clear(b);
    for (size_t i = 0; i < t->column_count; i++) {
        bool array = info->columns[i].class == PG_CLASS_ARRAY;
        bytes_text(b, i ? ", " : "");
        bytes_text(b, array ? "to_json(" : "");
        column_of(b, "t.", t, i);
        bytes_text(b, array ? ")" : "");
    }
    return text_of(a, b);
}

/* t."id" = k.k0::uuid AND .. */
static const char *key_join(arena *a, bytes *b, const pg_table *info) {
    const schema_table *t = info->table;
    bytes_clear(b);
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_text(b, i ? " AND " : "");
        column_of(b, "t.", t, (size_t)t->key[i]);
        bytes_printf(b, " = k.k%zu::", i);
        bytes_slice(b, info->columns[t->key[i]].sql_type);
    }
    return text_of(a, b);
}

/* unnest($1, $2) WITH ORDINALITY k(k0, k1, n) */
static const char *key_list(arena *a, bytes *b, const pg_table *info) {
    const schema_table *t = info->table;
    bytes_clear(b);
    bytes_text(b, "unnest(");
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_printf(b, "%s$%zu::text[]", i ? ", " : "", i + 1);
    }
    bytes_text(b, ") WITH ORDINALITY k(");
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_printf(b, "k%zu, ", i);
    }
    bytes_text(b, "n)");
    return text_of(a, b);
}

/* Names the columns: a role may have no right to others of the table. */
static const char *load_text(arena *a, bytes *b, const pg_table *info) {
    bytes_clear(b);
    bytes_printf(b, "SELECT k.n, %s FROM %s CROSS JOIN LATERAL (SELECT ", info->select_list,
                 info->key_list);
    for (size_t i = 0; i < info->table->column_count; i++) {
        column_of(b, i ? ", t." : "t.", info->table, i);
    }
    bytes_text(b, " FROM ");
    bytes_slice(b, info->sql_name);
    bytes_printf(b, " t WHERE %s LIMIT 1) t", info->key_join); /* LIMIT: key by key */
    return text_of(a, b);
}

static const char *delete_text(arena *a, bytes *b, const pg_table *info) {
    bytes_clear(b);
    bytes_text(b, "DELETE FROM ");
    bytes_slice(b, info->sql_name);
    bytes_printf(b, " t USING %s WHERE %s", info->key_list, info->key_join);
    return text_of(a, b);
}

/* ---- writing ---- */

/* k.c3::numeric(10,2), or $4::.. for all rows; an array may come as JSON or as PostgreSQL writes it
 */
static void cast(bytes *sql, const pg_column *column, size_t n, bool folded) {
    char from[32];
    snprintf(from, sizeof from, folded ? "$%zu" : "k.c%zu", folded ? n + 1 : n);
    if (column->class == PG_CLASS_ARRAY) {
        bytes_printf(
            sql,
            "CASE WHEN %s LIKE '[%%' THEN (ARRAY(SELECT json_array_elements_text(%s::json)))::",
            from, from);
        bytes_slice(sql, column->sql_type);
        bytes_text(sql, " ELSE ");
    }
    bytes_printf(sql, "%s::", from);
    bytes_slice(sql, column->sql_type);
    bytes_text(sql, column->class == PG_CLASS_ARRAY ? " END" : "");
}

/* FROM unnest($1, ..) WITH ORDINALITY k(c0, .., k0, .., n); nothing where no parameter is an array
 */
static void source(bytes *sql, const bool *folded, size_t columns, size_t keys) {
    size_t arrays = keys;
    const char *separator = " FROM unnest(";
    for (size_t i = 0; i < columns + keys; i++) {
        if (i >= columns || !folded[i]) {
            bytes_printf(sql, "%s$%zu", separator, i + 1);
            separator = ", ";
        }
    }
    for (size_t i = 0; i < columns; i++) {
        arrays += !folded[i];
    }
    if (arrays == 0) {
        return;
    }
    bytes_text(sql, ") WITH ORDINALITY k(");
    for (size_t i = 0; i < columns; i++) {
        if (!folded[i]) {
            bytes_printf(sql, "c%zu, ", i);
        }
    }
    for (size_t i = 0; i < keys; i++) {
        bytes_printf(sql, "k%zu, ", i);
    }
    bytes_text(sql, "n)");
}

void pg_insert_text(bytes *sql, const pg_table *info, const bool *write, const bool *folded,
                    bool ordered) {
    const schema_table *t = info->table;
    const char *separator = " (";
    size_t n = 0;
    bytes_text(sql, "INSERT INTO ");
    bytes_slice(sql, info->sql_name);
    bytes_text(sql, " AS t");
    for (size_t i = 0; i < t->column_count; i++) {
        if (write[i]) {
            bytes_text(sql, separator);
            bytes_identifier(sql, t->columns[i].name);
            separator = ", ";
        }
    }
    bool all = true;
    bytes_text(sql, info->identity ? ") OVERRIDING SYSTEM VALUE SELECT " : ") SELECT ");
    for (size_t i = 0; i < t->column_count; i++) {
        if (write[i]) {
            bytes_text(sql, n ? ", " : "");
            cast(sql, &info->columns[i], n, folded[n]);
            all = all && folded[n];
            n++;
        }
    }
    source(sql, folded, n, 0);
    bytes_text(sql, ordered && !all ? " ORDER BY k.n" : "");
}

void pg_update_text(bytes *sql, const pg_table *info, const bool *write, const bool *folded) {
    const schema_table *t = info->table;
    size_t n = 0;
    bytes_text(sql, "UPDATE ");
    bytes_slice(sql, info->sql_name);
    bytes_text(sql, " AS t");
    for (size_t i = 0; i < t->column_count; i++) {
        if (write[i]) {
            bytes_text(sql, n ? ", " : " SET ");
            bytes_identifier(sql, t->columns[i].name);
            bytes_text(sql, " = ");
            cast(sql, &info->columns[i], n, folded[n]);
            n++;
        }
    }
    source(sql, folded, n, t->key_count);
    bytes_text(sql, " WHERE ");
    bytes_text(sql, info->key_join);
}

/* ---- columns ---- */

static godwit_status build_column(arena *a, bytes *b, const PGresult *r, int row, pg_table *info) {
    int at = schema_column_index(info->table, pg_field(r, row, 1));
    bool always = PQgetvalue(r, row, 10)[0] == 't';
    if (at < 0) {
        return GODWIT_OK; /* not synced */
    }
    pg_column *column = &info->columns[at];
    column->class =
        pg_class_of(pg_field(r, row, 3), PQgetvalue(r, row, 4)[0], PQgetvalue(r, row, 5)[0]);
    column->sql_type = pg_field_copy(a, r, row, 2);
    column->limited = PQgetvalue(r, row, 6)[0] == 't';
    column->has_default = PQgetvalue(r, row, 8)[0] == 't';
    column->generated =
        PQgetvalue(r, row, 9)[0] == 't' || (always && !info->table->columns[at].is_key);
    column->unique = PQgetvalue(r, row, 12)[0] == 't';
    info->unique = info->unique || column->unique;
    info->identity = info->identity || (always && info->table->columns[at].is_key);
    bytes_clear(b);
    json_write_text(b, info->table->columns[at].name);
    bytes_char(b, ':');
    a->failed = a->failed || b->failed;
    column->json_key = arena_copy(a, bytes_view(b));
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status build_table(arena *a, bytes *b, const PGresult *columns, pg_table *info) {
    const schema_table *t = info->table;
    godwit_status status = GODWIT_OK;
    info->columns = ARENA_ARRAY(a, pg_column, t->column_count);
    if (!info->columns) {
        return GODWIT_NOMEM;
    }
    for (int i = 0; status == GODWIT_OK && i < PQntuples(columns); i++) {
        if (slice_equal(pg_field(columns, i, 0), t->name)) {
            status = build_column(a, b, columns, i, info);
        }
    }
    info->select_list = select_list(a, b, info);
    info->key_join = key_join(a, b, info);
    info->key_list = key_list(a, b, info);
    if (status != GODWIT_OK || a->failed) {
        return a->failed ? GODWIT_NOMEM : status;
    }
    info->load_sql = load_text(a, b, info);
    bytes_text(b, " ORDER BY k.n FOR NO KEY UPDATE OF t NOWAIT");
    info->lock_sql = text_of(a, b);
    info->delete_sql = delete_text(a, b, info);
    return a->failed ? GODWIT_NOMEM : status;
}

/* Name, schema, and whether triggers are there: any of others, after the row, Godwit's. */
#define TABLES_SQL                                                                                 \
    "SELECT tr.name, tr.schema_name,"                                                              \
    " EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid" \
    "  WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgname NOT LIKE 'godwit\\_%'),"        \
    " EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g"                                               \
    "  WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgname NOT LIKE 'godwit\\_%'"          \
    "  AND g.tgtype & 2 = 0),"                                                                     \
    " EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g"                                               \
    "  WHERE g.tgrelid = c.oid AND g.tgname = 'godwit_insert' AND g.tgenabled <> 'D')"             \
    " FROM godwit.tracked tr"                                                                      \
    " JOIN pg_catalog.pg_namespace n ON n.nspname = tr.schema_name"                                \
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = tr.name"

static bool build_name(arena *a, bytes *b, const PGresult *r, pg_table *info) {
    for (int i = 0; i < PQntuples(r); i++) {
        if (!slice_equal(pg_field(r, i, 0), info->table->name)) {
            continue;
        }
        bytes_clear(b);
        bytes_identifier(b, pg_field(r, i, 1));
        bytes_char(b, '.');
        bytes_identifier(b, info->table->name);
        info->sql_name = arena_copy(a, bytes_view(b));
        info->triggers = PQgetvalue(r, i, 2)[0] == 't';
        info->after_triggers = PQgetvalue(r, i, 3)[0] == 't';
        info->watched = PQgetvalue(r, i, 4)[0] == 't';
        return info->sql_name.ptr != NULL;
    }
    return false;
}

/* ---- foreign keys ---- */

static const char *detail_text(arena *a, bytes *b, const pg_fk *f) {
    bytes_clear(b);
    stored_reference_write(b, f->child, f->fk);
    return text_of(a, b);
}

/* Does a live child refer to one of these rows (keys $1..)? */
static const char *child_text(arena *a, bytes *b, const store_tables *tables, const pg_fk *f) {
    const pg_table *parent = pg_table_of(tables, f->parent);
    const pg_table *child = pg_table_of(tables, f->child);
    bytes_clear(b);
    bytes_printf(b, "SELECT k.n FROM %s JOIN ", parent->key_list);
    bytes_slice(b, parent->sql_name);
    bytes_printf(b, " t ON %s WHERE EXISTS (SELECT 1 FROM ", parent->key_join);
    bytes_slice(b, child->sql_name);
    bytes_text(b, " c WHERE ");
    for (size_t i = 0; i < f->fk->count; i++) {
        bytes_text(b, i ? " AND " : "");
        column_of(b, "c.", f->child, (size_t)f->fk->columns[i]);
        bytes_text(b, " = ");
        column_of(b, "t.", f->parent, (size_t)f->parent_columns[i]);
    }
    if (f->child->deleted_column >= 0) {
        bytes_text(b, " AND ");
        column_of(b, "c.", f->child, (size_t)f->child->deleted_column);
        bytes_text(b, " IS NULL");
    }
    bytes_text(b, ") LIMIT 1");
    return text_of(a, b);
}

static const schema_table *parent_of(const schema *s, slice name) {
    for (size_t i = 0; i < s->table_count; i++) {
        if (slice_equal(s->tables[i].name, name)) {
            return &s->tables[i];
        }
    }
    return NULL;
}

static godwit_status build_key(arena *a, bytes *b, store_tables *tables, const schema_table *child,
                               pg_fk *f) {
    f->child = child;
    f->parent = parent_of(tables->schema, f->fk->table);
    f->detail = detail_text(a, b, f);
    if (!f->parent) {
        return f->detail ? GODWIT_OK : GODWIT_NOMEM;
    }
    int *columns = ARENA_ARRAY(a, int, f->fk->count);
    if (!columns) {
        return GODWIT_NOMEM;
    }
    size_t parts = 0;
    for (size_t i = 0; i < f->fk->count; i++) {
        columns[i] = schema_column_index(f->parent, f->fk->ref_columns[i]);
        if (columns[i] < 0) {
            f->parent = NULL; /* a column that is not synced: the database watches over it */
            return f->detail ? GODWIT_OK : GODWIT_NOMEM;
        }
        for (size_t k = 0; k < f->parent->key_count; k++) {
            if (f->parent->key[k] == columns[i]) {
                f->key_part[k] = (int)i;
                parts++;
            }
        }
    }
    f->parent_columns = columns;
    f->by_key = parts == f->parent->key_count && parts == f->fk->count;
    f->child_sql = child_text(a, b, tables, f);
    return f->child_sql && f->detail ? GODWIT_OK : GODWIT_NOMEM;
}

static godwit_status build_keys(arena *a, bytes *b, store_tables *tables, const PGresult *keys) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < tables->schema->table_count; i++) {
        pg_table *info = &tables->infos[i];
        info->parents = ARENA_ARRAY(a, pg_fk, info->table->fk_count);
        size_t k = 0; /* keys the database enforces come first, in the same order */
        for (int row = 0; status == GODWIT_OK && info->parents && row < PQntuples(keys); row++) {
            if (!slice_equal(pg_field(keys, row, 0), info->table->name)) {
                continue;
            }
            ASSERT(k < info->table->fk_count);
            info->parents[k].fk = &info->table->fks[k];
            info->parents[k].name = pg_field_copy(a, keys, row, 1);
            for (size_t c = 0; c < info->parents[k].fk->count; c++) {
                info->columns[info->parents[k].fk->columns[c]].refers = true;
            }
            status = build_key(a, b, tables, info->table, &info->parents[k]);
            info->parent_count = ++k;
        }
    }
    return a->failed ? GODWIT_NOMEM : status;
}

static godwit_status build_children(arena *a, store_tables *tables) {
    size_t count = tables->schema->table_count;
    for (size_t p = 0; p < count; p++) {
        pg_table *parent = &tables->infos[p];
        size_t keys = 0;
        for (size_t c = 0; c < count; c++) {
            keys += tables->infos[c].parent_count;
        }
        parent->children = ARENA_ARRAY(a, pg_fk *, keys);
        for (size_t c = 0; parent->children && c < count; c++) {
            pg_table *child = &tables->infos[c];
            for (size_t k = 0; k < child->parent_count; k++) {
                if (child->parents[k].parent == parent->table) {
                    parent->children[parent->child_count++] = &child->parents[k];
                }
            }
        }
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* Parents before children; what goes in circles comes last. */
static void rank_tables(store_tables *tables) {
    size_t count = tables->schema->table_count;
    for (size_t i = 0; i < count; i++) {
        tables->infos[i].rank = 0;
    }
    for (size_t pass = 0; pass < count; pass++) {
        for (size_t i = 0; i < count; i++) {
            pg_table *info = &tables->infos[i];
            for (size_t k = 0; k < info->parent_count; k++) {
                const schema_table *parent = info->parents[k].parent;
                size_t at =
                    parent && parent != info->table ? pg_table_of(tables, parent)->rank + 1 : 0;
                info->rank = at > info->rank && at <= count ? at : info->rank;
            }
        }
    }
}

godwit_status pg_tables_build(store *st, arena *a, const schema *all, store_tables **out) {
    pg_link *l = &st->link;
    bytes *b = &st->sql;
    *out = NULL;
    store_tables *tables = ARENA_NEW(a, store_tables);
    pg_table *infos = ARENA_ARRAY(a, pg_table, all->table_count);
    godwit_status status = tables && infos ? pg_link_up(l) : GODWIT_NOMEM;
    ASSERT(l->sent == 0);
    if (status == GODWIT_OK) {
        status = pg_send(l, pg_columns_sql);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, TABLES_SQL);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, "SELECT tr.name, con.conname FROM godwit.tracked tr"
                            " JOIN pg_catalog.pg_namespace n ON n.nspname = tr.schema_name"
                            " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND"
                            " c.relname = tr.name JOIN pg_catalog.pg_constraint con"
                            " ON con.conrelid = c.oid AND con.contype = 'f' ORDER BY con.oid");
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    *tables = (store_tables){.schema = all, .infos = infos};
    for (size_t i = 0; status == GODWIT_OK && i < all->table_count; i++) {
        infos[i].table = &all->tables[i];
        status = build_name(a, b, pg_result(l, 1), &infos[i]) ? GODWIT_OK : GODWIT_CORRUPT;
        if (status == GODWIT_OK) {
            status = build_table(a, b, pg_result(l, 0), &infos[i]);
        }
    }
    if (status == GODWIT_OK) {
        status = build_keys(a, b, tables, pg_result(l, 2));
    }
    if (status == GODWIT_OK) {
        status = build_children(a, tables);
    }
    if (status == GODWIT_OK) {
        rank_tables(tables);
        *out = tables;
    }
    return status;
}
