/* Bearer tokens. The first byte chooses: the token as it is; or "header.claims" as plain JSON texts
 * divided by a line end, which are encoded and signed here, so that what lies behind the signature
 * is reached too; or that, changed at one place counted from its end. Nothing that was not signed
 * with the key is ever accepted. */
#include "fuzz.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "server/auth.h"

static const char KEY[] = "a key that is long enough to be one";

static void add_base64url(bytes *out, const void *data, size_t size) {
    size_t capacity = 4 * ((size + 2) / 3) + 1;
    unsigned char *text = malloc(capacity);
    FUZZ_CHECK(text);
    int n = EVP_EncodeBlock(text, data, (int)size);
    for (int i = 0; i < n; i++) {
        if (text[i] != '=') {
            bytes_char(out, text[i] == '+' ? '-' : text[i] == '/' ? '_' : (char)text[i]);
        }
    }
    free(text);
}

static void sign(bytes *token) {
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned mac_bytes = 0;
    FUZZ_CHECK(HMAC(EVP_sha256(), KEY, (int)strlen(KEY), (const unsigned char *)token->ptr,
                    token->len, mac, &mac_bytes));
    bytes_char(token, '.');
    add_base64url(token, mac, mac_bytes);
}

/* Whether the part behind the last dot is our signature of what is before it. */
static bool is_signed(slice token) {
    size_t dot = token.len;
    while (dot > 0 && token.ptr[dot - 1] != '.') {
        dot--;
    }
    if (dot == 0) {
        return false;
    }
    bytes again;
    bytes_init(&again, NULL, 0);
    bytes_add(&again, token.ptr, dot - 1);
    if (again.len > 0) {
        sign(&again);
    }
    bool equal = slice_equal(bytes_view(&again), token);
    bytes_deinit(&again);
    return equal;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    auth_settings settings = {.issuer = {NULL, 0}};
    key_set *keys;
    FUZZ_CHECK(key_set_from_secret(slice_of(KEY), &keys) == GODWIT_OK);
    unsigned kind = fuzz_byte(&data, &size) % 3;
    unsigned back = kind == 2 ? fuzz_byte(&data, &size) : 0;
    bytes token;
    bytes_init(&token, NULL, 0);
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    if (kind == 0 || !end) {
        bytes_add(&token, data, size);
    } else {
        add_base64url(&token, data, (size_t)(end - data));
        bytes_char(&token, '.');
        add_base64url(&token, end + 1, size - (size_t)(end - data) - 1);
        sign(&token);
        if (kind == 2 && token.len > back) {
            token.ptr[token.len - 1 - back] ^= 1;
        }
    }
    arena a;
    arena_init(&a, NULL, 0);
    principal who;
    const char *reason = NULL;
    godwit_status status =
        auth_check(&settings, keys, &a, bytes_view(&token), INT64_C(1767323045), &who, &reason);
    if (status == GODWIT_OK) {
        FUZZ_CHECK(is_signed(bytes_view(&token)));
        FUZZ_CHECK(who.user.len > 0 && who.scope_count <= 64 && who.read_scope_count <= 64);
    } else {
        FUZZ_CHECK(status == GODWIT_NOMEM || reason);
    }
    key_set_release(keys);
    arena_deinit(&a);
    bytes_deinit(&token);
    return 0;
}
