/* What the files of decide share while one group is decided. For decide*.c only.
 *
 *   decide.c         the context, the stream's checks, decide_group from the outside
 *   decide_input.c   operations read and checked against the registry, before any row is touched
 *   decide_apply.c   create, update, delete: one operation onto the working rows
 *   decide_column.c  units of columns: built, decided, written
 *   decide_custom.c  conflicts that a rule outside decides
 *   decide_record.c  conflict records
 *   decide_unit.c    deletes that stand or fall together
 *   decide_facts.c   what others wrote to the database without asking
 *   decide_family.c  rows that come back with those they refer to
 *   decide_rows.c    working rows: look-up, undo, net change
 */
#ifndef CORE_DECIDE_INNER_H
#define CORE_DECIDE_INNER_H

#include "core/decide.h"
#include "core/limits.h"

/* A row that the group has written, with all that is needed to put it back. */
typedef struct decide_touch {
    decide_row *row;
    merge_row before; /* arrays are copies; NULL when the row was unknown */
    bool *columns;    /* [column_count] written by this group */
    bool full;        /* created, re-created or resurrected: every column is news */
    int64_t seq;      /* the stream's last operation that wrote the row */
    struct decide_touch *next;
} decide_touch;

/* One operation, checked. */
typedef struct {
    const wire_op *op;
    const schema_table *table;
    decide_row *row;
    size_t count;  /* columns of the payload without key and local columns */
    int *columns;  /* [count] */
    value *values; /* [count] */
    value *keys;   /* [key_count], for a create */
    int64_t eff_base;
    int64_t at_ms;
    op_outcome outcome;
    size_t first_conflict, conflict_count; /* its records */
    bool dropped;                          /* a delete whose unit is protected */
    bool protected; /* a delete of a row edited by somebody the author had not seen */
} decide_input;

/* Scratch for one unit of columns; room for the widest table of the group. */
typedef struct {
    merge_unit merge;
    value *ours, *theirs, *old;
    slice rule; /* of policy custom */
    bool *old_known, *carried, *newer;
    int *columns;
    size_t cap;
    int64_t their_commit; /* of the write that counts as theirs */
} decide_columns;

typedef struct {
    decide_context *c;
    const push_request *request;
    slice device; /* empty without a stream */
    int64_t commit, last_at_ms, skew_ms;
    decide_input *inputs;
    size_t count;
    decide_touch *touches, **touch_end;
    size_t touch_count;
    decide_conflict *conflicts;
    size_t conflict_count, conflict_cap;
    decide_columns unit;
    bytes scratch; /* for records only; given back when the group is done */
    /* how the group ended early */
    bool ended;
    op_outcome ended_as; /* rejected or conflict */
    op_code code;
    slice detail;
    size_t ended_at;      /* index of the operation that ended it */
    decide_conflict held; /* the record that held the group; id empty = none */
} decide_work;

/* Ends the group; the first call counts. `outcome` rejected or conflict. */
void decide_end(decide_work *w, const decide_input *in, op_outcome outcome, op_code code,
                const char *detail);
/* ... with the name of a column in the detail, cut to a readable length. */
void decide_end_named(decide_work *w, const decide_input *in, op_code code, const char *what,
                      slice name);

/* Fills w->inputs from the operations; may end the group. */
void decide_read_inputs(decide_work *w, const wire_op *ops);

/* Applies one operation; may end the group. */
void decide_apply(decide_work *w, decide_input *in);
/* The row of a delete has been edited by somebody its author had not seen. */
bool decide_edited(const decide_work *w, const decide_input *in);

/* How columns of an operation meet the row: an ordinary update, or a create over a live row. */
typedef struct {
    bool create;  /* base 0, no old values */
    bool initial; /* the table's initial policy decides, all columns as one unit */
    const char *kind;
} decide_mode;
void decide_write_columns(decide_work *w, decide_input *in, const decide_mode *mode);
/* What the rule of w->unit says about it: its values, or NULL: left to people. */
const value *decide_custom(decide_work *w, const decide_input *in);
/* The record's name of that policy; NULL: the arena failed. */
const char *decide_custom_name(decide_work *w);
static inline const merge_meta *decide_meta(const merge_row *row, int column) {
    return row->meta[column].ver ? &row->meta[column] : &row->created;
}
/* Has somebody the author of `in` had not seen written this? What the group itself wrote is seen,
 * but not what a rule made of it (settle_custom). */
static inline bool decide_newer(const decide_work *w, const merge_meta *meta, int64_t eff_base,
                                int64_t seq) {
    bool own = meta->ver == w->commit && (meta->device.len > 0 || w->device.len == 0);
    return !own && merge_newer(meta, eff_base, w->device, seq);
}

/* Marks the row as written by `in`, keeping its former state. NULL: the arena failed. */
decide_touch *decide_touch_row(decide_work *w, decide_input *in) MUST_USE;
/* Puts every written row back. */
void decide_undo(decide_work *w);
/* Sets versions and clocks of the written rows and lists the net change of each. */
void decide_finish_rows(decide_work *w, decide_commit *out);

/* The value that an operation gives a column; NULL = it does not say. */
const value *decide_carried(const decide_input *in, int column);
/* Deleted by somebody the author had not seen? */
bool decide_deleted_concurrently(const decide_work *w, const decide_input *in);

/* Brings a tombstone back, and what was deleted with it and refers to it; records the latter. */
void decide_lift(decide_work *w, decide_input *in, decide_row *row);
/* Brings the parents of an operation's row back that were deleted meanwhile (lift_parents). */
void decide_lift_parents(decide_work *w, decide_input *in);
/* NULL: NULL, or no such column. */
const value *decide_fk_value(const decide_row *row, const schema_fk *fk, bool of_parent, size_t i);
bool decide_refers(const decide_row *child, const decide_row *parent, const schema_fk *fk);

/* Drops the deletes that belong together with a protected one. */
void decide_delete_units(decide_work *w);

/* Adds a record with kind, policy and winner ("ours", "theirs", "none"; open when "none"). NULL:
 * the arena failed. The images are left to the caller. */
decide_conflict *decide_record(decide_work *w, decide_input *in, const char *kind,
                               const char *policy, const char *winner) MUST_USE;
/* Texts for records: the names of columns, an object of columns, the whole row. Empty when out of
 * memory. `pick` NULL = all count of them. */
slice decide_names_json(decide_work *w, const schema_table *t, const int *columns, const bool *pick,
                        size_t count);
slice decide_values_json(decide_work *w, const schema_table *t, const int *columns,
                         const value *values, const bool *pick, size_t count);
slice decide_row_json(decide_work *w, const schema_table *t, const value *values);
/* Records of a group that is held as a whole: one per operation, open. */
void decide_record_held(decide_work *w, const char *kind);
/* The record of a group that a constraint of the database refused; nothing for other refusals. */
void decide_record_refused(decide_work *w, const decide_refusal *refusal);

#endif
