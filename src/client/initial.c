/* The rows a table had before it was tracked, queued as creates.
 *
 * They get numbers from a range reserved when tracking begins, so that they come before everything
 * the triggers capture later, however long this takes: the first row takes the last number of the
 * range, which moves the log's counter behind it, and chunks fill the rest in key order, each in a
 * short transaction of its own. Sealing stops below a range that is still being filled
 * (godwit_initial); a crash loses nothing, the next call goes on. Each row is a group of its own:
 * the hook that marks groups is not touched here. */
#include "client/count.h"
#include "client/track.h"

#define CHUNK_ROWS   1000
#define AT_ONCE_ROWS 1000
/* room for rows the application adds while the range is being filled: they are met again there */
#define RANGE_SLACK 100000

typedef struct {
    godwit *g;
    const client_table *t;
    sqlite3_stmt *read, *write;
    int64_t next_lsn; /* 0 = SQLite chooses */
    int64_t rows;
} filler;

static void key_names(bytes *b, const client_table *t) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_identifier(b, t->shape.columns[t->shape.key[i]].name);
    }
}

static void key_null(bytes *b, const client_table *t, const char *test, const char *between) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? between : "(");
        bytes_identifier(b, t->shape.columns[t->shape.key[i]].name);
        bytes_text(b, test);
    }
    bytes_char(b, ')');
}

static void select_from(bytes *b, const client_table *t) {
    bytes_text(b, "SELECT ");
    key_names(b, t);
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(b, ", ");
        bytes_identifier(b, t->shape.columns[t->data_columns[i]].name);
    }
    bytes_text(b, " FROM main.");
    bytes_identifier(b, t->shape.name);
}

/* which: rows with a NULL in the key (no scan by key can pass them), the first rows, or those
 * behind a key. */
typedef enum { ROWS_NULL_KEY, ROWS_FIRST, ROWS_AFTER } which_rows;

static godwit_status prepare_read(filler *f, which_rows which, int64_t limit) {
    bytes b;
    bytes_init(&b, f->g->allocator, 0);
    select_from(&b, f->t);
    bytes_text(&b, " WHERE ");
    if (which == ROWS_NULL_KEY) {
        key_null(&b, f->t, " IS NULL", " OR ");
    } else {
        key_null(&b, f->t, " IS NOT NULL", " AND ");
        if (which == ROWS_AFTER) {
            bytes_text(&b, " AND (");
            key_names(&b, f->t);
            bytes_text(&b, ") > (SELECT k0");
            for (size_t i = 1; i < f->t->shape.key_count; i++) {
                bytes_printf(&b, ", k%zu", i);
            }
            bytes_printf(&b, " FROM godwit_initial WHERE tbl = %lld)", (long long)f->t->tbl);
        }
        bytes_text(&b, " ORDER BY ");
        key_names(&b, f->t);
        bytes_printf(&b, " LIMIT %lld", (long long)limit);
    }
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(&f->g->db, b.ptr, &f->read);
    bytes_deinit(&b);
    return status;
}

static godwit_status prepare_write(filler *f) {
    bytes b;
    bytes_init(&b, f->g->allocator, 0);
    bytes_text(&b, "INSERT INTO godwit_log(lsn, op, tbl, wall, nonce, ");
    capture_key_columns(&b, f->t);
    bytes_text(&b, f->t->data_count ? ", " : "");
    capture_data_columns(&b, f->t, 'v');
    bytes_printf(&b, ") VALUES (?1, 1, %lld, julianday('now'), random()", (long long)f->t->tbl);
    for (size_t i = 0; i < f->t->shape.key_count + f->t->data_count; i++) {
        bytes_printf(&b, ", ?%zu", i + 2);
    }
    bytes_char(&b, ')');
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(&f->g->db, b.ptr, &f->write);
    bytes_deinit(&b);
    return status;
}

