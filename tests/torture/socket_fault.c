/* Counting and failing calls about sockets. See socket_fault.h.
 *
 * What is defined here is exported by the program, so that shared libraries find it before the C
 * library's. A call that fails does not reach the kernel; close does, as with an error of a real
 * one, and a short read or write moves some bytes. */
#undef _FILE_OFFSET_BITS /* fcntl and fcntl64 are two names here */
#undef _LARGEFILE_SOURCE
#define _DEFAULT_SOURCE /* RTLD_NEXT is the one name below that is not in it */

#include "torture/socket_fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX  65536
#define ERRORS_MAX 9

#ifndef RTLD_NEXT
#define RTLD_NEXT ((void *)-1l)
#endif

/* ---- which errors ---- */

#define E(name)                                                                                    \
    { #name, name, false }
#define QUIET(name)                                                                                \
    { #name, name, true }
#define SHORT_COUNT                                                                                \
    { "short", FAIL_SHORT, true }
#define NO_FILES E(EMFILE), E(ENFILE), E(ENOMEM)
#define RECEIVE                                                                                    \
    {                                                                                              \
        QUIET(EINTR), QUIET(EAGAIN), SHORT_COUNT, {"zero", FAIL_ZERO, false}, E(ECONNRESET),       \
            E(ETIMEDOUT), E(ENOMEM)                                                                \
    }
#define SEND                                                                                       \
    {                                                                                              \
        QUIET(EINTR), QUIET(EAGAIN), SHORT_COUNT, E(ECONNRESET), E(EPIPE), E(ETIMEDOUT),           \
            E(ENOBUFS), E(ENOMEM)                                                                  \
    }

static const socket_error errors[CALL_COUNT][ERRORS_MAX] = {
    [CALL_socket] = {NO_FILES, E(ENOBUFS)},
    [CALL_socketpair] = {NO_FILES},
    [CALL_pipe] = {NO_FILES},
    [CALL_eventfd] = {NO_FILES},
    [CALL_epoll_create] = {NO_FILES},
    [CALL_epoll_ctl] = {E(ENOMEM), E(ENOSPC)},
    [CALL_epoll_wait] = {QUIET(EINTR), {"zero", FAIL_ZERO, true}},
    [CALL_poll] = {QUIET(EINTR), {"zero", FAIL_ZERO, true}, E(ENOMEM)},
    [CALL_select] = {QUIET(EINTR), {"zero", FAIL_ZERO, true}, E(ENOMEM)},
    [CALL_bind] = {E(EADDRINUSE), E(EACCES), E(ENOMEM)},
    [CALL_listen] = {E(EADDRINUSE), E(ENOMEM)},
    [CALL_connect] = {E(ECONNREFUSED), E(ETIMEDOUT), E(ENETUNREACH), E(EADDRNOTAVAIL), E(ENOMEM)},
    [CALL_accept] = {QUIET(EINTR), QUIET(EAGAIN), QUIET(ECONNABORTED), QUIET(EMFILE), QUIET(ENFILE),
                     QUIET(ENOBUFS), QUIET(ENOMEM), QUIET(EPROTO)},
    [CALL_recv] = RECEIVE,
    [CALL_recvfrom] = RECEIVE,
    [CALL_recvmsg] = RECEIVE,
    [CALL_read] = RECEIVE,
    [CALL_readv] = RECEIVE,
    [CALL_send] = SEND,
    [CALL_sendto] = SEND,
    [CALL_sendmsg] = SEND,
    [CALL_write] = SEND,
    [CALL_writev] = SEND,
    [CALL_pipe_read] = {QUIET(EINTR), QUIET(EAGAIN)},
    [CALL_pipe_write] = {QUIET(EINTR), E(ENOMEM)},
    [CALL_getsockopt] = {E(ENOBUFS), {"so_error", FAIL_SO_ERROR, false}},
    [CALL_setsockopt] = {E(ENOMEM), E(ENOPROTOOPT)},
    [CALL_getsockname] = {E(ENOBUFS)},
    [CALL_getpeername] = {E(ENOBUFS), E(ENOTCONN)},
    [CALL_fcntl] = {E(ENOMEM)},
    [CALL_shutdown] = {QUIET(ENOTCONN)},
    [CALL_close] = {QUIET(EINTR), QUIET(EIO)},
    [CALL_getaddrinfo] = {E(EAI_AGAIN), E(EAI_MEMORY), E(EAI_SYSTEM)},
};

const char *socket_call_name(socket_call call) {
#define SOCKET_CALL_NAME(name) #name,
    static const char *const names[] = {SOCKET_CALLS(SOCKET_CALL_NAME)};
#undef SOCKET_CALL_NAME
    return names[call];
}

const char *socket_side_name(socket_side side) {
    static const char *const names[] = {"untold", "client", "server", "test"};
    return names[side];
}

const socket_error *socket_error_of(socket_call call, int error) {
    return error >= 0 && error < ERRORS_MAX && errors[call][error].name ? &errors[call][error]
                                                                        : NULL;
}

/* ---- the plan ---- */

static socket_plan plan;
static atomic_bool armed;
static _Atomic int64_t begun_ms, hits, waits;
static _Atomic int64_t calls[SIDE_COUNT][CALL_COUNT];
static _Thread_local socket_side side_here = SIDE_UNTOLD;

/* What a descriptor is, and which side made it. */
typedef enum { FILE_OTHER, FILE_SOCKET, FILE_PIPE, FILE_EPOLL } file_kind;
static _Atomic unsigned char files[FILES_MAX];

int64_t sockets_now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sockets_arm(const socket_plan *p) {
    plan = *p;
    for (int s = 0; s < SIDE_COUNT; s++) {
        for (int c = 0; c < CALL_COUNT; c++) {
            calls[s][c] = 0;
        }
    }
    hits = 0;
    armed = true;
}

void sockets_disarm(void) {
    armed = false;
}

int64_t sockets_counted(socket_side side, socket_call call) {
    return calls[side][call];
}

int64_t sockets_hits(void) {
    return hits;
}

int64_t sockets_waits(void) {
    return waits;
}

socket_side sockets_enter(socket_side side) {
    socket_side before = side_here;
    side_here = side;
    return before;
}

static file_kind kind_of(int fd) {
    return fd >= 0 && fd < FILES_MAX ? (file_kind)(files[fd] & 7) : FILE_OTHER;
}

static socket_side side_of(int fd) {
    bool known = fd >= 0 && fd < FILES_MAX && files[fd];
    return side_here != SIDE_UNTOLD ? side_here
           : known                  ? (socket_side)(files[fd] >> 4)
                                    : SIDE_SERVER;
}

static void note(int fd, file_kind kind, socket_side side) {
    if (fd >= 0 && fd < FILES_MAX) {
        files[fd] = (unsigned char)(kind | (unsigned)side << 4);
    }
}

/* Counts a call; the way it must fail, 0 = it must not. */
static int failure(socket_side side, socket_call call) {
    if (!armed || side == SIDE_TEST) {
        return 0;
    }
    int64_t n = ++calls[side][call];
    if (plan.shortage && side == SIDE_SERVER && call == CALL_accept && n == 1) {
        return EMFILE;
    }
    if (!plan.point || call != plan.call || side != plan.side ||
        (plan.forever ? n < plan.point : n != plan.point)) {
        return 0;
    }
    if (hits++ == 0) {
        begun_ms = sockets_now_ms();
    } else if (sockets_now_ms() - begun_ms > SOCKETS_FAULT_MS) {
        hits--;
        return 0;
    }
    return errors[call][plan.error].code;
}

static size_t some_of(size_t len) {
    size_t some = 1 + (size_t)plan.point % 7;
    return some < len ? some : len;
}

/* ---- the calls ---- */

#pragma GCC visibility push(default)

/* The C library's, found at the first call. */
#define NEXT(ret, name, parameters)                                                                \
    static _Atomic(void *) next_##name;                                                            \
    typedef ret(*type_##name) parameters;                                                          \
    static type_##name get_##name(void) {                                                          \
        void *found = atomic_load(&next_##name);                                                   \
        type_##name out;                                                                           \
        if (!found) {                                                                              \
            found = dlsym(RTLD_NEXT, #name);                                                       \
            atomic_store(&next_##name, found);                                                     \
        }                                                                                          \
        memcpy(&out, &found, sizeof out);                                                          \
        return out;                                                                                \
    }                                                                                              \
    ret name parameters;                                                                           \
    ret name parameters

static int refuse(int code) {
    errno = code;
    return -1;
}

NEXT(int, socket, (int family, int type, int protocol)) {
    int code = failure(side_of(-1), CALL_socket);
    int fd = code ? refuse(code) : get_socket()(family, type, protocol);
    note(fd, FILE_SOCKET, side_of(-1));
    return fd;
}

static int two(int rc, const int ends[2], file_kind kind) {
    if (rc == 0) {
        note(ends[0], kind, side_of(-1));
        note(ends[1], kind, side_of(-1));
    }
    return rc;
}

NEXT(int, socketpair, (int family, int type, int protocol, int ends[2])) {
    int code = failure(side_of(-1), CALL_socketpair);
    return two(code ? refuse(code) : get_socketpair()(family, type, protocol, ends), ends,
               FILE_PIPE);
}

NEXT(int, pipe, (int ends[2])) {
    int code = failure(side_of(-1), CALL_pipe);
    return two(code ? refuse(code) : get_pipe()(ends), ends, FILE_PIPE);
}

NEXT(int, pipe2, (int ends[2], int flags)) {
    int code = failure(side_of(-1), CALL_pipe);
    return two(code ? refuse(code) : get_pipe2()(ends, flags), ends, FILE_PIPE);
}

NEXT(int, eventfd, (unsigned count, int flags)) {
    int code = failure(side_of(-1), CALL_eventfd);
    int fd = code ? refuse(code) : get_eventfd()(count, flags);
    note(fd, FILE_PIPE, side_of(-1));
    return fd;
}

NEXT(int, epoll_create, (int size)) {
    int code = failure(side_of(-1), CALL_epoll_create);
    int fd = code ? refuse(code) : get_epoll_create()(size);
    note(fd, FILE_EPOLL, side_of(-1));
    return fd;
}

NEXT(int, epoll_create1, (int flags)) {
    int code = failure(side_of(-1), CALL_epoll_create);
    int fd = code ? refuse(code) : get_epoll_create1()(flags);
    note(fd, FILE_EPOLL, side_of(-1));
    return fd;
}

NEXT(int, epoll_ctl, (int epoll, int what, int fd, struct epoll_event *event)) {
    int code = what == EPOLL_CTL_ADD ? failure(side_of(epoll), CALL_epoll_ctl) : 0;
    return code ? refuse(code) : get_epoll_ctl()(epoll, what, fd, event);
}

NEXT(int, epoll_wait, (int epoll, struct epoll_event *events, int max, int timeout_ms)) {
    int code = failure(side_of(epoll), CALL_epoll_wait);
    waits++;
    return code == FAIL_ZERO ? 0
           : code            ? refuse(code)
                             : get_epoll_wait()(epoll, events, max, timeout_ms);
}

NEXT(int, poll, (struct pollfd * fds, nfds_t count, int timeout_ms)) {
    int code = failure(side_of(-1), CALL_poll);
    if (code == FAIL_ZERO) {
        for (nfds_t i = 0; i < count; i++) {
            fds[i].revents = 0;
        }
        return 0;
    }
    return code ? refuse(code) : get_poll()(fds, count, timeout_ms);
}

NEXT(int, select, (int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout)) {
    int code = failure(side_of(-1), CALL_select);
    return code == FAIL_ZERO ? 0
           : code            ? refuse(code)
                             : get_select()(count, in, out, other, timeout);
}

NEXT(int, bind, (int fd, const struct sockaddr *address, socklen_t len)) {
    int code = failure(side_of(fd), CALL_bind);
    return code ? refuse(code) : get_bind()(fd, address, len);
}

NEXT(int, listen, (int fd, int backlog)) {
    int code = failure(side_of(fd), CALL_listen);
    return code ? refuse(code) : get_listen()(fd, backlog);
}

NEXT(int, connect, (int fd, const struct sockaddr *address, socklen_t len)) {
    int code = failure(side_of(fd), CALL_connect);
    return code ? refuse(code) : get_connect()(fd, address, len);
}

NEXT(int, accept, (int fd, struct sockaddr *address, socklen_t *len)) {
    int code = failure(side_of(fd), CALL_accept);
    int got = code ? refuse(code) : get_accept()(fd, address, len);
    note(got, FILE_SOCKET, side_of(fd));
    return got;
}

NEXT(int, accept4, (int fd, struct sockaddr *address, socklen_t *len, int flags)) {
    int code = failure(side_of(fd), CALL_accept);
    int got = code ? refuse(code) : get_accept4()(fd, address, len, flags);
    note(got, FILE_SOCKET, side_of(fd));
    return got;
}

/* What kind of call a read or write of that descriptor is; CALL_COUNT: of a file. */
static socket_call call_on(int fd, socket_call on_socket, socket_call on_pipe) {
    file_kind kind = kind_of(fd);
    return kind == FILE_SOCKET ? on_socket : kind == FILE_PIPE ? on_pipe : CALL_COUNT;
}

/* How many bytes the call may move: fewer than `len` for a short one; -1 with errno, or 0. */
static ssize_t allowed(int fd, socket_call call, size_t len) {
    int code = call == CALL_COUNT ? 0 : failure(side_of(fd), call);
    return code == FAIL_ZERO    ? 0
           : code == FAIL_SHORT ? (ssize_t)some_of(len)
           : code               ? refuse(code)
                                : (ssize_t)len;
}

NEXT(ssize_t, recv, (int fd, void *buffer, size_t len, int flags)) {
    ssize_t n = allowed(fd, CALL_recv, len);
    return n > 0 ? get_recv()(fd, buffer, (size_t)n, flags) : n;
}

NEXT(ssize_t, recvfrom,
     (int fd, void *buffer, size_t len, int flags, struct sockaddr *from, socklen_t *from_len)) {
    ssize_t n = allowed(fd, CALL_recvfrom, len);
    return n > 0 ? get_recvfrom()(fd, buffer, (size_t)n, flags, from, from_len) : n;
}

NEXT(ssize_t, read, (int fd, void *buffer, size_t len)) {
    ssize_t n = allowed(fd, call_on(fd, CALL_read, CALL_pipe_read), len);
    return n > 0 || len == 0 ? get_read()(fd, buffer, (size_t)n) : n;
}

NEXT(ssize_t, send, (int fd, const void *data, size_t len, int flags)) {
    ssize_t n = allowed(fd, call_on(fd, CALL_send, CALL_pipe_write), len);
    return n > 0 ? get_send()(fd, data, (size_t)n, flags) : n;
}

NEXT(ssize_t, sendto,
     (int fd, const void *data, size_t len, int flags, const struct sockaddr *to,
      socklen_t to_len)) {
    ssize_t n = allowed(fd, CALL_sendto, len);
    return n > 0 ? get_sendto()(fd, data, (size_t)n, flags, to, to_len) : n;
}

NEXT(ssize_t, write, (int fd, const void *data, size_t len)) {
    ssize_t n = allowed(fd, call_on(fd, CALL_write, CALL_pipe_write), len);
    return n > 0 || len == 0 ? get_write()(fd, data, (size_t)n) : n;
}

static size_t bytes_of(const struct iovec *parts, size_t count) {
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        len += parts[i].iov_len;
    }
    return len;
}

/* The first part that has anything, cut to what is allowed. */
static struct iovec beginning(const struct iovec *parts, size_t count, size_t max) {
    struct iovec out = {0};
    for (size_t i = 0; i < count && !out.iov_len; i++) {
        out = parts[i];
    }
    out.iov_len = out.iov_len < max ? out.iov_len : max;
    return out;
}

NEXT(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags)) {
    size_t len = bytes_of(message->msg_iov, message->msg_iovlen);
    ssize_t n = allowed(fd, CALL_sendmsg, len);
    if (n <= 0 || (size_t)n == len) {
        return n < 0 ? n : get_sendmsg()(fd, message, flags);
    }
    struct iovec part = beginning(message->msg_iov, message->msg_iovlen, (size_t)n);
    struct msghdr some = *message;
    some.msg_iov = &part;
    some.msg_iovlen = 1;
    return get_sendmsg()(fd, &some, flags);
}

NEXT(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags)) {
    size_t len = bytes_of(message->msg_iov, message->msg_iovlen);
    ssize_t n = allowed(fd, CALL_recvmsg, len);
    if (n <= 0 || (size_t)n == len) {
        return n <= 0 ? n : get_recvmsg()(fd, message, flags);
    }
    struct iovec part = beginning(message->msg_iov, message->msg_iovlen, (size_t)n);
    struct msghdr some = *message;
    some.msg_iov = &part;
    some.msg_iovlen = 1;
    ssize_t got = get_recvmsg()(fd, &some, flags);
    message->msg_flags = some.msg_flags;
    return got;
}

NEXT(ssize_t, readv, (int fd, const struct iovec *parts, int count)) {
    size_t len = bytes_of(parts, (size_t)count);
    ssize_t n = allowed(fd, call_on(fd, CALL_readv, CALL_pipe_read), len);
    struct iovec part = beginning(parts, (size_t)count, n > 0 ? (size_t)n : 0);
    return n <= 0 ? n : (size_t)n < len ? get_readv()(fd, &part, 1) : get_readv()(fd, parts, count);
}

NEXT(ssize_t, writev, (int fd, const struct iovec *parts, int count)) {
    size_t len = bytes_of(parts, (size_t)count);
    ssize_t n = allowed(fd, call_on(fd, CALL_writev, CALL_pipe_write), len);
    struct iovec part = beginning(parts, (size_t)count, n > 0 ? (size_t)n : 0);
    return n < 0                      ? n
           : n > 0 && (size_t)n < len ? get_writev()(fd, &part, 1)
                                      : get_writev()(fd, parts, count);
}

NEXT(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *len)) {
    int code = failure(side_of(fd), CALL_getsockopt);
    if (code == FAIL_SO_ERROR && level == SOL_SOCKET && name == SO_ERROR) {
        const int refused = ECONNREFUSED;
        memcpy(value, &refused, sizeof refused);
        return 0;
    }
    return code > 0 ? refuse(code) : get_getsockopt()(fd, level, name, value, len);
}

NEXT(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len)) {
    int code = failure(side_of(fd), CALL_setsockopt);
    return code ? refuse(code) : get_setsockopt()(fd, level, name, value, len);
}

