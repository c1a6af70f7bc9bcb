/* Memory that runs out at any place of a decision: NOMEM and nothing decided, or all of it.
 * Scenes that need many records: conflicts of each kind, families, sets, rules, refusals. */
#include "unit.h"

#include "decide_kit.h"

typedef struct scene {
    void (*make)(kit *k, struct scene *s); /* rows and operations */
    wire_op ops[4];
    size_t count;
    schema_column columns[COUNT_OF(kit_pins)];
    schema_fk fk; /* pins.note -> files.name, its key */
    ask_list asks;
    const decide_refusal *forced;
    size_t conflicts; /* of the decision that is expected */
    op_outcome outcome;
} scene;

static const int note_column[] = {2};
static const slice name_column[] = {{"h", 1}};

static godwit_status decide_scene(arena *a, void *context) {
    scene *s = context;
    kit k;
    decide_commit out;
    kit_init(&k, 9);
    memcpy(s->columns, kit_pins, sizeof kit_pins);
    k.tables[PINS].columns = s->columns;
    s->asks = (ask_list){.a = a};
    s->make(&k, s);
    for (size_t i = 0; i < s->count; i++) {
        s->ops[i].seq = (int64_t)i + 1;
        s->ops[i].group_first = 1;
        s->ops[i].group_size = (int64_t)s->count;
    }
    k.c.a = a;
    godwit_status status =
        decide_group(&k.c, &k.device, &k.request, s->ops, s->count, NULL, false, s->forced, &out);
    if (status == GODWIT_OK) {
        assert_int_equal(out.outcome, s->outcome);
        assert_int_equal(out.conflict_count, s->conflicts);
        assert_int_equal(k.c.head, 10);
    } else {
        assert_null(out.results);
        assert_int_equal(k.c.head, 9);
        assert_int_equal(k.device.applied_seq, 0);
    }
    k.c.a = &k.a;
    kit_deinit(&k);
    return status;
}

/* Somebody else has written everything in commit 8. */
static decide_row *contested(kit *k) {
    decide_row *row = kit_row(k, PINS, "p",
                              "{\"title\":\"t\",\"note\":\"n\",\"lat\":1,\"lng\":2,\"checked\":0,"
                              "\"labels\":\"[\\\"a\\\"]\",\"count\":1}",
                              5, "x", 1);
    kit_edit(k, row, "title", "\"their title\"", 8, 80, "x", 2);
    kit_edit(k, row, "note", "\"their note\"", 8, 80, "x", 2);
    kit_edit(k, row, "lat", "7", 8, 80, "x", 2);
    kit_edit(k, row, "checked", "1", 8, 80, "x", 2);
    kit_edit(k, row, "labels", "\"[\\\"a\\\",\\\"b\\\"]\"", 8, 80, "x", 2);
    kit_edit(k, row, "high", "9", 8, 80, "x", 2);
    return row;
}

static void edit_all(kit *k, scene *s) {
    (void)contested(k);
    s->ops[0] = kit_op(k, OP_UPDATE, "pins", "p", 5,
                       "{\"title\":\"ours\",\"note\":\"ours\",\"lat\":3,\"lng\":4,\"checked\":2,"
                       "\"labels\":{\"$add\":[\"c\"]},\"count\":{\"$inc\":2}}",
                       "{\"title\":\"t\",\"note\":\"n\",\"lat\":1,\"lng\":2,\"checked\":0}");
    s->count = 1;
}

static void conflicts_of_columns(void **state) {
    (void)state;
    scene s = {.make = edit_all, .conflicts = 4, .outcome = OUTCOME_CONFLICT};
    unit_starve(decide_scene, &s);
}

static void held(kit *k, scene *s) {
    edit_all(k, s);
    s->columns[2].policy = POLICY_HOLD;
    s->ops[1] = kit_op(k, OP_CREATE, "pins", "q", 0, "{\"id\":\"q\",\"title\":\"new\"}", NULL);
    s->count = 2;
}

static void groups_that_are_held(void **state) {
    (void)state;
    scene s = {.make = held, .conflicts = 2, .outcome = OUTCOME_CONFLICT};
    unit_starve(decide_scene, &s);
}

static void asked(kit *k, scene *s) {
    edit_all(k, s);
    s->columns[2].policy = POLICY_CUSTOM;
    s->columns[2].rule = SLICE("lines");
    k->c.asks = &s->asks;
}

static void asked_without_a_base(kit *k, scene *s) {
    asked(k, s);
    s->columns[2].rule = (slice){0};
    s->ops[0] = kit_op(k, OP_UPDATE, "pins", "p", 5, "{\"note\":\"ours\"}", NULL);
}

