/* A client that does not wait: what it has goes to the server in two requests, the second without
 * a look at the answer to the first. Nobody reads these answers; the whole request follows, and is
 * answered from the ledger. So operations meet dependencies that were decided in a request before.
 * See sim.h. */
#include "core/json.h"
#include "sim/sim.h"

typedef struct {
    const json *root;
    const json *first[2]; /* of the operations of each part */
    uint32_t count[2];
    slice key_before;  /* of the last operation of the first part */
    int64_t first_seq; /* of the second part */
} parts;

/* Where a group ends that is not the last one. */
static bool cut(world *w, arena *a, slice body, parts *out) {
    if (json_parse(a, body, &out->root, NULL) != GODWIT_OK) {
        return false;
    }
    const json *list = json_get(out->root, "operations"), *op = json_first(list);
    uint32_t count = list ? list->count : 0, ends = 0;
    for (uint32_t i = 0; i < count; i++, op = json_after(op)) {
        int64_t seq = 0, first = 0, size = 0;
        const json *group = json_get(op, "group");
        bool placed = json_int(json_get(op, "sequenceNumber"), &seq) &&
                      json_int(json_get(group, "first"), &first) &&
                      json_int(json_get(group, "size"), &size);
        if (!placed || seq != first + size - 1 || i + 1 == count) {
            continue;
        }
        const json *next = json_after(op);
        if (sim_below(w, ++ends) == 0) { /* any of them */
            out->count[0] = i + 1;
            out->count[1] = count - i - 1;
            out->first[0] = json_first(list);
            out->first[1] = next;
            (void)json_text(json_get(op, "idempotencyKey"), &out->key_before);
            (void)json_int(json_get(next, "sequenceNumber"), &out->first_seq);
        }
    }
    return ends > 0;
}

static void write_value(bytes *b, const json *v) {
    switch ((json_type)v->type) {
    case JSON_ARRAY:
    case JSON_OBJECT:
    case JSON_STRING:
        if (v->type == JSON_STRING) {
            json_write_text(b, v->u.s);
        } else {
            bytes_slice(b, v->u.s);
        }
        break;
    case JSON_INT:
        json_write_int(b, v->u.i);
        break;
    case JSON_REAL:
        json_write_real(b, v->u.d);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        json_write_bool(b, v->type == JSON_TRUE);
        break;
    case JSON_NULL:
        bytes_text(b, "null");
        break;
    }
}

static void write_part(bytes *b, const parts *p, int part) {
    const json *key = json_first(p->root);
    bool first = true;
    bytes_char(b, '{');
    for (uint32_t i = 0; i < p->root->count; i++, key = json_after(json_after(key))) {
        json_comma(b, &first);
        json_write_text(b, key->u.s);
        bytes_char(b, ':');
        if (slice_is(key->u.s, "operations")) {
            bool none = true;
            const json *op = p->first[part];
            bytes_char(b, '[');
            for (uint32_t k = 0; k < p->count[part]; k++, op = json_after(op)) {
                json_comma(b, &none);
                bytes_slice(b, op->u.s);
            }
            bytes_char(b, ']');
        } else if (part == 1 && slice_is(key->u.s, "firstSeq")) {
            json_write_int(b, p->first_seq);
        } else if (part == 1 && slice_is(key->u.s, "prevKey")) {
            json_write_text(b, p->key_before);
        } else {
            write_value(b, json_after(key));
        }
    }
    bytes_char(b, '}');
}

void server_pieces(world *w, const packet *p) {
    arena a;
    parts found = {0};
    if (!p->path.ptr || strcmp(p->path.ptr, "/v1/sync") != 0 || !sim_fault(w, w->swarm.pieces)) {
        return;
    }
    arena_init(&a, NULL, 0);
    bool two = cut(w, &a, bytes_view(&p->body), &found);
    for (int part = 0; two && part < 2; part++) {
        packet piece, answer, *one = &piece;
        packet_copy(&piece, p);
        packet_init(&answer);
        bytes_clear(&piece.body);
        write_part(&piece.body, &found, part);
        server_serve(w, &one, 1, &answer);
        w->seen[SEEN_PIECES] += answer.status == 200;
        packet_deinit(&piece);
        packet_deinit(&answer);
    }
    arena_deinit(&a);
}
