/* Values on their way into typed columns and back.
 *
 * In: values become text and are cast to the column's own type by the database, so that each type's
 * own rules hold; only 64-bit numbers for columns of just that type go as they are. Out: what the
 * database writes becomes the value an SQLite device keeps: whole numbers INTEGER, floats REAL,
 * booleans 1 and 0, bytea BLOB, numerics a number where a REAL holds them exactly, timestamps in
 * ISO 8601 with a T, arrays as JSON, everything else text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/id.h"
#include "server/store_postgres.h"

#define REAL_DIGITS_EXACT 15 /* decimal digits that every double keeps */

pg_class pg_class_of(slice type_name, char category, char kind) {
    static const struct {
        const char *name;
        pg_class class;
    } names[] = {
        {"int2", PG_CLASS_INT},     {"int4", PG_CLASS_INT},        {"int8", PG_CLASS_INT},
        {"oid", PG_CLASS_INT},      {"float4", PG_CLASS_FLOAT},    {"float8", PG_CLASS_FLOAT},
        {"bool", PG_CLASS_BOOL},    {"numeric", PG_CLASS_NUMERIC}, {"text", PG_CLASS_TEXT},
        {"varchar", PG_CLASS_TEXT}, {"json", PG_CLASS_TEXT},       {"uuid", PG_CLASS_UUID},
        {"bytea", PG_CLASS_BYTEA},  {"timestamp", PG_CLASS_TIME},  {"timestamptz", PG_CLASS_TIME}};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (slice_is(type_name, names[i].name)) {
            return names[i].class;
        }
    }
    if (category == 'A') {
        return PG_CLASS_ARRAY;
    }
    return kind == 'e' ? PG_CLASS_TEXT : PG_CLASS_OTHER;
}

slice pg_device_type(pg_class class) {
    switch (class) {
    case PG_CLASS_INT:
        return SLICE("INTEGER");
    case PG_CLASS_FLOAT:
        return SLICE("REAL");
    case PG_CLASS_BOOL:
        return SLICE("BOOLEAN");
    case PG_CLASS_NUMERIC:
        return SLICE("NUMERIC");
    case PG_CLASS_BYTEA:
        return SLICE("BLOB");
    case PG_CLASS_TEXT:
    case PG_CLASS_UUID:
    case PG_CLASS_TIME:
    case PG_CLASS_ARRAY:
    case PG_CLASS_OTHER:
        break;
    }
    return SLICE("TEXT");
}

/* ---- in ---- */

static bool whole(double d) {
    return d >= -9223372036854775808.0 && d < 9223372036854775808.0 && d == floor(d);
}

static void write_real(const pg_column *column, double d, bytes *b) {
    bool number = column->class == PG_CLASS_INT || column->class == PG_CLASS_NUMERIC ||
                  column->class == PG_CLASS_BOOL;
    if (isfinite(d) && number && whole(d)) {
        bytes_int(b, (int64_t)d);
    } else if (isfinite(d)) {
        json_write_real(b, d);
    } else {
        bytes_text(b, isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity");
    }
}

static void write_bytes(slice s, bytes *b) {
    bytes_text(b, "\\x");
    bytes_hex(b, s.ptr, s.len);
}

godwit_status pg_value_write(const pg_column *column, const value *v, bytes *b, bool *null) {
    *null = v->type == VALUE_NULL;
    switch ((value_type)v->type) {
    case VALUE_NULL:
        return GODWIT_OK;
    case VALUE_INT:
        bytes_int(b, v->u.i);
        return GODWIT_OK;
    case VALUE_REAL:
        if (isnan(v->u.d) && column->class != PG_CLASS_FLOAT) {
            *null = true; /* as SQLite stores it */
        }
        write_real(column, v->u.d, b);
        return GODWIT_OK;
    case VALUE_TEXT:
        if (column->class == PG_CLASS_BYTEA) {
            write_bytes(v->u.s, b);
            return GODWIT_OK;
        }
        if (v->u.s.len && memchr(v->u.s.ptr, '\0', v->u.s.len)) {
            return GODWIT_INVALID; /* no type of the database holds it */
        }
        bytes_slice(b, v->u.s);
        return GODWIT_OK;
    case VALUE_BLOB:
        if (column->class != PG_CLASS_BYTEA) {
            return GODWIT_INVALID;
        }
        write_bytes(v->u.s, b);
        return GODWIT_OK;
    case VALUE_SPECIAL:
        break;
    }
    return GODWIT_INVALID;
}

bool pg_uuid_canonical(slice s) {
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (dash ? c != '-' : !hex) {
            return false;
        }
    }
    return s.len == 36;
}

