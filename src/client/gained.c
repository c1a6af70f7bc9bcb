/* Columns that a table has gained since the device registered last. Only the server can say whether
 * such a column is new or one it knows by another name, so what they hold is queued when it has
 * answered:
 *
 *   meta "gained:N"      [names]: the data columns the table had when the server was told last; a
 * name in a list of its own: that column went, and the one of this name now is another
 *   godwit_gained_N_K    what the Kth migration since did to columns that may have been renamed in
 * it: "o_title" (a column that went, before it) and "n_name" (one that came, after it) of the rows
 * where any two of them differ
 *
 * A new column: what differs from its default. A renamed one: the values that the migration
 * changed. */
#include <stdio.h>

#include "client/difference.h"

#define NAME_BYTES 64

static const schema_column *data_of(const client_table *t, size_t i) {
    return &t->shape.columns[t->data_columns[i]];
}

static void gained_key(const client_table *t, char out[TRACK_MISSED_BYTES]) {
    snprintf(out, TRACK_MISSED_BYTES, "gained:%lld", (long long)t->tbl);
}

/* once: a column that has gone since counts, too. */
static bool listed(const json *names, slice name, bool once) {
    const json *item = json_first(names);
    for (uint32_t i = 0; names && i < names->count; i++, item = json_after(item)) {
        slice text;
        const json *gone = once && json_is(item, JSON_ARRAY) ? json_first(item) : NULL;
        if (json_text(gone ? gone : item, &text) && slice_equal(text, name)) {
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

bool gained_named(const schema_column *column, slice name) {
    bool found = slice_equal(column->name, name);
    for (size_t i = 0; !found && i < column->former_count; i++) {
        found = slice_equal(column->former[i], name);
    }
    return found;
}

static godwit_status keep_had(godwit *g, const client_table *t, const bytes *b) {
    char key[TRACK_MISSED_BYTES];
    gained_key(t, key);
    return b->failed ? GODWIT_NOMEM : client_meta_set(g, key, bytes_view(b));
}

static godwit_status note_had(godwit *g, const client_table *was) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    for (size_t i = 0; i < was->data_count; i++) {
        bytes_char(&b, i ? ',' : '[');
        json_write_text(&b, data_of(was, i)->name);
    }
    bytes_text(&b, was->data_count ? "]" : "[]");
    godwit_status status = keep_had(g, was, &b);
    bytes_deinit(&b);
    return status;
}

/* Columns that went after the server was told, and come again: what they hold is new to it. */
static godwit_status note_again(godwit *g, const json *had, const client_table *was,
                                const client_table *now) {
    const json *item = json_first(had);
    bool any = false;
    bytes b;
    bytes_init(&b, g->allocator, 0);
    for (uint32_t i = 0; i < had->count; i++, item = json_after(item)) {
        slice name = {0};
        bool there = json_text(item, &name);
        bool comes = there && shape_slot(was, name) < 0 && shape_slot(now, name) >= 0;
        bool gone = !there && json_text(json_first(item), &name);
        bytes_char(&b, i ? ',' : '[');
        bytes_text(&b, comes || gone ? "[" : "");
        json_write_text(&b, name);
        bytes_text(&b, comes || gone ? "]" : "");
        any = any || comes;
    }
    bytes_text(&b, "]");
    godwit_status status = any ? keep_had(g, now, &b) : GODWIT_OK;
    bytes_deinit(&b);
    return status;
}

godwit_status gained_note(godwit *g, arena *a, const client_table *was, const client_table *now) {
    const json *had = NULL;
    bool gains = false;
    for (size_t i = 0; i < now->data_count; i++) {
        gains = gains || shape_slot(was, data_of(now, i)->name) < 0;
    }
    godwit_status status = gains ? read_had(g, a, now, &had) : GODWIT_OK;
    if (status != GODWIT_OK || !gains) {
        return status;
    }
    return had ? note_again(g, had, was, now) : note_had(g, was);
}

/* ---- A migration ends ---- */

/* "table"."letter_name" */
static slice kept_column(arena *a, const char *from, char letter, slice name) {
    bytes b, text;
    bytes_init(&b, a->allocator, 0);
    bytes_init(&text, a->allocator, 0);
    bytes_printf(&text, "%c_" SLICE_FMT, letter, SLICE_ARG(name));
    bytes_text(&b, from);
    bytes_identifier(&b, bytes_view(&text));
    slice out = b.failed || text.failed ? (slice){0} : arena_copy(a, bytes_view(&b));
    a->failed = a->failed || b.failed || text.failed;
    bytes_deinit(&text);
    bytes_deinit(&b);
    return out;
}

typedef struct {
    size_t gone[COLUMNS_MAX],
        came[COLUMNS_MAX]; /* indexes in `before`, in the table's data columns */
    size_t gone_count, came_count;
} exchange;

static void find_exchange(const schema_column *before, size_t count, const client_table *t,
                          exchange *out) {
    bool stays[COLUMNS_MAX] = {false};
    for (size_t i = 0; i < t->data_count; i++) {
        bool known = false;
        for (size_t k = 0; k < count; k++) {
            bool same = gained_named(&before[k], data_of(t, i)->name);
            stays[k] = stays[k] || same;
            known = known || same;
        }
        if (!known) {
            out->came[out->came_count++] = i;
        }
    }
    for (size_t k = 0; k < count; k++) {
        if (!stays[k]) {
            out->gone[out->gone_count++] = k;
        }
    }
}

static void key_list(bytes *b, const client_table *t, const char *from) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_printf(b, "%s%sk%zu", i ? ", " : "", from, i);
    }
}

