/* The laws of vector clocks as properties over seeded random clocks, what is refused, and corrected
 * time.
 *
 * Truth is a set: the operations on a row that a clock claims to include. A verdict may be
 * CONCURRENT too often, but BEFORE, AFTER and EQUAL must be true of the sets, compacted or not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/limits.h"

#define DEVICES 24
#define RUNS    3000

static uint64_t random_state;
static uint64_t random_next(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static int64_t below(int64_t n) {
    return (int64_t)(random_next() % (uint64_t)n);
}

static const char *const NAMES[DEVICES] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                           "i", "j", "k", "l", "m", "n", "o", "p",
                                           "q", "r", "s", "t", "u", "v", "w", "x"};

static void check_ok(godwit_status status) {
    assert_int_equal(status, GODWIT_OK);
}

static vclock random_clock(arena *a, int devices, int64_t versions) {
    vclock c = {.floor = below(versions)};
    for (int i = 0; i < devices; i++) {
        if (below(2)) {
            check_ok(clock_set(a, &c, slice_of(NAMES[below(devices)]), below(versions)));
        }
    }
    return c;
}

static vclock copy_of(arena *a, const vclock *c) {
    vclock copy = {0};
    check_ok(clock_merge(a, &copy, c));
    return copy;
}

static bool same(arena *a, const vclock *x, const vclock *y) {
    return slice_equal(clock_text(a, x), clock_text(a, y));
}

static int64_t some_positions(void *context, slice device, int64_t version) {
    (void)context;
    int64_t p = (device.ptr[0] - 'a') * 7 + version * 3;
    return p % 5 == 0 ? 0 : p % 20 + 1; /* a function of the entry; some unknown */
}

static void merge_is_a_semilattice(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    random_state = 1;
    for (int run = 0; run < RUNS; run++) {
        vclock x = random_clock(&a, 6, 9), y = random_clock(&a, 6, 9), z = random_clock(&a, 6, 9);
        vclock xy = copy_of(&a, &x), yx = copy_of(&a, &y), xx = copy_of(&a, &x);
        check_ok(clock_merge(&a, &xy, &y));
        check_ok(clock_merge(&a, &yx, &x));
        assert_true(same(&a, &xy, &yx));
        check_ok(clock_merge(&a, &xx, &x));
        assert_true(same(&a, &xx, &x));
        vclock xy_z = copy_of(&a, &xy), yz = copy_of(&a, &y), x_yz = copy_of(&a, &x);
        check_ok(clock_merge(&a, &xy_z, &z));
        check_ok(clock_merge(&a, &yz, &z));
        check_ok(clock_merge(&a, &x_yz, &yz));
        assert_true(same(&a, &xy_z, &x_yz));
        clock_order order = clock_compare(&x, &xy, NULL, NULL);
        assert_true(order == CLOCK_EQUAL || order == CLOCK_BEFORE);
        arena_reset(&a);
    }
    arena_deinit(&a);
}

static clock_order mirrored(clock_order order) {
    return order == CLOCK_BEFORE ? CLOCK_AFTER : order == CLOCK_AFTER ? CLOCK_BEFORE : order;
}

static void compare_is_antisymmetric(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    random_state = 2;
    int seen[4] = {0};
    for (int run = 0; run < RUNS; run++) {
        vclock x = random_clock(&a, 3, 4), y = random_clock(&a, 3, 4);
        clock_position_fn position = below(2) ? some_positions : NULL;
        clock_order order = clock_compare(&x, &y, position, NULL);
        seen[order]++;
        assert_int_equal(clock_compare(&y, &x, position, NULL), mirrored(order));
        assert_int_equal(clock_compare(&x, &x, position, NULL), CLOCK_EQUAL);
        if (order == CLOCK_EQUAL && !position) {
            assert_true(same(&a, &x, &y));
        }
        arena_reset(&a);
    }
    for (size_t i = 0; i < COUNT_OF(seen); i++) {
        assert_true(seen[i] > RUNS / 100); /* every verdict is really met */
    }
    arena_deinit(&a);
}

/* ---- one row's history, and what clocks say about it ---- */

#define OPS_MAX 80
typedef struct {
    int count;
    int device[OPS_MAX + 1];  /* by position, from 1 */
    int64_t seq[OPS_MAX + 1]; /* of the device's stream: also counts operations elsewhere */
    bool known[OPS_MAX + 1];  /* is the position on record? */
} history;

