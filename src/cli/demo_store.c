/* The demo's server side of the data: an SQLite file that anybody may read, or a PostgreSQL
 * database whose tables are made and tracked as its owner would do it. Questions are asked in SQL
 * that both understand; Godwit's own tables are godwit_op there and godwit.op here. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/demo.h"
#include "core/id.h"

enum { OID_BOOL = 16, OID_FLOAT8 = 701 };

static bool failed(demo_world *w, const char *doing, PGconn *c) {
    snprintf(w->why, sizeof w->why, "%s: %s", doing, PQerrorMessage(c));
    return false;
}

/* godwit_op -> godwit.op */
static bool with_schema(const char *sql, bytes *out) {
    static const char prefix[] = "godwit_";
    for (const char *at = strstr(sql, prefix); at; at = strstr(sql, prefix)) {
        bytes_add(out, sql, (size_t)(at - sql));
        bytes_text(out, "godwit.");
        sql = at + sizeof prefix - 1;
    }
    bytes_text(out, sql);
    return !out->failed;
}

static PGresult *ask(demo_world *w, PGconn **out, const char *sql) {
    bytes text;
    PGresult *r = NULL;
    bytes_init(&text, NULL, 0);
    *out = PQconnectdb(w->db);
    if (PQstatus(*out) == CONNECTION_OK && with_schema(sql, &text)) {
        r = PQexec(*out, text.ptr);
    }
    bytes_deinit(&text);
    ExecStatusType kind = PQresultStatus(r);
    if (kind != PGRES_TUPLES_OK && kind != PGRES_COMMAND_OK) {
        (void)failed(w, "the database", *out);
        PQclear(r);
        return NULL;
    }
    return r;
}

static void postgres_text(demo_world *w, const char *sql, char *out, size_t size) {
    PGconn *c = NULL;
    PGresult *r = ask(w, &c, sql);
    out[0] = '\0';
    if (r && PQntuples(r) > 0) {
        const char *text = PQgetvalue(r, 0, 0);
        bool flag = PQftype(r, 0) == OID_BOOL && *text;
        snprintf(out, size, "%s", flag ? (*text == 't' ? "1" : "0") : text);
    }
    PQclear(r);
    PQfinish(c);
}

void demo_server_text(demo_world *w, const char *sql, char *out, size_t size) {
    if (w->db) {
        postgres_text(w, sql, out, size);
    } else {
        demo_file_text(w, w->store_path, sql, out, size);
    }
}

int64_t demo_server_int(demo_world *w, const char *sql) {
    char text[64];
    demo_server_text(w, sql, text, sizeof text);
    return text[0] ? strtoll(text, NULL, 10) : -1;
}

/* As SQLite's storage classes: these tables have text, numbers with a point, and NULL. */
static bool add_rows(demo_world *w, const char *sql, sha256 *hash, int64_t *rows) {
    PGconn *c = NULL;
    PGresult *r = ask(w, &c, sql);
    for (int i = 0; i < PQntuples(r); i++) {
        for (int k = 0; k < PQnfields(r); k++) {
            const char *text = PQgetvalue(r, i, k);
            double real = strtod(text, NULL);
            if (PQgetisnull(r, i, k)) {
                demo_digest_value(hash, SQLITE_NULL, NULL, 0);
            } else if (PQftype(r, k) == OID_FLOAT8) {
                demo_digest_value(hash, SQLITE_FLOAT, &real, (int)sizeof real);
            } else {
                demo_digest_value(hash, SQLITE_TEXT, text, PQgetlength(r, i, k));
            }
        }
    }
    *rows = PQntuples(r);
    PQclear(r);
    PQfinish(c);
    return r != NULL;
}

bool demo_replica_of(demo_world *w, int device, demo_replica *out) {
    uint8_t digest[SHA256_BYTES];
    sha256 hash;
    if (device >= 0 || !w->db) {
        return demo_file_replica(w, device >= 0 ? w->devices[device].path : w->store_path, out);
    }
    *out = (demo_replica){0};
    sha256_init(&hash);
    bool ok = add_rows(w, DEMO_PINS " COLLATE \"C\"", &hash, &out->pins) &&
              add_rows(w, DEMO_FORMS " COLLATE \"C\"", &hash, &out->forms);
    sha256_final(&hash, digest);
    id_hex_encode(digest, 8, out->digest);
    return ok;
}

/* As its owner would: the application's tables first, then what 'godwit pg' prints. */
bool demo_store_make(demo_world *w) {
    const char *install[] = {"pg", "install", NULL};
    const char *track[] = {"pg", "track", "pins", "forms", NULL};
    bytes sql;
    if (!w->db) {
        return true;
    }
    bytes_init(&sql, NULL, 0);
    PGconn *c = PQconnectdb(w->db);
    PGresult *made = PQstatus(c) == CONNECTION_OK ? PQexec(c, demo_schema) : NULL;
    bool ok = PQresultStatus(made) == PGRES_COMMAND_OK;
    PQclear(made);
    for (int i = 0; i < 2 && ok; i++) {
        ok = demo_godwit(w, &sql, i == 0 ? install : track) == 0;
        PGresult *r = ok ? PQexec(c, sql.ptr) : NULL;
        ExecStatusType kind = PQresultStatus(r);
        ok = ok && (kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK);
        PQclear(r);
    }
    if (!ok) {
        (void)failed(w, "preparing the database", c);
    }
    bytes_deinit(&sql);
    PQfinish(c);
    return ok;
}
