/* Answers: read leniently where unknown, strictly where known; truncation, mutation, failing
 * memory. */
#include "unit.h"

#include "core/wire.h"

#define KEY_TEXT "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const char pull_text[] =
    "{\"commits\":[{\"seq\":1215,\"salt\":\"77d1000000000001\",\"at\":\"2026-01-02T03:04:05.678Z\","
    "\"author\":{\"deviceId\":\"0b6c\",\"userId\":\"alice\",\"new\":1},\"changes\":["
    "{\"entityType\":\"pins\",\"entityId\":\"p-1\",\"kind\":\"upsert\",\"columns\":{\"title\":"
    "\"Well 3\"},"
    "\"full\":true,\"vectorClock\":{\"$\":1207,\"0b6c\":41}},"
    "{\"entityType\":\"forms\",\"entityId\":\"f-2\",\"kind\":\"delete\"}],"
    "\"own\":{\"first\":41,\"last\":42,\"outcome\":\"merged\",\"results\":[{\"id\":\"a\","
    "\"status\":\"success\","
    "\"outcome\":\"merged\",\"commitSeq\":1215,\"sequenceNumber\":41,\"idempotencyKey\":\"" KEY_TEXT
    "\"}]}},{\"seq\":1218,\"salt\":\"0000000000000000\",\"at\":\"2026-01-02T03:04:06Z\",\"author\":"
    "null,"
    "\"changes\":[]}],\"cursor\":\"AQAB\",\"head\":1220,\"more\":true}";

static const char push_text[] =
    "{\"results\":[{\"id\":\"a\",\"status\":\"success\",\"outcome\":\"merged\",\"commitSeq\":1215,"
    "\"sequenceNumber\":41,\"idempotencyKey\":\"" KEY_TEXT "\",\"result\":{\"id\":\"p-1\"},"
    "\"conflicts\":[\"c-01\"],\"vectorClock\":{\"$\":1207}},"
    "{\"id\":\"b\",\"status\":\"error\",\"outcome\":\"rejected\",\"commitSeq\":1216,\"error\":{"
    "\"code\":"
    "\"not-null\",\"retryable\":false,\"detail\":\"title\",\"fields\":[\"title\"]},\"result\":null}"
    ","
    "{\"id\":\"c\",\"status\":\"error\",\"error\":{\"code\":\"of-a-newer-server\",\"retryable\":"
    "true}},"
    "{\"id\":\"d\",\"status\":\"already_processed\"},{\"id\":\"e\",\"status\":\"conflict\"},"
    "{\"id\":\"f\",\"status\":\"deferred\"}],\"appliedSeq\":42,\"head\":1216,"
    "\"serverTime\":\"2026-01-02T03:04:05.678Z\",\"missingBlobs\":[],\"changes\":null,"
    "\"changesProblem\":\"cursor-expired\"}";

static const char register_text[] =
    "{\"deviceId\":\"0b6c\",\"scopes\":[{\"scope\":\"s\",\"head\":7,\"appliedSeq\":3,\"lastKey\":"
    "\"" KEY_TEXT
    "\"},{\"scope\":\"t\",\"head\":0,\"appliedSeq\":0,\"lastKey\":\"\"}],\"tables\":[]}";

static const char snapshot_text[] = "{\"rows\":[{\"entityType\":\"pins\",\"entityId\":\"p-1\","
                                    "\"ver\":9,\"columns\":{\"id\":\"p-1\"},"
                                    "\"vectorClock\":{\"$\":9}}],\"asOf\":12,\"salt\":"
                                    "\"00000000000000ff\",\"head\":14,\"token\":\"tk\","
                                    "\"cursor\":\"cu\",\"more\":true}";

