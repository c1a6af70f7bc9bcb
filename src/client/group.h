/* Putting the group marker on a connection, also where no handle exists yet (the extension's load).
 */
#ifndef CLIENT_GROUP_H
#define CLIENT_GROUP_H

#include "client/client.h"

/* Registers the module and makes the TEMP trigger where they are missing; needs main.godwit_hook.
 * Returns a SQLite result code. */
int group_place(sqlite3 *handle);

#endif
