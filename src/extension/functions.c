/* SQL functions that set up, queue and sync. Each is the godwit.h function of its name; arguments
 * that are objects come as JSON. All are for direct use only: a schema must not be able to call
 * them. */
#include "extension/extension.h"

static void leave(sqlite3_context *context, godwit *g, godwit_status status) {
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, "ok", -1, SQLITE_STATIC);
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

/* false with the error set: not between `least` and `most` arguments. */
static bool arguments(sqlite3_context *context, int argc, int least, int most) {
    if (argc < least || argc > most) {
        extension_error(context, GODWIT_INVALID, "wrong number of arguments");
        return false;
    }
    return true;
}

static const json *parse_object(sqlite3_context *context, arena *a, const char *text) {
    const json *root = NULL;
    json_error error = {0};
    if (json_parse(a, slice_of(text), &root, &error) != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
        char reason[128];
        sqlite3_snprintf(sizeof reason, reason, "not a JSON object%s%s", error.reason ? ": " : "",
                         error.reason ? error.reason : "");
        extension_error(context, GODWIT_INVALID, reason);
        return NULL;
    }
    return root;
}

/* A text member copied with a NUL behind; false when it is something else. */
static bool text_member(arena *a, const json *v, const char **out) {
    slice text = {0};
    *out = NULL;
    if (!v || json_is(v, JSON_NULL)) {
        return true;
    }
    if (!json_text(v, &text) || memchr(text.ptr ? text.ptr : "", 0, text.len)) {
        return false;
    }
    text = arena_copy(a, text);
    *out = text.ptr;
    return text.ptr != NULL;
}

/* ---- Setting up ---- */

static bool read_settings(arena *a, const json *root, godwit_settings *out) {
    const struct {
        const char *name;
        const char **text;
    } members[] = {{"url", &out->url},
                   {"scope", &out->scope},
                   {"token", &out->token},
                   {"tokenFile", &out->token_file},
                   {"label", &out->label},
                   {"keepArchive", &out->keep_archive},
                   {"keepHistory", &out->keep_history},
                   {"caFile", &out->ca_file}};
    const json *key = json_first(root);
    for (uint32_t i = 0; i < root->count; i++, key = json_after(key + 1)) {
        size_t m = 0;
        while (m < COUNT_OF(members) && !slice_is(key->u.s, members[m].name)) {
            m++;
        }
        if (m == COUNT_OF(members) || !text_member(a, key + 1, members[m].text)) {
            return false;
        }
    }
    return true;
}

static void call_init(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit_settings settings = {0};
    arena a;
    arena_init(&a, NULL, 0);
    const json *root = parse_object(context, &a, extension_text(argc, argv, 0));
    if (root && !read_settings(&a, root, &settings)) {
        extension_error(context, GODWIT_INVALID,
                        "the settings are texts named url, scope, token, tokenFile, label,"
                        " keepArchive, keepHistory and caFile");
    } else if (root) {
        godwit *g = extension_handle(context, true);
        if (g) {
            leave(context, g, godwit_init(g, &settings));
        }
    }
    arena_deinit(&a);
}

static void call_track(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit *g = arguments(context, argc, 1, 2) ? extension_handle(context, true) : NULL;
    if (g) {
        leave(context, g,
              godwit_track(g, extension_text(argc, argv, 0), extension_text(argc, argv, 1)));
    }
}

static void call_untrack(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit *g = extension_handle(context, false);
    if (g) {
        leave(context, g, godwit_untrack(g, extension_text(argc, argv, 0)));
    }
}

static void call_migrate(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit *g = extension_handle(context, false);
    if (g) {
        leave(context, g, godwit_migrate(g, extension_text(argc, argv, 0)));
    }
}

/* ---- Queue ---- */

/* {"dependsOn":[..],"clientKey":".."} */
static bool read_enqueue_options(arena *a, const json *root, godwit_enqueue_options *out) {
    const json *list = json_get(root, "dependsOn");
    uint32_t known = 0;
    known += json_get(root, "clientKey") != NULL;
    known += list != NULL;
    if (known != root->count || !text_member(a, json_get(root, "clientKey"), &out->client_key)) {
        return false;
    }
    if (!list || json_is(list, JSON_NULL)) {
        return true;
    }
    if (!json_is(list, JSON_ARRAY)) {
        return false;
    }
    const char **ids = ARENA_ARRAY(a, const char *, list->count + 1);
    const json *item = json_first(list);
    for (uint32_t i = 0; ids && i < list->count; i++, item = json_after(item)) {
        if (!text_member(a, item, &ids[i]) || !ids[i]) {
            return false;
        }
    }
    out->depends_on = ids;
    out->depends_on_count = list->count;
    return ids != NULL;
}

