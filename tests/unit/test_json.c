/* JSON: what is accepted and what it becomes, every refusal, truncation, mutation, memory failure,
 * and the writer's round trips. */
#include "unit.h"

#include "core/json.h"
#include "core/limits.h"

static const json *parse(arena *a, const char *text) {
    const json *v = NULL;
    json_error error;
    godwit_status status = json_parse(a, slice_of(text), &v, &error);
    if (status != GODWIT_OK) {
        fail_msg("%s refused at %zu: %s", text, error.offset, error.reason);
    }
    assert_null(error.reason);
    return v;
}

static void a_document_is_a_flat_tape(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *v = parse(&a, " {\"a\":[1,2],\"b\":3} ");
    assert_int_equal(v->type, JSON_OBJECT);
    assert_int_equal(v->span, 7);
    assert_int_equal(v->count, 2);
    assert_slice(v->u.s, "{\"a\":[1,2],\"b\":3}");
    const json *key = json_first(v);
    assert_slice(key->u.s, "a");
    const json *list = key + 1;
    assert_int_equal(list->type, JSON_ARRAY);
    assert_int_equal(list->span, 3);
    assert_int_equal(list->count, 2);
    assert_slice(list->u.s, "[1,2]");
    assert_int_equal(json_first(list)->u.i, 1);
    assert_int_equal(json_after(json_first(list))->u.i, 2);
    key = json_after(list);
    assert_slice(key->u.s, "b");
    assert_int_equal((key + 1)->u.i, 3);
    assert_ptr_equal(json_after(key + 1), json_after(v));
    arena_deinit(&a);
}

static void members_are_found(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *v =
        parse(&a, "{\"x\":{\"b\":1},\"b\":true,\"\":\"t\",\"n\":null,\"r\":1.5,\"\\u0061\":7}");
    bool flag = false;
    int64_t n = 0;
    slice s = {NULL, 0};
    assert_true(json_bool(json_get(v, "b"), &flag));
    assert_true(flag);
    assert_true(json_int(json_get(v, "a"), &n));
    assert_int_equal(n, 7);
    assert_true(json_text(json_get(v, ""), &s));
    assert_slice(s, "t");
    assert_true(json_is(json_get(v, "n"), JSON_NULL));
    assert_null(json_get(v, "c"));
    assert_null(json_get(json_get(v, "c"), "d"));
    assert_null(json_get(json_get(v, "b"), "d"));
    assert_false(json_int(json_get(v, "r"), &n));
    assert_false(json_int(NULL, &n));
    assert_false(json_text(json_get(v, "b"), &s));
    assert_false(json_bool(json_get(v, "a"), &flag));
    assert_null(json_first(parse(&a, "[]")));
    assert_null(json_first(parse(&a, "7")));
    assert_null(json_first(NULL));
    arena_deinit(&a);
}

static void strings_are_decoded(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const char *plain = "\"no copy\"";
    assert_ptr_equal(parse(&a, plain)->u.s.ptr, plain + 1);
    assert_slice(parse(&a, "\"\"")->u.s, "");
    assert_slice(parse(&a, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"")->u.s, "\"\\/\b\f\n\r\t");
    assert_slice(parse(&a, "\"\\u00e9\\u20ac\\uD83D\\uDE00\\u007f\"")->u.s,
                 "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f");
    slice zero = parse(&a, "\"a\\u0000b\"")->u.s;
    assert_int_equal(zero.len, 3);
    assert_memory_equal(zero.ptr, "a\0b", 3);
    slice nothing = parse(&a, "[\"\\u0000\"]")[1].u.s;
    assert_int_equal(nothing.len, 1);
    assert_slice(parse(&a, "\"\xf4\x8f\xbf\xbf\xc2\x80\xe0\xa0\x80\xed\x9f\xbf\"")->u.s,
                 "\xf4\x8f\xbf\xbf\xc2\x80\xe0\xa0\x80\xed\x9f\xbf");
    arena_deinit(&a);
}

