/* Store files made by the version before: they open, and what they answer does not change. */
#include "service_kit.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* As step 3 left it: changes by (scope, commit_seq, idx), commits that don't say which are theirs.
 */
static const char *const step_3[] = {
    "CREATE TABLE was AS SELECT scope, commit_seq, idx, tbl, pk, kind, full_row, prev_seq,"
    " clock_seq, vclock, cols FROM godwit_change",
    "DROP TABLE godwit_change",
    "CREATE TABLE godwit_change(scope INTEGER NOT NULL, commit_seq INTEGER NOT NULL, idx INTEGER"
    " NOT NULL, tbl TEXT NOT NULL, pk TEXT NOT NULL, kind TEXT NOT NULL, full_row INTEGER NOT NULL,"
    " prev_seq INTEGER, clock_seq INTEGER, vclock TEXT, cols TEXT, PRIMARY KEY (scope, commit_seq,"
    " idx)) WITHOUT ROWID",
    "INSERT INTO godwit_change SELECT * FROM was",
    "DROP TABLE was",
    "ALTER TABLE godwit_commit DROP COLUMN first_change",
    "ALTER TABLE godwit_commit DROP COLUMN last_change",
    "UPDATE godwit_meta SET v = 3 WHERE k = 'schema_version'",
    /* what an operator looks at must not be in the way */
    "CREATE VIEW mine AS SELECT h.pk FROM godwit_change h JOIN godwit_commit c USING (scope,"
    " commit_seq)",
};

typedef struct {
    kit_device a, b;
    slice group; /* a push whose answer was lost */
} past;

/* Commits of two scopes in turns, one of several changes, one without any. */
static past fill(kit *k) {
    past p = {.a = kit_register(k, A, "ana", "field"), .b = kit_register(k, B, "ana", "yard")};
    for (int i = 0; i < 5; i++) {
        const char *payload = arena_printf(&k->a, "{\"title\":\"title %d\",\"n\":%d}", i, i);
        const char *here = arena_printf(&k->a, "p%d", i), *there = arena_printf(&k->a, "q%d", i);
        assert_status(kit_push_one(k, &p.a, OP_CREATE, "pins", here, payload), 200);
        assert_status(kit_push_one(k, &p.b, OP_CREATE, "pins", there, payload), 200);
    }
    assert_status(kit_push_one(k, &p.a, OP_DELETE, "pins", "none", NULL), 200);
    wire_op group[] = {kit_op(k, &p.a, OP_CREATE, "pins", "new", "{\"title\":\"n\"}"),
                       kit_op(k, &p.a, OP_UPDATE, "pins", "p0", "{\"note\":\"x\"}"),
                       kit_op(k, &p.a, OP_DELETE, "pins", "p4", NULL)};
    kit_group(group, 3);
    for (size_t i = 0; i < COUNT_OF(group); i++) {
        kit_seal(&p.a, &group[i]);
    }
    p.group = kit_push_body(k, &p.a, group, COUNT_OF(group), p.a.last_key, (slice){0}, false);
    assert_status(kit_body(k, VERB_PUSH, "ana", "field", p.group), 200);
    memcpy(p.a.last_key, group[2].key, SHA256_BYTES);
    return p;
}

/* Everything the store tells: both feeds, outcomes, the answer to what comes again, histories. */
static const char *told(kit *k, const past *p) {
    service_job job;
    kit_answer field = kit_changes(k, "field", (slice){0}, A, "");
    kit_answer yard = kit_changes(k, "yard", (slice){0}, "", "");
    kit_answer again = kit_body(k, VERB_PUSH, "ana", "field", p->group);
    kit_job(k, &job, VERB_HISTORY, "ana", "field");
    job.q_entity_type = SLICE("pins");
    job.q_entity_id = SLICE("p0");
    kit_answer history = kit_run(k, &job);
    assert_int_equal(kit_count(&field, "commits"), 7);
    assert_int_equal(kit_count(&yard, "commits"), 5);
    assert_status(again, 200);
    assert_int_equal(kit_count(&history, "changes"), 2);
    return arena_printf(&k->a, "%s\n%s\n%s\n%s", field.text.ptr, yard.text.ptr, again.text.ptr,
                        history.text.ptr);
}

static void what_is_told_stays(void **state) {
    kit k;
    (void)state;
    kit_prepare_on(&k, true, KIT_PINS, NULL);
    kit_reopen(&k);
    past p = fill(&k);
    const char *before = told(&k, &p);
    kit_close(&k);
    for (size_t i = 0; i < COUNT_OF(step_3); i++) {
        (void)kit_sql(&k, step_3[i]);
    }
    kit_reopen(&k);
    assert_string_equal(told(&k, &p), before);
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM mine"), "13");
    assert_string_equal(kit_sql(&k,
                                "SELECT count(*) FROM godwit_change h JOIN godwit_commit c USING"
                                " (scope, commit_seq) WHERE h.no NOT BETWEEN c.first_change AND"
                                " c.last_change"),
                        "0");
    /* and goes on */
    assert_status(kit_push_one(&k, &p.a, OP_CREATE, "pins", "p9", "{\"title\":\"t\"}"), 200);
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 7);
    assert_text(r, "commits.6.changes.0.entityId", "p9");
    kit_deinit(&k);
}

/* When all changes are gone their numbers are given again: no commit shows those of another. */
static void numbers_given_again_are_not_mixed_up(void **state) {
    kit k;
    (void)state;
    kit_prepare_on(&k, true, KIT_PINS, NULL);
    kit_reopen(&k);
    past p = fill(&k);
    kit_close(&k);
    (void)kit_sql(&k, "DELETE FROM godwit_change");
    kit_reopen(&k);
    assert_status(kit_push_one(&k, &p.b, OP_CREATE, "pins", "q9", "{\"title\":\"t\"}"), 200);
    assert_string_equal(kit_sql(&k, "SELECT no FROM godwit_change"), "1");
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 0);
    r = kit_changes(&k, "yard", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 1);
    assert_text(r, "commits.0.changes.0.entityId", "q9");
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_told_stays),
        cmocka_unit_test(numbers_given_again_are_not_mixed_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
