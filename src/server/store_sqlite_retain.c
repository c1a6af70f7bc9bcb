/* Deleting what is no longer kept, in steps of a few hundred rows.
 *
 * The log goes commit by commit, from the front of godwit_commit's key, which leads to everything
 * else: changes by (scope, commit), tombstones by the changes that made them, ledger rows and
 * results by the commit's device and range. Nothing is searched for. */
#include "server/store_sqlite.h"

godwit_status lite_keeping_next(store *st, arena *a, slice after, int64_t seen_ms,
                                store_keeping *out, bool *row) {
    sqlite3_stmt *stmt = NULL;
    memset(out, 0, sizeof *out);
    *row = false;
    godwit_status status = db_prepare(
        &st->d,
        "SELECT s.scope, s.head, s.horizon, s.ledger_floor, coalesce((SELECT"
        " min(d.pulled_seq) FROM godwit_device d WHERE d.scope = s.scope AND d.state ="
        " 'active' AND d.last_seen >= ?2), s.head) FROM godwit_scope s WHERE s.scope > ?1"
        " ORDER BY s.scope LIMIT 1",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&st->d, stmt, 1, after.ptr ? after : SLICE(""));
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 2, seen_ms);
    }
    if (status == GODWIT_OK) {
        status = db_step(&st->d, stmt, row);
    }
    if (status == GODWIT_OK && *row) {
        out->name = copied(a, stmt, 0);
        out->marks = (retain_scope){.head = sqlite3_column_int64(stmt, 1),
                                    .horizon = sqlite3_column_int64(stmt, 2),
                                    .ledger_floor = sqlite3_column_int64(stmt, 3),
                                    .pulled_seq = sqlite3_column_int64(stmt, 4)};
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    db_done(&st->d, stmt);
    return status;
}

godwit_status lite_commits_before(store *st, slice scope, int64_t from, int64_t count,
                                  int64_t before_ms, int64_t *upto) {
    int64_t no = 0;
    *upto = from;
    godwit_status status =
        before_ms == INT64_MIN ? GODWIT_OK : sqlite_name_find(&st->d, scope, &no);
    return status == GODWIT_OK && no
               ? db_int(&st->d, upto,
                        "SELECT coalesce(max(commit_seq), ?2) FROM (SELECT commit_seq, committed_at"
                        " FROM godwit_commit WHERE scope = ?1 AND commit_seq > ?2 ORDER BY"
                        " commit_seq LIMIT ?3) WHERE committed_at < ?4",
                        "iiii", no, from, count, before_ms)
               : status;
}

godwit_status lite_marks_save(store *st, slice scope, const retain_scope *marks) {
    return db_run(&st->d,
                  "UPDATE godwit_scope SET horizon = ?2, ledger_floor = ?3 WHERE scope = ?1", "sii",
                  scope, marks->horizon, marks->ledger_floor);
}

/* ---- the log ---- */

typedef struct {
    int64_t seq, device, first, last, first_change, last_change;
} commit_place;
#define CHANGES_AT "no BETWEEN ?3 AND ?4 AND scope = ?1 AND commit_seq = ?2"

/* The first commit behind `after`, at most `upto`. seq 0: there is none. */
static godwit_status next_commit(store *st, int64_t scope, int64_t after, int64_t upto,
                                 commit_place *out) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    *out = (commit_place){0};
    godwit_status status =
        db_prepare(&st->d,
                   "SELECT commit_seq, device_id, first_seq, last_seq, first_change, last_change"
                   " FROM godwit_commit WHERE scope = ?1 AND commit_seq > ?2 AND commit_seq"
                   " <= ?3 ORDER BY commit_seq LIMIT 1",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 2, after);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 3, upto);
    }
    if (status == GODWIT_OK) {
        status = db_step(&st->d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *out = (commit_place){sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                              sqlite3_column_int64(stmt, 2), sqlite3_column_int64(stmt, 3),
                              sqlite3_column_int64(stmt, 4), sqlite3_column_int64(stmt, 5)};
    }
    db_done(&st->d, stmt);
    return status;
}

