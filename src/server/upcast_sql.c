/* The bounds of upcast expressions, by SQLite's own means: an authorizer, limits, and a progress
 * handler. They count steps and bytes, not time: what is refused once is refused always. */
#include "server/upcast_sql.h"

#include "core/limits.h"

#define PATTERN_BYTES_MAX 100 /* of LIKE and GLOB, whose cost grows with each wildcard */

/* The database is empty: what is read is a json_each, a WITH of the expression itself, or the
 * schema. Other table-valued functions can't declare themselves any more. */
static bool is_schema(const char *table) {
    return !table || !sqlite3_strnicmp(table, "sqlite_", 7);
}

static int authorize(void *context, int action, const char *first, const char *second,
                     const char *base, const char *trigger) {
    (void)context;
    (void)base;
    (void)trigger;
    bool allowed = action == SQLITE_SELECT || (action == SQLITE_READ && !is_schema(first)) ||
                   (action == SQLITE_FUNCTION && sqlite3_stricmp(second, "load_extension") != 0);
    return allowed ? SQLITE_OK : SQLITE_DENY;
}

static int too_many(void *context) {
    (void)context;
    return 1;
}

void upcast_guard(sqlite3 *handle) {
    (void)sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX);
    (void)sqlite3_limit(handle, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX);
    /* "name" is a column, which there is none of: not a text by accident */
    (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_DQS_DML, 0, (int *)NULL);
    /* when first used they declare themselves, which looks like a write to the schema */
    (void)sqlite3_exec(handle, "SELECT 1 FROM json_each('[]'), json_tree('[]')", NULL, NULL, NULL);
    (void)sqlite3_set_authorizer(handle, authorize, NULL);
    sqlite3_progress_handler(handle, UPCAST_STEPS_MAX, too_many, NULL);
}

int upcast_step(sqlite3_stmt *stmt) {
    /* the handler is called each UPCAST_STEPS_MAX of this count, which a kept statement carries on
     */
    (void)sqlite3_stmt_status(stmt, SQLITE_STMTSTATUS_VM_STEP, 1);
    return sqlite3_step(stmt);
}
