/* The SQLite VFS over disk.c: every path with a disk's prefix is a file of that disk, everything
 * else (SQLite's temporary files) lives in memory without faults. See disk.h. */
#include <stdlib.h>
#include <string.h>

#include "db/sqlite.h"
#include "sim/disk.h"

typedef struct {
    sqlite3_file base;
    disk *d; /* NULL = temporary */
    disk_node *node;
    disk_name *name; /* to delete at close; NULL = keep */
    int level;       /* of SQLite's locks */
    bool sync_names; /* the first sync makes the directory entry durable too */
    bool shm;
    unsigned shm_shared, shm_exclusive;
} sim_file;

static disk *disks;
static const disk_host *host;
static sqlite3_vfs vfs;

/* ---- faults ---- */

/* An operation that changes the disk begins: SQLITE_OK, or the disk stops here. */
static int count(disk *d, bool *last) {
    *last = false;
    if (!d) {
        return SQLITE_OK;
    }
    if (d->halted) {
        return SQLITE_IOERR;
    }
    if (d->quiet) {
        return SQLITE_OK;
    }
    d->operations++;
    if (d->crash_in && --d->crash_in == 0) {
        d->injected++;
        if (d->random(d->context) % 2) { /* before it, else after it */
            d->halted = true;
            return SQLITE_IOERR;
        }
        *last = true;
    }
    return SQLITE_OK;
}

static int end(disk *d, bool last, int rc) {
    if (last) {
        d->halted = true;
        return SQLITE_IOERR;
    }
    return rc;
}

static bool fails(disk *d, unsigned rate, unsigned *hits) {
    bool hit = d && disk_hits(d, rate);
    if (hit) {
        d->injected++;
        (*hits)++;
    }
    return hit;
}

static bool busy(disk *d) {
    if (!d || d->quiet) {
        return false;
    }
    if (!d->busy_left && fails(d, d->faults.busy, &d->hits.busy)) {
        uint64_t r = d->random(d->context);
        d->busy_left = r % 4 ? 1 + (int)(r / 4 % 6) : 200; /* at times longer than anyone waits */
    }
    return d->busy_left > 0 && d->busy_left-- > 0;
}

/* ---- file ---- */

