/* The VFS between SQLite and the files: hands everything through, and lets the n-th read, write or
 * sync fail. A write that fails has written half of what it should. See fault.h. */
#include <stdlib.h>
#include <string.h>

#include "db/sqlite.h"
#include "torture/fault.h"

typedef struct {
    sqlite3_file base;
    sqlite3_file *real; /* behind this structure */
} torn_file;

static sqlite3_vfs vfs, *below;

/* What the disk below needs for itself is none of the product's. */
#define BELOW(type, call)                                                                          \
    fault_side before = fault_enter(SIDE_TEST);                                                    \
    type result = call;                                                                            \
    (void)fault_enter(before);                                                                     \
    return result

static sqlite3_file *real_of(sqlite3_file *file) {
    return ((torn_file *)file)->real;
}

static int torn_close(sqlite3_file *file) {
    sqlite3_file *f = real_of(file);
    return f->pMethods ? f->pMethods->xClose(f) : SQLITE_OK;
}

static int torn_read(sqlite3_file *file, void *to, int len, sqlite3_int64 at) {
    sqlite3_file *f = real_of(file);
    return fault_here(FAULT_READ) ? SQLITE_IOERR_READ : f->pMethods->xRead(f, to, len, at);
}

static int torn_write(sqlite3_file *file, const void *from, int len, sqlite3_int64 at) {
    sqlite3_file *f = real_of(file);
    if (fault_here(FAULT_WRITE)) {
        bool full = fault_variant() % 2;
        fault_side before = fault_enter(SIDE_TEST);
        (void)f->pMethods->xWrite(f, from, (len + 1) / 2, at);
        (void)fault_enter(before);
        return full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    }
    BELOW(int, f->pMethods->xWrite(f, from, len, at));
}

static int torn_truncate(sqlite3_file *file, sqlite3_int64 size) {
    sqlite3_file *f = real_of(file);
    if (fault_here(FAULT_WRITE)) {
        return SQLITE_IOERR_TRUNCATE;
    }
    BELOW(int, f->pMethods->xTruncate(f, size));
}

static int torn_sync(sqlite3_file *file, int flags) {
    sqlite3_file *f = real_of(file);
    if (fault_here(FAULT_SYNC)) {
        return SQLITE_IOERR_FSYNC;
    }
    BELOW(int, f->pMethods->xSync(f, flags));
}

static int torn_size(sqlite3_file *file, sqlite3_int64 *size) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xFileSize(f, size);
}

static int torn_lock(sqlite3_file *file, int level) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xLock(f, level);
}

static int torn_unlock(sqlite3_file *file, int level) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xUnlock(f, level);
}

static int torn_reserved(sqlite3_file *file, int *out) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xCheckReservedLock(f, out);
}

static int torn_control(sqlite3_file *file, int op, void *arg) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xFileControl(f, op, arg);
}

static int torn_sector(sqlite3_file *file) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xSectorSize(f);
}

static int torn_device(sqlite3_file *file) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xDeviceCharacteristics(f);
}

static int torn_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out) {
    sqlite3_file *f = real_of(file);
    if (fault_here(FAULT_WRITE)) {
        *out = NULL;
        return SQLITE_IOERR_SHMMAP;
    }
    BELOW(int, f->pMethods->xShmMap(f, page, size, extend, out));
}

static int torn_shm_lock(sqlite3_file *file, int offset, int n, int flags) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xShmLock(f, offset, n, flags);
}

static void torn_shm_barrier(sqlite3_file *file) {
    sqlite3_file *f = real_of(file);
    f->pMethods->xShmBarrier(f);
}

static int torn_shm_unmap(sqlite3_file *file, int erase) {
    sqlite3_file *f = real_of(file);
    return f->pMethods->xShmUnmap(f, erase);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = torn_close,
    .xRead = torn_read,
    .xWrite = torn_write,
    .xTruncate = torn_truncate,
    .xSync = torn_sync,
    .xFileSize = torn_size,
    .xLock = torn_lock,
    .xUnlock = torn_unlock,
    .xCheckReservedLock = torn_reserved,
    .xFileControl = torn_control,
    .xSectorSize = torn_sector,
    .xDeviceCharacteristics = torn_device,
    .xShmMap = torn_shm_map,
    .xShmLock = torn_shm_lock,
    .xShmBarrier = torn_shm_barrier,
    .xShmUnmap = torn_shm_unmap,
};

static int torn_open(sqlite3_vfs *v, const char *path, sqlite3_file *file, int flags, int *out) {
    torn_file *f = (torn_file *)file;
    (void)v;
    f->base.pMethods = NULL;
    f->real = (sqlite3_file *)(f + 1);
    f->real->pMethods = NULL;
    if ((flags & SQLITE_OPEN_CREATE) && fault_here(FAULT_WRITE)) {
        return SQLITE_CANTOPEN;
    }
    fault_side before = fault_enter(SIDE_TEST);
    int rc = below->xOpen(below, path, f->real, flags, out);
    (void)fault_enter(before);
    f->base.pMethods = f->real->pMethods ? &methods : NULL;
    return rc;
}

static int torn_delete(sqlite3_vfs *v, const char *path, int sync_names) {
    (void)v;
    if (fault_here(FAULT_WRITE)) {
        return SQLITE_IOERR_DELETE;
    }
    BELOW(int, below->xDelete(below, path, sync_names));
}

static int torn_access(sqlite3_vfs *v, const char *path, int flags, int *out) {
    (void)v;
    return below->xAccess(below, path, flags, out);
}

static int torn_path(sqlite3_vfs *v, const char *path, int len, char *out) {
    (void)v;
    return below->xFullPathname(below, path, len, out);
}

static int torn_random(sqlite3_vfs *v, int len, char *out) {
    (void)v;
    return below->xRandomness(below, len, out);
}

static int torn_sleep(sqlite3_vfs *v, int us) {
    (void)v;
    return below->xSleep(below, us);
}

static int torn_day(sqlite3_vfs *v, double *out) {
    (void)v;
    return below->xCurrentTime(below, out);
}

static int torn_error(sqlite3_vfs *v, int len, char *out) {
    (void)v;
    return below->xGetLastError(below, len, out);
}

static int torn_time(sqlite3_vfs *v, sqlite3_int64 *out) {
    (void)v;
    return below->xCurrentTimeInt64(below, out);
}

void fault_vfs_install(void) {
    below = sqlite3_vfs_find(NULL);
    vfs = (sqlite3_vfs){.iVersion = 2,
                        .szOsFile = (int)sizeof(torn_file) + below->szOsFile,
                        .mxPathname = below->mxPathname,
                        .zName = "godwit-torture",
                        .xOpen = torn_open,
                        .xDelete = torn_delete,
                        .xAccess = torn_access,
                        .xFullPathname = torn_path,
                        .xRandomness = torn_random,
                        .xSleep = torn_sleep,
                        .xCurrentTime = torn_day,
                        .xGetLastError = torn_error,
                        .xCurrentTimeInt64 = torn_time};
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK) {
        abort();
    }
}
