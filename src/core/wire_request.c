/* Requests from bytes: the head of a push, what must hold across its operations, and registration.
 *
 * After a successful parse: sequence numbers are contiguous from firstSeq, every group is whole and
 * in one piece, every dependency points backwards. Nothing here has looked at a database. */
#include "core/limits.h"
#include "core/wire_internal.h"

#include <stdlib.h>

#define TABLES_TEXT_BYTES_MAX (64u << 10)
#define REGISTER_BYTES_MAX    (4u << 20) /* TABLES_MAX tables of ordinary width */

enum {
    H_OPERATIONS,
    H_DEVICE,
    H_TIMESTAMP,
    H_SCOPE,
    H_FIRST_SEQ,
    H_PREV_KEY,
    H_ACKED,
    H_CONFIRMED,
    H_WALL,
    H_REPORT,
    H_ATOMIC,
    H_DRY_RUN,
    H_PUSH_COUNT,
    H_CURSOR = H_PUSH_COUNT,
    H_LIMIT,
    H_TABLES,
    H_EARLIER,
    H_SYNC_COUNT
};
static const char *const head_fields[H_SYNC_COUNT] = {
    "operations", "deviceId",     "timestamp", "scope",   "firstSeq", "prevKey",
    "ackedSeq",   "confirmedSeq", "wallMs",    "report",  "atomic",   "dryRun",
    "cursor",     "limit",        "tables",    "earlier",
};

/* The requirements send an ISO time; a number of milliseconds is as clear. */
static bool read_timestamp(wire_context *c, const json *node, push_request *out) {
    if (!node) {
        return true;
    }
    slice text = {NULL, 0};
    int64_t ms = 0;
    bool valid = json_text(node, &text) ? wire_time_parse(text, &ms) : json_int(node, &ms);
    if (!valid || ms < -WIRE_NUMBER_MAX || ms > WIRE_NUMBER_MAX) {
        return wire_invalid(c, "timestamp must be an RFC 3339 time");
    }
    out->wall_ms = ms;
    return true;
}

static bool read_prev_key(wire_context *c, const json *node, push_request *out) {
    slice text = {NULL, 0};
    if (!wire_read_text(c, node, "prevKey", false, SIZE_MAX, &text)) {
        return false;
    }
    if (text.len == 0) {
        return true;
    }
    out->has_prev_key = id_hex_decode(text, out->prev_key, SHA256_BYTES);
    return out->has_prev_key ? true : wire_invalid(c, "prevKey must be 64 hex digits or empty");
}

static bool read_earlier(wire_context *c, const json *list, push_request *out) {
    if (!list) {
        return true;
    }
    if (!json_is(list, JSON_ARRAY) || list->count > IDENTITIES_MAX) {
        return wire_invalid(c, "earlier must be a list of at most %d device ids", IDENTITIES_MAX);
    }
    slice *ids = ARENA_ARRAY(c->a, slice, list->count + 1);
    if (!ids) {
        return wire_nomem(c);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        if (!wire_read_device(c, item, "earlier[]", &ids[i])) {
            return false;
        }
    }
    out->earlier = ids;
    out->earlier_count = list->count;
    return true;
}

static bool read_pull_half(wire_context *c, const json *const f[H_SYNC_COUNT], push_request *out) {
    out->pull = true;
    return wire_read_text(c, f[H_CURSOR], "cursor", false, CURSOR_BYTES_MAX, &out->cursor) &&
           wire_read_int(c, f[H_LIMIT], "limit", false, 0, INT32_MAX, &out->limit) &&
           wire_read_text(c, f[H_TABLES], "tables", false, TABLES_TEXT_BYTES_MAX, &out->tables) &&
           read_earlier(c, f[H_EARLIER], out);
}

