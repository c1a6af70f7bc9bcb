/* The SQL that prepares a PostgreSQL database, as one plain migration for people to read, keep and
 * run: Godwit's own tables, and which tables are tracked; and a look at what a database has of it.
 */
#ifndef SERVER_MIGRATION_H
#define SERVER_MIGRATION_H

#include "core/bytes.h"

/* Schema godwit; running it again changes nothing. */
void migration_install(bytes *b);
/* Tracks a table of schema `schema_name`. */
void migration_track(bytes *b, slice schema_name, slice table);
/* The table and its rows stay; the server no longer syncs them. */
void migration_untrack(bytes *b, slice table);

/* These two connect to postgres://.. and only read. message: 512 bytes, receives the reason.
 *
 * INVALID: the table can't be tracked as it is; message says what to do. */
godwit_status migration_check(const char *url, slice schema_name, slice table,
                              char *message) MUST_USE;
/* [{"table","schema","key","columns","problem"},..] of the tracked tables. */
godwit_status migration_status(const char *url, bytes *out, char *message) MUST_USE;

#endif
