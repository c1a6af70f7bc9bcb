/* The network: what is sent arrives late, twice, in another order, cut, or not at all. See sim.h.
 *
 * Requests that are due at the same time reach the server together. Answers find only the process
 * that asked; one that is gone, or waits for another answer, ignores them as the library says. */
#include <stdlib.h>

#include "sim/sim.h"

#define DAY_MS INT64_C(86400000)

void packet_init(packet *p) {
    memset(p, 0, sizeof *p);
    bytes_init(&p->path, NULL, 0);
    bytes_init(&p->body, NULL, 0);
    bytes_init(&p->token, NULL, 0);
}

void packet_deinit(packet *p) {
    bytes_deinit(&p->path);
    bytes_deinit(&p->body);
    bytes_deinit(&p->token);
    memset(p, 0, sizeof *p);
}

void packet_copy(packet *to, const packet *from) {
    packet_init(to);
    bytes path = to->path, body = to->body, token = to->token;
    *to = *from;
    to->path = path;
    to->body = body;
    to->token = token;
    bytes_slice(&to->path, bytes_view(&from->path));
    bytes_slice(&to->body, bytes_view(&from->body));
    bytes_slice(&to->token, bytes_view(&from->token));
}

static void put(world *w, packet *p, int64_t delay_ms) {
    for (size_t i = 0; i < PACKETS_MAX; i++) {
        if (!w->packets[i].used) {
            w->packets[i] = *p;
            w->packets[i].used = true;
            w->packets[i].at = w->now_ms + delay_ms;
            memset(p, 0, sizeof *p);
            return;
        }
    }
    w->faults++; /* the wire is full: lost */
    packet_deinit(p);
}

static int64_t delay(world *w) {
    const swarm *s = &w->swarm;
    if (sim_fault(w, s->days)) {
        return DAY_MS / 4 + (int64_t)sim_below(w, (uint64_t)DAY_MS * 9);
    }
    return sim_fault(w, s->late) ? 1000 + (int64_t)sim_below(w, 40000)
                                 : 5 + (int64_t)sim_below(w, 60);
}

void net_send(world *w, packet *p) {
    const device *d = &w->devices[p->device];
    bool muted = (p->answer ? d->mute_down : d->mute_up) > w->now_ms;
    w->faults += muted;
    if (muted || sim_fault(w, w->swarm.drop)) {
        packet_deinit(p);
        return;
    }
    if (sim_fault(w, w->swarm.twice)) {
        packet again;
        packet_copy(&again, p);
        put(w, &again, delay(w) + delay(w));
    }
    if (p->answer && p->status && sim_fault(w, w->swarm.cut) && p->body.len) {
        p->body.len = sim_below(w, p->body.len);
    }
    put(w, p, delay(w));
}

void net_mangle(world *w, packet *p) {
    size_t changes = 1 + sim_below(w, 4);
    for (size_t i = 0; i < changes && p->body.len; i++) {
        size_t at = sim_below(w, p->body.len);
        char c = p->body.ptr[at];
        if (c >= '0' && c <= '9') {
            p->body.ptr[at] = (char)('0' + sim_below(w, 10));
        } else if (sim_chance(w, 3)) {
            p->body.ptr[at] = (char)sim_below(w, 256);
        }
    }
    w->faults++;
    w->seen[SEEN_MANGLED]++;
}

/* ---- arrival ---- */

static void remember(world *w, const packet *p) {
    packet *slot = &w->requests[w->request_at++ % OLD_MAX];
    packet_deinit(slot);
    packet_copy(slot, p);
    slot->used = true;
}

static void arrive_requests(world *w) {
    packet *due[8], answers[8], taken[8];
    size_t count = 0;
    for (size_t i = 0; i < PACKETS_MAX && count < 8; i++) {
        packet *p = &w->packets[i];
        if (p->used && !p->answer && p->at <= w->now_ms) {
            taken[count] = *p;
            memset(p, 0, sizeof *p);
            due[count] = &taken[count];
            count++;
        }
    }
    if (!count) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        remember(w, due[i]);
        server_pieces(w, due[i]);
        packet_init(&answers[i]);
        answers[i].answer = true;
        answers[i].device = due[i]->device;
        answers[i].epoch = due[i]->epoch;
        answers[i].id = due[i]->id;
    }
    server_serve(w, due, count, answers);
    for (size_t i = 0; i < count; i++) {
        net_send(w, &answers[i]);
        packet_deinit(&taken[i]);
    }
}

static void arrive_answers(world *w) {
    for (size_t i = 0; i < PACKETS_MAX; i++) {
        if (w->packets[i].used && w->packets[i].answer && w->packets[i].at <= w->now_ms) {
            packet p = w->packets[i];
            memset(&w->packets[i], 0, sizeof w->packets[i]);
            device_answer(&w->devices[p.device], &p);
            packet_deinit(&p);
        }
    }
}

void net_run(world *w) {
    arrive_requests(w);
    arrive_answers(w);
}

void net_drop_device(world *w, int number) {
    for (size_t i = 0; i < PACKETS_MAX; i++) {
        packet *p = &w->packets[i];
        if (p->used && p->answer && p->device == number) {
            packet_deinit(p);
        }
    }
}

void net_clear(world *w) {
    for (size_t i = 0; i < PACKETS_MAX; i++) {
        if (w->packets[i].used) {
            packet_deinit(&w->packets[i]);
        }
    }
}
