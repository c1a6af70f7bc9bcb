/* Typed tables of the SQLite store: made from a schema file, made or widened as devices declare
 * them, and read back as the registry.
 *
 * A schema file is first run in a database in memory: that checks it, and what it contains besides
 * definitions (rows, pragmas) has no effect here. Definitions that the store does not have are then
 * made as they were written; a table that is there gains the columns it lacks. Nothing is ever
 * dropped. Which tables are tracked is a table of its own, so that a store opened without the file
 * still knows them. */
#include "server/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- reading ---- */

static godwit_status query(db *d, sqlite3_stmt **stmt, const char *sql, slice argument) {
    godwit_status status = db_prepare(d, sql, stmt);
    return status == GODWIT_OK ? db_bind_slice(d, *stmt, 1, argument) : status;
}

static godwit_status count_of(db *d, const char *sql, slice argument, size_t *out) {
    int64_t count = 0;
    godwit_status status = db_int(d, &count, sql, "s", argument);
    *out = status == GODWIT_OK ? (size_t)count : 0;
    return status;
}

static godwit_status read_columns(db *d, arena *a, schema_table *t) {
    godwit_status status =
        count_of(d, "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE hidden = 0", t->name,
                 &t->column_count);
    sqlite3_stmt *stmt = NULL;
    if (status == GODWIT_OK && t->column_count > COLUMNS_MAX + KEY_COLUMNS_MAX) {
        snprintf(d->message, sizeof d->message, "table %.*s has more than %d columns",
                 SLICE_ARG(t->name), COLUMNS_MAX);
        return GODWIT_LIMIT;
    }
    if (status == GODWIT_OK) {
        t->columns = ARENA_ARRAY(a, schema_column, t->column_count);
        status = t->columns ? query(d, &stmt,
                                    "SELECT name, type, \"notnull\", dflt_value IS NULL, pk"
                                    " FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid",
                                    t->name)
                            : GODWIT_NOMEM;
    }
    bool row = false;
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        schema_column *column = &t->columns[i];
        int pk = sqlite3_column_int(stmt, 4);
        column->name = copied(a, stmt, 0);
        column->type = copied(a, stmt, 1);
        column->is_key = pk > 0;
        column->not_null = sqlite3_column_int(stmt, 2) && sqlite3_column_int(stmt, 3);
        if (pk > KEY_COLUMNS_MAX) {
            status = GODWIT_LIMIT;
        } else if (pk > 0) {
            t->key[pk - 1] = (int)i;
            t->key_kinds[pk - 1] = schema_key_kind(column->type);
            t->key_count = t->key_count > (size_t)pk ? t->key_count : (size_t)pk;
        }
    }
    db_done(d, stmt);
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

/* Columns of one foreign key; "to" is NULL where it refers to the parent's primary key. */
static godwit_status read_key_columns(db *d, arena *a, const schema_table *t, int64_t id,
                                      schema_fk *fk) {
    int64_t count = 0;
    godwit_status status =
        db_int(d, &count, "SELECT count(*) FROM pragma_foreign_key_list(?1) WHERE id = ?2", "si",
               t->name, id);
    int *columns = status == GODWIT_OK ? ARENA_ARRAY(a, int, (size_t)count) : NULL;
    slice *refs = status == GODWIT_OK ? ARENA_ARRAY(a, slice, (size_t)count) : NULL;
    if (!columns || !refs) {
        return status == GODWIT_OK ? GODWIT_NOMEM : status;
    }
    sqlite3_stmt *stmt = NULL;
    status = query(
        d, &stmt,
        "SELECT f.\"from\", coalesce(f.\"to\", (SELECT name FROM pragma_table_xinfo(f.\"table\")"
        " WHERE pk = f.seq + 1)), f.\"table\", f.on_delete"
        " FROM pragma_foreign_key_list(?1) f WHERE f.id = ?2 ORDER BY f.seq",
        t->name);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, id);
    }
    bool row = true;
    while (status == GODWIT_OK && fk->count < (size_t)count) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        slice from = db_column_slice(stmt, 0);
        columns[fk->count] = schema_column_index(t, from);
        refs[fk->count] = copied(a, stmt, 1);
        fk->table = copied(a, stmt, 2);
        fk->on_delete = copied(a, stmt, 3);
        if (columns[fk->count] < 0 || !refs[fk->count].ptr) {
            snprintf(d->message, sizeof d->message, "a foreign key of table %.*s can't be followed",
                     SLICE_ARG(t->name));
            status = GODWIT_INVALID;
        }
        fk->count++;
    }
    db_done(d, stmt);
    fk->columns = columns;
    fk->ref_columns = refs;
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

