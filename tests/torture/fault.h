/* Where something fails: counts every call of a kind that can fail, and makes one of them fail, or
 * that one and all after it.
 *
 * Kinds are told apart by who was asked: the allocator, SQLite, a file. Each side of the
 * protocol has its own numbers, so that the n-th call of the client stays the n-th whatever the
 * server does. Nothing counts while the test itself is at work (SIDE_TEST). */
#ifndef TESTS_TORTURE_FAULT_H
#define TESTS_TORTURE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    FAULT_ALLOC,  /* malloc, calloc, realloc of our code, and every allocation of SQLite */
    FAULT_SQLITE, /* calls of SQLite's functions: BUSY, FULL, IOERR, INTERRUPT, NOMEM in turn */
    FAULT_READ,   /* VFS: xRead */
    FAULT_WRITE,  /* VFS: xWrite, xTruncate, xDelete, creating files, xShmMap */
    FAULT_SYNC,   /* VFS: xSync */
    FAULT_POWER,  /* the power goes at a change of the disk; see world.h */
    FAULT_KINDS
} fault_kind;

typedef enum { SIDE_CLIENT, SIDE_SERVER, SIDE_TEST } fault_side;
#define SIDES 2

typedef struct {
    fault_kind kind;
    fault_side side;
    int64_t point; /* from 1; 0 = none fails, all are counted */
    bool forever;
} fault_plan;

typedef struct {
    int64_t calls[FAULT_KINDS][SIDES];
} fault_counts;

const char *fault_kind_name(fault_kind kind);
const char *fault_side_name(fault_side side);

/* Before anything uses SQLite. */
void fault_install(void);
/* A VFS over the default one, which becomes the default. */
void fault_vfs_install(void);

void fault_arm(const fault_plan *plan); /* from here on; counters begin anew */
void fault_disarm(void);
const fault_counts *fault_counted(void);
int64_t fault_hits(void); /* since it was armed */

/* Who is at work on this thread; gives who was. A thread that was not told works for the server. */
fault_side fault_enter(fault_side side);
/* Counts a call; true: it must fail. */
bool fault_here(fault_kind kind);
/* Which error: a number that goes with the point. */
unsigned fault_variant(void);

/* Blocks our code has allocated and not freed; bytes SQLite holds. */
int64_t fault_live_blocks(void);
int64_t fault_live_bytes(void);

#endif
