/* Strict reading of requests: typed members, bounds, and messages that name the field.
 *
 * A message never repeats a value; a field's name is repeated only when it is short valid text. */
#include "core/wire_internal.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/limits.h"

PRINTF_LIKE(2, 0)
static void explain(wire_context *c, const char *format, va_list args) {
    wire_error *e = c->error;
    size_t at = 0;
    if (c->op >= 0) {
        at = (size_t)snprintf(e->detail, sizeof(e->detail), "operations[%ld]: ", c->op);
    }
    (void)vsnprintf(e->detail + at, sizeof(e->detail) - at, format, args);
}

PRINTF_LIKE(4, 0)
static bool refuse(wire_context *c, int http, const char *type, const char *format, va_list args) {
    ASSERT(c->status == GODWIT_OK); /* the first refusal is the answer */
    c->status = http == 413 ? GODWIT_LIMIT : GODWIT_INVALID;
    c->error->http = http;
    c->error->type = type;
    explain(c, format, args);
    return false;
}

bool wire_refuse(wire_context *c, int http, const char *type, const char *format, ...) {
    va_list args;
    va_start(args, format);
    bool refused = refuse(c, http, type, format, args);
    va_end(args);
    return refused;
}

bool wire_invalid(wire_context *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    bool refused = refuse(c, 400, "invalid-request", format, args);
    va_end(args);
    return refused;
}

bool wire_nomem(wire_context *c) {
    c->status = GODWIT_NOMEM;
    return false;
}

bool wire_body(wire_context *c, slice body, size_t max_bytes, const json **out) {
    if (body.len > max_bytes) {
        return wire_refuse(c, 413, "too-large", "the body is over %zu bytes", max_bytes);
    }
    json_error error;
    godwit_status status = json_parse(c->a, body, out, &error);
    if (status == GODWIT_NOMEM) {
        return wire_nomem(c);
    }
    if (status != GODWIT_OK) {
        return wire_invalid(c, "not valid JSON at byte %zu: %s", error.offset, error.reason);
    }
    return json_is(*out, JSON_OBJECT) ? true : wire_invalid(c, "the body must be an object");
}

/* Members mostly come in the order of `names`, so the search goes round from the one after the last
 * found. `count` when there is none. */
static size_t find_name(const char *const *names, size_t count, size_t from, slice name) {
    for (size_t tried = 0; tried < count; tried++) {
        size_t at = from + tried < count ? from + tried : from + tried - count;
        if (slice_is(name, names[at])) {
            return at;
        }
    }
    return count;
}

bool wire_members(wire_context *c, const json *object, const char *where, const char *const *names,
                  size_t count, const json **out) {
    ASSERT(json_is(object, JSON_OBJECT));
    for (size_t i = 0; i < count; i++) {
        out[i] = NULL;
    }
    const json *key = json_first(object);
    size_t next = 0;
    for (uint32_t i = 0; i < object->count; i++, key = json_after(key + 1)) {
        size_t at = find_name(names, count, next, key->u.s);
        if (at == count) {
            bool plain = id_name_valid(key->u.s) && key->u.s.len <= 64;
            return wire_invalid(c, "unknown field %s" SLICE_FMT, where,
                                SLICE_ARG(plain ? key->u.s : SLICE("(its name can't be shown)")));
        }
        out[at] = json_is(key + 1, JSON_NULL) ? NULL : key + 1;
        next = at + 1;
    }
    return true;
}

static bool absent(wire_context *c, const char *name, bool required) {
    return required ? wire_invalid(c, "%s is missing", name) : true;
}

bool wire_read_text(wire_context *c, const json *node, const char *name, bool required,
                    size_t bytes_max, slice *out) {
    if (!node) {
        return absent(c, name, required);
    }
    slice text = {NULL, 0};
    if (!json_text(node, &text)) {
        return wire_invalid(c, "%s must be a text", name);
    }
    if (text.len > bytes_max) {
        return wire_invalid(c, "%s is over %zu bytes", name, bytes_max);
    }
    *out = text;
    return true;
}

bool wire_read_int(wire_context *c, const json *node, const char *name, bool required, int64_t min,
                   int64_t max, int64_t *out) {
    if (!node) {
        return absent(c, name, required);
    }
    int64_t v = 0;
    if (!json_int(node, &v)) {
        return wire_invalid(c, "%s must be an integer", name);
    }
    if (v < min || v > max) {
        return wire_invalid(c, "%s is out of range", name);
    }
    *out = v;
    return true;
}

bool wire_read_bool(wire_context *c, const json *node, const char *name, bool *out) {
    if (node && !json_bool(node, out)) {
        return wire_invalid(c, "%s must be true or false", name);
    }
    return true;
}

bool wire_read_device(wire_context *c, const json *node, const char *name, slice *out) {
    if (!wire_read_text(c, node, name, true, SIZE_MAX, out)) {
        return false;
    }
    return id_device_valid(*out) ? true
                                 : wire_invalid(c, "%s must be 1 to %d of A-Z a-z 0-9 _ -", name,
                                                DEVICE_ID_BYTES_MAX);
}

bool wire_read_name(wire_context *c, const json *node, const char *name, bool required,
                    slice *out) {
    if (!node) {
        return absent(c, name, required);
    }
    slice text = {NULL, 0};
    if (!json_text(node, &text) || !id_name_valid(text)) {
        return wire_invalid(c, "%s must be a name of 1 to %d bytes without control characters",
                            name, NAME_BYTES_MAX);
    }
    *out = text;
    return true;
}
