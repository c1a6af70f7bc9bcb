/* Making one refused change again, as if the application had made it just now: the local row as the
 * operation wants it, and a row of the log that says so. Runs with capture off. */
#include "client/relog.h"
#include "client/repair.h"
#include "core/limits.h"

typedef struct {
    op_kind kind;
    slice entity_id, payload, base, resolves;
    const client_table *t;
    bool edited; /* the payload is a new one, base is empty */
} content;

static godwit_status load_content(settle *s, const letter *l, content *out) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    memset(out, 0, sizeof *out);
    godwit_status status = db_prepare(
        s->d,
        /* who insists on what met conflicts decides them */
        "SELECT o.operation, o.entity_id, o.payload, nullif(trim(coalesce(o.resolves, '') || ' ' ||"
        " coalesce((" RESOLVE_OPEN_OF_O "), '')), ''), o.base FROM godwit_op AS o WHERE o.lsn = ?1",
        &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, l->lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        out->kind = op_kind_parse(db_column_slice(stmt, 0));
        out->entity_id = arena_copy(&s->a, db_column_slice(stmt, 1));
        out->payload = l->payload.ptr ? l->payload : arena_copy(&s->a, db_column_slice(stmt, 2));
        out->edited = l->payload.ptr != NULL;
        if (!out->edited) {
            out->base = arena_copy(&s->a, db_column_slice(stmt, 4));
        }
        slice resolves = db_column_slice(stmt, 3);
        out->resolves = resolves.ptr ? arena_copy(&s->a, resolves) : resolves;
        out->t = client_table_by_number(s->g, l->tbl);
        status = s->a.failed ? GODWIT_NOMEM : out->t ? GODWIT_OK : GODWIT_NOT_FOUND;
    }
    db_done(s->d, stmt);
    if (status == GODWIT_OK && l->payload.ptr && out->kind == OP_DELETE) {
        return client_fail(s->g, GODWIT_INVALID, "a delete has no payload to edit");
    }
    return status;
}

/* ---- Its row ---- */

typedef struct {
    apply_table *table;
    value key[KEY_COLUMNS_MAX];
    row_image local;
} place;

static godwit_status find_place(settle *s, const content *c, place *out) {
    godwit_status status = apply_open(s, c->t, &out->table);
    if (status == GODWIT_OK && out->table->missing) {
        return client_fail(s->g, GODWIT_NOT_FOUND, "table " SLICE_FMT " is gone",
                           SLICE_ARG(c->t->shape.name));
    }
    if (status == GODWIT_OK) {
        status = client_key_values(&s->a, c->t, c->entity_id, out->key);
        if (status == GODWIT_INVALID) {
            return client_fail(s->g, status,
                               "the operation's key can't be written in table " SLICE_FMT,
                               SLICE_ARG(c->t->shape.name));
        }
    }
    return status == GODWIT_OK ? apply_read(s, out->table, out->key, &out->local) : status;
}

static bool is_key_value(settle *s, const content *c, const place *at, int column,
                         const json *node) {
    const schema_table *shape = &c->t->shape;
    value v;
    size_t part = 0;
    while (part < shape->key_count && shape->key[part] != column) {
        part++;
    }
    return part < shape->key_count && value_from_json(&s->a, node, &v) == GODWIT_OK &&
           value_equal(&v, &at->key[part]);
}

/* What a person wrote: a name that is no column would be passed over in silence, another key, too.
 */
static godwit_status check_edited(settle *s, const content *c, const place *at,
                                  const json *columns) {
    const schema_table *shape = &c->t->shape;
    const json *name = json_first(columns);
    for (uint32_t i = 0; i < columns->count; i++, name = json_after(name + 1)) {
        int column = schema_column_index(shape, name->u.s);
        if (column < 0) {
            return client_fail(s->g, GODWIT_INVALID, "table " SLICE_FMT " has no column " SLICE_FMT,
                               SLICE_ARG(shape->name), SLICE_ARG(name->u.s));
        }
        if (shape->columns[column].is_key && !is_key_value(s, c, at, column, name + 1)) {
            return client_fail(s->g, GODWIT_INVALID,
                               "an edit is of the same row, " SLICE_FMT
                               ": make the other one in the application and discard this",
                               SLICE_ARG(c->entity_id));
        }
    }
    return GODWIT_OK;
}

