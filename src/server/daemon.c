/* Starts in an order in which each failure undoes what was before: store, sockets, pool, loops.
 * Stops the other way round, after the loops have let their connections finish. */
#define _DEFAULT_SOURCE /* SO_REUSEPORT, which POSIX does not have */

#include "server/daemon.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/net.h"

#define LISTEN_BACKLOG 1024
#define FILES_SPARE    128 /* store, pipes, listeners, log */

struct daemon_server {
    server net;
    const config *settings;
    char url[320];
    int loops_ready;
};

/* ---- sockets ---- */

typedef struct {
    struct sockaddr_storage address;
    socklen_t length;
} endpoint;

static godwit_status resolve(const config *settings, endpoint *out, char message[512]) {
    struct addrinfo hints, *found = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    /* Whatever localhost means to the resolver, clients try this first. */
    const char *host = strcmp(settings->host, "localhost") == 0 ? "127.0.0.1" : settings->host;
    int code = getaddrinfo(host, settings->port, &hints, &found);
    if (code != 0 || !found) {
        snprintf(message, 512, "can't listen on %s: %s", settings->host,
                 code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
        return code == EAI_AGAIN || code == EAI_SYSTEM ? GODWIT_IO
               : code == EAI_MEMORY                    ? GODWIT_NOMEM
                                                       : GODWIT_INVALID;
    }
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->length = found->ai_addrlen;
    freeaddrinfo(found);
    return GODWIT_OK;
}

static void explain_bind(const config *settings, int code, char message[512]) {
    const char *host = settings->host, *port = settings->port;
    if (code == EADDRINUSE) {
        snprintf(
            message, 512,
            "port %s on %.100s is in use; stop the program that has it, or choose another with "
            "--listen %.100s:PORT (0 takes a free one)",
            port, host, host);
    } else if (code == EACCES) {
        snprintf(message, 512,
                 "port %s needs privileges; choose one above 1023 with --listen %.100s:PORT", port,
                 host);
    } else if (code == EADDRNOTAVAIL) {
        snprintf(message, 512, "%s is not an address of this machine; see --listen", host);
    } else {
        snprintf(message, 512, "can't listen on %s:%s: %s", host, port, strerror(code));
    }
}

/* A bound socket; -1 with errno. */
static int bind_one(const endpoint *e, bool share) {
    int on = 1;
    int fd = socket(e->address.ss_family, SOCK_STREAM, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              (!share || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
              bind(fd, (const struct sockaddr *)&e->address, e->length) == 0;
    if (!ok && fd >= 0) {
        int code = errno;
        close(fd);
        errno = code;
        fd = -1;
    }
    return fd;
}

/* Sockets that share a port may share it with another server of the same user, too: whether the
 * port is free is found out with one that does not share. */
static bool port_is_free(const endpoint *e) {
    int fd = bind_one(e, false);
    bool ok = fd >= 0 && listen(fd, 1) == 0;
    int code = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = code;
    return ok;
}

static void write_url(const config *settings, const endpoint *e, char *out, size_t max) {
    unsigned port = 0;
    if (e->address.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &e->address, sizeof in);
        port = ntohs(in.sin_port);
    } else {
        struct sockaddr_in6 in;
        memcpy(&in, &e->address, sizeof in);
        port = ntohs(in.sin6_port);
    }
    const char *host = strcmp(settings->host, "localhost") == 0 ? "127.0.0.1" : settings->host;
    bool brackets = strchr(host, ':') != NULL;
    snprintf(out, max, "%s://%s%s%s:%u", settings->tls_cert ? "https" : "http", brackets ? "[" : "",
             host, brackets ? "]" : "", port);
}

/* One listening socket per loop. */
static godwit_status open_listeners(daemon_server *d, const config *settings, char message[512]) {
    endpoint e;
    godwit_status status = resolve(settings, &e, message);
    if (status) {
        return status;
    }
    if (strcmp(settings->port, "0") != 0 && !port_is_free(&e)) {
        explain_bind(settings, errno, message);
        return GODWIT_IO;
    }
    for (int i = 0; i < settings->threads; i++) {
        int fd = bind_one(&e, true);
        if (fd < 0 || listen(fd, LISTEN_BACKLOG) != 0) {
            explain_bind(settings, errno, message);
            if (fd >= 0) {
                close(fd);
            }
            return GODWIT_IO;
        }
        d->loops_ready = i + 1;
        status = loop_init(&d->net.loops[i], &d->net, fd);
        if (status) {
            snprintf(message, 512, "can't prepare a loop: %s", strerror(errno));
            return status;
        }
        if (i == 0) {
            e.length = sizeof e.address;
            if (getsockname(fd, (struct sockaddr *)&e.address, &e.length) != 0) {
                snprintf(message, 512, "can't ask which port it is: %s", strerror(errno));
                return GODWIT_IO;
            }
        }
    }
    write_url(settings, &e, d->url, sizeof d->url);
    return GODWIT_OK;
}

static int64_t raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return 512;
    }
    rlim_t wanted = HTTP_CONNECTIONS_MAX + FILES_SPARE;
    if (files.rlim_cur != RLIM_INFINITY && files.rlim_cur < wanted) {
        files.rlim_cur =
            files.rlim_max == RLIM_INFINITY || files.rlim_max > wanted ? wanted : files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
        (void)getrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur == RLIM_INFINITY || files.rlim_cur >= wanted) {
        return HTTP_CONNECTIONS_MAX;
    }
    return files.rlim_cur > 2 * FILES_SPARE ? (int64_t)files.rlim_cur - FILES_SPARE : FILES_SPARE;
}

