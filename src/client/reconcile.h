/* Reconciliation, the client's half (semantics 4.5): every identity this replica ever used in a
 * scope is compared with the server's ledger, newest operation first, page by page; then, in one
 * transaction:
 *
 *   known there             the server's outcome is ours, whatever we believed
 *   not known there         pending again
 *   the stream of the current identity ends where ours does, nothing of an earlier one is lost, and
 *   every operation behind that place is still here
 *                           -> the same identity goes on (the server has lost history)
 *   else                    -> a new identity (somebody else uses ours, or a stream without a hole
 *                              can't be made any more)
 *
 * The watermark alone is never believed: it may count another copy's operations, or predate a
 * restored backup. */
#ifndef CLIENT_RECONCILE_H
#define CLIENT_RECONCILE_H

#include "client/pump.h"

/* Writes the request for the next page; the first call of a pass begins anew. */
godwit_status reconcile_page(godwit *g, pump *p) MUST_USE;
/* Takes a page's answer; after the last one everything is settled. *more: pages remain. */
godwit_status reconcile_take(godwit *g, pump *p, const reconcile_answer *answer,
                             bool *more) MUST_USE;
/* Forgets a reconciliation under way. NULL is fine. */
void reconcile_forget(godwit *g, struct reconciliation *r);

#endif
