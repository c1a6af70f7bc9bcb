/* The background thread.
 *
 *            +-- local commit, hint, interval, news from the server --+
 *            v                                                        |
 *   start -> PASS --both sides agree--> WATCH (a while) -> LISTEN ----+
 *            ^  \--failed--> WAIT until the next attempt, or a hint
 *            +----------------/
 *
 * Guarantees: the host's connection and its hooks are not touched; no transaction is open while it
 * waits; godwit_stop ends a request in flight within a moment (what it carried goes again) and a
 * database transaction at its end. Local commits are noticed by PRAGMA data_version of the own
 * connection: no write, no hook. While passes fail local commits wake nobody: the next attempt is
 * due when backoff says. */
#include "client/runner.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "client/track.h"
#include "core/backoff.h"
#include "core/limits.h"

#define INTERVAL_MS     60000 /* default: between passes when nothing else happens */
#define LOCAL_MS        250   /* default: between looks at the database */
#define WATCH_MS        1500 /* after sending: more is likely to come, and the connection is open */
#define PASS_MAX_MS     600000
#define TURN_MIN_MS     200 /* another process is syncing */
#define TURN_MAX_MS     1000
#define LISTEN_TRIES    3 /* failures while passes succeed, until listening is left for a while */
#define LISTEN_AGAIN_MS 300000
#define BUSY_STEP_MS    10
#define PATIENCE_MS     1000
#define PATIENCE_MAX_MS REQUEST_TIMEOUT_MS
#define NO_HINT         INT64_MAX

struct runner {
    /* set before the thread begins */
    pthread_t thread;
    char *path;
    godwit_options options;
    godwit_run_options run;
    int busy_ms;
    /* shared */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stopping;
    _Atomic int64_t hint_at_ms; /* mono: a pass is due then; NO_HINT = not for that reason */
    runner_pass latest;         /* under `lock` */
    /* the thread's own */
    godwit *g;
    int64_t version;      /* of the database when it was last looked at */
    int64_t next_look_ms; /* mono */
    bool local;           /* something to send was seen */
    bool given_up;        /* this pass, for its request hung when a hint came */
    int64_t patience_ms;  /* with a request, when there is a hint */
    int listen_failures;
    int64_t listen_from_ms; /* mono */
    listen_turn turn;
};

static int64_t mono_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* From 0 to max_ms; without entropy always the same, which is only impolite. */
static int64_t chance(runner *r, int64_t max_ms) {
    uint64_t drawn = 0;
    return client_entropy(r->g, &drawn, sizeof drawn) == GODWIT_OK
               ? (int64_t)(drawn % ((uint64_t)max_ms + 1))
               : max_ms;
}

/* ---- Waiting ---- */

static bool hinted(runner *r) {
    return mono_ms() >= atomic_load(&r->hint_at_ms);
}

