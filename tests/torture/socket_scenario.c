/* The scenarios. See socket_scenario.h. */
#include "torture/socket_scenario.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/service.h"

static device *first(world *w) {
    return &w->devices[0];
}

static device *other(world *w) {
    return &w->devices[1];
}

static device *newest(world *w) {
    return &w->devices[2];
}

/* ---- templates ---- */

/* Two devices and the server have the same rows. */
static void prepare_synced(world *w) {
    device_make(first(w));
    device_make(other(w));
    device_run(
        first(w),
        "INSERT INTO pins VALUES ('a', 'A', 'x', 1), ('b', 'B', NULL, 2), ('c', 'C', 'z', 3);"
        "INSERT INTO forms VALUES ('f', 'a', 'body', 's1'), ('g', 'b', NULL, 's2')");
    must(first(w), device_sync(first(w)), "sync");
    must(other(w), device_sync(other(w)), "sync");
}

static void prepare_new(world *w) {
    device_make(first(w));
    device_run(first(w), "INSERT INTO pins VALUES ('a', 'A', 'x', 1), ('b', 'B', NULL, 2)");
    must(first(w), device_sync(first(w)), "sync");
    device_make(newest(w));
    device_run(newest(w), "INSERT INTO pins VALUES ('c', 'C', 'x', 1); UPDATE pins SET n = n + 1");
}

static void prepare_behind(world *w) {
    prepare_synced(w);
    device_run(other(w), "UPDATE pins SET n = n + 100, title = 'theirs' WHERE id IN ('a', 'c');"
                         "INSERT INTO pins VALUES ('o', 'O', NULL, 7); DELETE FROM forms WHERE id ="
                         " 'g'; DELETE FROM pins WHERE id = 'b'");
    must(other(w), device_sync(other(w)), "sync");
}

static void prepare_conflict(world *w) {
    prepare_behind(w);
    device_run(first(w), "UPDATE pins SET title = 'mine' WHERE id IN ('a', 'c')");
}

/* More operations than one request takes, in bodies that are sent compressed. */
static void prepare_many(world *w) {
    prepare_synced(w);
    for (int i = 0; i < 520; i++) {
        char sql[128];
        snprintf(sql, sizeof sql,
                 "INSERT INTO pins VALUES ('m%03d', 'many', printf('%%060d', %d), 1)", i, i * 7919);
        device_run(first(w), sql);
    }
}

/* The log's beginning is gone: whoever is new gets a snapshot. */
static void prepare_forgotten(world *w) {
    static const retain_policy short_memory = {.log_ms = 1,
                                               .log_max_ms = 1,
                                               .log_commits = 1,
                                               .ledger_ms = RETAIN_FOREVER,
                                               .conflicts_ms = RETAIN_FOREVER,
                                               .device_ms = RETAIN_FOREVER};
    char message[512];
    const struct timespec moment = {0, 5000000};
    service *s = NULL;
    service_options options = {.store = w->settings.data,
                               .schema_file = w->settings.schema,
                               .config_tables = w->settings.config_file,
                               .retain = &short_memory};
    prepare_behind(w);
    must(first(w), device_sync(first(w)), "sync");
    device_make(newest(w));
    (void)nanosleep(&moment, NULL);
    server_stop(w);
    if (service_open(&options, &s, message) != GODWIT_OK || service_janitor(s, 1000)) {
        world_fail("the server does not forget");
    }
    service_close(s);
    if (world_store_int(w, "SELECT horizon FROM godwit_scope") < 1) {
        world_fail("the server has forgotten nothing");
    }
}

/* ---- steps ---- */

static godwit_status step_sync(world *w) {
    return device_sync(first(w));
}

static godwit_status step_sync_other(world *w) {
    return device_sync(other(w));
}

static godwit_status step_sync_newest(world *w) {
    return device_sync(newest(w));
}

static godwit_status step_write(world *w) {
    device_run(first(w), "UPDATE pins SET n = n + 5 WHERE id = 'a'; INSERT INTO forms VALUES ('h',"
                         " 'a', 'text', 's3'); DELETE FROM forms WHERE id = 'f'");
    return GODWIT_OK;
}

static godwit_status step_write_more(world *w) {
    device_run(first(w), "BEGIN; INSERT INTO pins VALUES ('p', 'P', 'new', 10);"
                         "INSERT INTO forms VALUES ('q', 'p', 'b', 's4'); COMMIT;"
                         "UPDATE pins SET n = n + 5, note = 'again' WHERE id = 'a'");
    return GODWIT_OK;
}

static godwit_status step_write_long(world *w) {
    device_run(first(w),
               "WITH RECURSIVE i(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM i WHERE x <"
               " 40) INSERT INTO pins SELECT printf('l%02d', x), 'long', hex(x), x FROM i");
    return GODWIT_OK;
}

static godwit_status step_write_other(world *w) {
    device_run(other(w), "UPDATE pins SET n = n + 1000 WHERE id = 'c'");
    return GODWIT_OK;
}

