/* What is seldom said: bounds that are met, forms of a message that few callers use, names of
 * things that were renamed, statuses without a text. */
#include <math.h>

#include "wire_kit.h"

#include "core/commute.h"
#include "core/limits.h"
#include "core/round.h"
#include "godwit/godwit.h"

#define TEXT(s_) ((value){.type = VALUE_TEXT, .u.s = slice_of(s_)})
#define INT(n)   ((value){.type = VALUE_INT, .u.i = (n)})
#define REAL(n)  ((value){.type = VALUE_REAL, .u.d = (n)})

/* ---- Column types ---- */

static value special(arena *a, const char *text) {
    value out = {.type = VALUE_SPECIAL};
    assert_int_equal(json_parse(a, slice_of(text), &out.u.node, NULL), GODWIT_OK);
    return out;
}

static void replay(arena *a, merge_policy policy, value present, const value *old, value now,
                   commute_result want, const char *text) {
    value out = {.type = VALUE_NULL};
    bytes b;
    bytes_init(&b, NULL, 0);
    assert_int_equal(commute_replay(a, policy, &present, old, &now, &out), want);
    if (want == COMMUTE_OK) {
        value_to_json(&b, &out);
        assert_slice(bytes_view(&b), text);
    }
    bytes_deinit(&b);
}

static void waiting_operations_are_shown_as_they_will_be(void **state) {
    (void)state;
    const value two = INT(2), set = TEXT("[\"a\"]"), text = TEXT("x");
    arena a;
    arena_init(&a, NULL, 0);
    replay(&a, POLICY_COUNTER, INT(10), &two, INT(5), COMMUTE_OK, "13");
    replay(&a, POLICY_COUNTER, INT(10), NULL, special(&a, "{\"$inc\":2}"), COMMUTE_OK, "12");
    replay(&a, POLICY_COUNTER, REAL(0.5), &two, INT(5), COMMUTE_OK, "3.5");
    replay(&a, POLICY_COUNTER, INT(1), &two, REAL(2.5), COMMUTE_OK, "1.5");
    replay(&a, POLICY_COUNTER, INT(10), NULL, INT(5), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_COUNTER, INT(10), &text, INT(5), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_COUNTER, TEXT("x"), &two, INT(5), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_COUNTER, TEXT("x"), NULL, special(&a, "{\"$inc\":2}"), COMMUTE_BAD, NULL);
    replay(&a, POLICY_COUNTER, REAL(1e308), NULL, special(&a, "{\"$inc\":1e308}"), COMMUTE_BAD,
           NULL);
    replay(&a, POLICY_SET, TEXT("[\"b\"]"), &set, TEXT("[\"c\"]"), COMMUTE_OK,
           "\"[\\\"b\\\",\\\"c\\\"]\"");
    replay(&a, POLICY_SET, TEXT("[\"b\"]"), NULL, TEXT("[\"c\"]"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("no list"), &set, TEXT("[\"c\"]"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("no list"), NULL, special(&a, "{\"$add\":[1]}"), COMMUTE_BAD, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), &text, TEXT("[1]"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), &set, INT(1), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), &set, TEXT("{}"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), &set, TEXT("[[1]]"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), NULL, special(&a, "{\"$add\":7}"), COMMUTE_BAD, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), NULL, special(&a, "{\"$add\":[1],\"x\":1}"), COMMUTE_BAD,
           NULL);
    replay(&a, POLICY_SET, TEXT("[]"), NULL, special(&a, "{}"), COMMUTE_BAD, NULL);
    replay(&a, POLICY_SET, TEXT("[]"), NULL, special(&a, "[]"), COMMUTE_BAD, NULL);
    replay(&a, POLICY_MAX, INT(10), &two, INT(5), COMMUTE_OK, "10");
    replay(&a, POLICY_MAX, INT(3), &two, INT(5), COMMUTE_OK, "5");
    replay(&a, POLICY_MIN, INT(3), &two, INT(5), COMMUTE_OK, "3");
    replay(&a, POLICY_MAX, INT(2), &two, INT(1), COMMUTE_PLAIN, NULL); /* as nobody else wrote */
    replay(&a, POLICY_MAX, INT(3), NULL, INT(1), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_MAX, INT(3), &two, special(&a, "{\"$inc\":2}"), COMMUTE_PLAIN, NULL);
    replay(&a, POLICY_LWW, INT(3), &two, INT(1), COMMUTE_PLAIN, NULL);
    arena_deinit(&a);
}

