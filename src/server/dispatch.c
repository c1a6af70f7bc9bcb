/* What a request means: route, token, bounds, then an answer at once or a job for the pool; and
 * what becomes of a job that comes back.
 *
 * Everything that can be refused from the head alone is refused before a byte of the body is read.
 */
#include "server/net.h"

#include "godwit/godwit.h"
#include "server/log.h"

#define PROBLEM_JSON "application/problem+json"

/* ---- answers made here ---- */

static void set_extras(int status, reply *r) {
    if (status == 401) {
        r->authenticate = "Bearer";
    }
    if (status == 415) {
        r->accept_encoding = "gzip";
    }
    if (status == 503 && !r->has_retry_after) {
        r->has_retry_after = true;
        r->retry_after_s = 1;
    }
}

static void problem_with(conn *c, reply *r, const char *type, const char *detail) {
    bytes body;
    bytes_init(&body, NULL, 0);
    wire_problem_write(&body, r->status, type, reply_reason(r->status), detail, NULL);
    r->content_type = PROBLEM_JSON;
    set_extras(r->status, r);
    conn_answer(c, r, &body);
}

void dispatch_problem(conn *c, int status, const char *type, const char *detail, bool close) {
    reply r = {.status = status, .close = close};
    problem_with(c, &r, type, detail);
}

void dispatch_refusal(conn *c) {
    static const struct {
        int status;
        const char *type;
    } types[] = {{413, "too-large"}, {414, "too-large"}, {431, "too-large"}, {503, "overloaded"}};
    const char *type = "invalid-request";
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (types[i].status == c->reader.status) {
            type = types[i].type;
        }
    }
    dispatch_problem(c, c->reader.status, type, c->reader.reason, true);
}

static bool has_body(const http_head *head) {
    return head->chunked || head->content_length > 0;
}

/* A problem that is known from the head. Without a body the connection can go on. */
static void refuse_head(conn *c, reply *r, const char *type, const char *detail) {
    if (has_body(&c->reader.head)) {
        r->close = true;
    } else {
        bytes head_text, body;
        http_accept(&c->reader, 0);
        http_take(&c->reader, &head_text, &body);
        problem_with(c, r, type, detail);
        bytes_deinit(&head_text);
        bytes_deinit(&body);
        return;
    }
    problem_with(c, r, type, detail);
}

/* ---- requests ---- */

static request *request_new(conn *c, const route *to) {
    request *r = mem_resize(NULL, NULL, sizeof *r);
    if (!r) {
        return NULL;
    }
    memset(r, 0, sizeof *r);
    service_job_init(&r->job, to->verb);
    bytes_init(&r->head_text, NULL, 0);
    bytes_init(&r->body, NULL, 0);
    r->route = to;
    r->loop = c->loop;
    r->conn = c;
    r->started_us = c->started_us;
    return r;
}

static void request_free(request *r) {
    loop *l = r->loop;
    loop_unwait(l, &r->wait);
    if (r->counted_parked) {
        atomic_fetch_sub(&l->server->metrics.parked, 1);
    }
    pool_release(l->server->pool, r);
    gate_leave(l->server->gate, &r->user_place);
    gate_leave(l->server->gate, &r->device_place);
    service_job_deinit(&r->job);
    bytes_deinit(&r->head_text);
    bytes_deinit(&r->body);
    mem_free(NULL, r);
}

void dispatch_forget(conn *c) {
    request *r = c->request;
    c->request = NULL;
    if (!r) {
        return;
    }
    if (c->state == CONN_WORKING) {
        r->conn = NULL; /* the pool has it; dispatch_done frees it */
        loop_unwait(c->loop, &r->wait);
    } else {
        request_free(r);
    }
}

typedef struct {
    int status; /* 0 = fine */
    const char *type, *detail;
    int64_t retry_after_s; /* 0 = as the status has it */
} verdict;

