/* Devices pushing streams: applied once, replayed, refused, merged; what a constraint takes down
 * with it; scopes apart; everything still there after reopening. */
#include "service_kit.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void a_push_is_applied(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_answer r =
        kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"Well\",\"lat\":1.5}");
    assert_status(r, 200);
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.0.outcome", "applied");
    assert_text(r, "results.0.result.title", "Well");
    assert_text(r, "results.0.result.kind", "plain"); /* the default, as the database stored it */
    assert_text(r, "results.0.vectorClock", "{\"$\":0,\"" A "\":1}");
    assert_int_equal(kit_int(&r, "results.0.commitSeq"), 1);
    assert_int_equal(kit_int(&r, "results.0.sequenceNumber"), 1);
    assert_int_equal(kit_text(&r, "results.0.idempotencyKey").len, 64);
    assert_int_equal(kit_int(&r, "appliedSeq"), 1);
    assert_int_equal(kit_int(&r, "head"), 1);
    assert_int_equal(k.commits, 1);
    assert_string_equal(kit_sql(&k, "SELECT title || lat || kind FROM pins"), "Well1.5plain");
    kit_deinit(&k);
}

static void a_replay_changes_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"Well\"}"),
                     kit_op(&k, &a, OP_UPDATE, "pins", "p1", "{\"note\":\"dry\"}"),
                     kit_op(&k, &a, OP_DELETE, "pins", "p0", NULL),
                     kit_op(&k, &a, OP_UPDATE, "pins", "nowhere", "{\"note\":\"x\"}")};
    ops[1].base = SLICE("{\"note\":null}");
    kit_answer first = kit_push(&k, &a, ops, 4);
    assert_status(first, 200);
    assert_text(first, "results.2.outcome", "noop");
    assert_text(first, "results.3.status", "error");
    slice body = kit_push_body(&k, &a, ops, 4, NULL, (slice){0}, false);
    kit_answer again = kit_body(&k, VERB_PUSH, "ana", "field", body);
    assert_status(again, 200);
    for (int i = 0; i < 4; i++) {
        const char *paths[] = {"outcome", "result", "idempotencyKey", "error"};
        assert_text(again, arena_printf(&k.a, "results.%d.status", i), "already_processed");
        for (size_t p = 0; p < COUNT_OF(paths); p++) {
            const char *path = arena_printf(&k.a, "results.%d.%s", i, paths[p]);
            assert_true(slice_equal(kit_text(&first, path), kit_text(&again, path)));
        }
        const char *path = arena_printf(&k.a, "results.%d.commitSeq", i);
        assert_int_equal(kit_int(&first, path), kit_int(&again, path));
    }
    assert_text(again, "results.3.error.code", "row-missing");
    assert_int_equal(kit_int(&again, "head"), 4);
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_op"), "4");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_commit"), "4");
    kit_deinit(&k);
}

static void half_known_half_new(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "pins", "p1", NULL),
                     kit_op(&k, &a, OP_CREATE, "pins", "p2", NULL)};
    assert_status(kit_push(&k, &a, ops, 1), 200);
    kit_seal(&a, &ops[1]);
    slice body = kit_push_body(&k, &a, ops, 2, NULL, (slice){0}, false);
    kit_answer r = kit_body(&k, VERB_PUSH, "ana", "field", body);
    assert_text(r, "results.0.status", "already_processed");
    assert_text(r, "results.1.status", "success");
    kit_deinit(&k);
}

