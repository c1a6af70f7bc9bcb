/* Refused operations: what is held back with them, and how they are made again. */
#include "sync_kit.h"

#include "client/count.h"

/* The server is stricter than the devices. */
#define STRICT                                                                                     \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER CHECK (n < 10), slug" \
    " TEXT UNIQUE);" WORLD_FORMS

typedef struct {
    world w;
    device *a, *b;
} fixture;

static void setup(fixture *f) {
    memset(f, 0, sizeof *f);
    f->w.random = 88172645463325252u;
    kit_init(&f->w.server, STRICT, "[table pins]\npolicy.title = manual\n");
    f->a = world_field_device(&f->w);
    f->b = world_field_device(&f->w);
}

static const char *letters(device *d) {
    return device_text(d, "SELECT group_concat(entity_id || ' ' || code, ', ') FROM (SELECT * FROM"
                          " godwit_dead_letters ORDER BY lsn)");
}

static const char *letter_id(device *d, const char *entity_id, char id[37]) {
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "SELECT id FROM godwit_dead_letters WHERE entity_id = '%s' ORDER BY lsn",
                   entity_id);
    (void)snprintf(id, 37, "%s", device_text(d, sql));
    return id;
}

#define PINS "SELECT group_concat(id || ':' || n) FROM (SELECT id, n FROM pins ORDER BY id)"

static const char *server_pins(fixture *f) {
    return kit_sql(&f->w.server, PINS);
}

/* Nothing waits for anybody, and the counters say so. */
static void assert_drained(device *d) {
    int64_t wrong = 0;
    char what[160] = "";
    device_check(d, count_check(d->g, &wrong, what, sizeof what));
    assert_string_equal(what, "");
    assert_int_equal(device_int(d, "SELECT queue_length FROM godwit_metrics"), 0);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_dead_letters"), 0);
}

static int64_t commits(fixture *f) {
    return strtoll(kit_sql(&f->w.server, "SELECT count(*) FROM godwit_commit"), NULL, 10);
}

/* ---- Groups ---- */

static void refuse_transaction(fixture *f) {
    setup(f);
    device_exec(f->a, "BEGIN;"
                      "INSERT INTO pins(id, n) VALUES ('one', 1);"
                      "INSERT INTO pins(id, n) VALUES ('two', 20);"
                      "INSERT INTO forms(id, pin_id) VALUES ('f', 'two');"
                      "COMMIT");
    device_sync(f->a);
    assert_string_equal(letters(f->a),
                        "one dependency-failed, two check-failed, f dependency-failed");
    assert_int_equal(device_int(f->a, "SELECT count(*) FROM pins"), 0);
}

static void a_transaction_comes_back_as_one(void **state) {
    (void)state;
    fixture f;
    char id[37], new_id[37];
    refuse_transaction(&f);
    int64_t before = commits(&f);
    device_check(
        f.a, godwit_edit(f.a->g, letter_id(f.a, "two", id), "{\"id\":\"two\",\"n\":2}", new_id));
    assert_string_equal(device_text(f.a, PINS), "one:1,two:2");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_dead_letters"), 0);
    assert_string_equal(
        device_text(f.a, "SELECT group_concat(DISTINCT group_size) || count(DISTINCT group_first)"
                         " || count(*) FROM godwit_op WHERE state = 'pending'"),
        "313");
    assert_string_equal(device_text(f.a, "SELECT group_concat(resolution) FROM godwit_outcome"),
                        "retried,edited,retried");
    char sql[200];
    (void)snprintf(sql, sizeof sql,
                   "SELECT supersedes FROM godwit_op WHERE lsn = (SELECT lsn FROM sync_queue"
                   " WHERE id = '%s')",
                   new_id);
    assert_string_equal(device_text(f.a, sql), id);
    device_sync(f.a);
    device_sync(f.b);
    assert_string_equal(server_pins(&f), "one:1,two:2");
    assert_string_equal(device_text(f.b, PINS), "one:1,two:2");
    assert_int_equal(commits(&f), before + 1); /* one transaction there, too */
    assert_drained(f.a);
    assert_int_equal(godwit_retry(f.a->g, id, NULL), GODWIT_MISUSE);
    assert_non_null(strstr(godwit_message(f.a->g), "dealt with"));
    world_deinit(&f.w);
}

