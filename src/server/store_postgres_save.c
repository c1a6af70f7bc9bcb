/* Decided groups into PostgreSQL. A group that is saved is kept; a flush writes all that are kept:
 * first the tracked tables (store_postgres_typed.c), which may change values or refuse, then
 * metadata, feed, ledger, conflicts and commits with the values as they are stored: one statement
 * per table, whose results nobody needs to wait for. */
#include <stdlib.h>
#include <sys/random.h>

#include "server/store_postgres.h"

/* ---- keeping ---- */

bool pg_grow(void **items, size_t *cap, size_t count, size_t size) {
    if (count < *cap) {
        return true;
    }
    size_t more = *cap ? *cap * 2 : 64;
    void *grown = realloc(*items, more * size);
    if (!grown) {
        return false;
    }
    *items = grown;
    *cap = more;
    return true;
}

godwit_status pg_next_salt(store *st, int64_t *out) {
    if (st->entropy_left < 8) {
        size_t got = 0;
        while (got < sizeof st->entropy) {
            ssize_t n = getrandom(st->entropy + got, sizeof st->entropy - got, 0);
            if (n < 0) {
                return GODWIT_IO;
            }
            got += (size_t)n;
        }
        st->entropy_left = sizeof st->entropy;
    }
    st->entropy_left -= 8;
    memcpy(out, st->entropy + st->entropy_left, 8);
    return GODWIT_OK;
}

static int kind_of(const decide_change *change) {
    const decide_row *row = change->row;
    if (change->is_delete) {
        return !row->typed ? PG_NOTHING : row->table->deleted_column >= 0 ? PG_UPDATE : PG_DELETE;
    }
    return row->typed ? PG_UPDATE : PG_INSERT;
}

/* Which columns are written. Columns that a new row was not given take their default. */
static void choose_columns(const pg_table *info, pg_change *p) {
    const schema_table *t = info->table;
    const decide_change *change = p->change;
    bool insert = p->kind == PG_INSERT;
    for (size_t i = 0; i < t->column_count; i++) {
        const schema_column *column = &t->columns[i];
        if (column->local || info->columns[i].generated) {
            continue;
        }
        if (column->is_key) {
            p->write[i] = insert;
        } else if (!change->is_delete) {
            bool given = !change->full || !change->given || change->given[i];
            p->write[i] = insert ? given || !info->columns[i].has_default
                                 : change->full || change->columns[i];
        }
    }
    if (t->deleted_column >= 0 && !insert && (change->is_delete || change->full)) {
        p->write[t->deleted_column] = true;
    }
    if (t->updated_at_column >= 0) {
        p->write[t->updated_at_column] = true;
    }
    if (t->vector_clock_column >= 0) {
        p->write[t->vector_clock_column] = true;
    }
    if (t->created_by_device_column >= 0 && insert) {
        p->write[t->created_by_device_column] = true;
    }
}

static bool is_exact(const pg_table *info, const pg_change *p) {
    const schema_table *t = info->table;
    if (info->triggers) {
        return p->kind == PG_DELETE;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].local || t->columns[i].is_key || p->kind == PG_DELETE) {
            continue;
        }
        bool default_taken = p->kind == PG_INSERT && !p->write[i] && info->columns[i].has_default;
        if (info->columns[i].generated || default_taken ||
            (p->write[i] && !pg_value_exact(&info->columns[i], &p->values[i]))) {
            return false;
        }
    }
    return true;
}

/* Is this clock what a first write by `created` leaves? Then it need not be stored. */
static bool clock_plain(store *st, const decide_change *change, const pg_group *group) {
    const merge_meta *created = &change->row->row.created;
    bytes *b = &st->json;
    if (!change->full || created->ver != group->commit->commit_seq) {
        return false;
    }
    bytes_clear(b);
    if (created->seq > 0 && slice_equal(created->device, group->author.device_id)) {
        bytes_text(b, "{\"$\":0,\"");
        bytes_slice(b, created->device);
        bytes_text(b, "\":");
        bytes_int(b, created->seq);
        bytes_char(b, '}');
    } else if (created->seq == 0) {
        bytes_text(b, "{\"$\":");
        bytes_int(b, created->ver);
        bytes_char(b, '}');
    }
    return !b->failed && slice_equal(bytes_view(b), change->clock_json);
}

/* A change that frees a unique value or a referenced row must not be written before what earlier
 * groups wrote against it: they were decided without that room. */
