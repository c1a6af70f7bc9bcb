/* zlib in gzip framing, output in steps so that a bomb costs at most its limit. */
#include "server/gzip.h"

#define ZLIB_CONST
#include <limits.h>
#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* largest window, gzip framing only */
#define STEP_BYTES  (64u << 10)

static void give_up(bytes *out) {
    bytes_deinit(out);
    bytes_init(out, NULL, 0);
}

static godwit_status inflate_all(z_stream *z, size_t bytes_max, bytes *out) {
    for (;;) {
        size_t left = bytes_max - out->len;
        size_t step = left < STEP_BYTES ? left + 1 : STEP_BYTES; /* one more tells "over" */
        if (!bytes_reserve(out, step)) {
            return GODWIT_NOMEM;
        }
        z->next_out = (Bytef *)out->ptr + out->len;
        z->avail_out = (uInt)step;
        int code = inflate(z, Z_NO_FLUSH);
        out->len += step - z->avail_out;
        if (out->len > bytes_max) {
            return GODWIT_LIMIT;
        }
        if (code == Z_STREAM_END) {
            return z->avail_in == 0 ? GODWIT_OK : GODWIT_INVALID;
        }
        if (code == Z_MEM_ERROR) {
            return GODWIT_NOMEM;
        }
        if (code != Z_OK || (z->avail_in == 0 && z->avail_out > 0)) {
            return GODWIT_INVALID;
        }
    }
}

godwit_status gzip_inflate(slice text, size_t bytes_max, bytes *out) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (text.len > UINT_MAX || inflateInit2(&z, GZIP_WINDOW) != Z_OK) {
        return GODWIT_NOMEM;
    }
    z.next_in = (const Bytef *)text.ptr;
    z.avail_in = (uInt)text.len;
    godwit_status status = inflate_all(&z, bytes_max, out);
    inflateEnd(&z);
    if (status) {
        give_up(out);
    } else if (out->ptr) {
        out->ptr[out->len] = 0;
    }
    return status;
}

godwit_status gzip_deflate(slice text, bytes *out) {
    z_stream z;
    memset(&z, 0, sizeof z);
    /* Level 1: JSON shrinks to a fifth already, higher levels cost several times the CPU. */
    if (text.len > UINT_MAX ||
        deflateInit2(&z, 1, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return GODWIT_NOMEM;
    }
    size_t bound = deflateBound(&z, (uLong)text.len);
    int code = Z_MEM_ERROR;
    if (bound <= UINT_MAX && bytes_reserve(out, bound)) {
        z.next_in = (const Bytef *)text.ptr;
        z.avail_in = (uInt)text.len;
        z.next_out = (Bytef *)out->ptr;
        z.avail_out = (uInt)bound;
        code = deflate(&z, Z_FINISH);
        out->len = bound - z.avail_out;
        out->ptr[out->len] = 0;
    }
    deflateEnd(&z);
    if (code != Z_STREAM_END) {
        give_up(out);
        return GODWIT_NOMEM;
    }
    return GODWIT_OK;
}
