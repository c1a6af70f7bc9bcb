/* What the files of a push share. For push*.c only.
 *
 *   push.c         one transaction, savepoints, what one push goes through
 *   push_together.c  pushes that are loaded, decided and written as one
 *   push_done.c    what a push leaves: its device, its answer, counters
 *   push_load.c    what decide needs: device, ledger, salts, rows
 *   push_writers.c who met whom in a conflict
 *   push_ledger.c  what was decided before: dependencies, keys of callers without a stream
 *   push_answer.c  the answer's text (service_inner.h) */
#ifndef SERVER_PUSH_H
#define SERVER_PUSH_H

#include "server/service_inner.h"

typedef struct {
    service *s;
    store *st;
    arena *a;
    const registry *reg;
    decide_context c;
    store_scope scope;
    int64_t now_ms;
} scope_run;

/* One push inside its scope. */
typedef struct {
    scope_run *scope;
    service_job *job;
    const push_request *request;
    decide_device device;
    decide_device *stream; /* &device, or NULL */
    store_author author;
    size_t first_new; /* operations before it were decided earlier */
    op_answer *answers;
    const decide_ledger *by_key; /* NULL = none known */
    const store_idem *keys; /* [op_count] of a request without a stream, as they were before it */
    bool keys_repeat;       /* within the request */
    slice *ids;             /* sorted ids of a request without a stream, when dependsOn is used */
    size_t *id_ops;
} push;

/* push.c */

/* Room for a push, and its operations as today's schema has them. */
godwit_status push_start(push *p, scope_run *run, service_job *job) MUST_USE;
/* Decides and keeps all groups; nothing is written yet. CONSTRAINT: *refusal, nothing is undone. */
godwit_status push_decide(push *p, decide_refusal *refusal) MUST_USE;
/* Decides and writes all groups: together if that goes well, else one by one. */
godwit_status push_groups(push *p) MUST_USE;

/* push_together.c */

/* May this one be decided among others? */
bool push_joins(const scope_run *run, const service_job *job);
/* All of them, of one scope and each of a device and a lineage of its own; at least one. */
godwit_status push_together(scope_run *run, service_job *const *jobs, size_t count) MUST_USE;

/* push_done.c */

godwit_status push_save_streams(push *list, size_t pushes) MUST_USE;
void push_reply(push *p);
/* What was decided now, for the counters; they count when the transaction is committed. */
void push_tally(const push *p);

/* push_load.c */

/* Device and what was decided before. *refused: the push is answered. check: with the device that
 * was loaded (without an id: it is not registered), and without what is known by key. */
godwit_status push_check_stream(push *p, bool *refused) MUST_USE;
godwit_status push_load_stream(push *p, bool *refused) MUST_USE;
/* The same without a stream: a device that is registered must be the user's and in use. */
godwit_status push_load_plain(push *p, bool *refused) MUST_USE;
/* Of the new operations of pushes of one scope: what is known of them by key, the salts of the
 * bases they name, their working rows (only those new to the context, or all of them: reload). */
godwit_status push_load_origins(push *list, size_t pushes) MUST_USE;
godwit_status push_load_salts(const push *list, size_t pushes) MUST_USE;
godwit_status push_load_rows_of(const push *list, size_t pushes, bool reload) MUST_USE;
/* Working rows of operations from..to of one. */
godwit_status push_load_rows(push *p, size_t from, size_t to, bool reload) MUST_USE;

/* Loads the parents that operations at..at+count refer to, and what was deleted with them. *fallen:
 * one of them is a tombstone. */
godwit_status push_load_parents(push *p, size_t at, size_t count, bool *fallen) MUST_USE;

/* push_writers.c: tells each record of a decided group who the two sides were. */
godwit_status push_writers(const push *p, decide_commit *commit) MUST_USE;

/* push_ledger.c */

/* Makes ids of a request without a stream known to push_dependencies. */
godwit_status push_index_ids(push *p) MUST_USE;
/* Was something that the group's operations depend on decided without effect? */
godwit_status push_dependencies(const push *p, size_t at, size_t count, bool *failed) MUST_USE;
/* Is every conflict the operations resolve one about their row? Else *unknown and *refusal. */
godwit_status push_resolves(const push *p, size_t at, size_t count, decide_refusal *refusal,
                            bool *unknown) MUST_USE;
/* What is known by the keys of a request without a stream. EXISTS: one key twice in a group. */
godwit_status push_load_keys(push *p) MUST_USE;
/* Keys of a group without a stream. *answered: the group is not decided now. */
godwit_status push_find_keys(push *p, size_t at, size_t count, bool *answered) MUST_USE;
/* Keeps the answers to those of at..at+count that were decided now. */
godwit_status push_keep_keys(push *p, size_t at, size_t count) MUST_USE;
/* An Idempotency-Key header covers the whole request. *answered: it has been seen; else *key (empty
 * without such a header) and print are what to keep. */
godwit_status push_header_key(push *p, uint8_t print[SHA256_BYTES], slice *key,
                              bool *answered) MUST_USE;

#endif
