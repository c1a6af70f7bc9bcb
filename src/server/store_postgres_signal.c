/* Word of other servers: NOTIFY, LISTEN, and the heads themselves.
 *
 * Two connections. One tells and asks, a transaction of its own each time: NOTIFY takes a lock of
 * the whole database while it commits, and belongs into no transaction that others wait for. The
 * other one listens, where it talks to PostgreSQL itself: behind a pooler the session that listens
 * is anybody's, so there the heads alone have to do. */
#include "server/store_postgres.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "core/backoff.h"

#define LISTEN_FAILURES 3 /* the pause after a failure grows to 8 s: heads are polled meanwhile */

struct store_signal {
    store_base base;
    pg_link mouth, ear;
    bool listens; /* on the present connection of `ear` */
    bool pooled;  /* it would do so in vain */
    int failures;
    int64_t listen_at_ms;
};

static int64_t mono_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

godwit_status pg_signal_open(store *st, store_signal **out) {
    *out = NULL;
    store_signal *g = calloc(1, sizeof *g);
    if (!g) {
        return GODWIT_NOMEM;
    }
    g->base.verbs = &store_postgres_verbs;
    if (pg_link_init(&g->mouth, st->link.url) != GODWIT_OK ||
        pg_link_init(&g->ear, st->link.url) != GODWIT_OK) {
        pg_signal_close(g);
        return GODWIT_NOMEM;
    }
    *out = g;
    return GODWIT_OK;
}

void pg_signal_close(store_signal *g) {
    pg_link_deinit(&g->mouth);
    pg_link_deinit(&g->ear);
    free(g);
}

static void put_names(pg_link *l, const slice *names, size_t count) {
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, names[i].ptr ? names[i] : SLICE(""));
    }
}

/* What is not there for one of the two is not there for the other, which nobody waits on and which
 * might not notice for long. */
static godwit_status both(store_signal *g, godwit_status status) {
    if (status == GODWIT_IO && g->listens) {
        g->listens = false;
        pg_link_drop(&g->ear);
    }
    return status;
}

godwit_status pg_signal_send(store_signal *g, const slice *scopes, size_t count) {
    pg_link *l = &g->mouth;
    PGresult *r = NULL;
    godwit_status status = pg_link_up(l);
    if (status == GODWIT_OK) { /* a hint need not be on disk */
        status = pg_send(l, "SELECT set_config('synchronous_commit', 'off', true)");
    }
    if (status == GODWIT_OK) {
        put_names(l, scopes, count);
        status = pg_query(l, "SELECT pg_notify('godwit', s) FROM unnest($1) s", &r);
    }
    return both(g, status);
}

godwit_status pg_signal_heads(store_signal *g, const slice *scopes, int64_t *heads, bool *moved,
                              size_t count) {
    pg_link *l = &g->mouth;
    PGresult *r = NULL;
    memset(moved, 0, count * sizeof *moved);
    godwit_status status = pg_link_up(l);
    if (status != GODWIT_OK) {
        return both(g, status);
    }
    put_names(l, scopes, count);
    pg_array(l, PG_OID_INT8, count);
    for (size_t i = 0; i < count; i++) {
        pg_item_int(l, heads[i]);
    }
    status = pg_query(l,
                      "SELECT k.n - 1, s.head FROM unnest($1, $2) WITH ORDINALITY k(scope, head, n)"
                      " JOIN godwit.scope s ON s.scope = k.scope WHERE s.head <> k.head",
                      &r);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        size_t at = (size_t)pg_field_int(r, i, 0);
        ASSERT(at < count);
        moved[at] = true;
        heads[at] = pg_field_int(r, i, 1);
    }
    return both(g, status);
}

/* ---- listening ---- */

/* A pooler makes up the number of the process that it says the client talks to. */
static godwit_status find_pooler(store_signal *g) {
    PGresult *r = NULL;
    godwit_status status = pg_query(&g->ear, "SELECT pg_backend_pid()", &r);
    if (status == GODWIT_OK) {
        g->pooled = pg_field_int(r, 0, 0) != PQbackendPID(g->ear.conn);
    }
    return status;
}

static godwit_status listen_now(store_signal *g) {
    PGresult *r = NULL;
    godwit_status status = pg_link_up(&g->ear);
    if (status == GODWIT_OK) {
        status = find_pooler(g);
    }
    if (status == GODWIT_OK && g->pooled) {
        pg_link_drop(&g->ear);
        return GODWIT_UNSUPPORTED;
    }
    if (status == GODWIT_OK) {
        status = pg_query(&g->ear, "LISTEN godwit", &r);
    }
    if (status == GODWIT_OK) {
        g->failures = 0;
        g->listens = true;
        return GODWIT_OK;
    }
    pg_link_drop(&g->ear);
    uint64_t seed = (uint64_t)mono_ms() ^ (uint64_t)(uintptr_t)g;
    seed = (seed ^ seed >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    g->listen_at_ms = mono_ms() + backoff_delay_ms(RETRY_BUSY, g->failures, -1, seed);
    g->failures += g->failures < LISTEN_FAILURES;
    return GODWIT_IO;
}

static void hear(store_signal *g, store_heard_fn heard, void *context) {
    PGconn *conn = g->ear.conn;
    if (PQconsumeInput(conn) != 1 || PQstatus(conn) != CONNECTION_OK) {
        g->listens = false;
        pg_link_drop(&g->ear);
        return;
    }
    for (PGnotify *n = PQnotifies(conn); n; n = PQnotifies(conn)) {
        heard(context, slice_of(n->extra));
        PQfreemem(n);
    }
}

godwit_status pg_signal_wait(store_signal *g, int wake_fd, int64_t timeout_ms, store_heard_fn heard,
                             void *context) {
    godwit_status status = g->listens ? GODWIT_OK : g->pooled ? GODWIT_UNSUPPORTED : GODWIT_IO;
    if (status == GODWIT_IO && mono_ms() >= g->listen_at_ms) {
        status = listen_now(g);
        if (status == GODWIT_OK) {
            heard(context, SLICE("")); /* what was said before nobody heard */
            timeout_ms = 0;
        }
    }
    struct pollfd fds[2] = {{.fd = wake_fd, .events = POLLIN}, {.fd = -1}};
    if (status == GODWIT_OK) {
        fds[1] = (struct pollfd){.fd = PQsocket(g->ear.conn), .events = POLLIN};
    }
    int ready = poll(fds, 2, timeout_ms > 0 ? (int)timeout_ms : 0);
    if (ready > 0 && fds[1].revents) {
        hear(g, heard, context);
    }
    return status == GODWIT_OK && !g->listens ? GODWIT_IO : status;
}
