/* The loadable extension godwit.so: entry points and the handle of each connection.
 *
 * Loading creates nothing in a database that does not use Godwit. In one that does, it puts the
 * group marker on the connection and raises its durability; everything else waits for the first
 * call. The handle belongs to the connection and ends with it, when no SQL can run any more. */
#include "extension/extension.h"

#include "client/group.h"

#ifdef GODWIT_LOADABLE
SQLITE_EXTENSION_INIT1
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

#define SQLITE_VERSION_MIN 3038000

EXPORTED int sqlite3_godwit_init(sqlite3 *connection, char **error,
                                 const sqlite3_api_routines *api);
EXPORTED int sqlite3_extension_init(sqlite3 *connection, char **error,
                                    const sqlite3_api_routines *api);

/* ---- What the functions share ---- */

static int sqlite_code(godwit_status status) {
    switch ((int)status) {
    case GODWIT_NOMEM:
        return SQLITE_NOMEM;
    case GODWIT_BUSY:
        return SQLITE_BUSY;
    case GODWIT_IO:
        return SQLITE_IOERR;
    case GODWIT_FULL:
        return SQLITE_FULL;
    case GODWIT_READONLY:
        return SQLITE_READONLY;
    case GODWIT_CORRUPT:
        return SQLITE_CORRUPT;
    case GODWIT_CONSTRAINT:
        return SQLITE_CONSTRAINT;
    default:
        return SQLITE_ERROR;
    }
}

void extension_error(sqlite3_context *context, godwit_status status, const char *message) {
    char *text =
        sqlite3_mprintf("godwit: %s", message && *message ? message : godwit_status_text(status));
    if (!text) {
        sqlite3_result_error_nomem(context);
        return;
    }
    sqlite3_result_error(context, text, -1);
    sqlite3_result_error_code(context, sqlite_code(status));
    sqlite3_free(text);
}

/* -1: could not be read (locked, or no database). */
static int uses_godwit(sqlite3 *connection) {
    sqlite3_stmt *stmt = NULL;
    int found = -1;
    if (sqlite3_prepare_v2(connection,
                           "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND name"
                           " IN ('godwit_meta', 'godwit_log', 'godwit_hook')",
                           -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW) {
        found = sqlite3_column_int(stmt, 0) == 3;
    }
    sqlite3_finalize(stmt);
    return found;
}

godwit *extension_handle(sqlite3_context *context, bool create) {
    extension *e = sqlite3_user_data(context);
    char message[512];
    if (e->g) {
        return e->g;
    }
    if (!create && uses_godwit(e->connection) == 0) {
        extension_error(context, GODWIT_NOT_FOUND,
                        "this database does not use Godwit yet: call godwit_init or godwit_track");
        return NULL;
    }
    godwit_status status = client_create(e->connection, NULL, NULL, message, sizeof message, &e->g);
    if (status != GODWIT_OK) {
        extension_error(context, status, message);
    }
    return e->g;
}

const char *extension_text(int argc, sqlite3_value **argv, int index) {
    if (index >= argc || sqlite3_value_type(argv[index]) == SQLITE_NULL) {
        return NULL;
    }
    return (const char *)sqlite3_value_text(argv[index]);
}

bool extension_number(sqlite3_context *context, int argc, sqlite3_value **argv, int index,
                      int64_t *out) {
    *out = 0;
    if (index >= argc || sqlite3_value_type(argv[index]) == SQLITE_NULL) {
        return true;
    }
    if (sqlite3_value_numeric_type(argv[index]) != SQLITE_INTEGER ||
        sqlite3_value_int64(argv[index]) < 0) {
        extension_error(context, GODWIT_INVALID, "a whole number, not below zero, is expected");
        return false;
    }
    *out = sqlite3_value_int64(argv[index]);
    return true;
}

int extension_register(sqlite3 *connection, extension *e, const extension_function *list,
                       size_t count) {
    int rc = SQLITE_OK;
    for (size_t i = 0; i < count && rc == SQLITE_OK; i++) {
        rc = sqlite3_create_function_v2(connection, list[i].name, list[i].argc,
                                        SQLITE_UTF8 | list[i].flags, e, list[i].call, NULL, NULL,
                                        NULL);
    }
    return rc;
}

/* ---- Loading ---- */

static void version(sqlite3_context *context, int argc, sqlite3_value **argv) {
    (void)argc;
    (void)argv;
    sqlite3_result_text(context, godwit_version(), -1, SQLITE_STATIC);
}

/* The connection is going away; its marker and functions are gone, so no SQL may run. */
static void destroy(void *state) {
    extension *e = state;
    client_abandon(e->g);
    sqlite3_free(e);
}

static int load(sqlite3 *connection, char **error) {
    if (sqlite3_libversion_number() < SQLITE_VERSION_MIN) {
        *error =
            sqlite3_mprintf("godwit needs SQLite 3.38 or later, this is %s", sqlite3_libversion());
        return SQLITE_ERROR;
    }
    extension *e = sqlite3_malloc((int)sizeof *e);
    if (!e) {
        return SQLITE_NOMEM;
    }
    *e = (extension){connection, NULL};
    /* one function owns the state; `destroy` runs also when this fails */
    int rc = sqlite3_create_function_v2(connection, "godwit_version", 0,
                                        SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, e,
                                        version, NULL, NULL, destroy);
    if (rc == SQLITE_OK) {
        rc = functions_register(connection, e);
    }
    if (rc == SQLITE_OK) {
        rc = report_register(connection, e);
    }
    if (rc == SQLITE_OK) {
        rc = receipt_register(connection, e);
    }
    if (rc == SQLITE_OK) {
        rc = repair_register(connection, e);
    }
    if (rc == SQLITE_OK && uses_godwit(connection) == 1) {
        client_arrive(connection); /* what fails here is said by the first call */
    }
    return rc;
}

int sqlite3_godwit_init(sqlite3 *connection, char **error, const sqlite3_api_routines *api) {
#ifdef GODWIT_LOADABLE
    SQLITE_EXTENSION_INIT2(api)
#else
    (void)api;
#endif
    return load(connection, error);
}

int sqlite3_extension_init(sqlite3 *connection, char **error, const sqlite3_api_routines *api) {
    return sqlite3_godwit_init(connection, error, api);
}
