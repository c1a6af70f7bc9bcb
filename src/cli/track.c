/* track and untrack: which tables are captured. No network is needed. */
#include "cli/cli.h"
#include "core/json.h"

static const char track_help[] =
    "Usage: godwit track APP.db TABLE.. [OPTIONS]\n\n"
    "Starts capturing every change of the tables, whatever program makes it. Rows that are there\n"
    "already are queued, too. Tracking a table again renews its triggers (after ALTER TABLE).\n\n"
    "Options:\n"
    "  --initial upload|ignore   queue the rows that exist (default), or only later changes\n"
    "  --ids app                 the application makes INTEGER keys unique across devices\n"
    "  --scope S                 scope of all rows of these tables\n"
    "  --scope-column C          column that holds the scope of each row\n"
    "  --entity NAME             name on the wire (default: the table's)\n\n"
    "Examples:\n"
    "  godwit track app.db pins forms\n"
    "  godwit track app.db pins --initial ignore\n"
    "  godwit track app.db visits --ids app --entity visit\n";

static const char untrack_help[] =
    "Usage: godwit untrack APP.db TABLE..\n\n"
    "Stops capturing the tables. What was captured before is still delivered; rows stay.\n\n"
    "Example:\n"
    "  godwit untrack app.db drafts\n";

/* Names a query gives, for hints. The strings live in `a`. */
static size_t names_of(godwit *g, arena *a, const char *sql, const char **names, size_t max) {
    sqlite3_stmt *stmt = NULL;
    size_t count = 0;
    if (cli_prepare(g, sql, &stmt) != CLI_GO) {
        return 0;
    }
    while (count < max && sqlite3_step(stmt) == SQLITE_ROW) {
        slice name = arena_copy(a, slice_of((const char *)sqlite3_column_text(stmt, 0)));
        if (name.ptr) {
            names[count++] = name.ptr;
        }
    }
    sqlite3_finalize(stmt);
    return count;
}

static int no_such_table(godwit *g, const char *path, const char *table, const char *sql,
                         const char *what) {
    arena a;
    const char *names[256];
    arena_init(&a, NULL, 0);
    size_t count = names_of(g, &a, sql, names, COUNT_OF(names));
    const char *near = cli_nearest(table, names, count);
    if (near) {
        (void)cli_fail("%s: %s '%s': did you mean '%s'?", path, what, table, near);
    } else {
        (void)cli_fail("%s: %s '%s'", path, what, table);
        for (size_t i = 0; i < count && i < 20; i++) {
            fprintf(stderr, "%s%s", i ? ", " : "There are: ", names[i]);
        }
        fputs(count > 20 ? ", ..\n" : count ? "\n" : "It has no tables yet.\n", stderr);
    }
    arena_deinit(&a);
    return CLI_FAILED;
}

static void member(bytes *b, bool *first, const char *name, const char *text) {
    if (text) {
        json_key(b, first, name);
        json_write_text(b, slice_of(text));
    }
}

static int track_all(godwit *g, const char *path, char **tables, int count,
                     const char *options_json) {
    for (int i = 0; i < count; i++) {
        godwit_status status = godwit_track(g, tables[i], options_json);
        if (status == GODWIT_NOT_FOUND) {
            return no_such_table(g, path, tables[i],
                                 "SELECT name FROM sqlite_schema WHERE type = 'table' AND "
                                 "name NOT LIKE 'godwit%' AND name NOT LIKE 'sqlite%' ORDER BY 1",
                                 "no table");
        }
        if (status != GODWIT_OK) {
            return cli_explain(g, path, "tracking", status);
        }
        fprintf(stderr, "tracking %s\n", tables[i]);
    }
    return CLI_OK;
}

int cli_track(int argc, char **argv) {
    const char *initial = NULL, *ids = NULL, *scope = NULL, *scope_column = NULL, *entity = NULL;
    const cli_option options[] = {{.name = "--initial", .text = &initial},
                                  {.name = "--ids", .text = &ids},
                                  {.name = "--scope", .text = &scope},
                                  {.name = "--scope-column", .text = &scope_column},
                                  {.name = "--entity", .text = &entity}};
    const cli_spec spec = {"track", track_help, options, COUNT_OF(options), 2, 1000};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    if (entity && count > 2) {
        return cli_usage_error("track", "--entity names one table, not %d", count - 1);
    }
    bytes settings;
    bool first = true;
    bytes_init(&settings, NULL, 0);
    bytes_char(&settings, '{');
    member(&settings, &first, "initial", initial);
    member(&settings, &first, "ids", ids);
    member(&settings, &first, "scope", scope);
    member(&settings, &first, "scopeColumn", scope_column);
    member(&settings, &first, "entity", entity);
    bytes_char(&settings, '}');
    godwit *g = NULL;
    code =
        settings.failed ? cli_fail("out of memory") : cli_open(argv[1], CLI_OPEN_TRACKED, NULL, &g);
    if (code == CLI_GO) {
        /* no options: NULL, so that tracking again keeps the options a table has */
        code = track_all(g, argv[1], argv + 2, count - 1, first ? NULL : settings.ptr);
    }
    godwit_close(g);
    bytes_deinit(&settings);
    return code;
}

int cli_untrack(int argc, char **argv) {
    const cli_spec spec = {"untrack", untrack_help, NULL, 0, 2, 1000};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    godwit *g = NULL;
    if (code == CLI_GO) {
        code = cli_open(argv[1], CLI_OPEN_TRACKED, NULL, &g);
    }
    if (code != CLI_GO) {
        return code;
    }
    code = CLI_OK;
    for (int i = 2; i <= count && code == CLI_OK; i++) {
        godwit_status status = godwit_untrack(g, argv[i]);
        if (status == GODWIT_NOT_FOUND) {
            code = no_such_table(g, argv[1], argv[i], "SELECT name FROM godwit_table ORDER BY 1",
                                 "not tracking");
        } else if (status != GODWIT_OK) {
            code = cli_explain(g, argv[1], "untracking", status);
        } else {
            fprintf(stderr, "no longer tracking %s\n", argv[i]);
        }
    }
    godwit_close(g);
    return code;
}
