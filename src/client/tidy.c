/* Local retention (semantics 5.7): operations that are retired and were so long enough ago are
 * deleted, a few hundred after each sync, so that the database does not grow with its history.
 *
 * When an operation retired is not stored with it. Instead, about once a day, it is noted up to
 * which lsn nothing waits any more:
 *
 *   meta "archive" = [[ms,lsn],..]     everything sealed up to lsn had left the queue by then
 *
 * Time between two notes counts as a day at most: a clock that was years behind, and is put right,
 * would otherwise delete what was acknowledged yesterday, and with it what a server restored from
 * a backup gets back. So the archive is kept for that many days on which the device synced.
 *
 * There are NOTES_MAX notes at most. Where the archive is kept for more days than that, those that
 * lie closest to each other give way, and it goes in larger steps.
 *
 * The newest note that is old enough says what may go. What waits for a person stays, and of each
 * identity the operation the server saw last, whose key tells histories apart.
 *
 * Decided conflicts and outcomes are kept longer, and looked through about once a day (meta
 * "history" = ms of the last time). An operation that was refused goes together with its outcome,
 * which says that a person has dealt with it. */
#include "client/count.h"
#include "client/op_sql.h"
#include "client/pump.h"
#include "core/retain.h"

#define DAY_MS     INT64_C(86400000)
#define CHUNK_ROWS 500
#define NOTES_MAX  64

typedef struct {
    int64_t at_ms, lsn;
} note;

static godwit_status read_notes(godwit *g, arena *a, note *notes, size_t *count) {
    slice text = {0};
    const json *root = NULL;
    *count = 0;
    godwit_status status = client_meta_text(g, a, "archive", &text);
    if (status != GODWIT_OK || !text.ptr) {
        return status;
    }
    status = json_parse(a, text, &root, NULL);
    const json *item = status == GODWIT_OK ? json_first(root) : NULL;
    for (uint32_t i = 0; item && i < root->count && *count < NOTES_MAX; i++) {
        const json *at = json_first(item);
        note *n = &notes[*count];
        *count += at && item->count == 2 && json_int(at, &n->at_ms) && json_int(at + 1, &n->lsn);
        item = json_after(item);
    }
    return status == GODWIT_NOMEM ? status : GODWIT_OK; /* what can't be read is begun anew */
}

static godwit_status write_notes(godwit *g, const note *notes, size_t count) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < count; i++) {
        bytes_printf(&b, "%s[%lld,%lld]", i ? "," : "", (long long)notes[i].at_ms,
                     (long long)notes[i].lsn);
    }
    bytes_char(&b, ']');
    godwit_status status = b.failed ? GODWIT_NOMEM : client_meta_set(g, "archive", bytes_view(&b));
    bytes_deinit(&b);
    return status;
}

/* The newest lsn up to which nothing is under way. */
static godwit_status settled_lsn(godwit *g, int64_t *out) {
    return db_int(&g->db, out,
                  "SELECT min(coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
                  " 'sealed_lsn'), 0), coalesce((SELECT min(lsn) - 1 FROM godwit_op WHERE state IN"
                  " ('pending', 'acked', 'parked') AND state <> 'retired'), 9223372036854775807))",
                  "");
}

/* Takes out the note whose neighbours are closest: the oldest would never grow old enough, and
 * nothing would go. */
static void thin_out(note *notes, size_t count) {
    size_t out = 1;
    for (size_t i = 2; i + 1 < count; i++) {
        if (notes[i + 1].at_ms - notes[i - 1].at_ms < notes[out + 1].at_ms - notes[out - 1].at_ms) {
            out = i;
        }
    }
    memmove(notes + out, notes + out + 1, (count - out - 1) * sizeof *notes);
}

