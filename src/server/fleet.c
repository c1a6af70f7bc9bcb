/* Watching: whether the store can be written to, and how the devices are.
 *
 * Devices by what they reported: all of them are walked through, a page per turn, and the sums are
 * published when that is done. A scrape then costs nothing, whatever the number of devices; it
 * shows the last walk. */
#include "server/service_inner.h"

#define PAGE_DEVICES 500
#define PAGES        4 /* per turn */

static void add(stats_fleet *f, arena *a, const store_device_report *device, int64_t now_ms) {
    wire_report told = {0};
    int64_t silent_ms = now_ms - device->last_seen_ms;
    silent_ms = silent_ms > 0 ? silent_ms : 0;
    wire_report_parse(a, device->report, &told);
    if (told.pending > 0) { /* what waited then has waited on */
        told.oldest_pending_ms += silent_ms;
    }
    stats_fleet_add(f, told.pending, told.failed, told.pending > 0 ? told.oldest_pending_ms : 0,
                    silent_ms);
}

static void keep_place(service *s, const store_device_report *last) {
    ASSERT(last->scope.len <= sizeof s->walked_scope);
    ASSERT(last->device_id.len <= sizeof s->walked_device);
    memcpy(s->walked_scope, last->scope.ptr, last->scope.len);
    memcpy(s->walked_device, last->device_id.ptr, last->device_id.len);
    s->walked_scope_len = last->scope.len;
    s->walked_device_len = last->device_id.len;
}

static void begin_again(service *s) {
    memset(&s->fleet, 0, sizeof s->fleet);
    s->walked_scope_len = s->walked_device_len = 0;
}

static void walk(service *s) {
    for (int page = 0; page < PAGES; page++) {
        arena_reset(&s->batch);
        size_t count = 0;
        store_device_report *list = ARENA_ARRAY(&s->batch, store_device_report, PAGE_DEVICES);
        if (!list ||
            store_device_reports(s->store, &s->batch, (slice){s->walked_scope, s->walked_scope_len},
                                 (slice){s->walked_device, s->walked_device_len}, list,
                                 PAGE_DEVICES, &count) != GODWIT_OK) {
            begin_again(s);
            return;
        }
        int64_t now_ms = service_now(s);
        for (size_t i = 0; i < count; i++) {
            add(&s->fleet, &s->batch, &list[i], now_ms);
        }
        if (count < PAGE_DEVICES) {
            stats_fleet_publish(&s->stats, &s->fleet);
            begin_again(s);
            return;
        }
        keep_place(s, &list[count - 1]);
    }
}

void service_watch(service *s) {
    int64_t begun_us = service_mono_us();
    /* A disk that was full is tried with a write: a server that is not ready gets no pushes to try.
     */
    bool failed = atomic_load(&s->unready) != GODWIT_OK;
    atomic_store(&s->unready, (int)store_probe(s->store, failed));
    seen_save(s);
    walk(s);
    stats_step_took(&s->stats, STEP_TIDY, service_mono_us() - begun_us);
}
