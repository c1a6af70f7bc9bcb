/* Tables, lock and secret around limiter.c. See gate.h. */
#include "server/gate.h"

#include <openssl/rand.h>
#include <pthread.h>

#include "core/sha256.h"

#define PLACES       65536 /* of each kind: 2.5 MiB */
#define SECRET_BYTES 32

struct gate {
    const gate_settings *settings;
    metrics *metrics;
    unsigned char secret[SECRET_BYTES];
    pthread_mutex_t locks[GATE_COUNT];
    limiter tables[GATE_COUNT];
    int lock_count;
};

void gate_close(gate *g) {
    if (!g) {
        return;
    }
    for (int i = 0; i < g->lock_count; i++) {
        pthread_mutex_destroy(&g->locks[i]);
    }
    for (int i = 0; i < GATE_COUNT; i++) {
        mem_free(NULL, g->tables[i].places);
    }
    mem_free(NULL, g);
}

godwit_status gate_open(const gate_settings *settings, metrics *m, gate **out) {
    *out = NULL;
    gate *g = mem_resize(NULL, NULL, sizeof *g);
    if (!g) {
        return GODWIT_NOMEM;
    }
    memset(g, 0, sizeof *g);
    g->settings = settings;
    g->metrics = m;
    bool ok = RAND_bytes(g->secret, sizeof g->secret) == 1;
    for (int i = 0; i < GATE_COUNT && ok; i++) {
        limiter *l = &g->tables[i];
        l->allowed = settings->limits[i];
        l->count = PLACES;
        l->places = mem_resize(NULL, NULL, PLACES * sizeof *l->places);
        ok = l->places && pthread_mutex_init(&g->locks[i], NULL) == 0;
        if (ok) {
            memset(l->places, 0, PLACES * sizeof *l->places);
            g->lock_count = i + 1;
        }
    }
    if (!ok) {
        gate_close(g);
        return GODWIT_NOMEM;
    }
    *out = g;
    return GODWIT_OK;
}

/* ---- one question ---- */

static void key_of(const gate *g, slice first, slice second, unsigned char key[SHA256_BYTES]) {
    sha256 h;
    unsigned char length = (unsigned char)first.len; /* names are at most 128 bytes */
    sha256_init(&h);
    sha256_update(&h, g->secret, sizeof g->secret);
    sha256_update(&h, &length, 1);
    sha256_update(&h, first.ptr, first.len);
    sha256_update(&h, second.ptr, second.len);
    sha256_final(&h, key);
}

static gate_answer refusal(gate *g, gate_kind kind, limiter_answer why, int64_t wait_ms) {
    static const char *const details[GATE_COUNT][2] = {
        [GATE_ADDRESS] = {"too many requests from this address",
                          "too many connections from this address"},
        [GATE_USER] = {"too many requests of this user", "too much of this user is under way"},
        [GATE_DEVICE] = {"too many requests of this device",
                         "too much of this device is under way"},
    };
    bool many = why == LIMITER_TOO_MANY;
    atomic_fetch_add_explicit(&g->metrics->limited[kind][many], 1, memory_order_relaxed);
    return (gate_answer){true, (wait_ms + 999) / 1000, details[kind][many]};
}

static bool is_limited(const allowance *l) {
    return l->rate || l->inside_max;
}

/* lease NULL: nothing is under way afterwards. */
static gate_answer ask(gate *g, gate_kind kind, slice first, slice second, int64_t cost,
                       int64_t now_ms, gate_lease *lease) {
    unsigned char key[SHA256_BYTES];
    limiter *l = &g->tables[kind];
    limiter_answer answer = LIMITER_IN;
    int64_t wait_ms = 0;
    if (!is_limited(&l->allowed)) {
        return (gate_answer){0};
    }
    key_of(g, first, second, key);
    pthread_mutex_lock(&g->locks[kind]);
    limiter_place *p = limiter_find(l, key, now_ms);
    if (p) {
        answer = limiter_enter(&l->allowed, p, cost, lease != NULL, now_ms, &wait_ms);
    }
    pthread_mutex_unlock(&g->locks[kind]);
    if (answer != LIMITER_IN) {
        return refusal(g, kind, answer, wait_ms);
    }
    if (lease) {
        *lease = (gate_lease){p, kind};
    }
    return (gate_answer){0};
}

static slice bytes_of(const address *a) {
    return (slice){(const char *)a->bytes, sizeof a->bytes};
}

gate_answer gate_connect(gate *g, const address *peer, bool tls, int64_t now_ms,
                         gate_lease *lease) {
    if (networks_have(&g->settings->unlimited, peer) ||
        networks_have(&g->settings->proxies, peer)) {
        return (gate_answer){0};
    }
    address group = address_group(peer);
    return ask(g, GATE_ADDRESS, bytes_of(&group), (slice){NULL, 0},
               tls ? GATE_COST_HANDSHAKE : GATE_COST_REQUEST, now_ms, lease);
}

/* false: it has no limit. */
static bool client_of(const gate *g, const address *peer, const http_head *head, address *group) {
    address client = address_of_client(&g->settings->proxies, g->settings->header, peer, head);
    *group = address_group(&client);
    return !networks_have(&g->settings->unlimited, &client) &&
           !networks_have(&g->settings->proxies, &client);
}

gate_answer gate_request(gate *g, const address *peer, const http_head *head, int64_t now_ms) {
    address group;
    if (!client_of(g, peer, head, &group)) {
        return (gate_answer){0};
    }
    return ask(g, GATE_ADDRESS, bytes_of(&group), (slice){NULL, 0}, GATE_COST_REQUEST, now_ms,
               NULL);
}

void gate_bad_token(gate *g, const address *peer, const http_head *head, int64_t now_ms) {
    unsigned char key[SHA256_BYTES];
    address group;
    limiter *l = &g->tables[GATE_ADDRESS];
    if (!l->allowed.rate || !client_of(g, peer, head, &group)) {
        return;
    }
    key_of(g, bytes_of(&group), (slice){NULL, 0}, key);
    pthread_mutex_lock(&g->locks[GATE_ADDRESS]);
    limiter_place *p = limiter_find(l, key, now_ms);
    if (p) {
        limiter_charge(&l->allowed, p, GATE_COST_BAD_TOKEN, now_ms);
    }
    pthread_mutex_unlock(&g->locks[GATE_ADDRESS]);
}

gate_answer gate_user(gate *g, slice user, int64_t now_ms, gate_lease *lease) {
    return ask(g, GATE_USER, user, (slice){NULL, 0}, GATE_COST_REQUEST, now_ms, lease);
}

gate_answer gate_device(gate *g, slice user, slice device, int64_t now_ms, gate_lease *lease) {
    return ask(g, GATE_DEVICE, user, device, GATE_COST_REQUEST, now_ms, lease);
}

void gate_leave(gate *g, gate_lease *lease) {
    if (lease->place) {
        pthread_mutex_lock(&g->locks[lease->kind]);
        limiter_leave(lease->place);
        pthread_mutex_unlock(&g->locks[lease->kind]);
        lease->place = NULL;
    }
}
