/* The inside of JSON strings: UTF-8 validation, decoding and writing of escapes. */
#include "core/json_internal.h"

#define EACH       0x0101010101010101u
#define HIGH       0x8080808080808080u
#define ESCAPE_MAX 6

static inline uint64_t load_word(const char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* High bit set in each byte that is zero, below 0x20, a quote, a backslash, or not ASCII. May also
 * be set above such a byte (borrow), never without one. */
static inline uint64_t special_bytes(uint64_t v) {
    uint64_t control = v - EACH * 0x20;
    uint64_t quote = (v ^ (EACH * '"')) - EACH;
    uint64_t backslash = (v ^ (EACH * '\\')) - EACH;
    return ((control | quote | backslash) & ~v & HIGH) | (v & HIGH);
}

static inline bool is_special(unsigned char c) {
    return c < 0x20 || c == '"' || c == '\\' || c >= 0x80;
}

const char *json_plain_end(const char *at, const char *end) {
    while (end - at >= 8 && special_bytes(load_word(at)) == 0) {
        at += 8;
    }
    while (at < end && !is_special((unsigned char)*at)) {
        at++;
    }
    return at;
}

static inline bool continues(unsigned char c) {
    return (c & 0xc0) == 0x80;
}

size_t json_utf8_length(const char *at, const char *end) {
    ASSERT(at < end);
    const unsigned char *p = (const unsigned char *)at;
    size_t left = (size_t)(end - at);
    unsigned char c = p[0];
    if (c < 0x80) {
        return 1;
    }
    if (c >= 0xc2 && c <= 0xdf) {
        return left >= 2 && continues(p[1]) ? 2 : 0;
    }
    if (c >= 0xe0 && c <= 0xef) {
        unsigned char low = c == 0xe0 ? 0xa0 : 0x80;  /* no overlong forms */
        unsigned char high = c == 0xed ? 0x9f : 0xbf; /* no surrogates */
        return left >= 3 && p[1] >= low && p[1] <= high && continues(p[2]) ? 3 : 0;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        unsigned char low = c == 0xf0 ? 0x90 : 0x80;
        unsigned char high = c == 0xf4 ? 0x8f : 0xbf; /* U+10FFFF is the last */
        return left >= 4 && p[1] >= low && p[1] <= high && continues(p[2]) && continues(p[3]) ? 4
                                                                                              : 0;
    }
    return 0;
}

bool json_utf8_valid(slice s) {
    if (s.len == 0) {
        return true;
    }
    const char *at = s.ptr;
    const char *end = s.ptr + s.len;
    while (at < end) {
        while (end - at >= 8 && (load_word(at) & HIGH) == 0) {
            at += 8;
        }
        if (at == end) {
            break;
        }
        size_t len = json_utf8_length(at, end);
        if (len == 0) {
            return false;
        }
        at += len;
    }
    return true;
}

/* Four hex digits (either case, as RFC 8259 allows) or -1. */
static int hex4(const char *p, const char *end) {
    if (end - p < 4) {
        return -1;
    }
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) {
            return -1;
        }
        v = v << 4 | d;
    }
    return v;
}

static char *put_utf8(char *out, uint32_t c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 63));
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    }
    return out;
}

/* *at is behind "\u"; it moves behind the digits (both halves of a pair). */
static const char *unescape_unicode(const char **at, const char *end, char **out) {
    int unit = hex4(*at, end);
    if (unit < 0) {
        return "four hex digits expected";
    }
    *at += 4;
    uint32_t c = (uint32_t)unit;
    if (unit >= 0xdc00 && unit <= 0xdfff) {
        return "lone surrogate";
    }
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low = end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u' ? hex4(*at + 2, end) : -1;
        if (low < 0xdc00 || low > 0xdfff) {
            return "lone surrogate";
        }
        *at += 6;
        c = 0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    }
    *out = put_utf8(*out, c);
    return NULL;
}

const char *json_unescape(arena *a, slice raw, slice *out) {
    char *text = arena_resize(a, NULL, 0, raw.len);
    if (!text) {
        return "out of memory";
    }
    char *to = text;
    const char *at = raw.ptr;
    const char *end = raw.ptr + raw.len;
    while (at < end) {
        /* Runs between escapes are mostly short (JSON inside JSON): no memcpy call for them. */
        while (at < end && *at != '\\') {
            *to++ = *at++;
        }
        if (at == end) {
            break;
        }
        at++; /* a backslash is never the last byte: the string would not have ended there */
        ASSERT(at < end);
        char c = *at++;
        const char *reason = NULL;
        switch (c) {
        case '"':
        case '\\':
        case '/':
            *to++ = c;
            break;
        case 'b':
            *to++ = '\b';
            break;
        case 'f':
            *to++ = '\f';
            break;
        case 'n':
            *to++ = '\n';
            break;
        case 'r':
            *to++ = '\r';
            break;
        case 't':
            *to++ = '\t';
            break;
        case 'u':
            reason = unescape_unicode(&at, end, &to);
            break;
        default:
            reason = "unknown escape";
            break;
        }
        if (reason) {
            return reason;
        }
    }
    size_t len = (size_t)(to - text);
    ASSERT(len <= raw.len);
    text = arena_resize(a, text, raw.len, len ? len : 1);
    ASSERT(text != NULL);
    *out = (slice){text, len};
    return NULL;
}

/* Writes the escape of c to out; returns its length, at most ESCAPE_MAX. */
static size_t escape(unsigned char c, char *out) {
    static const char hex[] = "0123456789abcdef";
    char letter = c == '"' || c == '\\' ? (char)c
                  : c == '\b'           ? 'b'
                  : c == '\f'           ? 'f'
                  : c == '\n'           ? 'n'
                  : c == '\r'           ? 'r'
                  : c == '\t'           ? 't'
                                        : 0;
    out[0] = '\\';
    if (letter) {
        out[1] = letter;
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return ESCAPE_MAX;
}

/* Copies what needs no escape, eight bytes at a time where nothing in them is special; *out moves
 * behind it. Returns where it ended. */
static const char *copy_plain(const char *at, const char *end, char **out) {
    char *to = *out;
    bool plain = true;
    while (at < end && plain) {
        for (; end - at >= 8 && special_bytes(load_word(at)) == 0; at += 8, to += 8) {
            memcpy(to, at, 8);
        }
        for (int i = 0; i < 8 && at < end && plain; i++) {
            unsigned char c = (unsigned char)*at;
            plain = c >= 0x20 && c != '"' && c != '\\';
            if (plain) {
                *to++ = *at++;
            }
        }
    }
    *out = to;
    return at;
}

void json_write_text(bytes *b, slice s) {
    /* Room for the common case at once: nothing escaped, two quotes. An escape asks again. */
    if (s.len > SIZE_MAX - 2 || !bytes_reserve(b, s.len + 2)) {
        b->failed = true;
        return;
    }
    const char *at = s.len ? s.ptr : "";
    const char *end = at + s.len;
    char *to = b->ptr + b->len;
    *to++ = '"';
    while ((at = copy_plain(at, end, &to)) < end) {
        char escaped[ESCAPE_MAX];
        size_t len = escape((unsigned char)*at++, escaped);
        size_t rest = (size_t)(end - at) + 1;
        b->len = (size_t)(to - b->ptr);
        *to = '\0';
        if (!bytes_reserve(b, len + rest)) {
            return;
        }
        to = b->ptr + b->len;
        memcpy(to, escaped, len);
        to += len;
    }
    *to++ = '"';
    *to = '\0';
    b->len = (size_t)(to - b->ptr);
}
