/* sync: deliver the queue, fetch what others changed; once, or again and again with --watch.
 *
 * Whatever happens, the queue is intact, and the last line on stderr says how much is pending. */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "core/json.h"

static const char help[] =
    "Usage: godwit sync APP.db [OPTIONS]\n\n"
    "Sends every pending operation and fetches what others changed, until both sides agree.\n"
    "When the server can't be reached it exits with 3; nothing is lost, the queue stays.\n\n"
    "Options:\n"
    "  --watch          keep going: sync after local changes and when the server has news;\n"
    "                   signal USR1 says that the network is back: do not wait any longer\n"
    "  --interval S     with --watch: sync every S seconds also without either (default 60)\n"
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

static int report(sync_options *options, godwit_status status, const godwit_sync_report *r,
                  const char *message) {
    int code = cli_exit_code(status);
    if (options->json) {
        int printed = print_json(status, r);
        code = code == CLI_OK ? printed : code;
    }
    if (status != GODWIT_OK) {
        long long n = r->pending;
        code = cli_explain_text(options->path, "syncing", status, message);
        fprintf(stderr, "The queue is intact: %lld operation%s pending, nothing is lost.\n", n,
                n == 1 ? "" : "s");
    } else if (!options->quiet && !options->json) {
        print_summary(r);
    }
    return code;
}

static int sync_once(godwit *g, sync_options *options) {
    godwit_sync_report r = {0};
    godwit_status status = godwit_sync(g, options->timeout_s * 1000, &r);
    progress_clear(&options->line);
    return report(options, status, &r, godwit_message(g));
}

/* ---- Watching ---- */

typedef struct {
    sync_options *options;
    godwit_status last; /* what is said once is not said again while it lasts */
    bool said;
    atomic_int code;
} watcher;

static void on_pass(void *context, godwit_status status, const godwit_sync_report *r,
                    const char *message) {
    watcher *w = context;
    godwit_class cls = godwit_status_class(status);
    bool news = !w->said || status != w->last || r->sent || r->received;
    if (news || w->options->json) {
        int code = report(w->options, status, r, message);
        if (cls == GODWIT_CLASS_MISUSE || cls == GODWIT_CLASS_CORRUPT) {
            atomic_store(&w->code, code); /* waiting would not mend these */
            (void)kill(getpid(), SIGTERM);
        }
    }
    w->said = true;
    w->last = status;
}

static int watch(godwit *g, sync_options *options) {
    watcher w = {.options = options};
    godwit_run_options run = {.interval_ms = options->interval_s * 1000,
                              .wait_seconds = 25,
                              .on_pass = on_pass,
                              .context = &w};
    sigset_t set;
    int got = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    atomic_init(&w.code, CLI_OK);
    godwit_status status = godwit_start(g, &run);
    if (status != GODWIT_OK) {
        return cli_explain(g, options->path, "starting to watch", status);
    }
    while (sigwait(&set, &got) != 0 || got == SIGUSR1) {
        if (got == SIGUSR1 && godwit_notify_network(g) != GODWIT_OK) {
            (void)cli_fail("%s: the network is back, but: %s", options->path, godwit_message(g));
        }
    }
    (void)godwit_stop(g);
    return atomic_load(&w.code);
}

int cli_sync(int argc, char **argv) {
    bool watching = false;
    sync_options sync = {.timeout_s = 60, .interval_s = 60};
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
    progress_init(&sync.line, &host, !sync.quiet && !watching);
    sync.path = argv[1];
    code = cli_open(argv[1], CLI_OPEN_TRACKED, &host, &g);
    if (code == CLI_GO) {
        arena a;
        arena_init(&a, NULL, 0);
        progress_trust(&sync.line, cli_setting(g, &a, "ca_file"));
        arena_deinit(&a);
        code = watching ? watch(g, &sync) : sync_once(g, &sync);
    }
    godwit_close(g);
    progress_deinit(&sync.line);
    return code;
}
