/* Writing the new images, and remembering what was written.
 *
 * In place first: deletes children first, then upserts parents first. A row that is not equal to
 * its target is written, no other. Where the table refuses - values of a UNIQUE column changing
 * hands, a waiting operation that no longer fits - everything is taken back and settle_swap does it
 * by force. */
#include "client/settle.h"

#include <stdlib.h>

/* Only what is known to be there without a waiting operation is written without a look at the row.
 */
static bool blind(const touched *row) {
    return !row->target_known;
}

static int by_rank(const void *left, const void *right) {
    const touched *a = *(touched *const *)left;
    const touched *b = *(touched *const *)right;
    if (a->target.present != b->target.present) {
        return a->target.present ? 1 : -1;
    }
    if (a->table->rank != b->table->rank) {
        int order = a->table->rank < b->table->rank ? -1 : 1;
        return a->target.present ? order : -order;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static godwit_status write_full(settle *s, touched *row) {
    godwit_status status = apply_insert(s, row->table, row->key, &row->base);
    if (status != GODWIT_CONSTRAINT) {
        return status;
    }
    status = apply_read(s, row->table, row->key, &row->local);
    row->local_known = true;
    if (status == GODWIT_OK) {
        status = row->local.present ? apply_update(s, row->table, row->key, &row->local, &row->base)
                                    : GODWIT_CONSTRAINT;
    }
    return status;
}

static godwit_status write_row(settle *s, touched *row) {
    if (!blind(row)) {
        return apply_change(s, row->table, row->key, &row->local, &row->target);
    }
    return row->base.present ? write_full(s, row) : apply_delete(s, row->table, row->key);
}

static godwit_status write_all(settle *s, touched **order) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        status = write_row(s, order[i]);
    }
    return status == GODWIT_OK ? settle_check_parents(s) : status;
}

godwit_status settle_write(settle *s) {
    if (s->row_count == 0) {
        return GODWIT_OK;
    }
    touched **order = ARENA_ARRAY(&s->a, touched *, s->row_count);
    if (!order) {
        return GODWIT_NOMEM;
    }
    memcpy(order, s->rows, s->row_count * sizeof(touched *));
    qsort(order, s->row_count, sizeof(touched *), by_rank);
    godwit_status status = write_all(s, order);
    return status == GODWIT_CONSTRAINT ? settle_swap(s) : status;
}

/* ---- Triggers of the application ---- */

/* They have to fire - full-text indexes live on them - but what one of them writes into a row that
 * came from the server (SET updated_at = now) would never agree with the other replicas. */
godwit_status settle_set_right(settle *s) {
    godwit_status status = GODWIT_OK;
    bool any = false;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        touched *row = s->rows[i];
        status = apply_read(s, row->table, row->key, &row->local);
        row->local_known = true;
        any = any || !image_equal(row->table->t, &row->local, &row->target);
    }
    if (status != GODWIT_OK || !any) {
        return status;
    }
    (void)sqlite3_db_config(s->d->handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        touched *row = s->rows[i];
        status = apply_change(s, row->table, row->key, &row->local, &row->target);
        if (status == GODWIT_CONSTRAINT) { /* a trigger gave a UNIQUE value away: doctor names it */
            client_log(s->g, GODWIT_LOG_WARN, "event=trigger-interferes table=" SLICE_FMT,
                       SLICE_ARG(row->table->t->shape.name));
            status = GODWIT_OK;
        }
    }
    (void)sqlite3_db_config(s->d->handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
    return status;
}

/* ---- References of waiting rows ---- */

static godwit_status check_row(settle *s, touched *row, bool *moved) {
    for (size_t f = 0; f < row->table->t->shape.fk_count; f++) {
        bool exists = true;
        godwit_status status =
            apply_parent_exists(s, row->table, f, row->key, &row->target, &exists);
        if (status != GODWIT_OK) {
            return status;
        }
        if (!exists) {
            *moved = true;
            status = apply_change(s, row->table, row->key, &row->target, &row->base);
            row->target = row->base;
            row->unresolved = true;
            return status;
        }
    }
    return GODWIT_OK;
}

