/* One operation's bytes and rows: payload and base as JSON, idempotency key, place in the stream,
 * and what is refused before it ever travels.
 *
 * A value that can't travel (a key that is NULL or of another class, text that is not UTF-8, a row
 * over 1 MiB) makes a rejected operation without a place in the stream; the local row stays as it
 * is. */
#include "client/seal.h"

#include "core/limits.h"

#define INSERT_OP                                                                                  \
    "INSERT INTO godwit_op (lsn, operation, tbl, entity_type, entity_id, idempotency_key,"         \
    " client_key, payload, base, state, last_error, last_error_code, sequence_number, "            \
    "group_first,"                                                                                 \
    " group_size, base_seq, base_salt, nonce, wall_ms, resolves, row_hash, scope, device_id, "     \
    "lineage,"                                                                                     \
    " schema_ver) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,"  \
    " ?17, ?18, ?19, ?20, ?21, ?22, ?23, nullif(?24, ?23), ?25)"
#define REFUSED_DETAIL "the captured values can't be sent"

/* ---- JSON ---- */

static godwit_status names_of(seal_run_state *s, const client_table *t, seal_table *table) {
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    table->names = ARENA_ARRAY(&s->run, slice, t->data_count + 1);
    table->key_names = ARENA_ARRAY(&s->run, slice, t->shape.key_count + 1);
    bool ok = table->names && table->key_names;
    for (size_t i = 0; ok && i < t->data_count + t->shape.key_count; i++) {
        bool data = i < t->data_count;
        int column = data ? t->data_columns[i] : t->shape.key[i - t->data_count];
        bytes_clear(&b);
        json_write_text(&b, t->shape.columns[column].name);
        bytes_char(&b, ':');
        slice name = b.failed ? (slice){0} : arena_copy(&s->run, bytes_view(&b));
        *(data ? &table->names[i] : &table->key_names[i - t->data_count]) = name;
        ok = name.ptr != NULL;
    }
    bytes_deinit(&b);
    return ok ? GODWIT_OK : GODWIT_NOMEM;
}

static void write_value(bytes *b, const value *v, bool refused) {
    if (refused && v->type == VALUE_TEXT && !json_utf8_valid(v->u.s)) {
        value blob = {.type = VALUE_BLOB, .u.s = v->u.s}; /* never sent; kept for a person */
        value_to_json(b, &blob);
    } else {
        value_to_json(b, v);
    }
}

static void write_columns(bytes *b, const seal_row *row, const seal_table *table,
                          const value *values, bool key) {
    bool first = true;
    bytes_char(b, '{');
    for (size_t i = 0; key && i < row->t->shape.key_count; i++) {
        json_comma(b, &first);
        bytes_slice(b, table->key_names[i]);
        write_value(b, &row->key[i], row->refused != NULL);
    }
    for (size_t i = 0; values && i < row->t->data_count; i++) {
        if (seal_bit(row->mask, i)) {
            json_comma(b, &first);
            bytes_slice(b, table->names[i]);
            write_value(b, &values[i], row->refused != NULL);
        }
    }
    bytes_char(b, '}');
}

static godwit_status write_json(seal_run_state *s, const seal_row *row) {
    bytes_clear(&s->payload);
    bytes_clear(&s->base);
    if (row->t->queue) {
        bytes_slice(&s->payload, row->payload);
        bytes_text(&s->base, "{}");
    } else {
        seal_table *table = seal_table_of(s, row->t);
        godwit_status status = table->names ? GODWIT_OK : names_of(s, row->t, table);
        if (status != GODWIT_OK) {
            return status;
        }
        write_columns(&s->payload, row, table, row->now, row->kind == OP_CREATE && !row->replaces);
        write_columns(&s->base, row, table, row->replaces || row->baseless ? NULL : row->old,
                      false);
    }
    return s->payload.failed || s->base.failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* ---- The row ---- */

typedef struct {
    sqlite3_stmt *stmt;
    int rc;
} binder;

static void bind_text(binder *b, int at, slice text) {
    if (b->rc == SQLITE_OK) {
        b->rc = text.ptr ? sqlite3_bind_text64(b->stmt, at, text.ptr, text.len, SQLITE_STATIC,
                                               SQLITE_UTF8)
                         : sqlite3_bind_null(b->stmt, at);
    }
}

static void bind_blob(binder *b, int at, const void *data, int len) {
    if (b->rc == SQLITE_OK) {
        b->rc = sqlite3_bind_blob(b->stmt, at, data, len, SQLITE_STATIC);
    }
}

static void bind_int(binder *b, int at, int64_t v) {
    if (b->rc == SQLITE_OK) {
        b->rc = sqlite3_bind_int64(b->stmt, at, v);
    }
}

static void u64be(int64_t v, uint8_t out[8]) {
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)((uint64_t)v >> (56 - 8 * i));
    }
}

