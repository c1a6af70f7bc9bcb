/* Random edits on several devices, with requests and answers lost, repeated and cut, and devices
 * that stop in the middle: when the faults end, all replicas equal the server's tables and every
 * operation was decided exactly once.
 *
 * GODWIT_SEEDS: how many seeds (default 12); GODWIT_SEED: only that one. */
#include "../seeds.h"
#include "sync_kit.h"

#include "client/count.h"

#define DEVICES 3
#define STEPS   60

static uint64_t below(world *w, uint64_t n) {
    return unit_random(&w->random) % n;
}

static void random_statement(world *w, device *d) {
    char sql[256];
    unsigned pin = (unsigned)below(w, 6), other = (unsigned)below(w, 6),
             form = (unsigned)below(w, 5);
    unsigned n = (unsigned)below(w, 1000);
    switch (below(w, 12)) {
    case 0:
    case 1:
        (void)snprintf(sql, sizeof sql, "INSERT INTO pins VALUES ('p%u', 't%u', 'n%u', %u, 's%u')",
                       pin, n, n, n, n);
        break;
    case 2:
    case 3:
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET title = 't%u' WHERE id = 'p%u'", n, pin);
        break;
    case 4:
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET note = 'n%u', n = %u WHERE id = 'p%u'", n,
                       n, pin);
        break;
    case 5:
        (void)snprintf(sql, sizeof sql, "UPDATE pins SET slug = 's%u' WHERE id = 'p%u'", n % 8,
                       pin);
        break;
    case 6:
        (void)snprintf(sql, sizeof sql, "DELETE FROM pins WHERE id = 'p%u'", pin);
        break;
    case 7:
        (void)snprintf(sql, sizeof sql, "INSERT INTO forms VALUES ('f%u', 'p%u', 'b%u')", form, pin,
                       n);
        break;
    case 8:
        (void)snprintf(sql, sizeof sql, "UPDATE forms SET body = 'b%u' WHERE id = 'f%u'", n, form);
        break;
    case 9:
        (void)snprintf(sql, sizeof sql, "DELETE FROM forms WHERE id = 'f%u'", form);
        break;
    case 10:
        (void)snprintf(sql, sizeof sql,
                       "INSERT OR REPLACE INTO pins VALUES ('p%u', 'r%u', NULL, %u, 's%u')", pin, n,
                       n, n % 8);
        break;
    default: /* two rows hand a UNIQUE value over */
        (void)snprintf(
            sql, sizeof sql,
            "UPDATE pins SET slug = 'x%u' WHERE id = 'p%u'; UPDATE pins SET slug = 's%u' WHERE id ="
            " 'p%u'",
            n, pin, n % 8, other);
        break;
    }
    (void)device_try(d, sql); /* a constraint may refuse it, as it would the application */
}

static void random_transaction(world *w, device *d) {
    unsigned count = 1 + (unsigned)below(w, 4);
    if (count > 1) {
        device_exec(d, "BEGIN");
    }
    for (unsigned i = 0; i < count; i++) {
        random_statement(w, d);
    }
    if (count > 1) {
        (void)device_try(d, below(w, 8) ? "COMMIT" : "ROLLBACK");
        if (!sqlite3_get_autocommit(d->db)) {
            device_exec(d, "ROLLBACK");
        }
    }
}

static void random_sync(world *w, device *d) {
    godwit_status status = godwit_sync(d->g, 0, NULL);
    if (status != GODWIT_OK && status != GODWIT_UNREACHABLE && status != GODWIT_PROTOCOL) {
        fail_msg("%s: %s: %s", d->path, godwit_status_name(status), godwit_message(d->g));
    }
    if (below(w, 6) == 0) {
        device_close(d);
        device_open(d);
        device_exec(d, "PRAGMA foreign_keys = ON");
    }
}

#define PINS_TEXT                                                                                  \
    "SELECT group_concat(quote(id) || quote(title) || quote(note) || quote(n) || quote(slug), ' "  \
    "') FROM"                                                                                      \
    " (SELECT * FROM pins ORDER BY id)"