/* Adds today's note, drops those that are behind the one that counts. *lsn: what may go. */
static godwit_status keep_notes(godwit *g, int64_t now_ms, int64_t keep_ms, int64_t *lsn) {
    note notes[NOTES_MAX + 1];
    size_t count = 0, first = 0;
    arena a;
    arena_init(&a, g->allocator, 0);
    *lsn = 0;
    godwit_status status = read_notes(g, &a, notes, &count);
    const int64_t step_ms = keep_ms < DAY_MS ? keep_ms : DAY_MS;
    for (size_t i = 0; i < count; i++) { /* the clock was ahead when it was written */
        notes[i].at_ms = notes[i].at_ms < now_ms ? notes[i].at_ms : now_ms;
    }
    const int64_t pause_ms = count ? now_ms - notes[count - 1].at_ms : 0;
    bool due = status == GODWIT_OK && (count == 0 || pause_ms > step_ms);
    for (size_t i = 0; i < count && pause_ms > step_ms; i++) {
        notes[i].at_ms += pause_ms - step_ms; /* absence, or a clock put forward: one day of it */
    }
    if (due) {
        notes[count].at_ms = now_ms;
        status = settled_lsn(g, &notes[count].lsn);
        count++;
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        if (notes[i].at_ms <= now_ms - keep_ms) {
            *lsn = notes[i].lsn > *lsn ? notes[i].lsn : *lsn;
            first = i;
        }
    }
    if (count - first > NOTES_MAX) {
        thin_out(notes + first, count - first);
        count--;
    }
    if (status == GODWIT_OK && (due || first > 0)) {
        status = write_notes(g, notes + first, count - first);
    }
    arena_deinit(&a);
    return status;
}

#define DONE                                                                                       \
    "(SELECT o.lsn FROM godwit_op AS o WHERE o.lsn <= ?1 AND o.state = 'retired' AND NOT EXISTS"   \
    " (SELECT 1 FROM godwit_identity AS i WHERE i.scope = o.scope AND i.device_id = o.device_id"   \
    " AND i.acked_seq = o.sequence_number) ORDER BY o.lsn LIMIT ?2)"

/* What became of them is kept longer, in few bytes. */
static godwit_status forget_operations(godwit *g, int64_t lsn) {
    godwit_status status =
        db_run(&g->db,
               "INSERT OR IGNORE INTO godwit_receipt SELECT p.lsn, p.commit_seq,"
               " nullif(p.outcome, 'applied'), CAST(strftime('%s', p.last_attempt_at) AS INTEGER)"
               " FROM godwit_op AS p WHERE p.lsn IN " DONE " AND p.outcome IS NOT NULL AND NOT"
               " EXISTS (SELECT 1 FROM godwit_outcome AS x WHERE x.lsn = p.lsn)",
               "ii", lsn, (int64_t)CHUNK_ROWS);
    if (status == GODWIT_OK) { /* as long as an operation could be sent again, so could they */
        status = db_run(&g->db, "DELETE FROM godwit_dep WHERE lsn IN " DONE, "ii", lsn,
                        (int64_t)CHUNK_ROWS);
    }
    return status == GODWIT_OK ? db_run(&g->db, "DELETE FROM godwit_op WHERE lsn IN " DONE, "ii",
                                        lsn, (int64_t)CHUNK_ROWS)
                               : status;
}

/* ---- Decided conflicts and outcomes ---- */

/* Operations with an outcome of which nothing is newer than ?1: not one that waits or is waited
 * for, whose place another has taken that is still known, or that the server saw last of its
 * identity. */
#define RESOLVER OP_HAS_ID("n", "y.resolution_op")
static const char old_outcomes[] =
    "SELECT x.lsn, coalesce(o.state, '') FROM godwit_outcome AS x LEFT JOIN godwit_op AS o ON "
    "o.lsn ="
    " x.lsn GROUP BY x.lsn HAVING max(x.at) < ?1 AND (coalesce(o.state, 'retired') = 'retired' OR"
    " o.state IN ('rejected', 'blocked', 'conflict') AND count(x.resolution) > 0) AND NOT EXISTS"
    " (SELECT 1 FROM godwit_outcome AS y JOIN godwit_op AS n ON " RESOLVER " WHERE y.lsn "
    "="
    " x.lsn) AND NOT EXISTS (SELECT 1 FROM godwit_identity AS i WHERE i.scope = o.scope AND"
    " i.device_id = o.device_id AND i.acked_seq = o.sequence_number) AND x.lsn NOT IN (SELECT"
    " depends_on FROM godwit_dep) ORDER BY x.lsn LIMIT ?2";

typedef struct {
    int64_t lsn;
    op_state state;
} old_outcome;

static godwit_status find_outcomes(godwit *g, slice before, old_outcome *out, size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    *count = 0;
    godwit_status status = db_prepare(&g->db, old_outcomes, &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, before);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, stmt, 2, CHUNK_ROWS);
    }
    while (status == GODWIT_OK && *count < CHUNK_ROWS) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        old_outcome *o = &out[(*count)++];
        o->lsn = sqlite3_column_int64(stmt, 0);
        if (!op_state_parse(db_column_slice(stmt, 1), &o->state)) {
            o->state = OP_RETIRED;
        }
    }
    db_done(&g->db, stmt);
    return status;
}

