/* The merge table as data: every case of tests/golden/merge.json through decide_group, and the pure
 * parts of merge by themselves. */
#include "decide_kit.h"

static char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        fail_msg("can't open %s", path);
    }
    char *text = malloc(1u << 20);
    *len = fread(text, 1, 1u << 20, f);
    assert_true(*len > 0 && *len < 1u << 20);
    fclose(f);
    return text;
}

static slice text_of(const json *object, const char *name, const char *absent) {
    slice s = slice_of(absent);
    (void)json_text(json_get(object, name), &s);
    return s;
}

static int64_t int_of(const json *object, const char *name, int64_t absent) {
    (void)json_int(json_get(object, name), &absent);
    return absent;
}

static bool flag_of(const json *object, const char *name, bool absent) {
    (void)json_bool(json_get(object, name), &absent);
    return absent;
}

static merge_policy policy_named(slice name) {
    for (int p = POLICY_LWW; p <= POLICY_HOLD; p++) {
        if (slice_is(name, merge_policy_name((merge_policy)p))) {
            return (merge_policy)p;
        }
    }
    fail_msg("no such policy");
    return POLICY_LWW;
}

static void setup_table(kit *k, const json *options, schema_column *columns) {
    schema_table *t = &k->tables[PINS];
    memcpy(columns, kit_pins, sizeof kit_pins);
    t->columns = columns;
    t->row_atomic = flag_of(options, "rowAtomic", false);
    slice policy = text_of(options, "policy", "");
    for (size_t i = 0; policy.len && i < t->column_count; i++) {
        columns[i].policy = policy_named(policy);
    }
    if (slice_is(text_of(options, "onDelete", ""), "delete_wins")) {
        t->on_conflicting_delete = DELETE_DELETE_WINS;
    }
    slice initial = text_of(options, "initial", "keep_server");
    t->initial = slice_is(initial, "keep_device") ? INITIAL_KEEP_DEVICE
                 : slice_is(initial, "manual")    ? INITIAL_MANUAL
                 : slice_is(initial, "newest")    ? INITIAL_NEWEST
                                                  : INITIAL_KEEP_SERVER;
    t->initial_column = schema_column_index(t, text_of(options, "initialColumn", ""));
    k->c.horizon = int_of(options, "horizon", 0);
}

static char *c_text(kit *k, slice s) {
    return arena_printf(&k->a, SLICE_FMT, SLICE_ARG(s));
}

static void setup_row(kit *k, const json *node) {
    if (!json_is(node, JSON_OBJECT)) {
        return;
    }
    decide_row *row = decide_row_of(&k->c, &k->tables[PINS], SLICE("p"));
    if (flag_of(node, "foreign", false)) {
        row->row.foreign = true;
        return;
    }
    kit_row(k, PINS, "p", "{\"id\":\"p\"}", int_of(node, "ver", 0),
            c_text(k, text_of(node, "device", "")), int_of(node, "seq", 0));
    kit_values(k, row, json_get(node, "values"));
    const json *edits = json_get(node, "edits"), *edit = json_first(edits);
    for (uint32_t i = 0; edits && i < edits->count; i++) {
        int column = kit_column(row->table, text_of(edit, "column", ""));
        int64_t ver = int_of(edit, "ver", 0);
        assert_int_equal(value_from_json(&k->a, json_get(edit, "value"), &row->row.values[column]),
                         GODWIT_OK);
        row->row.meta[column] = (merge_meta){.ver = ver,
                                             .at_ms = int_of(edit, "atMs", 0),
                                             .device = text_of(edit, "device", ""),
                                             .seq = int_of(edit, "seq", 0),
                                             .tags = text_of(edit, "tags", "")};
        row->row.ver = ver > row->row.ver ? ver : row->row.ver;
        edit = json_after(edit);
    }
    const json *deleted = json_get(node, "deleted");
    if (deleted) {
        kit_tombstone(row, int_of(deleted, "ver", 0), c_text(k, text_of(deleted, "device", "")));
    }
}

static wire_op make_op(kit *k, const json *node) {
    const json *payload = json_get(node, "payload"), *old = json_get(node, "old");
    wire_op op =
        kit_op(k, op_kind_parse(text_of(node, "kind", "")), "pins", "p", int_of(node, "base", 0),
               payload ? c_text(k, payload->u.s) : NULL, old ? c_text(k, old->u.s) : NULL);
    op.wall_ms = int_of(node, "wallMs", 0);
    if (flag_of(node, "baseLost", false)) {
        op.base_salt++;
    }
    kit_stand_at(k, int_of(node, "seq", 1) - 1);
    if (!flag_of(node, "stream", true)) {
        k->request.stream = false;
        op.base_commit = int_of(node, "base", -1);
    }
    return op;
}

