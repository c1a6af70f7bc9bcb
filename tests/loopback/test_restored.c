/* A server restored from a backup that nobody announces: what it lost comes back from the devices,
 * as far as they have it (invariants I2, I4, I14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback/world.h"

static void test_an_old_copy_of_the_server(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    for (int i = 0; i < 3; i++) {
        new_device(&w, i);
        insert(&w, i);
    }
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    run(w.devices[0], "UPDATE pins SET title = 'seen by nobody else' WHERE id = 'p0'");
    settle(&w, 0);
    insert(&w, 1);
    settle(&w, 1);
    assert_int_equal(number(w.devices[0], "SELECT count(*) FROM godwit_op WHERE state ="
                                          " 'retired'"),
                     3);
    loopback_put_back(&w.l, saved);
    insert(&w, 2);
    run(w.devices[2], "UPDATE pins SET note = 'after the restore' WHERE id = 'p0'");
    settle(&w, 2); /* the numbers of the lost commits are used again */
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    assert_int_equal(loopback_int(&w.l, "SELECT title = 'seen by nobody else' AND note = 'after the"
                                        " restore' FROM pins WHERE id = 'p0'"),
                     1);
    assert_int_equal(identities(&w), 3); /* nobody else used an identity: they go on */
    world_close(&w);
}

/* The backup is older than what a device keeps: what it still has comes back, without a hole in its
 * stream, and a group of which a part is left stays behind. */
static void test_a_backup_older_than_the_archive(void **state) {
    (void)state;
    world w;
    char saved[400], token[200];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    godwit_settings settings = {
        .url = "http://127.0.0.1:1", .token = loopback_token("ana", token), .keep_archive = "0s"};
    insert(&w, 0);
    settle(&w, 0);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    settle(&w, 0);
    run(g, "BEGIN; INSERT INTO pins(id) VALUES ('g1'), ('g2'); COMMIT");
    must(g, godwit_init(g, &settings), "init");
    settle(&w, 0);
    settle(&w, 0); /* forgets all but the newest */
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_op"), 1);
    insert(&w, 0); /* waits */
    loopback_put_back(&w.l, saved);
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins WHERE id IN ('p0', 'p2')"), 2);
    assert_int_equal(number(g, "SELECT count(*) FROM pins"), 2);
    world_close(&w);
}

/* A clock that was years behind when an operation was acknowledged, and is put right the next day,
 * does not make the archive old: a restored server gets all of it back. */
