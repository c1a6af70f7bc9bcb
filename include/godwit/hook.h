/* Rules of your own on the server: validation of operations, resolution of conflicts.
 *
 * A shared object exports one constant table named `godwit_hooks`:
 *
 *   const godwit_hook_table godwit_hooks = {GODWIT_HOOK_VERSION, validate, resolve};
 *
 * and the server's configuration names it:
 *
 *   [server]
 *   hooks = /usr/lib/godwit/notes.so
 *   [table pins]
 *   validate = yes               ; every create, update and delete is shown to validate()
 *   policy.note = custom:lines   ; conflicts of the column go to resolve() with the rule "lines"
 *
 * Where it runs. Never in the server: in two processes beside it, one question at a time each. A
 * crash or an endless loop ends that process, and the server starts another.
 *
 * Contract. A function is pure: what it answers depends on its arguments alone, not on time,
 * randomness, files, network or what it was asked before; it may be asked the same twice, in
 * different processes, and the answers must be equal. It answers within `hook_timeout` of the
 * configuration (1s by default). It keeps no pointer it was given. What it prints goes to the
 * server's stderr. It must not end the process or start others.
 *
 * When it fails (crashes, takes too long, answers what is not allowed here) it is asked once more
 * in a fresh process; when it fails again
 *   validate()  the operation is refused with the code `hook-failed`; its content stays on its
 *               device, where a retry sends it again
 *   resolve()   the conflict is left open for people, as under the policy `manual`
 * Ten failures in one push, and the rest of that push counts as failed without being asked. When no
 * process can be had at all, pushes that need one are answered 503 and come again.
 *
 * Trying one without a server: `godwit hook LIBRARY`. */
#ifndef GODWIT_HOOK_H
#define GODWIT_HOOK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The table's first member; a server takes its own version only. */
#define GODWIT_HOOK_VERSION 1

/* Bytes of `room` that resolve() gets; all values it answers together may not be longer. */
#define GODWIT_HOOK_ROOM (1u << 20)
/* Bytes of `reason`, with its NUL. */
#define GODWIT_HOOK_REASON 256

#if defined(__GNUC__) || defined(__clang__)
#define GODWIT_HOOK_EXPORT __attribute__((visibility("default")))
#else
#define GODWIT_HOOK_EXPORT
#endif

typedef enum {
    GODWIT_HOOK_NULL,
    GODWIT_HOOK_INTEGER,
    GODWIT_HOOK_REAL,
    GODWIT_HOOK_TEXT, /* UTF-8 */
    GODWIT_HOOK_BLOB,
    GODWIT_HOOK_JSON /* what a counter or set is told, as JSON text: {"$inc":1}; validate() only */
} godwit_hook_type;

typedef struct {
    godwit_hook_type type;
    int64_t integer;   /* INTEGER */
    double real;       /* REAL */
    const char *bytes; /* TEXT, BLOB, JSON; with a NUL behind that `len` does not count */
    size_t len;
} godwit_hook_value;

/* A column, by its present name in the server's table. */
typedef struct {
    const char *name;
    const godwit_hook_value *base;   /* what the author started from; NULL = not known */
    const godwit_hook_value *theirs; /* what the server has; NULL in validate() */
    const godwit_hook_value *ours;   /* what the operation writes */
} godwit_hook_column;

typedef enum { GODWIT_HOOK_CREATE = 1, GODWIT_HOOK_UPDATE, GODWIT_HOOK_DELETE } godwit_hook_kind;

/* An operation as its device sent it, brought to the server's schema (`upcast`, `former`). */
typedef struct {
    const char *scope, *table;
    const char *id;     /* entityId: the key as text */
    const char *user;   /* the token's */
    const char *device; /* "" = a caller without one */
    godwit_hook_kind kind;
    const godwit_hook_column *columns; /* what it writes, count of them; none in a delete */
    size_t count;
} godwit_hook_operation;

/* A conflict about one column, or about the columns of a group: both sides wrote, differently, and
 * neither had seen the other. */
typedef struct {
    const char *rule; /* NAME of custom:NAME, "" for custom */
    const char *scope, *table;
    const char *id;
    const godwit_hook_column *columns; /* count of them, each with theirs and ours */
    size_t count;
} godwit_hook_conflict;

/* 0: good. Anything else: refused. `reason`: room for a text for the author (UTF-8, NUL-terminated,
 * empty when called), which his device shows; it should not repeat what others wrote. */
typedef int (*godwit_hook_validate)(const godwit_hook_operation *operation, char *reason,
                                    size_t reason_bytes);

typedef enum {
    GODWIT_HOOK_DECIDED, /* `result` has the values */
    GODWIT_HOOK_MANUAL   /* a person has to decide; what the server has stays meanwhile */
} godwit_hook_answer;

/* result: [conflict->count], preset to theirs; what stands there afterwards becomes the columns'
 * values. Its bytes may be those of the conflict, constants, or written to `room`. */
typedef godwit_hook_answer (*godwit_hook_resolve)(const godwit_hook_conflict *conflict,
                                                  godwit_hook_value *result, char *room,
                                                  size_t room_bytes);

/* A function that is not needed may be NULL. */
typedef struct {
    int version; /* GODWIT_HOOK_VERSION */
    godwit_hook_validate validate;
    godwit_hook_resolve resolve;
} godwit_hook_table;

extern GODWIT_HOOK_EXPORT const godwit_hook_table godwit_hooks;

#ifdef __cplusplus
}
#endif

#endif