static void a_first_value_of_a_plain_column(void **state) {
    (void)state;
    arena a;
    value out, seven = INT(7);
    arena_init(&a, NULL, 0);
    value odd = special(&a, "{\"$inc\":2}"), set = special(&a, "{\"$add\":[1,1,\"x\"]}");
    assert_int_equal(commute_first(&a, POLICY_LWW, &seven, &out), COMMUTE_OK);
    assert_int_equal(commute_first(&a, POLICY_LWW, &odd, &out), COMMUTE_BAD);
    assert_int_equal(commute_first(&a, POLICY_SET, &set, &out), COMMUTE_OK);
    assert_slice(out.u.s, "[1,\"x\"]");
    arena_deinit(&a);
}

static void sets_are_bounded(void **state) {
    (void)state;
    arena a;
    bytes b;
    value out;
    arena_init(&a, NULL, 0);
    for (int extra = 0; extra < 2; extra++) {
        bytes_init(&b, NULL, 0);
        for (int i = 0; i < SET_ELEMENTS_MAX + extra; i++) {
            bytes_printf(&b, "%c%d", i ? ',' : '[', i);
        }
        bytes_char(&b, ']');
        const value full = {.type = VALUE_TEXT, .u.s = bytes_view(&b)};
        assert_int_equal(commute_first(&a, POLICY_SET, &full, &out),
                         extra ? COMMUTE_BAD : COMMUTE_OK);
        if (!extra) { /* one more is one too many */
            value one = special(&a, "{\"$add\":[\"more\"]}");
            const merge_meta nobody = {0};
            const commute_set_write write = {.present = &full, .now = &one, .inherited = &nobody};
            slice tags;
            assert_int_equal(commute_set(&a, &write, &out, &tags), COMMUTE_BAD);
        }
        bytes_deinit(&b);
    }
    arena_deinit(&a);
}

/* Tags that were damaged count as none, so that an element nobody holds on to goes. */
static void damaged_tags_hold_nothing(void **state) {
    (void)state;
    static const char *const tags[] = {"{\"1\":[7]}", "{\"1\":[[1,\"d\"]]}",
                                       "{\"1\":[[\"x\",\"d\",1]]}", "{\"1\":[[1,7,1]]}",
                                       "{\"1\":[[1,\"d\",\"x\"]]}"};
    const value present = TEXT("[1,2]");
    const merge_meta inherited = {.ver = 1, .device = SLICE("x"), .seq = 1};
    arena a;
    value out;
    slice made;
    arena_init(&a, NULL, 0);
    value add = special(&a, "{\"$add\":[3]}");
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        const commute_set_write write = {.present = &present,
                                         .now = &add,
                                         .tags = slice_of(tags[i]),
                                         .inherited = &inherited,
                                         .author = {.commit = 9, .seq = 1, .device = SLICE("d")}};
        assert_int_equal(commute_set(&a, &write, &out, &made), COMMUTE_OK);
        assert_slice(out.u.s, "[2,3]");
    }
    arena_deinit(&a);
}

