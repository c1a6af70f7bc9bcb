/* devices: who syncs with a server, and keeping some of them out. Works on the store itself, beside
 * a running server: the next request of a device finds what was decided here. No client code. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/limits.h"
#include "core/wire.h"
#include "server/config.h"
#include "server/store.h"

static const char help[] =
    "Usage: godwit devices [list] [--scope SCOPE] [--limit N] [--json] [OPTIONS]\n"
    "       godwit devices revoke|retire|allow ID.. [--scope SCOPE] [--json] [OPTIONS]\n\n"
    "The devices that are registered in a server's store. It may be run while the server runs.\n\n"
    "list      each device in each scope, with its user, its state and when it was last seen\n"
    "revoke    refuse it from its next request on (device-revoked); what it has not sent stays\n"
    "          queued on it. Its token still reads until it expires: that is the token's right\n"
    "retire    have it come back under a new device id, as one that was silent for too long does\n"
    "allow     let a revoked device in again; it goes on under a new device id\n\n"
    "An ID may be given by its beginning. Without --scope it means the device in all its "
    "scopes.\n\n"
    "Options:\n"
    "  --data DIR          the server's folder (./godwit-data)\n"
    "  --db URL            postgres://.., where the store is in PostgreSQL (or GODWIT_DB)\n"
    "  --config FILE       the server's settings\n"
    "  --scope SCOPE       this scope only\n"
    "  --limit N           at most so many lines (50; 0 = all; --json shows all)\n"
    "  --json              as JSON\n\n"
    "Examples:\n"
    "  godwit devices --data /var/lib/godwit\n"
    "  godwit devices list --scope team --json | jq '.[] | select(.state == \"revoked\")'\n"
    "  godwit devices revoke 0197a4c2 --data /var/lib/godwit\n";

#define LIST_LIMIT 50

static const char *environment(const char *name) {
    return getenv(name);
}

typedef struct {
    config_texts texts;
    const char *config_file, *scope;
    int64_t limit;
    bool json;
} flags;

static int parse(int argc, char **argv, flags *out, int *count) {
    const cli_option options[] = {
        {.name = "--data", .text = &out->texts.data},    {.name = "--db", .text = &out->texts.db},
        {.name = "--config", .text = &out->config_file}, {.name = "--scope", .text = &out->scope},
        {.name = "--limit", .number = &out->limit},      {.name = "--json", .flag = &out->json},
    };
    const cli_spec spec = {"devices", help, options, COUNT_OF(options), 0, 1000};
    return cli_parse(&spec, argc, argv, count);
}

static int action_of(const char *name, device_state *out) {
    static const char *const names[] = {"list", "revoke", "retire", "allow"};
    static const device_state states[] = {DEVICE_ACTIVE, DEVICE_REVOKED, DEVICE_RETIRED,
                                          DEVICE_RETIRED};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = states[i];
            return CLI_GO;
        }
    }
    const char *near = cli_nearest(name, names, COUNT_OF(names));
    return cli_usage_error("devices", "no action '%s'%s%s%s", name, near ? ": did you mean '" : "",
                           near ? near : "", near ? "'?" : "");
}

/* The store as the server opens it, but never a new one. */
static int open_store(const flags *f, arena *a, store **out) {
    config settings;
    char message[512], path[PATH_MAX];
    if (config_load(a, &f->texts, environment, f->config_file, &settings, message)) {
        return cli_fail("%s", message[0] ? message : "out of memory");
    }
    int len = snprintf(path, sizeof path, "%s/store.db", settings.data);
    if (!settings.db && (len < 0 || (size_t)len >= sizeof path || access(path, F_OK) != 0)) {
        return cli_fail("there is no store in %s; name the server's folder with --data DIR, or its "
                        "database with --db URL",
                        settings.data);
    }
    return store_open(settings.db ? settings.db : settings.data, out, message)
               ? cli_fail("%s", message)
               : CLI_GO;
}

static int explain(const store *st, godwit_status status) {
    return status == GODWIT_BUSY
               ? cli_fail("the server is busy writing: try again in a moment")
               : cli_fail("%s", status == GODWIT_NOMEM ? "out of memory" : store_message(st));
}

/* ---- list ---- */

static void write_time(bytes *b, bool *first, const char *name, int64_t ms) {
    char at[32];
    json_key(b, first, name);
    if (ms > 0) {
        wire_time_write(ms, at);
        json_write_text(b, slice_of(at));
    } else {
        bytes_text(b, "null");
    }
}

static void write_text(bytes *b, bool *first, const char *name, slice text) {
    json_key(b, first, name);
    if (text.ptr) {
        json_write_text(b, text);
    } else {
        bytes_text(b, "null");
    }
}

static void write_device(bytes *b, const store_device_row *row) {
    bool first = true;
    bytes_char(b, '{');
    write_text(b, &first, "deviceId", row->device_id);
    write_text(b, &first, "scope", row->scope);
    write_text(b, &first, "user", row->user_id);
    write_text(b, &first, "label", row->label.len ? row->label : (slice){0});
    write_text(b, &first, "state", slice_of(store_device_state_name(row->state)));
    json_key(b, &first, "sentSeq");
    json_write_int(b, row->applied_seq);
    json_key(b, &first, "pulledSeq");
    json_write_int(b, row->pulled_seq);
    write_time(b, &first, "registeredAt", row->registered_ms);
    write_time(b, &first, "lastSeen", row->last_seen_ms);
    bytes_char(b, '}');
}

