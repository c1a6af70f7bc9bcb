/* The SQL that prepares a PostgreSQL database, as one plain migration for people to read, keep and
 * run: Godwit's own tables, and which tables are tracked; and a look at what a database has of it.
 */
#ifndef SERVER_MIGRATION_H
#define SERVER_MIGRATION_H

#include "core/bytes.h"

/* Schema godwit; running it again changes nothing. */
void migration_install(bytes *b);
/* Tracks a table. Rows that others write, and those that are there, belong to `scope` or to what the
 * column `scope_column` says; without both, to the scope a device made them in. */
typedef struct {
    slice schema_name, table, scope, scope_column; /* the last two may be empty */
} migration_table;
void migration_track(bytes *b, const migration_table *t);
/* The table and its rows stay; the server no longer syncs them. */
void migration_untrack(bytes *b, slice schema_name, slice table);

/* These two connect to postgres://.. and only read. message: 512 bytes, receives the reason.
 *
 * INVALID: the table can't be tracked as it is; message says what to do. */
godwit_status migration_check(const char *url, const migration_table *t, char *message) MUST_USE;
/* [{"table","schema","key","columns","scope","noted","waiting","problem"},..] of the tracked
 * tables. */
godwit_status migration_status(const char *url, bytes *out, char *message) MUST_USE;

#endif
