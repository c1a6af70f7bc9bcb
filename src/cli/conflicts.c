/* conflicts: what was decided between concurrent changes, from a device's copy or from the server;
 * on a device a person decides again. */
#include "cli/cli.h"
#include "core/json.h"

static const char help[] =
    "Usage: godwit conflicts APP.db [list] [--state S] [--limit N] [--json]\n"
    "       godwit conflicts APP.db show ID [--json]\n"
    "       godwit conflicts APP.db resolve ID mine|theirs|JSON\n"
    "       godwit conflicts APP.db revert ID\n"
    "       godwit conflicts --url URL --token-file F [--scope S] [list|show ID] [OPTIONS]\n\n"
    "Lists the conflict ledger: every decision that did not keep a value. With APP.db it shows "
    "what\n"
    "the device has received, without the network; with --url it asks the server.\n\n"
    "resolve makes the choice a change of the row, which 'godwit sync' sends: 'mine' = the values "
    "of\n"
    "the operation that met the conflict, 'theirs' = what the server had then, JSON = an object "
    "of\n"
    "columns, '{}' = the row as it is.\n\n"
    "revert takes back what a policy decided: the side that lost becomes the row's state again, as "
    "a\n"
    "change that 'godwit sync' sends. It refuses where the row has been changed since.\n\n"
    "Options:\n"
    "  --state S       only 'auto' (decided by policy), 'open' (waiting for a person), "
    "'resolved'\n"
    "                  or 'reverted'\n"
    "  --limit N       at most N rows (default 50, 0 = all)\n"
    "  --url URL       ask this server\n"
    "  --token-file F  file with the bearer token for it\n"
    "  --scope S       scope to ask about (default: the token's first)\n"
    "  --json          print JSON\n\n"
    "Examples:\n"
    "  godwit conflicts app.db\n"
    "  godwit conflicts app.db show c-4-0\n"
    "  godwit conflicts app.db resolve c-4-0 mine && godwit sync app.db\n"
    "  godwit conflicts app.db revert c-7-0 && godwit sync app.db\n"
    "  godwit conflicts app.db resolve c-4-0 '{\"title\":\"Village well\"}'\n"
    "  godwit conflicts --url http://127.0.0.1:8787 --token-file token list --state open\n";

#define LIST_SQL                                                                                   \
    "SELECT conflict_id AS id, entity_type AS entityType, entity_id AS entityId, kind, "           \
    "json_extract(body, '$.columns') AS \"columns:json\", json_extract(body, '$.policy') AS "      \
    "policy, json_extract(body, '$.winner') AS winner, state, at FROM godwit_conflicts WHERE "     \
    "(?1 IS NULL OR state = ?1) ORDER BY at DESC, conflict_id DESC"
#define SHOW_SQL                                                                                   \
    "SELECT conflict_id AS id, scope, entity_type AS entityType, entity_id AS entityId, kind, "    \
    "state, at, body AS \"body:json\" FROM godwit_conflicts WHERE conflict_id = ?1 OR "            \
    "length(conflict_id) = length(?1) + 17 AND substr(conflict_id, 1, length(?1) + 1) = ?1 || '-'"

typedef struct {
    bool as_json, revert;
    int64_t limit;
    const char *state, *id; /* id: of show and resolve, NULL for list */
    const char *choice;     /* of resolve */
    const char *url, *token_file, *token, *scope;
} conflicts_request;

static const char none[] = "no conflicts";

static int local(const char *path, const conflicts_request *r) {
    godwit *g = NULL;
    sqlite3_stmt *stmt = NULL;
    int code = cli_open(path, CLI_OPEN_TRACKED, NULL, &g);
    if (code == CLI_GO) {
        code = cli_prepare(g, r->id ? SHOW_SQL : LIST_SQL, &stmt);
    }
    if (code == CLI_GO) {
        const char *parameter = r->id ? r->id : r->state;
        const cli_rows_options options = {r->as_json, r->limit, none};
        if (parameter) {
            sqlite3_bind_text(stmt, 1, parameter, -1, SQLITE_STATIC);
        }
        code = r->id ? cli_print_record(stmt, r->as_json) : cli_print_rows(stmt, &options);
        if (code == CLI_GO) {
            code = cli_fail("%s: no conflict '%s'", path, r->id);
        }
    }
    sqlite3_finalize(stmt);
    godwit_close(g);
    return code;
}

