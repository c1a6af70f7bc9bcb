/* Builds the registry: tables as the store reads them, settings of the configuration laid over
 * them, everything that answers repeat prepared once. See registry.h for the settings. */
#include "server/registry.h"

#include "core/commute.h"
#include "core/limits.h"
#include "server/registry_config.h"

#include <stdio.h>
#include <stdlib.h>

bool registry_refuse(const registry_settings *s, const char *what, slice item) {
    snprintf(s->message, 512, "[table %.*s]: %s%s%.*s", SLICE_ARG(s->table->name), what,
             item.len ? ": " : "", SLICE_ARG(item));
    return false;
}

static slice trimmed(slice s) {
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

bool registry_next_item(slice *rest, char separator, slice *item) {
    if (rest->len == 0) {
        return false;
    }
    const char *end = memchr(rest->ptr, separator, rest->len);
    size_t len = end ? (size_t)(end - rest->ptr) : rest->len;
    *item = trimmed((slice){rest->ptr, len});
    size_t used = end ? len + 1 : len;
    *rest = (slice){rest->ptr + used, rest->len - used};
    return true;
}

static bool find_column(const registry_settings *s, slice name, int *out) {
    *out = schema_column_index(s->table, name);
    return *out >= 0 || registry_refuse(s, "there is no column", name);
}

/* rule: NAME of custom:NAME. */
static bool parse_policy(slice name, merge_policy *out, slice *rule) {
    static const struct {
        const char *name;
        merge_policy policy;
    } policies[] = {{"lww", POLICY_LWW},
                    {"server_wins", POLICY_SERVER_WINS},
                    {"client_wins", POLICY_CLIENT_WINS},
                    {"manual", POLICY_MANUAL},
                    {"max", POLICY_MAX},
                    {"min", POLICY_MIN},
                    {"counter", POLICY_COUNTER},
                    {"set", POLICY_SET},
                    {"hold_group", POLICY_HOLD},
                    {"custom", POLICY_CUSTOM}};
    *rule = (slice){0};
    if (name.len > 7 && memcmp(name.ptr, "custom:", 7) == 0) {
        *rule = (slice){name.ptr + 7, name.len - 7};
        *out = POLICY_CUSTOM;
        return id_name_valid(*rule);
    }
    for (size_t i = 0; i < COUNT_OF(policies); i++) {
        if (slice_is(name, policies[i].name)) {
            *out = policies[i].policy;
            return true;
        }
    }
    return false;
}

/* ---- one setting each ---- */

static bool set_entity(registry_settings *s, slice v) {
    s->table->entity = v;
    return id_name_valid(v) || registry_refuse(s, "not a name", v);
}

static bool set_scope(registry_settings *s, slice v) {
    s->table->scope = v;
    if (!id_name_valid(v)) {
        return registry_refuse(s, "not a name of a scope", v);
    }
    return s->table->scope_column < 0 ||
           registry_refuse(s, "scope and scope_column exclude each other", v);
}

static bool set_scope_column(registry_settings *s, slice v) {
    if (!find_column(s, v, &s->table->scope_column)) {
        return false;
    }
    return s->table->scope.len == 0 ||
           registry_refuse(s, "scope and scope_column exclude each other", v);
}

static bool set_policy(registry_settings *s, slice v) {
    merge_policy policy;
    slice rule;
    if (!parse_policy(v, &policy, &rule)) {
        return registry_refuse(s, "no such policy", v);
    }
    for (size_t i = 0; i < s->table->column_count; i++) {
        s->table->columns[i].policy = policy;
        s->table->columns[i].rule = rule;
    }
    return true;
}

static bool set_column_policy(registry_settings *s, slice column, slice v) {
    int index;
    merge_policy policy;
    slice rule;
    if (!find_column(s, column, &index)) {
        return false;
    }
    if (!parse_policy(v, &policy, &rule)) {
        return registry_refuse(s, "no such policy", v);
    }
    s->table->columns[index].policy = policy;
    s->table->columns[index].rule = rule;
    return true;
}

static bool set_groups(registry_settings *s, slice v) {
    slice group;
    slice name;
    for (int number = 1; registry_next_item(&v, ',', &group); number++) {
        while (registry_next_item(&group, '+', &name)) {
            int index;
            if (!find_column(s, name, &index)) {
                return false;
            }
            if (s->table->columns[index].group || s->table->columns[index].is_key) {
                return registry_refuse(s, "a column of a group is in another group, or of the key",
                                       name);
            }
            s->table->columns[index].group = number;
        }
    }
    return true;
}

static bool set_flag(registry_settings *s, slice v, const char *refusal, bool *out) {
    bool yes = slice_is(v, "yes") || slice_is(v, "true") || slice_is(v, "1");
    bool no = slice_is(v, "no") || slice_is(v, "false") || slice_is(v, "0");
    *out = yes;
    return yes || no || registry_refuse(s, refusal, v);
}

static bool set_row_atomic(registry_settings *s, slice v) {
    return set_flag(s, v, "row_atomic is yes or no, not", &s->table->row_atomic);
}

static bool set_validate(registry_settings *s, slice v) {
    return set_flag(s, v, "validate is yes or no, not", &s->table->validate);
}

static bool set_delete(registry_settings *s, slice v) {
    bool edit = slice_is(v, "edit_wins");
    s->table->on_conflicting_delete = edit ? DELETE_EDIT_WINS : DELETE_DELETE_WINS;
    return edit || slice_is(v, "delete_wins") ||
           registry_refuse(s, "on_conflicting_delete is edit_wins or delete_wins, not", v);
}

static bool set_initial(registry_settings *s, slice v) {
    schema_table *t = s->table;
    if (v.len > 7 && memcmp(v.ptr, "newest:", 7) == 0) {
        t->initial = INITIAL_NEWEST;
        return find_column(s, trimmed((slice){v.ptr + 7, v.len - 7}), &t->initial_column);
    }
    t->initial = slice_is(v, "keep_device") ? INITIAL_KEEP_DEVICE
                 : slice_is(v, "manual")    ? INITIAL_MANUAL
                                            : INITIAL_KEEP_SERVER;
    return t->initial != INITIAL_KEEP_SERVER || slice_is(v, "keep_server") ||
           registry_refuse(s, "initial is keep_server, keep_device, manual or newest:COLUMN, not",
                           v);
}

static bool set_local(registry_settings *s, slice v, int *column) {
    if (!find_column(s, v, column)) {
        return false;
    }
    if (s->table->columns[*column].is_key) {
        return registry_refuse(s, "a column of the key can't be maintained by the server", v);
    }
    s->table->columns[*column].local = true;
    return true;
}

/* Leaves only the columns listed, and those of the key. */
static bool set_columns(registry_settings *s, slice v) {
    schema_table *t = s->table;
    bool *keep = ARENA_ARRAY(s->a, bool, t->column_count);
    int *moved = ARENA_ARRAY(s->a, int, t->column_count);
    slice name;
    int index;
    if (!keep || !moved) {
        return registry_refuse(s, "out of memory", (slice){0});
    }
    while (registry_next_item(&v, ',', &name)) {
        if (!find_column(s, name, &index)) {
            return false;
        }
        keep[index] = true;
    }
    size_t count = 0;
    for (size_t i = 0; i < t->column_count; i++) {
        moved[i] = -1;
        if (keep[i] || t->columns[i].is_key) {
            moved[i] = (int)count;
            t->columns[count++] = t->columns[i];
        }
    }
    t->column_count = count;
    for (size_t i = 0; i < t->key_count; i++) {
        t->key[i] = moved[t->key[i]];
    }
    for (size_t f = 0; f < t->fk_count; f++) {
        int *columns = ARENA_ARRAY(s->a, int, t->fks[f].count);
        for (size_t i = 0; columns && i < t->fks[f].count; i++) {
            columns[i] = moved[t->fks[f].columns[i]];
            if (columns[i] < 0) {
                return registry_refuse(s, "columns leaves out a column of the foreign key to",
                                       t->fks[f].table);
            }
        }
        t->fks[f].columns = columns;
    }
    return true;
}

static bool apply(registry_settings *s, slice key, slice v) {
    static const struct {
        const char *name;
        bool (*set)(registry_settings *, slice);
    } plain[] = {{"entity", set_entity},
                 {"scope", set_scope},
                 {"scope_column", set_scope_column},
                 {"policy", set_policy},
                 {"groups", set_groups},
                 {"row_atomic", set_row_atomic},
                 {"validate", set_validate},
                 {"on_conflicting_delete", set_delete},
                 {"initial", set_initial}};
    schema_table *t = s->table;
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        if (slice_is(key, plain[i].name)) {
            return plain[i].set(s, v);
        }
    }
    if (slice_is(key, "deleted_column")) {
        return set_local(s, v, &t->deleted_column);
    }
    if (slice_is(key, "created_by_device_column")) {
        return set_local(s, v, &t->created_by_device_column);
    }
    if (slice_is(key, "updated_at_column")) {
        return set_local(s, v, &t->updated_at_column);
    }
    if (slice_is(key, "vector_clock_column")) {
        return set_local(s, v, &t->vector_clock_column);
    }
    if (slice_is(key, "dropped")) {
        return registry_set_dropped(s, v);
    }
    return registry_refuse(s, "unknown key", key);
}

