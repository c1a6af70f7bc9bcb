/* The scenarios: a world made ready, and the steps during which things fail.
 *
 * A step that has failed is made again when the fault is over, the steps after it follow: so an
 * application would go on. Where a step may have had its effect although it failed, `settled` says
 * so: SQL over device 0 that gives something other than 0. */
#ifndef TESTS_TORTURE_SCENARIO_H
#define TESTS_TORTURE_SCENARIO_H

#include "torture/world.h"

typedef struct {
    const char *name;
    godwit_status (*run)(world *w);
    const char *settled; /* NULL = the step may be made twice */
} scenario_step;

#define STEPS_MAX 16

typedef struct {
    const char *name, *about;
    void (*prepare)(world *w);
    scenario_step steps[STEPS_MAX];
} scenario;

extern const scenario scenarios[];
extern const size_t scenario_count;

/* Makes the steps that are not done yet, in their order, until one fails. *at: its name. */
godwit_status scenario_run(const scenario *s, world *w, const char **at);
/* Steps that have succeeded have had their effect. */
void scenario_check(const scenario *s, world *w);

#endif
