/* What people and programs read: tables, JSON, colour, times.
 *
 * One query gives both forms: columns are named in camelCase for JSON, and the heading of the table
 * is made from the same names. Widths count characters, not bytes. */
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define CELL_CHARS_MAX 48 /* longer cells are cut on a terminal; --json shows all */

static bool wants_colour(FILE *stream) {
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return !(no && *no) && isatty(fileno(stream)) && !(term && strcmp(term, "dumb") == 0);
}

const char *cli_style_on(FILE *stream, cli_style style) {
    static const char *const codes[] = {"",         "\033[1m",  "\033[2m",
                                        "\033[31m", "\033[32m", "\033[33m"};
    return wants_colour(stream) ? codes[style] : "";
}

const char *cli_style_off(FILE *stream) {
    return wants_colour(stream) ? "\033[0m" : "";
}

int64_t cli_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *cli_ago(int64_t then_ms, int64_t now_ms, char buffer[32]) {
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    int64_t distance = now_ms >= then_ms ? now_ms - then_ms : then_ms - now_ms;
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        if (distance >= units[i].ms) {
            long long n = distance / units[i].ms;
            snprintf(buffer, 32, now_ms >= then_ms ? "%lld %s ago" : "in %lld %s", n,
                     units[i].unit);
            return buffer;
        }
    }
    snprintf(buffer, 32, "now");
    return buffer;
}

int cli_print_slice(slice text) {
    bool ok = fwrite(text.ptr, 1, text.len, stdout) == text.len;
    ok = fputc('\n', stdout) != EOF && ok;
    ok = fflush(stdout) == 0 && ok;
    return ok ? CLI_OK : cli_fail("can't write to standard output");
}

int cli_print(const bytes *text) {
    return text->failed ? cli_fail("out of memory") : cli_print_slice(bytes_view(text));
}

/* ---- tables ---- */

void cli_table_init(cli_table *t, size_t columns) {
    *t = (cli_table){.columns = columns};
    arena_init(&t->memory, NULL, 0);
}

void cli_table_deinit(cli_table *t) {
    arena_deinit(&t->memory);
}

void cli_table_cell(cli_table *t, slice text) {
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        slice *cells = ARENA_ARRAY(&t->memory, slice, cap);
        if (!cells) {
            return;
        }
        if (t->count) {
            memcpy(cells, t->cells, t->count * sizeof *cells);
        }
        t->cells = cells;
        t->cap = cap;
    }
    slice copy = arena_copy(&t->memory, text);
    /* a line break or a control character would tear the table apart */
    char *at = copy.ptr ? arena_alloc(&t->memory, copy.len + 1) : NULL;
    for (size_t i = 0; at && i < copy.len; i++) {
        at[i] = (unsigned char)copy.ptr[i] < 0x20 || copy.ptr[i] == 0x7f ? ' ' : copy.ptr[i];
    }
    t->cells[t->count++] = (slice){at, at ? copy.len : 0};
}

void cli_table_printf(cli_table *t, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cli_table_cell(t, slice_of(text));
}

static size_t width_of(slice s) {
    size_t width = 0;
    for (size_t i = 0; i < s.len; i++) {
        width += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    }
    return width;
}

/* The longest beginning of at most `width` characters. */
static slice cut(slice s, size_t width) {
    size_t seen = 0;
    for (size_t i = 0; i < s.len; i++) {
        seen += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
        if (seen > width) {
            return (slice){s.ptr, i};
        }
    }
    return s;
}

