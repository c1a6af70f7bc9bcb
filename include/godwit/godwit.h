/* Godwit client: offline-first sync for SQLite. This header is the specification.
 *
 * The application keeps writing its own tables. Tracked tables get triggers that append every change
 * to a queue in the same transaction. `godwit_sync` (or `godwit_next`/`godwit_feed` for hosts with
 * their own HTTP) delivers the queue exactly once and applies what others changed.
 *
 * Threads: one handle is used by one thread at a time. Handles on different connections of one
 * database, in one or several processes, may be used at once: a lease row makes their syncs take
 * turns. Only godwit_start starts a thread.
 *
 * Strings are NUL-terminated UTF-8 and borrowed until return unless said otherwise. On failure every
 * output is zero and `godwit_message` says what happened and what to do. */
#ifndef GODWIT_GODWIT_H
#define GODWIT_GODWIT_H

#include <stddef.h>
#include <stdint.h>

#include "godwit/host.h"
#include "godwit/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define GODWIT_API __attribute__((visibility("default")))
#define GODWIT_MUST_USE __attribute__((warn_unused_result))
#else
#define GODWIT_API
#define GODWIT_MUST_USE
#endif

struct sqlite3;
typedef struct godwit godwit;

GODWIT_API const char *godwit_version(void); /* "0.1.0" */
GODWIT_API const char *godwit_status_name(godwit_status status); /* "UNREACHABLE" */
GODWIT_API const char *godwit_status_text(godwit_status status);
GODWIT_API godwit_class godwit_status_class(godwit_status status);

/* ---- Opening ---- */

/* zero = default. */
typedef struct {
    godwit_host host;          /* copied */
    int busy_timeout_ms;       /* own connections only; default 5000 */
    int accept_weak_durability;/* 1: do not raise journal_mode/synchronous, only report (tests) */
    char *error;               /* receives why opening failed, NUL-terminated; "" when it did not */
    size_t error_bytes;        /* of `error`; 256 are enough */
} godwit_options;

/* Opens or creates the SQLite database at `path` with a connection of its own, installs or upgrades
 * Godwit's tables, raises durability to WAL + FULL. BUSY, READONLY, CORRUPT, FULL, IO, UNSUPPORTED
 * (file of a newer Godwit; SQLite older than 3.38), NOT_DURABLE. *out: transferred, godwit_close. */
GODWIT_API godwit_status godwit_open(const char *path, const godwit_options *options,
                                     godwit **out) GODWIT_MUST_USE;
/* The same over the application's connection, which must outlive the handle and is used only inside
 * calls. MISUSE inside an open transaction. */
GODWIT_API godwit_status godwit_attach(struct sqlite3 *connection, const godwit_options *options,
                                       godwit **out) GODWIT_MUST_USE;
/* Ends the background thread, if one runs, and frees the handle. NULL is fine. MISUSE, and nothing is done,
 * inside a callback: of a call that runs on this handle, or on its background thread. */
GODWIT_API godwit_status godwit_close(godwit *g);
/* Text of the last failure on this handle, never NULL, valid until the next call. `g` may be NULL
 * (failure to open): then a general text; options.error has the specific one. */
GODWIT_API const char *godwit_message(const godwit *g);
GODWIT_API struct sqlite3 *godwit_connection(godwit *g); /* borrowed */

/* ---- Setting up (no network) ---- */

typedef struct {
    const char *url;        /* "https://host[:port]"; required the first time */
    const char *scope;      /* default scope; NULL = the token's first scope */
    const char *token;      /* bearer token; NULL = keep, or token_file */
    const char *token_file; /* read before each round; only its path is stored */
    const char *label;      /* shown to operators, e.g. "Ana's phone" */
    /* How long the past is kept on the device: a number and s, m, h or d, or "forever". */
    const char *keep_archive; /* operations that are done, for a server restored from a backup: must
                                 exceed the age of its backups; default "14d". Their outcomes stay as
                                 long as history */
    const char *keep_history; /* decided conflicts, outcomes, refused operations that have been dealt
                                 with; what waits for a person stays; default "90d" */
    const char *ca_file;      /* PEM file of the authorities that the server's certificate is checked
                                 against; "" = the system's again. Only its path is stored */
} godwit_settings;
/* Stores settings; may be called again to change them. INVALID names the setting. */
GODWIT_API godwit_status godwit_init(godwit *g, const godwit_settings *settings) GODWIT_MUST_USE;

