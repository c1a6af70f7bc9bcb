/* godwit_enqueue: names what was captured, queues what has no table, and refuses the rest. */
#include "client_kit.h"

#include "client/count.h"

static void start(app *a) {
    app_init(a, false);
    APP_OK(a, godwit_init(a->g, &(godwit_settings){.url = "http://localhost", .scope = "s"}));
    sql_run(a->db,
            "CREATE TABLE pins (id TEXT PRIMARY KEY, x); CREATE TABLE pair (a INT, b TEXT, x,"
            " PRIMARY KEY (a, b))");
    APP_OK(a, godwit_track(a->g, "pins", "{\"entity\":\"pin\"}"));
    APP_OK(a, godwit_track(a->g, "pair", NULL));
}

static const char *id_of(app *a, int lsn) {
    static char sql[64];
    snprintf(sql, sizeof sql, "SELECT id FROM sync_queue WHERE lsn = %d", lsn);
    return app_text(a, sql);
}

static void finds_the_captured_change(void **state) {
    app a;
    char id[37];
    (void)state;
    start(&a);
    sql_run(a.db,
            "INSERT INTO pins VALUES ('p', 1); UPDATE pins SET x = 2; INSERT INTO pins VALUES ('q',"
            " 1); INSERT INTO pair VALUES (1, 'b', 0); DELETE FROM pins WHERE id = 'q'");
    APP_OK(&a, godwit_enqueue(a.g, "create", "pin", "p", "{\"x\":1}", NULL, id));
    assert_string_equal(id, id_of(&a, 1));
    APP_OK(&a, godwit_enqueue(a.g, "update", "pin", "p", NULL, NULL, id));
    assert_string_equal(id, id_of(&a, 2));
    APP_OK(&a,
           godwit_enqueue(a.g, "DELETE", "pins", "q", NULL, NULL, id)); /* table's name, alias */
    assert_string_equal(id, id_of(&a, 5));
    APP_OK(&a, godwit_enqueue(a.g, "update", "pair", "[\"1\",\"b\"]", NULL, NULL, id));
    assert_string_equal(id, id_of(&a, 4)); /* saved with an INSERT: it is the change there is */
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM sync_queue"), 5);
    assert_int_equal(godwit_enqueue(a.g, "delete", "pin", "p", NULL, NULL, id), GODWIT_NOT_FOUND);
    assert_string_equal(id, "");
    assert_int_equal(godwit_enqueue(a.g, "create", "pin", "z", NULL, NULL, id), GODWIT_NOT_FOUND);
    app_deinit(&a);
}

static void a_named_change_keeps_its_id_when_sealed(void **state) {
    app a;
    char first[37];
    char second[37];
    bool more = false;
    (void)state;
    start(&a);
    sql_run(a.db, "BEGIN; INSERT INTO pins VALUES ('p', 1); UPDATE pins SET x = 2");
    APP_OK(&a, godwit_enqueue(a.g, "update", "pin", "p", NULL,
                              &(godwit_enqueue_options){.client_key = "mine"}, first));
    sql_run(a.db, "UPDATE pins SET x = 3; COMMIT");
    APP_OK(&a, seal_run(a.g, 100, &more));
    /* the newest update is another one by now, but the name tells which is meant */
    assert_int_equal(godwit_enqueue(a.g, "update", "pin", "p", NULL,
                                    &(godwit_enqueue_options){.client_key = "mine"}, second),
                     GODWIT_EXISTS);
    assert_string_equal(first, second);
    assert_string_equal(app_text(&a,
                                 "SELECT client_key, payload FROM godwit_op WHERE client_key IS NOT"
                                 " NULL"),
                        "mine|{\"x\":2}");
    assert_string_equal(first, app_text(&a, "SELECT id FROM sync_queue WHERE client_key = 'mine'"));
    app_deinit(&a);
}

static void dependencies_and_keys(void **state) {
    app a;
    char one[37];
    char two[37];
    char again[37];
    bool more = false;
    (void)state;
    start(&a);
    APP_OK(&a, godwit_enqueue(a.g, "create", "photo", "f1", "{\"bytes\":3}",
                              &(godwit_enqueue_options){.client_key = "k1"}, one));
    const char *depends[] = {one};
    const godwit_enqueue_options options = {depends, 1, "k2"};
    APP_OK(&a, godwit_enqueue(a.g, "update", "photo", "f1", "{\"bytes\":4}", &options, two));
    assert_string_equal(app_text(&a, "SELECT depends_on FROM sync_queue WHERE client_key = 'k2'"),
                        one);
    assert_int_equal(godwit_enqueue(a.g, "create", "photo", "f2", "{}", &options, again),
                     GODWIT_EXISTS);
    assert_string_equal(again, two); /* which one has it */
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM sync_queue"), 2);
    APP_OK(&a, seal_run(a.g, 100, &more));
    assert_string_equal(
        app_text(&a, "SELECT operation, entity_type, entity_id, payload, client_key FROM"
                     " godwit_op"),
        "create|photo|f1|{\"bytes\":3}|k1 update|photo|f1|{\"bytes\":4}|k2");
    assert_string_equal(app_text(&a, "SELECT depends_on FROM sync_queue WHERE client_key = 'k2'"),
                        one);
    assert_int_equal(godwit_enqueue(a.g, "create", "photo", "f3", "{}", &options, again),
                     GODWIT_EXISTS);
    assert_string_equal(again, two);
    /* nothing is in the way of a table of that name */
    sql_run(a.db, "CREATE TABLE photo (id TEXT PRIMARY KEY)");
    assert_int_equal(godwit_track(a.g, "photo", NULL), GODWIT_EXISTS);
    APP_OK(&a, godwit_track(a.g, "photo", "{\"entity\":\"photos\"}"));
    app_deinit(&a);
}

