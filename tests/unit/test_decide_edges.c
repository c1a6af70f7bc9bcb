/* Where a history, a group, a table and a list begin and end: the first and the last of each count,
 * what lies behind does not. */
#include "decide_kit.h"

static wire_op edit(kit *k, const char *id, int64_t base, const char *payload, const char *old) {
    return kit_op(k, OP_UPDATE, "pins", id, base, payload, old);
}

/* A table whose first column is an ordinary one and whose key is the last. */
static schema_column odd_columns[] = {
    {.name = {"a", 1}, .policy = POLICY_LWW},
    {.name = {"b", 1}, .policy = POLICY_LWW},
    {.name = {"id", 2}, .is_key = true},
};

static decide_row *odd_row(kit *k, const char *values) {
    kit_table(k, TENANTS, "odd", odd_columns, COUNT_OF(odd_columns));
    k->tables[TENANTS].key[0] = 2;
    return kit_row(k, TENANTS, "o", values, 2, "x", 1);
}

static wire_op odd_op(kit *k, op_kind kind, int64_t base, const char *payload) {
    return kit_op(k, kind, "odd", "o", base, payload, NULL);
}

/* ---- history ---- */

/* A base is a commit number with that commit's own salt (section 1, row 2); the salt of another
 * commit, or of one that is not among those loaded, proves nothing. */
static void a_base_is_proved_by_its_own_salt(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    static const decide_salt salts[] = {{4, 44}, {6, 66}, {7, 77}, {9, 99}};
    k.c.salts = salts;
    k.c.salt_count = 3; /* that of 9 is not loaded */
    static const struct {
        int64_t seq, salt, base;
    } rows[] = {{4, 44, 4}, {6, 66, 6}, {7, 77, 7}, {4, 66, 0}, {3, 44, 0},
                {5, 66, 0}, {5, 0, 0},  {8, 0, 0},  {9, 99, 0}, {9, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        wire_op op = {.seq = 1, .base_seq = rows[i].seq, .base_salt = rows[i].salt};
        assert_int_equal(decide_effective_base(&k.c, &op), rows[i].base);
    }
    kit_deinit(&k);
}

/* Without a stream: absent = the head, a number that is not here yet = 0. */
static void a_base_without_a_stream_is_a_number(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    static const int64_t rows[][2] = {{-1, 9}, {0, 0}, {1, 1}, {8, 8}, {9, 9}, {10, 0}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        wire_op op = {.base_commit = rows[i][0]};
        assert_int_equal(decide_effective_base(&k.c, &op), rows[i][1]);
    }
    kit_deinit(&k);
}

/* Only first_seq 0 names no place: the start of a stream is one. */
static void the_start_of_a_stream_is_a_place(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    k.request = (push_request){.device_id = SLICE("dev"), .stream = true, .first_seq = 1};
    assert_int_equal(decide_stream(&k.c, &k.device, SLICE("alice"), &k.request, NULL), STREAM_OK);
    k.request.has_prev_key = true; /* a key before the first operation: somebody else's start */
    assert_int_equal(decide_stream(&k.c, &k.device, SLICE("alice"), &k.request, NULL),
                     STREAM_FORKED);
    k.request.first_seq = 0;
    assert_int_equal(decide_stream(&k.c, &k.device, SLICE("alice"), &k.request, NULL), STREAM_OK);
    kit_deinit(&k);
}

static void a_decided_group_moves_the_boundary(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op ops[2] = {kit_op(&k, OP_CREATE, "pins", "p", 9, "{}", NULL),
                      edit(&k, "p", 9, "{\"title\":\"B\"}", NULL)};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.first_seq, 1);
    assert_int_equal(out.last_seq, 2);
    assert_int_equal(k.device.applied_seq, 2);
    assert_true(k.device.has_last_key);
    assert_memory_equal(k.device.last_key, ops[1].key, SHA256_BYTES);
    kit_deinit(&k);
}

/* ---- groups ---- */

/* The operations of a request lie behind one another: the next group's are none of this one's. */
static void a_void_of_the_next_group_ends_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[2] = {edit(&k, "p", 9, "{\"title\":\"B\"}", NULL),
                      kit_op(&k, OP_VOID, "pins", "p", 9, NULL, NULL)};
    decide_commit out = kit_group(&k, ops, 1);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    out = kit_group(&k, ops + 1, 1);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    assert_int_equal(out.results[0].code, CODE_DISCARDED);
    kit_deinit(&k);
}

