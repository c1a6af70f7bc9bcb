/* Background mode: the thread delivers what the application commits, stops in the middle of a
 * request, takes hints, and shares nothing with the handle it was started on but what is locked.
 * Run under TSan, too. */
#include "sync_kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define LONG_MS 3600000

/* What the background thread tells, and what its requests meet. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int passes, good, exchanges, hanging, listening, outcomes, aside, closed;
    int64_t sent, pending;
    godwit_status last;
    atomic_bool hang; /* requests get no answer until they are cancelled */
    atomic_bool fail; /* ... or at once */
    pthread_t host;
    device *d;
} stage;

static stage on;

static void signal_change(int *counter) {
    pthread_mutex_lock(&on.lock);
    (*counter)++;
    pthread_cond_broadcast(&on.moved);
    pthread_mutex_unlock(&on.lock);
}

static void on_pass(void *context, godwit_status status, const godwit_sync_report *r,
                    const char *message) {
    (void)context;
    (void)message;
    pthread_mutex_lock(&on.lock);
    on.passes++;
    on.good += status == GODWIT_OK;
    on.last = status;
    on.sent += r->sent;
    on.pending = r->pending;
    pthread_cond_broadcast(&on.moved);
    pthread_mutex_unlock(&on.lock);
}

static void on_event(void *context, const godwit_event *event) {
    device *d = context;
    if (event->kind == GODWIT_EVENT_OUTCOME) {
        bool aside = !pthread_equal(pthread_self(), on.host);
        if (aside && godwit_stop(d->g) == GODWIT_MISUSE && godwit_running(d->g) &&
            godwit_close(d->g) == GODWIT_MISUSE && godwit_running(d->g)) {
            signal_change(&on.aside); /* it would wait for itself */
        }
        on.closed += !aside && godwit_close(d->g) != GODWIT_MISUSE; /* it is in use */
        signal_change(&on.outcomes);
    }
}

static void exchange(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    signal_change(&on.exchanges);
    answer->retry_after_ms = -1;
    bool listening = strstr(request->url, "wait=") != NULL; /* nothing ever comes of that here */
    if (listening || atomic_load(&on.hang)) {
        signal_change(listening ? &on.listening : &on.hanging);
        while (!request->cancelled(request->cancel_context)) {
            const struct timespec step = {0, 1000000};
            (void)nanosleep(&step, NULL);
        }
    }
    if (listening || atomic_load(&on.fail) || atomic_load(&on.hang)) {
        (void)snprintf(answer->reason, sizeof answer->reason, "no network");
        return;
    }
    world_exchange(context, request, answer);
}

/* Waits until *n is at least `want`; 20 s at most. */
static void await(const int *n, int want, const char *what) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    int rc = 0;
    pthread_mutex_lock(&on.lock);
    while (*n < want && rc == 0) {
        rc = pthread_cond_timedwait(&on.moved, &on.lock, &until);
    }
    pthread_mutex_unlock(&on.lock);
    if (rc) {
        fail_msg("%s: did not happen", what);
    }
}

static void await_sent(int64_t want) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    int rc = 0;
    pthread_mutex_lock(&on.lock);
    while (on.sent < want && rc == 0) {
        rc = pthread_cond_timedwait(&on.moved, &on.lock, &until);
    }
    pthread_mutex_unlock(&on.lock);
    assert_int_equal(rc, 0);
}

static int now(const int *n) {
    pthread_mutex_lock(&on.lock);
    int got = *n;
    pthread_mutex_unlock(&on.lock);
    return got;
}

