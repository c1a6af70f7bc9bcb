/* Where the keys come from, and when they are read again.
 *
 * A shared secret is there for good. A JSON Web Key Set is read from a file or fetched from a URL
 * when the server starts, at intervals, and when a token names a key that is not known, but for
 * that at most every tenth of an interval (30 s when that is longer), whatever tokens come. When it
 * can't be had or is damaged the last good set stays. One thread does it all, so that no request
 * ever waits for a fetch.
 *
 * Leaves to others: how a URL is fetched (the caller's function), what a set is (keys.h). */
#ifndef SERVER_KEYRING_H
#define SERVER_KEYRING_H

#include "server/keys.h"

typedef struct keyring keyring;

/* Appends the document at `url` to `out`, which bounds it. Blocks, for seconds at most. Otherwise
 * message says why. */
typedef godwit_status (*keyring_fetch)(void *context, const char *url, bytes *out,
                                       char message[512]);

typedef struct {
    slice secret;        /* HS256; empty = none */
    const char *jwks;    /* path, https URL, or http URL of this machine; NULL = none */
    int64_t refresh_ms;  /* between reads */
    keyring_fetch fetch; /* for URLs */
    void *context;
} keyring_options;

/* True when text is a URL that is not open to everyone on the way: https, or http to this machine.
 */
bool keyring_url_is_safe(const char *text);
bool keyring_is_url(const char *text);

/* Options are borrowed until keyring_close, the secret is copied. A file must be readable and good
 * now; a URL may be out of reach at first: then it is tried again, and until then no token can be
 * checked. INVALID, NOT_FOUND, IO, NOMEM with a message. */
godwit_status keyring_open(const keyring_options *options, keyring **out,
                           char message[512]) MUST_USE;
void keyring_close(keyring *r); /* NULL is fine; ends the thread, at once unless it fetches */

/* The keys as of now, to be released; NULL = none yet. Any thread. */
key_set *keyring_take(keyring *r);
/* A token's key was missing. true: the set is being read again, the same token is worth another try
 * in a second. Any thread, never blocks. */
bool keyring_miss(keyring *r);

#endif
