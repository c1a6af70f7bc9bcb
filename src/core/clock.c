/* Vector clocks and corrected time.
 *
 * Everything errs to CONCURRENT: where the log position of an entry is unknown, the comparison must
 * not claim that a floor covers it. Entries stay sorted by device, so that merge and compare walk
 * both sides once and the text form is canonical. */
#include "core/clock.h"

#include "core/id.h"
#include "core/limits.h"

static const char *const ORDER_NAMES[] = {"equal", "before", "after", "concurrent"};

const char *clock_order_name(clock_order order) {
    ASSERT((size_t)order < COUNT_OF(ORDER_NAMES));
    return ORDER_NAMES[order];
}

/* Index of the first entry that is not below `device`. */
static size_t lower_bound(const vclock *c, slice device) {
    /* A clock is mostly built in order: try the end first. */
    if (c->count == 0 || slice_compare(c->entries[c->count - 1].device, device) < 0) {
        return c->count;
    }
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(c->entries[middle].device, device) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool reserve(arena *a, vclock *c, size_t cap) {
    if (cap <= c->cap) {
        return true;
    }
    clock_entry *entries = ARENA_ARRAY(a, clock_entry, cap);
    if (!entries) {
        return false;
    }
    if (c->count > 0) {
        memcpy(entries, c->entries, c->count * sizeof *entries);
    }
    c->entries = entries;
    c->cap = cap;
    return true;
}

int64_t clock_get(const vclock *c, slice device) {
    size_t at = lower_bound(c, device);
    bool found = at < c->count && slice_equal(c->entries[at].device, device);
    return found ? c->entries[at].version : 0;
}

godwit_status clock_set(arena *a, vclock *c, slice device, int64_t version) {
    ASSERT(version >= 0);
    if (version == 0) {
        return GODWIT_OK; /* the same as no entry */
    }
    size_t at = lower_bound(c, device);
    if (at < c->count && slice_equal(c->entries[at].device, device)) {
        if (c->entries[at].version < version) {
            c->entries[at].version = version;
        }
        return GODWIT_OK;
    }
    if (c->count == c->cap && !reserve(a, c, c->cap ? c->cap * 2 : 2)) {
        return GODWIT_NOMEM;
    }
    memmove(c->entries + at + 1, c->entries + at, (c->count - at) * sizeof *c->entries);
    c->entries[at] = (clock_entry){device, version};
    c->count++;
    return GODWIT_OK;
}

godwit_status clock_from_json(arena *a, const json *node, vclock *out) {
    *out = (vclock){0};
    if (!node) {
        return GODWIT_OK;
    }
    if (!json_is(node, JSON_OBJECT) || node->count > CLOCK_PARSE_ENTRIES_MAX + 1u) {
        return GODWIT_INVALID;
    }
    vclock c = {0};
    if (!reserve(a, &c, node->count)) {
        return GODWIT_NOMEM;
    }
    const json *key = json_first(node);
    for (uint32_t i = 0; i < node->count; i++) {
        const json *item = key + 1;
        int64_t version;
        if (!json_int(item, &version) || version < 0) {
            return GODWIT_INVALID;
        }
        if (slice_is(key->u.s, "$")) {
            c.floor = version;
        } else if (!id_device_valid(key->u.s)) {
            return GODWIT_INVALID;
        } else {
            godwit_status status = clock_set(a, &c, key->u.s, version);
            if (status != GODWIT_OK) {
                return status;
            }
        }
        key = json_after(item);
    }
    if (c.count > CLOCK_PARSE_ENTRIES_MAX) {
        return GODWIT_INVALID;
    }
    *out = c;
    return GODWIT_OK;
}

godwit_status clock_parse(arena *a, slice text, vclock *out) {
    *out = (vclock){0};
    if (text.len == 0) {
        return GODWIT_OK;
    }
    const json *root;
    godwit_status status = json_parse(a, text, &root, NULL);
    if (status == GODWIT_OK) {
        return clock_from_json(a, root, out);
    }
    /* A text over the parser's bounds is no clock either: the contract knows one refusal. */
    return status == GODWIT_NOMEM ? status : GODWIT_INVALID;
}

void clock_write(bytes *b, const vclock *c) {
    bytes_text(b, "{\"$\":");
    bytes_int(b, c->floor);
    for (size_t i = 0; i < c->count; i++) {
        bytes_text(b, ",\"");
        bytes_slice(b, c->entries[i].device); /* its alphabet needs no escapes */
        bytes_text(b, "\":");
        bytes_int(b, c->entries[i].version);
    }
    bytes_char(b, '}');
}

#define INT64_DIGITS 20 /* with sign */

static char *put_text(char *at, const char *text, size_t len) {
    memcpy(at, text, len);
    return at + len;
}

static char *put_int(char *at, int64_t v) {
    char digits[INT64_DIGITS];
    size_t n = 0;
    ASSERT(v >= 0);
    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

slice clock_text(arena *a, const vclock *c) {
    /* A buffer of its own would cost one allocation per changed row; the bound is known. */
    size_t bound = sizeof "{\"$\":}" + INT64_DIGITS;
    for (size_t i = 0; i < c->count; i++) {
        bound += c->entries[i].device.len + sizeof ",\"\":" + INT64_DIGITS;
    }
    char *text = arena_alloc(a, bound);
    if (!text) {
        return (slice){0};
    }
    char *at = put_int(put_text(text, "{\"$\":", 5), c->floor);
    for (size_t i = 0; i < c->count; i++) {
        at = put_text(at, ",\"", 2);
        at = put_text(at, c->entries[i].device.ptr, c->entries[i].device.len);
        at = put_int(put_text(at, "\":", 2), c->entries[i].version);
    }
    at = put_text(at, "}", 1);
    ASSERT((size_t)(at - text) < bound);
    return (slice){text, (size_t)(at - text)};
}

/* Is every entry of `a` known to be in `b`: explicitly, or under b's floor where its log position
 * is known? */
static bool covered(const vclock *a, const vclock *b, clock_position_fn position, void *context) {
    if (a->floor > b->floor) {
        return false;
    }
    size_t j = 0;
    for (size_t i = 0; i < a->count; i++) {
        const clock_entry *entry = &a->entries[i];
        while (j < b->count && slice_compare(b->entries[j].device, entry->device) < 0) {
            j++;
        }
        if (j < b->count && slice_equal(b->entries[j].device, entry->device) &&
            b->entries[j].version >= entry->version) {
            continue;
        }
        int64_t at = position ? position(context, entry->device, entry->version) : 0;
        if (at <= 0 || at > b->floor) {
            return false;
        }
    }
    return true;
}

clock_order clock_compare(const vclock *a, const vclock *b, clock_position_fn position,
                          void *context) {
    bool a_in_b = covered(a, b, position, context);
    bool b_in_a = covered(b, a, position, context);
    if (a_in_b) {
        return b_in_a ? CLOCK_EQUAL : CLOCK_BEFORE;
    }
    return b_in_a ? CLOCK_AFTER : CLOCK_CONCURRENT;
}

godwit_status clock_merge(arena *a, vclock *dst, const vclock *src) {
    if (src->floor > dst->floor) {
        dst->floor = src->floor;
    }
    for (size_t i = 0; i < src->count; i++) {
        godwit_status status = clock_set(a, dst, src->entries[i].device, src->entries[i].version);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    return GODWIT_OK;
}

void clock_compact(vclock *c, int64_t *positions) {
    while (c->count > CLOCK_ENTRIES_MAX) {
        size_t lowest = c->count;
        for (size_t i = 0; i < c->count; i++) {
            if (positions[i] > 0 && (lowest == c->count || positions[i] < positions[lowest])) {
                lowest = i;
            }
        }
        if (lowest == c->count) {
            return; /* nothing left whose place in the log is known */
        }
        if (positions[lowest] > c->floor) {
            c->floor = positions[lowest];
        }
        size_t rest = c->count - lowest - 1;
        memmove(c->entries + lowest, c->entries + lowest + 1, rest * sizeof *c->entries);
        memmove(positions + lowest, positions + lowest + 1, rest * sizeof *positions);
        c->count--;
    }
}

static int64_t add_saturating(int64_t a, int64_t b) {
    if (b > 0 && a > INT64_MAX - b) {
        return INT64_MAX;
    }
    if (b < 0 && a < INT64_MIN - b) {
        return INT64_MIN;
    }
    return a + b;
}

int64_t clock_skew_ms(int64_t server_now_ms, int64_t device_now_ms) {
    if (device_now_ms == 0) {
        return 0;
    }
    int64_t negated = device_now_ms == INT64_MIN ? INT64_MAX : -device_now_ms;
    return add_saturating(server_now_ms, negated);
}

int64_t clock_corrected_ms(int64_t wall_ms, int64_t skew_ms, int64_t server_now_ms,
                           int64_t previous_ms) {
    int64_t corrected = add_saturating(wall_ms, skew_ms);
    if (corrected > server_now_ms) {
        corrected = server_now_ms;
    }
    return corrected < previous_ms ? previous_ms : corrected;
}
