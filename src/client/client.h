/* Shared insides of the client library: the handle, the registry, and what the modules offer each
 * other. Tables: schema.c. The database is written by capture's triggers, seal and settle (and by the
 * small set-up calls in api.c). */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "core/clock.h"
#include "core/id.h"
#include "core/round.h"
#include "core/schema.h"
#include "core/wire.h"
#include "db/db.h"
#include "godwit/godwit.h"

/* One tracked table (or an entity that is no table: `queue`). godwit_table.tbl is its number. */
typedef struct {
    int64_t tbl;
    schema_table shape;      /* name, entity, columns, key, fks, scope, scope_column */
    bool queue;              /* entity without a table: payload is in v0 of the log */
    bool active;             /* triggers wanted */
    int *data_columns;       /* indexes of the non-key columns: bit i of the mask and v{i}, o{i} */
    size_t data_count;
    slice spec;              /* the stored JSON */
    merge_policy *types;     /* [data_count] column types the server has told; NULL = none */
} client_table;

typedef struct {
    client_table *tables;
    size_t count;
    int64_t schema_cookie;   /* PRAGMA schema_version at load */
    int64_t app_schema;      /* PRAGMA user_version that operations sealed now were captured under */
    int64_t registry_version;/* godwit_meta 'registry_version' at load */
    schema_table *declared;  /* shapes of the active tables, for client_declaration */
    size_t declared_count;
    bool loaded;
    arena memory;
} client_registry;

#define BUSY_TIMEOUT_MS    5000

struct pump;
typedef struct runner runner;

struct godwit {
    db db;
    godwit_options options;
    const godwit_allocator *allocator;
    char message[512];
    client_registry registry;
    struct pump *pump;       /* created on first use by pump.c */
    bool in_call;
    runner *runner;   /* the background thread started on this handle, or NULL */
    /* asked during and between requests, on the handle's thread: not 0 = stop. NULL = never */
    int (*cancelled)(void *cancel_context);
    void *cancel_context;
    int64_t asked_ms;        /* mono: when the request that is out was begun; 0 = none is */
    int64_t clock_ahead_ms;  /* the server's clock less ours, as of the last answer that told it */
    int64_t round_trip_ms;   /* of the answer being taken, if it carried results; -1 = none */
};

/* api.c: message helper. Returns `status` so that `return fail(g, GODWIT_INVALID, "...")` reads well. */
godwit_status client_fail(godwit *g, godwit_status status, const char *format, ...) PRINTF_LIKE(3, 4);
/* For what is wrong before a call begins, an argument: sets the message, gives `status`. */
godwit_status client_refuse(godwit *g, godwit_status status, const char *text);
int64_t client_wall_ms(godwit *g);
int64_t client_mono_ms(godwit *g);
godwit_status client_entropy(godwit *g, void *buffer, size_t bytes) MUST_USE;
void client_log(godwit *g, godwit_log_level level, const char *format, ...) PRINTF_LIKE(3, 4);

/* api.c: settings in godwit_meta. client_meta_text gives ptr NULL when absent. */
godwit_status client_meta_text(godwit *g, arena *a, const char *key, slice *out) MUST_USE;
godwit_status client_meta_int(godwit *g, const char *key, int64_t fallback, int64_t *out) MUST_USE;
godwit_status client_meta_set(godwit *g, const char *key, slice text) MUST_USE;   /* ptr NULL deletes */
godwit_status client_meta_set_int(godwit *g, const char *key, int64_t v) MUST_USE;

/* api.c: every public function that uses the database runs between these two. client_enter refuses a
 * call from inside a call on the same handle (MISUSE), clears the message and brings the registry, the
 * triggers and the group marker up to date; client_leave hands `status` through, with a message when
 * none was set. Call client_leave only after client_enter succeeded. */
godwit_status client_enter(godwit *g) MUST_USE;
godwit_status client_leave(godwit *g, godwit_status status);

/* schema.c: creates or migrates Godwit's own tables and views. Does not write when all is there. */
godwit_status client_install(godwit *g) MUST_USE;
godwit_status client_views_install(godwit *g) MUST_USE;
godwit_status client_installed(godwit *g, bool *installed, bool *current) MUST_USE;

