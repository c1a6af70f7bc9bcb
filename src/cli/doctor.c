/* doctor: reports what is wrong with a database and, asked to, repairs what is safe. */
#include "cli/cli.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/wire.h"
#include "transport/transport.h"

#include <time.h>

#define SERVER_MS   5000
#define CLOCK_OFF_S 60

static const char help[] =
    "Usage: godwit doctor APP.db [--fix] [--json] [--offline]\n\n"
    "Looks for changes that slipped past the triggers, missing triggers, settings that could lose\n"
    "changes, operations that are stuck, and whether the server can be reached and its clock "
    "agrees.\n"
    "Exits with 1 when something remains to be done.\n\n"
    "Options:\n"
    "  --fix     repair what is safe to repair\n"
    "  --json    print the findings as JSON\n"
    "  --offline do not ask the server\n\n"
    "Examples:\n"
    "  godwit doctor app.db\n"
    "  godwit doctor app.db --fix\n";

typedef struct {
    bool json, first;
    bytes out;
    int64_t fixable;
} findings;

static void on_finding(void *context, const char *code, const char *text, int fixable) {
    findings *f = context;
    f->fixable += fixable != 0;
    if (!f->json) {
        printf("%s%s%s  %s%s\n", cli_style_on(stdout, CLI_YELLOW), code, cli_style_off(stdout),
               text, fixable ? " (--fix repairs it)" : "");
        return;
    }
    bool first = true;
    json_comma(&f->out, &f->first);
    bytes_char(&f->out, '{');
    json_key(&f->out, &first, "code");
    json_write_text(&f->out, slice_of(code));
    json_key(&f->out, &first, "text");
    json_write_text(&f->out, slice_of(text));
    json_key(&f->out, &first, "fixable");
    json_write_bool(&f->out, fixable != 0);
    bytes_char(&f->out, '}');
}

/* The server can be reached, and what its clock says. */
static int64_t check_server(godwit *g, arena *a, findings *f) {
    transport *t = NULL;
    godwit_http_answer answer = {0};
    const json *meta = NULL;
    slice url = cli_setting(g, a, "url"), time = {0};
    int64_t server_ms = 0, found = 0;
    while (url.len && url.ptr[url.len - 1] == '/') {
        url.len--;
    }
    const char *full = arena_printf(a, SLICE_FMT "/v1/meta", SLICE_ARG(url));
    if (!url.len || !full || transport_create(NULL, &t) != GODWIT_OK) {
        return 0; /* nothing to ask, or nothing to ask with */
    }
    const godwit_http_request request = {
        .method = "GET", .url = full, .timeout_ms = SERVER_MS, .answer_max = ANSWER_BYTES_MAX};
    transport_trust(t, cli_setting(g, a, "ca_file"));
    transport_exchange(t, &request, &answer);
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t ahead_s = 0;
    if (answer.status == 200 &&
        json_parse(a, (slice){answer.body, answer.body_bytes}, &meta, NULL) == GODWIT_OK &&
        json_text(json_get(meta, "serverTime"), &time) && wire_time_parse(time, &server_ms)) {
        ahead_s = (int64_t)now.tv_sec - server_ms / 1000;
    } else {
        const char *text = answer.status
                               ? arena_printf(a,
                                              "%s answers with HTTP %d: not a Godwit server, or a"
                                              " proxy before it",
                                              full, answer.status)
                               : arena_printf(a, "the server can't be reached: %s", answer.reason);
        on_finding(f, "unreachable", text ? text : "the server can't be reached", 0);
        found++;
    }
    if (ahead_s > CLOCK_OFF_S || ahead_s < -CLOCK_OFF_S) {
        const char *text = arena_printf(
            a,
            "this device's clock is %lld s %s the server's: ties between edits are corrected for"
            " it, times that people see are not",
            (long long)(ahead_s < 0 ? -ahead_s : ahead_s), ahead_s < 0 ? "behind" : "ahead of");
        on_finding(f, "clock", text ? text : "the clock is off", 0);
        found++;
    }
    mem_free(NULL, answer.body);
    transport_destroy(t);
    return found;
}

static int report(findings *f, int64_t remaining, bool fix) {
    int code = CLI_OK;
    if (f->json) {
        bytes_printf(&f->out, "],\"remaining\":%lld}", (long long)remaining);
        code = cli_print(&f->out);
    } else if (remaining == 0) {
        fprintf(stderr, fix ? "all is well now\n" : "all is well\n");
    } else {
        fprintf(stderr, "%lld finding%s", (long long)remaining, remaining == 1 ? "" : "s");
        fprintf(stderr, !fix && f->fixable ? ": 'godwit doctor APP.db --fix' repairs %lld\n" : "\n",
                (long long)f->fixable);
    }
    return code == CLI_OK && remaining ? CLI_FAILED : code;
}

int cli_doctor(int argc, char **argv) {
    bool fix = false, offline = false;
    findings f = {.first = true};
    const cli_option options[] = {{.name = "--fix", .flag = &fix},
                                  {.name = "--json", .flag = &f.json},
                                  {.name = "--offline", .flag = &offline}};
    const cli_spec spec = {"doctor", help, options, COUNT_OF(options), 1, 1};
    godwit *g = NULL;
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code == CLI_GO) {
        code = cli_open(argv[1], CLI_OPEN_TRACKED, NULL, &g);
    }
    if (code != CLI_GO) {
        return code;
    }
    int64_t remaining = 0;
    bytes_init(&f.out, NULL, 0);
    bytes_text(&f.out, "{\"findings\":[");
    godwit_status status = godwit_doctor(g, fix, on_finding, &f, &remaining);
    arena a;
    arena_init(&a, NULL, 0);
    if (status == GODWIT_OK && !offline) {
        remaining += check_server(g, &a, &f);
    }
    arena_deinit(&a);
    code = status == GODWIT_OK ? report(&f, remaining, fix)
                               : cli_explain(g, argv[1], "checking", status);
    bytes_deinit(&f.out);
    godwit_close(g);
    return code;
}
