/* What became of own operations: replies and the feed's own blocks become events, a refusal takes
 * its hard dependants along, and every move goes through op_transition.
 *
 * A reply acknowledges, the feed retires: an acknowledged operation stays in the overlay until its
 * own key is seen in the feed, or until the log position is past its commit already. */
#include "client/settle.h"

/* ---- Events by lsn ---- */

static size_t slot_of(const settle *s, int64_t lsn) {
    size_t at =
        (size_t)((uint64_t)lsn * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->event_slot_count - 1);
    while (s->event_slots[at] && s->events[s->event_slots[at] - 1].lsn != lsn) {
        at = (at + 1) & (s->event_slot_count - 1);
    }
    return at;
}

static own_event *event_of(const settle *s, int64_t lsn) {
    if (!s->event_slot_count) {
        return NULL;
    }
    int index = s->event_slots[slot_of(s, lsn)];
    return index ? &s->events[index - 1] : NULL;
}

static godwit_status grow_events(settle *s) {
    size_t cap = s->event_cap ? s->event_cap * 2 : 64;
    own_event *events = mem_resize(s->g->allocator, s->events, cap * sizeof *events);
    if (!events) {
        return GODWIT_NOMEM;
    }
    s->events = events;
    s->event_cap = cap;
    s->event_slots = ARENA_ARRAY(&s->a, int, cap * 2);
    s->event_slot_count = s->event_slots ? cap * 2 : 0;
    if (!s->event_slots) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < s->event_count; i++) {
        s->event_slots[slot_of(s, s->events[i].lsn)] = (int)i + 1;
    }
    return GODWIT_OK;
}

static godwit_status add_event(settle *s, const own_event *event) {
    if (s->event_count == s->event_cap) {
        godwit_status status = grow_events(s);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    s->event_slots[slot_of(s, event->lsn)] = (int)s->event_count + 1;
    s->events[s->event_count++] = *event;
    return GODWIT_OK;
}

/* The operation leaves the overlay: its row has to be made anew. */
static godwit_status take_out(settle *s, own_event *event, int64_t tbl, slice id) {
    const client_table *t = client_table_by_number(s->g, tbl);
    godwit_status status = t ? settle_touch(s, t, id, &event->row) : GODWIT_OK;
    if (status == GODWIT_OK && event->row) {
        event->row->own = true;
        for (size_t i = 0; i < event->row->op_count; i++) {
            if (event->row->ops[i].lsn == event->lsn) {
                event->row->ops[i].leaves = true;
            }
        }
    }
    return status;
}

/* ---- Finding own operations, in the order of the stream ---- */

typedef struct {
    sqlite3_stmt *stmt;
    bool row;
} own_scan;

/* Starts at the first operation whose decision is not known: what lies before needs no answer. */
static godwit_status scan_open(settle *s, own_scan *scan) {
    int64_t start = 0;
    *scan = (own_scan){0};
    godwit_status status = db_int(
        s->d, &start,
        "SELECT coalesce(min(lsn), 9223372036854775807) FROM (SELECT min(lsn) AS lsn FROM godwit_op"
        " WHERE scope = ?1 AND state = 'pending' AND state <> 'retired' UNION ALL SELECT min(lsn)"
        " FROM godwit_op WHERE scope = ?1 AND state = 'acked' AND state <> 'retired' UNION ALL"
        " SELECT min(lsn) FROM godwit_op WHERE scope = ?1 AND state = 'parked' AND state <>"
        " 'retired' UNION ALL SELECT min(lsn) FROM godwit_op WHERE scope = ?1 AND state = 'blocked'"
        " AND state <> 'retired' AND commit_seq IS NULL UNION ALL SELECT min(lsn) FROM godwit_op"
        " WHERE scope = ?1 AND state = 'rejected' AND state <> 'retired' AND commit_seq IS NULL AND"
        " sequence_number > 0)",
        "s", s->scope);
    if (status == GODWIT_OK) {
        status = db_prepare(
            s->d,
            "SELECT lsn, sequence_number, idempotency_key, state, tbl, entity_id,"
            " commit_seq, wall_ms FROM godwit_op WHERE lsn >= ?1 AND scope = ?2 AND device_id ="
            " ?3 AND sequence_number > 0 ORDER BY lsn",
            &scan->stmt);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, scan->stmt, 1, start);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, scan->stmt, 2, s->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, scan->stmt, 3, s->device_id);
    }
    return status == GODWIT_OK ? db_step(s->d, scan->stmt, &scan->row) : status;
}

