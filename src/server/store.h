/* The storage contract of the server: domain verbs over batches, not another SQL interface.
 *
 * Which store it is shows when it is opened (store.c); what a store brings is listed in
 * store_verbs.h.
 *
 * A store has one writing side (`store`, used by one thread at a time) and any number of reading
 * sides
 * (`store_reader`, one thread each). Every rule about what an operation means is in core/decide; a
 * store only loads what decide needs, keeps what decide planned, and says which constraint refused.
 * Two stores given the same calls must give the same answers.
 *
 *   store_begin
 *     store_scope_load            locks the scope: this is the only lock
 *     store_devices_load, store_ledger_*, store_salts_load, store_rows_load
 *     store_savepoint
 *       store_rows_settle, decide_group, store_group_save ..  GODWIT_CONSTRAINT: *refusal says why
 *       store_flush
 *     store_release | store_rollback_to
 *     store_devices_save, store_scope_save
 *   store_commit | store_rollback
 *
 * All slices handed out live in the arena given, or until the next call where the comment says so.
 */
#ifndef SERVER_STORE_H
#define SERVER_STORE_H

#include "core/decide.h"
#include "core/limits.h"
#include "core/retain.h"

typedef struct store store;
typedef struct store_reader store_reader;
typedef struct store_signal store_signal;
/* What a store knows about the tables of one registry besides the registry itself. Immutable. */
typedef struct store_tables store_tables;

/* ---- life ---- */

/* Opens or creates the store: a folder (SQLite), or postgres://.. (PostgreSQL). message: at least
 * 512 bytes, receives the reason. */
godwit_status store_open(const char *where, store **out, char *message) MUST_USE;
/* Large sorts put their temporary files there from now on; once per process, before store_open. */
godwit_status store_temporary_folder(const char *path) MUST_USE;
void store_close(store *st);
/* Text about the last failure, without values. */
const char *store_message(const store *st);

/* ---- tables ---- */

/* Creates the tables, indexes, triggers and views of an SQL text that are not there yet, and adds
 * columns its tables gained. All its tables with a primary key become tracked. INVALID: message. */
godwit_status store_schema_file(store *st, const char *path, char *message) MUST_USE;
/* Creates or widens tables as a device declared them (semantics 13.7) inside the open transaction.
 * INVALID: store_message names the table or column. */
godwit_status store_schema_adopt(store *st, const schema *declared, bool *changed) MUST_USE;
/* Renames a column where the table is tracked, has `from` and lacks `to`; else does nothing. */
godwit_status store_column_rename(store *st, slice table, slice from, slice to) MUST_USE;
/* Reads the tracked tables as they are now: names, columns, keys, foreign keys; policies are left
 * at their defaults. Everything in `a`. version grows with every change of the tables. */
godwit_status store_schema_read(store *st, arena *a, schema *out) MUST_USE;
/* Prepares for a registry; `all` and the result live in `a`. */
godwit_status store_tables_build(store *st, arena *a, const schema *all,
                                 store_tables **out) MUST_USE;
/* The writing side works with these tables from now on. They must outlive the store. */
godwit_status store_use(store *st, const store_tables *tables) MUST_USE;

/* The store's own id, 32 hex digits, made the first time it is asked for; a copy has the same.
 * Outside a transaction. */
godwit_status store_id(store *st, char out[33]) MUST_USE;

/* ---- whose rights decide about rows ---- */

/* A role of the database and the token's claims, which its policies look at. */
typedef struct {
    slice name; /* empty = the store's own rights, which are all */
    slice claims;
    bool state; /* of reads: a change shows its row as it is now */
} store_role;
/* Until the next call, or store_begin, tracked rows are read and written as this role. Slices are
 * borrowed until then. What it may not see is as good as another scope's; what it may not write is
 * refused (CONSTRAINT, forbidden). Changes and conflicts read are those of rows it may see; a row
 * that went out of its sight by a change reads as deleted. */
void store_write_as(store *st, const store_role *role);
void store_read_as(store_reader *r, const store_role *role);
/* Whether the roles are there and policies hold for them. INVALID: message; UNSUPPORTED: the store
 * has no roles. */
godwit_status store_roles_check(store *st, const slice *roles, size_t count,
                                char *message) MUST_USE;

/* ---- transactions of the writing side ---- */