static bool is_number(slice s) {
    for (size_t i = 0; i < s.len; i++) {
        if (!isdigit((unsigned char)s.ptr[i]) && !strchr("-+.,", s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

static void print_cell(FILE *stream, slice cell, size_t width, bool last) {
    size_t own = width_of(cell);
    bool cut_off = own > width;
    slice shown = cut_off ? cut(cell, width - 1) : cell;
    int padding = cut_off ? 0 : (int)(width - own);
    bool right = is_number(cell);
    fprintf(stream, "%*s" SLICE_FMT "%s", right ? padding : 0, "", SLICE_ARG(shown),
            cut_off ? "…" : "");
    if (!last) {
        fprintf(stream, "%*s", (right ? 0 : padding) + 2, "");
    }
}

void cli_table_print(const cli_table *t, FILE *stream) {
    size_t widths[32] = {0};
    ASSERT(t->columns > 0 && t->columns <= COUNT_OF(widths));
    bool bounded = isatty(fileno(stream));
    for (size_t i = 0; i < t->count; i++) {
        size_t width = width_of(t->cells[i]);
        if (bounded && width > CELL_CHARS_MAX) {
            width = CELL_CHARS_MAX;
        }
        if (width > widths[i % t->columns]) {
            widths[i % t->columns] = width;
        }
    }
    for (size_t i = 0; i < t->count; i++) {
        size_t column = i % t->columns;
        bool last = column + 1 == t->columns;
        if (i == 0) {
            fputs(cli_style_on(stream, CLI_BOLD), stream);
        }
        print_cell(stream, t->cells[i], widths[column], last);
        if (last) {
            fprintf(stream, "%s\n", i + 1 == t->columns ? cli_style_off(stream) : "");
        }
    }
}

/* ---- rows of a query ---- */

/* "entityId" -> "ENTITY ID", "payload:json" -> "PAYLOAD" */
static void heading(cli_table *t, const char *name) {
    char text[64];
    size_t len = 0;
    for (const char *c = name; *c && *c != ':' && len + 2 < sizeof text; c++) {
        if (isupper((unsigned char)*c)) {
            text[len++] = ' ';
        }
        text[len++] = (char)toupper((unsigned char)*c);
    }
    cli_table_cell(t, (slice){text, len});
}

static slice column_slice(sqlite3_stmt *stmt, int column) {
    const unsigned char *text = sqlite3_column_text(stmt, column);
    return (slice){text ? (const char *)text : "", (size_t)sqlite3_column_bytes(stmt, column)};
}

static void json_cell(bytes *b, sqlite3_stmt *stmt, int column) {
    slice text = {0};
    switch (sqlite3_column_type(stmt, column)) {
    case SQLITE_NULL:
        bytes_text(b, "null");
        return;
    case SQLITE_INTEGER:
        bytes_int(b, sqlite3_column_int64(stmt, column));
        return;
    case SQLITE_FLOAT:
        json_write_real(b, sqlite3_column_double(stmt, column));
        return;
    case SQLITE_BLOB:
        json_write_hex(b, sqlite3_column_blob(stmt, column),
                       (size_t)sqlite3_column_bytes(stmt, column));
        return;
    default:
        text = column_slice(stmt, column);
    }
    const char *name = sqlite3_column_name(stmt, column);
    const char *mark = strrchr(name, ':');
    if (mark && strcmp(mark, ":json") == 0 && text.len) {
        arena a;
        const json *node = NULL;
        arena_init(&a, NULL, 0);
        bool is_json = json_parse(&a, text, &node, NULL) == GODWIT_OK;
        arena_deinit(&a);
        if (is_json) {
            bytes_slice(b, text);
            return;
        }
    }
    if (json_utf8_valid(text)) {
        json_write_text(b, text);
    } else {
        json_write_hex(b, text.ptr, text.len);
    }
}

static void json_row(bytes *b, sqlite3_stmt *stmt) {
    bool first = true;
    bytes_char(b, '{');
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s", sqlite3_column_name(stmt, i));
        name[strcspn(name, ":")] = '\0';
        json_key(b, &first, name);
        json_cell(b, stmt, i);
    }
    bytes_char(b, '}');
}

static int print_json_rows(sqlite3_stmt *stmt) {
    bytes b;
    int64_t rows = 0;
    int rc = SQLITE_ROW;
    bool ok = true;
    bytes_init(&b, NULL, 0);
    fputc('[', stdout);
    while (ok && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        bytes_clear(&b);
        bytes_text(&b, rows++ ? ",\n " : "");
        json_row(&b, stmt);
        ok = !b.failed && fwrite(b.ptr, 1, b.len, stdout) == b.len;
    }
    bytes_deinit(&b);
    ok = fputs("]\n", stdout) != EOF && fflush(stdout) == 0 && ok;
    if (rc != SQLITE_DONE) {
        return cli_fail("reading the database: %s", sqlite3_errmsg(sqlite3_db_handle(stmt)));
    }
    return ok ? CLI_OK : cli_fail("can't write to standard output");
}

int cli_print_lines(sqlite3_stmt *stmt) {
    bytes b;
    int rc = SQLITE_ROW;
    int code = CLI_OK;
    bytes_init(&b, NULL, 0);
    while (code == CLI_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        bytes_clear(&b);
        json_row(&b, stmt);
        code = cli_print(&b);
    }
    if (code == CLI_OK && rc != SQLITE_DONE) {
        code = cli_fail("reading the database: %s", sqlite3_errmsg(sqlite3_db_handle(stmt)));
    }
    bytes_deinit(&b);
    return code;
}

int cli_print_record(sqlite3_stmt *stmt, bool as_json) {
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE) {
        return CLI_GO;
    }
    if (rc != SQLITE_ROW) {
        return cli_fail("reading the database: %s", sqlite3_errmsg(sqlite3_db_handle(stmt)));
    }
    if (!as_json) {
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            const char *name = sqlite3_column_name(stmt, i);
            if (sqlite3_column_type(stmt, i) != SQLITE_NULL) {
                printf("%-16.*s " SLICE_FMT "\n", (int)strcspn(name, ":"), name,
                       SLICE_ARG(column_slice(stmt, i)));
            }
        }
        return CLI_OK;
    }
    bytes b;
    bytes_init(&b, NULL, 0);
    json_row(&b, stmt);
    int code = cli_print(&b);
    bytes_deinit(&b);
    return code;
}

int cli_print_rows(sqlite3_stmt *stmt, const cli_rows_options *options) {
    if (options->json) {
        return print_json_rows(stmt);
    }
    cli_table t;
    int64_t rows = 0;
    int rc = SQLITE_ROW;
    int columns = sqlite3_column_count(stmt);
    cli_table_init(&t, (size_t)columns);
    for (int i = 0; i < columns; i++) {
        heading(&t, sqlite3_column_name(stmt, i));
    }
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        if (options->limit == 0 || rows < options->limit) {
            for (int i = 0; i < columns; i++) {
                cli_table_cell(&t, column_slice(stmt, i));
            }
        }
        rows++;
    }
    int code = CLI_OK;
    if (rc != SQLITE_DONE) {
        code = cli_fail("reading the database: %s", sqlite3_errmsg(sqlite3_db_handle(stmt)));
    } else if (rows == 0) {
        fprintf(stderr, "%s\n", options->empty);
    } else {
        cli_table_print(&t, stdout);
        if (options->limit > 0 && rows > options->limit) {
            fprintf(stderr, "%lld more: --limit N shows N of them, --limit 0 all\n",
                    (long long)(rows - options->limit));
        }
    }
    cli_table_deinit(&t);
    return code;
}

