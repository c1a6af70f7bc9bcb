/* The group marker (semantics 5.2): learns which captured changes were committed together, without
 * taking one of the connection's hook slots.
 *
 *   capture trigger: DELETE FROM godwit_hook WHERE 0          never deletes anything, but compiling
 * it
 *     -> TEMP trigger: INSERT INTO godwit_marker ..           includes a write to the virtual
 * table, so
 *       -> xBegin   notes max(lsn)                            SQLite opens a transaction on it
 *          xSync    writes godwit_group(first, last) when two or more were captured, at COMMIT
 *
 * The module is eponymous: nothing is created in the database. xSync may run twice (COMMIT refused
 * with BUSY and tried again) and writes the same row each time; what is noted in xBegin is not
 * touched by a rollback to a savepoint. A marker another copy of this code registered on the
 * connection is used as it is. Reading the table gives `first` while a transaction has captured
 * something. */
#include <stdio.h>
#include <stdlib.h>

#include "client/group.h"

#define MARKER_TRIGGER "godwit_group_marker"

typedef struct {
    sqlite3_vtab base;
    sqlite3 *handle;
    sqlite3_stmt *newest, *write; /* touch only ordinary tables, so that they pin nothing */
    sqlite3_int64 before;         /* max(lsn) when the transaction began to capture */
    int open;
} marker;

static int marker_connect(sqlite3 *handle, void *aux, int argc, const char *const *argv,
                          sqlite3_vtab **out, char **error) {
    (void)aux;
    (void)argc;
    (void)argv;
    (void)error;
    int rc = sqlite3_declare_vtab(handle, "CREATE TABLE x(first INTEGER)");
    if (rc != SQLITE_OK) {
        return rc;
    }
    marker *m = sqlite3_malloc((int)sizeof *m);
    if (!m) {
        return SQLITE_NOMEM;
    }
    memset(m, 0, sizeof *m);
    m->handle = handle;
    (void)sqlite3_vtab_config(handle, SQLITE_VTAB_INNOCUOUS);
    *out = &m->base;
    return SQLITE_OK;
}

static int marker_disconnect(sqlite3_vtab *base) {
    marker *m = (marker *)base;
    sqlite3_finalize(m->newest);
    sqlite3_finalize(m->write);
    sqlite3_free(m);
    return SQLITE_OK;
}

static int marker_newest(marker *m, sqlite3_int64 *out) {
    int rc = SQLITE_OK;
    *out = 0;
    if (!m->newest) {
        rc = sqlite3_prepare_v3(m->handle, "SELECT max(lsn) FROM main.godwit_log", -1,
                                SQLITE_PREPARE_PERSISTENT, &m->newest, NULL);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(m->newest);
        if (rc == SQLITE_ROW) {
            *out = sqlite3_column_int64(m->newest, 0);
        }
        rc = sqlite3_reset(m->newest);
    }
    return rc;
}

static int marker_begin(sqlite3_vtab *base) {
    marker *m = (marker *)base;
    int rc = marker_newest(m, &m->before);
    m->open = rc == SQLITE_OK;
    return rc;
}

static int marker_sync(sqlite3_vtab *base) {
    marker *m = (marker *)base;
    sqlite3_int64 last = 0;
    int rc = m->open ? marker_newest(m, &last) : SQLITE_OK;
    if (rc != SQLITE_OK || !m->open || last < m->before + 2) {
        return rc;
    }
    if (!m->write) {
        rc = sqlite3_prepare_v3(m->handle,
                                "INSERT OR REPLACE INTO main.godwit_group(first, last)"
                                " VALUES (?1, ?2)",
                                -1, SQLITE_PREPARE_PERSISTENT, &m->write, NULL);
    }
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(m->write, 1, m->before + 1);
        (void)sqlite3_bind_int64(m->write, 2, last);
        (void)sqlite3_step(m->write);
        rc = sqlite3_reset(m->write);
    }
    return rc;
}

static int marker_end(sqlite3_vtab *base) {
    ((marker *)base)->open = 0;
    return SQLITE_OK;
}

/* Never called: the statement that names it deletes nothing. */
static int marker_update(sqlite3_vtab *base, int argc, sqlite3_value **argv, sqlite3_int64 *rowid) {
    (void)base;
    (void)argc;
    (void)argv;
    *rowid = 1;
    return SQLITE_OK;
}

/* ---- Reading ---- */

typedef struct {
    sqlite3_vtab_cursor base;
    int at_end;
} marker_cursor;

static int marker_best_index(sqlite3_vtab *base, sqlite3_index_info *info) {
    (void)base;
    info->estimatedCost = 1;
    return SQLITE_OK;
}

