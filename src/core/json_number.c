/* Numbers: text to int64 or double, and back, exact both ways and blind to the C locale. */
#include "core/json_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NUMBER_BYTES_MAX 1024   /* longer numbers say nothing a double could hold */
#define EXPONENT_MAX     100000 /* beyond any double; keeps the sum below from overflowing */
#define EXACT_INT_MAX    ((uint64_t)1 << 53)

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

typedef struct {
    const char *start, *digits; /* first byte; first digit */
    size_t int_digits, fraction_digits;
    const char *fraction;
    bool negative, real;
    int exponent;
} parts;

static inline bool digit(const char *p, const char *end) {
    return p < end && *p >= '0' && *p <= '9';
}

static const char *scan_exponent(const char **at, const char *end, parts *n) {
    const char *p = *at + 1;
    bool negative = false;
    if (p < end && (*p == '+' || *p == '-')) {
        negative = *p == '-';
        p++;
    }
    if (!digit(p, end)) {
        return "digit expected";
    }
    int exponent = 0;
    for (; digit(p, end); p++) {
        exponent = exponent < EXPONENT_MAX ? exponent * 10 + (*p - '0') : EXPONENT_MAX;
    }
    n->exponent = negative ? -exponent : exponent;
    n->real = true;
    *at = p;
    return NULL;
}

static const char *scan(const char **at, const char *end, parts *n) {
    const char *p = *at;
    n->start = p;
    if (p < end && *p == '-') {
        n->negative = true;
        p++;
    }
    if (!digit(p, end)) {
        return n->negative ? "digit expected" : "a value is missing";
    }
    n->digits = p;
    while (digit(p, end)) {
        p++;
    }
    n->int_digits = (size_t)(p - n->digits);
    if (n->int_digits > 1 && *n->digits == '0') {
        return "number with a leading zero";
    }
    if (p < end && *p == '.') {
        n->real = true;
        n->fraction = ++p;
        if (!digit(p, end)) {
            return "digit expected";
        }
        while (digit(p, end)) {
            p++;
        }
        n->fraction_digits = (size_t)(p - n->fraction);
    }
    const char *reason = NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        reason = scan_exponent(&p, end, n);
    }
    *at = p;
    return reason;
}

/* The digits of the integer and fraction part as one number; false when it is over 19 digits. */
static bool mantissa(const parts *n, uint64_t *out) {
    if (n->int_digits + n->fraction_digits > 19) {
        return false;
    }
    uint64_t m = 0;
    for (size_t i = 0; i < n->int_digits; i++) {
        m = m * 10 + (uint64_t)(n->digits[i] - '0');
    }
    for (size_t i = 0; i < n->fraction_digits; i++) {
        m = m * 10 + (uint64_t)(n->fraction[i] - '0');
    }
    *out = m;
    return true;
}

/* strtod reads a decimal point as the locale wants it. So it gets none: 12.5e3 is handed over as
 * 125e2, which every locale reads alike. */
static const char *slow_real(const parts *n, const char *end, double *out) {
    if ((size_t)(end - n->start) > NUMBER_BYTES_MAX) {
        return "number too long";
    }
    char text[NUMBER_BYTES_MAX + 32];
    size_t len = 0;
    if (n->negative) {
        text[len++] = '-';
    }
    memcpy(text + len, n->digits, n->int_digits);
    len += n->int_digits;
    if (n->fraction_digits) {
        memcpy(text + len, n->fraction, n->fraction_digits);
        len += n->fraction_digits;
    }
    (void)snprintf(text + len, sizeof(text) - len, "e%d", n->exponent - (int)n->fraction_digits);
    double d = strtod(text, NULL);
    if (!isfinite(d)) {
        return "number out of range";
    }
    *out = d;
    return NULL;
}

