/* Drift: what slipped past the triggers, found by comparing the table with what the engine knows.
 *
 *   row here, unknown to godwit_row and to the queue   unknown   queued as a create
 *   row here, digest other than the server's           changed   queued as a create of a live row,
 *                                                                which sealing turns into an update
 *   known to godwit_row, not here                      missing   queued as a delete
 *
 * Rows with undecided operations are left alone: they are expected to differ. Tables tracked with
 * {"initial":"ignore"} may hold rows nobody captured, so none of theirs is unknown. */
#include "client/count.h"
#include "client/track.h"
#include "core/limits.h"

typedef struct {
    godwit *g;
    const client_table *t;
    arena row;
    bool queue, uploads;
    int64_t until; /* newest captured row that counts; 0 = all, -1 = none */
    drift_counts counts;
} scan;

/* ---- Rows with undecided operations ---- */

static godwit_status mark_captured(scan *s) {
    sqlite3_stmt *stmt = NULL;
    bytes b;
    bool row = false;
    db *d = &s->g->db;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT ");
    capture_key_columns(&b, s->t);
    bytes_text(&b, " FROM godwit_log WHERE tbl = ?1 AND lsn > coalesce((SELECT CAST(v AS INTEGER)"
                   " FROM godwit_meta WHERE k = 'sealed_lsn'), 0) AND lsn <= ?2");
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, s->t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, s->until ? s->until : INT64_MAX);
    }
    while (status == GODWIT_OK) {
        value key[KEY_COLUMNS_MAX];
        slice id = {0};
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        arena_reset(&s->row);
        for (int i = 0; i < (int)s->t->shape.key_count; i++) {
            db_column_value(stmt, i, &key[i]);
        }
        status = client_key_text(&s->row, s->t, key, &id);
        if (status == GODWIT_OK) {
            status = db_run(d, "INSERT OR IGNORE INTO temp.godwit_dirty(pk) VALUES (?1)", "s", id);
        } else if (status == GODWIT_INVALID) {
            status = GODWIT_OK; /* can't travel: sealing says so */
        }
    }
    db_done(d, stmt);
    return status;
}

static godwit_status mark_dirty(scan *s) {
    db *d = &s->g->db;
    godwit_status status =
        db_exec(d, "CREATE TEMP TABLE IF NOT EXISTS godwit_dirty (pk TEXT PRIMARY KEY) WITHOUT"
                   " ROWID; DELETE FROM temp.godwit_dirty");
    if (status == GODWIT_OK) {
        status =
            db_run(d,
                   "INSERT OR IGNORE INTO temp.godwit_dirty(pk) SELECT entity_id FROM godwit_op"
                   " WHERE tbl = ?1 AND (state IN ('pending', 'acked', 'parked') OR"
                   " sequence_number = 0)",
                   "i", s->t->tbl);
    }
    return status == GODWIT_OK ? mark_captured(s) : status;
}

/* ---- Queueing ---- */

static godwit_status queue_row(scan *s, int op, const value *key, const value *data) {
    sqlite3_stmt *stmt = NULL;
    bytes b;
    bool row = false;
    db *d = &s->g->db;
    size_t keys = s->t->shape.key_count;
    size_t values = op == 1 ? s->t->data_count : 0;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "INSERT INTO godwit_log(op, tbl, wall, nonce, ");
    capture_key_columns(&b, s->t);
    bytes_text(&b, values ? ", " : "");
    if (values) {
        capture_data_columns(&b, s->t, 'v');
    }
    bytes_printf(&b, ") VALUES (%d, %lld, julianday('now'), random()", op, (long long)s->t->tbl);
    for (size_t i = 0; i < keys + values; i++) {
        bytes_printf(&b, ", ?%zu", i + 1);
    }
    bytes_char(&b, ')');
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    for (size_t i = 0; i < keys + values && status == GODWIT_OK; i++) {
        status = db_bind_value(d, stmt, (int)i + 1, i < keys ? &key[i] : &data[i - keys]);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    db_done(d, stmt);
    return status;
}

