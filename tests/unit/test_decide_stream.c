/* What decide says before it looks at any row: may the stream go on, was this decided before, is
 * the operation well formed. */
#include "decide_kit.h"

#define ALICE SLICE("alice")

static wire_op title_update(kit *k) {
    return kit_op(k, OP_UPDATE, "pins", "p", 3, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
}

/* A request of count operations from first_seq, each a group of its own. */
static void make_request(kit *k, int64_t first_seq, size_t count) {
    k->request.first_seq = first_seq;
    k->request.ops = ARENA_ARRAY(&k->a, wire_op, count);
    k->request.op_count = count;
    for (size_t i = 0; i < count; i++) {
        wire_op op = title_update(k);
        op.seq = op.group_first = first_seq + (int64_t)i;
        op.group_size = 1;
        memset(op.key, (int)op.seq, sizeof op.key);
        k->request.ops[i] = op;
    }
}

static stream_verdict verdict(kit *k, const decide_ledger *by_seq) {
    return decide_stream(&k->c, &k->device, ALICE, &k->request, by_seq);
}

static void stand_with_key(kit *k, int64_t seq) {
    kit_stand_at(k, seq);
    memset(k->device.last_key, (int)seq, SHA256_BYTES);
}

static void set_prev_key(kit *k, int byte) {
    k->request.has_prev_key = true;
    memset(k->request.prev_key, byte, SHA256_BYTES);
}

static void a_stream_goes_on(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 5);
    make_request(&k, 1, 3);
    assert_int_equal(verdict(&k, NULL), STREAM_OK);
    stand_with_key(&k, 4);
    make_request(&k, 5, 2);
    set_prev_key(&k, 4);
    assert_int_equal(verdict(&k, NULL), STREAM_OK);
    k.request.acked_seq = 4;
    assert_int_equal(verdict(&k, NULL), STREAM_OK);
    k.request = (push_request){.stream = true}; /* nothing to send, no place named */
    assert_int_equal(verdict(&k, NULL), STREAM_OK);
    kit_deinit(&k);
}

static void devices_that_may_not_push(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 5);
    make_request(&k, 1, 1);
    assert_int_equal(decide_stream(&k.c, &k.device, SLICE("bob"), &k.request, NULL),
                     STREAM_FORBIDDEN_DEVICE);
    k.device.state = DEVICE_REVOKED;
    assert_int_equal(verdict(&k, NULL), STREAM_REVOKED);
    k.device.state = DEVICE_RETIRED;
    assert_int_equal(verdict(&k, NULL), STREAM_RETIRED);
    k.device.state = DEVICE_FORKED;
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    assert_int_equal(decide_stream(&k.c, &k.device, SLICE("bob"), &k.request, NULL),
                     STREAM_FORBIDDEN_DEVICE); /* before anything about its state is told */
    kit_deinit(&k);
}

static void holes_and_lost_history(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 5);
    stand_with_key(&k, 4);
    make_request(&k, 6, 1);
    set_prev_key(&k, 5);
    assert_int_equal(verdict(&k, NULL), STREAM_GAP);
    k.request.acked_seq = 5; /* the server has told of 5 before: it lost history */
    assert_int_equal(verdict(&k, NULL), STREAM_REGRESSED);
    k.request = (push_request){.stream = true, .acked_seq = 5};
    assert_int_equal(verdict(&k, NULL), STREAM_REGRESSED);
    kit_deinit(&k);
}

static void forks_at_the_boundary(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 5);
    stand_with_key(&k, 4);
    make_request(&k, 5, 1);
    set_prev_key(&k, 9);
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    k.request.has_prev_key = false;
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    set_prev_key(&k, 4);
    k.request.op_count = 0; /* a place is named: it is checked without operations, too */
    assert_int_equal(verdict(&k, NULL), STREAM_OK);
    set_prev_key(&k, 9);
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    kit_stand_at(&k, 0);
    make_request(&k, 1, 1); /* a key before the first operation: somebody else's start */
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    kit_deinit(&k);
}

static void forks_among_resent(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 5);
    stand_with_key(&k, 4);
    make_request(&k, 3, 3); /* 3 and 4 again, 5 new */
    decide_ledger by_seq[3] = {{.found = true}, {.found = true}};
    memset(by_seq[0].key, 3, SHA256_BYTES);
    memset(by_seq[1].key, 4, SHA256_BYTES);
    assert_int_equal(verdict(&k, by_seq), STREAM_OK);
    by_seq[1].key[31] ^= 1;
    assert_int_equal(verdict(&k, by_seq), STREAM_FORKED);
    by_seq[1].key[31] ^= 1;
    by_seq[0].found = false; /* purged: it was confirmed, so this is a clone or an old backup */
    assert_int_equal(verdict(&k, by_seq), STREAM_FORKED);
    assert_int_equal(verdict(&k, NULL), STREAM_FORKED);
    by_seq[0].found = true;
    k.request.ops[1].group_size =
        2; /* 4 was decided as a group; now it ends behind the watermark */
    assert_int_equal(verdict(&k, by_seq), STREAM_FORKED);
    kit_deinit(&k);
}

