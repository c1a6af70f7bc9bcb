/* SHA-256 (FIPS 180-4). */
#ifndef CORE_SHA256_H
#define CORE_SHA256_H

#include "core/base.h"

#define SHA256_BYTES 32
typedef struct {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
} sha256;

void sha256_init(sha256 *s);
void sha256_update(sha256 *s, const void *data, size_t len);
void sha256_final(sha256 *s, uint8_t out[SHA256_BYTES]);
void sha256_of(const void *data, size_t len, uint8_t out[SHA256_BYTES]);

#endif
