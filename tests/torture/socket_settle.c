/* What must be true when the faults are over. See socket_world.h. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "torture/socket_world.h"

#define ROUNDS_MAX 6
#define PROBES     8
#define IDLE_MS    25
#define WAITS_MAX  20 /* of epoll_wait in that time, by all loops */

static const char *const contents[] = {
    "SELECT id || '/' || ifnull(title, '-') || '/' || ifnull(note, '-') || '/' || ifnull(n, '-')"
    " || ';' FROM pins ORDER BY id",
    "SELECT id || '/' || ifnull(pin_id, '-') || '/' || ifnull(body, '-') || '/' ||"
    " ifnull(slug, '-') || ';' FROM forms ORDER BY id",
};

static void expect(sqlite3 *db, const char *who, const char *sql, const char *wanted) {
    char out[512] = "";
    texts(db, sql, out, sizeof out);
    if (strcmp(out, wanted) != 0) {
        world_fail("%s: %s gives %s", who, sql, out);
    }
}

void world_acknowledged(world *w) {
    char sql[PATH_BYTES + 64];
    sqlite3 *store = world_store(w);
    for (int i = 0; i < DEVICES; i++) {
        if (!w->devices[i].g) {
            continue;
        }
        snprintf(sql, sizeof sql, "ATTACH '%.*s' AS app", PATH_BYTES, w->devices[i].path);
        if (sqlite3_exec(store, sql, NULL, NULL, NULL) != SQLITE_OK) {
            world_fail("%s: %s", sql, sqlite3_errmsg(store));
        }
        expect(
            store, "a device has more acknowledged than the server has",
            "SELECT count(*) FROM app.godwit_identity AS i WHERE acked_seq > ifnull((SELECT"
            " max(applied_seq) FROM main.godwit_device AS d WHERE d.device_id = i.device_id), 0)",
            "0");
        if (sqlite3_exec(store, "DETACH app", NULL, NULL, NULL) != SQLITE_OK) {
            world_fail("DETACH: %s", sqlite3_errmsg(store));
        }
    }
    sqlite3_close(store);
}

/* Every operation decided once, in order, under one key; the log has no hole. */
static void check_store(sqlite3 *db) {
    expect(db, "server", "PRAGMA integrity_check", "ok");
    expect(db, "server", "SELECT count(*) FROM forms WHERE pin_id NOT IN (SELECT id FROM pins)",
           "0");
    expect(db, "server",
           "SELECT count(*) FROM (SELECT 1 FROM godwit_op GROUP BY scope, lineage, lsn HAVING"
           " count(*) > 1)",
           "0");
    expect(db, "server",
           "SELECT count(*) FROM godwit_device AS d WHERE applied_seq <> (SELECT"
           " ifnull(max(seq), 0) FROM godwit_op AS o WHERE o.device_id = (SELECT no FROM"
           " godwit_name WHERE name = d.device_id)) OR applied_seq <> (SELECT count(*) FROM"
           " godwit_op AS o WHERE o.device_id = (SELECT no FROM godwit_name WHERE name ="
           " d.device_id))",
           "0");
    expect(db, "server",
           "SELECT count(*) FROM godwit_scope AS s WHERE head <> (SELECT max(commit_seq) FROM"
           " godwit_commit)",
           "0");
}

static bool quiet(device *d) {
    godwit_metrics m;
    must(d, godwit_get_metrics(d->g, &m), "metrics");
    return m.pending_operations == 0 && m.feed_lag == 0;
}

static void compare(world *w, sqlite3 *store, char digest[DIGEST_MAX]) {
    static char here[DIGEST_MAX];
    digest[0] = 0;
    for (size_t i = 0; i < COUNT_OF(contents); i++) {
        size_t used = strlen(digest);
        texts(store, contents[i], digest, DIGEST_MAX);
        for (int n = 0; n < DEVICES; n++) {
            here[0] = 0;
            if (w->devices[n].g) {
                texts(w->devices[n].db, contents[i], here, sizeof here);
                if (strcmp(here, digest + used) != 0) {
                    world_fail("device %d and the server differ\n  device %.900s\n  server %.900s",
                               n, here, digest + used);
                }
            }
        }
    }
    /* every operation was decided once, whether or not there is a row to show for it */
    texts(store,
          "SELECT (SELECT count(*) FROM godwit_op) || ' operations, ' || (SELECT count(*) FROM"
          " godwit_conflict WHERE state = 'open') || ' open conflicts'",
          digest, DIGEST_MAX);
}

/* Devices over new connections, which any of the loops may get. */
static void reconnect(world *w) {
    for (int i = 0; i < DEVICES; i++) {
        if (w->devices[i].g) {
            device_close(&w->devices[i]);
            device_open(&w->devices[i]);
        }
    }
    for (int i = 0; i < PROBES; i++) {
        int status = world_probe(w);
        if (status != 200) {
            world_fail("the daemon does not serve a new connection any more: %d", status);
        }
    }
}

static void check_idle(void) {
    const struct timespec moment = {0, IDLE_MS * 1000000L};
    int64_t before = sockets_waits();
    (void)nanosleep(&moment, NULL);
    int64_t waits = sockets_waits() - before;
    if (waits > WAITS_MAX) {
        world_fail("the idle daemon has asked for events %lld times in %d ms", (long long)waits,
                   IDLE_MS);
    }
}

void world_settle(world *w, char digest[DIGEST_MAX]) {
    bool done = false;
    reconnect(w);
    for (int round = 0; round < ROUNDS_MAX && !done; round++) {
        done = true;
        for (int i = 0; i < DEVICES; i++) {
            device *d = &w->devices[i];
            if (d->g) {
                must(d, device_sync(d), "sync when all is well");
                done = done && quiet(d) && round > 0;
            }
        }
    }
    if (!done) {
        world_fail("operations wait although all is well");
    }
    check_idle();
    sqlite3 *store = world_store(w);
    check_store(store);
    compare(w, store, digest);
    sqlite3_close(store);
    for (int i = 0; i < DEVICES; i++) {
        if (w->devices[i].g) {
            expect(w->devices[i].db, "device", "PRAGMA integrity_check", "ok");
        }
    }
}

int world_descriptors(char *out, size_t max) {
    DIR *folder = opendir("/proc/self/fd");
    size_t used = 0;
    int count = 0;
    out[0] = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[64], what[128];
        snprintf(path, sizeof path, "/proc/self/fd/%.20s", entry->d_name);
        ssize_t n = readlink(path, what, sizeof what - 1);
        if (n > 0) {
            int put = snprintf(out + used, max - used, " %.20s=%.*s", entry->d_name, (int)n, what);
            used += put > 0 && used + (size_t)put < max ? (size_t)put : 0;
            count++;
        }
    }
    (void)closedir(folder);
    return count;
}
