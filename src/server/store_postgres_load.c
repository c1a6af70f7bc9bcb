/* What decide needs to know, out of PostgreSQL: ledger rows, salts, working rows. Each is one
 * statement for all that is asked about, and rows of all tables are waited for together.
 *
 * Where keys meet a large table the subquery has a LIMIT: it is then looked up key by key. Left to
 * itself the planner reads a whole scope for some hundred keys while it knows little of a table. */
#include "server/store_postgres.h"

#include <stdlib.h>

/* ---- ledger ---- */

#define LEDGER_COLUMNS                                                                             \
    "o.op_key, o.commit_seq, o.outcome, o.code, o.detail, o.conflicts,"                            \
    " CASE WHEN o.result_change IS NULL THEN o.result ELSE h.cols END"
#define LEDGER_IMAGE                                                                               \
    " LEFT JOIN godwit.change h ON h.scope = o.scope AND h.commit_seq = o.commit_seq"              \
    " AND h.idx = o.result_change"

static godwit_status read_ledger(arena *a, const PGresult *r, int row, int from,
                                 decide_ledger *out) {
    *out = (decide_ledger){.found = true, .commit_seq = pg_field_int(r, row, from + 1)};
    if (!pg_field_key(r, row, from, out->key) ||
        !op_outcome_parse(pg_field(r, row, from + 2), &out->outcome)) {
        return GODWIT_CORRUPT;
    }
    (void)op_code_parse(pg_field(r, row, from + 3), &out->code);
    out->detail = pg_field_copy(a, r, row, from + 4);
    out->conflicts = pg_field_copy(a, r, row, from + 5);
    out->result = pg_field_copy(a, r, row, from + 6);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status pg_ledger_by_seq(store *st, arena *a, slice scope, slice device_id,
                               const wire_op *ops, size_t count, decide_ledger *out) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    for (size_t i = 0; i < count; i++) {
        out[i] = (decide_ledger){0};
    }
    if (count == 0) {
        return GODWIT_OK;
    }
    pg_text(l, scope);
    pg_text(l, device_id);
    pg_int(l, ops[0].seq);
    pg_int(l, ops[count - 1].seq);
    godwit_status status = pg_query(l,
                                    "SELECT o.seq, " LEDGER_COLUMNS " FROM godwit.op o" LEDGER_IMAGE
                                    " WHERE o.scope = $1 AND o.device_id = $2"
                                    " AND o.seq BETWEEN $3 AND $4",
                                    &r);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        int64_t at = pg_field_int(r, i, 0) - ops[0].seq; /* a push has no gaps */
        ASSERT(at >= 0 && (size_t)at < count && ops[at].seq == pg_field_int(r, i, 0));
        status = read_ledger(a, r, i, 1, &out[at]);
    }
    return status;
}

/* lsn only grows: above the lineage's highest one nothing has to be looked up. Operations of a
 * device's own lineage are not in the index by lineage; the device's row tells their highest. */
static godwit_status any_decided(store *st, slice scope, const wire_op *ops, size_t count,
                                 bool *any) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    size_t runs = 0;
    for (size_t i = 0; i < count; i++) {
        runs += i == 0 || !slice_equal(ops[i].lineage, ops[i - 1].lineage);
    }
    pg_text(l, scope);
    pg_array(l, PG_OID_TEXT, runs);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !slice_equal(ops[i].lineage, ops[i - 1].lineage)) {
            pg_item(l, ops[i].lineage);
        }
    }
    pg_array(l, PG_OID_INT8, runs);
    for (size_t i = 0; i < count;) {
        slice lineage = ops[i].lineage;
        int64_t low = ops[i].lsn;
        for (; i < count && slice_equal(ops[i].lineage, lineage); i++) {
            low = ops[i].lsn < low ? ops[i].lsn : low;
        }
        pg_item_int(l, low);
    }
    godwit_status status =
        pg_query(l,
                 "SELECT 1 FROM unnest($2::text[], $3::bigint[]) u(lineage, low) WHERE u.low <="
                 " greatest((SELECT max(o.lsn) FROM godwit.op o WHERE o.scope = $1"
                 "  AND o.lineage = u.lineage AND o.lineage <> o.device_id),"
                 " (SELECT d.own_lsn FROM godwit.device d WHERE d.scope = $1"
                 "  AND d.device_id = u.lineage)) LIMIT 1",
                 &r);
    *any = status == GODWIT_OK && PQntuples(r) > 0;
    return status;
}

