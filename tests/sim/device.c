/* An application with its database: opening, writing, deciding conflicts, dying. See sim.h. */
#include <stdio.h>
#include <stdlib.h>

#include "sim/query.h"
#include "sim/sim.h"

/* ---- what the library is given ---- */

static int64_t wall(void *context) {
    const device *d = context;
    return d->frozen_ms ? d->frozen_ms : d->w->now_ms + d->skew_ms;
}

static int64_t mono(void *context) {
    const device *d = context;
    return d->w->now_ms - d->boot_ms;
}

static int entropy(void *context, void *buffer, size_t size) {
    device *d = context;
    for (size_t i = 0; i < size; i++) {
        ((uint8_t *)buffer)[i] = (uint8_t)sim_random_next(&d->w->random);
    }
    return 0;
}

static void log_line(void *context, godwit_log_level level, const char *line) {
    device *d = context;
    (void)level;
    d->w->seen[SEEN_REKEYED] += strstr(line, "event=rekey") != NULL;
    d->w->seen[SEEN_RECONCILED] += strstr(line, "event=reconcile") != NULL;
    sim_trace(d->w, "device %d says %s", d->number, line);
}

/* What no backup carries along: the phone itself. */
static int place(void *context, const char *path, uint8_t out[16]) {
    const device *d = context;
    (void)path;
    memset(out, 1 + d->number, 16);
    if (d->w->swarm.crowd || d->w->swarm.moves) {
        int starts = d->w->swarm.crowd ? d->epoch : d->epoch / 3;
        memcpy(out, &starts, sizeof starts);
    }
    return d->w->swarm.place ? 0 : -1;
}

static bool enter(device *d) {
    d->w->current = d->number;
    return d->g != NULL;
}

static uint64_t disk_random(void *context) {
    return sim_random_next(&((world *)context)->random);
}

/* A status that no fault explains. */
static void judge_status(device *d, godwit_status status, const char *what) {
    sim_trace(d->w, "device %d %s: %s", d->number, what, godwit_status_name(status));
    if (status == GODWIT_CORRUPT || status == GODWIT_INTERNAL || status == GODWIT_MISUSE) {
        sim_fail(d->w, "I28", "device %d: %s: %s: %s", d->number, what, godwit_status_name(status),
                 godwit_message(d->g));
    }
}

bool device_exec(device *d, const char *sql) {
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* ---- life ---- */

static bool has_column(device *d) {
    d->disk.quiet++;
    bool has = query_int(d->db, "SELECT count(*) FROM pragma_table_info('pins') WHERE name ="
                                " 'extra'") > 0;
    d->disk.quiet--;
    return has;
}

static bool open_attached(device *d, const godwit_options *options) {
    static const char *const modes[] = {"WAL", "DELETE", "TRUNCATE", "PERSIST"};
    char sql[128];
    if (sqlite3_open(d->path, &d->db) != SQLITE_OK) {
        return false;
    }
    (void)sqlite3_busy_timeout(d->db, 2000);
    snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s; PRAGMA synchronous = EXTRA",
             modes[d->w->swarm.journal]);
    return device_exec(d, sql) && godwit_attach(d->db, options, &d->g) == GODWIT_OK;
}

static void close_handles(device *d) {
    query_forget(d->db);
    godwit_close(d->g);
    d->g = NULL;
    if (d->attached) {
        (void)sqlite3_close_v2(d->db);
    }
    d->db = NULL;
    net_drop_device(d->w, d->number);
    d->out_id = 0;
    d->epoch++;
}

