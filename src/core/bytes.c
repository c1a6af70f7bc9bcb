/* Growable bytes and a bounded reader.
 *
 * Guarantees: after any failure the buffer stays as it was, nothing more is appended, and `failed`
 * says so; memory grows geometrically and never beyond max_bytes (and the closing NUL). */
#include "core/bytes.h"

#include <stdarg.h>
#include <stdio.h>

#define FIRST_BYTES 256

void bytes_init(bytes *b, const godwit_allocator *allocator, size_t max_bytes) {
    memset(b, 0, sizeof(*b));
    b->allocator = allocator;
    b->max_bytes = max_bytes;
}

void bytes_deinit(bytes *b) {
    mem_free(b->allocator, b->ptr);
    b->ptr = NULL;
    b->len = 0;
    b->cap = 0;
    b->failed = false;
}

void bytes_clear(bytes *b) {
    b->len = 0;
    b->failed = false;
    if (b->ptr) {
        b->ptr[0] = '\0';
    }
}

bool bytes_reserve(bytes *b, size_t more) {
    if (b->failed) {
        return false;
    }
    size_t need = 0;
    if (!size_add(b->len, more, &need) || need == SIZE_MAX ||
        (b->max_bytes && need > b->max_bytes)) {
        b->failed = true;
        return false;
    }
    if (b->ptr && need < b->cap) {
        return true;
    }
    size_t cap = b->cap ? b->cap : FIRST_BYTES;
    while (cap <= need) {
        cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
    }
    char *grown = mem_resize(b->allocator, b->ptr, cap);
    if (!grown) {
        b->failed = true;
        return false;
    }
    if (!b->ptr) {
        grown[0] = '\0';
    }
    b->ptr = grown;
    b->cap = cap;
    return true;
}

void bytes_add(bytes *b, const void *data, size_t len) {
    if (!bytes_reserve(b, len)) {
        return;
    }
    if (len) {
        memcpy(b->ptr + b->len, data, len);
    }
    b->len += len;
    b->ptr[b->len] = '\0';
}

void bytes_slice(bytes *b, slice s) {
    bytes_add(b, s.ptr, s.len);
}

void bytes_text(bytes *b, const char *text) {
    bytes_add(b, text, strlen(text));
}

void bytes_char(bytes *b, char c) {
    if (bytes_reserve(b, 1)) {
        b->ptr[b->len++] = c;
        b->ptr[b->len] = '\0';
    }
}

void bytes_u32be(bytes *b, uint32_t v) {
    unsigned char raw[4];
    for (int i = 0; i < 4; i++) {
        raw[i] = (unsigned char)(v >> (24 - 8 * i));
    }
    bytes_add(b, raw, sizeof(raw));
}

void bytes_u64be(bytes *b, uint64_t v) {
    unsigned char raw[8];
    for (int i = 0; i < 8; i++) {
        raw[i] = (unsigned char)(v >> (56 - 8 * i));
    }
    bytes_add(b, raw, sizeof(raw));
}

void bytes_int(bytes *b, int64_t v) {
    char digits[20];
    size_t at = sizeof(digits);
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (v < 0) {
        digits[--at] = '-';
    }
    bytes_add(b, digits + at, sizeof(digits) - at);
}

void bytes_hex(bytes *b, const void *data, size_t len) {
    static const char digits[] = "0123456789abcdef";
    size_t more = 0;
    if (!size_mul(len, 2, &more)) {
        b->failed = true;
        return;
    }
    if (!bytes_reserve(b, more)) {
        return;
    }
    const unsigned char *in = data;
    char *out = b->ptr + b->len;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = '\0';
    b->len += more;
}

void bytes_printf(bytes *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) {
        b->failed = true;
    } else if (bytes_reserve(b, (size_t)len)) {
        (void)vsnprintf(b->ptr + b->len, (size_t)len + 1, format, again);
        b->len += (size_t)len;
    }
    va_end(again);
}

void bytes_identifier(bytes *b, slice name) {
    bytes_char(b, '"');
    size_t from = 0;
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '\0') {
            /* SQL text ends at a NUL: such a name can't be quoted. */
            b->failed = true;
            return;
        }
        if (name.ptr[i] == '"') {
            bytes_add(b, name.ptr + from, i + 1 - from);
            bytes_char(b, '"');
            from = i + 1;
        }
    }
    if (name.len > from) {
        bytes_add(b, name.ptr + from, name.len - from);
    }
    bytes_char(b, '"');
}

char *bytes_take(bytes *b, size_t *len) {
    char *taken = NULL;
    size_t taken_len = 0;
    if (bytes_reserve(b, 0)) {
        taken = b->ptr;
        taken_len = b->len;
    } else {
        mem_free(b->allocator, b->ptr);
    }
    b->ptr = NULL;
    b->len = 0;
    b->cap = 0;
    b->failed = false;
    if (len) {
        *len = taken_len;
    }
    return taken;
}

slice reader_take(reader *r, size_t len) {
    if (r->failed || r->rest.len < len) {
        r->failed = true;
        return (slice){NULL, 0};
    }
    slice taken = {r->rest.ptr, len};
    if (len) {
        r->rest.ptr += len;
        r->rest.len -= len;
    }
    return taken;
}

static uint64_t read_be(reader *r, size_t len) {
    slice s = reader_take(r, len);
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        v = v << 8 | (unsigned char)s.ptr[i];
    }
    return v;
}

uint32_t reader_u32be(reader *r) {
    return (uint32_t)read_be(r, 4);
}

uint64_t reader_u64be(reader *r) {
    return read_be(r, 8);
}
