/* The few functions behind base.h: a failed assertion, and allocation through the host.
 *
 * Guarantees that size 0 frees and that a NULL allocator means the C library. Everything else in
 * the project takes memory through here, so that a test can fail any allocation. */
#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>

void base_assert_failed(const char *file, int line, const char *expression) {
    /* The one place that writes to stderr: what follows is the end of the process. */
    fprintf(stderr, "godwit: assertion failed at %s:%d: %s\n", file, line, expression);
    fflush(stderr);
    abort();
}

void *mem_resize(const godwit_allocator *allocator, void *block, size_t size) {
    if (allocator && allocator->resize) {
        return allocator->resize(allocator->context, block, size);
    }
    if (size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, size);
}
