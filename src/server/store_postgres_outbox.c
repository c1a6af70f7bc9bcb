/* Writes from elsewhere, as the triggers of store_postgres.sql note them: taken in the order of
 * their commits, with values in the terms of the tables' own types.
 *
 * A transaction that has seen another's rows writes to the outbox after that one has ended, so the
 * order of the transactions' last numbers is an order in which they can have happened. Numbers may
 * have gaps and may become visible late: what was taken is deleted, no place is remembered. One
 * server at a time is at it: it holds a row of godwit.meta, which nobody else waits for. */
#include "server/store_postgres.h"

godwit_status pg_outbox_any(store *st, bool *any) {
    PGresult *r = NULL;
    *any = false;
    godwit_status status = pg_link_up(&st->link);
    if (status == GODWIT_OK) {
        status = pg_query(&st->link,
                          "SELECT EXISTS (SELECT 1 FROM godwit.outbox WHERE NOT waiting)", &r);
    }
    *any = status == GODWIT_OK && PQgetvalue(r, 0, 0)[0] == 't';
    return status;
}

godwit_status pg_outbox_again(store *st) {
    PGresult *r = NULL;
    godwit_status status = pg_link_up(&st->link);
    return status == GODWIT_OK
               ? pg_query(&st->link, "UPDATE godwit.outbox SET waiting = false WHERE waiting", &r)
               : status;
}

/* ---- which ---- */

#define TAKE                                                                                       \
    "WITH near AS (SELECT DISTINCT tx FROM (SELECT tx FROM godwit.outbox WHERE NOT waiting"        \
    "  ORDER BY id LIMIT $1) q)"                                                                   \
    " SELECT o.id, o.tx, o.tbl, o.pk, o.kind, to_json(o.cols), o.actor,"                           \
    " (extract(epoch FROM o.at) * 1000)::bigint"                                                   \
    " FROM (SELECT tx, (SELECT max(id) FROM godwit.outbox m WHERE m.tx = near.tx AND NOT"          \
    "  m.waiting) AS last FROM near) n"                                                            \
    " CROSS JOIN LATERAL (SELECT * FROM godwit.outbox i WHERE i.tx = n.tx AND NOT i.waiting"       \
    "  ORDER BY i.id LIMIT $1) o ORDER BY n.last, o.id LIMIT $1"

static godwit_status read_columns(arena *a, slice names, store_fact *fact) {
    const json *list = NULL;
    fact->columns = ARENA_ARRAY(a, bool, fact->table->column_count);
    if (!fact->columns) {
        return GODWIT_NOMEM;
    }
    if (names.len == 0) {
        fact->whole = !fact->is_delete;
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, names, &list, NULL);
    if (status != GODWIT_OK || !json_is(list, JSON_ARRAY)) {
        return status == GODWIT_NOMEM ? status : GODWIT_CORRUPT;
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        int column = schema_column_index(fact->table, item->u.s);
        if (column >= 0) {
            fact->columns[column] = true;
        }
    }
    return GODWIT_OK;
}

static godwit_status read_fact(const store *st, arena *a, const PGresult *r, int row,
                               store_fact *out) {
    *out = (store_fact){.id = pg_field_int(r, row, 0),
                        .transaction = pg_field_copy(a, r, row, 1),
                        .table = schema_find(st->tables->schema, pg_field(r, row, 2)),
                        .entity_id = pg_field_copy(a, r, row, 3),
                        .is_delete = slice_is(pg_field(r, row, 4), "D"),
                        .actor = pg_field_copy(a, r, row, 6),
                        .at_ms = pg_field_int(r, row, 7)};
    for (size_t i = 0; !out->table && i < st->tables->schema->table_count; i++) {
        const schema_table *t = &st->tables->schema->tables[i];
        out->table = slice_equal(t->name, pg_field(r, row, 2)) ? t : NULL;
    }
    if (!out->table) {
        return GODWIT_OK; /* not tracked, or not yet known: the caller puts it aside */
    }
    return read_columns(a, pg_field_copy(a, r, row, 5), out);
}

/* ---- what ---- */