static const char *const refused[] = {
    "",
    " ",
    "nul",
    "nulL",
    "tru",
    "falsee",
    "True",
    "undefined",
    "NaN",
    "Infinity",
    "-",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "1e",
    "1e+",
    "1.e3",
    "0x10",
    "1_000",
    "1e999",
    "-1e999",
    "--1",
    "1 2",
    "[",
    "]",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{",
    "}",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{,}",
    "{a:1}",
    "{'a':1}",
    "{1:2}",
    "{\"a\" 1}",
    "{\"a\":1 \"b\":2}",
    "[1}",
    "{\"a\":1]",
    "[]]",
    "{}{}",
    "// x\n1",
    "/* */1",
    "\"",
    "\"abc",
    "\"\\",
    "\"\\\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\u123g\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\\ud800x\"",
    "\"\\ud800\\n\"",
    "\"\\ud800\\ud800\"",
    "\"\\ud83d\\u0041\"",
    "\"a\nb\"",
    "\"a\tb\"",
    "\"\x01\"",
    "\"\\\n\"",
    "\"\\\xc3\xa9\"",
    "'a'",
    "\"\x80\"",
    "\"\xc0\x80\"",
    "\"\xc1\xbf\"",
    "\"\xc3\"",
    "\"\xe0\x80\x80\"",
    "\"\xe0\x9f\xbf\"",
    "\"\xed\xa0\x80\"",
    "\"\xe2\x82\"",
    "\"\xf0\x80\x80\x80\"",
    "\"\xf0\x8f\xbf\xbf\"",
    "\"\xf4\x90\x80\x80\"",
    "\"\xf5\x80\x80\x80\"",
    "\"\xff\"",
    "\xef\xbb\xbf"
    "1",
    "\"\xf0\x9f\x98\"",
    "\v1",
    "\xc2\xa0"
    "1",
    "{\"a\":1,\"a\":1}",
    "{\"a\":1,\"\\u0061\":1}",
    "{\"\":1,\"\":2}",
    "[{\"x\":{\"k\":1,\"b\":2,\"k\":3}}]",
};

static void everything_else_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        arena a;
        arena_init(&a, NULL, 0);
        const json *v = (const json *)&a;
        json_error error = {NULL, 0};
        if (json_parse(&a, slice_of(refused[i]), &v, &error) != GODWIT_INVALID) {
            fail_msg("accepted: %s", refused[i]);
        }
        assert_null(v);
        assert_non_null(error.reason);
        assert_true(error.offset <= strlen(refused[i]));
        assert_int_equal(json_parse(&a, slice_of(refused[i]), &v, NULL), GODWIT_INVALID);
        arena_deinit(&a);
    }
}

static void a_raw_nul_is_refused(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *v = NULL;
    assert_int_equal(json_parse(&a, SLICE("\"a\0b\""), &v, NULL), GODWIT_INVALID);
    assert_int_equal(json_parse(&a, SLICE("1\0"), &v, NULL), GODWIT_INVALID);
    assert_int_equal(json_parse(&a, (slice){NULL, 0}, &v, NULL), GODWIT_INVALID);
    arena_deinit(&a);
}

