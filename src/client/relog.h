/* Changes the engine itself puts in the log, in the form the triggers give theirs (schema.c). */
#ifndef CLIENT_RELOG_H
#define CLIENT_RELOG_H

#include "client/settle.h"

typedef struct {
    const client_table *t;
    const value *key; /* [key_count] */
    op_kind kind;
    const row_image *now; /* the new values; of an update those that are known, which may be none */
    const row_image *old; /* the row before */
    int64_t now_ms;
} relog_change;
/* Appends the change. The log is wide enough for every tracked table. */
godwit_status relog_write(godwit *g, const relog_change *change) MUST_USE;

/* The first captured change of the row, of change->kind, behind lsn `after`. *lsn 0: none. *captured:
 * columns it is about, [data_count]. */
godwit_status relog_find(godwit *g, const relog_change *change, int64_t after, int64_t *lsn,
                         bool *captured) MUST_USE;
/* Adds columns to a captured update that it left out because they did not change: `extra`, with the
 * values of change->now. */
godwit_status relog_widen(godwit *g, const relog_change *change, int64_t lsn,
                          const bool *extra) MUST_USE;

#endif
