/* A table of answers by the hash of the token's claims, direct-mapped: two tokens at one place take
 * turns asking the database, which is slower and never wrong. */
#include "server/grants.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/sha256.h"
#include "server/service_inner.h"

#define PLACES 1024

typedef struct {
    uint8_t key[SHA256_BYTES];
    int64_t until_us; /* 0 = free */
    size_t len;
    char *text; /* per scope: 'r' or 'w', the name, NUL */
} place;

struct grants {
    const char *sql;
    int64_t ttl_us;
    pthread_mutex_t lock;
    place places[PLACES];
};

godwit_status grants_open(const char *sql, int64_t ttl_ms, grants **out) {
    *out = NULL;
    grants *g = calloc(1, sizeof *g);
    if (!g || pthread_mutex_init(&g->lock, NULL) != 0) {
        free(g);
        return GODWIT_NOMEM;
    }
    g->sql = sql;
    g->ttl_us = ttl_ms * 1000;
    *out = g;
    return GODWIT_OK;
}

void grants_close(grants *g) {
    if (!g) {
        return;
    }
    for (size_t i = 0; i < PLACES; i++) {
        free(g->places[i].text);
    }
    pthread_mutex_destroy(&g->lock);
    free(g);
}

godwit_status grants_try(const grants *g, store_reader *r, char *message) {
    store_grants found;
    arena a;
    arena_init(&a, NULL, 0);
    godwit_status status = store_read_grants(r, &a, g->sql, (slice){0}, (slice){0}, &found);
    arena_deinit(&a);
    if (status != GODWIT_OK && status != GODWIT_LIMIT) {
        snprintf(message, 512, "scopes_sql can't be run: %.400s", store_reader_message(r));
    }
    return status == GODWIT_LIMIT ? GODWIT_OK : status;
}

/* ---- what was said before ---- */

static void take(service_job *job, slice name, bool write) {
    principal *p = &job->who;
    if (write && p->scope_count < SCOPES_MAX) {
        p->scopes[p->scope_count++] = name;
    } else if (!write && p->read_scope_count < SCOPES_MAX) {
        p->read_scopes[p->read_scope_count++] = name;
    }
}

static void unpack(service_job *job, slice text) {
    for (size_t at = 0; at < text.len;) {
        size_t len = strlen(text.ptr + at + 1);
        take(job, (slice){text.ptr + at + 1, len}, text.ptr[at] == 'w');
        at += len + 2;
    }
}

static bool remembered(grants *g, const uint8_t key[SHA256_BYTES], service_job *job, bool *failed) {
    place *p = &g->places[(key[0] << 8 | key[1]) % PLACES];
    slice text = {0};
    *failed = false;
    pthread_mutex_lock(&g->lock);
    bool found = p->until_us > service_mono_us() && memcmp(p->key, key, SHA256_BYTES) == 0;
    if (found) {
        text = arena_copy(&job->memory, (slice){p->text, p->len});
    }
    pthread_mutex_unlock(&g->lock);
    *failed = found && !text.ptr && p->len > 0;
    if (found && !*failed) {
        unpack(job, text);
    }
    return found;
}

/* Without memory it is asked again next time. */
static void remember(grants *g, const uint8_t key[SHA256_BYTES], int64_t asked_us,
                     const store_grants *found) {
    place *p = &g->places[(key[0] << 8 | key[1]) % PLACES];
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t i = 0; i < found->count; i++) {
        bytes_char(&b, found->write[i] ? 'w' : 'r');
        bytes_slice(&b, found->scopes[i]);
        bytes_char(&b, '\0');
    }
    char *text = b.failed ? NULL : malloc(b.len + 1);
    if (text) {
        memcpy(text, b.len ? b.ptr : "", b.len);
        pthread_mutex_lock(&g->lock);
        free(p->text);
        *p = (place){.until_us = asked_us + g->ttl_us, .len = b.len, .text = text};
        memcpy(p->key, key, SHA256_BYTES);
        pthread_mutex_unlock(&g->lock);
    }
    bytes_deinit(&b);
}

/* ---- asking ---- */

static void refuse(service_job *job, godwit_status status) {
    if (status == GODWIT_CONSTRAINT) { /* a claim that is no value of the query's types */
        service_problem(job, 403, "scope-forbidden", "the token's claims have no scopes here",
                        NULL);
    } else if (status == GODWIT_LIMIT) {
        service_problem(job, 403, "scope-forbidden", "the token has more than 64 scopes", NULL);
    } else {
        service_problem(job, 503, "overloaded", "the token's scopes can't be asked for now", NULL);
        job->retry_after_s = 1;
        job->failure = status;
    }
}

bool grants_ask(grants *g, store_reader *r, service_job *job) {
    uint8_t key[SHA256_BYTES];
    store_grants found;
    bool failed = false;
    principal *p = &job->who;
    if (p->user.len == 0) {
        return true; /* a public route */
    }
    p->scope_count = p->read_scope_count = 0;
    sha256_of(p->claims.ptr, p->claims.len, key);
    if (g->ttl_us > 0 && remembered(g, key, job, &failed)) {
        if (failed) {
            refuse(job, GODWIT_NOMEM);
        }
        return !failed;
    }
    int64_t asked_us = service_mono_us();
    godwit_status status = store_read_grants(r, &job->memory, g->sql, p->user, p->claims, &found);
    if (status != GODWIT_OK) {
        refuse(job, status);
        return false;
    }
    for (size_t i = 0; i < found.count; i++) {
        take(job, found.scopes[i], found.write[i]);
    }
    if (g->ttl_us > 0) {
        remember(g, key, asked_us, &found);
    }
    return true;
}
