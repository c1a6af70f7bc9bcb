/* Images of rows: made from JSON, changed by operations and back.
 *
 * Values are brought to the class SQLite would store them in, so that an image made from the wire
 * and the row read back compare equal; where that can't be said for sure the image is marked odd.
 */
#include "client/settle.h"
#include "core/commute.h"

#include <math.h>

godwit_status image_init(arena *a, const client_table *t, row_image *out) {
    memset(out, 0, sizeof *out);
    out->values = ARENA_ARRAY(a, value, t->data_count + 1);
    out->known = ARENA_ARRAY(a, bool, t->data_count + 1);
    return out->values && out->known ? GODWIT_OK : GODWIT_NOMEM;
}

godwit_status image_copy(arena *a, const client_table *t, const row_image *from, row_image *out) {
    godwit_status status = image_init(a, t, out);
    if (status == GODWIT_OK && from->values) {
        memcpy(out->values, from->values, t->data_count * sizeof *out->values);
        memcpy(out->known, from->known, t->data_count * sizeof *out->known);
        out->present = from->present;
        out->odd = from->odd;
    }
    return status;
}

bool image_complete(const client_table *t, const row_image *image) {
    for (size_t i = 0; i < t->data_count; i++) {
        if (!image->known[i]) {
            return false;
        }
    }
    return true;
}

bool image_equal(const client_table *t, const row_image *a, const row_image *b) {
    if (!a->present || !b->present) {
        return a->present == b->present;
    }
    for (size_t i = 0; i < t->data_count; i++) {
        if (a->known[i] && b->known[i] && !value_equal(&a->values[i], &b->values[i])) {
            return false;
        }
    }
    return true;
}

/* Whole REALs below this become INTEGERs in INTEGER and NUMERIC columns, exactly. */
#define WHOLE_MAX 2251799813685248.0

/* What SQLite's column affinity does to the value. false: better look after writing. */
static bool store_as(char affinity, value *v) {
    switch (affinity) {
    case 'B':
        return true;
    case 'T':
        return v->type != VALUE_INT && v->type != VALUE_REAL;
    case 'R':
        if (v->type == VALUE_INT && v->u.i > -(INT64_C(1) << 53) && v->u.i < INT64_C(1) << 53) {
            v->u.d = (double)v->u.i;
            v->type = VALUE_REAL;
        }
        return v->type != VALUE_TEXT && v->type != VALUE_INT;
    case 'I':
    case 'N':
        if (v->type == VALUE_REAL && fabs(v->u.d) < WHOLE_MAX && v->u.d == floor(v->u.d)) {
            v->u.i = (int64_t)v->u.d;
            v->type = VALUE_INT;
        }
        return v->type != VALUE_TEXT && (v->type != VALUE_REAL || fabs(v->u.d) < WHOLE_MAX);
    default:
        return false;
    }
}

/* {"$inc":n} over the present value. false: another column operation, which only the server can do.
 */
static bool column_operation(const json *node, const value *present, value *out) {
    int64_t n = 0;
    if (!json_int(json_get(node, "$inc"), &n)) {
        return false;
    }
    int64_t have = present->type == VALUE_INT ? present->u.i : 0;
    if (present->type != VALUE_INT && present->type != VALUE_NULL) {
        return false;
    }
    if ((n > 0 && have > INT64_MAX - n) || (n < 0 && have < INT64_MIN - n)) {
        return false;
    }
    out->type = VALUE_INT;
    out->u.i = have + n;
    return true;
}

static int column_at(const apply_table *table, slice name, size_t *next) {
    const schema_table *shape = &table->t->shape;
    /* members come in column order nearly always */
    for (size_t i = 0; i < shape->column_count; i++) {
        size_t at = *next + i < shape->column_count ? *next + i : *next + i - shape->column_count;
        if (slice_equal(shape->columns[at].name, name)) {
            *next = at + 1 < shape->column_count ? at + 1 : 0;
            return table->data_of[at];
        }
    }
    int renamed = schema_column_index(shape, name);
    return renamed < 0 ? -1 : table->data_of[renamed];
}

godwit_status image_set(arena *a, const apply_table *table, const json *columns, row_image *image) {
    if (!json_is(columns, JSON_OBJECT)) {
        return GODWIT_INVALID;
    }
    size_t next = 0;
    const json *name = json_first(columns);
    for (uint32_t i = 0; i < columns->count; i++, name = json_after(name + 1)) {
        value v;
        int at = column_at(table, name->u.s, &next);
        if (at < 0) {
            continue;
        }
        godwit_status status = value_from_json(a, name + 1, &v);
        if (status != GODWIT_OK) {
            return status;
        }
        if (v.type == VALUE_SPECIAL && !column_operation(v.u.node, &image->values[at], &v)) {
            continue;
        }
        if (v.type == VALUE_NULL) { /* the server's column may allow it where this one does not */
            v = table->fallback[at];
        }
        image->odd = !store_as(table->affinity[at], &v) || image->odd;
        image->values[at] = v;
        image->known[at] = true;
    }
    return GODWIT_OK;
}

static godwit_status set_text(arena *a, const apply_table *table, slice text, row_image *image) {
    const json *columns = NULL;
    godwit_status status = json_parse(a, text, &columns, NULL);
    return status == GODWIT_OK ? image_set(a, table, columns, image) : status;
}

