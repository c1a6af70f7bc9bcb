/* The service behind its verbs, its operator, and a client that means no good. See sim.h. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "folder.h"
#include "server/route.h"
#include "sim/query.h"
#include "sim/sim.h"

#define DAY_MS INT64_C(86400000)
#define FOLDER "/tmp" /* exists; nothing is written there, the files are on the server's disk */

static const char key[] = "0123456789abcdef0123456789abcdef";
static const char tables[] =
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER, lat REAL%s);\n"
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"
    " body TEXT, slug TEXT UNIQUE);\n";

static int64_t now(void *context) {
    return ((world *)context)->now_ms;
}

static uint64_t disk_random(void *context) {
    return sim_random_next(&((world *)context)->random);
}

static const char tallies[] = "CREATE TABLE tallies(id TEXT PRIMARY KEY, title TEXT, total INTEGER,"
                              " tags TEXT, top INTEGER, low INTEGER);\n";

static void write_file(char path[300], const char *text) {
    FILE *file = folder_file(path, 300);
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
        fprintf(stderr, "sim: can't write %s\n", path);
        abort();
    }
}

static void write_schema(const world *w, char path[300], const char *more) {
    char text[800];
    size_t len = (size_t)snprintf(text, sizeof text, tables, more);
    snprintf(text + len, sizeof text - len, "%s", w->swarm.tables > 2 ? tallies : "");
    write_file(path, text);
}

static void write_config(const world *w, char path[300]) {
    static const char *const policies[] = {"lww", "server_wins", "client_wins"};
    char text[300] = "";
    if (w->swarm.tables > 2) {
        snprintf(text, sizeof text,
                 "[table tallies]\npolicy.title = %s\npolicy.total = counter\npolicy.tags = set\n"
                 "policy.top = max\npolicy.low = min\non_conflicting_delete = %s\n",
                 policies[w->swarm.title], w->swarm.deletes_win ? "delete_wins" : "edit_wins");
    }
    write_file(path, text);
}

/* ---- life ---- */

void server_init(world *w) {
    server *s = &w->server;
    write_schema(w, s->schema[0], "");
    write_schema(w, s->schema[1], ", extra TEXT");
    write_config(w, s->config);
    disk_init(&s->disk, FOLDER "/store.db", disk_random, w);
    disk_init(&s->backup, "", disk_random, w);
    if (key_set_from_secret(slice_of(key), &s->keys) != GODWIT_OK) {
        abort();
    }
    s->disk.garbles = sim_chance(w, 2);
    disk_attach(&s->disk);
    s->disk.quiet++;
    server_start(w);
    s->disk.quiet--;
    s->disk.faults = w->swarm.server_disk;
}

/* Forgets within the time of a seed: the log, and in some seeds the ledger and silent devices too.
 */
static retain_policy forgetful(const swarm *s) {
    return (retain_policy){.log_ms = 3600000,
                           .log_max_ms = DAY_MS,
                           .log_commits = 5,
                           .ledger_ms = s->forget_ledger ? 2 * DAY_MS : RETAIN_FOREVER,
                           .conflicts_ms = RETAIN_FOREVER,
                           .device_ms = s->forget_ledger ? 4 * DAY_MS : RETAIN_FOREVER};
}

void server_start(world *w) {
    server *s = &w->server;
    char message[512] = "";
    w->current = -1;
    retain_policy retain = forgetful(&w->swarm);
    bool remembers = w->swarm.schema_once && s->knows_tables;
    service_options options = {.store = FOLDER,
                               .schema_file = remembers ? NULL : s->schema[s->upgraded],
                               .config_tables = s->config,
                               .retain = w->swarm.retain ? &retain : NULL,
                               .now_ms = now,
                               .context = w};
    godwit_status status = service_open(&options, &s->service, message);
    if (status == GODWIT_OK) {
        status = service_reader_open(s->service, &s->reader);
    }
    /* the message may name a file of this process: no part of the trace */
    sim_trace(w, "server starts: %s", godwit_status_name(status));
    if (status != GODWIT_OK) {
        if (status == GODWIT_CORRUPT || status == GODWIT_INTERNAL || s->disk.quiet) {
            sim_fail(w, "I28", "the server does not start: %s: %s", godwit_status_name(status),
                     message);
        }
        server_stop(w, s->disk.halted, DISK_PROCESS_DIES);
        s->down_until = w->now_ms + 1000;
        return;
    }
    s->starts++;
    s->knows_tables = true;
    oracle_server(w);
}