static int marker_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out) {
    (void)base;
    marker_cursor *c = sqlite3_malloc((int)sizeof *c);
    if (!c) {
        return SQLITE_NOMEM;
    }
    memset(c, 0, sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static int marker_close(sqlite3_vtab_cursor *base) {
    sqlite3_free(base);
    return SQLITE_OK;
}

static int marker_filter(sqlite3_vtab_cursor *base, int number, const char *text, int argc,
                         sqlite3_value **argv) {
    (void)number;
    (void)text;
    (void)argc;
    (void)argv;
    ((marker_cursor *)base)->at_end = !((marker *)base->pVtab)->open;
    return SQLITE_OK;
}

static int marker_next(sqlite3_vtab_cursor *base) {
    ((marker_cursor *)base)->at_end = 1;
    return SQLITE_OK;
}

static int marker_eof(sqlite3_vtab_cursor *base) {
    return ((marker_cursor *)base)->at_end;
}

static int marker_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column) {
    (void)column;
    sqlite3_result_int64(context, ((marker *)base->pVtab)->before + 1);
    return SQLITE_OK;
}

static int marker_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *rowid) {
    (void)base;
    *rowid = 1;
    return SQLITE_OK;
}

static const sqlite3_module marker_module = {
    .iVersion = 0,
    .xConnect = marker_connect,
    .xBestIndex = marker_best_index,
    .xDisconnect = marker_disconnect,
    .xOpen = marker_open,
    .xClose = marker_close,
    .xFilter = marker_filter,
    .xNext = marker_next,
    .xEof = marker_eof,
    .xColumn = marker_column,
    .xRowid = marker_rowid,
    .xUpdate = marker_update,
    .xBegin = marker_begin,
    .xSync = marker_sync,
    .xCommit = marker_end,
    .xRollback = marker_end,
};

/* ---- Putting it in place ---- */

static bool compiles(sqlite3 *handle, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL);
    sqlite3_finalize(stmt);
    return rc == SQLITE_OK;
}

static bool marker_present(sqlite3 *handle) {
    sqlite3_stmt *stmt = NULL;
    bool present = false;
    if (sqlite3_prepare_v2(handle,
                           "SELECT 1 FROM temp.sqlite_schema WHERE type = 'trigger' AND"
                           " name = '" MARKER_TRIGGER "'",
                           -1, &stmt, NULL) == SQLITE_OK) {
        present = sqlite3_step(stmt) == SQLITE_ROW;
    }
    sqlite3_finalize(stmt);
    return present;
}

static sqlite3_int64 number(sqlite3 *handle, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    sqlite3_int64 n = -1;
    if (sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW) {
        n = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return n;
}

/* A statement with triggers keeps a journal of its own. Once one has changed 16 pages it is a file
 * for the rest of the transaction, unless temporary data stays in memory. Where the application has
 * chosen, or has made something temporary, which a change would drop, nothing is changed. */
static void keep_journals_in_memory(sqlite3 *handle) {
    if (sqlite3_get_autocommit(handle) && number(handle, "PRAGMA temp_store") == 0 &&
        number(handle, "SELECT count(*) FROM temp.sqlite_schema") == 0) {
        (void)sqlite3_exec(handle, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL);
    }
}

int group_place(sqlite3 *handle) {
    if (marker_present(handle)) {
        return SQLITE_OK;
    }
    keep_journals_in_memory(handle);
    if (!compiles(handle, "SELECT first FROM godwit_marker")) {
        int rc = sqlite3_create_module_v2(handle, "godwit_marker", &marker_module, NULL, NULL);
        if (rc != SQLITE_OK) {
            return rc;
        }
    }
    return sqlite3_exec(handle,
                        "CREATE TEMP TRIGGER IF NOT EXISTS " MARKER_TRIGGER
                        " AFTER DELETE ON main.godwit_hook"
                        " BEGIN INSERT INTO godwit_marker(first) VALUES (0); END",
                        NULL, NULL, NULL);
}

godwit_status group_ensure(godwit *g) {
    return db_status(&g->db, group_place(g->db.handle));
}

godwit_status group_current(godwit *g, int64_t *first) {
    sqlite3_stmt *stmt =
        NULL; /* never cached: it touches the marker and would pin the connection */
    *first = 0;
    int rc = sqlite3_prepare_v2(g->db.handle, "SELECT first FROM godwit_marker", -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        *first = rc == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
    }
    sqlite3_finalize(stmt);
    return db_status(&g->db, rc);
}
