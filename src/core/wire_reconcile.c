/* Reconciliation on the wire (semantics 4.5): what a replica knows of its streams, and what the
 * server makes of it.
 *
 *   {"scope":"s","cursor":"..","identities":[{"deviceId":"0b6c..","keys":[[7,"e3.."],[6,"91.."]]}]}
 *   {"head":9,"cursorValid":true,"identities":[
 *      {"deviceId":"0b6c..","state":"active","appliedSeq":7,"matchedSeq":6,"outcomes":[..]}]}
 *
 * Keys go newest first, in pages; matchedSeq null says that none of the page's keys agrees. Nothing
 * here knows what follows from it: that is the client's reconcile.c. */
#include "core/limits.h"
#include "core/wire_internal.h"

#define RECONCILE_BYTES_MAX (1u << 20)

/* ---- The request, read ---- */

static bool read_key(wire_context *c, const json *pair, int64_t below, stream_key *out) {
    const json *seq = json_is(pair, JSON_ARRAY) && pair->count == 2 ? json_first(pair) : NULL;
    slice text = {NULL, 0};
    if (!seq || !json_text(json_after(seq), &text) ||
        !id_hex_decode(text, out->key, SHA256_BYTES)) {
        return wire_invalid(c, "keys must be pairs of a number and 64 hex digits");
    }
    if (!json_int(seq, &out->seq) || out->seq < 1 || out->seq >= below) {
        return wire_invalid(c, "keys must come newest first, from 1 on");
    }
    return true;
}

static bool read_identity(wire_context *c, const json *node, size_t room, reconcile_identity *out) {
    static const char *const names[] = {"deviceId", "keys"};
    const json *f[COUNT_OF(names)];
    if (!json_is(node, JSON_OBJECT)) {
        return wire_invalid(c, "identities must be objects");
    }
    if (!wire_members(c, node, "identities[].", names, COUNT_OF(names), f) ||
        !wire_read_device(c, f[0], "deviceId", &out->device_id)) {
        return false;
    }
    if (!json_is(f[1], JSON_ARRAY)) {
        return wire_invalid(c, "keys must be a list");
    }
    if (f[1]->count > room) {
        return wire_refuse(c, 413, "too-large", "over %d keys", RECONCILE_KEYS_MAX);
    }
    stream_key *keys = ARENA_ARRAY(c->a, stream_key, f[1]->count + 1);
    if (!keys) {
        return wire_nomem(c);
    }
    const json *item = json_first(f[1]);
    for (uint32_t i = 0; i < f[1]->count; i++, item = json_after(item)) {
        if (!read_key(c, item, i ? keys[i - 1].seq : WIRE_NUMBER_MAX, &keys[i])) {
            return false;
        }
    }
    out->keys = keys;
    out->key_count = f[1]->count;
    return true;
}

static bool read_request(wire_context *c, slice body, reconcile_request *out) {
    static const char *const names[] = {"scope", "cursor", "identities"};
    const json *root = NULL;
    const json *f[COUNT_OF(names)];
    size_t room = RECONCILE_KEYS_MAX;
    if (!wire_body(c, body, RECONCILE_BYTES_MAX, &root) ||
        !wire_members(c, root, "", names, COUNT_OF(names), f) ||
        !wire_read_name(c, f[0], "scope", true, &out->scope) ||
        !wire_read_text(c, f[1], "cursor", false, CURSOR_BYTES_MAX, &out->cursor)) {
        return false;
    }
    if (!json_is(f[2], JSON_ARRAY) || f[2]->count > IDENTITIES_MAX) {
        return wire_invalid(c, "identities must be a list of at most %d", IDENTITIES_MAX);
    }
    out->identities = ARENA_ARRAY(c->a, reconcile_identity, f[2]->count + 1);
    if (!out->identities) {
        return wire_nomem(c);
    }
    const json *item = json_first(f[2]);
    for (uint32_t i = 0; i < f[2]->count; i++, item = json_after(item)) {
        if (!read_identity(c, item, room, &out->identities[i])) {
            return false;
        }
        room -= out->identities[i].key_count;
    }
    out->identity_count = f[2]->count;
    return true;
}

godwit_status wire_reconcile_parse(arena *a, slice body, reconcile_request *out,
                                   wire_error *error) {
    memset(out, 0, sizeof(*out));
    memset(error, 0, sizeof(*error));
    wire_context c = {a, error, GODWIT_OK, -1};
    if (!read_request(&c, body, out)) {
        ASSERT(c.status != GODWIT_OK);
        memset(out, 0, sizeof(*out));
    }
    return c.status;
}

/* ---- The request, written ---- */

static void write_identity(bytes *b, const reconcile_identity *identity) {
    bytes_text(b, "{\"deviceId\":");
    json_write_text(b, identity->device_id);
    bytes_text(b, ",\"keys\":[");
    for (size_t i = 0; i < identity->key_count; i++) {
        bytes_text(b, i ? ",[" : "[");
        bytes_int(b, identity->keys[i].seq);
        bytes_char(b, ',');
        json_write_hex(b, identity->keys[i].key, SHA256_BYTES);
        bytes_char(b, ']');
    }
    bytes_text(b, "]}");
}

void wire_reconcile_write(bytes *b, const reconcile_request *r) {
    bool first = true;
    bytes_char(b, '{');
    json_key(b, &first, "scope");
    json_write_text(b, r->scope);
    if (r->cursor.len) {
        json_key(b, &first, "cursor");
        json_write_text(b, r->cursor);
    }
    json_key(b, &first, "identities");
    bytes_char(b, '[');
    for (size_t i = 0; i < r->identity_count; i++) {
        bytes_text(b, i ? "," : "");
        write_identity(b, &r->identities[i]);
    }
    bytes_text(b, "]}");
}

/* ---- The answer ---- */

static void read_match(wire_answer *r, const json *node, reconcile_match *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->device_id = wire_answer_text(r, node, "deviceId");
    slice state = wire_answer_opt_text(r, node, "state");
    out->active = state.len == 0 || slice_is(state, "active");
    out->applied_seq = wire_answer_int(r, node, "appliedSeq");
    out->matched_seq = wire_answer_opt_int(r, node, "matchedSeq", -1);
    const json *list = wire_answer_opt(r, node, "outcomes", JSON_ARRAY);
    out->outcomes = wire_answer_results(r, list, &out->outcome_count);
}

static void read_answer(wire_answer *r, const json *root, reconcile_answer *out) {
    const json *list = wire_answer_opt(r, root, "identities", JSON_ARRAY);
    r->broken = r->broken || !list;
    out->head = wire_answer_int(r, root, "head");
    out->cursor_valid = wire_answer_opt_bool(r, root, "cursorValid");
    out->identities = wire_answer_list(r, list, sizeof(reconcile_match), &out->identity_count);
    const json *item = json_first(list);
    for (size_t i = 0; i < out->identity_count; i++, item = json_after(item)) {
        read_match(r, item, &out->identities[i]);
    }
}

godwit_status wire_reconcile_answer_parse(arena *a, slice body, reconcile_answer *out) {
    memset(out, 0, sizeof(*out));
    wire_answer r;
    const json *root = NULL;
    godwit_status status = wire_answer_begin(&r, a, body, &root);
    if (status == GODWIT_OK) {
        read_answer(&r, root, out);
        status = wire_answer_status(&r);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}
