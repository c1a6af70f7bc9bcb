/* Requests on the wire: what a client writes is what a server reads; the requirements' own body;
 * small forms (times, hex words, cursors, problems). */
#include "wire_kit.h"

#include "core/limits.h"

static push_request parse(arena *a, slice text, bool sync, slice default_scope) {
    push_request r;
    wire_error e;
    if (wire_push_parse(a, text, sync, default_scope, &r, &e) != GODWIT_OK) {
        fail_msg("refused: %d %s %s", e.http, e.type ? e.type : "", e.detail);
    }
    return r;
}

static void a_push_arrives_as_it_was_written(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    push_request r = parse(&a, kit_push(&a), true, SLICE("other"));
    wire_op ops[KIT_OPS];
    kit_ops(ops);
    assert_true(r.stream && r.pull && r.has_prev_key && !r.atomic && !r.dry_run);
    assert_true(slice_equal(r.device_id, KIT_DEVICE));
    assert_true(slice_equal(r.scope, KIT_SCOPE));
    assert_int_equal(r.first_seq, 41);
    assert_memory_equal(r.prev_key, "0123456789abcdef0123456789abcdef", SHA256_BYTES);
    assert_int_equal(r.acked_seq, 40);
    assert_int_equal(r.confirmed_seq, 38);
    assert_true(r.wall_ms == INT64_C(1767323045678));
    assert_slice(r.cursor, "AQAAAA");
    assert_int_equal(r.limit, 500);
    assert_slice(r.tables, "pins,forms");
    assert_true(r.has_report);
    assert_int_equal(r.report.pending, 2);
    assert_int_equal(r.op_count, KIT_OPS);
    for (size_t i = 0; i < KIT_OPS; i++) {
        const wire_op *got = &r.ops[i];
        const wire_op *want = &ops[i];
        assert_true(slice_equal(got->id, want->id));
        assert_int_equal(got->kind, want->kind);
        assert_true(slice_equal(got->entity_type, want->entity_type));
        assert_true(slice_equal(got->entity_id, want->entity_id));
        assert_int_equal(got->seq, want->seq);
        assert_memory_equal(got->key, want->key, SHA256_BYTES);
        assert_int_equal(got->group_first, want->group_first);
        assert_int_equal(got->group_size, want->group_size);
        assert_true(slice_equal(got->lineage, want->lineage));
        assert_int_equal(got->lsn, want->lsn);
        assert_int_equal(got->rekeyed, want->rekeyed);
        assert_int_equal(got->reason, want->reason);
        assert_true(got->wall_ms == want->wall_ms);
        assert_int_equal(got->depends_count, want->depends_count);
        for (size_t j = 0; j < want->depends_count; j++) {
            assert_int_equal(got->depends_on[j], want->depends_on[j]);
        }
        if (want->kind == OP_VOID) {
            assert_null(got->payload_node);
            assert_null(got->base_node);
            continue;
        }
        assert_int_equal(got->base_seq, want->base_seq);
        assert_true(got->base_salt == want->base_salt);
        assert_true(got->nonce == want->nonce);
        assert_true(slice_equal(got->payload, want->payload));
        assert_true(slice_equal(got->base, want->base));
        assert_true(json_is(got->payload_node, JSON_OBJECT));
        assert_true(json_is(got->base_node, JSON_OBJECT));
    }
    assert_slice(json_get(r.ops[0].payload_node, "title")->u.s, "Well \"3\" \xc3\xa9");
    arena_deinit(&a);
}

static void the_scope_of_the_token_is_the_default(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    slice text = kit_replace(&a, kit_push(&a), "\"scope\":\"tenant-7\",", "");
    push_request r = parse(&a, text, true, KIT_SCOPE);
    assert_int_equal(r.scope.len, 0);
    wire_error e;
    assert_int_equal(wire_push_parse(&a, text, true, SLICE("other"), &r, &e), GODWIT_INVALID);
    assert_string_equal(e.type, "key-mismatch");
    arena_deinit(&a);
}