/* In a group of columns MAX is the latest write's. */
static void an_extreme_in_a_group_is_the_latest(void **state) {
    (void)state;
    const value ours[] = {INT(1), INT(2)}, theirs[] = {INT(5), INT(6)}, old[] = {INT(0), INT(0)};
    const bool known[] = {true, true};
    merge_unit u = {.policy = POLICY_MAX,
                    .count = 2,
                    .ours = ours,
                    .theirs = theirs,
                    .old = old,
                    .old_known = known,
                    .newer = true,
                    .our_at_ms = 5,
                    .their_at_ms = 4,
                    .our_device = SLICE("a"),
                    .their_device = SLICE("b")};
    assert_int_equal(merge_unit_decide(&u), MERGE_OURS);
    u.their_at_ms = 6;
    assert_int_equal(merge_unit_decide(&u), MERGE_THEIRS);
    u.our_device = SLICE("");
    assert_int_equal(merge_unit_decide(&u), MERGE_THEIRS);
    u.our_at_ms = 6;
    assert_int_equal(merge_unit_decide(&u), MERGE_OURS);
    u.policy = POLICY_CUSTOM;
    u.incomplete = true;
    assert_int_equal(merge_unit_decide(&u), MERGE_OPEN);
}

/* ---- Registry ---- */

static void types_of_columns_have_names(void **state) {
    (void)state;
    static const merge_policy types[] = {POLICY_MAX, POLICY_MIN, POLICY_COUNTER, POLICY_SET};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        assert_int_equal(schema_policy_of_type(slice_of(schema_policy_type(types[i]))), types[i]);
    }
    assert_int_equal(schema_policy_of_type(SLICE("manual")), POLICY_LWW);
    assert_null(schema_policy_type(POLICY_CUSTOM));
    assert_true(schema_key_fits(SLICE("bigint")) && schema_key_fits(SLICE("uuid")));
    assert_true(schema_key_fits(SLICE("")) && schema_key_fits(SLICE("NUMERIC TEXT")));
    assert_false(schema_key_fits(SLICE("real")) || schema_key_fits(SLICE("Decimal(10,2)")));
}

