/* Reads a device's declaration of its tables (POST /v1/devices).
 *
 *   [{"name":"pins","primaryKey":["id"],"columns":[{"name":"id","type":"TEXT"},..],
 *     "foreignKeys":[{"columns":["pin_id"],"table":"pins","refColumns":["id"],"onDelete":"CASCADE"}]}]
 *
 * Strict: unknown members are refused by name. Names compare as SQLite compares them (ASCII case
 * aside), because the tables may be created from this; type names are limited to what a type name
 * can be, because they become part of a CREATE TABLE. */
#include "core/id.h"
#include "core/limits.h"
#include "core/schema.h"

#define TYPE_BYTES_MAX 64
#define FKS_MAX        64

typedef struct {
    arena *a;
    const char *reason;
    godwit_status status;
} build;

static bool refuse(build *b, godwit_status status, slice table, const char *what, slice name) {
    /* Whatever comes from outside is cut short; names are valid UTF-8 without control characters
     * only after id_name_valid, so others are not repeated. */
    int table_len = id_name_valid(table) ? (int)table.len : 0;
    int name_len = id_name_valid(name) ? (int)name.len : 0;
    const char *text =
        arena_printf(b->a, "table %s%.*s%s: %s%s%.*s%s", table_len ? "\"" : "(unnamed)", table_len,
                     table_len ? table.ptr : "", table_len ? "\"" : "", what, name_len ? " \"" : "",
                     name_len, name_len ? name.ptr : "", name_len ? "\"" : "");
    b->status = text ? status : GODWIT_NOMEM;
    b->reason = text ? text : "out of memory";
    return false;
}

static bool refuse_nomem(build *b) {
    b->status = GODWIT_NOMEM;
    b->reason = "out of memory";
    return false;
}

static const slice no_name = {NULL, 0};

static bool only_members(build *b, slice table, const json *object, const char *const *known) {
    const json *key = json_first(object);
    for (uint32_t i = 0; i < object->count; i++, key = json_after(key + 1)) {
        size_t k = 0;
        while (known[k] && !slice_is(key->u.s, known[k])) {
            k++;
        }
        if (!known[k]) {
            return refuse(b, GODWIT_INVALID, table, "unknown member", key->u.s);
        }
    }
    return true;
}

static bool same_name(slice a, slice b) {
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        char x = a.ptr[i];
        char y = b.ptr[i];
        x = x >= 'A' && x <= 'Z' ? (char)(x - 'A' + 'a') : x;
        y = y >= 'A' && y <= 'Z' ? (char)(y - 'A' + 'a') : y;
        if (x != y) {
            return false;
        }
    }
    return true;
}