/* Tracks a table, or renews its triggers after the table was altered (idempotent). options_json: NULL or
 * an object with any of "initial": "upload" (default: existing rows are queued as creates) | "ignore";
 * "ids": "app" (required for INTEGER PRIMARY KEY: the application makes ids unique across devices);
 * "scope": name; "scopeColumn": column; "entity": name on the wire; "columns": [..] (default: all but
 * generated ones). NOT_FOUND, INVALID, UNSUPPORTED (no primary key, more than 252 columns). */
GODWIT_API godwit_status godwit_track(godwit *g, const char *table,
                                      const char *options_json) GODWIT_MUST_USE;
/* Drops the triggers. Operations already captured are still delivered. */
GODWIT_API godwit_status godwit_untrack(godwit *g, const char *table) GODWIT_MUST_USE;
/* Around the application's own schema migration: step "begin" removes the triggers, "end" puts them
 * back for the tables as they are now (changes made in between are found by comparing row digests and
 * queued). May be called inside a transaction. */
GODWIT_API godwit_status godwit_migrate(godwit *g, const char *step) GODWIT_MUST_USE;

/* ---- Queue ---- */

typedef struct {
    const char *const *depends_on; /* ids of operations */
    size_t depends_on_count;
    const char *client_key;        /* the application's own name for this operation, unique if given */
} godwit_enqueue_options;
/* The requirements' enqueue. operation: "create" | "update" | "delete". On a tracked table: finds the
 * operation the change has already captured and names it (adding dependencies, key); NOT_FOUND when
 * there is none. On an entity that is no table: queues the payload (a JSON object) as it is, in the
 * caller's transaction if one is open. EXISTS: client_key is taken (the id is then still given).
 * id: at least 37 bytes, receives the operation's id. */
GODWIT_API godwit_status godwit_enqueue(godwit *g, const char *operation, const char *entity_type,
                                        const char *entity_id, const char *payload,
                                        const godwit_enqueue_options *options,
                                        char id[37]) GODWIT_MUST_USE;

/* A transaction: changes that belong together (the requirements' SyncTransaction). begin opens a transaction
 * of SQLite on the handle's connection; besides godwit_add any SQL on that connection belongs to it. commit
 * never waits for the network and asks nobody. What was committed together is one unit everywhere: the
 * server applies all of it or nothing; where it refuses, all of it is taken back here with whatever depends
 * on it, and waits as dead letters; where its answer is not known, nothing is undone. (Every transaction of
 * the application is such a unit, also one made without these calls.)
 * begin: BUSY; MISUSE where a transaction is open. commit, rollback: MISUSE where none is. After a commit
 * that failed (BUSY, FULL, IO) the transaction is still open: commit again, or roll back. */
GODWIT_API godwit_status godwit_begin(godwit *g) GODWIT_MUST_USE;
/* Makes one change in the open transaction: writes the row of a tracked table, or queues the payload of an
 * entity that is no table. payload: a JSON object of columns (key columns in it are passed over; NULL for a
 * delete). A failure leaves what was added before. id: 37 bytes or NULL, receives the operation's id; ""
 * where the row had every value already and nothing is queued. NOT_FOUND (update or delete of a row that is
 * not there), CONSTRAINT (the table refuses), INVALID, EXISTS, MISUSE (no transaction is open). */
GODWIT_API godwit_status godwit_add(godwit *g, const char *operation, const char *entity_type,
                                    const char *entity_id, const char *payload,
                                    const godwit_enqueue_options *options,
                                    char id[37]) GODWIT_MUST_USE;
GODWIT_API godwit_status godwit_commit(godwit *g) GODWIT_MUST_USE;
GODWIT_API godwit_status godwit_rollback(godwit *g) GODWIT_MUST_USE;

