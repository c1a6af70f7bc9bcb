/* What Godwit itself keeps of decided groups: rows, feed, ledger and commits, one statement per
 * table over all pending groups. Nobody waits for the results.
 *
 * A statement takes a column as an array with an item per row; a column that is the same in all
 * rows (the device, the outcome, what is not there) goes as one value: it is neither sent nor taken
 * apart again for every row. */
#include "server/store_postgres.h"

/* ---- statements over many rows ---- */

/* A column of Godwit's own tables, and what stands around its parameter. */
typedef struct {
    const char *name, *before, *after;
} bulk_column;

static void bulk_value(bytes *sql, const bulk_column *column, size_t parameter, bool folded) {
    bytes_text(sql, ", ");
    bytes_text(sql, column->before ? column->before : "");
    if (folded) {
        bytes_printf(sql, "$%zu", parameter);
    } else {
        bytes_printf(sql, "v.%s", column->name);
    }
    bytes_text(sql, column->after ? column->after : "");
}

/* INSERT of `rows` rows: parameters are the scope and an array per column. */
static godwit_status bulk_insert(store *st, const char *table, const bulk_column *columns,
                                 size_t count, size_t rows, const char *rest) {
    bytes *sql = &st->sql;
    bool folded[PG_PARAMS_MAX];
    size_t arrays = 0;
    ASSERT(st->link.param_count == count + 1);
    bytes_clear(sql);
    bytes_printf(sql, "INSERT INTO godwit.%s(scope", table);
    for (size_t i = 0; i < count; i++) {
        folded[i] = pg_fold(&st->link, i + 1);
        arrays += !folded[i];
        bytes_printf(sql, ", %s", columns[i].name);
    }
    ASSERT(arrays > 0 || rows == 1); /* a key tells rows apart */
    bytes_text(sql, ") SELECT $1");
    for (size_t i = 0; i < count; i++) {
        bulk_value(sql, &columns[i], i + 2, folded[i]);
    }
    const char *separator = " FROM unnest(";
    for (size_t i = 0; i < count; i++) {
        if (!folded[i]) {
            bytes_printf(sql, "%s$%zu", separator, i + 2);
            separator = ", ";
        }
    }
    separator = ") v(";
    for (size_t i = 0; i < count; i++) {
        if (!folded[i]) {
            bytes_printf(sql, "%s%s", separator, columns[i].name);
            separator = ", ";
        }
    }
    bytes_text(sql, arrays ? ")" : "");
    bytes_text(sql, rest);
    return sql->failed ? GODWIT_NOMEM : pg_send(&st->link, sql->ptr);
}

/* ---- rows and feed ---- */

static slice or_null(slice s) {
    return s.len ? s : (slice){0};
}
static slice or_empty(slice s) {
    return s.ptr ? s : SLICE("");
}

/* Columns whose meta is not that of the row's creation; no ptr when there are none. */
static slice meta_json(store *st, arena *a, const decide_row *row) {
    const schema_table *t = row->table;
    const pg_table *info = pg_table_of(st->tables, t);
    bytes *b = &st->json;
    bytes_clear(b);
    for (size_t i = 0; i < t->column_count; i++) {
        const merge_meta *m = &row->row.meta[i];
        if (m->ver == 0) {
            continue;
        }
        bytes_char(b, b->len ? ',' : '{');
        stored_meta_write(b, info->columns[i].json_key, m);
    }
    if (b->len == 0 && !b->failed) {
        return (slice){0};
    }
    bytes_char(b, '}');
    if (b->failed) {
        a->failed = true;
        return (slice){0};
    }
    return arena_copy(a, bytes_view(b));
}

/* Rows that have the state their last change left them in. */
typedef struct {
    const pg_change *p;
    slice meta, image;
} row_state;