godwit_status store_begin(store *st) MUST_USE;
godwit_status
store_commit(store *st) MUST_USE; /* failure: call store_rollback; the effect is unknown */
void store_rollback(store *st);
godwit_status store_savepoint(store *st) MUST_USE; /* nests */
void store_rollback_to(store *st);                 /* undoes and closes the innermost savepoint */
godwit_status store_release(store *st) MUST_USE;

typedef struct {
    int64_t seq, salt, at_ms, first_seq, last_seq;
    slice device_id, user_id;
    op_outcome outcome;
} store_commit_row;

/* ---- load ---- */

typedef struct {
    bool exists;
    int64_t head, horizon, ledger_floor;
    int64_t salt; /* of store_scope_load: random, another one each time */
} store_scope;
godwit_status store_scope_load(store *st, slice scope, store_scope *out) MUST_USE;
/* NOT_FOUND when the device is not registered in the scope. */
godwit_status store_device_load(store *st, arena *a, slice scope, slice device_id,
                                decide_device *out) MUST_USE;
/* Several at once; out[i].device_id is empty where ids[i] is not registered. No id comes twice. */
godwit_status store_devices_load(store *st, arena *a, slice scope, const slice *ids, size_t count,
                                 decide_device *out) MUST_USE;
/* Ledger rows of ops[i] by (scope, device, ops[i].seq); out[i].found says whether there was one. */
godwit_status store_ledger_by_seq(store *st, arena *a, slice scope, slice device_id,
                                  const wire_op *ops, size_t count, decide_ledger *out) MUST_USE;
/* Ledger rows of ops[i] by (scope, lineage, lsn) whose key is equal. *any: whether one was found.
 */
godwit_status store_ledger_by_origin(store *st, arena *a, slice scope, const wire_op *ops,
                                     size_t count, decide_ledger *out, bool *any) MUST_USE;
/* Outcome of one decided operation; NOT_FOUND. */
godwit_status store_outcome(store *st, slice scope, slice device_id, int64_t seq,
                            op_outcome *outcome, op_code *code) MUST_USE;
/* Salts of the commits named by `seqs` (sorted, distinct) that exist; *found of them in out. */
godwit_status store_salts_load(store *st, slice scope, const int64_t *seqs, size_t count,
                               decide_salt *out, size_t *found) MUST_USE;
/* (Re)loads working rows. BUSY: somebody else is writing one of them, or has and it was not taken
 * over yet (store_outbox_take); go back, and try again. exact: also look for keys taken by another
 * scope, which the fast way finds only as a constraint that fails at saving. */
godwit_status store_rows_load(store *st, decide_context *c, decide_row *const *rows, size_t count,
                              bool exact) MUST_USE;

/* Of rows that others may have changed since: what is known of them, without their values. */
godwit_status store_rows_known(store *st, decide_context *c, decide_row *const *rows,
                               size_t count) MUST_USE;

/* Whether the scope has a conflict record of this id about this row (table: its own name). */
godwit_status store_conflict_known(store *st, slice scope, slice id, slice table, slice entity_id,
                                   bool *known) MUST_USE;
/* One commit, its texts copied; NOT_FOUND. */
godwit_status store_commit_load(store *st, arena *a, slice scope, int64_t seq,
                                store_commit_row *out) MUST_USE;
/* The rows that a commit has deleted, in the order of its changes. */
typedef struct {
    slice table, id;
} store_key;
godwit_status store_deleted_load(store *st, arena *a, slice scope, int64_t seq, store_key **out,
                                 size_t *count) MUST_USE;

/* ---- save ---- */

typedef struct {
    slice scope, device_id, user_id; /* device_id may be empty: a caller without one */
    bool stream;                     /* ledger rows are written */
    bool elsewhere;                  /* the tables hold it already: decide_facts */
    int64_t now_ms;
} store_author;
/* Writes one decided group: typed rows, metadata, feed, ledger, conflicts; a record that an
 * operation with effect resolves (wire_op.resolves) is marked, unless a person decided it before:
 * reverted where it was decided by a policy and the operation says so, else resolved.
 * Sets columns_json of its changes and `result` of its results (without one yet) to what the
 * database holds; row values are replaced by the stored ones. CONSTRAINT: *refusal is set (detail
 * in the context's arena), the caller rolls back. */
godwit_status store_group_save(store *st, decide_context *c, const store_author *author,
                               const wire_op *ops, decide_commit *commit,
                               decide_refusal *refusal) MUST_USE;