/* One form for list and for what the other actions changed. */
static int print_devices(const flags *f, arena *a, const store_device_row *rows, size_t count) {
    static const char *const names[] = {"deviceId", "scope",   "user",    "label",
                                        "state",    "sentSeq", "lastSeen"};
    const cli_rows_options options = {f->json, f->limit, "no devices"};
    const json *items = NULL;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < count; i++) {
        bytes_text(&b, i ? "," : "");
        write_device(&b, &rows[i]);
    }
    bytes_char(&b, ']');
    int code = CLI_FAILED;
    if (b.failed || json_parse(a, bytes_view(&b), &items, NULL) != GODWIT_OK) {
        code = cli_fail("out of memory");
    } else {
        code = cli_print_items(items, names, COUNT_OF(names), &options);
    }
    bytes_deinit(&b);
    return code;
}

static int list(const flags *f, store *st, arena *a) {
    store_device_row *rows = NULL;
    size_t count = 0;
    godwit_status status =
        store_devices(st, a, f->scope ? slice_of(f->scope) : (slice){0}, &rows, &count);
    return status ? explain(st, status) : print_devices(f, a, rows, count);
}

/* ---- marking ---- */

typedef struct {
    const char *name; /* of the action */
    device_state to;
    store_device_row *rows;
    size_t count;
} marking;

static bool allowed(const marking *m, device_state from) {
    return strcmp(m->name, "allow") == 0    ? from == DEVICE_REVOKED
           : strcmp(m->name, "retire") == 0 ? from != DEVICE_REVOKED
                                            : true;
}

/* The only device whose id begins so. CLI_GO or the exit code. */
static int find(const marking *m, const char *prefix, slice *out) {
    const store_device_row *found = NULL;
    slice wanted = slice_of(prefix);
    for (size_t i = 0; i < m->count; i++) {
        const store_device_row *row = &m->rows[i];
        if (slice_equal(row->device_id, wanted)) {
            found = row;
            break;
        }
        if (!wanted.len || row->device_id.len < wanted.len ||
            memcmp(row->device_id.ptr, wanted.ptr, wanted.len) != 0) {
            continue;
        }
        if (found && !slice_equal(found->device_id, row->device_id)) {
            return cli_fail("'%s' is the beginning of more than one device's id", prefix);
        }
        found = row;
    }
    if (!found) {
        return cli_fail("no device '%s'; 'godwit devices' lists them", prefix);
    }
    *out = found->device_id;
    return CLI_GO;
}

static int mark_one(store *st, const marking *m, slice id) {
    for (size_t i = 0; i < m->count; i++) {
        store_device_row *row = &m->rows[i];
        int64_t changed = 0;
        if (!slice_equal(row->device_id, id)) {
            continue;
        }
        if (!allowed(m, row->state)) {
            return cli_fail("device " SLICE_FMT " is %s in scope " SLICE_FMT ": %s", SLICE_ARG(id),
                            store_device_state_name(row->state), SLICE_ARG(row->scope),
                            row->state == DEVICE_REVOKED ? "'godwit devices allow' lets it in again"
                                                         : "there is nothing to allow");
        }
        godwit_status status = store_device_mark(st, row->scope, id, m->to, &changed);
        if (status != GODWIT_OK) {
            return explain(st, status);
        }
        row->state = m->to;
    }
    return CLI_GO;
}

/* All of the ids or none. */
static int mark_all(const flags *f, store *st, arena *a, marking *m, char **ids) {
    size_t kept = 0;
    godwit_status status =
        store_devices(st, a, f->scope ? slice_of(f->scope) : (slice){0}, &m->rows, &m->count);
    if (status == GODWIT_OK) {
        status = store_begin(st);
    }
    if (status != GODWIT_OK) {
        return explain(st, status);
    }
    bool *touched = ARENA_ARRAY(a, bool, m->count + 1);
    int code = touched ? CLI_GO : cli_fail("out of memory");
    for (int i = 0; ids[i] && code == CLI_GO; i++) {
        slice id = {0};
        code = find(m, ids[i], &id);
        code = code == CLI_GO ? mark_one(st, m, id) : code;
        for (size_t k = 0; k < m->count && code == CLI_GO; k++) {
            touched[k] = touched[k] || slice_equal(m->rows[k].device_id, id);
        }
    }
    if (code == CLI_GO && (status = store_commit(st)) != GODWIT_OK) {
        code = explain(st, status);
    }
    if (code != CLI_GO) {
        store_rollback(st);
        return code;
    }
    for (size_t i = 0; i < m->count; i++) {
        if (touched[i]) {
            m->rows[kept++] = m->rows[i];
        }
    }
    return print_devices(f, a, m->rows, kept);
}

int cli_devices(int argc, char **argv) {
    flags f = {.limit = LIST_LIMIT};
    marking m = {.name = "list"};
    store *st = NULL;
    int count = 0;
    int code = parse(argc, argv, &f, &count);
    if (code == CLI_GO && count > 0) {
        m.name = argv[1];
        code = action_of(argv[1], &m.to);
    }
    bool listing = strcmp(m.name, "list") == 0;
    if (code == CLI_GO && listing != (count < 2)) {
        code = listing ? cli_usage_error("devices", "list takes no id")
                       : cli_usage_error("devices", "%s wants the id of a device", m.name);
    }
    if (code != CLI_GO) {
        return code;
    }
    arena memory;
    arena_init(&memory, NULL, 0);
    code = open_store(&f, &memory, &st);
    if (code == CLI_GO) {
        argv[count + 1] = NULL;
        code = listing ? list(&f, st, &memory) : mark_all(&f, st, &memory, &m, argv + 2);
    }
    store_close(st);
    arena_deinit(&memory);
    return code;
}
