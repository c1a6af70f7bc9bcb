/* Thin SQLite helper. See db.h. */
#include "db/db.h"

#include <stdarg.h>
#include <stdio.h>

static uint64_t text_hash(const char *text) {
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *text; text++) {
        h = (h ^ (unsigned char)*text) * UINT64_C(1099511628211);
    }
    return h ? h : 1;
}

static godwit_status status_of_code(int rc) {
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return GODWIT_OK;
    case SQLITE_NOMEM:
        return GODWIT_NOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return GODWIT_BUSY;
    case SQLITE_FULL:
        return GODWIT_FULL;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return GODWIT_READONLY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return GODWIT_CORRUPT;
    case SQLITE_CONSTRAINT:
        return GODWIT_CONSTRAINT;
    case SQLITE_TOOBIG:
        return GODWIT_LIMIT;
    case SQLITE_MISUSE:
        return GODWIT_INTERNAL;
    case SQLITE_ERROR:
        return GODWIT_INVALID;
    default:
        return GODWIT_IO;
    }
}

godwit_status db_status(db *d, int rc) {
    godwit_status status = status_of_code(rc);
    if (status != GODWIT_OK) {
        snprintf(d->message, sizeof d->message, "%s",
                 !d->handle ? sqlite3_errstr(rc)
                 : sqlite3_extended_errcode(d->handle) == SQLITE_BUSY_SNAPSHOT
                     ? "a statement of this connection is still reading what was there before:"
                       " finish it first"
                     : sqlite3_errmsg(d->handle));
    }
    return status;
}

godwit_status db_open(db *d, const char *path, int flags, int busy_ms) {
    memset(d, 0, sizeof *d);
    d->owned = true;
    int rc = sqlite3_open_v2(path, &d->handle, flags, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_extended_result_codes(d->handle, 1);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_busy_timeout(d->handle, busy_ms);
    }
    godwit_status status = db_status(d, rc);
    if (status != GODWIT_OK) {
        sqlite3_close_v2(d->handle);
        d->handle = NULL;
    }
    return status;
}

void db_attach(db *d, sqlite3 *handle) {
    memset(d, 0, sizeof *d);
    d->handle = handle;
}

static void forget_undo(db *d) {
    for (size_t i = 0; i < DB_UNDO_COUNT; i++) {
        sqlite3_finalize(d->undo[i]);
        d->undo[i] = NULL;
    }
}

static void forget_idle(db *d) {
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
        if (d->cache[i].stmt && !d->cache[i].busy) {
            sqlite3_finalize(d->cache[i].stmt);
            d->cache[i] = (db_slot){0};
        }
    }
}

void db_forget(db *d) {
    if (d->depth == 0) {
        forget_undo(d);
    }
    forget_idle(d);
}

void db_close(db *d) {
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
        sqlite3_finalize(d->cache[i].stmt);
        d->cache[i] = (db_slot){0};
    }
    forget_undo(d);
    if (d->owned) {
        sqlite3_close_v2(d->handle);
    }
    d->handle = NULL;
}

godwit_status db_prepare(db *d, const char *sql, sqlite3_stmt **out) {
    *out = NULL;
    uint64_t hash = text_hash(sql);
    size_t free_slot = DB_CACHE_SLOTS;
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
        size_t at = (size_t)(hash + i) % DB_CACHE_SLOTS;
        db_slot *slot = &d->cache[at];
        if (!slot->stmt) {
            if (free_slot == DB_CACHE_SLOTS) {
                free_slot = at;
            }
            continue; /* forgotten slots leave holes: look on */
        }
        if (slot->hash == hash && !slot->busy && strcmp(sqlite3_sql(slot->stmt), sql) == 0) {
            slot->busy = true;
            *out = slot->stmt;
            return GODWIT_OK;
        }
    }
    bool cached = free_slot < DB_CACHE_SLOTS;
    int rc = sqlite3_prepare_v3(d->handle, sql, -1, cached ? SQLITE_PREPARE_PERSISTENT : 0, out, NULL);
    if (rc == SQLITE_OK && cached && *out) {
        d->cache[free_slot] = (db_slot){hash, *out, true};
    }
    return db_status(d, rc);
}

void db_done(db *d, sqlite3_stmt *stmt) {
    if (!stmt) {
        return;
    }
    size_t start = (size_t)text_hash(sqlite3_sql(stmt));
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
        db_slot *slot = &d->cache[(start + i) % DB_CACHE_SLOTS];
        if (slot->stmt == stmt) {
            sqlite3_reset(stmt);
            sqlite3_clear_bindings(stmt);
            slot->busy = false;
            return;
        }
    }
    sqlite3_finalize(stmt);
}

godwit_status db_exec(db *d, const char *sql) {
    return db_status(d, sqlite3_exec(d->handle, sql, NULL, NULL, NULL));
}

godwit_status db_bind_int(db *d, sqlite3_stmt *stmt, int index, int64_t v) {
    return db_status(d, sqlite3_bind_int64(stmt, index, v));
}