static godwit_status send_rows(store *st, const row_state *rows, size_t count, bool known) {
    static const bulk_column columns[] = {
        {"tbl", NULL, NULL},         {"pk", NULL, NULL},           {"ver", NULL, NULL},
        {"gen", NULL, NULL},         {"created_ver", NULL, NULL},  {"created_at", NULL, NULL},
        {"created_seq", NULL, NULL}, {"del_ver", NULL, NULL},      {"del_device", NULL, NULL},
        {"vclock", NULL, "::json"},  {"col_meta", NULL, "::json"}, {"last_image", NULL, "::json"}};
    pg_link *l = &st->link;
    if (count == 0) {
        return GODWIT_OK;
    }
#define ROWS(type, item)                                                                           \
    do {                                                                                           \
        pg_array(l, type, count);                                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            const row_state *r = &rows[i];                                                         \
            const decide_row *row = r->p->change->row;                                             \
            const merge_row *m = &row->row;                                                        \
            (void)m;                                                                               \
            item;                                                                                  \
        }                                                                                          \
    } while (0)
    pg_text(l, st->context->scope);
    ROWS(PG_OID_TEXT, pg_item(l, row->table->name));
    ROWS(PG_OID_TEXT, pg_item(l, or_empty(row->id)));
    ROWS(PG_OID_INT8, pg_item_int(l, m->ver));
    ROWS(PG_OID_INT8, pg_item_int(l, m->gen));
    ROWS(PG_OID_INT8, pg_item_int(l, m->created_ver));
    ROWS(PG_OID_INT8, pg_item_int(l, m->created.at_ms));
    ROWS(PG_OID_INT8, pg_item_int(l, m->created.seq));
    ROWS(PG_OID_INT8, pg_item_int_if(l, m->deleted, m->del_ver));
    ROWS(PG_OID_TEXT, pg_item(l, m->deleted ? or_null(m->del_device) : (slice){0}));
    ROWS(PG_OID_TEXT, pg_item(l, r->p->clock));
    ROWS(PG_OID_TEXT, pg_item(l, r->meta));
    ROWS(PG_OID_TEXT, pg_item(l, r->image));
#undef ROWS
    return bulk_insert(
        st, "row", columns, COUNT_OF(columns), count,
        known
            ? " ON CONFLICT (scope, tbl, pk) DO UPDATE SET ver = excluded.ver, gen = excluded.gen,"
              " created_ver = excluded.created_ver, created_at = excluded.created_at,"
              " created_seq = excluded.created_seq, del_ver = excluded.del_ver,"
              " del_device = excluded.del_device, vclock = excluded.vclock,"
              " col_meta = excluded.col_meta, last_image = excluded.last_image"
            : "");
}

/* Each row once, as its last change left it. The scope is locked: a row that was not there when it
 * was loaded is not there now, and is not looked for again. */
static godwit_status send_states(store *st) {
    arena *a = st->context->a;
    size_t fresh = 0, known = st->change_count;
    row_state *rows = ARENA_ARRAY(a, row_state, st->change_count);
    if (!rows) {
        return GODWIT_NOMEM;
    }
    for (size_t i = st->change_count; i-- > 0;) {
        decide_row *row = st->changes[i].change->row;
        if (row->unwritten == 0) {
            continue;
        }
        bool deleted = row->row.deleted;
        rows[row->recorded ? --known : fresh++] = (row_state){
            &st->changes[i], meta_json(st, a, row),
            deleted ? pg_columns_json(st, a, row->table, row->row.values, NULL) : (slice){0}};
        row->unwritten = 0;
        row->unsettled = false;
        row->recorded = true;
    }
    godwit_status status = a->failed ? GODWIT_NOMEM : send_rows(st, rows, fresh, false);
    return status == GODWIT_OK ? send_rows(st, rows + known, st->change_count - known, true)
                               : status;
}

