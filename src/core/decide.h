/* The server's whole decision about a batch: loaded context and groups in, plan out. Pure.
 *
 *   load (store) -> decide_stream: may this push go on at all, which operations are new
 *                -> decide_group, group by group, in order: mutates the working rows, writes a
 * commit
 *                -> save (store): rows, metadata, feed, ledger, conflicts, head, device
 *
 * A constraint violation while saving is answered by rolling the database back to before the group,
 * reloading its rows (values, metadata and clock) into the same decide_row objects, putting c->head
 * and *device back to what they were, and calling decide_group again with `forced`. Everything is
 * allocated in the context's arena. Nothing here reads a clock or randomness: now_ms is given,
 * commit salts are the store's. */
#ifndef CORE_DECIDE_H
#define CORE_DECIDE_H

#include "core/ask.h"
#include "core/clock.h"
#include "core/merge.h"
#include "core/wire.h"

/* A row some operation of the batch touches. The loader fills everything down to `clock`; decide
 * changes `row`, `clock` and what is below. */
typedef struct decide_row {
    const schema_table *table;
    slice id;           /* entityId */
    merge_row row;      /* as loaded, then as it must become */
    vclock clock;       /* as loaded, then as it must become */
    slice row_scope;    /* for a row with `exists`: its scope (always the context's) */
    bool typed;         /* the typed table has this row now (kept true by the store after saves) */
    unsigned unwritten; /* the store's own: changes that it has not written yet .. */
    bool unsettled;     /* .. and may be stored as something else than planned */
    bool recorded;      /* it has a record of the row */
    struct decide_row *next;    /* hash chain, decide's own */
    struct decide_touch *touch; /* while a group writes the row: decide's own, else NULL */
    size_t change; /* decide's own: place in the changes of the commit that wrote it last */
} decide_row;

typedef struct {
    int64_t seq, salt;
} decide_salt;

typedef enum { DEVICE_ACTIVE, DEVICE_FORKED, DEVICE_RETIRED, DEVICE_REVOKED } device_state;
typedef struct {
    slice device_id, user_id, lineage;
    device_state state;
    int64_t applied_seq, confirmed_seq;
    uint8_t last_key[SHA256_BYTES];
    bool has_last_key;    /* false before the first operation */
    int64_t last_at_ms;   /* corrected time of its last operation: at_ms never goes back */
    int64_t last_seen_ms; /* as loaded; nothing is decided by it */
} decide_device;

/* What the ledger says about an operation of the request that was decided before. */
typedef struct {
    bool found;
    uint8_t key[SHA256_BYTES];
    int64_t commit_seq;
    op_outcome outcome;
    op_code code;
    slice detail;
    slice result;    /* stored result JSON (the row); empty when purged or none */
    slice conflicts; /* stored ids of its conflict records, JSON array; empty when none */
} decide_ledger;

typedef struct {
    arena *a;
    const schema *schema;
    slice scope;
    int64_t head, ledger_floor, horizon;
    int64_t now_ms;
    int64_t salt; /* random: conflicts of another history with the same number have another name */
    const decide_salt
        *salts; /* commits named as bases by the request that exist here, sorted by seq */
    size_t salt_count;
    decide_row **buckets; /* see decide_row_of */
    size_t bucket_count, row_count;
    uint64_t hash_seed; /* anything callers can't guess; does not change what is decided */
    bool lift_parents;  /* deleted parents of the rows at hand are loaded: they may come back */
    ask_list *asks; /* what rules outside have answered; gets what is missing. NULL: none of them is
                       asked, and policy custom is as manual */
    bool dev_accept_all; /* unused columns are refused by name either way */
    slice last_entity;   /* decide's own: the table found last */
    const schema_table *last_table;
} decide_context;

/* Prepares the row table for about row_hint rows. NOMEM. */
godwit_status decide_init(decide_context *c, size_t row_hint) MUST_USE;
/* Finds or adds (zeroed, table and id set, values and meta allocated) the working row. `id` must
 * live as long as the context. NULL when the arena failed. */
decide_row *decide_row_of(decide_context *c, const schema_table *t, slice id);
/* NULL when there is none. */
decide_row *decide_row_find(const decide_context *c, const schema_table *t, slice id);

/* Request-level verdict of a push with stream fields. */
typedef enum {
    STREAM_OK,
    STREAM_FORBIDDEN_DEVICE, /* the device belongs to another user */
    STREAM_REVOKED,
    STREAM_RETIRED,
    STREAM_FORKED,
    STREAM_GAP,
    STREAM_REGRESSED
} stream_verdict;
/* What is known from the device alone, whatever it asks: another user's, revoked, retired, forked.
 */
stream_verdict decide_caller(const decide_device *device, slice user_id);
/* by_seq[i]: the ledger row (scope, device, seq) of request->ops[i] (found only for re-sent ones).
 * A re-sent operation without a ledger row, with another key, or in a group that reaches over the
 * watermark belongs to another history: FORKED. A request without operations and with first_seq 0
 * names no place in the stream and is checked for the device and acked_seq only. */
stream_verdict decide_stream(const decide_context *c, const decide_device *device, slice user_id,
                             const push_request *request, const decide_ledger *by_seq);

typedef struct {
    decide_row *row;
    bool is_delete;
    bool full;          /* first version of the row: every column is in the change */
    bool *columns;      /* [column_count] which columns changed (key columns never, unless full) */
    const bool *given;  /* full: columns that were given a value; the others take their default */
    int64_t prev_seq;   /* the row's version before this commit, 0 = none */
    slice clock_json;   /* vector clock after the change */
    slice columns_json; /* set by the store at save: what the database really holds; empty for
                           delete */
} decide_change;

