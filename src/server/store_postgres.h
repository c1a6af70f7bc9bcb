/* The PostgreSQL store's inside, shared by its files only.
 *
 *   store_postgres.c           life, transactions, scope, device, idempotency keys
 *   store_postgres_link.c      one connection: pipelined statements, their results, what went wrong
 *   store_postgres_wait.c      waiting for it, and noticing that it has gone
 *   store_postgres.sql         Godwit's own tables (schema godwit) and their version
 *   store_postgres_schema.c    tracked tables read from the catalog; adoption
 *   store_postgres_tables.c    SQL of each tracked table
 *   store_postgres_value.c     values to the database's text and back
 *   store_postgres_load.c      ledger, salts, working rows
 *   store_postgres_typed.c     tracked rows written in bulk, what the database made of them
 *   store_postgres_refs.c      references that the database's own foreign keys do not settle
 *   store_postgres_save.c      decided groups: kept until a flush writes them together
 *   store_postgres_bulk.c      what is kept of them: rows, feed, ledger, commits
 *   store_postgres_conflict.c  the conflict ledger
 *   store_postgres_retain.c    deleting what is no longer kept
 *   store_postgres_device.c    devices as operators see them
 *   store_postgres_outbox.c    what others have written to the tracked tables
 *   store_postgres_watch.c     can it be written to, what devices report
 *   store_postgres_role.c      rows as the token's role sees them
 *   store_postgres_signal.c    word of other servers
 *   store_postgres_grants.c    scopes by the operator's query
 *   store_postgres_read.c      feed, ledger, live rows, conflicts, history */
#ifndef SERVER_STORE_POSTGRES_H
#define SERVER_STORE_POSTGRES_H

#include <libpq-fe.h>

#include "core/limits.h"
#include "server/store_verbs.h"
#include "server/stored.h"

#define PG_VERB(result, name, parameters, from, arguments) result pg_##name parameters;
#define PG_VOID(name, parameters, from, arguments)         void pg_##name parameters;
STORE_VERBS(PG_VERB, PG_VOID)
#undef PG_VERB
#undef PG_VOID

/* ---- one connection (store_postgres_link.c) ---- */

enum {
    PG_OID_BOOL = 16,
    PG_OID_BYTEA = 17,
    PG_OID_INT8 = 20,
    PG_OID_TEXT = 25,
    PG_OID_FLOAT8 = 701
};

#define PG_PARAMS_MAX (2 * (COLUMNS_MAX + KEY_COLUMNS_MAX) + 8)

typedef struct {
    size_t from, len; /* in pg_link.text */
    unsigned type;    /* of the parameter, 0 = let the server find out */
    unsigned item;    /* of an array: type of its items, else 0 */
    bool binary, null;
} pg_param;

/* What the first statement that failed said. */
typedef struct {
    char state[6]; /* SQLSTATE; empty = the connection failed */
    char text[256];
    char table[64], column[64], constraint[64];
    size_t statement; /* its number since the last pg_sync */
} pg_error;

typedef struct {
    PGconn *conn;
    char *url;
    char message[512]; /* about the last failure, without values */
    pg_error error;
    /* the statement being made */
    bytes text;
    pg_param params[PG_PARAMS_MAX];
    size_t param_count;
    size_t array_from, array_left; /* of the array being made */
    /* statements sent and not synced, and the results of those synced last */
    size_t sent;
    PGresult **results;
    size_t result_count, result_cap;
    int64_t retry_at_ms; /* no attempt to connect before this */
    int failures;
    int patience_ms;  /* how long nothing may be heard while an answer is due; 0 = for ever */
    bool silent;      /* that is what ended the connection */
    bool transaction; /* BEGIN has been sent */
    bool as_role;     /* statements run as the token's role */
    bytes roles;      /* per statement sent: 'r' as the role */
} pg_link;

/* Keeps a copy of the URL; connects at the first statement. NOMEM. */
godwit_status pg_link_init(pg_link *l, const char *url) MUST_USE;
void pg_link_deinit(pg_link *l);
/* Connects when there is no connection. IO: message. */
godwit_status pg_link_up(pg_link *l) MUST_USE;
/* Drops the connection; the server rolls back what was open. */
void pg_link_drop(pg_link *l);

/* ---- waiting for it (store_postgres_wait.c) ---- */

/* Takes the patience of a new connection from its `tcp_user_timeout`. */
void pg_wait_init(pg_link *l);
/* Until all that was sent is written. false: the connection is of no use any more. */
bool pg_wait_sent(pg_link *l) MUST_USE;
/* Until PQgetResult has something. false: the connection is of no use any more. */
bool pg_wait_result(pg_link *l) MUST_USE;

