/* Life of the daemon and the devices. See socket_world.h. */
#define _DEFAULT_SOURCE /* getentropy */

#include "torture/socket_world.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include "folder.h"
#include "server/auth.h"
#include "transport/transport.h"

static const char secret[] = "0123456789abcdef0123456789abcdef";
static const char *const databases[] = {"app0.db", "app1.db", "app2.db", "data/store.db"};

static int patience_ms = PATIENCE_MS; /* changed while nobody else is at work */

void world_patience(int ms) {
    patience_ms = ms;
}

/* ---- the application's requests are short, whoever makes them ---- */

CURLcode __real_curl_easy_setopt(CURL *curl, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *curl, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *curl, CURLoption option, ...) {
    va_list args;
    va_start(args, option);
    void *word = va_arg(args, void *); /* a long, a curl_off_t or a pointer: one word each */
    va_end(args);
    if (option == CURLOPT_TIMEOUT_MS && (intptr_t)word > patience_ms) {
        return __real_curl_easy_setopt(curl, option, (long)patience_ms);
    }
    return __real_curl_easy_setopt(curl, option, word);
}

static void pause_ms(int ms) {
    const struct timespec t = {0, ms * 1000000L};
    (void)nanosleep(&t, NULL);
}

/* ---- files ---- */

static void join(char out[PATH_BYTES], const char *folder, const char *name) {
    int n = snprintf(out, PATH_BYTES, "%s/%s", folder, name);
    if (n < 0 || n >= PATH_BYTES) {
        world_fail("the path %s is too long", folder);
    }
}

static void copy_file(const char *from, const char *to, const char *name) {
    char source[PATH_BYTES], target[PATH_BYTES], buffer[65536];
    size_t got = 0;
    join(source, from, name);
    join(target, to, name);
    FILE *in = fopen(source, "r");
    if (!in) {
        return; /* no such device in this scenario */
    }
    FILE *out = fopen(target, "w");
    while (out && (got = fread(buffer, 1, sizeof buffer, in)) > 0) {
        if (fwrite(buffer, 1, got, out) != got) {
            world_fail("%s can't be written", target);
        }
    }
    if (fclose(in) != 0 || !out || fclose(out) != 0) {
        world_fail("%s can't be copied", source);
    }
}

void world_remove(const char *folder) {
    static const char *const others[] = {"schema.sql", "config.ini", "cert.pem", "key.pem",
                                         "data/tmp",   "data",       ""};
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < COUNT_OF(databases) * COUNT_OF(ends); i++) {
        int n = snprintf(path, sizeof path, "%s/%s%s", folder, databases[i / COUNT_OF(ends)],
                         ends[i % COUNT_OF(ends)]);
        if (n > 0 && n < PATH_BYTES) {
            (void)unlink(path);
        }
    }
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        join(path, folder, others[i]);
        if (unlink(path) != 0) {
            (void)rmdir(path);
        }
    }
}

/* ---- the server ---- */

static godwit_status load_settings(world *w, char message[512]) {
    static char listen[32], data[PATH_BYTES], tables[PATH_BYTES], file[PATH_BYTES],
        cert[PATH_BYTES], key[PATH_BYTES];
    snprintf(listen, sizeof listen, "127.0.0.1:%s", w->port);
    join(data, w->folder, "data");
    join(tables, w->template, "schema.sql");
    join(file, w->template, "config.ini");
    join(cert, w->template, "cert.pem");
    join(key, w->template, "key.pem");
    const config_texts flags = {.listen = listen,
                                .data = data,
                                .schema = tables,
                                .threads = "2",
                                .tls_cert = w->tls ? cert : NULL,
                                .tls_key = w->tls ? key : NULL};
    return config_load(&w->memory, &flags, NULL, file, &w->settings, message);
}

