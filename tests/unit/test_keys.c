/* Public keys: tokens of all algorithms against sets made from JWKS documents, the ways to confuse
 * a reader of them, documents that must be refused, and when a key set is read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

#include "core/base64.h"
#include "server/auth.h"
#include "server/keyring.h"

#define NOW INT64_C(1750000000)
static const slice SECRET = {"0123456789abcdef0123456789abcdef", 32};
static EVP_PKEY *RSA2048_KEY, *P256_KEY, *ED25519_KEY;

/* ---- documents and tokens ---- */

static void add_number(bytes *b, const EVP_PKEY *key, const char *parameter) {
    BIGNUM *n = NULL;
    unsigned char raw[1024];
    assert_int_equal(EVP_PKEY_get_bn_param(key, parameter, &n), 1);
    int len = BN_bn2bin(n, raw);
    base64url_encode(b, (slice){(const char *)raw, (size_t)len});
    BN_free(n);
}

static void add_padded(bytes *b, const EVP_PKEY *key, const char *parameter) {
    BIGNUM *n = NULL;
    unsigned char raw[32];
    assert_int_equal(EVP_PKEY_get_bn_param(key, parameter, &n), 1);
    assert_int_equal(BN_bn2binpad(n, raw, sizeof raw), sizeof raw);
    base64url_encode(b, (slice){(const char *)raw, sizeof raw});
    BN_free(n);
}

