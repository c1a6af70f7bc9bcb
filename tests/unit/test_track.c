/* Tracking: what is refused, what existing rows become, and how tables may change afterwards. */
#include "client_kit.h"

#include "client/track.h"

#define LOG "SELECT op, pk, mask, v0, v1, o0, o1 FROM godwit_log ORDER BY lsn"

static void refused(app *a, const char *table, const char *options, godwit_status status,
                    const char *words) {
    int64_t before = sql_int(a->db, "SELECT count(*) FROM sqlite_schema");
    assert_int_equal(godwit_track(a->g, table, options), status);
    if (!strstr(godwit_message(a->g), words)) {
        fail_msg("\"%s\" does not say \"%s\"", godwit_message(a->g), words);
    }
    assert_int_equal(sql_int(a->db, "SELECT count(*) FROM sqlite_schema"), before);
    assert_int_equal(sql_int(a->db, "SELECT count(*) FROM godwit_table"), 0);
    assert_int_equal(sql_int(a->db, "SELECT count(*) FROM godwit_log"), 0);
}

static void what_can_not_be_tracked(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE bare (x); CREATE TABLE num (id INTEGER PRIMARY KEY, x);"
                  "CREATE TABLE t (id TEXT PRIMARY KEY, x); INSERT INTO t VALUES ('a', 1);"
                  "CREATE VIEW v AS SELECT * FROM t; CREATE VIRTUAL TABLE f USING fts5(x);"
                  "CREATE TABLE gone (\"bad\nname\" TEXT PRIMARY KEY)");
    refused(&a, "missing", NULL, GODWIT_NOT_FOUND, "missing");
    refused(&a, "bare", NULL, GODWIT_UNSUPPORTED, "primary key");
    refused(&a, "num", NULL, GODWIT_UNSUPPORTED, "godwit_uuid7()");
    refused(&a, "num", "{\"ids\":\"db\"}", GODWIT_INVALID, "ids");
    refused(&a, "v", NULL, GODWIT_UNSUPPORTED, "view");
    refused(&a, "f", NULL, GODWIT_UNSUPPORTED, "virtual");
    refused(&a, "godwit_meta", NULL, GODWIT_INVALID, "name");
    refused(&a, "gone", NULL, GODWIT_UNSUPPORTED, "column");
    refused(&a, "", NULL, GODWIT_INVALID, "table");
    refused(&a, "t", "{", GODWIT_INVALID, "JSON");
    refused(&a, "t", "[]", GODWIT_INVALID, "JSON");
    refused(&a, "t", "{\"scop\":\"s\"}", GODWIT_INVALID, "scop");
    refused(&a, "t", "{\"initial\":\"maybe\"}", GODWIT_INVALID, "initial");
    refused(&a, "t", "{\"scopeColumn\":\"team\"}", GODWIT_INVALID, "scopeColumn");
    refused(&a, "t", "{\"columns\":[\"x\",\"y\"]}", GODWIT_INVALID, "columns");
    refused(&a, "t", "{\"columns\":[]}", GODWIT_INVALID, "columns");
    APP_OK(&a, godwit_track(a.g, "num", "{\"ids\":\"app\"}"));
    APP_OK(&a, godwit_track(a.g, "T", NULL)); /* names compare as SQLite compares them */
    assert_string_equal(app_text(&a, "SELECT name FROM godwit_table"), "num t");
    assert_int_equal(godwit_track(a.g, "num", "{\"ids\":\"app\",\"entity\":\"t\"}"), GODWIT_EXISTS);
    app_deinit(&a);
}

static void tracking_again_changes_nothing(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db,
            "CREATE TABLE t (id TEXT PRIMARY KEY, x, y, z); INSERT INTO t VALUES ('a', 1, 2, 3)");
    APP_OK(&a, godwit_track(a.g, "t", "{\"columns\":[\"x\",\"z\"],\"entity\":\"thing\"}"));
    char *before = strdup(app_text(&a, "SELECT sql FROM sqlite_schema ORDER BY rowid"));
    APP_OK(&a, godwit_track(a.g, "t", NULL)); /* keeps its options */
    assert_string_equal(app_text(&a, "SELECT sql FROM sqlite_schema ORDER BY rowid"), before);
    free(before);
    sql_run(a.db, "UPDATE t SET y = 5; UPDATE t SET z = 5");
    assert_string_equal(app_text(&a, LOG), "1|a|-|1|3|-|- 2|a|2|-|5|-|3");
    assert_string_equal(app_text(&a, "SELECT DISTINCT entity_type FROM sync_queue"), "thing");
    app_deinit(&a);
}