#define COLUMN_PREFIX 7 /* bytes of "policy.", "former.", "upcast." */

static bool of_one_column(slice key) {
    return key.len > COLUMN_PREFIX && (memcmp(key.ptr, "policy.", COLUMN_PREFIX) == 0 ||
                                       memcmp(key.ptr, "former.", COLUMN_PREFIX) == 0 ||
                                       memcmp(key.ptr, "upcast.", COLUMN_PREFIX) == 0);
}

static bool apply_to_column(registry_settings *s, slice key, slice v) {
    slice rest = {key.ptr + COLUMN_PREFIX, key.len - COLUMN_PREFIX};
    switch (key.ptr[0]) {
    case 'p':
        return set_column_policy(s, rest, v);
    case 'f':
        return registry_set_former(s, rest, v);
    default:
        return registry_set_upcast(s, rest, v);
    }
}

/* In this order: columns (the others count them), the settings, those of single columns. */
static bool apply_section(registry_settings *s, const registry_config *config) {
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < config->count; i++) {
            const config_line *line = &config->lines[i];
            if (!slice_equal(line->table, s->table->name)) {
                continue;
            }
            bool of_column = of_one_column(line->key);
            bool columns = slice_is(line->key, "columns");
            if (pass != (columns ? 0 : of_column ? 2 : 1)) {
                continue;
            }
            if (columns     ? !set_columns(s, line->value)
                : of_column ? !apply_to_column(s, line->key, line->value)
                            : !apply(s, line->key, line->value)) {
                return false;
            }
        }
    }
    for (size_t i = 0; i < s->table->column_count; i++) {
        const schema_column *column = &s->table->columns[i];
        bool alone = !column->group && !s->table->row_atomic;
        if (commute_always(column->policy) && !column->is_key && !alone) {
            return registry_refuse(
                s, "a counter or a set is decided by itself, not in a group: column", column->name);
        }
    }
    if (s->table->vector_clock_column < 0) {
        int column = schema_column_index(s->table, SLICE("vector_clock"));
        if (column >= 0 && !s->table->columns[column].is_key) {
            return set_local(s, SLICE("vector_clock"), &s->table->vector_clock_column);
        }
    }
    return true;
}

