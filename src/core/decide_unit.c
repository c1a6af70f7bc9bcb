/* Delete units: a parent and its children deleted in one group stand or fall together.
 *
 * If one of them has been edited by somebody the deleting device had not seen (and its table lets
 * edits win), taking the others away would tear a family apart that one of its members survives. So
 * every delete connected to it by a foreign key inside the group is dropped. Found with a union of
 * sets over the group's deletes; parents are looked up by hash, so that a cascade of 10,000 rows
 * stays linear. */
#include "core/decide_inner.h"

typedef struct {
    decide_work *w;
    size_t *deletes; /* indexes into w->inputs of deletes of live rows */
    size_t count;
    size_t *leader; /* union-find over deletes */
    size_t *slots;  /* hash of one parent table's rows: index + 1, 0 = free */
    size_t slot_count;
} family;

static const decide_input *member(const family *f, size_t i) {
    return &f->w->inputs[f->deletes[i]];
}

static size_t find_leader(family *f, size_t i) {
    while (f->leader[i] != i) {
        f->leader[i] = f->leader[f->leader[i]];
        i = f->leader[i];
    }
    return i;
}

static bool family_init(family *f, decide_work *w, size_t count) {
    arena *a = w->c->a;
    f->w = w;
    f->slot_count = 4;
    while (f->slot_count < count * 2) {
        f->slot_count *= 2;
    }
    f->deletes = ARENA_ARRAY(a, size_t, count);
    f->leader = ARENA_ARRAY(a, size_t, count);
    f->slots = ARENA_ARRAY(a, size_t, f->slot_count);
    return f->deletes && f->leader && f->slots;
}

static bool fk_hash(const decide_input *in, const schema_fk *fk, bool of_parent, uint64_t *out) {
    uint64_t hash = 0;
    for (size_t i = 0; i < fk->count; i++) {
        const value *v = decide_fk_value(in->row, fk, of_parent, i);
        if (!v) {
            return false;
        }
        hash = value_hash(v, hash);
    }
    *out = hash ^ (hash >> 32);
    return true;
}

static void link_children(family *f, const schema_table *child, const schema_table *parent,
                          const schema_fk *fk) {
    uint64_t hash;
    size_t mask = f->slot_count - 1;
    memset(f->slots, 0, f->slot_count * sizeof *f->slots);
    for (size_t i = 0; i < f->count; i++) {
        if (member(f, i)->table == parent && fk_hash(member(f, i), fk, true, &hash)) {
            size_t slot = (size_t)hash & mask;
            while (f->slots[slot]) {
                slot = (slot + 1) & mask;
            }
            f->slots[slot] = i + 1;
        }
    }
    for (size_t i = 0; i < f->count; i++) {
        if (member(f, i)->table != child || !fk_hash(member(f, i), fk, false, &hash)) {
            continue;
        }
        for (size_t slot = (size_t)hash & mask; f->slots[slot]; slot = (slot + 1) & mask) {
            size_t candidate = f->slots[slot] - 1;
            if (decide_refers(member(f, i)->row, member(f, candidate)->row, fk)) {
                f->leader[find_leader(f, i)] = find_leader(f, candidate);
                break; /* a key refers to one parent */
            }
        }
    }
}

static bool table_seen(const family *f, size_t index) {
    for (size_t i = 0; i < index; i++) {
        if (member(f, i)->table == member(f, index)->table) {
            return true;
        }
    }
    return false;
}

static void link_all(family *f) {
    const schema_table *last = NULL;
    for (size_t i = 0; i < f->count; i++) {
        const schema_table *t = member(f, i)->table;
        if (t == last || table_seen(f, i)) {
            continue;
        }
        last = t;
        for (size_t k = 0; k < t->fk_count; k++) {
            const schema_table *parent = decide_parent_table(f->w->c, &t->fks[k]);
            if (parent && t->fks[k].count > 0) {
                link_children(f, t, parent, &t->fks[k]);
            }
        }
    }
}

/* Edits protect only where the table says that edits win. */
static bool protects(const decide_input *in) {
    return in->protected && in->table->on_conflicting_delete == DELETE_EDIT_WINS;
}

static void drop_units(family *f, bool *dropped) {
    for (size_t i = 0; i < f->count; i++) {
        if (protects(member(f, i))) {
            dropped[find_leader(f, i)] = true;
        }
    }
    for (size_t i = 0; i < f->count; i++) {
        f->w->inputs[f->deletes[i]].dropped = dropped[find_leader(f, i)];
    }
}

void decide_delete_units(decide_work *w) {
    size_t deletes = 0;
    bool any = false;
    for (size_t i = 0; i < w->count; i++) {
        decide_input *in = &w->inputs[i];
        if (in->op->kind == OP_DELETE && in->row->row.exists && !in->row->row.deleted) {
            in->protected = decide_edited(w, in);
            any = any || protects(in);
            deletes++;
        }
    }
    if (!any || deletes < 2) {
        return;
    }
    family f = {0};
    bool *dropped = ARENA_ARRAY(w->c->a, bool, deletes);
    if (!dropped || !family_init(&f, w, deletes)) {
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        const merge_row *row = &w->inputs[i].row->row;
        if (w->inputs[i].op->kind == OP_DELETE && row->exists && !row->deleted) {
            f.leader[f.count] = f.count;
            f.deletes[f.count++] = i;
        }
    }
    link_all(&f);
    drop_units(&f, dropped);
}
