/* Column values: the golden wire forms, equality and hash. */
#include "unit.h"

#include <math.h>

#include "core/value.h"

static slice member(const json *o, const char *name) {
    slice text = {NULL, 0};
    assert_true(json_text(json_get(o, name), &text));
    return text;
}

static const char *const class_names[] = {
    [VALUE_NULL] = "null", [VALUE_INT] = "integer", [VALUE_REAL] = "real",
    [VALUE_TEXT] = "text", [VALUE_BLOB] = "blob",   [VALUE_SPECIAL] = "special",
};

static godwit_status read(arena *a, slice text, value *out) {
    const json *node = NULL;
    assert_int_equal(json_parse(a, text, &node, NULL), GODWIT_OK);
    return value_from_json(a, node, out);
}

static void golden_forms(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *root = NULL;
    assert_int_equal(json_parse(&a, unit_golden(&a, "wire/values.json"), &root, NULL), GODWIT_OK);
    const json *list = json_get(root, "values");
    assert_true(list->count > 40);
    const json *o = json_first(list);
    bytes b;
    bytes_init(&b, NULL, 0);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        slice wire = member(o, "wire");
        value v;
        if (read(&a, wire, &v) != GODWIT_OK) {
            fail_msg("refused: " SLICE_FMT, SLICE_ARG(wire));
        }
        assert_slice(member(o, "class"), class_names[v.type]);
        bytes_clear(&b);
        value_to_json(&b, &v);
        slice canonical = member(o, "canonical");
        if (!slice_equal(bytes_view(&b), canonical)) {
            fail_msg(SLICE_FMT " written as %s", SLICE_ARG(wire), b.ptr);
        }
        value again;
        assert_int_equal(read(&a, canonical, &again), GODWIT_OK);
        assert_true(value_equal(&v, &again));
        assert_true(value_hash(&v, 5) == value_hash(&again, 5));
    }
    list = json_get(root, "refused");
    assert_true(list->count > 20);
    o = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        value v;
        if (read(&a, o->u.s, &v) != GODWIT_INVALID) {
            fail_msg("accepted: " SLICE_FMT, SLICE_ARG(o->u.s));
        }
        assert_int_equal(v.type, VALUE_NULL);
    }
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void reals_that_json_lacks(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    value v;
    assert_int_equal(read(&a, SLICE("{\"$real\":\"-inf\"}"), &v), GODWIT_OK);
    assert_true(isinf(v.u.d) && v.u.d < 0);
    assert_int_equal(read(&a, SLICE("{\"$real\":\"nan\"}"), &v), GODWIT_OK);
    assert_true(isnan(v.u.d));
    assert_true(value_equal(&v, &v));
    assert_int_equal(value_from_json(&a, NULL, &v), GODWIT_INVALID);
    arena_deinit(&a);
}

static void equality_needs_the_same_class(void **state) {
    (void)state;
    value v[] = {
        {.type = VALUE_NULL},
        {.type = VALUE_INT, .u.i = 1},
        {.type = VALUE_INT, .u.i = 2},
        {.type = VALUE_REAL, .u.d = 1.0},
        {.type = VALUE_REAL, .u.d = 0.0},
        {.type = VALUE_INT, .u.i = 0},
        {.type = VALUE_TEXT, .u.s = SLICE("1")},
        {.type = VALUE_BLOB, .u.s = SLICE("1")},
        {.type = VALUE_TEXT, .u.s = SLICE("")},
        {.type = VALUE_BLOB, .u.s = SLICE("")},
        {.type = VALUE_TEXT, .u.s = SLICE("a\0b")},
        {.type = VALUE_TEXT, .u.s = SLICE("a\0c")},
        {.type = VALUE_TEXT, .u.s = SLICE("12345678")},
        {.type = VALUE_TEXT, .u.s = SLICE("123456781")},
    };
    for (size_t i = 0; i < COUNT_OF(v); i++) {
        for (size_t j = 0; j < COUNT_OF(v); j++) {
            assert_int_equal(value_equal(&v[i], &v[j]), i == j);
            assert_int_equal(value_hash(&v[i], 1) == value_hash(&v[j], 1), i == j);
        }
        assert_true(value_hash(&v[i], 1) != value_hash(&v[i], 2));
    }
    /* SQLite forgets the sign of zero in a REAL column: it must not look like an edit. */
    value minus = {.type = VALUE_REAL, .u.d = -0.0};
    assert_true(value_equal(&minus, &v[4]));
    assert_true(value_hash(&minus, 1) == value_hash(&v[4], 1));
}

static void the_hash_is_the_same_everywhere(void **state) {
    (void)state;
    value text = {.type = VALUE_TEXT, .u.s = SLICE("Well 3 by the river")};
    value number = {.type = VALUE_INT, .u.i = -7};
    value real = {.type = VALUE_REAL, .u.d = 52.5};
    uint64_t h = value_hash(&real, value_hash(&number, value_hash(&text, 0)));
    assert_true(h == UINT64_C(0xba1f5e1215545894));
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    unit_memory memory = {-1, false, 0};
    godwit_allocator allocator = {&memory, unit_resize};
    arena a;
    arena_init(&a, NULL, 0);
    const json *node = NULL;
    assert_int_equal(json_parse(&a, SLICE("{\"$b64\":\"AAEC\"}"), &node, NULL), GODWIT_OK);
    arena other;
    arena_init(&other, &allocator, 0);
    memory.countdown = 0;
    value v;
    assert_int_equal(value_from_json(&other, node, &v), GODWIT_NOMEM);
    assert_int_equal(v.type, VALUE_NULL);
    arena_deinit(&other);
    arena_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_forms),
        cmocka_unit_test(reals_that_json_lacks),
        cmocka_unit_test(equality_needs_the_same_class),
        cmocka_unit_test(the_hash_is_the_same_everywhere),
        cmocka_unit_test(memory_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
