/* The server's registry: the typed tables of the store, with what the configuration says about
 * them.
 *
 * Sections of a configuration file, one per table; list items are separated by commas:
 *
 *   [table pins]
 *   entity = pin                       name on the wire; default: the table's name
 *   scope = shared                     all rows belong to this scope
 *   scope_column = project_id          the column's value is the scope (not together with scope)
 *   columns = id, title, lat, lng      only these are synced; default: all
 *   policy = lww                       for all columns: lww server_wins client_wins manual max min
 *   policy.title = manual              for one column
 *   policy.note = custom:lines         a hook decides, by its rule "lines" (godwit/hook.h)
 *   validate = yes                     a hook sees the table's operations first
 *   groups = lat+lng, starts+ends      columns decided as one unit
 *   row_atomic = yes                   the whole row is one unit
 *   on_conflicting_delete = edit_wins  or delete_wins
 *   initial = keep_server              keep_device, manual, newest:COLUMN
 *   former.name = title, caption       names the column had: older operations and apps use them
 *   dropped = colour                   columns that are no more: their values are passed over
 *   upcast.3.height_mm = :height_cm*10 for operations of schemas below 3: an SQL expression
 *   deleted_column = deleted_at        deleted rows stay, with the time in this column
 *   created_by_device_column = made_by
 *   updated_at_column = updated_at     time of the last change the server made
 *   vector_clock_column = vector_clock default: the column of that name, if there is one
 *
 * A registry is never changed: a new one takes its place, old ones live until the service closes.
 */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include "server/store.h"

typedef struct registry_config registry_config;

typedef struct registry {
    arena memory;
    schema schema;
    store_tables *tables;
    const schema_table **order; /* parents before children, table_count of them */
    slice tables_json;          /* declarations of all tables: [{..},..] */
    char names[17];             /* changes with the former names of columns; "" = there are none */
    struct registry *older;     /* the service's list */
} registry;

/* path NULL gives an empty configuration. message: at least 512 bytes. */
godwit_status registry_config_load(const char *path, registry_config **out, char *message) MUST_USE;
/* What the tables want of hooks. */
void registry_config_hooks(const registry_config *config, bool *validate, bool *resolve);
void registry_config_free(registry_config *config);
/* complete: sections for tables that are not there are refused; with --dev they wait. */
/* Columns of the store that have a former name of the configuration get the present one. */
godwit_status registry_rename(store *st, const registry_config *config, char *message) MUST_USE;
godwit_status registry_build(store *st, const registry_config *config, bool complete,
                             registry **out, char *message) MUST_USE;
void registry_free(registry *r);

#endif
