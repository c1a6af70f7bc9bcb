/* Which tables are tracked, and what they are like: read from the database's own catalog. Tables
 * are tracked by `godwit pg track`; only with --dev the server makes tables itself, as devices
 * declare them, and it widens only those. The columns of a table that was there before are never
 * touched. */
#include "server/store_postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- reading ---- */

#define TRACKED_SQL                                                                                \
    "SELECT name, declared_keys, declared_types,"                                                  \
    " (SELECT v FROM godwit.meta WHERE k = 'registry_version'), scope, scope_column"               \
    " FROM godwit.tracked ORDER BY number"

/* One row per column of the tracked tables. */
const char pg_columns_sql[] =
    "SELECT tr.name, a.attname, format_type(a.atttypid, a.atttypmod), b.typname, b.typcategory,"
    " b.typtype, a.atttypmod <> -1 OR t.typtypmod <> -1, a.attnotnull,"
    " a.atthasdef OR a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a',"
    " coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_index u WHERE u.indrelid = c.oid AND NOT u.indisprimary"
    "  AND (u.indisunique OR u.indisexclusion) AND (a.attnum = ANY (u.indkey) OR 0 = ANY (u.indkey)"
    "   OR u.indpred IS NOT NULL))"
    " FROM godwit.tracked tr"
    " JOIN pg_catalog.pg_namespace n ON n.nspname = tr.schema_name"
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = tr.name"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
    " JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid "
    "END"
    " LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary"
    " ORDER BY tr.number, a.attnum";

/* One row per column of each foreign key of the tracked tables. */
#define KEYS_SQL                                                                                   \
    "SELECT tr.name, con.oid, f.relname, CASE con.confdeltype WHEN 'c' THEN 'CASCADE'"             \
    " WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' WHEN 'r' THEN 'RESTRICT'"               \
    " ELSE 'NO ACTION' END, a.attname, fa.attname"                                                 \
    " FROM godwit.tracked tr"                                                                      \
    " JOIN pg_catalog.pg_namespace n ON n.nspname = tr.schema_name"                                \
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = tr.name"                \
    " JOIN pg_catalog.pg_constraint con ON con.conrelid = c.oid AND con.contype = 'f'"             \
    " JOIN pg_catalog.pg_class f ON f.oid = con.confrelid"                                         \
    " CROSS JOIN LATERAL unnest(con.conkey, con.confkey) WITH ORDINALITY k(here, there, place)"    \
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.here"                  \
    " JOIN pg_catalog.pg_attribute fa ON fa.attrelid = f.oid AND fa.attnum = k.there"              \
    " ORDER BY tr.number, con.oid, k.place"

static bool is_true(const PGresult *r, int row, int column) {
    return PQgetvalue(r, row, column)[0] == 't';
}

static godwit_status refuse(pg_link *l, const schema_table *t, const char *what, slice name) {
    snprintf(l->message, sizeof l->message, "table %.*s: %s %.*s", SLICE_ARG(t->name), what,
             SLICE_ARG(name));
    return GODWIT_INVALID;
}

/* A key must have one text per value, found again by its index. */
static bool key_kind_of(pg_class class, key_kind *out) {
    *out = class == PG_CLASS_INT ? KEY_INTEGER : class == PG_CLASS_BYTEA ? KEY_BLOB : KEY_TEXT;
    return class == PG_CLASS_INT || class == PG_CLASS_BYTEA || class == PG_CLASS_TEXT ||
           class == PG_CLASS_UUID;
}

