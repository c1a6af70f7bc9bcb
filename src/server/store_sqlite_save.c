/* One decided group into the SQLite store: typed rows, their metadata, the feed, the ledger,
 * conflict records, the commit.
 *
 * This is the hot path: statements are prepared once, values are bound where they lie, JSON is
 * built once and shared between feed, ledger and answer. */
#include "server/store_sqlite.h"

typedef struct {
    typed_writer typed;
    store *st;
    decide_context *c;
    const store_author *author;
    const wire_op *ops;
    decide_commit *commit;
    int64_t scope_no, device_no, user_no; /* godwit_name; device 0 = none */
} save;

static slice or_null(slice s) {
    return s.len ? s : (slice){0};
}

/* Binds from index 1 by letters: 'i' int64_t, 'z' int64_t with 0 for NULL, 's' slice (empty =
 * NULL), 't' slice (empty stays text), 'k' key bytes, 'n' NULL; runs to the end. */
static godwit_status run(db *d, sqlite3_stmt *stmt, const char *types, ...) {
    va_list args;
    int rc = SQLITE_OK;
    int index = 1;
    int64_t n;
    slice s;
    va_start(args, types);
    for (const char *t = types; *t && rc == SQLITE_OK; t++, index++) {
        switch (*t) {
        case 'i':
            rc = sqlite3_bind_int64(stmt, index, va_arg(args, int64_t));
            break;
        case 'z':
            n = va_arg(args, int64_t);
            rc = n ? sqlite3_bind_int64(stmt, index, n) : sqlite3_bind_null(stmt, index);
            break;
        case 'k':
            s = va_arg(args, slice);
            rc = sqlite3_bind_blob64(stmt, index, s.ptr, s.len, SQLITE_STATIC);
            break;
        case 's':
        case 't':
            s = va_arg(args, slice);
            if (s.len == 0 && *t == 's') {
                rc = sqlite3_bind_null(stmt, index);
            } else {
                rc = sqlite3_bind_text64(stmt, index, s.len ? s.ptr : "", s.len, SQLITE_STATIC,
                                         SQLITE_UTF8);
            }
            break;
        default:
            ASSERT(*t == 'n');
            rc = sqlite3_bind_null(stmt, index);
        }
    }
    va_end(args);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        rc = rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    godwit_status status = db_status(d, rc);
    sqlite3_reset(stmt);
    /* the engine's own tables have no constraint that input can violate */
    return status == GODWIT_CONSTRAINT ? GODWIT_INTERNAL : status;
}

#define ROW_INSERT                                                                                 \
    "INSERT INTO godwit_row(scope, tbl, pk, ver, gen, created_ver, created_at, created_seq, "      \
    "vclock,"                                                                                      \
    " col_meta) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
#define ROW_UPDATE                                                                                 \
    "UPDATE godwit_row SET ver = ?4, gen = ?5, created_ver = ?6, created_at = ?7, created_seq = "  \
    "?8,"                                                                                          \
    " vclock = ?9, col_meta = ?10, del_ver = ?11, del_device = ?12, last_image = ?13"              \
    " WHERE scope = ?1 AND tbl = ?2 AND pk = ?3"
#define CHANGE_INSERT                                                                              \
    "INSERT INTO godwit_change(scope, commit_seq, idx, tbl, pk, kind, full_row, prev_seq, "        \
    "clock_seq, vclock, cols, no) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
#define OP_INSERT                                                                                  \
    "INSERT INTO godwit_op(scope, device_id, seq, lineage, lsn, op_key, commit_seq, outcome, "     \
    "code,"                                                                                        \
    " detail, conflicts, result) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
#define COMMIT_INSERT                                                                              \
    "INSERT INTO godwit_commit(scope, commit_seq, salt, origin, device_id, first_seq, last_seq,"   \
    " outcome, user_id, committed_at, first_change, last_change) VALUES (?1, ?2, ?3, 'device',"    \
    " ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"