static godwit_status apply_config(registry *r, const registry_config *config, bool complete,
                                  char *message) {
    for (size_t i = 0; i < r->schema.table_count; i++) {
        registry_settings s = {&r->memory, &r->schema.tables[i], message};
        if (!apply_section(&s, config)) {
            return GODWIT_INVALID;
        }
    }
    for (size_t i = 0; i < r->schema.table_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (slice_equal(r->schema.tables[i].entity, r->schema.tables[k].entity)) {
                snprintf(message, 512, "two tables are called %.*s on the wire",
                         SLICE_ARG(r->schema.tables[i].entity));
                return GODWIT_INVALID;
            }
        }
    }
    for (size_t i = 0; complete && i < config->count; i++) {
        bool known = false;
        for (size_t k = 0; k < r->schema.table_count; k++) {
            known = known || slice_equal(r->schema.tables[k].name, config->lines[i].table);
        }
        if (!known) {
            snprintf(message, 512, "[table %.*s]: there is no such table",
                     SLICE_ARG(config->lines[i].table));
            return GODWIT_INVALID;
        }
    }
    return GODWIT_OK;
}

/* ---- what is derived ---- */

static bool refers_to_waiting(const registry *r, const schema_table *t, const bool *placed) {
    for (size_t f = 0; f < t->fk_count; f++) {
        for (size_t i = 0; i < r->schema.table_count; i++) {
            const schema_table *parent = &r->schema.tables[i];
            if (parent != t && !placed[i] && slice_equal(parent->name, t->fks[f].table)) {
                return true;
            }
        }
    }
    return false;
}

