/* A line on a terminal that shows a long sync moving: requests and bytes so far. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

#include "godwit/host.h"
#include "transport/transport.h"

typedef struct {
    transport *inner; /* NULL: no line is wanted */
    int64_t requests, sent_bytes, received_bytes;
    bool shown;
} progress;

/* Puts itself between the library and the built-in transport when `wanted` and stderr is a
 * terminal. `p` must outlive the handle that is opened with `host`. */
void progress_init(progress *p, godwit_host *host, bool wanted);
/* The authorities of a database's settings; empty = the system's. */
void progress_trust(progress *p, slice ca_file);
void progress_deinit(progress *p);
/* Wipes the line, so that other text may follow. */
void progress_clear(progress *p);

#endif
