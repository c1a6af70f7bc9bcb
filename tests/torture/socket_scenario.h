/* What clients and the daemon do while calls about sockets fail, in steps. A step that has failed
 * is made again when the faults are over, the steps after it follow: so an application would go on.
 */
#ifndef TESTS_TORTURE_SOCKET_SCENARIO_H
#define TESTS_TORTURE_SOCKET_SCENARIO_H

#include "torture/socket_world.h"

typedef struct {
    const char *name;
    godwit_status (*run)(world *w);
} socket_step;

#define STEPS_MAX 12

typedef struct {
    const char *name, *about;
    bool tls, shortage;        /* see socket_plan */
    void (*prepare)(world *w); /* makes the template; the server runs */
    socket_step steps[STEPS_MAX];
} socket_scenario;

extern const socket_scenario socket_scenarios[];
extern const size_t socket_scenario_count;

/* The databases of the scenario, made in the folder. */
void socket_scenario_template(const socket_scenario *s, const char *folder);
/* Makes the steps that are not done yet, in their order, until one fails. *at: its name. */
godwit_status socket_scenario_run(const socket_scenario *s, world *w, const char **at);

#endif
