/* Copies of a whole database. See copy.h.
 *
 * SQLite's backup starts again from the beginning when another process has written; a read
 * transaction that is open before its first step makes it keep to the state it began with, however
 * much is written meanwhile. */
#include "db/copy.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_PAGES 512

static godwit_status copy_pages(db *to, sqlite3_backup *backup, db_copy_progress *progress,
                                void *context) {
    int rc;
    do {
        rc = sqlite3_backup_step(backup, STEP_PAGES);
        if (progress && (rc == SQLITE_OK || rc == SQLITE_DONE)) {
            int64_t total = sqlite3_backup_pagecount(backup);
            progress(context, total - sqlite3_backup_remaining(backup), total);
        }
    } while (rc == SQLITE_OK);
    return db_status(to, rc);
}

godwit_status db_copy(db *from, db *to, db_copy_progress *progress, void *context) {
    int64_t ignored = 0;
    godwit_status status = db_begin_read(from);
    if (status == GODWIT_OK) {
        status = db_int(from, &ignored, "SELECT count(*) FROM sqlite_schema", "");
        if (status == GODWIT_OK) {
            sqlite3_backup *backup = sqlite3_backup_init(to->handle, "main", from->handle, "main");
            status = backup ? copy_pages(to, backup, progress, context)
                            : db_status(to, sqlite3_errcode(to->handle));
            int rc = sqlite3_backup_finish(backup); /* NULL is fine */
            status = status == GODWIT_OK ? db_status(to, rc) : status;
            db_rollback(from);
            return status;
        }
        db_rollback(from);
    }
    memcpy(to->message, from->message, sizeof to->message);
    return status;
}

/* quick_check writes down what it could not read like damage: "unable to get the page. error
 * code=266".
 */
static int code_in(const char *finding) {
    const char *at = strstr(finding, "error code");
    return at ? (int)strtol(at + strcspn(at, "0123456789"), NULL, 10) : 0;
}

godwit_status db_check(db *d) {
    slice found = {0};
    arena a;
    arena_init(&a, NULL, 0);
    godwit_status status = db_text(d, &a, &found, "PRAGMA quick_check(1)", "");
    if (status == GODWIT_OK && !slice_is(found, "ok")) {
        status = db_status(d, code_in(found.ptr));
        status = status == GODWIT_OK ? GODWIT_CORRUPT : status;
        snprintf(d->message, sizeof d->message, SLICE_FMT, SLICE_ARG(found));
    }
    arena_deinit(&a);
    return status == GODWIT_INVALID ? GODWIT_OK : status;
}

godwit_status db_alone(const char *path, char message[256]) {
    db d;
    message[0] = '\0';
    godwit_status status = db_open(&d, path, SQLITE_OPEN_READWRITE, 0);
    if (status != GODWIT_OK) {
        snprintf(message, 256, "%s", d.message);
        /* no file, or none that can be opened by anybody */
        return status == GODWIT_IO ? GODWIT_OK : status;
    }
    /* with exclusive locking a log is taken over only when no other connection is there; the last
     * connection that closes moves it into the file */
    status = db_exec(&d, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;");
    snprintf(message, 256, "%s", status == GODWIT_OK ? "" : d.message);
    db_close(&d);
    return status;
}