bool device_open(device *d) {
    godwit_options options = {.host = {.context = d,
                                       .wall_ms = wall,
                                       .mono_ms = mono,
                                       .entropy = entropy,
                                       .log = log_line,
                                       .exchange = device_exchange,
                                       .place = place},
                              .busy_timeout_ms = 2000};
    d->w->current = d->number;
    d->boot_ms = d->w->now_ms - 1;
    bool ok = false;
    if (d->attached) {
        ok = open_attached(d, &options);
    } else {
        godwit_status status = godwit_open(d->path, &options, &d->g);
        judge_status(d, status, "open");
        ok = status == GODWIT_OK;
        d->db = ok ? godwit_connection(d->g) : NULL;
    }
    if (ok) {
        d->disk.quiet++; /* the process that held the lease is gone, its number taken by nobody */
        (void)device_exec(d, "PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 12;"
                             "DELETE FROM godwit_lease");
        d->disk.quiet--;
    } else {
        close_handles(d);
    }
    if (d->disk.halted) {
        device_reap(d);
        return false;
    }
    if (ok && d->exists) {
        d->upgraded = has_column(d);
        oracle_device_check(d->w, d->number, d->writing);
        d->writing = false;
    }
    return ok;
}

void device_close(device *d) {
    enter(d);
    close_handles(d);
    device_reap(d);
}

void device_die(device *d, disk_loss loss) {
    sim_trace(d->w, "device %d dies (%s), journal %d, %s", d->number,
              loss == DISK_POWER_LOSS ? "power" : "killed", d->w->swarm.journal,
              d->disk.garbles ? "garbles" : "keeps or drops");
    d->w->seen[loss == DISK_POWER_LOSS ? SEEN_POWER_DEVICE : SEEN_KILLED_DEVICE]++;
    enter(d);
    disk_halt(&d->disk);
    close_handles(d);
    disk_restart(&d->disk, loss);
    d->w->faults++;
}

void device_reap(device *d) {
    if (d->disk.halted) {
        device_die(d, sim_chance(d->w, d->w->swarm.power) ? DISK_POWER_LOSS : DISK_PROCESS_DIES);
    }
}

void device_settings(device *d) {
    bytes token;
    bytes_init(&token, NULL, 0);
    server_mint(d->w, d, &token);
    godwit_settings settings = {.url = "http://server",
                                .scope = d->scope ? "s1" : "s0",
                                .token = token.ptr,
                                .keep_archive = d->w->swarm.short_archive ? "6h" : NULL};
    if (enter(d)) {
        judge_status(d, godwit_init(d->g, &settings), "init");
    }
    bytes_deinit(&token);
    device_reap(d);
}

#define PINS "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER, lat REAL"
#define FORMS                                                                                      \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"   \
    " body TEXT, slug TEXT UNIQUE);"

#define TALLIES                                                                                    \
    "CREATE TABLE tallies(id TEXT PRIMARY KEY, title TEXT, total INTEGER, tags TEXT, top INTEGER," \
    " low INTEGER);"

void device_track(device *d) {
    if (!enter(d)) {
        return;
    }
    judge_status(d, godwit_track(d->g, "pins", NULL), "track pins");
    if (d->has_forms && !d->disk.halted) {
        judge_status(d, godwit_track(d->g, "forms", NULL), "track forms");
    }
    if (d->w->swarm.tables > 2 && !d->disk.halted) {
        judge_status(d, godwit_track(d->g, "tallies", NULL), "track tallies");
    }
}

void device_create(world *w, int scope) {
    device *d = &w->devices[w->device_count];
    memset(d, 0, sizeof *d);
    d->w = w;
    d->number = w->device_count++;
    d->scope = scope;
    d->has_forms = true;
    d->attached = w->swarm.journal != 0;
    d->upgraded = w->server.upgraded;
    d->token_exp = w->now_ms / 1000 + 86400 * 365;
    d->skew_ms = (int64_t)sim_below(w, 2000) - 1000;
    snprintf(d->user, sizeof d->user, "user%d", d->number % 3 + scope * 3);
    snprintf(d->folder, sizeof d->folder, "/dev%d/", d->number);
    snprintf(d->path, sizeof d->path, "/dev%d/app.db", d->number);
    disk_init(&d->disk, d->folder, disk_random, w);
    d->disk.garbles = sim_chance(w, 2);
    disk_attach(&d->disk);
    disk_init(&d->saved, "", disk_random, w);
    d->disk.quiet++;
    if (!device_open(d) || !device_exec(d, d->upgraded ? PINS ", extra TEXT);" : PINS ");") ||
        !device_exec(d, FORMS) || (w->swarm.tables > 2 && !device_exec(d, TALLIES))) {
        sim_fail(w, "I28", "device %d can't be set up", d->number);
    }
    device_settings(d);
    device_track(d);
    d->disk.quiet--;
    d->exists = true;
    d->disk.faults = w->swarm.device_disk;
    oracle_device_check(w, d->number, true);
}