NEXT(int, getsockname, (int fd, struct sockaddr *address, socklen_t *len)) {
    int code = failure(side_of(fd), CALL_getsockname);
    return code ? refuse(code) : get_getsockname()(fd, address, len);
}

NEXT(int, getpeername, (int fd, struct sockaddr *address, socklen_t *len)) {
    int code = failure(side_of(fd), CALL_getpeername);
    return code ? refuse(code) : get_getpeername()(fd, address, len);
}

NEXT(int, shutdown, (int fd, int how)) {
    int code = failure(side_of(fd), CALL_shutdown);
    return code ? refuse(code) : get_shutdown()(fd, how);
}

/* As Linux does it, the descriptor is gone also when closing fails. */
NEXT(int, close, (int fd)) {
    int code = kind_of(fd) == FILE_OTHER ? 0 : failure(side_of(fd), CALL_close);
    note(fd, FILE_OTHER, SIDE_UNTOLD);
    int rc = get_close()(fd);
    return code ? refuse(code) : rc;
}

/* Whatever the third argument is, it is one word. */
NEXT(int, fcntl64, (int fd, int what, ...)) {
    va_list args;
    va_start(args, what);
    void *word = va_arg(args, void *);
    va_end(args);
    int code = kind_of(fd) == FILE_OTHER ? 0 : failure(side_of(fd), CALL_fcntl);
    return code ? refuse(code) : get_fcntl64()(fd, what, word);
}

int fcntl(int fd, int what, ...) {
    va_list args;
    va_start(args, what);
    void *word = va_arg(args, void *);
    va_end(args);
    return fcntl64(fd, what, word);
}

/* The server of the test has a name, so that the client has one to look up. */
NEXT(int, getaddrinfo,
     (const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out)) {
    int code = failure(side_here == SIDE_UNTOLD ? SIDE_CLIENT : side_here, CALL_getaddrinfo);
    if (code) {
        errno = EMFILE; /* what EAI_SYSTEM means then */
        return code;
    }
    bool ours = host && strcmp(host, "godwit.test") == 0;
    return get_getaddrinfo()(ours ? "127.0.0.1" : host, service, hints, out);
}

/* Power cuts are another program's business, and disks are slow. */
int fsync(int fd) {
    (void)fd;
    return 0;
}

int fdatasync(int fd) {
    (void)fd;
    return 0;
}

#pragma GCC visibility pop