static verdict verdict_of(gate_answer a) {
    return a.refused ? (verdict){429, "rate-limited", a.detail, a.retry_after_s} : (verdict){0};
}

static verdict check_token(conn *c, request *r, slice token) {
    server *s = c->loop->server;
    const char *reason = NULL;
    key_set *keys = keyring_take(s->keys);
    godwit_status status =
        auth_check(&s->auth, keys, &r->job.memory, token, loop_wall_s(), &r->job.who, &reason);
    key_set_release(keys);
    if (status == GODWIT_NOMEM) {
        return (verdict){503, "overloaded", "out of memory", 0};
    }
    if (status == GODWIT_NOT_FOUND && keyring_miss(s->keys)) {
        return (verdict){503, "overloaded", "the keys for tokens are being read again; try again",
                         0};
    }
    if (status) {
        gate_bad_token(s->gate, &c->peer, &c->reader.head, loop_mono_ms());
        return (verdict){401, "unauthenticated", reason, 0};
    }
    return verdict_of(gate_user(s->gate, r->job.who.user, loop_mono_ms(), &r->user_place));
}

/* Whether the token is good, or none is needed. */
static verdict authenticate(conn *c, request *r) {
    slice header, token;
    if (r->route->is_public) {
        return (verdict){0};
    }
    if (!http_header_find(&c->reader.head, "Authorization", &header)) {
        return (verdict){401, "unauthenticated", "a bearer token is needed", 0};
    }
    if (!auth_bearer(header, &token)) {
        return (verdict){401, "unauthenticated", "the Authorization header is not 'Bearer TOKEN'",
                         0};
    }
    return check_token(c, r, token);
}

/* Encodings and lengths. */
static verdict check_body(conn *c, request *r) {
    const http_head *head = &c->reader.head;
    slice coding;
    if (has_body(head) && r->route->body_max == 0) {
        return (verdict){400, "invalid-request", "no body is expected here", 0};
    }
    if (http_header_find(head, "Content-Encoding", &coding) && !slice_is(coding, "identity")) {
        if (!http_list_has(coding, "gzip") || memchr(coding.ptr, ',', coding.len)) {
            return (verdict){415, "unsupported-encoding", "only gzip is understood", 0};
        }
        r->body_is_gzip = true;
    }
    if (head->content_length > 0 && (uint64_t)head->content_length > r->route->body_max) {
        return (verdict){413, "too-large", "body over the limit", 0};
    }
    if (has_body(head) &&
        !pool_has_room(c->loop->server->pool,
                       head->content_length > 0 ? (size_t)head->content_length : 0)) {
        return (verdict){503, "overloaded", "too much is waiting; try again", 0};
    }
    return (verdict){0};
}

static verdict check_head(conn *c, request *r) {
    const http_head *head = &c->reader.head;
    const char *reason = NULL;
    verdict known = authenticate(c, r);
    if (known.status != 0) {
        return known;
    }
    godwit_status status = route_query(r->route, head->query, &r->job, &reason);
    if (status == GODWIT_NOMEM) {
        return (verdict){503, "overloaded", "out of memory", 0};
    }
    if (status) {
        return (verdict){400, "invalid-request", reason, 0};
    }
    slice value;
    r->gzip_wanted =
        http_header_find(head, "Accept-Encoding", &value) && http_list_has(value, "gzip");
    (void)http_header_find(head, "Idempotency-Key", &r->job.idempotency_key_header);
    (void)http_header_find(head, "If-None-Match", &r->job.q_if_none_match);
    return check_body(c, r);
}

static void refuse_by(conn *c, const verdict *v) {
    reply r = {.status = v->status,
               .has_retry_after = v->retry_after_s > 0,
               .retry_after_s = v->retry_after_s};
    refuse_head(c, &r, v->type, v->detail);
}