static void a_table_tells_types_and_former_names(void **state) {
    (void)state;
    static const slice former[] = {{"head", 4}, {"heading", 7}};
    schema_column columns[] = {{.name = SLICE("id"), .type = SLICE("BLOB"), .is_key = true},
                               {.name = SLICE("title"), .former = former, .former_count = 2},
                               {.name = SLICE("gone"), .local = true},
                               {.name = SLICE("n"), .policy = POLICY_COUNTER}};
    const schema_table t = {.name = SLICE("t"),
                            .entity = SLICE("t"),
                            .columns = columns,
                            .column_count = 4,
                            .key_count = 1,
                            .key_kinds = {KEY_BLOB}};
    bytes b;
    arena a;
    slice parts[16];
    bytes_init(&b, NULL, 0);
    arena_init(&a, NULL, 0);
    schema_table_to_json(&b, &t);
    assert_slice(bytes_view(&b),
                 "{\"name\":\"t\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":"
                 "\"BLOB\"},{\"name\":\"title\",\"type\":\"\",\"former\":[\"head\",\"heading\"]},"
                 "{\"name\":\"n\",\"type\":\"\",\"merge\":\"counter\"}]}");
    assert_int_equal(schema_column_index(&t, SLICE("heading")), 1);
    assert_int_equal(schema_id_parts(&a, &t, SLICE("0aff"), parts), GODWIT_OK);
    assert_int_equal(schema_id_parts(&a, &t, SLICE("0aFf"), parts), GODWIT_INVALID);
    assert_int_equal(schema_id_parts(&a, &t, SLICE("0a/"), parts), GODWIT_INVALID);
    assert_int_equal(schema_id_parts(&a, &t, SLICE("0a:g"), parts), GODWIT_INVALID);
    assert_int_equal(schema_id_parts(&a, &t, SLICE("0af"), parts), GODWIT_INVALID);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void refused(arena *a, slice text, godwit_status want, const char *part) {
    const json *root = NULL;
    const char *reason = NULL;
    schema s;
    assert_int_equal(json_parse(a, text, &root, NULL), GODWIT_OK);
    assert_int_equal(schema_from_json(a, root, &s, &reason), want);
    assert_non_null(strstr(reason, part));
}

static void declarations_are_bounded(void **state) {
    (void)state;
    arena a;
    bytes b;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "[{\"name\":\"t\",\"primaryKey\":[");
    for (int i = 0; i <= KEY_COLUMNS_MAX; i++) {
        bytes_printf(&b, "%s\"c%d\"", i ? "," : "", i);
    }
    bytes_text(&b, "],\"columns\":[");
    for (int i = 0; i <= KEY_COLUMNS_MAX; i++) {
        bytes_printf(&b, "%s{\"name\":\"c%d\"}", i ? "," : "", i);
    }
    bytes_text(&b, "]}]");
    refused(&a, bytes_view(&b), GODWIT_LIMIT, "too many columns in primaryKey");
    bytes_clear(&b);
    bytes_text(&b, "[{\"name\":\"t\",\"primaryKey\":[\"a\"],\"columns\":[{\"name\":\"a\"}],"
                   "\"foreignKeys\":[0");
    for (int i = 0; i < 64; i++) {
        bytes_text(&b, ",0");
    }
    bytes_text(&b, "]}]");
    refused(&a, bytes_view(&b), GODWIT_LIMIT, "too many foreign keys");
    static const char *const types[] = {
        "N(1;2)",
        "N(1",
        "N(",
        "N(1,2,3)",
        "N(1)x",
        "N!",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        bytes_clear(&b);
        bytes_printf(&b,
                     "[{\"name\":\"t\",\"primaryKey\":[\"a\"],\"columns\":[{\"name\":\"a\","
                     "\"type\":\"%s\"}]}]",
                     types[i]);
        refused(&a, bytes_view(&b), GODWIT_INVALID, "not a type name");
    }
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* Each member of a foreign key has its shape. */
static void foreign_keys_have_their_shape(void **state) {
    (void)state;
    static const struct {
        const char *fk, *part;
    } table[] = {
        {"7", "names no table"},
        {"{\"table\":7}", "names no table"},
        {"{\"table\":\"\"}", "names no table"},
        {"{\"table\":\"t\",\"columns\":7,\"refColumns\":[\"a\"]}", "do not match"},
        {"{\"table\":\"t\",\"columns\":[],\"refColumns\":[]}", "do not match"},
        {"{\"table\":\"t\",\"columns\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],\"refColumns\":[]}",
         "do not match"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":7}", "do not match"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":[]}", "do not match"},
        {"{\"table\":\"t\",\"columns\":[7],\"refColumns\":[\"a\"]}", "unknown column"},
        {"{\"table\":\"t\",\"columns\":[\"b\"],\"refColumns\":[\"a\"]}", "unknown column"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":[7]}", "unknown column"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":[\"\"]}", "unknown column"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":[\"a\"],\"onDelete\":7}",
         "unknown onDelete"},
        {"{\"table\":\"t\",\"columns\":[\"a\"],\"refColumns\":[\"a\"],\"onDelete\":\"X\"}",
         "unknown onDelete"},
    };
    arena a;
    bytes b;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        bytes_clear(&b);
        bytes_printf(&b,
                     "[{\"name\":\"t\",\"primaryKey\":[\"a\"],\"columns\":[{\"name\":\"a\"}],"
                     "\"foreignKeys\":[%s]}]",
                     table[i].fk);
        refused(&a, bytes_view(&b), GODWIT_INVALID, table[i].part);
    }
    refused(&a, SLICE("[{\"name\":\"t\",\"primaryKey\":[\"a\"],\"columns\":[{\"name\":\"\"}]}]"),
            GODWIT_INVALID, "a column has no valid name");
    refused(&a,
            SLICE("[{\"name\":\"t\",\"primaryKey\":[\"a\"],\"columns\":[{\"name\":\"a\","
                  "\"type\":7}]}]"),
            GODWIT_INVALID, "not a type name");
    refused(&a,
            SLICE("[{\"name\":\"t\",\"entity\":\"\",\"primaryKey\":[\"a\"],\"columns\":"
                  "[{\"name\":\"a\"}]}]"),
            GODWIT_INVALID, "entity is not a valid name");
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* ---- Messages ---- */

static void comparisons_name_several_identities(void **state) {
    (void)state;
    const stream_key key = {.seq = 3, .key = {7}};
    reconcile_identity identities[] = {{SLICE("d-2"), &key, 1}, {SLICE("d-1"), NULL, 0}};
    const reconcile_request r = {
        .scope = SLICE("s"), .identities = identities, .identity_count = 2};
    reconcile_request back;
    wire_error e;
    arena a;
    bytes b;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    wire_reconcile_write(&b, &r);
    assert_int_equal(wire_reconcile_parse(&a, bytes_view(&b), &back, &e), GODWIT_OK);
    assert_int_equal(back.identity_count, 2);
    assert_int_equal(back.identities[0].keys[0].seq, 3);
    assert_slice(back.identities[1].device_id, "d-1");
    assert_int_equal(back.identities[1].key_count, 0);
    assert_int_equal(back.cursor.len, 0);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void a_device_reports_itself(void **state) {
    (void)state;
    arena a;
    bytes b;
    wire_report r, back;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    r = (wire_report){3, 1, 5300, SLICE("not-null-9")};
    wire_report_write(&b, &r);
    wire_report_parse(&a, bytes_view(&b), &back);
    assert_int_equal(back.pending, 3);
    assert_int_equal(back.failed, 1);
    assert_int_equal(back.oldest_pending_ms, 5300);
    assert_slice(back.last_error, "not-null-9");
    bytes_clear(&b);
    r.last_error = SLICE("");
    wire_report_write(&b, &r);
    assert_slice(bytes_view(&b),
                 "{\"pending\":3,\"failed\":1,\"oldestPendingMs\":5300,\"lastError\":null}");
    static const char *const bad[] = {
        "",
        "7",
        "{",
        "{\"pending\":-1}",
        "{\"pending\":\"1\"}",
        "{\"pending\":9007199254740993}",
        "{\"failed\":-1}",
        "{\"oldestPendingMs\":1.5}",
        "{\"lastError\":7}",
        "{\"lastError\":\"A\"}",
        "{\"lastError\":\"a_b\"}",
        "{\"lastError\":\"{\"}",
        "{\"lastError\":\"/\"}",
        "{\"lastError\":\":\"}",
        "{\"lastError\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        wire_report_parse(&a, slice_of(bad[i]), &back);
        assert_true(back.pending == 0 && back.failed == 0 && back.oldest_pending_ms == 0);
        assert_int_equal(back.last_error.len, 0);
    }
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* Decisions about conflicts, versions of the schema and other lineages travel. */
static void operations_say_what_they_decide(void **state) {
    (void)state;
    wire_op ops[KIT_OPS];
    push_head head = kit_head();
    push_request r;
    wire_error e;
    bytes b;
    arena a;
    bool first = true;
    kit_ops(ops);
    ops[0].resolves = SLICE("c-1");
    ops[0].schema = 7;
    ops[2].resolves = SLICE("c-2 c-4");
    ops[2].reverts = true;
    ops[2].lineage = SLICE("another");
    kit_key(&ops[2], KIT_SCOPE);
    ops[3].resolves = SLICE("c-3"); /* a void decides nothing */
    ops[3].schema = 7;
    bytes_init(&b, NULL, 0);
    arena_init(&a, NULL, 0);
    wire_push_begin(&b, &head);
    for (size_t i = 0; i < KIT_OPS; i++) {
        wire_push_op(&b, &first, head.device_id, &ops[i]);
    }
    wire_push_end(&b);
    if (wire_push_parse(&a, bytes_view(&b), true, KIT_SCOPE, &r, &e) != GODWIT_OK) {
        fail_msg("%s", e.detail);
    }
    assert_slice(r.ops[0].resolves, "c-1");
    assert_true(!r.ops[0].reverts && r.ops[0].schema == 7);
    assert_slice(r.ops[2].resolves, "c-2 c-4");
    assert_true(r.ops[2].reverts);
    assert_slice(r.ops[2].lineage, "another");
    assert_int_equal(r.ops[3].resolves.len, 0);
    assert_int_equal(r.ops[3].schema, 0);
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* `what` in the place of %s, count times, with commas. */
static slice repeated(bytes *b, const char *before, const char *what, int count,
                      const char *after) {
    bytes_clear(b);
    bytes_text(b, before);
    for (int i = 0; i < count; i++) {
        bytes_printf(b, "%s%s", i ? "," : "", what);
    }
    bytes_text(b, after);
    return bytes_view(b);
}

static void check_push(slice text, bool sync, const char *detail) {
    arena a;
    push_request r;
    wire_error e;
    arena_init(&a, NULL, 0);
    if (wire_push_parse(&a, text, sync, KIT_SCOPE, &r, &e) != GODWIT_INVALID ||
        !strstr(e.detail, detail)) {
        fail_msg("\"%s\", not \"%s\"", e.detail, detail);
    }
    arena_deinit(&a);
}

#define PLAIN                                                                                      \
    "{\"deviceId\":\"d\",\"operations\":[{\"id\":\"1\",\"operation\":\"update\",\"entityType\":"   \
    "\"t\",\"entityId\":\"x\",\"idempotencyKey\":\"k\",\"payload\":{},"
#define EMPTY "{\"deviceId\":\"d\",\"operations\":[],"

static void lists_of_a_request_are_bounded(void **state) {
    (void)state;
    arena a;
    bytes b;
    register_request registered;
    reconcile_request compared;
    wire_error e;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    check_push(repeated(&b, PLAIN "\"dependsOn\":[", "\"1\"", DEPENDS_MAX + 1, "]}]}"), false,
               "dependsOn has over");
    check_push(repeated(&b, PLAIN "\"dependsOn\":", "7", 1, "}]}"), false, "must be a list of ids");
    check_push(repeated(&b, PLAIN "\"dependsOn\":", "[7]", 1, "}]}"), false,
               "must be a list of ids");
    check_push(repeated(&b, PLAIN, "\"resolves\":\"c\",\"reverts\":\"c\"", 1, "}]}"), false,
               "resolves a conflict or reverts it");
    check_push(repeated(&b, EMPTY "\"earlier\":[", "\"e\"", IDENTITIES_MAX + 1, "]}"), true,
               "earlier must be a list of at most");
    check_push(repeated(&b, EMPTY "\"earlier\":", "7", 1, "}"), true, "earlier must be a list");
    check_push(repeated(&b, EMPTY "\"earlier\":[", "\"e e\"", 1, "]}"), true, "earlier[] must be");
    check_push(repeated(&b, EMPTY "\"prevKey\":", "7", 1, "}"), true, "prevKey must be a text");
    check_push(repeated(&b, EMPTY "\"tables\":", "7", 1, "}"), true, "tables must be a text");
    slice text = repeated(&b, "{\"deviceId\":\"d\",\"lineage\":\"d\",\"scopes\":[", "\"s\"",
                          SCOPES_MAX + 1, "]}");
    assert_int_equal(wire_register_parse(&a, text, &registered, &e), GODWIT_INVALID);
    assert_non_null(strstr(e.detail, "over 64 scopes"));
    text = repeated(&b, "{\"scope\":\"s\",\"identities\":[", "0", IDENTITIES_MAX + 1, "]}");
    assert_int_equal(wire_reconcile_parse(&a, text, &compared, &e), GODWIT_INVALID);
    assert_non_null(strstr(e.detail, "identities must be a list of at most"));
    text = repeated(&b, "{\"scope\":\"s\",\"identities\":", "{}", 1, "}");
    assert_int_equal(wire_reconcile_parse(&a, text, &compared, &e), GODWIT_INVALID);
    text = repeated(&b, "{\"scope\":\"s\",\"identities\":[", "{\"deviceId\":\"d\",\"keys\":7}", 1,
                    "]}");
    assert_int_equal(wire_reconcile_parse(&a, text, &compared, &e), GODWIT_INVALID);
    assert_non_null(strstr(e.detail, "keys must be a list"));
    arena_deinit(&a);
    arena_init(&a, NULL, 0);
    slice valid = kit_push(&a);
    text = repeated(&b, "\"dependsOn\":[", "1", DEPENDS_MAX + 1, "]");
    check_push(kit_replace(&a, valid, "\"dependsOn\":[41,7]", b.ptr), true, "dependsOn has over");
    check_push(kit_replace(&a, valid, "\"reason\":\"discarded\"", "\"reason\":7"), true,
               "reason must be a text");
    check_push(kit_replace(&a, valid, "\"reason\":\"discarded\"", "\"reason\":\"not-null\""), true,
               "reason must be poison");
    check_push(kit_replace(&a, valid, "\"first\":41,\"size\":2},\"ctx\":{\"$\":0",
                           "\"first\":41,\"size\":3},\"ctx\":{\"$\":0"),
               true, "a group must be sent whole");
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* A cursor's check is no secret: what it holds is looked at all the same. */
static void cursors_hold_what_they_may(void **state) {
    (void)state;
    const wire_cursor bad[] = {{.seq = -1, .scope = SLICE("s")}, {.seq = 1, .scope = SLICE("\n")}};
    wire_cursor back;
    arena a;
    bytes b;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        bytes_clear(&b);
        wire_cursor_write(&b, &bad[i]);
        assert_int_equal(wire_cursor_parse(&a, bytes_view(&b), &back), GODWIT_INVALID);
    }
    problem p;
    wire_problem_parse(&a, SLICE("{\"type\":\"/x\",\"appliedSeq\":-7}"), &p);
    assert_int_equal(p.applied_seq, -1);
    bytes_deinit(&b);
    arena_deinit(&a);
}

/* ---- Clocks, numbers, statuses ---- */

static void clocks_and_numbers_are_bounded(void **state) {
    (void)state;
    arena a;
    bytes b;
    vclock clock;
    const json *root = NULL;
    arena_init(&a, NULL, 0);
    bytes_init(&b, NULL, 0);
    for (int i = 0; i <= CLOCK_PARSE_ENTRIES_MAX; i++) {
        bytes_printf(&b, "%c\"d%d\":1", i ? ',' : '{', i);
    }
    bytes_char(&b, '}');
    assert_int_equal(clock_parse(&a, bytes_view(&b), &clock), GODWIT_INVALID);
    bytes_clear(&b);
    for (int i = 0; i < 100000; i++) {
        bytes_char(&b, '7');
    }
    bytes_text(&b, ".5");
    assert_int_equal(json_parse(&a, bytes_view(&b), &root, NULL), GODWIT_INVALID);
    bytes_deinit(&b);
    arena_deinit(&a);
}

static void every_status_has_a_text_and_a_class(void **state) {
    (void)state;
#define CHECK(name, number, cls, text_)                                                            \
    assert_int_equal((int)GODWIT_##name, number);                                                  \
    assert_string_equal(godwit_status_name(GODWIT_##name), #name);                                 \
    assert_string_equal(godwit_status_text(GODWIT_##name), text_);                                 \
    assert_int_equal(godwit_status_class(GODWIT_##name), GODWIT_CLASS_##cls);
    GODWIT_STATUS_TABLE(CHECK)
#undef CHECK
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_operations_are_shown_as_they_will_be),
        cmocka_unit_test(a_first_value_of_a_plain_column),
        cmocka_unit_test(sets_are_bounded),
        cmocka_unit_test(damaged_tags_hold_nothing),
        cmocka_unit_test(an_extreme_in_a_group_is_the_latest),
        cmocka_unit_test(types_of_columns_have_names),
        cmocka_unit_test(a_table_tells_types_and_former_names),
        cmocka_unit_test(declarations_are_bounded),
        cmocka_unit_test(foreign_keys_have_their_shape),
        cmocka_unit_test(comparisons_name_several_identities),
        cmocka_unit_test(a_device_reports_itself),
        cmocka_unit_test(operations_say_what_they_decide),
        cmocka_unit_test(lists_of_a_request_are_bounded),
        cmocka_unit_test(cursors_hold_what_they_may),
        cmocka_unit_test(clocks_and_numbers_are_bounded),
        cmocka_unit_test(every_status_has_a_text_and_a_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
