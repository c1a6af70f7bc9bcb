/* Full jitter: every wait is drawn anew between nothing and a bound that doubles per failure. */
#include "core/backoff.h"

#include "core/limits.h"

#define RETRY_AFTER_MAX_MS 3600000 /* a server's mistake must not silence a device for a day */

int64_t backoff_delay_ms(retry_class cls, int attempt, int64_t retry_after_ms, uint64_t random) {
    ASSERT(attempt >= 0);
    int64_t bound = BACKOFF_BASE_MS;
    for (int i = 0; i < attempt && bound < BACKOFF_CAP_MS; i++) {
        bound *= 2;
    }
    if (bound > BACKOFF_CAP_MS) {
        bound = BACKOFF_CAP_MS;
    }
    int64_t delay = (int64_t)(random % ((uint64_t)bound + 1));
    if (cls == RETRY_DECISION) {
        delay = 0; /* an outcome is no failure */
    }
    if (retry_after_ms > RETRY_AFTER_MAX_MS) {
        retry_after_ms = RETRY_AFTER_MAX_MS;
    }
    return delay < retry_after_ms ? retry_after_ms : delay;
}

int64_t backoff_hinted_ms(int64_t now_ms, int64_t last_attempt_ms, uint64_t random) {
    int64_t from_ms = last_attempt_ms + BACKOFF_BASE_MS;
    if (from_ms < now_ms || last_attempt_ms > now_ms) { /* the latter: the clock was set back */
        from_ms = now_ms;
    }
    return from_ms + (int64_t)(random % (BACKOFF_BASE_MS + 1));
}

int64_t backoff_left_ms(int64_t until_ms, int64_t now_ms) {
    bool ahead = until_ms > now_ms;
    /* what bounds a wait; as unsigned, for any two clocks are this far apart at most */
    uint64_t left = ahead ? (uint64_t)until_ms - (uint64_t)now_ms : 0;
    return left <= RETRY_AFTER_MAX_MS ? (int64_t)left : 0;
}

retry_class backoff_class(int http_status) {
    if (http_status >= 200 && http_status < 300) {
        return RETRY_DECISION;
    }
    switch (http_status) {
    case 0:
        return RETRY_TRANSPORT;
    case 401:
    case 403:
        return RETRY_AUTH;
    case 408: /* a proxy gave up on the body */
        return RETRY_TRANSPORT;
    case 409:
    case 410:
        return RETRY_IDENTITY;
    case 429:
        return RETRY_BUSY;
    default:
        break;
    }
    if (http_status >= 500) {
        return RETRY_BUSY;
    }
    /* A redirect is a captive portal or a proxy talking, not the server. */
    return http_status >= 300 && http_status < 400 ? RETRY_TRANSPORT : RETRY_PROTOCOL;
}
