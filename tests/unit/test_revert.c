/* I19: every kind of automatic decision can be taken back with one call, on a device that had no
 * part in it, and all replicas and ledgers follow. */
#include "sync_kit.h"

#define SERVER_SCHEMA                                                                              \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, n INTEGER, slug TEXT UNIQUE,"   \
    " CHECK (NOT (title = 'locked' AND n > 10)));" WORLD_FORMS

/* Pins, then forms. */
#define SHOWN                                                                                      \
    "SELECT ifnull((SELECT group_concat(id || ifnull(title, '') || ifnull(note, '') || ifnull(n,"  \
    " ''), ' ') FROM (SELECT * FROM pins ORDER BY id)), '-') || '/' || ifnull((SELECT"             \
    " group_concat(id || body, ' ') FROM (SELECT * FROM forms ORDER BY id)), '-')"

typedef struct {
    const char *name;
    const char *config;
    const char *start; /* what all have seen; NULL = one pin */
    const char *a, *b; /* a's change is there first, b's meets it */
    const char *merged;
    const char *kind, *table;
    const char *later; /* on a, before the revert; NULL = nothing */
    const char *reverted;
} scenario;

#define PIN  "INSERT INTO pins VALUES ('p', 'old', 'n', 1, NULL)"
#define FORM "INSERT INTO forms VALUES ('f', 'p', 'body')"

static const scenario scenarios[] = {
    {"lww, ours won", "", PIN, "UPDATE pins SET title = 'a'", "UPDATE pins SET title = 'b'",
     "pbn1/-", "field", "pins", NULL, "pan1/-"},
    {"lww, theirs won", "", PIN, "UPDATE pins SET title = 'a'", "-", "pan1/-", "field", "pins",
     NULL, "pbn1/-"},
    {"server_wins", "policy = server_wins", PIN, "UPDATE pins SET title = 'a'",
     "UPDATE pins SET title = 'b'", "pan1/-", "field", "pins", NULL, "pbn1/-"},
    {"client_wins", "policy = client_wins", PIN, "UPDATE pins SET title = 'a'",
     "UPDATE pins SET title = 'b'", "pbn1/-", "field", "pins", NULL, "pan1/-"},
    {"max", "policy.n = max", PIN, "UPDATE pins SET n = 9", "UPDATE pins SET n = 5", "poldn9/-",
     "field", "pins", NULL, "poldn5/-"},
    {"min", "policy.n = min", PIN, "UPDATE pins SET n = -9", "UPDATE pins SET n = -5", "poldn-9/-",
     "field", "pins", NULL, "poldn-5/-"},
    {"a group of columns", "groups = title+note", PIN, "UPDATE pins SET title = 'a', note = 'x'",
     "UPDATE pins SET title = 'b', note = 'y', n = 2", "pby2/-", "field", "pins", NULL, "pax2/-"},
    {"a row as a whole", "row_atomic = yes", PIN, "UPDATE pins SET title = 'a', n = 7",
     "UPDATE pins SET title = 'b', n = 8", "pbn8/-", "field", "pins", NULL, "pan7/-"},
    {"a delete met an edit, edit wins", "", PIN, "UPDATE pins SET title = 'a'", "DELETE FROM pins",
     "pan1/-", "update_delete", "pins", NULL, "-/-"},
    {"a delete met an edit, delete wins", "on_conflicting_delete = delete_wins", PIN,
     "UPDATE pins SET title = 'a'", "DELETE FROM pins", "-/-", "update_delete", "pins", NULL,
     "pan1/-"},
    {"an edit met a delete, edit wins", "", PIN, "DELETE FROM pins", "UPDATE pins SET title = 'b'",
     "pbn1/-", "delete_update", "pins", NULL, "-/-"},
    {"an edit met a delete, delete wins", "on_conflicting_delete = delete_wins", PIN,
     "DELETE FROM pins", "UPDATE pins SET title = 'b'", "-/-", "delete_update", "pins", NULL,
     "pbn1/-"},
    {"a new row met a deletion", "", PIN, "DELETE FROM pins",
     "DELETE FROM pins; INSERT INTO pins(id, title) VALUES ('p', 'new')", "pnew/-", "delete_create",
     "pins", NULL, "-/-"},
    {"two new rows of one id", "", PIN, "INSERT INTO pins(id, title) VALUES ('q', 'a')",
     "INSERT INTO pins(id, title) VALUES ('q', 'b')", "poldn1 qb/-", "create_create", "pins", NULL,
     "poldn1 qa/-"},
    {"a UNIQUE value taken", "", PIN, "INSERT INTO pins(id, slug) VALUES ('x', 's')",
     "INSERT INTO pins(id, title, slug) VALUES ('y', 'b', 's')", "poldn1 x/-", "unique", "pins",
     "UPDATE pins SET slug = 'free' WHERE id = 'x'", "poldn1 x yb/-"},
    {"a CHECK", "", "INSERT INTO pins VALUES ('p', 'locked', 'n', 1, NULL)", "SELECT 1",
     "UPDATE pins SET n = 20", "plockedn1/-", "check", "pins", "UPDATE pins SET title = 'open'",
     "popenn20/-"},
    {"a parent that is gone", "on_conflicting_delete = delete_wins", PIN, "DELETE FROM pins",
     "INSERT INTO forms VALUES ('g', 'p', 'x')", "-/-", "fk", "forms",
     "INSERT INTO pins(id, title) VALUES ('p', 'again')", "pagain/gx"},
    {"a parent brought back by its child", "", PIN, "DELETE FROM pins",
     "INSERT INTO forms VALUES ('g', 'p', 'x')", "poldn1/gx", "delete_update", "pins", NULL, "-/-"},
    {"a child that came back with its parent", "", PIN ";" FORM,
     "BEGIN; DELETE FROM forms; DELETE FROM pins; COMMIT", "UPDATE pins SET title = 'b'",
     "pbn1/fbody", "delete_update", "forms", NULL, "pbn1/-"},
};

