/* Tokens: forgeries as a table, the claims' rules, times at their edges, and that minting and
 * checking agree. Every forgery is correctly signed unless its signature is the point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "core/limits.h"
#include "server/auth.h"

#define NOW 1750000000
static const slice key = {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 64};

/* The encoder of the test is not the one under test. */
static void encode(bytes *b, const void *data, size_t len) {
    unsigned char text[16384];
    assert_true(len < 12000);
    int n = EVP_EncodeBlock(text, data, (int)len);
    for (int i = 0; i < n && text[i] != '='; i++) {
        bytes_char(b, text[i] == '+' ? '-' : text[i] == '/' ? '_' : (char)text[i]);
    }
}

static void sign(bytes *token, const EVP_MD *digest, slice with) {
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned int len = sizeof mac;
    assert_non_null(HMAC(digest, with.ptr, (int)with.len, (const unsigned char *)token->ptr,
                         token->len, mac, &len));
    bytes_char(token, '.');
    encode(token, mac, len);
}

static void make(bytes *token, const char *header, slice claims) {
    bytes_init(token, NULL, 0);
    encode(token, header, strlen(header));
    bytes_char(token, '.');
    encode(token, claims.ptr, claims.len);
    sign(token, EVP_sha256(), key);
}

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define CLAIMS "{\"sub\":\"u\",\"scopes\":[\"s\"],\"exp\":1750003600}"

static const auth_settings plain = {.issuer = {NULL, 0}};

static godwit_status check(const auth_settings *settings, slice token, principal *who,
                           arena *memory) {
    const char *reason = NULL;
    key_set *keys;
    assert_int_equal(key_set_from_secret(key, &keys), GODWIT_OK);
    arena_init(memory, NULL, 0);
    godwit_status status = auth_check(settings, keys, memory, token, NOW, who, &reason);
    key_set_release(keys);
    assert_int_equal(status == GODWIT_OK, reason == NULL);
    return status == GODWIT_NOT_FOUND ? GODWIT_UNAUTHENTICATED : status; /* no such key */
}

static godwit_status check_claims(const auth_settings *settings, const char *claims, principal *who,
                                  arena *memory) {
    bytes token;
    make(&token, HEADER, slice_of(claims));
    godwit_status status = check(settings, bytes_view(&token), who, memory);
    bytes_deinit(&token);
    return status;
}

static void good_token_is_read(void **state) {
    (void)state;
    principal who;
    arena memory;
    assert_int_equal(
        check_claims(&plain,
                     "{\"sub\":\"alice\",\"scopes\":[\"a\",\"b \\u00e9\"],\"read_scopes\":[\"c\"],"
                     "\"exp\":1750003600,\"nbf\":1749999999,\"iat\":1,\"aud\":\"x\",\"more\":{}}",
                     &who, &memory),
        GODWIT_OK);
    assert_true(slice_is(who.user, "alice"));
    assert_int_equal(who.scope_count, 2);
    assert_true(slice_is(who.scopes[0], "a"));
    assert_true(slice_is(who.scopes[1], "b \xc3\xa9"));
    assert_int_equal(who.read_scope_count, 1);
    assert_true(slice_is(who.read_scopes[0], "c"));
    assert_int_equal(who.expires_s, 1750003600);
    arena_deinit(&memory);
}

static void headers_that_are_refused(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"None\"}",
        "{\"alg\":\"NONE\"}",
        "{\"alg\":\"\"}",
        "{\"alg\":\"hs256\"}",
        "{\"alg\":\"HS256 \"}",
        "{\"alg\":\"HS256\\u0000\"}",
        "{\"alg\":\"HS384\"}",
        "{\"alg\":\"HS512\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"ES256\"}",
        "{\"alg\":\"EdDSA\"}",
        "{\"alg\":null}",
        "{\"alg\":256}",
        "{\"alg\":[\"HS256\"]}",
        "{\"ALG\":\"HS256\"}",
        "{}",
        "[]",
        "\"HS256\"",
        "null",
        "",
        "{\"alg\":\"HS256\",\"alg\":\"none\"}",
        "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
        "{\"alg\":\"HS256\",\"crit\":[]}",
        "{\"alg\":\"HS256\",\"crit\":null}",
        "{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}",
        "{\"alg\":\"HS256\",\"typ\":\"JWE\"}",
        "{\"alg\":\"HS256\",\"typ\":1}",
        "{\"alg\":\"HS256\"}x",
        "{\"alg\":\"HS256\",}",
        "{'alg':'HS256'}",
        "\xef\xbb\xbf{\"alg\":\"HS256\"}",
    };
    for (size_t i = 0; i < COUNT_OF(headers); i++) {
        bytes token;
        principal who;
        arena memory;
        make(&token, headers[i], SLICE(CLAIMS));
        if (check(&plain, bytes_view(&token), &who, &memory) != GODWIT_UNAUTHENTICATED) {
            fail_msg("accepted the header %s", headers[i]);
        }
        assert_int_equal(who.scope_count, 0);
        assert_int_equal(who.user.len, 0);
        arena_deinit(&memory);
        bytes_deinit(&token);
    }
}