static godwit_status step_resolve(world *w) {
    char id[64] = "", text[64] = "";
    texts(first(w)->db,
          "SELECT conflict_id FROM godwit_conflicts WHERE state = 'open' ORDER BY 1 LIMIT 1", id,
          sizeof id);
    return id[0] ? godwit_resolve(first(w)->g, id, "mine", text) : GODWIT_INTERNAL;
}

static godwit_status step_background(world *w) {
    return device_start(first(w));
}

static godwit_status step_sent(world *w) {
    return device_wait(first(w),
                       "SELECT captured + coalesce((SELECT n FROM godwit_counter WHERE name ="
                       " 'op:pending'), 0) = 0 FROM godwit_captured");
}

/* The server had told the device that there is something, or the interval has. */
static godwit_status step_heard(world *w) {
    return device_wait(first(w), "SELECT n >= 1000 FROM pins WHERE id = 'c'");
}

static godwit_status step_stop_background(world *w) {
    device_stop(first(w));
    return GODWIT_OK;
}

static godwit_status step_listen(world *w) {
    return stream_open(w);
}

/* What comes is the head, which is told again to whoever opens a stream anew. */
static godwit_status step_hear(world *w) {
    int64_t head = world_store_int(w, "SELECT head FROM godwit_scope");
    godwit_status status = w->stream >= 0 ? stream_wait(w, head - 1) : GODWIT_UNREACHABLE;
    if (status != GODWIT_OK && sockets_hits() == 0) {
        return status;
    }
    return status == GODWIT_OK ? status : stream_open(w);
}

static godwit_status step_stop_server(world *w) {
    server_stop(w);
    return GODWIT_OK;
}

static godwit_status step_start_server(world *w) {
    return w->daemon ? GODWIT_OK : server_start(w);
}

const socket_scenario socket_scenarios[] = {
    {"register",
     "a device that is new",
     false,
     false,
     prepare_new,
     {{"sync", step_sync_newest}, {"sync again", step_sync_newest}}},
    {"push",
     "several operations in several rounds",
     false,
     false,
     prepare_synced,
     {{"write", step_write},
      {"sync", step_sync},
      {"write more", step_write_more},
      {"sync more", step_sync},
      {"sync the other", step_sync_other}}},
    {"pull",
     "what another device has changed",
     false,
     false,
     prepare_behind,
     {{"sync", step_sync}}},
    {"parts",
     "more than one request takes, compressed",
     false,
     false,
     prepare_many,
     {{"sync", step_sync}, {"sync the other", step_sync_other}}},
    {"conflict",
     "a conflict and its resolution",
     false,
     false,
     prepare_conflict,
     {{"sync", step_sync},
      {"resolve", step_resolve},
      {"sync the resolution", step_sync},
      {"sync the other", step_sync_other}}},
    {"snapshot",
     "the server's log does not go back far enough",
     false,
     false,
     prepare_forgotten,
     {{"sync", step_sync_newest}, {"sync again", step_sync_newest}}},
    {"wake",
     "the thread in the background, woken by both sides",
     false,
     false,
     prepare_synced,
     {{"start", step_background},
      {"write elsewhere", step_write_other},
      {"sync the other", step_sync_other},
      {"it is heard", step_heard},
      {"write", step_write},
      {"it is sent", step_sent},
      {"stop", step_stop_background}}},
    {"stream",
     "server-sent events",
     false,
     false,
     prepare_synced,
     {{"listen", step_listen},
      {"write", step_write},
      {"sync", step_sync},
      {"hear", step_hear},
      {"write more", step_write_more},
      {"sync more", step_sync},
      {"hear more", step_hear}}},
    {"restart",
     "the server ends and begins again",
     false,
     false,
     prepare_synced,
     {{"write", step_write},
      {"sync", step_sync},
      {"stop the server", step_stop_server},
      {"start the server", step_start_server},
      {"write more", step_write_more},
      {"sync more", step_sync},
      {"sync the other", step_sync_other}}},
    {"shortage",
     "the server has no descriptor left when the first device comes",
     false,
     true,
     prepare_behind,
     {{"write", step_write}, {"sync", step_sync}, {"sync the other", step_sync_other}}},
    {"tls",
     "push, pull and restart over TLS",
     true,
     false,
     prepare_synced,
     {{"write", step_write},
      {"sync", step_sync},
      {"write long", step_write_long},
      {"sync long", step_sync},
      {"stop the server", step_stop_server},
      {"start the server", step_start_server},
      {"sync the other", step_sync_other}}},
};
const size_t socket_scenario_count = COUNT_OF(socket_scenarios);

godwit_status socket_scenario_run(const socket_scenario *s, world *w, const char **at) {
    while (w->done < STEPS_MAX && s->steps[w->done].run) {
        *at = s->steps[w->done].name;
        godwit_status status = s->steps[w->done].run(w);
        if (status != GODWIT_OK) {
            return status;
        }
        w->done++;
    }
    return GODWIT_OK;
}

void socket_scenario_template(const socket_scenario *s, const char *folder) {
    static world w;
    world_make(&w, folder, s->tls);
    if (server_start(&w) != GODWIT_OK) {
        world_fail("the server does not start");
    }
    s->prepare(&w);
    world_close(&w);
    world_keep(&w, folder);
    world_remove(w.folder);
}