static bool read_head(wire_context *c, const json *const f[H_SYNC_COUNT], bool sync,
                      push_request *out) {
    if (!wire_read_device(c, f[H_DEVICE], "deviceId", &out->device_id) ||
        !wire_read_name(c, f[H_SCOPE], "scope", false, &out->scope) ||
        !read_timestamp(c, f[H_TIMESTAMP], out) ||
        !wire_read_int(c, f[H_WALL], "wallMs", false, -WIRE_NUMBER_MAX, WIRE_NUMBER_MAX,
                       &out->wall_ms) ||
        !wire_read_int(c, f[H_FIRST_SEQ], "firstSeq", false, 1, WIRE_NUMBER_MAX, &out->first_seq) ||
        !wire_read_int(c, f[H_ACKED], "ackedSeq", false, 0, WIRE_NUMBER_MAX, &out->acked_seq) ||
        !wire_read_int(c, f[H_CONFIRMED], "confirmedSeq", false, 0, WIRE_NUMBER_MAX,
                       &out->confirmed_seq) ||
        !read_prev_key(c, f[H_PREV_KEY], out) ||
        !wire_read_bool(c, f[H_ATOMIC], "atomic", &out->atomic) ||
        !wire_read_bool(c, f[H_DRY_RUN], "dryRun", &out->dry_run)) {
        return false;
    }
    if (f[H_REPORT]) {
        if (!json_is(f[H_REPORT], JSON_OBJECT) || f[H_REPORT]->u.s.len > WIRE_REPORT_BYTES_MAX) {
            return wire_invalid(c, "report must be a small object");
        }
        if (!wire_report_read(f[H_REPORT], &out->report)) {
            return wire_invalid(c, "report has numbers from 0 and a code");
        }
        out->has_report = true;
    }
    if (!json_is(f[H_OPERATIONS], JSON_ARRAY)) {
        return wire_invalid(c, f[H_OPERATIONS] ? "operations must be a list"
                                               : "operations is missing");
    }
    bool any = f[H_OPERATIONS]->count > 0;
    out->stream = f[H_FIRST_SEQ] != NULL || (sync && !any);
    if (sync && any && !f[H_FIRST_SEQ]) {
        return wire_invalid(c, "firstSeq is missing");
    }
    if (out->stream && out->atomic) {
        return wire_invalid(c, "atomic is for operations without a stream: a stream has groups");
    }
    return true;
}

static bool check_groups(wire_context *c, const push_request *r) {
    size_t i = 0;
    while (i < r->op_count) {
        const wire_op *first = &r->ops[i];
        c->op = (long)i;
        if (first->group_first != first->seq) {
            return wire_invalid(c, "a group must be sent from its first operation on");
        }
        if ((uint64_t)first->group_size > r->op_count - i) {
            return wire_invalid(c, "a group must be sent whole");
        }
        size_t size = (size_t)first->group_size;
        for (size_t j = 1; j < size; j++) {
            const wire_op *op = &r->ops[i + j];
            c->op = (long)(i + j);
            if (op->group_first != first->group_first || op->group_size != first->group_size) {
                return wire_invalid(c, "a group must be sent whole");
            }
            if ((op->kind == OP_VOID) != (first->kind == OP_VOID)) {
                return wire_invalid(c, "a group is given up as a whole");
            }
        }
        i += size;
    }
    c->op = -1;
    return true;
}

static bool check_stream(wire_context *c, const push_request *r) {
    for (size_t i = 0; i < r->op_count; i++) {
        if (r->ops[i].seq - r->first_seq != (int64_t)i) {
            c->op = (long)i;
            return wire_invalid(c, "sequenceNumber must go on from firstSeq without a gap");
        }
    }
    return check_groups(c, r);
}

/* ---- Dependencies by id ---- */

typedef struct {
    slice id;
    size_t at;
} id_place;

