/* godwit serve: settings from flags, environment and file, then the daemon until a signal.
 *
 * Refuses before anything is opened what would be a mistake: an address others can reach without
 * settings for tokens, a folder another server works on, files that cannot be read. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/confine.h"
#include "server/daemon.h"
#include "server/secret.h"
#include "server/service.h"
#include "server/store.h"
#include "server/tls.h"
#include "transport/transport.h"

#define FETCH_TIMEOUT_MS 10000

static const char help[] =
    "Usage: godwit serve [--listen HOST:PORT] [--data DIR] [--schema FILE] [OPTIONS]\n\n"
    "Runs the sync server over an SQLite store in DIR. Needs no configuration: it listens on this\n"
    "machine only and makes the secret that signs tokens (see 'godwit token').\n\n"
    "Options:\n"
    "  --listen HOST:PORT  where to listen (127.0.0.1:8787); port 0 takes a free one\n"
    "  --data DIR          folder of the store (./godwit-data), made when absent\n"
    "  --db URL            postgres://.. keeps the store in PostgreSQL ('godwit pg --help'); "
    "better\n"
    "                      given by GODWIT_DB or the file, where no list of processes shows it\n"
    "  --schema FILE       CREATE TABLE statements of the synced tables\n"
    "  --config FILE       settings: [server] and [table NAME] sections\n"
    "  --dev               take over the tables that devices declare\n"
    "  --threads N         network threads, and as many workers (one per core)\n"
    "  --log LEVEL         debug, info, warn, error or off (info)\n"
    "  --user NAME         become this user after the start, when started as root\n"
    "  --check-config      say whether the settings are good, start nothing\n\n"
    "Every setting of the file can also come from the environment: GODWIT_LISTEN, GODWIT_DATA, "
    "GODWIT_DB,\n"
    "GODWIT_SCHEMA, GODWIT_DEV, GODWIT_THREADS, GODWIT_LOG, GODWIT_JWT_SECRET_FILE,\n"
    "GODWIT_JWKS, GODWIT_JWT_ISSUER, GODWIT_JWT_AUDIENCE, GODWIT_SCOPES_CLAIM, GODWIT_HOOKS,\n"
    "GODWIT_TLS_CERT, GODWIT_TLS_KEY and so on. Flags win, then the environment.\n"
    "The first line on stdout is 'listening on URL'. SIGTERM or SIGINT stops it: what is under "
    "way\n"
    "is finished first; a second signal ends it at once.\n\n"
    "Examples:\n"
    "  godwit serve --dev                               # a first try\n"
    "  godwit serve --schema schema.sql --data /var/lib/godwit\n"
    "  GODWIT_DB=postgres://db.example/app godwit serve --config /etc/godwit.ini\n"
    "  godwit serve --listen 0.0.0.0:8787 --config /etc/godwit.ini\n"
    "  godwit serve --config godwit.ini --check-config\n";

static const char *environment(const char *name) {
    return getenv(name);
}

typedef struct {
    config_texts texts;
    const char *config_file;
    bool dev, check_only;
} flags;

static int parse(int argc, char **argv, flags *out) {
    const cli_option options[] = {
        {.name = "--listen", .text = &out->texts.listen},
        {.name = "--data", .text = &out->texts.data},
        {.name = "--db", .text = &out->texts.db},
        {.name = "--schema", .text = &out->texts.schema},
        {.name = "--config", .text = &out->config_file},
        {.name = "--threads", .text = &out->texts.threads},
        {.name = "--log", .text = &out->texts.log},
        {.name = "--user", .text = &out->texts.user},
        {.name = "--dev", .flag = &out->dev},
        {.name = "--check-config", .flag = &out->check_only},
    };
    const cli_spec spec = {"serve", help, options, COUNT_OF(options), 0, 0};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (out->dev) {
        out->texts.dev = "yes";
    }
    if (!out->config_file) {
        out->config_file = getenv("GODWIT_CONFIG");
    }
    return code;
}

static int check_readable(const char *what, const char *path) {
    if (path && access(path, R_OK) != 0) {
        return cli_fail("the %s %s can't be read: %s", what, path, strerror(errno));
    }
    return CLI_GO;
}

/* What is wrong with settings that are each fine. */
static int check(const config *settings) {
    if (!settings->loopback && !settings->dev && !settings->jwt_secret_file && !settings->jwks) {
        return cli_fail(
            "%s can be reached by other machines: name the keys that sign tokens first "
            "(jwt_secret_file or jwks in [server], or GODWIT_JWT_SECRET_FILE, GODWIT_JWKS), or "
            "pass --dev to try it with the generated one",
            settings->host);
    }
    if (settings->db && strncmp(settings->db, "postgres://", 11) != 0 &&
        strncmp(settings->db, "postgresql://", 13) != 0) {
        return cli_fail("--db wants a URL that begins with postgres://");
    }
    if (settings->db && settings->schema) {
        return cli_fail("--schema is for the SQLite store: make the tables with psql, then run the "
                        "output of 'godwit pg track TABLE..'");
    }
    int code = check_readable("schema", settings->schema);
    return code == CLI_GO ? check_readable("secret", settings->jwt_secret_file) : code;
}