static void a_page_of_the_feed(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    pull_answer p;
    assert_int_equal(wire_pull_answer_parse(&a, slice_of(pull_text), &p), GODWIT_OK);
    assert_int_equal(p.commit_count, 2);
    assert_slice(p.cursor, "AQAB");
    assert_int_equal(p.head, 1220);
    assert_true(p.more);
    const wire_commit *c = &p.commits[0];
    assert_int_equal(c->seq, 1215);
    assert_true(c->salt == INT64_C(0x77d1000000000001));
    assert_true(c->at_ms == INT64_C(1767323045678));
    assert_slice(c->device_id, "0b6c");
    assert_slice(c->user_id, "alice");
    assert_int_equal(c->change_count, 2);
    assert_true(c->changes[0].full && !c->changes[0].is_delete);
    assert_slice(c->changes[0].columns->u.s, "{\"title\":\"Well 3\"}");
    assert_slice(c->changes[0].vector_clock, "{\"$\":1207,\"0b6c\":41}");
    assert_true(c->changes[1].is_delete && !c->changes[1].columns);
    assert_slice(c->changes[1].entity_id, "f-2");
    assert_true(c->own);
    assert_int_equal(c->own_first, 41);
    assert_int_equal(c->own_last, 42);
    assert_int_equal(c->own_outcome, OUTCOME_MERGED);
    assert_int_equal(c->own_count, 1);
    assert_true(c->own_results[0].has_key);
    assert_int_equal(c->own_results[0].key[0], 0xe3);
    assert_false(p.commits[1].own);
    assert_int_equal(p.commits[1].device_id.len, 0);
    arena_deinit(&a);
}

static void an_answer_to_a_push(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    push_answer p;
    assert_int_equal(wire_push_answer_parse(&a, slice_of(push_text), &p), GODWIT_OK);
    assert_int_equal(p.result_count, 6);
    assert_int_equal(p.applied_seq, 42);
    assert_int_equal(p.head, 1216);
    assert_false(p.has_changes);
    assert_slice(p.changes_problem, "cursor-expired");
    const wire_result *r = p.results;
    assert_int_equal(r[0].outcome, OUTCOME_MERGED);
    assert_int_equal(r[0].seq, 41);
    assert_true(r[0].has_key);
    assert_slice(r[0].result->u.s, "{\"id\":\"p-1\"}");
    assert_int_equal(r[0].conflicts->count, 1);
    assert_non_null(r[0].vector_clock);
    assert_int_equal(r[1].outcome, OUTCOME_REJECTED);
    assert_int_equal(r[1].code, CODE_NOT_NULL);
    assert_slice(r[1].detail, "title");
    assert_false(r[1].retryable);
    assert_null(r[1].result);
    assert_int_equal(r[2].outcome, OUTCOME_REJECTED);
    assert_int_equal(r[2].code, CODE_NONE);
    assert_slice(r[2].code_text, "of-a-newer-server");
    assert_true(r[2].retryable);
    assert_int_equal(r[3].outcome, OUTCOME_DUPLICATE);
    assert_int_equal(r[4].outcome, OUTCOME_CONFLICT);
    assert_int_equal(r[5].outcome, OUTCOME_NONE);
    assert_slice(r[5].status, "deferred");
    char both[sizeof(pull_text) + 100];
    (void)snprintf(both, sizeof(both), "{\"results\":[],\"changes\":%s}", pull_text);
    assert_int_equal(wire_push_answer_parse(&a, slice_of(both), &p), GODWIT_OK);
    assert_true(p.has_changes);
    assert_int_equal(p.changes.commit_count, 2);
    arena_deinit(&a);
}

