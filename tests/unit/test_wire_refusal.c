/* What a request must not be: each refusal by name, truncation at every byte, mutation, failing
 * memory. */
#include "wire_kit.h"

#include "core/limits.h"

typedef struct {
    const char *from, *to; /* replaced in the valid message */
    int http;
    const char *type, *detail; /* detail: a part of it */
} refusal;

#define BAD 400, "invalid-request"

static void assert_refused(slice text, bool sync, const refusal *want) {
    arena a;
    arena_init(&a, NULL, 0);
    push_request r;
    wire_error e;
    godwit_status status = wire_push_parse(&a, text, sync, KIT_SCOPE, &r, &e);
    if (status != (want->http == 413 ? GODWIT_LIMIT : GODWIT_INVALID) || e.http != want->http ||
        strcmp(e.type, want->type) != 0 || !strstr(e.detail, want->detail)) {
        fail_msg("%s -> %s: status %d, %d %s \"%s\"", want->from, want->to, status, e.http,
                 e.type ? e.type : "", e.detail);
    }
    assert_int_equal(r.op_count, 0);
    assert_null(r.ops);
    arena_deinit(&a);
}

static void a_stream_is_refused_by_name(void **state) {
    (void)state;
    static const refusal table[] = {
        {"{\"deviceId\"", "[\"deviceId\"", BAD, "not valid JSON"},
        {"\"limit\":500", "\"limit\":500,\"limit\":1", BAD, "duplicate key"},
        {"\"limit\":500", "\"lim\":500", BAD, "unknown field lim"},
        {"\"limit\":500", "\"a\\nb\":500", BAD, "unknown field (its name can't be shown)"},
        {"\"limit\":500", "\"limit\":\"5\"", BAD, "limit must be an integer"},
        {"\"limit\":500", "\"limit\":5.0", BAD, "limit must be an integer"},
        {"\"limit\":500", "\"limit\":-1", BAD, "limit is out of range"},
        {"\"deviceId\":\"0b", "\"deviceId\":\"0 b", BAD, "deviceId must be"},
        {"\"deviceId\":\"0b6c0b6c0b6c0b6c0b6c0b6c0b6c0b6c\",", "", BAD, "deviceId is missing"},
        {"\"scope\":\"tenant-7\"", "\"scope\":\"\"", BAD, "scope must be a name"},
        {"\"scope\":\"tenant-7\"", "\"scope\":[]", BAD, "scope must be a name"},
        {"\"timestamp\":\"2026", "\"timestamp\":\"26", BAD, "timestamp must be"},
        {"\"firstSeq\":41,", "", BAD, "firstSeq is missing"},
        {"\"firstSeq\":41", "\"firstSeq\":0", BAD, "firstSeq is out of range"},
        {"\"firstSeq\":41", "\"firstSeq\":9007199254740993", BAD, "firstSeq is out of range"},
        {"\"firstSeq\":41", "\"firstSeq\":40", BAD, "without a gap"},
        {"\"prevKey\":\"30", "\"prevKey\":\"3", BAD, "prevKey must be"},
        {"\"prevKey\":\"30", "\"prevKey\":\"XX", BAD, "prevKey must be"},
        {"\"ackedSeq\":40", "\"ackedSeq\":-1", BAD, "ackedSeq is out of range"},
        {"\"confirmedSeq\":38", "\"confirmedSeq\":true", BAD, "confirmedSeq must be an integer"},
        {"\"wallMs\":1767323045678", "\"wallMs\":\"x\"", BAD, "wallMs must be an integer"},
        {"\"report\":{\"pending\":2}", "\"report\":[]", BAD, "report must be a small object"},
        {"\"report\":{\"pending\":2}", "\"report\":{\"failed\":-1}", BAD, "report has numbers"},
        {"\"report\":{\"pending\":2}", "\"report\":{\"lastError\":\"No!\"}", BAD, "report has"},
        {"\"report\":{\"pending\":2}", "\"atomic\":true", BAD, "atomic is for operations without"},
        {"\"report\":{\"pending\":2}", "\"dryRun\":1", BAD, "dryRun must be true or false"},
        {"\"operations\":[{", "\"operations\":[7,{", BAD,
         "operations[0]: an operation must be an object"},
        {"\"id\":\"op-a\",", "", BAD, "operations[0]: id is missing"},
        {"\"id\":\"op-b\"", "\"id\":7", BAD, "operations[1]: id must be a text"},
        {"\"id\":\"op-b\"", "\"id\":\"op-b\",\"baseSeq\":1", BAD,
         "operations[1]: unknown field baseSeq"},
        {"\"operation\":\"create\"", "\"operation\":\"merge\"", BAD, "unknown operation"},
        {"\"entityType\":\"forms\"", "\"entityType\":\"\"", BAD, "entityType must be a name"},
        {"\"entityId\":\"f-9\"", "\"entityId\":9", BAD, "entityId must be a text"},
        {"\"sequenceNumber\":42", "\"sequenceNumber\":43", BAD, "without a gap"},
        {"\"sequenceNumber\":42", "\"sequenceNumber\":\"42\"", BAD,
         "sequenceNumber must be an integer"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":41,\"size\":1}", BAD,
         "group must be sent"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":40,\"size\":2}", BAD,
         "from its first operation on"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":41,\"size\":5}", BAD,
         "sent whole"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":41,\"size\":0}", BAD,
         "out of range"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":41,\"size\":10001}", BAD,
         "group.size is out of range"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":{\"first\":41,\"n\":2}", BAD,
         "unknown field group.n"},
        {"\"group\":{\"first\":41,\"size\":2}", "\"group\":7", BAD, "group must be an object"},
        {"\"group\":{\"first\":41,\"size\":2},", "", BAD, "group is missing"},
        {"\"group\":{\"first\":44,\"size\":1}", "\"group\":{\"first\":44,\"size\":2}", BAD,
         "operations[3]: a group must be sent whole"},
        {"\"ctx\":{\"$\":1207,", "\"ctx\":{\"$\":-1,", BAD, "ctx.$ is out of range"},
        {"\"salt\":\"fffffffffffffffe\"", "\"salt\":\"fffe\"", BAD, "ctx.salt must be"},
        {",\"salt\":\"fffffffffffffffe\"", "", BAD, "ctx.salt is missing"},
        {",\"salt\":\"fffffffffffffffe\"", ",\"salt\":\"fffffffffffffffe\",\"else\":1", BAD,
         "ctx has an entry of another device"},
        {",\"salt\":\"fffffffffffffffe\"",
         ",\"salt\":\"fffffffffffffffe\",\"0b6c0b6c0b6c0b6c0b6c0b6c0b6c0b6c\":41", BAD,
         "the device's own entry"},
        {"\"nonce\":\"8", "\"nonce\":\"", BAD, "nonce must be"},
        {"\"nonce\":\"8000000000000000\",", "", BAD, "nonce is missing"},
        {"\"dependsOn\":[41,7]", "\"dependsOn\":[42]", BAD, "dependsOn must name earlier"},
        {"\"dependsOn\":[41,7]", "\"dependsOn\":[0]", BAD, "dependsOn must name earlier"},
        {"\"dependsOn\":[41,7]", "\"dependsOn\":[\"op-a\"]", BAD, "dependsOn must name earlier"},
        {"\"dependsOn\":[41,7]", "\"dependsOn\":7", BAD, "dependsOn must be a list"},
        {"\"lsn\":978", "\"lsn\":0", BAD, "origin.lsn is out of range"},
        {"\"lsn\":978", "\"lsn\":978,\"lineage\":\"\\n0b\"", BAD, "origin.lineage must be"},
        {"\"rekeyed\":true", "\"rekeyed\":1", BAD, "origin.rekeyed must be"},
        {"\"payload\":\"{", "\"payload\":\"[", BAD, "payload is not valid JSON"},
        {"\"payload\":\"{\\\"id\\\":\\\"f-9\\\",\\\"pin_id\\\":\\\"p-1\\\"}\"",
         "\"payload\":\"[]\"", BAD, "payload must hold an object"},
        {"\"payload\":\"{\\\"id\\\":\\\"f-9\\\",\\\"pin_id\\\":\\\"p-1\\\"}\"", "\"payload\":{}",
         BAD, "payload must be a text"},
        {"\"base\":\"{\\\"title\\\":\\\"Well\\\"}\"", "\"base\":\"\"", BAD,
         "base is not valid JSON"},
        {"\"reason\":\"discarded\"", "\"reason\":\"row-missing\"", BAD, "reason must be"},
        {"\"reason\":\"discarded\"", "\"payload\":\"{}\"", BAD, "a void carries no payload"},
        {"\"id\":\"op-c\"", "\"id\":\"op-c\",\"reason\":\"poison\"", BAD,
         "reason belongs to a void"},
        {"\"id\":\"op-b\",\"operation\":\"create\"", "\"id\":\"op-b\",\"operation\":\"update\"",
         400, "key-mismatch", "operations[1]: idempotencyKey does not match"},
        {"\"entityId\":\"f-9\"", "\"entityId\":\"f-8\"", 400, "key-mismatch", "operations[1]"},
        {"\"payload\":\"{\\\"id\\\":\\\"f-9\\\"", "\"payload\":\"{ \\\"id\\\":\\\"f-9\\\"", 400,
         "key-mismatch", ""},
        {"\"wallMs\":1767323040001", "\"wallMs\":1767323040002", 400, "key-mismatch", ""},
        {"\"lsn\":979", "\"lsn\":978", 400, "key-mismatch", "operations[2]"},
        {"\"scope\":\"tenant-7\"", "\"scope\":\"tenant-8\"", 400, "key-mismatch", "operations[0]"},
    };
    arena a;
    arena_init(&a, NULL, 0);
    slice valid = kit_push(&a);
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_refused(kit_replace(&a, valid, table[i].from, table[i].to), true, &table[i]);
    }
    arena_deinit(&a);
}