/* A refusal that names no operation of the group is blamed on the first. */
static void a_refusal_is_somebodys(void **state) {
    (void)state;
    static const op_code codes[] = {CODE_UNIQUE_VIOLATION, CODE_CHECK_FAILED};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        for (size_t named = 0; named < 4; named++) {
            kit k;
            kit_init(&k, 9);
            wire_op ops[2] = {kit_op(&k, OP_CREATE, "pins", "a", 4, "{}", NULL),
                              kit_op(&k, OP_CREATE, "pins", "b", 4, "{}", NULL)};
            ops[0].seq = 1;
            ops[1].seq = 2;
            decide_refusal refusal = {.code = codes[i], .op_index = named};
            decide_commit out;
            assert_int_equal(
                decide_group(&k.c, &k.device, &k.request, ops, 2, NULL, false, &refusal, &out),
                GODWIT_OK);
            size_t culprit = named < 2 ? named : 0;
            assert_int_equal(out.outcome, OUTCOME_REJECTED);
            assert_int_equal(out.results[culprit].code, codes[i]);
            assert_int_equal(out.results[1 - culprit].code, CODE_DEPENDENCY_FAILED);
            assert_int_equal(out.conflict_count, 1);
            assert_true(slice_is(out.conflicts[0].entity_id, culprit ? "b" : "a"));
            kit_deinit(&k);
        }
    }
}

/* What was decided before the end was not decided: no records, whichever operation they were of. */
static void a_refused_group_has_no_records(void **state) {
    (void)state;
    for (size_t contested = 0; contested < 2; contested++) {
        kit k;
        kit_init(&k, 9);
        decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\",\"note\":\"N\"}", 2, "x", 1);
        kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
        kit_row(&k, PINS, "q", "{}", 2, "x", 1);
        wire_op ops[3] = {edit(&k, "q", 5, "{\"title\":\"B\"}", NULL),
                          edit(&k, "q", 5, "{\"title\":\"B\"}", NULL),
                          edit(&k, "none", 9, "{\"title\":\"C\"}", NULL)};
        ops[contested] = edit(&k, "p", 5, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
        decide_commit out = kit_group(&k, ops, 3);
        assert_int_equal(out.outcome, OUTCOME_REJECTED);
        assert_int_equal(out.results[2].code, CODE_ROW_MISSING);
        assert_int_equal(out.conflict_count, 0);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(out.results[i].conflicts_json.len, 0);
        }
        assert_true(value_is(row, "title", "\"T\""));
        kit_deinit(&k);
    }
}

/* A record says why its group is held. */
static void held_groups_say_why(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op op = edit(&k, "gone", 5, "{\"title\":\"B\"}", NULL);
    op.base_salt++;
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.results[0].code, CODE_LOST_BASE);
    assert_true(slice_is(out.conflicts[0].kind, "lost_base"));
    assert_true(slice_is(out.conflicts[0].policy, "manual"));
    k.c.horizon = 8;
    op = edit(&k, "gone", 5, "{\"title\":\"B\"}", NULL);
    out = kit_group(&k, &op, 1);
    assert_int_equal(out.outcome, OUTCOME_CONFLICT);
    assert_int_equal(out.results[0].code, CODE_ROW_MISSING);
    assert_true(slice_is(out.conflicts[0].kind, "row_gone"));
    op = edit(&k, "gone", 8, "{\"title\":\"B\"}", NULL); /* its history is all here */
    out = kit_group(&k, &op, 1);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    assert_int_equal(out.conflict_count, 0);
    kit_deinit(&k);
}

static void operations_held_with_another_say_so(void **state) {
    (void)state;
    kit k;
    schema_column columns[COUNT_OF(kit_pins)];
    kit_init(&k, 9);
    memcpy(columns, kit_pins, sizeof kit_pins);
    columns[1].policy = POLICY_HOLD;
    k.tables[PINS].columns = columns;
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
    kit_row(&k, PINS, "q", "{}", 2, "x", 1);
    wire_op ops[2] = {edit(&k, "q", 5, "{\"note\":\"B\"}", NULL),
                      edit(&k, "p", 5, "{\"title\":\"B\"}", "{\"title\":\"A\"}")};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_CONFLICT);
    assert_int_equal(out.conflict_count, 2);
    assert_true(slice_is(out.conflicts[0].kind, "held"));
    assert_true(slice_is(out.conflicts[0].policy, "hold_group"));
    assert_true(slice_is(out.conflicts[0].ours, "{\"note\":\"B\"}"));
    assert_true(slice_is(out.conflicts[1].kind, "field"));
    assert_true(slice_is(out.conflicts[1].theirs, "{\"title\":\"T\"}"));
    assert_true(slice_is(out.results[0].conflicts_json, "[\"c-10-0-0000000000000000\"]"));
    assert_true(slice_is(out.results[1].conflicts_json, "[\"c-10-1-0000000000000000\"]"));
    kit_deinit(&k);
}

