/* The process that runs hooks: loads one library, answers questions line by line. Everything it is
 * asked and answers is bounded and checked by the server once more; here it is made into C structs
 * and back. What the library prints to stdout goes to stderr: stdout is the server's. */
#define _DEFAULT_SOURCE /* closefrom */

#include "server/hooks.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "core/limits.h"
#include "core/value.h"
#include "godwit/hook.h"

typedef struct {
    const godwit_hook_table *table;
    FILE *out;
    arena memory; /* of one question */
    bytes answer;
    char *room;
    unsigned alarm_s;
} hook_process;

/* ---- the library ---- */

/* Whoever can write the file decides for the server. */
static bool trusted(const char *path, char message[512]) {
    struct stat file;
    if (stat(path, &file) != 0) {
        snprintf(message, 512, "the hooks %.300s can't be read: %s", path, strerror(errno));
    } else if (!S_ISREG(file.st_mode)) {
        snprintf(message, 512, "the hooks %.300s are no file", path);
    } else if (file.st_mode & (S_IWGRP | S_IWOTH)) {
        snprintf(message, 512, "the hooks %.300s can be written by others: chmod go-w", path);
    } else if (file.st_uid != 0 && file.st_uid != geteuid()) {
        snprintf(message, 512, "the hooks %.300s belong to another user than the server's", path);
    } else {
        return true;
    }
    return false;
}

static const godwit_hook_table *load(const char *library, char message[512]) {
    char *path = realpath(library, NULL); /* a name without a slash would be searched for */
    if (!path) {
        snprintf(message, 512, "the hooks %.300s can't be read: %s", library, strerror(errno));
        return NULL;
    }
    const godwit_hook_table *table = NULL;
    if (trusted(path, message)) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        table = handle ? dlsym(handle, "godwit_hooks") : NULL;
        if (!handle) {
            snprintf(message, 512, "the hooks can't be loaded: %.400s", dlerror());
        } else if (!table) {
            snprintf(message, 512, "%.300s has no table 'godwit_hooks': see godwit/hook.h", path);
        } else if (table->version != GODWIT_HOOK_VERSION) {
            snprintf(message, 512,
                     "the hooks %.300s are made for version %d of godwit/hook.h, this is version "
                     "%d: compile them again",
                     path, table->version, GODWIT_HOOK_VERSION);
            table = NULL;
        }
    }
    free(path);
    return table;
}

/* ---- questions ---- */

/* With a NUL behind; NULL: out of memory. */
static const char *text_member(hook_process *p, const json *object, const char *name) {
    slice text = {0};
    (void)json_text(json_get(object, name), &text);
    return text.len ? arena_copy(&p->memory, text).ptr : "";
}

static bool read_value(hook_process *p, const json *node, const godwit_hook_value **out) {
    value v;
    godwit_hook_value *made = ARENA_NEW(&p->memory, godwit_hook_value);
    if (!made || value_from_json(&p->memory, node, &v) != GODWIT_OK) {
        return false;
    }
    slice text = {0};
    switch ((value_type)v.type) {
    case VALUE_NULL:
        made->type = GODWIT_HOOK_NULL;
        break;
    case VALUE_INT:
        made->type = GODWIT_HOOK_INTEGER;
        made->integer = v.u.i;
        break;
    case VALUE_REAL:
        made->type = GODWIT_HOOK_REAL;
        made->real = v.u.d;
        break;
    case VALUE_TEXT:
    case VALUE_BLOB:
        made->type = v.type == VALUE_TEXT ? GODWIT_HOOK_TEXT : GODWIT_HOOK_BLOB;
        text = v.u.s;
        break;
    case VALUE_SPECIAL:
        made->type = GODWIT_HOOK_JSON;
        text = v.u.node->u.s;
        break;
    }
    slice copy = arena_copy(&p->memory, text);
    made->bytes = copy.ptr;
    made->len = copy.len;
    *out = made;
    return copy.ptr != NULL;
}

static bool read_side(hook_process *p, const json *column, const char *name,
                      const godwit_hook_value **out) {
    const json *node = json_get(column, name);
    return !node || read_value(p, node, out);
}

