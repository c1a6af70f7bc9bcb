/* Counting and failing: the plan, allocations and calls of SQLite. Functions named __wrap_X stand
 * in the place of X for everything that is linked statically (ld --wrap); SQLite's own allocations
 * come by way of sqlite3_config. See fault.h. */
#include "torture/fault.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/sqlite.h"

static fault_plan plan;
static atomic_bool armed;
static _Atomic int64_t calls[FAULT_KINDS][SIDES], hits;
static _Thread_local fault_side side = SIDE_SERVER;
static _Thread_local bool spare; /* there is memory: some has just been given back */

const char *fault_kind_name(fault_kind kind) {
    static const char *const names[] = {"alloc", "sqlite", "read", "write", "sync", "power"};
    return names[kind];
}

const char *fault_side_name(fault_side s) {
    static const char *const names[] = {"client", "server", "test"};
    return names[s];
}

void fault_arm(const fault_plan *p) {
    plan = *p;
    memset(calls, 0, sizeof calls);
    hits = 0;
    armed = true;
}

void fault_disarm(void) {
    armed = false;
}

const fault_counts *fault_counted(void) {
    static fault_counts out;
    for (int k = 0; k < FAULT_KINDS; k++) {
        for (int s = 0; s < SIDES; s++) {
            out.calls[k][s] = calls[k][s];
        }
    }
    return &out;
}

int64_t fault_hits(void) {
    return hits;
}

fault_side fault_enter(fault_side s) {
    fault_side before = side;
    side = s;
    return before;
}

bool fault_here(fault_kind kind) {
    if (!armed || side == SIDE_TEST || (kind == FAULT_ALLOC && spare)) {
        return false;
    }
    int64_t n = ++calls[kind][side];
    if (!plan.point || kind != plan.kind || side != plan.side ||
        (plan.forever ? n < plan.point : n != plan.point)) {
        return false;
    }
    hits++;
    return true;
}

unsigned fault_variant(void) {
    return (unsigned)plan.point;
}

/* ---- our own allocations, kept in a table so that none can be forgotten ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void **blocks; /* open addressing; GONE marks what was removed */
static size_t slots, used;
static int64_t live;
static char gone_mark;
#define GONE ((void *)&gone_mark)

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

static size_t place_of(const void *block) {
    return (size_t)(((uintptr_t)block >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (slots - 1);
}

static void put(void *block) {
    size_t at = place_of(block);
    while (blocks[at]) {
        at = (at + 1) & (slots - 1);
    }
    blocks[at] = block;
    used++;
}

static void make_room(void) {
    if (used * 2 < slots) {
        return;
    }
    void **old = blocks;
    size_t old_slots = slots;
    slots = (size_t)live * 4 < 4096 ? 4096 : slots * 2;
    blocks = __real_calloc(slots, sizeof *blocks);
    if (!blocks) {
        abort();
    }
    used = 0;
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i] && old[i] != GONE) {
            put(old[i]);
        }
    }
    __real_free(old);
}

static void *remember(void *block) {
    if (block) {
        pthread_mutex_lock(&lock);
        make_room();
        put(block);
        live++;
        pthread_mutex_unlock(&lock);
    }
    return block;
}

static void forget(const void *block) {
    pthread_mutex_lock(&lock);
    for (size_t at = slots ? place_of(block) : 0; slots && blocks[at];
         at = (at + 1) & (slots - 1)) {
        if (blocks[at] == block) {
            blocks[at] = GONE;
            live--;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

void *__wrap_malloc(size_t size) {
    return fault_here(FAULT_ALLOC) ? NULL : remember(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size) {
    return fault_here(FAULT_ALLOC) ? NULL : remember(__real_calloc(count, size));
}

void *__wrap_realloc(void *block, size_t size) {
    if (fault_here(FAULT_ALLOC)) {
        return NULL;
    }
    if (block) {
        forget(block);
    }
    void *grown = __real_realloc(block, size);
    (void)remember(grown ? grown : block);
    return grown;
}

void __wrap_free(void *block) {
    if (block) {
        forget(block);
    }
    __real_free(block);
}

int64_t fault_live_blocks(void) {
    return live;
}

/* ---- SQLite's allocations ---- */

static sqlite3_mem_methods usual;

static void *lite_malloc(int size) {
    return fault_here(FAULT_ALLOC) ? NULL : usual.xMalloc(size);
}

static void *lite_realloc(void *block, int size) {
    return fault_here(FAULT_ALLOC) ? NULL : usual.xRealloc(block, size);
}

int64_t fault_live_bytes(void) {
    return sqlite3_memory_used();
}

void fault_install(void) {
    sqlite3_mem_methods ours;
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &usual) != SQLITE_OK) {
        abort();
    }
    ours = usual;
    ours.xMalloc = lite_malloc;
    ours.xRealloc = lite_realloc;
    /* without lookaside every allocation is one that can fail */
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &ours) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 1) != SQLITE_OK ||
        sqlite3_initialize() != SQLITE_OK) {
        abort();
    }
    (void)fault_enter(SIDE_TEST);
}

/* ---- calls of SQLite ---- */

static int error_code(void) {
    static const int codes[] = {SQLITE_IOERR, SQLITE_BUSY, SQLITE_NOMEM, SQLITE_FULL,
                                SQLITE_INTERRUPT};
    return codes[fault_variant() % 5];
}

static bool call_fails(void) {
    return fault_here(FAULT_SQLITE);
}