static godwit_status read_column(pg_link *l, arena *a, const PGresult *r, int row,
                                 schema_table *t) {
    schema_column *column = &t->columns[t->column_count];
    pg_class class =
        pg_class_of(pg_field(r, row, 3), PQgetvalue(r, row, 4)[0], PQgetvalue(r, row, 5)[0]);
    int64_t place = pg_field_int(r, row, 11);
    column->name = pg_field_copy(a, r, row, 1);
    column->type = pg_device_type(class);
    column->any_type = class == PG_CLASS_NUMERIC || class == PG_CLASS_BOOL ||
                       class == PG_CLASS_TIME || class == PG_CLASS_ARRAY || class == PG_CLASS_OTHER;
    column->not_null = is_true(r, row, 7) && !is_true(r, row, 8);
    column->is_key = place > 0;
    if (place > KEY_COLUMNS_MAX || t->column_count >= COLUMNS_MAX + KEY_COLUMNS_MAX) {
        return refuse(l, t, "too many columns:", column->name);
    }
    if (place > 0) {
        t->key[place - 1] = (int)t->column_count;
        if (!key_kind_of(class, &t->key_kinds[place - 1])) {
            return refuse(l, t, "a key of this type is not supported:", column->name);
        }
        t->key_count = t->key_count > (size_t)place ? t->key_count : (size_t)place;
    }
    t->column_count++;
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static int rows_of(const PGresult *r, slice table, int *first) {
    int count = 0;
    *first = 0;
    for (int i = 0; i < PQntuples(r); i++) {
        if (slice_equal(pg_field(r, i, 0), table)) {
            *first = count == 0 ? i : *first;
            count++;
        }
    }
    return count;
}

static godwit_status read_columns(pg_link *l, arena *a, const PGresult *r, schema_table *t) {
    int first;
    int count = rows_of(r, t->name, &first);
    t->columns = ARENA_ARRAY(a, schema_column, (size_t)count);
    godwit_status status = t->columns ? GODWIT_OK : GODWIT_NOMEM;
    for (int i = first; status == GODWIT_OK && i < first + count; i++) {
        status = read_column(l, a, r, i, t);
    }
    if (status == GODWIT_OK && t->key_count == 0) {
        return refuse(l, t, count ? "it has no primary key" : "it is not there any more",
                      (slice){0});
    }
    return status;
}

static godwit_status read_keys(arena *a, const PGresult *r, schema_table *t) {
    int first;
    int count = rows_of(r, t->name, &first);
    t->fks = ARENA_ARRAY(a, schema_fk, (size_t)count + t->fk_count);
    int *columns = ARENA_ARRAY(a, int, (size_t)count);
    slice *refs = ARENA_ARRAY(a, slice, (size_t)count);
    if (!t->fks || !columns || !refs) {
        return GODWIT_NOMEM;
    }
    slice last = {0};
    for (int i = 0; i < count; i++) {
        slice oid = pg_field(r, first + i, 1);
        if (i == 0 || !slice_equal(last, oid)) {
            t->fks[t->fk_count++] = (schema_fk){.table = pg_field_copy(a, r, first + i, 2),
                                                .on_delete = pg_field_copy(a, r, first + i, 3),
                                                .columns = &columns[i],
                                                .ref_columns = &refs[i]};
            last = oid;
        }
        columns[i] = schema_column_index(t, pg_field(r, first + i, 4));
        refs[i] = pg_field_copy(a, r, first + i, 5);
        t->fks[t->fk_count - 1].count++;
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* What a device declared, for tables that were made from it. */
static godwit_status read_declared(arena *a, slice types, schema_table *t) {
    const json *root = NULL;
    if (types.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, arena_copy(a, types), &root, NULL);
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        (void)json_text(json_find(root, t->columns[i].name), &t->columns[i].type);
        t->columns[i].any_type = false;
    }
    return status;
}

/* Declared foreign keys come behind the enforced ones and are only told to devices. */
static godwit_status read_declared_keys(arena *a, slice declaration, schema_table *t) {
    const json *list = NULL;
    const char *reason = NULL;
    schema declared;
    if (declaration.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, arena_copy(a, declaration), &list, NULL);
    if (status == GODWIT_OK) {
        status = schema_from_json(a, list, &declared, &reason);
    }
    if (status != GODWIT_OK || declared.table_count != 1) {
        return status == GODWIT_NOMEM ? status : GODWIT_CORRUPT;
    }
    const schema_table *from = &declared.tables[0];
    schema_fk *all = ARENA_ARRAY(a, schema_fk, t->fk_count + from->fk_count);
    if (!all) {
        return GODWIT_NOMEM;
    }
    memcpy(all, t->fks, t->fk_count * sizeof *all);
    t->fks = all;
    for (size_t i = 0; i < from->fk_count; i++) {
        schema_fk *fk = &t->fks[t->fk_count];
        *fk = from->fks[i];
        int *columns = ARENA_ARRAY(a, int, fk->count);
        bool known = columns != NULL;
        for (size_t k = 0; known && k < fk->count; k++) {
            columns[k] = schema_column_index(t, from->columns[fk->columns[k]].name);
            known = columns[k] >= 0;
        }
        fk->columns = columns;
        t->fk_count += known;
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* Where rows that others write belong. */
static godwit_status read_scope(pg_link *l, arena *a, const PGresult *r, int row, schema_table *t) {
    slice column = pg_field(r, row, 5);
    t->scope = pg_field_copy(a, r, row, 4);
    if (column.ptr) {
        t->scope_column = schema_column_index(t, column);
        if (t->scope_column < 0) {
            return refuse(l, t, "it has no column", column);
        }
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status read_tables(pg_link *l, arena *a, schema *out) {
    const PGresult *tracked = pg_result(l, 0);
    size_t count = (size_t)PQntuples(tracked);
    godwit_status status = GODWIT_OK;
    out->tables = ARENA_ARRAY(a, schema_table, count);
    if (!out->tables) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        schema_table *t = &out->tables[i];
        *t = (schema_table){.scope_column = -1,
                            .initial_column = -1,
                            .deleted_column = -1,
                            .created_by_device_column = -1,
                            .updated_at_column = -1,
                            .vector_clock_column = -1,
                            .number = (int)i};
        t->name = pg_field_copy(a, tracked, (int)i, 0);
        t->entity = t->name;
        out->version = pg_field_int(tracked, (int)i, 3);
        status = read_columns(l, a, pg_result(l, 1), t);
        if (status == GODWIT_OK) {
            status = read_keys(a, pg_result(l, 2), t);
        }
        if (status == GODWIT_OK) {
            status = read_declared(a, pg_field(tracked, (int)i, 2), t);
        }
        if (status == GODWIT_OK) {
            status = read_declared_keys(a, pg_field(tracked, (int)i, 1), t);
        }
        if (status == GODWIT_OK) {
            status = read_scope(l, a, tracked, (int)i, t);
        }
        out->table_count++;
    }
    return status;
}

godwit_status pg_schema_read(store *st, arena *a, schema *out) {
    pg_link *l = &st->link;
    memset(out, 0, sizeof *out);
    godwit_status status = pg_link_up(l);
    ASSERT(l->sent == 0);
    if (status == GODWIT_OK) {
        status = pg_send(l, TRACKED_SQL);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, pg_columns_sql);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, KEYS_SQL);
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status == GODWIT_OK) {
        status = read_tables(l, a, out);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof *out);
    }
    return status;
}

/* ---- making ---- */

godwit_status pg_schema_file(store *st, const char *path, char *message) {
    (void)st;
    (void)path;
    snprintf(message, 512,
             "--schema is for the SQLite store: make the tables with psql, then run the output of"
             " 'godwit pg track TABLE..'");
    return GODWIT_INVALID;
}

static bool contains(slice type, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= type.len; i++) {
        if (strncasecmp(type.ptr + i, word, n) == 0) {
            return true;
        }
    }
    return false;
}

/* SQLite's affinity of the declared type, in PostgreSQL's types. */
static const char *type_for(slice type) {
    static const struct {
        const char *word, *sql;
    } types[] = {{"INT", "bigint"},
                 {"CHAR", "text"},
                 {"CLOB", "text"},
                 {"TEXT", "text"},
                 {"BLOB", "bytea"},
                 {"REAL", "double precision"},
                 {"FLOA", "double precision"},
                 {"DOUB", "double precision"},
                 {"BOOL", "boolean"},
                 {"DATE", "text"},
                 {"TIME", "text"},
                 {"NUM", "numeric"},
                 {"DEC", "numeric"}};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (contains(type, types[i].word)) {
            return types[i].sql;
        }
    }
    return "text";
}

