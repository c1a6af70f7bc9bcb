/* What decide needs for one push, read inside the transaction. Rows stay in the scope's context: a
 * push behind another sees what that one left. */
#include "server/push.h"

#include <stdlib.h>

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static size_t new_ops(const push *list, size_t count) {
    size_t ops = 0;
    for (size_t i = 0; i < count; i++) {
        ops += list[i].request->op_count - list[i].first_new;
    }
    return ops;
}

godwit_status push_load_salts(const push *list, size_t pushes) {
    scope_run *run = list->scope;
    size_t count = new_ops(list, pushes);
    int64_t *seqs = ARENA_ARRAY(run->a, int64_t, count);
    decide_salt *salts = ARENA_ARRAY(run->a, decide_salt, count);
    size_t used = 0;
    bool sorted = true;
    if (!seqs || !salts) {
        return GODWIT_NOMEM;
    }
    for (const push *p = list; p < list + pushes; p++) {
        for (size_t i = p->first_new; i < p->request->op_count; i++) {
            int64_t seq = p->request->ops[i].base_seq;
            if (seq > 0 && seq <= run->c.head && (used == 0 || seqs[used - 1] != seq)) {
                sorted = sorted && (used == 0 || seqs[used - 1] < seq);
                seqs[used++] = seq;
            }
        }
    }
    if (!sorted) {
        qsort(seqs, used, sizeof *seqs, by_number);
        size_t distinct = 0;
        for (size_t i = 0; i < used; i++) {
            if (distinct == 0 || seqs[distinct - 1] != seqs[i]) {
                seqs[distinct++] = seqs[i];
            }
        }
        used = distinct;
    }
    run->c.salts = salts;
    return store_salts_load(run->st, run->c.scope, seqs, used, salts, &run->c.salt_count);
}

/* What was deleted together with a row that may come back: it may come along. */
static godwit_status load_fallen(scope_run *run, decide_row *const *rows, size_t count,
                                 bool reload) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        store_key *keys = NULL;
        size_t found = 0, used = 0;
        if (!rows[i]->row.deleted || rows[i]->table->on_conflicting_delete != DELETE_EDIT_WINS) {
            continue;
        }
        status =
            store_deleted_load(run->st, run->a, run->c.scope, rows[i]->row.del_ver, &keys, &found);
        decide_row **family = ARENA_ARRAY(run->a, decide_row *, found + 1);
        if (status != GODWIT_OK || !family) {
            return status == GODWIT_OK ? GODWIT_NOMEM : status;
        }
        for (size_t k = 0; k < found; k++) {
            const schema_table *t = schema_find(run->c.schema, keys[k].table);
            size_t before = run->c.row_count;
            decide_row *row = t ? decide_row_of(&run->c, t, keys[k].id) : NULL;
            if (t && !row) {
                return GODWIT_NOMEM;
            }
            if (row && row != rows[i] && (reload || run->c.row_count > before)) {
                family[used++] = row;
            }
        }
        status = store_rows_load(run->st, &run->c, family, used, true);
    }
    return status;
}

/* Those of operations from..to that are new to the context, or all of them (reload), behind *used
 * others. */
static godwit_status collect_rows(const push *p, size_t from, size_t to, bool reload,
                                  decide_row **rows, size_t *used) {
    scope_run *run = p->scope;
    size_t count = *used;
    slice entity = {0};
    const schema_table *t = NULL;
    for (size_t i = from; i < to; i++) {
        const wire_op *op = &p->request->ops[i];
        if (op->kind == OP_NONE || op->kind == OP_VOID) {
            continue;
        }
        if (!slice_equal(entity, op->entity_type)) {
            entity = op->entity_type;
            t = schema_find(run->c.schema, entity);
        }
        size_t before = run->c.row_count;
        decide_row *row = t ? decide_row_of(&run->c, t, op->entity_id) : NULL;
        if (t && !row) {
            return GODWIT_NOMEM;
        }
        if (row && (reload || run->c.row_count > before)) {
            rows[count++] = row;
        }
    }
    *used = count;
    return GODWIT_OK;
}