static void test_a_clock_put_right(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    run(g, "UPDATE godwit_meta SET v = '[[1000000000000,' || (SELECT max(lsn) FROM godwit_op) ||"
           " ']]' WHERE k = 'archive'");
    settle(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_op"), 4);
    loopback_put_back(&w.l, saved);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

#define FAMILY                                                                                     \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER, slug TEXT UNIQUE);"  \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id));"

static godwit *family_device(world *w, int i) {
    char token[200];
    godwit *g = open_device(w, i);
    godwit_settings settings = {
        .url = "http://127.0.0.1:1", .scope = "s", .token = loopback_token("ana", token)};
    run(g, FAMILY);
    must(g, godwit_init(g, &settings), "init");
    must(g, godwit_track(g, "pins", NULL), "track");
    must(g, godwit_track(g, "forms", NULL), "track");
    return g;
}

/* What comes back out of the archive still knows what it depends on: it goes with it when that is
 * refused now, and comes along when that is made again. */
static void test_dependencies_come_back(void **state) {
    (void)state;
    world w = {0};
    char saved[400];
    loopback_open(&w.l, FAMILY);
    godwit *a = family_device(&w, 0), *b = family_device(&w, 1);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    run(a, "INSERT INTO pins(id, slug) VALUES ('p', 's'); INSERT INTO forms VALUES ('f', 'p')");
    settle(&w, 0);
    settle(&w, 0);
    assert_int_equal(number(a, "SELECT count(*) FROM godwit_op WHERE state = 'retired'"), 2);
    loopback_put_back(&w.l, saved);
    run(b, "INSERT INTO pins(id, slug) VALUES ('q', 's')");
    settle(&w, 1);
    settle_all(&w);
    assert_int_equal(number(a, "SELECT count(*) FROM godwit_dead_letters WHERE entity_id = 'p' AND"
                               " code = 'unique-violation'"),
                     1);
    assert_int_equal(number(a, "SELECT count(*) FROM godwit_dead_letters WHERE entity_id = 'f' AND"
                               " code = 'dependency-failed'"),
                     1);
    run(b, "UPDATE pins SET slug = 'other'");
    settle_all(&w);
    must(a, godwit_repair_many(a, NULL, 0, NULL, NULL), "retry");
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins, forms"), 2);
    assert_int_equal(number(b, "SELECT count(*) FROM forms"), 1);
    world_close(&w);
}

/* Both devices edit the column while neither sees the other: commits 2 and 3, of which the second
 * opens a record. */
static void meet(world *w, int one, int two, const char *sql) {
    run(w->devices[one], sql);
    run(w->devices[two], sql);
    settle(w, one);
    settle(w, two);
}

/* A decision that waited while the server was restored: another conflict has the number now, about
 * the same row. It stays as it is, and the decision comes back to who made it. */
static void test_a_decision_about_a_lost_conflict(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    for (int i = 0; i < 4; i++) {
        new_device(&w, i);
    }
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    meet(&w, 0, 1, "UPDATE pins SET title = 'title ' || random()");
    settle(&w, 0);
    assert_int_equal(number(w.devices[0], "SELECT count(*) FROM godwit_conflicts"), 1);
    must(w.devices[0], godwit_resolve(w.devices[0], "c-3-0", "{\"title\":\"chosen\"}", NULL),
         "resolve");
    loopback_put_back(&w.l, saved);
    meet(&w, 2, 3, "UPDATE pins SET note = 'note ' || random()");
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM godwit_conflict WHERE commit_seq = 3"
                                        " AND state = 'auto'"),
                     1);
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM godwit_conflict WHERE commit_seq = 3"
                                        " AND state = 'auto'"),
                     1);
    assert_int_equal(number(w.devices[0], "SELECT count(*) FROM godwit_dead_letters"), 1);
    assert_int_equal(number(w.devices[0], "SELECT code = 'validation' AND payload LIKE '%chosen%'"
                                          " FROM godwit_dead_letters"),
                     1);
    world_close(&w);
}

/* A new column makes the device take a snapshot in place of its cursor, which would have told that
 * the history is another one: its streams are compared. */
