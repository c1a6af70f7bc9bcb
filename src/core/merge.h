/* (base, ours, theirs, policy) -> verdict, unit by unit (semantics 7.1 to 7.4). Pure.
 *
 * "theirs" is the row as the server has it, "ours" the operation. A unit is one column, a column
 * group, or the whole row where the table is row-atomic. */
#ifndef CORE_MERGE_H
#define CORE_MERGE_H

#include "core/schema.h"
#include "core/value.h"

/* Who wrote a column last. */
typedef struct {
    int64_t ver;   /* commit number; 0 = not recorded on its own: see merge_row.created */
    int64_t at_ms; /* corrected time */
    slice device;  /* empty = the server or a writer without a stream */
    int64_t seq;   /* of that device's stream */
    slice tags;    /* set columns: which write added which element, see commute.h; else empty */
} merge_meta;

typedef struct {
    bool exists;  /* a row or a tombstone is known in this scope */
    bool deleted; /* tombstone */
    bool foreign; /* the key is taken by another scope's row (exists is then false) */
    int64_t ver, created_ver, del_ver;
    int gen;
    slice del_device;
    merge_meta created; /* of columns without an entry of their own */
    value *values;      /* [column_count], key columns too; of a tombstone the salvage image */
    merge_meta *meta;   /* [column_count] */
} merge_row;

typedef enum {
    MERGE_CAUSAL,      /* nobody else wrote since the author looked: ours */
    MERGE_AGREE,       /* both wrote the same: keep */
    MERGE_ABA,         /* theirs is what the author started from: ours */
    MERGE_COMMUTATIVE, /* a type rule combined both */
    MERGE_OURS,        /* conflict, policy chose ours */
    MERGE_THEIRS,      /* conflict, policy chose theirs */
    MERGE_OPEN,        /* conflict, manual: theirs stays, a record is opened */
    MERGE_HOLD,        /* conflict, hold_group: the same for all that was committed together */
    MERGE_ASK          /* conflict, custom: a rule that is not ours decides */
} merge_verdict;

/* One unit's inputs. A member the operation does not write and nobody else has written since has
 * its current value on all three sides. `old_known` is false where the operation carries no old
 * value (create over an existing row): ABA is then impossible.
 *
 * `incomplete`: somebody the author had not seen wrote a member that the operation says nothing
 * about, so the author's version of the unit can't be built, and taking half of it would make a
 * unit that nobody ever saw. Ours can't win then; the record keeps it. */
typedef struct {
    merge_policy policy;
    bool newer; /* some member was written by someone the author had not seen */
    bool incomplete;
    const value *ours, *theirs, *old; /* [count] */
    const bool *old_known;            /* [count] */
    size_t count;
    int64_t our_at_ms, their_at_ms;
    slice our_device, their_device;
    int64_t our_seq, their_seq;
} merge_unit;
/* The table of semantics 7.2, top down. POLICY_MAX and POLICY_MIN (units of one column) give
 * COMMUTATIVE when ours is the new extreme, else THEIRS; in larger units, and for a counter or a set
 * of which the operation tells no difference, the order of writes (lww) decides. */
merge_verdict merge_unit_decide(const merge_unit *unit);

/* Order of two writes under lww: by (at_ms, device, seq). > 0: the first wins. */
int merge_write_order(int64_t at_ms, slice device, int64_t seq, int64_t other_at_ms,
                      slice other_device, int64_t other_seq);
/* SQLite's order of values: NULL < INTEGER and REAL by size < TEXT < BLOB, both by bytes. NaN is
 * below every number. 0 for values that are equal as numbers although not value_equal (1 and 1.0).
 */
int merge_value_order(const value *a, const value *b);
/* POLICY_MAX, POLICY_MIN: is ours beyond theirs? NULL says nothing and never displaces a value. */
bool merge_extreme(merge_policy policy, const value *ours, const value *theirs);
const char *merge_policy_name(merge_policy policy);    /* "lww" "server_wins" .. */
const char *merge_verdict_name(merge_verdict verdict); /* "causal" "agree" .. */

/* newer(c) of semantics 7.2. */
bool merge_newer(const merge_meta *meta, int64_t eff_base, slice device, int64_t seq);

#endif
