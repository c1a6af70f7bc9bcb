/* What was decided before: dependencies of a group, conflicts it resolves, and the keys of callers
 * without a stream. A key is opaque; a fingerprint of the content tells a replay from another
 * request under the same key.
 */
#include "server/push.h"

#include <stdlib.h>

/* ---- dependencies ---- */

static bool without_effect(op_outcome outcome, op_code code) {
    return outcome == OUTCOME_REJECTED || (outcome == OUTCOME_CONFLICT && code != CODE_NONE);
}

static bool answer_failed(const op_answer *answer) {
    if (answer->kind == OP_ANSWER_DECIDED) {
        return without_effect(answer->result->outcome, answer->result->code);
    }
    if (answer->kind == OP_ANSWER_RESENT) {
        return without_effect(answer->ledger->outcome, answer->ledger->code);
    }
    return answer->kind == OP_ANSWER_MISMATCH;
}

/* Index of the operation with this id, op_count when there is none. */
static size_t op_by_id(const push *p, slice id) {
    size_t low = 0;
    size_t high = p->request->op_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(p->ids[middle], id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool hit = low < p->request->op_count && slice_equal(p->ids[low], id);
    return hit ? p->id_ops[low] : p->request->op_count;
}

typedef struct {
    slice id;
    size_t op;
} id_entry;

static int by_id(const void *a, const void *b) {
    return slice_compare(((const id_entry *)a)->id, ((const id_entry *)b)->id);
}

godwit_status push_index_ids(push *p) {
    size_t count = p->request->op_count;
    bool used = false;
    for (size_t i = 0; i < count; i++) {
        used = used || p->request->ops[i].depends_count;
    }
    if (!used || p->request->stream) {
        return GODWIT_OK;
    }
    id_entry *entries = ARENA_ARRAY(p->scope->a, id_entry, count);
    p->ids = ARENA_ARRAY(p->scope->a, slice, count);
    p->id_ops = ARENA_ARRAY(p->scope->a, size_t, count);
    if (!entries || !p->ids || !p->id_ops) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        entries[i] = (id_entry){p->request->ops[i].id, i};
    }
    qsort(entries, count, sizeof *entries, by_id);
    for (size_t i = 0; i < count; i++) {
        p->ids[i] = entries[i].id;
        p->id_ops[i] = entries[i].op;
    }
    return GODWIT_OK;
}

