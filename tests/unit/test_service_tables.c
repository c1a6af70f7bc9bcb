/* Tables: what the configuration says about them, what a schema file brings, what devices declare,
 * and what the database itself does to values. */
#include "service_kit.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void other_readers_columns(void **state) {
    (void)state;
    kit k;
    kit_init(&k,
             "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, deleted_at TEXT, made_by TEXT,"
             " changed TEXT, vector_clock TEXT);"
             "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id));",
             "[server]\nlisten = 1\n[table pins]\nentity = pin\ndeleted_column = deleted_at\n"
             "created_by_device_column = made_by\nupdated_at_column = changed\n");
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "pin", "p1", "{\"title\":\"x\",\"made_by\":\"me\"}"),
                     kit_op(&k, &a, OP_CREATE, "forms", "f1", "{\"pin_id\":\"p1\"}"),
                     kit_op(&k, &a, OP_CREATE, "pin", "p2", "{\"title\":\"y\"}")};
    kit_answer r = kit_push(&k, &a, ops, 3);
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.0.result", "{\"id\":\"p1\",\"title\":\"x\"}");
    assert_string_equal(
        kit_sql(&k, "SELECT made_by || changed || vector_clock FROM pins WHERE id = 'p1'"),
        A "2026-01-02T03:04:05.678Z{\"$\":0,\"" A "\":1}");
    r = kit_push_one(&k, &a, OP_DELETE, "pin", "p1", NULL);
    assert_text(r, "results.0.error.code", "fk-violation"); /* a form still refers to it */
    k.now_ms += 60000;
    r = kit_push_one(&k, &a, OP_DELETE, "pin", "p2", NULL);
    assert_text(r, "results.0.outcome", "applied");
    assert_string_equal(
        kit_sql(&k, "SELECT title || deleted_at || changed FROM pins WHERE id = 'p2'"),
        "y2026-01-02T03:05:05.678Z2026-01-02T03:05:05.678Z");
    r = kit_push_one(&k, &a, OP_CREATE, "forms", "f2", "{\"pin_id\":\"p2\"}");
    assert_text(r, "results.0.error.code", "fk-violation"); /* deleted is deleted */
    kit_answer feed = kit_changes(&k, "field", (slice){0}, "", "");
    assert_text(feed, "commits.4.changes.0.entityType", "pin");
    assert_text(feed, "commits.4.changes.0.kind", "delete");
    wire_op again = kit_op(&k, &a, OP_CREATE, "pin", "p2", "{\"title\":\"z\"}");
    r = kit_push(&k, &a, &again, 1);
    assert_text(r, "results.0.outcome", "applied");
    assert_string_equal(kit_sql(&k,
                                "SELECT title || CASE WHEN deleted_at IS NULL THEN 1 END FROM pins"
                                " WHERE id = 'p2'"),
                        "z1");
    assert_string_equal(kit_sql(&k, "SELECT gen FROM godwit_row WHERE pk = 'p2'"), "2");
    sqlite3 *replica = replica_open();
    slice token = {0}, cursor = {0};
    while (replica_snapshot(&k, replica, "1", &token, &cursor)) {
    }
    assert_int_equal(atoi(replica_digest(&k, replica)), 3);
    sqlite3_close(replica);
    kit_deinit(&k);
}

static void settings_reach_the_merge(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS,
             "[table pins]\npolicy = server_wins\npolicy.title = manual\ngroups = lat+n\n"
             "on_conflicting_delete = delete_wins\ninitial = keep_device\n");
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "bob", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "pins", "p", "{\"title\":\"t\",\"note\":\"n\"}"),
                  200);
    wire_op one = kit_op(&k, &a, OP_UPDATE, "pins", "p", "{\"title\":\"a\",\"note\":\"a\"}");
    wire_op two = kit_op(&k, &b, OP_UPDATE, "pins", "p", "{\"title\":\"b\",\"note\":\"b\"}");
    kit_base(&k, &a, &one, 1, "{\"title\":\"t\",\"note\":\"n\"}");
    kit_base(&k, &b, &two, 1, "{\"title\":\"t\",\"note\":\"n\"}");
    assert_status(kit_push(&k, &a, &one, 1), 200);
    kit_answer r = kit_push(&k, &b, &two, 1);
    assert_text(r, "results.0.status", "conflict");
    assert_text(r, "results.0.result.note", "a");
    assert_string_equal(kit_sql(&k, "SELECT group_concat(policy || state) FROM (SELECT * FROM"
                                    " godwit_conflict ORDER BY policy) AS c"),
                        "manualopen,server_winsauto");
    /* the resolution is an ordinary operation that names the record */
    const char *id = kit_sql(&k, "SELECT conflict_id FROM godwit_conflict WHERE state = 'open'");
    const char *body = arena_printf(&k.a,
                                    "{\"deviceId\":\"t\",\"operations\":[{\"id\":\"r\","
                                    "\"operation\":\"update\",\"entityType\":\"pins\","
                                    "\"entityId\":\"p\",\"idempotencyKey\":\"r\",\"resolves\":\"%"
                                    "s\",\"payload\":{\"title\":\"both\"}}]}",
                                    id);
    assert_text(kit_push_text(&k, body), "results.0.status", "success");
    assert_string_equal(
        kit_sql(&k, "SELECT state || resolved_by || resolved_commit FROM godwit_conflict"
                    " WHERE policy = 'manual'"),
        "resolvedana4");
    kit_deinit(&k);
}

