/* Copies for backup and restore. See copying.h.
 *
 * Guarantee: under the name asked for there is either what was there before or a whole copy that
 * was read through once; never a half of one. */
#include "cli/copying.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/identity.h"
#include "db/copy.h"

#define BUSY_MS        5000
#define FILE_BYTES_MAX 65536

/* ---- Names ---- */

static int too_long(const char *path) {
    return cli_fail("%.200s..: the path is too long", path);
}

int copying_join(char out[PATH_MAX], const char *folder, const char *name) {
    int len = snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return len > 0 && len < PATH_MAX ? CLI_GO : too_long(folder);
}

/* A folder may be named with a slash behind it. */
int copying_part(char out[PATH_MAX], const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    if (end > PATH_MAX) {
        return too_long(path);
    }
    int len = snprintf(out, PATH_MAX, "%.*s.part-%ld", (int)end, path, (long)getpid());
    return len > 0 && len < PATH_MAX ? CLI_GO : too_long(path);
}

bool copying_exists(const char *path) {
    struct stat about;
    return lstat(path, &about) == 0;
}

bool copying_is_folder(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* ---- Databases ---- */

static void draw(void *context, int64_t done, int64_t total) {
    copying *c = context;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K%s: %lld %%", c->verb,
                (long long)(total > 0 ? done * 100 / total : 100));
        fflush(stderr);
        c->shown = true;
    }
}

static void clear(copying *c) {
    if (c->shown) {
        fputs("\r\033[K", stderr);
        c->shown = false;
    }
}

static int wrong_kind(const char *path, bool device, bool store) {
    if (store) {
        (void)cli_fail("%s: this is the store of a server, name its folder", path);
    } else if (device) {
        (void)cli_fail("%s: this is an application's database, not the store of a server", path);
    } else {
        (void)cli_fail("%s: this database is not one of Godwit's", path);
        fprintf(stderr, "'sqlite3 FILE .backup' copies any database.\n");
    }
    return CLI_FAILED;
}

#define HAS(table) "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '" table "'"

static int check_kind(db *d, const char *path, copying_kind kind) {
    int64_t device = 0, store = 0;
    godwit_status status = db_int(d, &device, HAS("godwit_identity"), "");
    if (status == GODWIT_OK) {
        status = db_int(d, &store, HAS("godwit_commit"), "");
    }
    if (status != GODWIT_OK) {
        return cli_explain_text(path, "reading", status, d->message);
    }
    return (kind == COPYING_DEVICE ? device : store) ? CLI_GO
                                                     : wrong_kind(path, device != 0, store != 0);
}

static int sync_path(const char *path, int flags) {
    int file = open(path, flags | O_CLOEXEC);
    int code = file < 0 || fsync(file) != 0 ? cli_fail("%s: %s", path, strerror(errno)) : CLI_GO;
    if (file >= 0) {
        close(file);
    }
    return code;
}

static int fill(copying *c, db *from, const char *part, copying_kind kind) {
    db to;
    struct stat about;
    int file = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        return cli_fail("%s: %s", part, strerror(errno));
    }
    close(file);
    godwit_status status = db_open(&to, part, SQLITE_OPEN_READWRITE, BUSY_MS);
    if (status == GODWIT_OK) {
        status = db_copy(from, &to, draw, c);
    }
    clear(c);
    if (status == GODWIT_OK && kind == COPYING_DEVICE) {
        status = identity_mark_copy(&to);
    }
    if (status == GODWIT_OK) {
        status = db_check(&to);
    }
    if (status != GODWIT_OK) {
        (void)cli_explain_text(part, "copying", status, to.message);
    }
    db_close(&to);
    if (status == GODWIT_OK && stat(part, &about) == 0) {
        c->bytes += about.st_size;
    }
    return status == GODWIT_OK ? sync_path(part, O_RDONLY) : CLI_FAILED;
}

static void forget(const char *part) {
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char name[PATH_MAX + 16];
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        snprintf(name, sizeof name, "%s%s", part, ends[i]);
        (void)remove(name);
    }
}

int copying_database(copying *c, const char *from_path, const char *part, copying_kind kind) {
    db from;
    if (!copying_exists(from_path)) {
        return cli_fail("%s: no such file", from_path);
    }
    /* for writing, so that a log left by a crash can be taken over */
    godwit_status status = db_open(&from, from_path, SQLITE_OPEN_READWRITE, BUSY_MS);
    if (status != GODWIT_OK) {
        return cli_explain_text(from_path, "opening", status, from.message);
    }
    int code = check_kind(&from, from_path, kind);
    if (code == CLI_GO) {
        code = fill(c, &from, part, kind);
        if (code != CLI_GO) {
            forget(part);
        }
    }
    db_close(&from);
    return code;
}

/* ---- Files ---- */

static bool pass(int in, int out, int64_t *total) {
    char buffer[4096];
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0 && *total <= FILE_BYTES_MAX) {
        if (write(out, buffer, (size_t)got) != got) {
            return false;
        }
        *total += got;
    }
    return got == 0 && fsync(out) == 0;
}

int copying_file(copying *c, const char *from, const char *to) {
    int code = CLI_GO;
    int64_t total = 0;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) {
        return cli_fail("%s: %s", from, strerror(errno));
    }
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0 || !pass(in, out, &total)) {
        code = cli_fail("%s: %s", to, strerror(errno));
    }
    close(in);
    if (out >= 0) {
        close(out);
        if (code != CLI_GO) {
            (void)unlink(to);
        }
    }
    c->bytes += total;
    return code;
}

int copying_place(const char *part, const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(part, '/');
    if (copying_is_folder(part) && sync_path(part, O_RDONLY | O_DIRECTORY) != CLI_GO) {
        return CLI_FAILED;
    }
    if (rename(part, path) != 0) {
        return cli_fail("%s: %s", path, strerror(errno));
    }
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - part) + 1 : 1,
             slash ? part : ".");
    return sync_path(folder, O_RDONLY | O_DIRECTORY);
}

/* ---- The end ---- */

int copying_report(const copying *c, bool as_json, const char *from, const char *to,
                   const char *next_step) {
    if (!as_json) {
        fprintf(stderr, "%s holds one state of %s (%lld KiB), checked. %s\n", to, from,
                (long long)((c->bytes + 1023) / 1024), next_step);
        return CLI_OK;
    }
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    json_key(&b, &first, "source");
    json_write_text(&b, slice_of(from));
    json_key(&b, &first, "target");
    json_write_text(&b, slice_of(to));
    json_key(&b, &first, "bytes");
    json_write_int(&b, c->bytes);
    bytes_char(&b, '}');
    int code = cli_print(&b);
    bytes_deinit(&b);
    return code;
}
