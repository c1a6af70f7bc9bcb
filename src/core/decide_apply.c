/* One operation onto the working row: the tables of semantics 7.2 to 7.4.
 *
 * What happens to the row as a whole (made, gone, brought back) is decided here, what happens to
 * columns in decide_column.c. Each automatic decision against either side leaves a record. */
#include "core/decide_inner.h"

static void outcome_of(decide_input *in, op_outcome outcome) {
    /* conflict > merged > applied > noop: an operation is as contested as its most contested part
     */
    static const int rank[] = {
        [OUTCOME_NOOP] = 1, [OUTCOME_APPLIED] = 2, [OUTCOME_MERGED] = 3, [OUTCOME_CONFLICT] = 4};
    ASSERT((size_t)outcome < COUNT_OF(rank) && rank[outcome] > 0);
    if (rank[outcome] > rank[in->outcome]) {
        in->outcome = outcome;
    }
}

bool decide_edited(const decide_work *w, const decide_input *in) {
    const merge_row *row = &in->row->row;
    int64_t seq = in->op->seq;
    if (row->ver <= in->eff_base) {
        return false;
    }
    if (decide_newer(w, &row->created, in->eff_base, seq)) {
        return true;
    }
    for (size_t i = 0; i < in->table->column_count; i++) {
        if (row->meta[i].ver && decide_newer(w, &row->meta[i], in->eff_base, seq)) {
            return true;
        }
    }
    return false;
}

/* Deleted by somebody the author had not seen? */
bool decide_deleted_concurrently(const decide_work *w, const decide_input *in) {
    const merge_row *row = &in->row->row;
    bool own = w->device.len > 0 && slice_equal(row->del_device, w->device);
    return row->del_ver > in->eff_base && row->del_ver != w->commit && !own;
}

static merge_meta author(const decide_work *w, const decide_input *in) {
    return (merge_meta){
        .ver = w->commit, .at_ms = in->at_ms, .device = w->device, .seq = in->op->seq};
}

/* A row from nothing or over a tombstone: what the operation does not say is empty. */
static void make_row(decide_work *w, decide_input *in) {
    const schema_table *t = in->table;
    decide_touch *touch = decide_touch_row(w, in);
    if (!touch) {
        return;
    }
    merge_row *row = &in->row->row;
    int gen = row->exists ? row->gen + 1 : 1;
    if (row->exists) {
        memset(row->values, 0, t->column_count * sizeof *row->values);
        memset(row->meta, 0, t->column_count * sizeof *row->meta);
        memset(touch->columns, 0, t->column_count * sizeof *touch->columns);
    }
    *row = (merge_row){.exists = true,
                       .ver = w->commit,
                       .created_ver = w->commit,
                       .gen = gen,
                       .created = author(w, in),
                       .values = row->values,
                       .meta = row->meta};
    for (size_t i = 0; i < t->key_count; i++) {
        row->values[t->key[i]] = in->keys[i];
    }
    for (size_t i = 0; i < in->count; i++) {
        row->values[in->columns[i]] = in->values[i];
        touch->columns[in->columns[i]] = true;
    }
    touch->full = true;
    outcome_of(in, OUTCOME_APPLIED);
}

static bool same_content(const decide_input *in) {
    for (size_t i = 0; i < in->count; i++) {
        if (!value_equal(&in->values[i], &in->row->row.values[in->columns[i]])) {
            return false;
        }
    }
    return true;
}

/* The payload as it came is the record's `ours`; an empty object counts as nothing. */
static slice object_or_none(slice text) {
    return text.len > 2 ? text : (slice){0};
}

static void create_over_tombstone(decide_work *w, decide_input *in) {
    if (decide_deleted_concurrently(w, in)) {
        decide_conflict *record = decide_record(w, in, "delete_create", "recreate", "ours");
        if (record) {
            record->ours = object_or_none(in->op->payload);
            record->chosen = record->ours;
            record->their_commit = in->row->row.del_ver;
        }
        outcome_of(in, OUTCOME_MERGED);
    }
    make_row(w, in);
}

static void create_over_live(decide_work *w, decide_input *in) {
    if (same_content(in)) {
        outcome_of(in, OUTCOME_NOOP);
        return;
    }
    decide_mode mode = {.create = true, .kind = "create_create"};
    mode.initial = in->eff_base == 0 && in->op->seq > 0; /* a device that has not seen the row */
    decide_write_columns(w, in, &mode);
}

static void apply_create(decide_work *w, decide_input *in) {
    const merge_row *row = &in->row->row;
    if (row->foreign) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_ID_UNAVAILABLE, "this id can't be used");
    } else if (!row->exists) {
        make_row(w, in);
    } else if (row->deleted) {
        create_over_tombstone(w, in);
    } else {
        create_over_live(w, in);
    }
}

/* A base that this history lacks (a restored server), or one so old that the row's tombstone may be
 * gone: the row may come back or may have been deleted, nobody knows; the content is kept. */
static void update_without_row(decide_work *w, decide_input *in) {
    const wire_op *op = in->op;
    int64_t named = op->seq > 0 ? op->base_seq : op->base_commit;
    if (named > 0 && in->eff_base == 0) {
        decide_end(w, in, OUTCOME_CONFLICT, CODE_LOST_BASE,
                   "the base of the operation is not in this history and the row is unknown");
    } else if (named > 0 && in->eff_base < w->c->horizon) {
        decide_end(w, in, OUTCOME_CONFLICT, CODE_ROW_MISSING,
                   "the row is gone and its history is no longer kept");
    } else {
        decide_end(w, in, OUTCOME_REJECTED, CODE_ROW_MISSING, "there is no such row");
    }
}