static void scopes_of_tables(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, "[table counts]\nscope = shared\n[table forms]\nscope_column = body\n");
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_device b = kit_register(&k, B, "ana", "shared");
    kit_answer r = kit_push_one(&k, &a, OP_CREATE, "counts", "1", NULL);
    assert_text(r, "results.0.error.code", "forbidden");
    assert_text(kit_push_one(&k, &b, OP_CREATE, "counts", "1", NULL), "results.0.status",
                "success");
    r = kit_push_one(&k, &a, OP_CREATE, "forms", "f1", "{\"body\":\"elsewhere\"}");
    assert_text(r, "results.0.error.code", "forbidden");
    r = kit_push_one(&k, &a, OP_CREATE, "forms", "f2", NULL);
    assert_text(r, "results.0.result.body", "field");
    kit_deinit(&k);
}

static void only_some_columns(void **state) {
    (void)state;
    kit k;
    kit_init(&k, "CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT, secret TEXT DEFAULT 'kept', b TEXT);",
             "[table t]\ncolumns = b, a\n");
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_answer r = kit_push_one(&k, &a, OP_CREATE, "t", "1", "{\"a\":\"x\"}");
    assert_text(r, "results.0.result", "{\"id\":\"1\",\"a\":\"x\",\"b\":null}");
    assert_string_equal(kit_sql(&k, "SELECT secret FROM t"), "kept");
    r = kit_push_one(&k, &a, OP_UPDATE, "t", "1", "{\"secret\":\"x\"}");
    assert_text(r, "results.0.error.code", "unknown-column");
    r = kit_push_one(&k, &a, OP_UPDATE, "t", "1", "{\"b\":\"y\"}");
    assert_text(r, "results.0.status", "success");
    assert_string_equal(kit_sql(&k, "SELECT secret || a || b FROM t"), "keptxy");
    kit_deinit(&k);
}

static void bad_settings_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *named;
    } bad[] = {
        {"[table pins]\ncolour = red\n", "colour"},
        {"[table pins]\npolicy = newest\n", "newest"},
        {"[table pins]\npolicy.colour = lww\n", "colour"},
        {"[table pins]\npolicy.title = counter\nrow_atomic = yes\n", "title"},
        {"[table pins]\npolicy.note = set\ngroups = title+note\n", "note"},
        {"[table pins]\ngroups = title+colour\n", "colour"},
        {"[table pins]\ngroups = title+note, note+lat\n", "note"},
        {"[table pins]\nrow_atomic = perhaps\n", "perhaps"},
        {"[table pins]\non_conflicting_delete = both\n", "both"},
        {"[table pins]\ninitial = newest:colour\n", "colour"},
        {"[table pins]\nscope = a\nscope_column = title\n", "exclude"},
        {"[table pins]\ndeleted_column = id\n", "id"},
        {"[table planets]\nentity = x\n", "planets"},
        {"[table pins]\nentity = x\n[table forms]\nentity = x\n", "x"},
        {"[table forms]\ncolumns = body\n", "pins"},
        {"[table pins\n", "line 1"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        kit k;
        kit_prepare(&k, KIT_PINS, bad[i].text);
        assert_int_not_equal(kit_try_open(&k), GODWIT_OK);
        if (!strstr(k.message, bad[i].named)) {
            fail_msg("'%s' does not name '%s'", k.message, bad[i].named);
        }
        kit_deinit(&k);
    }
}