static unsigned wave_of(const store *st, const pg_table *info, const pg_change *p) {
    unsigned wave = p->change->row->unwritten;
    bool frees_value = p->kind == PG_DELETE && info->unique;
    bool frees_parent = p->change->is_delete;
    for (size_t i = 0; p->kind == PG_UPDATE && i < info->table->column_count; i++) {
        frees_value = frees_value || (p->write[i] && info->columns[i].unique);
        frees_parent = frees_parent || (p->write[i] && info->columns[i].refers);
    }
    unsigned taken = st->barriers[info - st->tables->infos].taken;
    wave = frees_value && taken > wave ? taken : wave;
    for (size_t k = 0; frees_parent && k < info->parent_count; k++) {
        const schema_table *parent = info->parents[k].parent;
        unsigned gone = parent ? st->barriers[parent - st->tables->schema->tables].gone : 0;
        wave = gone > wave ? gone : wave;
    }
    return wave;
}

/* Once the whole group is kept: its own changes do not stand behind each other. */
static void raise_barriers(store *st, size_t from) {
    for (size_t i = from; i < st->change_count; i++) {
        const pg_change *p = &st->changes[i];
        const pg_table *info = pg_table_of(st->tables, p->change->row->table);
        pg_barrier *barrier = &st->barriers[info - st->tables->infos];
        bool takes = p->kind == PG_INSERT && info->unique;
        for (size_t c = 0; p->kind == PG_UPDATE && c < info->table->column_count; c++) {
            takes = takes || (p->write[c] && info->columns[c].unique);
        }
        if (takes && barrier->taken <= p->wave) {
            barrier->taken = p->wave + 1;
        }
        if (p->change->is_delete && barrier->gone <= p->wave) {
            barrier->gone = p->wave + 1;
        }
    }
}

static godwit_status keep_change(store *st, decide_change *change, decide_refusal *refusal) {
    arena *a = st->context->a;
    decide_row *row = change->row;
    const pg_table *info = pg_table_of(st->tables, row->table);
    size_t columns = row->table->column_count;
    const pg_group *group = &st->groups[st->group_count - 1];
    pg_change p = {.change = change, .group = st->group_count - 1, .place = st->change_count};
    if (!pg_key_fits(a, info, row->id)) {
        *refusal = (decide_refusal){.code = CODE_INVALID_VALUE,
                                    .detail = SLICE("the key's column can't hold the entityId")};
        return a->failed ? GODWIT_NOMEM : GODWIT_CONSTRAINT;
    }
    p.values = ARENA_ARRAY(a, value, columns);
    p.write = ARENA_ARRAY(a, bool, columns);
    if (!p.values || !p.write ||
        !pg_grow((void **)&st->changes, &st->change_cap, st->change_count, sizeof p)) {
        return GODWIT_NOMEM;
    }
    memcpy(p.values, row->row.values, columns * sizeof *p.values);
    bool elsewhere = group->author.elsewhere;
    p.kind = elsewhere ? PG_NOTHING : kind_of(change);
    if (p.kind != PG_NOTHING && p.kind != PG_DELETE) {
        choose_columns(info, &p);
    }
    /* a role must see what it writes: the rows are asked for again */
    p.exact = elsewhere || (st->role.name.len == 0 && is_exact(info, &p));
    p.wave = wave_of(st, info, &p);
    row->unwritten = p.wave + 1;
    row->unsettled = row->unsettled || !p.exact;
    row->typed = change->is_delete ? row->typed && row->table->deleted_column >= 0 : true;
    bool plain = clock_plain(st, change, group);
    p.clock = plain ? (slice){0} : change->clock_json;
    p.clock_seq = plain ? row->row.created.seq : 0;
    st->changes[st->change_count++] = p;
    return elsewhere ? GODWIT_OK : pg_refs_keep(st, &st->changes[st->change_count - 1]);
}

/* Which change carries the row of a result; where none does, the row as this group leaves it. Later
 * groups may write the row before this one is flushed. */
static godwit_status keep_result(store *st, const pg_group *group, size_t index) {
    const decide_commit *commit = group->commit;
    decide_result *result = &group->commit->results[index];
    const decide_row *row = result->row;
    group->changes[index] = SIZE_MAX;
    if (!row || result->result.len) {
        return GODWIT_OK;
    }
    if (row->change < commit->change_count && commit->changes[row->change].row == row) {
        group->changes[index] = row->change;
        return GODWIT_OK;
    }
    result->result = pg_columns_json(st, st->context->a, row->table, row->row.values, NULL);
    return result->result.ptr ? GODWIT_OK : GODWIT_NOMEM;
}

