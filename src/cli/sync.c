/* sync: deliver the queue, fetch what others changed; once, or again and again with --watch.
 *
 * Whatever happens, the queue is intact, and the last line on stderr says how much is pending. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "core/json.h"

#define WATCH_STEP_MS      250 /* how often --watch looks for local changes */
#define WATCH_FAILURES_MAX 8   /* exponent at which the wait stops growing */

static const char help[] =
    "Usage: godwit sync APP.db [OPTIONS]\n\n"
    "Sends every pending operation and fetches what others changed, until both sides agree.\n"
    "When the server can't be reached it exits with 3; nothing is lost, the queue stays.\n\n"
    "Options:\n"
    "  --watch          keep going: sync after local changes and every --interval seconds\n"
    "  --interval S     with --watch: seconds between looks at the server (default 5)\n"
    "  --timeout S      give up after S seconds (default 60)\n"
    "  --json           print the report as JSON (one line per sync with --watch)\n"
    "  --quiet          no progress and no summary\n\n"
    "Examples:\n"
    "  godwit sync app.db\n"
    "  godwit sync app.db --json | jq .applied\n"
    "  godwit sync app.db --watch --interval 30\n";

typedef struct {
    const char *path;
    bool json, quiet;
    int64_t timeout_s, interval_s;
    progress line;
} sync_options;

static volatile sig_atomic_t stop_requested;

static void on_signal(int number) {
    (void)number;
    stop_requested = 1;
}

static int print_json(godwit_status status, const godwit_sync_report *r) {
    const struct {
        const char *name;
        int64_t n;
    } members[] = {
        {"sent", r->sent},         {"applied", r->applied},     {"merged", r->merged},
        {"rejected", r->rejected}, {"conflicts", r->conflicts}, {"duplicates", r->duplicates},
        {"received", r->received}, {"pending", r->pending},     {"requests", r->requests}};
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    json_key(&b, &first, "status");
    json_write_text(&b, slice_of(godwit_status_name(status)));
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        json_key(&b, &first, members[i].name);
        json_write_int(&b, members[i].n);
    }
    bytes_char(&b, '}');
    int code = cli_print(&b);
    bytes_deinit(&b);
    return code;
}

static void add_count(bytes *b, const char *name, int64_t n) {
    if (n) {
        bytes_printf(b, "%s%lld %s", b->len ? ", " : "", (long long)n, name);
    }
}

static void print_summary(const godwit_sync_report *r) {
    bytes b;
    bytes_init(&b, NULL, 0);
    add_count(&b, "sent", r->sent);
    add_count(&b, "merged", r->merged);
    add_count(&b, "in conflict", r->conflicts);
    add_count(&b, "rejected", r->rejected);
    add_count(&b, "known already", r->duplicates);
    add_count(&b, "received", r->received);
    add_count(&b, "pending", r->pending);
    fprintf(stderr, "%s\n", b.len && !b.failed ? b.ptr : "up to date");
    bytes_deinit(&b);
}

static int explain_failure(godwit *g, const char *path, godwit_status status) {
    godwit_metrics metrics = {0};
    int code = cli_explain(g, path, "syncing", status);
    if (godwit_get_metrics(g, &metrics) == GODWIT_OK) {
        long long n = metrics.pending_operations;
        fprintf(stderr, "The queue is intact: %lld operation%s pending, nothing is lost.\n", n,
                n == 1 ? "" : "s");
    }
    return code;
}

static int sync_once(godwit *g, sync_options *options, godwit_class *cls) {
    godwit_sync_report report = {0};
    godwit_status status = godwit_sync(g, options->timeout_s * 1000, &report);
    progress_clear(&options->line);
    *cls = godwit_status_class(status);
    int code = cli_exit_code(status);
    if (options->json) {
        int printed = print_json(status, &report);
        code = code == CLI_OK ? printed : code;
    }
    if (status != GODWIT_OK) {
        code = explain_failure(g, options->path, status);
    } else if (!options->quiet && !options->json) {
        print_summary(&report);
    }
    return code;
}

static int64_t data_version(sqlite3 *connection) {
    sqlite3_stmt *stmt = NULL;
    int64_t version = -1;
    if (sqlite3_prepare_v2(connection, "PRAGMA data_version", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW) {
        version = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return version;
}

/* Until the time is over, another connection wrote to the database, or a signal came. */
static void wait_for_work(godwit *g, int64_t wait_ms, bool wake_on_change) {
    const struct timespec step = {0, WATCH_STEP_MS * 1000000L};
    int64_t before = data_version(godwit_connection(g));
    for (int64_t waited = 0; waited < wait_ms && !stop_requested; waited += WATCH_STEP_MS) {
        nanosleep(&step, NULL);
        if (wake_on_change && data_version(godwit_connection(g)) != before) {
            return;
        }
    }
}

static int watch(godwit *g, sync_options *options) {
    struct sigaction action = {.sa_handler = on_signal};
    int failures = 0;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    while (!stop_requested) {
        godwit_class cls = GODWIT_CLASS_OK;
        int code = sync_once(g, options, &cls);
        if (cls == GODWIT_CLASS_MISUSE || cls == GODWIT_CLASS_CORRUPT) {
            return code; /* waiting would not mend these; a refused token may be renewed */
        }
        failures = code == CLI_OK ? 0 : failures + 1;
        int64_t wait_ms = options->interval_s * 1000;
        if (failures) {
            int exponent = failures < WATCH_FAILURES_MAX ? failures : WATCH_FAILURES_MAX;
            int64_t longer_ms = (int64_t)1000 << exponent;
            wait_ms = wait_ms > longer_ms ? wait_ms : longer_ms;
        }
        wait_for_work(g, wait_ms, failures == 0);
    }
    return CLI_OK;
}

int cli_sync(int argc, char **argv) {
    bool watching = false;
    sync_options sync = {.timeout_s = 60, .interval_s = 5};
    const cli_option options[] = {{.name = "--watch", .flag = &watching},
                                  {.name = "--interval", .number = &sync.interval_s},
                                  {.name = "--timeout", .number = &sync.timeout_s},
                                  {.name = "--json", .flag = &sync.json},
                                  {.name = "--quiet", .flag = &sync.quiet}};
    const cli_spec spec = {"sync", help, options, COUNT_OF(options), 1, 1};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    godwit_host host = {0};
    godwit *g = NULL;
    progress_init(&sync.line, &host, !sync.quiet);
    sync.path = argv[1];
    code = cli_open(argv[1], CLI_OPEN_TRACKED, &host, &g);
    if (code == CLI_GO) {
        godwit_class cls = GODWIT_CLASS_OK;
        code = watching ? watch(g, &sync) : sync_once(g, &sync, &cls);
    }
    godwit_close(g);
    progress_deinit(&sync.line);
    return code;
}
