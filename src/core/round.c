/* The client's protocol, step by step. Every rule of semantics 5.6 is one case here.
 *
 *   no answer, busy     wait with jitter; nothing is blamed
 *   protocol, 413       send half as much, at once; when one group alone fails: wait; when it has
 * failed POISON_LIMIT times: quarantine it 401                 once more (the driver reads its
 * token anew for each request), then stop device-unknown      register once more, then stop 410
 * snapshot; a third one in the same round waits first identity            reconcile, then go on; a
 * fourth time in the same round waits first 403, schema, 426: stop, for a person scope-read-only
 * pull to the head without pushing, then stop; the next round asks with one group alone
 *
 * All counters are the caller's to persist; nothing here remembers a request. */
#include "core/round.h"

#include "core/limits.h"

#define SNAPSHOTS_MAX  2 /* per round: the second for a token that expired on the way */
#define RECONCILES_MAX 3 /* per round: others may go on writing under the same id meanwhile */

void round_init(round_state *r) {
    memset(r, 0, sizeof(*r));
    r->max_ops = PUSH_FILL_OPS;
}

static round_action send(round_state *r, round_phase phase) {
    r->phase = phase;
    round_action action = {.status = GODWIT_OK};
    switch (phase) {
    case ROUND_REGISTER:
        action.kind = ROUND_SEND_REGISTER;
        break;
    case ROUND_SNAPSHOT:
        action.kind = ROUND_SEND_SNAPSHOT;
        break;
    case ROUND_RECONCILE:
        action.kind = ROUND_SEND_RECONCILE;
        break;
    case ROUND_SYNC:
        action.kind = ROUND_SEND_SYNC;
        action.max_ops = r->read_only ? 0 : r->max_ops;
        break;
    case ROUND_IDLE:
    case ROUND_DONE:
    case ROUND_STOPPED:
        ASSERT(false && "a phase that sends");
    }
    return action;
}

static round_action stop(round_state *r, round_action_kind kind, godwit_status status) {
    r->phase = ROUND_STOPPED;
    return (round_action){.kind = kind, .status = status};
}

static round_action wait_for(round_state *r, retry_class cls, const round_event *e,
                             godwit_status status) {
    int64_t delay = backoff_delay_ms(cls, r->failures, e->retry_after_ms, e->random);
    if (r->failures < INT32_MAX) {
        r->failures++;
    }
    r->phase = ROUND_IDLE;
    return (round_action){.kind = ROUND_WAIT, .delay_ms = delay, .status = status};
}

static round_action start(round_state *r, const round_event *e) {
    r->token_refreshed = false;
    r->registered_now = false;
    r->bootstraps = 0;
    r->forks = 0;
    r->read_only = false;
    if (!e->registered) {
        return send(r, ROUND_REGISTER);
    }
    if (e->reconciling) {
        return send(r, ROUND_RECONCILE);
    }
    return send(r, e->bootstrapping ? ROUND_SNAPSHOT : ROUND_SYNC);
}

static round_action succeeded(round_state *r, const round_event *e) {
    r->failures = 0;
    r->token_refreshed = false;
    if (r->phase == ROUND_SYNC && !r->read_only) {
        /* By doubling: after a bad group was found by halving, the next one is near its old place.
         */
        r->max_ops = r->max_ops > PUSH_FILL_OPS / 2 ? PUSH_FILL_OPS : r->max_ops * 2;
        r->alone_failures = 0;
    }
    if (e->reconciling) {
        return send(r, ROUND_RECONCILE);
    }
    if (!e->registered && (r->phase != ROUND_REGISTER || !r->registered_now)) {
        /* a new identity; behind a registration only once: another server has answered it */
        r->registered_now = r->registered_now || r->phase == ROUND_REGISTER;
        return send(r, ROUND_REGISTER);
    }
    if (e->bootstrapping && (r->phase != ROUND_SNAPSHOT || e->more)) {
        return send(r, ROUND_SNAPSHOT);
    }
    if (r->phase != ROUND_SYNC || (e->sendable && !r->read_only) || e->more) {
        return send(r, ROUND_SYNC);
    }
    if (r->read_only) {
        return stop(r, ROUND_STOP, GODWIT_FORBIDDEN);
    }
    r->phase = ROUND_DONE;
    return (round_action){.kind = ROUND_FINISH, .status = GODWIT_OK};
}

