/* What others have written to the tracked tables themselves: it is there, so nothing is refused and
 * nothing is merged. It becomes a commit like any other: versions, clocks, the feed; whoever edits
 * the same columns without having seen it meets it as a concurrent edit. */
#include "core/decide_inner.h"

static void set_column(decide_touch *touch, const decide_fact *fact, size_t column,
                       const merge_meta *meta) {
    const schema_column *about = &touch->row->table->columns[column];
    touch->row->row.values[column] = fact->values[column];
    if (about->local || about->is_key) {
        return;
    }
    touch->columns[column] = true;
    touch->row->row.meta[column] = *meta;
}

/* The row as the fact says, which may be all that is known of it. */
static void appear(const decide_work *w, decide_touch *touch, const decide_fact *fact,
                   const merge_meta *meta) {
    merge_row *row = &touch->row->row;
    static const merge_meta none = {0};
    bool known = row->exists && !row->deleted;
    touch->full = true;
    for (size_t i = 0; i < touch->row->table->column_count; i++) {
        set_column(touch, fact, i, known ? meta : &none);
    }
    if (known) {
        return;
    }
    row->gen = row->exists ? row->gen + 1 : 1;
    row->created_ver = w->commit;
    row->created = *meta;
    row->exists = true;
    row->deleted = false;
    row->del_ver = 0;
    row->del_device = (slice){0};
}

static void disappear(const decide_work *w, decide_touch *touch, const decide_fact *fact) {
    merge_row *row = &touch->row->row;
    size_t count = touch->row->table->column_count;
    memcpy(row->values, fact->values, count * sizeof *row->values); /* the salvage image */
    row->deleted = true;
    row->del_ver = w->commit;
    row->del_device = (slice){0};
}

static bool says_anything(const decide_fact *fact) {
    const schema_table *t = fact->row->table;
    bool live = fact->row->row.exists && !fact->row->row.deleted;
    if (fact->is_delete || fact->whole || !live) {
        return !fact->is_delete || live;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        if (fact->columns[i] && !t->columns[i].local && !t->columns[i].is_key) {
            return true;
        }
    }
    return false;
}

static bool take(decide_work *w, const decide_fact *fact, const merge_meta *meta) {
    static const wire_op none;
    decide_input in = {.op = &none, .row = fact->row};
    const merge_row *row = &fact->row->row;
    if (!says_anything(fact)) {
        return true;
    }
    decide_touch *touch = decide_touch_row(w, &in);
    if (!touch) {
        return false;
    }
    if (fact->is_delete) {
        disappear(w, touch, fact);
    } else if (fact->whole || !row->exists || row->deleted) {
        appear(w, touch, fact, meta);
    } else {
        for (size_t i = 0; i < fact->row->table->column_count; i++) {
            if (fact->columns[i] && !fact->row->table->columns[i].is_key) {
                set_column(touch, fact, i, meta);
            }
        }
    }
    return true;
}

godwit_status decide_facts(decide_context *c, const decide_fact *facts, size_t count, int64_t at_ms,
                           decide_commit *out) {
    *out =
        (decide_commit){.commit_seq = c->head + 1, .at_ms = c->now_ms, .outcome = OUTCOME_APPLIED};
    decide_work w = {.c = c, .commit = c->head + 1};
    w.touch_end = &w.touches;
    const merge_meta meta = {.ver = w.commit, .at_ms = at_ms < c->now_ms ? at_ms : c->now_ms};
    for (size_t i = 0; i < count; i++) {
        if (!take(&w, &facts[i], &meta)) {
            return GODWIT_NOMEM;
        }
    }
    decide_finish_rows(&w, out);
    if (c->a->failed) {
        *out = (decide_commit){0};
        return GODWIT_NOMEM;
    }
    c->head += out->change_count > 0;
    return GODWIT_OK;
}