static godwit_status keep_rows(godwit *g, arena *a, const exchange *e, const schema_column *before,
                               const client_table *t, slice copy, slice name) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_printf(&b, "CREATE TABLE " SLICE_FMT "(", SLICE_ARG(name));
    key_list(&b, t, "");
    for (size_t k = 0; k < e->gone_count; k++) {
        bytes_slice(&b, kept_column(a, ", ", 'o', before[e->gone[k]].name));
    }
    for (size_t i = 0; i < e->came_count; i++) {
        bytes_slice(&b, kept_column(a, ", ", 'n', data_of(t, e->came[i])->name));
    }
    bytes_printf(&b, "); INSERT INTO " SLICE_FMT " SELECT ", SLICE_ARG(name));
    key_list(&b, t, "s.");
    for (size_t k = 0; k < e->gone_count; k++) {
        bytes_printf(&b, ", s.c%zu", e->gone[k]);
    }
    for (size_t i = 0; i < e->came_count; i++) {
        bytes_text(&b, ", ");
        bytes_slice(&b, difference_column(a, data_of(t, e->came[i])));
    }
    bytes_text(&b, " FROM ");
    bytes_slice(&b, difference_from(a, t, copy));
    for (size_t i = 0; i < e->came_count; i++) {
        slice now = difference_column(a, data_of(t, e->came[i]));
        for (size_t k = 0; k < e->gone_count; k++) {
            const char *old = arena_printf(a, "s.c%zu", e->gone[k]);
            bytes_text(&b, i + k ? " OR " : " WHERE ");
            bytes_slice(&b, difference_test(a, now, slice_of(old ? old : ""), true));
        }
    }
    godwit_status status = b.failed || a->failed ? GODWIT_NOMEM : db_exec(&g->db, b.ptr);
    bytes_deinit(&b);
    return status;
}

godwit_status gained_keep(godwit *g, arena *a, const schema_column *before, size_t before_count,
                          const client_table *t, slice copy) {
    const json *had = NULL;
    int64_t count = 0;
    exchange *e = arena_alloc(a, sizeof *e);
    godwit_status status = e ? read_had(g, a, t, &had) : GODWIT_NOMEM;
    if (status != GODWIT_OK || !had) {
        return status;
    }
    find_exchange(before, before_count, t, e);
    if (e->gone_count == 0 || e->came_count == 0) {
        return GODWIT_OK;
    }
    status = db_int(&g->db, &count,
                    "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND name GLOB"
                    " 'godwit_gained_' || ?1 || '_*'",
                    "i", t->tbl);
    const char *name =
        arena_printf(a, "main.godwit_gained_%lld_%lld", (long long)t->tbl, (long long)count + 1);
    if (status == GODWIT_OK) {
        status = name ? keep_rows(g, a, e, before, t, copy, slice_of(name)) : GODWIT_NOMEM;
    }
    return status;
}

/* ---- The server has answered ---- */

static godwit_status queue_new(godwit *g, arena *a, difference *d, const json *had) {
    const client_table *t = d->t;
    godwit_status status = GODWIT_OK;
    d->from = difference_from(a, t, (slice){0});
    for (size_t i = 0; i < t->data_count && status == GODWIT_OK; i++) {
        const schema_column *column = data_of(t, i);
        bool known = listed(had, column->name, false);
        slice fallback = {0};
        for (size_t k = 0; !known && k < column->former_count; k++) {
            known = listed(had, column->former[k], true);
        }
        if (known) {
            continue;
        }
        status = db_text(&g->db, a, &fallback,
                         "SELECT dflt_value FROM pragma_table_info(?1, 'main') WHERE name = ?2",
                         "ss", t->shape.name, column->name);
        const slice present = difference_column(a, column);
        const char *text =
            fallback.len ? arena_printf(a,
                                        "(" SLICE_FMT " IS NOT NULL AND " SLICE_FMT
                                        " IS NOT (" SLICE_FMT "\n) COLLATE BINARY)",
                                        SLICE_ARG(present), SLICE_ARG(present), SLICE_ARG(fallback))
                         : arena_printf(a, "(" SLICE_FMT " IS NOT NULL)", SLICE_ARG(present));
        d->changed[i] = slice_of(text ? text : "");
    }
    status = status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
    return status == GODWIT_OK ? difference_updated(g, d) : status;
}