void device_forget(device *d) {
    if (d->g) {
        d->disk.quiet++;
        close_handles(d);
    }
    disk_detach(&d->disk);
    disk_deinit(&d->disk);
    disk_deinit(&d->saved);
    for (size_t i = 0; i < OLD_MAX; i++) {
        if (d->old[i].used) {
            bytes_deinit(&d->old[i].body);
        }
    }
}

void device_copy(device *from, device *to) {
    disk_copy(&to->disk, &from->disk);
    memcpy(to->know.rows, from->know.rows, sizeof to->know.rows);
    to->know.log_seen = from->know.log_seen;
    to->know.op_seen = from->know.op_seen;
    to->know.last_op = from->know.last_op;
    memcpy(to->know.written, from->know.written, sizeof to->know.written);
    to->know.written_at = from->know.written_at;
    to->copied = from->copied = true;
    for (int i = 0; i < from->w->oracle.op_count; i++) { /* both have them, and may send them */
        known_op *k = &from->w->oracle.ops[i];
        k->shared = k->shared || k->maker == from->number;
    }
    to->writing = from->writing;
    to->upgraded = from->upgraded;
    to->late_column = from->late_column;
    to->migrating = from->migrating;
    to->has_forms = from->has_forms;
}

/* ---- the application writes ---- */

static void statement(device *d, bytes *b) {
    world *w = d->w;
    const swarm *s = &w->swarm;
    char home = d->scope && !sim_chance(w, 12) ? 'b' : 'a'; /* at times a key of the other tenant */
    int pin = (int)sim_below(w, s->crowd ? 1 : 7), form = (int)sim_below(w, 6),
        n = (int)sim_below(w, 900);
    int slug = s->unique_values ? (int)sim_below(w, 8) : n;
    uint64_t dice = sim_below(w, 14);
    bytes_clear(b);
    if (dice < 3) {
        bytes_printf(b,
                     "INSERT INTO pins(id, title, note, n, lat) VALUES ('%c%d', 'S%d~t%d', "
                     "'S%d~n%d', %d, %s)",
                     home, pin, d->scope, n, d->scope, n, n,
                     s->reals ? "random() / 1e17 + 0.3" : "NULL");
    } else if (dice < 6) {
        bytes_printf(b, "UPDATE pins SET title = 'S%d~t%d' WHERE id = '%c%d'", d->scope, n, home,
                     pin);
    } else if (dice < 7) {
        bytes_printf(b, "UPDATE pins SET note = 'S%d~n%d', n = n + %d WHERE id = '%c%d'", d->scope,
                     n, n, home, pin);
    } else if (dice < 8) {
        bytes_printf(b, "UPDATE pins SET %s WHERE id = '%c%d'",
                     d->upgraded ? "extra = 'x' || random() % 9" : "note = NULL", home, pin);
    } else if (dice < 9) {
        bytes_printf(b,
                     s->deletes ? "DELETE FROM pins WHERE id = '%c%d'"
                                : "UPDATE pins SET n = 0 WHERE id = '%c%d'",
                     home, pin);
    } else if (dice < 11) {
        bytes_printf(b, "INSERT INTO forms VALUES ('%cf%d', '%c%d', 'S%d~b%d', 's%d-%d')", home,
                     form, home, pin, d->scope, n, d->scope, slug);
    } else if (dice < 12) {
        bytes_printf(b, "UPDATE forms SET body = 'S%d~b%d' WHERE id = '%cf%d'", d->scope, n, home,
                     form);
    } else if (dice < 13) {
        bytes_printf(b, "DELETE FROM forms WHERE id = '%cf%d'", home, form);
    } else {
        bytes_printf(b,
                     "INSERT OR REPLACE INTO pins(id, title, note, n, lat) VALUES ('%c%d', "
                     "'S%d~r%d', NULL, %d, NULL)",
                     home, pin, d->scope, n, n);
    }
}

