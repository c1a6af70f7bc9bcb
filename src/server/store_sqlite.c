/* The SQLite store: the file itself, transactions, and the small tables.
 *
 * One connection writes (WAL, synchronous=FULL: a commit that was answered survives a power cut);
 * readers have their own. Foreign keys of the typed tables are checked by store_sqlite_typed.c and
 * never enforced by the connection: their actions would change rows that no operation names. */
#include "server/store_sqlite.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define BUSY_MS 5000
/* Memory for the short-lived parts of statements, without malloc and its lock: records of a usual
 * row fit. Half a megabyte, once. */
#define LOOKASIDE_BYTES 1024
#define LOOKASIDE_SLOTS 512

/* server.sql with SQLite's types. Times are milliseconds since 1970 UTC. What differs, and why:
 *  - godwit_name: scopes, devices, lineages and users are numbers in the four tables that every
 * operation fills (commit, change, row, op); texts of 32 bytes in each row and index would double
 * them
 *  - godwit_row.created_at/created_seq: meta of the columns without an entry of their own;
 *    vclock and col_meta NULL = as the creating operation left them
 *  - godwit_change.vclock/clock_seq: the row's vector clock for the feed, NULL = {"$":0, author:
 * clock_seq}
 *  - godwit_change.no: rows that are only added are cheapest in the order they come, and change is
 * the widest table. A commit's changes are those from first_change to last_change that name it
 * (none when last_change is less): numbers may be given again after everything was deleted
 *  - godwit_op.result: a whole number n = the after-image of change n of the commit (a create's row
 * is not stored twice)
 *  - godwit_table: which tables are tracked, and foreign keys that are declared but not enforced */
