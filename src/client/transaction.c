/* godwit_begin, godwit_add, godwit_commit, godwit_rollback: the requirements' SyncTransaction.
 *
 * A transaction here is a transaction of SQLite. It is committed without asking anybody; what was
 * captured in it is one group, which the server applies as a whole or refuses as a whole, and a
 * refusal takes the whole back on this device (settle.c). No answer is no refusal: nothing is
 * undone. */
#include "client/enqueue.h"
#include "client/settle.h"
#include "core/limits.h"

#define NOT_OPEN "no transaction is open: call godwit_begin"

godwit_status godwit_begin(godwit *g) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (!sqlite3_get_autocommit(g->db.handle)) {
        return client_leave(g, client_fail(g, GODWIT_MISUSE, "a transaction is open already"));
    }
    return client_leave(g, db_exec(&g->db, "BEGIN IMMEDIATE"));
}

static godwit_status finish(godwit *g, const char *sql) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (sqlite3_get_autocommit(g->db.handle)) {
        return client_leave(g, client_fail(g, GODWIT_MISUSE, NOT_OPEN));
    }
    return client_leave(g, db_exec(&g->db, sql));
}

godwit_status godwit_commit(godwit *g) {
    return finish(g, "COMMIT");
}

godwit_status godwit_rollback(godwit *g) {
    return finish(g, "ROLLBACK");
}

/* ---- Adding an operation ---- */

typedef struct {
    settle s; /* of this only what reading and writing rows needs: capture stays on */
    const client_table *t;
    op_kind kind;
    slice entity_id;
    const json *columns; /* NULL for a delete */
} addition;

static godwit_status check_columns(addition *add, slice payload) {
    const schema_table *shape = &add->t->shape;
    godwit *g = add->s.g;
    if (add->kind == OP_DELETE) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(&add->s.a, payload, &add->columns, NULL);
    if (status == GODWIT_NOMEM) {
        return status;
    }
    if (status != GODWIT_OK || !json_is(add->columns, JSON_OBJECT)) {
        return client_fail(g, GODWIT_INVALID, "the payload must be a JSON object");
    }
    const json *name = json_first(add->columns);
    for (uint32_t i = 0; i < add->columns->count; i++, name = json_after(name + 1)) {
        if (schema_column_index(shape, name->u.s) < 0) {
            return client_fail(g, GODWIT_INVALID, "table " SLICE_FMT " has no column " SLICE_FMT,
                               SLICE_ARG(shape->name), SLICE_ARG(name->u.s));
        }
    }
    return GODWIT_OK;
}

/* The row as it is, and as the operation wants it. */
static godwit_status write_row(addition *add) {
    apply_table *table = NULL;
    value key[KEY_COLUMNS_MAX];
    row_image before, after;
    settle *s = &add->s;
    godwit_status status = apply_open(s, add->t, &table);
    if (status == GODWIT_OK) {
        status = client_key_values(&s->a, add->t, add->entity_id, key);
    }
    if (status == GODWIT_INVALID) {
        return client_fail(s->g, status, "the entity id does not fit the table's key");
    }
    if (status == GODWIT_OK) {
        status = apply_read(s, table, key, &before);
    }
    if (status == GODWIT_OK && !before.present && add->kind != OP_CREATE) {
        return client_fail(s->g, GODWIT_NOT_FOUND, "table " SLICE_FMT " has no row " SLICE_FMT,
                           SLICE_ARG(add->t->shape.name), SLICE_ARG(add->entity_id));
    }
    if (status == GODWIT_OK) {
        status = add->kind == OP_CREATE ? image_init(&s->a, add->t, &after)
                                        : image_copy(&s->a, add->t, &before, &after);
    }
    if (status == GODWIT_OK && add->columns) {
        status = image_set(&s->a, table, add->columns, &after);
        if (status == GODWIT_INVALID) {
            return client_fail(s->g, status, "the payload has something that is no value");
        }
    }
    if (status != GODWIT_OK) {
        return status;
    }
    after.present = add->kind != OP_DELETE;
    status = add->kind == OP_CREATE ? apply_insert(s, table, key, &after)
                                    : apply_change(s, table, key, &before, &after);
    return status == GODWIT_CONSTRAINT
               ? client_fail(s->g, status, "table " SLICE_FMT " refuses the change: %s",
                             SLICE_ARG(add->t->shape.name), s->d->message)
               : status;
}

/* *captured: the row has changed. */
static godwit_status apply_locally(addition *add, slice payload, bool *captured) {
    int64_t before = 0, after = 0;
    godwit_status status = check_columns(add, payload);
    if (status == GODWIT_OK) {
        status = db_int(add->s.d, &before, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    if (status == GODWIT_OK) {
        status = write_row(add);
    }
    apply_close(&add->s);
    if (status == GODWIT_OK) {
        status = db_int(add->s.d, &after, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    *captured = after > before;
    return status;
}

static godwit_status add_to(godwit *g, const enqueue_call *call, char id[37]) {
    addition add = {.s = {.g = g, .d = &g->db},
                    .t = client_table_by_entity(g, call->entity_type),
                    .kind = op_kind_parse(call->operation),
                    .entity_id = call->entity_id};
    bool captured = true;
    if (add.kind != OP_CREATE && add.kind != OP_UPDATE && add.kind != OP_DELETE) {
        return client_fail(g, GODWIT_INVALID, "operation is \"create\", \"update\" or \"delete\"");
    }
    godwit_status status = GODWIT_OK;
    if (add.t && !add.t->queue && add.t->active) {
        arena_init(&add.s.a, g->allocator, 0);
        add.s.tables = ARENA_ARRAY(&add.s.a, apply_table *, g->registry.count + 1);
        status = add.s.tables ? apply_locally(&add, call->payload, &captured) : GODWIT_NOMEM;
        arena_deinit(&add.s.a);
    }
    return status == GODWIT_OK && captured ? enqueue_run(g, call, id) : status;
}

godwit_status godwit_add(godwit *g, const char *operation, const char *entity_type,
                         const char *entity_id, const char *payload,
                         const godwit_enqueue_options *options, char id[37]) {
    char ignored[UUID_TEXT_BYTES];
    id = id ? id : ignored;
    id[0] = '\0';
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (sqlite3_get_autocommit(g->db.handle)) {
        return client_leave(g, client_fail(g, GODWIT_MISUSE, NOT_OPEN));
    }
    const enqueue_call call = {slice_of(operation), slice_of(entity_type), slice_of(entity_id),
                               slice_of(payload ? payload : "{}"), options};
    status = db_begin(&g->db); /* a savepoint: an operation that fails leaves the others */
    if (status == GODWIT_OK) {
        status = add_to(g, &call, id);
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
            id[0] = '\0';
        }
    }
    return client_leave(g, status);
}
