/* The registry: lookup, entity ids, and the writer of declarations. Reading a declaration is in
 * schema_read.c.
 *
 * Guarantees that a row has exactly one entityId: every part is checked to be in canonical form. */
#include "core/schema.h"

#include "core/id.h"
#include "core/limits.h"

const schema_table *schema_find(const schema *s, slice entity) {
    for (size_t i = 0; i < s->table_count; i++) {
        if (slice_equal(s->tables[i].entity, entity)) {
            return &s->tables[i];
        }
    }
    for (size_t i = 0; i < s->table_count; i++) {
        if (slice_equal(s->tables[i].name, entity)) {
            return &s->tables[i];
        }
    }
    return NULL;
}

static bool among(const slice *names, size_t count, slice name) {
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(names[i], name)) {
            return true;
        }
    }
    return false;
}

int schema_column_index(const schema_table *t, slice name) {
    for (size_t i = 0; i < t->column_count; i++) {
        if (slice_equal(t->columns[i].name, name)) {
            return (int)i;
        }
    }
    for (size_t i = 0; i < t->column_count; i++) {
        if (among(t->columns[i].former, t->columns[i].former_count, name)) {
            return (int)i;
        }
    }
    return -1;
}

bool schema_column_dropped(const schema_table *t, slice name) {
    return among(t->dropped, t->dropped_count, name);
}

const json *schema_value(const json *columns, const schema_column *column) {
    const json *found = json_find(columns, column->name);
    for (size_t i = 0; !found && i < column->former_count; i++) {
        found = json_find(columns, column->former[i]);
    }
    return found;
}

static const char *const POLICY_TYPES[] = {
    [POLICY_MAX] = "max", [POLICY_MIN] = "min", [POLICY_COUNTER] = "counter", [POLICY_SET] = "set"};

const char *schema_policy_type(merge_policy policy) {
    return (size_t)policy < COUNT_OF(POLICY_TYPES) ? POLICY_TYPES[policy] : NULL;
}

merge_policy schema_policy_of_type(slice name) {
    for (size_t i = 0; i < COUNT_OF(POLICY_TYPES); i++) {
        if (POLICY_TYPES[i] && slice_is(name, POLICY_TYPES[i])) {
            return (merge_policy)i;
        }
    }
    return POLICY_LWW;
}

static bool contains(slice text, const char *upper) {
    size_t len = strlen(upper);
    for (size_t i = 0; i + len <= text.len; i++) {
        size_t same = 0;
        while (same < len) {
            char c = text.ptr[i + same];
            if (c >= 'a' && c <= 'z') {
                c = (char)(c - 'a' + 'A');
            }
            if (c != upper[same]) {
                break;
            }
            same++;
        }
        if (same == len) {
            return true;
        }
    }
    return false;
}

key_kind schema_key_kind(slice declared_type) {
    if (contains(declared_type, "INT")) {
        return KEY_INTEGER;
    }
    return contains(declared_type, "BLOB") ? KEY_BLOB : KEY_TEXT;
}

