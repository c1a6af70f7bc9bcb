/* Files, sectors and directory entries of a disk that loses power. See disk.h. */
#include "sim/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *block) {
    if (!block) {
        fprintf(stderr, "sim: out of memory\n");
        abort();
    }
    return block;
}

static void reserve(disk_content *c, size_t size) {
    if (size > c->cap) {
        size_t cap = c->cap ? c->cap : 4096;
        while (cap < size) {
            cap *= 2;
        }
        c->bytes = must(realloc(c->bytes, cap));
        memset(c->bytes + c->cap, 0, cap - c->cap);
        c->cap = cap;
    }
}

static void resize(disk_content *c, size_t size) {
    reserve(c, size);
    if (size < c->size) {
        memset(c->bytes + size, 0, c->size - size); /* what grows again is zero */
    }
    c->size = size;
}

bool disk_hits(disk *d, unsigned rate) {
    return rate && !d->quiet && d->random(d->context) % rate == 0;
}

/* ---- files ---- */

disk_node *disk_node_new(void) {
    disk_node *n = must(calloc(1, sizeof *n));
    n->refs = 1;
    return n;
}

void disk_node_drop(disk_node *n) {
    if (!n || --n->refs > 0) {
        return;
    }
    for (size_t i = 0; i < DISK_SHM_PAGES; i++) {
        free(n->shm[i]);
    }
    free(n->now.bytes);
    free(n->safe.bytes);
    free(n->dirty);
    free(n);
}

static void mark(disk_node *n, size_t from, size_t to) {
    size_t last = (to + DISK_SECTOR - 1) / DISK_SECTOR;
    if (last > n->dirty_cap) {
        size_t cap = n->dirty_cap ? n->dirty_cap : 64;
        while (cap < last) {
            cap *= 2;
        }
        n->dirty = must(realloc(n->dirty, cap));
        memset(n->dirty + n->dirty_cap, 0, cap - n->dirty_cap);
        n->dirty_cap = cap;
    }
    for (size_t i = from / DISK_SECTOR; i < last; i++) {
        n->dirty[i] = 1;
    }
}

void disk_write(disk_node *n, const void *from, size_t len, size_t at) {
    if (at + len > n->now.size) {
        mark(n, n->now.size, at + len);
        resize(&n->now, at + len);
        n->size_dirty = true;
    }
    memcpy(n->now.bytes + at, from, len);
    mark(n, at, at + len);
}

void disk_truncate(disk_node *n, size_t size) {
    if (size != n->now.size) {
        mark(n, size < n->now.size ? size : n->now.size, size > n->now.size ? size : n->now.size);
        resize(&n->now, size);
        n->size_dirty = true;
    }
}

static size_t sector_bytes(const disk_content *c, size_t sector) {
    size_t at = sector * DISK_SECTOR;
    return at >= c->size ? 0 : c->size - at < DISK_SECTOR ? c->size - at : DISK_SECTOR;
}

static void clean(disk_node *n) {
    if (n->dirty_cap) {
        memset(n->dirty, 0, n->dirty_cap);
    }
    n->size_dirty = false;
}

void disk_sync(disk_node *n) {
    resize(&n->safe, n->now.size);
    for (size_t i = 0; i < n->dirty_cap; i++) {
        size_t len = n->dirty[i] ? sector_bytes(&n->now, i) : 0;
        if (len) {
            memcpy(n->safe.bytes + i * DISK_SECTOR, n->now.bytes + i * DISK_SECTOR, len);
        }
    }
    clean(n);
}

void disk_sync_failed(disk_node *n) {
    clean(n);
}

/* ---- names ---- */

disk_name *disk_find(disk *d, const char *name, bool create) {
    for (size_t i = 0; i < d->name_count; i++) {
        if (strcmp(d->names[i].name, name) == 0) {
            return &d->names[i];
        }
    }
    if (!create) {
        return NULL;
    }
    if (d->name_count == DISK_NAMES_MAX || strlen(name) >= sizeof d->names[0].name) {
        fprintf(stderr, "sim: too many files, or the name %s is too long\n", name);
        abort();
    }
    disk_name *e = &d->names[d->name_count++];
    memset(e, 0, sizeof *e);
    snprintf(e->name, sizeof e->name, "%s", name);
    return e;
}

