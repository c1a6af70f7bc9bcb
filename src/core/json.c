/* The JSON parser: one pass, no copy but of strings with escapes, an explicit stack instead of
 * recursion, nodes on one tape that grows geometrically in the arena.
 *
 * Guarantees what json.h says it refuses, in time linear in the text (n log n in the members of one
 * object). Strings are in json_text.c, numbers in json_number.c, access in json_access.c. */
#include "core/json_internal.h"

#include <stdlib.h>

#include "core/limits.h"

#define QUADRATIC_KEYS_MAX 24
#define NODE_TEXT_BYTES    12 /* first guess of text bytes per node */

typedef struct {
    arena *a;
    const char *start, *at, *end;
    json *nodes;
    size_t count, cap;
    const char *reason;
    godwit_status status;
} parser;

static bool fail(parser *p, godwit_status status, const char *reason) {
    p->status = status;
    p->reason = reason;
    return false;
}

static bool invalid(parser *p, const char *reason) {
    return fail(p, GODWIT_INVALID, reason);
}

/* ---- Tape ---- */

static bool grow(parser *p) {
    if (p->cap >= JSON_NODES_MAX) {
        return fail(p, GODWIT_LIMIT, "too many values");
    }
    size_t cap = p->cap * 2;
    if (cap > JSON_NODES_MAX) {
        cap = JSON_NODES_MAX;
    }
    json *nodes = arena_resize(p->a, p->nodes, p->cap * sizeof(json), cap * sizeof(json));
    if (!nodes) {
        return fail(p, GODWIT_NOMEM, "out of memory");
    }
    p->nodes = nodes;
    p->cap = cap;
    return true;
}

static inline json *push(parser *p, json_type type) {
    if (p->count == p->cap && !grow(p)) {
        return NULL;
    }
    json *n = &p->nodes[p->count++];
    n->type = (uint8_t)type;
    n->span = 1;
    n->count = 0;
    return n;
}

/* ---- Scalars ---- */

static bool literal(parser *p, const char *text, size_t len, json_type type) {
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, text, len) != 0) {
        return invalid(p, "unknown word");
    }
    p->at += len;
    json *n = push(p, type);
    if (n) {
        n->u.i = 0;
    }
    return n != NULL;
}

static bool number(parser *p) {
    json *n = push(p, JSON_INT);
    if (!n) {
        return false;
    }
    const char *reason = json_number_parse(&p->at, p->end, n);
    return reason ? invalid(p, reason) : true;
}

/* Strings: the first pass finds the end, checks UTF-8 and notes whether anything is escaped. */
static bool string(parser *p) {
    const char *from = ++p->at;
    bool escaped = false;
    for (;;) {
        p->at = json_plain_end(p->at, p->end);
        if (p->at == p->end) {
            return invalid(p, "text ends within a string");
        }
        unsigned char c = (unsigned char)*p->at;
        if (c == '"') {
            break;
        }
        if (c == '\\') {
            escaped = true;
            p->at++;
            if (p->at == p->end) {
                return invalid(p, "text ends within a string");
            }
            /* What follows is looked at when decoding; only a quote must not end the string here.
             */
            if ((unsigned char)*p->at < 0x80) {
                p->at++;
            }
        } else if (c < 0x20) {
            return invalid(p, "raw control character in a string");
        } else {
            size_t len = json_utf8_length(p->at, p->end);
            if (len == 0) {
                return invalid(p, "invalid UTF-8");
            }
            p->at += len;
        }
    }
    slice raw = {from, (size_t)(p->at - from)};
    p->at++;
    if (escaped) {
        const char *reason = json_unescape(p->a, raw, &raw);
        if (reason) {
            p->at = from;
            return p->a->failed ? fail(p, GODWIT_NOMEM, reason) : invalid(p, reason);
        }
    }
    json *n = push(p, JSON_STRING);
    if (n) {
        n->u.s = raw;
    }
    return n != NULL;
}

/* ---- Duplicate keys ---- */

static int order_keys(const void *a, const void *b) {
    return slice_compare(*(const slice *)a, *(const slice *)b);
}

static inline const json *next_key(const json *key) {
    return key + 1 + key[1].span;
}

static bool sorted_keys_differ(parser *p, const json *object) {
    size_t size = object->count * sizeof(slice);
    slice *keys = arena_resize(p->a, NULL, 0, size);
    if (!keys) {
        return fail(p, GODWIT_NOMEM, "out of memory");
    }
    const json *key = object + 1;
    for (size_t i = 0; i < object->count; i++, key = next_key(key)) {
        keys[i] = key->u.s;
    }
    qsort(keys, object->count, sizeof(slice), order_keys);
    bool differ = true;
    for (size_t i = 1; i < object->count && differ; i++) {
        differ = !slice_equal(keys[i - 1], keys[i]);
    }
    keys = arena_resize(p->a, keys, size, 0);
    ASSERT(keys != NULL);
    return differ ? true : invalid(p, "duplicate key");
}

/* Few keys: compare pairs, but only where a one-word filter of (length, first, last byte) says that
 * an equal key may have come before. */