static bool read_columns(hook_process *p, const json *question, bool both_sides,
                         const godwit_hook_column **out, size_t *count) {
    const json *list = json_get(question, "columns");
    if (!json_is(list, JSON_ARRAY)) {
        return false;
    }
    godwit_hook_column *columns = ARENA_ARRAY(&p->memory, godwit_hook_column, list->count);
    const json *item = json_first(list);
    for (size_t i = 0; i < list->count; i++, item = json_after(item)) {
        if (!columns) {
            return false;
        }
        columns[i].name = text_member(p, item, "name");
        if (!columns[i].name || !read_side(p, item, "base", &columns[i].base) ||
            !read_side(p, item, "theirs", &columns[i].theirs) ||
            !read_side(p, item, "ours", &columns[i].ours) || !columns[i].ours ||
            (both_sides && !columns[i].theirs)) {
            return false;
        }
    }
    *out = columns;
    *count = list->count;
    return true;
}

/* ---- answers ---- */

static const char *validate(hook_process *p, const json *question) {
    static const struct {
        const char *name;
        godwit_hook_kind kind;
    } kinds[] = {{"create", GODWIT_HOOK_CREATE},
                 {"update", GODWIT_HOOK_UPDATE},
                 {"delete", GODWIT_HOOK_DELETE}};
    char reason[GODWIT_HOOK_REASON] = "";
    godwit_hook_operation o = {.scope = text_member(p, question, "scope"),
                               .table = text_member(p, question, "table"),
                               .id = text_member(p, question, "id"),
                               .user = text_member(p, question, "user"),
                               .device = text_member(p, question, "device")};
    const char *kind = text_member(p, question, "kind");
    for (size_t i = 0; kind && i < COUNT_OF(kinds); i++) {
        o.kind = strcmp(kind, kinds[i].name) == 0 ? kinds[i].kind : o.kind;
    }
    if (!p->table->validate) {
        return "the library has no validate";
    }
    if (!o.kind || !read_columns(p, question, false, &o.columns, &o.count) || p->memory.failed) {
        return "not a question";
    }
    (void)alarm(p->alarm_s);
    int refused = p->table->validate(&o, reason, sizeof reason);
    (void)alarm(0);
    slice text = {reason, strnlen(reason, sizeof reason)};
    if (text.len == sizeof reason || !json_utf8_valid(text)) {
        return "the reason is no text";
    }
    bytes_text(&p->answer,
               refused ? "{\"answer\":\"refused\",\"reason\":" : "{\"answer\":\"good\"");
    if (refused) {
        json_write_text(&p->answer, text.len ? text : SLICE("refused by a rule of the server"));
    }
    bytes_char(&p->answer, '}');
    return NULL;
}

static bool value_of(const godwit_hook_value *v, value *out, size_t *total) {
    slice text = {v->bytes, v->len};
    switch (v->type) {
    case GODWIT_HOOK_NULL:
        *out = (value){.type = VALUE_NULL};
        return true;
    case GODWIT_HOOK_INTEGER:
        *out = (value){.type = VALUE_INT, .u.i = v->integer};
        return true;
    case GODWIT_HOOK_REAL:
        *out = (value){.type = VALUE_REAL, .u.d = v->real};
        return true;
    case GODWIT_HOOK_TEXT:
    case GODWIT_HOOK_BLOB:
        if (text.len > GODWIT_HOOK_ROOM - *total || (!text.ptr && text.len)) {
            return false;
        }
        *total += text.len;
        *out = (value){.type = v->type == GODWIT_HOOK_TEXT ? VALUE_TEXT : VALUE_BLOB, .u.s = text};
        return out->type == VALUE_BLOB || json_utf8_valid(text);
    case GODWIT_HOOK_JSON:
        break;
    }
    return false;
}

