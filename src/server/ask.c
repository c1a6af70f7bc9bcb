/* Hooks and pushes: operations are validated before they go to the writer, conflicts resolved when
 * it has met them. Here questions are put, one at a time; what comes back is checked and kept with
 * the job, for decide to find. A hook that fails twice on a question has failed on it for good; ten
 * failures, and the rest of the push counts as failed, so that one push costs a bounded time. */
#include "server/service_inner.h"

#include <stdlib.h>

struct service_asker {
    const hook_options *options;
    hook_worker *worker; /* NULL until it is needed */
    bytes question, answer;
};

bool service_has_hooks(const service *s) {
    return s->hooks != NULL;
}

godwit_status service_asker_open(service *s, service_asker **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return GODWIT_NOMEM;
    }
    (*out)->options = s->hooks;
    bytes_init(&(*out)->question, NULL, HOOK_TEXT_MAX);
    bytes_init(&(*out)->answer, NULL, 2 * HOOK_TEXT_MAX);
    return GODWIT_OK;
}

void service_asker_close(service_asker *k) {
    if (k) {
        hook_worker_close(k->worker);
        bytes_deinit(&k->question);
        bytes_deinit(&k->answer);
        free(k);
    }
}

/* ---- what is to be asked ---- */

static const schema_table *validated(const registry *reg, const wire_op *op) {
    bool content = op->kind == OP_CREATE || op->kind == OP_UPDATE || op->kind == OP_DELETE;
    const schema_table *t =
        content && !op->untranslated ? schema_find(&reg->schema, op->entity_type) : NULL;
    return t && t->validate ? t : NULL;
}

void ask_prepare(service *s, service_job *job) {
    job_state *state = job->state;
    const registry *reg = service_registry(s);
    push_request *request = &state->push;
    upcaster *maker = NULL;
    if (!s->hooks || request->op_count == 0) {
        return;
    }
    state->hooks.asks.a = &job->memory;
    for (size_t i = 0; s->hooks_validate && i < request->op_count; i++) {
        if (!validated(reg, &request->ops[i])) {
            continue;
        }
        if (!state->hooks.rulings) {
            state->hooks.rulings = ARENA_ARRAY(&job->memory, ruling, request->op_count);
        }
        if (!state->hooks.rulings) {
            service_fail(job, GODWIT_NOMEM);
            return;
        }
        state->hooks.rulings[i].state = RULED_WAITING;
    }
    if (state->hooks.rulings) { /* hooks see the present schema */
        godwit_status status = upcast_push(&maker, &reg->schema, &job->memory, request);
        upcaster_free(maker);
        if (status != GODWIT_OK) {
            service_fail(job, status);
            return;
        }
        job->wants_hook = true;
    }
}

bool ask_refuses(const job_state *state, size_t at, size_t count, decide_refusal *out) {
    for (size_t i = at; state->hooks.rulings && i < at + count; i++) {
        const ruling *r = &state->hooks.rulings[i];
        if (r->state == RULED_REFUSED || r->state == RULED_FAILED) {
            bool failed = r->state == RULED_FAILED;
            *out = (decide_refusal){
                .code = failed ? CODE_HOOK_FAILED : CODE_VALIDATION,
                .detail = failed
                              ? SLICE("the server's rule for it failed; retry when it works again")
                              : r->reason,
                .op_index = i - at};
            return true;
        }
    }
    return false;
}

/* ---- questions ---- */

/* false: it can't be put; the operation is refused by others for that. */
static bool write_operation(service_asker *k, service_job *job, const schema_table *t,
                            const wire_op *op) {
    const job_state *state = job->state;
    bytes *b = &k->question;
    bool first = true;
    bytes_clear(b);
    ask_begin(b, &(ask_head){.hook = SLICE("validate"),
                             .scope = state->scope,
                             .table = t->name,
                             .id = op->entity_id,
                             .user = job->who.user,
                             .device = state->push.device_id,
                             .kind = slice_of(op_kind_name(op->kind))});
    for (size_t i = 0; op->kind != OP_DELETE && i < t->column_count; i++) {
        const json *now = schema_value(op->payload_node, &t->columns[i]);
        const json *old = schema_value(op->base_node, &t->columns[i]);
        value ours, base;
        if (!now || t->columns[i].local) {
            continue;
        }
        if (value_from_json(&job->memory, now, &ours) != GODWIT_OK) {
            return false;
        }
        bool known = old && value_from_json(&job->memory, old, &base) == GODWIT_OK;
        ask_column(b, &first, t->columns[i].name, known ? &base : NULL, NULL, &ours);
    }
    ask_end(b);
    return !b->failed;
}

/* ---- answers ---- */

