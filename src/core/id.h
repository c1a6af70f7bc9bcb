/* Identifiers: hex, UUIDs, the operation's id and idempotency key (semantics 5.3). */
#ifndef CORE_ID_H
#define CORE_ID_H

#include "core/bytes.h"
#include "core/op.h"
#include "core/sha256.h"

#define UUID_TEXT_BYTES 37 /* with NUL */

/* false when `hex` is not exactly 2*len lower-case hex digits. */
bool id_hex_decode(slice hex, uint8_t *out, size_t len);
void id_hex_encode(const uint8_t *data, size_t len, char *out); /* 2*len digits and NUL */

/* UUIDv7 from a time and 10 random bytes. */
void id_uuid7(int64_t wall_ms, const uint8_t entropy[10], char out[UUID_TEXT_BYTES]);
/* The public id of an operation, equal before and after sealing: a UUIDv8 made of the first 72 bits of a
 * lineage of 32 hex digits and of the lsn (48 bits), which SQL can write too; for any other lineage
 * or a larger lsn, of SHA-256(lineage, lsn). */
void id_operation(slice lineage, int64_t lsn, char out[UUID_TEXT_BYTES]);
/* deviceId, lineage: ^[A-Za-z0-9_-]{1,64}$ */
bool id_device_valid(slice s);
/* scope, table and column names: 1..NAME_BYTES_MAX bytes of valid UTF-8, no control characters */
bool id_name_valid(slice s);

/* Everything the key is made of, in order; all fixed at capture. */
typedef struct {
    slice scope, lineage;
    int64_t lsn, nonce;
    op_kind kind;
    slice entity_type, entity_id;
    int64_t base_seq, base_salt, wall_ms;
    slice payload, base; /* exact JSON bytes */
} id_key_parts;
void id_operation_key(const id_key_parts *parts, uint8_t out[SHA256_BYTES]);

#endif