static void sync_all(world *w) {
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < w->device_count; i++) {
            w->server.now_ms += 1000;
            (void)device_sync(&w->devices[i]);
        }
    }
}

static void everywhere(world *w, const scenario *s, const char *when, const char *wanted) {
    for (int i = 0; i < w->device_count; i++) {
        const char *got = device_text(&w->devices[i], SHOWN);
        if (strcmp(got, wanted) != 0) {
            fail_msg("%s, %s, device %d: %s, not %s", s->name, when, i, got, wanted);
        }
    }
    assert_string_equal(kit_sql(&w->server, SHOWN), wanted);
}

static void begin(world *w, const scenario *s) {
    char config[256];
    (void)snprintf(config, sizeof config, "[table pins]\n%s\n", s->config);
    memset(w, 0, sizeof *w);
    w->random = 88172645463325252u;
    kit_init(&w->server, SERVER_SCHEMA, config);
    for (int i = 0; i < 3; i++) {
        device_exec(world_field_device(w), "PRAGMA foreign_keys = ON");
    }
    device_exec(&w->devices[0], s->start);
    sync_all(w);
}

static void conflict(world *w, const scenario *s) {
    bool earlier = strcmp(s->b, "-") == 0; /* b edits first and arrives last */
    device *a = &w->devices[0], *b = &w->devices[1];
    if (earlier) {
        device_exec(b, "UPDATE pins SET title = 'b'; UPDATE godwit_log SET wall = 2459000");
    }
    device_exec(a, s->a);
    if (!earlier) {
        device_exec(b, s->b);
        device_exec(a, "UPDATE godwit_log SET wall = 2459000"); /* long before */
    }
    sync_all(w);
    everywhere(w, s, "merged", s->merged);
}

static void find_id(const scenario *s, device *d, char id[64]) {
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "SELECT conflict_id FROM godwit_conflicts WHERE kind = '%s' AND entity_type ="
                   " '%s' AND state = 'auto'",
                   s->kind, s->table);
    (void)snprintf(id, 64, "%s", device_text(d, sql));
    if (strcmp(id, "(none)") == 0) {
        fail_msg("%s: no entry of kind %s: %s", s->name, s->kind,
                 device_text(d, "SELECT group_concat(body) FROM godwit_conflicts"));
    }
}