static void registration_and_snapshot(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    register_answer r;
    assert_int_equal(wire_register_answer_parse(&a, slice_of(register_text), &r), GODWIT_OK);
    assert_int_equal(r.scope_count, 2);
    assert_slice(r.scopes[0].scope, "s");
    assert_int_equal(r.scopes[0].applied_seq, 3);
    assert_true(r.scopes[0].has_last_key);
    assert_false(r.scopes[1].has_last_key);
    assert_non_null(r.tables);
    snapshot_answer s;
    assert_int_equal(wire_snapshot_answer_parse(&a, slice_of(snapshot_text), &s), GODWIT_OK);
    assert_int_equal(s.row_count, 1);
    assert_int_equal(s.rows[0].ver, 9);
    assert_slice(s.rows[0].vector_clock, "{\"$\":9}");
    assert_int_equal(s.as_of, 12);
    assert_int_equal(s.salt, 255);
    assert_slice(s.token, "tk");
    assert_slice(s.cursor, "cu");
    assert_true(s.more);
    arena_deinit(&a);
}

/* Which of the four parsers a message is for. */
static godwit_status parse(arena *a, int which, slice text) {
    push_answer push;
    pull_answer pull;
    register_answer reg;
    snapshot_answer snapshot;
    static const char zeros[sizeof(push_answer)];
    godwit_status status = GODWIT_OK;
    switch (which) {
    case 0:
        status = wire_pull_answer_parse(a, text, &pull);
        assert_true(status == GODWIT_OK || memcmp(&pull, zeros, sizeof(pull)) == 0);
        break;
    case 1:
        status = wire_push_answer_parse(a, text, &push);
        assert_true(status == GODWIT_OK || memcmp(&push, zeros, sizeof(push)) == 0);
        break;
    case 2:
        status = wire_register_answer_parse(a, text, &reg);
        assert_true(status == GODWIT_OK || memcmp(&reg, zeros, sizeof(reg)) == 0);
        break;
    default:
        status = wire_snapshot_answer_parse(a, text, &snapshot);
        assert_true(status == GODWIT_OK || memcmp(&snapshot, zeros, sizeof(snapshot)) == 0);
        break;
    }
    return status;
}

static const char *const texts[] = {pull_text, push_text, register_text, snapshot_text};

