/* A store that runs out of memory while it writes: what it could not put into words must not be
 * taken for what is not there. Every allocation of a push fails once; the request is refused for
 * now, or has its whole effect. */
#include "service_kit.h"

/* found by another column than its key, which has two */
#define FAMILY                                                                                     \
    "CREATE TABLE parents(a TEXT, b TEXT, code TEXT UNIQUE, PRIMARY KEY (a, b));"                  \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, code TEXT REFERENCES parents(code));"
#define WHO        ",\"deviceId\":\"tool\",\"timestamp\":\"2026-01-02T03:04:05.678Z\""
#define POINTS_MAX 40
#define GROWS      1000 /* bytes by which each row is larger than the one before */

#define BEHIND_MAX 24

static int left = -1; /* allocations until the one that fails; -1 = none does */
static int behind;    /* and from there to the next one */
static int hits;

/* the linker's names */
void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);

void *__wrap_realloc(void *block, size_t size) {
    if (left < 0 || left-- > 0) {
        return __real_realloc(block, size);
    }
    left = hits++ ? -1 : behind;
    return NULL;
}

static kit_answer push(kit *k, const char *body, int point, int next) {
    service_job job, *jobs = &job;
    kit_job(k, &job, VERB_PUSH, "ana", "field");
    job.body = slice_of(body);
    service_prepare(k->s, &job);
    assert_true(job.wants_write);
    hits = 0;
    behind = next;
    left = point;
    service_write(k->s, &jobs, 1, kit_on_commit, k);
    left = -1;
    return kit_finish(k, &job);
}

/* false: there are not so many allocations. */
static bool survives(kit *k, const char *title, int point, int next) {
    const char *body = arena_printf(&k->a,
                                    "{\"operations\":[{\"id\":\"1\",\"operation\":\"create\","
                                    "\"entityType\":\"pins\",\"entityId\":"
                                    "\"p%d-%d\",\"idempotencyKey\":\"k%d-%d\",\"payload\":{"
                                    "\"title\":\"%s\",\"code\":\"x\"}}]" WHO "}",
                                    point, next, point, next, title);
    kit_answer r = push(k, body, point, next);
    bool failed = hits > 0;
    if (r.status != 200) {
        assert_true(r.status >= 500);
        r = push(k, body, -1, -1);
    }
    assert_text(r, "results.0.outcome", "applied");
    return failed;
}

static void no_text_is_not_no_value(void **state) {
    (void)state;
    kit k;
    int point = 0;
    bool failed = true;
    size_t bytes_used = 0;
    char *title = test_calloc(1, (size_t)POINTS_MAX * BEHIND_MAX * GROWS + 1);
    kit_init(&k, FAMILY, NULL);
    assert_status(kit_push_text(&k,
                                "{\"operations\":[{\"id\":\"1\",\"operation\":\"create\","
                                "\"entityType\":\"parents\",\"entityId\":\"[\\\"x\\\",\\\"y\\\"]\","
                                "\"idempotencyKey\":\"p\",\"payload\":{\"code\":\"x\"}}]" WHO "}"),
                  200);
    for (; failed && point < POINTS_MAX; point++) {
        for (int next = 0; failed && next < BEHIND_MAX; next++) {
            memset(title + bytes_used, 'x', GROWS);
            bytes_used += GROWS;
            failed = survives(&k, title, point, next);
        }
    }
    assert_true(point > 5 && point < POINTS_MAX);
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_change WHERE cols IS NULL"), "0");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM pins WHERE title IS NULL"), "0");
    test_free(title);
    kit_deinit(&k);
}

/* The statements of the tables are texts, too: a store that opens has all of them. */
static void a_store_that_opens_works(void **state) {
    (void)state;
    kit k;
    int point = 0;
    kit_init(&k, FAMILY, NULL);
    const service_options options = {.store = arena_printf(&k.a, "%s/data", k.dir),
                                     .schema_file = k.schema_path,
                                     .config_tables = k.config_path,
                                     .now_ms = kit_now,
                                     .context = &k};
    for (hits = 1; hits && point < POINTS_MAX * 10; point++) {
        kit_close(&k);
        hits = 0;
        behind = -1;
        left = point;
        godwit_status status = service_open(&options, &k.s, k.message);
        left = -1;
        if (status == GODWIT_OK) {
            assert_int_equal(service_reader_open(k.s, &k.r), GODWIT_OK);
        } else {
            assert_int_equal(kit_try_open(&k), GODWIT_OK);
        }
        const char *body = arena_printf(
            &k.a,
            "{\"operations\":[{\"id\":\"1\",\"operation\":\"create\",\"entityType\":\"parents\","
            "\"entityId\":\"[\\\"o%d\\\",\\\"y\\\"]\",\"idempotencyKey\":\"o%d\",\"payload\":{}}"
            "]" WHO "}",
            point, point);
        assert_text(kit_push_text(&k, body), "results.0.outcome", "applied");
    }
    assert_true(point > 5 && point < POINTS_MAX * 10);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_text_is_not_no_value),
                                       cmocka_unit_test(a_store_that_opens_works)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
