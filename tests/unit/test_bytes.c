/* Arena and buffer: alignment, bounds, sticky failure, every allocation failing in turn. */
#include "unit.h"

static void arena_gives_aligned_zeroed_blocks(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    uint64_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        size_t size = unit_random(&seed) % (i % 100 == 0 ? 100000 : 200);
        unsigned char *block = arena_alloc(&a, size);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % _Alignof(max_align_t), 0);
        for (size_t j = 0; j < size; j++) {
            assert_int_equal(block[j], 0);
            block[j] = 0xa5;
        }
    }
    arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    unsigned char *again = arena_alloc(&a, 64);
    for (int j = 0; j < 64; j++) {
        assert_int_equal(again[j], 0);
    }
    arena_deinit(&a);
}

static void arena_keeps_its_bound(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 1000);
    assert_non_null(arena_alloc(&a, 900));
    assert_null(arena_alloc(&a, 200));
    assert_true(a.failed);
    assert_null(arena_alloc(&a, 1)); /* sticky */
    arena_reset(&a);
    assert_false(a.failed);
    assert_non_null(arena_alloc(&a, 900));
    arena_deinit(&a);
}

static void arena_refuses_overflow(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    assert_null(arena_array(&a, SIZE_MAX / 2, 3));
    assert_true(a.failed);
    arena_reset(&a);
    assert_null(arena_alloc(&a, SIZE_MAX - 3));
    arena_deinit(&a);
}

static void arena_resizes_the_newest_block_in_place(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    char *block = arena_resize(&a, NULL, 0, 100);
    memset(block, 'x', 100);
    char *grown = arena_resize(&a, block, 100, 1000);
    assert_ptr_equal(grown, block);
    char *next = arena_alloc(&a, 10);
    char *moved = arena_resize(&a, grown, 1000, 2000);
    assert_ptr_not_equal(moved, grown);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(moved[i], 'x');
    }
    assert_ptr_equal(arena_resize(&a, next, 10, 5), next);
    size_t used = a.used_bytes;
    char *back = arena_resize(&a, NULL, 0, 500);
    assert_non_null(arena_resize(&a, back, 500, 0));
    assert_int_equal(a.used_bytes, used);
    assert_ptr_equal(arena_resize(&a, NULL, 0, 500), back);
    arena_deinit(&a);
}

static void arena_copies_and_prints(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    slice copy = arena_copy(&a, SLICE("a\0b"));
    assert_int_equal(copy.len, 3);
    assert_memory_equal(copy.ptr, "a\0b\0", 4);
    slice empty = arena_copy(&a, (slice){NULL, 0});
    assert_non_null(empty.ptr);
    assert_string_equal(arena_printf(&a, "%s %d", "seven", 7), "seven 7");
    arena_deinit(&a);
}

static void arena_survives_every_failed_allocation(void **state) {
    (void)state;
    for (int once = 0; once < 2; once++) {
        for (long n = 0; n < 12; n++) {
            unit_memory memory = {n, once == 1, 0};
            godwit_allocator allocator = {&memory, unit_resize};
            arena a;
            arena_init(&a, &allocator, 0);
            bool failed = false;
            for (size_t i = 0; i < 10; i++) {
                failed = arena_alloc(&a, (size_t)3000 << i) == NULL || failed;
                assert_int_equal(a.failed, failed);
            }
            assert_int_equal(failed, n < 10);
            arena_deinit(&a);
            assert_int_equal(memory.live, 0);
        }
    }
}

static void bytes_append_what_they_are_given(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "abc");
    bytes_char(&b, '-');
    bytes_slice(&b, SLICE("de"));
    bytes_slice(&b, (slice){NULL, 0});
    bytes_int(&b, INT64_MIN);
    bytes_char(&b, ' ');
    bytes_int(&b, 0);
    bytes_char(&b, ' ');
    bytes_int(&b, INT64_MAX);
    bytes_printf(&b, "[%03d]", 7);
    bytes_hex(&b, "\x00\xff\x1a", 3);
    assert_string_equal(b.ptr, "abc-de-9223372036854775808 0 9223372036854775807[007]00ff1a");
    bytes_clear(&b);
    bytes_u32be(&b, 0x01020304);
    bytes_u64be(&b, UINT64_C(0xfffefdfcfbfaf9f8));
    assert_memory_equal(b.ptr, "\x01\x02\x03\x04\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", 12);
    reader r = {bytes_view(&b), false};
    assert_int_equal(reader_u32be(&r), 0x01020304);
    assert_true(reader_u64be(&r) == UINT64_C(0xfffefdfcfbfaf9f8));
    assert_false(r.failed);
    assert_int_equal(reader_u32be(&r), 0);
    assert_true(r.failed);
    assert_int_equal(reader_take(&r, 0).len, 0);
    assert_true(r.failed); /* sticky */
    bytes_deinit(&b);
}

