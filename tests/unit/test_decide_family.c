/* Parents that somebody else has deleted meanwhile, groups that are held, and merges that a CHECK
 * of the database refuses. */
#include "decide_kit.h"

static const schema_fk pins_of_forms = {
    .table = {"pins", 4}, .columns = kit_fk_columns, .ref_columns = kit_fk_refs, .count = 1};

static slice id_of(kit *k, int table, const schema_fk *fk, const value *a, const value *b) {
    const value *values[] = {a, b};
    return decide_parent_id(&k->a, &k->tables[table], fk, values);
}

static void a_parent_is_named_by_its_key(void **state) {
    (void)state;
    static const int columns[] = {1, 2};
    static const slice turned[] = {{"y", 1}, {"x", 1}}, other[] = {{"x", 1}, {"v", 1}};
    static const slice unsaid[] = {{"", 0}, {"", 0}};
    schema_fk fk = {.table = SLICE("cells"), .columns = columns, .ref_columns = turned, .count = 2};
    const value seven = {.type = VALUE_INT, .u.i = -7}, nothing = {.type = VALUE_NULL};
    const value text = {.type = VALUE_TEXT, .u.s = SLICE("a\"b")};
    const value bytes_ = {.type = VALUE_BLOB, .u.s = SLICE("\x01\xfe")};
    const value real = {.type = VALUE_REAL, .u.d = 1.5}, odd = {.type = VALUE_SPECIAL};
    kit k;
    kit_init(&k, 1);
    assert_true(slice_is(id_of(&k, CELLS, &fk, &text, &seven), "[\"-7\",\"a\\\"b\"]"));
    fk.ref_columns = unsaid; /* then it is the primary key, in its order */
    assert_true(slice_is(id_of(&k, CELLS, &fk, &seven, &text), "[\"-7\",\"a\\\"b\"]"));
    fk.ref_columns = NULL;
    assert_true(slice_is(id_of(&k, CELLS, &fk, &seven, &text), "[\"-7\",\"a\\\"b\"]"));
    fk.ref_columns = other; /* not by the key: which row it is can't be told from it */
    assert_null(id_of(&k, CELLS, &fk, &seven, &text).ptr);
    fk.count = 1;
    fk.ref_columns = NULL;
    assert_null(id_of(&k, CELLS, &fk, &seven, NULL).ptr);
    assert_true(slice_is(id_of(&k, FILES, &fk, &bytes_, NULL), "01fe"));
    assert_true(slice_is(id_of(&k, PINS, &pins_of_forms, &text, NULL), "a\"b"));
    const value *const none[] = {NULL, &nothing, &real, &odd};
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        assert_null(id_of(&k, PINS, &pins_of_forms, none[i], NULL).ptr);
    }
    const schema_fk elsewhere = {.table = SLICE("nowhere")};
    assert_null(decide_parent_table(&k.c, &elsewhere));
    assert_ptr_equal(decide_parent_table(&k.c, &pins_of_forms), &k.tables[PINS]);
    kit_deinit(&k);
}

/* "p" was deleted in commit 8 by somebody else; "g", which it refers to, too. */
static const int note_column[] = {2};
static schema_fk grand = {.columns = note_column, .count = 1};

static void family(kit *k) {
    kit_init(k, 9);
    decide_row *pin =
        kit_row(k, PINS, "p", "{\"id\":\"p\",\"title\":\"t\",\"note\":\"g\"}", 5, "x", 1);
    kit_tombstone(pin, 8, "x");
    decide_row *top = kit_row(k, TENANTS, "g", "{\"id\":\"g\",\"v\":1}", 5, "x", 2);
    kit_tombstone(top, 8, "x");
    grand = (schema_fk){.table = SLICE("tenants"), .columns = note_column, .count = 1};
    k->tables[PINS].fks = &grand;
    k->tables[PINS].fk_count = 1;
    k->c.lift_parents = true;
}

static decide_commit adopt(kit *k, int64_t base) {
    wire_op op = kit_op(k, OP_CREATE, "forms", "f", base, "{\"id\":\"f\",\"pin_id\":\"p\"}", NULL);
    return kit_group(k, &op, 1);
}

static bool lives(kit *k, int table, const char *id) {
    const decide_row *row = decide_row_find(&k->c, &k->tables[table], slice_of(id));
    return row && row->row.exists && !row->row.deleted;
}

