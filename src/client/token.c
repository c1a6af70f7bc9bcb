/* The bearer token, and the scope it names: claims are read, never trusted - only the server checks
 * them. */
#include "client/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/base64.h"
#include "core/limits.h"

static godwit_status read_file(godwit *g, arena *a, const char *path, slice *out) {
    char *text = arena_alloc(a, TOKEN_BYTES_MAX + 1);
    if (!text) {
        return GODWIT_NOMEM;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return client_fail(g, GODWIT_UNAUTHENTICATED, "the token file can't be read: %s",
                           strerror(errno));
    }
    size_t len = 0;
    ssize_t n = 1;
    while (n > 0 && len <= TOKEN_BYTES_MAX) {
        n = read(file, text + len, TOKEN_BYTES_MAX + 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    (void)close(file);
    while (len && (unsigned char)text[len - 1] <= ' ') {
        len--;
    }
    if (n < 0 || len == 0 || len > TOKEN_BYTES_MAX) {
        return client_fail(g, GODWIT_UNAUTHENTICATED, "the token file holds no token");
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] >= 127) {
            return client_fail(g, GODWIT_UNAUTHENTICATED, "the token file holds no token");
        }
    }
    *out = (slice){text, len};
    return GODWIT_OK;
}

godwit_status token_read(godwit *g, arena *a, slice *out) {
    slice path = {0};
    godwit_status status = client_meta_text(g, a, "token", out);
    if (status != GODWIT_OK || out->ptr) {
        return status;
    }
    status = client_meta_text(g, a, "token_file", &path);
    return status == GODWIT_OK && path.ptr ? read_file(g, a, path.ptr, out) : status;
}

/* The middle part of a JWT, decoded. ptr NULL when it is none. */
static slice claims_of(arena *a, slice token) {
    const char *first = memchr(token.ptr, '.', token.len);
    if (!first) {
        return (slice){0};
    }
    size_t rest = token.len - (size_t)(first + 1 - token.ptr);
    const char *second = memchr(first + 1, '.', rest);
    size_t len = second ? (size_t)(second - first - 1) : 0;
    uint8_t *out = len ? arena_alloc(a, BASE64_DECODED_MAX(len)) : NULL;
    size_t out_len = 0;
    return out && base64url_decode((slice){first + 1, len}, out, &out_len)
               ? (slice){(char *)out, out_len}
               : (slice){0};
}

static slice scope_of_claims(arena *a, slice claims) {
    const json *root = NULL;
    slice scope = {0}, sub = {0};
    if (!claims.len || json_parse(a, claims, &root, NULL) != GODWIT_OK) {
        return scope;
    }
    const json *list = json_get(root, "scopes");
    if (json_is(list, JSON_ARRAY)) {
        (void)json_text(json_first(list), &scope);
    } else if (!list && json_text(json_get(root, "sub"), &sub)) {
        char *text = arena_printf(a, "user:" SLICE_FMT, SLICE_ARG(sub));
        scope = slice_of(text);
    }
    return scope.len && id_name_valid(scope) ? scope : (slice){0};
}

godwit_status token_user(godwit *g, arena *a, slice *out) {
    slice token = {0};
    const json *root = NULL;
    *out = (slice){0};
    godwit_status status = token_read(g, a, &token);
    if (status == GODWIT_UNAUTHENTICATED || (status == GODWIT_OK && !token.ptr)) {
        return GODWIT_OK;
    }
    slice claims = status == GODWIT_OK ? claims_of(a, token) : (slice){0};
    if (claims.len && json_parse(a, claims, &root, NULL) == GODWIT_OK) {
        (void)json_text(json_get(root, "sub"), out);
    }
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

godwit_status client_scope(godwit *g, arena *a, slice *out) {
    slice token = {0};
    godwit_status status = client_meta_text(g, a, "scope", out);
    if (status != GODWIT_OK || out->len) {
        return status;
    }
    *out = (slice){0};
    status = token_read(g, a, &token);
    if (status == GODWIT_UNAUTHENTICATED) {
        return GODWIT_NOT_FOUND;
    }
    if (status != GODWIT_OK || !token.ptr) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    slice scope = scope_of_claims(a, claims_of(a, token));
    if (!scope.len) {
        return GODWIT_NOT_FOUND;
    }
    *out = scope;
    /* kept: operations sealed under it must never see another default */
    return client_meta_set(g, "scope", scope);
}

godwit_status token_no_scope(godwit *g) {
    arena a;
    slice token = {0};
    arena_init(&a, g->allocator, 0);
    godwit_status status = token_read(g, &a, &token);
    arena_deinit(&a);
    if (status != GODWIT_OK) {
        return status; /* the token's trouble is the reason */
    }
    return token.ptr ? client_fail(g, GODWIT_UNAUTHENTICATED,
                                   "the token names no scope: get another, or name a scope with"
                                   " godwit_init")
                     : client_fail(g, GODWIT_MISUSE,
                                   "no scope is known: name one with godwit_init, or give a token");
}
