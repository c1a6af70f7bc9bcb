/* Hex, base64, UUIDs, names, and the idempotency key against vectors made by another program. */
#include "unit.h"

#include "core/base64.h"
#include "core/id.h"
#include "core/json.h"
#include "core/wire.h"

static void hex_is_lower_case_and_exact(void **state) {
    (void)state;
    uint8_t out[4];
    assert_true(id_hex_decode(SLICE("00ff1a2b"), out, 4));
    assert_memory_equal(out, "\x00\xff\x1a\x2b", 4);
    static const char *const refused[] = {"00ff1a2",  "00ff1a2b0", "00FF1a2b",
                                          "00ff1a2g", "",          " 0ff1a2b"};
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        assert_false(id_hex_decode(slice_of(refused[i]), out, 4));
    }
    assert_true(id_hex_decode(SLICE(""), out, 0));
}

static void base64_goes_both_ways(void **state) {
    (void)state;
    uint64_t seed = 3;
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t len = 0; len < 200; len++) {
        uint8_t data[200];
        for (size_t i = 0; i < len; i++) {
            data[i] = (uint8_t)unit_random(&seed);
        }
        bytes_clear(&b);
        base64_encode(&b, (slice){(const char *)data, len});
        assert_int_equal(b.len, (len + 2) / 3 * 4);
        uint8_t back[204];
        size_t back_len = 99;
        assert_true(base64_decode(bytes_view(&b), back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, data, len);
        bytes_clear(&b);
        base64url_encode(&b, (slice){(const char *)data, len});
        assert_int_equal(b.len, (len * 8 + 5) / 6);
        assert_true(base64url_decode(bytes_view(&b), back, &back_len));
        assert_int_equal(back_len, len);
        assert_memory_equal(back, data, len);
    }
    bytes_clear(&b);
    base64_encode(&b, SLICE("foobar"));
    assert_slice(bytes_view(&b), "Zm9vYmFy");
    bytes_deinit(&b);
}

/* Every text of up to four characters over a small alphabet: whatever decodes must encode to
 * itself. */
static void base64_is_canonical(void **state) {
    (void)state;
    static const char alphabet[] = "ABPQZaz09+/=-_ ";
    bytes b;
    bytes_init(&b, NULL, 0);
    size_t n = sizeof(alphabet) - 1;
    size_t accepted = 0;
    for (size_t i = 0; i < n * n * n * n; i++) {
        char text[4] = {alphabet[i % n], alphabet[i / n % n], alphabet[i / n / n % n],
                        alphabet[i / n / n / n]};
        uint8_t out[BASE64_DECODED_MAX(4)];
        size_t len = 0;
        for (size_t digits = 1; digits <= 4; digits++) {
            if (base64url_decode((slice){text, digits}, out, &len)) {
                bytes_clear(&b);
                base64url_encode(&b, (slice){(const char *)out, len});
                assert_true(slice_equal(bytes_view(&b), (slice){text, digits}));
            }
        }
        if (!base64_decode((slice){text, 4}, out, &len)) {
            continue;
        }
        accepted++;
        bytes_clear(&b);
        base64_encode(&b, (slice){(const char *)out, len});
        assert_true(slice_equal(bytes_view(&b), (slice){text, 4}));
    }
    assert_true(accepted > 11 * 11 * 11 * 11);
    bytes_deinit(&b);
}

