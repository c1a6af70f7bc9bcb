/* Capture under thousands of random transactions: savepoints, nested rollbacks, failing
 * constraints, REPLACE, UPSERT, key changes, cascades, triggers of the application. Two things must
 * hold after every COMMIT: the log replayed over a copy of each table gives the table, and the
 * groups are exactly the transactions that captured two or more changes. */
#include "client_kit.h"

#define SCHEMA                                                                                     \
    "CREATE TABLE pins (id TEXT PRIMARY KEY, code TEXT UNIQUE, n, r REAL, touched INT DEFAULT 0);" \
    "CREATE TRIGGER pins_touch AFTER UPDATE OF n ON pins BEGIN UPDATE pins SET touched ="          \
    " touched + 1 WHERE id = NEW.id; END;"                                                         \
    "CREATE TRIGGER pins_new AFTER INSERT ON pins WHEN NEW.n IS 3 BEGIN UPDATE pins SET r = 9"     \
    " WHERE id = NEW.id; END;"                                                                     \
    "CREATE TABLE pair (a INT, b TEXT COLLATE NOCASE, v, PRIMARY KEY (a, b)) WITHOUT ROWID;"       \
    "CREATE TABLE forms (id INTEGER PRIMARY KEY, pin TEXT REFERENCES pins(id) ON DELETE CASCADE"   \
    " ON UPDATE CASCADE, v BLOB, u, w, UNIQUE (u, w));"                                            \
    "CREATE UNIQUE INDEX forms_part ON forms (v COLLATE NOCASE) WHERE w = 'm';"                    \
    "CREATE TABLE \"odd \"\"name'\" (\"the key\" TEXT COLLATE NOCASE PRIMARY KEY, \"select\","     \
    " twice AS (\"select\" * 2), kept AS (\"select\" + 1) STORED, \"x.y\" ANY);"

typedef struct {
    app a;
    uint64_t random;
    int64_t replayed;
    int statements, failures, commits, rollbacks, groups;
} run;

static unsigned pick(run *r, unsigned n) {
    return (unsigned)(unit_random(&r->random) >> 33) % n;
}

static const char *value_of(run *r) {
    static const char *const values[] = {"NULL",
                                         "0",
                                         "1",
                                         "1.0",
                                         "3",
                                         "'a'",
                                         "'A'",
                                         "'m'",
                                         "'M'",
                                         "x'00ff'",
                                         "x'61'",
                                         "'1'",
                                         "9007199254740993",
                                         "-9223372036854775807 - 1",
                                         "0.1",
                                         "1e300",
                                         "''",
                                         "'quote '' and \" and\n'"};
    return values[pick(r, COUNT_OF(values))];
}

static const char *key_of(run *r) {
    static const char *const keys[] = {"'a'", "'A'", "'b'", "'B'", "'c'", "'d'", "'e'"};
    return keys[pick(r, COUNT_OF(keys))];
}

static const char *conflict_of(run *r) {
    static const char *const words[] = {"",           "",         "OR REPLACE", "OR IGNORE",
                                        "OR REPLACE", "OR ABORT", "OR FAIL",    "OR ROLLBACK"};
    return words[pick(r, COUNT_OF(words))];
}

static void pins_statement(run *r, char *sql, size_t size) {
    switch (pick(r, 7)) {
    case 0:
        snprintf(sql, size, "INSERT %s INTO pins(id, code, n, r) VALUES (%s, %s, %s, %s)",
                 conflict_of(r), key_of(r), value_of(r), value_of(r), value_of(r));
        break;
    case 1:
        snprintf(sql, size,
                 "INSERT INTO pins(id, code, n) VALUES (%s, %s, %s) ON CONFLICT(id) DO UPDATE SET n"
                 " = excluded.n ON CONFLICT(code) DO UPDATE SET r = 4, code = %s",
                 key_of(r), key_of(r), value_of(r), value_of(r));
        break;
    case 2:
        snprintf(sql, size, "UPDATE %s pins SET code = %s, n = %s WHERE id = %s", conflict_of(r),
                 value_of(r), value_of(r), key_of(r));
        break;
    case 3:
        snprintf(sql, size, "UPDATE %s pins SET id = %s WHERE id = %s", conflict_of(r), key_of(r),
                 key_of(r));
        break;
    case 4:
        snprintf(sql, size, "DELETE FROM pins WHERE id = %s", key_of(r));
        break;
    case 5:
        snprintf(sql, size, "UPDATE pins SET n = %s, r = r", value_of(r));
        break;
    default:
        snprintf(sql, size, "INSERT %s INTO pins(id, code) VALUES (%s, %s), (%s, %s), (%s, %s)",
                 conflict_of(r), key_of(r), key_of(r), key_of(r), key_of(r), key_of(r), key_of(r));
    }
}