/* ---- JSON that came over the wire ---- */

/* A member as text for people: strings as they are, the rest as JSON. */
static slice item_text(bytes *scratch, const json *node) {
    slice text = {0};
    bytes_clear(scratch);
    if (!node || node->type == JSON_NULL || json_text(node, &text)) {
        return text;
    }
    switch ((json_type)node->type) {
    case JSON_ARRAY:
    case JSON_OBJECT:
        return node->u.s;
    case JSON_INT:
        json_write_int(scratch, node->u.i);
        break;
    case JSON_REAL:
        json_write_real(scratch, node->u.d);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        json_write_bool(scratch, node->type == JSON_TRUE);
        break;
    case JSON_NULL:
    case JSON_STRING:
        break;
    }
    return bytes_view(scratch);
}

int cli_print_items(const json *items, const char *const *names, size_t count,
                    const cli_rows_options *options) {
    if (options->json) {
        return cli_print_slice(items->u.s);
    }
    if (items->count == 0) {
        fprintf(stderr, "%s\n", options->empty);
        return CLI_OK;
    }
    cli_table t;
    bytes scratch;
    const json *item = json_first(items);
    cli_table_init(&t, count);
    bytes_init(&scratch, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        heading(&t, names[i]);
    }
    for (uint32_t n = 0; n < items->count; n++, item = json_after(item)) {
        for (size_t i = 0; i < count && (options->limit == 0 || n < options->limit); i++) {
            cli_table_cell(&t, item_text(&scratch, json_get(item, names[i])));
        }
    }
    cli_table_print(&t, stdout);
    if (options->limit > 0 && items->count > options->limit) {
        fprintf(stderr, "%lld more: --limit 0 shows all\n",
                (long long)(items->count - options->limit));
    }
    bytes_deinit(&scratch);
    cli_table_deinit(&t);
    return CLI_OK;
}

int cli_print_object(const json *object) {
    bytes scratch;
    const json *key = json_first(object);
    bytes_init(&scratch, NULL, 0);
    for (uint32_t i = 0; i < object->count; i++, key = json_after(key + 1)) {
        if (key[1].type != JSON_NULL) {
            printf("%-16.*s " SLICE_FMT "\n", SLICE_ARG(key->u.s),
                   SLICE_ARG(item_text(&scratch, key + 1)));
        }
    }
    bytes_deinit(&scratch);
    return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

int cli_prepare(godwit *g, const char *sql, sqlite3_stmt **out) {
    sqlite3 *connection = godwit_connection(g);
    if (sqlite3_prepare_v2(connection, sql, -1, out, NULL) != SQLITE_OK) {
        return cli_fail("reading the database: %s", sqlite3_errmsg(connection));
    }
    return CLI_GO;
}
