/* Questions to a server from the command line: one GET at a time, failures explained. */
#include <ctype.h>
#include <errno.h>

#include "cli/cli.h"
#include "core/json.h"
#include "core/limits.h"
#include "transport/transport.h"

#define GET_TIMEOUT_MS 30000

int cli_token_file(arena *a, const char *path, slice *out) {
    char text[TOKEN_BYTES_MAX + 2];
    FILE *f = fopen(path, "r");
    if (!f) {
        return cli_fail("token file %s: %s", path, strerror(errno));
    }
    size_t len = fread(text, 1, sizeof text, f);
    fclose(f);
    size_t start = 0;
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        len--;
    }
    while (start < len && isspace((unsigned char)text[start])) {
        start++;
    }
    if (start == len || len - start > TOKEN_BYTES_MAX) {
        return cli_fail("token file %s: %s", path, start == len ? "it is empty" : "too long");
    }
    for (size_t i = start; i < len; i++) {
        if (!isgraph((unsigned char)text[i])) {
            return cli_fail("token file %s: this is not one token", path);
        }
    }
    *out = arena_copy(a, (slice){text + start, len - start});
    return out->ptr ? CLI_GO : cli_fail("out of memory");
}

int cli_remote_of(godwit *g, arena *a, cli_remote *out) {
    *out = (cli_remote){0};
    out->url = cli_setting(g, a, "url");
    out->scope = cli_setting(g, a, "scope");
    out->token = cli_setting(g, a, "token");
    out->ca_file = cli_setting(g, a, "ca_file");
    if (!out->url.len) {
        return cli_fail("no server is set: 'godwit init APP.db --url URL'");
    }
    slice file = cli_setting(g, a, "token_file");
    return !out->token.len && file.ptr ? cli_token_file(a, file.ptr, &out->token) : CLI_GO;
}

void cli_query_add(bytes *path, const char *name, slice value) {
    static const char digits[] = "0123456789ABCDEF";
    bool first = !path->ptr || !memchr(path->ptr, '?', path->len);
    bytes_printf(path, "%c%s=", first ? '?' : '&', name);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (isalnum(c) || strchr("-._~", c)) {
            bytes_char(path, (char)c);
        } else {
            bytes_char(path, '%');
            bytes_char(path, digits[c >> 4]);
            bytes_char(path, digits[c & 15]);
        }
    }
}

static int explain_answer(arena *a, const char *url, const godwit_http_answer *answer) {
    const json *problem = NULL;
    slice detail = {0}, body = {answer->body, answer->body_bytes};
    if (answer->status == 0) {
        (void)cli_fail("%s: %s", url, answer->reason);
        return CLI_UNREACHABLE;
    }
    if (json_parse(a, body, &problem, NULL) != GODWIT_OK ||
        (!json_text(json_get(problem, "detail"), &detail) &&
         !json_text(json_get(problem, "title"), &detail))) {
        detail = SLICE("no details were given");
    }
    (void)cli_fail("%s: HTTP %d: " SLICE_FMT, url, answer->status, SLICE_ARG(detail));
    if (answer->status == 401) {
        fprintf(stderr, "The token is missing, expired or not for this server.\n");
    }
    return answer->status == 429 || answer->status == 503 ? CLI_UNREACHABLE : CLI_FAILED;
}

int cli_get(const cli_remote *remote, arena *a, const char *path_and_query, slice *body) {
    transport *t = NULL;
    godwit_http_answer answer = {0};
    size_t base_len = remote->url.len;
    while (base_len > 0 && remote->url.ptr[base_len - 1] == '/') {
        base_len--;
    }
    char *url = arena_printf(a, SLICE_FMT "%s", (int)base_len, remote->url.ptr, path_and_query);
    char *authorization =
        arena_printf(a, "Authorization: Bearer " SLICE_FMT, SLICE_ARG(remote->token));
    if (!url || !authorization) {
        return cli_fail("out of memory");
    }
    const char *headers[] = {"Accept: application/json", authorization};
    const godwit_http_request request = {.method = "GET",
                                         .url = url,
                                         .headers = headers,
                                         .header_count = remote->token.len ? 2 : 1,
                                         .timeout_ms = GET_TIMEOUT_MS,
                                         .answer_max = ANSWER_BYTES_MAX};
    if (transport_create(NULL, &t) != GODWIT_OK) {
        return cli_fail("this build has no HTTP transport (it was made without libcurl)");
    }
    transport_trust(t, remote->ca_file);
    transport_exchange(t, &request, &answer);
    int code = CLI_GO;
    if (answer.status >= 200 && answer.status < 300) {
        *body = arena_copy(a, (slice){answer.body, answer.body_bytes});
        code = body->ptr ? CLI_GO : cli_fail("out of memory");
    } else {
        url[base_len] = '\0'; /* a query may hold an id: the server's name is enough */
        code = explain_answer(a, url, &answer);
    }
    mem_free(NULL, answer.body);
    transport_destroy(t);
    return code;
}

/* Appends one page's items; *stop: enough of them, or the one that was asked for. */
static void take_items(bytes *all, const json *items, const cli_list *list, int64_t *count,
                       bool *stop) {
    slice id = {0};
    const json *item = json_first(items);
    for (uint32_t i = 0; i < items->count && !*stop; i++, item = json_after(item)) {
        bool wanted = !list->id || (json_text(json_get(item, "id"), &id) && slice_is(id, list->id));
        if (wanted) {
            bytes_text(all, *count ? "," : "");
            bytes_slice(all, item->u.s);
            ++*count;
        }
        *stop = (list->id && wanted) || (list->limit > 0 && *count >= list->limit);
    }
}

int cli_get_list(const cli_remote *remote, arena *a, const char *path_and_query,
                 const cli_list *list, const json **out) {
    bytes all, path;
    slice body = {0}, cursor = {0};
    const json *root = NULL;
    int64_t count = 0;
    bool stop = false, first = true;
    int code = CLI_GO;
    bytes_init(&all, NULL, ANSWER_BYTES_MAX);
    bytes_init(&path, NULL, 0);
    bytes_char(&all, '[');
    while (code == CLI_GO && !stop && (first || cursor.len)) {
        bytes_clear(&path);
        bytes_text(&path, path_and_query);
        if (cursor.len) {
            cli_query_add(&path, "cursor", cursor);
        }
        cursor = (slice){0};
        first = false;
        code = path.failed ? cli_fail("out of memory") : cli_get(remote, a, path.ptr, &body);
        if (code == CLI_GO && (json_parse(a, body, &root, NULL) != GODWIT_OK ||
                               !json_is(json_get(root, list->member), JSON_ARRAY))) {
            code = cli_fail(SLICE_FMT ": the answer is not what a Godwit server gives",
                            SLICE_ARG(remote->url));
        }
        if (code == CLI_GO) {
            take_items(&all, json_get(root, list->member), list, &count, &stop);
            (void)json_text(json_get(root, "cursor"), &cursor);
        }
    }
    bytes_char(&all, ']');
    if (code == CLI_GO) {
        slice text = all.failed ? (slice){0} : arena_copy(a, bytes_view(&all));
        bool fits = text.ptr && json_parse(a, text, out, NULL) == GODWIT_OK;
        code = fits ? CLI_GO : cli_fail("the list is too long: ask for less with --limit");
    }
    bytes_deinit(&all);
    bytes_deinit(&path);
    return code;
}