/* Edit against delete, the edit wins: the row comes back as it was when it went. */
static void resurrect(decide_work *w, decide_input *in) {
    int64_t del_ver = in->row->row.del_ver;
    decide_lift(w, in, in->row);
    decide_conflict *record = decide_record(w, in, "delete_update", "edit_wins", "ours");
    if (record) {
        record->base = object_or_none(in->op->base);
        record->ours = object_or_none(in->op->payload);
        record->chosen = record->ours;
        record->their_commit = del_ver;
    }
    outcome_of(in, OUTCOME_MERGED);
}

/* The whole row as the edit would have left it: the deletion may be taken back where nobody has the
 * row any more. */
static slice edited_row(decide_work *w, const decide_input *in) {
    const schema_table *t = in->table;
    value *values = ARENA_ARRAY(w->c->a, value, t->column_count);
    if (!values) {
        return (slice){0};
    }
    memcpy(values, in->row->row.values, t->column_count * sizeof *values);
    for (size_t i = 0; i < in->count; i++) {
        if (in->values[i].type != VALUE_SPECIAL) {
            values[in->columns[i]] = in->values[i];
        }
    }
    return decide_row_json(w, t, values);
}

static void update_over_tombstone(decide_work *w, decide_input *in) {
    static const decide_mode mode = {.kind = "field"};
    if (!decide_deleted_concurrently(w, in)) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_ROW_DELETED, "the row is deleted");
    } else if (in->table->on_conflicting_delete == DELETE_EDIT_WINS) {
        resurrect(w, in);
        decide_write_columns(w, in, &mode);
    } else {
        decide_conflict *record = decide_record(w, in, "delete_update", "delete_wins", "theirs");
        if (record) {
            record->base = object_or_none(in->op->base);
            record->ours = edited_row(w, in);
            record->their_commit = in->row->row.del_ver;
        }
        outcome_of(in, OUTCOME_MERGED);
    }
}

static void apply_update(decide_work *w, decide_input *in) {
    static const decide_mode mode = {.kind = "field"};
    bool exists = in->row->row.exists;
    if (in->count == 0 && (exists || in->op->resolves.len > 0)) {
        outcome_of(in, OUTCOME_NOOP); /* says nothing of the row, which may be gone for good */
    } else if (!exists) {
        update_without_row(w, in);
    } else if (in->row->row.deleted) {
        update_over_tombstone(w, in);
    } else {
        decide_write_columns(w, in, &mode);
    }
}

static int64_t last_edit(const decide_input *in) {
    int64_t ver = in->row->row.created.ver;
    for (size_t i = 0; i < in->table->column_count; i++) {
        int64_t column = in->row->row.meta[i].ver;
        ver = column > ver ? column : ver;
    }
    return ver;
}

/* Values the delete's author had not seen, for the record: the whole row, so that it can be
 * restored. */
static void record_delete(decide_work *w, decide_input *in, const char *policy,
                          const char *winner) {
    decide_conflict *record = decide_record(w, in, "update_delete", policy, winner);
    if (!record) {
        return;
    }
    record->their_commit = last_edit(in);
    record->base = object_or_none(in->op->base);
    record->theirs = decide_row_json(w, in->table, in->row->row.values);
    if (strcmp(winner, "theirs") == 0) {
        record->chosen = record->theirs;
    }
    outcome_of(in, OUTCOME_MERGED);
}

static void apply_delete(decide_work *w, decide_input *in) {
    merge_row *row = &in->row->row;
    if (!row->exists || row->deleted) {
        outcome_of(in, OUTCOME_NOOP);
        return;
    }
    if (in->dropped || (in->protected && in->table->on_conflicting_delete == DELETE_EDIT_WINS)) {
        record_delete(w, in, "edit_wins", "theirs");
        return;
    }
    if (in->protected) {
        record_delete(w, in, "delete_wins", "ours");
    }
    if (!decide_touch_row(w, in)) {
        return;
    }
    row->deleted = true; /* values stay: they are the salvage image */
    row->del_ver = w->commit;
    row->del_device = w->device;
    row->ver = w->commit;
    outcome_of(in, OUTCOME_APPLIED);
}

void decide_apply(decide_work *w, decide_input *in) {
    in->first_conflict = w->conflict_count;
    if (in->op->kind != OP_DELETE) {
        decide_lift_parents(w, in);
    }
    switch (in->op->kind) {
    case OP_CREATE:
        apply_create(w, in);
        break;
    case OP_UPDATE:
        apply_update(w, in);
        break;
    case OP_DELETE:
        apply_delete(w, in);
        break;
    case OP_NONE:
    case OP_VOID:
        ASSERT(!"refused before");
        break;
    }
    in->conflict_count = w->conflict_count - in->first_conflict;
    for (size_t i = 0; i < in->conflict_count; i++) {
        bool open = w->conflicts[in->first_conflict + i].open;
        outcome_of(in, open ? OUTCOME_CONFLICT : OUTCOME_MERGED);
    }
    if (in->outcome == OUTCOME_NONE) {
        in->outcome = OUTCOME_APPLIED;
    }
}