static void bases_of_this_history_only(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op op = title_update(&k);
    op.seq = 1;
    assert_int_equal(decide_effective_base(&k.c, &op), 3);
    op.base_salt++;
    assert_int_equal(decide_effective_base(&k.c, &op), 0);
    op.base_seq = 10;
    op.base_salt = KIT_SALT(10);
    assert_int_equal(decide_effective_base(&k.c, &op), 0);
    op.base_seq = op.base_salt = 0;
    assert_int_equal(decide_effective_base(&k.c, &op), 0);
    op.seq = 0; /* without a stream */
    assert_int_equal(decide_effective_base(&k.c, &op), 9);
    op.base_commit = 4;
    assert_int_equal(decide_effective_base(&k.c, &op), 4);
    op.base_commit = 0;
    assert_int_equal(decide_effective_base(&k.c, &op), 0);
    op.base_commit = 10;
    assert_int_equal(decide_effective_base(&k.c, &op), 0);
    kit_deinit(&k);
}

/* ---- decided before, under another identity ---- */

static void place(kit *k, wire_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ops[i].seq = k->device.applied_seq + 1 + (int64_t)i;
        ops[i].rekeyed = true;
    }
}

static decide_commit decide_known(kit *k, wire_op *ops, size_t count, const decide_ledger *by_key) {
    decide_commit out;
    place(k, ops, count);
    assert_int_equal(
        decide_group(&k->c, &k->device, &k->request, ops, count, by_key, false, NULL, &out),
        GODWIT_OK);
    return out;
}

static void a_known_group_is_a_duplicate(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[2] = {title_update(&k), title_update(&k)};
    decide_ledger by_key[2] = {
        {.found = true, .commit_seq = 7, .outcome = OUTCOME_MERGED, .result = SLICE("{\"a\":1}")},
        {.found = true,
         .commit_seq = 7,
         .outcome = OUTCOME_REJECTED,
         .code = CODE_NOT_NULL,
         .detail = SLICE("why")}};
    decide_commit out = decide_known(&k, ops, 2, by_key);
    assert_int_equal(out.outcome, OUTCOME_DUPLICATE);
    assert_int_equal(out.commit_seq, 10);
    assert_int_equal(k.c.head, 10);
    assert_int_equal(out.first_seq, 1);
    assert_int_equal(out.last_seq, 2);
    assert_int_equal(out.change_count, 0);
    assert_int_equal(out.conflict_count, 0);
    assert_int_equal(out.results[0].outcome, OUTCOME_MERGED);
    assert_int_equal(out.results[0].first_commit, 7);
    assert_true(slice_is(out.results[0].result, "{\"a\":1}"));
    assert_int_equal(out.results[1].code, CODE_NOT_NULL);
    assert_true(slice_is(out.results[1].detail, "why"));
    assert_true(value_is(row, "title", "\"A\"")); /* not done twice */
    assert_int_equal(row->row.ver, 2);
    assert_int_equal(k.device.applied_seq, 2);
    assert_memory_equal(k.device.last_key, ops[1].key, SHA256_BYTES);
    kit_deinit(&k);
}

static void check_unverifiable(kit *k, const decide_commit *out, size_t count) {
    decide_row *row = decide_row_find(&k->c, &k->tables[PINS], SLICE("p"));
    assert_int_equal(out->outcome, OUTCOME_CONFLICT);
    assert_int_equal(out->change_count, 0);
    assert_int_equal(out->conflict_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(out->results[i].outcome, OUTCOME_CONFLICT);
        assert_int_equal(out->results[i].code, CODE_UNVERIFIABLE);
        assert_true(out->conflicts[i].open);
        assert_true(slice_is(out->conflicts[i].kind, "unverifiable"));
        assert_true(slice_is(out->conflicts[i].ours, "{\"title\":\"B\"}")); /* content is kept */
        assert_ptr_equal(out->conflicts[i].op, out->results[i].op);
        assert_true(out->results[i].conflicts_json.len > 2);
    }
    assert_true(value_is(row, "title", "\"A\""));
}

static void half_known_is_never_executed(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[2] = {title_update(&k), title_update(&k)};
    decide_ledger by_key[2] = {{.found = true, .commit_seq = 7, .outcome = OUTCOME_APPLIED}};
    decide_commit out = decide_known(&k, ops, 2, by_key);
    check_unverifiable(&k, &out, 2);
    kit_deinit(&k);
}

