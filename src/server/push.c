/* Pushes: all that wait are decided in one transaction, scope by scope, in the order they came.
 *
 *   per scope: lock and read the scope
 *   per push, or for many small ones at once (push_together.c):
 *              device, ledger, salts, rows -> may the stream go on
 *              a savepoint around all groups: decide, save, decide, save ..
 *              a constraint fails: undo the push, reload its rows, and go group by group, a
 * savepoint each; the guilty group is decided again with the refusal, the others proceed commit,
 * then tell who waits
 *
 * A failure that is nobody's fault (disk, memory) undoes everything; with several pushes in the
 * transaction each is then tried alone, so that one can't take the others down. */
#include "server/push.h"

#include <stdlib.h>
#include <time.h>

/* What somebody else is writing, or has written and was not taken over yet, is waited for: half a
 * second in all, then the device comes again. */
#define BUSY_TRIES    7
#define BUSY_FIRST_MS 4
#define BUSY_PASSES   4 /* over what others wrote, before each try */

#define COMBINE_OPS_MAX                                                                            \
    (2 * PUSH_OPS_MAX) /* operations in one transaction: bounds memory and its length */

/* ---- decide and save ---- */

/* One group. CONSTRAINT: *refusal. While a hook has not been asked what decide wants to know
 * nothing is saved: the push will be set aside, and only tells what else it wants to know. */
static godwit_status run_group(push *p, size_t at, size_t count, const decide_refusal *forced,
                               decide_refusal *refusal) {
    scope_run *run = p->scope;
    bool answered = false;
    bool failed = false;
    bool unknown = false;
    decide_refusal unresolved;
    godwit_status status = push_dependencies(p, at, count, &failed);
    if (status == GODWIT_OK && !forced) {
        status = push_resolves(p, at, count, &unresolved, &unknown);
        forced = unknown ? &unresolved : NULL;
    }
    if (!forced && ask_refuses(p->job->state, at, count, &unresolved)) {
        forced = &unresolved;
    }
    if (status == GODWIT_OK && !p->stream) {
        status = push_find_keys(p, at, count, &answered);
    }
    decide_commit *commit = ARENA_NEW(run->a, decide_commit);
    if (status == GODWIT_OK && !commit) {
        status = GODWIT_NOMEM;
    }
    if (status != GODWIT_OK || answered) {
        return status;
    }
    const wire_op *ops = &p->request->ops[at];
    status = store_rows_settle(run->st, &run->c, ops, count, refusal);
    if (status != GODWIT_OK) {
        return status;
    }
    const decide_ledger *by_key = p->by_key ? &p->by_key[at - p->first_new] : NULL;
    status =
        decide_group(&run->c, p->stream, p->request, ops, count, by_key, failed, forced, commit);
    if (status == GODWIT_OK) {
        status = push_writers(p, commit);
    }
    bool undecided = run->c.asks && run->c.asks->waiting > 0; /* a hook has to be asked first */
    if (status == GODWIT_OK && !undecided) {
        status = store_group_save(run->st, &run->c, &p->author, ops, commit, refusal);
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        p->answers[at + i] =
            (op_answer){.kind = OP_ANSWER_DECIDED, .result = &commit->results[i], .commit = commit};
    }
    return status;
}

static size_t group_size(const push *p, size_t at) {
    const push_request *request = p->request;
    if (request->stream) {
        return (size_t)request->ops[at].group_size;
    }
    return request->atomic ? request->op_count : 1;
}

/* Writes what was decided, and then the answers with their keys. */
static godwit_status finish(push *p, size_t at, size_t count, decide_refusal *refusal) {
    const decide_context *c = &p->scope->c;
    godwit_status status = store_flush(p->scope->st, refusal);
    bool decided = !c->asks || c->asks->waiting == 0;
    return status == GODWIT_OK && !p->stream && decided ? push_keep_keys(p, at, count) : status;
}

godwit_status push_decide(push *p, decide_refusal *refusal) {
    godwit_status status = GODWIT_OK;
    for (size_t at = p->first_new; status == GODWIT_OK && at < p->request->op_count;) {
        size_t count = group_size(p, at);
        status = run_group(p, at, count, NULL, refusal);
        at += count;
    }
    return status;
}

