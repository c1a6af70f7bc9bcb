/* The conflict ledger on the wire: records travel in the commit that made them, operations resolve
 * them, snapshots bring those that are open. */
#include "service_kit.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccc"

typedef struct {
    kit k;
    kit_device a, b;
} fixture;

/* Commit 1 makes p, 2 is a's edit, 3 is b's over the same base: one open and one automatic record.
 */
static void open_conflict(fixture *f) {
    kit_init(&f->k, KIT_PINS, "[table pins]\npolicy.title = manual\n");
    f->a = kit_register(&f->k, A, "ana", "field");
    f->b = kit_register(&f->k, B, "bob", "field");
    assert_status(
        kit_push_one(&f->k, &f->a, OP_CREATE, "pins", "p", "{\"title\":\"t\",\"note\":\"n\"}"),
        200);
    wire_op one = kit_op(&f->k, &f->a, OP_UPDATE, "pins", "p", "{\"title\":\"a\",\"note\":\"a\"}");
    wire_op two = kit_op(&f->k, &f->b, OP_UPDATE, "pins", "p", "{\"title\":\"b\",\"note\":\"b\"}");
    kit_base(&f->k, &f->a, &one, 1, "{\"title\":\"t\",\"note\":\"n\"}");
    kit_base(&f->k, &f->b, &two, 1, "{\"title\":\"t\",\"note\":\"n\"}");
    assert_status(kit_push(&f->k, &f->a, &one, 1), 200);
    assert_text(kit_push(&f->k, &f->b, &two, 1), "results.0.status", "conflict");
}

static wire_op resolving(fixture *f, kit_device *d, const char *payload, const char *conflict) {
    wire_op op = kit_op(&f->k, d, OP_UPDATE, "pins", "p", payload);
    kit_base(&f->k, d, &op, strtoll(kit_sql(&f->k, "SELECT max(head) FROM godwit_scope"), NULL, 10),
             "{}");
    op.resolves = slice_of(conflict);
    return op;
}

static void records_travel_in_their_commit(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    kit_answer feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits"), 3);
    assert_int_equal(kit_count(&feed, "commits.2.changes"), 3); /* the note, and two records */
    assert_text(feed, "commits.2.changes.1.entityType", "_conflicts");
    assert_text(feed, "commits.2.changes.1.entityId", "c-3-0");
    assert_text(feed, "commits.2.changes.1.kind", "upsert");
    assert_true(kit_flag(&feed, "commits.2.changes.1.full"));
    const char *key = kit_sql(&f.k, "SELECT lower(hex(op_key)) FROM godwit_conflict LIMIT 1");
    assert_text(
        feed, "commits.2.changes.1.columns",
        arena_printf(&f.k.a,
                     "{\"conflictId\":\"c-3-0\",\"commitSeq\":3,\"entityType\":\"pins\","
                     "\"entityId\":\"p\",\"kind\":\"field\",\"opKey\":\"%s\",\"operation\":\"update\",\"deviceId\":\"" B
                     "\",\"columns\":[\"title\"],\"base\":{\"title\":\"t\"},"
                     "\"theirs\":{\"title\":\"a\"},\"ours\":{\"title\":\"b\"},\"chosen\":null,"
                     "\"writers\":{\"ours\":{\"deviceId\":\"" B "\",\"userId\":\"bob\",\"at\":"
                     "\"2026-01-02T03:04:04.678Z\",\"sequenceNumber\":1,\"clock\":{\"$\":1,\"" B
                     "\":0}},\"theirs\":{\"deviceId\":\"" A "\",\"userId\":\"ana\",\"at\":"
                     "\"2026-01-02T03:04:05.678Z\",\"commitSeq\":2,\"clock\":{\"$\":0,\"" A
                     "\":2}}},"
                     "\"policy\":\"manual\",\"winner\":\"none\",\"state\":\"open\","
                     "\"resolvedBy\":null,\"resolvedCommit\":null,\"at\":"
                     "\"2026-01-02T03:04:05.678Z\"}",
                     key));
    assert_text(feed, "commits.2.changes.2.columns.policy", "lww");
    assert_text(feed, "commits.2.changes.2.columns.state", "auto");
    /* the other way of pulling has the same page */
    slice body = kit_push_body(&f.k, &f.a, NULL, 0, NULL, (slice){0}, true);
    kit_answer sync = kit_body(&f.k, VERB_SYNC, "ana", "field", body);
    kit_answer own = kit_changes(&f.k, "field", (slice){0}, A, "");
    const json *page = kit_at(sync.root, "changes");
    assert_non_null(page);
    assert_true(slice_equal(page->u.s, own.text));
    kit_deinit(&f.k);
}

static void an_operation_resolves(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    wire_op op = resolving(&f, &f.a, "{\"title\":\"both\"}", "c-3-0");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "applied");
    kit_answer feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits.3.changes"), 2);
    assert_text(feed, "commits.3.changes.0.columns.title", "both");
    assert_text(feed, "commits.3.changes.1.entityId", "c-3-0");
    assert_text(feed, "commits.3.changes.1.columns.state", "resolved");
    assert_text(feed, "commits.3.changes.1.columns.resolvedBy", "ana");
    assert_text(feed, "commits.3.changes.1.columns.ours.title", "b");
    assert_int_equal(kit_int(&feed, "commits.3.changes.1.columns.resolvedCommit"), 4);
    assert_int_equal(kit_int(&feed, "commits.3.changes.1.columns.commitSeq"), 3);
    /* decided is decided: the operation applies, the record stays */
    op = resolving(&f, &f.b, "{\"title\":\"mine\"}", "c-3-0");
    assert_text(kit_push(&f.k, &f.b, &op, 1), "results.0.outcome", "applied");
    assert_string_equal(kit_sql(&f.k, "SELECT title FROM pins"), "mine");
    assert_string_equal(kit_sql(&f.k, "SELECT resolved_by || resolved_commit FROM godwit_conflict"
                                      " WHERE conflict_id = 'c-3-0'"),
                        "ana4");
    feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits.4.changes"), 1);
    /* nothing changes but the record: a no-op is enough, for an automatic one, too */
    op = resolving(&f, &f.b, "{}", "c-3-1");
    assert_text(kit_push(&f.k, &f.b, &op, 1), "results.0.outcome", "noop");
    feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits.5.changes"), 1);
    assert_text(feed, "commits.5.changes.0.columns.state", "resolved");
    kit_deinit(&f.k);
}

