/* The world of a scenario: life of the server and the devices. See world.h. */
#include "torture/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/route.h"

#define START_MS INT64_C(1767323040000)

const char *const world_journals[4] = {"wal", "delete", "truncate", "persist"};

static const char tables[] =
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT CHECK (length(note) < 40),"
    " n INTEGER, extra TEXT);\n"
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"
    " body TEXT, slug TEXT UNIQUE);\n";
static const char config[] = "[table pins]\npolicy.title = manual\npolicy.n = counter\n";
static const char app_tables[] =
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"
    " body TEXT, slug TEXT UNIQUE);"
    "CREATE TABLE marks(m INTEGER PRIMARY KEY);";

/* ---- what SQLite and the library are given ---- */

static uint64_t numbers(void *context) {
    return sim_random_next(&((world *)context)->random);
}

static int64_t clock_ms(void *context) {
    return ++((world *)context)->now_ms;
}

static void pass_time(void *context, int64_t us) {
    ((world *)context)->now_ms += us / 1000 + 1;
}

static int64_t device_clock(void *context) {
    return clock_ms(((device *)context)->w);
}

static int entropy(void *context, void *buffer, size_t size) {
    for (size_t i = 0; i < size; i++) {
        ((uint8_t *)buffer)[i] = (uint8_t)numbers(((device *)context)->w);
    }
    return 0;
}

static int place(void *context, const char *path, uint8_t out[16]) {
    (void)path;
    memset(out, 1 + ((device *)context)->number, 16);
    return 0;
}

/* ---- life ---- */

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
        world_fail("%s can't be written", path);
    }
}

void world_open(world *w, int journal) {
    const char *root = getenv("TMPDIR");
    memset(w, 0, sizeof *w);
    w->random.state = 7;
    w->now_ms = START_MS;
    w->journal = journal;
    snprintf(w->folder, sizeof w->folder, "%s/godwit-torture-XXXXXX",
             root && *root && strlen(root) < 40 ? root : "/tmp");
    if (!mkdtemp(w->folder)) {
        world_fail("mkdtemp");
    }
    snprintf(w->schema, sizeof w->schema, "%s/schema.sql", w->folder);
    snprintf(w->config, sizeof w->config, "%s/config.ini", w->folder);
    write_file(w->schema, tables);
    write_file(w->config, config);
    w->host = (disk_host){.wall_ms = clock_ms, .sleep = pass_time, .random = numbers, .context = w};
    disk_vfs_install(&w->host);
    fault_vfs_install();
    char store[80];
    snprintf(store, sizeof store, "%.50s/store.db", w->folder);
    if (strlen(store) >= sizeof w->server_disk.prefix) {
        world_fail("the path %s is too long", store);
    }
    disk_init(&w->server_disk, store, numbers, w);
    disk_init(&w->backup, "", numbers, w);
    disk_attach(&w->server_disk);
    for (int i = 0; i < DEVICES; i++) {
        device *d = &w->devices[i];
        *d = (device){.w = w, .number = i};
        char prefix[32];
        snprintf(prefix, sizeof prefix, "/dev%d/", i);
        snprintf(d->path, sizeof d->path, "/dev%d/app.db", i);
        disk_init(&d->disk, prefix, numbers, w);
        disk_attach(&d->disk);
    }
    if (server_open(w) != GODWIT_OK) {
        world_fail("the server does not start");
    }
}

void world_remove(const world *w) {
    (void)unlink(w->schema);
    (void)unlink(w->config);
    (void)rmdir(w->folder);
}

void world_close(world *w) {
    server_close(w);
    disk_detach(&w->server_disk);
    disk_deinit(&w->server_disk);
    disk_deinit(&w->backup);
    for (int i = 0; i < DEVICES; i++) {
        device_close(&w->devices[i]);
        disk_detach(&w->devices[i].disk);
        disk_deinit(&w->devices[i].disk);
    }
}

/* ---- server ---- */

static const retain_policy short_memory = {.log_ms = 3600000,
                                           .log_max_ms = 3600000,
                                           .log_commits = 1,
                                           .ledger_ms = RETAIN_FOREVER,
                                           .conflicts_ms = RETAIN_FOREVER,
                                           .device_ms = RETAIN_FOREVER};

