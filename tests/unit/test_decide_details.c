/* What accompanies a decision: records to the letter, which policy a unit of several columns has,
 * who comes back with whom and in which order, facts from outside, and the bounds of rows and keys.
 */
#include "decide_kit.h"

static decide_commit force(kit *k, wire_op *ops, size_t count, decide_refusal refusal) {
    decide_commit out;
    for (size_t i = 0; i < count; i++) {
        ops[i].seq = (int64_t)i + 1;
    }
    assert_int_equal(
        decide_group(&k->c, &k->device, &k->request, ops, count, NULL, false, &refusal, &out),
        GODWIT_OK);
    return out;
}

/* ---- records ---- */

static void a_refusal_of_the_database_keeps_the_operation(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[2] = {
        kit_op(&k, OP_CREATE, "pins", "q", 9, "{\"title\":\"B\"}", NULL),
        kit_op(&k, OP_UPDATE, "pins", "p", 9, "{\"title\":\"B\",\"note\":1}", "{\"title\":\"A\"}")};
    decide_commit out =
        force(&k, ops, 2, (decide_refusal){.code = CODE_UNIQUE_VIOLATION, .op_index = 1});
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].kind, "unique"));
    assert_true(slice_is(out.conflicts[0].policy, "reject"));
    assert_true(slice_is(out.conflicts[0].columns_json, "[\"title\",\"note\"]"));
    assert_true(slice_is(out.conflicts[0].base, "{\"title\":\"A\"}"));
    assert_true(slice_is(out.conflicts[0].ours, "{\"title\":\"B\",\"note\":1}"));
    assert_true(slice_is(out.conflicts[0].their_clock, "{\"$\":0,\"x\":1}"));
    assert_int_equal(out.results[0].conflicts_json.len, 0);
    assert_true(slice_is(out.results[1].conflicts_json, "[\"c-10-0-0000000000000000\"]"));
    kit_deinit(&k);
}

static void a_record_of_no_row_has_no_clock(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op op = kit_op(&k, OP_UPDATE, "pins", "none", 5, "{\"title\":\"B\"}", NULL);
    op.base_salt++;
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.conflict_count, 1);
    assert_int_equal(out.conflicts[0].their_clock.len, 0);
    kit_deinit(&k);
}

static void every_record_of_many_is_kept(void **state) {
    (void)state;
    enum { MANY = 11 };
    kit k;
    kit_init(&k, 9);
    wire_op ops[MANY];
    for (size_t i = 0; i < MANY; i++) {
        const char *id = arena_printf(&k.a, "p%02zu", i);
        decide_row *row = kit_row(&k, PINS, id, "{\"title\":\"A\"}", 2, "x", 1);
        kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
        ops[i] = kit_op(&k, OP_UPDATE, "pins", id, 5, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
    }
    decide_commit out = kit_group(&k, ops, MANY);
    assert_int_equal(out.conflict_count, MANY);
    for (size_t i = 0; i < MANY; i++) {
        assert_ptr_equal(out.conflicts[i].op, &ops[i]);
        assert_true(slice_is(out.conflicts[i].kind, "field"));
        assert_int_equal(out.conflicts[i].their_commit, 7);
        assert_int_equal(out.conflicts[i].our_base, 5);
        assert_true(slice_is(out.conflicts[i].their_clock, "{\"$\":0,\"x\":1}"));
    }
    kit_deinit(&k);
}

/* ---- units ---- */

/* Of members with different policies the most careful one counts, whichever comes first; where none
 * is more than a rule for one column, the order of writes decides. */
static void the_most_careful_policy_of_a_unit_counts(void **state) {
    (void)state;
    static const merge_policy rising[] = {POLICY_LWW,    POLICY_CLIENT_WINS, POLICY_SERVER_WINS,
                                          POLICY_CUSTOM, POLICY_MANUAL,      POLICY_HOLD};
    static const merge_policy plain[] = {POLICY_MAX, POLICY_MIN, POLICY_COUNTER};
    schema_column columns[COUNT_OF(kit_pins)];
    for (size_t i = 0; i < COUNT_OF(rising) + COUNT_OF(plain); i++) {
        for (size_t j = 0; j < COUNT_OF(rising) + COUNT_OF(plain); j++) {
            size_t a = i < COUNT_OF(rising) ? i : 0, b = j < COUNT_OF(rising) ? j : 0;
            kit k;
            kit_init(&k, 9);
            memcpy(columns, kit_pins, sizeof kit_pins);
            columns[3].policy = i < COUNT_OF(rising) ? rising[i] : plain[i - COUNT_OF(rising)];
            columns[4].policy = j < COUNT_OF(rising) ? rising[j] : plain[j - COUNT_OF(rising)];
            k.tables[PINS].columns = columns;
            decide_row *row = kit_row(&k, PINS, "p", "{\"lat\":1,\"lng\":1}", 2, "x", 1);
            kit_edit(&k, row, "lat", "2", 7, 70, "x", 2);
            kit_edit(&k, row, "lng", "2", 7, 70, "x", 2);
            wire_op op = kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"lat\":3,\"lng\":3}",
                                "{\"lat\":1,\"lng\":1}");
            decide_commit out = kit_group(&k, &op, 1);
            const char *expected = merge_policy_name(rising[a > b ? a : b]);
            assert_int_equal(out.conflict_count, 1);
            assert_true(slice_is(out.conflicts[0].policy, expected));
            assert_true(slice_is(out.conflicts[0].columns_json, "[\"lat\",\"lng\"]"));
            kit_deinit(&k);
        }
    }
}

