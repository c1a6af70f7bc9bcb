/* A build without libcurl: the embedder brings its own `exchange` or drives
 * godwit_next/godwit_feed. */
#include "transport/transport.h"

godwit_status transport_create(const godwit_allocator *allocator, transport **out) {
    (void)allocator;
    *out = NULL;
    return GODWIT_UNSUPPORTED;
}

void transport_trust(transport *t, slice ca_file) {
    (void)t;
    (void)ca_file;
}

void transport_destroy(transport *t) {
    (void)t;
}

void transport_exchange(void *context, const godwit_http_request *request,
                        godwit_http_answer *answer) {
    (void)context;
    (void)request;
    memset(answer, 0, sizeof *answer);
}
