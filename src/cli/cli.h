/* The command line: one file per verb, `main` is a table of them.
 *
 * Conventions every verb keeps: data on stdout, messages on stderr; exit 0 ok, 1 failed, 2 wrong
 * usage, 3 server unreachable; --help with examples; --json wherever there is data. Colour only on
 * a terminal and never with NO_COLOR. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdio.h>

#include "core/arena.h"
#include "core/bytes.h"
#include "core/json.h"
#include "db/sqlite.h"
#include "godwit/godwit.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_UNREACHABLE = 3 };
#define CLI_GO (-1) /* no exit code yet: go on */

/* ---- verbs: argv[0] is the verb's name; the result is the exit code ---- */

int cli_init(int argc, char **argv);
int cli_track(int argc, char **argv);
int cli_untrack(int argc, char **argv);
int cli_sync(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_queue(int argc, char **argv);
int cli_conflicts(int argc, char **argv);
int cli_history(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_demo(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_pg(int argc, char **argv);
int cli_hook(int argc, char **argv);
int cli_token(int argc, char **argv);
int cli_devices(int argc, char **argv);
int cli_backup(int argc, char **argv);
int cli_restore(int argc, char **argv);
int cli_version(int argc, char **argv);

/* ---- args.c ---- */

/* One option; exactly one of flag, text, number is set. */
typedef struct {
    const char *name;  /* "--json" */
    bool *flag;        /* takes no value */
    const char **text; /* takes a value: "--url X" or "--url=X"; borrowed from argv */
    int64_t *number;   /* takes a decimal integer >= 0 */
} cli_option;

typedef struct {
    const char *verb;
    const char *help; /* the whole --help text, with examples */
    const cli_option *options;
    size_t option_count;
    int positional_min, positional_max;
} cli_spec;

/* Reads options in any position and moves the other arguments to argv[1..*count]. "--" ends
 * options;
 * --help prints the text. CLI_GO, or the exit code (a message with a hint was written). */
int cli_parse(const cli_spec *spec, int argc, char **argv, int *count);
/* For verbs with actions ("queue APP.db show ID"): the action, the first of `actions` when none is
 * given. "queue show APP.db ID" is understood, too: argv[1] and argv[2] are then swapped. CLI_GO or
 * the exit code. */
int cli_action(const cli_spec *spec, char **argv, int count, const char *const *actions,
               size_t action_count, const char **out);
/* "godwit VERB: message" and "Try 'godwit VERB --help'" on stderr; gives CLI_USAGE. */
int cli_usage_error(const char *verb, const char *format, ...) PRINTF_LIKE(2, 3);
/* "godwit: message" on stderr; gives CLI_FAILED. */
int cli_fail(const char *format, ...) PRINTF_LIKE(1, 2);
/* Edit distance (swaps count once), names longer than 63 bytes are never near. */
int cli_distance(const char *a, const char *b);
/* The nearest of count names, NULL when none is near enough to be a typo. */
const char *cli_nearest(const char *name, const char *const *names, size_t count);

/* ---- output.c ---- */

typedef enum { CLI_PLAIN, CLI_BOLD, CLI_DIM, CLI_RED, CLI_GREEN, CLI_YELLOW } cli_style;
/* Escape sequence, or "" where `stream` is no terminal or NO_COLOR is set. */
const char *cli_style_on(FILE *stream, cli_style style);
const char *cli_style_off(FILE *stream);

/* Steps `stmt` to its end and prints its rows. Column names are in camelCase; a name that ends in
 * ":json" holds JSON text, printed as it is with --json. Rows beyond `limit` are counted, not
 * printed (0 = all; --json prints all). empty: what to say on stderr when there is no row. */
typedef struct {
    bool json;
    int64_t limit;
    const char *empty;
} cli_rows_options;
int cli_print_rows(sqlite3_stmt *stmt, const cli_rows_options *options);
/* The same rows as one JSON object per line. */
int cli_print_lines(sqlite3_stmt *stmt);
/* The first row as "name  value" lines or one JSON object; CLI_GO when there is no row. */
int cli_print_record(sqlite3_stmt *stmt, bool as_json);
/* The same forms for an array of objects that came as JSON: the members `names` make the table. */
int cli_print_items(const json *items, const char *const *names, size_t count,
                    const cli_rows_options *options);
/* One object as "name  value" lines. */
int cli_print_object(const json *object);
int cli_print_slice(slice text);
/* Prepares constant SQL on the handle's connection; CLI_GO or an exit code. *out: finalize. */
int cli_prepare(godwit *g, const char *sql, sqlite3_stmt **out);

/* A table being laid out: cells left to right. Strings are copied. */
typedef struct {
    arena memory;
    slice *cells;
    size_t count, cap, columns;
} cli_table;
void cli_table_init(cli_table *t, size_t columns);
void cli_table_deinit(cli_table *t);
void cli_table_cell(cli_table *t, slice text);
void cli_table_printf(cli_table *t, const char *format, ...) PRINTF_LIKE(2, 3);
/* The first row is the heading. Cells that are numbers stand right. */
void cli_table_print(const cli_table *t, FILE *stream);

/* "3 min ago", "in 5 s"; ms since 1970. buffer: 32 bytes. */
const char *cli_ago(int64_t then_ms, int64_t now_ms, char buffer[32]);
int64_t cli_now_ms(void);
/* Writes `text` and a newline to stdout; CLI_FAILED when that fails. */
int cli_print(const bytes *text);

/* ---- open.c ---- */

typedef enum {
    CLI_OPEN_CREATE, /* init: a missing file is made */
    CLI_OPEN_TRACKED /* everything else: the file must have been set up by init */
} cli_open_mode;
/* Opens the database; a failure is explained with the next step to take. host may be NULL. CLI_GO
 * or the exit code. */
int cli_open(const char *path, cli_open_mode mode, const godwit_host *host, godwit **out);
/* Explains a failed call on an open handle ("doing: message"); the exit code. */
int cli_explain(godwit *g, const char *path, const char *doing, godwit_status status);
/* The same with the message at hand. */
int cli_explain_text(const char *path, const char *doing, godwit_status status,
                     const char *message);
int cli_exit_code(godwit_status status);
/* A setting stored by init, copied into `a`; ptr NULL when absent. */
slice cli_setting(godwit *g, arena *a, const char *key);

/* ---- remote.c ---- */

typedef struct {
    slice url;   /* base, without a path */
    slice token; /* empty = none */
    slice scope; /* empty = the token's first */
    slice ca_file; /* of the authorities; empty = the system's */
} cli_remote;
/* Reads a token file into `a` (white space around it removed). CLI_GO or the exit code. */
int cli_token_file(arena *a, const char *path, slice *out);
/* Server, token and scope an application database was set up with. */
int cli_remote_of(godwit *g, arena *a, cli_remote *out);
/* GET path?query. path_and_query begins with "/". On success *body (in `a`) is the answer of a 2xx;
 * anything else is explained on stderr. */
int cli_get(const cli_remote *remote, arena *a, const char *path_and_query, slice *body);
/* A list that comes in pages, as one array. member: its name in the answers; limit: 0 = all; id:
 * only the item of this id, NULL = every one. */
typedef struct {
    const char *member, *id;
    int64_t limit;
} cli_list;
int cli_get_list(const cli_remote *remote, arena *a, const char *path_and_query,
                 const cli_list *list, const struct json **out);
/* Appends `name=value` percent-encoded, with '?' or '&' as needed. */
void cli_query_add(bytes *path, const char *name, slice value);

#endif
