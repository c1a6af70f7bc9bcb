/* Insides of settling (semantics 9.3, 10.3), shared by its files:
 *
 *   settle.c         the transaction: seal, take what was answered, write, cursor
 *   settle_touch.c   which rows are concerned, and what the server's image of them is
 *   settle_own.c     outcomes of own operations, the cascade of a refusal
 *   settle_move.c    operations into their new states
 *   settle_write.c   writing the new images; settle_swap.c: when that is not possible in place
 *   image.c          images of rows: from JSON, undo and redo of an operation
 *   apply.c          reading and writing rows of the application's tables */
#ifndef CLIENT_SETTLE_H
#define CLIENT_SETTLE_H

#include "client/count.h"

#define APPLY_SHAPES 12 /* statements kept per table: one per set of columns */

/* A row without its key. values and known: [data_count], by data column. */
typedef struct {
    bool present;
    bool odd; /* a value SQLite may store otherwise than given: read the row after writing */
    value *values;
    bool *known; /* false: not told; a default on insert, untouched on update */
} row_image;

typedef struct {
    char kind; /* 'I' insert, 'U' update; 0 = free */
    uint64_t columns[4];
    sqlite3_stmt *stmt;
} apply_shape;

/* One table of the application while a transaction lasts. */
typedef struct {
    const client_table *t;
    bool missing;    /* the table is gone from the database, or no longer tracked */
    int rank;        /* parents have lower ranks than children */
    int *data_of;    /* [column_count] data column, -1 = key */
    char *affinity;  /* [data_count] B T N I R as SQLite derives it; '?' = can't tell */
    value *fallback; /* [data_count] what a NOT NULL column has in place of NULL; NULL = none */
    sqlite3_stmt *select, *remove;
    sqlite3_stmt **parents; /* [fk_count] */
    apply_shape shapes[APPLY_SHAPES];
    size_t next_shape;
} apply_table;

typedef struct {
    int64_t lsn;
    op_kind kind;
    slice payload, base;
    bool leaves; /* no longer in the overlay after this transaction */
} overlay_op;

typedef enum { CHANGE_NONE, CHANGE_DELTA, CHANGE_FULL, CHANGE_DELETE } change_kind;

/* A row this transaction may have to write. */
typedef struct touched {
    apply_table *table;
    slice id;
    uint64_t hash;
    struct touched *chain;
    value *key;      /* [key_count] */
    size_t order;    /* of first touch */
    overlay_op *ops; /* in lsn order, those that leave included */
    size_t op_count, stay_count;
    row_image local;  /* as the application sees it now; local_known */
    row_image base;   /* the server's image. base_known: complete; else only what `change` told */
    row_image target; /* base + operations that stay */
    bool local_known, base_known, base_stored, target_known;
    change_kind change;
    bool own;        /* an own operation on it was decided */
    bool unresolved; /* base has columns nobody knows (an own REPLACE): needs a snapshot */
    int64_t ver;
    slice vclock;
} touched;

/* What happened to one own operation. */
typedef struct {
    int64_t lsn, seq;
    op_event event;
    op_state from;
    op_outcome outcome;
    slice code, detail; /* of a refusal */
    bool hollow;        /* the decision about a void: nothing of it was in the overlay */
    int64_t commit_seq; /* 0 = unknown */
    touched *row;       /* NULL: no row, or none that has to change */
} own_event;

