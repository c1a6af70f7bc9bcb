/* Operations that were refused: given up by the engine (poison), or queued again, edited, discarded
 * by a person.
 *
 * Retry and edit make a new operation, as if the application had made the change again: a row of
 * the log, the local row brought in line, sealed at once so that it can name what it supersedes. */
#include "client/pump.h"
#include "client/relog.h"
#include "client/seal.h"

/* ---- Poison ---- */

static godwit_status refuse_group(settle *s, int64_t first_lsn) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    int64_t group = 0;
    godwit_status status =
        db_int(s->d, &group, "SELECT group_first FROM godwit_op WHERE lsn = ?1", "i", first_lsn);
    if (status == GODWIT_OK) {
        status = db_prepare(
            s->d,
            "SELECT lsn, group_first, last_error FROM godwit_op WHERE lsn >= ?1 AND scope ="
            " ?2 AND sequence_number > 0 ORDER BY lsn",
            &stmt);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, first_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 2, s->scope);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        if (status != GODWIT_OK || !row || sqlite3_column_int64(stmt, 1) != group) {
            break;
        }
        slice detail = arena_copy(&s->a, db_column_slice(stmt, 2));
        status = settle_refuse(s, sqlite3_column_int64(stmt, 0), op_code_name(CODE_POISON), detail);
    }
    db_done(s->d, stmt);
    return status;
}

godwit_status quarantine_first(godwit *g, slice scope) {
    settle s;
    int64_t lsn = INT64_MAX;
    godwit_status status = settle_open(&s, g, scope);
    if (status == GODWIT_OK) {
        status = request_first_lsn(g, scope, &lsn);
    }
    if (status == GODWIT_OK && lsn != INT64_MAX) {
        client_log(g, GODWIT_LOG_WARN, "event=quarantine lsn=%lld", (long long)lsn);
        status = refuse_group(&s, lsn);
    }
    return settle_close(&s, status, NULL);
}

/* ---- The refused operation ---- */

typedef struct {
    int64_t lsn;
    op_kind kind;
    op_state state;
    const client_table *t;
    slice id, scope, entity, entity_id, payload;
} refused_op;

static godwit_status load_refused(godwit *g, arena *a, const char *id, refused_op *op) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    memset(op, 0, sizeof *op);
    op->id = arena_copy(a, slice_of(id));
    godwit_status status = op->id.ptr ? seal_find(g, op->id, &op->lsn) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = db_prepare(
            &g->db,
            "SELECT operation, tbl, scope, entity_id, payload, state, EXISTS (SELECT 1 FROM"
            " godwit_outcome AS x WHERE x.lsn = o.lsn AND x.resolution IS NOT NULL) FROM"
            " godwit_op AS o WHERE lsn = ?1",
            &stmt);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, stmt, 1, op->lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(&g->db, stmt, &row);
    }
    op_state state = OP_PENDING;
    bool resolved = false;
    if (status == GODWIT_OK && row) {
        op->kind = op_kind_parse(db_column_slice(stmt, 0));
        op->t = client_table_by_number(g, sqlite3_column_int64(stmt, 1));
        op->scope = arena_copy(a, db_column_slice(stmt, 2));
        op->entity_id = arena_copy(a, db_column_slice(stmt, 3));
        op->payload = arena_copy(a, db_column_slice(stmt, 4));
        op->entity = op->t ? arena_copy(a, op->t->shape.entity) : op->entity;
        resolved = sqlite3_column_int(stmt, 6) != 0;
        status = op_state_parse(db_column_slice(stmt, 5), &state) ? GODWIT_OK : GODWIT_CORRUPT;
    }
    db_done(&g->db, stmt);
    if (status == GODWIT_NOT_FOUND || (status == GODWIT_OK && !row)) {
        return client_fail(g, GODWIT_NOT_FOUND,
                           "no operation has the id %.36s, or it has not been sent yet", id);
    }
    if (status == GODWIT_OK && state != OP_REJECTED && state != OP_BLOCKED &&
        state != OP_CONFLICT) {
        return client_fail(g, GODWIT_MISUSE, "operation %.36s was not refused: it is %s", id,
                           op_state_name(state));
    }
    if (status == GODWIT_OK && resolved) {
        return client_fail(g, GODWIT_MISUSE, "operation %.36s has been dealt with already", id);
    }
    op->state = state;
    return status == GODWIT_OK && (a->failed || !op->t) ? GODWIT_NOMEM : status;
}

/* ---- Making the change again ---- */

/* The local row as the operation wants it. */
static godwit_status redo_row(settle *s, const refused_op *op, slice payload) {
    touched *row = NULL;
    row_image given, next;
    const json *columns = NULL;
    godwit_status status = settle_touch(s, op->t, op->entity_id, &row);
    if (status == GODWIT_OK && !row) {
        return client_fail(s->g, GODWIT_INVALID,
                           "the operation's row can't be written on this device");
    }
    if (status == GODWIT_OK && !row->local_known) {
        row->local_known = true;
        status = apply_read(s, row->table, row->key, &row->local);
    }
    if (status == GODWIT_OK) {
        status = image_init(&s->a, op->t, &given);
    }
    if (status == GODWIT_OK && op->kind != OP_DELETE) {
        status = json_parse(&s->a, payload, &columns, NULL);
        if (status == GODWIT_OK) {
            status = image_set(&s->a, row->table, columns, &given);
        }
    }
    if (status == GODWIT_OK) {
        overlay_op again = {.kind = op->kind, .payload = payload};
        status = image_copy(&s->a, op->t, &row->local, &next);
        if (status == GODWIT_OK) {
            status = image_redo(&s->a, row->table, &again, &next);
        }
    }
    if (status == GODWIT_OK) {
        status = apply_change(s, row->table, row->key, &row->local, &next);
    }
    const relog_change change = {.t = op->t,
                                 .key = row->key,
                                 .kind = op->kind,
                                 .now = &given,
                                 .old = &row->local,
                                 .now_ms = s->now_ms};
    return status == GODWIT_OK ? relog_write(s->g, &change) : status;
}

