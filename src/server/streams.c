/* A locked hash table of short lists. See streams.h. */
#include "server/streams.h"

struct stream_place {
    stream_place *next;
    void *loop;
    uint64_t id;
    size_t user_bytes, scope_bytes, device_bytes;
    char text[]; /* user, scope, device */
};

static uint32_t hash_bytes(uint32_t h, slice text) {
    for (size_t i = 0; i < text.len; i++) {
        h = (h ^ (unsigned char)text.ptr[i]) * 16777619u;
    }
    return h * 16777619u;
}

static stream_place **bucket_of(stream_table *t, const stream_name *n) {
    uint32_t h = hash_bytes(hash_bytes(hash_bytes(2166136261u, n->user), n->scope), n->device);
    return &t->buckets[(h ^ h >> 16) % STREAM_BUCKETS];
}

static bool is_named(const stream_place *p, const stream_name *n) {
    const char *at = p->text;
    slice user = {at, p->user_bytes};
    slice scope = {at + p->user_bytes, p->scope_bytes};
    slice device = {at + p->user_bytes + p->scope_bytes, p->device_bytes};
    return slice_equal(user, n->user) && slice_equal(scope, n->scope) &&
           slice_equal(device, n->device);
}

godwit_status streams_init(stream_table *t) {
    memset(t, 0, sizeof *t);
    return pthread_mutex_init(&t->lock, NULL) == 0 ? GODWIT_OK : GODWIT_NOMEM;
}

void streams_deinit(stream_table *t) {
    for (size_t i = 0; i < STREAM_BUCKETS; i++) {
        while (t->buckets[i]) {
            stream_place *next = t->buckets[i]->next;
            mem_free(NULL, t->buckets[i]);
            t->buckets[i] = next;
        }
    }
    (void)pthread_mutex_destroy(&t->lock);
}

static stream_place *make_place(const stream_name *n) {
    size_t total = n->user.len + n->scope.len + n->device.len;
    stream_place *p = mem_resize(NULL, NULL, sizeof *p + total);
    if (p) {
        memset(p, 0, sizeof *p);
        p->user_bytes = n->user.len;
        p->scope_bytes = n->scope.len;
        p->device_bytes = n->device.len;
        memcpy(p->text, n->user.ptr, n->user.len);
        memcpy(p->text + n->user.len, n->scope.ptr, n->scope.len);
        memcpy(p->text + n->user.len + n->scope.len, n->device.ptr, n->device.len);
    }
    return p;
}

godwit_status streams_take(stream_table *t, const stream_name *name, void *loop, uint64_t *id,
                           void **loser, uint64_t *loser_id) {
    godwit_status status = GODWIT_OK;
    *loser = NULL;
    *loser_id = *id = 0;
    pthread_mutex_lock(&t->lock);
    stream_place **bucket = bucket_of(t, name), *p = *bucket;
    while (p && !is_named(p, name)) {
        p = p->next;
    }
    if (p) {
        *loser = p->loop;
        *loser_id = p->id;
    } else {
        p = make_place(name);
        if (p) {
            p->next = *bucket;
            *bucket = p;
        }
    }
    if (p) {
        p->loop = loop;
        p->id = *id = ++t->last_id;
    } else {
        status = GODWIT_NOMEM;
    }
    pthread_mutex_unlock(&t->lock);
    return status;
}

void streams_leave(stream_table *t, const stream_name *name, uint64_t id) {
    pthread_mutex_lock(&t->lock);
    for (stream_place **at = bucket_of(t, name); *at; at = &(*at)->next) {
        if ((*at)->id == id) {
            stream_place *gone = *at;
            *at = gone->next;
            mem_free(NULL, gone);
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
}
