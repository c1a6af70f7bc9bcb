/* One operation of a push, in its two forms.
 *
 *   in a stream    sequenceNumber, group, ctx, origin, nonce, wallMs; payload and base are JSON
 * *texts*, because their exact bytes are part of the key, which is recomputed here without one the
 * requirements' own: id, operation, entityType, entityId, idempotencyKey, payload (object or JSON
 * text), and optionally baseSeq, dependsOn (ids), resolves
 *
 * Values of columns are not looked at: that needs the registry. */
#include "core/limits.h"
#include "core/wire_internal.h"

#define ID_BYTES_MAX 255

static const slice empty_object = {"{}", 2};

static bool too_large(wire_context *c, const char *name) {
    return wire_refuse(c, 413, "too-large", "%s is over %u bytes", name, ROW_BYTES_MAX);
}

/* JSON text that must hold an object. */
static bool object_text(wire_context *c, slice text, const char *name, const json **out) {
    if (text.len > ROW_BYTES_MAX) {
        return too_large(c, name);
    }
    json_error error;
    godwit_status status = json_parse(c->a, text, out, &error);
    if (status == GODWIT_NOMEM) {
        return wire_nomem(c);
    }
    if (status != GODWIT_OK) {
        return wire_invalid(c, "%s is not valid JSON at byte %zu: %s", name, error.offset,
                            error.reason);
    }
    return json_is(*out, JSON_OBJECT) ? true : wire_invalid(c, "%s must hold an object", name);
}

static bool read_common(wire_context *c, const json *id, const json *entity_type,
                        const json *entity_id, wire_op *op) {
    return wire_read_text(c, id, "id", true, ID_BYTES_MAX, &op->id) &&
           wire_read_name(c, entity_type, "entityType", true, &op->entity_type) &&
           wire_read_text(c, entity_id, "entityId", true, ENTITY_ID_BYTES_MAX, &op->entity_id);
}

/* ---- In a stream ---- */

enum {
    F_ID,
    F_OPERATION,
    F_ENTITY_TYPE,
    F_ENTITY_ID,
    F_SEQ,
    F_KEY,
    F_GROUP,
    F_CTX,
    F_PAYLOAD,
    F_BASE,
    F_NONCE,
    F_WALL,
    F_DEPENDS,
    F_ORIGIN,
    F_REASON,
    F_RESOLVES,
    F_REVERTS,
    F_SCHEMA,
    F_COUNT
};
static const char *const stream_fields[F_COUNT] = {
    "id",        "operation", "entityType", "entityId", "sequenceNumber", "idempotencyKey",
    "group",     "ctx",       "payload",    "base",     "nonce",          "wallMs",
    "dependsOn", "origin",    "reason",     "resolves", "reverts",        "schema",
};

static bool read_group(wire_context *c, const json *node, wire_op *op) {
    static const char *const names[] = {"first", "size"};
    const json *f[COUNT_OF(names)];
    if (!json_is(node, JSON_OBJECT)) {
        return wire_invalid(c, node ? "group must be an object" : "group is missing");
    }
    return wire_members(c, node, "group.", names, COUNT_OF(names), f) &&
           wire_read_int(c, f[0], "group.first", true, 1, WIRE_NUMBER_MAX, &op->group_first) &&
           wire_read_int(c, f[1], "group.size", true, 1, GROUP_OPS_MAX, &op->group_size);
}

static bool read_ids(wire_context *c, const json *list, const char *name, slice *out) {
    bytes b;
    bool good = list->count > 0 && list->count <= RESOLVES_MAX;
    const json *item = json_first(list);
    bytes_init(&b, c->a->allocator, 0);
    for (uint32_t i = 0; good && i < list->count; i++, item = json_after(item)) {
        slice id;
        good = json_text(item, &id) && id.len > 0 && id.len <= ID_BYTES_MAX &&
               !memchr(id.ptr, ' ', id.len);
        bytes_text(&b, i ? " " : "");
        bytes_slice(&b, good ? id : SLICE(""));
    }
    *out = good && !b.failed ? arena_copy(c->a, bytes_view(&b)) : (slice){0};
    bytes_deinit(&b);
    if (!good) {
        return wire_invalid(c, "%s must be an id or a list of at most %d ids", name, RESOLVES_MAX);
    }
    return out->ptr ? true : wire_nomem(c);
}

