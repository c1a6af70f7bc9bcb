/* Events: what a host that listens is told (godwit.h). Written in the transactions that make them
 * true, kept until the host has seen them. Where nobody listens nothing is written.
 *
 *   godwit_event(seq, at_ms, kind, ref, scope, entity_type, entity_id, outcome, code, detail, n)
 *   setting events_done: the durable position; rows up to it are gone, but for the newest of all,
 * so that seq never repeats
 *
 * The writers run in the caller's transaction, on the handle's thread. */
#ifndef CLIENT_EVENT_H
#define CLIENT_EVENT_H

#include "client/settle.h"

#define EVENT_TABLE                                                                                \
    "CREATE TABLE IF NOT EXISTS godwit_event (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, "   \
    "kind"                                                                                         \
    " TEXT NOT NULL, ref TEXT NOT NULL, scope TEXT NOT NULL, entity_type TEXT NOT NULL, entity_id" \
    " TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, n INTEGER "  \
    "NOT"                                                                                          \
    " NULL);"

void event_view(bytes *b, int64_t further_keys);

/* Writes events from now on, or no longer. */
godwit_status event_keep(godwit *g, bool on) MUST_USE;
/* Somebody listens. */
godwit_status event_wanted(godwit *g, bool *out) MUST_USE;
/* Operations sealed behind lsn `after` are queued, or were refused at once. */
godwit_status event_queued(godwit *g, int64_t after) MUST_USE;
/* What this transaction has found out about own operations; after settle_move_ops. */
godwit_status event_settled(settle *s) MUST_USE;
/* A record of the conflict ledger that is new or has another state; before it is stored. */
godwit_status event_conflict(settle *s, slice conflict_id, slice kind, slice state, slice entity,
                             slice entity_id) MUST_USE;
/* A push of count operations goes out; the first of them. Opens a transaction of its own. */
godwit_status event_sent(godwit *g, slice scope, int64_t first_seq, int64_t count) MUST_USE;
/* The server answered, or could not be reached. Written when it was otherwise before. */
godwit_status event_online(godwit *g, bool online, slice detail) MUST_USE;

/* Hands what is new to the host and moves the position; not inside a transaction. */
godwit_status event_deliver(godwit *g) MUST_USE;
/* Tells the host how far the pass is; not kept. */
void event_progress(godwit *g, slice scope, int64_t done, int64_t total);

#endif
