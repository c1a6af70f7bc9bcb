/* Text to addresses, and the walk through what proxies wrote. See address.h. */
#include "server/address.h"

#include <arpa/inet.h>

#define TEXT_MAX INET6_ADDRSTRLEN
static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_ipv4(const address *a) {
    return memcmp(a->bytes, mapped, sizeof mapped) == 0;
}

bool address_parse(slice text, address *out) {
    char copy[TEXT_MAX];
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, 0, text.len)) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    if (inet_pton(AF_INET6, copy, out->bytes) == 1) {
        return true;
    }
    memcpy(out->bytes, mapped, sizeof mapped);
    return inet_pton(AF_INET, copy, out->bytes + sizeof mapped) == 1;
}

static slice trim(slice s) {
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s = (slice){s.ptr + 1, s.len - 1};
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

/* ---- networks ---- */

static bool bit(const address *a, int i) {
    return a->bytes[i / 8] >> (7 - i % 8) & 1;
}

static bool parse_network(slice text, address *first, int *bits) {
    const char *slash = memchr(text.ptr, '/', text.len);
    slice name = {text.ptr, slash ? (size_t)(slash - text.ptr) : text.len};
    if (!address_parse(name, first)) {
        return false;
    }
    int offset = is_ipv4(first) ? 96 : 0, length = 0;
    if (!slash) {
        *bits = 128;
        return true;
    }
    slice digits = {slash + 1, text.len - name.len - 1};
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.ptr[i] < '0' || digits.ptr[i] > '9' || i >= 3) {
            return false;
        }
        length = length * 10 + (digits.ptr[i] - '0');
    }
    *bits = offset + length;
    for (int i = *bits; i < 128; i++) {
        if (bit(first, i)) {
            return false; /* 198.1.2.3/8 is a mistake: which of the two was meant? */
        }
    }
    return digits.len > 0 && *bits <= 128;
}

bool networks_parse(const char *text, network_list *out, slice *bad) {
    slice rest = trim(slice_of(text));
    out->count = 0;
    if (slice_is(rest, "none")) {
        return true;
    }
    for (bool more = true; more;) {
        const char *comma = rest.len ? memchr(rest.ptr, ',', rest.len) : NULL;
        size_t len = comma ? (size_t)(comma - rest.ptr) : rest.len;
        slice item = trim((slice){rest.ptr, len});
        *bad = item;
        if (item.len == 0 || out->count == NETWORKS_MAX ||
            !parse_network(item, &out->items[out->count].first, &out->items[out->count].bits)) {
            return false;
        }
        out->count++;
        more = comma != NULL;
        rest = more ? (slice){comma + 1, rest.len - len - 1} : rest;
    }
    return true;
}

static bool network_has(const address *first, int bits, const address *a) {
    size_t whole = (size_t)bits / 8;
    unsigned mask = bits % 8 ? 0xffu << (8 - bits % 8) & 0xffu : 0;
    return memcmp(first->bytes, a->bytes, whole) == 0 &&
           (mask == 0 || ((first->bytes[whole] ^ a->bytes[whole]) & mask) == 0);
}

bool networks_have(const network_list *list, const address *a) {
    for (size_t i = 0; i < list->count; i++) {
        if (network_has(&list->items[i].first, list->items[i].bits, a)) {
            return true;
        }
    }
    return false;
}

/* ---- what proxies write ---- */

/* The last item of a comma separated list, which is cut off it. */
static slice cut_last(slice *list) {
    size_t at = list->len;
    while (at > 0 && list->ptr[at - 1] != ',') {
        at--;
    }
    slice item = trim((slice){list->ptr + at, list->len - at});
    list->len = at > 0 ? at - 1 : 0;
    return item;
}

/* "a", "a:port", "[a6]:port", "a6" without a port. */
static bool parse_node(slice text, address *out) {
    if (text.len > 1 && text.ptr[0] == '[') {
        const char *end = memchr(text.ptr, ']', text.len);
        return end && address_parse((slice){text.ptr + 1, (size_t)(end - text.ptr) - 1}, out);
    }
    const char *colon = memchr(text.ptr, ':', text.len);
    bool one = colon && !memchr(colon + 1, ':', text.len - (size_t)(colon - text.ptr) - 1);
    return address_parse(one ? (slice){text.ptr, (size_t)(colon - text.ptr)} : text, out);
}

/* "for=192.0.2.60;proto=https", "For=\"[2001:db8::17]:4711\"" */
static slice forwarded_for(slice element) {
    while (element.len > 0) {
        const char *end = memchr(element.ptr, ';', element.len);
        size_t len = end ? (size_t)(end - element.ptr) : element.len;
        slice pair = trim((slice){element.ptr, len});
        if (pair.len > 4 && (pair.ptr[0] | 32) == 'f' && (pair.ptr[1] | 32) == 'o' &&
            (pair.ptr[2] | 32) == 'r' && pair.ptr[3] == '=') {
            pair = (slice){pair.ptr + 4, pair.len - 4};
            bool quoted = pair.len > 2 && pair.ptr[0] == '"' && pair.ptr[pair.len - 1] == '"';
            return quoted ? (slice){pair.ptr + 1, pair.len - 2} : pair;
        }
        element = end ? (slice){end + 1, element.len - len - 1} : (slice){NULL, 0};
    }
    return element;
}

static bool is_header(slice name, const char *wanted) {
    if (name.len != strlen(wanted)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != wanted[i]) {
            return false;
        }
    }
    return true;
}

address address_of_client(const network_list *proxies, proxy_header kind, const address *peer,
                          const http_head *head) {
    const char *name = kind == PROXY_FORWARDED ? "forwarded" : "x-forwarded-for";
    address client = *peer;
    for (size_t i = head->header_count; i > 0; i--) {
        slice list = head->headers[i - 1].value;
        while (is_header(head->headers[i - 1].name, name) && list.len > 0) {
            address before;
            if (!networks_have(proxies, &client)) {
                return client;
            }
            slice item = cut_last(&list);
            item = kind == PROXY_FORWARDED ? forwarded_for(item) : item;
            if (item.len == 0 || !parse_node(item, &before)) {
                return client;
            }
            client = before;
        }
    }
    return client;
}

address address_group(const address *a) {
    address group = *a;
    if (!is_ipv4(a)) {
        memset(group.bytes + 8, 0, 8);
    }
    return group;
}
