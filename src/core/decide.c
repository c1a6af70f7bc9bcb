/* A batch decided: may the stream go on, and what does each group do.
 *
 * Pure: the same context and operations give the same plan, byte for byte. decide_group never
 * leaves a group half done: the rows are written under a journal, and the first refusal puts them
 * all back. */
#include "core/decide_inner.h"

#define DETAIL_NAME_BYTES 64

static int64_t find_salt(const decide_context *c, int64_t seq, bool *found) {
    size_t low = 0, high = c->salt_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->salts[middle].seq < seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = low < c->salt_count && c->salts[low].seq == seq;
    return *found ? c->salts[low].salt : 0;
}

int64_t decide_effective_base(const decide_context *c, const wire_op *op) {
    if (op->seq <= 0) {
        if (op->base_commit < 0) {
            return c->head;
        }
        return op->base_commit <= c->head ? op->base_commit : 0;
    }
    bool found;
    int64_t salt = find_salt(c, op->base_seq, &found);
    return found && salt == op->base_salt ? op->base_seq : 0;
}

static bool key_equal(const uint8_t *a, const uint8_t *b) {
    return memcmp(a, b, SHA256_BYTES) == 0;
}

static bool boundary_forked(const decide_device *device, const push_request *request) {
    if (request->has_prev_key != device->has_last_key) {
        return true;
    }
    return device->has_last_key && !key_equal(request->prev_key, device->last_key);
}

static bool resent_forked(const decide_device *device, const push_request *request,
                          const decide_ledger *by_seq) {
    for (size_t i = 0; i < request->op_count; i++) {
        const wire_op *op = &request->ops[i];
        if (op->seq > device->applied_seq) {
            break;
        }
        bool whole = op->group_first + op->group_size - 1 <= device->applied_seq;
        if (!whole || !by_seq || !by_seq[i].found || !key_equal(by_seq[i].key, op->key)) {
            return true;
        }
    }
    return false;
}

stream_verdict decide_caller(const decide_device *device, slice user_id) {
    if (!slice_equal(device->user_id, user_id)) {
        return STREAM_FORBIDDEN_DEVICE;
    }
    switch (device->state) {
    case DEVICE_REVOKED:
        return STREAM_REVOKED;
    case DEVICE_RETIRED:
        return STREAM_RETIRED;
    case DEVICE_FORKED:
        return STREAM_FORKED;
    case DEVICE_ACTIVE:
        break;
    }
    return STREAM_OK;
}

stream_verdict decide_stream(const decide_context *c, const decide_device *device, slice user_id,
                             const push_request *request, const decide_ledger *by_seq) {
    (void)c;
    stream_verdict caller = decide_caller(device, user_id);
    if (caller != STREAM_OK) {
        return caller;
    }
    if (request->acked_seq > device->applied_seq) {
        return STREAM_REGRESSED;
    }
    if (request->op_count == 0 && request->first_seq == 0) {
        return STREAM_OK;
    }
    if (request->first_seq - 1 > device->applied_seq) {
        return STREAM_GAP;
    }
    if (request->first_seq - 1 == device->applied_seq && boundary_forked(device, request)) {
        return STREAM_FORKED;
    }
    return resent_forked(device, request, by_seq) ? STREAM_FORKED : STREAM_OK;
}

void decide_end(decide_work *w, const decide_input *in, op_outcome outcome, op_code code,
                const char *detail) {
    ASSERT(outcome == OUTCOME_REJECTED || outcome == OUTCOME_CONFLICT);
    if (!w->ended) {
        w->ended = true;
        w->ended_as = outcome;
        w->code = code;
        w->detail = slice_of(detail);
        w->ended_at = (size_t)(in - w->inputs);
    }
}

void decide_end_named(decide_work *w, const decide_input *in, op_code code, const char *what,
                      slice name) {
    bool cut = name.len > DETAIL_NAME_BYTES;
    if (cut) {
        name.len = DETAIL_NAME_BYTES;
        while (name.len > 0 && ((unsigned char)name.ptr[name.len] & 0xc0) == 0x80) {
            name.len--; /* not in the middle of a character */
        }
    }
    const char *detail =
        arena_printf(w->c->a, "%s \"" SLICE_FMT "%s\"", what, SLICE_ARG(name), cut ? ".." : "");
    decide_end(w, in, OUTCOME_REJECTED, code, detail);
}

/* Has the group been decided before, under another identity? Sets *some when part of it has. */
static bool known_whole(const decide_ledger *by_key, size_t count, bool *some) {
    size_t known = 0;
    for (size_t i = 0; by_key && i < count; i++) {
        known += by_key[i].found;
    }
    *some = known > 0;
    return known == count;
}

