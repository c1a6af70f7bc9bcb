/* Requests to bytes: a client's push, written head first and then operation by operation as the
 * queue is read, and registration. What is written here is what wire_request.c reads. */
#include "core/wire_internal.h"

static void key_text(bytes *b, bool *first, const char *name, slice text) {
    json_key(b, first, name);
    json_write_text(b, text);
}

static void key_int(bytes *b, bool *first, const char *name, int64_t v) {
    json_key(b, first, name);
    bytes_int(b, v);
}

static void key_u64(bytes *b, bool *first, const char *name, int64_t v) {
    char text[17];
    wire_u64_write(v, text);
    key_text(b, first, name, (slice){text, 16});
}

void wire_push_begin(bytes *b, const push_head *h) {
    bool first = true;
    bytes_char(b, '{');
    key_text(b, &first, "deviceId", h->device_id);
    if (h->timestamp.len) {
        key_text(b, &first, "timestamp", h->timestamp);
    }
    if (h->scope.len) {
        key_text(b, &first, "scope", h->scope);
    }
    if (h->placed) {
        key_int(b, &first, "firstSeq", h->first_seq);
        json_key(b, &first, "prevKey");
        json_write_hex(b, h->prev_key, h->prev_key ? SHA256_BYTES : 0);
    }
    key_int(b, &first, "ackedSeq", h->acked_seq);
    key_int(b, &first, "confirmedSeq", h->confirmed_seq);
    key_int(b, &first, "wallMs", h->wall_ms);
    if (h->report.len) {
        json_key(b, &first, "report");
        bytes_slice(b, h->report);
    }
    if (h->pull) {
        if (h->cursor.len) {
            key_text(b, &first, "cursor", h->cursor);
        }
        if (h->limit) {
            key_int(b, &first, "limit", h->limit);
        }
        if (h->tables.len) {
            key_text(b, &first, "tables", h->tables);
        }
        if (h->earlier_count) {
            bool first_item = true;
            json_key(b, &first, "earlier");
            bytes_char(b, '[');
            for (size_t i = 0; i < h->earlier_count; i++) {
                json_comma(b, &first_item);
                json_write_text(b, h->earlier[i]);
            }
            bytes_char(b, ']');
        }
    }
    json_key(b, &first, "operations");
    bytes_char(b, '[');
}

static void write_content(bytes *b, bool *first, const wire_op *op) {
    json_key(b, first, "ctx");
    bool first_entry = true;
    bytes_char(b, '{');
    key_int(b, &first_entry, "$", op->base_seq);
    if (op->base_seq || op->base_salt) {
        key_u64(b, &first_entry, "salt", op->base_salt);
    }
    bytes_char(b, '}');
    key_text(b, first, "payload", op->payload);
    if (!slice_is(op->base, "{}")) {
        key_text(b, first, "base", op->base);
    }
    key_u64(b, first, "nonce", op->nonce);
}

static void write_dependencies(bytes *b, bool *first, const wire_op *op) {
    if (op->depends_count == 0) {
        return;
    }
    json_key(b, first, "dependsOn");
    bytes_char(b, '[');
    bool first_item = true;
    for (size_t i = 0; i < op->depends_count; i++) {
        json_comma(b, &first_item);
        bytes_int(b, op->depends_on[i]);
    }
    bytes_char(b, ']');
}

/* Members that say what their absence says are left out. */
slice wire_resolves_next(slice *rest) {
    const char *end = rest->len ? memchr(rest->ptr, ' ', rest->len) : NULL;
    slice id = {rest->len ? rest->ptr : NULL, end ? (size_t)(end - rest->ptr) : rest->len};
    *rest = end ? (slice){end + 1, rest->len - id.len - 1} : (slice){0};
    return id;
}

static void write_resolves(bytes *b, bool *first, const wire_op *op) {
    slice rest = op->resolves, id = wire_resolves_next(&rest);
    bool first_id = true;
    if (!rest.len) {
        key_text(b, first, op->reverts ? "reverts" : "resolves", id);
        return;
    }
    json_key(b, first, op->reverts ? "reverts" : "resolves");
    bytes_char(b, '[');
    for (; id.ptr; id = wire_resolves_next(&rest)) {
        json_comma(b, &first_id);
        json_write_text(b, id);
    }
    bytes_char(b, ']');
}

void wire_push_op(bytes *b, bool *first, slice device_id, const wire_op *op) {
    json_comma(b, first);
    bool first_member = true;
    bytes_char(b, '{');
    key_text(b, &first_member, "id", op->id);
    key_text(b, &first_member, "operation", slice_of(op_kind_name(op->kind)));
    key_text(b, &first_member, "entityType", op->entity_type);
    key_text(b, &first_member, "entityId", op->entity_id);
    key_int(b, &first_member, "sequenceNumber", op->seq);
    json_key(b, &first_member, "idempotencyKey");
    json_write_hex(b, op->key, SHA256_BYTES);
    bytes_text(b, ",\"group\":{\"first\":");
    bytes_int(b, op->group_first);
    bytes_text(b, ",\"size\":");
    bytes_int(b, op->group_size);
    bytes_char(b, '}');
    if (op->kind == OP_VOID) {
        if (op->reason != CODE_NONE) {
            key_text(b, &first_member, "reason", slice_of(op_code_name(op->reason)));
        }
    } else {
        write_content(b, &first_member, op);
    }
    key_int(b, &first_member, "wallMs", op->wall_ms);
    if (op->resolves.len && op->kind != OP_VOID) {
        write_resolves(b, &first_member, op);
    }
    if (op->schema > 0 && op->kind != OP_VOID) {
        key_int(b, &first_member, "schema", op->schema);
    }
    write_dependencies(b, &first_member, op);
    bytes_text(b, ",\"origin\":{\"lsn\":");
    bytes_int(b, op->lsn);
    if (!slice_equal(op->lineage, device_id)) {
        bytes_text(b, ",\"lineage\":");
        json_write_text(b, op->lineage);
    }
    bytes_text(b, op->rekeyed ? ",\"rekeyed\":true}}" : "}}");
}

void wire_push_end(bytes *b) {
    bytes_text(b, "]}");
}

void wire_register_write(bytes *b, const register_request *r, const schema *tables) {
    bool first = true;
    bytes_char(b, '{');
    key_text(b, &first, "deviceId", r->device_id);
    key_text(b, &first, "lineage", r->lineage);
    json_key(b, &first, "scopes");
    bytes_char(b, '[');
    bool first_item = true;
    for (size_t i = 0; i < r->scope_count; i++) {
        json_comma(b, &first_item);
        json_write_text(b, r->scopes[i]);
    }
    bytes_char(b, ']');
    if (r->label.len) {
        key_text(b, &first, "label", r->label);
    }
    if (tables) {
        json_key(b, &first, "tables");
        bytes_char(b, '[');
        first_item = true;
        for (size_t i = 0; i < tables->table_count; i++) {
            json_comma(b, &first_item);
            schema_table_to_json(b, &tables->tables[i]);
        }
        bytes_char(b, ']');
    }
    bytes_char(b, '}');
}
