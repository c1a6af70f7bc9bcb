/* What decide needs to know, out of the SQLite store: ledger rows, salts, working rows.
 *
 * A create costs one look-up, in godwit_row. Whether the key is taken by another scope is not asked
 * then: the typed table's own key answers at saving, and the caller comes back with `exact`. */
#include "server/store_sqlite.h"

/* ---- ledger ---- */

#define LEDGER_COLUMNS "op_key, commit_seq, outcome, code, detail, conflicts, result"

static godwit_status bind_ints(db *d, sqlite3_stmt *stmt, int64_t a, int64_t b, int64_t c) {
    godwit_status status = db_bind_int(d, stmt, 1, a);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, b);
    }
    return status == GODWIT_OK ? db_bind_int(d, stmt, 3, c) : status;
}

/* A whole number instead of a result: the after-image of that change of the commit. */
static godwit_status read_image(store *st, arena *a, int64_t scope, int64_t commit_seq,
                                int64_t index, slice *out) {
    godwit_status status = db_text(&st->d, a, out,
                                   "SELECT h.cols FROM godwit_commit c CROSS JOIN godwit_change h"
                                   " ON " SQLITE_CHANGES_OF_COMMIT
                                   " WHERE c.scope = ?1 AND c.commit_seq = ?2 AND h.idx = ?3",
                                   "iii", scope, commit_seq, index);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status read_ledger(store *st, arena *a, int64_t scope, sqlite3_stmt *stmt,
                                 decide_ledger *out) {
    slice key = db_column_slice(stmt, 0);
    if (key.len != SHA256_BYTES) {
        return GODWIT_CORRUPT;
    }
    out->found = true;
    memcpy(out->key, key.ptr, SHA256_BYTES);
    out->commit_seq = sqlite3_column_int64(stmt, 1);
    if (!op_outcome_parse(db_column_slice(stmt, 2), &out->outcome)) {
        return GODWIT_CORRUPT;
    }
    (void)op_code_parse(db_column_slice(stmt, 3), &out->code);
    out->detail = copied(a, stmt, 4);
    out->conflicts = copied(a, stmt, 5);
    if (sqlite3_column_type(stmt, 6) == SQLITE_INTEGER) {
        return read_image(st, a, scope, out->commit_seq, sqlite3_column_int64(stmt, 6),
                          &out->result);
    }
    out->result = copied(a, stmt, 6);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status lite_ledger_by_seq(store *st, arena *a, slice scope, slice device_id,
                                 const wire_op *ops, size_t count, decide_ledger *out) {
    db *d = &st->d;
    sqlite3_stmt *stmt = NULL;
    int64_t scope_no = 0;
    int64_t device_no = 0;
    godwit_status status = sqlite_name(st, scope, &scope_no);
    if (status == GODWIT_OK) {
        status = sqlite_name(st, device_id, &device_no);
    }
    if (status == GODWIT_OK) {
        status = db_prepare(d,
                            "SELECT " LEDGER_COLUMNS " FROM godwit_op"
                            " WHERE scope = ?1 AND device_id = ?2 AND seq = ?3",
                            &stmt);
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        bool row = false;
        status = bind_ints(d, stmt, scope_no, device_no, ops[i].seq);
        if (status == GODWIT_OK) {
            status = db_step(d, stmt, &row);
        }
        out[i] = (decide_ledger){0};
        if (status == GODWIT_OK && row) {
            status = read_ledger(st, a, scope_no, stmt, &out[i]);
        }
        sqlite3_reset(stmt);
    }
    db_done(d, stmt);
    return status;
}

static godwit_status by_origin(store *st, arena *a, int64_t scope, int64_t lineage,
                               const wire_op *op, sqlite3_stmt *stmt, decide_ledger *out) {
    db *d = &st->d;
    bool row = false;
    godwit_status status = bind_ints(d, stmt, scope, lineage, op->lsn);
    while (status == GODWIT_OK && !out->found) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        slice key = db_column_slice(stmt, 0);
        if (key.len == SHA256_BYTES && memcmp(key.ptr, op->key, SHA256_BYTES) == 0) {
            status = read_ledger(st, a, scope, stmt, out);
        }
    }
    sqlite3_reset(stmt);
    return status;
}

/* lsn only grows: above the highest one nothing has to be looked up. */
static godwit_status highest_lsn(store *st, int64_t scope, slice lineage, int64_t *no,
                                 int64_t *out) {
    godwit_status status = sqlite_name(st, lineage, no);
    return status == GODWIT_OK ? db_int(&st->d, out,
                                        "SELECT coalesce(max(lsn), -1) FROM godwit_op WHERE scope "
                                        "= ?1 AND lineage = ?2",
                                        "ii", scope, *no)
                               : status;
}

godwit_status lite_ledger_by_origin(store *st, arena *a, slice scope, const wire_op *ops,
                                    size_t count, decide_ledger *out, bool *any) {
    db *d = &st->d;
    slice lineage = {0};
    int64_t scope_no = 0;
    int64_t lineage_no = 0;
    int64_t highest = -1;
    sqlite3_stmt *stmt = NULL;
    *any = false;
    godwit_status status = sqlite_name(st, scope, &scope_no);
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        out[i] = (decide_ledger){0};
        if (i == 0 || !slice_equal(lineage, ops[i].lineage)) {
            lineage = ops[i].lineage;
            status = highest_lsn(st, scope_no, lineage, &lineage_no, &highest);
        }
        if (status != GODWIT_OK || ops[i].lsn > highest) {
            continue;
        }
        if (!stmt) {
            status = db_prepare(d,
                                "SELECT " LEDGER_COLUMNS " FROM godwit_op"
                                " WHERE scope = ?1 AND lineage = ?2 AND lsn = ?3",
                                &stmt);
        }
        if (status == GODWIT_OK) {
            status = by_origin(st, a, scope_no, lineage_no, &ops[i], stmt, &out[i]);
        }
        *any = *any || out[i].found;
    }
    db_done(d, stmt);
    return status;
}