static void a_plain_pull(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    push_head head = {.device_id = SLICE("phone-1"), .scope = SLICE("s"), .pull = true};
    bytes b;
    bytes_init(&b, NULL, 0);
    wire_push_begin(&b, &head);
    wire_push_end(&b);
    push_request r = parse(&a, bytes_view(&b), true, SLICE("s"));
    assert_true(r.stream && r.pull);
    assert_int_equal(r.op_count, 0);
    assert_int_equal(r.cursor.len, 0);
    r = parse(&a, SLICE("{\"deviceId\":\"d\",\"operations\":[],\"cursor\":null,\"scope\":null}"),
              true, SLICE("s"));
    assert_true(r.stream);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void the_requirements_body_works_as_it_stands(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    push_request r = parse(
        &a,
        SLICE("{\"operations\":["
              "{\"id\":\"1\",\"operation\":\"create\",\"entityType\":\"pin\",\"entityId\":\"p1\","
              "\"idempotencyKey\":\"d|pin|p1|17\",\"payload\":{\"title\":\"A\", \"n\":1}},"
              "{\"id\":\"2\",\"operation\":\"update\",\"entityType\":\"pin\",\"entityId\":\"p1\","
              "\"idempotencyKey\":\"k2\",\"payload\":\"{\\\"title\\\":\\\"B\\\"}\",\"baseSeq\":7,"
              "\"dependsOn\":[\"1\"],\"resolves\":\"c-1\"},"
              "{\"id\":\"3\",\"operation\":\"delete\",\"entityType\":\"pin\",\"entityId\":\"p1\","
              "\"idempotencyKey\":\"k3\",\"dependsOn\":\"2\",\"reverts\":[\"c-1\",\"c-2\"]},"
              "{\"id\":\"4\",\"operation\":\"merge\",\"entityType\":\"pin\",\"entityId\":\"p1\","
              "\"idempotencyKey\":\"k4\",\"payload\":{}},"
              "{\"id\":\"5\",\"operation\":\"void\",\"entityType\":\"pin\",\"entityId\":\"p1\","
              "\"idempotencyKey\":\"k5\"}],"
              "\"deviceId\":\"a3bb189e-8bf9-3888-9912-ace4e6543002\","
              "\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"atomic\":true,\"dryRun\":true}"),
        false, SLICE("user:ana"));
    assert_false(r.stream || r.pull);
    assert_true(r.atomic && r.dry_run);
    assert_int_equal(r.op_count, 5);
    assert_true(r.wall_ms == INT64_C(1767323045678));
    assert_slice(r.ops[0].payload, "{\"title\":\"A\", \"n\":1}");
    assert_slice(r.ops[0].key_text, "d|pin|p1|17");
    assert_int_equal(r.ops[0].base_commit, -1);
    assert_slice(json_get(r.ops[0].payload_node, "title")->u.s, "A");
    assert_slice(json_get(r.ops[1].payload_node, "title")->u.s, "B");
    assert_int_equal(r.ops[1].base_commit, 7);
    assert_int_equal(r.ops[1].depends_count, 1);
    assert_slice(r.ops[1].depends_ids[0], "1");
    assert_slice(r.ops[1].resolves, "c-1");
    assert_slice(r.ops[2].payload, "{}");
    assert_int_equal(r.ops[2].kind, OP_DELETE);
    assert_slice(r.ops[2].depends_ids[0], "2");
    assert_slice(r.ops[2].resolves, "c-1 c-2");
    assert_true(r.ops[2].reverts);
    /* An unknown name is that operation's own outcome, not the request's. */
    assert_int_equal(r.ops[3].kind, OP_NONE);
    assert_int_equal(r.ops[4].kind, OP_NONE);
    arena_deinit(&a);
}

static void the_same_id_twice_is_for_the_ledger_to_judge(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    push_request r = parse(
        &a,
        SLICE("{\"deviceId\":\"d\",\"operations\":["
              "{\"id\":\"1\",\"operation\":\"PUT\",\"entityType\":\"t\",\"entityId\":\"\","
              "\"idempotencyKey\":\"k\"},"
              "{\"id\":\"1\",\"operation\":\"PATCH\",\"entityType\":\"t\",\"entityId\":\"\","
              "\"idempotencyKey\":\"k\",\"dependsOn\":[\"1\"]}],\"timestamp\":1767323045678}"),
        false, SLICE("s"));
    assert_int_equal(r.op_count, 2);
    assert_int_equal(r.ops[0].kind, OP_CREATE);
    assert_int_equal(r.ops[1].kind, OP_UPDATE);
    assert_true(r.wall_ms == INT64_C(1767323045678));
    arena_deinit(&a);
}

static void registration_goes_both_ways(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *tables = NULL;
    assert_int_equal(
        json_parse(
            &a,
            SLICE("[{\"name\":\"pins\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\"}]}]"),
            &tables, NULL),
        GODWIT_OK);
    schema s;
    assert_int_equal(schema_from_json(&a, tables, &s, NULL), GODWIT_OK);
    slice scopes[] = {SLICE("a"), SLICE("b")};
    register_request r = {.device_id = KIT_DEVICE,
                          .lineage = SLICE("l-1"),
                          .label = SLICE("Ana's phone"),
                          .scopes = scopes,
                          .scope_count = 2};
    bytes b;
    bytes_init(&b, NULL, 0);
    wire_register_write(&b, &r, &s);
    register_request got;
    wire_error e;
    assert_int_equal(wire_register_parse(&a, bytes_view(&b), &got, &e), GODWIT_OK);
    assert_true(slice_equal(got.device_id, KIT_DEVICE));
    assert_slice(got.lineage, "l-1");
    assert_slice(got.label, "Ana's phone");
    assert_int_equal(got.scope_count, 2);
    assert_slice(got.scopes[1], "b");
    assert_int_equal(schema_from_json(&a, got.tables, &s, NULL), GODWIT_OK);
    assert_int_equal(s.table_count, 1);
    bytes_clear(&b);
    r.label = SLICE("");
    r.scope_count = 0;
    wire_register_write(&b, &r, NULL);
    assert_int_equal(wire_register_parse(&a, bytes_view(&b), &got, &e), GODWIT_OK);
    assert_null(got.tables);
    assert_int_equal(got.scope_count, 0);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static slice member(const json *o, const char *name) {
    slice text = {NULL, 0};
    assert_true(json_text(json_get(o, name), &text));
    return text;
}

static void times_match_the_golden_forms(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *root = NULL;
    assert_int_equal(json_parse(&a, unit_golden(&a, "wire/times.json"), &root, NULL), GODWIT_OK);
    const json *list = json_get(root, "times");
    const json *o = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        int64_t want = 0;
        int64_t got = 0;
        assert_true(json_int(json_get(o, "ms"), &want));
        assert_true(wire_time_parse(member(o, "text"), &got));
        assert_true(got == want);
        char text[32];
        wire_time_write(got, text);
        assert_slice(member(o, "canonical"), text);
    }
    list = json_get(root, "refused");
    o = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        int64_t untouched = 7;
        if (wire_time_parse(o->u.s, &untouched)) {
            fail_msg("accepted: " SLICE_FMT, SLICE_ARG(o->u.s));
        }
        assert_int_equal(untouched, 7);
    }
    arena_deinit(&a);
}