static godwit_status run(store *st) {
    PGresult *r = NULL;
    if (st->sql.failed) {
        return GODWIT_NOMEM;
    }
    godwit_status status = pg_query(&st->link, st->sql.ptr, &r);
    return status == GODWIT_INTERNAL || status == GODWIT_CONSTRAINT ? GODWIT_INVALID : status;
}

static godwit_status adopt_table(store *st, const schema_table *t) {
    bytes *sql = &st->sql;
    bytes_clear(sql);
    bytes_text(sql, "CREATE TABLE public.");
    bytes_identifier(sql, t->name);
    bytes_char(sql, '(');
    for (size_t i = 0; i < t->column_count; i++) {
        bytes_text(sql, i ? ", " : "");
        bytes_identifier(sql, t->columns[i].name);
        bytes_char(sql, ' ');
        bytes_text(sql, type_for(t->columns[i].type));
        bool text_key = t->columns[i].is_key && strcmp(type_for(t->columns[i].type), "text") == 0;
        bytes_text(sql, text_key ? " COLLATE \"C\"" : "");
    }
    bytes_text(sql, ", PRIMARY KEY (");
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_text(sql, i ? ", " : "");
        bytes_identifier(sql, t->columns[t->key[i]].name);
    }
    bytes_text(sql, "))");
    return run(st);
}