bool pg_value_exact(const pg_column *column, const value *v) {
    if (v->type == VALUE_NULL) {
        return true;
    }
    switch (column->class) {
    case PG_CLASS_INT:
        return v->type == VALUE_INT;
    case PG_CLASS_FLOAT:
        return v->type == VALUE_REAL && !column->limited &&
               slice_is(column->sql_type, "double precision");
    case PG_CLASS_BOOL:
        return v->type == VALUE_INT && (v->u.i == 0 || v->u.i == 1);
    case PG_CLASS_NUMERIC:
        return v->type == VALUE_INT && !column->limited;
    case PG_CLASS_TEXT:
        return v->type == VALUE_TEXT;
    case PG_CLASS_UUID:
        return v->type == VALUE_TEXT && pg_uuid_canonical(v->u.s);
    case PG_CLASS_BYTEA:
        return v->type == VALUE_BLOB;
    case PG_CLASS_TIME:
    case PG_CLASS_ARRAY:
    case PG_CLASS_OTHER:
        break;
    }
    return false;
}

/* ---- in, many ---- */

/* The value of a column the server maintains itself, in the column's own terms. */
static slice local_text(const store *st, slice now, const pg_table *info, const pg_change *p,
                        size_t column) {
    const schema_table *t = info->table;
    const pg_group *group = &st->groups[p->group];
    bool flag = info->columns[column].class == PG_CLASS_BOOL;
    int at = (int)column;
    if (at == t->updated_at_column) {
        return now;
    }
    if (at == t->vector_clock_column) {
        return p->change->clock_json;
    }
    if (at == t->created_by_device_column) {
        return group->author.device_id.len ? group->author.device_id : (slice){0};
    }
    ASSERT(at == t->deleted_column);
    if (p->change->is_delete) {
        return flag ? SLICE("true") : now;
    }
    return flag ? SLICE("false") : (slice){0};
}

/* Numbers that the column holds as they are need not become text and a number again. */
static unsigned item_type(const pg_table *info, const pg_change **changes, size_t count,
                          size_t column) {
    const pg_column *c = &info->columns[column];
    bool whole = slice_is(c->sql_type, "bigint");
    if (info->table->columns[column].local ||
        !(whole || slice_is(c->sql_type, "double precision"))) {
        return PG_OID_TEXT;
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t type = changes[i]->values[column].type;
        if (type != VALUE_NULL && type != (whole ? VALUE_INT : VALUE_REAL)) {
            return PG_OID_TEXT;
        }
    }
    return whole ? PG_OID_INT8 : PG_OID_FLOAT8;
}

static godwit_status text_item(store *st, const pg_column *column, const value *v) {
    bool null = false;
    bytes_clear(&st->json);
    if (pg_value_write(column, v, &st->json, &null) != GODWIT_OK) {
        return GODWIT_INVALID;
    }
    pg_item(&st->link, null ? (slice){0} : st->json.len ? bytes_view(&st->json) : SLICE(""));
    return GODWIT_OK;
}

godwit_status pg_column_array(store *st, slice now, const pg_table *info, const pg_change **changes,
                              size_t count, size_t column) {
    pg_link *l = &st->link;
    unsigned type = item_type(info, changes, count, column);
    godwit_status status = GODWIT_OK;
    pg_array(l, type, count);
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        const pg_change *p = changes[i];
        const value *v = &p->values[column];
        if (info->table->columns[column].local) {
            pg_item(l, local_text(st, now, info, p, column));
        } else if (type == PG_OID_TEXT) {
            status = text_item(st, &info->columns[column], v);
        } else if (v->type == VALUE_NULL) {
            pg_item(l, (slice){0});
        } else if (type == PG_OID_INT8) {
            pg_item_int(l, v->u.i);
        } else {
            pg_item_real(l, v->u.d);
        }
    }
    return status == GODWIT_OK && st->json.failed ? GODWIT_NOMEM : status;
}

/* ---- out ---- */

/* "12.50" -> REAL 12.5, "7.00" -> INTEGER 7, what no REAL holds exactly -> TEXT. The text ends with
 * a NUL. */
