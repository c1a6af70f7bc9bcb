/* What backup and restore share: telling what a database is, and making a checked copy of it beside
 * its later place, which then takes that place by one rename. */
#ifndef CLI_COPYING_H
#define CLI_COPYING_H

#include <limits.h>

#include "cli/cli.h"

typedef enum {
    COPYING_DEVICE, /* an application's database: its copy is another replica */
    COPYING_STORE   /* store.db of a server's folder */
} copying_kind;

typedef struct {
    const char *verb;
    int64_t bytes; /* written so far */
    bool shown;    /* a progress line stands on the terminal */
} copying;

/* "DIR/name"; CLI_GO or the exit code. */
int copying_join(char out[PATH_MAX], const char *folder, const char *name);
/* "PATH.part-PID": where a copy of it is made. */
int copying_part(char out[PATH_MAX], const char *path);
/* Whether there is something, and a folder. */
bool copying_exists(const char *path);
bool copying_is_folder(const char *path);

/* Copies the database in file `from`, one state of it, into the new file `part` (0600), checks it
 * and sees that it is on disk. A device's copy is marked as such. On failure nothing is left of it.
 */
int copying_database(copying *c, const char *from, const char *part, copying_kind kind);
/* Copies a small file, 0600. */
int copying_file(copying *c, const char *from, const char *to);
/* `part` takes the place of `path`, whatever is there, and stays there after a power cut. */
int copying_place(const char *part, const char *path);

/* What was done: a sentence on stderr, or an object on stdout. */
int copying_report(const copying *c, bool as_json, const char *from, const char *to,
                   const char *next_step);

#endif
