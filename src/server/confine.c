/* Linux's own means, without privileges. See confine.h.
 *
 * The system calls are a list of what is refused, not of what is allowed: libraries (resolver, TLS,
 * PostgreSQL's client) change what they call from one release to the next, and a server that dies
 * of an update is no safer. Who wants a list of what is allowed has systemd's SystemCallFilter, in
 * deploy/godwit.service. */
#define _GNU_SOURCE /* setgroups, syscall */

#include "server/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/landlock.h>

#ifdef GODWIT_SECCOMP
#include <seccomp.h>
#endif

/* ---- the user ---- */

static godwit_status find_user(const char *name, const struct passwd **out, char message[512]) {
    const struct passwd *user = getpwnam(name);
    *out = user;
    if (!user) {
        snprintf(message, 512, "user: there is no '%.100s' on this machine", name);
    } else if (user->pw_uid == 0) {
        snprintf(message, 512, "user = %.100s gives up nothing: name one without privileges", name);
    } else if (user->pw_uid != geteuid() && geteuid() != 0) {
        snprintf(message, 512,
                 "only root can become '%.100s': start it as root, or as that user without --user",
                 name);
    } else {
        return GODWIT_OK;
    }
    return GODWIT_INVALID;
}

godwit_status confine_user(const char *name, char message[512]) {
    const struct passwd *user;
    godwit_status status = find_user(name, &user, message);
    if (status || user->pw_uid == geteuid()) {
        return status;
    }
    if (initgroups(name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0 || setuid(0) == 0) {
        snprintf(message, 512, "can't become '%.100s': %s", name, strerror(errno));
        return GODWIT_IO;
    }
    return GODWIT_OK;
}

/* ---- files ---- */

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FILE_RIGHTS                                                                                \
    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE |   \
     TRUNCATE_RIGHT)
#define TRUNCATE_RIGHT (1ULL << 14) /* LANDLOCK_ACCESS_FS_TRUNCATE, of newer headers */
#define REFER_RIGHT    (1ULL << 13)
#define FIRST_RIGHTS   ((1ULL << 13) - 1) /* all of the first version */

static uint64_t handled_by(long version) {
    return FIRST_RIGHTS | (version >= 2 ? REFER_RIGHT : 0) | (version >= 3 ? TRUNCATE_RIGHT : 0);
}

static uint64_t rights_of(confine_right right) {
    switch (right) {
    case CONFINE_READ:
        return READ_RIGHTS;
    case CONFINE_EXECUTE:
        return READ_RIGHTS | LANDLOCK_ACCESS_FS_EXECUTE;
    case CONFINE_WRITE:
        return READ_RIGHTS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
               LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
               LANDLOCK_ACCESS_FS_REMOVE_DIR | REFER_RIGHT | TRUNCATE_RIGHT;
    }
    return 0;
}

/* false: it is there and can't be allowed. What is absent needs no permission. */
static bool allow(int rules, const confine_path *p, uint64_t handled) {
    char path[4096];
    struct stat info;
    snprintf(path, sizeof path, "%s", p->path);
    if (p->folder_of) {
        char *slash = strrchr(path, '/');
        if (slash && slash != path) {
            *slash = 0;
        } else {
            snprintf(path, sizeof path, "%s", slash ? "/" : ".");
        }
    }
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES;
    }
    uint64_t rights = rights_of(p->right) & handled;
    if (fstat(fd, &info) == 0 && !S_ISDIR(info.st_mode)) {
        rights &= FILE_RIGHTS;
    }
    struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
    long code = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int reason = errno;
    close(fd);
    errno = reason;
    return code == 0;
}

static godwit_status restrict_to(int rules, const confine_path *paths, size_t count,
                                 uint64_t handled, char message[512]) {
    for (size_t i = 0; i < count; i++) {
        if (paths[i].path && *paths[i].path && !allow(rules, &paths[i], handled)) {
            snprintf(message, 512, "harden: %.300s: %s", paths[i].path, strerror(errno));
            return GODWIT_IO;
        }
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_landlock_restrict_self, rules, 0) != 0) {
        snprintf(message, 512, "harden: landlock: %s", strerror(errno));
        return GODWIT_UNSUPPORTED;
    }
    return GODWIT_OK;
}