static bool json_same(kit *k, slice text, const json *want) {
    if (!json_is(want, JSON_OBJECT)) {
        return text.len == 0;
    }
    const json *have, *key = json_first(want);
    if (text.len == 0 || json_parse(&k->a, text, &have, NULL) != GODWIT_OK ||
        have->count != want->count) {
        return false;
    }
    for (uint32_t i = 0; i < want->count; i++) {
        value x, y;
        const json *other = json_find(have, key->u.s);
        if (!other || value_from_json(&k->a, other, &x) != GODWIT_OK ||
            value_from_json(&k->a, key + 1, &y) != GODWIT_OK || !value_equal(&x, &y)) {
            return false;
        }
        key = json_after(key + 1);
    }
    return true;
}

static bool names_same(kit *k, slice text, const json *want) {
    const json *have;
    if (json_parse(&k->a, text, &have, NULL) != GODWIT_OK || have->count != want->count) {
        return false;
    }
    const json *x = json_first(have), *y = json_first(want);
    for (uint32_t i = 0; i < want->count; i++, x = json_after(x), y = json_after(y)) {
        if (!slice_equal(x->u.s, y->u.s)) {
            return false;
        }
    }
    return true;
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_message("expected: %s\n", #condition);                                           \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

static bool record_matches(kit *k, const decide_conflict *c, const json *want) {
    static const char *const images[] = {"base", "theirs", "ours", "chosen"};
    slice have[] = {c->base, c->theirs, c->ours, c->chosen};
    EXPECT(slice_equal(c->kind, text_of(want, "kind", "")));
    EXPECT(slice_equal(c->winner, text_of(want, "winner", "")));
    EXPECT(slice_equal(c->policy, text_of(want, "policy", "")));
    EXPECT(c->open == flag_of(want, "open", false));
    EXPECT(names_same(k, c->columns_json, json_get(want, "columns")));
    for (size_t i = 0; i < COUNT_OF(images); i++) {
        const json *image = json_get(want, images[i]);
        EXPECT(!image || json_same(k, have[i], image));
    }
    return true;
}

static bool values_match(kit *k, const decide_row *row, const json *want) {
    const json *key = json_first(want);
    for (uint32_t i = 0; want && i < want->count; i++) {
        value v;
        int column = kit_column(row->table, key->u.s);
        assert_int_equal(value_from_json(&k->a, key + 1, &v), GODWIT_OK);
        EXPECT(value_equal(&v, &row->row.values[column]));
        key = json_after(key + 1);
    }
    return true;
}

static bool plan_matches(kit *k, const decide_commit *commit, const json *want) {
    const decide_row *row = decide_row_find(&k->c, &k->tables[PINS], SLICE("p"));
    const decide_result *result = &commit->results[0];
    const char *code = op_code_name(result->code);
    bool refused = json_get(want, "code") != NULL, deletes = flag_of(want, "delete", false);
    const json *records = json_get(want, "records");
    EXPECT(slice_is(text_of(want, "outcome", ""), op_outcome_name(commit->outcome)));
    EXPECT(result->outcome == commit->outcome);
    EXPECT(slice_is(text_of(want, "code", ""), code ? code : ""));
    EXPECT(refused == (commit->outcome == OUTCOME_REJECTED || result->code != CODE_NONE));
    EXPECT(commit->conflict_count == records->count);
    const json *record = json_first(records);
    for (uint32_t i = 0; i < records->count; i++, record = json_after(record)) {
        EXPECT(record_matches(k, &commit->conflicts[i], record));
    }
    if (!flag_of(want, "changed", !refused)) {
        EXPECT(commit->change_count == 0);
        return !row || values_match(k, row, json_get(want, "values"));
    }
    if (refused) {
        EXPECT(commit->change_count == 0);
        return true;
    }
    bool several = json_get(want, "values") && commit->change_count == 0;
    EXPECT(several || commit->change_count == 1);
    if (commit->change_count == 1) {
        EXPECT(commit->changes[0].is_delete == deletes && row->row.deleted == deletes);
        EXPECT(commit->changes[0].full == flag_of(want, "full", false));
        EXPECT(row->row.ver == commit->commit_seq);
    }
    EXPECT(int_of(want, "gen", row->row.gen) == row->row.gen);
    EXPECT((result->row == row) == !row->row.deleted);
    return values_match(k, row, json_get(want, "values"));
}

static void every_row_of_the_table(void **state) {
    (void)state;
    const char *folder = getenv("GODWIT_GOLDEN");
    char path[4096];
    size_t len;
    snprintf(path, sizeof path, "%s/merge.json", folder ? folder : "tests/golden");
    char *text = read_file(path, &len);
    arena a;
    arena_init(&a, NULL, 0);
    const json *root, *cases;
    assert_int_equal(json_parse(&a, (slice){text, len}, &root, NULL), GODWIT_OK);
    cases = json_get(root, "cases");
    assert_true(cases->count > 80);
    const json *one = json_first(cases);
    int wrong = 0;
    for (uint32_t i = 0; i < cases->count; i++, one = json_after(one)) {
        kit k;
        schema_column columns[COUNT_OF(kit_pins)];
        kit_init(&k, 10);
        setup_table(&k, json_get(one, "table"), columns);
        setup_row(&k, json_get(one, "row"));
        wire_op op = make_op(&k, json_get(one, "op"));
        decide_commit commit = kit_group(&k, &op, 1);
        if (!plan_matches(&k, &commit, json_get(one, "expect"))) {
            bytes b;
            bytes_init(&b, NULL, 0);
            plan_write(&b, &commit);
            print_message("case: " SLICE_FMT "\n%s\n", SLICE_ARG(text_of(one, "name", "")), b.ptr);
            bytes_deinit(&b);
            wrong++;
        }
        kit_deinit(&k);
    }
    assert_int_equal(wrong, 0);
    arena_deinit(&a);
    free(text);
}

static void values_have_a_total_order(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    static const char *const rising[] = {"null",
                                         "{\"$real\":\"-inf\"}",
                                         "{\"$i64\":\"-9223372036854775808\"}",
                                         "-2.5",
                                         "-2",
                                         "0",
                                         "0.5",
                                         "1",
                                         "{\"$i64\":\"9007199254740993\"}",
                                         "{\"$i64\":\"9223372036854775807\"}",
                                         "9223372036854775808.0",
                                         "{\"$real\":\"inf\"}",
                                         "\"\"",
                                         "\"B\"",
                                         "\"a\"",
                                         "\"ab\"",
                                         "{\"$b64\":\"\"}",
                                         "{\"$b64\":\"AA==\"}"};
    for (size_t i = 0; i < COUNT_OF(rising); i++) {
        for (size_t j = 0; j < COUNT_OF(rising); j++) {
            value x = kit_value(&k, rising[i]), y = kit_value(&k, rising[j]);
            int order = merge_value_order(&x, &y);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
    }
    value one = kit_value(&k, "1"), one_real = kit_value(&k, "1.0");
    value odd = kit_value(&k, "{\"$i64\":\"9007199254740993\"}");
    value even = kit_value(&k, "9007199254740992.0");
    assert_int_equal(merge_value_order(&one, &one_real), 0);
    assert_true(merge_value_order(&odd, &even) > 0); /* not compared as doubles */
    kit_deinit(&k);
}

static void newer_is_by_number_and_stream(void **state) {
    (void)state;
    merge_meta m = {.ver = 5, .device = SLICE("d"), .seq = 3};
    assert_true(merge_newer(&m, 4, SLICE("e"), 9));
    assert_false(merge_newer(&m, 5, SLICE("e"), 9));
    assert_false(merge_newer(&m, 4, SLICE("d"), 4));
    assert_true(merge_newer(&m, 4, SLICE("d"), 3));
    m.device = (slice){0};
    m.seq = 0;
    assert_true(merge_newer(&m, 4, (slice){0}, 7)); /* no stream, no "own" */
}

/* Every verdict of every policy for one contested column, and antisymmetry of the lww order. */
static void policies_of_one_column(void **state) {
    (void)state;
    value ours = {.type = VALUE_INT, .u.i = 2}, theirs = {.type = VALUE_INT, .u.i = 3}, old = {0};
    bool known = true;
    merge_unit u = {.newer = true,
                    .ours = &ours,
                    .theirs = &theirs,
                    .old = &old,
                    .old_known = &known,
                    .count = 1,
                    .our_device = SLICE("a"),
                    .their_device = SLICE("b"),
                    .our_seq = 1,
                    .their_seq = 1};
    static const struct {
        merge_policy policy;
        int64_t our_at, their_at;
        merge_verdict verdict;
    } rows[] = {
        {POLICY_LWW, 2, 1, MERGE_OURS},         {POLICY_LWW, 1, 2, MERGE_THEIRS},
        {POLICY_LWW, 1, 1, MERGE_THEIRS},       {POLICY_SERVER_WINS, 2, 1, MERGE_THEIRS},
        {POLICY_CLIENT_WINS, 1, 2, MERGE_OURS}, {POLICY_MANUAL, 2, 1, MERGE_OPEN},
        {POLICY_MAX, 2, 1, MERGE_THEIRS},       {POLICY_MIN, 1, 2, MERGE_COMMUTATIVE},
        {POLICY_COUNTER, 2, 1, MERGE_OURS},     {POLICY_SET, 1, 2, MERGE_THEIRS},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        u.policy = rows[i].policy;
        u.our_at_ms = rows[i].our_at;
        u.their_at_ms = rows[i].their_at;
        assert_int_equal(merge_unit_decide(&u), rows[i].verdict);
        u.newer = false;
        assert_int_equal(merge_unit_decide(&u), MERGE_CAUSAL);
        u.newer = true;
        u.incomplete = true; /* never ours, whatever the policy */
        merge_verdict half = merge_unit_decide(&u);
        assert_int_equal(half, rows[i].policy == POLICY_MANUAL ? MERGE_OPEN : MERGE_THEIRS);
        u.incomplete = false;
    }
    for (int64_t at = 0; at < 3; at++) {
        for (int64_t seq = 0; seq < 3; seq++) {
            int x = merge_write_order(at, SLICE("a"), seq, 1, SLICE("a"), 1);
            int y = merge_write_order(1, SLICE("a"), 1, at, SLICE("a"), seq);
            assert_int_equal(x, -y);
            assert_int_equal(x == 0, at == 1 && seq == 1);
        }
    }
}

/* What lies behind the members of a unit is not of it. */
static void a_unit_ends_with_its_last_member(void **state) {
    (void)state;
    value ours[] = {{.type = VALUE_INT, .u.i = 1}, {.type = VALUE_INT, .u.i = 2}};
    value theirs[] = {{.type = VALUE_INT, .u.i = 1}, {.type = VALUE_INT, .u.i = 3}};
    value old[] = {{.type = VALUE_INT, .u.i = 5}, {.type = VALUE_INT, .u.i = 5}};
    bool known[] = {true, true};
    merge_unit u = {
        .newer = true, .ours = ours, .theirs = theirs, .old = old, .old_known = known, .count = 1};
    assert_int_equal(merge_unit_decide(&u), MERGE_AGREE);
    ours[0].u.i = 4;
    old[0].u.i = 1;
    assert_int_equal(merge_unit_decide(&u), MERGE_ABA);
    u.count = 2;
    assert_int_equal(merge_unit_decide(&u), MERGE_OURS);
}

/* The order of writes is strict: what is not later does not displace. */
static void a_tie_of_everything_keeps_what_is_there(void **state) {
    (void)state;
    value ours = {.type = VALUE_INT, .u.i = 1}, theirs = {.type = VALUE_INT, .u.i = 2}, old = {0};
    bool known = true;
    merge_unit u = {.newer = true,
                    .ours = &ours,
                    .theirs = &theirs,
                    .old = &old,
                    .old_known = &known,
                    .count = 1,
                    .our_at_ms = 7,
                    .their_at_ms = 7,
                    .our_device = SLICE("a"),
                    .their_device = SLICE("a"),
                    .our_seq = 4,
                    .their_seq = 4};
    assert_int_equal(merge_unit_decide(&u), MERGE_THEIRS);
    u.our_seq = 5;
    assert_int_equal(merge_unit_decide(&u), MERGE_OURS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table),
        cmocka_unit_test(values_have_a_total_order),
        cmocka_unit_test(newer_is_by_number_and_stream),
        cmocka_unit_test(policies_of_one_column),
        cmocka_unit_test(a_unit_ends_with_its_last_member),
        cmocka_unit_test(a_tie_of_everything_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
