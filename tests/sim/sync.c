/* How a device talks to the server: with godwit_next and godwit_feed over the network, or blocking,
 * with the network's faults inside the exchange. See sim.h. */
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "sim/sim.h"

#define PATIENCE_MS 30000

static bool explained(godwit_status status) {
    return status != GODWIT_CORRUPT && status != GODWIT_INTERNAL && status != GODWIT_MISUSE &&
           status != GODWIT_NOMEM;
}

static void after_call(device *d, godwit_status status, const char *what) {
    sim_trace(d->w, "device %d %s: %s %s", d->number, what, godwit_status_name(status),
              status && status != GODWIT_BUSY ? godwit_message(d->g) : ""); /* BUSY names a pid */
    if (!d->disk.halted && !explained(status) && !d->victim) {
        sim_fail(d->w, "I28", "device %d: %s: %s: %s", d->number, what, godwit_status_name(status),
                 godwit_message(d->g));
    }
    d->identity_stop = status == GODWIT_IDENTITY;
    device_reap(d);
    if (d->g) {
        oracle_device_check(d->w, d->number, false);
    }
}

/* ---- old answers ---- */

static char verb_of(const char *path) {
    return strncmp(path, "/v1/sync/", 9) == 0 ? path[9] : path[4]; /* d s t, c(hanges) s(napshot) */
}

static void keep_answer(device *d, char verb, const packet *p) {
    size_t at = d->old_at++ % OLD_MAX;
    if (d->old[at].used) {
        bytes_deinit(&d->old[at].body);
    }
    d->old[at].used = true;
    d->old[at].verb = verb;
    bytes_init(&d->old[at].body, NULL, 0);
    bytes_slice(&d->old[at].body, bytes_view(&p->body));
}

/* A proxy answers from its cache. */
static void replay_old(device *d, char verb, packet *p) {
    size_t at = sim_below(d->w, OLD_MAX);
    if (d->old[at].used && d->old[at].verb == verb && sim_fault(d->w, d->w->swarm.replay)) {
        sim_trace(d->w, "device %d gets an old answer", d->number);
        bytes_clear(&p->body);
        bytes_slice(&p->body, bytes_view(&d->old[at].body));
        p->status = 200;
    }
}

static void receive(device *d, char verb, packet *p) {
    if (p->status == 200) {
        keep_answer(d, verb, p);
    }
    replay_old(d, verb, p);
    if (d->victim) {
        net_mangle(d->w, p);
    }
}

/* ---- blocking ---- */

static void reply(godwit_http_answer *answer, const packet *p) {
    answer->status = p->status;
    answer->body = malloc(p->body.len + 1);
    if (!answer->body) {
        abort();
    }
    memcpy(answer->body, p->body.len ? p->body.ptr : "", p->body.len);
    answer->body_bytes = p->body.len;
}

static void exchange_packet(device *d, packet *p, godwit_http_answer *answer) {
    world *w = d->w;
    packet got;
    packet *one = p;
    char verb = verb_of(p->path.ptr);
    packet_init(&got);
    got.device = d->number;
    server_pieces(w, p);
    server_serve(w, &one, 1, &got);
    if (sim_fault(w, w->swarm.twice)) { /* it arrives again, later */
        packet again;
        packet_copy(&again, p);
        net_send(w, &again);
    }
    w->current = d->number;
    w->now_ms += 5 + (int64_t)sim_below(w, 40);
    bool down = d->mute_down > w->now_ms;
    w->faults += down;
    if (got.status && !down && !sim_fault(w, w->swarm.drop)) {
        receive(d, verb, &got);
        if (sim_fault(w, w->swarm.cut)) {
            got.body.len = got.body.len ? sim_below(w, got.body.len) : 0;
        }
        reply(answer, &got);
    } else {
        snprintf(answer->reason, sizeof answer->reason, "no answer");
        w->now_ms += PATIENCE_MS / 3;
    }
    packet_deinit(&got);
}