static int order_places(const void *a, const void *b) {
    const id_place *x = a;
    const id_place *y = b;
    int order = slice_compare(x->id, y->id);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

/* First place of an id; count when there is none. */
static size_t place_of(const id_place *places, size_t count, slice id) {
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (slice_compare(places[mid].id, id) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < count && slice_equal(places[low].id, id) ? places[low].at : count;
}

static bool check_plain(wire_context *c, const push_request *r) {
    bool any = false;
    for (size_t i = 0; i < r->op_count; i++) {
        any = any || r->ops[i].depends_count > 0;
    }
    if (!any) {
        return true;
    }
    id_place *places = ARENA_ARRAY(c->a, id_place, r->op_count);
    if (!places) {
        return wire_nomem(c);
    }
    for (size_t i = 0; i < r->op_count; i++) {
        places[i] = (id_place){r->ops[i].id, i};
    }
    qsort(places, r->op_count, sizeof(*places), order_places);
    for (size_t i = 0; i < r->op_count; i++) {
        const wire_op *op = &r->ops[i];
        for (size_t j = 0; j < op->depends_count; j++) {
            if (place_of(places, r->op_count, op->depends_ids[j]) >= i) {
                c->op = (long)i;
                return wire_invalid(c, "dependsOn must name earlier operations of the request");
            }
        }
    }
    return true;
}

static bool read_push(wire_context *c, slice body, bool sync, slice default_scope,
                      push_request *out) {
    const json *root = NULL;
    const json *f[H_SYNC_COUNT] = {NULL};
    if (!wire_body(c, body, PUSH_BYTES_MAX, &root) ||
        !wire_members(c, root, "", head_fields, sync ? H_SYNC_COUNT : H_PUSH_COUNT, f) ||
        !read_head(c, f, sync, out) || (sync && !read_pull_half(c, f, out))) {
        return false;
    }
    const json *list = f[H_OPERATIONS];
    if (list->count > PUSH_OPS_MAX) {
        return wire_refuse(c, 413, "too-large", "over %d operations", PUSH_OPS_MAX);
    }
    out->ops = ARENA_ARRAY(c->a, wire_op, list->count);
    if (!out->ops) {
        return wire_nomem(c);
    }
    slice scope = out->scope.len ? out->scope : default_scope;
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        c->op = (long)i;
        if (!wire_op_read(c, item, out, scope, &out->ops[i])) {
            return false;
        }
    }
    c->op = -1;
    out->op_count = list->count;
    return out->stream ? check_stream(c, out) : check_plain(c, out);
}

godwit_status wire_push_parse(arena *a, slice body, bool sync, slice default_scope,
                              push_request *out, wire_error *error) {
    memset(out, 0, sizeof(*out));
    memset(error, 0, sizeof(*error));
    wire_context c = {a, error, GODWIT_OK, -1};
    if (!read_push(&c, body, sync, default_scope, out)) {
        ASSERT(c.status != GODWIT_OK);
        memset(out, 0, sizeof(*out));
    }
    return c.status;
}

/* ---- Registration ---- */

static bool read_scopes(wire_context *c, const json *list, register_request *out) {
    if (!json_is(list, JSON_ARRAY)) {
        return wire_invalid(c, list ? "scopes must be a list" : "scopes is missing");
    }
    if (list->count > SCOPES_MAX) {
        return wire_invalid(c, "over %d scopes", SCOPES_MAX);
    }
    out->scopes = ARENA_ARRAY(c->a, slice, list->count);
    if (!out->scopes) {
        return wire_nomem(c);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        if (!wire_read_name(c, item, "scopes[]", true, &out->scopes[i])) {
            return false;
        }
    }
    out->scope_count = list->count;
    return true;
}

static bool read_register(wire_context *c, slice body, register_request *out) {
    static const char *const names[] = {"deviceId", "lineage", "scopes", "label", "tables"};
    const json *root = NULL;
    const json *f[COUNT_OF(names)];
    if (!wire_body(c, body, REGISTER_BYTES_MAX, &root) ||
        !wire_members(c, root, "", names, COUNT_OF(names), f) ||
        !wire_read_device(c, f[0], "deviceId", &out->device_id) ||
        !wire_read_device(c, f[1], "lineage", &out->lineage) || !read_scopes(c, f[2], out) ||
        !wire_read_text(c, f[3], "label", false, NAME_BYTES_MAX, &out->label)) {
        return false;
    }
    if (out->label.len && !id_name_valid(out->label)) {
        return wire_invalid(c, "label must be without control characters");
    }
    if (f[4] && !json_is(f[4], JSON_ARRAY)) {
        return wire_invalid(c, "tables must be a list");
    }
    out->tables = f[4];
    return true;
}

godwit_status wire_register_parse(arena *a, slice body, register_request *out, wire_error *error) {
    memset(out, 0, sizeof(*out));
    memset(error, 0, sizeof(*error));
    wire_context c = {a, error, GODWIT_OK, -1};
    if (!read_register(&c, body, out)) {
        ASSERT(c.status != GODWIT_OK);
        memset(out, 0, sizeof(*out));
    }
    return c.status;
}