/* A column of a type: what the operation changed, over the value that is there. */
static godwit_status replay_column(arena *a, const apply_table *table, size_t at, const json *node,
                                   const json *base, const value *present, row_image *image) {
    const client_table *t = table->t;
    const json *before = schema_value(base, &t->shape.columns[t->data_columns[at]]);
    value now, old, next;
    bool known = before && value_from_json(a, before, &old) == GODWIT_OK;
    if (value_from_json(a, node, &now) != GODWIT_OK) {
        return GODWIT_INVALID;
    }
    if (now.type != VALUE_SPECIAL) {
        now = image->values[at]; /* as the column's affinity has it */
    }
    if (known) {
        (void)store_as(table->affinity[at], &old);
    }
    switch (commute_replay(a, t->types[at], present, known ? &old : NULL, &now, &next)) {
    case COMMUTE_OK:
        image->odd = !store_as(table->affinity[at], &next) || image->odd;
        image->values[at] = next;
        image->known[at] = true;
        break;
    case COMMUTE_NOMEM:
        return GODWIT_NOMEM;
    case COMMUTE_PLAIN:
    case COMMUTE_BAD:
        break; /* as image_set left it */
    }
    return GODWIT_OK;
}

static godwit_status redo_update(arena *a, const apply_table *table, const overlay_op *op,
                                 row_image *image) {
    const client_table *t = table->t;
    const json *payload = NULL, *base = NULL;
    if (!t->types) {
        return set_text(a, table, op->payload, image);
    }
    value *before = ARENA_ARRAY(a, value, t->data_count);
    godwit_status status = before ? json_parse(a, op->payload, &payload, NULL) : GODWIT_NOMEM;
    if (status == GODWIT_OK && op->base.len) {
        status = json_parse(a, op->base, &base, NULL);
    }
    if (status == GODWIT_OK) {
        memcpy(before, image->values, t->data_count * sizeof *before);
        status = image_set(a, table, payload, image);
    }
    for (size_t i = 0; status == GODWIT_OK && i < t->data_count; i++) {
        const json *node = schema_value(payload, &t->shape.columns[t->data_columns[i]]);
        if (node && t->types[i] != POLICY_LWW) {
            status = replay_column(a, table, i, node, base, &before[i], image);
        }
    }
    return status;
}

static void forget_values(const client_table *t, row_image *image) {
    memset(image->values, 0, t->data_count * sizeof *image->values);
    memset(image->known, 0, t->data_count * sizeof *image->known);
}

godwit_status image_redo(arena *a, const apply_table *table, const overlay_op *op,
                         row_image *image) {
    switch (op->kind) {
    case OP_CREATE:
        if (!image->present) {
            forget_values(table->t, image);
        }
        image->present = true;
        return set_text(a, table, op->payload, image);
    case OP_UPDATE:
        return image->present ? redo_update(a, table, op, image) : GODWIT_OK;
    case OP_DELETE:
        image->present = false;
        return GODWIT_OK;
    case OP_NONE:
    case OP_VOID:
        break;
    }
    return GODWIT_OK;
}

/* An update that carries no old values (an own REPLACE) leaves columns nobody knows. */
static godwit_status undo_update(arena *a, const apply_table *table, const overlay_op *op,
                                 row_image *image) {
    const json *payload = NULL, *base = NULL;
    godwit_status status = json_parse(a, op->payload, &payload, NULL);
    if (status == GODWIT_OK) {
        status = json_parse(a, op->base, &base, NULL);
    }
    if (status != GODWIT_OK || !json_is(payload, JSON_OBJECT)) {
        return status;
    }
    size_t next = 0;
    const json *name = json_first(payload);
    for (uint32_t i = 0; i < payload->count; i++, name = json_after(name + 1)) {
        int at = column_at(table, name->u.s, &next);
        if (at >= 0 && !json_find(base, name->u.s)) {
            image->known[at] = false;
        }
    }
    return image_set(a, table, base, image);
}

godwit_status image_undo(arena *a, const apply_table *table, const overlay_op *op,
                         row_image *image) {
    switch (op->kind) {
    case OP_CREATE:
        image->present = false;
        return GODWIT_OK;
    case OP_UPDATE:
        return image->present ? undo_update(a, table, op, image) : GODWIT_OK;
    case OP_DELETE:
        forget_values(table->t, image);
        image->present = true;
        return set_text(a, table, op->base, image);
    case OP_NONE:
    case OP_VOID:
        break;
    }
    return GODWIT_OK;
}

void image_write_json(bytes *b, const client_table *t, const row_image *image) {
    bool first = true;
    bytes_char(b, '{');
    for (size_t i = 0; i < t->data_count; i++) {
        if (!image->known[i]) {
            continue;
        }
        value v = image->values[i];
        if (v.type == VALUE_TEXT && !json_utf8_valid(v.u.s)) {
            v.type = VALUE_BLOB;
        }
        json_comma(b, &first);
        json_write_text(b, t->shape.columns[t->data_columns[i]].name);
        bytes_char(b, ':');
        value_to_json(b, &v);
    }
    bytes_char(b, '}');
}
