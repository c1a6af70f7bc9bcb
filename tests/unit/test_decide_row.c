/* What becomes of a row as a whole: made, made again, gone, brought back (semantics 7.2 to 7.4),
 * and what the record says about it. */
#include "decide_kit.h"

static wire_op edit(kit *k, int64_t base, const char *payload, const char *old) {
    return kit_op(k, OP_UPDATE, "pins", "p", base, payload, old);
}

/* Made by "x" in commit 2, deleted in commit 7. */
static decide_row *tombstone(kit *k, const char *by) {
    kit_init(k, 9);
    decide_row *row = kit_row(k, PINS, "p", "{\"id\":\"p\",\"title\":\"A\"}", 2, "x", 1);
    kit_tombstone(row, 7, by);
    return row;
}

/* 7.4: a tombstone that the creator had not seen is made anew, and the ledger tells. */
static void a_row_made_over_an_unseen_tombstone_has_a_record(void **state) {
    (void)state;
    for (int64_t base = 6; base <= 7; base++) {
        kit k;
        decide_row *row = tombstone(&k, "x");
        wire_op op = kit_op(&k, OP_CREATE, "pins", "p", base, "{\"title\":\"B\"}", NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(row->row.gen, 2);
        assert_int_equal(out.outcome, base == 6 ? OUTCOME_MERGED : OUTCOME_APPLIED);
        assert_int_equal(out.conflict_count, base == 6);
        if (base == 6) {
            assert_true(slice_is(out.conflicts[0].kind, "delete_create"));
            assert_true(slice_is(out.conflicts[0].policy, "recreate"));
            assert_true(slice_is(out.conflicts[0].winner, "ours"));
            assert_true(slice_is(out.conflicts[0].ours, "{\"title\":\"B\"}"));
            assert_true(slice_is(out.conflicts[0].chosen, "{\"title\":\"B\"}"));
            assert_int_equal(out.conflicts[0].their_commit, 7);
        }
        kit_deinit(&k);
    }
}

static void a_payload_of_nothing_is_recorded_as_nothing(void **state) {
    (void)state;
    kit k;
    (void)tombstone(&k, "x");
    wire_op op = kit_op(&k, OP_CREATE, "pins", "p", 6, "{}", NULL);
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.conflict_count, 1);
    assert_int_equal(out.conflicts[0].ours.len, 0);
    assert_int_equal(out.conflicts[0].chosen.len, 0);
    kit_deinit(&k);
    kit_init(&k, 9); /* held: the same */
    wire_op gone = kit_op(&k, OP_UPDATE, "pins", "gone", 5, "{\"title\":\"B\"}", "{}");
    gone.base_salt++;
    out = kit_group(&k, &gone, 1);
    assert_int_equal(out.conflicts[0].base.len, 0);
    assert_true(slice_is(out.conflicts[0].ours, "{\"title\":\"B\"}"));
    kit_deinit(&k);
}

/* Whose deletion it was counts by the whole name of the device; writers without a stream have none,
 * and are not the same one. */
static void an_own_deletion_is_no_surprise(void **state) {
    (void)state;
    static const struct {
        const char *device, *deleted_by;
        bool back;
    } rows[] = {{"dev", "dev", false}, {"dev", "x", true},  {"dev", "", true}, {"d", "d", false},
                {"d", "x", true},      {"dev", "de", true}, {"", "", true},    {"", "x", true}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit k;
        decide_row *row = tombstone(&k, rows[i].deleted_by);
        k.request.stream = rows[i].device[0] != 0;
        k.device.device_id = slice_of(rows[i].device);
        wire_op op = edit(&k, 5, "{\"title\":\"B\"}", NULL);
        op.base_commit = 5;
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(!row->row.deleted, rows[i].back);
        assert_int_equal(out.outcome, rows[i].back ? OUTCOME_MERGED : OUTCOME_REJECTED);
        assert_true(rows[i].back || out.results[0].code == CODE_ROW_DELETED);
        kit_deinit(&k);
    }
}