static int64_t history_position(void *context, slice device, int64_t version) {
    const history *h = context;
    for (int p = 1; p <= h->count; p++) {
        if (h->seq[p] == version && slice_is(device, NAMES[h->device[p]])) {
            return h->known[p] ? p : 0;
        }
    }
    return 0;
}

static void random_history(history *h) {
    int64_t next[DEVICES] = {0};
    h->count = 20 + (int)below(OPS_MAX - 19);
    for (int p = 1; p <= h->count; p++) {
        int device = (int)below(DEVICES);
        next[device] += 1 + below(3);
        h->device[p] = device;
        h->seq[p] = next[device];
        h->known[p] = below(4) > 0;
    }
}

/* The row's clock after `upto` operations; compacted at the places a server would. */
static vclock row_clock(arena *a, const history *h, int upto, bool compacted) {
    vclock c = {0};
    for (int p = 1; p <= upto; p++) {
        check_ok(clock_set(a, &c, slice_of(NAMES[h->device[p]]), h->seq[p]));
        if (!compacted || c.count <= CLOCK_ENTRIES_MAX) {
            continue;
        }
        int64_t positions[DEVICES];
        for (size_t i = 0; i < c.count; i++) {
            int64_t at =
                history_position((void *)(uintptr_t)h, c.entries[i].device, c.entries[i].version);
            positions[i] = at ? at : p - 1; /* every other operation on the row is at or below */
        }
        clock_compact(&c, positions);
        assert_true(c.count <= CLOCK_ENTRIES_MAX);
    }
    return c;
}

/* What an operation by `device` has seen: the log up to base, and its own stream before seq. */
typedef struct {
    int base, device;
    int64_t seq;
} author;

static vclock author_clock(arena *a, const author *w) {
    vclock c = {.floor = w->base};
    check_ok(clock_set(a, &c, slice_of(NAMES[w->device]), w->seq - 1));
    return c;
}

static bool author_has(const history *h, const author *w, int p) {
    return p <= w->base || (h->device[p] == w->device && h->seq[p] < w->seq);
}

static void check_verdict(const history *h, int upto, const author *w, clock_order order) {
    bool row_in_author = true, author_in_row = true;
    for (int p = 1; p <= h->count; p++) {
        bool in_row = p <= upto, in_author = author_has(h, w, p);
        row_in_author = row_in_author && (!in_row || in_author);
        author_in_row = author_in_row && (!in_author || in_row);
    }
    if (order == CLOCK_BEFORE || order == CLOCK_EQUAL) {
        assert_true(row_in_author);
    }
    if (order == CLOCK_AFTER || order == CLOCK_EQUAL) {
        assert_true(author_in_row);
    }
}

static void compaction_never_claims_too_much(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    random_state = 3;
    int ordered = 0, dropped = 0;
    for (int run = 0; run < RUNS / 3; run++) {
        history h;
        random_history(&h);
        int upto = 1 + (int)below(h.count);
        vclock full = row_clock(&a, &h, upto, false), row = row_clock(&a, &h, upto, true);
        dropped += row.count < full.count;
        for (int k = 0; k < 8; k++) {
            int mine_at = 1 + (int)below(h.count); /* one of the row's operations was its last */
            author w = {.base = (int)below(h.count + 1), .device = h.device[mine_at]};
            w.seq = h.seq[mine_at] + 1;
            vclock mine = author_clock(&a, &w);
            clock_position_fn position = below(2) ? history_position : NULL;
            clock_order order = clock_compare(&row, &mine, position, &h);
            check_verdict(&h, upto, &w, order);
            check_verdict(&h, upto, &w, clock_compare(&full, &mine, position, &h));
            ordered += order != CLOCK_CONCURRENT;
        }
        arena_reset(&a);
    }
    assert_true(ordered > RUNS / 3);
    assert_true(dropped > RUNS / 20);
    arena_deinit(&a);
}