godwit_status lite_outcome(store *st, slice scope, slice device_id, int64_t seq,
                           op_outcome *outcome, op_code *code) {
    db *d = &st->d;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    int64_t scope_no = 0;
    int64_t device_no = 0;
    *outcome = OUTCOME_NONE;
    *code = CODE_NONE;
    godwit_status status = sqlite_name(st, scope, &scope_no);
    if (status == GODWIT_OK) {
        status = sqlite_name(st, device_id, &device_no);
    }
    if (status == GODWIT_OK) {
        status = db_prepare(d,
                            "SELECT outcome, code FROM godwit_op"
                            " WHERE scope = ?1 AND device_id = ?2 AND seq = ?3",
                            &stmt);
    }
    if (status == GODWIT_OK) {
        status = bind_ints(d, stmt, scope_no, device_no, seq);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && !row) {
        status = GODWIT_NOT_FOUND;
    }
    if (status == GODWIT_OK) {
        if (!op_outcome_parse(db_column_slice(stmt, 0), outcome)) {
            status = GODWIT_CORRUPT;
        }
        (void)op_code_parse(db_column_slice(stmt, 1), code);
    }
    db_done(d, stmt);
    return status;
}

godwit_status lite_salts_load(store *st, slice scope, const int64_t *seqs, size_t count,
                              decide_salt *out, size_t *found) {
    db *d = &st->d;
    sqlite3_stmt *stmt = NULL;
    int64_t scope_no = 0;
    *found = 0;
    godwit_status status = count ? sqlite_name(st, scope, &scope_no) : GODWIT_OK;
    if (status == GODWIT_OK && count) {
        status = db_prepare(
            d, "SELECT salt FROM godwit_commit WHERE scope = ?1 AND commit_seq = ?2", &stmt);
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        bool row = false;
        status = db_bind_int(d, stmt, 1, scope_no);
        if (status == GODWIT_OK) {
            status = db_bind_int(d, stmt, 2, seqs[i]);
        }
        if (status == GODWIT_OK) {
            status = db_step(d, stmt, &row);
        }
        if (status == GODWIT_OK && row) {
            out[(*found)++] = (decide_salt){seqs[i], sqlite3_column_int64(stmt, 0)};
        }
        sqlite3_reset(stmt);
    }
    db_done(d, stmt);
    return status;
}