static void other_histories_are_refused(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p1", NULL), 200);
    kit_device clone = a;
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p2", NULL), 200);
    clone.lsn += 10;
    /* the clone re-uses seq 2 with other content, and its word for what came before is right */
    kit_answer r = kit_push_one(&k, &clone, OP_CREATE, "pins", "p3", NULL);
    assert_problem(r, 409, "device-forked");
    assert_int_equal(kit_int(&r, "appliedSeq"), 2);
    assert_int_equal(kit_text(&r, "lastKey").len, 64);
    a.seq += 3;
    r = kit_push_one(&k, &a, OP_CREATE, "pins", "p9", NULL);
    assert_status(r, 409);
    assert_true(slice_is(kit_text(&r, "type"), "/problems/sequence-gap") ||
                slice_is(kit_text(&r, "type"), "/problems/history-regressed"));
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "2");
    assert_string_equal(kit_sql(&k, "SELECT head FROM godwit_scope"), "2");
    kit_deinit(&k);
}

static void unknown_and_foreign_devices_look_alike(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device nobody = a;
    nobody.id = B;
    kit_answer unknown = kit_push_one(&k, &nobody, OP_CREATE, "pins", "p1", NULL);
    kit_device stolen = a;
    stolen.user = "bob";
    kit_answer foreign = kit_push_one(&k, &stolen, OP_CREATE, "pins", "p1", NULL);
    assert_problem(unknown, 409, "device-unknown");
    assert_true(slice_equal(unknown.text, foreign.text));
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_commit"), "0");
    kit_deinit(&k);
}

static void scopes_need_the_token(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op op = kit_op(&k, &a, OP_CREATE, "pins", "p1", NULL);
    kit_seal(&a, &op);
    slice body = kit_push_body(&k, &a, &op, 1, NULL, (slice){0}, false);
    kit_answer r = kit_body(&k, VERB_PUSH, "ana", "other", body);
    assert_problem(r, 403, "scope-forbidden");
    /* read_scopes let read, not write */
    service_job job;
    kit_job(&k, &job, VERB_PUSH, "ana", "other");
    job.who.read_scopes[0] = SLICE("field");
    job.who.read_scope_count = 1;
    job.body = body;
    r = kit_run(&k, &job);
    assert_problem(r, 403, "scope-read-only");
    kit_job(&k, &job, VERB_CHANGES, "ana", "other");
    job.who.read_scopes[0] = SLICE("field");
    job.who.read_scope_count = 1;
    job.q_scope = SLICE("field");
    r = kit_run(&k, &job);
    assert_status(r, 200);
    kit_deinit(&k);
}

static void groups_are_all_or_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"a\"}"),
                     kit_op(&k, &a, OP_CREATE, "forms", "f1", "{\"pin_id\":\"p1\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p2", "{\"title\":\"b\"}"),
                     kit_op(&k, &a, OP_UPDATE, "pins", "missing", "{\"title\":\"c\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p3", "{\"title\":\"d\"}")};
    kit_group(ops, 2);
    kit_group(ops + 2, 2);
    kit_answer r = kit_push(&k, &a, ops, 5);
    assert_status(r, 200);
    assert_text(r, "results.0.status", "success");
    assert_int_equal(kit_int(&r, "results.0.commitSeq"), 1);
    assert_int_equal(kit_int(&r, "results.1.commitSeq"), 1);
    assert_text(r, "results.2.error.code", "dependency-failed");
    assert_text(r, "results.3.error.code", "row-missing");
    assert_int_equal(kit_int(&r, "results.3.commitSeq"), 2);
    assert_text(r, "results.4.status", "success");
    assert_string_equal(kit_sql(&k, "SELECT group_concat(id) FROM pins"), "p1,p3");
    assert_string_equal(kit_sql(&k, "SELECT outcome FROM godwit_commit WHERE commit_seq = 2"),
                        "rejected");
    kit_deinit(&k);
}