static void questions_of_rules(void **state) {
    (void)state;
    scene bare = {.make = asked_without_a_base, .conflicts = 1, .outcome = OUTCOME_CONFLICT};
    unit_starve(decide_scene, &bare);
    scene s = {.make = asked, .conflicts = 4, .outcome = OUTCOME_CONFLICT};
    unit_starve(decide_scene, &s);
}

static void gone(kit *k, scene *s) {
    decide_row *row = kit_row(k, PINS, "p", "{\"title\":\"t\"}", 5, "x", 1);
    kit_tombstone(row, 8, "x");
    decide_row *child = kit_row(k, FORMS, "f", "{\"id\":\"f\",\"pin_id\":\"p\"}", 5, "x", 2);
    kit_tombstone(child, 8, "x");
    row->row.values[0] = kit_value(k, "\"p\"");
    s->ops[0] = kit_op(k, OP_UPDATE, "pins", "p", 5, "{\"title\":\"ours\"}", "{\"title\":\"t\"}");
    s->count = 1;
}

static void rows_that_come_back(void **state) {
    (void)state;
    scene s = {.make = gone, .conflicts = 2, .outcome = OUTCOME_MERGED};
    unit_starve(decide_scene, &s);
}

static void orphan(kit *k, scene *s) {
    decide_row *row = kit_row(k, PINS, "p", "{\"id\":\"p\",\"title\":\"t\"}", 5, "x", 1);
    kit_tombstone(row, 8, "x");
    row->row.values[2] = (value){.type = VALUE_BLOB, .u.s = SLICE("ab")};
    decide_row *file = kit_row(k, FILES, "6162", "{\"name\":\"f\"}", 5, "x", 2);
    file->row.values[0] = row->row.values[2];
    kit_tombstone(file, 8, "x");
    s->fk = (schema_fk){
        .table = SLICE("files"), .columns = note_column, .ref_columns = name_column, .count = 1};
    k->tables[PINS].fks = &s->fk;
    k->tables[PINS].fk_count = 1;
    k->c.lift_parents = true;
    s->ops[0] = kit_op(k, OP_CREATE, "forms", "f", 5, "{\"id\":\"f\",\"pin_id\":\"p\"}", NULL);
    s->count = 1;
}

static void parents_that_come_back(void **state) {
    (void)state;
    scene s = {.make = orphan, .conflicts = 2, .outcome = OUTCOME_MERGED};
    unit_starve(decide_scene, &s);
}

static void gone_for_good(kit *k, scene *s) {
    gone(k, s);
    k->tables[PINS].on_conflicting_delete = DELETE_DELETE_WINS;
}

static void edits_of_what_is_gone(void **state) {
    (void)state;
    scene s = {.make = gone_for_good, .conflicts = 1, .outcome = OUTCOME_MERGED};
    unit_starve(decide_scene, &s);
}

static void goes(kit *k, scene *s) {
    (void)kit_row(k, FORMS, "f", "{\"id\":\"f\"}", 5, "dev", 2);
    s->ops[0] = kit_op(k, OP_DELETE, "forms", "f", 5, NULL, NULL);
    s->count = 1;
}

static void plain_deletes(void **state) {
    (void)state;
    scene s = {.make = goes, .outcome = OUTCOME_APPLIED};
    unit_starve(decide_scene, &s);
}

static void deletes(kit *k, scene *s) {
    (void)contested(k);
    (void)kit_row(k, FORMS, "f", "{\"id\":\"f\",\"pin_id\":\"p\"}", 5, "dev", 2);
    decide_row_find(&k->c, &k->tables[PINS], SLICE("p"))->row.values[0] = kit_value(k, "\"p\"");
    s->ops[0] = kit_op(k, OP_DELETE, "forms", "f", 5, NULL, NULL);
    s->ops[1] = kit_op(k, OP_DELETE, "pins", "p", 5, NULL, "{\"title\":\"t\"}");
    s->count = 2;
}

static void deletes_that_stand_together(void **state) {
    (void)state;
    scene s = {.make = deletes, .conflicts = 2, .outcome = OUTCOME_MERGED};
    unit_starve(decide_scene, &s);
}

static void refusals_of_the_database(void **state) {
    (void)state;
    static const decide_refusal refusals[] = {{CODE_CHECK_FAILED, {"check", 5}, 0},
                                              {CODE_FK_VIOLATION, {"fk", 2}, 0}};
    scene s = {.make = edit_all, .conflicts = 1};
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        s.forced = &refusals[i];
        s.outcome = i ? OUTCOME_REJECTED : OUTCOME_CONFLICT;
        unit_starve(decide_scene, &s);
    }
}