/* Operations that were refused (states rejected, blocked, conflict; view godwit_dead_letters) wait for a
 * person. Their changes were taken back here, their content is kept. None of these calls needs the
 * network; none may be made inside an open transaction.
 *
 * Making a change again gives a new operation that supersedes the refused one. With the operation that
 * is named go: what was refused with it (a transaction comes back as one transaction, in its old order,
 * without what was discarded), and whatever was held back only because of it. NOT_FOUND (no such
 * operation), MISUSE (it was not refused, or has been dealt with; it depends on another refused one, or
 * inside a transaction), INVALID, CONSTRAINT (the application's table refuses the change, or its row would
 * point to one that is gone). new_id: 37 bytes or NULL. */
GODWIT_API godwit_status godwit_retry(godwit *g, const char *id, char new_id[37]) GODWIT_MUST_USE;
/* The same with a new payload: a JSON object that replaces the whole payload. */
GODWIT_API godwit_status godwit_edit(godwit *g, const char *id, const char *payload,
                                     char new_id[37]) GODWIT_MUST_USE;
typedef struct {
    const char *id;
    const char *payload; /* NULL = as it was */
} godwit_repair;
/* Called after the local commit for each operation concerned, those that were drawn in included. new_id ""
 * where its transaction could not be made again: status and message say why. Texts are borrowed. */
typedef void (*godwit_repair_fn)(void *context, const char *id, const char *new_id,
                                 godwit_status status, const char *message);
/* Retries and edits many at once. Each refused transaction stands or falls alone; the first failure of
 * one that was named is returned, and nothing but that one (and what depends on it) stays behind. An
 * id that can't be repaired at all changes nothing. repairs NULL, count 0: everything that waits. report
 * may be NULL. */
GODWIT_API godwit_status godwit_repair_many(godwit *g, const godwit_repair *repairs, size_t count,
                                            godwit_repair_fn report, void *context) GODWIT_MUST_USE;
/* Gives refused operations up; their content stays in godwit_outcome with the reason (at most 2,000
 * bytes, or NULL). All or none. What depends on them stays where it is. */
GODWIT_API godwit_status godwit_discard(godwit *g, const char *id, const char *reason) GODWIT_MUST_USE;
GODWIT_API godwit_status godwit_discard_many(godwit *g, const char *const *ids, size_t count,
                                             const char *reason) GODWIT_MUST_USE;
/* What is not done, one JSON object per call of `line` (no newline at its end; borrowed; anything but 0
 * ends it): waiting operations and refused ones, or only the latter, in the order they were made, with
 * payload and base. Where no scope is known yet the newest have no payload. */
typedef int (*godwit_line_fn)(void *context, const char *line, size_t line_bytes);
GODWIT_API godwit_status godwit_export(godwit *g, int failed_only, godwit_line_fn line,
                                       void *context) GODWIT_MUST_USE;

/* What became of an operation (view godwit_receipts, which also has what replaced the values that lost).
 * It survives restarts. */
typedef struct {
    int decided;            /* 0: outcome is "pending" */
    char outcome[16];       /* applied, merged, noop, duplicate, rejected, conflict, superseded */
    char code[32];          /* why, of rejected and conflict; else "" */
    char detail[256];       /* the same for people */
    char resolution[16];    /* retried, edited, discarded, resolved: what a person did about it; else "" */
    char superseded_by[37]; /* id of the operation that took its place, or "" */
    int64_t commit_seq;     /* the server's commit, 0 = none or not known */
} godwit_receipt;
/* NOT_FOUND. */
GODWIT_API godwit_status godwit_get_receipt(godwit *g, const char *id,
                                            godwit_receipt *out) GODWIT_MUST_USE;
/* Waits until the server has decided the operation, whoever delivers it: syncs on this handle, or looks
 * while another one does. OK: decided, also where it was refused. TIMEOUT: it stays queued, nothing is
 * undone. timeout_ms <= 0: 60 s. NOT_FOUND, MISUSE (inside a transaction; beside a statement of the
 * connection that still reads), and what no waiting mends: UNAUTHENTICATED, FORBIDDEN, IDENTITY,
 * UNSUPPORTED. out may be NULL. */
GODWIT_API godwit_status godwit_wait(godwit *g, const char *id, int64_t timeout_ms,
                                     godwit_receipt *out) GODWIT_MUST_USE;

/* Events (host.h) for hosts without a callback, which read the view godwit_events: on = 1 keeps them from
 * now on (host.on_event does that by itself), 0 no longer; done forgets them up to and with `seq`, never
 * those that are yet to come. */
