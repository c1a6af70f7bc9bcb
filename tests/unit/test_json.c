/* JSON: what is accepted and what it becomes, every refusal, truncation, mutation, memory failure,
 * and the writer's round trips. */
#include "unit.h"

#include <float.h>
#include <locale.h>
#include <math.h>

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

static void integers_are_exact(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } table[] = {{"0", 0},
                 {"-0", 0},
                 {"7", 7},
                 {"-12", -12},
                 {"9007199254740993", INT64_C(9007199254740993)},
                 {"999999999999999999", INT64_C(999999999999999999)},
                 {"9223372036854775807", INT64_MAX},
                 {"-9223372036854775808", INT64_MIN}};
    arena a;
    arena_init(&a, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        const json *v = parse(&a, table[i].text);
        assert_int_equal(v->type, JSON_INT);
        assert_true(v->u.i == table[i].value);
    }
    static const char *const reals[] = {"9223372036854775808",
                                        "-9223372036854775809",
                                        "123456789012345678901234567890",
                                        "1.0",
                                        "1e0",
                                        "-0.0"};
    for (size_t i = 0; i < COUNT_OF(reals); i++) {
        const json *v = parse(&a, reals[i]);
        assert_int_equal(v->type, JSON_REAL);
        assert_true(v->u.d == strtod(reals[i], NULL));
    }
    arena_deinit(&a);
}

static void reals_read_as_strtod_reads_them(void **state) {
    (void)state;
    static const char *const texts[] = {"0.1",
                                        "1.5",
                                        "-2.25e10",
                                        "1E+2",
                                        "1e-2",
                                        "123456789.123456789",
                                        "1e22",
                                        "1e23",
                                        "9007199254740993.0",
                                        "2.2250738585072011e-308",
                                        "5e-324",
                                        "2e-324",
                                        "1e-400",
                                        "1.7976931348623157e308",
                                        "0.000000000000000000000000000000000000001",
                                        "12345678901234567890.12345678901234567890e-5",
                                        "8.41e21",
                                        "0e99999999999999999999",
                                        "1e-99999999999999999999",
                                        "3.14159265358979323846264338",
                                        "0.30000000000000004",
                                        "1.00000000000000011102230246251565404236316680908203125",
                                        "1.00000000000000011102230246251565404236316680908203124"};
    arena a;
    arena_init(&a, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        double d = parse(&a, texts[i])->u.d;
        double want = strtod(texts[i], NULL);
        assert_memory_equal(&d, &want, sizeof(d));
    }
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

static void assert_real(bytes *b, double d) {
    bytes_clear(b);
    json_write_real(b, d);
    assert_non_null(strpbrk(b->ptr, ".eE"));
    arena a;
    arena_init(&a, NULL, 0);
    const json *v = NULL;
    assert_int_equal(json_parse(&a, bytes_view(b), &v, NULL), GODWIT_OK);
    assert_int_equal(v->type, JSON_REAL);
    assert_memory_equal(&v->u.d, &d, sizeof(d));
    arena_deinit(&a);
    /* What the rule says: the shortest of three that reads back. */
    char want[64];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(want, sizeof(want) - 2, "%.*g", digits, d);
        if (strtod(want, NULL) == d) {
            break;
        }
    }
    if (!strpbrk(want, ".e")) {
        strcat(want, ".0");
    }
    assert_string_equal(b->ptr, want);
}

static void reals_round_trip(void **state) {
    (void)state;
    static const double fixed[] = {0.0,
                                   -0.0,
                                   1.0,
                                   -1.0,
                                   0.1,
                                   0.5,
                                   1e15,
                                   999999999999999.0,
                                   1e14,
                                   123456.789,
                                   1e-4,
                                   9.9999999e-5,
                                   0.0001234,
                                   1e21,
                                   1e22,
                                   1e300,
                                   DBL_MAX,
                                   DBL_MIN,
                                   DBL_TRUE_MIN,
                                   9007199254740993.0,
                                   2.0 / 3,
                                   100.0,
                                   0.30000000000000004,
                                   52.5200066,
                                   13.404954,
                                   99999999999999.9,
                                   4503599627370497.5};
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(fixed); i++) {
        assert_real(&b, fixed[i]);
    }
    uint64_t seed = 11;
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = unit_random(&seed);
        double d = 0;
        if (i % 2) {
            memcpy(&d, &bits, sizeof(d));
        } else {
            static const double scale[] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e12};
            d = (double)(int64_t)(bits >> (8 + bits % 50)) / scale[bits % COUNT_OF(scale)];
        }
        if (isfinite(d)) {
            assert_real(&b, d);
        }
    }
    bytes_deinit(&b);
}

static void the_locale_changes_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    bool found = false;
    for (size_t i = 0; i < COUNT_OF(names) && !found; i++) {
        found = setlocale(LC_NUMERIC, names[i]) != NULL;
    }
    if (!found) {
        skip(); /* no locale with a decimal comma on this machine */
    }
    bytes b;
    bytes_init(&b, NULL, 0);
    json_write_real(&b, 1.5);
    json_write_real(&b, 2.0 / 3);
    json_write_real(&b, 1.5e-300);
    assert_string_equal(b.ptr, "1.50.66666666666666661.5e-300");
    arena a;
    arena_init(&a, NULL, 0);
    assert_true(parse(&a, "1.5000000000000000000000000001e-300")->u.d == 1.5e-300);
    (void)setlocale(LC_NUMERIC, "C");
    arena_deinit(&a);
    bytes_deinit(&b);
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
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(reals_read_as_strtod_reads_them),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(a_raw_nul_is_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(values_are_bounded),
        cmocka_unit_test(many_keys_are_compared_too),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(memory_failures_are_reported),
        cmocka_unit_test(texts_are_written_and_read_back),
        cmocka_unit_test(reals_round_trip),
        cmocka_unit_test(the_locale_changes_nothing),
        cmocka_unit_test(small_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
