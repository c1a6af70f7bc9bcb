/* The public calls that sync: godwit_sync with a blocking transport, godwit_next and godwit_feed
 * for hosts with their own HTTP. */
#include "client/pump.h"
#include "client/runner.h"

#include <stdio.h>

#include "core/backoff.h"
#include "core/limits.h"

#define SYNC_TIMEOUT_MS 60000
#define BUSY_WAIT_MS    2000

/* ---- What both ways need ---- */

godwit_status sync_check(godwit *g, slice *url, arena *a) {
    if (!sqlite3_get_autocommit(g->db.handle)) {
        return client_fail(g, GODWIT_MISUSE, "syncing inside an open transaction: commit it first");
    }
    godwit_status status = client_meta_text(g, a, "url", url);
    if (status == GODWIT_OK && !url->len) {
        status = client_fail(g, GODWIT_MISUSE, "no url is set: call godwit_init first");
    }
    while (url->len && url->ptr[url->len - 1] == '/') {
        url->len--;
    }
    return status;
}

static godwit_status read_token(godwit *g, arena *a, slice *token) {
    godwit_status status = token_read(g, a, token);
    if (status == GODWIT_OK && !token->ptr) {
        status =
            client_fail(g, GODWIT_UNAUTHENTICATED, "no token is set: call godwit_init with one");
    }
    return status;
}

/* ---- Blocking ---- */

bool sync_cancelled(godwit *g) {
    return g->cancelled && g->cancelled(g->cancel_context);
}

/* With the authorities that the settings name. */
static godwit_status make_transport(godwit *g, transport **out) {
    slice ca_file = {0};
    arena a;
    godwit_status status = transport_create(g->allocator, out);
    if (status != GODWIT_OK) {
        return status;
    }
    arena_init(&a, g->allocator, 0);
    status = client_meta_text(g, &a, "ca_file", &ca_file);
    transport_trust(*out, ca_file);
    arena_deinit(&a);
    return status;
}

godwit_status sync_way_of(godwit *g, pump *p, sync_way *out) {
    if (g->options.host.exchange) {
        *out = (sync_way){g->options.host.context, g->options.host.exchange};
        return GODWIT_OK;
    }
    godwit_status status = p->transport ? GODWIT_OK : make_transport(g, &p->transport);
    if (status == GODWIT_UNSUPPORTED) {
        return client_fail(g, GODWIT_MISUSE,
                           "this build has no HTTP: set host.exchange, or use godwit_next");
    }
    *out = (sync_way){p->transport, transport_exchange};
    return status;
}

godwit_status sync_exchange(godwit *g, const sync_call *call, godwit_http_answer *answer) {
    arena a;
    slice token = {0};
    arena_init(&a, g->allocator, 0);
    memset(answer, 0, sizeof *answer);
    answer->retry_after_ms = -1;
    godwit_status status = read_token(g, &a, &token);
    char *full = arena_printf(&a, SLICE_FMT "%s", SLICE_ARG(call->url), call->path);
    char *bearer = arena_printf(&a, "Authorization: Bearer " SLICE_FMT, SLICE_ARG(token));
    char *client = arena_printf(&a, "Sync-Client: godwit/%s; schema=%lld", godwit_version(),
                                (long long)g->registry.app_schema);
    if (status == GODWIT_OK && (!full || !bearer || !client)) {
        status = GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        const char *headers[] = {bearer, client, "Content-Type: application/json",
                                 "Accept: application/json, application/problem+json"};
        godwit_http_request request = {.method = call->method,
                                       .url = full,
                                       .headers = headers,
                                       .header_count = COUNT_OF(headers),
                                       .body = call->body.ptr,
                                       .body_bytes = call->body.len,
                                       .timeout_ms = call->timeout_ms,
                                       .answer_max = ANSWER_BYTES_MAX,
                                       .cancelled = g->cancelled,
                                       .cancel_context = g->cancel_context};
        g->asked_ms = client_mono_ms(g);
        call->way.exchange(call->way.context, &request, answer);
        answer->reason[sizeof answer->reason - 1] = 0;
    }
    arena_deinit(&a);
    bool given_up = sync_cancelled(g);
    g->asked_ms = 0;
    if (status == GODWIT_OK && given_up) {
        mem_free(g->allocator, answer->body);
        memset(answer, 0, sizeof *answer);
        status =
            client_fail(g, GODWIT_CANCELLED, "given up; what was sent and not answered goes again");
    }
    return status;
}

