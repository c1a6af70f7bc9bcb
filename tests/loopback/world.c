/* See world.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "loopback/world.h"


#define SCHEMA     "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"
#define ROUNDS_MAX 12

static int same_place(void *context, const char *path, uint8_t out[16]) {
    (void)context;
    (void)path;
    memset(out, 7, 16);
    return 0;
}

void path_of(const world *w, const char *name, int i, char out[400]) {
    snprintf(out, 400, "%s-%s%d.db", w->l.folder, name, i);
}

godwit *open_device(world *w, int i) {
    char path[400];
    path_of(w, "device", i, path);
    godwit_options options = {.host = loopback_host(&w->l)};
    options.host.place = w->placed ? NULL : same_place;
    must(NULL, godwit_open(path, &options, &w->devices[i]), "open");
    return w->devices[i];
}

void close_device(world *w, int i) {
    godwit_close(w->devices[i]);
    w->devices[i] = NULL;
}

godwit *new_device(world *w, int i) {
    char token[200];
    godwit *g = open_device(w, i);
    godwit_settings settings = {
        .url = "http://127.0.0.1:1", .scope = "s", .token = loopback_token("ana", token)};
    run(g, SCHEMA);
    must(g, godwit_init(g, &settings), "init");
    must(g, godwit_track(g, "pins", NULL), "track");
    return g;
}

void save_device(world *w, int i, int slot) {
    char from[400], to[400];
    path_of(w, "device", i, from);
    path_of(w, "saved", slot, to);
    close_device(w, i);
    loopback_copy(from, to);
    (void)open_device(w, i);
}

void load_device(world *w, int i, int slot) {
    char from[400], to[400];
    path_of(w, "saved", slot, from);
    path_of(w, "device", i, to);
    if (w->devices[i]) {
        close_device(w, i);
    }
    loopback_copy(from, to);
    (void)open_device(w, i);
}

void world_open(world *w) {
    memset(w, 0, sizeof *w);
    loopback_open(&w->l, SCHEMA);
}

void world_close(world *w) {
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

void insert(world *w, int i) {
    char sql[160];
    snprintf(sql, sizeof sql, "INSERT INTO pins(id, title, n) VALUES ('p%d', 'by %d', 0)", w->made,
             i);
    w->made++;
    run(w->devices[i], sql);
}

void settle(world *w, int i) {
    must(w->devices[i], godwit_sync(w->devices[i], 0, NULL), "sync");
}

void settle_all(world *w) {
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

void attach_store(world *w, godwit *g, const char *mode) {
    char sql[400];
    snprintf(sql, sizeof sql, "ATTACH 'file:%s/store.db?mode=%s' AS store", w->l.folder, mode);
    run(g, sql);
}

void check_all(world *w) {
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
        attach_store(w, g, "ro");
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

int64_t identities(world *w) {
    return loopback_int(&w->l, "SELECT count(DISTINCT device_id) FROM godwit_commit");
}
