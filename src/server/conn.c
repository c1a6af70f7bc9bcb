/* One connection. Bytes come in through `input`, requests are taken from it strictly one after the
 * other, answers go out before the next request is looked at: pipelining in order.
 *
 *   READING --request--> WORKING <--> PARKED          deadlines: idle, head, body, answer; a slow
 * peer ^  \                 |                         loses its connection, never a thread |
 * \--refused-----> v
 *      +----sent------- WRITING --close--> LINGER --> end      STREAMING ends with the connection
 *
 * conn_pump is the only place that advances it, as a loop, so that a thousand pipelined requests
 * need no more stack than one. */
#include "server/net.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "server/log.h"

#define INPUT_MAX        (64u << 10) /* of requests that came before their turn */
#define INPUT_KEEP       4096        /* capacity an idle connection may keep */
#define LINGER_BYTES_MAX (32u << 20)
#define TLS_RECORD_BYTES 16384 /* at most, without its frame */

#define MAY(state) (1u << CONN_##state)
static const unsigned moves[CONN_STATE_COUNT] = {
    [CONN_READING] = MAY(WORKING) | MAY(WRITING),
    [CONN_WORKING] = MAY(PARKED) | MAY(WRITING) | MAY(STREAMING),
    [CONN_PARKED] = MAY(WORKING),
    [CONN_WRITING] = MAY(READING) | MAY(LINGER),
    [CONN_STREAMING] = 0,
    [CONN_LINGER] = 0,
};

void conn_move(conn *c, conn_state to) {
    ASSERT(moves[c->state] & 1u << to);
    c->state = to;
}

void conn_deadline(conn *c, int64_t ms) {
    c->progress_bytes = 0;
    if (ms <= 0) {
        evtimer_del(&c->timer);
        return;
    }
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    evtimer_add(&c->timer, &after);
}

/* false: there is no memory for it in the kernel; without its event the connection is no use. */
static bool set_event(struct event *e, bool *added, bool on) {
    if (on && !*added) {
        *added = event_add(e, NULL) == 0;
        return *added;
    }
    if (!on && *added) {
        *added = false;
        (void)event_del(e);
    }
    return true;
}

static bool set_reading(conn *c, bool on) {
    return set_event(&c->read_event, &c->reading, on);
}

static bool set_writing(conn *c, bool on) {
    return set_event(&c->write_event, &c->writing, on);
}

void conn_release_body(conn *c) {
    atomic_fetch_sub(&c->loop->server->metrics.held_bytes, (int64_t)c->held_bytes);
    c->held_bytes = 0;
}

/* Counts what the body has grown by; false when all bodies together are too much. */
static bool hold_body(conn *c) {
    int64_t more = (int64_t)(c->reader.body.len - c->held_bytes);
    c->held_bytes = c->reader.body.len;
    int64_t before = atomic_fetch_add(&c->loop->server->metrics.held_bytes, more);
    return before + more <= c->loop->server->memory_max / 2;
}

bool conn_hold_answer(conn *c, size_t answer_bytes) {
    server *s = c->loop->server;
    int64_t before = atomic_fetch_add(&s->metrics.held_bytes, (int64_t)answer_bytes);
    if (before + (int64_t)answer_bytes > s->memory_max) {
        atomic_fetch_sub(&s->metrics.held_bytes, (int64_t)answer_bytes);
        return false;
    }
    c->answer_bytes += answer_bytes;
    return true;
}

static void release_answer(conn *c) {
    atomic_fetch_sub(&c->loop->server->metrics.held_bytes, (int64_t)c->answer_bytes);
    c->answer_bytes = 0;
}

void conn_close(conn *c) {
    loop *l = c->loop;
    if (c->dead) {
        return;
    }
    c->dead = true;
    stream_leave(c);
    dispatch_forget(c);
    conn_release_body(c);
    release_answer(c);
    (void)set_reading(c, false);
    (void)set_writing(c, false);
    evtimer_del(&c->timer);
    if (c->state == CONN_STREAMING) {
        atomic_fetch_sub(&l->server->metrics.streams, 1);
    }
    tls_link_free(c->tls);
    c->tls = NULL;
    close(c->fd);
    http_deinit(&c->reader);
    bytes_deinit(&c->input);
    bytes_deinit(&c->out_head);
    bytes_deinit(&c->out_body);
    if (c->previous) {
        c->previous->next = c->next;
    } else {
        l->conns = c->next;
    }
    if (c->next) {
        c->next->previous = c->previous;
    }
    c->next = l->graveyard;
    l->graveyard = c;
    gate_leave(l->server->gate, &c->place);
    atomic_fetch_sub(&l->server->metrics.connections, 1);
}

