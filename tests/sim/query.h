/* Reading a database in a few words, for the checker. A failing query ends the process: the checker
 * reads while faults are off. */
#ifndef TESTS_SIM_QUERY_H
#define TESTS_SIM_QUERY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "db/sqlite.h"

/* A statement, bound anew by the caller each time; query_done gives it back. One process has one
 * thread. */
sqlite3_stmt *query(sqlite3 *db, const char *sql);
void query_done(sqlite3_stmt *stmt);
/* Before `db` is closed. */
void query_forget(const sqlite3 *db);

static inline bool query_next(sqlite3_stmt *stmt) {
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        fprintf(stderr, "sim: %s: %s\n", sqlite3_sql(stmt),
                sqlite3_errmsg(sqlite3_db_handle(stmt)));
        abort();
    }
    return rc == SQLITE_ROW;
}

static inline const char *query_text(sqlite3_stmt *stmt, int column) {
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    return text ? text : "";
}

static inline int64_t query_int(sqlite3 *db, const char *sql) {
    sqlite3_stmt *stmt = query(db, sql);
    int64_t value = query_next(stmt) ? sqlite3_column_int64(stmt, 0) : -1;
    query_done(stmt);
    return value;
}

#endif
