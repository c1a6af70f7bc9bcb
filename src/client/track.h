/* Insides of tracking, shared by registry.c (what is tracked), shape.c (what the tables look like),
 * capture.c (triggers), track.c, initial.c, migrate.c, gained.c and drift.c. */
#ifndef CLIENT_TRACK_H
#define CLIENT_TRACK_H

#include "client/client.h"

/* api.c: what godwit_open and godwit_attach do; on failure `message` says why. */
godwit_status client_create(struct sqlite3 *connection, const char *path,
                            const godwit_options *options, char *message, size_t message_bytes,
                            godwit **out) MUST_USE;

/* api.c: puts the group marker on a connection and raises its durability, without a handle.
 * Failures are left for the first call to report. */
void client_arrive(struct sqlite3 *connection);
/* api.c: godwit_close for a connection that is being destroyed: runs no SQL. NULL is fine. */
void client_abandon(godwit *g);

/* How a table is tracked; zero = default. Lives in the arena it was read into. */
typedef struct {
    slice entity;       /* empty = the table's name */
    slice scope;        /* empty = the default scope */
    slice scope_column; /* empty = none */
    bool app_ids;       /* the application makes unique INTEGER PRIMARY KEYs */
    bool ignore;        /* rows that were there before are not uploaded */
    const slice *columns;
    size_t column_count; /* 0 = all */
    bool lenient;        /* a name in `columns` may be missing from the table */
} track_options;

/* shape.c: reads the table as it is now. `slots`: names of the data columns in the order of earlier
 * masks, kept where they still exist; new columns follow. *out lives in `a` (out->tbl, active, spec
 * are the caller's). NOT_FOUND: no such table; UNSUPPORTED, INVALID with a message. */
godwit_status shape_read(godwit *g, arena *a, slice name, const track_options *options,
                         const slice *slots, size_t slot_count, client_table *out) MUST_USE;
/* godwit_table.spec of a table read by shape_read. ptr NULL: out of memory. */
slice shape_spec(arena *a, const client_table *t, const track_options *options) MUST_USE;
/* The opposite. CORRUPT when it can't be read. */
godwit_status shape_from_spec(godwit *g, arena *a, slice name, slice spec, client_table *out,
                              track_options *options) MUST_USE;
/* godwit_track's options_json (NULL = defaults). INVALID with a message. */
godwit_status shape_options(godwit *g, arena *a, const char *text, track_options *out) MUST_USE;
/* "name" IN the table's data columns; -1 when not. */
int shape_slot(const client_table *t, slice name);

/* A UNIQUE index besides the primary key (or the primary key where it compares other than by
 * bytes). */
typedef struct {
    slice columns[64], collations[64];
    size_t count;
    slice where; /* text of a partial index's condition, or empty */
} shape_unique;
/* shape.c: those through which a REPLACE can remove rows. Indexes on expressions are left out. */
godwit_status shape_uniques(godwit *g, arena *a, const client_table *t, shape_unique **out,
                            size_t *count) MUST_USE;
/* true: the key is the rowid, which SQLite chooses where the application gives none. */
godwit_status shape_rowid_key(godwit *g, const client_table *t, bool *out) MUST_USE;

/* capture.c: writes one CREATE TRIGGER per item of `out` (at most CAPTURE_TRIGGERS, ended by len
 * 0). */
#define CAPTURE_TRIGGERS 7
godwit_status capture_texts(godwit *g, arena *a, const client_table *t,
                            slice out[CAPTURE_TRIGGERS + 1]) MUST_USE;
/* Whether the database has exactly these triggers, and after the application's own: SQLite runs the
 * newest trigger first, and a change must be logged before what other triggers make of it. */
godwit_status capture_intact(godwit *g, const client_table *t, bool *intact) MUST_USE;
/* SQL pieces for other writers of the log. Columns: "pk, k1.." and their values from `row`. */
void capture_key_columns(bytes *b, const client_table *t);
void capture_key_values(bytes *b, const client_table *t, const char *row);
/* "v0, v1.." or "o0, o1.." */
void capture_data_columns(bytes *b, const client_table *t, char letter);
/* (a."c" IS NOT b."c" COLLATE BINARY): exact, storage class included. */
void capture_differs(bytes *b, const schema_column *c, const char *a, const char *z);
/* a."key" is b."key", by index and exactly. */
void capture_same_key(bytes *b, const client_table *t, const char *a, const char *z);