/* ---- Rows that are here ---- */

static godwit_status prepare_rows(scan *s, sqlite3_stmt **stmt) {
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT ");
    for (size_t i = 0; i < s->t->shape.key_count + s->t->data_count; i++) {
        size_t keys = s->t->shape.key_count;
        int column = i < keys ? s->t->shape.key[i] : s->t->data_columns[i - keys];
        bytes_text(&b, i ? ", " : "");
        bytes_identifier(&b, s->t->shape.columns[column].name);
    }
    bytes_text(&b, " FROM main.");
    bytes_identifier(&b, s->t->shape.name);
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(&s->g->db, b.ptr, stmt);
    bytes_deinit(&b);
    return status;
}

typedef enum { ROW_FINE, ROW_UNKNOWN, ROW_CHANGED } row_verdict;

static godwit_status judge(scan *s, slice id, int64_t digest, row_verdict *out) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    db *d = &s->g->db;
    *out = ROW_FINE;
    godwit_status status =
        db_prepare(d,
                   "SELECT (SELECT 1 FROM temp.godwit_dirty WHERE pk = ?2), r.tbl, r.digest FROM"
                   " (SELECT 1) LEFT JOIN godwit_row AS r ON r.tbl = ?1 AND r.pk = ?2",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, s->t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && row && sqlite3_column_type(stmt, 0) == SQLITE_NULL) {
        if (sqlite3_column_type(stmt, 1) == SQLITE_NULL) {
            *out = s->uploads ? ROW_UNKNOWN : ROW_FINE;
        } else if (sqlite3_column_type(stmt, 2) != SQLITE_NULL &&
                   sqlite3_column_int64(stmt, 2) != digest) {
            *out = ROW_CHANGED;
        }
    }
    db_done(d, stmt);
    return status;
}

static godwit_status look_at_row(scan *s, sqlite3_stmt *rows) {
    value key[KEY_COLUMNS_MAX];
    value data[COLUMNS_MAX];
    slice id = {0};
    row_verdict verdict = ROW_FINE;
    int keys = (int)s->t->shape.key_count;
    arena_reset(&s->row);
    for (int i = 0; i < keys; i++) {
        db_column_value(rows, i, &key[i]);
    }
    for (int i = 0; i < (int)s->t->data_count; i++) {
        db_column_value(rows, keys + i, &data[i]);
    }
    godwit_status status = client_key_text(&s->row, s->t, key, &id);
    if (status == GODWIT_INVALID) {
        return GODWIT_OK; /* a key that can't travel was never synced */
    }
    if (status == GODWIT_OK) {
        status = judge(s, id, client_row_digest(s->t, data), &verdict);
    }
    s->counts.unknown += verdict == ROW_UNKNOWN;
    s->counts.changed += verdict == ROW_CHANGED;
    if (status == GODWIT_OK && verdict != ROW_FINE && s->queue) {
        status = queue_row(s, 1, key, data);
    }
    return status;
}

/* ---- Rows that are not ---- */

static godwit_status is_here(scan *s, const value *key, bool *here) {
    bytes b;
    sqlite3_stmt *stmt = NULL;
    db *d = &s->g->db;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT 1 FROM main.");
    bytes_identifier(&b, s->t->shape.name);
    for (size_t i = 0; i < s->t->shape.key_count; i++) {
        bytes_text(&b, i ? " AND " : " WHERE ");
        bytes_identifier(&b, s->t->shape.columns[s->t->shape.key[i]].name);
        bytes_printf(&b, " = ?%zu", i + 1);
    }
    godwit_status status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    for (size_t i = 0; i < s->t->shape.key_count && status == GODWIT_OK; i++) {
        status = db_bind_value(d, stmt, (int)i + 1, &key[i]);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, here);
    }
    db_done(d, stmt);
    return status;
}

