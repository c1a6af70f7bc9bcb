/* Statements of the checker, kept until their connection is closed: it asks the same few questions
 * after every call, and compiling them was a fifth of a seed. See query.h. */
#include "sim/query.h"

#include <stdlib.h>
#include <string.h>

#define KEPT 256

static struct {
    sqlite3 *db;
    sqlite3_stmt *stmt;
    bool busy;
} kept[KEPT];

static unsigned place_of(const sqlite3 *db, const char *sql) {
    uint64_t h = (uint64_t)(uintptr_t)db / 64;
    for (; *sql; sql++) {
        h = (h ^ (unsigned char)*sql) * UINT64_C(1099511628211);
    }
    return (unsigned)(h >> 32) % KEPT;
}

sqlite3_stmt *query(sqlite3 *db, const char *sql) {
    unsigned at = place_of(db, sql);
    if (kept[at].stmt && !kept[at].busy && kept[at].db == db &&
        strcmp(sqlite3_sql(kept[at].stmt), sql) == 0) {
        kept[at].busy = true;
        return kept[at].stmt;
    }
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fprintf(stderr, "sim: %s: %s\n", sql, sqlite3_errmsg(db));
        abort();
    }
    if (!kept[at].busy) {
        sqlite3_finalize(kept[at].stmt);
        kept[at].db = db;
        kept[at].stmt = stmt;
        kept[at].busy = true;
    }
    return stmt;
}

void query_done(sqlite3_stmt *stmt) {
    for (unsigned i = 0; i < KEPT; i++) {
        if (kept[i].stmt == stmt) {
            sqlite3_reset(stmt);
            kept[i].busy = false;
            return;
        }
    }
    sqlite3_finalize(stmt);
}

void query_forget(const sqlite3 *db) {
    for (unsigned i = 0; i < KEPT; i++) {
        if (kept[i].db == db) {
            sqlite3_finalize(kept[i].stmt);
            kept[i].db = NULL;
            kept[i].stmt = NULL;
            kept[i].busy = false;
        }
    }
}
