/* The SQLite store's inside, shared by its files only.
 *
 *   store_sqlite.c         the file: opening, schema steps, transactions, scope, device,
 * idempotency keys store_sqlite_schema.c  making, widening and reading the typed tables
 *   store_sqlite_tables.c  SQL of each typed table, prepared statements per connection
 *   store_sqlite_load.c    ledger, salts, working rows
 *   store_sqlite_typed.c   writing typed rows, what the database made of the values
 *   store_sqlite_refs.c    foreign keys of the rows a group touched
 *   store_sqlite_save.c    one decided group
 *   store_sqlite_conflict.c the conflict ledger
 *   store_sqlite_retain.c  deleting what is no longer kept
 *   store_sqlite_device.c  listing and revoking devices; the store's own id
 *   store_sqlite_grants.c  scopes by the operator's query
 *   store_sqlite_read.c    feed, ledger, live rows, conflicts, history */
#ifndef SERVER_STORE_SQLITE_H
#define SERVER_STORE_SQLITE_H

#include "core/limits.h"
#include "db/db.h"
#include "server/store_verbs.h"
#include "server/stored.h"

#define LITE_VERB(result, name, parameters, from, arguments) result lite_##name parameters;
#define LITE_VOID(name, parameters, from, arguments)         void lite_##name parameters;
STORE_VERBS(LITE_VERB, LITE_VOID)
#undef LITE_VERB
#undef LITE_VOID

typedef struct {
    char affinity; /* 'T'ext 'I'nteger 'N'umeric 'R'eal 'B'lob, or none */
    bool has_default;
    slice json_key; /* "\"title\":" */
} column_info;

/* One enforced foreign key, seen from either end. */
typedef struct {
    const schema_fk *fk;
    const schema_table *child;
    const schema_table *parent; /* NULL = not a tracked table */
    const int *parent_columns;  /* indexes into the parent's columns; NULL without parent */
    bool by_key;                /* refers to the parent's whole key, one column */
    const char *parent_sql;     /* key columns of the live parent by the referenced values */
    const char *child_sql;      /* one live child by its referring values */
    const char *detail;
} fk_info;

typedef struct {
    const schema_table *table;
    column_info *columns;
    bool triggers; /* the application's own: read back after every write */
    bool has_defaults;
    bool whole;                  /* every column of the table is synced */
    bool referenced_outside_key; /* some foreign key refers to columns beside the key */
    const char *select_sql, *insert_sql, *delete_sql;
    fk_info *parents; /* this table as the child */
    size_t parent_count;
    fk_info **children; /* this table as the parent */
    size_t child_count;
} table_info;

struct store_tables {
    const schema *schema;
    table_info *infos; /* by schema_table.number order: same order as schema->tables */
};
const table_info *tables_info(const store_tables *tables, const schema_table *t);
/* By the table's own name; NULL. */
const schema_table *tables_by_name(const store_tables *tables, slice name);

#define UPDATE_SLOTS 8
#define MASK_WORDS   5 /* bits for COLUMNS_MAX and the key's columns */
typedef struct {
    uint64_t mask[MASK_WORDS];
    sqlite3_stmt *stmt;
} update_slot;
typedef struct {
    sqlite3_stmt *select, *insert, *remove;
    update_slot updates[UPDATE_SLOTS];
    unsigned update_next;
    sqlite3_stmt **parents, **children;
} table_stmts;

/* Prepared statements of one connection for one registry. */
typedef struct {
    const store_tables *tables;
    table_stmts *stmts;
} connection_tables;
void connection_tables_drop(connection_tables *ct);
godwit_status connection_tables_use(connection_tables *ct, const store_tables *tables) MUST_USE;
/* Prepares once, then hands out again. */
godwit_status stmt_once(db *d, sqlite3_stmt **slot, const char *sql) MUST_USE;

enum {
    HOT_ROW_LOAD,
    HOT_ROW_LIVE,
    HOT_ROW_INSERT,
    HOT_ROW_UPDATE,
    HOT_CHANGE,
    HOT_OP,
    HOT_COMMIT,
    HOT_COMMIT_DEVICE,
    HOT_LEDGER_SEQ,
    HOT_COUNT
};

/* Names that became numbers (godwit_name), those seen last; forgotten at every rollback. */
#define NAME_SLOTS 256
typedef struct {
    int64_t no; /* 0 = free */
    size_t len;
    char text[NAME_BYTES_MAX];
} known_name;

#define STORE_DURABLE "PRAGMA synchronous = FULL"

