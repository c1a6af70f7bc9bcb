/* The round: each rule of semantics 5.6 as a short conversation, and that no conversation hangs. */
#include "unit.h"

#include "core/limits.h"
#include "core/round.h"

static round_action starts(round_state *r, bool registered, bool bootstrapping) {
    round_event e = {.kind = ROUND_EVENT_START,
                     .registered = registered,
                     .bootstrapping = bootstrapping,
                     .retry_after_ms = -1};
    return round_step(r, &e);
}

static round_action ok(round_state *r, bool sendable, bool more) {
    round_event e = {
        .kind = ROUND_EVENT_OK, .registered = true, .sendable = sendable, .more = more,
        .retry_after_ms = -1};
    return round_step(r, &e);
}

static round_action ok_page(round_state *r, bool more) {
    round_event e = {
        .kind = ROUND_EVENT_OK, .registered = true, .bootstrapping = true, .more = more,
        .retry_after_ms = -1};
    return round_step(r, &e);
}

static round_action fails(round_state *r, round_problem problem) {
    round_event e = {
        .kind = ROUND_EVENT_PROBLEM, .problem = problem, .retry_after_ms = -1, .random = 700};
    return round_step(r, &e);
}

static void assert_sync(round_action a, int max_ops) {
    assert_int_equal(a.kind, ROUND_SEND_SYNC);
    assert_int_equal(a.max_ops, max_ops);
}

static void assert_end(round_action a, round_action_kind kind, godwit_status status) {
    assert_int_equal(a.kind, kind);
    assert_int_equal(a.status, status);
}

static void register_then_sync_until_done(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    assert_int_equal(starts(&r, false, false).kind, ROUND_SEND_REGISTER);
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
    assert_sync(ok(&r, false, true), PUSH_FILL_OPS);
    assert_end(ok(&r, false, false), ROUND_FINISH, GODWIT_OK);
    assert_int_equal(r.phase, ROUND_DONE);
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
}

static void bootstrap_by_pages(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    assert_int_equal(fails(&r, PROBLEM_BOOTSTRAP).kind, ROUND_SEND_SNAPSHOT);
    assert_int_equal(ok_page(&r, true).kind, ROUND_SEND_SNAPSHOT);
    assert_int_equal(ok_page(&r, true).kind, ROUND_SEND_SNAPSHOT);
    assert_sync(ok_page(&r, false), PUSH_FILL_OPS);
    assert_end(ok(&r, false, false), ROUND_FINISH, GODWIT_OK);
    /* Taken up again after a restart. */
    assert_int_equal(starts(&r, true, true).kind, ROUND_SEND_SNAPSHOT);
    /* A token that expired: from the first page again; but not for ever without a pause. */
    assert_int_equal(fails(&r, PROBLEM_BOOTSTRAP).kind, ROUND_SEND_SNAPSHOT);
    assert_int_equal(fails(&r, PROBLEM_BOOTSTRAP).kind, ROUND_SEND_SNAPSHOT);
    assert_end(fails(&r, PROBLEM_BOOTSTRAP), ROUND_WAIT, GODWIT_PROTOCOL);
}

static void registration_that_asks_for_a_snapshot(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    assert_int_equal(starts(&r, false, true).kind, ROUND_SEND_REGISTER);
    assert_int_equal(ok_page(&r, false).kind, ROUND_SEND_SNAPSHOT);
}

static void no_answer_blames_nothing(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    for (int i = 0; i < 100; i++) {
        assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
        round_action a = fails(&r, i % 2 ? PROBLEM_TRANSPORT : PROBLEM_BUSY);
        assert_end(a, ROUND_WAIT, i % 2 ? GODWIT_UNREACHABLE : GODWIT_OVERLOADED);
        assert_true(a.delay_ms >= 0 && a.delay_ms <= BACKOFF_CAP_MS);
        assert_int_equal(r.failures, i + 1);
        assert_int_equal(r.alone_failures, 0);
        assert_int_equal(r.max_ops, PUSH_FILL_OPS);
    }
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    assert_end(ok(&r, false, false), ROUND_FINISH, GODWIT_OK);
    assert_int_equal(r.failures, 0);
}