static void depth_is_bounded(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    bytes b;
    bytes_init(&b, NULL, 0);
    for (int depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        for (int kind = 0; kind < 3; kind++) {
            bytes_clear(&b);
            for (int i = 0; i < depth; i++) {
                bytes_text(&b, kind == 1 && i + 1 < depth ? "{\"a\":" : kind == 1 ? "{" : "[");
            }
            bytes_text(&b, kind == 2 ? "7" : "");
            for (int i = 0; i < depth; i++) {
                bytes_char(&b, kind == 1 ? '}' : ']');
            }
            const json *v = NULL;
            json_error error;
            assert_int_equal(json_parse(&a, bytes_view(&b), &v, &error),
                             depth > JSON_DEPTH_MAX ? GODWIT_LIMIT : GODWIT_OK);
        }
    }
    /* A megabyte of brackets costs nothing. */
    bytes_clear(&b);
    for (int i = 0; i < 1000000; i++) {
        bytes_char(&b, '[');
    }
    const json *v = NULL;
    arena_reset(&a);
    assert_int_equal(json_parse(&a, bytes_view(&b), &v, NULL), GODWIT_LIMIT);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void values_are_bounded(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '[');
    for (int i = 0; i < JSON_NODES_MAX; i++) {
        bytes_text(&b, "1,");
    }
    bytes_text(&b, "1]");
    arena a;
    arena_init(&a, NULL, 0);
    const json *v = NULL;
    json_error error;
    assert_int_equal(json_parse(&a, bytes_view(&b), &v, &error), GODWIT_LIMIT);
    assert_string_equal(error.reason, "too many values");
    arena_deinit(&a);
    bytes_deinit(&b);
}

static void many_keys_are_compared_too(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    arena a;
    arena_init(&a, NULL, 0);
    for (int count = 2; count < 200; count++) {
        for (int twice = -1; twice<count - 1; twice += count> 40 ? 37 : 1) {
            bytes_clear(&b);
            bytes_char(&b, '{');
            for (int i = 0; i < count; i++) {
                int name = i == count - 1 && twice >= 0 ? twice : i * 7 % count * count + i;
                name = i != count - 1 || twice < 0 ? i : name;
                bytes_printf(&b, "%s\"k%d\":[%d]", i ? "," : "", name, i);
            }
            bytes_char(&b, '}');
            const json *v = NULL;
            json_error error;
            godwit_status status = json_parse(&a, bytes_view(&b), &v, &error);
            assert_int_equal(status, twice >= 0 ? GODWIT_INVALID : GODWIT_OK);
            assert_true(twice < 0 || strcmp(error.reason, "duplicate key") == 0);
            arena_reset(&a);
        }
    }
    arena_deinit(&a);
    bytes_deinit(&b);
}

static const char sample[] =
    "{\"operations\":[{\"id\":\"7c9e\\u00e9\\ud83d\\ude00\",\"n\":-12.5e+3,\"i\":9007199254740993,"
    "\"t\":true,\"f\":false,\"z\":null,\"s\":\"gr\xc3\xb6\xc3\x9f\x65 "
    "\xf0\x9f\x98\x80\",\"e\":{},\"l\":[[],[1,[2]]],"
    "\"payload\":\"{\\\"title\\\":\\\"Well 3\\\"}\"}]}";

static void every_truncation_is_refused(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *v = NULL;
    for (size_t len = 0; len < sizeof(sample) - 1; len++) {
        /* A copy of its own, so that the sanitizer sees a read behind the end. */
        char *copy = malloc(len ? len : 1);
        memcpy(copy, sample, len);
        assert_int_equal(json_parse(&a, (slice){copy, len}, &v, NULL), GODWIT_INVALID);
        free(copy);
        arena_reset(&a);
    }
    assert_non_null(parse(&a, sample));
    arena_deinit(&a);
}

/* Everything reachable, so that a wrong span or slice shows. */
static size_t touch(const json *v) {
    size_t sum = 0;
    for (uint32_t i = 0; i < v->span; i++) {
        if (v[i].type == JSON_STRING) {
            for (size_t j = 0; j < v[i].u.s.len; j++) {
                sum += (unsigned char)v[i].u.s.ptr[j];
            }
            assert_true(json_utf8_valid(v[i].u.s));
        }
        assert_true(v[i].span >= 1 && i + v[i].span <= v->span);
    }
    return sum;
}