static void a_constraint_takes_only_its_group(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "pins", "p1", "{\"slug\":\"s\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p2", "{\"title\":\"with it\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p3", "{\"slug\":\"s\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p4", "{\"n\":5000}"),
                     kit_op(&k, &a, OP_CREATE, "forms", "f1", "{\"pin_id\":\"nobody\"}"),
                     kit_op(&k, &a, OP_CREATE, "pins", "p5", "{\"n\":5}"),
                     kit_op(&k, &a, OP_UPDATE, "pins", "p5", "{\"n\":5001,\"title\":\"x\"}"),
                     kit_op(&k, &a, OP_UPDATE, "pins", "p5", "{\"n\":7}")};
    ops[6].base = SLICE("{\"n\":5,\"title\":null}");
    ops[7].base = SLICE("{\"n\":5001}");
    kit_group(ops + 1, 2);
    kit_answer r = kit_push(&k, &a, ops, 8);
    assert_status(r, 200);
    static const char *const wanted[] = {NULL,
                                         "dependency-failed",
                                         "unique-violation",
                                         "check-failed",
                                         "fk-violation",
                                         NULL,
                                         "check-failed",
                                         NULL};
    for (int i = 0; i < 8; i++) {
        const char *status = arena_printf(&k.a, "results.%d.status", i);
        assert_text(r, status, wanted[i] ? "error" : "success");
        if (wanted[i]) {
            assert_text(r, arena_printf(&k.a, "results.%d.error.code", i), wanted[i]);
            slice detail = kit_text(&r, arena_printf(&k.a, "results.%d.error.detail", i));
            assert_true(detail.len > 0);
        }
    }
    assert_string_equal(kit_sql(&k, "SELECT group_concat(id || ifnull(n, '')) FROM pins"),
                        "p1,p57");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_row"), "2");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_change WHERE tbl <>"
                                    " '_conflicts'"),
                        "3");
    assert_string_equal(kit_sql(&k, "SELECT title IS NULL FROM pins WHERE id = 'p5'"), "1");
    /* the refusals are remembered like successes */
    slice body = kit_push_body(&k, &a, ops, 8, NULL, (slice){0}, false);
    kit_answer again = kit_body(&k, VERB_PUSH, "ana", "field", body);
    assert_text(again, "results.2.error.code", "unique-violation");
    assert_text(again, "results.2.status", "already_processed");
    kit_deinit(&k);
}

static void what_depends_on_a_refusal_is_refused(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op bad = kit_op(&k, &a, OP_CREATE, "pins", "p1", "{\"n\":5000}");
    int64_t on_bad[] = {1};
    int64_t on_good[] = {3};
    wire_op later[] = {kit_op(&k, &a, OP_CREATE, "forms", "f1", NULL),
                       kit_op(&k, &a, OP_CREATE, "pins", "p2", NULL),
                       kit_op(&k, &a, OP_CREATE, "forms", "f2", "{\"pin_id\":\"p2\"}")};
    later[0].depends_on = on_bad;
    later[0].depends_count = 1;
    later[2].depends_on = on_good;
    later[2].depends_count = 1;
    assert_text(kit_push(&k, &a, &bad, 1), "results.0.error.code", "check-failed");
    kit_answer r = kit_push(&k, &a, later, 3);
    assert_text(r, "results.0.error.code", "dependency-failed");
    assert_text(r, "results.2.status", "success");
    kit_deinit(&k);
}

static void foreign_keys_at_the_groups_end(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op both[] = {kit_op(&k, &a, OP_CREATE, "forms", "f1", "{\"pin_id\":\"p1\"}"),
                      kit_op(&k, &a, OP_CREATE, "pins", "p1", NULL)};
    kit_group(both, 2); /* the child first */
    assert_text(kit_push(&k, &a, both, 2), "results.0.status", "success");
    kit_answer r = kit_push_one(&k, &a, OP_DELETE, "pins", "p1", NULL);
    assert_text(r, "results.0.error.code", "fk-violation");
    assert_text(r, "results.0.error.detail", "forms(pin_id) refers to pins(id)");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM forms"), "1"); /* no cascade of its own */
    wire_op cascade[] = {kit_op(&k, &a, OP_DELETE, "pins", "p1", NULL),
                         kit_op(&k, &a, OP_DELETE, "forms", "f1", NULL)};
    kit_group(cascade, 2); /* the parent first, as SQLite fires it */
    r = kit_push(&k, &a, cascade, 2);
    assert_text(r, "results.0.outcome", "applied");
    assert_text(r, "results.1.outcome", "applied");
    assert_string_equal(
        kit_sql(&k, "SELECT (SELECT count(*) FROM pins) + (SELECT count(*) FROM forms)"), "0");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_row WHERE del_ver IS NOT NULL"),
                        "2");
    r = kit_push_one(&k, &a, OP_CREATE, "forms", "f2", "{\"pin_id\":\"p1\"}");
    assert_text(r, "results.0.error.code", "fk-violation"); /* the parent is a tombstone */
    kit_deinit(&k);
}

