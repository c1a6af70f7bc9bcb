/* Clients and the real service over the loopback exchange: what one device does the others see. */
#include "sync_kit.h"

static void test_round_trip(void **state) {
    world w;
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *a = world_field_device(&w);
    device *b = world_field_device(&w);
    device_exec(a, "INSERT INTO pins VALUES ('p1', 'Well', NULL, 1, 's1')");
    godwit_sync_report report = device_sync(a);
    assert_int_equal(report.sent, 1);
    assert_int_equal(report.applied, 1);
    assert_int_equal(report.pending, 0);
    report = device_sync(b);
    assert_int_equal(report.received, 1);
    assert_string_equal(device_text(b, "SELECT title FROM pins"), "Well");
    assert_int_equal(device_int(b, "SELECT count(*) FROM godwit_op"), 0);
    assert_string_equal(device_text(a, "SELECT group_concat(state) FROM godwit_op"), "retired");
    device_exec(b, "UPDATE pins SET title = 'Well 2'");
    device_exec(a, "UPDATE pins SET note = 'deep'");
    (void)device_sync(a);
    (void)device_sync(b);
    (void)device_sync(a);
    assert_string_equal(device_text(a, "SELECT title || '/' || note FROM pins"), "Well 2/deep");
    assert_string_equal(device_text(b, "SELECT title || '/' || note FROM pins"), "Well 2/deep");
    assert_int_equal(device_int(a, "SELECT count(*) FROM godwit_base"), 0);
    assert_string_equal(device_text(a, "SELECT digest FROM godwit_row"),
                        device_text(b, "SELECT digest FROM godwit_row"));
    device_exec(a, "DELETE FROM pins");
    (void)device_sync(a);
    (void)device_sync(b);
    assert_int_equal(device_int(b, "SELECT count(*) FROM pins"), 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
