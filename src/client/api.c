/* The handle: opening and closing, messages, settings, and the frame every public call runs in.
 *
 * A handle owns or borrows one connection. Defaults for what the host does not supply are here:
 * time, randomness. Nothing here knows about tables or operations. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "client/event.h"
#include "client/group.h"
#include "client/identity.h"
#include "client/runner.h"
#include "client/track.h"
#include "core/limits.h"
#include "core/retain.h"

#define SQLITE_VERSION_MIN 3038000
#define URL_BYTES_MAX      2048
#define PATH_BYTES_MAX     4096

const char *godwit_version(void) {
    return "0.1.0";
}

/* ---- What the host supplies ---- */

static int64_t clock_ms(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) {
        return 0;
    }
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t client_wall_ms(godwit *g) {
    const godwit_host *host = &g->options.host;
    return host->wall_ms ? host->wall_ms(host->context) : clock_ms(CLOCK_REALTIME);
}

int64_t client_mono_ms(godwit *g) {
    const godwit_host *host = &g->options.host;
    return host->mono_ms ? host->mono_ms(host->context) : clock_ms(CLOCK_MONOTONIC);
}

static bool system_entropy(void *buffer, size_t size) {
    int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    size_t done = 0;
    while (file >= 0 && done < size) {
        ssize_t n = read(file, (char *)buffer + done, size - done);
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    if (file >= 0) {
        (void)close(file);
    }
    return done == size;
}

godwit_status client_entropy(godwit *g, void *buffer, size_t bytes_wanted) {
    const godwit_host *host = &g->options.host;
    bool ok = host->entropy ? host->entropy(host->context, buffer, bytes_wanted) == 0
                            : system_entropy(buffer, bytes_wanted);
    return ok ? GODWIT_OK : client_fail(g, GODWIT_IO, "the source of random numbers failed");
}

void client_log(godwit *g, godwit_log_level level, const char *format, ...) {
    char line[512];
    va_list args;
    if (!g->options.host.log) {
        return;
    }
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    g->options.host.log(g->options.host.context, level, line);
}

/* ---- Messages and the frame of a call ---- */

godwit_status client_fail(godwit *g, godwit_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(g->message, sizeof g->message, format, args);
    va_end(args);
    return status;
}

static void complete_message(godwit *g, godwit_status status) {
    if (status == GODWIT_OK || g->message[0]) {
        return;
    }
    if (g->db.message[0]) {
        snprintf(g->message, sizeof g->message, "%s: %s", godwit_status_text(status),
                 g->db.message);
    } else {
        snprintf(g->message, sizeof g->message, "%s", godwit_status_text(status));
    }
}

godwit_status client_refuse(godwit *g, godwit_status status, const char *text) {
    if (g && !g->in_call) {
        snprintf(g->message, sizeof g->message, "%s", text);
    }
    return status;
}

godwit_status client_enter(godwit *g) {
    if (!g) {
        return GODWIT_MISUSE;
    }
    if (g->in_call) {
        return GODWIT_MISUSE; /* the message belongs to the call that is running */
    }
    g->in_call = true;
    g->message[0] = '\0';
    g->db.message[0] = '\0';
    /* inside the application's transaction the engine's steps are savepoints */
    g->db.depth = sqlite3_get_autocommit(g->db.handle) ? 0 : 1;
    godwit_status status = client_registry_refresh(g);
    return status == GODWIT_OK ? status : client_leave(g, status);
}

godwit_status client_leave(godwit *g, godwit_status status) {
    ASSERT(g->in_call);
    complete_message(g, status);
    if (!g->db.owned) {
        db_forget(&g->db); /* a statement kept on a lent connection would keep it from closing */
    }
    g->in_call = false;
    return status;
}

const char *godwit_message(const godwit *g) {
    return g ? g->message : "the database could not be opened";
}

struct sqlite3 *godwit_connection(godwit *g) {
    return g ? g->db.handle : NULL;
}

void godwit_free(void *block) {
    mem_free(NULL, block);
}

/* ---- Opening and closing ---- */

static godwit_status set_up(godwit *g) {
    bool installed = false;
    bool current = false;
    if (sqlite3_libversion_number() < SQLITE_VERSION_MIN) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "SQLite %s is too old: Godwit needs 3.38 or later",
                           sqlite3_libversion());
    }
    /* the first read tells a file that is no database, or is locked */
    godwit_status status = client_installed(g, &installed, &current);
    if (status != GODWIT_OK) {
        return status;
    }
    if (sqlite3_db_readonly(g->db.handle, "main") == 1) {
        return client_fail(g, GODWIT_READONLY, "the database file can only be read");
    }
    if (!sqlite3_get_autocommit(g->db.handle) && !(installed && current)) {
        return client_fail(g, GODWIT_MISUSE,
                           "Godwit's tables can't be installed inside an open transaction");
    }
    status = durable_check(g);
    if (status == GODWIT_OK && sqlite3_get_autocommit(g->db.handle)) {
        status = client_install(g);
    }
    return status;
}

