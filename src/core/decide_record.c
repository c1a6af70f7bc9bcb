/* Conflict records: what was decided against whom, with both sides' values, so that a person can
 * see it and bring the loser back. Made for every automatic decision that discarded a value. */
#include "core/decide_inner.h"

decide_conflict *decide_record(decide_work *w, decide_input *in, const char *kind,
                               const char *policy, const char *winner) {
    arena *a = w->c->a;
    if (w->conflict_count == w->conflict_cap) {
        size_t cap = w->conflict_cap ? w->conflict_cap * 2 : 4;
        decide_conflict *grown = ARENA_ARRAY(a, decide_conflict, cap);
        if (!grown) {
            return NULL;
        }
        if (w->conflict_count > 0) {
            memcpy(grown, w->conflicts, w->conflict_count * sizeof *grown);
        }
        w->conflicts = grown;
        w->conflict_cap = cap;
    }
    size_t index = w->conflict_count;
    char salt[17];
    wire_u64_write(w->c->salt, salt);
    const char *id = arena_printf(a, "c-%lld-%zu-%s", (long long)w->commit, index, salt);
    if (!id) {
        return NULL;
    }
    w->conflicts[index] = (decide_conflict){
        .id = slice_of(id),
        .table = in->table,
        .entity_id = in->op->entity_id,
        .kind = slice_of(kind),
        .op = in->op,
        .columns_json = SLICE("[]"),
        .policy = slice_of(policy),
        .winner = slice_of(winner),
        .open = strcmp(winner, "none") == 0,
        .our_at_ms = in->at_ms,
        .our_base = in->eff_base,
    };
    if (in->row && in->row->row.exists) {
        w->conflicts[index].their_clock = clock_text(a, &in->row->clock);
    }
    w->conflict_count++;
    return &w->conflicts[index];
}

/* Hands the scratch text over to the arena. */
static slice finish_text(decide_work *w) {
    return w->scratch.failed ? (slice){0} : arena_copy(w->c->a, bytes_view(&w->scratch));
}

slice decide_names_json(decide_work *w, const schema_table *t, const int *columns, const bool *pick,
                        size_t count) {
    bytes *b = &w->scratch;
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '[');
    for (size_t i = 0; i < count; i++) {
        if (!pick || pick[i]) {
            json_comma(b, &first);
            json_write_text(b, t->columns[columns[i]].name);
        }
    }
    bytes_char(b, ']');
    return finish_text(w);
}

slice decide_values_json(decide_work *w, const schema_table *t, const int *columns,
                         const value *values, const bool *pick, size_t count) {
    bytes *b = &w->scratch;
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; i < count; i++) {
        if (!pick || pick[i]) {
            json_comma(b, &first);
            json_write_text(b, t->columns[columns ? columns[i] : (int)i].name);
            bytes_char(b, ':');
            value_to_json(b, &values[i]);
        }
    }
    bytes_char(b, '}');
    return finish_text(w);
}

slice decide_row_json(decide_work *w, const schema_table *t, const value *values) {
    return decide_values_json(w, t, NULL, values, NULL, t->column_count);
}

static slice object_or_none(slice text) {
    return text.len > 2 ? text : (slice){0};
}

/* The operation as it came. */
static void tell_operation(decide_work *w, const decide_input *in, decide_conflict *record) {
    record->columns_json = decide_names_json(w, in->table, in->columns, NULL, in->count);
    record->base = object_or_none(in->op->base);
    record->ours = object_or_none(in->op->payload);
}

void decide_record_held(decide_work *w, const char *kind) {
    const char *policy = w->code == CODE_HELD ? "hold_group" : "manual";
    for (size_t i = 0; i < w->count; i++) {
        decide_input *in = &w->inputs[i];
        in->first_conflict = w->conflict_count;
        decide_conflict *record = decide_record(w, in, kind, policy, "none");
        if (!record) {
            return;
        }
        tell_operation(w, in, record);
        if (i == w->ended_at && w->held.id.len) { /* the one that met somebody else's edit */
            slice id = record->id;
            *record = w->held;
            record->id = id;
        }
        in->conflict_count = 1;
    }
}

void decide_record_refused(decide_work *w, const decide_refusal *refusal) {
    decide_input *in = &w->inputs[w->ended_at];
    const char *kind = refusal->code == CODE_UNIQUE_VIOLATION ? "unique"
                       : refusal->code == CODE_FK_VIOLATION   ? "fk"
                       : refusal->code == CODE_CHECK_FAILED || refusal->code == CODE_NOT_NULL
                           ? "check"
                           : NULL;
    if (!kind || !in->table || w->code != refusal->code) {
        return;
    }
    in->first_conflict = w->conflict_count;
    decide_conflict *record = decide_record(w, in, kind, "reject", "theirs");
    if (record) {
        tell_operation(w, in, record);
        in->conflict_count = 1;
    }
}