static godwit_status scan_to(settle *s, own_scan *scan, int64_t seq, bool *found) {
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && scan->row && sqlite3_column_int64(scan->stmt, 1) < seq) {
        status = db_step(s->d, scan->stmt, &scan->row);
    }
    *found = status == GODWIT_OK && scan->row && sqlite3_column_int64(scan->stmt, 1) == seq;
    return status;
}

/* ---- Results ---- */

static op_event event_for(const wire_result *result, op_outcome *outcome) {
    *outcome = result->outcome;
    if (*outcome == OUTCOME_NONE) {
        *outcome = slice_is(result->status, "error")      ? OUTCOME_REJECTED
                   : slice_is(result->status, "conflict") ? OUTCOME_CONFLICT
                                                          : OUTCOME_NOOP;
    }
    switch (*outcome) {
    case OUTCOME_REJECTED:
        return OP_EVENT_REJECT;
    case OUTCOME_CONFLICT:
        return OP_EVENT_OPEN_CONFLICT;
    case OUTCOME_DUPLICATE: /* carries the first decision */
        return result->code_text.len ? OP_EVENT_REJECT : OP_EVENT_ACK;
    case OUTCOME_NONE:
    case OUTCOME_APPLIED:
    case OUTCOME_MERGED:
    case OUTCOME_NOOP:
        break;
    }
    return OP_EVENT_ACK;
}

static void count(settle *s, op_outcome outcome, slice status) {
    s->counts.sent++;
    s->counts.duplicates += slice_is(status, "already_processed");
    s->counts.applied +=
        outcome == OUTCOME_APPLIED || outcome == OUTCOME_NOOP || outcome == OUTCOME_DUPLICATE;
    s->counts.merged += outcome == OUTCOME_MERGED;
    s->counts.rejected += outcome == OUTCOME_REJECTED;
    s->counts.conflicts += outcome == OUTCOME_CONFLICT;
}

static bool undecided(op_state state) {
    return state == OP_PENDING || state == OP_ACKED || state == OP_PARKED;
}

static godwit_status forked(settle *s, int64_t seq) {
    return client_fail(
        s->g, GODWIT_IDENTITY,
        "the server knows another operation at %lld of this device's stream: the database"
        " was copied or restored; the queue is intact",
        (long long)seq);
}

