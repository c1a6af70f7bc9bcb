/* Inside the network side: the server, its loop threads, their connections. Included by loop.c,
 * conn.c, dispatch.c, stream.c and daemon.c only.
 *
 *   loop.c      one thread with one libevent base: accept, mailbox, draining
 *   conn.c      one connection: bytes in, bytes out, deadlines, its states
 *   dispatch.c  a complete head or request -> answer or job; a job come back -> answer or park
 *   stream.c    server-sent events
 *   gate.c      limits per address, user and device
 *   tls.c       what a secure connection reads and writes
 *   daemon.c    starts and stops it all
 *
 * A loop, its connections and their requests belong to the loop's thread. What other threads may
 * touch is the mailbox (locked) and the atomics. */
#ifndef SERVER_NET_H
#define SERVER_NET_H

#include <pthread.h>
#include <stdatomic.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "server/auth.h"
#include "server/gate.h"
#include "server/http.h"
#include "server/keyring.h"
#include "server/pool.h"
#include "server/reply.h"
#include "server/streams.h"
#include "server/tls.h"
#include "server/wakeup.h"

typedef struct loop loop;
typedef struct conn conn;

typedef struct server {
    auth_settings auth;
    keyring *keys; /* borrowed */
    service *service;
    pool *pool;
    metrics metrics;
    gate *gate;
    tls_context *tls; /* NULL = plain HTTP */
    stream_table streams;
    wakeup *wakeup; /* NULL = nobody else writes to the store */
    bool has_streams;
    loop *loops;
    int loop_count;
    int64_t connections_max, memory_max;
    atomic_bool draining;
    _Atomic int loops_running;
} server;

/* READING -> WORKING -> WRITING -> READING, with PARKED beside WORKING, STREAMING instead of
 * WRITING, and LINGER before the end. The table is in conn.c. */
typedef enum {
    CONN_READING,   /* waiting for or receiving a request */
    CONN_WORKING,   /* the request is in the pool */
    CONN_PARKED,    /* a long poll waits for its scope */
    CONN_WRITING,   /* the answer is on its way */
    CONN_STREAMING, /* server-sent events */
    CONN_LINGER,    /* answered and shut down, reading on so that the answer is not lost */
    CONN_STATE_COUNT
} conn_state;

typedef enum { CONN_PHASE_IDLE, CONN_PHASE_HEAD, CONN_PHASE_BODY } conn_phase;

struct conn {
    loop *loop;
    int fd;
    address peer;
    gate_lease place; /* among the connections of its address */
    tls_link *tls;    /* NULL = plain */
    bool greeted;     /* its handshake has been counted */
    conn_state state;
    conn_phase phase; /* of READING: which deadline runs */
    struct event read_event, write_event, timer;
    http_reader reader;
    bytes input; /* received, not consumed */
    bytes out_head, out_body;
    size_t sent_bytes;     /* of head and body together */
    size_t progress_bytes; /* moved since the deadline was set */
    request *request;      /* from a complete head to its answer */
    route_id route;        /* of the answer being written, for the log */
    int64_t started_us;
    int status;
    bool served_before;       /* not the first request: idle limit instead of head limit */
    bool http_1_0, head_only; /* the request's version, and whether it is HEAD */
    bool close_after, eof, dead;
    size_t held_bytes;     /* of the body so far, counted in the memory budget */
    size_t answer_bytes;   /* of the answer, counted there until it is sent */
    bool reading, writing; /* which of the events are added */
    /* stream */
    int64_t stream_head, stream_sent_head, stream_ends_ms;
    uint64_t stream_id; /* 0 = of no device */
    conn *next, *previous; /* of the loop's list; next also of its graveyard */
};