/* A row deleted by this commit and not made again since is forgotten; where rows are deleted softly
 * the row is still there, and so stays what is known of it. */
static godwit_status forget_tombstones(store *st, int64_t scope, const commit_place *at,
                                       int64_t *rows_left) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status = db_prepare(
        &st->d, "SELECT tbl, pk FROM godwit_change WHERE " CHANGES_AT " AND kind = 'D'", &stmt);
    const int64_t place[] = {scope, at->seq, at->first_change, at->last_change};
    for (int i = 0; status == GODWIT_OK && i < (int)COUNT_OF(place); i++) {
        status = db_bind_int(&st->d, stmt, i + 1, place[i]);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(&st->d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        slice table = db_column_slice(stmt, 0);
        const schema_table *t = tables_by_name(st->tables.tables, table);
        if (!t || t->deleted_column < 0) {
            status = db_run(&st->d,
                            "DELETE FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3 AND"
                            " del_ver = ?4",
                            "issi", scope, table, db_column_slice(stmt, 1), at->seq);
            (*rows_left)--;
        }
    }
    db_done(&st->d, stmt);
    return status;
}

static void count_rows(store *st, int64_t *rows_left) {
    *rows_left -= 1 + sqlite3_changes64(st->d.handle);
}

static godwit_status forget_content(store *st, int64_t scope, const commit_place *at,
                                    int64_t *rows_left) {
    godwit_status status = forget_tombstones(st, scope, at, rows_left);
    if (status == GODWIT_OK) {
        status = db_run(&st->d, "DELETE FROM godwit_change WHERE " CHANGES_AT, "iiii", scope,
                        at->seq, at->first_change, at->last_change);
        count_rows(st, rows_left);
    }
    if (status == GODWIT_OK && at->first > 0) {
        status = db_run(&st->d,
                        "UPDATE godwit_op SET result = NULL WHERE scope = ?1 AND device_id = ?2 AND"
                        " seq BETWEEN ?3 AND ?4 AND result IS NOT NULL",
                        "iiii", scope, at->device, at->first, at->last);
        count_rows(st, rows_left);
    }
    return status;
}

static godwit_status forget_log(store *st, slice name, int64_t scope, int64_t horizon,
                                int64_t *rows_left) {
    int64_t pruned = 0;
    commit_place at = {.seq = 1};
    godwit_status status =
        db_int(&st->d, &pruned, "SELECT pruned FROM godwit_scope WHERE scope = ?1", "s", name);
    const int64_t before = pruned;
    while (status == GODWIT_OK && *rows_left > 0 && pruned < horizon) {
        status = next_commit(st, scope, pruned, horizon, &at);
        if (status == GODWIT_OK && at.seq) {
            status = forget_content(st, scope, &at, rows_left);
        }
        pruned = at.seq ? at.seq : horizon;
    }
    return status == GODWIT_OK && pruned != before
               ? db_run(&st->d, "UPDATE godwit_scope SET pruned = ?2 WHERE scope = ?1", "si", name,
                        pruned)
               : status;
}

/* ---- the ledger ---- */

/* What the device has not confirmed it may still send again: those rows stay, a few per device. */
static godwit_status forget_decisions(store *st, slice name, int64_t scope, const commit_place *at,
                                      int64_t *rows_left) {
    godwit_status status =
        at->first == 0 ? GODWIT_OK
                       : db_run(&st->d,
                                "DELETE FROM godwit_op WHERE scope = ?1 AND device_id = ?2 AND seq"
                                " BETWEEN ?3 AND min(?4, (SELECT CASE d.state WHEN 'active' THEN"
                                " d.confirmed_seq ELSE ?4 END FROM godwit_device d WHERE d.scope ="
                                " ?5 AND d.device_id = (SELECT name FROM godwit_name WHERE no ="
                                " ?2)))",
                                "iiiis", scope, at->device, at->first, at->last, name);
    count_rows(st, rows_left);
    if (status == GODWIT_OK) {
        status = db_run(&st->d, "DELETE FROM godwit_commit WHERE scope = ?1 AND commit_seq = ?2",
                        "ii", scope, at->seq);
    }
    return status;
}