static void copy_first_decision(const decide_ledger *by_key, decide_commit *out) {
    out->outcome = OUTCOME_DUPLICATE;
    for (size_t i = 0; i < out->result_count; i++) {
        out->results[i].outcome = by_key[i].outcome;
        out->results[i].code = by_key[i].code;
        out->results[i].detail = by_key[i].detail;
        out->results[i].result = by_key[i].result;
        out->results[i].first_commit = by_key[i].commit_seq;
    }
}

/* A re-keyed operation that the ledger may have forgotten: it can't be proved new. */
static bool unprovable(const decide_work *w) {
    for (size_t i = 0; i < w->count; i++) {
        if (w->inputs[i].op->rekeyed && w->inputs[i].eff_base < w->c->ledger_floor) {
            return true;
        }
    }
    return false;
}

static void refuse_voids(decide_work *w, const wire_op *ops) {
    for (size_t i = 0; i < w->count; i++) {
        if (ops[i].kind == OP_VOID) {
            op_code reason = ops[i].reason == CODE_NONE ? CODE_DISCARDED : ops[i].reason;
            decide_end(w, &w->inputs[i], OUTCOME_REJECTED, reason, "given up by the device");
        }
    }
}

static void force(decide_work *w, const decide_refusal *forced) {
    size_t index = forced->op_index < w->count ? forced->op_index : 0;
    decide_end(w, &w->inputs[index], OUTCOME_REJECTED, forced->code, "");
    w->detail = forced->detail;
}

static void apply_all(decide_work *w) {
    decide_delete_units(w);
    for (size_t i = 0; i < w->count && !w->ended && !w->c->a->failed; i++) {
        decide_apply(w, &w->inputs[i]);
    }
    if (!w->ended) {
        return;
    }
    decide_undo(w);
    w->conflict_count = 0; /* what was decided before the end was not decided */
    for (size_t i = 0; i < w->count; i++) {
        w->inputs[i].conflict_count = 0;
    }
    if (w->ended_as == OUTCOME_CONFLICT) {
        decide_record_held(w, w->code == CODE_LOST_BASE ? "lost_base"
                              : w->code == CODE_HELD    ? "held"
                                                        : "row_gone");
    }
}

/* Does the row mix columns of the operation with columns that somebody else has edited unseen? Then
 * both sides may have been good, and only what the merge makes of them is not. */
static bool mixes(const decide_work *w, const decide_input *in) {
    if (in->op->kind != OP_UPDATE || !in->row || !in->row->row.exists || in->row->row.deleted) {
        return false;
    }
    for (size_t i = 0; i < in->table->column_count; i++) {
        const merge_meta *meta = &in->row->row.meta[i];
        if (meta->ver && !decide_carried(in, (int)i) &&
            decide_newer(w, meta, in->eff_base, in->op->seq)) {
            return true;
        }
    }
    return false;
}

/* The database has refused what was decided before. */
static void refuse_forced(decide_work *w, const wire_op *ops, const decide_refusal *forced) {
    size_t index = forced->op_index < w->count ? forced->op_index : 0;
    decide_read_inputs(w, ops);
    if (!w->ended && forced->code == CODE_CHECK_FAILED && mixes(w, &w->inputs[index])) {
        decide_end(w, &w->inputs[index], OUTCOME_CONFLICT, forced->code, "");
        w->detail = forced->detail;
        decide_record_held(w, "check");
        return;
    }
    force(w, forced);
    decide_record_refused(w, forced);
}

/* Everything up to the rows: refusals that need no merge, then the merge. */
static void decide_rows_of_group(decide_work *w, const wire_op *ops, bool some_known,
                                 bool dep_failed, const decide_refusal *forced) {
    if (forced) {
        refuse_forced(w, ops, forced);
        return;
    }
    refuse_voids(w, ops);
    if (dep_failed) {
        decide_end(w, &w->inputs[0], OUTCOME_REJECTED, CODE_DEPENDENCY_FAILED,
                   "an operation it depends on was refused");
    }
    decide_read_inputs(w, ops);
    if (w->ended || w->c->a->failed) {
        return;
    }
    if (some_known || unprovable(w)) {
        decide_end(w, &w->inputs[0], OUTCOME_CONFLICT, CODE_UNVERIFIABLE,
                   "whether the operation was decided before is no longer known");
        decide_record_held(w, "unverifiable");
        return;
    }
    apply_all(w);
}

static op_outcome group_outcome(const decide_work *w) {
    op_outcome outcome = OUTCOME_NOOP;
    for (size_t i = 0; i < w->count; i++) {
        switch (w->inputs[i].outcome) {
        case OUTCOME_CONFLICT:
            return OUTCOME_CONFLICT;
        case OUTCOME_MERGED:
            outcome = OUTCOME_MERGED;
            break;
        case OUTCOME_APPLIED:
            outcome = outcome == OUTCOME_MERGED ? outcome : OUTCOME_APPLIED;
            break;
        case OUTCOME_NONE:
        case OUTCOME_NOOP:
        case OUTCOME_REJECTED:
        case OUTCOME_DUPLICATE:
            break;
        }
    }
    return outcome;
}