/* ---- Rows that were there ---- */

#define MANY                                                                                       \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500)"               \
    " INSERT INTO t SELECT printf('%05d', i), i, NULL FROM n"

static void check_initial(app *a) {
    assert_int_equal(sql_int(a->db, "SELECT count(*) FROM godwit_initial"), 0);
    assert_int_equal(sql_int(a->db, "SELECT count(DISTINCT pk) FROM godwit_log WHERE op = 1"),
                     3500);
    assert_int_equal(sql_int(a->db,
                             "SELECT count(*) FROM godwit_log AS l JOIN t ON t.id = l.pk WHERE"
                             " l.op = 1 AND l.v0 IS t.x"),
                     3500);
    assert_int_equal(sql_int(a->db, "SELECT count(*) FROM godwit_group"), 0);
}

static void existing_rows_are_queued_before_what_follows(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y);" MANY);
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    check_initial(&a);
    sql_run(a.db, "UPDATE t SET y = 7 WHERE id IN ('00001', '03500')");
    assert_string_equal(app_text(&a, "SELECT op, pk FROM godwit_log ORDER BY lsn DESC LIMIT 2"),
                        "2|03500 2|00001");
    assert_int_equal(sql_int(a.db,
                             "SELECT count(*) FROM godwit_log AS c JOIN godwit_log AS u ON u.pk ="
                             " c.pk AND u.op = 2 AND c.op = 1 AND u.lsn > c.lsn"),
                     2);
    app_deinit(&a);
}

static int stop_after(void *context) {
    return --*(int *)context < 0;
}

/* Stopped at every tenth of the way; another handle finishes, and the application writes between.
 */
static void an_upload_goes_on_where_it_stopped(void **state) {
    (void)state;
    int stopped = 0;
    for (int steps = 5; steps < 60; steps += 6) {
        app a;
        app_init(&a, true);
        sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y);" MANY);
        int left = steps;
        sqlite3_progress_handler(a.db, 2000, stop_after, &left);
        godwit_status status = godwit_track(a.g, "t", NULL);
        sqlite3_progress_handler(a.db, 0, NULL, NULL);
        bool tracking = sql_int(a.db, "SELECT count(*) FROM godwit_table") > 0;
        stopped += status != GODWIT_OK && tracking;
        if (tracking) {
            bool more = false;
            sql_run(a.db, "UPDATE t SET y = 1 WHERE id = '03400'; DELETE FROM t WHERE id = '00002';"
                          "INSERT INTO t VALUES ('00002', 2, 2)");
            sql_run(a.db, "INSERT OR REPLACE INTO godwit_meta VALUES ('scope', 's')");
            godwit_close(a.g);
            app_open(&a); /* opening is a call: it finishes */
            assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_initial"), 0);
            assert_int_equal(
                sql_int(a.db, "SELECT count(DISTINCT pk) FROM godwit_log WHERE op = 1"), 3500);
            assert_int_equal(sql_int(a.db,
                                     "SELECT min(lsn) < (SELECT lsn FROM godwit_log WHERE op = 2)"
                                     " FROM godwit_log WHERE op = 1 AND pk = '03400'"),
                             1);
            APP_OK(&a, seal_run(a.g, 100000, &more));
            assert_int_equal(sql_int(a.db, "SELECT count(DISTINCT entity_id) FROM godwit_op"),
                             3500);
        }
        app_deinit(&a);
    }
    assert_true(stopped >= 3);
}

static void sealing_waits_for_rows_that_are_not_queued_yet(void **state) {
    app a;
    bool more = false;
    (void)state;
    app_init(&a, false);
    APP_OK(&a, godwit_init(a.g, &(godwit_settings){.url = "http://localhost", .scope = "s"}));
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y);" MANY);
    int left = 20;
    sqlite3_progress_handler(a.db, 2000, stop_after, &left);
    godwit_status status = godwit_track(a.g, "t", NULL);
    sqlite3_progress_handler(a.db, 0, NULL, NULL);
    assert_int_not_equal(status, GODWIT_OK);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_initial"), 1);
    sql_run(a.db, "UPDATE t SET y = 1 WHERE id = '03400'");
    APP_OK(&a, seal_run(a.g, 100000, &more));
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_op WHERE operation <> 'create'"),
                     0);
    godwit_metrics ignored;
    APP_OK(&a, godwit_get_metrics(a.g, &ignored));
    APP_OK(&a, seal_run(a.g, 100000, &more));
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_op WHERE operation = 'create'"),
                     3500);
    app_deinit(&a);
}

