/* The registry: declarations read and written, each refusal, entity ids against the golden forms.
 */
#include "unit.h"

#include "core/limits.h"
#include "core/schema.h"

static const char fieldnotes[] =
    "[{\"name\":\"pins\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":\"TEXT\"},"
    "{\"name\":\"title\",\"type\":\"TEXT\"},{\"name\":\"lat\",\"type\":\"REAL\"}]},"
    "{\"name\":\"forms\",\"entity\":\"form\",\"primaryKey\":[\"pin_id\",\"n\"],\"columns\":["
    "{\"name\":\"pin_id\",\"type\":\"TEXT\"},{\"name\":\"n\",\"type\":\"BIGINT\"},"
    "{\"name\":\"price\",\"type\":\"DECIMAL(10, 2)\"},{\"name\":\"w\\\"x\",\"type\":\"\"}],"
    "\"foreignKeys\":[{\"columns\":[\"pin_id\"],\"table\":\"pins\",\"refColumns\":[\"id\"],"
    "\"onDelete\":\"CASCADE\"}]}]";

static godwit_status declare(arena *a, const char *text, schema *out, const char **reason) {
    const json *root = NULL;
    assert_int_equal(json_parse(a, slice_of(text), &root, NULL), GODWIT_OK);
    return schema_from_json(a, root, out, reason);
}

static void a_declaration_is_read(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    schema s;
    const char *reason = "";
    assert_int_equal(declare(&a, fieldnotes, &s, &reason), GODWIT_OK);
    assert_null(reason);
    assert_int_equal(s.table_count, 2);
    const schema_table *forms = schema_find(&s, SLICE("form"));
    assert_ptr_equal(forms, &s.tables[1]);
    assert_ptr_equal(schema_find(&s, SLICE("forms")), forms);
    assert_null(schema_find(&s, SLICE("Forms")));
    assert_int_equal(forms->number, 1);
    assert_int_equal(forms->column_count, 4);
    assert_int_equal(forms->key_count, 2);
    assert_int_equal(forms->key[0], 0);
    assert_int_equal(forms->key[1], 1);
    assert_int_equal(forms->key_kinds[0], KEY_TEXT);
    assert_int_equal(forms->key_kinds[1], KEY_INTEGER);
    assert_true(forms->columns[0].is_key && forms->columns[1].is_key && !forms->columns[2].is_key);
    assert_slice(forms->columns[3].name, "w\"x");
    assert_int_equal(schema_column_index(forms, SLICE("price")), 2);
    assert_int_equal(schema_column_index(forms, SLICE("PRICE")), -1);
    assert_int_equal(forms->fk_count, 1);
    assert_slice(forms->fks[0].table, "pins");
    assert_slice(forms->fks[0].ref_columns[0], "id");
    assert_int_equal(forms->fks[0].columns[0], 0);
    assert_slice(forms->fks[0].on_delete, "CASCADE");
    assert_int_equal(forms->scope_column, -1);
    assert_int_equal(forms->deleted_column, -1);
    assert_int_equal(forms->columns[2].policy, POLICY_LWW);
    arena_deinit(&a);
}

static void a_declaration_is_written_as_it_was_read(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    schema s;
    assert_int_equal(declare(&a, fieldnotes, &s, NULL), GODWIT_OK);
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '[');
    schema_table_to_json(&b, &s.tables[0]);
    bytes_char(&b, ',');
    schema_table_to_json(&b, &s.tables[1]);
    bytes_char(&b, ']');
    assert_slice(bytes_view(&b), fieldnotes);
    bytes_deinit(&b);
    arena_deinit(&a);
}

#define COLUMNS  "\"columns\":[{\"name\":\"id\",\"type\":\"TEXT\"}]"
#define KEY      "\"primaryKey\":[\"id\"]"
#define FK(text) "[{\"name\":\"t\"," KEY "," COLUMNS ",\"foreignKeys\":[" text "]}]"
#define TYPE(text)                                                                                 \
    "[{\"name\":\"t\"," KEY ",\"columns\":[{\"name\":\"id\",\"type\":\"" text "\"}]}]"

