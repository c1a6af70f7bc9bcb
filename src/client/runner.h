/* Background mode: a thread with a handle of its own on the same file, which syncs when there is
 * reason to.
 *
 *   runner.c   the thread: starting, stopping, waiting
 *   listen.c   asking the server to say when something is new (long poll)
 *
 * The handle it was started on is touched by the thread never; what both share is locked. */
#ifndef CLIENT_RUNNER_H
#define CLIENT_RUNNER_H

#include "client/pump.h"

/* Ends the thread, if one runs, and forgets it. Not on that thread itself. */
void runner_end(godwit *g);
/* Whether the caller is the thread that g has started. */
bool runner_inside(const godwit *g);
/* How the thread's latest pass ended. passes: how many have, 0 = none or no thread. */
typedef struct {
    int64_t passes;
    godwit_status status;
    char message[256];
} runner_pass;
void runner_latest(godwit *g, runner_pass *out);
/* Something has changed that no database tells: try in in_ms, and not later. */
void runner_hint(godwit *g, int64_t in_ms);

/* ---- listen.c ---- */
typedef enum {
    LISTEN_NEWS,    /* the scope has moved beyond the cursor */
    LISTEN_NOTHING, /* the server waited and nothing came, or the wait was cancelled */
    LISTEN_FAILED   /* no use: no answer, or not the right one */
} listen_result;
typedef struct {
    int wait_s;    /* given: for all scopes together */
    int share_s;   /* of the latest call */
    int64_t scope; /* whose turn it was */
} listen_turn;
/* Waits up to wait_s seconds, less where there are several scopes, for the server to have something
 * new in the scope whose turn it is. Ends early when g->cancelled says so. No transaction is open
 * meanwhile. */
listen_result listen_for_news(godwit *g, listen_turn *turn);
/* *work: operations are captured or pending that nobody has sent. */
godwit_status listen_for_work(godwit *g, bool *work) MUST_USE;
/* Changes with every commit of another connection to the file; -1 = can't tell. */
int64_t listen_version(godwit *g);

#endif
