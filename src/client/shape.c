/* What a tracked table looks like: read from the database, and from the JSON kept in
 * godwit_table.spec.
 *
 *   {"entity":"pin","scope":"s"?,"scopeColumn":"c"?,"ids":"app"?,"initial":"ignore"?,"columns":[..]?,
 *    "slots":["title",..],"table":{declaration}}      or      {"entity":"note","queue":true}
 *
 * slots = data columns in mask order. The declaration is what the server is told. Names that can't
 * travel refuse the table; type names are reduced to what a declaration may carry. */
#include <stdio.h>

#include "client/track.h"
#include "core/limits.h"

/* ---- Options ---- */

static bool member_text(const json *root, const char *name, slice *out) {
    const json *v = json_get(root, name);
    return !v || json_is(v, JSON_NULL) || json_text(v, out);
}

static godwit_status read_names(godwit *g, arena *a, const json *list, track_options *out) {
    if (!list || json_is(list, JSON_NULL)) {
        return GODWIT_OK;
    }
    if (!json_is(list, JSON_ARRAY) || list->count == 0 ||
        list->count > COLUMNS_MAX + KEY_COLUMNS_MAX) {
        return client_fail(g, GODWIT_INVALID, "columns must be a list of column names");
    }
    slice *names = ARENA_ARRAY(a, slice, list->count);
    if (!names) {
        return GODWIT_NOMEM;
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        if (!json_text(item, &names[i])) {
            return client_fail(g, GODWIT_INVALID, "columns must be a list of column names");
        }
    }
    out->columns = names;
    out->column_count = list->count;
    return GODWIT_OK;
}

static godwit_status read_options(godwit *g, arena *a, const json *root, track_options *out) {
    slice ids = {0};
    slice initial = {0};
    if (!member_text(root, "entity", &out->entity) || !member_text(root, "scope", &out->scope) ||
        !member_text(root, "scopeColumn", &out->scope_column) || !member_text(root, "ids", &ids) ||
        !member_text(root, "initial", &initial)) {
        return client_fail(g, GODWIT_INVALID, "options: text expected");
    }
    if (ids.len && !slice_is(ids, "app")) {
        return client_fail(g, GODWIT_INVALID, "options: \"ids\" can only be \"app\"");
    }
    if (initial.len && !slice_is(initial, "upload") && !slice_is(initial, "ignore")) {
        return client_fail(g, GODWIT_INVALID, "options: \"initial\" is \"upload\" or \"ignore\"");
    }
    if ((out->entity.len && !id_name_valid(out->entity)) ||
        (out->scope.len && !id_name_valid(out->scope))) {
        return client_fail(g, GODWIT_INVALID,
                           "options: a name has 1 to 128 bytes and no control characters");
    }
    out->app_ids = ids.len > 0;
    out->ignore = slice_is(initial, "ignore");
    return read_names(g, a, json_get(root, "columns"), out);
}

godwit_status shape_options(godwit *g, arena *a, const char *text, track_options *out) {
    static const char *const known[] = {"initial",     "ids",    "scope",
                                        "scopeColumn", "entity", "columns"};
    const json *root = NULL;
    json_error error = {0};
    memset(out, 0, sizeof *out);
    if (!text) {
        return GODWIT_OK;
    }
    slice copy = arena_copy(a, slice_of(text));
    if (!copy.ptr) {
        return GODWIT_NOMEM;
    }
    godwit_status status = json_parse(a, copy, &root, &error);
    if (status == GODWIT_NOMEM) {
        return status;
    }
    if (status != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
        return client_fail(g, GODWIT_INVALID, "options: not a JSON object%s%s",
                           error.reason ? ": " : "", error.reason ? error.reason : "");
    }
    const json *key = json_first(root);
    for (uint32_t i = 0; i < root->count; i++, key = json_after(key + 1)) {
        size_t k = 0;
        while (k < COUNT_OF(known) && !slice_is(key->u.s, known[k])) {
            k++;
        }
        if (k == COUNT_OF(known)) {
            return client_fail(g, GODWIT_INVALID, "options: unknown member \"%.*s\"",
                               (int)(key->u.s.len < 64 ? key->u.s.len : 64), key->u.s.ptr);
        }
    }
    return read_options(g, a, root, out);
}

/* ---- The table as it is ---- */

static char upper(char c) {
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static bool contains(slice text, const char *word) {
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= text.len; i++) {
        size_t same = 0;
        while (same < len && upper(text.ptr[i + same]) == word[same]) {
            same++;
        }
        if (same == len) {
            return true;
        }
    }
    return false;
}

