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
} merge_meta;

typedef struct {
    bool exists;        /* a row or a tombstone is known in this scope */
    bool deleted;       /* tombstone */
    bool foreign;       /* the key is taken by another scope's row (exists is then false) */
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
    MERGE_OPEN         /* conflict, manual: theirs stays, a record is opened */
} merge_verdict;

/* One unit's inputs. `old_known` is false where the operation carries no old value (create over an
 * existing row): ABA is then impossible. */
typedef struct {
    merge_policy policy;
    bool newer;            /* some member was written by someone the author had not seen */
    const value *ours, *theirs, *old; /* [count] */
    const bool *old_known; /* [count] */
    size_t count;
    int64_t our_at_ms, their_at_ms;
    slice our_device, their_device;
    int64_t our_seq, their_seq;
} merge_unit;
merge_verdict merge_unit_decide(const merge_unit *unit);

/* newer(c) of semantics 7.2. */
bool merge_newer(const merge_meta *meta, int64_t eff_base, slice device, int64_t seq);

#endif
