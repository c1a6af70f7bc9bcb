/* Two queues under one lock. Workers serve the first, the writer the second; a request moves
 * between them until it is answered or parked.
 *
 * Memory: a request is charged for its body when it is submitted, and for what parsing made of it
 * afterwards, so that many large requests end in 503 and not in the kernel's hands. */
#include "server/pool.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "core/limits.h"
#include "godwit/godwit.h"
#include "server/gzip.h"
#include "server/log.h"

/* The janitor rests a multiple of the time it worked: a fifth of the writer's time beside pushes,
 * half of it where there are none. */
#define JANITOR_REST_BUSY 4
#define JANITOR_REST_IDLE 1
#define WATCH_EVERY_US    2000000 /* the disk, and what devices report */
#define OUTSIDE_EVERY_US  250000  /* what others have written */
#define BATCH_BYTES_MAX   (64u << 20)
#define GZIP_MIN_BYTES    1024 /* below, the frame costs more than it saves */

typedef struct {
    service_job *first, *last;
    size_t count;
} queue;

struct pool {
    pool_options options;
    pthread_mutex_t lock;
    pthread_cond_t work_ready, write_ready, hook_ready;
    queue work, writes, hooks;
    bool stopping; /* workers leave when nothing is left */
    bool writer_stopping;
    pthread_t writer;
    bool has_writer;
    struct worker {
        pool *pool;
        service_reader *reader;
        pthread_t thread;
        bool running;
    } * workers;
    int worker_count;
    struct asker {
        pool *pool;
        service_asker *asker;
        pthread_t thread;
        bool running;
    } askers[HOOK_WORKERS]; /* none runs without hooks */
    bool asker_stopping;
};

static request *request_of(service_job *job) {
    return (request *)(void *)job; /* the first member */
}

static void append(queue *q, request *r) {
    r->job.next = NULL;
    if (q->last) {
        q->last->next = &r->job;
    } else {
        q->first = &r->job;
    }
    q->last = &r->job;
    q->count++;
}

static request *take(queue *q) {
    service_job *job = q->first;
    ASSERT(job && q->count > 0);
    q->first = job->next;
    if (!q->first) {
        q->last = NULL;
    }
    q->count--;
    job->next = NULL;
    return request_of(job);
}

static void publish(pool *p) { /* under the lock */
    atomic_store(&p->options.metrics->queued_work, (int64_t)p->work.count);
    atomic_store(&p->options.metrics->queued_writes, (int64_t)p->writes.count);
}

/* ---- memory ---- */

static int64_t held(const pool *p) {
    return atomic_load(&p->options.metrics->held_bytes);
}

static void charge(pool *p, request *r) {
    size_t now = r->body.len + r->job.memory.used_bytes;
    if (now > r->charged_bytes) {
        atomic_fetch_add(&p->options.metrics->held_bytes, (int64_t)(now - r->charged_bytes));
        r->charged_bytes = now;
    }
}

void pool_release(pool *p, request *r) {
    atomic_fetch_sub(&p->options.metrics->held_bytes, (int64_t)r->charged_bytes);
    r->charged_bytes = 0;
}

bool pool_has_room(const pool *p, size_t body_bytes) {
    return held(p) + (int64_t)body_bytes <= p->options.memory_max / 2;
}

/* ---- moving requests ---- */

static void push(pool *p, request *r) {
    pthread_mutex_lock(&p->lock);
    bool write = r->stage == STAGE_WRITE, hook = r->stage == STAGE_HOOK;
    append(write ? &p->writes : hook ? &p->hooks : &p->work, r);
    pthread_cond_signal(write ? &p->write_ready : hook ? &p->hook_ready : &p->work_ready);
    publish(p);
    pthread_mutex_unlock(&p->lock);
}

bool pool_submit(pool *p, request *r) {
    pthread_mutex_lock(&p->lock);
    bool full = p->work.count >= SERVER_QUEUE_MAX || p->writes.count >= SERVER_QUEUE_MAX;
    pthread_mutex_unlock(&p->lock);
    if (full || !pool_has_room(p, r->body.len)) {
        return false;
    }
    charge(p, r);
    push(p, r);
    return true;
}

void pool_resubmit(pool *p, request *r) {
    push(p, r);
}