/* Still wrong: all of it is refused again, and can be made right again. */
static void a_retry_that_fails_again(void **state) {
    (void)state;
    fixture f;
    char id[37];
    refuse_transaction(&f);
    device_check(f.a, godwit_retry(f.a->g, letter_id(f.a, "one", id), NULL));
    device_sync(f.a);
    assert_string_equal(letters(f.a),
                        "one dependency-failed, two check-failed, f dependency-failed");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 0);
    device_check(f.a,
                 godwit_edit(f.a->g, letter_id(f.a, "two", id), "{\"id\":\"two\",\"n\":3}", NULL));
    device_sync(f.a);
    assert_string_equal(server_pins(&f), "one:1,two:3");
    world_deinit(&f.w);
}

/* The row is gone meanwhile: refused again, the delete has nothing to bring back. */
static void a_delete_of_what_is_gone_is_retried(void **state) {
    (void)state;
    fixture f;
    char id[37];
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('one', 1)");
    device_sync(f.a);
    device_sync(f.b);
    device_exec(f.a, "BEGIN; DELETE FROM pins WHERE id = 'one';"
                     "INSERT INTO pins(id, n) VALUES ('two', 20); COMMIT");
    device_sync(f.a);
    assert_string_equal(device_text(f.a, PINS), "one:1");
    device_exec(f.b, "DELETE FROM pins WHERE id = 'one'");
    device_sync(f.b);
    device_sync(f.a);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 0);
    device_check(f.a, godwit_retry(f.a->g, letter_id(f.a, "two", id), NULL));
    device_sync(f.a);
    assert_string_equal(letters(f.a), "one dependency-failed, two check-failed");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 0);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_base"), 0);
    world_deinit(&f.w);
}

static void what_is_discarded_stays_away(void **state) {
    (void)state;
    fixture f;
    char id[37], form[37];
    refuse_transaction(&f);
    letter_id(f.a, "two", id);
    letter_id(f.a, "f", form);
    const char *both[] = {id, form};
    const char *wrong[] = {id, "nonsense"};
    assert_int_equal(godwit_discard_many(f.a->g, wrong, 2, NULL), GODWIT_NOT_FOUND);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_dead_letters"), 3);
    device_check(f.a, godwit_discard_many(f.a->g, both, 2, "was a mistake"));
    assert_string_equal(letters(f.a), "one dependency-failed");
    assert_string_equal(device_text(f.a, "SELECT detail FROM godwit_outcome WHERE resolution ="
                                         " 'discarded'"),
                        "was a mistake");
    assert_int_equal(godwit_discard(f.a->g, id, NULL), GODWIT_MISUSE);
    device_check(f.a, godwit_retry(f.a->g, letter_id(f.a, "one", id), NULL));
    device_sync(f.a);
    assert_string_equal(server_pins(&f), "one:1");
    assert_drained(f.a);
    world_deinit(&f.w);
}

/* ---- Dependants ---- */

/* Four ways to depend on the create of 'p'; 'free' does not. */
static void refuse_tree(fixture *f, bool in_flight) {
    char id[37], letter_of[37];
    setup(f);
    device_exec(f->a, "INSERT INTO pins(id, n) VALUES ('p', 20)");
    device_exec(f->a, "INSERT INTO forms(id, pin_id, body) VALUES ('f', 'p', 'x')");
    device_exec(f->a, "UPDATE forms SET body = 'y' WHERE id = 'f'");
    device_exec(f->a, "UPDATE pins SET title = 'later' WHERE id = 'p'");
    device_exec(f->a, "INSERT INTO pins(id, n) VALUES ('free', 1)");
    device_check(f->a, godwit_enqueue(f->a->g, "update", "pins", "p", NULL, NULL, id));
    const char *on[] = {id};
    const godwit_enqueue_options options = {.depends_on = on, .depends_on_count = 1};
    device_check(f->a, godwit_enqueue(f->a->g, "create", "letters", "l-1", "{\"to\":\"x\"}",
                                      &options, letter_of));
    if (!in_flight) { /* one group at a time: the others learn of it before they are sent */
        device_exec(f->a, "INSERT INTO godwit_meta VALUES ('round:field', '1 0')");
    }
    device_sync(f->a);
    device_sync(f->a);
    assert_string_equal(server_pins(f), "free:1");
    assert_string_equal(device_text(f->a, PINS), "free:1");
    assert_int_equal(device_int(f->a, "SELECT count(*) FROM forms"), 0);
}