static void what_the_ledger_may_have_forgotten(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    decide_ledger none[1] = {{0}};
    wire_op op = title_update(&k); /* base 3 */
    k.c.ledger_floor = 4;
    decide_commit out = decide_known(&k, &op, 1, none);
    check_unverifiable(&k, &out, 1);
    k.c.ledger_floor = 3; /* decided above its base, and nothing above 3 was forgotten: new */
    op = title_update(&k);
    out = decide_known(&k, &op, 1, none);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_true(value_is(row, "title", "\"B\""));
    k.c.ledger_floor = 4; /* only re-keyed operations can be old ones */
    op = title_update(&k);
    out = kit_group(&k, &op, 1);
    assert_int_not_equal(out.outcome, OUTCOME_CONFLICT);
    kit_deinit(&k);
}

/* ---- refused for what they are ---- */

static void check_alone(kit *k, wire_op op, op_code code) {
    decide_commit out = kit_group(k, &op, 1);
    if (out.results[0].code != code) {
        print_message("%s/" SLICE_FMT ": %s\n", op_kind_name(op.kind), SLICE_ARG(op.entity_id),
                      op_code_name(out.results[0].code) ? op_code_name(out.results[0].code) : "-");
    }
    assert_int_equal(out.results[0].code, code);
    assert_int_equal(out.outcome, code == CODE_NONE ? OUTCOME_APPLIED : OUTCOME_REJECTED);
    assert_true(code == CODE_NONE || out.results[0].detail.len > 0);
    assert_int_equal(out.change_count, code == CODE_NONE);
}

static wire_op create(kit *k, const char *entity, const char *id, const char *payload) {
    return kit_op(k, OP_CREATE, entity, id, 0, payload, NULL);
}

/* A column nobody knows, `a` times so many and then a character of two bytes: what the detail shows. */
static void check_detail(kit *k, size_t a, const char *end, size_t shown, bool cut) {
    char payload[128], name[96];
    memset(name, 'a', a);
    (void)snprintf(name + a, sizeof name - a, "%s", end);
    (void)snprintf(payload, sizeof payload, "{\"%s\":1}", name);
    wire_op op = create(k, "pins", "1", payload);
    decide_commit out = kit_group(k, &op, 1);
    char want[192];
    (void)snprintf(want, sizeof want, "\"%.*s%s\"", (int)shown, name, cut ? ".." : "");
    slice got = out.results[0].detail;
    if (got.len < strlen(want) ||
        memcmp(got.ptr + got.len - strlen(want), want, strlen(want)) != 0) {
        fail_msg("%.*s does not end with %s", (int)got.len, got.ptr, want);
    }
}

static void long_names_are_cut_between_characters(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    check_detail(&k, 63, "", 63, false);
    check_detail(&k, 64, "", 64, false);
    check_detail(&k, 65, "", 64, true);
    check_detail(&k, 62, "\xc3\xa4", 64, false);
    check_detail(&k, 63, "\xc3\xa4", 63, true);
    check_detail(&k, 62, "\xc3\xa4x", 64, true);
    kit_deinit(&k);
}

