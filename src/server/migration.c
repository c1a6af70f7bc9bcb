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

void migration_track(bytes *b, slice schema_name, slice table) {
    bytes_text(b, "INSERT INTO godwit.tracked(name, schema_name, number) VALUES (");
    literal(b, table);
    bytes_text(b, ", ");
    literal(b, schema_name);
    bytes_text(b, ",\n  (SELECT coalesce(max(number) + 1, 0) FROM godwit.tracked))"
                  " ON CONFLICT DO NOTHING;\n");
    grown(b);
}

void migration_untrack(bytes *b, slice table) {
    bytes_text(b, "DELETE FROM godwit.tracked WHERE name = ");
    literal(b, table);
    bytes_text(b, ";\n");
    grown(b);
}

/* ---- looking ---- */

/* Key columns with their types, and what is wrong with a table: one row. */
#define LOOK                                                                                       \
    "SELECT c.oid IS NOT NULL, string_agg(a.attname || ' ' || t.typname, ', ' ORDER BY"            \
    " array_position(i.indkey::int2[], a.attnum)), bool_and(t.typname IN ('int2', 'int4', 'int8'," \
    " 'text', 'varchar', 'uuid', 'bytea') OR t.typtype = 'e')"                                     \
    " FROM (SELECT $1::text AS s, $2::text AS n) w"                                                \
    " LEFT JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s"                                    \
    " LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid AND c.relname = w.n"              \
    "  AND c.relkind IN ('r', 'p')"                                                                \
    " LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary"                    \
    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"     \
    " LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid GROUP BY c.oid"

static const char *problem_of(const PGresult *r) {
    if (PQgetvalue(r, 0, 0)[0] != 't') {
        return "there is no such table";
    }
    if (pg_is_null(r, 0, 1)) {
        return "it has no primary key: add one";
    }
    return PQgetvalue(r, 0, 2)[0] == 't'
               ? NULL
               : "its key must be of integers, text, uuid, bytea or enums";
}

static godwit_status look(pg_link *l, slice schema_name, slice table, PGresult **out) {
    pg_text(l, schema_name);
    pg_text(l, table);
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

godwit_status migration_check(const char *url, slice schema_name, slice table, char *message) {
    pg_link l;
    PGresult *r = NULL;
    godwit_status status = open_link(&l, url, message);
    if (status == GODWIT_OK) {
        status = look(&l, schema_name, table, &r);
        snprintf(message, 512, "%.400s", l.message);
    }
    const char *why = status == GODWIT_OK ? problem_of(r) : NULL;
    if (why) {
        snprintf(message, 512, "%.*s.%.*s: %s", SLICE_ARG(schema_name), SLICE_ARG(table), why);
        status = GODWIT_INVALID;
    }
    pg_link_deinit(&l);
    return status;
}

#define TRACKED                                                                                    \
    "SELECT name, schema_name, (SELECT count(*) FROM pg_catalog.pg_attribute a"                    \
    " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"                                            \
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = schema_name"      \
    " AND c.relname = name AND a.attnum > 0 AND NOT a.attisdropped)"                               \
    " FROM godwit.tracked ORDER BY number"

static godwit_status write_status(pg_link *l, bytes *out) {
    PGresult *r = NULL;
    godwit_status status = pg_query(l, TRACKED, &r);
    PGresult *tracked = status == GODWIT_OK ? pg_take(l, 0) : NULL;
    bytes_char(out, '[');
    for (int i = 0; status == GODWIT_OK && i < PQntuples(tracked); i++) {
        status = look(l, pg_field(tracked, i, 1), pg_field(tracked, i, 0), &r);
        if (status != GODWIT_OK) {
            break;
        }
        const char *why = problem_of(r);
        slice key = pg_field(r, 0, 1);
        bytes_text(out, i ? ",{\"table\":" : "{\"table\":");
        json_write_text(out, pg_field(tracked, i, 0));
        bytes_text(out, ",\"schema\":");
        json_write_text(out, pg_field(tracked, i, 1));
        bytes_text(out, ",\"key\":");
        json_write_text(out, key.ptr ? key : SLICE(""));
        bytes_text(out, ",\"columns\":");
        bytes_int(out, pg_field_int(tracked, i, 2));
        bytes_text(out, ",\"problem\":");
        json_write_text(out, slice_of(why ? why : ""));
        bytes_char(out, '}');
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
        bool absent = strcmp(l.error.state, "42P01") == 0;
        snprintf(message, 512, "%.300s%s", l.message,
                 absent ? ": run the output of 'godwit pg install' first" : "");
    }
    pg_link_deinit(&l);
    return status;
}
