/* Column values: their wire form both ways, equality and hash.
 *
 * The wire form is chosen so that every reader gets back the exact value: integers beyond 2^53,
 * which many JSON readers round, and REALs that JSON can't express travel as one-member objects. */
#include "core/value.h"

#include <math.h>

#include "core/base64.h"
#include "core/id.h"

#define EXACT_MAX ((int64_t)1 << 53)

/* Canonical decimal of an int64: no sign but '-', no leading zeros, no "-0". */
static bool parse_i64(slice s, int64_t *out) {
    bool negative = s.len > 0 && s.ptr[0] == '-';
    size_t at = negative ? 1 : 0;
    if (at == s.len || s.len - at > 19 || (s.ptr[at] == '0' && (s.len > at + 1 || negative))) {
        return false;
    }
    uint64_t v = 0;
    for (; at < s.len; at++) {
        if (s.ptr[at] < '0' || s.ptr[at] > '9') {
            return false;
        }
        v = v * 10 + (uint64_t)(s.ptr[at] - '0');
    }
    if (v > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return false;
    }
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static godwit_status blob_from_text(arena *a, slice text, value *out) {
    uint8_t *data = arena_resize(a, NULL, 0, text.len / 4 * 3);
    if (!data) {
        return GODWIT_NOMEM;
    }
    size_t len = 0;
    if (!base64_decode(text, data, &len)) {
        return GODWIT_INVALID;
    }
    out->type = VALUE_BLOB;
    out->u.s = (slice){(const char *)data, len};
    return GODWIT_OK;
}

/* "Not a number" can't be stored by SQLite, but a peer may have computed one. */
static bool parse_special_real(slice s, double *out) {
    if (slice_is(s, "inf")) {
        *out = (double)INFINITY;
    } else if (slice_is(s, "-inf")) {
        *out = -(double)INFINITY;
    } else if (slice_is(s, "nan")) {
        *out = (double)NAN;
    } else {
        return false;
    }
    return true;
}

/* {"$inc":n}, {"$add":[..]}, {"$remove":[..]}, {"$add":[..],"$remove":[..]} */
static bool is_special(const json *node) {
    const json *key = json_first(node);
    for (uint32_t i = 0; i < node->count; i++, key = json_after(key + 1)) {
        const json *member = key + 1;
        bool inc = slice_is(key->u.s, "$inc") && node->count == 1 &&
                   (json_is(member, JSON_INT) || json_is(member, JSON_REAL));
        bool set = (slice_is(key->u.s, "$add") || slice_is(key->u.s, "$remove")) &&
                   json_is(member, JSON_ARRAY);
        if (!inc && !set) {
            return false;
        }
    }
    return node->count > 0;
}

static godwit_status from_object(arena *a, const json *node, value *out) {
    const json *key = json_first(node);
    slice text = {NULL, 0};
    if (node->count == 1 && json_text(key + 1, &text)) {
        if (slice_is(key->u.s, "$b64")) {
            return blob_from_text(a, text, out);
        }
        if (slice_is(key->u.s, "$i64")) {
            out->type = VALUE_INT;
            return parse_i64(text, &out->u.i) ? GODWIT_OK : GODWIT_INVALID;
        }
        if (slice_is(key->u.s, "$real")) {
            out->type = VALUE_REAL;
            return parse_special_real(text, &out->u.d) ? GODWIT_OK : GODWIT_INVALID;
        }
        return GODWIT_INVALID;
    }
    if (!is_special(node)) {
        return GODWIT_INVALID;
    }
    out->type = VALUE_SPECIAL;
    out->u.node = node;
    return GODWIT_OK;
}

static godwit_status from_node(arena *a, const json *node, value *out) {
    switch ((json_type)node->type) {
    case JSON_NULL:
        out->type = VALUE_NULL;
        return GODWIT_OK;
    case JSON_FALSE:
    case JSON_TRUE:
        out->type = VALUE_INT;
        out->u.i = node->type == JSON_TRUE;
        return GODWIT_OK;
    case JSON_INT:
        out->type = VALUE_INT;
        out->u.i = node->u.i;
        return GODWIT_OK;
    case JSON_REAL:
        out->type = VALUE_REAL;
        out->u.d = node->u.d;
        return GODWIT_OK;
    case JSON_STRING:
        out->type = VALUE_TEXT;
        out->u.s = node->u.s;
        return GODWIT_OK;
    case JSON_OBJECT:
        return from_object(a, node, out);
    case JSON_ARRAY:
        break;
    }
    return GODWIT_INVALID;
}

godwit_status value_from_json(arena *a, const json *node, value *out) {
    memset(out, 0, sizeof(*out));
    if (!node) {
        return GODWIT_INVALID;
    }
    godwit_status status = from_node(a, node, out);
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof(*out));
    }
    return status;
}