void server_stop(world *w, bool killed, disk_loss loss) {
    server *s = &w->server;
    w->current = -1;
    s->killed = killed;
    if (killed) {
        sim_trace(w, "server dies (%s)", loss == DISK_POWER_LOSS ? "power" : "killed");
        disk_halt(&s->disk);
        w->faults++;
        w->seen[loss == DISK_POWER_LOSS ? SEEN_POWER_SERVER : SEEN_KILLED_SERVER]++;
    }
    if (s->observer) {
        s->disk.quiet++;
        query_forget(s->observer);
        sqlite3_close(s->observer);
        s->observer = NULL;
        s->disk.quiet--;
    }
    service_reader_close(s->reader);
    service_close(s->service);
    s->reader = NULL;
    s->service = NULL;
    if (s->disk.halted) {
        disk_restart(&s->disk, loss);
    }
}

void server_deinit(world *w) {
    server *s = &w->server;
    s->disk.quiet++;
    server_stop(w, false, DISK_PROCESS_DIES);
    disk_detach(&s->disk);
    disk_deinit(&s->disk);
    disk_deinit(&s->backup);
    key_set_release(s->keys);
    (void)unlink(s->schema[0]);
    (void)unlink(s->schema[1]);
    (void)unlink(s->config);
}

void server_backup(world *w) {
    sim_trace(w, "backup of the server");
    disk_copy(&w->server.backup, &w->server.disk);
    w->server.has_backup = true;
}

void server_restore(world *w) {
    server *s = &w->server;
    if (!s->has_backup) {
        return;
    }
    sim_trace(w, "server restored from a backup");
    server_stop(w, false, DISK_PROCESS_DIES);
    disk_copy(&s->disk, &s->backup);
    s->restores++;
    s->knows_tables = false;
    w->faults++;
    s->disk.quiet++;
    oracle_rewind(w);
    server_start(w);
    s->disk.quiet--;
}

void server_upgrade(world *w) {
    if (!w->server.upgraded && w->server.service) {
        server_stop(w, false, DISK_PROCESS_DIES);
        w->server.upgraded = true;
        w->server.knows_tables = false;
        server_start(w);
    }
}

void server_tidy(world *w) {
    w->current = -1;
    (void)service_janitor(w->server.service, 1000);
    sim_trace(w, "server tidies");
    if (w->server.disk.halted) {
        server_stop(w, true, DISK_PROCESS_DIES);
    } else {
        oracle_server(w);
    }
}

/* ---- requests ---- */

static const auth_settings auth;

void server_mint(world *w, const device *d, bytes *token) {
    principal who = {.user = slice_of(d->user), .scope_count = 1, .expires_s = d->token_exp};
    who.scopes[0] = d->revoked ? SLICE("elsewhere") : d->scope ? SLICE("s1") : SLICE("s0");
    if (auth_mint(&auth, slice_of(key), &who, w->now_ms / 1000, token) != GODWIT_OK) {
        sim_fail(w, "I23", "no token can be made");
    }
}

