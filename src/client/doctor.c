/* The doctor: checks what no single call checks, and repairs what is safe.
 *
 *   table-missing      a tracked table is gone, renamed, or has another primary key
 *   triggers           triggers are missing, altered or in the wrong order          fix: put back
 *   migration-open     godwit_migrate("begin") without "end": nothing is captured
 *   capture-off        the engine's own switch was left off                         fix: switch on
 *   unknown-rows, changed-rows, missing-rows   changes that were not captured       fix: queue them
 *   durability         the connection's settings could lose changes
 *   counters           the numbers of godwit_metrics differ from a recount          fix: recount
 *   failed             operations the server refused, waiting for a person
 *   log-counter        the log has lost its newest row: numbers could repeat
 *   damaged            SQLite finds the file damaged
 *   failing            the last attempts to sync failed
 *   parked             operations whose scope this user may not write any more
 *   history            the server acknowledged an operation that its log does not have
 *   leftover           copies of an interrupted migration                           fix: drop them
 *
 * Opening the handle has put missing triggers back already; these findings are of what happened
 * since, or could not be repaired. */
#include <stdarg.h>
#include <stdio.h>

#include "client/count.h"
#include "client/track.h"

typedef struct {
    godwit *g;
    bool fix;
    godwit_finding_fn report;
    void *context;
    int64_t remaining;
} doctor;

static void finding(doctor *d, const char *code, bool fixable, const char *format, ...)
    PRINTF_LIKE(4, 5);

static void finding(doctor *d, const char *code, bool fixable, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (d->report) {
        d->report(d->context, code, text, fixable);
    }
    d->remaining += !(d->fix && fixable);
}

static godwit_status check_drift(doctor *d, const client_table *t) {
    drift_counts counts = {0};
    int64_t migrating = 0;
    godwit_status status = client_meta_int(d->g, "migrating", 0, &migrating);
    if (status == GODWIT_OK && !migrating) {
        status = drift_scan(d->g, t, d->fix, &counts);
    }
    const struct {
        int64_t count;
        const char *code, *what;
    } kinds[] = {{counts.unknown, "unknown-rows", "were never captured"},
                 {counts.changed, "changed-rows", "were changed without being captured"},
                 {counts.missing, "missing-rows", "were deleted without being captured"}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (kinds[i].count) {
            finding(d, kinds[i].code, true, "table \"" SLICE_FMT "\": %lld rows %s",
                    SLICE_ARG(t->shape.name), (long long)kinds[i].count, kinds[i].what);
        }
    }
    return status;
}

/* *usable: the table is there and is the one that is tracked. */
static godwit_status check_table(doctor *d, const client_table *t, bool *usable) {
    int64_t exists = 0;
    int64_t keys = 0;
    int64_t migrating = 0;
    godwit_status status =
        db_int(&d->g->db, &exists,
               "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE"
               " NOCASE",
               "s", t->shape.name);
    for (size_t i = 0; i < t->shape.key_count && status == GODWIT_OK; i++) {
        int64_t same = 0;
        status =
            db_int(&d->g->db, &same,
                   "SELECT count(*) FROM pragma_table_info(?1, 'main') WHERE name = ?2 AND pk ="
                   " ?3",
                   "ssi", t->shape.name, t->shape.columns[t->shape.key[i]].name, (int64_t)i + 1);
        keys += same;
    }
    *usable = status == GODWIT_OK && exists && keys == (int64_t)t->shape.key_count;
    if (status == GODWIT_OK && !exists) {
        finding(d, "table-missing", false,
                "the tracked table \"" SLICE_FMT
                "\" does not exist: it was dropped or renamed; make"
                " it again, or godwit_untrack it",
                SLICE_ARG(t->shape.name));
    } else if (status == GODWIT_OK && !*usable) {
        finding(d, "table-missing", false,
                "the primary key of the tracked table \"" SLICE_FMT "\" has changed: sync, then"
                " godwit_track it again",
                SLICE_ARG(t->shape.name));
    }
    if (status == GODWIT_OK) {
        status = client_meta_int(d->g, "migrating", 0, &migrating);
    }
    if (status == GODWIT_OK && *usable && !migrating) {
        bool fits = true;
        status = track_fits(d->g, t, &fits);
        if (status == GODWIT_OK && !fits) {
            finding(d, "triggers", true, "table \"" SLICE_FMT "\": triggers are missing or altered",
                    SLICE_ARG(t->shape.name));
        }
        if (status == GODWIT_OK && !fits && d->fix) {
            bool found = false;
            status = track_renew(d->g, t, &found);
        }
    }
    return status;
}