/* The scan stands on the operation. feed: seen in the feed. */
static godwit_status take_decision(settle *s, const own_scan *scan, const wire_result *result,
                                   int64_t commit_seq, bool feed) {
    slice key = db_column_slice(scan->stmt, 2);
    if (key.len != SHA256_BYTES ||
        (result->has_key && memcmp(key.ptr, result->key, SHA256_BYTES) != 0)) {
        return forked(s, result->seq);
    }
    if (result->seq > s->new_acked_seq) {
        s->new_acked_seq = result->seq;
        memcpy(s->new_acked_key, key.ptr, SHA256_BYTES);
    }
    own_event e = {
        .lsn = sqlite3_column_int64(scan->stmt, 0), .seq = result->seq, .commit_seq = commit_seq};
    if (!op_state_parse(db_column_slice(scan->stmt, 3), &e.from)) {
        return client_fail(s->g, GODWIT_CORRUPT, "operation %lld has an unknown state",
                           (long long)e.lsn);
    }
    bool known = sqlite3_column_type(scan->stmt, 6) != SQLITE_NULL;
    if (event_of(s, e.lsn) || (known && !undecided(e.from))) {
        return GODWIT_OK;
    }
    e.event = event_for(result, &e.outcome);
    e.code = arena_copy(&s->a, result->code_text);
    e.detail = arena_copy(&s->a, result->detail);
    e.hollow = !undecided(e.from);
    if (e.hollow) {
        e.event = e.from == OP_CONFLICT  ? OP_EVENT_OPEN_CONFLICT
                  : e.from == OP_RETIRED ? OP_EVENT_FEED
                                         : OP_EVENT_REJECT;
    } else if (e.event == OP_EVENT_ACK &&
               (feed || (commit_seq > 0 && commit_seq <= s->cursor_seq))) {
        e.event = OP_EVENT_FEED;
    }
    if (feed && !e.hollow && s->commit_at_ms) { /* the oldest of each commit speaks for it */
        int64_t made_ms = sqlite3_column_int64(scan->stmt, 7) + s->g->clock_ahead_ms;
        int64_t took_ms = s->commit_at_ms - made_ms;
        took_ms = took_ms > 0 ? took_ms : 0;
        s->latency_ms = took_ms > s->latency_ms ? took_ms : s->latency_ms;
    }
    godwit_status status = s->a.failed ? GODWIT_NOMEM : GODWIT_OK;
    if (status == GODWIT_OK && !e.hollow && e.event != OP_EVENT_ACK) {
        status =
            take_out(s, &e, sqlite3_column_int64(scan->stmt, 4), db_column_slice(scan->stmt, 5));
    }
    return status == GODWIT_OK ? add_event(s, &e) : status;
}

godwit_status settle_take_results(settle *s, const push_answer *answer, int64_t page_first,
                                  int64_t page_last) {
    own_scan scan;
    godwit_status status = answer->result_count ? scan_open(s, &scan) : GODWIT_OK;
    if (!answer->result_count || status != GODWIT_OK) {
        return status;
    }
    for (size_t i = 0; i < answer->result_count && status == GODWIT_OK; i++) {
        const wire_result *result = &answer->results[i];
        bool found = false;
        op_outcome outcome = OUTCOME_NONE;
        if (slice_is(result->status, "deferred") ||
            (slice_is(result->status, "error") && result->retryable)) {
            break; /* not decided: it goes again, and what follows it too */
        }
        if (result->seq >= s->next_seq) {
            status = forked(s, result->seq);
            break;
        }
        status = scan_to(s, &scan, result->seq, &found);
        if (status != GODWIT_OK || !found) {
            continue;
        }
        (void)event_for(result, &outcome);
        count(s, outcome, result->status);
        s->answered_first = s->answered_first ? s->answered_first : result->seq;
        s->answered_last = result->seq;
        bool in_page = result->commit_seq >= page_first && result->commit_seq <= page_last;
        if (!page_first || !in_page) { /* else the page of the same answer says all, once */
            status = take_decision(s, &scan, result, result->commit_seq, false);
        }
    }
    db_done(s->d, scan.stmt);
    return status;
}

static godwit_status take_own_commit(settle *s, own_scan *scan, const wire_commit *commit) {
    godwit_status status = GODWIT_OK;
    if (commit->own_last >= s->next_seq) {
        return forked(s, commit->own_last);
    }
    s->commit_at_ms = commit->at_ms;
    s->latency_ms = -1;
    for (size_t i = 0; i < commit->own_count && status == GODWIT_OK; i++) {
        const wire_result *result = &commit->own_results[i];
        bool found = false;
        status = scan_to(s, scan, result->seq, &found);
        if (status != GODWIT_OK || !found) {
            continue;
        }
        if (strcmp((const char *)sqlite3_column_text(scan->stmt, 3), "pending") == 0 &&
            (result->seq < s->answered_first || result->seq > s->answered_last)) {
            op_outcome outcome = OUTCOME_NONE;
            (void)event_for(result, &outcome);
            count(s, outcome, result->status);
        }
        status = take_decision(s, scan, result, commit->seq, !s->staging);
    }
    s->commit_at_ms = 0;
    return status == GODWIT_OK && s->latency_ms >= 0
               ? count_average(s->g, "latency_ms", s->latency_ms)
               : status;
}