typedef struct {
    slice id; /* conflict id, from commit number and index: stable under replay */
    const schema_table *table;
    slice entity_id;
    slice kind;        /* theirs_ours: field | delete_update | update_delete | create_create |
                          delete_create; held whole: held | lost_base | row_gone | unverifiable | check;
                          refused: unique | fk | check */
    const wire_op *op; /* ours */
    int64_t our_at_ms, our_base; /* its corrected time; what its author had seen */
    int64_t their_commit;        /* in which theirs was written last, 0 = there is none */
    slice their_clock;           /* the row's vector clock before */
    slice writers;      /* set by the caller of decide: who, when, with which clocks, as JSON */
    slice columns_json; /* ["title"]; [] where the whole row is meant */
    slice base, theirs, ours, chosen; /* JSON objects; empty = null */
    slice policy; /* lww, server_wins, .., edit_wins, delete_wins, keep_server, .., recreate */
    slice winner; /* ours | theirs | merged | none */
    bool open;    /* state open (manual), else auto */
} decide_conflict;

typedef struct {
    const wire_op *op;
    op_outcome outcome;
    op_code code;         /* CODE_NONE when it had effect */
    slice detail;         /* for people; no values of rows the caller may not see */
    decide_row *row;      /* the row the operation left behind; NULL = none (deleted, rejected) */
    slice result;         /* result JSON: copied (duplicate) or set by the store at save */
    int64_t first_commit; /* duplicate: the commit of the first decision, else 0 */
    slice conflicts_json; /* ["c-..",..] or empty */
    slice clock_json;
} decide_result;

typedef struct {
    int64_t commit_seq;
    int64_t at_ms;      /* = context now_ms */
    op_outcome outcome; /* duplicate: `results` hold the first decision's outcome and code */
    int64_t first_seq, last_seq; /* 0, 0 for a group without a stream */
    decide_result *results;      /* one per operation, in order */
    size_t result_count;
    decide_change *changes; /* net change per row, in the order first touched */
    size_t change_count;
    decide_conflict *conflicts;
    size_t conflict_count;
} decide_commit;

/* A refusal the store found while saving. */
typedef struct {
    op_code code;
    slice detail;
    size_t op_index; /* within the group: which operation hit it (best effort) */
} decide_refusal;

/* Decides one group: `ops` are count operations that share a group, all new to the stream. `by_key`
 * are their ledger rows found by (lineage, lsn) whose key is equal (re-keyed operations), or NULL.
 * `dep_failed` is the caller's finding that some dependency (a seq in dependsOn) was decided
 * without effect. `forced` non-NULL: refuse with it. Advances c->head and *device (NULL only
 * without a stream). Values in the result are borrowed from the request, the loaded rows and the
 * arena. NOMEM is the only failure; the context is then of no further use.
 * With c->asks->waiting afterwards the decision is not one: it has taken the answers that are
 * missing for MANUAL, so that later groups may say what they miss, and must not be saved.
 *
 *   all keys known                                     -> duplicate: the first decision is copied
 *   forced, void, failed dependency, malformed         -> rejected, nothing of the group applies
 *   forced by a CHECK that only the merged row fails   -> conflict (check-failed), nothing applies
 *   policy hold_group                                  -> conflict (held), nothing applies
 *   some keys known; re-keyed below the ledger's floor -> conflict (unverifiable), nothing applies
 *   update of a row whose base this history lacks      -> conflict (lost-base), nothing applies
 *   otherwise each operation by semantics 7.2 to 7.4; a refusal of one undoes and rejects all
 *
 * Of a refused group the operation that ended it has the code, the others dependency-failed. Values
 * for columns that the server maintains itself (schema_column.local) are ignored. */
godwit_status decide_group(decide_context *c, decide_device *device, const push_request *request,
                           const wire_op *ops, size_t count, const decide_ledger *by_key,
                           bool dep_failed, const decide_refusal *forced,
                           decide_commit *out) MUST_USE;

/* What somebody else did to a row of the database, without asking. */
typedef struct {
    decide_row *row;     /* loaded */
    bool is_delete;      /* values: the row before it, else after it */
    bool whole;          /* which columns changed is not known: take them all */
    const bool *columns; /* [column_count] */
    const value *values; /* [column_count] */
} decide_fact;
/* Takes facts over as one commit, in their order; a row may come twice. Nothing is refused. A
 * commit without changes is none: c->head stays. at_ms: when they were made. NOMEM. */
godwit_status decide_facts(decide_context *c, const decide_fact *facts, size_t count, int64_t at_ms,
                           decide_commit *out) MUST_USE;

/* The table a foreign key refers to; NULL when it is not synced. */
const schema_table *decide_parent_table(const decide_context *c, const schema_fk *fk);
/* entityId of the parent that a foreign key's values name. `values`: [fk->count]. ptr NULL: they
 * name none, or not by its primary key. */
slice decide_parent_id(arena *a, const schema_table *parent, const schema_fk *fk,
                       const value *const *values);

/* base.seq if that commit exists here with that salt, else 0. A group without a stream gives
 * baseSeq directly: absent = the current row (nothing is concurrent), a number that is not here yet
 * = 0. */
int64_t decide_effective_base(const decide_context *c, const wire_op *op);

#endif