/* A store may keep groups that are saved and write them together. Until they are written the
 * columns_json and `result` of their plan may be missing, and row values may be other than what the
 * database will make of them.
 *
 * Called before a group is decided: the rows of its operations become what the database holds. */
godwit_status store_rows_settle(store *st, const decide_context *c, const wire_op *ops,
                                size_t count, decide_refusal *refusal) MUST_USE;
/* Writes what is kept; called before a savepoint is released. Both: CONSTRAINT as above, on behalf
 * of some group saved since the savepoint. */
godwit_status store_flush(store *st, decide_refusal *refusal) MUST_USE;
/* What a push leaves of its device. */
typedef struct {
    const decide_device *device;
    int64_t pulled_seq; /* the position it has reported, -1 = none */
    slice report;       /* JSON object; empty = the one before */
} store_standing;
/* No device comes twice. */
godwit_status store_devices_save(store *st, slice scope, const store_standing *list, size_t count,
                                 int64_t now_ms) MUST_USE;
/* It has pulled: positions as above, -1 = none; neither goes back. report: JSON object, empty = the
 * one before. Nothing for one that is not active. */
godwit_status store_device_seen(store *st, slice scope, slice device_id, int64_t pulled_seq,
                                int64_t confirmed_seq, int64_t now_ms, slice report) MUST_USE;
godwit_status store_scope_save(store *st, slice scope, const store_scope *state,
                               int64_t head) MUST_USE;
godwit_status store_device_insert(store *st, slice scope, const decide_device *device, slice label,
                                  int64_t now_ms) MUST_USE;

/* ---- writes from elsewhere, which a store may note (PostgreSQL: semantics 6) ---- */

/* One row that somebody else wrote. */
typedef struct {
    int64_t id;
    slice transaction, actor;
    int64_t at_ms;
    const schema_table *table;
    slice entity_id;
    bool is_delete, whole; /* as in decide_fact */
    bool *columns;         /* [column_count] */
    value *values;         /* [column_count] */
    slice scope;           /* where the row is known; empty = nowhere. The caller corrects it. */
} store_fact;
/* Is there something? Outside a transaction. UNSUPPORTED: this store notes nothing. */
godwit_status store_outbox_any(store *st, bool *any) MUST_USE;
/* The oldest, at most `max`: whole transactions in the order of their commits, unless one has more.
 * None where another server is at it. CONSTRAINT: one of them can not be read any more; with max 1
 * it comes as one of no table. */
godwit_status store_outbox_take(store *st, arena *a, size_t max, store_fact **out,
                                size_t *count) MUST_USE;
/* They have been dealt with; those without a scope are kept aside until the next start. */
godwit_status store_outbox_done(store *st, const store_fact *facts, size_t count) MUST_USE;
/* What was kept aside has another chance. Outside a transaction. */
godwit_status store_outbox_again(store *st) MUST_USE;

/* ---- word of other processes that write to the same store: hints, the heads are the truth ---- */

/* One per thread. UNSUPPORTED: no other process writes to this store. */
godwit_status store_signal_open(store *st, store_signal **out) MUST_USE;
void store_signal_close(store_signal *g);
/* Tells the others that these scopes have moved; an empty name: any may have. IO: nobody heard. */
godwit_status store_signal_send(store_signal *g, const slice *scopes, size_t count) MUST_USE;
/* moved[i]: the scope's head is another than heads[i], which it replaces. One question for all. */
godwit_status store_signal_heads(store_signal *g, const slice *scopes, int64_t *heads, bool *moved,
                                 size_t count) MUST_USE;
/* Somebody says that the scope has moved; empty: any may have. */
typedef void (*store_heard_fn)(void *context, slice scope);
/* Waits for word, but no longer than timeout_ms, nor when wake_fd can be read. OK: what is said is
 * heard | IO: not now | UNSUPPORTED: it can't be heard here. May take some seconds to connect. */
godwit_status store_signal_wait(store_signal *g, int wake_fd, int64_t timeout_ms,
                                store_heard_fn heard, void *context) MUST_USE;

/* ---- devices, for operators ---- */

typedef struct {
    slice scope, device_id, user_id, label;
    device_state state;
    int64_t registered_ms, last_seen_ms, applied_seq, pulled_seq;
} store_device_row;
const char *store_device_state_name(device_state state); /* "active" .. "revoked" */
/* And back; what is not known is not let in: DEVICE_REVOKED. */
device_state store_device_state_of(slice name);
/* All devices by scope and id; scope empty = of every scope. */
godwit_status store_devices(store *st, arena *a, slice scope, store_device_row **out,
                            size_t *count) MUST_USE;
