/* One thread that sleeps in store_signal_wait; others leave names under the lock and a byte in the
 * pipe. What fails is not tried again: the next turn's question makes up for it. */
#include "server/wakeup.h"

#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "core/limits.h"
#include "server/log.h"
#include "server/store.h"

#define TELL_EVERY_MS 50   /* at most, whatever is written */
#define LOOK_EVERY_MS 20   /* at most, whatever is told */
#define POLL_HEARD_MS 1000 /* between two looks at all heads while the others can be heard */
#define POLL_DEAF_MS  250  /* and where they can't */
#define TELL_MAX      256  /* scopes at once; more are told as "any" */

struct wakeup {
    store_signal *word;
    metrics *metrics;
    watched *watched;
    wakeup_fn news;
    void *context;
    arena scratch;
    bool marked; /* something was heard */
    pthread_t thread;
    bool has_thread;
    int pipe_read, pipe_write;
    pthread_mutex_t lock;
    bool has_lock;
    /* under the lock */
    bool stopping, signalled, tell_any;
    size_t tell_count;
    size_t tell_bytes[TELL_MAX];
    char tell[TELL_MAX][NAME_BYTES_MAX];
};

static int64_t mono_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

watched *wakeup_watched(wakeup *w) {
    return w->watched;
}

static void signal_thread(wakeup *w) { /* under the lock */
    if (!w->signalled) {
        w->signalled = true;
        ssize_t written = write(w->pipe_write, "!", 1);
        (void)written; /* a full pipe wakes it as well */
    }
}

void wakeup_tell(wakeup *w, slice scope, int64_t head) {
    (void)watched_news(w->watched, scope, head); /* its own word is no news */
    pthread_mutex_lock(&w->lock);
    bool there = w->tell_any;
    for (size_t i = 0; i < w->tell_count && !there; i++) {
        there = slice_equal((slice){w->tell[i], w->tell_bytes[i]}, scope);
    }
    if (!there && (w->tell_count == TELL_MAX || scope.len > NAME_BYTES_MAX)) {
        w->tell_any = true;
    } else if (!there) {
        memcpy(w->tell[w->tell_count], scope.ptr, scope.len);
        w->tell_bytes[w->tell_count++] = scope.len;
    }
    signal_thread(w);
    pthread_mutex_unlock(&w->lock);
}

/* ---- the thread ---- */

/* Whether something is left to tell, copied into the scratch. */
static size_t take_told(wakeup *w, slice **scopes) {
    size_t count = 0;
    pthread_mutex_lock(&w->lock);
    *scopes = ARENA_ARRAY(&w->scratch, slice, w->tell_count + 1);
    if (w->tell_any) {
        (*scopes)[count++] = SLICE("");
    }
    for (size_t i = 0; *scopes && !w->tell_any && i < w->tell_count; i++) {
        (*scopes)[count++] = arena_copy(&w->scratch, (slice){w->tell[i], w->tell_bytes[i]});
    }
    w->tell_any = false;
    w->tell_count = 0;
    pthread_mutex_unlock(&w->lock);
    return count;
}

/* true: something was told. */
static bool tell(wakeup *w) {
    slice *scopes = NULL;
    arena_reset(&w->scratch);
    size_t count = take_told(w, &scopes);
    if (count > 0 && !w->scratch.failed) {
        (void)!store_signal_send(w->word, scopes, count);
    }
    return count > 0;
}

static void look(wakeup *w, bool all) {
    watched_list list;
    arena_reset(&w->scratch);
    if (watched_take(w->watched, all, &w->scratch, &list) != GODWIT_OK || list.count == 0) {
        return;
    }
    bool *moved = ARENA_ARRAY(&w->scratch, bool, list.count);
    if (!moved || store_signal_heads(w->word, list.scopes, list.heads, moved, list.count)) {
        return;
    }
    for (size_t i = 0; i < list.count; i++) {
        if (moved[i] && watched_news(w->watched, list.scopes[i], list.heads[i])) {
            atomic_fetch_add(&w->metrics->moved_elsewhere[!all], 1);
            w->news(w->context, list.scopes[i], list.heads[i]);
        }
    }
}