#define FORMS_TEXT                                                                                 \
    "SELECT group_concat(quote(id) || quote(pin_id) || quote(body), ' ') FROM (SELECT * FROM "     \
    "forms ORDER"                                                                                  \
    " BY id)"

static void check_equal(world *w, const char *sql, uint64_t seed) {
    char path[300];
    device server = {.w = w};
    (void)snprintf(path, sizeof path, "%s/data/store.db", w->server.dir);
    assert_int_equal(sqlite3_open_v2(path, &server.db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    char want[4096];
    (void)snprintf(want, sizeof want, "%s", device_text(&server, sql));
    sqlite3_close(server.db);
    for (int i = 0; i < w->device_count; i++) {
        const char *got = device_text(&w->devices[i], sql);
        if (strcmp(got, want) != 0) {
            fail_msg("seed %llu, device %d:\n%s\nserver:\n%s", (unsigned long long)seed, i, got,
                     want);
        }
    }
}

static void check_once(world *w) {
    char path[300], sql[320];
    int64_t total = 0;
    device server = {.w = w};
    (void)snprintf(path, sizeof path, "%s/data/store.db", w->server.dir);
    assert_int_equal(sqlite3_open_v2(path, &server.db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    for (int i = 0; i < w->device_count; i++) {
        device *d = &w->devices[i];
        assert_int_equal(device_int(d, "SELECT count(*) FROM godwit_base"), 0);
        assert_int_equal(
            device_int(d, "SELECT count(*) FROM godwit_op WHERE state IN ('pending', 'acked')"), 0);
        assert_int_equal(device_int(d,
                                    "SELECT count(*) FROM godwit_op WHERE sequence_number > 0 AND"
                                    " commit_seq IS NULL"),
                         0);
        (void)snprintf(sql, sizeof sql,
                       "SELECT applied_seq FROM godwit_device WHERE device_id = '%s'",
                       device_text(d, "SELECT v FROM godwit_meta WHERE k = 'lineage'"));
        int64_t made = device_int(d, "SELECT coalesce(max(sequence_number), 0) FROM godwit_op");
        assert_int_equal(device_int(&server, sql), made);
        assert_int_equal(made, device_int(d, "SELECT count(DISTINCT sequence_number) FROM godwit_op"
                                             " WHERE sequence_number > 0"));
        total += made;
    }
    assert_int_equal(device_int(&server, "SELECT count(*) FROM godwit_op"), total);
    assert_int_equal(
        device_int(&server, "SELECT count(DISTINCT lineage || '/' || lsn) FROM godwit_op"), total);
    sqlite3_close(server.db);
}

/* The counters of godwit_metrics against a recount. */
static void check_counters(device *d, uint64_t seed) {
    char what[160] = "";
    int64_t wrong = -1;
    device_check(d, count_check(d->g, &wrong, what, sizeof what));
    if (wrong) {
        fail_msg("seed %llu: %s: %s", (unsigned long long)seed, d->path, what);
    }
}

static void run_seed(uint64_t seed) {
    world w;
    world_init(&w, WORLD_SCHEMA);
    w.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 0; i < DEVICES; i++) {
        device *d = world_field_device(&w);
        device_exec(d, "PRAGMA foreign_keys = ON");
    }
    w.faults = (faults){.lose_request = 7, .lose_answer = 5, .repeat_request = 4, .cut_answer = 9};
    for (int step = 0; step < STEPS; step++) {
        device *d = &w.devices[below(&w, DEVICES)];
        w.server.now_ms += 100 + (int64_t)below(&w, 5000);
        if (below(&w, 5) < 3) {
            random_transaction(&w, d);
        } else {
            random_sync(&w, d);
        }
        check_counters(d, seed);
    }
    w.faults = (faults){0};
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < DEVICES; i++) {
            (void)device_sync(&w.devices[i]);
        }
    }
    check_equal(&w, PINS_TEXT, seed);
    check_equal(&w, FORMS_TEXT, seed);
    check_once(&w);
    for (int i = 0; i < DEVICES; i++) {
        assert_string_equal(device_text(&w.devices[i], "PRAGMA foreign_key_check"), "(none)");
    }
    world_deinit(&w);
}

static void test_random(void **state) {
    (void)state;
    seeds_run(run_seed, 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