static godwit_status forget_outcome(godwit *g, const old_outcome *o) {
    int64_t change[OP_STATE_COUNT] = {0};
    godwit_status status = db_run(&g->db, "DELETE FROM godwit_outcome WHERE lsn = ?1", "i", o->lsn);
    if (status != GODWIT_OK || o->state == OP_RETIRED) {
        return status;
    }
    change[o->state] = -1;
    status = db_run(&g->db, "DELETE FROM godwit_op WHERE lsn = ?1", "i", o->lsn);
    if (status == GODWIT_OK) {
        status = count_ops(g, change);
    }
    return status == GODWIT_OK && o->state == OP_CONFLICT ? count_add(g, "decided", -1) : status;
}

static godwit_status forget_outcomes(godwit *g, slice before, bool *more) {
    size_t count = 0;
    arena a;
    arena_init(&a, g->allocator, 0);
    old_outcome *list = ARENA_ARRAY(&a, old_outcome, CHUNK_ROWS);
    godwit_status status = list ? find_outcomes(g, before, list, &count) : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = forget_outcome(g, &list[i]);
    }
    *more = *more || count == CHUNK_ROWS;
    arena_deinit(&a);
    return status;
}

#define OLD_CONFLICTS "state <> 'open' AND at < ?1"

static godwit_status forget_conflicts(godwit *g, slice before) {
    godwit_status status =
        db_run(&g->db,
               "INSERT INTO godwit_counter(name, n) SELECT 'conflict:' || kind || ':' || state,"
               " -count(*) FROM godwit_conflict WHERE " OLD_CONFLICTS " GROUP BY kind, state ON"
               " CONFLICT (name) DO UPDATE SET n = n + excluded.n",
               "s", before);
    return status == GODWIT_OK
               ? db_run(&g->db, "DELETE FROM godwit_conflict WHERE " OLD_CONFLICTS, "s", before)
               : status;
}

static godwit_status forget_receipts(godwit *g, int64_t before_ms, bool *more) {
    godwit_status status =
        db_run(&g->db,
               "DELETE FROM godwit_receipt WHERE lsn IN (SELECT lsn FROM godwit_receipt WHERE"
               " coalesce(at, 0) < ?1 ORDER BY lsn LIMIT ?2)",
               "ii", before_ms / 1000, (int64_t)CHUNK_ROWS);
    *more = *more || sqlite3_changes64(g->db.handle) == CHUNK_ROWS;
    return status;
}

static godwit_status forget_history(godwit *g, int64_t now_ms, int64_t keep_ms) {
    int64_t last_ms = 0;
    bool more = false;
    char at[32];
    godwit_status status = client_meta_int(g, "history", 0, &last_ms);
    if (status != GODWIT_OK || keep_ms == RETAIN_FOREVER ||
        (last_ms <= now_ms && now_ms - last_ms < (keep_ms < DAY_MS ? keep_ms : DAY_MS))) {
        return status;
    }
    wire_time_write(now_ms > keep_ms ? now_ms - keep_ms : 0, at);
    status = forget_outcomes(g, slice_of(at), &more);
    if (status == GODWIT_OK) {
        status = forget_receipts(g, now_ms > keep_ms ? now_ms - keep_ms : 0, &more);
    }
    if (status == GODWIT_OK) {
        status = forget_conflicts(g, slice_of(at));
    }
    return status == GODWIT_OK && !more ? client_meta_set_int(g, "history", now_ms) : status;
}

static godwit_status setting(godwit *g, const char *key, const char *fallback, int64_t *out) {
    slice text = {0};
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = client_meta_text(g, &a, key, &text);
    if (status == GODWIT_OK && (!text.ptr || !retain_time_parse(text.ptr, out)) &&
        !retain_time_parse(fallback, out)) {
        status = GODWIT_INTERNAL;
    }
    arena_deinit(&a);
    return status;
}

godwit_status client_tidy(godwit *g) {
    int64_t archive_ms = 0, history_ms = 0, lsn = 0, now_ms = client_wall_ms(g);
    godwit_status status = setting(g, "keep_archive", "14d", &archive_ms);
    if (status == GODWIT_OK) {
        status = setting(g, "keep_history", "90d", &history_ms);
    }
    if (status == GODWIT_OK) {
        status = db_begin(&g->db);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    if (archive_ms != RETAIN_FOREVER) {
        status = keep_notes(g, now_ms, archive_ms, &lsn);
    }
    if (status == GODWIT_OK && lsn > 0) {
        status = forget_operations(g, lsn);
    }
    if (status == GODWIT_OK) {
        status = forget_history(g, now_ms, history_ms);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}
