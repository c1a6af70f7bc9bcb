/* Relaxed counters: each is exact, a scrape is not one instant. */
#include "server/metrics.h"

void metrics_request(metrics *m, route_id id, int status, int64_t micros) {
    ASSERT(id <= ROUTE_COUNT);
    if (status < METRICS_STATUS_MIN || status >= METRICS_STATUS_END) {
        status = 500;
    }
    atomic_fetch_add_explicit(&m->requests[id][status - METRICS_STATUS_MIN], 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&m->request_us[id], micros > 0 ? (uint64_t)micros : 0,
                              memory_order_relaxed);
}

static void requests(const metrics *m, bytes *b) {
    prom_heading(b, "godwit_http_requests_total", "counter",
                 "Requests answered, by route and status.");
    for (size_t id = 0; id <= ROUTE_COUNT; id++) {
        for (int i = 0; i < METRICS_STATUS_END - METRICS_STATUS_MIN; i++) {
            uint64_t count = atomic_load_explicit(&m->requests[id][i], memory_order_relaxed);
            if (count > 0) {
                bytes_printf(b, "godwit_http_requests_total{route=\"%s\",status=\"%d\"} %llu\n",
                             route_name((route_id)id), i + METRICS_STATUS_MIN,
                             (unsigned long long)count);
            }
        }
    }
    prom_heading(b, "godwit_http_request_seconds_total", "counter",
                 "Time from a complete head to the answer, by route; long polls included.");
    for (size_t id = 0; id <= ROUTE_COUNT; id++) {
        uint64_t micros = atomic_load_explicit(&m->request_us[id], memory_order_relaxed);
        if (micros > 0) {
            bytes_printf(b, "godwit_http_request_seconds_total{route=\"%s\"} %llu.%06llu\n",
                         route_name((route_id)id), (unsigned long long)(micros / 1000000),
                         (unsigned long long)(micros % 1000000));
        }
    }
}

static void limits(const metrics *m, bytes *b) {
    static const char *const kinds[METRICS_LIMITS] = {"address", "user", "device"};
    static const char *const reasons[] = {"rate", "concurrency"};
    prom_heading(b, "godwit_limited_total", "counter",
                 "Requests and connections refused by a limit, by whose it is.");
    for (size_t i = 0; i < METRICS_LIMITS; i++) {
        for (size_t j = 0; j < COUNT_OF(reasons); j++) {
            bytes_printf(b, "godwit_limited_total{by=\"%s\",reason=\"%s\"} %llu\n", kinds[i],
                         reasons[j], (unsigned long long)atomic_load(&m->limited[i][j]));
        }
    }
}

void metrics_write(const metrics *m, bytes *b) {
    requests(m, b);
    limits(m, b);
    prom_single(b, "godwit_connections_accepted_total", "counter", "Connections accepted.",
                (int64_t)atomic_load(&m->accepted));
    prom_single(b, "godwit_connections_refused_total", "counter",
                "Connections turned away because the limit was reached.",
                (int64_t)atomic_load(&m->turned_away));
    prom_single(b, "godwit_connections", "gauge", "Connections open now.",
                atomic_load(&m->connections));
    prom_heading(b, "godwit_tls_handshakes_total", "counter", "Handshakes of TLS, by result.");
    bytes_printf(b, "godwit_tls_handshakes_total{result=\"done\"} %llu\n",
                 (unsigned long long)atomic_load(&m->handshakes[true]));
    bytes_printf(b, "godwit_tls_handshakes_total{result=\"failed\"} %llu\n",
                 (unsigned long long)atomic_load(&m->handshakes[false]));
    prom_single(b, "godwit_parked_requests", "gauge", "Long polls waiting for a change.",
                atomic_load(&m->parked));
    prom_single(b, "godwit_event_streams", "gauge", "Event streams open now.",
                atomic_load(&m->streams));
    prom_single(b, "godwit_listening", "gauge",
                "1: commits of other servers are heard of at once; 0: they are asked for.",
                atomic_load(&m->listening));
    prom_heading(b, "godwit_moved_elsewhere_total", "counter",
                 "Commits of other servers to scopes waited for here, by how they became known.");
    bytes_printf(b, "godwit_moved_elsewhere_total{by=\"poll\"} %llu\n",
                 (unsigned long long)atomic_load(&m->moved_elsewhere[false]));
    bytes_printf(b, "godwit_moved_elsewhere_total{by=\"notify\"} %llu\n",
                 (unsigned long long)atomic_load(&m->moved_elsewhere[true]));
    prom_single(b, "godwit_write_batches_total", "counter", "Combined writes.",
                (int64_t)atomic_load(&m->batches));
    prom_single(b, "godwit_write_requests_total", "counter",
                "Requests that were combined into writes.", (int64_t)atomic_load(&m->batch_jobs));
    prom_heading(b, "godwit_queue_depth", "gauge", "Requests waiting for a worker or the writer.");
    bytes_printf(b, "godwit_queue_depth{queue=\"work\"} %lld\n",
                 (long long)atomic_load(&m->queued_work));
    bytes_printf(b, "godwit_queue_depth{queue=\"write\"} %lld\n",
                 (long long)atomic_load(&m->queued_writes));
    prom_single(b, "godwit_streams_replaced_total", "counter",
                "Event streams ended because their device opened another.",
                (int64_t)atomic_load(&m->replaced));
    prom_heading(b, "godwit_push_seconds", "histogram",
                 "From a complete request with operations to its answer.");
    prom_histogram_write(b, "godwit_push_seconds", NULL, NULL, &m->push, &prom_seconds);
    prom_heading(b, "godwit_pull_seconds", "histogram",
                 "From a complete request for changes to its answer; long polls are left out.");
    prom_histogram_write(b, "godwit_pull_seconds", NULL, NULL, &m->pull, &prom_seconds);
    prom_single(b, "godwit_held_bytes", "gauge", "Bodies and parsed requests in memory.",
                atomic_load(&m->held_bytes));
}