static void the_servers_wait_is_kept(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    (void)starts(&r, true, false);
    round_event e = {
        .kind = ROUND_EVENT_PROBLEM, .problem = PROBLEM_BUSY, .retry_after_ms = 45000, .random = 3};
    round_action a = round_step(&r, &e);
    assert_end(a, ROUND_WAIT, GODWIT_OVERLOADED);
    assert_int_equal(a.delay_ms, 45000);
}

/* Halved at once down to one group, which then has POISON_LIMIT tries with waits between. */
static void a_poisonous_group_is_found_and_given_up(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    round_action a = starts(&r, true, false);
    for (int want = PUSH_FILL_OPS / 2; want >= 1; want /= 2) {
        a = fails(&r, want % 2 ? PROBLEM_PROTOCOL : PROBLEM_TOO_LARGE);
        assert_sync(a, want);
    }
    for (int i = 1; i < POISON_LIMIT; i++) {
        assert_end(fails(&r, PROBLEM_PROTOCOL), ROUND_WAIT, GODWIT_PROTOCOL);
        assert_sync(starts(&r, true, false), 1);
        /* A lost connection in between does not count, and does not make up for it either. */
        assert_end(fails(&r, PROBLEM_TRANSPORT), ROUND_WAIT, GODWIT_UNREACHABLE);
        assert_sync(starts(&r, true, false), 1);
    }
    assert_end(fails(&r, PROBLEM_PROTOCOL), ROUND_QUARANTINE, GODWIT_PROTOCOL);
    assert_int_equal(r.alone_failures, 0);
    a = ok(&r, true, false); /* the driver has given it up */
    assert_sync(a, 2);
    for (int want = 4; want <= 256; want *= 2) {
        assert_sync(ok(&r, true, false), want);
    }
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
}

static void a_group_that_gets_through_clears_the_count(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    r.max_ops = 1;
    (void)starts(&r, true, false);
    for (int i = 0; i < 3 * POISON_LIMIT; i++) {
        assert_end(fails(&r, PROBLEM_PROTOCOL), ROUND_WAIT, GODWIT_PROTOCOL);
        (void)starts(&r, true, false);
        assert_sync(ok(&r, true, false), 2);
        assert_sync(fails(&r, PROBLEM_PROTOCOL), 1);
    }
}

static void a_failed_pull_blames_no_group(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    for (int i = 0; i < 4 * POISON_LIMIT; i++) {
        (void)starts(&r, true, false);
        round_event e = {.kind = ROUND_EVENT_PROBLEM,
                         .problem = PROBLEM_PROTOCOL,
                         .pull_only = true,
                         .retry_after_ms = -1};
        assert_end(round_step(&r, &e), ROUND_WAIT, GODWIT_PROTOCOL);
    }
    assert_int_equal(r.max_ops, PUSH_FILL_OPS);
    assert_int_equal(r.alone_failures, 0);
    /* Nor does a failed registration or page. */
    (void)starts(&r, false, false);
    assert_end(fails(&r, PROBLEM_PROTOCOL), ROUND_WAIT, GODWIT_PROTOCOL);
    (void)starts(&r, true, true);
    assert_end(fails(&r, PROBLEM_NONE), ROUND_WAIT, GODWIT_PROTOCOL);
    assert_int_equal(r.max_ops, PUSH_FILL_OPS);
}

static void an_expired_token_is_tried_once_more(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    (void)starts(&r, true, false);
    assert_sync(fails(&r, PROBLEM_UNAUTHENTICATED), PUSH_FILL_OPS);
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
    /* A success between: the next expiry may be refreshed again. */
    assert_sync(fails(&r, PROBLEM_UNAUTHENTICATED), PUSH_FILL_OPS);
    assert_end(fails(&r, PROBLEM_UNAUTHENTICATED), ROUND_STOP, GODWIT_UNAUTHENTICATED);
    assert_int_equal(r.phase, ROUND_STOPPED);
    assert_int_equal(r.failures, 0);
    (void)starts(&r, false, false);
    assert_int_equal(fails(&r, PROBLEM_UNAUTHENTICATED).kind, ROUND_SEND_REGISTER);
}