static godwit_status scan_missing(scan *s) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    db *d = &s->g->db;
    godwit_status status =
        db_prepare(d,
                   "SELECT pk FROM godwit_row WHERE tbl = ?1 AND pk NOT IN (SELECT pk FROM"
                   " temp.godwit_dirty)",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, s->t->tbl);
    }
    while (status == GODWIT_OK) {
        value key[KEY_COLUMNS_MAX];
        bool here = true;
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        arena_reset(&s->row);
        slice id = arena_copy(&s->row, db_column_slice(stmt, 0));
        status = id.ptr ? client_key_values(&s->row, s->t, id, key) : GODWIT_NOMEM;
        if (status == GODWIT_OK) {
            status = is_here(s, key, &here);
        } else if (status == GODWIT_INVALID) {
            status = GODWIT_OK;
        }
        s->counts.missing += !here;
        if (status == GODWIT_OK && !here && s->queue) {
            status = queue_row(s, 3, key, NULL);
        }
    }
    db_done(d, stmt);
    return status;
}

static godwit_status scan_rows(scan *s) {
    sqlite3_stmt *rows = NULL;
    bool row = false;
    godwit_status status = prepare_rows(s, &rows);
    while (status == GODWIT_OK) {
        status = db_step(&s->g->db, rows, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        status = look_at_row(s, rows);
    }
    db_done(&s->g->db, rows);
    return status;
}

static godwit_status uploads_rows(godwit *g, const client_table *t, bool *out) {
    int64_t ignored = 0;
    int64_t filling = 0;
    godwit_status status =
        db_int(&g->db, &ignored,
               "SELECT coalesce(json_extract(spec, '$.initial') = 'ignore', 0) FROM godwit_table"
               " WHERE tbl = ?1",
               "i", t->tbl);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &filling, "SELECT count(*) FROM godwit_initial WHERE tbl = ?1", "i",
                        t->tbl);
    }
    *out = !ignored && !filling;
    return status;
}

godwit_status drift_scan(godwit *g, const client_table *t, bool queue, drift_counts *out) {
    scan s = {.g = g, .t = t, .queue = queue};
    arena_init(&s.row, g->allocator, 0);
    godwit_status status = uploads_rows(g, t, &s.uploads);
    if (status == GODWIT_OK) {
        status = mark_dirty(&s);
    }
    if (status == GODWIT_OK) {
        status = scan_rows(&s);
    }
    if (status == GODWIT_OK) {
        status = scan_missing(&s);
    }
    if (status == GODWIT_OK) {
        status = db_exec(&g->db, "DELETE FROM temp.godwit_dirty");
    }
    *out = s.counts;
    arena_deinit(&s.row);
    return status;
}

/* ---- Updates of rows nobody created ---- */

static godwit_status is_known(scan *s, slice id, int64_t *known) {
    return db_int(
        &s->g->db, known,
        "SELECT EXISTS (SELECT 1 FROM temp.godwit_dirty WHERE pk = ?2) OR EXISTS (SELECT 1"
        " FROM godwit_row WHERE tbl = ?1 AND pk = ?2)",
        "is", s->t->tbl, id);
}

static godwit_status forget_row(scan *s, sqlite3_stmt *rows) {
    value key[KEY_COLUMNS_MAX];
    slice id = {0};
    int64_t known = 0;
    arena_reset(&s->row);
    for (int i = 0; i < (int)s->t->shape.key_count; i++) {
        db_column_value(rows, i + 1, &key[i]);
    }
    godwit_status status = client_key_text(&s->row, s->t, key, &id);
    if (status == GODWIT_INVALID) {
        status = GODWIT_OK; /* can't travel, so it is not known either */
    } else if (status == GODWIT_OK) {
        status = is_known(s, id, &known);
    }
    if (status == GODWIT_OK && !known) {
        int64_t lsn = sqlite3_column_int64(rows, 0);
        status = db_run(&s->g->db, "DELETE FROM godwit_log WHERE lsn = ?1", "i", lsn);
        if (status == GODWIT_OK) {
            status = count_gap(s->g, lsn, lsn);
        }
    }
    return status;
}

