/* The head of an HTTP/1.1 request as a whole: request line, headers, and what they say about
 * framing. Pure; used by http.c. */
#ifndef SERVER_HTTP_HEAD_H
#define SERVER_HTTP_HEAD_H

#include "server/http.h"

typedef struct {
    int status;
    const char *reason; /* constant text */
} http_refusal;

/* text: from the first byte of the method to the empty line, CRLF line ends, no other CR, LF or
 * NUL. false: *refusal says why and *out is not to be used. Slices of *out point into text. */
bool http_head_parse(slice text, http_head *out, http_refusal *refusal) MUST_USE;
bool http_is_token_byte(unsigned char c); /* tchar of RFC 9110 5.6.2 */

#endif
