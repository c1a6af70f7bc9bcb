/* queue retry, edit, discard: what a person decides about refused operations. */
#include <errno.h>

#include "cli/queue.h"
#include "core/limits.h"

#define EDITS_BYTES_MAX (64u << 20) /* of a file of edits */

/* ---- What became of each ---- */

typedef struct {
    bool json, first;
    bytes text;
    int64_t queued, failed;
} outcomes;

static void add_outcome(void *context, const char *id, const char *new_id, godwit_status status,
                        const char *message) {
    outcomes *o = context;
    bool first = true;
    o->queued += status == GODWIT_OK;
    o->failed += status != GODWIT_OK;
    if (!o->json) {
        if (status == GODWIT_OK) {
            bytes_printf(&o->text, "%s\n", new_id);
        } else {
            (void)cli_fail("%s stays where it is: %s", id, message);
        }
        return;
    }
    json_comma(&o->text, &o->first);
    bytes_char(&o->text, '{');
    json_key(&o->text, &first, "id");
    json_write_text(&o->text, slice_of(id));
    json_key(&o->text, &first, "newId");
    if (new_id[0]) {
        json_write_text(&o->text, slice_of(new_id));
    } else {
        bytes_text(&o->text, "null");
    }
    json_key(&o->text, &first, "status");
    json_write_text(&o->text, slice_of(godwit_status_name(status)));
    if (message[0]) {
        json_key(&o->text, &first, "message");
        json_write_text(&o->text, slice_of(message));
    }
    bytes_char(&o->text, '}');
}

static int explain(godwit *g, const cli_queue_request *r, const char *doing, godwit_status status) {
    int code = cli_explain(g, r->path, doing, status);
    if (status == GODWIT_MISUSE) {
        fprintf(stderr,
                "Only an operation that was refused, blocked or is in conflict can be "
                "decided by hand: see 'godwit queue %s list --failed'.\n",
                r->path);
    }
    return code;
}

/* repairs NULL: all that failed. */
static int repair(godwit *g, const cli_queue_request *r, const char *doing,
                  const godwit_repair *repairs, size_t count) {
    outcomes o = {.json = r->json, .first = true};
    bytes_init(&o.text, NULL, 0);
    bytes_text(&o.text, r->json ? "[" : "");
    godwit_status status = godwit_repair_many(g, repairs, count, add_outcome, &o);
    bytes_text(&o.text, r->json ? "]\n" : "");
    int code = CLI_OK;
    if (status != GODWIT_OK && o.queued + o.failed == 0) {
        code = explain(g, r, doing, status);
    } else {
        if (o.text.failed ||
            fwrite(o.text.ptr ? o.text.ptr : "", 1, o.text.len, stdout) != o.text.len ||
            fflush(stdout) != 0) {
            code = cli_fail("could not write the answer");
        }
        fprintf(stderr, "%lld operation%s queued again", (long long)o.queued,
                o.queued == 1 ? "" : "s");
        if (o.failed) {
            fprintf(stderr, ", %lld stay where they are", (long long)o.failed);
            code = CLI_FAILED;
        }
        fputs(o.queued ? "; the next sync sends them\n" : "\n", stderr);
    }
    bytes_deinit(&o.text);
    return code;
}

/* ---- Ids from the command line ---- */

static int read_ids(godwit *g, const cli_queue_request *r, arena *a, const char ***out) {
    const char **ids = ARENA_ARRAY(a, const char *, (size_t)r->id_count + 1);
    int code = ids ? CLI_GO : cli_fail("out of memory");
    for (int i = 0; i < r->id_count && code == CLI_GO; i++) {
        char id[37];
        code = cli_queue_id(g, r, r->ids[i], id);
        if (code == CLI_GO) {
            ids[i] = arena_copy(a, slice_of(id)).ptr;
            code = ids[i] ? CLI_GO : cli_fail("out of memory");
        }
    }
    *out = ids;
    return code;
}

int cli_queue_retry(godwit *g, const cli_queue_request *r) {
    const char **ids = NULL;
    arena a;
    if (r->failed == (r->id_count > 0)) {
        return cli_usage_error("queue", "retry wants ids, or --failed for all that failed");
    }
    if (r->failed) {
        return repair(g, r, "retrying", NULL, 0);
    }
    arena_init(&a, NULL, 0);
    int code = read_ids(g, r, &a, &ids);
    godwit_repair *repairs = ARENA_ARRAY(&a, godwit_repair, (size_t)r->id_count + 1);
    for (int i = 0; repairs && code == CLI_GO && i < r->id_count; i++) {
        repairs[i].id = ids[i];
    }
    if (code == CLI_GO) {
        code = repairs ? repair(g, r, "retrying", repairs, (size_t)r->id_count)
                       : cli_fail("out of memory");
    }
    arena_deinit(&a);
    return code;
}

/* ---- Edits from a file ---- */

static int read_file(const char *path, bytes *out) {
    char buffer[65536];
    size_t n = 0;
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file) {
        return cli_fail("%s: %s", path, strerror(errno));
    }
    while ((n = fread(buffer, 1, sizeof buffer, file)) > 0) {
        bytes_add(out, buffer, n);
    }
    bool broken = ferror(file) != 0;
    if (file != stdin) {
        fclose(file);
    }
    return broken        ? cli_fail("%s: %s", path, strerror(errno))
           : out->failed ? cli_fail("%s: larger than 64 MiB", path)
                         : CLI_GO;
}

