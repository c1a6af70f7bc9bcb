/* What the data side of the server has done, as Prometheus text.
 *
 * Labels are from closed lists, or names of the registry's tables, of which at most STATS_ENTITIES
 * are told apart: no client can make more of them. What a transaction has decided is tallied beside
 * it and counted when it is committed. Threads: stats_tally_* the writer's; the rest any. */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H

#include "core/limits.h"
#include "core/op.h"
#include "server/prom.h"

#define STATS_ENTITIES 64 /* the others are counted as "other" */
#define STATS_KINDS    16 /* of conflicts */
#define STATS_OUTCOMES (OUTCOME_DUPLICATE + 2)
#define STATS_RESENT   (OUTCOME_DUPLICATE + 1) /* its place in the stream was decided before */

typedef enum { STEP_BEGIN, STEP_DECIDE, STEP_COMMIT, STEP_READ, STEP_TIDY, STEP_COUNT } stats_step;

/* Of one transaction. */
typedef struct {
    int64_t operations[STATS_ENTITIES + 1][STATS_OUTCOMES];
    int64_t codes[CODE_COUNT];
    int64_t conflicts[STATS_KINDS][2]; /* decided by a policy; open */
    int64_t groups, decided, resolved;
} stats_tally;

/* Devices by what they reported last, as of the last walk through all of them. */
#define STATS_AGES   6
#define STATS_QUEUES 5
typedef struct {
    int64_t queues[STATS_QUEUES], ages[STATS_AGES], seen[STATS_AGES];
    int64_t pending, failed, oldest_ms;
} stats_fleet;

typedef struct {
    char entities[STATS_ENTITIES][NAME_BYTES_MAX + 1];
    _Atomic size_t entity_count; /* names before it do not change any more */
    _Atomic uint64_t operations[STATS_ENTITIES + 1][STATS_OUTCOMES];
    _Atomic uint64_t codes[CODE_COUNT];
    _Atomic uint64_t conflicts[STATS_KINDS][2];
    _Atomic uint64_t resolved;
    prom_histogram groups, decided; /* per database transaction */
    prom_histogram steps[STEP_COUNT];
    _Atomic uint64_t hooks[2]; /* questions: failed, answered */
    _Atomic uint64_t failures; /* transactions that were undone */
    stats_tally tally;         /* the writer's */
    _Atomic int64_t fleet[sizeof(stats_fleet) / sizeof(int64_t)];
} stats;

void stats_tally_reset(stats *s);
/* entity: the name of a table of the registry, empty = of none. */
void stats_tally_operation(stats *s, slice entity, int outcome, op_code code);
void stats_tally_conflict(stats *s, slice kind, bool open);
/* The transaction is committed. */
void stats_tally_count(stats *s);
void stats_step_took(stats *s, stats_step step, int64_t micros);

/* A hook was asked. Any thread. */
void stats_hook(stats *s, bool answered);

/* Adds one device to a walk; now_ms and seen_ms by the same clock. */
void stats_fleet_add(stats_fleet *f, int64_t pending, int64_t failed, int64_t oldest_ms,
                     int64_t silent_ms);
void stats_fleet_publish(stats *s, const stats_fleet *f);

void stats_write(const stats *s, bytes *b);

#endif
