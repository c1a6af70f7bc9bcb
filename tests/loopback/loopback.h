/* A server in the same process: the client library's `exchange` callback answered by the server's
 * verbs, without sockets. For tests that want both sides under one sanitizer and one debugger.
 *
 * One loopback may serve many clients on many threads: writes take turns, as on the daemon's writer
 * thread; each exchange has its own reader. Time is the test's own and goes on by itself. */
#ifndef TESTS_LOOPBACK_H
#define TESTS_LOOPBACK_H

#include <pthread.h>

#include "godwit/godwit.h"
#include "server/service.h"

typedef struct loopback {
    service *service;
    char folder[256];
    pthread_mutex_t writer;
    pthread_mutex_t clock;
    int64_t now_ms;
    /* called after the server has decided; true = the client sees a broken connection instead */
    bool (*lose_answer)(struct loopback *l, const char *path);
    int exchanges, lost;
} loopback;

/* Opens a service over `schema` (text of CREATE TABLEs) in a fresh folder. */
void loopback_open(loopback *l, const char *schema);
void loopback_close(loopback *l);
/* Closes and opens the service over the same store. */
void loopback_restart(loopback *l);
/* Copies the store as it is now to `path`; puts such a copy back in its place, as an operator restores
 * a backup: nobody is told. */
void loopback_save(loopback *l, const char *path);
void loopback_put_back(loopback *l, const char *path);
/* A token of this user for the scope "s"; buffer: 200 bytes. Any other text is a token of "ana". */
const char *loopback_token(const char *user, char buffer[200]);
/* Copies a file, replacing the target; aborts on failure. */
void loopback_copy(const char *from, const char *to);
/* The host of a client that talks to it. */
godwit_host loopback_host(loopback *l);
/* First column of the first row of the server's store as an integer. */
int64_t loopback_int(loopback *l, const char *sql);

#endif
