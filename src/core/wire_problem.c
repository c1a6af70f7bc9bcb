/* RFC 9457 problem documents, both ways. */
#include "core/limits.h"
#include "core/wire_internal.h"

#define PROBLEM_BYTES_MAX (64u << 10) /* more is some other page */

static slice last_segment(slice type) {
    size_t at = type.len;
    while (at > 0 && type.ptr[at - 1] != '/') {
        at--;
    }
    slice name = {type.len ? type.ptr + at : NULL, type.len - at};
    return slice_is(name, "about:blank") ? (slice){NULL, 0} : name;
}

void wire_problem_parse(arena *a, slice body, problem *out) {
    memset(out, 0, sizeof(*out));
    out->applied_seq = -1;
    const json *root = NULL;
    slice type = {NULL, 0};
    if (body.len > PROBLEM_BYTES_MAX || json_parse(a, body, &root, NULL) != GODWIT_OK ||
        !json_text(json_get(root, "type"), &type)) {
        return;
    }
    out->type = last_segment(type);
    (void)json_int(json_get(root, "status"), &out->status);
    (void)json_text(json_get(root, "title"), &out->title);
    (void)json_text(json_get(root, "detail"), &out->detail);
    (void)json_text(json_get(root, "lastKey"), &out->last_key);
    (void)json_text(json_get(root, "reason"), &out->reason);
    if (json_int(json_get(root, "appliedSeq"), &out->applied_seq) && out->applied_seq < 0) {
        out->applied_seq = -1;
    }
}

void wire_problem_write(bytes *b, int status, const char *type, const char *title,
                        const char *detail, const char *members) {
    bool first = true;
    bytes_char(b, '{');
    json_key(b, &first, "type");
    /* A relative reference: the daemon need not know the name it is reached by. */
    bytes_text(b, "\"/problems/");
    bytes_text(b, type);
    bytes_char(b, '"');
    json_key(b, &first, "title");
    json_write_text(b, slice_of(title));
    json_key(b, &first, "status");
    bytes_int(b, status);
    if (detail && detail[0] && json_utf8_valid(slice_of(detail))) {
        json_key(b, &first, "detail");
        json_write_text(b, slice_of(detail));
    }
    if (members && members[0]) {
        json_comma(b, &first);
        bytes_text(b, members);
    }
    bytes_char(b, '}');
}
