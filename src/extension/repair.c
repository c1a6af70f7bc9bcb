/* SQL functions that decide about refused operations, one or many at a time. A list of ids is a
 * JSON array, several edits are an object of id -> payload; many at once answer with a JSON array
 * of what became of each. */
#include "extension/extension.h"

#include <stdio.h>

/* ---- What many answer with ---- */

typedef struct {
    bytes text;
    bool first;
} answers;

static void add_answer(void *context, const char *id, const char *new_id, godwit_status status,
                       const char *message) {
    answers *a = context;
    bool first = true;
    json_comma(&a->text, &a->first);
    bytes_char(&a->text, '{');
    json_key(&a->text, &first, "id");
    json_write_text(&a->text, slice_of(id));
    json_key(&a->text, &first, "newId");
    if (new_id[0]) {
        json_write_text(&a->text, slice_of(new_id));
    } else {
        bytes_text(&a->text, "null");
    }
    json_key(&a->text, &first, "status");
    json_write_text(&a->text, slice_of(godwit_status_name(status)));
    if (message[0]) {
        json_key(&a->text, &first, "message");
        json_write_text(&a->text, slice_of(message));
    }
    bytes_char(&a->text, '}');
}

static void give_text(sqlite3_context *context, const bytes *b) {
    if (b->failed) {
        sqlite3_result_error_nomem(context);
    } else {
        sqlite3_result_text(context, b->ptr, (int)b->len, SQLITE_TRANSIENT);
    }
}

static void repair_many(sqlite3_context *context, const godwit_repair *repairs, size_t count) {
    answers a = {.first = true};
    godwit *g = extension_handle(context, false);
    if (!g) {
        return;
    }
    bytes_init(&a.text, NULL, 0);
    bytes_char(&a.text, '[');
    godwit_status status = godwit_repair_many(g, repairs, count, add_answer, &a);
    bytes_char(&a.text, ']');
    if (status != GODWIT_OK && a.first) {
        extension_error(context, status, godwit_message(g)); /* nothing was done */
    } else {
        give_text(context, &a.text);
    }
    bytes_deinit(&a.text);
}

static void give_id(sqlite3_context *context, godwit *g, godwit_status status, const char *id) {
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, id, -1, SQLITE_TRANSIENT);
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

/* ---- Arguments ---- */

static bool begins(const char *text, char c) {
    return text && text[strspn(text, " \t\r\n")] == c;
}

static const char *copy(arena *a, slice text) {
    return arena_copy(a, text).ptr;
}

static bool wrong(sqlite3_context *context, const char *what) {
    extension_error(context, GODWIT_INVALID, what);
    return false;
}

/* ["id",..] */
static bool read_ids(sqlite3_context *context, arena *a, const char *text, const char ***ids,
                     size_t *count) {
    const json *list = NULL;
    slice id = {0};
    if (json_parse(a, slice_of(text), &list, NULL) != GODWIT_OK || !json_is(list, JSON_ARRAY)) {
        return wrong(context, "several ids are a JSON array of texts");
    }
    *ids = ARENA_ARRAY(a, const char *, list->count + 1);
    *count = list->count;
    const json *item = json_first(list);
    for (size_t i = 0; *ids && i < *count; i++, item = json_after(item)) {
        if (!json_text(item, &id) || !((*ids)[i] = copy(a, id))) {
            return wrong(context, "several ids are a JSON array of texts");
        }
    }
    return *ids || wrong(context, "out of memory");
}

/* {"id":{payload},..} */
static bool read_edits(sqlite3_context *context, arena *a, const char *text, godwit_repair **edits,
                       size_t *count) {
    const json *object = NULL;
    if (json_parse(a, slice_of(text), &object, NULL) != GODWIT_OK ||
        !json_is(object, JSON_OBJECT)) {
        return wrong(context, "several edits are a JSON object of id and payload");
    }
    *edits = ARENA_ARRAY(a, godwit_repair, object->count + 1);
    *count = object->count;
    const json *name = json_first(object);
    for (size_t i = 0; *edits && i < *count; i++, name = json_after(name + 1)) {
        (*edits)[i].id = copy(a, name->u.s);
        if (json_is(name + 1, JSON_OBJECT)) {
            (*edits)[i].payload = copy(a, name[1].u.s);
        }
        if (!(*edits)[i].id || !(*edits)[i].payload) {
            return wrong(context, "several edits are a JSON object of id and payload");
        }
    }
    return *edits || wrong(context, "out of memory");
}

/* ---- The functions ---- */

