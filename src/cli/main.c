/* The executable: finds the verb in a table and runs it. What a verb does is in the file of its
 * name. */
#include <signal.h>

#include "cli/cli.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} verb;

static const verb verbs[] = {
    {"serve", cli_serve, "run the sync server"},
    {"pg", cli_pg, "prepare a PostgreSQL database for the server"},
    {"token", cli_token, "make a token for a server's data folder"},
    {"devices", cli_devices, "list a server's devices, keep some of them out"},
    {"backup", cli_backup, "copy a server's store or a database, while it is in use"},
    {"restore", cli_restore, "put a backup back"},
    {"hook", cli_hook, "try a library of server rules"},
    {"init", cli_init, "set up an application database for syncing"},
    {"track", cli_track, "start capturing the changes of tables"},
    {"untrack", cli_untrack, "stop capturing the changes of tables"},
    {"sync", cli_sync, "send what is pending, fetch what is new"},
    {"status", cli_status, "where a database stands"},
    {"queue", cli_queue, "look at, retry, edit, discard or export operations"},
    {"conflicts", cli_conflicts, "decisions between concurrent changes"},
    {"history", cli_history, "what happened to one row"},
    {"doctor", cli_doctor, "check a database, repair what is safe"},
    {"demo", cli_demo, "see it all happen, with real processes"},
    {"version", cli_version, "print the version"},
};

static void print_help(FILE *stream) {
    const char *bold = cli_style_on(stream, CLI_BOLD), *off = cli_style_off(stream);
    fprintf(stream,
            "Godwit: offline-first sync for SQLite.\n\n"
            "%sUsage:%s godwit VERB [ARGUMENTS] [OPTIONS]\n\n%sVerbs:%s\n",
            bold, off, bold, off);
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        fprintf(stream, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
    }
    fprintf(stream,
            "  %-10s %s\n\n%sFirst steps:%s\n"
            "  godwit serve --dev                             # a server that needs no schema\n"
            "  godwit init app.db --url http://127.0.0.1:8787 --token-file token\n"
            "  godwit track app.db pins forms\n"
            "  godwit sync app.db\n\n"
            "'godwit VERB --help' has the options and examples of a verb.\n"
            "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the server can't be reached.\n",
            "help", "this text, or the help of a verb", bold, off);
}

static const verb *find(const char *name) {
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

static int unknown_verb(const char *name) {
    const char *names[COUNT_OF(verbs)];
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        names[i] = verbs[i].name;
    }
    const char *near = cli_nearest(name, names, COUNT_OF(names));
    if (near) {
        (void)cli_fail("no verb '%s': did you mean '%s'?", name, near);
    } else {
        (void)cli_fail("no verb '%s'", name);
    }
    fprintf(stderr, "Try 'godwit help'.\n");
    return CLI_USAGE;
}

static int help(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') {
        print_help(stdout);
        return CLI_OK;
    }
    const verb *v = find(argv[1]);
    char option[] = "--help";
    char *arguments[] = {argv[1], option, NULL};
    return v ? v->run(2, arguments) : unknown_verb(argv[1]);
}

int cli_version(int argc, char **argv) {
    bool as_json = false;
    const cli_option options[] = {{.name = "--json", .flag = &as_json}};
    const cli_spec spec = {"version",
                           "Usage: godwit version [--json]\n\n"
                           "Prints the version of Godwit and of the SQLite it runs with.\n\n"
                           "Examples:\n"
                           "  godwit version\n"
                           "  godwit version --json\n",
                           options,
                           COUNT_OF(options),
                           0,
                           0};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    if (as_json) {
        printf("{\"version\":\"%s\",\"sqlite\":\"%s\"}\n", godwit_version(), sqlite3_libversion());
    } else {
        printf("godwit %s (SQLite %s)\n", godwit_version(), sqlite3_libversion());
    }
    return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

int main(int argc, char **argv) {
    signal(SIGPIPE,
           SIG_IGN); /* a closed pipe is an error of the write, not the end of the process */
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        return help(argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "--version") == 0) {
        return cli_version(1, argv);
    }
    const verb *v = find(argv[1]);
    return v ? v->run(argc - 1, argv + 1) : unknown_verb(argv[1]);
}
