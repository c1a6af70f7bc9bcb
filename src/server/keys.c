/* Key sets and signatures, by OpenSSL's EVP. The private half of a key is never needed and never
 * read: a JWKS that carries one is refused, for then it has been published. */
#include "server/keys.h"

#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>

#include "core/base64.h"
#include "core/json.h"

#define RSA_BITS_MIN     2048
#define RSA_BITS_MAX     8192
#define P256_BYTES       32
#define ED25519_BYTES    32
#define KID_BYTES_MAX    255
#define SECRET_BYTES_MAX 4096
#define MAC_BYTES        32
#define EC_DER_BYTES_MAX 80

typedef enum { ALG_NONE, ALG_HS256, ALG_RS256, ALG_ES256, ALG_EDDSA, ALG_COUNT } algorithm;
static const char *const algorithm_names[ALG_COUNT] = {"", "HS256", "RS256", "ES256", "EdDSA"};

typedef struct {
    algorithm alg;
    char kid[KID_BYTES_MAX + 1];
    size_t kid_len;
    bool has_kid;
    EVP_PKEY *key; /* of the public algorithms; shared between sets */
    bytes secret;  /* of HS256 */
} set_key;

struct key_set {
    _Atomic int references;
    size_t count;
    set_key keys[KEYS_MAX];
};

static key_set *set_new(void) {
    key_set *set = mem_resize(NULL, NULL, sizeof *set);
    if (set) {
        memset(set, 0, sizeof *set);
        atomic_store(&set->references, 1);
    }
    return set;
}

key_set *key_set_keep(key_set *set) {
    if (set) {
        atomic_fetch_add(&set->references, 1);
    }
    return set;
}

void key_set_release(key_set *set) {
    if (!set || atomic_fetch_sub(&set->references, 1) > 1) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        EVP_PKEY_free(set->keys[i].key);
        if (set->keys[i].secret.ptr) {
            OPENSSL_cleanse(set->keys[i].secret.ptr, set->keys[i].secret.len);
            bytes_deinit(&set->keys[i].secret);
        }
    }
    mem_free(NULL, set);
}

size_t key_set_count(const key_set *set) {
    return set ? set->count : 0;
}

/* ---- making ---- */

