/* Reading sides of the SQLite store: each has its own connection, which can't write, and sees one
 * state of the database from begin to end. Rows are borrowed from statements: nothing is copied on
 * the way from the database to an answer. */
#include "server/store_sqlite.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    READ_COMMITS,
    READ_CHANGES,
    READ_LEDGER,
    READ_LIVE,
    READ_DEVICE,
    READ_CONFLICTS,
    READ_WAITING,
    READ_HISTORY,
    READ_COUNT
};

#define READ_NAMES 64

struct store_reader {
    store_base base;
    db d;
    connection_tables tables;
    sqlite3_stmt *stmts[READ_COUNT];
    sqlite3_stmt *conflicts; /* the one of them that lists conflicts now */
    bool changes_open;       /* of the commit that the feed stands on */
    const schema_table *live_table;
    int64_t scope;     /* of the open table */
    arena row_memory;  /* of one live row */
    known_name author; /* device of the commit `author_seq`, which was asked for last */
    int64_t author_seq;
    /* numbers never change their names: by hash of the name, and by number */
    known_name numbers[READ_NAMES], devices[READ_NAMES], users[READ_NAMES];
};

godwit_status lite_reader_open(store *st, store_reader **out) {
    *out = NULL;
    store_reader *r = calloc(1, sizeof *r);
    if (!r) {
        return GODWIT_NOMEM;
    }
    r->base.verbs = &store_sqlite_verbs;
    arena_init(&r->row_memory, NULL, 0);
    godwit_status status =
        db_open(&r->d, st->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, 5000);
    if (status == GODWIT_OK) {
        status = db_exec(&r->d, "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;"
                                "PRAGMA cache_size = -8192; PRAGMA mmap_size = 0;");
    }
    if (status != GODWIT_OK) {
        lite_reader_close(r);
        return status;
    }
    *out = r;
    return GODWIT_OK;
}

void lite_reader_close(store_reader *r) {
    if (!r) {
        return;
    }
    connection_tables_drop(&r->tables);
    for (size_t i = 0; i < READ_COUNT; i++) {
        sqlite3_finalize(r->stmts[i]);
    }
    arena_deinit(&r->row_memory);
    db_close(&r->d);
    free(r);
}

const char *lite_reader_message(const store_reader *r) {
    return r->d.message;
}

godwit_status lite_read_begin(store_reader *r, const store_tables *tables) {
    godwit_status status = connection_tables_use(&r->tables, tables);
    r->author_seq = 0;
    return status == GODWIT_OK ? db_begin_read(&r->d) : status;
}

void lite_read_end(store_reader *r) {
    for (size_t i = 0; i < READ_COUNT; i++) {
        sqlite3_reset(r->stmts[i]);
    }
    if (r->d.depth > 0) {
        db_rollback(&r->d);
    }
}

godwit_status lite_read_scope(store_reader *r, slice scope, store_scope *out) {
    return sqlite_scope_load(&r->d, scope, out);
}

godwit_status lite_read_grants(store_reader *r, arena *a, const char *sql, slice sub, slice claims,
                               store_grants *out) {
    return sqlite_grants(&r->d, a, sql, sub, claims, out);
}

/* ---- names ---- */

static godwit_status number_of(store_reader *r, slice name, int64_t *no) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.len; i++) {
        h = (h ^ (unsigned char)name.ptr[i]) * 16777619u;
    }
    known_name *slot = &r->numbers[h % READ_NAMES];
    if (slot->no && slot->len == name.len && memcmp(slot->text, name.ptr, name.len) == 0) {
        *no = slot->no;
        return GODWIT_OK;
    }
    godwit_status status = sqlite_name_find(&r->d, name, no);
    if (status == GODWIT_OK && *no && name.len <= sizeof slot->text) {
        slot->no = *no;
        slot->len = name.len;
        memcpy(slot->text, name.ptr, name.len);
    }
    return status;
}