static godwit_status insert_op(seal_run_state *s, const seal_scope *scope, const seal_row *row,
                               int64_t seq) {
    uint8_t key[SHA256_BYTES], nonce[8];
    op_kind kind = row->replaces ? OP_UPDATE : row->kind;
    u64be(row->nonce, nonce);
    id_key_parts parts = {.scope = scope->scope,
                          .lineage = s->lineage,
                          .lsn = row->lsn,
                          .nonce = row->nonce,
                          .kind = kind,
                          .entity_type = row->t->shape.entity,
                          .entity_id = row->id,
                          .base_seq = scope->base_seq,
                          .base_salt = scope->base_salt,
                          .wall_ms = row->wall_ms,
                          .payload = bytes_view(&s->payload),
                          .base = bytes_view(&s->base)};
    id_operation_key(&parts, key);
    binder b = {s->insert, SQLITE_OK};
    bind_int(&b, 1, row->lsn);
    bind_text(&b, 2, slice_of(op_kind_name(kind)));
    bind_int(&b, 3, row->t->tbl);
    bind_text(&b, 4, row->t->shape.entity);
    bind_text(&b, 5, row->id);
    bind_blob(&b, 6, key, sizeof key);
    bind_text(&b, 7, row->client_key);
    bind_text(&b, 8, parts.payload);
    bind_text(&b, 9, parts.base);
    bind_text(&b, 10, slice_of(op_state_name(row->refused ? OP_REJECTED : OP_PENDING)));
    bind_text(&b, 11, slice_of(row->refused ? REFUSED_DETAIL : NULL));
    bind_text(&b, 12, slice_of(row->refused));
    bind_int(&b, 13, seq);
    bind_int(&b, 14, seq ? scope->group_first : 0);
    bind_int(&b, 15, seq ? scope->group_size : 1);
    bind_int(&b, 16, scope->base_seq);
    bind_int(&b, 17, scope->base_salt);
    bind_blob(&b, 18, nonce, sizeof nonce);
    bind_int(&b, 19, row->wall_ms);
    bind_text(&b, 20, row->resolves);
    bind_int(&b, 21, (int64_t)row->hash);
    /* bindings outlive a step: these change with the scope only */
    if (s->bound != scope->scope.ptr) {
        bind_text(&b, 22, scope->scope);
        bind_text(&b, 23, scope->device_id);
        bind_text(&b, 24, s->lineage);
        bind_int(&b, 25, s->g->registry.app_schema);
        s->bound = scope->scope.ptr;
    }
    if (b.rc == SQLITE_OK) {
        b.rc = sqlite3_step(s->insert);
    }
    godwit_status status = db_status(&s->g->db, b.rc);
    sqlite3_reset(s->insert);
    if (status == GODWIT_OK && row->refused) {
        char at[32];
        wire_time_write(row->wall_ms, at);
        status =
            db_run(&s->g->db,
                   "INSERT INTO godwit_outcome (lsn, idempotency_key, at, outcome, code, detail,"
                   " payload, base) VALUES (?1, ?2, ?3, 'rejected', ?4, ?7, ?5, ?6)",
                   "ibsssss", row->lsn, (slice){(const char *)key, sizeof key}, slice_of(at),
                   slice_of(row->refused), parts.payload, parts.base, slice_of(REFUSED_DETAIL));
    }
    s->made[row->refused ? OP_REJECTED : OP_PENDING]++;
    return status;
}

