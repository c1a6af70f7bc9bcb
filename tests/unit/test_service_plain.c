/* Callers without a stream: the requirements' own body, its keys, atomic requests, the header. */
#include "service_kit.h"

#define OP(id, kind, entity, key, payload)                                                         \
    "{\"id\":\"" id "\",\"operation\":\"" kind "\",\"entityType\":\"" entity                       \
    "\",\"entityId\":\"" id "\",\"idempotencyKey\":\"" key "\",\"payload\":" payload "}"
#define BODY(ops)                                                                                  \
    "{\"deviceId\":\"tool\",\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"operations\":[" ops "]}"
#define ATOMIC(ops) "{\"deviceId\":\"tool\",\"atomic\":true,\"operations\":[" ops "]}"

static void the_requirements_body(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_answer r = kit_push_text(
        &k, BODY(OP("p1", "create", "pins", "k1", "{\"title\":\"Well\"}") "," OP(
                "p1", "update", "pins", "k2",
                "\"{\\\"note\\\":\\\"dry\\\"}\"") "," OP("p0", "delete", "pins", "k3", "{}")));
    assert_status(r, 200);
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.1.result.note", "dry");
    assert_text(r, "results.2.outcome", "noop");
    assert_int_equal(kit_int(&r, "results.2.commitSeq"), 3);
    assert_null(kit_at(r.root, "appliedSeq"));
    kit_answer feed = kit_changes(&k, "field", (slice){0}, "", "");
    assert_text(feed, "commits.0.author.deviceId", "tool");
    assert_text(feed, "commits.0.changes.0.vectorClock", "{\"$\":1}");
    kit_deinit(&k);
}

static void replays_and_mismatches(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    const char *create = BODY(OP("p1", "create", "pins", "k1", "{\"title\":\"Well\"}"));
    kit_answer first = kit_push_text(&k, create);
    (void)kit_push_text(&k, BODY(OP("p1", "update", "pins", "k2", "{\"title\":\"Later\"}")));
    kit_answer again = kit_push_text(&k, create);
    assert_text(again, "results.0.status", "already_processed");
    assert_true(
        slice_equal(kit_text(&again, "results.0.result"), kit_text(&first, "results.0.result")));
    assert_text(again, "results.0.result.title", "Well");
    assert_int_equal(kit_int(&again, "results.0.commitSeq"), 1);
    kit_answer other =
        kit_push_text(&k, BODY(OP("p1", "create", "pins", "k1", "{\"title\":\"Other\"}")));
    assert_text(other, "results.0.status", "error");
    assert_text(other, "results.0.error.code", "idempotency-mismatch");
    assert_string_equal(kit_sql(&k, "SELECT title FROM pins"), "Later");
    assert_string_equal(kit_sql(&k, "SELECT head FROM godwit_scope"), "2");
    /* refusals are kept like successes */
    const char *refused = BODY(OP("p9", "update", "pins", "k9", "{\"title\":\"x\"}"));
    assert_text(kit_push_text(&k, refused), "results.0.error.code", "row-missing");
    (void)kit_push_text(&k, BODY(OP("p9", "create", "pins", "k10", "{}")));
    again = kit_push_text(&k, refused);
    assert_text(again, "results.0.status", "already_processed");
    assert_text(again, "results.0.error.code", "row-missing");
    /* one key twice in one request */
    other = kit_push_text(&k, BODY(OP("p3", "create", "pins", "same",
                                      "{}") "," OP("p4", "create", "pins", "same", "{}")));
    assert_true(other.status == 400 ||
                slice_is(kit_text(&other, "results.1.error.code"), "idempotency-mismatch"));
    kit_deinit(&k);
}

static void atomic_requests(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_answer r = kit_push_text(&k, ATOMIC(OP("p1", "create", "pins", "a", "{}") "," OP(
                                         "p2", "update", "pins", "b", "{\"title\":\"x\"}")));
    assert_text(r, "results.0.status", "error");
    assert_text(r, "results.1.error.code", "row-missing");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "0");
    const char *good = ATOMIC(OP("p1", "create", "pins", "c",
                                 "{}") "," OP("f1", "create", "forms", "d", "{\"pin_id\":\"p1\"}"));
    r = kit_push_text(&k, good);
    assert_text(r, "results.1.status", "success");
    assert_int_equal(kit_int(&r, "results.0.commitSeq"), kit_int(&r, "results.1.commitSeq"));
    r = kit_push_text(&k, good);
    assert_text(r, "results.0.status", "already_processed");
    assert_text(r, "results.1.status", "already_processed");
    /* a known key in other company */
    r = kit_push_text(&k, ATOMIC(OP("p1", "create", "pins", "c", "{}") "," OP("p5", "create",
                                                                              "pins", "e", "{}")));
    assert_text(r, "results.0.error.code", "idempotency-mismatch");
    assert_text(r, "results.1.error.code", "idempotency-mismatch");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "1");
    r = kit_push_text(&k, ATOMIC(OP("p6", "create", "pins", "twice",
                                    "{}") "," OP("p7", "create", "pins", "twice", "{}")));
    assert_problem(r, 400, "invalid-request");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "1");
    kit_deinit(&k);
}

