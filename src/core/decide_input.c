/* Operations checked against the registry, before any row is touched.
 *
 * Everything wrong with an operation taken by itself is found here: names, the key, the shape and
 * size of values. What remains for decide_apply is about the row. Text stays where the parser left
 * it. */
#include "core/decide_inner.h"

#include "core/commute.h"
#include "core/id.h"

static const schema_table *find_table(decide_context *c, slice entity) {
    if (!c->last_table || !slice_equal(c->last_entity, entity)) {
        c->last_table = schema_find(c->schema, entity);
        c->last_entity = entity;
    }
    return c->last_table;
}

static bool parse_decimal(slice text, int64_t *out) {
    bool negative = text.len > 0 && text.ptr[0] == '-';
    int64_t v = 0; /* counted downwards: the negative range is the larger one */
    size_t i = negative;
    for (; i < text.len; i++) {
        int digit = text.ptr[i] - '0';
        if (digit < 0 || digit > 9 || v < (INT64_MIN + digit) / 10) {
            return false;
        }
        v = v * 10 - digit;
    }
    if (i == (size_t)negative || (!negative && v == INT64_MIN)) {
        return false;
    }
    *out = negative ? v : -v;
    return true;
}

static bool key_value(arena *a, key_kind kind, slice part, value *out) {
    switch (kind) {
    case KEY_TEXT:
        out->type = VALUE_TEXT;
        out->u.s = part;
        return true;
    case KEY_INTEGER:
        out->type = VALUE_INT;
        return parse_decimal(part, &out->u.i);
    case KEY_BLOB:
        break;
    }
    uint8_t *data = arena_alloc(a, part.len / 2);
    out->type = VALUE_BLOB;
    out->u.s = (slice){(const char *)data, part.len / 2};
    return data && part.len % 2 == 0 && id_hex_decode(part, data, part.len / 2);
}

/* The key's values out of the entity id; false: the id does not fit the key. */
static bool read_key(decide_work *w, decide_input *in) {
    const schema_table *t = in->table;
    slice parts[KEY_COLUMNS_MAX];
    ASSERT(t->key_count > 0 && t->key_count <= KEY_COLUMNS_MAX);
    if (schema_id_parts(w->c->a, t, in->op->entity_id, parts) != GODWIT_OK) {
        return false;
    }
    in->keys = ARENA_ARRAY(w->c->a, value, t->key_count);
    for (size_t i = 0; in->keys && i < t->key_count; i++) {
        if (!key_value(w->c->a, t->key_kinds[i], parts[i], &in->keys[i])) {
            return false;
        }
    }
    return in->keys != NULL;
}

static const value *key_of_column(const decide_input *in, int column) {
    for (size_t i = 0; i < in->table->key_count; i++) {
        if (in->table->key[i] == column) {
            return &in->keys[i];
        }
    }
    ASSERT(!"a key column is among the key's columns");
    return NULL;
}

static bool value_names_scope(const value *v, slice scope) {
    int64_t number;
    switch ((value_type)v->type) {
    case VALUE_TEXT:
        return slice_equal(v->u.s, scope);
    case VALUE_INT:
        return parse_decimal(scope, &number) && number == v->u.i;
    case VALUE_NULL:
    case VALUE_REAL:
    case VALUE_BLOB:
    case VALUE_SPECIAL:
        break;
    }
    return false;
}

/* {"$inc":n} and the like are for counters and sets only; a new row gets what they amount to. */
static bool fits_type(decide_work *w, const decide_input *in, const schema_column *column,
                      value *v) {
    value first;
    if (column->is_key || !commute_always(column->policy)) {
        return v->type != VALUE_SPECIAL;
    }
    if (commute_first(w->c->a, column->policy, v, &first) == COMMUTE_BAD) {
        return false;
    }
    *v = in->op->kind == OP_CREATE ? first : *v;
    return true;
}

static void read_column(decide_work *w, decide_input *in, int column, const json *node) {
    const schema_table *t = in->table;
    const schema_column *meta = &t->columns[column];
    value v;
    if (meta->local) {
        return;
    }
    if (value_from_json(w->c->a, node, &v) != GODWIT_OK || !fits_type(w, in, meta, &v)) {
        decide_end_named(w, in, CODE_INVALID_VALUE, "not a value for column", meta->name);
    } else if (column == t->scope_column && !value_names_scope(&v, w->c->scope)) {
        decide_end_named(w, in, CODE_FORBIDDEN, "another scope is named by column", meta->name);
    } else if (meta->is_key) {
        if (!value_equal(&v, key_of_column(in, column))) {
            decide_end_named(w, in, CODE_INVALID_VALUE, "entityId disagrees with column",
                             meta->name);
        }
    } else {
        in->columns[in->count] = column;
        in->values[in->count++] = v;
    }
}

