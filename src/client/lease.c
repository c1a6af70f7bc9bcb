/* One syncing handle at a time, across threads and processes: a row with the holder's process, when
 * that process began, and a time after which it counts for nothing.
 *
 * A holder that is gone - no such process, or another one under its number - loses the lease at
 * once. `until` is the proof of holding: whoever takes the lease writes a value that was not there
 * before. */
#include "client/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Field 22 of /proc/PID/stat: start time in clock ticks since boot. 0 = can't tell (no /proc). */
static int64_t process_start(int64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return 0;
    }
    ssize_t n = read(file, text, sizeof text - 1);
    (void)close(file);
    if (n <= 0) {
        return 0;
    }
    text[n] = 0;
    const char *at = strrchr(text, ')'); /* the name may hold anything, spaces and brackets too */
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? strtoll(at + 1, NULL, 10) : 0;
}

static bool alive(int64_t pid, int64_t started) {
    if (pid <= 0 || (kill((pid_t)pid, 0) != 0 && errno == ESRCH)) {
        return false;
    }
    int64_t now = process_start(pid);
    return now == 0 || started == 0 || now == started;
}

typedef struct {
    bool found;
    int64_t pid, started, until;
} holder;

static godwit_status read_holder(godwit *g, holder *h) {
    sqlite3_stmt *stmt = NULL;
    memset(h, 0, sizeof *h);
    godwit_status status =
        db_prepare(&g->db, "SELECT pid, started, until FROM godwit_lease WHERE one = 1", &stmt);
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &h->found);
    }
    if (status == GODWIT_OK && h->found) {
        h->pid = sqlite3_column_int64(stmt, 0);
        h->started = sqlite3_column_int64(stmt, 1);
        h->until = sqlite3_column_int64(stmt, 2);
    }
    db_done(&g->db, stmt);
    return status;
}

static godwit_status take(godwit *g, pump *p, int64_t until_ms) {
    holder h;
    int64_t pid = (int64_t)getpid();
    godwit_status status = read_holder(g, &h);
    if (status != GODWIT_OK) {
        return status;
    }
    bool mine = h.found && p->lease_until && h.pid == pid && h.until == p->lease_until;
    int64_t left_ms = h.until - client_wall_ms(g);
    /* further ahead than anyone takes it: the clock was set back since, it says nothing any more */
    bool held = h.found && left_ms > 0 && left_ms <= LEASE_MAX_MS + 1000;
    if (held && !mine && alive(h.pid, h.started)) {
        return client_fail(g, GODWIT_BUSY, "process %lld is syncing this database",
                           (long long)h.pid);
    }
    if (held && until_ms <= h.until) {
        until_ms = h.until + 1; /* never a value somebody else may hold as proof */
    }
    status = db_run(
        &g->db,
        "INSERT OR REPLACE INTO godwit_lease (one, pid, started, until) VALUES (1, ?1, ?2, ?3)",
        "iii", pid, p->process_start, until_ms);
    if (status == GODWIT_OK) {
        p->lease_until = until_ms;
    }
    return status;
}

godwit_status lease_take(godwit *g, pump *p, int64_t until_ms) {
    if (!p->lease_started) {
        p->lease_started = true;
        p->process_start = process_start((int64_t)getpid());
    }
    int64_t before = p->lease_until;
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = take(g, p, until_ms);
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        p->lease_until = before;
    }
    return status;
}

void lease_release(godwit *g, pump *p) {
    /* no handle: the connection is being destroyed (client_abandon) */
    if (p->lease_until && g->db.handle && sqlite3_get_autocommit(g->db.handle)) {
        godwit_status status =
            db_run(&g->db, "DELETE FROM godwit_lease WHERE pid = ?1 AND until = ?2", "ii",
                   (int64_t)getpid(), p->lease_until);
        if (status == GODWIT_OK) {
            p->lease_until = 0;
        } else { /* a full disk: it stays ours to take again, or runs out, or ends with this process
                  */
            client_log(g, GODWIT_LOG_WARN, "event=lease-kept reason=%s",
                       godwit_status_name(status));
        }
    }
}
