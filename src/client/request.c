/* Building requests: registration, push and pull in one, snapshot pages.
 *
 * A push is whole groups in the order of the stream, from the first operation the server has not
 * decided: what was sent before and not answered goes again, byte for byte. An operation that was
 * given up keeps its place as a void. */
#include "client/identity.h"
#include "client/op_sql.h"
#include "client/pump.h"

#include <stdio.h>

#include "core/limits.h"

#define REPORT_BYTES       200
#define ERROR_CODE_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789-"

/* ---- Identity and declaration ---- */

godwit_status request_declaration(godwit *g, slice scope, char hex[65], bytes *text) {
    schema declared;
    uint8_t digest[SHA256_BYTES];
    sha256 h;
    client_declaration(g, &declared);
    bytes_char(text, '[');
    for (size_t i = 0; i < declared.table_count; i++) {
        bytes_text(text, i ? "," : "");
        schema_table_to_json(text, &declared.tables[i]);
    }
    bytes_char(text, ']');
    if (text->failed) {
        return GODWIT_NOMEM;
    }
    arena a;
    slice label = {0}, url = {0}, device = {0};
    arena_init(&a, g->allocator, 0);
    godwit_status status = client_meta_text(g, &a, "label", &label);
    if (status == GODWIT_OK) {
        status = identity_current(g, &a, scope, &device);
    }
    if (status == GODWIT_OK) {
        status = client_meta_text(g, &a, "url", &url);
    }
    sha256_init(&h);
    sha256_update(&h, text->ptr, text->len);
    sha256_update(&h, label.ptr ? label.ptr : "", label.len);
    sha256_update(&h, url.ptr ? url.ptr : "", url.len); /* another server has to be told again */
    sha256_update(&h, device.ptr ? device.ptr : "", device.len); /* and of another identity */
    sha256_final(&h, digest);
    id_hex_encode(digest, sizeof digest, hex);
    arena_deinit(&a);
    return status;
}

godwit_status request_register(godwit *g, pump *p) {
    arena a;
    bytes text;
    schema declared;
    register_request r = {.scopes = &p->request.scope, .scope_count = 1};
    arena_init(&a, g->allocator, 0);
    bytes_init(&text, g->allocator, 0);
    godwit_status status = identity_current(g, &a, p->request.scope, &r.device_id);
    if (status == GODWIT_OK) {
        status = client_meta_text(g, &a, "lineage", &r.lineage);
    }
    if (status == GODWIT_OK) {
        status = client_meta_text(g, &a, "label", &r.label);
    }
    if (status == GODWIT_OK) {
        status = request_declaration(g, p->request.scope, p->request.declaration, &text);
    }
    if (status == GODWIT_OK) {
        client_declaration(g, &declared);
        p->request.method = "POST";
        bytes_text(&p->request.path, "/v1/devices");
        wire_register_write(&p->request.body, &r, &declared);
        status = p->request.body.failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    bytes_deinit(&text);
    arena_deinit(&a);
    return status;
}

/* ---- Push and pull ---- */

godwit_status request_first_lsn(godwit *g, slice scope, int64_t *lsn) {
    /* every branch says that it is not retired: SQLite needs to see the condition of the index */
    return db_int(
        &g->db, lsn,
        "SELECT coalesce(min(lsn), 9223372036854775807) FROM (SELECT min(lsn) AS lsn FROM"
        " godwit_op WHERE scope = ?1 AND state = 'pending' AND state <> 'retired' UNION ALL SELECT"
        " min(lsn) FROM godwit_op WHERE scope = ?1 AND state = 'blocked' AND state <> 'retired' AND"
        " commit_seq IS NULL AND sequence_number > 0 UNION ALL SELECT min(lsn) FROM godwit_op WHERE"
        " scope = ?1 AND state = 'rejected' AND state <> 'retired' AND commit_seq IS NULL AND"
        " sequence_number > 0 UNION ALL SELECT min(lsn) FROM godwit_op WHERE scope = ?1 AND state ="
        " 'conflict' AND state <> 'retired' AND commit_seq IS NULL AND sequence_number > 0)",
        "s", scope);
}

typedef struct {
    godwit *g;
    pump *p;
    arena a;
    push_head head;
    uint8_t prev_key[SHA256_BYTES];
    int64_t depends_on[DEPENDS_MAX];
    sqlite3_stmt *ops, *deps;
    bool first; /* of the JSON list */
    int max_ops;
    int64_t count; /* operations in whole groups */
} push_builder;

/* Identities before this one that have something the feed must still confirm. */
static godwit_status load_earlier(push_builder *b) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    slice *ids = ARENA_ARRAY(&b->a, slice, IDENTITIES_MAX);
    godwit_status status =
        ids ? db_prepare(&b->g->db,
                         "SELECT device_id FROM godwit_identity AS i WHERE scope = ?1 AND current ="
                         " 0 AND EXISTS (SELECT 1 FROM godwit_op AS o WHERE o.scope = ?1 AND"
                         " o.state = 'acked' AND o.state <> 'retired' AND o.device_id ="
                         " i.device_id) ORDER BY n DESC LIMIT ?2",
                         &stmt)
            : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = db_bind_slice(&b->g->db, stmt, 1, b->p->request.scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&b->g->db, stmt, 2, IDENTITIES_MAX);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(&b->g->db, stmt, &row);
        if (status == GODWIT_OK && row) {
            ids[b->head.earlier_count++] = arena_copy(&b->a, db_column_slice(stmt, 0));
        }
    }
    db_done(&b->g->db, stmt);
    b->head.earlier = ids;
    return status == GODWIT_OK && b->a.failed ? GODWIT_NOMEM : status;
}

