/* What the files behind service.h share.
 *
 *   service.c       life, jobs, problems, dispatch
 *   prepare.c       parsing and what can be refused without the database
 *   admit.c         may the device that asks?
 *   push.c          combining: load, decide, save, for all waiting pushes
 *   push_load.c, push_ledger.c
 *   push_answer.c   results of a push
 *   register.c      devices, schema check, adoption
 *   pull.c          the feed
 *   pages.c         pages of it that others come for as well
 *   snapshot.c      bootstrap pages
 *   reconcile.c     which operations of a replica are known
 *   lists.c         conflicts
 *   audit.c         history of a row, fate of an operation
 *   ask.c           what hooks say about operations and conflicts
 *   upcast.c        operations of older schemas
 *   fleet.c         readiness, devices' queues
 *   seen.c          devices that only read
 *   external.c      writes from elsewhere
 *   janitor.c       retention */
#ifndef SERVER_SERVICE_INNER_H
#define SERVER_SERVICE_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/limits.h"
#include "server/pages.h"
#include "server/registry.h"
#include "server/service.h"
#include "server/stats.h"

typedef struct upcaster upcaster;

#define SEEN_MAX 256
typedef struct {
    pthread_mutex_t lock;
    struct seen_device *devices; /* [SEEN_MAX] */
    size_t count;
} seen_list;

struct service {
    store *store;
    registry_config *config;
    bool dev;
    bool has_outbox; /* the store notes what others write */
    _Atomic(registry *) current; /* replaced by the writer thread, read by all */
    int64_t (*now_ms)(void *context);
    void *context;
    arena batch; /* of one transaction */
    upcaster *upcaster; /* the writer's; NULL until an operation needs it */
    const hook_options *hooks; /* NULL = none */
    struct grants *grants;     /* scopes by a query; NULL = by the token */
    const slice *read_only;    /* the options' */
    size_t read_only_count;
    bool hooks_validate;
    stats stats;
    _Atomic int unready; /* the godwit_status that keeps it from writing; GODWIT_OK = it can */
    stats_fleet fleet;   /* of the walk that is under way, which has come to this device: */
    char walked_scope[NAME_BYTES_MAX], walked_device[DEVICE_ID_BYTES_MAX];
    size_t walked_scope_len, walked_device_len;
    retain_policy retain;
    seen_list seen;
    page_list pages;
    char tended[NAME_BYTES_MAX]; /* the janitor has been here: the name of a scope */
    size_t tended_len;
    char store_id[33];
};

struct service_reader {
    store_reader *store;
    const registry *reg; /* the one a read began with: it may be replaced meanwhile */
    arena scratch;       /* of one job */
};

/* What a job wants of the feed. */
typedef struct {
    slice scope, cursor, device, tables;
    const slice *earlier; /* identities the device had before */
    size_t earlier_count;
    int64_t limit;
    bool wait;
} pull_query;

/* What a hook has said about one operation. */
typedef enum { RULED_NOT, RULED_WAITING, RULED_GOOD, RULED_REFUSED, RULED_FAILED } ruling_state;
typedef struct {
    ruling_state state;
    slice reason;
} ruling;

/* What a push wants of hooks. */
typedef struct {
    ruling *rulings; /* [op_count]; NULL = no operation is validated */
    size_t next;     /* operations before it are ruled */
    ask_list asks;   /* conflicts */
    int rounds;      /* how often it was decided */
    int tries;       /* failures of the question that is next */
    int failures;    /* of all */
} job_hooks;

/* service_job.state */
typedef struct {
    slice scope; /* the effective one */
    push_request push;
    pull_query pull;
    register_request reg;
    reconcile_request reconcile;
    job_hooks hooks;
    schema declared;  /* of a registration; table_count 0 = none */
    int64_t sequence; /* of an audit of one operation */
} job_state;

int64_t service_now(const service *s);
static inline const registry *service_registry(const service *s) {
    return atomic_load_explicit(&s->current, memory_order_acquire);
}
/* Builds a registry of the store as it is and makes it the current one. */
godwit_status service_reload(service *s, char *message) MUST_USE;

/* Answers by status: 503 for what passes, 500 for what does not. */
void service_fail(service_job *job, godwit_status status);
/* Finishes an answer made of job->answer: 200, or 503 when memory ran out on the way. */
void service_done(service_job *job);

/* upcast.c, writer thread: brings the operations of a push that were written under an older schema to
 * the present one, once; *maker is made when it is needed. What can't be translated says so. */
godwit_status upcast_push(upcaster **maker, const schema *present, arena *a,
                          push_request *request) MUST_USE;