static void small_tables_transactions_and_ignore(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(
        a.db,
        "CREATE TABLE t (id TEXT PRIMARY KEY, x, y); INSERT INTO t VALUES ('a', 1, 2), (NULL, 3,"
        " 4); CREATE TABLE i (id TEXT PRIMARY KEY, x); INSERT INTO i VALUES ('old', 1);"
        "CREATE TABLE k (a TEXT, b INT, c, PRIMARY KEY (b, a)); INSERT INTO k VALUES ('x', 1, 2)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    assert_string_equal(app_text(&a, "SELECT lsn, pk, v0 FROM godwit_log"), "1|-|3 2|a|1");
    APP_OK(&a, godwit_track(a.g, "i", "{\"initial\":\"ignore\"}"));
    assert_int_equal(sql_int(a.db, "SELECT max(lsn) FROM godwit_log"), 2);
    sql_run(a.db, "BEGIN");
    APP_OK(&a, godwit_track(a.g, "k", NULL));
    sql_run(a.db, "INSERT INTO k VALUES ('y', 2, 3)");
    sql_run(a.db, "ROLLBACK");
    assert_int_equal(sql_int(a.db, "SELECT max(lsn) FROM godwit_log"), 2);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_table"), 2);
    sql_run(a.db, "BEGIN");
    APP_OK(&a, godwit_track(a.g, "k", NULL));
    sql_run(a.db, "COMMIT");
    assert_string_equal(app_text(&a, "SELECT pk, k1, v0 FROM godwit_log WHERE lsn > 2"), "1|x|2");
    app_deinit(&a);
}

static void untracked_and_tracked_again(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 1)");
    APP_OK(&a, godwit_untrack(a.g, "t"));
    assert_int_equal(godwit_untrack(a.g, "t"), GODWIT_NOT_FOUND);
    sql_run(a.db, "INSERT INTO t VALUES ('b', 1, 1)");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM sync_queue"),
                     1); /* still to be delivered */
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    assert_string_equal(app_text(&a, LOG), "1|a|-|1|1|-|- 1|b|-|1|1|-|-");
    app_deinit(&a);
}

/* ---- Tables that change ---- */

static void an_added_column_is_captured_after_the_next_call(void **state) {
    app a;
    godwit_metrics ignored;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1); ALTER TABLE t ADD COLUMN new");
    APP_OK(&a, godwit_get_metrics(a.g, &ignored));
    sql_run(a.db, "UPDATE t SET new = 2");
    assert_string_equal(app_text(&a, LOG), "1|a|-|1|-|-|- 2|a|2|-|2|-|-");
    app_deinit(&a);
}

static void captured_rows_follow_the_columns(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y, z)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 1, 2, 3); UPDATE t SET z = 4; UPDATE t SET y = 5");
    APP_OK(&a, godwit_migrate(a.g, "begin"));
    sql_run(
        a.db,
        "CREATE TABLE n (w TEXT DEFAULT 'd', z, x, id TEXT PRIMARY KEY); INSERT INTO n(id, x, z)"
        " SELECT id, x, z FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t");
    APP_OK(&a, godwit_migrate(a.g, "end"));
    /* x and z keep their order; y is gone, and with it the update of nothing else */
    assert_string_equal(app_text(&a, "SELECT json_extract(spec, '$.slots') FROM godwit_table"),
                        "[\"x\",\"z\",\"w\"]");
    assert_string_equal(app_text(&a, "SELECT op, pk, coalesce(mask, '-'), v0, v1 FROM godwit_log"
                                     " WHERE mask IS NULL OR mask <> 0"),
                        "1|a|-|1|3 2|a|2|-|4");
    sql_run(a.db, "UPDATE t SET w = 'W', z = 9");
    assert_string_equal(
        app_text(&a, "SELECT mask, v1, v2, o1, o2 FROM godwit_log ORDER BY lsn DESC LIMIT"
                     " 1"),
        "6|9|W|4|d");
    app_deinit(&a);
}

