/* The feed and the snapshot: whole commits per page, cursors that prove their history, long polls,
 * one text for both ways to pull, and snapshot plus log equal to the log alone. */
#include "service_kit.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static kit_device fill(kit *k, int count) {
    kit_device a = kit_register(k, A, "ana", "field");
    for (int i = 0; i < count; i++) {
        const char *id = arena_printf(&k->a, "p%03d", i);
        const char *payload = arena_printf(&k->a, "{\"title\":\"title %d\",\"n\":%d}", i, i);
        assert_status(kit_push_one(k, &a, OP_CREATE, "pins", id, payload), 200);
    }
    return a;
}

static void pages_are_whole_and_lose_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 7);
    wire_op group[] = {kit_op(&k, &a, OP_UPDATE, "pins", "p000", "{\"note\":\"x\"}"),
                       kit_op(&k, &a, OP_CREATE, "forms", "f1", "{\"pin_id\":\"p001\"}"),
                       kit_op(&k, &a, OP_DELETE, "pins", "p006", NULL)};
    kit_group(group, 3);
    group[2].base_seq = 0;
    kit_base(&k, &a, &group[2], 7, "{\"title\":\"title 6\"}");
    assert_status(kit_push(&k, &a, group, 3), 200);
    slice cursor = {0};
    int64_t seen = 0;
    for (int page = 0; page < 5; page++) {
        kit_answer r = kit_changes(&k, "field", cursor, "", "2");
        assert_status(r, 200);
        assert_int_equal(kit_int(&r, "head"), 8);
        for (size_t i = 0; i < kit_count(&r, "commits"); i++) {
            assert_int_equal(kit_int(&r, arena_printf(&k.a, "commits.%zu.seq", i)), ++seen);
        }
        assert_int_equal(kit_flag(&r, "more"), page < 3);
        if (seen == 8 && page == 3) {
            assert_int_equal(kit_count(&r, "commits.1.changes"), 3);
            assert_text(r, "commits.1.changes.0.columns", "{\"note\":\"x\"}");
            assert_text(r, "commits.1.changes.2.kind", "delete");
            assert_null(kit_at(r.root, "commits.1.own"));
        }
        cursor = kit_text(&r, "cursor");
    }
    assert_int_equal(seen, 8);
    kit_deinit(&k);
}

static void own_commits_carry_outcomes(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 1);
    kit_device b = kit_register(&k, B, "bob", "field");
    wire_op refused = kit_op(&k, &b, OP_UPDATE, "pins", "none", "{\"title\":\"x\"}");
    assert_status(kit_push(&k, &b, &refused, 1), 200);
    assert_status(kit_push_one(&k, &a, OP_DELETE, "pins", "none", NULL), 200); /* no-op */
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "q", NULL), 200);
    /* somebody else sees only what changed rows; the numbers go on */
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 2);
    assert_int_equal(kit_int(&r, "commits.1.seq"), 4);
    /* an author sees its own, refused ones too */
    service_job job;
    kit_job(&k, &job, VERB_CHANGES, "bob", "field");
    job.q_device = SLICE(B);
    r = kit_run(&k, &job);
    assert_int_equal(kit_count(&r, "commits"), 3);
    assert_int_equal(kit_int(&r, "commits.1.own.first"), 1);
    assert_text(r, "commits.1.own.outcome", "rejected");
    assert_text(r, "commits.1.own.results.0.status", "error");
    assert_text(r, "commits.1.own.results.0.error.code", "row-missing");
    assert_int_equal(kit_text(&r, "commits.1.own.results.0.idempotencyKey").len, 64);
    assert_null(kit_at(r.root, "commits.0.own"));
    /* a device of somebody else is as good as one that nobody has */
    kit_job(&k, &job, VERB_CHANGES, "eve", "field");
    job.q_device = SLICE(B);
    assert_problem(kit_run(&k, &job), 409, "device-unknown");
    assert_problem(kit_changes(&k, "field", (slice){0}, "nobodys", ""), 409, "device-unknown");
    kit_deinit(&k);
}

