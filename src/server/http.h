/* Reads HTTP/1.1 requests from bytes: pure, incremental, strict (RFC 9112).
 *
 * What two readers could understand differently is refused instead of repaired: both framings at
 * once, repeated or listed lengths, folded lines, bare CR or LF, a space before a colon, chunk
 * extensions and trailers. The same bytes give the same answer however they are cut into pieces.
 *
 *   READING_HEAD --head complete--> HEAD --http_accept--> READING_BODY --> DONE --http_take--+
 *        ^                                                                                   |
 *        +-----------------------------------------------------------------------------------+
 *   any state --bad input--> REFUSED (final: answer, then close)
 *
 * Leaves to others: sockets, deadlines, what a path means, decompression. */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include "core/bytes.h"
#include "core/limits.h"

typedef enum {
    HTTP_READING_HEAD,
    HTTP_HEAD, /* head is complete: look at it, then http_accept or refuse by closing */
    HTTP_READING_BODY,
    HTTP_DONE, /* the whole request is here */
    HTTP_REFUSED
} http_state;

typedef struct {
    slice name, value; /* value without surrounding blanks */
} http_header;

/* Slices point into the reader's head text (see http_take). */
typedef struct {
    slice method, path, query; /* query without '?'; empty when absent */
    int minor;                 /* 0 or 1 */
    http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;
    slice host; /* empty on HTTP/1.0 without the header */
    bool keep_alive;
    bool expect_continue;
    bool chunked;
    int64_t content_length; /* -1 = no such header */
} http_head;

typedef struct {
    http_state state;
    int status;         /* REFUSED: 400, 413, 414, 417, 431, 503, 505 */
    const char *reason; /* REFUSED: constant text */
    http_head head;     /* valid from HEAD on */
    bytes head_text, body;
    /* the scanner's own */
    int step;
    bool saw_cr, skipped_line, in_first_line;
    size_t line_bytes, body_max;
    uint64_t left; /* of the body or the chunk */
    int digits;    /* of a chunk size */
} http_reader;

void http_init(http_reader *r);
void http_deinit(http_reader *r);
/* Consumes bytes until the state becomes HEAD, DONE or REFUSED, or none are left; returns how many.
 * In those three states it consumes nothing. */
size_t http_feed(http_reader *r, slice data);
/* HEAD -> READING_BODY, DONE (no body), or REFUSED with 413 when the announced length is over
 * body_max bytes. A chunked body is refused as soon as it passes body_max. */
void http_accept(http_reader *r, size_t body_max);
/* DONE -> READING_HEAD. Transfers both buffers (the head's slices stay valid as long as
 * *head_text); the caller frees them with bytes_deinit. */
void http_take(http_reader *r, bytes *head_text, bytes *body);
/* True when nothing of a request has arrived yet. */
bool http_is_idle(const http_reader *r);

/* First header of that name (letters compare without case); false when absent. */
bool http_header_find(const http_head *head, const char *name, slice *value);
/* True when a comma separated list has the token, without case, parameters ignored. A token with
 * "q=0" does not count. */
bool http_list_has(slice list, const char *token);

#endif
