/* The one place that names SQLite's header: a loadable extension calls the host's SQLite through its
 * routine table, everything else links the library. */
#ifndef DB_SQLITE_H
#define DB_SQLITE_H

#ifdef GODWIT_LOADABLE
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#include <sqlite3.h>
#endif

#endif
