/* Checks tokens, and makes those of a shared secret. Order: size and shape, header, signature,
 * claims; each refusal has a reason that names the rule and nothing of the token. */
#include "server/auth.h"

#include <math.h>

#include "core/base64.h"
#include "core/limits.h"

#define MAC_BYTES      32
#define CLAIM_PATH_MAX 8 /* steps of scopes_claim */

static godwit_status decode(arena *a, slice text, slice *out) {
    uint8_t *data = arena_alloc(a, BASE64_DECODED_MAX(text.len));
    size_t len = 0;
    if (!data) {
        return GODWIT_NOMEM;
    }
    if (!base64url_decode(text, data, &len)) {
        return GODWIT_INVALID;
    }
    *out = (slice){(const char *)data, len};
    return GODWIT_OK;
}

bool auth_bearer(slice header, slice *token) {
    static const char scheme[] = "bearer ";
    size_t len = sizeof scheme - 1;
    if (header.len <= len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = header.ptr[i];
        c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        if (c != scheme[i]) {
            return false;
        }
    }
    *token = (slice){header.ptr + len, header.len - len};
    return true;
}

/* ---- checking ---- */

typedef struct {
    const auth_settings *settings;
    const key_set *keys;
    arena *memory;
    int64_t now_s;
    principal *out;
    slice algorithm, kid; /* of the header */
    bool key_missing;
    const char *reason;
} check;

static bool no(check *c, const char *reason) {
    c->reason = reason;
    return false;
}

static bool parse_object(check *c, slice text, slice *decoded, const json **out,
                         const char *reason) {
    const json *root;
    if (decode(c->memory, text, decoded) != GODWIT_OK ||
        json_parse(c->memory, *decoded, &root, NULL) != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
        return no(c, reason);
    }
    *out = root;
    return true;
}

static bool check_header(check *c, slice text) {
    const json *header;
    slice type, decoded;
    if (!parse_object(c, text, &decoded, &header, "the token's header is malformed")) {
        return false;
    }
    if (!json_text(json_get(header, "alg"), &c->algorithm)) {
        return no(c, "the token names no algorithm");
    }
    if (json_get(header, "crit")) {
        return no(c, "the token needs an extension that is not known");
    }
    const json *node = json_get(header, "kid");
    if (node && !json_text(node, &c->kid)) {
        return no(c, "the token's key id is not a text");
    }
    node = json_get(header, "typ");
    if (node && (!json_text(node, &type) || (!slice_is(type, "JWT") && !slice_is(type, "jwt")))) {
        return no(c, "the token is not a JWT");
    }
    return true;
}

static bool check_signature(check *c, slice signed_text, slice signature) {
    slice given;
    if (decode(c->memory, signature, &given) != GODWIT_OK) {
        return no(c, "the token's signature is malformed");
    }
    switch (key_set_verify(c->keys, c->algorithm, c->kid, signed_text, given)) {
    case KEY_GOOD:
        return true;
    case KEY_WRONG:
        return no(c, "the token's signature is wrong");
    case KEY_REFUSED:
        return no(c, "the token's algorithm is not one that is taken");
    case KEY_UNKNOWN:
        break;
    }
    c->key_missing = true;
    return no(c, "the token is signed with a key that is not known here");
}

/* NumericDate: an integer or a fraction, in a range in which adding the leeway cannot overflow. */
static bool numeric_date(const json *node, int64_t *out) {
    if (json_is(node, JSON_REAL) && node->u.d > -1e15 && node->u.d < 1e15) {
        *out = (int64_t)floor(node->u.d);
        return true;
    }
    return json_int(node, out) && *out > -1000000000000000 && *out < 1000000000000000;
}

static bool check_times(check *c, const json *claims) {
    int64_t expires, not_before;
    const json *node = json_get(claims, "exp");
    c->out->expires_s = 0;
    if (node) {
        if (!numeric_date(node, &expires)) {
            return no(c, "the token's exp is not a time");
        }
        if (expires + TOKEN_LEEWAY_S <= c->now_s) {
            return no(c, "the token has expired");
        }
        c->out->expires_s = expires > 0 ? expires : 1;
    }
    node = json_get(claims, "nbf");
    if (node) {
        if (!numeric_date(node, &not_before)) {
            return no(c, "the token's nbf is not a time");
        }
        if (not_before - TOKEN_LEEWAY_S > c->now_s) {
            return no(c, "the token is not valid yet");
        }
    }
    return true;
}

static bool audience_has(const json *node, slice wanted) {
    slice text;
    if (json_text(node, &text)) {
        return slice_equal(text, wanted);
    }
    if (!json_is(node, JSON_ARRAY)) {
        return false;
    }
    const json *item = json_first(node);
    for (uint32_t i = 0; i < node->count; i++, item = json_after(item)) {
        if (json_text(item, &text) && slice_equal(text, wanted)) {
            return true;
        }
    }
    return false;
}

