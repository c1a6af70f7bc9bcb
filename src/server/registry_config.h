/* The [table NAME] sections of a configuration file as a list of lines, for registry*.c. */
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

/* What a setting is applied to. */
typedef struct {
    arena *a;
    schema_table *table;
    char *message;
} registry_settings;
/* Writes the message; false. */
bool registry_refuse(const registry_settings *s, const char *what, slice item);
/* Cuts the next item off. false when nothing is left. */
bool registry_next_item(slice *rest, char separator, slice *item);

/* registry_past.c: what older schemas called things. */
bool registry_set_former(registry_settings *s, slice column, slice names);
bool registry_set_dropped(registry_settings *s, slice names);
/* place: VERSION.COLUMN */
bool registry_set_upcast(registry_settings *s, slice place, slice sql);

#endif
