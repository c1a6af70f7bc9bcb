/* Tracking: which tables are captured, and keeping that true as tables change.
 *
 * A table keeps its number, and a column its place in the masks, for as long as they exist. When
 * columns come or go, captured rows that are not sealed are rewritten to the new places in the same
 * transaction, so that the log always means what the registry says. */
#include <stdio.h>

#include "client/count.h"
#include "client/track.h"
#include "core/limits.h"

#define MASK_BITS 63

/* ---- Rewriting captured rows to a new order of columns ---- */

static bool same_slots(const client_table *a, const client_table *b) {
    bool same = a->data_count == b->data_count;
    for (size_t i = 0; same && i < a->data_count; i++) {
        same = slice_equal(a->shape.columns[a->data_columns[i]].name,
                           b->shape.columns[b->data_columns[i]].name);
    }
    return same;
}

static void mask_name(bytes *b, size_t word) {
    if (word) {
        bytes_printf(b, "m%zu", word);
    } else {
        bytes_text(b, "mask");
    }
}

static void remap_mask(bytes *b, const client_table *now, const int *from, size_t word) {
    mask_name(b, word);
    bytes_text(b, " = CASE WHEN mask IS NOT NULL THEN 0");
    for (size_t i = word * MASK_BITS; i < now->data_count && i < (word + 1) * MASK_BITS; i++) {
        if (from[i] >= 0) {
            bytes_text(b, " | (((");
            mask_name(b, (size_t)from[i] / MASK_BITS);
            bytes_printf(b, " >> %d) & 1) << %zu)", from[i] % MASK_BITS, i % MASK_BITS);
        }
    }
    bytes_text(b, " END");
}

/* An update of nothing but dropped columns is nothing; the newest row stays, for its number. */
static godwit_status drop_empty(godwit *g, const client_table *was, size_t words) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_text(&b, " FROM godwit_log WHERE tbl = ?1 AND op = 2 AND lsn > coalesce((SELECT CAST(v AS"
                   " INTEGER) FROM godwit_meta WHERE k = 'sealed_lsn'), 0) AND lsn < (SELECT"
                   " max(lsn) FROM godwit_log) AND mask = 0");
    for (size_t word = 1; word < words; word++) {
        bytes_printf(&b, " AND coalesce(m%zu, 0) = 0", word);
    }
    arena a;
    arena_init(&a, g->allocator, 0);
    char *note = arena_printf(&a, "INSERT OR REPLACE INTO godwit_gap(last, n) SELECT lsn, 1%s",
                              b.failed ? "" : b.ptr);
    char *drop = arena_printf(&a, "DELETE%s", b.failed ? "" : b.ptr);
    godwit_status status = b.failed || !note || !drop ? GODWIT_NOMEM : GODWIT_OK;
    if (status == GODWIT_OK) {
        status = db_run(&g->db, note, "i", was->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_run(&g->db, drop, "i", was->tbl);
    }
    arena_deinit(&a);
    bytes_deinit(&b);
    return status;
}

static godwit_status remap_log(godwit *g, const client_table *was, const client_table *now) {
    static const char letters[] = "vo";
    int from[COLUMNS_MAX];
    bytes b;
    size_t width = was->data_count > now->data_count ? was->data_count : now->data_count;
    size_t words = (width + MASK_BITS - 1) / MASK_BITS;
    for (size_t i = 0; i < now->data_count; i++) {
        from[i] = shape_slot(was, now->shape.columns[now->data_columns[i]].name);
    }
    bytes_init(&b, g->allocator, 0);
    bytes_text(&b, "UPDATE godwit_log SET tbl = tbl");
    for (const char *letter = letters; *letter; letter++) {
        for (size_t i = 0; i < width; i++) {
            if (i < now->data_count && from[i] >= 0) {
                bytes_printf(&b, ", %c%zu = %c%d", *letter, i, *letter, from[i]);
            } else {
                bytes_printf(&b, ", %c%zu = NULL", *letter, i);
            }
        }
    }
    for (size_t word = 0; word < words; word++) {
        bytes_text(&b, ", ");
        remap_mask(&b, now, from, word);
    }
    bytes_text(&b, " WHERE tbl = ?1 AND lsn > coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta"
                   " WHERE k = 'sealed_lsn'), 0)");
    godwit_status status = b.failed ? GODWIT_NOMEM : db_run(&g->db, b.ptr, "i", was->tbl);
    if (status == GODWIT_OK) {
        status = drop_empty(g, was, words);
    }
    bytes_deinit(&b);
    return status;
}

