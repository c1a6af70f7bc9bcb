/* Vector clocks as text, two of them divided by a line end: compare is antisymmetric, merge
 * commutes, and a merged clock is never before what went into it. */
#include "fuzz.h"

#include "godwit/godwit.h"

static const char *order_of(const char *a, const char *b) {
    const char *order = NULL;
    FUZZ_CHECK(godwit_clock_compare(a, b, &order) == GODWIT_OK && order);
    return order;
}

static void check_merge(const char *a, const char *b) {
    char *ab = NULL, *ba = NULL;
    if (godwit_clock_merge(a, b, &ab) == GODWIT_OK) {
        FUZZ_CHECK(godwit_clock_merge(b, a, &ba) == GODWIT_OK);
        FUZZ_CHECK(strcmp(order_of(ab, ba), "equal") == 0);
        const char *to_a = order_of(ab, a);
        FUZZ_CHECK(strcmp(to_a, "after") == 0 || strcmp(to_a, "equal") == 0);
    }
    godwit_free(ab);
    godwit_free(ba);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *a = malloc(size + 1);
    FUZZ_CHECK(a);
    if (size) {
        memcpy(a, data, size);
    }
    a[size] = 0;
    char *b = strchr(a, '\n');
    const char *order = NULL;
    if (b) {
        *b++ = 0;
        if (godwit_clock_compare(a, b, &order) == GODWIT_OK) {
            const char *back = order_of(b, a);
            FUZZ_CHECK((strcmp(order, "before") == 0) == (strcmp(back, "after") == 0));
            FUZZ_CHECK((strcmp(order, "equal") == 0) == (strcmp(back, "equal") == 0));
            check_merge(a, b);
        }
    }
    free(a);
    return 0;
}
