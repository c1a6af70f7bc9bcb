/* What the demo does to databases: real SQL as an application would run it, the places of the
 * system's time-zone table, and digests over every value of every row. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/demo.h"
#include "core/id.h"
#include "core/sha256.h"
#include "godwit/godwit.h"

#define PLACES_PATH "/usr/share/zoneinfo/zone1970.tab"
#define FORM_EVERY  5
#define DEGREES_MAX 181

static bool sql_failed(demo_world *w, sqlite3 *connection, const char *doing) {
    snprintf(w->why, sizeof w->why, "%s: %s", doing,
             connection ? sqlite3_errmsg(connection) : "out of memory");
    return false;
}

/* The application's side: a handle of the library, whose connection runs plain SQL. */
static bool app_open(demo_world *w, int device, godwit **out) {
    godwit_status status = godwit_open(w->devices[device].path, NULL, out);
    if (status != GODWIT_OK) {
        snprintf(w->why, sizeof w->why, "%s: %s", w->devices[device].path,
                 godwit_status_text(status));
        return false;
    }
    sqlite3 *connection = godwit_connection(*out);
    return sqlite3_exec(connection, "PRAGMA foreign_keys = ON", NULL, NULL, NULL) == SQLITE_OK ||
           sql_failed(w, connection, "foreign_keys");
}

bool demo_app(demo_world *w, int device, int changes, const char *sql) {
    godwit *g = NULL;
    if (!app_open(w, device, &g)) {
        godwit_close(g);
        return false;
    }
    sqlite3 *connection = godwit_connection(g);
    bool ok = sqlite3_exec(connection, sql, NULL, NULL, NULL) == SQLITE_OK ||
              sql_failed(w, connection, w->devices[device].name);
    godwit_close(g);
    w->made += ok ? changes : 0;
    return ok;
}

/* ---- the time-zone table: "CH,DE,LI\t+4723+00832\tEurope/Zurich\tcomments" ---- */

/* +-DDMM, +-DDDMM, +-DDMMSS or +-DDDMMSS -> degrees. `digits`: of the degrees. */
static bool parse_angle(const char *text, size_t len, size_t digits, double *out) {
    int parts[3] = {0};
    size_t at = 1;
    if (len != 1 + digits + 2 && len != 1 + digits + 4) {
        return false;
    }
    for (size_t part = 0; at < len; part++) {
        size_t end = at + (part == 0 ? digits : 2);
        for (; at < end; at++) {
            if (text[at] < '0' || text[at] > '9') {
                return false;
            }
            parts[part] = parts[part] * 10 + (text[at] - '0');
        }
    }
    double degrees = parts[0] + parts[1] / 60.0 + parts[2] / 3600.0;
    *out = text[0] == '-' ? -degrees : degrees;
    return degrees < DEGREES_MAX;
}

typedef struct {
    char country[3];
    double lat, lng;
    char zone[64], title[64], comment[200];
} place;

static bool parse_place(char *line, place *out) {
    char *field[4] = {line, NULL, NULL, NULL};
    size_t count = 1;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *c = line; *c && count < COUNT_OF(field); c++) {
        if (*c == '\t') {
            *c = '\0';
            field[count++] = c + 1;
        }
    }
    if (count < 3 || strlen(field[0]) < 2 || strlen(field[2]) >= sizeof out->zone) {
        return false;
    }
    size_t lat_len = 1 + strcspn(field[1] + 1, "+-");
    const char *lng = field[1] + lat_len;
    const char *city = strrchr(field[2], '/');
    snprintf(out->country, sizeof out->country, "%.2s", field[0]);
    snprintf(out->zone, sizeof out->zone, "%s", field[2]);
    snprintf(out->title, sizeof out->title, "%s", city ? city + 1 : field[2]);
    snprintf(out->comment, sizeof out->comment, "%s", count > 3 ? field[3] : "");
    for (char *c = out->title; *c; c++) {
        *c = *c == '_' ? ' ' : *c;
    }
    return field[1][0] && parse_angle(field[1], lat_len, 2, &out->lat) &&
           parse_angle(lng, strlen(lng), 3, &out->lng);
}

static bool run(sqlite3_stmt *stmt) {
    bool ok = sqlite3_step(stmt) == SQLITE_DONE;
    sqlite3_reset(stmt);
    return ok;
}

