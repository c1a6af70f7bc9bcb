/* Deleting what is no longer kept, a bounded number of commits at a time. The scope's row is
 * locked, as for a push: marks and what they say about the log change together. */
#include <stdlib.h>

#include "server/store_postgres.h"

godwit_status pg_keeping_next(store *st, arena *a, slice after, int64_t seen_ms, store_keeping *out,
                              bool *row) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    memset(out, 0, sizeof *out);
    *row = false;
    pg_text(l, after.ptr ? after : SLICE(""));
    pg_int(l, seen_ms > 0 ? seen_ms : 0);
    godwit_status status =
        pg_query(l,
                 "SELECT s.scope, s.head, s.horizon, s.ledger_floor, coalesce((SELECT"
                 " min(d.pulled_seq) FROM godwit.device d WHERE d.scope = s.scope AND d.state ="
                 " 'active' AND d.last_seen >= to_timestamp($2::double precision / 1000)), s.head)"
                 " FROM godwit.scope s WHERE s.scope > $1 ORDER BY s.scope LIMIT 1 FOR UPDATE OF s",
                 &r);
    if (status == GODWIT_OK && PQntuples(r)) {
        *row = true;
        out->name = pg_field_copy(a, r, 0, 0);
        out->marks = (retain_scope){.head = pg_field_int(r, 0, 1),
                                    .horizon = pg_field_int(r, 0, 2),
                                    .ledger_floor = pg_field_int(r, 0, 3),
                                    .pulled_seq = pg_field_int(r, 0, 4)};
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    return status;
}

godwit_status pg_commits_before(store *st, slice scope, int64_t from, int64_t count,
                                int64_t before_ms, int64_t *upto) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *upto = from;
    if (before_ms == INT64_MIN) {
        return GODWIT_OK;
    }
    pg_text(l, scope);
    pg_int(l, from);
    pg_int(l, count);
    pg_int(l, before_ms);
    godwit_status status =
        pg_query(l,
                 "SELECT coalesce(max(commit_seq), $2) FROM (SELECT commit_seq, committed_at"
                 " FROM godwit.commit WHERE scope = $1 AND commit_seq > $2 ORDER BY commit_seq"
                 " LIMIT $3) c WHERE committed_at < to_timestamp($4::double precision / 1000)",
                 &r);
    if (status == GODWIT_OK) {
        *upto = pg_field_int(r, 0, 0);
    }
    return status;
}

godwit_status pg_marks_save(store *st, slice scope, const retain_scope *marks) {
    pg_link *l = &st->link;
    pg_text(l, scope);
    pg_int(l, marks->horizon);
    pg_int(l, marks->ledger_floor);
    return pg_send(l, "UPDATE godwit.scope SET horizon = $2, ledger_floor = $3 WHERE scope = $1");
}

/* Runs a statement with the parameters made; rows it touched are taken off *rows_left. */
static godwit_status run(store *st, const char *sql, int64_t *rows_left) {
    PGresult *r = NULL;
    godwit_status status = pg_query(&st->link, sql, &r);
    if (status == GODWIT_OK) {
        *rows_left -= strtoll(PQcmdTuples(r), NULL, 10);
    }
    return status;
}

static void range(store *st, slice scope, int64_t from, int64_t upto) {
    pg_text(&st->link, scope);
    pg_int(&st->link, from);
    pg_int(&st->link, upto);
}

/* Last of the next commits that are dealt with together. */
static godwit_status next_commits(store *st, slice scope, int64_t from, int64_t upto, int64_t count,
                                  int64_t *last) {
    PGresult *r = NULL;
    range(st, scope, from, upto);
    pg_int(&st->link, count > 0 ? count : 1);
    godwit_status status =
        pg_query(&st->link,
                 "SELECT max(commit_seq) FROM (SELECT commit_seq FROM godwit.commit"
                 " WHERE scope = $1 AND commit_seq > $2 AND commit_seq <= $3 ORDER BY commit_seq"
                 " LIMIT $4) c",
                 &r);
    *last = status == GODWIT_OK ? pg_field_int(r, 0, 0) : 0;
    return status;
}

/* A row that was deleted and not made again since is forgotten; where rows are deleted softly the
 * row is still there, and so stays what is known of it. */
#define FORGET_TOMBSTONES                                                                          \
    "DELETE FROM godwit.row r USING godwit.change h WHERE h.scope = $1 AND h.commit_seq > $2"      \
    " AND h.commit_seq <= $3 AND h.kind = 'D' AND r.scope = $1 AND r.tbl = h.tbl AND r.pk = h.pk"  \
    " AND r.del_ver = h.commit_seq AND r.tbl <> ALL ($4)"
#define FORGET_CHANGES                                                                             \
    "DELETE FROM godwit.change WHERE scope = $1 AND commit_seq > $2 AND commit_seq <= $3"
#define FORGET_RESULTS                                                                             \
    "UPDATE godwit.op o SET result = NULL, result_change = NULL FROM godwit.commit c"              \
    " WHERE c.scope = $1 AND c.commit_seq > $2 AND c.commit_seq <= $3 AND c.first_seq > 0"         \
    " AND o.scope = $1 AND o.device_id = c.device_id AND o.seq BETWEEN c.first_seq AND c.last_seq" \
    " AND (o.result IS NOT NULL OR o.result_change IS NOT NULL)"