static void names_and_values(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    check_alone(&k, create(&k, "nosuch", "1", "{}"), CODE_UNKNOWN_ENTITY);
    check_alone(&k, create(&k, "pins", "1", "{\"nosuch\":1}"), CODE_UNKNOWN_COLUMN);
    check_alone(&k, create(&k, "pins", "1", "{\"title\":\"x\",\"Title\":1}"), CODE_UNKNOWN_COLUMN);
    check_alone(&k, create(&k, "pins", "1", "{\"title\":{\"$inc\":1}}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "pins", "1", "{\"title\":{\"$b64\":\"!\"}}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "pins", "1", "{\"id\":\"2\"}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "pins", "1", "{\"id\":1}"), CODE_INVALID_VALUE);
    check_alone(&k, kit_op(&k, OP_NONE, "pins", "1", 0, NULL, NULL), CODE_UNKNOWN_OPERATION);
    wire_op odd = create(&k, "pins", "1",
                         "{\"\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4"
                         "\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4"
                         "\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4"
                         "\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4"
                         "x\\u00e4\\u00e4\\u00e4\":1}");
    decide_commit out = kit_group(&k, &odd, 1);
    assert_int_equal(out.results[0].code, CODE_UNKNOWN_COLUMN);
    assert_true(json_utf8_valid(out.results[0].detail)); /* cut between characters */
    assert_true(out.results[0].detail.len < 100);
    kit_deinit(&k);
}

static void keys_of_every_kind(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    check_alone(&k, create(&k, "cells", "[\"1\",\"x\"]", "{\"v\":1}"), CODE_NONE);
    decide_row *row = decide_row_find(&k.c, &k.tables[CELLS], SLICE("[\"1\",\"x\"]"));
    assert_true(value_is(row, "x", "1"));
    assert_true(value_is(row, "y", "\"x\""));
    check_alone(&k, create(&k, "cells", "[\"-9223372036854775808\",\"\"]", "{\"y\":\"\"}"),
                CODE_NONE);
    row = decide_row_find(&k.c, &k.tables[CELLS], SLICE("[\"-9223372036854775808\",\"\"]"));
    assert_true(value_is(row, "x", "{\"$i64\":\"-9223372036854775808\"}"));
    check_alone(&k, create(&k, "cells", "[\"2\",\"x\"]", "{\"x\":3,\"v\":1}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "cells", "[\"02\",\"x\"]", "{}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "cells", "[\"2\"]", "{}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "cells", "2", "{}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "cells", "[\"9223372036854775808\",\"x\"]", "{}"),
                CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "files", "00ff", "{\"h\":{\"$b64\":\"AP8=\"},\"name\":\"n\"}"),
                CODE_NONE);
    row = decide_row_find(&k.c, &k.tables[FILES], SLICE("00ff"));
    assert_true(value_is(row, "h", "{\"$b64\":\"AP8=\"}"));
    check_alone(&k, create(&k, "files", "0", "{}"), CODE_INVALID_VALUE);
    check_alone(&k, create(&k, "files", "FF", "{}"), CODE_INVALID_VALUE);
    check_alone(&k, kit_op(&k, OP_DELETE, "files", "xyz", 0, NULL, NULL), CODE_INVALID_VALUE);
    kit_deinit(&k);
}

static void scopes_stay_apart(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    check_alone(&k, create(&k, "tenants", "1", "{\"tenant\":\"s1\",\"v\":1}"), CODE_NONE);
    check_alone(&k, create(&k, "tenants", "2", "{\"tenant\":\"s2\",\"v\":1}"), CODE_FORBIDDEN);
    check_alone(&k, create(&k, "tenants", "3", "{\"v\":1}"), CODE_NONE);
    decide_row *row = decide_row_find(&k.c, &k.tables[TENANTS], SLICE("3"));
    assert_true(value_is(row, "tenant", "\"s1\"")); /* filled in */
    check_alone(&k, kit_op(&k, OP_UPDATE, "tenants", "1", 0, "{\"tenant\":\"s2\"}", NULL),
                CODE_FORBIDDEN);
    k.c.scope = SLICE("7");
    check_alone(&k, create(&k, "tenants", "4", "{\"tenant\":7}"), CODE_NONE);
    check_alone(&k, create(&k, "tenants", "5", "{\"tenant\":8}"), CODE_FORBIDDEN);
    k.tables[FILES].scope = SLICE("s9");
    check_alone(&k, create(&k, "files", "aa", "{}"), CODE_FORBIDDEN);
    k.tables[FILES].scope = SLICE("7");
    check_alone(&k, create(&k, "files", "aa", "{}"), CODE_NONE);
    kit_deinit(&k);
}

static void sizes(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    char *big = malloc(ROW_BYTES_MAX + 100);
    size_t len = ROW_BYTES_MAX - 100;
    memcpy(big, "{\"title\":\"", 10);
    memset(big + 10, 'x', len);
    memcpy(big + 10 + len, "\"}", 3);
    check_alone(&k, create(&k, "pins", "1", big), CODE_NONE);
    /* each small enough, together over the limit of a row */
    decide_row *row = decide_row_find(&k.c, &k.tables[PINS], SLICE("1"));
    memset(big, 'y', 300);
    memcpy(big, "{\"note\":\"", 9);
    memcpy(big + 209, "\"}", 3);
    check_alone(&k, kit_op(&k, OP_UPDATE, "pins", "1", 0, big, NULL), CODE_TOO_LARGE);
    assert_true(value_is(row, "note", "null"));
    big[50] = '"';
    big[51] = '}';
    big[52] = 0;
    check_alone(&k, kit_op(&k, OP_UPDATE, "pins", "1", 0, big, NULL), CODE_NONE);
    wire_op op = create(&k, "pins", "2", "{}");
    op.payload.len = ROW_BYTES_MAX + 1; /* its text is not read again */
    check_alone(&k, op, CODE_TOO_LARGE);
    free(big);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_goes_on),
        cmocka_unit_test(devices_that_may_not_push),
        cmocka_unit_test(holes_and_lost_history),
        cmocka_unit_test(forks_at_the_boundary),
        cmocka_unit_test(forks_among_resent),
        cmocka_unit_test(bases_of_this_history_only),
        cmocka_unit_test(a_known_group_is_a_duplicate),
        cmocka_unit_test(half_known_is_never_executed),
        cmocka_unit_test(what_the_ledger_may_have_forgotten),
        cmocka_unit_test(names_and_values),
        cmocka_unit_test(long_names_are_cut_between_characters),
        cmocka_unit_test(keys_of_every_kind),
        cmocka_unit_test(scopes_stay_apart),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
