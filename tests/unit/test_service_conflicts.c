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
    op.resolves = slice_of(kit_conflict(&f->k, conflict));
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
    assert_text(feed, "commits.2.changes.1.entityId", kit_conflict(&f.k, "c-3-0"));
    assert_text(feed, "commits.2.changes.1.kind", "upsert");
    assert_true(kit_flag(&feed, "commits.2.changes.1.full"));
    const char *key = kit_sql(&f.k, "SELECT lower(hex(op_key)) FROM godwit_conflict LIMIT 1");
    assert_text(
        feed, "commits.2.changes.1.columns",
        arena_printf(
            &f.k.a,
            "{\"conflictId\":\"%s\",\"commitSeq\":3,\"entityType\":\"pins\","
            "\"entityId\":\"p\",\"kind\":\"field\",\"opKey\":\"%s\",\"operation\":\"update\","
            "\"deviceId\":\"" B "\",\"columns\":[\"title\"],\"base\":{\"title\":\"t\"},"
            "\"theirs\":{\"title\":\"a\"},\"ours\":{\"title\":\"b\"},\"chosen\":null,"
            "\"writers\":{\"ours\":{\"deviceId\":\"" B "\",\"userId\":\"bob\",\"at\":"
            "\"2026-01-02T03:04:04.678Z\",\"sequenceNumber\":1,\"clock\":{\"$\":1,\"" B
            "\":0}},\"theirs\":{\"deviceId\":\"" A "\",\"userId\":\"ana\",\"at\":"
            "\"2026-01-02T03:04:05.678Z\",\"commitSeq\":2,\"clock\":{\"$\":0,\"" A "\":2}}},"
            "\"policy\":\"manual\",\"winner\":\"none\",\"state\":\"open\","
            "\"resolvedBy\":null,\"resolvedCommit\":null,\"at\":"
            "\"2026-01-02T03:04:05.678Z\"}",
            kit_conflict(&f.k, "c-3-0"), key));
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
    assert_text(feed, "commits.3.changes.1.entityId", kit_conflict(&f.k, "c-3-0"));
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
                                      " WHERE substr(conflict_id, 1, 5) = 'c-3-0'"),
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
    op.resolves = slice_of(kit_conflict(&f.k, "c-3-0"));
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
    assert_string_equal(kit_sql(&f.k, "SELECT state FROM godwit_conflict WHERE substr("
                                      "conflict_id, 1, 5) = 'c-3-0'"),
                        "open");
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
                out = arena_printf(&k->a, "%s%.*s ", out, 5, id.ptr);
            }
        }
        more = kit_flag(&page, "more");
        token = kit_text(&page, "token");
    }
    return out;
}

/* As a device that has decided a conflict of a server whose history is gone: the one that has its
 * number now is another. */
static void a_decision_about_another_history(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    const char *id = kit_conflict(&f.k, "c-3-0");
    char *other = arena_printf(&f.k.a, "%s", id);
    other[6] = other[6] == '0' ? '1' : '0';
    const char *const wrong[] = {other, "c-3-0"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        wire_op op = resolving(&f, &f.a, "{\"title\":\"x\"}", "c-3-0");
        op.resolves = slice_of(wrong[i]);
        kit_answer r = kit_push(&f.k, &f.a, &op, 1);
        assert_text(r, "results.0.error.code", "validation");
        assert_string_equal(kit_sql(&f.k, "SELECT state FROM godwit_conflict WHERE substr("
                                          "conflict_id, 1, 5) = 'c-3-0'"),
                            "open");
    }
    kit_deinit(&f.k);
}

