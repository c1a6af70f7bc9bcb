/* Retention in the store: what goes below the marks, what stays, what answers afterwards. */
#include "service_kit.h"

#define A   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B   "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DAY INT64_C(86400000)

static void clean(kit *k) {
    for (int i = 0; i < 1000 && service_janitor(k->s, 0); i++) {
    }
}

/* The device has seen and confirmed everything. */
static void confirm(kit *k, kit_device *d) {
    kit_answer page = kit_changes(k, "field", (slice){0}, "", "500");
    slice cursor = page.status == 200 ? kit_text(&page, "cursor") : (slice){0};
    wire_op op = kit_op(k, d, OP_UPDATE, "pins", "keep", "{\"note\":\"seen\"}");
    kit_base(k, d, &op, strtoll(kit_sql(k, "SELECT head FROM godwit_scope"), NULL, 10), "{}");
    kit_seal(d, &op);
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    push_head head = {.device_id = slice_of(d->id),
                      .scope = slice_of(d->scope),
                      .placed = true,
                      .first_seq = op.seq,
                      .prev_key = op.seq > 1 ? d->last_key : NULL,
                      .acked_seq = op.seq - 1,
                      .confirmed_seq = op.seq - 1,
                      .wall_ms = k->now_ms,
                      .cursor = cursor,
                      .pull = true};
    wire_push_begin(&b, &head);
    wire_push_op(&b, &first, slice_of(d->scope), &op);
    wire_push_end(&b);
    slice body = arena_copy(&k->a, bytes_view(&b));
    bytes_deinit(&b);
    assert_status(kit_body(k, VERB_SYNC, d->user, d->scope, body), 200);
    memcpy(d->last_key, op.key, SHA256_BYTES);
}

static kit_device fill(kit *k, int count) {
    kit_device a = kit_register(k, A, "ana", "field");
    assert_status(kit_push_one(k, &a, OP_CREATE, "pins", "keep", "{\"title\":\"k\"}"), 200);
    for (int i = 0; i < count; i++) {
        const char *id = arena_printf(&k->a, "p%04d", i);
        assert_status(kit_push_one(k, &a, OP_CREATE, "pins", id, "{\"title\":\"t\"}"), 200);
        wire_op gone = kit_op(k, &a, OP_DELETE, "pins", id, NULL);
        kit_base(k, &a, &gone, 2 * i + 2, "{\"title\":\"t\"}");
        assert_status(kit_push(k, &a, &gone, 1), 200);
    }
    return a;
}

static int64_t number(kit *k, const char *sql) {
    return strtoll(kit_sql(k, sql), NULL, 10);
}

static void open_with(kit *k, const retain_policy *policy) {
    kit_prepare(k, KIT_PINS, NULL);
    k->retain = policy;
    kit_reopen(k);
}

static void the_log_shrinks_and_rows_stay(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = 30 * DAY,
                                         .log_max_ms = 90 * DAY,
                                         .log_commits = 10,
                                         .ledger_ms = 400 * DAY,
                                         .conflicts_ms = RETAIN_FOREVER,
                                         .device_ms = 400 * DAY};
    kit k;
    open_with(&k, &policy);
    kit_device a = fill(&k, 200);
    slice old = kit_text(&(kit_answer){.root = kit_changes(&k, "field", (slice){0}, "", "7").root},
                         "cursor");
    confirm(&k, &a);
    clean(&k); /* nothing is old */
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_change"), 402);
    k.now_ms += 31 * DAY;
    clean(&k); /* the device has not been seen for as long: it does not hold the log */
    assert_int_equal(number(&k, "SELECT head FROM godwit_scope"), 402);
    assert_int_equal(number(&k, "SELECT horizon FROM godwit_scope"), 392);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_change"), 10);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_row WHERE del_ver IS NOT NULL"), 5);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_op"), 402);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_op WHERE result IS NOT NULL"), 5);
    assert_problem(kit_changes(&k, "field", (slice){0}, "", "7"), 410, "bootstrap-required");
    assert_problem(kit_changes(&k, "field", old, "", "7"), 410, "cursor-expired");
    /* salts outlive the log: an old base still proves what its author had seen */
    wire_op op = kit_op(&k, &a, OP_UPDATE, "pins", "keep", "{\"title\":\"late\"}");
    kit_base(&k, &a, &op, 7, "{\"title\":\"k\"}");
    kit_answer r = kit_push(&k, &a, &op, 1);
    assert_text(r, "results.0.outcome", "applied");
    /* a row whose tombstone is gone: nobody knows any more, the content is kept */
    op = kit_op(&k, &a, OP_UPDATE, "pins", "p0001", "{\"title\":\"late\"}");
    kit_base(&k, &a, &op, 4, "{\"title\":\"t\"}");
    r = kit_push(&k, &a, &op, 1);
    assert_text(r, "results.0.outcome", "conflict");
    kit_deinit(&k);
}

