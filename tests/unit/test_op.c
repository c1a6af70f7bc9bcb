/* An operation's names and moves: the table of semantics 5.5, move by move. */
#include "unit.h"

#include "core/op.h"

static void names_go_both_ways(void **state) {
    (void)state;
    for (int k = OP_CREATE; k <= OP_VOID; k++) {
        assert_int_equal(op_kind_parse(slice_of(op_kind_name((op_kind)k))), k);
    }
    assert_int_equal(op_kind_parse(SLICE("PUT")), OP_CREATE);
    assert_int_equal(op_kind_parse(SLICE("PATCH")), OP_UPDATE);
    assert_int_equal(op_kind_parse(SLICE("DELETE")), OP_DELETE);
    assert_int_equal(op_kind_parse(SLICE("none")), OP_NONE);
    assert_int_equal(op_kind_parse(SLICE("upsert")), OP_NONE);
    assert_int_equal(op_kind_parse(SLICE("")), OP_NONE);
    for (int s = 0; s < OP_STATE_COUNT; s++) {
        op_state parsed = OP_STATE_COUNT;
        assert_true(op_state_parse(slice_of(op_state_name((op_state)s)), &parsed));
        assert_int_equal(parsed, s);
    }
    op_state untouched = OP_PARKED;
    assert_false(op_state_parse(SLICE("in_progress"), &untouched));
    assert_int_equal(untouched, OP_PARKED);
    for (int o = OUTCOME_APPLIED; o <= OUTCOME_DUPLICATE; o++) {
        op_outcome parsed = OUTCOME_NONE;
        assert_true(op_outcome_parse(slice_of(op_outcome_name((op_outcome)o)), &parsed));
        assert_int_equal(parsed, o);
    }
    op_outcome outcome = OUTCOME_NONE;
    assert_false(op_outcome_parse(SLICE("none"), &outcome));
    assert_null(op_code_name(CODE_NONE));
    assert_int_equal(CODE_COUNT, 23);
    for (int c = CODE_NONE + 1; c < CODE_COUNT; c++) {
        op_code parsed = CODE_NONE;
        assert_true(op_code_parse(slice_of(op_code_name((op_code)c)), &parsed));
        assert_int_equal(parsed, c);
    }
    op_code code = CODE_NONE;
    assert_false(op_code_parse(SLICE("no-such-code"), &code));
}

/* One letter per event, in order: a ack, f feed, r reject, c conflict, b block, q requeue, p park,
 * u unpark. What it leads to: P A R(etired) J(rejected) C B K(parked); '-' is refused. */
static void every_move_is_in_the_table(void **state) {
    (void)state;
    static const char letters[] = "PARJCBK";
    static const struct {
        op_state from;
        const char *to;
    } table[] = {
        {OP_PENDING, "ARJCBPK-"},  {OP_ACKED, "ARJC-P--"},    {OP_RETIRED, "RRJC-P--"},
        {OP_REJECTED, "--J-----"}, {OP_CONFLICT, "-R-C-P--"}, {OP_BLOCKED, "--B-B---"},
        {OP_PARKED, "ARJCB--P"},
    };
    assert_int_equal(COUNT_OF(table), OP_STATE_COUNT);
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        assert_int_equal(strlen(table[i].to), OP_EVENT_COUNT);
        for (int event = 0; event < OP_EVENT_COUNT; event++) {
            op_state moved = table[i].from;
            bool allowed = op_transition(&moved, (op_event)event);
            char want = table[i].to[event];
            assert_int_equal(allowed, want != '-');
            if (allowed) {
                assert_int_equal(letters[moved], want);
            } else {
                assert_int_equal(moved, table[i].from);
            }
        }
    }
}

static void repeating_a_fact_moves_nothing(void **state) {
    (void)state;
    for (int from = 0; from < OP_STATE_COUNT; from++) {
        for (int event = OP_EVENT_ACK; event <= OP_EVENT_BLOCK; event++) {
            op_state once = (op_state)from;
            if (!op_transition(&once, (op_event)event)) {
                continue;
            }
            op_state twice = once;
            assert_true(op_transition(&twice, (op_event)event));
            assert_int_equal(once, twice);
        }
    }
}

static void public_status_has_the_requirements_words(void **state) {
    (void)state;
    assert_string_equal(op_public_status(OP_PENDING), "pending");
    assert_string_equal(op_public_status(OP_PARKED), "pending");
    assert_string_equal(op_public_status(OP_ACKED), "completed");
    assert_string_equal(op_public_status(OP_RETIRED), "completed");
    assert_string_equal(op_public_status(OP_REJECTED), "failed");
    assert_string_equal(op_public_status(OP_BLOCKED), "failed");
    assert_string_equal(op_public_status(OP_CONFLICT), "conflict");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(every_move_is_in_the_table),
        cmocka_unit_test(repeating_a_fact_moves_nothing),
        cmocka_unit_test(public_status_has_the_requirements_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