/* A declaration carries words and perhaps (n) or (n,m); anything else is named by its affinity. */
static slice declared_type(slice type) {
    size_t i = 0;
    while (i < type.len && (upper(type.ptr[i]) == ' ' || type.ptr[i] == '_' ||
                            (upper(type.ptr[i]) >= 'A' && upper(type.ptr[i]) <= 'Z') ||
                            (type.ptr[i] >= '0' && type.ptr[i] <= '9'))) {
        i++;
    }
    size_t digits = 0;
    size_t commas = 0;
    bool plain = i == type.len;
    if (!plain && type.ptr[i] == '(' && type.ptr[type.len - 1] == ')') {
        plain = true;
        for (i++; i < type.len - 1; i++) {
            digits += type.ptr[i] >= '0' && type.ptr[i] <= '9';
            commas += type.ptr[i] == ',' && digits > 0;
            plain = plain && ((type.ptr[i] >= '0' && type.ptr[i] <= '9') ||
                              (type.ptr[i] == ',' && type.ptr[i + 1] != ')'));
        }
        plain = plain && digits > 0 && commas < 2;
    }
    if (plain && type.len <= 64) {
        return type;
    }
    if (contains(type, "INT")) {
        return SLICE("INTEGER");
    }
    if (contains(type, "CHAR") || contains(type, "CLOB") || contains(type, "TEXT")) {
        return SLICE("TEXT");
    }
    if (contains(type, "BLOB")) {
        return SLICE("BLOB");
    }
    return contains(type, "REAL") || contains(type, "FLOA") || contains(type, "DOUB")
               ? SLICE("REAL")
               : SLICE("NUMERIC");
}

static bool wanted(const track_options *o, slice name, bool is_key) {
    bool found = o->column_count == 0 || is_key;
    for (size_t i = 0; i < o->column_count && !found; i++) {
        found = slice_equal(o->columns[i], name);
    }
    return found;
}

static godwit_status find_table(godwit *g, arena *a, slice name, slice *actual) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    slice type = {0};
    /* table_list compiles every view of the schema: only it can tell shadow tables, which need a
     * virtual one */
    godwit_status status =
        db_prepare(&g->db,
                   "SELECT name, CASE WHEN EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type ="
                   " 'table' AND rootpage = 0) THEN (SELECT l.type FROM pragma_table_list AS l"
                   " WHERE l.schema = 'main' AND l.name = s.name) ELSE type END"
                   " FROM main.sqlite_schema AS s"
                   " WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, name);
    }
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *actual = arena_copy(a, db_column_slice(stmt, 0));
        type = arena_copy(a, db_column_slice(stmt, 1));
        status = actual->ptr && type.ptr ? GODWIT_OK : GODWIT_NOMEM;
    }
    db_done(&g->db, stmt);
    if (status != GODWIT_OK) {
        return status;
    }
    if (!row) {
        return client_fail(g, GODWIT_NOT_FOUND, "no such table: " SLICE_FMT, SLICE_ARG(name));
    }
    if (!slice_is(type, "table")) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "\"" SLICE_FMT "\" is a " SLICE_FMT ": only tables can be tracked",
                           SLICE_ARG(*actual), SLICE_ARG(type));
    }
    bool own = actual->len >= 7 &&
               (memcmp(actual->ptr, "godwit_", 7) == 0 || memcmp(actual->ptr, "sqlite_", 7) == 0);
    if (own || !id_name_valid(*actual)) {
        return client_fail(g, GODWIT_INVALID, "a table of this name can't be tracked");
    }
    return GODWIT_OK;
}

