/* What became of operations, waiting for it, and the events a host is told. */
#include "sync_kit.h"

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
    kit_init(&f->w.server, STRICT,
             "[table pins]\npolicy.note = manual\npolicy.title = server_wins\n");
    f->a = world_field_device(&f->w);
    f->b = world_field_device(&f->w);
}

static void restart(device *d) {
    device_close(d);
    device_open(d);
}

/* Outcomes in the order the operations were made. */
static const char *outcomes(device *d) {
    return device_text(d, "SELECT group_concat(outcome || coalesce(':' || code, '')) FROM (SELECT *"
                          " FROM godwit_receipts ORDER BY lsn)");
}

static void newest_id(device *d, char id[37]) {
    (void)snprintf(id, 37, "%s",
                   device_text(d, "SELECT id FROM sync_queue ORDER BY lsn DESC LIMIT 1"));
}

/* ---- Receipts ---- */

static void every_outcome_is_kept(void **state) {
    (void)state;
    fixture f;
    char id[37];
    godwit_receipt r;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, title, note) VALUES ('p', 'old', 'old')");
    device_sync(f.a);
    device_sync(f.b);
    device_exec(f.a, "UPDATE pins SET title = 'from a', note = 'from a'");
    device_sync(f.a);
    device_exec(f.b, "UPDATE pins SET title = 'from b', n = 3");           /* merged: title loses */
    device_exec(f.b, "UPDATE pins SET note = 'from b'");                   /* conflict */
    device_exec(f.b, "INSERT INTO pins(id, n) VALUES ('bad', 11)");        /* rejected */
    device_exec(f.b, "INSERT INTO forms(id, pin_id) VALUES ('f', 'bad')"); /* with it */
    device_exec(f.b, "INSERT INTO pins(id, n) VALUES ('q', 1)");           /* applied */
    newest_id(f.b, id);
    device_check(f.b, godwit_get_receipt(f.b->g, id, &r));
    assert_int_equal(r.decided, 0);
    assert_string_equal(r.outcome, "pending");
    assert_string_equal(outcomes(f.b), "(null)");
    device_sync(f.b);
    restart(f.b);
    const char *expected =
        "merged,conflict,rejected:check-failed,rejected:dependency-failed,applied";
    assert_string_equal(outcomes(f.b), expected);
    assert_string_equal(
        device_text(f.b, "SELECT json_extract(replaced, '$[0].columns') || json_extract(replaced,"
                         " '$[0].mine') || json_extract(replaced, '$[0].theirs') ||"
                         " json_extract(replaced, '$[0].winner') FROM godwit_receipts WHERE outcome"
                         " = 'merged'"),
        "[\"title\"]{\"title\":\"from b\"}{\"title\":\"from a\"}theirs");
    assert_string_equal(device_text(f.b, "SELECT json_extract(replaced, '$[0].state') FROM"
                                         " godwit_receipts WHERE outcome = 'conflict'"),
                        "open");
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_receipts WHERE commit_seq IS NULL"
                                     " OR decided_at IS NULL"),
                     0);
    assert_int_equal(device_int(f.b, "SELECT count(*) FROM godwit_receipts WHERE replaced IS NULL"),
                     2);
    device_check(f.b, godwit_get_receipt(f.b->g, id, &r));
    assert_int_equal(r.decided, 1);
    assert_string_equal(r.outcome, "applied");
    assert_true(r.commit_seq > 0);
    assert_int_equal(godwit_get_receipt(f.b->g, "nonsense", &r), GODWIT_NOT_FOUND);
    /* what was done long ago: all but the plain ones are still known */
    device_exec(f.b, "DELETE FROM godwit_op WHERE state = 'retired'");
    assert_string_equal(outcomes(f.b), "merged,conflict,rejected:check-failed,"
                                       "rejected:dependency-failed");
    world_deinit(&f.w);
}

static void a_retry_supersedes(void **state) {
    (void)state;
    fixture f;
    char id[37], new_id[37];
    godwit_receipt r;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('bad', 11)");
    newest_id(f.a, id);
    device_sync(f.a);
    device_check(f.a, godwit_get_receipt(f.a->g, id, &r));
    assert_string_equal(r.outcome, "rejected");
    assert_string_equal(r.code, "check-failed");
    assert_non_null(strstr(r.detail, "CHECK"));
    device_check(f.a, godwit_edit(f.a->g, id, "{\"n\":1}", new_id));
    restart(f.a);
    device_check(f.a, godwit_get_receipt(f.a->g, id, &r));
    assert_string_equal(r.outcome, "superseded");
    assert_string_equal(r.resolution, "edited");
    assert_string_equal(r.superseded_by, new_id);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('worse', 12)");
    newest_id(f.a, id);
    device_sync(f.a);
    device_check(f.a, godwit_discard(f.a->g, id, "entered twice"));
    assert_string_equal(device_text(f.a,
                                    "SELECT outcome || resolution || reason FROM godwit_receipts"
                                    " WHERE entity_id = 'worse'"),
                        "rejecteddiscardedentered twice");
    world_deinit(&f.w);
}

