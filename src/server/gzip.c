/* gzip: libdeflate packs, which has the whole answer at hand; zlib unpacks, output in steps so that
 * a bomb costs at most its limit. */
#include "server/gzip.h"

#define ZLIB_CONST
#include <libdeflate.h>
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
    /* Level 1: JSON shrinks to a fifth already, higher levels cost several times the CPU. */
    struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(1);
    size_t bound = compressor ? libdeflate_gzip_compress_bound(compressor, text.len) : 0;
    size_t size = 0;
    if (compressor && bytes_reserve(out, bound + 1)) {
        size = libdeflate_gzip_compress(compressor, text.ptr, text.len, out->ptr, bound);
        out->len = size;
        out->ptr[size] = 0;
    }
    libdeflate_free_compressor(compressor);
    if (size == 0) {
        give_up(out);
        return GODWIT_NOMEM;
    }
    return GODWIT_OK;
}
