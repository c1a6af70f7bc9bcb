/* Identifiers: hex, UUIDs, names, and the two digests that identify an operation.
 *
 * The idempotency key is computed from values fixed at capture, each length-prefixed, so that no
 * two different operations share the hashed bytes. Decoders accept only the canonical form: one
 * value has one text. */
#include "core/id.h"

#include <stdio.h>

#include "core/json.h"
#include "core/limits.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool id_hex_decode(slice hex, uint8_t *out, size_t len) {
    if (hex.len / 2 != len || hex.len % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(hex.ptr[2 * i]);
        int low = hex_digit(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void id_hex_encode(const uint8_t *data, size_t len, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = '\0';
}

static void uuid_text(uint8_t raw[16], int version, char out[UUID_TEXT_BYTES]) {
    raw[6] = (uint8_t)((raw[6] & 0x0f) | version << 4);
    raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80);
    static const uint8_t ends[] = {4, 6, 8, 10, 16};
    size_t from = 0;
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        if (i) {
            *out++ = '-';
        }
        id_hex_encode(raw + from, ends[i] - from, out);
        out += 2 * (ends[i] - from);
        from = ends[i];
    }
}

void id_uuid7(int64_t wall_ms, const uint8_t entropy[10], char out[UUID_TEXT_BYTES]) {
    uint64_t ms = wall_ms < 0 ? 0 : (uint64_t)wall_ms;
    uint8_t raw[16];
    for (int i = 0; i < 6; i++) {
        raw[i] = (uint8_t)(ms >> (40 - 8 * i));
    }
    memcpy(raw + 6, entropy, 10);
    uuid_text(raw, 7, out);
}

static void hash_field(sha256 *h, const void *data, size_t len) {
    ASSERT(len <= UINT32_MAX);
    uint8_t prefix[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                         (uint8_t)len};
    sha256_update(h, prefix, sizeof(prefix));
    sha256_update(h, data, len);
}

static void hash_slice(sha256 *h, slice s) {
    hash_field(h, s.ptr, s.len);
}

static void hash_int(sha256 *h, int64_t v) {
    uint8_t raw[8];
    for (int i = 0; i < 8; i++) {
        raw[i] = (uint8_t)((uint64_t)v >> (56 - 8 * i));
    }
    hash_field(h, raw, sizeof(raw));
}

static void hash_digest(sha256 *h, slice content) {
    /* Every create has an empty base and every delete an empty payload: half of all digests are
     * this. */
    static const uint8_t of_empty_object[SHA256_BYTES] = {
        0x44, 0x13, 0x6f, 0xa3, 0x55, 0xb3, 0x67, 0x8a, 0x11, 0x46, 0xad,
        0x16, 0xf7, 0xe8, 0x64, 0x9e, 0x94, 0xfb, 0x4f, 0xc2, 0x1f, 0xe7,
        0x7e, 0x83, 0x10, 0xc0, 0x60, 0xf6, 0x1c, 0xaa, 0xff, 0x8a};
    if (slice_is(content, "{}")) {
        hash_field(h, of_empty_object, sizeof(of_empty_object));
        return;
    }
    uint8_t digest[SHA256_BYTES];
    sha256_of(content.ptr, content.len, digest);
    hash_field(h, digest, sizeof(digest));
}

void id_operation(slice lineage, int64_t lsn, char out[UUID_TEXT_BYTES]) {
    uint8_t ignored[16];
    /* Godwit's own lineages: SQL has no digest, and the view sync_queue must give the same id */
    if (lsn >= 0 && lsn < INT64_C(1) << 48 && id_hex_decode(lineage, ignored, sizeof ignored)) {
        memcpy(out, "........-....-8...-8...-............", UUID_TEXT_BYTES);
        memcpy(out, lineage.ptr, 8);
        memcpy(out + 9, lineage.ptr + 8, 4);
        memcpy(out + 15, lineage.ptr + 12, 3);
        memcpy(out + 20, lineage.ptr + 15, 3);
        for (int i = 0; i < 12; i++) {
            out[24 + i] = "0123456789abcdef"[lsn >> (44 - 4 * i) & 15];
        }
        return;
    }
    sha256 h;
    sha256_init(&h);
    hash_slice(&h, SLICE("godwit-op-id-v1"));
    hash_slice(&h, lineage);
    hash_int(&h, lsn);
    uint8_t digest[SHA256_BYTES];
    sha256_final(&h, digest);
    uuid_text(digest, 8, out);
}

void id_operation_key(const id_key_parts *parts, uint8_t out[SHA256_BYTES]) {
    sha256 h;
    sha256_init(&h);
    hash_slice(&h, SLICE("godwit-op-v1"));
    hash_slice(&h, parts->scope);
    hash_slice(&h, parts->lineage);
    hash_int(&h, parts->lsn);
    hash_int(&h, parts->nonce);
    hash_slice(&h, slice_of(op_kind_name(parts->kind)));
    hash_slice(&h, parts->entity_type);
    hash_slice(&h, parts->entity_id);
    hash_int(&h, parts->base_seq);
    hash_int(&h, parts->base_salt);
    hash_int(&h, parts->wall_ms);
    hash_digest(&h, parts->payload);
    hash_digest(&h, parts->base);
    sha256_final(&h, out);
}

bool id_device_valid(slice s) {
    if (s.len < 1 || s.len > DEVICE_ID_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}

bool id_name_valid(slice s) {
    if (s.len < 1 || s.len > NAME_BYTES_MAX || !json_utf8_valid(s)) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        /* C0 and DEL; and C1, which UTF-8 writes as C2 80 .. C2 9F. */
        bool c1 = c == 0xc2 && (uint8_t)s.ptr[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || c1) {
            return false;
        }
    }
    return true;
}
