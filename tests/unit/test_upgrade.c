/* Database files made by the version before: they open, and what they show does not change. */
#include "client_kit.h"

#include "client/count.h"
#include "client/pump.h"
#include "client/seal.h"

/* Everything of the three views that name operations. */
#define SHOWN                                                                                      \
    "SELECT * FROM (SELECT q.*, 'queue' FROM sync_queue AS q ORDER BY q.lsn) UNION ALL SELECT"     \
    " r.id, r.created_at, r.superseded_by, r.supersedes, r.lsn, 6, 7, 8, 9, 10, 11, 12, 13, 14,"   \
    " 15, 16, 17, 18, 19, 20, 21, 'receipt' FROM godwit_receipts AS r UNION ALL SELECT d.id, "     \
    "d.at,"                                                                                        \
    " d.depends_on, d.lsn, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,"         \
    " 'dead letter' FROM godwit_dead_letters AS d"

/* As step 6 left it: id, created_at and lineage stored in every row of godwit_op, no receipts kept
 * apart. */
#define STEP_6                                                                                     \
    "CREATE TABLE was AS SELECT o.*, q.id AS old_id, q.created_at AS old_at FROM godwit_op AS o"   \
    " JOIN sync_queue AS q ON q.lsn = o.lsn; DROP TABLE godwit_op; CREATE TABLE godwit_op (lsn"    \
    " INTEGER PRIMARY KEY, id TEXT NOT NULL, created_at TEXT NOT NULL, operation TEXT NOT NULL,"   \
    " tbl INTEGER NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT NOT NULL, idempotency_key"   \
    " BLOB NOT NULL, client_key TEXT, payload TEXT NOT NULL, base TEXT, state TEXT NOT NULL"       \
    " DEFAULT 'pending', attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT, last_error_code"    \
    " TEXT, last_attempt_at TEXT, next_attempt_at INTEGER, scope TEXT NOT NULL, device_id TEXT"    \
    " NOT NULL, sequence_number INTEGER NOT NULL, group_first INTEGER NOT NULL, group_size "       \
    "INTEGER"                                                                                      \
    " NOT NULL, base_seq INTEGER NOT NULL, base_salt INTEGER NOT NULL, lineage TEXT NOT NULL,"     \
    " nonce BLOB NOT NULL, wall_ms INTEGER NOT NULL, rekeyed INTEGER NOT NULL DEFAULT 0,"          \
    " schema_ver INTEGER NOT NULL, commit_seq INTEGER, outcome TEXT, supersedes TEXT, row_hash"    \
    " INTEGER NOT NULL, resolves TEXT); INSERT INTO godwit_op SELECT lsn, old_id, old_at,"         \
    " operation, tbl, entity_type, entity_id, idempotency_key, client_key, payload, base, state,"  \
    " attempts, last_error, last_error_code, last_attempt_at, next_attempt_at, scope, device_id,"  \
    " sequence_number, group_first, group_size, base_seq, base_salt, coalesce(lineage, "           \
    "device_id),"                                                                                  \
    " nonce, wall_ms, rekeyed, schema_ver, commit_seq, outcome, supersedes, row_hash, resolves"    \
    " FROM was; DROP TABLE was; CREATE INDEX godwit_op_ready ON godwit_op (scope, state, lsn)"     \
    " WHERE state <> 'retired'; CREATE INDEX godwit_op_row ON godwit_op (row_hash) WHERE state <>" \
    " 'retired'; DROP TABLE godwit_receipt; UPDATE godwit_meta SET v = 6 WHERE k = "               \
    "'schema_version';"

static void queue_of_many_kinds(app *a) {
    const godwit_settings settings = {.url = "http://127.0.0.1:9", .scope = "s", .token = "t"};
    char id[37], ids[2][37];
    bool more = false;
    sql_run(a->db, "CREATE TABLE pins(id TEXT PRIMARY KEY, x)");
    APP_OK(a, godwit_init(a->g, &settings));
    APP_OK(a, godwit_track(a->g, "pins", NULL));
    sql_run(a->db, "INSERT INTO pins VALUES ('a', 1); INSERT INTO pins VALUES ('b', 2);"
                   "INSERT INTO pins VALUES ('c', 3); UPDATE pins SET x = 4 WHERE id = 'a'");
    APP_OK(a, godwit_enqueue(a->g, "create", "call", "1", "{}", NULL, id));
    snprintf(ids[0], sizeof ids[0], "%s", id);
    const char *const on[] = {ids[0]};
    APP_OK(a, seal_run(a->g, 100, &more));
    APP_OK(a, godwit_enqueue(a->g, "create", "call", "2", "{}",
                             &(godwit_enqueue_options){.depends_on = on, .depends_on_count = 1},
                             ids[1]));
    APP_OK(a, seal_run(a->g, 100, &more));
    /* one of an identity that has been given up since, one refused, one under another lineage */
    sql_run(a->db,
            "UPDATE godwit_op SET lineage = device_id, device_id = 'another', rekeyed = 1 WHERE"
            " entity_id = 'b'; UPDATE godwit_op SET state = 'rejected', last_error_code ="
            " 'validation' WHERE entity_id = 'c'; UPDATE godwit_op SET lineage ="
            " 'ffffffffffffffffffffffffffffffff' WHERE entity_id = '2';"
            "INSERT INTO pins VALUES ('d', 5)");
    APP_OK(a, count_again(a->g));
}

static void what_is_shown_stays(void **state) {
    app a;
    (void)state;
    app_init(&a, true);
    queue_of_many_kinds(&a);
    char *before = strdup(app_text(&a, SHOWN));
    int64_t stored = sql_int(a.db, "SELECT count(lineage) FROM godwit_op");
    assert_int_equal(stored, 2);
    assert_non_null(strstr(before, "receipt"));
    assert_non_null(strstr(before, "ffffffff-ffff-8fff-8fff-"));
    assert_non_null(strstr(before, "captured"));
    /* views of the application over Godwit's must not be in the way */
    sql_run(a.db, "CREATE VIEW mine AS SELECT id FROM sync_queue");
    sql_run(a.db, STEP_6);
    godwit_close(a.g);
    app_open(&a);
    assert_string_equal(app_text(&a, SHOWN), before);
    assert_int_equal(sql_int(a.db, "SELECT count(lineage) FROM godwit_op"), stored);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM pragma_index_list('godwit_op')"), 3);
    assert_int_equal(sql_int(a.db, "SELECT count(*) FROM mine"), 7);
    free(before);
    app_deinit(&a);
}

/* The id is immutable: what another identity has taken over is still found by it. */
static void an_id_outlives_its_identity(void **state) {
    app a;
    char id[37];
    int64_t lsn = 0;
    (void)state;
    app_init(&a, false);
    queue_of_many_kinds(&a);
    snprintf(id, sizeof id, "%s", app_text(&a, "SELECT id FROM sync_queue WHERE entity_id = '2'"));
    APP_OK(&a, seal_find(a.g, slice_of(id), &lsn));
    assert_int_equal(lsn, sql_int(a.db, "SELECT lsn FROM godwit_op WHERE entity_id = '2'"));
    id[0] = id[0] == '0' ? '1' : '0';
    assert_int_equal(seal_find(a.g, slice_of(id), &lsn), GODWIT_NOT_FOUND);
    assert_int_equal(sql_int(a.db, "SELECT (SELECT depends_on FROM sync_queue WHERE entity_id ="
                                   " '2') = (SELECT id FROM sync_queue WHERE entity_id = '1')"),
                     1);
    app_deinit(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_shown_stays),
        cmocka_unit_test(an_id_outlives_its_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
