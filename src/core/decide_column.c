/* Columns of an operation against columns of the row, unit by unit (semantics 7.2).
 *
 * A unit is one column, a column group, or the whole row of a row-atomic table. This file builds
 * the three sides of each unit, asks merge_unit_decide, writes what won and records what lost. */
#include "core/commute.h"
#include "core/decide_inner.h"

static bool unit_reserve(decide_work *w, size_t cap) {
    decide_columns *u = &w->unit;
    arena *a = w->c->a;
    if (cap <= u->cap) {
        return true;
    }
    u->ours = ARENA_ARRAY(a, value, cap);
    u->theirs = ARENA_ARRAY(a, value, cap);
    u->old = ARENA_ARRAY(a, value, cap);
    u->old_known = ARENA_ARRAY(a, bool, cap);
    u->carried = ARENA_ARRAY(a, bool, cap);
    u->newer = ARENA_ARRAY(a, bool, cap);
    u->columns = ARENA_ARRAY(a, int, cap);
    if (!u->ours || !u->theirs || !u->old || !u->old_known || !u->carried || !u->newer ||
        !u->columns) {
        return false;
    }
    u->cap = cap;
    return true;
}

static void unit_begin(decide_work *w, const decide_input *in, merge_policy policy) {
    decide_columns *u = &w->unit;
    u->rule = (slice){0};
    u->merge = (merge_unit){
        .policy = policy,
        .ours = u->ours,
        .theirs = u->theirs,
        .old = u->old,
        .old_known = u->old_known,
        .our_at_ms = in->at_ms,
        .our_device = w->device,
        .our_seq = in->op->seq,
    };
}

/* What the author started from, where the operation says so. */
static bool old_value(decide_work *w, const decide_input *in, int column, value *out) {
    const json *node = schema_value(in->op->base_node, &in->table->columns[column]);
    return node && value_from_json(w->c->a, node, out) == GODWIT_OK && out->type != VALUE_SPECIAL;
}

static void see_their_write(decide_columns *u, const merge_meta *meta) {
    merge_unit *unit = &u->merge;
    if (!unit->newer || merge_write_order(meta->at_ms, meta->device, meta->seq, unit->their_at_ms,
                                          unit->their_device, unit->their_seq) > 0) {
        unit->their_at_ms = meta->at_ms;
        unit->their_device = meta->device;
        unit->their_seq = meta->seq;
        u->their_commit = meta->ver;
    }
    unit->newer = true;
}

static bool column_newer(const decide_work *w, const decide_input *in, const decide_mode *mode,
                         int column) {
    int64_t eff_base = mode->create ? 0 : in->eff_base;
    return decide_newer(w, decide_meta(&in->row->row, column), eff_base, in->op->seq);
}

/* ours NULL: the operation does not write this member. */
static void unit_add(decide_work *w, decide_input *in, const decide_mode *mode, int column,
                     const value *ours) {
    decide_columns *u = &w->unit;
    size_t i = u->merge.count++;
    ASSERT(i < u->cap);
    const value *theirs = &in->row->row.values[column];
    u->columns[i] = column;
    u->theirs[i] = *theirs;
    u->carried[i] = ours != NULL;
    u->newer[i] = column_newer(w, in, mode, column);
    if (!u->newer[i]) {
        u->old[i] = *theirs; /* the author saw what is there */
        u->old_known[i] = true;
        u->ours[i] = ours ? *ours : *theirs;
        return;
    }
    see_their_write(u, decide_meta(&in->row->row, column));
    u->old_known[i] = !mode->create && old_value(w, in, column, &u->old[i]);
    if (ours) {
        u->ours[i] = *ours;
    } else if (u->old_known[i]) {
        u->ours[i] = u->old[i]; /* seen and left alone */
    } else {
        u->ours[i] = *theirs;
        u->merge.incomplete = true;
    }
}

static void write_tagged(decide_work *w, decide_input *in, int column, const value *v, slice tags) {
    decide_touch *touch = decide_touch_row(w, in);
    if (!touch) {
        return;
    }
    merge_row *row = &in->row->row;
    row->values[column] = *v;
    row->meta[column] = (merge_meta){.ver = w->commit,
                                     .at_ms = in->at_ms,
                                     .device = w->device,
                                     .seq = in->op->seq,
                                     .tags = tags};
    row->ver = w->commit;
    touch->columns[column] = true;
}