/* `declared`: the foreignKeys array a device declared, or empty. */
static godwit_status read_declared_keys(arena *a, schema_table *t, slice declared) {
    const json *list = NULL;
    if (declared.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, declared, &list, NULL);
    if (status != GODWIT_OK || !json_is(list, JSON_ARRAY)) {
        return status == GODWIT_OK ? GODWIT_CORRUPT : status;
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        schema_fk *fk = &t->fks[t->fk_count];
        const json *from = json_get(item, "columns");
        const json *to = json_get(item, "refColumns");
        if (!json_is(from, JSON_ARRAY) || !json_is(to, JSON_ARRAY) || from->count != to->count) {
            return GODWIT_CORRUPT;
        }
        int *columns = ARENA_ARRAY(a, int, from->count);
        slice *refs = ARENA_ARRAY(a, slice, from->count);
        if (!columns || !refs) {
            return GODWIT_NOMEM;
        }
        const json *f = json_first(from);
        const json *r = json_first(to);
        bool known = true;
        for (uint32_t k = 0; k < from->count; k++, f = json_after(f), r = json_after(r)) {
            slice name = {0};
            known = known && json_text(f, &name) && json_text(r, &refs[k]);
            columns[k] = known ? schema_column_index(t, name) : -1;
            known = known && columns[k] >= 0;
        }
        (void)json_text(json_get(item, "table"), &fk->table);
        (void)json_text(json_get(item, "onDelete"), &fk->on_delete);
        fk->columns = columns;
        fk->ref_columns = refs;
        fk->count = from->count;
        t->fk_count += known && fk->count > 0;
    }
    return GODWIT_OK;
}

static godwit_status read_keys(db *d, arena *a, schema_table *t, slice declared) {
    size_t enforced = 0;
    const json *list = NULL;
    godwit_status status = count_of(d, "SELECT count(DISTINCT id) FROM pragma_foreign_key_list(?1)",
                                    t->name, &enforced);
    if (status == GODWIT_OK && declared.len) {
        status = json_parse(a, declared, &list, NULL);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    t->fks = ARENA_ARRAY(a, schema_fk, enforced + (list ? list->count : 0));
    if (!t->fks) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; status == GODWIT_OK && i < enforced; i++) {
        status = read_key_columns(d, a, t, (int64_t)i, &t->fks[i]);
        t->fk_count++;
    }
    return status == GODWIT_OK ? read_declared_keys(a, t, declared) : status;
}

godwit_status lite_schema_read(store *st, arena *a, schema *out) {
    db *d = &st->d;
    memset(out, 0, sizeof *out);
    int64_t count = 0;
    godwit_status status = db_int(d, &count, "SELECT count(*) FROM godwit_table", "");
    if (status == GODWIT_OK) {
        status =
            db_int(d, &out->version,
                   "SELECT coalesce(max(v), 0) FROM godwit_meta WHERE k = 'registry_version'", "");
    }
    out->tables = status == GODWIT_OK ? ARENA_ARRAY(a, schema_table, (size_t)count) : NULL;
    sqlite3_stmt *stmt = NULL;
    if (status == GODWIT_OK) {
        status = out->tables
                     ? db_prepare(d, "SELECT name, declared_keys FROM godwit_table ORDER BY number",
                                  &stmt)
                     : GODWIT_NOMEM;
    }
    bool row = false;
    while (status == GODWIT_OK && out->table_count < (size_t)count) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        schema_table *t = &out->tables[out->table_count];
        *t = (schema_table){.scope_column = -1,
                            .initial_column = -1,
                            .deleted_column = -1,
                            .created_by_device_column = -1,
                            .updated_at_column = -1,
                            .vector_clock_column = -1,
                            .number = (int)out->table_count};
        t->name = copied(a, stmt, 0);
        t->entity = t->name;
        slice declared = copied(a, stmt, 1);
        status = a->failed ? GODWIT_NOMEM : read_columns(d, a, t);
        if (status == GODWIT_OK) {
            status = read_keys(d, a, t, declared);
        }
        if (status == GODWIT_OK && t->key_count == 0) {
            snprintf(d->message, sizeof d->message, "the tracked table %.*s is gone from the store",
                     SLICE_ARG(t->name));
            status = GODWIT_CORRUPT;
        }
        out->table_count++;
    }
    db_done(d, stmt);
    if (status != GODWIT_OK) {
        memset(out, 0, sizeof *out);
    }
    return status;
}

