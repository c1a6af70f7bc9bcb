/* gzip of request and answer bodies, both bounded. Pure. */
#ifndef SERVER_GZIP_H
#define SERVER_GZIP_H

#include "core/bytes.h"

/* Decompresses one gzip member that fills `text` into *out (empty, initialized). LIMIT: more than
 * bytes_max. INVALID: damaged, truncated, or followed by other bytes. NOMEM. On failure *out is
 * empty. */
godwit_status gzip_inflate(slice text, size_t bytes_max, bytes *out) MUST_USE;
/* Compresses into *out (empty, initialized). NOMEM; *out is then empty. */
godwit_status gzip_deflate(slice text, bytes *out) MUST_USE;

#endif