static bool read_decides(wire_context *c, const json *resolves, const json *reverts, wire_op *op) {
    const json *ids = reverts ? reverts : resolves;
    const char *name = reverts ? "reverts" : "resolves";
    if (resolves && reverts) {
        return wire_invalid(c, "an operation resolves a conflict or reverts it, not both");
    }
    op->reverts = reverts != NULL;
    return json_is(ids, JSON_ARRAY)
               ? read_ids(c, ids, name, &op->resolves)
               : wire_read_text(c, ids, name, false, ID_BYTES_MAX, &op->resolves);
}

/* {"$":base,"salt":"..","<device>":seq-1}: the device's own entry is for readers, but must be true.
 */
static bool read_ctx(wire_context *c, const json *node, slice device, wire_op *op) {
    if (!json_is(node, JSON_OBJECT)) {
        return wire_invalid(c, node ? "ctx must be an object" : "ctx is missing");
    }
    bool salted = false;
    const json *key = json_first(node);
    for (uint32_t i = 0; i < node->count; i++, key = json_after(key + 1)) {
        const json *member = key + 1;
        if (slice_is(key->u.s, "$")) {
            if (!wire_read_int(c, member, "ctx.$", true, 0, WIRE_NUMBER_MAX, &op->base_seq)) {
                return false;
            }
        } else if (slice_is(key->u.s, "salt")) {
            slice text = {NULL, 0};
            salted = json_text(member, &text) && wire_u64_parse(text, &op->base_salt);
            if (!salted) {
                return wire_invalid(c, "ctx.salt must be 16 hex digits");
            }
        } else if (slice_equal(key->u.s, device)) {
            int64_t own = 0;
            if (!json_int(member, &own) || own != op->seq - 1) {
                return wire_invalid(c, "ctx: the device's own entry must be sequenceNumber - 1");
            }
        } else {
            return wire_invalid(c, "ctx has an entry of another device");
        }
    }
    return salted || op->base_seq == 0 ? true : wire_invalid(c, "ctx.salt is missing");
}

static bool read_origin(wire_context *c, const json *node, slice device, wire_op *op) {
    static const char *const names[] = {"lineage", "lsn", "rekeyed"};
    const json *f[COUNT_OF(names)];
    op->lineage = device;
    if (!json_is(node, JSON_OBJECT)) {
        return wire_invalid(c, node ? "origin must be an object" : "origin is missing");
    }
    return wire_members(c, node, "origin.", names, COUNT_OF(names), f) &&
           (!f[0] || wire_read_device(c, f[0], "origin.lineage", &op->lineage)) &&
           wire_read_int(c, f[1], "origin.lsn", true, 1, WIRE_NUMBER_MAX, &op->lsn) &&
           wire_read_bool(c, f[2], "origin.rekeyed", &op->rekeyed);
}

static bool read_depends(wire_context *c, const json *node, wire_op *op) {
    if (!node) {
        return true;
    }
    if (!json_is(node, JSON_ARRAY)) {
        return wire_invalid(c, "dependsOn must be a list");
    }
    if (node->count > DEPENDS_MAX) {
        return wire_invalid(c, "dependsOn has over %d entries", DEPENDS_MAX);
    }
    int64_t *list = ARENA_ARRAY(c->a, int64_t, node->count);
    if (!list) {
        return wire_nomem(c);
    }
    const json *item = json_first(node);
    for (uint32_t i = 0; i < node->count; i++, item = json_after(item)) {
        if (!json_int(item, &list[i]) || list[i] < 1 || list[i] >= op->seq) {
            return wire_invalid(c, "dependsOn must name earlier sequence numbers");
        }
    }
    op->depends_on = list;
    op->depends_count = node->count;
    return true;
}

static bool read_content(wire_context *c, const json *const f[F_COUNT], wire_op *op) {
    op->payload = empty_object;
    op->base = empty_object;
    slice nonce = {NULL, 0};
    if (!wire_read_text(c, f[F_PAYLOAD], "payload", op->kind != OP_DELETE, SIZE_MAX,
                        &op->payload) ||
        !wire_read_text(c, f[F_BASE], "base", false, SIZE_MAX, &op->base) ||
        !object_text(c, op->payload, "payload", &op->payload_node) ||
        !object_text(c, op->base, "base", &op->base_node) ||
        !wire_read_int(c, f[F_WALL], "wallMs", true, -WIRE_NUMBER_MAX, WIRE_NUMBER_MAX,
                       &op->wall_ms) ||
        !wire_read_text(c, f[F_NONCE], "nonce", true, SIZE_MAX, &nonce)) {
        return false;
    }
    return wire_u64_parse(nonce, &op->nonce) ? true
                                             : wire_invalid(c, "nonce must be 16 hex digits");
}

