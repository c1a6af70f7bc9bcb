/* A growable byte buffer and a bounded reader, both with a sticky error checked once at the end. */
#ifndef CORE_BYTES_H
#define CORE_BYTES_H

#include "core/base.h"

typedef struct {
    char *ptr;   /* NUL-terminated whenever it is not NULL */
    size_t len, cap, max_bytes; /* max_bytes 0 = no bound */
    bool failed; /* sticky: out of memory or over max_bytes */
    const godwit_allocator *allocator;
} bytes;

void bytes_init(bytes *b, const godwit_allocator *allocator, size_t max_bytes);
void bytes_deinit(bytes *b);
void bytes_clear(bytes *b); /* keeps the memory, clears `failed` */
bool bytes_reserve(bytes *b, size_t more);
void bytes_add(bytes *b, const void *data, size_t len);
void bytes_slice(bytes *b, slice s);
void bytes_text(bytes *b, const char *text);
void bytes_char(bytes *b, char c);
void bytes_u32be(bytes *b, uint32_t v);
void bytes_u64be(bytes *b, uint64_t v);
void bytes_int(bytes *b, int64_t v);  /* decimal */
void bytes_hex(bytes *b, const void *data, size_t len); /* lower case */
void bytes_printf(bytes *b, const char *format, ...) PRINTF_LIKE(2, 3);
/* "name" with double quotes doubled: the one identifier quoting function of the project. */
void bytes_identifier(bytes *b, slice name);
static inline slice bytes_view(const bytes *b) { return (slice){b->ptr, b->len}; }
/* Gives the buffer away (transferred; free with mem_free) and leaves *b empty. NULL when failed. */
char *bytes_take(bytes *b, size_t *len);

typedef struct {
    slice rest;
    bool failed;
} reader;
uint32_t reader_u32be(reader *r);
uint64_t reader_u64be(reader *r);
slice reader_take(reader *r, size_t len);

#endif