static godwit_status add_secret(key_set *set, slice secret) {
    set_key *k = &set->keys[set->count++];
    k->alg = ALG_HS256;
    bytes_init(&k->secret, NULL, 0);
    bytes_slice(&k->secret, secret);
    return k->secret.failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status key_set_from_secret(slice secret, key_set **out) {
    *out = NULL;
    if (secret.len < KEY_SECRET_BYTES_MIN || secret.len > SECRET_BYTES_MAX) {
        return GODWIT_INVALID;
    }
    key_set *set = set_new();
    godwit_status status = set ? add_secret(set, secret) : GODWIT_NOMEM;
    if (status) {
        key_set_release(set);
        return status;
    }
    *out = set;
    return GODWIT_OK;
}

typedef struct {
    arena memory;
    key_set *set;
    const json *jwk;
    size_t place; /* of the key in the document, for messages */
    char *message;
} reading;

static godwit_status refuse(reading *r, const char *why) {
    snprintf(r->message, 512, "key %zu of the key set %s", r->place, why);
    return GODWIT_INVALID;
}

/* A member in base64url; an empty slice when it is absent or malformed. */
static slice member(reading *r, const char *name) {
    slice text, out = {NULL, 0};
    if (json_text(json_get(r->jwk, name), &text)) {
        uint8_t *data = arena_alloc(&r->memory, BASE64_DECODED_MAX(text.len));
        size_t len = 0;
        if (data && base64url_decode(text, data, &len)) {
            out = (slice){(const char *)data, len};
        }
    }
    return out;
}

static const unsigned char *raw(slice s) {
    return (const unsigned char *)s.ptr;
}

static EVP_PKEY *from_parameters(const char *type, OSSL_PARAM_BLD *build) {
    EVP_PKEY *key = NULL;
    OSSL_PARAM *parameters = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!parameters || !context || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(parameters);
    return key;
}

static EVP_PKEY *rsa_key(slice n, slice e) {
    BIGNUM *modulus = BN_bin2bn(raw(n), (int)n.len, NULL);
    BIGNUM *exponent = BN_bin2bn(raw(e), (int)e.len, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (modulus && exponent && build && BN_num_bits(modulus) >= RSA_BITS_MIN &&
        BN_is_odd(modulus) && BN_is_odd(exponent) && !BN_is_one(exponent) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent)) {
        key = from_parameters("RSA", build);
    }
    OSSL_PARAM_BLD_free(build);
    BN_free(modulus);
    BN_free(exponent);
    return key;
}

static EVP_PKEY *p256_key(slice x, slice y) {
    unsigned char point[1 + 2 * P256_BYTES] = {4}; /* uncompressed */
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    memcpy(point + 1, x.ptr, P256_BYTES);
    memcpy(point + 1 + P256_BYTES, y.ptr, P256_BYTES);
    if (build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point)) {
        key = from_parameters("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX *context = key ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    if (!context || EVP_PKEY_public_check(context) != 1) { /* the point is on the curve */
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    return key;
}

/* What a key is, from its type and curve. ALG_NONE: of a kind that is not taken. */
static algorithm algorithm_of(const json *jwk) {
    slice type = {NULL, 0}, curve = {NULL, 0};
    (void)json_text(json_get(jwk, "kty"), &type);
    (void)json_text(json_get(jwk, "crv"), &curve);
    if (slice_is(type, "RSA")) {
        return ALG_RS256;
    }
    if (slice_is(type, "EC") && slice_is(curve, "P-256")) {
        return ALG_ES256;
    }
    return slice_is(type, "OKP") && slice_is(curve, "Ed25519") ? ALG_EDDSA : ALG_NONE;
}

/* True when the document says that the key is for something else. */
static bool is_for_others(const json *jwk, algorithm alg) {
    slice text;
    const json *node = json_get(jwk, "use");
    if (node && (!json_text(node, &text) || !slice_is(text, "sig"))) {
        return true;
    }
    node = json_get(jwk, "alg");
    return node && (!json_text(node, &text) || !slice_is(text, algorithm_names[alg]));
}

static godwit_status read_key_material(reading *r, set_key *k) {
    if (k->alg == ALG_RS256) {
        slice n = member(r, "n"), e = member(r, "e");
        if (n.len < RSA_BITS_MIN / 8 || n.len > RSA_BITS_MAX / 8 || e.len == 0 || e.len > 8) {
            return refuse(r, "is an RSA key of less than 2048 or more than 8192 bits, or damaged");
        }
        k->key = rsa_key(n, e);
    } else if (k->alg == ALG_ES256) {
        slice x = member(r, "x"), y = member(r, "y");
        k->key = x.len == P256_BYTES && y.len == P256_BYTES ? p256_key(x, y) : NULL;
    } else {
        slice x = member(r, "x");
        k->key = x.len == ED25519_BYTES
                     ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw(x), x.len)
                     : NULL;
    }
    return k->key ? GODWIT_OK : refuse(r, "is damaged");
}

static bool has_kid(const key_set *set, slice kid) {
    for (size_t i = 0; i < set->count; i++) {
        const set_key *k = &set->keys[i];
        if (k->has_kid && slice_equal((slice){k->kid, k->kid_len}, kid)) {
            return true;
        }
    }
    return false;
}

static godwit_status read_jwk(reading *r) {
    slice type, kid;
    if (!json_is(r->jwk, JSON_OBJECT) || !json_text(json_get(r->jwk, "kty"), &type)) {
        return refuse(r, "has no kty");
    }
    if (slice_is(type, "oct") || json_get(r->jwk, "d")) {
        return refuse(r, "is a secret; a key set is public, so that key can't be trusted");
    }
    algorithm alg = algorithm_of(r->jwk);
    if (alg == ALG_NONE || is_for_others(r->jwk, alg)) {
        return GODWIT_OK;
    }
    if (r->set->count == KEYS_MAX) {
        snprintf(r->message, 512, "the key set has more than %d keys", KEYS_MAX);
        return GODWIT_LIMIT;
    }
    set_key *k = &r->set->keys[r->set->count];
    const json *node = json_get(r->jwk, "kid");
    if (node) {
        if (!json_text(node, &kid) || kid.len > KID_BYTES_MAX) {
            return refuse(r, "has a kid that is no short text");
        }
        if (has_kid(r->set, kid)) {
            return refuse(r, "has the kid of another one");
        }
        memcpy(k->kid, kid.ptr, kid.len);
        k->kid_len = kid.len;
        k->has_kid = true;
    }
    k->alg = alg;
    godwit_status status = read_key_material(r, k);
    r->set->count += status == GODWIT_OK;
    return status;
}

static godwit_status read_document(reading *r, slice text) {
    const json *root;
    if (text.len > KEY_SET_BYTES_MAX) {
        snprintf(r->message, 512, "the key set is larger than %zu bytes", KEY_SET_BYTES_MAX);
        return GODWIT_LIMIT;
    }
    godwit_status status = json_parse(&r->memory, text, &root, NULL);
    const json *keys = status ? NULL : json_get(root, "keys");
    if (!json_is(keys, JSON_ARRAY)) {
        snprintf(r->message, 512, "the key set is not a JSON object with a list \"keys\"");
        return GODWIT_INVALID;
    }
    r->jwk = json_first(keys);
    for (; r->place < keys->count && status == GODWIT_OK; r->jwk = json_after(r->jwk)) {
        r->place++;
        status = read_jwk(r);
    }
    if (status == GODWIT_OK && r->set->count == 0) {
        snprintf(r->message, 512, "the key set has no key for RS256, ES256 or EdDSA signatures");
        status = GODWIT_INVALID;
    }
    return status;
}

static godwit_status add_keys(key_set *set, const key_set *more) {
    for (size_t i = 0; more && i < more->count && set->count < KEYS_MAX; i++) {
        if (more->keys[i].alg == ALG_HS256) {
            godwit_status status = add_secret(set, bytes_view(&more->keys[i].secret));
            if (status) {
                return status;
            }
        }
    }
    return GODWIT_OK;
}

godwit_status key_set_from_jwks(slice text, const key_set *also, key_set **out, char message[512]) {
    reading r = {.set = set_new(), .message = message};
    *out = NULL;
    message[0] = 0;
    if (!r.set) {
        return GODWIT_NOMEM;
    }
    arena_init(&r.memory, NULL, 8 * KEY_SET_BYTES_MAX);
    godwit_status status = read_document(&r, text);
    if (status == GODWIT_OK) {
        status = add_keys(r.set, also);
    }
    if (r.memory.failed) {
        status = GODWIT_NOMEM;
    }
    arena_deinit(&r.memory);
    if (status) {
        key_set_release(r.set);
        return status;
    }
    *out = r.set;
    return GODWIT_OK;
}

/* ---- checking ---- */

bool key_sign(slice secret, slice text, unsigned char out[MAC_BYTES]) {
    unsigned int len = MAC_BYTES;
    return secret.len >= KEY_SECRET_BYTES_MIN && secret.len <= SECRET_BYTES_MAX &&
           HMAC(EVP_sha256(), secret.ptr, (int)secret.len, raw(text), text.len, out, &len) !=
               NULL &&
           len == MAC_BYTES;
}

static bool verify_mac(const set_key *k, slice text, slice signature) {
    unsigned char expected[MAC_BYTES];
    return signature.len == MAC_BYTES && key_sign(bytes_view(&k->secret), text, expected) &&
           CRYPTO_memcmp(signature.ptr, expected, MAC_BYTES) == 0;
}

/* The two numbers side by side, as tokens have them, in the form OpenSSL reads. 0: not possible. */
static int ecdsa_to_der(slice signature, unsigned char out[EC_DER_BYTES_MAX]) {
    if (signature.len != 2 * P256_BYTES) {
        return 0;
    }
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw(signature), P256_BYTES, NULL);
    BIGNUM *s = BN_bin2bn(raw(signature) + P256_BYTES, P256_BYTES, NULL);
    int len = 0;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* the signature's now */
        unsigned char *end = out;
        len = i2d_ECDSA_SIG(sig, &end);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len > 0 && len <= EC_DER_BYTES_MAX ? len : 0;
}