/* Too much, or not understood: find the group that is to blame by halving. */
static round_action blamed(round_state *r, const round_event *e) {
    if (r->phase != ROUND_SYNC || e->pull_only) {
        return wait_for(r, RETRY_PROTOCOL, e, GODWIT_PROTOCOL);
    }
    if (r->max_ops > 1) {
        r->max_ops /= 2;
        r->alone_failures = 0;
        return send(r, ROUND_SYNC);
    }
    r->alone_failures++;
    if (r->alone_failures < POISON_LIMIT) {
        return wait_for(r, RETRY_PROTOCOL, e, GODWIT_PROTOCOL);
    }
    r->alone_failures = 0;
    return (round_action){.kind = ROUND_QUARANTINE, .status = GODWIT_PROTOCOL};
}

static round_action failed(round_state *r, const round_event *e) {
    switch (e->problem) {
    case PROBLEM_TRANSPORT:
        return wait_for(r, RETRY_TRANSPORT, e, GODWIT_UNREACHABLE);
    case PROBLEM_BUSY:
        return wait_for(r, RETRY_BUSY, e, GODWIT_OVERLOADED);
    case PROBLEM_UNAUTHENTICATED:
        if (r->token_refreshed) {
            return stop(r, ROUND_STOP, GODWIT_UNAUTHENTICATED);
        }
        r->token_refreshed = true;
        return send(r, r->phase);
    case PROBLEM_READ_ONLY:
        if (r->phase == ROUND_SYNC && !e->pull_only) {
            r->read_only = true;
            r->max_ops = 1;
            return send(r, ROUND_SYNC);
        }
        r->read_only = false; /* may not even be read */
        return stop(r, ROUND_STOP, GODWIT_FORBIDDEN);
    case PROBLEM_FORBIDDEN:
        r->read_only = false;
        return stop(r, ROUND_STOP, GODWIT_FORBIDDEN);
    case PROBLEM_DEVICE_UNKNOWN:
        if (r->registered_now || r->phase == ROUND_REGISTER) {
            return stop(r, ROUND_STOP, GODWIT_PROTOCOL);
        }
        r->registered_now = true;
        return send(r, ROUND_REGISTER);
    case PROBLEM_IDENTITY:
        if (r->phase == ROUND_REGISTER || r->forks >= RECONCILES_MAX) {
            return wait_for(r, RETRY_IDENTITY, e, GODWIT_IDENTITY);
        }
        r->forks++;
        return send(r, ROUND_RECONCILE);
    case PROBLEM_BOOTSTRAP:
        /* A token that has gone stale, or a server that says 410 to its own snapshot's cursor. */
        if (r->phase == ROUND_REGISTER || r->bootstraps >= SNAPSHOTS_MAX) {
            return wait_for(r, RETRY_IDENTITY, e, GODWIT_PROTOCOL);
        }
        r->bootstraps++;
        /* acknowledged operations may be lost with the history the cursor was of */
        return send(r, e->reconciling ? ROUND_RECONCILE : ROUND_SNAPSHOT);
    case PROBLEM_TOO_LARGE:
    case PROBLEM_PROTOCOL:
    case PROBLEM_NONE: /* a 2xx that could not be used */
        break;
    case PROBLEM_SCHEMA:
    case PROBLEM_UNSUPPORTED:
        return stop(r, ROUND_STOP, GODWIT_UNSUPPORTED);
    }
    return blamed(r, e);
}