static void claims_that_are_refused(void **state) {
    (void)state;
    static const char *const claims[] = {
        "",
        "{}",
        "[]",
        "null",
        "{\"scopes\":[\"s\"]}",
        "{\"sub\":\"\"}",
        "{\"sub\":1}",
        "{\"sub\":null}",
        "{\"sub\":[\"u\"]}",
        "{\"sub\":\"u\\u0000\"}",
        "{\"sub\":\"u\",\"sub\":\"v\"}",
        "{\"sub\":\"u\",\"exp\":\"1750003600\"}",
        "{\"sub\":\"u\",\"exp\":null}",
        "{\"sub\":\"u\",\"exp\":true}",
        "{\"sub\":\"u\",\"exp\":0}",
        "{\"sub\":\"u\",\"exp\":-1}",
        "{\"sub\":\"u\",\"exp\":1e300}",
        "{\"sub\":\"u\",\"exp\":9223372036854775807}",
        "{\"sub\":\"u\",\"exp\":99999999999999999999}",
        "{\"sub\":\"u\",\"exp\":1749999940}",
        "{\"sub\":\"u\",\"exp\":1749999940.9}",
        "{\"sub\":\"u\",\"exp\":1750003600,\"exp\":1}",
        "{\"sub\":\"u\",\"nbf\":1750000061}",
        "{\"sub\":\"u\",\"nbf\":\"1\"}",
        "{\"sub\":\"u\",\"nbf\":9223372036854775807}",
        "{\"sub\":\"u\",\"scopes\":\"s\"}",
        "{\"sub\":\"u\",\"scopes\":{\"s\":1}}",
        "{\"sub\":\"u\",\"scopes\":null}",
        "{\"sub\":\"u\",\"scopes\":[1]}",
        "{\"sub\":\"u\",\"scopes\":[\"\"]}",
        "{\"sub\":\"u\",\"scopes\":[\"s\",null]}",
        "{\"sub\":\"u\",\"scopes\":[[\"s\"]]}",
        "{\"sub\":\"u\",\"scopes\":[\"s\\n\"]}",
        "{\"sub\":\"u\",\"scopes\":[\"s\"],\"scopes\":[\"t\"]}",
        "{\"sub\":\"u\",\"read_scopes\":\"s\"}",
        "{\"sub\":\"u\",\"read_scopes\":[7]}",
        "{\"sub\":\"u\"} ,",
        "{\"sub\":\"\xff\"}",
    };
    for (size_t i = 0; i < COUNT_OF(claims); i++) {
        principal who;
        arena memory;
        if (check_claims(&plain, claims[i], &who, &memory) != GODWIT_UNAUTHENTICATED) {
            fail_msg("accepted the claims %s", claims[i]);
        }
        assert_int_equal(who.scope_count, 0);
        assert_int_equal(who.expires_s, 0);
        arena_deinit(&memory);
    }
}

static void refuse_text(slice token, const char *name) {
    principal who;
    arena memory;
    if (check(&plain, token, &who, &memory) != GODWIT_UNAUTHENTICATED) {
        fail_msg("accepted: %s", name);
    }
    arena_deinit(&memory);
}