static int resolve(const char *path, const conflicts_request *r) {
    godwit *g = NULL;
    char id[37];
    int code = cli_open(path, CLI_OPEN_TRACKED, NULL, &g);
    if (code == CLI_GO) {
        godwit_status status =
            r->revert ? godwit_revert(g, r->id, id) : godwit_resolve(g, r->id, r->choice, id);
        if (status == GODWIT_OK) {
            printf("%s\n", id);
            code = CLI_OK;
        } else {
            code = cli_explain(g, path, r->revert ? "reverting" : "resolving", status);
        }
    }
    godwit_close(g);
    return code;
}

static int remote(const conflicts_request *r) {
    static const char *const names[] = {"id",     "entityType", "entityId", "kind", "columns",
                                        "policy", "winner",     "state",    "at"};
    cli_remote server = {.url = slice_of(r->url), .token = slice_of(r->token)};
    arena a;
    bytes path;
    const json *items = NULL;
    int code = CLI_GO;
    arena_init(&a, NULL, 0);
    bytes_init(&path, NULL, 0);
    bytes_text(&path, "/v1/conflicts");
    if (r->scope) {
        cli_query_add(&path, "scope", slice_of(r->scope));
    }
    if (r->state) {
        cli_query_add(&path, "state", slice_of(r->state));
    }
    if (r->token_file) {
        code = cli_token_file(&a, r->token_file, &server.token);
    }
    const cli_list list = {"conflicts", r->id, r->id ? 1 : r->limit};
    const cli_rows_options rows = {r->as_json, r->limit, none};
    if (code == CLI_GO) {
        code = path.failed ? cli_fail("out of memory")
                           : cli_get_list(&server, &a, path.ptr, &list, &items);
    }
    if (code == CLI_GO && !r->id) {
        code = cli_print_items(items, names, COUNT_OF(names), &rows);
    } else if (code == CLI_GO && items->count == 0) {
        code = cli_fail("the server has no conflict '%s'", r->id);
    } else if (code == CLI_GO) {
        const json *item = json_first(items);
        code = r->as_json ? cli_print_slice(item->u.s) : cli_print_object(item);
    }
    bytes_deinit(&path);
    arena_deinit(&a);
    return code;
}

int cli_conflicts(int argc, char **argv) {
    static const char *const actions[] = {"list", "show", "resolve", "revert"};
    conflicts_request r = {.limit = 50};
    const cli_option options[] = {
        {.name = "--json", .flag = &r.as_json}, {.name = "--limit", .number = &r.limit},
        {.name = "--state", .text = &r.state},  {.name = "--url", .text = &r.url},
        {.name = "--token", .text = &r.token},  {.name = "--token-file", .text = &r.token_file},
        {.name = "--scope", .text = &r.scope},
    };
    const cli_spec spec = {"conflicts", help, options, COUNT_OF(options), 0, 4};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    /* with --url there is no APP.db: leave its place empty, so that the rest stands where it does
     */
    char nothing[] = "";
    char *shifted[] = {argv[0], nothing, count > 0 ? argv[1] : NULL, count > 1 ? argv[2] : NULL,
                       NULL};
    char **words = r.url ? shifted : argv;
    count += r.url != NULL;
    if (count < 1 || (r.url && count > 3)) {
        return cli_usage_error("conflicts", "it wants APP.db, or --url with a token");
    }
    const char *action = NULL;
    code = cli_action(&spec, words, count, actions, COUNT_OF(actions), &action);
    if (code != CLI_GO) {
        return code;
    }
    r.revert = strcmp(action, "revert") == 0;
    int wanted = strcmp(action, "show") == 0 || r.revert ? 3
                 : strcmp(action, "resolve") == 0        ? 4
                                                         : 2;
    if ((wanted == 4 || r.revert) && r.url) {
        return cli_usage_error("conflicts",
                               "resolve and revert want APP.db: a device sends the choice");
    }
    if (wanted == 2 ? count > 2 : count != wanted) {
        return cli_usage_error("conflicts",
                               "show and revert want the id of one conflict, resolve the id and a"
                               " choice, list nothing more");
    }
    r.id = wanted > 2 ? words[3] : NULL;
    r.choice = wanted > 3 ? words[4] : NULL;
    if (r.choice || r.revert) {
        return resolve(words[1], &r);
    }
    return r.url ? remote(&r) : local(words[1], &r);
}