/* ---- bytes ---- */

/* As recv. Counts the handshake, which reading does, once it is through or has failed. */
static ssize_t receive(conn *c, void *buffer, size_t len) {
    if (!c->tls) {
        return recv(c->fd, buffer, len, 0);
    }
    ssize_t got = tls_link_read(c->tls, buffer, len);
    int code = errno;
    bool open = tls_link_is_open(c->tls);
    bool failed = got < 0 && code != EAGAIN;
    if (!c->greeted && (open || failed)) {
        c->greeted = true;
        atomic_fetch_add(&c->loop->server->metrics.handshakes[open], 1);
    }
    if (tls_link_wants_write(c->tls) && !set_writing(c, true)) {
        errno = ENOMEM;
        return -1;
    }
    errno = code;
    return got;
}

/* As send, of what is pending. One record of TLS has as much of it as fits. */
static ssize_t send_pending(conn *c) {
    struct iovec parts[2];
    size_t in_head = c->sent_bytes < c->out_head.len ? c->out_head.len - c->sent_bytes : 0;
    size_t body_from = in_head > 0 ? 0 : c->sent_bytes - c->out_head.len;
    size_t in_body = c->out_body.len - body_from;
    int count = 0;
    if (c->tls) {
        char *record = c->loop->scratch;
        size_t first = in_head < TLS_RECORD_BYTES ? in_head : TLS_RECORD_BYTES;
        size_t second = in_body < TLS_RECORD_BYTES - first ? in_body : TLS_RECORD_BYTES - first;
        if (first > 0) {
            memcpy(record, c->out_head.ptr + c->sent_bytes, first);
        }
        if (second > 0) {
            memcpy(record + first, c->out_body.ptr + body_from, second);
        }
        return tls_link_write(c->tls, record, first + second);
    }
    if (in_head > 0) {
        parts[count++] = (struct iovec){c->out_head.ptr + c->sent_bytes, in_head};
    }
    if (in_body > 0) {
        parts[count++] = (struct iovec){c->out_body.ptr + body_from, in_body};
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    return sendmsg(c->fd, &message, MSG_NOSIGNAL);
}

/* ---- writing ---- */

flush_result conn_flush(conn *c) {
    size_t total = c->out_head.len + c->out_body.len;
    while (c->sent_bytes < total) {
        ssize_t sent = send_pending(c);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            bool wait = errno == EAGAIN || errno == EWOULDBLOCK;
            return set_writing(c, wait) && wait ? FLUSH_BLOCKED : FLUSH_FAILED;
        }
        c->sent_bytes += (size_t)sent;
        c->progress_bytes += (size_t)sent;
    }
    (void)set_writing(c, false);
    bytes_deinit(&c->out_head);
    bytes_deinit(&c->out_body);
    release_answer(c);
    c->sent_bytes = 0;
    return FLUSH_DONE;
}

/* What clients can cause in any number is limited; debugging wants every line. */
static void log_answer(const conn *c, int status, int64_t micros) {
    static const char format[] = "route=%s status=%d ms=%lld bytes=%zu";
    const char *name = route_name(c->route);
    long long ms = (long long)(micros / 1000);
    if (status < 400) {
        log_event(LOG_DEBUG, "request", format, name, status, ms, c->out_body.len);
    } else {
        log_limited(status >= 500 ? LOG_WARN : LOG_INFO, "request", format, name, status, ms,
                    c->out_body.len);
    }
}

void conn_answer(conn *c, reply *r, bytes *body) {
    server *s = c->loop->server;
    c->close_after = c->close_after || r->close || c->loop->draining || c->eof;
    r->close = c->close_after;
    r->keep_alive_1_0 = c->http_1_0;
    if (body) {
        r->body_bytes = body->len;
    }
    reply_head(&c->out_head, r, loop_date(c->loop));
    if (body && !c->head_only && r->status != 304) {
        c->out_body = *body;
        bytes_init(body, NULL, 0);
    }
    if (body) {
        bytes_deinit(body);
    }
    if (c->out_head.failed) {
        c->close_after = true;
    }
    c->status = r->status;
    int64_t micros = c->started_us ? loop_mono_us() - c->started_us : 0;
    metrics_request(&s->metrics, c->route, r->status, micros);
    log_answer(c, r->status, micros);
    conn_move(c, CONN_WRITING);
    conn_deadline(c, HTTP_PROGRESS_MS);
}