static godwit_status run_all(push *p) {
    decide_refusal refusal;
    godwit_status status = push_decide(p, &refusal);
    return status == GODWIT_OK
               ? finish(p, p->first_new, p->request->op_count - p->first_new, &refusal)
               : status;
}

/* What must be put back when the database is. */
typedef struct {
    int64_t head;
    decide_device device;
} mark;

static mark take_mark(const push *p) {
    return (mark){p->scope->c.head, p->device};
}

static godwit_status back_to(push *p, const mark *m, size_t from, size_t to) {
    store_rollback_to(p->scope->st);
    p->scope->c.head = m->head;
    p->device = m->device;
    return push_load_rows(p, from, to, true);
}

static bool any_foreign(const push *p, size_t at, size_t count) {
    for (size_t i = at; i < at + count; i++) {
        const wire_op *op = &p->request->ops[i];
        const schema_table *t = schema_find(p->scope->c.schema, op->entity_type);
        const decide_row *row = t ? decide_row_find(&p->scope->c, t, op->entity_id) : NULL;
        if (row && row->row.foreign) {
            return true;
        }
    }
    return false;
}

/* What another try should know before the group is refused: keys taken elsewhere (decide says
 * id-unavailable), parents that were deleted meanwhile (decide brings them back). */
static godwit_status look_again(push *p, size_t at, size_t count, const decide_refusal *why,
                                bool *again) {
    bool fallen = false;
    godwit_status status = GODWIT_OK;
    *again = any_foreign(p, at, count);
    if (why->code == CODE_FK_VIOLATION) {
        status = push_load_parents(p, at, count, &fallen);
        p->scope->c.lift_parents = fallen;
        *again = *again || fallen;
    }
    return status;
}

/* One group under a savepoint of its own. At most three tries: as it is; with a closer look;
 * refused with what the database said. */
static godwit_status run_group_alone(push *p, size_t at, size_t count) {
    decide_refusal refusal = {0};
    decide_refusal why;
    mark m = take_mark(p);
    bool forced = false;
    godwit_status status = GODWIT_CONSTRAINT;
    for (int tries = 0; tries < 3 && status == GODWIT_CONSTRAINT; tries++) {
        status = store_savepoint(p->scope->st);
        if (status != GODWIT_OK) {
            return status;
        }
        status = run_group(p, at, count, forced ? &refusal : NULL, &why);
        if (status == GODWIT_OK) {
            status = finish(p, at, count, &why);
        }
        if (status == GODWIT_OK) {
            p->scope->c.lift_parents = false;
            return store_release(p->scope->st);
        }
        if (status == GODWIT_CONSTRAINT) {
            refusal = why;
            godwit_status back = back_to(p, &m, at, at + count);
            if (back != GODWIT_OK) {
                return back;
            }
            bool again = false;
            if (tries == 0) {
                back = look_again(p, at, count, &why, &again);
            } else if (p->scope->c.lift_parents) { /* they are down again */
                back = push_load_parents(p, at, count, &p->scope->c.lift_parents);
                p->scope->c.lift_parents = false;
            }
            if (back != GODWIT_OK) {
                return back;
            }
            forced = !again;
        }
    }
    p->scope->c.lift_parents = false;
    return status == GODWIT_CONSTRAINT ? GODWIT_INTERNAL : status;
}

static godwit_status run_carefully(push *p) {
    godwit_status status = GODWIT_OK;
    for (size_t at = p->first_new; status == GODWIT_OK && at < p->request->op_count;) {
        size_t count = group_size(p, at);
        status = run_group_alone(p, at, count);
        at += count;
    }
    return status;
}

/* The optimistic pass, and what follows when a constraint stops it. */
godwit_status push_groups(push *p) {
    scope_run *run = p->scope;
    mark m = take_mark(p);
    if (p->keys_repeat) { /* each must see what the one before it has kept */
        return run_carefully(p);
    }
    godwit_status status = store_savepoint(run->st);
    if (status != GODWIT_OK) {
        return status;
    }
    status = run_all(p);
    if (status == GODWIT_OK) {
        return store_release(run->st);
    }
    if (status != GODWIT_CONSTRAINT) {
        return status;
    }
    status = back_to(p, &m, p->first_new, p->request->op_count);
    return status == GODWIT_OK ? run_carefully(p) : status;
}

