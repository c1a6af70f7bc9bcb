/* The registry: what tables are synced and how. Pure data; one per server, one per device database.
 *
 * Tables and their arrays live in the arena given at building time and are not changed afterwards:
 * a new registry replaces the old one as a whole. */
#ifndef CORE_SCHEMA_H
#define CORE_SCHEMA_H

#include "core/json.h"

typedef enum { KEY_TEXT, KEY_INTEGER, KEY_BLOB } key_kind;
typedef enum {
    POLICY_LWW,
    POLICY_SERVER_WINS,
    POLICY_CLIENT_WINS,
    POLICY_MANUAL,
    POLICY_MAX,
    POLICY_MIN,
    POLICY_COUNTER,
    POLICY_SET,
    POLICY_HOLD,  /* as manual, and nothing of the whole group is applied */
    POLICY_CUSTOM /* a hook decides: schema_column.rule */
} merge_policy;
typedef enum { DELETE_EDIT_WINS, DELETE_DELETE_WINS } delete_policy;
typedef enum { INITIAL_KEEP_SERVER, INITIAL_KEEP_DEVICE, INITIAL_MANUAL, INITIAL_NEWEST } initial_policy;

typedef struct {
    slice name;
    slice type;          /* declared SQLite type name, may be empty */
    merge_policy policy;
    slice rule;          /* POLICY_CUSTOM: which one, may be empty */
    int group;           /* columns with the same group > 0 are decided as one unit; 0 = alone */
    bool is_key;
    bool not_null;       /* declared NOT NULL (and no default) */
    bool any_type;       /* the database types it more finely: devices may declare what they like */
    bool local;          /* maintained by the server itself (deleted_column ..): devices may not write it */
    const slice *former; /* names it had: older operations and applications use them, former_count */
    size_t former_count;
} schema_column;

/* How a value of operations written under an older schema is made from what they say. */
typedef struct {
    int64_t version;     /* for operations of schemas below this one */
    int column;          /* that gets the value */
    slice sql;           /* an expression; its inputs are parameters, :NAME for each column */
    const slice *inputs; /* their names, input_count of them */
    size_t input_count;
} schema_upcast;

typedef struct {
    slice table;         /* referenced */
    const int *columns;  /* indexes into the table's columns, count of them */
    const slice *ref_columns;
    size_t count;
    slice on_delete;     /* "CASCADE", "SET NULL", "NO ACTION", ... */
} schema_fk;

typedef struct {
    slice name;
    slice entity;        /* entityType on the wire: alias or the name */
    schema_column *columns; /* key columns included, in declaration order */
    size_t column_count;
    int key[16];         /* indexes into columns, in key order */
    key_kind key_kinds[16];
    size_t key_count;
    schema_fk *fks;
    size_t fk_count;
    slice scope;         /* constant scope of all rows; empty = the pusher's request scope */
    int scope_column;    /* index, or -1 */
    delete_policy on_conflicting_delete;
    initial_policy initial;
    int initial_column;  /* for INITIAL_NEWEST, else -1 */
    bool row_atomic;
    bool validate;       /* a hook sees each operation first */
    const slice *dropped; /* names of columns that are no more: their values are passed over */
    size_t dropped_count;
    const schema_upcast *upcasts; /* by version, then as written */
    size_t upcast_count;
    int deleted_column;  /* index or -1: soft delete, the row stays in the typed table */
    int created_by_device_column, updated_at_column, vector_clock_column; /* index or -1 */
    int number;          /* position in the registry, stable for its life */
} schema_table;

typedef struct {
    schema_table *tables;
    size_t table_count;
    int64_t version;     /* grows with every change of the registry */
} schema;

/* NULL when unknown. Finds by entity alias first, then by table name. */
const schema_table *schema_find(const schema *s, slice entity);
/* Column by its name, else by a former one, -1 when absent. Names compare by bytes. */
int schema_column_index(const schema_table *t, slice name);
bool schema_column_dropped(const schema_table *t, slice name);
/* The value of a column in an object of columns, under its name or else a former one; NULL. */
const json *schema_value(const json *columns, const schema_column *column);

/* "counter", "set", "max", "min": column types, which devices are told so that they can show waiting
 * operations as they will be merged. NULL for policies that are only the server's business. */
const char *schema_policy_type(merge_policy policy);
/* The opposite; POLICY_LWW for every other name. */
merge_policy schema_policy_of_type(slice name);

/* SQLite's affinity rules applied to a declared key type: contains INT -> INTEGER, contains BLOB ->
 * BLOB, else TEXT. */
key_kind schema_key_kind(slice declared_type);
/* false: columns of this type hold numbers that are no INTEGERs (REAL, NUMERIC, DECIMAL): as text such
 * a key is not one text, so it can't be a key. */
bool schema_key_fits(slice declared_type);

/* entityId <-> key values (semantics 13.1). Single TEXT key: the text as it is; INTEGER decimal; BLOB
 * lower-case hex; composite: JSON array of those as strings, no spaces. */
/* Parses `id` into texts of the key_count parts (into a). INVALID when it does not fit the key (not
 * a canonical decimal, odd hex, wrong count). */
godwit_status schema_id_parts(arena *a, const schema_table *t, slice id, slice parts[16]) MUST_USE;
/* The opposite: parts in text form -> id. */
void schema_id_write(bytes *b, const slice *parts, size_t count);

/* Reads a declaration: the `tables` array of POST /v1/devices. Builds into `a` with default policies.
 * INVALID or LIMIT: *reason (constant or arena text) says what and where. */
godwit_status schema_from_json(arena *a, const json *tables, schema *out, const char **reason) MUST_USE;
/* Writes the declaration form of one table: {name, primaryKey, columns, foreignKeys}. A column is
 * {name, type} and, on the server, "merge" where it has a column type. */
void schema_table_to_json(bytes *b, const schema_table *t);

#endif