static void unknown_conflicts_are_refused(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    wire_op op = resolving(&f, &f.a, "{\"title\":\"x\"}", "c-9-0");
    kit_answer r = kit_push(&f.k, &f.a, &op, 1);
    assert_text(r, "results.0.outcome", "rejected");
    assert_text(r, "results.0.error.code", "validation");
    assert_text(r, "results.0.error.detail", "resolves names no conflict about this row: c-9-0");
    /* of another scope */
    kit_device c = kit_register(&f.k, C, "ana", "elsewhere");
    op = kit_op(&f.k, &c, OP_CREATE, "pins", "q", "{\"title\":\"q\"}");
    op.resolves = SLICE("c-3-0");
    assert_text(kit_push(&f.k, &c, &op, 1), "results.0.error.code", "validation");
    /* a group falls as a whole, and resolves nothing */
    wire_op ops[2] = {resolving(&f, &f.a, "{\"title\":\"x\"}", "c-3-0"),
                      resolving(&f, &f.a, "{\"note\":\"x\"}", "nothing")};
    kit_group(ops, 2);
    r = kit_push(&f.k, &f.a, ops, 2);
    assert_text(r, "results.0.error.code", "dependency-failed");
    assert_text(r, "results.1.error.code", "validation");
    /* neither does a void, nor an operation that is refused for itself */
    op = resolving(&f, &f.a, "{\"nonsense\":1}", "c-3-0");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.error.code", "unknown-column");
    assert_string_equal(kit_sql(&f.k, "SELECT group_concat(DISTINCT title) || count(*) FROM pins"),
                        "a1");
    assert_string_equal(kit_sql(&f.k, "SELECT state FROM godwit_conflict WHERE conflict_id ="
                                      " 'c-3-0'"),
                        "open");
    kit_deinit(&f.k);
}

/* Held as a whole because its base is of another history, and the row is unknown here. */
static void a_row_that_is_not_there(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    wire_op op = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "lost", "{\"title\":\"x\"}");
    op.base_seq = 2;
    op.base_salt = 1;
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.error.code", "lost-base");
    op = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "lost", "{}");
    op.resolves = SLICE("c-4-0");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "noop");
    assert_string_equal(kit_sql(&f.k,
                                "SELECT kind || state FROM godwit_conflict WHERE conflict_id ="
                                " 'c-4-0'"),
                        "lost_baseresolved");
    op = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "lost", "{}");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.error.code", "row-missing");
    kit_deinit(&f.k);
}

/* Ids of conflict records in a snapshot read page by page, with a blank behind each. */
static const char *in_snapshot(kit *k, const char *limit) {
    const char *out = "";
    slice token = {0};
    bool more = true;
    while (more) {
        service_job job;
        kit_job(k, &job, VERB_SNAPSHOT, "ana", "field");
        job.q_token = token;
        job.q_limit = slice_of(limit);
        kit_answer page = kit_run(k, &job);
        assert_status(page, 200);
        const json *rows = kit_at(page.root, "rows");
        const json *row = json_first(rows);
        for (uint32_t i = 0; i < rows->count; i++, row = json_after(row)) {
            slice entity = {0}, id = {0}, own = {0};
            (void)json_text(json_get(row, "entityType"), &entity);
            (void)json_text(json_get(row, "entityId"), &id);
            if (slice_is(entity, "_conflicts")) {
                assert_true(json_text(json_get(json_get(row, "columns"), "conflictId"), &own));
                assert_true(slice_equal(own, id));
                out = arena_printf(&k->a, "%s%.*s ", out, SLICE_ARG(id));
            }
        }
        more = kit_flag(&page, "more");
        token = kit_text(&page, "token");
    }
    return out;
}

static void snapshots_bring_the_open_ones(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    for (int i = 0; i < 3; i++) {
        wire_op op = kit_op(&f.k, &f.b, OP_UPDATE, "pins", "p",
                            arena_printf(&f.k.a, "{\"title\":\"b%d\"}", i));
        kit_base(&f.k, &f.b, &op, 1, "{\"title\":\"t\"}");
        assert_text(kit_push(&f.k, &f.b, &op, 1), "results.0.status", "conflict");
    }
    assert_string_equal(in_snapshot(&f.k, "100"), "c-3-0 c-4-0 c-5-0 c-6-0 ");
    assert_string_equal(in_snapshot(&f.k, "1"), "c-3-0 c-4-0 c-5-0 c-6-0 ");
    wire_op op = resolving(&f, &f.a, "{\"title\":\"both\"}", "c-4-0");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "applied");
    assert_string_equal(in_snapshot(&f.k, "2"), "c-3-0 c-5-0 c-6-0 ");
    kit_deinit(&f.k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_travel_in_their_commit), cmocka_unit_test(an_operation_resolves),
        cmocka_unit_test(unknown_conflicts_are_refused),  cmocka_unit_test(a_row_that_is_not_there),
        cmocka_unit_test(snapshots_bring_the_open_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