/* ---- Renewing ---- */

static godwit_status read_now(godwit *g, arena *a, const client_table *t, track_options *options,
                              client_table *now) {
    client_table before;
    slice slots[COLUMNS_MAX];
    godwit_status status = shape_from_spec(g, a, t->shape.name, t->spec, &before, options);
    if (status != GODWIT_OK) {
        return status;
    }
    for (size_t i = 0; i < t->data_count; i++) {
        slots[i] = t->shape.columns[t->data_columns[i]].name;
    }
    options->lenient = true; /* columns that were named and are gone are no mistake of this call */
    status = shape_read(g, a, t->shape.name, options, slots, t->data_count, now);
    now->tbl = t->tbl;
    return status;
}

static bool same_key(const client_table *a, const client_table *b) {
    bool same = a->shape.key_count == b->shape.key_count;
    for (size_t i = 0; same && i < a->shape.key_count; i++) {
        same = slice_equal(a->shape.columns[a->shape.key[i]].name,
                           b->shape.columns[b->shape.key[i]].name) &&
               a->shape.key_kinds[i] == b->shape.key_kinds[i];
    }
    return same;
}

godwit_status track_fits(godwit *g, const client_table *t, bool *fits) {
    track_options options;
    client_table now;
    arena a;
    *fits = true;
    arena_init(&a, g->allocator, 0);
    godwit_status status = read_now(g, &a, t, &options, &now);
    if (status == GODWIT_OK && same_key(t, &now)) {
        slice spec = shape_spec(&a, &now, &options);
        status = spec.ptr ? capture_intact(g, &now, fits) : GODWIT_NOMEM;
        *fits = *fits && slice_equal(spec, t->spec);
        char key[TRACK_MISSED_BYTES];
        int64_t missed = 0;
        track_missed_key(t, key);
        if (status == GODWIT_OK) {
            status = client_meta_int(g, key, 0, &missed);
        }
        *fits = *fits && !missed;
    } else if (status == GODWIT_OK || godwit_status_class(status) == GODWIT_CLASS_REJECT) {
        /* gone, or no longer trackable: doctor names it, and there is nothing to put back */
        client_log(g, GODWIT_LOG_WARN, "table=%d status=%s", (int)t->tbl,
                   godwit_status_name(status == GODWIT_OK ? GODWIT_UNSUPPORTED : status));
        g->message[0] = '\0';
        status = GODWIT_OK;
    }
    arena_deinit(&a);
    return status;
}

/* Operations already captured go out with the columns they were captured with, if it is known for
 * which scope: a column they do not have is not NULL in them. */
godwit_status track_seal_first(godwit *g) {
    bool more = true;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && more) {
        status = seal_run(g, 10000, &more);
    }
    if (status == GODWIT_NOT_FOUND || status == GODWIT_MISUSE) { /* not known */
        g->message[0] = '\0';
        status = GODWIT_OK;
    }
    return status;
}

void track_missed_key(const client_table *t, char out[TRACK_MISSED_BYTES]) {
    snprintf(out, TRACK_MISSED_BYTES, "missed:%lld", (long long)t->tbl);
}

/* Dropped and made again outside a migration, or while it was not tracked: no trigger is left and
 * no row. Deletes that the application meant would have been captured one by one. */
static godwit_status remade(godwit *g, const client_table *t, bool *out) {
    int64_t gone = 0, rows = 1;
    bytes b;
    char copy[48];
    snprintf(copy, sizeof copy, "godwit_before_%lld", (long long)t->tbl);
    godwit_status status =
        db_int(&g->db, &gone,
               "SELECT NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?2 OR (type ="
               " 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND name GLOB 'godwit_*')) AND EXISTS"
               " (SELECT 1 FROM godwit_row WHERE tbl = ?3)",
               "ssi", t->shape.name, slice_of(copy), t->tbl);
    if (status == GODWIT_OK && gone) {
        bytes_init(&b, g->allocator, 0);
        bytes_text(&b, "SELECT EXISTS (SELECT 1 FROM main.");
        bytes_identifier(&b, t->shape.name);
        bytes_char(&b, ')');
        status = b.failed ? GODWIT_NOMEM : db_int(&g->db, &rows, b.ptr, "");
        bytes_deinit(&b);
    }
    *out = !rows;
    return status;
}

