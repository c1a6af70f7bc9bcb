/* Writes the head of an answer, and problem documents. Pure but for the date it is given. */
#ifndef SERVER_REPLY_H
#define SERVER_REPLY_H

#include "core/bytes.h"

/* Zero = the usual: no extra header, HTTP/1.1, length 0. */
typedef struct {
    int status;
    const char *content_type; /* NULL = none */
    size_t body_bytes;
    bool no_length;      /* a stream: ends when the connection closes */
    bool close;          /* Connection: close */
    bool keep_alive_1_0; /* say keep-alive to an HTTP/1.0 client */
    bool gzip;
    bool vary; /* the answer could have been compressed */
    bool has_retry_after;
    int64_t retry_after_s;
    const char *etag;            /* NULL or "" = none; quoted here unless it is already */
    const char *allow;           /* NULL = none */
    const char *authenticate;    /* NULL = none */
    const char *accept_encoding; /* of a 415 */
} reply;

const char *reply_reason(int status); /* "Not Found"; "Unknown" for others */
/* date: as reply_date writes it. */
void reply_head(bytes *b, const reply *r, const char *date);
/* IMF-fixdate of unix seconds: 29 characters and NUL. */
void reply_date(int64_t unix_s, char out[40]);

#endif
