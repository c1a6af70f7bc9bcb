/* Naming an operation that was captured, or queueing a payload: what godwit_enqueue and godwit_add share. */
#ifndef CLIENT_ENQUEUE_H
#define CLIENT_ENQUEUE_H

#include "client/client.h"

typedef struct {
    slice operation, entity_type, entity_id, payload;
    const godwit_enqueue_options *options; /* may be NULL */
} enqueue_call;

/* godwit_enqueue inside a call; `id` as there. */
godwit_status enqueue_run(godwit *g, const enqueue_call *call, char id[37]) MUST_USE;

#endif