static bool check_origin(check *c, const json *claims) {
    slice issuer;
    if (c->settings->issuer.len > 0 && (!json_text(json_get(claims, "iss"), &issuer) ||
                                        !slice_equal(issuer, c->settings->issuer))) {
        return no(c, "the token is from another issuer");
    }
    if (c->settings->audience.len > 0 &&
        !audience_has(json_get(claims, "aud"), c->settings->audience)) {
        return no(c, "the token is for another audience");
    }
    return true;
}

/* Follows "a.b.c" through nested objects; NULL when any step is absent. */
static const json *claim_at(const json *claims, slice path) {
    const json *node = claims;
    for (int step = 0; node && step < CLAIM_PATH_MAX; step++) {
        const char *dot = path.len > 0 ? memchr(path.ptr, '.', path.len) : NULL;
        size_t len = dot ? (size_t)(dot - path.ptr) : path.len;
        node = json_find(node, (slice){path.ptr, len});
        if (!dot) {
            return node;
        }
        path = (slice){dot + 1, path.len - len - 1};
    }
    return NULL;
}

static bool read_scopes(check *c, const json *node, slice *out, size_t *count) {
    if (!json_is(node, JSON_ARRAY) || node->count > SCOPES_MAX) {
        return no(c, "the token's scopes are not a list of at most 64 names");
    }
    const json *item = json_first(node);
    for (uint32_t i = 0; i < node->count; i++, item = json_after(item)) {
        if (!json_text(item, &out[i]) || !id_name_valid(out[i])) {
            return no(c, "a scope of the token is not a valid name");
        }
    }
    *count = node->count;
    return true;
}

/* The one device that the token is good for. */
static bool check_device(check *c, const json *claims) {
    slice path = c->settings->device_claim;
    if (path.len > 0 &&
        (!json_text(claim_at(claims, path), &c->out->device) || !id_device_valid(c->out->device))) {
        return no(c, "the token names no device");
    }
    return true;
}

/* Only roles that the operator has named: a token can't choose a mightier one. */
static bool check_role(check *c, const json *claims) {
    const auth_settings *s = c->settings;
    slice path = s->role_claim.len > 0 ? s->role_claim : SLICE("role");
    if (s->role_count == 0) {
        return true;
    }
    if (!json_text(claim_at(claims, path), &c->out->role)) {
        return no(c, "the token names no database role");
    }
    for (size_t i = 0; i < s->role_count; i++) {
        if (slice_equal(s->roles[i], c->out->role)) {
            return true;
        }
    }
    return no(c, "the token's database role is not one that is allowed here");
}

static bool check_claims(check *c, slice text) {
    const json *claims;
    principal *p = c->out;
    if (!parse_object(c, text, &p->claims, &claims, "the token's claims are malformed")) {
        return false;
    }
    if (!json_text(json_get(claims, "sub"), &p->user) || !id_name_valid(p->user)) {
        return no(c, "the token names no subject");
    }
    if (!check_times(c, claims) || !check_origin(c, claims) || !check_device(c, claims) ||
        !check_role(c, claims)) {
        return false;
    }
    slice path = c->settings->scopes_claim.len > 0 ? c->settings->scopes_claim : SLICE("scopes");
    const json *scopes = claim_at(claims, path);
    if (scopes) {
        if (!read_scopes(c, scopes, p->scopes, &p->scope_count)) {
            return false;
        }
    } else {
        char *own = arena_printf(c->memory, "user:" SLICE_FMT, SLICE_ARG(p->user));
        if (!own || !id_name_valid(slice_of(own))) {
            return no(c, "the token's subject is too long for a scope of its own");
        }
        p->scopes[0] = slice_of(own);
        p->scope_count = 1;
    }
    const json *read_only = json_get(claims, "read_scopes");
    return !read_only || read_scopes(c, read_only, p->read_scopes, &p->read_scope_count);
}

static bool check_token(check *c, slice token) {
    if (token.len == 0 || token.len > TOKEN_BYTES_MAX) {
        return no(c, "the token is too long");
    }
    const char *dot1 = memchr(token.ptr, '.', token.len);
    if (!dot1) {
        return no(c, "the token is not three parts");
    }
    size_t head_len = (size_t)(dot1 - token.ptr);
    const char *dot2 = memchr(dot1 + 1, '.', token.len - head_len - 1);
    if (!dot2) {
        return no(c, "the token is not three parts");
    }
    size_t signed_len = (size_t)(dot2 - token.ptr);
    slice head = {token.ptr, head_len};
    slice claims = {dot1 + 1, signed_len - head_len - 1};
    /* A third dot makes the signature undecodable. */
    slice signature = {dot2 + 1, token.len - signed_len - 1};
    return check_header(c, head) && check_signature(c, (slice){token.ptr, signed_len}, signature) &&
           check_claims(c, claims);
}

