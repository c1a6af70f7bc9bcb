/* gzip for request bodies: one stream, fastest level, because the queue is sent from devices whose
 * battery matters more than the last per cent of size. */
#include "transport/transport.h"

#include <limits.h>
#include <zlib.h>

static bool deflate_all(z_stream *z, bytes *out) {
    int rc = Z_OK;
    while (rc == Z_OK) {
        if (!bytes_reserve(out, 16384)) {
            return false;
        }
        z->next_out = (Bytef *)(out->ptr + out->len);
        z->avail_out = 16384;
        rc = deflate(z, Z_FINISH);
        out->len += 16384 - z->avail_out;
    }
    return rc == Z_STREAM_END;
}

bool transport_gzip(slice data, bytes *out) {
    z_stream z = {0};
    if (data.len > UINT_MAX ||
        deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        out->failed = true;
        return false;
    }
    union { /* zlib's old prototype takes a pointer to non-const and only reads through it */
        const char *in;
        Bytef *z;
    } pointer = {data.ptr};
    z.next_in = pointer.z;
    z.avail_in = (uInt)data.len;
    bool ok = deflate_all(&z, out);
    (void)deflateEnd(&z);
    out->failed = out->failed || !ok;
    if (ok && bytes_reserve(out, 1)) {
        out->ptr[out->len] = 0;
    }
    return ok;
}
