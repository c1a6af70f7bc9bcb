/* An operation: its kinds, its states, and the only table of allowed moves (semantics 5.5). */
#ifndef CORE_OP_H
#define CORE_OP_H

#include "core/base.h"

typedef enum { OP_NONE, OP_CREATE, OP_UPDATE, OP_DELETE, OP_VOID } op_kind;
const char *op_kind_name(op_kind kind); /* "create" .. "void" */
/* create|update|delete|void and the aliases PUT, PATCH, DELETE; OP_NONE when unknown. */
op_kind op_kind_parse(slice name);

typedef enum {
    OP_PENDING,
    OP_ACKED,
    OP_RETIRED,
    OP_REJECTED,
    OP_CONFLICT,
    OP_BLOCKED,
    OP_PARKED,
    OP_STATE_COUNT
} op_state;
const char *op_state_name(op_state state);
bool op_state_parse(slice name, op_state *out);

typedef enum {
    OP_EVENT_ACK,           /* a reply said applied, merged, noop or duplicate */
    OP_EVENT_FEED,          /* own key seen in the feed with effect: done */
    OP_EVENT_REJECT,        /* a definite refusal, from a reply or the feed */
    OP_EVENT_OPEN_CONFLICT, /* decided as conflict */
    OP_EVENT_BLOCK,         /* a hard dependency was refused */
    OP_EVENT_REQUEUE,       /* reconcile: the server lost it, or it goes again under a new identity */
    OP_EVENT_PARK,
    OP_EVENT_UNPARK,
    OP_EVENT_COUNT
} op_event;
/* The one mover. false: the move is not allowed and *state is unchanged. */
bool op_transition(op_state *state, op_event event) MUST_USE;
/* pending | completed | failed | conflict: the requirements' status column. */
const char *op_public_status(op_state state);

typedef enum {
    OUTCOME_NONE,
    OUTCOME_APPLIED,
    OUTCOME_MERGED,
    OUTCOME_NOOP,
    OUTCOME_REJECTED,
    OUTCOME_CONFLICT,
    OUTCOME_DUPLICATE
} op_outcome;
const char *op_outcome_name(op_outcome outcome);
bool op_outcome_parse(slice name, op_outcome *out);

/* The closed list of codes of a refused operation (semantics 13.3). */
#define OP_CODE_TABLE(X)                                                                     \
    X(ROW_MISSING, "row-missing") X(ROW_DELETED, "row-deleted")                              \
    X(ID_UNAVAILABLE, "id-unavailable") X(UNIQUE_VIOLATION, "unique-violation")              \
    X(FK_VIOLATION, "fk-violation") X(CHECK_FAILED, "check-failed") X(NOT_NULL, "not-null")  \
    X(VALIDATION, "validation") X(FORBIDDEN, "forbidden")                                    \
    X(DEPENDENCY_FAILED, "dependency-failed") X(UNKNOWN_OPERATION, "unknown-operation")      \
    X(UNKNOWN_ENTITY, "unknown-entity") X(UNKNOWN_COLUMN, "unknown-column")                  \
    X(INVALID_VALUE, "invalid-value") X(TOO_LARGE, "too-large") X(POISON, "poison")          \
    X(DISCARDED, "discarded") X(UNVERIFIABLE, "unverifiable") X(LOST_BASE, "lost-base")      \
    X(IDEMPOTENCY_MISMATCH, "idempotency-mismatch") X(HELD, "held")     \
    X(HOOK_FAILED, "hook-failed")
typedef enum {
    CODE_NONE,
#define OP_CODE_ENUM(name, text) CODE_##name,
    OP_CODE_TABLE(OP_CODE_ENUM)
#undef OP_CODE_ENUM
    CODE_COUNT
} op_code;
const char *op_code_name(op_code code); /* NULL for CODE_NONE */
bool op_code_parse(slice name, op_code *out);

#endif