static void write_column(decide_work *w, decide_input *in, int column, const value *v) {
    write_tagged(w, in, column, v, (slice){0});
}

/* Counters and sets: what the operation changed, onto what is there, whoever wrote it. false: it
 * tells no difference, and is to be taken as the value it gives. */
static bool write_difference(decide_work *w, decide_input *in, const decide_mode *mode,
                             size_t index) {
    int column = in->columns[index];
    const value *present = &in->row->row.values[column], *now = &in->values[index];
    merge_policy policy = in->table->columns[column].policy;
    value old, next = {0};
    slice tags = {0};
    bool known = !mode->create && old_value(w, in, column, &old);
    if (!commute_always(policy)) {
        return false;
    }
    if (mode->create) { /* a second row of one id: both count from nothing */
        old = (value){.type = VALUE_NULL};
        known = true;
    }
    const commute_set_write write = {.present = present,
                                     .old = known ? &old : NULL,
                                     .now = now,
                                     .tags = in->row->row.meta[column].tags,
                                     .inherited = decide_meta(&in->row->row, column),
                                     .author = {.commit = w->commit,
                                                .eff_base = mode->create ? 0 : in->eff_base,
                                                .device = w->device,
                                                .seq = in->op->seq}};
    commute_result result =
        policy == POLICY_COUNTER              ? commute_counter(present, write.old, now, &next)
        : known || now->type == VALUE_SPECIAL ? commute_set(w->c->a, &write, &next, &tags)
                                              : COMMUTE_PLAIN;
    if (result == COMMUTE_BAD) {
        decide_end_named(w, in, CODE_INVALID_VALUE, "the result is no value for the counter or set",
                         in->table->columns[column].name);
    } else if (result == COMMUTE_OK &&
               (!value_equal(&next, present) || !slice_equal(tags, write.tags))) {
        write_tagged(w, in, column, &next, tags);
    }
    return result != COMMUTE_PLAIN;
}

static void write_unit(decide_work *w, decide_input *in) {
    const decide_columns *u = &w->unit;
    for (size_t i = 0; i < u->merge.count; i++) {
        if (u->carried[i] || !value_equal(&u->ours[i], &u->theirs[i])) {
            write_column(w, in, u->columns[i], &u->ours[i]);
        }
    }
}

static bool same_values(const decide_columns *u, const value *a, const value *b) {
    for (size_t i = 0; i < u->merge.count; i++) {
        if (!value_equal(&a[i], &b[i])) {
            return false;
        }
    }
    return true;
}

/* Does keeping theirs discard anything the operation said? */
static bool loses_ours(const decide_columns *u) {
    for (size_t i = 0; i < u->merge.count; i++) {
        if (u->carried[i] && !value_equal(&u->ours[i], &u->theirs[i])) {
            return true;
        }
    }
    return false;
}

/* chosen: [count] what the unit becomes; NULL = what it is, and people decide. */
static void record_unit(decide_work *w, decide_input *in, const decide_mode *mode,
                        const char *policy, const value *chosen) {
    decide_columns *u = &w->unit;
    const schema_table *t = in->table;
    bool keeps = !chosen || same_values(u, chosen, u->theirs);
    const char *winner = !chosen                           ? "none"
                         : keeps                           ? "theirs"
                         : same_values(u, chosen, u->ours) ? "ours"
                                                           : "merged";
    if (keeps && !loses_ours(u)) {
        return;
    }
    decide_conflict *record = decide_record(w, in, mode->kind, policy, winner);
    if (!record) {
        return;
    }
    record->their_commit = u->their_commit;
    bool *contested = u->newer;
    for (size_t i = 0; i < u->merge.count; i++) {
        contested[i] = u->newer[i] || u->carried[i];
    }
    size_t count = u->merge.count;
    record->columns_json = decide_names_json(w, t, u->columns, contested, count);
    record->theirs = decide_values_json(w, t, u->columns, u->theirs, contested, count);
    record->ours = decide_values_json(w, t, u->columns, u->ours, contested, count);
    if (chosen) {
        record->chosen = decide_values_json(w, t, u->columns, chosen, contested, count);
    }
    bool known = false;
    for (size_t i = 0; i < count; i++) {
        contested[i] = contested[i] && u->old_known[i];
        known = known || contested[i];
    }
    if (known) {
        record->base = decide_values_json(w, t, u->columns, u->old, contested, count);
    }
}

