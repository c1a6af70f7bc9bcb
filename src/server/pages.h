/* Pages of the feed that were read a moment ago, for the next device that comes for the same. A
 * scope with a thousand devices that wake up for one commit reads it from the database once, not a
 * thousand times.
 *
 * What is kept is the text of the commits alone. A device that has a part in a page gets its own
 * outcomes with it, so it reads for itself. Nobody's rights are in a page: who may read the scope,
 * and where the cursor stands in its history, has been looked at before; readers whose rows depend
 * on a database role never come here. Bounded by count and bytes, the longest unused goes first.
 *
 * Reader threads, locked. */
#ifndef SERVER_PAGES_H
#define SERVER_PAGES_H

#include <pthread.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/limits.h"

typedef struct {
    const void *registry; /* what the names of tables were made with */
    slice scope;
    int64_t seq, salt; /* the commit before the page */
    uint64_t tables;   /* hash of the wanted ones, 0 = all */
    int64_t limit;
} page_key;

typedef struct {
    page_key key;
    slice commits; /* as they stand in the answer, commas between them */
    int64_t end_seq, end_salt;
    bool full; /* more commits do not change it */
    slice *
        authors; /* [PAGE_AUTHORS_MAX] with a part in it, also one that is not shown; in an arena */
    size_t author_count;
    bool crowded; /* more than that */
} feed_page;

/* While a page is read: commits of this device are in it; empty = of none. Copied into `a`. */
void page_author(feed_page *p, arena *a, slice device);

typedef struct {
    pthread_mutex_t lock;
    bool ready;
    struct kept_page *kept[PAGES_KEPT_MAX]; /* the latest used first */
    size_t count, bytes;
} page_list;

bool pages_open(page_list *l);
void pages_close(page_list *l);
/* A page for p->key that holds all there is up to `head` or is full, of which none of `mine` has a
 * part: its text is appended to `out`, its end is in *p. false: read it. */
bool pages_find(page_list *l, feed_page *p, int64_t head, const slice *const *mine,
                size_t mine_count, bytes *out);
/* Copies it, unless it can't be shared; one for the same key is replaced. */
void pages_keep(page_list *l, const feed_page *p, const slice *const *mine, size_t mine_count);

#endif