static void signatures_that_are_wrong(void **state) {
    (void)state;
    static const slice others[] = {
        {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdee", 64},
        {"\0", 1},
        {"", 0},
    };
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        bytes token;
        bytes_init(&token, NULL, 0);
        encode(&token, HEADER, strlen(HEADER));
        bytes_char(&token, '.');
        encode(&token, CLAIMS, strlen(CLAIMS));
        sign(&token, EVP_sha256(), others[i]);
        refuse_text(bytes_view(&token), "another key");
        bytes_deinit(&token);
    }
    bytes token;
    bytes_init(&token, NULL, 0);
    encode(&token, HEADER, strlen(HEADER));
    bytes_char(&token, '.');
    encode(&token, CLAIMS, strlen(CLAIMS));
    size_t signed_len = token.len;
    sign(&token, EVP_sha512(), key);
    refuse_text(bytes_view(&token), "SHA-512 of the right key");
    token.len = signed_len;
    refuse_text(bytes_view(&token), "no third part");
    bytes_char(&token, '.');
    refuse_text(bytes_view(&token), "empty signature");
    bytes_deinit(&token);
}

/* Every byte of a good token changed to every other kind of byte: nothing is accepted. */
static void no_single_change_is_accepted(void **state) {
    (void)state;
    static const char kinds[] = "AaZz09-_.=+/ \n~";
    bytes token;
    make(&token, HEADER, SLICE(CLAIMS));
    for (size_t i = 0; i < token.len; i++) {
        char was = token.ptr[i];
        for (size_t k = 0; k <= strlen(kinds); k++) { /* with the NUL */
            if (kinds[k] != was) {
                token.ptr[i] = kinds[k];
                refuse_text(bytes_view(&token), "a changed byte");
            }
        }
        token.ptr[i] = was;
    }
    principal who;
    arena memory;
    assert_int_equal(check(&plain, bytes_view(&token), &who, &memory), GODWIT_OK);
    arena_deinit(&memory);
    for (size_t len = 0; len < token.len; len++) {
        refuse_text((slice){token.ptr, len}, "a shorter token");
    }
    bytes_char(&token, '=');
    refuse_text(bytes_view(&token), "padding");
    token.len--;
    bytes_text(&token, ".e30");
    refuse_text(bytes_view(&token), "a fourth part");
    bytes_deinit(&token);
}

static void huge_tokens_are_refused(void **state) {
    (void)state;
    bytes claims, token;
    bytes_init(&claims, NULL, 0);
    bytes_text(&claims, "{\"sub\":\"u\",\"x\":\"");
    for (size_t i = 0; i < 6100; i++) {
        bytes_char(&claims, 'x');
    }
    bytes_text(&claims, "\"}");
    make(&token, HEADER, bytes_view(&claims));
    assert_true(token.len > TOKEN_BYTES_MAX);
    refuse_text(bytes_view(&token), "8 KiB");
    bytes_deinit(&claims);
    bytes_deinit(&token);
}

