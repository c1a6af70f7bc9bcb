/* HTTP by libcurl. See transport.h.
 *
 * One easy handle per transport, run in a multi handle that keeps the connections. Redirects are
 * not followed at all, so a token never travels to another host. Nothing of a request or an answer
 * is logged. */
#include "transport/transport.h"

#include <curl/curl.h>
#include <stdio.h>
#include <time.h>

#define CONNECT_TIMEOUT_MS 10000L
#define CANCEL_STEP_MS     100 /* between questions whether a request is still wanted */
#define REASON_BYTES       sizeof(((godwit_http_answer *)0)->reason)

struct transport {
    const godwit_allocator *allocator;
    CURL *curl;
    CURLM *multi; /* holds the connections; a transfer in it can be given up at any moment */
    bytes gzip;
    bytes ca_file; /* a path and NUL; empty = the system's */
    char error[CURL_ERROR_SIZE];
};

typedef struct {
    bytes *body;
    size_t answer_max;
    bool too_large;
    int64_t retry_after_ms;
} sink;

godwit_status transport_create(const godwit_allocator *allocator, transport **out) {
    *out = NULL;
    transport *t = mem_resize(allocator, NULL, sizeof *t);
    if (!t) {
        return GODWIT_NOMEM;
    }
    memset(t, 0, sizeof *t);
    t->allocator = allocator;
    bytes_init(&t->gzip, allocator, 0);
    bytes_init(&t->ca_file, allocator, 0);
    t->curl = curl_easy_init(); /* initialises the library too; thread-safe since 7.84 */
    t->multi = curl_multi_init();
    if (!t->curl || !t->multi) {
        transport_destroy(t);
        return GODWIT_NOMEM;
    }
    *out = t;
    return GODWIT_OK;
}

void transport_destroy(transport *t) {
    if (t) {
        curl_easy_cleanup(t->curl);
        (void)curl_multi_cleanup(t->multi);
        bytes_deinit(&t->gzip);
        bytes_deinit(&t->ca_file);
        mem_free(t->allocator, t);
    }
}

void transport_trust(transport *t, slice ca_file) {
    bytes_clear(&t->ca_file);
    if (ca_file.len > 0) {
        bytes_add(&t->ca_file, ca_file.ptr, ca_file.len);
        bytes_char(&t->ca_file, 0);
    }
}

static size_t take_body(char *data, size_t size, size_t count, void *context) {
    sink *s = context;
    size_t len = size * count; /* size is always 1 */
    if (len > s->answer_max || s->body->len > s->answer_max - len) {
        s->too_large = true;
        return 0; /* less than len: libcurl gives up */
    }
    bytes_add(s->body, data, len);
    return s->body->failed ? 0 : len;
}

static bool header_is(slice line, const char *name) {
    for (size_t i = 0; name[i]; i++) {
        char c = i < line.len ? line.ptr[i] : 0;
        if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != name[i]) {
            return false;
        }
    }
    return true;
}

static size_t take_header(char *data, size_t size, size_t count, void *context) {
    sink *s = context;
    slice line = {data, size * count};
    static const char name[] = "retry-after:";
    if (header_is(line, name)) {
        slice text = {line.ptr + sizeof name - 1, line.len - (sizeof name - 1)};
        s->retry_after_ms = transport_retry_after_ms(text, (int64_t)time(NULL) * 1000);
    }
    return size * count;
}

static bool add_header(struct curl_slist **list, const char *line) {
    struct curl_slist *next = curl_slist_append(*list, line);
    if (!next) {
        return false;
    }
    *list = next;
    return true;
}

static bool build_headers(const godwit_http_request *request, bool compressed,
                          struct curl_slist **out) {
    bool ok = add_header(out, "Expect:"); /* no 100-continue: it costs a round trip */
    if (compressed) {
        ok = ok && add_header(out, "Content-Encoding: gzip");
    }
    for (size_t i = 0; i < request->header_count && ok; i++) {
        ok = add_header(out, request->headers[i]);
    }
    return ok;
}

