/* Looking: metrics, the doctor, and vector clocks for people. */
#include <stdio.h>

#include "client/track.h"

godwit_status godwit_get_metrics(godwit *g, godwit_metrics *out) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    if (!out) {
        return GODWIT_MISUSE;
    }
    memset(out, 0, sizeof *out);
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = db_prepare(&g->db,
                        "SELECT queue_length, pending_operations, failed_operations,"
                        " conflicts_detected, last_successful_sync_ms, oldest_pending_age_ms,"
                        " feed_lag, coalesce(avg_sync_latency_ms, -1), coalesce(ack_round_trip_ms,"
                        " -1), conflicts_open, retries, failures FROM godwit_metrics",
                        &stmt);
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *out = (godwit_metrics){.queue_length = sqlite3_column_int64(stmt, 0),
                                .pending_operations = sqlite3_column_int64(stmt, 1),
                                .failed_operations = sqlite3_column_int64(stmt, 2),
                                .conflicts_detected = sqlite3_column_int64(stmt, 3),
                                .last_successful_sync_ms = sqlite3_column_int64(stmt, 4),
                                .oldest_pending_age_ms = sqlite3_column_int64(stmt, 5),
                                .feed_lag = sqlite3_column_int64(stmt, 6),
                                .avg_sync_latency_ms = sqlite3_column_int64(stmt, 7),
                                .ack_round_trip_ms = sqlite3_column_int64(stmt, 8),
                                .conflicts_open = sqlite3_column_int64(stmt, 9),
                                .retries = sqlite3_column_int64(stmt, 10),
                                .failures = sqlite3_column_int64(stmt, 11)};
    }
    db_done(&g->db, stmt);
    return client_leave(g, status);
}

/* ---- Vector clocks ---- */

godwit_status godwit_clock_compare(const char *a, const char *b, const char **order) {
    arena memory;
    vclock x = {0};
    vclock y = {0};
    if (!order) {
        return GODWIT_MISUSE;
    }
    *order = NULL;
    arena_init(&memory, NULL, 0);
    godwit_status status = clock_parse(&memory, slice_of(a), &x);
    if (status == GODWIT_OK) {
        status = clock_parse(&memory, slice_of(b), &y);
    }
    if (status == GODWIT_OK) {
        *order = clock_order_name(clock_compare(&x, &y, NULL, NULL));
    }
    arena_deinit(&memory);
    return status;
}

godwit_status godwit_clock_merge(const char *a, const char *b, char **merged) {
    arena memory;
    vclock x = {0};
    vclock y = {0};
    bytes text;
    if (!merged) {
        return GODWIT_MISUSE;
    }
    *merged = NULL;
    arena_init(&memory, NULL, 0);
    bytes_init(&text, NULL, 0);
    godwit_status status = clock_parse(&memory, slice_of(a), &x);
    if (status == GODWIT_OK) {
        status = clock_parse(&memory, slice_of(b), &y);
    }
    if (status == GODWIT_OK) {
        status = clock_merge(&memory, &x, &y);
    }
    if (status == GODWIT_OK) {
        size_t length = 0;
        clock_write(&text, &x);
        *merged = bytes_take(&text, &length);
        status = *merged ? GODWIT_OK : GODWIT_NOMEM;
    }
    bytes_deinit(&text);
    arena_deinit(&memory);
    return status;
}