static void read_numeric(slice s, value *out) {
    size_t digits = 0;
    bool plain = s.len > 0;
    const char *point = memchr(s.ptr, '.', s.len);
    while (point && s.len && s.ptr[s.len - 1] == '0') {
        s.len--;
    }
    if (point && s.len && s.ptr[s.len - 1] == '.') {
        s.len--;
        point = NULL;
    }
    for (size_t i = 0; i < s.len; i++) {
        digits += s.ptr[i] >= '0' && s.ptr[i] <= '9';
        plain =
            plain && ((s.ptr[i] >= '0' && s.ptr[i] <= '9') || s.ptr[i] == '.' || s.ptr[i] == '-');
    }
    *out = (value){.type = VALUE_TEXT, .u.s = s};
    if (plain && !point && digits <= 18) {
        *out = (value){.type = VALUE_INT, .u.i = strtoll(s.ptr, NULL, 10)};
    } else if (plain && digits <= REAL_DIGITS_EXACT) {
        *out = (value){.type = VALUE_REAL, .u.d = strtod(s.ptr, NULL)};
    }
}

/* "2026-01-02 03:04:05+00" -> "2026-01-02T03:04:05+00:00"; dates outside the years 1 to 9999 and
 * the infinities stay as they are. */
static godwit_status read_time(slice s, arena *a, value *out) {
    *out = (value){.type = VALUE_TEXT, .u.s = s};
    if (s.len < 19 || s.ptr[10] != ' ' || s.ptr[s.len - 1] == 'C') {
        return GODWIT_OK;
    }
    bool zone = s.len >= 22 && (s.ptr[s.len - 3] == '+' || s.ptr[s.len - 3] == '-');
    char *text = arena_alloc(a, s.len + 4);
    if (!text) {
        return GODWIT_NOMEM;
    }
    memcpy(text, s.ptr, s.len);
    text[10] = 'T';
    memcpy(text + s.len, zone ? ":00" : "", zone ? 3 : 0);
    out->u.s = (slice){text, s.len + (zone ? 3 : 0)};
    return GODWIT_OK;
}

static godwit_status read_bytea(slice s, arena *a, value *out) {
    size_t len = s.len >= 2 ? (s.len - 2) / 2 : 0;
    uint8_t *data = arena_alloc(a, len);
    if (!data || !id_hex_decode((slice){s.ptr + 2, s.len - 2}, data, len)) {
        return data ? GODWIT_CORRUPT : GODWIT_NOMEM;
    }
    *out = (value){.type = VALUE_BLOB, .u.s = {(const char *)data, len}};
    return GODWIT_OK;
}

godwit_status pg_value_read(const pg_column *column, const PGresult *r, int row, int field,
                            arena *a, value *out) {
    slice s = pg_field(r, row, field);
    *out = (value){.type = VALUE_NULL};
    if (!s.ptr) {
        return GODWIT_OK;
    }
    switch (column->class) {
    case PG_CLASS_INT:
        *out = (value){.type = VALUE_INT, .u.i = strtoll(s.ptr, NULL, 10)};
        return GODWIT_OK;
    case PG_CLASS_FLOAT:
        *out = (value){.type = VALUE_REAL, .u.d = strtod(s.ptr, NULL)};
        return GODWIT_OK;
    case PG_CLASS_BOOL:
        *out = (value){.type = VALUE_INT, .u.i = s.len && s.ptr[0] == 't'};
        return GODWIT_OK;
    case PG_CLASS_BYTEA:
        return read_bytea(s, a, out);
    case PG_CLASS_TIME:
        if (read_time(s, a, out) != GODWIT_OK) {
            return GODWIT_NOMEM;
        }
        break;
    case PG_CLASS_NUMERIC:
        read_numeric(s, out);
        break;
    case PG_CLASS_TEXT:
    case PG_CLASS_UUID:
    case PG_CLASS_ARRAY:
    case PG_CLASS_OTHER:
        *out = (value){.type = VALUE_TEXT, .u.s = s};
        break;
    }
    if (out->type == VALUE_TEXT && out->u.s.ptr == s.ptr) {
        out->u.s = arena_copy(a, out->u.s);
        return out->u.s.ptr ? GODWIT_OK : GODWIT_NOMEM;
    }
    return GODWIT_OK;
}