/* ---- making ---- */

static godwit_status track(db *d, slice name, slice declared_keys) {
    godwit_status status =
        db_run(d,
               "INSERT INTO godwit_table(name, number, declared_keys)"
               " VALUES (?1, (SELECT count(*) FROM godwit_table), ?2)"
               " ON CONFLICT(name) DO UPDATE SET declared_keys = coalesce(?2, declared_keys)",
               "ss", name, declared_keys);
    return status == GODWIT_OK
               ? db_exec(d, "INSERT INTO godwit_meta(k, v) VALUES ('registry_version', 1)"
                            " ON CONFLICT(k) DO UPDATE SET v = v + 1")
               : status;
}

static godwit_status add_column(store *st, slice table, slice name, slice type, slice default_sql,
                                bool not_null) {
    bytes *sql = &st->text;
    bytes_clear(sql);
    bytes_text(sql, "ALTER TABLE ");
    bytes_identifier(sql, table);
    bytes_text(sql, " ADD COLUMN ");
    bytes_identifier(sql, name);
    bytes_char(sql, ' ');
    bytes_slice(sql, type);
    if (default_sql.len) {
        bytes_text(sql, " DEFAULT (");
        bytes_slice(sql, default_sql);
        bytes_char(sql, ')');
    }
    bytes_text(sql, not_null ? " NOT NULL" : "");
    return sql->failed ? GODWIT_NOMEM : db_exec(&st->d, sql->ptr);
}

godwit_status lite_column_rename(store *st, slice table, slice from, slice to) {
    int64_t fits = 0;
    godwit_status status =
        db_int(&st->d, &fits,
               "SELECT (SELECT count(*) FROM godwit_table WHERE name = ?1) AND (SELECT count(*) FROM"
               " pragma_table_xinfo(?1) WHERE name = ?2) AND NOT (SELECT count(*) FROM"
               " pragma_table_xinfo(?1) WHERE name = ?3)",
               "sss", table, from, to);
    if (status != GODWIT_OK || !fits) {
        return status;
    }
    bytes *sql = &st->text;
    bytes_clear(sql);
    bytes_text(sql, "ALTER TABLE ");
    bytes_identifier(sql, table);
    bytes_text(sql, " RENAME COLUMN ");
    bytes_identifier(sql, from);
    bytes_text(sql, " TO ");
    bytes_identifier(sql, to);
    status = sql->failed ? GODWIT_NOMEM : db_exec(&st->d, sql->ptr);
    return status == GODWIT_OK ? track(&st->d, table, (slice){0}) : status;
}

static godwit_status read_file(const char *path, bytes *out) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        return GODWIT_IO;
    }
    char block[8192];
    size_t n;
    while ((n = fread(block, 1, sizeof block, file)) > 0) {
        bytes_add(out, block, n);
    }
    bool failed = ferror(file) != 0;
    (void)fclose(file);
    return failed ? GODWIT_IO : out->failed ? GODWIT_LIMIT : GODWIT_OK;
}

