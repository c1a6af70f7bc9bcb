/* Reconciliation on the wire: what is written is read back the same, what a request must not be is
 * refused by name, and no truncated request or answer is taken. */
#include "wire_kit.h"

#include "core/limits.h"

#define KEY_A "3031323334353637383961626364656630313233343536373839616263646566"
#define KEY_B "6162636465666162636465666162636465666162636465666162636465666162"

static const char request_text[] =
    "{\"scope\":\"tenant-7\",\"cursor\":\"AQAAAA\",\"identities\":[{\"deviceId\":"
    "\"0b6c0b6c0b6c0b6c0b6c0b6c0b6c0b6c\",\"keys\":[[7,\"" KEY_A "\"],[6,\"" KEY_B "\"]]}]}";

static const char answer_text[] =
    "{\"head\":9,\"cursorValid\":true,\"identities\":[{\"deviceId\":\"d-1\",\"state\":\"retired\","
    "\"appliedSeq\":7,\"matchedSeq\":6,\"outcomes\":[]},{\"deviceId\":\"d-2\",\"appliedSeq\":0,"
    "\"matchedSeq\":null,\"outcomes\":[]}]}";

static void a_request_is_read_and_written_back(void **state) {
    (void)state;
    arena a;
    bytes b;
    reconcile_request r;
    wire_error e;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    assert_int_equal(wire_reconcile_parse(&a, slice_of(request_text), &r, &e), GODWIT_OK);
    assert_int_equal(r.identity_count, 1);
    assert_int_equal(r.identities[0].key_count, 2);
    assert_int_equal(r.identities[0].keys[0].seq, 7);
    assert_int_equal(r.identities[0].keys[1].seq, 6);
    assert_memory_equal(r.identities[0].keys[0].key, "0123456789abcdef0123456789abcdef", 32);
    wire_reconcile_write(&b, &r);
    assert_true(slice_is(bytes_view(&b), request_text));
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void a_request_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *detail;
    } table[] = {
        {"\"scope\":\"tenant-7\"", "\"scope\":7", "scope must be a name"},
        {"\"scope\":\"tenant-7\",", "", "scope is missing"},
        {"\"cursor\":\"AQAAAA\"", "\"cursor\":{}", "cursor"},
        {"\"cursor\"", "\"curser\"", "unknown field curser"},
        {"\"identities\":[{", "\"identities\":[7,{", "identities must be objects"},
        {"\"keys\":[[", "\"keys\":7,\"x\":[[", "unknown field"},
        {"\"deviceId\":\"0b6c", "\"deviceId\":\"0 6c", "deviceId must be"},
        {"[7,\"30", "[7,\"3", "64 hex digits"},
        {"[7,\"30", "[7,\"zz", "64 hex digits"},
        {"[7,", "[7,7,", "64 hex digits"},
        {"[7,", "[\"7\",", "newest first"},
        {"[7,", "[6,", "newest first"},
        {"[6,", "[0,", "newest first"},
        {"[6,", "[-6,", "newest first"},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        arena a;
        reconcile_request r;
        wire_error e;
        arena_init(&a, NULL, 0);
        slice text = kit_replace(&a, slice_of(request_text), table[i].from, table[i].to);
        godwit_status status = wire_reconcile_parse(&a, text, &r, &e);
        if (status != GODWIT_INVALID || e.http != 400 || !strstr(e.detail, table[i].detail)) {
            fail_msg("%s -> %s: status %d, %d \"%s\"", table[i].from, table[i].to, status, e.http,
                     e.detail);
        }
        assert_int_equal(r.identity_count, 0);
        arena_deinit(&a);
    }
}

static void too_many_keys_are_refused(void **state) {
    (void)state;
    arena a;
    bytes b;
    reconcile_request r;
    wire_error e;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "{\"scope\":\"s\",\"identities\":[{\"deviceId\":\"d-1\",\"keys\":[");
    for (int64_t seq = RECONCILE_KEYS_MAX + 1; seq > 0; seq--) {
        bytes_printf(&b, "[%lld,\"" KEY_A "\"]%s", (long long)seq, seq > 1 ? "," : "");
    }
    bytes_text(&b, "]}]}");
    assert_int_equal(wire_reconcile_parse(&a, bytes_view(&b), &r, &e), GODWIT_LIMIT);
    assert_int_equal(e.http, 413);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void an_answer_is_read(void **state) {
    (void)state;
    arena a;
    reconcile_answer r;
    arena_init(&a, NULL, 0);
    assert_int_equal(wire_reconcile_answer_parse(&a, slice_of(answer_text), &r), GODWIT_OK);
    assert_int_equal(r.head, 9);
    assert_true(r.cursor_valid);
    assert_int_equal(r.identity_count, 2);
    assert_false(r.identities[0].active);
    assert_int_equal(r.identities[0].matched_seq, 6);
    assert_true(r.identities[1].active);
    assert_int_equal(r.identities[1].matched_seq, -1);
    arena_deinit(&a);
}

static void nothing_cut_short_is_taken(void **state) {
    (void)state;
    reconcile_request request;
    reconcile_answer answer;
    wire_error e;
    for (size_t len = 0; len < sizeof request_text - 1; len++) {
        arena a;
        arena_init(&a, NULL, 0);
        assert_int_not_equal(wire_reconcile_parse(&a, (slice){request_text, len}, &request, &e),
                             GODWIT_OK);
        arena_deinit(&a);
    }
    for (size_t len = 0; len < sizeof answer_text - 1; len++) {
        arena a;
        arena_init(&a, NULL, 0);
        assert_int_not_equal(wire_reconcile_answer_parse(&a, (slice){answer_text, len}, &answer),
                             GODWIT_OK);
        arena_deinit(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read_and_written_back),
        cmocka_unit_test(a_request_is_refused_by_name),
        cmocka_unit_test(too_many_keys_are_refused),
        cmocka_unit_test(an_answer_is_read),
        cmocka_unit_test(nothing_cut_short_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