/* The same triggers in both stores' words. */
#define LAST_WORD                                                                                  \
    "CREATE TABLE t(id TEXT PRIMARY KEY, title TEXT, upper TEXT, d TEXT DEFAULT ('x' || 'y')"
#define LAST_WORD_SQLITE                                                                           \
    LAST_WORD ", g TEXT GENERATED ALWAYS AS (title || '!'));"                                      \
              "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN UPDATE t SET upper = upper(NEW.title)"   \
              " WHERE id = NEW.id; END;"                                                           \
              "CREATE TRIGGER t_u AFTER UPDATE OF title ON t BEGIN UPDATE t SET upper ="           \
              " upper(NEW.title) WHERE id = NEW.id; END;"                                          \
              "CREATE TRIGGER t_d BEFORE DELETE ON t WHEN OLD.title = 'keep' BEGIN"                \
              " SELECT RAISE(ABORT, 'this one stays'); END;"                                       \
              "CREATE TABLE s(id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;"
#define LAST_WORD_POSTGRES                                                                         \
    LAST_WORD ");"                                                                                 \
              "CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"                   \
              " UPDATE t SET upper = upper(NEW.title) WHERE id = NEW.id; RETURN NULL; END$$;"      \
              "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"                 \
              " RAISE 'this one stays'; END$$;"                                                    \
              "CREATE TRIGGER t_i AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION up();"           \
              "CREATE TRIGGER t_u AFTER UPDATE OF title ON t FOR EACH ROW EXECUTE FUNCTION up();"  \
              "CREATE TRIGGER t_d BEFORE DELETE ON t FOR EACH ROW WHEN (OLD.title = 'keep')"       \
              " EXECUTE FUNCTION stay();"                                                          \
              "CREATE TABLE s(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);"

