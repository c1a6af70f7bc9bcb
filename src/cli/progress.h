/* A line on a terminal that shows a long sync moving: requests and bytes so far. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

#include "godwit/host.h"

/* Puts itself between the library and its transport when `wanted` and stderr is a terminal. One at
 * a time per process. */
void progress_host(godwit_host *host, bool wanted);
/* Wipes the line, so that other text may follow. */
void progress_clear(void);

#endif