/* column_type.c: takes the column types out of a registration's answer (`tables`, NULL = not told), and
 * puts those that are known into a registry that is being loaded. */
godwit_status column_types_learn(godwit *g, const json *tables) MUST_USE;
godwit_status column_types_apply(godwit *g, client_registry *r) MUST_USE;

/* former.c: names that columns have had, as the server has told them; see column_type.c. */
godwit_status former_learn(godwit *g, const json *tables) MUST_USE;
godwit_status former_apply(godwit *g, client_registry *r) MUST_USE;

/* track.c: seals what has been captured with the columns and the version it was captured with. Inside
 * a transaction. */
godwit_status track_seal_first(godwit *g) MUST_USE;

/* registry.c */
/* What is captured from now on is of the version that PRAGMA user_version says now. */
godwit_status registry_version_taken(godwit *g) MUST_USE;
godwit_status registry_load(godwit *g) MUST_USE;
/* Marks the registry changed (for other connections) and loads it anew. */
godwit_status registry_changed(godwit *g) MUST_USE;
/* Remembers under the meta key what `write` makes of the tables of a registration's answer;
 * a change renews the registry. A list that is none or too long is left alone: an older server
 * does not say. */
godwit_status registry_learn(godwit *g, const char *key, const json *tables,
                             void (*write)(bytes *b, const json *tables)) MUST_USE;
const client_table *registry_by_name(const godwit *g, slice name);
/* track.c: brings spec, log and triggers of a table in line with the table as it is now. *found
 * false: the table is gone, nothing is changed. Inside a transaction of the caller. */
godwit_status track_renew(godwit *g, const client_table *t, bool *found) MUST_USE;
/* track.c: if the table is gone, its rows are no longer known: should it come back they are fetched, and
 * none of them counts as deleted. name borrowed. */
godwit_status track_forget_gone(godwit *g, slice name, int64_t tbl) MUST_USE;
/* track.c: tables that ALTER TABLE has renamed are tracked under their new names; for the server they
 * stay the same entity. */
godwit_status track_follow(godwit *g) MUST_USE;
/* Whether renewing would change anything. */
godwit_status track_fits(godwit *g, const client_table *t, bool *fits) MUST_USE;

/* gained.c: notes that the table has columns it did not have. What they hold beside their default is
 * queued by gained_queue, when the server has said which of them it knows by another name. */
godwit_status gained_note(godwit *g, arena *a, const client_table *was,
                          const client_table *now) MUST_USE;
/* A migration ends: keeps for gained_queue what it made of the values of columns that went, in those that
 * came, should they be the same. before[before_count]: the data columns of `copy` ("main.name"). */
godwit_status gained_keep(godwit *g, arena *a, const schema_column *before, size_t before_count,
                          const client_table *t, slice copy) MUST_USE;
godwit_status gained_queue(godwit *g) MUST_USE;
/* Whether this is, or was, the column's name. */
bool gained_named(const schema_column *column, slice name);

/* track.c: the meta key under which settling notes that changes of a table were passed over,
 * because the table is gone. When it is back, everything is fetched anew. */
#define TRACK_MISSED_BYTES 32
void track_missed_key(const client_table *t, char out[TRACK_MISSED_BYTES]);

/* initial.c: existing rows as creates. Start inside the transaction that tracks the table. */
godwit_status initial_start(godwit *g, const client_table *t) MUST_USE;
/* Goes on with what is unfinished, in transactions of its own. Nothing inside an open transaction.
 */
godwit_status initial_finish(godwit *g) MUST_USE;

/* drift.c: differences between the table and what the engine believes. */
typedef struct {
    int64_t unknown, changed, missing;
} drift_counts;
/* queue: true writes a create, update or delete for each. Inside a transaction of the caller. */
godwit_status drift_scan(godwit *g, const client_table *t, bool queue, drift_counts *out) MUST_USE;
/* Takes back changes captured after lsn `after`, in this transaction, of rows that neither server
 * nor queue know: a change of theirs would be refused, and drift_scan could not tell them apart any
 * more. */
godwit_status drift_forget_unknown(godwit *g, const client_table *t, int64_t after) MUST_USE;
/* Takes the rows as they are as the truth after the set of columns changed. */
godwit_status drift_redigest(godwit *g, const client_table *t, const client_table *before) MUST_USE;

#endif