static void write_real(bytes *b, double d) {
    if (isfinite(d)) {
        json_write_real(b, d);
    } else {
        bytes_text(b, isnan(d) ? "{\"$real\":\"nan\"}"
                      : d > 0  ? "{\"$real\":\"inf\"}"
                               : "{\"$real\":\"-inf\"}");
    }
}

void value_to_json(bytes *b, const value *v) {
    switch ((value_type)v->type) {
    case VALUE_NULL:
        bytes_add(b, "null", 4);
        break;
    case VALUE_INT:
        if (v->u.i >= -EXACT_MAX && v->u.i <= EXACT_MAX) {
            bytes_int(b, v->u.i);
        } else {
            bytes_text(b, "{\"$i64\":\"");
            bytes_int(b, v->u.i);
            bytes_text(b, "\"}");
        }
        break;
    case VALUE_REAL:
        write_real(b, v->u.d);
        break;
    case VALUE_TEXT:
        json_write_text(b, v->u.s);
        break;
    case VALUE_BLOB:
        bytes_text(b, "{\"$b64\":\"");
        base64_encode(b, v->u.s);
        bytes_text(b, "\"}");
        break;
    case VALUE_SPECIAL:
        bytes_slice(b, v->u.node->u.s);
        break;
    }
}

/* One bit pattern per value: SQLite keeps a whole REAL as an integer and so forgets the sign of
 * zero. */
static uint64_t real_bits(double d) {
    if (isnan(d)) {
        return UINT64_C(0x7ff8000000000000);
    }
    if (d == 0) {
        return 0;
    }
    uint64_t bits = 0;
    memcpy(&bits, &d, sizeof(bits));
    return bits;
}

bool value_equal(const value *a, const value *b) {
    if (a->type != b->type) {
        return false;
    }
    switch ((value_type)a->type) {
    case VALUE_NULL:
        return true;
    case VALUE_INT:
        return a->u.i == b->u.i;
    case VALUE_REAL:
        return real_bits(a->u.d) == real_bits(b->u.d);
    case VALUE_TEXT:
    case VALUE_BLOB:
        return slice_equal(a->u.s, b->u.s);
    case VALUE_SPECIAL:
        break;
    }
    return slice_equal(a->u.node->u.s, b->u.node->u.s);
}

/* ---- Hash: 64-bit multiply and fold over little-endian words, the same on every machine ---- */

static inline uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 29;
}

static uint64_t mix_text(uint64_t h, slice s) {
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t left = s.len;
    h = mix(h, s.len);
    while (left > 0) {
        size_t take = left < 8 ? left : 8;
        uint64_t word = 0;
        for (size_t i = 0; i < take; i++) {
            word |= (uint64_t)p[i] << (8 * i);
        }
        h = mix(h, word);
        p += take;
        left -= take;
    }
    return h;
}

uint64_t value_hash(const value *v, uint64_t seed) {
    uint64_t h = mix(seed, v->type + UINT64_C(1));
    switch ((value_type)v->type) {
    case VALUE_NULL:
        break;
    case VALUE_INT:
        h = mix(h, (uint64_t)v->u.i);
        break;
    case VALUE_REAL:
        h = mix(h, real_bits(v->u.d));
        break;
    case VALUE_TEXT:
    case VALUE_BLOB:
        h = mix_text(h, v->u.s);
        break;
    case VALUE_SPECIAL:
        h = mix_text(h, v->u.node->u.s);
        break;
    }
    return h;
}
