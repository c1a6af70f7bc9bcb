/* How long to wait after a failure (semantics 5.6): full jitter, capped. */
#ifndef CORE_BACKOFF_H
#define CORE_BACKOFF_H

#include "core/base.h"

typedef enum {
    RETRY_TRANSPORT, /* no answer: no limit, never counts as an attempt */
    RETRY_BUSY,      /* 429, 503, deferred */
    RETRY_AUTH,      /* 401 */
    RETRY_PROTOCOL,  /* 400, 413, 426, an answer that can't be parsed */
    RETRY_IDENTITY,  /* 409, 410 */
    RETRY_DECISION   /* an operation's own outcome */
} retry_class;

/* random(0, min(cap, base * 2^attempt)); `random` is 64 random bits; a server's wait
 * (retry_after_ms >= 0) is a floor, itself bounded by one hour. attempt counts from 0. */
int64_t backoff_delay_ms(retry_class cls, int attempt, int64_t retry_after_ms, uint64_t random);
/* The network is said to be back: when to try, on the clock of now_ms. Not before a second after
 * the last attempt, and by chance within a second, for what brings one device back brings back
 * many. */
int64_t backoff_hinted_ms(int64_t now_ms, int64_t last_attempt_ms, uint64_t random);
/* How long to wait still for an attempt that is due at until_ms; 0 = now. A time further ahead than
 * anyone waits says only that the clock was set back since. */
int64_t backoff_left_ms(int64_t until_ms, int64_t now_ms);
#define BACKOFF_HINTED_FAILURES 1 /* what a hint leaves of the failures in a row */
/* Class of an HTTP status (0 = transport failure). 2xx is RETRY_DECISION. */
retry_class backoff_class(int http_status);

#endif