godwit_status settle_take_own(settle *s, const pull_answer *page) {
    own_scan scan = {0};
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < page->commit_count && status == GODWIT_OK; i++) {
        if (page->commits[i].own) {
            status = scan.stmt ? GODWIT_OK : scan_open(s, &scan);
            if (status == GODWIT_OK) {
                status = take_own_commit(s, &scan, &page->commits[i]);
            }
        }
    }
    db_done(s->d, scan.stmt);
    return status;
}

godwit_status settle_refuse(settle *s, int64_t lsn, const char *code, slice detail) {
    own_event e = {.lsn = lsn,
                   .event = OP_EVENT_REJECT,
                   .from = OP_PENDING,
                   .outcome = OUTCOME_REJECTED,
                   .code = slice_of(code),
                   .detail = detail};
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    if (event_of(s, lsn)) {
        return GODWIT_OK;
    }
    godwit_status status = db_prepare(
        s->d,
        "SELECT tbl, entity_id, sequence_number FROM godwit_op WHERE lsn = ?1 AND state IN"
        " ('pending', 'parked')",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        e.seq = sqlite3_column_int64(stmt, 2);
        status = take_out(s, &e, sqlite3_column_int64(stmt, 0), db_column_slice(stmt, 1));
        if (status == GODWIT_OK) {
            status = add_event(s, &e);
        }
    }
    db_done(s->d, stmt);
    return status;
}

godwit_status settle_retire_until(settle *s, int64_t seq) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status = db_prepare(
        s->d,
        "SELECT lsn, tbl, entity_id, sequence_number, commit_seq, outcome FROM godwit_op"
        " WHERE scope = ?1 AND state = 'acked' AND state <> 'retired' AND commit_seq <= ?2"
        " ORDER BY lsn",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 1, s->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 2, seq);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        own_event e = {.lsn = sqlite3_column_int64(stmt, 0),
                       .event = OP_EVENT_FEED,
                       .from = OP_ACKED,
                       .seq = sqlite3_column_int64(stmt, 3),
                       .commit_seq = sqlite3_column_int64(stmt, 4)};
        if (!op_outcome_parse(db_column_slice(stmt, 5), &e.outcome)) {
            e.outcome = OUTCOME_APPLIED;
        }
        status = take_out(s, &e, sqlite3_column_int64(stmt, 1), db_column_slice(stmt, 2));
        if (status == GODWIT_OK) {
            status = add_event(s, &e);
        }
    }
    db_done(s->d, stmt);
    return status;
}

/* ---- The cascade ---- */

static bool refused(const own_event *e) {
    return e && !e->hollow && (e->event == OP_EVENT_REJECT || e->event == OP_EVENT_BLOCK);
}

static godwit_status block(settle *s, sqlite3_stmt *stmt) {
    own_event e = {.lsn = sqlite3_column_int64(stmt, 0),
                   .event = OP_EVENT_BLOCK,
                   .from = OP_PENDING,
                   .code = SLICE("dependency-failed"),
                   .detail = SLICE("an operation it depends on was refused")};
    e.seq = sqlite3_column_int64(stmt, 3);
    godwit_status status = take_out(s, &e, sqlite3_column_int64(stmt, 1), db_column_slice(stmt, 2));
    return status == GODWIT_OK ? add_event(s, &e) : status;
}

/* Blocks the operations of one group that lie to one side of lsn. A group is contiguous in its
 * scope. */
