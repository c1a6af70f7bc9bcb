/* The migration's text. Names are quoted as literals here: they are looked up, never made. */
#include "server/migration.h"

#include <stdio.h>

#include "server/store_postgres.h"

void migration_install(bytes *b) {
    bytes_text(b, "BEGIN;\n");
    bytes_text(b, pg_ddl);
    bytes_text(b, "COMMIT;\n");
}

/* 'it''s' */
static void literal(bytes *b, slice s) {
    bytes_char(b, '\'');
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\'') {
            bytes_char(b, '\'');
        }
        bytes_char(b, s.ptr[i]);
    }
    bytes_char(b, '\'');
}

static void grown(bytes *b) {
    bytes_text(b, "UPDATE godwit.meta SET v = v + 1 WHERE k = 'registry_version';\n");
}

/* '"public"."pins"' */
static void table_literal(bytes *b, slice schema_name, slice table) {
    bytes name;
    bytes_init(&name, NULL, 0);
    bytes_identifier(&name, schema_name);
    bytes_char(&name, '.');
    bytes_identifier(&name, table);
    b->failed = b->failed || name.failed;
    literal(b, bytes_view(&name));
    bytes_deinit(&name);
}

static void literal_or_null(bytes *b, slice s) {
    if (s.len) {
        literal(b, s);
    } else {
        bytes_text(b, "NULL");
    }
}

void migration_track(bytes *b, const migration_table *t) {
    bytes_text(b, "INSERT INTO godwit.tracked(name, schema_name, number, scope, scope_column)"
                  " VALUES (");
    literal(b, t->table);
    bytes_text(b, ", ");
    literal(b, t->schema_name);
    bytes_text(b, ",\n  (SELECT coalesce(max(number) + 1, 0) FROM godwit.tracked), ");
    literal_or_null(b, t->scope);
    bytes_text(b, ", ");
    literal_or_null(b, t->scope_column);
    bytes_text(b, ")\n  ON CONFLICT (name) DO UPDATE SET scope = excluded.scope,"
                  " scope_column = excluded.scope_column;\n"
                  "SELECT godwit.watch(");
    table_literal(b, t->schema_name, t->table);
    bytes_text(b, ");\n");
    grown(b);
}

void migration_untrack(bytes *b, slice schema_name, slice table) {
    bytes_text(b, "SELECT godwit.unwatch(");
    table_literal(b, schema_name, table);
    bytes_text(b, ");\nDELETE FROM godwit.tracked WHERE name = ");
    literal(b, table);
    bytes_text(b, ";\n");
    grown(b);
}

/* ---- looking ---- */

/* Key columns with their types, and what is wrong with a table: one row. */
#define LOOK                                                                                       \
    "SELECT c.oid IS NOT NULL, string_agg(a.attname || ' ' || t.typname, ', ' ORDER BY"            \
    " array_position(i.indkey::int2[], a.attnum)), bool_and(t.typname IN ('int2', 'int4', 'int8'," \
    " 'text', 'varchar', 'uuid', 'bytea') OR t.typtype = 'e'),"                                    \
    " $3 = '' OR EXISTS (SELECT 1 FROM pg_catalog.pg_attribute x WHERE x.attrelid = c.oid"         \
    "  AND x.attname = $3 AND NOT x.attisdropped),"                                                \
    " c.relispartition, (SELECT count(*) FROM pg_catalog.pg_attribute x WHERE x.attrelid = c.oid"  \
    "  AND x.attnum > 0 AND NOT x.attisdropped)"                                                   \
    " FROM (SELECT $1::text AS s, $2::text AS n) w"                                                \
    " LEFT JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s"                                    \
    " LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid AND c.relname = w.n"              \
    "  AND c.relkind IN ('r', 'p')"                                                                \
    " LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary"                    \
    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"     \
    " LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid GROUP BY c.oid, c.relispartition"

static const char *problem_of(const PGresult *r) {
    if (PQgetvalue(r, 0, 0)[0] != 't') {
        return "there is no such table";
    }
    if (PQgetvalue(r, 0, 4)[0] == 't') {
        return "it is a partition: track the table it belongs to";
    }
    if (pg_is_null(r, 0, 1)) {
        return "it has no primary key: add one";
    }
    if (PQgetvalue(r, 0, 2)[0] != 't') {
        return "its key must be of integers, text, uuid, bytea or enums";
    }
    if (PQgetvalue(r, 0, 3)[0] != 't') {
        return "it has no such scope column";
    }
    return pg_field_int(r, 0, 5) > COLUMNS_MAX ? "it has too many columns" : NULL;
}

static godwit_status look(pg_link *l, const migration_table *t, PGresult **out) {
    pg_text(l, t->schema_name);
    pg_text(l, t->table);
    pg_text(l, t->scope_column.len ? t->scope_column : SLICE(""));
    return pg_query(l, LOOK, out);
}

