/* godwit pg: the SQL that prepares a PostgreSQL database, written to stdout for people to read,
 * keep with their migrations and run; and what a database has of it. Nothing is changed by this
 * program. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "server/migration.h"

static const char help[] =
    "Usage: godwit pg install | track TABLE.. | untrack TABLE.. | status  [OPTIONS]\n\n"
    "Prints SQL for a PostgreSQL database; run it with psql or keep it as a migration:\n"
    "  install   Godwit's own tables, in schema godwit ('serve --db' makes them by itself where "
    "it\n"
    "            may); running it again changes nothing\n"
    "  track     sync these tables: the rows that are there, and what anybody writes from now on, "
    "in\n"
    "            any way. They need a primary key; their columns stay as they are\n"
    "  untrack   stop syncing them; table and rows stay\n"
    "A running server takes up such changes when it is started again.\n\n"
    "  status    which tables the database syncs, and what stands in the way (needs --db)\n\n"
    "Options:\n"
    "  --db URL            postgres://user@host/name, or GODWIT_DB; the password comes from the "
    "URL,\n"
    "                      PGPASSWORD or ~/.pgpass. With it, track looks at the tables first\n"
    "  --schema NAME       the schema the tables are in (public)\n"
    "  --scope NAME        rows that others write belong to this scope\n"
    "  --scope-column COL  .. or to the scope that this column names\n"
    "  --json              status as JSON\n\n"
    "Examples:\n"
    "  godwit pg install > 001_godwit.sql && psql app -f 001_godwit.sql\n"
    "  godwit pg track pins forms --scope-column team | psql app\n"
    "  godwit pg untrack forms | psql app\n"
    "  godwit pg status --db postgres://localhost/app\n";

typedef struct {
    const char *db, *schema, *scope, *scope_column;
    bool json;
} flags;

static int no_database(void) {
    return cli_usage_error("pg", "status wants --db URL (or GODWIT_DB)");
}

static int status(const flags *f) {
    static const char *const names[] = {"table", "schema", "key",     "columns",
                                        "scope", "noted",  "waiting", "problem"};
    const cli_rows_options options = {.json = f->json, .empty = "no table is tracked"};
    char message[512];
    bytes text;
    arena memory;
    const json *items = NULL;
    if (!f->db) {
        return no_database();
    }
    bytes_init(&text, NULL, 0);
    arena_init(&memory, NULL, 0);
    int code = CLI_OK;
    if (migration_status(f->db, &text, message) != GODWIT_OK) {
        code = cli_fail("%s", message);
    } else if (json_parse(&memory, bytes_view(&text), &items, NULL) != GODWIT_OK) {
        code = cli_fail("the database's answer can't be read");
    } else {
        code = cli_print_items(items, names, COUNT_OF(names), &options);
    }
    bytes_deinit(&text);
    arena_deinit(&memory);
    return code;
}

static int tables(const flags *f, bool track, char **names, int count) {
    char message[512];
    bytes sql;
    int code = CLI_OK;
    if (count == 0) {
        return cli_usage_error("pg", "name the tables");
    }
    bytes_init(&sql, NULL, 0);
    bytes_text(&sql, "BEGIN;\n");
    for (int i = 0; i < count && code == CLI_OK; i++) {
        const migration_table table = {.schema_name = slice_of(f->schema ? f->schema : "public"),
                                       .table = slice_of(names[i]),
                                       .scope = slice_of(f->scope ? f->scope : ""),
                                       .scope_column =
                                           slice_of(f->scope_column ? f->scope_column : "")};
        if (track && f->db && migration_check(f->db, &table, message) != GODWIT_OK) {
            code = cli_fail("%s", message);
        } else if (track) {
            migration_track(&sql, &table);
        } else {
            migration_untrack(&sql, table.schema_name, table.table);
        }
    }
    bytes_text(&sql, "COMMIT;");
    code = code == CLI_OK ? cli_print(&sql) : code;
    bytes_deinit(&sql);
    return code;
}

int cli_pg(int argc, char **argv) {
    flags f = {0};
    const cli_option options[] = {
        {.name = "--db", .text = &f.db},       {.name = "--schema", .text = &f.schema},
        {.name = "--scope", .text = &f.scope}, {.name = "--scope-column", .text = &f.scope_column},
        {.name = "--json", .flag = &f.json},
    };
    static const char *const actions[] = {"install", "track", "untrack", "status"};
    const cli_spec spec = {"pg", help, options, COUNT_OF(options), 1, 1000};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    f.db = f.db ? f.db : getenv("GODWIT_DB");
    if (f.scope && f.scope_column) {
        return cli_usage_error("pg", "--scope and --scope-column exclude each other");
    }
    const char *action = argv[1];
    bytes sql;
    if (strcmp(action, "install") == 0) {
        bytes_init(&sql, NULL, 0);
        migration_install(&sql);
        code = cli_print(&sql);
        bytes_deinit(&sql);
        return code;
    }
    if (strcmp(action, "status") == 0) {
        return status(&f);
    }
    if (strcmp(action, "track") == 0 || strcmp(action, "untrack") == 0) {
        return tables(&f, action[0] == 't', argv + 2, count - 1);
    }
    const char *near = cli_nearest(action, actions, COUNT_OF(actions));
    return cli_usage_error("pg", "unknown action '%s'%s%s", action, near ? ": did you mean " : "",
                           near ? near : "");
}