godwit_status pg_group_save(store *st, decide_context *c, const store_author *author,
                            const wire_op *ops, decide_commit *commit, decide_refusal *refusal) {
    *refusal = (decide_refusal){0};
    ASSERT(st->group_count == 0 || st->context == c);
    st->context = c;
    if (!pg_grow((void **)&st->groups, &st->group_cap, st->group_count, sizeof *st->groups)) {
        return GODWIT_NOMEM;
    }
    st->groups[st->group_count++] = (pg_group){
        .author = *author, .ops = ops, .commit = commit, .first_change = st->change_count};
    pg_group *group = &st->groups[st->group_count - 1];
    godwit_status status = pg_next_salt(st, &group->salt);
    group->changes = ARENA_ARRAY(c->a, size_t, commit->result_count);
    if (!group->changes) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; status == GODWIT_OK && i < commit->change_count; i++) {
        status = keep_change(st, &commit->changes[i], refusal);
    }
    for (size_t i = 0; status == GODWIT_OK && i < commit->result_count; i++) {
        status = keep_result(st, group, i);
    }
    raise_barriers(st, group->first_change);
    return status;
}

void pg_drop_pending(store *st) {
    st->group_count = 0;
    st->change_count = 0;
    st->ref_count = 0;
    if (st->barrier_count > 0) {
        memset(st->barriers, 0, st->barrier_count * sizeof *st->barriers);
    }
}

/* ---- texts ---- */

slice pg_columns_json(store *st, arena *a, const schema_table *t, const value *values,
                      const bool *picked) {
    const pg_table *info = pg_table_of(st->tables, t);
    bytes *b = &st->json;
    bool first = true;
    bytes_clear(b);
    bytes_char(b, '{');
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].local || (picked && !picked[i])) {
            continue;
        }
        if (!first) {
            bytes_char(b, ',');
        }
        first = false;
        bytes_slice(b, info->columns[i].json_key);
        value_to_json(b, &values[i]);
    }
    bytes_char(b, '}');
    a->failed = a->failed || b->failed; /* no text means something else */
    return b->failed ? (slice){0} : arena_copy(a, bytes_view(b));
}

/* ---- flush ---- */

godwit_status pg_texts_write(store *st) {
    arena *a = st->context->a;
    for (size_t i = 0; i < st->change_count; i++) {
        pg_change *p = &st->changes[i];
        decide_change *change = p->change;
        if (!change->is_delete) {
            change->columns_json = pg_columns_json(st, a, change->row->table, p->values,
                                                   change->full ? NULL : change->columns);
        }
    }
    for (size_t g = 0; g < st->group_count; g++) {
        const pg_group *group = &st->groups[g];
        for (size_t i = 0; i < group->commit->result_count; i++) {
            decide_result *result = &group->commit->results[i];
            if (group->changes[i] == SIZE_MAX) {
                continue;
            }
            const pg_change *p = &st->changes[group->first_change + group->changes[i]];
            const decide_change *change = p->change;
            result->result = change->full
                                 ? change->columns_json
                                 : pg_columns_json(st, a, change->row->table, p->values, NULL);
        }
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status pg_flush(store *st, decide_refusal *refusal) {
    *refusal = (decide_refusal){0};
    if (st->group_count == 0) {
        return GODWIT_OK;
    }
    bool ahead = false;
    godwit_status status = pg_typed_write(st, &ahead, refusal);
    if (status == GODWIT_OK && !ahead) {
        status = pg_texts_write(st);
    }
    if (status == GODWIT_OK) {
        status = pg_clocks_write(st);
    }
    if (status == GODWIT_OK && !ahead) {
        status = pg_metadata_send(st);
    }
    if (status == GODWIT_OK) {
        status = pg_conflicts_save(st);
    }
    if (status == GODWIT_OK) {
        pg_drop_pending(st);
    }
    return status;
}

/* Only what an operation builds on must be what the database holds. */
godwit_status pg_rows_settle(store *st, const decide_context *c, const wire_op *ops, size_t count,
                             decide_refusal *refusal) {
    *refusal = (decide_refusal){0};
    for (size_t i = 0; st->group_count > 0 && i < count; i++) {
        const schema_table *t = schema_find(c->schema, ops[i].entity_type);
        const decide_row *row = t ? decide_row_find(c, t, ops[i].entity_id) : NULL;
        if (row && row->unsettled) {
            return pg_flush(st, refusal);
        }
    }
    return GODWIT_OK;
}