/* group.c: the group marker of this connection (semantics 5.2): registers the virtual table's module
 * and puts the TEMP trigger (back) where it is missing. Cheap when all is there. */
godwit_status group_ensure(godwit *g) MUST_USE;
/* The first lsn the open transaction could have captured, 0 when nothing was captured in it yet. */
godwit_status group_current(godwit *g, int64_t *first) MUST_USE;

/* registry.c: (re)loads godwit_table when it or the schema has changed, verifies that triggers exist and
 * fit the tables, puts missing ones back (not while a migration is open). Cheap when nothing changed. */
godwit_status client_registry_refresh(godwit *g) MUST_USE;
const client_table *client_table_by_number(const godwit *g, int64_t tbl);
const client_table *client_table_by_entity(const godwit *g, slice entity);
/* The declaration of all active tables, for POST /v1/devices. Borrowed until the next call. */
void client_declaration(const godwit *g, schema *out);

/* capture.c: SQL text of the triggers of one table. Where a table has a scope column, an update stores that
 * column's value in v{i} even though its bit in the mask is not set: sealing needs it. */
godwit_status capture_triggers_create(godwit *g, const client_table *t) MUST_USE;
godwit_status capture_triggers_drop(godwit *g, slice table_name) MUST_USE;
/* Makes godwit_log wide enough for the table. */
godwit_status capture_widen(godwit *g, const client_table *t) MUST_USE;

/* durable.c: checks and raises journal_mode and synchronous (architecture.md section 8). */
godwit_status durable_check(godwit *g) MUST_USE;

/* seal.c: turns captured rows (lsn > sealed_lsn) into operations, at most `limit` of them but whole
 * groups; one transaction (joins an open one). *more: captured rows remain. Creates identities as
 * needed (godwit_identity, one current per scope). */
godwit_status seal_run(godwit *g, int64_t limit, bool *more) MUST_USE;

/* settle.c: a larger cache and fewer checkpoints for work that touches pages all over. Only on a connection
 * of our own: an application has set its own as it wants it, and may have a hook where the checkpoint's
 * would go. */
void client_make_room(godwit *g);

/* settle.c: apply = undo, apply, replay, cursor and outcomes in one transaction. foreign_keys is off
 * meanwhile and restored. `cursor_before` guards against a stale answer: not equal = ignored. */
typedef struct {
    int64_t sent, applied, merged, rejected, conflicts, duplicates, received;
} settle_counts;
godwit_status settle_push(godwit *g, slice scope, const push_answer *answer, settle_counts *counts) MUST_USE;
godwit_status settle_pull(godwit *g, slice scope, slice cursor_before, const pull_answer *answer,
                          settle_counts *counts) MUST_USE;

/* Row digest for drift detection: over (column name, value) of the synced non-key columns, in the order
 * of data_columns. NULL values count like absent ones, so that adding a column changes nothing. image.c. */
int64_t client_row_digest(const client_table *t, const value *data_values);

/* image.c: the text form of a row's key (entityId on the wire; godwit_row.pk, godwit_base.pk,
 * godwit_conflict.pk and godwit_op.entity_id always hold this text) and its values back. INVALID: NULL,
 * or not of the key's class. `parts` has key_count items. */
godwit_status client_key_text(arena *a, const client_table *t, const value *parts, slice *out) MUST_USE;
godwit_status client_key_values(arena *a, const client_table *t, slice id, value parts[16]) MUST_USE;

/* rowkey.c: what godwit_op.row_hash holds; the index on it stands for one on (tbl, entity_id). */
uint64_t client_row_hash(int64_t tbl, slice id);

/* pump.c: the default scope, from godwit_meta or (and then stored) from the token's claims. NOT_FOUND when
 * neither tells. */
godwit_status client_scope(godwit *g, arena *a, slice *out) MUST_USE;
/* pump.c: gives back what syncing holds (lease, transport, outstanding request). For godwit_close. */
void pump_close(godwit *g);

#endif
