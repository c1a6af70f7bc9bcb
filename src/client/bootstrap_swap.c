/* The swap: what is staged becomes the application's tables, cursor and versions, in one
 * transaction.
 *
 * Rows with waiting operations are given the staged image as their base, leave the stage, and go
 * the way of every settle; all others go by bulk SQL. A row the server once sent and has no longer
 * is removed; a row it never knew is left alone. */
#include "client/bootstrap.h"

#include "client/identity.h"

typedef struct {
    settle *s;
    const client_table *t;
    apply_table *table;
    stage_table st;
} swap;

/* ---- Rows with waiting operations ---- */

static godwit_status give_base(swap *w, touched *row) {
    settle *s = w->s;
    int64_t ver = -1;
    slice clock = {0};
    row_image image;
    godwit_status status = stage_get(s, &w->st, &s->a, row->id, &ver, &clock, &image);
    if (status == GODWIT_OK && !row->local_known) {
        status = apply_read(s, row->table, row->key, &row->local);
        row->local_known = true;
    }
    row->base = image;
    row->base_known = true;
    row->change = image.present ? CHANGE_FULL : CHANGE_DELETE;
    row->ver = ver;
    row->vclock = clock;
    return status == GODWIT_OK && image.present ? stage_drop(s, &w->st, row->id) : status;
}

static godwit_status waiting_rows(swap *w) {
    settle *s = w->s;
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    godwit_status status = db_prepare(
        s->d,
        "SELECT DISTINCT entity_id FROM godwit_op WHERE tbl = ?1 AND scope = ?2 AND state IN"
        " ('pending', 'acked', 'parked') AND state <> 'retired'",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, w->t->tbl);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 2, s->scope);
    }
    while (status == GODWIT_OK && found) {
        status = db_step(s->d, stmt, &found);
        if (status == GODWIT_OK && found) {
            touched *row = NULL;
            status = settle_touch(s, w->t, db_column_slice(stmt, 0), &row);
            if (status == GODWIT_OK && row) {
                status = give_base(w, row);
            }
        }
    }
    db_done(s->d, stmt);
    return status;
}

/* ---- Rows the server no longer has ---- */

static godwit_status in_scope(swap *w, const value *key, bool *in) {
    int column = w->t->shape.scope_column;
    row_image image;
    *in = true;
    if (column < 0 || w->table->data_of[column] < 0) {
        return GODWIT_OK;
    }
    godwit_status status = apply_read(w->s, w->table, key, &image);
    const value *v = &image.values[w->table->data_of[column]];
    *in = status == GODWIT_OK && image.present && v->type == VALUE_TEXT &&
          slice_equal(v->u.s, w->s->scope);
    return status;
}

static godwit_status remove_one(swap *w, slice id) {
    settle *s = w->s;
    value key[16];
    bool in = false;
    if (settle_touched(s, w->table, id)) {
        return GODWIT_OK; /* waiting operations: written later */
    }
    godwit_status status = client_key_values(&s->a, w->t, id, key);
    if (status == GODWIT_OK) {
        status = in_scope(w, key, &in);
    }
    if (status == GODWIT_OK && in) {
        status = apply_delete(s, w->table, key);
        if (status == GODWIT_OK) {
            status = db_run(s->d, "DELETE FROM godwit_row WHERE tbl = ?1 AND pk = ?2", "is",
                            w->t->tbl, id);
        }
    }
    return status == GODWIT_INVALID ? GODWIT_OK : status;
}