static void times_go_both_ways(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; i < 50000; i++) {
        int64_t ms =
            (int64_t)(unit_random(&seed) % UINT64_C(315537897600000)) - INT64_C(62135596800000);
        char text[32];
        wire_time_write(ms, text);
        assert_int_equal(strlen(text), 24);
        int64_t back = 0;
        assert_true(wire_time_parse(slice_of(text), &back));
        assert_true(back == ms);
    }
    char text[32];
    wire_time_write(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    wire_time_write(INT64_MIN, text);
    assert_string_equal(text, "0001-01-01T00:00:00.000Z");
}

static void words_are_sixteen_hex_digits(void **state) {
    (void)state;
    static const int64_t values[] = {0, 1, -1, INT64_MIN, INT64_MAX, INT64_C(0x0123456789abcdef)};
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        char text[17];
        wire_u64_write(values[i], text);
        int64_t back = 7;
        assert_true(wire_u64_parse(slice_of(text), &back));
        assert_true(back == values[i]);
    }
    int64_t out = 7;
    assert_false(wire_u64_parse(SLICE(""), &out));
    assert_false(wire_u64_parse(SLICE("0123456789abcde"), &out));
    assert_false(wire_u64_parse(SLICE("0123456789ABCDEF"), &out));
    assert_false(wire_u64_parse(SLICE("0123456789abcdef0"), &out));
    assert_int_equal(out, 7);
}

