/* Counters kept beside what they count. See count.h. */
#include "client/count.h"

#include <stdio.h>

#define AVERAGE_SHARE 8 /* of a new sample in an average */

static godwit_status add(godwit *g, slice name, int64_t n) {
    if (n == 0) {
        return GODWIT_OK;
    }
    return db_run(&g->db,
                  "INSERT INTO godwit_counter(name, n) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE"
                  " SET n = n + excluded.n",
                  "si", name, n);
}

godwit_status count_add(godwit *g, const char *name, int64_t n) {
    return add(g, slice_of(name), n);
}

godwit_status count_ops(godwit *g, const int64_t change[OP_STATE_COUNT]) {
    char name[32];
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < OP_STATE_COUNT && status == GODWIT_OK; i++) {
        if (i != OP_RETIRED) {
            snprintf(name, sizeof name, "op:%s", op_state_name((op_state)i));
            status = add(g, slice_of(name), change[i]);
        }
    }
    return status;
}

godwit_status count_resolved(godwit *g, op_state state) {
    bool failed = state == OP_REJECTED || state == OP_BLOCKED;
    return failed ? add(g, SLICE("failed"), -1) : add(g, SLICE("decided"), 1);
}

godwit_status count_conflict(godwit *g, slice kind, slice state, int64_t n) {
    arena a;
    arena_init(&a, g->allocator, 0);
    char *name =
        arena_printf(&a, "conflict:" SLICE_FMT ":" SLICE_FMT, SLICE_ARG(kind), SLICE_ARG(state));
    godwit_status status = name ? add(g, slice_of(name), n) : GODWIT_NOMEM;
    arena_deinit(&a);
    return status;
}

godwit_status count_gap(godwit *g, int64_t first, int64_t last) {
    if (last < first) {
        return GODWIT_OK;
    }
    return db_run(&g->db, "INSERT OR REPLACE INTO godwit_gap(last, n) VALUES (?1, ?2)", "ii", last,
                  last - first + 1);
}

godwit_status count_average(godwit *g, const char *key, int64_t sample_ms) {
    int64_t average = -1;
    godwit_status status = client_meta_int(g, key, -1, &average);
    if (status != GODWIT_OK) {
        return status;
    }
    sample_ms = sample_ms > 0 ? sample_ms : 0;
    int64_t step = sample_ms - average;
    /* away from zero, so that it arrives instead of stopping short */
    step = step >= 0 ? (step + AVERAGE_SHARE - 1) / AVERAGE_SHARE : -((-step) / AVERAGE_SHARE);
    return client_meta_set_int(g, key, average < 0 ? sample_ms : average + step);
}

/* ---- Views ---- */

#define META(key)     "(SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = '" key "')"
#define META_INT(key) "coalesce(" META(key) ", 0)"
#define SEALED        META_INT("sealed_lsn")
#define COUNTER(name) "coalesce((SELECT n FROM godwit_counter WHERE name = '" name "'), 0)"
#define SUM_OF(prefix, end)                                                                        \
    "(SELECT coalesce(sum(n), 0) FROM godwit_counter WHERE name >= '" prefix                       \
    ":' AND name < '" prefix ";'" end ")"

void count_captured_view(bytes *b, int64_t further_keys) {
    (void)further_keys;
    bytes_text(b, "CREATE VIEW godwit_captured AS SELECT max(0, coalesce((SELECT max(lsn) FROM"
                  " godwit_log), 0) - " SEALED " - (SELECT coalesce(sum(n), 0) FROM godwit_gap) -"
                  " (SELECT coalesce(sum(end_lsn - next_lsn), 0) FROM godwit_initial)) AS"
                  " captured");
}

/* The oldest of the sealed: the first pending one of each scope, found in the index. */
static const char oldest_sealed[] =
    "(SELECT min((SELECT o.wall_ms FROM godwit_op AS o WHERE o.scope = i.scope AND o.state ="
    " 'pending' AND o.state <> 'retired' ORDER BY o.lsn LIMIT 1)) FROM godwit_identity AS i)";
static const char oldest_captured[] =
    "(SELECT CAST(round((wall - 2440587.5) * 86400000) AS INTEGER) FROM godwit_log WHERE lsn >"
    " " SEALED " ORDER BY lsn LIMIT 1)";
static const char feed_lag[] =
    "coalesce((SELECT sum(max(0, CAST(m.v AS INTEGER) - coalesce((SELECT commit_seq FROM"
    " godwit_cursor AS c WHERE c.scope = substr(m.k, 6)), 0))) FROM godwit_meta AS m WHERE m.k >="
    " 'head:' AND m.k < 'head;'), 0)";