/* A key of bytes, one of two parts, and names that decide_end puts into its detail. */
static void odd_keys(kit *k, scene *s) {
    s->ops[0] = kit_op(k, OP_CREATE, "files", "6162", 0, "{\"name\":\"f\"}", NULL);
    s->ops[1] = kit_op(k, OP_CREATE, "cells", "[\"1\",\"b\"]", 0, "{\"v\":1}", NULL);
    s->ops[2] = kit_op(k, OP_CREATE, "tenants", "t", 0, "{\"v\":1}", NULL);
    s->count = 3;
}

static void misnamed(kit *k, scene *s) {
    odd_keys(k, s);
    s->ops[2] = kit_op(k, OP_CREATE, "tenants", "t", 0, "{\"vv\":1}", NULL);
}

static void keys_of_every_kind(void **state) {
    (void)state;
    scene s = {.make = odd_keys, .outcome = OUTCOME_APPLIED};
    unit_starve(decide_scene, &s);
    scene bad = {.make = misnamed, .outcome = OUTCOME_REJECTED};
    unit_starve(decide_scene, &bad);
}

/* A clock with more entries than a row may keep is shortened. */
static void crowded(kit *k, scene *s) {
    static char names[CLOCK_ENTRIES_MAX][8];
    decide_row *row = contested(k);
    for (int i = 0; i < CLOCK_ENTRIES_MAX; i++) {
        (void)snprintf(names[i], sizeof names[i], "e%d", i);
        assert_int_equal(clock_set(&k->a, &row->clock, slice_of(names[i]), i + 1), GODWIT_OK);
    }
    kit_edit(k, row, "lat", "8", 8, 80, "e3", 4); /* its place in the log is known */
    s->ops[0] = kit_op(k, OP_UPDATE, "pins", "p", 9, "{\"title\":\"ours\"}", NULL);
    s->count = 1;
}

static void clocks_that_are_full(void **state) {
    (void)state;
    scene s = {.make = crowded, .outcome = OUTCOME_APPLIED};
    unit_starve(decide_scene, &s);
}

static godwit_status take_facts(arena *a, void *context) {
    (void)context;
    kit k;
    decide_commit out;
    kit_init(&k, 9);
    decide_row *row = contested(&k);
    decide_row *fresh = decide_row_of(&k.c, &k.tables[PINS], SLICE("q"));
    bool columns[COUNT_OF(kit_pins)] = {false, true, true};
    value values[COUNT_OF(kit_pins)] = {{.type = VALUE_NULL}};
    const decide_fact facts[] = {{.row = row, .columns = columns, .values = values},
                                 {.row = fresh, .whole = true, .values = values}};
    k.c.a = a;
    godwit_status status = decide_facts(&k.c, facts, 2, 500, &out);
    assert_int_equal(out.change_count, status == GODWIT_OK ? 2 : 0);
    assert_int_equal(k.c.head, status == GODWIT_OK ? 10 : 9);
    kit_deinit(&k);
    return status;
}

static void facts(void **state) {
    (void)state;
    unit_starve(take_facts, NULL);
}

/* Also the table of rows itself, when it has to grow. */
static godwit_status load_rows(arena *a, void *context) {
    (void)context;
    static const schema_table table = {.name = {"t", 1}, .column_count = 1};
    decide_context c = {.a = a};
    static char ids[200][8];
    godwit_status status = decide_init(&c, 4);
    for (int i = 0; i < 200 && status == GODWIT_OK; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "%d", i);
        status = decide_row_of(&c, &table, slice_of(ids[i])) ? GODWIT_OK : GODWIT_NOMEM;
    }
    for (size_t i = 0; i < c.row_count; i++) {
        assert_non_null(decide_row_find(&c, &table, slice_of(ids[i])));
    }
    return status;
}

static void rows(void **state) {
    (void)state;
    unit_starve(load_rows, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conflicts_of_columns),
        cmocka_unit_test(groups_that_are_held),
        cmocka_unit_test(questions_of_rules),
        cmocka_unit_test(rows_that_come_back),
        cmocka_unit_test(parents_that_come_back),
        cmocka_unit_test(edits_of_what_is_gone),
        cmocka_unit_test(plain_deletes),
        cmocka_unit_test(deletes_that_stand_together),
        cmocka_unit_test(refusals_of_the_database),
        cmocka_unit_test(keys_of_every_kind),
        cmocka_unit_test(clocks_that_are_full),
        cmocka_unit_test(facts),
        cmocka_unit_test(rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
