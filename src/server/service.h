/* The server's verbs without sockets: jobs in, answers out. The network side (http, route) owns the
 * threads and calls these; nothing here blocks on a client.
 *
 *   loop thread: parse HTTP, authenticate -> job
 *   pool thread: service_prepare   parse and check the body (CPU only)
 *   hook thread: service_ask       only where hooks are configured: what they say about the operations
 *   writer thread: service_write   all waiting jobs that write, combined into one transaction per scope
 *   (a conflict of which a hook has to be asked first leaves the writer, and comes back with the answer)
 *   pool thread: service_read      pull, snapshot, lists; each pool thread has its own reader
 *   loop thread: send the answer, or park it (long poll) until the scope moves
 *
 * One service per process; thread roles as above. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include "core/retain.h"
#include "core/wire.h"
#include "server/hooks.h"

typedef struct {
    slice user;             /* sub */
    slice scopes[64];       /* read and write */
    size_t scope_count;
    slice read_scopes[64];  /* read only */
    size_t read_scope_count;
    slice device;           /* the token is good for this device alone; empty = for any of the user's */
    slice role;             /* database role whose rights decide about rows; empty = the scope decides */
    slice claims;           /* all of the token's claims, as JSON; may be empty */
    int64_t expires_s;      /* unix seconds; 0 = never */
} principal;
bool principal_may_write(const principal *p, slice scope);
bool principal_may_read(const principal *p, slice scope);

typedef enum {
    VERB_REGISTER,   /* POST /v1/devices */
    VERB_SYNC,       /* POST /v1/sync */
    VERB_PUSH,       /* POST /v1/sync/operations */
    VERB_CHANGES,    /* GET /v1/sync/changes */
    VERB_SNAPSHOT,   /* GET /v1/sync/snapshot */
    VERB_RECONCILE,  /* POST /v1/streams/reconcile */
    VERB_CONFLICTS,  /* GET /v1/conflicts */
    VERB_HISTORY,    /* GET /v1/audit?scope=&entityType=&entityId= or &device=&sequenceNumber= */
    VERB_META        /* GET /v1/meta: filled by service_prepare */
} service_verb;

typedef struct service_job {
    /* in: set by the network side; slices live in `memory` or in the network side's buffers until the
     * job is freed */
    service_verb verb;
    principal who;
    slice body;
    slice idempotency_key_header;
    slice q_scope, q_cursor, q_device, q_tables, q_limit, q_wait, q_token, q_entity_type, q_entity_id,
        q_state, q_sequence, q_if_none_match;
    arena memory;

    /* between the stages: the service's own */
    void *state;

    /* out */
    bool wants_write, wants_read;  /* after service_prepare: which stages follow */
    slice device;                  /* after service_prepare: whose request it says it is; may be empty */
    bool wants_hook;               /* service_ask goes before service_write */
    int status;                    /* HTTP status; 0 = not answered yet */
    const char *content_type;      /* "application/json" or "application/problem+json" */
    bytes answer;
    int64_t retry_after_s;         /* -1 = no header */
    char etag[32];                 /* "" = no header */
    bool pushes;                   /* it came with operations */
    bool park;                     /* service_read found nothing new: call it again when park_scope has
                                      passed park_head, or at park_until_ms (then it answers) */
    slice park_scope;
    int64_t park_head;
    int64_t wait_ms;               /* how long it may be parked in total */
    godwit_status failure;         /* why the server itself failed, for its log; GODWIT_OK = it did not */
    bool wait_over;                /* set by the network side before the last service_read */

    struct service_job *next;      /* queue link, the network side's */
} service_job;

typedef struct service service;
typedef struct service_reader service_reader;
typedef struct service_asker service_asker;