GODWIT_API const char *godwit_event_name(godwit_event_kind kind); /* "outcome" */
GODWIT_API godwit_status godwit_events_keep(godwit *g, int on) GODWIT_MUST_USE;
GODWIT_API godwit_status godwit_events_done(godwit *g, int64_t seq) GODWIT_MUST_USE;

/* Decides a conflict of the ledger (view godwit_conflicts, state open or auto). choice: "mine" = the values
 * of the operation that met the conflict (`ours` of the record), whichever device it came from; "theirs" =
 * what the server had then (`theirs`; where the record has none, the row as it is); or a JSON object of
 * column -> value, {} = the row as it is. Where a side had deleted the row, choosing it deletes the row;
 * where a side has the whole row and it is gone, choosing it inserts it.
 * Writes the application's table like the application would, in its transaction if one is open, and queues
 * one operation that says all chosen columns and closes the conflict, also where nothing changes; the
 * ledgers of all devices say resolved once the server has applied it. new_id: 37 bytes or NULL, receives
 * the operation's id. conflict_id: the whole id or without its random end, "scope/id" where several
 * scopes have that one. NOT_FOUND (no such conflict; row or table gone), MISUSE (resolved already),
 * INVALID, CONSTRAINT (the table refuses). */
GODWIT_API godwit_status godwit_resolve(godwit *g, const char *conflict_id, const char *choice,
                                        char new_id[37]) GODWIT_MUST_USE;
/* Takes back what a policy decided (state auto): the side that lost becomes the row's state again, as
 * an ordinary operation; the ledgers of all devices then say reverted. What lost may be values, a
 * deletion (the row is deleted), a deleted row (it is inserted again), or an operation that a
 * constraint refused (it is tried again). NOT_FOUND, CONSTRAINT, new_id as for godwit_resolve. MISUSE:
 * the entry waits for a decision or was decided by a person already, or the row has been changed since. */
GODWIT_API godwit_status godwit_revert(godwit *g, const char *conflict_id,
                                       char new_id[37]) GODWIT_MUST_USE;

/* ---- Syncing ---- */

typedef struct {
    int64_t sent;      /* operations the server answered */
    int64_t applied, merged, rejected, conflicts, duplicates; /* of those; noop counts as applied */
    int64_t received;  /* changes applied from others */
    int64_t pending;   /* operations still not decided */
    int64_t requests;
} godwit_sync_report;
/* Runs rounds for every scope until nothing sendable is pending and the feed's head is reached, or a
 * round fails. Ignores next_attempt_at. Blocks; no database transaction is open during a request.
 * timeout_ms <= 0: 60 s. UNREACHABLE, OVERLOADED, TIMEOUT, UNAUTHENTICATED, FORBIDDEN, PROTOCOL,
 * IDENTITY, BUSY (another process is syncing), MISUSE (inside a transaction, no url, no transport).
 * The queue is intact whatever is returned. report may be NULL. */
GODWIT_API godwit_status godwit_sync(godwit *g, int64_t timeout_ms,
                                     godwit_sync_report *report) GODWIT_MUST_USE;

/* For hosts with their own HTTP. godwit_next gives a JSON text: a request to perform
 * {"id":7,"method":"POST","path":"/v1/sync","headers":{..},"body":"..","timeoutMs":30000}, a wait
 * {"waitMs":2000}, or NULL in *json when there is nothing to do. Honours next_attempt_at. At most one
 * request is out at a time; asking again before godwit_feed repeats it. *json: valid until the next
 * call on the handle. */
GODWIT_API godwit_status godwit_next(godwit *g, const char **json) GODWIT_MUST_USE;
/* Hands in the answer. status 0: transport failure, body = reason text. headers_json: object or NULL.
 * An id that is not the one outstanding is ignored (OK). */
GODWIT_API godwit_status godwit_feed(godwit *g, int64_t id, int status, const char *headers_json,
                                     const char *body, size_t body_bytes) GODWIT_MUST_USE;
/* The network came back or is another one, or the application came to the foreground: forget what was
 * waited for. The next attempt is due at once, by chance within a second and not before a second after the
 * last one; failures then count from the beginning. Wakes the background thread of this handle: its kept
 * connections are closed, and a request that has been out for more than a second (longer when it happens
 * again) is given up and begun anew, since it may hang on a network that is gone. */