/* ---- results ---- */

/* Every record of an operation is named in its result, in a list that can be parsed. */
static void all_records_of_an_operation_are_named(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\",\"note\":\"N\"}", 2, "x", 1);
    kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
    kit_edit(&k, row, "note", "\"M\"", 7, 70, "x", 2);
    wire_op op =
        edit(&k, "p", 5, "{\"title\":\"B\",\"note\":\"C\"}", "{\"title\":\"A\",\"note\":\"N\"}");
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(out.conflict_count, 2);
    assert_true(slice_is(out.results[0].conflicts_json,
                         "[\"c-10-0-0000000000000000\",\"c-10-1-0000000000000000\"]"));
    kit_deinit(&k);
}

static void records_belong_to_one_operation(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\",\"note\":\"N\"}", 2, "x", 1);
    kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
    kit_edit(&k, row, "note", "\"M\"", 7, 70, "x", 2);
    wire_op ops[3] = {edit(&k, "p", 5, "{\"title\":\"B\"}", "{\"title\":\"A\"}"),
                      edit(&k, "p", 5, "{\"note\":\"C\"}", "{\"note\":\"N\"}"),
                      edit(&k, "p", 5, "{\"lat\":1}", NULL)};
    decide_commit out = kit_group(&k, ops, 3);
    assert_true(slice_is(out.results[0].conflicts_json, "[\"c-10-0-0000000000000000\"]"));
    assert_true(slice_is(out.results[1].conflicts_json, "[\"c-10-1-0000000000000000\"]"));
    assert_int_equal(out.results[1].outcome, OUTCOME_MERGED);
    assert_int_equal(out.results[2].conflicts_json.len, 0);
    assert_int_equal(out.results[2].outcome, OUTCOME_APPLIED);
    kit_deinit(&k);
}

/* The clock of the row as it is now, whether or not the operation changed it. */
static void results_have_the_clock_of_their_row(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    decide_row *same = kit_row(&k, PINS, "q", "{}", 2, "x", 3);
    kit_edit(&k, same, "title", "\"T\"", 7, 70, "x", 4);
    wire_op ops[4] = {edit(&k, "p", 9, "{\"title\":\"B\"}", NULL),
                      edit(&k, "q", 5, "{\"title\":\"T\"}", NULL),
                      kit_op(&k, OP_DELETE, "pins", "none", 9, NULL, NULL),
                      kit_op(&k, OP_CREATE, "pins", "new", 9, "{}", NULL)};
    decide_commit out = kit_group(&k, ops, 4);
    assert_int_equal(out.change_count, 2);
    assert_true(slice_is(out.results[0].clock_json, "{\"$\":0,\"dev\":1,\"x\":1}"));
    assert_true(slice_is(out.results[1].clock_json, "{\"$\":0,\"x\":3}"));
    assert_int_equal(out.results[2].clock_json.len, 0);
    assert_true(slice_is(out.results[3].clock_json, "{\"$\":0,\"dev\":4}"));
    kit_deinit(&k);
}

static void *no_memory(void *context, void *block, size_t size) {
    (void)context;
    if (size == 0) {
        free(block);
    }
    return NULL;
}

