/* Client library and server in one process: the whole path of an operation under one sanitizer, and
 * handles on several threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback/kit.h"
#include "loopback/loopback.h"

#define SCHEMA                                                                                     \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"                    \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE, "  \
    "body TEXT);"

static void path_of(const loopback *l, const char *name, char out[400]) {
    snprintf(out, 400, "%s-%s.db", l->folder, name);
}

static godwit *client_open(loopback *l, const char *name) {
    char path[400];
    godwit *g = NULL;
    path_of(l, name, path);
    godwit_options options = {.host = loopback_host(l)};
    must(NULL, godwit_open(path, &options, &g), "open");
    return g;
}

static godwit *device(loopback *l, const char *name) {
    godwit *g = client_open(l, name);
    godwit_settings settings = {.url = "http://127.0.0.1:1", .scope = "s", .token = "t"};
    run(g, SCHEMA);
    must(g, godwit_init(g, &settings), "init");
    must(g, godwit_track(g, "pins", NULL), "track");
    must(g, godwit_track(g, "forms", NULL), "track");
    return g;
}

static void device_close(loopback *l, godwit *g, const char *name) {
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[400], file[420];
    godwit_close(g);
    path_of(l, name, path);
    for (size_t i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s%s", path, suffixes[i]);
        (void)unlink(file);
    }
}

static void settle(godwit *g) {
    must(g, godwit_sync(g, 0, NULL), "sync");
}

static void test_two_devices_merge(void **state) {
    (void)state;
    loopback l;
    loopback_open(&l, SCHEMA);
    godwit *a = device(&l, "a"), *b = device(&l, "b");
    run(a, "BEGIN; INSERT INTO pins VALUES ('p', 't', 'n', 1); INSERT INTO forms VALUES ('f', 'p', "
           "'x'); COMMIT");
    settle(a);
    settle(b);
    assert_int_equal(number(b, "SELECT count(*) FROM forms"), 1);
    run(a, "UPDATE pins SET title = 'by a'");
    run(b, "UPDATE pins SET note = 'by b'");
    settle(a);
    settle(b);
    settle(a);
    assert_int_equal(number(a, "SELECT title = 'by a' AND note = 'by b' FROM pins"), 1);
    assert_int_equal(number(b, "SELECT title = 'by a' AND note = 'by b' FROM pins"), 1);
    run(a, "PRAGMA foreign_keys = ON");
    run(a, "DELETE FROM pins");
    settle(a);
    settle(b);
    assert_int_equal(number(b, "SELECT (SELECT count(*) FROM pins) + (SELECT count(*) FROM forms)"),
                     0);
    assert_int_equal(loopback_int(&l, "SELECT count(*) FROM pins"), 0);
    device_close(&l, a, "a");
    device_close(&l, b, "b");
    loopback_close(&l);
}

static bool every_other(loopback *l, const char *path) {
    (void)path;
    return l->exchanges % 2 == 1;
}

static void test_lost_answers_double_nothing(void **state) {
    (void)state;
    loopback l;
    loopback_open(&l, SCHEMA);
    godwit *a = device(&l, "a");
    l.lose_answer = every_other;
    for (int i = 0; i < 20; i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "INSERT INTO pins(id, n) VALUES ('p%d', %d)", i, i);
        run(a, sql);
        godwit_status status = godwit_sync(a, 0, NULL); /* most of them fail, on purpose */
        assert_true(status == GODWIT_OK || status == GODWIT_UNREACHABLE);
    }
    assert_true(l.lost > 5);
    l.lose_answer = NULL;
    loopback_restart(&l);
    settle(a);
    assert_int_equal(loopback_int(&l, "SELECT count(*) FROM pins"), 20);
    assert_int_equal(loopback_int(&l, "SELECT count(*) FROM godwit_op"), 20);
    assert_int_equal(
        loopback_int(&l, "SELECT count(DISTINCT lineage || ':' || lsn) FROM godwit_op"), 20);
    assert_int_equal(number(a, "SELECT count(*) FROM sync_queue WHERE status = 'pending'"), 0);
    device_close(&l, a, "a");
    loopback_close(&l);
}

/* ---- threads ---- */

typedef struct {
    loopback *l;
    char name[16];
    int writes;
    bool only_sync;
    int failures;
} worker;

static void *work(void *argument) {
    worker *w = argument;
    godwit *g = NULL;
    char path[400], sql[128];
    path_of(w->l, w->only_sync ? "a" : w->name, path);
    godwit_options options = {.host = loopback_host(w->l)};
    if (godwit_open(path, &options, &g) != GODWIT_OK) {
        w->failures++;
        return NULL;
    }
    for (int i = 0; i < w->writes; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO pins(id, n) VALUES ('%s-%d', %d)", w->name, i, i);
        if (!w->only_sync &&
            sqlite3_exec(godwit_connection(g), sql, NULL, NULL, NULL) != SQLITE_OK) {
            w->failures++;
        }
        if (i % 5 == 4) {
            godwit_status status = godwit_sync(g, 0, NULL);
            w->failures +=
                status != GODWIT_OK && status != GODWIT_BUSY; /* another handle is syncing */
        }
    }
    godwit_close(g);
    return NULL;
}

static void test_devices_on_threads(void **state) {
    (void)state;
    enum { DEVICES = 3, EXTRA = 2 };
    loopback l;
    loopback_open(&l, SCHEMA);
    worker workers[DEVICES + EXTRA];
    pthread_t threads[DEVICES + EXTRA];
    godwit *handles[DEVICES];
    for (int i = 0; i < DEVICES + EXTRA; i++) {
        /* the extra ones only sync, on other handles of device a */
        workers[i] = (worker){.l = &l, .writes = 30, .only_sync = i >= DEVICES};
        snprintf(workers[i].name, sizeof workers[i].name, "%c", 'a' + i);
        if (i < DEVICES) {
            handles[i] = device(&l, workers[i].name);
        }
    }
    for (int i = 0; i < DEVICES + EXTRA; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < DEVICES + EXTRA; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].failures, 0);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < DEVICES; i++) {
            settle(handles[i]);
        }
    }
    for (int i = 0; i < DEVICES; i++) {
        assert_int_equal(number(handles[i], "SELECT count(*) FROM pins"), 30 * DEVICES);
    }
    assert_int_equal(loopback_int(&l, "SELECT count(*) FROM godwit_op"), 30 * DEVICES);
    for (int i = 0; i < DEVICES; i++) {
        device_close(&l, handles[i], workers[i].name);
    }
    loopback_close(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_devices_merge),
        cmocka_unit_test(test_lost_answers_double_nothing),
        cmocka_unit_test(test_devices_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