static void one_half_of_a_group_is_not_given_up(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    wire_op ops[KIT_OPS];
    kit_ops(ops);
    ops[1].kind = OP_VOID;
    push_head head = kit_head();
    bytes b;
    bytes_init(&b, NULL, 0);
    wire_push_begin(&b, &head);
    bool first = true;
    wire_push_op(&b, &first, head.device_id, &ops[0]);
    wire_push_op(&b, &first, head.device_id, &ops[1]);
    wire_push_end(&b);
    refusal want = {"", "", BAD, "a group is given up as a whole"};
    assert_refused(bytes_view(&b), true, &want);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static const char plain[] =
    "{\"operations\":[{\"id\":\"1\",\"operation\":\"create\",\"entityType\":\"pin\",\"entityId\":"
    "\"p1\","
    "\"idempotencyKey\":\"k1\",\"payload\":{\"title\":\"A\"}},"
    "{\"id\":\"2\",\"operation\":\"update\",\"entityType\":\"pin\",\"entityId\":\"p1\","
    "\"idempotencyKey\":\"k2\","
    "\"payload\":\"{\\\"title\\\":\\\"B\\\"}\",\"baseSeq\":7,\"dependsOn\":[\"1\"],\"resolves\":"
    "\"c-1\"}],"
    "\"deviceId\":\"d\",\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"atomic\":false}";

static void a_body_without_a_stream_is_refused_by_name(void **state) {
    (void)state;
    static const refusal table[] = {
        {"\"operations\":[", "\"ops\":[", BAD, "unknown field ops"},
        {"\"atomic\":false", "\"cursor\":\"x\"", BAD,
         "unknown field cursor"}, /* of /v1/sync only */
        {"\"atomic\":false", "\"atomic\":\"yes\"", BAD, "atomic must be true or false"},
        {"\"id\":\"1\"", "\"id\":\"1\",\"sequenceNumber\":1", BAD,
         "operations[0]: unknown field sequenceNumber"},
        {"\"idempotencyKey\":\"k1\",", "", BAD, "operations[0]: idempotencyKey is missing"},
        {"\"idempotencyKey\":\"k1\"", "\"idempotencyKey\":\"\"", BAD, "idempotencyKey is empty"},
        {"\"operation\":\"create\",", "", BAD, "operation is missing"},
        {"\"operation\":\"create\"", "\"operation\":7", BAD, "operation must be a text"},
        {"\"payload\":{\"title\":\"A\"}", "\"payload\":[]", BAD, "payload must be an object"},
        {"\"payload\":{\"title\":\"A\"}", "\"payload\":\"A\"", BAD, "payload is not valid JSON"},
        {"\"payload\":{\"title\":\"A\"}", "\"payload\":\"7\"", BAD, "payload must hold an object"},
        {"\"baseSeq\":7", "\"baseSeq\":-1", BAD, "operations[1]: baseSeq is out of range"},
        {"\"dependsOn\":[\"1\"]", "\"dependsOn\":[\"2\"]", BAD,
         "operations[1]: dependsOn must name earlier"},
        {"\"dependsOn\":[\"1\"]", "\"dependsOn\":[\"9\"]", BAD, "dependsOn must name earlier"},
        {"\"dependsOn\":[\"1\"]", "\"dependsOn\":[1]", BAD, "dependsOn must be a list of ids"},
        {"\"resolves\":\"c-1\"", "\"resolves\":1", BAD, "resolves must be a text"},
        {"\"resolves\":\"c-1\"", "\"resolves\":[]", BAD, "resolves must be an id or a list"},
        {"\"resolves\":\"c-1\"", "\"resolves\":[7]", BAD, "resolves must be an id or a list"},
        {"\"resolves\":\"c-1\"", "\"resolves\":[\"a b\"]", BAD, "resolves must be an id or a list"},
        {"\"deviceId\":\"d\"", "\"deviceId\":\"$\"", BAD, "deviceId must be"},
        {"\"deviceId\":\"d\"", "\"deviceId\":\"d\",\"operations\":[]", BAD, "duplicate key"},
    };
    arena a;
    arena_init(&a, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_refused(kit_replace(&a, slice_of(plain), table[i].from, table[i].to), false,
                       &table[i]);
    }
    static const char *const bodies[] = {"[]",
                                         "null",
                                         "7",
                                         "{}",
                                         "{\"deviceId\":\"d\"}",
                                         "{\"deviceId\":\"d\",\"operations\":{}}",
                                         "",
                                         "{\"deviceId\":\"d\",\"operations\":null}"};
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        refusal want = {bodies[i], "", BAD, ""};
        assert_refused(slice_of(bodies[i]), false, &want);
        assert_refused(slice_of(bodies[i]), true, &want);
    }
    arena_deinit(&a);
}