static godwit_status block_side(settle *s, const char *sql, int64_t lsn, int64_t group_first) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status = db_prepare(s->d, sql, &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 2, s->scope);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        if (status != GODWIT_OK || !row || sqlite3_column_int64(stmt, 4) != group_first) {
            break;
        }
        if (!event_of(s, sqlite3_column_int64(stmt, 0)) &&
            strcmp((const char *)sqlite3_column_text(stmt, 5), "pending") == 0) {
            status = block(s, stmt);
        }
    }
    db_done(s->d, stmt);
    return status;
}

#define MEMBER "SELECT lsn, tbl, entity_id, sequence_number, group_first, state FROM godwit_op"
static godwit_status block_group(settle *s, int64_t lsn) {
    int64_t group_first = 0;
    godwit_status status =
        db_int(s->d, &group_first,
               "SELECT group_first FROM godwit_op WHERE lsn = ?1 AND scope = ?2 AND state"
               " = 'pending'",
               "is", lsn, s->scope);
    if (status != GODWIT_OK) {
        return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    status =
        block_side(s, MEMBER " WHERE lsn >= ?1 AND scope = ?2 AND sequence_number > 0 ORDER BY lsn",
                   lsn, group_first);
    if (status == GODWIT_OK) {
        status =
            block_side(s,
                       MEMBER " WHERE lsn < ?1 AND scope = ?2 AND sequence_number > 0 ORDER BY lsn"
                              " DESC",
                       lsn, group_first);
    }
    return status;
}

/* One pass over the dependencies, oldest first: they point backwards, so one pass nearly always
 * does; blocking whole groups can reach back, hence *again. */
static godwit_status cascade_pass(settle *s, int64_t from_lsn, bool *again) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    size_t before = s->event_count;
    godwit_status status = db_prepare(
        s->d, "SELECT lsn, depends_on FROM godwit_dep WHERE lsn > ?1 AND hard = 1 ORDER BY lsn",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, from_lsn);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        if (status == GODWIT_OK && row && refused(event_of(s, sqlite3_column_int64(stmt, 1))) &&
            !event_of(s, sqlite3_column_int64(stmt, 0))) {
            status = block_group(s, sqlite3_column_int64(stmt, 0));
        }
    }
    db_done(s->d, stmt);
    *again = s->event_count > before;
    return status;
}

godwit_status settle_cascade(settle *s) {
    int64_t first = INT64_MAX;
    bool again = false;
    for (size_t i = 0; i < s->event_count; i++) {
        if (refused(&s->events[i]) && s->events[i].lsn < first) {
            first = s->events[i].lsn;
        }
    }
    if (first == INT64_MAX) {
        return GODWIT_OK;
    }
    godwit_status status = GODWIT_OK;
    do {
        status = cascade_pass(s, first, &again);
    } while (status == GODWIT_OK && again);
    return status;
}

/* ---- The moves ---- */

static godwit_status write_refusal(settle *s, const own_event *e, op_state state, slice at) {
    godwit_status status =
        db_run(s->d,
               "UPDATE godwit_op SET state = ?2, outcome = ?3, commit_seq = nullif(?4, 0), "
               "last_error_code ="
               " coalesce(?5, last_error_code), last_error = coalesce(?6, last_error), "
               "last_attempt_at = ?7"
               " WHERE lsn = ?1",
               "ississs", e->lsn, slice_of(op_state_name(state)),
               e->event == OP_EVENT_BLOCK ? (slice){0} : slice_of(op_outcome_name(e->outcome)),
               e->commit_seq, e->code.len ? e->code : (slice){0},
               e->detail.len ? e->detail : (slice){0}, at);
    if (status == GODWIT_OK) {
        status =
            db_run(s->d,
                   "INSERT INTO godwit_outcome (lsn, idempotency_key, at, outcome, code, detail,"
                   " payload, base) SELECT lsn, idempotency_key, ?2, ?3, ?4, ?5, payload, base FROM"
                   " godwit_op WHERE lsn = ?1",
                   "issss", e->lsn, at, slice_of(op_state_name(state)), e->code, e->detail);
    }
    return status;
}

