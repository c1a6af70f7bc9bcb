/* One loop thread: its listener, its mailbox, its connections.
 *
 * Other threads write to the mailbox and one byte to the pipe; the loop empties it in one go, and
 * looks into it once a second in case the byte could not be written.
 * libevent is never called from outside, so that it needs no locks. Closed connections are freed at
 * the end of the round in which they closed: callbacks that are still running may look at them. */
#include "server/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"

#define ACCEPTS_PER_ROUND 64
#define ACCEPT_PAUSE_US   100000
#define MAIL_LOOK_S       1 /* a pipe wants memory for its byte, and may not get it */

typedef struct wake {
    struct wake *next;
    int64_t head;
    uint64_t stream_id; /* not 0: this stream is to end */
    size_t scope_bytes;
    char scope[];
} wake;

/* ---- time ---- */

int64_t loop_mono_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t loop_mono_ms(void) {
    return loop_mono_us() / 1000;
}

int64_t loop_wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec;
}

const char *loop_date(loop *l) {
    int64_t now = loop_wall_s();
    if (now != l->date_s) {
        l->date_s = now;
        reply_date(now, l->date);
    }
    return l->date;
}

/* ---- mailbox ---- */

static void signal_loop(loop *l) { /* under the lock */
    ssize_t written = l->signalled ? 1 : write(l->pipe_write, "!", 1);
    while (written < 0 && errno == EINTR) {
        written = write(l->pipe_write, "!", 1);
    }
    /* A full pipe wakes it as well. Else the next to post tries again, and the loop looks by
     * itself.
     */
    l->signalled = written > 0 || errno == EAGAIN;
}

