/* queue: the operations of a database, and what a person can do with one that was refused. */
#include "cli/cli.h"
#include "client/client.h"
#include "core/limits.h"

static const char help[] =
    "Usage: godwit queue APP.db [list] [--pending|--failed|--all] [--limit N] [--json]\n"
    "       godwit queue APP.db show ID [--json]\n"
    "       godwit queue APP.db retry ID.. | --failed\n"
    "       godwit queue APP.db edit ID --payload JSON\n"
    "       godwit queue APP.db discard ID [--reason TEXT]\n"
    "       godwit queue APP.db export > FILE\n\n"
    "list      operations that are not done (default), pending, failed, or all that are kept\n"
    "show      one operation with its content and its error\n"
    "retry     queue a refused operation again, as a new one\n"
    "edit      the same with another content (replaces the whole payload)\n"
    "discard   give a refused operation up; its content stays in the journal\n"
    "export    what is not done, one JSON object per line\n\n"
    "Examples:\n"
    "  godwit queue app.db\n"
    "  godwit queue app.db list --failed --json\n"
    "  godwit queue app.db show 0197a4c2-0000-8000-8000-000000000001\n"
    "  godwit queue app.db edit 0197a4c2-0000-8000-8000-000000000001 --payload "
    "'{\"title\":\"Well\"}'\n"
    "  godwit queue app.db export > pending.ndjson\n";

#define LIST_LIMIT 50
#define LIST_SQL(columns, condition)                                                               \
    "SELECT " columns " FROM sync_queue WHERE " condition " ORDER BY lsn"
#define LIST_COLUMNS                                                                               \
    "id, operation, entity_type AS entityType, entity_id AS entityId, status, state, attempts, "   \
    "sequence_number AS sequenceNumber, created_at AS createdAt, last_error AS lastError"
#define SHORT_COLUMNS                                                                              \
    "id, operation, entity_type AS \"table\", entity_id AS key, state, last_error AS error"
#define LISTS(columns)                                                                             \
    {                                                                                              \
        LIST_SQL(columns, IS_OPEN), LIST_SQL(columns, IS_PENDING), LIST_SQL(columns, IS_FAILED),   \
            LIST_SQL(columns, "1")                                                                 \
    }
#define DETAIL_COLUMNS                                                                             \
    "SELECT id, operation, entity_type AS entityType, entity_id AS entityId, status, state, "      \
    "outcome, scope, sequence_number AS sequenceNumber, idempotency_key AS idempotencyKey, "       \
    "attempts, created_at AS createdAt, last_attempt_at AS lastAttemptAt, next_attempt_at AS "     \
    "nextAttemptAt, last_error AS lastError, depends_on AS dependsOn, payload AS "                 \
    "\"payload:json\" "
#define IS_OPEN    "state NOT IN ('acked', 'retired')"
#define IS_PENDING "status = 'pending'"
#define IS_FAILED  "id IN (SELECT id FROM godwit_dead_letters)"

typedef struct {
    bool json, pending, failed, all;
    int64_t limit;
    const char *payload, *reason;
    const char *path;
    char **ids; /* what follows the action */
    int id_count;
} queue_request;

static int list(godwit *g, const queue_request *r) {
    static const char *const sql[2][4] = {LISTS(SHORT_COLUMNS), LISTS(LIST_COLUMNS)};
    static const char *const empty[] = {"nothing is waiting", "nothing is pending",
                                        "nothing failed", "no operations"};
    size_t which = r->all ? 3 : r->failed ? 2 : r->pending ? 1 : 0;
    const cli_rows_options options = {r->json, r->limit, empty[which]};
    sqlite3_stmt *stmt = NULL;
    int code = cli_prepare(g, sql[r->json][which], &stmt);
    if (code == CLI_GO) {
        code = cli_print_rows(stmt, &options);
    }
    sqlite3_finalize(stmt);
    return code;
}

/* The whole id of the one operation that begins with `prefix`. CLI_GO or the exit code. */
static int full_id(godwit *g, const queue_request *r, const char *prefix, char id[37]) {
    sqlite3_stmt *stmt = NULL;
    int found = 0;
    int code = cli_prepare(
        g, "SELECT id FROM sync_queue WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2", &stmt);
    if (code != CLI_GO) {
        return code;
    }
    sqlite3_bind_text(stmt, 1, prefix, -1, SQLITE_STATIC);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        snprintf(id, 37, "%s", (const char *)sqlite3_column_text(stmt, 0));
        found++;
    }
    sqlite3_finalize(stmt);
    if (found == 1) {
        return CLI_GO;
    }
    (void)cli_fail(found ? "%s: '%s' is the beginning of more than one operation's id"
                         : "%s: no operation '%s'",
                   r->path, prefix);
    fprintf(stderr, "'godwit queue %s list --all' shows their ids.\n", r->path);
    return CLI_FAILED;
}

static int show(godwit *g, const queue_request *r) {
    char id[37];
    sqlite3_stmt *stmt = NULL;
    if (r->id_count != 1) {
        return cli_usage_error("queue", "show wants the id of one operation");
    }
    int code = full_id(g, r, r->ids[0], id);
    if (code == CLI_GO) {
        code = cli_prepare(g, DETAIL_COLUMNS "FROM sync_queue WHERE id = ?1", &stmt);
    }
    if (code == CLI_GO) {
        sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
        code = cli_print_record(stmt, r->json);
        code = code == CLI_GO ? cli_fail("%s: operation %s is gone", r->path, id) : code;
    }
    sqlite3_finalize(stmt);
    return code;
}