/* A member that the operation leaves alone and nobody has edited is no part of the contest, but its
 * theirs and its old value are what is there. */
static void a_unit_takes_what_nobody_contests_as_it_is(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"lat\":1,\"lng\":5}", 2, "x", 1);
    kit_edit(&k, row, "lat", "2", 7, KIT_NOW, "x", 2);
    wire_op op = kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"lat\":3}", "{\"lat\":1}");
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].winner, "theirs"));
    assert_true(slice_is(out.conflicts[0].columns_json, "[\"lat\"]"));
    assert_int_equal(out.conflicts[0].their_commit, 7);
    assert_true(value_is(row, "lat", "2") && value_is(row, "lng", "5"));
    op = kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"lat\":1,\"lng\":6}", "{\"lat\":2,\"lng\":5}");
    out = kit_group(&k, &op, 1); /* lat is back where its author began: nothing is lost */
    assert_int_equal(out.conflict_count, 0);
    assert_true(value_is(row, "lat", "1") && value_is(row, "lng", "6"));
    kit_deinit(&k);
}

/* ---- rows that come back ---- */

static schema_fk tenants_fk[] = {
    {.table = {"pins", 4}, .columns = kit_fk_columns, .ref_columns = kit_fk_refs, .count = 1}};

static decide_row *fallen(kit *k, int table, const char *id, const char *parent, int64_t ver) {
    const char *column = table == FORMS ? "pin_id" : "tenant";
    decide_row *row = kit_row(
        k, table, id, arena_printf(&k->a, "{\"id\":\"%s\",\"%s\":\"%s\"}", id, column, parent), 3,
        "x", 1);
    kit_tombstone(row, ver, "x");
    return row;
}

/* 7.3: with a row comes back what the same commit deleted and refers to it, by table and id. */
static void a_family_comes_back_in_order(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    k.tables[TENANTS].scope_column = -1;
    k.tables[TENANTS].fks = tenants_fk;
    k.tables[TENANTS].fk_count = 1;
    kit_tombstone(kit_row(&k, PINS, "p", "{\"id\":\"p\"}", 3, "x", 1), 8, "x");
    decide_row *back[6], *stay[3];
    static const char *const ids[] = {"f5", "f2", "f9", "f1"}, *const order[] = {"f1", "f2", "f5",
                                                                                 "f9", "a",  "b"};
    back[0] = fallen(&k, TENANTS, "b", "p", 8);
    back[1] = fallen(&k, TENANTS, "a", "p", 8);
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        back[2 + i] = fallen(&k, FORMS, ids[i], "p", 8);
    }
    stay[0] = fallen(&k, FORMS, "g", "p", 7);     /* deleted by another commit */
    stay[1] = fallen(&k, FORMS, "h", "other", 8); /* of another family */
    stay[2] = fallen(&k, FORMS, "f3", "p", 8);    /* the author deletes it himself */
    wire_op ops[2] = {kit_op(&k, OP_UPDATE, "pins", "p", 5, "{\"title\":\"B\"}", NULL),
                      kit_op(&k, OP_DELETE, "forms", "f3", 5, NULL, NULL)};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.conflict_count, 7);
    assert_int_equal(out.change_count, 7);
    for (size_t i = 0; i < 6; i++) {
        const decide_conflict *c = &out.conflicts[i];
        assert_true(slice_is(c->entity_id, order[i]));
        assert_ptr_equal(c->table, &k.tables[i < 4 ? FORMS : TENANTS]);
        assert_true(slice_is(c->kind, "delete_update"));
        assert_int_equal(c->their_commit, 8);
        assert_true(slice_equal(c->ours, c->chosen));
        assert_true(i != 0 || slice_is(c->ours, "{\"id\":\"f1\",\"pin_id\":\"p\",\"body\":null}"));
        assert_true(slice_is(out.changes[1 + i].row->id, order[i]));
        assert_true(out.changes[1 + i].full && !out.changes[1 + i].is_delete);
        for (size_t column = 0; column < 3; column++) {
            assert_true(out.changes[1 + i].given[column]);
        }
        assert_false(back[i]->row.deleted);
        assert_int_equal(back[i]->row.del_ver, 0);
        assert_int_equal(back[i]->row.del_device.len, 0);
        assert_int_equal(back[i]->row.ver, 10);
    }
    for (size_t i = 0; i < COUNT_OF(stay); i++) {
        assert_true(stay[i]->row.deleted);
    }
    kit_deinit(&k);
}

