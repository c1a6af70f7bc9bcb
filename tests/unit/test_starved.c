/* Memory that runs out at any place while something is read or written: said as NOMEM, never as a
 * fault of the text, and nothing of what was made before is left. (decide: test_decide_starved.c)
 */
#include "wire_kit.h"

#include "core/ask.h"
#include "core/base64.h"
#include "core/commute.h"

#define KEY "3031323334353637383961626364656630313233343536373839616263646566"
#define TABLES                                                                                     \
    "[{\"name\":\"t\",\"primaryKey\":[\"a\",\"b\"],\"columns\":[{\"name\":\"a\",\"type\":"         \
    "\"TEXT\"},"                                                                                   \
    "{\"name\":\"b\",\"type\":\"INT\"}],\"foreignKeys\":[{\"columns\":[\"a\"],\"table\":\"t\","    \
    "\"refColumns\":[\"a\"]}]}]"

static slice push_text;

static godwit_status read_push(arena *a, void *context) {
    (void)context;
    push_request r;
    wire_error e;
    godwit_status status = wire_push_parse(a, push_text, true, KIT_SCOPE, &r, &e);
    assert_int_equal(r.op_count, status == GODWIT_OK ? KIT_OPS : 0);
    return status;
}

static godwit_status read_plain(arena *a, void *context) {
    (void)context;
    static const char text[] =
        "{\"deviceId\":\"d\",\"operations\":[{\"id\":\"0\",\"operation\":"
        "\"delete\",\"entityType\":\"t\",\"entityId\":\"y\",\"idempotencyKey\":\"j\"},{\"id\":"
        "\"1\",\"operation\":"
        "\"update\",\"entityType\":\"t\",\"entityId\":\"x\",\"idempotencyKey\":\"k\",\"payload\":"
        "\"{\\\"a\\\":1}\",\"dependsOn\":[\"0\"]}]}";
    push_request r;
    wire_error e;
    godwit_status status = wire_push_parse(a, slice_of(text), false, KIT_SCOPE, &r, &e);
    if (status == GODWIT_OK) {
        assert_int_equal(r.ops[1].depends_count, 1);
    }
    return status;
}

static godwit_status read_pull(arena *a, void *context) {
    (void)context;
    push_request r;
    wire_error e;
    godwit_status status = wire_push_parse(
        a, SLICE("{\"deviceId\":\"d\",\"operations\":[],\"earlier\":[\"e-1\",\"e-2\"]}"), true,
        KIT_SCOPE, &r, &e);
    assert_int_equal(r.earlier_count, status == GODWIT_OK ? 2 : 0);
    return status;
}

static godwit_status read_registration(arena *a, void *context) {
    (void)context;
    static const char text[] = "{\"deviceId\":\"d\",\"lineage\":\"d\",\"scopes\":[\"s\",\"t\"],"
                               "\"tables\":" TABLES "}";
    register_request r;
    wire_error e;
    schema s;
    const char *reason = NULL;
    godwit_status status = wire_register_parse(a, slice_of(text), &r, &e);
    if (status == GODWIT_OK) {
        status = schema_from_json(a, r.tables, &s, &reason);
    }
    if (status == GODWIT_OK) {
        slice parts[16];
        status = schema_id_parts(a, &s.tables[0], SLICE("[\"x\",\"7\"]"), parts);
    }
    return status;
}

/* What a registry is refused for has a reason, also when there is no room for its text. */
static godwit_status refuse_registry(arena *a, void *context) {
    (void)context;
    const json *root = NULL;
    schema s;
    const char *reason = NULL;
    godwit_status status = json_parse(
        a, SLICE("[{\"name\":\"t\",\"primaryKey\":[\"x\"],\"columns\":[{\"name\":\"y\"}]}]"), &root,
        NULL);
    if (status == GODWIT_OK) {
        status = schema_from_json(a, root, &s, &reason);
        assert_non_null(reason);
        if (status == GODWIT_INVALID) {
            assert_non_null(strstr(reason, "primaryKey names no column"));
            status = GODWIT_OK;
        }
    }
    return status;
}