/* In portions, so that the rows removed from godwit_row are not under a cursor. */
static godwit_status remove_gone(swap *w) {
    settle *s = w->s;
    char *sql = arena_printf(
        &s->a,
        "SELECT r.pk FROM godwit_row AS r WHERE r.tbl = %lld AND r.pk > ?1 AND NOT EXISTS"
        " (SELECT 1 FROM godwit_stage_%lld AS g WHERE g.id = r.pk) ORDER BY r.pk LIMIT 1",
        (long long)w->t->tbl, (long long)w->t->tbl);
    slice last = SLICE("");
    godwit_status status = sql ? GODWIT_OK : GODWIT_NOMEM;
    while (status == GODWIT_OK) {
        slice id = {0};
        status = db_text(s->d, &s->a, &id, sql, "s", last);
        if (status == GODWIT_OK) {
            status = remove_one(w, id);
            last = id;
        }
    }
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

/* ---- The others, in bulk ---- */

static bool seen(const swap *w, size_t i) {
    return w->st.seen[i / 64] >> (i % 64) & 1;
}

static void column_lists(const swap *w, bytes *names, bytes *values) {
    const schema_table *shape = &w->t->shape;
    for (size_t i = 0; i < shape->key_count; i++) {
        bytes_text(names, i ? ", " : "");
        bytes_identifier(names, shape->columns[shape->key[i]].name);
        bytes_printf(values, i ? ", g.k%zu" : "g.k%zu", i);
    }
    for (size_t i = 0; i < w->t->data_count; i++) {
        if (seen(w, i)) {
            bytes_text(names, ", ");
            bytes_identifier(names, shape->columns[w->t->data_columns[i]].name);
            bytes_printf(values, ", g.c%zu", i);
        }
    }
}

static void update_clause(const swap *w, bytes *b) {
    const schema_table *shape = &w->t->shape;
    bytes where;
    bool any = false;
    bytes_init(&where, b->allocator, 0);
    bytes_text(b, " ON CONFLICT (");
    for (size_t i = 0; i < shape->key_count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_identifier(b, shape->columns[shape->key[i]].name);
    }
    bytes_text(b, ") DO ");
    for (size_t i = 0; i < w->t->data_count; i++) {
        if (seen(w, i)) {
            slice name = shape->columns[w->t->data_columns[i]].name;
            bytes_text(b, any ? ", " : "UPDATE SET ");
            bytes_identifier(b, name);
            bytes_text(b, " = excluded.");
            bytes_identifier(b, name);
            bytes_text(&where, any ? " OR t." : " WHERE t.");
            bytes_identifier(&where, name);
            bytes_text(&where, " IS NOT excluded.");
            bytes_identifier(&where, name);
            bytes_text(&where, " COLLATE BINARY");
            any = true;
        }
    }
    if (any) {
        bytes_slice(b, bytes_view(&where));
    } else {
        bytes_text(b, "NOTHING");
    }
    b->failed = b->failed || where.failed;
    bytes_deinit(&where);
}

static godwit_status insert_staged(swap *w, bool update) {
    settle *s = w->s;
    bytes names, values, b;
    bytes_init(&names, s->g->allocator, 0);
    bytes_init(&values, s->g->allocator, 0);
    bytes_init(&b, s->g->allocator, 0);
    column_lists(w, &names, &values);
    bytes_text(&b, "INSERT OR ABORT INTO main.");
    bytes_identifier(&b, w->t->shape.name);
    bytes_text(&b, " AS t (");
    bytes_slice(&b, bytes_view(&names));
    bytes_text(&b, ") SELECT ");
    bytes_slice(&b, bytes_view(&values));
    bytes_printf(&b, " FROM godwit_stage_%lld AS g WHERE true", (long long)w->t->tbl);
    if (update) {
        update_clause(w, &b);
    }
    bool failed = names.failed || values.failed || b.failed;
    godwit_status status = failed ? GODWIT_NOMEM : db_run(s->d, b.ptr, "");
    bytes_deinit(&names);
    bytes_deinit(&values);
    bytes_deinit(&b);
    return status;
}

/* UNIQUE values that change hands: everything out first, waiting rows too (they are written later).
 */
static godwit_status replace_staged(swap *w) {
    settle *s = w->s;
    sqlite3_stmt *stmt = NULL;
    bool found = true;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < s->row_count && status == GODWIT_OK; i++) {
        touched *row = s->rows[i];
        if (row->table == w->table && row->local.present) {
            status = apply_delete(s, w->table, row->key);
            row->local.present = false;
        }
    }
    char *sql = arena_printf(&s->a, "SELECT id FROM godwit_stage_%lld", (long long)w->t->tbl);
    arena a;
    arena_init(&a, s->g->allocator, 0);
    status = status == GODWIT_OK && !sql ? GODWIT_NOMEM : status;
    if (status == GODWIT_OK) {
        status = db_prepare(s->d, sql, &stmt);
    }
    while (status == GODWIT_OK && found) {
        value key[16];
        arena_reset(&a);
        status = db_step(s->d, stmt, &found);
        if (status == GODWIT_OK && found) {
            slice id = arena_copy(&a, db_column_slice(stmt, 0));
            status = id.ptr ? client_key_values(&a, w->t, id, key) : GODWIT_NOMEM;
            if (status == GODWIT_OK) {
                status = apply_delete(s, w->table, key);
            }
        }
    }
    db_done(s->d, stmt);
    arena_deinit(&a);
    if (status == GODWIT_OK) {
        status = insert_staged(w, false);
    }
    return status == GODWIT_CONSTRAINT
               ? client_fail(s->g, status, "table " SLICE_FMT " refuses a row of the server: %s",
                             SLICE_ARG(w->t->shape.name), s->d->message)
               : status;
}

