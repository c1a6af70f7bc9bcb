/* Waiting for PostgreSQL, and noticing that it has gone.
 *
 * A machine that vanished sends nothing, and one that is frozen still has a kernel that confirms
 * what it gets: neither ends the connection. A statement may also take its time. So who has heard
 * nothing for a while asks the same host whether it takes a newcomer; if not, the connection is
 * given up, at the latest `patience_ms` after the last byte. What was under way is then unknown, as
 * after any other loss of a connection. Behind a pooler it is the pooler that is asked. */
#include "server/store_postgres.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define ASK_S_MIN 2 /* the least that libpq waits */
#define ASK_S_MAX 3

void pg_wait_init(pg_link *l) {
    l->patience_ms = 0;
    PQconninfoOption *options = PQconninfo(l->conn);
    for (PQconninfoOption *o = options; o && o->keyword; o++) {
        if (strcmp(o->keyword, "tcp_user_timeout") == 0 && o->val) {
            long ms = strtol(o->val, NULL, 10);
            l->patience_ms = ms > 0 && ms < 3600000 ? (int)ms : 0;
        }
    }
    PQconninfoFree(options);
}

static int ask_s(const pg_link *l) {
    return l->patience_ms < 2 * ASK_S_MAX * 1000 ? ASK_S_MIN : ASK_S_MAX;
}

/* Whether the host of this connection speaks with somebody who comes to it now. */
static bool is_there(const pg_link *l) {
    char seconds[8];
    snprintf(seconds, sizeof seconds, "%d", ask_s(l));
    static const char *const names[] = {
        "dbname", "host", "hostaddr", "port", "connect_timeout", "target_session_attrs", NULL};
    const char *const values[] = {
        l->url, PQhost(l->conn), PQhostaddr(l->conn), PQport(l->conn), seconds, "any", NULL};
    return PQpingParams(names, values, 1) != PQPING_NO_RESPONSE;
}

/* Until something can be read, or written where that is wanted; reads it. */
static bool turn(pg_link *l, bool write) {
    struct pollfd fd = {.fd = PQsocket(l->conn), .events = write ? POLLIN | POLLOUT : POLLIN};
    int quiet_ms = l->patience_ms - ask_s(l) * 1000;
    for (;;) {
        int ready = poll(&fd, 1, l->patience_ms == 0 ? -1 : quiet_ms > 1000 ? quiet_ms : 1000);
        if (ready > 0) {
            return PQconsumeInput(l->conn) == 1;
        }
        if (ready < 0 && errno != EINTR) {
            return false;
        }
        if (ready == 0 && !is_there(l)) {
            l->silent = true;
            return false;
        }
    }
}

bool pg_wait_sent(pg_link *l) {
    int left = PQflush(l->conn);
    while (left > 0 && turn(l, true)) {
        left = PQflush(l->conn);
    }
    return left == 0;
}

bool pg_wait_result(pg_link *l) {
    while (PQisBusy(l->conn)) {
        if (!turn(l, false)) {
            return false;
        }
    }
    return true;
}
