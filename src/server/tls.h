/* TLS 1.2 and 1.3 on the daemon's connections, by OpenSSL over the loop's own non-blocking sockets.
 *
 * A certificate and its key are read at the start and again when asked; a pair that can't be used
 * leaves the one before in place. Connections that exist keep theirs. Renegotiation, compression
 * and ciphers without forward secrecy are off. Only HTTP/1.1 is agreed upon.
 *
 * Leaves to others: deadlines, how many connections there may be, what is done with the bytes.
 * Threads: tls_context any; a tls_link belongs to its connection's loop. */
#ifndef SERVER_TLS_H
#define SERVER_TLS_H

#include <sys/types.h>

#include "core/bytes.h"

typedef struct tls_context tls_context;
typedef struct tls_link tls_link;

/* The paths are borrowed until tls_close. INVALID, IO: message says what is wrong with them. */
godwit_status tls_open(const char *certificate, const char *key, tls_context **out,
                       char message[512]) MUST_USE;
/* Reads both files again. On failure what was there stays. */
godwit_status tls_reload(tls_context *t, char message[512]) MUST_USE;
void tls_close(tls_context *t);              /* NULL is fine */
int64_t tls_expires_s(const tls_context *t); /* end of the certificate's time, unix seconds */

/* A new connection's end of the handshake; NULL: out of memory. fd stays the caller's. */
tls_link *tls_link_new(tls_context *t, int fd);
/* Says goodbye if it can without waiting, and frees. NULL is fine. */
void tls_link_free(tls_link *l);
/* Tells the peer that nothing more will be sent. */
void tls_link_end(tls_link *l);
/* As recv and send on a non-blocking socket: bytes moved, 0 at the end, -1 with errno (EAGAIN: when
 * the socket allows; EPROTO: the peer broke the protocol). Reading does the handshake. */
ssize_t tls_link_read(tls_link *l, void *buffer, size_t len);
ssize_t tls_link_write(tls_link *l, const void *data, size_t len);
/* The last read waits until the socket can be written to. */
bool tls_link_wants_write(const tls_link *l);
bool tls_link_is_open(const tls_link *l); /* the handshake is through */

#endif