/* A rule has decided: what it made is the server's writing, not the device's. The device's next
 * edit was made without having seen it, and meets it as somebody else's. */
static void settle_custom(decide_work *w, decide_input *in, const decide_mode *mode) {
    const decide_columns *u = &w->unit;
    const value *chosen = decide_custom(w, in);
    const char *policy = decide_custom_name(w);
    if (!policy) {
        return;
    }
    bool ours = chosen && same_values(u, chosen, u->ours);
    record_unit(w, in, mode, policy, chosen);
    for (size_t i = 0; chosen && i < u->merge.count; i++) {
        if (!value_equal(&chosen[i], &u->theirs[i])) {
            write_column(w, in, u->columns[i], &chosen[i]);
            if (!ours) {
                in->row->row.meta[u->columns[i]].device = (slice){0};
                in->row->row.meta[u->columns[i]].seq = 0;
            }
        }
    }
}

/* Nothing of the group applies: its records are made when all of it is known to be undone. */
static void hold(decide_work *w, decide_input *in, const decide_mode *mode, const char *policy) {
    size_t before = w->conflict_count;
    record_unit(w, in, mode, policy, NULL);
    if (w->conflict_count > before) {
        w->held = w->conflicts[before];
        decide_end(w, in, OUTCOME_CONFLICT, CODE_HELD, "held until a person has decided");
    }
}

static void settle_unit(decide_work *w, decide_input *in, const decide_mode *mode,
                        const char *policy) {
    merge_verdict verdict = merge_unit_decide(&w->unit.merge);
    switch (verdict) {
    case MERGE_CAUSAL:
    case MERGE_ABA:
    case MERGE_COMMUTATIVE:
        write_unit(w, in);
        break;
    case MERGE_AGREE:
        break;
    case MERGE_OURS:
        record_unit(w, in, mode, policy, w->unit.ours);
        write_unit(w, in);
        break;
    case MERGE_THEIRS:
        record_unit(w, in, mode, policy, w->unit.theirs);
        break;
    case MERGE_OPEN:
        record_unit(w, in, mode, policy, NULL);
        break;
    case MERGE_ASK:
        settle_custom(w, in, mode);
        break;
    case MERGE_HOLD:
        hold(w, in, mode, policy);
        break;
    }
}

/* Members of one unit may have been given different policies: the most careful one counts. */
static merge_policy stricter(merge_policy a, merge_policy b) {
    static const int rank[] = {
        [POLICY_LWW] = 0,  [POLICY_CLIENT_WINS] = 1, [POLICY_SERVER_WINS] = 2, [POLICY_MANUAL] = 4,
        [POLICY_MAX] = 0,  [POLICY_MIN] = 0,         [POLICY_COUNTER] = 0,     [POLICY_SET] = 0,
        [POLICY_HOLD] = 5, [POLICY_CUSTOM] = 3};
    return rank[b] > rank[a] ? b : a;
}

const value *decide_carried(const decide_input *in, int column) {
    for (size_t i = 0; i < in->count; i++) {
        if (in->columns[i] == column) {
            return &in->values[i];
        }
    }
    return NULL;
}

static bool same_unit(const schema_table *t, int a, int b) {
    return t->row_atomic || a == b ||
           (t->columns[a].group > 0 && t->columns[a].group == t->columns[b].group);
}

static void write_group(decide_work *w, decide_input *in, const decide_mode *mode, int first) {
    const schema_table *t = in->table;
    unit_begin(w, in, POLICY_LWW);
    merge_policy policy = POLICY_LWW;
    for (size_t i = 0; i < t->column_count; i++) {
        const schema_column *column = &t->columns[i];
        if (column->is_key || column->local || !same_unit(t, first, (int)i)) {
            continue;
        }
        policy = stricter(policy, column->policy);
        w->unit.rule = w->unit.rule.len ? w->unit.rule : column->rule;
        unit_add(w, in, mode, (int)i, decide_carried(in, (int)i));
    }
    w->unit.merge.policy = policy;
    settle_unit(w, in, mode, merge_policy_name(policy));
}

