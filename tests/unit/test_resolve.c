/* Conflicts from the server's decision to a person's: the ledger of every device, the three
 * choices, what is captured and sent for them. */
#include "sync_kit.h"

#include "client/count.h"

typedef struct {
    world w;
    device *a, *b, *c;
} fixture;

static void setup(fixture *f) {
    memset(f, 0, sizeof *f);
    f->w.random = 88172645463325252u;
    kit_init(&f->w.server, WORLD_SCHEMA, "[table pins]\npolicy.title = manual\n");
    f->a = world_field_device(&f->w);
    f->b = world_field_device(&f->w);
    f->c = world_field_device(&f->w);
    device_exec(f->a, "INSERT INTO pins(id, title, note, n) VALUES ('p', 'old', 'note', 1)");
    device_sync(f->a);
    device_sync(f->b);
}

static void sync_all(fixture *f) {
    for (int round = 0; round < 2; round++) {
        device_sync(f->a);
        device_sync(f->b);
        device_sync(f->c);
    }
}

/* a's title is there first, b's is the operation that meets the conflict. */
static void open_conflict(fixture *f) {
    setup(f);
    device_exec(f->a, "UPDATE pins SET title = 'from a', n = 2 WHERE id = 'p'");
    device_exec(f->b, "UPDATE pins SET title = 'from b', note = 'b' WHERE id = 'p'");
    sync_all(f);
}

static const char *title(device *d) {
    return device_text(d, "SELECT title FROM pins WHERE id = 'p'");
}

static const char *states(device *d) {
    return device_text(d, "SELECT group_concat(state) FROM (SELECT state FROM godwit_conflicts"
                          " ORDER BY conflict_id)");
}

#define FIRST "SELECT conflict_id FROM godwit_conflicts ORDER BY conflict_id LIMIT 1"

/* The operation's id. */
static const char *choose(device *d, const char *choice) {
    static char id[37];
    device_check(d, godwit_resolve(d->g, device_text(d, FIRST), choice, id));
    assert_int_equal(strlen(id), 36);
    return id;
}

static void assert_everywhere(fixture *f, const char *expected_title, const char *expected_states) {
    device *all[] = {f->a, f->b, f->c};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        assert_string_equal(title(all[i]), expected_title);
        assert_string_equal(states(all[i]), expected_states);
        assert_int_equal(device_int(all[i], "SELECT count(*) FROM sync_queue WHERE status ="
                                            " 'pending'"),
                         0);
        const char *body = device_text(all[i], "SELECT body FROM godwit_conflicts LIMIT 1");
        const char *other = device_text(f->a, "SELECT body FROM godwit_conflicts LIMIT 1");
        assert_string_equal(body, other);
    }
    assert_string_equal(kit_sql(&f->w.server, "SELECT coalesce(max(title), '(none)') FROM pins"),
                        expected_title);
    assert_string_equal(kit_sql(&f->w.server, "SELECT group_concat(state) FROM godwit_conflict"),
                        expected_states);
}

static void every_device_has_the_record(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    assert_everywhere(&f, "from a", "open");
    assert_string_equal(device_text(f.c, "SELECT entity_type || entity_id || kind || scope FROM"
                                         " godwit_conflicts"),
                        "pinspfieldfield");
    assert_string_equal(
        device_text(f.c, "SELECT json_extract(body, '$.theirs.title') || json_extract(body,"
                         " '$.ours.title') || json_extract(body, '$.columns[0]') FROM"
                         " godwit_conflicts"),
        "from afrom btitle");
    /* a device that starts from a snapshot, too */
    device *late = world_field_device(&f.w);
    device_sync(late);
    assert_string_equal(states(late), "open");
    world_deinit(&f.w);
}

static void mine(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    const char *id = choose(f.c, "mine");
    assert_string_equal(title(f.c), "from b");
    assert_string_equal(states(f.c), "open"); /* until the server has it */
    sync_all(&f);
    assert_everywhere(&f, "from b", "resolved");
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT payload || base || substr(resolves, 1, 5) || state FROM godwit_op WHERE "
                   "lsn = (SELECT "
                   "lsn FROM sync_queue"
                   " WHERE id = '%s')",
                   id);
    assert_string_equal(device_text(f.c, sql),
                        "{\"title\":\"from b\"}{\"title\":\"from a\"}c-3-0retired");
    assert_string_equal(
        device_text(f.a, "SELECT json_extract(body, '$.resolvedBy') || json_extract(body,"
                         " '$.resolvedCommit') FROM godwit_conflicts"),
        "ana4");
    /* decided is decided */
    char new_id[37] = "x";
    assert_int_equal(godwit_resolve(f.a->g, "c-3-0", "theirs", new_id), GODWIT_MISUSE);
    assert_string_equal(new_id, "");
    world_deinit(&f.w);
}

