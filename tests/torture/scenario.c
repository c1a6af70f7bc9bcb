/* What applications and servers do, in small steps. See scenario.h. */
#include "torture/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "db/copy.h"

#define MARK(n) "SELECT count(*) FROM marks WHERE m = " #n

static device *first(world *w) {
    return &w->devices[0];
}

static device *other(world *w) {
    return &w->devices[1];
}

/* Two devices and the server have the same eight rows. */
static void prepare_synced(world *w) {
    device_setup(first(w));
    device_setup(other(w));
    device_run(first(w),
               "INSERT INTO pins VALUES ('a', 'A', 'x', 1), ('b', 'B', NULL, 2),"
               " ('c', 'C', 'z', 3), ('d', 'D', NULL, 4), ('e', 'E', NULL, 5);"
               "INSERT INTO forms VALUES ('f', 'a', 'body', 's1'), ('g', 'b', NULL, 's2'),"
               " ('h', 'c', 'x', NULL)");
    must(first(w), device_sync(first(w)), "sync");
    must(other(w), device_sync(other(w)), "sync");
}

#define LOCAL_CHANGES                                                                              \
    "BEGIN; INSERT INTO pins VALUES ('p', 'P', 'new', 10); INSERT INTO forms VALUES ('q', 'p',"    \
    " 'b', 's3'); COMMIT; UPDATE pins SET n = n + 5, note = 'mine' WHERE id = 'a';"                \
    "DELETE FROM pins WHERE id = 'b'; UPDATE forms SET body = 'changed' WHERE id = 'h';"           \
    "BEGIN; UPDATE pins SET n = n + 1; DELETE FROM forms WHERE id = 'f'; COMMIT"

static void prepare_pending(world *w) {
    prepare_synced(w);
    device_run(first(w), LOCAL_CHANGES);
}

/* The other device has changed the same rows, and its changes are on the server. */
static void prepare_behind(world *w) {
    prepare_synced(w);
    device_run(other(w), "UPDATE pins SET n = n + 100, title = 'theirs' WHERE id IN ('a', 'c');"
                         "INSERT INTO pins VALUES ('o', 'O', NULL, 7); DELETE FROM forms WHERE id ="
                         " 'g'; UPDATE forms SET slug = 's9' WHERE id = 'f'; DELETE FROM pins WHERE"
                         " id = 'e'");
    must(other(w), device_sync(other(w)), "sync");
    device_run(first(w), LOCAL_CHANGES "; UPDATE pins SET title = 'mine' WHERE id = 'c'");
}

static void prepare_conflict(world *w) {
    prepare_behind(w);
    must(first(w), device_sync(first(w)), "sync");
    must(other(w), device_sync(other(w)), "sync");
    if (!device_int(first(w), "SELECT count(*) FROM godwit_conflicts WHERE state = 'open'")) {
        world_fail("there is no conflict to decide");
    }
}

/* Four operations were refused: the server's table has a CHECK that the device's has not. */
static void prepare_refused(world *w) {
    static const char *const rows[] = {"a", "c", "d", "e"};
    prepare_synced(w);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "UPDATE pins SET note = printf('%%.*c', 50, 'x'), n = n + 1 WHERE id = '%s'",
                 rows[i]);
        device_run(first(w), sql);
    }
    must(first(w), device_sync(first(w)), "sync");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT id FROM godwit_dead_letters WHERE entity_id = '%s'",
                 rows[i]);
        device_text(first(w), sql, w->ids[i], sizeof w->ids[i]);
        if (!w->ids[i][0]) {
            world_fail("operation %zu was not refused", i);
        }
    }
}

/* The log's beginning is gone: whoever is new gets a snapshot. */
static void prepare_forgotten(world *w) {
    prepare_behind(w);
    w->now_ms += INT64_C(8) * 3600000;
    w->forgetful = true;
    server_close(w);
    if (server_open(w) != GODWIT_OK || service_janitor(w->service, 1000)) {
        world_fail("the server does not forget");
    }
}

