/* Processes that run the hooks of godwit/hook.h, one question at a time each.
 *
 *   server thread --question, one line--> godwit hook LIBRARY --calls--> the shared object
 *                 <-answer, one line----
 *
 * The server never loads the library: what it does wrong (crash, endless loop, memory overwritten)
 * ends its process and nothing else, and it does not see the server's keys. A process that does not
 * answer in time, ends, or answers what is no answer is killed; the next question starts another.
 */
#ifndef SERVER_HOOKS_H
#define SERVER_HOOKS_H

#include "core/bytes.h"

typedef struct {
    const char *program; /* this executable, with the verb `hook` */
    const char *library; /* absolute path */
    int64_t timeout_ms;  /* of one question */
} hook_options;

typedef struct hook_worker hook_worker;

/* Starts a process and has it load the library. options: borrowed. message: receives what is wrong
 * with the library, or why there is no process. A worker belongs to one thread at a time. INVALID,
 * IO, NOMEM. */
godwit_status hook_worker_open(const hook_options *options, hook_worker **out,
                               char message[512]) MUST_USE;
void hook_worker_close(hook_worker *w);
/* What the library has. */
bool hook_worker_validates(const hook_worker *w);
bool hook_worker_resolves(const hook_worker *w);

typedef enum {
    HOOK_ANSWERED,
    HOOK_FAILED,     /* the hook's fault: crash, time, an answer that is none */
    HOOK_UNAVAILABLE /* no process can be had; it may pass */
} hook_result;
/* question: one line of JSON, core/ask.h. *answer: a JSON object without "error". */
hook_result hook_worker_ask(hook_worker *w, slice question, bytes *answer) MUST_USE;

/* The other side: loads the library and answers the lines of stdin on stdout until it ends. First a
 * line about the library: {"godwitHooks":1,"validate":true,"resolve":true}, or {"error":".."}.
 * Answers:
 *
 *   {"answer":"good"}    {"answer":"refused","reason":".."}
 *   {"answer":"decided","values":[..]}    {"answer":"manual"}    {"error":".."}
 *
 * timeout_ms 0: a hook may take as long as it wants. false: the library can't be used, see message.
 */
bool hook_serve(const char *library, int64_t timeout_ms, char message[512]);

#endif