godwit_status server_open(world *w) {
    char message[512] = "";
    fault_side before = fault_enter(SIDE_SERVER);
    service_options options = {.store = w->folder,
                               .schema_file = w->schema,
                               .config_tables = w->config,
                               .retain = w->forgetful ? &short_memory : NULL,
                               .now_ms = clock_ms,
                               .context = w};
    godwit_status status = service_open(&options, &w->service, message);
    if (status == GODWIT_OK) {
        status = service_reader_open(w->service, &w->reader);
    }
    if (status != GODWIT_OK) {
        server_close(w);
    }
    (void)fault_enter(before);
    return status;
}

void server_close(world *w) {
    fault_side before = fault_enter(SIDE_SERVER);
    service_reader_close(w->reader);
    service_close(w->service);
    w->reader = NULL;
    w->service = NULL;
    (void)fault_enter(before);
}

static void serve(world *w, service_job *job) {
    (void)fault_enter(SIDE_SERVER);
    service_prepare(w->service, job);
    if (!job->status && job->wants_write) {
        service_write(w->service, &job, 1, NULL, NULL);
    }
    if (!job->status && job->wants_read) {
        job->wait_over = true;
        service_read(w->service, w->reader, job);
    }
    (void)fault_enter(SIDE_TEST);
}

/* The request as the daemon would have read it. */
static void prepare(const godwit_http_request *request, service_job *job) {
    const route *r = NULL;
    const char *reason = "", *path = strstr(request->url, "/v1/");
    size_t len = path ? strcspn(path, "?") : 0;
    if (!path || route_find(slice_of(request->method), (slice){path, len}, &r) != 200) {
        world_fail("no such route: %s", request->url);
    }
    service_job_init(job, r->verb);
    job->who.user = SLICE("ana");
    job->who.scopes[0] = SLICE("s");
    job->who.scope_count = 1;
    job->body = (slice){request->body, request->body_bytes};
    slice query = path[len] == '?' ? slice_of(path + len + 1) : (slice){0};
    if (route_query(r, query, job, &reason) != GODWIT_OK) {
        world_fail("%s: %s", request->url, reason);
    }
}

void world_exchange(void *context, const godwit_http_request *request, godwit_http_answer *answer) {
    world *w = ((device *)context)->w;
    service_job job;
    fault_side before = fault_enter(SIDE_TEST);
    memset(answer, 0, sizeof *answer);
    answer->retry_after_ms = -1;
    snprintf(answer->reason, sizeof answer->reason, "the server is not there");
    if (w->service) {
        prepare(request, &job);
        serve(w, &job);
        if (job.status == 0 || (job.status >= 400 && job.status < 500 && fault_hits())) {
            /* a 4xx would be taken for a refusal of what the client says: it is the server that
             * has failed */
            if (job.status != 410 && job.status != 409) {
                world_fail("the server answered %d: %s", job.status,
                           job.answer.ptr ? job.answer.ptr : "");
            }
        }
        if (!w->server_disk.halted) {
            answer->status = job.status;
            answer->body_bytes = job.answer.len;
            answer->body = malloc(job.answer.len + 1);
            if (answer->body) {
                memcpy(answer->body, job.answer.ptr ? job.answer.ptr : "", job.answer.len);
            }
        }
        service_job_deinit(&job);
    }
    (void)fault_enter(before);
}

/* ---- devices ---- */

static godwit_status attach(device *d, const godwit_options *options) {
    char sql[128];
    int rc = sqlite3_open_v2(d->path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s; PRAGMA synchronous = EXTRA",
             world_journals[d->w->journal]);
    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(d->db, sql, NULL, NULL, NULL);
    }
    return rc == SQLITE_OK ? godwit_attach(d->db, options, &d->g) : GODWIT_IO;
}

godwit_status device_open(device *d) {
    godwit_options options = {.host = {.context = d,
                                       .wall_ms = device_clock,
                                       .mono_ms = device_clock,
                                       .entropy = entropy,
                                       .place = place,
                                       .exchange = world_exchange},
                              .busy_timeout_ms = 500};
    fault_side before = fault_enter(SIDE_CLIENT);
    godwit_status status = GODWIT_OK;
    if (d->number == 0 && d->w->journal) {
        status = attach(d, &options);
    } else {
        status = godwit_open(d->path, &options, &d->g);
        d->db = d->g ? godwit_connection(d->g) : NULL;
    }
    /* as an application does; small checkpoints make more of them */
    if (status == GODWIT_OK &&
        sqlite3_exec(d->db, "PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 8", NULL, NULL,
                     NULL) != SQLITE_OK) {
        status = GODWIT_IO;
    }
    if (status != GODWIT_OK) {
        device_close(d);
    }
    (void)fault_enter(before);
    return status;
}

