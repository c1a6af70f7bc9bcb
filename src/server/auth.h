/* Bearer tokens: JSON Web Tokens (RFC 7519) signed with HS256, and nothing else.
 *
 * The algorithm is pinned by the key, not taken from the token: "none", other algorithms, `crit`,
 * duplicate members, padded or non-canonical base64url are refused. The signature is checked before
 * a claim is looked at, in constant time. The key is the text of the secret file without its line
 * end, so that other tools can sign with it.
 *
 * Leaves to others: what a scope may do (principal_may_write), reading the secret (secret.h). */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include "server/service.h"

typedef struct {
    slice key;          /* at least AUTH_KEY_BYTES_MIN bytes */
    slice issuer;       /* empty = `iss` is not looked at */
    slice audience;     /* empty = `aud` is not looked at */
    slice scopes_claim; /* empty = "scopes"; dots lead into nested objects: app_metadata.scopes */
} auth_settings;

#define AUTH_KEY_BYTES_MIN 32

/* Checks a token. OK: *out is filled, its slices live in `a` or in `token`'s decoded copy in `a`.
 * UNAUTHENTICATED: *reason is constant text that says why, without any part of the token. NOMEM. */
godwit_status auth_check(const auth_settings *settings, arena *a, slice token, int64_t now_s,
                         principal *out, const char **reason) MUST_USE;
/* Takes the token out of the value of an Authorization header; false when it is not "Bearer T". */
bool auth_bearer(slice header, slice *token);
/* Appends a signed token for `who` (expires_s 0 = no exp), issued now. The iss and aud of the
 * settings are put in. INVALID: a name that auth_check would refuse. NOMEM. */
godwit_status auth_mint(const auth_settings *settings, const principal *who, int64_t now_s,
                        bytes *out) MUST_USE;

#endif