static godwit_status read_reconciliation(arena *a, void *context) {
    (void)context;
    static const char request[] = "{\"scope\":\"s\",\"cursor\":\"AQAA\",\"identities\":[{"
                                  "\"deviceId\":\"d\",\"keys\":[[7,\"" KEY "\"]]}]}";
    static const char answer[] =
        "{\"head\":9,\"cursorValid\":true,\"identities\":[{\"deviceId\":\"d-1\",\"appliedSeq\":7,"
        "\"matchedSeq\":6,\"outcomes\":[{\"id\":\"a\",\"status\":\"success\",\"outcome\":"
        "\"applied\","
        "\"commitSeq\":3}]}]}";
    reconcile_request r;
    reconcile_answer got;
    wire_error e;
    godwit_status status = wire_reconcile_parse(a, slice_of(request), &r, &e);
    return status == GODWIT_OK ? wire_reconcile_answer_parse(a, slice_of(answer), &got) : status;
}

static godwit_status read_answers(arena *a, void *context) {
    (void)context;
    static const char changes[] =
        "{\"commits\":[{\"seq\":5,\"salt\":\"00000000000000ff\",\"at\":\"2026-01-02T03:04:05Z\","
        "\"author\":null,\"changes\":[{\"entityType\":\"t\",\"entityId\":\"1\",\"kind\":\"delete\"}"
        "],"
        "\"own\":{\"first\":1,\"last\":1,\"outcome\":\"applied\",\"results\":[{\"id\":\"a\","
        "\"status\":"
        "\"success\"}]}}],\"cursor\":\"AQAB\",\"head\":5,\"more\":false}";
    static const char registered[] = "{\"deviceId\":\"d\",\"scopes\":[{\"scope\":\"s\",\"head\":7,"
                                     "\"appliedSeq\":3,\"lastKey\":\"\"}]}";
    static const char snapshot[] =
        "{\"rows\":[{\"entityType\":\"t\",\"entityId\":\"1\",\"ver\":1,\"columns\":{}}],\"asOf\":2,"
        "\"salt\":\"00000000000000ff\",\"head\":2,\"cursor\":\"c\",\"more\":false}";
    pull_answer pulled;
    register_answer known;
    snapshot_answer page;
    godwit_status status = wire_pull_answer_parse(a, slice_of(changes), &pulled);
    if (status == GODWIT_OK) {
        status = wire_register_answer_parse(a, slice_of(registered), &known);
    }
    return status == GODWIT_OK ? wire_snapshot_answer_parse(a, slice_of(snapshot), &page) : status;
}

/* An object with so many members that its keys are sorted, and a number that fills no word. */
static godwit_status read_wide(arena *a, void *context) {
    const json *root = NULL;
    const slice *text = context;
    godwit_status status = json_parse(a, *text, &root, NULL);
    assert_int_equal(root != NULL, status == GODWIT_OK);
    return status;
}

static godwit_status read_values(arena *a, void *context) {
    (void)context;
    const json *node = NULL;
    value v;
    vclock clock;
    godwit_status status = json_parse(a, SLICE("{\"$b64\":\"AAECAwQFBgc=\"}"), &node, NULL);
    if (status == GODWIT_OK) {
        status = value_from_json(a, node, &v);
    }
    return status == GODWIT_OK
               ? clock_parse(a,
                             SLICE("{\"$\":1,\"a\":1,\"b\":1,\"c\":1,\"d\":2,\"e\":3,\"f\":3,\"g\":"
                                   "3,\"h\":3,\"i\":3,\"j\":3,\"k\":3,\"l\":3,\"m\":3}"),
                             &clock)
               : status;
}