void dispatch_head(conn *c) {
    http_head *head = &c->reader.head;
    const route *to;
    c->close_after = c->close_after || !head->keep_alive;
    c->http_1_0 = head->minor == 0;
    c->head_only = slice_is(head->method, "HEAD");
    int found = route_find(head->method, head->path, &to);
    c->route = to ? to->id : ROUTE_NONE;
    verdict v = verdict_of(gate_request(c->loop->server->gate, &c->peer, head, loop_mono_ms()));
    if (v.status != 0) {
        refuse_by(c, &v);
        return;
    }
    if (found != 200) {
        reply r = {.status = found, .allow = to ? to->methods : NULL};
        refuse_head(c, &r, found == 404 ? "not-found" : "method-not-allowed",
                    found == 404 ? "there is nothing at this path" : "see the header Allow");
        return;
    }
    request *r = request_new(c, to);
    if (!r) {
        dispatch_problem(c, 503, "overloaded", "out of memory", true);
        return;
    }
    v = check_head(c, r);
    if (v.status != 0) {
        refuse_by(c, &v);
        request_free(r);
        return;
    }
    c->request = r;
    http_accept(&c->reader, to->body_max);
}

/* ---- complete requests ---- */

static void answer_here(conn *c, request *r) {
    server *s = c->loop->server;
    bytes body;
    bytes_init(&body, NULL, 0);
    reply answer = {.status = 200, .content_type = "text/plain; charset=utf-8"};
    if (r->route->id == ROUTE_METRICS) {
        answer.content_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_write(&s->metrics, &body);
        service_metrics(s->service, &body);
        if (s->tls) {
            prom_single(&body, "godwit_tls_certificate_end_seconds", "gauge",
                        "When the certificate's time ends, unix time.", tls_expires_s(s->tls));
        }
    } else if (r->route->id == ROUTE_READYZ && atomic_load(&s->draining)) {
        answer.status = 503;
        bytes_text(&body, "draining\n");
    } else if (r->route->id == ROUTE_READYZ && service_ready(s->service) != GODWIT_OK) {
        answer.status = 503;
        bytes_printf(&body, "%s\n", godwit_status_text(service_ready(s->service)));
    } else {
        bytes_text(&body, "ok\n");
    }
    set_extras(answer.status, &answer);
    conn_answer(c, &answer, &body);
}

/* The scope a long poll or a stream is about, as the service understands an absent one. */
static slice effective_scope(const request *r) {
    const principal *who = &r->job.who;
    if (r->job.q_scope.len > 0) {
        return r->job.q_scope;
    }
    if (who->scope_count > 0) {
        return who->scopes[0];
    }
    return who->read_scope_count > 0 ? who->read_scopes[0] : (slice){NULL, 0};
}

static void submitted(conn *c) {
    c->loop->requests++;
    conn_move(c, CONN_WORKING);
    conn_deadline(c, 0);
}

static void submit(conn *c, request *r) {
    r->seen_head = r->wait.head;
    submitted(c);
    if (!pool_submit(c->loop->server->pool, r)) {
        c->loop->requests--;
        dispatch_problem(c, 503, "overloaded", "too much is waiting; try again", false);
    }
}

void dispatch_request(conn *c) {
    request *r = c->request;
    ASSERT(r);
    http_take(&c->reader, &r->head_text, &r->body);
    conn_release_body(c);
    r->job.body = bytes_view(&r->body);
    if (r->route->kind == ROUTE_HERE) {
        answer_here(c, r);
        return;
    }
    r->stage = STAGE_PREPARE;
    if (r->route->kind == ROUTE_STREAM) {
        bool asked_later = service_asks_scopes(c->loop->server->service);
        r->scope = asked_later ? r->job.q_scope : effective_scope(r);
        if (r->scope.len == 0 || (!asked_later && !principal_may_read(&r->job.who, r->scope))) {
            dispatch_problem(c, 403, "scope-forbidden", "the token does not allow this scope",
                             false);
            return;
        }
        r->stage = STAGE_HEAD;
        r->wait.wake = stream_wake;
        loop_wait(c->loop, &r->wait, r->scope);
    }
    submit(c, r);
}

