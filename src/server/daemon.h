/* The daemon as a whole: listening sockets, threads, signals. One per process. */
#ifndef SERVER_DAEMON_H
#define SERVER_DAEMON_H

#include "server/config.h"
#include "server/keyring.h"

typedef struct daemon_server daemon_server;

/* Opens the store, binds, and starts all threads. `settings` and `keys` are borrowed until
 * daemon_close. From here on SIGTERM, SIGINT and SIGUSR1 are blocked in the calling thread and
 * those it makes. On failure message says what to do and nothing is left running. */
godwit_status daemon_open(const config *settings, keyring *keys, daemon_server **out,
                          char message[512]) MUST_USE;
/* "http://127.0.0.1:8787", the port that was bound. */
const char *daemon_url(const daemon_server *d);
/* Serves until SIGTERM or SIGINT, then finishes what is under way and returns. A second signal ends
 * the process at once. */
void daemon_serve(daemon_server *d);
void daemon_close(daemon_server *d);

#endif