static void what_is_refused(void **state) {
    static const char *const broken[] = {
        "{", "[]", "\"text\"", "{\"a\":1,\"a\":2}", "{\"a\":}", "{\"a\":\"\xff\"}", "nul"};
    app a;
    char id[37];
    (void)state;
    start(&a);
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        assert_int_equal(godwit_enqueue(a.g, "create", "note", "n", broken[i], NULL, id),
                         GODWIT_INVALID);
    }
    assert_int_equal(godwit_enqueue(a.g, "upsert", "note", "n", "{}", NULL, id), GODWIT_INVALID);
    assert_int_equal(godwit_enqueue(a.g, "void", "note", "n", "{}", NULL, id), GODWIT_INVALID);
    assert_int_equal(godwit_enqueue(a.g, "create", "", "n", "{}", NULL, id), GODWIT_INVALID);
    assert_int_equal(godwit_enqueue(a.g, "create", "note", "", "{}", NULL, id), GODWIT_INVALID);
    assert_int_equal(godwit_enqueue(a.g, NULL, NULL, NULL, NULL, NULL, id), GODWIT_INVALID);
    assert_int_equal(godwit_enqueue(a.g, "create", "pair", "[\"x\",\"b\"]", NULL, NULL, id),
                     GODWIT_INVALID);
    char *large = malloc((1u << 20) + 64);
    assert_non_null(large);
    memset(large, ' ', (1u << 20) + 63);
    memcpy(large, "{}", 2);
    large[(1u << 20) + 63] = '\0';
    assert_int_equal(godwit_enqueue(a.g, "create", "note", "n", large, NULL, id), GODWIT_LIMIT);
    free(large);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_log"), 0);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_table"), 2);
    app_deinit(&a);
}

static void settings_are_checked(void **state) {
    static const godwit_settings bad[] = {
        {.url = NULL},
        {.url = "localhost"},
        {.url = "https://with space"},
        {.url = "http://x", .scope = ""},
        {.url = "http://x", .token = "two words"},
        {.url = "http://x", .token = "t", .token_file = "f"},
        {.url = "http://x", .label = "new\nline"},
    };
    app a;
    (void)state;
    app_init(&a, false);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(godwit_init(a.g, &bad[i]), GODWIT_INVALID);
        assert_true(strlen(godwit_message(a.g)) > 10);
    }
    assert_int_equal(godwit_init(a.g, NULL), GODWIT_INVALID);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM godwit_meta WHERE k = 'url'"), 0);
    APP_OK(&a, godwit_init(a.g,
                           &(godwit_settings){.url = "https://h", .token = "abc", .label = "Ana"}));
    APP_OK(&a,
           godwit_init(a.g, &(godwit_settings){.token_file = "/run/token"})); /* keeps the rest */
    assert_string_equal(app_text(&a, "SELECT k, v FROM godwit_meta WHERE k IN ('url', 'token',"
                                     " 'token_file', 'label', 'scope') ORDER BY k"),
                        "label|Ana token_file|/run/token url|https://h");
    app_deinit(&a);
}

static void metrics_count(void **state) {
    app a;
    godwit_metrics m;
    bool more = false;
    (void)state;
    start(&a);
    sql_run(a.db, "INSERT INTO pins VALUES ('p', 1), ('q', 1), ('r', 1)");
    APP_OK(&a, seal_run(a.g, 100, &more));
    sql_run(
        a.db,
        "UPDATE godwit_op SET state = 'rejected', last_error_code = 'validation' WHERE entity_id"
        " = 'p'; UPDATE godwit_op SET state = 'retired' WHERE entity_id = 'q'; UPDATE pins SET"
        " x = 5 WHERE id = 'r'; INSERT INTO godwit_meta VALUES ('last_sync_ms', 12),"
        " ('head:s', 9); INSERT INTO godwit_cursor(scope, commit_seq) VALUES ('s', 4)");
    APP_OK(&a, count_again(a.g)); /* that was behind the counters' back */
    APP_OK(&a, godwit_get_metrics(a.g, &m));
    assert_int_equal(m.queue_length, 3);
    assert_int_equal(m.pending_operations, 2);
    assert_int_equal(m.failed_operations, 1);
    assert_int_equal(m.last_successful_sync_ms, 12);
    assert_int_equal(m.feed_lag, 5);
    assert_in_range(m.oldest_pending_age_ms, 0, 60000);
    assert_string_equal(app_text(&a, "SELECT entity_id, status FROM godwit_row_status ORDER BY 1"),
                        "p|failed r|pending");
    assert_string_equal(app_text(&a, "SELECT entity_id, status, code FROM godwit_dead_letters"),
                        "p|failed|validation");
    assert_string_equal(
        app_text(&a, "SELECT entity_id, status, state FROM sync_queue ORDER BY lsn"),
        "p|failed|rejected q|completed|retired r|pending|pending r|pending|captured");
    app_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_captured_change),
        cmocka_unit_test(a_named_change_keeps_its_id_when_sealed),
        cmocka_unit_test(dependencies_and_keys),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(metrics_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