static void held_back_comes_along(void **state) {
    (void)state;
    for (int in_flight = 0; in_flight < 2; in_flight++) {
        fixture f;
        char id[37], new_id[37];
        refuse_tree(&f, in_flight != 0);
        assert_string_equal(letters(f.a),
                            "p check-failed, f dependency-failed, f dependency-failed,"
                            " p dependency-failed, l-1 dependency-failed");
        /* not without what it depends on */
        assert_int_equal(godwit_retry(f.a->g, letter_id(f.a, "f", id), new_id), GODWIT_MISUSE);
        assert_non_null(strstr(godwit_message(f.a->g), letter_id(f.a, "p", id)));
        assert_string_equal(new_id, "");
        assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_dead_letters"), 5);
        device_check(f.a, godwit_edit(f.a->g, id, "{\"id\":\"p\",\"n\":3}", new_id));
        assert_int_equal(strlen(new_id), 36);
        assert_string_equal(device_text(f.a, "SELECT n || title || (SELECT body FROM forms) FROM"
                                             " pins WHERE id = 'p'"),
                            "3latery");
        device_sync(f.a);
        assert_string_equal(server_pins(&f), "free:1,p:3");
        /* of an entity the server does not have: refused for itself now */
        assert_string_equal(letters(f.a), "l-1 unknown-entity");
        device_sync(f.b);
        assert_string_equal(device_text(f.b, "SELECT n || title || (SELECT body FROM forms) FROM"
                                             " pins WHERE id = 'p'"),
                            "3latery");
        world_deinit(&f.w);
    }
}

/* ---- Many ---- */

typedef struct {
    int done, failed;
    char text[300];
} heard;

static void hear(void *context, const char *id, const char *new_id, godwit_status status,
                 const char *message) {
    heard *h = context;
    assert_int_equal(strlen(id), 36);
    assert_int_equal(strlen(new_id), status == GODWIT_OK ? 36 : 0);
    h->done += status == GODWIT_OK;
    h->failed += status != GODWIT_OK;
    if (status != GODWIT_OK) {
        (void)snprintf(h->text, sizeof h->text, "%s", message);
    }
}

static void one_that_fails_stays_behind_alone(void **state) {
    (void)state;
    fixture f;
    char one[37], two[37];
    heard h = {0};
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n, slug) VALUES ('one', 11, 's')");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('two', 12)");
    device_exec(f.a, "INSERT INTO forms(id, pin_id) VALUES ('f', 'one')");
    device_sync(f.a);
    device_exec(f.a, "INSERT INTO pins(id, slug) VALUES ('other', 's')"); /* in the way of 'one' */
    const godwit_repair repairs[] = {
        {letter_id(f.a, "one", one), "{\"id\":\"one\",\"n\":1,\"slug\":\"s\"}"},
        {letter_id(f.a, "two", two), "{\"id\":\"two\",\"n\":2}"}};
    assert_int_equal(godwit_repair_many(f.a->g, repairs, 2, hear, &h), GODWIT_CONSTRAINT);
    assert_non_null(strstr(godwit_message(f.a->g), "refuses the change"));
    assert_int_equal(h.done, 1);
    assert_int_equal(h.failed, 2); /* with its form */
    device_sync(f.a);
    assert_string_equal(letters(f.a), "one check-failed, f dependency-failed");
    assert_string_equal(device_text(f.a,
                                    "SELECT group_concat(id) FROM (SELECT id FROM pins ORDER BY"
                                    " id)"),
                        "other,two");
    /* one that can't be repaired at all: nothing happens */
    const godwit_repair wrong[] = {{one, NULL}, {"no-such-id", NULL}};
    assert_int_equal(godwit_repair_many(f.a->g, wrong, 2, NULL, NULL), GODWIT_NOT_FOUND);
    const godwit_repair text[] = {{one, "[1]"}};
    assert_int_equal(godwit_repair_many(f.a->g, text, 1, NULL, NULL), GODWIT_INVALID);
    device_exec(f.a, "DELETE FROM pins WHERE id = 'other'");
    h = (heard){0};
    device_check(f.a, godwit_repair_many(f.a->g, NULL, 0, hear, &h));
    assert_int_equal(h.done, 2);
    device_check(f.a, godwit_repair_many(f.a->g, NULL, 0, hear, &h)); /* nothing is left */
    assert_int_equal(h.done, 2);
    world_deinit(&f.w);
}

