/* The exchange callback over service.h. See loopback.h. */
#include "loopback/loopback.h"
#include "../folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base64.h"
#include "db/sqlite.h"

static const char *const files[] = {"store.db", "store.db-wal", "store.db-shm", "schema.sql",
                                    "secret"};

static int64_t tick(void *context) {
    loopback *l = context;
    pthread_mutex_lock(&l->clock);
    int64_t now = ++l->now_ms;
    pthread_mutex_unlock(&l->clock);
    return now;
}

static void fail(const char *what, const char *detail) {
    fprintf(stderr, "loopback: %s: %s\n", what, detail);
    abort();
}

static void start(loopback *l) {
    char schema_path[300], message[512] = "";
    snprintf(schema_path, sizeof schema_path, "%s/schema.sql", l->folder);
    service_options options = {
        .store = l->folder, .schema_file = schema_path, .now_ms = tick, .context = l};
    if (service_open(&options, &l->service, message) != GODWIT_OK) {
        fail("service_open", message);
    }
}

void loopback_open(loopback *l, const char *schema_text) {
    char schema_path[300];
    memset(l, 0, sizeof *l);
    l->now_ms = INT64_C(1767323040000);
    pthread_mutex_init(&l->writer, NULL);
    pthread_mutex_init(&l->clock, NULL);
    if (!folder_make(l->folder, sizeof l->folder)) {
        fail("mkdtemp", l->folder);
    }
    snprintf(schema_path, sizeof schema_path, "%s/schema.sql", l->folder);
    FILE *file = fopen(schema_path, "w");
    if (!file || fputs(schema_text, file) < 0 || fclose(file) != 0) {
        fail("schema", schema_path);
    }
    start(l);
}

void loopback_restart(loopback *l) {
    service_close(l->service);
    start(l);
}

void loopback_close(loopback *l) {
    char path[600];
    service_close(l->service);
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", l->folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(l->folder);
    pthread_mutex_destroy(&l->writer);
    pthread_mutex_destroy(&l->clock);
}

void loopback_copy(const char *from, const char *to) {
    char buffer[65536];
    size_t n = 0;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    while (in && out && (n = fread(buffer, 1, sizeof buffer, in)) > 0) {
        if (fwrite(buffer, 1, n, out) != n) {
            fail("copy", to);
        }
    }
    if (!in || !out || ferror(in) || fclose(in) != 0 || fclose(out) != 0) {
        fail("copy", from);
    }
}

static void swap_store(loopback *l, const char *path, bool save) {
    char store[300];
    snprintf(store, sizeof store, "%s/store.db", l->folder);
    service_close(l->service);
    loopback_copy(save ? store : path, save ? path : store);
    start(l);
}

void loopback_save(loopback *l, const char *path) {
    swap_store(l, path, true);
}

void loopback_put_back(loopback *l, const char *path) {
    swap_store(l, path, false);
}

const char *loopback_token(const char *user, char out[200]) {
    char claims[100];
    bytes b;
    bytes_init(&b, NULL, 0);
    int len = snprintf(claims, sizeof claims, "{\"sub\":\"%s\",\"scopes\":[\"s\"]}", user);
    base64url_encode(&b, (slice){claims, (size_t)len});
    snprintf(out, 200, "x.%s.x", b.ptr);
    bytes_deinit(&b);
    return out;
}

static slice user_of(const godwit_http_request *request) {
    static const char *const users[] = {"ana", "ben"};
    char token[200];
    for (size_t i = 0; i < COUNT_OF(users); i++) {
        for (size_t h = 0; h < request->header_count; h++) {
            if (strstr(request->headers[h], loopback_token(users[i], token))) {
                return slice_of(users[i]);
            }
        }
    }
    return slice_of(users[0]);
}

static int digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 0;
}

static slice decoded(arena *a, slice text) {
    char *out = arena_alloc(a, text.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '%' && i + 2 < text.len) {
            out[len++] = (char)(digit(text.ptr[i + 1]) * 16 + digit(text.ptr[i + 2]));
            i += 2;
        } else {
            out[len++] = text.ptr[i];
        }
    }
    return (slice){out, len};
}

