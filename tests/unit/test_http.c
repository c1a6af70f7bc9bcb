/* The request reader: what it accepts, every refusal, and that cutting the input into pieces
 * changes nothing. The probes are the ways in which requests have been smuggled past other parsers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "server/http.h"

#define BODY_MAX 64

typedef struct {
    http_state state;
    int status;
    const char *reason;
    size_t used;
    bytes body;
    size_t header_count;
} outcome;

/* Feeds everything, `first` bytes at once and then `step` at a time. */
static outcome run(slice input, size_t first, size_t step) {
    http_reader r;
    outcome o;
    size_t at = 0, piece = first;
    http_init(&r);
    memset(&o, 0, sizeof o);
    while (r.state != HTTP_DONE && r.state != HTTP_REFUSED) {
        if (r.state == HTTP_HEAD) {
            http_accept(&r, BODY_MAX);
            continue;
        }
        if (at == input.len) {
            break;
        }
        size_t n = piece < input.len - at ? piece : input.len - at;
        size_t used = http_feed(&r, (slice){input.ptr + at, n});
        assert_true(used <= n);
        at += used;
        piece = used < n ? n - used : step;
    }
    o.state = r.state;
    o.status = r.status;
    o.reason = r.reason;
    o.used = at;
    o.header_count = r.state == HTTP_DONE ? r.head.header_count : 0;
    o.body = r.body;
    bytes_init(&r.body, NULL, 0);
    http_deinit(&r);
    return o;
}

static void same(outcome a, outcome b, const char *name, size_t cut) {
    if (a.state != b.state || a.status != b.status || a.used != b.used ||
        a.header_count != b.header_count ||
        !slice_equal(bytes_view(&a.body), bytes_view(&b.body))) {
        fail_msg("%s: cut at %zu gives another answer", name, cut);
    }
    if (a.reason != b.reason && strcmp(a.reason, b.reason) != 0) {
        fail_msg("%s: cut at %zu gives another reason", name, cut);
    }
}

#define G "GET / HTTP/1.1\r\n"
#define P "POST / HTTP/1.1\r\nHost: a\r\n"
#define H "Host: a\r\n"

typedef struct {
    const char *name;
    slice input;
    int status; /* 0 = accepted */
    const char *body;
} probe;

#define ACCEPT(name, text, body)                                                                   \
    { name, {text, sizeof(text) - 1}, 0, body }
#define REFUSE(name, status, text)                                                                 \
    { name, {text, sizeof(text) - 1}, status, NULL }

