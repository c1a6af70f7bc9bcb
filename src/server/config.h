/* Settings of the daemon: flags over GODWIT_* environment over the [server] section of a file over
 * defaults. [table NAME] sections belong to the registry, which reads the same file itself.
 *
 *   [server]
 *   listen = 127.0.0.1:8787        threads = 2
 *   data = ./godwit-data           jwt_secret_file = /etc/godwit/secret
 *   schema = schema.sql            jwt_issuer = https://id.example
 *   dev = no                       jwt_audience = godwit
 *   log = info                     scopes_claim = app_metadata.scopes
 *
 * An unknown section or key, a repeated key or a bad value is refused by name with its line. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "core/arena.h"
#include "server/log.h"

/* X(name in the file; also GODWIT_NAME in capitals) */
#define CONFIG_KEYS(X)                                                                             \
    X(listen)                                                                                      \
    X(data)                                                                                        \
    X(schema)                                                                                      \
    X(dev)                                                                                         \
    X(log)                                                                                         \
    X(threads)                                                                                     \
    X(jwt_secret_file)                                                                             \
    X(jwt_issuer)                                                                                  \
    X(jwt_audience)                                                                                \
    X(scopes_claim)

/* Texts as given, NULL = not given. */
typedef struct {
#define CONFIG_MEMBER(name) const char *name;
    CONFIG_KEYS(CONFIG_MEMBER)
#undef CONFIG_MEMBER
} config_texts;

typedef struct {
    char host[256];
    char port[16];
    bool loopback; /* the host is this machine alone */
    const char *data;
    const char *schema;      /* NULL = none */
    const char *config_file; /* NULL = none */
    bool dev;
    log_level level;
    int threads;                                          /* loops, and as many workers */
    const char *jwt_secret_file;                          /* NULL = DATA/secret */
    const char *jwt_issuer, *jwt_audience, *scopes_claim; /* NULL = not set */
} config;

/* flags: what the command line gave. environment: looks a variable up, NULL when absent; may be
 * NULL. file: path or NULL. Texts of *out are borrowed from flags, environment or `a`. message:
 * receives the reason. INVALID (a value), NOT_FOUND (the file cannot be read), NOMEM. */
godwit_status config_load(arena *a, const config_texts *flags,
                          const char *(*environment)(const char *name), const char *file,
                          config *out, char message[512]) MUST_USE;

#endif