static void an_unknown_device_registers_once(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    (void)starts(&r, true, false);
    assert_int_equal(fails(&r, PROBLEM_DEVICE_UNKNOWN).kind, ROUND_SEND_REGISTER);
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
    assert_end(fails(&r, PROBLEM_DEVICE_UNKNOWN), ROUND_STOP, GODWIT_PROTOCOL);
}

static void what_needs_a_person_stops(void **state) {
    (void)state;
    static const struct {
        round_problem problem;
        round_action_kind kind;
        godwit_status status;
    } table[] = {
        {PROBLEM_FORBIDDEN, ROUND_STOP, GODWIT_FORBIDDEN},
        {PROBLEM_SCHEMA, ROUND_STOP, GODWIT_UNSUPPORTED},
        {PROBLEM_UNSUPPORTED, ROUND_STOP, GODWIT_UNSUPPORTED},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        round_state r;
        round_init(&r);
        (void)starts(&r, true, false);
        assert_end(fails(&r, table[i].problem), table[i].kind, table[i].status);
        assert_int_equal(r.phase, ROUND_STOPPED);
        assert_end(ok(&r, true, true), ROUND_STOP, GODWIT_MISUSE); /* a late answer */
        assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    }
}

static void a_scope_that_may_only_be_read(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    assert_sync(fails(&r, PROBLEM_READ_ONLY), 0);
    assert_sync(ok(&r, true, true), 0); /* more pages, and operations that wait */
    assert_end(ok(&r, true, false), ROUND_STOP, GODWIT_FORBIDDEN);
    assert_true(r.read_only);
    /* the next round asks again, with little */
    assert_sync(starts(&r, true, false), 1);
    assert_sync(fails(&r, PROBLEM_READ_ONLY), 0);
    assert_end(fails(&r, PROBLEM_FORBIDDEN), ROUND_STOP, GODWIT_FORBIDDEN);
    assert_false(r.read_only);
    round_event pull = {.kind = ROUND_EVENT_PROBLEM,
                        .problem = PROBLEM_READ_ONLY,
                        .pull_only = true,
                        .retry_after_ms = -1};
    assert_sync(starts(&r, true, false), 1);
    assert_end(round_step(&r, &pull), ROUND_STOP, GODWIT_FORBIDDEN);
    assert_false(r.read_only);
}

static round_action compares(round_state *r, bool registered, bool more) {
    round_event e = {.kind = ROUND_EVENT_OK,
                     .registered = registered,
                     .reconciling = more,
                     .sendable = true,
                     .retry_after_ms = -1};
    return round_step(r, &e);
}

static void another_history_is_compared(void **state) {
    (void)state;
    round_state r;
    round_init(&r);
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    assert_int_equal(fails(&r, PROBLEM_IDENTITY).kind, ROUND_SEND_RECONCILE);
    assert_int_equal(r.phase, ROUND_RECONCILE);
    assert_int_equal(compares(&r, true, true).kind, ROUND_SEND_RECONCILE); /* its next page */
    assert_sync(compares(&r, true, false), PUSH_FILL_OPS);                 /* same identity */
    assert_int_equal(fails(&r, PROBLEM_IDENTITY).kind, ROUND_SEND_RECONCILE);
    assert_int_equal(compares(&r, false, false).kind, ROUND_SEND_REGISTER); /* a new one */
    assert_sync(ok(&r, true, false), PUSH_FILL_OPS);
    assert_int_equal(fails(&r, PROBLEM_IDENTITY).kind, ROUND_SEND_RECONCILE);
    assert_sync(compares(&r, true, false), PUSH_FILL_OPS);
    /* somebody goes on writing under the id: a pause, and the next round compares again */
    assert_end(fails(&r, PROBLEM_IDENTITY), ROUND_WAIT, GODWIT_IDENTITY);
    assert_sync(starts(&r, true, false), PUSH_FILL_OPS);
    assert_int_equal(fails(&r, PROBLEM_IDENTITY).kind, ROUND_SEND_RECONCILE);
}

