/* A hash table of doubly linked lists. */
#include "server/notify.h"

static size_t bucket_of(slice scope) {
    uint32_t h = 2166136261u; /* FNV-1a; names come from tokens the server's owner signed */
    for (size_t i = 0; i < scope.len; i++) {
        h = (h ^ (unsigned char)scope.ptr[i]) * 16777619u;
    }
    return h % NOTIFY_BUCKETS;
}

void notify_init(notify_table *t) {
    memset(t, 0, sizeof *t);
}

void notify_add(notify_table *t, waiter *w, slice scope, int64_t head) {
    ASSERT(!w->listed);
    size_t bucket = bucket_of(scope);
    w->scope = scope;
    w->head = head;
    w->previous = NULL;
    w->next = t->buckets[bucket];
    if (w->next) {
        w->next->previous = w;
    }
    t->buckets[bucket] = w;
    w->listed = true;
    t->count++;
}

void notify_remove(notify_table *t, waiter *w) {
    if (!w->listed) {
        return;
    }
    if (w->previous) {
        w->previous->next = w->next;
    } else {
        t->buckets[bucket_of(w->scope)] = w->next;
    }
    if (w->next) {
        w->next->previous = w->previous;
    }
    w->next = w->previous = NULL;
    w->listed = false;
    ASSERT(t->count > 0);
    t->count--;
}

void notify_wake(notify_table *t, slice scope, int64_t head) {
    waiter *next;
    for (waiter *w = t->buckets[bucket_of(scope)]; w; w = next) {
        next = w->next;
        if (head > w->head && slice_equal(w->scope, scope)) {
            w->head = head;
            w->wake(w, head);
        }
    }
}