static godwit_status add_column(godwit *g, arena *a, sqlite3_stmt *stmt, const track_options *o,
                                client_table *t) {
    slice name = db_column_slice(stmt, 0);
    int64_t pk = sqlite3_column_int64(stmt, 3);
    bool generated = sqlite3_column_int(stmt, 4) != 0;
    if (generated || !wanted(o, name, pk > 0)) {
        return GODWIT_OK;
    }
    if (!id_name_valid(name)) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "table \"" SLICE_FMT "\" has a column whose name can't be synced (over"
                           " 128 bytes, control characters, or not UTF-8)",
                           SLICE_ARG(t->shape.name));
    }
    if (pk > KEY_COLUMNS_MAX || t->shape.column_count >= COLUMNS_MAX) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "table \"" SLICE_FMT
                           "\" has more than %d columns, or more than %d in its"
                           " primary key: name the columns to sync",
                           SLICE_ARG(t->shape.name), COLUMNS_MAX, KEY_COLUMNS_MAX);
    }
    schema_column *c = &t->shape.columns[t->shape.column_count];
    slice type = arena_copy(a, db_column_slice(stmt, 1));
    *c = (schema_column){.name = arena_copy(a, name), .is_key = pk > 0};
    if (!c->name.ptr || !type.ptr) {
        return GODWIT_NOMEM;
    }
    c->type = declared_type(type);
    c->not_null = sqlite3_column_int(stmt, 2) != 0;
    if (pk > 0 && !schema_key_fits(c->type)) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "column \"" SLICE_FMT "\" of the primary key is " SLICE_FMT
                           ": a key is TEXT, INTEGER or BLOB",
                           SLICE_ARG(c->name), SLICE_ARG(c->type));
    }
    if (pk > 0) {
        t->shape.key[pk - 1] = (int)t->shape.column_count;
        t->shape.key_kinds[pk - 1] = schema_key_kind(c->type);
        t->shape.key_count++;
    }
    t->shape.column_count++;
    return GODWIT_OK;
}

static godwit_status read_columns(godwit *g, arena *a, const track_options *o, client_table *t) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    t->shape.columns = ARENA_ARRAY(a, schema_column, COLUMNS_MAX + 1);
    if (!t->shape.columns) {
        return GODWIT_NOMEM;
    }
    godwit_status status =
        db_prepare(&g->db,
                   "SELECT name, type, \"notnull\" AND dflt_value IS NULL, pk, hidden FROM"
                   " pragma_table_xinfo(?1, 'main') ORDER BY cid",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, t->shape.name);
    }
    while (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        status = add_column(g, a, stmt, o, t);
    }
    db_done(&g->db, stmt);
    return status;
}

/* One reference; `stmt` stands on its first row and is left on the row behind it. */
static godwit_status add_fk(godwit *g, arena *a, sqlite3_stmt *stmt, client_table *t, bool *row) {
    schema_fk *fk = &t->shape.fks[t->shape.fk_count];
    int *columns = ARENA_ARRAY(a, int, KEY_COLUMNS_MAX);
    slice *refs = ARENA_ARRAY(a, slice, KEY_COLUMNS_MAX);
    int64_t id = sqlite3_column_int64(stmt, 0);
    bool synced = true;
    memset(fk, 0, sizeof *fk);
    fk->table = arena_copy(a, db_column_slice(stmt, 1));
    fk->on_delete = arena_copy(a, db_column_slice(stmt, 4));
    godwit_status status =
        columns && refs && fk->table.ptr && fk->on_delete.ptr ? GODWIT_OK : GODWIT_NOMEM;
    while (status == GODWIT_OK && *row && sqlite3_column_int64(stmt, 0) == id) {
        int index = schema_column_index(&t->shape, db_column_slice(stmt, 2));
        synced = synced && index >= 0 && fk->count < KEY_COLUMNS_MAX;
        if (synced) {
            columns[fk->count] = index;
            refs[fk->count] = arena_copy(a, db_column_slice(stmt, 3));
            status = refs[fk->count].ptr ? GODWIT_OK : GODWIT_NOMEM;
            synced = id_name_valid(refs[fk->count]);
            fk->count++;
        }
        if (status == GODWIT_OK) {
            status = db_step(&g->db, stmt, row);
        }
    }
    fk->columns = columns;
    fk->ref_columns = refs;
    t->shape.fk_count += synced && fk->count > 0 && id_name_valid(fk->table);
    return status;
}

#define FKS_MAX 64

static godwit_status read_fks(godwit *g, arena *a, client_table *t) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    t->shape.fks = ARENA_ARRAY(a, schema_fk, FKS_MAX);
    if (!t->shape.fks) {
        return GODWIT_NOMEM;
    }
    /* a reference without columns means the parent's primary key */
    godwit_status status = db_prepare(
        &g->db,
        "SELECT f.id, f.\"table\", f.\"from\", coalesce(f.\"to\", (SELECT c.name FROM"
        " pragma_table_xinfo(f.\"table\", 'main') AS c WHERE c.pk = f.seq + 1), ''), f.on_delete"
        " FROM pragma_foreign_key_list(?1, 'main') AS f ORDER BY f.id, f.seq",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, t->shape.name);
    }
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
    }
    while (status == GODWIT_OK && row && t->shape.fk_count < FKS_MAX) {
        status = add_fk(g, a, stmt, t, &row);
    }
    db_done(&g->db, stmt);
    return status;
}

