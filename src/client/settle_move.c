/* The moves: every own operation that something happened to goes into its new state by
 * op_transition, with the record of a refusal; counters and events go along. */
#include "client/count.h"
#include "client/settle.h"

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
    bool first = settle_undecided(e->from) && e->from != OP_ACKED;
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
    int64_t moved[OP_STATE_COUNT] = {0};
    godwit_status status = GODWIT_OK;
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
    char at[32];
    wire_time_write(s->now_ms, at);
    godwit_status status = db_run(
        s->d,
        "UPDATE godwit_outcome SET resolution = 'resolved', at = ?1 WHERE outcome = 'conflict' AND"
        " resolution IS NULL AND NOT EXISTS (SELECT 1 FROM godwit_outcome AS y WHERE y.lsn ="
        " godwit_outcome.lsn AND y.resolution IS NOT NULL)"
        " AND EXISTS (SELECT 1 FROM godwit_conflict AS c WHERE c.op_key ="
        " lower(hex(idempotency_key))) AND NOT EXISTS (SELECT 1 FROM godwit_conflict AS c"
        " WHERE c.op_key = lower(hex(idempotency_key)) AND c.state = 'open')",
        "s", slice_of(at));
    return status == GODWIT_OK ? count_add(s->g, "decided", sqlite3_changes64(s->d->handle))
                               : status;
}