/* The pump's request, and what comes of it. */
static godwit_status perform(godwit *g, pump *p, const sync_way *w, slice url, int64_t timeout_ms) {
    godwit_http_answer answer;
    const sync_call call = {.way = *w,
                            .url = url,
                            .method = p->request.method,
                            .path = p->request.path.ptr,
                            .body = bytes_view(&p->request.body),
                            .timeout_ms = timeout_ms};
    godwit_status status = sync_exchange(g, &call, &answer);
    if (status == GODWIT_OK) {
        status = pump_answer(g, p, &answer);
        mem_free(g->allocator, answer.body);
    }
    return status;
}

godwit_status sync_run(godwit *g, pump *p, int64_t timeout_ms) {
    arena a;
    slice url = {0};
    sync_way w = {0};
    arena_init(&a, g->allocator, 0);
    godwit_status status = sync_check(g, &url, &a);
    if (status == GODWIT_OK) {
        status = sync_way_of(g, p, &w);
    }
    int64_t end_ms = client_mono_ms(g) + timeout_ms;
    p->wait_until_ms = 0; /* godwit_sync does not wait for next_attempt_at */
    bool going = status == GODWIT_OK;
    while (going) {
        int64_t left_ms = end_ms - client_mono_ms(g);
        if (sync_cancelled(g)) {
            status = client_fail(g, GODWIT_CANCELLED, "stopped; what was settled is kept");
            break;
        }
        if (left_ms <= 0) {
            status = client_fail(g, GODWIT_TIMEOUT,
                                 "the time allowed is over; what was settled is kept");
            break;
        }
        pump_kind kind = pump_step(g, p, &status);
        if (kind == PUMP_REQUEST) {
            status =
                perform(g, p, &w, url, left_ms < REQUEST_TIMEOUT_MS ? left_ms : REQUEST_TIMEOUT_MS);
            going = status == GODWIT_OK;
        } else {
            going = false;
            if (kind == PUMP_WAIT) {
                status = client_fail(g, p->failure, "%s", p->reason);
            }
        }
    }
    pump_abandon(g, p);
    arena_deinit(&a);
    return status;
}

static godwit_status count_pending(godwit *g, int64_t *out) {
    return db_int(
        &g->db, out,
        "SELECT (SELECT count(*) FROM godwit_op WHERE state = 'pending' AND state <> 'retired') + "
        "(SELECT count(*) FROM"
        " godwit_log WHERE lsn > coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
        " 'sealed_lsn'), 0))",
        "");
}

godwit_status godwit_sync(godwit *g, int64_t timeout_ms, godwit_sync_report *report) {
    pump *p = NULL;
    if (report) {
        memset(report, 0, sizeof *report);
    }
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = pump_of(g, &p);
    if (status == GODWIT_OK) {
        memset(&p->report, 0, sizeof p->report);
        status = sync_run(g, p, timeout_ms > 0 ? timeout_ms : SYNC_TIMEOUT_MS);
        if (status == GODWIT_OK || godwit_status_class(status) != GODWIT_CLASS_CORRUPT) {
            godwit_status counted = count_pending(g, &p->report.pending);
            status = status == GODWIT_OK ? counted : status;
        }
        if (report) {
            *report = p->report;
        }
    }
    return client_leave(g, status);
}

/* ---- For the host's own HTTP ---- */

