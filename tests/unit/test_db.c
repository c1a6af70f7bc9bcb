/* The thin helper over SQLite where something is missing: memory, or pages that can't be read. */
#include "unit.h"

#include "db/db.h"

static db open_memory(void) {
    db d;
    assert_int_equal(db_open(&d, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, 0),
                     GODWIT_OK);
    return d;
}

/* No allocation of SQLite succeeds unless something is given back first. */
static void take_all_memory(void) {
    (void)sqlite3_hard_heap_limit64(sqlite3_memory_used());
}

static void give_memory_back(void) {
    (void)sqlite3_hard_heap_limit64(0);
}

static void a_transaction_is_undone_without_memory(void **state) {
    (void)state;
    db d = open_memory();
    int64_t n = 0;
    assert_int_equal(db_exec(&d, "CREATE TABLE t(a)"), GODWIT_OK);
    for (int with_schema = 0; with_schema < 2; with_schema++) {
        assert_int_equal(db_int(&d, &n, "SELECT count(*) FROM t", ""), GODWIT_OK); /* is kept */
        assert_int_equal(db_begin(&d), GODWIT_OK);
        assert_int_equal(db_begin(&d), GODWIT_OK);
        assert_int_equal(db_exec(&d, "INSERT INTO t VALUES (1)"), GODWIT_OK);
        if (with_schema) { /* after this every statement is prepared anew */
            assert_int_equal(db_exec(&d, "CREATE TABLE u(a)"), GODWIT_OK);
        }
        take_all_memory();
        db_rollback(&d);
        db_rollback(&d);
        give_memory_back();
        assert_true(sqlite3_get_autocommit(d.handle));
        assert_int_equal(db_int(&d, &n, "SELECT count(*) FROM t", ""), GODWIT_OK);
        assert_int_equal(n, 0);
    }
    db_close(&d);
}

static void without_memory_no_transaction_begins(void **state) {
    (void)state;
    db d = open_memory();
    take_all_memory();
    assert_int_equal(db_begin(&d), GODWIT_NOMEM);
    give_memory_back();
    assert_int_equal(d.depth, 0);
    assert_true(sqlite3_get_autocommit(d.handle));
    assert_int_equal(db_begin(&d), GODWIT_OK);
    db_rollback(&d);
    db_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_is_undone_without_memory),
        cmocka_unit_test(without_memory_no_transaction_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
