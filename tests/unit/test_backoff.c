/* Waiting times: bounds, jitter over the whole range, the server's wish as a floor. */
#include "unit.h"

#include "core/backoff.h"
#include "core/limits.h"

#include "godwit/godwit.h"

static void delays_stay_within_their_bound(void **state) {
    (void)state;
    uint64_t seed = 42;
    for (int attempt = 0; attempt < 70; attempt++) {
        int64_t bound = BACKOFF_CAP_MS;
        if (attempt < 9 && (int64_t)BACKOFF_BASE_MS << attempt < bound) {
            bound = (int64_t)BACKOFF_BASE_MS << attempt;
        }
        int64_t low = INT64_MAX;
        int64_t high = 0;
        for (int i = 0; i < 500; i++) {
            int64_t d = backoff_delay_ms(RETRY_TRANSPORT, attempt, -1, unit_random(&seed));
            assert_true(d >= 0 && d <= bound);
            low = d < low ? d : low;
            high = d > high ? d : high;
        }
        assert_true(low < bound / 10); /* full jitter, not a band around the bound */
        assert_true(high > bound / 10 * 9);
    }
    assert_int_equal(backoff_delay_ms(RETRY_TRANSPORT, INT32_MAX, -1, BACKOFF_CAP_MS),
                     BACKOFF_CAP_MS);
    assert_int_equal(backoff_delay_ms(RETRY_DECISION, 9, -1, UINT64_MAX), 0);
}

static void retry_after_is_a_bounded_floor(void **state) {
    (void)state;
    assert_int_equal(backoff_delay_ms(RETRY_BUSY, 0, 30000, 7), 30000);
    assert_int_equal(backoff_delay_ms(RETRY_BUSY, 8, 100, 200000), 200000);
    assert_int_equal(backoff_delay_ms(RETRY_BUSY, 0, INT64_MAX, 7), 3600000);
    assert_int_equal(backoff_delay_ms(RETRY_BUSY, 0, 0, 7), 7);
}

static void every_http_status_has_a_class(void **state) {
    (void)state;
    static const struct {
        int http;
        retry_class cls;
    } table[] = {
        {0, RETRY_TRANSPORT},   {200, RETRY_DECISION}, {204, RETRY_DECISION},
        {302, RETRY_TRANSPORT}, {400, RETRY_PROTOCOL}, {401, RETRY_AUTH},
        {403, RETRY_AUTH},      {404, RETRY_PROTOCOL}, {408, RETRY_TRANSPORT},
        {409, RETRY_IDENTITY},  {410, RETRY_IDENTITY}, {413, RETRY_PROTOCOL},
        {422, RETRY_PROTOCOL},  {426, RETRY_PROTOCOL}, {429, RETRY_BUSY},
        {500, RETRY_BUSY},      {502, RETRY_BUSY},     {503, RETRY_BUSY},
        {504, RETRY_BUSY},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_int_equal(backoff_class(table[i].http), table[i].cls);
    }
}

static void statuses_have_names_texts_and_classes(void **state) {
    (void)state;
    assert_string_equal(godwit_status_name(GODWIT_OK), "OK");
    assert_string_equal(godwit_status_name(GODWIT_UNREACHABLE), "UNREACHABLE");
    assert_string_equal(godwit_status_text(GODWIT_NOMEM), "out of memory");
    assert_int_equal(godwit_status_class(GODWIT_OK), GODWIT_CLASS_OK);
    assert_int_equal(godwit_status_class(GODWIT_BUSY), GODWIT_CLASS_RETRY);
    assert_int_equal(godwit_status_class(GODWIT_IDENTITY), GODWIT_CLASS_REJECT);
    assert_int_equal(godwit_status_class(GODWIT_CORRUPT), GODWIT_CLASS_CORRUPT);
    godwit_status newer = (godwit_status)59;
    assert_string_equal(godwit_status_name(newer), "UNKNOWN");
    assert_int_equal(godwit_status_class(newer), GODWIT_CLASS_MISUSE);
}

static void a_hint_is_spread_over_a_second(void **state) {
    (void)state;
    int64_t first = INT64_MAX, last = 0;
    for (uint64_t random = 0; random < 5000; random += 7) {
        int64_t at = backoff_hinted_ms(100000, 50000, random * UINT64_C(0x9e3779b97f4a7c15));
        first = at < first ? at : first;
        last = at > last ? at : last;
    }
    assert_in_range(first, 100000, 100050);
    assert_in_range(last, 100950, 101000);
    /* not within a second of the last attempt, and a clock that was set back holds nothing up */
    assert_int_equal(backoff_hinted_ms(100000, 99900, 0), 100900);
    assert_int_equal(backoff_hinted_ms(100000, 900000, 0), 100000);
}

static void a_clock_that_was_set_back_makes_nobody_wait(void **state) {
    (void)state;
    assert_int_equal(backoff_left_ms(1500, 1000), 500);
    assert_int_equal(backoff_left_ms(1000, 1000), 0);
    assert_int_equal(backoff_left_ms(0, 1000), 0);
    assert_int_equal(backoff_left_ms(1000 + 3600000, 1000),
                     3600000); /* the most a server may ask */
    assert_int_equal(backoff_left_ms(1000 + 3600001, 1000), 0);
    assert_int_equal(backoff_left_ms(INT64_MAX, INT64_MIN), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delays_stay_within_their_bound),
        cmocka_unit_test(retry_after_is_a_bounded_floor),
        cmocka_unit_test(every_http_status_has_a_class),
        cmocka_unit_test(statuses_have_names_texts_and_classes),
        cmocka_unit_test(a_hint_is_spread_over_a_second),
        cmocka_unit_test(a_clock_that_was_set_back_makes_nobody_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