/* Parameters of the next statement, in order. A slice without ptr is NULL. */
void pg_text(pg_link *l, slice s);
void pg_bytea(pg_link *l, slice s);
void pg_int(pg_link *l, int64_t v);
/* An array parameter of `count` items of one type (PG_OID_..), then its items. */
void pg_array(pg_link *l, unsigned type, size_t count);
void pg_item(pg_link *l, slice s); /* text or bytea */
void pg_item_int(pg_link *l, int64_t v);
void pg_item_int_if(pg_link *l, bool set, int64_t v); /* else NULL */
void pg_item_real(pg_link *l, double d);
/* Makes of parameter n (from 0), an array whose items are all the same, one value of their type.
 * false: they differ, or there are none. */
bool pg_fold(pg_link *l, size_t n);
/* Forgets the parameters made so far. */
void pg_give_up(pg_link *l);
/* Sends a statement with the parameters made so far. Nothing is waited for. */
godwit_status pg_send(pg_link *l, const char *sql) MUST_USE;
/* Waits for all statements sent. OK: pg_result gives what each brought. Else the first failure:
 * IO the connection is gone | BUSY another transaction was in the way, all may be tried again |
 * CONSTRAINT a constraint or an impossible value | FULL | NOMEM | INTERNAL. */
godwit_status pg_sync(pg_link *l) MUST_USE;
/* Result of statement n of those synced last, until the next pg_send. */
static inline PGresult *pg_result(const pg_link *l, size_t n) {
    ASSERT(n < l->result_count);
    return l->results[n];
}
/* The same, taken over: the caller clears it. */
PGresult *pg_take(pg_link *l, size_t n);
/* Sends, waits; *out is the result of this statement. */
godwit_status pg_query(pg_link *l, const char *sql, PGresult **out) MUST_USE;

/* Fields of a result. */
static inline bool pg_is_null(const PGresult *r, int row, int column) {
    return PQgetisnull(r, row, column) != 0;
}
/* Borrowed from the result; ptr NULL for NULL. */
slice pg_field(const PGresult *r, int row, int column);
/* 0 for NULL. */
int64_t pg_field_int(const PGresult *r, int row, int column);
/* Copied; ptr NULL for NULL or when out of memory (sticky in a). */
slice pg_field_copy(arena *a, const PGresult *r, int row, int column);
/* A bytea in its hex form, decoded into out; false when it has another size. */
bool pg_field_key(const PGresult *r, int row, int column, uint8_t out[SHA256_BYTES]);
slice pg_field_bytea(arena *a, const PGresult *r, int row, int column);

/* ---- values (store_postgres_value.c) ---- */

typedef enum {
    PG_CLASS_INT,
    PG_CLASS_FLOAT,
    PG_CLASS_BOOL,
    PG_CLASS_NUMERIC,
    PG_CLASS_TEXT, /* any text comes back as it was given */
    PG_CLASS_UUID,
    PG_CLASS_BYTEA,
    PG_CLASS_TIME,  /* timestamp with or without time zone */
    PG_CLASS_ARRAY, /* travels as a JSON array */
    PG_CLASS_OTHER  /* travels as PostgreSQL writes it */
} pg_class;

typedef struct {
    pg_class class;
    slice sql_type;   /* as format_type writes it: "numeric(10,2)" */
    bool limited;     /* has a modifier: what is stored may differ from what was given */
    bool has_default; /* generated and identity columns too */
    bool generated;   /* the database computes it, nobody may write it */
    bool unique;      /* in a unique index besides the key's */
    bool refers;      /* in a foreign key */
    slice json_key;   /* "\"title\":" */
} pg_column;

/* By the type's name in the catalog, its category and kind. */
pg_class pg_class_of(slice type_name, char category, char kind);
/* The SQLite type a device would declare for it. */
slice pg_device_type(pg_class class);
/* Appends the value's text. *null: there is none. INVALID: the column can't hold it. */
godwit_status pg_value_write(const pg_column *column, const value *v, bytes *b,
                             bool *null) MUST_USE;
/* As the database writes it: small letters, four dashes. */
bool pg_uuid_canonical(slice s);
/* Will the column hold exactly this value? */
bool pg_value_exact(const pg_column *column, const value *v);
/* Text of the database -> value, copied into a (NULL: borrowed from the result). */
godwit_status pg_value_read(const pg_column *column, const PGresult *r, int row, int field,
                            arena *a, value *out) MUST_USE;

/* ---- tracked tables (store_postgres_tables.c) ---- */

typedef struct {
    const schema_fk *fk;
    slice name; /* of the constraint */
    const schema_table *child;
    const schema_table *parent; /* NULL = not tracked */
    const int *parent_columns;
    bool by_key;                   /* refers to the parent's whole key */
    int key_part[KEY_COLUMNS_MAX]; /* by_key: place in fk of each of the parent's key columns */
    const char *child_sql; /* a number among keys $1.. of the parent that a live child refers to */
    const char *detail;
} pg_fk;

