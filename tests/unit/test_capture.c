/* Capture by shape of table and kind of statement: what exactly lands in the log. */
#include "client_kit.h"

#define LOG "SELECT op, pk, mask, v0, v1, o0, o1 FROM godwit_log ORDER BY lsn"

static void tracked(app *a, const char *tables, const char *table) {
    app_init(a, false);
    sql_run(a->db, tables);
    APP_OK(a, godwit_track(a->g, table, "{\"ids\":\"app\"}"));
}

static void forget_log(app *a) {
    sql_run(a->db, "DELETE FROM godwit_log; DELETE FROM godwit_group");
}

static void insert_update_delete(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y)", "t");
    sql_run(a.db, "INSERT INTO t VALUES ('k', 1, 'one')");
    sql_run(a.db, "UPDATE t SET y = 'two'");
    sql_run(a.db, "UPDATE t SET y = 'two', x = 1"); /* changes nothing */
    sql_run(a.db, "DELETE FROM t");
    assert_string_equal(app_text(&a, LOG), "1|k|-|1|one|-|- 2|k|2|-|two|-|one 3|k|-|-|-|1|two");
    assert_true(sql_int(a.db,
                        "SELECT abs(wall - julianday('now')) < 0.01 AND nonce IS NOT NULL FROM"
                        " godwit_log"));
    app_deinit(&a);
}

static void a_key_change_is_delete_and_insert(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, x, y)", "t");
    sql_run(a.db, "INSERT INTO t VALUES ('k', 1, 2)");
    forget_log(&a);
    sql_run(a.db, "UPDATE t SET id = 'K', x = 5"); /* only a change of case */
    assert_string_equal(app_text(&a, LOG), "3|k|-|-|-|1|2 1|K|-|5|2|-|-");
    app_deinit(&a);
}

static void storage_classes_are_told_apart(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y TEXT COLLATE NOCASE)", "t");
    sql_run(a.db, "INSERT INTO t VALUES ('k', 1, 'a')");
    forget_log(&a);
    sql_run(a.db, "UPDATE t SET x = 1.0");
    sql_run(a.db, "UPDATE t SET x = '1'");
    sql_run(a.db, "UPDATE t SET x = x'31'");
    sql_run(a.db, "UPDATE t SET x = NULL");
    sql_run(a.db, "UPDATE t SET y = 'A'");
    assert_string_equal(app_text(&a, "SELECT typeof(v0), typeof(o0), mask FROM godwit_log"),
                        "real|integer|1 text|real|1 blob|text|1 null|blob|1 null|null|2");
    app_deinit(&a);
}

static void extreme_values_pass_untouched(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x INT, y REAL)", "t");
    sql_run(a.db,
            "INSERT INTO t VALUES ('a', 9007199254740993, 0.1), ('b', -9223372036854775807 - 1,"
            " 9e999), ('c', 1, 5e-324)");
    assert_int_equal(sql_int(a.db,
                             "SELECT count(*) FROM t JOIN godwit_log ON pk = id AND v0 IS x AND"
                             " v1 IS y AND typeof(v1) = 'real'"),
                     3);
    app_deinit(&a);
}

static void composite_keys(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (v, a INT, b TEXT, c BLOB, PRIMARY KEY (b, a, c)) WITHOUT ROWID",
            "t");
    sql_run(a.db, "INSERT INTO t VALUES ('v', 1, 'b', x'ab')");
    sql_run(a.db, "UPDATE t SET v = 'w'");
    sql_run(a.db, "UPDATE t SET a = 2");
    assert_string_equal(app_text(&a, "SELECT op, pk, k1, hex(k2), v0, o0 FROM godwit_log"),
                        "1|b|1|AB|v|- 2|b|1|AB|w|v 3|b|1|AB|-|w 1|b|2|AB|w|-");
    assert_string_equal(app_text(&a, "SELECT entity_id FROM sync_queue LIMIT 1"),
                        "[\"b\",\"1\",\"ab\"]");
    app_deinit(&a);
}

static void strict_generated_and_odd_names(void **state) {
    app a;
    (void)state;
    tracked(
        &a,
        "CREATE TABLE \"the \"\"table'\" (\"a b\" TEXT PRIMARY KEY, \"select\" ANY, \"x\"\"y\" INT,"
        " g INT AS (\"x\"\"y\" * 2), s INT AS (\"x\"\"y\" + 1) STORED) STRICT",
        "the \"table'");
    sql_run(a.db,
            "INSERT INTO \"the \"\"table'\"(\"a b\", \"select\", \"x\"\"y\") VALUES ('k', 1, 7)");
    sql_run(a.db, "UPDATE \"the \"\"table'\" SET \"x\"\"y\" = 8, \"select\" = 1.0");
    assert_string_equal(app_text(&a, LOG), "1|k|-|1|7|-|- 2|k|3|1.0|8|1|7");
    assert_int_equal(sql_int(a.db, "SELECT json_array_length(spec, '$.slots') FROM godwit_table"),
                     2);
    app_deinit(&a);
}