/* Texts of records are made in the caller's memory; without it there is no decision at all. */
static void a_decision_without_memory_is_empty(void **state) {
    (void)state;
    static const godwit_allocator none = {.resize = no_memory};
    static const decide_commit zero;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    kit_edit(&k, row, "title", "\"T\"", 7, 70, "x", 2);
    wire_op op = edit(&k, "p", 5, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
    op.seq = 1;
    decide_commit out;
    assert_true(arena_alloc(&k.a, 40000) && arena_alloc(&k.a, 1)); /* a new chunk, almost empty */
    k.a.allocator = &none; /* the arena has room left, the texts have none */
    assert_int_equal(decide_group(&k.c, &k.device, &k.request, &op, 1, NULL, false, NULL, &out),
                     GODWIT_NOMEM);
    k.a.allocator = NULL;
    assert_memory_equal(&out, &zero, sizeof out);
    assert_int_equal(k.c.head, 9);
    kit_deinit(&k);
}

/* ---- columns ---- */

/* Both sides were good, their mixture is not: that is a conflict, whichever column is theirs. */
static void a_mixture_may_begin_with_the_first_column(void **state) {
    (void)state;
    static const char *const columns[] = {"a", "b"};
    for (size_t theirs = 0; theirs < 2; theirs++) {
        kit k;
        kit_init(&k, 9);
        decide_row *row = odd_row(&k, "{\"a\":1,\"b\":1,\"id\":\"o\"}");
        kit_edit(&k, row, columns[theirs], "2", 7, 70, "x", 2);
        wire_op op = odd_op(&k, OP_UPDATE, 5, theirs ? "{\"a\":3}" : "{\"b\":3}");
        op.seq = 1;
        decide_refusal refusal = {.code = CODE_CHECK_FAILED};
        decide_commit out;
        assert_int_equal(
            decide_group(&k.c, &k.device, &k.request, &op, 1, NULL, false, &refusal, &out),
            GODWIT_OK);
        assert_int_equal(out.outcome, OUTCOME_CONFLICT);
        assert_int_equal(out.results[0].code, CODE_CHECK_FAILED);
        assert_true(slice_is(out.conflicts[0].kind, "check"));
        assert_true(out.conflicts[0].open);
        kit_deinit(&k);
    }
}

/* A delete mixes nothing: the database refuses it. */
static void a_refused_delete_is_no_mixture(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = odd_row(&k, "{\"a\":1,\"b\":1,\"id\":\"o\"}");
    kit_edit(&k, row, "a", "2", 7, 70, "x", 2);
    wire_op op = odd_op(&k, OP_DELETE, 5, NULL);
    op.seq = 1;
    decide_refusal refusal = {.code = CODE_CHECK_FAILED};
    decide_commit out;
    assert_int_equal(decide_group(&k.c, &k.device, &k.request, &op, 1, NULL, false, &refusal, &out),
                     GODWIT_OK);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    assert_false(out.conflicts[0].open);
    kit_deinit(&k);
}

/* An unseen edit of any column keeps the row from being deleted; a seen one does not. */
static void an_edit_of_any_column_protects(void **state) {
    (void)state;
    static const char *const columns[] = {"a", "b"};
    for (size_t i = 0; i < COUNT_OF(columns); i++) {
        for (int64_t base = 6; base <= 7; base++) {
            kit k;
            kit_init(&k, 9);
            decide_row *row = odd_row(&k, "{\"a\":1,\"b\":1,\"id\":\"o\"}");
            kit_edit(&k, row, columns[i], "2", 7, 70, "x", 2);
            wire_op op = odd_op(&k, OP_DELETE, base, NULL);
            decide_commit out = kit_group(&k, &op, 1);
            assert_int_equal(row->row.deleted, base == 7);
            assert_int_equal(out.conflict_count, base == 6);
            assert_true(base == 7 || out.conflicts[0].their_commit == 7);
            kit_deinit(&k);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_base_is_proved_by_its_own_salt),
        cmocka_unit_test(a_base_without_a_stream_is_a_number),
        cmocka_unit_test(the_start_of_a_stream_is_a_place),
        cmocka_unit_test(a_decided_group_moves_the_boundary),
        cmocka_unit_test(a_void_of_the_next_group_ends_nothing),
        cmocka_unit_test(a_refusal_is_somebodys),
        cmocka_unit_test(a_refused_group_has_no_records),
        cmocka_unit_test(held_groups_say_why),
        cmocka_unit_test(operations_held_with_another_say_so),
        cmocka_unit_test(all_records_of_an_operation_are_named),
        cmocka_unit_test(records_belong_to_one_operation),
        cmocka_unit_test(results_have_the_clock_of_their_row),
        cmocka_unit_test(a_decision_without_memory_is_empty),
        cmocka_unit_test(a_mixture_may_begin_with_the_first_column),
        cmocka_unit_test(a_refused_delete_is_no_mixture),
        cmocka_unit_test(an_edit_of_any_column_protects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