static void prepare_to_forget(world *w) {
    prepare_behind(w);
    w->now_ms += INT64_C(8) * 3600000;
    w->forgetful = true;
    server_close(w);
    if (server_open(w) != GODWIT_OK) {
        world_fail("the server does not start");
    }
}

/* The server has come back from a backup, devices know more than it does. */
static void prepare_restored(world *w) {
    prepare_synced(w);
    disk_copy(&w->backup, &w->server_disk);
    device_run(first(w), LOCAL_CHANGES);
    must(first(w), device_sync(first(w)), "sync");
    must(other(w), device_sync(other(w)), "sync");
    device_run(other(w), "UPDATE pins SET n = n + 1000 WHERE id = 'a'");
    server_close(w);
    disk_copy(&w->server_disk, &w->backup);
    if (server_open(w) != GODWIT_OK) {
        world_fail("the server does not start");
    }
}

static void prepare_app(world *w) {
    device *d = first(w);
    if (sqlite3_open_v2(d->path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK) {
        world_fail("%s can't be made", d->path);
    }
    /* a rollback journal that is deleted and comes back would take the last rows with it */
    device_run(d, "PRAGMA synchronous = EXTRA;"
                  "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"
                  "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON"
                  " DELETE CASCADE, body TEXT, slug TEXT UNIQUE); CREATE TABLE marks(m INTEGER"
                  " PRIMARY KEY); INSERT INTO pins VALUES ('a', 'A', 'x', 1), ('b', 'B', NULL, 2);"
                  "INSERT INTO forms VALUES ('f', 'a', 'body', 's1')");
    sqlite3_close(d->db);
    d->db = NULL;
}

/* ---- steps ---- */

static godwit_status step_open(world *w) {
    return first(w)->g ? GODWIT_OK : device_open(first(w));
}

static godwit_status step_close(world *w) {
    device_close(first(w));
    return GODWIT_OK;
}

static godwit_status step_init(world *w) {
    return device_init(first(w));
}

static godwit_status step_track_pins(world *w) {
    return godwit_track(first(w)->g, "pins", NULL);
}

static godwit_status step_track_forms(world *w) {
    return godwit_track(first(w)->g, "forms", NULL);
}

static godwit_status step_untrack(world *w) {
    godwit_status status = godwit_untrack(first(w)->g, "forms");
    return w->again && status == GODWIT_NOT_FOUND ? GODWIT_OK : status; /* it was done */
}

static godwit_status step_insert(world *w) {
    return device_write(first(w), 1,
                        "INSERT INTO pins VALUES ('p', 'P', 'new', 10), ('r', 'R', NULL, 11);"
                        "INSERT INTO forms VALUES ('q', 'p', 'b', 's3')");
}

static godwit_status step_update(world *w) {
    return device_write(first(w), 2,
                        "UPDATE pins SET n = n + 5, note = 'mine' WHERE id IN ('a', 'c');"
                        "UPDATE forms SET slug = CASE id WHEN 'f' THEN 's2x' ELSE slug || 'y' END");
}

static godwit_status step_delete(world *w) {
    return device_write(first(w), 3, "DELETE FROM pins WHERE id = 'b'"); /* and its form */
}

static godwit_status step_replace(world *w) {
    return device_write(first(w), 4,
                        "INSERT OR REPLACE INTO forms VALUES ('t', 'c', 'again', 's3');"
                        "INSERT INTO pins VALUES ('d', 'X', NULL, 1) ON CONFLICT DO UPDATE SET"
                        " n = n + 1");
}

static godwit_status step_many(world *w) {
    return device_write(first(w), 5,
                        "WITH RECURSIVE i(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM i WHERE x <"
                        " 60) INSERT INTO pins SELECT printf('m%03d', x), 'many', NULL, x FROM i");
}

static godwit_status step_sync(world *w) {
    return device_sync(first(w));
}

static godwit_status step_sync_other(world *w) {
    return device_sync(other(w));
}

/* Performs what godwit_next gave and hands the answer in. */
static godwit_status exchange_text(device *d, const char *text) {
    arena a;
    const json *root = NULL;
    slice method = {0}, path = {0}, body = {0};
    int64_t id = 0;
    (void)fault_enter(SIDE_TEST);
    arena_init(&a, NULL, 0);
    if (json_parse(&a, slice_of(text), &root, NULL) != GODWIT_OK ||
        !json_text(json_get(root, "method"), &method) || !json_int(json_get(root, "id"), &id) ||
        !json_text(json_get(root, "path"), &path)) {
        world_fail("godwit_next gives %s", text);
    }
    (void)json_text(json_get(root, "body"), &body);
    godwit_http_request request = {.method = arena_printf(&a, SLICE_FMT, SLICE_ARG(method)),
                                   .url =
                                       arena_printf(&a, "http://server" SLICE_FMT, SLICE_ARG(path)),
                                   .body = body.ptr,
                                   .body_bytes = body.len};
    godwit_http_answer answer;
    (void)fault_enter(SIDE_CLIENT);
    world_exchange(d, &request, &answer);
    godwit_status status =
        godwit_feed(d->g, id, answer.status, NULL, answer.body ? answer.body : answer.reason,
                    answer.body ? answer.body_bytes : strlen(answer.reason));
    (void)fault_enter(SIDE_TEST);
    free(answer.body);
    arena_deinit(&a);
    (void)fault_enter(SIDE_CLIENT);
    return status;
}

/* godwit_next and godwit_feed until there is nothing to do. */
static godwit_status step_feed(world *w) {
    device *d = first(w);
    for (int i = 0; i < 20; i++) {
        const char *text = NULL;
        godwit_status status = godwit_next(d->g, &text);
        if (status != GODWIT_OK || !text) {
            return status;
        }
        if (!strstr(text, "\"id\":")) {
            return GODWIT_UNREACHABLE; /* it waits */
        }
        status = exchange_text(d, text);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    return GODWIT_OK;
}

static godwit_status step_fresh(world *w) {
    device *d = &w->devices[2];
    if (d->g) {
        return GODWIT_OK;
    }
    godwit_status status = device_open(d);
    if (status == GODWIT_OK &&
        sqlite3_exec(
            d->db,
            "CREATE TABLE IF NOT EXISTS pins(id TEXT PRIMARY KEY, title TEXT, note TEXT,"
            " n INTEGER); CREATE TABLE IF NOT EXISTS forms(id TEXT PRIMARY KEY, pin_id TEXT"
            " REFERENCES pins(id) ON DELETE CASCADE, body TEXT, slug TEXT UNIQUE)",
            NULL, NULL, NULL) != SQLITE_OK) {
        device_close(d);
        status = GODWIT_IO;
    }
    return status;
}

static godwit_status step_fresh_track(world *w) {
    device *d = &w->devices[2];
    godwit_status status = device_init(d);
    if (status == GODWIT_OK) {
        status = godwit_track(d->g, "pins", NULL);
    }
    return status == GODWIT_OK ? godwit_track(d->g, "forms", NULL) : status;
}

static godwit_status step_fresh_sync(world *w) {
    return device_sync(&w->devices[2]);
}

/* Whatever could not be undone by the library is undone by SQL. */
static void take_back(world *w, godwit_status status) {
    if (status != GODWIT_OK && !sqlite3_get_autocommit(first(w)->db) &&
        godwit_rollback(first(w)->g) != GODWIT_OK) {
        (void)sqlite3_exec(first(w)->db, "ROLLBACK", NULL, NULL, NULL);
    }
    w->own_transaction = !sqlite3_get_autocommit(first(w)->db);
}

/* A transaction by the library's calls: all of it or nothing. */
static godwit_status step_transaction(world *w) {
    godwit *g = first(w)->g;
    char id[37];
    godwit_status status = godwit_begin(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = godwit_add(g, "create", "pins", "t", "{\"title\":\"T\",\"n\":1}", NULL, id);
    if (status == GODWIT_OK) {
        const char *on[] = {id};
        godwit_enqueue_options options = {on, 1, "form of t"};
        status = godwit_add(g, "create", "forms", "u", "{\"pin_id\":\"t\",\"body\":\"U\"}",
                            &options, NULL);
    }
    if (status == GODWIT_OK) {
        status = godwit_add(g, "update", "pins", "a", "{\"note\":\"in\"}", NULL, NULL);
    }
    if (status == GODWIT_OK) {
        status = godwit_add(g, "delete", "pins", "d", NULL, NULL, NULL);
    }
    if (status == GODWIT_OK) {
        status = godwit_commit(g);
    }
    take_back(w, status);
    return status;
}

static godwit_status step_taken_back(world *w) {
    godwit *g = first(w)->g;
    godwit_status status = godwit_begin(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = godwit_add(g, "create", "pins", "never", "{\"title\":\"N\"}", NULL, NULL);
    godwit_status undone = godwit_rollback(g);
    take_back(w, undone);
    return status == GODWIT_OK ? undone : status;
}

static godwit_status step_enqueue(world *w) {
    godwit_enqueue_options options = {NULL, 0, "my note"};
    return godwit_enqueue(first(w)->g, "create", "note", "n1", "{\"text\":\"hello\"}", &options,
                          w->made);
}

static godwit_status step_name(world *w) {
    godwit_enqueue_options options = {NULL, 0, "my pin"};
    char id[37];
    return godwit_enqueue(first(w)->g, "create", "pins", "p", "{}", &options, id);
}

static godwit_status decide(world *w, const char *choice) {
    char id[80], new_id[37];
    fault_side before = fault_enter(SIDE_TEST);
    device_text(first(w), "SELECT conflict_id FROM godwit_conflicts WHERE state = 'open' LIMIT 1",
                id, sizeof id);
    (void)fault_enter(before);
    return godwit_resolve(first(w)->g, id, choice, new_id);
}

static godwit_status step_resolve(world *w) {
    return decide(w, "mine");
}

static godwit_status step_retry(world *w) {
    return godwit_retry(first(w)->g, w->ids[0], NULL);
}

static godwit_status step_edit(world *w) {
    return godwit_edit(first(w)->g, w->ids[1], "{\"note\":\"short\"}", NULL);
}

static godwit_status step_discard(world *w) {
    return godwit_discard(first(w)->g, w->ids[2], "not needed");
}

static godwit_status step_repair_many(world *w) {
    const godwit_repair repairs[] = {{w->ids[3], "{\"note\":\"mended\",\"n\":77}"}};
    return godwit_repair_many(first(w)->g, repairs, 1, NULL, NULL);
}

static int take_line(void *context, const char *line, size_t len) {
    (void)line;
    *(size_t *)context += len;
    return 0;
}

static godwit_status step_look(world *w) {
    godwit *g = first(w)->g;
    godwit_metrics m;
    int64_t findings = 0;
    size_t exported = 0;
    godwit_status status = godwit_get_metrics(g, &m);
    if (status == GODWIT_OK) {
        status = godwit_doctor(g, 1, NULL, NULL, &findings);
    }
    return status == GODWIT_OK ? godwit_export(g, 0, take_line, &exported) : status;
}

static godwit_status step_wait(world *w) {
    godwit_receipt receipt;
    if (!w->made[0]) { /* committed, and the power went before the call could say so */
        fault_side before = fault_enter(SIDE_TEST);
        device_text(first(w), "SELECT id FROM sync_queue WHERE client_key = 'my note'", w->made,
                    sizeof w->made);
        (void)fault_enter(before);
    }
    godwit_status status = godwit_wait(first(w)->g, w->made, w->again ? 0 : 200, &receipt);
    return status == GODWIT_OK ? godwit_get_receipt(first(w)->g, w->made, &receipt) : status;
}

static godwit_status step_events(world *w) {
    return godwit_events_keep(first(w)->g, 1);
}

static godwit_status step_events_done(world *w) {
    return godwit_events_done(first(w)->g, 2);
}

static godwit_status step_migrate_begin(world *w) {
    return godwit_migrate(first(w)->g, "begin");
}

static godwit_status step_alter(world *w) {
    return device_write(first(w), 6,
                        "ALTER TABLE pins ADD COLUMN extra TEXT; UPDATE pins SET extra = 'e' WHERE"
                        " id IN ('a', 'b'); DELETE FROM pins WHERE id = 'e'");
}

static godwit_status step_migrate_end(world *w) {
    return godwit_migrate(first(w)->g, "end");
}

static godwit_status step_after(world *w) {
    return device_write(first(w), 7, "UPDATE pins SET extra = 'later', n = n + 1 WHERE id = 'c'");
}

static godwit_status step_backup(world *w) {
    db from, to;
    (void)w;
    godwit_status status = db_open(&from, "/dev0/app.db", SQLITE_OPEN_READONLY, 500);
    if (status != GODWIT_OK) {
        return status;
    }
    status = db_open(&to, "/dev0/copy.db", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, 500);
    if (status == GODWIT_OK) {
        status = db_copy(&from, &to, NULL, NULL);
        if (status == GODWIT_OK) {
            status = db_check(&to);
        }
        db_close(&to);
    }
    db_close(&from);
    return status;
}

static godwit_status step_server_again(world *w) {
    server_close(w);
    return server_open(w);
}

/* The janitor says nothing about failures: it comes again. */
static godwit_status step_tidy(world *w) {
    fault_side before = fault_enter(SIDE_SERVER);
    if (w->service) {
        (void)service_janitor(w->service, 1000);
        service_watch(w->service);
    }
    (void)fault_enter(before);
    return GODWIT_OK;
}

/* ---- the list ---- */

#define SYNC                                                                                       \
    { "sync", step_sync, NULL }

const scenario scenarios[] = {
    {"open",
     "a database is opened, set up and tracked for the first time, closed and opened",
     prepare_app,
     {{"open", step_open, NULL},
      {"init", step_init, NULL},
      {"track pins", step_track_pins, NULL},
      {"track forms", step_track_forms, NULL},
      {"close", step_close, NULL},
      {"open again", step_open, NULL},
      SYNC}},
    {"capture",
     "the application writes, a table is untracked and tracked again",
     prepare_synced,
     {{"insert", step_insert, MARK(1)},
      {"update", step_update, MARK(2)},
      {"delete", step_delete, MARK(3)},
      {"replace", step_replace, MARK(4)},
      {"untrack", step_untrack, NULL},
      {"track", step_track_forms, NULL},
      {"many", step_many, MARK(5)}}},
    {"transaction",
     "transactions by the library's calls, named operations, entities without a table",
     prepare_synced,
     {{"transaction", step_transaction, "SELECT count(*) FROM pins WHERE id = 't'"},
      {"taken back", step_taken_back, NULL},
      {"enqueue", step_enqueue, "SELECT count(*) FROM sync_queue WHERE client_key = 'my note'"},
      {"insert", step_insert, MARK(1)},
      {"name", step_name, "SELECT count(*) FROM sync_queue WHERE client_key = 'my pin'"},
      SYNC}},
    {"push", "waiting operations are sealed, sent and settled", prepare_pending, {SYNC}},
    {"pull", "changes of others meet waiting ones", prepare_behind, {SYNC}},
    {"feed",
     "the same with godwit_next and godwit_feed",
     prepare_behind,
     {{"feed", step_feed, NULL}}},
    {"many",
     "an upload of several dozen rows",
     prepare_synced,
     {{"many", step_many, MARK(5)}, SYNC, {"sync other", step_sync_other, NULL}}},
    {"conflict",
     "a person decides a conflict",
     prepare_conflict,
     {{"resolve", step_resolve,
       "SELECT NOT EXISTS (SELECT 1 FROM godwit_conflicts WHERE state = 'open') OR EXISTS (SELECT 1"
       " FROM godwit_hint WHERE resolves IS NOT NULL) OR EXISTS (SELECT 1 FROM godwit_op WHERE"
       " resolves IS NOT NULL)"},
      SYNC,
      {"sync other", step_sync_other, NULL}}},
    {"repair",
     "refused operations are retried, edited, discarded",
     prepare_refused,
     {{"edit", step_edit, "SELECT count(*) FROM godwit_outcome WHERE resolution = 'edited'"},
      {"discard", step_discard,
       "SELECT count(*) FROM godwit_outcome WHERE resolution = 'discarded'"},
      {"repair many", step_repair_many, "SELECT n = 77 FROM pins WHERE id = 'e'"},
      {"retry", step_retry, "SELECT count(*) FROM godwit_outcome WHERE resolution = 'retried'"},
      {"look", step_look, NULL},
      SYNC}},
    {"look",
     "receipts, events, metrics, doctor, export",
     prepare_pending,
     {{"events", step_events, NULL},
      {"enqueue", step_enqueue, "SELECT count(*) FROM sync_queue WHERE client_key = 'my note'"},
      {"look", step_look, NULL},
      {"wait", step_wait, NULL},
      {"events done", step_events_done, NULL}}},
    {"migrate",
     "the application alters a table",
     prepare_pending,
     {{"begin", step_migrate_begin, NULL},
      {"alter", step_alter, MARK(6)},
      {"end", step_migrate_end, NULL},
      {"after", step_after, MARK(7)},
      SYNC}},
    {"bootstrap",
     "a new device starts from a snapshot",
     prepare_forgotten,
     {{"open", step_fresh, NULL},
      {"track", step_fresh_track, NULL},
      {"sync", step_fresh_sync, NULL}}},
    {"forgotten",
     "a device comes back whose cursor the server has forgotten",
     prepare_forgotten,
     {SYNC}},
    {"reconcile",
     "the server has come back from a backup",
     prepare_restored,
     {SYNC, {"sync other", step_sync_other, NULL}}},
    {"backup",
     "an online copy while operations wait",
     prepare_pending,
     {{"backup", step_backup, NULL}}},
    {"server",
     "the server closes and opens",
     prepare_pending,
     {{"server", step_server_again, NULL}, SYNC}},
    {"retain", "the server forgets the past", prepare_to_forget, {{"tidy", step_tidy, NULL}, SYNC}},
};
const size_t scenario_count = COUNT_OF(scenarios);

/* ---- running ---- */

static bool settled(const scenario_step *step, world *w) {
    return step->settled && first(w)->db && device_int(first(w), step->settled) != 0;
}

godwit_status scenario_run(const scenario *s, world *w, const char **at) {
    for (size_t i = 0; i < STEPS_MAX && s->steps[i].run; i++) {
        const scenario_step *step = &s->steps[i];
        *at = step->name;
        if (w->done >> i & 1 || (w->again && settled(step, w))) {
            continue;
        }
        (void)fault_enter(SIDE_CLIENT);
        godwit_status status = step->run(w);
        (void)fault_enter(SIDE_TEST);
        if (status != GODWIT_OK) {
            return status;
        }
        w->done |= UINT64_C(1) << i;
    }
    return GODWIT_OK;
}

void scenario_check(const scenario *s, world *w) {
    for (size_t i = 0; i < STEPS_MAX && s->steps[i].run; i++) {
        if (w->done >> i & 1 && s->steps[i].settled && !settled(&s->steps[i], w)) {
            world_fail("the step '%s' succeeded, and its effect is gone", s->steps[i].name);
        }
    }
}