static godwit_status forget_ledger(store *st, slice name, int64_t scope, int64_t floor,
                                   int64_t *rows_left) {
    commit_place at = {.seq = 1};
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && *rows_left > 0 && at.seq) {
        status = next_commit(st, scope, 0, floor, &at);
        if (status == GODWIT_OK && at.seq) {
            status = forget_decisions(st, name, scope, &at, rows_left);
        }
    }
    return status;
}

/* ---- conflicts, keys, devices ---- */

static godwit_status forget_old(store *st, const char *sql, slice scope, int64_t before_ms,
                                int64_t *rows_left) {
    if (before_ms == INT64_MIN || *rows_left <= 0) {
        return GODWIT_OK;
    }
    godwit_status status = db_run(&st->d, sql, "sii", scope, before_ms, *rows_left);
    *rows_left -= sqlite3_changes64(st->d.handle);
    return status;
}

/* Not one that a person has decided since; what that commit was is kept as the ledger is. */
#define FORGET_CONFLICTS                                                                           \
    "DELETE FROM godwit_conflict WHERE scope = ?1 AND conflict_id IN (SELECT conflict_id FROM"     \
    " godwit_conflict AS x WHERE scope = ?1 AND state <> 'open' AND at < ?2 AND NOT EXISTS"        \
    " (SELECT 1 FROM godwit_commit AS c WHERE c.scope = (SELECT no FROM godwit_name WHERE name ="  \
    " ?1) AND c.commit_seq = x.resolved_commit AND c.committed_at >= ?2) ORDER BY at LIMIT ?3)"
#define FORGET_KEYS                                                                                \
    "DELETE FROM godwit_idem WHERE scope = ?1 AND idem_key IN (SELECT idem_key FROM godwit_idem"   \
    " WHERE scope = ?1 AND at < ?2 ORDER BY at LIMIT ?3)"
#define RETIRE                                                                                     \
    "UPDATE godwit_device SET state = 'retired' WHERE scope = ?1 AND device_id IN (SELECT"         \
    " device_id FROM godwit_device WHERE scope = ?1 AND state = 'active' AND last_seen < ?2 LIMIT" \
    " ?3)"

godwit_status lite_forget(store *st, slice scope, const store_past *past, int64_t *rows_left) {
    int64_t no = 0;
    godwit_status status = sqlite_name_find(&st->d, scope, &no);
    if (status == GODWIT_OK && no && past->marks.horizon > 0) {
        status = forget_log(st, scope, no, past->marks.horizon, rows_left);
    }
    if (status == GODWIT_OK && no && past->marks.ledger_floor > 0) {
        status = forget_ledger(st, scope, no, past->marks.ledger_floor, rows_left);
    }
    if (status == GODWIT_OK) {
        status = forget_old(st, FORGET_CONFLICTS, scope, past->conflicts_ms, rows_left);
    }
    if (status == GODWIT_OK) {
        status = forget_old(st, FORGET_KEYS, scope, past->keys_ms, rows_left);
    }
    return status == GODWIT_OK ? forget_old(st, RETIRE, scope, past->silent_ms, rows_left) : status;
}

void lite_durable(store *st, bool durable) {
    ASSERT(st->d.depth == 0);
    /* a log that is not on disk yet stays a valid one: at worst the latest deletions are undone.
     * That a setting can't be made is no harm, but for one: lite_begin makes up for it. */
    godwit_status status = db_exec(&st->d, durable ? STORE_DURABLE : "PRAGMA synchronous = NORMAL");
    st->lax = durable && status != GODWIT_OK;
}