static godwit_status adopt_columns(store *st, const schema_table *t) {
    bytes *sql = &st->sql;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        bytes_clear(sql);
        bytes_text(sql, "ALTER TABLE public.");
        bytes_identifier(sql, t->name);
        bytes_text(sql, " ADD COLUMN IF NOT EXISTS ");
        bytes_identifier(sql, t->columns[i].name);
        bytes_char(sql, ' ');
        bytes_text(sql, type_for(t->columns[i].type));
        status = run(st);
    }
    return status;
}

/* Types of the columns there were and of those declared now. */
static void write_types(bytes *b, const schema_table *have, const schema_table *t) {
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; have && i < have->column_count; i++) {
        json_comma(b, &first);
        json_write_text(b, have->columns[i].name);
        bytes_char(b, ':');
        json_write_text(b, have->columns[i].type);
    }
    for (size_t i = 0; i < t->column_count; i++) {
        if (have && schema_column_index(have, t->columns[i].name) >= 0) {
            continue;
        }
        json_comma(b, &first);
        json_write_text(b, t->columns[i].name);
        bytes_char(b, ':');
        json_write_text(b, t->columns[i].type);
    }
    bytes_char(b, '}');
}

static godwit_status track(store *st, const schema_table *t) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    bytes *declaration = &st->sql;
    bytes_clear(declaration);
    bytes_char(declaration, '[');
    schema_table_to_json(declaration, t);
    bytes_char(declaration, ']');
    write_types(&st->json, schema_find(st->tables->schema, t->name), t);
    pg_text(l, t->name);
    pg_text(l, t->fk_count ? bytes_view(declaration) : (slice){0});
    pg_text(l, bytes_view(&st->json));
    if (declaration->failed || st->json.failed) {
        return GODWIT_NOMEM;
    }
    godwit_status status =
        pg_send(l, "INSERT INTO godwit.tracked AS t (name, schema_name, number, declared_keys,"
                   " declared_types) VALUES ($1, 'public', (SELECT coalesce(max(number) + 1, 0) "
                   "FROM godwit.tracked),"
                   " $2::json, $3::json) ON CONFLICT (name) DO UPDATE SET"
                   " declared_keys = coalesce($2::json, t.declared_keys),"
                   " declared_types = $3::json");
    if (status == GODWIT_OK) {
        status = pg_query(l, "UPDATE godwit.meta SET v = v + 1 WHERE k = 'registry_version'", &r);
    }
    return status;
}