static godwit_status pass_cursor(arena *a, void *context) {
    (void)context;
    const wire_cursor c = {.seq = 5, .salt = 6, .scope = SLICE("s"), .tables_hash = 7};
    wire_cursor back;
    bytes b;
    bytes_init(&b, a->allocator, 0);
    wire_cursor_write(&b, &c);
    godwit_status status = b.failed ? GODWIT_NOMEM : wire_cursor_parse(a, bytes_view(&b), &back);
    if (status == GODWIT_OK) {
        assert_slice(back.scope, "s");
    }
    bytes_deinit(&b);
    return status;
}

static godwit_status write_texts(arena *a, void *context) {
    (void)context;
    bytes b;
    bytes_init(&b, a->allocator, 0);
    json_write_text(&b, SLICE("a\nbb\tccccccccccccccccccccccccccccccccccccccccccc\x01"));
    char controls[100];
    memset(controls, 1, sizeof controls); /* six bytes for each, which no one expects */
    json_write_text(&b, (slice){controls, sizeof controls});
    bytes_hex(&b, "0123456789abcdefghijklmnopqrstuvwxyz", 36);
    base64url_encode(&b,
                     SLICE("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuv"));
    bytes_printf(&b, "%0200d", 7);
    godwit_status status = b.failed ? GODWIT_NOMEM : GODWIT_OK;
    char *text = arena_printf(a, "%0200d", 7);
    bytes_deinit(&b);
    return text ? status : GODWIT_NOMEM;
}

/* One text of each list, with so many members that the room left behind the parsed text, which
 * depends on their number, is too small for what is made of them. */
typedef struct {
    const char *before, *member, *after; /* a %d in the member is its number */
    int what;
} list_form;

static const list_form lists[] = {
    {"{\"deviceId\":\"d\",\"operations\":[],\"earlier\":[", "\"e\"", "]}", 0},
    {"{\"deviceId\":\"d\",\"operations\":[",
     "{\"id\":\"%d\",\"operation\":\"delete\",\"entityType\":\"t\",\"entityId\":\"y\","
     "\"idempotencyKey\":\"j\"}",
     "]}", 1},
    {"{\"deviceId\":\"d\",\"operations\":[{\"id\":\"0\",\"operation\":\"delete\","
     "\"entityType\":\"t\",\"entityId\":\"y\",\"idempotencyKey\":\"j\"},{\"id\":\"1\","
     "\"operation\":\"delete\",\"entityType\":\"t\",\"entityId\":\"y\","
     "\"idempotencyKey\":\"j\",\"dependsOn\":[",
     "\"0\"", "]}]}", 1},
    {"{\"deviceId\":\"d\",\"lineage\":\"d\",\"scopes\":[", "\"s\"", "]}", 2},
    {"{\"scope\":\"s\",\"identities\":[", "{\"deviceId\":\"d\",\"keys\":[]}", "]}", 3},
    {"{\"$\":1,", "\"d%d\":1", "}", 4},
};

typedef struct {
    slice text;
    int what;
} list_text;

static godwit_status read_list(arena *a, void *context) {
    const list_text *l = context;
    push_request pushed;
    register_request registered;
    reconcile_request compared;
    wire_error e;
    vclock clock;
    switch (l->what) {
    case 0:
    case 1:
        return wire_push_parse(a, l->text, l->what == 0, KIT_SCOPE, &pushed, &e);
    case 2:
        return wire_register_parse(a, l->text, &registered, &e);
    case 3:
        return wire_reconcile_parse(a, l->text, &compared, &e);
    default:
        return clock_parse(a, l->text, &clock);
    }
}

static void lists_say_that_memory_is_short(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t form = 0; form < COUNT_OF(lists); form++) {
        for (int count = 1; count <= 60; count += 1 + count / 20) {
            bytes_clear(&b);
            bytes_text(&b, lists[form].before);
            for (int i = 0; i < count; i++) {
                const char *number = strstr(lists[form].member, "%d");
                bytes_text(&b, i ? "," : "");
                if (number) {
                    bytes_add(&b, lists[form].member, (size_t)(number - lists[form].member));
                    bytes_int(&b, i);
                    bytes_text(&b, number + 2);
                } else {
                    bytes_text(&b, lists[form].member);
                }
            }
            bytes_text(&b, lists[form].after);
            list_text text = {bytes_view(&b), lists[form].what};
            unit_starve(read_list, &text);
        }
    }
    bytes_deinit(&b);
}