static void read_query(service_job *job, const char *query) {
    struct {
        const char *name;
        slice *to;
    } fields[] = {{"scope", &job->q_scope},   {"cursor", &job->q_cursor},
                  {"device", &job->q_device}, {"tables", &job->q_tables},
                  {"limit", &job->q_limit},   {"wait", &job->q_wait},
                  {"token", &job->q_token}};
    while (query && *query) {
        size_t name = strcspn(query, "=&"), whole = strcspn(query, "&");
        for (size_t i = 0; i < COUNT_OF(fields); i++) {
            if (strlen(fields[i].name) == name && memcmp(fields[i].name, query, name) == 0 &&
                name < whole) {
                *fields[i].to = decoded(&job->memory, (slice){query + name + 1, whole - name - 1});
            }
        }
        query += whole + (query[whole] == '&');
    }
}

static service_verb verb_of(const char *path, size_t len) {
    static const struct {
        const char *path;
        service_verb verb;
    } table[] = {{"/v1/devices", VERB_REGISTER},           {"/v1/sync", VERB_SYNC},
                 {"/v1/sync/operations", VERB_PUSH},       {"/v1/sync/changes", VERB_CHANGES},
                 {"/v1/sync/snapshot", VERB_SNAPSHOT},     {"/v1/meta", VERB_META},
                 {"/v1/streams/reconcile", VERB_RECONCILE}};
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        if (strlen(table[i].path) == len && memcmp(table[i].path, path, len) == 0) {
            return table[i].verb;
        }
    }
    fail("unknown path", path);
    return VERB_META;
}

static void run(loopback *l, service_job *job) {
    service_prepare(l->service, job);
    if (job->wants_write) {
        pthread_mutex_lock(&l->writer);
        service_write(l->service, &job, 1, NULL, NULL);
        pthread_mutex_unlock(&l->writer);
    }
    if (job->wants_read && !job->status) {
        service_reader *own = NULL;
        if (service_reader_open(l->service, &own) != GODWIT_OK) {
            fail("service_reader_open", "");
        }
        job->wait_over = true;
        service_read(l->service, own, job);
        service_reader_close(own);
    }
}

static void exchange(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    loopback *l = context;
    const char *path = strstr(request->url, "/v1/");
    if (!path) {
        fail("url", request->url);
    }
    size_t path_len = strcspn(path, "?");
    service_job job;
    service_job_init(&job, verb_of(path, path_len));
    job.who.user = user_of(request);
    job.who.scopes[0] = SLICE("s");
    job.who.scope_count = 1;
    job.body = (slice){request->body, request->body_bytes};
    read_query(&job, path[path_len] == '?' ? path + path_len + 1 : NULL);
    run(l, &job);
    pthread_mutex_lock(&l->clock);
    l->exchanges++;
    bool lost = l->lose_answer && l->lose_answer(l, path);
    l->lost += lost;
    pthread_mutex_unlock(&l->clock);
    memset(answer, 0, sizeof *answer);
    answer->retry_after_ms = -1;
    if (lost) {
        snprintf(answer->reason, sizeof answer->reason, "the answer was lost on purpose");
    } else {
        answer->status = job.status;
        answer->body_bytes = job.answer.len;
        answer->body = malloc(job.answer.len + 1);
        if (!answer->body) {
            fail("malloc", "");
        }
        memcpy(answer->body, job.answer.ptr ? job.answer.ptr : "", job.answer.len);
    }
    service_job_deinit(&job);
}

godwit_host loopback_host(loopback *l) {
    return (godwit_host){.context = l, .wall_ms = tick, .mono_ms = tick, .exchange = exchange};
}

int64_t loopback_int(loopback *l, const char *sql) {
    char path[300];
    sqlite3 *handle = NULL;
    sqlite3_stmt *stmt = NULL;
    snprintf(path, sizeof path, "%s/store.db", l->folder);
    if (sqlite3_open_v2(path, &handle, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        fail(sql, sqlite3_errmsg(handle));
    }
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(handle);
    return value;
}