static void each_refusal_says_what_and_where(void **state) {
    (void)state;
    static const struct {
        const char *text, *reason;
    } table[] = {
        {"{}", "tables must be a list"},
        {"[7]", "no valid name"},
        {"[{" KEY "," COLUMNS "}]", "no valid name"},
        {"[{\"name\":\"\"," KEY "," COLUMNS "}]", "no valid name"},
        {"[{\"name\":\"a\\nb\"," KEY "," COLUMNS "}]", "no valid name"},
        {"[{\"name\":\"t\"," KEY "," COLUMNS ",\"x\":1}]", "table \"t\": unknown member \"x\""},
        {"[{\"name\":\"t\"," KEY "," COLUMNS ",\"a\\nb\":1}]", "table \"t\": unknown member"},
        {"[{\"name\":\"t\"," KEY "," COLUMNS ",\"entity\":7}]", "entity is not a valid name"},
        {"[{\"name\":\"godwit_row\"," KEY "," COLUMNS "}]", "the name is reserved"},
        {"[{\"name\":\"SQLITE_x\"," KEY "," COLUMNS "}]", "the name is reserved"},
        {"[{\"name\":\"t\"," KEY "}]", "columns must be a list"},
        {"[{\"name\":\"t\"," KEY ",\"columns\":[]}]", "columns must be a list"},
        {"[{\"name\":\"t\"," KEY ",\"columns\":[\"id\"]}]", "a column has no valid name"},
        {"[{\"name\":\"t\"," KEY ",\"columns\":[{\"name\":\"id\",\"pk\":1}]}]",
         "unknown member \"pk\""},
        {"[{\"name\":\"t\"," KEY ",\"columns\":[{\"name\":\"id\"},{\"name\":\"ID\"}]}]",
         "column named twice \"ID\""},
        {"[{\"name\":\"t\"," COLUMNS "}]", "primaryKey must be a list"},
        {"[{\"name\":\"t\",\"primaryKey\":[]," COLUMNS "}]", "primaryKey must be a list"},
        {"[{\"name\":\"t\",\"primaryKey\":[\"no\"]," COLUMNS "}]", "primaryKey names no column"},
        {"[{\"name\":\"t\",\"primaryKey\":[\"id\",\"id\"]," COLUMNS "}]",
         "primaryKey names no column"},
        {"[{\"name\":\"t\",\"primaryKey\":[7]," COLUMNS "}]", "primaryKey names no column"},
        {"[{\"name\":\"t\"," KEY "," COLUMNS "},{\"name\":\"T\"," KEY "," COLUMNS "}]",
         "table \"T\": declared twice"},
        {"[{\"name\":\"t\"," KEY "," COLUMNS ",\"foreignKeys\":{}}]", "foreignKeys must be a list"},
        {FK("7"), "a foreign key names no table"},
        {FK("{\"table\":\"p\"}"), "columns and refColumns do not match: foreign key to \"p\""},
        {FK("{\"table\":\"p\",\"columns\":[\"id\"],\"refColumns\":[]}"), "do not match"},
        {FK("{\"table\":\"p\",\"columns\":[\"no\"],\"refColumns\":[\"id\"]}"), "unknown column"},
        {FK("{\"table\":\"p\",\"columns\":[\"id\"],\"refColumns\":[7]}"), "unknown column"},
        {FK("{\"table\":\"p\",\"columns\":[\"id\"],\"refColumns\":[\"id\"],\"onDelete\":\"DROP\"}"),
         "unknown onDelete"},
        {FK("{\"table\":\"p\",\"columns\":[\"id\"],\"refColumns\":[\"id\"],\"match\":1}"),
         "unknown member \"match\""},
        {TYPE("TEXT; DROP TABLE x"), "not a type name: column \"id\""},
        {TYPE("TEXT) --"), "not a type name"},
        {TYPE("TEXT DEFAULT (1"), "not a type name"},
        {TYPE("TEXT(1,2,3)"), "not a type name"},
        {TYPE("TEXT()"), "not a type name"},
        {TYPE("TEXT(1) x"), "not a type name"},
        {TYPE("TEXT 'x'"), "not a type name"},
        {TYPE("a\\u0000b"), "not a type name"},
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        arena a;
        arena_init(&a, NULL, 0);
        schema s;
        const char *reason = NULL;
        if (declare(&a, table[i].text, &s, &reason) != GODWIT_INVALID) {
            fail_msg("accepted: %s", table[i].text);
        }
        assert_int_equal(s.table_count, 0);
        if (!reason || !strstr(reason, table[i].reason)) {
            fail_msg("%s: refused with \"%s\"", table[i].text, reason ? reason : "(nothing)");
        }
        arena_deinit(&a);
    }
    static const char *const types[] = {"",
                                        "INTEGER",
                                        "UNSIGNED BIG INT",
                                        "VARCHAR(255)",
                                        "DECIMAL(10,5)",
                                        "NUMERIC ( +1 , -2 )",
                                        "my_type"};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        arena a;
        arena_init(&a, NULL, 0);
        schema s;
        assert_int_equal(declare(&a, arena_printf(&a, TYPE("%s"), types[i]), &s, NULL), GODWIT_OK);
        arena_deinit(&a);
    }
}