/* The members of a key without the braces; the caller adds kid and others. */
static void add_jwk(bytes *b, EVP_PKEY *key) {
    if (key == ED25519_KEY) {
        unsigned char raw[32];
        size_t len = sizeof raw;
        assert_int_equal(EVP_PKEY_get_raw_public_key(key, raw, &len), 1);
        bytes_text(b, "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"");
        base64url_encode(b, (slice){(const char *)raw, len});
    } else if (key == P256_KEY) {
        bytes_text(b, "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"");
        add_padded(b, key, OSSL_PKEY_PARAM_EC_PUB_X);
        bytes_text(b, "\",\"y\":\"");
        add_padded(b, key, OSSL_PKEY_PARAM_EC_PUB_Y);
    } else {
        bytes_text(b, "\"kty\":\"RSA\",\"n\":\"");
        add_number(b, key, OSSL_PKEY_PARAM_RSA_N);
        bytes_text(b, "\",\"e\":\"");
        add_number(b, key, OSSL_PKEY_PARAM_RSA_E);
    }
    bytes_char(b, '"');
}

static void add_document(bytes *b) {
    bytes_text(b, "{\"keys\":[{\"kid\":\"r\",\"alg\":\"RS256\",\"use\":\"sig\",");
    add_jwk(b, RSA2048_KEY);
    bytes_text(b, "},{\"kid\":\"e\",\"key_ops\":[\"verify\"],");
    add_jwk(b, P256_KEY);
    bytes_text(b, "},{\"kid\":\"d\",");
    add_jwk(b, ED25519_KEY);
    bytes_text(b, "},{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"AA\",\"y\":\"AA\"}]}");
}

static key_set *all_keys(bool with_secret) {
    bytes text;
    char message[512];
    key_set *secret = NULL, *set;
    bytes_init(&text, NULL, 0);
    add_document(&text);
    if (with_secret) {
        assert_int_equal(key_set_from_secret(SECRET, &secret), GODWIT_OK);
    }
    assert_int_equal(key_set_from_jwks(bytes_view(&text), secret, &set, message), GODWIT_OK);
    assert_int_equal(key_set_count(set), with_secret ? 4 : 3);
    key_set_release(secret);
    bytes_deinit(&text);
    return set;
}

static void add_signature(bytes *token, EVP_PKEY *key, bool der) {
    unsigned char out[1024];
    size_t len = sizeof out;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    assert_int_equal(
        EVP_DigestSignInit(context, NULL, key == ED25519_KEY ? NULL : EVP_sha256(), NULL, key), 1);
    assert_int_equal(
        EVP_DigestSign(context, out, &len, (const unsigned char *)token->ptr, token->len), 1);
    EVP_MD_CTX_free(context);
    if (key == P256_KEY && !der) {
        const unsigned char *from = out;
        ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &from, (long)len);
        assert_non_null(sig);
        unsigned char pair[64];
        BN_bn2binpad(ECDSA_SIG_get0_r(sig), pair, 32);
        BN_bn2binpad(ECDSA_SIG_get0_s(sig), pair + 32, 32);
        ECDSA_SIG_free(sig);
        memcpy(out, pair, sizeof pair);
        len = sizeof pair;
    }
    bytes_char(token, '.');
    base64url_encode(token, (slice){(const char *)out, len});
}

static void begin_token(bytes *token, const char *header) {
    bytes_init(token, NULL, 0);
    base64url_encode(token, slice_of(header));
    bytes_char(token, '.');
    base64url_encode(token, SLICE("{\"sub\":\"u\",\"scopes\":[\"s\"],\"exp\":1750003600}"));
}

static godwit_status check(const key_set *set, bytes *token) {
    const auth_settings settings = {.issuer = {NULL, 0}};
    principal who;
    const char *reason = NULL;
    arena memory;
    arena_init(&memory, NULL, 0);
    godwit_status status =
        auth_check(&settings, set, &memory, bytes_view(token), NOW, &who, &reason);
    assert_int_equal(status == GODWIT_OK, slice_is(who.user, "u"));
    assert_int_equal(status == GODWIT_OK, reason == NULL);
    arena_deinit(&memory);
    bytes_deinit(token);
    return status;
}

static godwit_status check_signed(const key_set *set, const char *header, EVP_PKEY *key) {
    bytes token;
    begin_token(&token, header);
    add_signature(&token, key, false);
    return check(set, &token);
}

/* ---- tests ---- */

static void each_algorithm_has_its_key(void **state) {
    (void)state;
    key_set *set = all_keys(true);
    assert_int_equal(check_signed(set, "{\"alg\":\"RS256\",\"kid\":\"r\"}", RSA2048_KEY),
                     GODWIT_OK);
    assert_int_equal(check_signed(set, "{\"alg\":\"ES256\",\"kid\":\"e\"}", P256_KEY), GODWIT_OK);
    assert_int_equal(check_signed(set, "{\"alg\":\"EdDSA\",\"kid\":\"d\"}", ED25519_KEY),
                     GODWIT_OK);
    /* without a key id: the only one of that algorithm */
    assert_int_equal(check_signed(set, "{\"alg\":\"RS256\"}", RSA2048_KEY), GODWIT_OK);
    bytes token;
    unsigned char mac[32];
    begin_token(&token, "{\"alg\":\"HS256\",\"kid\":\"any\"}");
    assert_true(key_sign(SECRET, bytes_view(&token), mac));
    bytes_char(&token, '.');
    base64url_encode(&token, (slice){(const char *)mac, sizeof mac});
    assert_int_equal(check(set, &token), GODWIT_OK);
    key_set_release(set);
}

static void a_key_is_not_for_another_algorithm(void **state) {
    (void)state;
    static const char *const unknown[] = {
        "{\"alg\":\"RS256\",\"kid\":\"e\"}", "{\"alg\":\"RS256\",\"kid\":\"new\"}",
        "{\"alg\":\"ES256\",\"kid\":\"r\"}", "{\"alg\":\"HS256\",\"kid\":\"r\"}",
        "{\"alg\":\"RS256\",\"kid\":\"\"}",  "{\"alg\":\"EdDSA\",\"kid\":\"r\"}"};
    static const char *const refused[] = {
        "{\"alg\":\"none\"}",
        "{\"alg\":\"RS384\",\"kid\":\"r\"}",
        "{\"alg\":\"PS256\",\"kid\":\"r\"}",
        "{\"alg\":\"rs256\",\"kid\":\"r\"}",
        "{\"alg\":\"\",\"kid\":\"r\"}",
        "{\"kid\":\"r\"}",
        "{\"alg\":[\"RS256\"],\"kid\":\"r\"}",
        "{\"alg\":\"RS256\",\"kid\":[\"r\"]}",
        "{\"alg\":\"RS256\",\"kid\":null}",
        "{\"alg\":\"RS256\",\"kid\":\"r\",\"kid\":\"r\"}",
        "{\"alg\":\"RS256\",\"kid\":\"r\",\"crit\":[\"b64\"],\"b64\":true}",
        "{\"alg\":\"ES256\",\"kid\":\"e\"}", /* signed by the RSA key */
    };
    key_set *set = all_keys(false);
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        assert_int_equal(check_signed(set, unknown[i], RSA2048_KEY), GODWIT_NOT_FOUND);
    }
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        if (check_signed(set, refused[i], RSA2048_KEY) != GODWIT_UNAUTHENTICATED) {
            fail_msg("not refused: %s", refused[i]);
        }
    }
    key_set_release(set);
}