static void compress(request *r) {
    bytes packed;
    if (!r->gzip_wanted || r->job.answer.len < GZIP_MIN_BYTES) {
        return;
    }
    bytes_init(&packed, NULL, 0);
    if (gzip_deflate(bytes_view(&r->job.answer), &packed) == GODWIT_OK) {
        bytes_deinit(&r->job.answer);
        r->job.answer = packed;
        r->answer_is_gzip = true;
    }
}

static void finish(pool *p, request *r) {
    service_job *job = &r->job;
    job->park = job->park && !job->wait_over; /* nobody waits twice */
    if (r->stage != STAGE_HEAD && !job->park && (job->status == 0 || job->answer.failed)) {
        log_limited(LOG_ERROR, "no_answer", "route=%s status=%d", route_name(r->route->id),
                    job->status);
        bytes_clear(&job->answer);
        service_problem(job, 500, "internal", "the request could not be answered", NULL);
    }
    if (!job->park) {
        compress(r);
    }
    if (job->failure != GODWIT_OK) {
        log_limited(LOG_ERROR, "failed", "reason=%s", godwit_status_name(job->failure));
        job->failure = GODWIT_OK;
    }
    p->options.done(r);
}

/* ---- workers ---- */

static bool decompress(request *r) {
    bytes plain;
    bytes_init(&plain, NULL, 0);
    godwit_status status = gzip_inflate(bytes_view(&r->body), r->route->body_max, &plain);
    if (status == GODWIT_OK) {
        bytes_deinit(&r->body);
        r->body = plain;
        r->job.body = bytes_view(&r->body);
        r->body_is_gzip = false;
        return true;
    }
    if (status == GODWIT_LIMIT) {
        service_problem(&r->job, 413, "too-large", "the body is over the limit when decompressed",
                        NULL);
    } else if (status == GODWIT_NOMEM) {
        service_problem(&r->job, 503, "overloaded", "out of memory", NULL);
        r->job.retry_after_s = 1;
    } else {
        service_problem(&r->job, 400, "invalid-request", "the body is not valid gzip", NULL);
    }
    return false;
}

static void refuse_for_room(request *r) {
    service_problem(&r->job, 503, "overloaded", "too much is waiting; try again", NULL);
    r->job.retry_after_s = 1;
    r->job.wants_write = r->job.wants_read = false;
}

/* To where the job says it has to be written: by way of the hooks, or straight on. */
static void go_to_write(pool *p, request *r) {
    pthread_mutex_lock(&p->lock);
    bool full = p->hooks.count >= HOOK_QUEUE_MAX;
    pthread_mutex_unlock(&p->lock);
    if (r->job.wants_hook && full) {
        refuse_for_room(r);
        finish(p, r);
        return;
    }
    r->stage = r->job.wants_hook ? STAGE_HOOK : STAGE_WRITE;
    push(p, r);
}

/* True when the request goes on to be read by this worker. */
static bool prepare(struct worker *w, request *r) {
    pool *p = w->pool;
    if (r->body_is_gzip && !decompress(r)) {
        finish(p, r);
        return false;
    }
    charge(p, r);
    service_grants(p->options.service, w->reader, &r->job);
    if (r->job.status == 0) {
        service_prepare(p->options.service, &r->job);
    }
    charge(p, r);
    if (r->job.status == 0 && held(p) > p->options.memory_max) {
        refuse_for_room(r);
    }
    if (r->job.status == 0 && !p->options.admit(p->options.context, r)) {
        finish(p, r);
        return false;
    }
    if (r->job.status == 0 && r->job.wants_write) {
        go_to_write(p, r);
        return false;
    }
    if (r->job.status == 0 && r->job.wants_read) {
        r->stage = STAGE_READ;
        return true;
    }
    finish(p, r);
    return false;
}

static void work_on(struct worker *w, request *r) {
    service *s = w->pool->options.service;
    if (r->stage == STAGE_PREPARE && !prepare(w, r)) {
        return;
    }
    if (r->stage == STAGE_HEAD) {
        r->head = service_head(s, w->reader, &r->job, r->scope);
    } else {
        r->job.park = false;
        service_read(s, w->reader, &r->job);
    }
    finish(w->pool, r);
}