/* ---- one push ---- */

godwit_status push_start(push *p, scope_run *run, service_job *job) {
    job_state *state = job->state;
    *p = (push){.scope = run, .job = job, .request = &state->push};
    p->author = (store_author){.scope = run->c.scope,
                               .device_id = state->push.device_id,
                               .user_id = job->who.user,
                               .stream = state->push.stream,
                               .now_ms = run->now_ms};
    p->answers = ARENA_ARRAY(run->a, op_answer, state->push.op_count);
    return p->answers
               ? upcast_push(&run->s->upcaster, &run->reg->schema, &job->memory, &state->push)
               : GODWIT_NOMEM;
}

static godwit_status run_push(scope_run *run, service_job *job) {
    job_state *state = job->state;
    push p;
    uint8_t print[SHA256_BYTES];
    slice key = {0};
    bool refused = false;
    bool as_role = job->who.role.len > 0;
    store_role role = {job->who.role, job->who.claims, false};
    store_write_as(run->st, &role);
    godwit_status status = push_start(&p, run, job);
    if (status == GODWIT_OK && state->push.stream) {
        status = push_load_stream(&p, &refused);
    } else if (status == GODWIT_OK) {
        status = push_load_plain(&p, &refused);
    }
    if (status == GODWIT_OK && !refused) {
        status = push_header_key(&p, print, &key, &refused);
    }
    if (status != GODWIT_OK || refused) {
        return status;
    }
    ask_list *asks = &state->hooks.asks;
    run->c.asks = run->s->hooks ? asks : NULL;
    asks->waiting = 0;
    asks->at = 0;
    asks->closed = state->hooks.rounds >= HOOK_ROUNDS;
    if (p.first_new < state->push.op_count) {
        status = push_load_salts(&p, 1);
        if (status == GODWIT_OK && as_role) { /* rows are seen through other eyes than before */
            status = decide_init(&run->c, state->push.op_count);
        }
        if (status == GODWIT_OK) {
            status = push_load_rows(&p, p.first_new, state->push.op_count, false);
        }
        if (status == GODWIT_OK) {
            status = push_index_ids(&p);
        }
        if (status == GODWIT_OK && !p.stream) {
            status = push_load_keys(&p);
        }
        if (status == GODWIT_OK) {
            status = push_groups(&p);
        }
    }
    if (status == GODWIT_OK && asks->waiting > 0) {
        state->hooks.rounds++;
        job->wants_hook = true;
        return GODWIT_CANCELLED;
    }
    if (status == GODWIT_OK && p.stream) {
        status = push_save_streams(&p, 1);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    push_reply(&p);
    push_tally(&p);
    if (key.ptr && job->status == 200) {
        status = store_idem_add(run->st, run->c.scope, key, print, run->c.head,
                                bytes_view(&job->answer), run->now_ms);
    }
    return status;
}

/* ---- combining ---- */

static bool waiting(const service_job *job) {
    return job->wants_write && (job->verb == VERB_PUSH || job->verb == VERB_SYNC);
}

static const job_state *state_of(const service_job *job) {
    return job->state;
}

typedef struct {
    slice scope;
    store_scope state; /* when the batch began */
    int64_t head;      /* 0 = as it was */
} batch_scope;

static int by_name(const void *a, const void *b) {
    const batch_scope *x = a;
    const batch_scope *y = b;
    return slice_compare(x->scope, y->scope);
}

/* All scopes of the jobs, locked: in the order of their names, and before anything else is, so that
 * servers wait for each other only there and never in a circle. */
static godwit_status lock_scopes(service *s, service_job **jobs, size_t count, batch_scope **out,
                                 size_t *scopes) {
    batch_scope *list = ARENA_ARRAY(&s->batch, batch_scope, count);
    *out = list;
    *scopes = 0;
    for (size_t i = 0; list && i < count; i++) {
        slice scope = state_of(jobs[i])->scope;
        bool known = false;
        for (size_t k = 0; k < *scopes && !known; k++) {
            known = slice_equal(list[k].scope, scope);
        }
        if (!known) {
            list[(*scopes)++].scope = scope;
        }
    }
    godwit_status status = list ? GODWIT_OK : GODWIT_NOMEM;
    if (list) {
        qsort(list, *scopes, sizeof *list, by_name);
    }
    for (size_t k = 0; status == GODWIT_OK && k < *scopes; k++) {
        status = store_scope_load(s->store, list[k].scope, &list[k].state);
    }
    return status;
}

/* Two of one device, or of one lineage, can't be decided without what the first has left. */
static bool meets(service_job *const *jobs, size_t count, const service_job *job) {
    const push_request *request = &state_of(job)->push;
    for (size_t i = 0; i < count; i++) {
        const push_request *other = &state_of(jobs[i])->push;
        if (slice_equal(other->device_id, request->device_id) ||
            slice_equal(other->ops[0].lineage, request->ops[0].lineage)) {
            return true;
        }
    }
    return false;
}

static godwit_status run_joined(scope_run *run, service_job *const *jobs, size_t count) {
    return count == 1 ? run_push(run, jobs[0]) : push_together(run, jobs, count);
}

/* All jobs of one scope among `jobs`; those answered leave the set. */
static godwit_status run_scope(service *s, service_job **jobs, size_t count, batch_scope *of) {
    slice scope = of->scope;
    scope_run run = {
        .s = s, .st = s->store, .a = &s->batch, .reg = service_registry(s), .scope = of->state};
    size_t ops = 0;
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(state_of(jobs[i])->scope, scope)) {
            ops += state_of(jobs[i])->push.op_count;
        }
    }
    run.now_ms = service_now(s);
    run.c = (decide_context){.a = run.a,
                             .schema = &run.reg->schema,
                             .scope = scope,
                             .head = run.scope.head,
                             .ledger_floor = run.scope.ledger_floor,
                             .horizon = run.scope.horizon,
                             .now_ms = run.now_ms,
                             .salt = run.scope.salt,
                             .hash_seed = (uint64_t)run.now_ms ^ (uint64_t)(uintptr_t)s};
    godwit_status status = decide_init(&run.c, ops);
    service_job **together = ARENA_ARRAY(run.a, service_job *, count);
    size_t joined = 0;
    status = together ? status : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        if (!slice_equal(state_of(jobs[i])->scope, scope)) {
            continue;
        }
        bool joins = push_joins(&run, jobs[i]);
        if (joined > 0 && (!joins || meets(together, joined, jobs[i]))) {
            status = run_joined(&run, together, joined);
            joined = 0;
        }
        if (joins) {
            together[joined++] = jobs[i];
        } else if (status == GODWIT_OK) {
            status = run_push(&run, jobs[i]);
        }
    }
    if (status == GODWIT_OK && joined > 0) {
        status = run_joined(&run, together, joined);
    }
    if (status == GODWIT_OK) {
        status = store_scope_save(s->store, scope, &run.scope, run.c.head);
    }
    of->head = run.c.head > run.scope.head ? run.c.head : 0;
    return status;
}

