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
/* The host of a client that talks to it. */
godwit_host loopback_host(loopback *l);
/* First column of the first row of the server's store as an integer. */
int64_t loopback_int(loopback *l, const char *sql);

#endif
