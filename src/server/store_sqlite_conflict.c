/* The conflict ledger in the SQLite store: records of a decided group, and records that an
 * operation of a group resolves.
 *
 * A record is a row of godwit_conflict, and in the same transaction a change of its commit under
 * the name _conflicts, so that it reaches every device of the scope the way rows do. What is
 * written for a new record, for one that was resolved and for a snapshot is one text:
 * store_conflict_json. */
#include "server/store_sqlite.h"

void sqlite_conflict_read(sqlite3_stmt *stmt, store_conflict_row *out) {
    slice *const texts[] = {&out->id,     &out->kind,    &out->policy,    &out->winner,
                            &out->state,  &out->table,   &out->entity_id, &out->device_id,
                            &out->op_key, &out->columns, &out->base,      &out->theirs,
                            &out->ours,   &out->chosen};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        *texts[i] = db_column_slice(stmt, (int)i);
    }
    out->commit_seq = sqlite3_column_int64(stmt, 14);
    out->at_ms = sqlite3_column_int64(stmt, 15);
    out->resolved_commit = sqlite3_column_int64(stmt, 16);
    out->resolved_by = db_column_slice(stmt, 17);
    out->operation = db_column_slice(stmt, 18);
    out->writers = db_column_slice(stmt, 19);
}

/* ---- Saving ---- */

typedef struct {
    store *st;
    const decide_context *c;
    const store_author *author;
    int64_t scope_no;
    const decide_commit *commit;
    int64_t index; /* of the next change in the commit */
} ledger;

static godwit_status add_change(ledger *l, slice entity, const store_conflict_row *row) {
    bytes *b = &l->st->json;
    bytes_clear(b);
    store_conflict_json(b, entity, row);
    if (b->failed) {
        return GODWIT_NOMEM;
    }
    return db_run(&l->st->d,
                  "INSERT INTO godwit_change(scope, commit_seq, idx, tbl, pk, kind, full_row,"
                  " prev_seq, clock_seq, cols, no) VALUES (?1, ?2, ?3, '_conflicts', ?4, 'U', 1, 0,"
                  " 0, ?5, ?6)",
                  "iiissi", l->scope_no, l->commit->commit_seq, l->index++, row->id, bytes_view(b),
                  ++l->st->last_change);
}

static slice or_null(slice s) {
    return s.len ? s : (slice){0};
}

static godwit_status add_record(ledger *l, const decide_conflict *conflict) {
    const store_author *author = l->author;
    store_conflict_row row = {.id = conflict->id,
                              .kind = conflict->kind,
                              .policy = conflict->policy,
                              .winner = conflict->winner,
                              .state = conflict->open ? SLICE("open") : SLICE("auto"),
                              .table = conflict->table->name,
                              .entity_id = conflict->entity_id,
                              .device_id = or_null(author->device_id),
                              .op_key = conflict->op->key_text,
                              .columns = or_null(conflict->columns_json),
                              .base = or_null(conflict->base),
                              .theirs = or_null(conflict->theirs),
                              .ours = or_null(conflict->ours),
                              .chosen = or_null(conflict->chosen),
                              .operation = slice_of(op_kind_name(conflict->op->kind)),
                              .writers = or_null(conflict->writers),
                              .commit_seq = l->commit->commit_seq,
                              .at_ms = l->commit->at_ms};
    if (author->stream) {
        row.op_key = (slice){(const char *)conflict->op->key, SHA256_BYTES};
    }
    godwit_status status = db_run(
        &l->st->d,
        "INSERT INTO godwit_conflict(scope, conflict_id, commit_seq, tbl, pk, kind, op_key,"
        " device_id, cols, base, theirs, ours, chosen, policy, winner, state, at, operation,"
        " writers) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,"
        " ?17, ?18, ?19)",
        "ssisssbsssssssssiss", l->c->scope, row.id, row.commit_seq, row.table, row.entity_id,
        row.kind, row.op_key, row.device_id, row.columns, row.base, row.theirs, row.ours,
        row.chosen, row.policy, row.winner, row.state, row.at_ms, row.operation, row.writers);
    return status == GODWIT_OK ? add_change(l, conflict->table->entity, &row) : status;
}

static bool had_effect(const decide_result *result) {
    return result->outcome == OUTCOME_APPLIED || result->outcome == OUTCOME_MERGED ||
           result->outcome == OUTCOME_NOOP;
}

/* What a person has decided before stays as it was decided then. */
static godwit_status resolve(ledger *l, slice id, bool reverts) {
    db *d = &l->st->d;
    sqlite3_stmt *stmt = NULL;
    store_conflict_row row;
    bool found = false;
    godwit_status status = db_run(
        d,
        "UPDATE godwit_conflict SET state = CASE WHEN ?5 AND state = 'auto' THEN 'reverted' ELSE"
        " 'resolved' END, resolved_by = ?3, resolved_commit = ?4"
        " WHERE scope = ?1 AND conflict_id = ?2 AND state IN ('open', 'auto')",
        "sssii", l->c->scope, id, l->author->user_id, l->commit->commit_seq, (int64_t)reverts);
    if (status != GODWIT_OK || sqlite3_changes(d->handle) == 0) {
        return status;
    }
    status = db_prepare(d,
                        "SELECT " SQLITE_CONFLICT_COLUMNS
                        " FROM godwit_conflict WHERE scope = ?1 AND conflict_id = ?2",
                        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, l->c->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 2, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &found);
    }
    if (status == GODWIT_OK && found) {
        sqlite_conflict_read(stmt, &row);
        const schema_table *t = tables_by_name(l->st->tables.tables, row.table);
        status = add_change(l, t ? t->entity : row.table, &row);
    }
    db_done(d, stmt);
    return status;
}

godwit_status sqlite_conflicts_save(store *st, const decide_context *c, const store_author *author,
                                    int64_t scope_no, const wire_op *ops,
                                    const decide_commit *commit) {
    ledger l = {.st = st,
                .c = c,
                .author = author,
                .scope_no = scope_no,
                .commit = commit,
                .index = (int64_t)commit->change_count};
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < commit->conflict_count; i++) {
        status = add_record(&l, &commit->conflicts[i]);
    }
    for (size_t i = 0; status == GODWIT_OK && i < commit->result_count; i++) {
        slice rest = had_effect(&commit->results[i]) ? ops[i].resolves : (slice){0};
        for (slice id = wire_resolves_next(&rest); status == GODWIT_OK && id.ptr;
             id = wire_resolves_next(&rest)) {
            status = resolve(&l, id, ops[i].reverts);
        }
    }
    return status;
}

godwit_status lite_conflict_known(store *st, slice scope, slice id, slice table, slice entity_id,
                                  bool *known) {
    int64_t n = 0;
    godwit_status status =
        db_int(&st->d, &n,
               "SELECT EXISTS (SELECT 1 FROM godwit_conflict WHERE scope = ?1 AND conflict_id ="
               " ?2 AND tbl = ?3 AND pk = ?4)",
               "ssss", scope, id, table, entity_id);
    *known = n != 0;
    return status;
}