/* What met two conflicts is made again: both are closed, in one commit that tells everybody. */
static void one_operation_decides_several(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    const char *one = kit_conflict(&f.k, "c-3-0"), *two = kit_conflict(&f.k, "c-3-1");
    wire_op op = resolving(&f, &f.b, "{\"title\":\"x\"}", "c-3-0");
    op.resolves = slice_of(arena_printf(&f.k.a, "%s c-9-9 %s", one, two));
    assert_text(kit_push(&f.k, &f.b, &op, 1), "results.0.error.detail",
                "resolves names no conflict about this row: c-9-9");
    assert_string_equal(kit_sql(&f.k, "SELECT count(*) FROM godwit_conflict WHERE state ="
                                      " 'resolved'"),
                        "0");
    op = resolving(&f, &f.b, "{\"title\":\"b\",\"note\":\"c\"}", "c-3-0");
    op.resolves = slice_of(arena_printf(&f.k.a, "%s %s", one, two));
    assert_text(kit_push(&f.k, &f.b, &op, 1), "results.0.outcome", "applied");
    kit_answer feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits.3.changes"), 3);
    assert_text(feed, "commits.3.changes.1.entityId", one);
    assert_text(feed, "commits.3.changes.2.entityId", two);
    assert_text(feed, "commits.3.changes.2.columns.state", "resolved");
    assert_string_equal(in_snapshot(&f.k, "100"), "");
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
    op.resolves = slice_of(kit_conflict(&f.k, "c-4-0"));
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "noop");
    assert_string_equal(kit_sql(&f.k, "SELECT kind || state FROM godwit_conflict WHERE substr("
                                      "conflict_id, 1, 5) = 'c-4-0'"),
                        "lost_baseresolved");
    op = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "lost", "{}");
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.error.code", "row-missing");
    kit_deinit(&f.k);
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

#define FAMILY                                                                                     \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT UNIQUE, note TEXT, n INTEGER,"              \
    " CHECK (note IS DISTINCT FROM title));"                                                       \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body TEXT);"         \
    "CREATE TABLE lines(form TEXT REFERENCES forms(id), no INTEGER, t TEXT, PRIMARY KEY (form, "   \
    "no));"

#define RECORDS(columns)                                                                           \
    "SELECT group_concat(" columns                                                                 \
    ", ' ') FROM (SELECT * FROM godwit_conflict ORDER BY commit_seq,"                              \
    " conflict_id) AS c"

/* Commit 1: pin p with form f and its line. Both devices have seen it. */
static void family(fixture *f, const char *config) {
    kit_init(&f->k, FAMILY, config);
    f->a = kit_register(&f->k, A, "ana", "field");
    f->b = kit_register(&f->k, B, "bob", "field");
    wire_op ops[] = {
        kit_op(&f->k, &f->a, OP_CREATE, "pins", "p", "{\"title\":\"t\",\"note\":\"n\"}"),
        kit_op(&f->k, &f->a, OP_CREATE, "forms", "f", "{\"pin_id\":\"p\",\"body\":\"x\"}"),
        kit_op(&f->k, &f->a, OP_CREATE, "lines", "[\"f\",\"1\"]", "{\"t\":\"line\"}")};
    kit_group(ops, 3);
    assert_text(kit_push(&f->k, &f->a, ops, 3), "results.2.outcome", "applied");
}

/* Commit 2: a deletes pin, form and line. */
static void a_deletes_all(fixture *f) {
    wire_op ops[] = {kit_op(&f->k, &f->a, OP_DELETE, "lines", "[\"f\",\"1\"]", NULL),
                     kit_op(&f->k, &f->a, OP_DELETE, "forms", "f", NULL),
                     kit_op(&f->k, &f->a, OP_DELETE, "pins", "p", NULL)};
    for (int i = 0; i < 3; i++) {
        kit_base(&f->k, &f->a, &ops[i], 1, "{}");
    }
    kit_group(ops, 3);
    assert_text(kit_push(&f->k, &f->a, ops, 3), "results.2.outcome", "applied");
    assert_string_equal(kit_sql(&f->k, "SELECT count(*) FROM pins"), "0");
}

#define ALIVE                                                                                      \
    "SELECT (SELECT count(*) FROM pins) || (SELECT count(*) FROM forms) || (SELECT count(*) FROM"  \
    " lines)"

