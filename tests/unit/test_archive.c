/* What a device keeps of operations that are done. */
#include "sync_kit.h"

#define DAY INT64_C(86400000)

/* More days than there are notes about them. */
static void a_long_archive_ends_too(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    device_exec(d, "INSERT OR REPLACE INTO godwit_meta(k, v) VALUES ('keep_archive', '100d')");
    for (int i = 0; i < 260; i++) {
        char sql[80];
        (void)snprintf(sql, sizeof sql, "INSERT INTO pins(id, n) VALUES ('p%d', 1)", i);
        device_exec(d, sql);
        (void)device_sync(d);
        w.server.now_ms += DAY + 1000;
        int64_t kept = device_int(d, "SELECT count(*) FROM godwit_op WHERE state = 'retired'");
        assert_true(kept >= (i < 99 ? i : 99)); /* not before its time */
        assert_true(kept < 120);
    }
    assert_true(device_int(d, "SELECT json_array_length(v) FROM godwit_meta WHERE k = 'archive'") <=
                64);
    world_deinit(&w);
}

/* They go with the operations that have them. */
static void dependencies_are_kept_as_long(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    device_exec(d, "INSERT INTO pins(id, n) VALUES ('p', 1); INSERT INTO forms(id, pin_id) VALUES"
                   " ('f', 'p')");
    (void)device_sync(d);
    (void)device_sync(d);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_op WHERE state = 'retired'"), 2);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_dep"), 1);
    for (int i = 0; i < 20; i++) {
        device_exec(d, "UPDATE pins SET n = n + 1");
        (void)device_sync(d);
        w.server.now_ms += DAY + 1000;
    }
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_op WHERE entity_id = 'f'"), 0);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_dep"), 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_archive_ends_too),
        cmocka_unit_test(dependencies_are_kept_as_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
