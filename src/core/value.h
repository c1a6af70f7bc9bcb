/* A column's value: SQLite's five storage classes, their wire form, and equality (semantics 13.1).
 *
 *   NULL null | TEXT "s" | REAL 1.5, {"$real":"inf"} | INTEGER 1, {"$i64":"9007199254740993"} |
 *   BLOB {"$b64":".."}
 *
 * A JSON number without '.', 'e', 'E' is INTEGER, any other REAL; so 1.0 stays REAL. true and false
 * are read as 1 and 0. Arrays and other objects are not values: VALUE_SPECIAL keeps the node for
 * the column types counter and set ({"$inc":n}, {"$add":[..]}). */
#ifndef CORE_VALUE_H
#define CORE_VALUE_H

#include "core/json.h"

typedef enum { VALUE_NULL, VALUE_INT, VALUE_REAL, VALUE_TEXT, VALUE_BLOB, VALUE_SPECIAL } value_type;

typedef struct {
    uint8_t type; /* value_type */
    union {
        int64_t i;
        double d;
        slice s;          /* TEXT, BLOB: borrowed */
        const json *node; /* SPECIAL */
    } u;
} value;

/* BLOBs are decoded into `a`; text is borrowed from the document. INVALID: not a value. */
godwit_status value_from_json(arena *a, const json *node, value *out) MUST_USE;
void value_to_json(bytes *b, const value *v); /* TEXT must be valid UTF-8 */
/* Same storage class and same bytes; INT and REAL are never equal; NaN equals NaN. */
bool value_equal(const value *a, const value *b);
/* 64-bit hash of (type, content), for row digests: stable across machines. */
uint64_t value_hash(const value *v, uint64_t seed);

#endif
