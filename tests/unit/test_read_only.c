/* A scope that may only be read: what is changed in it waits, and nothing else does. */
#include "sync_kit.h"

static bool read_only;
static int pushes;

/* Refuses pushes as a server does for such a scope. */
static void exchange(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    static const char mark[] = "\"operations\":[{";
    slice body = {request->body, request->body_bytes};
    bool push = false;
    for (size_t i = 0; i + sizeof mark - 1 <= body.len && !push; i++) {
        push = memcmp(body.ptr + i, mark, sizeof mark - 1) == 0;
    }
    pushes += push;
    if (push && read_only) {
        answer->retry_after_ms = -1;
        world_reply(answer, 403, SLICE("{\"type\":\"/problems/scope-read-only\"}"));
        return;
    }
    world_exchange(context, request, answer);
}

static void reopen(device *d) {
    godwit_close(d->g);
    godwit_options options = {
        .host = {.context = d, .wall_ms = world_wall, .mono_ms = world_mono, .exchange = exchange}};
    options.accept_weak_durability = 1;
    assert_int_equal(godwit_open(d->path, &options, &d->g), GODWIT_OK);
    d->db = godwit_connection(d->g);
}

static void pulling_goes_on(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *here = world_field_device(&w), *there = world_field_device(&w);
    device_exec(there, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    (void)device_sync(there);
    reopen(here);
    (void)device_sync(here);
    read_only = true;
    device_exec(here, "UPDATE pins SET title = 'mine'; INSERT INTO pins(id, n) VALUES ('q', 2)");
    for (int i = 0; i < 3; i++) {
        char sql[80];
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET n = %d WHERE id = 'p'", 10 + i);
        device_exec(there, sql);
        (void)device_sync(there);
        pushes = 0;
        assert_int_equal(godwit_sync(here->g, 0, NULL), GODWIT_FORBIDDEN);
        assert_non_null(strstr(godwit_message(here->g), "may only be read"));
        assert_int_equal(pushes, 1); /* asks once, then reads */
        assert_int_equal(device_int(here, "SELECT n FROM pins WHERE id = 'p'"), 10 + i);
    }
    /* nothing is lost or taken back, and it says why it waits */
    assert_string_equal(device_text(here, "SELECT group_concat(title) FROM pins"), "mine");
    assert_string_equal(device_text(here, "SELECT group_concat(DISTINCT last_error_code) FROM"
                                          " godwit_op WHERE state = 'pending'"),
                        "scope-read-only");
    assert_int_equal(device_int(here, "SELECT count(*) FROM godwit_dead_letters"), 0);
    read_only = false;
    (void)device_sync(here);
    assert_int_equal(device_int(here, "SELECT count(*) FROM godwit_meta WHERE k GLOB 'round:*'"),
                     0);
    (void)device_sync(there);
    assert_string_equal(device_text(there, "SELECT group_concat(id || coalesce(title, '') || n)"
                                           " FROM (SELECT * FROM pins ORDER BY id)"),
                        "pmine12,q2");
    pushes = 0;
    device_exec(here, "UPDATE pins SET note = 'all of them'");
    (void)device_sync(here);
    assert_int_equal(pushes, 1); /* together again */
    world_deinit(&w);
}

/* What a device does after a pass that went well, it does after this one. */
static void the_pass_counts(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = world_device(&w, WORLD_SCHEMA, "field");
    device_check(d, godwit_track(d->g, "pins", NULL));
    reopen(d);
    read_only = true;
    device_exec(d, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    assert_int_equal(godwit_sync(d->g, 0, NULL), GODWIT_FORBIDDEN);
    int64_t last = device_int(d, "SELECT v FROM godwit_meta WHERE k = 'last_sync_ms'");
    assert_true(last > 0); /* the pass counts: its other half is through */
    read_only = false;
    (void)device_sync(d);
    assert_int_equal(device_int(d, "SELECT count(*) FROM sync_queue WHERE status = 'pending'"), 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulling_goes_on),
        cmocka_unit_test(the_pass_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