/* The kept column of this letter that is data column `i`; ptr NULL = none. */
static slice find_kept(const slice *columns, size_t count, char letter, const schema_column *c) {
    for (size_t i = 0; i < count; i++) {
        slice name = {columns[i].ptr + 2, columns[i].len - 2};
        if (columns[i].ptr[0] == letter && gained_named(c, name)) {
            return name;
        }
    }
    return (slice){0};
}

static godwit_status kept_columns(godwit *g, arena *a, slice table, slice **out, size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    *count = 0;
    *out = ARENA_ARRAY(a, slice, 2 * COLUMNS_MAX);
    godwit_status status = *out ? GODWIT_OK : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db,
                            "SELECT name FROM pragma_table_info(?1, 'main') WHERE name GLOB"
                            " '[on][_]*'",
                            &stmt);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, table);
    }
    while (status == GODWIT_OK && *count < 2 * COLUMNS_MAX) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        (*out)[(*count)++] = arena_copy(a, db_column_slice(stmt, 0));
    }
    db_done(&g->db, stmt);
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

/* What one migration did to columns that are renamed ones. A value that has been changed since
 * travels with that change; only of a counter both differences count. */
static godwit_status queue_renamed(godwit *g, arena *a, difference *d, slice table) {
    slice *columns = NULL;
    size_t count = 0;
    bool any = false;
    godwit_status status = kept_columns(g, a, table, &columns, &count);
    for (size_t i = 0; status == GODWIT_OK && i < d->t->data_count; i++) {
        const schema_column *column = data_of(d->t, i);
        slice from = find_kept(columns, count, 'o', column);
        slice to = find_kept(columns, count, 'n', column);
        if (!from.ptr || !to.ptr) {
            continue;
        }
        any = true;
        d->was[i] = kept_column(a, "s.", 'o', from);
        d->is[i] = kept_column(a, "s.", 'n', to);
        d->changed[i] = difference_test(a, d->is[i], d->was[i], true);
        if (!d->t->types || d->t->types[i] != POLICY_COUNTER) {
            slice same = difference_test(a, difference_column(a, column), d->is[i], false);
            const char *both = arena_printf(a, "(" SLICE_FMT " AND " SLICE_FMT ")",
                                            SLICE_ARG(d->changed[i]), SLICE_ARG(same));
            d->changed[i] = slice_of(both ? both : "");
        }
    }
    if (status == GODWIT_OK && any) {
        const char *copy = arena_printf(a, "main." SLICE_FMT, SLICE_ARG(table));
        d->from = difference_from(a, d->t, slice_of(copy ? copy : ""));
        status = a->failed ? GODWIT_NOMEM : difference_updated(g, d);
    }
    return status;
}

/* All migrations in their order; what was kept of them goes. */
static godwit_status queue_kept(godwit *g, arena *a, const client_table *t) {
    godwit_status status = GODWIT_OK;
    for (int64_t k = 1; status == GODWIT_OK; k++) {
        int64_t found = 0;
        char name[NAME_BYTES], drop[NAME_BYTES + 24];
        snprintf(name, sizeof name, "godwit_gained_%lld_%lld", (long long)t->tbl, (long long)k);
        snprintf(drop, sizeof drop, "DROP TABLE main.%s", name);
        difference *d = arena_alloc(a, sizeof *d);
        status = d ? db_int(&g->db, &found,
                            "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND"
                            " name = ?1",
                            "s", slice_of(name))
                   : GODWIT_NOMEM;
        if (status != GODWIT_OK || !found) {
            break;
        }
        d->t = t;
        status = queue_renamed(g, a, d, slice_of(name));
        if (status == GODWIT_OK) {
            status = db_exec(&g->db, drop);
        }
    }
    return status;
}

static godwit_status queue_table(godwit *g, arena *a, const client_table *t) {
    char key[TRACK_MISSED_BYTES];
    const json *had = NULL;
    int64_t newest = 0;
    godwit_status status = read_had(g, a, t, &had);
    if (status != GODWIT_OK || !had) {
        return status;
    }
    difference *d = arena_alloc(a, sizeof *d);
    if (!d) {
        return GODWIT_NOMEM;
    }
    d->t = t;
    status = db_int(&g->db, &newest, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    if (status == GODWIT_OK) {
        status = queue_kept(g, a, t);
    }
    if (status == GODWIT_OK) {
        status = queue_new(g, a, d, had);
    }
    if (status == GODWIT_OK) {
        status = drift_forget_unknown(g, t, newest);
    }
    gained_key(t, key);
    return status == GODWIT_OK ? client_meta_set(g, key, (slice){0}) : status;
}

godwit_status gained_queue(godwit *g) {
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        arena_deinit(&a);
        return status;
    }
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i];
        status = t->active && !t->queue ? queue_table(g, &a, t) : GODWIT_OK;
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
