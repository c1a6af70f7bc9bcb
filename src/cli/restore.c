/* restore: puts a backup in the place of a data folder's store or of an application's database.
 *
 * Refuses while somebody has the place open, and without --force where something is; what was there
 * is kept beside it as NAME.replaced. */
#include <errno.h>
#include <unistd.h>

#include "cli/copying.h"
#include "db/copy.h"
#include "server/secret.h"

static const char help[] =
    "Usage: godwit restore BACKUP TARGET [--force] [--json]\n\n"
    "Puts BACKUP, made by 'godwit backup', in the place of TARGET: the data folder of a server "
    "that\n"
    "is stopped, or the database of an application that is closed. Nobody has to be told: devices\n"
    "send a restored server what it lacks of theirs, and a restored database takes a new device "
    "id\n"
    "at its next sync, whether or not the device it was made of is still in use.\n\n"
    "Options:\n"
    "  --force   also where TARGET has a store or database already; it is kept as NAME.replaced\n"
    "  --json    what was written, as JSON\n\n"
    "Examples:\n"
    "  godwit restore /backup/godwit-2026-01-02 /var/lib/godwit --force\n"
    "  godwit restore app-before-update.db app.db --force\n"
    "  godwit restore /backup/godwit-2026-01-02 ./copy-to-look-at\n";

/* Nobody has it open, and it may be replaced. A damaged database is no reason to keep it. */
static int check_place(const char *path, bool force) {
    char message[256];
    if (!copying_exists(path)) {
        return CLI_GO;
    }
    if (copying_is_folder(path)) {
        return cli_fail("%s: this is a folder, and the backup is a database", path);
    }
    if (!force) {
        return cli_fail("%s exists: --force replaces it and keeps it as %s.replaced", path, path);
    }
    godwit_status status = db_alone(path, message);
    if (status == GODWIT_BUSY) {
        return cli_fail("%s is open in another process: close that first", path);
    }
    return status == GODWIT_OK || status == GODWIT_CORRUPT
               ? CLI_GO
               : cli_explain_text(path, "looking at what is there", status, message);
}

/* The file gets a second name, so that the first is never without a database. A log is there only
 * where the database is damaged; it must not meet another one. */
static int keep_replaced(const char *path) {
    static const char *const ends[] = {"-wal", "-shm", "-journal", ""};
    char from[PATH_MAX + 16], to[PATH_MAX + 32];
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        snprintf(from, sizeof from, "%s%s", path, ends[i]);
        snprintf(to, sizeof to, "%s.replaced%s", path, ends[i]);
        (void)remove(to);
        bool kept = *ends[i] == '\0' && link(from, to) == 0;
        if (!kept && rename(from, to) != 0 && errno != ENOENT) {
            return cli_fail("%s: %s", from, strerror(errno));
        }
    }
    return CLI_GO;
}

static int replace(copying *c, const char *from, const char *path, copying_kind kind, bool force) {
    char part[PATH_MAX];
    int code = check_place(path, force);
    code = code == CLI_GO ? copying_part(part, path) : code;
    code = code == CLI_GO ? copying_database(c, from, part, kind) : code;
    if (code == CLI_GO) {
        code = keep_replaced(path);
        code = code == CLI_GO ? copying_place(part, path) : code;
        if (code != CLI_GO) {
            (void)remove(part);
        }
    }
    return code;
}

/* A secret that is there stays: tokens were signed with it. */
static int restore_locked(copying *c, const char *backup, const char *data, bool force) {
    char from[PATH_MAX], to[PATH_MAX];
    int code = copying_join(from, backup, "store.db");
    code = code == CLI_GO ? copying_join(to, data, "store.db") : code;
    code = code == CLI_GO ? replace(c, from, to, COPYING_STORE, force) : code;
    code = code == CLI_GO ? copying_join(from, backup, "secret") : code;
    code = code == CLI_GO ? copying_join(to, data, "secret") : code;
    if (code == CLI_GO && copying_exists(from) && !copying_exists(to)) {
        code = copying_file(c, from, to);
    }
    return code;
}

static int restore_folder(copying *c, const char *backup, const char *data, bool force) {
    char message[512];
    int lock = -1;
    if (copying_exists(data) && !copying_is_folder(data)) {
        return cli_fail("%s: this is a file, and the backup is a data folder", data);
    }
    if (secret_folder(data, message) || secret_lock(data, &lock, message)) {
        return cli_fail("%s", message);
    }
    int code = restore_locked(c, backup, data, force);
    close(lock);
    return code;
}

int cli_restore(int argc, char **argv) {
    bool as_json = false, force = false;
    const cli_option options[] = {{.name = "--json", .flag = &as_json},
                                  {.name = "--force", .flag = &force}};
    const cli_spec spec = {"restore", help, options, COUNT_OF(options), 2, 2};
    copying c = {.verb = "restore"};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    const char *backup = argv[1], *target = argv[2];
    bool folder = copying_is_folder(backup);
    if (!copying_exists(backup)) {
        code = cli_fail("%s: no such file or folder", backup);
    } else {
        code = folder ? restore_folder(&c, backup, target, force)
                      : replace(&c, backup, target, COPYING_DEVICE, force);
    }
    return code == CLI_GO ? copying_report(&c, as_json, backup, target,
                                           folder ? "Start the server; devices send what it lacks."
                                                  : "The next sync takes a new device id.")
                          : code;
}