/* The public key is no secret: a token signed with its text as an HMAC key is nothing. */
static void a_public_key_is_no_secret(void **state) {
    (void)state;
    key_set *set = all_keys(true);
    bytes material, token;
    unsigned char mac[32];
    bytes_init(&material, NULL, 0);
    add_number(&material, RSA2048_KEY, OSSL_PKEY_PARAM_RSA_N);
    begin_token(&token, "{\"alg\":\"HS256\",\"kid\":\"r\"}");
    assert_true(key_sign(bytes_view(&material), bytes_view(&token), mac));
    bytes_char(&token, '.');
    base64url_encode(&token, (slice){(const char *)mac, sizeof mac});
    assert_int_equal(check(set, &token), GODWIT_UNAUTHENTICATED);
    bytes_deinit(&material);
    key_set_release(set);
}

static void signatures_have_one_form(void **state) {
    (void)state;
    key_set *set = all_keys(false);
    bytes token;
    begin_token(&token, "{\"alg\":\"ES256\",\"kid\":\"e\"}");
    add_signature(&token, P256_KEY, true);
    assert_int_equal(check(set, &token), GODWIT_UNAUTHENTICATED);
    begin_token(&token, "{\"alg\":\"ES256\",\"kid\":\"e\"}");
    bytes_char(&token, '.');
    static const char zeros[64];
    base64url_encode(&token, (slice){zeros, sizeof zeros}); /* r = s = 0 */
    assert_int_equal(check(set, &token), GODWIT_UNAUTHENTICATED);
    begin_token(&token, "{\"alg\":\"EdDSA\",\"kid\":\"d\"}");
    bytes_char(&token, '.');
    assert_int_equal(check(set, &token), GODWIT_UNAUTHENTICATED); /* none at all */
    key_set_release(set);
    assert_int_equal(check_signed(NULL, "{\"alg\":\"RS256\"}", RSA2048_KEY), GODWIT_NOT_FOUND);
}

static void expect_refused(const char *text) {
    char message[512] = "";
    key_set *set;
    godwit_status status = key_set_from_jwks(slice_of(text), NULL, &set, message);
    if (status == GODWIT_OK || !message[0] || set) {
        fail_msg("taken: %.200s", text);
    }
}

static void documents_that_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "null",
        "[]",
        "{}",
        "{\"keys\":{}}",
        "{\"keys\":[]}",
        "{\"keys\":[1]}",
        "{\"keys\":[{}]}",
        "{\"keys\":[],\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\"}]}",
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}",
        /* no point of the curve */
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\","
        "\"x\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\","
        "\"y\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQEB\"}]}",
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AA\",\"y\":\"AA\"}]}",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        expect_refused(texts[i]);
    }
    bytes b;
    bytes_init(&b, NULL, 0);
    static const char *const spoiled[][2] = {
        {"\"kid\":\"a\",\"d\":\"AQEB\",", ""}, /* a private key */
        {"\"use\":\"enc\",", ""},              /* for encryption: nothing usable is left */
        {"\"alg\":\"RS512\",", ""},
        {"\"kid\":7,", ""},
    };
    for (size_t i = 0; i < COUNT_OF(spoiled); i++) {
        bytes_clear(&b);
        bytes_text(&b, "{\"keys\":[{");
        bytes_text(&b, spoiled[i][0]);
        add_jwk(&b, RSA2048_KEY);
        bytes_text(&b, "}]}");
        expect_refused(b.ptr);
    }
    bytes_clear(&b);
    bytes_text(&b, "{\"keys\":[{\"kid\":\"a\",");
    add_jwk(&b, RSA2048_KEY);
    bytes_text(&b, "},{\"kid\":\"a\",");
    add_jwk(&b, P256_KEY);
    bytes_text(&b, "}]}");
    expect_refused(b.ptr); /* which one is a? */
    bytes_deinit(&b);
}

/* ---- when it is read again ---- */

typedef struct {
    _Atomic int fetches;
    _Atomic int broken;  /* answers garbage */
    _Atomic int rotated; /* only the Ed25519 key is left */
} issuer;

static godwit_status fetch(void *context, const char *url, bytes *out, char message[512]) {
    issuer *i = context;
    (void)url;
    atomic_fetch_add(&i->fetches, 1);
    if (atomic_load(&i->broken)) {
        snprintf(message, 512, "no answer");
        return GODWIT_UNREACHABLE;
    }
    if (atomic_load(&i->rotated)) {
        bytes_text(out, "{\"keys\":[{\"kid\":\"d\",");
        add_jwk(out, ED25519_KEY);
        bytes_text(out, "}]}");
    } else {
        add_document(out);
    }
    return GODWIT_OK;
}

static size_t count_now(keyring *r) {
    key_set *set = keyring_take(r);
    size_t count = key_set_count(set);
    key_set_release(set);
    return count;
}

