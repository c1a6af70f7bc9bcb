/* Cloned and restored devices, a restored server, changing accounts, revoked and retired devices:
 * no acknowledged operation is lost, none has effect twice (invariants I2, I4, I5, I24). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "../seeds.h"
#include "loopback/kit.h"
#include "loopback/loopback.h"
#include "server/store.h"

#define SCHEMA     "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"
#define DEVICES    8
#define ROUNDS_MAX 12

typedef struct {
    loopback l;
    godwit *devices[DEVICES];
    bool placed; /* the database's place is told truly; else a copy can't see that it is one */
    int made;    /* rows */
} world;

static int same_place(void *context, const char *path, uint8_t out[16]) {
    (void)context;
    (void)path;
    memset(out, 7, 16);
    return 0;
}

static void path_of(const world *w, const char *name, int i, char out[400]) {
    snprintf(out, 400, "%s-%s%d.db", w->l.folder, name, i);
}

static godwit *open_device(world *w, int i) {
    char path[400];
    path_of(w, "device", i, path);
    godwit_options options = {.host = loopback_host(&w->l)};
    options.host.place = w->placed ? NULL : same_place;
    must(NULL, godwit_open(path, &options, &w->devices[i]), "open");
    return w->devices[i];
}

static void close_device(world *w, int i) {
    godwit_close(w->devices[i]);
    w->devices[i] = NULL;
}

static godwit *new_device(world *w, int i) {
    char token[200];
    godwit *g = open_device(w, i);
    godwit_settings settings = {
        .url = "http://127.0.0.1:1", .scope = "s", .token = loopback_token("ana", token)};
    run(g, SCHEMA);
    must(g, godwit_init(g, &settings), "init");
    must(g, godwit_track(g, "pins", NULL), "track");
    return g;
}

static void sign_in(godwit *g, const char *user) {
    char token[200];
    godwit_settings settings = {.token = loopback_token(user, token)};
    must(g, godwit_init(g, &settings), "init");
}

/* The database of a device as it is, into a file, and such a file into the place of a device. */
static void save_device(world *w, int i, int slot) {
    char from[400], to[400];
    path_of(w, "device", i, from);
    path_of(w, "saved", slot, to);
    close_device(w, i);
    loopback_copy(from, to);
    (void)open_device(w, i);
}

static void load_device(world *w, int i, int slot) {
    char from[400], to[400];
    path_of(w, "saved", slot, from);
    path_of(w, "device", i, to);
    if (w->devices[i]) {
        close_device(w, i);
    }
    loopback_copy(from, to);
    (void)open_device(w, i);
}

static void world_open(world *w) {
    memset(w, 0, sizeof *w);
    loopback_open(&w->l, SCHEMA);
}

static void world_close(world *w) {
    static const char *const names[] = {"device", "saved"};
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[400], file[420];
    for (int i = 0; i < DEVICES; i++) {
        close_device(w, i);
        for (size_t n = 0; n < 6; n++) {
            path_of(w, names[n / 3], i, path);
            snprintf(file, sizeof file, "%s%s", path, suffixes[n % 3]);
            (void)unlink(file);
        }
    }
    loopback_close(&w->l);
}

static void insert(world *w, int i) {
    char sql[160];
    snprintf(sql, sizeof sql, "INSERT INTO pins(id, title, n) VALUES ('p%d', 'by %d', 0)", w->made,
             i);
    w->made++;
    run(w->devices[i], sql);
}

static void settle(world *w, int i) {
    must(w->devices[i], godwit_sync(w->devices[i], 0, NULL), "sync");
}

/* Everybody syncs until nobody has anything waiting, and still not after everybody has once more:
 * what came last may be what an edit was waiting for. */
static void settle_all(world *w) {
    int64_t waiting = 1, before = 1;
    for (int round = 0; round < ROUNDS_MAX && waiting + before > 0; round++) {
        before = waiting;
        waiting = 0;
        for (int i = 0; i < DEVICES; i++) {
            if (w->devices[i]) {
                settle(w, i);
                waiting += number(w->devices[i], "SELECT count(*) FROM sync_queue WHERE state IN"
                                                 " ('pending', 'acked', 'captured')");
            }
        }
    }
    assert_int_equal(waiting + before, 0);
}

static void attach_store(world *w, godwit *g) {
    char sql[400];
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/store.db?mode=ro' AS store", w->l.folder);
    run(g, sql);
}

/* What must hold when everything is settled. */
static void check_all(world *w) {
    assert_int_equal(
        loopback_int(&w->l,
                     "SELECT count(*) FROM (SELECT 1 FROM godwit_op o JOIN godwit_commit c ON"
                     " c.scope = o.scope AND c.commit_seq = o.commit_seq WHERE c.outcome <>"
                     " 'duplicate' GROUP BY o.op_key HAVING count(*) > 1)"),
        0);
    for (int i = 0; i < DEVICES; i++) {
        godwit *g = w->devices[i];
        if (!g) {
            continue;
        }
        attach_store(w, g);
        assert_int_equal(number(g,
                                "SELECT count(*) FROM (SELECT id, title, note, n FROM pins EXCEPT"
                                " SELECT id, title, note, n FROM store.pins)"),
                         0);
        assert_int_equal(number(g, "SELECT count(*) FROM (SELECT id, title, note, n FROM store.pins"
                                   " EXCEPT SELECT id, title, note, n FROM pins)"),
                         0);
        /* every operation the device holds for done is in the ledger as it believes */
        assert_int_equal(number(g,
                                "SELECT count(*) FROM godwit_op AS o WHERE state = 'retired' AND"
                                " NOT EXISTS (SELECT 1 FROM store.godwit_op AS s WHERE s.op_key ="
                                " o.idempotency_key AND s.outcome = o.outcome)"),
                         0);
        run(g, "DETACH store");
        assert_int_equal(number(g, "SELECT count(*) FROM godwit_base"), 0);
    }
}

