/* What the files of the verb `queue` share. */
#ifndef CLI_QUEUE_H
#define CLI_QUEUE_H

#include "cli/cli.h"

typedef struct {
    bool json, pending, failed, all;
    int64_t limit, timeout_ms;
    const char *payload, *reason, *from;
    const char *path;
    char **ids; /* what follows the action */
    int id_count;
} cli_queue_request;

/* The whole id of the one operation that begins with `prefix`. CLI_GO or the exit code. */
int cli_queue_id(godwit *g, const cli_queue_request *r, const char *prefix, char id[37]);

/* repair.c: the exit code */
int cli_queue_retry(godwit *g, const cli_queue_request *r);
int cli_queue_edit(godwit *g, const cli_queue_request *r);
int cli_queue_discard(godwit *g, const cli_queue_request *r);

#endif