static godwit_status fetch_anew(godwit *g, const client_table *t) {
    char key[TRACK_MISSED_BYTES];
    int64_t missed = 0;
    bool empty = false;
    track_missed_key(t, key);
    godwit_status status = client_meta_int(g, key, 0, &missed);
    if (status == GODWIT_OK) {
        status = remade(g, t, &empty);
    }
    if (status != GODWIT_OK || (!missed && !empty)) {
        return status;
    }
    if (empty) {
        status = db_run(&g->db, "DELETE FROM godwit_row WHERE tbl = ?1", "i", t->tbl);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, key, (slice){0});
    }
    return status == GODWIT_OK
               ? db_exec(&g->db, "UPDATE godwit_cursor SET state = 'bootstrap', boot_token = NULL"
                                 " WHERE state IN ('live', 'staging')")
               : status;
}

godwit_status track_forget_gone(godwit *g, slice name, int64_t tbl) {
    char key[TRACK_MISSED_BYTES];
    client_table t = {.tbl = tbl};
    godwit_status status =
        db_run(&g->db,
               "DELETE FROM godwit_row WHERE tbl = ?1 AND NOT EXISTS (SELECT 1 FROM"
               " main.sqlite_schema WHERE type = 'table' AND name = ?2 COLLATE NOCASE)",
               "is", tbl, name);
    if (status != GODWIT_OK || sqlite3_changes64(g->db.handle) == 0) {
        return status;
    }
    track_missed_key(&t, key);
    return client_meta_set_int(g, key, 1);
}

/* Writes the new spec and triggers. `was` is NULL for a table tracked for the first time. */
static godwit_status install(godwit *g, arena *a, const client_table *was, client_table *now,
                             const track_options *options) {
    slice spec = shape_spec(a, now, options);
    godwit_status status = spec.ptr ? capture_widen(g, now) : GODWIT_NOMEM;
    if (status == GODWIT_OK && was) {
        status = fetch_anew(g, was);
    }
    if (status == GODWIT_OK && was && !same_slots(was, now)) {
        status = track_seal_first(g);
        if (status == GODWIT_OK) {
            status = remap_log(g, was, now);
        }
        if (status == GODWIT_OK) {
            status = drift_redigest(g, now, was);
        }
        if (status == GODWIT_OK && !options->ignore) {
            status = gained_note(g, a, was, now);
        }
    }
    if (status == GODWIT_OK) {
        status =
            db_run(&g->db,
                   "INSERT INTO godwit_table(tbl, name, spec, active) VALUES (?1, ?2, ?3, 1) ON"
                   " CONFLICT(tbl) DO UPDATE SET spec = ?3, active = 1",
                   "iss", now->tbl, now->shape.name, spec);
    }
    if (status == GODWIT_OK) {
        status = capture_triggers_drop(g, now->shape.name);
    }
    if (status == GODWIT_OK) {
        status = capture_triggers_create(g, now);
    }
    return status;
}

godwit_status track_renew(godwit *g, const client_table *t, bool *found) {
    track_options options;
    client_table now;
    arena a;
    *found = false;
    arena_init(&a, g->allocator, 0);
    godwit_status status = read_now(g, &a, t, &options, &now);
    if (status == GODWIT_OK && !same_key(t, &now)) {
        status = client_fail(g, GODWIT_UNSUPPORTED,
                             "the primary key of table \"" SLICE_FMT "\" has changed",
                             SLICE_ARG(t->shape.name));
    }
    if (status == GODWIT_OK) {
        *found = true;
        status = install(g, &a, t, &now, &options);
    } else if (godwit_status_class(status) == GODWIT_CLASS_REJECT) {
        client_log(g, GODWIT_LOG_WARN, "table=%d not renewed: %s", (int)t->tbl, g->message);
        g->message[0] = '\0';
        status = GODWIT_OK;
    }
    if (status == GODWIT_OK && *found) {
        status = registry_changed(g);
    }
    arena_deinit(&a);
    return status;
}

/* ---- Renamed tables ---- */

/* SQLite moves triggers along with a table; during a migration, when there are none, it is the root
 * page noted at its begin that tells. */
