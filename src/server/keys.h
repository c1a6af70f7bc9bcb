/* The keys that tokens are checked with: an immutable set, made from one shared secret or from a
 * JSON Web Key Set (RFC 7517).
 *
 * A key fixes its algorithm: a shared secret HS256, an RSA key RS256, a P-256 key ES256, an Ed25519
 * key EdDSA. What a token says of its algorithm only has to agree. Keys for other uses or
 * algorithms are left out; a set with nothing usable, a secret among public keys, weak or damaged
 * keys are refused.
 *
 * A set is shared by reference count between threads; nothing in it changes. */
#ifndef SERVER_KEYS_H
#define SERVER_KEYS_H

#include "core/bytes.h"

typedef struct key_set key_set;

#define KEYS_MAX             64
#define KEY_SET_BYTES_MAX    ((size_t)256 * 1024)
#define KEY_SECRET_BYTES_MIN 32

/* One HS256 key: the bytes of `secret`, at least KEY_SECRET_BYTES_MIN, at most 4096, copied.
 * INVALID, NOMEM. */
godwit_status key_set_from_secret(slice secret, key_set **out) MUST_USE;
/* The public keys of a JWKS document and, when `also` is not NULL, the keys of that set too.
 * message gets the reason, without key material. INVALID, LIMIT (too large, too many), NOMEM. */
godwit_status key_set_from_jwks(slice text, const key_set *also, key_set **out,
                                char message[512]) MUST_USE;
key_set *key_set_keep(key_set *set); /* one more reference, to be released; NULL is fine */
void key_set_release(key_set *set);
size_t key_set_count(const key_set *set);

typedef enum {
    KEY_GOOD,
    KEY_WRONG,   /* the signature is not this key's */
    KEY_UNKNOWN, /* no key fits the token's algorithm and key id: perhaps a newer set has it */
    KEY_REFUSED  /* no set could make this token good: an algorithm we never take */
} key_verdict;

/* Checks `signature` (raw bytes) over `text`. algorithm: the token's `alg`. kid: the token's key
 * id, ptr NULL when it has none: then the only key of that algorithm is taken. Any thread. */
key_verdict key_set_verify(const key_set *set, slice algorithm, slice kid, slice text,
                           slice signature);
/* HS256 of `text` with the secret; false for a secret of a wrong size. */
bool key_sign(slice secret, slice text, unsigned char out[32]) MUST_USE;

#endif