static godwit_status put_staged(swap *w) {
    settle *s = w->s;
    int64_t any = 0;
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_text(&b, "SELECT EXISTS (SELECT 1 FROM main.");
    bytes_identifier(&b, w->t->shape.name);
    bytes_char(&b, ')');
    godwit_status status = b.failed ? GODWIT_NOMEM : db_int(s->d, &any, b.ptr, "");
    bytes_deinit(&b);
    if (status == GODWIT_OK) {
        status = db_begin(s->d);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    status = insert_staged(w, any != 0);
    if (status == GODWIT_OK) {
        return db_commit(s->d);
    }
    db_rollback(s->d);
    return status == GODWIT_CONSTRAINT ? replace_staged(w) : status;
}

/* What the application's triggers have made of the rows: as settle_set_right. */
static godwit_status set_right(swap *w) {
    sqlite3 *handle = w->s->d->handle;
    (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    godwit_status status = insert_staged(w, true);
    (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
    return status;
}

static godwit_status put_versions(swap *w) {
    settle *s = w->s;
    char *sql =
        arena_printf(&s->a,
                     "INSERT OR REPLACE INTO godwit_row (tbl, pk, ver, vclock, digest, synced_at)"
                     " SELECT %lld, g.id, g.ver, g.clock, g.digest, ?1 FROM godwit_stage_%lld AS g",
                     (long long)w->t->tbl, (long long)w->t->tbl);
    int64_t rows = 0;
    godwit_status status = sql ? db_run(s->d, sql, "i", s->now_ms) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = db_int(s->d, &rows, "SELECT changes()", "");
    }
    s->counts.received += rows;
    return status;
}

static godwit_status swap_table(settle *s, const client_table *t) {
    swap w = {.s = s, .t = t};
    godwit_status status = apply_open(s, t, &w.table);
    if (status != GODWIT_OK || w.table->missing) {
        return status;
    }
    status = stage_open(s, t, &w.st);
    if (status == GODWIT_OK && s->overlay) {
        status = waiting_rows(&w);
    }
    if (status == GODWIT_OK) {
        status = remove_gone(&w);
    }
    if (status == GODWIT_OK) {
        status = put_staged(&w);
    }
    if (status == GODWIT_OK && s->app_triggers) {
        status = set_right(&w);
    }
    if (status == GODWIT_OK) {
        status = put_versions(&w);
    }
    stage_close(s, &w.st);
    return status;
}

/* What was acknowledged is in the snapshot, and done, unless the server was restored from a backup
 * since: commits of the same numbers would then be others. Comparing the streams tells. */
static godwit_status retire_acknowledged(settle *s, int64_t seq) {
    int64_t count = 0;
    godwit_status status = db_int(s->d, &count,
                                  "SELECT count(*) FROM godwit_op WHERE scope = ?1 AND state ="
                                  " 'acked' AND state <> 'retired'",
                                  "s", s->scope);
    if (status == GODWIT_OK) {
        status = settle_retire_until(s, seq);
    }
    return status == GODWIT_OK && count
               ? identity_want_reconcile(s->g, s->scope, "a snapshot came instead of their commits")
               : status;
}

godwit_status bootstrap_swap(settle *s) {
    slice cursor = {0};
    int64_t seq = 0, salt = 0;
    godwit_status status = db_text(
        s->d, &s->a, &cursor, "SELECT cursor FROM godwit_cursor WHERE scope = ?1", "s", s->scope);
    if (status == GODWIT_OK) {
        status = db_int(s->d, &seq, "SELECT commit_seq FROM godwit_cursor WHERE scope = ?1", "s",
                        s->scope);
    }
    if (status == GODWIT_OK) {
        status =
            db_int(s->d, &salt, "SELECT salt FROM godwit_cursor WHERE scope = ?1", "s", s->scope);
    }
    if (status == GODWIT_OK) {
        status = retire_acknowledged(s, seq);
    }
    for (size_t i = 0; i < s->g->registry.count && status == GODWIT_OK; i++) {
        if (stage_wants(s, &s->g->registry.tables[i])) {
            status = swap_table(s, &s->g->registry.tables[i]);
        }
    }
    if (status == GODWIT_OK) {
        status = stage_forget_conflicts(s);
    }
    if (status == GODWIT_OK) {
        status = settle_cursor(s, cursor, seq, salt, "live");
    }
    s->staging = false;
    return status == GODWIT_OK ? stage_drop_all(s->g) : status;
}
