/* The strict request reader. Two scanners: the head is collected byte by byte under checks that
 * need no context (CRLF line ends, no NUL, size), then parsed as a whole by http_head.c; the body
 * is counted or unchunked by a small machine over single bytes, data in runs.
 *
 * Nothing here allocates more than the limits allow, and nothing is decided on a part of a head. */
#include "server/http.h"

#include "server/http_head.h"

enum { STEP_SIZE, STEP_SIZE_LF, STEP_DATA, STEP_DATA_CR, STEP_DATA_LF, STEP_LAST_CR, STEP_LAST_LF };

#define CHUNK_DIGITS_MAX 8 /* 4 GiB: far above any body limit, far below overflow */

static void refuse(http_reader *r, int status, const char *reason) {
    r->state = HTTP_REFUSED;
    r->status = status;
    r->reason = reason;
}

static void begin(http_reader *r) {
    r->state = HTTP_READING_HEAD;
    r->status = 0;
    r->reason = NULL;
    memset(&r->head, 0, sizeof r->head);
    bytes_init(&r->head_text, NULL, HTTP_HEAD_BYTES_MAX + 1);
    bytes_init(&r->body, NULL, 0);
    r->step = STEP_SIZE;
    r->saw_cr = false;
    r->skipped_line = false;
    r->in_first_line = true;
    r->line_bytes = 0;
    r->body_max = 0;
    r->left = 0;
    r->digits = 0;
}

void http_init(http_reader *r) {
    begin(r);
}

void http_deinit(http_reader *r) {
    bytes_deinit(&r->head_text);
    bytes_deinit(&r->body);
}

bool http_is_idle(const http_reader *r) {
    return r->state == HTTP_READING_HEAD && r->head_text.len == 0 && !r->saw_cr;
}

static void line_ended(http_reader *r) {
    if (r->line_bytes > 0) {
        r->in_first_line = false;
        r->line_bytes = 0;
        return;
    }
    if (!r->in_first_line) {
        r->state = HTTP_HEAD; /* the empty line */
        return;
    }
    /* RFC 9112 2.2: one empty line before a request is ignored. */
    if (r->skipped_line) {
        refuse(r, 400, "empty lines before the request");
        return;
    }
    r->skipped_line = true;
}

/* One byte of the head that is not part of a correct line end; false when refused. */
static bool head_byte_allowed(http_reader *r, unsigned char c) {
    if (c == '\n') {
        refuse(r, 400, "bare LF");
    } else if (c == 0) {
        refuse(r, 400, "NUL in the head");
    } else if (r->in_first_line && r->line_bytes == 0 && !http_is_token_byte(c)) {
        refuse(r, 400, "not an HTTP request");
    } else if (r->in_first_line && r->line_bytes >= HTTP_TARGET_BYTES_MAX) {
        refuse(r, 414, "request line too long");
    }
    return r->state == HTTP_READING_HEAD;
}

static size_t feed_head(http_reader *r, slice data) {
    size_t i = 0;
    while (i < data.len && r->state == HTTP_READING_HEAD) {
        unsigned char c = (unsigned char)data.ptr[i++];
        if (r->saw_cr) {
            if (c != '\n') {
                refuse(r, 400, "bare CR");
                break;
            }
            r->saw_cr = false;
            bool leading = r->in_first_line && r->line_bytes == 0;
            if (!leading) {
                bytes_add(&r->head_text, "\r\n", 2);
            }
            line_ended(r);
        } else if (c == '\r') {
            r->saw_cr = true;
        } else if (head_byte_allowed(r, c)) {
            r->line_bytes++;
            bytes_char(&r->head_text, (char)c);
        }
        if (r->head_text.failed || r->head_text.len > HTTP_HEAD_BYTES_MAX) {
            refuse(r, 431, "head too large");
        }
    }
    if (r->state == HTTP_HEAD) {
        http_refusal refusal = {0, NULL};
        if (!http_head_parse(bytes_view(&r->head_text), &r->head, &refusal)) {
            refuse(r, refusal.status, refusal.reason);
        }
    }
    return i;
}