static int64_t took(service *s, stats_step step, int64_t since_us) {
    int64_t now_us = service_mono_us();
    stats_step_took(&s->stats, step, now_us - since_us);
    return now_us;
}

/* One transaction over `jobs`. Each has its answer afterwards, unless it fails. CANCELLED: one of
 * them wants a hook. */
static godwit_status run_batch(service *s, service_job **jobs, size_t count,
                               service_commit_fn on_commit, void *context) {
    arena_reset(&s->batch);
    stats_tally_reset(&s->stats);
    batch_scope *moved = NULL;
    size_t scopes = 0;
    int64_t at_us = service_mono_us();
    godwit_status status = store_begin(s->store);
    at_us = took(s, STEP_BEGIN, at_us);
    if (status == GODWIT_OK) {
        status = lock_scopes(s, jobs, count, &moved, &scopes);
    }
    for (size_t k = 0; status == GODWIT_OK && k < scopes; k++) {
        status = run_scope(s, jobs, count, &moved[k]);
    }
    at_us = took(s, STEP_DECIDE, at_us);
    if (status == GODWIT_OK) {
        status = store_commit(s->store);
        (void)took(s, STEP_COMMIT, at_us);
    }
    if (status == GODWIT_OK || status == GODWIT_FULL || status == GODWIT_IO) {
        atomic_store(&s->unready, (int)status);
    }
    if (status != GODWIT_OK) {
        store_rollback(s->store);
        atomic_fetch_add(&s->stats.failures, status != GODWIT_CANCELLED && status != GODWIT_BUSY);
        return status;
    }
    stats_tally_count(&s->stats);
    for (size_t k = 0; k < scopes && on_commit; k++) {
        if (moved[k].head > 0) {
            on_commit(context, moved[k].scope, moved[k].head);
        }
    }
    return GODWIT_OK;
}

