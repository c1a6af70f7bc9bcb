/* What tests of syncing share: the real service in process, client databases in one temporary
 * folder, and an exchange between them that can lose, repeat and cut what passes through it. */
#ifndef TESTS_SYNC_KIT_H
#define TESTS_SYNC_KIT_H

#include "service_kit.h"

#include "client/client.h"

#define WORLD_PINS                                                                                 \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER, slug TEXT UNIQUE);"
#define WORLD_FORMS                                                                                \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"   \
    " body TEXT);"
#define WORLD_SCHEMA WORLD_PINS WORLD_FORMS

typedef struct world world;

/* What happens to the next exchanges. */
typedef struct {
    int lose_request; /* one in so many; 0 = never */
    int lose_answer;
    int repeat_request; /* the server gets it twice, the second answer counts */
    int cut_answer;
    int status;       /* != 0: answered with this instead, nothing reaches the server */
    const char *body; /* ... and this body */
    int64_t retry_after_ms;
    int times; /* how often `status` is answered; 0 = always */
} faults;

typedef struct {
    world *w;
    char path[300];
    godwit *g;
    sqlite3 *db;
    int exchanges;
    char last_path[64];
} device;

struct world {
    kit server;
    device devices[8];
    int device_count;
    faults faults;
    uint64_t random;
    int64_t ahead_ms; /* of every device's clock */
};

static inline bool world_hits(world *w, int one_in) {
    return one_in > 0 && unit_random(&w->random) % (uint64_t)one_in == 0;
}

static inline service_verb world_verb(const char *url) {
    if (strstr(url, "/v1/devices")) {
        return VERB_REGISTER;
    }
    if (strstr(url, "/v1/sync/operations")) {
        return VERB_PUSH;
    }
    if (strstr(url, "/v1/streams/reconcile")) {
        return VERB_RECONCILE;
    }
    if (strstr(url, "/v1/sync/snapshot")) {
        return VERB_SNAPSHOT;
    }
    return VERB_SYNC;
}

static inline slice world_query(arena *a, const char *url, const char *name) {
    char key[32];
    (void)snprintf(key, sizeof key, "%s=", name);
    const char *at = strchr(url, '?');
    while (at && strncmp(at + 1, key, strlen(key)) != 0) {
        at = strchr(at + 1, '&');
    }
    if (!at) {
        return (slice){0};
    }
    at += 1 + strlen(key);
    char *out = arena_alloc(a, strlen(at) + 1);
    size_t n = 0;
    for (; *at && *at != '&'; at++) {
        unsigned hex = 0;
        if (*at == '%' && sscanf(at + 1, "%2x", &hex) == 1) {
            out[n++] = (char)hex;
            at += 2;
        } else {
            out[n++] = *at;
        }
    }
    return (slice){out, n};
}

static inline kit_answer world_serve(world *w, const godwit_http_request *request) {
    service_job job;
    service_verb verb = world_verb(request->url);
    kit_job(&w->server, &job, verb, "ana", "field");
    job.who.scopes[1] = SLICE("other");
    job.who.scope_count = 2;
    job.body = (slice){request->body, request->body_bytes};
    if (verb == VERB_SNAPSHOT) {
        job.q_scope = world_query(&w->server.a, request->url, "scope");
        job.q_token = world_query(&w->server.a, request->url, "token");
        job.q_device = world_query(&w->server.a, request->url, "device");
    }
    return kit_run(&w->server, &job);
}

static inline void world_reply(godwit_http_answer *answer, int status, slice body) {
    answer->status = status;
    answer->body = malloc(body.len + 1);
    assert_non_null(answer->body);
    if (body.len) {
        memcpy(answer->body, body.ptr, body.len);
    }
    answer->body_bytes = body.len;
}

static inline void world_exchange(void *context, const godwit_http_request *request,
                                  godwit_http_answer *answer) {
    device *d = context;
    world *w = d->w;
    d->exchanges++;
    const char *path = strstr(request->url, "/v1/");
    (void)snprintf(d->last_path, sizeof d->last_path, "%s", path ? path : "");
    answer->retry_after_ms = -1;
    if (w->faults.status) {
        world_reply(answer, w->faults.status, slice_of(w->faults.body));
        answer->retry_after_ms = w->faults.retry_after_ms;
        if (w->faults.times && --w->faults.times == 0) {
            w->faults.status = 0;
        }
        return;
    }
    if (world_hits(w, w->faults.lose_request)) {
        (void)snprintf(answer->reason, sizeof answer->reason, "request lost");
        return;
    }
    kit_answer got = world_serve(w, request);
    if (world_hits(w, w->faults.repeat_request)) {
        got = world_serve(w, request);
    }
    if (world_hits(w, w->faults.lose_answer)) {
        (void)snprintf(answer->reason, sizeof answer->reason, "answer lost");
        return;
    }
    slice body = got.text;
    if (world_hits(w, w->faults.cut_answer) && body.len) {
        body.len /= 2;
    }
    world_reply(answer, got.status, body);
    arena_reset(&w->server.a);
}