static void a_new_row_brings_its_parents_back(void **state) {
    (void)state;
    kit k;
    family(&k);
    decide_commit out = adopt(&k, 5);
    assert_true(lives(&k, FORMS, "f") && lives(&k, PINS, "p") && lives(&k, TENANTS, "g"));
    assert_int_equal(out.results[0].outcome, OUTCOME_MERGED);
    assert_int_equal(out.change_count, 3);
    assert_int_equal(out.conflict_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(slice_is(out.conflicts[i].policy, "resurrect_parent"));
        assert_true(slice_is(out.conflicts[i].kind, "delete_update"));
        assert_int_equal(out.conflicts[i].their_commit, 8);
    }
    assert_true(slice_is(out.conflicts[0].entity_id, "p"));
    assert_true(slice_is(out.conflicts[1].entity_id, "g"));
    kit_deinit(&k);
}

/* An edit of a live child lifts what its row refers to, whether or not the edit says it. */
static void an_edit_brings_its_parents_back(void **state) {
    (void)state;
    for (int moves = 0; moves < 2; moves++) {
        kit k;
        family(&k);
        (void)kit_row(&k, FORMS, "f", moves ? "{\"id\":\"f\"}" : "{\"id\":\"f\",\"pin_id\":\"p\"}",
                      4, "x", 3);
        wire_op op = kit_op(&k, OP_UPDATE, "forms", "f", 5,
                            moves ? "{\"pin_id\":\"p\"}" : "{\"body\":\"b\"}", NULL);
        (void)kit_group(&k, &op, 1);
        assert_true(lives(&k, PINS, "p"));
        kit_deinit(&k);
    }
}

/* The foreign key may be the row's own key: one row of a second table for each. */
static void a_key_may_name_the_parent(void **state) {
    (void)state;
    static const int own[] = {0};
    schema_fk fk = pins_of_forms;
    kit k;
    family(&k);
    fk.columns = own;
    k.tables[FORMS].fks = &fk;
    wire_op op = kit_op(&k, OP_CREATE, "forms", "p", 5, "{\"id\":\"p\"}", NULL);
    (void)kit_group(&k, &op, 1);
    assert_true(lives(&k, PINS, "p"));
    kit_deinit(&k);
}

/* newest: COLUMN without a column that is there: the server's row counts. */
static void first_contact_without_a_column_to_compare(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"t\"}", 5, "x", 1);
    k.tables[PINS].initial = INITIAL_NEWEST;
    wire_op op = kit_op(&k, OP_CREATE, "pins", "p", 0, "{\"id\":\"p\",\"title\":\"ours\"}", NULL);
    decide_commit out = kit_group(&k, &op, 1);
    assert_true(value_is(row, "title", "\"t\""));
    assert_true(slice_is(out.conflicts[0].policy, "newest"));
    assert_true(slice_is(out.conflicts[0].winner, "theirs"));
    kit_deinit(&k);
}

static void what_stays_deleted(void **state) {
    (void)state;
    for (int why = 0; why < 6; why++) {
        kit k;
        family(&k);
        decide_row *pin = decide_row_find(&k.c, &k.tables[PINS], SLICE("p"));
        schema_fk foreign = pins_of_forms;
        switch (why) {
        case 0: /* its parents were not loaded */
            k.c.lift_parents = false;
            break;
        case 1: /* deletes win there */
            k.tables[PINS].on_conflicting_delete = DELETE_DELETE_WINS;
            break;
        case 2: /* of a table that is not synced */
            foreign.table = SLICE("nowhere");
            k.tables[FORMS].fks = &foreign;
            break;
        case 3: /* the author's own delete */
            pin->row.del_device = SLICE("dev");
            break;
        case 4: /* it never was */
            pin->row.exists = false;
            break;
        default: /* more columns than any key has */
            foreign.count = KEY_COLUMNS_MAX + 1;
            k.tables[FORMS].fks = &foreign;
            break;
        }
        decide_commit out = adopt(&k, why == 3 ? 8 : 5);
        assert_false(lives(&k, PINS, "p"));
        assert_int_equal(out.conflict_count, 0);
        kit_deinit(&k);
    }
}

/* ---- Held, and refused by the database ---- */

static decide_row *contested(kit *k, schema_column *columns) {
    kit_init(k, 9);
    memcpy(columns, kit_pins, sizeof kit_pins);
    k->tables[PINS].columns = columns;
    decide_row *row = kit_row(k, PINS, "p", "{\"title\":\"t\",\"note\":\"n\"}", 5, "x", 1);
    kit_edit(k, row, "note", "\"theirs\"", 8, 80, "x", 2);
    return row;
}