static godwit_status redo_entry(settle *s, const refused_op *op, slice payload) {
    int64_t kind = op->kind == OP_CREATE ? 1 : op->kind == OP_UPDATE ? 2 : 3;
    value wall = {.type = VALUE_REAL, .u.d = (double)s->now_ms / 86400000.0 + 2440587.5};
    return db_run(
        s->d,
        "INSERT INTO godwit_log (op, tbl, wall, nonce, pk, mask, v0) VALUES (4, ?1, ?2, random(),"
        " ?3, ?4, ?5)",
        "ivsis", op->t->tbl, &wall, op->entity_id, kind, payload);
}

/* Seals the new change and ties both operations together. */
static godwit_status supersede(settle *s, const refused_op *op, const char *how, char new_id[37]) {
    slice lineage = {0};
    int64_t lsn = 0;
    bool more = false;
    char id[UUID_TEXT_BYTES];
    godwit_status status = db_int(s->d, &lsn, "SELECT max(lsn) FROM godwit_log", "");
    if (status == GODWIT_OK) {
        status = client_meta_text(s->g, &s->a, "lineage", &lineage);
    }
    if (status == GODWIT_OK) {
        status = seal_run(s->g, INT64_MAX, &more);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    id_operation(lineage, lsn, id);
    status = db_run(s->d,
                    "UPDATE godwit_op SET supersedes = ?2, resolves = (SELECT resolves FROM"
                    " godwit_op WHERE lsn = ?3) WHERE lsn = ?1",
                    "isi", lsn, op->id, op->lsn);
    if (status == GODWIT_OK) {
        status = db_run(
            s->d, "UPDATE godwit_outcome SET resolution = ?2, resolution_op = ?3 WHERE lsn = ?1",
            "iss", op->lsn, slice_of(how), slice_of(id));
    }
    if (status == GODWIT_OK) {
        status = count_resolved(s->g, op->state);
    }
    if (status == GODWIT_OK && new_id) {
        memcpy(new_id, id, sizeof id);
    }
    return status;
}

static godwit_status again(godwit *g, const char *id, const char *payload, char new_id[37]) {
    settle s;
    refused_op op;
    const json *object = NULL;
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = load_refused(g, &a, id, &op);
    slice text = payload ? slice_of(payload) : op.payload;
    if (status == GODWIT_OK && payload && op.kind == OP_DELETE) {
        status = client_fail(g, GODWIT_INVALID, "a delete has no payload to edit");
    }
    if (status == GODWIT_OK) {
        status = json_parse(&a, text, &object, NULL);
        if (status == GODWIT_OK ? !json_is(object, JSON_OBJECT) : status != GODWIT_NOMEM) {
            status = client_fail(g, GODWIT_INVALID, "the payload must be a JSON object");
        }
    }
    if (status == GODWIT_OK) {
        status = settle_open(&s, g, op.scope);
        if (status == GODWIT_OK) { /* opening refreshes the registry, which may move the tables */
            op.t = client_table_by_entity(g, op.entity);
            status = op.t ? GODWIT_OK : GODWIT_NOT_FOUND;
        }
        if (status == GODWIT_OK) {
            status = op.t->queue ? redo_entry(&s, &op, text) : redo_row(&s, &op, text);
        }
        if (status == GODWIT_OK) {
            status = supersede(&s, &op, payload ? "edited" : "retried", new_id);
        }
        /* nothing else is to be written: the rows are as they shall be */
        s.row_count = 0;
        status = settle_close(&s, status, NULL);
    }
    arena_deinit(&a);
    return status;
}

godwit_status godwit_retry(godwit *g, const char *id, char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    if (!id) {
        return GODWIT_MISUSE;
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, again(g, id, NULL, new_id)) : status;
}

godwit_status godwit_edit(godwit *g, const char *id, const char *payload, char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    if (!id || !payload) {
        return GODWIT_MISUSE;
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, again(g, id, payload, new_id)) : status;
}

static godwit_status discard(godwit *g, const char *id, const char *reason) {
    refused_op op;
    arena a;
    char at[32];
    wire_time_write(client_wall_ms(g), at);
    arena_init(&a, g->allocator, 0);
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        arena_deinit(&a);
        return status;
    }
    status = load_refused(g, &a, id, &op);
    if (status == GODWIT_OK) {
        status = db_run(
            &g->db,
            "INSERT INTO godwit_outcome (lsn, idempotency_key, at, outcome, code, detail,"
            " payload, base, resolution) SELECT lsn, idempotency_key, ?2, state, 'discarded', ?3,"
            " payload, base, 'discarded' FROM godwit_op WHERE lsn = ?1",
            "iss", op.lsn, slice_of(at), slice_of(reason ? reason : ""));
    }
    if (status == GODWIT_OK) {
        status = count_resolved(g, op.state);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    arena_deinit(&a);
    return status;
}

godwit_status godwit_discard(godwit *g, const char *id, const char *reason) {
    if (!id) {
        return GODWIT_MISUSE;
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, discard(g, id, reason)) : status;
}
