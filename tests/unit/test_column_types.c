/* Counters, sets and extremes from the application's UPDATE to every replica: what is shown while
 * operations wait, and I22 over random devices and a network with faults: a counter is the sum of
 * the differences of the operations with effect, a set follows add-wins.
 *
 * The oracle is the log of what was decided: each device's own operations in the order of their
 * commits, with what their authors had seen. It keeps tags as sets of writers, not as the server
 * does.
 *
 * GODWIT_SEEDS: how many seeds (default 8); GODWIT_SEED: only that one. */
#include "../seeds.h"
#include "sync_kit.h"

#define CONFIG                                                                                     \
    "[table pins]\npolicy.n = counter\npolicy.note = set\npolicy.title = max\npolicy.slug = min\n"
#define DEVICES  3
#define STEPS    50
#define ELEMENTS 5

static void setup(world *w, int devices) {
    memset(w, 0, sizeof *w);
    w->random = 88172645463325252u;
    kit_init(&w->server, WORLD_SCHEMA, CONFIG);
    for (int i = 0; i < devices; i++) {
        (void)world_field_device(w);
    }
    device_exec(&w->devices[0], "INSERT INTO pins VALUES ('p', 'f', '[\"a\"]', 10, 's')");
    for (int i = 0; i < devices; i++) {
        (void)device_sync(&w->devices[i]);
    }
}

#define SHOWN "SELECT n || ' ' || note || ' ' || title || ' ' || slug FROM pins"

/* Others' changes arrive while own ones wait: the device shows what the server will make of both.
 */
static void waiting_operations_are_shown_merged(void **state) {
    (void)state;
    world w;
    setup(&w, 2);
    device *a = &w.devices[0], *b = &w.devices[1];
    device_exec(a, "UPDATE pins SET n = n + 5, note = '[\"a\",\"b\"]', title = 'k', slug = 'e'");
    (void)device_sync(a);
    device_exec(b, "UPDATE pins SET n = n - 2, note = '[\"c\"]', title = 'h', slug = 'm'");
    device_exec(b, "UPDATE pins SET n = n + 1");
    /* b's push is lost, a's change comes: this is what the application sees meanwhile */
    pull_answer page;
    arena arena_of_page;
    arena_init(&arena_of_page, NULL, 0);
    kit_answer feed = kit_changes(&w.server, "field", (slice){0}, "", "");
    assert_int_equal(wire_pull_answer_parse(&arena_of_page, feed.text, &page), GODWIT_OK);
    page.commits += 1; /* b has the first one */
    page.commit_count -= 1;
    settle_counts counts;
    slice cursor = slice_of(device_text(b, "SELECT cursor FROM godwit_cursor"));
    device_check(b, settle_pull(b->g, SLICE("field"), cursor, &page, &counts));
    assert_string_equal(device_text(b, SHOWN), "14 [\"b\",\"c\"] k e");
    device_exec(b, "UPDATE pins SET n = n + 100");
    for (int round = 0; round < 2; round++) {
        (void)device_sync(b);
        (void)device_sync(a);
    }
    assert_string_equal(device_text(b, SHOWN), "114 [\"b\",\"c\"] k e");
    assert_string_equal(device_text(a, SHOWN), "114 [\"b\",\"c\"] k e");
    assert_int_equal(device_int(a, "SELECT count(*) FROM godwit_conflicts WHERE"
                                   " json_extract(body, '$.policy') IN ('counter', 'set')"),
                     0);
    arena_deinit(&arena_of_page);
    world_deinit(&w);
}

/* A disk that fails between keeping the types and telling the registry: they are learned by the
 * next sync, not taken for known. */
static void types_are_learned_whole_or_not(void **state) {
    (void)state;
    world w;
    memset(&w, 0, sizeof w);
    kit_init(&w.server, WORLD_SCHEMA, CONFIG);
    (void)world_field_device(&w);
    device *d = &w.devices[0];
    device_exec(d, "CREATE TEMP TRIGGER refuse BEFORE UPDATE ON godwit_meta WHEN NEW.k ="
                   " 'registry_version' BEGIN SELECT RAISE(ABORT, 'no'); END");
    assert_int_not_equal(godwit_sync(d->g, 1000, NULL), GODWIT_OK);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_meta WHERE k = 'columnTypes'"), 0);
    device_exec(d, "DROP TRIGGER refuse");
    assert_int_equal(godwit_sync(d->g, 1000, NULL), GODWIT_OK);
    assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_meta WHERE k = 'columnTypes'"), 1);
    world_deinit(&w);
}

/* ---- I22 ---- */

static uint64_t below(world *w, uint64_t n) {
    return unit_random(&w->random) % n;
}