void http_accept(http_reader *r, size_t body_max) {
    ASSERT(r->state == HTTP_HEAD);
    r->body_max = body_max;
    if (r->head.chunked) {
        r->state = HTTP_READING_BODY;
        r->step = STEP_SIZE;
    } else if (r->head.content_length <= 0) {
        r->state = HTTP_DONE;
    } else if ((uint64_t)r->head.content_length > body_max) {
        refuse(r, 413, "body over the limit");
    } else {
        r->left = (uint64_t)r->head.content_length;
        r->state = HTTP_READING_BODY;
    }
}

static bool body_add(http_reader *r, const char *data, size_t len) {
    bytes_add(&r->body, data, len);
    if (r->body.failed) {
        refuse(r, 503, "out of memory");
    }
    return !r->body.failed;
}

static size_t feed_counted(http_reader *r, slice data) {
    size_t take = data.len < r->left ? data.len : (size_t)r->left;
    if (!body_add(r, data.ptr, take)) {
        return take;
    }
    r->left -= take;
    if (r->left == 0) {
        r->state = HTTP_DONE;
    }
    return take;
}

static int hex_value(unsigned char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A byte of the chunk-size line. */
static void chunk_size_byte(http_reader *r, unsigned char c) {
    int value = hex_value(c);
    if (value >= 0 && r->digits < CHUNK_DIGITS_MAX) {
        r->left = r->left * 16 + (uint64_t)value;
        r->digits++;
    } else if (value >= 0) {
        refuse(r, 400, "chunk size too long");
    } else if (c == '\r' && r->digits > 0) {
        r->step = STEP_SIZE_LF;
    } else if (c == ';' && r->digits > 0) {
        refuse(r, 400, "chunk extension");
    } else {
        refuse(r, 400, "bad chunk size");
    }
}

/* The LF of the chunk-size line: the size is known. */
static void chunk_size_end(http_reader *r) {
    if (r->left > r->body_max - r->body.len) {
        refuse(r, 413, "body over the limit");
        return;
    }
    r->step = r->left > 0 ? STEP_DATA : STEP_LAST_CR;
    r->digits = 0;
}

static void chunk_byte(http_reader *r, unsigned char c) {
    static const struct {
        char wanted;
        const char *reason;
    } fixed[] = {
        [STEP_SIZE_LF] = {'\n', "bad end of a chunk size"},
        [STEP_DATA_CR] = {'\r', "chunk longer than its size"},
        [STEP_DATA_LF] = {'\n', "bad end of a chunk"},
        [STEP_LAST_CR] = {'\r', "trailers are not accepted"},
        [STEP_LAST_LF] = {'\n', "bad end of the last chunk"},
    };
    if (r->step == STEP_SIZE) {
        chunk_size_byte(r, c);
        return;
    }
    if ((char)c != fixed[r->step].wanted) {
        refuse(r, 400, fixed[r->step].reason);
        return;
    }
    switch (r->step) {
    case STEP_SIZE_LF:
        chunk_size_end(r);
        break;
    case STEP_DATA_LF:
        r->step = STEP_SIZE;
        r->left = 0;
        break;
    case STEP_LAST_LF:
        r->state = HTTP_DONE;
        break;
    default:
        r->step++;
        break;
    }
}

static size_t feed_chunked(http_reader *r, slice data) {
    size_t i = 0;
    while (i < data.len && r->state == HTTP_READING_BODY) {
        if (r->step != STEP_DATA) {
            chunk_byte(r, (unsigned char)data.ptr[i++]);
            continue;
        }
        size_t take = data.len - i < r->left ? data.len - i : (size_t)r->left;
        if (!body_add(r, data.ptr + i, take)) {
            break;
        }
        i += take;
        r->left -= take;
        if (r->left == 0) {
            r->step = STEP_DATA_CR;
        }
    }
    return i;
}

size_t http_feed(http_reader *r, slice data) {
    switch (r->state) {
    case HTTP_READING_HEAD:
        return feed_head(r, data);
    case HTTP_READING_BODY:
        return r->head.chunked ? feed_chunked(r, data) : feed_counted(r, data);
    case HTTP_HEAD:
    case HTTP_DONE:
    case HTTP_REFUSED:
        break;
    }
    return 0;
}

void http_take(http_reader *r, bytes *head_text, bytes *body) {
    ASSERT(r->state == HTTP_DONE);
    *head_text = r->head_text;
    *body = r->body;
    begin(r);
}