static godwit_status load_rows(scope_run *run, decide_row **rows, size_t count, bool reload) {
    godwit_status status = store_rows_load(run->st, &run->c, rows, count, reload);
    return status == GODWIT_OK ? load_fallen(run, rows, count, reload) : status;
}

godwit_status push_load_rows(push *p, size_t from, size_t to, bool reload) {
    decide_row **rows = ARENA_ARRAY(p->scope->a, decide_row *, to - from);
    size_t count = 0;
    godwit_status status = rows ? collect_rows(p, from, to, reload, rows, &count) : GODWIT_NOMEM;
    return status == GODWIT_OK ? load_rows(p->scope, rows, count, reload) : status;
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (decide_row *const *)a;
    uintptr_t y = (uintptr_t) * (decide_row *const *)b;
    return (x > y) - (x < y);
}

godwit_status push_load_rows_of(const push *list, size_t pushes, bool reload) {
    scope_run *run = list->scope;
    decide_row **rows = ARENA_ARRAY(run->a, decide_row *, new_ops(list, pushes));
    size_t count = 0, distinct = 0;
    godwit_status status = rows ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < pushes; i++) {
        const push *p = &list[i];
        status = collect_rows(p, p->first_new, p->request->op_count, reload, rows, &count);
    }
    if (status == GODWIT_OK && count > 0) { /* with reload one may come from several pushes */
        qsort(rows, count, sizeof *rows, by_address);
        for (size_t i = 0; i < count; i++) {
            if (distinct == 0 || rows[distinct - 1] != rows[i]) {
                rows[distinct++] = rows[i];
            }
        }
    }
    return status == GODWIT_OK ? load_rows(run, rows, distinct, reload) : status;
}

/* ---- parents that were deleted meanwhile ---- */

#define ANCESTORS_MAX 64 /* rows above one row that may come back with it */

/* The text of a key column out of an entity id, as a value. */
static const value *key_value(scope_run *run, const schema_table *t, slice id, int column,
                              value *room) {
    slice parts[KEY_COLUMNS_MAX];
    if (schema_id_parts(run->a, t, id, parts) != GODWIT_OK) {
        return NULL;
    }
    for (size_t i = 0; i < t->key_count; i++) {
        if (t->key[i] == column) { /* as text: the parent's id is made of texts again */
            *room = (value){.type = VALUE_TEXT, .u.s = parts[i]};
            return room;
        }
    }
    return NULL;
}

/* The value of a foreign key's column as the row will have it. op NULL: as it is. */
static const value *coming_value(scope_run *run, const wire_op *op, const decide_row *row,
                                 int column, value *room) {
    const json *node = op ? json_find(op->payload_node, row->table->columns[column].name) : NULL;
    if (row->table->columns[column].is_key) {
        return key_value(run, row->table, row->id, column, room);
    }
    if (node) {
        return value_from_json(run->a, node, room) == GODWIT_OK ? room : NULL;
    }
    return row->row.exists ? &row->row.values[column] : NULL;
}

/* *fallen: the parent, when it is a tombstone. */
static godwit_status load_parent(scope_run *run, const wire_op *op, const decide_row *row,
                                 const schema_fk *fk, decide_row **fallen) {
    const schema_table *parent = decide_parent_table(&run->c, fk);
    const value *values[KEY_COLUMNS_MAX];
    value room[KEY_COLUMNS_MAX];
    *fallen = NULL;
    if (!parent || fk->count > KEY_COLUMNS_MAX) {
        return GODWIT_OK;
    }
    for (size_t i = 0; i < fk->count; i++) {
        values[i] = coming_value(run, op, row, fk->columns[i], &room[i]);
    }
    slice id = decide_parent_id(run->a, parent, fk, values);
    decide_row *found = id.ptr ? decide_row_of(&run->c, parent, id) : NULL;
    if (!found) {
        return run->a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    godwit_status status = store_rows_load(run->st, &run->c, &found, 1, true);
    if (status == GODWIT_OK && found->row.exists && found->row.deleted) {
        *fallen = found;
        status = load_fallen(run, &found, 1, true);
    }
    return status;
}

/* A row's parents, theirs, and so on. */
static godwit_status load_ancestors(scope_run *run, const wire_op *op, const decide_row *row,
                                    bool *fallen) {
    decide_row *above[ANCESTORS_MAX];
    size_t done = 0, known = 0;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK) {
        for (size_t f = 0; status == GODWIT_OK && f < row->table->fk_count; f++) {
            decide_row *parent = NULL;
            status = load_parent(run, op, row, &row->table->fks[f], &parent);
            if (parent && known < ANCESTORS_MAX) {
                above[known++] = parent;
            }
        }
        if (done == known) {
            break;
        }
        row = above[done++];
        op = NULL;
    }
    *fallen = *fallen || known > 0;
    return status;
}