static godwit_status load_head(push_builder *b) {
    godwit *g = b->g;
    slice scope = b->p->request.scope;
    int64_t floor_seq = 0;
    slice key = {0}, cursor = {0};
    godwit_status status = identity_current(g, &b->a, scope, &b->head.device_id);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &b->head.acked_seq,
                        "SELECT acked_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", scope, b->head.device_id);
    }
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &floor_seq,
                        "SELECT floor_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", scope, b->head.device_id);
    }
    if (status == GODWIT_OK) {
        status =
            db_text(&g->db, &b->a, &key,
                    "SELECT floor_key FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                    "ss", scope, b->head.device_id);
    }
    if (status == GODWIT_OK && key.len == SHA256_BYTES && floor_seq == b->head.acked_seq) {
        memcpy(b->prev_key, key.ptr, SHA256_BYTES);
        b->head.prev_key = b->prev_key;
    }
    if (status == GODWIT_OK) {
        status = db_text(&g->db, &b->a, &cursor,
                         "SELECT cursor FROM godwit_cursor WHERE scope = ?1", "s", scope);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    if (status == GODWIT_OK) {
        status = load_earlier(b);
    }
    b->head.scope = scope;
    b->head.cursor = cursor;
    b->head.confirmed_seq = b->head.acked_seq;
    b->head.first_seq = b->head.acked_seq + 1;
    bytes_clear(&b->p->request.cursor);
    bytes_slice(&b->p->request.cursor, cursor);
    return status;
}

static godwit_status load_dependencies(push_builder *b, wire_op *op) {
    bool row = true;
    godwit_status status = GODWIT_OK;
    op->depends_on = b->depends_on;
    if (!b->deps) {
        return status;
    }
    status = db_bind_int(&b->g->db, b->deps, 1, op->lsn);
    while (status == GODWIT_OK && row && op->depends_count < DEPENDS_MAX) {
        status = db_step(&b->g->db, b->deps, &row);
        if (status == GODWIT_OK && row) {
            b->depends_on[op->depends_count++] = sqlite3_column_int64(b->deps, 0);
        }
    }
    sqlite3_reset(b->deps);
    return status;
}

static op_code void_reason(op_state state, slice code) {
    op_code reason = CODE_NONE;
    if (state == OP_BLOCKED) {
        return CODE_DEPENDENCY_FAILED;
    }
    return op_code_parse(code, &reason) && (reason == CODE_POISON || reason == CODE_DISCARDED)
               ? reason
               : CODE_DISCARDED;
}

enum {
    AT_LSN,
    AT_SEQ,
    AT_FIRST,
    AT_SIZE,
    AT_OPERATION,
    AT_TYPE,
    AT_ENTITY,
    AT_KEY,
    AT_PAYLOAD,
    AT_BASE,
    AT_STATE,
    AT_BASE_SEQ,
    AT_BASE_SALT,
    AT_LINEAGE,
    AT_NONCE,
    AT_WALL,
    AT_REKEYED,
    AT_CODE,
    AT_RESOLVES,
    AT_SCHEMA
};

static int64_t blob_int(slice s) {
    uint64_t v = 0;
    for (size_t i = 0; i < s.len && i < 8; i++) {
        v = v << 8 | (unsigned char)s.ptr[i];
    }
    return (int64_t)v;
}

static godwit_status write_op(push_builder *b) {
    sqlite3_stmt *q = b->ops;
    char id[UUID_TEXT_BYTES];
    id_operation(db_column_slice(q, AT_LINEAGE), sqlite3_column_int64(q, AT_LSN), id);
    wire_op op = {.id = slice_of(id),
                  .kind = op_kind_parse(db_column_slice(q, AT_OPERATION)),
                  .entity_type = db_column_slice(q, AT_TYPE),
                  .entity_id = db_column_slice(q, AT_ENTITY),
                  .seq = sqlite3_column_int64(q, AT_SEQ),
                  .group_first = sqlite3_column_int64(q, AT_FIRST),
                  .group_size = sqlite3_column_int64(q, AT_SIZE),
                  .base_seq = sqlite3_column_int64(q, AT_BASE_SEQ),
                  .base_salt = sqlite3_column_int64(q, AT_BASE_SALT),
                  .payload = db_column_slice(q, AT_PAYLOAD),
                  .base = db_column_slice(q, AT_BASE),
                  .wall_ms = sqlite3_column_int64(q, AT_WALL),
                  .nonce = blob_int(db_column_slice(q, AT_NONCE)),
                  .lineage = db_column_slice(q, AT_LINEAGE),
                  .lsn = sqlite3_column_int64(q, AT_LSN),
                  .rekeyed = sqlite3_column_int(q, AT_REKEYED) != 0,
                  .resolves = db_column_slice(q, AT_RESOLVES),
                  .schema = sqlite3_column_int64(q, AT_SCHEMA)};
    op.reverts = resolve_is_revert(&op.resolves);
    slice key = db_column_slice(q, AT_KEY);
    op_state state = OP_PENDING;
    if (key.len != SHA256_BYTES || !op_state_parse(db_column_slice(q, AT_STATE), &state)) {
        return client_fail(b->g, GODWIT_CORRUPT, "operation %lld is damaged", (long long)op.lsn);
    }
    memcpy(op.key, key.ptr, SHA256_BYTES);
    godwit_status status = GODWIT_OK;
    if (state == OP_PENDING) {
        status = load_dependencies(b, &op);
    } else {
        op.kind = OP_VOID;
        op.reason = void_reason(state, db_column_slice(q, AT_CODE));
    }
    if (status == GODWIT_OK) {
        wire_push_op(&b->p->request.body, &b->first, b->head.device_id, &op);
        status = b->p->request.body.failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    return status;
}

static godwit_status prepare_ops(push_builder *b, int64_t first_lsn) {
    db *d = &b->g->db;
    int64_t deps = 0;
    godwit_status status =
        db_prepare(d,
                   "SELECT lsn, sequence_number, group_first, group_size, operation, entity_type, "
                   "entity_id,"
                   " idempotency_key, payload, base, state, base_seq, base_salt, " OP_LINEAGE
                   ", nonce, wall_ms, "
                   "rekeyed,"
                   " last_error_code, resolves, schema_ver FROM godwit_op AS o WHERE lsn >= ?1 AND "
                   "scope = ?2 AND "
                   "device_id = "
                   "?3 AND"
                   " sequence_number > ?4 ORDER BY lsn",
                   &b->ops);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, b->ops, 1, first_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, b->ops, 2, b->head.scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, b->ops, 3, b->head.device_id);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, b->ops, 4, b->head.acked_seq);
    }
    if (status == GODWIT_OK) {
        status = db_int(d, &deps, "SELECT EXISTS (SELECT 1 FROM godwit_dep WHERE lsn >= ?1)", "i",
                        first_lsn);
    }
    if (status == GODWIT_OK && deps) {
        status = db_prepare(
            d,
            "SELECT p.sequence_number FROM godwit_dep AS d JOIN godwit_op AS p ON p.lsn ="
            " d.depends_on JOIN godwit_op AS o ON o.lsn = d.lsn WHERE d.lsn = ?1 AND p.scope"
            " = o.scope AND p.device_id = o.device_id AND p.sequence_number > 0 ORDER BY 1",
            &b->deps);
    }
    return status;
}

