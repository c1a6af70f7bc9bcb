/* The route table and the query decoder. */
#include "server/route.h"

#include <stddef.h>

#include "core/limits.h"

typedef enum {
    PARAM_SCOPE,
    PARAM_CURSOR,
    PARAM_DEVICE,
    PARAM_TABLES,
    PARAM_LIMIT,
    PARAM_WAIT,
    PARAM_TOKEN,
    PARAM_ENTITY_TYPE,
    PARAM_ENTITY_ID,
    PARAM_STATE,
    PARAM_SEQUENCE,
    PARAM_COUNT
} param;

#define BIT(name) (1u << PARAM_##name)

static const struct {
    const char *name;
    size_t bytes_max; /* decoded */
    size_t offset;    /* of the slice in service_job */
} params[PARAM_COUNT] = {
    [PARAM_SCOPE] = {"scope", NAME_BYTES_MAX, offsetof(service_job, q_scope)},
    [PARAM_CURSOR] = {"cursor", CURSOR_BYTES_MAX, offsetof(service_job, q_cursor)},
    [PARAM_DEVICE] = {"device", DEVICE_ID_BYTES_MAX, offsetof(service_job, q_device)},
    [PARAM_TABLES] = {"tables", HTTP_TARGET_BYTES_MAX, offsetof(service_job, q_tables)},
    [PARAM_LIMIT] = {"limit", 20, offsetof(service_job, q_limit)},
    [PARAM_WAIT] = {"wait", 20, offsetof(service_job, q_wait)},
    [PARAM_TOKEN] = {"token", CURSOR_BYTES_MAX * 4, offsetof(service_job, q_token)},
    [PARAM_ENTITY_TYPE] = {"entityType", NAME_BYTES_MAX, offsetof(service_job, q_entity_type)},
    [PARAM_ENTITY_ID] = {"entityId", ENTITY_ID_BYTES_MAX, offsetof(service_job, q_entity_id)},
    [PARAM_STATE] = {"state", NAME_BYTES_MAX, offsetof(service_job, q_state)},
    [PARAM_SEQUENCE] = {"sequenceNumber", 20, offsetof(service_job, q_sequence)},
};

#define SMALL_BODY (4u << 20) /* a declaration of 500 tables with 252 columns each */

static const route table[ROUTE_COUNT] = {
    {ROUTE_HEALTHZ, "/healthz", "GET, HEAD", ROUTE_HERE, VERB_META, true, 0, 0},
    {ROUTE_READYZ, "/readyz", "GET, HEAD", ROUTE_HERE, VERB_META, true, 0, 0},
    {ROUTE_METRICS, "/metrics", "GET, HEAD", ROUTE_HERE, VERB_META, true, 0, 0},
    {ROUTE_META, "/v1/meta", "GET", ROUTE_JOB, VERB_META, true, 0, 0},
    {ROUTE_DEVICES, "/v1/devices", "POST", ROUTE_JOB, VERB_REGISTER, false, SMALL_BODY, 0},
    {ROUTE_SYNC, "/v1/sync", "POST", ROUTE_JOB, VERB_SYNC, false, PUSH_BYTES_MAX, 0},
    {ROUTE_OPERATIONS, "/v1/sync/operations", "POST", ROUTE_JOB, VERB_PUSH, false, PUSH_BYTES_MAX,
     0},
    {ROUTE_CHANGES, "/v1/sync/changes", "GET", ROUTE_JOB, VERB_CHANGES, false, 0,
     BIT(SCOPE) | BIT(CURSOR) | BIT(DEVICE) | BIT(TABLES) | BIT(LIMIT) | BIT(WAIT)},
    {ROUTE_SNAPSHOT, "/v1/sync/snapshot", "GET", ROUTE_JOB, VERB_SNAPSHOT, false, 0,
     BIT(SCOPE) | BIT(TOKEN) | BIT(DEVICE) | BIT(TABLES) | BIT(LIMIT)},
    {ROUTE_EVENTS, "/v1/sync/events", "GET", ROUTE_STREAM, VERB_CHANGES, false, 0,
     BIT(SCOPE) | BIT(DEVICE)},
    {ROUTE_CONFLICTS, "/v1/conflicts", "GET", ROUTE_JOB, VERB_CONFLICTS, false, 0,
     BIT(SCOPE) | BIT(STATE) | BIT(LIMIT) | BIT(CURSOR) | BIT(DEVICE) | BIT(ENTITY_TYPE) |
         BIT(ENTITY_ID)},
    {ROUTE_AUDIT, "/v1/audit", "GET", ROUTE_JOB, VERB_HISTORY, false, 0,
     BIT(SCOPE) | BIT(ENTITY_TYPE) | BIT(ENTITY_ID) | BIT(LIMIT) | BIT(CURSOR) | BIT(DEVICE) |
         BIT(SEQUENCE)},
    {ROUTE_RECONCILE, "/v1/streams/reconcile", "POST", ROUTE_JOB, VERB_RECONCILE, false, SMALL_BODY,
     0},
};

