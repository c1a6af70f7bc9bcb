/* The counters behind godwit_metrics: right after everything that moves an operation, and as cheap
 * to read with many operations as with few. */
#include "sync_kit.h"

#include "client/count.h"

static void assert_right(device *d) {
    char what[160] = "";
    int64_t wrong = -1;
    device_check(d, count_check(d->g, &wrong, what, sizeof what));
    if (wrong) {
        fail_msg("%s: %s", d->path, what);
    }
}

static godwit_metrics metrics_of(device *d) {
    godwit_metrics m;
    device_check(d, godwit_get_metrics(d->g, &m));
    assert_right(d);
    return m;
}

static void every_move_is_counted(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    assert_int_equal(metrics_of(d).queue_length, 0);
    assert_int_equal(metrics_of(d).avg_sync_latency_ms, -1);
    device_exec(d,
                "INSERT INTO pins(id, slug) VALUES ('a', 'x'), ('b', 'y'); UPDATE pins SET n = 1");
    godwit_metrics m = metrics_of(d);
    assert_int_equal(m.queue_length, 4); /* changes; sealing makes two operations of them */
    assert_int_equal(m.pending_operations, 4);
    w.server.now_ms += 3000;
    (void)device_sync(d);
    m = metrics_of(d);
    assert_int_equal(m.queue_length, 0);
    assert_int_equal(m.oldest_pending_age_ms, 0);
    assert_true(m.last_successful_sync_ms > 0);
    assert_true(m.avg_sync_latency_ms >= 0);
    assert_int_equal(m.ack_round_trip_ms, 0); /* this clock stands still */
    device *other = world_field_device(&w);
    (void)device_sync(other);
    device_exec(other, "INSERT INTO pins(id, slug) VALUES ('c', 'z')");
    (void)device_sync(other);
    device_exec(d, "INSERT INTO pins(id, slug) VALUES ('d', 'z')"); /* taken over there */
    device_exec(d, "INSERT INTO forms VALUES ('f', 'd', 'body')");
    (void)device_sync(d);
    m = metrics_of(d);
    assert_int_equal(m.failed_operations, 2); /* and what depends on it */
    assert_int_equal(m.queue_length, 2);
    char id[64];
    (void)snprintf(
        id, sizeof id, "%s",
        device_text(d, "SELECT id FROM godwit_dead_letters WHERE entity_type = 'forms'"));
    device_check(d, godwit_discard(d->g, id, "not needed"));
    assert_int_equal(metrics_of(d).failed_operations, 1);
    (void)snprintf(id, sizeof id, "%s", device_text(d, "SELECT id FROM godwit_dead_letters"));
    device_check(d, godwit_edit(d->g, id, "{\"slug\":\"free\"}", NULL));
    assert_int_equal(metrics_of(d).failed_operations, 0);
    (void)device_sync(d);
    (void)metrics_of(d);
    world_deinit(&w);
}

static void failures_are_counted_by_class(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    w.faults = (faults){.lose_request = 1};
    assert_int_equal(godwit_sync(d->g, 0, NULL), GODWIT_UNREACHABLE);
    assert_int_equal(godwit_sync(d->g, 0, NULL), GODWIT_UNREACHABLE);
    w.faults = (faults){.status = 503, .body = "", .retry_after_ms = -1};
    assert_int_equal(godwit_sync(d->g, 0, NULL), GODWIT_OVERLOADED);
    godwit_metrics m = metrics_of(d);
    assert_int_equal(m.retries, 3);
    assert_int_equal(m.failures, 3);
    assert_int_equal(m.pending_operations, 1);
    assert_string_equal(device_text(d, "SELECT group_concat(class || ' ' || n, ', ') FROM"
                                       " (SELECT * FROM godwit_retry_counts ORDER BY class)"),
                        "busy 1, transport 2");
    w.faults = (faults){0};
    (void)device_sync(d);
    m = metrics_of(d);
    assert_int_equal(m.retries, 3);
    assert_int_equal(m.failures, 0);
    world_deinit(&w);
}

static void numbers_of_the_log_that_stay_unused(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_device(&w, WORLD_SCHEMA, "field");
    device_exec(d, "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 3500)"
                   " INSERT INTO pins(id) SELECT 'p' || n FROM i");
    device_track(d, "pins"); /* so many rows come from a range of reserved numbers */
    assert_int_equal(metrics_of(d).queue_length, 3500);
    device_exec(d, "INSERT INTO pins(id) VALUES ('new')");
    assert_int_equal(metrics_of(d).queue_length, 3501);
    (void)device_sync(d);
    assert_int_equal(metrics_of(d).queue_length, 0);
    /* updates of nothing but a column that goes away are forgotten, where nothing can be sealed yet
     */
    device *early = world_device(&w, WORLD_SCHEMA, NULL);
    device_track(early, "pins");
    device_exec(early, "INSERT INTO pins(id) VALUES ('p1'), ('p2'); UPDATE pins SET note = 'x';"
                       " UPDATE pins SET title = 't' WHERE id = 'p1'");
    assert_int_equal(metrics_of(early).pending_operations, 5);
    device_check(early, godwit_migrate(early->g, "begin"));
    device_exec(early, "ALTER TABLE pins DROP COLUMN note");
    device_check(early, godwit_migrate(early->g, "end"));
    assert_int_equal(metrics_of(early).pending_operations, 3);
    world_deinit(&w);
}

static int64_t steps_of_reading(device *d) {
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(d->db, "SELECT * FROM godwit_metrics", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int steps = sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_VM_STEP, 0);
    sqlite3_finalize(stmt);
    return steps;
}

/* Pending, captured, refused, retired: the work of reading must not grow with any of them. */
static void reading_costs_the_same(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    bool more = true;
    int64_t steps[2];
    for (int round = 0; round < 2; round++) {
        char sql[300];
        (void)snprintf(
            sql, sizeof sql,
            "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d)"
            " INSERT INTO pins(id) SELECT 'r%d' || n FROM i",
            round ? 3000 : 3, round);
        device_exec(d, sql);
        (void)device_sync(d);
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET n = 1 WHERE id LIKE 'r%d%%'", round);
        device_exec(d, sql);
        while (more) {
            device_check(d, seal_run(d->g, INT64_MAX, &more));
        }
        more = true;
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET n = 2 WHERE id LIKE 'r%d%%'", round);
        device_exec(d, sql);
        steps[round] = steps_of_reading(d);
        (void)metrics_of(d);
    }
    assert_true(steps[1] <= steps[0] + 50);
    world_deinit(&w);
}

static void the_doctor_sets_them_right(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_field_device(&w);
    int64_t findings = 0;
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    device_exec(d,
                "UPDATE godwit_counter SET n = n + 5; INSERT OR IGNORE INTO godwit_counter VALUES"
                " ('op:pending', 7)");
    device_check(d, godwit_doctor(d->g, 0, NULL, NULL, &findings));
    assert_int_equal(findings, 1);
    device_check(d, godwit_doctor(d->g, 1, NULL, NULL, &findings));
    assert_int_equal(metrics_of(d).pending_operations, 1);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_move_is_counted),
        cmocka_unit_test(failures_are_counted_by_class),
        cmocka_unit_test(numbers_of_the_log_that_stay_unused),
        cmocka_unit_test(reading_costs_the_same),
        cmocka_unit_test(the_doctor_sets_them_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
