/* References to rows that are not live in their scope.
 *
 * The database enforces its foreign keys by itself. What it does not know: a row of another scope,
 * and one that is only marked as deleted, must look as if they were not there. */
#include "server/store_postgres.h"

#include "core/id.h"

/* Text form of one key value; no ptr where the value is of another class than the key. */
static slice key_text(arena *a, key_kind kind, const value *v) {
    char *text = NULL;
    switch (kind) {
    case KEY_TEXT:
        return v->type == VALUE_TEXT ? v->u.s : (slice){0};
    case KEY_INTEGER:
        return v->type == VALUE_INT ? slice_of(arena_printf(a, "%lld", (long long)v->u.i))
                                    : (slice){0};
    case KEY_BLOB:
        text = v->type == VALUE_BLOB ? arena_alloc(a, v->u.s.len * 2 + 1) : NULL;
        if (text) {
            id_hex_encode((const uint8_t *)v->u.s.ptr, v->u.s.len, text);
        }
        return slice_of(text);
    }
    return (slice){0};
}

/* The entity id the values refer to; no ptr when some are NULL or no key. */
static slice parent_id(arena *a, const pg_fk *key, const value *values) {
    const schema_table *t = key->parent;
    slice parts[KEY_COLUMNS_MAX];
    bytes id;
    for (size_t i = 0; i < t->key_count; i++) {
        const value *v = &values[key->fk->columns[key->key_part[i]]];
        parts[i] = v->type == VALUE_NULL ? (slice){0} : key_text(a, t->key_kinds[i], v);
        if (!parts[i].ptr) {
            return (slice){0};
        }
    }
    if (t->key_count == 1) {
        return parts[0];
    }
    bytes_init(&id, NULL, ENTITY_ID_BYTES_MAX);
    schema_id_write(&id, parts, t->key_count);
    slice out = id.failed ? (slice){0} : arena_copy(a, bytes_view(&id));
    bytes_deinit(&id);
    return out;
}

static bool changes_key(const pg_change *p, const pg_fk *key) {
    bool changed = p->change->full;
    for (size_t i = 0; i < key->fk->count; i++) {
        changed = changed || p->change->columns[key->fk->columns[i]];
    }
    return changed && !p->change->is_delete;
}

/* What is known without asking is settled at once: what counts is the state at the group's end,
 * which the working rows are in now. */
godwit_status pg_refs_keep(store *st, const pg_change *p, decide_refusal *refusal) {
    decide_context *c = st->context;
    const pg_table *info = pg_table_of(st->tables, p->change->row->table);
    for (size_t k = 0; k < info->parent_count; k++) {
        const pg_fk *key = &info->parents[k];
        if (!key->parent || !key->by_key || !changes_key(p, key)) {
            continue;
        }
        slice id = parent_id(c->a, key, p->values);
        slice scope = key->parent->scope.len ? key->parent->scope : c->scope;
        if (!id.ptr) {
            continue; /* NULL, or the database says what it thinks of it */
        }
        const decide_row *known =
            slice_equal(scope, c->scope) ? decide_row_find(c, key->parent, id) : NULL;
        if (known && (!known->row.exists || known->row.deleted)) {
            *refusal = (decide_refusal){.code = CODE_FK_VIOLATION,
                                        .detail = slice_of(key->detail),
                                        .op_index = pg_op_of(st, p)};
            return GODWIT_CONSTRAINT;
        }
        if (!known) {
            if (!pg_grow((void **)&st->refs, &st->ref_cap, st->ref_count, sizeof *st->refs)) {
                return GODWIT_NOMEM;
            }
            st->refs[st->ref_count++] = (pg_ref){key, id, p->place};
        }
    }
    return c->a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status ask(store *st, const pg_fk *key, size_t count) {
    pg_link *l = &st->link;
    pg_text(l, key->parent->scope.len ? key->parent->scope : st->context->scope);
    pg_text(l, key->parent->name);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < st->ref_count; i++) {
        if (st->refs[i].key == key) {
            pg_item(l, st->refs[i].id);
        }
    }
    return pg_send(l, "SELECT 1 FROM unnest($3::text[]) k(pk) WHERE NOT EXISTS (SELECT 1"
                      " FROM godwit.row r WHERE r.scope = $1 AND r.tbl = $2 AND r.pk = k.pk"
                      " AND r.del_ver IS NULL) LIMIT 1");
}

godwit_status pg_refs_ask(store *st, pg_question *questions, size_t *count) {
    const schema *s = st->tables->schema;
    godwit_status status = GODWIT_OK;
    for (size_t t = 0; st->ref_count > 0 && t < s->table_count; t++) {
        const pg_table *info = &st->tables->infos[t];
        for (size_t k = 0; status == GODWIT_OK && k < info->parent_count; k++) {
            const pg_fk *key = &info->parents[k];
            const pg_change *some = NULL;
            size_t refs = 0;
            for (size_t i = 0; i < st->ref_count; i++) {
                refs += st->refs[i].key == key;
                some = st->refs[i].key == key ? &st->changes[st->refs[i].place] : some;
            }
            if (refs == 0) {
                continue;
            }
            if (*count == PG_QUESTIONS_MAX) {
                return GODWIT_LIMIT;
            }
            questions[(*count)++] = (pg_question){key, some, st->link.sent};
            status = ask(st, key, refs);
        }
    }
    return status;
}
