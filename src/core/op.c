/* Names of an operation's kinds, states, outcomes and codes, and the table of allowed moves.
 *
 *   PENDING --ACK--> ACKED --FEED--> RETIRED          (FEED straight from PENDING: the reply was
 * lost) |  \--REJECT--> REJECTED, --OPEN_CONFLICT--> CONFLICT, --BLOCK--> BLOCKED
 *      \--PARK--> PARKED --UNPARK--> PENDING
 *   ACKED, RETIRED, CONFLICT --REQUEUE--> PENDING     (the server lost the decision)
 *
 * A fact may arrive twice, by a reply and by the feed: repeating it moves nothing. */
#include "core/op.h"

static const char *const kind_names[] = {
    [OP_NONE] = "none",     [OP_CREATE] = "create", [OP_UPDATE] = "update",
    [OP_DELETE] = "delete", [OP_VOID] = "void",
};

const char *op_kind_name(op_kind kind) {
    ASSERT((size_t)kind < COUNT_OF(kind_names));
    return kind_names[kind];
}

op_kind op_kind_parse(slice name) {
    static const struct {
        const char *name;
        op_kind kind;
    } known[] = {
        {"create", OP_CREATE}, {"update", OP_UPDATE}, {"delete", OP_DELETE}, {"void", OP_VOID},
        {"PUT", OP_CREATE},    {"PATCH", OP_UPDATE},  {"DELETE", OP_DELETE},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (slice_is(name, known[i].name)) {
            return known[i].kind;
        }
    }
    return OP_NONE;
}

static const char *const state_names[OP_STATE_COUNT] = {
    [OP_PENDING] = "pending",   [OP_ACKED] = "acked",       [OP_RETIRED] = "retired",
    [OP_REJECTED] = "rejected", [OP_CONFLICT] = "conflict", [OP_BLOCKED] = "blocked",
    [OP_PARKED] = "parked",
};

const char *op_state_name(op_state state) {
    ASSERT((size_t)state < OP_STATE_COUNT);
    return state_names[state];
}

bool op_state_parse(slice name, op_state *out) {
    for (size_t i = 0; i < OP_STATE_COUNT; i++) {
        if (slice_is(name, state_names[i])) {
            *out = (op_state)i;
            return true;
        }
    }
    return false;
}

/* 0 = not allowed, else the new state + 1. */
#define TO(state) (uint8_t)(OP_##state + 1)
static const uint8_t moves[OP_STATE_COUNT][OP_EVENT_COUNT] = {
    [OP_PENDING] = {[OP_EVENT_ACK] = TO(ACKED),
                    [OP_EVENT_FEED] = TO(RETIRED),
                    [OP_EVENT_REJECT] = TO(REJECTED),
                    [OP_EVENT_OPEN_CONFLICT] = TO(CONFLICT),
                    [OP_EVENT_BLOCK] = TO(BLOCKED),
                    [OP_EVENT_REQUEUE] = TO(PENDING),
                    [OP_EVENT_PARK] = TO(PARKED)},
    /* After a restore of the server the same operation may have been decided differently: the newer
     * fact counts. */
    [OP_ACKED] = {[OP_EVENT_ACK] = TO(ACKED),
                  [OP_EVENT_FEED] = TO(RETIRED),
                  [OP_EVENT_REJECT] = TO(REJECTED),
                  [OP_EVENT_OPEN_CONFLICT] = TO(CONFLICT),
                  [OP_EVENT_REQUEUE] = TO(PENDING)},
    [OP_RETIRED] = {[OP_EVENT_ACK] = TO(RETIRED),
                    [OP_EVENT_FEED] = TO(RETIRED),
                    [OP_EVENT_REJECT] = TO(REJECTED),
                    [OP_EVENT_OPEN_CONFLICT] = TO(CONFLICT),
                    [OP_EVENT_REQUEUE] = TO(PENDING)},
    [OP_REJECTED] = {[OP_EVENT_REJECT] = TO(REJECTED)},
    /* FEED: a conflict over a lost base that the server could decide after all. */
    [OP_CONFLICT] = {[OP_EVENT_OPEN_CONFLICT] = TO(CONFLICT),
                     [OP_EVENT_FEED] = TO(RETIRED),
                     [OP_EVENT_REQUEUE] = TO(PENDING)},
    /* REJECT: the server's record of the void that keeps its place; the local reason stays. */
    [OP_BLOCKED] = {[OP_EVENT_BLOCK] = TO(BLOCKED), [OP_EVENT_REJECT] = TO(BLOCKED)},
    /* Sent before it was parked, and the fact came late. */
    [OP_PARKED] = {[OP_EVENT_ACK] = TO(ACKED),
                   [OP_EVENT_FEED] = TO(RETIRED),
                   [OP_EVENT_REJECT] = TO(REJECTED),
                   [OP_EVENT_OPEN_CONFLICT] = TO(CONFLICT),
                   [OP_EVENT_BLOCK] = TO(BLOCKED),
                   [OP_EVENT_UNPARK] = TO(PENDING)},
};
#undef TO

bool op_transition(op_state *state, op_event event) {
    ASSERT((size_t)*state < OP_STATE_COUNT);
    ASSERT((size_t)event < OP_EVENT_COUNT);
    uint8_t to = moves[*state][event];
    if (to == 0) {
        return false;
    }
    *state = (op_state)(to - 1);
    return true;
}

const char *op_public_status(op_state state) {
    static const char *const names[OP_STATE_COUNT] = {
        [OP_PENDING] = "pending",   [OP_PARKED] = "pending",  [OP_ACKED] = "completed",
        [OP_RETIRED] = "completed", [OP_REJECTED] = "failed", [OP_BLOCKED] = "failed",
        [OP_CONFLICT] = "conflict",
    };
    ASSERT((size_t)state < OP_STATE_COUNT);
    return names[state];
}

static const char *const outcome_names[] = {
    [OUTCOME_NONE] = "none",           [OUTCOME_APPLIED] = "applied",
    [OUTCOME_MERGED] = "merged",       [OUTCOME_NOOP] = "noop",
    [OUTCOME_REJECTED] = "rejected",   [OUTCOME_CONFLICT] = "conflict",
    [OUTCOME_DUPLICATE] = "duplicate",
};

const char *op_outcome_name(op_outcome outcome) {
    ASSERT((size_t)outcome < COUNT_OF(outcome_names));
    return outcome_names[outcome];
}

bool op_outcome_parse(slice name, op_outcome *out) {
    for (size_t i = OUTCOME_APPLIED; i < COUNT_OF(outcome_names); i++) {
        if (slice_is(name, outcome_names[i])) {
            *out = (op_outcome)i;
            return true;
        }
    }
    return false;
}

static const char *const code_names[CODE_COUNT] = {[CODE_NONE] = NULL,
#define OP_CODE_NAME(name, text) [CODE_##name] = text,
                                                   OP_CODE_TABLE(OP_CODE_NAME)
#undef OP_CODE_NAME
};

const char *op_code_name(op_code code) {
    ASSERT((size_t)code < CODE_COUNT);
    return code_names[code];
}

bool op_code_parse(slice name, op_code *out) {
    for (size_t i = CODE_NONE + 1; i < CODE_COUNT; i++) {
        if (slice_is(name, code_names[i])) {
            *out = (op_code)i;
            return true;
        }
    }
    return false;
}
