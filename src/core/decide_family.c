/* Families of rows: what a foreign key ties together across a deletion (semantics 7.3, 7.6).
 *
 * A row that comes back brings with it what was deleted in the same commit and refers to it, down
 * the foreign keys. A new row that refers to a parent which somebody else has deleted meanwhile
 * brings the parent back, where its table lets edits win. The rows concerned are loaded by the
 * caller; what is not in the context stays as it is. */
#include <stdio.h>
#include <stdlib.h>

#include "core/decide_inner.h"
#include "core/id.h"

/* Column of the parent that the i-th column of the foreign key refers to; -1 when it is unknown. */
static int parent_column(const schema_table *parent, const schema_fk *fk, size_t i) {
    if (fk->ref_columns && fk->ref_columns[i].len > 0) {
        return schema_column_index(parent, fk->ref_columns[i]);
    }
    return i < parent->key_count ? parent->key[i] : -1;
}

const value *decide_fk_value(const decide_row *row, const schema_fk *fk, bool of_parent, size_t i) {
    int column = of_parent ? parent_column(row->table, fk, i) : fk->columns[i];
    const value *v = column < 0 ? NULL : &row->row.values[column];
    return v && v->type != VALUE_NULL ? v : NULL;
}

bool decide_refers(const decide_row *child, const decide_row *parent, const schema_fk *fk) {
    for (size_t i = 0; i < fk->count; i++) {
        const value *a = decide_fk_value(child, fk, false, i);
        const value *b = decide_fk_value(parent, fk, true, i);
        if (!a || !b || !value_equal(a, b)) {
            return false;
        }
    }
    return fk->count > 0;
}

const schema_table *decide_parent_table(const decide_context *c, const schema_fk *fk) {
    for (size_t i = 0; i < c->schema->table_count; i++) {
        if (slice_equal(c->schema->tables[i].name, fk->table)) {
            return &c->schema->tables[i];
        }
    }
    return NULL;
}

/* ---- The id of a parent ---- */

static bool key_text(arena *a, const value *v, slice *out) {
    char number[24];
    switch ((value_type)v->type) {
    case VALUE_INT:
        (void)snprintf(number, sizeof number, "%lld", (long long)v->u.i);
        *out = arena_copy(a, slice_of(number));
        return out->ptr != NULL;
    case VALUE_TEXT:
        *out = v->u.s;
        return true;
    case VALUE_BLOB: {
        char *hex = arena_alloc(a, v->u.s.len * 2 + 1);
        if (hex) {
            id_hex_encode((const uint8_t *)v->u.s.ptr, v->u.s.len, hex);
        }
        *out = (slice){hex, hex ? v->u.s.len * 2 : 0};
        return hex != NULL;
    }
    case VALUE_NULL:
    case VALUE_REAL:
    case VALUE_SPECIAL:
        break;
    }
    return false;
}

slice decide_parent_id(arena *a, const schema_table *parent, const schema_fk *fk,
                       const value *const *values) {
    slice parts[KEY_COLUMNS_MAX];
    bytes b;
    for (size_t k = 0; k < parent->key_count; k++) {
        size_t i = 0;
        while (i < fk->count && parent_column(parent, fk, i) != parent->key[k]) {
            i++;
        }
        if (i == fk->count || !values[i] || !key_text(a, values[i], &parts[k])) {
            return (slice){0};
        }
    }
    bytes_init(&b, a->allocator, 0);
    schema_id_write(&b, parts, parent->key_count);
    a->failed = a->failed || b.failed; /* else the parent would count as not there */
    slice id = b.failed ? (slice){0} : arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    return id;
}

/* ---- Coming back ---- */

static decide_touch *lift(decide_work *w, decide_input *in, decide_row *row) {
    decide_input at = {.op = in->op, .table = row->table, .row = row};
    decide_touch *touch = decide_touch_row(w, &at);
    if (!touch) {
        return NULL;
    }
    row->row.deleted = false;
    row->row.del_ver = 0;
    row->row.del_device = (slice){0};
    row->row.ver = w->commit;
    touch->full = true;
    for (size_t i = 0; i < row->table->column_count; i++) {
        touch->columns[i] = true;
    }
    return touch;
}

static void record_lifted(decide_work *w, decide_input *in, decide_row *row, int64_t del_ver,
                          const char *policy) {
    decide_conflict *record = decide_record(w, in, "delete_update", policy, "ours");
    if (record) {
        record->table = row->table;
        record->entity_id = row->id;
        record->their_commit = del_ver;
        record->ours = decide_row_json(w, row->table, row->row.values);
        record->chosen = record->ours;
    }
}

