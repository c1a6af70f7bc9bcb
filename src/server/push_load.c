/* What decide needs for one push, read inside the transaction. Rows stay in the scope's context: a
 * push behind another sees what that one left. */
#include "server/push.h"

#include <stdlib.h>

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

godwit_status push_load_salts(push *p) {
    scope_run *run = p->scope;
    const push_request *request = p->request;
    size_t count = request->op_count - p->first_new;
    int64_t *seqs = ARENA_ARRAY(run->a, int64_t, count);
    decide_salt *salts = ARENA_ARRAY(run->a, decide_salt, count);
    size_t used = 0;
    bool sorted = true;
    if (!seqs || !salts) {
        return GODWIT_NOMEM;
    }
    for (size_t i = p->first_new; i < request->op_count; i++) {
        int64_t seq = request->ops[i].base_seq;
        if (seq > 0 && seq <= run->c.head && (used == 0 || seqs[used - 1] != seq)) {
            sorted = sorted && (used == 0 || seqs[used - 1] < seq);
            seqs[used++] = seq;
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

/* Working rows of the operations; only those that are new to the context, or all of them (reload).
 */
godwit_status push_load_rows(push *p, size_t from, size_t to, bool reload) {
    scope_run *run = p->scope;
    decide_row **rows = ARENA_ARRAY(run->a, decide_row *, to - from);
    size_t count = 0;
    slice entity = {0};
    const schema_table *t = NULL;
    if (!rows) {
        return GODWIT_NOMEM;
    }
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
    return store_rows_load(run->st, &run->c, rows, count, reload);
}

static godwit_status load_by_key(push *p) {
    scope_run *run = p->scope;
    size_t count = p->request->op_count - p->first_new;
    decide_ledger *by_key = ARENA_ARRAY(run->a, decide_ledger, count);
    bool any = false;
    if (!by_key) {
        return GODWIT_NOMEM;
    }
    godwit_status status = store_ledger_by_origin(
        run->st, run->a, run->c.scope, &p->request->ops[p->first_new], count, by_key, &any);
    p->by_key = any ? by_key : NULL;
    return status;
}

/* Device and what was decided before. *refused: the push is answered. */
godwit_status push_load_stream(push *p, bool *refused) {
    scope_run *run = p->scope;
    const push_request *request = p->request;
    godwit_status status =
        store_device_load(run->st, run->a, run->c.scope, request->device_id, &p->device);
    if (status == GODWIT_NOT_FOUND) {
        *refused = push_refuse_stream(p->job, STREAM_FORBIDDEN_DEVICE, &p->device);
        return GODWIT_OK;
    }
    while (p->first_new < request->op_count &&
           request->ops[p->first_new].seq <= p->device.applied_seq) {
        p->first_new++;
    }
    decide_ledger *by_seq = ARENA_ARRAY(run->a, decide_ledger, request->op_count);
    if (status != GODWIT_OK || !by_seq) {
        return status == GODWIT_OK ? GODWIT_NOMEM : status;
    }
    status = store_ledger_by_seq(run->st, run->a, run->c.scope, request->device_id, request->ops,
                                 p->first_new, by_seq);
    if (status != GODWIT_OK) {
        return status;
    }
    p->stream = &p->device;
    *refused = push_refuse_stream(
        p->job, decide_stream(&run->c, &p->device, p->job->who.user, request, by_seq), &p->device);
    for (size_t i = 0; i < p->first_new; i++) {
        p->answers[i] = (op_answer){.kind = OP_ANSWER_RESENT, .ledger = &by_seq[i]};
    }
    return *refused || p->first_new == request->op_count ? GODWIT_OK : load_by_key(p);
}