static slice conflict_ids(decide_work *w, const decide_input *in) {
    bytes *b = &w->scratch;
    bool first = true;
    if (in->conflict_count == 0) {
        return (slice){0};
    }
    bytes_clear(b);
    bytes_char(b, '[');
    for (size_t i = 0; i < in->conflict_count; i++) {
        json_comma(b, &first);
        json_write_text(b, w->conflicts[in->first_conflict + i].id);
    }
    bytes_char(b, ']');
    return b->failed ? (slice){0} : arena_copy(w->c->a, bytes_view(b));
}

static void fill_ended(decide_work *w, decide_commit *out) {
    out->outcome = w->ended_as;
    for (size_t i = 0; i < w->count; i++) {
        bool culprit = i == w->ended_at || w->code == CODE_UNVERIFIABLE;
        out->results[i].outcome = w->ended_as;
        out->results[i].code = culprit ? w->code : CODE_DEPENDENCY_FAILED;
        out->results[i].detail = culprit ? w->detail : SLICE("rolled back with its group");
        out->results[i].conflicts_json = conflict_ids(w, &w->inputs[i]);
    }
}

static const decide_change *change_of(const decide_commit *out, const decide_row *row) {
    return row->change < out->change_count && out->changes[row->change].row == row
               ? &out->changes[row->change]
               : NULL;
}

static void fill_decided(decide_work *w, decide_commit *out) {
    decide_finish_rows(w, out);
    out->outcome = group_outcome(w);
    for (size_t i = 0; i < w->count && !w->c->a->failed; i++) {
        decide_input *in = &w->inputs[i];
        decide_result *result = &out->results[i];
        const merge_row *row = &in->row->row;
        const decide_change *change = change_of(out, in->row);
        result->outcome = in->outcome;
        result->conflicts_json = conflict_ids(w, in);
        result->row = row->exists && !row->deleted ? in->row : NULL;
        if (change) {
            result->clock_json = change->clock_json;
        } else if (row->exists) {
            result->clock_json = clock_text(w->c->a, &in->row->clock);
        }
    }
}

static void advance(decide_work *w, decide_device *device, const wire_op *ops, decide_commit *out) {
    w->c->head = w->commit;
    if (!w->request->stream) {
        return;
    }
    const wire_op *last = &ops[w->count - 1];
    ASSERT(ops[0].seq == device->applied_seq + 1);
    out->first_seq = ops[0].seq;
    out->last_seq = last->seq;
    device->applied_seq = last->seq;
    memcpy(device->last_key, last->key, SHA256_BYTES);
    device->has_last_key = true;
    if (out->outcome != OUTCOME_REJECTED && out->outcome != OUTCOME_DUPLICATE) {
        device->last_at_ms = w->last_at_ms;
    }
}

godwit_status decide_group(decide_context *c, decide_device *device, const push_request *request,
                           const wire_op *ops, size_t count, const decide_ledger *by_key,
                           bool dep_failed, const decide_refusal *forced, decide_commit *out) {
    ASSERT(count > 0 && (device || !request->stream));
    *out = (decide_commit){.commit_seq = c->head + 1, .at_ms = c->now_ms, .result_count = count};
    decide_work w = {.c = c, .request = request, .commit = c->head + 1, .count = count};
    w.touch_end = &w.touches;
    if (request->stream) {
        w.device = device->device_id;
        w.last_at_ms = device->last_at_ms;
        w.skew_ms = clock_skew_ms(c->now_ms, request->wall_ms);
    }
    bytes_init(&w.scratch, c->a->allocator, 0);
    out->results = ARENA_ARRAY(c->a, decide_result, count);
    w.inputs = ARENA_ARRAY(c->a, decide_input, count);
    bool some_known, duplicate = known_whole(by_key, count, &some_known);
    if (out->results && w.inputs) {
        for (size_t i = 0; i < count; i++) {
            out->results[i].op = &ops[i];
        }
        if (duplicate) {
            copy_first_decision(by_key, out);
        } else {
            decide_rows_of_group(&w, ops, some_known, dep_failed, forced);
            if (w.ended) {
                fill_ended(&w, out);
            } else if (!c->a->failed) {
                fill_decided(&w, out);
            }
            out->conflicts = w.conflicts;
            out->conflict_count = w.conflict_count;
        }
    }
    bool failed = c->a->failed || w.scratch.failed;
    bytes_deinit(&w.scratch);
    if (failed) {
        *out = (decide_commit){0};
        return GODWIT_NOMEM;
    }
    advance(&w, device, ops, out);
    return GODWIT_OK;
}