/* What the payload says, in `given`, and the row it makes of the local one, in `next`. */
static godwit_status make_images(settle *s, const content *c, const place *at, row_image *given,
                                 row_image *next) {
    const json *columns = NULL;
    godwit_status status = image_init(&s->a, c->t, given);
    if (status == GODWIT_OK && c->kind != OP_DELETE) {
        status = json_parse(&s->a, c->payload, &columns, NULL);
        if (status == GODWIT_OK && c->edited) {
            status = check_edited(s, c, at, columns);
            if (status != GODWIT_OK) {
                return status;
            }
        }
        if (status == GODWIT_OK) {
            status = image_set(&s->a, at->table, columns, given);
        }
        if (status == GODWIT_INVALID) {
            return client_fail(s->g, status, "the payload has something that is no value");
        }
    }
    if (status == GODWIT_OK) {
        status = image_copy(&s->a, c->t, &at->local, next);
    }
    if (status == GODWIT_OK) {
        overlay_op again = {.kind = c->kind, .payload = c->payload, .base = c->base};
        status = image_redo(&s->a, at->table, &again, next);
    }
    /* of a counter or a set the same change, not the same value */
    for (size_t i = 0; status == GODWIT_OK && c->t->types && i < c->t->data_count; i++) {
        if (given->known[i] && next->known[i]) {
            given->values[i] = next->values[i];
        }
    }
    return status;
}

/* A delete of what is gone has no old values to undo it by: the row's image without it is none.
 * Where something waits for the row already, that says what is below. */
static godwit_status note_absent(settle *s, const content *c) {
    return db_run(s->d,
                  "INSERT OR IGNORE INTO godwit_base (tbl, pk, image) SELECT ?1, ?2, NULL WHERE NOT"
                  " EXISTS (SELECT 1 FROM godwit_op WHERE row_hash = ?3 AND tbl = ?1 AND entity_id"
                  " = ?2 AND state IN ('pending', 'acked', 'parked') AND state <> 'retired')",
                  "isi", c->t->tbl, c->entity_id,
                  (int64_t)client_row_hash(c->t->tbl, c->entity_id));
}

static godwit_status redo_row(settle *s, const content *c, bool row_wanted) {
    place at;
    row_image given, next;
    godwit_status status = find_place(s, c, &at);
    if (status == GODWIT_OK && row_wanted && !at.local.present) {
        return client_fail(s->g, GODWIT_NOT_FOUND, "the row is not there");
    }
    if (status == GODWIT_OK) {
        status = make_images(s, c, &at, &given, &next);
    }
    if (status == GODWIT_OK && c->kind == OP_DELETE && !at.local.present) {
        status = note_absent(s, c);
    }
    if (status == GODWIT_OK) {
        status = apply_change(s, at.table, at.key, &at.local, &next);
        if (status == GODWIT_CONSTRAINT) {
            return client_fail(s->g, status, "table " SLICE_FMT " refuses the change: %s",
                               SLICE_ARG(c->t->shape.name), s->d->message);
        }
    }
    const relog_change change = {.t = c->t,
                                 .key = at.key,
                                 .kind = c->kind,
                                 .now = &given,
                                 .old = &at.local,
                                 .now_ms = s->now_ms};
    return status == GODWIT_OK ? relog_write(s->g, &change) : status;
}

static godwit_status redo_entry(settle *s, const content *c) {
    int64_t kind = c->kind == OP_CREATE ? 1 : c->kind == OP_UPDATE ? 2 : 3;
    value wall = {.type = VALUE_REAL, .u.d = (double)s->now_ms / 86400000.0 + 2440587.5};
    return db_run(
        s->d,
        "INSERT INTO godwit_log (op, tbl, wall, nonce, pk, mask, v0) VALUES (4, ?1, ?2, random(),"
        " ?3, ?4, ?5)",
        "ivsis", c->t->tbl, &wall, c->entity_id, kind, c->payload);
}

godwit_status repair_redo(settle *s, letter *l) {
    content c;
    godwit_status status = load_content(s, l, &c);
    if (status == GODWIT_OK) {
        status = c.t->queue ? redo_entry(s, &c) : redo_row(s, &c, l->row_wanted);
    }
    if (status == GODWIT_OK) {
        status = db_int(s->d, &l->new_lsn, "SELECT max(lsn) FROM godwit_log", "");
    }
    /* the hint also keeps sealing from joining it with its neighbours */
    return status == GODWIT_OK
               ? db_run(s->d, "INSERT INTO godwit_hint (lsn, resolves) VALUES (?1, ?2)", "is",
                        l->new_lsn, c.resolves)
               : status;
}

godwit_status repair_check_parents(settle *s, const letter *l) {
    content c;
    place at;
    bool exists = true;
    godwit_status status = load_content(s, l, &c);
    if (status != GODWIT_OK || c.t->queue || !s->foreign_keys) {
        return status; /* the application does not enforce them either */
    }
    status = find_place(s, &c, &at);
    for (size_t f = 0; status == GODWIT_OK && at.local.present && f < c.t->shape.fk_count; f++) {
        status = apply_parent_exists(s, at.table, f, at.key, &at.local, &exists);
        if (status == GODWIT_OK && !exists) {
            return client_fail(s->g, GODWIT_CONSTRAINT,
                               "its row points to a row of table " SLICE_FMT " that is not here",
                               SLICE_ARG(c.t->shape.fks[f].table));
        }
    }
    return status;
}