static godwit_status insert_dependencies(seal_run_state *s, int64_t lsn, const int64_t *lsns,
                                         size_t count) {
    db *d = &s->g->db;
    godwit_status status = GODWIT_OK;
    if (count && !s->add_dep) {
        status =
            db_prepare(d, "INSERT INTO godwit_dep (lsn, depends_on) VALUES (?1, ?2)", &s->add_dep);
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        status = db_bind_int(d, s->add_dep, 1, lsn);
        if (status == GODWIT_OK) {
            status = db_bind_int(d, s->add_dep, 2, lsns[i]);
        }
        if (status == GODWIT_OK) {
            status = db_status(d, sqlite3_step(s->add_dep));
            sqlite3_reset(s->add_dep);
        }
    }
    return status;
}

/* ---- The group ---- */

/* Finds the scope of one operation; counts it in its scope's group when it can be sent. */
static godwit_status place(seal_run_state *s, seal_row *row, size_t *scope_index) {
    seal_scope *scope = NULL;
    godwit_status status = seal_scope_of(s, row, &scope);
    if (status != GODWIT_OK) {
        return status;
    }
    *scope_index = (size_t)(scope - s->scopes);
    /* every byte of a value takes at most six in JSON, every column its name */
    if (status == GODWIT_OK && !row->refused &&
        row->raw_bytes > (ROW_BYTES_MAX - COLUMNS_MAX * (NAME_BYTES_MAX * 6 + 32)) / 6) {
        status = write_json(s, row);
        if (s->payload.len > ROW_BYTES_MAX || s->base.len > ROW_BYTES_MAX) {
            row->refused = op_code_name(CODE_TOO_LARGE);
        }
    }
    if (status == GODWIT_OK && !row->refused) {
        scope->group_size++;
    }
    return status;
}

static godwit_status write_row(seal_run_state *s, seal_scope *scope, seal_row *row) {
    int64_t lsns[DEPENDS_MAX];
    size_t count = 0;
    int64_t seq = row->refused ? 0 : scope->next_seq;
    godwit_status status = seal_base(s, scope, row->lsn);
    if (status == GODWIT_OK && row->kind == OP_CREATE && !row->t->queue && !row->refused) {
        status = seal_is_live(s, scope, row, &row->replaces);
    }
    if (status == GODWIT_OK && !row->refused) {
        status = seal_dependencies(s, scope, row, lsns, &count);
    }
    if (status == GODWIT_OK) {
        status = write_json(s, row);
    }
    if (status == GODWIT_OK) {
        status = insert_op(s, scope, row, seq);
    }
    if (status == GODWIT_OK) {
        status = insert_dependencies(s, row->lsn, lsns, count);
    }
    if (status == GODWIT_OK && seq) {
        scope->next_seq++;
        seal_remember(s, row->hash, row->kind == OP_CREATE);
    }
    return status;
}

godwit_status seal_write_group(seal_run_state *s) {
    size_t *scope_of = ARENA_ARRAY(&s->group, size_t, s->row_count + 1);
    godwit_status status = scope_of ? GODWIT_OK : GODWIT_NOMEM;
    if (status == GODWIT_OK && !s->insert) {
        status = db_prepare(&s->g->db, INSERT_OP, &s->insert);
    }
    for (size_t i = 0; i < s->scope_count; i++) {
        s->scopes[i].group_size = 0;
    }
    for (size_t i = 0; status == GODWIT_OK && i < s->row_count; i++) {
        if (!s->rows[i].dropped) {
            status = place(s, &s->rows[i], &scope_of[i]);
        }
    }
    for (size_t i = 0; i < s->scope_count; i++) {
        s->scopes[i].group_first = s->scopes[i].next_seq;
    }
    for (size_t i = 0; status == GODWIT_OK && i < s->row_count; i++) {
        if (!s->rows[i].dropped) {
            status = write_row(s, &s->scopes[scope_of[i]], &s->rows[i]);
        }
    }
    return status;
}
