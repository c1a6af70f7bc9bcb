/* What sealing must know beyond the captured row: its scope, the base the user saw, whether the row
 * is live already, and which pending creates it depends on.
 *
 * Queries are the expensive part of sealing, so each is asked only when it can matter: two bloom
 * filters remember the rows of this run, flags say whether anything was there before it. */
#include "client/identity.h"
#include "client/seal.h"

#include "core/limits.h"

seal_table *seal_table_of(seal_run_state *s, const client_table *t) {
    return &s->tables[t - s->g->registry.tables];
}

/* ---- Bloom filters: two probes from one hash ---- */

static bool bloom_has(const seal_run_state *s, const uint8_t *bits, uint64_t hash) {
    uint64_t a = hash >> (64 - s->look_bits);
    uint64_t b = hash & ((UINT64_C(1) << s->look_bits) - 1);
    return (bits[a / 8] >> (a % 8) & 1) && (bits[b / 8] >> (b % 8) & 1);
}

static void bloom_add(const seal_run_state *s, uint8_t *bits, uint64_t hash) {
    uint64_t a = hash >> (64 - s->look_bits);
    uint64_t b = hash & ((UINT64_C(1) << s->look_bits) - 1);
    bits[a / 8] |= (uint8_t)(1u << (a % 8));
    bits[b / 8] |= (uint8_t)(1u << (b % 8));
}

void seal_remember(seal_run_state *s, uint64_t hash, bool create) {
    bloom_add(s, s->seen, hash);
    if (create) {
        bloom_add(s, s->created, hash);
    }
}

/* ---- Scope ---- */

static godwit_status load_scope(seal_run_state *s, seal_scope *scope) {
    db *d = &s->g->db;
    int64_t overlay = 0;
    godwit_status status = db_int(
        d, &overlay,
        "SELECT EXISTS (SELECT 1 FROM godwit_op WHERE scope = ?1 AND state"
        " = 'pending' AND state <> 'retired') OR EXISTS (SELECT 1 FROM godwit_op WHERE scope = ?1"
        " AND state = 'acked' AND state <> 'retired')",
        "s", scope->scope);
    scope->overlay = overlay != 0 && !s->queue_seen;
    if (status == GODWIT_OK) {
        status = identity_current(s->g, &s->run, scope->scope, &scope->device_id);
    }
    if (status == GODWIT_OK) {
        status = db_int(d, &scope->next_seq,
                        "SELECT next_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", scope->scope, scope->device_id);
    }
    return status;
}

static godwit_status scope_named(seal_run_state *s, slice name, seal_scope **out) {
    for (size_t i = 0; i < s->scope_count; i++) {
        if (slice_equal(s->scopes[i].scope, name)) {
            *out = &s->scopes[i];
            return GODWIT_OK;
        }
    }
    if (s->scope_count == s->scope_cap) {
        size_t cap = s->scope_cap ? s->scope_cap * 2 : 4;
        seal_scope *more = mem_resize(s->g->allocator, s->scopes, cap * sizeof *more);
        if (!more) {
            return GODWIT_NOMEM;
        }
        s->scopes = more;
        s->scope_cap = cap;
    }
    seal_scope *scope = &s->scopes[s->scope_count];
    memset(scope, 0, sizeof *scope);
    scope->scope = arena_copy(&s->run, name);
    godwit_status status = scope->scope.ptr ? load_scope(s, scope) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        s->scope_count++;
        *out = scope;
    }
    return status;
}

/* The scope column's value: captured with every create, delete and (see capture.c) update. */
static slice scope_value(const seal_row *row) {
    const schema_table *shape = &row->t->shape;
    for (size_t i = 0; i < shape->key_count; i++) {
        if (shape->key[i] == shape->scope_column && row->key[i].type == VALUE_TEXT) {
            return row->key[i].u.s;
        }
    }
    for (size_t i = 0; i < row->t->data_count; i++) {
        if (row->t->data_columns[i] == shape->scope_column) {
            const value *v = row->now ? &row->now[i] : &row->old[i];
            return v->type == VALUE_TEXT ? v->u.s : (slice){0};
        }
    }
    return (slice){0};
}

godwit_status seal_scope_of(seal_run_state *s, const seal_row *row, seal_scope **out) {
    slice name = row->t->shape.scope;
    if (row->t->shape.scope_column >= 0 && row->key) {
        name = scope_value(row);
    }
    if (!name.len || !id_name_valid(name)) {
        name = s->default_scope;
    }
    if (!name.len) {
        return client_fail(s->g, GODWIT_MISUSE,
                           "no scope is known yet: name one with godwit_init, or give a token");
    }
    return scope_named(s, name, out);
}

/* ---- Base: the last mark before the change ---- */