static void a_slow_device_holds_the_log_until_it_is_forced(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = 10 * DAY,
                                         .log_max_ms = 20 * DAY,
                                         .ledger_ms = 400 * DAY,
                                         .conflicts_ms = RETAIN_FOREVER,
                                         .device_ms = 400 * DAY};
    kit k;
    open_with(&k, &policy);
    fill(&k, 20);
    kit_device b = {0};
    k.now_ms += 9 * DAY;
    b = kit_register(&k, B, "ana", "field"); /* seen, and has fetched nothing */
    k.now_ms += 2 * DAY;
    clean(&k);
    assert_int_equal(number(&k, "SELECT horizon FROM godwit_scope"), 0);
    k.now_ms += 9 * DAY + 1;
    confirm(&k, &b);
    k.now_ms += 1;
    clean(&k);
    assert_int_equal(number(&k, "SELECT horizon FROM godwit_scope"), 41);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_change WHERE commit_seq <= 41"), 0);
    kit_deinit(&k);
}

static void the_ledger_goes_later_and_never_what_is_unconfirmed(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = DAY,
                                         .log_max_ms = DAY,
                                         .log_commits = 5,
                                         .ledger_ms = 10 * DAY,
                                         .conflicts_ms = RETAIN_FOREVER,
                                         .device_ms = 30 * DAY};
    kit k;
    open_with(&k, &policy);
    kit_device a = fill(&k, 50);
    kit_device b = kit_register(&k, B, "ana", "field");
    assert_status(kit_push_one(&k, &b, OP_CREATE, "pins", "b", "{\"title\":\"b\"}"), 200);
    confirm(&k, &a);
    k.now_ms += 11 * DAY;
    for (int i = 0; i < 8; i++) {
        confirm(&k, &a);
    }
    clean(&k);
    assert_int_equal(number(&k, "SELECT ledger_floor FROM godwit_scope"), 102);
    assert_int_equal(number(&k, "SELECT min(commit_seq) FROM godwit_commit"), 103);
    /* the other device has never said that it has its answer */
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_op WHERE commit_seq <= 102"), 1);
    /* an operation that claims to be older than what is remembered is never executed */
    wire_op op = kit_op(&k, &b, OP_CREATE, "pins", "again", "{\"title\":\"x\"}");
    op.rekeyed = true;
    op.lsn = 3;
    kit_answer r = kit_push(&k, &b, &op, 1);
    assert_text(r, "results.0.outcome", "conflict");
    assert_text(r, "results.0.error.code", "unverifiable");
    k.now_ms += 31 * DAY;
    clean(&k);
    assert_string_equal(kit_sql(&k, "SELECT state FROM godwit_device WHERE device_id = '" B "'"),
                        "retired");
    assert_problem(kit_push_one(&k, &b, OP_CREATE, "pins", "c", "{}"), 409, "device-retired");
    kit_deinit(&k);
}

static void keys_of_callers_without_a_stream_go_with_the_ledger(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = DAY,
                                         .log_max_ms = DAY,
                                         .ledger_ms = 10 * DAY,
                                         .conflicts_ms = 5 * DAY,
                                         .device_ms = RETAIN_FOREVER};
    kit k;
    open_with(&k, &policy);
    const char *body =
        "{\"deviceId\":\"tool\",\"operations\":[{\"id\":\"1\",\"operation\":\"create\","
        "\"entityType\":\"pins\",\"entityId\":\"p\",\"idempotencyKey\":\"k1\","
        "\"payload\":{\"title\":\"x\"}}]}";
    assert_status(kit_push_text(&k, body), 200);
    k.now_ms += 9 * DAY;
    clean(&k);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_idem"), 1);
    k.now_ms += 2 * DAY;
    clean(&k);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_idem"), 0);
    kit_deinit(&k);
}

