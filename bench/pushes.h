/* Pushes as a device would send them: creates of benchmark rows, keyed and in sequence. */
#ifndef BENCH_PUSHES_H
#define BENCH_PUSHES_H

#include "common.h"
#include "core/wire.h"

typedef struct {
    char device[33];
    int64_t seq; /* last used */
    uint8_t last_key[SHA256_BYTES];
    uint64_t seed; /* of its rows: row n of the series is its n-th create */
} bench_stream;

void bench_stream_init(bench_stream *s, unsigned number);
/* The body of POST /v1/devices for the stream, scope "s". */
void bench_stream_register(const bench_stream *s, bytes *body);
/* The next `count` creates in groups of `group` operations; replaces what `body` held. */
void bench_stream_push(bench_stream *s, int64_t count, int64_t group, bytes *body);

#endif
