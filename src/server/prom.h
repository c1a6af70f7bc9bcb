/* Prometheus' text format: lines of counters, gauges and histograms. Writing is pure; a histogram
 * may be observed by any thread (relaxed: each number is exact, a scrape is not one instant). */
#ifndef SERVER_PROM_H
#define SERVER_PROM_H

#include <stdatomic.h>

#include "core/bytes.h"

#define PROM_BUCKETS_MAX 16

/* Upper bounds, ascending, count of them at most PROM_BUCKETS_MAX; +Inf is added. Times in
 * microseconds, written as seconds. */
typedef struct {
    bool seconds;
    size_t count;
    int64_t bounds[PROM_BUCKETS_MAX];
} prom_scale;
extern const prom_scale prom_seconds; /* 0.5 ms to 30 s */
extern const prom_scale prom_sizes;   /* 1 to 10,000 */

typedef struct {
    _Atomic uint64_t buckets[PROM_BUCKETS_MAX + 1]; /* not cumulated */
    _Atomic uint64_t sum;
} prom_histogram;

void prom_observe(prom_histogram *h, const prom_scale *scale, int64_t value);

void prom_heading(bytes *b, const char *name, const char *type, const char *help);
/* Heading and one line. */
void prom_single(bytes *b, const char *name, const char *type, const char *help, int64_t value);
/* name="value", the value escaped. */
void prom_label(bytes *b, const char *name, slice value);
/* One line with at most one label; NULL = none. */
void prom_line(bytes *b, const char *name, const char *label, slice value, int64_t n);
/* The lines of one histogram; label may be NULL. */
void prom_histogram_write(bytes *b, const char *name, const char *label, const char *value,
                          const prom_histogram *h, const prom_scale *scale);

#endif