static godwit_status new_name(godwit *g, arena *a, const client_table *t, slice *out) {
    godwit_status status = db_text(
        &g->db, a, out,
        "SELECT coalesce((SELECT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' AND name ="
        " 'godwit_' || ?1 || '_i'), (SELECT s.name FROM main.sqlite_schema AS s JOIN godwit_meta "
        "AS m"
        " ON m.k = 'root:' || ?2 AND s.rootpage = CAST(m.v AS INTEGER) WHERE s.type = 'table'))"
        " WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1"
        " COLLATE NOCASE)",
        "si", t->shape.name, t->tbl);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status follow(godwit *g, const client_table *t, slice name) {
    client_log(g, GODWIT_LOG_INFO, "table=%d renamed", (int)t->tbl);
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = track_seal_first(g);
    if (status == GODWIT_OK) {
        status = capture_triggers_drop(g, t->shape.name);
    }
    if (status == GODWIT_OK) {
        status =
            db_run(&g->db, "UPDATE godwit_table SET name = ?2 WHERE tbl = ?1", "is", t->tbl, name);
    }
    if (status == GODWIT_OK) {
        status = registry_changed(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    return status;
}

godwit_status track_follow(godwit *g) {
    godwit_status status = GODWIT_OK;
    arena a;
    arena_init(&a, g->allocator, 0);
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i];
        slice name = {0};
        if (t->active && !t->queue) {
            status = new_name(g, &a, t, &name);
        }
        if (status == GODWIT_OK && name.len && !registry_by_name(g, name)) {
            status = follow(g, t, name); /* loads the registry anew, in the same order */
        }
    }
    arena_deinit(&a);
    return status;
}

/* ---- godwit_track ---- */

/* Operations captured under another key can't be told apart from those of the new one. */
static godwit_status retire_old_key(godwit *g, const client_table *t) {
    char name[32];
    int64_t open = 0;
    godwit_status status = track_seal_first(g);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &open,
                        "SELECT (SELECT count(*) FROM godwit_log WHERE tbl = ?1 AND lsn >"
                        " coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
                        " 'sealed_lsn'), 0)) + (SELECT count(*) FROM godwit_op WHERE tbl = ?1 AND"
                        " state IN ('pending', 'acked', 'parked') AND state <> 'retired')",
                        "i", t->tbl);
    }
    if (status == GODWIT_OK && open) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "the primary key of table \"" SLICE_FMT
                           "\" has changed and %d operations"
                           " with the old one wait: sync first",
                           SLICE_ARG(t->shape.name), (int)open);
    }
    snprintf(name, sizeof name, "(%d)", (int)t->tbl); /* no longer found by its name */
    if (status == GODWIT_OK) {
        status = db_run(&g->db, "UPDATE godwit_table SET name = ?2, active = 0 WHERE tbl = ?1",
                        "is", t->tbl, slice_of(name));
    }
    if (status == GODWIT_OK) {
        status = db_run(&g->db, "DELETE FROM godwit_initial WHERE tbl = ?1", "i", t->tbl);
    }
    return status;
}

static godwit_status entity_free(godwit *g, const client_table *now) {
    for (size_t i = 0; i < g->registry.count; i++) {
        const client_table *t = &g->registry.tables[i];
        if (t->active && t->tbl != now->tbl && slice_equal(t->shape.entity, now->shape.entity)) {
            return client_fail(g, GODWIT_EXISTS,
                               "the entity name \"" SLICE_FMT
                               "\" is taken by another table or queue",
                               SLICE_ARG(now->shape.entity));
        }
    }
    return GODWIT_OK;
}

/* A trigger of the application that writes to tracked tables fires again while changes of others
 * are applied. */
static void warn_of_triggers(godwit *g, slice table) {
    int64_t count = 0;
    if (db_int(&g->db, &count,
               "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1"
               " COLLATE NOCASE AND name NOT GLOB 'godwit_*' AND sql NOT LIKE '%godwit_applying%'",
               "s", table) == GODWIT_OK &&
        count > 0) {
        client_log(
            g, GODWIT_LOG_WARN,
            "the table has %d triggers of its own: where one writes to tracked tables, guard it"
            " with WHEN NOT (SELECT applying FROM godwit_applying)",
            (int)count);
    }
}