/* ask.c, pool thread: which operations of a push hooks have to see. */
void ask_prepare(service *s, service_job *job);
/* What they found wrong with one of the operations at..at+count. */
bool ask_refuses(const job_state *state, size_t at, size_t count, decide_refusal *out);
void upcaster_free(upcaster *maker);
int64_t service_mono_us(void);

/* admit.c */
/* false: the token is for another device than the one the request names; answered. */
bool admit_named(service_job *job, slice device);
/* Inside a read: the device that asks, if it says so, is this user's and in use. false: answered. */
bool admit_reader(service_reader *r, service_job *job, slice scope);
/* true: answered; the device may not go on. */
bool admit_refuse(service_job *job, stream_verdict verdict);

/* seen.c */
bool seen_open(seen_list *list);
void seen_close(seen_list *list);
/* Reader threads: a device of the caller has pulled. What it has said, -1 and NULL = nothing. */
typedef struct {
    int64_t pulled_seq, confirmed_seq;
    const wire_report *report; /* borrowed */
} seen_news;
void seen_note(service *s, slice scope, const decide_device *device, const seen_news *news);
/* Writer thread. A failure is made up for by the devices' next pulls. */
void seen_save(service *s);

/* writer thread */
void push_run(service *s, service_job **jobs, size_t count, service_commit_fn on_commit,
              void *context);
void register_run(service *s, service_job *job);

/* One operation of a push, decided one way or another. */
typedef enum {
    OP_ANSWER_NONE,
    OP_ANSWER_DECIDED,  /* now */
    OP_ANSWER_RESENT,   /* its place in the stream was decided before */
    OP_ANSWER_REPLAYED, /* its key was seen before */
    OP_ANSWER_MISMATCH  /* its key was seen with other content */
} op_answer_kind;
typedef struct {
    op_answer_kind kind;
    const decide_result *result;
    const decide_commit *commit;
    const decide_ledger *ledger;
    slice stored; /* REPLAYED: members of the result behind "status" */
} op_answer;

/* push_answer.c */
void push_answer_write(service_job *job, const op_answer *answers, int64_t applied_seq,
                       int64_t head, int64_t now_ms, bool open_end);
/* The members of a result behind "status", as kept for a replay. */
void push_answer_members(bytes *b, const wire_op *op, const decide_result *result,
                         const decide_commit *commit);
const char *push_answer_status(op_outcome outcome);
void push_answer_error(bytes *b, op_code code, slice detail);
/* "appliedSeq":4,"lastKey":".." for a problem about a stream; in the job's memory. */
const char *push_stream_members(service_job *job, const decide_device *device);
/* Answers a stream that may not go on. false for STREAM_OK. */
bool push_refuse_stream(service_job *job, stream_verdict verdict, const decide_device *device);

/* ,"names":"..": see registry.names; nothing where there are none. */
static inline void names_write(bytes *b, const registry *reg) {
    if (reg->names[0]) {
        bytes_text(b, ",\"names\":\"");
        bytes_text(b, reg->names);
        bytes_char(b, '"');
    }
}

/* reader threads; the caller has begun the read */
void pull_run(service *s, service_reader *r, service_job *job); /* changes and sync */
void snapshot_run(service_reader *r, service_job *job);
void reconcile_run(service_reader *r, service_job *job);
/* One operation's outcome out of the ledger, as a result without its row; pull.c. */
void pull_write_result(bytes *b, const store_ledger_row *row);
void conflicts_run(service_reader *r, service_job *job);
void history_run(service_reader *r, service_job *job);
/* lists.c: members with their commas and names, e.g. name = ",\"kind\":"; no text = null. */
void list_text(bytes *b, const char *name, slice text);
void list_json(bytes *b, const char *name, slice json_text_or_empty);
void list_time(bytes *b, const char *name, int64_t ms);
void list_conflict(bytes *b, const registry *reg, const store_conflict_row *row);
/* The commit number in ?cursor=, 0 = none. false: answered with a problem. */
bool list_before(service_job *job, int64_t *out);
/* {"$":0,"device":seq} or {"$":floor} where the store keeps no text. */
void clock_write_plain(bytes *b, slice device, int64_t seq, int64_t floor);

/* Which tables a request is about: names separated by commas, NULL sets for all. */
typedef struct {
    bool *wanted;   /* by schema_table.number; NULL = all */
    bool conflicts; /* "_conflicts" is among them */
    uint64_t hash;  /* of the sorted names, 0 = all */
} table_filter;
/* INVALID: a name that is not a table; *unknown says which. */
godwit_status table_filter_parse(arena *a, const registry *reg, slice names, table_filter *out,
                                 slice *unknown) MUST_USE;

#endif
