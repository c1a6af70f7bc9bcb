/* The status line and headers of every answer come from here, so that each has the same set. */
#include "server/reply.h"

#include <stdio.h>
#include <time.h>

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
};

const char *reply_reason(int status) {
    for (size_t i = 0; i < COUNT_OF(reasons); i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Unknown";
}

void reply_date(int64_t unix_s, char out[40]) {
    /* Not strftime: its names depend on the locale. */
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t seconds = (time_t)unix_s;
    struct tm t;
    memset(&t, 0, sizeof t);
    (void)gmtime_r(&seconds, &t);
    snprintf(out, 40, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * (t.tm_wday % 7),
             t.tm_mday % 100, months + 3 * (t.tm_mon % 12), (t.tm_year + 1900) % 10000,
             t.tm_hour % 100, t.tm_min % 100, t.tm_sec % 100);
}

static void header(bytes *b, const char *name, const char *value) {
    if (value && *value) {
        bytes_text(b, name);
        bytes_text(b, ": ");
        bytes_text(b, value);
        bytes_text(b, "\r\n");
    }
}

static void number(bytes *b, const char *name, int64_t value) {
    bytes_text(b, name);
    bytes_text(b, ": ");
    bytes_int(b, value);
    bytes_text(b, "\r\n");
}

void reply_head(bytes *b, const reply *r, const char *date) {
    bytes_text(b, "HTTP/1.1 ");
    bytes_int(b, r->status);
    bytes_char(b, ' ');
    bytes_text(b, reply_reason(r->status));
    bytes_text(b, "\r\n");
    header(b, "Date", date);
    header(b, "Content-Type", r->content_type);
    if (!r->no_length && r->status != 304) {
        number(b, "Content-Length", (int64_t)r->body_bytes);
    }
    header(b, "Content-Encoding", r->gzip ? "gzip" : NULL);
    header(b, "Vary", r->vary ? "Accept-Encoding" : NULL);
    header(b, "Cache-Control", "no-store");
    header(b, "X-Content-Type-Options", "nosniff");
    if (r->etag && r->etag[0] && r->etag[0] != '"') {
        bytes_text(b, "ETag: \"");
        bytes_text(b, r->etag);
        bytes_text(b, "\"\r\n");
    } else {
        header(b, "ETag", r->etag);
    }
    if (r->has_retry_after) {
        number(b, "Retry-After", r->retry_after_s);
    }
    header(b, "Allow", r->allow);
    header(b, "WWW-Authenticate", r->authenticate);
    header(b, "Accept-Encoding", r->accept_encoding);
    header(b, "Connection", r->close ? "close" : r->keep_alive_1_0 ? "keep-alive" : NULL);
    bytes_text(b, "\r\n");
}