static void a_migration_that_changes_rows(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db,
            "CREATE TABLE t (id TEXT PRIMARY KEY, x, y); INSERT INTO t VALUES ('a', 1, 1), ('b', 2,"
            " 2), ('c', 3, 3), ('d', 4, 4)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "BEGIN");
    APP_OK(&a, godwit_migrate(a.g, "begin"));
    APP_OK(&a, godwit_migrate(a.g, "begin")); /* again, after a crash: nothing */
    assert_int_equal(godwit_track(a.g, "t", NULL), GODWIT_MISUSE);
    sql_run(a.db,
            "ALTER TABLE t ADD COLUMN z DEFAULT 'z'; UPDATE t SET x = x * 10 WHERE id < 'c';"
            "UPDATE t SET z = 'own' WHERE id = 'c'; DELETE FROM t WHERE id = 'd'; INSERT INTO t"
            " VALUES ('e', 5, 5, 'z'); UPDATE t SET id = 'B' WHERE id = 'b'");
    APP_OK(&a, godwit_migrate(a.g, "end"));
    sql_run(a.db, "COMMIT");
    assert_string_equal(
        app_text(&a, "SELECT op, pk, mask, v0, v2, o0, o2 FROM godwit_log WHERE lsn > 4 ORDER BY op"
                     " DESC, pk"),
        "3|b|-|-|-|2|- 3|d|-|-|-|4|- 2|a|1|10|-|1|- 1|B|-|20|z|-|- 1|e|-|5|z|-|-");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM sqlite_schema WHERE name GLOB"
                                   " 'godwit_before*'"),
                     0);
    sql_run(a.db, "UPDATE t SET y = 0 WHERE id = 'a'");
    assert_string_equal(app_text(&a, "SELECT op, mask FROM godwit_log ORDER BY lsn DESC LIMIT 1"),
                        "2|2");
    assert_int_equal(godwit_migrate(a.g, "middle"), GODWIT_INVALID);
    APP_OK(&a, gained_queue(a.g)); /* when the server has been asked for names */
    assert_string_equal(
        app_text(&a, "SELECT op, pk, mask, v0, v2, o2 FROM godwit_log ORDER BY lsn DESC LIMIT 1"),
        "2|c|4|-|own|-");
    app_deinit(&a);
}

static void a_migration_left_open(void **state) {
    app a;
    (void)state;
    app_init(&a, true);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x, y)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    APP_OK(&a, godwit_migrate(a.g, "begin"));
    godwit_close(a.g);
    app_open(&a); /* triggers stay away: the migration may go on */
    sql_run(a.db, "ALTER TABLE t DROP COLUMN y; INSERT INTO t VALUES ('a', 1)");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_log"), 0);
    APP_OK(&a, godwit_migrate(a.g, "end"));
    assert_string_equal(app_text(&a, "SELECT op, pk, v0 FROM godwit_log"), "1|a|1");
    app_deinit(&a);
}

static void a_key_that_changes(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "INSERT INTO t VALUES ('a', 'k')");
    sql_run(a.db, "DROP TABLE t; CREATE TABLE t (id TEXT, x TEXT PRIMARY KEY)");
    assert_int_equal(godwit_track(a.g, "t", NULL),
                     GODWIT_UNSUPPORTED); /* one waits with the old key */
    assert_non_null(strstr(godwit_message(a.g), "sync first"));
    sql_run(a.db, "INSERT OR REPLACE INTO godwit_meta VALUES ('sealed_lsn', 1)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    sql_run(a.db, "INSERT INTO t VALUES ('i', 'new')");
    assert_string_equal(app_text(&a, "SELECT tbl, pk FROM godwit_log ORDER BY lsn DESC LIMIT 1"),
                        "2|new");
    app_deinit(&a);
}

/* ---- The doctor ---- */

typedef struct {
    char codes[400];
} findings;

static void add_finding(void *context, const char *code, const char *text, int fixable) {
    findings *f = context;
    size_t used = strlen(f->codes);
    assert_true(strlen(text) > 5);
    snprintf(f->codes + used, sizeof f->codes - used, "%s%s%s", used ? " " : "", code,
             fixable ? "+" : "");
}

static const char *doctor(app *a, int fix, int64_t remaining) {
    static findings f;
    int64_t count = 0;
    f.codes[0] = '\0';
    APP_OK(a, godwit_doctor(a->g, fix, add_finding, &f, &count));
    assert_int_equal(count, remaining);
    return f.codes;
}