static void a_family_comes_back_together(void **state) {
    (void)state;
    fixture f;
    family(&f, NULL);
    a_deletes_all(&f);
    wire_op edit = kit_op(&f.k, &f.b, OP_UPDATE, "pins", "p", "{\"note\":\"kept\"}");
    kit_base(&f.k, &f.b, &edit, 1, "{\"note\":\"n\"}");
    assert_text(kit_push(&f.k, &f.b, &edit, 1), "results.0.outcome", "merged");
    assert_string_equal(kit_sql(&f.k, ALIVE), "111");
    assert_string_equal(kit_sql(&f.k, "SELECT title || note || t FROM pins, lines"), "tkeptline");
    assert_string_equal(kit_sql(&f.k, RECORDS("tbl || ':' || kind || ':' || winner")),
                        "forms:delete_update:ours lines:delete_update:ours"
                        " pins:delete_update:ours");
    assert_string_equal(
        kit_sql(&f.k, RECORDS("json_extract(writers, '$.theirs.userId', '$.theirs.commitSeq')")),
        "[\"ana\",2] [\"ana\",2] [\"ana\",2]");
    kit_deinit(&f.k);
}

static void a_child_brings_its_parent_back(void **state) {
    (void)state;
    fixture f;
    family(&f, NULL);
    a_deletes_all(&f);
    wire_op child = kit_op(&f.k, &f.b, OP_CREATE, "lines", "[\"f\",\"2\"]", "{\"t\":\"two\"}");
    kit_base(&f.k, &f.b, &child, 1, "{}");
    assert_text(kit_push(&f.k, &f.b, &child, 1), "results.0.outcome", "merged");
    /* the form, and its line that went with it; its own parent, the pin, as well */
    assert_string_equal(kit_sql(&f.k, ALIVE), "112");
    assert_string_equal(kit_sql(&f.k, RECORDS("tbl || pk || policy")),
                        "lines[\"f\",\"1\"]edit_wins formsfresurrect_parent"
                        " pinspresurrect_parent");
    /* a parent that never was is no reason */
    wire_op ops[] = {kit_op(&f.k, &f.b, OP_CREATE, "forms", "g", "{\"pin_id\":\"none\"}")};
    assert_text(kit_push(&f.k, &f.b, ops, 1), "results.0.error.code", "fk-violation");
    kit_deinit(&f.k);
}

static void where_deletes_win_the_parent_stays_away(void **state) {
    (void)state;
    fixture f;
    family(&f, "[table forms]\non_conflicting_delete = delete_wins\n");
    a_deletes_all(&f);
    wire_op child = kit_op(&f.k, &f.b, OP_CREATE, "lines", "[\"f\",\"2\"]", "{\"t\":\"two\"}");
    kit_base(&f.k, &f.b, &child, 1, "{}");
    assert_text(kit_push(&f.k, &f.b, &child, 1), "results.0.error.code", "fk-violation");
    assert_string_equal(kit_sql(&f.k, ALIVE), "000");
    assert_string_equal(kit_sql(&f.k, RECORDS("kind || operation || state || ours")),
                        "fkcreateauto{\"t\":\"two\"}");
    kit_deinit(&f.k);
}

static void refusals_are_in_the_ledger(void **state) {
    (void)state;
    fixture f;
    family(&f, NULL);
    wire_op ops[] = {
        kit_op(&f.k, &f.b, OP_CREATE, "pins", "q", "{\"title\":\"t\"}"),
        kit_op(&f.k, &f.b, OP_CREATE, "pins", "r", "{\"title\":\"x\",\"note\":\"x\"}")};
    assert_text(kit_push(&f.k, &f.b, ops, 2), "results.1.error.code", "check-failed");
    assert_string_equal(
        kit_sql(&f.k, RECORDS("kind || pk || operation || winner || state || cols")),
        "uniqueqcreatetheirsauto[\"title\"]"
        " checkrcreatetheirsauto[\"title\",\"note\"]");
    kit_answer feed = kit_changes(&f.k, "field", (slice){0}, "", "");
    assert_text(feed, "commits.1.changes.0.columns.ours", "{\"title\":\"t\"}");
    kit_deinit(&f.k);
}

/* Each edit is good by itself; both together break the CHECK: a person has to look. */
static void only_the_merged_row_is_bad(void **state) {
    (void)state;
    fixture f;
    family(&f, NULL);
    wire_op one = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "p", "{\"title\":\"same\"}");
    wire_op two = kit_op(&f.k, &f.b, OP_UPDATE, "pins", "p", "{\"note\":\"same\"}");
    kit_base(&f.k, &f.a, &one, 1, "{\"title\":\"t\"}");
    kit_base(&f.k, &f.b, &two, 1, "{\"note\":\"n\"}");
    assert_status(kit_push(&f.k, &f.a, &one, 1), 200);
    kit_answer r = kit_push(&f.k, &f.b, &two, 1);
    assert_text(r, "results.0.status", "conflict");
    assert_text(r, "results.0.error.code", "check-failed");
    assert_string_equal(kit_sql(&f.k, "SELECT title || note FROM pins"), "samen");
    assert_string_equal(kit_sql(&f.k, RECORDS("kind || state || ours")),
                        "checkopen{\"note\":\"same\"}");
    kit_deinit(&f.k);
}