GODWIT_API godwit_status godwit_notify_network(godwit *g) GODWIT_MUST_USE;

/* ---- In the background ---- */

/* zero = default. */
typedef struct {
    int64_t interval_ms; /* between passes when nothing else happens; default 60000 */
    int64_t local_ms;    /* how often to look whether another connection has committed; default 250 */
    int wait_seconds;    /* how long to let the server hold a request until something is new, at most 25;
                            default 25, with a host's own exchange -1 = never: it must ask `cancelled` */
    /* After each pass, on the background thread; must not call godwit_stop. report and message: borrowed. */
    void (*on_pass)(void *context, godwit_status status, const godwit_sync_report *report,
                    const char *message);
    void *context;
} godwit_run_options;
/* Starts a thread that syncs: at once, after commits of other connections that have something to send, when
 * the server has something new, every interval, and after failures when backoff says. It has a connection
 * of its own to the same file: the handle's is not touched, and has no hook taken. Everything in
 * options.host must bear being called from two threads. OK when it runs already (its options stay).
 * UNSUPPORTED: no file (":memory:"), a VFS of the host's own, a SQLite without threads. What is wrong with
 * the settings or the server comes with on_pass. After godwit_init the thread uses the new settings. */
GODWIT_API godwit_status godwit_start(godwit *g, const godwit_run_options *options) GODWIT_MUST_USE;
/* Ends the thread and waits until it has: a request in flight is given up (its operations go again), a
 * transaction is finished. Nothing happens when none runs; godwit_close does the same. Both are MISUSE on
 * the thread itself (in a callback). Call it before the process ends. */
GODWIT_API godwit_status godwit_stop(godwit *g);
GODWIT_API int godwit_running(const godwit *g); /* 1 between godwit_start and godwit_stop */

/* ---- Looking ---- */

/* The requirements' SyncMetrics, also the view godwit_metrics. Kept as counters: reading them costs the
 * same whatever the queue's length. Times are ms since 1970 UTC, 0 = never. */
typedef struct {
    int64_t queue_length;       /* operations captured and not retired */
    int64_t pending_operations; /* waiting or in flight */
    int64_t failed_operations;  /* rejected or blocked, unresolved */
    int64_t conflicts_detected; /* entries of the ledger on this device; by kind and state: the view
                                   godwit_conflict_counts */
    int64_t last_successful_sync_ms; /* of a pass that sent and fetched everything */
    int64_t oldest_pending_age_ms;   /* the one to raise an alarm on; 0 = nothing is pending */
    int64_t feed_lag;           /* head seen - cursor */
    int64_t avg_sync_latency_ms;/* from a change to its commit on the server, by the server's clock; an
                                   average that moves an eighth of the way to each new value; -1 = none yet */
    int64_t ack_round_trip_ms;  /* from sending operations to the answer, averaged likewise; -1 = none yet */
    int64_t conflicts_open;     /* of the conflicts: they wait for a person */
    int64_t retries;            /* requests that failed and were put off, ever; by class: the view
                                   godwit_retry_counts */
    int64_t failures;           /* of them in a row now; 0 = the last request succeeded */
} godwit_metrics;
GODWIT_API godwit_status godwit_get_metrics(godwit *g, godwit_metrics *out) GODWIT_MUST_USE;

typedef void (*godwit_finding_fn)(void *context, const char *code, const char *text, int fixable);
/* Checks for uncaptured drift, missing triggers, weak settings, stuck states; reports each finding.
 * fix = 1 repairs what is safe. *findings = how many remain. */
GODWIT_API godwit_status godwit_doctor(godwit *g, int fix, godwit_finding_fn report, void *context,
                                       int64_t *findings) GODWIT_MUST_USE;

/* Vector clocks as JSON. *order: "equal", "before", "after", "concurrent". INVALID for malformed text. */
GODWIT_API godwit_status godwit_clock_compare(const char *a, const char *b,
                                              const char **order) GODWIT_MUST_USE;
/* *merged: transferred, free with godwit_free. */
GODWIT_API godwit_status godwit_clock_merge(const char *a, const char *b, char **merged) GODWIT_MUST_USE;
GODWIT_API void godwit_free(void *block);

#ifdef __cplusplus
}
#endif
#endif