/* A deletion that the author had seen is none to undo: up to the very commit of it. */
static void a_seen_deletion_refuses_the_edit(void **state) {
    (void)state;
    for (int64_t base = 6; base <= 8; base++) {
        kit k;
        decide_row *row = tombstone(&k, "x");
        wire_op op = edit(&k, base, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(row->row.deleted, base >= 7);
        assert_int_equal(out.outcome, base >= 7 ? OUTCOME_REJECTED : OUTCOME_MERGED);
        if (base == 6) {
            assert_true(slice_is(out.conflicts[0].kind, "delete_update"));
            assert_true(slice_is(out.conflicts[0].policy, "edit_wins"));
            assert_true(slice_is(out.conflicts[0].base, "{\"title\":\"A\"}"));
            assert_true(slice_is(out.conflicts[0].ours, "{\"title\":\"B\"}"));
            assert_true(slice_is(out.conflicts[0].chosen, "{\"title\":\"B\"}"));
            assert_int_equal(out.conflicts[0].their_commit, 7);
            assert_true(out.changes[0].full && !out.changes[0].is_delete);
        }
        kit_deinit(&k);
    }
}

/* 7.2: delete_wins keeps the edit as a whole row, that it can be brought back. */
static void an_edit_that_a_deletion_beats_is_kept_whole(void **state) {
    (void)state;
    kit k;
    decide_row *row = tombstone(&k, "x");
    k.tables[PINS].on_conflicting_delete = DELETE_DELETE_WINS;
    wire_op op = edit(&k, 6, "{\"note\":\"N\",\"count\":{\"$inc\":2}}", "{\"note\":null}");
    decide_commit out = kit_group(&k, &op, 1);
    assert_true(row->row.deleted);
    assert_int_equal(out.outcome, OUTCOME_MERGED);
    assert_int_equal(out.change_count, 0);
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].winner, "theirs"));
    assert_true(slice_is(out.conflicts[0].policy, "delete_wins"));
    assert_true(slice_is(out.conflicts[0].base, "{\"note\":null}"));
    assert_true(slice_is(out.conflicts[0].ours,
                         "{\"id\":\"p\",\"title\":\"A\",\"note\":\"N\",\"lat\":null,\"lng\":null,"
                         "\"high\":null,\"low\":null,\"checked\":null,\"owner\":null,\"tag\":null,"
                         "\"stamp\":null,\"count\":null,\"labels\":null}"));
    assert_int_equal(out.conflicts[0].chosen.len, 0);
    assert_int_equal(out.conflicts[0].their_commit, 7);
    kit_deinit(&k);
}

/* A row made again in the group that deleted it has been given what the last create says, only. */
static void a_row_made_again_has_what_was_given_last(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"id\":\"p\",\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[3] = {edit(&k, 9, "{\"title\":\"B\"}", NULL),
                      kit_op(&k, OP_DELETE, "pins", "p", 9, NULL, NULL),
                      kit_op(&k, OP_CREATE, "pins", "p", 9, "{\"note\":\"N\"}", NULL)};
    decide_commit out = kit_group(&k, ops, 3);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(out.change_count, 1);
    assert_true(out.changes[0].full);
    for (size_t i = 0; i < COUNT_OF(kit_pins); i++) {
        assert_true(out.changes[0].columns[i]);
        assert_int_equal(out.changes[0].given[i], i == 0 || i == 2); /* id note */
    }
    assert_true(value_is(row, "title", "null") && value_is(row, "note", "\"N\""));
    assert_int_equal(row->row.gen, 2);
    assert_int_equal(out.changes[0].prev_seq, 2);
    kit_deinit(&k);
}

/* 7.4: the initial policy is for rows that a device's own history began with; who has no stream
 * meets the columns' own policies. */
static void first_contact_is_a_devices(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        for (int64_t base = 0; base < 2; base++) {
            kit k;
            kit_init(&k, 9);
            decide_row *row = kit_row(&k, PINS, "p", "{\"tag\":\"A\"}", 2, "x", 1);
            k.request.stream = stream;
            wire_op op = kit_op(&k, OP_CREATE, "pins", "p", base, "{\"tag\":\"B\"}", NULL);
            op.base_commit = base;
            decide_commit out = kit_group(&k, &op, 1);
            bool initial = stream && base == 0;
            assert_true(value_is(row, "tag", initial ? "\"A\"" : "\"B\""));
            assert_int_equal(out.conflict_count, 1);
            assert_true(slice_is(out.conflicts[0].kind, "create_create"));
            assert_true(slice_is(out.conflicts[0].policy, initial ? "keep_server" : "client_wins"));
            kit_deinit(&k);
        }
    }
}

/* A deletion against an unseen edit: what was there, of which commit, and who won. */
static void a_deletion_against_an_edit_keeps_the_row_in_its_record(void **state) {
    (void)state;
    static const char image[] = "{\"id\":\"f\",\"pin_id\":\"p\",\"body\":\"new\"}";
    for (int wins = 0; wins < 2; wins++) {
        kit k;
        kit_init(&k, 9);
        decide_row *row =
            kit_row(&k, FORMS, "f", "{\"id\":\"f\",\"pin_id\":\"p\",\"body\":\"b\"}", 2, "x", 1);
        kit_edit(&k, row, "body", "\"new\"", 7, 70, "y", 1);
        kit_edit(&k, row, "pin_id", "\"p\"", 6, 60, "y", 1);
        k.tables[FORMS].on_conflicting_delete = wins ? DELETE_DELETE_WINS : DELETE_EDIT_WINS;
        wire_op op = kit_op(&k, OP_DELETE, "forms", "f", 4, NULL, "{\"body\":\"b\"}");
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(row->row.deleted, wins);
        assert_int_equal(out.outcome, OUTCOME_MERGED);
        assert_int_equal(out.conflict_count, 1);
        const decide_conflict *c = &out.conflicts[0];
        assert_true(slice_is(c->kind, "update_delete"));
        assert_true(slice_is(c->policy, wins ? "delete_wins" : "edit_wins"));
        assert_true(slice_is(c->winner, wins ? "ours" : "theirs"));
        assert_true(slice_is(c->base, "{\"body\":\"b\"}"));
        assert_true(slice_is(c->theirs, image));
        assert_true(slice_is(c->chosen, wins ? "" : image));
        assert_int_equal(c->their_commit, 7);
        assert_int_equal(out.change_count, wins);
        if (wins) {
            assert_int_equal(row->row.del_ver, 10);
            assert_int_equal(row->row.ver, 10);
            assert_true(slice_is(row->row.del_device, "dev"));
            assert_true(value_is(row, "body", "\"new\"")); /* the salvage image */
        }
        kit_deinit(&k);
    }
}