static godwit_status prepare_all(store *st) {
    static const struct {
        int slot;
        const char *sql;
    } hot[] = {{HOT_ROW_INSERT, ROW_INSERT},
               {HOT_ROW_UPDATE, ROW_UPDATE},
               {HOT_CHANGE, CHANGE_INSERT},
               {HOT_OP, OP_INSERT},
               {HOT_COMMIT, COMMIT_INSERT}};
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < COUNT_OF(hot); i++) {
        status = stmt_once(&st->d, &st->hot[hot[i].slot], hot[i].sql);
    }
    return status;
}

/* Tells histories apart and keeps no secret: SQLite's own random numbers are good enough, and a
 * simulated disk decides them too. */
static int64_t next_salt(void) {
    int64_t salt = 0;
    sqlite3_randomness(sizeof salt, &salt);
    return salt;
}

/* ---- texts ---- */

static slice text_done(const save *s, bytes *b) {
    s->c->a->failed = s->c->a->failed || b->failed; /* no text means something else */
    return b->failed ? (slice){0} : arena_copy(s->c->a, bytes_view(b));
}

/* The synced columns of a change, or with picked NULL of the whole row. */
static slice columns_text(const save *s, const decide_row *row, const bool *picked) {
    const schema_table *t = row->table;
    const table_info *info = tables_info(s->st->tables.tables, t);
    bytes *b = &s->st->json;
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].local || (picked && !picked[i])) {
            continue;
        }
        if (!first) {
            bytes_char(b, ',');
        }
        first = false;
        bytes_slice(b, info->columns[i].json_key);
        value_to_json(b, &row->row.values[i]);
    }
    bytes_char(b, '}');
    return text_done(s, b);
}

/* Columns whose meta is not that of the row's creation; empty when there are none. */
static slice meta_text(const save *s, const decide_row *row) {
    const schema_table *t = row->table;
    const table_info *info = tables_info(s->st->tables.tables, t);
    bytes *b = &s->st->json;
    bool any = false;
    for (size_t i = 0; i < t->column_count && !any; i++) {
        any = row->row.meta[i].ver != 0;
    }
    if (!any) {
        return (slice){0};
    }
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; i < t->column_count; i++) {
        const merge_meta *m = &row->row.meta[i];
        if (m->ver == 0) {
            continue;
        }
        if (!first) {
            bytes_char(b, ',');
        }
        first = false;
        stored_meta_write(b, info->columns[i].json_key, m);
    }
    bytes_char(b, '}');
    return text_done(s, b);
}

/* Is this clock what a first write by `created` leaves? Then it need not be stored. */
static bool clock_plain(const save *s, const decide_change *change) {
    const merge_meta *created = &change->row->row.created;
    bytes *b = &s->st->json;
    if (!change->full || created->ver != s->commit->commit_seq) {
        return false;
    }
    bytes_clear(b);
    if (created->seq > 0 && slice_equal(created->device, s->author->device_id)) {
        bytes_text(b, "{\"$\":0,\"");
        bytes_slice(b, created->device);
        bytes_text(b, "\":");
        bytes_int(b, created->seq);
        bytes_char(b, '}');
    } else if (created->seq == 0) {
        bytes_text(b, "{\"$\":");
        bytes_int(b, created->ver);
        bytes_char(b, '}');
    }
    return !b->failed && slice_equal(bytes_view(b), change->clock_json);
}

/* ---- rows and feed ---- */

static godwit_status save_meta(save *s, const decide_change *change, slice clock) {
    store *st = s->st;
    const decide_row *row = change->row;
    const merge_row *r = &row->row;
    slice meta = meta_text(s, row);
    slice id = row->id;
    if (change->prev_seq == 0) {
        return run(&st->d, st->hot[HOT_ROW_INSERT], "ittiiiiiss", s->scope_no, row->table->name, id,
                   r->ver, (int64_t)r->gen, r->created_ver, r->created.at_ms, r->created.seq, clock,
                   meta);
    }
    if (!change->is_delete) {
        return run(&st->d, st->hot[HOT_ROW_UPDATE], "ittiiiiissnnn", s->scope_no, row->table->name,
                   id, r->ver, (int64_t)r->gen, r->created_ver, r->created.at_ms, r->created.seq,
                   clock, meta);
    }
    return run(&st->d, st->hot[HOT_ROW_UPDATE], "ittiiiiississ", s->scope_no, row->table->name, id,
               r->ver, (int64_t)r->gen, r->created_ver, r->created.at_ms, r->created.seq, clock,
               meta, r->del_ver, or_null(r->del_device), columns_text(s, row, NULL));
}

