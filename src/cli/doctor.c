/* doctor: reports what is wrong with a database and, asked to, repairs what is safe. */
#include "cli/cli.h"
#include "core/json.h"

static const char help[] =
    "Usage: godwit doctor APP.db [--fix] [--json]\n\n"
    "Looks for changes that slipped past the triggers, missing triggers, settings that could lose\n"
    "changes and operations that are stuck. Exits with 1 when something remains to be done.\n\n"
    "Options:\n"
    "  --fix     repair what is safe to repair\n"
    "  --json    print the findings as JSON\n\n"
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
    bool fix = false;
    findings f = {.first = true};
    const cli_option options[] = {{.name = "--fix", .flag = &fix},
                                  {.name = "--json", .flag = &f.json}};
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
    code = status == GODWIT_OK ? report(&f, remaining, fix)
                               : cli_explain(g, argv[1], "checking", status);
    bytes_deinit(&f.out);
    godwit_close(g);
    return code;
}