/* What one device has pulled another gets without the database being asked, while it is true. */
static void a_page_is_read_once(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 5);
    kit_device b = kit_register(&k, B, "bob", "field");
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "2"); /* full */
    assert_int_equal(kit_count(&r, "commits"), 2);
    r = kit_changes(&k, "field", (slice){0}, "", ""); /* up to the head */
    assert_int_equal(kit_count(&r, "commits"), 5);
    (void)kit_sql(&k, "UPDATE godwit_change SET pk = 'other'"); /* as nobody does */
    r = kit_changes(&k, "field", (slice){0}, "", "2");
    assert_text(r, "commits.1.changes.0.entityId", "p001");
    assert_true(kit_flag(&r, "more"));
    r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_text(r, "commits.4.changes.0.entityId", "p004");
    /* the author's own page is another one, other tables, another limit too */
    service_job job;
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_device = SLICE(A);
    r = kit_run(&k, &job);
    assert_text(r, "commits.4.changes.0.entityId", "other");
    assert_int_equal(kit_int(&r, "commits.4.own.first"), 5);
    kit_job(&k, &job, VERB_CHANGES, "bob", "field");
    job.q_device = SLICE(B);
    r = kit_run(&k, &job);
    assert_text(r, "commits.4.changes.0.entityId", "p004");
    assert_null(kit_at(r.root, "commits.4.own"));
    kit_job(&k, &job, VERB_CHANGES, "bob", "field");
    job.q_tables = SLICE("pins");
    r = kit_run(&k, &job);
    assert_text(r, "commits.4.changes.0.entityId", "other");
    r = kit_changes(&k, "field", (slice){0}, "", "3");
    assert_text(r, "commits.2.changes.0.entityId", "other");
    /* a full page outlives new commits, one that ended at the head does not */
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "new", NULL), 200);
    r = kit_changes(&k, "field", (slice){0}, "", "2");
    assert_text(r, "commits.1.changes.0.entityId", "p001");
    assert_int_equal(kit_int(&r, "head"), 6);
    assert_true(kit_flag(&r, "more"));
    r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 6);
    assert_text(r, "commits.5.changes.0.entityId", "new");
    /* a refused operation is shown to its author alone: it has a part in the page all the same */
    wire_op refused = kit_op(&k, &b, OP_UPDATE, "pins", "none", "{\"title\":\"x\"}");
    assert_status(kit_push(&k, &b, &refused, 1), 200);
    r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_int_equal(kit_count(&r, "commits"), 6);
    kit_job(&k, &job, VERB_CHANGES, "bob", "field");
    job.q_device = SLICE(B);
    r = kit_run(&k, &job);
    assert_int_equal(kit_count(&r, "commits"), 7);
    /* another history in the same place: the page is of the one before */
    (void)kit_sql(&k, "UPDATE godwit_commit SET salt = salt + 1 WHERE commit_seq = 2");
    r = kit_changes(&k, "field", (slice){0}, "", "2");
    assert_text(r, "commits.1.changes.0.entityId", "other");
    kit_deinit(&k);
}

static void cursors_prove_their_history(void **state) {
    (void)state;
    kit k, other;
    kit_init(&k, KIT_PINS, NULL);
    kit_init(&other, KIT_PINS, NULL);
    kit_device a = fill(&k, 2);
    (void)a;
    (void)fill(&other, 2);
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "");
    slice good = kit_text(&r, "cursor");
    assert_status(kit_changes(&k, "field", good, "", ""), 200);
    r = kit_changes(&other, "field", good, "", ""); /* same numbers, other salts */
    assert_problem(r, 410, "cursor-invalid");
    r = kit_changes(&k, "south", good, "", "");
    assert_problem(r, 410, "cursor-invalid");
    r = kit_changes(&k, "field", SLICE("bm9uc2Vuc2U"), "", "");
    assert_problem(r, 410, "cursor-invalid");
    service_job job;
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_cursor = good;
    job.q_tables = SLICE("pins");
    r = kit_run(&k, &job);
    assert_problem(r, 410, "cursor-invalid");
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_tables = SLICE("pins,planets");
    r = kit_run(&k, &job);
    assert_problem(r, 400, "invalid-request");
    (void)kit_sql(&k, "UPDATE godwit_scope SET horizon = 1");
    r = kit_changes(&k, "field", (slice){0}, "", "");
    assert_problem(r, 410, "bootstrap-required");
    assert_status(kit_changes(&k, "field", good, "", ""), 200);
    kit_deinit(&k);
    kit_deinit(&other);
}

static void tables_are_filtered(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 1);
    assert_status(kit_push_one(&k, &a, OP_CREATE, "forms", "f", NULL), 200);
    service_job job;
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_tables = SLICE("forms");
    kit_answer r = kit_run(&k, &job);
    assert_int_equal(kit_count(&r, "commits"), 1);
    assert_text(r, "commits.0.changes.0.entityType", "forms");
    slice cursor = kit_text(&r, "cursor");
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_tables = SLICE("forms");
    job.q_cursor = cursor;
    assert_status(kit_run(&k, &job), 200);
    kit_deinit(&k);
}

