/* godwit hook: runs a library of hooks (godwit/hook.h) outside the server. The server starts it for
 * itself, people to try a library. */
#include "cli/cli.h"
#include "server/hooks.h"

static const char help[] =
    "Usage: godwit hook LIBRARY [--timeout MS]\n\n"
    "Loads a library of hooks and answers questions: one JSON object per line on stdin, one "
    "answer\n"
    "per line on stdout. The first line says what the library has. What hooks print goes to "
    "stderr.\n"
    "'godwit serve' runs it with the library of its setting 'hooks'.\n\n"
    "Options:\n"
    "  --timeout MS  end when a hook takes much longer than this (default: it may take any "
    "time)\n\n"
    "Examples:\n"
    "  echo '{\"hook\":\"validate\",\"table\":\"pins\",\"id\":\"p-1\",\"kind\":\"create\","
    "\"columns\":[\n"
    "         {\"name\":\"title\",\"ours\":\"Well\"}]}' | tr -d '\\n' | godwit hook ./notes.so\n"
    "  echo "
    "'{\"hook\":\"resolve\",\"rule\":\"lines\",\"table\":\"pins\",\"id\":\"p-1\",\"columns\":[\n"
    "         {\"name\":\"note\",\"base\":\"a\",\"theirs\":\"a\\nb\",\"ours\":\"a\\nc\"}]}' | tr "
    "-d '\\n' "
    "|\n"
    "      godwit hook ./notes.so\n";

int cli_hook(int argc, char **argv) {
    int64_t timeout_ms = 0;
    char message[512] = "";
    const cli_option options[] = {{.name = "--timeout", .number = &timeout_ms}};
    const cli_spec spec = {"hook", help, options, COUNT_OF(options), 1, 1};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    return hook_serve(argv[1], timeout_ms, message) ? CLI_OK : CLI_FAILED;
}