godwit_status db_bind_slice(db *d, sqlite3_stmt *stmt, int index, slice s) {
    if (!s.ptr && s.len == 0) {
        return db_status(d, sqlite3_bind_null(stmt, index));
    }
    return db_status(d, sqlite3_bind_text64(stmt, index, s.ptr, s.len, SQLITE_STATIC, SQLITE_UTF8));
}

godwit_status db_bind_blob(db *d, sqlite3_stmt *stmt, int index, slice s) {
    if (!s.ptr && s.len == 0) {
        return db_status(d, sqlite3_bind_null(stmt, index));
    }
    return db_status(d, sqlite3_bind_blob64(stmt, index, s.ptr, s.len, SQLITE_STATIC));
}

godwit_status db_bind_value(db *d, sqlite3_stmt *stmt, int index, const value *v) {
    switch ((value_type)v->type) {
    case VALUE_NULL:
        return db_status(d, sqlite3_bind_null(stmt, index));
    case VALUE_INT:
        return db_status(d, sqlite3_bind_int64(stmt, index, v->u.i));
    case VALUE_REAL:
        return db_status(d, sqlite3_bind_double(stmt, index, v->u.d));
    case VALUE_TEXT:
        return db_bind_slice(d, stmt, index, v->u.s.ptr ? v->u.s : SLICE(""));
    case VALUE_BLOB:
        return v->u.s.len ? db_bind_blob(d, stmt, index, v->u.s)
                          : db_status(d, sqlite3_bind_zeroblob(stmt, index, 0));
    case VALUE_SPECIAL:
        break;
    }
    snprintf(d->message, sizeof d->message, "a column operation can't be stored as a value");
    return GODWIT_INVALID;
}

static godwit_status bind_all(db *d, sqlite3_stmt *stmt, const char *types, va_list args) {
    godwit_status status = GODWIT_OK;
    int index = 1;
    for (const char *t = types; *t && status == GODWIT_OK; t++, index++) {
        switch (*t) {
        case 'i':
            status = db_bind_int(d, stmt, index, va_arg(args, int64_t));
            break;
        case 'd':
            status = db_status(d, sqlite3_bind_double(stmt, index, va_arg(args, double)));
            break;
        case 's':
            status = db_bind_slice(d, stmt, index, va_arg(args, slice));
            break;
        case 'b':
            status = db_bind_blob(d, stmt, index, va_arg(args, slice));
            break;
        case 'v':
            status = db_bind_value(d, stmt, index, va_arg(args, const value *));
            break;
        default:
            ASSERT(*t == 'n');
            status = db_status(d, sqlite3_bind_null(stmt, index));
        }
    }
    return status;
}

godwit_status db_step(db *d, sqlite3_stmt *stmt, bool *row) {
    int rc = sqlite3_step(stmt);
    *row = rc == SQLITE_ROW;
    return db_status(d, rc);
}

/* Prepares, binds and makes the first step. On success the caller gives *stmt back. */
static godwit_status start(db *d, const char *sql, const char *types, va_list args,
                           sqlite3_stmt **stmt, bool *row) {
    godwit_status status = db_prepare(d, sql, stmt);
    if (status == GODWIT_OK) {
        status = bind_all(d, *stmt, types, args);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, *stmt, row);
    }
    if (status != GODWIT_OK) {
        db_done(d, *stmt);
        *stmt = NULL;
    }
    return status;
}

godwit_status db_run(db *d, const char *sql, const char *types, ...) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    va_list args;
    va_start(args, types);
    godwit_status status = start(d, sql, types, args, &stmt, &row);
    va_end(args);
    while (status == GODWIT_OK && row) {
        status = db_step(d, stmt, &row);
    }
    db_done(d, stmt);
    return status;
}

godwit_status db_int(db *d, int64_t *out, const char *sql, const char *types, ...) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    *out = 0;
    va_list args;
    va_start(args, types);
    godwit_status status = start(d, sql, types, args, &stmt, &row);
    va_end(args);
    if (status == GODWIT_OK) {
        if (row) {
            *out = sqlite3_column_int64(stmt, 0);
        } else {
            status = GODWIT_NOT_FOUND;
        }
    }
    db_done(d, stmt);
    return status;
}

godwit_status db_text(db *d, arena *a, slice *out, const char *sql, const char *types, ...) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    *out = (slice){0};
    va_list args;
    va_start(args, types);
    godwit_status status = start(d, sql, types, args, &stmt, &row);
    va_end(args);
    if (status == GODWIT_OK && !row) {
        status = GODWIT_NOT_FOUND;
    } else if (status == GODWIT_OK && sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
        *out = arena_copy(a, db_column_slice(stmt, 0));
        status = out->ptr ? GODWIT_OK : GODWIT_NOMEM;
    }
    db_done(d, stmt);
    return status;
}

slice db_column_slice(sqlite3_stmt *stmt, int column) {
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL) {
        return (slice){0};
    }
    const void *data = sqlite3_column_type(stmt, column) == SQLITE_BLOB
                           ? sqlite3_column_blob(stmt, column)
                           : (const void *)sqlite3_column_text(stmt, column);
    return (slice){data ? data : "", (size_t)sqlite3_column_bytes(stmt, column)};
}