static void *worker_main(void *context) {
    struct worker *w = context;
    pool *p = w->pool;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->work.count == 0 && !p->stopping) {
            pthread_cond_wait(&p->work_ready, &p->lock);
        }
        if (p->work.count == 0) {
            break;
        }
        request *r = take(&p->work);
        publish(p);
        pthread_mutex_unlock(&p->lock);
        work_on(w, r);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- hooks ---- */

static void *asker_main(void *context) {
    struct asker *k = context;
    pool *p = k->pool;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->hooks.count == 0 && !p->asker_stopping) {
            pthread_cond_wait(&p->hook_ready, &p->lock);
        }
        if (p->hooks.count == 0) {
            break;
        }
        request *r = take(&p->hooks);
        pthread_mutex_unlock(&p->lock);
        service_ask(p->options.service, k->asker, &r->job);
        charge(p, r);
        if (r->job.status == 0) {
            r->stage = r->job.wants_hook ? STAGE_HOOK : STAGE_WRITE;
            push(p, r);
        } else {
            finish(p, r);
        }
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void stop_askers(pool *p) {
    pthread_mutex_lock(&p->lock);
    p->asker_stopping = true;
    pthread_cond_broadcast(&p->hook_ready);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < COUNT_OF(p->askers); i++) {
        if (p->askers[i].running) {
            pthread_join(p->askers[i].thread, NULL);
            p->askers[i].running = false;
        }
        service_asker_close(p->askers[i].asker);
        p->askers[i].asker = NULL;
    }
}

static godwit_status start_askers(pool *p) {
    for (size_t i = 0; i < COUNT_OF(p->askers); i++) {
        struct asker *k = &p->askers[i];
        k->pool = p;
        godwit_status status = service_asker_open(p->options.service, &k->asker);
        if (status != GODWIT_OK) {
            return status;
        }
        if (pthread_create(&k->thread, NULL, asker_main, k) != 0) {
            return GODWIT_NOMEM;
        }
        k->running = true;
    }
    return GODWIT_OK;
}

/* ---- the writer ---- */

static size_t take_batch(pool *p, service_job **batch) {
    size_t count = 0, total = 0;
    while (p->writes.count > 0 && count < SERVER_BATCH_MAX && total < BATCH_BYTES_MAX) {
        request *r = take(&p->writes);
        total += r->body.len;
        batch[count++] = &r->job;
    }
    publish(p);
    return count;
}

static void write_batch(pool *p, service_job **batch, size_t count) {
    service_write(p->options.service, batch, count, p->options.on_commit, p->options.context);
    atomic_fetch_add(&p->options.metrics->batches, 1);
    atomic_fetch_add(&p->options.metrics->batch_jobs, count);
    for (size_t i = 0; i < count; i++) {
        request *r = request_of(batch[i]);
        if (r->job.status == 0 && r->job.wants_hook) {
            go_to_write(p, r);
        } else if (r->job.status == 0 && r->job.wants_read) {
            r->stage = STAGE_READ;
            push(p, r);
        } else {
            finish(p, r);
        }
    }
}

static int64_t mono_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Waits for writes, but not beyond the janitor's next turn. Under the lock. */
static void wait_for_writes(pool *p, int64_t turn_us) {
    struct timespec until = {.tv_sec = (time_t)(turn_us / 1000000),
                             .tv_nsec = (long)(turn_us % 1000000) * 1000};
    while (p->writes.count == 0 && !p->writer_stopping && mono_us() < turn_us) {
        (void)pthread_cond_timedwait(&p->write_ready, &p->lock, &until);
    }
}

/* One short transaction of the janitor; the time of its next. What came meanwhile goes first, and
 * while there is much to clear it rests longer than it works. */
static int64_t tidy(pool *p, bool busy) {
    int64_t begin_us = mono_us();
    bool more = service_janitor(p->options.service, 0);
    int64_t now_us = mono_us();
    return now_us + (more ? (now_us - begin_us) * (busy ? JANITOR_REST_BUSY : JANITOR_REST_IDLE)
                          : p->options.janitor_every_ms * 1000);
}

