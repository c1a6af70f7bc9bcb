/* The conflict ledger in PostgreSQL: records of the groups that are written together, and records
 * that their operations resolve. Each is a row of godwit.conflict and a change of its commit under
 * the name _conflicts, so that it reaches every device of the scope the way rows do. */
#include "server/store_postgres.h"

void pg_conflict_read(const PGresult *r, int row, arena *a, store_conflict_row *out) {
    slice *const texts[] = {&out->id,    &out->kind,    &out->policy,    &out->winner,
                            &out->state, &out->table,   &out->entity_id, &out->device_id,
                            NULL,        &out->columns, &out->base,      &out->theirs,
                            &out->ours,  &out->chosen};
    *out = (store_conflict_row){0};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        if (texts[i]) {
            *texts[i] = pg_field_copy(a, r, row, (int)i);
        }
    }
    out->op_key = pg_field_bytea(a, r, row, 8);
    out->commit_seq = pg_field_int(r, row, 14);
    out->at_ms = pg_field_int(r, row, 15);
    out->resolved_commit = pg_field_int(r, row, 16);
    out->resolved_by = pg_field_copy(a, r, row, 17);
    out->operation = pg_field_copy(a, r, row, 18);
    out->writers = pg_field_copy(a, r, row, 19);
}

/* ---- saving ---- */

typedef struct {
    store *st;
    int64_t index; /* of the next change in the commit */
} ledger;

static godwit_status add_change(ledger *l, const pg_group *group, slice entity,
                                const store_conflict_row *row) {
    pg_link *link = &l->st->link;
    bytes *b = &l->st->json;
    bytes_clear(b);
    store_conflict_json(b, entity, row);
    if (b->failed) {
        return GODWIT_NOMEM;
    }
    pg_text(link, l->st->context->scope);
    pg_int(link, group->commit->commit_seq);
    pg_int(link, l->index++);
    pg_text(link, row->id);
    pg_text(link, bytes_view(b));
    return pg_send(link,
                   "INSERT INTO godwit.change(scope, commit_seq, idx, tbl, pk, kind, full_row,"
                   " prev_seq, clock_seq, cols)"
                   " VALUES ($1, $2, $3::bigint, '_conflicts', $4, 'U', true, 0, 0, $5::json)");
}

static slice or_null(slice s) {
    return s.len ? s : (slice){0};
}

static godwit_status add_record(ledger *l, const pg_group *group, const decide_conflict *conflict) {
    pg_link *link = &l->st->link;
    store_conflict_row row = {.id = conflict->id,
                              .kind = conflict->kind,
                              .policy = conflict->policy,
                              .winner = conflict->winner,
                              .state = conflict->open ? SLICE("open") : SLICE("auto"),
                              .table = conflict->table->name,
                              .entity_id = conflict->entity_id,
                              .device_id = or_null(group->author.device_id),
                              .op_key = conflict->op->key_text,
                              .columns = or_null(conflict->columns_json),
                              .base = or_null(conflict->base),
                              .theirs = or_null(conflict->theirs),
                              .ours = or_null(conflict->ours),
                              .chosen = or_null(conflict->chosen),
                              .operation = slice_of(op_kind_name(conflict->op->kind)),
                              .writers = or_null(conflict->writers),
                              .commit_seq = group->commit->commit_seq,
                              .at_ms = group->commit->at_ms};
    if (group->author.stream) {
        row.op_key = (slice){(const char *)conflict->op->key, SHA256_BYTES};
    }
    pg_text(link, l->st->context->scope);
    pg_text(link, row.id);
    pg_int(link, row.commit_seq);
    pg_text(link, row.table);
    pg_text(link, row.entity_id.ptr ? row.entity_id : SLICE(""));
    pg_text(link, row.kind);
    pg_bytea(link, row.op_key.ptr ? row.op_key : SLICE(""));
    pg_text(link, row.device_id);
    const slice images[] = {row.columns, row.base, row.theirs, row.ours, row.chosen};
    for (size_t i = 0; i < COUNT_OF(images); i++) {
        pg_text(link, images[i]);
    }
    pg_text(link, row.policy);
    pg_text(link, row.winner);
    pg_text(link, row.state);
    pg_int(link, row.at_ms);
    pg_text(link, row.operation);
    pg_text(link, row.writers);
    godwit_status status = pg_send(
        link, "INSERT INTO godwit.conflict(scope, conflict_id, commit_seq, tbl, pk, kind, op_key,"
              " device_id, cols, base, theirs, ours, chosen, policy, winner, state, at,"
              " operation, writers)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::json, $10::json, $11::json, $12::json,"
              " $13::json, $14, $15, $16, to_timestamp($17::double precision / 1000),"
              " $18, $19::json)");
    return status == GODWIT_OK ? add_change(l, group, conflict->table->entity, &row) : status;
}

