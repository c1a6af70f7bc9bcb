/* Insides of syncing: pump.c (the pass over scopes and rounds), request.c (what to send), answer.c
 * (what came back), lease.c (one syncing process at a time), token.c (who we are), sync.c (the
 * public calls). */
#ifndef CLIENT_PUMP_H
#define CLIENT_PUMP_H

#include "client/bootstrap.h"
#include "client/count.h"
#include "transport/transport.h"

#define REQUEST_TIMEOUT_MS     30000
#define LEASE_MAX_MS           (2 * REQUEST_TIMEOUT_MS) /* ahead of the clock */
#define SNAPSHOT_FIRST_COMMITS 10000 /* a new replica this far behind starts from a snapshot */
#define SEAL_PORTION           20000 /* operations sealed per transaction */

typedef enum { PUMP_REQUEST, PUMP_WAIT, PUMP_DONE } pump_kind;

typedef struct {
    round_phase phase; /* ROUND_IDLE = nothing is out */
    int64_t id;
    const char *method;
    bytes path, body;
    slice scope;
    bytes cursor;                /* cursor or snapshot token it was asked with */
    int64_t first_seq, last_seq; /* operations it carries; 0 = none */
    bool push_only;              /* does not ask for the feed */
    char declaration[65];        /* registration: hash of what is declared */
    int64_t made_mono_ms, made_wall_ms;
} pump_request;

typedef struct pump {
    arena memory; /* of the pass: scopes */
    slice *scopes;
    size_t scope_count, scope_at;
    bool active; /* a pass is under way */
    round_state round;
    bool round_kept; /* something of it is stored for the next round */
    godwit_status failure; /* first scope that stopped, and why */
    char reason[512];
    char unpushed[256]; /* about a scope that may only be read; empty = none */
    pump_request request;
    int64_t last_id;
    int64_t wait_until_ms; /* wall; 0 = none */
    int64_t lease_until;   /* as stored: the proof that the lease is ours; 0 = not held */
    bool lease_started;    /* capture of the process's start time has been tried */
    int64_t process_start;
    struct reconciliation *reconciliation; /* under way, or NULL: reconcile.c */
    transport *transport;
    bytes json; /* what godwit_next gave out */
    godwit_sync_report report;
    int64_t requests, sent_bytes, received_bytes; /* not yet in the counters */
} pump;

godwit_status pump_of(godwit *g, pump **out) MUST_USE;
/* What to do next. PUMP_REQUEST: p->request is to be performed, then pump_answer. PUMP_WAIT: the
 * pass is over, *status says what failed, p->wait_until_ms until when to wait. PUMP_DONE: *status
 * of the pass. */
pump_kind pump_step(godwit *g, pump *p, godwit_status *status);
/* Takes the answer to p->request. */
godwit_status pump_answer(godwit *g, pump *p, const godwit_http_answer *answer) MUST_USE;
void pump_abandon(godwit *g, pump *p); /* the pass, not the queue */
/* pump_note.c: what went wrong is over; both sides agree, and what it took. */
godwit_status pump_forget_failures(godwit *g, pump *p) MUST_USE;
godwit_status pump_note_success(godwit *g, pump *p) MUST_USE;
/* Closes the connections that are kept; between requests only. */
void pump_disconnect(godwit *g);

/* sync.c: rounds until there is nothing left to do, a failure, or the time is over. Does not wait
 * for next_attempt_at; p->wait_until_ms says until when a failure asks to wait. */
godwit_status sync_run(godwit *g, pump *p, int64_t timeout_ms) MUST_USE;

/* ---- request.c ---- */
godwit_status request_register(godwit *g, pump *p) MUST_USE;
godwit_status request_sync(godwit *g, pump *p, int max_ops) MUST_USE;
godwit_status request_snapshot(godwit *g, pump *p) MUST_USE;
/* Hash of what would be registered. */
godwit_status request_declaration(godwit *g, slice scope, char hex[65], bytes *text) MUST_USE;
/* First operation the server has not decided; lsn INT64_MAX = none. */
godwit_status request_first_lsn(godwit *g, slice scope, int64_t *lsn) MUST_USE;

/* ---- answer.c ---- */
/* Settles a 2xx answer. INVALID: it can't be understood. *kind: part of it was refused. */
godwit_status answer_take(godwit *g, pump *p, slice body, bool *more,
                          round_problem *problem) MUST_USE;
/* Stores what failed and until when to wait. */
godwit_status answer_blame(godwit *g, pump *p, int http, round_problem kind, slice type,
                           slice detail) MUST_USE;

/* ---- quarantine.c ---- */
/* Gives up the first group that waits to be sent: it keeps its place as voids. */
godwit_status quarantine_first(godwit *g, slice scope) MUST_USE;

/* ---- sync.c ---- */
/* How HTTP is done: the host's way or the built-in one. */
typedef struct {
    void *context;
    void (*exchange)(void *context, const godwit_http_request *request, godwit_http_answer *answer);
} sync_way;
typedef struct {
    sync_way way;
    slice url; /* of the server, without a slash at the end */
    const char *method, *path;
    slice body;
    int64_t timeout_ms;
} sync_call;
godwit_status sync_way_of(godwit *g, pump *p, sync_way *out) MUST_USE;
/* Whether syncing can begin, and the server's url. */
godwit_status sync_check(godwit *g, slice *url, arena *a) MUST_USE;
/* One exchange with token and headers. answer->body is the caller's to free. CANCELLED: given up,
 * there is no answer. */
godwit_status sync_exchange(godwit *g, const sync_call *call, godwit_http_answer *answer) MUST_USE;
bool sync_cancelled(godwit *g);

/* ---- request.c ---- */
/* Appends a query parameter's value, escaped. */
void request_percent(bytes *b, slice s);

/* ---- lease.c ---- */
/* BUSY: another handle, here or in another process, is syncing. Held until `until_ms` at most. */
godwit_status lease_take(godwit *g, pump *p, int64_t until_ms) MUST_USE;
void lease_release(godwit *g, pump *p);

/* ---- token.c ---- */
/* The bearer token, from the settings or read anew from its file. ptr NULL = none is set. */
godwit_status token_read(godwit *g, arena *a, slice *out) MUST_USE;
/* The token's "sub"; ptr NULL = no token at hand, or one whose claims can't be read. */
godwit_status token_user(godwit *g, arena *a, slice *out) MUST_USE;
/* Fails with the reason why no scope is known. */
godwit_status token_no_scope(godwit *g) MUST_USE;

/* tidy.c: deletes some of the operations that have long been retired; after a sync. */
godwit_status client_tidy(godwit *g) MUST_USE;

#endif