static const char *resolve(hook_process *p, const json *question) {
    godwit_hook_conflict c = {.rule = text_member(p, question, "rule"),
                              .scope = text_member(p, question, "scope"),
                              .table = text_member(p, question, "table"),
                              .id = text_member(p, question, "id")};
    size_t total = 0;
    if (!p->table->resolve) {
        return "the library has no resolve";
    }
    if (!read_columns(p, question, true, &c.columns, &c.count) || p->memory.failed) {
        return "not a question";
    }
    godwit_hook_value *result = ARENA_ARRAY(&p->memory, godwit_hook_value, c.count);
    for (size_t i = 0; result && i < c.count; i++) {
        result[i] = *c.columns[i].theirs;
    }
    if (!result) {
        return "out of memory";
    }
    (void)alarm(p->alarm_s);
    godwit_hook_answer answer = p->table->resolve(&c, result, p->room, GODWIT_HOOK_ROOM);
    (void)alarm(0);
    if (answer == GODWIT_HOOK_MANUAL) {
        bytes_text(&p->answer, "{\"answer\":\"manual\"}");
        return NULL;
    }
    if (answer != GODWIT_HOOK_DECIDED) {
        return "neither decided nor manual";
    }
    bytes_text(&p->answer, "{\"answer\":\"decided\",\"values\":[");
    for (size_t i = 0; i < c.count; i++) {
        value v;
        if (!value_of(&result[i], &v, &total)) {
            return "not a value, or too much";
        }
        bytes_text(&p->answer, i ? "," : "");
        value_to_json(&p->answer, &v);
    }
    bytes_text(&p->answer, "]}");
    return NULL;
}

static bool say(hook_process *p) {
    bytes_char(&p->answer, '\n');
    return !p->answer.failed && fwrite(p->answer.ptr, 1, p->answer.len, p->out) == p->answer.len &&
           fflush(p->out) == 0;
}

static void say_error(hook_process *p, const char *error) {
    slice text = slice_of(error);
    bytes_clear(&p->answer);
    bytes_text(&p->answer, "{\"error\":");
    json_write_text(&p->answer, json_utf8_valid(text) ? text : SLICE("the hooks can't be used"));
    bytes_char(&p->answer, '}');
}

static void answer_line(hook_process *p, slice line) {
    const json *question = NULL;
    const char *error = "not a question";
    slice hook = {0};
    arena_reset(&p->memory);
    bytes_clear(&p->answer);
    if (line.len <= HOOK_TEXT_MAX && json_parse(&p->memory, line, &question, NULL) == GODWIT_OK) {
        (void)json_text(json_get(question, "hook"), &hook);
        error = slice_is(hook, "validate")  ? validate(p, question)
                : slice_is(hook, "resolve") ? resolve(p, question)
                                            : error;
    }
    if (error) {
        say_error(p, error);
    }
}

static void serve_lines(hook_process *p) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t len = 0;
    bytes_printf(&p->answer, "{\"godwitHooks\":%d,\"validate\":%s,\"resolve\":%s}",
                 GODWIT_HOOK_VERSION, p->table->validate ? "true" : "false",
                 p->table->resolve ? "true" : "false");
    bool ok = say(p);
    while (ok && (len = getline(&line, &cap, stdin)) > 0) {
        answer_line(p, (slice){line, (size_t)len});
        ok = say(p);
    }
    free(line);
}

bool hook_serve(const char *library, int64_t timeout_ms, char message[512]) {
    const struct rlimit no_core = {0, 0};
    hook_process p = {0};
    closefrom(STDERR_FILENO + 1); /* the server's sockets and store are not for hooks */
    (void)setrlimit(RLIMIT_CORE, &no_core);
    int out = dup(STDOUT_FILENO);
    p.out = out >= 0 ? fdopen(out, "w") : NULL;
    if (!p.out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        snprintf(message, 512, "%s", strerror(errno));
        return false;
    }
    p.alarm_s =
        timeout_ms > 0 ? (unsigned)(timeout_ms / 1000) + 2 : 0; /* nobody may be left to kill it */
    p.room = malloc(GODWIT_HOOK_ROOM);
    arena_init(&p.memory, NULL, 0);
    bytes_init(&p.answer, NULL, 0);
    (void)alarm(p.alarm_s ? HOOK_START_MS / 1000 + 2 : 0);
    p.table = p.room ? load(library, message) : NULL;
    (void)alarm(0);
    if (p.table) {
        serve_lines(&p);
    } else {
        say_error(&p, p.room ? message : "out of memory");
        (void)say(&p);
    }
    fclose(p.out);
    bytes_deinit(&p.answer);
    arena_deinit(&p.memory);
    free(p.room);
    return p.table != NULL;
}