static int file_close(sqlite3_file *file) {
    sim_file *f = (sim_file *)file;
    (void)f->base.pMethods->xUnlock(file, SQLITE_LOCK_NONE);
    (void)f->base.pMethods->xShmUnmap(file, 0);
    if (f->name && f->name->now == f->node) {
        f->name->now = NULL;
        disk_node_drop(f->node);
    }
    disk_node_drop(f->node);
    f->node = NULL;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *to, int len, sqlite3_int64 at) {
    sim_file *f = (sim_file *)file;
    if (f->d && (f->d->halted || fails(f->d, f->d->faults.read_error, &f->d->hits.read_error))) {
        return SQLITE_IOERR_READ;
    }
    size_t size = f->node->now.size, from = (size_t)at;
    size_t there = from >= size ? 0 : size - from < (size_t)len ? size - from : (size_t)len;
    if (there) {
        memcpy(to, f->node->now.bytes + from, there);
    }
    if (there < (size_t)len) {
        memset((char *)to + there, 0, (size_t)len - there);
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int file_write(sqlite3_file *file, const void *from, int len, sqlite3_int64 at) {
    sim_file *f = (sim_file *)file;
    bool last = false;
    int rc = count(f->d, &last);
    if (rc != SQLITE_OK) {
        return SQLITE_IOERR_WRITE;
    }
    if (f->d && fails(f->d, f->d->faults.full, &f->d->hits.full)) {
        rc = SQLITE_FULL;
    } else if (f->d && fails(f->d, f->d->faults.write_error, &f->d->hits.write_error)) {
        rc = SQLITE_IOERR_WRITE;
    } else {
        disk_write(f->node, from, (size_t)len, (size_t)at);
    }
    return end(f->d, last, rc);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
    sim_file *f = (sim_file *)file;
    bool last = false;
    if (count(f->d, &last) != SQLITE_OK) {
        return SQLITE_IOERR_TRUNCATE;
    }
    disk_truncate(f->node, (size_t)size);
    return end(f->d, last, SQLITE_OK);
}

static int file_sync(sqlite3_file *file, int flags) {
    sim_file *f = (sim_file *)file;
    bool last = false;
    (void)flags;
    if (count(f->d, &last) != SQLITE_OK) {
        return SQLITE_IOERR_FSYNC;
    }
    if (f->d && fails(f->d, f->d->faults.sync_error, &f->d->hits.sync_error)) {
        disk_sync_failed(f->node);
        return end(f->d, last, SQLITE_IOERR_FSYNC);
    }
    disk_sync(f->node);
    if (f->sync_names) {
        disk_sync_names(f->d);
        f->sync_names = false;
    }
    return end(f->d, last, SQLITE_OK);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size) {
    const sim_file *f = (const sim_file *)file;
    *size = (sqlite3_int64)f->node->now.size;
    return f->d && f->d->halted ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

/* ---- locks ---- */

static bool free_of_others(void *const *slot, const sim_file *f) {
    return *slot == NULL || *slot == f;
}

static int file_lock(sqlite3_file *file, int level) {
    sim_file *f = (sim_file *)file;
    disk_node *n = f->node;
    if (level <= f->level) {
        return SQLITE_OK;
    }
    if (f->d && f->d->halted) {
        return SQLITE_IOERR_LOCK;
    }
    if (busy(f->d)) {
        return SQLITE_BUSY;
    }
    if (f->level == SQLITE_LOCK_NONE) {
        if (!free_of_others(&n->pending, f) || !free_of_others(&n->exclusive, f)) {
            return SQLITE_BUSY;
        }
        n->shared++;
        f->level = SQLITE_LOCK_SHARED;
    }
    if (level >= SQLITE_LOCK_RESERVED) {
        if (!free_of_others(&n->reserved, f)) {
            return SQLITE_BUSY;
        }
        n->reserved = f;
        f->level = f->level > SQLITE_LOCK_RESERVED ? f->level : SQLITE_LOCK_RESERVED;
    }
    if (level == SQLITE_LOCK_EXCLUSIVE) {
        n->pending = f;
        f->level = SQLITE_LOCK_PENDING;
        if (n->shared > 1) {
            return SQLITE_BUSY;
        }
        n->exclusive = f;
        f->level = SQLITE_LOCK_EXCLUSIVE;
    }
    return SQLITE_OK;
}

static int file_unlock(sqlite3_file *file, int level) {
    sim_file *f = (sim_file *)file;
    disk_node *n = f->node;
    if (level >= f->level) {
        return SQLITE_OK;
    }
    n->reserved = n->reserved == f ? NULL : n->reserved;
    n->pending = n->pending == f ? NULL : n->pending;
    n->exclusive = n->exclusive == f ? NULL : n->exclusive;
    if (level == SQLITE_LOCK_NONE) {
        n->shared--;
    }
    f->level = level;
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *file, int *out) {
    *out = ((sim_file *)file)->node->reserved != NULL;
    return SQLITE_OK;
}

/* ---- what SQLite asks about the device ---- */

static int file_control(sqlite3_file *file, int op, void *arg) {
    (void)file;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *file) {
    (void)file;
    return DISK_SECTOR;
}

static int file_device(sqlite3_file *file) {
    const sim_file *f = (const sim_file *)file;
    return f->d && f->d->garbles ? 0 : SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* ---- shared memory of the WAL ---- */

static int shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out) {
    sim_file *f = (sim_file *)file;
    *out = NULL;
    if (page < 0 || page >= DISK_SHM_PAGES || (f->d && f->d->halted)) {
        return SQLITE_IOERR_SHMMAP;
    }
    if (!f->shm) {
        f->shm = true;
        f->node->shm_users++;
    }
    if (!f->node->shm[page] && extend) {
        f->node->shm[page] = calloc(1, (size_t)size);
        if (!f->node->shm[page]) {
            return SQLITE_NOMEM;
        }
    }
    *out = f->node->shm[page];
    return SQLITE_OK;
}

static int shm_lock(sqlite3_file *file, int offset, int n, int flags) {
    sim_file *f = (sim_file *)file;
    disk_node *node = f->node;
    bool exclusive = flags & SQLITE_SHM_EXCLUSIVE, lock = flags & SQLITE_SHM_LOCK;
    if (lock && f->d && f->d->halted) {
        return SQLITE_IOERR_SHMLOCK;
    }
    if (lock && exclusive && offset == 0 && busy(f->d)) {
        return SQLITE_BUSY; /* slot 0: the right to write */
    }
    for (int i = offset; lock && i < offset + n; i++) {
        bool mine = f->shm_shared >> i & 1;
        if (!free_of_others(&node->shm_exclusive[i], f) ||
            (exclusive && node->shm_shared[i] > (mine ? 1 : 0))) {
            return SQLITE_BUSY;
        }
    }
    for (int i = offset; i < offset + n; i++) {
        unsigned bit = 1u << i;
        if (exclusive) {
            node->shm_exclusive[i] = lock ? f : NULL;
            f->shm_exclusive = lock ? f->shm_exclusive | bit : f->shm_exclusive & ~bit;
        } else if (lock != ((f->shm_shared & bit) != 0)) {
            node->shm_shared[i] += lock ? 1 : -1;
            f->shm_shared ^= bit;
        }
    }
    return SQLITE_OK;
}

static void shm_barrier(sqlite3_file *file) {
    (void)file;
}

static int shm_unmap(sqlite3_file *file, int erase) {
    sim_file *f = (sim_file *)file;
    if (!f->shm) {
        return SQLITE_OK;
    }
    for (int i = 0; i < DISK_SHM_SLOTS; i++) {
        f->node->shm_shared[i] -= (int)(f->shm_shared >> i & 1);
        if (f->node->shm_exclusive[i] == f) {
            f->node->shm_exclusive[i] = NULL;
        }
    }
    f->shm = false;
    f->shm_shared = f->shm_exclusive = 0;
    /* the last one gone: like a process that ended, the index is made anew from the log */
    if (--f->node->shm_users == 0 || erase) {
        for (int i = 0; f->node->shm_users == 0 && i < DISK_SHM_PAGES; i++) {
            free(f->node->shm[i]);
            f->node->shm[i] = NULL;
        }
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_device,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

/* ---- paths ---- */

static disk *disk_of(const char *path, const char **name) {
    for (disk *d = disks; path && d; d = d->next) {
        size_t len = strlen(d->prefix);
        if (strncmp(path, d->prefix, len) == 0) {
            *name = path + len;
            return d;
        }
    }
    return NULL;
}

static int open_named(sim_file *f, disk *d, const char *name, int flags) {
    bool create = flags & SQLITE_OPEN_CREATE, last = false;
    disk_name *e = disk_find(d, name, create);
    if (d->halted || !e || (!e->now && !create)) {
        return SQLITE_CANTOPEN;
    }
    if (!e->now) {
        if (count(d, &last) != SQLITE_OK) {
            return SQLITE_CANTOPEN;
        }
        e->now = disk_node_new();
    }
    /* as the unix VFS: whoever may have made the journal syncs the directory with it */
    f->sync_names =
        create &&
        (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL));
    f->d = d;
    f->node = e->now;
    f->node->refs++;
    f->name = flags & SQLITE_OPEN_DELETEONCLOSE ? e : NULL;
    d->halted = d->halted || last;
    return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *v, const char *path, sqlite3_file *file, int flags, int *out) {
    sim_file *f = (sim_file *)file;
    const char *name = NULL;
    disk *d = disk_of(path, &name);
    (void)v;
    memset(f, 0, sizeof *f);
    if (d) {
        int rc = open_named(f, d, name, flags);
        if (rc != SQLITE_OK) {
            return rc;
        }
    } else if (path) {
        return SQLITE_CANTOPEN;
    } else {
        f->node = disk_node_new();
    }
    f->base.pMethods = &methods;
    if (out) {
        *out = flags;
    }
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *v, const char *path, int sync_names) {
    const char *name = NULL;
    disk *d = disk_of(path, &name);
    disk_name *e = d ? disk_find(d, name, false) : NULL;
    bool last = false;
    (void)v;
    if (!e || !e->now) {
        return SQLITE_IOERR_DELETE_NOENT;
    }
    if (count(d, &last) != SQLITE_OK) {
        return SQLITE_IOERR_DELETE;
    }
    disk_node_drop(e->now);
    e->now = NULL;
    if (sync_names) {
        disk_sync_names(d);
    }
    return end(d, last, SQLITE_OK);
}

static int vfs_access(sqlite3_vfs *v, const char *path, int flags, int *out) {
    const char *name = NULL;
    disk *d = disk_of(path, &name);
    (void)v;
    *out = d && disk_has(d, name);
    if (*out && flags == SQLITE_ACCESS_EXISTS) { /* as the unix VFS: an empty journal is none */
        *out = disk_find(d, name, false)->now->now.size > 0;
    }
    return d && d->halted ? SQLITE_IOERR_ACCESS : SQLITE_OK;
}

static int vfs_path(sqlite3_vfs *v, const char *path, int len, char *out) {
    (void)v;
    size_t n = strlen(path);
    if (n + 1 > (size_t)len) {
        return SQLITE_CANTOPEN;
    }
    memcpy(out, path, n + 1);
    return SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *v, int len, char *out) {
    (void)v;
    for (int i = 0; i < len; i++) {
        out[i] = (char)host->random(host->context);
    }
    return len;
}

static int vfs_sleep(sqlite3_vfs *v, int us) {
    (void)v;
    host->sleep(host->context, us);
    return us;
}

static int vfs_time(sqlite3_vfs *v, sqlite3_int64 *out) {
    (void)v;
    *out = host->wall_ms(host->context) + INT64_C(210866760000000); /* since noon of 4714 BC */
    return SQLITE_OK;
}

static int vfs_day(sqlite3_vfs *v, double *out) {
    sqlite3_int64 ms = 0;
    int rc = vfs_time(v, &ms);
    *out = (double)ms / 86400000.0;
    return rc;
}

static int vfs_error(sqlite3_vfs *v, int len, char *out) {
    (void)v;
    if (len > 0) {
        out[0] = 0;
    }
    return 0;
}

void disk_vfs_install(const disk_host *h) {
    host = h;
    vfs = (sqlite3_vfs){.iVersion = 2,
                        .szOsFile = sizeof(sim_file),
                        .mxPathname = 256,
                        .zName = "godwit-sim",
                        .xOpen = vfs_open,
                        .xDelete = vfs_delete,
                        .xAccess = vfs_access,
                        .xFullPathname = vfs_path,
                        .xRandomness = vfs_random,
                        .xSleep = vfs_sleep,
                        .xCurrentTime = vfs_day,
                        .xGetLastError = vfs_error,
                        .xCurrentTimeInt64 = vfs_time};
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK) {
        abort();
    }
    sqlite3_randomness(0, NULL); /* SQLite's own random numbers begin anew from ours */
}

void disk_vfs_remove(void) {
    (void)sqlite3_vfs_unregister(&vfs);
    host = NULL;
}

void disk_attach(disk *d) {
    d->next = disks;
    disks = d;
}

void disk_detach(disk *d) {
    for (disk **at = &disks; *at; at = &(*at)->next) {
        if (*at == d) {
            *at = d->next;
            return;
        }
    }
}
