/* The thread that keeps the key set fresh. Under the lock: the set, whether a read is wanted or
 * under way, and the time of the last one; the reading itself is done without it. */
#include "server/keyring.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "server/log.h"

#define ASKED_EVERY_MAX_MS 30000 /* for keys that are not known */
#define RETRY_MS           5000  /* while there is no set at all */

struct keyring {
    keyring_options options;
    key_set *secret; /* or NULL */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool has_thread;
    /* under the lock */
    key_set *set;
    bool stop, wanted, busy;
    int64_t last_ms;
};

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool starts_with(const char *text, const char *prefix) {
    return strncasecmp(text, prefix, strlen(prefix)) == 0;
}

bool keyring_is_url(const char *text) {
    return starts_with(text, "http://") || starts_with(text, "https://");
}

bool keyring_url_is_safe(const char *text) {
    static const char *const here[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    if (starts_with(text, "https://")) {
        return true;
    }
    for (size_t i = 0; i < COUNT_OF(here); i++) {
        char after = starts_with(text, here[i]) ? text[strlen(here[i])] : 'x';
        if (after == ':' || after == '/' || after == '\0') {
            return true;
        }
    }
    return false;
}

static godwit_status read_file(const char *path, bytes *out, char message[512]) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(message, 512, "the key set %.300s can't be read: %s", path, strerror(errno));
        return errno == ENOENT ? GODWIT_NOT_FOUND : GODWIT_IO;
    }
    char part[4096];
    size_t got;
    while (!out->failed && (got = fread(part, 1, sizeof part, file)) > 0) {
        bytes_add(out, part, got);
    }
    godwit_status status = GODWIT_OK;
    if (ferror(file)) {
        snprintf(message, 512, "the key set %.300s can't be read", path);
        status = GODWIT_IO;
    } else if (out->failed) {
        snprintf(message, 512, "the key set %.300s is larger than %zu bytes", path,
                 KEY_SET_BYTES_MAX);
        status = GODWIT_LIMIT;
    }
    fclose(file);
    return status;
}

static godwit_status read_set(keyring *r, key_set **out, char message[512]) {
    const keyring_options *o = &r->options;
    bytes text;
    bytes_init(&text, NULL, KEY_SET_BYTES_MAX);
    message[0] = 0;
    godwit_status status = keyring_is_url(o->jwks) ? o->fetch(o->context, o->jwks, &text, message)
                                                   : read_file(o->jwks, &text, message);
    if (status == GODWIT_OK) {
        status = key_set_from_jwks(bytes_view(&text), r->secret, out, message);
    }
    bytes_deinit(&text);
    return status;
}

/* Reads the set and puts it in place; the last good one stays otherwise. */
static godwit_status renew(keyring *r, char message[512]) {
    char value[256];
    key_set *fresh = NULL;
    godwit_status status = read_set(r, &fresh, message);
    pthread_mutex_lock(&r->lock);
    r->last_ms = now_ms();
    r->busy = false;
    key_set *old = fresh ? r->set : NULL;
    if (fresh) {
        r->set = fresh;
    }
    pthread_mutex_unlock(&r->lock);
    key_set_release(old);
    if (status) {
        log_event(LOG_WARN, "keys_not_read", "reason=%s", log_value(slice_of(message), value));
    } else {
        log_event(LOG_DEBUG, "keys_read", "keys=%zu", key_set_count(fresh));
    }
    return status;
}

/* How long until the next read that nobody has to ask for. */
static int64_t until_next(const keyring *r) {
    bool without = r->set == NULL || r->set == r->secret;
    int64_t pause = without && r->options.refresh_ms > RETRY_MS ? RETRY_MS : r->options.refresh_ms;
    int64_t left = r->last_ms + pause - now_ms();
    return left > 0 ? left : 0;
}

static void wait_ms(keyring *r, int64_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
}

static void *keep_fresh(void *context) {
    keyring *r = context;
    char message[512];
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        int64_t ms = until_next(r);
        if (!r->wanted && ms > 0) {
            wait_ms(r, ms);
            continue;
        }
        r->wanted = false;
        r->busy = true;
        pthread_mutex_unlock(&r->lock);
        (void)renew(r, message);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static godwit_status start(keyring *r, char message[512]) {
    const keyring_options *o = &r->options;
    if (o->secret.len > 0 && key_set_from_secret(o->secret, &r->secret)) {
        snprintf(message, 512, "the secret for tokens must have 32 to 4096 bytes");
        return GODWIT_INVALID;
    }
    r->set = key_set_keep(r->secret);
    if (!o->jwks) {
        return GODWIT_OK;
    }
    godwit_status status = renew(r, message);
    if (status && !keyring_is_url(o->jwks)) {
        return status;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the thread that waits for them */
    int failed = pthread_create(&r->thread, NULL, keep_fresh, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        snprintf(message, 512, "can't start a thread");
        return GODWIT_NOMEM;
    }
    r->has_thread = true;
    return GODWIT_OK;
}

godwit_status keyring_open(const keyring_options *options, keyring **out, char message[512]) {
    pthread_condattr_t clock;
    *out = NULL;
    message[0] = 0;
    keyring *r = mem_resize(NULL, NULL, sizeof *r);
    if (!r) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    memset(r, 0, sizeof *r);
    r->options = *options;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &clock);
    pthread_condattr_destroy(&clock);
    godwit_status status = start(r, message);
    if (status) {
        keyring_close(r);
        return status;
    }
    *out = r;
    return GODWIT_OK;
}

void keyring_close(keyring *r) {
    if (!r) {
        return;
    }
    if (r->has_thread) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_signal(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    key_set_release(r->set);
    key_set_release(r->secret);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    mem_free(NULL, r);
}

key_set *keyring_take(keyring *r) {
    pthread_mutex_lock(&r->lock);
    key_set *set = key_set_keep(r->set);
    pthread_mutex_unlock(&r->lock);
    return set;
}

bool keyring_miss(keyring *r) {
    if (!r->has_thread) {
        return false;
    }
    int64_t pause = r->options.refresh_ms / 10;
    pause = pause > ASKED_EVERY_MAX_MS ? ASKED_EVERY_MAX_MS : pause;
    pthread_mutex_lock(&r->lock);
    bool coming = r->busy || r->wanted;
    if (!coming && now_ms() - r->last_ms >= pause) {
        r->wanted = coming = true;
        pthread_cond_signal(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return coming;
}