static void enqueue(sqlite3_context *context, int argc, sqlite3_value **argv,
                    const godwit_enqueue_options *options) {
    char id[37];
    godwit *g = extension_handle(context, false);
    if (!g) {
        return;
    }
    godwit_status status =
        godwit_enqueue(g, extension_text(argc, argv, 0), extension_text(argc, argv, 1),
                       extension_text(argc, argv, 2), extension_text(argc, argv, 3), options, id);
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, id, -1, SQLITE_TRANSIENT);
    } else if (status == GODWIT_EXISTS && id[0]) {
        char text[160];
        sqlite3_snprintf(sizeof text, text, "%s (%s)", godwit_message(g), id);
        extension_error(context, status, text);
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

static void call_enqueue(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit_enqueue_options options = {0};
    const char *text = extension_text(argc, argv, 4);
    const json *root = NULL;
    arena a;
    if (!arguments(context, argc, 4, 5)) {
        return;
    }
    arena_init(&a, NULL, 0);
    if (text) {
        root = parse_object(context, &a, text);
    }
    if (root && !read_enqueue_options(&a, root, &options)) {
        extension_error(context, GODWIT_INVALID,
                        "the options are dependsOn, a list of ids, and clientKey, a text");
    } else if (root || !text) {
        enqueue(context, argc, argv, &options);
    }
    arena_deinit(&a);
}

static void leave_with_id(sqlite3_context *context, godwit *g, godwit_status status,
                          const char *id) {
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, id, -1, SQLITE_TRANSIENT);
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

static void call_revert(sqlite3_context *context, int argc, sqlite3_value **argv) {
    char id[37] = "";
    godwit *g = extension_handle(context, false);
    if (g) {
        godwit_status status = godwit_revert(g, extension_text(argc, argv, 0), id);
        leave_with_id(context, g, status, id);
    }
}

static void call_resolve(sqlite3_context *context, int argc, sqlite3_value **argv) {
    char id[37] = "";
    godwit *g = extension_handle(context, false);
    if (g) {
        godwit_status status =
            godwit_resolve(g, extension_text(argc, argv, 0), extension_text(argc, argv, 1), id);
        leave_with_id(context, g, status, id);
    }
}

/* ---- Syncing ---- */

static void call_sync(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit_sync_report report = {0};
    int64_t timeout_ms = 0;
    godwit *g =
        arguments(context, argc, 0, 1) && extension_number(context, argc, argv, 0, &timeout_ms)
            ? extension_handle(context, false)
            : NULL;
    if (!g) {
        return;
    }
    godwit_status status = godwit_sync(g, timeout_ms, &report);
    if (status != GODWIT_OK) {
        extension_error(context, status, godwit_message(g));
        return;
    }
    char *text = sqlite3_mprintf(
        "{\"sent\":%lld,\"applied\":%lld,\"merged\":%lld,\"rejected\":%lld,\"conflicts\":%lld,"
        "\"duplicates\":%lld,\"received\":%lld,\"pending\":%lld,\"requests\":%lld}",
        (long long)report.sent, (long long)report.applied, (long long)report.merged,
        (long long)report.rejected, (long long)report.conflicts, (long long)report.duplicates,
        (long long)report.received, (long long)report.pending, (long long)report.requests);
    if (text) {
        sqlite3_result_text(context, text, -1, sqlite3_free);
    } else {
        sqlite3_result_error_nomem(context);
    }
}

static void call_next(sqlite3_context *context, int argc, sqlite3_value **argv) {
    const char *text = NULL;
    godwit *g = extension_handle(context, false);
    (void)argc;
    (void)argv;
    if (!g) {
        return;
    }
    godwit_status status = godwit_next(g, &text);
    if (status != GODWIT_OK) {
        extension_error(context, status, godwit_message(g));
    } else if (text) {
        sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
    }
}

/* {"id":7,"status":200,"headers":{..},"body":".."} */
static void feed_object(sqlite3_context *context, godwit *g, const char *text) {
    int64_t id = 0;
    int64_t status = 0;
    slice body = {0};
    slice headers = {0};
    arena a;
    arena_init(&a, NULL, 0);
    const json *root = parse_object(context, &a, text);
    const json *list = json_get(root, "headers");
    if (json_is(list, JSON_OBJECT)) {
        headers = arena_copy(&a, list->u.s);
    }
    if (root && (!json_int(json_get(root, "id"), &id) ||
                 !json_int(json_get(root, "status"), &status) || status < 0 || status > 999)) {
        extension_error(context, GODWIT_INVALID, "an answer has an id and a status");
    } else if (root) {
        (void)json_text(json_get(root, "body"), &body);
        leave(context, g, godwit_feed(g, id, (int)status, headers.ptr, body.ptr, body.len));
    }
    arena_deinit(&a);
}

static void call_feed(sqlite3_context *context, int argc, sqlite3_value **argv) {
    if (argc != 1 && argc != 4) {
        extension_error(context, GODWIT_INVALID,
                        "godwit_feed(id, status, headers, body) or godwit_feed(json)");
        return;
    }
    godwit *g = extension_handle(context, false);
    if (!g) {
        return;
    }
    if (argc == 1) {
        feed_object(context, g, extension_text(argc, argv, 0));
        return;
    }
    /* the bytes first: asking for their number afterwards does not convert again */
    const char *body = sqlite3_value_type(argv[3]) == SQLITE_BLOB
                           ? sqlite3_value_blob(argv[3])
                           : (const char *)sqlite3_value_text(argv[3]);
    leave(context, g,
          godwit_feed(g, sqlite3_value_int64(argv[0]), sqlite3_value_int(argv[1]),
                      extension_text(argc, argv, 2), body,
                      body ? (size_t)sqlite3_value_bytes(argv[3]) : 0));
}

static void call_notify_network(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit *g = extension_handle(context, false);
    (void)argc;
    (void)argv;
    if (g) {
        leave(context, g, godwit_notify_network(g));
    }
}

/* {"intervalMs":..,"localMs":..,"waitSeconds":..}. NULL, or what is wrong with them. */
static const char *read_run_options(const json *root, godwit_run_options *out) {
    int64_t wait_s = 0;
    const struct {
        const char *name;
        int64_t *n, least, most;
        const char *complaint;
    } members[] = {
        {"intervalMs", &out->interval_ms, 0, 86400000,
         "intervalMs is a number up to 86400000: milliseconds between passes, 0 = default"},
        {"localMs", &out->local_ms, 0, 86400000,
         "localMs is a number up to 86400000: milliseconds between looks at the database, 0 = "
         "default"},
        {"waitSeconds", &wait_s, -1, 25,
         "waitSeconds is a number up to 25: how long the server holds a request, 0 = default, -1 = "
         "never"}};
    uint32_t known = 0;
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        const json *v = json_get(root, members[i].name);
        known += v != NULL;
        if (v && (!json_int(v, members[i].n) || *members[i].n < members[i].least ||
                  *members[i].n > members[i].most)) {
            return members[i].complaint;
        }
    }
    out->wait_seconds = (int)wait_s;
    return known == root->count ? NULL : "the options are intervalMs, localMs and waitSeconds";
}