static void counts_are_bounded(void **state) {
    (void)state;
    for (int over = 0; over < 2; over++) {
        bytes b;
        bytes_init(&b, NULL, 0);
        bytes_text(&b, "[{\"name\":\"t\",\"primaryKey\":[\"c0\"],\"columns\":[");
        for (int i = 0; i < COLUMNS_MAX + over; i++) {
            bytes_printf(&b, "%s{\"name\":\"c%d\"}", i ? "," : "", i);
        }
        bytes_text(&b, "]}]");
        arena a;
        arena_init(&a, NULL, 0);
        schema s;
        assert_int_equal(declare(&a, b.ptr, &s, NULL), over ? GODWIT_LIMIT : GODWIT_OK);
        bytes_clear(&b);
        bytes_char(&b, '[');
        for (int i = 0; i < TABLES_MAX + over; i++) {
            bytes_printf(&b, "%s{\"name\":\"t%d\"," KEY "," COLUMNS "}", i ? "," : "", i);
        }
        bytes_char(&b, ']');
        assert_int_equal(declare(&a, b.ptr, &s, NULL), over ? GODWIT_LIMIT : GODWIT_OK);
        arena_deinit(&a);
        bytes_deinit(&b);
    }
}

static void key_kinds_follow_affinity(void **state) {
    (void)state;
    assert_int_equal(schema_key_kind(SLICE("integer")), KEY_INTEGER);
    assert_int_equal(schema_key_kind(SLICE("UNSIGNED BIG INT")), KEY_INTEGER);
    assert_int_equal(schema_key_kind(SLICE("TEXT")), KEY_TEXT);
    assert_int_equal(schema_key_kind(SLICE("blob")), KEY_BLOB);
    assert_int_equal(schema_key_kind(SLICE("")), KEY_TEXT);
    assert_int_equal(schema_key_kind(SLICE("uuid")), KEY_TEXT);
}

static slice member(const json *o, const char *name) {
    slice text = {NULL, 0};
    assert_true(json_text(json_get(o, name), &text));
    return text;
}

static schema_table table_of(const json *o) {
    schema_table t = {0};
    const json *kind = json_first(json_get(o, "kinds"));
    for (t.key_count = 0; t.key_count < json_get(o, "kinds")->count; t.key_count++) {
        t.key_kinds[t.key_count] = schema_key_kind(kind->u.s);
        kind = json_after(kind);
    }
    return t;
}

static void entity_ids_have_one_form(void **state) {
    (void)state;
    arena a;
    arena_init(&a, NULL, 0);
    const json *root = NULL;
    assert_int_equal(json_parse(&a, unit_golden(&a, "wire/entity-ids.json"), &root, NULL),
                     GODWIT_OK);
    const json *list = json_get(root, "ids");
    const json *o = json_first(list);
    bytes b;
    bytes_init(&b, NULL, 0);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        schema_table t = table_of(o);
        slice parts[KEY_COLUMNS_MAX];
        assert_int_equal(schema_id_parts(&a, &t, member(o, "id"), parts), GODWIT_OK);
        const json *part = json_first(json_get(o, "parts"));
        for (size_t j = 0; j < t.key_count; j++, part = json_after(part)) {
            assert_true(slice_equal(parts[j], part->u.s));
        }
        bytes_clear(&b);
        schema_id_write(&b, parts, t.key_count);
        assert_true(slice_equal(bytes_view(&b), member(o, "id")));
    }
    list = json_get(root, "refused");
    o = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, o = json_after(o)) {
        schema_table t = table_of(o);
        slice parts[KEY_COLUMNS_MAX];
        if (schema_id_parts(&a, &t, member(o, "id"), parts) != GODWIT_INVALID) {
            fail_msg("accepted: " SLICE_FMT, SLICE_ARG(member(o, "id")));
        }
    }
    schema_table text = {.key_count = 1};
    slice parts[KEY_COLUMNS_MAX];
    char longest[ENTITY_ID_BYTES_MAX + 1];
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(schema_id_parts(&a, &text, (slice){longest, sizeof(longest) - 1}, parts),
                     GODWIT_OK);
    assert_int_equal(schema_id_parts(&a, &text, (slice){longest, sizeof(longest)}, parts),
                     GODWIT_INVALID);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    size_t reported = 0;
    for (size_t bound = 0; bound < 12000; bound += 64) {
        arena a;
        arena_init(&a, NULL, 0);
        const json *root = NULL;
        assert_int_equal(json_parse(&a, slice_of(fieldnotes), &root, NULL), GODWIT_OK);
        arena small;
        arena_init(&small, NULL, bound + 1);
        schema s;
        const char *reason = NULL;
        godwit_status status = schema_from_json(&small, root, &s, &reason);
        assert_true(status == GODWIT_OK || status == GODWIT_NOMEM);
        assert_int_equal(status == GODWIT_OK, reason == NULL);
        reported += status == GODWIT_NOMEM;
        arena_deinit(&small);
        arena_deinit(&a);
    }
    assert_true(reported > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_declaration_is_read),
        cmocka_unit_test(a_declaration_is_written_as_it_was_read),
        cmocka_unit_test(each_refusal_says_what_and_where),
        cmocka_unit_test(counts_are_bounded),
        cmocka_unit_test(key_kinds_follow_affinity),
        cmocka_unit_test(entity_ids_have_one_form),
        cmocka_unit_test(memory_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
