/* The group marker: which captured changes were committed together, however the transaction went.
 */
#include "client_kit.h"

#define GROUPS "SELECT first || '-' || last FROM godwit_group ORDER BY first"

static void tracked(app *a, bool in_file) {
    app_init(a, in_file);
    sql_run(a->db, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    APP_OK(a, godwit_track(a->g, "t", NULL));
}

static void autocommit_and_transactions(void **state) {
    app a;
    (void)state;
    tracked(&a, false);
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1)");
    sql_run(a.db, "INSERT INTO t VALUES ('b', 1), ('c', 1)"); /* one statement is one transaction */
    sql_run(a.db, "BEGIN; INSERT INTO t VALUES ('d', 1); COMMIT");
    sql_run(a.db, "BEGIN; UPDATE t SET x = 2 WHERE id = 'a'; DELETE FROM t WHERE id = 'b'; COMMIT");
    sql_run(a.db, "BEGIN; SELECT * FROM t; COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "2-3 5-6");
    app_deinit(&a);
}

static void rolled_back_beginnings(void **state) {
    app a;
    (void)state;
    tracked(&a, false);
    /* the first write is undone, so the group begins with what follows */
    sql_run(a.db, "BEGIN; SAVEPOINT s; INSERT INTO t VALUES ('a', 1); ROLLBACK TO s; RELEASE s;"
                  " INSERT INTO t VALUES ('b', 1); INSERT INTO t VALUES ('c', 1); COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "1-2");
    sql_run(a.db,
            "BEGIN; INSERT INTO t VALUES ('d', 1); SAVEPOINT s; INSERT INTO t VALUES ('e', 1);"
            " ROLLBACK TO s; COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "1-2"); /* a single operation */
    sql_run(a.db, "BEGIN; INSERT INTO t VALUES ('e', 1), ('f', 1); ROLLBACK");
    sql_run(a.db, "SAVEPOINT o; INSERT INTO t VALUES ('g', 1); SAVEPOINT i; INSERT INTO t VALUES"
                  " ('h', 1); RELEASE i; RELEASE o");
    assert_string_equal(app_text(&a, GROUPS), "1-2 4-5");
    app_deinit(&a);
}

static void failures_in_the_middle(void **state) {
    app a;
    (void)state;
    tracked(&a, false);
    sql_run(a.db, "INSERT INTO t VALUES ('taken', 1)");
    assert_int_equal(sql_try(a.db, "INSERT INTO t VALUES ('a', 1), ('taken', 2)") & 0xff,
                     SQLITE_CONSTRAINT);
    sql_run(a.db, "BEGIN");
    assert_int_equal(
        sql_try(a.db, "INSERT OR FAIL INTO t VALUES ('a', 1), ('b', 1), ('taken', 2)") & 0xff,
        SQLITE_CONSTRAINT);
    sql_run(a.db, "COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "2-3");
    app_deinit(&a);
}

/* COMMIT refused with BUSY and tried again: what is written at COMMIT is written twice. */
static void commit_refused_and_repeated(void **state) {
    app a;
    sqlite3 *peer = NULL;
    (void)state;
    tracked(&a, true);
    sql_run(a.db, "PRAGMA journal_mode = DELETE");
    sql_run(a.db, "PRAGMA busy_timeout = 0");
    assert_int_equal(sqlite3_open(a.path, &peer), SQLITE_OK);
    sql_run(a.db, "BEGIN; INSERT INTO t VALUES ('a', 1); INSERT INTO t VALUES ('b', 1)");
    sql_run(peer, "BEGIN; SELECT * FROM t");
    assert_int_equal(sql_try(a.db, "COMMIT"), SQLITE_BUSY);
    sql_run(a.db, "INSERT INTO t VALUES ('c', 1)"); /* still open: it goes on */
    assert_int_equal(sql_try(a.db, "COMMIT"), SQLITE_BUSY);
    sql_run(peer, "COMMIT");
    sql_run(a.db, "COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "1-3");
    sqlite3_close(peer);
    app_deinit(&a);
}

static void temp_store_takes_the_marker_away(void **state) {
    app a;
    godwit_metrics ignored;
    (void)state;
    tracked(&a, false);
    sql_run(a.db, "PRAGMA temp_store = FILE");
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1), ('b', 1)");
    assert_string_equal(app_text(&a, GROUPS), "");
    APP_OK(&a, godwit_get_metrics(a.g, &ignored)); /* any call puts it back */
    sql_run(a.db, "INSERT INTO t VALUES ('c', 1), ('d', 1)");
    assert_string_equal(app_text(&a, GROUPS), "3-4");
    app_deinit(&a);
}

static int64_t temp_store_after(const char *before) {
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    assert_int_equal(sqlite3_open(":memory:", &handle), SQLITE_OK);
    sql_run(handle, before);
    assert_int_equal(godwit_attach(handle, NULL, &g), GODWIT_OK);
    int64_t chosen = sql_int(handle, "PRAGMA temp_store");
    sql_run(handle, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    assert_int_equal(godwit_track(g, "t", NULL), GODWIT_OK);
    sql_run(handle, "INSERT INTO t VALUES ('a', 1), ('b', 1)");
    assert_int_equal(sql_int(handle, "SELECT count(*) FROM godwit_group"), 1);
    if (strstr(before, "TEMP TABLE")) {
        assert_int_equal(sql_int(handle, "SELECT x FROM mine"), 7);
    }
    godwit_close(g);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    return chosen;
}

/* SQLite's own numbers: 0 nobody has chosen, 1 a file, 2 memory. */
static void journals_stay_in_memory_where_nobody_has_chosen(void **state) {
    (void)state;
    assert_int_equal(temp_store_after(""), 2);
    assert_int_equal(temp_store_after("PRAGMA temp_store = FILE"), 1);
    assert_int_equal(temp_store_after("CREATE TEMP TABLE mine(x); INSERT INTO mine VALUES (7)"), 0);
}

static void two_handles_on_one_connection(void **state) {
    app a;
    godwit *second = NULL;
    (void)state;
    tracked(&a, false);
    APP_OK(&a, godwit_attach(a.db, NULL, &second));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1), ('b', 1)");
    assert_string_equal(app_text(&a, GROUPS), "1-2");
    godwit_close(second);
    sql_run(a.db, "INSERT INTO t VALUES ('c', 1), ('d', 1)");
    assert_string_equal(app_text(&a, GROUPS), "1-2 3-4");
    app_deinit(&a);
}

static void queued_payloads_belong_to_the_group(void **state) {
    app a;
    char id[37];
    (void)state;
    tracked(&a, false);
    sql_run(a.db, "BEGIN; INSERT INTO t VALUES ('a', 1)");
    APP_OK(&a, godwit_enqueue(a.g, "create", "note", "n", "{\"a\":1}", NULL, id));
    sql_run(a.db, "COMMIT");
    assert_string_equal(app_text(&a, GROUPS), "1-2");
    sql_run(a.db, "BEGIN; INSERT INTO t VALUES ('b', 1)");
    APP_OK(&a, godwit_enqueue(a.g, "create", "other", "n", NULL, NULL, id));
    sql_run(a.db, "ROLLBACK"); /* with it, the entity is unknown again */
    APP_OK(&a, godwit_enqueue(a.g, "create", "other", "n", NULL, NULL, id));
    assert_string_equal(app_text(&a, GROUPS), "1-2");
    assert_string_equal(app_text(&a,
                                 "SELECT entity_type, entity_id, operation, payload FROM sync_queue"
                                 " WHERE lsn > 1"),
                        "note|n|create|{\"a\":1} other|n|create|{}");
    app_deinit(&a);
}

/* The lent connection closes without complaint while a handle was on it: nothing pins it. */
static void a_lent_connection_can_be_closed(void **state) {
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &handle), SQLITE_OK);
    assert_int_equal(godwit_attach(handle, NULL, &g), GODWIT_OK);
    sql_run(handle, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    assert_int_equal(godwit_track(g, "t", NULL), GODWIT_OK);
    sql_run(handle, "BEGIN; INSERT INTO t VALUES ('a', 1), ('b', 1); COMMIT");
    assert_int_equal(sql_int(handle, "SELECT count(*) FROM godwit_group"), 1);
    godwit_close(g);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(autocommit_and_transactions),
        cmocka_unit_test(rolled_back_beginnings),
        cmocka_unit_test(failures_in_the_middle),
        cmocka_unit_test(commit_refused_and_repeated),
        cmocka_unit_test(temp_store_takes_the_marker_away),
        cmocka_unit_test(journals_stay_in_memory_where_nobody_has_chosen),
        cmocka_unit_test(two_handles_on_one_connection),
        cmocka_unit_test(queued_payloads_belong_to_the_group),
        cmocka_unit_test(a_lent_connection_can_be_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
