/* Devices as operators see them, the states they give them, and the store's own id. What a push
 * needs of a device is in store_sqlite.c. */
#include "server/store_sqlite.h"

static godwit_status read_row(sqlite3_stmt *stmt, arena *a, store_device_row *out) {
    *out = (store_device_row){.scope = copied(a, stmt, 0),
                              .device_id = copied(a, stmt, 1),
                              .user_id = copied(a, stmt, 2),
                              .label = copied(a, stmt, 3),
                              .state = store_device_state_of(db_column_slice(stmt, 4)),
                              .registered_ms = sqlite3_column_int64(stmt, 5),
                              .last_seen_ms = sqlite3_column_int64(stmt, 6),
                              .applied_seq = sqlite3_column_int64(stmt, 7),
                              .pulled_seq = sqlite3_column_int64(stmt, 8)};
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status lite_devices(store *st, arena *a, slice scope, store_device_row **out,
                           size_t *count) {
    db *d = &st->d;
    sqlite3_stmt *stmt = NULL;
    int64_t total = 0;
    bool row = true;
    slice wanted = scope.len ? scope : (slice){0};
    *out = NULL;
    *count = 0;
    godwit_status status = db_begin_read(d);
    if (status != GODWIT_OK) {
        return status;
    }
    status = db_int(d, &total, "SELECT count(*) FROM godwit_device WHERE ?1 IS NULL OR scope = ?1",
                    "s", wanted);
    if (status == GODWIT_OK) {
        *out = ARENA_ARRAY(a, store_device_row, (size_t)total + 1);
        status = *out ? db_prepare(d,
                                   "SELECT scope, device_id, user_id, label, state, registered_at,"
                                   " last_seen, applied_seq, pulled_seq FROM godwit_device WHERE"
                                   " ?1 IS NULL OR scope = ?1 ORDER BY scope, device_id",
                                   &stmt)
                      : GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, wanted);
    }
    while (status == GODWIT_OK && row && *count < (size_t)total) {
        status = db_step(d, stmt, &row);
        if (status == GODWIT_OK && row) {
            status = read_row(stmt, a, &(*out)[(*count)++]);
        }
    }
    db_done(d, stmt);
    db_rollback(d);
    return status;
}

godwit_status lite_device_seen(store *st, slice scope, slice device_id, int64_t pulled_seq,
                               int64_t confirmed_seq, int64_t now_ms, slice report) {
    return db_run(
        &st->d,
        "UPDATE godwit_device SET last_seen = max(?5, coalesce(last_seen, 0)), pulled_seq ="
        " max(pulled_seq, ?3), pulled_at = CASE WHEN ?3 >= 0 THEN ?5 ELSE pulled_at END,"
        " confirmed_seq = max(confirmed_seq, min(?4, applied_seq)), report = coalesce(?6, report)"
        " WHERE scope = ?1 AND device_id = ?2 AND state = 'active'",
        "ssiiis", scope, device_id, pulled_seq, confirmed_seq, now_ms,
        report.len ? report : (slice){0});
}

godwit_status lite_device_mark(store *st, slice scope, slice device_id, device_state state,
                               int64_t *changed) {
    int64_t found = 0;
    slice wanted = scope.len ? scope : (slice){0};
    *changed = 0;
    godwit_status status = db_int(&st->d, &found,
                                  "SELECT count(*) FROM godwit_device WHERE device_id = ?2 AND"
                                  " (?1 IS NULL OR scope = ?1)",
                                  "ss", wanted, device_id);
    if (status == GODWIT_OK && found == 0) {
        return GODWIT_NOT_FOUND;
    }
    if (status == GODWIT_OK) {
        status = db_run(&st->d,
                        "UPDATE godwit_device SET state = ?3 WHERE device_id = ?2 AND (?1 IS NULL"
                        " OR scope = ?1) AND state <> ?3",
                        "sss", wanted, device_id, slice_of(store_device_state_name(state)));
    }
    if (status == GODWIT_OK) {
        *changed = sqlite3_changes(st->d.handle);
    }
    return status;
}

godwit_status lite_id(store *st, char out[33]) {
    uint8_t noise[16];
    char fresh[33];
    slice text = {0};
    arena a;
    arena_init(&a, NULL, 0);
    sqlite3_randomness(sizeof noise, noise);
    id_hex_encode(noise, sizeof noise, fresh);
    godwit_status status =
        db_run(&st->d, "INSERT OR IGNORE INTO godwit_meta(k, v) VALUES ('store_id', ?1)", "s",
               slice_of(fresh));
    if (status == GODWIT_OK) {
        status = db_text(&st->d, &a, &text, "SELECT v FROM godwit_meta WHERE k = 'store_id'", "");
    }
    if (status == GODWIT_OK && text.len != 32) {
        status = GODWIT_CORRUPT;
    }
    if (status == GODWIT_OK) {
        memcpy(out, text.ptr, 32);
    }
    out[status == GODWIT_OK ? 32 : 0] = '\0';
    arena_deinit(&a);
    return status;
}