/* ---- reading ---- */

static void enter_phase(conn *c, conn_phase phase) {
    static const int64_t ms[] = {
        [CONN_PHASE_IDLE] = HTTP_IDLE_MS,
        [CONN_PHASE_HEAD] = HTTP_HEAD_MS,
        [CONN_PHASE_BODY] = HTTP_PROGRESS_MS,
    };
    c->phase = phase;
    conn_deadline(c, phase == CONN_PHASE_IDLE && !c->served_before ? HTTP_HEAD_MS : ms[phase]);
}

static void send_continue(conn *c) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    /* Nothing else is pending, so that this fits the socket's buffer or the peer is lost. */
    ssize_t sent = c->tls ? tls_link_write(c->tls, text, sizeof text - 1)
                          : send(c->fd, text, sizeof text - 1, MSG_NOSIGNAL);
    if (sent != (ssize_t)sizeof text - 1) {
        conn_close(c);
    }
}

/* After a complete head was accepted. */
static void begin_body(conn *c) {
    if (c->reader.state != HTTP_READING_BODY) {
        return;
    }
    enter_phase(c, CONN_PHASE_BODY);
    if (c->reader.head.expect_continue && c->input.len == 0) {
        send_continue(c);
    }
}

static void consume(conn *c, size_t used) {
    c->progress_bytes += used;
    if (used < c->input.len) {
        memmove(c->input.ptr, c->input.ptr + used, c->input.len - used);
        c->input.len -= used;
    } else if (c->input.cap > INPUT_KEEP) {
        bytes_deinit(&c->input);
    } else {
        bytes_clear(&c->input);
    }
}

/* Feeds the reader; true when something happened that may allow more. */
static bool advance_reading(conn *c) {
    if (c->input.len == 0) {
        return false;
    }
    size_t used = http_feed(&c->reader, bytes_view(&c->input));
    consume(c, used);
    switch (c->reader.state) {
    case HTTP_READING_HEAD:
        if (c->phase == CONN_PHASE_IDLE && !http_is_idle(&c->reader)) {
            enter_phase(c, CONN_PHASE_HEAD);
        }
        return false;
    case HTTP_READING_BODY:
        if (!hold_body(c)) {
            dispatch_problem(c, 503, "overloaded", "too much is waiting; try again", true);
        }
        return c->input.len > 0 || c->state == CONN_WRITING;
    case HTTP_HEAD:
        c->started_us = loop_mono_us();
        dispatch_head(c);
        if (!c->dead && c->state == CONN_READING) {
            begin_body(c);
        }
        break;
    case HTTP_DONE:
    case HTTP_REFUSED:
        break;
    }
    if (!c->dead && c->state == CONN_READING && c->reader.state == HTTP_REFUSED) {
        dispatch_refusal(c);
    } else if (!c->dead && c->state == CONN_READING && c->reader.state == HTTP_DONE) {
        dispatch_request(c);
    }
    return true;
}

static void begin_linger(conn *c) {
    conn_move(c, CONN_LINGER);
    if (c->tls) {
        tls_link_end(c->tls);
    }
    shutdown(c->fd, SHUT_WR);
    c->progress_bytes = 0;
    bytes_deinit(&c->input);
    conn_deadline(c, HTTP_LINGER_MS);
    if (c->eof) {
        conn_close(c);
    }
}

/* The answer is out. */
static void after_answer(conn *c) {
    dispatch_forget(c);
    if (c->close_after) {
        begin_linger(c);
        return;
    }
    conn_move(c, CONN_READING);
    c->served_before = true;
    c->started_us = 0;
    c->route = ROUTE_NONE;
    c->head_only = false;
    enter_phase(c, CONN_PHASE_IDLE);
}

static bool advance_writing(conn *c) {
    switch (conn_flush(c)) {
    case FLUSH_DONE:
        after_answer(c);
        return true;
    case FLUSH_BLOCKED:
        return false;
    case FLUSH_FAILED:
        conn_close(c);
        break;
    }
    return false;
}

void conn_pump(conn *c) {
    bool more = true;
    while (more && !c->dead) {
        more = c->state == CONN_READING   ? advance_reading(c)
               : c->state == CONN_WRITING ? advance_writing(c)
                                          : false;
    }
    if (!c->dead && c->state == CONN_READING && c->eof) {
        conn_close(c); /* nothing more can come */
    }
    if (!c->dead && !set_reading(c, !c->eof && c->input.len < INPUT_MAX)) {
        conn_close(c);
    }
}

