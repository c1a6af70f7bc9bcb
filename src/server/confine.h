/* Giving up what the daemon does not need: the user it was started as, files that are not its own,
 * system calls that no server makes.
 *
 *   confine_user    after sockets are bound and keys are read; before any thread
 *   confine_files   landlock: only what is listed can be opened from then on, by children too
 *   confine_calls   seccomp: what serves to break out fails with EPERM
 *
 * Each is for the whole process and for ever, so they are called before the first thread is made.
 */
#ifndef SERVER_CONFINE_H
#define SERVER_CONFINE_H

#include "core/base.h"

typedef enum {
    CONFINE_READ,    /* files below it may be read */
    CONFINE_EXECUTE, /* ... and run, or loaded */
    CONFINE_WRITE    /* ... and made, written, removed */
} confine_right;

typedef struct {
    const char *path; /* a file or a folder; NULL or absent: nothing to allow */
    confine_right right;
    bool folder_of; /* the folder it is in: the file may be replaced by another */
} confine_path;

/* Whether the three would be possible; user NULL: stays who it is. Changes nothing. */
godwit_status confine_check(const char *user, bool harden, char message[512]) MUST_USE;
/* Becomes that user, with their groups. INVALID: no such user, or not ours to change. */
godwit_status confine_user(const char *name, char message[512]) MUST_USE;
/* UNSUPPORTED: the kernel has no landlock. */
godwit_status confine_files(const confine_path *paths, size_t count, char message[512]) MUST_USE;
/* UNSUPPORTED: this build or this kernel has no seccomp. */
godwit_status confine_calls(char message[512]) MUST_USE;

#endif
