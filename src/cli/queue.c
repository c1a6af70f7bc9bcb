/* queue: the operations of a database: listing, looking, exporting. What a person can do with
 * refused ones is in repair.c. */
#include <errno.h>

#include "cli/queue.h"

static const char help[] =
    "Usage: godwit queue APP.db [list] [--pending|--failed|--all] [--limit N] [--json]\n"
    "       godwit queue APP.db show ID [--json]\n"
    "       godwit queue APP.db wait ID [--timeout MS] [--json]\n"
    "       godwit queue APP.db retry (ID.. | --failed) [--json]\n"
    "       godwit queue APP.db edit ID --payload JSON [--json]\n"
    "       godwit queue APP.db edit --from FILE [--json]\n"
    "       godwit queue APP.db discard (ID.. | --failed) [--reason TEXT] [--json]\n"
    "       godwit queue APP.db export [--failed] > FILE\n\n"
    "list      operations that are not done (default), pending, failed, or all that are kept\n"
    "show      one operation with its content, its error and what became of it\n"
    "wait      sync until the server has decided the operation, then show it (default 60000 ms)\n"
    "retry     make refused operations again, as new ones; what was one transaction stays one, "
    "and\n"
    "          what was held back only because of them goes with them\n"
    "edit      the same with another content (replaces the whole payload); --from reads objects\n"
    "          with id and payload, one per line, as export writes them ('-' = standard input)\n"
    "discard   give refused operations up; their content stays in the journal\n"
    "export    what is not done, one JSON object per line\n\n"
    "retry and edit print the ids of the new operations. An id may be given by its beginning.\n\n"
    "Examples:\n"
    "  godwit queue app.db\n"
    "  godwit queue app.db list --failed --json\n"
    "  godwit queue app.db show 0197a4c2-0000-8000-8000-000000000001\n"
    "  godwit queue app.db edit 0197a4c2-0000-8000-8000-000000000001 --payload "
    "'{\"title\":\"Well\"}'\n"
    "  godwit queue app.db export --failed > failed.ndjson\n"
    "  godwit queue app.db edit --from failed.ndjson\n"
    "  godwit queue app.db discard --failed --reason 'entered twice'\n";

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
#define DETAIL                                                                                     \
    "SELECT q.id AS id, q.operation AS operation, q.entity_type AS entityType, q.entity_id AS "    \
    "entityId, q.status AS status, q.state AS state, r.outcome AS outcome, r.code AS code, "       \
    "r.resolution AS resolution, r.reason AS reason, r.superseded_by AS supersededBy, "            \
    "r.supersedes AS supersedes, r.commit_seq AS commitSeq, q.scope AS scope, q.sequence_number "  \
    "AS sequenceNumber, q.idempotency_key AS idempotencyKey, q.attempts AS attempts, "             \
    "q.created_at AS createdAt, q.last_attempt_at AS lastAttemptAt, q.next_attempt_at AS "         \
    "nextAttemptAt, q.last_error AS lastError, q.depends_on AS dependsOn, r.replaced AS "          \
    "\"replaced:json\", q.payload AS \"payload:json\" FROM sync_queue AS q LEFT JOIN "             \
    "godwit_receipts AS r ON r.lsn = q.lsn AND r.id IS NOT NULL WHERE q.id = ?1"
#define IS_OPEN    "(state IN ('captured', 'pending', 'parked') OR " IS_FAILED ")"
#define IS_PENDING "status = 'pending'"
#define IS_FAILED  "id IN (SELECT id FROM godwit_dead_letters)"

static int list(godwit *g, const cli_queue_request *r) {
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

int cli_queue_id(godwit *g, const cli_queue_request *r, const char *prefix, char id[37]) {
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

static int show_id(godwit *g, const cli_queue_request *r, const char *id) {
    sqlite3_stmt *stmt = NULL;
    int code = cli_prepare(g, DETAIL, &stmt);
    if (code == CLI_GO) {
        sqlite3_bind_text(stmt, 1, id, -1, SQLITE_STATIC);
        code = cli_print_record(stmt, r->json);
        code = code == CLI_GO ? cli_fail("%s: operation %s is gone", r->path, id) : code;
    }
    sqlite3_finalize(stmt);
    return code;
}

static int show(godwit *g, const cli_queue_request *r) {
    char id[37];
    if (r->id_count != 1) {
        return cli_usage_error("queue", "show wants the id of one operation");
    }
    int code = cli_queue_id(g, r, r->ids[0], id);
    return code == CLI_GO ? show_id(g, r, id) : code;
}

/* Exit 0 only where it took effect: a script can go on that. */
static int wait_for(godwit *g, const cli_queue_request *r) {
    char id[37];
    godwit_receipt receipt;
    if (r->id_count != 1) {
        return cli_usage_error("queue", "wait wants the id of one operation");
    }
    int code = cli_queue_id(g, r, r->ids[0], id);
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_wait(g, id, r->timeout_ms, &receipt);
    if (status != GODWIT_OK) {
        return cli_explain(g, r->path, "waiting", status);
    }
    code = show_id(g, r, id);
    bool effect = strcmp(receipt.outcome, "rejected") != 0 &&
                  strcmp(receipt.outcome, "conflict") != 0 &&
                  strcmp(receipt.outcome, "superseded") != 0;
    return code == CLI_OK && !effect ? CLI_FAILED : code;
}

static int print_line(void *context, const char *line, size_t bytes_count) {
    bool *failed = context;
    *failed = fwrite(line, 1, bytes_count, stdout) != bytes_count || putchar('\n') == EOF;
    return *failed;
}

static int export_all(godwit *g, const cli_queue_request *r) {
    bool failed = false;
    godwit_status status = godwit_export(g, r->failed, print_line, &failed);
    if (status != GODWIT_OK) {
        return cli_explain(g, r->path, "exporting", status);
    }
    return failed || fflush(stdout) != 0
               ? cli_fail("could not write the export: %s", strerror(errno))
               : CLI_OK;
}

static int run(godwit *g, const char *action, const cli_queue_request *r) {
    if (strcmp(action, "show") == 0) {
        return show(g, r);
    }
    if (strcmp(action, "wait") == 0) {
        return wait_for(g, r);
    }
    if (strcmp(action, "retry") == 0) {
        return cli_queue_retry(g, r);
    }
    if (strcmp(action, "edit") == 0) {
        return cli_queue_edit(g, r);
    }
    if (strcmp(action, "discard") == 0) {
        return cli_queue_discard(g, r);
    }
    if (r->id_count > 0) {
        return cli_usage_error("queue", "'%s' is one argument too many", r->ids[0]);
    }
    return strcmp(action, "export") == 0 ? export_all(g, r) : list(g, r);
}

int cli_queue(int argc, char **argv) {
    static const char *const actions[] = {"list", "show",    "wait",  "retry",
                                          "edit", "discard", "export"};
    cli_queue_request r = {.limit = LIST_LIMIT};
    const cli_option options[] = {
        {.name = "--json", .flag = &r.json},       {.name = "--pending", .flag = &r.pending},
        {.name = "--failed", .flag = &r.failed},   {.name = "--all", .flag = &r.all},
        {.name = "--limit", .number = &r.limit},   {.name = "--timeout", .number = &r.timeout_ms},
        {.name = "--payload", .text = &r.payload}, {.name = "--reason", .text = &r.reason},
        {.name = "--from", .text = &r.from},
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