/* Polls, for at most ten seconds. */
static bool comes_to(keyring *r, size_t count) {
    for (int i = 0; i < 1000 && count_now(r) != count; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    return count_now(r) == count;
}

static void keys_are_rotated(void **state) {
    (void)state;
    issuer i = {0};
    keyring *r;
    char message[512];
    keyring_options options = {
        .jwks = "https://id.example/keys", .refresh_ms = 1000, .fetch = fetch, .context = &i};
    assert_int_equal(keyring_open(&options, &r, message), GODWIT_OK);
    assert_int_equal(count_now(r), 3);
    key_set *held = keyring_take(r);
    atomic_store(&i.rotated, 1);
    assert_true(comes_to(r, 1));
    assert_int_equal(check_signed(held, "{\"alg\":\"RS256\"}", RSA2048_KEY),
                     GODWIT_OK); /* still whole */
    key_set_release(held);
    atomic_store(&i.broken, 1);
    int before = atomic_load(&i.fetches);
    for (int n = 0; n < 500 && atomic_load(&i.fetches) < before + 2; n++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    assert_true(atomic_load(&i.fetches) >= before + 2);
    assert_int_equal(count_now(r), 1); /* the last good set */
    keyring_close(r);
}

static void unknown_keys_cause_few_fetches(void **state) {
    (void)state;
    issuer i = {0};
    keyring *r;
    char message[512];
    keyring_options options = {
        .jwks = "https://id.example/keys", .refresh_ms = 600000, .fetch = fetch, .context = &i};
    assert_int_equal(keyring_open(&options, &r, message), GODWIT_OK);
    for (int n = 0; n < 10000; n++) {
        assert_false(keyring_miss(r)); /* just read: a key that is missing now is no key */
    }
    assert_int_equal(atomic_load(&i.fetches), 1);
    keyring_close(r);

    options.refresh_ms = 2000; /* asked for at most every 200 ms */
    options.secret = SECRET;
    assert_int_equal(keyring_open(&options, &r, message), GODWIT_OK);
    assert_int_equal(count_now(r), 4);
    atomic_store(&i.rotated, 1);
    bool coming = false;
    for (int n = 0; n < 500 && !coming; n++) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        coming = keyring_miss(r);
    }
    assert_true(coming);
    assert_true(comes_to(r, 2));
    keyring_close(r);
}

static void sources_that_are_refused(void **state) {
    (void)state;
    keyring *r;
    char message[512];
    keyring_options options = {.jwks = "/nowhere/keys.json", .refresh_ms = 1000};
    assert_int_equal(keyring_open(&options, &r, message), GODWIT_NOT_FOUND);
    assert_non_null(strstr(message, "/nowhere/keys.json"));
    assert_true(keyring_url_is_safe("https://id.example/keys"));
    assert_true(keyring_url_is_safe("http://127.0.0.1:80/keys"));
    assert_false(keyring_url_is_safe("http://127.0.0.1.example/keys"));
    assert_false(keyring_url_is_safe("http://localhost@example/keys"));
    assert_false(keyring_url_is_safe("http://id.example/keys"));
    issuer i = {.broken = 1};
    options = (keyring_options){
        .jwks = "https://id.example/keys", .refresh_ms = 1000, .fetch = fetch, .context = &i};
    assert_int_equal(keyring_open(&options, &r, message), GODWIT_OK); /* not there yet */
    assert_int_equal(count_now(r), 0);
    atomic_store(&i.broken, 0);
    assert_true(comes_to(r, 3));
    keyring_close(r);
}

static int make_keys(void **state) {
    (void)state;
    RSA2048_KEY = EVP_RSA_gen(2048);
    P256_KEY = EVP_EC_gen("prime256v1");
    ED25519_KEY = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    return RSA2048_KEY && P256_KEY && ED25519_KEY ? 0 : -1;
}

static int free_keys(void **state) {
    (void)state;
    EVP_PKEY_free(RSA2048_KEY);
    EVP_PKEY_free(P256_KEY);
    EVP_PKEY_free(ED25519_KEY);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_algorithm_has_its_key),
        cmocka_unit_test(a_key_is_not_for_another_algorithm),
        cmocka_unit_test(a_public_key_is_no_secret),
        cmocka_unit_test(signatures_have_one_form),
        cmocka_unit_test(documents_that_are_refused),
        cmocka_unit_test(keys_are_rotated),
        cmocka_unit_test(unknown_keys_cause_few_fetches),
        cmocka_unit_test(sources_that_are_refused),
    };
    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
