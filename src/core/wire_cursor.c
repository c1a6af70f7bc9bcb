/* Small things on the wire: times, 64-bit words in hex, and the cursor.
 *
 * A cursor is base64url without padding of
 *
 *   1 byte version | 8 seq | 8 salt | 8 tables hash | 4 length, scope | 4 check
 *
 * big-endian; the check is the head of the SHA-256 of what is before it. It finds damage; it is no
 * protection: everything in a cursor is verified against the caller's rights and the log. */
#include "core/base64.h"
#include "core/limits.h"
#include "core/wire_internal.h"

#define CURSOR_VERSION 1
#define CHECK_BYTES    4
#define CURSOR_FIXED   (1 + 8 + 8 + 8 + 4 + CHECK_BYTES)

/* ---- Times ---- */

#define DAY_MS      INT64_C(86400000)
#define TIME_MIN_MS INT64_C(-62135596800000) /* 0001-01-01 */
#define TIME_MAX_MS INT64_C(253402300799999) /* 9999-12-31T23:59:59.999 */

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar (years from March on). */
static int64_t days_of(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day) {
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = (int)(y + era * 400 + (*month <= 2));
}

static void put_digits(char **out, int v, int width) {
    for (int i = width - 1; i >= 0; i--) {
        (*out)[i] = (char)('0' + v % 10);
        v /= 10;
    }
    *out += width;
}

void wire_time_write(int64_t ms, char out[32]) {
    ms = ms < TIME_MIN_MS ? TIME_MIN_MS : ms > TIME_MAX_MS ? TIME_MAX_MS : ms;
    int64_t days = (ms - TIME_MIN_MS) / DAY_MS + TIME_MIN_MS / DAY_MS;
    int rest = (int)(ms - days * DAY_MS);
    int year = 0;
    int month = 0;
    int day = 0;
    date_of(days, &year, &month, &day);
    char *p = out;
    put_digits(&p, year, 4);
    *p++ = '-';
    put_digits(&p, month, 2);
    *p++ = '-';
    put_digits(&p, day, 2);
    *p++ = 'T';
    put_digits(&p, rest / 3600000, 2);
    *p++ = ':';
    put_digits(&p, rest / 60000 % 60, 2);
    *p++ = ':';
    put_digits(&p, rest / 1000 % 60, 2);
    *p++ = '.';
    put_digits(&p, rest % 1000, 3);
    *p++ = 'Z';
    *p = '\0';
}

/* `width` digits, then `end` unless it is 0. */
static bool take_number(reader *r, int width, char end, int *out) {
    slice s = reader_take(r, (size_t)width + (end ? 1 : 0));
    int v = 0;
    for (int i = 0; i < width && !r->failed; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            r->failed = true;
        }
        v = v * 10 + (s.ptr[i] - '0');
    }
    if (!r->failed && end && s.ptr[width] != end) {
        r->failed = true;
    }
    *out = v;
    return !r->failed;
}

static bool take_fraction(reader *r, int *ms) {
    *ms = 0;
    if (r->rest.len == 0 || r->rest.ptr[0] != '.') {
        return true;
    }
    (void)reader_take(r, 1);
    int digits = 0;
    while (r->rest.len && r->rest.ptr[0] >= '0' && r->rest.ptr[0] <= '9') {
        if (digits < 3) { /* finer than a millisecond is cut off */
            *ms = *ms * 10 + (r->rest.ptr[0] - '0');
        }
        digits++;
        (void)reader_take(r, 1);
    }
    for (int i = digits; i < 3; i++) {
        *ms *= 10;
    }
    return digits > 0;
}

static bool take_zone(reader *r, int *minutes) {
    slice sign = reader_take(r, 1);
    *minutes = 0;
    if (r->failed) {
        return false;
    }
    if (sign.ptr[0] == 'Z' || sign.ptr[0] == 'z') {
        return true;
    }
    int h = 0;
    int m = 0;
    if ((sign.ptr[0] != '+' && sign.ptr[0] != '-') || !take_number(r, 2, ':', &h) ||
        !take_number(r, 2, 0, &m) || h > 23 || m > 59) {
        return false;
    }
    *minutes = (h * 60 + m) * (sign.ptr[0] == '-' ? -1 : 1);
    return true;
}

static bool date_valid(int year, int month, int day) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 1 || month < 1 || month > 12 || day < 1) {
        return false;
    }
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= lengths[month - 1] + (month == 2 && leap ? 1 : 0);
}

