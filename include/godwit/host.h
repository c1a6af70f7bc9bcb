/* What an embedder may supply in place of the defaults: memory, time, randomness, log, transport.
 *
 * Every member may be NULL: the default is used. `context` is handed back untouched. A callback
 * runs on the thread that called the library and must not call the same handle again; between
 * godwit_start and godwit_stop also on the background thread, at the same time. */
#ifndef GODWIT_HOST_H
#define GODWIT_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "godwit/status.h"

/* realloc semantics in one function: size 0 frees, pointer NULL allocates. Returns NULL when out
 * of memory (the old block is then unchanged). Default: the C library. */
typedef struct {
    void *context;
    void *(*resize)(void *context, void *block, size_t size);
} godwit_allocator;

typedef enum { GODWIT_LOG_DEBUG, GODWIT_LOG_INFO, GODWIT_LOG_WARN, GODWIT_LOG_ERROR } godwit_log_level;

/* One HTTP exchange. `headers` are "Name: value" strings, header_count of them, borrowed. */
typedef struct {
    const char *method;         /* "GET" or "POST" */
    const char *url;            /* absolute */
    const char *const *headers; /* borrowed */
    size_t header_count;
    const void *body;           /* borrowed; NULL when body_bytes is 0 */
    size_t body_bytes;
    int64_t timeout_ms;         /* for the whole exchange */
    size_t answer_max;          /* bytes of body after which the transport must give up */
    /* NULL, or to be asked now and then, at least four times a second, on the same thread: not 0 =
     * give up (status 0). A transport that does not ask delays godwit_stop until it is done. */
    int (*cancelled)(void *cancel_context);
    void *cancel_context;
} godwit_http_request;

typedef struct {
    int status;                 /* HTTP status; 0 = the exchange failed (reason says why) */
    int64_t retry_after_ms;     /* from Retry-After; -1 when absent */
    void *body;                 /* allocated with the handle's allocator; the library frees it */
    size_t body_bytes;
    char reason[160];           /* NUL-terminated; for status 0 */
} godwit_http_answer;

/* What the host is told when it listens (on_event below). Texts are never NULL, "" where they have no
 * meaning, and borrowed until the callback returns. */
typedef enum {
    GODWIT_EVENT_UNKNOWN,
    GODWIT_EVENT_QUEUED,      /* an operation has its place in the queue; id = its id */
    GODWIT_EVENT_SENT,        /* a push goes out: count operations, id = the first of them */
    GODWIT_EVENT_OUTCOME,     /* the server has decided an operation: outcome, code, detail */
    GODWIT_EVENT_CONFLICT,    /* an entry of the conflict ledger is new or has another state: id = its id,
                                 outcome = its state, code = its kind */
    GODWIT_EVENT_DEAD_LETTER, /* an operation waits for a person: code, detail */
    GODWIT_EVENT_ONLINE,      /* the server answers again */
    GODWIT_EVENT_OFFLINE,     /* it does not: detail = why */
    GODWIT_EVENT_PROGRESS     /* count of total operations of this sync are through */
} godwit_event_kind;
typedef struct {
    int64_t seq;   /* position, growing; 0 for progress, which is not kept */
    int64_t at_ms; /* ms since 1970 UTC */
    godwit_event_kind kind;
    const char *id, *scope, *entity_type, *entity_id, *outcome, *code, *detail;
    int64_t count, total;
} godwit_event;

typedef struct {
    godwit_allocator allocator;
    void *context;                                              /* for the callbacks below */
    int64_t (*wall_ms)(void *context);                          /* ms since 1970 UTC */
    int64_t (*mono_ms)(void *context);                          /* never goes back */
    int (*entropy)(void *context, void *buffer, size_t bytes);  /* 0 = ok */
    void (*log)(void *context, godwit_log_level level, const char *line);
    /* Performs one exchange, blocking. Fills *answer; status 0 for a transport failure. */
    void (*exchange)(void *context, const godwit_http_request *request, godwit_http_answer *answer);
    /* Told what happens, on the thread that syncs, between requests and never inside a transaction. All
     * but progress is kept in the database until the callback has returned: after a crash it comes again
     * (at least once, in order). Of a host that stays away the newest 100,000 are kept. */
    void (*on_event)(void *context, const godwit_event *event);
    /* Fills `out` with 16 bytes that stay the same as long as the database at `path` stays where it is, and
     * that no copy and no backup carries along: random ones kept in a folder without backup, or in a
     * keychain for this device only; made anew when they are gone. A database that comes to another place
     * goes on under a new device id. 0 = ok, else there is no telling. Default: from the machine's id and
     * the file's inode. */
    int (*place)(void *context, const char *path, uint8_t out[16]);
} godwit_host;

#endif
