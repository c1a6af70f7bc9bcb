/* SHA-256 against the vectors of FIPS 180-4 and NIST, whole and in parts. */
#include "unit.h"

#include "core/id.h"

static void assert_digest(const uint8_t digest[SHA256_BYTES], const char *hex) {
    char text[2 * SHA256_BYTES + 1];
    id_hex_encode(digest, SHA256_BYTES, text);
    assert_string_equal(text, hex);
}

static void standard_vectors(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
         "m"
         "nopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        uint8_t digest[SHA256_BYTES];
        sha256_of(vectors[i].text, strlen(vectors[i].text), digest);
        assert_digest(digest, vectors[i].hex);
    }
}

static void a_million_times_a(void **state) {
    (void)state;
    sha256 h;
    sha256_init(&h);
    char part[1000];
    memset(part, 'a', sizeof(part));
    for (int i = 0; i < 1000; i++) {
        sha256_update(&h, part, sizeof(part));
    }
    uint8_t digest[SHA256_BYTES];
    sha256_final(&h, digest);
    assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void parts_make_no_difference(void **state) {
    (void)state;
    uint8_t data[300];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 7);
    }
    for (size_t len = 0; len <= sizeof(data); len += len < 140 ? 1 : 40) {
        uint8_t whole[SHA256_BYTES];
        sha256_of(data, len, whole);
        for (size_t cut = 0; cut <= len; cut++) {
            sha256 h;
            sha256_init(&h);
            sha256_update(&h, data, cut);
            sha256_update(&h, NULL, 0);
            sha256_update(&h, data + cut, len - cut);
            uint8_t parts[SHA256_BYTES];
            sha256_final(&h, parts);
            assert_memory_equal(whole, parts, SHA256_BYTES);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_vectors),
        cmocka_unit_test(a_million_times_a),
        cmocka_unit_test(parts_make_no_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
