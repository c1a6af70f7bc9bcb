/* The daemon as a whole: listening sockets, threads, signals. One per process. */
#ifndef SERVER_DAEMON_H
#define SERVER_DAEMON_H

#include "server/config.h"
#include "server/keyring.h"

typedef struct daemon_server daemon_server;

/* Reads the certificate and binds: what may need privileges. `settings` is borrowed until
 * daemon_close. On failure message says what to do and nothing is left open. */
godwit_status daemon_open(const config *settings, daemon_server **out, char message[512]) MUST_USE;
/* Opens the store and starts all threads. `keys` is borrowed until daemon_close. From here on
 * SIGTERM, SIGINT, SIGHUP and SIGUSR1 are blocked in the calling thread and those it makes. On
 * failure message says what to do; daemon_close follows. */
godwit_status daemon_start(daemon_server *d, keyring *keys, char message[512]) MUST_USE;
/* "http://127.0.0.1:8787" or "https://..", the port that was bound. */
const char *daemon_url(const daemon_server *d);
/* Serves until SIGTERM or SIGINT, then finishes what is under way and returns. A second signal ends
 * the process at once. SIGHUP: the certificate is read again. */
void daemon_serve(daemon_server *d);
void daemon_close(daemon_server *d);

#endif
