/* backup: one consistent, checked copy of a server's data folder or of an application's database,
 * while both go on working. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/copying.h"

static const char help[] =
    "Usage: godwit backup SOURCE TARGET [--json]\n\n"
    "Copies SOURCE, the data folder of a server or an application's database, to TARGET, which\n"
    "must not exist yet. The copy is one state of it, the one at the beginning; the server or the\n"
    "application may go on writing meanwhile. It is read through before it gets its name.\n\n"
    "A data folder's backup is a data folder: its store and the secret that signs tokens. Keep it\n"
    "as safe as the server. A database's backup holds the rows, the queue, and the token if 'init\n"
    "--token' stored one; synced from somewhere else it is a device of its own. A store in\n"
    "PostgreSQL is backed up with pg_dump.\n\n"
    "Options:\n"
    "  --json    what was written, as JSON\n\n"
    "Examples:\n"
    "  godwit backup /var/lib/godwit /backup/godwit-$(date +%F)\n"
    "  godwit backup app.db app-before-update.db\n"
    "  godwit restore /backup/godwit-2026-01-02 /var/lib/godwit --force\n";

static int into_folder(copying *c, const char *source, const char *folder) {
    char from[PATH_MAX], to[PATH_MAX];
    int code = copying_join(from, source, "store.db");
    if (code == CLI_GO && !copying_exists(from)) {
        (void)cli_fail("%s: there is no store in this folder", source);
        fprintf(stderr, "A store in PostgreSQL is backed up with pg_dump.\n");
        return CLI_FAILED;
    }
    if (code == CLI_GO && mkdir(folder, 0700) != 0) {
        return cli_fail("%s: %s", folder, strerror(errno));
    }
    code = code == CLI_GO ? copying_join(to, folder, "store.db") : code;
    code = code == CLI_GO ? copying_database(c, from, to, COPYING_STORE) : code;
    code = code == CLI_GO ? copying_join(from, source, "secret") : code;
    if (code == CLI_GO && copying_exists(from)) {
        code = copying_join(to, folder, "secret");
        code = code == CLI_GO ? copying_file(c, from, to) : code;
    }
    return code;
}

static void forget_folder(const char *folder) {
    static const char *const names[] = {"store.db", "secret"};
    char path[PATH_MAX + 16];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    (void)rmdir(folder);
}

static int run(copying *c, const char *source, const char *target) {
    char part[PATH_MAX];
    if (!copying_exists(source)) {
        return cli_fail("%s: no such file or folder", source);
    }
    if (copying_exists(target)) {
        return cli_fail("%s exists already: a backup takes a name of its own", target);
    }
    bool folder = copying_is_folder(source);
    int code = copying_part(part, target);
    if (code == CLI_GO) {
        code = folder ? into_folder(c, source, part)
                      : copying_database(c, source, part, COPYING_DEVICE);
    }
    code = code == CLI_GO ? copying_place(part, target) : code;
    if (code != CLI_GO && folder) {
        forget_folder(part);
    }
    return code;
}

int cli_backup(int argc, char **argv) {
    bool as_json = false;
    const cli_option options[] = {{.name = "--json", .flag = &as_json}};
    const cli_spec spec = {"backup", help, options, COUNT_OF(options), 2, 2};
    copying c = {.verb = "backup"};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code == CLI_GO) {
        code = run(&c, argv[1], argv[2]);
    }
    return code == CLI_GO
               ? copying_report(&c, as_json, argv[1], argv[2], "'godwit restore' puts it back.")
               : code;
}