static void a_table_of_nothing_but_its_key(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (a TEXT, b TEXT, PRIMARY KEY (a, b))", "t");
    sql_run(a.db, "INSERT INTO t VALUES ('1', '2')");
    sql_run(a.db, "UPDATE t SET b = '3'");
    sql_run(a.db, "DELETE FROM t");
    assert_string_equal(app_text(&a, "SELECT op, pk, k1 FROM godwit_log"),
                        "1|1|2 3|1|2 1|1|3 3|1|3");
    app_deinit(&a);
}

/* 252 columns with the key: 251 of data, four words of mask. */
static void the_widest_table(void **state) {
    app a;
    bytes b;
    (void)state;
    app_init(&a, false);
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "CREATE TABLE t (id TEXT PRIMARY KEY");
    for (int i = 0; i < 251; i++) {
        bytes_printf(&b, ", c%d", i);
    }
    bytes_text(&b, ")");
    sql_run(a.db, b.ptr);
    bytes_deinit(&b);
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    app_copy(&a, client_table_by_number(a.g, 1));
    sql_run(a.db, "INSERT INTO t(id, c0, c62, c63, c250) VALUES ('k', 1, 2, 3, 4)");
    sql_run(a.db, "UPDATE t SET c0 = 9, c62 = 9, c63 = 9, c125 = 9, c126 = 9, c189 = 9, c250 = 9");
    assert_string_equal(app_text(&a, "SELECT mask, m1, m2, m3 FROM godwit_log WHERE op = 2"),
                        "4611686018427387905|4611686018427387905|1|2305843009213693953");
    (void)app_replay(&a, 0);
    app_compare(&a, "wide");
    sql_run(a.db, "ALTER TABLE t ADD COLUMN c251");
    assert_int_equal(godwit_track(a.g, "t", NULL), GODWIT_UNSUPPORTED);
    assert_non_null(strstr(godwit_message(a.g), "252"));
    app_deinit(&a);
}

static void upsert_replace_and_unique(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x UNIQUE, y)", "t");
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 0), ('b', 2, 0)");
    forget_log(&a);
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 5) ON CONFLICT(id) DO UPDATE SET y = excluded.y");
    sql_run(a.db, "REPLACE INTO t VALUES ('c', 2, 7)");            /* removes b through x */
    sql_run(a.db, "UPDATE OR REPLACE t SET x = 2 WHERE id = 'a'"); /* removes c */
    sql_run(a.db, "INSERT OR IGNORE INTO t VALUES ('d', 2, 0)");
    sql_run(a.db, "REPLACE INTO t VALUES ('a', 2, 8)"); /* same key: nothing else goes */
    assert_string_equal(app_text(&a, LOG), "2|a|2|-|5|-|0 5|b|-|-|-|2|0 1|c|-|2|7|-|- 5|c|-|-|-|2|7"
                                           " 2|a|1|2|-|1|- 1|a|-|2|8|-|-");
    app_deinit(&a);
}

static void replace_is_logged_once_under_recursive_triggers(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x UNIQUE, y)", "t");
    sql_run(a.db, "PRAGMA recursive_triggers = ON; INSERT INTO t VALUES ('a', 1, 0)");
    forget_log(&a);
    sql_run(a.db, "REPLACE INTO t VALUES ('b', 1, 9)");
    assert_string_equal(app_text(&a, LOG), "3|a|-|-|-|1|0 1|b|-|1|9|-|-");
    assert_int_equal(sql_int(a.db, "PRAGMA recursive_triggers"), 1);
    app_deinit(&a);
}

static void cascades_are_captured(void **state) {
    app a;
    (void)state;
    tracked(
        &a,
        "PRAGMA foreign_keys = ON; CREATE TABLE p (id TEXT PRIMARY KEY, x);"
        "CREATE TABLE t (id TEXT PRIMARY KEY, p TEXT REFERENCES p(id) ON DELETE CASCADE ON UPDATE"
        " CASCADE, y)",
        "t");
    sql_run(a.db, "INSERT INTO p VALUES ('p', 0); INSERT INTO t VALUES ('c', 'p', 1)");
    forget_log(&a);
    sql_run(a.db, "UPDATE p SET id = 'q'");
    sql_run(a.db, "DELETE FROM p");
    assert_string_equal(app_text(&a, LOG), "2|c|1|q|-|p|- 3|c|-|-|-|q|1");
    app_deinit(&a);
}

