/* Bump allocation: a list of chunks, each at least twice as large as the one before.
 *
 * Guarantees zeroed memory aligned for any type, and a sticky failure once the bound or the host's
 * memory is exhausted. Blocks are never moved; nothing is freed before arena_reset or arena_deinit,
 * except that the newest block can be grown, shrunk or given back in place. */
#include "core/arena.h"

#include <stdarg.h>
#include <stdio.h>

#define CHUNK_MIN_BYTES 4096
#define CHUNK_MAX_BYTES (1u << 20) /* larger chunks are made only for one large block */

struct arena_chunk {
    arena_chunk *older;
    size_t cap, used; /* bytes behind this head, from the first aligned one on */
};

#define ALIGNMENT 16
_Static_assert(_Alignof(max_align_t) <= ALIGNMENT, "a block fits any type");

void arena_init(arena *a, const godwit_allocator *allocator, size_t max_bytes) {
    memset(a, 0, sizeof(*a));
    a->allocator = allocator;
    a->max_bytes = max_bytes;
}

static void free_chunks(arena *a, arena_chunk *chunk, const arena_chunk *keep) {
    while (chunk) {
        arena_chunk *older = chunk->older;
        if (chunk != keep) {
            mem_free(a->allocator, chunk);
        }
        chunk = older;
    }
}

void arena_deinit(arena *a) {
    free_chunks(a, a->chunk, NULL);
    a->chunk = NULL;
    a->used_bytes = 0;
    a->failed = false;
}

void arena_reset(arena *a) {
    arena_chunk *keep = NULL;
    for (arena_chunk *chunk = a->chunk; chunk; chunk = chunk->older) {
        /* One oversized message must not pin its memory for the life of a connection. */
        if (chunk->cap <= CHUNK_MAX_BYTES && (!keep || chunk->cap > keep->cap)) {
            keep = chunk;
        }
    }
    free_chunks(a, a->chunk, keep);
    if (keep) {
        keep->older = NULL;
        keep->used = 0;
    }
    a->chunk = keep;
    a->used_bytes = 0;
    a->failed = false;
}

static bool add_chunk(arena *a, size_t need) {
    size_t cap = a->chunk ? a->chunk->cap * 2 : CHUNK_MIN_BYTES;
    if (cap > CHUNK_MAX_BYTES) {
        cap = CHUNK_MAX_BYTES;
    }
    if (cap < need) {
        cap = need;
    }
    size_t total = 0;
    if (!size_add(cap, sizeof(arena_chunk) + ALIGNMENT, &total)) {
        return false;
    }
    arena_chunk *chunk = mem_resize(a->allocator, NULL, total);
    if (!chunk) {
        return false;
    }
    chunk->older = a->chunk;
    chunk->cap = cap;
    chunk->used = 0;
    a->chunk = chunk;
    return true;
}

/* The host's allocator may align less than we promise: start at the first aligned byte. */
static unsigned char *chunk_base(arena_chunk *chunk) {
    unsigned char *first = (unsigned char *)chunk + sizeof(arena_chunk);
    return first + (ALIGNMENT - (uintptr_t)first % ALIGNMENT) % ALIGNMENT;
}

static bool round_up(size_t size, size_t *out) {
    size_t sum = 0;
    if (!size_add(size ? size : 1, ALIGNMENT - 1, &sum)) {
        return false;
    }
    *out = sum / ALIGNMENT * ALIGNMENT;
    return true;
}

/* `size` is rounded already. The bytes are whatever was there. */
static unsigned char *take(arena *a, size_t size) {
    if (a->failed) {
        return NULL;
    }
    size_t total = 0;
    if (!size_add(a->used_bytes, size, &total) || (a->max_bytes && total > a->max_bytes)) {
        a->failed = true;
        return NULL;
    }
    if ((!a->chunk || a->chunk->cap - a->chunk->used < size) && !add_chunk(a, size)) {
        a->failed = true;
        return NULL;
    }
    ASSERT(a->chunk->cap - a->chunk->used >= size);
    unsigned char *block = chunk_base(a->chunk) + a->chunk->used;
    a->chunk->used += size;
    a->used_bytes = total;
    return block;
}

void *arena_alloc(arena *a, size_t size) {
    size_t rounded = 0;
    if (!round_up(size, &rounded)) {
        a->failed = true;
        return NULL;
    }
    unsigned char *block = take(a, rounded);
    if (block) {
        memset(block, 0, rounded);
    }
    return block;
}

void *arena_array(arena *a, size_t count, size_t item_size) {
    size_t size = 0;
    if (!size_mul(count, item_size, &size)) {
        a->failed = true;
        return NULL;
    }
    return arena_alloc(a, size);
}

void *arena_resize(arena *a, void *block, size_t old_size, size_t new_size) {
    size_t old_rounded = 0;
    size_t new_rounded = 0;
    if (a->failed || (block && !round_up(old_size, &old_rounded)) ||
        !round_up(new_size, &new_rounded)) {
        a->failed = true;
        return NULL;
    }
    bool newest = block && a->chunk && a->chunk->used >= old_rounded &&
                  chunk_base(a->chunk) + (a->chunk->used - old_rounded) == (unsigned char *)block;
    if (newest) {
        size_t kept = a->chunk->used - old_rounded;
        size_t handed = a->used_bytes - old_rounded;
        bool within =
            !a->max_bytes || (new_rounded <= a->max_bytes && handed <= a->max_bytes - new_rounded);
        if (new_size == 0) {
            new_rounded = 0;
            within = true;
        }
        if (within && a->chunk->cap - kept >= new_rounded) {
            a->chunk->used = kept + new_rounded;
            a->used_bytes = handed + new_rounded;
            return block;
        }
    }
    if (block && new_rounded <= old_rounded) {
        return block;
    }
    unsigned char *moved = take(a, new_rounded);
    if (moved && block) {
        memcpy(moved, block, old_size);
    }
    return moved;
}

slice arena_copy(arena *a, slice s) {
    size_t size = 0;
    if (!size_add(s.len, 1, &size)) {
        a->failed = true;
        return (slice){NULL, 0};
    }
    char *copy = arena_resize(a, NULL, 0, size);
    if (!copy) {
        return (slice){NULL, 0};
    }
    if (s.len) {
        memcpy(copy, s.ptr, s.len);
    }
    copy[s.len] = '\0';
    return (slice){copy, s.len};
}

char *arena_printf(arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = NULL;
    if (len < 0) {
        a->failed = true;
    } else {
        text = arena_resize(a, NULL, 0, (size_t)len + 1);
        if (text) {
            (void)vsnprintf(text, (size_t)len + 1, format, again);
        }
    }
    va_end(again);
    return text;
}