/* The rows of one table in the terms of its types, and where they are known. */
static godwit_status ask_images(store *st, const pg_table *info, const store_fact *facts,
                                size_t count) {
    pg_link *l = &st->link;
    bytes *sql = &st->sql;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        used += facts[i].table == info->table;
    }
    pg_array(l, PG_OID_INT8, used);
    for (size_t i = 0; i < count; i++) {
        if (facts[i].table == info->table) {
            pg_item_int(l, facts[i].id);
        }
    }
    bytes_clear(sql);
    bytes_text(sql, "SELECT o.id, ");
    bytes_text(sql, info->select_list);
    bytes_text(sql,
               ", w.scope FROM godwit.outbox o CROSS JOIN LATERAL json_populate_record(NULL::");
    bytes_slice(sql, info->sql_name);
    bytes_text(sql, ", o.image) t LEFT JOIN LATERAL (");
    bytes_text(sql,
               info->table->scope.len || info->table->scope_column >= 0
                   ? "SELECT NULL::text AS scope"
                   : "SELECT k.scope FROM godwit.scope s JOIN godwit.row k ON k.scope = s.scope"
                     " AND k.tbl = o.tbl AND k.pk = o.pk AND k.del_ver IS NULL LIMIT 1");
    bytes_text(sql, ") w ON true WHERE NOT o.waiting AND o.id = ANY ($1)");
    return sql->failed ? GODWIT_NOMEM : pg_send(l, sql->ptr);
}

static store_fact *fact_of(store_fact *facts, size_t count, int64_t id) {
    for (size_t i = 0; i < count; i++) {
        if (facts[i].id == id) {
            return &facts[i];
        }
    }
    return NULL;
}

static godwit_status read_images(arena *a, const pg_table *info, const PGresult *r,
                                 store_fact *facts, size_t count) {
    size_t columns = info->table->column_count;
    godwit_status status = GODWIT_OK;
    for (int row = 0; status == GODWIT_OK && row < PQntuples(r); row++) {
        size_t near = (size_t)row < count ? (size_t)row : 0; /* most are in the order asked for */
        int64_t id = pg_field_int(r, row, 0);
        store_fact *fact = facts[near].id == id ? &facts[near] : fact_of(facts, count, id);
        ASSERT(fact && fact->table == info->table);
        for (size_t i = 0; status == GODWIT_OK && i < columns; i++) {
            status = pg_value_read(&info->columns[i], r, row, (int)i + 1, a, &fact->values[i]);
        }
        fact->scope = pg_field_copy(a, r, row, (int)columns + 1);
    }
    return status;
}

static godwit_status bring_images(store *st, arena *a, store_fact *facts, size_t count) {
    pg_link *l = &st->link;
    const schema *all = st->tables->schema;
    size_t *statement = ARENA_ARRAY(a, size_t, all->table_count + 1);
    godwit_status status = statement ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        const schema_table *t = facts[i].table;
        if (!t) {
            continue;
        }
        facts[i].values = ARENA_ARRAY(a, value, t->column_count);
        if (!facts[i].values) {
            return GODWIT_NOMEM;
        }
        if (statement[t - all->tables] == 0) {
            statement[t - all->tables] = l->sent + 1;
            status = ask_images(st, pg_table_of(st->tables, t), facts, count);
        }
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    for (size_t i = 0; status == GODWIT_OK && i < all->table_count; i++) {
        if (statement[i] > 0) {
            status =
                read_images(a, &st->tables->infos[i], pg_result(l, statement[i] - 1), facts, count);
        }
    }
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

godwit_status pg_outbox_take(store *st, arena *a, size_t max, store_fact **out, size_t *count) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *out = NULL;
    *count = 0;
    godwit_status status =
        pg_query(l, "SELECT v FROM godwit.meta WHERE k = 'outbox' FOR UPDATE SKIP LOCKED", &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status;
    }
    pg_int(l, (int64_t)max);
    status = pg_query(l, TAKE, &r);
    if (status != GODWIT_OK) {
        return status;
    }
    size_t found = (size_t)PQntuples(r);
    store_fact *facts = ARENA_ARRAY(a, store_fact, found);
    for (size_t i = 0; facts && status == GODWIT_OK && i < found; i++) {
        status = read_fact(st, a, r, (int)i, &facts[i]);
    }
    if (!facts || a->failed) {
        return GODWIT_NOMEM;
    }
    if (status == GODWIT_OK && max == 1) {
        status = pg_send(l, "SAVEPOINT image");
    }
    if (status == GODWIT_OK) {
        status = bring_images(st, a, facts, found);
    }
    if (status == GODWIT_CONSTRAINT &&
        max == 1) { /* what it holds is not of the columns' types any more */
        status = pg_send(l, "ROLLBACK TO SAVEPOINT image");
        facts[0].table = NULL;
    }
    if (status == GODWIT_OK) {
        *out = facts;
        *count = found;
    }
    return status;
}

