/* The report of a device (semantics 13.3):
 *   {"pending":2,"failed":0,"oldestPendingMs":5300,"lastError":null} */
#include "core/wire_internal.h"

#define ERROR_BYTES_MAX 64

static bool read_number(const json *object, const char *name, int64_t *out) {
    const json *v = json_get(object, name);
    *out = 0;
    return !v || (json_int(v, out) && *out >= 0 && *out <= WIRE_NUMBER_MAX);
}

static bool is_code(slice text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return text.len <= ERROR_BYTES_MAX;
}

bool wire_report_read(const json *object, wire_report *out) {
    const json *error = json_get(object, "lastError");
    *out = (wire_report){0};
    return read_number(object, "pending", &out->pending) &&
           read_number(object, "failed", &out->failed) &&
           read_number(object, "oldestPendingMs", &out->oldest_pending_ms) &&
           (!error || json_is(error, JSON_NULL) ||
            (json_text(error, &out->last_error) && is_code(out->last_error)));
}

void wire_report_parse(arena *a, slice text, wire_report *out) {
    const json *root = NULL;
    if (!text.len || json_parse(a, text, &root, NULL) != GODWIT_OK || !json_is(root, JSON_OBJECT) ||
        !wire_report_read(root, out)) {
        *out = (wire_report){0};
    }
}

void wire_report_write(bytes *b, const wire_report *r) {
    bytes_text(b, "{\"pending\":");
    bytes_int(b, r->pending);
    bytes_text(b, ",\"failed\":");
    bytes_int(b, r->failed);
    bytes_text(b, ",\"oldestPendingMs\":");
    bytes_int(b, r->oldest_pending_ms);
    bytes_text(b, ",\"lastError\":");
    if (r->last_error.len) {
        json_write_text(b, r->last_error);
    } else {
        bytes_text(b, "null");
    }
    bytes_char(b, '}');
}