static void retry_list(sqlite3_context *context, arena *a, const char *text) {
    const char **ids = NULL;
    size_t count = 0;
    if (!read_ids(context, a, text, &ids, &count)) {
        return;
    }
    godwit_repair *repairs = ARENA_ARRAY(a, godwit_repair, count + 1);
    if (!repairs) {
        sqlite3_result_error_nomem(context);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        repairs[i].id = ids[i];
    }
    repair_many(context, repairs, count);
}

/* Row by row: whether an earlier row of the statement has made this one again along with its own.
 */
static bool taken_along(godwit *g, const char *id, char new_id[37]) {
    godwit_receipt before, after;
    bool made = godwit_get_receipt(g, id, &before) == GODWIT_OK && before.superseded_by[0] &&
                godwit_get_receipt(g, before.superseded_by, &after) == GODWIT_OK && !after.decided;
    if (made) {
        snprintf(new_id, 37, "%s", before.superseded_by);
    }
    return made;
}

static void call_retry(sqlite3_context *context, int argc, sqlite3_value **argv) {
    char id[37] = "";
    arena a;
    const char *text = extension_text(argc, argv, 0);
    if (argc == 0) {
        repair_many(context, NULL, 0);
        return;
    }
    if (argc > 1) {
        (void)wrong(context, "godwit_retry(id), godwit_retry('[ids]') or godwit_retry()");
        return;
    }
    if (begins(text, '[')) {
        arena_init(&a, NULL, 0);
        retry_list(context, &a, text);
        arena_deinit(&a);
        return;
    }
    godwit *g = extension_handle(context, false);
    if (g) {
        bool done = text && taken_along(g, text, id);
        godwit_status status = done ? GODWIT_OK : godwit_retry(g, text, id);
        give_id(context, g, status, id);
    }
}

static void call_edit(sqlite3_context *context, int argc, sqlite3_value **argv) {
    char id[37] = "";
    arena a;
    if (argc == 1) {
        godwit_repair *edits = NULL;
        size_t count = 0;
        const char *text = extension_text(argc, argv, 0);
        arena_init(&a, NULL, 0);
        if (read_edits(context, &a, text ? text : "", &edits, &count)) {
            repair_many(context, edits, count);
        }
        arena_deinit(&a);
        return;
    }
    if (argc != 2) {
        (void)wrong(context, "godwit_edit(id, payload) or godwit_edit('{\"id\":{payload}}')");
        return;
    }
    godwit *g = extension_handle(context, false);
    if (g) {
        godwit_status status =
            godwit_edit(g, extension_text(argc, argv, 0), extension_text(argc, argv, 1), id);
        give_id(context, g, status, id);
    }
}

static void call_discard(sqlite3_context *context, int argc, sqlite3_value **argv) {
    const char *id = extension_text(argc, argv, 0);
    const char **ids = &id;
    size_t count = 1;
    arena a;
    if (argc < 1 || argc > 2) {
        (void)wrong(context, "godwit_discard(id [, reason]) or godwit_discard('[ids]' [, reason])");
        return;
    }
    arena_init(&a, NULL, 0);
    if (!begins(id, '[') || read_ids(context, &a, id, &ids, &count)) {
        godwit *g = extension_handle(context, false);
        godwit_status status =
            g ? godwit_discard_many(g, ids, count, extension_text(argc, argv, 1)) : GODWIT_OK;
        if (g) {
            give_id(context, g, status, "ok");
        }
    }
    arena_deinit(&a);
}

static int add_line(void *context, const char *line, size_t bytes_count) {
    answers *a = context;
    json_comma(&a->text, &a->first);
    bytes_add(&a->text, line, bytes_count);
    return 0;
}

static void call_export(sqlite3_context *context, int argc, sqlite3_value **argv) {
    answers a = {.first = true};
    godwit *g = argc <= 1 ? extension_handle(context, false) : NULL;
    if (argc > 1) {
        (void)wrong(context, "godwit_export() or godwit_export(failed_only)");
    }
    if (!g) {
        return;
    }
    bytes_init(&a.text, NULL, 0);
    bytes_char(&a.text, '[');
    godwit_status status = godwit_export(g, argc && sqlite3_value_int(argv[0]) != 0, add_line, &a);
    bytes_char(&a.text, ']');
    if (status == GODWIT_OK) {
        give_text(context, &a.text);
    } else {
        extension_error(context, status, godwit_message(g));
    }
    bytes_deinit(&a.text);
}

int repair_register(sqlite3 *connection, extension *e) {
    static const extension_function list[] = {
        {"godwit_retry", -1, SQLITE_DIRECTONLY, call_retry},
        {"godwit_edit", -1, SQLITE_DIRECTONLY, call_edit},
        {"godwit_discard", -1, SQLITE_DIRECTONLY, call_discard},
        {"godwit_export", -1, SQLITE_DIRECTONLY, call_export},
    };
    return extension_register(connection, e, list, COUNT_OF(list));
}
