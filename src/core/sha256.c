/* SHA-256 as in FIPS 180-4, portable C: rounds unrolled by sixteen, the message schedule kept in a
 * ring of sixteen words. No tables are written, no memory is taken. Used for identity and
 * integrity, not on secrets' comparison paths. */
#include "core/sha256.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROTR(x, n)        (((x) >> (n)) | ((x) << (32 - (n))))
#define BIG0(x)           (ROTR(x, 2) ^ ROTR(x, 13) ^ ROTR(x, 22))
#define BIG1(x)           (ROTR(x, 6) ^ ROTR(x, 11) ^ ROTR(x, 25))
#define SMALL0(x)         (ROTR(x, 7) ^ ROTR(x, 18) ^ ((x) >> 3))
#define SMALL1(x)         (ROTR(x, 17) ^ ROTR(x, 19) ^ ((x) >> 10))
#define CHOOSE(x, y, z)   ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))

/* The eight working variables rotate by name, so that no round moves them. */
#define ROUND(a, b, c, d, e, f, g, h, k, w)                                                        \
    do {                                                                                           \
        uint32_t t = (h) + BIG1(e) + CHOOSE(e, f, g) + (k) + (w);                                  \
        (d) += t;                                                                                  \
        (h) = t + BIG0(a) + MAJORITY(a, b, c);                                                     \
    } while (0)
#define EIGHT(at, W)                                                                               \
    ROUND(a, b, c, d, e, f, g, h, K[r + (at)], W((at)));                                           \
    ROUND(h, a, b, c, d, e, f, g, K[r + (at) + 1], W((at) + 1));                                   \
    ROUND(g, h, a, b, c, d, e, f, K[r + (at) + 2], W((at) + 2));                                   \
    ROUND(f, g, h, a, b, c, d, e, K[r + (at) + 3], W((at) + 3));                                   \
    ROUND(e, f, g, h, a, b, c, d, K[r + (at) + 4], W((at) + 4));                                   \
    ROUND(d, e, f, g, h, a, b, c, K[r + (at) + 5], W((at) + 5));                                   \
    ROUND(c, d, e, f, g, h, a, b, K[r + (at) + 6], W((at) + 6));                                   \
    ROUND(b, c, d, e, f, g, h, a, K[r + (at) + 7], W((at) + 7))
#define FIRST(i) (w[i] = load_be(block + 4 * (i)))
#define NEXT(i)                                                                                    \
    (w[(i)&15] += SMALL1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] + SMALL0(w[((i) + 1) & 15]))

static inline uint32_t load_be(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void compress(uint32_t state[8], const uint8_t *block) {
    uint32_t w[16];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    int r = 0;
    EIGHT(0, FIRST);
    EIGHT(8, FIRST);
    for (r = 16; r < 64; r += 16) {
        EIGHT(0, NEXT);
        EIGHT(8, NEXT);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void sha256_init(sha256 *s) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, start, sizeof(start));
    s->bytes = 0;
}

void sha256_update(sha256 *s, const void *data, size_t len) {
    const uint8_t *in = data;
    size_t filled = (size_t)(s->bytes % sizeof(s->block));
    s->bytes += len;
    if (filled) {
        size_t room = sizeof(s->block) - filled;
        size_t part = len < room ? len : room;
        if (part) {
            memcpy(s->block + filled, in, part);
            in += part;
            len -= part;
        }
        if (part < room) {
            return;
        }
        compress(s->h, s->block);
    }
    for (; len >= sizeof(s->block); len -= sizeof(s->block), in += sizeof(s->block)) {
        compress(s->h, in);
    }
    if (len) {
        memcpy(s->block, in, len);
    }
}

void sha256_final(sha256 *s, uint8_t out[SHA256_BYTES]) {
    size_t filled = (size_t)(s->bytes % sizeof(s->block));
    uint64_t bits = s->bytes * 8;
    s->block[filled++] = 0x80;
    if (filled > sizeof(s->block) - 8) {
        memset(s->block + filled, 0, sizeof(s->block) - filled);
        compress(s->h, s->block);
        filled = 0;
    }
    memset(s->block + filled, 0, sizeof(s->block) - 8 - filled);
    for (int i = 0; i < 8; i++) {
        s->block[sizeof(s->block) - 8 + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    compress(s->h, s->block);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 4; j++) {
            out[4 * i + j] = (uint8_t)(s->h[i] >> (24 - 8 * j));
        }
    }
}

void sha256_of(const void *data, size_t len, uint8_t out[SHA256_BYTES]) {
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, data, len);
    sha256_final(&s, out);
}
