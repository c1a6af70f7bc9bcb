/* SQL functions about what became of operations: waiting for one, and events. */
#include "extension/extension.h"

static void leave(sqlite3_context *context, godwit *g, godwit_status status) {
    if (status == GODWIT_OK) {
        sqlite3_result_text(context, "ok", -1, SQLITE_STATIC);
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

static void give_receipt(sqlite3_context *context, const char *id, const godwit_receipt *r) {
    bool first = true;
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    const struct {
        const char *name, *text;
    } members[] = {{"id", id},
                   {"outcome", r->outcome},
                   {"code", r->code},
                   {"detail", r->detail},
                   {"resolution", r->resolution},
                   {"supersededBy", r->superseded_by}};
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        if (members[i].text[0]) {
            json_key(&b, &first, members[i].name);
            json_write_text(&b, slice_of(members[i].text));
        }
    }
    if (r->commit_seq) {
        json_key(&b, &first, "commitSeq");
        bytes_int(&b, r->commit_seq);
    }
    bytes_char(&b, '}');
    if (b.failed) {
        sqlite3_result_error_nomem(context);
    } else {
        sqlite3_result_text(context, b.ptr, (int)b.len, SQLITE_TRANSIENT);
    }
    bytes_deinit(&b);
}

static void call_wait(sqlite3_context *context, int argc, sqlite3_value **argv) {
    godwit_receipt r;
    const char *id = extension_text(argc, argv, 0);
    if (argc < 1 || argc > 2) {
        extension_error(context, GODWIT_INVALID, "godwit_wait(id [, timeout_ms])");
        return;
    }
    int64_t timeout_ms = 0;
    godwit *g = extension_number(context, argc, argv, 1, &timeout_ms)
                    ? extension_handle(context, false)
                    : NULL;
    if (!g) {
        return;
    }
    godwit_status status = godwit_wait(g, id, timeout_ms, &r);
    if (status == GODWIT_OK || status == GODWIT_TIMEOUT) {
        give_receipt(context, id, &r); /* after the time: outcome pending */
    } else {
        extension_error(context, status, godwit_message(g));
    }
}

static void call_events_keep(sqlite3_context *context, int argc, sqlite3_value **argv) {
    int64_t on = 0;
    godwit *g =
        extension_number(context, argc, argv, 0, &on) ? extension_handle(context, false) : NULL;
    if (g) {
        leave(context, g, godwit_events_keep(g, on != 0));
    }
}

static void call_events_done(sqlite3_context *context, int argc, sqlite3_value **argv) {
    int64_t seq = 0;
    godwit *g =
        extension_number(context, argc, argv, 0, &seq) ? extension_handle(context, false) : NULL;
    if (g) {
        leave(context, g, godwit_events_done(g, seq));
    }
}

int receipt_register(sqlite3 *connection, extension *e) {
    static const extension_function list[] = {
        {"godwit_wait", -1, SQLITE_DIRECTONLY, call_wait},
        {"godwit_events_keep", 1, SQLITE_DIRECTONLY, call_events_keep},
        {"godwit_events_done", 1, SQLITE_DIRECTONLY, call_events_done},
    };
    return extension_register(connection, e, list, COUNT_OF(list));
}