/* The request as of a client that wants few at a time: what a seed holds would fit one page. */
static void ask_for_few(const world *w, service_job *job) {
    char *limit = arena_printf(&job->memory, "%d", w->swarm.page);
    if (!w->swarm.page || !limit) {
        return;
    }
    if (job->verb == VERB_CHANGES || job->verb == VERB_SNAPSHOT) {
        job->q_limit = job->q_limit.len ? job->q_limit : slice_of(limit);
    } else if (job->verb == VERB_SYNC && job->body.len > 2 && job->body.ptr[0] == '{') {
        bytes b;
        bytes_init(&b, NULL, 0);
        bytes_printf(&b, "{\"limit\":%s,", limit);
        bytes_slice(&b, (slice){job->body.ptr + 1, job->body.len - 1});
        slice body = b.failed ? (slice){0} : arena_copy(&job->memory, bytes_view(&b));
        job->body = body.ptr ? body : job->body;
        bytes_deinit(&b);
    }
}

static bool prepare(world *w, const packet *p, service_job *job) {
    const route *r = NULL;
    const char *reason = NULL;
    slice target = bytes_view(&p->path), query = {0};
    const char *mark = target.len ? memchr(target.ptr, '?', target.len) : NULL;
    if (mark) {
        query = (slice){mark + 1, target.len - (size_t)(mark + 1 - target.ptr)};
        target.len = (size_t)(mark - target.ptr);
    }
    service_job_init(job, VERB_META);
    int status = route_find(slice_of(p->method), target, &r);
    if (status != 200 || r->kind != ROUTE_JOB) {
        service_problem(job, status == 200 ? 404 : status, "not-found", NULL, NULL);
        return false;
    }
    job->verb = r->verb;
    job->body = bytes_view(&p->body);
    slice token = {0};
    if (!auth_bearer(bytes_view(&p->token), &token) ||
        auth_check(&auth, w->server.keys, &job->memory, token, w->now_ms / 1000, &job->who,
                   &reason) != GODWIT_OK) {
        service_problem(job, 401, "unauthenticated", reason, NULL);
        return false;
    }
    if (route_query(r, query, job, &reason) != GODWIT_OK) {
        service_problem(job, 400, "invalid-request", reason, NULL);
        return false;
    }
    ask_for_few(w, job);
    service_prepare(w->server.service, job);
    return job->status == 0;
}

/* Nothing of a tenant in an answer to another one (I23). */
static void check_isolation(world *w, const packet *p, const service_job *job) {
    const device *d = &w->devices[p->device];
    bool elsewhere = job->who.scope_count == 1 && slice_is(job->who.scopes[0], "elsewhere");
    if (job->status == 200 && elsewhere && p->path.ptr && strcmp(p->path.ptr, "/v1/devices") != 0) {
        sim_fail(w, "I23", "device %d was served with a token of another scope: %.40s", d->number,
                 p->path.ptr);
    }
    const char *foreign = d->scope ? "S0~" : "S1~";
    for (size_t i = 0; i + 3 <= job->answer.len; i++) {
        if (memcmp(job->answer.ptr + i, foreign, 3) == 0) {
            sim_fail(w, "I23", "device %d of scope s%d reads of the other tenant: %.60s", d->number,
                     d->scope, job->answer.ptr + i);
        }
    }
}

static void count_status(world *w, const service_job *job) {
    static const struct {
        int status;
        sim_seen seen;
    } table[] = {{401, SEEN_EXPIRED},
                 {403, SEEN_FORBIDDEN},
                 {409, SEEN_FORKED},
                 {410, SEEN_GONE},
                 {503, SEEN_UNAVAILABLE}};
    size_t i = 0;
    while (i < COUNT_OF(table) && table[i].status != job->status) {
        i++;
    }
    if (i < COUNT_OF(table)) {
        w->seen[table[i].seen]++;
    } else {
        w->seen[SEEN_INVALID] += job->status >= 400;
    }
    w->seen[SEEN_PAGED] +=
        job->status == 200 && job->answer.ptr && strstr(job->answer.ptr, "\"more\":true");
    w->seen[SEEN_GONE] +=
        job->status == 200 && job->answer.ptr &&
        (strstr(job->answer.ptr, "bootstrap-required") || strstr(job->answer.ptr, "cursor-"));
}

