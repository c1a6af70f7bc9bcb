/* Builds push requests with the code a client uses. See pushes.h. */
#include "pushes.h"

#include <stdio.h>

#define WALL_MS INT64_C(1767323040000)

void bench_stream_init(bench_stream *s, unsigned number) {
    memset(s, 0, sizeof *s);
    snprintf(s->device, sizeof s->device, "%032x", number + 1);
    s->seed = number + 1000;
}

void bench_stream_register(const bench_stream *s, bytes *body) {
    slice scope = SLICE("s");
    register_request request = {.device_id = slice_of(s->device),
                                .lineage = slice_of(s->device),
                                .scopes = &scope,
                                .scope_count = 1};
    bytes_clear(body);
    wire_register_write(body, &request, NULL);
}

static void payload_of(bytes *b, const bench_row *row) {
    bool first = true;
    const char *const names[] = {"title", "note", "status", "updated_at"};
    const char *const texts[] = {row->title, row->note, row->status, row->updated_at};
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        json_key(b, &first, names[i]);
        json_write_text(b, slice_of(texts[i]));
    }
    json_key(b, &first, "lat");
    json_write_real(b, row->lat);
    json_key(b, &first, "lng");
    json_write_real(b, row->lng);
    bytes_char(b, '}');
}

void bench_stream_push(bench_stream *s, int64_t count, int64_t group, bytes *body) {
    push_head head = {.device_id = slice_of(s->device),
                      .scope = SLICE("s"),
                      .timestamp = SLICE("2026-01-02T03:04:00.000Z"),
                      .placed = true,
                      .first_seq = s->seq + 1,
                      .prev_key = s->seq ? s->last_key : NULL,
                      .acked_seq = s->seq,
                      .confirmed_seq = s->seq,
                      .wall_ms = WALL_MS};
    bytes payload;
    bytes_init(&payload, NULL, 0);
    bytes_clear(body);
    wire_push_begin(body, &head);
    bool first = true;
    for (int64_t i = 0; i < count; i++) {
        bench_row row;
        char id[64];
        int64_t seq = s->seq + 1;
        bench_row_make(&row, s->seed, (uint64_t)seq);
        payload_of(&payload, &row);
        snprintf(id, sizeof id, "%s-%lld", s->device, (long long)seq);
        wire_op op = {.id = slice_of(id),
                      .kind = OP_CREATE,
                      .entity_type = SLICE("pins"),
                      .entity_id = slice_of(row.id),
                      .seq = seq,
                      .group_first = seq - i % group,
                      .group_size = group,
                      .payload = bytes_view(&payload),
                      .base = SLICE("{}"),
                      .wall_ms = WALL_MS,
                      .nonce = seq * INT64_C(7919),
                      .lineage = slice_of(s->device),
                      .lsn = seq};
        id_key_parts parts = {SLICE("s"),   op.lineage,     op.lsn,       op.nonce,
                              op.kind,      op.entity_type, op.entity_id, op.base_seq,
                              op.base_salt, op.wall_ms,     op.payload,   op.base};
        id_operation_key(&parts, op.key);
        wire_push_op(body, &first, head.device_id, &op);
        s->seq = seq;
        memcpy(s->last_key, op.key, SHA256_BYTES);
    }
    wire_push_end(body);
    bytes_deinit(&payload);
    if (body->failed) {
        bench_die("push", "out of memory");
    }
}