typedef struct {
    const schema_table *table;
    pg_column *columns;
    bool triggers; /* others than Godwit's: they may change what is written */
    bool after_triggers;
    bool watched;            /* Godwit's triggers note what others write */
    bool unique;             /* some column is */
    bool identity;           /* some key column is GENERATED ALWAYS AS IDENTITY */
    slice sql_name;          /* "public"."pins" */
    const char *select_list; /* t."id", t."title", .. */
    const char *key_list;    /* unnest($1::text[]) WITH ORDINALITY k(k0, n) */
    const char *key_join;    /* t."id" = k.k0::uuid AND .. */
    const char *load_sql;    /* k.n and the columns of the rows with these keys */
    const char *lock_sql;    /* the same, and nobody else may write them */
    const char *delete_sql;
    pg_fk *parents;
    size_t parent_count;
    pg_fk **children;
    size_t child_count;
    size_t rank; /* parents before children */
} pg_table;

struct store_tables {
    const schema *schema;
    pg_table *infos;
};
static inline const pg_table *pg_table_of(const store_tables *tables, const schema_table *t) {
    size_t at = (size_t)(t - tables->schema->tables);
    ASSERT(at < tables->schema->table_count);
    return &tables->infos[at];
}
/* The catalog's columns of all tracked tables. */
extern const char pg_columns_sql[];
/* Text arrays of the key columns of `ids`; an id that does not fit the key is NULL there. */
godwit_status pg_key_arrays(pg_link *l, arena *a, const pg_table *info, const slice *ids,
                            size_t count) MUST_USE;
/* INSERT and UPDATE of many rows: parameters are an array per column of `write`, in their order, or
 * one value for all rows where `folded` (by parameter), and for UPDATE the key's arrays behind
 * them; k.n counts the rows. `ordered`: new rows are made, and returned, in the order they are
 * given. */
void pg_insert_text(bytes *sql, const pg_table *info, const bool *write, const bool *folded,
                    bool ordered);
void pg_update_text(bytes *sql, const pg_table *info, const bool *write, const bool *folded);
/* Can this be a key of the table as the database types it? */
bool pg_key_fits(arena *a, const pg_table *info, slice id);

/* ---- the token's role (store_postgres_role.c) ---- */

/* Statements between these run as the role; nothing is waited for. Without a role: nothing happens.
 */
godwit_status pg_role_enter(pg_link *l, const store_role *role) MUST_USE;
godwit_status pg_role_leave(pg_link *l) MUST_USE;

/* A row, and what a role sees of it. */
typedef struct {
    const pg_table *info; /* NULL = not looked at */
    slice id;
    bool live;           /* it is in the table */
    bool dead;           /* it was deleted, and the deletion is still known */
    bool visible;        /* to the role; of a dead row: its last image was */
    slice columns;       /* JSON of a visible live row */
    slice image;         /* JSON of a dead row */
    const json *telling; /* names of the columns that policies look at, where that matters */
} pg_sight;
godwit_status pg_role_look(pg_link *l, arena *a, const store_role *role, slice scope,
                           pg_sight *sights, size_t count) MUST_USE;
/* Makes of a change what the role may see of it. false: nothing. */
bool pg_role_show(const store_role *role, const pg_sight *sight, store_change_row *out);
/* Working rows that st->role may not see become those of another scope. */
godwit_status pg_role_hide(store *st, decide_context *c, decide_row *const *rows,
                           size_t count) MUST_USE;
/* A working row as if it had never been loaded (store_postgres_load.c). */
void pg_row_clear(decide_row *row);

/* ---- the store ---- */

/* One change of a group that has been decided and not been written. */
enum { PG_NOTHING, PG_DELETE, PG_INSERT, PG_UPDATE };
typedef struct {
    decide_change *change;
    size_t group;  /* index in store.groups */
    size_t place;  /* in the order of decisions */
    value *values; /* [column_count] as the group left them, then as the database holds them */
    bool *write;   /* [column_count] columns to write */
    unsigned wave; /* waves are written one after the other */
    int kind;      /* PG_DELETE, .. */
    bool late;     /* written last, in search of the guilty one */
    bool left_out; /* not written any more, in that search; its row is deleted if it was there */
    bool exact;    /* the database will hold the values as they are */
    slice clock;   /* stored clock; no ptr = the plain one */
    int64_t clock_seq;
} pg_change;

/* A reference of a pending change that is not known to be good. */
typedef struct {
    const pg_fk *key;
    slice id;
    size_t place; /* of the change */
    bool dead;    /* it is among the working rows, and not live */
} pg_ref;

