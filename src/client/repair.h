/* Insides of dealing with refused operations, shared by repair.c (which of them, in which order)
 * and repair_redo.c (making one change again). */
#ifndef CLIENT_REPAIR_H
#define CLIENT_REPAIR_H

#include "client/settle.h"

/* What makes an operation `o` one of godwit_dead_letters. */
#define LETTER_OF_O                                                                                \
    "o.state IN ('rejected', 'blocked', 'conflict') AND NOT EXISTS (SELECT 1 FROM godwit_outcome"  \
    " AS x WHERE x.lsn = o.lsn AND x.resolution IS NOT NULL)"

/* One refused operation that nobody has dealt with. */
typedef struct {
    int64_t lsn, new_lsn; /* new_lsn 0: not made again */
    slice id, scope;
    int64_t tbl, sequence_number, group_first;
    slice device_id;
    op_state state;
    bool held_back;  /* refused only because of another one */
    slice payload;   /* instead of its own; ptr NULL = its own */
    bool named;      /* by the caller, not drawn in */
    bool row_wanted; /* NOT_FOUND unless the row is there: else it would be made of what is known */
    size_t group;    /* index of its group */
} letter;

/* Makes the change of one operation again: brings the local row in line and writes the log.
 * CONSTRAINT: the application's table refuses it. */
godwit_status repair_redo(settle *s, letter *l) MUST_USE;
/* After a group was made again: every row it wrote has its parents. */
godwit_status repair_check_parents(settle *s, const letter *l) MUST_USE;
/* Operations that a restored server could not judge (lost-base) are made again, each once, when
 * their row is there again. Takes a transaction only where there are any. */
godwit_status repair_lost_bases(godwit *g) MUST_USE;

#endif