static long landlock_version(char message[512]) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1) {
        snprintf(message, 512,
                 "harden = yes needs landlock, which this kernel does not have (Linux 5.13 and "
                 "lsm=landlock): set harden = no");
    }
    return version;
}

godwit_status confine_files(const confine_path *paths, size_t count, char message[512]) {
    long version = landlock_version(message);
    if (version < 1) {
        return GODWIT_UNSUPPORTED;
    }
    struct landlock_ruleset_attr attributes = {.handled_access_fs = handled_by(version)};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (rules < 0) {
        snprintf(message, 512, "harden: landlock: %s", strerror(errno));
        return GODWIT_UNSUPPORTED;
    }
    godwit_status status = restrict_to(rules, paths, count, attributes.handled_access_fs, message);
    close(rules);
    return status;
}

/* ---- system calls ---- */

#ifdef GODWIT_SECCOMP
godwit_status confine_calls(char message[512]) {
    static const char *const refused[] = {"acct",
                                          "add_key",
                                          "adjtimex",
                                          "bpf",
                                          "chroot",
                                          "clock_adjtime",
                                          "clock_settime",
                                          "create_module",
                                          "delete_module",
                                          "fanotify_init",
                                          "finit_module",
                                          "fsconfig",
                                          "fsmount",
                                          "fsopen",
                                          "fspick",
                                          "init_module",
                                          "io_uring_enter",
                                          "io_uring_register",
                                          "io_uring_setup",
                                          "ioperm",
                                          "iopl",
                                          "kcmp",
                                          "kexec_file_load",
                                          "kexec_load",
                                          "keyctl",
                                          "lookup_dcookie",
                                          "mount",
                                          "mount_setattr",
                                          "move_mount",
                                          "move_pages",
                                          "name_to_handle_at",
                                          "nfsservctl",
                                          "open_by_handle_at",
                                          "open_tree",
                                          "perf_event_open",
                                          "personality",
                                          "pidfd_getfd",
                                          "pivot_root",
                                          "process_vm_readv",
                                          "process_vm_writev",
                                          "ptrace",
                                          "quotactl",
                                          "reboot",
                                          "request_key",
                                          "setdomainname",
                                          "sethostname",
                                          "setns",
                                          "settimeofday",
                                          "swapoff",
                                          "swapon",
                                          "syslog",
                                          "umount",
                                          "umount2",
                                          "unshare",
                                          "userfaultfd",
                                          "vhangup"};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int code = filter ? 0 : -ENOMEM;
    for (size_t i = 0; i < COUNT_OF(refused) && code == 0; i++) {
        int number = seccomp_syscall_resolve_name(refused[i]);
        if (number >= 0) { /* else this architecture does not have it */
            code = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
        }
    }
    code = code ? code : seccomp_load(filter); /* sets no_new_privs itself */
    seccomp_release(filter);
    if (code != 0) {
        snprintf(message, 512,
                 "harden = yes needs seccomp, which this kernel refuses (%s): set harden = no",
                 strerror(-code));
        return GODWIT_UNSUPPORTED;
    }
    return GODWIT_OK;
}
#else
godwit_status confine_calls(char message[512]) {
    snprintf(message, 512,
             "harden = yes needs a build with libseccomp (libseccomp-dev): set harden = no");
    return GODWIT_UNSUPPORTED;
}
#endif

godwit_status confine_check(const char *user, bool harden, char message[512]) {
    const struct passwd *found;
    godwit_status status = user ? find_user(user, &found, message) : GODWIT_OK;
    if (status || !harden) {
        return status;
    }
#ifdef GODWIT_SECCOMP
    return landlock_version(message) < 1 ? GODWIT_UNSUPPORTED : GODWIT_OK;
#else
    return confine_calls(message); /* says what is missing */
#endif
}
