/* Parses a complete head. Each rule that a smuggled request depends on is one refusal with its own
 * reason; the tests have a probe for each. Nothing is repaired: RFC 9112 lets a server be lenient
 * in places (listed equal lengths, folded lines, other transfer codings); this one never is. */
#include "server/http_head.h"

static bool no(http_refusal *refusal, int status, const char *reason) {
    refusal->status = status;
    refusal->reason = reason;
    return false;
}

bool http_is_token_byte(unsigned char c) {
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
        return true;
    }
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_target_byte(unsigned char c) {
    return c > 0x20 && c < 0x7f && strchr("\"#<>\\^`{|}", c) == NULL;
}

static bool is_token(slice s) {
    for (size_t i = 0; i < s.len; i++) {
        if (!http_is_token_byte((unsigned char)s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool equal_no_case(slice a, slice b) {
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static slice trim(slice s) {
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1])) {
        s.len--;
    }
    return s;
}

/* Cuts the text up to `mark` off the front of *rest. false: no mark, *rest untouched. */
static bool cut(slice *rest, char mark, slice *front) {
    const char *at = rest->len > 0 ? memchr(rest->ptr, mark, rest->len) : NULL;
    if (!at) {
        return false;
    }
    size_t len = (size_t)(at - rest->ptr);
    *front = (slice){rest->ptr, len};
    *rest = (slice){at + 1, rest->len - len - 1};
    return true;
}

static bool parse_version(slice version, int *minor, http_refusal *refusal) {
    bool shaped = version.len == 8 && memcmp(version.ptr, "HTTP/", 5) == 0 &&
                  version.ptr[5] >= '0' && version.ptr[5] <= '9' && version.ptr[6] == '.' &&
                  version.ptr[7] >= '0' && version.ptr[7] <= '9';
    if (!shaped) {
        return no(refusal, 400, "bad HTTP version");
    }
    if (version.ptr[5] != '1' || version.ptr[7] > '1') {
        return no(refusal, 505, "HTTP version not supported");
    }
    *minor = version.ptr[7] - '0';
    return true;
}

/* Origin form, or absolute form whose authority must later equal Host. */
static bool parse_target(slice target, http_head *out, slice *authority, http_refusal *refusal) {
    for (size_t i = 0; i < target.len; i++) {
        if (!is_target_byte((unsigned char)target.ptr[i])) {
            return no(refusal, 400, "bad byte in the request target");
        }
    }
    *authority = (slice){NULL, 0};
    static const char scheme[] = "http://";
    size_t scheme_bytes = sizeof scheme - 1;
    if (target.len > scheme_bytes &&
        equal_no_case((slice){target.ptr, scheme_bytes}, SLICE("http://"))) {
        slice rest = {target.ptr + scheme_bytes, target.len - scheme_bytes};
        const char *slash = memchr(rest.ptr, '/', rest.len);
        if (!slash || slash == rest.ptr) {
            return no(refusal, 400, "bad request target");
        }
        *authority = (slice){rest.ptr, (size_t)(slash - rest.ptr)};
        target = (slice){slash, rest.len - authority->len};
    }
    if (target.len == 0 || target.ptr[0] != '/') {
        return no(refusal, 400, "bad request target");
    }
    out->path = target;
    slice rest = target;
    if (cut(&rest, '?', &out->path)) {
        out->query = rest;
    }
    return true;
}

static bool parse_first_line(slice line, http_head *out, slice *authority, http_refusal *refusal) {
    slice target;
    if (!cut(&line, ' ', &out->method) || !cut(&line, ' ', &target)) {
        return no(refusal, 400, "bad request line");
    }
    if (!is_token(out->method) || out->method.len > 32) {
        return no(refusal, 400, "bad method");
    }
    return parse_target(target, out, authority, refusal) &&
           parse_version(line, &out->minor, refusal);
}

static bool parse_header(slice line, http_header *out, http_refusal *refusal) {
    if (is_blank(line.ptr[0])) {
        return no(refusal, 400, "folded header line");
    }
    slice value = line;
    if (!cut(&value, ':', &out->name)) {
        return no(refusal, 400, "header without a colon");
    }
    if (!is_token(out->name)) {
        return no(refusal, 400, "bad header name");
    }
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return no(refusal, 400, "control byte in a header");
        }
    }
    out->value = trim(value);
    return true;
}

static bool parse_length(slice value, int64_t *out, http_refusal *refusal) {
    int64_t total = 0;
    if (value.len == 0 || (value.len > 1 && value.ptr[0] == '0')) {
        return no(refusal, 400, "bad Content-Length");
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return no(refusal, 400, "bad Content-Length");
        }
        if (i >= 18) { /* below 10^18: fits, and anything longer is over every limit */
            return no(refusal, 413, "body over the limit");
        }
        total = total * 10 + (value.ptr[i] - '0');
    }
    *out = total;
    return true;
}

static bool host_valid(slice host) {
    for (size_t i = 0; i < host.len; i++) {
        char c = lower(host.ptr[i]);
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || !strchr(".-_:[]", c))) {
            return false;
        }
    }
    return host.len > 0 && host.len <= 255;
}

