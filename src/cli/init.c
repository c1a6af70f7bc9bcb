/* init: stores where a database syncs to. Needs no network. */
#include <unistd.h>

#include "cli/cli.h"

static const char help[] =
    "Usage: godwit init APP.db --url URL [OPTIONS]\n\n"
    "Sets up APP.db (made if it does not exist) for syncing with the server at URL. No network\n"
    "is needed. Run it again to change a setting; what is not named stays as it is.\n\n"
    "Options:\n"
    "  --url URL         the server, e.g. https://sync.example.org; needed the first time\n"
    "  --scope S         scope of the rows (default: the token's first)\n"
    "  --token-file F    file with the bearer token, read before each sync (only its path is "
    "kept)\n"
    "  --token T         the bearer token itself (kept in the database)\n"
    "  --label L         name shown to operators, e.g. \"Ana's phone\"\n"
    "  --keep-archive T  keep operations that are done this long (default 14d)\n"
    "  --keep-history T  keep decided conflicts and outcomes this long (default 90d)\n"
    "  --ca-file F       authorities (PEM) for the server's certificate (default: the system's)\n\n"
    "Examples:\n"
    "  godwit init app.db --url http://127.0.0.1:8787 --token-file token\n"
    "  godwit init app.db --url https://sync.example.org --scope team-7 --label \"Ana's phone\"\n"
    "  godwit init app.db --token-file new-token\n";

/* What a call that was refused has made of nothing. */
static void forget(const char *path) {
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char name[4096];
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        if (snprintf(name, sizeof name, "%s%s", path, ends[i]) < (int)sizeof name) {
            (void)remove(name);
        }
    }
}

int cli_init(int argc, char **argv) {
    godwit_settings settings = {0};
    const cli_option options[] = {{.name = "--url", .text = &settings.url},
                                  {.name = "--scope", .text = &settings.scope},
                                  {.name = "--token", .text = &settings.token},
                                  {.name = "--token-file", .text = &settings.token_file},
                                  {.name = "--label", .text = &settings.label},
                                  {.name = "--keep-archive", .text = &settings.keep_archive},
                                  {.name = "--keep-history", .text = &settings.keep_history},
                                  {.name = "--ca-file", .text = &settings.ca_file}};
    const cli_spec spec = {"init", help, options, COUNT_OF(options), 1, 1};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    if (settings.token && settings.token_file) {
        return cli_usage_error("init", "--token and --token-file exclude each other");
    }
    const char *path = argv[1];
    const bool fresh = access(path, F_OK) != 0;
    godwit *g = NULL;
    code = cli_open(path, CLI_OPEN_CREATE, NULL, &g);
    if (code != CLI_GO) {
        return code;
    }
    godwit_status status = godwit_init(g, &settings);
    if (status != GODWIT_OK) {
        code = cli_explain(g, path, "storing the settings", status);
        godwit_close(g);
        g = NULL;
        if (fresh) {
            forget(path);
        }
    } else {
        fprintf(stderr, "%s is set up. Next: 'godwit track %s TABLE..', then 'godwit sync %s'.\n",
                path, path, path);
        code = CLI_OK;
    }
    godwit_close(g);
    return code;
}