godwit_status auth_check(const auth_settings *settings, const key_set *keys, arena *a, slice token,
                         int64_t now_s, principal *out, const char **reason) {
    check c = {.settings = settings, .keys = keys, .memory = a, .now_s = now_s, .out = out};
    memset(out, 0, sizeof *out);
    bool ok = check_token(&c, token);
    *reason = ok ? NULL : c.reason;
    if (ok) {
        return GODWIT_OK;
    }
    memset(out, 0, sizeof *out);
    return a->failed ? GODWIT_NOMEM : c.key_missing ? GODWIT_NOT_FOUND : GODWIT_UNAUTHENTICATED;
}

/* ---- making ---- */

static void write_list(bytes *b, const slice *items, size_t count) {
    bytes_char(b, '[');
    bool first_item = true;
    for (size_t i = 0; i < count; i++) {
        json_comma(b, &first_item);
        json_write_text(b, items[i]);
    }
    bytes_char(b, ']');
}

static bool names_valid(const slice *items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!id_name_valid(items[i])) {
            return false;
        }
    }
    return count <= SCOPES_MAX;
}

/* Name and braces of a claim where claim_at finds it: "a.b" becomes "a":{"b": and, later, }. */
static size_t open_claim(bytes *b, bool *first, slice path) {
    size_t depth = 0;
    const char *dot;
    while (path.len > 0 && (dot = memchr(path.ptr, '.', path.len)) != NULL) {
        size_t len = (size_t)(dot - path.ptr);
        json_comma(b, first);
        json_write_text(b, (slice){path.ptr, len});
        bytes_text(b, ":{");
        *first = true;
        depth++;
        path = (slice){dot + 1, path.len - len - 1};
    }
    json_comma(b, first);
    json_write_text(b, path);
    bytes_char(b, ':');
    return depth;
}

static void close_claim(bytes *b, bool *first, size_t depth) {
    while (depth-- > 0) {
        bytes_char(b, '}');
    }
    *first = false;
}

static slice first_step(slice path) {
    const char *dot = path.len > 0 ? memchr(path.ptr, '.', path.len) : NULL;
    return (slice){path.ptr, dot ? (size_t)(dot - path.ptr) : path.len};
}

static slice scopes_path(const auth_settings *settings) {
    return settings->scopes_claim.len > 0 ? settings->scopes_claim : SLICE("scopes");
}

static void write_claims(bytes *b, const auth_settings *settings, const principal *who,
                         int64_t now_s) {
    bool first = true;
    bytes_char(b, '{');
    json_key(b, &first, "sub");
    json_write_text(b, who->user);
    if (who->scope_count > 0) {
        size_t depth = open_claim(b, &first, scopes_path(settings));
        write_list(b, who->scopes, who->scope_count);
        close_claim(b, &first, depth);
    }
    if (who->device.len > 0) {
        size_t depth = open_claim(b, &first, settings->device_claim);
        json_write_text(b, who->device);
        close_claim(b, &first, depth);
    }
    if (who->read_scope_count > 0) {
        json_key(b, &first, "read_scopes");
        write_list(b, who->read_scopes, who->read_scope_count);
    }
    if (settings->issuer.len > 0) {
        json_key(b, &first, "iss");
        json_write_text(b, settings->issuer);
    }
    if (settings->audience.len > 0) {
        json_key(b, &first, "aud");
        json_write_text(b, settings->audience);
    }
    json_key(b, &first, "iat");
    json_write_int(b, now_s);
    if (who->expires_s != 0) {
        json_key(b, &first, "exp");
        json_write_int(b, who->expires_s);
    }
    bytes_char(b, '}');
}

/* Claims under one object are not put together: it would be there twice. */
static bool device_valid(const auth_settings *settings, const principal *who) {
    return who->device.len == 0 ? settings->device_claim.len == 0
                                : id_device_valid(who->device) && settings->device_claim.len > 0 &&
                                      !slice_equal(first_step(settings->device_claim),
                                                   first_step(scopes_path(settings)));
}

godwit_status auth_mint(const auth_settings *settings, slice key, const principal *who,
                        int64_t now_s, bytes *out) {
    if (key.len < KEY_SECRET_BYTES_MIN || !id_name_valid(who->user) ||
        !device_valid(settings, who) || !names_valid(who->scopes, who->scope_count) ||
        !names_valid(who->read_scopes, who->read_scope_count)) {
        return GODWIT_INVALID;
    }
    bytes claims, token;
    unsigned char signature[MAC_BYTES];
    bytes_init(&claims, NULL, 0);
    bytes_init(&token, NULL, 0);
    write_claims(&claims, settings, who, now_s);
    base64url_encode(&token, SLICE("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"));
    bytes_char(&token, '.');
    base64url_encode(&token, bytes_view(&claims));
    godwit_status status = GODWIT_NOMEM;
    if (!claims.failed && !token.failed && key_sign(key, bytes_view(&token), signature)) {
        bytes_char(&token, '.');
        base64url_encode(&token, (slice){(const char *)signature, MAC_BYTES});
        bytes_slice(out, bytes_view(&token));
        status = token.failed || out->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    bytes_deinit(&claims);
    bytes_deinit(&token);
    return status;
}