godwit_status seal_base(seal_run_state *s, seal_scope *scope, int64_t lsn) {
    if (scope->base_known && lsn <= scope->base_until) {
        return GODWIT_OK;
    }
    db *d = &s->g->db;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    scope->base_seq = 0;
    scope->base_salt = 0;
    godwit_status status = db_prepare(d,
                                      "SELECT commit_seq, salt FROM godwit_mark WHERE scope = ?1"
                                      " AND lsn < ?2 ORDER BY lsn DESC LIMIT 1",
                                      &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, scope->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 2, lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(d, stmt, &row);
    }
    if (row) {
        scope->base_seq = sqlite3_column_int64(stmt, 0);
        scope->base_salt = sqlite3_column_int64(stmt, 1);
    }
    db_done(d, stmt);
    if (status == GODWIT_OK) {
        status =
            db_int(d, &scope->base_until,
                   "SELECT coalesce(min(lsn), 9223372036854775807) FROM godwit_mark WHERE scope"
                   " = ?1 AND lsn >= ?2",
                   "si", scope->scope, lsn);
    }
    scope->base_known = status == GODWIT_OK;
    return status;
}

/* ---- Rows ---- */

static godwit_status look(seal_run_state *s, sqlite3_stmt **stmt, const char *sql, int64_t tbl,
                          slice id) {
    db *d = &s->g->db;
    godwit_status status = *stmt ? GODWIT_OK : db_prepare(d, sql, stmt);
    if (status == GODWIT_OK) {
        sqlite3_reset(*stmt);
        status = db_bind_int(d, *stmt, 1, tbl);
    }
    return status == GODWIT_OK ? db_bind_slice(d, *stmt, 2, id) : status;
}

static godwit_status look_at_ops(seal_run_state *s, int64_t tbl, slice id) {
    godwit_status status = look(
        s, &s->row_ops,
        "SELECT lsn, operation FROM godwit_op WHERE row_hash = ?3 AND tbl = ?1 AND entity_id = ?2"
        " AND state IN ('pending', 'acked', 'parked') AND state <> 'retired' ORDER BY lsn DESC",
        tbl, id);
    return status == GODWIT_OK
               ? db_bind_int(&s->g->db, s->row_ops, 3, (int64_t)client_row_hash(tbl, id))
               : status;
}

static godwit_status rows_of_table(seal_run_state *s, const client_table *t, bool *any) {
    seal_table *table = seal_table_of(s, t);
    if (!table->rows_known) {
        int64_t n = 0;
        godwit_status status = db_int(
            &s->g->db, &n, "SELECT EXISTS (SELECT 1 FROM godwit_row WHERE tbl = ?1)", "i", t->tbl);
        if (status != GODWIT_OK) {
            return status;
        }
        table->rows = n != 0;
        table->rows_known = true;
    }
    *any = table->rows;
    return GODWIT_OK;
}

static bool operation_is(sqlite3_stmt *row_ops, const char *name) {
    return strcmp((const char *)sqlite3_column_text(row_ops, 1), name) == 0;
}

godwit_status seal_is_live(seal_run_state *s, const seal_scope *scope, const seal_row *row,
                           bool *live) {
    godwit_status status = GODWIT_OK;
    bool found = false;
    *live = false;
    if (scope->overlay || bloom_has(s, s->seen, row->hash)) {
        status = look_at_ops(s, row->t->tbl, row->id);
        if (status == GODWIT_OK) {
            status = db_step(&s->g->db, s->row_ops, &found);
        }
        /* an update makes no row live: it may only close the conflict of a row that is gone */
        while (status == GODWIT_OK && found && operation_is(s->row_ops, "update")) {
            status = db_step(&s->g->db, s->row_ops, &found);
        }
        if (found) {
            *live = !operation_is(s->row_ops, "delete");
        }
        if (s->row_ops) {
            sqlite3_reset(s->row_ops);
        }
    }
    bool any = false;
    if (status == GODWIT_OK && !found) {
        status = rows_of_table(s, row->t, &any);
    }
    if (status == GODWIT_OK && any) {
        status = look(s, &s->row_known, "SELECT 1 FROM godwit_row WHERE tbl = ?1 AND pk = ?2",
                      row->t->tbl, row->id);
        if (status == GODWIT_OK) {
            status = db_step(&s->g->db, s->row_known, live);
            sqlite3_reset(s->row_known);
        }
    }
    return status;
}

godwit_status seal_pending_create(seal_run_state *s, const seal_scope *scope, int64_t tbl, slice id,
                                  int64_t *lsn) {
    *lsn = 0;
    if (!scope->overlay && !bloom_has(s, s->created, client_row_hash(tbl, id))) {
        return GODWIT_OK;
    }
    bool row = true;
    godwit_status status = look_at_ops(s, tbl, id);
    while (status == GODWIT_OK && row) {
        status = db_step(&s->g->db, s->row_ops, &row);
        if (status == GODWIT_OK && row &&
            strcmp((const char *)sqlite3_column_text(s->row_ops, 1), "create") == 0) {
            int64_t found = sqlite3_column_int64(s->row_ops, 0);
            *lsn = found < s->first_lsn ? found : 0; /* the own group stands or falls as one */
            break;
        }
    }
    if (s->row_ops) {
        sqlite3_reset(s->row_ops);
    }
    return status;
}

static void depend_on(int64_t lsn, int64_t *lsns, size_t *count) {
    for (size_t i = 0; i < *count; i++) {
        if (lsns[i] == lsn) {
            return;
        }
    }
    if (lsn && *count < DEPENDS_MAX) {
        lsns[(*count)++] = lsn;
    }
}