static godwit_status start_once(world *w, char message[512]) {
    const keyring_options options = {.secret = SLICE("0123456789abcdef0123456789abcdef")};
    godwit_status status = load_settings(w, message);
    if (status) {
        world_fail("settings: %s", message);
    }
    status = daemon_open(&w->settings, &w->daemon, message);
    if (status == GODWIT_OK && !w->keys) {
        status = keyring_open(&options, &w->keys, message);
    }
    if (status == GODWIT_OK) {
        status = daemon_start(w->daemon, w->keys, message);
    }
    if (status == GODWIT_OK) {
        snprintf(w->port, sizeof w->port, "%s", strrchr(daemon_url(w->daemon), ':') + 1);
    } else {
        server_stop(w);
    }
    return status;
}

/* Another program may have taken the port meanwhile, for a moment. */
godwit_status server_start(world *w) {
    char message[512] = "";
    socket_side before = sockets_enter(SIDE_SERVER);
    godwit_status status = start_once(w, message);
    for (int i = 0; i < 40 && status == GODWIT_IO && sockets_hits() == 0; i++) {
        pause_ms(25);
        status = start_once(w, message);
    }
    (void)sockets_enter(before);
    return status;
}

void server_stop(world *w) {
    socket_side before = sockets_enter(SIDE_SERVER);
    daemon_close(w->daemon);
    w->daemon = NULL;
    (void)sockets_enter(before);
}

/* ---- devices ---- */

/* Whoever asks the host is the client: this is how its own thread is told. */
static void claim(void) {
    socket_side before = sockets_enter(SIDE_CLIENT);
    if (before != SIDE_UNTOLD) {
        (void)sockets_enter(before);
    }
}

static void *resize(void *context, void *block, size_t size) {
    (void)context;
    claim();
    if (size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, size);
}

/* What is drawn by 8 bytes is how long to wait: not at all. */
static int entropy(void *context, void *buffer, size_t size) {
    (void)context;
    if (size == 8) {
        memset(buffer, 0, size);
        return 0;
    }
    return getentropy(buffer, size);
}

static int place(void *context, const char *path, uint8_t out[16]) {
    (void)path;
    memset(out, 1 + ((const device *)context)->number, 16);
    return 0;
}

void must(const device *d, godwit_status status, const char *what) {
    if (status != GODWIT_OK) {
        world_fail("device %d: %s: %s: %s", d->number, what, godwit_status_name(status),
                   godwit_message(d->g));
    }
}

static void init(device *d) {
    char url[64], ca[PATH_BYTES];
    join(ca, d->w->template, "cert.pem");
    snprintf(url, sizeof url, "%s://godwit.test:%s", d->w->tls ? "https" : "http", d->w->port);
    const godwit_settings settings = {
        .url = url, .scope = "s", .token = d->w->token, .ca_file = d->w->tls ? ca : NULL};
    must(d, godwit_init(d->g, &settings), "init");
}

void device_open(device *d) {
    const godwit_options options = {
        .host = {
            .allocator = {.resize = resize}, .context = d, .entropy = entropy, .place = place}};
    godwit_status status = godwit_open(d->path, &options, &d->g);
    must(d, status, "open");
    d->db = godwit_connection(d->g);
    device_run(d, "PRAGMA foreign_keys = ON");
    init(d);
}

void device_close(device *d) {
    socket_side before = sockets_enter(SIDE_CLIENT);
    godwit_close(d->g);
    (void)sockets_enter(before);
    d->g = NULL;
    d->db = NULL;
}

void device_make(device *d) {
    device_open(d);
    device_run(d, "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER);"
                  "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON"
                  " DELETE CASCADE, body TEXT, slug TEXT UNIQUE);");
    must(d, godwit_track(d->g, "pins", NULL), "track pins");
    must(d, godwit_track(d->g, "forms", NULL), "track forms");
}

godwit_status device_sync(device *d) {
    socket_side before = sockets_enter(SIDE_CLIENT);
    godwit_status status = godwit_sync(d->g, patience_ms, NULL);
    (void)sockets_enter(before);
    return status;
}