godwit_status client_create(struct sqlite3 *connection, const char *path,
                            const godwit_options *options, char *message, size_t message_bytes,
                            godwit **out) {
    static const godwit_options defaults = {0};
    options = options ? options : &defaults;
    *out = NULL;
    snprintf(message, message_bytes, "%s", "out of memory");
    const godwit_allocator *allocator = &options->host.allocator;
    godwit *g = mem_resize(allocator, NULL, sizeof *g);
    if (!g) {
        return GODWIT_NOMEM;
    }
    memset(g, 0, sizeof *g);
    g->options = *options;
    g->options.error = NULL; /* the caller's, for this call */
    g->allocator = &g->options.host.allocator;
    arena_init(&g->registry.memory, g->allocator, 0);
    godwit_status status = GODWIT_OK;
    if (connection) {
        db_attach(&g->db, connection);
    } else {
        int busy_ms = options->busy_timeout_ms > 0 ? options->busy_timeout_ms : BUSY_TIMEOUT_MS;
        status = db_open(&g->db, path,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, busy_ms);
    }
    if (status == GODWIT_OK) {
        g->db.depth = sqlite3_get_autocommit(g->db.handle) ? 0 : 1;
        status = set_up(g);
    }
    if (status == GODWIT_OK) {
        status = client_enter(g);
        if (status == GODWIT_OK) {
            status = client_leave(g, options->host.on_event ? event_keep(g, true) : GODWIT_OK);
        }
    }
    if (status != GODWIT_OK) {
        complete_message(g, status);
        snprintf(message, message_bytes, "%s", g->message);
        godwit_close(g);
        return status;
    }
    *out = g;
    return GODWIT_OK;
}

/* The host's buffer, when it gave one, has the reason. */
static godwit_status create(struct sqlite3 *connection, const char *path,
                            const godwit_options *options, godwit **out) {
    char message[sizeof((godwit *)0)->message] = "";
    if (!out) {
        return GODWIT_MISUSE;
    }
    *out = NULL;
    godwit_status status = GODWIT_MISUSE;
    snprintf(message, sizeof message, "no path or connection given");
    if (connection || path) {
        status = client_create(connection, path, options, message, sizeof message, out);
    }
    if (options && options->error && options->error_bytes) {
        snprintf(options->error, options->error_bytes, "%s", status == GODWIT_OK ? "" : message);
    }
    return status;
}

godwit_status godwit_open(const char *path, const godwit_options *options, godwit **out) {
    return create(NULL, path, options, out);
}

godwit_status godwit_attach(struct sqlite3 *connection, const godwit_options *options,
                            godwit **out) {
    return create(connection, NULL, options, out);
}

godwit_status godwit_close(godwit *g) {
    if (!g) {
        return GODWIT_OK;
    }
    if (runner_inside(g) || g->in_call) {
        return GODWIT_MISUSE; /* what called back goes on with the handle */
    }
    runner_end(g);
    pump_close(g);
    arena_deinit(&g->registry.memory);
    if (g->db.handle) {
        db_close(&g->db);
    }
    godwit_allocator allocator = *g->allocator; /* lives in the block it frees */
    mem_free(&allocator, g);
    return GODWIT_OK;
}

void client_abandon(godwit *g) {
    if (g) {
        g->db.handle = NULL; /* client_leave has given every statement back */
        godwit_close(g);
    }
}

void client_arrive(struct sqlite3 *connection) {
    godwit g = {0};
    g.allocator = &g.options.host.allocator;
    db_attach(&g.db, connection);
    (void)group_place(connection);
    if (durable_check(&g) != GODWIT_OK) {
        g.message[0] = '\0';
    }
    db_close(&g.db);
}

/* ---- Settings ---- */