static const char *const steps[] = {
    "CREATE TABLE godwit_meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
    "CREATE TABLE godwit_name(no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE godwit_table(name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE,"
    " declared_keys TEXT) WITHOUT ROWID;"
    "CREATE TABLE godwit_scope(scope TEXT PRIMARY KEY, head INTEGER NOT NULL DEFAULT 0,"
    " horizon INTEGER NOT NULL DEFAULT 0, ledger_floor INTEGER NOT NULL DEFAULT 0,"
    " schema_ver INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;"
    "CREATE TABLE godwit_device(scope TEXT NOT NULL, device_id TEXT NOT NULL, user_id TEXT NOT "
    "NULL,"
    " lineage TEXT NOT NULL, label TEXT, registered_at INTEGER NOT NULL, last_seen INTEGER,"
    " state TEXT NOT NULL DEFAULT 'active' CHECK (state IN "
    "('active','forked','retired','revoked')),"
    " applied_seq INTEGER NOT NULL DEFAULT 0, last_key BLOB NOT NULL DEFAULT x'',"
    " confirmed_seq INTEGER NOT NULL DEFAULT 0, pulled_seq INTEGER NOT NULL DEFAULT 0,"
    " pulled_at INTEGER, last_at INTEGER NOT NULL DEFAULT 0, report TEXT,"
    " PRIMARY KEY (scope, device_id)) WITHOUT ROWID;"
    "CREATE TABLE godwit_commit(scope INTEGER NOT NULL, commit_seq INTEGER NOT NULL, salt INTEGER "
    "NOT "
    "NULL,"
    " origin TEXT NOT NULL, device_id INTEGER, first_seq INTEGER, last_seq INTEGER, outcome TEXT "
    "NOT "
    "NULL,"
    " user_id INTEGER, committed_at INTEGER NOT NULL, PRIMARY KEY (scope, commit_seq)) WITHOUT "
    "ROWID;"
    "CREATE TABLE godwit_change(scope INTEGER NOT NULL, commit_seq INTEGER NOT NULL, idx INTEGER "
    "NOT "
    "NULL,"
    " tbl TEXT NOT NULL, pk TEXT NOT NULL, kind TEXT NOT NULL, full_row INTEGER NOT NULL,"
    " prev_seq INTEGER, clock_seq INTEGER, vclock TEXT, cols TEXT,"
    " PRIMARY KEY (scope, commit_seq, idx)) WITHOUT ROWID;"
    "CREATE TABLE godwit_row(scope INTEGER NOT NULL, tbl TEXT NOT NULL, pk TEXT NOT NULL,"
    " ver INTEGER NOT NULL, gen INTEGER NOT NULL DEFAULT 1, created_ver INTEGER NOT NULL,"
    " created_at INTEGER NOT NULL, created_seq INTEGER NOT NULL, del_ver INTEGER, del_device TEXT,"
    " vclock TEXT, col_meta TEXT, last_image TEXT, PRIMARY KEY (scope, tbl, pk)) WITHOUT ROWID;"
    "CREATE TABLE godwit_op(scope INTEGER NOT NULL, device_id INTEGER NOT NULL, seq INTEGER NOT "
    "NULL,"
    " lineage INTEGER NOT NULL, lsn INTEGER NOT NULL, op_key BLOB NOT NULL, commit_seq INTEGER NOT "
    "NULL,"
    " outcome TEXT NOT NULL, code TEXT, detail TEXT, conflicts TEXT,"
    " result, PRIMARY KEY (scope, device_id, seq)) WITHOUT ROWID;"
    "CREATE INDEX godwit_op_origin ON godwit_op(scope, lineage, lsn);"
    "CREATE TABLE godwit_conflict(scope TEXT NOT NULL, conflict_id TEXT NOT NULL,"
    " commit_seq INTEGER NOT NULL, tbl TEXT NOT NULL, pk TEXT NOT NULL, kind TEXT NOT NULL,"
    " op_key BLOB NOT NULL, device_id TEXT, cols TEXT, base TEXT, theirs TEXT, ours TEXT, chosen "
    "TEXT,"
    " policy TEXT NOT NULL, winner TEXT NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('auto','open','resolved','reverted')),"
    " resolved_by TEXT, resolved_commit INTEGER, at INTEGER NOT NULL,"
    " PRIMARY KEY (scope, conflict_id)) WITHOUT ROWID;"
    "CREATE INDEX godwit_conflict_open ON godwit_conflict(scope, state) WHERE state = 'open';"
    "CREATE INDEX godwit_conflict_commit ON godwit_conflict(scope, commit_seq);"
    "CREATE TABLE godwit_idem(scope TEXT NOT NULL, idem_key TEXT NOT NULL, fingerprint BLOB NOT "
    "NULL,"
    " commit_seq INTEGER, at INTEGER NOT NULL, response TEXT, PRIMARY KEY (scope, idem_key))"
    " WITHOUT ROWID;",
    /* pruned: the log is deleted up to here, at most the horizon */
    "ALTER TABLE godwit_scope ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX godwit_conflict_done ON godwit_conflict(scope, at) WHERE state <> 'open';"
    "CREATE INDEX godwit_idem_at ON godwit_idem(scope, at);",
    /* what an operation in conflict wanted, and who the two sides were */
    ("ALTER TABLE godwit_conflict ADD COLUMN operation TEXT;"
     "ALTER TABLE godwit_conflict ADD COLUMN writers TEXT;"),
    /* changes in the order they were written, found by way of their commit */
    ("CREATE TABLE godwit_change_was AS SELECT * FROM godwit_change ORDER BY scope, commit_seq, "
     "idx;"
     "DROP TABLE godwit_change;"
     "CREATE TABLE godwit_change(no INTEGER PRIMARY KEY, scope INTEGER NOT NULL,"
     " commit_seq INTEGER NOT NULL, idx INTEGER NOT NULL, tbl TEXT NOT NULL, pk TEXT NOT NULL,"
     " kind TEXT NOT NULL, full_row INTEGER NOT NULL, prev_seq INTEGER, clock_seq INTEGER,"
     " vclock TEXT, cols TEXT);"
     "INSERT INTO godwit_change SELECT rowid, * FROM godwit_change_was ORDER BY rowid;"
     "DROP TABLE godwit_change_was;"
     "ALTER TABLE godwit_commit ADD COLUMN first_change INTEGER NOT NULL DEFAULT 1;"
     "ALTER TABLE godwit_commit ADD COLUMN last_change INTEGER NOT NULL DEFAULT 0;"
     "UPDATE godwit_commit SET first_change = f.least, last_change = f.most FROM (SELECT scope,"
     " commit_seq, min(no) AS least, max(no) AS most FROM godwit_change GROUP BY scope, commit_seq)"
     " AS f WHERE f.scope = godwit_commit.scope AND f.commit_seq = godwit_commit.commit_seq;"),
};

static godwit_status explain(char *message, const char *what, const char *why,
                             godwit_status status) {
    snprintf(message, 512, "%s: %s", what, why);
    return status;
}