/* false: not an answer. */
static bool take_ruling(arena *a, const json *answer, ruling *out) {
    slice kind = {0}, reason = {0};
    (void)json_text(json_get(answer, "answer"), &kind);
    if (slice_is(kind, "refused") && json_text(json_get(answer, "reason"), &reason)) {
        *out = (ruling){RULED_REFUSED, arena_copy(a, reason)};
        return true;
    }
    *out = (ruling){RULED_GOOD, {0}};
    return slice_is(kind, "good");
}

static bool take_values(arena *a, const json *answer, ask_item *item) {
    slice kind = {0};
    const json *values = json_get(answer, "values");
    (void)json_text(json_get(answer, "answer"), &kind);
    if (slice_is(kind, "manual")) {
        item->state = ASK_MANUAL;
        return true;
    }
    if (!slice_is(kind, "decided") || !json_is(values, JSON_ARRAY) ||
        values->count != item->count) {
        return false;
    }
    value *made = ARENA_ARRAY(a, value, item->count);
    const json *node = json_first(values);
    for (size_t i = 0; made && i < item->count; i++, node = json_after(node)) {
        if (value_from_json(a, node, &made[i]) != GODWIT_OK || made[i].type == VALUE_SPECIAL) {
            return false;
        }
    }
    item->values = made;
    item->state = ASK_VALUES;
    return made != NULL;
}

/* The next thing to ask: an operation, or else a conflict. */
typedef struct {
    ruling *ruling;
    ask_item *item;
    const wire_op *op;
} matter;

static bool next_matter(job_state *state, matter *out) {
    job_hooks *h = &state->hooks;
    *out = (matter){0};
    for (; h->rulings && h->next < state->push.op_count; h->next++) {
        if (h->rulings[h->next].state == RULED_WAITING) {
            out->ruling = &h->rulings[h->next];
            out->op = &state->push.ops[h->next];
            return true;
        }
    }
    for (size_t i = 0; i < h->asks.count; i++) {
        if (h->asks.items[i].state == ASK_WAITING) {
            out->item = &h->asks.items[i];
            return true;
        }
    }
    return false;
}

static void give_up(const matter *m) {
    if (m->ruling) {
        m->ruling->state = RULED_FAILED;
    } else {
        m->item->state = ASK_MANUAL;
    }
}

/* HOOK_FAILED: also for an answer that is none. */
static hook_result ask_one(service *s, service_asker *k, service_job *job, const matter *m) {
    char message[512];
    const json *answer = NULL;
    slice question = m->item ? m->item->question : (slice){0};
    if (m->op) {
        const schema_table *t = validated(service_registry(s), m->op);
        if (!t || !write_operation(k, job, t, m->op)) {
            m->ruling->state = k->question.failed ? RULED_FAILED : RULED_NOT;
            return HOOK_ANSWERED;
        }
        question = bytes_view(&k->question);
    }
    if (!k->worker && hook_worker_open(k->options, &k->worker, message) != GODWIT_OK) {
        return HOOK_UNAVAILABLE;
    }
    hook_result result = hook_worker_ask(k->worker, question, &k->answer);
    slice text =
        result == HOOK_ANSWERED ? arena_copy(&job->memory, bytes_view(&k->answer)) : question;
    if (!text.ptr) {
        return HOOK_UNAVAILABLE;
    }
    if (result == HOOK_ANSWERED && (json_parse(&job->memory, text, &answer, NULL) != GODWIT_OK ||
                                    !(m->ruling ? take_ruling(&job->memory, answer, m->ruling)
                                                : take_values(&job->memory, answer, m->item)))) {
        if (m->ruling) {
            m->ruling->state = RULED_WAITING;
        }
        result = HOOK_FAILED;
    }
    return result;
}

void service_ask(service *s, service_asker *k, service_job *job) {
    job_state *state = job->state;
    job_hooks *h = &state->hooks;
    int64_t until_us = service_mono_us() + HOOK_SLICE_MS * 1000;
    for (matter m; next_matter(state, &m);) {
        if (h->failures >= HOOK_FAILURES_MAX) {
            give_up(&m);
            continue;
        }
        if (service_mono_us() >= until_us) {
            return;
        }
        hook_result result = ask_one(s, k, job, &m);
        stats_hook(&s->stats, result == HOOK_ANSWERED);
        if (result == HOOK_UNAVAILABLE || job->memory.failed) {
            service_problem(job, 503, "overloaded", "the server's rules can't be asked now", NULL);
            job->retry_after_s = 1;
            job->wants_hook = false;
            return;
        }
        if (result == HOOK_FAILED) {
            h->failures++;
            if (++h->tries < 2) {
                return; /* others first: another process has to start */
            }
            give_up(&m);
        }
        h->tries = 0;
    }
    job->wants_hook = false;
}
