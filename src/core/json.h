/* JSON: a strict, bounded, zero-copy parser and a writer.
 *
 * The parser refuses: anything that is not one RFC 8259 value, duplicate keys, invalid UTF-8, lone
 * surrogates, raw control characters, depth over JSON_DEPTH_MAX, more than JSON_NODES_MAX nodes.
 * Integers that fit int64 are exact; other numbers are doubles. Strings without escapes point into
 * the text, which must outlive the document.
 *
 * A document is one flat array of nodes in document order; `span` is the number of nodes of a
 * subtree, so that siblings are reached without links:
 *
 *   {"a":[1,2],"b":3}   ->  OBJECT(span 7,count 2) STRING a ARRAY(span 3,count 2) INT 1 INT 2
 *                           STRING b INT 3
 */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include "core/arena.h"
#include "core/bytes.h"

typedef enum {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_INT,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
} json_type;

typedef struct json {
    uint8_t type;   /* json_type */
    uint32_t span;  /* nodes of this subtree, itself included */
    uint32_t count; /* members of an object (pairs) or items of an array */
    union {
        int64_t i;
        double d;
        slice s;    /* STRING: decoded text. ARRAY, OBJECT: the raw text of the subtree */
    } u;
} json;

typedef struct {
    const char *reason; /* constant text, e.g. "duplicate key"; NULL when parsing succeeded */
    size_t offset;      /* byte at which it was noticed */
} json_error;

/* Parses `text` into nodes in `a`. OK: *out is the root. INVALID or LIMIT: *error (may be NULL) says
 * why. NOMEM. */
godwit_status json_parse(arena *a, slice text, const json **out, json_error *error) MUST_USE;

/* Members and items. `json_first(v)` is the first item (array) or first key (object) or NULL;
 * `json_after(n)` is the node behind n's subtree: only valid within json_first .. count. A value of
 * an object follows its key directly: `json_value(key) == key + 1`. */
const json *json_first(const json *v);
static inline const json *json_after(const json *n) { return n + n->span; }
/* Value of a member; NULL when `v` is NULL, not an object, or has no such member. */
const json *json_get(const json *v, const char *name);
const json *json_find(const json *v, slice name);
/* Typed access: false (and *out untouched) when v is NULL or of another type. */
bool json_text(const json *v, slice *out);
bool json_int(const json *v, int64_t *out);
bool json_bool(const json *v, bool *out);
static inline bool json_is(const json *v, json_type t) { return v && v->type == (uint8_t)t; }

/* Validates UTF-8 as the parser does (no surrogates, no overlong forms). */
bool json_utf8_valid(slice s);

/* Writer: appends to a bytes buffer; the caller writes the punctuation, or uses the helpers with
 * `first` flags: json_key(b, &first, "name") writes a comma when needed, the quoted name, a colon. */
void json_write_text(bytes *b, slice s);       /* quoted and escaped; s must be valid UTF-8 */
void json_write_real(bytes *b, double d);      /* finite; round-trips; always has '.', 'e' or 'E' */
void json_write_int(bytes *b, int64_t v);
void json_write_bool(bytes *b, bool v);
void json_write_hex(bytes *b, const void *data, size_t len); /* quoted lower-case hex */
void json_comma(bytes *b, bool *first);
void json_key(bytes *b, bool *first, const char *name);

#endif
