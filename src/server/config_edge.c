/* Settings about strangers: how much each may do, and which proxies are believed.
 *
 * The limits that hold when nothing is said are many times what a device needs on its worst day: a
 * device that comes back sends some hundred requests, one after the other. */
#include <stdio.h>

#include "server/config_inner.h"

#define BURST_S 10 /* of a rate gathers while it is not used */

static bool is_off(const char *text) {
    return strcmp(text, "off") == 0;
}

/* Whole numbers from 1 on, or "off" = 0. */
static bool parse_limit(const char *text, int64_t *out) {
    int number = 0;
    if (!is_off(text) && (!config_number(text, 1000000, &number) || number == 0)) {
        return false;
    }
    *out = number;
    return true;
}

static godwit_status interpret_limits(const config_texts *t, gate_settings *g, char message[512]) {
    const struct {
        const char *key, *text, *usual;
        int64_t *out;
    } entries[] = {
        {"address_connections", t->address_connections, "2000",
         &g->limits[GATE_ADDRESS].inside_max},
        {"address_rate", t->address_rate, "1000", &g->limits[GATE_ADDRESS].rate},
        {"user_requests", t->user_requests, "2000", &g->limits[GATE_USER].inside_max},
        {"user_rate", t->user_rate, "1000", &g->limits[GATE_USER].rate},
        {"device_requests", t->device_requests, "64", &g->limits[GATE_DEVICE].inside_max},
        {"device_rate", t->device_rate, "200", &g->limits[GATE_DEVICE].rate},
    };
    for (size_t i = 0; i < COUNT_OF(entries); i++) {
        const char *text = entries[i].text ? entries[i].text : entries[i].usual;
        if (!parse_limit(text, entries[i].out)) {
            return config_bad(message, entries[i].key, text, "a number from 1 to 1000000, or off");
        }
    }
    for (int i = 0; i < GATE_COUNT; i++) {
        allowance *l = &g->limits[i];
        l->burst = l->rate ? l->rate * BURST_S : 1;
    }
    return GODWIT_OK;
}

static godwit_status parse_list(const char *key, const char *text, network_list *out,
                                char message[512]) {
    slice bad = {NULL, 0};
    if (networks_parse(text, out, &bad)) {
        return GODWIT_OK;
    }
    bad.len = bad.len < 100 ? bad.len : 100;
    snprintf(message, 512,
             "%s: '" SLICE_FMT
             "' is not a network such as 198.0.0.0/8 or 2001:db8::/32 (at most %d, "
             "commas between them, or none)",
             key, SLICE_ARG(bad), NETWORKS_MAX);
    return GODWIT_INVALID;
}

static godwit_status interpret_proxies(const config_texts *t, gate_settings *g, char message[512]) {
    const char *kind = t->proxy_header ? t->proxy_header : "x-forwarded-for";
    const char *unlimited = t->unlimited ? t->unlimited : "127.0.0.0/8, ::1";
    const char *proxies = t->trusted_proxies ? t->trusted_proxies : "none";
    g->header = strcmp(kind, "forwarded") == 0 ? PROXY_FORWARDED : PROXY_X_FORWARDED_FOR;
    if (g->header != PROXY_FORWARDED && strcmp(kind, "x-forwarded-for") != 0) {
        return config_bad(message, "proxy_header", kind, "x-forwarded-for or forwarded");
    }
    godwit_status status = parse_list("unlimited", unlimited, &g->unlimited, message);
    return status ? status : parse_list("trusted_proxies", proxies, &g->proxies, message);
}

godwit_status config_edge(const config_texts *t, config *out, char message[512]) {
    int mebibytes = MEMORY_USUAL_MIB;
    if (t->memory && (!config_number(t->memory, 1 << 20, &mebibytes) || mebibytes < 64)) {
        return config_bad(message, "memory", t->memory, "a number of MiB, at least 64");
    }
    out->memory_bytes = (int64_t)mebibytes << 20;
    out->user = t->user;
    if (t->harden && !config_flag(t->harden, &out->harden)) {
        return config_bad(message, "harden", t->harden, "yes or no");
    }
    out->tls_cert = t->tls_cert;
    out->tls_key = t->tls_key;
    if (!t->tls_cert != !t->tls_key) {
        snprintf(message, 512, "tls_cert and tls_key go together: one of them is missing");
        return GODWIT_INVALID;
    }
    godwit_status status = interpret_limits(t, &out->gate, message);
    return status ? status : interpret_proxies(t, &out->gate, message);
}