/* Puts a job back to where it was before a transaction that failed. */
static void forget_answer(service_job *job) {
    bytes_clear(&job->answer);
    job->status = 0;
    job->content_type = NULL;
    job->wants_write = true;
    job->wants_read = job->verb == VERB_SYNC;
    job->retry_after_s = -1;
}

/* The same, as often as somebody else is in the way. */
static godwit_status run_patiently(service *s, service_job **jobs, size_t count,
                                   service_commit_fn on_commit, void *context) {
    godwit_status status = run_batch(s, jobs, count, on_commit, context);
    for (int i = 0; status == GODWIT_BUSY && i < BUSY_TRIES; i++) {
        int64_t most_ms = (int64_t)BUSY_FIRST_MS << i;
        int64_t pause_us = most_ms * 500 + service_mono_us() % (most_ms * 500); /* jitter */
        const struct timespec pause = {0, (long)pause_us * 1000};
        bool more = true;
        if (i > 0) {
            (void)nanosleep(&pause, NULL);
        }
        for (int k = 0; more && k < BUSY_PASSES; k++) { /* what it met may be among it */
            more = service_external(s, on_commit, context);
        }
        for (size_t k = 0; k < count; k++) {
            forget_answer(jobs[k]);
        }
        status = run_batch(s, jobs, count, on_commit, context);
    }
    return status;
}

/* Those that want a hook leave the batch; the others start again. */
static size_t set_aside(service_job **jobs, size_t count) {
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        forget_answer(jobs[i]);
        if (!jobs[i]->wants_hook) {
            jobs[left++] = jobs[i];
        }
    }
    return left;
}

static void run_or_fail(service *s, service_job **jobs, size_t count, service_commit_fn on_commit,
                        void *context) {
    godwit_status status;
    size_t tried;
    do {
        status = count == 1 ? run_patiently(s, jobs, count, on_commit, context)
                            : run_batch(s, jobs, count, on_commit, context);
        if (status == GODWIT_OK) {
            return;
        }
        tried = count;
        count = set_aside(jobs, count);
    } while (count > 0 && count < tried);
    for (size_t i = 0; i < count; i++) {
        godwit_status alone =
            count > 1 ? run_patiently(s, &jobs[i], 1, on_commit, context) : status;
        if (alone == GODWIT_EXISTS) {
            service_problem(jobs[i], 400, "invalid-request",
                            "two operations of an atomic request have the same idempotencyKey",
                            NULL);
        } else if (alone != GODWIT_OK && !jobs[i]->wants_hook) {
            service_fail(jobs[i], alone);
        }
    }
}

void push_run(service *s, service_job **jobs, size_t count, service_commit_fn on_commit,
              void *context) {
    service_job *batch[SERVER_BATCH_MAX];
    size_t used = 0;
    size_t ops = 0;
    for (size_t i = 0; i < count; i++) {
        if (!waiting(jobs[i])) {
            continue;
        }
        size_t more = state_of(jobs[i])->push.op_count;
        if (used == COUNT_OF(batch) || (used > 0 && ops + more > COMBINE_OPS_MAX)) {
            run_or_fail(s, batch, used, on_commit, context);
            used = 0;
            ops = 0;
        }
        batch[used++] = jobs[i];
        ops += more;
    }
    if (used > 0) {
        run_or_fail(s, batch, used, on_commit, context);
    }
}