static void sizes_are_bounded(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "{\"deviceId\":\"d\",\"operations\":[");
    for (int i = 0; i <= PUSH_OPS_MAX; i++) {
        bytes_printf(&b, "%s{}", i ? "," : "");
    }
    bytes_text(&b, "]}");
    refusal want = {"10,001 operations", "", 413, "too-large", "over 10000 operations"};
    assert_refused(bytes_view(&b), false, &want);

    bytes_clear(&b);
    (void)bytes_reserve(&b, PUSH_BYTES_MAX + 1);
    b.len = PUSH_BYTES_MAX + 1;
    memset(b.ptr, ' ', b.len);
    want.detail = "the body is over";
    assert_refused(bytes_view(&b), true, &want);

    for (int text = 0; text < 2; text++) {
        bytes_clear(&b);
        bytes_text(&b, "{\"deviceId\":\"d\",\"operations\":[{\"id\":\"1\",\"operation\":\"create\","
                       "\"entityType\":"
                       "\"t\",\"entityId\":\"1\",\"idempotencyKey\":\"k\",\"payload\":");
        bytes_text(&b, text ? "\"{\\\"a\\\":\\\"" : "{\"a\":\"");
        for (size_t i = 0; i < ROW_BYTES_MAX; i += 16) {
            bytes_text(&b, "0123456789abcdef");
        }
        bytes_text(&b, text ? "\\\"}\"}]}" : "\"}}]}");
        want.detail = "operations[0]: payload is over";
        assert_refused(bytes_view(&b), false, &want);
    }
    bytes_clear(&b);
    bytes_text(
        &b,
        "{\"deviceId\":\"d\",\"operations\":[{\"id\":\"1\",\"operation\":\"create\",\"entityType\":"
        "\"t\",\"idempotencyKey\":\"k\",\"entityId\":\"");
    for (size_t i = 0; i <= ENTITY_ID_BYTES_MAX; i++) {
        bytes_char(&b, 'x');
    }
    bytes_text(&b, "\"}]}");
    refusal id = {"long id", "", BAD, "entityId is over 1024 bytes"};
    assert_refused(bytes_view(&b), false, &id);
    bytes_deinit(&b);
}