static void finish(world *w, const packet *p, service_job *job, packet *answer) {
    server *s = &w->server;
    if (job->status == 0 && job->wants_read && !s->disk.halted) {
        job->wait_over = true;
        service_read(s->service, s->reader, job);
    }
    sim_trace(w, "server answers device %d: %.40s %d", p->device, p->path.ptr ? p->path.ptr : "",
              job->status);
    if (!s->disk.halted) {
        if (job->status == 500 || job->status == 0) {
            sim_fail(w, "I27", "the server fails by itself: %s: %.300s",
                     godwit_status_name(job->failure), job->answer.ptr ? job->answer.ptr : "");
        }
        check_isolation(w, p, job);
        count_status(w, job);
        answer->status = job->status;
        bytes_slice(&answer->body, bytes_view(&job->answer));
    }
    service_job_deinit(job);
}

void server_serve(world *w, packet **requests, size_t count, packet *answers) {
    server *s = &w->server;
    service_job jobs[8], *writes[8];
    size_t write_count = 0;
    int caller = w->current;
    if (!s->service || s->disk.halted) {
        return;
    }
    w->current = -1;
    for (size_t i = 0; i < count; i++) {
        if (prepare(w, requests[i], &jobs[i]) && jobs[i].wants_write) {
            writes[write_count++] = &jobs[i];
        }
    }
    if (write_count) {
        service_write(s->service, writes, write_count, NULL, NULL);
    }
    oracle_server(w);
    for (size_t i = 0; i < count; i++) {
        finish(w, requests[i], &jobs[i], &answers[i]);
    }
    if (s->disk.halted) { /* it died on the way: nobody gets an answer */
        for (size_t i = 0; i < count; i++) {
            answers[i].status = 0;
        }
        server_stop(w, true, sim_chance(w, w->swarm.power) ? DISK_POWER_LOSS : DISK_PROCESS_DIES);
        s->down_until = w->now_ms + (int64_t)sim_below(w, 5000);
    }
    w->current = caller;
}

/* ---- a hostile client ---- */

static void change_request(world *w, packet *p) {
    size_t changes = 1 + sim_below(w, 3);
    for (size_t i = 0; i < changes && p->body.len; i++) {
        size_t at = sim_below(w, p->body.len);
        char *c = &p->body.ptr[at];
        *c = *c >= '0' && *c <= '9' ? (char)('0' + sim_below(w, 10)) : (char)sim_below(w, 256);
    }
    if (sim_chance(w, 4) && p->body.len) {
        p->body.len = sim_below(w, p->body.len);
    }
}

/* Sends what another device has sent, as itself, changed or not. */
void server_attack(world *w) {
    size_t at = sim_below(w, OLD_MAX);
    packet *seen = &w->requests[at], p, answer, *one = &p;
    if (!seen->used || strcmp(seen->path.ptr, "/v1/devices") == 0) {
        return; /* who registers another's id before it does has guessed 128 bits */
    }
    packet_copy(&p, seen);
    packet_init(&answer);
    const device *as = &w->devices[sim_below(w, (uint64_t)w->device_count)];
    bytes_clear(&p.token);
    bytes_text(&p.token, "Bearer ");
    server_mint(w, as, &p.token);
    bool other_tenant = as->scope != w->devices[p.device].scope;
    p.device = as->number;
    int64_t before = w->oracle.scopes[!as->scope].head;
    if (!other_tenant || sim_chance(w, 2)) {
        change_request(w, &p);
    }
    server_serve(w, &one, 1, &answer);
    w->faults++;
    w->seen[other_tenant ? SEEN_ATTACK_OTHER : SEEN_ATTACK]++;
    if (w->oracle.scopes[!as->scope].head != before) {
        sim_fail(w, "I23", "device %d of s%d wrote to the other tenant", as->number, as->scope);
    }
    packet_deinit(&p);
    packet_deinit(&answer);
}
