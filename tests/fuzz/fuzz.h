/* What the fuzz targets share. A target is one function over bytes: it must not crash, leak or trip
 * a sanitizer, and it checks a property of what was accepted. `FUZZ_CHECK` that does not hold ends
 * the program, which libFuzzer reports with the input. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline slice fuzz_slice(const uint8_t *data, size_t size) {
    return (slice){(const char *)data, size};
}

/* Takes one byte off the front; 0 when there is none. */
static inline unsigned fuzz_byte(const uint8_t **data, size_t *size) {
    if (*size == 0) {
        return 0;
    }
    (*size)--;
    return *(*data)++;
}

#endif