static void both_ways_to_pull_are_one_text(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 3);
    kit_answer feed = kit_changes(&k, "field", (slice){0}, A, "");
    slice body = kit_push_body(&k, &a, NULL, 0, NULL, (slice){0}, true);
    kit_answer sync = kit_body(&k, VERB_SYNC, "ana", "field", body);
    assert_status(sync, 200);
    assert_true(slice_equal(kit_text(&sync, "changes"), feed.text));
    assert_int_equal(kit_int(&sync, "appliedSeq"), 3);
    /* push and pull together: the page holds what was pushed */
    wire_op op = kit_op(&k, &a, OP_CREATE, "pins", "new", NULL);
    kit_seal(&a, &op);
    body = kit_push_body(&k, &a, &op, 1, a.last_key, kit_text(&feed, "cursor"), true);
    sync = kit_body(&k, VERB_SYNC, "ana", "field", body);
    assert_text(sync, "results.0.status", "success");
    assert_int_equal(kit_count(&sync, "changes.commits"), 1);
    assert_text(sync, "changes.commits.0.own.results.0.status", "success");
    /* only the pull half has a problem */
    memcpy(a.last_key, op.key, sizeof op.key);
    op = kit_op(&k, &a, OP_CREATE, "pins", "newer", NULL);
    kit_seal(&a, &op);
    body = kit_push_body(&k, &a, &op, 1, a.last_key, SLICE("bm9uc2Vuc2U"), true);
    sync = kit_body(&k, VERB_SYNC, "ana", "field", body);
    assert_status(sync, 200);
    assert_text(sync, "results.0.status", "success");
    assert_text(sync, "changesProblem", "cursor-invalid");
    assert_true(json_is(kit_at(sync.root, "changes"), JSON_NULL));
    kit_deinit(&k);
}

static void polls_park_until_the_head_moves(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 1);
    kit_answer r = kit_changes(&k, "field", (slice){0}, "", "");
    service_job job;
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_cursor = kit_text(&r, "cursor");
    job.q_wait = SLICE("20");
    service_prepare(k.s, &job);
    assert_true(job.wants_read);
    service_read(k.s, k.r, &job);
    assert_true(job.park && slice_is(job.park_scope, "field"));
    assert_int_equal(job.park_head, 1);
    assert_int_equal(job.wait_ms, 20000);
    assert_int_equal(service_head(k.s, k.r, &job, SLICE("field")), 1);
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "q", NULL), 200);
    service_read(k.s, k.r, &job);
    assert_false(job.park);
    r = kit_finish(&k, &job);
    assert_int_equal(kit_count(&r, "commits"), 1);
    assert_string_equal(r.etag, "\"2\"");
    /* over: it answers with nothing */
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_cursor = kit_text(&r, "cursor");
    job.q_wait = SLICE("20");
    job.wait_over = true;
    r = kit_run(&k, &job);
    assert_status(r, 200);
    assert_int_equal(kit_count(&r, "commits"), 0);
    kit_job(&k, &job, VERB_CHANGES, "ana", "field");
    job.q_cursor = kit_text(&r, "cursor");
    job.q_if_none_match = SLICE("\"2\"");
    r = kit_run(&k, &job);
    assert_status(r, 304);
    kit_deinit(&k);
}

/* ---- bootstrap ---- */

/* A random write: also while the snapshot's pages are read. */
static void scribble(kit *k, kit_device *d, uint64_t *seed, int count) {
    for (int i = 0; i < count; i++) {
        const char *id = arena_printf(&k->a, "p%02d", (int)(unit_random(seed) % 40));
        const char *payload =
            arena_printf(&k->a, "{\"title\":\"%d\"}", (int)(unit_random(seed) % 1000));
        op_kind kind = unit_random(seed) % 5 == 0 ? OP_DELETE
                       : unit_random(seed) % 2    ? OP_UPDATE
                                                  : OP_CREATE;
        wire_op op = kit_op(k, d, kind, "pins", id, kind == OP_DELETE ? NULL : payload);
        const char *head = kit_sql(k, "SELECT head FROM godwit_scope");
        if (head[0]) {
            kit_base(k, d, &op, strtoll(head, NULL, 10), "{}");
        }
        assert_status(kit_push(k, d, &op, 1), 200);
    }
}

