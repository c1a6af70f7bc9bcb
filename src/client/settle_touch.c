/* Which rows a transaction concerns, and what the server's image of each is.
 *
 * The server's image of a row without waiting operations is the row itself. With waiting operations
 * it is godwit_base where an earlier settle has stored it, else the row with the operations taken
 * back in reverse. So everything must be sealed before, and images be read before anything is
 * written. */
#include "client/bootstrap.h"
#include "client/event.h"

#define FIRST_BUCKETS 256

static godwit_status grow(settle *s) {
    size_t count = s->bucket_count ? s->bucket_count * 4 : FIRST_BUCKETS;
    touched **buckets = ARENA_ARRAY(&s->a, touched *, count);
    if (!buckets) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < s->row_count; i++) {
        touched *row = s->rows[i];
        row->chain = buckets[row->hash & (count - 1)];
        buckets[row->hash & (count - 1)] = row;
    }
    s->buckets = buckets;
    s->bucket_count = count;
    return GODWIT_OK;
}

static godwit_status append(settle *s, touched *row) {
    if (s->row_count == s->row_cap) {
        size_t cap = s->row_cap ? s->row_cap * 2 : FIRST_BUCKETS;
        touched **rows = mem_resize(s->g->allocator, s->rows, cap * sizeof *rows);
        if (!rows) {
            return GODWIT_NOMEM;
        }
        s->rows = rows;
        s->row_cap = cap;
    }
    row->order = s->row_count;
    s->rows[s->row_count++] = row;
    row->chain = s->buckets[row->hash & (s->bucket_count - 1)];
    s->buckets[row->hash & (s->bucket_count - 1)] = row;
    return GODWIT_OK;
}

/* ---- Operations waiting on the row ---- */

static godwit_status keep_op(settle *s, touched *row, size_t *cap) {
    if (row->op_count == *cap) {
        size_t more = *cap ? *cap * 2 : 4;
        overlay_op *ops = ARENA_ARRAY(&s->a, overlay_op, more);
        if (!ops) {
            return GODWIT_NOMEM;
        }
        if (row->op_count) {
            memcpy(ops, row->ops, row->op_count * sizeof *ops);
        }
        row->ops = ops;
        *cap = more;
    }
    overlay_op *op = &row->ops[row->op_count++];
    op->lsn = sqlite3_column_int64(s->ops_of_row, 0);
    op->kind = op_kind_parse(db_column_slice(s->ops_of_row, 1));
    op->payload = arena_copy(&s->a, db_column_slice(s->ops_of_row, 2));
    op->base = arena_copy(&s->a, db_column_slice(s->ops_of_row, 3));
    op->leaves = false;
    return s->a.failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status load_ops(settle *s, touched *row) {
    godwit_status status = GODWIT_OK;
    size_t cap = 0;
    bool found = true;
    if (!s->ops_of_row) {
        status = db_prepare(
            s->d,
            "SELECT lsn, operation, payload, base FROM godwit_op WHERE row_hash = ?3 AND"
            " tbl = ?1 AND entity_id = ?2 AND state IN ('pending', 'acked', 'parked') AND"
            " state <> 'retired' ORDER BY lsn",
            &s->ops_of_row);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->ops_of_row, 1, row->table->t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->ops_of_row, 2, row->id);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->ops_of_row, 3, (int64_t)row->hash);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(s->d, s->ops_of_row, &found);
        if (status == GODWIT_OK && found) {
            status = keep_op(s, row, &cap);
        }
    }
    if (s->ops_of_row) {
        sqlite3_reset(s->ops_of_row);
    }
    return status;
}

/* ---- The server's image ---- */

static godwit_status load_base(settle *s, touched *row) {
    godwit_status status = GODWIT_OK;
    bool found = false;
    if (!s->base_of_row) {
        status = db_prepare(s->d, "SELECT image FROM godwit_base WHERE tbl = ?1 AND pk = ?2",
                            &s->base_of_row);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->base_of_row, 1, row->table->t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->base_of_row, 2, row->id);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, s->base_of_row, &found);
    }
    if (status == GODWIT_OK && found) {
        slice text = db_column_slice(s->base_of_row, 0);
        const json *columns = NULL;
        row->base_stored = true;
        status = image_init(&s->a, row->table->t, &row->base);
        row->base.present = text.ptr != NULL;
        if (status == GODWIT_OK && text.ptr) {
            text = arena_copy(&s->a, text);
            status = text.ptr ? json_parse(&s->a, text, &columns, NULL) : GODWIT_NOMEM;
            if (status == GODWIT_OK) {
                status = image_set(&s->a, row->table, columns, &row->base);
            }
        }
    }
    if (s->base_of_row) {
        sqlite3_reset(s->base_of_row);
    }
    return status;
}

static godwit_status read_local(settle *s, touched *row) {
    if (row->local_known) {
        return GODWIT_OK;
    }
    row->local_known = true;
    return apply_read(s, row->table, row->key, &row->local);
}