/* Appends whole groups until the push is full; a group that does not fit beside others is taken off
 * again and comes alone the next time. */
static godwit_status write_groups(push_builder *b) {
    bytes *body = &b->p->request.body;
    size_t kept = body->len;
    int64_t in_group = 0;
    bool row = true;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && row) {
        status = db_step(&b->g->db, b->ops, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        int64_t size = sqlite3_column_int64(b->ops, AT_SIZE);
        if (in_group == 0 && b->count &&
            (b->count + size > b->max_ops || kept >= PUSH_FILL_BYTES)) {
            break;
        }
        status = write_op(b);
        in_group++;
        if (status == GODWIT_OK && in_group == size) {
            if (b->count && body->len > 2 * PUSH_FILL_BYTES) {
                in_group = 0;
                break;
            }
            kept = body->len;
            b->count += in_group;
            in_group = 0;
        }
    }
    body->len = kept;
    if (body->ptr) {
        body->ptr[kept] = 0;
    }
    return status;
}

/* What operators see of this device (semantics 13.3). */
static godwit_status write_report(godwit *g, char out[REPORT_BYTES]) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    out[0] = 0;
    godwit_status status =
        db_prepare(&g->db,
                   "SELECT pending_operations, failed_operations, oldest_pending_age_ms, (SELECT"
                   " substr(v, 1, 64) FROM godwit_meta WHERE k = 'last_error') FROM godwit_metrics",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        const char *error = (const char *)sqlite3_column_text(stmt, 3);
        bool plain = error && *error && strspn(error, ERROR_CODE_LETTERS) == strlen(error);
        snprintf(out, REPORT_BYTES,
                 "{\"pending\":%lld,\"failed\":%lld,\"oldestPendingMs\":%lld,\"lastError\":%s%s%s}",
                 (long long)sqlite3_column_int64(stmt, 0), (long long)sqlite3_column_int64(stmt, 1),
                 (long long)sqlite3_column_int64(stmt, 2), plain ? "\"" : "",
                 plain ? error : "null", plain ? "\"" : "");
    }
    db_done(&g->db, stmt);
    return status;
}

