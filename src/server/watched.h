/* The scopes that somebody waits for at this server, over all loops: what another server's commits
 * have to be looked for.
 *
 * Every waiter is counted; a scope leaves with its last one. With each goes the newest head that is
 * known here, so that nobody is woken by what was told before. Any thread. */
#ifndef SERVER_WATCHED_H
#define SERVER_WATCHED_H

#include "core/arena.h"

typedef struct watched watched;

godwit_status watched_open(watched **out) MUST_USE;
void watched_close(watched *w); /* NULL is fine */
/* Without memory nothing is counted: that waiter's time runs out, and it asks again. */
void watched_add(watched *w, slice scope);
void watched_remove(watched *w, slice scope);
/* The scope has this head. true: somebody waits, and did not know. */
bool watched_news(watched *w, slice scope, int64_t head);
/* The scope may have moved; empty: each of them may. true: somebody waits for it. */
bool watched_mark(watched *w, slice scope);
typedef struct {
    slice *scopes;
    int64_t *heads; /* known here; 0 = none */
    size_t count;
} watched_list;
/* Those that were marked since the last time, or all. In `a`, copied; NOMEM: the marks stay. */
godwit_status watched_take(watched *w, bool all, arena *a, watched_list *out) MUST_USE;

#endif