static godwit_status write_request(godwit *g, pump *p) {
    arena a;
    slice token = {0};
    bool first = true;
    bytes *b = &p->json;
    arena_init(&a, g->allocator, 0);
    godwit_status status = read_token(g, &a, &token);
    bytes_text(b, "{\"id\":");
    bytes_int(b, p->request.id);
    bytes_printf(b, ",\"method\":\"%s\",\"path\":", p->request.method);
    json_write_text(b, bytes_view(&p->request.path));
    bytes_text(b, ",\"headers\":{");
    json_key(b, &first, "Authorization");
    char *bearer = arena_printf(&a, "Bearer " SLICE_FMT, SLICE_ARG(token));
    json_write_text(b, slice_of(bearer ? bearer : ""));
    json_key(b, &first, "Sync-Client");
    bytes_printf(b, "\"godwit/%s; schema=%lld\"", godwit_version(),
                 (long long)g->registry.app_schema);
    json_key(b, &first, "Content-Type");
    bytes_text(b, "\"application/json\"}");
    if (p->request.body.len) {
        bytes_text(b, ",\"body\":");
        json_write_text(b, bytes_view(&p->request.body));
    }
    bytes_printf(b, ",\"timeoutMs\":%d}", REQUEST_TIMEOUT_MS);
    status = status == GODWIT_OK && (b->failed || !bearer) ? GODWIT_NOMEM : status;
    arena_deinit(&a);
    return status;
}

static godwit_status give(pump *p, const char **out) {
    *out = p->json.ptr;
    return p->json.failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status give_wait(pump *p, int64_t wait_ms, const char **out) {
    bytes_clear(&p->json);
    bytes_printf(&p->json, "{\"waitMs\":%lld}", (long long)wait_ms);
    return give(p, out);
}

/* How long to wait still; 0 = go. */
static godwit_status wait_left(godwit *g, pump *p, int64_t *wait_ms) {
    int64_t until_ms = 0;
    *wait_ms = 0;
    if (p->active) {
        return GODWIT_OK;
    }
    godwit_status status = client_meta_int(g, "next_attempt_ms", 0, &until_ms);
    if (status == GODWIT_OK) {
        *wait_ms = backoff_left_ms(until_ms, client_wall_ms(g));
    }
    p->wait_until_ms = 0;
    return status;
}

static godwit_status next(godwit *g, pump *p, const char **out) {
    arena a;
    slice url = {0};
    int64_t wait_ms = 0;
    arena_init(&a, g->allocator, 0);
    godwit_status status = sync_check(g, &url, &a);
    arena_deinit(&a);
    if (status == GODWIT_OK) {
        status = wait_left(g, p, &wait_ms);
    }
    if (status != GODWIT_OK || wait_ms) {
        return status == GODWIT_OK ? give_wait(p, wait_ms, out) : status;
    }
    pump_kind kind = pump_step(g, p, &status);
    bytes_clear(&p->json);
    if (kind == PUMP_REQUEST) {
        status = write_request(g, p);
        return status == GODWIT_OK ? give(p, out) : status;
    }
    return status == GODWIT_BUSY ? give_wait(p, BUSY_WAIT_MS, out) : status;
}

godwit_status godwit_next(godwit *g, const char **out) {
    pump *p = NULL;
    if (!out) {
        return GODWIT_MISUSE;
    }
    *out = NULL;
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = pump_of(g, &p);
    if (status == GODWIT_OK) {
        status = next(g, p, out);
    }
    return client_leave(g, status);
}

static bool name_is(slice name, const char *lower) {
    size_t len = strlen(lower);
    for (size_t i = 0; i < name.len && i < len; i++) {
        char c =
            name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] | 0x20) : name.ptr[i];
        if (c != lower[i]) {
            return false;
        }
    }
    return name.len == len;
}