static void identifiers_are_quoted(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_identifier(&b, SLICE("pins"));
    bytes_identifier(&b, SLICE("\"a\"\"b"));
    bytes_identifier(&b, SLICE(""));
    assert_string_equal(b.ptr, "\"pins\"\"\"\"a\"\"\"\"b\"\"\"");
    assert_false(b.failed);
    bytes_identifier(&b, SLICE("a\0b"));
    assert_true(b.failed);
    bytes_deinit(&b);
}

static void bytes_keep_their_bound(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 5);
    bytes_text(&b, "12345");
    assert_false(b.failed);
    bytes_char(&b, '6');
    assert_true(b.failed);
    assert_string_equal(b.ptr, "12345");
    bytes_text(&b, ""); /* sticky */
    assert_true(b.failed);
    bytes_clear(&b);
    assert_false(b.failed);
    bytes_printf(&b, "%d", 123456);
    assert_true(b.failed);
    assert_int_equal(b.len, 0);
    bytes_clear(&b);
    assert_false(bytes_reserve(&b, SIZE_MAX));
    bytes_deinit(&b);
}

static void bytes_are_taken_away(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    size_t len = 9;
    char *text = bytes_take(&b, &len);
    assert_string_equal(text, "");
    assert_int_equal(len, 0);
    mem_free(NULL, text);
    bytes_text(&b, "abc");
    text = bytes_take(&b, &len);
    assert_string_equal(text, "abc");
    assert_int_equal(len, 3);
    assert_null(b.ptr);
    mem_free(NULL, text);
    b.failed = true;
    assert_null(bytes_take(&b, &len));
    assert_int_equal(len, 0);
}

static void bytes_survive_every_failed_allocation(void **state) {
    (void)state;
    for (long n = 0; n < 8; n++) {
        unit_memory memory = {n, true, 0};
        godwit_allocator allocator = {&memory, unit_resize};
        bytes b;
        bytes_init(&b, &allocator, 0);
        for (int i = 0; i < 1000; i++) {
            bytes_text(&b, "0123456789");
        }
        assert_int_equal(b.failed, n < 7);
        assert_true(b.len % 10 == 0);
        assert_true(b.len == 0 || b.ptr[b.len] == '\0');
        bytes_deinit(&b);
        assert_int_equal(memory.live, 0);
    }
}

static void slices_compare(void **state) {
    (void)state;
    assert_true(slice_equal((slice){NULL, 0}, SLICE("")));
    assert_true(slice_compare(SLICE("a"), SLICE("ab")) < 0);
    assert_true(slice_compare(SLICE("b"), SLICE("ab")) > 0);
    assert_true(slice_compare(SLICE("\xff"), SLICE("a")) > 0);
    assert_int_equal(slice_compare(SLICE(""), (slice){NULL, 0}), 0);
    size_t out = 7;
    assert_false(size_add(SIZE_MAX, 1, &out));
    assert_false(size_mul(SIZE_MAX / 2, 3, &out));
    assert_int_equal(out, 7);
    assert_true(size_mul(0, SIZE_MAX, &out));
    assert_int_equal(out, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_aligned_zeroed_blocks),
        cmocka_unit_test(arena_keeps_its_bound),
        cmocka_unit_test(arena_refuses_overflow),
        cmocka_unit_test(arena_resizes_the_newest_block_in_place),
        cmocka_unit_test(arena_copies_and_prints),
        cmocka_unit_test(arena_survives_every_failed_allocation),
        cmocka_unit_test(bytes_append_what_they_are_given),
        cmocka_unit_test(identifiers_are_quoted),
        cmocka_unit_test(bytes_keep_their_bound),
        cmocka_unit_test(bytes_are_taken_away),
        cmocka_unit_test(bytes_survive_every_failed_allocation),
        cmocka_unit_test(slices_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
