/* Counters of the device (view godwit_metrics), kept in the transactions that change what they count:
 * reading them costs the same whatever the queue's length.
 *
 *   op:STATE              sealed operations in a state other than retired
 *   failed                rejected or blocked, and nobody has decided about them yet
 *   decided               in conflict, and somebody has decided about them
 *   conflict:KIND:STATE   entries of the conflict ledger
 *   retry:CLASS           requests that failed and will be repeated, by what failed
 *   rekey, reconcile      changes of identity
 *   bytes:sent, bytes:received, requests
 *
 * What is captured and not sealed yet is counted without a counter, so that the application's write path
 * pays nothing: numbers of the log behind the sealed ones, less those that were never used (godwit_gap).
 * count_check recounts; tests call it after random work, the doctor on request.
 *
 * All run in the caller's transaction, on the handle's thread. */
#ifndef CLIENT_COUNT_H
#define CLIENT_COUNT_H

#include "client/client.h"

/* Adds n to a counter; nothing happens for 0. */
godwit_status count_add(godwit *g, const char *name, int64_t n) MUST_USE;
/* The same for many operations at once: change[s] = how many more are in state s now. */
godwit_status count_ops(godwit *g, const int64_t change[OP_STATE_COUNT]) MUST_USE;
/* One refused operation has been decided about by a person; state: the one it is in. */
godwit_status count_resolved(godwit *g, op_state state) MUST_USE;
/* Entries of the conflict ledger, by kind and state. */
godwit_status count_conflict(godwit *g, slice kind, slice state, int64_t n) MUST_USE;
/* Numbers first..last of the log will never be used, or no longer are. */
godwit_status count_gap(godwit *g, int64_t first, int64_t last) MUST_USE;
/* Moves an average of milliseconds (setting `key`) an eighth of the way to a new sample. */
godwit_status count_average(godwit *g, const char *key, int64_t sample_ms) MUST_USE;

/* Compares every counter with a recount. *wrong: how many differ; what (may be NULL): receives the first. */
godwit_status count_check(godwit *g, int64_t *wrong, char *what, size_t what_bytes) MUST_USE;
/* Sets every counter to a recount. */
godwit_status count_again(godwit *g) MUST_USE;

/* The views godwit_captured (one number), godwit_metrics, godwit_conflict_counts and
 * godwit_retry_counts. */
void count_captured_view(bytes *b, int64_t further_keys);
void count_metrics_view(bytes *b, int64_t further_keys);
void count_conflicts_view(bytes *b, int64_t further_keys);
void count_retries_view(bytes *b, int64_t further_keys);

/* SQL of the tables, filled from a database that has operations already: a step of schema.c. */
#define COUNT_TABLES                                                                               \
    "CREATE TABLE godwit_counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;"        \
    "CREATE TABLE godwit_gap (last INTEGER PRIMARY KEY, n INTEGER NOT NULL);"                       \
    "INSERT INTO godwit_gap SELECT last, gap FROM (SELECT max(lsn) AS last, max(lsn)"               \
    " - coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'sealed_lsn'), 0) -"         \
    " (SELECT count(*) FROM godwit_log WHERE lsn > coalesce((SELECT CAST(v AS INTEGER) FROM"        \
    " godwit_meta WHERE k = 'sealed_lsn'), 0)) AS gap FROM godwit_log) WHERE gap > 0 AND NOT"       \
    " EXISTS (SELECT 1 FROM godwit_initial);"                                                      \
    "INSERT INTO godwit_counter " COUNT_RECOUNT ";"
#define COUNT_RECOUNT                                                                              \
    "SELECT 'op:' || state AS name, count(*) AS n FROM godwit_op WHERE state <> 'retired' GROUP BY" \
    " state UNION ALL SELECT 'failed', count(*) FROM godwit_op AS o WHERE o.state <> 'retired' AND" \
    " o.state IN ('rejected', 'blocked') AND NOT EXISTS (SELECT 1 FROM godwit_outcome AS x WHERE"   \
    " x.lsn = o.lsn AND x.resolution IS NOT NULL) UNION ALL SELECT 'decided', count(*) FROM"         \
    " godwit_op AS o WHERE o.state <> 'retired' AND o.state = 'conflict' AND EXISTS (SELECT 1 FROM"  \
    " godwit_outcome AS x WHERE x.lsn = o.lsn AND x.resolution IS NOT NULL) "                      \
    "UNION ALL SELECT 'conflict:' || kind || ':' ||"   \
    " state, count(*) FROM godwit_conflict GROUP BY kind, state"

#endif