/* A counter, a set, extremes; few rows, so that many write them. */
static void typed_statement(device *d, bytes *b) {
    world *w = d->w;
    char id[8];
    int n = (int)sim_below(w, 900), element = (int)sim_below(w, 8);
    uint64_t dice = sim_below(w, w->swarm.deletes_win ? 15 : 12);
    snprintf(id, sizeof id, "%cy%d", d->scope ? 'b' : 'a', (int)sim_below(w, 3));
    bytes_clear(b);
    if (dice < 2) {
        bytes_printf(b, "INSERT INTO tallies VALUES ('%s', 'S%d~t%d', %d, '[\"e%d\"]', %d, %d)", id,
                     d->scope, n, n % 10, element, n, n);
    } else if (dice < 4) {
        bytes_printf(b, "UPDATE tallies SET total = total + %d WHERE id = '%s'", n % 21 - 10, id);
    } else if (dice < 6) {
        bytes_printf(b,
                     "UPDATE tallies SET tags = json_insert(tags, '$[#]', 'e%d') WHERE id = '%s'"
                     " AND NOT EXISTS (SELECT 1 FROM json_each(tags) WHERE value = 'e%d')",
                     element, id, element);
    } else if (dice < 8) {
        bytes_printf(b,
                     "UPDATE tallies SET tags = (SELECT json_group_array(value) FROM"
                     " json_each(tags) WHERE value <> 'e%d') WHERE id = '%s'",
                     element, id);
    } else if (dice < 9) {
        bytes_printf(b, "UPDATE tallies SET top = %d, low = %d WHERE id = '%s'", n, n / 2, id);
    } else if (dice < 11) {
        bytes_printf(b, "UPDATE tallies SET title = 'S%d~t%d' WHERE id = '%s'", d->scope, n, id);
    } else {
        bytes_printf(b, "DELETE FROM tallies WHERE id = '%s'", id);
    }
}

static int64_t statements(device *d, int count) {
    bytes sql;
    int64_t done = 0;
    bytes_init(&sql, NULL, 0);
    bool open = !sqlite3_get_autocommit(d->db);
    for (int i = 0; i < count && !d->disk.halted; i++) {
        if (open && sqlite3_get_autocommit(d->db)) {
            break; /* SQLite has ended the transaction: what comes now would be others */
        }
        if (d->w->swarm.tables > 2 && sim_chance(d->w, 2)) {
            typed_statement(d, &sql);
        } else {
            statement(d, &sql);
        }
        bool ok = device_exec(d, sql.ptr);
        done += ok;
        sim_trace(d->w, "device %d: %s: %s", d->number, sql.ptr, ok ? "ok" : "refused");
    }
    bytes_deinit(&sql);
    return done;
}

/* Another program writes to the application's tables, without the library. */
static void write_foreign(device *d) {
    sqlite3 *own = d->db, *shell = NULL;
    if (sqlite3_open(d->path, &shell) == SQLITE_OK) {
        d->db = shell;
        (void)sqlite3_busy_timeout(shell, 100);
        (void)device_exec(d, "PRAGMA foreign_keys = ON; PRAGMA synchronous = EXTRA");
        (void)statements(d, 1);
    }
    query_forget(shell);
    (void)sqlite3_close(shell);
    d->db = own;
}