/* The name of a number, out of one of the caches; empty for 0. */
static godwit_status name_of(store_reader *r, known_name *cache, int64_t no, slice *out) {
    known_name *slot = &cache[(uint64_t)no % READ_NAMES];
    *out = (slice){0};
    if (no == 0) {
        return GODWIT_OK;
    }
    if (slot->no != no) {
        bool row = false;
        sqlite3_stmt *stmt = NULL;
        slot->no = 0;
        godwit_status status =
            db_prepare(&r->d, "SELECT name FROM godwit_name WHERE no = ?1", &stmt);
        if (status == GODWIT_OK) {
            status = db_bind_int(&r->d, stmt, 1, no);
        }
        if (status == GODWIT_OK) {
            status = db_step(&r->d, stmt, &row);
        }
        slice name = row ? db_column_slice(stmt, 0) : (slice){0};
        if (status == GODWIT_OK && name.len > sizeof slot->text) {
            status = GODWIT_CORRUPT;
        } else if (name.len) {
            slot->no = no;
            slot->len = name.len;
            memcpy(slot->text, name.ptr, name.len);
        }
        db_done(&r->d, stmt);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    *out = (slice){slot->text, slot->no ? slot->len : 0};
    return GODWIT_OK;
}

godwit_status lite_read_salt(store_reader *r, slice scope, int64_t seq, int64_t *salt) {
    *salt = 0;
    int64_t no = 0;
    if (seq == 0) {
        return GODWIT_OK;
    }
    godwit_status status = number_of(r, scope, &no);
    return status == GODWIT_OK
               ? db_int(&r->d, salt,
                        "SELECT salt FROM godwit_commit WHERE scope = ?1 AND commit_seq = ?2", "ii",
                        no, seq)
               : status;
}

godwit_status lite_read_device(store_reader *r, arena *a, slice scope, slice device_id,
                               decide_device *out) {
    return sqlite_device_load(&r->d, a, scope, device_id, out);
}

/* Binds texts and numbers from index 1 on: 's', 'i'. */
static godwit_status open_statement(store_reader *r, int which, const char *sql, const char *types,
                                    ...) {
    godwit_status status = stmt_once(&r->d, &r->stmts[which], sql);
    va_list args;
    va_start(args, types);
    if (status == GODWIT_OK) {
        sqlite3_reset(r->stmts[which]);
    }
    for (int i = 0; status == GODWIT_OK && types[i]; i++) {
        status = types[i] == 's'
                     ? db_bind_slice(&r->d, r->stmts[which], i + 1, va_arg(args, slice))
                     : db_bind_int(&r->d, r->stmts[which], i + 1, va_arg(args, int64_t));
    }
    va_end(args);
    return status;
}

/* ---- feed ---- */

#define COMMIT_COLUMNS                                                                             \
    "c.commit_seq, c.salt, c.committed_at, c.first_seq, c.last_seq, c.device_id, c.user_id, "      \
    "c.outcome"
#define CHANGE_COLUMNS                                                                             \
    "h.commit_seq, h.prev_seq, h.tbl, h.pk, h.kind, h.full_row, h.clock_seq, h.vclock, h.cols"

static godwit_status read_commit(store_reader *r, sqlite3_stmt *stmt, store_commit_row *out) {
    *out = (store_commit_row){.seq = sqlite3_column_int64(stmt, 0),
                              .salt = sqlite3_column_int64(stmt, 1),
                              .at_ms = sqlite3_column_int64(stmt, 2),
                              .first_seq = sqlite3_column_int64(stmt, 3),
                              .last_seq = sqlite3_column_int64(stmt, 4)};
    godwit_status status = name_of(r, r->devices, sqlite3_column_int64(stmt, 5), &out->device_id);
    if (status == GODWIT_OK) {
        status = name_of(r, r->users, sqlite3_column_int64(stmt, 6), &out->user_id);
    }
    bool sound = op_outcome_parse(db_column_slice(stmt, 7), &out->outcome);
    return status == GODWIT_OK && !sound ? GODWIT_CORRUPT : status;
}

static void read_change(sqlite3_stmt *stmt, int from, store_change_row *out) {
    slice kind = db_column_slice(stmt, from + 4);
    *out = (store_change_row){.commit_seq = sqlite3_column_int64(stmt, from),
                              .prev_seq = sqlite3_column_int64(stmt, from + 1),
                              .table = db_column_slice(stmt, from + 2),
                              .id = db_column_slice(stmt, from + 3),
                              .is_delete = kind.len == 1 && kind.ptr[0] == 'D',
                              .full = sqlite3_column_int(stmt, from + 5) != 0,
                              .clock_seq = sqlite3_column_int64(stmt, from + 6),
                              .clock = db_column_slice(stmt, from + 7),
                              .columns = db_column_slice(stmt, from + 8)};
}

godwit_status lite_feed_open(store_reader *r, slice scope, int64_t after_seq) {
    int64_t no = 0;
    r->changes_open = false;
    godwit_status status = number_of(r, scope, &no);
    return status == GODWIT_OK
               ? open_statement(r, READ_COMMITS,
                                "SELECT " COMMIT_COLUMNS ", c.first_change, c.last_change, c.scope"
                                " FROM godwit_commit c WHERE c.scope = ?1 AND c.commit_seq > ?2"
                                " ORDER BY c.commit_seq",
                                "ii", no, after_seq)
               : status;
}

godwit_status lite_feed_commit(store_reader *r, store_commit_row *out, bool *row) {
    r->changes_open = false;
    godwit_status status = db_step(&r->d, r->stmts[READ_COMMITS], row);
    return status == GODWIT_OK && *row ? read_commit(r, r->stmts[READ_COMMITS], out) : status;
}

/* seq is that of the commit the feed stands on. */
godwit_status lite_feed_change(store_reader *r, int64_t seq, store_change_row *out, bool *row) {
    sqlite3_stmt *commit = r->stmts[READ_COMMITS];
    godwit_status status = GODWIT_OK;
    *row = false;
    if (!r->changes_open) {
        status =
            open_statement(r, READ_CHANGES,
                           "SELECT " CHANGE_COLUMNS " FROM godwit_change h WHERE h.no BETWEEN ?1"
                           " AND ?2 AND h.scope = ?3 AND h.commit_seq = ?4 ORDER BY h.no",
                           "iiii", sqlite3_column_int64(commit, 8), sqlite3_column_int64(commit, 9),
                           sqlite3_column_int64(commit, 10), seq);
        r->changes_open = status == GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status = db_step(&r->d, r->stmts[READ_CHANGES], row);
    }
    if (status == GODWIT_OK && *row) {
        read_change(r->stmts[READ_CHANGES], 0, out);
    }
    return status;
}

void lite_feed_close(store_reader *r) {
    sqlite3_reset(r->stmts[READ_COMMITS]);
    sqlite3_reset(r->stmts[READ_CHANGES]);
}

/* ---- ledger ---- */

godwit_status lite_ledger_open(store_reader *r, slice scope, slice device_id, int64_t first,
                               int64_t last) {
    int64_t scope_no = 0;
    int64_t device_no = 0;
    godwit_status status = number_of(r, scope, &scope_no);
    if (status == GODWIT_OK) {
        status = number_of(r, device_id, &device_no);
    }
    return status == GODWIT_OK
               ? open_statement(
                     r, READ_LEDGER,
                     "SELECT seq, lsn, commit_seq, lineage, op_key, outcome, code, detail,"
                     " conflicts FROM godwit_op WHERE scope = ?1 AND device_id = ?2"
                     " AND seq BETWEEN ?3 AND ?4 ORDER BY seq",
                     "iiii", scope_no, device_no, first, last)
               : status;
}

godwit_status lite_ledger_next(store_reader *r, store_ledger_row *out, bool *row) {
    sqlite3_stmt *stmt = r->stmts[READ_LEDGER];
    godwit_status status = db_step(&r->d, stmt, row);
    if (status != GODWIT_OK || !*row) {
        return status;
    }
    *out = (store_ledger_row){.seq = sqlite3_column_int64(stmt, 0),
                              .lsn = sqlite3_column_int64(stmt, 1),
                              .commit_seq = sqlite3_column_int64(stmt, 2),
                              .key = db_column_slice(stmt, 4),
                              .detail = db_column_slice(stmt, 7),
                              .conflicts = db_column_slice(stmt, 8)};
    (void)op_code_parse(db_column_slice(stmt, 6), &out->code);
    bool sound =
        out->key.len == SHA256_BYTES && op_outcome_parse(db_column_slice(stmt, 5), &out->outcome);
    status = name_of(r, r->devices, sqlite3_column_int64(stmt, 3), &out->lineage);
    return status == GODWIT_OK && !sound ? GODWIT_CORRUPT : status;
}

void lite_ledger_close(store_reader *r) {
    sqlite3_reset(r->stmts[READ_LEDGER]);
}

/* ---- live rows ---- */

godwit_status lite_live_open(store_reader *r, slice scope, const schema_table *t, slice after) {
    arena_reset(&r->row_memory);
    r->live_table = t;
    r->author_seq = 0;
    godwit_status status = number_of(r, scope, &r->scope);
    return status == GODWIT_OK
               ? open_statement(r, READ_LIVE,
                                "SELECT pk, ver, created_ver, created_seq, vclock FROM godwit_row"
                                " WHERE scope = ?1 AND tbl = ?2 AND pk > ?3 AND del_ver IS NULL"
                                " ORDER BY pk",
                                "iss", r->scope, t->name, after.ptr ? after : SLICE(""))
               : status;
}

/* Device of the commit that made a row: bulk creates come in runs of one commit. */
static godwit_status author_of(store_reader *r, int64_t commit_seq) {
    if (r->author_seq == commit_seq) {
        return GODWIT_OK;
    }
    bool row = false;
    godwit_status status =
        open_statement(r, READ_DEVICE, COMMIT_DEVICE_SQL, "ii", r->scope, commit_seq);
    sqlite3_stmt *stmt = r->stmts[READ_DEVICE];
    if (status == GODWIT_OK) {
        status = db_step(&r->d, stmt, &row);
    }
    slice device = row ? db_column_slice(stmt, 0) : (slice){0};
    r->author.len = device.len <= sizeof r->author.text ? device.len : 0;
    if (r->author.len) {
        memcpy(r->author.text, device.ptr, r->author.len);
    }
    r->author_seq = commit_seq;
    sqlite3_reset(stmt);
    return status;
}

static godwit_status live_values(store_reader *r, slice id, store_live_row *out, bool *found) {
    const schema_table *t = r->live_table;
    const table_info *info = tables_info(r->tables.tables, t);
    table_stmts *s = &r->tables.stmts[info - r->tables.tables->infos];
    arena_reset(&r->row_memory);
    value *values = ARENA_ARRAY(&r->row_memory, value, t->column_count);
    godwit_status status = values ? stmt_once(&r->d, &s->select, info->select_sql) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        sqlite3_reset(s->select);
        status = typed_bind_key(&r->d, &r->row_memory, s->select, 1, t, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(&r->d, s->select, found);
    }
    if (status == GODWIT_OK && *found) {
        status = typed_read_values(s->select, t, NULL, values);
    }
    out->values = values;
    return status;
}

godwit_status lite_live_next(store_reader *r, store_live_row *out, bool *row) {
    sqlite3_stmt *stmt = r->stmts[READ_LIVE];
    godwit_status status = GODWIT_OK;
    bool found = false;
    while (status == GODWIT_OK && !found) {
        status = db_step(&r->d, stmt, row);
        if (status != GODWIT_OK || !*row) {
            return status;
        }
        *out = (store_live_row){.id = db_column_slice(stmt, 0),
                                .ver = sqlite3_column_int64(stmt, 1),
                                .clock = db_column_slice(stmt, 4)};
        if (!out->clock.ptr) {
            out->clock_seq = sqlite3_column_int64(stmt, 3);
            int64_t created = sqlite3_column_int64(stmt, 2);
            status = out->clock_seq > 0 ? author_of(r, created) : GODWIT_OK;
            out->clock_device = (slice){r->author.text, out->clock_seq > 0 ? r->author.len : 0};
        }
        if (status == GODWIT_OK) {
            status = live_values(r, out->id, out, &found); /* gone by other hands: skipped */
        }
    }
    return status;
}

void lite_live_close(store_reader *r) {
    sqlite3_reset(r->stmts[READ_LIVE]);
    if (r->live_table) {
        const table_info *info = tables_info(r->tables.tables, r->live_table);
        sqlite3_reset(r->tables.stmts[info - r->tables.tables->infos].select);
    }
    r->live_table = NULL;
}

/* ---- conflicts and history ---- */

static void conflicts_begin(store_reader *r, int which, godwit_status status) {
    r->conflicts = status == GODWIT_OK ? r->stmts[which] : NULL;
}

godwit_status lite_conflicts_open(store_reader *r, slice scope, slice state, int64_t before) {
    godwit_status status = open_statement(
        r, READ_CONFLICTS,
        "SELECT " SQLITE_CONFLICT_COLUMNS
        " FROM godwit_conflict WHERE scope = ?1 AND (?2 = '' OR state = ?2)"
        " AND commit_seq < ?3 ORDER BY commit_seq DESC, length(conflict_id), conflict_id",
        "ssi", scope, state.ptr ? state : SLICE(""), before > 0 ? before : INT64_MAX);
    conflicts_begin(r, READ_CONFLICTS, status);
    return status;
}

godwit_status lite_conflicts_waiting(store_reader *r, slice scope, slice after) {
    godwit_status status =
        open_statement(r, READ_WAITING,
                       "SELECT " SQLITE_CONFLICT_COLUMNS
                       " FROM godwit_conflict WHERE scope = ?1 AND state = 'open'"
                       " AND conflict_id > ?2 ORDER BY conflict_id",
                       "ss", scope, after.ptr ? after : SLICE(""));
    conflicts_begin(r, READ_WAITING, status);
    return status;
}

godwit_status lite_conflicts_next(store_reader *r, store_conflict_row *out, bool *row) {
    godwit_status status = db_step(&r->d, r->conflicts, row);
    if (status == GODWIT_OK && *row) {
        sqlite_conflict_read(r->conflicts, out);
    }
    return status;
}

void lite_conflicts_close(store_reader *r) {
    sqlite3_reset(r->conflicts);
    r->conflicts = NULL;
}

godwit_status lite_history(store_reader *r, slice scope, const schema_table *t, slice id,
                           int64_t seq, store_commit_row *commit, store_change_row *change) {
    bool row = false;
    int64_t no = 0;
    godwit_status status = number_of(r, scope, &no);
    if (status == GODWIT_OK && seq == 0) {
        status = db_int(&r->d, &seq,
                        "SELECT ver FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3",
                        "iss", no, t->name, id);
    }
    if (status == GODWIT_OK) {
        status =
            open_statement(r, READ_HISTORY,
                           "SELECT " COMMIT_COLUMNS ", " CHANGE_COLUMNS
                           " FROM godwit_commit c CROSS JOIN godwit_change h"
                           " ON " SQLITE_CHANGES_OF_COMMIT
                           " WHERE c.scope = ?1 AND c.commit_seq = ?2 AND h.tbl = ?3 AND h.pk ="
                           " ?4",
                           "iiss", no, seq, t->name, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(&r->d, r->stmts[READ_HISTORY], &row);
    }
    if (status == GODWIT_OK && !row) {
        status = GODWIT_NOT_FOUND;
    }
    if (status == GODWIT_OK) {
        status = read_commit(r, r->stmts[READ_HISTORY], commit);
        read_change(r->stmts[READ_HISTORY], 8, change);
    }
    return status;
}