static void concurrent_columns_both_survive(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "bob", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"t\",\"note\":\"n\"}"),
                  200);
    wire_op one = kit_op(&k, &a, OP_UPDATE, "pins", "p1", "{\"title\":\"from a\"}");
    wire_op two = kit_op(&k, &b, OP_UPDATE, "pins", "p1", "{\"note\":\"from b\"}");
    kit_base(&k, &a, &one, 1, "{\"title\":\"t\"}");
    kit_base(&k, &b, &two, 1, "{\"note\":\"n\"}");
    kit_answer r = kit_push(&k, &a, &one, 1);
    assert_text(r, "results.0.outcome", "applied");
    r = kit_push(&k, &b, &two, 1);
    assert_text(r, "results.0.outcome", "applied");
    assert_text(r, "results.0.result.title", "from a");
    assert_text(r, "results.0.result.note", "from b");
    assert_text(r, "results.0.vectorClock", "{\"$\":0,\"" A "\":2,\"" B "\":1}");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_conflict"), "0");
    kit_deinit(&k);
}

static void the_same_column_is_decided_and_recorded(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "bob", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"t\"}"), 200);
    wire_op one = kit_op(&k, &a, OP_UPDATE, "pins", "p1", "{\"title\":\"earlier\"}");
    wire_op two = kit_op(&k, &b, OP_UPDATE, "pins", "p1", "{\"title\":\"later\"}");
    one.wall_ms = k.now_ms - 60000;
    kit_base(&k, &a, &one, 1, "{\"title\":\"t\"}");
    kit_base(&k, &b, &two, 1, "{\"title\":\"t\"}");
    kit_answer r = kit_push(&k, &b, &two, 1);
    r = kit_push(&k, &a, &one, 1);
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.0.outcome", "merged");
    assert_text(r, "results.0.result.title", "later");
    slice id = kit_text(&r, "results.0.conflicts.0");
    assert_true(id.len > 0);
    assert_string_equal(kit_sql(&k, "SELECT winner || state || json_extract(ours, '$.title') ||"
                                    " json_extract(theirs, '$.title') FROM godwit_conflict"),
                        "theirsautoearlierlater");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_change WHERE tbl = '_conflicts'"),
                        "1");
    kit_answer feed = kit_changes(&k, "field", (slice){0}, A, "");
    assert_text(feed, "commits.2.changes.0.entityType", "_conflicts");
    assert_text(feed, "commits.2.changes.0.columns.ours.title", "earlier");
    assert_text(feed, "commits.2.own.results.0.outcome", "merged");
    service_job job;
    kit_job(&k, &job, VERB_CONFLICTS, "ana", "field");
    kit_answer list = kit_run(&k, &job);
    assert_int_equal(kit_count(&list, "conflicts"), 1);
    assert_text(list, "conflicts.0.policy", "lww");
    assert_text(list, "conflicts.0.columns.0", "title");
    kit_deinit(&k);
}