static void registration_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *detail;
    } table[] = {
        {"{\"lineage\":\"l\",\"scopes\":[]}", "deviceId is missing"},
        {"{\"deviceId\":\"d\",\"scopes\":[]}", "lineage is missing"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\"}", "scopes is missing"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":\"s\"}", "scopes must be a list"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[7]}", "scopes[] must be a name"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[\"\"]}", "scopes[] must be a name"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[],\"label\":\"a\\nb\"}",
         "label must be"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[],\"label\":7}",
         "label must be a text"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[],\"tables\":{}}",
         "tables must be a list"},
        {"{\"deviceId\":\"d\",\"lineage\":\"l\",\"scopes\":[],\"os\":\"x\"}", "unknown field os"},
        {"{\"deviceId\":\"d d\",\"lineage\":\"l\",\"scopes\":[]}", "deviceId must be"},
        {"[]", "must be an object"},
        {"{", "not valid JSON"},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        arena a;
        arena_init(&a, NULL, 0);
        register_request r;
        wire_error e;
        assert_int_equal(wire_register_parse(&a, slice_of(table[i].text), &r, &e), GODWIT_INVALID);
        assert_int_equal(e.http, 400);
        if (!strstr(e.detail, table[i].detail)) {
            fail_msg("%s: refused with \"%s\"", table[i].text, e.detail);
        }
        assert_int_equal(r.device_id.len, 0);
        arena_deinit(&a);
    }
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    arena kit;
    arena_init(&kit, NULL, 0);
    slice messages[] = {kit_push(&kit), slice_of(plain)};
    for (size_t m = 0; m < COUNT_OF(messages); m++) {
        for (size_t len = 0; len < messages[m].len; len++) {
            char *copy = malloc(len ? len : 1);
            memcpy(copy, messages[m].ptr, len);
            refusal want = {"truncated", "", BAD, "not valid JSON"};
            assert_refused((slice){copy, len}, m == 0, &want);
            free(copy);
        }
    }
    arena_deinit(&kit);
}