static godwit_status write_row(filler *f) {
    db *d = &f->g->db;
    bool row = false;
    int rc =
        f->next_lsn ? sqlite3_bind_int64(f->write, 1, f->next_lsn) : sqlite3_bind_null(f->write, 1);
    for (int i = 0; rc == SQLITE_OK && i < sqlite3_column_count(f->read); i++) {
        rc = sqlite3_bind_value(f->write, i + 2, sqlite3_column_value(f->read, i));
    }
    godwit_status status = db_status(d, rc);
    if (status == GODWIT_OK) {
        status = db_step(d, f->write, &row);
    }
    sqlite3_reset(f->write);
    f->next_lsn += f->next_lsn ? 1 : 0;
    f->rows++;
    return status;
}

/* Remembers the key of the row read last. */
static godwit_status keep_key(filler *f) {
    bytes b;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    db *d = &f->g->db;
    bytes_init(&b, f->g->allocator, 0);
    bytes_text(&b, "UPDATE godwit_initial SET next_lsn = ?1");
    for (size_t i = 0; i < f->t->shape.key_count; i++) {
        bytes_printf(&b, ", k%zu = ?%zu", i, i + 2);
    }
    bytes_printf(&b, " WHERE tbl = %lld", (long long)f->t->tbl);
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, f->next_lsn);
    }
    for (int i = 0; status == GODWIT_OK && i < (int)f->t->shape.key_count; i++) {
        status = db_status(d, sqlite3_bind_value(stmt, i + 2, sqlite3_column_value(f->read, i)));
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    db_done(d, stmt);
    bytes_deinit(&b);
    return status;
}

/* Copies what the read statement gives into the log; keeps the last key where `keep`. */
static godwit_status fill(filler *f, which_rows which, int64_t limit, bool keep) {
    db *d = &f->g->db;
    bool row = false;
    f->rows = 0;
    godwit_status status = prepare_read(f, which, limit);
    if (status == GODWIT_OK) {
        status = prepare_write(f);
    }
    while (status == GODWIT_OK) {
        status = db_step(d, f->read, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        status = write_row(f);
        if (status == GODWIT_OK && keep && f->rows == limit) {
            status = keep_key(f);
        }
    }
    db_done(d, f->read);
    db_done(d, f->write);
    f->read = f->write = NULL;
    return status;
}

static godwit_status count_rows(godwit *g, const client_table *t, int64_t *out) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_text(&b, "SELECT count(*) FROM main.");
    bytes_identifier(&b, t->shape.name);
    *out = 0;
    godwit_status status = b.failed ? GODWIT_NOMEM : db_int(&g->db, out, b.ptr, "");
    bytes_deinit(&b);
    return status;
}

godwit_status initial_start(godwit *g, const client_table *t) {
    filler f = {.g = g, .t = t};
    int64_t rows = 0;
    int64_t newest = 0;
    godwit_status status = count_rows(g, t, &rows);
    if (status != GODWIT_OK || rows == 0) {
        return status;
    }
    /* in the application's own transaction there are no chunks: all or nothing with it */
    bool at_once = rows <= AT_ONCE_ROWS || g->db.depth > 1;
    status = fill(&f, ROWS_NULL_KEY, 0, false);
    if (status == GODWIT_OK && at_once) {
        return fill(&f, ROWS_FIRST, rows, false);
    }
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &newest, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    int64_t end = newest + 2 * rows + RANGE_SLACK;
    if (status == GODWIT_OK) {
        status = db_run(&g->db,
                        "INSERT OR REPLACE INTO godwit_initial(tbl, next_lsn, end_lsn) VALUES (?1,"
                        " ?2, ?3)",
                        "iii", t->tbl, newest + 1, end);
    }
    f.next_lsn = end;
    if (status == GODWIT_OK) {
        status = fill(&f, ROWS_FIRST, 1, true);
    }
    if (status == GODWIT_OK) {
        status = db_run(&g->db, "UPDATE godwit_initial SET next_lsn = ?2 WHERE tbl = ?1", "ii",
                        t->tbl, newest + 1);
    }
    return status;
}

