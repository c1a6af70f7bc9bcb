/* Hooks for a table of notes: a title of at least three letters, and texts merged line by line.
 *
 *   cc -shared -fPIC -O2 -o notes.so notes.c
 *
 *   [server]
 *   hooks = /usr/lib/godwit/notes.so
 *   [table pins]
 *   validate = yes
 *   policy.note = custom:lines
 *
 * See godwit/hook.h for what a hook may and may not do. */
#include "godwit/hook.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINES_MAX 2000 /* of one text; longer ones are left to people */

/* ---- validate ---- */

static int validate(const godwit_hook_operation *o, char *reason, size_t reason_bytes) {
    for (size_t i = 0; i < o->count; i++) {
        const godwit_hook_value *title = o->columns[i].ours;
        if (strcmp(o->columns[i].name, "title") == 0 &&
            (title->type != GODWIT_HOOK_TEXT || title->len < 3)) {
            snprintf(reason, reason_bytes, "a title has at least three letters");
            return 1;
        }
    }
    return 0;
}

/* ---- resolve: lines ---- */

typedef struct {
    const char *text;
    size_t len;
} line;

typedef struct {
    line lines[LINES_MAX];
    size_t count;
} text;

static bool split(const godwit_hook_value *v, text *out) {
    const char *at = v->bytes, *end = v->bytes + v->len;
    out->count = 0;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        if (out->count == LINES_MAX) {
            return false;
        }
        out->lines[out->count++] = (line){at, len};
        at += len + 1;
    }
    return true;
}

static bool has(const text *t, line l) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->lines[i].len == l.len && memcmp(t->lines[i].text, l.text, l.len) == 0) {
            return true;
        }
    }
    return false;
}

static bool add(char *room, size_t room_bytes, size_t *used, line l) {
    if (l.len + 1 > room_bytes - *used) {
        return false;
    }
    if (*used > 0) {
        room[(*used)++] = '\n';
    }
    memcpy(room + *used, l.text, l.len);
    *used += l.len;
    return true;
}

/* Theirs without the lines that we have removed, then the lines that we have added. */
static godwit_hook_answer merge_lines(const godwit_hook_column *c, godwit_hook_value *result,
                                      char *room, size_t room_bytes) {
    text base = {.count = 0}, theirs, ours;
    size_t used = 0;
    if (!c->base || c->base->type != GODWIT_HOOK_TEXT || c->theirs->type != GODWIT_HOOK_TEXT ||
        c->ours->type != GODWIT_HOOK_TEXT || !split(c->base, &base) || !split(c->theirs, &theirs) ||
        !split(c->ours, &ours)) {
        return GODWIT_HOOK_MANUAL;
    }
    for (size_t i = 0; i < theirs.count; i++) {
        bool removed = has(&base, theirs.lines[i]) && !has(&ours, theirs.lines[i]);
        if (!removed && !add(room, room_bytes, &used, theirs.lines[i])) {
            return GODWIT_HOOK_MANUAL;
        }
    }
    for (size_t i = 0; i < ours.count; i++) {
        bool added = !has(&base, ours.lines[i]) && !has(&theirs, ours.lines[i]);
        if (added && !add(room, room_bytes, &used, ours.lines[i])) {
            return GODWIT_HOOK_MANUAL;
        }
    }
    result->type = GODWIT_HOOK_TEXT;
    result->bytes = room;
    result->len = used;
    return GODWIT_HOOK_DECIDED;
}

static godwit_hook_answer resolve(const godwit_hook_conflict *c, godwit_hook_value *result,
                                  char *room, size_t room_bytes) {
    if (strcmp(c->rule, "lines") == 0 && c->count == 1) {
        return merge_lines(&c->columns[0], &result[0], room, room_bytes);
    }
    return GODWIT_HOOK_MANUAL;
}

const godwit_hook_table godwit_hooks = {GODWIT_HOOK_VERSION, validate, resolve};