/* Bytes replaced, and pieces of the message doubled or cut out. Whatever is accepted must hold what
 * the parser promises. */
static void mutations_do_no_harm(void **state) {
    (void)state;
    arena kit;
    arena_init(&kit, NULL, 0);
    slice messages[] = {kit_push(&kit), slice_of(plain)};
    uint64_t seed = 20260103;
    arena a;
    arena_init(&a, NULL, 0);
    size_t accepted = 0;
    for (int round = 0; round < 20000; round++) {
        slice m = messages[round % 2];
        char *copy = malloc(m.len * 2);
        size_t at = unit_random(&seed) % m.len;
        size_t len = unit_random(&seed) % 40;
        len = at + len > m.len ? m.len - at : len;
        size_t total = m.len;
        memcpy(copy, m.ptr, m.len);
        if (round % 4 < 2) {
            copy[at] = (char)(' ' + unit_random(&seed) % 95);
        } else if (round % 8 < 4) {
            memmove(copy + at, m.ptr + at + len, m.len - at - len);
            total -= len;
        } else {
            memcpy(copy + at + len, m.ptr + at, m.len - at);
            total += len;
        }
        push_request r;
        wire_error e;
        godwit_status status =
            wire_push_parse(&a, (slice){copy, total}, round % 2 == 0, KIT_SCOPE, &r, &e);
        accepted += status == GODWIT_OK;
        for (size_t i = 0; i < r.op_count; i++) {
            assert_true(!r.stream || r.ops[i].seq == r.first_seq + (int64_t)i);
            assert_true(r.ops[i].kind == OP_VOID || json_is(r.ops[i].payload_node, JSON_OBJECT));
        }
        if (status != GODWIT_OK) {
            assert_true(e.http == 400 || e.http == 413);
            assert_true(json_utf8_valid(slice_of(e.detail)) && e.detail[0]);
        }
        free(copy);
        arena_reset(&a);
    }
    assert_true(accepted > 50);
    arena_deinit(&a);
    arena_deinit(&kit);
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    arena kit;
    arena_init(&kit, NULL, 0);
    slice text = kit_push(&kit);
    size_t reported = 0;
    for (size_t bound = 1; bound < 40000; bound += 97) {
        arena a;
        arena_init(&a, NULL, bound);
        push_request r;
        wire_error e;
        godwit_status status = wire_push_parse(&a, text, true, KIT_SCOPE, &r, &e);
        assert_true(status == GODWIT_OK || status == GODWIT_NOMEM);
        assert_int_equal(status == GODWIT_OK, r.op_count == KIT_OPS);
        reported += status == GODWIT_NOMEM;
        arena_deinit(&a);
    }
    assert_true(reported > 20);
    arena_deinit(&kit);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_is_refused_by_name),
        cmocka_unit_test(one_half_of_a_group_is_not_given_up),
        cmocka_unit_test(a_body_without_a_stream_is_refused_by_name),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(registration_is_refused_by_name),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(memory_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
