/* Messages <-> bytes (semantics 13). Requests are parsed strictly (unknown fields refused), answers
 * leniently (unknown fields ignored). All slices point into the text or the arena.
 *
 *   POST /v1/devices           register_request  -> register_answer
 *   POST /v1/sync              push_request      -> push_answer + pull_answer
 *   POST /v1/sync/operations   push_request      -> push_answer
 *   GET  /v1/sync/changes      query             -> pull_answer
 *   GET  /v1/sync/snapshot     query             -> snapshot_answer
 *   POST /v1/streams/reconcile reconcile_request -> reconcile_answer
 *
 * Errors of a request are RFC 9457 problems. */
#ifndef CORE_WIRE_H
#define CORE_WIRE_H

#include "core/clock.h"
#include "core/id.h"
#include "core/schema.h"

/* ---- requests ---- */

typedef struct {
    slice id;
    op_kind kind; /* OP_NONE: unknown name, refused as that operation's outcome */
    slice entity_type, entity_id;
    /* with stream fields */
    int64_t seq;
    uint8_t key[SHA256_BYTES];
    int64_t group_first, group_size;
    int64_t base_seq, base_salt;
    slice payload, base; /* exact JSON texts that were hashed; "{}" when absent */
    int64_t wall_ms, nonce;
    const int64_t *depends_on; /* sequence numbers */
    slice lineage;
    int64_t lsn;
    bool rekeyed;
    op_code reason; /* of a void: poison, discarded or dependency-failed ("reason") */
    /* both */
    size_t depends_count;
    const json *payload_node, *base_node; /* parsed objects; NULL for void */
    slice resolves; /* ids of conflicts, one space between them, or empty; no part of the key */
    bool reverts;   /* ... and takes back what a policy decided there ("reverts") */
    int64_t schema; /* version of the application's schema it was written under; no part of the
                       key. Absent: 0 in a stream, else WIRE_SCHEMA_NOW */
    const char
        *untranslated; /* server/upcast.c: why it can't be brought to the present schema; NULL */
    /* without stream fields */
    slice key_text;           /* opaque, 1..255 bytes */
    const slice *depends_ids; /* ids within the request */
    int64_t base_commit;      /* baseSeq; -1 = absent: over the current row */
} wire_op;

#define WIRE_SCHEMA_NOW INT64_MAX

/* How a device is, for operators. Members of it that this version does not know are passed over. */
#define WIRE_REPORT_BYTES_MAX 1024
typedef struct {
    int64_t pending, failed, oldest_pending_ms; /* from 0 to 2^53 */
    slice last_error; /* code of what failed last: at most 64 of a-z, 0-9 and '-'; empty = nothing */
} wire_report;
/* false: a member is not what it should be. */
bool wire_report_read(const json *object, wire_report *out);
/* The text of it; anything else gives zeros. */
void wire_report_parse(arena *a, slice text, wire_report *out);
void wire_report_write(bytes *b, const wire_report *r);

typedef struct {
    slice device_id, scope; /* scope empty = the token's first */
    bool stream;            /* firstSeq present (or ops empty on /v1/sync) */
    int64_t first_seq;
    uint8_t prev_key[SHA256_BYTES];
    bool has_prev_key;
    int64_t acked_seq, confirmed_seq;
    int64_t wall_ms; /* device's time when it sent this; 0 = unknown */
    bool atomic, dry_run;
    wire_op *ops;
    size_t op_count;
    wire_report report; /* what the device tells operators of itself */
    bool has_report;
    /* /v1/sync only */
    bool pull;
    slice cursor;         /* empty = from the beginning */
    int64_t limit;        /* commits; 0 = default */
    slice tables;         /* comma separated, empty = all */
    const slice *earlier; /* identities the device had before and whose own commits it wants, too */
    size_t earlier_count;
} push_request;