static void every_kind_of_decision(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        const scenario *s = &scenarios[i];
        world w;
        char id[64], sql[160], operation[37];
        begin(&w, s);
        conflict(&w, s);
        if (s->later) {
            device_exec(&w.devices[0], s->later);
            sync_all(&w);
        }
        device *c = &w.devices[2];
        find_id(s, c, id);
        godwit_status status = godwit_revert(c->g, id, operation);
        if (status != GODWIT_OK) {
            fail_msg("%s: %s", s->name, godwit_message(c->g));
        }
        assert_string_equal(device_text(c, SHOWN), s->reverted);
        sync_all(&w);
        everywhere(&w, s, "reverted", s->reverted);
        (void)snprintf(sql, sizeof sql,
                       "SELECT state FROM godwit_conflicts WHERE conflict_id = '%s'", id);
        for (int d = 0; d < w.device_count; d++) {
            assert_string_equal(device_text(&w.devices[d], sql), "reverted");
        }
        assert_int_equal(godwit_revert(c->g, id, NULL), GODWIT_MISUSE);
        world_deinit(&w);
    }
}

/* What somebody has done since is not taken back with it, unless he says so. */
static void not_over_a_later_edit(void **state) {
    (void)state;
    const scenario *s = &scenarios[0];
    world w;
    char id[64];
    begin(&w, s);
    conflict(&w, s);
    device *a = &w.devices[0], *c = &w.devices[2];
    device_exec(a, "UPDATE pins SET title = 'later'");
    sync_all(&w);
    find_id(s, c, id);
    assert_int_equal(godwit_revert(c->g, id, NULL), GODWIT_MISUSE);
    assert_non_null(strstr(godwit_message(c->g), "has been changed since"));
    assert_int_equal(device_int(c, "SELECT count(*) FROM sync_queue WHERE status = 'pending'"), 0);
    device_check(c, godwit_resolve(c->g, id, "theirs", NULL));
    sync_all(&w);
    everywhere(&w, s, "resolved", "pan1/-");
    world_deinit(&w);
}

static void only_what_a_policy_decided(void **state) {
    (void)state;
    scenario s = scenarios[0];
    world w;
    char id[64];
    s.config = "policy = manual";
    s.merged = "pan1/-";
    begin(&w, &s);
    conflict(&w, &s);
    device *c = &w.devices[2];
    (void)snprintf(id, sizeof id, "%s", device_text(c, "SELECT conflict_id FROM godwit_conflicts"));
    assert_int_equal(godwit_revert(c->g, id, NULL), GODWIT_MISUSE);
    assert_int_equal(godwit_revert(c->g, "c-99-0", NULL), GODWIT_NOT_FOUND);
    assert_int_equal(godwit_revert(c->g, NULL, NULL), GODWIT_MISUSE);
    world_deinit(&w);
}

/* Held as a whole: each operation can be chosen by itself, a new row, too. */
static void a_held_group_is_chosen(void **state) {
    (void)state;
    scenario s = scenarios[0];
    world w;
    char id[64];
    s.config = "policy.title = hold_group";
    s.b = "BEGIN; UPDATE pins SET title = 'b'; INSERT INTO pins(id, title) VALUES ('q', 'q');"
          "COMMIT";
    s.merged = "pan1/-";
    begin(&w, &s);
    conflict(&w, &s);
    device *c = &w.devices[2];
    assert_int_equal(device_int(c, "SELECT count(*) FROM godwit_conflicts WHERE state = 'open'"),
                     2);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(id, sizeof id, "%s",
                       device_text(c, "SELECT conflict_id FROM godwit_conflicts WHERE state ="
                                      " 'open' ORDER BY conflict_id"));
        device_check(c, godwit_resolve(c->g, id, "mine", NULL));
        sync_all(&w);
    }
    everywhere(&w, &s, "chosen", "pbn1 qq/-");
    assert_int_equal(device_int(&w.devices[1], "SELECT count(*) FROM godwit_dead_letters"), 0);
    world_deinit(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_decision),
        cmocka_unit_test(not_over_a_later_edit),
        cmocka_unit_test(only_what_a_policy_decided),
        cmocka_unit_test(a_held_group_is_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
