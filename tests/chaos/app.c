/* The application on a device of tools/chaos: writes and reads its own tables until it is killed,
 * and keeps a history of what it was told.
 *
 *   chaos-app APP.db GODWIT.so HISTORY SWITCH DEVICE DEVICES SEED PACE_MS [start]
 *
 * It writes while the file SWITCH is there and reads all the time. "start": the same process also
 * syncs, by godwit_start; SIGUSR1 is then its notice that the network is back. A line of the
 * history is written after COMMIT has returned, with one write(), so that a killed process leaves
 * whole lines:
 *
 *   s N                              started; N = own events found in the database
 *   w N CELL                         event N is committed, it wrote CELL
 *   r COUNTS LASTS PARTS HEADS CELLS TALLY   all that one read transaction saw, by device or by
 * cell */
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEVICES_MAX 16
#define CELLS       8
#define CELL_BYTES  32
#define PARTS       2

typedef struct {
    sqlite3 *db;
    int history;
    const char *writing; /* path of the switch */
    int device, devices;
    uint64_t random;
    int pace_ms;
} app;

typedef struct {
    int64_t counts[DEVICES_MAX], lasts[DEVICES_MAX], parts[DEVICES_MAX], heads[DEVICES_MAX];
    char cells[CELLS][CELL_BYTES];
    int64_t tally;
} view;

static uint64_t draw(app *a) {
    a->random ^= a->random << 13;
    a->random ^= a->random >> 7;
    a->random ^= a->random << 17;
    return a->random;
}

/* Runs one statement; false when it fails, as it does on a full disk or under a lock. */
static bool run(app *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    int rc = sql ? sqlite3_exec(a->db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    return rc == SQLITE_OK;
}

static void note(app *a, const char *line, int len) {
    if (write(a->history, line, (size_t)len) != len) {
        fprintf(stderr, "chaos-app: the history can't be written\n");
        exit(1);
    }
}

/* Column 0 is a device, the others go to `first` and `second` (NULL: not wanted). */
static bool by_device(app *a, const char *sql, int64_t *first, int64_t *second) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(a->db, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int device = sqlite3_column_int(stmt, 0);
        if (device >= 0 && device < a->devices) {
            first[device] = sqlite3_column_int64(stmt, 1);
            if (second) {
                second[device] = sqlite3_column_int64(stmt, 2);
            }
        }
        rc = SQLITE_OK;
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE;
}

static bool events(app *a, view *v) {
    return by_device(a, "SELECT device, count(*), max(n) FROM events GROUP BY device", v->counts,
                     v->lasts);
}

static bool cells(app *a, view *v) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(a->db, "SELECT substr(id, 2), v, (SELECT n FROM tally) FROM cells",
                                -1, &stmt, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int cell = sqlite3_column_int(stmt, 0);
        const char *text = (const char *)sqlite3_column_text(stmt, 1);
        if (cell >= 0 && cell < CELLS && text) {
            snprintf(v->cells[cell], CELL_BYTES, "%s", text);
        }
        v->tally = sqlite3_column_int64(stmt, 2);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE;
}

static bool look(app *a, view *v) {
    memset(v, 0, sizeof *v);
    bool ok = run(a, "BEGIN") && events(a, v) &&
              by_device(a, "SELECT device, count(*) FROM parts GROUP BY device", v->parts, NULL) &&
              by_device(a, "SELECT CAST(substr(id, 2) AS INTEGER), n FROM heads", v->heads, NULL) &&
              cells(a, v);
    (void)run(a, "ROLLBACK");
    return ok;
}

static int list(char *out, size_t size, const int64_t *values, int count) {
    int len = 0;
    for (int i = 0; i < count; i++) {
        len +=
            snprintf(out + len, size - (size_t)len, "%s%lld", i ? "," : " ", (long long)values[i]);
    }
    return len;
}

static void read_all(app *a) {
    view v;
    char line[4096] = "r";
    int len = 1;
    if (!look(a, &v)) {
        return;
    }
    const int64_t *lists[] = {v.counts, v.lasts, v.parts, v.heads};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        len += list(line + len, sizeof line - (size_t)len, lists[i], a->devices);
    }
    for (int i = 0; i < CELLS; i++) {
        len += snprintf(line + len, sizeof line - (size_t)len, "%s%s", i ? "," : " ", v.cells[i]);
    }
    len += snprintf(line + len, sizeof line - (size_t)len, " %lld\n", (long long)v.tally);
    note(a, line, len);
}

