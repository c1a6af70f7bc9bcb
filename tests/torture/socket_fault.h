/* Where a call about sockets fails: the program defines the calls itself, so that the daemon, the
 * client, libcurl, libevent and OpenSSL come here first, and goes on to the C library's.
 *
 * Calls are counted by side and name, since threads make the order of all of them vary from run to
 * run: the n-th accept of the server stays the n-th accept. A thread counts for the side it was
 * told; one that was not told (libcurl's resolver) for the side that made the descriptor it uses.
 * Nothing counts while the test itself is at work (SIDE_TEST), nor for plain files. */
#ifndef TESTS_TORTURE_SOCKET_FAULT_H
#define TESTS_TORTURE_SOCKET_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* X(name). pipe_read, pipe_write: read and write of a pipe; add: epoll_ctl that adds, for only that
 * needs memory. */
#define SOCKET_CALLS(X)                                                                            \
    X(socket)                                                                                      \
    X(socketpair)                                                                                  \
    X(pipe)                                                                                        \
    X(eventfd)                                                                                     \
    X(epoll_create)                                                                                \
    X(epoll_ctl)                                                                                   \
    X(epoll_wait)                                                                                  \
    X(poll)                                                                                        \
    X(select)                                                                                      \
    X(bind)                                                                                        \
    X(listen)                                                                                      \
    X(connect)                                                                                     \
    X(accept)                                                                                      \
    X(recv)                                                                                        \
    X(recvfrom)                                                                                    \
    X(recvmsg)                                                                                     \
    X(read)                                                                                        \
    X(readv)                                                                                       \
    X(send)                                                                                        \
    X(sendto)                                                                                      \
    X(sendmsg)                                                                                     \
    X(write)                                                                                       \
    X(writev)                                                                                      \
    X(pipe_read)                                                                                   \
    X(pipe_write)                                                                                  \
    X(getsockopt)                                                                                  \
    X(setsockopt)                                                                                  \
    X(getsockname)                                                                                 \
    X(getpeername)                                                                                 \
    X(fcntl)                                                                                       \
    X(shutdown)                                                                                    \
    X(close)                                                                                       \
    X(getaddrinfo)

typedef enum {
#define SOCKET_CALL_ENUM(name) CALL_##name,
    SOCKET_CALLS(SOCKET_CALL_ENUM)
#undef SOCKET_CALL_ENUM
        CALL_COUNT
} socket_call;

typedef enum { SIDE_UNTOLD, SIDE_CLIENT, SIDE_SERVER, SIDE_TEST, SIDE_COUNT } socket_side;

/* Ways to fail that are no errno. */
#define FAIL_SHORT    (-1) /* some bytes only */
#define FAIL_ZERO     (-2) /* nothing: the peer has closed, or no event has come */
#define FAIL_SO_ERROR (-3) /* getsockopt succeeds and says that the connection was refused */

typedef struct {
    const char *name;
    int code;     /* errno, EAI_.. for getaddrinfo, FAIL_.. */
    bool unheard; /* once is no failure: nobody outside may notice */
} socket_error;

typedef struct {
    socket_side side;
    socket_call call;
    int error; /* index, see socket_error_of */
    bool forever;
    int64_t point; /* from 1; 0 = none fails, all are counted */
    bool shortage; /* the server's first accept finds no descriptor, besides */
} socket_plan;

const char *socket_call_name(socket_call call);
const char *socket_side_name(socket_side side);
/* NULL = there are no more. */
const socket_error *socket_error_of(socket_call call, int error);

void sockets_arm(const socket_plan *plan); /* from here on; counters begin anew */
void sockets_disarm(void);
int64_t sockets_counted(socket_side side, socket_call call);
int64_t sockets_hits(void);  /* since it was armed */
int64_t sockets_waits(void); /* of epoll_wait, ever */
/* Faults are over by themselves after a while, which is what "for good" means to a daemon that is
 * being stopped. */
#define SOCKETS_FAULT_MS 1000

/* Who is at work on this thread; gives who was. */
socket_side sockets_enter(socket_side side);
int64_t sockets_now_ms(void); /* monotonic */

#endif