static void heard(void *context, slice scope) {
    wakeup *w = context;
    w->marked = watched_mark(w->watched, scope) || w->marked;
}

static void note_hearing(wakeup *w, godwit_status status, godwit_status before) {
    atomic_store(&w->metrics->listening, status == GODWIT_OK);
    if (status != before) {
        log_event(LOG_INFO, "wakeups", "by=%s", status == GODWIT_OK ? "notify" : "poll");
    }
}

static bool drain_pipe(wakeup *w) {
    char sink[16];
    pthread_mutex_lock(&w->lock);
    while (w->signalled && read(w->pipe_read, sink, sizeof sink) == (ssize_t)sizeof sink) {
    }
    w->signalled = false;
    bool stopping = w->stopping;
    pthread_mutex_unlock(&w->lock);
    return stopping;
}

static int64_t least(int64_t x, int64_t y) {
    return x < y ? x : y;
}

static bool has_told(wakeup *w) {
    pthread_mutex_lock(&w->lock);
    bool any = w->tell_count > 0 || w->tell_any;
    pthread_mutex_unlock(&w->lock);
    return any;
}

static void *run(void *context) {
    wakeup *w = context;
    int64_t poll_at = 0, tell_at = 0, look_at = 0;
    godwit_status hearing = GODWIT_INTERNAL; /* not known */
    do {
        int64_t now = mono_ms();
        if (now >= tell_at && tell(w)) {
            tell_at = now + TELL_EVERY_MS;
        }
        if (now >= poll_at || (w->marked && now >= look_at)) {
            bool all = now >= poll_at;
            w->marked = false;
            look(w, all);
            look_at = now + LOOK_EVERY_MS;
            poll_at = all ? now + (hearing == GODWIT_OK ? POLL_HEARD_MS : POLL_DEAF_MS) : poll_at;
        }
        int64_t until = has_told(w) ? least(poll_at, tell_at) : poll_at;
        until = w->marked ? least(until, look_at) : until;
        now = mono_ms();
        godwit_status before = hearing;
        hearing = store_signal_wait(w->word, w->pipe_read, until > now ? until - now : 0, heard, w);
        note_hearing(w, hearing, before);
    } while (!drain_pipe(w));
    (void)tell(w);
    return NULL;
}

/* ---- life ---- */

static bool keep_end(int fd) {
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static godwit_status start(wakeup *w) {
    int ends[2];
    if (pthread_mutex_init(&w->lock, NULL) != 0) {
        return GODWIT_NOMEM;
    }
    w->has_lock = true;
    if (pipe(ends) != 0) {
        return GODWIT_IO;
    }
    w->pipe_read = ends[0];
    w->pipe_write = ends[1];
    godwit_status status =
        keep_end(ends[0]) && keep_end(ends[1]) ? watched_open(&w->watched) : GODWIT_IO;
    if (status == GODWIT_OK && pthread_create(&w->thread, NULL, run, w) != 0) {
        status = GODWIT_NOMEM;
    }
    w->has_thread = status == GODWIT_OK;
    return status;
}

godwit_status wakeup_open(store_signal *word, metrics *m, wakeup_fn news, void *context,
                          wakeup **out) {
    *out = NULL;
    wakeup *w = mem_resize(NULL, NULL, sizeof *w);
    if (!w) {
        store_signal_close(word);
        return GODWIT_NOMEM;
    }
    memset(w, 0, sizeof *w);
    w->word = word;
    w->metrics = m;
    w->news = news;
    w->context = context;
    w->pipe_read = w->pipe_write = -1;
    arena_init(&w->scratch, NULL, 0);
    godwit_status status = start(w);
    if (status != GODWIT_OK) {
        wakeup_close(w);
        return status;
    }
    *out = w;
    return GODWIT_OK;
}

void wakeup_close(wakeup *w) {
    if (!w) {
        return;
    }
    if (w->has_thread) {
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        signal_thread(w);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
    }
    if (w->pipe_read >= 0) {
        close(w->pipe_read);
        close(w->pipe_write);
    }
    if (w->has_lock) {
        pthread_mutex_destroy(&w->lock);
    }
    watched_close(w->watched);
    arena_deinit(&w->scratch);
    store_signal_close(w->word);
    mem_free(NULL, w);
}
