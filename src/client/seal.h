/* Insides of sealing, shared by seal.c (reading the log, groups), seal_group.c (coalescing),
 * seal_op.c (an operation's bytes and row) and seal_look.c (what else must be known about a row).
 */
#ifndef CLIENT_SEAL_H
#define CLIENT_SEAL_H

#include "client/count.h"

#define SEAL_WORDS         4 /* 63 columns each, as in the log */
#define SEAL_LOOK_BITS_MIN 10
#define SEAL_LOOK_BITS_MAX 23 /* bloom filters of at most 1 MiB */

/* One captured change, or several of one row coalesced into one. Values are NULL where the mask has
 * no bit; `now` is NULL for a delete, `old` for a create. */
typedef struct {
    int64_t lsn, nonce, wall_ms;
    const client_table *t;
    op_kind kind;
    bool dropped;        /* coalesced away */
    bool replaces;       /* create of a live row: goes as an update of all columns without base */
    bool baseless;       /* delete of a row whose old values nobody captured */
    const char *refused; /* code of a value that can't travel, or NULL */
    slice id;            /* entityId */
    value *key;          /* [key_count] */
    value *now, *old;    /* [data_count] */
    uint64_t mask[SEAL_WORDS];
    slice payload;                          /* of an entity without a table */
    slice client_key, depends_on, resolves; /* hint; ptr NULL = none */
    bool hinted;
    size_t raw_bytes;
    uint64_t hash; /* of (table, id) */
    int next;      /* hash chain while coalescing */
} seal_row;

/* What is known about one scope during a run. */
typedef struct {
    slice scope, device_id;
    int64_t next_seq;
    int64_t base_seq, base_salt, base_until; /* base of operations with lsn <= base_until */
    bool base_known;
    bool overlay;        /* operations existed before the run that the filters do not know */
    int64_t group_first; /* while a group is written */
    int64_t group_size;
} seal_scope;

/* What is known about one table during a run. */
typedef struct {
    slice *names;                 /* [data_count] quoted name and colon, as JSON */
    slice *key_names;             /* [key_count] */
    bool rows_known, rows;        /* godwit_row has rows of the table */
    bool order_known, order[252]; /* columns whose changes must keep their order: UNIQUE or FK */
} seal_table;

typedef struct {
    godwit *g;
    arena run;   /* lives as long as the run */
    arena group; /* reset after each group */
    sqlite3_stmt *log, *ranges, *hints, *insert, *row_ops, *row_known, *add_dep;
    int at_v[252], at_o[252], at_k[16], at_m[SEAL_WORDS]; /* columns of `log`, -1 = none */
    int at_op, at_tbl, at_pk, at_mask, at_wall, at_nonce;
    int64_t made[OP_STATE_COUNT]; /* operations, by the state they begin in */
    slice lineage, default_scope;
    seal_scope *scopes;
    size_t scope_count, scope_cap;
    seal_table *tables;      /* by position in the registry */
    uint8_t *seen, *created; /* bloom filters over rows sealed in this run */
    bool queue_seen;         /* and over those of all operations before it */
    int look_bits;           /* log2 of their size in bits */
    bytes payload, base;
    const char *bound; /* the scope whose values `insert` holds */
    seal_row *rows;    /* of the group at hand */
    size_t row_count, row_cap;
    int64_t first_lsn; /* of the group at hand */
    int64_t sealed;    /* operations written or dropped so far: captured rows read */
    int64_t forgotten; /* of them, those the log has forgotten */
    int64_t sealed_lsn;
    bool range_open, hint_open; /* the statement stands on a row */
    int64_t range_first, range_last, hint_lsn;
} seal_run_state;

/* seal_group.c: coalesces rows[0..row_count); dropped rows are marked. */
godwit_status seal_coalesce(seal_run_state *s) MUST_USE;

/* seal_op.c: writes the group at hand as operations, split by scope. */
godwit_status seal_write_group(seal_run_state *s) MUST_USE;

/* seal_look.c */
godwit_status seal_scope_of(seal_run_state *s, const seal_row *row, seal_scope **out) MUST_USE;
godwit_status seal_base(seal_run_state *s, seal_scope *scope, int64_t lsn) MUST_USE;
/* true: server or queue have the row as live, so a create of it is a REPLACE. */
godwit_status seal_is_live(seal_run_state *s, const seal_scope *scope, const seal_row *row,
                           bool *live) MUST_USE;
/* lsn of the pending create of a row outside the group at hand, 0 = none. */
godwit_status seal_pending_create(seal_run_state *s, const seal_scope *scope, int64_t tbl, slice id,
                                  int64_t *lsn) MUST_USE;
/* The row with this hash has an operation now; create: one that may have made it. */
void seal_remember(seal_run_state *s, uint64_t hash, bool create);
/* Hard dependencies of an operation (semantics 5.4): lsns without repetition, at most DEPENDS_MAX.
 */
godwit_status seal_dependencies(seal_run_state *s, const seal_scope *scope, const seal_row *row,
                                int64_t *lsns, size_t *count) MUST_USE;
/* Fills tables[].order for the row's table. */
godwit_status seal_order_columns(seal_run_state *s, const client_table *t) MUST_USE;
seal_table *seal_table_of(seal_run_state *s, const client_table *t);

static inline bool seal_bit(const uint64_t mask[SEAL_WORDS], size_t i) {
    return mask[i / 63] >> (i % 63) & 1;
}
static inline void seal_set_bit(uint64_t mask[SEAL_WORDS], size_t i) {
    mask[i / 63] |= UINT64_C(1) << (i % 63);
}

/* seal_find.c: the lsn of an operation from its public id, sealed or not; NOT_FOUND. */
godwit_status seal_find(godwit *g, slice id, int64_t *lsn) MUST_USE;

#endif
