/* Durability of the connection that captures (architecture, Durability): a change the application
 * was told is saved must survive power loss.
 *
 * Accepted: WAL with FULL or EXTRA; a rollback journal with EXTRA; a database without a file.
 * Anything else is raised to WAL + FULL, or, where WAL is not to be had, to a rollback journal with
 * EXTRA. recursive_triggers and every other setting are left alone. */
#include <stdio.h>

#include "client/client.h"

#define SYNC_FULL  2
#define SYNC_EXTRA 3

typedef struct {
    char journal[16];
    int64_t sync;
} settings;

static godwit_status read_settings(godwit *g, settings *out) {
    slice journal = {0};
    arena a;
    arena_init(&a, g->allocator, 0);
    int64_t ignored = 0;
    /* a read makes the connection notice what others did to the file's journal mode */
    godwit_status status = db_int(&g->db, &ignored, "SELECT count(*) FROM main.sqlite_schema", "");
    if (status == GODWIT_OK) {
        status = db_text(&g->db, &a, &journal, "PRAGMA main.journal_mode", "");
    }
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &out->sync, "PRAGMA main.synchronous", "");
    }
    snprintf(out->journal, sizeof out->journal, SLICE_FMT, SLICE_ARG(journal));
    arena_deinit(&a);
    return status;
}

static bool is_rollback_journal(const settings *s) {
    return strcmp(s->journal, "delete") == 0 || strcmp(s->journal, "truncate") == 0 ||
           strcmp(s->journal, "persist") == 0;
}

static bool is_durable(const settings *s) {
    return (strcmp(s->journal, "wal") == 0 && s->sync >= SYNC_FULL) ||
           (is_rollback_journal(s) && s->sync >= SYNC_EXTRA);
}

/* The journal mode can't be changed while a statement runs, which is always so for a call from SQL:
 * a second connection can, and the first one follows at its next read. */
static void set_wal_beside(godwit *g, const char *path) {
    sqlite3 *other = NULL;
    char *vfs = NULL;
    (void)sqlite3_file_control(g->db.handle, "main", SQLITE_FCNTL_VFSNAME, &vfs);
    /* a stack of VFSs is named "outer/inner": only a plain name can be asked for */
    if (vfs && strchr(vfs, '/')) {
        sqlite3_free(vfs);
        return;
    }
    int rc = sqlite3_open_v2(path, &other, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, vfs);
    if (rc == SQLITE_OK) {
        (void)sqlite3_busy_timeout(other, 1000);
        (void)sqlite3_exec(other, "PRAGMA journal_mode=WAL; SELECT count(*) FROM sqlite_schema",
                           NULL, NULL, NULL);
    }
    (void)sqlite3_close(other);
    sqlite3_free(vfs);
}

static godwit_status raise(godwit *g, const char *path, settings *s) {
    godwit_status status = GODWIT_OK;
    if (strcmp(s->journal, "wal") != 0) {
        status = db_exec(&g->db, "PRAGMA main.journal_mode=WAL");
        if (status != GODWIT_OK) {
            db_forget(&g->db);
            set_wal_beside(g, path);
        }
        status = read_settings(g, s);
    }
    if (status == GODWIT_OK && strcmp(s->journal, "wal") == 0 && s->sync < SYNC_FULL) {
        status = db_exec(&g->db, "PRAGMA main.synchronous=FULL");
    } else if (status == GODWIT_OK && is_rollback_journal(s) && s->sync < SYNC_EXTRA) {
        status = db_exec(&g->db, "PRAGMA main.synchronous=EXTRA");
    }
    return status == GODWIT_OK ? read_settings(g, s) : status;
}

godwit_status durable_check(godwit *g) {
    settings now = {{0}, 0};
    const char *path = sqlite3_db_filename(g->db.handle, "main");
    if (!path || !*path) {
        client_log(g, GODWIT_LOG_INFO, "durability=none reason=\"the database has no file\"");
        return GODWIT_OK;
    }
    godwit_status status = read_settings(g, &now);
    if (status != GODWIT_OK || is_durable(&now)) {
        return status;
    }
    if (g->options.accept_weak_durability) {
        client_log(g, GODWIT_LOG_WARN, "durability=weak journal_mode=%s synchronous=%d",
                   now.journal, (int)now.sync);
        return GODWIT_OK;
    }
    if (sqlite3_get_autocommit(g->db.handle)) {
        status = raise(g, path, &now);
    }
    if (status == GODWIT_OK && !is_durable(&now)) {
        status =
            client_fail(g, GODWIT_NOT_DURABLE,
                        "journal_mode=%s with synchronous=%d would lose changes in a power cut;"
                        " set WAL and FULL%s",
                        now.journal, (int)now.sync,
                        sqlite3_get_autocommit(g->db.handle) ? "" : " before the transaction");
    }
    return status;
}
