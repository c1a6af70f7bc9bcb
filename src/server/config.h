/* Settings of the daemon: flags over GODWIT_* environment over the [server] section of a file over
 * defaults. [table NAME] sections belong to the registry, which reads the same file itself.
 *
 *   [server]
 *   listen = 127.0.0.1:8787        threads = 2
 *   data = ./godwit-data           jwt_secret_file = /etc/godwit/secret
 *   db = postgres://host/name
 *   schema = schema.sql            jwt_issuer = https://id.example
 *   dev = no                       jwt_audience = godwit
 *   log = info                     scopes_claim = app_metadata.scopes
 *   keep_log = 30d                 keep_conflicts = forever
 *   device_claim = device          read_only_scopes = news, catalog
 *   scopes_sql = SELECT team, may_write FROM members WHERE user_id = :sub
 *   scopes_ttl = 30s               rls_roles = authenticated, anon
 *   role_claim = role
 *   jwks = https://id.example/.well-known/jwks.json
 *   jwks_refresh = 10m
 *   keep_log_max = 90d             keep_devices = 400d
 *   keep_log_commits = 1000        janitor_every = 60s
 *   keep_ledger = 400d             hooks = /usr/lib/godwit/notes.so
 *   hook_timeout = 1s              memory = 512
 *   address_connections = 2000     address_rate = 1000
 *   user_requests = 2000           user_rate = 1000
 *   device_requests = 64           device_rate = 200
 *   unlimited = 127.0.0.0/8, ::1   trusted_proxies = 198.0.0.5
 *   proxy_header = x-forwarded-for tls_cert = /etc/godwit/chain.pem
 *   user = godwit                  tls_key = /etc/godwit/key.pem
 *   harden = yes
 *
 * A length of time is a number and ms, s, m, h or d, or `forever`.
 *
 * An unknown section or key, a repeated key or a bad value is refused by name with its line. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "core/arena.h"
#include "core/limits.h"
#include "core/retain.h"
#include "server/gate.h"
#include "server/hooks.h"
#include "server/log.h"

/* X(name in the file; also GODWIT_NAME in capitals) */
#define CONFIG_KEYS(X)                                                                             \
    X(listen)                                                                                      \
    X(db)                                                                                          \
    X(data)                                                                                        \
    X(schema)                                                                                      \
    X(dev)                                                                                         \
    X(log)                                                                                         \
    X(threads)                                                                                     \
    X(jwt_secret_file)                                                                             \
    X(jwt_issuer)                                                                                  \
    X(jwt_audience)                                                                                \
    X(jwks)                                                                                        \
    X(jwks_refresh)                                                                                \
    X(scopes_claim)                                                                                \
    X(device_claim)                                                                                \
    X(rls_roles)                                                                                   \
    X(role_claim)                                                                                  \
    X(read_only_scopes)                                                                            \
    X(scopes_sql)                                                                                  \
    X(scopes_ttl)                                                                                  \
    X(hooks)                                                                                       \
    X(hook_timeout)                                                                                \
    X(keep_log)                                                                                    \
    X(keep_log_max)                                                                                \
    X(keep_log_commits)                                                                            \
    X(keep_ledger)                                                                                 \
    X(keep_conflicts)                                                                              \
    X(keep_devices)                                                                                \
    X(janitor_every)                                                                               \
    X(address_connections)                                                                         \
    X(address_rate)                                                                                \
    X(user_requests)                                                                               \
    X(user_rate)                                                                                   \
    X(device_requests)                                                                             \
    X(device_rate)                                                                                 \
    X(unlimited)                                                                                   \
    X(trusted_proxies)                                                                             \
    X(proxy_header)                                                                                \
    X(memory)                                                                                      \
    X(tls_cert)                                                                                    \
    X(tls_key)                                                                                     \
    X(user)                                                                                        \
    X(harden)

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
    const char *db;          /* postgres://.., NULL = the store is in `data` */
    const char *schema;      /* NULL = none */
    const char *config_file; /* NULL = none */
    bool dev;
    log_level level;
    int threads;                                          /* loops, and as many workers */
    const char *jwt_secret_file;                          /* NULL = DATA/secret */
    const char *jwks;                                     /* path or URL; NULL = none */
    int64_t jwks_refresh_ms;
    const char *jwt_issuer, *jwt_audience, *scopes_claim, *device_claim; /* NULL = not set */
    slice roles[ROLES_MAX]; /* of the database, that tokens may name */
    size_t role_count;
    const char *role_claim; /* NULL = not set */
    const char *scopes_sql; /* NULL = scopes are the token's */
    int64_t scopes_ttl_ms;
    slice read_only[SCOPES_MAX]; /* scopes that no token writes to */
    size_t read_only_count;
    hook_options hooks; /* library NULL = none; program is the caller's */
    retain_policy retain;
    int64_t janitor_every_ms;
    gate_settings gate;
    int64_t memory_bytes; /* of requests and answers that are under way */
    const char *tls_cert, *tls_key; /* both or none */
    const char *user;               /* to become after the start; NULL = stay */
    bool harden;
} config;

/* flags: what the command line gave. environment: looks a variable up, NULL when absent; may be
 * NULL. file: path or NULL. Texts of *out are borrowed from flags, environment or `a`. message:
 * receives the reason. INVALID (a value), NOT_FOUND (the file cannot be read), NOMEM. */
godwit_status config_load(arena *a, const config_texts *flags,
                          const char *(*environment)(const char *name), const char *file,
                          config *out, char message[512]) MUST_USE;

#endif