static void snapshot_and_log_equal_the_log(void **state) {
    (void)state;
    for (uint64_t run = 1; run <= 5; run++) {
        kit k;
        kit_init(&k, KIT_PINS, NULL);
        uint64_t seed = run * 0x9e3779b97f4a7c15u;
        kit_device a = kit_register(&k, A, "ana", "field");
        scribble(&k, &a, &seed, 60);
        sqlite3 *from_zero = replica_open();
        sqlite3 *bootstrapped = replica_open();
        slice token = {0}, cursor = {0};
        for (bool more = true; more;) {
            more = replica_snapshot(&k, bootstrapped, "4", &token, &cursor);
            scribble(&k, &a, &seed, 3);
        }
        replica_pull(&k, bootstrapped, cursor);
        replica_pull(&k, from_zero, (slice){0});
        assert_string_equal(replica_digest(&k, bootstrapped), replica_digest(&k, from_zero));
        assert_int_equal(atoi(kit_sql(&k, "SELECT count(*) FROM pins")),
                         atoi(replica_digest(&k, from_zero)));
        sqlite3_close(from_zero);
        sqlite3_close(bootstrapped);
        kit_deinit(&k);
    }
}

static void tokens_are_checked(void **state) {
    (void)state;
    kit k, other;
    kit_init(&k, KIT_PINS, NULL);
    kit_init(&other, KIT_PINS, NULL);
    (void)fill(&k, 3);
    (void)fill(&other, 3);
    service_job job;
    kit_job(&k, &job, VERB_SNAPSHOT, "ana", "field");
    job.q_limit = SLICE("1");
    kit_answer page = kit_run(&k, &job);
    slice token = kit_text(&page, "token");
    assert_true(token.len > 0);
    slice bad[] = {SLICE("x"),
                   SLICE("a.b.c"),
                   SLICE(".."),
                   {token.ptr, token.len - 3},
                   {token.ptr + 1, token.len - 1}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        kit_job(&k, &job, VERB_SNAPSHOT, "ana", "field");
        job.q_token = bad[i];
        page = kit_run(&k, &job);
        assert_true(page.status == 410 || i == 3); /* a shorter key is another place, not a lie */
    }
    kit_job(&other, &job, VERB_SNAPSHOT, "ana", "field");
    job.q_token = token;
    page = kit_run(&other, &job);
    assert_problem(page, 410, "cursor-invalid");
    kit_deinit(&k);
    kit_deinit(&other);
}

static void history_follows_the_log(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = fill(&k, 2);
    assert_status(kit_push_one(&k, &a, OP_UPDATE, "pins", "p001", "{\"note\":\"x\"}"), 200);
    assert_status(kit_push_one(&k, &a, OP_CREATE, "forms", "f", NULL), 200);
    assert_status(kit_push_one(&k, &a, OP_DELETE, "pins", "p001", NULL), 200);
    service_job job;
    kit_job(&k, &job, VERB_HISTORY, "ana", "field");
    job.q_entity_type = SLICE("pins");
    job.q_entity_id = SLICE("p001");
    kit_answer r = kit_run(&k, &job);
    assert_status(r, 200);
    assert_int_equal(kit_count(&r, "changes"), 3);
    assert_text(r, "changes.0.kind", "delete");
    assert_text(r, "changes.1.columns", "{\"note\":\"x\"}");
    assert_int_equal(kit_int(&r, "changes.2.seq"), 2);
    assert_text(r, "changes.2.userId", "ana");
    kit_job(&k, &job, VERB_HISTORY, "ana", "field");
    job.q_entity_type = SLICE("pins");
    job.q_entity_id = SLICE("never");
    r = kit_run(&k, &job);
    assert_status(r, 200);
    assert_int_equal(kit_count(&r, "changes"), 0);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_whole_and_lose_nothing),
        cmocka_unit_test(own_commits_carry_outcomes),
        cmocka_unit_test(a_page_is_read_once),
        cmocka_unit_test(cursors_prove_their_history),
        cmocka_unit_test(tables_are_filtered),
        cmocka_unit_test(both_ways_to_pull_are_one_text),
        cmocka_unit_test(polls_park_until_the_head_moves),
        cmocka_unit_test(snapshot_and_log_equal_the_log),
        cmocka_unit_test(tokens_are_checked),
        cmocka_unit_test(history_follows_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
