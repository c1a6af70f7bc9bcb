/* What a seed is like, and what happens next. See sim.h.
 *
 * Swarm testing: each seed has some kinds of faults and not others, at rates of its own, so that
 * rare combinations are not drowned by the common ones. */
#include <stdlib.h>

#include "sim/sim.h"

#define DAY_MS INT64_C(86400000)

static unsigned rate(world *w, unsigned often, unsigned seldom) {
    return sim_chance(w, 3) ? 0 : often + (unsigned)sim_below(w, seldom - often);
}

static void pick_disk(world *w, disk_faults *f) {
    memset(f, 0, sizeof *f);
    if (sim_chance(w, 2)) {
        f->full = rate(w, 150, 2000);
        f->write_error = rate(w, 150, 2000);
        f->read_error = rate(w, 400, 4000);
        f->sync_error = rate(w, 40, 400);
    }
    f->busy = rate(w, 25, 300);
}

/* Worlds that are asked for (--wide): by the seed, not by chance, so that the others stay as they
 * are. */
static void pick_wide(const world *w, swarm *s) {
    s->moves = w->seed % 8 == 3;
    if (s->moves) {
        s->place = true;
        s->backup_server = 60;
        s->restore_server = 70;
        s->short_archive = w->seed % 16 == 3;
    }
    s->tables = w->seed % 4 == 2 ? 3 : 2;
    s->deletes_win = w->seed % 8 == 2;
    s->resolves = s->resolves || s->deletes_win;
    s->title = (title_policy)(w->seed / 8 % 3);
    s->schema_once = w->seed % 4 == 0;
    s->power_again = s->schema_once ? 2 : 0;
    s->pieces = w->seed % 8 == 1 ? 3 : 0;
}

void swarm_pick(world *w) {
    swarm *s = &w->swarm;
    memset(s, 0, sizeof *s);
    s->devices = 2 + (int)sim_below(w, 3);
    s->steps = 220;
    s->two_tenants = sim_chance(w, 3);
    s->foreign_writer = sim_chance(w, 3);
    s->upgrade = sim_chance(w, 4);
    s->hostile_client = sim_chance(w, 3);
    s->hostile_server = sim_chance(w, 6);
    s->reals = sim_chance(w, 2);
    s->unique_values = sim_chance(w, 2);
    s->deletes = !sim_chance(w, 4);
    s->big_groups = sim_chance(w, 3);
    s->resolves = !sim_chance(w, 3);
    s->journal = sim_chance(w, 3) ? 1 + (int)sim_below(w, 3) : 0;
    s->drop = rate(w, 4, 20);
    s->twice = rate(w, 4, 20);
    s->late = rate(w, 3, 20);
    s->days = rate(w, 15, 60);
    s->cut = rate(w, 8, 40);
    s->replay = rate(w, 6, 30);
    s->one_way = rate(w, 20, 80);
    s->blocking = sim_chance(w, 2) ? 2 : 6;
    s->kill_device = rate(w, 8, 40);
    s->kill_server = rate(w, 15, 60);
    s->power = 1 + (unsigned)sim_below(w, 3);
    s->clock_jump = rate(w, 20, 80);
    s->freeze = rate(w, 30, 100);
    s->restart_server = rate(w, 30, 100);
    s->token = rate(w, 40, 150);
    s->revoke = rate(w, 60, 200);
    s->new_device = rate(w, 60, 200);
    s->retain = sim_chance(w, 2);
    s->forget_ledger = s->retain && sim_chance(w, 2);
    s->place = sim_chance(w, 2);
    if (!sim_chance(w, 3)) {
        s->backup_server = rate(w, 30, 80);
        s->restore_server = rate(w, 60, 200);
        s->clone_device = rate(w, 60, 200);
        s->restore_device = rate(w, 60, 200);
        s->swap_devices = rate(w, 100, 300);
    }
    pick_disk(w, &s->device_disk);
    pick_disk(w, &s->server_disk);
    s->crowd = w->seed % 8 == 5;
    s->steps += s->crowd ? 100 : 0;
    s->tables = 2;
    if (w->wide) {
        pick_wide(w, s);
    }
    s->place = s->place || s->crowd;
    s->page = w->seed % 3 == 0 ? 1 + (int)(w->seed / 3 % 4) : 0;
}