void count_metrics_view(bytes *b, int64_t further_keys) {
    static const struct {
        const char *name, *value;
    } columns[] = {
        {"queue_length",
         "captured + " COUNTER("op:pending") " + " COUNTER("op:parked") " + " COUNTER(
             "op:acked") " + " COUNTER("failed") " + " COUNTER("op:conflict") " - " COUNTER("decide"
                                                                                            "d")},
        {"pending_operations", "captured + " COUNTER("op:pending") " + " COUNTER("op:parked")},
        {"failed_operations", COUNTER("failed")},
        {"conflicts_detected", SUM_OF("conflict", "")},
        {"conflicts_open", SUM_OF("conflict", " AND name GLOB '*:open'")},
        {"avg_sync_latency_ms", META("latency_ms")},
        {"ack_round_trip_ms", META("round_trip_ms")},
        {"last_successful_sync_ms", META_INT("last_sync_ms")},
        {"oldest_pending_age_ms", "max(0, coalesce(ms - oldest, 0))"},
        {"oldest_pending_age_seconds", "max(0, coalesce((ms - oldest) / 1000, 0))"},
        {"retries", SUM_OF("retry", "")},
        {"failures", META_INT("failures")},
        {"feed_lag", feed_lag},
        {"requests", COUNTER("requests")},
        {"bytes_sent", COUNTER("bytes:sent")},
        {"bytes_received", COUNTER("bytes:received")},
        {"rekeys", COUNTER("rekey")},
        {"reconciles", COUNTER("reconcile")},
    };
    (void)further_keys;
    bytes_printf(b,
                 "CREATE VIEW godwit_metrics AS WITH times(ms, sealed, captured_at) AS (SELECT"
                 " CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), %s, %s),"
                 " base(ms, oldest, captured) AS (SELECT ms, min(coalesce(sealed, captured_at),"
                 " coalesce(captured_at, sealed)), (SELECT captured FROM godwit_captured) FROM"
                 " times)",
                 oldest_sealed, oldest_captured);
    for (size_t i = 0; i < COUNT_OF(columns); i++) {
        bytes_printf(b, "%s %s AS %s", i ? "," : " SELECT", columns[i].value, columns[i].name);
    }
    bytes_text(b, " FROM base");
}

void count_conflicts_view(bytes *b, int64_t further_keys) {
    (void)further_keys;
    bytes_text(b, "CREATE VIEW godwit_conflict_counts AS SELECT substr(name, 10, instr(substr(name,"
                  " 10), ':') - 1) AS kind, substr(name, 10 + instr(substr(name, 10), ':')) AS"
                  " state, n FROM godwit_counter WHERE name >= 'conflict:' AND name < 'conflict;'"
                  " AND n <> 0");
}

void count_retries_view(bytes *b, int64_t further_keys) {
    (void)further_keys;
    bytes_text(b, "CREATE VIEW godwit_retry_counts AS SELECT substr(name, 7) AS class, n FROM"
                  " godwit_counter WHERE name >= 'retry:' AND name < 'retry;'");
}

/* ---- Recounting ---- */

/* The counters that can be recounted; the others only grow. */
#define KEPT "(name GLOB 'op:*' OR name = 'failed' OR name = 'decided' OR name GLOB 'conflict:*')"
#define CAPTURED                                                                                   \
    "SELECT 'captured' AS name, (SELECT count(*) FROM godwit_log WHERE lsn > " SEALED ") AS n"
#define CAPTURED_NOW "SELECT 'captured' AS name, captured AS n FROM godwit_captured"

godwit_status count_check(godwit *g, int64_t *wrong, char *what, size_t what_bytes) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    *wrong = 0;
    godwit_status status = db_prepare(
        &g->db,
        "SELECT name, sum(kept), sum(counted) FROM (SELECT name, n AS kept, 0 AS counted FROM"
        " godwit_counter WHERE " KEPT " UNION ALL SELECT name, 0, n FROM (" COUNT_RECOUNT ")"
        " UNION ALL SELECT name, n, 0 FROM (" CAPTURED_NOW ") UNION ALL SELECT name, 0, n FROM"
        " (" CAPTURED ")) GROUP BY name HAVING sum(kept) <> sum(counted)",
        &stmt);
    while (status == GODWIT_OK && row) {
        status = db_step(&g->db, stmt, &row);
        if (status == GODWIT_OK && row && (*wrong)++ == 0 && what) {
            snprintf(what, what_bytes, "%s is %lld, recounted %lld",
                     (const char *)sqlite3_column_text(stmt, 0),
                     (long long)sqlite3_column_int64(stmt, 1),
                     (long long)sqlite3_column_int64(stmt, 2));
        }
    }
    db_done(&g->db, stmt);
    return status;
}

godwit_status count_again(godwit *g) {
    godwit_status status =
        db_exec(&g->db, "DELETE FROM godwit_counter WHERE " KEPT "; DELETE FROM godwit_gap;"
                        "INSERT INTO godwit_counter " COUNT_RECOUNT ";");
    int64_t off = 0, newest = 0;
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &off,
                        "SELECT (SELECT captured FROM godwit_captured) - (SELECT count(*) FROM"
                        " godwit_log WHERE lsn > " SEALED ")",
                        "");
    }
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &newest, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    return status == GODWIT_OK && off > 0 ? count_gap(g, newest - off + 1, newest) : status;
}
