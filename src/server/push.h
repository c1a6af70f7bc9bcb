/* What the files of a push share. For push*.c only.
 *
 *   push.c         combining, savepoints, the answer's occasion
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
    slice *ids; /* sorted ids of a request without a stream, when dependsOn is used */
    size_t *id_ops;
} push;

/* push_load.c */

/* Device and what was decided before. *refused: the push is answered. */
godwit_status push_load_stream(push *p, bool *refused) MUST_USE;
/* The same without a stream: a device that is registered must be the user's and in use. */
godwit_status push_load_plain(push *p, bool *refused) MUST_USE;
/* Salts of the bases the operations name. */
godwit_status push_load_salts(push *p) MUST_USE;
/* Working rows of operations from..to; only those new to the context, or all of them (reload). */
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