static bool check_key(wire_context *c, const wire_op *op, slice scope) {
    id_key_parts parts = {.scope = scope,
                          .lineage = op->lineage,
                          .lsn = op->lsn,
                          .nonce = op->nonce,
                          .kind = op->kind,
                          .entity_type = op->entity_type,
                          .entity_id = op->entity_id,
                          .base_seq = op->base_seq,
                          .base_salt = op->base_salt,
                          .wall_ms = op->wall_ms,
                          .payload = op->payload,
                          .base = op->base};
    uint8_t key[SHA256_BYTES];
    id_operation_key(&parts, key);
    if (memcmp(key, op->key, sizeof(key)) != 0) {
        return wire_refuse(c, 400, "key-mismatch",
                           "operations[%ld]: idempotencyKey does not match the content", c->op);
    }
    return true;
}

/* A place in the stream whose operation was given up: nothing to hash, nothing to apply. */
static bool read_void(wire_context *c, const json *const f[F_COUNT], wire_op *op) {
    if (f[F_PAYLOAD] || f[F_BASE]) {
        return wire_invalid(c, "a void carries no payload and no base");
    }
    op->reason = CODE_POISON;
    slice text = {NULL, 0};
    if (!wire_read_text(c, f[F_REASON], "reason", false, NAME_BYTES_MAX, &text)) {
        return false;
    }
    if (f[F_REASON] && (!op_code_parse(text, &op->reason) ||
                        (op->reason != CODE_POISON && op->reason != CODE_DISCARDED &&
                         op->reason != CODE_DEPENDENCY_FAILED))) {
        return wire_invalid(c, "reason must be poison, discarded or dependency-failed");
    }
    return wire_read_int(c, f[F_WALL], "wallMs", false, -WIRE_NUMBER_MAX, WIRE_NUMBER_MAX,
                         &op->wall_ms);
}

static bool read_stream_op(wire_context *c, const json *node, const push_request *request,
                           slice scope, wire_op *op) {
    const json *f[F_COUNT];
    slice kind = {NULL, 0};
    slice key = {NULL, 0};
    if (!wire_members(c, node, "", stream_fields, F_COUNT, f) ||
        !read_common(c, f[F_ID], f[F_ENTITY_TYPE], f[F_ENTITY_ID], op) ||
        !wire_read_text(c, f[F_OPERATION], "operation", true, SIZE_MAX, &kind) ||
        !wire_read_int(c, f[F_SEQ], "sequenceNumber", true, 1, WIRE_NUMBER_MAX, &op->seq) ||
        !wire_read_text(c, f[F_KEY], "idempotencyKey", true, SIZE_MAX, &key)) {
        return false;
    }
    op->kind = op_kind_parse(kind);
    if (op->kind == OP_NONE) {
        /* Its key can't be checked, so it can't take its place in the stream either. */
        return wire_invalid(c, "unknown operation");
    }
    if (!id_hex_decode(key, op->key, SHA256_BYTES)) {
        return wire_invalid(c, "idempotencyKey must be 64 hex digits");
    }
    if (!read_group(c, f[F_GROUP], op) || !read_origin(c, f[F_ORIGIN], request->device_id, op) ||
        !read_depends(c, f[F_DEPENDS], op)) {
        return false;
    }
    if (op->kind == OP_VOID) {
        return (!f[F_CTX] || read_ctx(c, f[F_CTX], request->device_id, op)) && read_void(c, f, op);
    }
    if (f[F_REASON]) {
        return wire_invalid(c, "reason belongs to a void");
    }
    return read_decides(c, f[F_RESOLVES], f[F_REVERTS], op) &&
           wire_read_int(c, f[F_SCHEMA], "schema", false, 0, WIRE_NUMBER_MAX, &op->schema) &&
           read_ctx(c, f[F_CTX], request->device_id, op) && read_content(c, f, op) &&
           check_key(c, op, scope);
}

