/* Receipts: the durable outcome of every operation, and waiting for one.
 *
 * An outcome is what the operation's row says, a person's decision about it (godwit_outcome) and
 * the conflicts it met (godwit_conflict, by the operation's key). Where the row has been forgotten
 * because it was done long ago, godwit_outcome still has every operation that was not simply
 * applied. */
#include "client/receipt.h"
#include "client/op_sql.h"

#include <stdio.h>
#include <time.h>

#include "client/runner.h"
#include "client/seal.h"

#define POLL_MS         20 /* between looks at the database */
#define POLL_MAX_MS     200
#define AGAIN_MS        250 /* between attempts to sync, where nothing else is said */
#define WAIT_DEFAULT_MS 60000

/* ---- The view ---- */

#define REPLACED(key)                                                                              \
    "(SELECT nullif(json_group_array(json_object('conflict', c.conflict_id, 'kind', c.kind, "      \
    "'columns',"                                                                                   \
    " json(json_extract(c.body, '$.columns')), 'mine', json(json_extract(c.body, '$.ours')),"      \
    " 'theirs', json(json_extract(c.body, '$.theirs')), 'chosen', json(json_extract(c.body,"       \
    " '$.chosen')), 'winner', json_extract(c.body, '$.winner'), 'policy', json_extract(c.body,"    \
    " '$.policy'), 'state', c.state)), '[]') FROM godwit_conflict AS c WHERE c.op_key = " key ")"
#define REFUSED "o.state IN ('rejected', 'blocked', 'conflict')"

#define ID_OF(lsn) "(SELECT " OP_ID_OF("v", lsn) " FROM godwit_meta WHERE k = 'lineage')"

static const char kept[] =
    "SELECT " OP_ID " AS id, o.client_key AS client_key, o.operation AS operation, o.entity_type AS"
    " entity_type, o.entity_id AS entity_id, o.scope AS scope, " OP_CREATED " AS created_at, CASE"
    " WHEN x.resolution IN ('retried', 'edited') THEN 'superseded' WHEN o.state IN ('rejected',"
    " 'blocked') THEN 'rejected' WHEN o.state = 'conflict' THEN 'conflict' ELSE o.outcome END AS"
    " outcome, CASE WHEN " REFUSED " THEN o.last_error_code END AS code, CASE WHEN " REFUSED
    " THEN o.last_error END AS detail, o.commit_seq AS commit_seq, o.last_attempt_at AS"
    " decided_at, x.resolution AS resolution, CASE x.resolution WHEN 'discarded' THEN x.detail END"
    " AS reason, x.resolution_op AS superseded_by, o.supersedes AS supersedes, " REPLACED(
        "lower(hex(o.idempotency_key))") " AS replaced, o.group_first AS group_first, o.lsn AS lsn"
                                         " FROM godwit_op AS o LEFT JOIN godwit_outcome AS x ON"
                                         " x.id = (SELECT max(id) FROM godwit_outcome WHERE lsn ="
                                         " o.lsn) WHERE o.outcome IS NOT NULL OR " REFUSED;

static const char forgotten[] =
    "SELECT " ID_OF("x.lsn") ", NULL, NULL, NULL, NULL, NULL, NULL, CASE WHEN x.resolution IN"
                             " ('retried', 'edited') THEN 'superseded' WHEN x.outcome = 'blocked'"
                             " THEN 'rejected' ELSE x.outcome END, x.code, x.detail, NULL, x.at,"
                             " x.resolution, NULL, x.resolution_op, NULL, " REPLACED(
                                 "lower(hex(x.idempotency_key))") ", NULL, x.lsn FROM"
                                                                  " godwit_outcome AS x WHERE NOT"
                                                                  " EXISTS (SELECT 1 FROM"
                                                                  " godwit_op AS o WHERE o.lsn ="
                                                                  " x.lsn)";

static const char applied[] =
    "SELECT " ID_OF("r.lsn") ", NULL, NULL, NULL, NULL, NULL, NULL, coalesce(r.outcome,"
                             " 'applied'), NULL, NULL, r.commit_seq,"
                             " strftime('%Y-%m-%dT%H:%M:%SZ', r.at, 'unixepoch'), NULL, NULL, NULL,"
                             " NULL, NULL, NULL, r.lsn FROM godwit_receipt AS r";