static void a_comparison_outlives_the_round(void **state) {
    (void)state;
    static const bool registered[] = {true, false};
    for (size_t i = 0; i < COUNT_OF(registered); i++) {
        round_state r;
        round_init(&r);
        round_event start = {.kind = ROUND_EVENT_START,
                             .registered = registered[i],
                             .reconciling = true,
                             .bootstrapping = true,
                             .retry_after_ms = -1};
        round_event page = {.kind = ROUND_EVENT_OK,
                            .registered = true,
                            .reconciling = true,
                            .bootstrapping = true,
                            .retry_after_ms = -1};
        round_action a = round_step(&r, &start);
        if (!registered[i]) { /* the server must know who asks */
            assert_int_equal(a.kind, ROUND_SEND_REGISTER);
            a = round_step(&r, &page);
        }
        assert_int_equal(a.kind, ROUND_SEND_RECONCILE); /* before the snapshot */
        assert_end(fails(&r, PROBLEM_TRANSPORT), ROUND_WAIT, GODWIT_UNREACHABLE);
        assert_int_equal(round_step(&r, &start).kind,
                         registered[i] ? ROUND_SEND_RECONCILE : ROUND_SEND_REGISTER);
    }
}

static void failures_of_a_comparison(void **state) {
    (void)state;
    static const struct {
        round_problem problem;
        round_action_kind action;
        godwit_status status;
    } table[] = {
        {PROBLEM_TRANSPORT, ROUND_WAIT, GODWIT_UNREACHABLE},
        {PROBLEM_BUSY, ROUND_WAIT, GODWIT_OVERLOADED},
        {PROBLEM_UNAUTHENTICATED, ROUND_SEND_RECONCILE, GODWIT_OK}, /* with a fresh token */
        {PROBLEM_FORBIDDEN, ROUND_STOP, GODWIT_FORBIDDEN},
        {PROBLEM_DEVICE_UNKNOWN, ROUND_SEND_REGISTER, GODWIT_OK},
        {PROBLEM_IDENTITY, ROUND_SEND_RECONCILE, GODWIT_OK},
        {PROBLEM_BOOTSTRAP, ROUND_SEND_SNAPSHOT, GODWIT_OK},
        {PROBLEM_TOO_LARGE, ROUND_WAIT, GODWIT_PROTOCOL}, /* no group is to blame */
        {PROBLEM_PROTOCOL, ROUND_WAIT, GODWIT_PROTOCOL},
        {PROBLEM_SCHEMA, ROUND_STOP, GODWIT_UNSUPPORTED},
        {PROBLEM_UNSUPPORTED, ROUND_STOP, GODWIT_UNSUPPORTED},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        round_state r;
        round_init(&r);
        (void)starts(&r, true, false);
        assert_int_equal(fails(&r, PROBLEM_IDENTITY).kind, ROUND_SEND_RECONCILE);
        assert_end(fails(&r, table[i].problem), table[i].action, table[i].status);
        assert_int_equal(r.max_ops, PUSH_FILL_OPS);
        assert_int_equal(r.alone_failures, 0);
    }
}

