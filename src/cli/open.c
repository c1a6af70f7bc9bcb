/* Opening an application's database, with an explanation for each way it can fail.
 *
 * A verb that only looks must not turn any SQLite file into a Godwit database: all but `init` first
 * look, read-only, whether `init` was there before. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

int cli_exit_code(godwit_status status) {
    switch ((int)status) {
    case GODWIT_OK:
        return CLI_OK;
    case GODWIT_UNREACHABLE:
    case GODWIT_OVERLOADED:
    case GODWIT_TIMEOUT:
        return CLI_UNREACHABLE;
    default:
        return CLI_FAILED;
    }
}

/* What to do next, for failures where that is known. */
static const char *advice(godwit_status status) {
    switch ((int)status) {
    case GODWIT_BUSY:
        return "Another process is writing or syncing; try again in a moment.";
    case GODWIT_READONLY:
        return "Check the permissions of the file and of its folder: SQLite also writes the "
               "-wal and -shm files beside it.";
    case GODWIT_FULL:
        return "Free some space; nothing that was committed is lost.";
    case GODWIT_CORRUPT:
        return "Keep the file as it is. If it is the right one, 'sqlite3 FILE .recover' may "
               "bring its rows back.";
    case GODWIT_UNAUTHENTICATED:
        return "Get a fresh token and store it with 'godwit init APP.db --token-file F'.";
    case GODWIT_FORBIDDEN:
        return "The token is not for this scope: 'godwit status APP.db' shows which one is used.";
    case GODWIT_NOT_DURABLE:
        return "Run 'PRAGMA journal_mode=WAL' on the database while nobody else has it open.";
    case GODWIT_IDENTITY:
        return "The queue is kept. This happens to a copied database file; 'godwit queue APP.db "
               "export' writes out what is pending.";
    case GODWIT_INTERNAL:
        return "This is a fault in Godwit: please report it with this line.";
    default:
        return NULL;
    }
}

int cli_explain_text(const char *path, const char *doing, godwit_status status,
                     const char *message) {
    const char *next = advice(status);
    /* exit 3 is for a server that did not answer in time, whatever the code's class */
    (void)cli_fail("%s: %s: %s", path, doing, message);
    if (next) {
        fprintf(stderr, "%s\n", next);
    }
    return cli_exit_code(status);
}

int cli_explain(godwit *g, const char *path, const char *doing, godwit_status status) {
    const char *message = godwit_message(g);
    return cli_explain_text(path, doing, status, *message ? message : godwit_status_text(status));
}

static int check_file(const char *path, cli_open_mode mode) {
    struct stat about;
    if (stat(path, &about) != 0) {
        if (errno != ENOENT) {
            return cli_fail("%s: %s", path, strerror(errno));
        }
        if (mode == CLI_OPEN_CREATE) {
            return CLI_GO;
        }
        (void)cli_fail("%s: no such file", path);
        fprintf(stderr, "'godwit init %s --url URL' sets up a new database.\n", path);
        return CLI_FAILED;
    }
    if (S_ISDIR(about.st_mode)) {
        return cli_fail("%s: this is a folder, not a database", path);
    }
    if (access(path, R_OK) != 0) {
        return cli_fail("%s: %s", path, strerror(errno));
    }
    return CLI_GO;
}

/* Looks without changing anything. A database that can't even be looked at is left to godwit_open,
 * which has the better words for it. */
static int check_tracked(const char *path) {
    sqlite3 *connection = NULL;
    sqlite3_stmt *stmt = NULL;
    int code = CLI_GO;
    int rc = sqlite3_open_v2(path, &connection, SQLITE_OPEN_READONLY, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(connection, 5000);
        rc = sqlite3_prepare_v2(connection,
                                "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = "
                                "'godwit_meta'",
                                -1, &stmt, NULL);
    }
    if (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_DONE) {
        code = cli_fail("%s: this database is not set up for syncing yet", path);
        fprintf(stderr, "'godwit init %s --url URL' does that; no network is needed.\n", path);
    }
    sqlite3_finalize(stmt);
    sqlite3_close(connection);
    return code;
}

/* The file, if it is there, and the folder it is in. */
static bool writable(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len >= sizeof folder) {
        return true;
    }
    snprintf(folder, sizeof folder, "%.*s", (int)len, path);
    return access(len     ? folder
                  : slash ? "/"
                          : ".",
                  W_OK) == 0 &&
           (access(path, F_OK) != 0 || access(path, W_OK) == 0);
}

int cli_open(const char *path, cli_open_mode mode, const godwit_host *host, godwit **out) {
    char reason[256] = "";
    godwit_options options = {.error = reason, .error_bytes = sizeof reason};
    if (host) {
        options.host = *host;
    }
    *out = NULL;
    int code = check_file(path, mode);
    if (code == CLI_GO && mode == CLI_OPEN_TRACKED) {
        code = check_tracked(path);
    }
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_open(path, &options, out);
    if (status == GODWIT_IO && !writable(path)) {
        status = GODWIT_READONLY; /* SQLite can't open a WAL database without its -shm file */
        reason[0] = '\0';
    }
    if (status != GODWIT_OK) {
        return cli_explain_text(path, "opening", status,
                                reason[0] ? reason : godwit_status_text(status));
    }
    return CLI_GO;
}

slice cli_setting(godwit *g, arena *a, const char *key) {
    sqlite3_stmt *stmt = NULL;
    slice found = {0};
    if (cli_prepare(g, "SELECT v FROM godwit_meta WHERE k = ?1 AND v IS NOT NULL", &stmt) !=
        CLI_GO) {
        return found;
    }
    sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        found = arena_copy(a, (slice){(const char *)sqlite3_column_text(stmt, 0),
                                      (size_t)sqlite3_column_bytes(stmt, 0)});
    }
    sqlite3_finalize(stmt);
    return found;
}