/* How often a header occurs; *value is its first. */
static size_t count_header(const http_head *head, const char *name, slice *value) {
    size_t count = 0;
    *value = (slice){NULL, 0};
    for (size_t i = 0; i < head->header_count; i++) {
        if (equal_no_case(head->headers[i].name, slice_of(name))) {
            *value = count == 0 ? head->headers[i].value : *value;
            count++;
        }
    }
    return count;
}

static bool check_framing(http_head *out, http_refusal *refusal) {
    slice length, coding;
    size_t lengths = count_header(out, "Content-Length", &length);
    size_t codings = count_header(out, "Transfer-Encoding", &coding);
    out->content_length = -1;
    if (lengths > 1) {
        return no(refusal, 400, "repeated Content-Length");
    }
    if (codings > 1) {
        return no(refusal, 400, "repeated Transfer-Encoding");
    }
    if (lengths && codings) {
        return no(refusal, 400, "both Content-Length and Transfer-Encoding");
    }
    if (lengths) {
        return parse_length(length, &out->content_length, refusal);
    }
    if (codings && out->minor == 0) {
        return no(refusal, 400, "Transfer-Encoding in HTTP/1.0");
    }
    if (codings && !equal_no_case(coding, SLICE("chunked"))) {
        return no(refusal, 400, "transfer coding not supported");
    }
    out->chunked = codings > 0;
    return true;
}

static bool check_host(http_head *out, slice authority, http_refusal *refusal) {
    size_t hosts = count_header(out, "Host", &out->host);
    if (hosts > 1) {
        return no(refusal, 400, "repeated Host");
    }
    if (hosts == 0 && out->minor == 1) {
        return no(refusal, 400, "no Host");
    }
    if (hosts == 1 && !host_valid(out->host)) {
        return no(refusal, 400, "bad Host");
    }
    if (authority.len > 0 && !equal_no_case(authority, out->host)) {
        return no(refusal, 400, "Host differs from the request target");
    }
    return true;
}

/* Headers of which two readers could each take another one. */
static bool check_singles(const http_head *out, http_refusal *refusal) {
    static const char *const single[] = {"Authorization",   "Content-Type",  "Content-Encoding",
                                         "Idempotency-Key", "If-None-Match", "Expect"};
    slice value;
    for (size_t i = 0; i < COUNT_OF(single); i++) {
        if (count_header(out, single[i], &value) > 1) {
            return no(refusal, 400, "repeated header that must be single");
        }
    }
    return true;
}

static bool connection_says(const http_head *head, const char *token) {
    for (size_t i = 0; i < head->header_count; i++) {
        if (equal_no_case(head->headers[i].name, SLICE("Connection")) &&
            http_list_has(head->headers[i].value, token)) {
            return true;
        }
    }
    return false;
}

static bool check_rest(http_head *out, http_refusal *refusal) {
    slice expect;
    if (count_header(out, "Expect", &expect)) {
        if (!equal_no_case(expect, SLICE("100-continue"))) {
            return no(refusal, 417, "unknown expectation");
        }
        out->expect_continue = out->minor == 1;
    }
    bool asked = connection_says(out, "keep-alive");
    out->keep_alive = (out->minor == 1 || asked) && !connection_says(out, "close");
    return true;
}

bool http_head_parse(slice text, http_head *out, http_refusal *refusal) {
    memset(out, 0, sizeof *out);
    slice rest = text, line, authority;
    bool more = cut(&rest, '\r', &line);
    ASSERT(more && rest.len > 0); /* the scanner saw the CRLF of every line */
    if (!parse_first_line(line, out, &authority, refusal)) {
        return false;
    }
    rest.ptr++; /* LF */
    rest.len--;
    while (cut(&rest, '\r', &line) && line.len > 0) {
        if (out->header_count == HTTP_HEADERS_MAX) {
            return no(refusal, 431, "too many headers");
        }
        if (!parse_header(line, &out->headers[out->header_count], refusal)) {
            return false;
        }
        out->header_count++;
        rest.ptr++;
        rest.len--;
    }
    return check_framing(out, refusal) && check_host(out, authority, refusal) &&
           check_singles(out, refusal) && check_rest(out, refusal);
}

bool http_header_find(const http_head *head, const char *name, slice *value) {
    return count_header(head, name, value) > 0;
}

/* ";q=0", ";q=0.0": the sender does not want it. */
static bool weight_is_zero(slice parameters) {
    slice p = trim(parameters);
    if (p.len < 3 || lower(p.ptr[0]) != 'q' || p.ptr[1] != '=') {
        return false;
    }
    for (size_t i = 2; i < p.len; i++) {
        if (p.ptr[i] != '0' && p.ptr[i] != '.') {
            return false;
        }
    }
    return true;
}

bool http_list_has(slice list, const char *token) {
    slice rest = list;
    bool more = list.len > 0;
    while (more) {
        slice item, name;
        more = cut(&rest, ',', &item);
        if (!more) {
            item = rest;
        }
        slice parameters = item;
        if (!cut(&parameters, ';', &name)) {
            name = item;
            parameters = (slice){NULL, 0};
        }
        if (equal_no_case(trim(name), slice_of(token)) && !weight_is_zero(parameters)) {
            return true;
        }
    }
    return false;
}