static godwit_status undo_all(settle *s, touched *row) {
    godwit_status status = read_local(s, row);
    if (status == GODWIT_OK) {
        status = image_copy(&s->a, row->table->t, &row->local, &row->base);
    }
    for (size_t i = row->op_count; i > 0 && status == GODWIT_OK; i--) {
        status = image_undo(&s->a, row->table, &row->ops[i - 1], &row->base);
    }
    return status;
}

/* Called when the row is first touched: nothing of it has been written yet. */
static godwit_status look_at(settle *s, touched *row) {
    godwit_status status = s->overlay ? load_ops(s, row) : GODWIT_OK;
    if (status == GODWIT_OK && row->op_count) {
        status = load_base(s, row);
        if (status == GODWIT_OK && !row->base_stored) {
            status = undo_all(s, row);
        }
        if (status == GODWIT_OK) {
            status = read_local(s, row);
        }
        row->base_known = true;
    }
    return status;
}

touched *settle_touched(const settle *s, const apply_table *table, slice id) {
    if (!s->bucket_count) {
        return NULL;
    }
    uint64_t hash = client_row_hash(table->t->tbl, id);
    touched *row = s->buckets[hash & (s->bucket_count - 1)];
    while (row && (row->hash != hash || row->table != table || !slice_equal(row->id, id))) {
        row = row->chain;
    }
    return row;
}

