/* godwit_migrate: the application's own schema migration, between "begin" and "end".
 *
 *   begin   copies each tracked table's synced columns (godwit_before_N), then drops the triggers
 *   end     renews spec and triggers for the tables as they are now, queues what differs from the
 * copy as ordinary captured changes (old values included), drops the copies
 *
 * The copy makes the comparison exact whatever the migration did to the columns; it costs the
 * tables' size for as long as the migration is open. What a column holds that the table did not
 * have is queued when the device registers next (gained.c). In the middle, after a crash, "begin"
 * again does nothing and "end" finishes. */
#include <stdio.h>

#include "client/difference.h"

#define COPY_BYTES 48 /* of a copy's name */

static const schema_column *key_of(const client_table *t, size_t i) {
    return &t->shape.columns[t->shape.key[i]];
}

static const schema_column *data_of(const client_table *t, size_t i) {
    return &t->shape.columns[t->data_columns[i]];
}

static godwit_status run_text(godwit *g, bytes *b) {
    return b->failed ? GODWIT_NOMEM : db_exec(&g->db, b->ptr);
}

static void copy_name(bytes *b, const client_table *t) {
    bytes_printf(b, "main.godwit_before_%lld", (long long)t->tbl);
}

/* ---- begin ---- */

static godwit_status copy_table(godwit *g, const client_table *t) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_text(&b, "DROP TABLE IF EXISTS ");
    copy_name(&b, t);
    bytes_text(&b, "; CREATE TABLE ");
    copy_name(&b, t);
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_printf(&b, "%sk%zu", i ? ", " : "(", i);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(&b, ", c%zu", i);
    }
    bytes_text(&b, "); INSERT INTO ");
    copy_name(&b, t);
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(&b, i ? ", " : " SELECT ");
        bytes_identifier(&b, key_of(t, i)->name);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(&b, ", ");
        bytes_identifier(&b, data_of(t, i)->name);
    }
    bytes_text(&b, " FROM main.");
    bytes_identifier(&b, t->shape.name);
    godwit_status status = run_text(g, &b);
    bytes_deinit(&b);
    return status;
}

/* A table that does not have the columns the registry knows can't be copied: it was changed outside
 * a migration and is left as it is. */
static godwit_status begin_table(godwit *g, const client_table *t) {
    int64_t exists = 0;
    godwit_status status =
        db_int(&g->db, &exists,
               "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND name = ?1", "s",
               t->shape.name);
    if (status == GODWIT_OK && exists) { /* should the migration rename it */
        status =
            db_run(&g->db,
                   "INSERT OR REPLACE INTO godwit_meta(k, v) SELECT 'root:' || ?2, rootpage FROM"
                   " main.sqlite_schema WHERE type = 'table' AND name = ?1",
                   "si", t->shape.name, t->tbl);
    }
    if (status == GODWIT_OK && exists) {
        status = copy_table(g, t);
        if (status == GODWIT_OK) {
            status = capture_triggers_drop(g, t->shape.name);
        }
    }
    return status;
}

static godwit_status migrate_begin(godwit *g) {
    godwit_status status = track_seal_first(g);
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i];
        if (t->active && !t->queue) {
            status = begin_table(g, t);
        }
    }
    return status == GODWIT_OK ? client_meta_set_int(g, "migrating", 1) : status;
}

/* ---- end ---- */

static godwit_status index_copy(godwit *g, const client_table *t) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_printf(&b, "CREATE INDEX main.godwit_before_key ON godwit_before_%lld(",
                 (long long)t->tbl);
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_printf(&b, "%sk%zu", i ? ", " : "", i);
    }
    bytes_char(&b, ')');
    godwit_status status = run_text(g, &b);
    bytes_deinit(&b);
    return status;
}

