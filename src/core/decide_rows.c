/* Working rows: found by hash, changed under an undo journal, and reported as net changes.
 *
 * A group that is refused must leave no trace, and a group that is accepted is one change per row
 * however many operations wrote it. Both come from the same place: the state of each row before the
 * group first wrote it. Rows of one batch live until the batch is saved; nothing is freed singly.
 */
#include "core/decide_inner.h"

#define BUCKETS_MIN 16

static size_t bucket_of(const decide_context *c, const schema_table *t, slice id) {
    uint64_t hash = c->hash_seed ^ ((uint64_t)(unsigned)t->number * 0x9e3779b97f4a7c15u);
    const char *at = id.ptr;
    size_t left = id.len;
    for (; left >= 8; at += 8, left -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    for (; left > 0; at++, left--) {
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
    }
    hash = (hash ^ (hash >> 29)) * 0xc4ceb9fe1a85ec53u;
    return (size_t)(hash >> 32) & (c->bucket_count - 1);
}

godwit_status decide_init(decide_context *c, size_t row_hint) {
    size_t count = BUCKETS_MIN;
    while (count / 2 < row_hint && count < SIZE_MAX / 4 / sizeof *c->buckets) {
        count *= 2;
    }
    c->buckets = ARENA_ARRAY(c->a, decide_row *, count);
    c->bucket_count = c->buckets ? count : 0;
    c->row_count = 0;
    return c->buckets ? GODWIT_OK : GODWIT_NOMEM;
}

decide_row *decide_row_find(const decide_context *c, const schema_table *t, slice id) {
    decide_row *row = c->buckets[bucket_of(c, t, id)];
    while (row && (row->table != t || !slice_equal(row->id, id))) {
        row = row->next;
    }
    return row;
}

static bool grow(decide_context *c) {
    decide_row **old = c->buckets;
    size_t old_count = c->bucket_count;
    decide_row **buckets = ARENA_ARRAY(c->a, decide_row *, old_count * 4);
    if (!buckets) {
        return false;
    }
    c->buckets = buckets;
    c->bucket_count = old_count * 4;
    for (size_t i = 0; i < old_count; i++) {
        for (decide_row *row = old[i], *next; row; row = next) {
            next = row->next;
            size_t bucket = bucket_of(c, row->table, row->id);
            row->next = buckets[bucket];
            buckets[bucket] = row;
        }
    }
    return true;
}

decide_row *decide_row_of(decide_context *c, const schema_table *t, slice id) {
    ASSERT(c->buckets);
    decide_row *row = decide_row_find(c, t, id);
    if (row) {
        return row;
    }
    if (c->row_count >= c->bucket_count * 2 && !grow(c)) {
        return NULL;
    }
    row = ARENA_NEW(c->a, decide_row);
    value *values = ARENA_ARRAY(c->a, value, t->column_count);
    merge_meta *meta = ARENA_ARRAY(c->a, merge_meta, t->column_count);
    if (!row || !values || !meta) {
        return NULL;
    }
    row->table = t;
    row->id = id;
    row->row.values = values;
    row->row.meta = meta;
    size_t bucket = bucket_of(c, t, id);
    row->next = c->buckets[bucket];
    c->buckets[bucket] = row;
    c->row_count++;
    return row;
}

decide_touch *decide_touch_row(decide_work *w, decide_input *in) {
    decide_row *row = in->row;
    arena *a = w->c->a;
    if (row->touch) {
        row->touch->seq = in->op->seq;
        return row->touch;
    }
    size_t count = row->table->column_count;
    decide_touch *touch = ARENA_NEW(a, decide_touch);
    bool *columns = ARENA_ARRAY(a, bool, count);
    if (!touch || !columns) {
        return NULL;
    }
    touch->row = row;
    touch->columns = columns;
    touch->seq = in->op->seq;
    touch->before = row->row;
    touch->before.values = NULL;
    touch->before.meta = NULL;
    if (row->row.exists) {
        touch->before.values = ARENA_ARRAY(a, value, count);
        touch->before.meta = ARENA_ARRAY(a, merge_meta, count);
        if (!touch->before.values || !touch->before.meta) {
            return NULL;
        }
        memcpy(touch->before.values, row->row.values, count * sizeof(value));
        memcpy(touch->before.meta, row->row.meta, count * sizeof(merge_meta));
    }
    row->touch = touch;
    *w->touch_end = touch;
    w->touch_end = &touch->next;
    w->touch_count++;
    return touch;
}

static void put_back(const decide_touch *touch) {
    decide_row *row = touch->row;
    size_t count = row->table->column_count;
    value *values = row->row.values;
    merge_meta *meta = row->row.meta;
    row->row = touch->before;
    row->row.values = values;
    row->row.meta = meta;
    if (touch->before.values) {
        memcpy(values, touch->before.values, count * sizeof *values);
        memcpy(meta, touch->before.meta, count * sizeof *meta);
    } else {
        memset(values, 0, count * sizeof *values);
        memset(meta, 0, count * sizeof *meta);
    }
}

void decide_undo(decide_work *w) {
    for (decide_touch *touch = w->touches; touch; touch = touch->next) {
        put_back(touch);
        touch->row->touch = NULL;
    }
    w->touches = NULL;
    w->touch_end = &w->touches;
    w->touch_count = 0;
}

/* Log position of an entry where a column still names it as its writer. */
static int64_t known_position(const decide_row *row, const clock_entry *entry) {
    const merge_row *r = &row->row;
    if (r->created.seq == entry->version && slice_equal(r->created.device, entry->device)) {
        return r->created.ver;
    }
    for (size_t i = 0; i < row->table->column_count; i++) {
        const merge_meta *meta = &r->meta[i];
        if (meta->ver && meta->seq == entry->version && slice_equal(meta->device, entry->device)) {
            return meta->ver;
        }
    }
    return 0;
}

/* Over the bound the oldest entries go into the floor. Where an entry's position is not known, the
 * row's former version bounds it: every operation on the row but this one is at or below that. */
static void compact(const decide_work *w, decide_row *row, int64_t former_ver) {
    vclock *clock = &row->clock;
    int64_t *positions = ARENA_ARRAY(w->c->a, int64_t, clock->count);
    if (!positions) {
        return;
    }
    for (size_t i = 0; i < clock->count; i++) {
        const clock_entry *entry = &clock->entries[i];
        positions[i] =
            slice_equal(entry->device, w->device) ? w->commit : known_position(row, entry);
        if (positions[i] == 0) {
            positions[i] = former_ver;
        }
    }
    clock_compact(clock, positions);
}

static bool advance_clock(const decide_work *w, decide_touch *touch) {
    decide_row *row = touch->row;
    if (w->device.len == 0) {
        /* Without a stream there is no entry to raise; the floor says the same of the whole row. */
        row->clock.floor = w->commit;
    } else if (clock_set(w->c->a, &row->clock, w->device, touch->seq) != GODWIT_OK) {
        return false;
    }
    if (row->clock.count > CLOCK_ENTRIES_MAX) {
        compact(w, row, touch->before.ver);
    }
    return true;
}

static bool live(const merge_row *row) {
    return row->exists && !row->deleted;
}

/* A first version goes out whole; what was given stays known, so that defaults can fill the rest.
 */
static bool widen(const decide_work *w, const decide_touch *touch, decide_change *change) {
    const schema_table *t = touch->row->table;
    bool *given = ARENA_ARRAY(w->c->a, bool, t->column_count);
    if (!given) {
        return false;
    }
    memcpy(given, touch->columns, t->column_count * sizeof *given);
    for (size_t i = 0; i < t->key_count; i++) {
        given[t->key[i]] = true;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        change->columns[i] = true;
    }
    change->given = given;
    return true;
}

static bool finish_row(const decide_work *w, decide_touch *touch, decide_change *change) {
    decide_row *row = touch->row;
    row->row.ver = w->commit;
    if (!advance_clock(w, touch)) {
        return false;
    }
    *change = (decide_change){
        .row = row,
        .is_delete = row->row.deleted,
        .full = !row->row.deleted && touch->full,
        .columns = touch->columns,
        .prev_seq = touch->before.ver,
        .clock_json = clock_text(w->c->a, &row->clock),
    };
    return change->clock_json.ptr != NULL && (!change->full || widen(w, touch, change));
}

void decide_finish_rows(decide_work *w, decide_commit *out) {
    out->changes = ARENA_ARRAY(w->c->a, decide_change, w->touch_count);
    if (!out->changes) {
        return;
    }
    for (decide_touch *touch = w->touches; touch; touch = touch->next) {
        touch->row->touch = NULL;
        if (!live(&touch->before) && !live(&touch->row->row)) {
            put_back(touch); /* made and gone within the group: nobody ever saw it */
        } else if (finish_row(w, touch, &out->changes[out->change_count])) {
            touch->row->change = out->change_count++;
        }
    }
}