static void random_write(world *w, device *d) {
    char sql[256];
    unsigned element = (unsigned)below(w, ELEMENTS);
    switch (below(w, 4)) {
    case 0:
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET n = n + %d", (int)below(w, 21) - 10);
        break;
    case 1: /* several in one transaction are one operation */
        (void)snprintf(sql, sizeof sql,
                       "BEGIN; UPDATE pins SET n = n + 7; UPDATE pins SET n = n * 2; COMMIT");
        break;
    case 2:
        (void)snprintf(sql, sizeof sql,
                       "UPDATE pins SET note = json_insert(note, '$[#]', 'e%u') WHERE NOT EXISTS"
                       " (SELECT 1 FROM json_each(note) WHERE value = 'e%u')",
                       element, element);
        break;
    default:
        (void)snprintf(sql, sizeof sql,
                       "UPDATE pins SET note = (SELECT json_group_array(value) FROM json_each(note)"
                       " WHERE value <> 'e%u')",
                       element);
        break;
    }
    device_exec(d, sql);
}

typedef struct {
    int64_t commit, seq;
    int device;
} tag;

typedef struct {
    int64_t sum;
    tag tags[ELEMENTS][512];
    int tag_count[ELEMENTS];
} oracle;

static bool names(const char *set, int element) {
    char name[8];
    (void)snprintf(name, sizeof name, "\"e%d\"", element);
    return set && strstr(set, name);
}

static void replay_set(oracle *o, const tag *by, int64_t base, const char *old, const char *now) {
    for (int e = 0; e < ELEMENTS; e++) {
        if (names(old, e) == names(now, e)) {
            continue;
        }
        int kept = 0;
        for (int i = 0; i < o->tag_count[e]; i++) {
            const tag *t = &o->tags[e][i];
            if (t->commit > base && !(t->device == by->device && t->seq < by->seq)) {
                o->tags[e][kept++] = *t;
            }
        }
        o->tag_count[e] = kept;
        if (names(now, e)) {
            o->tags[e][o->tag_count[e]++] = *by;
        }
    }
}

static void replay_log(world *w, oracle *o) {
    device all = {.w = w};
    assert_int_equal(sqlite3_open(":memory:", &all.db), SQLITE_OK);
    device_exec(&all, "CREATE TABLE op (at, seq, device, base, n, on_, note, onote)");
    for (int i = 0; i < w->device_count; i++) {
        char sql[512];
        (void)snprintf(sql, sizeof sql, "ATTACH '%s' AS d", w->devices[i].path);
        device_exec(&all, sql);
        (void)snprintf(sql, sizeof sql,
                       "INSERT INTO op SELECT commit_seq, sequence_number, %d, base_seq,"
                       " json_extract(payload, '$.n'), json_extract(base, '$.n'),"
                       " json_extract(payload, '$.note'), json_extract(base, '$.note')"
                       " FROM d.godwit_op WHERE operation = 'update'; DETACH d",
                       i);
        device_exec(&all, sql);
    }
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(
        sqlite3_prepare_v2(all.db, "SELECT * FROM op ORDER BY at, seq", -1, &stmt, NULL),
        SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        tag by = {sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                  sqlite3_column_int(stmt, 2)};
        assert_true(by.commit > 0);
        o->sum += sqlite3_column_int64(stmt, 4) - sqlite3_column_int64(stmt, 5);
        replay_set(o, &by, sqlite3_column_int64(stmt, 3),
                   (const char *)sqlite3_column_text(stmt, 7),
                   (const char *)sqlite3_column_text(stmt, 6));
    }
    sqlite3_finalize(stmt);
    sqlite3_close(all.db);
}

static void check(world *w, uint64_t seed) {
    oracle o = {.sum = 10};
    replay_log(w, &o);
    for (int i = 0; i < w->device_count; i++) {
        device *d = &w->devices[i];
        if (device_int(d, "SELECT n FROM pins") != o.sum) {
            fail_msg("seed %llu: the counter is %s, not %lld", (unsigned long long)seed,
                     device_text(d, "SELECT n FROM pins"), (long long)o.sum);
        }
        const char *set = device_text(d, "SELECT note FROM pins");
        for (int e = 0; e < ELEMENTS; e++) {
            if (names(set, e) != (o.tag_count[e] > 0)) {
                fail_msg("seed %llu, device %d: element %d in %s", (unsigned long long)seed, i, e,
                         set);
            }
        }
        assert_string_equal(set, kit_sql(&w->server, "SELECT note FROM pins"));
        assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_conflicts"), 0);
    }
}

static void run_seed(uint64_t seed) {
    world w;
    setup(&w, DEVICES);
    w.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w.faults = (faults){.lose_request = 6, .lose_answer = 4, .repeat_request = 4, .cut_answer = 8};
    for (int step = 0; step < STEPS; step++) {
        device *d = &w.devices[below(&w, DEVICES)];
        w.server.now_ms += 100;
        if (below(&w, 5) < 3) {
            random_write(&w, d);
        } else {
            godwit_status status = godwit_sync(d->g, 0, NULL);
            assert_true(status == GODWIT_OK || status == GODWIT_UNREACHABLE ||
                        status == GODWIT_PROTOCOL);
        }
    }
    w.faults = (faults){0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < DEVICES; i++) {
            (void)device_sync(&w.devices[i]);
        }
    }
    check(&w, seed);
    world_deinit(&w);
}

static void counters_are_sums_and_sets_add_wins(void **state) {
    (void)state;
    seeds_run(run_seed, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_operations_are_shown_merged),
        cmocka_unit_test(types_are_learned_whole_or_not),
        cmocka_unit_test(counters_are_sums_and_sets_add_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