static void the_database_has_the_last_word(void **state) {
    (void)state;
    kit k;
    kit_init(&k, postgres_server() ? LAST_WORD_POSTGRES : LAST_WORD_SQLITE, NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    kit_answer r = kit_push_one(&k, &a, OP_CREATE, "t", "1", "{\"title\":\"abc\"}");
    assert_text(r, "results.0.result",
                "{\"id\":\"1\",\"title\":\"abc\",\"upper\":\"ABC\",\"d\":\"xy\"}");
    r = kit_push_one(&k, &a, OP_UPDATE, "t", "1", "{\"title\":\"keep\"}");
    assert_text(r, "results.0.result.upper", "KEEP");
    kit_answer feed = kit_changes(&k, "field", (slice){0}, "", "");
    assert_text(feed, "commits.1.changes.0.columns", "{\"title\":\"keep\",\"upper\":\"KEEP\"}");
    r = kit_push_one(&k, &a, OP_DELETE, "t", "1", NULL);
    assert_text(r, "results.0.error.code", "validation");
    assert_text(r, "results.0.error.detail", "this one stays");
    r = kit_push_one(&k, &a, OP_CREATE, "t", "2", "{\"title\":\"x\",\"d\":null}");
    assert_true(
        json_is(kit_at(r.root, "results.0.result.d"), JSON_NULL)); /* given, so no default */
    r = kit_push_one(&k, &a, OP_CREATE, "s", "1", "{\"n\":\"many\"}");
    assert_text(r, "results.0.error.code", "invalid-value");
    r = kit_push_one(&k, &a, OP_CREATE, "s", "2", NULL);
    assert_text(r, "results.0.error.code", "not-null");
    r = kit_push_one(&k, &a, OP_UPDATE, "t", "2", "{\"g\":\"y\"}");
    assert_text(r, "results.0.error.code", "unknown-column");
    kit_deinit(&k);
}

static void keys_of_all_kinds(void **state) {
    (void)state;
    kit k;
    kit_init(&k,
             "CREATE TABLE \"or der\"(\"a b\" TEXT, n INTEGER, \"q\"\"q\" TEXT, PRIMARY KEY(\"a "
             "b\", n));"
             "CREATE TABLE bin(k BLOB PRIMARY KEY, v TEXT);"
             "CREATE TABLE part(id TEXT PRIMARY KEY, x TEXT, y INTEGER,"
             " FOREIGN KEY(x, y) REFERENCES \"or der\");",
             NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op ops[] = {kit_op(&k, &a, OP_CREATE, "or der", "[\"x\",\"-5\"]", "{\"q\\\"q\":\"1\"}"),
                     kit_op(&k, &a, OP_UPDATE, "or der", "[\"x\",\"-5\"]", "{\"q\\\"q\":\"2\"}"),
                     kit_op(&k, &a, OP_CREATE, "bin", "00ff", "{\"v\":\"1\"}"),
                     kit_op(&k, &a, OP_CREATE, "part", "1", "{\"x\":\"x\",\"y\":-5}"),
                     kit_op(&k, &a, OP_CREATE, "part", "2", "{\"x\":\"x\",\"y\":6}"),
                     kit_op(&k, &a, OP_CREATE, "part", "3", "{\"x\":\"x\",\"y\":null}"),
                     kit_op(&k, &a, OP_DELETE, "bin", "00ff", NULL)};
    kit_answer r = kit_push(&k, &a, ops, 7);
    assert_text(r, "results.0.result.a b", "x");
    assert_text(r, "results.1.result.q\"q", "2");
    assert_int_equal(kit_int(&r, "results.1.result.n"), -5);
    assert_text(r, "results.2.result.k.$b64", "AP8=");
    assert_text(r, "results.3.status", "success");
    assert_text(r, "results.4.error.code", "fk-violation");
    assert_text(r, "results.5.status", "success");
    assert_text(r, "results.6.outcome", "applied");
    kit_deinit(&k);
}

static void keys_to_other_unique_columns(void **state) {
    (void)state;
    kit k;
    kit_init(&k,
             "CREATE TABLE p(id TEXT PRIMARY KEY, code TEXT UNIQUE);"
             "CREATE TABLE c(id TEXT PRIMARY KEY, code TEXT REFERENCES p(code));",
             NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    wire_op made[] = {kit_op(&k, &a, OP_CREATE, "p", "1", "{\"code\":\"x\"}"),
                      kit_op(&k, &a, OP_CREATE, "p", "2", "{\"code\":\"y\"}"),
                      kit_op(&k, &a, OP_CREATE, "c", "c1", "{\"code\":\"x\"}")};
    assert_text(kit_push(&k, &a, made, 3), "results.2.status", "success");
    wire_op away = kit_op(&k, &a, OP_UPDATE, "p", "1", "{\"code\":\"z\"}");
    away.base = SLICE("{\"code\":\"x\"}");
    kit_answer r = kit_push(&k, &a, &away, 1);
    assert_text(r, "results.0.error.code", "fk-violation");
    assert_text(r, "results.0.error.detail", "c(code) refers to p(code)");
    if (postgres_server()) { /* its unique constraints hold at every row: see docs/limits.md */
        kit_deinit(&k);
        return;
    }
    wire_op swap[] = {kit_op(&k, &a, OP_UPDATE, "p", "1", "{\"code\":\"y\"}"),
                      kit_op(&k, &a, OP_UPDATE, "p", "2", "{\"code\":\"x\"}")};
    kit_group(swap, 2);
    r = kit_push(&k, &a, swap, 2); /* the code has another owner, it is not gone */
    assert_text(r, "results.0.status", "success");
    assert_text(r, "results.1.status", "success");
    assert_string_equal(kit_sql(&k, "SELECT id FROM p WHERE code = 'x'"), "2");
    kit_deinit(&k);
}

static void schema_files_grow(void **state) {
    (void)state;
    if (postgres_server()) {
        skip(); /* tables are made by migrations there */
    }
    kit k;
    kit_init(&k, "CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT);", NULL);
    kit_device a = kit_register(&k, A, "ana", "field");
    assert_status(kit_push_one(&k, &a, OP_CREATE, "t", "1", "{\"a\":\"x\"}"), 200);
    (void)kit_file(
        &k, "schema.sql",
        "CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT, b INTEGER DEFAULT 7);"
        "CREATE TABLE u(id TEXT PRIMARY KEY); CREATE INDEX t_a ON t(a);"
        "CREATE TABLE keyless(x); INSERT INTO t VALUES ('no', 'no', 0); PRAGMA user_version = 5;");
    kit_reopen(&k);
    kit_answer r = kit_push_one(&k, &a, OP_UPDATE, "t", "1", "{\"b\":9}");
    assert_int_equal(kit_int(&r, "results.0.result.b"), 9);
    assert_text(kit_push_one(&k, &a, OP_CREATE, "u", "1", NULL), "results.0.status", "success");
    assert_text(kit_push_one(&k, &a, OP_CREATE, "keyless", "1", NULL), "results.0.error.code",
                "unknown-entity");
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM t"), "1"); /* only definitions count */
    kit_close(&k);
    (void)kit_file(&k, "schema.sql",
                   "CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT, c TEXT NOT NULL);");
    assert_int_not_equal(kit_try_open(&k), GODWIT_OK);
    assert_non_null(strstr(k.message, "column c"));
    (void)kit_file(&k, "schema.sql", "CREATE TABLE t(id TEXT PRIMARY KEY,;");
    assert_int_not_equal(kit_try_open(&k), GODWIT_OK);
    assert_non_null(strstr(k.message, "syntax error"));
    (void)kit_file(&k, "schema.sql", "CREATE TABLE godwit_op(id TEXT PRIMARY KEY);");
    assert_int_not_equal(kit_try_open(&k), GODWIT_OK);
    kit_deinit(&k);
}

static kit_answer declare(kit *k, const char *id, const char *tables) {
    const char *body = arena_printf(
        &k->a, "{\"deviceId\":\"%s\",\"lineage\":\"%s\",\"scopes\":[\"field\"],\"tables\":[%s]}",
        id, id, tables);
    return kit_body(k, VERB_REGISTER, "ana", "field", slice_of(body));
}

#define TREES                                                                                      \
    "{\"name\":\"trees\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":\"TEXT\"}" \
    ",{\"name\":\"height\",\"type\":\"REAL\"}%s]}"

static void dev_adopts(void **state) {
    (void)state;
    kit k;
    kit_prepare(&k, NULL, NULL);
    k.dev = true;
    kit_reopen(&k);
    kit_device a = {.id = A, .scope = "field", .user = "ana", .lineage = SLICE(A)};
    kit_answer r = declare(&k, A, arena_printf(&k.a, TREES, ""));
    assert_status(r, 200);
    assert_text(r, "tables.0.name", "trees");
    assert_text(kit_push_one(&k, &a, OP_CREATE, "trees", "t1", "{\"height\":3.5}"),
                "results.0.status", "success");
    r = declare(&k, B,
                "{\"name\":\"trees\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\","
                "\"type\":\"TEXT\"},"
                "{\"name\":\"owner\",\"type\":\"VARCHAR(20)\"}]},"
                "{\"name\":\"nests\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\","
                "\"type\":\"TEXT\"},"
                "{\"name\":\"tree\",\"type\":\"TEXT\"}],\"foreignKeys\":[{\"columns\":[\"tree\"],"
                "\"table\":\"trees\","
                "\"refColumns\":[\"id\"],\"onDelete\":\"CASCADE\"}]}");
    assert_status(r, 200);
    kit_reopen(&k); /* durably */
    r = kit_push_one(&k, &a, OP_UPDATE, "trees", "t1", "{\"owner\":\"bob\"}");
    assert_text(r, "results.0.result.owner", "bob");
    r = kit_push_one(&k, &a, OP_CREATE, "nests", "n1", "{\"tree\":\"not there\"}");
    assert_text(r, "results.0.status", "success"); /* declared keys are not enforced */
    r = declare(&k, A,
                "{\"name\":\"trees\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\","
                "\"type\":\"TEXT\"},"
                "{\"name\":\"height\",\"type\":\"BLOB\"}]}");
    assert_problem(r, 409, "schema-mismatch");
    assert_non_null(strstr(r.text.ptr, "trees.height"));
    r = declare(&k, A,
                "{\"name\":\"trees\",\"primaryKey\":[\"id\",\"height\"],\"columns\":[{\"name\":"
                "\"id\",\"type\":"
                "\"TEXT\"},{\"name\":\"height\",\"type\":\"REAL\"}]}");
    assert_problem(r, 409, "schema-mismatch");
    r = declare(&k, A,
                "{\"name\":\"evil\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":"
                "\"TEXT, x UNIQUE\"}]}");
    assert_true(r.status == 400 || r.status == 409);
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM sqlite_schema WHERE name = 'evil'"), "0");
    kit_deinit(&k);
}

/* A reader of its own, as every pool thread has one. */
typedef struct {
    service *s;
    atomic_bool stop;
    atomic_int rounds;
    atomic_int failures;
} bystander;

static void *read_on(void *argument) {
    bystander *b = argument;
    service_reader *r = NULL;
    static const service_verb verbs[] = {VERB_SNAPSHOT, VERB_CHANGES, VERB_HISTORY, VERB_CONFLICTS};
    if (service_reader_open(b->s, &r) != GODWIT_OK) {
        atomic_fetch_add(&b->failures, 1);
        return NULL;
    }
    while (!atomic_load(&b->stop)) {
        for (size_t i = 0; i < COUNT_OF(verbs); i++) {
            service_job job;
            service_job_init(&job, verbs[i]);
            job.who.user = SLICE("ana");
            job.who.scopes[0] = SLICE("field");
            job.who.scope_count = 1;
            job.q_entity_type = i == 2 ? SLICE("t0") : (slice){0};
            job.q_entity_id = i == 2 ? SLICE("1") : (slice){0};
            service_prepare(b->s, &job);
            service_read(b->s, r, &job);
            atomic_fetch_add(&b->failures, job.status != 200);
            service_job_deinit(&job);
        }
        atomic_fetch_add(&b->rounds, 1);
    }
    service_reader_close(r);
    return NULL;
}

static void tables_are_adopted_under_readers(void **state) {
    (void)state;
    kit k;
    pthread_t threads[2];
    kit_prepare(&k, NULL, NULL);
    k.dev = true;
    kit_reopen(&k);
    kit_device a = {.id = A, .scope = "field", .user = "ana", .lineage = SLICE(A)};
    bystander b = {.s = k.s};
    for (int i = 0; i < 20; i++) {
        const char *table = arena_printf(&k.a,
                                         "{\"name\":\"t%d\",\"primaryKey\":[\"id\"],\"columns\":[{"
                                         "\"name\":\"id\",\"type\":\"TEXT\"}]}",
                                         i);
        assert_status(declare(&k, A, table), 200);
        assert_text(kit_push_one(&k, &a, OP_CREATE, arena_printf(&k.a, "t%d", i), "1", NULL),
                    "results.0.status", "success");
        for (int n = 0; i == 0 && n < 2; n++) {
            assert_int_equal(pthread_create(&threads[n], NULL, read_on, &b), 0);
        }
    }
    while (atomic_load(&b.rounds) < 20) { /* both had their turn */
        (void)sched_yield();
    }
    atomic_store(&b.stop, true);
    for (int n = 0; n < 2; n++) {
        assert_int_equal(pthread_join(threads[n], NULL), 0);
    }
    assert_int_equal(atomic_load(&b.failures), 0);
    kit_deinit(&k);
}

static void without_dev_tables_are_checked(void **state) {
    (void)state;
    kit k;
    kit_init(&k, KIT_PINS, NULL);
    kit_answer r = declare(&k, A, arena_printf(&k.a, TREES, ""));
    assert_problem(r, 409, "schema-mismatch");
    assert_non_null(strstr(r.text.ptr, "trees"));
    assert_string_equal(kit_sql(&k, "SELECT count(*) FROM godwit_device"), "0");
    r = declare(&k, A,
                "{\"name\":\"pins\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":"
                "\"text\"},"
                "{\"name\":\"title\",\"type\":\"VARCHAR\"}]}");
    assert_status(r, 200); /* fewer columns, another word for the same affinity */
    assert_text(r, "scopes.0.lastKey", "");
    r = declare(&k, A,
                "{\"name\":\"pins\",\"primaryKey\":[\"id\"],\"columns\":[{\"name\":\"id\",\"type\":"
                "\"TEXT\"},"
                "{\"name\":\"colour\",\"type\":\"TEXT\"}]}");
    assert_problem(r, 409, "schema-mismatch");
    assert_non_null(strstr(r.text.ptr, "pins.colour"));
    /* an id of somebody else can't be taken over */
    const char *body = "{\"deviceId\":\"" A "\",\"lineage\":\"" A "\",\"scopes\":[\"field\"]}";
    assert_problem(kit_body(&k, VERB_REGISTER, "eve", "field", slice_of(body)), 403,
                   "device-revoked");
    assert_problem(kit_body(&k, VERB_REGISTER, "eve", "south", slice_of(body)), 403,
                   "scope-forbidden");
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_readers_columns),
        cmocka_unit_test(settings_reach_the_merge),
        cmocka_unit_test(scopes_of_tables),
        cmocka_unit_test(only_some_columns),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(the_database_has_the_last_word),
        cmocka_unit_test(keys_of_all_kinds),
        cmocka_unit_test(keys_to_other_unique_columns),
        cmocka_unit_test(schema_files_grow),
        cmocka_unit_test(dev_adopts),
        cmocka_unit_test(tables_are_adopted_under_readers),
        cmocka_unit_test(without_dev_tables_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
