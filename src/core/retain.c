/* The marks below which a server forgets; see the drawing in the header. */
#include "core/retain.h"

#define DAY_MS     INT64_C(86400000)
#define NUMBER_MAX 3650000

const retain_policy retain_default = {.log_ms = 30 * DAY_MS,
                                      .log_max_ms = 90 * DAY_MS,
                                      .log_commits = 1000,
                                      .ledger_ms = 400 * DAY_MS,
                                      .conflicts_ms = RETAIN_FOREVER,
                                      .device_ms = 400 * DAY_MS};

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t retain_horizon(const retain_policy *policy, const retain_scope *scope, int64_t aged,
                       int64_t expired) {
    int64_t fetched = smaller(aged, scope->pulled_seq);
    int64_t may_go = smaller(larger(fetched, expired), scope->head - policy->log_commits);
    return larger(may_go, scope->horizon);
}

int64_t retain_ledger_floor(const retain_scope *scope, int64_t aged) {
    return larger(smaller(aged, scope->horizon - 1), scope->ledger_floor);
}

int64_t retain_before(int64_t now_ms, int64_t age_ms) {
    return age_ms == RETAIN_FOREVER || age_ms > now_ms ? INT64_MIN : now_ms - age_ms;
}

bool retain_time_parse(const char *text, int64_t *out) {
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", DAY_MS}};
    int64_t n = 0;
    const char *at = text;
    if (strcmp(text, "forever") == 0) {
        *out = RETAIN_FOREVER;
        return true;
    }
    for (; *at >= '0' && *at <= '9' && n <= NUMBER_MAX; at++) {
        n = n * 10 + (*at - '0');
    }
    for (size_t i = 0; i < COUNT_OF(units) && at > text && n <= NUMBER_MAX; i++) {
        if (strcmp(at, units[i].unit) == 0) {
            *out = n * units[i].ms;
            return true;
        }
    }
    return false;
}
