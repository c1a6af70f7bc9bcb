/* Method and path -> what to do; the query string -> parameters. Pure.
 *
 * The table is the whole HTTP surface of the daemon. A path that is not in it is 404, a method that
 * its path does not have is 405 with Allow. Query strings are decoded strictly: a parameter the
 * route does not know, one given twice, a bad escape, a NUL or invalid UTF-8 is refused. */
#ifndef SERVER_ROUTE_H
#define SERVER_ROUTE_H

#include "server/service.h"

typedef enum {
    ROUTE_HEALTHZ,
    ROUTE_READYZ,
    ROUTE_METRICS,
    ROUTE_META,
    ROUTE_DEVICES,
    ROUTE_SYNC,
    ROUTE_OPERATIONS,
    ROUTE_CHANGES,
    ROUTE_SNAPSHOT,
    ROUTE_EVENTS,
    ROUTE_CONFLICTS,
    ROUTE_AUDIT,
    ROUTE_RECONCILE,
    ROUTE_COUNT,
    ROUTE_NONE = ROUTE_COUNT /* refused before a route was known; counted, never found */
} route_id;

typedef enum {
    ROUTE_HERE,  /* answered by the loop itself */
    ROUTE_JOB,   /* a service_job with `verb` */
    ROUTE_STREAM /* server-sent events */
} route_kind;

typedef struct {
    route_id id;
    const char *path;
    const char *methods; /* "GET, HEAD" as in Allow */
    route_kind kind;
    service_verb verb;   /* of ROUTE_JOB */
    bool is_public;      /* no token needed */
    size_t body_max;     /* bytes, before and after decompression; 0 = no body */
    unsigned parameters; /* bits of the parameters it takes */
} route;

/* 200: *out is the route. 404. 405: *out is the route of the path, whose `methods` go into Allow.
 */
int route_find(slice method, slice path, const route **out);
/* The name for metrics and logs: the path, or "none". */
const char *route_name(route_id id);

/* Decodes the query into the q_ slices of *job, copies in job->memory. INVALID: *reason is constant
 * text. NOMEM. */
godwit_status route_query(const route *r, slice query, service_job *job,
                          const char **reason) MUST_USE;

#endif