static void times_at_their_edges(void **state) {
    (void)state;
    static const struct {
        const char *claims;
        bool good;
    } cases[] = {
        {"{\"sub\":\"u\",\"exp\":1749999941}", true},
        {"{\"sub\":\"u\",\"exp\":1749999940}", false},
        {"{\"sub\":\"u\",\"exp\":1749999941.5}", true},
        {"{\"sub\":\"u\",\"nbf\":1750000060}", true},
        {"{\"sub\":\"u\",\"nbf\":1750000061}", false},
        {"{\"sub\":\"u\"}", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        principal who;
        arena memory;
        assert_int_equal(check_claims(&plain, cases[i].claims, &who, &memory) == GODWIT_OK,
                         cases[i].good);
        arena_deinit(&memory);
    }
}

static void own_scope_without_the_claim(void **state) {
    (void)state;
    principal who;
    arena memory;
    assert_int_equal(check_claims(&plain, "{\"sub\":\"ann\"}", &who, &memory), GODWIT_OK);
    assert_int_equal(who.scope_count, 1);
    assert_true(slice_is(who.scopes[0], "user:ann"));
    arena_deinit(&memory);
    assert_int_equal(check_claims(&plain, "{\"sub\":\"ann\",\"scopes\":[]}", &who, &memory),
                     GODWIT_OK);
    assert_int_equal(who.scope_count, 0);
    arena_deinit(&memory);
}

static void issuer_and_audience_when_set(void **state) {
    (void)state;
    const auth_settings strict = {.issuer = SLICE("https://id"), .audience = SLICE("sync")};
    static const struct {
        const char *claims;
        bool good;
    } cases[] = {
        {"{\"sub\":\"u\",\"iss\":\"https://id\",\"aud\":\"sync\"}", true},
        {"{\"sub\":\"u\",\"iss\":\"https://id\",\"aud\":[\"x\",\"sync\"]}", true},
        {"{\"sub\":\"u\",\"iss\":\"https://id\",\"aud\":[]}", false},
        {"{\"sub\":\"u\",\"iss\":\"https://id\",\"aud\":{\"sync\":1}}", false},
        {"{\"sub\":\"u\",\"iss\":\"https://id\",\"aud\":\"syncs\"}", false},
        {"{\"sub\":\"u\",\"iss\":\"https://id\"}", false},
        {"{\"sub\":\"u\",\"aud\":\"sync\"}", false},
        {"{\"sub\":\"u\",\"iss\":\"https://id/\",\"aud\":\"sync\"}", false},
        {"{\"sub\":\"u\",\"iss\":[\"https://id\"],\"aud\":\"sync\"}", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        principal who;
        arena memory;
        if ((check_claims(&strict, cases[i].claims, &who, &memory) == GODWIT_OK) != cases[i].good) {
            fail_msg("%s", cases[i].claims);
        }
        arena_deinit(&memory);
    }
}

static void scopes_may_be_nested(void **state) {
    (void)state;
    const auth_settings nested = {.scopes_claim = SLICE("app.sync.scopes")};
    principal who;
    arena memory;
    assert_int_equal(check_claims(&nested,
                                  "{\"sub\":\"u\",\"scopes\":[\"no\"],"
                                  "\"app\":{\"sync\":{\"scopes\":[\"yes\"]}}}",
                                  &who, &memory),
                     GODWIT_OK);
    assert_int_equal(who.scope_count, 1);
    assert_true(slice_is(who.scopes[0], "yes"));
    arena_deinit(&memory);
    assert_int_equal(check_claims(&nested, "{\"sub\":\"u\",\"app\":7}", &who, &memory), GODWIT_OK);
    assert_true(slice_is(who.scopes[0], "user:u"));
    arena_deinit(&memory);
}

static void a_token_may_be_one_devices(void **state) {
    (void)state;
    const auth_settings bound = {.device_claim = SLICE("app.device")};
    static const struct {
        const char *claims;
        godwit_status status;
    } cases[] = {{"{\"sub\":\"u\",\"app\":{\"device\":\"d-1\"}}", GODWIT_OK},
                 {"{\"sub\":\"u\",\"device\":\"d-1\"}", GODWIT_UNAUTHENTICATED},
                 {"{\"sub\":\"u\",\"app\":{\"device\":\"\"}}", GODWIT_UNAUTHENTICATED},
                 {"{\"sub\":\"u\",\"app\":{\"device\":[\"d-1\"]}}", GODWIT_UNAUTHENTICATED},
                 {"{\"sub\":\"u\",\"app\":{\"device\":\"d 1\"}}", GODWIT_UNAUTHENTICATED}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        principal who;
        arena memory;
        assert_int_equal(check_claims(&bound, cases[i].claims, &who, &memory), cases[i].status);
        assert_true(slice_is(who.device, i == 0 ? "d-1" : ""));
        arena_deinit(&memory);
    }
}

static void a_token_names_an_allowed_role(void **state) {
    (void)state;
    const auth_settings roles = {.roles = {SLICE("authenticated"), SLICE("anon")}, .role_count = 2};
    static const char good[] = "{\"sub\":\"u\",\"role\":\"anon\"}";
    static const char *const bad[] = {
        "{\"sub\":\"u\"}", "{\"sub\":\"u\",\"role\":\"service_role\"}",
        "{\"sub\":\"u\",\"role\":\"\"}", "{\"sub\":\"u\",\"role\":[\"anon\"]}",
        "{\"sub\":\"u\",\"role\":\"Anon\"}"};
    principal who;
    arena memory;
    assert_int_equal(check_claims(&roles, good, &who, &memory), GODWIT_OK);
    assert_true(slice_is(who.role, "anon") && slice_is(who.claims, good));
    arena_deinit(&memory);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(check_claims(&roles, bad[i], &who, &memory), GODWIT_UNAUTHENTICATED);
        assert_int_equal(who.role.len, 0);
        arena_deinit(&memory);
    }
    assert_int_equal(check_claims(&plain, bad[1], &who, &memory), GODWIT_OK); /* nobody asks */
    assert_int_equal(who.role.len, 0);
    arena_deinit(&memory);
}

static void too_many_scopes(void **state) {
    (void)state;
    for (size_t count = SCOPES_MAX; count <= SCOPES_MAX + 1; count++) {
        bytes claims;
        principal who;
        arena memory;
        bytes_init(&claims, NULL, 0);
        bytes_text(&claims, "{\"sub\":\"u\",\"scopes\":[\"0\"");
        for (size_t i = 1; i < count; i++) {
            bytes_printf(&claims, ",\"%zu\"", i);
        }
        bytes_text(&claims, "]}");
        assert_int_equal(check_claims(&plain, claims.ptr, &who, &memory),
                         count <= SCOPES_MAX ? GODWIT_OK : GODWIT_UNAUTHENTICATED);
        arena_deinit(&memory);
        bytes_deinit(&claims);
    }
}

static void minted_tokens_are_accepted(void **state) {
    (void)state;
    auth_settings settings = {.issuer = SLICE("iss"),
                              .audience = SLICE("aud"),
                              .scopes_claim = SLICE("a.b"),
                              .device_claim = SLICE("c.d")};
    principal who, back;
    arena memory;
    bytes token;
    memset(&who, 0, sizeof who);
    who.user = SLICE("o'brien \"x\" \xc3\xa9");
    who.scopes[0] = SLICE("one");
    who.scopes[1] = SLICE("two");
    who.scope_count = 2;
    who.read_scopes[0] = SLICE("three");
    who.read_scope_count = 1;
    who.expires_s = NOW + 10;
    bytes_init(&token, NULL, 0);
    assert_int_equal(auth_mint(&settings, key, &who, NOW, &token), GODWIT_INVALID);
    who.device = SLICE("d-1");
    assert_int_equal(auth_mint(&settings, key, &who, NOW, &token), GODWIT_OK);
    assert_int_equal(check(&settings, bytes_view(&token), &back, &memory), GODWIT_OK);
    assert_true(slice_equal(back.user, who.user));
    assert_int_equal(back.scope_count, 2);
    assert_true(slice_is(back.scopes[1], "two"));
    assert_int_equal(back.read_scope_count, 1);
    assert_int_equal(back.expires_s, NOW + 10);
    assert_true(slice_is(back.device, "d-1"));
    arena_deinit(&memory);
    bytes_clear(&token);
    who.scopes[1] = SLICE("");
    assert_int_equal(auth_mint(&settings, key, &who, NOW, &token), GODWIT_INVALID);
    assert_int_equal(token.len, 0);
    bytes_deinit(&token);
}

static void short_keys_sign_nothing(void **state) {
    (void)state;
    const slice weak = SLICE("0123456789abcdef0123456789abcde");
    principal who;
    key_set *keys;
    bytes token;
    memset(&who, 0, sizeof who);
    who.user = SLICE("u");
    bytes_init(&token, NULL, 0);
    assert_int_not_equal(auth_mint(&plain, weak, &who, NOW, &token), GODWIT_OK);
    bytes_deinit(&token);
    assert_int_equal(key_set_from_secret(weak, &keys), GODWIT_INVALID);
    assert_null(keys);
}

static void bearer_header(void **state) {
    (void)state;
    slice token;
    assert_true(auth_bearer(SLICE("Bearer abc"), &token));
    assert_true(slice_is(token, "abc"));
    assert_true(auth_bearer(SLICE("bEARER abc"), &token));
    assert_false(auth_bearer(SLICE("Bearer"), &token));
    assert_false(auth_bearer(SLICE("Bearer "), &token));
    assert_false(auth_bearer(SLICE("Basic abc"), &token));
    assert_false(auth_bearer(SLICE("Bearerabc"), &token));
    assert_false(auth_bearer(SLICE(""), &token));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_token_is_read),
        cmocka_unit_test(headers_that_are_refused),
        cmocka_unit_test(claims_that_are_refused),
        cmocka_unit_test(signatures_that_are_wrong),
        cmocka_unit_test(no_single_change_is_accepted),
        cmocka_unit_test(huge_tokens_are_refused),
        cmocka_unit_test(times_at_their_edges),
        cmocka_unit_test(own_scope_without_the_claim),
        cmocka_unit_test(issuer_and_audience_when_set),
        cmocka_unit_test(scopes_may_be_nested),
        cmocka_unit_test(a_token_may_be_one_devices),
        cmocka_unit_test(a_token_names_an_allowed_role),
        cmocka_unit_test(too_many_scopes),
        cmocka_unit_test(minted_tokens_are_accepted),
        cmocka_unit_test(short_keys_sign_nothing),
        cmocka_unit_test(bearer_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
