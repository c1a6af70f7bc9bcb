/* JSON numbers: exact both ways, whatever the locale. */
#include "unit.h"

#include <float.h>
#include <locale.h>
#include <math.h>

#include "core/json.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(reals_read_as_strtod_reads_them),
        cmocka_unit_test(reals_round_trip),
        cmocka_unit_test(the_locale_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
