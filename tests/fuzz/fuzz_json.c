/* The JSON reader: whatever it accepts can be written again, and reads back as the same document.
 */
#include "fuzz.h"

#include "core/json.h"

static void write_scalar(bytes *out, const json *v) {
    switch ((json_type)v->type) {
    case JSON_NULL:
        bytes_text(out, "null");
        break;
    case JSON_FALSE:
        bytes_text(out, "false");
        break;
    case JSON_TRUE:
        bytes_text(out, "true");
        break;
    case JSON_INT:
        json_write_int(out, v->u.i);
        break;
    case JSON_REAL:
        json_write_real(out, v->u.d);
        break;
    case JSON_STRING:
        json_write_text(out, v->u.s);
        break;
    case JSON_ARRAY:
        bytes_char(out, '[');
        break;
    case JSON_OBJECT:
        bytes_char(out, '{');
        break;
    }
}

/* The document again, by walking the flat array with a stack of what is still open. */
static void write_document(bytes *out, const json *root) {
    struct {
        const json *node;
        uint32_t left, index;
    } open[64];
    size_t depth = 0;
    for (const json *v = root; v < root + root->span; v++) {
        if (depth > 0 && open[depth - 1].index > 0) {
            bool is_value =
                json_is(open[depth - 1].node, JSON_OBJECT) && open[depth - 1].index % 2 == 1;
            bytes_char(out, is_value ? ':' : ',');
        }
        write_scalar(out, v);
        if (depth > 0) {
            open[depth - 1].index++;
            open[depth - 1].left--;
        }
        if (v->type == JSON_ARRAY || v->type == JSON_OBJECT) {
            FUZZ_CHECK(depth < sizeof open / sizeof open[0]);
            open[depth].node = v;
            open[depth].left = v->type == JSON_OBJECT ? 2 * v->count : v->count;
            open[depth].index = 0;
            depth++;
        }
        while (depth > 0 && open[depth - 1].left == 0) {
            bytes_char(out, open[--depth].node->type == JSON_OBJECT ? '}' : ']');
        }
    }
    FUZZ_CHECK(depth == 0);
}

static bool same(const json *a, const json *b) {
    if (a->span != b->span) {
        return false;
    }
    for (uint32_t i = 0; i < a->span; i++) {
        if (a[i].type != b[i].type || a[i].span != b[i].span) {
            return false;
        }
        switch ((json_type)a[i].type) {
        case JSON_INT:
            if (a[i].u.i != b[i].u.i) {
                return false;
            }
            break;
        case JSON_REAL:
            if (memcmp(&a[i].u.d, &b[i].u.d, sizeof a[i].u.d) != 0) {
                return false;
            }
            break;
        case JSON_STRING:
            if (!slice_equal(a[i].u.s, b[i].u.s)) {
                return false;
            }
            break;
        case JSON_NULL:
        case JSON_FALSE:
        case JSON_TRUE:
        case JSON_ARRAY:
        case JSON_OBJECT:
            break;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    arena a;
    arena_init(&a, NULL, 0);
    const json *first, *second;
    json_error error;
    if (json_parse(&a, fuzz_slice(data, size), &first, &error) == GODWIT_OK) {
        FUZZ_CHECK(json_utf8_valid(fuzz_slice(data, size)));
        bytes text;
        bytes_init(&text, NULL, 0);
        write_document(&text, first);
        FUZZ_CHECK(!text.failed);
        FUZZ_CHECK(json_parse(&a, bytes_view(&text), &second, &error) == GODWIT_OK);
        FUZZ_CHECK(same(first, second));
        bytes_deinit(&text);
    } else {
        FUZZ_CHECK(error.reason && error.offset <= size);
    }
    arena_deinit(&a);
    return 0;
}