godwit_status push_load_parents(push *p, size_t at, size_t count, bool *fallen) {
    scope_run *run = p->scope;
    godwit_status status = GODWIT_OK;
    *fallen = false;
    for (size_t i = at; status == GODWIT_OK && i < at + count; i++) {
        const wire_op *op = &p->request->ops[i];
        const schema_table *t = schema_find(run->c.schema, op->entity_type);
        const decide_row *row = t ? decide_row_find(&run->c, t, op->entity_id) : NULL;
        if (row && (op->kind == OP_CREATE || op->kind == OP_UPDATE)) {
            status = load_ancestors(run, op, row, fallen);
        }
    }
    return status;
}

godwit_status push_load_origins(push *list, size_t pushes) {
    scope_run *run = list->scope;
    size_t count = new_ops(list, pushes), used = 0;
    decide_ledger *by_key = ARENA_ARRAY(run->a, decide_ledger, count);
    wire_op *ops = ARENA_ARRAY(run->a, wire_op, count);
    bool any = false;
    if (!by_key || !ops) {
        return GODWIT_NOMEM;
    }
    for (push *p = list; p < list + pushes; p++) {
        size_t more = p->request->op_count - p->first_new;
        if (more > 0) {
            memcpy(ops + used, p->request->ops + p->first_new, more * sizeof *ops);
        }
        used += more;
    }
    godwit_status status =
        store_ledger_by_origin(run->st, run->a, run->c.scope, ops, count, by_key, &any);
    for (push *p = list; any && p < list + pushes; p++) {
        p->by_key = by_key;
        by_key += p->request->op_count - p->first_new;
    }
    return status;
}

godwit_status push_load_plain(push *p, bool *refused) {
    scope_run *run = p->scope;
    decide_device device;
    if (p->request->device_id.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status =
        store_device_load(run->st, run->a, run->c.scope, p->request->device_id, &device);
    *refused =
        status == GODWIT_OK && admit_refuse(p->job, decide_caller(&device, p->job->who.user));
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

godwit_status push_check_stream(push *p, bool *refused) {
    scope_run *run = p->scope;
    const push_request *request = p->request;
    if (p->device.device_id.len == 0) {
        *refused = push_refuse_stream(p->job, STREAM_FORBIDDEN_DEVICE, &p->device);
        return GODWIT_OK;
    }
    while (p->first_new < request->op_count &&
           request->ops[p->first_new].seq <= p->device.applied_seq) {
        p->first_new++;
    }
    decide_ledger *by_seq = ARENA_ARRAY(run->a, decide_ledger, request->op_count);
    if (!by_seq) {
        return GODWIT_NOMEM;
    }
    godwit_status status = store_ledger_by_seq(run->st, run->a, run->c.scope, request->device_id,
                                               request->ops, p->first_new, by_seq);
    if (status != GODWIT_OK) {
        return status;
    }
    p->stream = &p->device;
    *refused = push_refuse_stream(
        p->job, decide_stream(&run->c, &p->device, p->job->who.user, request, by_seq), &p->device);
    for (size_t i = 0; i < p->first_new; i++) {
        p->answers[i] = (op_answer){.kind = OP_ANSWER_RESENT, .ledger = &by_seq[i]};
    }
    return GODWIT_OK;
}

godwit_status push_load_stream(push *p, bool *refused) {
    scope_run *run = p->scope;
    godwit_status status =
        store_devices_load(run->st, run->a, run->c.scope, &p->request->device_id, 1, &p->device);
    if (status == GODWIT_OK) {
        status = push_check_stream(p, refused);
    }
    return status != GODWIT_OK || *refused || p->first_new == p->request->op_count
               ? status
               : push_load_origins(p, 1);
}
