/* What tests of one process with both sides say all the time: run this SQL, read this number, this
 * call must succeed. A failure ends the test. */
#ifndef TESTS_LOOPBACK_KIT_H
#define TESTS_LOOPBACK_KIT_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "db/sqlite.h"
#include "godwit/godwit.h"

static inline void run(godwit *g, const char *sql) {
    char *message = NULL;
    if (sqlite3_exec(godwit_connection(g), sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
}

static inline int64_t number(godwit *g, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(godwit_connection(g), sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(godwit_connection(g)));
    }
    int64_t found = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return found;
}

static inline void must(godwit *g, godwit_status status, const char *what) {
    if (status != GODWIT_OK) {
        fail_msg("%s: %s: %s", what, godwit_status_name(status), godwit_message(g));
    }
}

#endif