static void a_cursor_goes_both_ways_and_shows_damage(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    wire_cursor c = {
        .seq = 1215, .salt = -77, .scope = SLICE("b\xc3\xbcro ?~"), .tables_hash = UINT64_MAX};
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "cursor=");
    wire_cursor_write(&b, &c);
    slice text = {b.ptr + 7, b.len - 7};
    assert_true(text.len <= CURSOR_BYTES_MAX);
    assert_null(strpbrk(text.ptr, "+/="));
    wire_cursor got;
    assert_int_equal(wire_cursor_parse(&a, text, &got), GODWIT_OK);
    assert_int_equal(got.seq, 1215);
    assert_int_equal(got.salt, -77);
    assert_true(slice_equal(got.scope, c.scope));
    assert_true(got.tables_hash == UINT64_MAX);
    for (size_t len = 0; len < text.len; len++) {
        assert_int_equal(wire_cursor_parse(&a, (slice){text.ptr, len}, &got), GODWIT_INVALID);
    }
    for (size_t i = 0; i < text.len; i++) {
        for (const char *other = "A_z-0=+ "; *other; other++) {
            char copy[CURSOR_BYTES_MAX];
            memcpy(copy, text.ptr, text.len);
            if (copy[i] == *other) {
                continue;
            }
            copy[i] = *other;
            assert_int_equal(wire_cursor_parse(&a, (slice){copy, text.len}, &got), GODWIT_INVALID);
            assert_int_equal(got.seq, 0);
        }
    }
    bytes_text(&b, "A");
    assert_int_equal(wire_cursor_parse(&a, (slice){b.ptr + 7, b.len - 7}, &got), GODWIT_INVALID);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void problems_go_both_ways(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    bytes b;
    bytes_init(&b, NULL, 0);
    wire_problem_write(&b, 409, "device-forked", "Another history", "say \"why\"",
                       "\"appliedSeq\":4,\"lastKey\":\"ab\"");
    assert_slice(bytes_view(&b),
                 "{\"type\":\"/problems/device-forked\",\"title\":\"Another history\","
                 "\"status\":409,\"detail\":\"say \\\"why\\\"\",\"appliedSeq\":4,"
                 "\"lastKey\":\"ab\"}");
    problem p;
    wire_problem_parse(&a, bytes_view(&b), &p);
    assert_slice(p.type, "device-forked");
    assert_int_equal(p.status, 409);
    assert_slice(p.title, "Another history");
    assert_slice(p.detail, "say \"why\"");
    assert_int_equal(p.applied_seq, 4);
    assert_slice(p.last_key, "ab");
    wire_problem_parse(&a, SLICE("{\"type\":\"https://x.example/problems/too-large\"}"), &p);
    assert_slice(p.type, "too-large");
    assert_int_equal(p.applied_seq, -1);
    static const char *const other[] = {"",
                                        "<html>",
                                        "[]",
                                        "7",
                                        "{\"type\":7}",
                                        "{\"type\":\"about:blank\"}",
                                        "{\"status\":409}",
                                        "{\"type\":\"x/\"}"};
    for (size_t i = 0; i < COUNT_OF(other); i++) {
        wire_problem_parse(&a, slice_of(other[i]), &p);
        assert_int_equal(p.type.len, 0);
        assert_int_equal(p.applied_seq, -1);
    }
    /* A detail that was cut in the middle of a character must not spoil the document. */
    bytes_clear(&b);
    wire_problem_write(&b, 400, "invalid-request", "Not valid", "\xc3", NULL);
    const json *root = NULL;
    assert_int_equal(json_parse(&a, bytes_view(&b), &root, NULL), GODWIT_OK);
    assert_null(json_get(root, "detail"));
    bytes_deinit(&b);
    arena_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_push_arrives_as_it_was_written),
        cmocka_unit_test(the_scope_of_the_token_is_the_default),
        cmocka_unit_test(a_plain_pull),
        cmocka_unit_test(the_requirements_body_works_as_it_stands),
        cmocka_unit_test(the_same_id_twice_is_for_the_ledger_to_judge),
        cmocka_unit_test(registration_goes_both_ways),
        cmocka_unit_test(times_match_the_golden_forms),
        cmocka_unit_test(times_go_both_ways),
        cmocka_unit_test(words_are_sixteen_hex_digits),
        cmocka_unit_test(a_cursor_goes_both_ways_and_shows_damage),
        cmocka_unit_test(problems_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
