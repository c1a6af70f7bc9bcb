/* The disk that loses power: what a sync covers stays, what it does not may go, and a SQLite
 * database on it survives cuts at every write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "db/sqlite.h"
#include "server/service.h"
#include "sim/disk.h"
#include "sim/random.h"

static uint64_t numbers(void *context) {
    return sim_random_next(context);
}

static int64_t wall(void *context) {
    (void)context;
    return INT64_C(1767323040000);
}

static void pass(void *context, int64_t us) {
    (void)context;
    (void)us;
}

typedef struct {
    sim_random random;
    disk_host host;
    disk disk;
} bench;

static void bench_open(bench *b, const char *prefix, uint64_t seed) {
    b->random.state = seed;
    b->host = (disk_host){.wall_ms = wall, .sleep = pass, .random = numbers, .context = &b->random};
    disk_vfs_install(&b->host);
    disk_init(&b->disk, prefix, numbers, &b->random);
    disk_attach(&b->disk);
}

static void bench_close(bench *b) {
    disk_detach(&b->disk);
    disk_deinit(&b->disk);
    disk_vfs_remove();
}

static int64_t number(sqlite3 *db, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void test_only_what_is_synced_is_certain(void **state) {
    (void)state;
    bench b;
    int kept = 0, lost = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        bench_open(&b, "/x/", seed);
        disk_name *e = disk_find(&b.disk, "f", true);
        e->now = disk_node_new();
        disk_write(e->now, "safe", 4, 0);
        disk_sync(e->now);
        disk_sync_names(&b.disk);
        disk_write(e->now, "risk", 4, DISK_SECTOR * 3);
        disk_halt(&b.disk);
        disk_restart(&b.disk, DISK_POWER_LOSS);
        e = disk_find(&b.disk, "f", false);
        assert_memory_equal(e->now->now.bytes, "safe", 4);
        bool there = e->now->now.size >= DISK_SECTOR * 3 + 4 &&
                     memcmp(e->now->now.bytes + DISK_SECTOR * 3, "risk", 4) == 0;
        kept += there;
        lost += !there;
        bench_close(&b);
    }
    assert_true(kept > 0 && lost > 0);
}

static void test_names_need_a_sync_of_the_directory(void **state) {
    (void)state;
    bench b;
    int gone = 0, there = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        bench_open(&b, "/x/", seed);
        disk_name *e = disk_find(&b.disk, "f", true);
        e->now = disk_node_new();
        disk_write(e->now, "a", 1, 0);
        disk_sync(e->now);
        disk_halt(&b.disk);
        disk_restart(&b.disk, DISK_POWER_LOSS);
        gone += !disk_has(&b.disk, "f");
        there += disk_has(&b.disk, "f");
        bench_close(&b);
    }
    assert_true(gone > 0 && there > 0);
}

/* Cuts the power at the n-th change of the disk, for all n: committed rows are there. */
static int64_t cut_at(const char *journal, int64_t n, uint64_t seed) {
    bench b;
    sqlite3 *db = NULL;
    char sql[128];
    int64_t done = 0;
    bench_open(&b, "/x/", seed);
    b.disk.garbles = seed % 2;
    assert_int_equal(sqlite3_open("/x/a.db", &db), SQLITE_OK);
    (void)snprintf(sql, sizeof sql,
                   "PRAGMA journal_mode = %s; PRAGMA synchronous = EXTRA;"
                   "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)",
                   journal);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    b.disk.crash_in = n;
    for (int i = 0; i < 12; i++) {
        bool ok = sqlite3_exec(db, "INSERT INTO t(b) VALUES (hex(randomblob(700)))", NULL, NULL,
                               NULL) == SQLITE_OK;
        done += ok;
    }
    bool cut = b.disk.halted;
    sqlite3_close(db);
    if (cut) {
        disk_restart(&b.disk, DISK_POWER_LOSS);
        assert_int_equal(sqlite3_open("/x/a.db", &db), SQLITE_OK);
        int64_t rows = number(db, "SELECT count(*) FROM t");
        assert_true(rows == done || rows == done + 1);
        assert_int_equal(number(db, "SELECT count(*) FROM pragma_integrity_check"), 1);
        assert_int_equal(number(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                         1);
        sqlite3_close(db);
    }
    bench_close(&b);
    return cut;
}

static void test_committed_rows_survive_any_cut(void **state) {
    static const char *const journals[] = {"WAL", "DELETE", "TRUNCATE", "PERSIST"};
    (void)state;
    for (size_t j = 0; j < 4; j++) {
        int64_t n = 1;
        while (cut_at(journals[j], n, (uint64_t)n * 31 + j)) {
            n++;
        }
        assert_true(n > 12);
    }
}

/* A server that was killed between writing a commit and syncing it shows the commit when it is
 * back: from then on a power cut must not take it. */
static void test_what_a_server_shows_after_a_kill_stays(void **state) {
    (void)state;
    bench b;
    service *s = NULL;
    sqlite3 *db = NULL;
    char message[512];
    service_options options = {.store = "/tmp", .now_ms = wall};
    bench_open(&b, "/tmp/store.db", 7);
    assert_int_equal(service_open(&options, &s, message), GODWIT_OK);
    assert_int_equal(sqlite3_open("/tmp/store.db", &db), SQLITE_OK);
    /* written and not synced */
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA synchronous = OFF; CREATE TABLE mark(x)", NULL, NULL, NULL),
        SQLITE_OK);
    disk_halt(&b.disk);
    sqlite3_close(db);
    service_close(s);
    disk_restart(&b.disk, DISK_PROCESS_DIES);
    assert_int_equal(service_open(&options, &s, message), GODWIT_OK);
    disk_halt(&b.disk);
    service_close(s);
    for (disk_name *e = b.disk.names; e < b.disk.names + b.disk.name_count; e++) {
        for (size_t i = 0; e->now && i < e->now->dirty_cap; i++) {
            assert_false(e->now->dirty[i]);
        }
    }
    disk_restart(&b.disk, DISK_POWER_LOSS);
    assert_int_equal(sqlite3_open("/tmp/store.db", &db), SQLITE_OK);
    assert_int_equal(number(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'mark'"), 1);
    sqlite3_close(db);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_is_synced_is_certain),
        cmocka_unit_test(test_names_need_a_sync_of_the_directory),
        cmocka_unit_test(test_committed_rows_survive_any_cut),
        cmocka_unit_test(test_what_a_server_shows_after_a_kill_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
