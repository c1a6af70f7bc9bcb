/* Who may come in: limits per address, per user (of the token) and per device, over limiter.h.
 *
 * Everything is asked before the work it is about: an address before its token is checked, a user
 * before the body is read, a device before the database is touched. What is refused costs nobody
 * anything: 429 with Retry-After, which clients take as a wait and not as a failure.
 *
 * Keys in the tables are hashes under a secret made at start, so that nobody can aim at another's
 * place. Threads: any. */
#ifndef SERVER_GATE_H
#define SERVER_GATE_H

#include "server/address.h"
#include "server/limiter.h"
#include "server/metrics.h"

typedef enum { GATE_ADDRESS, GATE_USER, GATE_DEVICE, GATE_COUNT } gate_kind;

#define GATE_COST_REQUEST   1
#define GATE_COST_HANDSHAKE 10 /* of TLS: about what a thousand lookups cost */
#define GATE_COST_BAD_TOKEN 10 /* so that guessing is slow */

typedef struct {
    allowance limits[GATE_COUNT];
    network_list unlimited; /* addresses that have no limit of their own */
    network_list proxies;   /* whose header is believed; no limit of their own either */
    proxy_header header;
} gate_settings;

typedef struct gate gate;
/* What is under way, until it is given back. Zero = nothing. */
typedef struct {
    limiter_place *place;
    gate_kind kind;
} gate_lease;

typedef struct {
    bool refused;
    int64_t retry_after_s; /* of a refusal; at least 1 */
    const char *detail;    /* constant text */
} gate_answer;

/* settings: borrowed. metrics: counts refusals. */
godwit_status gate_open(const gate_settings *settings, metrics *m, gate **out) MUST_USE;
void gate_close(gate *g);
/* A connection from `peer`; it stays inside until gate_leave. tls: a handshake will follow. */
gate_answer gate_connect(gate *g, const address *peer, bool tls, int64_t now_ms, gate_lease *lease);
/* A request with that head over a connection from `peer`. */
gate_answer gate_request(gate *g, const address *peer, const http_head *head, int64_t now_ms);
/* Its token was refused. */
void gate_bad_token(gate *g, const address *peer, const http_head *head, int64_t now_ms);
/* A request of a user, or of a user's device, under way until gate_leave. */
gate_answer gate_user(gate *g, slice user, int64_t now_ms, gate_lease *lease);
gate_answer gate_device(gate *g, slice user, slice device, int64_t now_ms, gate_lease *lease);
void gate_leave(gate *g, gate_lease *lease);

#endif
