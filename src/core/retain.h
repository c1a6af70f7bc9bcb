/* How long a server keeps what it no longer needs to answer everybody: the rules, pure.
 *
 *   commit 1 ........ ledger_floor ........ horizon ........ head
 *            nothing |  salt, key, outcome | everything: values, results, tombstones
 *
 * The log below the horizon is no longer served: a cursor there is answered with 410 and its device
 * starts from a snapshot, keeping its queue. Below the ledger's floor an operation can no longer be
 * told from a new one. Neither mark ever moves back. */
#ifndef CORE_RETAIN_H
#define CORE_RETAIN_H

#include "core/base.h"

#define RETAIN_FOREVER INT64_MAX

/* Ages in ms, RETAIN_FOREVER = no end. */
typedef struct {
    int64_t log_ms;       /* the log is kept this long, and for devices seen in this time */
    int64_t log_max_ms;   /* .. but not longer than this; at least log_ms */
    int64_t log_commits;  /* the newest commits stay, whatever their age */
    int64_t ledger_ms;    /* keys, outcomes, salts; at least log_ms */
    int64_t conflicts_ms; /* decided conflicts; open ones stay */
    int64_t device_ms;    /* a device silent for longer is retired */
} retain_policy;

extern const retain_policy retain_default;

/* One scope. */
typedef struct {
    int64_t head, horizon, ledger_floor;
    int64_t
        pulled_seq; /* lowest position among the active devices seen within log_ms; head = none */
} retain_scope;

/* The newest commit that may leave the log. aged, expired: the newest commit older than log_ms,
 * log_max_ms. */
int64_t retain_horizon(const retain_policy *policy, const retain_scope *scope, int64_t aged,
                       int64_t expired);
/* The newest commit whose ledger may go. aged: the newest commit older than ledger_ms. The commit
 * at the horizon stays: its salt proves the oldest cursor there is. */
int64_t retain_ledger_floor(const retain_scope *scope, int64_t aged);
/* now_ms - age_ms; with RETAIN_FOREVER a time before everything. */
int64_t retain_before(int64_t now_ms, int64_t age_ms);
/* A length of time as settings have it: a number and ms, s, m, h or d, at most 3,650,000 of them, or
 * "forever". false: it is none. */
bool retain_time_parse(const char *text, int64_t *out);

#endif