static bool few_keys_differ(parser *p, const json *object) {
    uint64_t seen = 0;
    const json *key = object + 1;
    for (size_t i = 0; i < object->count; i++, key = next_key(key)) {
        slice k = key->u.s;
        size_t mix = k.len * 29;
        if (k.len) {
            mix += (unsigned char)k.ptr[0] + (size_t)(unsigned char)k.ptr[k.len - 1] * 7;
        }
        uint64_t bit = (uint64_t)1 << (mix & 63);
        if (seen & bit) {
            for (const json *other = object + 1; other != key; other = next_key(other)) {
                if (slice_equal(other->u.s, k)) {
                    return invalid(p, "duplicate key");
                }
            }
        }
        seen |= bit;
    }
    return true;
}

static bool keys_differ(parser *p, const json *object) {
    if (object->count < 2) {
        return true;
    }
    return object->count <= QUADRATIC_KEYS_MAX ? few_keys_differ(p, object)
                                               : sorted_keys_differ(p, object);
}

/* ---- Structure ---- */

static inline void skip_space(parser *p) {
    while (p->at < p->end &&
           (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t')) {
        p->at++;
    }
}

static bool scalar(parser *p) {
    switch (*p->at) {
    case '"':
        return string(p);
    case 't':
        return literal(p, "true", 4, JSON_TRUE);
    case 'f':
        return literal(p, "false", 5, JSON_FALSE);
    case 'n':
        return literal(p, "null", 4, JSON_NULL);
    default:
        return number(p);
    }
}

static bool open_container(parser *p, uint32_t *stack, size_t depth) {
    if (depth == JSON_DEPTH_MAX) {
        return fail(p, GODWIT_LIMIT, "nested too deep");
    }
    stack[depth] = (uint32_t)p->count;
    json *n = push(p, *p->at == '{' ? JSON_OBJECT : JSON_ARRAY);
    if (!n) {
        return false;
    }
    n->u.s = (slice){p->at, 0};
    p->at++;
    return true;
}

static bool close_container(parser *p, uint32_t index) {
    json *n = &p->nodes[index];
    p->at++;
    n->span = (uint32_t)(p->count - index);
    n->u.s.len = (size_t)(p->at - n->u.s.ptr);
    return n->type == JSON_ARRAY || keys_differ(p, n);
}

static bool member_key(parser *p) {
    skip_space(p);
    if (p->at == p->end || *p->at != '"') {
        return invalid(p, "a key must be a string");
    }
    if (!string(p)) {
        return false;
    }
    skip_space(p);
    if (p->at == p->end || *p->at != ':') {
        return invalid(p, "colon expected");
    }
    p->at++;
    return true;
}

/* After a value: what may follow in the containers that are open. *depth drops as they close. */
static bool after_value(parser *p, const uint32_t *stack, size_t *depth) {
    while (*depth > 0) {
        json *n = &p->nodes[stack[*depth - 1]];
        n->count++;
        skip_space(p);
        if (p->at == p->end) {
            return invalid(p, "text ends within a value");
        }
        if (*p->at == ',') {
            p->at++;
            return n->type == JSON_ARRAY || member_key(p);
        }
        if (*p->at != (n->type == JSON_ARRAY ? ']' : '}')) {
            return invalid(p, "comma or end expected");
        }
        if (!close_container(p, stack[*depth - 1])) {
            return false;
        }
        --*depth;
    }
    return true;
}

static bool document(parser *p) {
    uint32_t stack[JSON_DEPTH_MAX];
    size_t depth = 0;
    do {
        skip_space(p);
        if (p->at == p->end) {
            return invalid(p, "a value is missing");
        }
        char c = *p->at;
        if (c == '{' || c == '[') {
            if (!open_container(p, stack, depth)) {
                return false;
            }
            skip_space(p);
            bool empty = p->at < p->end && *p->at == (c == '{' ? '}' : ']');
            if (!empty) {
                depth++;
                if (c == '{' && !member_key(p)) {
                    return false;
                }
                continue; /* `depth` is above 0: the loop goes on with the first value */
            }
            if (!close_container(p, stack[depth])) {
                return false;
            }
        } else if (!scalar(p)) {
            return false;
        }
        if (!after_value(p, stack, &depth)) {
            return false;
        }
    } while (depth > 0);
    skip_space(p);
    return p->at == p->end ? true : invalid(p, "more text behind the value");
}

godwit_status json_parse(arena *a, slice text, const json **out, json_error *error) {
    *out = NULL;
    parser p = {.a = a, .start = text.ptr, .at = text.ptr, .status = GODWIT_OK};
    /* An empty slice may have no pointer, and arithmetic on NULL is undefined. */
    static const char nothing[1] = "";
    if (text.len == 0) {
        p.start = p.at = nothing;
    }
    p.end = p.at + text.len;
    p.cap = text.len / NODE_TEXT_BYTES + 8;
    if (p.cap > JSON_NODES_MAX) {
        p.cap = JSON_NODES_MAX;
    }
    p.nodes = arena_resize(a, NULL, 0, p.cap * sizeof(json));
    if (!p.nodes) {
        fail(&p, GODWIT_NOMEM, "out of memory");
    } else if (document(&p)) {
        ASSERT(p.count > 0 && p.nodes[0].span == p.count);
        /* Shrinking never fails: the block stays where it is. */
        *out = arena_resize(a, p.nodes, p.cap * sizeof(json), p.count * sizeof(json));
        ASSERT(*out == p.nodes);
    }
    if (error) {
        error->reason = p.reason;
        error->offset = p.reason ? (size_t)(p.at - p.start) : 0;
    }
    return p.status;
}