static bool starts_with(slice name, const char *lower) {
    size_t len = strlen(lower);
    return name.len >= len && same_name((slice){name.ptr, len}, (slice){lower, len});
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* words, then perhaps (n) or (n,m) */
static bool type_valid(slice type) {
    if (type.len > TYPE_BYTES_MAX) {
        return false;
    }
    size_t i = 0;
    while (i < type.len && (is_word(type.ptr[i]) || type.ptr[i] == ' ')) {
        i++;
    }
    if (i == type.len) {
        return true;
    }
    if (type.ptr[i++] != '(') {
        return false;
    }
    for (int part = 0; part < 2; part++) {
        while (i < type.len && (type.ptr[i] == ' ' || type.ptr[i] == '-' || type.ptr[i] == '+')) {
            i++;
        }
        size_t digits = 0;
        while (i < type.len && type.ptr[i] >= '0' && type.ptr[i] <= '9') {
            i++;
            digits++;
        }
        while (i < type.len && type.ptr[i] == ' ') {
            i++;
        }
        if (digits == 0 || i == type.len) {
            return false;
        }
        if (type.ptr[i] == ')') {
            return i + 1 == type.len;
        }
        if (type.ptr[i++] != ',') {
            return false;
        }
    }
    return false;
}

static bool read_columns(build *b, const json *list, schema_table *t) {
    static const char *const known[] = {"name", "type", NULL};
    if (!json_is(list, JSON_ARRAY) || list->count == 0) {
        return refuse(b, GODWIT_INVALID, t->name, "columns must be a list of {name, type}",
                      no_name);
    }
    if (list->count > COLUMNS_MAX) {
        return refuse(b, GODWIT_LIMIT, t->name, "too many columns", no_name);
    }
    t->columns = ARENA_ARRAY(b->a, schema_column, list->count);
    if (!t->columns) {
        return refuse_nomem(b);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        schema_column *c = &t->columns[i];
        if (!json_text(json_get(item, "name"), &c->name) || !id_name_valid(c->name)) {
            return refuse(b, GODWIT_INVALID, t->name, "a column has no valid name", no_name);
        }
        if (!only_members(b, t->name, item, known)) {
            return false;
        }
        const json *type = json_get(item, "type");
        c->type = SLICE("");
        if (type && (!json_text(type, &c->type) || !type_valid(c->type))) {
            return refuse(b, GODWIT_INVALID, t->name, "not a type name: column", c->name);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (same_name(t->columns[j].name, c->name)) {
                return refuse(b, GODWIT_INVALID, t->name, "column named twice", c->name);
            }
        }
        t->column_count = i + 1;
    }
    return true;
}

static bool read_key(build *b, const json *list, schema_table *t) {
    if (!json_is(list, JSON_ARRAY) || list->count == 0) {
        return refuse(b, GODWIT_INVALID, t->name, "primaryKey must be a list of column names",
                      no_name);
    }
    if (list->count > KEY_COLUMNS_MAX) {
        return refuse(b, GODWIT_LIMIT, t->name, "too many columns in primaryKey", no_name);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        slice name = {NULL, 0};
        int index = json_text(item, &name) ? schema_column_index(t, name) : -1;
        if (index < 0 || t->columns[index].is_key) {
            return refuse(b, GODWIT_INVALID, t->name, "primaryKey names no column of its own",
                          name);
        }
        t->columns[index].is_key = true;
        t->key[i] = index;
        t->key_kinds[i] = schema_key_kind(t->columns[index].type);
        t->key_count = i + 1;
    }
    return true;
}

static bool read_fk(build *b, const json *item, const schema_table *t, schema_fk *fk) {
    static const char *const known[] = {"columns", "table", "refColumns", "onDelete", NULL};
    const json *columns = json_get(item, "columns");
    const json *refs = json_get(item, "refColumns");
    if (!json_text(json_get(item, "table"), &fk->table) || !id_name_valid(fk->table)) {
        return refuse(b, GODWIT_INVALID, t->name, "a foreign key names no table", no_name);
    }
    if (!only_members(b, t->name, item, known)) {
        return false;
    }
    if (!json_is(columns, JSON_ARRAY) || columns->count == 0 || columns->count > KEY_COLUMNS_MAX ||
        !json_is(refs, JSON_ARRAY) || refs->count != columns->count) {
        return refuse(b, GODWIT_INVALID, t->name,
                      "columns and refColumns do not match: foreign key to", fk->table);
    }
    int *indexes = ARENA_ARRAY(b->a, int, columns->count);
    slice *names = ARENA_ARRAY(b->a, slice, columns->count);
    if (!indexes || !names) {
        return refuse_nomem(b);
    }
    const json *column = json_first(columns);
    const json *ref = json_first(refs);
    for (uint32_t i = 0; i < columns->count; i++) {
        slice name = {NULL, 0};
        indexes[i] = json_text(column, &name) ? schema_column_index(t, name) : -1;
        if (indexes[i] < 0 || !json_text(ref, &names[i]) || !id_name_valid(names[i])) {
            return refuse(b, GODWIT_INVALID, t->name, "unknown column: foreign key to", fk->table);
        }
        column = json_after(column);
        ref = json_after(ref);
    }
    fk->columns = indexes;
    fk->ref_columns = names;
    fk->count = columns->count;
    static const char *const actions[] = {"NO ACTION", "RESTRICT", "CASCADE", "SET NULL",
                                          "SET DEFAULT"};
    const json *action = json_get(item, "onDelete");
    fk->on_delete = SLICE("NO ACTION");
    bool valid = !action || json_text(action, &fk->on_delete);
    bool found = false;
    for (size_t i = 0; i < COUNT_OF(actions) && valid; i++) {
        found = found || slice_is(fk->on_delete, actions[i]);
    }
    return found
               ? true
               : refuse(b, GODWIT_INVALID, t->name, "unknown onDelete: foreign key to", fk->table);
}

static bool read_fks(build *b, const json *list, schema_table *t) {
    if (!list) {
        return true;
    }
    if (!json_is(list, JSON_ARRAY)) {
        return refuse(b, GODWIT_INVALID, t->name, "foreignKeys must be a list", no_name);
    }
    if (list->count > FKS_MAX) {
        return refuse(b, GODWIT_LIMIT, t->name, "too many foreign keys", no_name);
    }
    t->fks = ARENA_ARRAY(b->a, schema_fk, list->count);
    if (!t->fks) {
        return refuse_nomem(b);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        if (!read_fk(b, item, t, &t->fks[i])) {
            return false;
        }
        t->fk_count = i + 1;
    }
    return true;
}

static bool read_table(build *b, const json *item, schema_table *t) {
    static const char *const known[] = {"name",    "entity",      "primaryKey",
                                        "columns", "foreignKeys", NULL};
    if (!json_text(json_get(item, "name"), &t->name) || !id_name_valid(t->name)) {
        t->name = no_name;
        return refuse(b, GODWIT_INVALID, no_name, "no valid name", no_name);
    }
    if (!only_members(b, t->name, item, known)) {
        return false;
    }
    const json *entity = json_get(item, "entity");
    t->entity = t->name;
    if (entity && (!json_text(entity, &t->entity) || !id_name_valid(t->entity))) {
        return refuse(b, GODWIT_INVALID, t->name, "entity is not a valid name", no_name);
    }
    /* Both become names of tables beside the engine's own. */
    if (starts_with(t->name, "godwit_") || starts_with(t->name, "sqlite_")) {
        return refuse(b, GODWIT_INVALID, t->name, "the name is reserved", no_name);
    }
    t->scope_column = -1;
    t->initial_column = -1;
    t->deleted_column = -1;
    t->created_by_device_column = -1;
    t->updated_at_column = -1;
    t->vector_clock_column = -1;
    t->scope = SLICE("");
    return read_columns(b, json_get(item, "columns"), t) &&
           read_key(b, json_get(item, "primaryKey"), t) &&
           read_fks(b, json_get(item, "foreignKeys"), t);
}

static bool read_tables(build *b, const json *list, schema *out) {
    if (!json_is(list, JSON_ARRAY)) {
        b->status = GODWIT_INVALID;
        b->reason = "tables must be a list";
        return false;
    }
    if (list->count > TABLES_MAX) {
        b->status = GODWIT_LIMIT;
        b->reason = "too many tables";
        return false;
    }
    out->tables = ARENA_ARRAY(b->a, schema_table, list->count);
    if (!out->tables) {
        return refuse_nomem(b);
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        schema_table *t = &out->tables[i];
        if (!read_table(b, item, t)) {
            return false;
        }
        t->number = (int)i;
        for (uint32_t j = 0; j < i; j++) {
            const schema_table *other = &out->tables[j];
            if (same_name(other->name, t->name) || same_name(other->entity, t->entity)) {
                return refuse(b, GODWIT_INVALID, t->name, "declared twice", no_name);
            }
        }
        out->table_count = i + 1;
    }
    return true;
}

godwit_status schema_from_json(arena *a, const json *tables, schema *out, const char **reason) {
    memset(out, 0, sizeof(*out));
    build b = {a, NULL, GODWIT_OK};
    if (!read_tables(&b, tables, out)) {
        memset(out, 0, sizeof(*out));
    }
    if (reason) {
        *reason = b.reason;
    }
    return b.status;
}
