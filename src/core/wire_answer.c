/* Answers from bytes, lenient about members this version does not know, strict about the types of
 * those it does: PROTOCOL when one is missing or of another type. */
#include "core/limits.h"
#include "core/wire_internal.h"

/* ---- Readers with a sticky fault ---- */

godwit_status wire_answer_status(const wire_answer *r) {
    return r->nomem || r->a->failed ? GODWIT_NOMEM : r->broken ? GODWIT_PROTOCOL : GODWIT_OK;
}

godwit_status wire_answer_begin(wire_answer *r, arena *a, slice body, const json **root) {
    *r = (wire_answer){a, false, false};
    godwit_status status =
        body.len > ANSWER_BYTES_MAX ? GODWIT_LIMIT : json_parse(a, body, root, NULL);
    if (status == GODWIT_OK && json_is(*root, JSON_OBJECT)) {
        return GODWIT_OK;
    }
    return status == GODWIT_NOMEM ? status : GODWIT_PROTOCOL;
}

const json *wire_answer_member(const json *object, const char *name) {
    const json *node = json_get(object, name);
    return json_is(node, JSON_NULL) ? NULL : node;
}

const json *wire_answer_opt(wire_answer *r, const json *object, const char *name, json_type t) {
    const json *node = wire_answer_member(object, name);
    if (node && !json_is(node, t)) {
        r->broken = true;
        return NULL;
    }
    return node;
}

slice wire_answer_opt_text(wire_answer *r, const json *object, const char *name) {
    const json *node = wire_answer_opt(r, object, name, JSON_STRING);
    return node ? node->u.s : (slice){NULL, 0};
}

slice wire_answer_text(wire_answer *r, const json *object, const char *name) {
    const json *node = wire_answer_opt(r, object, name, JSON_STRING);
    r->broken = r->broken || !node;
    return node ? node->u.s : (slice){NULL, 0};
}

/* No number of the protocol is negative. */
int64_t wire_answer_opt_int(wire_answer *r, const json *object, const char *name, int64_t absent) {
    const json *node = wire_answer_opt(r, object, name, JSON_INT);
    if (node && node->u.i < 0) {
        r->broken = true;
        return absent;
    }
    return node ? node->u.i : absent;
}

int64_t wire_answer_int(wire_answer *r, const json *object, const char *name) {
    int64_t v = wire_answer_opt_int(r, object, name, -1);
    r->broken = r->broken || v < 0;
    return v < 0 ? 0 : v;
}

bool wire_answer_opt_bool(wire_answer *r, const json *object, const char *name) {
    const json *node = wire_answer_member(object, name);
    bool v = false;
    if (node && !json_bool(node, &v)) {
        r->broken = true;
    }
    return v;
}

int64_t wire_answer_salt(wire_answer *r, const json *object, const char *name) {
    int64_t v = 0;
    if (!wire_u64_parse(wire_answer_text(r, object, name), &v)) {
        r->broken = true;
    }
    return v;
}

bool wire_answer_opt_key(wire_answer *r, const json *object, const char *name,
                         uint8_t out[SHA256_BYTES]) {
    slice text = wire_answer_opt_text(r, object, name);
    if (text.len == 0) {
        return false;
    }
    if (!id_hex_decode(text, out, SHA256_BYTES)) {
        memset(out, 0, SHA256_BYTES);
        r->broken = true;
        return false;
    }
    return true;
}

void *wire_answer_list(wire_answer *r, const json *list, size_t size, size_t *count) {
    *count = 0;
    if (!list || list->count == 0) {
        return NULL;
    }
    void *items = arena_array(r->a, list->count, size);
    r->nomem = r->nomem || !items;
    *count = items ? list->count : 0;
    return items;
}

/* ---- Results ---- */

static op_outcome outcome_of_status(slice status) {
    static const struct {
        const char *status;
        op_outcome outcome;
    } implied[] = {
        {"success", OUTCOME_APPLIED},   {"already_processed", OUTCOME_DUPLICATE},
        {"conflict", OUTCOME_CONFLICT}, {"error", OUTCOME_REJECTED},
        {"deferred", OUTCOME_NONE},
    };
    for (size_t i = 0; i < COUNT_OF(implied); i++) {
        if (slice_is(status, implied[i].status)) {
            return implied[i].outcome;
        }
    }
    return OUTCOME_NONE;
}

static void read_outcome(wire_answer *r, const json *node, slice status, op_outcome *out) {
    slice text = wire_answer_opt_text(r, node, "outcome");
    *out = outcome_of_status(status);
    if (text.len && !op_outcome_parse(text, out)) {
        r->broken = true; /* an outcome we can't act upon must not be taken for another */
    }
}

static void read_result(wire_answer *r, const json *node, wire_result *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->raw = node;
    out->id = wire_answer_opt_text(r, node, "id");
    out->status = wire_answer_text(r, node, "status");
    read_outcome(r, node, out->status, &out->outcome);
    if (out->outcome == OUTCOME_NONE && !slice_is(out->status, "deferred")) {
        r->broken = true;
    }
    out->commit_seq = wire_answer_opt_int(r, node, "commitSeq", 0);
    out->seq = wire_answer_opt_int(r, node, "sequenceNumber", 0);
    out->has_key = false;
    if (out->seq > 0) {
        out->has_key = wire_answer_opt_key(r, node, "idempotencyKey", out->key);
    }
    out->result = wire_answer_opt(r, node, "result", JSON_OBJECT);
    out->conflicts = wire_answer_opt(r, node, "conflicts", JSON_ARRAY);
    out->vector_clock = wire_answer_opt(r, node, "vectorClock", JSON_OBJECT);
    const json *error = wire_answer_opt(r, node, "error", JSON_OBJECT);
    if (error) {
        out->code_text = wire_answer_text(r, error, "code");
        out->detail = wire_answer_opt_text(r, error, "detail");
        out->retryable = wire_answer_opt_bool(r, error, "retryable");
        if (!op_code_parse(out->code_text, &out->code)) {
            out->code = CODE_NONE; /* a newer server's: kept as text */
        }
    }
}

