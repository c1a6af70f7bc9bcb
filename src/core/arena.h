/* Bump allocation with one lifetime: a round or a request. Nothing is freed singly. */
#ifndef CORE_ARENA_H
#define CORE_ARENA_H

#include "core/base.h"

typedef struct arena_chunk arena_chunk;
typedef struct {
    const godwit_allocator *allocator;
    arena_chunk *chunk;
    size_t used_bytes;  /* handed out in total */
    size_t max_bytes;   /* 0 = no bound */
    bool failed;        /* sticky: an allocation failed or passed the bound */
} arena;

/* allocator: borrowed for the arena's life, NULL = C library. No memory is taken yet. */
void arena_init(arena *a, const godwit_allocator *allocator, size_t max_bytes);
void arena_deinit(arena *a);
/* Forgets everything, keeps one chunk for reuse, clears `failed`. */
void arena_reset(arena *a);
/* Zeroed, aligned for any type. NULL when failed (sticky). size 0 gives a valid pointer. */
void *arena_alloc(arena *a, size_t size) MUST_USE;
void *arena_array(arena *a, size_t count, size_t item_size) MUST_USE;
/* Uninitialised memory for what is filled at once: block NULL allocates; the newest block grows and
 * shrinks in place, an older one is copied when it grows. new_size 0 gives the newest block back. */
void *arena_resize(arena *a, void *block, size_t old_size, size_t new_size) MUST_USE;
/* Copies with a NUL behind; ptr NULL when failed. */
slice arena_copy(arena *a, slice s) MUST_USE;
char *arena_printf(arena *a, const char *format, ...) PRINTF_LIKE(2, 3) MUST_USE;

#define ARENA_NEW(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, count) ((type *)arena_array((a), (count), sizeof(type)))

#endif
