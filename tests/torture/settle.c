/* What must be true when the faults are over. See world.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torture/world.h"

#define ROUNDS_MAX 8

static const char *const contents[] = {
    "SELECT id || '/' || ifnull(title, '-') || '/' || ifnull(note, '-') || '/' || ifnull(n, '-')"
    " || ';' FROM pins ORDER BY id",
    "SELECT id || '/' || ifnull(pin_id, '-') || '/' || ifnull(body, '-') || '/' ||"
    " ifnull(slug, '-') || ';' FROM forms ORDER BY id",
};

static void texts(sqlite3 *db, const char *sql, char *out, size_t max) {
    sqlite3_stmt *stmt = NULL;
    size_t used = strlen(out);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        world_fail("%s: %s", sql, sqlite3_errmsg(db));
    }
    int rc = SQLITE_ROW;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        int n = snprintf(out + used, max - used, "%s", text ? text : "-");
        used += n > 0 && used + (size_t)n < max ? (size_t)n : 0;
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE) {
        world_fail("%s: %s", sql, sqlite3_errmsg(db));
    }
}

void device_text(device *d, const char *sql, char *out, size_t max) {
    fault_side before = fault_enter(SIDE_TEST);
    out[0] = 0;
    texts(d->db, sql, out, max);
    (void)fault_enter(before);
}

int64_t device_int(device *d, const char *sql) {
    char out[64];
    device_text(d, sql, out, sizeof out);
    return strtoll(out, NULL, 10);
}

static sqlite3 *open_store(const world *w) {
    char path[96];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/store.db", w->folder);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        world_fail("the store can't be opened");
    }
    return db;
}

void server_run(world *w, const char *sql) {
    fault_side before = fault_enter(SIDE_TEST);
    sqlite3 *db = open_store(w);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        world_fail("%s: %s", sql, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    (void)fault_enter(before);
}

static void expect(sqlite3 *db, const char *who, const char *sql, const char *wanted) {
    char out[512] = "";
    texts(db, sql, out, sizeof out);
    if (strcmp(out, wanted) != 0) {
        world_fail("%s: %s gives %s", who, sql, out);
    }
}

/* Every operation decided once, in order, under one key; the log has no hole. */
static void check_server(sqlite3 *db) {
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

static void take_finding(void *context, const char *code, const char *text, int fixable) {
    char *digest = context;
    size_t used = strlen(digest);
    (void)text;
    snprintf(digest + used, DIGEST_MAX - used, "%s%s ", code, fixable ? "!" : "");
}

static void check_device(device *d, char digest[DIGEST_MAX]) {
    char who[16];
    int64_t findings = 0;
    snprintf(who, sizeof who, "device %d", d->number);
    expect(d->db, who, "PRAGMA integrity_check", "ok");
    expect(d->db, who, "SELECT count(*) FROM pragma_foreign_key_check", "0");
    expect(d->db, who, "SELECT capture FROM godwit_state", "1");
    must(d, godwit_doctor(d->g, 0, take_finding, digest, &findings), "doctor");
}

static bool quiet(device *d) {
    godwit_metrics m;
    must(d, godwit_get_metrics(d->g, &m), "metrics");
    return m.pending_operations == 0 && m.feed_lag == 0;
}

static void compare(world *w, sqlite3 *store, char digest[DIGEST_MAX]) {
    digest[0] = 0;
    for (size_t i = 0; i < COUNT_OF(contents); i++) {
        char on_server[DIGEST_MAX / 4] = "";
        texts(store, contents[i], on_server, sizeof on_server);
        for (int n = 0; n < DEVICES; n++) {
            char here[DIGEST_MAX / 4] = "";
            if (!w->devices[n].g) {
                continue;
            }
            texts(w->devices[n].db, contents[i], here, sizeof here);
            if (strcmp(here, on_server) != 0) {
                world_fail("device %d and the server differ\n  device %s\n  server %s", n, here,
                           on_server);
            }
        }
        size_t used = strlen(digest);
        snprintf(digest + used, DIGEST_MAX - used, "%s\n", on_server);
    }
    /* every operation was decided once, whether or not there is a row to show for it */
    texts(store,
          "SELECT (SELECT count(*) FROM godwit_op) || ' operations, ' || (SELECT count(*) FROM"
          " godwit_conflict WHERE state = 'open') || ' open conflicts'",
          digest, DIGEST_MAX);
}

void world_settle(world *w, char digest[DIGEST_MAX]) {
    bool done = false;
    w->now_ms += 7200000; /* leases and waiting times are over */
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
    sqlite3 *store = open_store(w);
    check_server(store);
    compare(w, store, digest);
    for (int i = 0; i < DEVICES; i++) {
        if (w->devices[i].g) {
            check_device(&w->devices[i], digest);
        }
    }
    sqlite3_close(store);
}
