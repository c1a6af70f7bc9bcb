/* Differences between a tracked table and a copy of it, written into the log as captured changes. For
 * migrate.c and gained.c; inside a transaction of the caller. */
#ifndef CLIENT_DIFFERENCE_H
#define CLIENT_DIFFERENCE_H

#include "client/track.h"
#include "core/limits.h"

/* Zero, then `t` and what differs. In all SQL texts n is the table as it is; they live in an arena. */
typedef struct {
    const client_table *t;
    slice changed[COLUMNS_MAX]; /* condition, for each data column; empty = never */
    slice was[COLUMNS_MAX];     /* old value; empty = NULL */
    slice is[COLUMNS_MAX];      /* new value; empty = the column of n */
    slice copy;                 /* of deleted and created rows: the copy's table, keys in k0.. */
    slice from;                 /* of updated rows: what stands behind FROM */
} difference;

/* "n.column" */
slice difference_column(arena *a, const schema_column *c) MUST_USE;
/* Condition that two values are (not) the same, storage class included. */
slice difference_test(arena *a, slice x, slice z, bool differ) MUST_USE;
/* "main.table AS n"; with a copy "main.table AS n JOIN copy AS s ON" the keys are the same. */
slice difference_from(arena *a, const client_table *t, slice copy) MUST_USE;

/* Each appends to the log. Texts that are missing because the arena failed give NOMEM. */
godwit_status difference_updated(godwit *g, const difference *d) MUST_USE;
/* Rows of the copy that n has no more, old values being d->was; the copy is called s there. */
godwit_status difference_deleted(godwit *g, const difference *d) MUST_USE;
/* Rows of n that are not in the copy. */
godwit_status difference_created(godwit *g, const difference *d) MUST_USE;

#endif