void device_close(device *d) {
    fault_side before = fault_enter(SIDE_CLIENT);
    godwit_close(d->g);
    bool own = d->number == 0 && d->w->journal;
    int rc = own ? sqlite3_close(d->db) : SQLITE_OK;
    d->g = NULL;
    d->db = NULL;
    (void)fault_enter(before);
    if (rc != SQLITE_OK) {
        world_fail("a statement was left open on device %d", d->number);
    }
}

godwit_status device_init(device *d) {
    godwit_settings settings = {.url = "http://server", .scope = "s", .token = "x.e30.x"};
    fault_side before = fault_enter(SIDE_CLIENT);
    godwit_status status = godwit_init(d->g, &settings);
    (void)fault_enter(before);
    return status;
}

godwit_status device_sync(device *d) {
    fault_side before = fault_enter(SIDE_CLIENT);
    godwit_status status = godwit_sync(d->g, 0, NULL);
    (void)fault_enter(before);
    return status;
}

godwit_status device_write(device *d, int mark, const char *sql) {
    char insert[64];
    fault_side before = fault_enter(SIDE_CLIENT);
    snprintf(insert, sizeof insert, "INSERT INTO marks VALUES (%d)", mark);
    int rc = sqlite3_exec(d->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    rc = rc == SQLITE_OK ? sqlite3_exec(d->db, sql, NULL, NULL, NULL) : rc;
    rc = rc == SQLITE_OK ? sqlite3_exec(d->db, insert, NULL, NULL, NULL) : rc;
    rc = rc == SQLITE_OK ? sqlite3_exec(d->db, "COMMIT", NULL, NULL, NULL) : rc;
    if (rc != SQLITE_OK && !sqlite3_get_autocommit(d->db)) {
        (void)sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
    }
    d->w->own_transaction = !sqlite3_get_autocommit(d->db);
    (void)fault_enter(before);
    return rc == SQLITE_OK           ? GODWIT_OK
           : rc == SQLITE_CONSTRAINT ? GODWIT_CONSTRAINT
           : rc == SQLITE_CORRUPT    ? GODWIT_CORRUPT
                                     : GODWIT_IO;
}

/* ---- the test ---- */

void must(device *d, godwit_status status, const char *what) {
    if (status != GODWIT_OK) {
        world_fail("device %d: %s: %s: %s", d->number, what, godwit_status_name(status),
                   godwit_message(d->g));
    }
}

void device_run(device *d, const char *sql) {
    fault_side before = fault_enter(SIDE_TEST);
    if (sqlite3_exec(d->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        world_fail("device %d: %s: %s", d->number, sql, sqlite3_errmsg(d->db));
    }
    (void)fault_enter(before);
}

void device_setup(device *d) {
    must(d, device_open(d), "open");
    device_run(d, app_tables);
    must(d, device_init(d), "init");
    must(d, godwit_track(d->g, "pins", NULL), "track pins");
    must(d, godwit_track(d->g, "forms", NULL), "track forms");
}

void world_restart(world *w) {
    server_close(w);
    for (int i = 0; i < DEVICES; i++) {
        bool open = w->devices[i].g != NULL;
        device_close(&w->devices[i]);
        if (open) {
            must(&w->devices[i], device_open(&w->devices[i]), "open again");
        }
    }
    if (server_open(w) != GODWIT_OK) {
        world_fail("the server does not start again");
    }
}

void world_after_power_cut(world *w) {
    device *d = &w->devices[0];
    if (d->disk.halted) {
        device_close(d);
        disk_restart(&d->disk, DISK_POWER_LOSS);
    }
    if (w->server_disk.halted) {
        server_close(w);
        disk_restart(&w->server_disk, DISK_POWER_LOSS);
        if (server_open(w) != GODWIT_OK) {
            world_fail("the server does not start after the power cut");
        }
    }
}