static bool had_effect(const decide_result *result) {
    return result->outcome == OUTCOME_APPLIED || result->outcome == OUTCOME_MERGED ||
           result->outcome == OUTCOME_NOOP;
}

static slice entity_of(const store *st, slice table) {
    const schema *s = st->tables->schema;
    for (size_t i = 0; i < s->table_count; i++) {
        if (slice_equal(s->tables[i].name, table)) {
            return s->tables[i].entity;
        }
    }
    return table;
}

/* What a person has decided before stays as it was decided then. */
static godwit_status resolve(ledger *l, const pg_group *group, slice id, bool reverts) {
    pg_link *link = &l->st->link;
    PGresult *r = NULL;
    pg_text(link, l->st->context->scope);
    pg_text(link, id);
    pg_text(link, group->author.user_id);
    pg_int(link, group->commit->commit_seq);
    pg_int(link, reverts);
    godwit_status status =
        pg_query(link,
                 "UPDATE godwit.conflict SET state = CASE WHEN $5 = 1 AND state = 'auto' THEN"
                 " 'reverted' ELSE 'resolved' END, resolved_by = $3,"
                 " resolved_commit = $4 WHERE scope = $1 AND conflict_id = $2"
                 " AND state IN ('open', 'auto') RETURNING " PG_CONFLICT_COLUMNS,
                 &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status;
    }
    store_conflict_row row;
    pg_conflict_read(r, 0, l->st->context->a, &row);
    return l->st->context->a->failed ? GODWIT_NOMEM
                                     : add_change(l, group, entity_of(l->st, row.table), &row);
}

godwit_status pg_conflicts_save(store *st) {
    godwit_status status = GODWIT_OK;
    for (size_t g = 0; status == GODWIT_OK && g < st->group_count; g++) {
        const pg_group *group = &st->groups[g];
        const decide_commit *commit = group->commit;
        ledger l = {.st = st, .index = (int64_t)commit->change_count};
        for (size_t i = 0; status == GODWIT_OK && i < commit->conflict_count; i++) {
            status = add_record(&l, group, &commit->conflicts[i]);
        }
        for (size_t i = 0; status == GODWIT_OK && i < commit->result_count; i++) {
            slice rest = had_effect(&commit->results[i]) ? group->ops[i].resolves : (slice){0};
            for (slice id = wire_resolves_next(&rest); status == GODWIT_OK && id.ptr;
                 id = wire_resolves_next(&rest)) {
                status = resolve(&l, group, id, group->ops[i].reverts);
            }
        }
    }
    return status;
}

/* Those of groups that are kept count, too. */
godwit_status pg_conflict_known(store *st, slice scope, slice id, slice table, slice entity_id,
                                bool *known) {
    PGresult *r = NULL;
    *known = false;
    for (size_t g = 0; g < st->group_count; g++) {
        const decide_commit *commit = st->groups[g].commit;
        for (size_t i = 0; i < commit->conflict_count; i++) {
            const decide_conflict *record = &commit->conflicts[i];
            *known =
                *known || (slice_equal(record->id, id) && slice_equal(record->table->name, table) &&
                           slice_equal(record->entity_id, entity_id));
        }
    }
    if (*known) {
        return GODWIT_OK;
    }
    pg_text(&st->link, scope);
    pg_text(&st->link, id);
    pg_text(&st->link, table);
    pg_text(&st->link, entity_id.ptr ? entity_id : SLICE(""));
    godwit_status status = pg_query(&st->link,
                                    "SELECT 1 FROM godwit.conflict WHERE scope = $1"
                                    " AND conflict_id = $2 AND tbl = $3 AND pk = $4",
                                    &r);
    *known = status == GODWIT_OK && PQntuples(r) > 0;
    return status;
}