static void a_group_is_held(void **state) {
    (void)state;
    fixture f;
    family(&f, "[table pins]\npolicy.title = hold_group\n");
    wire_op one = kit_op(&f.k, &f.a, OP_UPDATE, "pins", "p", "{\"title\":\"a\"}");
    kit_base(&f.k, &f.a, &one, 1, "{\"title\":\"t\"}");
    assert_status(kit_push(&f.k, &f.a, &one, 1), 200);
    wire_op ops[] = {kit_op(&f.k, &f.b, OP_CREATE, "pins", "q", "{\"title\":\"q\"}"),
                     kit_op(&f.k, &f.b, OP_UPDATE, "pins", "p", "{\"title\":\"b\",\"n\":1}"),
                     kit_op(&f.k, &f.b, OP_CREATE, "forms", "g", "{\"pin_id\":\"q\"}")};
    for (int i = 0; i < 3; i++) {
        kit_base(&f.k, &f.b, &ops[i], 1, i == 1 ? "{\"title\":\"t\",\"n\":null}" : "{}");
    }
    kit_group(ops, 3);
    kit_answer r = kit_push(&f.k, &f.b, ops, 3);
    assert_text(r, "results.1.status", "conflict");
    assert_text(r, "results.1.error.code", "held");
    assert_text(r, "results.0.error.code", "dependency-failed");
    assert_string_equal(
        kit_sql(&f.k, "SELECT group_concat(id || title || ifnull(n, '')) FROM pins"), "pa");
    assert_string_equal(kit_sql(&f.k, RECORDS("kind || pk || operation || state || policy")),
                        "heldqcreateopenhold_group fieldpupdateopenhold_group"
                        " heldgcreateopenhold_group");
    assert_string_equal(
        kit_sql(&f.k, "SELECT base || theirs || ours FROM godwit_conflict WHERE pk = 'p'"),
        "{\"title\":\"t\"}{\"title\":\"a\"}{\"title\":\"b\"}");
    kit_deinit(&f.k);
}

static void a_revert_says_so(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    wire_op op = resolving(&f, &f.a, "{\"note\":\"b\"}", "c-3-1");
    op.reverts = true;
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "applied");
    /* what waits for a person is resolved, whatever the operation calls it */
    op = resolving(&f, &f.a, "{\"title\":\"b\"}", "c-3-0");
    op.reverts = true;
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.outcome", "applied");
    assert_string_equal(kit_sql(&f.k, RECORDS("substr(conflict_id, 1, 5) || state")),
                        "c-3-0resolved c-3-1reverted");
    /* about another row */
    op = kit_op(&f.k, &f.a, OP_CREATE, "pins", "other", "{\"title\":\"x\"}");
    op.resolves = slice_of(kit_conflict(&f.k, "c-3-0"));
    assert_text(kit_push(&f.k, &f.a, &op, 1), "results.0.error.code", "validation");
    kit_deinit(&f.k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_travel_in_their_commit),
        cmocka_unit_test(an_operation_resolves),
        cmocka_unit_test(unknown_conflicts_are_refused),
        cmocka_unit_test(a_decision_about_another_history),
        cmocka_unit_test(one_operation_decides_several),
        cmocka_unit_test(a_row_that_is_not_there),
        cmocka_unit_test(snapshots_bring_the_open_ones),
        cmocka_unit_test(a_family_comes_back_together),
        cmocka_unit_test(a_child_brings_its_parent_back),
        cmocka_unit_test(where_deletes_win_the_parent_stays_away),
        cmocka_unit_test(refusals_are_in_the_ledger),
        cmocka_unit_test(only_the_merged_row_is_bad),
        cmocka_unit_test(a_group_is_held),
        cmocka_unit_test(a_revert_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