static godwit_status take_number(godwit *g, client_table *now) {
    return db_int(&g->db, &now->tbl, "SELECT coalesce(max(tbl), 0) + 1 FROM godwit_table", "");
}

static godwit_status track(godwit *g, arena *a, slice name, const char *options_json) {
    track_options options;
    client_table now;
    slice slots[COLUMNS_MAX];
    size_t slot_count = 0;
    const client_table *was = registry_by_name(g, name);
    godwit_status status = shape_options(g, a, options_json, &options);
    if (status == GODWIT_OK && was) {
        for (; slot_count < was->data_count; slot_count++) {
            slots[slot_count] = was->shape.columns[was->data_columns[slot_count]].name;
        }
        if (!options_json) {
            client_table ignored;
            slice spec = arena_copy(a, was->spec); /* the registry may be loaded anew below */
            status =
                spec.ptr ? shape_from_spec(g, a, name, spec, &ignored, &options) : GODWIT_NOMEM;
        }
    }
    if (status == GODWIT_OK) {
        status = shape_read(g, a, name, &options, slots, slot_count, &now);
    }
    if (status == GODWIT_OK && was && !same_key(was, &now)) {
        status = retire_old_key(g, was);
        if (status == GODWIT_OK) {
            status = registry_changed(g);
        }
        was = NULL;
        if (status == GODWIT_OK) {
            status = shape_read(g, a, name, &options, NULL, 0, &now);
        }
    }
    if (status == GODWIT_OK) {
        now.tbl = was ? was->tbl : 0;
        status = was ? GODWIT_OK : take_number(g, &now);
    }
    if (status == GODWIT_OK) {
        status = entity_free(g, &now);
    }
    bool fresh = !was;
    bool again = was && !was->active;
    if (status == GODWIT_OK) {
        status = install(g, a, was, &now, &options);
    }
    if (status == GODWIT_OK) {
        status = registry_changed(g); /* `was` is gone from here on */
    }
    if (status == GODWIT_OK && fresh && !options.ignore) {
        status = initial_start(g, client_table_by_number(g, now.tbl));
    }
    if (status == GODWIT_OK && again) {
        drift_counts counts;
        status = drift_scan(g, client_table_by_number(g, now.tbl), true, &counts);
    }
    if (status == GODWIT_OK) {
        warn_of_triggers(g, now.shape.name);
    }
    return status;
}

static godwit_status migration_closed(godwit *g) {
    int64_t migrating = 0;
    godwit_status status = client_meta_int(g, "migrating", 0, &migrating);
    if (status == GODWIT_OK && migrating) {
        status = client_fail(g, GODWIT_MISUSE, "a migration is open: call godwit_migrate(\"end\")");
    }
    return status;
}

godwit_status godwit_track(godwit *g, const char *table, const char *options_json) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (!table || !*table) {
        return client_leave(g, client_fail(g, GODWIT_INVALID, "no table named"));
    }
    arena a;
    arena_init(&a, g->allocator, 0);
    status = db_begin(&g->db);
    if (status == GODWIT_OK) {
        status = migration_closed(g);
        if (status == GODWIT_OK) {
            status = track(g, &a, slice_of(table), options_json);
        }
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
            g->registry.loaded = false; /* what was read inside is undone */
        }
    }
    arena_deinit(&a);
    if (status == GODWIT_OK) {
        status = initial_finish(g);
    }
    return client_leave(g, status);
}

godwit_status godwit_untrack(godwit *g, const char *table) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    const client_table *t = registry_by_name(g, slice_of(table));
    if (!t || !t->active) {
        return client_leave(
            g, client_fail(g, GODWIT_NOT_FOUND, "not tracked: %.128s", table ? table : ""));
    }
    int64_t tbl = t->tbl;
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return client_leave(g, status);
    }
    status = capture_triggers_drop(g, t->shape.name);
    if (status == GODWIT_OK) {
        status = track_forget_gone(g, t->shape.name, tbl);
    }
    if (status == GODWIT_OK) {
        status = db_run(&g->db, "UPDATE godwit_table SET active = 0 WHERE tbl = ?1", "i", tbl);
    }
    if (status == GODWIT_OK) {
        status = db_run(&g->db, "DELETE FROM godwit_initial WHERE tbl = ?1", "i", tbl);
    }
    if (status == GODWIT_OK) {
        status = registry_changed(g);
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