/* ---- life ---- */

static void wake_loops(void *context, slice scope, int64_t head) {
    server *s = context;
    for (int i = 0; i < s->loop_count; i++) {
        if (atomic_load(&s->loops[i].waiting) > 0) {
            loop_post_wake(&s->loops[i], scope, head);
        }
    }
}

static void on_commit(void *context, slice scope, int64_t head) {
    server *s = context;
    wake_loops(s, scope, head);
    if (s->wakeup) {
        wakeup_tell(s->wakeup, scope, head);
    }
}

static godwit_status start_wakeup(server *s) {
    struct store_signal *word = NULL;
    godwit_status status = service_signal_open(s->service, &word);
    if (status == GODWIT_OK) {
        status = wakeup_open(word, &s->metrics, wake_loops, s, &s->wakeup);
    }
    return status == GODWIT_UNSUPPORTED ? GODWIT_OK : status;
}

static void signals_of_interest(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
    if (!isatty(STDIN_FILENO)) { /* a terminal that is closed ends what ran in it */
        sigaddset(set, SIGHUP);
    }
}

static void apply_settings(server *s, const config *settings) {
    s->auth.issuer = slice_of(settings->jwt_issuer);
    s->auth.audience = slice_of(settings->jwt_audience);
    s->auth.scopes_claim = slice_of(settings->scopes_claim);
    s->auth.device_claim = slice_of(settings->device_claim);
    s->auth.role_claim = slice_of(settings->role_claim);
    s->auth.role_count = settings->role_count;
    memcpy(s->auth.roles, settings->roles, sizeof s->auth.roles);
    s->connections_max = raise_file_limit();
    s->memory_max = settings->memory_bytes;
}

static godwit_status open_service(server *s, const config *settings, char message[512]) {
    service_options options = {.store = settings->db ? settings->db : settings->data,
                               .schema_file = settings->schema,
                               .config_tables = settings->config_file,
                               .dev = settings->dev,
                               .hooks = settings->hooks.library ? &settings->hooks : NULL,
                               .roles = settings->roles,
                               .role_count = settings->role_count,
                               .scopes_sql = settings->scopes_sql,
                               .scopes_ttl_ms = settings->scopes_ttl_ms,
                               .read_only = settings->read_only,
                               .read_only_count = settings->read_only_count,
                               .retain = &settings->retain};
    return service_open(&options, &s->service, message);
}

static godwit_status open_sockets(daemon_server *d, const config *settings, char message[512]) {
    server *s = &d->net;
    s->loop_count = settings->threads;
    s->loops = mem_resize(NULL, NULL, (size_t)settings->threads * sizeof(loop));
    if (!s->loops) {
        return GODWIT_NOMEM;
    }
    memset(s->loops, 0, (size_t)settings->threads * sizeof(loop)); /* no thread, no socket yet */
    return open_listeners(d, settings, message);
}

