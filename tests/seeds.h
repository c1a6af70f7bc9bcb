/* Random tests run over seeds. GODWIT_SEED runs one of them, GODWIT_SEEDS so many. */
#ifndef GODWIT_TESTS_SEEDS_H
#define GODWIT_TESTS_SEEDS_H

#include <stdint.h>
#include <stdlib.h>

/* Calls run(seed) for the seeds 1 to `count`, or as the environment says. */
static inline void seeds_run(void (*run)(uint64_t seed), uint64_t count) {
    const char *one = getenv("GODWIT_SEED");
    const char *many = getenv("GODWIT_SEEDS");
    if (one) {
        run(strtoull(one, NULL, 10));
        return;
    }
    count = many ? strtoull(many, NULL, 10) : count;
    for (uint64_t seed = 1; seed <= count; seed++) {
        run(seed);
    }
}

#endif