/* One chunk. *done: the table is complete. */
static godwit_status chunk(godwit *g, const client_table *t, bool *done) {
    filler f = {.g = g, .t = t};
    int64_t end = 0;
    godwit_status status = db_int(
        &g->db, &f.next_lsn, "SELECT next_lsn FROM godwit_initial WHERE tbl = ?1", "i", t->tbl);
    if (status == GODWIT_NOT_FOUND) { /* another process finished it */
        *done = true;
        return GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status =
            db_int(&g->db, &end, "SELECT end_lsn FROM godwit_initial WHERE tbl = ?1", "i", t->tbl);
    }
    int64_t room = end - f.next_lsn;
    if (status == GODWIT_OK && room <= 0) {
        /* more rows were added meanwhile than the range holds; these were captured when they were
         */
        *done = true;
    } else if (status == GODWIT_OK) {
        int64_t limit = room < CHUNK_ROWS ? room : CHUNK_ROWS;
        status = fill(&f, ROWS_AFTER, limit, true);
        *done = f.rows < limit;
    }
    if (status == GODWIT_OK && *done) {
        status = count_gap(g, f.next_lsn, end - 1);
    }
    if (status == GODWIT_OK && *done) {
        status = db_run(&g->db, "DELETE FROM godwit_initial WHERE tbl = ?1", "i", t->tbl);
    }
    return status;
}

/* The table is no longer tracked: what is queued of it stays. */
static godwit_status forget_range(godwit *g, int64_t tbl) {
    int64_t next = 0, end = 0;
    godwit_status status =
        db_int(&g->db, &next, "SELECT next_lsn FROM godwit_initial WHERE tbl = ?1", "i", tbl);
    if (status == GODWIT_NOT_FOUND) { /* another process was faster */
        return GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status =
            db_int(&g->db, &end, "SELECT end_lsn FROM godwit_initial WHERE tbl = ?1", "i", tbl);
    }
    if (status == GODWIT_OK) {
        status = count_gap(g, next, end - 1);
    }
    return status == GODWIT_OK
               ? db_run(&g->db, "DELETE FROM godwit_initial WHERE tbl = ?1", "i", tbl)
               : status;
}

static godwit_status finish_table(godwit *g, int64_t tbl) {
    bool done = false;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && !done) {
        status = db_begin(&g->db);
        if (status != GODWIT_OK) {
            break;
        }
        const client_table *t = client_table_by_number(g, tbl);
        int64_t version = 0;
        status = client_meta_int(g, "registry_version", 0, &version);
        if (status == GODWIT_OK && (!t || !t->active)) {
            done = true;
            status = forget_range(g, tbl);
        } else if (status == GODWIT_OK && version != g->registry.registry_version) {
            done = true; /* somebody is changing tables: the next call knows how they look */
        } else if (status == GODWIT_OK) {
            status = chunk(g, t, &done);
        }
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
        }
    }
    return status;
}

godwit_status initial_finish(godwit *g) {
    int64_t migrating = 0;
    int64_t tbl = 0;
    int64_t last = 0;
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK && g->db.depth == 0) {
        status =
            db_int(&g->db, &tbl,
                   "SELECT tbl FROM godwit_initial WHERE tbl > ?1 ORDER BY tbl LIMIT 1", "i", last);
        if (status == GODWIT_NOT_FOUND) {
            return GODWIT_OK;
        }
        if (status == GODWIT_OK) {
            status = client_meta_int(g, "migrating", 0, &migrating);
        }
        if (status == GODWIT_OK && migrating) {
            return GODWIT_OK;
        }
        if (status == GODWIT_OK) {
            status = finish_table(g, tbl);
        }
        last = tbl;
    }
    if (status ==
        GODWIT_BUSY) { /* nothing is lost: sealing waits for the range, a later call fills it */
        client_log(g, GODWIT_LOG_INFO, "initial=waiting");
        status = GODWIT_OK;
    }
    return status;
}