static godwit_status log_differences(godwit *g, arena *a, const schema_column *before,
                                     size_t before_count, const client_table *t, slice copy) {
    difference *d = arena_alloc(a, sizeof *d);
    if (!d) {
        return GODWIT_NOMEM;
    }
    d->t = t;
    d->copy = copy;
    d->from = difference_from(a, t, copy);
    for (size_t i = 0; i < t->data_count; i++) {
        for (size_t k = 0; k < before_count; k++) {
            if (gained_named(&before[k], data_of(t, i)->name)) {
                const char *old = arena_printf(a, "s.c%zu", k);
                d->was[i] = slice_of(old ? old : "");
                d->changed[i] =
                    difference_test(a, difference_column(a, data_of(t, i)), d->was[i], true);
            }
        }
    }
    godwit_status status = a->failed ? GODWIT_NOMEM : difference_deleted(g, d);
    if (status == GODWIT_OK) {
        status = index_copy(g, t);
    }
    if (status == GODWIT_OK) {
        status = difference_updated(g, d);
    }
    return status == GODWIT_OK ? difference_created(g, d) : status;
}

static godwit_status drop_copy(godwit *g, int64_t tbl) {
    char sql[80];
    snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS main.godwit_before_%lld", (long long)tbl);
    return db_exec(&g->db, sql);
}

static godwit_status end_table(godwit *g, int64_t tbl) {
    char name[COPY_BYTES];
    bool found = false;
    int64_t copied = 0;
    arena a;
    arena_init(&a, g->allocator, 0);
    const client_table *was = client_table_by_number(g, tbl);
    size_t count = was->data_count;
    schema_column *before = ARENA_ARRAY(&a, schema_column, count + 1);
    for (size_t i = 0; before && i < count; i++) { /* the registry is loaded anew below */
        slice *former = ARENA_ARRAY(&a, slice, data_of(was, i)->former_count + 1);
        before[i].name = arena_copy(&a, data_of(was, i)->name);
        for (size_t k = 0; former && k < data_of(was, i)->former_count; k++) {
            former[k] = arena_copy(&a, data_of(was, i)->former[k]);
        }
        before[i].former = former;
        before[i].former_count = data_of(was, i)->former_count;
    }
    godwit_status status = before && !a.failed ? GODWIT_OK : GODWIT_NOMEM;
    snprintf(name, sizeof name, "godwit_before_%lld", (long long)tbl);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &copied, "SELECT count(*) FROM main.sqlite_schema WHERE name = ?1",
                        "s", slice_of(name));
    }
    if (status == GODWIT_OK) {
        status = track_renew(g, was, &found);
    }
    char copy[COPY_BYTES + 8];
    snprintf(copy, sizeof copy, "main.%s", name);
    const client_table *now = client_table_by_number(g, tbl);
    if (status == GODWIT_OK && !found) {
        status = track_forget_gone(g, now->shape.name, tbl);
    }
    if (status == GODWIT_OK && found && copied) {
        status = log_differences(g, &a, before, count, now, slice_of(copy));
    }
    if (status == GODWIT_OK && found && copied) {
        status = gained_keep(g, &a, before, count, now, slice_of(copy));
    }
    if (status == GODWIT_OK) {
        status = drop_copy(g, tbl);
    }
    arena_deinit(&a);
    return status;
}

static godwit_status migrate_end(godwit *g) {
    int64_t last = 0;
    godwit_status status = client_meta_set(g, "migrating", (slice){0});
    if (status == GODWIT_OK) {
        status = track_follow(g);
    }
    if (status == GODWIT_OK) {
        status = db_exec(&g->db, "DELETE FROM godwit_meta WHERE k >= 'root:' AND k < 'root;'");
    }
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        int64_t tbl = g->registry.tables[i].tbl; /* in order; renewing loads them anew */
        if (tbl > last && g->registry.tables[i].active && !g->registry.tables[i].queue) {
            status = end_table(g, tbl);
        }
        last = tbl > last ? tbl : last;
    }
    if (status == GODWIT_OK) {
        status = registry_version_taken(g);
    }
    return status == GODWIT_OK ? registry_changed(g) : status;
}

godwit_status godwit_migrate(godwit *g, const char *step) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    bool begin = step && strcmp(step, "begin") == 0;
    if (!begin && !(step && strcmp(step, "end") == 0)) {
        return client_leave(g, client_fail(g, GODWIT_INVALID, "the step is \"begin\" or \"end\""));
    }
    int64_t migrating = 0;
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return client_leave(g, status);
    }
    status = client_meta_int(g, "migrating", 0, &migrating);
    if (status == GODWIT_OK && begin && !migrating) {
        status = migrate_begin(g);
    } else if (status == GODWIT_OK && !begin) {
        status = migrate_end(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    return client_leave(g, status);
}
