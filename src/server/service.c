/* The server's verbs: life, dispatch, problems. See service.h for which thread calls what. */
#include "server/grants.h"
#include "server/service_inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool among(const slice *scopes, size_t count, slice scope) {
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(scopes[i], scope)) {
            return true;
        }
    }
    return false;
}

bool principal_may_write(const principal *p, slice scope) {
    return among(p->scopes, p->scope_count, scope);
}

bool principal_may_read(const principal *p, slice scope) {
    return principal_may_write(p, scope) || among(p->read_scopes, p->read_scope_count, scope);
}

int64_t service_now(const service *s) {
    if (s->now_ms) {
        return s->now_ms(s->context);
    }
    struct timespec now;
    return clock_gettime(CLOCK_REALTIME, &now) == 0
               ? (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000
               : 0;
}

/* ---- life ---- */

godwit_status service_reload(service *s, char *message) {
    registry *fresh = NULL;
    godwit_status status = registry_build(s->store, s->config, !s->dev, &fresh, message);
    if (status != GODWIT_OK) {
        return status;
    }
    status = store_use(s->store, fresh->tables);
    if (status != GODWIT_OK) {
        snprintf(message, 512, "out of memory");
        registry_free(fresh);
        return status;
    }
    fresh->older = atomic_load_explicit(&s->current, memory_order_relaxed);
    atomic_store_explicit(&s->current, fresh, memory_order_release);
    return GODWIT_OK;
}

/* A library is loaded once before anything starts, and has what the tables want of it. */
static godwit_status check_hooks(service *s, char *message) {
    bool validate = false, resolve = false;
    hook_worker *worker = NULL;
    registry_config_hooks(s->config, &validate, &resolve);
    if (!s->hooks) {
        if (validate || resolve) {
            snprintf(message, 512,
                     "%s needs a library of hooks: name it in [server] as hooks = PATH",
                     validate ? "validate = yes" : "policy custom");
            return GODWIT_INVALID;
        }
        return GODWIT_OK;
    }
    godwit_status status = hook_worker_open(s->hooks, &worker, message);
    if (status != GODWIT_OK) {
        return status;
    }
    s->hooks_validate = hook_worker_validates(worker);
    if ((validate && !hook_worker_validates(worker)) ||
        (resolve && !hook_worker_resolves(worker))) {
        snprintf(message, 512, "the hooks %.300s have no %s function, which a table needs",
                 s->hooks->library,
                 validate && !hook_worker_validates(worker) ? "validate" : "resolve");
        status = GODWIT_INVALID;
    }
    hook_worker_close(worker);
    return status;
}

static godwit_status open_grants(service *s, const service_options *options, char *message) {
    service_reader *r = NULL;
    godwit_status status = grants_open(options->scopes_sql, options->scopes_ttl_ms, &s->grants);
    if (status == GODWIT_OK) {
        status = service_reader_open(s, &r);
    }
    if (status == GODWIT_OK) {
        status = grants_try(s->grants, r->store, message);
    } else {
        snprintf(message, 512, "scopes_sql can't be tried: %s", "out of memory");
    }
    service_reader_close(r);
    return status;
}

bool service_asks_scopes(const service *s) {
    return s->grants != NULL;
}

void service_grants(service *s, service_reader *r, service_job *job) {
    (void)(s->grants && grants_ask(s->grants, r->store, job));
}

/* Rights may have changed while the request waited. */
static bool still_granted(service *s, service_reader *r, service_job *job, slice scope) {
    if (!s->grants) {
        return true;
    }
    if (!grants_ask(s->grants, r->store, job)) {
        return false;
    }
    if (!principal_may_read(&job->who, scope)) {
        service_problem(job, 403, "scope-forbidden", "the token does not allow this scope", NULL);
        return false;
    }
    return true;
}

godwit_status service_open(const service_options *options, service **out, char *message) {
    *out = NULL;
    service *s = calloc(1, sizeof *s);
    if (!s) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    s->dev = options->dev;
    s->hooks = options->hooks;
    s->read_only = options->read_only;
    s->read_only_count = options->read_only_count;
    s->now_ms = options->now_ms;
    s->context = options->context;
    s->retain = options->retain ? *options->retain : retain_default;
    arena_init(&s->batch, NULL, 0);
    if (!seen_open(&s->seen) || !pages_open(&s->pages)) {
        snprintf(message, 512, "out of memory");
        service_close(s);
        return GODWIT_NOMEM;
    }
    godwit_status status = registry_config_load(options->config_tables, &s->config, message);
    if (status == GODWIT_OK) {
        status = check_hooks(s, message);
    }
    if (status == GODWIT_OK) {
        status = store_open(options->store, &s->store, message);
    }
    if (status == GODWIT_OK) {
        status = registry_rename(s->store, s->config, message);
    }
    if (status == GODWIT_OK && options->schema_file) {
        status = store_schema_file(s->store, options->schema_file, message);
    }
    if (status == GODWIT_OK) {
        status = service_reload(s, message);
    }
    if (status == GODWIT_OK) {
        status = store_id(s->store, s->store_id);
        snprintf(message, 512, "%s", status == GODWIT_OK ? "" : store_message(s->store));
    }
    if (status == GODWIT_OK && options->role_count > 0 && options->dev) {
        snprintf(message, 512,
                 "rls_roles and dev exclude each other: tables that devices make have"
                 " no policies");
        status = GODWIT_INVALID;
    } else if (status == GODWIT_OK && options->role_count > 0) {
        status = store_roles_check(s->store, options->roles, options->role_count, message);
    }
    if (status == GODWIT_OK && options->scopes_sql) {
        status = open_grants(s, options, message);
    }
    if (status == GODWIT_OK) {
        bool any = false;
        s->has_outbox = store_outbox_any(s->store, &any) != GODWIT_UNSUPPORTED;
        status = store_outbox_again(s->store);
        snprintf(message, 512, "%s", status == GODWIT_OK ? "" : store_message(s->store));
    }
    if (status == GODWIT_OK) {
        atomic_store(&s->unready, (int)store_probe(s->store, false));
    }
    if (status != GODWIT_OK) {
        service_close(s);
        return status;
    }
    *out = s;
    return GODWIT_OK;
}

bool service_has_outbox(const service *s) {
    return s->has_outbox;
}

void service_close(service *s) {
    if (!s) {
        return;
    }
    store_close(s->store);
    registry *r = atomic_load_explicit(&s->current, memory_order_relaxed);
    while (r) {
        registry *older = r->older;
        registry_free(r);
        r = older;
    }
    registry_config_free(s->config);
    upcaster_free(s->upcaster);
    seen_close(&s->seen);
    pages_close(&s->pages);
    grants_close(s->grants);
    arena_deinit(&s->batch);
    free(s);
}

void service_job_init(service_job *job, service_verb verb) {
    memset(job, 0, sizeof *job);
    job->verb = verb;
    job->retry_after_s = -1;
    arena_init(&job->memory, NULL, 0);
    bytes_init(&job->answer, NULL, ANSWER_BYTES_MAX);
}

void service_job_deinit(service_job *job) {
    arena_deinit(&job->memory);
    bytes_deinit(&job->answer);
}

/* ---- answers ---- */

static const char *title_of(const char *type) {
    static const struct {
        const char *type, *title;
    } titles[] = {
        {"invalid-request", "The request is not valid"},
        {"key-mismatch", "An idempotency key does not match its content"},
        {"too-large", "The request is over a limit"},
        {"unauthenticated", "A valid token is needed"},
        {"scope-forbidden", "The token does not allow this scope"},
        {"scope-read-only", "The scope may only be read"},
        {"device-revoked", "The device may not be used"},
        {"device-unknown", "The device is not registered in this scope"},
        {"device-retired", "The device has been retired"},
        {"device-forked", "The server knows another history of this device"},
        {"sequence-gap", "Operations before these have not arrived"},
        {"history-regressed", "The server has not seen what the device believes delivered"},
        {"schema-mismatch", "The declared tables disagree with the server's"},
        {"cursor-invalid", "The cursor does not belong to this history"},
        {"cursor-expired", "The history at the cursor is no longer kept"},
        {"bootstrap-required", "The history no longer reaches back to the beginning"},
        {"idempotency-mismatch", "The key was used with other content"},
        {"overloaded", "The server can't do this now"},
        {"unsupported", "Not supported by this version"},
    };
    for (size_t i = 0; i < COUNT_OF(titles); i++) {
        if (strcmp(titles[i].type, type) == 0) {
            return titles[i].title;
        }
    }
    return "The request failed";
}

void service_problem(service_job *job, int status, const char *type, const char *detail,
                     const char *members) {
    bytes_clear(&job->answer);
    wire_problem_write(&job->answer, status, type, title_of(type), detail, members);
    job->status = status;
    job->content_type = "application/problem+json";
    job->wants_write = false;
    job->wants_read = false;
    job->park = false;
    job->etag[0] = '\0';
}

void service_fail(service_job *job, godwit_status status) {
    job->failure = status;
    bool passes = status == GODWIT_NOMEM || status == GODWIT_BUSY || status == GODWIT_FULL ||
                  status == GODWIT_IO;
    if (passes) {
        service_problem(job, 503, "overloaded",
                        status == GODWIT_FULL ? "the server's disk is full" : "try again", NULL);
        job->retry_after_s = 1;
    } else {
        service_problem(job, 500, "internal", "the server could not do this", NULL);
    }
}

void service_done(service_job *job) {
    if (job->answer.failed) {
        service_fail(job, GODWIT_NOMEM);
        return;
    }
    job->status = 200;
    job->content_type = "application/json";
    job->wants_write = false;
    job->wants_read = false;
}

/* ---- stages ---- */

void service_write(service *s, service_job **jobs, size_t count, service_commit_fn on_commit,
                   void *context) {
    for (size_t i = 0; i < count; i++) {
        if (jobs[i]->verb == VERB_REGISTER && jobs[i]->wants_write) {
            register_run(s, jobs[i]);
        }
    }
    push_run(s, jobs, count, on_commit, context);
}

godwit_status service_signal_open(service *s, struct store_signal **out) {
    return store_signal_open(s->store, out);
}

godwit_status service_reader_open(service *s, service_reader **out) {
    *out = NULL;
    service_reader *r = calloc(1, sizeof *r);
    if (!r) {
        return GODWIT_NOMEM;
    }
    arena_init(&r->scratch, NULL, 0);
    godwit_status status = store_reader_open(s->store, &r->store);
    if (status != GODWIT_OK) {
        service_reader_close(r);
        return status;
    }
    *out = r;
    return GODWIT_OK;
}

void service_reader_close(service_reader *r) {
    if (r) {
        store_reader_close(r->store);
        arena_deinit(&r->scratch);
        free(r);
    }
}

void service_read(service *s, service_reader *r, service_job *job) {
    int64_t begun_us = service_mono_us();
    arena_reset(&r->scratch);
    job->park = false;
    if (!still_granted(s, r, job, ((job_state *)job->state)->scope)) {
        return;
    }
    r->reg = service_registry(s);
    godwit_status status = store_read_begin(r->store, r->reg->tables);
    if (status != GODWIT_OK) {
        store_read_end(r->store);
        service_fail(job, status);
        return;
    }
    store_role role = {job->who.role, job->who.claims, job->verb != VERB_HISTORY};
    store_read_as(r->store, &role);
    if (!admit_reader(r, job, ((job_state *)job->state)->scope)) {
        store_read_end(r->store);
        return;
    }
    switch (job->verb) {
    case VERB_SYNC:
    case VERB_PUSH:
    case VERB_CHANGES:
        pull_run(s, r, job);
        break;
    case VERB_SNAPSHOT:
        snapshot_run(r, job);
        break;
    case VERB_CONFLICTS:
        conflicts_run(r, job);
        break;
    case VERB_HISTORY:
        history_run(r, job);
        break;
    case VERB_RECONCILE:
        reconcile_run(r, job);
        break;
    case VERB_REGISTER:
    case VERB_META:
        service_problem(job, 500, "internal", "nothing to read", NULL);
        break;
    }
    store_read_end(r->store);
    stats_step_took(&s->stats, STEP_READ, service_mono_us() - begun_us);
}

int64_t service_mono_us(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void service_metrics(const service *s, bytes *b) {
    stats_write(&s->stats, b);
    prom_single(b, "godwit_ready", "gauge", "1 when the store can be written to.",
                service_ready(s) == GODWIT_OK);
}

godwit_status service_ready(const service *s) {
    return (godwit_status)atomic_load(&s->unready);
}

int64_t service_head(service *s, service_reader *r, service_job *job, slice scope) {
    store_scope state = {0};
    arena_reset(&r->scratch);
    if (!still_granted(s, r, job, scope)) {
        return -1;
    }
    godwit_status status = store_read_begin(r->store, service_registry(s)->tables);
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else if (admit_reader(r, job, scope)) {
        status = store_read_scope(r->store, scope, &state);
        if (status != GODWIT_OK) {
            service_fail(job, status);
        }
    }
    store_read_end(r->store);
    return job->status ? -1 : state.head;
}
