/* Counters of the daemon and their Prometheus text. Threads: any. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdatomic.h>

#include "server/prom.h"
#include "server/route.h"

#define METRICS_STATUS_MIN 100
#define METRICS_STATUS_END 600
#define METRICS_LIMITS     3

typedef struct {
    _Atomic uint64_t requests[ROUTE_COUNT + 1][METRICS_STATUS_END - METRICS_STATUS_MIN];
    _Atomic uint64_t request_us[ROUTE_COUNT + 1]; /* sum, from the complete head to the answer */
    _Atomic uint64_t accepted, turned_away;       /* connections; the latter with 503 */
    _Atomic int64_t connections, parked, streams;
    _Atomic int64_t listening;            /* 1: other servers are heard as they write */
    _Atomic uint64_t moved_elsewhere[2];  /* scopes waited for: found by asking, heard of */
    _Atomic uint64_t batches, batch_jobs; /* writes and the requests combined in them */
    _Atomic int64_t queued_work, queued_writes, held_bytes;
    _Atomic uint64_t handshakes[2];              /* of TLS: failed, done */
    _Atomic uint64_t replaced;                   /* streams, by another of their device */
    _Atomic uint64_t limited[METRICS_LIMITS][2]; /* by kind of gate.h: too fast, too many */
    prom_histogram push, pull;
} metrics;

void metrics_request(metrics *m, route_id id, int status, int64_t micros);
void metrics_write(const metrics *m, bytes *b);

#endif