godwit_status drift_forget_unknown(godwit *g, const client_table *t, int64_t after) {
    scan s = {.g = g, .t = t, .until = after ? after : -1};
    sqlite3_stmt *rows = NULL;
    bool row = false;
    bytes b;
    arena_init(&s.row, g->allocator, 0);
    bytes_init(&b, g->allocator, 0);
    bytes_text(&b, "SELECT lsn, ");
    capture_key_columns(&b, t);
    bytes_text(&b, " FROM godwit_log WHERE tbl = ?1 AND lsn > ?2");
    godwit_status status = b.failed ? GODWIT_NOMEM : mark_dirty(&s);
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db, b.ptr, &rows);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, rows, 1, t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, rows, 2, after);
    }
    while (status == GODWIT_OK) {
        status = db_step(&g->db, rows, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        status = forget_row(&s, rows);
    }
    db_done(&g->db, rows);
    if (status == GODWIT_OK) {
        status = db_exec(&g->db, "DELETE FROM temp.godwit_dirty");
    }
    if (status == GODWIT_OK) { /* numbers behind the newest row are free again */
        status = db_exec(&g->db, "DELETE FROM godwit_gap WHERE last > (SELECT coalesce(max(lsn), 0)"
                                 " FROM godwit_log)");
    }
    bytes_deinit(&b);
    arena_deinit(&s.row);
    return status;
}

/* ---- New columns ---- */

/* The digest of the columns both shapes have, from values in the order of `now`. */
static int64_t digest_before(const client_table *before, const client_table *now,
                             const value *data) {
    value kept[COLUMNS_MAX];
    memset(kept, 0, sizeof kept);
    for (size_t i = 0; i < before->data_count; i++) {
        int slot = shape_slot(now, before->shape.columns[before->data_columns[i]].name);
        if (slot >= 0) {
            kept[i] = data[slot];
        }
    }
    return client_row_digest(before, kept);
}

godwit_status drift_redigest(godwit *g, const client_table *t, const client_table *before) {
    scan s = {.g = g, .t = t};
    sqlite3_stmt *rows = NULL;
    bool row = false;
    bool loses = false;
    int keys = (int)t->shape.key_count;
    for (size_t i = 0; i < before->data_count; i++) {
        loses = loses || shape_slot(t, before->shape.columns[before->data_columns[i]].name) < 0;
    }
    int64_t known = 0;
    godwit_status status = db_int(
        &g->db, &known, "SELECT EXISTS (SELECT 1 FROM godwit_row WHERE tbl = ?1)", "i", t->tbl);
    if (status != GODWIT_OK || !known) {
        return status;
    }
    arena_init(&s.row, g->allocator, 0);
    status = prepare_rows(&s, &rows);
    while (status == GODWIT_OK) {
        value key[KEY_COLUMNS_MAX];
        value data[COLUMNS_MAX];
        slice id = {0};
        status = db_step(&g->db, rows, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        arena_reset(&s.row);
        for (int i = 0; i < keys + (int)t->data_count; i++) {
            db_column_value(rows, i, i < keys ? &key[i] : &data[i - keys]);
        }
        status = client_key_text(&s.row, t, key, &id);
        if (status == GODWIT_INVALID) {
            status = GODWIT_OK;
            continue;
        }
        /* a row that had drifted stays drifted where that can still be told */
        int64_t was = digest_before(before, t, data);
        int64_t digest = client_row_digest(t, data);
        if (status == GODWIT_OK && (loses || digest != was)) {
            status =
                db_run(&g->db,
                       "UPDATE godwit_row SET digest = ?3 WHERE tbl = ?1 AND pk = ?2 AND (?5 OR"
                       " digest = ?4)",
                       "isiii", t->tbl, id, digest, was, (int64_t)loses);
        }
    }
    db_done(&g->db, rows);
    arena_deinit(&s.row);
    return status;
}