round_action round_step(round_state *r, const round_event *event) {
    ASSERT(r->max_ops >= 1 && r->max_ops <= PUSH_FILL_OPS);
    if (event->kind == ROUND_EVENT_START) {
        return start(r, event);
    }
    if (r->phase != ROUND_REGISTER && r->phase != ROUND_SYNC && r->phase != ROUND_SNAPSHOT &&
        r->phase != ROUND_RECONCILE) {
        /* An answer that nobody waits for any more: a host fed one twice, or after a stop. */
        return stop(r, ROUND_STOP, GODWIT_MISUSE);
    }
    return event->kind == ROUND_EVENT_OK ? succeeded(r, event) : failed(r, event);
}

static round_problem problem_of_type(slice type) {
    static const struct {
        const char *type;
        round_problem problem;
    } known[] = {
        {"invalid-request", PROBLEM_PROTOCOL},
        {"key-mismatch", PROBLEM_PROTOCOL},
        {"idempotency-mismatch", PROBLEM_PROTOCOL},
        {"digest-mismatch", PROBLEM_PROTOCOL},
        {"unauthenticated", PROBLEM_UNAUTHENTICATED},
        {"scope-forbidden", PROBLEM_FORBIDDEN},
        {"scope-revoked", PROBLEM_FORBIDDEN},
        {"scope-read-only", PROBLEM_READ_ONLY},
        {"device-revoked", PROBLEM_FORBIDDEN},
        {"device-unknown", PROBLEM_DEVICE_UNKNOWN},
        {"device-forked", PROBLEM_IDENTITY},
        {"sequence-gap", PROBLEM_IDENTITY},
        {"history-regressed", PROBLEM_IDENTITY},
        {"device-retired", PROBLEM_IDENTITY},
        {"mode-changed", PROBLEM_SCHEMA},
        {"schema-outdated", PROBLEM_SCHEMA},
        {"schema-mismatch", PROBLEM_SCHEMA},
        {"unknown-entity", PROBLEM_SCHEMA},
        {"bootstrap-required", PROBLEM_BOOTSTRAP},
        {"cursor-expired", PROBLEM_BOOTSTRAP},
        {"cursor-invalid", PROBLEM_BOOTSTRAP},
        {"too-large", PROBLEM_TOO_LARGE},
        {"unsupported-version", PROBLEM_UNSUPPORTED},
        {"rate-limited", PROBLEM_BUSY},
        {"overloaded", PROBLEM_BUSY},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (slice_is(type, known[i].type)) {
            return known[i].problem;
        }
    }
    return PROBLEM_NONE;
}

round_problem round_problem_of(int http, slice type) {
    if (http >= 200 && http < 300) {
        /* Success, unless it is the type of a problem inside (changesProblem). */
        return problem_of_type(type);
    }
    round_problem named = http == 0 ? PROBLEM_NONE : problem_of_type(type);
    if (named != PROBLEM_NONE) {
        return named;
    }
    switch (http) {
    case 401:
        return PROBLEM_UNAUTHENTICATED;
    case 403:
        return PROBLEM_FORBIDDEN;
    case 404: /* no Godwit here: halving the batch would blame operations for a wrong address */
    case 405:
    case 426:
    case 501:
        return PROBLEM_UNSUPPORTED;
    case 409: /* a conflict this version has no name for */
        return PROBLEM_SCHEMA;
    case 410:
        return PROBLEM_BOOTSTRAP;
    case 413:
        return PROBLEM_TOO_LARGE;
    default:
        break;
    }
    switch (backoff_class(http)) {
    case RETRY_TRANSPORT:
        return PROBLEM_TRANSPORT;
    case RETRY_BUSY:
        return PROBLEM_BUSY;
    case RETRY_AUTH: /* these two have their cases above */
    case RETRY_IDENTITY:
    case RETRY_PROTOCOL:
    case RETRY_DECISION:
        break;
    }
    return PROBLEM_PROTOCOL;
}