static void pair_statement(run *r, char *sql, size_t size) {
    switch (pick(r, 4)) {
    case 0:
        snprintf(sql, size, "INSERT %s INTO pair VALUES (%u, %s, %s)", conflict_of(r), pick(r, 3),
                 key_of(r), value_of(r));
        break;
    case 1:
        snprintf(sql, size, "UPDATE %s pair SET a = %u, v = %s WHERE b = %s", conflict_of(r),
                 pick(r, 3), value_of(r), key_of(r));
        break;
    case 2:
        snprintf(sql, size, "UPDATE %s pair SET b = %s WHERE a = %u", conflict_of(r), key_of(r),
                 pick(r, 3));
        break;
    default:
        snprintf(sql, size, "DELETE FROM pair WHERE a = %u AND b < %s", pick(r, 3), key_of(r));
    }
}

static void forms_statement(run *r, char *sql, size_t size) {
    switch (pick(r, 5)) {
    case 0:
        snprintf(sql, size,
                 "INSERT %s INTO forms VALUES (%u, (SELECT max(id) FROM pins), %s, %s, %s)",
                 conflict_of(r), pick(r, 8), value_of(r), value_of(r), value_of(r));
        break;
    case 1: /* SQLite chooses the key */
        snprintf(sql, size, "INSERT %s INTO forms(v, u, w) VALUES (%s, %s, %s)", conflict_of(r),
                 value_of(r), value_of(r), value_of(r));
        break;
    case 2:
        snprintf(sql, size, "UPDATE %s forms SET v = %s, u = %s, w = %s WHERE id = %u",
                 conflict_of(r), value_of(r), value_of(r), value_of(r), pick(r, 8));
        break;
    case 3:
        snprintf(sql, size, "UPDATE %s forms SET rowid = %u, v = %s WHERE id = %u", conflict_of(r),
                 pick(r, 8), value_of(r), pick(r, 8));
        break;
    default:
        snprintf(sql, size, "DELETE FROM forms WHERE id >= %u", pick(r, 8));
    }
}

static void odd_statement(run *r, char *sql, size_t size) {
    switch (pick(r, 3)) {
    case 0:
        snprintf(sql, size, "INSERT %s INTO \"odd \"\"name'\" VALUES (%s, %s, %s)", conflict_of(r),
                 key_of(r), value_of(r), value_of(r));
        break;
    case 1:
        snprintf(sql, size,
                 "UPDATE %s \"odd \"\"name'\" SET \"the key\" = %s, \"x.y\" = %s WHERE"
                 " \"the key\" = %s",
                 conflict_of(r), key_of(r), value_of(r), key_of(r));
        break;
    default:
        snprintf(sql, size, "DELETE FROM \"odd \"\"name'\" WHERE \"the key\" = %s", key_of(r));
    }
}

static void statement(run *r) {
    char sql[512];
    switch (pick(r, 6)) {
    case 0:
    case 1:
        pins_statement(r, sql, sizeof sql);
        break;
    case 2:
        pair_statement(r, sql, sizeof sql);
        break;
    case 3:
    case 4:
        forms_statement(r, sql, sizeof sql);
        break;
    default:
        odd_statement(r, sql, sizeof sql);
    }
    int rc = sql_try(r->a.db, sql);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_CONSTRAINT && (rc & 0xff) != SQLITE_MISMATCH) {
        fail_msg("%s\n  %s", sql, sqlite3_errmsg(r->a.db));
    }
    r->statements++;
    r->failures += rc != SQLITE_OK;
}