static godwit_status save_change(save *s, size_t index) {
    store *st = s->st;
    decide_change *change = &s->commit->changes[index];
    const decide_row *row = change->row;
    bool plain = clock_plain(s, change);
    slice clock = plain ? (slice){0} : change->clock_json;
    int64_t clock_seq = plain ? row->row.created.seq : 0;
    if (!change->is_delete) {
        change->columns_json = columns_text(s, row, change->full ? NULL : change->columns);
    }
    godwit_status status = save_meta(s, change, clock);
    if (status == GODWIT_OK) {
        status = run(&st->d, st->hot[HOT_CHANGE], "iiittsiiissi", s->scope_no,
                     s->commit->commit_seq, (int64_t)index, row->table->name, row->id,
                     change->is_delete ? SLICE("D") : SLICE("U"), (int64_t)change->full,
                     change->prev_seq, clock_seq, clock, or_null(change->columns_json),
                     ++st->last_change);
    }
    return status == GODWIT_OK && s->c->a->failed ? GODWIT_NOMEM : status;
}

/* The operation that a change came from, for the refusal. */
static size_t op_of(const save *s, const decide_change *change) {
    for (size_t i = 0; i < s->commit->result_count; i++) {
        const wire_op *op = s->commit->results[i].op;
        if (slice_equal(op->entity_id, change->row->id) &&
            schema_find(s->c->schema, op->entity_type) == change->row->table) {
            return i;
        }
    }
    return 0;
}

/* Deletes free unique values that others may take, updates may too, then come the new rows. */
static godwit_status save_typed(save *s) {
    decide_commit *commit = s->commit;
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < commit->change_count; i++) {
            decide_change *change = &commit->changes[i];
            int kind = change->is_delete ? 0 : change->row->typed ? 1 : 2;
            if (kind != pass) {
                continue;
            }
            godwit_status status = typed_write(&s->typed, change);
            if (status == GODWIT_CONSTRAINT && pass == 1 &&
                s->typed.refusal->code == CODE_UNIQUE_VIOLATION) {
                /* perhaps a value only changes hands: the rest of the table's rows goes through
                 * pass 2 */
                *s->typed.refusal = (decide_refusal){0};
                status = typed_make_room(&s->typed, change->row->table, change,
                                         commit->change_count - i);
            }
            if (status == GODWIT_CONSTRAINT) {
                s->typed.refusal->op_index = op_of(s, change);
            }
            if (status != GODWIT_OK) {
                return status;
            }
        }
    }
    return GODWIT_OK;
}

static godwit_status save_rows(save *s) {
    decide_commit *commit = s->commit;
    size_t at = 0;
    godwit_status status = save_typed(s);
    for (size_t i = 0; status == GODWIT_OK && i < commit->change_count; i++) {
        status = save_change(s, i);
    }
    if (status == GODWIT_OK) {
        status = typed_check_references(&s->typed, commit->changes, commit->change_count, &at);
    }
    if (status == GODWIT_CONSTRAINT && s->typed.refusal->code == CODE_FK_VIOLATION &&
        at < commit->change_count) {
        s->typed.refusal->op_index = op_of(s, &commit->changes[at]);
    }
    return status;
}

/* ---- ledger ---- */

/* Index of the change that shows the whole row of this result, -1 when none does. */
static int64_t full_change_of(const decide_commit *commit, const decide_row *row) {
    size_t i = row->change;
    bool shown =
        i < commit->change_count && commit->changes[i].row == row && commit->changes[i].full;
    return shown ? (int64_t)i : -1;
}

