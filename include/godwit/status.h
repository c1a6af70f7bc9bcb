/* Status codes of the public API: one table, one fixed number each.
 *
 * The class of a status decides what a caller does with it: RETRY (wait and try again), REJECT
 * (final for this input), MISUSE (a bug in the caller), CORRUPT (stop, keep the file). A number
 * is never reused. */
#ifndef GODWIT_STATUS_H
#define GODWIT_STATUS_H

typedef enum {
    GODWIT_CLASS_OK,
    GODWIT_CLASS_RETRY,
    GODWIT_CLASS_REJECT,
    GODWIT_CLASS_MISUSE,
    GODWIT_CLASS_CORRUPT
} godwit_class;

/* X(name, number, class, text) */
#define GODWIT_STATUS_TABLE(X)                                                     \
    X(OK, 0, OK, "ok")                                                             \
    X(NOMEM, 1, RETRY, "out of memory")                                            \
    X(BUSY, 2, RETRY, "the database is locked by another writer")                  \
    X(IO, 3, RETRY, "the operating system reported an I/O error")                  \
    X(FULL, 4, RETRY, "the disk is full")                                          \
    X(UNREACHABLE, 5, RETRY, "the server could not be reached")                    \
    X(OVERLOADED, 6, RETRY, "the server asked to wait")                            \
    X(TIMEOUT, 7, RETRY, "the time allowed for the call is over")                  \
    X(CANCELLED, 8, RETRY, "the call was stopped")                                 \
    X(INVALID, 20, REJECT, "the input is not valid")                               \
    X(LIMIT, 21, REJECT, "the input is over a limit")                              \
    X(NOT_FOUND, 22, REJECT, "no such object")                                     \
    X(EXISTS, 23, REJECT, "the object exists already")                             \
    X(UNAUTHENTICATED, 24, REJECT, "the token is missing, expired or not valid")   \
    X(FORBIDDEN, 25, REJECT, "the token does not allow this")                      \
    X(UNSUPPORTED, 26, REJECT, "not supported by this build, database or server")  \
    X(CONSTRAINT, 27, REJECT, "a constraint of the schema refuses the data")       \
    X(READONLY, 28, REJECT, "the database can't be written")                       \
    X(PROTOCOL, 29, REJECT, "the other side broke the protocol")                   \
    X(IDENTITY, 30, REJECT, "the server knows another history of this device")     \
    X(NOT_DURABLE, 31, REJECT, "the connection's settings would lose changes")     \
    X(MISUSE, 40, MISUSE, "the call is not allowed here")                          \
    X(INTERNAL, 41, MISUSE, "a fault in Godwit")                                   \
    X(CORRUPT, 60, CORRUPT, "the database file is damaged or is not a database")

typedef enum {
#define GODWIT_STATUS_ENUM(name, number, cls, text) GODWIT_##name = number,
    GODWIT_STATUS_TABLE(GODWIT_STATUS_ENUM)
#undef GODWIT_STATUS_ENUM
} godwit_status;

#endif