/* ---- things that happen to devices ---- */

static device *any_device(world *w) {
    return &w->devices[sim_below(w, (uint64_t)w->device_count)];
}

static void kill_soon(world *w, device *d) {
    if (!d->g) {
        return;
    }
    w->faults++;
    if (sim_chance(w, 4)) { /* between two calls */
        device_die(d, sim_chance(w, w->swarm.power) ? DISK_POWER_LOSS : DISK_PROCESS_DIES);
    } else { /* at some write from now on */
        d->disk.crash_in = 1 + (int64_t)sim_below(w, 60);
    }
}

static void clock_trouble(world *w, device *d) {
    static const int64_t jumps[] = {-DAY_MS * 3650, DAY_MS * 3650, -DAY_MS, DAY_MS,
                                    -3600000,       3600000,       -500,    500};
    if (sim_fault(w, w->swarm.clock_jump)) {
        d->skew_ms = sim_chance(w, 4) ? 0 : jumps[sim_below(w, COUNT_OF(jumps))];
        sim_trace(w, "device %d clock jumps to %+lld", d->number, (long long)d->skew_ms);
    }
    if (sim_fault(w, w->swarm.freeze)) {
        d->frozen_ms = d->frozen_ms ? 0 : w->now_ms + d->skew_ms;
    }
}

static void token_trouble(world *w, device *d) {
    if (sim_fault(w, w->swarm.token)) {
        d->token_exp = w->now_ms / 1000 + (sim_chance(w, 2) ? 5 : -3600);
        device_settings(d);
    } else if (sim_fault(w, w->swarm.revoke)) {
        d->revoked = !d->revoked;
        device_settings(d);
    } else if ((d->revoked || d->token_exp < w->now_ms / 1000 + 60) && sim_chance(w, 6)) {
        d->revoked = false;
        d->token_exp = w->now_ms / 1000 + 86400 * 365;
        device_settings(d);
    }
}

static void partition(world *w, device *d) {
    if (sim_fault(w, w->swarm.one_way)) {
        int64_t until = w->now_ms + 1000 + (int64_t)sim_below(w, 100000);
        if (sim_chance(w, 2)) {
            d->mute_up = until;
        } else {
            d->mute_down = until;
        }
    }
}

/* ---- identity ---- */

static void close_for_copy(device *d) {
    if (d->g) {
        device_close(d);
    }
}

static void clone_device(world *w, device *d) {
    if (w->device_count == DEVICES_MAX || d->victim) {
        return;
    }
    close_for_copy(d);
    device_create(w, d->scope);
    device *copy = &w->devices[w->device_count - 1];
    device_close(copy);
    device_copy(d, copy);
    memcpy(copy->user, d->user, sizeof copy->user);
    w->seen[SEEN_CLONED]++;
    sim_trace(w, "device %d is a copy of device %d", copy->number, d->number);
}

static void save_or_restore(world *w, device *d) {
    close_for_copy(d);
    if (!d->has_saved || sim_chance(w, 3)) {
        disk_copy(&d->saved, &d->disk);
        d->saved_know = d->know;
        d->saved_migrating = d->migrating;
        d->has_saved = true;
        sim_trace(w, "device %d backed up", d->number);
        return;
    }
    disk_copy(&d->disk, &d->saved);
    d->know = d->saved_know;
    d->migrating = d->saved_migrating;
    d->copied = true;
    d->writing = false;
    w->seen[SEEN_RESTORED_DEVICE]++;
    sim_trace(w, "device %d restored from its backup", d->number);
}

static void swap_devices(world *w, device *a, device *b) {
    if (a == b || a->scope != b->scope || a->attached != b->attached || a->victim || b->victim) {
        return;
    }
    disk spare;
    oracle_device know = a->know;
    bool late = a->late_column, migrating = a->migrating, writing = a->writing;
    char user[sizeof a->user];
    close_for_copy(a);
    close_for_copy(b);
    disk_init(&spare, "", a->disk.random, a->disk.context);
    disk_copy(&spare, &a->disk);
    know = a->know;
    writing = a->writing;
    migrating = a->migrating;
    device_copy(b, a);
    disk_copy(&b->disk, &spare);
    b->know = know;
    b->late_column = late;
    b->migrating = migrating;
    b->writing = writing;
    memcpy(user, a->user, sizeof user);
    memcpy(a->user, b->user, sizeof user);
    memcpy(b->user, user, sizeof user);
    disk_deinit(&spare);
    a->has_saved = b->has_saved = false; /* those are of the other user now */
    w->seen[SEEN_SWAPPED]++;
    sim_trace(w, "devices %d and %d swap their databases", a->number, b->number);
}