void db_column_value(sqlite3_stmt *stmt, int column, value *out) {
    memset(out, 0, sizeof *out);
    switch (sqlite3_column_type(stmt, column)) {
    case SQLITE_INTEGER:
        out->type = VALUE_INT;
        out->u.i = sqlite3_column_int64(stmt, column);
        break;
    case SQLITE_FLOAT:
        out->type = VALUE_REAL;
        out->u.d = sqlite3_column_double(stmt, column);
        break;
    case SQLITE_TEXT:
        out->type = VALUE_TEXT;
        out->u.s = db_column_slice(stmt, column);
        break;
    case SQLITE_BLOB:
        out->type = VALUE_BLOB;
        out->u.s = db_column_slice(stmt, column);
        break;
    default:
        out->type = VALUE_NULL;
    }
}

/* A rollback that has to be prepared first fails when memory is short, and the transaction would
 * stay open: on a lent connection the application would go on writing in it, and lose that. */
static godwit_status prepare_undo(db *d, int from, int to) {
    static const char *const sql[DB_UNDO_COUNT] = {"ROLLBACK", "ROLLBACK TO godwit_step",
                                                   "RELEASE godwit_step"};
    int rc = SQLITE_OK;
    for (int i = from; i <= to && rc == SQLITE_OK; i++) {
        if (!d->undo[i]) {
            rc = sqlite3_prepare_v3(d->handle, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &d->undo[i],
                                    NULL);
        }
    }
    return db_status(d, rc);
}

static int undo_once(db *d, int which) {
    (void)sqlite3_step(d->undo[which]);
    return sqlite3_reset(d->undo[which]);
}

/* SQLite prepares it once more where the schema or a setting has changed since. Then what idle
 * statements hold is given back first. */
static void undo(db *d, int which) {
    if ((undo_once(d, which) & 0xff) == SQLITE_NOMEM) {
        forget_idle(d);
        (void)sqlite3_db_release_memory(d->handle);
        (void)undo_once(d, which);
    }
}

static godwit_status begin(db *d, const char *sql) {
    godwit_status status = d->depth == 0 ? prepare_undo(d, DB_UNDO_ALL, DB_UNDO_ALL)
                                         : prepare_undo(d, DB_UNDO_STEP, DB_UNDO_RELEASE);
    if (status == GODWIT_OK) {
        status = db_exec(d, sql);
    }
    if (status == GODWIT_OK) {
        d->depth++;
    }
    return status;
}

godwit_status db_begin(db *d) {
    return begin(d, d->depth == 0 ? "BEGIN IMMEDIATE" : "SAVEPOINT godwit_step");
}

godwit_status db_begin_read(db *d) {
    ASSERT(d->depth == 0);
    return begin(d, "BEGIN DEFERRED");
}

godwit_status db_commit(db *d) {
    ASSERT(d->depth > 0);
    godwit_status status = db_exec(d, d->depth == 1 ? "COMMIT" : "RELEASE godwit_step");
    if (status == GODWIT_OK) {
        d->depth--;
    }
    return status;
}

void db_rollback(db *d) {
    ASSERT(d->depth > 0);
    d->depth--;
    /* SQLite may have rolled the whole transaction back already (FULL, IOERR): nothing is left then */
    if (!sqlite3_get_autocommit(d->handle)) {
        if (d->depth == 0) {
            undo(d, DB_UNDO_ALL);
        } else {
            undo(d, DB_UNDO_STEP);
            undo(d, DB_UNDO_RELEASE);
        }
    }
}

godwit_status db_migrate(db *d, const char *table, const char *const *steps, int count) {
    char sql[256];
    int64_t version = 0;
    godwit_status status =
        db_int(d, &version, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", "s",
               slice_of(table));
    if (status == GODWIT_OK && version > 0) {
        snprintf(sql, sizeof sql, "SELECT v FROM \"%s\" WHERE k = 'schema_version'", table);
        status = db_int(d, &version, sql, "");
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    if (status == GODWIT_OK && version > count) {
        snprintf(d->message, sizeof d->message,
                 "the database has Godwit schema %d, this build knows up to %d: update Godwit",
                 (int)version, count);
        return GODWIT_UNSUPPORTED;
    }
    for (int i = (int)version; i < count && status == GODWIT_OK; i++) {
        status = db_begin(d);
        if (status != GODWIT_OK) {
            break;
        }
        status = db_exec(d, steps[i]);
        if (status == GODWIT_OK) {
            snprintf(sql, sizeof sql,
                     "INSERT OR REPLACE INTO \"%s\"(k, v) VALUES ('schema_version', %d)", table, i + 1);
            status = db_exec(d, sql);
        }
        if (status == GODWIT_OK) {
            status = db_commit(d);
        }
        if (status != GODWIT_OK) {
            db_rollback(d);
        }
    }
    return status;
}