void device_write(device *d) {
    world *w = d->w;
    if (!enter(d)) {
        return;
    }
    d->writing = true;
    d->foreign = w->swarm.foreign_writer && sim_chance(w, 5);
    if (d->foreign) {
        write_foreign(d);
    } else {
        int count = w->swarm.big_groups && sim_chance(w, 10) ? 25 : 1 + (int)sim_below(w, 4);
        bool open = count > 1 && device_exec(d, "BEGIN IMMEDIATE");
        (void)statements(d, open ? count : 1);
        if (open && sqlite3_get_autocommit(d->db)) {
            d->foreign = true; /* an error of the disk ended it: the rest was not together */
        }
        if (open) {
            bool commit = !sim_chance(w, 8), ok = device_exec(d, commit ? "COMMIT" : "ROLLBACK");
            sim_trace(w, "device %d %s: %d", d->number, commit ? "commit" : "rollback", ok);
        }
        if (!d->disk.halted && !sqlite3_get_autocommit(d->db)) {
            (void)device_exec(d, "ROLLBACK");
        }
    }
    device_reap(d);
    if (d->g) {
        oracle_device_check(w, d->number, true);
        d->writing = false;
    }
}

/* ---- a person decides ---- */

static bool pick(device *d, const char *sql, char out[300]) {
    d->disk.quiet++;
    sqlite3_stmt *q = query(d->db, sql);
    int64_t skip = (int64_t)sim_below(d->w, 4);
    bool found = false;
    while (skip-- >= 0 && query_next(q)) {
        snprintf(out, 300, "%s", query_text(q, 0));
        found = true;
    }
    query_done(q);
    d->disk.quiet--;
    return found;
}

void device_decide(device *d) {
    static const char *const choices[] = {"mine", "theirs", "{}", "{\"title\":\"by hand\"}"};
    char id[300];
    godwit_status status = GODWIT_OK;
    if (!enter(d)) {
        return;
    }
    bool letters = sim_chance(d->w, 2);
    if (d->w->swarm.deletes_win &&
        pick(d,
             "SELECT conflict_id FROM godwit_conflicts WHERE state = 'auto' AND"
             " kind = 'delete_update' ORDER BY conflict_id",
             id)) {
        d->writing = true;
        d->foreign = false;
        status = godwit_revert(d->g, id, NULL);
        d->w->seen[SEEN_REVERTED] += status == GODWIT_OK;
    } else if (!letters && pick(d,
                                "SELECT conflict_id FROM godwit_conflicts WHERE state IN"
                                " ('open', 'auto') ORDER BY conflict_id",
                                id)) {
        d->writing = true;
        d->foreign = false;
        bool back = sim_chance(d->w, 2);
        status = back ? godwit_revert(d->g, id, NULL)
                      : godwit_resolve(d->g, id, choices[sim_below(d->w, 4)], NULL);
        d->w->seen[back ? SEEN_REVERTED : SEEN_RESOLVED] += status == GODWIT_OK;
    } else if (letters && pick(d, "SELECT id FROM godwit_dead_letters ORDER BY id", id)) {
        bool again = !sim_chance(d->w, 3);
        status =
            again ? godwit_retry(d->g, id, NULL) : godwit_discard(d->g, id, "no longer wanted");
        d->w->seen[SEEN_RETRIED] += again && status == GODWIT_OK;
    } else {
        return;
    }
    sim_trace(d->w, "device %d decides %s: %s", d->number, id, godwit_status_name(status));
    device_reap(d);
    if (d->g) {
        oracle_device_check(d->w, d->number, d->writing);
        d->writing = false;
    }
}

/* The application's own migration; one that was interrupted is gone through again. */
void device_upgrade(device *d) {
    if (!enter(d) || (d->upgraded && !d->migrating)) {
        return;
    }
    d->migrating = true;
    bool ok = godwit_migrate(d->g, "begin") == GODWIT_OK;
    ok = ok && (has_column(d) || device_exec(d, "ALTER TABLE pins ADD COLUMN extra TEXT"));
    ok = ok && godwit_migrate(d->g, "end") == GODWIT_OK;
    d->upgraded = !d->disk.halted && has_column(d);
    d->late_column = d->late_column || d->upgraded;
    d->w->seen[SEEN_UPGRADED] += d->upgraded && d->know.log_seen > 0;
    d->migrating = !ok;
    sim_trace(d->w, "device %d upgrades: %d", d->number, ok);
    device_reap(d);
    if (d->g) {
        oracle_device_check(d->w, d->number, false);
    }
}