static void compaction_keeps_the_newest(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    vclock c = {.floor = 2};
    int64_t positions[CLOCK_ENTRIES_MAX + 3];
    for (int i = 0; i < CLOCK_ENTRIES_MAX + 3; i++) {
        check_ok(clock_set(&a, &c, slice_of(NAMES[i]), 100 + i));
        positions[i] = 50 - i; /* the last devices are the oldest */
    }
    positions[CLOCK_ENTRIES_MAX + 2] = 0; /* unknown: may be the newest */
    clock_compact(&c, positions);
    assert_int_equal(c.count, CLOCK_ENTRIES_MAX);
    assert_int_equal(clock_get(&c, SLICE("a")), 100);
    assert_int_equal(clock_get(&c, slice_of(NAMES[CLOCK_ENTRIES_MAX + 2])),
                     100 + CLOCK_ENTRIES_MAX + 2);
    assert_int_equal(clock_get(&c, slice_of(NAMES[CLOCK_ENTRIES_MAX + 1])), 0);
    assert_int_equal(c.floor, 50 - (CLOCK_ENTRIES_MAX - 1)); /* the highest dropped */
    for (size_t i = 0; i < c.count; i++) {
        positions[i] = 0;
    }
    check_ok(clock_set(&a, &c, SLICE("zz"), 1));
    positions[c.count - 1] = 0;
    clock_compact(&c, positions);
    assert_int_equal(c.count, CLOCK_ENTRIES_MAX + 1); /* nothing can be dropped */
    arena_deinit(&a);
}

/* ---- text ---- */

static void texts_round_trip(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    random_state = 4;
    for (int run = 0; run < RUNS / 3; run++) {
        vclock c = random_clock(&a, DEVICES, INT64_MAX), again;
        slice text = clock_text(&a, &c);
        bytes b;
        bytes_init(&b, NULL, 0);
        clock_write(&b, &c);
        assert_true(slice_equal(bytes_view(&b), text));
        check_ok(clock_parse(&a, text, &again));
        assert_true(same(&a, &c, &again));
        bytes_deinit(&b);
        arena_reset(&a);
    }
    vclock c;
    check_ok(clock_parse(&a, SLICE(""), &c));
    assert_string_equal(clock_text(&a, &c).len == 7 ? "{\"$\":0}" : "", "{\"$\":0}");
    check_ok(clock_parse(&a, SLICE("{}"), &c));
    assert_true(slice_is(clock_text(&a, &c), "{\"$\":0}"));
    check_ok(clock_from_json(&a, NULL, &c));
    assert_true(slice_is(clock_text(&a, &c), "{\"$\":0}"));
    check_ok(clock_parse(&a, SLICE(" {\"b\":2, \"$\":9223372036854775807,\"a\":1,\"c\":0}"), &c));
    assert_true(slice_is(clock_text(&a, &c), "{\"$\":9223372036854775807,\"a\":1,\"b\":2}"));
    arena_deinit(&a);
}

static void malformed_clocks_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "{",
        "[]",
        "null",
        "1",
        "\"x\"",
        "{\"a\":-1}",
        "{\"$\":-1}",
        "{\"a\":1.0}",
        "{\"a\":\"1\"}",
        "{\"a\":9223372036854775808}",
        "{\"a\":null}",
        "{\"\":1}",
        "{\"a b\":1}",
        "{\"$$\":1}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":{}}",
        "{\"\\u00e4\":1}",
        "{\"a\":1}x",
        "{\"a\":1e2}",
        "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}"};
    arena a;
    arena_init(&a, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        vclock c = {.floor = 7};
        assert_int_equal(clock_parse(&a, slice_of(bad[i]), &c), GODWIT_INVALID);
        assert_int_equal(c.floor, 0);
        assert_int_equal(c.count, 0);
    }
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "{\"$\":1");
    for (int i = 0; i < CLOCK_PARSE_ENTRIES_MAX; i++) {
        bytes_printf(&b, ",\"d%d\":1", CLOCK_PARSE_ENTRIES_MAX - i);
    }
    bytes_char(&b, '}');
    vclock c;
    check_ok(clock_parse(&a, bytes_view(&b), &c));
    assert_int_equal(c.count, CLOCK_PARSE_ENTRIES_MAX);
    b.len--;
    bytes_text(&b, ",\"one-more\":1}");
    assert_int_equal(clock_parse(&a, bytes_view(&b), &c), GODWIT_INVALID);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void names_of_orders(void **state) {
    (void)state;
    assert_string_equal(clock_order_name(CLOCK_EQUAL), "equal");
    assert_string_equal(clock_order_name(CLOCK_BEFORE), "before");
    assert_string_equal(clock_order_name(CLOCK_AFTER), "after");
    assert_string_equal(clock_order_name(CLOCK_CONCURRENT), "concurrent");
}

static void entries_only_rise(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    vclock c = {0};
    check_ok(clock_set(&a, &c, SLICE("m"), 5));
    check_ok(clock_set(&a, &c, SLICE("m"), 3));
    check_ok(clock_set(&a, &c, SLICE("a"), 1));
    check_ok(clock_set(&a, &c, SLICE("n"), 0));
    assert_int_equal(clock_get(&c, SLICE("m")), 5);
    assert_int_equal(c.count, 2);
    assert_true(slice_is(clock_text(&a, &c), "{\"$\":0,\"a\":1,\"m\":5}"));
    arena_deinit(&a);
}

