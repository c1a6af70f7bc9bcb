/* Results of a push: written once, straight into the answer; stored JSON is spliced as it is. */
#include "server/service_inner.h"

const char *push_answer_status(op_outcome outcome) {
    switch (outcome) {
    case OUTCOME_REJECTED:
        return "error";
    case OUTCOME_CONFLICT:
        return "conflict";
    case OUTCOME_DUPLICATE:
        return "already_processed";
    case OUTCOME_NONE:
    case OUTCOME_APPLIED:
    case OUTCOME_MERGED:
    case OUTCOME_NOOP:
        break;
    }
    return "success";
}

void push_answer_error(bytes *b, op_code code, slice detail) {
    bytes_text(b, ",\"error\":{\"code\":\"");
    bytes_text(b, op_code_name(code));
    bytes_text(b, "\",\"retryable\":false,\"detail\":");
    json_write_text(b, detail);
    bytes_char(b, '}');
}

static void stream_members(bytes *b, const wire_op *op) {
    if (op->seq > 0) {
        bytes_text(b, ",\"sequenceNumber\":");
        bytes_int(b, op->seq);
        bytes_text(b, ",\"idempotencyKey\":\"");
        bytes_hex(b, op->key, SHA256_BYTES);
        bytes_char(b, '"');
    }
}

void push_answer_members(bytes *b, const wire_op *op, const decide_result *result,
                         const decide_commit *commit) {
    bytes_text(b, ",\"outcome\":\"");
    bytes_text(b, op_outcome_name(result->outcome));
    bytes_text(b, "\",\"commitSeq\":");
    bytes_int(b, commit->commit_seq);
    stream_members(b, op);
    if (result->code != CODE_NONE) {
        push_answer_error(b, result->code, result->detail);
    }
    if (result->result.len) {
        bytes_text(b, ",\"result\":");
        bytes_slice(b, result->result);
    }
    if (result->conflicts_json.len) {
        bytes_text(b, ",\"conflicts\":");
        bytes_slice(b, result->conflicts_json);
    }
    if (result->clock_json.len) {
        bytes_text(b, ",\"vectorClock\":");
        bytes_slice(b, result->clock_json);
    }
}

static void resent_members(bytes *b, const wire_op *op, const decide_ledger *ledger) {
    bytes_text(b, ",\"outcome\":\"");
    bytes_text(b, op_outcome_name(ledger->outcome));
    bytes_text(b, "\",\"commitSeq\":");
    bytes_int(b, ledger->commit_seq);
    stream_members(b, op);
    if (ledger->code != CODE_NONE) {
        push_answer_error(b, ledger->code, ledger->detail);
    }
    if (ledger->result.len) {
        bytes_text(b, ",\"result\":");
        bytes_slice(b, ledger->result);
    }
    if (ledger->conflicts.len) {
        bytes_text(b, ",\"conflicts\":");
        bytes_slice(b, ledger->conflicts);
    }
}

static void write_result(bytes *b, const wire_op *op, const op_answer *answer) {
    const char *status = "already_processed";
    if (answer->kind == OP_ANSWER_DECIDED && answer->commit->outcome != OUTCOME_DUPLICATE) {
        status = push_answer_status(answer->result->outcome);
    } else if (answer->kind == OP_ANSWER_MISMATCH) {
        status = "error";
    }
    bytes_text(b, "{\"id\":");
    json_write_text(b, op->id);
    bytes_text(b, ",\"status\":\"");
    bytes_text(b, status);
    bytes_char(b, '"');
    switch (answer->kind) {
    case OP_ANSWER_DECIDED:
        push_answer_members(b, op, answer->result, answer->commit);
        break;
    case OP_ANSWER_RESENT:
        resent_members(b, op, answer->ledger);
        break;
    case OP_ANSWER_REPLAYED:
        bytes_slice(b, answer->stored);
        break;
    case OP_ANSWER_MISMATCH:
        bytes_text(b, ",\"outcome\":\"rejected\"");
        push_answer_error(b, CODE_IDEMPOTENCY_MISMATCH,
                          SLICE("the key was used with other content, or in another group"));
        break;
    case OP_ANSWER_NONE:
        ASSERT(!"every operation has an answer");
    }
    bytes_char(b, '}');
}

void push_answer_write(service_job *job, const op_answer *answers, int64_t applied_seq,
                       int64_t head, int64_t now_ms, bool open_end) {
    const job_state *state = job->state;
    const push_request *request = &state->push;
    bytes *b = &job->answer;
    char now[32];
    bytes_clear(b);
    bytes_text(b, "{\"results\":[");
    for (size_t i = 0; i < request->op_count; i++) {
        if (i) {
            bytes_char(b, ',');
        }
        write_result(b, &request->ops[i], &answers[i]);
    }
    bytes_char(b, ']');
    if (applied_seq >= 0) {
        bytes_text(b, ",\"appliedSeq\":");
        bytes_int(b, applied_seq);
    }
    bytes_text(b, ",\"head\":");
    bytes_int(b, head);
    wire_time_write(now_ms, now);
    bytes_text(b, ",\"serverTime\":\"");
    bytes_text(b, now);
    bytes_text(b, "\",\"missingBlobs\":[]");
    if (!open_end) {
        bytes_char(b, '}');
    }
}

const char *push_stream_members(service_job *job, const decide_device *device) {
    char key[2 * SHA256_BYTES + 1] = "";
    if (device->has_last_key) {
        id_hex_encode(device->last_key, SHA256_BYTES, key);
    }
    return arena_printf(&job->memory, "\"appliedSeq\":%lld,\"lastKey\":\"%s\"",
                        (long long)device->applied_seq, key);
}

bool push_refuse_stream(service_job *job, stream_verdict verdict, const decide_device *device) {
    switch (verdict) {
    case STREAM_OK:
    case STREAM_FORBIDDEN_DEVICE:
    case STREAM_REVOKED:
    case STREAM_RETIRED:
        return admit_refuse(job, verdict);
    case STREAM_FORKED:
        service_problem(job, 409, "device-forked",
                        "the operations do not continue this device's history",
                        push_stream_members(job, device));
        return true;
    case STREAM_GAP:
        service_problem(job, 409, "sequence-gap", "operations before firstSeq are missing",
                        push_stream_members(job, device));
        return true;
    case STREAM_REGRESSED:
        service_problem(job, 409, "history-regressed",
                        "operations the device holds for delivered are not known here",
                        push_stream_members(job, device));
        return true;
    }
    return true;
}