static bool add_place(sqlite3_stmt *pin, sqlite3_stmt *form, const place *p, int number) {
    char id[80], form_id[80];
    snprintf(id, sizeof id, "tz-%s", p->zone);
    sqlite3_bind_text(pin, 1, id, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(pin, 2, p->title, -1, SQLITE_STATIC);
    sqlite3_bind_text(pin, 3, p->comment, -1, SQLITE_STATIC);
    sqlite3_bind_text(pin, 4, p->country, -1, SQLITE_STATIC);
    sqlite3_bind_double(pin, 5, p->lat);
    sqlite3_bind_double(pin, 6, p->lng);
    if (!run(pin)) {
        return false;
    }
    if (number % FORM_EVERY != 0) {
        return true;
    }
    snprintf(form_id, sizeof form_id, "form-%d", number);
    sqlite3_bind_text(form, 1, form_id, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(form, 2, id, -1, SQLITE_TRANSIENT);
    return run(form);
}

static int read_places(FILE *f, sqlite3_stmt *pin, sqlite3_stmt *form) {
    char line[512];
    int count = 0;
    while (fgets(line, sizeof line, f)) { /* comments and blank lines are no places */
        place p;
        if (line[0] != '#' && parse_place(line, &p)) {
            if (!add_place(pin, form, &p, count)) {
                return -1;
            }
            count++;
        }
    }
    return count;
}

int demo_import_places(demo_world *w, int device) {
    godwit *g = NULL;
    sqlite3_stmt *pin = NULL, *form = NULL;
    int count = -1;
    FILE *f = fopen(PLACES_PATH, "r");
    if (!f) {
        snprintf(w->why, sizeof w->why, PLACES_PATH " is missing: install the package tzdata");
        return -1;
    }
    if (app_open(w, device, &g)) {
        sqlite3 *connection = godwit_connection(g);
        if (sqlite3_prepare_v2(connection,
                               "INSERT INTO pins(id, title, description, country, lat, lng) "
                               "VALUES (?1, ?2, nullif(?3, ''), ?4, ?5, ?6)",
                               -1, &pin, NULL) == SQLITE_OK &&
            sqlite3_prepare_v2(connection,
                               "INSERT INTO forms(id, pin_id, kind, content) VALUES (?1, ?2, "
                               "'survey', NULL)",
                               -1, &form, NULL) == SQLITE_OK &&
            sqlite3_exec(connection, "BEGIN", NULL, NULL, NULL) == SQLITE_OK) {
            count = read_places(f, pin, form);
        }
        if (count < 0 || sqlite3_exec(connection, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
            (void)sql_failed(w, connection, "importing places");
            count = -1;
        }
        sqlite3_finalize(pin);
        sqlite3_finalize(form);
    }
    godwit_close(g);
    fclose(f);
    return count;
}

/* ---- looking ---- */

/* Opens read-only, as any SQLite program could. */
static sqlite3 *look(demo_world *w, const char *path) {
    sqlite3 *connection = NULL;
    if (sqlite3_open_v2(path, &connection, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) {
        (void)sql_failed(w, connection, path);
        sqlite3_close(connection);
        return NULL;
    }
    sqlite3_busy_timeout(connection, 5000);
    return connection;
}

void demo_file_text(demo_world *w, const char *path, const char *sql, char *out, size_t size) {
    sqlite3_stmt *stmt = NULL;
    sqlite3 *connection = look(w, path);
    out[0] = '\0';
    if (!connection) {
        return;
    }
    if (sqlite3_prepare_v2(connection, sql, -1, &stmt, NULL) != SQLITE_OK) {
        (void)sql_failed(w, connection, sql);
    } else if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        snprintf(out, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    }
    sqlite3_finalize(stmt);
    sqlite3_close(connection);
}

int64_t demo_device_int(demo_world *w, int device, const char *sql) {
    char text[64];
    demo_file_text(w, w->devices[device].path, sql, text, sizeof text);
    return text[0] ? strtoll(text, NULL, 10) : -1;
}

void demo_device_text(demo_world *w, int device, const char *sql, char *out, size_t size) {
    demo_file_text(w, w->devices[device].path, sql, out, size);
}

void demo_digest_value(sha256 *hash, int type, const void *data, int len) {
    sha256_update(hash, &type, sizeof type);
    sha256_update(hash, &len, sizeof len);
    sha256_update(hash, data ? data : "", (size_t)len);
}

static bool add_rows(sqlite3 *connection, const char *sql, sha256 *hash, int64_t *rows) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(connection, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(stmt);
        for (int i = 0; rc == SQLITE_ROW && i < sqlite3_column_count(stmt); i++) {
            int type = sqlite3_column_type(stmt, i);
            double real = sqlite3_column_double(stmt, i);
            const void *text = type == SQLITE_FLOAT ? (const void *)&real
                                                    : (const void *)sqlite3_column_text(stmt, i);
            int len = type == SQLITE_FLOAT ? (int)sizeof real : sqlite3_column_bytes(stmt, i);
            demo_digest_value(hash, type, text, len);
        }
        *rows += rc == SQLITE_ROW;
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE;
}

bool demo_file_replica(demo_world *w, const char *path, demo_replica *out) {
    uint8_t digest[SHA256_BYTES];
    sha256 hash;
    sqlite3 *connection = look(w, path);
    *out = (demo_replica){0};
    if (!connection) {
        return false;
    }
    sha256_init(&hash);
    bool ok = (add_rows(connection, DEMO_PINS, &hash, &out->pins) &&
               add_rows(connection, DEMO_FORMS, &hash, &out->forms)) ||
              sql_failed(w, connection, path);
    sha256_final(&hash, digest);
    id_hex_encode(digest, 8, out->digest);
    sqlite3_close(connection);
    return ok;
}