/* ---- working rows ---- */

static godwit_status created_device(store *st, arena *a, slice scope, int64_t commit_seq,
                                    slice *out) {
    db *d = &st->d;
    int64_t scope_no = 0;
    *out = (slice){0};
    godwit_status status = stmt_once(d, &st->hot[HOT_COMMIT_DEVICE], COMMIT_DEVICE_SQL);
    if (status != GODWIT_OK) {
        return status;
    }
    sqlite3_stmt *stmt = st->hot[HOT_COMMIT_DEVICE];
    bool row = false;
    status = sqlite_name(st, scope, &scope_no);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, scope_no);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, commit_seq);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        *out = copied(a, stmt, 0);
    }
    sqlite3_reset(stmt);
    return status;
}

/* Reads the typed row into values. *found false when it isn't there. values NULL: only look. */
static godwit_status load_typed(store *st, decide_context *c, const decide_row *row, value *values,
                                bool *found) {
    sqlite3_stmt *stmt = NULL;
    godwit_status status = typed_select(st, c->a, row->table, row->id, &stmt, found);
    if (status == GODWIT_OK && *found && values) {
        status = typed_read_values(stmt, row->table, c->a, values);
    }
    sqlite3_reset(stmt);
    /* INVALID: not a key of this table; decide refuses it by itself */
    return status == GODWIT_INVALID ? GODWIT_OK : status;
}

static godwit_status fill_row(store *st, decide_context *c, decide_row *row, sqlite3_stmt *stmt) {
    merge_row *r = &row->row;
    arena *a = c->a;
    r->exists = true;
    r->ver = sqlite3_column_int64(stmt, 0);
    r->gen = sqlite3_column_int(stmt, 1);
    r->created_ver = sqlite3_column_int64(stmt, 2);
    r->created = (merge_meta){.ver = r->created_ver,
                              .at_ms = sqlite3_column_int64(stmt, 3),
                              .seq = sqlite3_column_int64(stmt, 4)};
    r->deleted = sqlite3_column_type(stmt, 5) != SQLITE_NULL;
    r->del_ver = sqlite3_column_int64(stmt, 5);
    r->del_device = copied(a, stmt, 6);
    slice clock = copied(a, stmt, 7);
    slice meta = copied(a, stmt, 8);
    slice image = copied(a, stmt, 9);
    row->row_scope = c->scope;
    godwit_status status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    if (status == GODWIT_OK && r->created.seq > 0) {
        status = created_device(st, a, c->scope, r->created_ver, &r->created.device);
    }
    if (status == GODWIT_OK) {
        if (clock.ptr) {
            status = clock_parse(a, clock, &row->clock);
        } else if (r->created.seq > 0 && r->created.device.len > 0) {
            status = clock_set(a, &row->clock, r->created.device, r->created.seq);
        } else {
            row->clock.floor = r->created_ver;
        }
    }
    if (status == GODWIT_OK) {
        status = stored_meta_read(a, meta, row->table, r->meta);
    }
    if (status == GODWIT_OK && r->deleted) {
        row->typed = row->table->deleted_column >= 0;
        return stored_image_read(a, image, row->table, r->values);
    }
    return status;
}