/* Captured changes get their payload at sealing; an export without it would be of little use. */
static void seal_all(godwit *g) {
    bool more = true;
    while (more) {
        if (seal_run(g, PUSH_FILL_OPS, &more) != GODWIT_OK) {
            fprintf(stderr,
                    "Changes that no sync has seen yet are listed without their content.\n");
            return;
        }
    }
}

static int export_all(godwit *g) {
    sqlite3_stmt *stmt = NULL;
    seal_all(g);
    int code =
        cli_prepare(g, DETAIL_COLUMNS "FROM sync_queue WHERE " IS_OPEN " ORDER BY lsn", &stmt);
    if (code == CLI_GO) {
        code = cli_print_lines(stmt);
    }
    sqlite3_finalize(stmt);
    return code;
}

static int explain_refusal(godwit *g, const queue_request *r, const char *doing,
                           godwit_status status) {
    int code = cli_explain(g, r->path, doing, status);
    if (status == GODWIT_MISUSE) {
        fprintf(stderr, "Only an operation that was refused, blocked or is in conflict can be "
                        "decided by hand.\n");
    }
    return code;
}

static int retry_one(godwit *g, const queue_request *r, const char *given) {
    char id[37], new_id[37];
    int code = full_id(g, r, given, id);
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_retry(g, id, new_id);
    if (status != GODWIT_OK) {
        return explain_refusal(g, r, "retrying", status);
    }
    printf("%s\n", new_id);
    return CLI_OK;
}

/* The next failed operation that was not tried yet: ids are compared, so that one that fails again
 * can't keep the loop going. */
static int next_failed(godwit *g, const char *after, char id[37]) {
    sqlite3_stmt *stmt = NULL;
    int code = cli_prepare(
        g, "SELECT id FROM godwit_dead_letters WHERE id > ?1 ORDER BY id LIMIT 1", &stmt);
    id[0] = '\0';
    if (code == CLI_GO) {
        sqlite3_bind_text(stmt, 1, after, -1, SQLITE_STATIC);
        if (sqlite3_step(stmt) == SQLITE_ROW) {
            snprintf(id, 37, "%s", (const char *)sqlite3_column_text(stmt, 0));
        }
    }
    sqlite3_finalize(stmt);
    return code;
}

static int retry(godwit *g, const queue_request *r) {
    if (r->failed == (r->id_count > 0)) {
        return cli_usage_error("queue", "retry wants ids, or --failed for all that failed");
    }
    int code = CLI_OK;
    for (int i = 0; i < r->id_count && code == CLI_OK; i++) {
        code = retry_one(g, r, r->ids[i]);
    }
    char id[37] = "", after[37] = "";
    while (r->failed && code == CLI_OK) {
        code = next_failed(g, after, id);
        if (code != CLI_GO || !id[0]) {
            return code == CLI_GO ? CLI_OK : code;
        }
        memcpy(after, id, sizeof after);
        code = retry_one(g, r, id);
    }
    return code;
}

static int edit(godwit *g, const queue_request *r) {
    char id[37], new_id[37];
    if (r->id_count != 1 || !r->payload) {
        return cli_usage_error("queue", "edit wants one id and --payload JSON");
    }
    int code = full_id(g, r, r->ids[0], id);
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_edit(g, id, r->payload, new_id);
    if (status != GODWIT_OK) {
        return explain_refusal(g, r, "editing", status);
    }
    printf("%s\n", new_id);
    return CLI_OK;
}

static int discard(godwit *g, const queue_request *r) {
    char id[37];
    if (r->id_count != 1) {
        return cli_usage_error("queue", "discard wants the id of one operation");
    }
    int code = full_id(g, r, r->ids[0], id);
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_discard(g, id, r->reason);
    if (status != GODWIT_OK) {
        return explain_refusal(g, r, "discarding", status);
    }
    fprintf(stderr, "given up: %s; its content stays in the journal\n", id);
    return CLI_OK;
}

static int run(godwit *g, const char *action, const queue_request *r) {
    if (strcmp(action, "show") == 0) {
        return show(g, r);
    }
    if (strcmp(action, "retry") == 0) {
        return retry(g, r);
    }
    if (strcmp(action, "edit") == 0) {
        return edit(g, r);
    }
    if (strcmp(action, "discard") == 0) {
        return discard(g, r);
    }
    if (r->id_count > 0) {
        return cli_usage_error("queue", "'%s' is one argument too many", r->ids[0]);
    }
    return strcmp(action, "export") == 0 ? export_all(g) : list(g, r);
}

int cli_queue(int argc, char **argv) {
    static const char *const actions[] = {"list", "show", "retry", "edit", "discard", "export"};
    queue_request r = {.limit = LIST_LIMIT};
    const cli_option options[] = {
        {.name = "--json", .flag = &r.json},     {.name = "--pending", .flag = &r.pending},
        {.name = "--failed", .flag = &r.failed}, {.name = "--all", .flag = &r.all},
        {.name = "--limit", .number = &r.limit}, {.name = "--payload", .text = &r.payload},
        {.name = "--reason", .text = &r.reason},
    };
    const cli_spec spec = {"queue", help, options, COUNT_OF(options), 1, 1000};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    const char *action = NULL;
    if (code == CLI_GO) {
        code = cli_action(&spec, argv, count, actions, COUNT_OF(actions), &action);
    }
    if (code != CLI_GO) {
        return code;
    }
    godwit *g = NULL;
    r.path = argv[1];
    r.ids = argv + 3;
    r.id_count = count > 2 ? count - 2 : 0;
    code = cli_open(r.path, CLI_OPEN_TRACKED, NULL, &g);
    if (code == CLI_GO) {
        code = run(g, action, &r);
    }
    godwit_close(g);
    return code;
}