/* Nothing changes in the row, and still there is an operation that closes the conflict. */
static void theirs(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    const char *id = choose(f.b, "theirs");
    sync_all(&f);
    assert_everywhere(&f, "from a", "resolved");
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT payload || base FROM godwit_op WHERE lsn = (SELECT lsn FROM sync_queue"
                   " WHERE id = '%s')",
                   id);
    assert_string_equal(device_text(f.b, sql), "{\"title\":\"from a\"}{\"title\":\"from a\"}");
    world_deinit(&f.w);
}

/* Chosen columns that have their value are said with the one that changes. */
static void values_of_ones_own(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    const char *id = choose(f.a, "{\"n\":7,\"title\":\"from a\",\"slug\":null}");
    sync_all(&f);
    assert_everywhere(&f, "from a", "resolved");
    assert_int_equal(device_int(f.c, "SELECT n FROM pins"), 7);
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT payload || base FROM godwit_op WHERE lsn = (SELECT lsn FROM sync_queue"
                   " WHERE id = '%s')",
                   id);
    assert_string_equal(device_text(f.a, sql), "{\"title\":\"from a\",\"n\":7,\"slug\":null}"
                                               "{\"title\":\"from a\",\"n\":2,\"slug\":null}");
    world_deinit(&f.w);
}

static void an_empty_choice_only_closes(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    device_exec(f.a, "DELETE FROM pins");
    sync_all(&f);
    /* the row is gone: no values can be chosen for it */
    assert_int_equal(godwit_resolve(f.b->g, "c-3-0", "mine", NULL), GODWIT_NOT_FOUND);
    assert_non_null(strstr(godwit_message(f.b->g), "gone"));
    assert_int_equal(godwit_resolve(f.b->g, "c-3-0", "{\"title\":\"x\"}", NULL), GODWIT_NOT_FOUND);
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM sync_queue WHERE status = 'pending'"),
                     0);
    choose(f.b, "{}");
    sync_all(&f);
    assert_everywhere(&f, "(none)", "resolved");
    world_deinit(&f.w);
}

static void wrong_choices_change_nothing(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    static const struct {
        const char *id, *choice;
        godwit_status status;
    } wrong[] = {
        {"c-9-0", "mine", GODWIT_NOT_FOUND},
        {"c-3-0", "ours", GODWIT_INVALID},
        {"c-3-0", "[1]", GODWIT_INVALID},
        {"c-3-0", "", GODWIT_INVALID},
        {"c-3-0", "{\"id\":\"q\"}", GODWIT_INVALID},
        {"c-3-0", "{\"nonsense\":1}", GODWIT_INVALID},
        {"c-3-0", "{\"title\":{\"$what\":1}}", GODWIT_INVALID},
        {"c-3-0", "{\"slug\":\"taken\"}", GODWIT_CONSTRAINT},
        {"other/c-3-0", "mine", GODWIT_NOT_FOUND},
    };
    device_exec(f.b, "INSERT INTO pins(id, slug) VALUES ('q', 'taken')");
    int64_t before = device_int(f.b, "SELECT count(*) FROM sync_queue");
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        char id[37] = "x";
        godwit_status status = godwit_resolve(f.b->g, wrong[i].id, wrong[i].choice, id);
        if (status != wrong[i].status) {
            fail_msg("%s %s: %s: %s", wrong[i].id, wrong[i].choice, godwit_status_name(status),
                     godwit_message(f.b->g));
        }
        assert_string_equal(id, "");
    }
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM sync_queue"), before);
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_hint"), 0);
    assert_string_equal(title(f.b), "from a");
    world_deinit(&f.w);
}

/* In the application's transaction, before others of its changes, and with triggers of its own. */
static void inside_a_transaction(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    device_exec(f.a, "CREATE TRIGGER stamp AFTER UPDATE OF title ON pins BEGIN UPDATE pins SET note"
                     " = 'stamped' WHERE id = NEW.id; END");
    device_exec(f.a, "BEGIN");
    choose(f.a, "mine");
    device_exec(f.a, "UPDATE pins SET n = 9 WHERE id = 'p'; INSERT INTO pins(id) VALUES ('q');"
                     "COMMIT");
    device_exec(f.b, "BEGIN");
    choose(f.b, "theirs");
    device_exec(f.b, "ROLLBACK");
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM sync_queue WHERE status = 'pending'"),
                     0);
    sync_all(&f);
    assert_everywhere(&f, "from b", "resolved");
    assert_string_equal(device_text(f.c, "SELECT note || n FROM pins WHERE id = 'p'"), "stamped9");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_op WHERE resolves IS NOT NULL"),
                     1);
    assert_int_equal(device_int(f.a, "SELECT count(DISTINCT group_first) FROM godwit_op WHERE"
                                     " commit_seq = 4"),
                     1);
    world_deinit(&f.w);
}

