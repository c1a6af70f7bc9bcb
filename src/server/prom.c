/* Prometheus' text format. See prom.h. */
#include "server/prom.h"

const prom_scale prom_seconds = {true,
                                 14,
                                 {500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
                                  500000, 1000000, 2500000, 10000000, 30000000}};
const prom_scale prom_sizes = {
    false, 13, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}};

void prom_observe(prom_histogram *h, const prom_scale *scale, int64_t value) {
    size_t i = 0;
    value = value > 0 ? value : 0;
    while (i < scale->count && value > scale->bounds[i]) {
        i++;
    }
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, (uint64_t)value, memory_order_relaxed);
}

void prom_heading(bytes *b, const char *name, const char *type, const char *help) {
    bytes_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void prom_single(bytes *b, const char *name, const char *type, const char *help, int64_t value) {
    prom_heading(b, name, type, help);
    bytes_printf(b, "%s %lld\n", name, (long long)value);
}

void prom_label(bytes *b, const char *name, slice value) {
    bytes_printf(b, "%s=\"", name);
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == '\\' || c == '"') {
            bytes_char(b, '\\');
        }
        if (c == '\n') {
            bytes_text(b, "\\n");
        } else {
            bytes_char(b, c);
        }
    }
    bytes_char(b, '"');
}

void prom_line(bytes *b, const char *name, const char *label, slice value, int64_t n) {
    bytes_text(b, name);
    if (label) {
        bytes_char(b, '{');
        prom_label(b, label, value);
        bytes_char(b, '}');
    }
    bytes_printf(b, " %lld\n", (long long)n);
}

/* Microseconds as seconds, exactly. */
static void number(bytes *b, const prom_scale *scale, uint64_t value) {
    if (!scale->seconds) {
        bytes_printf(b, "%llu", (unsigned long long)value);
        return;
    }
    bytes_printf(b, "%llu.%06llu", (unsigned long long)(value / 1000000),
                 (unsigned long long)(value % 1000000));
}

void prom_histogram_write(bytes *b, const char *name, const char *label, const char *value,
                          const prom_histogram *h, const prom_scale *scale) {
    uint64_t total = 0;
    for (size_t i = 0; i <= scale->count; i++) {
        total += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        bytes_printf(b, "%s_bucket{%s%s%s%sle=\"", name, label ? label : "", label ? "=\"" : "",
                     label ? value : "", label ? "\"," : "");
        if (i < scale->count) {
            number(b, scale, (uint64_t)scale->bounds[i]);
        } else {
            bytes_text(b, "+Inf");
        }
        bytes_printf(b, "\"} %llu\n", (unsigned long long)total);
    }
    const char *const ends[] = {"_sum", "_count"};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        bytes_printf(b, "%s%s", name, ends[i]);
        if (label) {
            bytes_printf(b, "{%s=\"%s\"}", label, value);
        }
        bytes_char(b, ' ');
        if (i == 0) {
            number(b, scale, atomic_load_explicit(&h->sum, memory_order_relaxed));
        } else {
            bytes_printf(b, "%llu", (unsigned long long)total);
        }
        bytes_char(b, '\n');
    }
}
