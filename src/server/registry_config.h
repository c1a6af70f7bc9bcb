/* The [table NAME] sections of a configuration file as a list of lines, for registry.c. */
#ifndef SERVER_REGISTRY_CONFIG_H
#define SERVER_REGISTRY_CONFIG_H

#include "server/registry.h"

typedef struct {
    slice table, key, value;
} config_line;

struct registry_config {
    arena memory;
    config_line *lines;
    size_t count, cap;
    bool failed; /* out of memory */
};

#endif
