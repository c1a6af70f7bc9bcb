/* A hash table of counted names under one lock. */
#include "server/watched.h"

#include <pthread.h>

#include "core/limits.h"

#define BUCKETS 4096

typedef struct entry {
    struct entry *next;
    int64_t head;
    size_t waiters;
    bool marked;
    size_t scope_bytes;
    char scope[];
} entry;

struct watched {
    pthread_mutex_t lock;
    size_t count, marked;
    entry *buckets[BUCKETS];
};

godwit_status watched_open(watched **out) {
    *out = NULL;
    watched *w = mem_resize(NULL, NULL, sizeof *w);
    if (!w) {
        return GODWIT_NOMEM;
    }
    memset(w, 0, sizeof *w);
    if (pthread_mutex_init(&w->lock, NULL) != 0) {
        mem_free(NULL, w);
        return GODWIT_NOMEM;
    }
    *out = w;
    return GODWIT_OK;
}

void watched_close(watched *w) {
    if (!w) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        for (entry *e = w->buckets[i], *next; e; e = next) {
            next = e->next;
            mem_free(NULL, e);
        }
    }
    pthread_mutex_destroy(&w->lock);
    mem_free(NULL, w);
}

/* Where the scope's entry is linked, or would be. Under the lock. */
static entry **find(watched *w, slice scope) {
    uint32_t h = 2166136261u; /* FNV-1a; names come from tokens the server's owner signed */
    for (size_t i = 0; i < scope.len; i++) {
        h = (h ^ (unsigned char)scope.ptr[i]) * 16777619u;
    }
    entry **at = &w->buckets[h % BUCKETS];
    while (*at && !slice_equal((slice){(*at)->scope, (*at)->scope_bytes}, scope)) {
        at = &(*at)->next;
    }
    return at;
}

void watched_add(watched *w, slice scope) {
    pthread_mutex_lock(&w->lock);
    entry **at = find(w, scope);
    if (!*at) {
        entry *e = mem_resize(NULL, NULL, sizeof *e + scope.len);
        if (e) {
            *e = (entry){.scope_bytes = scope.len};
            memcpy(e->scope, scope.ptr, scope.len);
            *at = e;
            w->count++;
        }
    }
    if (*at) {
        (*at)->waiters++;
    }
    pthread_mutex_unlock(&w->lock);
}

void watched_remove(watched *w, slice scope) {
    pthread_mutex_lock(&w->lock);
    entry **at = find(w, scope), *e = *at;
    if (e && --e->waiters == 0) {
        *at = e->next;
        w->count--;
        w->marked -= e->marked;
        mem_free(NULL, e);
    }
    pthread_mutex_unlock(&w->lock);
}

bool watched_news(watched *w, slice scope, int64_t head) {
    pthread_mutex_lock(&w->lock);
    entry *e = *find(w, scope);
    bool news = e && e->head != head; /* a database that was restored has lower ones */
    if (e) {
        e->head = head;
    }
    pthread_mutex_unlock(&w->lock);
    return news;
}

static void mark(watched *w, entry *e) {
    w->marked += !e->marked;
    e->marked = true;
}

bool watched_mark(watched *w, slice scope) {
    pthread_mutex_lock(&w->lock);
    if (scope.len > 0) {
        entry *e = *find(w, scope);
        if (e) {
            mark(w, e);
        }
    }
    for (size_t i = 0; scope.len == 0 && i < BUCKETS; i++) {
        for (entry *e = w->buckets[i]; e; e = e->next) {
            mark(w, e);
        }
    }
    bool any = w->marked > 0;
    pthread_mutex_unlock(&w->lock);
    return any;
}

godwit_status watched_take(watched *w, bool all, arena *a, watched_list *out) {
    pthread_mutex_lock(&w->lock);
    size_t max = all ? w->count : w->marked;
    *out = (watched_list){ARENA_ARRAY(a, slice, max), ARENA_ARRAY(a, int64_t, max), 0};
    for (size_t i = 0; max > 0 && !a->failed && i < BUCKETS; i++) {
        for (entry *e = w->buckets[i]; e && !a->failed; e = e->next) {
            if (all || e->marked) {
                out->scopes[out->count] = arena_copy(a, (slice){e->scope, e->scope_bytes});
                out->heads[out->count++] = e->head;
            }
        }
    }
    for (size_t i = 0; w->marked > 0 && !a->failed && i < BUCKETS; i++) {
        for (entry *e = w->buckets[i]; e; e = e->next) {
            w->marked -= e->marked;
            e->marked = false;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}