/* The side that deleted: choosing it deletes the row. */
static void edit_against_delete(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_exec(f.a, "UPDATE pins SET note = 'kept' WHERE id = 'p'");
    device_exec(f.b, "DELETE FROM pins");
    sync_all(&f);
    assert_everywhere(&f, "old", "auto"); /* the edit won */
    choose(f.b, "mine");
    assert_string_equal(title(f.b), "(none)");
    sync_all(&f);
    assert_everywhere(&f, "(none)", "resolved");
    world_deinit(&f.w);
}

static void a_refused_resolution_keeps_what_it_resolves(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    device_exec(f.a, "INSERT INTO pins(id, slug) VALUES ('x', 's')");
    device_sync(f.a);
    choose(f.b, "{\"slug\":\"s\",\"title\":\"both\"}");
    device_sync(f.b);
    assert_string_equal(device_text(f.b, "SELECT code FROM godwit_dead_letters WHERE status ="
                                         " 'failed'"),
                        "unique-violation");
    assert_string_equal(states(f.b), "open,auto"); /* the refusal has an entry of its own */
    char id[37], again[37];
    (void)snprintf(id, sizeof id, "%s",
                   device_text(f.b, "SELECT id FROM godwit_dead_letters WHERE status = 'failed'"));
    device_check(f.b, godwit_edit(f.b->g, id, "{\"title\":\"both\"}", again));
    sync_all(&f);
    assert_everywhere(&f, "both", "resolved,auto");
    world_deinit(&f.w);
}

/* Ids are those of a scope: a device of two may have one twice. */
static void the_same_id_in_two_scopes(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    device_exec(f.a, "INSERT INTO godwit_conflict(scope, conflict_id, tbl, pk, kind, body, state, "
                     "at) SELECT 'other', conflict_id, tbl, pk, kind, body,"
                     " 'auto', at FROM godwit_conflict");
    assert_int_equal(godwit_resolve(f.a->g, "c-3-0", "mine", NULL), GODWIT_INVALID);
    assert_non_null(strstr(godwit_message(f.a->g), "scope/c-3-0"));
    device_check(f.a, godwit_resolve(f.a->g, "field/c-3-0", "mine", NULL));
    device_exec(f.a, "DELETE FROM godwit_conflict WHERE scope = 'other'");
    sync_all(&f);
    assert_everywhere(&f, "from b", "resolved");
    world_deinit(&f.w);
}

/* A snapshot replaces what is open: what was resolved meanwhile is not, others stay. */
static void a_snapshot_ends_what_is_no_longer_open(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    choose(f.a, "mine");
    device_sync(f.a);
    device_exec(f.b, "UPDATE pins SET title = 'b again' WHERE id = 'p'");
    device_sync(f.b); /* a second one */
    assert_string_equal(kit_sql(&f.w.server, "SELECT group_concat(state) FROM godwit_conflict"),
                        "resolved,open");
    assert_string_equal(states(f.c), "open");
    f.w.faults =
        (faults){.status = 410, .body = "{\"type\":\"/problems/cursor-expired\"}", .times = 1};
    device_sync(f.c);
    assert_string_equal(device_text(f.c,
                                    "SELECT group_concat(substr(conflict_id, 1, 5) || state) FROM"
                                    " godwit_conflicts"),
                        device_text(f.c, "SELECT 'c-5-0open'"));
    world_deinit(&f.w);
}

/* A database of the step before: its conflicts stay, a snapshot half staged starts again. */
static void older_databases_are_brought_up(void **state) {
    (void)state;
    fixture f;
    open_conflict(&f);
    device_exec(
        f.c, "ALTER TABLE godwit_identity DROP COLUMN user_id; ALTER TABLE godwit_identity DROP"
             " COLUMN server_id;"
             "ALTER TABLE godwit_op DROP COLUMN resolves; ALTER TABLE godwit_hint DROP COLUMN"
             " resolves; CREATE TABLE x AS SELECT conflict_id, scope, tbl, pk, kind, body, state,"
             " at FROM godwit_conflict; DROP VIEW godwit_conflicts; DROP VIEW godwit_metrics;"
             "DROP TABLE godwit_conflict; CREATE TABLE godwit_conflict (conflict_id TEXT PRIMARY"
             " KEY, scope TEXT NOT NULL, tbl INTEGER NOT NULL, pk TEXT NOT NULL, kind TEXT NOT"
             " NULL, body TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;"
             "INSERT INTO godwit_conflict SELECT * FROM x; DROP TABLE x; DROP VIEW godwit_captured;"
             "DROP TABLE godwit_counter; DROP TABLE godwit_gap; DROP TABLE godwit_receipt; UPDATE "
             "godwit_meta SET v"
             " = 1 WHERE k = 'schema_version'; UPDATE godwit_cursor SET state = 'staging'");
    device_close(f.c);
    device_open(f.c);
    assert_string_equal(states(f.c), "open");
    choose(f.c, "mine");
    sync_all(&f);
    assert_everywhere(&f, "from b", "resolved");
    world_deinit(&f.w);
}