/* Waves behind which a change must come that makes room for what earlier groups did. */
typedef struct {
    unsigned taken; /* behind new rows and unique values of the table */
    unsigned gone;  /* behind deletes */
} pg_barrier;

typedef struct {
    store_author author;
    const wire_op *ops;
    decide_commit *commit;
    size_t first_change; /* index in store.changes */
    size_t *changes; /* [result_count] the change that carries a result's row, SIZE_MAX = none */
    int64_t salt;
} pg_group;

struct store {
    store_base base;
    pg_link link;
    const store_tables *tables;
    store_role role; /* of the writes that come */
    bytes json, sql; /* scratch */
    int depth;       /* of savepoints in the transaction */
    bool lazy;       /* commits need not be on disk when they return */
    /* decided and not written, in the order of decisions; all of one scope */
    decide_context *context;
    pg_group *groups;
    size_t group_count, group_cap;
    pg_change *changes;
    size_t change_count, change_cap;
    pg_ref *refs;
    size_t ref_count, ref_cap;
    pg_barrier *barriers; /* by table */
    size_t barrier_count;
    uint8_t entropy[512]; /* for salts */
    size_t entropy_left;
};

/* Writes the pending changes to the tracked tables and takes over what the database made of them.
 * Where nothing can come back but a refusal, texts and metadata are sent along before the answers
 * are there: *ahead. CONSTRAINT: *refusal. */
godwit_status pg_typed_write(store *st, bool *ahead, decide_refusal *refusal) MUST_USE;
/* JSON of what the database holds now, shared between feed, ledger and answer. */
godwit_status pg_texts_write(store *st) MUST_USE;
/* Rows, feed, ledger and commits of the pending groups; nothing is waited for. */
godwit_status pg_metadata_send(store *st) MUST_USE;
/* A statement that brings a row when a reference is broken. */
typedef struct {
    const pg_fk *key;
    const pg_change *change; /* it is about; NULL: about references noted */
    size_t statement;
} pg_question;
#define PG_QUESTIONS_MAX 256 /* of one flush; more are taken one group at a time */
/* Notes the references of one change as its group leaves them. */
godwit_status pg_refs_keep(store *st, const pg_change *p) MUST_USE;
/* Asks about those that were not known. LIMIT: too many questions. */
godwit_status pg_refs_ask(store *st, pg_question *questions, size_t *count) MUST_USE;
/* The first change that a question, now answered, found broken; NULL. */
const pg_change *pg_refs_answer(const store *st, const pg_question *q);
/* Index of the operation that a change came from, for a refusal. */
size_t pg_op_of(const store *st, const pg_change *p);
/* A parameter: one column of many changes of a table (store_postgres_value.c). now: RFC 3339. */
godwit_status pg_column_array(store *st, slice now, const pg_table *info, const pg_change **changes,
                              size_t count, size_t column) MUST_USE;
/* Gives up what is pending. */
void pg_drop_pending(store *st);
/* A random number: tells histories apart and keeps no secret. */
godwit_status pg_next_salt(store *st, int64_t *out) MUST_USE;
/* Room for one more item. */
bool pg_grow(void **items, size_t *cap, size_t count, size_t size);
/* The vector clocks of rows that others wrote, where a column keeps them. */
godwit_status pg_clocks_write(store *st) MUST_USE;
/* Conflict records of the pending groups. */
godwit_status pg_conflicts_save(store *st) MUST_USE;
void pg_conflict_read(const PGresult *r, int row, arena *a, store_conflict_row *out);
#define PG_CONFLICT_COLUMNS                                                                        \
    "conflict_id, kind, policy, winner, state, tbl, pk, device_id, op_key, cols, base, theirs,"    \
    " ours, chosen, commit_seq, (extract(epoch FROM at) * 1000)::bigint, resolved_commit,"         \
    " resolved_by, operation, writers"
/* Columns of a row as JSON; picked NULL = all that are synced. */
slice pg_columns_json(store *st, arena *a, const schema_table *t, const value *values,
                      const bool *picked);

/* On either side's connection. */
godwit_status pg_transaction(pg_link *l, bool write) MUST_USE; /* begins; nothing is waited for */
/* Scopes by the operator's query, in a transaction that is left open (store_postgres_grants.c). */
godwit_status pg_grants(pg_link *l, arena *a, const char *sql, slice sub, slice claims,
                        store_grants *out) MUST_USE;
godwit_status pg_scope_read(pg_link *l, slice scope, store_scope *out) MUST_USE;
godwit_status pg_device_read(pg_link *l, arena *a, slice scope, slice device_id,
                             decide_device *out) MUST_USE;

/* ---- Godwit's own schema (store_postgres.sql, embedded by tools/embed) ---- */

extern const char pg_ddl[]; /* makes schema godwit, or brings an older one up to date */
#define PG_DDL_VERSION 3

#endif