static godwit_status open_link(pg_link *l, const char *url, char *message) {
    godwit_status status = pg_link_init(l, url);
    if (status == GODWIT_OK) {
        status = pg_link_up(l);
    }
    if (status != GODWIT_OK) {
        snprintf(message, 512, "the database can't be reached: %.400s", l->message);
    }
    return status;
}

godwit_status migration_check(const char *url, const migration_table *t, char *message) {
    pg_link l;
    PGresult *r = NULL;
    godwit_status status = open_link(&l, url, message);
    if (status == GODWIT_OK) {
        status = look(&l, t, &r);
        snprintf(message, 512, "%.400s", l.message);
    }
    const char *why = status == GODWIT_OK ? problem_of(r) : NULL;
    if (why) {
        snprintf(message, 512, "%.*s.%.*s: %s", SLICE_ARG(t->schema_name), SLICE_ARG(t->table),
                 why);
        status = GODWIT_INVALID;
    }
    pg_link_deinit(&l);
    return status;
}

#define TRACKED                                                                                    \
    "SELECT t.name, t.schema_name, coalesce(t.scope, 'column ' || t.scope_column, ''),"            \
    " t.scope_column, EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g"                               \
    "  JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid"                                            \
    "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE g.tgname = 'godwit_insert'"  \
    "  AND c.relname = t.name AND n.nspname = t.schema_name),"                                     \
    " (SELECT count(*) FROM godwit.outbox o WHERE o.tbl = t.name AND NOT o.waiting),"              \
    " (SELECT count(*) FROM godwit.outbox o WHERE o.tbl = t.name AND o.waiting),"                  \
    " t.declared_types IS NOT NULL FROM godwit.tracked t ORDER BY t.number"

static void text_member(bytes *out, const char *name, slice text) {
    bytes_text(out, name);
    json_write_text(out, text.ptr ? text : SLICE(""));
}

/* What an operator should know about a tracked table, the worst first. */
static const char *status_of(const PGresult *look, const PGresult *tracked, int row) {
    const char *why = problem_of(look);
    bool dev = PQgetvalue(tracked, row, 7)[0] == 't';
    if (!why && !dev && PQgetvalue(tracked, row, 4)[0] != 't') {
        why = "what others write is not noticed: run the output of 'godwit pg track' again";
    }
    if (!why && pg_field_int(tracked, row, 6) > 0) {
        why =
            "rows wait, nobody has said which scope they belong to: track it again with --scope or"
            " --scope-column, or set it in the server's configuration and start it again";
    }
    return why;
}

static godwit_status write_table(pg_link *l, const PGresult *tracked, int row, bytes *out) {
    PGresult *r = NULL;
    const migration_table table = {.schema_name = pg_field(tracked, row, 1),
                                   .table = pg_field(tracked, row, 0),
                                   .scope_column = pg_field(tracked, row, 3)};
    godwit_status status = look(l, &table, &r);
    if (status != GODWIT_OK) {
        return status;
    }
    text_member(out, row ? ",{\"table\":" : "{\"table\":", table.table);
    text_member(out, ",\"schema\":", table.schema_name);
    text_member(out, ",\"key\":", pg_field(r, 0, 1));
    bytes_text(out, ",\"columns\":");
    bytes_int(out, pg_field_int(r, 0, 5));
    text_member(out, ",\"scope\":", pg_field(tracked, row, 2));
    bytes_text(out, ",\"noted\":");
    bytes_int(out, pg_field_int(tracked, row, 5));
    bytes_text(out, ",\"waiting\":");
    bytes_int(out, pg_field_int(tracked, row, 6));
    const char *why = status_of(r, tracked, row);
    text_member(out, ",\"problem\":", slice_of(why ? why : ""));
    bytes_char(out, '}');
    return GODWIT_OK;
}

static godwit_status write_status(pg_link *l, bytes *out) {
    PGresult *r = NULL;
    godwit_status status = pg_query(l, TRACKED, &r);
    PGresult *tracked = status == GODWIT_OK ? pg_take(l, 0) : NULL;
    bytes_char(out, '[');
    for (int i = 0; status == GODWIT_OK && i < PQntuples(tracked); i++) {
        status = write_table(l, tracked, i, out);
    }
    bytes_char(out, ']');
    PQclear(tracked);
    return status == GODWIT_OK && out->failed ? GODWIT_NOMEM : status;
}

godwit_status migration_status(const char *url, bytes *out, char *message) {
    pg_link l;
    godwit_status status = open_link(&l, url, message);
    if (status == GODWIT_OK) {
        status = write_status(&l, out);
        bool absent = strcmp(l.error.state, "42P01") == 0 || strcmp(l.error.state, "42703") == 0;
        snprintf(message, 512, "%.300s%s", l.message,
                 absent ? ": run the output of 'godwit pg install' first" : "");
    }
    pg_link_deinit(&l);
    return status;
}
