/* Copies of a whole database while others write to it. */
#ifndef DB_COPY_H
#define DB_COPY_H

#include "db/db.h"

/* done and total: pages. Called now and then; total may be 0 for an empty database. */
typedef void db_copy_progress(void *context, int64_t done, int64_t total);

/* Copies one state of `from`, the one at the time of the call, into `to`, whatever it held before.
 * from: no transaction open; others may go on writing (with a rollback journal they wait for the
 * end). to: nobody else has it open. progress may be NULL. A failure's message is in to's. */
godwit_status db_copy(db *from, db *to, db_copy_progress *progress, void *context) MUST_USE;

/* Reads all of `d` and looks for damage. CORRUPT: the message names the first. What needs functions
 * or collations of the application is not looked at. */
godwit_status db_check(db *d) MUST_USE;

/* Sees to it that nobody has the database open, and that its log is part of the file: afterwards
 * the file may be replaced. BUSY: somebody has. OK also where there is no file. */
godwit_status db_alone(const char *path, char message[256]) MUST_USE;

#endif