/* ---- Waiting ---- */

static void waiting_delivers_and_tells(void **state) {
    (void)state;
    fixture f;
    char id[37];
    godwit_receipt r;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    newest_id(f.a, id);
    device_check(f.a, godwit_wait(f.a->g, id, 5000, &r));
    assert_string_equal(r.outcome, "applied");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('q', 11)");
    newest_id(f.a, id);
    device_check(f.a, godwit_wait(f.a->g, id, 5000, &r)); /* refused is decided, too */
    assert_string_equal(r.outcome, "rejected");
    assert_int_equal(godwit_wait(f.a->g, "nonsense", 10, &r), GODWIT_NOT_FOUND);
    device_exec(f.a, "BEGIN");
    assert_int_equal(godwit_wait(f.a->g, id, 10, &r), GODWIT_MISUSE);
    device_exec(f.a, "COMMIT");
    world_deinit(&f.w);
}

static void an_unknown_result_undoes_nothing(void **state) {
    (void)state;
    fixture f;
    char id[37];
    godwit_receipt r;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    newest_id(f.a, id);
    f.w.faults.lose_answer = 1;
    assert_int_equal(godwit_wait(f.a->g, id, 60, &r), GODWIT_TIMEOUT);
    assert_int_equal(r.decided, 0);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 1);
    f.w.faults.lose_answer = 0;
    device_check(f.a, godwit_wait(f.a->g, id, 5000, NULL));
    assert_string_equal(kit_sql(&f.w.server, "SELECT count(*) FROM godwit_op"), "1");
    /* what no waiting mends ends it */
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('q', 1)");
    newest_id(f.a, id);
    f.w.faults = (faults){.status = 403, .body = "{}"};
    assert_int_equal(godwit_wait(f.a->g, id, 60000, &r), GODWIT_FORBIDDEN);
    world_deinit(&f.w);
}

/* ---- Events ---- */

typedef struct {
    device *d; /* first: the context of the exchange */
    char text[4096];
    int64_t last_seq, repeated;
    sqlite3 *in_the_way; /* holds the write lock from the first event on */
} listener;

static listener hears;

static void listen(void *context, const godwit_event *e) {
    (void)context;
    size_t len = strlen(hears.text);
    if (e->kind == GODWIT_EVENT_PROGRESS) {
        assert_int_equal(e->seq, 0);
        assert_true(e->total >= e->count);
        return;
    }
    hears.repeated += e->seq <= hears.last_seq;
    hears.last_seq = e->seq > hears.last_seq ? e->seq : hears.last_seq;
    (void)snprintf(hears.text + len, sizeof hears.text - len, "%s%s %s%s%s\n",
                   godwit_event_name(e->kind), e->entity_id[0] ? " of" : "", e->entity_id,
                   e->outcome[0] ? " " : "", e->outcome);
    /* not to be called from inside a call */
    assert_int_equal(godwit_sync(hears.d->g, 0, NULL), GODWIT_MISUSE);
    if (hears.in_the_way && sqlite3_get_autocommit(hears.in_the_way)) {
        assert_int_equal(sqlite3_exec(hears.in_the_way, "BEGIN IMMEDIATE", NULL, NULL, NULL),
                         SQLITE_OK);
    }
}

static void reopen_listening(device *d) {
    device_close(d);
    godwit_options options = {.host = {.context = d,
                                       .wall_ms = world_wall,
                                       .mono_ms = world_mono,
                                       .exchange = world_exchange,
                                       .on_event = listen},
                              .busy_timeout_ms = 1,
                              .accept_weak_durability = 1};
    assert_int_equal(godwit_open(d->path, &options, &d->g), GODWIT_OK);
    d->db = godwit_connection(d->g);
    hears.d = d;
}