/* A stop, or a hint whose time has come. */
static bool interrupted(runner *r) {
    return atomic_load(&r->stopping) || hinted(r);
}

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Sleeps until mono time `until_ms` or an interruption. */
static void sleep_until(runner *r, int64_t until_ms) {
    pthread_mutex_lock(&r->lock);
    while (!interrupted(r) && mono_ms() < until_ms) {
        int64_t at_ms = earlier(until_ms, atomic_load(&r->hint_at_ms));
        struct timespec at = {.tv_sec = (time_t)(at_ms / 1000),
                              .tv_nsec = (long)(at_ms % 1000) * 1000000};
        (void)pthread_cond_timedwait(&r->wake, &r->lock, &at);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Looks at the database when it is time to; whether there is something to send. */
static bool look(runner *r) {
    int64_t now = mono_ms();
    if (r->local || now < r->next_look_ms) {
        return r->local;
    }
    r->next_look_ms = now + r->run.local_ms;
    int64_t version = listen_version(r->g);
    if (version != r->version) {
        r->version = version;
        bool work = false;
        r->local = listen_for_work(r->g, &work) == GODWIT_OK && work;
    }
    return r->local;
}

/* A request that was out while the network was away may hang on a connection that is no more until
 * its time is over. When a hint's time has come it is begun again, unless it has only just begun;
 * later each time, so that hints that keep coming do not starve a slow network. */
static int cancel_pass(void *context) {
    runner *r = context;
    int64_t asked_ms = r->g->asked_ms;
    if (asked_ms && hinted(r) && client_mono_ms(r->g) - asked_ms >= r->patience_ms) {
        r->given_up = true;
    }
    return r->given_up || atomic_load(&r->stopping);
}

static int cancel_listening(void *context) {
    runner *r = context;
    return interrupted(r) || look(r);
}

/* SQLite waits here for other writers: not on after a stop. */
static int on_busy(void *context, int tries) {
    runner *r = context;
    if (atomic_load(&r->stopping) || tries * BUSY_STEP_MS >= r->busy_ms) {
        return 0;
    }
    const struct timespec step = {0, BUSY_STEP_MS * 1000000L};
    (void)nanosleep(&step, NULL);
    return 1;
}

/* Looks at the database until `until_ms`; true: there is something to send. */
static bool watch_until(runner *r, int64_t until_ms) {
    while (!interrupted(r) && !look(r) && mono_ms() < until_ms) {
        sleep_until(r, earlier(r->next_look_ms, until_ms));
    }
    return r->local;
}

/* Until something is to be done after a pass that went well. */
static void wait_for_reason(runner *r, bool sent) {
    int64_t end = mono_ms() + r->run.interval_ms;
    if (sent && watch_until(r, mono_ms() + WATCH_MS)) {
        return;
    }
    while (!interrupted(r) && !look(r) && mono_ms() < end) {
        if (r->run.wait_seconds <= 0 || mono_ms() < r->listen_from_ms) {
            (void)watch_until(r, r->run.wait_seconds > 0 ? earlier(r->listen_from_ms, end) : end);
            continue;
        }
        r->g->cancelled = cancel_listening;
        r->turn.wait_s = r->run.wait_seconds;
        listen_result heard = listen_for_news(r->g, &r->turn);
        r->g->cancelled = cancel_pass;
        if (heard == LISTEN_NEWS) {
            r->listen_failures = 0;
            return;
        }
        if (heard == LISTEN_FAILED) {
            /* the pass that follows finds out what is wrong; all who listened come back at once */
            bool often = ++r->listen_failures >= LISTEN_TRIES;
            r->listen_from_ms = often ? mono_ms() + LISTEN_AGAIN_MS : 0;
            r->listen_failures = often ? 0 : r->listen_failures;
            sleep_until(r, mono_ms() + chance(r, BACKOFF_BASE_MS));
            return;
        }
        r->listen_failures = 0;
    }
}

static int64_t next_attempt_ms(runner *r) {
    int64_t at_ms = 0;
    if (client_meta_int(r->g, "next_attempt_ms", 0, &at_ms) != GODWIT_OK) {
        at_ms = 0;
    }
    return at_ms;
}

/* Until the next attempt. The wall clock may be set meanwhile, and another process may hint: it
 * looks again every few seconds. */
static void wait_for_attempt(runner *r, int64_t at_least_ms) {
    int64_t begun = mono_ms();
    int64_t left = 1;
    while (!interrupted(r) && left > 0) {
        left = backoff_left_ms(next_attempt_ms(r), client_wall_ms(r->g));
        int64_t floor = begun + at_least_ms - mono_ms();
        left = left > floor ? left : floor;
        if (left > 0) {
            sleep_until(r, mono_ms() + (left < 2000 ? left : 2000));
        }
    }
}

/* ---- The thread ---- */

static void wait_after(runner *r, godwit_status status, bool sent) {
    bool work = false;
    if (status == GODWIT_OK) {
        wait_for_reason(r, sent);
    } else if (status == GODWIT_BUSY) {
        sleep_until(r, mono_ms() + TURN_MIN_MS + chance(r, TURN_MAX_MS - TURN_MIN_MS));
        if (!interrupted(r) && listen_for_work(r->g, &work) == GODWIT_OK && !work) {
            wait_for_reason(r, false); /* the other has done it */
        }
    } else if (godwit_status_class(status) == GODWIT_CLASS_RETRY || status == GODWIT_PROTOCOL) {
        wait_for_attempt(r, status == GODWIT_CANCELLED ? 0 : TURN_MIN_MS);
    } else {
        wait_for_attempt(r, r->run.interval_ms); /* needs a person: new settings come with a hint */
    }
}

/* Before a pass. A hint says that this may be another network: connections of the one before are no
 * use, and neither is what was thought of listening. */
static void take_hint(runner *r) {
    if (atomic_exchange(&r->hint_at_ms, NO_HINT) != NO_HINT) {
        pump_disconnect(r->g);
        r->listen_failures = 0;
        r->listen_from_ms = 0;
    }
    r->patience_ms = !r->given_up                       ? PATIENCE_MS
                     : r->patience_ms < PATIENCE_MAX_MS ? 2 * r->patience_ms
                                                        : PATIENCE_MAX_MS;
    r->given_up = false;
}

static void note_pass(runner *r, godwit_status status, const char *message) {
    pthread_mutex_lock(&r->lock);
    r->latest.passes++;
    r->latest.status = status;
    snprintf(r->latest.message, sizeof r->latest.message, "%s", message);
    pthread_mutex_unlock(&r->lock);
}

static void run_passes(runner *r) {
    godwit_class cls = GODWIT_CLASS_OK;
    while (!atomic_load(&r->stopping) && cls != GODWIT_CLASS_CORRUPT) {
        godwit_sync_report report;
        take_hint(r);
        r->version = listen_version(r->g);
        r->local = false;
        godwit_status status = godwit_sync(r->g, PASS_MAX_MS, &report);
        cls = godwit_status_class(status);
        if (status == GODWIT_CANCELLED) {
            continue;
        }
        note_pass(r, status, godwit_message(r->g));
        if (r->run.on_pass) {
            r->run.on_pass(r->run.context, status, &report, godwit_message(r->g));
        }
        wait_after(r, status, report.sent > 0);
    }
}

/* Without a handle: nothing but a stop ends it. */
static void open_pause(runner *r) {
    int64_t until_ms = mono_ms() + TURN_MAX_MS;
    struct timespec at = {.tv_sec = (time_t)(until_ms / 1000),
                          .tv_nsec = (long)(until_ms % 1000) * 1000000};
    pthread_mutex_lock(&r->lock);
    while (!atomic_load(&r->stopping) && mono_ms() < until_ms) {
        (void)pthread_cond_timedwait(&r->wake, &r->lock, &at);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Opens the own handle; tries again while what is in the way passes. */
static godwit_status open_own(runner *r) {
    godwit_status status = GODWIT_CANCELLED;
    while (!atomic_load(&r->stopping)) {
        status = godwit_open(r->path, &r->options, &r->g);
        if (status == GODWIT_OK || godwit_status_class(status) != GODWIT_CLASS_RETRY) {
            break;
        }
        open_pause(r);
    }
    return status;
}

static void *thread_main(void *context) {
    runner *r = context;
    godwit_status status = open_own(r);
    if (status == GODWIT_OK) {
        r->g->cancelled = cancel_pass;
        r->g->cancel_context = r;
        (void)sqlite3_busy_handler(r->g->db.handle, on_busy, r);
        run_passes(r);
        godwit_close(r->g);
        r->g = NULL;
    } else if (status != GODWIT_CANCELLED) {
        godwit_sync_report none = {0};
        note_pass(r, status, godwit_status_text(status));
        if (r->run.on_pass) {
            r->run.on_pass(r->run.context, status, &none, godwit_status_text(status));
        }
    }
    return NULL;
}

/* ---- Starting and stopping ---- */

static void destroy(runner *r, const godwit_allocator *allocator) {
    (void)pthread_cond_destroy(&r->wake);
    (void)pthread_mutex_destroy(&r->lock);
    mem_free(allocator, r->path);
    mem_free(allocator, r);
}

static bool init_locks(runner *r) {
    pthread_condattr_t clock;
    if (pthread_mutex_init(&r->lock, NULL) != 0) {
        return false;
    }
    bool ok = pthread_condattr_init(&clock) == 0;
    if (ok) {
        ok = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 &&
             pthread_cond_init(&r->wake, &clock) == 0;
        (void)pthread_condattr_destroy(&clock);
    }
    if (!ok) {
        (void)pthread_mutex_destroy(&r->lock);
    }
    return ok;
}

/* No signal of the host's is for this thread. */
static int create_thread(runner *r) {
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&r->thread, NULL, thread_main, r);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* A file that a second connection can open in the same way. */
static godwit_status check_file(godwit *g, const char **path) {
    sqlite3_vfs *vfs = NULL;
    *path = sqlite3_db_filename(g->db.handle, "main");
    if (!*path || !**path) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "a database without a file can't be synced in the background");
    }
    if (sqlite3_file_control(g->db.handle, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK ||
        vfs != sqlite3_vfs_find(NULL)) {
        return client_fail(g, GODWIT_UNSUPPORTED,
                           "the database is not opened through SQLite's default VFS: use"
                           " godwit_sync or godwit_next");
    }
    return sqlite3_threadsafe()
               ? GODWIT_OK
               : client_fail(g, GODWIT_UNSUPPORTED, "this SQLite is built without threads");
}

static void fill_in(runner *r, const godwit_run_options *run) {
    bool built_in = !r->options.host.exchange;
    r->run = run ? *run : (godwit_run_options){0};
    r->run.interval_ms = r->run.interval_ms > 0 ? r->run.interval_ms : INTERVAL_MS;
    r->run.local_ms = r->run.local_ms > 0 ? r->run.local_ms : LOCAL_MS;
    if (r->run.wait_seconds == 0) {
        r->run.wait_seconds = built_in ? WAIT_S_MAX : -1;
    }
    r->run.wait_seconds = r->run.wait_seconds < WAIT_S_MAX ? r->run.wait_seconds : WAIT_S_MAX;
    r->busy_ms = r->options.busy_timeout_ms > 0 ? r->options.busy_timeout_ms : BUSY_TIMEOUT_MS;
}

static godwit_status start(godwit *g, const godwit_run_options *run) {
    const char *path = NULL;
    godwit_status status = check_file(g, &path);
    if (status != GODWIT_OK) {
        return status;
    }
    size_t bytes_needed = strlen(path) + 1;
    runner *r = mem_resize(g->allocator, NULL, sizeof *r);
    char *copy = mem_resize(g->allocator, NULL, bytes_needed);
    if (!r || !copy) {
        mem_free(g->allocator, r);
        mem_free(g->allocator, copy);
        return GODWIT_NOMEM;
    }
    memset(r, 0, sizeof *r);
    memcpy(copy, path, bytes_needed);
    r->path = copy;
    r->options = g->options;
    atomic_init(&r->hint_at_ms, NO_HINT);
    fill_in(r, run);
    if (!init_locks(r)) {
        mem_free(g->allocator, copy);
        mem_free(g->allocator, r);
        return GODWIT_NOMEM;
    }
    if (create_thread(r) != 0) {
        destroy(r, g->allocator);
        return client_fail(g, GODWIT_NOMEM, "a thread could not be started");
    }
    g->runner = r;
    return GODWIT_OK;
}

godwit_status godwit_start(godwit *g, const godwit_run_options *options) {
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    if (options &&
        (options->interval_ms < 0 || options->local_ms < 0 || options->wait_seconds < -1)) {
        return client_leave(g, client_fail(g, GODWIT_INVALID,
                                           "interval_ms and local_ms are times in milliseconds, 0 ="
                                           " default; wait_seconds -1 = never"));
    }
    return client_leave(g, g->runner ? GODWIT_OK : start(g, options));
}

static void poke(runner *r) {
    pthread_mutex_lock(&r->lock);
    (void)pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void runner_end(godwit *g) {
    runner *r = g->runner;
    if (r) {
        atomic_store(&r->stopping, true);
        poke(r);
        (void)pthread_join(r->thread, NULL);
        destroy(r, g->allocator);
        g->runner = NULL;
    }
}

void runner_hint(godwit *g, int64_t in_ms) {
    if (g->runner) {
        int64_t at_ms = mono_ms() + in_ms;
        int64_t known_ms = atomic_load(&g->runner->hint_at_ms);
        while (at_ms < known_ms && /* hints that keep coming must not put it off */
               !atomic_compare_exchange_weak(&g->runner->hint_at_ms, &known_ms, at_ms)) {
        }
        poke(g->runner);
    }
}

bool runner_inside(const godwit *g) {
    return g->runner && pthread_equal(pthread_self(), g->runner->thread);
}

void runner_latest(godwit *g, runner_pass *out) {
    *out = (runner_pass){0};
    if (g->runner) {
        pthread_mutex_lock(&g->runner->lock);
        *out = g->runner->latest;
        pthread_mutex_unlock(&g->runner->lock);
    }
}

godwit_status godwit_stop(godwit *g) {
    if (!g || runner_inside(g)) {
        return GODWIT_MISUSE; /* it would wait for itself */
    }
    runner_end(g);
    return GODWIT_OK;
}

int godwit_running(const godwit *g) {
    return g && g->runner;
}
