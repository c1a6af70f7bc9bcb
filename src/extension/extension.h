/* Insides of the loadable extension: the state of one connection and what the SQL functions share.
 */
#ifndef EXTENSION_EXTENSION_H
#define EXTENSION_EXTENSION_H

#include "client/track.h"

typedef struct {
    sqlite3 *connection;
    godwit *g; /* made by the first function that needs it */
} extension;

/* The handle, or NULL with the error set on `context`. create: also in a database that does not use
 * Godwit yet, which installs its tables. */
godwit *extension_handle(sqlite3_context *context, bool create);
/* Sets the error of `context`: the handle's message, and a SQLite code where one fits. */
void extension_error(sqlite3_context *context, godwit_status status, const char *message);

/* One per file of functions: registers the SQL functions with `e` as their user data. */
int functions_register(sqlite3 *connection, extension *e);
int receipt_register(sqlite3 *connection, extension *e);
int repair_register(sqlite3 *connection, extension *e);
int report_register(sqlite3 *connection, extension *e);

typedef struct {
    const char *name;
    int argc; /* -1: any number, checked by the function */
    int flags;
    void (*call)(sqlite3_context *context, int argc, sqlite3_value **argv);
} extension_function;
int extension_register(sqlite3 *connection, extension *e, const extension_function *list,
                       size_t count);

/* A text argument; NULL for SQL NULL and where it is absent. Valid until the argument changes. */
const char *extension_text(int argc, sqlite3_value **argv, int index);
/* A number from 0 that is an argument; absent or NULL: 0. false: it is something else, and the error is
 * set. */
bool extension_number(sqlite3_context *context, int argc, sqlite3_value **argv, int index,
                      int64_t *out);

#endif
