/* Options and their mistakes: one parser for all verbs, hints for what was probably meant.
 *
 * It guarantees that an unknown option, a missing value or a surplus argument never gets past it.
 * What an option means is the verb's business. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "cli/cli.h"

#define NAME_MAX_BYTES 63

int cli_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%sgodwit:%s ", cli_style_on(stderr, CLI_RED), cli_style_off(stderr));
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_FAILED;
}

int cli_usage_error(const char *verb, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%sgodwit %s:%s ", cli_style_on(stderr, CLI_RED), verb, cli_style_off(stderr));
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry 'godwit %s --help'.\n", verb);
    va_end(args);
    return CLI_USAGE;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

int cli_distance(const char *a, const char *b) {
    int rows[3][NAME_MAX_BYTES + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > NAME_MAX_BYTES || b_len > NAME_MAX_BYTES) {
        return NAME_MAX_BYTES + 1;
    }
    int *before = rows[0], *above = rows[1], *here = rows[2];
    for (size_t j = 0; j <= b_len; j++) {
        above[j] = before[j] = (int)j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        here[0] = (int)i;
        for (size_t j = 1; j <= b_len; j++) {
            int cost = a[i - 1] != b[j - 1];
            here[j] = least(least(above[j] + 1, here[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                here[j] = least(here[j], before[j - 2] + 1);
            }
        }
        int *spare = before;
        before = above;
        above = here;
        here = spare;
    }
    return above[b_len];
}

const char *cli_nearest(const char *name, const char *const *names, size_t count) {
    const char *best = NULL;
    int best_distance = strlen(name) < 4 ? 2 : 3; /* below this a name counts as meant */
    for (size_t i = 0; i < count; i++) {
        int distance = cli_distance(name, names[i]);
        if (distance < best_distance) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}

static int unknown_option(const cli_spec *spec, const char *argument) {
    const char *names[32];
    size_t count = 0;
    char name[NAME_MAX_BYTES + 1];
    size_t len = strcspn(argument, "=");
    snprintf(name, sizeof name, "%.*s", (int)(len < NAME_MAX_BYTES ? len : NAME_MAX_BYTES),
             argument);
    for (size_t i = 0; i < spec->option_count && count < COUNT_OF(names) - 1; i++) {
        names[count++] = spec->options[i].name;
    }
    names[count++] = "--help";
    const char *near = cli_nearest(name, names, count);
    if (near) {
        return cli_usage_error(spec->verb, "unknown option %s: did you mean %s?", name, near);
    }
    return cli_usage_error(spec->verb, "unknown option %s", name);
}

static const cli_option *find_option(const cli_spec *spec, const char *argument,
                                     const char **value) {
    size_t len = strcspn(argument, "=");
    *value = argument[len] ? argument + len + 1 : NULL;
    for (size_t i = 0; i < spec->option_count; i++) {
        const char *name = spec->options[i].name;
        if (strlen(name) == len && strncmp(name, argument, len) == 0) {
            return &spec->options[i];
        }
    }
    return NULL;
}

static int store(const cli_spec *spec, const cli_option *option, const char *value) {
    if (option->text) {
        *option->text = value;
        return CLI_GO;
    }
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < 0) {
        return cli_usage_error(spec->verb, "%s wants a whole number, not '%s'", option->name,
                               value);
    }
    *option->number = number;
    return CLI_GO;
}

/* Handles the option at argv[*at] and, where it takes one, the value behind it. */
static int take_option(const cli_spec *spec, int argc, char **argv, int *at) {
    const char *value = NULL;
    const char *argument = argv[*at];
    if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
        fputs(spec->help, stdout);
        return CLI_OK;
    }
    const cli_option *option = find_option(spec, argument, &value);
    if (!option) {
        return unknown_option(spec, argument);
    }
    if (option->flag) {
        if (value) {
            return cli_usage_error(spec->verb, "%s takes no value", option->name);
        }
        *option->flag = true;
        return CLI_GO;
    }
    if (!value) {
        if (*at + 1 >= argc) {
            return cli_usage_error(spec->verb, "%s wants a value", option->name);
        }
        value = argv[++*at];
    }
    return store(spec, option, value);
}

int cli_parse(const cli_spec *spec, int argc, char **argv, int *count) {
    bool options_over = false;
    *count = 0;
    for (int i = 1; i < argc; i++) {
        if (!options_over && strcmp(argv[i], "--") == 0) {
            options_over = true;
        } else if (!options_over && argv[i][0] == '-' && argv[i][1] != '\0') {
            int code = take_option(spec, argc, argv, &i);
            if (code != CLI_GO) {
                return code;
            }
        } else {
            argv[++*count] = argv[i];
        }
    }
    if (*count > spec->positional_max) {
        return cli_usage_error(spec->verb, "'%s' is one argument too many",
                               argv[spec->positional_max + 1]);
    }
    if (*count < spec->positional_min) {
        return cli_usage_error(spec->verb, "something is missing: it wants %d argument%s, got %d",
                               spec->positional_min, spec->positional_min == 1 ? "" : "s", *count);
    }
    return CLI_GO;
}

int cli_action(const cli_spec *spec, char **argv, int count, const char *const *actions,
               size_t action_count, const char **out) {
    *out = actions[0];
    for (size_t i = 0; i < action_count; i++) {
        if (count >= 2 && strcmp(argv[1], actions[i]) == 0) {
            char *path = argv[2];
            argv[2] = argv[1];
            argv[1] = path;
        }
        if (count >= 2 && strcmp(argv[2], actions[i]) == 0) {
            *out = actions[i];
            return CLI_GO;
        }
    }
    if (count < 2) {
        return CLI_GO;
    }
    const char *near = cli_nearest(argv[2], actions, action_count);
    if (near) {
        return cli_usage_error(spec->verb, "no action '%s': did you mean '%s'?", argv[2], near);
    }
    return cli_usage_error(spec->verb, "no action '%s'", argv[2]);
}
