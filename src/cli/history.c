/* history: what happened to one row, as the server of an application's database tells it. */
#include "cli/cli.h"
#include "core/json.h"

static const char help[] =
    "Usage: godwit history APP.db TABLE ID [--scope S] [--json]\n"
    "       godwit history APP.db --operation ID [--json]\n\n"
    "Asks the server APP.db syncs with for every change of one row: when, by which device and "
    "user,\n"
    "which columns. ID is the primary key; a key of several columns is written as a JSON array.\n\n"
    "With --operation: what became of one operation of this device (ids are in 'godwit queue' and "
    "the "
    "view\n"
    "sync_queue): was it applied, which of its values are not the row's any more, why, and what "
    "replaced\n"
    "them.\n\n"
    "Examples:\n"
    "  godwit history app.db pins p-1\n"
    "  godwit history app.db pins p-1 --json\n"
    "  godwit history app.db visits '[\"1\",\"2026-01-02\"]'\n";

/* The name on the wire of a tracked table, and its scope where it has one of its own. */
static int look_up_table(godwit *g, arena *a, const char *table, slice *entity, slice *scope) {
    sqlite3_stmt *stmt = NULL;
    int code = cli_prepare(g,
                           "SELECT coalesce(json_extract(spec, '$.entity'), name), "
                           "json_extract(spec, '$.scope') FROM godwit_table WHERE name = ?1 OR "
                           "json_extract(spec, '$.entity') = ?1",
                           &stmt);
    if (code != CLI_GO) {
        return code;
    }
    sqlite3_bind_text(stmt, 1, table, -1, SQLITE_STATIC);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        *entity = arena_copy(a, slice_of((const char *)sqlite3_column_text(stmt, 0)));
        if (sqlite3_column_type(stmt, 1) != SQLITE_NULL) {
            *scope = arena_copy(a, slice_of((const char *)sqlite3_column_text(stmt, 1)));
        }
    } else {
        code = cli_fail("not tracking '%s'", table);
    }
    sqlite3_finalize(stmt);
    return code;
}

static int ask(godwit *g, arena *a, char **words, const char *scope, const json **items) {
    const cli_list list = {"changes", NULL, 0};
    cli_remote server;
    bytes path;
    slice entity = {0}, table_scope = {0};
    int code = cli_remote_of(g, a, &server);
    if (code == CLI_GO) {
        code = look_up_table(g, a, words[2], &entity, &table_scope);
    }
    if (code != CLI_GO) {
        return code;
    }
    slice wanted = scope ? slice_of(scope) : table_scope.len ? table_scope : server.scope;
    bytes_init(&path, NULL, 0);
    bytes_text(&path, "/v1/audit");
    if (wanted.len) {
        cli_query_add(&path, "scope", wanted);
    }
    cli_query_add(&path, "entityType", entity);
    cli_query_add(&path, "entityId", slice_of(words[3]));
    code =
        path.failed ? cli_fail("out of memory") : cli_get_list(&server, a, path.ptr, &list, items);
    bytes_deinit(&path);
    return code;
}

/* Where the device sent an operation. */
static int look_up_operation(godwit *g, arena *a, const char *id, slice *scope, slice *device,
                             int64_t *seq) {
    sqlite3_stmt *stmt = NULL;
    int code =
        cli_prepare(g,
                    "SELECT o.scope, o.device_id, o.sequence_number FROM sync_queue AS q JOIN"
                    " godwit_op AS o ON o.lsn = q.lsn WHERE q.id = ?1 AND"
                    " o.sequence_number > 0",
                    &stmt);
    if (code != CLI_GO) {
        return code;
    }
    sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        *scope = arena_copy(a, slice_of((const char *)sqlite3_column_text(stmt, 0)));
        *device = arena_copy(a, slice_of((const char *)sqlite3_column_text(stmt, 1)));
        *seq = sqlite3_column_int64(stmt, 2);
    } else {
        code = cli_fail("no operation '%s' has been sent from this database", id);
    }
    sqlite3_finalize(stmt);
    return code;
}

static int ask_operation(godwit *g, arena *a, const char *id, bool as_json) {
    cli_remote server;
    slice scope = {0}, device = {0}, body = {0};
    const json *root = NULL;
    char number[24];
    bytes path;
    int64_t seq = 0;
    int code = cli_remote_of(g, a, &server);
    if (code == CLI_GO) {
        code = look_up_operation(g, a, id, &scope, &device, &seq);
    }
    if (code != CLI_GO) {
        return code;
    }
    (void)snprintf(number, sizeof number, "%lld", (long long)seq);
    bytes_init(&path, NULL, 0);
    bytes_text(&path, "/v1/audit");
    cli_query_add(&path, "scope", scope);
    cli_query_add(&path, "device", device);
    cli_query_add(&path, "sequenceNumber", slice_of(number));
    code = path.failed ? cli_fail("out of memory") : cli_get(&server, a, path.ptr, &body);
    bytes_deinit(&path);
    if (code == CLI_GO && json_parse(a, body, &root, NULL) != GODWIT_OK) {
        code = cli_fail("the answer is not what a Godwit server gives");
    }
    return code != CLI_GO ? code : as_json ? cli_print_slice(body) : cli_print_object(root);
}

int cli_history(int argc, char **argv) {
    static const char *const names[] = {"seq", "at", "userId", "deviceId", "kind", "columns"};
    cli_rows_options rows = {.limit = 0, .empty = "the server knows nothing about this row"};
    const char *scope = NULL, *operation = NULL;
    const cli_option options[] = {{.name = "--json", .flag = &rows.json},
                                  {.name = "--scope", .text = &scope},
                                  {.name = "--operation", .text = &operation}};
    const cli_spec spec = {"history", help, options, COUNT_OF(options), 1, 3};
    godwit *g = NULL;
    const json *items = NULL;
    arena a;
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code == CLI_GO && count != (operation ? 1 : 3)) {
        return cli_usage_error("history", "it wants TABLE and ID, or --operation with an id");
    }
    if (code == CLI_GO) {
        code = cli_open(argv[1], CLI_OPEN_TRACKED, NULL, &g);
    }
    if (code != CLI_GO) {
        return code;
    }
    arena_init(&a, NULL, 0);
    if (operation) {
        code = ask_operation(g, &a, operation, rows.json);
    } else {
        code = ask(g, &a, argv, scope, &items);
        if (code == CLI_GO) {
            code = cli_print_items(items, names, COUNT_OF(names), &rows);
        }
    }
    arena_deinit(&a);
    godwit_close(g);
    return code;
}