static godwit_status make_directory(const char *path, char *message) {
    struct stat info;
    if (mkdir(path, 0700) == 0) {
        return GODWIT_OK;
    }
    if (errno != EEXIST || stat(path, &info) != 0) {
        return explain(message, path, strerror(errno), GODWIT_IO);
    }
    if (!S_ISDIR(info.st_mode)) {
        return explain(message, path, "is not a directory", GODWIT_INVALID);
    }
    return GODWIT_OK;
}

const store_verbs store_sqlite_verbs = {
#define LITE_VERB(result, name, parameters, from, arguments) .name = lite_##name,
#define LITE_VOID(name, parameters, from, arguments)         .name = lite_##name,
    STORE_VERBS(LITE_VERB, LITE_VOID)
#undef LITE_VERB
#undef LITE_VOID
};

/* A predecessor that was killed between writing a commit and syncing it left the commit in the log,
 * where it is found again; until the next sync a power cut could still take it, after it was read
 * and sent to devices. Any commit syncs the whole log. */
static godwit_status make_durable(db *d) {
    godwit_status status = db_begin(d);
    if (status == GODWIT_OK) {
        status = db_exec(d, "INSERT INTO godwit_meta(k, v) VALUES ('starts', 1)"
                            " ON CONFLICT(k) DO UPDATE SET v = v + 1");
        status = status == GODWIT_OK ? db_commit(d) : status;
        if (status != GODWIT_OK) {
            db_rollback(d);
        }
    }
    return status;
}

godwit_status store_sqlite_open(const char *data_dir, store **out, char *message) {
    *out = NULL;
    godwit_status status = make_directory(data_dir, message);
    if (status != GODWIT_OK) {
        return status;
    }
    store *st = calloc(1, sizeof *st);
    size_t path_bytes = strlen(data_dir) + sizeof "/store.db";
    char *path = malloc(path_bytes);
    if (!st || !path) {
        free(st);
        free(path);
        return explain(message, data_dir, "out of memory", GODWIT_NOMEM);
    }
    snprintf(path, path_bytes, "%s/store.db", data_dir);
    st->base.verbs = &store_sqlite_verbs;
    st->path = path;
    bytes_init(&st->json, NULL, 0);
    bytes_init(&st->text, NULL, 0);
    status = db_open(&st->d, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                     BUSY_MS);
    if (status == GODWIT_OK) {
        (void)sqlite3_db_config(st->d.handle, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_BYTES,
                                LOOKASIDE_SLOTS);
    }
    if (status == GODWIT_OK) {
        status = db_exec(&st->d, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                 "PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF;"
                                 "PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;"
                                 "PRAGMA wal_autocheckpoint = 4000;");
    }
    if (status == GODWIT_OK) {
        status = db_migrate(&st->d, "godwit_meta", steps, (int)COUNT_OF(steps));
    }
    if (status == GODWIT_OK) {
        status = make_durable(&st->d);
    }
    if (status != GODWIT_OK) {
        explain(message, path, st->d.message, status);
        lite_close(st);
        return status;
    }
    *out = st;
    return GODWIT_OK;
}

void lite_close(store *st) {
    if (!st) {
        return;
    }
    connection_tables_drop(&st->tables);
    for (size_t i = 0; i < HOT_COUNT; i++) {
        sqlite3_finalize(st->hot[i]);
    }
    db_close(&st->d);
    bytes_deinit(&st->json);
    bytes_deinit(&st->text);
    free(st->path);
    free(st);
}

const char *lite_message(const store *st) {
    return st->d.message;
}

godwit_status stmt_once(db *d, sqlite3_stmt **slot, const char *sql) {
    if (*slot) {
        return GODWIT_OK;
    }
    return db_status(d,
                     sqlite3_prepare_v3(d->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL));
}

slice copied(arena *a, sqlite3_stmt *stmt, int column) {
    slice s = db_column_slice(stmt, column);
    return s.ptr ? arena_copy(a, s) : s;
}

/* ---- transactions ---- */