static void a_constraint_refuses_one_of_many(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_answer r = kit_push_text(
        &k, BODY(OP("p1", "create", "pins", "a", "{\"slug\":\"s\"}") "," OP(
                "p2", "create", "pins", "b", "{\"slug\":\"s\"}") "," OP("p3", "create", "pins", "c",
                                                                        "{\"slug\":\"t\"}")));
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.1.error.code", "unique-violation");
    assert_text(r, "results.2.status", "success");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_idem"), "3");
    kit_deinit(&k);
}

static void base_seq_and_depends(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    (void)kit_push_text(&k, BODY(OP("p1", "create", "pins", "a", "{\"title\":\"t\"}")));
    (void)kit_push_text(&k, BODY(OP("p1", "update", "pins", "b", "{\"title\":\"u\"}")));
    kit_answer r = kit_push_text(
        &k,
        BODY("{\"id\":\"x\",\"operation\":\"update\",\"entityType\":\"pins\",\"entityId\":\"p1\","
             "\"idempotencyKey\":\"c\",\"baseSeq\":1,\"payload\":{\"title\":\"v\"}}"));
    assert_text(r, "results.0.outcome", "merged");
    r = kit_push_text(&k,
                      BODY(OP("gone", "update", "pins", "d",
                              "{\"title\":\"v\"}") ","
                                                   "{\"id\":\"y\",\"operation\":\"create\","
                                                   "\"entityType\":\"pins\",\"entityId\":\"p2\","
                                                   "\"idempotencyKey\":\"e\",\"dependsOn\":["
                                                   "\"gone\"],\"payload\":{}}"));
    assert_text(r, "results.1.error.code", "dependency-failed");
    kit_deinit(&k);
}

static void the_header_covers_the_request(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_answer answers[3];
    const char *bodies[] = {BODY(OP("p1", "create", "pins", "a", "{}")),
                            BODY(OP("p1", "create", "pins", "a", "{}")),
                            BODY(OP("p2", "create", "pins", "b", "{}"))};
    for (int i = 0; i < 3; i++) {
        service_job job;
        kit_job(&k, &job, VERB_PUSH, "ana", "field");
        job.idempotency_key_header = SLICE("request-1");
        job.body = slice_of(bodies[i]);
        answers[i] = kit_run(&k, &job);
    }
    assert_status(answers[0], 200);
    assert_true(slice_equal(answers[0].text, answers[1].text));
    assert_problem(answers[2], 422, "idempotency-mismatch");
    kit_deinit(&k);
}

static void bad_bodies_change_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    static const char *const bodies[] = {"",
                                         "{",
                                         "[]",
                                         "{\"operations\":1}",
                                         BODY("{}"),
                                         BODY("{\"id\":1}"),
                                         "{\"operations\":[],\"x\":1}"};
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        kit_answer r = kit_push_text(&k, bodies[i]);
        assert_problem(r, 400, "invalid-request");
    }
    kit_answer r = kit_push_text(
        &k,
        BODY(
            OP("p", "create", "planets", "a", "{}") "," OP("p", "upsert", "pins", "b", "{}") "," OP(
                "p", "create", "pins", "c",
                "{\"colour\":1}") "," OP("p", "create", "pins", "d",
                                         "{\"id\":\"q\"}") "," OP("p", "create", "godwit_op", "e",
                                                                  "{}")));
    assert_text(r, "results.0.error.code", "unknown-entity");
    assert_text(r, "results.1.error.code", "unknown-operation");
    assert_text(r, "results.2.error.code", "unknown-column");
    assert_text(r, "results.3.error.code", "invalid-value");
    assert_text(r, "results.4.error.code", "unknown-entity");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_row"), "0");
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_requirements_body),
        cmocka_unit_test(replays_and_mismatches),
        cmocka_unit_test(atomic_requests),
        cmocka_unit_test(a_constraint_refuses_one_of_many),
        cmocka_unit_test(base_seq_and_depends),
        cmocka_unit_test(the_header_covers_the_request),
        cmocka_unit_test(bad_bodies_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