void device_exchange(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    device *d = context;
    world *w = d->w;
    answer->retry_after_ms = -1;
    if (d->disk.halted) {
        return; /* a dead process sends nothing */
    }
    oracle_learn(w, d->number);
    w->now_ms += 5 + (int64_t)sim_below(w, 40);
    bool up = d->mute_up > w->now_ms;
    w->faults += up;
    if (up || sim_fault(w, w->swarm.drop)) {
        snprintf(answer->reason, sizeof answer->reason, "not sent");
        return;
    }
    packet p;
    const char *path = strstr(request->url, "/v1/");
    packet_init(&p);
    p.device = d->number;
    p.epoch = -1; /* nobody waits for a second answer */
    snprintf(p.method, sizeof p.method, "%s", request->method);
    bytes_text(&p.path, path ? path : "/");
    bytes_slice(&p.body, (slice){request->body, request->body_bytes});
    bytes_text(&p.token, strchr(request->headers[0], ' ') + 1);
    exchange_packet(d, &p, answer);
    packet_deinit(&p);
}

void device_sync(device *d) {
    if (!d->g) {
        return;
    }
    d->w->current = d->number;
    d->out_id = 0;
    godwit_status status = godwit_sync(d->g, 120000, NULL);
    after_call(d, status, "sync");
}

/* ---- by the host's own HTTP ---- */

static bool request_of(device *d, const char *text, packet *p) {
    arena a;
    const json *root = NULL;
    slice method = {0}, path = {0}, token = {0}, body = {0};
    int64_t wait = 0;
    arena_init(&a, NULL, 0);
    bool ok = json_parse(&a, slice_of(text), &root, NULL) == GODWIT_OK;
    if (ok && json_find(root, SLICE("waitMs")) &&
        json_int(json_find(root, SLICE("waitMs")), &wait)) {
        d->wait_until = d->w->now_ms + wait;
        ok = false;
    }
    ok = ok && json_int(json_find(root, SLICE("id")), &p->id) &&
         json_text(json_find(root, SLICE("method")), &method) &&
         json_text(json_find(root, SLICE("path")), &path);
    if (ok) {
        const json *headers = json_find(root, SLICE("headers"));
        (void)json_text(json_find(headers, SLICE("Authorization")), &token);
        if (json_find(root, SLICE("body"))) {
            (void)json_text(json_find(root, SLICE("body")), &body);
        }
        snprintf(p->method, sizeof p->method, SLICE_FMT, SLICE_ARG(method));
        bytes_slice(&p->path, path);
        bytes_slice(&p->token, token);
        bytes_slice(&p->body, body);
    }
    arena_deinit(&a);
    return ok;
}

static void give_up(device *d) {
    d->w->current = d->number;
    godwit_status status = godwit_feed(d->g, d->out_id, 0, NULL, "timeout", 7);
    d->out_id = 0;
    after_call(d, status, "feed nothing");
}

void device_poll(device *d) {
    const char *text = NULL;
    world *w = d->w;
    if (!d->g || (d->out_id == 0 && d->wait_until > w->now_ms)) {
        return;
    }
    if (d->out_id && w->now_ms - d->sent_at > PATIENCE_MS) {
        give_up(d);
        return;
    }
    if (d->out_id) {
        return;
    }
    w->current = d->number;
    godwit_status status = godwit_next(d->g, &text);
    packet p;
    packet_init(&p);
    bool go = status == GODWIT_OK && text && request_of(d, text, &p);
    if (go) {
        d->out_id = p.id;
        d->out_verb = verb_of(p.path.ptr);
        d->sent_at = w->now_ms;
        p.device = d->number;
        p.epoch = d->epoch;
    }
    after_call(d, status, go ? p.path.ptr : "next");
    if (go && d->g) {
        net_send(w, &p);
    } else {
        packet_deinit(&p);
    }
}

void device_nudge(device *d) {
    d->wait_until = 0;
    d->w->current = d->number;
    godwit_status status = godwit_notify_network(d->g);
    after_call(d, status, "the network is back");
}

void device_answer(device *d, packet *p) {
    if (!d->g || p->epoch != d->epoch) {
        return;
    }
    if (p->id == d->out_id && p->status) {
        receive(d, d->out_verb, p);
    }
    d->out_id = p->id == d->out_id ? 0 : d->out_id;
    d->w->current = d->number;
    godwit_status status = godwit_feed(d->g, p->id, p->status, NULL, p->body.ptr, p->body.len);
    after_call(d, status, "feed");
}