/* 0 not tracked, 1 tracked and made by --dev, 2 tracked. */
static godwit_status tracked_how(store *st, const schema_table *t, int *how) {
    PGresult *r = NULL;
    pg_text(&st->link, t->name);
    godwit_status status = pg_query(
        &st->link, "SELECT declared_types IS NOT NULL FROM godwit.tracked WHERE name = $1", &r);
    *how = status != GODWIT_OK || PQntuples(r) == 0 ? 0 : is_true(r, 0, 0) ? 1 : 2;
    return status;
}

static bool reserved(slice name) {
    return name.len >= 7 &&
           (strncasecmp(name.ptr, "godwit_", 7) == 0 || strncasecmp(name.ptr, "sqlite_", 7) == 0);
}

/* Does the declaration have a column that the tracked table lacks? */
static bool wider(const store *st, const schema_table *t, slice *missing) {
    const schema_table *have = schema_find(st->tables->schema, t->name);
    for (size_t i = 0; i < t->column_count; i++) {
        if (!have || schema_column_index(have, t->columns[i].name) < 0) {
            *missing = t->columns[i].name;
            return true;
        }
    }
    return false;
}

godwit_status pg_schema_adopt(store *st, const schema *declared, bool *changed) {
    pg_link *l = &st->link;
    godwit_status status = GODWIT_OK;
    *changed = false;
    for (size_t i = 0; status == GODWIT_OK && i < declared->table_count; i++) {
        const schema_table *t = &declared->tables[i];
        slice missing = {0};
        int how = 0;
        if (reserved(t->name)) {
            snprintf(l->message, sizeof l->message, "the table name %.*s is reserved",
                     SLICE_ARG(t->name));
            return GODWIT_INVALID;
        }
        status = tracked_how(st, t, &how);
        if (status != GODWIT_OK || (how > 0 && !wider(st, t, &missing))) {
            continue;
        }
        if (how == 2) {
            snprintf(l->message, sizeof l->message,
                     "table %.*s has no column %.*s: add it to the database first",
                     SLICE_ARG(t->name), SLICE_ARG(missing));
            return GODWIT_INVALID;
        }
        status = how ? adopt_columns(st, t) : adopt_table(st, t);
        if (status == GODWIT_OK) {
            status = track(st, t);
        }
        *changed = true;
    }
    return status;
}

/* Only of tables that --dev made: others are changed by migrations. */
godwit_status pg_column_rename(store *st, slice table, slice from, slice to) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    pg_text(l, table);
    pg_text(l, from);
    pg_text(l, to);
    godwit_status status = pg_query(
        l,
        "SELECT 1 FROM godwit.tracked t WHERE t.name = $1 AND t.declared_types IS NOT NULL AND"
        " EXISTS (SELECT 1 FROM information_schema.columns c WHERE c.table_schema = t.schema_name"
        " AND c.table_name = $1 AND c.column_name = $2) AND NOT EXISTS (SELECT 1 FROM"
        " information_schema.columns c WHERE c.table_schema = t.schema_name AND c.table_name = $1"
        " AND c.column_name = $3)",
        &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status;
    }
    bytes *sql = &st->sql;
    bytes_clear(sql);
    bytes_text(sql, "ALTER TABLE public.");
    bytes_identifier(sql, table);
    bytes_text(sql, " RENAME COLUMN ");
    bytes_identifier(sql, from);
    bytes_text(sql, " TO ");
    bytes_identifier(sql, to);
    status = run(st);
    pg_text(l, table);
    pg_text(l, from);
    pg_text(l, to);
    if (status == GODWIT_OK) {
        status = pg_send(l, "UPDATE godwit.tracked SET declared_types = (declared_types::jsonb - $2"
                            " || jsonb_build_object($3, declared_types::jsonb -> $2))::json"
                            " WHERE name = $1");
    }
    if (status == GODWIT_OK) {
        status = pg_query(l, "UPDATE godwit.meta SET v = v + 1 WHERE k = 'registry_version'", &r);
    }
    return status;
}