static godwit_status check_tables(doctor *d) {
    godwit_status status = GODWIT_OK;
    int64_t last = 0;
    for (size_t i = 0; i < d->g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &d->g->registry.tables[i]; /* in the order of their numbers */
        bool usable = false;
        int64_t tbl = t->tbl;
        if (tbl <= last || !t->active || t->queue) {
            continue;
        }
        last = tbl;
        status = check_table(d, t, &usable);
        if (status == GODWIT_OK && usable) {
            status =
                check_drift(d, client_table_by_number(d->g, tbl)); /* loaded anew by a repair */
        }
    }
    return status;
}

static godwit_status check_counters(doctor *d) {
    char what[120] = "";
    int64_t wrong = 0;
    godwit_status status = count_check(d->g, &wrong, what, sizeof what);
    if (status == GODWIT_OK && wrong) {
        finding(d, "counters", true, "godwit_metrics does not count right: %s", what);
        status = d->fix ? count_again(d->g) : GODWIT_OK;
    }
    return status;
}

static godwit_status check_log(doctor *d) {
    int64_t off = 0;
    int64_t lost = 0;
    int64_t migrating = 0;
    int64_t failed = 0;
    db *base = &d->g->db;
    godwit_status status =
        db_int(base, &off,
               "SELECT (SELECT count(*) FROM godwit_state WHERE one = 1 AND capture = 1) = 0", "");
    if (status == GODWIT_OK && off) {
        finding(d, "capture-off", true, "capturing is switched off");
        if (d->fix) {
            status =
                db_exec(base, "INSERT OR REPLACE INTO godwit_state(one, capture) VALUES (1, 1)");
        }
    }
    if (status == GODWIT_OK) {
        status = db_int(base, &lost,
                        "SELECT coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
                        " 'sealed_lsn'), 0) > coalesce((SELECT max(lsn) FROM godwit_log), 0)",
                        "");
    }
    if (status == GODWIT_OK && lost) {
        finding(d, "log-counter", false,
                "godwit_log has lost its newest row: numbers could repeat; do not write to it");
    }
    if (status == GODWIT_OK) {
        status = client_meta_int(d->g, "migrating", 0, &migrating);
    }
    if (status == GODWIT_OK && migrating) {
        finding(d, "migration-open", false,
                "a migration is open, so nothing is captured: call godwit_migrate('end')");
    }
    if (status == GODWIT_OK) {
        status = check_counters(d);
    }
    if (status == GODWIT_OK) {
        status = db_int(base, &failed, "SELECT count(*) FROM godwit_dead_letters", "");
    }
    if (status == GODWIT_OK && failed) {
        finding(
            d, "failed", false,
            "%lld operations wait for a decision: see godwit_dead_letters (retry, edit, discard)",
            (long long)failed);
    }
    return status;
}

#define FAILURES_MIN 3 /* fewer are a network as networks are */