static const probe probes[] = {
    ACCEPT("plain", G H "\r\n", ""),
    ACCEPT("one empty line first", "\r\n" G H "\r\n", ""),
    ACCEPT("query", "GET /a/b?c=d&e=%41 HTTP/1.1\r\n" H "\r\n", ""),
    ACCEPT("absolute form", "GET http://a/x HTTP/1.1\r\n" H "\r\n", ""),
    ACCEPT("1.0 without host", "GET / HTTP/1.0\r\n\r\n", ""),
    ACCEPT("blanks around a value", G "Host: \t a \t\r\n\r\n", ""),
    ACCEPT("empty value", G H "X:\r\n\r\n", ""),
    ACCEPT("host with port", G "Host: [::1]:8080\r\n\r\n", ""),
    ACCEPT("bytes above ascii in a value", G H "X: \xc3\xa9\r\n\r\n", ""),
    ACCEPT("length", P "Content-Length: 3\r\n\r\nabc", "abc"),
    ACCEPT("length zero", P "Content-Length: 0\r\n\r\n", ""),
    ACCEPT("length at the limit",
           P "Content-Length: 64\r\n\r\n"
             "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
           "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ACCEPT("chunks", P "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd"),
    ACCEPT("chunk size in capitals",
           P "Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
    ACCEPT("chunk size with zeros", P "Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n00\r\n\r\n",
           "abc"),
    ACCEPT("100-continue", P "Content-Length: 1\r\nExpect: 100-continue\r\n\r\nx", "x"),
    /* both framings, odd lengths */
    REFUSE("length and chunked", 400, P "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    REFUSE("chunked and length", 400, P "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    REFUSE("two different lengths", 400, P "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    REFUSE("two equal lengths", 400, P "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    REFUSE("two lengths in two spellings", 400, P "Content-Length: 5\r\ncontent-length: 5\r\n\r\n"),
    REFUSE("listed length", 400, P "Content-Length: 5, 5\r\n\r\n"),
    REFUSE("listed length with an empty item", 400, P "Content-Length: ,5\r\n\r\n"),
    REFUSE("plus", 400, P "Content-Length: +5\r\n\r\n"),
    REFUSE("minus", 400, P "Content-Length: -5\r\n\r\n"),
    REFUSE("minus zero", 400, P "Content-Length: -0\r\n\r\n"),
    REFUSE("hexadecimal length", 400, P "Content-Length: 0x5\r\n\r\n"),
    REFUSE("octal length", 400, P "Content-Length: 05\r\n\r\n"),
    REFUSE("fraction", 400, P "Content-Length: 5.0\r\n\r\n"),
    REFUSE("exponent", 400, P "Content-Length: 1e1\r\n\r\n"),
    REFUSE("digits and a blank", 400, P "Content-Length: 1 0\r\n\r\n"),
    REFUSE("underscore", 400, P "Content-Length: 1_0\r\n\r\n"),
    REFUSE("empty length", 400, P "Content-Length:\r\n\r\n"),
    REFUSE("letters", 400, P "Content-Length: five\r\n\r\n"),
    REFUSE("digits that are not ascii", 400, P "Content-Length: \xd9\xa5\r\n\r\n"),
    REFUSE("length of 2^64 + 5", 413, P "Content-Length: 18446744073709551621\r\n\r\n"),
    REFUSE("length of 2^63", 413, P "Content-Length: 9223372036854775808\r\n\r\n"),
    REFUSE("length over the limit", 413, P "Content-Length: 65\r\n\r\n"),
    /* transfer codings */
    REFUSE("chunked twice", 400,
           P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    REFUSE("chunked, identity", 400,
           P "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"),
    REFUSE("chunked listed twice", 400, P "Transfer-Encoding: chunked, chunked\r\n\r\n"),
    REFUSE("identity", 400, P "Transfer-Encoding: identity\r\n\r\n"),
    REFUSE("gzip, chunked", 400, P "Transfer-Encoding: gzip, chunked\r\n\r\n"),
    REFUSE("chunked, gzip", 400, P "Transfer-Encoding: chunked, gzip\r\n\r\n"),
    REFUSE("xchunked", 400, P "Transfer-Encoding: xchunked\r\n\r\n"),
    REFUSE("chunked with a parameter", 400, P "Transfer-Encoding: chunked;a=b\r\n\r\n"),
    REFUSE("quoted chunked", 400, P "Transfer-Encoding: \"chunked\"\r\n\r\n"),
    REFUSE("chunked with a vertical tab", 400,
           P "Transfer-Encoding: \x0b"
             "chunked\r\n\r\n"),
    REFUSE("chunked with a no-break space", 400,
           P "Transfer-Encoding: \xa0"
             "chunked\r\n\r\n"),
    REFUSE("empty coding", 400, P "Transfer-Encoding:\r\n\r\n"),
    REFUSE("comma chunked", 400, P "Transfer-Encoding: ,chunked\r\n\r\n"),
    REFUSE("folded coding", 400, P "Transfer-Encoding:\r\n chunked\r\n\r\n"),
    REFUSE("coding in 1.0", 400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    REFUSE("coding with a blank before the colon", 400, P "Transfer-Encoding : chunked\r\n\r\n"),
    REFUSE("coding with a tab before the colon", 400, P "Transfer-Encoding\t: chunked\r\n\r\n"),
    /* lines */
    REFUSE("bare LF after the request line", 400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    REFUSE("bare LF after a header", 400, G "Host: a\n\r\n"),
    REFUSE("bare LF at the end", 400, G H "\n"),
    REFUSE("bare CR in a value", 400, G "Host: a\rX: b\r\n\r\n"),
    REFUSE("bare CR in the request line", 400, "GET /\r HTTP/1.1\r\n" H "\r\n"),
    REFUSE("CR CR LF", 400, G H "\r\r\n"),
    REFUSE("LF LF", 400, "GET / HTTP/1.1\n\n"),
    REFUSE("folded header", 400, G H "X: a\r\n b\r\n\r\n"),
    REFUSE("header folded with a tab", 400, G H "X: a\r\n\tb\r\n\r\n"),
    REFUSE("blank line that is not empty", 400, G H " \r\n\r\n"),
    REFUSE("first header begins with a blank", 400, G " Host: a\r\n\r\n"),
    REFUSE("NUL in a name", 400, G H "X\0Y: a\r\n\r\n"),
    REFUSE("NUL in a value", 400, G H "X: a\0b\r\n\r\n"),
    REFUSE("NUL in the target", 400, "GET /\0 HTTP/1.1\r\n" H "\r\n"),
    REFUSE("control byte in a value", 400, G H "X: \x01\r\n\r\n"),
    REFUSE("escape in a value", 400, G H "X: \x1b[2J\r\n\r\n"),
    REFUSE("DEL in a value", 400, G H "X: \x7f\r\n\r\n"),
    REFUSE("no colon", 400, G H "X\r\n\r\n"),
    REFUSE("empty name", 400, G H ": a\r\n\r\n"),
    REFUSE("blank before the colon", 400, G "Host : a\r\n\r\n"),
    REFUSE("blank in a name", 400, G H "X Y: a\r\n\r\n"),
    REFUSE("brackets in a name", 400, G H "X[]: a\r\n\r\n"),
    REFUSE("high byte in a name", 400, G H "X\xe9: a\r\n\r\n"),
    REFUSE("two empty lines first", 400, "\r\n\r\n" G H "\r\n"),
    /* hosts */
    REFUSE("no host", 400, G "\r\n"),
    REFUSE("two hosts", 400, G H H "\r\n"),
    REFUSE("two hosts in 1.0", 400, "GET / HTTP/1.0\r\n" H "Host: b\r\n\r\n"),
    REFUSE("empty host", 400, G "Host:\r\n\r\n"),
    REFUSE("host with a path", 400, G "Host: a/b\r\n\r\n"),
    REFUSE("host with a user", 400, G "Host: u@a\r\n\r\n"),
    REFUSE("listed host", 400, G "Host: a, b\r\n\r\n"),
    REFUSE("host unlike the target", 400, "GET http://b/ HTTP/1.1\r\n" H "\r\n"),
    REFUSE("target with a user", 400, "GET http://u@a/ HTTP/1.1\r\n" H "\r\n"),
    /* request line */
    REFUSE("version 0.9", 400, "GET /\r\n\r\n"),
    REFUSE("version 2.0", 505, "GET / HTTP/2.0\r\n" H "\r\n"),
    REFUSE("version 1.2", 505, "GET / HTTP/1.2\r\n" H "\r\n"),
    REFUSE("preface of HTTP/2", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    REFUSE("version with a zero", 400, "GET / HTTP/1.01\r\n" H "\r\n"),
    REFUSE("version without a dot", 400, "GET / HTTP/11\r\n" H "\r\n"),
    REFUSE("version in small letters", 400, "GET / http/1.1\r\n" H "\r\n"),
    REFUSE("blank after the version", 400, "GET / HTTP/1.1 \r\n" H "\r\n"),
    REFUSE("two blanks before the target", 400, "GET  / HTTP/1.1\r\n" H "\r\n"),
    REFUSE("two blanks before the version", 400, "GET /  HTTP/1.1\r\n" H "\r\n"),
    REFUSE("tab as a separator", 400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
    REFUSE("blank first", 400, " GET / HTTP/1.1\r\n" H "\r\n"),
    REFUSE("blank in the target", 400, "GET /a b HTTP/1.1\r\n" H "\r\n"),
    REFUSE("fragment", 400, "GET /#a HTTP/1.1\r\n" H "\r\n"),
    REFUSE("backslash", 400, "GET /\\a HTTP/1.1\r\n" H "\r\n"),
    REFUSE("target above ascii", 400, "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
    REFUSE("target without a slash", 400, "GET a HTTP/1.1\r\n" H "\r\n"),
    REFUSE("asterisk", 400, "OPTIONS * HTTP/1.1\r\n" H "\r\n"),
    REFUSE("authority form", 400, "CONNECT a:80 HTTP/1.1\r\n" H "\r\n"),
    REFUSE("bad method", 400, "GE(T / HTTP/1.1\r\n" H "\r\n"),
    REFUSE("client hello of TLS", 400, "\x16\x03\x01\x02"),
/* chunks */
#define C P "Transfer-Encoding: chunked\r\n\r\n"
    REFUSE("chunk extension", 400, C "3;a=b\r\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk extension without a name", 400, C "3;\r\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk size with 0x", 400, C "0x3\r\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk size with a sign", 400, C "+3\r\nabc\r\n0\r\n\r\n"),
    REFUSE("negative chunk size", 400, C "-1\r\n\r\n"),
    REFUSE("chunk size after a blank", 400, C " 3\r\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk size before a blank", 400, C "3 \r\nabc\r\n0\r\n\r\n"),
    REFUSE("no chunk size", 400, C "\r\nabc\r\n"),
    REFUSE("chunk size not hexadecimal", 400, C "g\r\n"),
    REFUSE("chunk size too long", 400, C "000000003\r\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk size that wraps", 400, C "FFFFFFFFFFFFFFF3\r\nabc\r\n"),
    REFUSE("chunk over the limit", 413, C "41\r\n"),
    REFUSE("second chunk over the limit", 413, C "1\r\na\r\n40\r\n"),
    REFUSE("huge chunk", 413, C "FFFFFFFF\r\n"),
    REFUSE("chunk size ends with LF", 400, C "3\nabc\r\n0\r\n\r\n"),
    REFUSE("chunk longer than its size", 400, C "3\r\nabcd\r\n0\r\n\r\n"),
    REFUSE("chunk ends with LF", 400, C "3\r\nabc\n0\r\n\r\n"),
    REFUSE("chunk without an end", 400, C "3\r\nabc0\r\n\r\n"),
    REFUSE("trailer", 400, C "0\r\nX: y\r\n\r\n"),
    REFUSE("last chunk ends with LF", 400, C "0\r\n\n"),
    REFUSE("CR within the chunk size", 400, C "3\r\rabc"),
    /* the rest */
    REFUSE("unknown expectation", 417, P "Expect: 200-ok\r\n\r\n"),
    REFUSE("two expectations", 400, P "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
    REFUSE("two authorizations", 400,
           G H "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"),
    REFUSE("two content encodings", 400,
           P "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n"),
};

static void every_probe_has_its_answer(void **state) {
    (void)state;
    assert_true(COUNT_OF(probes) >= 100);
    for (size_t i = 0; i < COUNT_OF(probes); i++) {
        const probe *p = &probes[i];
        outcome o = run(p->input, p->input.len, p->input.len);
        if (o.status != p->status) {
            fail_msg("%s: %d %s, expected %d", p->name, o.status, o.reason ? o.reason : "",
                     p->status);
        }
        assert_int_equal(o.state, p->status ? HTTP_REFUSED : HTTP_DONE);
        assert_true(!p->status == !o.reason);
        if (p->body && !slice_is(bytes_view(&o.body), p->body)) {
            fail_msg("%s: another body", p->name);
        }
        bytes_deinit(&o.body);
    }
}

static void cutting_changes_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(probes); i++) {
        slice input = probes[i].input;
        outcome whole = run(input, input.len, input.len);
        for (size_t cut = 1; cut < input.len; cut++) {
            outcome pieces = run(input, cut, input.len);
            same(whole, pieces, probes[i].name, cut);
            bytes_deinit(&pieces.body);
        }
        outcome single = run(input, 1, 1);
        same(whole, single, probes[i].name, 0);
        bytes_deinit(&single.body);
        bytes_deinit(&whole.body);
    }
}

static int fill_and_run(const char *before, char fill, size_t count, const char *after) {
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, before);
    for (size_t i = 0; i < count; i++) {
        bytes_char(&b, fill);
    }
    bytes_text(&b, after);
    outcome o = run(bytes_view(&b), b.len, b.len);
    outcome single = run(bytes_view(&b), 1, 1);
    same(o, single, before, 0);
    bytes_deinit(&o.body);
    bytes_deinit(&single.body);
    bytes_deinit(&b);
    return o.state == HTTP_DONE ? 200 : o.status;
}

static void sizes_are_bounded(void **state) {
    (void)state;
    size_t frame = strlen("GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n");
    size_t fits = HTTP_HEAD_BYTES_MAX - frame;
    const char *end = "\r\n\r\n";
    assert_int_equal(fill_and_run(G H "X: ", 'x', fits, end), 200);
    assert_int_equal(fill_and_run(G H "X: ", 'x', fits + 1, end), 431);
    assert_int_equal(fill_and_run(G H "X: ", 'x', 10 * fits, end), 431);
    size_t line = strlen("GET / HTTP/1.1");
    assert_int_equal(
        fill_and_run("GET /", 'x', HTTP_TARGET_BYTES_MAX - line, " HTTP/1.1\r\nHost: a\r\n\r\n"),
        200);
    assert_int_equal(fill_and_run("GET /", 'x', HTTP_TARGET_BYTES_MAX - line + 1,
                                  " HTTP/1.1\r\nHost: a\r\n\r\n"),
                     414);
    assert_int_equal(fill_and_run("GET /", 'x', 100000, ""), 414);
    assert_int_equal(fill_and_run("", 'G', 33, " / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

static void headers_are_counted(void **state) {
    (void)state;
    for (size_t more = HTTP_HEADERS_MAX - 1; more <= HTTP_HEADERS_MAX; more++) {
        bytes b;
        bytes_init(&b, NULL, 0);
        bytes_text(&b, G H);
        for (size_t i = 0; i < more; i++) {
            bytes_text(&b, "X: y\r\n");
        }
        bytes_text(&b, "\r\n");
        outcome o = run(bytes_view(&b), b.len, b.len);
        assert_int_equal(o.state, more < HTTP_HEADERS_MAX ? HTTP_DONE : HTTP_REFUSED);
        assert_int_equal(o.status, more < HTTP_HEADERS_MAX ? 0 : 431);
        bytes_deinit(&o.body);
        bytes_deinit(&b);
    }
}

static void pipelined_requests_come_in_order(void **state) {
    (void)state;
    slice input = SLICE("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
                        "\r\nGET /2?q HTTP/1.1\r\nHost: a\r\n\r\n"
                        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "1\r\nx\r\n0\r\n\r\nGET /4 HT");
    static const char *const paths[] = {"/1", "/2", "/3"}, *const bodies[] = {"ab", "", "x"};
    http_reader r;
    http_init(&r);
    for (size_t i = 0; i < 3; i++) {
        size_t used = http_feed(&r, input);
        input = (slice){input.ptr + used, input.len - used};
        assert_int_equal(r.state, HTTP_HEAD);
        assert_true(slice_is(r.head.path, paths[i]));
        assert_true(slice_is(r.head.query, i == 1 ? "q" : ""));
        http_accept(&r, BODY_MAX);
        used = http_feed(&r, input);
        input = (slice){input.ptr + used, input.len - used};
        assert_int_equal(r.state, HTTP_DONE);
        slice path = r.head.path;
        bytes head_text, body;
        http_take(&r, &head_text, &body);
        assert_true(slice_is(path, paths[i])); /* still there: it points into head_text */
        assert_true(slice_is(bytes_view(&body), bodies[i]));
        bytes_deinit(&head_text);
        bytes_deinit(&body);
        assert_true(http_is_idle(&r));
    }
    assert_int_equal(http_feed(&r, input), strlen("GET /4 HT"));
    assert_false(http_is_idle(&r));
    http_deinit(&r);
}

static void keep_alive_as_the_version_says(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
        {G H "\r\n", true},
        {G H "Connection: close\r\n\r\n", false},
        {G H "Connection: CLOSE\r\n\r\n", false},
        {G H "Connection: x, close\r\n\r\n", false},
        {G H "Connection: x\r\nConnection: close\r\n\r\n", false},
        {G H "Connection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        http_reader r;
        http_init(&r);
        (void)http_feed(&r, slice_of(cases[i].text));
        assert_int_equal(r.state, HTTP_HEAD);
        assert_int_equal(r.head.keep_alive, cases[i].keep);
        http_deinit(&r);
    }
}

static void expectation_only_in_1_1(void **state) {
    (void)state;
    http_reader r;
    http_init(&r);
    (void)http_feed(&r, slice_of(P "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n"));
    assert_true(r.head.expect_continue);
    http_deinit(&r);
    http_init(&r);
    (void)http_feed(&r, slice_of("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"));
    assert_int_equal(r.state, HTTP_HEAD);
    assert_false(r.head.expect_continue);
    http_deinit(&r);
}

static void nothing_is_consumed_after_the_end(void **state) {
    (void)state;
    http_reader r;
    http_init(&r);
    (void)http_feed(&r, slice_of("\n"));
    assert_int_equal(r.state, HTTP_REFUSED);
    assert_int_equal(http_feed(&r, SLICE("GET / HTTP/1.1\r\n")), 0);
    assert_int_equal(r.status, 400);
    http_deinit(&r);
}

static void lists_are_read(void **state) {
    (void)state;
    assert_true(http_list_has(SLICE("gzip"), "gzip"));
    assert_true(http_list_has(SLICE("br, GZIP;q=0.5"), "gzip"));
    assert_true(http_list_has(SLICE(" gzip ; q=1.0 , br"), "gzip"));
    assert_false(http_list_has(SLICE("gzip;q=0"), "gzip"));
    assert_false(http_list_has(SLICE("gzip;q=0.000"), "gzip"));
    assert_false(http_list_has(SLICE("gzipx"), "gzip"));
    assert_false(http_list_has(SLICE("x gzip"), "gzip"));
    assert_false(http_list_has(SLICE(""), "gzip"));
    assert_false(http_list_has(SLICE(",,,"), "gzip"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_probe_has_its_answer),
        cmocka_unit_test(cutting_changes_nothing),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(headers_are_counted),
        cmocka_unit_test(pipelined_requests_come_in_order),
        cmocka_unit_test(keep_alive_as_the_version_says),
        cmocka_unit_test(expectation_only_in_1_1),
        cmocka_unit_test(nothing_is_consumed_after_the_end),
        cmocka_unit_test(lists_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
