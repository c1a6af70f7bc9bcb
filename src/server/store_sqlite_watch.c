/* Looking after the store: free space, whether it can be written to, what devices report. */
#include "server/store_sqlite.h"

#include <sys/statvfs.h>

/* Less is a full disk: the log of SQLite needs room to be moved into the file. */
#define LOW_BYTES (4ll << 20)

static godwit_status check_space(const store *st) {
    struct statvfs disk;
    if (statvfs(st->path, &disk) != 0) {
        return GODWIT_IO;
    }
    return (int64_t)disk.f_bavail * (int64_t)disk.f_frsize < LOW_BYTES ? GODWIT_FULL : GODWIT_OK;
}

godwit_status lite_probe(store *st, bool write) {
    godwit_status status = check_space(st);
    if (status != GODWIT_OK || !write) {
        return status;
    }
    ASSERT(st->d.depth == 0);
    status = db_begin(&st->d);
    if (status != GODWIT_OK) {
        return status;
    }
    status = db_exec(&st->d, "INSERT OR REPLACE INTO godwit_meta(k, v) VALUES ('probe', 1)");
    if (status == GODWIT_OK) {
        status = db_commit(&st->d);
    }
    if (status != GODWIT_OK) {
        db_rollback(&st->d);
    }
    return status;
}

godwit_status lite_device_reports(store *st, arena *a, slice after_scope, slice after_device,
                                  store_device_report *out, size_t max, size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    *count = 0;
    godwit_status status = db_prepare(
        &st->d,
        "SELECT scope, device_id, report, coalesce(last_seen, registered_at) FROM godwit_device"
        " WHERE (scope, device_id) > (?1, ?2) AND state <> 'revoked' ORDER BY scope, device_id"
        " LIMIT ?3",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&st->d, stmt, 1, after_scope.len ? after_scope : SLICE(""));
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(&st->d, stmt, 2, after_device.len ? after_device : SLICE(""));
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 3, (int64_t)max);
    }
    while (status == GODWIT_OK && row && *count < max) {
        status = db_step(&st->d, stmt, &row);
        if (status == GODWIT_OK && row) {
            out[(*count)++] = (store_device_report){.scope = copied(a, stmt, 0),
                                                    .device_id = copied(a, stmt, 1),
                                                    .report = copied(a, stmt, 2),
                                                    .last_seen_ms = sqlite3_column_int64(stmt, 3)};
            status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
        }
    }
    db_done(&st->d, stmt);
    return status;
}

/* ---- writes from elsewhere: this store notes none ---- */

godwit_status lite_rows_known(store *st, decide_context *c, decide_row *const *rows, size_t count) {
    return lite_rows_load(st, c, rows, count, false);
}

godwit_status lite_outbox_any(store *st, bool *any) {
    (void)st;
    *any = false;
    return GODWIT_UNSUPPORTED;
}

godwit_status lite_outbox_take(store *st, arena *a, size_t max, store_fact **out, size_t *count) {
    (void)st;
    (void)a;
    (void)max;
    *out = NULL;
    *count = 0;
    return GODWIT_OK;
}

godwit_status lite_outbox_done(store *st, const store_fact *facts, size_t count) {
    (void)st;
    (void)facts;
    (void)count;
    return GODWIT_OK;
}

godwit_status lite_outbox_again(store *st) {
    (void)st;
    return GODWIT_OK;
}

/* ---- word of other servers: a folder has one ---- */

godwit_status lite_signal_open(store *st, store_signal **out) {
    (void)st;
    *out = NULL;
    return GODWIT_UNSUPPORTED;
}

void lite_signal_close(store_signal *g) {
    (void)g;
}

godwit_status lite_signal_send(store_signal *g, const slice *scopes, size_t count) {
    (void)g;
    (void)scopes;
    (void)count;
    return GODWIT_UNSUPPORTED;
}

godwit_status lite_signal_heads(store_signal *g, const slice *scopes, int64_t *heads, bool *moved,
                                size_t count) {
    (void)g;
    (void)scopes;
    (void)heads;
    (void)moved;
    (void)count;
    return GODWIT_UNSUPPORTED;
}

godwit_status lite_signal_wait(store_signal *g, int wake_fd, int64_t timeout_ms,
                               store_heard_fn heard, void *context) {
    (void)g;
    (void)wake_fd;
    (void)timeout_ms;
    (void)heard;
    (void)context;
    return GODWIT_UNSUPPORTED;
}
