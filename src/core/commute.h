/* Column types whose concurrent writes commute (semantics 7.5): counter, set, max, min. Pure.
 *
 * An operation says what its author saw and what he left: the value of the column in `base` and in
 * `payload`. What it means follows from the type:
 *
 *   counter  saw 5, left 7         +2 on whatever is there          {"$inc":2} says the same
 *   set      saw [a,b], left [b,c] a goes, c comes                  {"$add":["c"],"$remove":["a"]}
 *   max, min saw 5, left 7         7, unless what is there is beyond
 *
 * So the bytes of an operation do not depend on the type, both sides compute the same from them,
 * and a replica that does not know the type yet only shows another value until the server has
 * decided.
 *
 * A counter is a number (NULL counts as 0). A set is a JSON array of scalars in a TEXT column (NULL
 * is the empty one). A set lives by tags: each addition leaves the tag of its write with the
 * element, a removal takes away the tags its author had seen, and an element is there while it has
 * a tag. So an addition that was not known to the one who removed survives: add wins. */
#ifndef CORE_COMMUTE_H
#define CORE_COMMUTE_H

#include "core/merge.h"

typedef enum {
    COMMUTE_OK,    /* *out is what the column becomes */
    COMMUTE_PLAIN, /* nothing tells a difference: a value like that of any other column */
    COMMUTE_BAD,   /* not a value of the type, or the result would be none */
    COMMUTE_NOMEM
} commute_result;

/* counter and set: every write is a difference. (max and min differ from other columns in
 * conflicts only, see merge.h.) */
static inline bool commute_always(merge_policy policy) {
    return policy == POLICY_COUNTER || policy == POLICY_SET;
}

/* What a new row holds where an operation says `now`: {"$inc":n} and {"$add":[..]} become values.
 * OK or BAD. */
commute_result commute_first(arena *a, merge_policy policy, const value *now, value *out) MUST_USE;

/* Whose write it is, as merge_newer asks. */
typedef struct {
    int64_t commit; /* of the group at hand: what it wrote itself is seen */
    int64_t eff_base, seq;
    slice device;
} commute_author;

/* One write of a set on the server. `tags`: as kept with the column, empty = every element has the
 * tag `inherited` (the column's last write). *tags_out: the new tags. old NULL = empty. */
typedef struct {
    const value *present, *old, *now;
    slice tags;
    const merge_meta *inherited;
    commute_author author;
} commute_set_write;
commute_result commute_set(arena *a, const commute_set_write *write, value *out,
                           slice *tags_out) MUST_USE;

/* One write of a counter. old NULL: not known, then only {"$inc":n} is a difference. */
commute_result commute_counter(const value *present, const value *old, const value *now,
                               value *out) MUST_USE;

/* What a replica shows: an operation that is waiting, over the server's value. Every addition is
 * seen. PLAIN for other policies, and for values that are none of the type. */
commute_result commute_replay(arena *a, merge_policy policy, const value *present, const value *old,
                              const value *now, value *out) MUST_USE;

#endif