static godwit_status build_push(push_builder *b) {
    char at[32], report[REPORT_BYTES];
    int64_t first_lsn = INT64_MAX, next_seq = 1;
    int64_t now_ms = client_wall_ms(b->g);
    godwit_status status = load_head(b);
    if (status == GODWIT_OK) {
        status = db_int(&b->g->db, &next_seq,
                        "SELECT next_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", b->head.scope, b->head.device_id);
    }
    if (status == GODWIT_OK) {
        status = request_first_lsn(b->g, b->head.scope, &first_lsn);
    }
    wire_time_write(now_ms, at);
    if (status == GODWIT_OK) {
        status = write_report(b->g, report);
    }
    b->head.timestamp = slice_of(at);
    b->head.wall_ms = now_ms;
    b->head.report = slice_of(report);
    b->head.placed = true;
    bool any = b->max_ops > 0 && first_lsn != INT64_MAX && next_seq - 1 > b->head.acked_seq;
    /* one group alone goes without the feed: if the answer can't be understood, it is this group's
     */
    b->p->request.push_only = any && b->max_ops == 1;
    b->head.pull = !b->p->request.push_only;
    if (status == GODWIT_OK) {
        wire_push_begin(&b->p->request.body, &b->head);
    }
    if (status == GODWIT_OK && any) {
        status = prepare_ops(b, first_lsn);
        if (status == GODWIT_OK) {
            status = write_groups(b);
        }
    }
    wire_push_end(&b->p->request.body);
    b->p->request.first_seq = b->count ? b->head.first_seq : 0;
    b->p->request.last_seq = b->count ? b->head.first_seq + b->count - 1 : 0;
    return status == GODWIT_OK && b->p->request.body.failed ? GODWIT_NOMEM : status;
}

godwit_status request_sync(godwit *g, pump *p, int max_ops) {
    push_builder b = {.g = g, .p = p, .first = true, .max_ops = max_ops};
    arena_init(&b.a, g->allocator, 0);
    p->request.method = "POST";
    godwit_status status = build_push(&b);
    bytes_text(&p->request.path, p->request.push_only ? "/v1/sync/operations" : "/v1/sync");
    status = status == GODWIT_OK && p->request.path.failed ? GODWIT_NOMEM : status;
    db_done(&g->db, b.ops);
    db_done(&g->db, b.deps);
    arena_deinit(&b.a);
    return status;
}

/* ---- Snapshot ---- */

void request_percent(bytes *b, slice s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '_' || c == '.' || c == '~') {
            bytes_char(b, c);
        } else {
            bytes_printf(b, "%%%02X", (unsigned)(unsigned char)c);
        }
    }
}

godwit_status request_snapshot(godwit *g, pump *p) {
    arena a;
    slice token = {0}, device = {0};
    int64_t ready = 0;
    arena_init(&a, g->allocator, 0);
    godwit_status status =
        db_int(&g->db, &ready,
               "SELECT EXISTS (SELECT 1 FROM godwit_cursor WHERE scope = ?1 AND state ="
               " 'bootstrap')",
               "s", p->request.scope);
    if (status == GODWIT_OK && !ready) {
        status = bootstrap_require(g, p->request.scope);
    }
    if (status == GODWIT_OK) {
        status = bootstrap_token(g, &a, p->request.scope, &token);
    }
    if (status == GODWIT_OK) {
        status = identity_current(g, &a, p->request.scope, &device);
    }
    if (status == GODWIT_OK) {
        p->request.method = "GET";
        bytes_text(&p->request.path, "/v1/sync/snapshot?scope=");
        request_percent(&p->request.path, p->request.scope);
        bytes_text(&p->request.path, "&device=");
        request_percent(&p->request.path, device);
        if (token.len) {
            bytes_text(&p->request.path, "&token=");
            request_percent(&p->request.path, token);
        }
        bytes_clear(&p->request.cursor);
        bytes_slice(&p->request.cursor, token);
        status = p->request.path.failed || p->request.cursor.failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    arena_deinit(&a);
    return status;
}
