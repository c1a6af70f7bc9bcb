/* Which event stream each device has: one, the newest. A device that opens another has lost the first,
 * whatever the network still believes.
 *
 * Shared by the loop threads, locked. */
#ifndef SERVER_STREAMS_H
#define SERVER_STREAMS_H

#include <pthread.h>

#include "core/base.h"

#define STREAM_BUCKETS 256

typedef struct stream_place stream_place;
typedef struct {
    pthread_mutex_t lock;
    uint64_t last_id;
    stream_place *buckets[STREAM_BUCKETS];
} stream_table;

/* A device of a user in a scope. */
typedef struct {
    slice user, scope, device;
} stream_name;

godwit_status streams_init(stream_table *t) MUST_USE;
void streams_deinit(stream_table *t);
/* Gives the name to a new stream of `loop`. *id: what to call it (not 0). Where another had the name:
 * *loser, the loop it belongs to, and *loser_id, else NULL. NOMEM. */
godwit_status streams_take(stream_table *t, const stream_name *name, void *loop, uint64_t *id,
                           void **loser, uint64_t *loser_id) MUST_USE;
/* The stream is over; nothing happens when another has the name by now. */
void streams_leave(stream_table *t, const stream_name *name, uint64_t id);

#endif
