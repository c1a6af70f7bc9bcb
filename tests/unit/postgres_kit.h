/* Databases for tests that run on PostgreSQL: GODWIT_POSTGRES names a server (tools/with-postgres),
 * each test gets a database of its own, made from a template that has schema godwit and, for the
 * tests' own questions, the names the SQLite store's tables and functions have. */
#ifndef TESTS_POSTGRES_KIT_H
#define TESTS_POSTGRES_KIT_H

#include "unit.h"

#include <libpq-fe.h>
#include <unistd.h>

#include "core/arena.h"
#include "server/migration.h"

/* The server to use; NULL: the tests run on SQLite. */
static inline const char *postgres_server(void) {
    return getenv("GODWIT_POSTGRES");
}

/* The server's URL with another database: "postgresql://godwit@/NAME?host=..". */
static inline const char *postgres_url(arena *a, const char *name) {
    const char *url = postgres_server();
    const char *path = strstr(url, "@/");
    const char *query = path ? strchr(path, '?') : NULL;
    assert_non_null(query);
    return arena_printf(a, "%.*s@/%s%s", (int)(path - url), url, name, query);
}

static inline PGconn *postgres_connect(const char *url) {
    PGconn *c = PQconnectdb(url);
    if (PQstatus(c) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(c));
    }
    return c;
}

/* The first field of the last statement's result: "NULL" for NULL, 1 and 0 for booleans; in a. */
static inline const char *postgres_run(arena *a, const char *url, const char *sql) {
    PGconn *c = postgres_connect(url);
    PGresult *r = PQexec(c, sql);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(c));
    }
    const char *out = "";
    if (PQntuples(r) > 0) {
        const char *text = PQgetisnull(r, 0, 0) ? "NULL" : PQgetvalue(r, 0, 0);
        bool flag = PQftype(r, 0) == 16;
        out = arena_printf(a, "%s", flag ? (text[0] == 't' ? "1" : "0") : text);
    }
    PQclear(r);
    PQfinish(c);
    return out;
}

#define POSTGRES_NAMES                                                                             \
    "CREATE VIEW godwit_scope AS SELECT * FROM godwit.scope;"                                      \
    "CREATE VIEW godwit_device AS SELECT * FROM godwit.device;"                                    \
    "CREATE VIEW godwit_commit AS SELECT * FROM godwit.commit;"                                    \
    "CREATE VIEW godwit_change AS SELECT * FROM godwit.change;"                                    \
    "CREATE VIEW godwit_row AS SELECT * FROM godwit.row;"                                          \
    "CREATE VIEW godwit_op AS SELECT scope, device_id, seq, lineage, lsn, op_key, commit_seq,"     \
    " outcome, code, detail, conflicts, coalesce(result::text, result_change::text) AS result"     \
    " FROM godwit.op;"                                                                             \
    "CREATE VIEW godwit_conflict AS SELECT * FROM godwit.conflict;"                                \
    "CREATE VIEW sqlite_schema AS SELECT relname AS name FROM pg_class;"                           \
    "CREATE VIEW godwit_idem AS SELECT * FROM godwit.idem;"                                        \
    "CREATE VIEW godwit_name AS SELECT scope AS no, scope AS name FROM godwit.scope"               \
    " UNION SELECT device_id, device_id FROM godwit.device;"                                       \
    "CREATE FUNCTION hex(bytea) RETURNS text LANGUAGE sql AS"                                      \
    " 'SELECT upper(encode($1, ''hex''))';"                                                        \
    "CREATE FUNCTION ifnull(bigint, text) RETURNS text LANGUAGE sql AS"                            \
    " 'SELECT coalesce($1::text, $2)';"                                                            \
    "CREATE FUNCTION ifnull(bigint, int) RETURNS bigint LANGUAGE sql AS"                           \
    " 'SELECT coalesce($1, $2)';"                                                                  \
    "CREATE FUNCTION json_extract(json, text) RETURNS text LANGUAGE sql AS"                        \
    " 'SELECT $1 #>> string_to_array(substr($2, 3), ''.'')';"                                      \
    "CREATE FUNCTION json_extract(json, text, text) RETURNS text LANGUAGE sql AS"                  \
    " $$SELECT '[' || ($1 #> string_to_array(substr($2, 3), '.'))::text || ',' ||"                 \
    " ($1 #> string_to_array(substr($3, 3), '.'))::text || ']'$$;"                                 \
    "CREATE FUNCTION joined(bigint, bigint) RETURNS text LANGUAGE sql AS"                          \
    " 'SELECT $1::text || $2::text';"                                                              \
    "CREATE OPERATOR || (leftarg = bigint, rightarg = bigint, function = joined);"                 \
    "CREATE FUNCTION joined(json, json) RETURNS text LANGUAGE sql AS"                              \
    " 'SELECT $1::text || $2::text';"                                                              \
    "CREATE OPERATOR || (leftarg = json, rightarg = json, function = joined);"                     \
    "CREATE FUNCTION concat_step(text, text) RETURNS text LANGUAGE sql AS"                         \
    " 'SELECT CASE WHEN $1 IS NULL THEN $2 ELSE $1 || '','' || $2 END';"                           \
    "CREATE FUNCTION concat_step(text, text, text) RETURNS text LANGUAGE sql AS"                   \
    " 'SELECT CASE WHEN $1 IS NULL THEN $2 ELSE $1 || $3 || $2 END';"                              \
    "CREATE AGGREGATE group_concat(text, text) (sfunc = concat_step, stype = text);"               \
    "CREATE AGGREGATE group_concat(text) (sfunc = concat_step, stype = text);"