/* Columns that `name` has in the file's database and not in the store. */
static godwit_status widen(store *st, db *draft, slice name) {
    sqlite3_stmt *stmt = NULL;
    godwit_status status = query(
        draft, &stmt,
        "SELECT name, type, dflt_value, \"notnull\" FROM pragma_table_xinfo(?1) WHERE hidden = 0",
        name);
    bool row = false;
    while (status == GODWIT_OK) {
        status = db_step(draft, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        int64_t there = 0;
        slice column = db_column_slice(stmt, 0);
        status =
            db_int(&st->d, &there, "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE name = ?2",
                   "ss", name, column);
        if (status != GODWIT_OK || there) {
            continue;
        }
        bool not_null = sqlite3_column_int(stmt, 3) != 0;
        slice fallback = db_column_slice(stmt, 2);
        if (not_null && !fallback.len) {
            snprintf(
                st->d.message, sizeof st->d.message,
                "column %.*s of table %.*s is new and NOT NULL: it needs a DEFAULT for the rows"
                " there are",
                SLICE_ARG(column), SLICE_ARG(name));
            status = GODWIT_INVALID;
        } else {
            status = add_column(st, name, column, db_column_slice(stmt, 1), fallback, not_null);
        }
        if (status == GODWIT_OK) {
            status = track(&st->d, name, (slice){0});
        }
    }
    db_done(draft, stmt);
    return status;
}

static godwit_status carry_over(store *st, db *draft, sqlite3_stmt *item) {
    slice type = db_column_slice(item, 0);
    slice name = db_column_slice(item, 1);
    int64_t there = 0;
    int64_t tracked = 0;
    int64_t keyed = 0;
    godwit_status status =
        db_int(&st->d, &there, "SELECT count(*) FROM sqlite_schema WHERE type = ?1 AND name = ?2",
               "ss", type, name);
    if (status == GODWIT_OK && !there) {
        const char *sql = (const char *)sqlite3_column_text(item, 2);
        status = sql ? db_exec(&st->d, sql) : GODWIT_NOMEM;
    }
    if (status != GODWIT_OK || !slice_is(type, "table")) {
        return status;
    }
    if (there) {
        status = widen(st, draft, name);
    }
    if (status == GODWIT_OK) {
        status = db_int(&st->d, &tracked, "SELECT count(*) FROM godwit_table WHERE name = ?1", "s",
                        name);
    }
    if (status == GODWIT_OK) {
        status = db_int(draft, &keyed, "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE pk > 0",
                        "s", name);
    }
    return status == GODWIT_OK && !tracked && keyed ? track(&st->d, name, (slice){0}) : status;
}

static godwit_status carry_all(store *st, db *draft) {
    sqlite3_stmt *items = NULL;
    godwit_status status = db_prepare(
        draft,
        "SELECT s.type, s.name, s.sql FROM sqlite_schema s WHERE s.sql IS NOT NULL"
        " AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY CASE s.type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2"
        " ELSE 3 END, s.rowid",
        &items);
    bool row = false;
    while (status == GODWIT_OK) {
        status = db_step(draft, items, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        if (strncmp((const char *)sqlite3_column_text(items, 1), "godwit_", 7) == 0) {
            snprintf(st->d.message, sizeof st->d.message,
                     "names beginning with godwit_ are reserved");
            status = GODWIT_INVALID;
            break;
        }
        status = carry_over(st, draft, items);
    }
    db_done(draft, items);
    return status;
}

godwit_status lite_schema_file(store *st, const char *path, char *message) {
    db draft = {0};
    bytes text;
    bytes_init(&text, NULL, 4u << 20);
    godwit_status status = read_file(path, &text);
    if (status != GODWIT_OK) {
        snprintf(message, 512, "the schema file %s can't be read", path);
        bytes_deinit(&text);
        return status;
    }
    bytes_char(&text, '\n');
    status = text.failed
                 ? GODWIT_LIMIT
                 : db_open(&draft, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, 0);
    if (status == GODWIT_OK) {
        status = db_exec(&draft, text.ptr);
        if (status != GODWIT_OK) {
            snprintf(message, 512, "%s: %s", path, draft.message);
            goto out;
        }
    }
    if (status == GODWIT_OK) {
        status = lite_begin(st);
    }
    if (status == GODWIT_OK) {
        status = carry_all(st, &draft);
        if (status == GODWIT_OK) {
            status = lite_commit(st);
        }
    }
    if (status != GODWIT_OK) {
        snprintf(message, 512, "%s: %s", path, st->d.message);
        lite_rollback(st);
    }
out:
    db_close(&draft);
    bytes_deinit(&text);
    return status;
}

/* ---- adoption ---- */

/* A device's type name goes into DDL: words, then perhaps sizes in brackets, as in DECIMAL(10, 2).
 */
static bool type_name_plain(slice type) {
    bool inside = false;
    for (size_t i = 0; i < type.len; i++) {
        char c = type.ptr[i];
        bool digit = c >= '0' && c <= '9';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        bool fits = inside ? digit || c == ' ' || c == ',' || c == ')'
                           : letter || c == ' ' || (digit && i > 0) || (c == '(' && i > 0);
        if (!fits) {
            return false;
        }
        inside = c == '(' || (inside && c != ')');
    }
    if (inside || type.len > NAME_BYTES_MAX) {
        return false;
    }
    /* a word of SQL's column constraints would be one */
    static const char *const words[] = {"primary", "unique", "check",   "default",    "references",
                                        "not",     "null",   "collate", "generated",  "constraint",
                                        "as",      "on",     "always",  "deferrable", "initially"};
    size_t start = 0;
    for (size_t i = 0; i <= type.len; i++) {
        bool letter = i < type.len && type.ptr[i] != ' ' && type.ptr[i] != '(' &&
                      type.ptr[i] != ')' && type.ptr[i] != ',';
        if (letter) {
            continue;
        }
        for (size_t w = 0; w < COUNT_OF(words); w++) {
            if (i - start == strlen(words[w]) &&
                sqlite3_strnicmp(type.ptr + start, words[w], (int)(i - start)) == 0) {
                return false;
            }
        }
        start = i + 1;
    }
    return true;
}

static godwit_status adopt_table(store *st, const schema_table *t) {
    bytes *sql = &st->text;
    bytes_clear(sql);
    bytes_text(sql, "CREATE TABLE ");
    bytes_identifier(sql, t->name);
    bytes_char(sql, '(');
    for (size_t i = 0; i < t->column_count; i++) {
        bytes_text(sql, i ? ", " : "");
        bytes_identifier(sql, t->columns[i].name);
        bytes_char(sql, ' ');
        bytes_slice(sql, t->columns[i].type);
    }
    bytes_text(sql, ", PRIMARY KEY (");
    for (size_t i = 0; i < t->key_count; i++) {
        bytes_text(sql, i ? ", " : "");
        bytes_identifier(sql, t->columns[t->key[i]].name);
    }
    bytes_text(sql, "))");
    return sql->failed ? GODWIT_NOMEM : db_exec(&st->d, sql->ptr);
}

static godwit_status adopt_columns(store *st, const schema_table *t, bool *changed) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        int64_t there = 0;
        status =
            db_int(&st->d, &there, "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE name = ?2",
                   "ss", t->name, t->columns[i].name);
        if (status == GODWIT_OK && !there) {
            status =
                add_column(st, t->name, t->columns[i].name, t->columns[i].type, (slice){0}, false);
            *changed = true;
        }
    }
    return status;
}

