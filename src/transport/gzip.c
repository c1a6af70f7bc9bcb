/* gzip for request bodies, in one piece and at the fastest level, because the queue is sent from
 * devices whose battery matters more than the last per cent of size. */
#include "transport/transport.h"

#include <libdeflate.h>

#define LEVEL 1

bool transport_gzip(slice data, bytes *out) {
    struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(LEVEL);
    size_t bound = compressor ? libdeflate_gzip_compress_bound(compressor, data.len) : 0;
    size_t size = 0;
    if (compressor && bytes_reserve(out, bound + 1)) {
        size = libdeflate_gzip_compress(compressor, data.ptr, data.len, out->ptr + out->len, bound);
        out->len += size;
        out->ptr[out->len] = 0;
    }
    libdeflate_free_compressor(compressor);
    out->failed = out->failed || size == 0;
    return size != 0;
}
