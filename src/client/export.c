/* godwit_export: operations as JSON, one object after the other, so that nothing that is not done
 * can be lost with the device. */
#include "client/client.h"
#include "core/limits.h"

enum {
    AT_ID,
    AT_OPERATION,
    AT_TYPE,
    AT_ENTITY,
    AT_STATUS,
    AT_STATE,
    AT_CODE,
    AT_DETAIL,
    AT_SCOPE,
    AT_CREATED,
    AT_ATTEMPTED,
    AT_CLIENT_KEY,
    AT_KEY,
    AT_DEPENDS,
    AT_SEQUENCE,
    AT_GROUP,
    AT_ATTEMPTS,
    AT_PAYLOAD,
    AT_BASE
};

#define EXPORT                                                                                     \
    "SELECT q.id, q.operation, q.entity_type, q.entity_id, q.status, q.state, o.last_error_code,"  \
    " q.last_error, q.scope, q.created_at, q.last_attempt_at, q.client_key, q.idempotency_key,"    \
    " q.depends_on, q.sequence_number, q.group_first, q.attempts, q.payload, o.base FROM"          \
    " sync_queue AS q LEFT JOIN godwit_op AS o ON o.lsn = q.lsn WHERE "
#define WAITING "q.lsn IN (SELECT lsn FROM godwit_dead_letters)"

static void write_list(bytes *b, slice ids) {
    bool first = true;
    bytes_char(b, '[');
    while (ids.len) {
        const char *comma = memchr(ids.ptr, ',', ids.len);
        size_t len = comma ? (size_t)(comma - ids.ptr) : ids.len;
        json_comma(b, &first);
        json_write_text(b, (slice){ids.ptr, len});
        len += comma != NULL;
        ids.ptr += len;
        ids.len -= len;
    }
    bytes_char(b, ']');
}

static void write_operation(bytes *b, sqlite3_stmt *q) {
    static const char *const names[] = {
        "id",     "operation", "entityType", "entityId",      "status",    "state",         "code",
        "detail", "scope",     "createdAt",  "lastAttemptAt", "clientKey", "idempotencyKey"};
    bool first = true;
    bytes_char(b, '{');
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        slice text = db_column_slice(q, (int)i);
        if (text.ptr) {
            json_key(b, &first, names[i]);
            json_write_text(b, text);
        }
    }
    json_key(b, &first, "dependsOn");
    write_list(b, db_column_slice(q, AT_DEPENDS));
    json_key(b, &first, "sequenceNumber");
    bytes_int(b, sqlite3_column_int64(q, AT_SEQUENCE));
    json_key(b, &first, "group");
    bytes_int(b, sqlite3_column_int64(q, AT_GROUP));
    json_key(b, &first, "attempts");
    bytes_int(b, sqlite3_column_int64(q, AT_ATTEMPTS));
    for (int i = AT_PAYLOAD; i <= AT_BASE; i++) {
        slice text = db_column_slice(q, i);
        json_key(b, &first, i == AT_PAYLOAD ? "payload" : "base");
        bytes_slice(b, text.ptr ? text : SLICE("null"));
    }
    bytes_char(b, '}');
}

/* Captured changes get their payload at sealing, and their texts are checked there. */
static godwit_status seal_all(godwit *g) {
    bool more = true;
    godwit_status status = GODWIT_OK;
    while (more && status == GODWIT_OK) {
        status = seal_run(g, PUSH_FILL_OPS, &more);
    }
    /* no scope is known yet, or an open transaction: listed without payload */
    return status == GODWIT_MISUSE || status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status export_all(godwit *g, int failed_only, godwit_line_fn line, void *context) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    bytes b;
    bytes_init(&b, g->allocator, 0);
    godwit_status status = seal_all(g);
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db,
                            failed_only ? EXPORT WAITING " ORDER BY q.lsn"
                                        : EXPORT "q.state IN ('captured', 'pending', 'parked') OR"
                                                 " " WAITING " ORDER BY q.lsn",
                            &stmt);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(&g->db, stmt, &row);
        if (status == GODWIT_OK && row) {
            bytes_clear(&b);
            write_operation(&b, stmt);
            status = b.failed ? GODWIT_NOMEM : GODWIT_OK;
        }
        if (status == GODWIT_OK && row && line(context, b.ptr, b.len) != 0) {
            break;
        }
    }
    db_done(&g->db, stmt);
    bytes_deinit(&b);
    return status;
}

godwit_status godwit_export(godwit *g, int failed_only, godwit_line_fn line, void *context) {
    if (!line) {
        return GODWIT_MISUSE;
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, export_all(g, failed_only, line, context))
                               : status;
}