static void mutations_do_no_harm(void **state) {
    (void)state;
    static const char spice[] = "{}[],:\"\\u0dDe+-.19tfn \x00\x1f\x7f\x80\xc3\xed\xf0";
    uint64_t seed = 20260102;
    arena a;
    arena_init(&a, NULL, 0);
    size_t accepted = 0;
    for (int round = 0; round < 60000; round++) {
        size_t len = sizeof(sample) - 1;
        char *copy = malloc(len);
        memcpy(copy, sample, len);
        for (uint64_t n = unit_random(&seed) % 4; n < 4; n++) {
            uint64_t r = unit_random(&seed);
            copy[r % len] = r >> 60 ? spice[(r >> 32) % (sizeof(spice) - 1)] : (char)(r >> 40);
        }
        const json *v = NULL;
        if (json_parse(&a, (slice){copy, len}, &v, NULL) == GODWIT_OK) {
            accepted++;
            (void)touch(v);
        } else {
            assert_null(v);
        }
        free(copy);
        arena_reset(&a);
    }
    assert_true(accepted > 100);
    arena_deinit(&a);
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    for (long n = 0; n < 20; n++) {
        unit_memory memory = {n, false, 0};
        godwit_allocator allocator = {&memory, unit_resize};
        arena a;
        arena_init(&a, &allocator, 0);
        bytes b;
        bytes_init(&b, NULL, 0);
        bytes_char(&b, '[');
        for (int i = 0; i < 20000; i++) {
            bytes_text(&b, i % 3 ? "1,1,1,1,1,1," : "\"\\n\",");
        }
        bytes_text(&b, "1]");
        const json *v = NULL;
        godwit_status status = json_parse(&a, bytes_view(&b), &v, NULL);
        assert_true(status == GODWIT_OK || status == GODWIT_NOMEM);
        assert_int_equal(status == GODWIT_OK, v != NULL);
        assert_true(n > 0 || status == GODWIT_NOMEM);
        assert_true(n < 19 || status == GODWIT_OK);
        bytes_deinit(&b);
        arena_deinit(&a);
        assert_int_equal(memory.live, 0);
    }
    /* The arena's own bound is the same failure. */
    arena a;
    arena_init(&a, NULL, 2000);
    const json *v = NULL;
    assert_int_equal(json_parse(&a, slice_of(sample), &v, NULL), GODWIT_NOMEM);
    arena_deinit(&a);
}

static void texts_are_written_and_read_back(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    json_write_text(&b, SLICE("a\"b\\c/\b\f\n\r\t\x01\x1f\x7f\0\xc3\xa9"));
    assert_slice(bytes_view(&b),
                 "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000\xc3\xa9\"");
    bytes_clear(&b);
    json_write_text(&b, (slice){NULL, 0});
    assert_slice(bytes_view(&b), "\"\"");
    arena a;
    arena_init(&a, NULL, 0);
    uint64_t seed = 7;
    for (int i = 0; i < 5000; i++) {
        char text[64];
        size_t len = unit_random(&seed) % sizeof(text);
        for (size_t j = 0; j < len; j++) {
            text[j] = (char)(unit_random(&seed) % 128);
        }
        bytes_clear(&b);
        json_write_text(&b, (slice){text, len});
        const json *v = NULL;
        assert_int_equal(json_parse(&a, bytes_view(&b), &v, NULL), GODWIT_OK);
        assert_true(slice_equal(v->u.s, (slice){text, len}));
        arena_reset(&a);
    }
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void small_writers(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bool first = true;
    bytes_char(&b, '{');
    json_key(&b, &first, "a");
    json_write_int(&b, -7);
    json_key(&b, &first, "b");
    json_write_bool(&b, true);
    json_key(&b, &first, "c");
    json_write_hex(&b, "\x0f\xf0", 2);
    json_comma(&b, &first);
    assert_string_equal(b.ptr, "{\"a\":-7,\"b\":true,\"c\":\"0ff0\",");
    bytes_deinit(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_a_flat_tape),
        cmocka_unit_test(members_are_found),
        cmocka_unit_test(strings_are_decoded),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(a_raw_nul_is_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(values_are_bounded),
        cmocka_unit_test(many_keys_are_compared_too),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(memory_failures_are_reported),
        cmocka_unit_test(texts_are_written_and_read_back),
        cmocka_unit_test(small_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