/* ---- events ---- */

static void on_eof(conn *c) {
    c->eof = true;
    (void)set_reading(c, false);
    if (c->state == CONN_STREAMING || c->state == CONN_LINGER) {
        conn_close(c);
    } else if (c->state == CONN_PARKED) {
        dispatch_resume(c, true); /* a half-closed client may still read its answer */
    }
}

void conn_read(conn *c) {
    loop *l = c->loop;
    ssize_t got = receive(c, l->scratch, sizeof l->scratch);
    if (got < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
            conn_close(c);
        }
        return;
    }
    if (got == 0) {
        on_eof(c);
    } else if (c->state == CONN_LINGER || c->state == CONN_STREAMING) {
        c->progress_bytes += (size_t)got;
        if (c->progress_bytes > LINGER_BYTES_MAX) {
            conn_close(c);
        }
    } else {
        bytes_add(&c->input, l->scratch, (size_t)got);
        if (c->input.failed) {
            conn_close(c);
        }
    }
    if (!c->dead) {
        conn_pump(c);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *context) {
    conn *c = context;
    loop *l = c->loop;
    (void)fd;
    (void)what;
    if (!c->dead) {
        conn_read(c);
    }
    loop_end_round(l);
}

static void on_writable(evutil_socket_t fd, short what, void *context) {
    conn *c = context;
    loop *l = c->loop;
    (void)fd;
    (void)what;
    if (!c->dead && c->tls && tls_link_wants_write(c->tls)) {
        (void)set_writing(c, false);
        conn_read(c); /* the handshake goes on */
    } else if (!c->dead && c->state == CONN_STREAMING) {
        stream_writable(c);
    } else if (!c->dead) {
        conn_pump(c);
    }
    loop_end_round(l);
}

static void reading_too_slow(conn *c) {
    if (c->phase == CONN_PHASE_IDLE) {
        conn_close(c);
    } else if (c->phase == CONN_PHASE_BODY && c->progress_bytes >= HTTP_PROGRESS_BYTES) {
        conn_deadline(c, HTTP_PROGRESS_MS);
    } else {
        dispatch_problem(c, 408, "request-timeout", "the request did not arrive in time", true);
        conn_pump(c);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    conn *c = context;
    loop *l = c->loop;
    (void)fd;
    (void)what;
    if (c->dead) {
        return;
    }
    switch (c->state) {
    case CONN_READING:
        reading_too_slow(c);
        break;
    case CONN_PARKED:
        dispatch_resume(c, true);
        break;
    case CONN_WRITING:
        if (c->progress_bytes >= HTTP_PROGRESS_BYTES) {
            conn_deadline(c, HTTP_PROGRESS_MS);
        } else {
            conn_close(c);
        }
        break;
    case CONN_STREAMING:
        stream_tick(c);
        break;
    case CONN_LINGER:
        conn_close(c);
        break;
    case CONN_WORKING:
    case CONN_STATE_COUNT:
        break;
    }
    loop_end_round(l);
}

void conn_open(loop *l, int fd, const address *peer, gate_lease place) {
    conn *c = mem_resize(NULL, NULL, sizeof *c);
    if (!c) {
        close(fd);
        gate_leave(l->server->gate, &place);
        return;
    }
    memset(c, 0, sizeof *c);
    c->loop = l;
    c->fd = fd;
    c->peer = *peer;
    c->place = place;
    c->tls = l->server->tls ? tls_link_new(l->server->tls, fd) : NULL;
    if (l->server->tls && !c->tls) {
        close(fd);
        gate_leave(l->server->gate, &place);
        mem_free(NULL, c);
        return;
    }
    c->state = CONN_READING;
    c->route = ROUTE_NONE;
    http_init(&c->reader);
    bytes_init(&c->input, NULL, 0);
    bytes_init(&c->out_head, NULL, 0);
    bytes_init(&c->out_body, NULL, 0);
    event_assign(&c->read_event, l->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_assign(&c->write_event, l->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    evtimer_assign(&c->timer, l->base, on_timer, c);
    c->next = l->conns;
    if (c->next) {
        c->next->previous = c;
    }
    l->conns = c;
    atomic_fetch_add(&l->server->metrics.connections, 1);
    enter_phase(c, CONN_PHASE_IDLE);
    if (!set_reading(c, true)) {
        conn_close(c);
    }
}