bool dispatch_admit(void *context, request *r) {
    server *s = context;
    const service_job *job = &r->job;
    if (job->device.len == 0) {
        return true;
    }
    gate_answer a =
        gate_device(s->gate, job->who.user, job->device, loop_mono_ms(), &r->device_place);
    if (a.refused) {
        service_problem(&r->job, 429, "rate-limited", a.detail, NULL);
        r->job.retry_after_s = a.retry_after_s;
    }
    return !a.refused;
}

/* ---- long polls ---- */

static void wake_parked(waiter *w, int64_t head) {
    request *r = (request *)(void *)((char *)w - offsetof(request, wait));
    /* recorded in the waiter: a request in the pool is looked at when it is back */
    if (r->conn && r->conn->state == CONN_PARKED && head > r->job.park_head) {
        dispatch_resume(r->conn, false);
    }
}

void dispatch_resume(conn *c, bool over) {
    request *r = c->request;
    ASSERT(c->state == CONN_PARKED && r);
    r->job.wait_over = r->job.wait_over || over;
    r->job.park = false;
    r->stage = STAGE_READ;
    r->seen_head = r->wait.head;
    submitted(c);
    pool_resubmit(c->loop->server->pool, r);
}

static void park(conn *c, request *r) {
    loop *l = c->loop;
    int64_t now = loop_mono_ms();
    bool first = !r->wait.listed;
    if (first) {
        /* The first read ran before anyone listened: listen, then look once more. */
        r->scope = r->job.park_scope;
        r->wait.wake = wake_parked;
        loop_wait(l, &r->wait, r->scope);
        r->park_until_ms = now + r->job.wait_ms;
        r->counted_parked = true;
        atomic_fetch_add(&l->server->metrics.parked, 1);
    }
    conn_move(c, CONN_PARKED);
    int64_t left = r->park_until_ms - now;
    if (c->eof || l->draining || left <= 0) {
        dispatch_resume(c, true);
    } else if (first || (r->wait.head > r->seen_head && r->wait.head > r->job.park_head)) {
        dispatch_resume(c, false);
    } else {
        conn_deadline(c, left);
    }
}

/* ---- jobs that come back ---- */

static void answer_job(conn *c, request *r) {
    service_job *job = &r->job;
    reply answer = {.status = job->status,
                    .content_type = job->content_type,
                    .gzip = r->answer_is_gzip,
                    .vary = true,
                    .has_retry_after = job->retry_after_s >= 0,
                    .retry_after_s = job->retry_after_s,
                    .etag = job->etag};
    if (job->status == 503 && !answer.has_retry_after) {
        set_extras(503, &answer);
    }
    loop_unwait(c->loop, &r->wait);
    if (job->pushes ||
        ((job->verb == VERB_CHANGES || job->verb == VERB_SYNC) && !r->counted_parked)) {
        metrics *m = &c->loop->server->metrics;
        prom_observe(job->pushes ? &m->push : &m->pull, &prom_seconds,
                     loop_mono_us() - c->started_us);
    }
    if (!conn_hold_answer(c, job->answer.len)) {
        dispatch_problem(c, 503, "overloaded", "too much is on its way; try again", false);
        return;
    }
    conn_answer(c, &answer, &job->answer);
}

void dispatch_done(request *r) {
    conn *c = r->conn;
    if (!c) {
        request_free(r);
        return;
    }
    ASSERT(c->state == CONN_WORKING && c->request == r);
    if (r->stage == STAGE_HEAD && r->job.status == 0) {
        stream_begin(c, r);
        return;
    }
    if (r->job.park) {
        park(c, r);
        return;
    }
    answer_job(c, r);
    conn_pump(c);
}