static void set_options(transport *t, const godwit_http_request *request, slice body,
                        struct curl_slist *headers, sink *s) {
    CURL *c = t->curl;
    curl_easy_reset(c); /* options only: connections stay */
    t->error[0] = 0;
    curl_easy_setopt(c, CURLOPT_URL, request->url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L); /* a look-up of a name must not hold up a stop */
#endif
    if (t->ca_file.len > 0) {
        curl_easy_setopt(c, CURLOPT_CAINFO, t->ca_file.ptr);
    }
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "gzip");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
                     request->timeout_ms < CONNECT_TIMEOUT_MS ? (long)request->timeout_ms
                                                              : CONNECT_TIMEOUT_MS);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, s);
    if (strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(c, CURLOPT_POST, 1L);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, body.ptr ? body.ptr : "");
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    } else {
        curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    }
}

/* Runs the transfer to its end, or until the request is cancelled: its connection is closed then.
 */
static CURLcode transfer(transport *t, const godwit_http_request *request) {
    CURLcode rc = CURLE_ABORTED_BY_CALLBACK;
    int running = 1, left = 0;
    if (curl_multi_add_handle(t->multi, t->curl) != CURLM_OK) {
        return CURLE_FAILED_INIT;
    }
    while (running) {
        CURLMcode code = curl_multi_perform(t->multi, &running);
        if (code == CURLM_OK && running) {
            code = curl_multi_poll(t->multi, NULL, 0, CANCEL_STEP_MS, NULL);
        }
        if (code != CURLM_OK ||
            (request->cancelled && request->cancelled(request->cancel_context))) {
            break;
        }
    }
    const CURLMsg *message = curl_multi_info_read(t->multi, &left);
    if (message && message->msg == CURLMSG_DONE) {
        rc = message->data.result;
    }
    (void)curl_multi_remove_handle(t->multi, t->curl);
    return rc;
}

static void fail(godwit_http_answer *answer, const char *reason) {
    answer->status = 0;
    snprintf(answer->reason, REASON_BYTES, "%.*s", (int)REASON_BYTES - 1, reason);
}

static void perform(transport *t, const godwit_http_request *request, godwit_http_answer *answer,
                    sink *s, struct curl_slist **headers) {
    slice body = {request->body, request->body_bytes};
    bool compressed = body.len > TRANSPORT_GZIP_BYTES;
    if (t->ca_file.failed) {
        fail(answer, "out of memory");
        return;
    }
    if (compressed) {
        bytes_clear(&t->gzip);
        if (!transport_gzip(body, &t->gzip)) {
            fail(answer, "out of memory");
            return;
        }
        body = bytes_view(&t->gzip);
    }
    if (!build_headers(request, compressed, headers)) {
        fail(answer, "out of memory");
        return;
    }
    set_options(t, request, body, *headers, s);
    CURLcode rc = transfer(t, request);
    if (s->too_large) {
        fail(answer, "the answer is larger than allowed");
    } else if (s->body->failed) {
        fail(answer, "out of memory");
    } else if (rc != CURLE_OK) {
        fail(answer, t->error[0] ? t->error : curl_easy_strerror(rc));
    } else {
        long status = 0;
        curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
        answer->status = (int)status;
        answer->retry_after_ms = s->retry_after_ms;
    }
}

void transport_exchange(void *context, const godwit_http_request *request,
                        godwit_http_answer *answer) {
    transport *t = context;
    bytes body;
    bytes_init(&body, t->allocator, 0);
    struct curl_slist *headers = NULL;
    sink s = {&body, request->answer_max, false, -1};
    memset(answer, 0, sizeof *answer);
    answer->retry_after_ms = -1;
    perform(t, request, answer, &s, &headers);
    curl_slist_free_all(headers);
    if (answer->status != 0) {
        answer->body = bytes_take(&body, &answer->body_bytes);
    }
    bytes_deinit(&body);
}
