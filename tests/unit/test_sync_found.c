/* What the simulator has found, as small as it can be shown. */
#include "sync_kit.h"

/* A proxy answers from its memory: the page is of another position, and is not applied. */
static void test_an_old_answer_is_not_applied(void **state) {
    world w;
    char old[2048], cursor[600];
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *a = world_field_device(&w), *b = world_field_device(&w);
    device_exec(a, "INSERT INTO pins VALUES ('p1', 'one', NULL, 1, 's1')");
    (void)device_sync(a);
    (void)device_sync(b);
    (void)snprintf(cursor, sizeof cursor, "%s", device_text(b, "SELECT cursor FROM godwit_cursor"));
    (void)snprintf(
        old, sizeof old,
        "{\"results\":[],\"appliedSeq\":0,\"head\":1,\"changes\":{\"from\":0,\"commits\":"
        "[{\"seq\":1,\"salt\":\"0000000000000001\",\"at\":\"2026-01-02T03:04:05.000Z\","
        "\"changes\":[{\"entityType\":\"pins\",\"entityId\":\"p1\",\"kind\":\"upsert\","
        "\"columns\":{\"title\":\"one\"},\"full\":false}]}],\"cursor\":\"%s\","
        "\"head\":1,\"more\":false}}",
        cursor);
    device_exec(a, "UPDATE pins SET title = 'two'");
    (void)device_sync(a);
    (void)device_sync(b);
    w.faults = (faults){.status = 200, .body = old, .retry_after_ms = -1, .times = 1};
    assert_int_not_equal(godwit_sync(b->g, 0, NULL), GODWIT_OK);
    assert_string_equal(device_text(b, "SELECT title FROM pins"), "two");
    assert_int_equal(device_int(b, "SELECT commit_seq FROM godwit_cursor"), 2);
    assert_int_equal(device_int(b, "SELECT count(*) FROM godwit_op"), 0);
    (void)device_sync(b);
    world_deinit(&w);
}

/* The clock is set back after a handle of this very process took the lease and could not return it.
 */
static void test_a_lease_from_the_future_does_not_hold(void **state) {
    world w;
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *a = world_field_device(&w);
    char sql[160];
    long long now = (long long)w.server.now_ms;
    (void)snprintf(sql, sizeof sql, "INSERT INTO godwit_lease VALUES (1, %ld, 0, %lld)",
                   (long)getpid(), now + 30000);
    device_exec(a, sql);
    assert_int_equal(godwit_sync(a->g, 0, NULL), GODWIT_BUSY);
    (void)snprintf(sql, sizeof sql, "UPDATE godwit_lease SET until = %lld", now + 86400000);
    device_exec(a, sql);
    (void)device_sync(a);
    world_deinit(&w);
}

/* A row that is gone, its conflict closed without a choice, is made anew: a create, which the
 * server takes, not an update of nothing. */
static void test_a_row_made_anew_after_its_conflict_is_closed(void **state) {
    world w;
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *a = world_field_device(&w), *b = world_field_device(&w);
    device_exec(a, "INSERT INTO pins VALUES ('p1', 'one', NULL, 1, 's1')");
    (void)device_sync(a);
    (void)device_sync(b);
    device_exec(a, "UPDATE pins SET title = 'a'");
    device_exec(b, "UPDATE pins SET title = 'b'");
    (void)device_sync(a);
    (void)device_sync(b);
    (void)device_sync(a);
    device_exec(a, "DELETE FROM pins");
    (void)device_sync(a);
    char id[300];
    (void)snprintf(id, sizeof id, "%s", device_text(a, "SELECT conflict_id FROM godwit_conflicts"));
    device_check(a, godwit_resolve(a->g, id, "{}", NULL));
    device_exec(a, "INSERT INTO pins VALUES ('p1', 'again', NULL, 2, 's2')");
    godwit_sync_report report = device_sync(a);
    assert_int_equal(report.rejected, 0);
    assert_string_equal(device_text(a, "SELECT title FROM pins"), "again");
    (void)device_sync(b);
    assert_string_equal(device_text(b, "SELECT title FROM pins"), "again");
    world_deinit(&w);
}

static int keep_the_lease(void *context, int action, const char *table, const char *b,
                          const char *c, const char *d) {
    (void)context;
    (void)b;
    (void)c;
    (void)d;
    return action == SQLITE_DELETE && strcmp(table, "godwit_lease") == 0 ? SQLITE_DENY : SQLITE_OK;
}

/* A lease that could not be given back, as on a full disk, must not keep its own holder out. */
static void test_a_lease_that_was_not_returned_is_ones_own(void **state) {
    world w;
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    (void)device_sync(d);
    sqlite3_set_authorizer(d->db, keep_the_lease, NULL);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    (void)device_sync(d);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_lease"), 1);
    device_exec(d, "INSERT INTO pins(id) VALUES ('b')");
    (void)device_sync(d);
    sqlite3_set_authorizer(d->db, NULL, NULL);
    (void)device_sync(d);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_lease"), 0);
    world_deinit(&w);
}

/* The clock is set back by years while the next attempt is waited for: the wait is over. */
static void test_a_clock_set_back_ends_a_wait(void **state) {
    world w;
    const char *text = NULL;
    (void)state;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    w.faults = (faults){.status = 503, .body = "{}", .retry_after_ms = 60000, .times = 1};
    assert_int_not_equal(godwit_sync(d->g, 0, NULL), GODWIT_OK);
    device_check(d, godwit_next(d->g, &text));
    assert_non_null(strstr(text, "waitMs"));
    w.ahead_ms -= INT64_C(4) * 365 * 86400000;
    device_check(d, godwit_next(d->g, &text));
    assert_non_null(strstr(text, "\"path\""));
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_old_answer_is_not_applied),
        cmocka_unit_test(test_a_lease_from_the_future_does_not_hold),
        cmocka_unit_test(test_a_lease_that_was_not_returned_is_ones_own),
        cmocka_unit_test(test_a_clock_set_back_ends_a_wait),
        cmocka_unit_test(test_a_row_made_anew_after_its_conflict_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
