/* How long what is kept: the marks never move back, wait for devices, and not for ever. */
#include "unit.h"

#include "core/retain.h"

static const retain_policy policy = {.log_ms = 30,
                                     .log_max_ms = 90,
                                     .log_commits = 10,
                                     .ledger_ms = 400,
                                     .conflicts_ms = RETAIN_FOREVER,
                                     .device_ms = 400};

static void the_horizon_waits_for_devices_until_it_is_forced(void **state) {
    (void)state;
    retain_scope s = {.head = 100, .horizon = 5, .pulled_seq = 40};
    assert_int_equal(retain_horizon(&policy, &s, 60, 5), 40);  /* the slowest device */
    assert_int_equal(retain_horizon(&policy, &s, 30, 5), 30);  /* still young */
    assert_int_equal(retain_horizon(&policy, &s, 60, 55), 55); /* too old, whoever waits */
    s.pulled_seq = 100;
    assert_int_equal(retain_horizon(&policy, &s, 100, 5), 90); /* the newest stay */
    s.pulled_seq = 2;
    assert_int_equal(retain_horizon(&policy, &s, 60, 5), 5); /* never back */
    s = (retain_scope){.head = 3};
    assert_int_equal(retain_horizon(&policy, &s, 3, 3), 0);
}

static void the_ledger_outlives_the_log(void **state) {
    (void)state;
    retain_scope s = {.head = 100, .horizon = 50, .ledger_floor = 20};
    assert_int_equal(retain_ledger_floor(&s, 30), 30);
    assert_int_equal(retain_ledger_floor(&s, 80), 49); /* the salt at the horizon is kept */
    assert_int_equal(retain_ledger_floor(&s, 10), 20);
    s = (retain_scope){.head = 100};
    assert_int_equal(retain_ledger_floor(&s, 80), 0);
}

static void forever_is_before_everything(void **state) {
    (void)state;
    assert_int_equal(retain_before(1000, 30), 970);
    assert_int_equal(retain_before(1000, RETAIN_FOREVER), INT64_MIN);
    assert_int_equal(retain_before(1000, 2000), INT64_MIN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_horizon_waits_for_devices_until_it_is_forced),
        cmocka_unit_test(the_ledger_outlives_the_log),
        cmocka_unit_test(forever_is_before_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