/* ---- What met two conflicts ---- */

/* Both columns of b's operation meet one, and it is made again, edited or given up by `how`. */
static void two_conflicts(fixture *f, const char *how) {
    char letter[40];
    memset(f, 0, sizeof *f);
    f->w.random = 88172645463325252u;
    kit_init(&f->w.server, WORLD_SCHEMA, "[table pins]\npolicy = manual\n");
    f->a = world_field_device(&f->w);
    f->b = world_field_device(&f->w);
    f->c = world_field_device(&f->w);
    device_exec(f->a, "INSERT INTO pins(id, title, note) VALUES ('p', 'old', 'old')");
    device_sync(f->a);
    device_sync(f->b);
    device_exec(f->a, "UPDATE pins SET title = 'from a', note = 'from a' WHERE id = 'p'");
    device_exec(f->b, "UPDATE pins SET title = 'from b', note = 'from b' WHERE id = 'p'");
    sync_all(f);
    assert_everywhere(f, "from a", "open,open");
    assert_int_equal(device_int(f->b, "SELECT count(*) FROM godwit_dead_letters"), 1);
    (void)snprintf(letter, sizeof letter, "%s",
                   device_text(f->b, "SELECT id FROM godwit_dead_letters"));
    device_check(f->b, *how == 'r'   ? godwit_retry(f->b->g, letter, NULL)
                       : *how == 'e' ? godwit_edit(f->b->g, letter, "{\"title\":\"edited\"}", NULL)
                                     : godwit_discard(f->b->g, letter, "not needed"));
    sync_all(f);
    device *all[] = {f->a, f->b, f->c};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        int64_t wrong = 0;
        char what[120] = "";
        assert_int_equal(device_int(all[i], "SELECT count(*) FROM godwit_dead_letters"), 0);
        device_check(all[i], count_check(all[i]->g, &wrong, what, sizeof what));
        assert_string_equal(what, "");
    }
}

static void a_retry_closes_both(void **state) {
    (void)state;
    fixture f;
    two_conflicts(&f, "retry");
    assert_everywhere(&f, "from b", "resolved,resolved");
    assert_string_equal(device_text(f.c, "SELECT note FROM pins"), "from b");
    world_deinit(&f.w);
}

static void an_edit_closes_both(void **state) {
    (void)state;
    fixture f;
    two_conflicts(&f, "edit");
    assert_everywhere(&f, "edited", "resolved,resolved");
    assert_string_equal(device_text(f.c, "SELECT note FROM pins"), "from a");
    world_deinit(&f.w);
}

static void what_is_given_up_closes_both(void **state) {
    (void)state;
    fixture f;
    two_conflicts(&f, "discard");
    assert_everywhere(&f, "from a", "resolved,resolved");
    assert_string_equal(device_text(f.b, "SELECT outcome || resolution || reason FROM"
                                         " godwit_receipts WHERE resolution IS NOT NULL"),
                        "conflictdiscardednot needed");
    world_deinit(&f.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_device_has_the_record),
        cmocka_unit_test(mine),
        cmocka_unit_test(theirs),
        cmocka_unit_test(values_of_ones_own),
        cmocka_unit_test(an_empty_choice_only_closes),
        cmocka_unit_test(wrong_choices_change_nothing),
        cmocka_unit_test(inside_a_transaction),
        cmocka_unit_test(edit_against_delete),
        cmocka_unit_test(a_refused_resolution_keeps_what_it_resolves),
        cmocka_unit_test(the_same_id_in_two_scopes),
        cmocka_unit_test(a_snapshot_ends_what_is_no_longer_open),
        cmocka_unit_test(older_databases_are_brought_up),
        cmocka_unit_test(a_retry_closes_both),
        cmocka_unit_test(an_edit_closes_both),
        cmocka_unit_test(what_is_given_up_closes_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
