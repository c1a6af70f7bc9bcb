/* Answers to registration, and pages of a snapshot. */
#include "core/wire_internal.h"

static void read_scope(wire_answer *r, const json *node, register_scope *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->scope = wire_answer_text(r, node, "scope");
    out->head = wire_answer_int(r, node, "head");
    out->applied_seq = wire_answer_int(r, node, "appliedSeq");
    out->has_last_key = wire_answer_opt_key(r, node, "lastKey", out->last_key);
}

static void read_register(wire_answer *r, const json *root, register_answer *out) {
    out->device_id = wire_answer_text(r, root, "deviceId");
    out->server_id = wire_answer_opt_text(r, root, "serverId");
    const json *list = wire_answer_opt(r, root, "scopes", JSON_ARRAY);
    r->broken = r->broken || !list;
    out->scopes = wire_answer_list(r, list, sizeof(register_scope), &out->scope_count);
    const json *item = json_first(list);
    for (size_t i = 0; i < out->scope_count; i++, item = json_after(item)) {
        read_scope(r, item, &out->scopes[i]);
    }
    out->tables = wire_answer_opt(r, root, "tables", JSON_ARRAY);
    out->names = wire_answer_opt_text(r, root, "names");
}

godwit_status wire_register_answer_parse(arena *a, slice body, register_answer *out) {
    memset(out, 0, sizeof(*out));
    wire_answer r;
    const json *root = NULL;
    godwit_status status = wire_answer_begin(&r, a, body, &root);
    if (status == GODWIT_OK) {
        read_register(&r, root, out);
        status = wire_answer_status(&r);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}

static void read_row(wire_answer *r, const json *node, snapshot_row *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->entity_type = wire_answer_text(r, node, "entityType");
    out->entity_id = wire_answer_text(r, node, "entityId");
    out->ver = wire_answer_int(r, node, "ver");
    out->columns = wire_answer_opt(r, node, "columns", JSON_OBJECT);
    r->broken = r->broken || !out->columns;
    const json *clock = wire_answer_opt(r, node, "vectorClock", JSON_OBJECT);
    out->vector_clock = clock ? clock->u.s : (slice){NULL, 0};
}

static void read_snapshot(wire_answer *r, const json *root, snapshot_answer *out) {
    const json *list = wire_answer_opt(r, root, "rows", JSON_ARRAY);
    r->broken = r->broken || !list;
    out->rows = wire_answer_list(r, list, sizeof(snapshot_row), &out->row_count);
    const json *item = json_first(list);
    for (size_t i = 0; i < out->row_count; i++, item = json_after(item)) {
        read_row(r, item, &out->rows[i]);
    }
    out->as_of = wire_answer_int(r, root, "asOf");
    out->salt = wire_answer_salt(r, root, "salt");
    out->head = wire_answer_int(r, root, "head");
    out->token = wire_answer_opt_text(r, root, "token");
    out->cursor = wire_answer_text(r, root, "cursor");
    out->names = wire_answer_opt_text(r, root, "names");
    out->more = wire_answer_opt_bool(r, root, "more");
    if (out->more && out->token.len == 0) {
        r->broken = true; /* there would be no way to go on */
    }
}

godwit_status wire_snapshot_answer_parse(arena *a, slice body, snapshot_answer *out) {
    memset(out, 0, sizeof(*out));
    wire_answer r;
    const json *root = NULL;
    godwit_status status = wire_answer_begin(&r, a, body, &root);
    if (status == GODWIT_OK) {
        read_snapshot(&r, root, out);
        status = wire_answer_status(&r);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}
