/* The server's side of hook processes. One socket pair carries both directions, so that a process
 * that is gone is an error of send and not a signal. */
#include "server/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/json.h"
#include "core/limits.h"
#include "server/log.h"

extern char **environ;

struct hook_worker {
    const hook_options *options;
    pid_t pid; /* 0 = none */
    int fd;
    bool validates, resolves;
};

static int64_t mono_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the process ---- */

static void stop(hook_worker *w) {
    if (w->pid > 0) {
        close(w->fd);
        (void)kill(-w->pid, SIGKILL); /* with what it may have started */
        (void)kill(w->pid, SIGKILL);
        while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    w->pid = 0;
}

/* A process of a group of its own, which signals of a terminal do not reach, without the server's
 * signal settings. */
static int start_process(hook_worker *w, int theirs) {
    char timeout[32];
    bytes library;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    snprintf(timeout, sizeof timeout, "%lld", (long long)w->options->timeout_ms);
    bytes_init(&library, NULL, 0);
    bytes_text(&library, w->options->library);
    char *const argv[] = {(char[]){"godwit"},    (char[]){"hook"}, library.ptr,
                          (char[]){"--timeout"}, timeout,          NULL};
    if (library.failed || posix_spawn_file_actions_init(&actions) != 0) {
        bytes_deinit(&library);
        return ENOMEM;
    }
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        bytes_deinit(&library);
        return ENOMEM;
    }
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    int code = posix_spawn_file_actions_adddup2(&actions, theirs, STDIN_FILENO);
    code = code ? code : posix_spawn_file_actions_adddup2(&actions, theirs, STDOUT_FILENO);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &usual);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETPGROUP);
    code = code ? code
                : posix_spawn(&w->pid, w->options->program, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    bytes_deinit(&library);
    return code;
}

/* ---- one line there, one line back ---- */

static const char *send_some(hook_worker *w, slice *rest) {
    ssize_t sent = send(w->fd, rest->ptr, rest->len, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? NULL : "ended";
    }
    rest->ptr += sent;
    rest->len -= (size_t)sent;
    return NULL;
}

static const char *receive_some(hook_worker *w, bytes *answer, bool *whole) {
    char part[16384];
    ssize_t got = recv(w->fd, part, sizeof part, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return NULL;
    }
    if (got <= 0) {
        return "ended";
    }
    bytes_add(answer, part, (size_t)got);
    if (answer->failed || answer->len > HOOK_TEXT_MAX) {
        return "too_much";
    }
    const char *end = memchr(part, '\n', (size_t)got);
    *whole = end != NULL;
    return end && end != part + got - 1 ? "garbage" : NULL;
}

/* NULL, or why there is no answer. question: with its line end; empty: only listens. */
static const char *exchange(hook_worker *w, slice question, int64_t timeout_ms, bytes *answer) {
    int64_t until_ms = mono_ms() + timeout_ms;
    const char *reason = NULL;
    bool whole = false;
    bytes_clear(answer);
    while (!reason && !whole) {
        int64_t left_ms = until_ms - mono_ms();
        struct pollfd ready = {.fd = w->fd, .events = POLLIN};
        ready.events = (short)(ready.events | (question.len > 0 ? POLLOUT : 0));
        if (left_ms <= 0) {
            return "timeout";
        }
        if (poll(&ready, 1, (int)left_ms) < 0 && errno != EINTR) {
            return "poll";
        }
        if (ready.revents & POLLOUT) {
            reason = send_some(w, &question);
        }
        if (!reason && ready.revents & (POLLIN | POLLHUP | POLLERR)) {
            reason = receive_some(w, answer, &whole);
        }
    }
    return reason ? reason : question.len > 0 ? "garbage" : NULL;
}

/* ---- life ---- */

/* The process's first line. */
static godwit_status greet(hook_worker *w, char message[512]) {
    arena memory;
    bytes line;
    const json *root = NULL;
    slice error = {0};
    arena_init(&memory, NULL, 0);
    bytes_init(&line, NULL, 0);
    const char *reason = exchange(w, (slice){0}, HOOK_START_MS, &line);
    godwit_status status = GODWIT_OK;
    if (reason || json_parse(&memory, bytes_view(&line), &root, NULL) != GODWIT_OK) {
        snprintf(message, 512, "the hooks of %.300s can't be loaded: %s", w->options->library,
                 reason ? reason : "garbage");
        status = GODWIT_IO;
    } else if (json_text(json_get(root, "error"), &error)) {
        snprintf(message, 512, "%.*s", (int)(error.len < 500 ? error.len : 500), error.ptr);
        status = GODWIT_INVALID;
    } else if (!json_bool(json_get(root, "validate"), &w->validates) ||
               !json_bool(json_get(root, "resolve"), &w->resolves)) {
        snprintf(message, 512, "the hooks of %.300s can't be loaded", w->options->library);
        status = GODWIT_IO;
    }
    bytes_deinit(&line);
    arena_deinit(&memory);
    return status;
}

static godwit_status start(hook_worker *w, char message[512]) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        snprintf(message, 512, "no process for hooks: %s", strerror(errno));
        return GODWIT_IO;
    }
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC); /* its copies stay open */
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    int code = start_process(w, ends[1]);
    close(ends[1]);
    if (code != 0) {
        close(ends[0]);
        w->pid = 0;
        snprintf(message, 512, "no process for hooks: %s", strerror(code));
        return GODWIT_IO;
    }
    w->fd = ends[0];
    godwit_status status = greet(w, message);
    if (status != GODWIT_OK) {
        stop(w);
    }
    return status;
}

godwit_status hook_worker_open(const hook_options *options, hook_worker **out, char message[512]) {
    *out = NULL;
    hook_worker *w = mem_resize(NULL, NULL, sizeof *w);
    if (!w) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    *w = (hook_worker){.options = options};
    godwit_status status = start(w, message);
    if (status != GODWIT_OK) {
        mem_free(NULL, w);
        return status;
    }
    *out = w;
    return GODWIT_OK;
}

void hook_worker_close(hook_worker *w) {
    if (w) {
        stop(w);
        mem_free(NULL, w);
    }
}

bool hook_worker_validates(const hook_worker *w) {
    return w->validates;
}

bool hook_worker_resolves(const hook_worker *w) {
    return w->resolves;
}

hook_result hook_worker_ask(hook_worker *w, slice question, bytes *answer) {
    char message[512], text[256];
    bytes line;
    if (w->pid == 0 && start(w, message) != GODWIT_OK) {
        log_limited(LOG_ERROR, "hooks_unavailable", "reason=%s",
                    log_value(slice_of(message), text));
        return HOOK_UNAVAILABLE;
    }
    bytes_init(&line, NULL, 0);
    bytes_slice(&line, question);
    bytes_char(&line, '\n');
    if (line.failed) {
        bytes_deinit(&line);
        return HOOK_UNAVAILABLE;
    }
    const char *reason = exchange(w, bytes_view(&line), w->options->timeout_ms, answer);
    bytes_deinit(&line);
    if (reason) {
        log_limited(LOG_WARN, "hook_failed", "reason=%s", reason);
        stop(w);
        return HOOK_FAILED;
    }
    return HOOK_ANSWERED;
}