static void deletes_and_edits(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "bob", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"t\",\"note\":\"n\"}"),
                  200);
    wire_op gone = kit_op(&k, &a, OP_DELETE, "pins", "p1", NULL);
    wire_op edit = kit_op(&k, &b, OP_UPDATE, "pins", "p1", "{\"note\":\"kept\"}");
    kit_base(&k, &a, &gone, 1, "{\"title\":\"t\",\"note\":\"n\"}");
    kit_base(&k, &b, &edit, 1, "{\"note\":\"n\"}");
    assert_text(kit_push(&k, &a, &gone, 1), "results.0.outcome", "applied");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "0");
    kit_answer r = kit_push(&k, &b, &edit, 1);
    assert_text(r, "results.0.outcome", "merged"); /* edit_wins: brought back from the last image */
    assert_text(r, "results.0.result.title", "t");
    assert_string_equal(kit_sql(&k, "SELECT title || note FROM pins"), "tkept");
    assert_string_equal(kit_sql(&k, "SELECT del_ver IS NULL FROM godwit_row"), "1");
    kit_deinit(&k);
}

static void keys_of_other_scopes(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device north = kit_register(&k, A, "ana", "north");
    kit_device south = kit_register(&k, B, "bob", "south");
    assert_status(kit_push_one(&k, &north, OP_CREATE, "pins", "p1", "{\"title\":\"secret\"}"), 200);
    wire_op ops[] = {kit_op(&k, &south, OP_CREATE, "pins", "mine", NULL),
                     kit_op(&k, &south, OP_CREATE, "pins", "p1", "{\"title\":\"x\"}"),
                     kit_op(&k, &south, OP_UPDATE, "pins", "p1", "{\"title\":\"x\"}"),
                     kit_op(&k, &south, OP_DELETE, "pins", "p1", NULL),
                     kit_op(&k, &south, OP_CREATE, "forms", "f1", "{\"pin_id\":\"p1\"}")};
    kit_answer r = kit_push(&k, &south, ops, 5);
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.1.error.code", "id-unavailable");
    assert_text(r, "results.2.error.code", "row-missing");
    assert_text(r, "results.3.outcome", "noop");
    assert_text(r, "results.4.error.code", "fk-violation");
    assert_null(strstr(r.text.ptr, "secret"));
    assert_string_equal(kit_sql(&k, "SELECT title FROM pins WHERE id = 'p1'"), "secret");
    kit_answer feed = kit_changes(&k, "south", (slice){0}, "", "");
    assert_int_equal(kit_count(&feed, "commits"), 2); /* the row, and what was refused */
    assert_text(feed, "commits.1.changes.0.columns.kind", "fk");
    assert_int_equal(kit_int(&feed, "head"), 5);
    kit_deinit(&k);
}

static void many_pushes_in_one_transaction(void **state) {
    (void)state;
    enum { N = 8 };
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    service_job jobs[N];
    service_job *list[N];
    for (int i = 0; i < N; i++) {
        const char *id = arena_printf(&k.a, "%032d", i);
        const char *scope = i % 2 ? "odd" : "even";
        kit_device d = kit_register(&k, id, "ana", scope);
        /* one row for all devices of a scope: each sees what the one before left */
        const char *body =
            i < 2 ? "{\"n\":1}" : arena_printf(&k.a, "{\"n\":%d}", i == 5 ? 5000 : i);
        wire_op op = kit_op(&k, &d, i < 2 ? OP_CREATE : OP_UPDATE, "pins", i % 2 ? "x" : "y", body);
        kit_seal(&d, &op);
        kit_job(&k, &jobs[i], VERB_PUSH, "ana", scope);
        jobs[i].body = kit_push_body(&k, &d, &op, 1, NULL, (slice){0}, false);
        service_prepare(k.s, &jobs[i]);
        assert_true(jobs[i].wants_write);
        list[i] = &jobs[i];
    }
    service_write(k.s, list, N, kit_on_commit, &k);
    assert_int_equal(k.commits, 2); /* scopes, not pushes */
    for (int i = 0; i < N; i++) {
        kit_answer r = kit_finish(&k, &jobs[i]);
        assert_status(r, 200);
        assert_text(r, "results.0.status", i == 5 ? "error" : "success");
        assert_int_equal(kit_int(&r, "results.0.commitSeq"), i / 2 + 1);
    }
    assert_string_equal(kit_sql(&k, "SELECT sum(head) FROM godwit_scope"), "8");
    assert_string_equal(kit_sql(&k, "SELECT count(DISTINCT salt) FROM godwit_commit"), "8");
    kit_deinit(&k);
}