/* p has a conflict that a policy decided (note) and an open one (title). */
static void meet(kit *k, kit_device *a, kit_device *b) {
    const char *old = "{\"title\":\"t\",\"note\":\"n\"}";
    assert_status(kit_push_one(k, a, OP_CREATE, "pins", "p", old), 200);
    wire_op one = kit_op(k, a, OP_UPDATE, "pins", "p", "{\"title\":\"a\",\"note\":\"a\"}");
    wire_op two = kit_op(k, b, OP_UPDATE, "pins", "p", "{\"title\":\"b\",\"note\":\"b\"}");
    kit_base(k, a, &one, 1, old);
    kit_base(k, b, &two, 1, old);
    assert_status(kit_push(k, a, &one, 1), 200);
    assert_status(kit_push(k, b, &two, 1), 200);
}

static const char *ledger(kit *k) {
    return kit_sql(k, "SELECT coalesce(max(state) || count(*), 'none') FROM godwit_conflict");
}

static void a_conflict_is_kept_while_it_is_open_and_then_from_its_decision(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = DAY,
                                         .log_max_ms = DAY,
                                         .ledger_ms = 400 * DAY,
                                         .conflicts_ms = 90 * DAY,
                                         .device_ms = RETAIN_FOREVER};
    kit k;
    kit_prepare(&k, KIT_PINS, "[table pins]\npolicy.title = manual\n");
    k.retain = &policy;
    kit_reopen(&k);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "bob", "field");
    meet(&k, &a, &b);
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_conflict"), "2");
    k.now_ms += 200 * DAY;
    clean(&k);
    assert_string_equal(ledger(&k), "open1");
    wire_op op = kit_op(&k, &a, OP_UPDATE, "pins", "p", "{\"title\":\"both\"}");
    kit_base(&k, &a, &op, 3, "{}");
    op.resolves = slice_of(kit_conflict(&k, "c-3-0"));
    assert_text(kit_push(&k, &a, &op, 1), "results.0.outcome", "applied");
    k.now_ms += 89 * DAY;
    clean(&k);
    assert_string_equal(ledger(&k), "resolved1");
    k.now_ms += 2 * DAY;
    clean(&k);
    assert_string_equal(ledger(&k), "none");
    kit_deinit(&k);
}

static void one_step_is_short_and_many_finish(void **state) {
    (void)state;
    static const retain_policy policy = {.log_ms = DAY,
                                         .log_max_ms = DAY,
                                         .ledger_ms = 10 * DAY,
                                         .conflicts_ms = RETAIN_FOREVER,
                                         .device_ms = RETAIN_FOREVER};
    kit k;
    open_with(&k, &policy);
    kit_device a = fill(&k, 400);
    confirm(&k, &a);
    k.now_ms += 2 * DAY;
    assert_true(service_janitor(k.s, 0)); /* a few hundred rows, and there are more */
    int64_t left = number(&k, "SELECT count(*) FROM godwit_change");
    assert_true(left > 500 && left < 802);
    clean(&k);
    assert_int_equal(number(&k, "SELECT count(*) FROM godwit_change"), 0);
    assert_string_equal(kit_sql(&k, "SELECT group_concat(id) FROM pins"), "keep");
    kit_deinit(&k);
}

#define C "cccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddd"

/* A sync that brings nothing but what the device has. */
static kit_answer empty_sync(kit *k, const kit_device *d, slice cursor, const char *report) {
    bytes b;
    bytes_init(&b, NULL, 0);
    push_head head = {.device_id = slice_of(d->id),
                      .scope = slice_of(d->scope),
                      .placed = true,
                      .first_seq = d->seq + 1,
                      .prev_key = d->seq ? d->last_key : NULL,
                      .acked_seq = d->seq,
                      .confirmed_seq = d->seq,
                      .wall_ms = k->now_ms,
                      .cursor = cursor,
                      .report = slice_of(report),
                      .pull = true};
    wire_push_begin(&b, &head);
    wire_push_end(&b);
    slice body = arena_copy(&k->a, bytes_view(&b));
    bytes_deinit(&b);
    return kit_body(k, VERB_SYNC, d->user, d->scope, body);
}