godwit_status client_meta_text(godwit *g, arena *a, const char *key, slice *out) {
    godwit_status status =
        db_text(&g->db, a, out, "SELECT v FROM godwit_meta WHERE k = ?1", "s", slice_of(key));
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

godwit_status client_meta_int(godwit *g, const char *key, int64_t fallback, int64_t *out) {
    godwit_status status =
        db_int(&g->db, out, "SELECT v FROM godwit_meta WHERE k = ?1", "s", slice_of(key));
    if (status == GODWIT_NOT_FOUND) {
        *out = fallback;
        return GODWIT_OK;
    }
    return status;
}

godwit_status client_meta_set(godwit *g, const char *key, slice text) {
    if (!text.ptr) {
        return db_run(&g->db, "DELETE FROM godwit_meta WHERE k = ?1", "s", slice_of(key));
    }
    return db_run(&g->db, "INSERT OR REPLACE INTO godwit_meta(k, v) VALUES (?1, ?2)", "ss",
                  slice_of(key), text);
}

godwit_status client_meta_set_int(godwit *g, const char *key, int64_t v) {
    return db_run(&g->db, "INSERT OR REPLACE INTO godwit_meta(k, v) VALUES (?1, ?2)", "si",
                  slice_of(key), v);
}

/* Visible ASCII only: what may stand in a URL or a header. */
static bool plain(const char *text, size_t max) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if (text[i] <= ' ' || text[i] >= 127) {
            return false;
        }
    }
    return n > 0 && n <= max;
}

/* A scheme of ours and the beginning of a host. */
static bool web_address(const char *url) {
    size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    return scheme > 0 && url[scheme] && !strchr("/:?#", url[scheme]) && plain(url, URL_BYTES_MAX);
}

static const char *invalid_setting(const godwit_settings *s) {
    if (s->url && !web_address(s->url)) {
        return "url must look like https://host or https://host:port";
    }
    if (s->scope && !id_name_valid(slice_of(s->scope))) {
        return "scope must be 1 to 128 bytes of UTF-8 without control characters";
    }
    if (s->token && !plain(s->token, TOKEN_BYTES_MAX)) {
        return "token must be 1 to 8192 visible ASCII characters";
    }
    if (s->token && s->token_file) {
        return "token and token_file exclude each other";
    }
    if (s->token_file && (!*s->token_file || strlen(s->token_file) > PATH_BYTES_MAX)) {
        return "token_file must be a path of at most 4096 bytes";
    }
    if (s->ca_file && strlen(s->ca_file) > PATH_BYTES_MAX) {
        return "ca_file must be a path of at most 4096 bytes";
    }
    if (s->label && *s->label && !id_name_valid(slice_of(s->label))) {
        return "label must be at most 128 bytes of UTF-8 without control characters";
    }
    int64_t ms;
    if ((s->keep_archive && !retain_time_parse(s->keep_archive, &ms)) ||
        (s->keep_history && !retain_time_parse(s->keep_history, &ms))) {
        return "keep_archive and keep_history must be a time such as 30d, 12h or forever";
    }
    return NULL;
}

static godwit_status store_settings(godwit *g, const godwit_settings *s) {
    static const slice nothing = {NULL, 0};
    struct {
        const char *key, *text;
    } settings[] = {{"url", s->url},
                    {"scope", s->scope},
                    {"token", s->token},
                    {"token_file", s->token_file},
                    {"label", s->label},
                    {"keep_archive", s->keep_archive},
                    {"keep_history", s->keep_history},
                    {"ca_file", s->ca_file}};
    godwit_status status = GODWIT_OK;
    if (s->token || s->token_file) { /* one replaces the other */
        status = client_meta_set(g, s->token ? "token_file" : "token", nothing);
    }
    for (size_t i = 0; i < COUNT_OF(settings) && status == GODWIT_OK; i++) {
        if (settings[i].text) {
            status = client_meta_set(g, settings[i].key, slice_of(settings[i].text));
        }
    }
    return status;
}

static godwit_status seal_for_account(godwit *g) {
    bool more = true;
    int64_t bound = 0;
    godwit_status status =
        db_int(&g->db, &bound, "SELECT count(*) FROM godwit_meta WHERE k = 'user'", "");
    while (status == GODWIT_OK && bound && more) {
        status = seal_run(g, INT64_MAX, &more);
    }
    return status;
}

godwit_status godwit_init(godwit *g, const godwit_settings *settings) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    const char *reason = settings ? invalid_setting(settings) : "no settings given";
    if (reason) {
        return client_leave(g, client_fail(g, GODWIT_INVALID, "%s", reason));
    }
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return client_leave(g, status);
    }
    int64_t known = 0;
    status = db_int(&g->db, &known, "SELECT count(*) FROM godwit_meta WHERE k = 'url'", "");
    if (status == GODWIT_OK && !known && !settings->url) {
        status = client_fail(g, GODWIT_INVALID, "url is required the first time");
    }
    if (status == GODWIT_OK) { /* what is captured is of the account so far */
        status = seal_for_account(g);
    }
    if (status == GODWIT_OK) {
        status = store_settings(g, settings);
    }
    if (status == GODWIT_OK) {
        status = identity_check_user(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    } else {
        runner_hint(g, 0);
    }
    return client_leave(g, status);
}