/* Parents before children; what goes in circles comes last, as it is. */
static godwit_status make_order(registry *r) {
    size_t count = r->schema.table_count;
    size_t done = 0;
    bool *placed = ARENA_ARRAY(&r->memory, bool, count);
    r->order = ARENA_ARRAY(&r->memory, const schema_table *, count);
    if (!placed || !r->order) {
        return GODWIT_NOMEM;
    }
    for (bool moved = true, any = false; done < count; moved = any) {
        any = false;
        for (size_t i = 0; i < count; i++) {
            const schema_table *t = &r->schema.tables[i];
            if (!placed[i] && (!moved || !refers_to_waiting(r, t, placed))) {
                placed[i] = true;
                r->order[done++] = t;
                any = true;
            }
        }
    }
    return GODWIT_OK;
}

/* Devices that have been told other names ask again before they take a change. */
static void make_names(registry *r) {
    uint64_t hash = UINT64_C(14695981039346656037);
    bool any = false;
    for (size_t i = 0; i < r->schema.table_count; i++) {
        for (size_t c = 0; c < r->schema.tables[i].column_count; c++) {
            any = any || r->schema.tables[i].columns[c].former_count > 0;
        }
    }
    for (size_t i = 0; i < r->tables_json.len; i++) {
        hash = (hash ^ (unsigned char)r->tables_json.ptr[i]) * UINT64_C(1099511628211);
    }
    if (any) {
        wire_u64_write((int64_t)hash, r->names);
    }
}

static godwit_status make_declarations(registry *r) {
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < r->schema.table_count; i++) {
        bytes_text(&b, i ? "," : "");
        schema_table_to_json(&b, &r->schema.tables[i]);
    }
    bytes_char(&b, ']');
    r->tables_json = b.failed ? (slice){0} : arena_copy(&r->memory, bytes_view(&b));
    bytes_deinit(&b);
    make_names(r);
    return r->tables_json.ptr ? GODWIT_OK : GODWIT_NOMEM;
}

godwit_status registry_build(store *st, const registry_config *config, bool complete,
                             registry **out, char *message) {
    *out = NULL;
    registry *r = calloc(1, sizeof *r);
    if (!r) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    arena_init(&r->memory, NULL, 0);
    snprintf(message, 512, "the tables of the store can't be read");
    godwit_status status = store_schema_read(st, &r->memory, &r->schema);
    if (status == GODWIT_OK) {
        status = apply_config(r, config, complete, message);
    } else {
        snprintf(message, 512, "%s", store_message(st));
    }
    if (status == GODWIT_OK) {
        status = make_order(r);
    }
    if (status == GODWIT_OK) {
        status = make_declarations(r);
    }
    if (status == GODWIT_OK) {
        status = store_tables_build(st, &r->memory, &r->schema, &r->tables);
    }
    if (status != GODWIT_OK) {
        registry_free(r);
        return status;
    }
    *out = r;
    return GODWIT_OK;
}

void registry_free(registry *r) {
    if (r) {
        arena_deinit(&r->memory);
        free(r);
    }
}
