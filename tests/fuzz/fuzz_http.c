/* The reader of HTTP requests: the same bytes give the same requests and the same refusal however
 * the network cuts them into pieces. The first byte is the seed of the cuts. */
#include "fuzz.h"

#include "server/http.h"

#define BODY_MAX 4096

typedef struct {
    bytes log; /* everything that was understood */
    http_reader reader;
} run;

static void note_head(run *r) {
    const http_head *h = &r->reader.head;
    bytes_printf(&r->log, "HEAD 1.%d alive %d expect %d chunked %d length %lld\n", h->minor,
                 h->keep_alive, h->expect_continue, h->chunked, (long long)h->content_length);
    bytes_slice(&r->log, h->method);
    bytes_slice(&r->log, h->path);
    bytes_slice(&r->log, h->query);
    bytes_slice(&r->log, h->host);
    FUZZ_CHECK(h->header_count <= HTTP_HEADERS_MAX);
    FUZZ_CHECK(!(h->chunked && h->content_length >= 0));
    FUZZ_CHECK(h->minor == 0 || h->host.len > 0);
    for (size_t i = 0; i < h->header_count; i++) {
        bytes_slice(&r->log, h->headers[i].name);
        bytes_slice(&r->log, h->headers[i].value);
        FUZZ_CHECK(!memchr(h->headers[i].value.ptr, '\n', h->headers[i].value.len));
        FUZZ_CHECK(!memchr(h->headers[i].value.ptr, '\r', h->headers[i].value.len));
        FUZZ_CHECK(!memchr(h->headers[i].value.ptr, 0, h->headers[i].value.len));
    }
}

/* Goes on until bytes are needed or the reader has refused. */
static void react(run *r) {
    if (r->reader.state == HTTP_HEAD) {
        note_head(r);
        http_accept(&r->reader, BODY_MAX);
    }
    if (r->reader.state == HTTP_DONE) {
        bytes head, body;
        http_take(&r->reader, &head, &body);
        FUZZ_CHECK(body.len <= BODY_MAX);
        bytes_text(&r->log, "BODY ");
        bytes_slice(&r->log, bytes_view(&body));
        bytes_deinit(&head);
        bytes_deinit(&body);
    }
}

static void feed(run *r, slice data, uint32_t seed) {
    bytes_init(&r->log, NULL, 0);
    http_init(&r->reader);
    while (data.len > 0 && r->reader.state != HTTP_REFUSED) {
        seed = seed * 1664525U + 1013904223U;
        size_t piece = seed == 0 ? data.len : 1 + (seed >> 24) % 17;
        piece = piece > data.len ? data.len : piece;
        size_t used = http_feed(&r->reader, (slice){data.ptr, piece});
        FUZZ_CHECK(used <= piece);
        data.ptr += used;
        data.len -= used;
        react(r);
    }
    if (r->reader.state == HTTP_REFUSED) {
        FUZZ_CHECK(r->reader.status >= 400 && r->reader.reason);
        bytes_printf(&r->log, "REFUSED %d %s", r->reader.status, r->reader.reason);
    }
    http_deinit(&r->reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    unsigned seed = fuzz_byte(&data, &size);
    run whole, cut;
    feed(&whole, fuzz_slice(data, size), UINT32_C(1));
    feed(&cut, fuzz_slice(data, size), seed * 7919U + 2U);
    FUZZ_CHECK(slice_equal(bytes_view(&whole.log), bytes_view(&cut.log)));
    bytes_deinit(&whole.log);
    bytes_deinit(&cut.log);
    return 0;
}