/* SQLite's type names in a schema, in PostgreSQL's words. */
static inline const char *postgres_words(arena *a, const char *sql) {
    static const char *const words[][2] = {
        {"REAL", "double precision"}, {"INTEGER", "bigint"}, {"ANY", "text"}, {"BLOB", "bytea"}};
    bytes b;
    bytes_init(&b, NULL, 0);
    while (*sql) {
        bool hit = false;
        for (size_t i = 0; i < COUNT_OF(words) && !hit; i++) {
            size_t n = strlen(words[i][0]);
            hit = strncmp(sql, words[i][0], n) == 0;
            if (hit) {
                bytes_text(&b, words[i][1]);
                sql += n;
            }
        }
        if (!hit) {
            bytes_char(&b, *sql++);
        }
    }
    slice out = arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    return out.ptr;
}

static inline void postgres_template(arena *a, const char *name) {
    const char *there = postgres_run(
        a, postgres_server(),
        arena_printf(a, "SELECT count(*) FROM pg_database WHERE datname = '%s'", name));
    if (strcmp(there, "0") != 0) {
        return;
    }
    bytes b;
    bytes_init(&b, NULL, 0);
    (void)postgres_run(a, postgres_server(), arena_printf(a, "CREATE DATABASE %s", name));
    migration_install(&b);
    (void)postgres_run(a, postgres_url(a, name), b.ptr);
    (void)postgres_run(a, postgres_url(a, name), POSTGRES_NAMES);
    bytes_deinit(&b);
}

/* A new database; its URL, in a. */
static inline const char *postgres_database(arena *a) {
    static int count;
    const char *template = arena_printf(a, "template_%ld", (long)getpid());
    const char *name = arena_printf(a, "test_%ld_%d", (long)getpid(), ++count);
    postgres_template(a, template);
    (void)postgres_run(a, postgres_server(),
                       arena_printf(a, "CREATE DATABASE %s TEMPLATE %s", name, template));
    return postgres_url(a, name);
}

static inline void postgres_drop(arena *a, const char *url) {
    const char *name = strstr(url, "@/") + 2;
    (void)postgres_run(
        a, postgres_server(),
        arena_printf(a, "DROP DATABASE %.*s WITH (FORCE)", (int)strcspn(name, "?"), name));
}

/* Makes the tables of an SQLite schema that are not there and tracks all that have a primary key.
 */
static inline void postgres_schema(arena *a, const char *url, const char *sql) {
    (void)postgres_run(
        a, url, arena_printf(a, "SET check_function_bodies = off; %s", postgres_words(a, sql)));
    (void)postgres_run(
        a, url,
        "INSERT INTO godwit.tracked(name, schema_name, number) SELECT c.relname, 'public',"
        " row_number() OVER (ORDER BY c.oid) - 1 + (SELECT count(*) FROM godwit.tracked)"
        " FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " ON CONFLICT DO NOTHING; UPDATE godwit.meta SET v = v + 1 WHERE k = 'registry_version'");
}

#endif