/* ---- facts ---- */

static void a_fact_is_taken_as_it_is(void **state) {
    (void)state;
    static schema_column columns[] = {{.name = {"a", 1}},
                                      {.name = {"own", 3}, .local = true},
                                      {.name = {"id", 2}, .is_key = true}};
    kit k;
    kit_init(&k, 4);
    kit_table(&k, TENANTS, "odd", columns, COUNT_OF(columns));
    k.tables[TENANTS].key[0] = 2;
    decide_row *row = kit_row(&k, TENANTS, "o", "{\"a\":1,\"id\":\"o\"}", 2, "dev", 1);
    value after[] = {{.type = VALUE_INT, .u.i = 5},
                     {.type = VALUE_INT, .u.i = 6},
                     {.type = VALUE_TEXT, .u.s = SLICE("o")}};
    bool changed[] = {true, true, true};
    decide_fact fact = {.row = row, .columns = changed, .values = after};
    decide_commit out;
    assert_int_equal(decide_facts(&k.c, &fact, 1, 500, &out), GODWIT_OK);
    assert_int_equal(out.change_count, 1);
    assert_true(out.changes[0].columns[0]);
    assert_false(out.changes[0].columns[1] || out.changes[0].columns[2]);
    assert_true(value_is(row, "a", "5") && value_is(row, "own", "6"));
    assert_int_equal(row->row.meta[0].ver, 5);
    assert_int_equal(row->row.meta[1].ver, 0);
    assert_int_equal(row->row.meta[2].ver, 0);
    fact.is_delete = true; /* what it was when it went is the salvage image */
    after[0].u.i = 7;
    assert_int_equal(decide_facts(&k.c, &fact, 1, 500, &out), GODWIT_OK);
    assert_true(row->row.deleted && value_is(row, "a", "7"));
    assert_int_equal(row->row.del_ver, 6);
    assert_int_equal(decide_facts(&k.c, &fact, 1, 500, &out), GODWIT_OK);
    assert_int_equal(out.change_count, 0); /* gone already */
    fact.is_delete = false;
    after[0].u.i = 8;
    assert_int_equal(decide_facts(&k.c, &fact, 1, 500, &out), GODWIT_OK);
    assert_true(!row->row.deleted && value_is(row, "a", "8") && value_is(row, "own", "6"));
    assert_true(out.changes[0].full);
    assert_int_equal(row->row.del_ver, 0);
    assert_int_equal(row->row.gen, 2);
    kit_deinit(&k);
}

/* ---- bounds ---- */

/* All texts of the row together, to the byte. */
static void a_row_is_as_large_as_its_limit(void **state) {
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        for (int text = 0; text < 2; text++) {
            kit k;
            kit_init(&k, 9);
            decide_row *row = kit_row(&k, PINS, "p", "{\"id\":\"p\"}", 2, "x", 1);
            char *long_text = arena_alloc(&k.a, ROW_BYTES_MAX);
            row->row.values[2] = (value){.type = text ? VALUE_TEXT : VALUE_BLOB,
                                         .u.s = {long_text, (size_t)ROW_BYTES_MAX - 3 + over}};
            wire_op op =
                kit_op(&k, OP_UPDATE, "pins", "p", 9, "{\"title\":\"ab\",\"lat\":7}", NULL);
            decide_commit out = kit_group(&k, &op, 1);
            assert_int_equal(out.outcome, over ? OUTCOME_REJECTED : OUTCOME_APPLIED);
            assert_int_equal(out.results[0].code, over ? CODE_TOO_LARGE : CODE_NONE);
            kit_deinit(&k);
        }
    }
}

