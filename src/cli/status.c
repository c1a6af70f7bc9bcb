/* status: where a database stands, without the network. */
#include "cli/cli.h"
#include "core/json.h"

static const char help[] =
    "Usage: godwit status APP.db [--json]\n\n"
    "Shows the server, the tracked tables, what is pending and when the last sync was. Needs no\n"
    "network.\n\n"
    "Examples:\n"
    "  godwit status app.db\n"
    "  godwit status app.db --json | jq .pendingOperations\n";

typedef struct {
    godwit *g;
    arena a;
    godwit_metrics metrics;
    slice url, scope, label, device, last_error;
    int64_t next_attempt_ms;
    bool has_token;
} status_view;

static slice query_text(status_view *v, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    slice text = {0};
    if (cli_prepare(v->g, sql, &stmt) != CLI_GO) {
        return text;
    }
    if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        text = arena_copy(&v->a, (slice){(const char *)sqlite3_column_text(stmt, 0),
                                         (size_t)sqlite3_column_bytes(stmt, 0)});
    }
    sqlite3_finalize(stmt);
    return text;
}

static int64_t query_int(status_view *v, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    int64_t n = 0;
    if (cli_prepare(v->g, sql, &stmt) == CLI_GO && sqlite3_step(stmt) == SQLITE_ROW) {
        n = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return n;
}

static void load(status_view *v) {
    v->url = cli_setting(v->g, &v->a, "url");
    v->scope = cli_setting(v->g, &v->a, "scope");
    v->label = cli_setting(v->g, &v->a, "label");
    v->has_token =
        cli_setting(v->g, &v->a, "token").ptr || cli_setting(v->g, &v->a, "token_file").ptr;
    v->device = query_text(v, "SELECT device_id FROM godwit_identity WHERE current = 1 LIMIT 1");
    v->last_error =
        query_text(v, "SELECT coalesce((SELECT v FROM godwit_meta WHERE k = 'last_error'),"
                      " (SELECT detail FROM godwit_dead_letters ORDER BY at DESC LIMIT 1))");
    v->next_attempt_ms =
        query_int(v, "SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'next_attempt_ms'");
}

static void text_member(bytes *b, bool *first, const char *name, slice text) {
    json_key(b, first, name);
    if (text.ptr) {
        json_write_text(b, text);
    } else {
        bytes_text(b, "null");
    }
}

static void int_member(bytes *b, bool *first, const char *name, int64_t n) {
    json_key(b, first, name);
    json_write_int(b, n);
}

/* An average: null as long as there is none. */
static void average_member(bytes *b, bool *first, const char *name, int64_t ms) {
    json_key(b, first, name);
    if (ms >= 0) {
        json_write_int(b, ms);
    } else {
        bytes_text(b, "null");
    }
}

/* Rows (name, name or NULL, number) as {"a:b":n}. */
static void json_rows(status_view *v, bytes *b, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    bool first = true;
    int code = cli_prepare(v->g, sql, &stmt);
    bytes_char(b, '{');
    while (code == CLI_GO && sqlite3_step(stmt) == SQLITE_ROW) {
        const char *more = (const char *)sqlite3_column_text(stmt, 1);
        char name[96];
        snprintf(name, sizeof name, "%s%s%s", (const char *)sqlite3_column_text(stmt, 0),
                 more ? ":" : "", more ? more : "");
        int_member(b, &first, name, sqlite3_column_int64(stmt, 2));
    }
    bytes_char(b, '}');
    sqlite3_finalize(stmt);
}

static int json_tables(status_view *v, bytes *b) {
    sqlite3_stmt *stmt = NULL;
    bool first = true;
    int code = cli_prepare(v->g, "SELECT name FROM godwit_table ORDER BY tbl", &stmt);
    bytes_char(b, '[');
    while (code == CLI_GO && sqlite3_step(stmt) == SQLITE_ROW) {
        json_comma(b, &first);
        json_write_text(b, slice_of((const char *)sqlite3_column_text(stmt, 0)));
    }
    bytes_char(b, ']');
    sqlite3_finalize(stmt);
    return code;
}

static int print_json(status_view *v) {
    const godwit_metrics *m = &v->metrics;
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    text_member(&b, &first, "url", v->url);
    text_member(&b, &first, "scope", v->scope);
    text_member(&b, &first, "label", v->label);
    text_member(&b, &first, "deviceId", v->device);
    json_key(&b, &first, "tables");
    (void)json_tables(v, &b);
    int_member(&b, &first, "queueLength", m->queue_length);
    int_member(&b, &first, "pendingOperations", m->pending_operations);
    int_member(&b, &first, "failedOperations", m->failed_operations);
    int_member(&b, &first, "conflictsDetected", m->conflicts_detected);
    int_member(&b, &first, "lastSuccessfulSync", m->last_successful_sync_ms);
    int_member(&b, &first, "oldestPendingAgeMs", m->oldest_pending_age_ms);
    int_member(&b, &first, "oldestPendingAgeSeconds", m->oldest_pending_age_ms / 1000);
    int_member(&b, &first, "feedLag", m->feed_lag);
    average_member(&b, &first, "avgSyncLatency", m->avg_sync_latency_ms);
    average_member(&b, &first, "ackRoundTripMs", m->ack_round_trip_ms);
    int_member(&b, &first, "conflictsOpen", m->conflicts_open);
    json_key(&b, &first, "conflicts");
    json_rows(v, &b, "SELECT kind, state, n FROM godwit_conflict_counts ORDER BY kind, state");
    int_member(&b, &first, "retries", m->retries);
    json_key(&b, &first, "retriesByClass");
    json_rows(v, &b, "SELECT class, NULL, n FROM godwit_retry_counts ORDER BY class");
    int_member(&b, &first, "failures", m->failures);
    int_member(&b, &first, "nextAttempt", v->next_attempt_ms);
    text_member(&b, &first, "lastError", v->last_error);
    bytes_char(&b, '}');
    int code = cli_print(&b);
    bytes_deinit(&b);
    return code;
}

static void line(const char *name, const char *text) {
    printf("%-11s %s\n", name, text);
}

static void print_tables(status_view *v) {
    slice tables = query_text(v, "SELECT group_concat(name, ', ') FROM (SELECT name FROM "
                                 "godwit_table ORDER BY tbl)");
    line("Tables", tables.ptr ? tables.ptr : "none yet: 'godwit track'");
}

static void print_queue(const status_view *v, int64_t now_ms) {
    const godwit_metrics *m = &v->metrics;
    char age[32] = "";
    printf("%-11s %lld pending", "Queue", (long long)m->pending_operations);
    if (m->pending_operations) {
        printf(" (oldest: %s)", cli_ago(now_ms - m->oldest_pending_age_ms, now_ms, age));
    }
    const char *red = m->failed_operations ? cli_style_on(stdout, CLI_RED) : "";
    printf(", %s%lld failed%s, %lld conflict%s", red, (long long)m->failed_operations,
           m->failed_operations ? cli_style_off(stdout) : "", (long long)m->conflicts_detected,
           m->conflicts_detected == 1 ? "" : "s");
    printf(m->conflicts_open ? " (%lld open)\n" : "\n", (long long)m->conflicts_open);
    if (m->failed_operations) {
        printf("%-11s 'godwit queue APP.db list --failed' shows why\n", "");
    }
}

static int print_text(status_view *v, const char *path) {
    int64_t now_ms = cli_now_ms();
    char when[32];
    line("Database", path);
    line("Server", v->url.ptr ? v->url.ptr : "none yet: 'godwit init'");
    line("Scope", v->scope.ptr ? v->scope.ptr : "the token's first");
    if (v->label.ptr) {
        line("Label", v->label.ptr);
    }
    line("Device", v->device.ptr ? v->device.ptr : "made at the first sync");
    if (!v->has_token) {
        line("Token", "none yet: 'godwit init --token-file F'");
    }
    print_tables(v);
    print_queue(v, now_ms);
    line("Last sync", v->metrics.last_successful_sync_ms
                          ? cli_ago(v->metrics.last_successful_sync_ms, now_ms, when)
                          : "never");
    if (v->metrics.avg_sync_latency_ms >= 0) {
        printf("%-11s %.1f s from a change to the server on average, %lld ms per answer\n",
               "Latency", (double)v->metrics.avg_sync_latency_ms / 1000,
               (long long)v->metrics.ack_round_trip_ms);
    }
    if (v->metrics.failures) {
        printf("%-11s %lld in a row, %lld in all\n", "Failures", (long long)v->metrics.failures,
               (long long)v->metrics.retries);
    }
    if (v->metrics.feed_lag > 0) {
        printf("%-11s %lld commits behind\n", "Feed", (long long)v->metrics.feed_lag);
    }
    if (v->next_attempt_ms > now_ms) {
        line("Next try", cli_ago(v->next_attempt_ms, now_ms, when));
    }
    if (v->last_error.ptr) {
        line("Last error", v->last_error.ptr);
    }
    return CLI_OK;
}

int cli_status(int argc, char **argv) {
    bool as_json = false;
    const cli_option options[] = {{.name = "--json", .flag = &as_json}};
    const cli_spec spec = {"status", help, options, COUNT_OF(options), 1, 1};
    status_view v = {0};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code == CLI_GO) {
        code = cli_open(argv[1], CLI_OPEN_TRACKED, NULL, &v.g);
    }
    if (code != CLI_GO) {
        return code;
    }
    arena_init(&v.a, NULL, 0);
    godwit_status status = godwit_get_metrics(v.g, &v.metrics);
    if (status == GODWIT_OK) {
        load(&v);
        code = as_json ? print_json(&v) : print_text(&v, argv[1]);
    } else {
        code = cli_explain(v.g, argv[1], "reading the counters", status);
    }
    arena_deinit(&v.a);
    godwit_close(v.g);
    return code;
}