static const char *device_row(kit *k, const char *columns, const char *id) {
    return kit_sql(
        k, arena_printf(&k->a, "SELECT %s FROM godwit_device WHERE device_id = '%s'", columns, id));
}

static void who_only_reads_is_there_as_well(void **state) {
    (void)state;
    kit k;
    open_with(&k, &retain_default);
    kit_device a = fill(&k, 5), b = kit_register(&k, B, "ana", "field");
    kit_device c = kit_register(&k, C, "ana", "field");
    (void)kit_register(&k, D, "ana", "field");
    assert_status(kit_push_one(&k, &c, OP_CREATE, "pins", "of-c", "{\"title\":\"c\"}"), 200);
    slice cursor = kit_text(
        &(kit_answer){.root = kit_changes(&k, "field", (slice){0}, "", "7").root}, "cursor");
    for (int i = 0; i < 5; i++) {
        k.now_ms += 100 * DAY;
        assert_status(kit_changes(&k, "field", cursor, b.id, "5"), 200);
        assert_status(empty_sync(&k, &c, cursor, ""), 200);
        assert_status(kit_changes(&k, "field", (slice){0}, a.id, "1"), 200); /* no position yet */
        service_watch(k.s);
        clean(&k);
    }
    assert_string_equal(device_row(&k, "state", A), "active");
    assert_string_equal(device_row(&k, "pulled_seq", A), "0");
    assert_string_equal(device_row(&k, "state || pulled_seq", B), "active7");
    assert_string_equal(device_row(&k, "state || pulled_seq || confirmed_seq", C), "active71");
    assert_string_equal(device_row(&k, "state", D), "retired");
    /* not with each request, and nobody else's device */
    const char *seen = device_row(&k, "last_seen", B);
    k.now_ms += 3599999;
    assert_status(kit_changes(&k, "field", cursor, b.id, "5"), 200);
    service_watch(k.s);
    assert_string_equal(device_row(&k, "last_seen", B), seen);
    k.now_ms += 1;
    kit_device other = {.id = b.id, .scope = b.scope, .user = "ben"};
    assert_problem(empty_sync(&k, &other, cursor, ""), 409, "device-unknown");
    service_watch(k.s);
    assert_string_equal(device_row(&k, "last_seen", B), seen);
    assert_status(kit_changes(&k, "field", cursor, b.id, "5"), 200);
    service_watch(k.s);
    assert_string_not_equal(device_row(&k, "last_seen", B), seen);
    kit_deinit(&k);
}

/* A queue that is stuck behind refusals sends nothing: what it says of itself counts all the same.
 */
static void what_a_device_says_of_itself_without_sending_anything(void **state) {
    (void)state;
    kit k;
    open_with(&k, &retain_default);
    kit_device a = fill(&k, 1);
    const char *told = "{\"pending\":0,\"failed\":7,\"lastError\":\"check-failed\"}";
    assert_status(empty_sync(&k, &a, (slice){0}, told), 200);
    service_watch(k.s);
    assert_null(strstr(device_row(&k, "coalesce(CAST(report AS TEXT), '')", A), "7"));
    k.now_ms += 300000; /* not with each request */
    assert_status(empty_sync(&k, &a, (slice){0}, told), 200);
    service_watch(k.s);
    assert_non_null(strstr(device_row(&k, "CAST(report AS TEXT)", A), "\"failed\":7"));
    assert_non_null(strstr(device_row(&k, "CAST(report AS TEXT)", A), "\"check-failed\""));
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_shrinks_and_rows_stay),
        cmocka_unit_test(a_slow_device_holds_the_log_until_it_is_forced),
        cmocka_unit_test(the_ledger_goes_later_and_never_what_is_unconfirmed),
        cmocka_unit_test(keys_of_callers_without_a_stream_go_with_the_ledger),
        cmocka_unit_test(a_conflict_is_kept_while_it_is_open_and_then_from_its_decision),
        cmocka_unit_test(one_step_is_short_and_many_finish),
        cmocka_unit_test(who_only_reads_is_there_as_well),
        cmocka_unit_test(what_a_device_says_of_itself_without_sending_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
