/* Bearer tokens: JSON Web Tokens (RFC 7519) with one of the signatures of keys.h.
 *
 * The algorithm is pinned by the key, not taken from the token: "none", other algorithms, `crit`,
 * duplicate members, padded or non-canonical base64url are refused. The signature is checked before
 * a claim is looked at. A shared secret is the text of the secret file without its line end, so
 * that other tools can sign with it.
 *
 * Leaves to others: what a scope may do (principal_may_write), where keys come from (keyring.h). */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include "core/limits.h"
#include "server/keys.h"
#include "server/service.h"

typedef struct {
    slice issuer;       /* empty = `iss` is not looked at */
    slice audience;     /* empty = `aud` is not looked at */
    slice scopes_claim; /* empty = "scopes"; dots lead into nested objects: app_metadata.scopes */
    slice device_claim; /* a token must name its device there; empty = it names none */
    slice role_claim;   /* empty = "role" */
    slice roles[ROLES_MAX]; /* a token must name one of them as its database role; none = no role */
    size_t role_count;
} auth_settings;

/* Checks a token. OK: *out is filled, its slices live in `a` or in `token`'s decoded copy in `a`.
 * UNAUTHENTICATED: *reason is constant text that says why, without any part of the token.
 * NOT_FOUND: the same, but only a key was missing: a newer key set may have it. NOMEM. */
godwit_status auth_check(const auth_settings *settings, const key_set *keys, arena *a, slice token,
                         int64_t now_s, principal *out, const char **reason) MUST_USE;
/* Takes the token out of the value of an Authorization header; false when it is not "Bearer T". */
bool auth_bearer(slice header, slice *token);
/* Appends a token for `who` signed with the shared secret `key` (expires_s 0 = no exp), issued now.
 * The iss and aud of the settings are put in. INVALID: a name or key that auth_check would refuse.
 * NOMEM. */
godwit_status auth_mint(const auth_settings *settings, slice key, const principal *who,
                        int64_t now_s, bytes *out) MUST_USE;

#endif
