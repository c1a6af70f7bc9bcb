/* Server-sent events: the head of one scope, now and whenever it moves.
 *
 *   event: head
 *   data: {"scope":"s","head":123}
 *
 * Hints only: a slow reader gets the newest head when there is room again, not every one between.
 * The stream ends when the token does, after five minutes, or when its device opens another, and
 * begins by saying the present head. */
#include "server/net.h"

static void write_head(conn *c) {
    bytes *b = &c->out_head;
    bytes_text(b, "event: head\ndata: {\"scope\":");
    json_write_text(b, c->request->scope);
    bytes_text(b, ",\"head\":");
    bytes_int(b, c->stream_head);
    bytes_text(b, "}\n\n");
    c->stream_sent_head = c->stream_head;
}

static void arm(conn *c) {
    int64_t left = SSE_KEEPALIVE_MS;
    if (c->stream_ends_ms > 0) {
        int64_t until = c->stream_ends_ms - loop_mono_ms();
        left = until < left ? until : left;
    }
    conn_deadline(c, left > 0 ? left : 1);
}

static void flush(conn *c) {
    if (c->out_head.failed || conn_flush(c) == FLUSH_FAILED) {
        conn_close(c);
    }
}

static void send_news(conn *c) {
    if (c->out_head.len == 0 && c->stream_head > c->stream_sent_head) {
        write_head(c);
        flush(c);
    }
}

void stream_wake(waiter *w, int64_t head) {
    request *r = (request *)(void *)((char *)w - offsetof(request, wait));
    conn *c = r->conn;
    if (!c || c->state != CONN_STREAMING) {
        return; /* still being opened: stream_begin looks at the waiter */
    }
    c->stream_head = head > c->stream_head ? head : c->stream_head;
    send_news(c);
}

/* When the token's time is over, in this clock; the leeway counts for one that is over already. It
 * is over after SSE_LIFE_MS anyhow: whoever comes back is asked again whether it may. */
static int64_t end_of_token(const request *r) {
    int64_t expires = r->job.who.expires_s, now = loop_wall_s();
    int64_t ms = SSE_LIFE_MS;
    if (expires != 0) {
        int64_t left = expires > now ? expires - now : expires + TOKEN_LEEWAY_S - now;
        ms = left * 1000 < ms ? left * 1000 : ms;
    }
    return loop_mono_ms() + (ms > 0 ? ms : 1);
}

static stream_name name_of(const request *r) {
    return (stream_name){r->job.who.user, r->scope, r->job.q_device};
}

/* The device's stream is this one from now on; another it had is ended. */
static void take_place(conn *c, request *r) {
    server *s = c->loop->server;
    void *loser = NULL;
    uint64_t loser_id = 0;
    stream_name name = name_of(r);
    if (r->job.q_device.len == 0 ||
        streams_take(&s->streams, &name, c->loop, &c->stream_id, &loser, &loser_id) != GODWIT_OK) {
        return;
    }
    if (loser) {
        loop_post_end(loser, loser_id);
    }
}

void stream_leave(conn *c) {
    if (c->stream_id && c->request) {
        stream_name name = name_of(c->request);
        streams_leave(&c->loop->server->streams, &name, c->stream_id);
        c->stream_id = 0;
    }
}

void stream_begin(conn *c, request *r) {
    reply answer = {
        .status = 200, .content_type = "text/event-stream", .no_length = true, .close = true};
    if (c->eof || c->loop->draining || r->head < 0) {
        dispatch_problem(c, 503, "overloaded", "the stream can't be opened now", true);
        conn_pump(c);
        return;
    }
    conn_move(c, CONN_STREAMING);
    c->close_after = true;
    take_place(c, r);
    atomic_fetch_add(&c->loop->server->metrics.streams, 1);
    metrics_request(&c->loop->server->metrics, c->route, 200, loop_mono_us() - c->started_us);
    reply_head(&c->out_head, &answer, loop_date(c->loop));
    c->stream_head = r->wait.head > r->head ? r->wait.head : r->head;
    c->stream_ends_ms = end_of_token(r);
    write_head(c);
    bytes_deinit(&c->input);
    arm(c);
    flush(c);
}

void stream_tick(conn *c) {
    bool over = c->stream_ends_ms > 0 && loop_mono_ms() >= c->stream_ends_ms;
    bool stuck = c->out_head.len > 0; /* nothing moved for a whole interval */
    if (over || (stuck && c->progress_bytes == 0)) {
        conn_close(c);
        return;
    }
    if (!stuck) {
        bytes_text(&c->out_head, ": keep-alive\n\n");
        flush(c);
    }
    if (!c->dead) {
        arm(c);
    }
}

void stream_writable(conn *c) {
    flush(c);
    if (!c->dead) {
        send_news(c);
    }
}
