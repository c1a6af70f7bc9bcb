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
    bytes_init(&id, NULL, 0);
    schema_id_write(&id, parts, t->key_count);
    a->failed = a->failed || id.failed;
    slice out = {0};
    if (id.len <= ENTITY_ID_BYTES_MAX && !a->failed) { /* a longer one is no row's */
        out = arena_copy(a, bytes_view(&id));
    }
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
godwit_status pg_refs_keep(store *st, const pg_change *p) {
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
        bool dead = known && (!known->row.exists || known->row.deleted);
        if (known && !dead) {
            continue;
        }
        if (!pg_grow((void **)&st->refs, &st->ref_cap, st->ref_count, sizeof *st->refs)) {
            return GODWIT_NOMEM;
        }
        st->refs[st->ref_count++] = (pg_ref){key, id, p->place, dead};
    }
    return c->a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static bool open_ref(const pg_ref *ref, const pg_fk *key) {
    return ref->key == key && !ref->dead;
}

static godwit_status ask(store *st, const pg_fk *key, size_t count) {
    pg_link *l = &st->link;
    pg_text(l, key->parent->scope.len ? key->parent->scope : st->context->scope);
    pg_text(l, key->parent->name);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < st->ref_count; i++) {
        if (open_ref(&st->refs[i], key)) {
            pg_item(l, st->refs[i].id);
        }
    }
    return pg_send(l, "SELECT min(k.n) FROM unnest($3::text[]) WITH ORDINALITY k(pk, n)"
                      " WHERE NOT EXISTS (SELECT 1 FROM godwit.row r WHERE r.scope = $1"
                      " AND r.tbl = $2 AND r.pk = k.pk AND r.del_ver IS NULL) HAVING count(*) > 0");
}

godwit_status pg_refs_ask(store *st, pg_question *questions, size_t *count) {
    const schema *s = st->tables->schema;
    godwit_status status = GODWIT_OK;
    for (size_t t = 0; st->ref_count > 0 && t < s->table_count; t++) {
        const pg_table *info = &st->tables->infos[t];
        for (size_t k = 0; status == GODWIT_OK && k < info->parent_count; k++) {
            const pg_fk *key = &info->parents[k];
            size_t refs = 0;
            for (size_t i = 0; i < st->ref_count; i++) {
                refs += open_ref(&st->refs[i], key);
            }
            if (refs == 0) {
                continue;
            }
            if (*count == PG_QUESTIONS_MAX) {
                return GODWIT_LIMIT;
            }
            questions[(*count)++] = (pg_question){key, NULL, st->link.sent};
            status = ask(st, key, refs);
        }
    }
    return status;
}

const pg_change *pg_refs_answer(const store *st, const pg_question *q) {
    const PGresult *r = pg_result(&st->link, q->statement);
    if (PQntuples(r) == 0 || q->change) {
        return PQntuples(r) ? q->change : NULL;
    }
    int64_t n = pg_field_int(r, 0, 0);
    for (size_t i = 0; i < st->ref_count; i++) {
        n -= open_ref(&st->refs[i], q->key);
        if (n == 0) {
            return &st->changes[st->refs[i].place];
        }
    }
    return NULL;
}