/* Inside a transaction: the device in one scope, or with scope empty in all it is in. *changed: how
 * many rows have another state now; NOT_FOUND: there is no such device. */
godwit_status store_device_mark(store *st, slice scope, slice device_id, device_state state,
                                int64_t *changed) MUST_USE;

/* Keys of callers without a stream. fingerprint: SHA-256 of the content. */
typedef struct {
    bool found;
    uint8_t fingerprint[SHA256_BYTES];
    slice response;
} store_idem;
/* out[i]: what is kept by keys[i]. */
godwit_status store_idem_find(store *st, arena *a, slice scope, const slice *keys, size_t count,
                              store_idem *out) MUST_USE;
/* The key is not there yet. */
godwit_status store_idem_add(store *st, slice scope, slice key,
                             const uint8_t fingerprint[SHA256_BYTES], int64_t commit_seq,
                             slice response, int64_t now_ms) MUST_USE;

/* ---- watching over it ---- */

/* Whether a write would succeed, as far as a cheap look tells (free space); write: find out by
 * writing. FULL, IO, ..: it would not. Outside a transaction. */
godwit_status store_probe(store *st, bool write) MUST_USE;
/* What devices told of themselves with their last push. */
typedef struct {
    slice scope, device_id;
    slice report; /* JSON object or empty */
    int64_t last_seen_ms;
} store_device_report;
/* Up to `max` devices that are not revoked, in the order of (scope, device), after the given one
 * (empty = from the beginning). */
godwit_status store_device_reports(store *st, arena *a, slice after_scope, slice after_device,
                                   store_device_report *out, size_t max, size_t *count) MUST_USE;

/* ---- retention: core/retain says what may go, server/janitor.c when ---- */

typedef struct {
    slice name;
    retain_scope marks;
} store_keeping;
/* The scope behind `after` in the order of names (empty: the first). pulled_seq counts the active
 * devices seen since seen_ms. *row false at the end. */
godwit_status store_keeping_next(store *st, arena *a, slice after, int64_t seen_ms,
                                 store_keeping *out, bool *row) MUST_USE;
/* *upto: the newest of the `count` commits behind `from` that was made before before_ms; `from`
 * when none was. */
godwit_status store_commits_before(store *st, slice scope, int64_t from, int64_t count,
                                   int64_t before_ms, int64_t *upto) MUST_USE;
/* Stores horizon and ledger_floor. */
godwit_status store_marks_save(store *st, slice scope, const retain_scope *marks) MUST_USE;
/* What a scope need not keep: what is below the marks, what is older than a time. */
typedef struct {
    retain_scope marks;
    int64_t conflicts_ms; /* decided conflicts */
    int64_t keys_ms;      /* of callers without a stream */
    int64_t silent_ms;    /* active devices not seen since become retired */
} store_past;
/* Deletes it, oldest commits first, until *rows_left is used up (at least one commit; a commit is
 * never left half): changes, tombstones and stored results of commits up to the horizon, then
 * commits up to the ledger's floor with the ledger rows their device has confirmed, then the rest.
 */
godwit_status store_forget(store *st, slice scope, const store_past *past,
                           int64_t *rows_left) MUST_USE;
/* After store_durable(false) a commit need not be on disk when it returns: for deletions, which may
 * be done twice. Outside a transaction. */
void store_durable(store *st, bool durable);

/* Moves log to database file and the like, for about budget_ms. */
void store_tidy(store *st, int64_t budget_ms);

/* ---- read ---- */

godwit_status store_reader_open(store *st, store_reader **out) MUST_USE;
void store_reader_close(store_reader *r);
const char *store_reader_message(const store_reader *r);
/* One consistent view from begin to end. */
godwit_status store_read_begin(store_reader *r, const store_tables *tables) MUST_USE;
void store_read_end(store_reader *r);
godwit_status store_read_scope(store_reader *r, slice scope, store_scope *out) MUST_USE;
/* Salt of a commit; NOT_FOUND. seq 0 is the beginning of every history and has salt 0. */
godwit_status store_read_salt(store_reader *r, slice scope, int64_t seq, int64_t *salt) MUST_USE;
godwit_status store_read_device(store_reader *r, arena *a, slice scope, slice device_id,
                                decide_device *out) MUST_USE;

