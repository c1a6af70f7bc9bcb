/* Buckets of tokens. See limiter.h. */
#include "server/limiter.h"

#define MANY_WAIT_MS 1000 /* when something under way will end is not known */

/* Brings the place to now_ms; a clock that goes back adds nothing. */
static void fill(const allowance *allowed, limiter_place *p, int64_t now_ms) {
    int64_t full = allowed->burst * 1000, passed_ms = now_ms - p->at_ms;
    if (passed_ms <= 0) {
        return;
    }
    p->at_ms = now_ms;
    int64_t missing = full - p->milli;
    if (allowed->rate == 0 || passed_ms >= missing / allowed->rate + 1) {
        p->milli = full;
    } else {
        p->milli += passed_ms * allowed->rate; /* a thousandth per millisecond is one a second */
    }
}

limiter_place *limiter_find(limiter *l, const unsigned char key[LIMITER_KEY_BYTES],
                            int64_t now_ms) {
    uint64_t number;
    memcpy(&number, key, sizeof number);
    limiter_place *set = l->places + number % (l->count / LIMITER_WAYS) * LIMITER_WAYS;
    limiter_place *best = NULL;
    for (size_t i = 0; i < LIMITER_WAYS; i++) {
        limiter_place *p = &set[i];
        if (p->at_ms && memcmp(p->key, key, LIMITER_KEY_BYTES) == 0) {
            return p;
        }
        if (p->at_ms) {
            fill(&l->allowed, p, now_ms);
        }
        bool taken = p->at_ms != 0;
        if (!p->inside && (!best || (best->at_ms && (!taken || p->milli > best->milli)))) {
            best = p;
        }
    }
    if (best) {
        *best = (limiter_place){.at_ms = now_ms, .milli = l->allowed.burst * 1000};
        memcpy(best->key, key, LIMITER_KEY_BYTES);
    }
    return best;
}

limiter_answer limiter_enter(const allowance *allowed, limiter_place *p, int64_t cost, bool stay,
                             int64_t now_ms, int64_t *wait_ms) {
    *wait_ms = 0;
    fill(allowed, p, now_ms);
    if (stay && allowed->inside_max && p->inside >= allowed->inside_max) {
        *wait_ms = MANY_WAIT_MS;
        return LIMITER_TOO_MANY;
    }
    int64_t milli = (cost < allowed->burst ? cost : allowed->burst) * 1000;
    if (allowed->rate && p->milli < milli) {
        *wait_ms = (milli - p->milli + allowed->rate - 1) / allowed->rate;
        return LIMITER_TOO_FAST;
    }
    p->milli -= allowed->rate ? milli : 0;
    p->inside += stay;
    return LIMITER_IN;
}

void limiter_charge(const allowance *allowed, limiter_place *p, int64_t cost, int64_t now_ms) {
    fill(allowed, p, now_ms);
    int64_t least = -allowed->burst * 1000;
    p->milli -= allowed->rate ? cost * 1000 : 0;
    p->milli = p->milli < least ? least : p->milli;
}

void limiter_leave(limiter_place *p) {
    ASSERT(p->inside > 0);
    p->inside--;
}
