/* Reads the [table NAME] sections with inih; other sections belong to others. A value may go on in
 * indented lines: they are joined with commas. */
#include "server/registry_config.h"

#include <ini.h>
#include <stdio.h>
#include <stdlib.h>

static bool grow(registry_config *config) {
    if (config->count < config->cap) {
        return true;
    }
    size_t cap = config->cap ? config->cap * 2 : 32;
    config_line *lines = ARENA_ARRAY(&config->memory, config_line, cap);
    if (!lines) {
        config->failed = true;
        return false;
    }
    if (config->count) {
        memcpy(lines, config->lines, config->count * sizeof *lines);
    }
    config->lines = lines;
    config->cap = cap;
    return true;
}

static bool add_line(registry_config *config, const char *table, const char *name,
                     const char *text) {
    config_line *last = config->count ? &config->lines[config->count - 1] : NULL;
    if (last && slice_is(last->table, table) && slice_is(last->key, name)) {
        const char *joined = arena_printf(&config->memory, "%.*s,%s", SLICE_ARG(last->value), text);
        config->failed = !joined;
        last->value = slice_of(joined);
        return joined != NULL;
    }
    if (!grow(config)) {
        return false;
    }
    config_line *line = &config->lines[config->count++];
    line->table = arena_copy(&config->memory, slice_of(table));
    line->key = arena_copy(&config->memory, slice_of(name));
    line->value = arena_copy(&config->memory, slice_of(text));
    config->failed = config->memory.failed;
    return !config->failed;
}

static int on_line(void *user, const char *section, const char *name, const char *text) {
    static const char prefix[] = "table ";
    registry_config *config = user;
    if (strncmp(section, prefix, sizeof prefix - 1) != 0) {
        return 1;
    }
    const char *table = section + sizeof prefix - 1;
    while (*table == ' ') {
        table++;
    }
    return add_line(config, table, name, text ? text : "");
}

godwit_status registry_config_load(const char *path, registry_config **out, char *message) {
    *out = NULL;
    registry_config *config = calloc(1, sizeof *config);
    if (!config) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    arena_init(&config->memory, NULL, 4u << 20);
    int line = path ? ini_parse(path, on_line, config) : 0;
    if (line != 0) {
        if (config->failed) {
            snprintf(message, 512, "%s: too much for a configuration", path);
        } else if (line < 0) {
            snprintf(message, 512, "the configuration %s can't be read", path);
        } else {
            snprintf(message, 512, "%s: line %d is neither a [section] nor name = value", path,
                     line);
        }
        registry_config_free(config);
        return line < 0 ? GODWIT_IO : GODWIT_INVALID;
    }
    *out = config;
    return GODWIT_OK;
}

void registry_config_hooks(const registry_config *config, bool *validate, bool *resolve) {
    for (size_t i = 0; i < config->count; i++) {
        const config_line *line = &config->lines[i];
        bool policy = line->key.len >= 6 && memcmp(line->key.ptr, "policy", 6) == 0;
        *validate = *validate || slice_is(line->key, "validate");
        *resolve = *resolve ||
                   (policy && line->value.len >= 6 && memcmp(line->value.ptr, "custom", 6) == 0);
    }
}

void registry_config_free(registry_config *config) {
    if (config) {
        arena_deinit(&config->memory);
        free(config);
    }
}
