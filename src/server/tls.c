/* OpenSSL behind recv and send. See tls.h. Every call clears the thread's queue of errors first: it
 * is how OpenSSL tells what went wrong, and one that was left there would be taken for another's.
 */
#include "server/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

struct tls_context {
    const char *certificate, *key;
    pthread_mutex_t lock;
    SSL_CTX *current; /* under the lock */
    _Atomic int64_t expires_s;
};

struct tls_link {
    SSL *ssl;
    bool wants_write, broken;
};

/* ---- the pair of files ---- */

static godwit_status fail(char message[512], const char *path, const char *what) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(message, 512, "%.300s: %s%s%s", path, what, reason ? ": " : "", reason ? reason : "");
    return GODWIT_INVALID;
}

static godwit_status check_mode(const char *key, char message[512]) {
    struct stat info;
    if (stat(key, &info) != 0) {
        snprintf(message, 512, "the key %.300s can't be read: %s", key, strerror(errno));
        return GODWIT_IO;
    }
    if (info.st_mode & S_IROTH) {
        snprintf(message, 512, "the key %.300s can be read by everybody: chmod 600 it first", key);
        return GODWIT_INVALID;
    }
    return GODWIT_OK;
}

/* Nobody is asked for a passphrase. */
static int no_passphrase(char *buffer, int size, int writing, void *context) {
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return 0;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *context) {
    static const unsigned char http_1_1[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    (void)ssl;
    (void)context;
    if (SSL_select_next_proto(&chosen, out_len, http_1_1, sizeof http_1_1 - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool set_options(SSL_CTX *c) {
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(c, no_passphrase);
    return SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static int64_t end_of(const SSL_CTX *c) {
    const X509 *certificate = SSL_CTX_get0_certificate(c);
    int days = 0, seconds = 0;
    if (!certificate ||
        ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)) != 1) {
        return 0;
    }
    return (int64_t)time(NULL) + days * 86400LL + seconds;
}

static godwit_status load(const tls_context *t, SSL_CTX **out, char message[512]) {
    godwit_status status = check_mode(t->key, message);
    if (status) {
        return status;
    }
    ERR_clear_error();
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (!c || !set_options(c)) {
        SSL_CTX_free(c);
        snprintf(message, 512, "TLS can't be set up");
        return GODWIT_NOMEM;
    }
    if (SSL_CTX_use_certificate_chain_file(c, t->certificate) != 1) {
        status = fail(message, t->certificate, "no chain of certificates (PEM) can be read");
    } else if (SSL_CTX_use_PrivateKey_file(c, t->key, SSL_FILETYPE_PEM) != 1) {
        status = fail(message, t->key, "no private key (PEM, no passphrase) of the certificate");
    } else if (SSL_CTX_check_private_key(c) != 1) {
        status = fail(message, t->key, "not the key of the certificate");
    }
    ERR_clear_error();
    if (status) {
        SSL_CTX_free(c);
        return status;
    }
    *out = c;
    return GODWIT_OK;
}

godwit_status tls_open(const char *certificate, const char *key, tls_context **out,
                       char message[512]) {
    *out = NULL;
    tls_context *t = mem_resize(NULL, NULL, sizeof *t);
    if (!t) {
        return GODWIT_NOMEM;
    }
    memset(t, 0, sizeof *t);
    t->certificate = certificate;
    t->key = key;
    godwit_status status = load(t, &t->current, message);
    if (status == GODWIT_OK && pthread_mutex_init(&t->lock, NULL) != 0) {
        status = GODWIT_NOMEM;
    }
    if (status) {
        SSL_CTX_free(t->current);
        mem_free(NULL, t);
        return status;
    }
    atomic_store(&t->expires_s, end_of(t->current));
    *out = t;
    return GODWIT_OK;
}

godwit_status tls_reload(tls_context *t, char message[512]) {
    SSL_CTX *next = NULL;
    godwit_status status = load(t, &next, message);
    if (status) {
        return status;
    }
    pthread_mutex_lock(&t->lock);
    SSL_CTX *before = t->current;
    t->current = next;
    pthread_mutex_unlock(&t->lock);
    atomic_store(&t->expires_s, end_of(next));
    SSL_CTX_free(before); /* connections hold it as long as they live */
    return GODWIT_OK;
}

void tls_close(tls_context *t) {
    if (t) {
        SSL_CTX_free(t->current);
        pthread_mutex_destroy(&t->lock);
        mem_free(NULL, t);
    }
}

int64_t tls_expires_s(const tls_context *t) {
    return atomic_load(&t->expires_s);
}

/* ---- one connection ---- */

tls_link *tls_link_new(tls_context *t, int fd) {
    tls_link *l = mem_resize(NULL, NULL, sizeof *l);
    if (!l) {
        return NULL;
    }
    memset(l, 0, sizeof *l);
    pthread_mutex_lock(&t->lock);
    l->ssl = SSL_new(t->current);
    pthread_mutex_unlock(&t->lock);
    if (!l->ssl || SSL_set_fd(l->ssl, fd) != 1) {
        SSL_free(l->ssl);
        mem_free(NULL, l);
        return NULL;
    }
    SSL_set_accept_state(l->ssl);
    return l;
}

bool tls_link_is_open(const tls_link *l) {
    return SSL_is_init_finished(l->ssl) == 1;
}

bool tls_link_wants_write(const tls_link *l) {
    return l->wants_write;
}

void tls_link_end(tls_link *l) {
    ERR_clear_error();
    if (!l->broken && tls_link_is_open(l) && !(SSL_get_shutdown(l->ssl) & SSL_SENT_SHUTDOWN)) {
        (void)SSL_shutdown(l->ssl);
    }
    ERR_clear_error();
}

void tls_link_free(tls_link *l) {
    if (l) {
        tls_link_end(l);
        SSL_free(l->ssl);
        mem_free(NULL, l);
    }
}

/* What a call that moved nothing means, as recv would say it. */
static ssize_t explain(tls_link *l, int result, bool reading) {
    int code = SSL_get_error(l->ssl, result);
    int system_error = errno;
    ERR_clear_error();
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
        if (reading) {
            l->wants_write = code == SSL_ERROR_WANT_WRITE;
        } else if (code == SSL_ERROR_WANT_READ) {
            errno = EPROTO; /* it would renegotiate, which is off */
            return -1;
        }
        errno = EAGAIN;
        return -1;
    }
    if (code == SSL_ERROR_ZERO_RETURN && reading) {
        return 0; /* of a write that failed it says only that the peer had said goodbye before */
    }
    l->broken = true; /* OpenSSL wants no further call */
    bool open = tls_link_is_open(l);
    errno = code == SSL_ERROR_SYSCALL && system_error ? system_error : EPROTO;
    /* A peer that is gone without a goodbye: HTTP itself knows whether a request was whole. */
    return reading && open && code == SSL_ERROR_SYSCALL && !system_error ? 0 : -1;
}

ssize_t tls_link_read(tls_link *l, void *buffer, size_t len) {
    size_t got = 0;
    l->wants_write = false;
    if (l->broken) {
        errno = EPROTO;
        return -1;
    }
    ERR_clear_error();
    errno = 0;
    int result = SSL_read_ex(l->ssl, buffer, len, &got);
    return result == 1 ? (ssize_t)got : explain(l, result, true);
}

ssize_t tls_link_write(tls_link *l, const void *data, size_t len) {
    size_t put = 0;
    if (l->broken) {
        errno = EPROTO;
        return -1;
    }
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(l->ssl, data, len, &put);
    return result == 1 ? (ssize_t)put : explain(l, result, false);
}
