/* Collects the texts of all sources, then checks them once. The file is read by inih; the first
 * error it meets wins, with its line. */
#include "server/config_inner.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <ini.h>

#include "core/id.h"
#include "server/keyring.h"

#define THREADS_MAX 64

static const struct {
    const char *name;
    size_t offset;
} keys[] = {
#define CONFIG_ENTRY(name) {#name, offsetof(config_texts, name)},
    CONFIG_KEYS(CONFIG_ENTRY)
#undef CONFIG_ENTRY
};

static const char *get(const config_texts *texts, size_t i) {
    const char *text;
    memcpy(&text, (const char *)texts + keys[i].offset, sizeof text);
    return text;
}

static void set(config_texts *texts, size_t i, const char *text) {
    memcpy((char *)texts + keys[i].offset, &text, sizeof text);
}

typedef struct {
    arena *memory;
    config_texts *texts;
    bool failed;
    char reason[256];
} ini_state;

static int refuse(ini_state *state, const char *what, const char *name) {
    if (!state->failed) {
        state->failed = true;
        snprintf(state->reason, sizeof state->reason, "%s '%.100s'", what, name);
    }
    return 0; /* inih notes the line of the first 0 */
}

static int on_entry(void *context, const char *section, const char *name, const char *value) {
    ini_state *state = context;
    if (strncmp(section, "table ", 6) == 0) {
        return 1;
    }
    if (strcmp(section, "server") != 0) {
        return refuse(state, "unknown section", section);
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(name, keys[i].name) != 0) {
            continue;
        }
        if (get(state->texts, i)) {
            return refuse(state, "repeated key", name);
        }
        slice copy = arena_copy(state->memory, slice_of(value ? value : ""));
        if (!copy.ptr) {
            return refuse(state, "no memory for", name);
        }
        set(state->texts, i, copy.ptr);
        return 1;
    }
    return refuse(state, "unknown key", name);
}

static godwit_status read_file(arena *a, const char *path, config_texts *texts, char message[512]) {
    ini_state state = {a, texts, false, ""};
    int line = ini_parse(path, on_entry, &state);
    if (line == 0) {
        return GODWIT_OK;
    }
    if (line < 0) {
        snprintf(message, 512, "the configuration %.300s can't be read: %s", path, strerror(errno));
        return GODWIT_NOT_FOUND;
    }
    snprintf(message, 512, "%.200s:%d: %s", path, line,
             state.failed ? state.reason : "not a section, not 'key = value'");
    return GODWIT_INVALID;
}

static const char *from_environment(const char *(*environment)(const char *), const char *key) {
    char name[64] = "GODWIT_";
    size_t len = strlen(name);
    if (!environment) {
        return NULL;
    }
    for (; *key && len < sizeof name - 1; key++) {
        name[len++] = *key >= 'a' && *key <= 'z' ? (char)(*key - 'a' + 'A') : *key;
    }
    name[len] = 0;
    const char *value = environment(name);
    return value && *value ? value : NULL;
}

/* ---- values ---- */