/* Tombstones of one commit, by table and id: the order of a hash is nobody's order. */
static int by_name(const void *left, const void *right) {
    const decide_row *a = *(decide_row *const *)left, *b = *(decide_row *const *)right;
    if (a->table != b->table) {
        return a->table->number < b->table->number ? -1 : 1;
    }
    return slice_compare(a->id, b->id);
}

static size_t tombstones(const decide_context *c, int64_t del_ver, decide_row **out) {
    size_t count = 0;
    for (size_t i = 0; i < c->bucket_count; i++) {
        for (decide_row *row = c->buckets[i]; row; row = row->next) {
            if (row->row.exists && row->row.deleted && row->row.del_ver == del_ver) {
                out[count++] = row;
            }
        }
    }
    qsort(out, count, sizeof *out, by_name);
    return count;
}

static bool child_of(const decide_context *c, const decide_row *child, const decide_row *parent) {
    for (size_t f = 0; f < child->table->fk_count; f++) {
        const schema_fk *fk = &child->table->fks[f];
        if (decide_parent_table(c, fk) == parent->table && decide_refers(child, parent, fk)) {
            return true;
        }
    }
    return false;
}

/* The author himself wants it gone. */
static bool group_deletes(const decide_work *w, const decide_row *row) {
    for (size_t i = 0; i < w->count; i++) {
        if (w->inputs[i].row == row && w->inputs[i].op->kind == OP_DELETE) {
            return true;
        }
    }
    return false;
}

void decide_lift(decide_work *w, decide_input *in, decide_row *row) {
    int64_t del_ver = row->row.del_ver;
    decide_row **fallen = ARENA_ARRAY(w->c->a, decide_row *, w->c->row_count + 1);
    decide_row **lifted = ARENA_ARRAY(w->c->a, decide_row *, w->c->row_count + 1);
    if (!fallen || !lifted) {
        return;
    }
    size_t count = tombstones(w->c, del_ver, fallen), done = 0, known = 0;
    if (!lift(w, in, row)) {
        return;
    }
    lifted[known++] = row;
    while (done < known) {
        const decide_row *parent = lifted[done++];
        for (size_t i = 0; i < count; i++) {
            decide_row *child = fallen[i];
            if (child && child->row.deleted && child_of(w->c, child, parent) &&
                !group_deletes(w, child)) {
                if (!lift(w, in, child)) {
                    return;
                }
                record_lifted(w, in, child, del_ver, "edit_wins");
                lifted[known++] = child;
                fallen[i] = NULL;
            }
        }
    }
}

/* What a column of the operation's row will hold. */
static const value *coming_value(const decide_input *in, int column) {
    for (size_t i = 0; i < in->table->key_count; i++) {
        if (in->table->key[i] == column) {
            return &in->keys[i];
        }
    }
    const value *v = decide_carried(in, column);
    return v ? v : &in->row->row.values[column];
}

/* The parent of `child` (NULL: of the operation's own row) by one foreign key, lifted; else NULL.
 */
static decide_row *lift_parent(decide_work *w, decide_input *in, const decide_row *child,
                               const schema_fk *fk) {
    const value *values[KEY_COLUMNS_MAX];
    const schema_table *t = decide_parent_table(w->c, fk);
    if (!t || fk->count > KEY_COLUMNS_MAX || t->on_conflicting_delete != DELETE_EDIT_WINS) {
        return NULL;
    }
    for (size_t i = 0; i < fk->count; i++) {
        values[i] = child ? &child->row.values[fk->columns[i]] : coming_value(in, fk->columns[i]);
    }
    slice id = decide_parent_id(w->c->a, t, fk, values);
    decide_row *parent = id.ptr ? decide_row_find(w->c, t, id) : NULL;
    if (!parent || !parent->row.exists || !parent->row.deleted) {
        return NULL;
    }
    decide_input at = {.op = in->op, .table = t, .row = parent, .eff_base = in->eff_base};
    int64_t del_ver = parent->row.del_ver;
    if (!decide_deleted_concurrently(w, &at)) {
        return NULL;
    }
    decide_lift(w, in, parent);
    record_lifted(w, in, parent, del_ver, "resurrect_parent");
    return parent;
}

void decide_lift_parents(decide_work *w, decide_input *in) {
    const decide_row *child = NULL;
    const schema_table *t = in->table;
    decide_row **lifted =
        w->c->lift_parents ? ARENA_ARRAY(w->c->a, decide_row *, w->c->row_count + 1) : NULL;
    for (size_t done = 0, known = 0; lifted; child = lifted[done++], t = child->table) {
        for (size_t f = 0; f < t->fk_count; f++) {
            decide_row *parent = lift_parent(w, in, child, &t->fks[f]);
            if (parent) {
                lifted[known++] = parent;
            }
        }
        if (done == known) {
            break;
        }
    }
}