typedef struct settle {
    godwit *g;
    db *d;
    arena a; /* everything below */
    slice scope, device_id, default_scope;
    apply_table **tables; /* by position in the registry; NULL = not used yet */
    touched **buckets;
    size_t bucket_count; /* power of two */
    touched **rows;      /* in order of first touch */
    size_t row_count, row_cap;
    own_event *events;
    size_t event_count, event_cap;
    int *event_slots; /* hash of lsn -> index + 1 */
    size_t event_slot_count;
    int64_t answered_first, answered_last; /* sequence numbers the push half has answered */
    bool overlay;                          /* some operation is pending or acked */
    bool deletes_parent;                   /* a row other rows may point to goes away */
    bool needs_snapshot;
    bool closes_conflict; /* a conflict is, or came, decided by a person */
    bool staging;               /* a snapshot is being staged: the feed goes there */
    int foreign_keys, triggers; /* the connection's settings before */
    bool app_triggers;          /* triggers of the application's own fire while this writes */
    bool begun;
    int64_t now_ms;
    int64_t acked_seq, next_seq; /* of the identity, as stored */
    int64_t new_acked_seq;
    uint8_t new_acked_key[SHA256_BYTES];
    int64_t cursor_seq; /* before */
    /* called when all operations are in their new states; NULL = nothing more to do */
    godwit_status (*after_moves)(struct settle *s, const void *context);
    const void *context;
    int64_t commit_at_ms, latency_ms; /* of the own commit being taken; -1 = nothing new in it */
    sqlite3_stmt *ops_of_row, *base_of_row, *put_base, *drop_base, *put_row, *drop_row, *move_op,
        *refuse_op;
    settle_counts counts;
} settle;

/* ---- image.c ---- */
godwit_status image_init(arena *a, const client_table *t, row_image *out) MUST_USE;
/* Sets the columns of a JSON object; unknown names and key columns are passed over. INVALID: not
 * values. */
godwit_status image_set(arena *a, const apply_table *table, const json *columns,
                        row_image *image) MUST_USE;
/* Takes an operation's effect back, or makes it. Neither fails because the row is not there. */
godwit_status image_undo(arena *a, const apply_table *table, const overlay_op *op,
                         row_image *image) MUST_USE;
godwit_status image_redo(arena *a, const apply_table *table, const overlay_op *op,
                         row_image *image) MUST_USE;
godwit_status image_copy(arena *a, const client_table *t, const row_image *from,
                         row_image *out) MUST_USE;
bool image_equal(const client_table *t, const row_image *a, const row_image *b);
void image_write_json(bytes *b, const client_table *t, const row_image *image);
bool image_complete(const client_table *t, const row_image *image);

/* ---- apply.c: the key is in `key`; CONSTRAINT where the table refuses ---- */
godwit_status apply_open(settle *s, const client_table *t, apply_table **out) MUST_USE;
void apply_close(settle *s);
godwit_status apply_read(settle *s, apply_table *table, const value *key, row_image *out) MUST_USE;
godwit_status apply_insert(settle *s, apply_table *table, const value *key,
                           const row_image *image) MUST_USE;
/* Writes the known columns in which `to` differs from `from`; both present. */
godwit_status apply_update(settle *s, apply_table *table, const value *key, const row_image *from,
                           const row_image *to) MUST_USE;
godwit_status apply_delete(settle *s, apply_table *table, const value *key) MUST_USE;
/* from -> to by the fitting one of these; nothing when they are equal. */
godwit_status apply_change(settle *s, apply_table *table, const value *key, const row_image *from,
                           const row_image *to) MUST_USE;
/* false: foreign key number fk of the image points to a row that is not there. */
godwit_status apply_parent_exists(settle *s, apply_table *table, size_t fk, const value *key,
                                  const row_image *image, bool *exists) MUST_USE;

/* ---- settle_touch.c ---- */
/* *out NULL: nothing to write for this entity (unknown table, id that does not fit). */
godwit_status settle_touch(settle *s, const client_table *t, slice id, touched **out) MUST_USE;
/* NULL: not touched in this transaction. */
touched *settle_touched(const settle *s, const apply_table *table, slice id);
godwit_status settle_take_change(settle *s, const wire_commit *commit,
                                 const wire_change *change) MUST_USE;
/* One record of the conflict ledger, as it travels. */
godwit_status settle_take_conflict(settle *s, slice conflict_id, const json *columns) MUST_USE;
/* Makes base and target images; call when all changes and events are taken. */
godwit_status settle_images(settle *s) MUST_USE;
godwit_status settle_image_of(settle *s, touched *row) MUST_USE;