static void take_pass(void *context, godwit_status status, const godwit_sync_report *report,
                      const char *message) {
    device *d = context;
    godwit_class cls = godwit_status_class(status);
    (void)report;
    (void)message;
    if (cls != GODWIT_CLASS_OK && cls != GODWIT_CLASS_RETRY) {
        d->w->bad_status = (int)status;
    }
}

godwit_status device_start(device *d) {
    const godwit_run_options run = {
        .interval_ms = 300, .local_ms = 10, .wait_seconds = 1, .on_pass = take_pass, .context = d};
    return godwit_start(d->g, &run);
}

void device_stop(device *d) {
    (void)godwit_stop(d->g);
    if (d->w->bad_status) {
        world_fail("a pass in the background says %s",
                   godwit_status_name((godwit_status)d->w->bad_status));
    }
}

godwit_status device_wait(device *d, const char *sql) {
    int64_t until_ms = sockets_now_ms() + patience_ms;
    while (!device_int(d, sql)) {
        if (sockets_now_ms() >= until_ms) {
            return GODWIT_TIMEOUT;
        }
        pause_ms(3);
    }
    return GODWIT_OK;
}

/* ---- server-sent events ---- */

static int connect_here(const world *w) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    to.sin_port = htons((uint16_t)strtoul(w->port, NULL, 10));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void stream_close(world *w) {
    if (w->stream >= 0) {
        close(w->stream);
        w->stream = -1;
    }
}

godwit_status stream_open(world *w) {
    char text[1024];
    stream_close(w);
    w->stream = connect_here(w);
    w->stream_head = -1;
    int len = snprintf(text, sizeof text,
                       "GET /v1/sync/events?scope=s HTTP/1.1\r\nHost: godwit.test\r\n"
                       "Authorization: Bearer %s\r\n\r\n",
                       w->token);
    if (w->stream < 0 || send(w->stream, text, (size_t)len, MSG_NOSIGNAL) != len) {
        return GODWIT_UNREACHABLE;
    }
    return stream_wait(w, -1);
}

/* Events are short: one that comes in two pieces is heard with the next. */
static bool hear(world *w) {
    char text[2048];
    ssize_t got = recv(w->stream, text, sizeof text - 1, 0);
    if (got <= 0) {
        return false;
    }
    text[got] = 0;
    for (const char *at = strstr(text, "\"head\":"); at; at = strstr(at + 1, "\"head\":")) {
        int64_t head = strtoll(at + 7, NULL, 10);
        w->stream_head = head > w->stream_head ? head : w->stream_head;
    }
    return true;
}

godwit_status stream_wait(world *w, int64_t head) {
    int64_t until_ms = sockets_now_ms() + patience_ms;
    while (w->stream_head <= head) {
        struct pollfd one = {.fd = w->stream, .events = POLLIN};
        int64_t left_ms = until_ms - sockets_now_ms();
        if (left_ms <= 0 || poll(&one, 1, (int)left_ms) <= 0) {
            return GODWIT_TIMEOUT;
        }
        if (!hear(w)) {
            return GODWIT_UNREACHABLE;
        }
    }
    return GODWIT_OK;
}

/* ---- the test ---- */

void texts(sqlite3 *db, const char *sql, char *out, size_t max) {
    sqlite3_stmt *stmt = NULL;
    size_t used = strlen(out);
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW) {
            const char *text = (const char *)sqlite3_column_text(stmt, 0);
            int n = snprintf(out + used, max - used, "%s", text ? text : "-");
            used += n > 0 && used + (size_t)n < max ? (size_t)n : 0;
        }
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE) {
        world_fail("%s: %s", sql, sqlite3_errmsg(db));
    }
}

