/* Conflicts that a rule outside decides: what is asked, when, and what becomes of the answer. */
#include "decide_kit.h"

typedef struct {
    kit k;
    arena memory; /* of questions: outlives a try */
    ask_list asks;
    schema_column columns[COUNT_OF(kit_pins)];
} world;

/* The row's note is "theirs", written by somebody in commit 8; the rule "lines" decides about it.
 */
static void begin(world *w) {
    kit_init(&w->k, 9);
    memcpy(w->columns, kit_pins, sizeof kit_pins);
    w->columns[2].policy = POLICY_CUSTOM;
    w->columns[2].rule = SLICE("lines");
    w->k.tables[PINS].columns = w->columns;
    w->asks.a = &w->memory;
    w->asks.waiting = w->asks.at = 0;
    w->k.c.asks = &w->asks;
    decide_row *row = kit_row(&w->k, PINS, "p", "{\"title\":\"t\",\"note\":\"base\"}", 5, "x", 1);
    kit_edit(&w->k, row, "note", "\"theirs\"", 8, 80, "x", 2);
}

static decide_commit edit(world *w, const char *payload, const char *old) {
    wire_op op = kit_op(&w->k, OP_UPDATE, "pins", "p", 5, payload, old);
    return kit_group(&w->k, &op, 1);
}

static decide_commit edit_note(world *w) {
    return edit(w, "{\"note\":\"ours\"}", "{\"note\":\"base\"}");
}

static slice note(world *w) {
    return decide_row_find(&w->k.c, &w->k.tables[PINS], SLICE("p"))->row.values[2].u.s;
}

static void setup(world *w) {
    *w = (world){0};
    arena_init(&w->memory, NULL, 0);
    begin(w);
}

static void again(world *w) {
    kit_deinit(&w->k);
    begin(w);
}

static void end(world *w) {
    kit_deinit(&w->k);
    arena_deinit(&w->memory);
}

static void a_conflict_is_asked_once_and_its_answer_decides(void **state) {
    (void)state;
    world w;
    setup(&w);
    (void)edit_note(&w);
    assert_int_equal(w.asks.waiting, 1);
    assert_int_equal(w.asks.count, 1);
    const char expected[] =
        "{\"hook\":\"resolve\",\"rule\":\"lines\",\"scope\":\"s1\",\"table\":\"pins\",\"id\":\"p\","
        "\"columns\":[{\"name\":\"note\",\"base\":\"base\",\"theirs\":\"theirs\","
        "\"ours\":\"ours\"}]}";
    const value merged = {.type = VALUE_TEXT, .u.s = SLICE("both")};
    assert_string_equal(w.asks.items[0].question.ptr, expected);
    w.asks.items[0].state = ASK_VALUES;
    w.asks.items[0].values = &merged;
    again(&w);
    decide_commit out = edit_note(&w);
    assert_int_equal(w.asks.waiting, 0);
    assert_int_equal(w.asks.count, 1);
    assert_true(slice_is(note(&w), "both"));
    assert_int_equal(out.results[0].outcome, OUTCOME_MERGED);
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].winner, "merged"));
    assert_true(slice_is(out.conflicts[0].policy, "custom:lines"));
    assert_true(slice_is(out.conflicts[0].chosen, "{\"note\":\"both\"}"));
    assert_false(out.conflicts[0].open);
    /* the same device's next edit had not seen the merge: a question of its own */
    (void)edit(&w, "{\"note\":\"ours 2\"}", "{\"note\":\"ours\"}");
    assert_int_equal(w.asks.waiting, 1);
    assert_true(slice_is(note(&w), "both"));
    end(&w);
}

static void what_is_not_decided_is_left_to_people(void **state) {
    (void)state;
    for (int how = 0; how < 3; how++) { /* by the rule; no more rounds; no hooks at all */
        world w;
        setup(&w);
        if (how == 0) {
            (void)edit_note(&w);
            w.asks.items[0].state = ASK_MANUAL;
            again(&w);
        }
        w.asks.closed = how == 1;
        w.k.c.asks = how == 2 ? NULL : &w.asks;
        decide_commit out = edit_note(&w);
        assert_int_equal(w.asks.waiting, 0);
        assert_true(slice_is(note(&w), "theirs"));
        assert_int_equal(out.results[0].outcome, OUTCOME_CONFLICT);
        assert_true(out.conflicts[0].open);
        end(&w);
    }
}

static void only_conflicts_are_asked(void **state) {
    (void)state;
    world w;
    setup(&w);
    (void)edit(&w, "{\"title\":\"other\"}", "{\"title\":\"t\"}");
    (void)edit(&w, "{\"note\":\"theirs\"}", "{\"note\":\"base\"}"); /* both wrote the same */
    (void)edit(&w, "{\"note\":\"ours\"}", "{\"note\":\"theirs\"}"); /* he started from it */
    assert_int_equal(w.asks.count, 0);
    assert_true(slice_is(note(&w), "ours"));
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conflict_is_asked_once_and_its_answer_decides),
        cmocka_unit_test(what_is_not_decided_is_left_to_people),
        cmocka_unit_test(only_conflicts_are_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
