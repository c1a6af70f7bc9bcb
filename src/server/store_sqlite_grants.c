/* What the SQLite store knows of rights: the operator's query about a user's scopes, on a reading
 * connection: it can't write, and is interrupted when it takes too long. */
#include "server/store_sqlite.h"

#include <stdio.h>
#include <time.h>

#define STEPS_BETWEEN_LOOKS 1000

static int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int too_late(void *context) {
    return now_ms() > *(const int64_t *)context;
}

static godwit_status bind(db *d, sqlite3_stmt *stmt, const char *name, slice text) {
    int index = sqlite3_bind_parameter_index(stmt, name);
    return index ? db_bind_slice(d, stmt, index, text) : GODWIT_OK;
}

static godwit_status read_rows(db *d, sqlite3_stmt *stmt, arena *a, store_grants *out) {
    bool row = true;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        bool write = sqlite3_column_count(stmt) < 2 || sqlite3_column_int(stmt, 1) != 0;
        status = store_grant_add(a, db_column_slice(stmt, 0), write, out);
    }
    return status;
}

godwit_status sqlite_grants(db *d, arena *a, const char *sql, slice sub, slice claims,
                            store_grants *out) {
    const char *text = arena_printf(a, "SELECT * FROM (%s) LIMIT %d", sql, SCOPES_MAX + 1);
    int64_t until_ms = now_ms() + SCOPES_SQL_MS;
    sqlite3_stmt *stmt = NULL;
    *out = (store_grants){0};
    if (!text) {
        return GODWIT_NOMEM;
    }
    int rc = sqlite3_prepare_v2(d->handle, text, -1, &stmt, NULL);
    godwit_status status = rc == SQLITE_OK ? GODWIT_OK : db_status(d, rc);
    if (status == GODWIT_OK && !sqlite3_stmt_readonly(stmt)) {
        status = GODWIT_INVALID;
    }
    if (status == GODWIT_OK) {
        status = bind(d, stmt, ":sub", sub);
    }
    if (status == GODWIT_OK) {
        status = bind(d, stmt, ":claims", claims);
    }
    sqlite3_progress_handler(d->handle, STEPS_BETWEEN_LOOKS, too_late, &until_ms);
    if (status == GODWIT_OK) {
        status = read_rows(d, stmt, a, out);
    }
    sqlite3_progress_handler(d->handle, 0, NULL, NULL);
    sqlite3_finalize(stmt);
    return status;
}

/* ---- roles: there are none ---- */

void lite_write_as(store *st, const store_role *role) {
    (void)st;
    ASSERT(role->name.len == 0);
}

void lite_read_as(store_reader *r, const store_role *role) {
    (void)r;
    ASSERT(role->name.len == 0);
}

godwit_status lite_roles_check(store *st, const slice *roles, size_t count, char *message) {
    (void)st;
    (void)roles;
    (void)count;
    snprintf(message, 512, "rls_roles: the SQLite store has no roles; it needs a db");
    return GODWIT_UNSUPPORTED;
}