/* Of several with one origin the first. A device's own operations are read in one pass. */
#define ORIGIN_SQL                                                                                 \
    "WITH k AS MATERIALIZED (SELECT * FROM unnest($2::text[], $3::bigint[], $4::bytea[])"          \
    "  WITH ORDINALITY k(lineage, lsn, op_key, n)),"                                               \
    " own AS MATERIALIZED (SELECT o.* FROM (SELECT lineage, min(lsn) AS low, max(lsn) AS high"     \
    "  FROM k GROUP BY lineage) m CROSS JOIN LATERAL (SELECT * FROM godwit.op WHERE scope = $1"    \
    "  AND device_id = m.lineage AND lineage = m.lineage AND lsn BETWEEN m.low AND m.high"         \
    "  OFFSET 0) o),"                                                                              \
    " hit AS (SELECT k.n, o.* FROM k CROSS JOIN LATERAL (SELECT * FROM godwit.op WHERE scope = $1" \
    "  AND lineage = k.lineage AND lineage <> device_id AND lsn = k.lsn AND op_key = k.op_key"     \
    "  ORDER BY commit_seq LIMIT 1) o"                                                             \
    "  UNION ALL SELECT k.n, o.* FROM k JOIN own o USING (lineage, lsn, op_key))"                  \
    " SELECT DISTINCT ON (o.n) o.n, " LEDGER_COLUMNS " FROM hit o" LEDGER_IMAGE                    \
    " ORDER BY o.n, o.commit_seq"

godwit_status pg_ledger_by_origin(store *st, arena *a, slice scope, const wire_op *ops,
                                  size_t count, decide_ledger *out, bool *any) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    godwit_status status = any_decided(st, scope, ops, count, any);
    bool look = *any;
    *any = false;
    for (size_t i = 0; i < count; i++) {
        out[i] = (decide_ledger){0};
    }
    if (status != GODWIT_OK || !look) {
        return status;
    }
    pg_text(l, scope);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, ops[i].lineage);
    }
    pg_array(l, PG_OID_INT8, count);
    for (size_t i = 0; i < count; i++) {
        pg_item_int(l, ops[i].lsn);
    }
    pg_array(l, PG_OID_BYTEA, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, (slice){(const char *)ops[i].key, SHA256_BYTES});
    }
    status = pg_query(l, ORIGIN_SQL, &r);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        size_t at = (size_t)pg_field_int(r, i, 0) - 1;
        ASSERT(at < count);
        status = read_ledger(a, r, i, 1, &out[at]);
        *any = true;
    }
    return status;
}

godwit_status pg_outcome(store *st, slice scope, slice device_id, int64_t seq, op_outcome *outcome,
                         op_code *code) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *outcome = OUTCOME_NONE;
    *code = CODE_NONE;
    for (size_t g = 0; g < st->group_count; g++) { /* decided and not written yet */
        const pg_group *group = &st->groups[g];
        const decide_commit *commit = group->commit;
        if (group->author.stream && slice_equal(group->author.device_id, device_id) &&
            seq >= commit->first_seq && seq <= commit->last_seq) {
            *outcome = commit->results[seq - commit->first_seq].outcome;
            *code = commit->results[seq - commit->first_seq].code;
            return GODWIT_OK;
        }
    }
    pg_text(l, scope);
    pg_text(l, device_id);
    pg_int(l, seq);
    godwit_status status = pg_query(l,
                                    "SELECT outcome, code FROM godwit.op WHERE scope = $1"
                                    " AND device_id = $2 AND seq = $3",
                                    &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    (void)op_code_parse(pg_field(r, 0, 1), code);
    return op_outcome_parse(pg_field(r, 0, 0), outcome) ? GODWIT_OK : GODWIT_CORRUPT;
}

godwit_status pg_salts_load(store *st, slice scope, const int64_t *seqs, size_t count,
                            decide_salt *out, size_t *found) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *found = 0;
    if (count == 0) {
        return GODWIT_OK;
    }
    pg_text(l, scope);
    pg_array(l, PG_OID_INT8, count);
    for (size_t i = 0; i < count; i++) {
        pg_item_int(l, seqs[i]);
    }
    godwit_status status = pg_query(l,
                                    "SELECT commit_seq, salt FROM godwit.commit WHERE scope = $1"
                                    " AND commit_seq = ANY ($2) ORDER BY commit_seq",
                                    &r);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        out[(*found)++] = (decide_salt){pg_field_int(r, i, 0), pg_field_int(r, i, 1)};
    }
    return status;
}

