/* Thin SQLite helper for both sides: cached statements, bound values, transactions, migrations.
 *
 * A db is used by one thread at a time. The connection is borrowed unless db_open made it. Errors are
 * statuses; db_message says what happened without SQL values. */
#ifndef DB_DB_H
#define DB_DB_H

#include "core/value.h"
#include "db/sqlite.h"

#define DB_CACHE_SLOTS 128

typedef struct {
    uint64_t hash;
    sqlite3_stmt *stmt; /* NULL = free */
    bool busy;          /* handed out by db_prepare, not yet given back */
} db_slot;

enum { DB_UNDO_ALL, DB_UNDO_STEP, DB_UNDO_RELEASE, DB_UNDO_COUNT };

typedef struct {
    sqlite3 *handle;
    bool owned;
    char message[256];
    db_slot cache[DB_CACHE_SLOTS]; /* by text hash, linear probing; full = prepared without cache */
    int depth;                     /* nesting of db_begin */
    sqlite3_stmt *undo[DB_UNDO_COUNT]; /* prepared before they are needed: undoing takes no memory */
} db;

/* Opens or creates `path` (flags: SQLITE_OPEN_*), busy timeout in ms. */
godwit_status db_open(db *d, const char *path, int flags, int busy_ms) MUST_USE;
void db_attach(db *d, sqlite3 *handle);
/* Finalizes the cache; closes the connection when owned. */
void db_close(db *d);
/* Finalizes cached statements (before DDL on a lent connection, at close). */
void db_forget(db *d);

/* Maps a SQLite result code; ok for SQLITE_OK, ROW, DONE. Sets the message from the connection. */
godwit_status db_status(db *d, int rc) MUST_USE;

/* Constant text, or text built with bytes_identifier. Give back with db_done (resets, clears). */
godwit_status db_prepare(db *d, const char *sql, sqlite3_stmt **out) MUST_USE;
void db_done(db *d, sqlite3_stmt *stmt); /* NULL is fine */
/* Runs one or more statements without parameters. */
godwit_status db_exec(db *d, const char *sql) MUST_USE;
/* Binds by type letters and runs to the end (rows are skipped): 'i' int64_t, 'd' double, 's' slice as
 * TEXT, 'b' slice as BLOB, 'v' const value *, 'n' NULL (no argument). Empty slice with NULL ptr = NULL. */
godwit_status db_run(db *d, const char *sql, const char *types, ...) MUST_USE;
/* The same, then the first column of the first row. NOT_FOUND without a row. */
godwit_status db_int(db *d, int64_t *out, const char *sql, const char *types, ...) MUST_USE;
/* Text or blob copied into `a`; SQL NULL gives ptr NULL. NOT_FOUND without a row. */
godwit_status db_text(db *d, arena *a, slice *out, const char *sql, const char *types, ...) MUST_USE;

/* Binding and reading single values. Binding does not copy: the value must live until db_done. */
godwit_status db_bind_value(db *d, sqlite3_stmt *stmt, int index, const value *v) MUST_USE;
godwit_status db_bind_slice(db *d, sqlite3_stmt *stmt, int index, slice s) MUST_USE;
godwit_status db_bind_blob(db *d, sqlite3_stmt *stmt, int index, slice s) MUST_USE;
godwit_status db_bind_int(db *d, sqlite3_stmt *stmt, int index, int64_t v) MUST_USE;
/* SQLITE_ROW -> *row true; DONE -> false. */
godwit_status db_step(db *d, sqlite3_stmt *stmt, bool *row) MUST_USE;
/* Borrowed from the statement until the next step. */
slice db_column_slice(sqlite3_stmt *stmt, int column);
void db_column_value(sqlite3_stmt *stmt, int column, value *out);

/* BEGIN IMMEDIATE, or a savepoint when nested. Commit failure leaves the transaction open: call
 * db_rollback (a failed COMMIT means "unknown" to the layers above), which has no way to fail, also
 * not without memory. */
godwit_status db_begin(db *d) MUST_USE;
godwit_status db_begin_read(db *d) MUST_USE; /* outermost only: BEGIN DEFERRED */
godwit_status db_commit(db *d) MUST_USE;
void db_rollback(db *d);

/* Runs steps[version..count) in one transaction each; the version is kept in `table` (k, v) under the
 * key 'schema_version'. UNSUPPORTED when the file is newer than this build. */
godwit_status db_migrate(db *d, const char *table, const char *const *steps, int count) MUST_USE;

#endif
