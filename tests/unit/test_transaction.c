/* Changes that belong together: local at once, one unit everywhere, taken back as one. */
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
    kit_init(&f->w.server, STRICT, NULL);
    f->a = world_field_device(&f->w);
    f->b = world_field_device(&f->w);
}

static void add(device *d, const char *operation, const char *entity, const char *id,
                const char *payload) {
    char made[37];
    device_check(d, godwit_add(d->g, operation, entity, id, payload, NULL, made));
    assert_int_equal(strlen(made), 36);
}

#define PINS "SELECT group_concat(id || ':' || n) FROM (SELECT id, n FROM pins ORDER BY id)"

static void committed_without_a_network(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    int exchanges = f.a->exchanges;
    f.w.faults.lose_request = 1;
    device_check(f.a, godwit_begin(f.a->g));
    add(f.a, "create", "pins", "p", "{\"n\":1,\"title\":\"Well\"}");
    add(f.a, "create", "forms", "f", "{\"pin_id\":\"p\"}");
    add(f.a, "update", "pins", "p", "{\"n\":2}");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('by sql', 3)");
    device_check(f.a, godwit_commit(f.a->g));
    assert_int_equal(f.a->exchanges, exchanges);
    assert_string_equal(device_text(f.a, PINS), "by sql:3,p:2");
    f.w.faults.lose_request = 0;
    device_sync(f.a);
    device_sync(f.b);
    assert_string_equal(device_text(f.b, PINS), "by sql:3,p:2");
    assert_string_equal(kit_sql(&f.w.server, "SELECT count(*) FROM godwit_commit"), "1");
    world_deinit(&f.w);
}

static void refused_as_a_whole_with_what_depends_on_it(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('there', 1)");
    device_sync(f.a);
    device_check(f.a, godwit_begin(f.a->g));
    add(f.a, "update", "pins", "there", "{\"n\":2}");
    add(f.a, "create", "pins", "p", "{\"n\":3}");
    add(f.a, "create", "pins", "bad", "{\"n\":30}");
    device_check(f.a, godwit_commit(f.a->g));
    device_exec(f.a, "INSERT INTO forms(id, pin_id) VALUES ('f', 'p')");
    device_exec(f.a, "INSERT INTO pins(id, n) VALUES ('free', 4)");
    /* an answer that is lost is no refusal */
    f.w.faults.lose_answer = 1;
    assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_UNREACHABLE);
    assert_string_equal(device_text(f.a, PINS), "bad:30,free:4,p:3,there:2");
    f.w.faults.lose_answer = 0;
    device_sync(f.a);
    assert_string_equal(device_text(f.a, PINS), "free:4,there:1");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM forms"), 0);
    assert_string_equal(kit_sql(&f.w.server, PINS), "free:4,there:1");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM godwit_dead_letters"), 4);
    world_deinit(&f.w);
}

static void rolled_back(void **state) {
    (void)state;
    fixture f;
    setup(&f);
    device_check(f.a, godwit_begin(f.a->g));
    add(f.a, "create", "pins", "p", "{\"n\":1}");
    device_check(f.a, godwit_rollback(f.a->g));
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 0);
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM sync_queue"), 0);
    world_deinit(&f.w);
}

/* What can't be added leaves the rest of the transaction as it is. */
static void an_operation_that_fails(void **state) {
    (void)state;
    fixture f;
    char id[37] = "x";
    setup(&f);
    static const struct {
        const char *operation, *entity, *id, *payload;
        godwit_status status;
    } wrong[] = {
        {"create", "pins", "p", "{\"n\":1}", GODWIT_CONSTRAINT},
        {"create", "pins", "q", "{\"slug\":\"s\"}", GODWIT_CONSTRAINT},
        {"create", "pins", "q", "{\"nonsense\":1}", GODWIT_INVALID},
        {"create", "pins", "q", "[]", GODWIT_INVALID},
        {"create", "pins", "q", "{\"n\":{\"$what\":1}}", GODWIT_INVALID},
        {"update", "pins", "q", "{\"n\":1}", GODWIT_NOT_FOUND},
        {"delete", "pins", "q", NULL, GODWIT_NOT_FOUND},
        {"upsert", "pins", "q", "{}", GODWIT_INVALID},
    };
    assert_int_equal(godwit_add(f.a->g, "create", "pins", "p", "{}", NULL, id), GODWIT_MISUSE);
    assert_int_equal(godwit_commit(f.a->g), GODWIT_MISUSE);
    assert_int_equal(godwit_rollback(f.a->g), GODWIT_MISUSE);
    device_check(f.a, godwit_begin(f.a->g));
    assert_int_equal(godwit_begin(f.a->g), GODWIT_MISUSE);
    add(f.a, "create", "pins", "p", "{\"n\":1,\"slug\":\"s\"}");
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        (void)snprintf(id, sizeof id, "x");
        assert_int_equal(godwit_add(f.a->g, wrong[i].operation, wrong[i].entity, wrong[i].id,
                                    wrong[i].payload, NULL, id),
                         wrong[i].status);
        assert_string_equal(id, "");
    }
    /* nothing changes, nothing is queued */
    device_check(f.a, godwit_add(f.a->g, "update", "pins", "p", "{\"n\":1}", NULL, id));
    assert_string_equal(id, "");
    add(f.a, "create", "letters", "l", "{\"to\":\"x\"}"); /* an entity that is no table */
    assert_int_equal(godwit_sync(f.a->g, 0, NULL), GODWIT_MISUSE);
    device_check(f.a, godwit_commit(f.a->g));
    assert_string_equal(device_text(f.a, PINS), "p:1");
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM sync_queue"), 2);
    assert_int_equal(device_int(f.a, "SELECT count(DISTINCT group_first) FROM sync_queue"), 1);
    device_check(f.a, godwit_begin(f.a->g));
    add(f.a, "delete", "pins", "p", NULL);
    device_check(f.a, godwit_commit(f.a->g));
    assert_int_equal(device_int(f.a, "SELECT count(*) FROM pins"), 0);
    world_deinit(&f.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committed_without_a_network),
        cmocka_unit_test(refused_as_a_whole_with_what_depends_on_it),
        cmocka_unit_test(rolled_back),
        cmocka_unit_test(an_operation_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