/* Key sets come over the transport that clients use: no redirect is followed. */
static godwit_status fetch(void *context, const char *url, bytes *out, char message[512]) {
    transport *t = NULL;
    godwit_http_request request = {.method = "GET",
                                   .url = url,
                                   .timeout_ms = FETCH_TIMEOUT_MS,
                                   .answer_max = KEY_SET_BYTES_MAX};
    godwit_http_answer answer = {0};
    (void)context;
    if (transport_create(NULL, &t)) {
        snprintf(message, 512, "this build can't fetch URLs");
        return GODWIT_UNSUPPORTED;
    }
    transport_exchange(t, &request, &answer);
    godwit_status status = answer.status == 200 ? GODWIT_OK : GODWIT_UNREACHABLE;
    if (status == GODWIT_OK) {
        bytes_add(out, answer.body, answer.body_bytes);
    } else if (answer.status) {
        snprintf(message, 512, "the key set's server answered %d", answer.status);
    } else {
        snprintf(message, 512, "the key set can't be fetched: %s", answer.reason);
    }
    mem_free(NULL, answer.body);
    transport_destroy(t);
    return status;
}

/* The generated secret counts only where no other key is named. */
static int load_key(const config *settings, bytes *key, bool *made) {
    char message[512];
    if (settings->jwks && !settings->jwt_secret_file) {
        return CLI_GO;
    }
    godwit_status status = settings->jwt_secret_file
                               ? secret_read(settings->jwt_secret_file, key, message)
                               : secret_load_or_make(settings->data, key, made, message);
    return status ? cli_fail("%s", message) : CLI_GO;
}

/* Where a first token comes from; the folder and the server are there, so that it works as printed.
 */
static void say_how_to_start(const config *settings, const daemon_server *d, bool made) {
    printf("listening on %s\n", daemon_url(d));
    if (made) {
        printf("a secret that signs tokens was made; get a token with: godwit token --data %s "
               "--sub me "
               "--scope demo\n",
               settings->data);
    }
    fflush(stdout);
}

static int run(const config *settings, daemon_server *d, keyring *keys, bool made) {
    char message[512], data[256], url[256];
    godwit_status status = daemon_start(d, keys, message);
    if (status) {
        return cli_fail("%s", message[0] ? message : "out of memory");
    }
    say_how_to_start(settings, d, made);
    log_event(LOG_INFO, "started", "version=%s url=%s data=%s dev=%s threads=%d pid=%ld",
              godwit_version(), log_value(slice_of(daemon_url(d)), url),
              log_value(slice_of(settings->data), data), settings->dev ? "yes" : "no",
              settings->threads, (long)getpid());
    daemon_serve(d);
    log_event(LOG_INFO, "stopped", "reason=signal");
    return CLI_OK;
}

/* Threads that use the keys end with the daemon. */
static int open_keys_and_run(const config *settings, daemon_server *d, slice key, bool made) {
    char message[512];
    keyring *keys;
    keyring_options options = {.secret = key,
                               .jwks = settings->jwks,
                               .refresh_ms = settings->jwks_refresh_ms,
                               .fetch = fetch};
    if (keyring_open(&options, &keys, message)) {
        daemon_close(d);
        return cli_fail("%s", message);
    }
    int code = run(settings, d, keys, made);
    daemon_close(d);
    keyring_close(keys);
    return code;
}

/* Becomes the user that was named, and keeps only the files and calls that a server needs. */
static int confine(const config *settings) {
    char message[512], pgpass[PATH_MAX] = "", postgres[PATH_MAX] = "";
    const char *home = getenv("HOME"), *library = settings->hooks.library;
    if (settings->user && confine_user(settings->user, message)) {
        return cli_fail("%s", message);
    }
    if (!settings->harden) {
        return CLI_GO;
    }
    if (settings->db && home && *home) {
        snprintf(pgpass, sizeof pgpass, "%s/.pgpass", home);
        snprintf(postgres, sizeof postgres, "%s/.postgresql", home);
    }
    if (secret_folder(settings->data, message)) {
        return cli_fail("%s", message);
    }
    if (store_temporary_folder(settings->data)) {
        return cli_fail("out of memory");
    }
    const confine_path paths[] = {
        {settings->data, CONFINE_WRITE, false},
        {settings->schema, CONFINE_READ, false},
        {settings->config_file, CONFINE_READ, false},
        {settings->jwt_secret_file, CONFINE_READ, false},
        {settings->jwks && !keyring_is_url(settings->jwks) ? settings->jwks : NULL, CONFINE_READ,
         true},
        {settings->tls_cert, CONFINE_READ, true},
        {settings->tls_key, CONFINE_READ, true},
        {library, CONFINE_EXECUTE, false},
        {library ? "/proc/self/exe" : NULL, CONFINE_EXECUTE, false},
        /* shared libraries, names of hosts, authorities, time zones */
        {"/usr/lib", CONFINE_EXECUTE, false},
        {"/lib", CONFINE_EXECUTE, false},
        {"/lib64", CONFINE_EXECUTE, false},
        {"/usr/share/ca-certificates", CONFINE_READ, false},
        {"/usr/share/zoneinfo", CONFINE_READ, false},
        {"/etc/ssl/certs", CONFINE_READ, false},
        {"/etc/ssl/openssl.cnf", CONFINE_READ, false},
        {"/etc/ld.so.cache", CONFINE_READ, false},
        {"/etc/localtime", CONFINE_READ, false},
        {"/etc/hosts", CONFINE_READ, false},
        {"/etc/host.conf", CONFINE_READ, false},
        {"/etc/resolv.conf", CONFINE_READ, false},
        {"/etc/nsswitch.conf", CONFINE_READ, false},
        {"/etc/gai.conf", CONFINE_READ, false},
        {"/etc/services", CONFINE_READ, false},
        {"/etc/passwd", CONFINE_READ, false}, /* libpq asks who it is */
        {"/dev/null", CONFINE_WRITE, false},
        {"/dev/urandom", CONFINE_READ, false},
        {pgpass, CONFINE_READ, false},
        {postgres, CONFINE_READ, false},
        {getenv("PGPASSFILE"), CONFINE_READ, false},
        {getenv("PGSSLROOTCERT"), CONFINE_READ, false},
    };
    if (confine_files(paths, COUNT_OF(paths), message) || confine_calls(message)) {
        return cli_fail("%s", message);
    }
    log_event(LOG_INFO, "hardened", "files=landlock calls=seccomp");
    return CLI_GO;
}