bool schema_key_fits(slice declared_type) {
    static const char *const good[] = {"INT", "CHAR", "CLOB", "TEXT", "BLOB"};
    static const char *const bad[] = {"REAL", "FLOA", "DOUB", "NUM", "DEC"};
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (contains(declared_type, good[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (contains(declared_type, bad[i])) {
            return false;
        }
    }
    return true;
}

static bool decimal_valid(slice s) {
    size_t at = s.len > 0 && s.ptr[0] == '-' ? 1 : 0;
    size_t digits = s.len - at;
    if (digits < 1 || digits > 19 || (s.ptr[at] == '0' && s.len > 1)) {
        return false;
    }
    for (size_t i = at; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
    }
    const char *bound = at ? "9223372036854775808" : "9223372036854775807";
    return digits < 19 || memcmp(s.ptr + at, bound, 19) <= 0;
}

static bool hex_valid(slice s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return s.len % 2 == 0;
}

static bool part_valid(key_kind kind, slice part) {
    switch (kind) {
    case KEY_TEXT:
        return json_utf8_valid(part);
    case KEY_INTEGER:
        return decimal_valid(part);
    case KEY_BLOB:
        break;
    }
    return hex_valid(part);
}

void schema_id_write(bytes *b, const slice *parts, size_t count) {
    if (count == 1) {
        bytes_slice(b, parts[0]);
        return;
    }
    bool first = true;
    bytes_char(b, '[');
    for (size_t i = 0; i < count; i++) {
        json_comma(b, &first);
        json_write_text(b, parts[i]);
    }
    bytes_char(b, ']');
}

/* The same parts written again must give the same id: no spaces, no needless escapes. */
static godwit_status check_canonical(arena *a, slice id, const slice *parts, size_t count) {
    bytes again;
    bytes_init(&again, a->allocator, 0);
    schema_id_write(&again, parts, count);
    a->failed = a->failed || again.failed; /* who asks for the arena must not take it for INVALID */
    godwit_status status = again.failed                          ? GODWIT_NOMEM
                           : slice_equal(bytes_view(&again), id) ? GODWIT_OK
                                                                 : GODWIT_INVALID;
    bytes_deinit(&again);
    return status;
}

godwit_status schema_id_parts(arena *a, const schema_table *t, slice id, slice parts[16]) {
    if (id.len > ENTITY_ID_BYTES_MAX) {
        return GODWIT_INVALID;
    }
    if (t->key_count == 1) {
        parts[0] = id;
        return part_valid(t->key_kinds[0], id) ? GODWIT_OK : GODWIT_INVALID;
    }
    const json *root = NULL;
    godwit_status status = json_parse(a, id, &root, NULL);
    if (status == GODWIT_NOMEM) {
        return status;
    }
    if (status != GODWIT_OK || !json_is(root, JSON_ARRAY) || root->count != t->key_count) {
        return GODWIT_INVALID;
    }
    const json *item = json_first(root);
    for (size_t i = 0; i < t->key_count; i++, item = json_after(item)) {
        if (!json_text(item, &parts[i]) || !part_valid(t->key_kinds[i], parts[i])) {
            return GODWIT_INVALID;
        }
    }
    return check_canonical(a, id, parts, t->key_count);
}

static void write_names(bytes *b, const schema_table *t, const int *indexes, size_t count) {
    bool first = true;
    bytes_char(b, '[');
    for (size_t i = 0; i < count; i++) {
        json_comma(b, &first);
        json_write_text(b, t->columns[indexes[i]].name);
    }
    bytes_char(b, ']');
}

static void write_foreign_key(bytes *b, const schema_table *t, const schema_fk *fk) {
    bool first = true;
    bytes_char(b, '{');
    json_key(b, &first, "columns");
    write_names(b, t, fk->columns, fk->count);
    json_key(b, &first, "table");
    json_write_text(b, fk->table);
    json_key(b, &first, "refColumns");
    bool first_name = true;
    bytes_char(b, '[');
    for (size_t i = 0; i < fk->count; i++) {
        json_comma(b, &first_name);
        json_write_text(b, fk->ref_columns[i]);
    }
    bytes_char(b, ']');
    json_key(b, &first, "onDelete");
    json_write_text(b, fk->on_delete);
    bytes_char(b, '}');
}

void schema_table_to_json(bytes *b, const schema_table *t) {
    bool first = true;
    bytes_char(b, '{');
    json_key(b, &first, "name");
    json_write_text(b, t->name);
    if (!slice_equal(t->entity, t->name)) {
        json_key(b, &first, "entity");
        json_write_text(b, t->entity);
    }
    json_key(b, &first, "primaryKey");
    write_names(b, t, t->key, t->key_count);
    json_key(b, &first, "columns");
    bytes_char(b, '[');
    bool first_column = true;
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].local) {
            continue; /* devices may not write it and need not know it */
        }
        json_comma(b, &first_column);
        bool first_member = true;
        bytes_char(b, '{');
        json_key(b, &first_member, "name");
        json_write_text(b, t->columns[i].name);
        json_key(b, &first_member, "type");
        json_write_text(b, t->columns[i].type);
        if (schema_policy_type(t->columns[i].policy)) {
            json_key(b, &first_member, "merge");
            json_write_text(b, slice_of(schema_policy_type(t->columns[i].policy)));
        }
        if (t->columns[i].former_count) {
            bool first_name = true;
            json_key(b, &first_member, "former");
            bytes_char(b, '[');
            for (size_t k = 0; k < t->columns[i].former_count; k++) {
                json_comma(b, &first_name);
                json_write_text(b, t->columns[i].former[k]);
            }
            bytes_char(b, ']');
        }
        bytes_char(b, '}');
    }
    bytes_char(b, ']');
    if (t->fk_count) {
        json_key(b, &first, "foreignKeys");
        bytes_char(b, '[');
        bool first_fk = true;
        for (size_t i = 0; i < t->fk_count; i++) {
            json_comma(b, &first_fk);
            write_foreign_key(b, t, &t->fks[i]);
        }
        bytes_char(b, ']');
    }
    bytes_char(b, '}');
}