static godwit_status send_changes(store *st) {
    static const bulk_column columns[] = {{"commit_seq", NULL, NULL},   {"idx", NULL, NULL},
                                          {"tbl", NULL, NULL},          {"pk", NULL, NULL},
                                          {"kind", NULL, "::\"char\""}, {"full_row", NULL, " = 1"},
                                          {"prev_seq", NULL, NULL},     {"clock_seq", NULL, NULL},
                                          {"vclock", NULL, "::json"},   {"cols", NULL, "::json"}};
    pg_link *l = &st->link;
    size_t count = st->change_count;
    if (count == 0) {
        return GODWIT_OK;
    }
#define CHANGES(type, item)                                                                        \
    do {                                                                                           \
        pg_array(l, type, count);                                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            const pg_change *p = &st->changes[i];                                                  \
            const decide_change *change = p->change;                                               \
            const decide_commit *commit = st->groups[p->group].commit;                             \
            (void)change;                                                                          \
            (void)commit;                                                                          \
            item;                                                                                  \
        }                                                                                          \
    } while (0)
    pg_text(l, st->context->scope);
    CHANGES(PG_OID_INT8, pg_item_int(l, commit->commit_seq));
    CHANGES(PG_OID_INT8, pg_item_int(l, change - commit->changes));
    CHANGES(PG_OID_TEXT, pg_item(l, change->row->table->name));
    CHANGES(PG_OID_TEXT, pg_item(l, or_empty(change->row->id)));
    CHANGES(PG_OID_TEXT, pg_item(l, change->is_delete ? SLICE("D") : SLICE("U")));
    CHANGES(PG_OID_INT8, pg_item_int(l, change->full));
    CHANGES(PG_OID_INT8, pg_item_int(l, change->prev_seq));
    CHANGES(PG_OID_INT8, pg_item_int(l, p->clock_seq));
    CHANGES(PG_OID_TEXT, pg_item(l, p->clock));
    CHANGES(PG_OID_TEXT, pg_item(l, or_null(change->columns_json)));
#undef CHANGES
    return bulk_insert(st, "change", columns, COUNT_OF(columns), count, "");
}

/* ---- ledger and commits ---- */

typedef struct {
    const pg_group *group;
    const decide_result *result;
    const wire_op *op;
    int64_t shared; /* the change of the commit that shows the whole row, -1 = none does */
} ledger_row;

/* Index of the change that shows the whole row of this result, -1 when none does. */
static int64_t whole_change(const pg_group *group, size_t result) {
    size_t i = group->changes[result];
    return i != SIZE_MAX && group->commit->changes[i].full ? (int64_t)i : -1;
}

/* How far each device's own lineage is decided: its operations are found by that, not by an index.
 */
static godwit_status send_tops(store *st, const ledger_row *rows, size_t count) {
    pg_link *l = &st->link;
    const ledger_row **tops = ARENA_ARRAY(st->context->a, const ledger_row *, count);
    size_t used = 0;
    if (!tops) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        slice device = rows[i].group->author.device_id;
        if (!slice_equal(rows[i].op->lineage, device)) {
            continue;
        }
        bool next = used == 0 || !slice_equal(tops[used - 1]->group->author.device_id, device);
        used += next;
        if (next || rows[i].op->lsn > tops[used - 1]->op->lsn) {
            tops[used - 1] = &rows[i];
        }
    }
    if (used == 0) {
        return GODWIT_OK;
    }
    pg_text(l, st->context->scope);
    pg_array(l, PG_OID_TEXT, used);
    for (size_t i = 0; i < used; i++) {
        pg_item(l, tops[i]->group->author.device_id);
    }
    pg_array(l, PG_OID_INT8, used);
    for (size_t i = 0; i < used; i++) {
        pg_item_int(l, tops[i]->op->lsn);
    }
    return pg_send(l, "UPDATE godwit.device d SET own_lsn = v.lsn FROM (SELECT id, max(lsn) AS lsn"
                      " FROM unnest($2, $3) u(id, lsn) GROUP BY id) v WHERE d.scope = $1"
                      " AND d.device_id = v.id AND d.own_lsn < v.lsn");
}