/* d: transferred. */
static int open_folder_and_run(const config *settings, daemon_server *d) {
    char message[512];
    int lock = -1;
    bool made = false;
    bytes key;
    bytes_init(&key, NULL, 0);
    if (secret_folder(settings->data, message) || secret_lock(settings->data, &lock, message)) {
        daemon_close(d);
        return cli_fail("%s", message);
    }
    int code = load_key(settings, &key, &made);
    if (code == CLI_GO) {
        code = open_keys_and_run(settings, d, bytes_view(&key), made);
    } else {
        daemon_close(d);
    }
    if (key.ptr) {
        memset(key.ptr, 0, key.len);
    }
    bytes_deinit(&key);
    close(lock);
    return code;
}

static int open_and_run(const config *settings) {
    char message[512];
    daemon_server *d;
    godwit_status status = daemon_open(settings, &d, message);
    if (status) {
        return cli_fail("%s", message[0] ? message : "out of memory");
    }
    int code = confine(settings);
    if (code != CLI_GO) {
        daemon_close(d);
        return code;
    }
    return open_folder_and_run(settings, d);
}

/* That the certificate and its key are a pair, and what is to be given up can be. */
static int check_edge(const config *settings) {
    char message[512];
    tls_context *t = NULL;
    if (confine_check(settings->user, settings->harden, message)) {
        return cli_fail("%s", message);
    }
    if (settings->tls_cert && tls_open(settings->tls_cert, settings->tls_key, &t, message)) {
        return cli_fail("%s", message);
    }
    tls_close(t);
    return CLI_GO;
}

/* The schema file and the [table ..] sections as the server would take them, in a store that is
 * removed again. Sections of tables that only the real store knows are not looked at. */
static int check_tables(const config *settings) {
    static const char *const names[] = {"store.db", "store.db-wal", "store.db-shm", ""};
    char folder[512], path[600], message[512];
    const char *where = getenv("TMPDIR");
    service *s = NULL;
    snprintf(path, sizeof path, "%.500s/store.db", settings->data);
    bool stored = access(path, F_OK) == 0;
    snprintf(folder, sizeof folder, "%.400s/godwit-check-XXXXXX", where && *where ? where : "/tmp");
    if (!mkdtemp(folder)) {
        return cli_fail("%s: %s", folder, strerror(errno));
    }
    const service_options options = {.store = folder,
                                     .schema_file = settings->schema,
                                     .config_tables = settings->config_file,
                                     .dev = settings->dev || stored || settings->db,
                                     .hooks = settings->hooks.library ? &settings->hooks : NULL};
    godwit_status status = service_open(&options, &s, message);
    service_close(s);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    return status ? cli_fail("%s", message) : CLI_GO;
}

int cli_serve(int argc, char **argv) {
    flags given = {0};
    config settings;
    char message[512];
    int code = parse(argc, argv, &given);
    if (code != CLI_GO) {
        return code;
    }
    arena memory;
    arena_init(&memory, NULL, 0);
    godwit_status status =
        config_load(&memory, &given.texts, environment, given.config_file, &settings, message);
    if (status) {
        code = cli_fail("%s", message[0] ? message : "out of memory");
    } else {
        settings.hooks.program = "/proc/self/exe"; /* this file, also when another takes its name */
        log_set_level(settings.level);
        code = check(&settings);
    }
    if (code == CLI_GO && given.check_only) {
        code = check_edge(&settings);
        code = code == CLI_GO ? check_tables(&settings) : code;
    }
    if (code == CLI_GO && given.check_only) {
        printf("the settings are good\n");
        code = CLI_OK;
    } else if (code == CLI_GO) {
        code = open_and_run(&settings);
    }
    arena_deinit(&memory);
    return code;
}