/* ---- Without a stream ---- */

enum {
    P_ID,
    P_OPERATION,
    P_ENTITY_TYPE,
    P_ENTITY_ID,
    P_KEY,
    P_PAYLOAD,
    P_BASE_SEQ,
    P_DEPENDS,
    P_RESOLVES,
    P_REVERTS,
    P_SCHEMA,
    P_COUNT
};
static const char *const plain_fields[P_COUNT] = {
    "id",      "operation", "entityType", "entityId", "idempotencyKey", "payload",
    "baseSeq", "dependsOn", "resolves",   "reverts",  "schema",
};

static bool read_plain_payload(wire_context *c, const json *node, wire_op *op) {
    op->payload = empty_object;
    op->base = empty_object;
    if (json_is(node, JSON_OBJECT)) {
        op->payload = node->u.s;
        op->payload_node = node;
        if (op->payload.len > ROW_BYTES_MAX) {
            return too_large(c, "payload");
        }
    } else if (node && !json_text(node, &op->payload)) {
        return wire_invalid(c, "payload must be an object or the text of one");
    } else if (!object_text(c, op->payload, "payload", &op->payload_node)) {
        return false;
    }
    return object_text(c, op->base, "base", &op->base_node);
}

static bool read_plain_depends(wire_context *c, const json *node, wire_op *op) {
    if (!node) {
        return true;
    }
    bool one = json_is(node, JSON_STRING);
    if (!one && !json_is(node, JSON_ARRAY)) {
        return wire_invalid(c, "dependsOn must be a list of ids");
    }
    size_t count = one ? 1 : node->count;
    if (count > DEPENDS_MAX) {
        return wire_invalid(c, "dependsOn has over %d entries", DEPENDS_MAX);
    }
    slice *ids = ARENA_ARRAY(c->a, slice, count);
    if (!ids) {
        return wire_nomem(c);
    }
    const json *item = one ? node : json_first(node);
    for (size_t i = 0; i < count; i++, item = json_after(item)) {
        if (!json_text(item, &ids[i])) {
            return wire_invalid(c, "dependsOn must be a list of ids");
        }
    }
    op->depends_ids = ids;
    op->depends_count = count;
    return true;
}

static bool read_plain_op(wire_context *c, const json *node, const push_request *request,
                          wire_op *op) {
    const json *f[P_COUNT];
    slice kind = {NULL, 0};
    op->base_commit = -1;
    op->wall_ms = request->wall_ms;
    op->schema = WIRE_SCHEMA_NOW;
    if (!wire_members(c, node, "", plain_fields, P_COUNT, f) ||
        !read_common(c, f[P_ID], f[P_ENTITY_TYPE], f[P_ENTITY_ID], op) ||
        !wire_read_text(c, f[P_OPERATION], "operation", true, SIZE_MAX, &kind) ||
        !wire_read_text(c, f[P_KEY], "idempotencyKey", true, IDEM_KEY_BYTES_MAX, &op->key_text) ||
        !wire_read_int(c, f[P_BASE_SEQ], "baseSeq", false, 0, WIRE_NUMBER_MAX, &op->base_commit) ||
        !wire_read_int(c, f[P_SCHEMA], "schema", false, 0, WIRE_NUMBER_MAX, &op->schema) ||
        !read_decides(c, f[P_RESOLVES], f[P_REVERTS], op)) {
        return false;
    }
    op->kind = op_kind_parse(kind);
    if (op->kind == OP_VOID) {
        op->kind = OP_NONE; /* there is no place to keep without a stream */
    }
    if (op->key_text.len == 0) {
        return wire_invalid(c, "idempotencyKey is empty");
    }
    return read_plain_payload(c, f[P_PAYLOAD], op) && read_plain_depends(c, f[P_DEPENDS], op);
}

bool wire_op_read(wire_context *c, const json *node, const push_request *request,
                  slice effective_scope, wire_op *op) {
    memset(op, 0, sizeof(*op));
    if (!json_is(node, JSON_OBJECT)) {
        return wire_invalid(c, "an operation must be an object");
    }
    return request->stream ? read_stream_op(c, node, request, effective_scope, op)
                           : read_plain_op(c, node, request, op);
}