/* A waiting operation whose parent is gone shows no effect until the server has decided: the row
 * falls back to the server's image. That may take the parent away from others. */
godwit_status settle_check_parents(settle *s) {
    bool moved = true;
    godwit_status status = GODWIT_OK;
    while (moved && status == GODWIT_OK) {
        moved = false;
        for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
            touched *row = s->rows[i];
            if (row->stay_count && row->target.present && !row->unresolved) {
                status = check_row(s, row, &moved);
            }
        }
    }
    return status;
}

/* ---- What is kept about the rows ---- */

static godwit_status run(settle *s, sqlite3_stmt **stmt, const char *sql, const touched *row) {
    godwit_status status = *stmt ? GODWIT_OK : db_prepare(s->d, sql, stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, *stmt, 1, row->table->t->tbl);
    }
    return status == GODWIT_OK ? db_bind_slice(s->d, *stmt, 2, row->id) : status;
}

static godwit_status finish(settle *s, sqlite3_stmt *stmt, godwit_status status) {
    if (status == GODWIT_OK) {
        status = db_status(s->d, sqlite3_step(stmt));
    }
    if (stmt) {
        sqlite3_reset(stmt);
    }
    return status;
}

static godwit_status keep_base(settle *s, const touched *row) {
    if (!row->stay_count) {
        if (!row->base_stored) {
            return GODWIT_OK;
        }
        godwit_status status =
            run(s, &s->drop_base, "DELETE FROM godwit_base WHERE tbl = ?1 AND pk = ?2", row);
        return finish(s, s->drop_base, status);
    }
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    if (row->base.present) {
        image_write_json(&b, row->table->t, &row->base);
    }
    godwit_status status = b.failed
                               ? GODWIT_NOMEM
                               : run(s, &s->put_base,
                                     "INSERT OR REPLACE INTO godwit_base (tbl, pk, image) VALUES"
                                     " (?1, ?2, ?3)",
                                     row);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->put_base, 3, bytes_view(&b));
    }
    status = finish(s, s->put_base, status);
    bytes_deinit(&b);
    return status;
}

static godwit_status digest_of(settle *s, const touched *row, int64_t *out) {
    const row_image *image = &row->base;
    row_image stored;
    if (!row->stay_count && (image->odd || !image_complete(row->table->t, image))) {
        godwit_status status = apply_read(s, row->table, row->key, &stored);
        if (status != GODWIT_OK) {
            return status;
        }
        image = &stored;
    }
    *out = client_row_digest(row->table->t, image->values);
    return GODWIT_OK;
}

static godwit_status keep_version(settle *s, const touched *row) {
    if (row->change == CHANGE_NONE) {
        return row->own
                   ? db_run(s->d, "UPDATE godwit_row SET synced_at = ?3 WHERE tbl = ?1 AND pk = ?2",
                            "isi", row->table->t->tbl, row->id, s->now_ms)
                   : GODWIT_OK;
    }
    if (!row->base.present) {
        godwit_status status =
            run(s, &s->drop_row, "DELETE FROM godwit_row WHERE tbl = ?1 AND pk = ?2", row);
        return finish(s, s->drop_row, status);
    }
    int64_t digest = 0;
    godwit_status status = digest_of(s, row, &digest);
    if (status == GODWIT_OK) {
        status =
            run(s, &s->put_row,
                "INSERT OR REPLACE INTO godwit_row (tbl, pk, ver, vclock, digest, synced_at) VALUES"
                " (?1, ?2, ?3, ?4, ?5, ?6)",
                row);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->put_row, 3, row->ver);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, s->put_row, 4, row->vclock.len ? row->vclock : (slice){0});
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->put_row, 5, digest);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, s->put_row, 6, s->now_ms);
    }
    return finish(s, s->put_row, status);
}

godwit_status settle_remember(settle *s) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        status = keep_base(s, s->rows[i]);
        if (status == GODWIT_OK) {
            status = keep_version(s, s->rows[i]);
        }
    }
    return status;
}