static const value *column_value(const seal_row *row, int column) {
    for (size_t i = 0; i < row->t->data_count; i++) {
        if (row->t->data_columns[i] == column) {
            return seal_bit(row->mask, i) ? &row->now[i] : NULL;
        }
    }
    for (size_t i = 0; i < row->t->shape.key_count; i++) {
        if (row->t->shape.key[i] == column) {
            return &row->key[i];
        }
    }
    return NULL;
}

/* The entity id a foreign key of the row points to; ptr NULL when it points nowhere we can tell. */
static godwit_status parent_id(seal_run_state *s, const seal_row *row, const schema_fk *fk,
                               const client_table *parent, slice *id) {
    value parts[KEY_COLUMNS_MAX];
    *id = (slice){0};
    if (fk->count != parent->shape.key_count) {
        return GODWIT_OK;
    }
    for (size_t k = 0; k < parent->shape.key_count; k++) {
        const value *v = NULL;
        slice name = parent->shape.columns[parent->shape.key[k]].name;
        for (size_t i = 0; i < fk->count; i++) {
            if (fk->ref_columns[i].len ? slice_equal(fk->ref_columns[i], name) : i == k) {
                v = column_value(row, fk->columns[i]);
            }
        }
        if (!v || v->type == VALUE_NULL) {
            return GODWIT_OK;
        }
        parts[k] = *v;
    }
    godwit_status status = client_key_text(&s->group, parent, parts, id);
    return status == GODWIT_INVALID ? GODWIT_OK : status;
}

static godwit_status explicit_dependencies(seal_run_state *s, const seal_row *row, int64_t *lsns,
                                           size_t *count) {
    const json *list = NULL;
    godwit_status status = json_parse(&s->group, row->depends_on, &list, NULL);
    if (status != GODWIT_OK || !json_is(list, JSON_ARRAY)) {
        return status == GODWIT_NOMEM ? status : GODWIT_OK; /* enqueue has checked it */
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count && status == GODWIT_OK; i++, item = json_after(item)) {
        int64_t lsn = 0;
        slice id = {0};
        if (json_text(item, &id)) {
            status = seal_find(s->g, id, &lsn);
            status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
        }
        if (lsn && lsn < s->first_lsn) {
            depend_on(lsn, lsns, count);
        }
    }
    return status;
}

godwit_status seal_dependencies(seal_run_state *s, const seal_scope *scope, const seal_row *row,
                                int64_t *lsns, size_t *count) {
    int64_t lsn = 0;
    godwit_status status = GODWIT_OK;
    *count = 0;
    if (row->kind != OP_CREATE || row->replaces) {
        status = seal_pending_create(s, scope, row->t->tbl, row->id, &lsn);
        depend_on(lsn, lsns, count);
    }
    for (size_t i = 0; status == GODWIT_OK && row->now && i < row->t->shape.fk_count; i++) {
        const schema_fk *fk = &row->t->shape.fks[i];
        const schema_table *shape = NULL;
        slice id = {0};
        for (size_t t = 0; t < s->g->registry.count && !shape; t++) {
            const client_table *parent = &s->g->registry.tables[t];
            if (!parent->queue && slice_equal(parent->shape.name, fk->table)) {
                shape = &parent->shape;
                status = parent_id(s, row, fk, parent, &id);
                if (status == GODWIT_OK && id.ptr) {
                    status = seal_pending_create(s, scope, parent->tbl, id, &lsn);
                    depend_on(status == GODWIT_OK ? lsn : 0, lsns, count);
                }
            }
        }
    }
    if (status == GODWIT_OK && row->depends_on.ptr) {
        status = explicit_dependencies(s, row, lsns, count);
    }
    return status;
}

/* ---- Columns whose changes must keep their order ---- */

static void mark_column(seal_table *table, const client_table *t, slice name) {
    for (size_t i = 0; i < t->data_count; i++) {
        /* an index over an expression has no column name: then every column counts */
        if (!name.ptr || slice_equal(t->shape.columns[t->data_columns[i]].name, name)) {
            table->order[i] = true;
        }
    }
}

godwit_status seal_order_columns(seal_run_state *s, const client_table *t) {
    seal_table *table = seal_table_of(s, t);
    if (table->order_known) {
        return GODWIT_OK;
    }
    for (size_t f = 0; f < t->shape.fk_count; f++) {
        for (size_t c = 0; c < t->shape.fks[f].count; c++) {
            mark_column(table, t, t->shape.columns[t->shape.fks[f].columns[c]].name);
        }
    }
    db *d = &s->g->db;
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status =
        db_prepare(d,
                   "SELECT x.name FROM pragma_index_list(?1) AS l, pragma_index_info(l.name) AS x"
                   " WHERE l.\"unique\" AND l.origin <> 'pk'",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(d, stmt, 1, t->shape.name);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(d, stmt, &row);
        if (status == GODWIT_OK && row) {
            mark_column(table, t, db_column_slice(stmt, 0));
        }
    }
    db_done(d, stmt);
    table->order_known = status == GODWIT_OK;
    return status;
}