static void integer_keys_are_decimal_numbers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t number;
    } rows[] = {
        {"0", true, 0},
        {"9", true, 9},
        {"-1", true, -1},
        {"109", true, 109},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"92233720368547758070", false, 0},
        {"99999999999999999999", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"1:", false, 0},
        {"1/", false, 0},
        {"a", false, 0},
        {"1a", false, 0},
        {"+1", false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit k;
        kit_init(&k, 9);
        const char *id = arena_printf(&k.a, "[\"%s\",\"y\"]", rows[i].text);
        wire_op op = kit_op(&k, OP_CREATE, "cells", id, 9, "{\"v\":1}", NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(out.results[0].code, rows[i].good ? CODE_NONE : CODE_INVALID_VALUE);
        if (rows[i].good) {
            assert_int_equal(out.results[0].row->row.values[0].u.i, rows[i].number);
        }
        kit_deinit(&k);
    }
}

/* Payloads may name columns in any order, and each is found. */
static void columns_are_found_in_any_order(void **state) {
    (void)state;
    static const char *const payloads[] = {"{\"title\":1,\"note\":2,\"lat\":3,\"count\":4}",
                                           "{\"count\":4,\"lat\":3,\"note\":2,\"title\":1}",
                                           "{\"note\":2,\"title\":1,\"count\":4,\"lat\":3}"};
    for (size_t i = 0; i < COUNT_OF(payloads); i++) {
        kit k;
        kit_init(&k, 9);
        wire_op op = kit_op(&k, OP_CREATE, "pins", "p", 9, payloads[i], NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(out.outcome, OUTCOME_APPLIED);
        assert_true(value_is(out.changes[0].row, "title", "1"));
        assert_true(value_is(out.changes[0].row, "note", "2"));
        assert_true(value_is(out.changes[0].row, "lat", "3"));
        for (size_t c = 0; c < COUNT_OF(kit_pins); c++) {
            assert_int_equal(out.changes[0].given[c], c <= 3 || c == COUNT_OF(kit_pins) - 2);
        }
        kit_deinit(&k);
    }
}

/* A scope column is filled for who does not name it, also where it is the first of all. */
static void a_scope_is_filled_in(void **state) {
    (void)state;
    static schema_column columns[] = {{.name = {"tenant", 6}}, {.name = {"id", 2}, .is_key = true}};
    for (int named = 0; named < 2; named++) {
        kit k;
        kit_init(&k, 9);
        kit_table(&k, TENANTS, "odd", columns, COUNT_OF(columns));
        k.tables[TENANTS].key[0] = 1;
        k.tables[TENANTS].scope_column = 0;
        wire_op op =
            kit_op(&k, OP_CREATE, "odd", "o", 9, named ? "{\"tenant\":\"s1\"}" : "{}", NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(out.outcome, OUTCOME_APPLIED);
        assert_true(value_is(out.changes[0].row, "tenant", "\"s1\""));
        assert_true(value_is(out.changes[0].row, "id", "\"o\""));
        assert_true(out.changes[0].given[0]);
        kit_deinit(&k);
    }
}

/* A row is found by its id alone, whatever lies behind the text. */
static void a_row_is_found_by_the_text_of_its_id(void **state) {
    (void)state;
    static const char one[] = "abcdefghijklmnopqrstuvwxyz", other[] = "abcdefghijklmnopqrstuvwxy#";
    for (size_t len = 1; len < 26; len++) {
        kit k;
        kit_init(&k, 9);
        char *tail = arena_alloc(&k.a, 64);
        memcpy(tail, len % 2 ? one : other, len);
        memset(tail + len, '#', 32);
        decide_row *row = decide_row_of(&k.c, &k.tables[PINS], (slice){one, len});
        assert_ptr_equal(decide_row_of(&k.c, &k.tables[PINS], (slice){tail, len}), row);
        assert_ptr_equal(decide_row_find(&k.c, &k.tables[PINS], (slice){other, len}), row);
        assert_null(decide_row_find(&k.c, &k.tables[PINS], (slice){one, len - 1}));
        kit_deinit(&k);
    }
}

/* The table of an operation is its own, also where the one before named another or it names none.
 */
static void a_table_is_named_by_each_operation(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op ops[2] = {kit_op(&k, OP_CREATE, "pins", "p", 9, "{}", NULL),
                      kit_op(&k, OP_CREATE, "", "q", 9, "{}", NULL)};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    assert_int_equal(out.results[1].code, CODE_UNKNOWN_ENTITY);
    kit_deinit(&k);
}

/* A delete unit is one in whichever order the group deletes it, and ends with it. */
static void a_family_is_deleted_in_any_order(void **state) {
    (void)state;
    static const struct {
        const char *table, *id;
    } parts[] = {{"pins", "p"}, {"forms", "f"}, {"forms", "g"}, {"pins", "q"}, {"forms", "none"}};
    for (size_t first = 0; first < COUNT_OF(parts); first++) {
        kit k;
        kit_init(&k, 9);
        decide_row *p = kit_row(&k, PINS, "p", "{\"id\":\"p\"}", 2, "x", 1);
        decide_row *q = kit_row(&k, PINS, "q", "{\"id\":\"q\"}", 2, "x", 2);
        decide_row *f = kit_row(&k, FORMS, "f", "{\"id\":\"f\",\"pin_id\":\"p\"}", 2, "x", 3);
        decide_row *g = kit_row(&k, FORMS, "g", "{\"id\":\"g\",\"pin_id\":\"q\"}", 2, "x", 4);
        kit_edit(&k, f, "body", "\"new\"", 7, 70, "y", 1);
        wire_op ops[COUNT_OF(parts) + 1];
        for (size_t i = 0; i < COUNT_OF(parts); i++) {
            size_t at = (first + i) % COUNT_OF(parts);
            ops[i] = kit_op(&k, OP_DELETE, parts[at].table, parts[at].id, 4, NULL, NULL);
        }
        ops[COUNT_OF(parts)] = kit_op(&k, OP_UPDATE, "pins", "p", 9, "{\"note\":1}", NULL);
        decide_commit out = kit_group(&k, ops, COUNT_OF(parts) + 1);
        assert_false(p->row.deleted || f->row.deleted);
        assert_true(q->row.deleted && g->row.deleted);
        assert_int_equal(out.conflict_count, 2);
        kit_deinit(&k);
    }
}

/* A number names a scope only where the scope is that number in decimal. */
static void a_number_names_a_scope_in_decimal(void **state) {
    (void)state;
    static schema_column columns[] = {{.name = {"tenant", 6}}, {.name = {"id", 2}, .is_key = true}};
    static const struct {
        const char *scope, *payload;
        bool good;
    } rows[] = {{"20", "{\"tenant\":20}", true}, {"1:", "{\"tenant\":20}", false},
                {"1/", "{\"tenant\":9}", false}, {"-5", "{\"tenant\":-5}", true},
                {"7", "{\"tenant\":7}", true},   {"", "{\"tenant\":0}", false},
                {"-", "{\"tenant\":0}", false},  {"7a", "{\"tenant\":7}", false}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit k;
        kit_init(&k, 9);
        kit_table(&k, TENANTS, "odd", columns, COUNT_OF(columns));
        k.tables[TENANTS].key[0] = 1;
        k.tables[TENANTS].scope_column = 0;
        k.c.scope = slice_of(rows[i].scope);
        wire_op op = kit_op(&k, OP_CREATE, "odd", "o", 9, rows[i].payload, NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(out.results[0].code, rows[i].good ? CODE_NONE : CODE_FORBIDDEN);
        kit_deinit(&k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_of_the_database_keeps_the_operation),
        cmocka_unit_test(a_record_of_no_row_has_no_clock),
        cmocka_unit_test(every_record_of_many_is_kept),
        cmocka_unit_test(the_most_careful_policy_of_a_unit_counts),
        cmocka_unit_test(a_unit_takes_what_nobody_contests_as_it_is),
        cmocka_unit_test(a_family_comes_back_in_order),
        cmocka_unit_test(a_fact_is_taken_as_it_is),
        cmocka_unit_test(a_row_is_as_large_as_its_limit),
        cmocka_unit_test(integer_keys_are_decimal_numbers),
        cmocka_unit_test(columns_are_found_in_any_order),
        cmocka_unit_test(a_scope_is_filled_in),
        cmocka_unit_test(a_number_names_a_scope_in_decimal),
        cmocka_unit_test(a_row_is_found_by_the_text_of_its_id),
        cmocka_unit_test(a_table_is_named_by_each_operation),
        cmocka_unit_test(a_family_is_deleted_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
