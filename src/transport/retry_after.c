/* Retry-After (RFC 9110, 10.2.3): seconds or an IMF-fixdate. */
#include "transport/transport.h"

#define DAY_MAX_S 86400

static bool digits(slice text, size_t at, size_t count, int *out) {
    int v = 0;
    for (size_t i = at; i < at + count; i++) {
        if (i >= text.len || text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (text.ptr[i] - '0');
    }
    *out = v;
    return true;
}

static int month_of(slice text, size_t at) {
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int m = 0; m < 12; m++) {
        if (at + 3 <= text.len && memcmp(names + 3 * m, text.ptr + at, 3) == 0) {
            return m + 1;
        }
    }
    return 0;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar. */
static int64_t days_of(int year, int month, int day) {
    int y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool date_ms(slice t, int64_t *out) {
    int day = 0, year = 0, hour = 0, minute = 0, second = 0;
    int month = t.len == 29 ? month_of(t, 8) : 0;
    if (month == 0 || !digits(t, 5, 2, &day) || !digits(t, 12, 4, &year) ||
        !digits(t, 17, 2, &hour) || !digits(t, 20, 2, &minute) || !digits(t, 23, 2, &second) ||
        year < 1970) {
        return false;
    }
    *out = (((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000;
    return true;
}

int64_t transport_retry_after_ms(slice text, int64_t now_ms) {
    while (text.len && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
        text = (slice){text.ptr + 1, text.len - 1};
    }
    while (text.len && (unsigned char)text.ptr[text.len - 1] <= ' ') {
        text.len--;
    }
    int64_t at_ms = 0;
    if (date_ms(text, &at_ms)) {
        int64_t wait_ms = at_ms - now_ms;
        return wait_ms < 0 ? 0 : wait_ms > DAY_MAX_S * 1000LL ? DAY_MAX_S * 1000LL : wait_ms;
    }
    int64_t seconds = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return -1;
        }
        seconds = seconds * 10 + (text.ptr[i] - '0');
        seconds = seconds > DAY_MAX_S ? DAY_MAX_S : seconds;
    }
    return text.len ? seconds * 1000 : -1;
}
