/* SQL functions that look: status, doctor, vector clocks, ids. */
#include <time.h>

#include "extension/extension.h"

/* ---- Status ---- */

/* Numbers and texts only, so that SQLite's own JSON functions are exact. */
static const char status_sql[] =
    "SELECT json_object("
    "'version', ?1, 'url', (SELECT v FROM godwit_meta WHERE k = 'url'),"
    "'scope', (SELECT v FROM godwit_meta WHERE k = 'scope'),"
    "'lineage', (SELECT v FROM godwit_meta WHERE k = 'lineage'),"
    "'queueLength', queue_length, 'pendingOperations', pending_operations,"
    "'failedOperations', failed_operations, 'conflictsDetected', conflicts_detected,"
    "'lastSuccessfulSyncMs', last_successful_sync_ms,"
    "'oldestPendingAgeMs', oldest_pending_age_ms, 'oldestPendingAgeSeconds',"
    " oldest_pending_age_seconds, 'feedLag', feed_lag, 'avgSyncLatency', avg_sync_latency_ms,"
    "'ackRoundTripMs', ack_round_trip_ms, 'conflictsOpen', conflicts_open, 'conflicts',"
    " (SELECT json_group_object(kind || ':' || state, n) FROM godwit_conflict_counts), 'retries',"
    " retries, 'retriesByClass', (SELECT json_group_object(class, n) FROM godwit_retry_counts),"
    "'nextAttemptMs', (SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'next_attempt_ms'),"
    "'failures', coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'failures'), 0),"
    "'migrating', json(CASE WHEN EXISTS (SELECT 1 FROM godwit_meta WHERE k = 'migrating') THEN"
    " 'true' ELSE 'false' END),"
    "'tables', json((SELECT json_group_array(name) FROM (SELECT name FROM godwit_table WHERE active"
    " AND json_extract(spec, '$.queue') IS NULL ORDER BY name))),"
    "'scopes', json((SELECT json_group_array(json_object('scope', scope, 'state', state,"
    " 'commitSeq', commit_seq)) FROM godwit_cursor))) FROM godwit_metrics";

static void call_status(sqlite3_context *context, int argc, sqlite3_value **argv) {
    sqlite3_stmt *stmt = NULL;
    godwit_metrics ignored;
    godwit *g = extension_handle(context, false);
    (void)argc;
    (void)argv;
    if (!g) {
        return;
    }
    godwit_status status = godwit_get_metrics(g, &ignored); /* brings the handle up to date */
    if (status != GODWIT_OK) {
        extension_error(context, status, godwit_message(g));
        return;
    }
    sqlite3 *connection = godwit_connection(g);
    int rc = sqlite3_prepare_v2(connection, status_sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_text(stmt, 1, godwit_version(), -1, SQLITE_STATIC);
        rc = sqlite3_step(stmt);
    }
    if (rc == SQLITE_ROW) {
        sqlite3_result_value(context, sqlite3_column_value(stmt, 0));
    } else {
        extension_error(context, GODWIT_INTERNAL, sqlite3_errmsg(connection));
    }
    sqlite3_finalize(stmt);
}

/* ---- Doctor ---- */

typedef struct {
    bytes text;
    bool first;
} findings;

static void add_finding(void *context, const char *code, const char *text, int fixable) {
    findings *f = context;
    bool first = true;
    json_comma(&f->text, &f->first);
    bytes_char(&f->text, '{');
    json_key(&f->text, &first, "code");
    json_write_text(&f->text, slice_of(code));
    json_key(&f->text, &first, "text");
    json_write_text(&f->text, slice_of(text));
    json_key(&f->text, &first, "fixable");
    json_write_bool(&f->text, fixable != 0);
    bytes_char(&f->text, '}');
}

static void call_doctor(sqlite3_context *context, int argc, sqlite3_value **argv) {
    int64_t remaining = 0;
    findings f = {.first = true};
    if (argc > 1) {
        extension_error(context, GODWIT_INVALID, "godwit_doctor() or godwit_doctor(fix)");
        return;
    }
    godwit *g = extension_handle(context, false);
    if (!g) {
        return;
    }
    bytes_init(&f.text, NULL, 0);
    bytes_text(&f.text, "{\"findings\":[");
    godwit_status status =
        godwit_doctor(g, argc && sqlite3_value_int(argv[0]) != 0, add_finding, &f, &remaining);
    bytes_printf(&f.text, "],\"remaining\":%lld}", (long long)remaining);
    if (status != GODWIT_OK) {
        extension_error(context, status, godwit_message(g));
    } else if (f.text.failed) {
        sqlite3_result_error_nomem(context);
    } else {
        sqlite3_result_text(context, f.text.ptr, (int)f.text.len, SQLITE_TRANSIENT);
    }
    bytes_deinit(&f.text);
}

/* ---- Vector clocks and ids ---- */

static void call_clock_compare(sqlite3_context *context, int argc, sqlite3_value **argv) {
    const char *order = NULL;
    const char *a = extension_text(argc, argv, 0);
    const char *b = extension_text(argc, argv, 1);
    godwit_status status = godwit_clock_compare(a ? a : "", b ? b : "", &order);
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, order, -1, SQLITE_STATIC);
    } else {
        extension_error(context, status, "not a vector clock");
    }
}

static void call_clock_merge(sqlite3_context *context, int argc, sqlite3_value **argv) {
    char *merged = NULL;
    const char *a = extension_text(argc, argv, 0);
    const char *b = extension_text(argc, argv, 1);
    godwit_status status = godwit_clock_merge(a ? a : "", b ? b : "", &merged);
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, merged, -1, SQLITE_TRANSIENT);
        godwit_free(merged);
    } else {
        extension_error(context, status, "not a vector clock");
    }
}

static void call_uuid7(sqlite3_context *context, int argc, sqlite3_value **argv) {
    uint8_t entropy[10];
    char id[UUID_TEXT_BYTES];
    struct timespec now = {0, 0};
    (void)argc;
    (void)argv;
    sqlite3_randomness((int)sizeof entropy, entropy);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    id_uuid7((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, entropy, id);
    sqlite3_result_text(context, id, -1, SQLITE_TRANSIENT);
}

int report_register(sqlite3 *connection, extension *e) {
    static const extension_function list[] = {
        {"godwit_status", 0, SQLITE_DIRECTONLY, call_status},
        {"godwit_doctor", -1, SQLITE_DIRECTONLY, call_doctor},
        /* pure: may stand in views, defaults and checks */
        {"godwit_clock_compare", 2, SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, call_clock_compare},
        {"godwit_clock_merge", 2, SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, call_clock_merge},
        {"godwit_uuid7", 0, SQLITE_INNOCUOUS, call_uuid7},
    };
    return extension_register(connection, e, list, COUNT_OF(list));
}
