/* godwit token: signs a token with the secret of a server's data folder and prints it, nothing
 * else. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/limits.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/secret.h"

#define TTL_DEFAULT_S 86400
#define TTL_MAX_S     (10LL * 366 * 86400)

static const char help[] =
    "Usage: godwit token --sub USER [--scope SCOPE].. [--read-scope SCOPE].. [OPTIONS]\n\n"
    "Prints a token signed with the secret of a server's data folder. Without --scope it carries\n"
    "none, and the server takes the scope 'user:USER'.\n\n"
    "Options:\n"
    "  --data DIR          the server's folder (./godwit-data)\n"
    "  --config FILE       the server's settings: secret, issuer, audience, name of the claim\n"
    "  --sub USER          whose token it is\n"
    "  --scope SCOPE       may be read and written; give it once per scope\n"
    "  --read-scope SCOPE  may be read; give it once per scope\n"
    "  --device ID         good for this device alone (with device_claim in the settings)\n"
    "  --ttl SECONDS       how long it is valid (86400, a day)\n\n"
    "Examples:\n"
    "  godwit token --sub me --scope demo > token\n"
    "  godwit token --data /var/lib/godwit --sub alice --scope team-7 --read-scope news --ttl "
    "3600\n"
    "  curl -H \"Authorization: Bearer $(godwit token --sub me --scope demo)\" \\\n"
    "       'http://127.0.0.1:8787/v1/sync/changes?scope=demo'\n";

static const char *environment(const char *name) {
    return getenv(name);
}

/* Takes "--scope X", "--scope=X" out of argv wherever they stand (the common parser knows options
 * that are given once). CLI_GO or an exit code. */
static int take_repeated(const char *name, int *argc, char **argv, slice *out, size_t *count) {
    size_t len = strlen(name);
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        bool joined = strncmp(argv[i], name, len) == 0 && argv[i][len] == '=';
        if (!joined && strcmp(argv[i], name) != 0) {
            argv[kept++] = argv[i];
            continue;
        }
        const char *value = joined ? argv[i] + len + 1 : i + 1 < *argc ? argv[++i] : NULL;
        if (!value) {
            return cli_usage_error("token", "%s wants a value", name);
        }
        if (*count == SCOPES_MAX) {
            return cli_usage_error("token", "%s can be given at most %d times", name, SCOPES_MAX);
        }
        if (!id_name_valid(slice_of(value))) {
            return cli_usage_error("token", "a scope is 1 to %d bytes without control characters",
                                   NAME_BYTES_MAX);
        }
        out[(*count)++] = slice_of(value);
    }
    *argc = kept;
    argv[kept] = NULL;
    return CLI_GO;
}

typedef struct {
    config_texts texts;
    const char *config_file, *sub, *device;
    int64_t ttl_s;
} flags;

static int parse(int argc, char **argv, flags *out) {
    const cli_option options[] = {
        {.name = "--data", .text = &out->texts.data},
        {.name = "--config", .text = &out->config_file},
        {.name = "--sub", .text = &out->sub},
        {.name = "--device", .text = &out->device},
        {.name = "--ttl", .number = &out->ttl_s},
        {.name = "--scope", .text = &out->texts.log}, /* for hints: taken out before */
        {.name = "--read-scope", .text = &out->texts.log},
    };
    const cli_spec spec = {"token", help, options, COUNT_OF(options), 0, 0};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    if (!out->sub) {
        return cli_usage_error("token", "--sub is missing: whose token is it?");
    }
    if (!id_name_valid(slice_of(out->sub))) {
        return cli_usage_error("token", "--sub is 1 to %d bytes without control characters",
                               NAME_BYTES_MAX);
    }
    if (out->ttl_s < 1 || out->ttl_s > TTL_MAX_S) {
        return cli_usage_error("token", "--ttl is 1 to %lld seconds", TTL_MAX_S);
    }
    return CLI_GO;
}

static int read_key(const config *settings, bytes *key) {
    char path[PATH_MAX], message[512];
    int len = snprintf(path, sizeof path, "%s/secret", settings->data);
    const char *file = settings->jwt_secret_file ? settings->jwt_secret_file : path;
    if (len < 0 || (size_t)len >= sizeof path) {
        return cli_fail("the path of the data folder is too long");
    }
    godwit_status status = secret_read(file, key, message);
    if (status == GODWIT_NOT_FOUND) {
        return cli_fail("there is no secret at %s; 'godwit serve --data %s' makes it at its first "
                        "start",
                        file, settings->data);
    }
    return status ? cli_fail("%s", message) : CLI_GO;
}

static int print_token(const config *settings, slice key, principal *who, int64_t ttl_s) {
    bytes token;
    int64_t now_s = cli_now_ms() / 1000;
    auth_settings auth = {.issuer = slice_of(settings->jwt_issuer),
                          .audience = slice_of(settings->jwt_audience),
                          .scopes_claim = slice_of(settings->scopes_claim),
                          .device_claim = slice_of(settings->device_claim)};
    if (!who->device.len != !auth.device_claim.len) {
        return cli_usage_error("token", who->device.len
                                            ? "--device needs device_claim = NAME in the"
                                              " settings (--config)"
                                            : "--device is missing: the settings have"
                                              " device_claim");
    }
    who->expires_s = now_s + ttl_s;
    bytes_init(&token, NULL, 0);
    int code = CLI_FAILED;
    if (auth_mint(&auth, key, who, now_s, &token)) {
        code = cli_fail("the token could not be made");
    } else if (token.len > TOKEN_BYTES_MAX) {
        code = cli_fail("a server accepts at most %d bytes: fewer scopes, please", TOKEN_BYTES_MAX);
    } else {
        code = cli_print(&token);
    }
    bytes_deinit(&token);
    return code;
}

int cli_token(int argc, char **argv) {
    flags given = {.ttl_s = TTL_DEFAULT_S};
    principal who = {.scope_count = 0};
    config settings;
    char message[512];
    int code = take_repeated("--scope", &argc, argv, who.scopes, &who.scope_count);
    if (code == CLI_GO) {
        code = take_repeated("--read-scope", &argc, argv, who.read_scopes, &who.read_scope_count);
    }
    if (code == CLI_GO) {
        code = parse(argc, argv, &given);
    }
    if (code != CLI_GO) {
        return code;
    }
    who.user = slice_of(given.sub);
    who.device = slice_of(given.device);
    arena memory;
    bytes key;
    arena_init(&memory, NULL, 0);
    bytes_init(&key, NULL, 0);
    if (config_load(&memory, &given.texts, environment, given.config_file, &settings, message)) {
        code = cli_fail("%s", message[0] ? message : "out of memory");
    } else {
        code = read_key(&settings, &key);
    }
    if (code == CLI_GO) {
        code = print_token(&settings, bytes_view(&key), &who, given.ttl_s);
    }
    if (key.ptr) {
        memset(key.ptr, 0, key.len);
    }
    bytes_deinit(&key);
    arena_deinit(&memory);
    return code;
}