bool config_flag(const char *text, bool *out) {
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const not [] = {"no", "false", "off", "0"};
    for (size_t i = 0; i < COUNT_OF(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, not [i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

bool config_number(const char *text, int max, int *out) {
    int value = 0;
    if (!*text) {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (*text - '0');
        if (value > max) {
            return false;
        }
    }
    *out = value;
    return true;
}

godwit_status config_bad(char message[512], const char *key, const char *value,
                         const char *wanted) {
    snprintf(message, 512, "%s = '%.100s' is not %s", key, value, wanted);
    return GODWIT_INVALID;
}

/* "a, b": up to `max` names. */
static bool parse_names(const char *text, slice *out, size_t max, size_t *count) {
    *count = 0;
    for (const char *at = text; at;) {
        at += strspn(at, " \t");
        const char *comma = strchr(at, ',');
        size_t len = comma ? (size_t)(comma - at) : strlen(at);
        const char *next = comma ? comma + 1 : NULL;
        while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t')) {
            len--;
        }
        if (*count == max || !id_name_valid((slice){at, len})) {
            return false;
        }
        out[(*count)++] = (slice){at, len};
        at = next;
    }
    return true;
}

static godwit_status interpret_tokens(const config_texts *t, config *out, char message[512]) {
    out->jwt_issuer = t->jwt_issuer;
    out->jwt_audience = t->jwt_audience;
    out->scopes_claim = t->scopes_claim;
    out->device_claim = t->device_claim;
    out->role_claim = t->role_claim;
    if (t->rls_roles &&
        !parse_names(t->rls_roles, out->roles, COUNT_OF(out->roles), &out->role_count)) {
        return config_bad(message, "rls_roles", t->rls_roles,
                          "a list of at most 16 names, separated by commas");
    }
    out->scopes_sql = t->scopes_sql;
    out->scopes_ttl_ms = 30000;
    if (t->scopes_ttl &&
        (!retain_time_parse(t->scopes_ttl, &out->scopes_ttl_ms) || out->scopes_ttl_ms > 86400000)) {
        return config_bad(message, "scopes_ttl", t->scopes_ttl, "a time between 0s and 1d");
    }
    if (t->read_only_scopes && !parse_names(t->read_only_scopes, out->read_only,
                                            COUNT_OF(out->read_only), &out->read_only_count)) {
        return config_bad(message, "read_only_scopes", t->read_only_scopes,
                          "a list of at most 64 names, separated by commas");
    }
    return GODWIT_OK;
}

static godwit_status interpret_retention(const config_texts *t, config *out, char message[512]) {
    out->retain = retain_default;
    out->janitor_every_ms = 60000;
    retain_policy *keep = &out->retain;
    const struct {
        const char *key, *text;
        int64_t *ms;
    } times[] = {{"keep_log", t->keep_log, &keep->log_ms},
                 {"keep_log_max", t->keep_log_max, &keep->log_max_ms},
                 {"keep_ledger", t->keep_ledger, &keep->ledger_ms},
                 {"keep_conflicts", t->keep_conflicts, &keep->conflicts_ms},
                 {"keep_devices", t->keep_devices, &keep->device_ms},
                 {"janitor_every", t->janitor_every, &out->janitor_every_ms}};
    int commits = 0;
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        if (times[i].text && !retain_time_parse(times[i].text, times[i].ms)) {
            return config_bad(message, times[i].key, times[i].text,
                              "a time such as 30d, 12h, 15m, 10s, 100ms or forever");
        }
    }
    if (t->keep_log_commits && !config_number(t->keep_log_commits, 1000000000, &commits)) {
        return config_bad(message, "keep_log_commits", t->keep_log_commits,
                          "a number up to 1000000000");
    }
    keep->log_commits = t->keep_log_commits ? commits : keep->log_commits;
    if (out->janitor_every_ms < 10 || out->janitor_every_ms > 86400000) {
        return config_bad(message, "janitor_every", t->janitor_every, "between 10ms and 1d");
    }
    /* what is not said follows what is */
    if (!t->keep_log_max && keep->log_max_ms < keep->log_ms) {
        keep->log_max_ms = keep->log_ms;
    }
    if (!t->keep_ledger && keep->ledger_ms < keep->log_max_ms) {
        keep->ledger_ms = keep->log_max_ms;
    }
    if (keep->log_max_ms < keep->log_ms || keep->ledger_ms < keep->log_max_ms) {
        snprintf(message, 512,
                 "keep_log may not be longer than keep_log_max, nor that longer than "
                 "keep_ledger");
        return GODWIT_INVALID;
    }
    return GODWIT_OK;
}

/* HOST:PORT, [IPV6]:PORT or PORT alone. */
static bool parse_listen(const char *text, config *out) {
    const char *colon = strrchr(text, ':');
    const char *port = colon ? colon + 1 : text;
    int number;
    if (!config_number(port, 65535, &number)) {
        return false;
    }
    snprintf(out->port, sizeof out->port, "%d", number);
    const char *host = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    } else if (len > 0 && memchr(host, ':', len)) {
        return false; /* an IPv6 address needs brackets */
    }
    if (len == 0 && !colon) {
        host = "127.0.0.1";
        len = strlen(host);
    }
    if (len == 0 || len >= sizeof out->host) {
        return false;
    }
    memcpy(out->host, host, len);
    out->host[len] = 0;
    out->loopback =
        strcmp(out->host, "localhost") == 0 || strcmp(out->host, "::1") == 0 ||
        (strncmp(out->host, "127.", 4) == 0 && out->host[strspn(out->host, "0123456789.")] == 0);
    return true;
}

static int default_threads(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > 8 ? 8 : (int)cores;
}

static godwit_status interpret(const config_texts *t, config *out, char message[512]) {
    const char *listen = t->listen ? t->listen : "127.0.0.1:8787";
    if (!parse_listen(listen, out)) {
        return config_bad(message, "listen", listen,
                          "HOST:PORT (port 0 to 65535, [..] around IPv6)");
    }
    if (t->dev && !config_flag(t->dev, &out->dev)) {
        return config_bad(message, "dev", t->dev, "yes or no");
    }
    out->level = LOG_INFO;
    if (t->log && !log_level_parse(slice_of(t->log), &out->level)) {
        return config_bad(message, "log", t->log, "one of debug, info, warn, error, off");
    }
    out->threads = default_threads();
    if (t->threads &&
        (!config_number(t->threads, THREADS_MAX, &out->threads) || out->threads == 0)) {
        return config_bad(message, "threads", t->threads, "a number from 1 to 64");
    }
    out->data = t->data ? t->data : "./godwit-data";
    out->db = t->db;
    out->schema = t->schema;
    out->jwt_secret_file = t->jwt_secret_file;
    out->jwks = t->jwks;
    out->jwks_refresh_ms = 600000;
    if (t->jwks && keyring_is_url(t->jwks) && !keyring_url_is_safe(t->jwks)) {
        return config_bad(message, "jwks", t->jwks, "a file or an https URL");
    }
    if (t->jwks_refresh && (!retain_time_parse(t->jwks_refresh, &out->jwks_refresh_ms) ||
                            out->jwks_refresh_ms < 1000 || out->jwks_refresh_ms > 86400000)) {
        return config_bad(message, "jwks_refresh", t->jwks_refresh, "a time between 1s and 1d");
    }
    out->hooks.library = t->hooks;
    out->hooks.timeout_ms = 1000;
    if (t->hooks && t->hooks[0] != '/') {
        return config_bad(message, "hooks", t->hooks, "an absolute path");
    }
    if (t->hook_timeout && (!retain_time_parse(t->hook_timeout, &out->hooks.timeout_ms) ||
                            out->hooks.timeout_ms < 1 || out->hooks.timeout_ms > 60000)) {
        return config_bad(message, "hook_timeout", t->hook_timeout, "a time between 1ms and 60s");
    }
    godwit_status status = interpret_tokens(t, out, message);
    status = status ? status : interpret_retention(t, out, message);
    return status ? status : config_edge(t, out, message);
}

godwit_status config_load(arena *a, const config_texts *flags,
                          const char *(*environment)(const char *name), const char *file,
                          config *out, char message[512]) {
    config_texts texts = {0};
    memset(out, 0, sizeof *out);
    message[0] = 0;
    if (file) {
        godwit_status status = read_file(a, file, &texts, message);
        if (status) {
            return status;
        }
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const char *variable = from_environment(environment, keys[i].name);
        const char *flag = get(flags, i);
        if (flag || variable) {
            set(&texts, i, flag ? flag : variable);
        }
    }
    out->config_file = file;
    return interpret(&texts, out, message);
}
