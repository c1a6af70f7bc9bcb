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
        " sequence_number > 0 UNION ALL SELECT min(lsn) FROM godwit_op WHERE scope = ?1 AND state ="
        " 'conflict' AND state <> 'retired' AND commit_seq IS NULL AND sequence_number > 0)",
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

static godwit_status forked(settle *s, int64_t seq) {
    return client_fail(
        s->g, GODWIT_IDENTITY,
        "the server knows another operation at %lld of this device's stream: the database"
        " was copied or restored; the queue is intact",
        (long long)seq);
}

/* The scan stands on the operation, whose key fits. feed: seen in the feed. */
static godwit_status take_event(settle *s, const own_scan *scan, const wire_result *result,
                                int64_t commit_seq, bool feed);

/* The scan stands on the operation. */
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
    return take_event(s, scan, result, commit_seq, feed);
}

static godwit_status take_event(settle *s, const own_scan *scan, const wire_result *result,
                                int64_t commit_seq, bool feed) {
    own_event e = {
        .lsn = sqlite3_column_int64(scan->stmt, 0), .seq = result->seq, .commit_seq = commit_seq};
    if (!op_state_parse(db_column_slice(scan->stmt, 3), &e.from)) {
        return client_fail(s->g, GODWIT_CORRUPT, "operation %lld has an unknown state",
                           (long long)e.lsn);
    }
    bool known = sqlite3_column_type(scan->stmt, 6) != SQLITE_NULL;
    if (event_of(s, e.lsn) || (known && !settle_undecided(e.from))) {
        return GODWIT_OK;
    }
    e.event = event_for(result, &e.outcome);
    e.code = arena_copy(&s->a, result->code_text);
    e.detail = arena_copy(&s->a, result->detail);
    e.hollow = !settle_undecided(e.from);
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

/* A commit of an identity this replica had before: what it still waits for there. Anything else is
 * of the copy that goes on under it. */
static godwit_status take_earlier_commit(settle *s, const wire_commit *commit) {
    own_scan scan = {0};
    godwit_status status = db_prepare(
        s->d,
        "SELECT lsn, sequence_number, idempotency_key, state, tbl, entity_id, commit_seq FROM"
        " godwit_op WHERE scope = ?1 AND state = 'acked' AND state <> 'retired' AND device_id = ?2"
        " AND sequence_number = ?3",
        &scan.stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, scan.stmt, 1, s->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, scan.stmt, 2, commit->device_id);
    }
    for (size_t i = 0; i < commit->own_count && status == GODWIT_OK; i++) {
        const wire_result *result = &commit->own_results[i];
        status = db_bind_int(s->d, scan.stmt, 3, result->seq);
        if (status == GODWIT_OK) {
            status = db_step(s->d, scan.stmt, &scan.row);
        }
        slice key = status == GODWIT_OK && scan.row ? db_column_slice(scan.stmt, 2) : (slice){0};
        if (key.len == SHA256_BYTES && result->has_key &&
            memcmp(key.ptr, result->key, SHA256_BYTES) == 0) {
            status = take_event(s, &scan, result, commit->seq, !s->staging);
        }
        sqlite3_reset(scan.stmt);
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
        if (page->commits[i].own && !slice_equal(page->commits[i].device_id, s->device_id)) {
            status = take_earlier_commit(s, &page->commits[i]);
        } else if (page->commits[i].own) {
            status = scan.stmt ? GODWIT_OK : scan_open(s, &scan);
            if (status == GODWIT_OK) {
                status = take_own_commit(s, &scan, &page->commits[i]);
            }
        }
    }
    db_done(s->d, scan.stmt);
    return status;
}

static op_event event_of_fact(const settle *s, const settle_fact *fact, bool in_history) {
    if (fact->outcome == OUTCOME_REJECTED) {
        return OP_EVENT_REJECT;
    }
    if (fact->outcome == OUTCOME_CONFLICT) {
        return OP_EVENT_OPEN_CONFLICT;
    }
    return in_history && fact->commit_seq <= s->cursor_seq ? OP_EVENT_FEED : OP_EVENT_ACK;
}

static godwit_status take_fact(settle *s, const settle_fact *fact, bool in_history,
                               sqlite3_stmt *stmt) {
    own_event e = {.lsn = fact->lsn,
                   .event = event_of_fact(s, fact, in_history),
                   .outcome = fact->outcome,
                   .code = fact->code,
                   .detail = fact->detail,
                   .commit_seq = fact->commit_seq,
                   .seq = sqlite3_column_int64(stmt, 3)};
    if (!op_state_parse(db_column_slice(stmt, 0), &e.from)) {
        return client_fail(s->g, GODWIT_CORRUPT, "operation %lld has an unknown state",
                           (long long)e.lsn);
    }
    bool refusal = e.event == OP_EVENT_REJECT || e.event == OP_EVENT_OPEN_CONFLICT;
    op_state to = e.from;
    if (e.from == OP_CONFLICT && e.event == OP_EVENT_ACK) {
        e.event = OP_EVENT_FEED;
    }
    if (!op_transition(&to, e.event)) {
        e.event =
            OP_EVENT_REJECT; /* refused here, had effect there: the user was told, it stays so */
        e.hollow = true;
    }
    e.hollow = e.hollow || (refusal && !settle_undecided(e.from) && to == e.from);
    bool leaves = !e.hollow && e.event != OP_EVENT_ACK && settle_undecided(e.from);
    godwit_status status =
        leaves ? take_out(s, &e, sqlite3_column_int64(stmt, 1), db_column_slice(stmt, 2))
               : GODWIT_OK;
    return status == GODWIT_OK ? add_event(s, &e) : status;
}

godwit_status settle_take_facts(settle *s, const settle_fact *facts, size_t count,
                                bool in_history) {
    sqlite3_stmt *stmt = NULL;
    godwit_status status = db_prepare(
        s->d, "SELECT state, tbl, entity_id, sequence_number FROM godwit_op WHERE lsn = ?1", &stmt);
    for (size_t i = 0; i < count && status == GODWIT_OK; i++) {
        bool row = false;
        status = db_bind_int(s->d, stmt, 1, facts[i].lsn);
        if (status == GODWIT_OK) {
            status = db_step(s->d, stmt, &row);
        }
        if (status == GODWIT_OK && row) {
            status = take_fact(s, &facts[i], in_history, stmt);
        }
        sqlite3_reset(stmt);
    }
    db_done(s->d, stmt);
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
        " AND device_id IN (SELECT device_id FROM godwit_identity WHERE scope = ?1 AND current >="
        " 0) ORDER BY lsn",
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