static void known_members_have_their_type(void **state) {
    (void)state;
    static const struct {
        int which;
        const char *from, *to;
    } table[] = {
        {0, "\"commits\":[", "\"comm\":["},
        {0, "\"seq\":1215", "\"seq\":\"1215\""},
        {0, "\"seq\":1215", "\"seq\":-1"},
        {0, "\"seq\":1215", "\"seq\":1218"}, /* commit numbers must grow */
        {0, "\"seq\":1215,", ""},
        {0, "\"salt\":\"77d1000000000001\"", "\"salt\":\"77d1\""},
        {0, "\"at\":\"2026-01-02T03:04:05.678Z\"", "\"at\":\"yesterday\""},
        {0, "\"author\":{", "\"author\":7,\"x\":{"},
        {0, "\"changes\":[{", "\"changes\":[7,{"},
        {0, "\"kind\":\"upsert\"", "\"kind\":\"merge\""},
        {0, "\"columns\":{\"title\":\"Well 3\"},", ""},
        {0, "\"entityId\":\"p-1\"", "\"entityId\":1"},
        {0, "\"outcome\":\"merged\"", "\"outcome\":\"eaten\""},
        {0, "\"cursor\":\"AQAB\"", "\"cursor\":null"},
        {0, "\"head\":1220", "\"head\":1.5"},
        {0, "\"more\":true", "\"more\":1"},
        {1, "\"results\":[", "\"results\":{},\"x\":["},
        {1, "\"status\":\"success\"", "\"status\":1"},
        {1, "\"status\":\"success\",\"outcome\":\"merged\"", "\"status\":\"splendid\""},
        {1, "\"outcome\":\"merged\"", "\"outcome\":\"splendid\""},
        {1, "\"idempotencyKey\":\"e3", "\"idempotencyKey\":\"E3"},
        {1, "\"result\":{\"id\":\"p-1\"}", "\"result\":[]"},
        {1, "\"code\":\"not-null\"", "\"code\":null"},
        {1, "\"retryable\":false", "\"retryable\":\"no\""},
        {1, "\"appliedSeq\":42", "\"appliedSeq\":-42"},
        {1, "\"changes\":null", "\"changes\":{}"},
        {1, "\"changes\":null", "\"changes\":[]"},
        {2, "\"deviceId\":\"0b6c\"", "\"deviceId\":7"},
        {2, "\"scope\":\"s\"", "\"name\":\"s\""},
        {2, "\"lastKey\":\"e3", "\"lastKey\":\"3"},
        {2, "\"tables\":[]", "\"tables\":{}"},
        {3, "\"ver\":9", "\"ver\":null"},
        {3, "\"columns\":{\"id\":\"p-1\"},", ""},
        {3, "\"asOf\":12,", ""},
        {3, "\"cursor\":\"cu\",", ""},
        {3, "\"token\":\"tk\",", ""}, /* more to come, and no way to ask for it */
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        arena a;
        arena_init(&a, NULL, 0);
        const char *text = texts[table[i].which];
        const char *at = strstr(text, table[i].from);
        assert_non_null(at);
        const char *changed = arena_printf(&a, "%.*s%s%s", (int)(at - text), text, table[i].to,
                                           at + strlen(table[i].from));
        if (parse(&a, table[i].which, slice_of(changed)) != GODWIT_PROTOCOL) {
            fail_msg("accepted: %s -> %s", table[i].from, table[i].to);
        }
        arena_deinit(&a);
    }
    arena a;
    arena_init(&a, NULL, 0);
    for (int which = 0; which < 4; which++) {
        assert_int_equal(parse(&a, which, SLICE("<html>")), GODWIT_PROTOCOL);
        assert_int_equal(parse(&a, which, SLICE("[]")), GODWIT_PROTOCOL);
        assert_int_equal(parse(&a, which, SLICE("{}")), GODWIT_PROTOCOL);
        assert_int_equal(parse(&a, which, SLICE("")), GODWIT_PROTOCOL);
    }
    arena_deinit(&a);
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    for (int which = 0; which < 4; which++) {
        for (size_t len = 0; len < strlen(texts[which]); len++) {
            char *copy = malloc(len ? len : 1);
            memcpy(copy, texts[which], len);
            assert_int_equal(parse(&a, which, (slice){copy, len}), GODWIT_PROTOCOL);
            free(copy);
            arena_reset(&a);
        }
        assert_int_equal(parse(&a, which, slice_of(texts[which])), GODWIT_OK);
    }
    arena_deinit(&a);
}

static void mutations_do_no_harm(void **state) {
    (void)state;
    uint64_t seed = 20260104;
    arena a;
    arena_init(&a, NULL, 0);
    size_t accepted = 0;
    for (int round = 0; round < 40000; round++) {
        const char *text = texts[round % 4];
        size_t len = strlen(text);
        char *copy = malloc(len);
        memcpy(copy, text, len);
        for (int i = 0; i < 1 + round % 3; i++) {
            copy[unit_random(&seed) % len] = (char)(' ' + unit_random(&seed) % 95);
        }
        accepted += parse(&a, round % 4, (slice){copy, len}) == GODWIT_OK;
        free(copy);
        arena_reset(&a);
    }
    assert_true(accepted > 500);
    arena_deinit(&a);
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    for (int which = 0; which < 4; which++) {
        size_t reported = 0;
        for (size_t bound = 1; bound < 20000; bound += 61) {
            arena a;
            arena_init(&a, NULL, bound);
            godwit_status status = parse(&a, which, slice_of(texts[which]));
            assert_true(status == GODWIT_OK || status == GODWIT_NOMEM);
            reported += status == GODWIT_NOMEM;
            arena_deinit(&a);
        }
        assert_true(reported > 3 && reported < 327);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_of_the_feed),
        cmocka_unit_test(an_answer_to_a_push),
        cmocka_unit_test(registration_and_snapshot),
        cmocka_unit_test(known_members_have_their_type),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(memory_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
