/* Who waits for a scope to move: long polls and event streams of one loop thread.
 *
 * Every loop has one table and touches it alone; commits reach it as messages. A waiter is added
 * before its first read of the database, so that no commit can fall between the read and the wait.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

#include "core/base.h"

typedef struct waiter {
    slice scope;  /* borrowed for as long as the waiter is in the table */
    int64_t head; /* highest head announced since it was added */
    void (*wake)(struct waiter *w, int64_t head); /* may remove this waiter, no other */
    struct waiter *next, *previous;
    bool listed;
} waiter;

#define NOTIFY_BUCKETS 1024
typedef struct {
    waiter *buckets[NOTIFY_BUCKETS];
    size_t count;
} notify_table;

void notify_init(notify_table *t);
/* head: what is known at this moment, 0 = nothing. */
void notify_add(notify_table *t, waiter *w, slice scope, int64_t head);
/* Nothing happens when it is not in the table. */
void notify_remove(notify_table *t, waiter *w);
/* Tells everyone who waits for the scope. A head not above what a waiter knows is not told. */
void notify_wake(notify_table *t, slice scope, int64_t head);

#endif
