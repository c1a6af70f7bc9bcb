/* The settings about older schemas: former names of columns, columns that are gone, and expressions
 * that make a present value of what an older operation says. Used by decide (names), upcast.c
 * (expressions) and, for the names, by devices, who are told them when they register. */
#include "server/registry_config.h"

#include "core/limits.h"
#include "db/sqlite.h"
#include "server/upcast_sql.h"

#include <stdio.h>

static bool names_of(registry_settings *s, slice list, const slice **out, size_t *count) {
    slice *names = ARENA_ARRAY(s->a, slice, list.len / 2 + *count + 1);
    slice name;
    if (!names) {
        return registry_refuse(s, "out of memory", (slice){0});
    }
    if (*count) {
        memcpy(names, *out, *count * sizeof *names);
    }
    while (registry_next_item(&list, ',', &name)) {
        if (!id_name_valid(name)) {
            return registry_refuse(s, "not a name", name);
        }
        names[(*count)++] = name;
    }
    *out = names;
    return true;
}

static bool is_column(const schema_table *t, slice name) {
    int at = schema_column_index(t, name);
    return at >= 0 && slice_equal(t->columns[at].name, name);
}

bool registry_set_former(registry_settings *s, slice column, slice names) {
    int at = schema_column_index(s->table, column);
    if (at < 0 || !is_column(s->table, column)) {
        return registry_refuse(s, "there is no column", column);
    }
    schema_column *c = &s->table->columns[at];
    if (c->is_key) {
        return registry_refuse(s, "a column of the key keeps its name", column);
    }
    if (!names_of(s, names, &c->former, &c->former_count)) {
        return false;
    }
    for (size_t i = 0; i < c->former_count; i++) {
        int other = schema_column_index(s->table, c->former[i]);
        if (other != at) {
            return registry_refuse(s, "a former name is a column's or another's former name",
                                   c->former[i]);
        }
    }
    return true;
}

bool registry_set_dropped(registry_settings *s, slice names) {
    schema_table *t = s->table;
    if (!names_of(s, names, &t->dropped, &t->dropped_count)) {
        return false;
    }
    for (size_t i = 0; i < t->dropped_count; i++) {
        int at = schema_column_index(t, t->dropped[i]);
        if (at >= 0 && t->columns[at].is_key) {
            return registry_refuse(s, "a column of the key can't be dropped", t->dropped[i]);
        }
        if (at >= 0) {
            t->columns[at].local = true; /* what the store has of it stays there */
        }
    }
    return true;
}

/* ---- expressions ---- */

/* The statement's parameters are its inputs. An input that is no column is one that was. */
static bool read_inputs(registry_settings *s, sqlite3_stmt *stmt, schema_upcast *u) {
    int count = sqlite3_bind_parameter_count(stmt);
    slice *inputs = ARENA_ARRAY(s->a, slice, (size_t)count + 1);
    if (!inputs) {
        return registry_refuse(s, "out of memory", (slice){0});
    }
    for (int i = 1; i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt, i);
        if (!name || name[0] != ':' || !id_name_valid(slice_of(name + 1))) {
            return registry_refuse(s, "the inputs of an upcast are named :COLUMN, in", u->sql);
        }
        slice input = arena_copy(s->a, slice_of(name + 1));
        inputs[u->input_count++] = input;
        if (schema_column_index(s->table, input) < 0 && !schema_column_dropped(s->table, input) &&
            !registry_set_dropped(s, input)) {
            return false;
        }
    }
    u->inputs = inputs;
    return true;
}

/* What the expression is, when it is not one. */
static const char *fault_of(int rc, const char *rest) {
    switch (rc) {
    case SQLITE_OK:
        return *rest ? "an upcast is one expression, not" : NULL;
    case SQLITE_AUTH:
        return "an upcast computes from its inputs (functions, json_each), not from tables";
    case SQLITE_INTERRUPT:
    case SQLITE_TOOBIG:
        return "an upcast that takes too much time or memory";
    default:
        return "an upcast that SQLite does not understand";
    }
}

static bool check_sql(registry_settings *s, schema_upcast *u) {
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    const char *sql = arena_printf(s->a, "SELECT (%.*s\n)", SLICE_ARG(u->sql));
    const char *rest = "", *fault = NULL;
    bool ok = sql && sqlite3_open(":memory:", &db) == SQLITE_OK;
    if (ok) {
        upcast_guard(db);
        int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, &rest);
        fault = fault_of(rc, rest);
        ok = fault ? registry_refuse(s, fault, u->sql) : read_inputs(s, stmt, u);
    } else {
        (void)registry_refuse(s, "out of memory", (slice){0});
    }
    if (ok) { /* as for a create that says none of the inputs */
        int rc = upcast_step(stmt);
        fault = rc == SQLITE_INTERRUPT || rc == SQLITE_TOOBIG ? fault_of(rc, "") : NULL;
        ok = !fault || registry_refuse(s, fault, u->sql);
    }
    u->sql = slice_of(sql ? sql : "");
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return ok;
}

bool registry_set_upcast(registry_settings *s, slice place, slice sql) {
    schema_table *t = s->table;
    schema_upcast u = {.column = -1, .sql = sql};
    size_t i = 0;
    while (i < place.len && place.ptr[i] >= '0' && place.ptr[i] <= '9' && i < 10) {
        u.version = u.version * 10 + (place.ptr[i++] - '0');
    }
    slice column = {place.ptr + i + 1, place.len > i ? place.len - i - 1 : 0};
    if (i == 0 || i >= place.len || place.ptr[i] != '.' || u.version < 1) {
        return registry_refuse(s, "an upcast is named upcast.VERSION.COLUMN, not", place);
    }
    u.column = schema_column_index(t, column);
    if (u.column < 0 || !is_column(t, column) || t->columns[u.column].is_key) {
        return registry_refuse(s, "there is no column (beside the key)", column);
    }
    schema_upcast *all = ARENA_ARRAY(s->a, schema_upcast, t->upcast_count + 1);
    if (!all) {
        return registry_refuse(s, "out of memory", (slice){0});
    }
    if (!check_sql(s, &u)) {
        return false;
    }
    size_t at = t->upcast_count; /* in the order of versions */
    if (at) {
        memcpy(all, t->upcasts, at * sizeof *all);
    }
    for (; at > 0 && all[at - 1].version > u.version; at--) {
        all[at] = all[at - 1];
    }
    all[at] = u;
    t->upcasts = all;
    t->upcast_count++;
    return true;
}

/* ---- the store's own columns ---- */

godwit_status registry_rename(store *st, const registry_config *config, char *message) {
    godwit_status status = store_begin(st);
    for (size_t i = 0; status == GODWIT_OK && i < config->count; i++) {
        const config_line *line = &config->lines[i];
        slice names = line->value, name;
        bool former = line->key.len > 7 && memcmp(line->key.ptr, "former.", 7) == 0;
        slice column = {line->key.ptr + 7, former ? line->key.len - 7 : 0};
        while (former && status == GODWIT_OK && registry_next_item(&names, ',', &name)) {
            status = store_column_rename(st, line->table, name, column);
        }
    }
    if (status == GODWIT_OK) {
        status = store_commit(st);
    }
    if (status != GODWIT_OK) {
        snprintf(message, 512, "a column can't get its new name: %s", store_message(st));
        store_rollback(st);
    }
    return status;
}