int shape_slot(const client_table *t, slice name) {
    for (size_t i = 0; i < t->data_count; i++) {
        if (slice_equal(t->shape.columns[t->data_columns[i]].name, name)) {
            return (int)i;
        }
    }
    return -1;
}

/* Mask order: as before where a column still exists, then the new ones. */
static godwit_status order_slots(arena *a, const slice *slots, size_t slot_count, client_table *t) {
    t->data_columns = ARENA_ARRAY(a, int, t->shape.column_count + 1);
    if (!t->data_columns) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < slot_count; i++) {
        int index = schema_column_index(&t->shape, slots[i]);
        if (index >= 0 && !t->shape.columns[index].is_key && shape_slot(t, slots[i]) < 0) {
            t->data_columns[t->data_count++] = index;
        }
    }
    for (size_t i = 0; i < t->shape.column_count; i++) {
        const schema_column *c = &t->shape.columns[i];
        if (!c->is_key && shape_slot(t, c->name) < 0) {
            t->data_columns[t->data_count++] = (int)i;
        }
    }
    return GODWIT_OK;
}

godwit_status shape_rowid_key(godwit *g, const client_table *t, bool *out) {
    int64_t indexes = 0;
    *out = false;
    slice type = t->shape.key_count == 1 ? t->shape.columns[t->shape.key[0]].type : SLICE("");
    if (type.len != 7 || !contains(type, "INTEGER")) {
        return GODWIT_OK;
    }
    godwit_status status = db_int(
        &g->db, &indexes, "SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'",
        "s", t->shape.name);
    *out = status == GODWIT_OK && indexes == 0; /* WITHOUT ROWID there is one, too */
    return status;
}

static godwit_status check_shape(godwit *g, const track_options *o, const client_table *t) {
    slice name = t->shape.name;
    bool rowid = false;
    if (t->shape.key_count == 0) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "table \"" SLICE_FMT
                           "\" has no primary key: rows could not be told apart"
                           " on other devices",
                           SLICE_ARG(name));
    }
    for (size_t i = 0; i < o->column_count && !o->lenient; i++) {
        if (schema_column_index(&t->shape, o->columns[i]) < 0) {
            return client_fail(g, GODWIT_INVALID,
                               "table \"" SLICE_FMT "\" has no column named in"
                               " \"columns\" as number %d",
                               SLICE_ARG(name), (int)i + 1);
        }
    }
    godwit_status status = shape_rowid_key(g, t, &rowid);
    if (status == GODWIT_OK && rowid && !o->app_ids) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "table \"" SLICE_FMT
                           "\" has an INTEGER PRIMARY KEY: two offline devices would both make"
                           " id 1. Use a TEXT PRIMARY KEY with godwit_uuid7(), or track it with "
                           "{\"ids\":\"app\"} if"
                           " the application makes ids that are unique across devices",
                           SLICE_ARG(name));
    }
    if (status == GODWIT_OK && o->scope_column.len && t->shape.scope_column < 0) {
        return client_fail(g, GODWIT_INVALID,
                           "table \"" SLICE_FMT "\" has no column named in \"scopeColumn\"",
                           SLICE_ARG(name));
    }
    return status;
}

