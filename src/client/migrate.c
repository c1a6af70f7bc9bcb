/* godwit_migrate: the application's own schema migration, between "begin" and "end".
 *
 *   begin   copies each tracked table's synced columns (godwit_before_N), then drops the triggers
 *   end     renews spec and triggers for the tables as they are now, queues what differs from the
 * copy as ordinary captured changes (old values included), drops the copies
 *
 * The copy makes the comparison exact whatever the migration did to the columns; it costs the
 * tables' size for as long as the migration is open. What a new column holds beside NULL and its
 * default is queued when the device registers next: the server may know the column under the name
 * it had, and then nothing of it is new. In the middle, after a crash, "begin" again does nothing
 * and "end" finishes. */
#include <stdio.h>

#include "client/track.h"
#include "core/limits.h"

#define MASK_BITS 63

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

/* ---- end: differences ---- */

typedef struct {
    const client_table *t;       /* as it is now */
    int column[COLUMNS_MAX];     /* of the copy, for each data column now; -1 = new */
    slice fallback[COLUMNS_MAX]; /* a new column's default, as SQL; empty = NULL */
    bool alone;                  /* without the copy: new columns are compared with their default */
    bytes b;
} difference;

/* n = the table now, s = the copy */
static void old_value(difference *d, size_t i) {
    if (d->column[i] >= 0 && !d->alone) {
        bytes_printf(&d->b, "s.c%d", d->column[i]);
    } else {
        bytes_text(&d->b, "NULL");
    }
}

static void new_value(difference *d, size_t i) {
    bytes_text(&d->b, "n.");
    bytes_identifier(&d->b, data_of(d->t, i)->name);
}

static void differs(difference *d, size_t i) {
    if ((d->column[i] >= 0) == d->alone) {
        bytes_char(&d->b, '0');
        return;
    }
    bytes_char(&d->b, '(');
    new_value(d, i);
    if (d->column[i] >= 0) {
        bytes_text(&d->b, " IS NOT ");
        old_value(d, i);
        bytes_text(&d->b, " COLLATE BINARY OR typeof(");
        new_value(d, i);
        bytes_text(&d->b, ") <> typeof(");
        old_value(d, i);
        bytes_text(&d->b, "))");
        return;
    }
    bytes_text(&d->b, " IS NOT NULL");
    if (d->fallback[i].len) {
        bytes_text(&d->b, " AND ");
        new_value(d, i);
        bytes_text(&d->b, " IS NOT (");
        bytes_slice(&d->b, d->fallback[i]);
        bytes_text(&d->b, "\n) COLLATE BINARY");
    }
    bytes_char(&d->b, ')');
}

static void same_key(difference *d) {
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_text(&d->b, i ? " AND n." : "n.");
        bytes_identifier(&d->b, key_of(d->t, i)->name);
        bytes_printf(&d->b, " = s.k%zu AND n.", i);
        bytes_identifier(&d->b, key_of(d->t, i)->name);
        bytes_printf(&d->b, " IS s.k%zu COLLATE BINARY", i);
    }
}

static void from_now(difference *d) {
    bytes_text(&d->b, "main.");
    bytes_identifier(&d->b, d->t->shape.name);
    bytes_text(&d->b, " AS n");
}

static void from_copy(difference *d) {
    copy_name(&d->b, d->t);
    bytes_text(&d->b, " AS s");
}

static void log_head(difference *d, bool news, bool olds, bool mask) {
    bytes_clear(&d->b);
    bytes_text(&d->b, "INSERT INTO godwit_log(op, tbl, wall, nonce, ");
    capture_key_columns(&d->b, d->t);
    if (mask) {
        bytes_text(&d->b, ", mask");
        for (size_t word = 1; word * MASK_BITS < d->t->data_count; word++) {
            bytes_printf(&d->b, ", m%zu", word);
        }
    }
    if (news && d->t->data_count) {
        bytes_text(&d->b, ", ");
        capture_data_columns(&d->b, d->t, 'v');
    }
    if (olds && d->t->data_count) {
        bytes_text(&d->b, ", ");
        capture_data_columns(&d->b, d->t, 'o');
    }
    bytes_printf(&d->b, ") SELECT %d, %lld, julianday('now'), random(), ",
                 mask   ? 2
                 : news ? 1
                        : 3,
                 (long long)d->t->tbl);
}

