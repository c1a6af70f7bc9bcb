/* What an expression of the configuration (upcast.VERSION.COLUMN) may do, the same where it is
 * checked and where it is run: compute from its inputs. It reads no table, writes nothing, loads
 * nothing, has no recursion, and ends: a value is at most ROW_BYTES_MAX, a run UPCAST_STEPS_MAX
 * steps. */
#ifndef SERVER_UPCAST_SQL_H
#define SERVER_UPCAST_SQL_H

#include "core/base.h"
#include "db/sqlite.h"

#define UPCAST_STEPS_MAX 100000 /* of SQLite's machine: about 10 ms */

/* From now on the connection prepares and runs nothing else. Preparing gives SQLITE_AUTH. */
void upcast_guard(sqlite3 *handle);
/* One step of a statement of such a connection: SQLITE_ROW, or SQLITE_INTERRUPT (too many steps),
 * SQLITE_TOOBIG, or what the expression makes of its inputs. The caller resets. */
int upcast_step(sqlite3_stmt *stmt);

#endif