/* A transaction, with savepoints inside; false when a statement has rolled it back. */
static bool body(run *r) {
    int depth = 0;
    for (unsigned i = pick(r, 8); i > 0; i--) {
        switch (pick(r, 5)) {
        case 0:
            if (depth < 4) {
                sql_run(r->a.db, "SAVEPOINT s");
                depth++;
            }
            break;
        case 1:
            if (depth > 0 && pick(r, 2)) {
                sql_run(r->a.db, "ROLLBACK TO s");
            } else if (depth > 0) {
                sql_run(r->a.db, "RELEASE s");
                depth--;
            }
            break;
        default:
            statement(r);
        }
        if (sqlite3_get_autocommit(r->a.db)) {
            return false;
        }
    }
    return true;
}

static void check(run *r, int64_t before, const char *how) {
    char about[128];
    int64_t after = sql_int(r->a.db, "SELECT coalesce(max(lsn), 0) FROM godwit_log");
    int64_t groups = sql_int(r->a.db, "SELECT count(*) FROM godwit_group");
    if (after - before >= 2) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM godwit_group WHERE first = %lld AND last = %lld",
                 (long long)before + 1, (long long)after);
        assert_int_equal(sql_int(r->a.db, sql), 1);
        r->groups++;
    }
    assert_int_equal(groups, r->groups);
    r->replayed = app_replay(&r->a, r->replayed);
    assert_int_equal(r->replayed, after);
    snprintf(about, sizeof about, "after %d statements (%s)", r->statements, how);
    app_compare(&r->a, about);
    assert_int_equal(sql_int(r->a.db, "SELECT count(*) FROM godwit_log WHERE op = 2 AND mask = 0"),
                     0);
}

static void transaction(run *r) {
    int64_t before = sql_int(r->a.db, "SELECT coalesce(max(lsn), 0) FROM godwit_log");
    if (pick(r, 20) == 0) {
        sql_run(r->a.db,
                pick(r, 2) ? "PRAGMA recursive_triggers = ON" : "PRAGMA recursive_triggers = OFF");
    }
    if (pick(r, 4) == 0) {
        statement(r);
        check(r, before, "autocommit");
        return;
    }
    sql_run(r->a.db, "BEGIN");
    if (!body(r)) {
        r->rollbacks++;
        check(r, before, "rolled back by a statement");
    } else if (pick(r, 5) == 0) {
        sql_run(r->a.db, "ROLLBACK");
        r->rollbacks++;
        check(r, before, "rollback");
    } else {
        sql_run(r->a.db, "COMMIT");
        r->commits++;
        check(r, before, "commit");
    }
}

static void run_seed(uint64_t seed, int transactions) {
    static const char *const tables[] = {"pins", "pair", "forms", "odd \"name'"};
    static run r;
    memset(&r, 0, sizeof r);
    r.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    app_init(&r.a, false);
    sql_run(r.a.db, "PRAGMA foreign_keys = ON");
    sql_run(r.a.db, SCHEMA);
    for (size_t i = 0; i < COUNT_OF(tables); i++) {
        APP_OK(&r.a, godwit_track(r.a.g, tables[i], "{\"ids\":\"app\"}"));
        app_copy(&r.a, client_table_by_number(r.a.g, (int64_t)i + 1));
    }
    for (int i = 0; i < transactions; i++) {
        transaction(&r);
    }
    assert_true(r.groups > transactions / 10 && r.failures > 0 && r.rollbacks > 0);
    assert_true(sql_int(r.a.db, "SELECT count(*) FROM godwit_log WHERE op = 5") > 0);
    app_deinit(&r.a);
}

static void the_log_gives_the_tables_and_groups_are_transactions(void **state) {
    (void)state;
    const char *seed = getenv("GODWIT_SEED");
    if (seed) {
        run_seed(strtoull(seed, NULL, 10), 3000);
        return;
    }
    for (uint64_t s = 1; s <= 6; s++) {
        run_seed(s, 800);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_gives_the_tables_and_groups_are_transactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