void receipt_view(bytes *b, int64_t further_keys) {
    (void)further_keys;
    bytes_printf(b, "CREATE VIEW godwit_receipts AS %s UNION ALL %s UNION ALL %s", kept, forgotten,
                 applied);
}

/* ---- Reading one ---- */

static void copy_text(char *out, size_t size, sqlite3_stmt *q, int column) {
    slice text = db_column_slice(q, column);
    size_t len = text.len < size - 1 ? text.len : size - 1;
    while (len < text.len && len > 0 && ((unsigned char)text.ptr[len] & 0xc0) == 0x80) {
        len--; /* not in the middle of a character */
    }
    if (len) {
        memcpy(out, text.ptr, len);
    }
    out[len] = '\0';
}

static godwit_status read_decided(godwit *g, int64_t lsn, godwit_receipt *out, bool *found) {
    sqlite3_stmt *stmt = NULL;
    godwit_status status = db_prepare(
        &g->db,
        "SELECT outcome, code, detail, commit_seq, superseded_by, resolution FROM godwit_receipts"
        " WHERE lsn = ?1 LIMIT 1",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, stmt, 1, lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, found);
    }
    if (status == GODWIT_OK && *found) {
        copy_text(out->outcome, sizeof out->outcome, stmt, 0);
        copy_text(out->code, sizeof out->code, stmt, 1);
        copy_text(out->detail, sizeof out->detail, stmt, 2);
        out->commit_seq = sqlite3_column_int64(stmt, 3);
        copy_text(out->superseded_by, sizeof out->superseded_by, stmt, 4);
        copy_text(out->resolution, sizeof out->resolution, stmt, 5);
        out->decided = 1;
    }
    db_done(&g->db, stmt);
    return status;
}

godwit_status receipt_read(godwit *g, slice id, godwit_receipt *out) {
    int64_t lsn = 0, known = 0;
    bool found = false;
    memset(out, 0, sizeof *out);
    godwit_status status = seal_find(g, id, &lsn);
    if (status == GODWIT_OK) {
        status = read_decided(g, lsn, out, &found);
    }
    if (status == GODWIT_OK && !found) {
        status = db_int(&g->db, &known,
                        "SELECT EXISTS (SELECT 1 FROM godwit_op WHERE lsn = ?1) OR (?1 > coalesce("
                        "(SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'sealed_lsn'), 0)"
                        " AND EXISTS (SELECT 1 FROM godwit_log WHERE lsn = ?1))",
                        "i", lsn);
        status = status == GODWIT_OK && !known ? GODWIT_NOT_FOUND : status;
        snprintf(out->outcome, sizeof out->outcome, "pending");
    }
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof *out);
    }
    return status == GODWIT_NOT_FOUND
               ? client_fail(g, status, "no operation has the id " SLICE_FMT, SLICE_ARG(id))
               : status;
}

godwit_status godwit_get_receipt(godwit *g, const char *id, godwit_receipt *out) {
    if (!id || !out) {
        return client_refuse(g, GODWIT_MISUSE, "the id of an operation is needed");
    }
    memset(out, 0, sizeof *out);
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, receipt_read(g, slice_of(id), out)) : status;
}

/* ---- Waiting ---- */

typedef struct {
    godwit *g;
    slice id;
    int64_t started_ms, slept_ms, timeout_ms;
    int64_t sync_at_ms; /* elapsed; when to try again */
    bool polls;         /* this handle can't sync: others will */
    int64_t passes;     /* of the background thread, before */
    godwit_receipt *out;
} waiting;

static int64_t elapsed_ms(const waiting *w) {
    int64_t by_clock = client_mono_ms(w->g) - w->started_ms;
    return by_clock > w->slept_ms ? by_clock : w->slept_ms; /* a host's clock may stand still */
}

static void pause_ms(waiting *w, int64_t ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
    w->slept_ms += ms;
}