static void uuids_have_their_form(void **state) {
    (void)state;
    char text[UUID_TEXT_BYTES];
    const uint8_t entropy[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    id_uuid7(INT64_C(0x0123456789ab), entropy, text);
    assert_string_equal(text, "01234567-89ab-7fff-bfff-ffffffffffff");
    id_operation(SLICE("0123456789abcdef0123456789abcdef"), 255, text);
    assert_string_equal(text, "01234567-89ab-8cde-8f01-0000000000ff");
    /* Other lineages, and numbers that do not fit, go through the digest. */
    char other[UUID_TEXT_BYTES];
    id_operation(SLICE("phone-1"), 255, text);
    id_operation(SLICE("phone-1"), 256, other);
    assert_string_not_equal(text, other);
    assert_int_equal(strlen(text), 36);
    assert_int_equal(text[14], '8');
    assert_non_null(strchr("89ab", text[19]));
    id_operation(SLICE("0123456789abcdef0123456789abcdef"), INT64_C(1) << 48, other);
    assert_int_equal(other[14], '8');
}

static void names_are_checked(void **state) {
    (void)state;
    assert_true(id_device_valid(SLICE("phone_1-A")));
    assert_false(id_device_valid(SLICE("")));
    assert_false(id_device_valid(SLICE("a b")));
    assert_false(id_device_valid(SLICE("$")));
    assert_false(id_device_valid(SLICE("\xc3\xa9")));
    char text[200];
    memset(text, 'x', sizeof(text));
    assert_true(id_device_valid((slice){text, 64}));
    assert_false(id_device_valid((slice){text, 65}));
    assert_true(id_name_valid((slice){text, 128}));
    assert_false(id_name_valid((slice){text, 129}));
    assert_true(id_name_valid(SLICE("gr\xc3\xb6\xc3\x9f\x65 \"x\" ; --")));
    assert_false(id_name_valid(SLICE("")));
    assert_false(id_name_valid(SLICE("a\nb")));
    assert_false(id_name_valid(SLICE("a\0b")));
    assert_false(id_name_valid(SLICE("a\x7f")));
    assert_false(id_name_valid(SLICE("\xc2\x85")));
    assert_true(id_name_valid(SLICE("\xc2\xa0")));
    assert_false(id_name_valid(SLICE("a\xc3")));
}

static slice member(const json *o, const char *name) {
    slice text = {NULL, 0};
    assert_true(json_text(json_get(o, name), &text));
    return text;
}

static int64_t number(const json *o, const char *name) {
    int64_t v = 0;
    assert_true(json_int(json_get(o, name), &v));
    return v;
}

static id_key_parts parts_of(const json *o) {
    id_key_parts p = {.scope = member(o, "scope"),
                      .lineage = member(o, "lineage"),
                      .lsn = number(o, "lsn"),
                      .kind = op_kind_parse(member(o, "operation")),
                      .entity_type = member(o, "entityType"),
                      .entity_id = member(o, "entityId"),
                      .base_seq = number(o, "baseSeq"),
                      .wall_ms = number(o, "wallMs"),
                      .payload = member(o, "payload"),
                      .base = member(o, "base")};
    assert_true(wire_u64_parse(member(o, "nonce"), &p.nonce));
    assert_true(wire_u64_parse(member(o, "baseSalt"), &p.base_salt));
    return p;
}

static void keys_match_the_golden_vectors(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *list = NULL;
    assert_int_equal(json_parse(&a, unit_golden(&a, "wire/keys.json"), &list, NULL), GODWIT_OK);
    assert_true(list->count >= 7);
    const json *o = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        id_key_parts p = parts_of(o);
        uint8_t key[SHA256_BYTES];
        uint8_t want[SHA256_BYTES];
        id_operation_key(&p, key);
        assert_true(id_hex_decode(member(o, "key"), want, sizeof(want)));
        assert_memory_equal(key, want, sizeof(key));
    }
    arena_deinit(&a);
}

/* Moving a byte from one field to its neighbour, or changing any one field, changes the key. */
static void every_field_is_in_the_key(void **state) {
    (void)state;
    id_key_parts base = {SLICE("s"), SLICE("l"), 1, 2, OP_UPDATE,   SLICE("ab"),
                         SLICE("c"), 3,          4, 5, SLICE("{}"), SLICE("{}")};
    id_key_parts v[13];
    for (size_t i = 0; i < COUNT_OF(v); i++) {
        v[i] = base;
    }
    v[1].scope = SLICE("t");
    v[2].lineage = SLICE("m");
    v[3].lsn = 9;
    v[4].nonce = 9;
    v[5].kind = OP_CREATE;
    v[6].entity_type = SLICE("a");
    v[6].entity_id = SLICE("bc");
    v[7].base_seq = 9;
    v[8].base_salt = 9;
    v[9].wall_ms = 9;
    v[10].payload = SLICE("{ }");
    v[11].base = SLICE("{ }");
    v[12].lsn = 2;
    v[12].nonce = 1;
    uint8_t keys[COUNT_OF(v)][SHA256_BYTES];
    for (size_t i = 0; i < COUNT_OF(v); i++) {
        id_operation_key(&v[i], keys[i]);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(keys[i], keys[j], SHA256_BYTES);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hex_is_lower_case_and_exact),
        cmocka_unit_test(base64_goes_both_ways),
        cmocka_unit_test(base64_is_canonical),
        cmocka_unit_test(uuids_have_their_form),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(keys_match_the_golden_vectors),
        cmocka_unit_test(every_field_is_in_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