/* What a row's maker wrote counts as an edit of it: nobody deletes what he has not seen. */
static void a_row_made_unseen_is_protected(void **state) {
    (void)state;
    for (int64_t base = 6; base <= 7; base++) {
        kit k;
        kit_init(&k, 9);
        decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 7, "x", 1);
        wire_op op = kit_op(&k, OP_DELETE, "pins", "p", base, NULL, NULL);
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(row->row.deleted, base == 7);
        assert_int_equal(out.conflict_count, base == 6);
        assert_true(base == 7 || out.conflicts[0].their_commit == 7);
        kit_deinit(&k);
    }
}

/* Of a row that is not here a base tells whether it ever can have been: a commit of another
 * history, or one of which too little is kept, may be of a row that was; without one there never
 * was any. */
static void an_edit_of_no_row_goes_by_its_base(void **state) {
    (void)state;
    static const struct {
        bool stream, lost;
        int64_t base;
        op_outcome outcome;
        op_code code;
    } rows[] = {
        {true, true, 1, OUTCOME_CONFLICT, CODE_LOST_BASE},
        {true, true, 9, OUTCOME_CONFLICT, CODE_LOST_BASE},
        {true, false, 0, OUTCOME_REJECTED, CODE_ROW_MISSING},
        {true, false, 1, OUTCOME_CONFLICT, CODE_ROW_MISSING},
        {true, false, 7, OUTCOME_CONFLICT, CODE_ROW_MISSING},
        {true, false, 8, OUTCOME_REJECTED, CODE_ROW_MISSING}, /* the horizon itself is kept */
        {false, false, -1, OUTCOME_REJECTED, CODE_ROW_MISSING},
        {false, false, 0, OUTCOME_REJECTED, CODE_ROW_MISSING},
        {false, false, 7, OUTCOME_CONFLICT, CODE_ROW_MISSING},
        {false, false, 8, OUTCOME_REJECTED, CODE_ROW_MISSING},
        {false, false, 10, OUTCOME_CONFLICT, CODE_LOST_BASE},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit k;
        kit_init(&k, 9);
        k.c.horizon = 8;
        k.request.stream = rows[i].stream;
        wire_op op = edit(&k, rows[i].stream ? rows[i].base : 0, "{\"title\":\"B\"}", NULL);
        op.base_commit = rows[i].stream ? -1 : rows[i].base;
        op.base_salt += rows[i].lost;
        decide_commit out = kit_group(&k, &op, 1);
        assert_int_equal(out.outcome, rows[i].outcome);
        assert_int_equal(out.results[0].code, rows[i].code);
        kit_deinit(&k);
    }
}

/* Resolving a conflict of a row that is gone says nothing of the row. */
static void an_update_of_nothing_is_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op op = edit(&k, 9, "{}", NULL);
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.outcome, OUTCOME_REJECTED); /* of a row that never was */
    assert_int_equal(out.results[0].code, CODE_ROW_MISSING);
    op = edit(&k, 9, "{}", NULL);
    op.resolves = SLICE("c");
    out = kit_group(&k, &op, 1);
    assert_int_equal(out.outcome, OUTCOME_NOOP);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    op = edit(&k, 9, "{}", NULL);
    out = kit_group(&k, &op, 1);
    assert_int_equal(out.outcome, OUTCOME_NOOP);
    assert_int_equal(out.change_count, 0);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_made_over_an_unseen_tombstone_has_a_record),
        cmocka_unit_test(a_payload_of_nothing_is_recorded_as_nothing),
        cmocka_unit_test(an_own_deletion_is_no_surprise),
        cmocka_unit_test(a_seen_deletion_refuses_the_edit),
        cmocka_unit_test(an_edit_that_a_deletion_beats_is_kept_whole),
        cmocka_unit_test(a_row_made_again_has_what_was_given_last),
        cmocka_unit_test(first_contact_is_a_devices),
        cmocka_unit_test(a_deletion_against_an_edit_keeps_the_row_in_its_record),
        cmocka_unit_test(a_row_made_unseen_is_protected),
        cmocka_unit_test(an_edit_of_no_row_goes_by_its_base),
        cmocka_unit_test(an_update_of_nothing_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
