/* When images can't be written in place: rows are taken out, the server's images put in, and the
 * waiting operations made again one by one, in their order. One that the table refuses shows no
 * effect for now; it stays pending, the server will decide.
 *
 * Some of the rows may have been written in place before: all of them are taken out, so it does not
 * matter. A waiting row elsewhere that holds a UNIQUE value the server has given to another row is
 * drawn in. */
#include "client/settle.h"

#include <stdlib.h>

/* ---- Rows in the way ---- */

static godwit_status touch_holder(settle *s, apply_table *table, sqlite3_stmt *stmt) {
    value key[16];
    slice id = {0};
    touched *row = NULL;
    for (size_t i = 0; i < table->t->shape.key_count; i++) {
        db_column_value(stmt, (int)i, &key[i]);
    }
    godwit_status status = client_key_text(&s->a, table->t, key, &id);
    if (status == GODWIT_INVALID) {
        return GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status = settle_touch(s, table->t, id, &row);
    }
    return status == GODWIT_OK && row ? settle_image_of(s, row) : status;
}

static const value *value_named(const touched *row, const row_image *image, slice name) {
    const client_table *t = row->table->t;
    int column = schema_column_index(&t->shape, name);
    if (column < 0) {
        return NULL;
    }
    if (row->table->data_of[column] >= 0) {
        int at = row->table->data_of[column];
        return image->known[at] ? &image->values[at] : NULL;
    }
    for (size_t i = 0; i < t->shape.key_count; i++) {
        if (t->shape.key[i] == column) {
            return &row->key[i];
        }
    }
    return NULL;
}

/* SELECT key columns of the rows equal in one unique index. *sql stays empty when it can't be told.
 */
static godwit_status holder_query(settle *s, const touched *row, slice index, bytes *sql,
                                  const value *values[16], size_t *count) {
    const client_table *t = row->table->t;
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    *count = 0;
    bytes_text(sql, "SELECT ");
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(sql, i ? ", " : "");
        bytes_identifier(sql, t->shape.columns[t->shape.key[i]].name);
    }
    bytes_text(sql, " FROM main.");
    bytes_identifier(sql, t->shape.name);
    godwit_status status =
        db_prepare(s->d, "SELECT name FROM pragma_index_info(?1) ORDER BY seqno", &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 1, index);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(s->d, stmt, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        slice name = db_column_slice(stmt, 0);
        const value *v = name.ptr && *count < 16 ? value_named(row, &row->base, name) : NULL;
        if (!v || v->type == VALUE_NULL) {
            bytes_clear(sql);
            *count = 0;
            break;
        }
        bytes_text(sql, *count ? " AND " : " WHERE ");
        bytes_identifier(sql, name);
        values[(*count)++] = v;
        bytes_printf(sql, " = ?%d", (int)*count);
    }
    db_done(s->d, stmt);
    return sql->failed ? GODWIT_NOMEM : status;
}

static godwit_status touch_holders(settle *s, touched *row, slice index) {
    const value *values[16];
    size_t count = 0;
    bytes sql;
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    bytes_init(&sql, s->g->allocator, 0);
    godwit_status status = holder_query(s, row, index, &sql, values, &count);
    if (status == GODWIT_OK && count) {
        status = db_prepare(s->d, sql.ptr, &stmt);
        for (size_t i = 0; i < count && status == GODWIT_OK; i++) {
            status = db_bind_value(s->d, stmt, (int)i + 1, values[i]);
        }
        while (status == GODWIT_OK && found) {
            status = db_step(s->d, stmt, &found);
            if (status == GODWIT_OK && found) {
                status = touch_holder(s, row->table, stmt);
            }
        }
        db_done(s->d, stmt);
    }
    bytes_deinit(&sql);
    return status;
}

static godwit_status draw_in(settle *s, touched *row) {
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    godwit_status status = db_prepare(
        s->d, "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND origin <> 'pk'", &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 1, row->table->t->shape.name);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(s->d, stmt, &found);
        if (status == GODWIT_OK && found) {
            status = touch_holders(s, row, db_column_slice(stmt, 0));
        }
    }
    db_done(s->d, stmt);
    return status;
}

