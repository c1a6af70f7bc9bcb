/* What a push leaves when its operations are decided and written: the standing of its device, the
 * answer, and what is counted. */
#include "server/push.h"

static int64_t pulled_seq(service_job *job) {
    const job_state *state = job->state;
    wire_cursor cursor;
    if (!state->pull.cursor.len ||
        wire_cursor_parse(&job->memory, state->pull.cursor, &cursor) != GODWIT_OK ||
        !slice_equal(cursor.scope, state->scope)) {
        return -1;
    }
    return cursor.seq;
}

/* What the device told, less what this request has changed: it waits no longer, or was refused. */
static void write_report(const push *p, bytes *b) {
    wire_report told = p->request->report;
    int64_t sent = (int64_t)p->request->op_count;
    told.pending = told.pending > sent ? told.pending - sent : 0;
    told.oldest_pending_ms = told.pending ? told.oldest_pending_ms : 0;
    for (size_t i = 0; i < p->request->op_count; i++) {
        const op_answer *a = &p->answers[i];
        told.failed += a->kind == OP_ANSWER_DECIDED && a->result->outcome == OUTCOME_REJECTED &&
                       p->request->ops[i].kind != OP_VOID;
    }
    wire_report_write(b, &told);
}

/* report: memory of its text, the caller's. */
static godwit_status standing_of(push *p, bytes *report, store_standing *out) {
    scope_run *run = p->scope;
    const push_request *request = p->request;
    int64_t confirmed = request->confirmed_seq < p->device.applied_seq ? request->confirmed_seq
                                                                       : p->device.applied_seq;
    if (confirmed > p->device.confirmed_seq) {
        p->device.confirmed_seq = confirmed;
    }
    int64_t pulled = pulled_seq(p->job);
    *out =
        (store_standing){.device = &p->device, .pulled_seq = pulled <= run->c.head ? pulled : -1};
    if (request->has_report) {
        bytes_clear(report);
        write_report(p, report);
        out->report = report->failed ? (slice){0} : arena_copy(run->a, bytes_view(report));
    }
    return run->a->failed || report->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status push_save_streams(push *list, size_t pushes) {
    scope_run *run = list->scope;
    store_standing *standing = ARENA_ARRAY(run->a, store_standing, pushes);
    godwit_status status = standing ? GODWIT_OK : GODWIT_NOMEM;
    bytes report;
    bytes_init(&report, NULL, 0);
    for (size_t i = 0; status == GODWIT_OK && i < pushes; i++) {
        status = standing_of(&list[i], &report, &standing[i]);
    }
    bytes_deinit(&report);
    return status == GODWIT_OK
               ? store_devices_save(run->st, run->c.scope, standing, pushes, run->now_ms)
               : status;
}

void push_reply(push *p) {
    service_job *job = p->job;
    bool open_end = job->verb == VERB_SYNC;
    push_answer_write(job, p->answers, p->stream ? p->device.applied_seq : -1, p->scope->c.head,
                      p->scope->now_ms, open_end);
    if (!open_end) {
        service_done(job);
    } else if (job->answer.failed) {
        service_fail(job, GODWIT_NOMEM);
    }
    job->wants_write = false;
}

void push_tally(const push *p) {
    stats *counters = &p->scope->s->stats;
    const decide_commit *commit = NULL;
    for (size_t i = 0; i < p->request->op_count; i++) {
        const op_answer *a = &p->answers[i];
        const wire_op *op = &p->request->ops[i];
        const schema_table *t = schema_find(p->scope->c.schema, op->entity_type);
        slice entity = t ? t->entity : (slice){0};
        if (a->kind != OP_ANSWER_DECIDED) {
            stats_tally_operation(counters, entity, STATS_RESENT, CODE_NONE);
            continue;
        }
        stats_tally_operation(counters, entity, (int)a->result->outcome, a->result->code);
        counters->tally.decided++;
        counters->tally.resolved += op->resolves.len && (a->result->outcome == OUTCOME_APPLIED ||
                                                         a->result->outcome == OUTCOME_MERGED);
        for (size_t k = 0; a->commit != commit && k < a->commit->conflict_count; k++) {
            stats_tally_conflict(counters, a->commit->conflicts[k].kind,
                                 a->commit->conflicts[k].open);
        }
        counters->tally.groups += a->commit != commit;
        commit = a->commit;
    }
}