static godwit_status write_move(settle *s, const own_event *e, op_state state, slice at) {
    godwit_status status = GODWIT_OK;
    if (!s->move_op) {
        status = db_prepare(
            s->d,
            "UPDATE godwit_op SET state = ?2, outcome = ?3, commit_seq = coalesce(nullif(?4,"
            " 0), commit_seq), last_attempt_at = ?5 WHERE lsn = ?1",
            &s->move_op);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->move_op, 1, e->lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->move_op, 2, slice_of(op_state_name(state)));
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->move_op, 3, slice_of(op_outcome_name(e->outcome)));
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->move_op, 4, e->commit_seq);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->move_op, 5, at);
    }
    if (status == GODWIT_OK) {
        status = db_status(s->d, sqlite3_step(s->move_op));
        sqlite3_reset(s->move_op);
    }
    /* what was not simply applied is remembered longer than the operation */
    bool first = undecided(e->from) && e->from != OP_ACKED;
    if (status == GODWIT_OK && first && e->outcome == OUTCOME_MERGED) {
        status =
            db_run(s->d,
                   "INSERT INTO godwit_outcome (lsn, idempotency_key, at, outcome, payload, base)"
                   " SELECT lsn, idempotency_key, ?2, 'merged', payload, base FROM godwit_op"
                   " WHERE lsn = ?1",
                   "is", e->lsn, at);
    }
    return status;
}

godwit_status settle_move_ops(settle *s) {
    char at[32];
    int64_t deps = 0;
    int64_t moved[OP_STATE_COUNT] = {0};
    godwit_status status = db_int(s->d, &deps, "SELECT EXISTS (SELECT 1 FROM godwit_dep)", "");
    wire_time_write(s->now_ms, at);
    for (size_t i = 0; i < s->event_count && status == GODWIT_OK; i++) {
        const own_event *e = &s->events[i];
        op_state state = e->from;
        if (!op_transition(&state, e->event)) {
            return client_fail(s->g, GODWIT_INTERNAL,
                               "operation %lld can't leave state %s that way", (long long)e->lsn,
                               op_state_name(e->from));
        }
        bool refusal = state == OP_REJECTED || state == OP_CONFLICT || state == OP_BLOCKED;
        moved[e->from]--;
        moved[state]++;
        status = refusal && !e->hollow ? write_refusal(s, e, state, slice_of(at))
                                       : write_move(s, e, state, slice_of(at));
        /* of a refused one they are kept: they say what goes with it when it is made again */
        if (status == GODWIT_OK && deps && state == OP_RETIRED) {
            status = db_run(s->d, "DELETE FROM godwit_dep WHERE lsn = ?1", "i", e->lsn);
        }
        /* what an own REPLACE overwrote is known to nobody here; while it stands, the row shows it
         */
        const touched *row = e->row;
        if (row && (refusal || !row->local.present) && row->base.present && row->base.known &&
            !image_complete(row->table->t, &row->base)) {
            s->needs_snapshot = true;
        }
    }
    if (status == GODWIT_OK) {
        status = count_ops(s->g, moved);
    }
    return status == GODWIT_OK ? count_add(s->g, "failed", moved[OP_REJECTED] + moved[OP_BLOCKED])
                               : status;
}

godwit_status settle_end_conflicts(settle *s) {
    godwit_status status =
        db_run(s->d,
               "UPDATE godwit_outcome SET resolution = 'resolved' WHERE outcome = 'conflict' AND"
               " resolution IS NULL AND EXISTS (SELECT 1 FROM godwit_conflict AS c WHERE c.op_key ="
               " lower(hex(idempotency_key))) AND NOT EXISTS (SELECT 1 FROM godwit_conflict AS c"
               " WHERE c.op_key = lower(hex(idempotency_key)) AND c.state = 'open')",
               "");
    return status == GODWIT_OK ? count_add(s->g, "decided", sqlite3_changes64(s->d->handle))
                               : status;
}