/* ---- working rows ---- */

#define ROWS_SQL                                                                                   \
    "SELECT k.n, r.ver, r.gen, r.created_ver, r.created_at, r.created_seq, r.del_ver,"             \
    " r.del_device, r.vclock, r.col_meta, r.last_image, c.device_id"                               \
    " FROM unnest($3::text[]) WITH ORDINALITY k(pk, n)"                                            \
    " CROSS JOIN LATERAL (SELECT * FROM godwit.row WHERE scope = $1 AND tbl = $2 AND pk = k.pk"    \
    "  LIMIT 1) r"                                                                                 \
    " LEFT JOIN LATERAL (SELECT device_id FROM godwit.commit WHERE r.created_seq > 0"              \
    "  AND scope = $1 AND commit_seq = r.created_ver LIMIT 1) c ON true"

/* A row that the scope knows. */
static godwit_status read_row(decide_context *c, const PGresult *r, int i, decide_row *row) {
    merge_row *m = &row->row;
    arena *a = c->a;
    m->exists = true;
    row->recorded = true;
    m->ver = pg_field_int(r, i, 1);
    m->gen = (int)pg_field_int(r, i, 2);
    m->created_ver = pg_field_int(r, i, 3);
    m->created = (merge_meta){.ver = m->created_ver,
                              .at_ms = pg_field_int(r, i, 4),
                              .seq = pg_field_int(r, i, 5),
                              .device = pg_field_copy(a, r, i, 11)};
    m->deleted = !pg_is_null(r, i, 6);
    m->del_ver = pg_field_int(r, i, 6);
    m->del_device = pg_field_copy(a, r, i, 7);
    slice clock = pg_field_copy(a, r, i, 8);
    slice meta = pg_field_copy(a, r, i, 9);
    slice image = pg_field_copy(a, r, i, 10);
    row->row_scope = c->scope;
    godwit_status status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    if (status == GODWIT_OK && clock.ptr) {
        status = clock_parse(a, clock, &row->clock);
    } else if (status == GODWIT_OK && m->created.seq > 0 && m->created.device.len > 0) {
        status = clock_set(a, &row->clock, m->created.device, m->created.seq);
    } else {
        row->clock.floor = m->created_ver;
    }
    if (status == GODWIT_OK) {
        status = stored_meta_read(a, meta, row->table, m->meta);
    }
    if (status == GODWIT_OK && m->deleted) {
        row->typed = row->table->deleted_column >= 0;
        return stored_image_read(a, image, row->table, m->values);
    }
    return status;
}

static godwit_status read_values(decide_context *c, const pg_table *info, const PGresult *r, int i,
                                 decide_row *row) {
    for (size_t k = 0; k < info->table->column_count; k++) {
        godwit_status status =
            pg_value_read(&info->columns[k], r, i, (int)k + 1, c->a, &row->row.values[k]);
        if (status != GODWIT_OK) {
            return status;
        }
    }
    return GODWIT_OK;
}

void pg_row_clear(decide_row *row) {
    size_t columns = row->table->column_count;
    row->row = (merge_row){.values = row->row.values, .meta = row->row.meta};
    memset(row->row.values, 0, columns * sizeof *row->row.values);
    memset(row->row.meta, 0, columns * sizeof *row->row.meta);
    row->clock = (vclock){0};
    row->typed = false;
    row->unwritten = 0;
    row->recorded = false;
    row->unsettled = false;
}

/* The rows of one table among those asked for: up to three statements, beginning with this one. */
typedef struct {
    const pg_table *info;
    decide_row **rows;
    size_t count;
    size_t statement;
} table_rows;

static void send_ids(store *st, decide_context *c, const table_rows *part, slice *ids) {
    pg_link *l = &st->link;
    pg_array(l, PG_OID_TEXT, part->count);
    for (size_t i = 0; i < part->count; i++) {
        ids[i] = part->rows[i]->id;
        pg_item(l, pg_key_fits(c->a, part->info, ids[i]) ? (ids[i].ptr ? ids[i] : SLICE(""))
                                                         : (slice){0});
    }
}