godwit_status lite_begin(store *st) {
    godwit_status status = st->lax ? db_exec(&st->d, STORE_DURABLE) : GODWIT_OK;
    if (status == GODWIT_OK) {
        st->lax = false;
        st->last_change = 0;
        status = db_begin(&st->d);
    }
    return status;
}
godwit_status lite_commit(store *st) {
    return db_commit(&st->d);
}
void lite_rollback(store *st) {
    memset(st->names, 0, sizeof st->names);
    while (st->d.depth > 0) {
        db_rollback(&st->d);
    }
}
godwit_status lite_savepoint(store *st) {
    ASSERT(st->d.depth > 0);
    return db_begin(&st->d);
}
void lite_rollback_to(store *st) {
    ASSERT(st->d.depth > 1);
    memset(st->names, 0, sizeof st->names); /* some may have been given in what is undone */
    db_rollback(&st->d);
}
godwit_status lite_release(store *st) {
    ASSERT(st->d.depth > 1);
    return db_commit(&st->d);
}

/* ---- names ---- */

static size_t name_slot(slice name) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.len; i++) {
        h = (h ^ (unsigned char)name.ptr[i]) * 16777619u;
    }
    return h % NAME_SLOTS;
}

godwit_status sqlite_name_find(db *d, slice name, int64_t *no) {
    *no = 0;
    if (name.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = db_int(d, no, "SELECT no FROM godwit_name WHERE name = ?1", "s", name);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

godwit_status sqlite_name(store *st, slice name, int64_t *no) {
    known_name *slot = &st->names[name_slot(name)];
    if (slot->no && slot->len == name.len && memcmp(slot->text, name.ptr, name.len) == 0) {
        *no = slot->no;
        return GODWIT_OK;
    }
    godwit_status status = sqlite_name_find(&st->d, name, no);
    if (status == GODWIT_OK && *no == 0 && name.len) {
        status = db_run(&st->d, "INSERT INTO godwit_name(name) VALUES (?1)", "s", name);
        *no = sqlite3_last_insert_rowid(st->d.handle);
    }
    if (status == GODWIT_OK && name.len && name.len <= sizeof slot->text) {
        slot->no = *no;
        slot->len = name.len;
        memcpy(slot->text, name.ptr, name.len);
    }
    return status;
}

godwit_status sqlite_last_change(store *st) {
    return st->last_change ? GODWIT_OK
                           : db_int(&st->d, &st->last_change,
                                    "SELECT coalesce(max(no), 0) FROM godwit_change", "");
}

/* ---- scope ---- */

godwit_status sqlite_scope_load(db *d, slice scope, store_scope *out) {
    *out = (store_scope){0};
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    godwit_status status = db_prepare(
        d, "SELECT head, horizon, ledger_floor FROM godwit_scope WHERE scope = ?1", &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *out = (store_scope){true, sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                             sqlite3_column_int64(stmt, 2), 0};
    }
    db_done(d, stmt);
    return status;
}

godwit_status lite_scope_load(store *st, slice scope, store_scope *out) {
    godwit_status status = sqlite_scope_load(&st->d, scope, out);
    sqlite3_randomness(sizeof out->salt, &out->salt);
    return status;
}

godwit_status lite_scope_save(store *st, slice scope, const store_scope *state, int64_t head) {
    if (state->exists && state->head == head) {
        return GODWIT_OK;
    }
    return db_run(&st->d,
                  "INSERT INTO godwit_scope(scope, head) VALUES (?1, ?2)"
                  " ON CONFLICT(scope) DO UPDATE SET head = ?2",
                  "si", scope, head);
}

/* ---- device ---- */

godwit_status sqlite_device_load(db *d, arena *a, slice scope, slice device_id,
                                 decide_device *out) {
    memset(out, 0, sizeof *out);
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    godwit_status status =
        db_prepare(d,
                   "SELECT user_id, lineage, state, applied_seq, confirmed_seq, last_key, last_at,"
                   " coalesce(last_seen, registered_at) FROM godwit_device WHERE scope = ?1 AND "
                   "device_id = ?2",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, device_id);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && !row) {
        status = GODWIT_NOT_FOUND;
    }
    if (status == GODWIT_OK) {
        out->device_id = arena_copy(a, device_id);
        out->user_id = copied(a, stmt, 0);
        out->lineage = copied(a, stmt, 1);
        slice state = db_column_slice(stmt, 2);
        out->state = store_device_state_of(state);
        out->applied_seq = sqlite3_column_int64(stmt, 3);
        out->confirmed_seq = sqlite3_column_int64(stmt, 4);
        slice key = db_column_slice(stmt, 5);
        if (key.len == SHA256_BYTES) {
            memcpy(out->last_key, key.ptr, SHA256_BYTES);
            out->has_last_key = true;
        }
        out->last_at_ms = sqlite3_column_int64(stmt, 6);
        out->last_seen_ms = sqlite3_column_int64(stmt, 7);
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    db_done(d, stmt);
    return status;
}

godwit_status lite_device_load(store *st, arena *a, slice scope, slice device_id,
                               decide_device *out) {
    return sqlite_device_load(&st->d, a, scope, device_id, out);
}

godwit_status lite_devices_load(store *st, arena *a, slice scope, const slice *ids, size_t count,
                                decide_device *out) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = sqlite_device_load(&st->d, a, scope, ids[i], &out[i]);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    return status;
}

godwit_status lite_device_insert(store *st, slice scope, const decide_device *device, slice label,
                                 int64_t now_ms) {
    return db_run(
        &st->d,
        "INSERT INTO godwit_device(scope, device_id, user_id, lineage, label, registered_at,"
        " last_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        "sssssi", scope, device->device_id, device->user_id, device->lineage, label, now_ms);
}

static godwit_status save_device(store *st, slice scope, const store_standing *standing,
                                 int64_t now_ms) {
    const decide_device *device = standing->device;
    slice key = {device->has_last_key ? (const char *)device->last_key : "",
                 device->has_last_key ? SHA256_BYTES : 0};
    return db_run(&st->d,
                  "UPDATE godwit_device SET applied_seq = ?3, confirmed_seq = ?4,"
                  " last_key = coalesce(?5, x''), last_at = ?6, last_seen = ?7,"
                  " pulled_seq = max(pulled_seq, ?8),"
                  " pulled_at = CASE WHEN ?8 >= 0 THEN ?7 ELSE pulled_at END,"
                  " report = coalesce(?9, report) WHERE scope = ?1 AND device_id = ?2",
                  "ssiibiiis", scope, device->device_id, device->applied_seq, device->confirmed_seq,
                  key, device->last_at_ms, now_ms, standing->pulled_seq, standing->report);
}

godwit_status lite_devices_save(store *st, slice scope, const store_standing *list, size_t count,
                                int64_t now_ms) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = save_device(st, scope, &list[i], now_ms);
    }
    return status;
}