bool disk_has(const disk *d, const char *name) {
    for (size_t i = 0; i < d->name_count; i++) {
        if (strcmp(d->names[i].name, name) == 0) {
            return d->names[i].now != NULL;
        }
    }
    return false;
}

static void settle_name(disk_name *e, bool keep_now) {
    if (e->now == e->safe) {
        return;
    }
    disk_node **from = keep_now ? &e->now : &e->safe, **to = keep_now ? &e->safe : &e->now;
    disk_node_drop(*to);
    *to = *from;
    if (*to) {
        (*to)->refs++;
    }
}

void disk_sync_names(disk *d) {
    for (size_t i = 0; i < d->name_count; i++) {
        settle_name(&d->names[i], true);
    }
}

/* ---- life ---- */

void disk_init(disk *d, const char *prefix, uint64_t (*random)(void *), void *context) {
    memset(d, 0, sizeof *d);
    snprintf(d->prefix, sizeof d->prefix, "%s", prefix);
    d->random = random;
    d->context = context;
}

static void forget(disk *d) {
    for (size_t i = 0; i < d->name_count; i++) {
        disk_node_drop(d->names[i].now);
        disk_node_drop(d->names[i].safe);
    }
    d->name_count = 0;
}

void disk_deinit(disk *d) {
    forget(d);
}

void disk_halt(disk *d) {
    d->halted = true;
}

static void lose_sector(disk *d, disk_node *n, size_t sector, unsigned choice) {
    uint8_t *to = n->now.bytes + sector * DISK_SECTOR;
    size_t len = sector_bytes(&n->now, sector);
    if (choice == 0 || !len) {
        return; /* it made it */
    }
    d->torn++;
    if (choice == 1 || !d->garbles) {
        size_t old = sector_bytes(&n->safe, sector);
        memset(to, 0, len);
        if (old > 0) {
            memcpy(to, n->safe.bytes + sector * DISK_SECTOR, old < len ? old : len);
        }
        return;
    }
    for (size_t i = 0; i < len; i++) {
        to[i] = (uint8_t)d->random(d->context);
    }
}

/* mood: 0 = each sector for itself, 1 = all kept, 2 = all dropped */
static void lose_node(disk *d, disk_node *n, unsigned mood) {
    if (n->size_dirty && (mood == 2 || (mood == 0 && d->random(d->context) % 2))) {
        if (n->safe.size > n->now.size) {
            mark(n, n->now.size, n->safe.size);
        }
        resize(&n->now, n->safe.size);
    }
    for (size_t i = 0; mood != 1 && i < n->dirty_cap; i++) {
        if (n->dirty[i]) {
            lose_sector(d, n, i, mood == 2 ? 1 : (unsigned)(d->random(d->context) % 3));
        }
    }
}

void disk_restart(disk *d, disk_loss loss) {
    for (size_t i = 0; loss == DISK_POWER_LOSS && i < d->name_count; i++) {
        settle_name(&d->names[i], d->random(d->context) % 2 == 0);
    }
    for (size_t i = 0; loss == DISK_POWER_LOSS && i < d->name_count; i++) {
        disk_node *n = d->names[i].now;
        if (n) {
            lose_node(d, n, (unsigned)(d->random(d->context) % 4));
            resize(&n->safe, n->now.size);
            if (n->now.size) {
                memcpy(n->safe.bytes, n->now.bytes, n->now.size);
            }
            clean(n);
        }
    }
    d->halted = false;
    d->crash_in = 0;
    d->busy_left = 0;
}

void disk_copy(disk *to, const disk *from) {
    forget(to);
    for (size_t i = 0; i < from->name_count; i++) {
        const disk_node *n = from->names[i].now;
        if (n) {
            disk_name *e = disk_find(to, from->names[i].name, true);
            e->now = e->safe = disk_node_new();
            e->now->refs = 2;
            if (n->now.size) {
                disk_write(e->now, n->now.bytes, n->now.size, 0);
            }
            disk_sync(e->now);
        }
    }
}