/* ---- Replay ---- */

typedef struct {
    touched *row;
    const overlay_op *op;
} replay_step;

static int by_lsn(const void *left, const void *right) {
    const replay_step *a = left;
    const replay_step *b = right;
    return a->op->lsn < b->op->lsn ? -1 : a->op->lsn > b->op->lsn;
}

static godwit_status replay_one(settle *s, const replay_step *step) {
    touched *row = step->row;
    row_image next;
    godwit_status status = image_copy(&s->a, row->table->t, &row->target, &next);
    if (status == GODWIT_OK) {
        status = image_redo(&s->a, row->table, step->op, &next);
    }
    if (status == GODWIT_OK) {
        status = apply_change(s, row->table, row->key, &row->target, &next);
        if (status == GODWIT_CONSTRAINT) {
            client_log(s->g, GODWIT_LOG_INFO, "event=replay-skipped lsn=%lld",
                       (long long)step->op->lsn);
            return GODWIT_OK;
        }
    }
    if (status == GODWIT_OK) {
        row->target = next;
    }
    return status;
}

static godwit_status replay(settle *s) {
    size_t total = 0, n = 0;
    for (size_t i = 0; i < s->row_count; i++) {
        total += s->rows[i]->stay_count;
    }
    replay_step *steps = ARENA_ARRAY(&s->a, replay_step, total + 1);
    if (!steps) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < s->row_count; i++) {
        for (size_t k = 0; k < s->rows[i]->op_count; k++) {
            if (!s->rows[i]->ops[k].leaves) {
                steps[n++] = (replay_step){s->rows[i], &s->rows[i]->ops[k]};
            }
        }
    }
    qsort(steps, n, sizeof *steps, by_lsn);
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < n && status == GODWIT_OK; i++) {
        status = replay_one(s, &steps[i]);
    }
    return status;
}

/* ---- By force ---- */

static int by_table_rank(const void *left, const void *right) {
    const touched *a = *(touched *const *)left;
    const touched *b = *(touched *const *)right;
    if (a->table->rank != b->table->rank) {
        return a->table->rank < b->table->rank ? -1 : 1;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static godwit_status put_bases(settle *s, touched **order) {
    godwit_status status = GODWIT_OK;
    for (size_t i = s->row_count; i > 0 && status == GODWIT_OK; i--) {
        status = apply_delete(s, order[i - 1]->table, order[i - 1]->key);
    }
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        touched *row = order[i];
        if (row->base.present) {
            status = apply_insert(s, row->table, row->key, &row->base);
        }
        row->target = row->base;
        row->unresolved = false;
        if (status == GODWIT_CONSTRAINT) {
            return client_fail(
                s->g, status,
                "table " SLICE_FMT " refuses a row of the server: %s; a local row that is"
                " not synced is in its way, or the table's constraints are stricter than"
                " the server's",
                SLICE_ARG(row->table->t->shape.name), s->d->message);
        }
    }
    return status;
}

godwit_status settle_swap(settle *s) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) { /* grows on the way */
        status = settle_image_of(s, s->rows[i]);
        if (status == GODWIT_OK && s->overlay && s->rows[i]->base.present) {
            status = draw_in(s, s->rows[i]);
        }
    }
    touched **order = ARENA_ARRAY(&s->a, touched *, s->row_count + 1);
    if (status != GODWIT_OK || !order) {
        return status == GODWIT_OK ? GODWIT_NOMEM : status;
    }
    memcpy(order, s->rows, s->row_count * sizeof(touched *));
    qsort(order, s->row_count, sizeof(touched *), by_table_rank);
    status = put_bases(s, order);
    if (status == GODWIT_OK) {
        status = replay(s);
    }
    if (status == GODWIT_OK) {
        status = settle_check_parents(s);
        status = status == GODWIT_CONSTRAINT ? GODWIT_OK : status; /* then the row stays as it is */
    }
    return status;
}