/* Pushes that are decided together keep apart: what is resent, refused or not let in is that one's
 * own affair, and a second push of a device sees what its first has left. */
static void pushes_together_stay_apart(void **state) {
    enum { N = 6 };
    kit k;
    service_job jobs[N];
    service_job *list[N];
    kit_device d[N];
    wire_op ops[N];
    (void)state;
    kit_init(&k, KIT_PINS, NULL);
    for (int i = 0; i < N; i++) { /* the last is the second push of the one before it */
        d[i] = i < 5 ? kit_register(&k, arena_printf(&k.a, "%032d", i + 1), "ana", "field") : d[4];
        ops[i] = kit_op(&k, &d[i], OP_CREATE, "pins", arena_printf(&k.a, "p%d", i),
                        i == 2 ? "{\"slug\":\"same\"}" : "{\"title\":\"t\"}");
    }
    assert_status(kit_push(&k, &d[1], &ops[1], 1), 200); /* comes again */
    assert_status(kit_push_one(&k, &d[1], OP_CREATE, "pins", "taken", "{\"slug\":\"same\"}"), 200);
    (void)kit_sql(&k, arena_printf(&k.a,
                                   "UPDATE godwit_device SET state = 'revoked'"
                                   " WHERE device_id = '%032d'",
                                   4));
    for (int i = 0; i < N; i++) {
        kit_seal(&d[i], &ops[i]);
        kit_job(&k, &jobs[i], VERB_PUSH, "ana", "field");
        jobs[i].body =
            kit_push_body(&k, &d[i], &ops[i], 1, i == 5 ? ops[4].key : NULL, (slice){0}, false);
        service_prepare(k.s, &jobs[i]);
        list[i] = &jobs[i];
    }
    service_write(k.s, list, N, kit_on_commit, &k);
    static const int codes[N] = {200, 200, 200, 403, 200, 200};
    static const int64_t commits[N] = {3, 1, 4, 0, 5, 6};
    for (int i = 0; i < N; i++) {
        kit_answer r = kit_finish(&k, &jobs[i]);
        assert_status(r, codes[i]);
        if (commits[i]) {
            assert_int_equal(kit_int(&r, "results.0.commitSeq"), commits[i]);
            assert_text(r, "results.0.status",
                        i == 2   ? "error"
                        : i == 1 ? "already_processed"
                                 : "success");
            assert_int_equal(kit_int(&r, "appliedSeq"), i == 5 || i == 1 ? 2 : 1);
        }
    }
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins"), "5");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_op"), "6");
    kit_deinit(&k);
}

static void a_rekeyed_operation_is_found(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op op = kit_op(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"t\"}");
    assert_status(kit_push(&k, &a, &op, 1), 200);
    /* the same operation under a new identity: place and device change, the key does not */
    kit_device b = kit_register(&k, B, "ana", "field");
    b.lineage = a.lineage;
    b.lsn = 1;
    wire_op again = op;
    again.seq = ++b.seq;
    again.rekeyed = true;
    wire_op fresh = kit_op(&k, &b, OP_UPDATE, "pins", "p1", "{\"note\":\"new\"}");
    wire_op ops[] = {again, fresh};
    kit_answer r = kit_push(&k, &b, ops, 2);
    assert_text(r, "results.0.status", "already_processed");
    assert_text(r, "results.0.outcome", "applied");
    assert_text(r, "results.0.result.title", "t");
    assert_text(r, "results.1.status", "success");
    assert_string_equal(kit_sql(&k, "SELECT outcome FROM godwit_commit WHERE commit_seq = 2"),
                        "duplicate");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_change WHERE tbl = 'pins'"), "2");
    kit_deinit(&k);
}