static godwit_status ask_known(store *st, decide_context *c, table_rows *part, slice *ids) {
    part->statement = st->link.sent;
    pg_text(&st->link, c->scope);
    pg_text(&st->link, part->info->table->name);
    send_ids(st, c, part, ids);
    return pg_send(&st->link, ROWS_SQL);
}

/* The rows are locked before it is asked whether something was noted about them: what comes later
 * waits for the end of this transaction. */
static godwit_status ask(store *st, decide_context *c, table_rows *part) {
    pg_link *l = &st->link;
    slice *ids = ARENA_ARRAY(c->a, slice, part->count);
    if (!ids) {
        return GODWIT_NOMEM;
    }
    godwit_status status = ask_known(st, c, part, ids);
    if (status == GODWIT_OK) {
        status = pg_key_arrays(l, c->a, part->info, ids, part->count);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, part->info->watched ? part->info->lock_sql : part->info->load_sql);
    }
    if (status != GODWIT_OK || !part->info->watched) {
        return status;
    }
    pg_text(l, part->info->table->name);
    send_ids(st, c, part, ids);
    return pg_send(l, "SELECT 1 FROM godwit.outbox WHERE tbl = $1 AND pk = ANY ($2) AND NOT waiting"
                      " AND tx <> godwit.this_tx() LIMIT 1");
}

static godwit_status take_known(store *st, decide_context *c, const table_rows *part) {
    const PGresult *known = pg_result(&st->link, part->statement);
    godwit_status status = GODWIT_OK;
    for (int i = 0; status == GODWIT_OK && i < PQntuples(known); i++) {
        status = read_row(c, known, i, part->rows[pg_field_int(known, i, 0) - 1]);
    }
    return status;
}

static godwit_status take(store *st, decide_context *c, const table_rows *part, bool exact) {
    const PGresult *typed = pg_result(&st->link, part->statement + 1);
    if (part->info->watched && PQntuples(pg_result(&st->link, part->statement + 2)) > 0) {
        return GODWIT_BUSY; /* to be taken over first */
    }
    godwit_status status = take_known(st, c, part);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(typed); i++) {
        decide_row *row = part->rows[pg_field_int(typed, i, 0) - 1];
        if (!row->row.exists) {
            row->row.foreign = exact;
        } else if (!row->row.deleted) {
            row->typed = true;
            status = read_values(c, part->info, typed, i, row);
        }
    }
    for (size_t i = 0; status == GODWIT_OK && i < part->count; i++) {
        decide_row *row = part->rows[i];
        if (row->row.exists && !row->row.deleted && !row->typed) {
            row->row.deleted = true; /* somebody took the row out of the table by hand */
            row->row.del_ver = row->row.ver;
        }
    }
    return status;
}

static int by_table(const void *x, const void *y) {
    const decide_row *a = *(decide_row *const *)x;
    const decide_row *b = *(decide_row *const *)y;
    int order = (a->table > b->table) - (a->table < b->table);
    return order ? order : slice_compare(a->id, b->id);
}

/* Rows by table, in the order of their keys: two servers lock them in the same order. NULL: NOMEM.
 */
static table_rows *parts_of(const store *st, decide_context *c, decide_row *const *rows,
                            size_t count, size_t *part_count) {
    decide_row **sorted = ARENA_ARRAY(c->a, decide_row *, count);
    table_rows *parts = ARENA_ARRAY(c->a, table_rows, st->tables->schema->table_count);
    *part_count = 0;
    if (!sorted || !parts) {
        return NULL;
    }
    if (count > 0) {
        memcpy(sorted, rows, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, by_table);
    }
    for (size_t i = 0; i < count; i++) {
        pg_row_clear(sorted[i]);
        if (i == 0 || sorted[i]->table != sorted[i - 1]->table) {
            parts[(*part_count)++] =
                (table_rows){.info = pg_table_of(st->tables, sorted[i]->table), .rows = &sorted[i]};
        }
        parts[*part_count - 1].count++;
    }
    return parts;
}

