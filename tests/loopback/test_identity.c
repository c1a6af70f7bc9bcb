/* Cloned and restored devices, changing accounts, revoked and retired devices: no acknowledged
 * operation is lost, none has effect twice (invariants I2, I4, I5, I24). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "../seeds.h"
#include "loopback/world.h"
#include "server/store.h"

/* ---- clones ---- */

static void clone(bool placed) {
    world w;
    world_open(&w);
    w.placed = placed;
    new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    insert(&w, 0); /* waits in both */
    save_device(&w, 0, 0);
    load_device(&w, 1, 0);
    insert(&w, 0);
    insert(&w, 1);
    insert(&w, 1);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    assert_int_equal(identities(&w), 2);
    int64_t rekeys = number(w.devices[0], "SELECT rekeys FROM godwit_metrics") +
                     number(w.devices[1], "SELECT rekeys FROM godwit_metrics");
    assert_int_equal(rekeys, 1);
    world_close(&w);
}

static void test_a_copied_database(void **state) {
    (void)state;
    clone(false);
    clone(true);
}

static void test_both_copies_stay_online(void **state) {
    (void)state;
    world w;
    world_open(&w);
    new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    save_device(&w, 0, 0);
    load_device(&w, 1, 0);
    for (int i = 0; i < 10; i++) {
        insert(&w, i % 2);
        insert(&w, 1 - i % 2);
        settle(&w, i % 2);
        settle(&w, 1 - i % 2);
    }
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    assert_int_equal(identities(&w), 2);
    world_close(&w);
}

/* The copy of a copy, whose operations were given a new identity twice. */
static void test_rekeyed_twice(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    insert(&w, 0);
    insert(&w, 0);
    save_device(&w, 0, 0);
    load_device(&w, 1, 0);
    load_device(&w, 2, 0);
    insert(&w, 0);
    settle(&w, 0);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 1);
    settle(&w, 1); /* under an identity of its own */
    save_device(&w, 1, 1);
    load_device(&w, 3, 1);
    insert(&w, 1);
    settle(&w, 1);
    insert(&w, 3);
    settle(&w, 3);
    loopback_put_back(&w.l, saved); /* what device 1 and 3 sent is lost */
    insert(&w, 2);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

static void test_two_databases_change_places(void **state) {
    (void)state;
    for (int placed = 0; placed < 2; placed++) {
        world w;
        world_open(&w);
        w.placed = placed;
        for (int i = 0; i < 2; i++) {
            new_device(&w, i);
            insert(&w, i);
            settle(&w, i);
            insert(&w, i);
        }
        save_device(&w, 0, 0);
        save_device(&w, 1, 1);
        load_device(&w, 0, 1);
        load_device(&w, 1, 0);
        insert(&w, 0);
        insert(&w, 1);
        settle_all(&w);
        check_all(&w);
        assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
        world_close(&w);
    }
}

/* ---- backups ---- */

static void test_an_old_copy_of_a_device(void **state) {
    (void)state;
    world w;
    world_open(&w);
    new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    insert(&w, 0);
    save_device(&w, 0, 0);
    insert(&w, 0);
    settle(&w, 0); /* both are on the server; the copy knows one of them, and as waiting */
    load_device(&w, 0, 0);
    insert(&w, 0);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(number(w.devices[0], "SELECT count(*) FROM pins"), w.made);
    world_close(&w);
}

/* ---- accounts ---- */

static void sign_in(godwit *g, const char *user) {
    char token[200];
    godwit_settings settings = {.token = loopback_token(user, token)};
    must(g, godwit_init(g, &settings), "init");
}

static void test_accounts_take_turns(void **state) {
    (void)state;
    world w;
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    insert(&w, 0); /* ana's, never sent before ben takes over */
    sign_in(g, "ben");
    insert(&w, 0);
    settle(&w, 0);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_op WHERE state = 'parked'"), 1);
    assert_int_equal(number(g, "SELECT count(*) FROM pins"), 3); /* her row stays as she left it */
    sign_in(g, "ana");
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 3);
    assert_int_equal(
        loopback_int(&w.l, "SELECT count(*) FROM godwit_commit c JOIN godwit_name n ON n.no ="
                           " c.user_id WHERE n.name = 'ben'"),
        1);
    assert_int_equal(
        loopback_int(&w.l, "SELECT count(*) FROM godwit_commit c JOIN godwit_name n ON n.no ="
                           " c.user_id WHERE n.name = 'ana'"),
        2);
    sign_in(g, "ben");
    insert(&w, 0);
    settle_all(&w);
    assert_int_equal(identities(&w), 2); /* each went on under his own */
    world_close(&w);
}

/* ---- operators ---- */

