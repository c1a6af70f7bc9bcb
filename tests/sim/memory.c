/* Memory for SQLite in a process of one thread that ends after one seed: lists of free blocks by
 * size. Compiling SQL takes and returns small blocks all the time, which is a fifth of a seed
 * otherwise. With AddressSanitizer the usual allocator stays, which sees every use after a free.
 * See sim.h. */
#include <stdlib.h>
#include <string.h>

#include "db/sqlite.h"
#include "sim/sim.h"

#define GRAIN 32
#define LISTS 64 /* blocks of up to 2 KiB; larger ones are the system's */
#define CHUNK ((size_t)1 << 20)

typedef union block {
    struct {
        size_t size;
        union block *next; /* while it is free */
    } b;
    char grain[GRAIN];
} block; /* the payload begins after the size, 16 bytes in */

#define HEAD 16

static block *lists[LISTS + 1];
static char *chunk;
static size_t chunk_left;

static void *take(int wanted) {
    size_t n = ((size_t)wanted + HEAD + GRAIN - 1) / GRAIN;
    block *b = n <= LISTS ? lists[n] : malloc(n * GRAIN);
    if (n <= LISTS && b) {
        lists[n] = b->b.next;
    } else if (n <= LISTS) {
        if (chunk_left < n * GRAIN) {
            chunk = malloc(CHUNK);
            chunk_left = chunk ? CHUNK : 0;
        }
        b = (block *)(void *)chunk;
        chunk += b ? n * GRAIN : 0;
        chunk_left -= b ? n * GRAIN : 0;
    }
    if (!b) {
        return NULL;
    }
    b->b.size = n;
    return (char *)b + HEAD;
}

static block *block_of(void *p) {
    return (block *)(void *)((char *)p - HEAD);
}

static void give(void *p) {
    block *b = block_of(p);
    if (b->b.size > LISTS) {
        free(b);
        return;
    }
    b->b.next = lists[b->b.size];
    lists[b->b.size] = b;
}

static int size_of(void *p) {
    return p ? (int)(block_of(p)->b.size * GRAIN - HEAD) : 0;
}

static void *resize(void *p, int wanted) {
    if (wanted <= size_of(p)) {
        return p;
    }
    void *more = take(wanted);
    if (more) {
        memcpy(more, p, (size_t)size_of(p));
        give(p);
    }
    return more;
}

static int round_up(int wanted) {
    return (int)(((size_t)wanted + HEAD + GRAIN - 1) / GRAIN * GRAIN - HEAD);
}

static int begin(void *context) {
    (void)context;
    return SQLITE_OK;
}

static void end(void *context) {
    (void)context;
}

void sim_memory(void) {
    static const sqlite3_mem_methods ours = {take,     give,  resize, size_of,
                                             round_up, begin, end,    NULL};
    bool ok = sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) == SQLITE_OK &&
              sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    ok = ok && sqlite3_config(SQLITE_CONFIG_MALLOC, &ours) == SQLITE_OK;
#else
    (void)ours;
#endif
    if (!ok) {
        abort();
    }
}
