/* One seed: a world, faults, then calm, and everything must come together. See sim.h. */
#include <stdio.h>
#include <stdlib.h>

#include "sim/query.h"
#include "sim/sim.h"

#define FAULTS_MIN 80
#define STEPS_MAX  3000
#define ROUNDS_MAX 14
#define START_MS   INT64_C(1767323040000)
#define DAY_MS     INT64_C(86400000)

static uint64_t numbers(void *context) {
    return sim_random_next(&((world *)context)->random);
}

static int64_t wall_of_current(void *context) {
    const world *w = context;
    const device *d = w->current >= 0 ? &w->devices[w->current] : NULL;
    return d && d->frozen_ms ? d->frozen_ms : w->now_ms + (d ? d->skew_ms : 0);
}

static void pass(void *context, int64_t us) {
    ((world *)context)->now_ms += us / 1000;
}

/* ---- calm ---- */

static void calm_device(world *w, device *d) {
    memset(&d->disk.faults, 0, sizeof d->disk.faults);
    d->disk.crash_in = 0;
    d->disk.busy_left = 0;
    d->mute_up = d->mute_down = d->frozen_ms = d->wait_until = 0;
    d->revoked = false;
    d->token_exp = w->now_ms / 1000 + 86400 * 365;
    if (!d->g && !device_open(d)) {
        sim_fail(w, "I28", "device %d does not open again", d->number);
    }
    device_settings(d);
    if (w->server.upgraded || d->migrating) {
        device_upgrade(d);
    }
}

static void calm_down(world *w) {
    sim_trace(w, "calm");
    w->calm = true;
    memset(&w->server.disk.faults, 0, sizeof w->server.disk.faults);
    w->server.disk.crash_in = 0;
    w->server.disk.busy_left = 0;
    if (!w->server.service) {
        server_start(w);
    }
    if (w->swarm.upgrade) {
        server_upgrade(w);
    }
    for (int i = 0; i < w->device_count; i++) {
        calm_device(w, &w->devices[i]);
    }
}

/* What was sent long ago still arrives. */
static void late_packets(world *w) {
    for (int day = 0; day < 20; day++) {
        w->now_ms += DAY_MS;
        net_run(w);
    }
}

static void converge(world *w) {
    char reason[256] = "";
    for (w->rounds = 0; w->rounds < ROUNDS_MAX; w->rounds++) {
        w->now_ms += 60000;
        for (int i = 0; i < w->device_count; i++) {
            device_sync(&w->devices[i]);
        }
        if (w->rounds == 1) {
            late_packets(w);
        }
        if (w->rounds >= 2 && oracle_settled(w, reason)) {
            return;
        }
    }
    sim_fail(w, "I27", "no convergence after %d rounds: %s", ROUNDS_MAX, reason);
}

/* ---- a seed ---- */

static void begin(world *w, uint64_t seed) {
    w->seed = seed;
    w->random.state = seed * UINT64_C(0x9e3779b97f4a7c15) + 12345;
    w->now_ms = w->started_ms = START_MS;
    w->current = -1;
    w->trace = UINT64_C(14695981039346656037);
    oracle_init(&w->oracle);
    oracle_twice(w);
    swarm_pick(w);
    server_init(w);
    for (int i = 0; i < w->swarm.devices; i++) {
        device_create(w, w->swarm.two_tenants ? i % 2 : 0);
    }
    if (w->swarm.hostile_server) {
        device_create(w, 0);
        w->devices[w->device_count - 1].victim = true;
    }
}

static int64_t injected(const world *w) {
    int64_t sum = w->faults + w->server.disk.injected;
    for (int i = 0; i < w->device_count; i++) {
        sum += w->devices[i].disk.injected;
    }
    return sum;
}

static void count_disk(world *w, const disk *d) {
    w->seen[SEEN_FULL] += d->hits.full;
    w->seen[SEEN_WRITE_ERROR] += d->hits.write_error;
    w->seen[SEEN_READ_ERROR] += d->hits.read_error;
    w->seen[SEEN_SYNC_ERROR] += d->hits.sync_error;
    w->seen[SEEN_LOCKED] += d->hits.busy;
}

static void end(world *w) {
    count_disk(w, &w->server.disk);
    for (int i = 0; i < w->device_count; i++) {
        count_disk(w, &w->devices[i].disk);
    }

    net_clear(w);
    for (size_t i = 0; i < OLD_MAX; i++) {
        packet_deinit(&w->requests[i]);
    }
    for (int i = 0; i < w->device_count; i++) {
        device_forget(&w->devices[i]);
    }
    server_deinit(w);
    oracle_deinit(&w->oracle);
}

void sim_run(world *w, uint64_t seed) {
    disk_host host = {.wall_ms = wall_of_current, .sleep = pass, .random = numbers, .context = w};
    w->random.state = seed;
    disk_vfs_install(&host);
    begin(w, seed);
    while (w->steps < STEPS_MAX && (w->steps < w->swarm.steps || injected(w) < FAULTS_MIN)) {
        w->steps++;
        swarm_step(w);
    }
    w->faults = injected(w);
    if (w->faults < FAULTS_MIN) {
        sim_fail(w, "seed", "only %lld faults", (long long)w->faults);
    }
    calm_down(w);
    converge(w);
    oracle_end(w);
    end(w);
    disk_vfs_remove();
}