static godwit_status start_threads(server *s, const config *settings, char message[512]) {
    pool_options options = {.service = s->service,
                            .metrics = &s->metrics,
                            .memory_max = s->memory_max,
                            .admit = dispatch_admit,
                            .workers = settings->threads < 2 ? 2 : settings->threads,
                            .janitor_every_ms = settings->janitor_every_ms,
                            .done = loop_post_done,
                            .on_commit = on_commit,
                            .context = s};
    godwit_status status = start_wakeup(s);
    if (status == GODWIT_OK) {
        status = pool_open(&options, &s->pool);
    }
    if (status) {
        snprintf(message, 512, "can't start the workers");
        return status;
    }
    for (int i = 0; i < s->loop_count; i++) {
        status = loop_start(&s->loops[i]);
        if (status) {
            snprintf(message, 512, "can't start a thread: %s", strerror(errno));
            return status;
        }
    }
    return GODWIT_OK;
}

godwit_status daemon_open(const config *settings, daemon_server **out, char message[512]) {
    *out = NULL;
    message[0] = 0;
    daemon_server *d = mem_resize(NULL, NULL, sizeof *d);
    if (!d) {
        return GODWIT_NOMEM;
    }
    memset(d, 0, sizeof *d);
    d->settings = settings;
    apply_settings(&d->net, settings);
    godwit_status status = GODWIT_OK;
    if (settings->tls_cert) {
        status = tls_open(settings->tls_cert, settings->tls_key, &d->net.tls, message);
    }
    if (status == GODWIT_OK) {
        status = open_sockets(d, settings, message);
    }
    if (status) {
        daemon_close(d);
        return status;
    }
    *out = d;
    return GODWIT_OK;
}

godwit_status daemon_start(daemon_server *d, keyring *keys, char message[512]) {
    server *s = &d->net;
    sigset_t set;
    message[0] = 0;
    signals_of_interest(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->keys = keys;
    godwit_status status = streams_init(&s->streams);
    s->has_streams = status == GODWIT_OK;
    if (status == GODWIT_OK) {
        status = gate_open(&d->settings->gate, &s->metrics, &s->gate);
    }
    if (status == GODWIT_OK) {
        status = open_service(s, d->settings, message);
    }
    return status ? status : start_threads(s, d->settings, message);
}

const char *daemon_url(const daemon_server *d) {
    return d->url;
}

static void ask_to_drain(server *s) {
    atomic_store(&s->draining, true);
    for (int i = 0; i < s->loop_count; i++) {
        if (s->loops[i].has_thread) {
            loop_post_drain(&s->loops[i]);
        }
    }
}

/* As if the signal had never been blocked; every commit is on disk, so that nothing is lost. */
static void die_of(int number) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    struct sigaction usual;
    memset(&usual, 0, sizeof usual);
    usual.sa_handler = SIG_DFL;
    (void)sigaction(number, &usual, NULL);
    (void)raise(number); /* pending for this thread until it is let through */
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void reload(server *s) {
    char message[512], text[256];
    if (!s->tls) {
        log_event(LOG_INFO, "reload", "certificate=none");
    } else if (tls_reload(s->tls, message) == GODWIT_OK) {
        log_event(LOG_INFO, "reload", "certificate=read");
    } else {
        log_event(LOG_ERROR, "reload", "certificate=kept reason=%s",
                  log_value(slice_of(message), text));
    }
}

void daemon_serve(daemon_server *d) {
    server *s = &d->net;
    sigset_t set;
    signals_of_interest(&set);
    while (atomic_load(&s->loops_running) > 0) {
        int got = 0;
        if (sigwait(&set, &got) != 0 || got == SIGUSR1) {
            continue;
        }
        if (got == SIGHUP) {
            reload(s);
            continue;
        }
        if (atomic_load(&s->draining)) {
            log_event(LOG_WARN, "stopped", "reason=second_signal");
            die_of(got);
        }
        log_event(LOG_INFO, "stopping", "connections=%lld",
                  (long long)atomic_load(&s->metrics.connections));
        ask_to_drain(s);
    }
}

void daemon_close(daemon_server *d) {
    if (!d) {
        return;
    }
    server *s = &d->net;
    ask_to_drain(s);
    for (int i = 0; i < d->loops_ready; i++) {
        if (s->loops[i].has_thread) {
            pthread_join(s->loops[i].thread, NULL);
        }
    }
    pool_close(s->pool);
    wakeup_close(s->wakeup); /* when nothing is left that could be told */
    for (int i = 0; i < d->loops_ready; i++) {
        loop_deinit(&s->loops[i]);
    }
    mem_free(NULL, s->loops);
    if (s->service) {
        service_close(s->service);
    }
    if (s->has_streams) {
        streams_deinit(&s->streams);
    }
    gate_close(s->gate);
    tls_close(s->tls);
    mem_free(NULL, d);
}