/* Scopes by the operator's query `sql` (grants.h), with its :sub and :claims bound. Outside of a
 * read. INVALID or whatever the database says: reader_message | CONSTRAINT a value does not fit the
 * query | LIMIT too many rows. Everything in `a`. */
typedef struct {
    slice scopes[SCOPES_MAX];
    bool write[SCOPES_MAX];
    size_t count;
} store_grants;
godwit_status store_read_grants(store_reader *r, arena *a, const char *sql, slice sub, slice claims,
                                store_grants *out) MUST_USE;
/* One row of it, for stores. LIMIT, CORRUPT (no valid name), NOMEM. */
godwit_status store_grant_add(arena *a, slice scope, bool write, store_grants *out) MUST_USE;

/* The feed. Rows are borrowed until the next call of the same kind. */
typedef struct {
    int64_t commit_seq, prev_seq;
    slice table, id; /* table: the table's own name, or "_conflicts" */
    bool is_delete, full;
    slice columns; /* JSON object; empty for a delete */
    slice clock;   /* JSON object; empty = the first write of (commit's device, clock_seq) */
    int64_t clock_seq;
} store_change_row;
godwit_status store_feed_open(store_reader *r, slice scope, int64_t after_seq) MUST_USE;
/* *row false at the end. */
godwit_status store_feed_commit(store_reader *r, store_commit_row *out, bool *row) MUST_USE;
/* Changes of the commit that was read last, whose number is `seq`, in order. *row false at their
 * end. */
godwit_status store_feed_change(store_reader *r, int64_t seq, store_change_row *out,
                                bool *row) MUST_USE;
void store_feed_close(store_reader *r);

/* Ledger of one commit of a stream, first..last, in order. */
typedef struct {
    int64_t seq, lsn, commit_seq;
    slice lineage;
    slice key; /* 32 bytes */
    op_outcome outcome;
    op_code code;
    slice detail, conflicts;
} store_ledger_row;
godwit_status store_ledger_open(store_reader *r, slice scope, slice device_id, int64_t first,
                                int64_t last) MUST_USE;
godwit_status store_ledger_next(store_reader *r, store_ledger_row *out, bool *row) MUST_USE;
void store_ledger_close(store_reader *r);

/* Live rows of one table in a scope by key, after `after` (empty = from the beginning). */
typedef struct {
    slice id;
    int64_t ver;
    slice clock; /* JSON object; empty as in store_change_row, with: */
    slice clock_device;
    int64_t clock_seq;
    const value *values; /* [column_count] */
} store_live_row;
godwit_status store_live_open(store_reader *r, slice scope, const schema_table *t,
                              slice after) MUST_USE;
godwit_status store_live_next(store_reader *r, store_live_row *out, bool *row) MUST_USE;
void store_live_close(store_reader *r);
/* The row as {"column":value,..} without the columns the server maintains for itself. */
void store_row_json(const schema_table *t, const value *values, bytes *b);

/* Conflicts of a scope, newest first, before commit `before` (0 = newest). state empty = all. */
typedef struct {
    slice id, kind, policy, winner, state;
    slice table, entity_id, device_id, op_key;
    slice columns, base, theirs, ours, chosen; /* JSON; empty = null */
    slice operation, writers; /* what ours wanted; who, when, with which clocks, as JSON */
    int64_t commit_seq, at_ms, resolved_commit;
    slice resolved_by;
} store_conflict_row;
godwit_status store_conflicts_open(store_reader *r, slice scope, slice state,
                                   int64_t before) MUST_USE;
/* Those that wait for a person, by id, after `after` (empty = from the beginning). */
godwit_status store_conflicts_waiting(store_reader *r, slice scope, slice after) MUST_USE;
godwit_status store_conflicts_next(store_reader *r, store_conflict_row *out, bool *row) MUST_USE;
void store_conflicts_close(store_reader *r);
/* The record as it travels: the columns of godwit_conflict in camelCase, opKey in hex. entity: the
 * name of its table on the wire. */
void store_conflict_json(bytes *b, slice entity, const store_conflict_row *row);

/* One change of a row's history: that of commit `seq`, or with seq 0 the newest. NOT_FOUND. */
godwit_status store_history(store_reader *r, slice scope, const schema_table *t, slice id,
                            int64_t seq, store_commit_row *commit,
                            store_change_row *change) MUST_USE;

#endif
