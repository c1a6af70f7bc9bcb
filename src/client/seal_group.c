/* Coalescing inside a group (semantics 5.3): what the group does to one row becomes one operation.
 *
 *   create + update -> create      create + delete -> nothing     update + update -> update (first
 * old) update + delete -> delete      delete + create -> update of the difference
 *
 * A create or update keeps the place of its first change, a delete takes the place of its last.
 * That could reorder changes that only work in their order: values of UNIQUE or foreign key columns
 * handed from row to row. A group that changes such a column of a row again after having touched
 * another row is coalesced only where changes of one row follow each other directly. A change the
 * application has named (godwit_enqueue) is never absorbed. */
#include "client/seal.h"

#define NONE (-1)

static bool same_row(const seal_row *a, const seal_row *b) {
    return a->hash == b->hash && a->t == b->t && slice_equal(a->id, b->id);
}

/* Old values of what `later` changed for the first time, new values of all it changed. */
static void merge_update(seal_row *into, const seal_row *later) {
    for (size_t i = 0; i < into->t->data_count; i++) {
        if (!seal_bit(later->mask, i)) {
            continue;
        }
        if (!seal_bit(into->mask, i)) {
            seal_set_bit(into->mask, i);
            if (into->old) {
                into->old[i] = later->old[i];
            }
        }
        into->now[i] = later->now[i];
    }
}

/* A change back to where it began is not a change. */
static void drop_equal(seal_row *row) {
    bool any = false;
    for (size_t i = 0; i < row->t->data_count; i++) {
        if (seal_bit(row->mask, i) && value_equal(&row->now[i], &row->old[i])) {
            row->mask[i / 63] &= ~(UINT64_C(1) << (i % 63));
        }
        any = any || seal_bit(row->mask, i);
    }
    row->dropped = !any;
}

static void take_values(seal_row *row, const seal_row *from) {
    row->now = from->now;
    row->old = from->old;
    memcpy(row->mask, from->mask, sizeof row->mask);
}

/* The later change of a row meets the operation so far. Returns the index that stands for both,
 * NONE when nothing is left, or `later` itself when the pair can't be joined. */
static int join(seal_row *rows, int earlier, int later) {
    seal_row *a = &rows[earlier];
    seal_row *b = &rows[later];
    if (a->kind == OP_CREATE && b->kind == OP_UPDATE) {
        merge_update(a, b);
    } else if (a->kind == OP_UPDATE && b->kind == OP_UPDATE) {
        merge_update(a, b);
        drop_equal(a);
        b->dropped = true;
        return a->dropped ? NONE : earlier;
    } else if (a->kind == OP_CREATE && b->kind == OP_CREATE) {
        take_values(a, b); /* REPLACE of a row this group has made */
    } else if (a->kind == OP_CREATE && b->kind == OP_DELETE) {
        a->dropped = true;
        b->dropped = !a->replaces;
        b->baseless = a->replaces; /* its old values are the ones that were never sent */
        return a->replaces ? later : NONE;
    } else if (a->kind == OP_UPDATE && b->kind == OP_DELETE) {
        for (size_t i = 0; i < b->t->data_count; i++) {
            if (seal_bit(a->mask, i)) {
                b->old[i] = a->old[i];
            }
        }
        a->dropped = true;
        return later;
    } else if (a->kind == OP_DELETE && b->kind == OP_CREATE && a->baseless) {
        a->dropped = true;
        return later;
    } else if (a->kind == OP_DELETE && b->kind == OP_CREATE) {
        seal_row difference = *b;
        difference.old = a->old;
        a->kind = OP_UPDATE;
        take_values(a, &difference);
        b->dropped = true;
        drop_equal(a);
        return a->dropped ? NONE : earlier;
    } else {
        return later; /* update + create: REPLACE of a row whose other old values are not known */
    }
    b->dropped = true;
    return earlier;
}

static bool may_join(const seal_row *earlier, const seal_row *later) {
    return !earlier->hinted && !later->hinted && !earlier->t->queue && !earlier->refused &&
           !later->refused;
}

/* Whether giving both changes one place could break the order of values. A delete keeps its place,
 * but takes with it what an update before it released. */
