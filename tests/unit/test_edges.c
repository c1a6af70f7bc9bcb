/* The far ends of the core: values that are hardly values, numbers at their limits, names nobody
 * has, and memory that is missing where other tests have it. */
#include <math.h>

#include "unit.h"

#include "core/clock.h"
#include "core/commute.h"
#include "core/retain.h"
#include "core/round.h"
#include "core/schema.h"
#include "core/wire.h"
#include "godwit/godwit.h"

#define INT(n)   ((value){.type = VALUE_INT, .u.i = (n)})
#define REAL(n)  ((value){.type = VALUE_REAL, .u.d = (n)})
#define TEXT(s_) ((value){.type = VALUE_TEXT, .u.s = slice_of(s_)})
#define BLOB(s_) ((value){.type = VALUE_BLOB, .u.s = slice_of(s_)})
#define NOTHING  ((value){.type = VALUE_NULL})

/* ---- merge ---- */

/* Each value is below all after it, and equal to itself. */
static void values_have_one_order(void **state) {
    (void)state;
    const value ladder[] = {
        NOTHING,        REAL(NAN), REAL(-INFINITY), REAL(-9.3e18),
        INT(INT64_MIN), INT(-2),   REAL(-1.5),      INT(-1),
        REAL(-0.5),     INT(0),    REAL(0.5),       INT(1),
        REAL(1.5),      INT(2),    INT(INT64_MAX),  REAL(9223372036854775808.0),
        REAL(INFINITY), TEXT(""),  TEXT("a"),       TEXT("aa"),
        TEXT("b"),      BLOB("a"), BLOB("b"),       {.type = VALUE_SPECIAL},
    };
    for (size_t i = 0; i < COUNT_OF(ladder); i++) {
        for (size_t k = 0; k < COUNT_OF(ladder); k++) {
            int want = i < k ? -1 : i > k;
            int got = merge_value_order(&ladder[i], &ladder[k]);
            if ((got > 0) - (got < 0) != want) {
                fail_msg("%zu against %zu is %d", i, k, got);
            }
        }
    }
    const value one = INT(1), same = REAL(1.0), low = INT(INT64_MIN),
                real_low = REAL(-9223372036854775808.0);
    assert_int_equal(merge_value_order(&one, &same), 0);
    assert_int_equal(merge_value_order(&same, &one), 0);
    assert_int_equal(merge_value_order(&low, &real_low), 0);
}

static void an_extreme_is_beyond_not_equal(void **state) {
    (void)state;
    const value one = INT(1), real_one = REAL(1.0), two = INT(2), nothing = NOTHING;
    assert_false(merge_extreme(POLICY_MAX, &one, &real_one));
    assert_false(merge_extreme(POLICY_MIN, &one, &real_one));
    assert_true(merge_extreme(POLICY_MAX, &two, &one));
    assert_false(merge_extreme(POLICY_MAX, &one, &two));
    assert_true(merge_extreme(POLICY_MIN, &one, &two));
    assert_false(merge_extreme(POLICY_MIN, &two, &one));
    assert_false(merge_extreme(POLICY_MAX, &nothing, &one));
    assert_false(merge_extreme(POLICY_MIN, &nothing, &one));
    assert_true(merge_extreme(POLICY_MIN, &one, &nothing));
    assert_true(merge_extreme(POLICY_MAX, &one, &nothing));
}

static void the_order_of_writes_goes_by_time_device_number(void **state) {
    (void)state;
    const slice a = SLICE("a"), b = SLICE("b");
    assert_true(merge_write_order(2, a, 1, 1, b, 9) > 0);
    assert_true(merge_write_order(1, b, 9, 2, a, 1) < 0);
    assert_true(merge_write_order(1, b, 1, 1, a, 9) > 0);
    assert_true(merge_write_order(1, a, 9, 1, b, 1) < 0);
    assert_true(merge_write_order(1, a, 2, 1, a, 1) > 0);
    assert_true(merge_write_order(1, a, 1, 1, a, 2) < 0);
    assert_int_equal(merge_write_order(1, a, 1, 1, a, 1), 0);
}