/* Nobody has decided the operation yet, or its decision has not been seen in the feed. */
static inline bool settle_undecided(op_state state) {
    return state == OP_PENDING || state == OP_ACKED || state == OP_PARKED;
}

/* ---- settle_own.c ---- */
godwit_status settle_take_results(settle *s, const push_answer *answer, int64_t page_first,
                                  int64_t page_last) MUST_USE;
godwit_status settle_take_own(settle *s, const pull_answer *page) MUST_USE;
/* After a snapshot: retires what is acknowledged at or before the log position seq. */
godwit_status settle_retire_until(settle *s, int64_t seq) MUST_USE;
/* Adds BLOCK events for everything that hard-depends on what was refused; then touches all rows. */
godwit_status settle_cascade(settle *s) MUST_USE;
/* settle_move.c */
godwit_status settle_move_ops(settle *s) MUST_USE;
/* Operations that ended in a conflict wait for nobody once none of their conflicts is open. */
godwit_status settle_end_conflicts(settle *s) MUST_USE;
/* What the server's ledger says about one own operation. */
typedef struct {
    int64_t lsn, commit_seq;
    op_outcome outcome;
    slice code, detail;
} settle_fact;
/* Takes such facts over. in_history: the log position is one of the history they come from, so that
 * what lies before it has its effect in the rows already. */
godwit_status settle_take_facts(settle *s, const settle_fact *facts, size_t count,
                                bool in_history) MUST_USE;
/* Refuses one operation here and now (poison, discard): event REJECT with a code. */
godwit_status settle_refuse(settle *s, int64_t lsn, const char *code, slice detail) MUST_USE;

/* ---- settle_write.c, settle_swap.c ---- */
godwit_status settle_write(settle *s) MUST_USE;
/* What triggers of the application have made of the rows is set right, without triggers. */
godwit_status settle_set_right(settle *s) MUST_USE;
godwit_status settle_swap(settle *s) MUST_USE;
godwit_status settle_check_parents(settle *s) MUST_USE;
godwit_status settle_remember(settle *s) MUST_USE;

/* ---- resolve.c ---- */
/* Columns `resolves` hold ids of conflicts with a space between them, or "revert " and the ids: then the
 * text is cut to the ids. */
bool resolve_is_revert(slice *text);
/* The ids of the open conflicts that operation o has met; NULL: none. */
#define RESOLVE_OPEN_OF_O                                                                          \
    "SELECT group_concat(c.conflict_id, ' ') FROM godwit_conflict AS c WHERE o.state = 'conflict'" \
    " AND c.scope = o.scope AND c.op_key = lower(hex(o.idempotency_key)) AND c.state = 'open'"
/* An operation in conflict is given up: queues a change without effect that closes its open conflicts,
 * if its table is still there. Inside a transaction. */
godwit_status resolve_give_up(godwit *g, int64_t lsn) MUST_USE;

/* ---- settle.c: the frame, used by quarantine.c and bootstrap.c too ---- */
godwit_status settle_open(settle *s, godwit *g, slice scope) MUST_USE; /* begins the transaction */
/* Cascade, images, writing; then commits when status is OK, else rolls back. Returns the final
 * status. */
godwit_status settle_close(settle *s, godwit_status status, settle_counts *counts) MUST_USE;

/* Stores the log position; state "live" also writes the mark that later operations take their base
 * from. */
godwit_status settle_cursor(settle *s, slice text, int64_t seq, int64_t salt,
                            const char *state) MUST_USE;

/* Both halves of an answer in one transaction. pull may be NULL. *applied = the page was applied.
 */
godwit_status settle_answer(godwit *g, slice scope, slice cursor_before, const push_answer *push,
                            const pull_answer *pull, settle_counts *counts) MUST_USE;

#endif