typedef struct {
    int http;         /* 400, 413 */
    const char *type; /* "invalid-request", "key-mismatch", "too-large" */
    char detail[240]; /* names the field or the operation; never a value */
} wire_error;

/* Parses and checks everything that needs no database: shapes, bounds, payload objects, groups
 * complete and contiguous from firstSeq, every key recomputed (scope: the effective one: request's
 * or, when absent, default_scope). sync: the body is of /v1/sync. */
godwit_status wire_push_parse(arena *a, slice body, bool sync, slice default_scope,
                              push_request *out, wire_error *error) MUST_USE;

typedef struct {
    slice device_id, lineage, label;
    slice *scopes;
    size_t scope_count;
    const json *tables; /* the raw declaration or NULL: schema_from_json */
} register_request;
godwit_status wire_register_parse(arena *a, slice body, register_request *out,
                                  wire_error *error) MUST_USE;
void wire_register_write(bytes *b, const register_request *r, const schema *tables);

/* A client's push: the head; operations are appended one by one as they are read from the queue. */
typedef struct {
    slice device_id, scope, timestamp;
    bool placed; /* firstSeq and prevKey are written: needed with operations; without them
                    the server checks all the same that both mean one history */
    int64_t first_seq;
    const uint8_t *prev_key; /* NULL = "" */
    int64_t acked_seq, confirmed_seq, wall_ms;
    bool pull; /* /v1/sync */
    slice cursor;
    int64_t limit;
    slice tables;
    slice report;         /* JSON object or empty */
    const slice *earlier; /* identities before this one */
    size_t earlier_count;
} push_head;
/* Up to and including "operations":[ */
void wire_push_begin(bytes *b, const push_head *h);
/* device_id: the head's, which is the lineage of most operations */
void wire_push_op(bytes *b, bool *first, slice device_id, const wire_op *op);
void wire_push_end(bytes *b);

/* What a replica knows of its streams, newest first (semantics 4.5): a page of it. */
typedef struct {
    int64_t seq;
    uint8_t key[SHA256_BYTES];
} stream_key;
typedef struct {
    slice device_id;
    const stream_key *keys; /* seq falls */
    size_t key_count;
} reconcile_identity;
typedef struct {
    slice scope, cursor; /* cursor: where the replica's feed stands; empty = nowhere */
    reconcile_identity *identities;
    size_t identity_count;
} reconcile_request;
godwit_status wire_reconcile_parse(arena *a, slice body, reconcile_request *out,
                                   wire_error *error) MUST_USE;
void wire_reconcile_write(bytes *b, const reconcile_request *r);

/* ---- answers ---- */

typedef struct {
    slice id, status; /* success already_processed conflict error deferred */
    op_outcome outcome;
    int64_t commit_seq;
    int64_t seq; /* 0 = without a stream */
    uint8_t key[SHA256_BYTES];
    bool has_key;
    const json *result; /* the whole row as stored, or NULL */
    op_code code;       /* of error */
    bool retryable;
    slice detail, code_text;
    const json *conflicts; /* array or NULL */
    const json *vector_clock;
    const json *raw; /* the whole object: raw->u.s is its text */
} wire_result;

typedef struct {
    slice entity_type, entity_id;
    bool is_delete, full;
    const json *columns; /* object or NULL */
    slice vector_clock;  /* raw JSON or empty */
} wire_change;

typedef struct {
    int64_t seq, salt, at_ms;
    slice at, device_id, user_id;
    wire_change *changes;
    size_t change_count;
    bool own;
    int64_t own_first, own_last;
    op_outcome own_outcome;
    wire_result *own_results;
    size_t own_count;
} wire_commit;

typedef struct {
    wire_commit *commits;
    size_t commit_count;
    int64_t from; /* the position it follows; -1 = not said */
    slice cursor;
    int64_t head;
    bool more;
    slice names; /* see register_answer */
} pull_answer;