static void write_keys(bytes *b, const schema_table *t) {
    bytes_clear(b);
    bytes_char(b, '[');
    for (size_t i = 0; i < t->fk_count; i++) {
        const schema_fk *fk = &t->fks[i];
        bytes_text(b, i ? ",{\"columns\":[" : "{\"columns\":[");
        for (size_t k = 0; k < fk->count; k++) {
            bytes_text(b, k ? "," : "");
            json_write_text(b, t->columns[fk->columns[k]].name);
        }
        bytes_text(b, "],\"table\":");
        json_write_text(b, fk->table);
        bytes_text(b, ",\"refColumns\":[");
        for (size_t k = 0; k < fk->count; k++) {
            bytes_text(b, k ? "," : "");
            json_write_text(b, fk->ref_columns[k]);
        }
        bytes_text(b, "],\"onDelete\":");
        json_write_text(b, fk->on_delete);
        bytes_char(b, '}');
    }
    bytes_char(b, ']');
}

godwit_status lite_schema_adopt(store *st, const schema *declared, bool *changed) {
    db *d = &st->d;
    godwit_status status = GODWIT_OK;
    *changed = false;
    for (size_t i = 0; status == GODWIT_OK && i < declared->table_count; i++) {
        const schema_table *t = &declared->tables[i];
        for (size_t k = 0; k < t->column_count; k++) {
            if (!type_name_plain(t->columns[k].type)) {
                snprintf(d->message, sizeof d->message,
                         "the type of column %.*s.%.*s is not a type name", SLICE_ARG(t->name),
                         SLICE_ARG(t->columns[k].name));
                return GODWIT_INVALID;
            }
        }
        if (t->name.len >= 7 && (sqlite3_strnicmp(t->name.ptr, "godwit_", 7) == 0 ||
                                 sqlite3_strnicmp(t->name.ptr, "sqlite_", 7) == 0)) {
            snprintf(d->message, sizeof d->message, "the table name %.*s is reserved",
                     SLICE_ARG(t->name));
            return GODWIT_INVALID;
        }
        int64_t there = 0;
        bool widened = false;
        status =
            db_int(d, &there, "SELECT count(*) FROM godwit_table WHERE name = ?1", "s", t->name);
        if (status == GODWIT_OK) {
            status = there ? adopt_columns(st, t, &widened) : adopt_table(st, t);
        }
        if (status == GODWIT_OK && (!there || widened)) {
            slice keys = {0};
            if (t->fk_count) {
                write_keys(&st->json, t);
                keys = bytes_view(&st->json);
                status = st->json.failed ? GODWIT_NOMEM : GODWIT_OK;
            }
            status = status == GODWIT_OK ? track(d, t->name, keys) : status;
            *changed = true;
        }
    }
    return status;
}