/* Was the unit of payload column `index` met earlier in the payload? */
static bool unit_done(const decide_input *in, size_t index) {
    for (size_t i = 0; i < index; i++) {
        if (same_unit(in->table, in->columns[i], in->columns[index])) {
            return true;
        }
    }
    return false;
}

static void write_by_columns(decide_work *w, decide_input *in, const decide_mode *mode) {
    const schema_table *t = in->table;
    for (size_t i = 0; i < in->count; i++) {
        int column = in->columns[i];
        const schema_column *meta = &t->columns[column];
        if (t->row_atomic || meta->group > 0) {
            if (!unit_done(in, i)) {
                write_group(w, in, mode, column);
            }
        } else if (write_difference(w, in, mode, i)) {
            continue;
        } else if (!column_newer(w, in, mode, column)) {
            write_column(w, in, column, &in->values[i]);
        } else {
            unit_begin(w, in, meta->policy);
            w->unit.rule = meta->rule;
            unit_add(w, in, mode, column, &in->values[i]);
            settle_unit(w, in, mode, merge_policy_name(meta->policy));
        }
    }
}

/* newest: COLUMN compares the two rows' values of that column, as the application wrote them. */
static bool device_is_newest(decide_work *w, const decide_input *in) {
    int column = in->table->initial_column;
    value ours;
    if (column < 0) {
        return false;
    }
    const json *node = schema_value(in->op->payload_node, &in->table->columns[column]);
    return node && value_from_json(w->c->a, node, &ours) == GODWIT_OK &&
           merge_value_order(&ours, &in->row->row.values[column]) > 0;
}

/* First contact of a device's row with the server's: the differing columns are one unit. */
static void write_initial(decide_work *w, decide_input *in, const decide_mode *mode) {
    static const char *const names[] = {[INITIAL_KEEP_SERVER] = "keep_server",
                                        [INITIAL_KEEP_DEVICE] = "keep_device",
                                        [INITIAL_MANUAL] = "manual",
                                        [INITIAL_NEWEST] = "newest"};
    initial_policy initial = in->table->initial;
    bool device =
        initial == INITIAL_KEEP_DEVICE || (initial == INITIAL_NEWEST && device_is_newest(w, in));
    merge_policy policy = initial == INITIAL_MANUAL ? POLICY_MANUAL
                          : device                  ? POLICY_CLIENT_WINS
                                                    : POLICY_SERVER_WINS;
    unit_begin(w, in, policy);
    for (size_t i = 0; i < in->count; i++) {
        int column = in->columns[i];
        if (!column_newer(w, in, mode, column)) {
            write_column(w, in, column, &in->values[i]);
        } else if (!value_equal(&in->values[i], &in->row->row.values[column])) {
            unit_add(w, in, mode, column, &in->values[i]);
        }
    }
    if (w->unit.merge.count > 0) {
        settle_unit(w, in, mode, names[initial]);
    }
}

static void check_size(decide_work *w, const decide_input *in) {
    size_t total = 0;
    for (size_t i = 0; i < in->table->column_count; i++) {
        const value *v = &in->row->row.values[i];
        if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
            total += v->u.s.len;
        }
    }
    if (total > ROW_BYTES_MAX) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_TOO_LARGE, "the row would be over its limit");
    }
}

void decide_write_columns(decide_work *w, decide_input *in, const decide_mode *mode) {
    const merge_row *row = &in->row->row;
    if (!mode->create && row->ver <= in->eff_base) {
        for (size_t i = 0; i < in->count; i++) { /* the author saw the whole row */
            if (!write_difference(w, in, mode, i)) {
                write_column(w, in, in->columns[i], &in->values[i]);
            }
        }
    } else if (!unit_reserve(w, in->table->column_count)) {
        return;
    } else if (mode->initial) {
        write_initial(w, in, mode);
    } else {
        write_by_columns(w, in, mode);
    }
    check_size(w, in);
}
