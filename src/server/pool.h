/* The threads that work on requests: R workers, each with a reader of the store, one writer, and
 * with hooks two that ask them.
 *
 *   submit --> worker: decompress, service_prepare --+--> answered -----------------------> done
 *                                                    +--> writer: all that wait, one call --+->
 * done
 *                                                    +--> worker: service_read <-----------+
 *                                                                     +--> answered or parked ->
 * done
 *
 * Where hooks are configured requests may go to a hook thread before the writer, and again when it
 * hands them back; who waits for hooks keeps no other thread. The writer takes everything that
 * waits (bounded) and hands it over as one call: while one commit waits for the disk the next batch
 * gathers. Queues are bounded by count and by bytes held in memory. */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include "server/gate.h"
#include "server/metrics.h"
#include "server/notify.h"
#include "server/service.h"

typedef enum {
    STAGE_PREPARE, /* the body is new */
    STAGE_HOOK,    /* hooks are asked */
    STAGE_WRITE,
    STAGE_READ, /* also when a parked request is looked at again */
    STAGE_HEAD  /* only the head of `scope` is wanted */
} request_stage;

struct loop;
struct conn;

/* One request from its complete head to its answer. Touched by one thread at a time: its loop, or
 * the pool between submit and done. */
typedef struct request {
    service_job job; /* first: the queues link requests through job.next */
    request_stage stage;
    const route *route;
    bytes head_text, body; /* what the slices of `job` point into */
    bool body_is_gzip;
    bool gzip_wanted; /* the answer may be compressed */
    bool answer_is_gzip;
    size_t charged_bytes; /* of the memory budget; the pool's */
    slice scope;          /* of long polls and streams; lives in job.memory */
    int64_t head;         /* out of STAGE_HEAD */
    /* the loop's own */
    struct loop *loop;
    struct conn *conn; /* NULL when the client went away meanwhile */
    waiter wait;
    int64_t seen_head; /* wait.head at the last submit */
    int64_t started_us, park_until_ms;
    gate_lease user_place, device_place;
    bool counted_parked;
} request;

typedef struct pool pool;
typedef struct {
    service *service;
    metrics *metrics;
    int64_t memory_max; /* bytes of requests and answers; new bodies get the first half */
    int workers;
    int64_t janitor_every_ms; /* between two passes of the janitor over all scopes */
    void (*done)(request *r); /* on a pool thread: answered, parked, or head found */
    /* On a worker, when it is known what a request is about: false, it has been answered. */
    bool (*admit)(void *context, request *r);
    service_commit_fn on_commit;
    void *context; /* of admit and on_commit */
} pool_options;

/* Starts the threads. On failure nothing is left running. */
godwit_status pool_open(const pool_options *options, pool **out) MUST_USE;
/* Finishes what is queued, ends the threads. */
void pool_close(pool *p);
/* False when the queues are full: the request is not taken. */
bool pool_submit(pool *p, request *r) MUST_USE;
/* For requests that were accepted before; never refused. */
void pool_resubmit(pool *p, request *r);
/* Room for a body of that many bytes, before it is read. A hint, nothing is reserved. */
bool pool_has_room(const pool *p, size_t body_bytes);
/* Gives the request's share of the memory budget back. */
void pool_release(pool *p, request *r);

#endif