static int read_edit(const cli_queue_request *r, arena *a, slice line, size_t number,
                     godwit_repair *out) {
    const json *object = NULL;
    json_error error = {0};
    slice id = {0};
    if (json_parse(a, line, &object, &error) != GODWIT_OK || !json_is(object, JSON_OBJECT)) {
        return cli_fail("%s: line %zu is not a JSON object%s%s", r->from, number,
                        error.reason ? ": " : "", error.reason ? error.reason : "");
    }
    const json *payload = json_get(object, "payload");
    if (!json_text(json_get(object, "id"), &id) || !json_is(payload, JSON_OBJECT)) {
        return cli_fail("%s: line %zu has no id and payload", r->from, number);
    }
    slice operation = SLICE("");
    (void)json_text(json_get(object, "operation"), &operation);
    out->id = arena_copy(a, id).ptr;
    /* a delete says nothing but that */
    out->payload = slice_is(operation, "delete") ? NULL : arena_copy(a, payload->u.s).ptr;
    return a->failed ? cli_fail("out of memory") : CLI_GO;
}

static int edit_from(godwit *g, const cli_queue_request *r) {
    bytes text;
    arena a;
    size_t lines = 1, count = 0, number = 0;
    bytes_init(&text, NULL, EDITS_BYTES_MAX);
    arena_init(&a, NULL, 0);
    int code = read_file(r->from, &text);
    for (size_t i = 0; i < text.len; i++) {
        lines += text.ptr[i] == '\n';
    }
    godwit_repair *edits = ARENA_ARRAY(&a, godwit_repair, lines + 1);
    slice rest = bytes_view(&text);
    while (code == CLI_GO && edits && rest.len) {
        const char *end = memchr(rest.ptr, '\n', rest.len);
        slice line = {rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len};
        rest.ptr += line.len + (end != NULL);
        rest.len -= line.len + (end != NULL);
        number++;
        if (line.len && !(line.len == 1 && line.ptr[0] == '\r')) {
            code = read_edit(r, &a, line, number, &edits[count++]);
        }
    }
    if (code == CLI_GO) {
        code = !edits   ? cli_fail("out of memory")
               : !count ? cli_fail("%s: nothing to edit", r->from)
                        : repair(g, r, "editing", edits, count);
    }
    bytes_deinit(&text);
    arena_deinit(&a);
    return code;
}

int cli_queue_edit(godwit *g, const cli_queue_request *r) {
    char id[37];
    if (r->from && !r->payload && r->id_count == 0) {
        return edit_from(g, r);
    }
    if (r->id_count != 1 || !r->payload || r->from) {
        return cli_usage_error("queue", "edit wants one id and --payload JSON, or --from FILE");
    }
    int code = cli_queue_id(g, r, r->ids[0], id);
    if (code != CLI_GO) {
        return code;
    }
    const godwit_repair edited = {id, r->payload};
    return repair(g, r, "editing", &edited, 1);
}

/* ---- Giving up ---- */

static int failed_ids(godwit *g, arena *a, const char ***out, size_t *count) {
    sqlite3_stmt *stmt = NULL;
    size_t cap = 0;
    *out = NULL;
    *count = 0;
    int code = cli_prepare(g, "SELECT id FROM godwit_dead_letters ORDER BY lsn", &stmt);
    while (code == CLI_GO && sqlite3_step(stmt) == SQLITE_ROW) {
        if (*count == cap) {
            size_t more = cap ? cap * 2 : 64;
            *out = arena_resize(a, *out, cap * sizeof **out, more * sizeof **out);
            cap = more;
        }
        const char *id = (const char *)sqlite3_column_text(stmt, 0);
        if (*out) {
            (*out)[(*count)++] = arena_copy(a, slice_of(id)).ptr;
        }
        code = a->failed ? cli_fail("out of memory") : CLI_GO;
    }
    sqlite3_finalize(stmt);
    return code;
}

int cli_queue_discard(godwit *g, const cli_queue_request *r) {
    const char **ids = NULL;
    size_t count = (size_t)r->id_count;
    arena a;
    if (r->failed == (r->id_count > 0)) {
        return cli_usage_error("queue", "discard wants ids, or --failed for all that failed");
    }
    arena_init(&a, NULL, 0);
    int code = r->failed ? failed_ids(g, &a, &ids, &count) : read_ids(g, r, &a, &ids);
    godwit_status status =
        code == CLI_GO ? godwit_discard_many(g, ids, count, r->reason) : GODWIT_OK;
    if (status != GODWIT_OK) {
        code = explain(g, r, "discarding", status);
    }
    if (code == CLI_GO && r->json) {
        printf("[");
        for (size_t i = 0; i < count; i++) {
            printf("%s\"%s\"", i ? "," : "", ids[i]);
        }
        printf("]\n");
    }
    if (code == CLI_GO) {
        fprintf(stderr, "given up: %zu operation%s; the content stays in the journal\n", count,
                count == 1 ? "" : "s");
        code = fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
    }
    arena_deinit(&a);
    return code;
}