typedef struct {
    wire_result *results;
    size_t result_count;
    int64_t applied_seq, head;
    slice server_time;
    bool has_changes; /* /v1/sync */
    pull_answer changes;
    slice
        changes_problem; /* type of a problem that kept the pull half from being served, or empty */
} push_answer;

godwit_status wire_push_answer_parse(arena *a, slice body, push_answer *out) MUST_USE;
godwit_status wire_pull_answer_parse(arena *a, slice body, pull_answer *out) MUST_USE;

typedef struct {
    slice scope;
    int64_t head, applied_seq;
    uint8_t last_key[SHA256_BYTES];
    bool has_last_key;
} register_scope;
typedef struct {
    slice device_id;
    slice server_id; /* of the store behind the address; empty = not told */
    register_scope *scopes;
    size_t scope_count;
    const json *tables; /* as the server knows them, or NULL */
    slice names;        /* changes with the former names in them; empty = there are none */
} register_answer;
godwit_status wire_register_answer_parse(arena *a, slice body, register_answer *out) MUST_USE;

typedef struct {
    slice entity_type, entity_id;
    int64_t ver;
    const json *columns;
    slice vector_clock;
} snapshot_row;
typedef struct {
    snapshot_row *rows;
    size_t row_count;
    int64_t as_of, salt, head;
    slice token;  /* empty on the last page */
    slice cursor; /* cursor at as_of: where the log goes on */
    bool more;
    slice names; /* see register_answer */
} snapshot_answer;
godwit_status wire_snapshot_answer_parse(arena *a, slice body, snapshot_answer *out) MUST_USE;

typedef struct {
    slice device_id;
    bool active;           /* false: retired; go on under another id */
    int64_t applied_seq;   /* 0 = the server has no such stream of this user */
    int64_t matched_seq;   /* highest seq sent whose key the server has there; -1 = none of these */
    wire_result *outcomes; /* of every key sent that the server has at its place */
    size_t outcome_count;
} reconcile_match;
typedef struct {
    int64_t head;
    bool cursor_valid;           /* the cursor is of this history */
    reconcile_match *identities; /* in the order asked */
    size_t identity_count;
} reconcile_answer;
godwit_status wire_reconcile_answer_parse(arena *a, slice body, reconcile_answer *out) MUST_USE;

typedef struct {
    slice type; /* last path segment: "device-forked" */
    int64_t status;
    slice title, detail;
    int64_t applied_seq; /* -1 = absent */
    slice last_key;      /* hex text or empty */
    slice reason;
} problem;
/* Anything that is not a problem document gives type "" (a proxy's page). */
void wire_problem_parse(arena *a, slice body, problem *out);
/* members: raw JSON text appended inside the object, e.g. "\"appliedSeq\":4", or NULL. */
void wire_problem_write(bytes *b, int status, const char *type, const char *title,
                        const char *detail, const char *members);

/* RFC 3339 UTC with milliseconds, 24 characters and NUL; and back (also without fraction, offsets
 * accepted). */
void wire_time_write(int64_t ms, char out[32]);
bool wire_time_parse(slice text, int64_t *out_ms);

/* The next id of wire_op.resolves, taken off `rest`; ptr NULL: none is left. */
slice wire_resolves_next(slice *rest);

/* salt and nonce: 16 lower-case hex digits <-> int64 (two's complement). */
void wire_u64_write(int64_t v, char out[17]);
bool wire_u64_parse(slice text, int64_t *out);

/* Cursor and snapshot token: opaque to clients, base64url of a small record (scope, commit_seq,
 * salt, hash of the table list); parsing refuses anything damaged. */
typedef struct {
    int64_t seq, salt;
    slice scope;
    uint64_t tables_hash;
} wire_cursor;
void wire_cursor_write(bytes *b, const wire_cursor *c);
godwit_status wire_cursor_parse(arena *a, slice text, wire_cursor *out) MUST_USE;

#endif