void loop_post_done(request *r) {
    loop *l = r->loop;
    pthread_mutex_lock(&l->lock);
    r->job.next = NULL;
    if (l->done_last) {
        l->done_last->next = &r->job;
    } else {
        l->done_first = &r->job;
    }
    l->done_last = &r->job;
    signal_loop(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_post_wake(loop *l, slice scope, int64_t head) {
    wake *w = mem_resize(NULL, NULL, sizeof *w + scope.len);
    pthread_mutex_lock(&l->lock);
    if (w) {
        w->head = head;
        w->stream_id = 0;
        w->scope_bytes = scope.len;
        memcpy(w->scope, scope.ptr, scope.len);
        w->next = l->wakes;
        l->wakes = w;
    } else {
        l->wake_failed = true; /* wake everyone: a hint too many is harmless, one lost is not */
    }
    signal_loop(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_post_end(loop *l, uint64_t stream_id) {
    wake *w = mem_resize(NULL, NULL, sizeof *w);
    if (!w) {
        return; /* it stays until its next keep-alive can't be sent */
    }
    *w = (wake){.stream_id = stream_id};
    pthread_mutex_lock(&l->lock);
    w->next = l->wakes;
    l->wakes = w;
    signal_loop(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_post_drain(loop *l) {
    pthread_mutex_lock(&l->lock);
    l->drain_asked = true;
    signal_loop(l);
    pthread_mutex_unlock(&l->lock);
}

static void wake_everyone(loop *l) {
    for (conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_PARKED) {
            dispatch_resume(c, false);
        }
    }
}

static void end_stream(loop *l, uint64_t id) {
    for (conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_STREAMING && c->stream_id == id) {
            atomic_fetch_add(&l->server->metrics.replaced, 1);
            conn_close(c);
            return;
        }
    }
}

static void deliver_wakes(loop *l, wake *list) {
    while (list) {
        wake *next = list->next;
        if (list->stream_id) {
            end_stream(l, list->stream_id);
        } else {
            notify_wake(&l->waiters, (slice){list->scope, list->scope_bytes}, list->head);
        }
        mem_free(NULL, list);
        list = next;
    }
}

void loop_wait(loop *l, waiter *w, slice scope) {
    notify_add(&l->waiters, w, scope, 0);
    atomic_store(&l->waiting, (int64_t)l->waiters.count);
    if (l->server->wakeup) {
        watched_add(wakeup_watched(l->server->wakeup), scope);
    }
}

void loop_unwait(loop *l, waiter *w) {
    if (w->listed && l->server->wakeup) {
        watched_remove(wakeup_watched(l->server->wakeup), w->scope);
    }
    notify_remove(&l->waiters, w);
    atomic_store(&l->waiting, (int64_t)l->waiters.count);
}

/* ---- connections ---- */

static void bury(loop *l) {
    while (l->graveyard) {
        conn *c = l->graveyard;
        l->graveyard = c->next;
        mem_free(NULL, c);
    }
}

void loop_end_round(loop *l) {
    bury(l);
    if (l->draining && !l->conns && l->requests == 0) {
        event_base_loopbreak(l->base);
    }
}

static void turn_away(loop *l, int fd, const char *status, const char *reason) {
    char answer[160];
    int len = snprintf(answer, sizeof answer,
                       "HTTP/1.1 %s\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
                       "Connection: close\r\n\r\n",
                       status);
    if (!l->server->tls) { /* who speaks TLS would not understand it */
        ssize_t sent = send(fd, answer, (size_t)len, MSG_NOSIGNAL);
        (void)sent;
    }
    shutdown(fd, SHUT_WR);
    close(fd);
    atomic_fetch_add(&l->server->metrics.turned_away, 1);
    log_limited(LOG_WARN, "turned_away", "reason=%s", reason);
}

static void pause_accepting(loop *l) {
    log_limited(LOG_ERROR, "accept_failed", "errno=%d", errno);
    event_del(&l->listen_event);
    evtimer_add(&l->resume_event, &(struct timeval){.tv_usec = ACCEPT_PAUSE_US});
}

static bool make_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static address address_of_socket(const struct sockaddr_storage *from) {
    address a = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
    if (from->ss_family == AF_INET6) {
        struct sockaddr_in6 in;
        memcpy(&in, from, sizeof in);
        memcpy(a.bytes, &in.sin6_addr, sizeof a.bytes);
    } else {
        struct sockaddr_in in;
        memcpy(&in, from, sizeof in);
        memcpy(a.bytes + 12, &in.sin_addr, sizeof in.sin_addr);
    }
    return a;
}

static void accept_some(loop *l, int limit) {
    while (limit-- > 0) {
        struct sockaddr_storage from;
        socklen_t from_bytes = sizeof from;
        int fd = accept(l->listener, (struct sockaddr *)&from, &from_bytes);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                pause_accepting(l);
            }
            return;
        }
        if (!make_nonblocking(fd) ||
            atomic_load(&l->server->metrics.connections) >= l->server->connections_max) {
            turn_away(l, fd, "503 Service Unavailable", "connections_max");
            continue;
        }
        address peer = address_of_socket(&from);
        gate_lease place = {0};
        if (gate_connect(l->server->gate, &peer, l->server->tls != NULL, loop_mono_ms(), &place)
                .refused) {
            turn_away(l, fd, "429 Too Many Requests", "address");
            continue;
        }
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        atomic_fetch_add(&l->server->metrics.accepted, 1);
        conn_open(l, fd, &peer, place);
    }
}

static void on_listen(evutil_socket_t fd, short what, void *context) {
    loop *l = context;
    (void)fd;
    (void)what;
    accept_some(l, ACCEPTS_PER_ROUND);
    loop_end_round(l);
}

static void on_resume(evutil_socket_t fd, short what, void *context) {
    loop *l = context;
    (void)fd;
    (void)what;
    if (!l->draining && event_add(&l->listen_event, NULL) != 0) {
        pause_accepting(l);
    }
}

/* ---- draining ---- */

static void drain_conn(conn *c) {
    c->close_after = true;
    switch (c->state) {
    case CONN_READING:
        conn_read(c); /* a request that has arrived is still answered */
        if (!c->dead && c->state == CONN_READING && http_is_idle(&c->reader)) {
            conn_close(c);
        }
        break;
    case CONN_PARKED:
        dispatch_resume(c, true);
        break;
    case CONN_STREAMING:
    case CONN_LINGER:
        conn_close(c);
        break;
    case CONN_WORKING:
    case CONN_WRITING:
    case CONN_STATE_COUNT:
        break;
    }
}

static void begin_drain(loop *l) {
    if (l->draining) {
        return;
    }
    l->draining = true;
    /* What the kernel has completed already was promised a server. */
    accept_some(l, 1024);
    event_del(&l->listen_event);
    event_del(&l->resume_event);
    close(l->listener);
    l->listener = -1;
    for (conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        drain_conn(c);
    }
    evtimer_add(&l->drain_event, &(struct timeval){.tv_sec = HTTP_DRAIN_MS / 1000});
}

static void on_drain_over(evutil_socket_t fd, short what, void *context) {
    loop *l = context;
    (void)fd;
    (void)what;
    log_event(LOG_WARN, "drain_over", "reason=deadline");
    while (l->conns) {
        conn_close(l->conns);
    }
    loop_end_round(l);
}

static void take_mail(loop *l) {
    pthread_mutex_lock(&l->lock);
    service_job *done = l->done_first;
    wake *wakes = l->wakes;
    bool all = l->wake_failed, drain = l->drain_asked;
    l->done_first = l->done_last = NULL;
    l->wakes = NULL;
    l->wake_failed = l->drain_asked = l->signalled = false;
    pthread_mutex_unlock(&l->lock);
    while (done) {
        service_job *next = done->next;
        ASSERT(l->requests > 0);
        l->requests--;
        dispatch_done((request *)(void *)done);
        done = next;
    }
    deliver_wakes(l, wakes);
    if (all) {
        wake_everyone(l);
    }
    if (drain) {
        begin_drain(l);
    }
    loop_end_round(l);
}

static void on_mail(evutil_socket_t fd, short what, void *context) {
    char sink[64];
    (void)what;
    while (read(fd, sink, sizeof sink) == (ssize_t)sizeof sink) {
    }
    take_mail(context);
}

static void on_look(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    take_mail(context);
}

/* ---- life ---- */

godwit_status loop_init(loop *l, server *s, int listener) {
    memset(l, 0, sizeof *l);
    l->server = s;
    l->listener = listener;
    l->pipe_read = l->pipe_write = -1;
    notify_init(&l->waiters);
    struct event_config *settings = event_config_new();
    int ends[2];
    if (settings && event_config_set_flag(settings, EVENT_BASE_FLAG_NOLOCK) == 0) {
        l->base = event_base_new_with_config(settings);
    }
    if (settings) {
        event_config_free(settings);
    }
    if (!l->base || pthread_mutex_init(&l->lock, NULL) != 0) {
        return GODWIT_NOMEM;
    }
    if (pipe(ends) != 0) {
        return GODWIT_IO;
    }
    l->pipe_read = ends[0];
    l->pipe_write = ends[1];
    if (!make_nonblocking(ends[0]) || !make_nonblocking(ends[1]) || !make_nonblocking(listener)) {
        return GODWIT_IO;
    }
    event_assign(&l->listen_event, l->base, listener, EV_READ | EV_PERSIST, on_listen, l);
    event_assign(&l->pipe_event, l->base, l->pipe_read, EV_READ | EV_PERSIST, on_mail, l);
    evtimer_assign(&l->resume_event, l->base, on_resume, l);
    evtimer_assign(&l->drain_event, l->base, on_drain_over, l);
    event_assign(&l->look_event, l->base, -1, EV_PERSIST, on_look, l);
    if (event_add(&l->listen_event, NULL) != 0 || event_add(&l->pipe_event, NULL) != 0 ||
        event_add(&l->look_event, &(struct timeval){.tv_sec = MAIL_LOOK_S}) != 0) {
        return GODWIT_IO;
    }
    return GODWIT_OK;
}

static void *loop_main(void *context) {
    loop *l = context;
    (void)event_base_dispatch(l->base);
    if (atomic_fetch_sub(&l->server->loops_running, 1) == 1) {
        /* The last one: the main thread waits for signals, this is one. */
        (void)kill(getpid(), SIGUSR1);
    }
    return NULL;
}

godwit_status loop_start(loop *l) {
    atomic_fetch_add(&l->server->loops_running, 1);
    if (pthread_create(&l->thread, NULL, loop_main, l) != 0) {
        atomic_fetch_sub(&l->server->loops_running, 1);
        return GODWIT_NOMEM;
    }
    l->has_thread = true;
    return GODWIT_OK;
}

static void close_fd(int *fd) {
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void loop_deinit(loop *l) {
    ASSERT(!l->conns && !l->done_first);
    while (l->wakes) {
        wake *next = l->wakes->next;
        mem_free(NULL, l->wakes);
        l->wakes = next;
    }
    if (l->base) {
        event_base_free(l->base);
        pthread_mutex_destroy(&l->lock);
    }
    close_fd(&l->listener);
    close_fd(&l->pipe_read);
    close_fd(&l->pipe_write);
}