wire_result *wire_answer_results(wire_answer *r, const json *list, size_t *count) {
    wire_result *results = wire_answer_list(r, list, sizeof(wire_result), count);
    const json *item = json_first(list);
    for (size_t i = 0; i < *count; i++, item = json_after(item)) {
        read_result(r, item, &results[i]);
    }
    return results;
}

/* ---- The feed ---- */

static slice raw_object(wire_answer *r, const json *object, const char *name) {
    const json *node = wire_answer_opt(r, object, name, JSON_OBJECT);
    return node ? node->u.s : (slice){NULL, 0};
}

static void read_change(wire_answer *r, const json *node, wire_change *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->entity_type = wire_answer_text(r, node, "entityType");
    out->entity_id = wire_answer_text(r, node, "entityId");
    slice kind = wire_answer_text(r, node, "kind");
    out->is_delete = slice_is(kind, "delete");
    out->full = wire_answer_opt_bool(r, node, "full");
    out->columns = wire_answer_opt(r, node, "columns", JSON_OBJECT);
    out->vector_clock = raw_object(r, node, "vectorClock");
    if (!out->is_delete && (!slice_is(kind, "upsert") || !out->columns)) {
        r->broken = true;
    }
}

static void read_own(wire_answer *r, const json *own, wire_commit *out) {
    if (!own) {
        return;
    }
    out->own = true;
    out->own_first = wire_answer_opt_int(r, own, "first", 0);
    out->own_last = wire_answer_opt_int(r, own, "last", 0);
    slice outcome = wire_answer_text(r, own, "outcome");
    r->broken = r->broken || !op_outcome_parse(outcome, &out->own_outcome);
    out->own_results =
        wire_answer_results(r, wire_answer_opt(r, own, "results", JSON_ARRAY), &out->own_count);
}

static void read_commit(wire_answer *r, const json *node, wire_commit *out) {
    r->broken = r->broken || !json_is(node, JSON_OBJECT);
    out->seq = wire_answer_int(r, node, "seq");
    out->salt = wire_answer_salt(r, node, "salt");
    out->at = wire_answer_text(r, node, "at");
    r->broken = r->broken || !wire_time_parse(out->at, &out->at_ms);
    const json *author = wire_answer_opt(r, node, "author", JSON_OBJECT);
    out->device_id = wire_answer_opt_text(r, author, "deviceId");
    out->user_id = wire_answer_opt_text(r, author, "userId");
    const json *list = wire_answer_opt(r, node, "changes", JSON_ARRAY);
    out->changes = wire_answer_list(r, list, sizeof(wire_change), &out->change_count);
    const json *item = json_first(list);
    for (size_t i = 0; i < out->change_count; i++, item = json_after(item)) {
        read_change(r, item, &out->changes[i]);
    }
    read_own(r, wire_answer_opt(r, node, "own", JSON_OBJECT), out);
}

/* Commit numbers within a page only grow; a page that does not is not one page of one history. */
static void read_pull(wire_answer *r, const json *node, pull_answer *out) {
    const json *list = wire_answer_opt(r, node, "commits", JSON_ARRAY);
    r->broken = r->broken || !list;
    out->commits = wire_answer_list(r, list, sizeof(wire_commit), &out->commit_count);
    const json *item = json_first(list);
    for (size_t i = 0; i < out->commit_count; i++, item = json_after(item)) {
        read_commit(r, item, &out->commits[i]);
        if (out->commits[i].seq <= (i ? out->commits[i - 1].seq : 0)) {
            r->broken = true;
        }
    }
    out->from = json_find(node, SLICE("from")) ? wire_answer_int(r, node, "from") : -1;
    out->cursor = wire_answer_text(r, node, "cursor");
    out->head = wire_answer_int(r, node, "head");
    out->more = wire_answer_opt_bool(r, node, "more");
    out->names = wire_answer_opt_text(r, node, "names");
}

godwit_status wire_pull_answer_parse(arena *a, slice body, pull_answer *out) {
    memset(out, 0, sizeof(*out));
    wire_answer r;
    const json *root = NULL;
    godwit_status status = wire_answer_begin(&r, a, body, &root);
    if (status == GODWIT_OK) {
        read_pull(&r, root, out);
        status = wire_answer_status(&r);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}

static void read_push_answer(wire_answer *r, const json *root, push_answer *out) {
    const json *list = wire_answer_opt(r, root, "results", JSON_ARRAY);
    r->broken = r->broken || !list;
    out->results = wire_answer_results(r, list, &out->result_count);
    out->applied_seq = wire_answer_opt_int(r, root, "appliedSeq", 0);
    out->head = wire_answer_opt_int(r, root, "head", 0);
    out->server_time = wire_answer_opt_text(r, root, "serverTime");
    out->changes_problem = wire_answer_opt_text(r, root, "changesProblem");
    const json *changes = wire_answer_opt(r, root, "changes", JSON_OBJECT);
    if (changes) {
        out->has_changes = true;
        read_pull(r, changes, &out->changes);
    }
}

godwit_status wire_push_answer_parse(arena *a, slice body, push_answer *out) {
    memset(out, 0, sizeof(*out));
    wire_answer r;
    const json *root = NULL;
    godwit_status status = wire_answer_begin(&r, a, body, &root);
    if (status == GODWIT_OK) {
        read_push_answer(&r, root, out);
        status = wire_answer_status(&r);
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}
