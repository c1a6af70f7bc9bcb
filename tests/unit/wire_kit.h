/* Valid pushes for the tests of the wire, and texts with one part replaced. */
#ifndef TESTS_WIRE_KIT_H
#define TESTS_WIRE_KIT_H

#include "unit.h"

#include "core/wire.h"

#define KIT_SCOPE  SLICE("tenant-7")
#define KIT_DEVICE SLICE("0b6c0b6c0b6c0b6c0b6c0b6c0b6c0b6c")

static inline void kit_key(wire_op *op, slice scope) {
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
    id_operation_key(&parts, op->key);
}

/* Sequence numbers 41 on: a group of two (update, create that depends on it), a delete, a void. */
#define KIT_OPS 4
static inline void kit_ops(wire_op ops[KIT_OPS]) {
    static const int64_t depends[] = {41, 7};
    memset(ops, 0, KIT_OPS * sizeof(ops[0]));
    for (size_t i = 0; i < KIT_OPS; i++) {
        ops[i].seq = 41 + (int64_t)i;
        ops[i].group_first = i < 2 ? 41 : ops[i].seq;
        ops[i].group_size = i < 2 ? 2 : 1;
        ops[i].entity_type = SLICE("pins");
        ops[i].lineage = KIT_DEVICE;
        ops[i].lsn = 977 + (int64_t)i;
        ops[i].nonce = INT64_MIN + (int64_t)i;
        ops[i].wall_ms = INT64_C(1767323040000) + (int64_t)i;
        ops[i].payload = SLICE("{}");
        ops[i].base = SLICE("{}");
    }
    ops[0].id = SLICE("op-a");
    ops[0].kind = OP_UPDATE;
    ops[0].entity_id = SLICE("p-1");
    ops[0].base_seq = 1207;
    ops[0].base_salt = -2;
    ops[0].payload = SLICE("{\"title\":\"Well \\\"3\\\" \\u00e9\"}");
    ops[0].base = SLICE("{\"title\":\"Well\"}");
    ops[1].id = SLICE("op-b");
    ops[1].kind = OP_CREATE;
    ops[1].entity_type = SLICE("forms");
    ops[1].entity_id = SLICE("f-9");
    ops[1].payload = SLICE("{\"id\":\"f-9\",\"pin_id\":\"p-1\"}");
    ops[1].depends_on = depends;
    ops[1].depends_count = 2;
    ops[1].rekeyed = true;
    ops[2].id = SLICE("op-c");
    ops[2].kind = OP_DELETE;
    ops[2].entity_id = SLICE("p-2");
    ops[2].base = SLICE("{\"id\":\"p-2\"}");
    ops[3].id = SLICE("op-d");
    ops[3].kind = OP_VOID;
    ops[3].entity_id = SLICE("p-3");
    ops[3].reason = CODE_DISCARDED;
    for (size_t i = 0; i < KIT_OPS; i++) {
        kit_key(&ops[i], KIT_SCOPE);
    }
}

static inline push_head kit_head(void) {
    return (push_head){.device_id = KIT_DEVICE,
                       .scope = KIT_SCOPE,
                       .timestamp = SLICE("2026-01-02T03:04:05.678Z"),
                       .placed = true,
                       .first_seq = 41,
                       .prev_key = (const uint8_t *)"0123456789abcdef0123456789abcdef",
                       .acked_seq = 40,
                       .confirmed_seq = 38,
                       .wall_ms = INT64_C(1767323045678),
                       .pull = true,
                       .cursor = SLICE("AQAAAA"),
                       .limit = 500,
                       .tables = SLICE("pins,forms"),
                       .report = SLICE("{\"pending\":2}")};
}

/* The push of kit_ops for /v1/sync. */
static inline slice kit_push(arena *a) {
    wire_op ops[KIT_OPS];
    kit_ops(ops);
    push_head head = kit_head();
    bytes b;
    bytes_init(&b, NULL, 0);
    wire_push_begin(&b, &head);
    bool first = true;
    for (size_t i = 0; i < KIT_OPS; i++) {
        wire_push_op(&b, &first, head.device_id, &ops[i]);
    }
    wire_push_end(&b);
    slice text = arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    assert_non_null(text.ptr);
    return text;
}

/* `text` with its first `from` replaced; fails the test when there is none. */
static inline slice kit_replace(arena *a, slice text, const char *from, const char *to) {
    const char *at = strstr(text.ptr, from);
    if (!at) {
        fail_msg("no %s to replace", from);
        return text;
    }
    return slice_of(
        arena_printf(a, "%.*s%s%s", (int)(at - text.ptr), text.ptr, to, at + strlen(from)));
}

#endif