void device_run(device *d, const char *sql) {
    if (sqlite3_exec(d->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        world_fail("device %d: %s: %s", d->number, sql, sqlite3_errmsg(d->db));
    }
}

int64_t device_int(device *d, const char *sql) {
    char out[64] = "";
    texts(d->db, sql, out, sizeof out);
    return strtoll(out, NULL, 10);
}

sqlite3 *world_store(const world *w) {
    char path[PATH_BYTES];
    sqlite3 *db = NULL;
    join(path, w->folder, "data/store.db");
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(db, 2000) != SQLITE_OK) {
        world_fail("the store can't be opened");
    }
    return db;
}

int64_t world_store_int(const world *w, const char *sql) {
    char out[64] = "";
    sqlite3 *db = world_store(w);
    texts(db, sql, out, sizeof out);
    sqlite3_close(db);
    return strtoll(out, NULL, 10);
}

int world_probe(world *w) {
    char url[64], ca[PATH_BYTES];
    transport *t = NULL;
    godwit_http_answer answer = {0};
    join(ca, w->template, "cert.pem");
    snprintf(url, sizeof url, "%s://godwit.test:%s/readyz", w->tls ? "https" : "http", w->port);
    const godwit_http_request request = {
        .method = "GET", .url = url, .timeout_ms = patience_ms, .answer_max = 65536};
    if (transport_create(NULL, &t) != GODWIT_OK) {
        world_fail("out of memory");
    }
    transport_trust(t, w->tls ? slice_of(ca) : (slice){0});
    transport_exchange(t, &request, &answer);
    transport_destroy(t);
    free(answer.body);
    return answer.status;
}

/* ---- life ---- */

static void make_token(world *w) {
    const auth_settings settings = {0};
    principal who = {.user = SLICE("ana"), .scope_count = 1};
    bytes token;
    who.scopes[0] = SLICE("s");
    bytes_init(&token, NULL, 0);
    if (auth_mint(&settings, slice_of(secret), &who, (int64_t)time(NULL), &token) != GODWIT_OK ||
        token.len >= sizeof w->token) {
        world_fail("no token");
    }
    memcpy(w->token, token.ptr, token.len);
    bytes_deinit(&token);
}

void world_make(world *w, const char *template, bool tls) {
    char path[PATH_BYTES];
    memset(w, 0, sizeof *w);
    w->template = template;
    w->tls = tls;
    w->stream = -1;
    snprintf(w->port, sizeof w->port, "0");
    arena_init(&w->memory, NULL, 0);
    if (!folder_make(w->folder, sizeof w->folder)) {
        world_fail("no folder can be made");
    }
    join(path, w->folder, "data");
    if (mkdir(path, 0700) != 0) {
        world_fail("%s can't be made", path);
    }
    make_token(w);
    for (int i = 0; i < DEVICES; i++) {
        device *d = &w->devices[i];
        *d = (device){.w = w, .number = i};
        join(d->path, w->folder, databases[i]);
    }
}

void world_keep(const world *w, const char *folder) {
    char path[PATH_BYTES];
    join(path, folder, "data");
    if (mkdir(path, 0700) != 0) {
        world_fail("%s can't be made", path);
    }
    for (size_t i = 0; i < COUNT_OF(databases); i++) {
        copy_file(w->folder, folder, databases[i]);
    }
}

void world_open(world *w, const char *template, bool tls) {
    struct stat info;
    world_make(w, template, tls);
    for (size_t i = 0; i < COUNT_OF(databases); i++) {
        copy_file(template, w->folder, databases[i]);
    }
    if (server_start(w) != GODWIT_OK) {
        world_fail("the server does not start");
    }
    for (int i = 0; i < DEVICES; i++) {
        if (stat(w->devices[i].path, &info) == 0) {
            device_open(&w->devices[i]);
        }
    }
}

void world_close(world *w) {
    stream_close(w);
    for (int i = 0; i < DEVICES; i++) {
        device_close(&w->devices[i]);
    }
    server_stop(w);
    keyring_close(w->keys);
    w->keys = NULL;
    arena_deinit(&w->memory);
}