/* Whatever was there first, or is added later, a change is logged before what it leads to. */
static void triggers_of_the_application(void **state) {
    app a;
    (void)state;
    tracked(
        &a,
        "CREATE TABLE t (id TEXT PRIMARY KEY, x, y INT);"
        "CREATE TRIGGER first AFTER INSERT ON t BEGIN UPDATE t SET y = 1 WHERE id = NEW.id; END",
        "t");
    sql_run(a.db,
            "CREATE TRIGGER later AFTER UPDATE OF x ON t BEGIN UPDATE t SET x = 'late', y = y + 1"
            " WHERE id = NEW.id AND x <> 'late'; END");
    godwit_metrics ignored;
    APP_OK(&a, godwit_get_metrics(a.g, &ignored)); /* any call notices the new trigger */
    sql_run(a.db, "INSERT INTO t VALUES ('k', 'x', 0)");
    sql_run(a.db, "UPDATE t SET x = 'y'");
    assert_string_equal(app_text(&a, LOG),
                        "1|k|-|x|0|-|- 2|k|2|-|1|-|0 2|k|1|y|-|x|- 2|k|3|late|2|y|1");
    app_deinit(&a);
}

static void a_scope_column_is_fixed(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, team TEXT, x)");
    APP_OK(&a, godwit_track(a.g, "t", "{\"scopeColumn\":\"team\"}"));
    sql_run(a.db, "INSERT INTO t VALUES ('k', 'red', 1)");
    assert_int_equal(sql_try(a.db, "UPDATE t SET team = 'blue'") & 0xff, SQLITE_CONSTRAINT);
    assert_non_null(strstr(sqlite3_errmsg(a.db), "scope column"));
    sql_run(a.db, "UPDATE t SET team = 'red', x = 2"); /* the scope goes along with every update */
    assert_string_equal(app_text(&a, LOG), "1|k|-|red|1|-|- 2|k|2|red|2|-|1");
    app_deinit(&a);
}

static void nothing_is_captured_while_the_engine_applies(void **state) {
    app a;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x UNIQUE, y)", "t");
    sql_run(a.db, "UPDATE godwit_state SET capture = 0");
    assert_int_equal(sql_int(a.db, "SELECT applying FROM godwit_applying"), 1);
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 1); UPDATE t SET x = 2; UPDATE t SET id = 'b';"
                  "REPLACE INTO t VALUES ('c', 2, 2); DELETE FROM t");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_log"), 0);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_note"), 0);
    app_deinit(&a);
}

/* The bodies must not need anything but SQLite itself: a plain connection writes and is captured.
 */
static void a_writer_without_godwit(void **state) {
    app a;
    sqlite3 *plain = NULL;
    (void)state;
    app_init(&a, true);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y UNIQUE)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    assert_int_equal(sqlite3_open(a.path, &plain), SQLITE_OK);
    sql_run(plain, "PRAGMA trusted_schema = OFF");
    sql_run(plain, "BEGIN; INSERT INTO t VALUES ('k', 1, 2); UPDATE t SET x = 3; COMMIT");
    sql_run(plain, "REPLACE INTO t VALUES ('l', 1, 2)");
    sqlite3_close(plain);
    assert_string_equal(app_text(&a, LOG),
                        "1|k|-|1|2|-|- 2|k|1|3|-|1|- 5|k|-|-|-|3|2 1|l|-|1|2|-|-");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_group"), 0);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM sync_queue WHERE id IS NOT NULL"), 4);
    app_deinit(&a);
}

static void the_newest_row_is_never_forgotten(void **state) {
    app a;
    bool more = false;
    (void)state;
    tracked(&a, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y)", "t");
    APP_OK(&a, godwit_init(a.g, &(godwit_settings){.url = "http://localhost", .scope = "s"}));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 1), ('b', 1, 1)");
    APP_OK(&a, seal_run(a.g, 100, &more));
    assert_string_equal(app_text(&a, "SELECT lsn FROM godwit_log"), "2");
    sql_run(a.db, "DELETE FROM t WHERE id = 'a'");
    assert_string_equal(app_text(&a, "SELECT lsn FROM godwit_log"), "2 3");
    assert_string_equal(app_text(&a, "SELECT substr(id, -4), operation, state FROM sync_queue"),
                        "0001|create|pending 0002|create|pending 0003|delete|captured");
    app_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(insert_update_delete),
        cmocka_unit_test(a_key_change_is_delete_and_insert),
        cmocka_unit_test(storage_classes_are_told_apart),
        cmocka_unit_test(extreme_values_pass_untouched),
        cmocka_unit_test(composite_keys),
        cmocka_unit_test(strict_generated_and_odd_names),
        cmocka_unit_test(a_table_of_nothing_but_its_key),
        cmocka_unit_test(the_widest_table),
        cmocka_unit_test(upsert_replace_and_unique),
        cmocka_unit_test(replace_is_logged_once_under_recursive_triggers),
        cmocka_unit_test(cascades_are_captured),
        cmocka_unit_test(triggers_of_the_application),
        cmocka_unit_test(a_scope_column_is_fixed),
        cmocka_unit_test(nothing_is_captured_while_the_engine_applies),
        cmocka_unit_test(a_writer_without_godwit),
        cmocka_unit_test(the_newest_row_is_never_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