static inline int64_t world_wall(void *context) {
    const world *w = ((device *)context)->w;
    return w->server.now_ms + w->ahead_ms;
}

static inline int64_t world_mono(void *context) {
    (void)context;
    return 1000;
}

static inline void world_init(world *w, const char *sql) {
    memset(w, 0, sizeof *w);
    w->random = 88172645463325252u;
    kit_init(&w->server, sql, NULL);
}

static inline void device_check(device *d, godwit_status status) {
    if (status != GODWIT_OK) {
        fail_msg("%s: %s: %s", d->path, godwit_status_name(status), godwit_message(d->g));
    }
}

static inline void device_open(device *d) {
    godwit_options options = {.host = {.context = d,
                                       .wall_ms = world_wall,
                                       .mono_ms = world_mono,
                                       .exchange = world_exchange}};
    options.accept_weak_durability = 1;
    if (getenv("GODWIT_TEST_LOG")) {
        fprintf(stderr, "open %s\n", d->path);
    }
    godwit_status status = godwit_open(d->path, &options, &d->g);
    if (status != GODWIT_OK) {
        fail_msg("open %s: %s", d->path, godwit_status_name(status));
    }
    d->db = godwit_connection(d->g);
    /* no power is lost here */
    (void)sqlite3_exec(d->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
}

/* Leaves the database as a killed process would: nothing is finished. */
static inline void device_close(device *d) {
    godwit_close(d->g);
    d->g = NULL;
    d->db = NULL;
}

static inline void device_exec(device *d, const char *sql) {
    char *error = NULL;
    if (sqlite3_exec(d->db, sql, NULL, NULL, &error) != SQLITE_OK) {
        fail_msg("%s: %s: %s", d->path, sql, error);
    }
}

static inline bool device_try(device *d, const char *sql) {
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* First column of the first row as text, in a ring of static buffers; "(none)" without a row. */
static inline const char *device_text(device *d, const char *sql) {
    static char ring[4][4096];
    static int at;
    sqlite3_stmt *stmt = NULL;
    at = (at + 1) % 4;
    if (sqlite3_prepare_v2(d->db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(d->db));
    }
    (void)snprintf(ring[at], sizeof ring[at], "(none)");
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(stmt, 0);
        (void)snprintf(ring[at], sizeof ring[at], "%s", text ? (const char *)text : "(null)");
    }
    sqlite3_finalize(stmt);
    return ring[at];
}

static inline int64_t device_int(device *d, const char *sql) {
    return strtoll(device_text(d, sql), NULL, 10);
}

static inline device *world_device(world *w, const char *sql, const char *scope) {
    device *d = &w->devices[w->device_count];
    memset(d, 0, sizeof *d);
    d->w = w;
    char path[sizeof d->path];
    (void)snprintf(path, sizeof path, "%s/device%d.db", w->server.dir, w->device_count);
    memcpy(d->path, path, sizeof path);
    w->device_count++;
    device_open(d);
    device_exec(d, sql);
    godwit_settings settings = {.url = "http://127.0.0.1:1", .scope = scope, .token = "t"};
    device_check(d, godwit_init(d->g, &settings));
    return d;
}

static inline void device_track(device *d, const char *table) {
    device_check(d, godwit_track(d->g, table, NULL));
}

static inline device *world_field_device(world *w) {
    device *d = world_device(w, WORLD_SCHEMA, "field");
    device_track(d, "pins");
    device_track(d, "forms");
    return d;
}

static inline godwit_sync_report device_sync(device *d) {
    godwit_sync_report report;
    device_check(d, godwit_sync(d->g, 0, &report));
    return report;
}

static inline void world_deinit(world *w) {
    for (int i = 0; i < w->device_count; i++) {
        device *d = &w->devices[i];
        char path[160];
        if (d->g) {
            device_close(d);
        }
        static const char *const tails[] = {"", "-wal", "-shm", "-journal"};
        for (size_t t = 0; t < COUNT_OF(tails); t++) {
            (void)snprintf(path, sizeof path, "%s%s", d->path, tails[t]);
            (void)remove(path);
        }
    }
    kit_deinit(&w->server);
}

#endif