static godwit_status status_of(commute_result result) {
    assert_true(result == COMMUTE_OK || result == COMMUTE_NOMEM);
    return result == COMMUTE_OK ? GODWIT_OK : GODWIT_NOMEM;
}

static godwit_status change_set(arena *a, void *context) {
    (void)context;
    const value present = {.type = VALUE_TEXT, .u.s = SLICE("[\"a\",\"b\"]")};
    const merge_meta inherited = {.ver = 1, .device = SLICE("x"), .seq = 1};
    commute_set_write write = {
        .present = &present,
        .inherited = &inherited,
        .tags = SLICE("{\"\\\"a\\\"\":[[1,\"x\",1]]}"),
        .author = {.commit = 3, .eff_base = 1, .seq = 1, .device = SLICE("d")}};
    value now = {.type = VALUE_SPECIAL}, out;
    slice tags;
    godwit_status status =
        json_parse(a, SLICE("{\"$add\":[\"c\",7],\"$remove\":[\"b\"]}"), &now.u.node, NULL);
    if (status != GODWIT_OK) {
        return status;
    }
    const value old = {.type = VALUE_TEXT, .u.s = SLICE("[1,2,3,4,5,6,7,8]")};
    const value left = {.type = VALUE_TEXT, .u.s = SLICE("[5,6,7,8,9,10,11,12]")};
    write.now = &left;
    write.old = &old;
    status = status_of(commute_set(a, &write, &out, &tags));
    if (status != GODWIT_OK) {
        return status;
    }
    write.now = &now;
    write.old = NULL;
    status = status_of(commute_set(a, &write, &out, &tags));
    return status == GODWIT_OK ? status_of(commute_first(a, POLICY_SET, &now, &out)) : status;
}

/* A question that was not kept is asked again, and never answered by another one. */
static godwit_status ask(arena *a, void *context) {
    (void)context;
    ask_list list = {.a = a};
    char text[40];
    for (int i = 0; i < 20; i++) {
        (void)snprintf(text, sizeof text, "question %d", i);
        assert_null(ask_find(&list, slice_of(text), 1));
        assert_int_equal(list.count, list.waiting);
    }
    for (size_t i = 0; i < list.count; i++) {
        (void)snprintf(text, sizeof text, "question %zu", i);
        assert_slice(list.items[i].question, text);
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static void requests_say_that_memory_is_short(void **state) {
    (void)state;
    arena kit;
    arena_init(&kit, NULL, 0);
    push_text = kit_push(&kit);
    unit_starve(read_push, NULL);
    unit_starve(read_plain, NULL);
    unit_starve(read_pull, NULL);
    unit_starve(read_registration, NULL);
    unit_starve(refuse_registry, NULL);
    unit_starve(read_reconciliation, NULL);
    arena_deinit(&kit);
}

static void answers_say_that_memory_is_short(void **state) {
    (void)state;
    unit_starve(read_answers, NULL);
}

static void values_say_that_memory_is_short(void **state) {
    (void)state;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    for (int i = 0; i < 60; i++) {
        bytes_printf(&b, "%s\"k%d\":[[],{}]", i ? "," : "", i);
    }
    bytes_char(&b, '}');
    slice wide = bytes_view(&b);
    unit_starve(read_wide, &wide);
    bytes_deinit(&b);
    unit_starve(read_values, NULL);
    unit_starve(pass_cursor, NULL);
    unit_starve(write_texts, NULL);
    unit_starve(change_set, NULL);
    unit_starve(ask, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_say_that_memory_is_short),
        cmocka_unit_test(answers_say_that_memory_is_short),
        cmocka_unit_test(lists_say_that_memory_is_short),
        cmocka_unit_test(values_say_that_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