static void one_held_column_holds_the_group(void **state) {
    (void)state;
    kit k;
    schema_column columns[COUNT_OF(kit_pins)];
    decide_row *row = contested(&k, columns);
    columns[2].policy = POLICY_HOLD;
    wire_op ops[2] = {
        kit_op(&k, OP_CREATE, "pins", "q", 5, "{\"id\":\"q\",\"title\":\"new\"}", NULL),
        kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"title\":\"ours\",\"note\":\"ours\"}",
               "{\"title\":\"t\",\"note\":\"n\"}")};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_CONFLICT);
    assert_int_equal(out.change_count, 0);
    assert_int_equal(out.results[1].code, CODE_HELD);
    assert_true(value_is(row, "title", "\"t\"") && value_is(row, "note", "\"theirs\""));
    assert_false(lives(&k, PINS, "q"));
    assert_int_equal(out.conflict_count, 2);
    assert_true(slice_is(out.conflicts[0].policy, "hold_group"));
    assert_true(slice_is(out.conflicts[0].columns_json, "[\"title\"]"));
    assert_true(slice_is(out.conflicts[1].columns_json, "[\"note\"]"));
    assert_true(slice_is(out.conflicts[1].theirs, "{\"note\":\"theirs\"}"));
    assert_true(slice_is(out.conflicts[1].ours, "{\"note\":\"ours\"}"));
    assert_false(slice_equal(out.conflicts[0].id, out.conflicts[1].id));
    kit_deinit(&k);
}

static decide_commit forced(kit *k, wire_op *ops, size_t count, op_code code, size_t index) {
    const decide_refusal refusal = {.code = code, .detail = SLICE("said so"), .op_index = index};
    decide_commit out;
    for (size_t i = 0; i < count; i++) {
        ops[i].seq = k->device.applied_seq + 1 + (int64_t)i;
        ops[i].group_first = k->device.applied_seq + 1;
        ops[i].group_size = (int64_t)count;
    }
    assert_int_equal(
        decide_group(&k->c, &k->device, &k->request, ops, count, NULL, false, &refusal, &out),
        GODWIT_OK);
    return out;
}

/* Both sides may have been good where only their mixture is refused: people decide. */
static void a_check_that_only_the_mixture_fails(void **state) {
    (void)state;
    kit k;
    schema_column columns[COUNT_OF(kit_pins)];
    (void)contested(&k, columns);
    wire_op op = kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"title\":\"ours\"}", "{\"title\":\"t\"}");
    decide_commit out = forced(&k, &op, 1, CODE_CHECK_FAILED, 7);
    assert_int_equal(out.results[0].outcome, OUTCOME_CONFLICT);
    assert_int_equal(out.results[0].code, CODE_CHECK_FAILED);
    assert_true(slice_is(out.results[0].detail, "said so"));
    assert_true(slice_is(out.conflicts[0].kind, "check"));
    assert_true(slice_is(out.conflicts[0].policy, "manual"));
    kit_deinit(&k);
}

static void a_check_that_the_edit_itself_fails(void **state) {
    (void)state;
    static const struct {
        op_kind kind;
        const char *id, *payload;
        int64_t base;
    } table[] = {{OP_UPDATE, "p", "{\"note\":\"ours\"}", 5},  /* says all that is new */
                 {OP_UPDATE, "p", "{\"title\":\"ours\"}", 8}, /* has seen it */
                 {OP_UPDATE, "d", "{\"title\":\"ours\"}", 5}, /* of a row that is gone */
                 {OP_UPDATE, "n", "{\"title\":\"ours\"}", 5}, /* or never was */
                 {OP_CREATE, "q", "{\"id\":\"q\"}", 5}};
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        kit k;
        schema_column columns[COUNT_OF(kit_pins)];
        (void)contested(&k, columns);
        kit_tombstone(kit_row(&k, PINS, "d", "{\"title\":\"t\"}", 5, "x", 3), 8, "x");
        wire_op op =
            kit_op(&k, table[i].kind, "pins", table[i].id, table[i].base, table[i].payload, NULL);
        decide_commit out = forced(&k, &op, 1, CODE_CHECK_FAILED, 0);
        assert_int_equal(out.results[0].outcome, OUTCOME_REJECTED);
        assert_true(slice_is(out.conflicts[0].policy, "reject"));
        assert_true(slice_is(out.conflicts[0].kind, "check"));
        kit_deinit(&k);
    }
}

static void refusals_name_their_kind(void **state) {
    (void)state;
    static const struct {
        op_code code;
        const char *kind; /* NULL: nothing a person could decide */
    } table[] = {{CODE_UNIQUE_VIOLATION, "unique"}, {CODE_FK_VIOLATION, "fk"},
                 {CODE_NOT_NULL, "check"},          {CODE_CHECK_FAILED, "check"},
                 {CODE_VALIDATION, NULL},           {CODE_HOOK_FAILED, NULL}};
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        kit k;
        kit_init(&k, 9);
        wire_op ops[2] = {kit_op(&k, OP_CREATE, "pins", "a", 5, "{\"id\":\"a\"}", NULL),
                          kit_op(&k, OP_CREATE, "pins", "b", 5, "{\"id\":\"b\"}", NULL)};
        decide_commit out = forced(&k, ops, 2, table[i].code, 1);
        assert_int_equal(out.results[1].code, table[i].code);
        assert_int_equal(out.results[0].code, CODE_DEPENDENCY_FAILED);
        assert_int_equal(out.conflict_count, table[i].kind != NULL);
        if (table[i].kind) {
            assert_true(slice_is(out.conflicts[0].kind, table[i].kind));
            assert_true(slice_is(out.conflicts[0].entity_id, "b"));
        }
        kit_deinit(&k);
    }
}

