/* What the files of the wire module share: strict reading of requests, lenient reading of answers.
 * Nobody else includes this. */
#ifndef CORE_WIRE_INTERNAL_H
#define CORE_WIRE_INTERNAL_H

#include "core/wire.h"

#define WIRE_NUMBER_MAX ((int64_t)1 << 53) /* what every JSON reader keeps exact */

/* ---- Requests: the first fault ends the parse and is explained in *error ---- */

typedef struct {
    arena *a;
    wire_error *error;
    godwit_status status;
    long op; /* index of the operation being read, -1 = the request itself */
} wire_context;

/* Each returns false after a refusal, so that calls chain with &&. `refuse` always returns false.
 */
bool wire_refuse(wire_context *c, int http, const char *type, const char *format, ...)
    PRINTF_LIKE(4, 5);
bool wire_invalid(wire_context *c, const char *format, ...) PRINTF_LIKE(2, 3);
bool wire_nomem(wire_context *c);
/* Parses a request body of at most max_bytes into an object. */
bool wire_body(wire_context *c, slice body, size_t max_bytes, const json **out);
/* Sorts an object's members into out[i] by names[i] (count of them; `where` is a prefix for
 * messages, may be ""). null counts as absent. Unknown members are refused by name. */
bool wire_members(wire_context *c, const json *object, const char *where, const char *const *names,
                  size_t count, const json **out);
/* Absent (node NULL) leaves *out as it is, unless `required`. */
bool wire_read_text(wire_context *c, const json *node, const char *name, bool required,
                    size_t bytes_max, slice *out);
bool wire_read_int(wire_context *c, const json *node, const char *name, bool required, int64_t min,
                   int64_t max, int64_t *out);
bool wire_read_bool(wire_context *c, const json *node, const char *name, bool *out);
bool wire_read_device(wire_context *c, const json *node, const char *name, slice *out);
bool wire_read_name(wire_context *c, const json *node, const char *name, bool required, slice *out);

/* One operation, in wire_op_read.c. `stream`: with stream fields. */
bool wire_op_read(wire_context *c, const json *node, const push_request *request,
                  slice effective_scope, wire_op *op);

/* ---- Answers: a sticky fault, looked at once at the end ---- */

typedef struct {
    arena *a;
    bool broken; /* a member is missing or has another type */
    bool nomem;
} wire_answer;

godwit_status wire_answer_begin(wire_answer *r, arena *a, slice body, const json **root);
godwit_status wire_answer_status(const wire_answer *r);
/* Required unless the name says otherwise; null counts as absent. */
const json *wire_answer_member(const json *object, const char *name);
slice wire_answer_text(wire_answer *r, const json *object, const char *name);
slice wire_answer_opt_text(wire_answer *r, const json *object, const char *name);
int64_t wire_answer_int(wire_answer *r, const json *object, const char *name);
int64_t wire_answer_opt_int(wire_answer *r, const json *object, const char *name, int64_t absent);
bool wire_answer_opt_bool(wire_answer *r, const json *object, const char *name);
/* 16 hex digits */
int64_t wire_answer_salt(wire_answer *r, const json *object, const char *name);
/* 64 hex digits; absent or "" gives false */
bool wire_answer_opt_key(wire_answer *r, const json *object, const char *name,
                         uint8_t out[SHA256_BYTES]);
/* A member that must be of type t when present; NULL when absent. */
const json *wire_answer_opt(wire_answer *r, const json *object, const char *name, json_type t);
/* A list of results, in a push's answer, an `own` block or an answer to a reconciliation. */
wire_result *wire_answer_results(wire_answer *r, const json *list, size_t *count);
/* A list's zeroed array of `size`-byte items; NULL with *count 0 when absent or empty. */
void *wire_answer_list(wire_answer *r, const json *list, size_t size, size_t *count);

#endif