static void problems_have_their_case(void **state) {
    (void)state;
    static const struct {
        int http;
        const char *type;
        round_problem problem;
    } table[] = {
        {0, "", PROBLEM_TRANSPORT},
        {0, "too-large", PROBLEM_TRANSPORT},
        {200, "", PROBLEM_NONE},
        {200, "bootstrap-required", PROBLEM_BOOTSTRAP},
        {302, "", PROBLEM_TRANSPORT},
        {400, "invalid-request", PROBLEM_PROTOCOL},
        {400, "key-mismatch", PROBLEM_PROTOCOL},
        {400, "", PROBLEM_PROTOCOL},
        {401, "unauthenticated", PROBLEM_UNAUTHENTICATED},
        {401, "", PROBLEM_UNAUTHENTICATED},
        {403, "scope-revoked", PROBLEM_FORBIDDEN},
        {403, "scope-read-only", PROBLEM_READ_ONLY},
        {403, "", PROBLEM_FORBIDDEN},
        {404, "", PROBLEM_UNSUPPORTED},
        {409, "device-forked", PROBLEM_IDENTITY},
        {409, "sequence-gap", PROBLEM_IDENTITY},
        {409, "history-regressed", PROBLEM_IDENTITY},
        {409, "device-retired", PROBLEM_IDENTITY},
        {409, "device-unknown", PROBLEM_DEVICE_UNKNOWN},
        {409, "schema-mismatch", PROBLEM_SCHEMA},
        {409, "of-a-newer-server", PROBLEM_SCHEMA},
        {410, "cursor-expired", PROBLEM_BOOTSTRAP},
        {410, "", PROBLEM_BOOTSTRAP},
        {413, "too-large", PROBLEM_TOO_LARGE},
        {413, "", PROBLEM_TOO_LARGE},
        {422, "digest-mismatch", PROBLEM_PROTOCOL},
        {426, "unsupported-version", PROBLEM_UNSUPPORTED},
        {429, "rate-limited", PROBLEM_BUSY},
        {500, "", PROBLEM_BUSY},
        {502, "", PROBLEM_BUSY},
        {503, "overloaded", PROBLEM_BUSY},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_int_equal(round_problem_of(table[i].http, slice_of(table[i].type)),
                         table[i].problem);
    }
}

/* Whatever happens in whatever order: counters stay in range and every run of failures comes to a
 * wait, a stop or a quarantine within a dozen steps. */
static void no_conversation_runs_hot(void **state) {
    (void)state;
    uint64_t seed = 99;
    round_state r;
    round_init(&r);
    round_action a = starts(&r, true, false);
    int busy = 0;
    for (int i = 0; i < 200000; i++) {
        bool idle = a.kind == ROUND_WAIT || a.kind == ROUND_STOP ||
                    a.kind == ROUND_FINISH;
        bool gave_up = a.kind == ROUND_QUARANTINE;
        uint64_t x = unit_random(&seed);
        if (idle) {
            a = starts(&r, x & 1, x & 2);
            busy = 0;
        } else if (gave_up || x % 5 == 0) {
            round_event e = {.kind = ROUND_EVENT_OK,
                             .registered = true,
                             .sendable = x & 16,
                             .more = x & 32,
                             .bootstrapping = x & 64,
                             .retry_after_ms = -1};
            a = round_step(&r, &e);
            busy = 0;
        } else {
            a = fails(&r, (round_problem)(x / 8 % (PROBLEM_PROTOCOL + 1)));
            busy++;
        }
        assert_true(r.max_ops >= 1 && r.max_ops <= PUSH_FILL_OPS);
        assert_true(r.alone_failures >= 0 && r.alone_failures < POISON_LIMIT);
        assert_true(r.failures >= 0);
        assert_true(a.delay_ms >= 0 && (a.delay_ms == 0 || a.kind == ROUND_WAIT));
        assert_true(busy <= 14);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(register_then_sync_until_done),
        cmocka_unit_test(bootstrap_by_pages),
        cmocka_unit_test(registration_that_asks_for_a_snapshot),
        cmocka_unit_test(no_answer_blames_nothing),
        cmocka_unit_test(the_servers_wait_is_kept),
        cmocka_unit_test(a_poisonous_group_is_found_and_given_up),
        cmocka_unit_test(a_group_that_gets_through_clears_the_count),
        cmocka_unit_test(a_failed_pull_blames_no_group),
        cmocka_unit_test(an_expired_token_is_tried_once_more),
        cmocka_unit_test(an_unknown_device_registers_once),
        cmocka_unit_test(what_needs_a_person_stops),
        cmocka_unit_test(another_history_is_compared),
        cmocka_unit_test(a_comparison_outlives_the_round),
        cmocka_unit_test(failures_of_a_comparison),
        cmocka_unit_test(problems_have_their_case),
        cmocka_unit_test(no_conversation_runs_hot),
        cmocka_unit_test(a_scope_that_may_only_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