static bool verify_public(const set_key *k, slice text, slice signature) {
    unsigned char der[EC_DER_BYTES_MAX];
    if (k->alg == ALG_ES256) {
        int len = ecdsa_to_der(signature, der);
        if (len == 0) {
            return false;
        }
        signature = (slice){(const char *)der, (size_t)len};
    }
    const EVP_MD *digest = k->alg == ALG_EDDSA ? NULL : EVP_sha256();
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context && EVP_DigestVerifyInit(context, NULL, digest, NULL, k->key) == 1 &&
                EVP_DigestVerify(context, raw(signature), signature.len, raw(text), text.len) == 1;
    EVP_MD_CTX_free(context);
    return good;
}

static algorithm algorithm_named(slice name) {
    for (int i = ALG_NONE + 1; i < ALG_COUNT; i++) {
        if (slice_is(name, algorithm_names[i])) {
            return (algorithm)i;
        }
    }
    return ALG_NONE;
}

/* A shared secret has no id of its own: tokens for it may carry any or none, as issuers do. */
static const set_key *find(const key_set *set, algorithm alg, slice kid) {
    const set_key *found = NULL;
    size_t fitting = 0;
    for (size_t i = 0; set && i < set->count; i++) {
        const set_key *k = &set->keys[i];
        if (k->alg != alg) {
            continue;
        }
        if (k->has_kid && kid.ptr) {
            if (slice_equal((slice){k->kid, k->kid_len}, kid)) {
                return k;
            }
        } else if (!kid.ptr || alg == ALG_HS256) {
            found = k;
            fitting++;
        }
    }
    return fitting == 1 ? found : NULL;
}

key_verdict key_set_verify(const key_set *set, slice algorithm_name, slice kid, slice text,
                           slice signature) {
    algorithm alg = algorithm_named(algorithm_name);
    if (alg == ALG_NONE) {
        return KEY_REFUSED;
    }
    const set_key *k = find(set, alg, kid);
    if (!k) {
        return KEY_UNKNOWN;
    }
    bool good =
        alg == ALG_HS256 ? verify_mac(k, text, signature) : verify_public(k, text, signature);
    return good ? KEY_GOOD : KEY_WRONG;
}