static int64_t retry_after(godwit *g, const char *headers_json) {
    arena a;
    const json *root = NULL;
    int64_t wait_ms = -1, seconds = 0;
    slice text = {0};
    arena_init(&a, g->allocator, 0);
    if (headers_json && json_parse(&a, slice_of(headers_json), &root, NULL) == GODWIT_OK &&
        json_is(root, JSON_OBJECT)) {
        const json *name = json_first(root);
        for (uint32_t i = 0; i < root->count; i++, name = json_after(name + 1)) {
            if (!name_is(name->u.s, "retry-after")) {
                continue;
            }
            if (json_text(name + 1, &text)) {
                wait_ms = transport_retry_after_ms(text, client_wall_ms(g));
            } else if (json_int(name + 1, &seconds) && seconds >= 0 && seconds <= 86400) {
                wait_ms = seconds * 1000;
            }
        }
    }
    arena_deinit(&a);
    return wait_ms;
}

static godwit_status feed(godwit *g, pump *p, int status_code, const char *headers_json,
                          const char *body, size_t body_bytes) {
    godwit_http_answer answer;
    memset(&answer, 0, sizeof answer);
    if (!sqlite3_get_autocommit(g->db.handle)) {
        return client_fail(g, GODWIT_MISUSE, "syncing inside an open transaction: commit it first");
    }
    answer.status = status_code;
    answer.retry_after_ms = retry_after(g, headers_json);
    if (status_code == 0) {
        snprintf(answer.reason, sizeof answer.reason, "%.*s",
                 (int)(body_bytes < sizeof answer.reason ? body_bytes : sizeof answer.reason - 1),
                 body ? body : "");
        return pump_answer(g, p, &answer);
    }
    answer.body = mem_resize(g->allocator, NULL, body_bytes + 1);
    if (!answer.body) {
        return GODWIT_NOMEM;
    }
    if (body_bytes) {
        memcpy(answer.body, body, body_bytes);
    }
    answer.body_bytes = body_bytes;
    godwit_status status = pump_answer(g, p, &answer);
    mem_free(g->allocator, answer.body);
    return status;
}

godwit_status godwit_feed(godwit *g, int64_t id, int status_code, const char *headers_json,
                          const char *body, size_t body_bytes) {
    pump *p = NULL;
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = pump_of(g, &p);
    if (status == GODWIT_OK && (body || body_bytes == 0) && p->request.phase != ROUND_IDLE &&
        p->request.id == id) {
        status = body_bytes > ANSWER_BYTES_MAX
                     ? client_fail(g, GODWIT_LIMIT, "the answer is larger than allowed")
                     : feed(g, p, status_code, headers_json, body, body_bytes);
    }
    return client_leave(g, status);
}

/* Pulls the next attempt forward, by chance within a second: a network that comes back comes back
 * for many. */
static godwit_status pull_forward(godwit *g, int64_t *at_ms) {
    int64_t last_ms = 0, until_ms = 0, failures = 0;
    uint64_t drawn = 0;
    godwit_status status = client_meta_int(g, "next_attempt_ms", 0, &until_ms);
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "last_attempt_ms", 0, &last_ms);
    }
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "failures", 0, &failures);
    }
    if (status == GODWIT_OK) {
        status = client_entropy(g, &drawn, sizeof drawn);
    }
    *at_ms = backoff_hinted_ms(client_wall_ms(g), last_ms, drawn);
    if (status == GODWIT_OK && until_ms > *at_ms) {
        status = client_meta_set_int(g, "next_attempt_ms", *at_ms);
    }
    if (status == GODWIT_OK && failures > BACKOFF_HINTED_FAILURES) {
        status = client_meta_set_int(g, "failures", BACKOFF_HINTED_FAILURES);
    }
    return status;
}

godwit_status godwit_notify_network(godwit *g) {
    int64_t at_ms = 0;
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = db_begin(&g->db);
    if (status == GODWIT_OK) {
        status = pull_forward(g, &at_ms);
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
        }
    }
    if (status == GODWIT_OK) {
        runner_hint(g, at_ms - client_wall_ms(g));
    }
    return client_leave(g, status);
}
