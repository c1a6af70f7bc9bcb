/* The client under memory that runs out at every allocation in turn, and under statements that are
 * cut short at every point: a status, no leak, nothing half done, and the same call works
 * afterwards. */
#include "client_kit.h"

#define TABLES                                                                                     \
    "CREATE TABLE t (id TEXT PRIMARY KEY, x UNIQUE, y); INSERT INTO t VALUES ('a', 1, 2), ('b', "  \
    "2, 3);"                                                                                       \
    "CREATE TABLE k (a INT, b TEXT, v, PRIMARY KEY (a, b)) WITHOUT ROWID"

/* Everything this layer offers, once. Stops at the first failure. */
static godwit_status everything(godwit *g, const char **where) {
    char id[37];
    int64_t findings = 0;
    godwit_metrics metrics;
    const godwit_settings settings = {.url = "http://localhost", .scope = "s"};
    godwit_status status = godwit_init(g, &settings);
    *where = "init";
    if (status == GODWIT_OK) {
        *where = "track";
        status = godwit_track(g, "t", "{\"entity\":\"thing\"}");
    }
    if (status == GODWIT_OK) {
        status = godwit_track(g, "k", NULL);
    }
    if (status == GODWIT_OK) {
        *where = "enqueue";
        status = godwit_enqueue(g, "create", "thing", "a", "{}", NULL, id);
    }
    if (status == GODWIT_OK) {
        status = godwit_enqueue(g, "create", "note", "n", "{\"a\":[1]}", NULL, id);
    }
    if (status == GODWIT_OK) {
        *where = "migrate";
        status = godwit_migrate(g, "begin");
    }
    if (status == GODWIT_OK) {
        status = godwit_migrate(g, "end");
    }
    if (status == GODWIT_OK) {
        *where = "look";
        status = godwit_get_metrics(g, &metrics);
    }
    if (status == GODWIT_OK) {
        status = godwit_doctor(g, 1, NULL, NULL, &findings);
    }
    if (status == GODWIT_OK) {
        *where = "untrack";
        status = godwit_untrack(g, "k");
    }
    return status;
}

static void check_whole(sqlite3 *handle, const char *where) {
    /* a tracked table has all its triggers, an untracked one none, and every row was queued once */
    int64_t wrong =
        sql_int(handle, "SELECT count(*) FROM godwit_table AS g WHERE name IN ('t', 'k') AND"
                        " NOT EXISTS (SELECT 1 FROM godwit_meta WHERE k = 'migrating') AND"
                        " active <> (SELECT count(*) >= 4 FROM sqlite_schema WHERE type ="
                        " 'trigger' AND tbl_name = g.name)");
    int64_t rows =
        sql_int(handle, "SELECT (SELECT count(*) FROM godwit_log WHERE op = 1 AND tbl = 1 AND lsn >"
                        " coalesce((SELECT v FROM godwit_meta WHERE k = 'sealed_lsn'), 0)) +"
                        " (SELECT count(*) FROM godwit_op WHERE operation = 'create' AND"
                        " tbl = 1)");
    int64_t tracked = sql_int(handle, "SELECT count(*) FROM godwit_table WHERE name = 't'");
    if (wrong || rows != 2 * tracked || !sqlite3_get_autocommit(handle)) {
        fail_msg("half done in %s: %d tables, %d rows", where, (int)wrong, (int)rows);
    }
}

static void again(app *a) {
    const char *where = "ending the migration";
    godwit_status status =
        godwit_migrate(a->g, "end"); /* it may have stopped in the middle of one */
    if (status == GODWIT_OK) {
        status = everything(a->g, &where);
    }
    if (status != GODWIT_OK) {
        fail_msg("%s afterwards: %s: %s", where, godwit_status_name(status), godwit_message(a->g));
    }
}

static bool run_with_memory(long countdown, bool once) {
    unit_memory memory = {-1, once, 0};
    godwit_options options = {.accept_weak_durability = 1};
    app a = {.path = ":memory:"};
    const char *where = "open";
    options.host.allocator = (godwit_allocator){&memory, unit_resize};
    assert_int_equal(sqlite3_open(":memory:", &a.db), SQLITE_OK);
    sql_run(a.db, TABLES);
    memory.countdown = countdown;
    godwit_status status = godwit_attach(a.db, &options, &a.g);
    if (status == GODWIT_OK) {
        status = everything(a.g, &where);
    }
    bool failed = status != GODWIT_OK;
    if (failed && status != GODWIT_NOMEM) {
        fail_msg("allocation %ld in %s: %s: %s", countdown, where, godwit_status_name(status),
                 a.g ? godwit_message(a.g) : "-");
    }
    memory.countdown = -1;
    if (!a.g) {
        assert_int_equal(memory.live, 0);
        assert_int_equal(godwit_attach(a.db, &options, &a.g), GODWIT_OK);
    } else if (failed) {
        check_whole(a.db, where);
    }
    if (failed) {
        again(&a);
    }
    godwit_close(a.g);
    assert_int_equal(memory.live, 0);
    assert_int_equal(sqlite3_close(a.db), SQLITE_OK);
    return failed;
}

/* Every point up to the hundredth, then fewer; all of them with GODWIT_TORTURE set. */
static long next_point(long n) {
    return n + (getenv("GODWIT_TORTURE") ? 1 : 1 + n / 100);
}

static void every_allocation_fails_once(void **state) {
    long n = 0;
    (void)state;
    while (run_with_memory(n, true)) {
        n = next_point(n);
    }
    assert_true(n > 50);
}

static void memory_runs_out_for_good(void **state) {
    long n = 0;
    (void)state;
    while (run_with_memory(n, false)) {
        n = next_point(n) + 4;
    }
    assert_true(n > 50);
}

typedef struct {
    long left;
} cutter;

static int cut(void *context) {
    cutter *c = context;
    return c->left-- == 0;
}

/* SQLite is interrupted once, at every n-th of its steps. */
static bool run_interrupted(long n) {
    app a = {.path = ":memory:"};
    const godwit_options options = {.accept_weak_durability = 1};
    cutter c = {n};
    const char *where = "open";
    assert_int_equal(sqlite3_open(":memory:", &a.db), SQLITE_OK);
    sql_run(a.db, TABLES);
    assert_int_equal(godwit_attach(a.db, &options, &a.g), GODWIT_OK);
    sqlite3_progress_handler(a.db, 40, cut, &c);
    godwit_status status = everything(a.g, &where);
    sqlite3_progress_handler(a.db, 0, NULL, NULL);
    if (status != GODWIT_OK) {
        check_whole(a.db, where);
        again(&a);
    }
    godwit_close(a.g);
    assert_int_equal(sqlite3_close(a.db), SQLITE_OK);
    return c.left < 0;
}

static void every_statement_is_interrupted(void **state) {
    long n = 0;
    (void)state;
    while (run_interrupted(n)) {
        n = next_point(n) + 4;
    }
    assert_true(n > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(memory_runs_out_for_good),
        cmocka_unit_test(every_statement_is_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
