/* A disk that loses power, in memory, behind a SQLite VFS (vfs.c).
 *
 * What is written stays in a page cache until it is synced. At a power loss each sector written
 * since is kept, dropped or garbled, file sizes and directory entries go either way unless a sync
 * covered them; when only the process dies, everything written is there. Any write, sync,
 * truncation, deletion or creation can be the last one before the end, and each may fail: no space,
 * I/O error, an fsync that fails and forgets what it did not write, a lock held by somebody else.
 *
 * Everything is decided by the random numbers of the disk's owner: the same seed gives the same
 * bytes. One thread. Running out of memory ends the program. */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_SECTOR    512
#define DISK_NODES_MAX 48
#define DISK_NAMES_MAX 48
#define DISK_SHM_SLOTS 8
#define DISK_SHM_PAGES 16

typedef struct { /* content of a file */
    uint8_t *bytes;
    size_t size, cap;
} disk_content;

typedef struct {            /* a file, whatever it is called */
    disk_content now, safe; /* in the page cache; what a power loss leaves for certain */
    uint8_t *dirty;         /* per sector: written and not synced */
    size_t dirty_cap;
    bool size_dirty;
    int refs;   /* names and open handles */
    int shared; /* SQLite's locks */
    void *reserved, *pending, *exclusive;
    uint8_t *shm[DISK_SHM_PAGES];
    int shm_users;
    int shm_shared[DISK_SHM_SLOTS];
    void *shm_exclusive[DISK_SHM_SLOTS];
} disk_node;

typedef struct {
    char name[64];
    disk_node *now, *safe; /* NULL = no such entry */
} disk_name;

typedef struct { /* one in n operations of a kind fails; 0 = never */
    unsigned full, write_error, read_error, sync_error, busy;
} disk_faults;

typedef enum {
    DISK_PROCESS_DIES, /* the page cache survives */
    DISK_POWER_LOSS
} disk_loss;

typedef struct disk {
    char prefix[64]; /* paths that begin with it are files of this disk */
    disk_name names[DISK_NAMES_MAX];
    size_t name_count;
    disk_faults faults;
    bool garbles;     /* a sector in flight may come out as rubbish, not only old or new */
    bool halted;      /* nothing works until disk_restart */
    int64_t crash_in; /* changing operations until it halts; 0 = never */
    int busy_left;    /* lock attempts somebody else still makes fail */
    int quiet;        /* > 0: no faults, nothing counts (the checker is reading) */
    disk_faults hits; /* how many failed */
    int64_t operations, injected, torn; /* counters: changes; faults; sectors lost or garbled */
    uint64_t (*random)(void *context);
    void *context;
    struct disk *next;
} disk;

/* prefix: "/dev0/"; at most 63 bytes. */
void disk_init(disk *d, const char *prefix, uint64_t (*random)(void *), void *context);
void disk_deinit(disk *d); /* no file may be open */
/* After this nothing works; what was open must be closed. */
void disk_halt(disk *d);
/* Ends a halt. All files must be closed. */
void disk_restart(disk *d, disk_loss loss);
/* Replaces the files of `to` by those of `from` as they are now, all of them durable. */
void disk_copy(disk *to, const disk *from);
/* Whether the disk has the file now. */
bool disk_has(const disk *d, const char *name);

/* ---- for vfs.c ---- */
disk_name *disk_find(disk *d, const char *name, bool create);
disk_node *disk_node_new(void);
void disk_node_drop(disk_node *n); /* one reference less */
void disk_write(disk_node *n, const void *from, size_t len, size_t at);
void disk_truncate(disk_node *n, size_t size);
void disk_sync(disk_node *n);
void disk_sync_failed(disk_node *n); /* what was dirty counts as clean, and is not on the disk */
void disk_sync_names(disk *d);
/* One in `rate`. */
bool disk_hits(disk *d, unsigned rate);

/* ---- vfs.c ---- */
typedef struct { /* what the VFS asks its host */
    int64_t (*wall_ms)(void *context);
    void (*sleep)(void *context, int64_t us);
    uint64_t (*random)(void *context);
    void *context;
} disk_host;
/* Makes the VFS the default one of this process. host must outlive it. */
void disk_vfs_install(const disk_host *host);
void disk_vfs_remove(void);
/* Files of paths with d->prefix are found from now on / no more. */
void disk_attach(disk *d);
void disk_detach(disk *d);

#endif
