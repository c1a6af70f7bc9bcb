/* The client's protocol as a pure step: step(round, event) -> action. No I/O, no clock, no SQLite.
 *
 * A round talks to one server for one scope: register if needed, then push+pull until nothing
 * sendable is left and the head is reached, bootstrapping by snapshot when told to. The driver (the
 * curl loop, godwit_next/godwit_feed, the simulator) carries out the action and feeds back what
 * happened. Time and randomness are inside events.
 *
 *   IDLE --start--> REGISTER? --> RECONCILE? --> SYNC <--> SYNC.. --> DONE
 *                        ^          |    ^        |  410 bootstrap-required
 *                        | new id   |    | 409    v
 *                        +----------+    +---- SNAPSHOT pages --> SYNC
 *   any failure --> WAIT(delay) with the class's rule, or STOP for what needs a person
 */
#ifndef CORE_ROUND_H
#define CORE_ROUND_H

#include "core/backoff.h"

typedef enum {
    ROUND_IDLE,
    ROUND_REGISTER,
    ROUND_SYNC,
    ROUND_SNAPSHOT,
    ROUND_RECONCILE,
    ROUND_DONE,
    ROUND_STOPPED
} round_phase;

typedef enum {
    ROUND_EVENT_START,     /* facts: registered, reconciling, bootstrapping */
    ROUND_EVENT_OK,        /* 2xx, parsed and settled; facts: the same, sendable, more */
    ROUND_EVENT_PROBLEM    /* failure; facts: http, problem type, retry_after_ms */
} round_event_kind;

typedef enum {
    PROBLEM_NONE,
    PROBLEM_TRANSPORT,
    PROBLEM_BUSY,
    PROBLEM_UNAUTHENTICATED,
    PROBLEM_FORBIDDEN,      /* scope-forbidden, -revoked, device-revoked: stop */
    PROBLEM_READ_ONLY,      /* scope-read-only, of a push: pull without it */
    PROBLEM_DEVICE_UNKNOWN, /* register, retry */
    PROBLEM_IDENTITY,       /* device-forked, sequence-gap, history-regressed, device-retired; or the
                               client itself found another history in an answer */
    PROBLEM_BOOTSTRAP,      /* 410 */
    PROBLEM_TOO_LARGE,      /* 413: halve */
    PROBLEM_SCHEMA,         /* schema-mismatch, schema-outdated, unknown entity: needs a person */
    PROBLEM_UNSUPPORTED,    /* 426 */
    PROBLEM_PROTOCOL        /* 400, an answer that can't be parsed */
} round_problem;
/* From HTTP status (0 = no answer) and the problem document's type (may be empty). 2xx without a type is
 * PROBLEM_NONE; with one (changesProblem) that problem. An answer of 2xx that is not JSON at all comes
 * from a captive portal, not from the server: report it as PROBLEM_TRANSPORT. */
round_problem round_problem_of(int http, slice type);

typedef struct {
    round_event_kind kind;
    bool registered, bootstrapping;
    bool reconciling;       /* the streams have to be compared with the server's (semantics 4.5) */
    bool sendable;          /* whole groups are waiting to be sent */
    bool more;              /* the feed has more, or snapshot pages remain */
    round_problem problem;
    bool pull_only;         /* PROBLEM: the failed request carried no operations, so none is to blame */
    int64_t retry_after_ms; /* -1 = absent */
    uint64_t random;
} round_event;

typedef enum {
    ROUND_SEND_REGISTER,
    ROUND_SEND_SYNC,        /* push up to max_ops operations in whole groups, and pull */
    ROUND_SEND_SNAPSHOT,
    ROUND_QUARANTINE,       /* one group alone failed POISON_LIMIT times: give it up, then feed OK */
    ROUND_SEND_RECONCILE,   /* the next page of keys */
    ROUND_WAIT,             /* delay_ms, then start again; state is persisted by the driver */
    ROUND_FINISH,           /* nothing left to do */
    ROUND_STOP              /* status says why; a person or a new token is needed */
} round_action_kind;

typedef struct {
    round_action_kind kind;
    int max_ops;            /* for SEND_SYNC: 1 = one group alone, 0 = none */
    int64_t delay_ms;
    godwit_status status;   /* for WAIT and STOP */
} round_action;

/* `failures`, `max_ops` and `alone_failures` must outlive a WAIT: they are restored before the next
 * START, or a bad group would never be found. The rest belongs to one round. */
typedef struct {
    round_phase phase;
    int failures;           /* consecutive; persisted by the driver */
    int max_ops;            /* halved by protocol failures, restored by success */
    int alone_failures;     /* of one group alone */
    bool token_refreshed;
    bool registered_now;    /* a device-unknown answer re-registers once, not for ever */
    int bootstraps;         /* 410 answers in this round */
    int forks;              /* other histories found in this round */
    bool read_only;         /* nothing is pushed any more in this round, which ends in STOP */
} round_state;

void round_init(round_state *r);
round_action round_step(round_state *r, const round_event *event);

#endif
