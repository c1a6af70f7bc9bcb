/* The built-in HTTP transport: what host.h's `exchange` is when the embedder gives none.
 *
 * One transport belongs to one handle and is used by one thread at a time; it keeps connections
 * open between exchanges. Only http and https, redirects never followed, bodies over
 * TRANSPORT_GZIP_BYTES sent compressed, compressed answers accepted up to the request's answer_max
 * after decompression. */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include "core/bytes.h"

#define TRANSPORT_GZIP_BYTES 1024 /* smaller bodies do not repay the header */

typedef struct transport transport;

/* UNSUPPORTED in a build without libcurl. *out: transferred, transport_destroy. */
godwit_status transport_create(const godwit_allocator *allocator, transport **out) MUST_USE;
void transport_destroy(transport *t); /* NULL is fine */
/* Certificates are checked against the authorities in that PEM file; empty: the system's. Where
 * memory is short exchanges fail. */
void transport_trust(transport *t, slice ca_file);
/* Performs one exchange, blocking; fits godwit_host.exchange with the transport as context. */
void transport_exchange(void *context, const godwit_http_request *request,
                        godwit_http_answer *answer);

/* Retry-After as milliseconds: seconds, or an HTTP date against now_ms (wall). -1 when malformed.
 */
int64_t transport_retry_after_ms(slice text, int64_t now_ms);
/* Appends `data` as a gzip stream. false: out of memory (then `out` has failed). */
bool transport_gzip(slice data, bytes *out);

#endif