static godwit_status save_op(save *s, size_t index) {
    store *st = s->st;
    decide_result *result = &s->commit->results[index];
    const wire_op *op = &s->ops[index];
    int64_t shared = -1;
    if (result->row && result->result.len == 0) {
        shared = full_change_of(s->commit, result->row);
        result->result = shared >= 0 ? s->commit->changes[shared].columns_json
                                     : columns_text(s, result->row, NULL);
    }
    if (!s->author->stream) {
        return s->c->a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    int64_t lineage = 0;
    slice key = {(const char *)op->key, SHA256_BYTES};
    slice outcome = slice_of(op_outcome_name(result->outcome));
    godwit_status status = sqlite_name(st, op->lineage, &lineage);
    if (status != GODWIT_OK) {
        return status;
    }
    if (shared >= 0) {
        return run(&st->d, st->hot[HOT_OP], "iiiiikisnssi", s->scope_no, s->device_no, op->seq,
                   lineage, op->lsn, key, s->commit->commit_seq, outcome, or_null(result->detail),
                   or_null(result->conflicts_json), shared);
    }
    return run(&st->d, st->hot[HOT_OP], "iiiiikisssss", s->scope_no, s->device_no, op->seq, lineage,
               op->lsn, key, s->commit->commit_seq, outcome, slice_of(op_code_name(result->code)),
               or_null(result->detail), or_null(result->conflicts_json), or_null(result->result));
}

static godwit_status name_numbers(save *s) {
    godwit_status status = sqlite_name(s->st, s->c->scope, &s->scope_no);
    if (status == GODWIT_OK) {
        status = sqlite_name(s->st, s->author->device_id, &s->device_no);
    }
    return status == GODWIT_OK ? sqlite_name(s->st, s->author->user_id, &s->user_no) : status;
}

godwit_status lite_group_save(store *st, decide_context *c, const store_author *author,
                              const wire_op *ops, decide_commit *commit, decide_refusal *refusal) {
    char now_text[32];
    save s = {.st = st, .c = c, .author = author, .ops = ops, .commit = commit};
    *refusal = (decide_refusal){0};
    wire_time_write(author->now_ms, now_text);
    s.typed = (typed_writer){.st = st,
                             .c = c,
                             .author = author,
                             .refusal = refusal,
                             .commit_seq = commit->commit_seq,
                             .now_text = now_text};
    godwit_status status = prepare_all(st);
    if (status == GODWIT_OK) {
        status = name_numbers(&s);
    }
    if (status == GODWIT_OK) {
        status = sqlite_last_change(st);
    }
    const int64_t first_change = st->last_change + 1;
    if (status == GODWIT_OK) {
        status = save_rows(&s);
    }
    for (size_t i = 0; status == GODWIT_OK && i < commit->result_count; i++) {
        status = save_op(&s, i);
    }
    if (status == GODWIT_OK) {
        status = sqlite_conflicts_save(st, c, author, s.scope_no, ops, commit);
    }
    if (status == GODWIT_OK) {
        status = run(&st->d, st->hot[HOT_COMMIT], "iiiziisiiii", s.scope_no, commit->commit_seq,
                     next_salt(), s.device_no, commit->first_seq, commit->last_seq,
                     slice_of(op_outcome_name(commit->outcome)), s.user_no, commit->at_ms,
                     first_change, st->last_change);
    }
    return status == GODWIT_OK && c->a->failed ? GODWIT_NOMEM : status;
}

/* Every group is written as it is saved. */
godwit_status lite_rows_settle(store *st, const decide_context *c, const wire_op *ops, size_t count,
                               decide_refusal *refusal) {
    (void)st;
    (void)c;
    (void)ops;
    (void)count;
    *refusal = (decide_refusal){0};
    return GODWIT_OK;
}

godwit_status lite_flush(store *st, decide_refusal *refusal) {
    (void)st;
    *refusal = (decide_refusal){0};
    return GODWIT_OK;
}
