/* What the core's unit tests share: cmocka, a seeded generator, data files under tests/golden. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/bytes.h"

/* xorshift64*: the same numbers everywhere, from a seed that is not 0. */
static inline uint64_t unit_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* The whole of tests/golden/NAME, in the arena. Fails the test when it can't be read. */
static inline slice unit_golden(arena *a, const char *name) {
    const char *folder = getenv("GODWIT_GOLDEN");
    char path[1024];
    (void)snprintf(path, sizeof(path), "%s/%s", folder ? folder : "tests/golden", name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        fail_msg("%s can't be opened", path);
        return (slice){NULL, 0};
    }
    bytes content;
    bytes_init(&content, NULL, 0);
    char part[4096];
    for (size_t got = 0; (got = fread(part, 1, sizeof(part), file)) > 0;) {
        bytes_add(&content, part, got);
    }
    (void)fclose(file);
    slice copy = arena_copy(a, bytes_view(&content));
    bytes_deinit(&content);
    assert_non_null(copy.ptr);
    return copy;
}

#define assert_slice(s, text)                                                                      \
    do {                                                                                           \
        slice unit_got = (s);                                                                      \
        slice unit_want = slice_of(text);                                                          \
        if (!slice_equal(unit_got, unit_want)) {                                                   \
            fail_msg("got \"" SLICE_FMT "\", not \"" SLICE_FMT "\"", SLICE_ARG(unit_got),          \
                     SLICE_ARG(unit_want));                                                        \
        }                                                                                          \
    } while (0)

/* An allocator that fails from the n-th allocation on (or only that one), and counts live blocks.
 */
typedef struct {
    long countdown; /* < 0: never fails */
    bool once;
    long live;
} unit_memory;

static inline void *unit_resize(void *context, void *block, size_t size) {
    unit_memory *m = context;
    if (size == 0) {
        m->live -= block != NULL;
        free(block);
        return NULL;
    }
    if (m->countdown == 0) {
        m->countdown = m->once ? -1 : 0;
        return NULL;
    }
    m->countdown -= m->countdown > 0;
    void *moved = realloc(block, size);
    m->live += moved && !block;
    return moved;
}

/* Does `work` with ever more room in the arena, then with ever more allocations that succeed before
 * one fails for good, or alone: each time it says NOMEM, or it has done everything. Nothing stays
 * allocated. `work` gets a new arena each time, and may use its allocator. */
static inline void unit_starve(godwit_status (*work)(arena *a, void *context), void *context) {
    godwit_status status = GODWIT_NOMEM;
    for (size_t room = 1; status != GODWIT_OK; room += 16) {
        arena a;
        arena_init(&a, NULL, room);
        status = work(&a, context);
        arena_deinit(&a);
        if ((status != GODWIT_OK && status != GODWIT_NOMEM) || room > 1u << 20) {
            fail_msg("status %d with room for %zu bytes", status, room);
        }
    }
    for (int once = 0; once < 2; once++) {
        bool met = true;
        for (long place = 0; met; place++) {
            unit_memory memory = {.countdown = place, .once = once == 1};
            const godwit_allocator allocator = {.resize = unit_resize, .context = &memory};
            arena a;
            arena_init(&a, &allocator, 0);
            status = work(&a, context);
            met = memory.countdown == (once ? -1 : 0);
            arena_deinit(&a);
            assert_int_equal(memory.live, 0);
            assert_true(status == GODWIT_NOMEM || status == GODWIT_OK);
            assert_true(status == GODWIT_OK || met);
        }
    }
}

#endif