static godwit_status load_row(store *st, decide_context *c, decide_row *row, bool exact) {
    db *d = &st->d;
    sqlite3_stmt *stmt = st->hot[HOT_ROW_LOAD];
    bool found = false;
    size_t columns = row->table->column_count;
    row->row = (merge_row){.values = row->row.values, .meta = row->row.meta};
    memset(row->row.values, 0, columns * sizeof *row->row.values);
    memset(row->row.meta, 0, columns * sizeof *row->row.meta);
    row->clock = (vclock){0};
    row->typed = false;
    int64_t scope_no = 0;
    godwit_status status = sqlite_name(st, c->scope, &scope_no);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, scope_no);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, row->table->name);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 3, row->id.ptr ? row->id : SLICE(""));
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &found);
    }
    if (status == GODWIT_OK && found) {
        status = fill_row(st, c, row, stmt);
    }
    sqlite3_reset(stmt);
    if (status != GODWIT_OK) {
        return status;
    }
    if (!found) {
        return exact ? load_typed(st, c, row, NULL, &row->row.foreign) : GODWIT_OK;
    }
    if (!row->row.deleted) {
        status = load_typed(st, c, row, row->row.values, &row->typed);
        if (status == GODWIT_OK && !row->typed) {
            /* somebody took the row out of the typed table by hand */
            row->row.deleted = true;
            row->row.del_ver = row->row.ver;
        }
    }
    return status;
}

godwit_status lite_rows_load(store *st, decide_context *c, decide_row *const *rows, size_t count,
                             bool exact) {
    godwit_status status = stmt_once(
        &st->d, &st->hot[HOT_ROW_LOAD],
        "SELECT ver, gen, created_ver, created_at, created_seq, del_ver, del_device, vclock,"
        " col_meta, last_image FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3");
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = load_row(st, c, rows[i], exact);
    }
    return status;
}

/* ---- commits ---- */

godwit_status lite_commit_load(store *st, arena *a, slice scope, int64_t seq,
                               store_commit_row *out) {
    sqlite3_stmt *stmt = NULL;
    bool found = false;
    *out = (store_commit_row){0};
    godwit_status status = db_prepare(
        &st->d,
        "SELECT c.commit_seq, c.salt, c.committed_at, c.first_seq, c.last_seq, c.outcome, d.name,"
        " u.name FROM godwit_commit AS c LEFT JOIN godwit_name AS d ON d.no = c.device_id"
        " LEFT JOIN godwit_name AS u ON u.no = c.user_id WHERE c.scope = (SELECT no FROM"
        " godwit_name WHERE name = ?1) AND c.commit_seq = ?2",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&st->d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 2, seq);
    }
    if (status == GODWIT_OK) {
        status = db_step(&st->d, stmt, &found);
    }
    if (status == GODWIT_OK && found) {
        *out = (store_commit_row){.seq = sqlite3_column_int64(stmt, 0),
                                  .salt = sqlite3_column_int64(stmt, 1),
                                  .at_ms = sqlite3_column_int64(stmt, 2),
                                  .first_seq = sqlite3_column_int64(stmt, 3),
                                  .last_seq = sqlite3_column_int64(stmt, 4),
                                  .device_id = copied(a, stmt, 6),
                                  .user_id = copied(a, stmt, 7)};
        (void)op_outcome_parse(db_column_slice(stmt, 5), &out->outcome);
    }
    db_done(&st->d, stmt);
    status = status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
    return status == GODWIT_OK && !found ? GODWIT_NOT_FOUND : status;
}

godwit_status lite_deleted_load(store *st, arena *a, slice scope, int64_t seq, store_key **out,
                                size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    size_t cap = 0;
    *out = NULL;
    *count = 0;
    godwit_status status = db_prepare(
        &st->d,
        "SELECT h.tbl, h.pk FROM godwit_commit c CROSS JOIN godwit_change h"
        " ON " SQLITE_CHANGES_OF_COMMIT " WHERE c.scope = (SELECT no FROM godwit_name WHERE name ="
        " ?1) AND c.commit_seq = ?2 AND h.kind = 'D' ORDER BY h.no",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&st->d, stmt, 1, scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&st->d, stmt, 2, seq);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(&st->d, stmt, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        if (*count == cap) {
            size_t more = cap ? cap * 2 : 16;
            *out = arena_resize(a, *out, cap * sizeof **out, more * sizeof **out);
            cap = more;
            if (!*out) {
                status = GODWIT_NOMEM;
                break;
            }
        }
        (*out)[(*count)++] = (store_key){copied(a, stmt, 0), copied(a, stmt, 1)};
    }
    db_done(&st->d, stmt);
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

godwit_status lite_use(store *st, const store_tables *tables) {
    return connection_tables_use(&st->tables, tables);
}