static void everything_survives_reopening(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"title\":\"t\"}"), 200);
    kit_answer before = kit_changes(&k, "field", (slice){0}, A, "");
    kit_reopen(&k);
    kit_answer after = kit_changes(&k, "field", (slice){0}, A, "");
    assert_true(slice_equal(before.text, after.text));
    k.schema_path = NULL; /* the store knows its tables without the file */
    kit_reopen(&k);
    kit_answer r = kit_push_one(&k, &a, OP_UPDATE, "pins", "p1", "{\"title\":\"u\"}");
    assert_text(r, "results.0.status", "success");
    assert_int_equal(kit_int(&r, "results.0.commitSeq"), 2);
    kit_deinit(&k);
}

static void values_keep_their_class(void **state) {
    (void)state;
    if (postgres_server()) {
        skip(); /* a column has one type there */
    }
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_answer r = kit_push_one(&k, &a, OP_CREATE, "counts", "-7",
                                "{\"v\":{\"$i64\":\"9223372036854775807\"}}");
    assert_text(r, "results.0.result.v.$i64", "9223372036854775807");
    assert_int_equal(kit_int(&r, "results.0.result.k"), -7);
    assert_string_equal(kit_sql(&k, "SELECT typeof(v) || v || k FROM counts"),
                        "integer9223372036854775807-7");
    r = kit_push_one(&k, &a, OP_CREATE, "counts", "8", "{\"v\":{\"$b64\":\"AP8=\"}}");
    assert_text(r, "results.0.result.v.$b64", "AP8=");
    /* stored as the column's affinity wants it: the feed says so too */
    r = kit_push_one(&k, &a, OP_CREATE, "pins", "p1", "{\"lat\":2,\"title\":5,\"n\":\"12\"}");
    assert_text(r, "results.0.result.title", "5");
    assert_int_equal(kit_int(&r, "results.0.result.n"), 12);
    kit_answer feed = kit_changes(&k, "field", (slice){0}, "", "");
    assert_true(slice_equal(kit_text(&r, "results.0.result"),
                            kit_text(&feed, "commits.2.changes.0.columns")));
    assert_non_null(strstr(feed.text.ptr, "\"lat\":2.0"));
    r = kit_push_one(&k, &a, OP_CREATE, "counts", "1x", NULL);
    assert_text(r, "results.0.error.code", "invalid-value");
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_push_is_applied),
        cmocka_unit_test(a_replay_changes_nothing),
        cmocka_unit_test(half_known_half_new),
        cmocka_unit_test(other_histories_are_refused),
        cmocka_unit_test(unknown_and_foreign_devices_look_alike),
        cmocka_unit_test(scopes_need_the_token),
        cmocka_unit_test(groups_are_all_or_nothing),
        cmocka_unit_test(a_constraint_takes_only_its_group),
        cmocka_unit_test(what_depends_on_a_refusal_is_refused),
        cmocka_unit_test(foreign_keys_at_the_groups_end),
        cmocka_unit_test(concurrent_columns_both_survive),
        cmocka_unit_test(the_same_column_is_decided_and_recorded),
        cmocka_unit_test(deletes_and_edits),
        cmocka_unit_test(keys_of_other_scopes),
        cmocka_unit_test(many_pushes_in_one_transaction),
        cmocka_unit_test(pushes_together_stay_apart),
        cmocka_unit_test(a_rekeyed_operation_is_found),
        cmocka_unit_test(everything_survives_reopening),
        cmocka_unit_test(values_keep_their_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
