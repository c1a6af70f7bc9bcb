/* Devices that only read: what the writer would note with a push is noted with their pulls, so that
 * they count as alive and their positions count for retention.
 *
 * A pull does not wait for the writer. It leaves the device here, and only when the stored row is
 * old; the writer takes all of them into one transaction when it watches next. What finds no room,
 * or is lost with a crash, is left again by the device's next pull. */
#include "server/service_inner.h"

#include <stdlib.h>

#define EVERY_MS        INT64_C(3600000)
#define REPORT_EVERY_MS INT64_C(300000)

struct seen_device {
    char scope[NAME_BYTES_MAX], device[DEVICE_ID_BYTES_MAX];
    size_t scope_len, device_len;
    int64_t pulled_seq, confirmed_seq;
    wire_report report; /* its text in last_error */
    char last_error[64];
    bool reported;
};

bool seen_open(seen_list *list) {
    list->devices = calloc(SEEN_MAX, sizeof *list->devices);
    return list->devices && pthread_mutex_init(&list->lock, NULL) == 0;
}

void seen_close(seen_list *list) {
    if (list->devices) {
        pthread_mutex_destroy(&list->lock);
        free(list->devices);
    }
}

/* Often enough that the log is kept for devices seen within log_ms, and operators see a queue that
 * is stuck. */
static int64_t every_ms(const service *s, bool report) {
    int64_t wanted_ms = report ? REPORT_EVERY_MS : EVERY_MS;
    return s->retain.log_ms / 10 < wanted_ms ? s->retain.log_ms / 10 : wanted_ms;
}

static struct seen_device *find(seen_list *list, slice scope, slice device) {
    for (size_t i = 0; i < list->count; i++) {
        struct seen_device *d = &list->devices[i];
        if (slice_equal((slice){d->device, d->device_len}, device) &&
            slice_equal((slice){d->scope, d->scope_len}, scope)) {
            return d;
        }
    }
    if (list->count == SEEN_MAX || scope.len > NAME_BYTES_MAX || device.len > DEVICE_ID_BYTES_MAX) {
        return NULL;
    }
    struct seen_device *d = &list->devices[list->count++];
    memcpy(d->scope, scope.ptr, scope.len);
    memcpy(d->device, device.ptr, device.len);
    d->scope_len = scope.len;
    d->device_len = device.len;
    d->pulled_seq = d->confirmed_seq = -1;
    d->reported = false;
    return d;
}

void seen_note(service *s, slice scope, const decide_device *device, const seen_news *news) {
    int64_t since_ms = service_now(s) - device->last_seen_ms;
    if (device->state != DEVICE_ACTIVE || (since_ms >= 0 && since_ms < every_ms(s, news->report))) {
        return;
    }
    pthread_mutex_lock(&s->seen.lock);
    struct seen_device *d = find(&s->seen, scope, device->device_id);
    if (d) {
        d->pulled_seq = news->pulled_seq > d->pulled_seq ? news->pulled_seq : d->pulled_seq;
        d->confirmed_seq =
            news->confirmed_seq > d->confirmed_seq ? news->confirmed_seq : d->confirmed_seq;
        if (news->report && news->report->last_error.len <= sizeof d->last_error) {
            d->reported = true;
            d->report = *news->report;
            if (news->report->last_error.len) {
                memcpy(d->last_error, news->report->last_error.ptr, news->report->last_error.len);
            }
        }
    }
    pthread_mutex_unlock(&s->seen.lock);
}

static godwit_status save(service *s, const struct seen_device *d) {
    const slice scope = {d->scope, d->scope_len}, device = {d->device, d->device_len};
    bytes report;
    bytes_init(&report, NULL, 0);
    if (d->reported) {
        wire_report told = d->report;
        told.last_error.ptr = d->last_error;
        wire_report_write(&report, &told);
    }
    godwit_status status =
        report.failed ? GODWIT_NOMEM
                      : store_device_seen(s->store, scope, device, d->pulled_seq, d->confirmed_seq,
                                          service_now(s), bytes_view(&report));
    bytes_deinit(&report);
    return status;
}

void seen_save(service *s) {
    size_t count = 0;
    struct seen_device *list = NULL;
    arena_reset(&s->batch);
    pthread_mutex_lock(&s->seen.lock);
    if (s->seen.count) {
        list = ARENA_ARRAY(&s->batch, struct seen_device, s->seen.count);
        count = list ? s->seen.count : 0;
    }
    if (count) {
        memcpy(list, s->seen.devices, count * sizeof *list);
        s->seen.count = 0;
    }
    pthread_mutex_unlock(&s->seen.lock);
    if (!count) {
        return;
    }
    store_durable(s->store, false);
    godwit_status status = store_begin(s->store);
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = save(s, &list[i]);
    }
    if (status == GODWIT_OK) {
        status = store_commit(s->store);
    }
    if (status != GODWIT_OK) {
        store_rollback(s->store);
    }
    store_durable(s->store, true);
}