const char *json_number_parse(const char **at, const char *end, json *node) {
    parts n = {0};
    const char *reason = scan(at, end, &n);
    if (reason) {
        return reason;
    }
    uint64_t m = 0;
    bool whole = mantissa(&n, &m);
    if (!n.real && whole) {
        if (m <= (uint64_t)INT64_MAX + (n.negative ? 1 : 0)) {
            node->type = JSON_INT;
            node->u.i = n.negative ? (int64_t)(0 - m) : (int64_t)m;
            return NULL;
        }
    }
    node->type = JSON_REAL;
    int exponent = n.exponent - (int)(whole ? n.fraction_digits : 0);
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    /* Both factors are exact, so the one rounding is the right one. */
    if (whole && m <= EXACT_INT_MAX && exponent >= -22 && exponent <= 22) {
        double d = (double)m;
        d = exponent < 0 ? d / powers[-exponent] : d * powers[exponent];
        node->u.d = n.negative ? -d : d;
        return NULL;
    }
#else
    (void)exponent;
#endif
    return slow_real(&n, *at, &node->u.d);
}

/* ---- Writing ---- */

void json_write_int(bytes *b, int64_t v) {
    bytes_int(b, v);
}

#ifdef __SIZEOF_INT128__
__extension__ typedef unsigned __int128 u128;

static void write_decimal(bytes *b, bool negative, uint64_t digits, int decimals) {
    char text[40];
    size_t at = sizeof(text);
    if (decimals == 0) { /* a real has a decimal point */
        digits *= 10;
        decimals = 1;
    }
    while (decimals > 1 && digits % 10 == 0) {
        digits /= 10;
        decimals--;
    }
    for (int i = 0; digits > 0 || i <= decimals; i++) {
        if (i == decimals) {
            text[--at] = '.';
        }
        text[--at] = (char)('0' + digits % 10);
        digits /= 10;
    }
    if (negative) {
        text[--at] = '-';
    }
    bytes_add(b, text + at, sizeof(text) - at);
}

static int decimal_exponent(double size) {
    static const double small[] = {1e0, 1e-1, 1e-2, 1e-3, 1e-4};
    int e = 0;
    while (size >= powers[e + 1]) {
        e++;
    }
    while (e <= 0 && size < small[-e]) {
        e--;
    }
    return e;
}

/* What the loop of json_write_real finds by printing and reading, found by exact integers, for the
 * sizes people store. d = m / 2^shift; the candidate with k decimals is m * 10^k / 2^shift rounded
 * half to even, and it reads as d when it is nearer to it than half a step of m. */
static bool write_exact(bytes *b, double d) {
    double size = fabs(d);
    if (size < 1e-4 || size >= 1e15) {
        return false;
    }
    int exponent = 0;
    uint64_t m = (uint64_t)ldexp(frexp(size, &exponent), DBL_MANT_DIG);
    int shift = DBL_MANT_DIG - exponent;
    bool power_of_two = m == EXACT_INT_MAX / 2; /* the step below it is half the one above */
    int first = decimal_exponent(size);
    for (int digits = 15; digits <= 17; digits++) {
        int k = digits - 1 - first;
        u128 power = (u128)(uint64_t)powers[k < 19 ? k : 19] * (k < 20 ? 1 : 10); /* k <= 20 */
        u128 scaled = power * m;
        u128 rest = scaled & (((u128)1 << shift) - 1);
        u128 half = (u128)1 << (shift - 1);
        uint64_t whole = (uint64_t)(scaled >> shift);
        bool up = rest > half || (rest == half && whole % 2);
        u128 off = up ? ((u128)1 << shift) - rest : rest;
        off *= power_of_two && !up ? 4 : 2;
        if (off < power || (off == power && m % 2 == 0)) {
            write_decimal(b, d < 0, whole + up, k);
            return true;
        }
    }
    return false;
}
#else
static bool write_exact(bytes *b, double d) {
    (void)b;
    (void)d;
    return false;
}
#endif

void json_write_real(bytes *b, double d) {
    ASSERT(isfinite(d));
    if (write_exact(b, d)) {
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d) {
            break;
        }
    }
    bool real = false;
    char out[48];
    size_t len = 0;
    for (const char *p = text; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == 'e';
        if (plain) {
            out[len++] = *p;
            real = real || *p == 'e';
        } else if (!real) {
            out[len++] = '.'; /* whatever the locale writes, one byte or several */
            real = true;
        }
    }
    bytes_add(b, out, len);
    if (!real) {
        bytes_add(b, ".0", 2);
    }
}