/* What lies behind the last entry is none. */
static void a_clock_ends_with_its_last_entry(void **state) {
    (void)state;
    clock_entry entries[] = {{SLICE("a"), 1}, {SLICE("b"), 2}};
    vclock c = {.entries = entries, .count = 1, .cap = 2};
    assert_int_equal(clock_get(&c, SLICE("a")), 1);
    assert_int_equal(clock_get(&c, SLICE("b")), 0);
}

static void a_clock_that_was_read_grows(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    vclock c;
    check_ok(clock_parse(&a, SLICE("{\"a\":5}"), &c));
    check_ok(clock_set(&a, &c, SLICE("b"), 6));
    assert_true(slice_is(clock_text(&a, &c), "{\"$\":0,\"a\":5,\"b\":6}"));
    arena_deinit(&a);
}

static int64_t at_five(void *context, slice device, int64_t version) {
    (void)context;
    (void)device;
    (void)version;
    return 5;
}

/* A floor covers what is at or below it, and nothing above. */
static void a_floor_covers_its_own_position(void **state) {
    (void)state;
    clock_entry entry = {SLICE("a"), 1};
    vclock c = {.entries = &entry, .count = 1, .cap = 1};
    assert_int_equal(clock_compare(&c, &(vclock){.floor = 4}, at_five, NULL), CLOCK_CONCURRENT);
    assert_int_equal(clock_compare(&c, &(vclock){.floor = 5}, at_five, NULL), CLOCK_BEFORE);
    assert_int_equal(clock_compare(&c, &(vclock){.floor = 6}, at_five, NULL), CLOCK_BEFORE);
}

static void compaction_may_drop_the_first(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    vclock c = {0};
    int64_t positions[CLOCK_ENTRIES_MAX + 1];
    for (int i = 0; i < CLOCK_ENTRIES_MAX + 1; i++) {
        check_ok(clock_set(&a, &c, slice_of(NAMES[i]), 100 + i));
        positions[i] = 1 + i;
    }
    clock_compact(&c, positions);
    assert_int_equal(c.count, CLOCK_ENTRIES_MAX);
    assert_int_equal(c.floor, 1);
    assert_int_equal(clock_get(&c, slice_of(NAMES[0])), 0);
    assert_int_equal(clock_get(&c, slice_of(NAMES[1])), 101);
    assert_int_equal(positions[0], 2);
    arena_deinit(&a);
}

static void corrected_time(void **state) {
    (void)state;
    assert_int_equal(clock_corrected_ms(100, 20, 1000, 0), 120);
    assert_int_equal(clock_corrected_ms(100, 5000, 1000, 0), 1000); /* never after the server */
    assert_int_equal(clock_corrected_ms(100, 20, 1000, 500), 500);  /* never back in a stream */
    assert_int_equal(clock_corrected_ms(INT64_MAX, INT64_MAX, 1000, 0), 1000);
    assert_int_equal(clock_corrected_ms(INT64_MIN, INT64_MIN, 1000, -5), -5);
    assert_int_equal(clock_corrected_ms(INT64_MAX, 1, 1000, 0), 1000);
    assert_int_equal(clock_corrected_ms(INT64_MIN, -1, 1000, -5), -5);
    assert_int_equal(clock_skew_ms(1000, 400), 600);
    assert_int_equal(clock_skew_ms(1000, 0), 0);
    assert_int_equal(clock_skew_ms(1000, INT64_MIN), INT64_MAX);
    assert_int_equal(clock_skew_ms(-1000, INT64_MAX), INT64_MIN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_is_a_semilattice),
        cmocka_unit_test(compare_is_antisymmetric),
        cmocka_unit_test(compaction_never_claims_too_much),
        cmocka_unit_test(compaction_keeps_the_newest),
        cmocka_unit_test(texts_round_trip),
        cmocka_unit_test(malformed_clocks_are_refused),
        cmocka_unit_test(names_of_orders),
        cmocka_unit_test(entries_only_rise),
        cmocka_unit_test(a_clock_ends_with_its_last_entry),
        cmocka_unit_test(a_clock_that_was_read_grows),
        cmocka_unit_test(a_floor_covers_its_own_position),
        cmocka_unit_test(compaction_may_drop_the_first),
        cmocka_unit_test(corrected_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