/* One event: what was seen before it, its parts, the device's head, one shared cell, and one more
 * in the tally, in one transaction. */
static bool make_event(app *a, view *v, int64_t *n, int *cell) {
    char seen[DEVICES_MAX * 21];
    bool ok = events(a, v);
    (void)list(seen, sizeof seen, v->lasts, a->devices);
    *n = v->lasts[a->device] + 1;
    *cell = (int)(draw(a) % CELLS);
    long long number = (long long)*n;
    ok = ok && run(a, "INSERT INTO events VALUES ('%d-%lld', %d, %lld, '%s', %d)", a->device,
                   number, a->device, number, seen + 1, *cell);
    for (int i = 0; i < PARTS && ok; i++) {
        ok = run(a, "INSERT INTO parts VALUES ('%d-%lld.%d', '%d-%lld', %d)", a->device, number, i,
                 a->device, number, a->device);
    }
    return ok &&
           run(a,
               "INSERT INTO heads VALUES ('h%d', %lld) ON CONFLICT (id) DO UPDATE SET n = "
               "excluded.n",
               a->device, number) &&
           run(a, "UPDATE cells SET v = '%d-%lld' WHERE id = 'c%d'", a->device, number, *cell) &&
           run(a, "UPDATE tally SET n = n + 1");
}

static void write_one(app *a) {
    view v = {0};
    int64_t n = 0;
    int cell = 0;
    char line[80];
    if (!run(a, "BEGIN IMMEDIATE")) {
        return;
    }
    if (!make_event(a, &v, &n, &cell) || !run(a, "COMMIT")) {
        (void)run(a, "ROLLBACK");
        return;
    }
    note(a, line, snprintf(line, sizeof line, "w %lld %d\n", (long long)n, cell));
}

static bool open_database(app *a, const char *path, const char *extension) {
    char *message = NULL;
    view v = {0};
    char line[40];
    if (sqlite3_open(path, &a->db) != SQLITE_OK) {
        return false;
    }
    sqlite3_busy_timeout(a->db, 20000);
    (void)sqlite3_db_config(a->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(a->db, extension, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "chaos-app: %s\n", message ? message : "no extension");
        return false;
    }
    if (!run(a, "PRAGMA foreign_keys = ON") || !events(a, &v)) {
        return false;
    }
    note(a, line, snprintf(line, sizeof line, "s %lld\n", (long long)v.lasts[a->device]));
    return true;
}

/* Until SIGTERM. */
static void work(app *a, bool syncs) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    bool started = !syncs;
    for (;;) {
        /* on a full disk it starts later */
        started = started || run(a, "SELECT godwit_start()");
        int64_t ms = a->pace_ms / 2 + (int64_t)(draw(a) % (uint64_t)a->pace_ms);
        const struct timespec pace = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
        int got = sigtimedwait(&set, NULL, &pace);
        if (got == SIGTERM) {
            break;
        }
        if (got == SIGUSR1 && syncs && !run(a, "SELECT godwit_notify_network()")) {
            fprintf(stderr, "chaos-app: the notice was refused: %s\n", sqlite3_errmsg(a->db));
        }
        if (access(a->writing, F_OK) == 0) {
            write_one(a);
        }
        read_all(a);
    }
    (void)run(a, "SELECT godwit_stop()");
}

int main(int argc, char **argv) {
    if (argc < 9) {
        fprintf(stderr, "chaos-app: see tools/chaos\n");
        return 2;
    }
    app a = {.writing = argv[4],
             .device = atoi(argv[5]),
             .devices = atoi(argv[6]),
             .random = strtoull(argv[7], NULL, 10) * UINT64_C(2654435761) + 1,
             .pace_ms = atoi(argv[8])};
    a.history = open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (a.history < 0 || a.devices > DEVICES_MAX || a.pace_ms < 1) {
        fprintf(stderr, "chaos-app: wrong arguments\n");
        return 2;
    }
    bool ok = open_database(&a, argv[1], argv[2]);
    if (ok) {
        work(&a, argc > 9);
    }
    sqlite3_close(a.db);
    return ok ? 0 : 1;
}
