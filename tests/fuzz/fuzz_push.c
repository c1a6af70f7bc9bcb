/* A push as it arrives. What is accepted with stream fields is written again by the client's writer
 * and accepted again: both sides have one idea of the format. */
#include "fuzz.h"

#include "core/wire.h"

static void write_again(arena *a, slice scope, const push_request *r, bool sync) {
    bytes text;
    bytes_init(&text, NULL, 0);
    push_head head = {.device_id = r->device_id,
                      .scope = scope,
                      .placed = r->op_count > 0,
                      .first_seq = r->first_seq,
                      .prev_key = r->has_prev_key ? r->prev_key : NULL,
                      .acked_seq = r->acked_seq,
                      .confirmed_seq = r->confirmed_seq,
                      .wall_ms = r->wall_ms,
                      .pull = sync && r->pull,
                      .cursor = r->cursor,
                      .limit = r->limit,
                      .tables = r->tables};
    wire_push_begin(&text, &head);
    bool first = true;
    for (size_t i = 0; i < r->op_count; i++) {
        wire_push_op(&text, &first, scope, &r->ops[i]);
    }
    wire_push_end(&text);
    FUZZ_CHECK(!text.failed);
    push_request again;
    wire_error error = {0};
    godwit_status status = wire_push_parse(a, bytes_view(&text), sync, scope, &again, &error);
    if (status != GODWIT_OK) {
        fprintf(stderr, "refused: %s: %s\n%.*s\n", error.type, error.detail, (int)text.len,
                text.ptr);
    }
    FUZZ_CHECK(status == GODWIT_OK && again.op_count == r->op_count);
    for (size_t i = 0; i < r->op_count; i++) {
        FUZZ_CHECK(memcmp(again.ops[i].key, r->ops[i].key, SHA256_BYTES) == 0);
    }
    bytes_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bool sync = fuzz_byte(&data, &size) & 1;
    arena a;
    arena_init(&a, NULL, 0);
    push_request r;
    wire_error error = {0};
    slice scope = slice_of("team");
    godwit_status status = wire_push_parse(&a, fuzz_slice(data, size), sync, scope, &r, &error);
    if (status == GODWIT_OK) {
        bool known = true;
        for (size_t i = 0; i < r.op_count; i++) {
            known = known && r.ops[i].kind != OP_NONE; /* an unknown name is refused one by one */
        }
        if (r.stream && r.op_count > 0 && known && !r.has_report) {
            write_again(&a, r.scope.len ? r.scope : scope, &r, sync);
        }
    } else if (status != GODWIT_NOMEM) {
        FUZZ_CHECK(error.http >= 400 && error.http < 500 && error.type && error.detail[0]);
    }
    arena_deinit(&a);
    return 0;
}
