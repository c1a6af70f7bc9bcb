/* Hooks that do what their input says, for the tests: a validated title or a contested note
 * beginning with "crash", "hang", "much", "garbage" or "wild" makes them misbehave; every other
 * note becomes "theirs+ours". A title "open PATH" or "persona" is refused with what came of trying.
 * UNRULY_VERSION makes a table of another version. */
#include "godwit/hook.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>

#ifndef UNRULY_VERSION
#define UNRULY_VERSION GODWIT_HOOK_VERSION
#endif

static void behave(const godwit_hook_value *v) {
    if (v->type != GODWIT_HOOK_TEXT) {
        return;
    }
    if (strncmp(v->bytes, "crash", 5) == 0) {
        abort();
    }
    if (strncmp(v->bytes, "end", 3) == 0) {
        _Exit(0);
    }
    for (volatile int on = strncmp(v->bytes, "hang", 4) == 0; on;) {
    }
}

/* What a hook should not be able to do where the server is hardened. */
static bool tries(const godwit_hook_value *v, char *reason, size_t reason_bytes) {
    char path[1024] = "";
    if (v->type != GODWIT_HOOK_TEXT || v->len >= sizeof path) {
        return false;
    }
    memcpy(path, v->bytes, v->len);
    bool file = strncmp(path, "open ", 5) == 0;
    if (!file && strcmp(path, "persona") != 0) {
        return false;
    }
    errno = 0;
    FILE *opened = file ? fopen(path + 5, "rb") : NULL;
    bool done = file ? opened != NULL : personality(0xffffffff) >= 0;
    snprintf(reason, reason_bytes, "%s", done ? "done" : strerror(errno));
    if (opened) {
        fclose(opened);
    }
    return true;
}

static int validate(const godwit_hook_operation *o, char *reason, size_t reason_bytes) {
    printf("asked about %s\n", o->id); /* goes to the log and spoils nothing */
    fflush(stdout);
    for (size_t i = 0; i < o->count; i++) {
        const godwit_hook_value *v = o->columns[i].ours;
        if (strcmp(o->columns[i].name, "title") != 0) {
            continue;
        }
        behave(v);
        if (tries(v, reason, reason_bytes)) {
            return 1;
        }
        if (v->type == GODWIT_HOOK_TEXT && strncmp(v->bytes, "garbage", 7) == 0) {
            memset(reason, 0xff, reason_bytes); /* no UTF-8, no end */
            return 1;
        }
        if (v->type == GODWIT_HOOK_TEXT && strncmp(v->bytes, "bad", 3) == 0) {
            snprintf(reason, reason_bytes, "%s by %s is not \"good\"", o->id, o->user);
            return 1;
        }
    }
    return 0;
}

static godwit_hook_answer resolve(const godwit_hook_conflict *c, godwit_hook_value *result,
                                  char *room, size_t room_bytes) {
    const godwit_hook_value *ours = c->columns[0].ours, *theirs = c->columns[0].theirs;
    behave(ours);
    result[0] = (godwit_hook_value){.type = GODWIT_HOOK_TEXT, .bytes = room};
    if (strncmp(ours->bytes, "much", 4) == 0) {
        result[0].len = 2 * room_bytes;
    } else if (strncmp(ours->bytes, "garbage", 7) == 0) {
        memset(room, 0xff, 10);
        result[0].len = 10;
    } else if (strncmp(ours->bytes, "wild", 4) == 0) {
        return (godwit_hook_answer)77;
    } else {
        result[0].len = (size_t)snprintf(room, room_bytes, "%s+%s", theirs->bytes, ours->bytes);
    }
    return GODWIT_HOOK_DECIDED;
}

const godwit_hook_table godwit_hooks = {UNRULY_VERSION, validate, resolve};