static void identity_trouble(world *w, device *d) {
    if (sim_fault(w, w->swarm.clone_device)) {
        clone_device(w, d);
    } else if (sim_fault(w, w->swarm.restore_device)) {
        save_or_restore(w, d);
    } else if (sim_fault(w, w->swarm.swap_devices)) {
        swap_devices(w, d, any_device(w));
    }
}

/* ---- the server ---- */

static void server_trouble(world *w) {
    server *s = &w->server;
    if (!s->service) {
        if (w->now_ms >= s->down_until) {
            server_start(w);
        }
        if (s->service && s->killed && sim_fault(w, w->swarm.power_again)) {
            server_stop(w, true, DISK_POWER_LOSS);
            w->seen[SEEN_POWER_AGAIN]++;
        }
        return;
    }
    if (sim_fault(w, w->swarm.kill_server)) {
        if (sim_chance(w, 3)) {
            server_stop(w, true,
                        sim_chance(w, w->swarm.power) ? DISK_POWER_LOSS : DISK_PROCESS_DIES);
            s->down_until = w->now_ms + (int64_t)sim_below(w, 20000);
        } else {
            s->disk.crash_in = 1 + (int64_t)sim_below(w, 60);
        }
    } else if (sim_fault(w, w->swarm.restart_server)) {
        server_stop(w, false, DISK_PROCESS_DIES);
        s->down_until = w->now_ms + (int64_t)sim_below(w, 5000);
    } else if (sim_fault(w, w->swarm.backup_server)) {
        server_backup(w);
    } else if (sim_fault(w, w->swarm.restore_server)) {
        server_restore(w);
    } else if (w->swarm.upgrade && sim_chance(w, 60)) {
        server_upgrade(w);
    } else if (sim_chance(w, 20)) {
        server_tidy(w);
    }
    if (w->swarm.hostile_client && s->service && sim_chance(w, 8)) {
        server_attack(w);
    }
}

/* ---- one step ---- */

static void pass_time(world *w) {
    uint64_t dice = sim_below(w, 40);
    w->now_ms += dice < (w->swarm.moves ? 4 : 1) ? (int64_t)sim_below(w, (uint64_t)DAY_MS * 2)
                 : dice < 5                      ? (int64_t)sim_below(w, 60000)
                 : dice < 15                     ? (int64_t)sim_below(w, 3000)
                                                 : (int64_t)sim_below(w, 100);
}

static void act(world *w, device *d) {
    uint64_t dice = sim_below(w, 100);
    if (!d->g) {
        if (dice < 60) {
            (void)device_open(d);
        }
    } else if (dice < 38) {
        device_write(d);
    } else if (dice < 78) {
        if (w->swarm.crowd || sim_chance(w, w->swarm.blocking)) {
            device_sync(d);
        } else {
            device_poll(d);
        }
        if (w->swarm.crowd && d->g && sim_chance(w, 2)) { /* the next one is at it */
            device_close(d);
            (void)device_open(d);
        }
    } else if (dice < 84 && w->swarm.resolves) {
        device_decide(d);
    } else if (dice < 86) {
        device_close(d);
    } else if (dice < 88) {
        device_nudge(d);
    } else if (dice < 90 && w->server.upgraded) {
        device_upgrade(d);
    }
}

void swarm_step(world *w) {
    pass_time(w);
    device *d = any_device(w);
    if (sim_fault(w, w->swarm.kill_device)) {
        kill_soon(w, d);
    }
    clock_trouble(w, d);
    partition(w, d);
    token_trouble(w, d);
    identity_trouble(w, d);
    server_trouble(w);
    act(w, d);
    net_run(w);
    if (w->device_count < w->swarm.devices + 2 && sim_fault(w, w->swarm.new_device)) {
        device_create(w, d->scope);
    }
}