static void call_start(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit_run_options options = {0};
    const char *text = extension_text(argc, argv, 0), *complaint = NULL;
    const json *root = NULL;
    arena a;
    if (!arguments(context, argc, 0, 1)) {
        return;
    }
    arena_init(&a, NULL, 0);
    if (text) {
        root = parse_object(context, &a, text);
    }
    complaint = root ? read_run_options(root, &options) : NULL;
    if (complaint) {
        extension_error(context, GODWIT_INVALID, complaint);
    } else if (root || !text) {
        godwit *g = extension_handle(context, false);
        if (g) {
            leave(context, g, godwit_start(g, &options));
        }
    }
    arena_deinit(&a);
}

static void call_stop(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit *g = extension_handle(context, false);
    (void)argc;
    (void)argv;
    if (g) {
        leave(context, g, godwit_stop(g));
    }
}

int functions_register(sqlite3 *connection, extension *e) {
    static const extension_function list[] = {
        {"godwit_init", 1, SQLITE_DIRECTONLY, call_init},
        {"godwit_track", -1, SQLITE_DIRECTONLY, call_track},
        {"godwit_untrack", 1, SQLITE_DIRECTONLY, call_untrack},
        {"godwit_migrate", 1, SQLITE_DIRECTONLY, call_migrate},
        {"godwit_enqueue", -1, SQLITE_DIRECTONLY, call_enqueue},
        {"godwit_resolve", 2, SQLITE_DIRECTONLY, call_resolve},
        {"godwit_revert", 1, SQLITE_DIRECTONLY, call_revert},
        {"godwit_sync", -1, SQLITE_DIRECTONLY, call_sync},
        {"godwit_next", 0, SQLITE_DIRECTONLY, call_next},
        {"godwit_feed", -1, SQLITE_DIRECTONLY, call_feed},
        {"godwit_notify_network", 0, SQLITE_DIRECTONLY, call_notify_network},
        {"godwit_start", -1, SQLITE_DIRECTONLY, call_start},
        {"godwit_stop", 0, SQLITE_DIRECTONLY, call_stop},
    };
    return extension_register(connection, e, list, COUNT_OF(list));
}