/* What does not move by itself, and why. */
static godwit_status check_stuck(doctor *d) {
    int64_t failures = 0, parked = 0, lost = 0;
    slice reason = {0};
    arena a;
    arena_init(&a, d->g->allocator, 0);
    godwit_status status = client_meta_int(d->g, "failures", 0, &failures);
    if (status == GODWIT_OK) {
        status = client_meta_text(d->g, &a, "last_error", &reason);
    }
    if (status == GODWIT_OK && failures >= FAILURES_MIN) {
        finding(d, "failing", false, "the last %lld attempts to sync failed: %.100s",
                (long long)failures, reason.ptr ? reason.ptr : "unreachable");
    }
    if (status == GODWIT_OK) {
        status = db_int(&d->g->db, &parked,
                        "SELECT count(*) FROM godwit_op WHERE state = 'parked' AND state <>"
                        " 'retired'",
                        "");
    }
    if (status == GODWIT_OK && parked) {
        finding(d, "parked", false,
                "%lld operations are kept but not sent: their scope is closed to this user",
                (long long)parked);
    }
    if (status == GODWIT_OK) {
        status = db_int(&d->g->db, &lost,
                        "SELECT count(*) FROM godwit_op AS o JOIN godwit_cursor AS c ON c.scope ="
                        " o.scope WHERE o.state = 'acked' AND o.state <> 'retired' AND c.state ="
                        " 'live' AND o.commit_seq <= c.commit_seq",
                        "");
    }
    if (status == GODWIT_OK && lost) {
        finding(d, "history", false,
                "%lld operations were acknowledged but are not in the server's log: it was restored"
                " from a backup; sync sends them again",
                (long long)lost);
    }
    arena_deinit(&a);
    return status;
}

/* Copies that no migration needs. */
#define LEFTOVERS                                                                                  \
    " FROM main.sqlite_schema AS c WHERE c.type = 'table' AND (c.name GLOB 'godwit_before_[0-9]*'" \
    " OR c.name GLOB 'godwit_gained_[0-9]*' AND NOT EXISTS (SELECT 1 FROM godwit_meta AS m WHERE"  \
    " m.k GLOB 'gained:*' AND c.name GLOB 'godwit_gained_' || substr(m.k, 8) || '_*'))"

static godwit_status check_leftovers(doctor *d) {
    int64_t migrating = 0, count = 0;
    arena a;
    slice drops = {0};
    arena_init(&a, d->g->allocator, 0);
    godwit_status status = client_meta_int(d->g, "migrating", 0, &migrating);
    if (status == GODWIT_OK && !migrating) {
        status = db_int(&d->g->db, &count, "SELECT count(*)" LEFTOVERS, "");
    }
    if (status == GODWIT_OK && count) {
        finding(d, "leftover", true, "%lld copies of a migration that is over take up space",
                (long long)count);
    }
    if (status == GODWIT_OK && count && d->fix) {
        status = db_text(&d->g->db, &a, &drops,
                         "SELECT group_concat('DROP TABLE main.' || c.name, ';')" LEFTOVERS, "");
        status = status == GODWIT_OK ? db_exec(&d->g->db, drops.ptr) : status;
    }
    arena_deinit(&a);
    return status;
}

static godwit_status check_settings(doctor *d) {
    godwit_status status = durable_check(d->g);
    if (status == GODWIT_NOT_DURABLE) {
        finding(d, "durability", false, "%s", d->g->message);
        d->g->message[0] = '\0';
        status = GODWIT_OK;
    }
    slice verdict = {0};
    arena a;
    arena_init(&a, d->g->allocator, 0);
    if (status == GODWIT_OK) {
        status = db_text(&d->g->db, &a, &verdict, "PRAGMA main.quick_check(1)", "");
    }
    if (status == GODWIT_OK && !slice_is(verdict, "ok")) {
        finding(d, "damaged", false, "SQLite reports: %.*s",
                (int)(verdict.len < 200 ? verdict.len : 200), verdict.ptr ? verdict.ptr : "");
    }
    arena_deinit(&a);
    return status;
}

godwit_status godwit_doctor(godwit *g, int fix, godwit_finding_fn report, void *context,
                            int64_t *findings) {
    doctor d = {.g = g, .fix = fix != 0, .report = report, .context = context};
    if (!findings) {
        return GODWIT_MISUSE;
    }
    *findings = 0;
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    status = check_settings(&d);
    bool open = false;
    if (status == GODWIT_OK) {
        status = db_begin(&g->db);
        open = status == GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status = check_log(&d);
    }
    if (status == GODWIT_OK) {
        status = check_stuck(&d);
    }
    if (status == GODWIT_OK) {
        status = check_leftovers(&d);
    }
    if (status == GODWIT_OK) {
        status = check_tables(&d);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK && open) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    *findings = status == GODWIT_OK ? d.remaining : 0;
    return client_leave(g, status);
}
