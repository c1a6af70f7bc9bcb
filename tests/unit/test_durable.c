/* The durability check: settings that would lose a change are raised or refused, nothing else is
 * touched. */
#include "client_kit.h"

/* Opens a connection with `settings` on the database in the folder, and attaches to it. */
static godwit_status attach(app *a, const char *settings, sqlite3 **handle, godwit **g) {
    assert_int_equal(sqlite3_open(a->path, handle), SQLITE_OK);
    sql_run(*handle, settings);
    return godwit_attach(*handle, NULL, g);
}

static void settings_after(const char *before, const char *journal, int synchronous) {
    app a;
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    app_init(&a, true);
    sql_run(a.db, "PRAGMA journal_mode = DELETE"); /* the file as another program left it */
    assert_int_equal(attach(&a, before, &handle, &g), GODWIT_OK);
    sqlite3 *own = a.db;
    a.db = handle;
    assert_string_equal(app_text(&a, "PRAGMA journal_mode"), journal);
    a.db = own;
    assert_int_equal(sql_int(handle, "PRAGMA synchronous"), synchronous);
    assert_int_equal(sql_int(handle, "PRAGMA recursive_triggers"), 0);
    assert_int_equal(sql_int(handle, "PRAGMA foreign_keys"), 0);
    godwit_close(g);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    app_deinit(&a);
}

static void weak_settings_are_raised(void **state) {
    (void)state;
    settings_after("PRAGMA synchronous = NORMAL", "wal", 2);
    settings_after("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF", "wal", 2);
    settings_after("PRAGMA journal_mode = MEMORY", "wal", 2);
    settings_after("PRAGMA synchronous = FULL", "wal", 2);
}

static void durable_settings_are_left_alone(void **state) {
    (void)state;
    settings_after("PRAGMA synchronous = EXTRA", "delete", 3);
    settings_after("PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = EXTRA", "truncate", 3);
    settings_after("PRAGMA journal_mode = PERSIST; PRAGMA synchronous = EXTRA", "persist", 3);
    settings_after("PRAGMA journal_mode = WAL; PRAGMA synchronous = EXTRA", "wal", 3);
    settings_after("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", "wal", 2);
}

/* WAL is not to be had while somebody reads: a rollback journal with EXTRA is as good. */
static void no_wal_means_extra(void **state) {
    app a;
    sqlite3 *peer = NULL;
    (void)state;
    app_init(&a, true);
    sql_run(a.db, "PRAGMA journal_mode = DELETE");
    assert_int_equal(sqlite3_open(a.path, &peer), SQLITE_OK);
    sql_run(peer, "BEGIN; SELECT count(*) FROM godwit_meta");
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    assert_int_equal(attach(&a, "PRAGMA synchronous = NORMAL", &handle, &g), GODWIT_OK);
    assert_int_equal(sql_int(handle, "PRAGMA synchronous"), 3);
    sql_run(peer, "COMMIT");
    godwit_close(g);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    sqlite3_close(peer);
    app_deinit(&a);
}

static void inside_a_transaction_nothing_can_be_raised(void **state) {
    app a;
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    (void)state;
    app_init(&a, true);
    sql_run(a.db, "PRAGMA journal_mode = WAL");
    assert_int_equal(attach(&a, "PRAGMA synchronous = NORMAL; BEGIN", &handle, &g),
                     GODWIT_NOT_DURABLE);
    assert_null(g);
    sql_run(handle, "COMMIT; PRAGMA synchronous = FULL; BEGIN");
    assert_int_equal(godwit_attach(handle, NULL, &g), GODWIT_OK); /* durable: no need to */
    godwit_close(g);
    sql_run(handle, "COMMIT");
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    app_deinit(&a);
}

static void tables_are_not_installed_inside_a_transaction(void **state) {
    sqlite3 *handle = NULL;
    godwit *g = NULL;
    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &handle), SQLITE_OK);
    sql_run(handle, "BEGIN");
    assert_int_equal(godwit_attach(handle, NULL, &g), GODWIT_MISUSE);
    sql_run(handle, "COMMIT");
    assert_int_equal(sql_int(handle, "SELECT count(*) FROM sqlite_schema"), 0);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
}

static void find_durability(void *context, const char *code, const char *text, int fixable) {
    (void)text;
    (void)fixable;
    *(int *)context += strcmp(code, "durability") == 0;
}

/* The doctor raises what it can and says what it can't. */
static void the_doctor_looks_again(void **state) {
    app a;
    int found = 0;
    int64_t findings = 0;
    (void)state;
    app_init(&a, true);
    godwit_close(a.g);
    assert_int_equal(godwit_open(a.path, NULL, &a.g), GODWIT_OK);
    a.db = godwit_connection(a.g);
    sql_run(a.db, "PRAGMA synchronous = OFF");
    APP_OK(&a, godwit_doctor(a.g, 0, find_durability, &found, &findings));
    assert_int_equal(sql_int(a.db, "PRAGMA synchronous"), 2);
    sql_run(a.db, "PRAGMA synchronous = OFF; BEGIN");
    APP_OK(&a, godwit_doctor(a.g, 0, find_durability, &found, &findings));
    assert_int_equal(found, 1);
    assert_int_equal(findings, 1);
    sql_run(a.db, "COMMIT");
    app_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weak_settings_are_raised),
        cmocka_unit_test(durable_settings_are_left_alone),
        cmocka_unit_test(no_wal_means_extra),
        cmocka_unit_test(inside_a_transaction_nothing_can_be_raised),
        cmocka_unit_test(tables_are_not_installed_inside_a_transaction),
        cmocka_unit_test(the_doctor_looks_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