/* ---- keys of callers without a stream ---- */

static godwit_status find_key(store *st, arena *a, slice scope, slice key, store_idem *out) {
    db *d = &st->d;
    *out = (store_idem){0};
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    godwit_status status = db_prepare(
        d, "SELECT fingerprint, response FROM godwit_idem WHERE scope = ?1 AND idem_key = ?2",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, key);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        slice fingerprint = db_column_slice(stmt, 0);
        out->found = true;
        if (fingerprint.len == SHA256_BYTES) {
            memcpy(out->fingerprint, fingerprint.ptr, SHA256_BYTES);
        }
        out->response = copied(a, stmt, 1);
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    db_done(d, stmt);
    return status;
}

godwit_status lite_idem_find(store *st, arena *a, slice scope, const slice *keys, size_t count,
                             store_idem *out) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = find_key(st, a, scope, keys[i], &out[i]);
    }
    return status;
}

godwit_status lite_idem_add(store *st, slice scope, slice key,
                            const uint8_t fingerprint[SHA256_BYTES], int64_t commit_seq,
                            slice response, int64_t now_ms) {
    return db_run(&st->d,
                  "INSERT INTO godwit_idem(scope, idem_key, fingerprint, commit_seq, at, response)"
                  " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                  "ssbiis", scope, key, (slice){(const char *)fingerprint, SHA256_BYTES},
                  commit_seq, now_ms, response);
}

void lite_tidy(store *st, int64_t budget_ms) {
    ASSERT(st->d.depth == 0);
    (void)budget_ms; /* a passive checkpoint waits for nobody; its work is bounded by the log's size
                      */
    (void)sqlite3_wal_checkpoint_v2(st->d.handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (db_exec(&st->d, "PRAGMA optimize") != GODWIT_OK) {
        return; /* only advice for the query planner */
    }
}

godwit_status store_temporary_folder(const char *path) {
    sqlite3_temp_directory = sqlite3_mprintf("%s", path);
    return sqlite3_temp_directory ? GODWIT_OK : GODWIT_NOMEM;
}