static void verdicts_have_names(void **state) {
    (void)state;
    assert_string_equal(merge_verdict_name(MERGE_CAUSAL), "causal");
    assert_string_equal(merge_verdict_name(MERGE_ASK), "ask");
}

/* ---- retain, status ---- */

static void lengths_of_time_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } table[] = {{"1ms", 1},        {"2s", 2000},
                 {"3m", 180000},    {"4h", 14400000},
                 {"5d", 432000000}, {"forever", RETAIN_FOREVER},
                 {"0s", 0},         {"3650000d", 315360000000000}};
    int64_t ms = -1;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_true(retain_time_parse(table[i].text, &ms));
        assert_int_equal(ms, table[i].ms);
    }
    static const char *const bad[] = {"", "s", "1", "1 s", "-1s", "1w", "3650001d", "99999999999d"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_false(retain_time_parse(bad[i], &ms));
    }
}

static void what_is_no_status_has_a_text(void **state) {
    (void)state;
    assert_string_equal(godwit_status_text((godwit_status)999), "unknown status");
}

/* ---- commute ---- */

static void counters_stop_at_their_limits(void **state) {
    (void)state;
    const value top = INT(INT64_MAX), bottom = INT(INT64_MIN), one = INT(1), minus = INT(-1),
                nothing = NOTHING, half = REAL(0.5), text = TEXT("x");
    value out;
    assert_int_equal(commute_counter(&top, &nothing, &one, &out), COMMUTE_BAD);
    assert_int_equal(commute_counter(&bottom, &nothing, &minus, &out), COMMUTE_BAD);
    assert_int_equal(commute_counter(&one, &minus, &top, &out), COMMUTE_BAD);
    /* only the difference is beyond the range, not what comes out */
    assert_int_equal(commute_counter(&one, &one, &bottom, &out), COMMUTE_OK);
    assert_true(out.type == VALUE_INT && out.u.i == INT64_MIN);
    assert_int_equal(commute_counter(&one, &nothing, &half, &out), COMMUTE_OK);
    assert_true(out.type == VALUE_REAL && out.u.d > 1.4 && out.u.d < 1.6);
    assert_int_not_equal(commute_counter(&one, &nothing, &text, &out), COMMUTE_OK);
    assert_int_not_equal(commute_counter(&one, NULL, &one, &out), COMMUTE_OK);
}

static const value *special(arena *a, const char *text, value *out) {
    const json *node = NULL;
    assert_int_equal(json_parse(a, slice_of(text), &node, NULL), GODWIT_OK);
    *out = (value){.type = VALUE_SPECIAL, .u.node = node};
    return out;
}

static void a_first_value_is_what_the_difference_amounts_to(void **state) {
    (void)state;
    arena a;
    value now, out;
    arena_init(&a, NULL, 0);
    assert_int_equal(commute_first(&a, POLICY_COUNTER, special(&a, "{\"$inc\":3}", &now), &out),
                     COMMUTE_OK);
    assert_int_equal(out.u.i, 3);
    assert_int_equal(commute_first(&a, POLICY_COUNTER, special(&a, "{\"$inc\":0.5}", &now), &out),
                     COMMUTE_OK);
    assert_true(out.type == VALUE_REAL);
    static const char *const bad[] = {"{\"$inc\":\"3\"}", "{\"$inc\":1,\"x\":2}", "{\"inc\":1}",
                                      "[1]"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(commute_first(&a, POLICY_COUNTER, special(&a, bad[i], &now), &out),
                         COMMUTE_BAD);
    }
    arena_deinit(&a);
}