typedef struct {
    const char *store;           /* a folder (store.db inside; created 0700), or postgres://.. */
    const char *schema_file;     /* NULL = none */
    const char *config_tables;   /* path of a configuration file whose [table NAME] sections apply; NULL */
    bool dev;                    /* adopt what devices declare */
    const hook_options *hooks;   /* borrowed; NULL = none */
    const slice *roles;          /* that principals may have; none: they have none */
    size_t role_count;
    const char *scopes_sql;      /* NULL = scopes are the token's; see grants.h */
    int64_t scopes_ttl_ms;       /* how long its answers are remembered, 0 = not at all */
    const slice *read_only;      /* scopes that nobody writes to through this service */
    size_t read_only_count;
    const retain_policy *retain; /* how long what is kept; NULL = retain_default */
    int64_t (*now_ms)(void *context); /* NULL = the system's clock */
    void *context;
} service_options;

/* Opens the store, loads or makes the registry. message: at least 512 bytes, receives the reason. */
godwit_status service_open(const service_options *options, service **out, char *message) MUST_USE;
void service_close(service *s);
void service_job_init(service_job *job, service_verb verb);
void service_job_deinit(service_job *job); /* frees memory, answer */

/* Whether scopes come from a query: then those of a principal count for nothing until service_grants
 * has been called for the job, before service_prepare, on a pool thread. */
bool service_asks_scopes(const service *s);
void service_grants(service *s, service_reader *r, service_job *job);
void service_prepare(service *s, service_job *job);
/* jobs[0..count): all with wants_write. Each gets its answer, or keeps wants_read for the next stage, or
 * has wants_hook: nothing of it was written, it goes through service_ask and comes again. A
 * scope whose head moved is reported through on_commit after the database commit (may be NULL). */
typedef void (*service_commit_fn)(void *context, slice scope, int64_t head);
void service_write(service *s, service_job **jobs, size_t count, service_commit_fn on_commit, void *context);
/* Whether there may be jobs with wants_hook. */
bool service_has_hooks(const service *s);
/* One per thread that calls service_ask. It owns a process of hooks, made when it is needed. */
godwit_status service_asker_open(service *s, service_asker **out) MUST_USE;
void service_asker_close(service_asker *k);
/* Asks until all is answered (wants_hook is false then), the job has had its turn, or a hook has failed:
 * with wants_hook it comes again, after others. May answer the job instead (503). Blocks. */
void service_ask(service *s, service_asker *k, service_job *job);
godwit_status service_reader_open(service *s, service_reader **out) MUST_USE;
void service_reader_close(service_reader *r);
void service_read(service *s, service_reader *r, service_job *job);
/* Takes over what others have written to the tables, on the writer's thread, in one short transaction.
 * true: there is more. Costs a look at an empty table where the store is one that others write to;
 * service_has_outbox says so. on_commit as in service_write. */
bool service_external(service *s, service_commit_fn on_commit, void *context);
bool service_has_outbox(const service *s);
/* Word of other servers over the same store, see store.h. UNSUPPORTED: there can be none. */
struct store_signal;
godwit_status service_signal_open(service *s, struct store_signal **out) MUST_USE;
/* Looks after readiness and the devices' queues, on the writer's thread, every few seconds; short. */
void service_watch(service *s);
/* Counters in Prometheus' text format. Any thread. */
void service_metrics(const service *s, bytes *b);
/* Whether it can write now: GODWIT_OK, or what keeps it from it (FULL, IO, ..), as of the last write, or of
 * the janitor's look at the disk. Any thread; costs nothing. */
godwit_status service_ready(const service *s);
/* For SSE: head of a scope now. -1: the job is answered, its device may not ask. */
int64_t service_head(service *s, service_reader *r, service_job *job, slice scope);
/* Housekeeping on the writer thread: retention, in short transactions, for about budget_ms. true: there
 * is more to do; false: it has been through all scopes. */
bool service_janitor(service *s, int64_t budget_ms);
/* A problem document as the job's answer. members as in wire_problem_write. */
void service_problem(service_job *job, int status, const char *type, const char *detail, const char *members);

#endif
