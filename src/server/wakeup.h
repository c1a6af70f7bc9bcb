/* Waking those who wait here for what other servers over the same database commit.
 *
 * A thread with connections of its own: it tells the others which scopes this server has moved
 * (coalesced), listens to what they tell, and asks for the heads of all scopes somebody here waits
 * for, in one statement, now and then: always, for what is told may be missed, and faster where
 * nothing can be heard. All of it is a hint; cursors are the truth. */
#ifndef SERVER_WAKEUP_H
#define SERVER_WAKEUP_H

#include "server/metrics.h"
#include "server/watched.h"

struct store_signal;
typedef struct wakeup wakeup;
/* On the thread of it: a scope that is waited for has this head. */
typedef void (*wakeup_fn)(void *context, slice scope, int64_t head);

/* Takes `word`, also on failure. */
godwit_status wakeup_open(struct store_signal *word, metrics *m, wakeup_fn news, void *context,
                          wakeup **out) MUST_USE;
/* Tells what is left to tell, ends the thread. NULL is fine. */
void wakeup_close(wakeup *w);
/* Who waits here: see watched.h. */
watched *wakeup_watched(wakeup *w);
/* This server has moved a scope. Any thread; waits for nothing. */
void wakeup_tell(wakeup *w, slice scope, int64_t head);

#endif