godwit_status shape_read(godwit *g, arena *a, slice name, const track_options *options,
                         const slice *slots, size_t slot_count, client_table *out) {
    memset(out, 0, sizeof *out);
    out->shape = (schema_table){.scope_column = -1,
                                .initial_column = -1,
                                .deleted_column = -1,
                                .created_by_device_column = -1,
                                .updated_at_column = -1,
                                .vector_clock_column = -1};
    godwit_status status = find_table(g, a, name, &out->shape.name);
    if (status == GODWIT_OK) {
        status = read_columns(g, a, options, out);
    }
    if (status == GODWIT_OK) {
        status = read_fks(g, a, out);
    }
    if (status == GODWIT_OK) {
        status = order_slots(a, slots, slot_count, out);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    out->shape.entity = options->entity.len ? options->entity : out->shape.name;
    out->shape.scope = options->scope.len ? options->scope : SLICE("");
    if (options->scope_column.len) {
        out->shape.scope_column = schema_column_index(&out->shape, options->scope_column);
    }
    out->active = true;
    return check_shape(g, options, out);
}

/* ---- The kept text ---- */

static void write_names(bytes *b, bool *first, const char *member, const slice *names,
                        size_t count) {
    bool first_name = true;
    json_key(b, first, member);
    bytes_char(b, '[');
    for (size_t i = 0; i < count; i++) {
        json_comma(b, &first_name);
        json_write_text(b, names[i]);
    }
    bytes_char(b, ']');
}

static void write_member(bytes *b, bool *first, const char *member, slice text) {
    if (text.len) {
        json_key(b, first, member);
        json_write_text(b, text);
    }
}

slice shape_spec(arena *a, const client_table *t, const track_options *options) {
    slice slots[COLUMNS_MAX];
    bool first = true;
    bytes b;
    for (size_t i = 0; i < t->data_count; i++) {
        slots[i] = t->shape.columns[t->data_columns[i]].name;
    }
    bytes_init(&b, a->allocator, 0);
    bytes_char(&b, '{');
    write_member(&b, &first, "entity", t->shape.entity);
    write_member(&b, &first, "scope", t->shape.scope);
    write_member(&b, &first, "scopeColumn", options->scope_column);
    write_member(&b, &first, "ids", options->app_ids ? SLICE("app") : SLICE(""));
    write_member(&b, &first, "initial", options->ignore ? SLICE("ignore") : SLICE(""));
    if (options->column_count) {
        write_names(&b, &first, "columns", options->columns, options->column_count);
    }
    write_names(&b, &first, "slots", slots, t->data_count);
    json_key(&b, &first, "table");
    schema_table_to_json(&b, &t->shape);
    bytes_char(&b, '}');
    slice copy = b.failed ? (slice){0} : arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    return copy;
}

/* An entity that is no table: only its name. */
static godwit_status queue_from_spec(client_table *out) {
    out->queue = true;
    out->shape.entity = out->shape.name;
    return GODWIT_OK;
}

static godwit_status table_from_spec(godwit *g, arena *a, const json *root, client_table *out,
                                     track_options *options) {
    schema one = {0};
    const json *table = json_get(root, "table");
    const json *slots = json_get(root, "slots");
    if (!json_is(table, JSON_OBJECT) || !json_is(slots, JSON_ARRAY)) {
        return GODWIT_CORRUPT;
    }
    /* the reader takes a list of tables */
    const json *list = NULL;
    const char *reason = NULL;
    char *text = arena_printf(a, "[" SLICE_FMT "]", SLICE_ARG(table->u.s));
    if (!text) {
        return GODWIT_NOMEM;
    }
    godwit_status status = json_parse(a, slice_of(text), &list, NULL);
    if (status == GODWIT_OK) {
        status = schema_from_json(a, list, &one, &reason);
    }
    if (status == GODWIT_OK) {
        status = read_options(g, a, root, options);
    }
    if (status != GODWIT_OK) {
        return status == GODWIT_NOMEM ? status : GODWIT_CORRUPT;
    }
    slice name = out->shape.name;
    out->shape = one.tables[0];
    out->shape.name = name;
    out->shape.entity = options->entity.len ? options->entity : name;
    out->shape.scope = options->scope.len ? options->scope : SLICE("");
    if (options->scope_column.len) {
        out->shape.scope_column = schema_column_index(&out->shape, options->scope_column);
    }
    slice *names = ARENA_ARRAY(a, slice, slots->count + 1);
    const json *item = json_first(slots);
    for (uint32_t i = 0; names && i < slots->count; i++, item = json_after(item)) {
        if (!json_text(item, &names[i])) {
            return GODWIT_CORRUPT;
        }
    }
    return names ? order_slots(a, names, slots->count, out) : GODWIT_NOMEM;
}

godwit_status shape_from_spec(godwit *g, arena *a, slice name, slice spec, client_table *out,
                              track_options *options) {
    const json *root = NULL;
    bool queue = false;
    memset(options, 0, sizeof *options);
    memset(out, 0, sizeof *out);
    out->spec = spec;
    out->shape.name = name;
    out->shape.scope = SLICE("");
    out->shape.scope_column = -1;
    godwit_status status = json_parse(a, spec, &root, NULL);
    if (status == GODWIT_OK && json_bool(json_get(root, "queue"), &queue) && queue) {
        slice entity = {0};
        if (!json_text(json_get(root, "entity"), &entity)) {
            status = GODWIT_CORRUPT;
        } else {
            out->shape.name = entity;
            return queue_from_spec(out);
        }
    } else if (status == GODWIT_OK) {
        status = table_from_spec(g, a, root, out, options);
    }
    if (status != GODWIT_OK && status != GODWIT_NOMEM) {
        return client_fail(g, GODWIT_CORRUPT,
                           "godwit_table: the entry of table \"" SLICE_FMT "\" can't be read",
                           SLICE_ARG(name));
    }
    return status;
}