struct store {
    store_base base;
    db d;
    char *path;
    connection_tables tables;
    sqlite3_stmt *hot[HOT_COUNT];
    bytes json; /* scratch */
    bytes text; /* scratch */
    known_name names[NAME_SLOTS];
    int64_t
        last_change; /* highest godwit_change.no, once asked for in a transaction; 0 = not yet */
    bool
        lax; /* commits may not be on disk when they return: made good before the next one begins */
    const char *step_failed; /* what the last refused statement was doing, for messages */
};

/* The number of a name, given now if it has none; 0 for an empty name. */
godwit_status sqlite_name(store *st, slice name, int64_t *no) MUST_USE;
/* The same without giving one: 0 when it has none. */
godwit_status sqlite_name_find(db *d, slice name, int64_t *no) MUST_USE;

/* Sets last_change if it is not known; whoever adds a change counts it up and takes that number. */
godwit_status sqlite_last_change(store *st) MUST_USE;
/* Join of a commit c with its changes h. */
#define SQLITE_CHANGES_OF_COMMIT                                                                   \
    "h.no BETWEEN c.first_change AND c.last_change AND h.scope = c.scope AND h.commit_seq ="       \
    " c.commit_seq"

/* On either side's connection (store_sqlite.c). */
godwit_status sqlite_scope_load(db *d, slice scope, store_scope *out) MUST_USE;
godwit_status sqlite_device_load(db *d, arena *a, slice scope, slice device_id,
                                 decide_device *out) MUST_USE;
#define COMMIT_DEVICE_SQL                                                                          \
    "SELECT n.name FROM godwit_commit c JOIN godwit_name n ON n.no = c.device_id"                  \
    " WHERE c.scope = ?1 AND c.commit_seq = ?2"

/* scopes by the operator's query (store_sqlite_grants.c) */
godwit_status sqlite_grants(db *d, arena *a, const char *sql, slice sub, slice claims,
                            store_grants *out) MUST_USE;

/* typed rows (store_sqlite_typed.c, store_sqlite_refs.c) */
typedef struct old_reference { /* values other rows may refer to, before they were changed */
    const fk_info *key;
    const value *values; /* of the parent's row */
    struct old_reference *next;
} old_reference;
typedef struct {
    store *st;
    old_reference *old;
    decide_context *c;
    const store_author *author;
    decide_refusal *refusal;
    int64_t commit_seq;
    const char *now_text;  /* RFC 3339 */
    struct kept_row *kept; /* rows taken out by typed_make_room, for their local columns */
} typed_writer;
/* Brings the typed row in line with change->row. CONSTRAINT: refusal set. */
godwit_status typed_write(typed_writer *w, decide_change *change) MUST_USE;
/* Takes the typed rows of these updates (those of `table`) out, so that values under a UNIQUE
 * constraint can change hands within a group; typed_write then inserts them again, with what they
 * were. */
godwit_status typed_make_room(typed_writer *w, const schema_table *table, decide_change *changes,
                              size_t count) MUST_USE;
/* Foreign keys of the rows a group touched, after all of them are written with their metadata. *at:
 * the change that was looked at last. */
godwit_status typed_check_references(typed_writer *w, decide_change *changes, size_t count,
                                     size_t *at) MUST_USE;
/* Binds the key columns of `id` at index.. ; texts are in `a`. */
godwit_status typed_bind_key(db *d, arena *a, sqlite3_stmt *stmt, int index, const schema_table *t,
                             slice id) MUST_USE;
/* Reads the columns of a select_sql row, copied into `a` (a NULL: borrowed from the statement). */
godwit_status typed_read_values(sqlite3_stmt *stmt, const schema_table *t, arena *a,
                                value *out) MUST_USE;
/* Prepares select_sql and steps to the row of `id`; the caller resets *stmt. */
godwit_status typed_select(store *st, arena *a, const schema_table *t, slice id,
                           sqlite3_stmt **stmt, bool *found) MUST_USE;

/* the conflict ledger (store_sqlite_conflict.c) */
#define SQLITE_CONFLICT_COLUMNS                                                                    \
    "conflict_id, kind, policy, winner, state, tbl, pk, device_id, op_key, cols, base, theirs,"    \
    " ours, chosen, commit_seq, at, resolved_commit, resolved_by, operation, writers"
/* Of a statement over those columns; borrowed from it. */
void sqlite_conflict_read(sqlite3_stmt *stmt, store_conflict_row *out);
/* Records of a decided group, records its operations resolve, and all of them into its commit. */
godwit_status sqlite_conflicts_save(store *st, const decide_context *c, const store_author *author,
                                    int64_t scope_no, const wire_op *ops,
                                    const decide_commit *commit) MUST_USE;

/* Reads a column as text that must be copied to be kept; empty for NULL. */
slice copied(arena *a, sqlite3_stmt *stmt, int column);

#endif