bool wire_time_parse(slice text, int64_t *out_ms) {
    reader r = {text, false};
    int year = 0, month = 0, day = 0, h = 0, m = 0, s = 0, ms = 0, zone = 0;
    if (!take_number(&r, 4, '-', &year) || !take_number(&r, 2, '-', &month) ||
        !take_number(&r, 2, 0, &day)) {
        return false;
    }
    slice t = reader_take(&r, 1);
    if (r.failed || (t.ptr[0] != 'T' && t.ptr[0] != 't' && t.ptr[0] != ' ')) {
        return false;
    }
    if (!take_number(&r, 2, ':', &h) || !take_number(&r, 2, ':', &m) ||
        !take_number(&r, 2, 0, &s) || !take_fraction(&r, &ms) || !take_zone(&r, &zone) ||
        r.rest.len != 0) {
        return false;
    }
    if (!date_valid(year, month, day) || h > 23 || m > 59 || s > 60) {
        return false; /* 60: a leap second, which becomes the next minute's first */
    }
    int64_t minutes = (int64_t)h * 60 + m - zone;
    *out_ms = days_of(year, month, day) * DAY_MS + minutes * 60000 + (int64_t)s * 1000 + ms;
    return true;
}

/* ---- 64-bit words ---- */

void wire_u64_write(int64_t v, char out[17]) {
    uint8_t raw[8];
    for (int i = 0; i < 8; i++) {
        raw[i] = (uint8_t)((uint64_t)v >> (56 - 8 * i));
    }
    id_hex_encode(raw, sizeof(raw), out);
}

bool wire_u64_parse(slice text, int64_t *out) {
    uint8_t raw[8];
    if (!id_hex_decode(text, raw, sizeof(raw))) {
        return false;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < sizeof(raw); i++) {
        v = v << 8 | raw[i];
    }
    *out = (int64_t)v;
    return true;
}

/* ---- Cursor ---- */

void wire_cursor_write(bytes *b, const wire_cursor *c) {
    ASSERT(c->scope.len <= NAME_BYTES_MAX);
    bytes record;
    bytes_init(&record, b->allocator, 0);
    bytes_char(&record, CURSOR_VERSION);
    bytes_u64be(&record, (uint64_t)c->seq);
    bytes_u64be(&record, (uint64_t)c->salt);
    bytes_u64be(&record, c->tables_hash);
    bytes_u32be(&record, (uint32_t)c->scope.len);
    bytes_slice(&record, c->scope);
    if (!record.failed) {
        uint8_t digest[SHA256_BYTES];
        sha256_of(record.ptr, record.len, digest);
        bytes_add(&record, digest, CHECK_BYTES);
    }
    if (record.failed) {
        b->failed = true;
    } else {
        base64url_encode(b, bytes_view(&record));
    }
    bytes_deinit(&record);
}

godwit_status wire_cursor_parse(arena *a, slice text, wire_cursor *out) {
    memset(out, 0, sizeof(*out));
    uint8_t raw[CURSOR_BYTES_MAX];
    size_t len = 0;
    if (text.len > CURSOR_BYTES_MAX || !base64url_decode(text, raw, &len) || len < CURSOR_FIXED ||
        raw[0] != CURSOR_VERSION) {
        return GODWIT_INVALID;
    }
    uint8_t digest[SHA256_BYTES];
    sha256_of(raw, len - CHECK_BYTES, digest);
    if (memcmp(digest, raw + len - CHECK_BYTES, CHECK_BYTES) != 0) {
        return GODWIT_INVALID;
    }
    reader r = {{(const char *)raw + 1, len - 1 - CHECK_BYTES}, false};
    wire_cursor c = {0};
    c.seq = (int64_t)reader_u64be(&r);
    c.salt = (int64_t)reader_u64be(&r);
    c.tables_hash = reader_u64be(&r);
    c.scope = reader_take(&r, reader_u32be(&r));
    if (r.failed || r.rest.len != 0 || c.seq < 0 || (c.scope.len != 0 && !id_name_valid(c.scope))) {
        return GODWIT_INVALID;
    }
    c.scope = arena_copy(a, c.scope);
    if (!c.scope.ptr) {
        return GODWIT_NOMEM;
    }
    *out = c;
    return GODWIT_OK;
}