static godwit_status keeps_order(seal_run_state *s, const seal_row *earlier, const seal_row *row,
                                 bool *out) {
    *out = false;
    if (row->t->queue || (row->kind == OP_DELETE && earlier->kind != OP_UPDATE)) {
        return GODWIT_OK;
    }
    godwit_status status = seal_order_columns(s, row->t);
    const seal_table *table = seal_table_of(s, row->t);
    for (size_t i = 0; status == GODWIT_OK && i < row->t->data_count && !*out; i++) {
        *out = table->order[i] && (row->kind != OP_UPDATE || seal_bit(row->mask, i));
    }
    return status;
}

typedef struct {
    int *heads;
    size_t mask;
} row_map;

static bool map_init(row_map *m, arena *a, size_t rows) {
    size_t slots = 16;
    while (slots < rows * 2) {
        slots *= 2;
    }
    m->heads = ARENA_ARRAY(a, int, slots);
    m->mask = slots - 1;
    for (size_t i = 0; m->heads && i < slots; i++) {
        m->heads[i] = NONE;
    }
    return m->heads != NULL;
}

static int map_find(const row_map *m, const seal_row *rows, const seal_row *row) {
    int at = m->heads[row->hash & m->mask];
    while (at != NONE && !same_row(&rows[at], row)) {
        at = rows[at].next;
    }
    return at;
}

static void map_remove(row_map *m, seal_row *rows, int index) {
    int *link = &m->heads[rows[index].hash & m->mask];
    while (*link != index) {
        ASSERT(*link != NONE);
        link = &rows[*link].next;
    }
    *link = rows[index].next;
}

static void map_add(row_map *m, seal_row *rows, int index) {
    int *head = &m->heads[rows[index].hash & m->mask];
    rows[index].next = *head;
    *head = index;
}

/* A create of a row that server or queue know as live (REPLACE) and its delete leave a delete. */
static godwit_status look_at_pair(seal_run_state *s, seal_row *a, const seal_row *b) {
    if (a->kind != OP_CREATE || b->kind != OP_DELETE) {
        return GODWIT_OK;
    }
    seal_scope *scope = NULL;
    godwit_status status = seal_scope_of(s, a, &scope);
    return status == GODWIT_OK ? seal_is_live(s, scope, a, &a->replaces) : status;
}

/* Finds out whether the whole group may be coalesced, or only neighbours. */
static godwit_status order_matters(seal_run_state *s, row_map *m, bool *out) {
    *out = false;
    for (size_t i = 0; i < s->row_count && !*out; i++) {
        seal_row *row = &s->rows[i];
        int earlier = map_find(m, s->rows, row);
        if (earlier != NONE) {
            if ((size_t)earlier + 1 != i) {
                godwit_status status = keeps_order(s, &s->rows[earlier], row, out);
                if (status != GODWIT_OK) {
                    return status;
                }
            }
            map_remove(m, s->rows, earlier);
        }
        map_add(m, s->rows, (int)i);
    }
    return GODWIT_OK;
}

godwit_status seal_coalesce(seal_run_state *s) {
    if (s->row_count < 2) {
        return GODWIT_OK;
    }
    row_map m;
    bool neighbours_only = false;
    if (!map_init(&m, &s->group, s->row_count)) {
        return GODWIT_NOMEM;
    }
    godwit_status status = order_matters(s, &m, &neighbours_only);
    if (status != GODWIT_OK) {
        return status;
    }
    for (size_t i = 0; i <= m.mask; i++) {
        m.heads[i] = NONE;
    }
    int last = NONE; /* operation the captured row before this one went into */
    for (size_t i = 0; i < s->row_count; i++) {
        seal_row *row = &s->rows[i];
        int earlier = map_find(&m, s->rows, row);
        int now = (int)i;
        if (earlier != NONE) {
            if (may_join(&s->rows[earlier], row) && (!neighbours_only || earlier == last)) {
                status = look_at_pair(s, &s->rows[earlier], row);
                if (status != GODWIT_OK) {
                    return status;
                }
                now = join(s->rows, earlier, (int)i);
            }
            map_remove(&m, s->rows, earlier);
        }
        if (now != NONE) {
            map_add(&m, s->rows, now);
        }
        last = now;
    }
    return GODWIT_OK;
}