static int64_t identities(world *w) {
    return loopback_int(&w->l, "SELECT count(DISTINCT device_id) FROM godwit_commit");
}

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

static void test_an_old_copy_of_the_server(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    for (int i = 0; i < 3; i++) {
        new_device(&w, i);
        insert(&w, i);
    }
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    run(w.devices[0], "UPDATE pins SET title = 'seen by nobody else' WHERE id = 'p0'");
    settle(&w, 0);
    insert(&w, 1);
    settle(&w, 1);
    assert_int_equal(number(w.devices[0], "SELECT count(*) FROM godwit_op WHERE state ="
                                          " 'retired'"),
                     3);
    loopback_put_back(&w.l, saved);
    insert(&w, 2);
    run(w.devices[2], "UPDATE pins SET note = 'after the restore' WHERE id = 'p0'");
    settle(&w, 2); /* the numbers of the lost commits are used again */
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), w.made);
    assert_int_equal(loopback_int(&w.l, "SELECT title = 'seen by nobody else' AND note = 'after the"
                                        " restore' FROM pins WHERE id = 'p0'"),
                     1);
    assert_int_equal(identities(&w), 3); /* nobody else used an identity: they go on */
    world_close(&w);
}

/* The backup is older than what a device keeps: what it still has comes back, without a hole in its
 * stream, and a group of which a part is left stays behind. */
static void test_a_backup_older_than_the_archive(void **state) {
    (void)state;
    world w;
    char saved[400], token[200];
    world_open(&w);
    godwit *g = new_device(&w, 0);
    godwit_settings settings = {
        .url = "http://127.0.0.1:1", .token = loopback_token("ana", token), .keep_archive = "0s"};
    insert(&w, 0);
    settle(&w, 0);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    insert(&w, 0);
    settle(&w, 0);
    run(g, "BEGIN; INSERT INTO pins(id) VALUES ('g1'), ('g2'); COMMIT");
    must(g, godwit_init(g, &settings), "init");
    settle(&w, 0);
    settle(&w, 0); /* forgets all but the newest */
    assert_int_equal(number(g, "SELECT count(*) FROM godwit_op"), 1);
    insert(&w, 0); /* waits */
    loopback_put_back(&w.l, saved);
    settle_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 2);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins WHERE id IN ('p0', 'p2')"), 2);
    assert_int_equal(number(g, "SELECT count(*) FROM pins"), 2);
    world_close(&w);
}

/* A device that only waits for its answer's feed: no operation, no cursor beyond the backup. */
static void test_a_silent_device_notices(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    run(w.devices[0], "DELETE FROM pins WHERE id = 'p0'");
    settle(&w, 0);
    loopback_put_back(&w.l, saved);
    settle_all(&w);
    check_all(&w);
    assert_int_equal(loopback_int(&w.l, "SELECT count(*) FROM pins"), 0);
    world_close(&w);
}

/* A base in lost history proves nothing: what was written meanwhile is concurrent, not overwritten.
 */
static void test_a_lost_base_is_no_proof(void **state) {
    (void)state;
    world w;
    char saved[400];
    world_open(&w);
    new_device(&w, 0);
    new_device(&w, 1);
    insert(&w, 0);
    settle_all(&w);
    path_of(&w, "saved", 7, saved);
    loopback_save(&w.l, saved);
    run(w.devices[0], "UPDATE pins SET title = 'lost'");
    settle(&w, 0);
    settle(&w, 0);
    run(w.devices[0], "UPDATE pins SET title = 'over the lost one'"); /* based on the lost commit */
    loopback_put_back(&w.l, saved);
    run(w.devices[1], "UPDATE pins SET title = 'never seen by 0'");
    settle(&w, 1);
    settle_all(&w);
    check_all(&w);
    assert_true(loopback_int(&w.l, "SELECT count(*) FROM godwit_conflict WHERE theirs LIKE '%never"
                                   " seen by 0%' OR ours LIKE '%never seen by 0%'") > 0);
    world_close(&w);
}

/* ---- accounts ---- */

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
        cmocka_unit_test(test_an_old_copy_of_the_server),
        cmocka_unit_test(test_a_backup_older_than_the_archive),
        cmocka_unit_test(test_a_silent_device_notices),
        cmocka_unit_test(test_a_lost_base_is_no_proof),
        cmocka_unit_test(test_accounts_take_turns),
        cmocka_unit_test(test_a_retired_device_comes_back),
        cmocka_unit_test(test_a_revoked_device_stays_out),
        cmocka_unit_test(test_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
