/* Operations written under an older schema get the values the present one has in their place, by
 * the expressions of the configuration (upcast.VERSION.COLUMN), evaluated by an SQLite database in
 * memory.
 *
 *   all inputs are there     the expression's value, in the payload and in the old values alike
 *   none is, and it is not a create, or the column is there already     nothing
 *   a create, none is        the expression's value with NULL inputs: what a new column starts with
 *   an update with some, or the expression fails     untranslatable: the operation is refused, its
 *                            content kept
 *
 * The key covers what was captured and has been checked before; what decide and the ledger see is
 * the translation. Former names and dropped columns need none of this: decide knows them. */
#include "server/service_inner.h"

#include "db/db.h"
#include "server/upcast_sql.h"

#include <stdio.h>
#include <stdlib.h>

struct upcaster {
    db d;
    value *values; /* scratch, inputs_max of them */
    const json **found;
    size_t inputs_max;
};

static godwit_status make(upcaster **out) {
    upcaster *u = calloc(1, sizeof *u);
    godwit_status status =
        u ? db_open(&u->d, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, 0)
          : GODWIT_NOMEM;
    if (status != GODWIT_OK) {
        upcaster_free(u);
        return status;
    }
    upcast_guard(u->d.handle);
    *out = u;
    return GODWIT_OK;
}

void upcaster_free(upcaster *u) {
    if (u) {
        db_close(&u->d);
        free(u);
    }
}

/* An input by its name, or where that is a column's, by all names of the column. */
static const json *input_of(const schema_table *t, const json *columns, slice name) {
    int at = schema_column_index(t, name);
    return at < 0 ? json_find(columns, name) : schema_value(columns, &t->columns[at]);
}

/* *found of the expression's inputs are among the columns. INVALID: one is no value. */
static godwit_status bind_inputs(upcaster *u, arena *a, const schema_table *t,
                                 const schema_upcast *rule, const json *columns, sqlite3_stmt *stmt,
                                 size_t *found) {
    value *values = ARENA_ARRAY(a, value, rule->input_count + 1);
    godwit_status status = values ? GODWIT_OK : GODWIT_NOMEM;
    *found = 0;
    for (size_t i = 0; status == GODWIT_OK && i < rule->input_count; i++) {
        const json *node = input_of(t, columns, rule->inputs[i]);
        if (node) {
            (*found)++;
            status = value_from_json(a, node, &values[i]);
        }
        if (status == GODWIT_OK && values[i].type == VALUE_SPECIAL) {
            status = GODWIT_INVALID;
        }
        if (status == GODWIT_OK) {
            status = db_bind_value(&u->d, stmt, (int)i + 1, &values[i]);
        }
    }
    return status;
}

/* false: it is no value of a column. */
static bool copy_value(arena *a, bytes *b, const json *node) {
    value v;
    if (json_is(node, JSON_OBJECT) || json_is(node, JSON_ARRAY)) {
        bytes_slice(b, node->u.s); /* its text */
        return true;
    }
    bool ok = value_from_json(a, node, &v) == GODWIT_OK;
    if (ok) {
        value_to_json(b, &v);
    }
    return ok;
}

typedef struct {
    upcaster *u;
    arena *a;
    const schema_table *t;
    const schema_upcast *rule;
    bool create; /* a value is wanted also without inputs */
} translation;

/* The object with the rule's column as the rule makes it; *text as it is where there is nothing to
 * do. INVALID: not translatable. */
static godwit_status apply_rule(const translation *w, slice *text, const json **node) {
    const schema_column *column = &w->t->columns[w->rule->column];
    sqlite3_stmt *stmt = NULL;
    size_t found = 0;
    bool row = false, first = true;
    value result = {0};
    bytes b;
    godwit_status status = db_prepare(&w->u->d, w->rule->sql.ptr, &stmt);
    if (status == GODWIT_OK) {
        status = bind_inputs(w->u, w->a, w->t, w->rule, *node, stmt, &found);
    }
    bool wanted = found > 0 || (w->create && !schema_value(*node, column));
    if (status == GODWIT_OK && wanted && found < w->rule->input_count && !w->create) {
        status = GODWIT_INVALID;
    }
    if (status == GODWIT_OK && wanted) {
        int rc = upcast_step(stmt);
        row = rc == SQLITE_ROW;
        status = db_status(&w->u->d, rc);
    }
    bytes_init(&b, NULL, 0);
    if (status == GODWIT_OK && row) {
        db_column_value(stmt, 0, &result);
        bytes_char(&b, '{');
        const json *key = json_first(*node);
        bool ok = true;
        for (uint32_t i = 0; ok && i < (*node)->count; i++, key = json_after(key + 1)) {
            if (schema_column_index(w->t, key->u.s) != w->rule->column) {
                json_comma(&b, &first);
                json_write_text(&b, key->u.s);
                bytes_char(&b, ':');
                ok = copy_value(w->a, &b, key + 1);
            }
        }
        json_comma(&b, &first);
        json_write_text(&b, column->name);
        bytes_char(&b, ':');
        value_to_json(&b, &result);
        bytes_char(&b, '}');
        slice made = b.failed ? (slice){0} : arena_copy(w->a, bytes_view(&b));
        status = !ok        ? GODWIT_INVALID
                 : made.ptr ? json_parse(w->a, made, node, NULL)
                            : GODWIT_NOMEM;
        *text = status == GODWIT_OK ? made : *text;
    }
    bytes_deinit(&b);
    db_done(&w->u->d, stmt);
    return status;
}

static godwit_status translate(upcaster *u, arena *a, const schema_table *t, wire_op *op) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < t->upcast_count; i++) {
        translation w = {.u = u, .a = a, .t = t, .rule = &t->upcasts[i]};
        if (op->schema >= w.rule->version) {
            continue;
        }
        w.create = op->kind == OP_CREATE;
        status = apply_rule(&w, &op->payload, &op->payload_node);
        w.create = false;
        if (status == GODWIT_OK && apply_rule(&w, &op->base, &op->base_node) ==
                                       GODWIT_NOMEM) { /* old values may lack some */
            status = GODWIT_NOMEM;
        }
        if (status != GODWIT_OK && status != GODWIT_NOMEM) {
            op->untranslated =
                arena_printf(a, "column %.*s can't be made of what schema %lld says",
                             SLICE_ARG(t->columns[w.rule->column].name), (long long)op->schema);
            return op->untranslated ? GODWIT_OK : GODWIT_NOMEM;
        }
    }
    op->schema = WIRE_SCHEMA_NOW;
    return status;
}

godwit_status upcast_push(upcaster **maker, const schema *present, arena *a,
                          push_request *request) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < request->op_count; i++) {
        wire_op *op = &request->ops[i];
        bool content = op->kind == OP_CREATE || op->kind == OP_UPDATE;
        const schema_table *t = content && op->schema != WIRE_SCHEMA_NOW && !op->untranslated
                                    ? schema_find(present, op->entity_type)
                                    : NULL;
        if (t && t->upcast_count) {
            status = *maker ? GODWIT_OK : make(maker);
            if (status == GODWIT_OK) {
                status = translate(*maker, a, t, op);
            }
        }
    }
    return status;
}