static void test_a_migration_after_the_restore(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    settle(&w, 0);
    loopback_put_back(&w.l, saved);
    attach_store(&w, g, "rw");
    run(g, "ALTER TABLE store.pins ADD COLUMN later TEXT; DETACH store");
    loopback_restart(&w.l);
    insert(&w, 1);
    insert(&w, 1);
    settle(&w, 1);
    must(g, godwit_migrate(g, "begin"), "begin");
    run(g, "ALTER TABLE pins ADD COLUMN later TEXT");
    must(g, godwit_migrate(g, "end"), "end");
    run(g,
        "UPDATE godwit_meta SET v = 'none' WHERE k = 'place'"); /* its new identity has no past */
    settle(&w, 0);
    settle(&w, 0);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

static bool answers_of_sync(loopback *l, const char *path) {
    (void)l;
    return strcmp(path, "/v1/sync") == 0;
}

/* The snapshot is there, and before the next push could tell that the history is another one, the
 * database comes to another place, where its identity is given up. */
static void test_a_move_after_the_snapshot(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    settle(&w, 0);
    loopback_put_back(&w.l, saved);
    attach_store(&w, g, "rw");
    run(g, "ALTER TABLE store.pins ADD COLUMN later TEXT; DETACH store");
    loopback_restart(&w.l);
    insert(&w, 1);
    insert(&w, 1);
    settle(&w, 1);
    must(g, godwit_migrate(g, "begin"), "begin");
    run(g, "ALTER TABLE pins ADD COLUMN later TEXT");
    must(g, godwit_migrate(g, "end"), "end");
    w.l.lose_answer = answers_of_sync;
    assert_int_equal(godwit_sync(g, 0, NULL), GODWIT_UNREACHABLE);
    w.l.lose_answer = NULL;
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_cursor WHERE state = 'live'"), 1);
    run(g, "UPDATE godwit_meta SET v = 'none' WHERE k = 'place'");
    settle(&w, 0);
    settle(&w, 0);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

/* A device that was restored, or never heard of its success, after the server has forgotten what
 * became of each operation: they are not stuck, nor done again. */
static void test_a_forgotten_ledger(void **state) {
    (void)state;
    world w;
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    insert(&w, 0);
    w.l.lose_answer = answers_of_sync;
    assert_int_equal(godwit_sync(g, 0, NULL), GODWIT_UNREACHABLE);
    w.l.lose_answer = NULL;
    attach_store(&w, g, "rw");
    run(g, "DELETE FROM store.godwit_op; DELETE FROM store.godwit_change;"
           "UPDATE store.godwit_scope SET horizon = head, ledger_floor = head, pruned = head;"
           "DETACH store");
    loopback_restart(&w.l);
    run(g, "UPDATE pins SET note = 'goes on' WHERE id = 'p0'");
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    assert_int_equal(number(g, "SELECT count(*) FROM pins"), 2);
    /* what can't be told from something new is kept for a person, and what stands on it */
    assert_int_equal(
        number(g, "SELECT count(DISTINCT lsn) FROM godwit_outcome WHERE payload IS NOT NULL"), 3);
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_outcome WHERE code = 'unverifiable'"),
                     2);
    world_close(&w);
}

/* The server was restored while a device with a new identity waited for its snapshot: numbers of
 * commits prove nothing about what was acknowledged before. */
static void test_a_snapshot_of_another_history(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    settle(&w, 0);
    run(g, "UPDATE godwit_op SET state = 'acked' WHERE lsn = (SELECT max(lsn) FROM godwit_op);"
           "UPDATE godwit_identity SET current = 0;"
           "UPDATE godwit_cursor SET state = 'bootstrap', cursor = NULL, boot_token = NULL");
    loopback_put_back(&w.l, saved);
    new_device(&w, 1);
    insert(&w, 1);
    insert(&w, 1);
    settle(&w, 1);
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    assert_int_equal(number(g, "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

/* A device that only waits for its answer's feed: no operation, no cursor beyond the backup. */
static void test_a_silent_device_notices(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    run(w.devices[0], "DELETE FROM pins WHERE id = 'p0'");
    settle(&w, 0);
    loopback_put_back(&w.l, saved);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 0);
    world_close(&w);
}

/* A base in lost history proves nothing: what was written meanwhile is concurrent, not overwritten.
 */
static void test_a_lost_base_is_no_proof(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    run(w.devices[0], "UPDATE pins SET title = 'lost'");
    settle(&w, 0);
    settle(&w, 0);
    run(w.devices[0], "UPDATE pins SET title = 'over the lost one'"); /* based on the lost commit */
    loopback_put_back(&w.l, saved);
    run(w.devices[1], "UPDATE pins SET title = 'never seen by 0'");
    settle(&w, 1);
    settle_all(&w);
    check_all(&w);
    assert_true(loopback_int(&w.l, "SELECT count(*) FROM godwit_conflict WHERE theirs LIKE '%never"
                                   " seen by 0%' OR ours LIKE '%never seen by 0%'") > 0);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_old_copy_of_the_server),
        cmocka_unit_test(test_a_backup_older_than_the_archive),
        cmocka_unit_test(test_a_clock_put_right),
        cmocka_unit_test(test_a_decision_about_a_lost_conflict),
        cmocka_unit_test(test_dependencies_come_back),
        cmocka_unit_test(test_a_migration_after_the_restore),
        cmocka_unit_test(test_a_move_after_the_snapshot),
        cmocka_unit_test(test_a_forgotten_ledger),
        cmocka_unit_test(test_a_snapshot_of_another_history),
        cmocka_unit_test(test_a_silent_device_notices),
        cmocka_unit_test(test_a_lost_base_is_no_proof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