static godwit_status forget_content(store *st, slice scope, int64_t from, int64_t upto,
                                    int64_t *rows_left) {
    const schema *s = st->tables->schema;
    size_t soft = 0;
    for (size_t i = 0; i < s->table_count; i++) {
        soft += s->tables[i].deleted_column >= 0;
    }
    range(st, scope, from, upto);
    pg_array(&st->link, PG_OID_TEXT, soft);
    for (size_t i = 0; i < s->table_count; i++) {
        if (s->tables[i].deleted_column >= 0) {
            pg_item(&st->link, s->tables[i].name);
        }
    }
    godwit_status status = run(st, FORGET_TOMBSTONES, rows_left);
    if (status == GODWIT_OK) {
        range(st, scope, from, upto);
        status = run(st, FORGET_CHANGES, rows_left);
    }
    if (status == GODWIT_OK) {
        range(st, scope, from, upto);
        status = run(st, FORGET_RESULTS, rows_left);
    }
    return status;
}

static godwit_status forget_log(store *st, slice scope, int64_t horizon, int64_t *rows_left) {
    PGresult *r = NULL;
    pg_text(&st->link, scope);
    godwit_status status =
        pg_query(&st->link, "SELECT pruned FROM godwit.scope WHERE scope = $1", &r);
    int64_t pruned = status == GODWIT_OK && PQntuples(r) ? pg_field_int(r, 0, 0) : horizon;
    const int64_t before = pruned;
    while (status == GODWIT_OK && *rows_left > 0 && pruned < horizon) {
        int64_t last = 0;
        status = next_commits(st, scope, pruned, horizon, *rows_left / 2, &last);
        if (status == GODWIT_OK && last) {
            status = forget_content(st, scope, pruned, last, rows_left);
            *rows_left -= last - pruned;
        }
        pruned = last ? last : horizon;
    }
    if (status != GODWIT_OK || pruned == before) {
        return status;
    }
    pg_text(&st->link, scope);
    pg_int(&st->link, pruned);
    return pg_send(&st->link, "UPDATE godwit.scope SET pruned = $2 WHERE scope = $1");
}

/* What the device has not confirmed it may still send again: those rows stay, a few per device. */
#define FORGET_DECISIONS                                                                           \
    "DELETE FROM godwit.op o USING godwit.commit c, godwit.device d WHERE c.scope = $1"            \
    " AND c.commit_seq > $2 AND c.commit_seq <= $3 AND c.first_seq > 0 AND d.scope = $1"           \
    " AND d.device_id = c.device_id AND o.scope = $1 AND o.device_id = c.device_id"                \
    " AND o.seq BETWEEN c.first_seq AND least(c.last_seq,"                                         \
    " CASE d.state WHEN 'active' THEN d.confirmed_seq ELSE c.last_seq END)"
#define FORGET_COMMITS                                                                             \
    "DELETE FROM godwit.commit WHERE scope = $1 AND commit_seq > $2 AND commit_seq <= $3"

static godwit_status forget_ledger(store *st, slice scope, int64_t floor, int64_t *rows_left) {
    int64_t last = 1;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && *rows_left > 0 && last) {
        status = next_commits(st, scope, 0, floor, *rows_left / 2, &last);
        if (status == GODWIT_OK && last) {
            range(st, scope, 0, last);
            status = run(st, FORGET_DECISIONS, rows_left);
        }
        if (status == GODWIT_OK && last) {
            range(st, scope, 0, last);
            status = run(st, FORGET_COMMITS, rows_left);
        }
    }
    return status;
}

static godwit_status forget_old(store *st, const char *sql, slice scope, int64_t before_ms,
                                int64_t *rows_left) {
    if (before_ms == INT64_MIN || *rows_left <= 0) {
        return GODWIT_OK;
    }
    range(st, scope, before_ms, *rows_left);
    return run(st, sql, rows_left);
}

#define BEFORE "to_timestamp($2::double precision / 1000)"
#define FORGET_CONFLICTS                                                                           \
    "DELETE FROM godwit.conflict WHERE scope = $1 AND conflict_id IN (SELECT conflict_id FROM"     \
    " godwit.conflict AS x WHERE scope = $1 AND state <> 'open' AND at < " BEFORE                  \
    " AND NOT EXISTS (SELECT 1 FROM godwit.commit AS c WHERE c.scope = $1 AND c.commit_seq ="      \
    " x.resolved_commit AND c.committed_at >= " BEFORE ") ORDER BY at LIMIT $3)"
#define FORGET_KEYS                                                                                \
    "DELETE FROM godwit.idem WHERE scope = $1 AND idem_key IN (SELECT idem_key FROM godwit.idem"   \
    " WHERE scope = $1 AND at < " BEFORE " ORDER BY at LIMIT $3)"
#define RETIRE                                                                                     \
    "UPDATE godwit.device SET state = 'retired' WHERE scope = $1 AND device_id IN (SELECT"         \
    " device_id FROM godwit.device WHERE scope = $1 AND state = 'active' AND last_seen < " BEFORE  \
    " LIMIT $3)"

godwit_status pg_forget(store *st, slice scope, const store_past *past, int64_t *rows_left) {
    godwit_status status = GODWIT_OK;
    if (past->marks.horizon > 0) {
        status = forget_log(st, scope, past->marks.horizon, rows_left);
    }
    if (status == GODWIT_OK && past->marks.ledger_floor > 0) {
        status = forget_ledger(st, scope, past->marks.ledger_floor, rows_left);
    }
    if (status == GODWIT_OK) {
        status = forget_old(st, FORGET_CONFLICTS, scope, past->conflicts_ms, rows_left);
    }
    if (status == GODWIT_OK) {
        status = forget_old(st, FORGET_KEYS, scope, past->keys_ms, rows_left);
    }
    return status == GODWIT_OK ? forget_old(st, RETIRE, scope, past->silent_ms, rows_left) : status;
}

void pg_durable(store *st, bool durable) {
    st->lazy = !durable;
}