static void *writer_main(void *context) {
    pool *p = context;
    service_job *batch[SERVER_BATCH_MAX];
    bool busy = false; /* something was written since the janitor's last turn */
    int64_t turn_us = mono_us() + p->options.janitor_every_ms * 1000;
    int64_t watch_us = 0;
    int64_t outside_us = service_has_outbox(p->options.service) ? 0 : INT64_MAX;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        int64_t next_us = turn_us < watch_us ? turn_us : watch_us;
        wait_for_writes(p, next_us < outside_us ? next_us : outside_us);
        if (p->writes.count == 0 && p->writer_stopping) {
            break;
        }
        size_t count = take_batch(p, batch);
        pthread_mutex_unlock(&p->lock);
        if (count > 0) {
            busy = true;
            write_batch(p, batch, count);
        }
        if (mono_us() >= outside_us) {
            bool more =
                service_external(p->options.service, p->options.on_commit, p->options.context);
            outside_us = mono_us() + (more ? 0 : OUTSIDE_EVERY_US);
        }
        if (mono_us() >= watch_us) {
            service_watch(p->options.service);
            watch_us = mono_us() + WATCH_EVERY_US;
        }
        if (mono_us() >= turn_us) {
            turn_us = tidy(p, busy);
            busy = false;
        }
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- life ---- */

static void join_workers(pool *p) {
    for (int i = 0; i < p->worker_count; i++) {
        if (p->workers[i].running) {
            pthread_join(p->workers[i].thread, NULL);
            p->workers[i].running = false;
        }
    }
}

/* Workers may still hand work to the writer and the writer to them: each is told to stop when the
 * other has nothing that could come back. The loops have no request left by then, so that one round
 * is enough. */
static void stop_threads(pool *p) {
    stop_askers(p);
    pthread_mutex_lock(&p->lock);
    p->writer_stopping = true;
    pthread_cond_broadcast(&p->write_ready);
    pthread_mutex_unlock(&p->lock);
    if (p->has_writer) {
        pthread_join(p->writer, NULL);
        p->has_writer = false;
    }
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work_ready);
    pthread_mutex_unlock(&p->lock);
    join_workers(p);
    ASSERT(p->work.count == 0);
}

void pool_close(pool *p) {
    if (!p) {
        return;
    }
    stop_threads(p);
    for (int i = 0; i < p->worker_count; i++) {
        service_reader_close(p->workers[i].reader);
    }
    pthread_cond_destroy(&p->work_ready);
    pthread_cond_destroy(&p->hook_ready);
    pthread_cond_destroy(&p->write_ready);
    pthread_mutex_destroy(&p->lock);
    mem_free(NULL, p->workers);
    mem_free(NULL, p);
}

static bool init_locks(pool *p) {
    pthread_condattr_t clock;
    if (pthread_mutex_init(&p->lock, NULL) != 0 || pthread_condattr_init(&clock) != 0) {
        return false;
    }
    bool ok = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 &&
              pthread_cond_init(&p->write_ready, &clock) == 0 &&
              pthread_cond_init(&p->work_ready, NULL) == 0 &&
              pthread_cond_init(&p->hook_ready, NULL) == 0;
    pthread_condattr_destroy(&clock);
    return ok;
}

static godwit_status start_threads(pool *p) {
    for (int i = 0; i < p->options.workers; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        godwit_status status = service_reader_open(p->options.service, &w->reader);
        if (status) {
            return status;
        }
        p->worker_count = i + 1;
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            return GODWIT_NOMEM;
        }
        w->running = true;
    }
    if (pthread_create(&p->writer, NULL, writer_main, p) != 0) {
        return GODWIT_NOMEM;
    }
    p->has_writer = true;
    return service_has_hooks(p->options.service) ? start_askers(p) : GODWIT_OK;
}

godwit_status pool_open(const pool_options *options, pool **out) {
    ASSERT(options->workers > 0);
    *out = NULL;
    pool *p = mem_resize(NULL, NULL, sizeof *p);
    size_t table_bytes = (size_t)options->workers * sizeof(struct worker);
    struct worker *workers = mem_resize(NULL, NULL, table_bytes);
    if (!p || !workers) {
        mem_free(NULL, p);
        mem_free(NULL, workers);
        return GODWIT_NOMEM;
    }
    memset(p, 0, sizeof *p);
    memset(workers, 0, table_bytes);
    p->options = *options;
    p->workers = workers;
    if (!init_locks(p)) {
        mem_free(NULL, p);
        mem_free(NULL, workers);
        return GODWIT_NOMEM;
    }
    godwit_status status = start_threads(p);
    if (status) {
        pool_close(p);
        return status;
    }
    *out = p;
    return GODWIT_OK;
}