godwit_status pg_rows_load(store *st, decide_context *c, decide_row *const *rows, size_t count,
                           bool exact) {
    size_t part_count;
    table_rows *parts = parts_of(st, c, rows, count, &part_count);
    godwit_status status = parts ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < part_count; i++) {
        status = ask(st, c, &parts[i]);
    }
    if (status == GODWIT_OK && part_count > 0) {
        status = pg_sync(&st->link);
    }
    for (size_t i = 0; status == GODWIT_OK && i < part_count; i++) {
        status = take(st, c, &parts[i], exact);
    }
    if (status == GODWIT_OK && st->role.name.len) {
        status = pg_role_hide(st, c, rows, count);
    }
    return status;
}

godwit_status pg_rows_known(store *st, decide_context *c, decide_row *const *rows, size_t count) {
    size_t part_count;
    table_rows *parts = parts_of(st, c, rows, count, &part_count);
    godwit_status status = parts ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < part_count; i++) {
        slice *ids = ARENA_ARRAY(c->a, slice, parts[i].count);
        status = ids ? ask_known(st, c, &parts[i], ids) : GODWIT_NOMEM;
    }
    if (status == GODWIT_OK && part_count > 0) {
        status = pg_sync(&st->link);
    }
    for (size_t i = 0; status == GODWIT_OK && i < part_count; i++) {
        status = take_known(st, c, &parts[i]);
    }
    return status;
}

/* ---- commits ---- */

static const pg_group *kept_commit(const store *st, int64_t seq) {
    for (size_t g = 0; g < st->group_count; g++) {
        if (st->groups[g].commit->commit_seq == seq) {
            return &st->groups[g];
        }
    }
    return NULL;
}

godwit_status pg_commit_load(store *st, arena *a, slice scope, int64_t seq, store_commit_row *out) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    const pg_group *kept = kept_commit(st, seq);
    if (kept) {
        *out = (store_commit_row){.seq = seq,
                                  .salt = kept->salt,
                                  .at_ms = kept->commit->at_ms,
                                  .first_seq = kept->commit->first_seq,
                                  .last_seq = kept->commit->last_seq,
                                  .device_id = kept->author.device_id,
                                  .user_id = kept->author.user_id,
                                  .outcome = kept->commit->outcome};
        return GODWIT_OK;
    }
    *out = (store_commit_row){0};
    pg_text(l, scope);
    pg_int(l, seq);
    godwit_status status =
        pg_query(l,
                 "SELECT salt, (extract(epoch FROM committed_at) * 1000)::bigint, first_seq,"
                 " last_seq, device_id, user_id, outcome FROM godwit.commit"
                 " WHERE scope = $1 AND commit_seq = $2",
                 &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    *out = (store_commit_row){.seq = seq,
                              .salt = pg_field_int(r, 0, 0),
                              .at_ms = pg_field_int(r, 0, 1),
                              .first_seq = pg_field_int(r, 0, 2),
                              .last_seq = pg_field_int(r, 0, 3),
                              .device_id = pg_field_copy(a, r, 0, 4),
                              .user_id = pg_field_copy(a, r, 0, 5)};
    (void)op_outcome_parse(pg_field(r, 0, 6), &out->outcome);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status pg_deleted_load(store *st, arena *a, slice scope, int64_t seq, store_key **out,
                              size_t *count) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    const pg_group *kept = kept_commit(st, seq);
    *count = 0;
    if (kept) {
        *out = ARENA_ARRAY(a, store_key, kept->commit->change_count);
        for (size_t i = 0; *out && i < kept->commit->change_count; i++) {
            const decide_change *change = &kept->commit->changes[i];
            if (change->is_delete) {
                (*out)[(*count)++] = (store_key){change->row->table->name, change->row->id};
            }
        }
        return *out ? GODWIT_OK : GODWIT_NOMEM;
    }
    *out = NULL;
    pg_text(l, scope);
    pg_int(l, seq);
    godwit_status status = pg_query(l,
                                    "SELECT tbl, pk FROM godwit.change WHERE scope = $1"
                                    " AND commit_seq = $2 AND kind = 'D' ORDER BY idx",
                                    &r);
    if (status != GODWIT_OK) {
        return status;
    }
    *out = ARENA_ARRAY(a, store_key, (size_t)PQntuples(r));
    for (int i = 0; *out && i < PQntuples(r); i++) {
        (*out)[(*count)++] = (store_key){pg_field_copy(a, r, i, 0), pg_field_copy(a, r, i, 1)};
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}