/* A table with a scope column has it filled on every row, whether or not the creator said it. */
static void fill_scope(decide_work *w, decide_input *in) {
    int column = in->table->scope_column;
    if (column < 0 || in->table->columns[column].is_key || in->table->columns[column].local) {
        return;
    }
    for (size_t i = 0; i < in->count; i++) {
        if (in->columns[i] == column) {
            return;
        }
    }
    in->columns[in->count] = column;
    in->values[in->count].type = VALUE_TEXT;
    in->values[in->count++].u.s = w->c->scope;
}

static void read_payload(decide_work *w, decide_input *in) {
    const json *payload = in->op->payload_node;
    const schema_table *t = in->table;
    size_t members = payload ? payload->count : 0;
    if (in->op->payload.len > ROW_BYTES_MAX) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_TOO_LARGE,
                   "the payload is over the limit of a row");
        return;
    }
    if (members > t->column_count) {
        members = t->column_count; /* one of them is unknown, and found below */
    }
    in->columns = ARENA_ARRAY(w->c->a, int, members + 1);
    in->values = ARENA_ARRAY(w->c->a, value, members + 1);
    if (!in->columns || !in->values) {
        return;
    }
    ASSERT(!payload || json_is(payload, JSON_OBJECT));
    const json *key = payload ? json_first(payload) : NULL;
    size_t expected = 0; /* payloads mostly come in the order of the columns */
    for (uint32_t i = 0; payload && i < payload->count && !w->ended; i++) {
        const json *node = key + 1;
        bool hit = expected < t->column_count && slice_equal(t->columns[expected].name, key->u.s);
        int column = hit ? (int)expected : schema_column_index(t, key->u.s);
        if (column < 0 && schema_column_dropped(t, key->u.s)) {
            key = json_after(node);
            continue;
        }
        if (column < 0) {
            decide_end_named(w, in, CODE_UNKNOWN_COLUMN, "there is no column", key->u.s);
            return;
        }
        bool own_name = hit || slice_equal(t->columns[column].name, key->u.s);
        if (own_name ||
            schema_value(payload, &t->columns[column]) == node) { /* the newest counts */
            read_column(w, in, column, node);
        }
        expected = (size_t)column + 1;
        key = json_after(node);
    }
    if (in->op->kind == OP_CREATE) {
        fill_scope(w, in);
    }
}

static void read_time(decide_work *w, decide_input *in) {
    if (w->device.len == 0) {
        in->at_ms = w->c->now_ms;
        return;
    }
    in->at_ms = clock_corrected_ms(in->op->wall_ms, w->skew_ms, w->c->now_ms, w->last_at_ms);
    w->last_at_ms = in->at_ms;
}

static void read_input(decide_work *w, decide_input *in) {
    const wire_op *op = in->op;
    if (op->untranslated) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_INVALID_VALUE, op->untranslated);
        return;
    }
    if (op->kind == OP_NONE) {
        decide_end(w, in, OUTCOME_REJECTED, CODE_UNKNOWN_OPERATION,
                   "the operation must be create, update or delete");
        return;
    }
    in->table = find_table(w->c, op->entity_type);
    if (!in->table) {
        decide_end_named(w, in, CODE_UNKNOWN_ENTITY, "there is no table", op->entity_type);
        return;
    }
    if (in->table->scope.len > 0 && !slice_equal(in->table->scope, w->c->scope)) {
        decide_end_named(w, in, CODE_FORBIDDEN, "another scope owns table", in->table->name);
        return;
    }
    if (!read_key(w, in)) {
        decide_end_named(w, in, CODE_INVALID_VALUE, "entityId does not fit the key of table",
                         in->table->name);
        return;
    }
    if (op->kind != OP_DELETE) {
        read_payload(w, in);
    }
    in->eff_base = decide_effective_base(w->c, op);
    read_time(w, in);
    if (!w->ended) {
        in->row = decide_row_of(w->c, in->table, op->entity_id);
    }
}

void decide_read_inputs(decide_work *w, const wire_op *ops) {
    for (size_t i = 0; i < w->count && !w->ended && !w->c->a->failed; i++) {
        w->inputs[i].op = &ops[i];
        read_input(w, &w->inputs[i]);
    }
}
