/* Pages kept for the next reader. See pages.h. */
#include "server/pages.h"

#include <stdlib.h>

/* With its texts behind it, one piece of memory. */
struct kept_page {
    feed_page page;
    size_t bytes;
};

bool pages_open(page_list *l) {
    l->ready = pthread_mutex_init(&l->lock, NULL) == 0;
    return l->ready;
}

void pages_close(page_list *l) {
    for (size_t i = 0; i < l->count; i++) {
        free(l->kept[i]);
    }
    l->count = 0;
    if (l->ready) {
        pthread_mutex_destroy(&l->lock);
    }
}

void page_author(feed_page *p, arena *a, slice device) {
    if (device.len == 0 || p->crowded) {
        return;
    }
    for (size_t i = p->author_count; i-- > 0;) { /* the latest are the likeliest */
        if (slice_equal(p->authors[i], device)) {
            return;
        }
    }
    if (!p->authors) {
        p->authors = ARENA_ARRAY(a, slice, PAGE_AUTHORS_MAX);
    }
    slice copy = arena_copy(a, device);
    if (!p->authors || !copy.ptr || p->author_count == PAGE_AUTHORS_MAX) {
        p->crowded = true;
        return;
    }
    p->authors[p->author_count++] = copy;
}

static bool has_part(const feed_page *p, const slice *const *mine, size_t mine_count) {
    for (size_t i = 0; i < p->author_count; i++) {
        for (size_t k = 0; k < mine_count; k++) {
            if (slice_equal(p->authors[i], *mine[k])) {
                return true;
            }
        }
    }
    return false;
}

static bool same_key(const page_key *a, const page_key *b) {
    return a->registry == b->registry && a->seq == b->seq && a->salt == b->salt &&
           a->tables == b->tables && a->limit == b->limit && slice_equal(a->scope, b->scope);
}

/* Where the page of this key is, l->count = nowhere. */
static size_t place_of(const page_list *l, const page_key *key) {
    size_t at = 0;
    while (at < l->count && !same_key(&l->kept[at]->page.key, key)) {
        at++;
    }
    return at;
}

static void take_out(page_list *l, size_t at) {
    l->count--;
    l->bytes -= l->kept[at]->bytes;
    memmove(&l->kept[at], &l->kept[at + 1], (l->count - at) * sizeof(struct kept_page *));
}

static void put_first(page_list *l, struct kept_page *k) {
    memmove(&l->kept[1], &l->kept[0], l->count * sizeof(struct kept_page *));
    l->kept[0] = k;
    l->count++;
    l->bytes += k->bytes;
}

bool pages_find(page_list *l, feed_page *p, int64_t head, const slice *const *mine,
                size_t mine_count, bytes *out) {
    bool good = false;
    (void)pthread_mutex_lock(&l->lock);
    size_t at = place_of(l, &p->key);
    if (at < l->count) {
        struct kept_page *k = l->kept[at];
        good = (k->page.full ? k->page.end_seq <= head : k->page.end_seq == head) &&
               !has_part(&k->page, mine, mine_count);
        take_out(l, at);
        put_first(l, k);
        if (good) {
            bytes_slice(out, k->page.commits);
            p->end_seq = k->page.end_seq;
            p->end_salt = k->page.end_salt;
        }
    }
    (void)pthread_mutex_unlock(&l->lock);
    return good;
}

static slice put(char **at, slice s) {
    char *to = *at;
    if (s.len > 0) {
        memcpy(to, s.ptr, s.len);
    }
    *at += s.len;
    return (slice){to, s.len};
}

static struct kept_page *copy_of(const feed_page *p) {
    size_t authors = p->author_count * sizeof(slice);
    size_t size = sizeof(struct kept_page) + authors + p->key.scope.len + p->commits.len;
    for (size_t i = 0; i < p->author_count; i++) {
        size += p->authors[i].len;
    }
    struct kept_page *k = size <= PAGES_KEPT_BYTES ? malloc(size) : NULL;
    if (!k) {
        return NULL;
    }
    slice *list = (slice *)(void *)(k + 1);
    char *at = (char *)(list + p->author_count);
    k->page = *p;
    k->bytes = size;
    k->page.authors = list;
    for (size_t i = 0; i < p->author_count; i++) {
        list[i] = put(&at, p->authors[i]);
    }
    k->page.key.scope = put(&at, p->key.scope);
    k->page.commits = put(&at, p->commits);
    return k;
}

void pages_keep(page_list *l, const feed_page *p, const slice *const *mine, size_t mine_count) {
    struct kept_page *k =
        p->crowded || has_part(p, mine, mine_count) ? NULL : copy_of(p); /* before the lock */
    struct kept_page *gone[PAGES_KEPT_MAX + 1];
    size_t gone_count = 0;
    if (!k) {
        return; /* only the next reader's time */
    }
    (void)pthread_mutex_lock(&l->lock);
    size_t at = place_of(l, &p->key);
    if (at < l->count) {
        gone[gone_count++] = l->kept[at];
        take_out(l, at);
    }
    while (l->count > 0 && (l->count == PAGES_KEPT_MAX || l->bytes + k->bytes > PAGES_KEPT_BYTES)) {
        gone[gone_count++] = l->kept[l->count - 1];
        take_out(l, l->count - 1);
    }
    put_first(l, k);
    (void)pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < gone_count; i++) {
        free(gone[i]);
    }
}