godwit_status settle_touch(settle *s, const client_table *t, slice id, touched **out) {
    apply_table *table = NULL;
    *out = NULL;
    godwit_status status = apply_open(s, t, &table);
    if (status != GODWIT_OK || table->missing) {
        return status;
    }
    *out = settle_touched(s, table, id);
    if (*out) {
        return GODWIT_OK;
    }
    if (s->row_count >= s->bucket_count) {
        status = grow(s);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    touched *row = ARENA_NEW(&s->a, touched);
    value *key = ARENA_ARRAY(&s->a, value, t->shape.key_count);
    if (!row || !key) {
        return GODWIT_NOMEM;
    }
    row->id = arena_copy(&s->a, id);
    if (!row->id.ptr) {
        return GODWIT_NOMEM;
    }
    status = client_key_values(&s->a, t, row->id, key);
    if (status == GODWIT_INVALID) {
        client_log(s->g, GODWIT_LOG_WARN, "event=id-invalid table=" SLICE_FMT,
                   SLICE_ARG(t->shape.name));
        return GODWIT_OK;
    }
    row->table = table;
    row->hash = client_row_hash(t->tbl, row->id);
    row->key = key;
    if (status == GODWIT_OK) {
        status = look_at(s, row);
    }
    if (status == GODWIT_OK) {
        status = append(s, row);
    }
    *out = status == GODWIT_OK ? row : NULL;
    return status;
}

/* ---- Changes of the feed ---- */

static bool referenced(const settle *s, const client_table *t) {
    for (size_t i = 0; i < s->g->registry.count; i++) {
        const schema_table *shape = &s->g->registry.tables[i].shape;
        for (size_t f = 0; f < shape->fk_count; f++) {
            if (slice_equal(shape->fks[f].table, t->shape.name)) {
                return true;
            }
        }
    }
    return false;
}

static godwit_status take_upsert(settle *s, touched *row, const wire_change *change) {
    godwit_status status = GODWIT_OK;
    if (!row->base.values) {
        status = image_init(&s->a, row->table->t, &row->base);
    }
    if (change->full) {
        if (row->base_known || row->change != CHANGE_NONE) {
            memset(row->base.known, 0, row->table->t->data_count * sizeof *row->base.known);
        }
        row->base.present = true;
        row->base.odd = false;
        row->change = CHANGE_FULL;
    } else if (row->base_known ? !row->base.present : row->change == CHANGE_DELETE) {
        return status; /* some columns of a row that is not there: nothing to put them on */
    } else if (row->change == CHANGE_NONE) {
        row->change = CHANGE_DELTA;
    }
    return status == GODWIT_OK ? image_set(&s->a, row->table, change->columns, &row->base) : status;
}

/* A record that came again, perhaps in another state: it is no longer counted as it was. */
static godwit_status count_known_conflict(settle *s, slice conflict_id) {
    return db_run(s->d,
                  "UPDATE godwit_counter SET n = n - 1 WHERE name = (SELECT 'conflict:' || kind ||"
                  " ':' || state FROM godwit_conflict WHERE scope = ?1 AND conflict_id = ?2)",
                  "ss", s->scope, conflict_id);
}

godwit_status settle_take_conflict(settle *s, slice conflict_id, const json *columns) {
    slice entity = {0}, id = {0}, op_key = {0}, kind = SLICE("field"), state = SLICE("auto");
    char now[32];
    (void)json_text(json_get(columns, "entityType"), &entity);
    (void)json_text(json_get(columns, "entityId"), &id);
    (void)json_text(json_get(columns, "kind"), &kind);
    (void)json_text(json_get(columns, "state"), &state);
    (void)json_text(json_get(columns, "opKey"), &op_key);
    const client_table *t = client_table_by_entity(s->g, entity);
    if (!t || !id.ptr) {
        return GODWIT_OK; /* of a table this device does not have */
    }
    godwit_status status = count_known_conflict(s, conflict_id);
    if (status == GODWIT_OK) {
        status = count_conflict(s->g, kind, state, 1);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    s->closes_conflict = s->closes_conflict || !slice_is(state, "open");
    status = event_conflict(s, conflict_id, kind, state, entity, id);
    if (status != GODWIT_OK) {
        return status;
    }
    wire_time_write(s->now_ms, now);
    status = db_run(
        s->d,
        "INSERT INTO godwit_conflict (scope, conflict_id, tbl, pk, kind, body, state, at, op_key)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (scope, conflict_id) DO UPDATE"
        " SET tbl = excluded.tbl, pk = excluded.pk, kind = excluded.kind, body = excluded.body,"
        " state = excluded.state, at = excluded.at, op_key = excluded.op_key",
        "ssissssss", s->scope, conflict_id, t->tbl, id, kind, columns->u.s, state, slice_of(now),
        op_key);
    return status == GODWIT_OK && s->staging ? stage_conflict(s, conflict_id) : status;
}

godwit_status settle_take_change(settle *s, const wire_commit *commit, const wire_change *change) {
    if (slice_is(change->entity_type, "_conflicts")) {
        return change->columns ? settle_take_conflict(s, change->entity_id, change->columns)
                               : GODWIT_OK;
    }
    const client_table *t = client_table_by_entity(s->g, change->entity_type);
    touched *row = NULL;
    godwit_status status = t ? settle_touch(s, t, change->entity_id, &row) : GODWIT_OK;
    if (status != GODWIT_OK || !row) {
        return status;
    }
    row->ver = commit->seq;
    row->vclock = change->vector_clock;
    s->counts.received += !commit->own;
    if (!change->is_delete) {
        return take_upsert(s, row, change);
    }
    if (!row->base.values) {
        status = image_init(&s->a, t, &row->base);
    }
    row->base.present = false;
    row->change = CHANGE_DELETE;
    s->deletes_parent = s->deletes_parent || referenced(s, t);
    return status;
}

/* ---- Targets ---- */

godwit_status settle_image_of(settle *s, touched *row) {
    godwit_status status = GODWIT_OK;
    if (row->target_known) {
        return status;
    }
    if (!row->base_known && row->change != CHANGE_FULL && row->change != CHANGE_DELETE) {
        row_image delta = row->base;
        status = read_local(s, row);
        if (status == GODWIT_OK) {
            status = image_copy(&s->a, row->table->t, &row->local, &row->base);
        }
        for (size_t i = 0; status == GODWIT_OK && delta.values && row->base.present &&
                           i < row->table->t->data_count;
             i++) {
            if (delta.known[i]) {
                row->base.values[i] = delta.values[i];
                row->base.known[i] = true;
            }
        }
        row->base.odd = delta.odd;
        row->base_known = true;
    }
    row->stay_count = 0;
    for (size_t i = 0; i < row->op_count; i++) {
        row->stay_count += !row->ops[i].leaves;
    }
    row->target = row->base;
    if (status == GODWIT_OK && row->stay_count) {
        status = image_copy(&s->a, row->table->t, &row->base, &row->target);
    }
    for (size_t i = 0; i < row->op_count && status == GODWIT_OK; i++) {
        if (!row->ops[i].leaves) {
            status = image_redo(&s->a, row->table, &row->ops[i], &row->target);
        }
    }
    row->target_known = status == GODWIT_OK;
    return status;
}

/* Waiting rows that may point to a row that goes away. */
static godwit_status touch_children(settle *s) {
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    godwit_status status =
        db_prepare(s->d,
                   "SELECT DISTINCT tbl, entity_id FROM godwit_op WHERE scope = ?1 AND state IN"
                   " ('pending', 'acked', 'parked') AND state <> 'retired'",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 1, s->scope);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(s->d, stmt, &found);
        if (status == GODWIT_OK && found) {
            touched *row = NULL;
            const client_table *t = client_table_by_number(s->g, sqlite3_column_int64(stmt, 0));
            if (t && t->shape.fk_count) {
                status = settle_touch(s, t, db_column_slice(stmt, 1), &row);
            }
        }
    }
    db_done(s->d, stmt);
    return status;
}

godwit_status settle_images(settle *s) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        touched *row = s->rows[i];
        /* a row without waiting operations, told as a whole, is written without a look at it */
        if (row->op_count || row->own || row->change == CHANGE_DELTA ||
            row->change == CHANGE_NONE) {
            status = settle_image_of(s, row);
        } else {
            row->target = row->base;
        }
        if (status == GODWIT_OK && row->op_count && !row->target.present && row->local.present) {
            s->deletes_parent = s->deletes_parent || referenced(s, row->table->t);
        }
    }
    if (status == GODWIT_OK && s->deletes_parent && s->overlay) {
        size_t before = s->row_count;
        status = touch_children(s);
        for (size_t i = before; i < s->row_count && status == GODWIT_OK; i++) {
            status = settle_image_of(s, s->rows[i]);
        }
    }
    return status;
}