static int64_t mono_now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_wall(void *context) {
    struct timespec t;
    (void)context;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static device *set_up(world *w) {
    world_init(w, WORLD_SCHEMA);
    memset(&on, 0, sizeof on);
    on.host = pthread_self();
    pthread_mutex_init(&on.lock, NULL);
    pthread_cond_init(&on.moved, NULL);
    device *d = world_field_device(w);
    device_close(d);
    godwit_options options = {
        .accept_weak_durability = 1,
        .host = {.context = d, .exchange = exchange, .wall_ms = real_wall, .on_event = on_event}};
    device_check(d, godwit_open(d->path, &options, &d->g));
    d->db = godwit_connection(d->g);
    on.d = d;
    return d;
}

static void begin(device *d, int wait_seconds) {
    const godwit_run_options run = {
        .interval_ms = LONG_MS, .local_ms = 10, .wait_seconds = wait_seconds, .on_pass = on_pass};
    device_check(d, godwit_start(d->g, &run));
    assert_int_equal(godwit_running(d->g), 1);
}

static void tear_down(world *w) {
    assert_int_equal(on.closed, 0);
    world_deinit(w);
    pthread_cond_destroy(&on.moved);
    pthread_mutex_destroy(&on.lock);
}

static void commits_are_delivered(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    begin(d, -1);
    await(&on.good, 1, "the first pass");
    for (int i = 0; i < 40; i++) {
        char sql[120];
        (void)snprintf(sql, sizeof sql,
                       "BEGIN; INSERT INTO pins(id) VALUES ('a%d'), ('b%d'); COMMIT", i, i);
        device_exec(d, sql);
        godwit_metrics m; /* the handle stays usable */
        device_check(d, godwit_get_metrics(d->g, &m));
    }
    await_sent(80);
    await(&on.outcomes, 80, "an event per operation");
    assert_int_equal(now(&on.aside), 80); /* on the thread that syncs, which can't stop itself */
    char id[40];
    device_exec(d, "INSERT INTO pins(id) VALUES ('waited for')");
    (void)snprintf(id, sizeof id, "%s",
                   device_text(d, "SELECT id FROM sync_queue WHERE entity_id ="
                                  " 'waited for'"));
    godwit_receipt receipt;
    device_check(d, godwit_wait(d->g, id, 20000, &receipt)); /* leaves the syncing to the thread */
    assert_int_equal(receipt.decided, 1);
    await_sent(81);
    device_check(d, godwit_stop(d->g));
    assert_int_equal(godwit_running(d->g), 0);
    assert_int_equal(device_int(d, "SELECT pending_operations FROM godwit_metrics"), 0);
    assert_int_equal(on.sent, 81);
    tear_down(&w);
}

static void what_needs_no_sending_wakes_nobody(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    begin(d, -1);
    await(&on.good, 1, "the first pass");
    device_exec(d, "CREATE TABLE other(x)");
    for (int i = 0; i < 20; i++) {
        device_exec(d, "INSERT INTO other VALUES (1)");
    }
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    await_sent(1);
    assert_int_equal(now(&on.passes), 2);
    tear_down(&w); /* closing stops the thread */
}

static void stopping_gives_up_a_request(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    atomic_store(&on.hang, true);
    begin(d, -1);
    await(&on.hanging, 1, "a request without an answer");
    int64_t begun_ms = mono_now_ms();
    device_check(d, godwit_stop(d->g));
    device_check(d, godwit_stop(d->g)); /* again: nothing */
    assert_in_range(mono_now_ms() - begun_ms, 0, 2000);
    assert_int_equal(now(&on.passes), 0); /* no failure to tell of, and none is counted */
    assert_int_equal(device_int(d, "SELECT retries FROM godwit_metrics"), 0);
    assert_int_equal(device_int(d, "SELECT pending_operations FROM godwit_metrics"), 1);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_lease"), 0);
    atomic_store(&on.hang, false);
    begin(d, -1);
    await_sent(1);
    device_check(d, godwit_stop(d->g));
    tear_down(&w);
}

static void a_hint_ends_waiting(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a');"
                   "INSERT INTO godwit_meta VALUES ('failures', 12)"); /* waits of minutes */
    atomic_store(&on.fail, true);
    begin(d, -1);
    await(&on.passes, 1, "a failure");
    int before = now(&on.passes);
    device_exec(d, "INSERT INTO pins(id) VALUES ('b')"); /* wakes nobody */
    atomic_store(&on.fail, false);
    assert_int_equal(now(&on.passes), before);
    int64_t begun_ms = mono_now_ms();
    device_check(d, godwit_notify_network(d->g));
    device_check(d, godwit_notify_network(d->g));
    await_sent(2);
    assert_in_range(mono_now_ms() - begun_ms, 0, 5000);
    device_check(d, godwit_stop(d->g));
    tear_down(&w);
}

/* It would hang on a connection that is no more until its time is over. */
static void a_hint_begins_a_hanging_request_again(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    atomic_store(&on.hang, true);
    begin(d, -1);
    await(&on.hanging, 1, "a request without an answer");
    device_check(d, godwit_notify_network(d->g));
    await(&on.hanging, 2, "the same once more");
    atomic_store(&on.hang, false);
    device_check(d, godwit_notify_network(d->g));
    await_sent(1);
    assert_int_equal(now(&on.passes), 1); /* what was given up is no failure */
    assert_int_equal(device_int(d, "SELECT retries FROM godwit_metrics"), 0);
    device_check(d, godwit_stop(d->g));
    tear_down(&w);
}

/* Waiting for the server is given up for a local commit, a hint and a stop. */
static void listening_ends_for_reasons(void **state) {
    (void)state;
    world w;
    device *d = set_up(&w);
    begin(d, 25);
    await(&on.listening, 1, "listening");
    atomic_store(&on.hang, true);
    device_exec(d, "INSERT INTO pins(id) VALUES ('a')");
    await(&on.hanging, 1, "a push instead of listening");
    int64_t begun_ms = mono_now_ms();
    device_check(d, godwit_stop(d->g));
    assert_in_range(mono_now_ms() - begun_ms, 0, 2000);
    tear_down(&w);
}

static void what_can_not_run(void **state) {
    (void)state;
    godwit *g = NULL;
    assert_int_equal(godwit_open(":memory:", NULL, &g), GODWIT_OK);
    const godwit_run_options wrong[] = {
        {.interval_ms = -1}, {.local_ms = -1}, {.wait_seconds = -2}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(godwit_start(g, &wrong[i]), GODWIT_INVALID);
    }
    assert_int_equal(godwit_start(g, NULL), GODWIT_UNSUPPORTED);
    assert_non_null(strstr(godwit_message(g), "without a file"));
    assert_int_equal(godwit_stop(g), GODWIT_OK);
    godwit_close(g);
    assert_int_equal(godwit_close(NULL), GODWIT_OK);
    assert_int_equal(godwit_start(NULL, NULL), GODWIT_MISUSE);
    assert_int_equal(godwit_stop(NULL), GODWIT_MISUSE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_are_delivered),
        cmocka_unit_test(what_needs_no_sending_wakes_nobody),
        cmocka_unit_test(stopping_gives_up_a_request),
        cmocka_unit_test(a_hint_ends_waiting),
        cmocka_unit_test(a_hint_begins_a_hanging_request_again),
        cmocka_unit_test(listening_ends_for_reasons),
        cmocka_unit_test(what_can_not_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