/* What undoes can't fail in a way that leaves something: SQLite has rolled back by itself then. */
static bool undoes(const char *sql) {
    return sql && (strncmp(sql, "ROLLBACK", 8) == 0 || strncmp(sql, "RELEASE", 7) == 0);
}

#define WRAP(name, parameters, arguments)                                                          \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters {                                                                 \
        return call_fails() ? error_code() : __real_##name arguments;                              \
    }
typedef sqlite3_stmt *stmt_ptr;
typedef void (*destructor)(void *);
WRAP(sqlite3_bind_int64, (stmt_ptr s, int i, sqlite3_int64 v), (s, i, v))
WRAP(sqlite3_bind_double, (stmt_ptr s, int i, double v), (s, i, v))
WRAP(sqlite3_bind_null, (stmt_ptr s, int i), (s, i))
WRAP(sqlite3_bind_value, (stmt_ptr s, int i, const sqlite3_value *v), (s, i, v))
WRAP(sqlite3_bind_text64,
     (stmt_ptr s, int i, const char *t, sqlite3_uint64 n, destructor f, unsigned char e),
     (s, i, t, n, f, e))
WRAP(sqlite3_bind_blob64, (stmt_ptr s, int i, const void *t, sqlite3_uint64 n, destructor f),
     (s, i, t, n, f))
WRAP(sqlite3_backup_step, (sqlite3_backup * b, int n), (b, n))
WRAP(sqlite3_wal_checkpoint_v2, (sqlite3 * d, const char *n, int m, int *log, int *done),
     (d, n, m, log, done))
WRAP(sqlite3_create_module_v2,
     (sqlite3 * d, const char *n, const sqlite3_module *m, void *c, destructor f), (d, n, m, c, f))

/* Memory that runs out for good still has what was given back since: a transaction that can't be
 * rolled back for want of it can be after that. */
static int undo(sqlite3_stmt *s);

int __real_sqlite3_step(sqlite3_stmt *s);
int __wrap_sqlite3_step(sqlite3_stmt *s);
int __wrap_sqlite3_step(sqlite3_stmt *s) {
    if (undoes(sqlite3_sql(s))) {
        return undo(s);
    }
    return call_fails() ? error_code() : __real_sqlite3_step(s);
}

static int undo(sqlite3_stmt *s) {
    static _Thread_local sqlite3_int64 short_at;
    spare = sqlite3_memory_used() < short_at;
    int rc = __real_sqlite3_step(s);
    spare = false;
    short_at = rc == SQLITE_NOMEM ? sqlite3_memory_used() : 0;
    return rc;
}

int __real_sqlite3_exec(sqlite3 *d, const char *sql, sqlite3_callback f, void *c, char **error);
int __wrap_sqlite3_exec(sqlite3 *d, const char *sql, sqlite3_callback f, void *c, char **error);
int __wrap_sqlite3_exec(sqlite3 *d, const char *sql, sqlite3_callback f, void *c, char **error) {
    return !undoes(sql) && call_fails() ? error_code() : __real_sqlite3_exec(d, sql, f, c, error);
}

int __real_sqlite3_prepare_v2(sqlite3 *d, const char *sql, int n, sqlite3_stmt **s, const char **t);
int __wrap_sqlite3_prepare_v2(sqlite3 *d, const char *sql, int n, sqlite3_stmt **s, const char **t);
int __wrap_sqlite3_prepare_v2(sqlite3 *d, const char *sql, int n, sqlite3_stmt **s,
                              const char **t) {
    if (call_fails()) {
        *s = NULL;
        return error_code();
    }
    return __real_sqlite3_prepare_v2(d, sql, n, s, t);
}

int __real_sqlite3_prepare_v3(sqlite3 *d, const char *sql, int n, unsigned flags, sqlite3_stmt **s,
                              const char **t);
int __wrap_sqlite3_prepare_v3(sqlite3 *d, const char *sql, int n, unsigned flags, sqlite3_stmt **s,
                              const char **t);
int __wrap_sqlite3_prepare_v3(sqlite3 *d, const char *sql, int n, unsigned flags, sqlite3_stmt **s,
                              const char **t) {
    if (call_fails()) {
        *s = NULL;
        return error_code();
    }
    return __real_sqlite3_prepare_v3(d, sql, n, flags, s, t);
}

/* As SQLite does it, there is a handle to close also when opening fails; without memory, none. */
int __real_sqlite3_open_v2(const char *path, sqlite3 **d, int flags, const char *vfs);
int __wrap_sqlite3_open_v2(const char *path, sqlite3 **d, int flags, const char *vfs);
int __wrap_sqlite3_open_v2(const char *path, sqlite3 **d, int flags, const char *vfs) {
    if (!call_fails()) {
        return __real_sqlite3_open_v2(path, d, flags, vfs);
    }
    *d = NULL;
    return SQLITE_NOMEM;
}

sqlite3_backup *__real_sqlite3_backup_init(sqlite3 *to, const char *t, sqlite3 *from,
                                           const char *f);
sqlite3_backup *__wrap_sqlite3_backup_init(sqlite3 *to, const char *t, sqlite3 *from,
                                           const char *f);
sqlite3_backup *__wrap_sqlite3_backup_init(sqlite3 *to, const char *t, sqlite3 *from,
                                           const char *f) {
    return call_fails() ? NULL : __real_sqlite3_backup_init(to, t, from, f);
}