static void set_state(world *w, godwit *g, device_state state) {
    char message[512] = "";
    store *st = NULL;
    int64_t changed = 0;
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(godwit_connection(g),
                                        "SELECT device_id FROM godwit_identity WHERE current = 1",
                                        -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    slice id = slice_of((const char *)sqlite3_column_text(stmt, 0));
    assert_int_equal(store_open(w->l.folder, &st, message), GODWIT_OK);
    assert_int_equal(store_begin(st), GODWIT_OK);
    assert_int_equal(store_device_mark(st, SLICE(""), id, state, &changed), GODWIT_OK);
    assert_int_equal(changed, 1);
    assert_int_equal(store_device_mark(st, SLICE(""), SLICE("nobody"), state, &changed),
                     GODWIT_NOT_FOUND);
    assert_int_equal(store_commit(st), GODWIT_OK);
    store_close(st);
    sqlite3_finalize(stmt);
}

static void test_a_retired_device_comes_back(void **state) {
    (void)state;
    world w;
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    set_state(&w, g, DEVICE_RETIRED);
    insert(&w, 0);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    assert_int_equal(identities(&w), 2);
    world_close(&w);
}

static void test_a_revoked_device_stays_out(void **state) {
    (void)state;
    world w;
    world_open(&w);
    godwit *g = new_device(&w, 0);
    insert(&w, 0);
    settle(&w, 0);
    set_state(&w, g, DEVICE_REVOKED);
    insert(&w, 0);
    assert_int_equal(godwit_sync(g, 0, NULL), GODWIT_FORBIDDEN);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 1);
    assert_int_equal(number(g, "SELECT count(*) FROM sync_queue WHERE state = 'pending'"), 1);
    set_state(&w, g, DEVICE_ACTIVE);
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    world_close(&w);
}

/* ---- everything at once ---- */

static uint32_t next(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static bool some_answers(loopback *l, const char *path) {
    (void)path;
    return l->exchanges % 5 == 3;
}

static void one_step(world *w, uint32_t *seed, bool *saved, bool *backed_up) {
    char sql[160], file[400];
    int i = (int)(next(seed) % DEVICES);
    while (!w->devices[i]) {
        i = (i + 1) % DEVICES;
    }
    uint32_t x = next(seed) % 100;
    path_of(w, "saved", 7, file);
    if (x < 30) {
        insert(w, i);
    } else if (x < 50 && w->made) {
        snprintf(sql, sizeof sql, "UPDATE pins SET %s = '%u' WHERE id = 'p%u'",
                 x % 2 ? "title" : "note", next(seed), next(seed) % (uint32_t)w->made);
        run(w->devices[i], sql);
    } else if (x < 54 && w->made) {
        snprintf(sql, sizeof sql, "DELETE FROM pins WHERE id = 'p%u'",
                 next(seed) % (uint32_t)w->made);
        run(w->devices[i], sql);
    } else if (x < 84) {
        godwit_status status = godwit_sync(w->devices[i], 0, NULL);
        if (status != GODWIT_OK && status != GODWIT_UNREACHABLE) {
            must(w->devices[i], status, "sync");
        }
    } else if (x < 88) {
        save_device(w, i, i % 3);
        saved[i % 3] = true;
    } else if (x < 93 && saved[x % 3]) {
        load_device(w, (int)(next(seed) % 6), (int)(x % 3));
    } else if (x < 96) {
        loopback_save(&w->l, file);
        *backed_up = true;
    } else if (x < 98 && *backed_up) {
        loopback_put_back(&w->l, file);
    }
}

static void run_seed(uint64_t number) {
    world w;
    uint32_t seed = (uint32_t)number;
    bool saved[3] = {false}, backed_up = false;
    world_open(&w);
    w.placed = number % 3 == 0;
    for (int i = 0; i < 3; i++) {
        new_device(&w, i);
    }
    w.l.lose_answer = some_answers;
    for (int i = 0; i < 90; i++) {
        one_step(&w, &seed, saved, &backed_up);
    }
    w.l.lose_answer = NULL;
    print_message("seed %u\n", (unsigned)number);
    settle_all(&w);
    check_all(&w);
    world_close(&w);
}

static void test_random_histories(void **state) {
    (void)state;
    seeds_run(run_seed, 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copied_database),
        cmocka_unit_test(test_both_copies_stay_online),
        cmocka_unit_test(test_rekeyed_twice),
        cmocka_unit_test(test_two_databases_change_places),
        cmocka_unit_test(test_an_old_copy_of_a_device),
        cmocka_unit_test(test_accounts_take_turns),
        cmocka_unit_test(test_a_retired_device_comes_back),
        cmocka_unit_test(test_a_revoked_device_stays_out),
        cmocka_unit_test(test_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
