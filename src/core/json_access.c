/* Reading a parsed document, and the small pieces of the writer. */
#include "core/json.h"

const json *json_first(const json *v) {
    if (!v || v->count == 0 || (v->type != JSON_ARRAY && v->type != JSON_OBJECT)) {
        return NULL;
    }
    return v + 1;
}

const json *json_find(const json *v, slice name) {
    if (!json_is(v, JSON_OBJECT)) {
        return NULL;
    }
    const json *key = v + 1;
    for (uint32_t i = 0; i < v->count; i++) {
        if (slice_equal(key->u.s, name)) {
            return key + 1;
        }
        key = json_after(key + 1);
    }
    return NULL;
}

const json *json_get(const json *v, const char *name) {
    return json_find(v, slice_of(name));
}

bool json_text(const json *v, slice *out) {
    if (!json_is(v, JSON_STRING)) {
        return false;
    }
    *out = v->u.s;
    return true;
}

bool json_int(const json *v, int64_t *out) {
    if (!json_is(v, JSON_INT)) {
        return false;
    }
    *out = v->u.i;
    return true;
}

bool json_bool(const json *v, bool *out) {
    if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE)) {
        return false;
    }
    *out = v->type == JSON_TRUE;
    return true;
}

void json_write_bool(bytes *b, bool v) {
    bytes_text(b, v ? "true" : "false");
}

void json_write_hex(bytes *b, const void *data, size_t len) {
    bytes_char(b, '"');
    bytes_hex(b, data, len);
    bytes_char(b, '"');
}

void json_comma(bytes *b, bool *first) {
    if (!*first) {
        bytes_char(b, ',');
    }
    *first = false;
}

void json_key(bytes *b, bool *first, const char *name) {
    json_comma(b, first);
    json_write_text(b, slice_of(name));
    bytes_char(b, ':');
}