static godwit_status log_deleted(godwit *g, difference *d) {
    log_head(d, false, true, false);
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_printf(&d->b, "%ss.k%zu", i ? ", " : "", i);
    }
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&d->b, ", ");
        old_value(d, i);
    }
    bytes_text(&d->b, " FROM ");
    from_copy(d);
    bytes_text(&d->b, " WHERE NOT EXISTS (SELECT 1 FROM ");
    from_now(d);
    bytes_text(&d->b, " WHERE ");
    same_key(d);
    bytes_char(&d->b, ')');
    return run_text(g, &d->b);
}

static godwit_status log_updated(godwit *g, difference *d) {
    if (!d->t->data_count) {
        return GODWIT_OK;
    }
    log_head(d, true, true, true);
    capture_key_values(&d->b, d->t, "n");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&d->b, i % MASK_BITS ? " | (" : ", (");
        differs(d, i);
        bytes_printf(&d->b, " << %zu)", i % MASK_BITS);
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < d->t->data_count; i++) {
            bool scope = side == 0 && d->t->data_columns[i] == d->t->shape.scope_column;
            bytes_text(&d->b, scope ? ", " : ", CASE WHEN ");
            if (!scope) {
                differs(d, i);
                bytes_text(&d->b, " THEN ");
            }
            if (side == 0) {
                new_value(d, i);
            } else {
                old_value(d, i);
            }
            bytes_text(&d->b, scope ? "" : " END");
        }
    }
    bytes_text(&d->b, " FROM ");
    from_now(d);
    if (!d->alone) {
        bytes_text(&d->b, " JOIN ");
        from_copy(d);
        bytes_text(&d->b, " ON ");
        same_key(d);
    }
    bytes_text(&d->b, " WHERE ");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&d->b, i ? " OR " : "");
        differs(d, i);
    }
    return run_text(g, &d->b);
}

static godwit_status log_created(godwit *g, difference *d) {
    bytes_clear(&d->b);
    bytes_printf(&d->b, "CREATE INDEX main.godwit_before_key ON godwit_before_%lld(",
                 (long long)d->t->tbl);
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_printf(&d->b, "%sk%zu", i ? ", " : "", i);
    }
    bytes_char(&d->b, ')');
    godwit_status status = run_text(g, &d->b);
    log_head(d, true, false, false);
    capture_key_values(&d->b, d->t, "n");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&d->b, ", ");
        new_value(d, i);
    }
    bytes_text(&d->b, " FROM ");
    from_now(d);
    bytes_text(&d->b, " WHERE NOT EXISTS (SELECT 1 FROM ");
    from_copy(d);
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_printf(&d->b, "%ss.k%zu IS n.", i ? " AND " : " WHERE ", i);
        bytes_identifier(&d->b, key_of(d->t, i)->name);
        bytes_text(&d->b, " COLLATE BINARY");
    }
    bytes_char(&d->b, ')');
    return status == GODWIT_OK ? run_text(g, &d->b) : status;
}

/* ---- end ---- */

static godwit_status read_fallbacks(godwit *g, arena *a, difference *d) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < d->t->data_count && status == GODWIT_OK; i++) {
        d->fallback[i] = (slice){0};
        if (d->column[i] < 0) {
            status = db_text(&g->db, a, &d->fallback[i],
                             "SELECT dflt_value FROM pragma_table_info(?1, 'main') WHERE name = ?2",
                             "ss", d->t->shape.name, data_of(d->t, i)->name);
        }
    }
    return status;
}

static bool is_named(const schema_column *column, slice name) {
    bool found = slice_equal(column->name, name);
    for (size_t i = 0; !found && i < column->former_count; i++) {
        found = slice_equal(column->former[i], name);
    }
    return found;
}

static godwit_status log_differences(godwit *g, arena *a, const schema_column *before,
                                     size_t before_count, const client_table *t) {
    difference *d = arena_alloc(a, sizeof *d);
    if (!d) {
        return GODWIT_NOMEM;
    }
    d->t = t;
    d->alone = false;
    for (size_t i = 0; i < t->data_count; i++) {
        d->column[i] = -1;
        for (size_t j = 0; j < before_count; j++) {
            if (is_named(&before[j], data_of(t, i)->name)) {
                d->column[i] = (int)j;
            }
        }
    }
    bytes_init(&d->b, g->allocator, 0);
    godwit_status status = log_deleted(g, d);
    if (status == GODWIT_OK) {
        status = log_updated(g, d);
    }
    if (status == GODWIT_OK) {
        status = log_created(g, d);
    }
    bytes_deinit(&d->b);
    return status;
}