static void a_host_hears_what_happens(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    hears = (listener){0};
    reopen_listening(f.a);
    device_exec(f.a, "INSERT INTO pins(id, note) VALUES ('p', 'x')");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('bad', 11)");
    device_exec(f.a, "INSERT INTO forms(id, pin_id) VALUES ('f', 'bad')");
    device_sync(f.a);
    assert_string_equal(hears.text, "queued of p\n"
                                    "queued of bad\n"
                                    "queued of f\n"
                                    "online \n"
                                    "sent of p\n"
                                    "conflict of bad auto\n"
                                    "outcome of p applied\n"
                                    "outcome of bad rejected\n"
                                    "dead_letter of bad rejected\n"
                                    "outcome of f rejected\n"
                                    "dead_letter of f rejected\n");
    hears.text[0] = '\0';
    f.w.faults.lose_request = 1;
    assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_UNREACHABLE);
    assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_UNREACHABLE);
    f.w.faults.lose_request = 0;
    device_sync(f.a);
    device_sync(f.a);
    assert_string_equal(hears.text, "offline \nonline \n");
    /* a conflict of this device, and its end by another */
    device_sync(f.b);
    device_exec(f.b, "UPDATE pins SET note = 'b'");
    device_sync(f.b);
    hears.text[0] = '\0';
    device_exec(f.a, "UPDATE pins SET note = 'a'");
    device_sync(f.a);
    assert_string_equal(hears.text, "queued of p\nsent of p\nconflict of p open\n"
                                    "outcome of p conflict\ndead_letter of p conflict\n");
    hears.text[0] = '\0';
    device_sync(f.b);
    device_check(f.b, godwit_resolve(f.b->g,
                                     device_text(f.b, "SELECT conflict_id FROM"
                                                      " godwit_conflicts WHERE state = 'open'"),
                                     "mine", NULL));
    device_sync(f.b);
    device_sync(f.a);
    assert_string_equal(hears.text, "conflict of p resolved\n");
    assert_int_equal(hears.repeated, 0);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_events"), 0);
    world_deinit(&f.w);
}

/* The callback has returned, the position could not be stored: all of it comes again. */
static void nothing_is_lost_on_the_way_to_the_host(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    hears = (listener){0};
    reopen_listening(f.a);
    device_sync(f.a);
    assert_int_equal(sqlite3_open(f.a->path, &hears.in_the_way), SQLITE_OK);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    hears.text[0] = '\0';
    assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_BUSY);
    assert_non_null(strstr(hears.text, "queued of p"));
    sqlite3_close(hears.in_the_way);
    hears.in_the_way = NULL;
    /* as after a restart: the lease of a process that is gone does not count */
    device_exec(f.a, "DELETE FROM godwit_lease");
    reopen_listening(f.a);
    hears.text[0] = '\0';
    device_sync(f.a);
    assert_true(hears.repeated > 0);
    assert_non_null(strstr(hears.text, "queued of p"));
    assert_non_null(strstr(hears.text, "outcome of p applied"));
    /* a host that stays away for a while, and hears of it when it is back */
    device_close(f.a);
    device_open(f.a);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('q', 1)");
    device_sync(f.a);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_events"), 3);
    reopen_listening(f.a);
    hears = (listener){.d = f.a};
    device_sync(f.a);
    assert_string_equal(hears.text, "queued of q\nsent of q\noutcome of q applied\n");
    world_deinit(&f.w);
}

static void a_host_without_a_callback(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('p', 1)");
    device_sync(f.a);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_event"), 0); /* nobody listens */
    device_check(f.a, godwit_events_keep(f.a->g, 1));
    device_exec(f.a, "UPDATE pins SET n = 2");
    device_sync(f.a);
    assert_string_equal(device_text(f.a, "SELECT group_concat(kind) FROM godwit_events"),
                        "queued,sent,online,outcome");
    int64_t newest = device_int(f.a, "SELECT max(seq) FROM godwit_events");
    device_check(f.a, godwit_events_done(f.a->g, newest - 1));
    assert_string_equal(device_text(f.a, "SELECT group_concat(kind) FROM godwit_events"),
                        "outcome");
    device_check(f.a, godwit_events_done(f.a->g, newest));
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_events"), 0);
    device_exec(f.a, "UPDATE pins SET n = 3");
    device_sync(f.a);
    assert_int_equal(device_int(f.a, "SELECT min(seq) FROM godwit_events"), newest + 1);
    device_check(f.a, godwit_events_keep(f.a->g, 0));
    device_exec(f.a, "UPDATE pins SET n = 4");
    device_sync(f.a);
    assert_true(device_int(f.a, "SELECT count(*) FROM godwit_event") <= 1);
    world_deinit(&f.w);
}

static void opening_says_what_is_wrong(void **state) {
    (void)state;
    char text[256] = "old";
    godwit *g = NULL;
    const godwit_options options = {.error = text, .error_bytes = sizeof text};
    assert_int_equal(godwit_open("/nowhere/at/all.db", &options, &g), GODWIT_IO);
    assert_null(g);
    assert_non_null(strstr(text, "unable to open"));
    assert_int_equal(godwit_open(NULL, &options, &g), GODWIT_MISUSE);
    assert_non_null(strstr(text, "no path"));
    assert_int_equal(godwit_open(":memory:", &options, &g), GODWIT_OK);
    assert_string_equal(text, "");
    godwit_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_outcome_is_kept),
        cmocka_unit_test(a_retry_supersedes),
        cmocka_unit_test(waiting_delivers_and_tells),
        cmocka_unit_test(an_unknown_result_undoes_nothing),
        cmocka_unit_test(a_host_hears_what_happens),
        cmocka_unit_test(nothing_is_lost_on_the_way_to_the_host),
        cmocka_unit_test(a_host_without_a_callback),
        cmocka_unit_test(opening_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
