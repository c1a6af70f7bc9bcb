/* Columns that come and go in updates of an application that is offline: what is queued keeps its
 * meaning, and what a column of an old name holds now is sent. */
#include "sync_kit.h"

#define EARLY "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, slug TEXT UNIQUE);"

static void migrate(device *d, const char *sql) {
    device_check(d, godwit_migrate(d->g, "begin"));
    device_exec(d, sql);
    device_check(d, godwit_migrate(d->g, "end"));
}

static device *early_device(world *w) {
    device *d = world_device(w, EARLY, "field");
    device_track(d, "pins");
    device_exec(d, "INSERT INTO pins(id, title, note) VALUES ('a', 'A', 'was'), ('b', 'B', 'was'),"
                   " ('c', 'C', 'was')");
    (void)device_sync(d);
    return d;
}

#define SHOW                                                                                       \
    "SELECT group_concat(id || '=' || coalesce(note, '-'), ' ') FROM (SELECT * FROM pins"          \
    " ORDER BY id)"

/* The gained column of the first update has noted what the server knew; the column that goes in it
 * is on that list when it comes again. */
static void a_column_that_comes_again_is_a_new_one(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = early_device(&w), *other = world_field_device(&w);
    device_exec(d, "UPDATE pins SET note = 'queued' WHERE id <> 'c'");
    migrate(d, "ALTER TABLE pins DROP COLUMN note; ALTER TABLE pins ADD COLUMN n INTEGER;"
               " UPDATE pins SET n = 7");
    device_exec(d, "UPDATE pins SET title = 'between'");
    migrate(d, "ALTER TABLE pins ADD COLUMN note TEXT; UPDATE pins SET note = 'new' WHERE id <>"
               " 'b'");
    device_exec(d, "UPDATE pins SET title = 'behind'");
    (void)device_sync(d);
    (void)device_sync(other);
    /* of b nothing was written since: what was queued is what there is */
    assert_string_equal(device_text(other, SHOW), "a=new b=queued c=new");
    assert_string_equal(device_text(d, SHOW), "a=new b=queued c=new");
    assert_int_equal(device_int(other, "SELECT count(*) FROM pins WHERE n = 7 AND title ="
                                       " 'behind'"),
                     3);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_meta WHERE k GLOB 'gained:*'"), 0);
    world_deinit(&w);
}

/* Twice, and with a third column on the way. */
static void it_comes_and_goes(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = early_device(&w), *other = world_field_device(&w);
    migrate(d, "ALTER TABLE pins ADD COLUMN n INTEGER");
    for (int i = 0; i < 2; i++) {
        migrate(d, "ALTER TABLE pins DROP COLUMN note");
        migrate(d, "ALTER TABLE pins ADD COLUMN note TEXT; UPDATE pins SET note = 'it ' || id");
    }
    migrate(d, "ALTER TABLE pins DROP COLUMN n");
    migrate(d, "ALTER TABLE pins ADD COLUMN n INTEGER; UPDATE pins SET n = 3");
    (void)device_sync(d);
    (void)device_sync(other);
    assert_string_equal(device_text(other, SHOW), "a=it a b=it b c=it c");
    assert_int_equal(device_int(other, "SELECT count(*) FROM pins WHERE n = 3"), 3);
    world_deinit(&w);
}

static void count_finding(void *context, const char *code, const char *text, int fixable) {
    (void)text;
    *(int *)context += strcmp(code, "changed-rows") == 0 && fixable;
}

/* Both updates happened while nobody looked, by other programs and without a migration: the table
 * has the columns it had, so that only the rows tell. */
static void a_table_made_anew_while_nobody_looked(void **state) {
    (void)state;
    world w;
    world_init(&w, WORLD_SCHEMA);
    device *d = early_device(&w), *other = world_field_device(&w);
    int found = 0;
    int64_t left = 0;
    device_close(d);
    assert_int_equal(sqlite3_open(d->path, &d->db), SQLITE_OK);
    device_exec(d, "CREATE TABLE made(id TEXT PRIMARY KEY, title TEXT, slug TEXT UNIQUE, note"
                   " VARCHAR); INSERT INTO made SELECT id, title, slug, CASE WHEN id = 'b' THEN"
                   " 'new' ELSE note END FROM pins; DROP TABLE pins; ALTER TABLE made RENAME TO"
                   " pins");
    sqlite3_close(d->db);
    device_open(d);
    device_check(d, godwit_doctor(d->g, 0, count_finding, &found, &left));
    assert_int_equal(found, 1);
    assert_int_equal(left, 1);
    device_check(d, godwit_doctor(d->g, 1, count_finding, &found, &left));
    assert_int_equal(left, 0);
    (void)device_sync(d);
    (void)device_sync(other);
    assert_string_equal(device_text(other, SHOW), "a=was b=new c=was");
    assert_string_equal(device_text(other, SHOW), "a=was b=new c=was");
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_column_that_comes_again_is_a_new_one),
        cmocka_unit_test(it_comes_and_goes),
        cmocka_unit_test(a_table_made_anew_while_nobody_looked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