godwit_status pg_outbox_done(store *st, const store_fact *facts, size_t count) {
    pg_link *l = &st->link;
    size_t placed = 0;
    for (size_t i = 0; i < count; i++) {
        placed += facts[i].scope.len > 0;
    }
    pg_array(l, PG_OID_INT8, placed);
    for (size_t i = 0; i < count; i++) {
        if (facts[i].scope.len > 0) {
            pg_item_int(l, facts[i].id);
        }
    }
    godwit_status status =
        pg_send(l, "DELETE FROM godwit.outbox WHERE NOT waiting AND id = ANY ($1)");
    if (status != GODWIT_OK || placed == count) {
        return status;
    }
    pg_array(l, PG_OID_INT8, count - placed);
    for (size_t i = 0; i < count; i++) {
        if (facts[i].scope.len == 0) {
            pg_item_int(l, facts[i].id);
        }
    }
    return pg_send(l,
                   "UPDATE godwit.outbox SET waiting = true WHERE NOT waiting AND id = ANY ($1)");
}

/* ---- for readers of the vector clock ---- */

/* Rows that somebody is writing again are left out: what is noted then brings their clock. */
static godwit_status send_clocks(store *st, const pg_table *info, const pg_change *const *changes,
                                 size_t count) {
    pg_link *l = &st->link;
    bytes *sql = &st->sql;
    const schema_table *t = info->table;
    size_t clock = (size_t)t->vector_clock_column;
    slice *ids = ARENA_ARRAY(st->context->a, slice, count);
    if (!ids) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = changes[i]->change->row->id;
    }
    godwit_status status = pg_key_arrays(l, st->context->a, info, ids, count);
    if (status != GODWIT_OK) {
        return status;
    }
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, changes[i]->change->clock_json);
    }
    bytes_clear(sql);
    bytes_text(sql, "UPDATE ");
    bytes_slice(sql, info->sql_name);
    bytes_text(sql, " u SET ");
    bytes_identifier(sql, t->columns[clock].name);
    bytes_printf(sql, " = (($%zu::text[])[x.n])::", t->key_count + 1);
    bytes_slice(sql, info->columns[clock].sql_type);
    bytes_printf(sql, " FROM (SELECT t.ctid AS place, k.n FROM %s JOIN ", info->key_list);
    bytes_slice(sql, info->sql_name);
    bytes_printf(sql, " t ON %s FOR NO KEY UPDATE OF t SKIP LOCKED) x WHERE u.ctid = x.place",
                 info->key_join);
    return sql->failed ? GODWIT_NOMEM : pg_send(l, sql->ptr);
}

static bool carries_clock(const store *st, const pg_change *p) {
    return st->groups[p->group].author.elsewhere && !p->change->is_delete &&
           p->change->row->table->vector_clock_column >= 0;
}

/* Of each row the last one; each table in one statement. */
godwit_status pg_clocks_write(store *st) {
    pg_link *l = &st->link;
    const pg_change **picked = ARENA_ARRAY(st->context->a, const pg_change *, st->change_count);
    bool begun = false;
    godwit_status status = picked ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t t = 0; status == GODWIT_OK && t < st->tables->schema->table_count; t++) {
        const pg_table *info = &st->tables->infos[t];
        size_t count = 0;
        for (size_t i = 0; i < st->change_count; i++) {
            const pg_change *p = &st->changes[i];
            bool last = p->wave + 1 == p->change->row->unwritten;
            if (p->change->row->table == info->table && last && carries_clock(st, p)) {
                picked[count++] = p;
            }
        }
        if (count > 0 && !begun) {
            begun = true;
            status = pg_send(l, "SELECT set_config('godwit.writing', 'all', true)");
        }
        if (status == GODWIT_OK && count > 0) {
            status = send_clocks(st, info, picked, count);
        }
    }
    return status == GODWIT_OK && begun
               ? pg_send(l, "SELECT set_config('godwit.writing', 'yes', true)")
               : status;
}