static void a_child_whose_parent_is_gone(void **state) {
    (void)state;
    fixture f;
    char id[37];
    setup(&f);
    device_exec(f.a, "PRAGMA foreign_keys = ON; INSERT INTO pins(id, n) VALUES ('p', 20)");
    device_exec(f.a, "INSERT INTO forms(id, pin_id) VALUES ('f', 'p')");
    device_sync(f.a);
    device_check(f.a, godwit_discard(f.a->g, letter_id(f.a, "p", id), "no"));
    assert_int_equal(godwit_retry(f.a->g, letter_id(f.a, "f", id), NULL), GODWIT_CONSTRAINT);
    assert_non_null(strstr(godwit_message(f.a->g), "pins"));
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM forms"), 0);
    device_check(f.a, godwit_edit(f.a->g, id, "{\"id\":\"f\",\"pin_id\":null}", NULL));
    device_sync(f.a);
    assert_string_equal(letters(f.a), "(null)");
    assert_string_equal(kit_sql(&f.w.server, "SELECT count(*) FROM forms"), "1");
    world_deinit(&f.w);
}

/* ---- Poison ---- */

/* Answers that nobody can read to a push that has the word; the rest is served. */
static void poisoned(void *context, const godwit_http_request *request,
                     godwit_http_answer *answer) {
    slice body = {request->body, request->body_bytes};
    for (size_t i = 0; i + 6 <= body.len; i++) {
        if (memcmp(body.ptr + i, "cursed", 6) == 0) {
            answer->retry_after_ms = -1;
            world_reply(answer, 200, SLICE("{\"results\":\"?\"}"));
            return;
        }
    }
    world_exchange(context, request, answer);
}

static void poison_ends_in_quarantine(void **state) {
    (void)state;
    fixture f;
    char id[37];
    setup(&f);
    godwit_close(f.a->g);
    godwit_options options = {.host = {.context = f.a,
                                       .wall_ms = world_wall,
                                       .mono_ms = world_mono,
                                       .exchange = poisoned},
                              .accept_weak_durability = 1};
    assert_int_equal(godwit_open(f.a->path, &options, &f.a->g), GODWIT_OK);
    f.a->db = godwit_connection(f.a->g);
    device_exec(f.b, "INSERT INTO pins(id, n) VALUES ('of b', 1)");
    device_sync(f.b);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('before', 1)");
    device_exec(f.a, "BEGIN; INSERT INTO pins(id, n, title) VALUES ('bad', 1, 'cursed');"
                     " INSERT INTO pins(id, n) VALUES ('beside', 1); COMMIT");
    device_exec(f.a, "INSERT INTO forms(id, pin_id) VALUES ('f', 'bad')");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('after', 1)");
    godwit_status status = GODWIT_OK;
    int syncs = 0;
    do {
        status = godwit_sync(f.a->g, 0, NULL);
        syncs++;
    } while (status == GODWIT_PROTOCOL && syncs < 20);
    device_check(f.a, status);
    assert_int_equal(syncs, 5); /* four waits */
    assert_string_equal(letters(f.a), "bad poison, beside poison, f dependency-failed");
    assert_string_equal(
        device_text(f.a, "SELECT json_extract(payload, '$.title') FROM godwit_outcome LIMIT 1"),
        "cursed");
    assert_string_equal(device_text(f.a, PINS), "after:1,before:1,of b:1");
    assert_string_equal(server_pins(&f), "after:1,before:1,of b:1");
    assert_string_equal(kit_sql(&f.w.server,
                                "SELECT group_concat(code) FROM godwit_op WHERE code IS"
                                " NOT NULL"),
                        "poison,dependency-failed,dependency-failed");
    device_check(f.a,
                 godwit_edit(f.a->g, letter_id(f.a, "bad", id), "{\"id\":\"bad\",\"n\":4}", NULL));
    device_sync(f.a);
    assert_string_equal(server_pins(&f), "after:1,bad:4,before:1,beside:1,of b:1");
    assert_string_equal(kit_sql(&f.w.server, "SELECT count(*) FROM forms"), "1");
    world_deinit(&f.w);
}

/* A page of the feed that can't be read blames no operation. */
static void unreadable_pages(void *context, const godwit_http_request *request,
                             godwit_http_answer *answer) {
    world_exchange(context, request, answer);
    if (strstr(request->url, "/v1/sync") && !strstr(request->url, "/operations")) {
        free(answer->body);
        world_reply(answer, 200, SLICE("{\"results\":[],\"changes\":7}"));
    }
}

