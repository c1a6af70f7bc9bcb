/* What others wrote to the database, as decide takes it over: versions, clocks, what travels, and
 * how operations that have not seen it meet it. */
#include "decide_kit.h"

static decide_fact fact_of(kit *k, decide_row *row, const char *values, const char *changed) {
    size_t count = row->table->column_count;
    value *after = ARENA_ARRAY(&k->a, value, count);
    bool *columns = ARENA_ARRAY(&k->a, bool, count);
    const json *object = kit_json(k, values);
    const json *key = json_first(object);
    for (uint32_t i = 0; i < object->count; i++) {
        int column = kit_column(row->table, key->u.s);
        assert_int_equal(value_from_json(&k->a, key + 1, &after[column]), GODWIT_OK);
        key = json_after(key + 1);
    }
    if (changed) {
        columns[kit_column(row->table, slice_of(changed))] = true;
    }
    return (decide_fact){.row = row, .whole = !changed, .columns = columns, .values = after};
}

static decide_commit take(kit *k, const decide_fact *facts, size_t count, int64_t at_ms) {
    decide_commit out;
    assert_int_equal(decide_facts(&k->c, facts, count, at_ms, &out), GODWIT_OK);
    return out;
}

static void a_row_appears_changes_and_goes(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = decide_row_of(&k.c, &k.tables[PINS], SLICE("p"));
    decide_fact made = fact_of(&k, row, "{\"id\":\"p\",\"title\":\"a\",\"note\":\"b\"}", NULL);
    decide_commit commit = take(&k, &made, 1, 500);
    assert_int_equal(commit.commit_seq, 5);
    assert_int_equal(commit.change_count, 1);
    assert_true(commit.changes[0].full && row->row.exists && row->row.gen == 1);
    assert_true(slice_is(commit.changes[0].clock_json, "{\"$\":5}"));
    assert_int_equal(row->row.created.at_ms, 500);

    decide_fact edit = fact_of(&k, row, "{\"id\":\"p\",\"title\":\"c\",\"note\":\"b\"}", "title");
    commit = take(&k, &edit, 1, KIT_NOW + 99);
    int title = kit_column(row->table, SLICE("title"));
    assert_true(commit.changes[0].columns[title] && !commit.changes[0].full);
    assert_int_equal(commit.changes[0].prev_seq, 5);
    assert_int_equal(row->row.meta[title].ver, 6);
    assert_int_equal(row->row.meta[title].at_ms, KIT_NOW); /* nobody writes in the future */
    assert_int_equal(row->row.meta[kit_column(row->table, SLICE("note"))].ver, 0);

    decide_fact gone = fact_of(&k, row, "{\"id\":\"p\",\"title\":\"c\"}", NULL);
    gone.is_delete = true;
    commit = take(&k, &gone, 1, 700);
    assert_true(commit.changes[0].is_delete && row->row.deleted && row->row.del_ver == 7);
    commit = take(&k, &made, 1, 800);
    assert_true(!row->row.deleted && row->row.gen == 2 && row->row.created_ver == 8);
    assert_int_equal(row->row.meta[title].ver, 0);
    kit_deinit(&k);
}

static void what_nobody_saw_is_no_commit(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = decide_row_of(&k.c, &k.tables[PINS], SLICE("p"));
    decide_fact both[] = {fact_of(&k, row, "{\"id\":\"p\",\"title\":\"a\"}", NULL),
                          fact_of(&k, row, "{\"id\":\"p\",\"title\":\"a\"}", NULL)};
    both[1].is_delete = true;
    decide_commit commit = take(&k, both, 2, 500);
    assert_int_equal(commit.change_count, 0);
    assert_int_equal(k.c.head, 4);
    assert_false(row->row.exists);
    /* a column that the server keeps for itself is nobody's news */
    decide_row *known = kit_row(&k, PINS, "q", "{\"title\":\"a\"}", 2, "dev", 1);
    decide_fact stamp = fact_of(&k, known, "{\"id\":\"q\",\"stamp\":\"now\"}", "stamp");
    assert_int_equal(take(&k, &stamp, 1, 500).change_count, 0);
    assert_int_equal(known->row.ver, 2);
    kit_deinit(&k);
}

static void a_known_row_is_told_anew(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"a\",\"note\":\"b\"}", 2, "dev", 1);
    decide_fact again = fact_of(&k, row, "{\"id\":\"p\",\"title\":\"x\",\"note\":\"b\"}", NULL);
    decide_commit commit = take(&k, &again, 1, 500);
    assert_true(commit.changes[0].full && row->row.gen == 1 && row->row.created_ver == 2);
    assert_int_equal(row->row.meta[kit_column(row->table, SLICE("note"))].ver, 5);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_appears_changes_and_goes),
        cmocka_unit_test(what_nobody_saw_is_no_commit),
        cmocka_unit_test(a_known_row_is_told_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