/* ---- new columns ---- */

static void gained_key(const client_table *t, char out[TRACK_MISSED_BYTES]) {
    snprintf(out, TRACK_MISSED_BYTES, "gained:%lld", (long long)t->tbl);
}

static bool listed(const json *names, slice name) {
    const json *item = json_first(names);
    for (uint32_t i = 0; names && i < names->count; i++, item = json_after(item)) {
        slice text;
        if (json_text(item, &text) && slice_equal(text, name)) {
            return true;
        }
    }
    return false;
}

static godwit_status read_had(godwit *g, arena *a, const client_table *t, const json **out) {
    char key[TRACK_MISSED_BYTES];
    slice text = {0};
    *out = NULL;
    gained_key(t, key);
    godwit_status status = client_meta_text(g, a, key, &text);
    return status == GODWIT_OK && text.ptr ? json_parse(a, text, out, NULL) : status;
}

godwit_status migrate_new_columns(godwit *g, arena *a, const client_table *was,
                                  const client_table *now) {
    char key[TRACK_MISSED_BYTES];
    const json *had = NULL;
    bytes b;
    bool first = true, gains = false;
    for (size_t i = 0; i < now->data_count; i++) {
        gains = gains || shape_slot(was, data_of(now, i)->name) < 0;
    }
    godwit_status status = gains ? read_had(g, a, now, &had) : GODWIT_OK;
    if (status != GODWIT_OK || !gains) {
        return status;
    }
    bytes_init(&b, g->allocator, 0);
    bytes_char(&b, '[');
    const json *item = json_first(had);
    for (uint32_t i = 0; had && i < had->count; i++, item = json_after(item)) {
        slice name;
        if (json_text(item, &name)) {
            json_comma(&b, &first);
            json_write_text(&b, name);
        }
    }
    for (size_t i = 0; i < was->data_count; i++) {
        if (!had || !listed(had, data_of(was, i)->name)) {
            json_comma(&b, &first);
            json_write_text(&b, data_of(was, i)->name);
        }
    }
    bytes_char(&b, ']');
    gained_key(now, key);
    status = b.failed ? GODWIT_NOMEM : client_meta_set(g, key, bytes_view(&b));
    bytes_deinit(&b);
    return status;
}

/* A column the table had before under one of its names is no new one. */
static bool had_before(const json *had, const schema_column *column) {
    bool found = listed(had, column->name);
    for (size_t i = 0; !found && i < column->former_count; i++) {
        found = listed(had, column->former[i]);
    }
    return found;
}

static godwit_status queue_new(godwit *g, arena *a, const client_table *t, const json *had) {
    char key[TRACK_MISSED_BYTES];
    int64_t newest = 0;
    bool any = false;
    difference *d = arena_alloc(a, sizeof *d);
    if (!d) {
        return GODWIT_NOMEM;
    }
    d->t = t;
    d->alone = true;
    for (size_t i = 0; i < t->data_count; i++) {
        d->column[i] = had_before(had, data_of(t, i)) ? 0 : -1;
        any = any || d->column[i] < 0;
    }
    bytes_init(&d->b, g->allocator, 0);
    godwit_status status =
        db_int(&g->db, &newest, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    if (status == GODWIT_OK) {
        status = read_fallbacks(g, a, d);
    }
    if (status == GODWIT_OK && any) {
        status = log_updated(g, d);
    }
    if (status == GODWIT_OK) {
        status = drift_forget_unknown(g, t, newest);
    }
    bytes_deinit(&d->b);
    gained_key(t, key);
    return status == GODWIT_OK ? client_meta_set(g, key, (slice){0}) : status;
}

godwit_status migrate_new_values(godwit *g) {
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        arena_deinit(&a);
        return status;
    }
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i];
        const json *had = NULL;
        status = t->active && !t->queue ? read_had(g, &a, t, &had) : GODWIT_OK;
        if (status == GODWIT_OK && had) {
            status = queue_new(g, &a, t, had);
        }
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    arena_deinit(&a);
    return status;
}

/* ---- end, continued ---- */

static godwit_status drop_copy(godwit *g, int64_t tbl) {
    char sql[80];
    snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS main.godwit_before_%lld", (long long)tbl);
    return db_exec(&g->db, sql);
}

static godwit_status end_table(godwit *g, int64_t tbl) {
    char name[48];
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
    if (status == GODWIT_OK && found && copied) {
        status = log_differences(g, &a, before, count, client_table_by_number(g, tbl));
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
