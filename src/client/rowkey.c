/* Keys and digests of rows: the text form of a key (semantics 13.1), its native values, and the
 * digest that tells whether a row still is what the server sent. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/limits.h"

static godwit_status part_text(arena *a, key_kind kind, const value *v, slice *out) {
    *out = (slice){0};
    switch (kind) {
    case KEY_TEXT:
        if (v->type == VALUE_TEXT && json_utf8_valid(v->u.s)) {
            *out = (slice){v->u.s.ptr ? v->u.s.ptr : "", v->u.s.len};
        }
        break;
    case KEY_INTEGER:
        if (v->type == VALUE_INT) {
            *out = slice_of(arena_printf(a, "%lld", (long long)v->u.i));
        }
        break;
    case KEY_BLOB:
        if (v->type == VALUE_BLOB) {
            char *hex = arena_alloc(a, v->u.s.len * 2 + 1);
            if (hex) {
                id_hex_encode((const uint8_t *)v->u.s.ptr, v->u.s.len, hex);
                *out = (slice){hex, v->u.s.len * 2};
            }
        }
        break;
    }
    if (!out->ptr) {
        return a->failed ? GODWIT_NOMEM : GODWIT_INVALID;
    }
    return GODWIT_OK;
}

godwit_status client_key_text(arena *a, const client_table *t, const value *parts, slice *out) {
    slice texts[KEY_COLUMNS_MAX] = {{0}};
    ASSERT(t->shape.key_count > 0);
    *out = (slice){0};
    for (size_t i = 0; i < t->shape.key_count; i++) {
        godwit_status status = part_text(a, t->shape.key_kinds[i], &parts[i], &texts[i]);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    slice id = texts[0];
    if (t->shape.key_count > 1) {
        bytes b;
        bytes_init(&b, a->allocator, 0);
        schema_id_write(&b, texts, t->shape.key_count);
        id = arena_copy(a, bytes_view(&b));
        bool failed = b.failed;
        bytes_deinit(&b);
        if (failed || !id.ptr) {
            return GODWIT_NOMEM;
        }
    }
    if (id.len > ENTITY_ID_BYTES_MAX) {
        return GODWIT_INVALID;
    }
    *out = id;
    return GODWIT_OK;
}

godwit_status client_key_values(arena *a, const client_table *t, slice id, value parts[16]) {
    slice texts[KEY_COLUMNS_MAX];
    godwit_status status = schema_id_parts(a, &t->shape, id, texts);
    for (size_t i = 0; status == GODWIT_OK && i < t->shape.key_count; i++) {
        value *v = &parts[i];
        memset(v, 0, sizeof *v);
        if (t->shape.key_kinds[i] == KEY_INTEGER) {
            char digits[24];
            snprintf(digits, sizeof digits, SLICE_FMT, SLICE_ARG(texts[i]));
            v->type = VALUE_INT;
            v->u.i = strtoll(digits, NULL, 10); /* schema_id_parts has checked the range */
        } else if (t->shape.key_kinds[i] == KEY_BLOB) {
            uint8_t *data = arena_alloc(a, texts[i].len / 2 + 1);
            if (!data) {
                return GODWIT_NOMEM;
            }
            if (!id_hex_decode(texts[i], data, texts[i].len / 2)) {
                return GODWIT_INVALID;
            }
            v->type = VALUE_BLOB;
            v->u.s = (slice){(const char *)data, texts[i].len / 2};
        } else {
            v->type = VALUE_TEXT;
            v->u.s = texts[i];
        }
    }
    return status;
}

uint64_t client_row_hash(int64_t tbl, slice id) {
    value v = {.type = VALUE_TEXT, .u.s = id};
    return value_hash(&v, (uint64_t)tbl);
}

int64_t client_row_digest(const client_table *t, const value *data_values) {
    uint64_t digest = UINT64_C(0x676f64776974);
    for (size_t i = 0; i < t->data_count; i++) {
        if (data_values[i].type != VALUE_NULL) {
            value name = {.type = VALUE_TEXT, .u.s = t->shape.columns[t->data_columns[i]].name};
            digest = value_hash(&data_values[i], value_hash(&name, digest));
        }
    }
    return (int64_t)digest;
}