static void the_doctor_finds_what_slipped_past(void **state) {
    app a;
    (void)state;
    app_init(&a, false);
    sql_run(a.db,
            "CREATE TABLE t (id TEXT PRIMARY KEY, x, y); CREATE TABLE gone (id TEXT PRIMARY KEY)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    APP_OK(&a, godwit_track(a.g, "gone", NULL));
    assert_string_equal(doctor(&a, 0, 0), "");
    /* a row as the server has it */
    sql_run(a.db,
            "UPDATE godwit_state SET capture = 0; INSERT INTO t VALUES ('a', 1, 2), ('u', 3, 4);"
            "UPDATE godwit_state SET capture = 1; INSERT INTO godwit_row(tbl, pk, ver) VALUES (1,"
            " 'a', 1), (1, 'm', 1)");
    const client_table *t = client_table_by_number(a.g, 1);
    value values[2] = {{.type = VALUE_INT, .u.i = 1}, {.type = VALUE_INT, .u.i = 2}};
    char sql[96];
    snprintf(sql, sizeof sql, "UPDATE godwit_row SET digest = %lld",
             (long long)client_row_digest(t, values));
    sql_run(a.db, sql);
    assert_string_equal(doctor(&a, 0, 2), "unknown-rows+ missing-rows+");
    sql_run(a.db, "UPDATE godwit_state SET capture = 0; UPDATE t SET y = 3 WHERE id = 'a'");
    assert_string_equal(doctor(&a, 0, 4), "capture-off+ unknown-rows+ changed-rows+ missing-rows+");
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_log"), 0);
    assert_string_equal(doctor(&a, 1, 0), "capture-off+ unknown-rows+ changed-rows+ missing-rows+");
    assert_string_equal(app_text(&a, LOG), "1|a|-|1|3|-|- 1|u|-|3|4|-|- 3|m|-|-|-|-|-");
    assert_string_equal(doctor(&a, 0, 0), ""); /* they are on their way */
    sql_run(a.db, "DROP TABLE gone");
    assert_string_equal(doctor(&a, 1, 1), "table-missing");
    assert_int_equal(godwit_untrack(a.g, "gone"), GODWIT_OK);
    APP_OK(&a, godwit_migrate(a.g, "begin"));
    assert_string_equal(doctor(&a, 0, 1), "migration-open");
    app_deinit(&a);
}

static void missing_triggers_come_back(void **state) {
    app a;
    sqlite3 *plain = NULL;
    godwit_metrics ignored;
    (void)state;
    app_init(&a, true);
    sql_run(a.db, "CREATE TABLE t (id TEXT PRIMARY KEY, x)");
    APP_OK(&a, godwit_track(a.g, "t", NULL));
    assert_int_equal(sqlite3_open(a.path, &plain), SQLITE_OK);
    sql_run(plain, "DROP TRIGGER godwit_t_i; INSERT INTO t VALUES ('slipped', 1)");
    sql_run(plain,
            "DROP TRIGGER godwit_t_d; CREATE TRIGGER godwit_t_d AFTER DELETE ON t BEGIN SELECT 1;"
            " END");
    sqlite3_close(plain);
    APP_OK(&a, godwit_get_metrics(a.g, &ignored));
    sql_run(a.db, "INSERT INTO t VALUES ('seen', 1); DELETE FROM t WHERE id = 'seen'");
    assert_string_equal(app_text(&a, "SELECT op, pk FROM godwit_log"), "1|seen 3|seen");
    assert_string_equal(doctor(&a, 1, 0), "unknown-rows+");
    assert_string_equal(app_text(&a, "SELECT op, pk FROM godwit_log WHERE lsn > 2"), "1|slipped");
    app_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_can_not_be_tracked),
        cmocka_unit_test(tracking_again_changes_nothing),
        cmocka_unit_test(existing_rows_are_queued_before_what_follows),
        cmocka_unit_test(an_upload_goes_on_where_it_stopped),
        cmocka_unit_test(sealing_waits_for_rows_that_are_not_queued_yet),
        cmocka_unit_test(small_tables_transactions_and_ignore),
        cmocka_unit_test(untracked_and_tracked_again),
        cmocka_unit_test(an_added_column_is_captured_after_the_next_call),
        cmocka_unit_test(captured_rows_follow_the_columns),
        cmocka_unit_test(a_migration_that_changes_rows),
        cmocka_unit_test(a_migration_left_open),
        cmocka_unit_test(a_key_that_changes),
        cmocka_unit_test(the_doctor_finds_what_slipped_past),
        cmocka_unit_test(missing_triggers_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