static bool has_method(const char *methods, slice method) {
    for (const char *at = methods; *at;) {
        size_t len = strcspn(at, ", ");
        if (slice_equal((slice){at, len}, method)) {
            return true;
        }
        at += len;
        at += strspn(at, ", ");
    }
    return false;
}

int route_find(slice method, slice path, const route **out) {
    *out = NULL;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        ASSERT(table[i].id == (route_id)i);
        if (slice_is(path, table[i].path)) {
            *out = &table[i];
            return has_method(table[i].methods, method) ? 200 : 405;
        }
    }
    return 404;
}

const char *route_name(route_id id) {
    return id < ROUTE_COUNT ? table[id].path : "none";
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "%41" and "+" as forms encode them. false: a bad escape or a NUL. */
static bool decode(slice text, char *to, size_t *len) {
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_digit(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        if (c == 0) {
            return false;
        }
        to[n++] = c;
    }
    *len = n;
    return true;
}

static int find_param(slice name) {
    for (int i = 0; i < PARAM_COUNT; i++) {
        if (slice_is(name, params[i].name)) {
            return i;
        }
    }
    return -1;
}

/* One "name=value". */
static godwit_status take_pair(const route *r, slice pair, service_job *job, unsigned *seen,
                               const char **reason) {
    const char *equals = pair.len > 0 ? memchr(pair.ptr, '=', pair.len) : NULL;
    size_t name_len = equals ? (size_t)(equals - pair.ptr) : pair.len;
    slice value = equals ? (slice){equals + 1, pair.len - name_len - 1} : (slice){NULL, 0};
    int which = find_param((slice){pair.ptr, name_len});
    *reason = NULL;
    if (which < 0 || !(r->parameters & 1u << which)) {
        *reason = "the query has a parameter that is not known here";
    } else if (*seen & 1u << which) {
        *reason = "the query has a parameter twice";
    }
    if (*reason) {
        return GODWIT_INVALID;
    }
    *seen |= 1u << which;
    char *to = arena_alloc(&job->memory, value.len + 1);
    if (!to) {
        return GODWIT_NOMEM;
    }
    slice decoded = {to, 0};
    if (!decode(value, to, &decoded.len)) {
        *reason = "the query has a bad escape";
    } else if (!json_utf8_valid(decoded)) {
        *reason = "the query is not valid UTF-8";
    } else if (decoded.len > params[which].bytes_max) {
        *reason = "a parameter of the query is too long";
    }
    if (*reason) {
        return GODWIT_INVALID;
    }
    memcpy((char *)job + params[which].offset, &decoded, sizeof decoded);
    return GODWIT_OK;
}

godwit_status route_query(const route *r, slice query, service_job *job, const char **reason) {
    unsigned seen = 0;
    while (query.len > 0) {
        const char *and = memchr(query.ptr, '&', query.len);
        size_t len = and? (size_t)(and-query.ptr) : query.len;
        godwit_status status = take_pair(r, (slice){query.ptr, len}, job, &seen, reason);
        if (status) {
            return status;
        }
        query = and? (slice){and+1, query.len - len - 1} : (slice){NULL, 0};
    }
    *reason = NULL;
    return GODWIT_OK;
}