/* ---- Names that were, and values of the scope ---- */

static void former_and_dropped_names(void **state) {
    (void)state;
    static const slice former[] = {{"heading", 7}, {"head", 4}}, dropped[] = {{"colour", 6}};
    kit k;
    schema_column columns[COUNT_OF(kit_pins)];
    decide_row *row = contested(&k, columns);
    columns[1].former = former;
    columns[1].former_count = 2;
    k.tables[PINS].dropped = dropped;
    k.tables[PINS].dropped_count = 1;
    wire_op op = kit_op(&k, OP_UPDATE, "pins", "p", 9, "{\"colour\":\"red\",\"head\":\"old name\"}",
                        "{\"head\":\"t\"}");
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.results[0].outcome, OUTCOME_APPLIED);
    assert_true(value_is(row, "title", "\"old name\""));
    op = kit_op(&k, OP_UPDATE, "pins", "p", 10, "{\"heading\":\"old\",\"title\":\"new\"}", NULL);
    (void)kit_group(&k, &op, 1);
    assert_true(value_is(row, "title", "\"new\"")); /* the newest name counts */
    op = kit_op(&k, OP_UPDATE, "pins", "p", 11, "{\"colours\":1}", NULL);
    assert_int_equal(kit_group(&k, &op, 1).results[0].code, CODE_UNKNOWN_COLUMN);
    op.untranslated = "it can't be brought to the present schema";
    out = kit_group(&k, &op, 1);
    assert_int_equal(out.results[0].code, CODE_INVALID_VALUE);
    assert_true(slice_is(out.results[0].detail, op.untranslated));
    kit_deinit(&k);
}

static void more_members_than_columns(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 1);
    wire_op op = kit_op(&k, OP_CREATE, "forms", "f", 0,
                        "{\"id\":\"f\",\"pin_id\":1,\"body\":2,\"more\":3,\"most\":4}", NULL);
    assert_int_equal(kit_group(&k, &op, 1).results[0].code, CODE_UNKNOWN_COLUMN);
    kit_deinit(&k);
}

static void a_scope_may_be_a_number(void **state) {
    (void)state;
    static const struct {
        const char *scope, *payload;
        bool good;
    } table[] = {
        {"12", "{\"tenant\":12}", true},
        {"-12", "{\"tenant\":-12}", true},
        {"12", "{\"tenant\":13}", false},
        {"12", "{\"tenant\":12.0}", false},
        {"12", "{\"tenant\":null}", false},
        {"12x", "{\"tenant\":12}", false},
        {"x", "{\"tenant\":12}", false},
        {"-", "{\"tenant\":0}", false},
        {"", "{\"tenant\":0}", false},
        {"9223372036854775808", "{\"tenant\":0}", false},
        {"99999999999999999999", "{\"tenant\":0}", false},
        {"-9223372036854775808", "{\"tenant\":{\"$i64\":\"-9223372036854775808\"}}", true}};
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        kit k;
        kit_init(&k, 1);
        k.c.scope = slice_of(table[i].scope);
        wire_op op = kit_op(&k, OP_CREATE, "tenants", "t", 0, table[i].payload, NULL);
        op_code code = kit_group(&k, &op, 1).results[0].code;
        if (code != (table[i].good ? CODE_NONE : CODE_FORBIDDEN)) {
            fail_msg("%s and %s: %d", table[i].scope, table[i].payload, code);
        }
        kit_deinit(&k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parent_is_named_by_its_key),
        cmocka_unit_test(a_new_row_brings_its_parents_back),
        cmocka_unit_test(an_edit_brings_its_parents_back),
        cmocka_unit_test(a_key_may_name_the_parent),
        cmocka_unit_test(first_contact_without_a_column_to_compare),
        cmocka_unit_test(what_stays_deleted),
        cmocka_unit_test(one_held_column_holds_the_group),
        cmocka_unit_test(a_check_that_only_the_mixture_fails),
        cmocka_unit_test(a_check_that_the_edit_itself_fails),
        cmocka_unit_test(refusals_name_their_kind),
        cmocka_unit_test(former_and_dropped_names),
        cmocka_unit_test(more_members_than_columns),
        cmocka_unit_test(a_scope_may_be_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