struct loop {
    server *server;
    pthread_t thread;
    bool has_thread;
    struct event_base *base;
    int listener, pipe_read, pipe_write;
    struct event listen_event, pipe_event, resume_event, drain_event, look_event;
    conn *conns;
    conn *graveyard; /* closed in this round, freed at its end */
    size_t requests; /* out in the pool */
    notify_table waiters;
    _Atomic int64_t waiting; /* waiters.count, for committing threads */
    bool draining;
    char scratch[65536];
    int64_t date_s;
    char date[40];
    /* mailbox */
    pthread_mutex_t lock;
    service_job *done_first, *done_last;
    struct wake *wakes; /* news of scopes, and streams to end */
    bool wake_failed, drain_asked, signalled;
};

/* ---- loop.c ---- */

/* Takes the listening socket. On failure the socket is closed. */
godwit_status loop_init(loop *l, server *s, int listener) MUST_USE;
void loop_deinit(loop *l); /* after its thread has ended */
godwit_status loop_start(loop *l) MUST_USE;
/* From any thread. */
void loop_post_done(request *r);
void loop_post_wake(loop *l, slice scope, int64_t head);
void loop_post_drain(loop *l);
/* Ends the stream of that id, if it is still there. */
void loop_post_end(loop *l, uint64_t stream_id);
/* After every callback: frees what was closed, and leaves the loop when it is draining and nothing
 * is left. */
void loop_end_round(loop *l);
/* Into and out of the loop's table of waiters. */
void loop_wait(loop *l, waiter *w, slice scope);
void loop_unwait(loop *l, waiter *w);
const char *loop_date(loop *l);
int64_t loop_mono_ms(void);
int64_t loop_mono_us(void);
int64_t loop_wall_s(void);

/* ---- conn.c ---- */

/* place: transferred; given back when the connection closes. */
void conn_open(loop *l, int fd, const address *peer, gate_lease place);
/* Closes the socket; the memory lives until the end of the loop's round. */
void conn_close(conn *c);
/* Receives what is there and pumps. */
void conn_read(conn *c);
void conn_move(conn *c, conn_state to);
/* Does all that can be done now: reads what was received, writes what is pending. */
void conn_pump(conn *c);
/* Gives back what the body being read was counted with. */
void conn_release_body(conn *c);
/* Counts an answer of that size until it is sent or lost; false: there is no room for it. */
bool conn_hold_answer(conn *c, size_t answer_bytes) MUST_USE;
/* ms <= 0: no deadline. */
void conn_deadline(conn *c, int64_t ms);
/* Makes the head of an answer and takes `body` (transferred; may be NULL). Moves to WRITING; the
 * caller pumps. Adds keep-alive or close as the connection needs. */
void conn_answer(conn *c, reply *r, bytes *body);
/* Sends what is pending. */
typedef enum { FLUSH_DONE, FLUSH_BLOCKED, FLUSH_FAILED } flush_result;
flush_result conn_flush(conn *c);

/* ---- dispatch.c ---- */

/* The reader has a complete head: route, authenticate, bound. Accepts the body or answers. */
void dispatch_head(conn *c);
/* The request is complete. */
void dispatch_request(conn *c);
/* The reader refused the input. */
void dispatch_refusal(conn *c);
/* A problem document, closing the connection when `close`. */
void dispatch_problem(conn *c, int status, const char *type, const char *detail, bool close);
/* On a pool thread: whether the request's device may go on; else it is answered. context: server. */
bool dispatch_admit(void *context, request *r);
/* A request came back from the pool. */
void dispatch_done(request *r);
/* A parked request is to be looked at again; over: answer whatever there is. */
void dispatch_resume(conn *c, bool over);
void dispatch_forget(conn *c); /* the connection ends: its request has nobody to answer */

/* ---- stream.c ---- */

void stream_begin(conn *c, request *r);
void stream_tick(conn *c);     /* the keep-alive timer */
void stream_writable(conn *c); /* everything pending was sent */
void stream_wake(waiter *w, int64_t head);
void stream_leave(conn *c);    /* the connection ends: its device has no stream */

#endif