/* Every text of a scalar is one element, whatever its type; an arena that is full says so. */
static void sets_hold_every_scalar(void **state) {
    (void)state;
    const value before = TEXT("[1,\"a\",true]"), old = TEXT("[1]"),
                now = TEXT("[1,2.5,null,false,\"b\"]");
    size_t worked = 0;
    for (size_t room = 0; room < 60000; room += 16) {
        arena a;
        value out;
        slice tags = {0};
        arena_init(&a, NULL, room ? room : 1);
        const commute_set_write write = {.present = &before,
                                         .old = &old,
                                         .now = &now,
                                         .inherited = &(merge_meta){.ver = 1},
                                         .author = {.commit = 2, .seq = 1, .device = SLICE("d")}};
        commute_result result = commute_set(&a, &write, &out, &tags);
        assert_true(result == COMMUTE_OK || result == COMMUTE_NOMEM);
        worked += result == COMMUTE_OK;
        assert_true(!worked || result == COMMUTE_OK); /* more memory never does harm */
        arena_deinit(&a);
    }
    assert_true(worked > 0);
}

/* ---- clocks ---- */

static void clocks_say_when_memory_is_short(void **state) {
    (void)state;
    static const char text[] = "{\"$\":1,\"a\":2,\"b\":3,\"c\":4,\"d\":5,\"e\":6,\"f\":7,\"g\":8,"
                               "\"h\":9,\"i\":10}";
    bool worked = false;
    for (size_t room = 1; room < 8000; room += 8) {
        arena a;
        vclock c = {0}, sum = {0};
        arena_init(&a, NULL, room);
        godwit_status status = clock_parse(&a, slice_of(text), &c);
        if (status == GODWIT_OK) {
            status = clock_merge(&a, &sum, &c);
        }
        if (status == GODWIT_OK) {
            status = clock_text(&a, &sum).ptr ? GODWIT_OK : GODWIT_NOMEM;
        }
        assert_true(status == GODWIT_OK || (status == GODWIT_NOMEM && !worked));
        worked = status == GODWIT_OK;
        arena_deinit(&a);
    }
    assert_true(worked);
}

/* ---- wire ---- */

/* Earlier identities go and come, in a push and in a reconciliation's. */
static void earlier_identities_travel(void **state) {
    (void)state;
    const slice earlier[] = {SLICE("dev-1"), SLICE("dev-2")};
    push_head head = {.device_id = SLICE("dev-3"),
                      .scope = SLICE("s"),
                      .placed = true,
                      .first_seq = 1,
                      .wall_ms = 5,
                      .pull = true,
                      .earlier = earlier,
                      .earlier_count = 2};
    bytes b;
    arena a;
    push_request r;
    wire_error e;
    bytes_init(&b, NULL, 0);
    arena_init(&a, NULL, 0);
    wire_push_begin(&b, &head);
    wire_push_end(&b);
    if (wire_push_parse(&a, bytes_view(&b), true, slice_of("s"), &r, &e) != GODWIT_OK) {
        fail_msg("%s in %s", e.detail, b.ptr);
    }
    assert_int_equal(r.earlier_count, 2);
    assert_slice(r.earlier[0], "dev-1");
    assert_slice(r.earlier[1], "dev-2");
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* ---- arena ---- */

static void sizes_beyond_all_memory_are_refused(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    assert_null(arena_alloc(&a, SIZE_MAX - 20));
    arena_reset(&a);
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_reset(&a);
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    arena_reset(&a);
    assert_null(arena_copy(&a, (slice){"", SIZE_MAX}).ptr);
    arena_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_one_order),
        cmocka_unit_test(an_extreme_is_beyond_not_equal),
        cmocka_unit_test(the_order_of_writes_goes_by_time_device_number),
        cmocka_unit_test(verdicts_have_names),
        cmocka_unit_test(lengths_of_time_are_read),
        cmocka_unit_test(what_is_no_status_has_a_text),
        cmocka_unit_test(counters_stop_at_their_limits),
        cmocka_unit_test(a_first_value_is_what_the_difference_amounts_to),
        cmocka_unit_test(sets_hold_every_scalar),
        cmocka_unit_test(clocks_say_when_memory_is_short),
        cmocka_unit_test(earlier_identities_travel),
        cmocka_unit_test(sizes_beyond_all_memory_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
