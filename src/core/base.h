/* Small things everything uses: attributes, assertions, slices, checked arithmetic.
 *
 * ISO C11. Assertions stay on in release: they state what only a bug of ours can break. */
#ifndef CORE_BASE_H
#define CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "godwit/host.h"
#include "godwit/status.h"

#if defined(__GNUC__) || defined(__clang__)
#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
#else
#define MUST_USE
#define PRINTF_LIKE(fmt, args)
#define NORETURN
#endif

/* Ends the process with a line on stderr. */
NORETURN void base_assert_failed(const char *file, int line, const char *expression);
#define ASSERT(expression) \
    ((expression) ? (void)0 : base_assert_failed(__FILE__, __LINE__, #expression))

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Borrowed bytes, not NUL-terminated. ptr may be NULL only when len is 0. */
typedef struct {
    const char *ptr;
    size_t len;
} slice;

#define SLICE(literal) ((slice){"" literal, sizeof(literal) - 1})
#define SLICE_FMT "%.*s"
#define SLICE_ARG(s) ((int)(s).len), ((s).len ? (s).ptr : "")

static inline slice slice_of(const char *text) { /* NULL gives an empty slice */
    return (slice){text, text ? strlen(text) : 0};
}
static inline bool slice_equal(slice a, slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool slice_is(slice a, const char *text) { return slice_equal(a, slice_of(text)); }
/* memcmp order, shorter first on a tie. */
static inline int slice_compare(slice a, slice b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* false when the result would not fit; *out is then unchanged. */
static inline bool size_add(size_t a, size_t b, size_t *out) {
    if (a > SIZE_MAX - b) {
        return false;
    }
    *out = a + b;
    return true;
}
static inline bool size_mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) {
        return false;
    }
    *out = a * b;
    return true;
}

/* Allocation through the host's allocator; NULL allocator or resize = the C library. */
void *mem_resize(const godwit_allocator *allocator, void *block, size_t size);
static inline void mem_free(const godwit_allocator *allocator, void *block) {
    if (block) {
        (void)mem_resize(allocator, block, 0);
    }
}

#endif