/* Failures that time mends. */
static bool passes(godwit_status status) {
    return status == GODWIT_OK || status == GODWIT_BUSY || status == GODWIT_UNREACHABLE ||
           status == GODWIT_OVERLOADED || status == GODWIT_TIMEOUT || status == GODWIT_PROTOCOL;
}

static godwit_status try_sync(waiting *w) {
    pump *p = NULL;
    int64_t left_ms = w->timeout_ms - elapsed_ms(w);
    godwit_status status = pump_of(w->g, &p);
    if (status != GODWIT_OK) {
        return status;
    }
    status = sync_run(w->g, p, left_ms > 0 ? left_ms : 1);
    int64_t wait_ms = p->wait_until_ms - client_wall_ms(w->g);
    w->sync_at_ms = elapsed_ms(w) + (wait_ms > AGAIN_MS ? wait_ms : AGAIN_MS);
    return passes(status) ? GODWIT_OK : status;
}

/* What the background thread has met since the waiting began. */
static godwit_status look_at_thread(waiting *w) {
    runner_pass latest;
    runner_latest(w->g, &latest);
    return latest.passes <= w->passes || passes(latest.status)
               ? GODWIT_OK
               : client_fail(w->g, latest.status, "%s", latest.message);
}

/* After a failure that needs a person the thread waits long: it looks now whether there was one. */
static void wake_thread(waiting *w) {
    runner_pass latest;
    runner_latest(w->g, &latest);
    w->passes = latest.passes;
    if (latest.passes && !passes(latest.status)) {
        runner_hint(w->g, 0);
    }
}

static godwit_status wait_for(waiting *w) {
    int64_t step_ms = POLL_MS;
    godwit_status status = receipt_read(w->g, w->id, w->out);
    while (status == GODWIT_OK && !w->out->decided) {
        int64_t left_ms = w->timeout_ms - elapsed_ms(w);
        if (left_ms <= 0) {
            return client_fail(w->g, GODWIT_TIMEOUT,
                               "operation " SLICE_FMT " has not been decided yet; it stays queued",
                               SLICE_ARG(w->id));
        }
        if (!w->polls && elapsed_ms(w) >= w->sync_at_ms) {
            status = try_sync(w);
        } else {
            pause_ms(w, step_ms < left_ms ? step_ms : left_ms);
            step_ms = step_ms * 2 < POLL_MAX_MS ? step_ms * 2 : POLL_MAX_MS;
        }
        if (status == GODWIT_OK) {
            status = receipt_read(w->g, w->id, w->out);
        }
        if (status == GODWIT_OK && !w->out->decided) {
            status = look_at_thread(w);
        }
    }
    return status;
}

/* Whether this build and handle can sync by themselves. */
static bool has_transport(godwit *g) {
    transport *t = NULL;
    bool has = g->options.host.exchange != NULL;
    if (!has) {
        has = transport_create(g->allocator, &t) != GODWIT_UNSUPPORTED;
        transport_destroy(t);
    }
    return has;
}

godwit_status godwit_wait(godwit *g, const char *id, int64_t timeout_ms, godwit_receipt *out) {
    godwit_receipt ignored;
    if (!id) {
        return client_refuse(g, GODWIT_MISUSE, "the id of an operation is needed");
    }
    out = out ? out : &ignored;
    memset(out, 0, sizeof *out);
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (!sqlite3_get_autocommit(g->db.handle)) {
        return client_leave(g, client_fail(g, GODWIT_MISUSE,
                                           "waiting inside an open transaction: commit it first"));
    }
    if (sqlite3_txn_state(g->db.handle, "main") != SQLITE_TXN_NONE) {
        return client_leave(g,
                            client_fail(g, GODWIT_MISUSE,
                                        "a statement of this connection is still reading, so what"
                                        " others commit can't be seen: finish it first, and give"
                                        " the id as a value, not by a query in the statement"));
    }
    waiting w = {.g = g,
                 .id = slice_of(id),
                 .started_ms = client_mono_ms(g),
                 .timeout_ms = timeout_ms > 0 ? timeout_ms : WAIT_DEFAULT_MS,
                 .polls = g->runner || !has_transport(g), /* the thread is at it */
                 .out = out};
    wake_thread(&w);
    return client_leave(g, wait_for(&w));
}