static godwit_status seq_failed(const push *p, int64_t seq, size_t group, bool *failed) {
    int64_t first = p->request->ops[0].seq;
    if (seq >= first && (uint64_t)(seq - first) < p->request->op_count) {
        size_t at = (size_t)(seq - first);
        *failed = *failed || (at < group && answer_failed(&p->answers[at]));
        return GODWIT_OK;
    }
    op_outcome outcome;
    op_code code;
    godwit_status status =
        store_outcome(p->scope->st, p->scope->c.scope, p->request->device_id, seq, &outcome, &code);
    *failed = *failed || (status == GODWIT_OK && without_effect(outcome, code));
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

godwit_status push_dependencies(const push *p, size_t at, size_t count, bool *failed) {
    godwit_status status = GODWIT_OK;
    *failed = false;
    for (size_t i = at; i < at + count; i++) {
        const wire_op *op = &p->request->ops[i];
        for (size_t k = 0; status == GODWIT_OK && k < op->depends_count; k++) {
            if (p->request->stream) {
                status = seq_failed(p, op->depends_on[k], at, failed);
            } else {
                size_t other = op_by_id(p, op->depends_ids[k]);
                *failed = *failed || (other < at && answer_failed(&p->answers[other]));
            }
        }
    }
    return status;
}

/* ---- conflicts ---- */

static godwit_status resolves_known(const push *p, const wire_op *op, const schema_table *t,
                                    slice *unknown) {
    slice rest = op->resolves;
    bool known = true;
    godwit_status status = GODWIT_OK;
    *unknown = (slice){0};
    for (slice id = wire_resolves_next(&rest); status == GODWIT_OK && id.ptr && known;
         id = wire_resolves_next(&rest)) {
        status = store_conflict_known(p->scope->st, p->scope->c.scope, id, t->name, op->entity_id,
                                      &known);
        *unknown = known ? (slice){0} : id;
    }
    return status;
}

godwit_status push_resolves(const push *p, size_t at, size_t count, decide_refusal *refusal,
                            bool *unknown) {
    *unknown = false;
    for (size_t i = 0; i < count && !*unknown; i++) {
        const wire_op *op = &p->request->ops[at + i];
        slice id = {0};
        const schema_table *t =
            op->resolves.len ? schema_find(p->scope->c.schema, op->entity_type) : NULL;
        if (!t) {
            continue; /* nothing to look for, or refused by decide */
        }
        godwit_status status = resolves_known(p, op, t, &id);
        if (status != GODWIT_OK) {
            return status;
        }
        if (id.ptr) {
            const char *detail =
                arena_printf(p->scope->a, "%s names no conflict about this row: %.*s",
                             op->reverts ? "reverts" : "resolves", SLICE_ARG(id));
            *refusal = (decide_refusal){
                .code = CODE_VALIDATION, .detail = slice_of(detail), .op_index = i};
            *unknown = true;
        }
    }
    return p->scope->a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* ---- keys ---- */

static void add(sha256 *h, slice s) {
    uint8_t length[4] = {(uint8_t)(s.len >> 24), (uint8_t)(s.len >> 16), (uint8_t)(s.len >> 8),
                         (uint8_t)s.len};
    sha256_update(h, length, sizeof length);
    if (s.len) {
        sha256_update(h, s.ptr, s.len);
    }
}

/* What must be equal when a key comes again: where a role decides about rows, the user too, as the
 * answer that is kept is for nobody else. */
static void fingerprint(const push *p, const wire_op *op, uint8_t out[SHA256_BYTES]) {
    sha256 h;
    char base[8];
    for (int i = 0; i < 8; i++) {
        base[i] = (char)((uint64_t)op->base_commit >> (56 - 8 * i));
    }
    sha256_init(&h);
    add(&h, slice_of(op_kind_name(op->kind)));
    add(&h, op->entity_type);
    add(&h, op->entity_id);
    add(&h, op->payload);
    add(&h, (slice){base, sizeof base});
    if (p->job->who.role.len) {
        add(&h, p->job->who.user);
    }
    sha256_final(&h, out);
}

static int by_text(const void *a, const void *b) {
    return slice_compare(*(const slice *)a, *(const slice *)b);
}

godwit_status push_load_keys(push *p) {
    scope_run *run = p->scope;
    size_t count = p->request->op_count;
    slice *keys = ARENA_ARRAY(run->a, slice, count);
    store_idem *found = ARENA_ARRAY(run->a, store_idem, count);
    if (!keys || !found) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        keys[i] = p->request->ops[i].key_text;
    }
    p->keys = found;
    godwit_status status = store_idem_find(run->st, run->a, run->c.scope, keys, count, found);
    qsort(keys, count, sizeof *keys, by_text);
    for (size_t i = 1; i < count; i++) {
        p->keys_repeat = p->keys_repeat || slice_equal(keys[i - 1], keys[i]);
    }
    return status == GODWIT_OK && p->keys_repeat && p->request->atomic ? GODWIT_EXISTS : status;
}

/* Keys of a group without a stream. *answered: the group is not decided now. */
godwit_status push_find_keys(push *p, size_t at, size_t count, bool *answered) {
    scope_run *run = p->scope;
    size_t known = 0;
    bool equal = true;
    for (size_t i = 0; i < count; i++) {
        const wire_op *op = &p->request->ops[at + i];
        store_idem idem = p->keys[at + i];
        uint8_t print[SHA256_BYTES];
        godwit_status status =
            p->keys_repeat ? store_idem_find(run->st, run->a, run->c.scope, &op->key_text, 1, &idem)
                           : GODWIT_OK;
        if (status != GODWIT_OK) {
            return status;
        }
        if (idem.found) {
            known++;
            fingerprint(p, op, print);
            equal = equal && memcmp(idem.fingerprint, print, SHA256_BYTES) == 0;
            p->answers[at + i] = (op_answer){.kind = OP_ANSWER_REPLAYED, .stored = idem.response};
        }
    }
    *answered = known > 0;
    for (size_t i = 0; known > 0 && (!equal || known < count) && i < count; i++) {
        p->answers[at + i] = (op_answer){.kind = OP_ANSWER_MISMATCH};
    }
    return GODWIT_OK;
}

godwit_status push_keep_keys(push *p, size_t at, size_t count) {
    scope_run *run = p->scope;
    godwit_status status = GODWIT_OK;
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t i = at; status == GODWIT_OK && i < at + count; i++) {
        const wire_op *op = &p->request->ops[i];
        const op_answer *answer = &p->answers[i];
        uint8_t print[SHA256_BYTES];
        if (answer->kind != OP_ANSWER_DECIDED) {
            continue;
        }
        bytes_clear(&b);
        fingerprint(p, op, print);
        push_answer_members(&b, op, answer->result, answer->commit);
        status = b.failed ? GODWIT_NOMEM
                          : store_idem_add(run->st, run->c.scope, op->key_text, print,
                                           answer->commit->commit_seq, bytes_view(&b), run->now_ms);
    }
    bytes_deinit(&b);
    return status;
}

/* An Idempotency-Key header covers the whole request. *answered: it has been seen. */
godwit_status push_header_key(push *p, uint8_t print[SHA256_BYTES], slice *key, bool *answered) {
    service_job *job = p->job;
    scope_run *run = p->scope;
    store_idem idem;
    if (p->request->stream || job->idempotency_key_header.len == 0) {
        return GODWIT_OK;
    }
    slice user = job->who.role.len ? job->who.user : (slice){0};
    const char *text =
        arena_printf(run->a, "header:%.*s%s%.*s", SLICE_ARG(job->idempotency_key_header),
                     user.len ? ":" : "", SLICE_ARG(user));
    *key = slice_of(text);
    sha256_of(job->body.ptr, job->body.len, print);
    godwit_status status =
        text ? store_idem_find(run->st, run->a, run->c.scope, key, 1, &idem) : GODWIT_NOMEM;
    if (status != GODWIT_OK || !idem.found) {
        return status;
    }
    *answered = true;
    if (memcmp(idem.fingerprint, print, SHA256_BYTES) != 0) {
        service_problem(job, 422, "idempotency-mismatch",
                        "the Idempotency-Key was used with another request", NULL);
    } else {
        bytes_slice(&job->answer, idem.response);
        service_done(job);
    }
    return GODWIT_OK;
}