static godwit_status send_ops(store *st) {
    static const bulk_column columns[] = {
        {"device_id", NULL, NULL},     {"seq", NULL, NULL},           {"lineage", NULL, NULL},
        {"lsn", NULL, NULL},           {"op_key", NULL, NULL},        {"commit_seq", NULL, NULL},
        {"outcome", NULL, NULL},       {"code", NULL, NULL},          {"detail", NULL, NULL},
        {"conflicts", NULL, "::json"}, {"result_change", NULL, NULL}, {"result", NULL, "::json"}};
    arena *a = st->context->a;
    pg_link *l = &st->link;
    size_t count = 0;
    for (size_t g = 0; g < st->group_count; g++) {
        count += st->groups[g].author.stream ? st->groups[g].commit->result_count : 0;
    }
    ledger_row *rows = ARENA_ARRAY(a, ledger_row, count);
    if (!rows || count == 0) {
        return rows ? GODWIT_OK : GODWIT_NOMEM;
    }
    count = 0;
    for (size_t g = 0; g < st->group_count; g++) {
        const pg_group *group = &st->groups[g];
        for (size_t i = 0; group->author.stream && i < group->commit->result_count; i++) {
            const decide_result *result = &group->commit->results[i];
            int64_t shared = whole_change(group, i);
            rows[count++] = (ledger_row){group, result, &group->ops[i], shared};
        }
    }
#define OPS(type, item)                                                                            \
    do {                                                                                           \
        pg_array(l, type, count);                                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            const ledger_row *r = &rows[i];                                                        \
            item;                                                                                  \
        }                                                                                          \
    } while (0)
    pg_text(l, st->context->scope);
    OPS(PG_OID_TEXT, pg_item(l, r->group->author.device_id));
    OPS(PG_OID_INT8, pg_item_int(l, r->op->seq));
    OPS(PG_OID_TEXT, pg_item(l, or_empty(r->op->lineage)));
    OPS(PG_OID_INT8, pg_item_int(l, r->op->lsn));
    OPS(PG_OID_BYTEA, pg_item(l, (slice){(const char *)r->op->key, SHA256_BYTES}));
    OPS(PG_OID_INT8, pg_item_int(l, r->group->commit->commit_seq));
    OPS(PG_OID_TEXT, pg_item(l, slice_of(op_outcome_name(r->result->outcome))));
    OPS(PG_OID_TEXT, pg_item(l, or_null(slice_of(op_code_name(r->result->code)))));
    OPS(PG_OID_TEXT, pg_item(l, or_null(r->result->detail)));
    OPS(PG_OID_TEXT, pg_item(l, or_null(r->result->conflicts_json)));
    OPS(PG_OID_INT8, pg_item_int_if(l, r->shared >= 0, r->shared));
    OPS(PG_OID_TEXT, pg_item(l, r->shared >= 0 ? (slice){0} : or_null(r->result->result)));
#undef OPS
    godwit_status status = bulk_insert(st, "op", columns, COUNT_OF(columns), count, "");
    return status == GODWIT_OK ? send_tops(st, rows, count) : status;
}

static godwit_status send_commits(store *st) {
    static const bulk_column columns[] = {
        {"commit_seq", NULL, NULL},
        {"salt", NULL, NULL},
        {"origin", NULL, NULL},
        {"device_id", NULL, NULL},
        {"first_seq", NULL, NULL},
        {"last_seq", NULL, NULL},
        {"outcome", NULL, NULL},
        {"user_id", NULL, NULL},
        {"committed_at", "to_timestamp(", "::double precision / 1000)"}};
    pg_link *l = &st->link;
    size_t count = st->group_count;
#define COMMITS(type, item)                                                                        \
    do {                                                                                           \
        pg_array(l, type, count);                                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            const pg_group *g = &st->groups[i];                                                    \
            item;                                                                                  \
        }                                                                                          \
    } while (0)
    pg_text(l, st->context->scope);
    COMMITS(PG_OID_INT8, pg_item_int(l, g->commit->commit_seq));
    COMMITS(PG_OID_INT8, pg_item_int(l, g->salt));
    COMMITS(PG_OID_TEXT, pg_item(l, g->author.elsewhere ? SLICE("external") : SLICE("device")));
    COMMITS(PG_OID_TEXT, pg_item(l, or_null(g->author.device_id)));
    COMMITS(PG_OID_INT8, pg_item_int(l, g->commit->first_seq));
    COMMITS(PG_OID_INT8, pg_item_int(l, g->commit->last_seq));
    COMMITS(PG_OID_TEXT, pg_item(l, slice_of(op_outcome_name(g->commit->outcome))));
    COMMITS(PG_OID_TEXT, pg_item(l, or_null(g->author.user_id)));
    COMMITS(PG_OID_INT8, pg_item_int(l, g->commit->at_ms));
#undef COMMITS
    return bulk_insert(st, "commit", columns, COUNT_OF(columns), count, "");
}

godwit_status pg_metadata_send(store *st) {
    godwit_status status = send_states(st);
    if (status == GODWIT_OK) {
        status = send_changes(st);
    }
    if (status == GODWIT_OK) {
        status = send_ops(st);
    }
    return status == GODWIT_OK ? send_commits(st) : status;
}