static void a_broken_feed_is_not_the_operations_fault(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_sync(f.a);
    godwit_close(f.a->g);
    godwit_options options = {.host = {.context = f.a,
                                       .wall_ms = world_wall,
                                       .mono_ms = world_mono,
                                       .exchange = unreadable_pages},
                              .accept_weak_durability = 1};
    assert_int_equal(godwit_open(f.a->path, &options, &f.a->g), GODWIT_OK);
    f.a->db = godwit_connection(f.a->g);
    for (int i = 0; i < 12; i++) {
        char sql[80];
        (void)snprintf(sql, sizeof sql, "INSERT INTO pins(id, n) VALUES ('p%d', 1)", i);
        device_exec(f.a, sql);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_PROTOCOL);
    }
    assert_string_equal(letters(f.a), "(null)");
    assert_string_equal(kit_sql(&f.w.server, "SELECT count(*) FROM pins"), "12");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_op WHERE state = 'pending'"), 0);
    world_deinit(&f.w);
}

/* ---- Conflicts ---- */

static void conflict(fixture *f) {
    setup(f);
    device_exec(f->a, "INSERT INTO pins(id, title) VALUES ('p', 'old')");
    device_sync(f->a);
    device_sync(f->b);
    device_exec(f->a, "UPDATE pins SET title = 'from a'");
    device_exec(f->b, "UPDATE pins SET title = 'from b'");
    device_sync(f->a);
    device_sync(f->b);
    assert_int_equal(device_int(f->b, "SELECT count(*) FROM godwit_dead_letters"), 1);
}

static void a_resolved_conflict_waits_no_longer(void **state) {
    (void)state;
    fixture f;
    conflict(&f);
    device_sync(f.a);
    device_check(f.a, godwit_resolve(f.a->g, "c-3-0", "theirs", NULL)); /* not where it was made */
    device_sync(f.a);
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_dead_letters"), 1);
    device_sync(f.b);
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_dead_letters"), 0);
    assert_string_equal(device_text(f.b, "SELECT resolution FROM godwit_outcome"), "resolved");
    assert_drained(f.b);
    world_deinit(&f.w);
}

/* The device learns of conflict and resolution at once. */
static void resolved_before_it_was_known(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, title) VALUES ('p', 'old')");
    device_sync(f.a);
    device_sync(f.b);
    device_exec(f.a, "UPDATE pins SET title = 'from a'");
    device_exec(f.b, "UPDATE pins SET title = 'from b'");
    device_sync(f.a);
    f.w.faults.lose_answer = 1;
    assert_int_equal(godwit_sync(f.b->g, 0, NULL), GODWIT_UNREACHABLE);
    f.w.faults.lose_answer = 0;
    device_sync(f.a);
    device_check(f.a, godwit_resolve(f.a->g, "c-3-0", "theirs", NULL));
    device_sync(f.a);
    device_sync(f.b);
    assert_string_equal(device_text(f.b, "SELECT state FROM godwit_conflicts"), "resolved");
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_dead_letters"), 0);
    world_deinit(&f.w);
}

/* A snapshot says no more than that the conflict is not open. */
static void resolved_behind_a_snapshot(void **state) {
    (void)state;
    fixture f;
    conflict(&f);
    device_sync(f.a);
    device_check(f.a, godwit_resolve(f.a->g, "c-3-0", "theirs", NULL));
    device_sync(f.a);
    f.w.faults =
        (faults){.status = 410, .body = "{\"type\":\"/problems/cursor-expired\"}", .times = 1};
    device_sync(f.b);
    assert_drained(f.b);
    world_deinit(&f.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_comes_back_as_one),
        cmocka_unit_test(a_retry_that_fails_again),
        cmocka_unit_test(a_delete_of_what_is_gone_is_retried),
        cmocka_unit_test(what_is_discarded_stays_away),
        cmocka_unit_test(held_back_comes_along),
        cmocka_unit_test(one_that_fails_stays_behind_alone),
        cmocka_unit_test(a_child_whose_parent_is_gone),
        cmocka_unit_test(poison_ends_in_quarantine),
        cmocka_unit_test(a_broken_feed_is_not_the_operations_fault),
        cmocka_unit_test(a_resolved_conflict_waits_no_longer),
        cmocka_unit_test(resolved_before_it_was_known),
        cmocka_unit_test(resolved_behind_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
