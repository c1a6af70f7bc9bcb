/* Who this replica is (semantics 4.5): its identities in each scope, the principal its queue is
 * bound to, and the place the database was last seen in.
 *
 * godwit_identity.current:  1 the identity operations are sealed under, one per scope
 *                           0 one this replica had before, of the principal at hand
 *                          -1 of another principal: its operations are parked
 *
 * None of these needs the network. */
#ifndef CLIENT_IDENTITY_H
#define CLIENT_IDENTITY_H

#include "client/client.h"

/* The scope's current identity, made when there is none. */
godwit_status identity_current(godwit *g, arena *a, slice scope, slice *device_id) MUST_USE;
/* Gives the scope a new identity and moves every pending operation of the principal to it: sequence
 * numbers from 1 in the order of capture, groups along, keys unchanged. Inside a transaction. */
godwit_status identity_rekey(godwit *g, slice scope) MUST_USE;

/* Compares the place the database is in with the one it was in before; in another place (a copy, a
 * restored backup) every scope gets a new identity. Seals what is captured. */
godwit_status identity_check_place(godwit *g) MUST_USE;
/* For a copy in a file of its own, not opened as a replica yet: wherever it is first synced counts
 * as another place than any before. */
godwit_status identity_mark_copy(db *d) MUST_USE;

/* Binds the queue to the token's user, or changes over to that user: what the other one has waiting
 * is sealed and parked, what this one had parked waits again. */
godwit_status identity_check_user(godwit *g) MUST_USE;
/* The same for the server that answered a registration. *changed: another one than before. */
godwit_status identity_check_server(godwit *g, slice server_id, bool *changed) MUST_USE;

/* Whether the scope's streams have to be compared with the server's before anything is sent; why:
 * for the log, NULL clears it. */
godwit_status identity_reconcile_wanted(godwit *g, slice scope, bool *wanted) MUST_USE;
godwit_status identity_want_reconcile(godwit *g, slice scope, const char *why) MUST_USE;
/* A snapshot takes the place of the cursor: the current identity's next push tells whether the
 * server has this history. Should it be given up before, streams are compared. */
godwit_status identity_note_unproved(godwit *g, slice scope) MUST_USE;

#endif
