/* Scopes by a query of the operator's (scopes_sql): what a user may read and write stands in the
 * operator's own tables, and a token only says who it is.
 *
 * The query sees :sub and :claims (the token's, as JSON) as bound values, may only read, takes at
 * most SCOPES_SQL_MS, and its rows are (scope) or (scope, may write); more than SCOPES_MAX are
 * refused. What it said of a token is remembered for scopes_ttl: a right that is taken away ends by
 * then, also for long polls; event streams are asked again after SSE_LIFE_MS at the latest. When it
 * fails nobody gets in. */
#ifndef SERVER_GRANTS_H
#define SERVER_GRANTS_H

#include "server/service.h"
#include "server/store.h"

typedef struct grants grants;

/* sql is borrowed. NOMEM. */
godwit_status grants_open(const char *sql, int64_t ttl_ms, grants **out) MUST_USE;
void grants_close(grants *g); /* NULL is fine */
/* Asks once with nobody's name, to find mistakes. INVALID: message (512 bytes). */
godwit_status grants_try(const grants *g, store_reader *r, char *message) MUST_USE;
/* Puts the scopes of job->who in place of those of the token. Outside a read of r. false: answered.
 */
bool grants_ask(grants *g, store_reader *r, service_job *job);

#endif
