/* Taking answers: parse, settle, and note what the next step has to know. */
#include "client/identity.h"
#include "client/reconcile.h"
#include "client/track.h"

#include <stdio.h>

static godwit_status note_head(godwit *g, slice scope, int64_t head) {
    char key[160];
    int64_t stored = -1;
    snprintf(key, sizeof key, "head:" SLICE_FMT, SLICE_ARG(scope));
    godwit_status status = client_meta_int(g, key, -1, &stored);
    return status == GODWIT_OK && stored != head ? client_meta_set_int(g, key, head) : status;
}

/* ---- Registration ---- */

static bool covers(const schema *before, const schema *now) {
    for (size_t t = 0; t < now->table_count; t++) {
        const schema_table *old = schema_find(before, now->tables[t].entity);
        for (size_t c = 0; old && c < now->tables[t].column_count; c++) {
            if (schema_column_index(old, now->tables[t].columns[c].name) < 0) {
                return false;
            }
        }
        if (!old) {
            return false;
        }
    }
    return true;
}

/* A table or column declared only now: what the server already has of it was passed over so far. */
static godwit_status declared_more(godwit *g, arena *a, slice scope, bool *more) {
    slice text = {0};
    const json *list = NULL;
    const char *reason = NULL;
    schema before, now;
    int64_t position = 0;
    *more = false;
    godwit_status status = db_int(
        &g->db, &position,
        "SELECT coalesce(max(commit_seq), 0) FROM godwit_cursor WHERE scope = ?1", "s", scope);
    if (status == GODWIT_OK) {
        status =
            client_meta_text(g, a, arena_printf(a, "declared:" SLICE_FMT, SLICE_ARG(scope)), &text);
    }
    if (status != GODWIT_OK || position == 0 || !text.ptr) {
        return status;
    }
    if (json_parse(a, text, &list, NULL) != GODWIT_OK ||
        schema_from_json(a, list, &before, &reason) != GODWIT_OK) {
        *more = true; /* can't tell: better once too often */
        return GODWIT_OK;
    }
    client_declaration(g, &now);
    *more = !covers(&before, &now);
    return GODWIT_OK;
}

static godwit_status store_registration(godwit *g, arena *a, const pump_request *request,
                                        int64_t head) {
    bytes text;
    char hash[65];
    bytes_init(&text, g->allocator, 0);
    char *registered = arena_printf(a, "registered:" SLICE_FMT, SLICE_ARG(request->scope));
    char *declared = arena_printf(a, "declared:" SLICE_FMT, SLICE_ARG(request->scope));
    godwit_status status = registered && declared ? db_begin(&g->db) : GODWIT_NOMEM;
    if (status != GODWIT_OK) {
        return status;
    }
    status = request_declaration(g, request->scope, hash, &text);
    if (status == GODWIT_OK) {
        status = client_meta_set(g, registered, slice_of(request->declaration));
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, declared, bytes_view(&text));
    }
    if (status == GODWIT_OK) {
        status = note_head(g, request->scope, head);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    bytes_deinit(&text);
    return status;
}

static godwit_status take_registration(godwit *g, pump *p, arena *a, slice body) {
    register_answer answer;
    int64_t head = 0, known = 0, told = 0;
    bool more = false, other = false;
    godwit_status status = wire_register_answer_parse(a, body, &answer);
    if (status != GODWIT_OK) {
        return status;
    }
    status = identity_check_server(g, answer.server_id, &other);
    if (status != GODWIT_OK || other) {
        return status; /* the identity registered was not meant for this one: once more */
    }
    for (size_t i = 0; i < answer.scope_count; i++) {
        head = slice_equal(answer.scopes[i].scope, p->request.scope) ? answer.scopes[i].head : head;
    }
    status = declared_more(g, a, p->request.scope, &more);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &known, "SELECT count(*) FROM godwit_cursor WHERE scope = ?1", "s",
                        p->request.scope);
    }
    if (status == GODWIT_OK) {
        status = column_types_learn(g, answer.tables);
    }
    if (status == GODWIT_OK) {
        status = former_learn(g, answer.tables);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, "names", answer.names);
    }
    if (status == GODWIT_OK) {
        status = gained_queue(g);
    }
    if (status == GODWIT_OK && (more || (!known && head > SNAPSHOT_FIRST_COMMITS))) {
        status = bootstrap_require(g, p->request.scope);
    }
    if (status == GODWIT_OK && more && known) {
        status = db_int(&g->db, &told,
                        "SELECT count(*) FROM godwit_identity WHERE scope = ?1 AND current = 1 AND"
                        " acked_seq > 0",
                        "s", p->request.scope);
    }
    /* the cursor is given up, and the stream of a new identity can't tell either whether the server
     * still has this history */
    if (status == GODWIT_OK && more && known && !told) {
        status = identity_want_reconcile(g, p->request.scope,
                                         "a snapshot comes in place of what follows the cursor");
    } else if (status == GODWIT_OK && more && known) {
        status = identity_note_unproved(g, p->request.scope);
    }
    return status == GODWIT_OK ? store_registration(g, a, &p->request, head) : status;
}

/* ---- Push and pull, snapshot ---- */

static void add_counts(pump *p, const settle_counts *counts) {
    p->report.sent += counts->sent;
    p->report.applied += counts->applied;
    p->report.merged += counts->merged;
    p->report.rejected += counts->rejected;
    p->report.conflicts += counts->conflicts;
    p->report.duplicates += counts->duplicates;
    p->report.received += counts->received;
}

static godwit_status advance(godwit *g, pump *p) {
    int64_t received = 0;
    godwit_status status = bootstrap_advance(g, p->request.scope, &received);
    p->report.received += received;
    return status;
}

/* The server's clock against ours, and how long operations took to be answered. */
static void note_times(godwit *g, const pump *p, const push_answer *answer) {
    int64_t took_ms = client_mono_ms(g) - p->request.made_mono_ms, server_ms = 0;
    g->round_trip_ms = answer->result_count && took_ms >= 0 ? took_ms : -1;
    if (took_ms >= 0 && wire_time_parse(answer->server_time, &server_ms)) {
        g->clock_ahead_ms = server_ms - (p->request.made_wall_ms + took_ms / 2);
    }
}

/* The server's columns have other names than it told us: registering again tells them, and the
 * answer comes again. */
static godwit_status check_names(godwit *g, arena *a, slice names, bool *known) {
    slice mine = {0};
    godwit_status status = names.len ? client_meta_text(g, a, "names", &mine) : GODWIT_OK;
    *known = names.len == 0 || slice_equal(names, mine);
    return status;
}

/* A page that follows another position than the one asked from: something between the server and us
 * has answered from its memory. */
static bool from_elsewhere(arena *a, slice cursor, const pull_answer *page) {
    wire_cursor asked = {0};
    if (page->from < 0 || (cursor.len && wire_cursor_parse(a, cursor, &asked) != GODWIT_OK)) {
        return false;
    }
    return page->from != asked.seq;
}

static godwit_status take_sync(godwit *g, pump *p, arena *a, slice body, bool *more,
                               round_problem *kind) {
    push_answer answer;
    settle_counts counts;
    godwit_status status = wire_push_answer_parse(a, body, &answer);
    if (status != GODWIT_OK) {
        return status;
    }
    if (answer.has_changes && from_elsewhere(a, bytes_view(&p->request.cursor), &answer.changes)) {
        *kind = PROBLEM_TRANSPORT;
        return GODWIT_OK;
    }
    note_times(g, p, &answer);
    bool known = true;
    status = check_names(g, a, answer.has_changes ? answer.changes.names : (slice){0}, &known);
    if (status != GODWIT_OK || !known) {
        *kind = PROBLEM_DEVICE_UNKNOWN;
        return status;
    }
    status = settle_answer(g, p->request.scope, bytes_view(&p->request.cursor), &answer,
                           answer.has_changes ? &answer.changes : NULL, &counts);
    if (status != GODWIT_OK) {
        return status == GODWIT_INVALID ? GODWIT_PROTOCOL : status;
    }
    add_counts(p, &counts);
    if (answer.changes_problem.len) {
        *kind = round_problem_of(200, answer.changes_problem);
        *kind = *kind == PROBLEM_NONE ? PROBLEM_PROTOCOL : *kind;
    }
    *more = answer.has_changes ? answer.changes.more : p->request.push_only;
    status = note_head(g, p->request.scope, answer.has_changes ? answer.changes.head : answer.head);
    return status == GODWIT_OK ? advance(g, p) : status;
}

static godwit_status take_snapshot(godwit *g, pump *p, arena *a, slice body, bool *more,
                                   round_problem *kind) {
    snapshot_answer answer;
    godwit_status status = wire_snapshot_answer_parse(a, body, &answer);
    if (status != GODWIT_OK) {
        return status;
    }
    bool known = true;
    status = check_names(g, a, answer.names, &known);
    if (status != GODWIT_OK || !known) {
        *kind = PROBLEM_DEVICE_UNKNOWN;
        return status;
    }
    status = bootstrap_take_snapshot(g, p->request.scope, bytes_view(&p->request.cursor), &answer);
    if (status != GODWIT_OK) {
        return status == GODWIT_INVALID ? GODWIT_PROTOCOL : status;
    }
    *more = answer.more;
    return answer.more ? GODWIT_OK : advance(g, p);
}

static godwit_status take_reconciliation(godwit *g, pump *p, arena *a, slice body, bool *more) {
    reconcile_answer answer;
    godwit_status status = wire_reconcile_answer_parse(a, body, &answer);
    return status == GODWIT_OK ? reconcile_take(g, p, &answer, more) : status;
}

godwit_status answer_take(godwit *g, pump *p, slice body, bool *more, round_problem *kind) {
    arena a;
    godwit_status status = GODWIT_INTERNAL;
    *more = false;
    *kind = PROBLEM_NONE;
    arena_init(&a, g->allocator, 0);
    switch (p->request.phase) {
    case ROUND_REGISTER:
        status = take_registration(g, p, &a, body);
        break;
    case ROUND_SYNC:
        status = take_sync(g, p, &a, body, more, kind);
        break;
    case ROUND_SNAPSHOT:
        status = take_snapshot(g, p, &a, body, more, kind);
        break;
    case ROUND_RECONCILE:
        status = take_reconciliation(g, p, &a, body, more);
        break;
    case ROUND_IDLE:
    case ROUND_DONE:
    case ROUND_STOPPED:
        break;
    }
    arena_deinit(&a);
    return status;
}

/* ---- Failures ---- */

static godwit_status blame_ops(godwit *g, const pump *p, slice code, slice detail, bool counts) {
    int64_t first = 0;
    char at[32];
    wire_time_write(client_wall_ms(g), at);
    godwit_status status = request_first_lsn(g, p->request.scope, &first);
    return status == GODWIT_OK
               ? db_run(&g->db,
                        "UPDATE godwit_op SET attempts = attempts + ?5, last_error_code = ?6, "
                        "last_error ="
                        " ?7, last_attempt_at = ?8, next_attempt_at = ?9 WHERE lsn >= ?1 AND scope "
                        "= ?2 AND"
                        " state = 'pending' AND sequence_number BETWEEN ?3 AND ?4 AND lsn <= ?1 +"
                        " 1000000",
                        "isiiisssi", first, p->request.scope, p->request.first_seq,
                        p->request.last_seq, (int64_t)counts, code, detail, slice_of(at),
                        p->wait_until_ms)
               : status;
}

static const char *class_of(round_problem kind) {
    switch (kind) {
    case PROBLEM_TRANSPORT:
        return "transport";
    case PROBLEM_BUSY:
        return "busy";
    case PROBLEM_UNAUTHENTICATED:
    case PROBLEM_FORBIDDEN:
    case PROBLEM_READ_ONLY:
        return "auth";
    case PROBLEM_DEVICE_UNKNOWN:
    case PROBLEM_IDENTITY:
    case PROBLEM_BOOTSTRAP:
        return "identity";
    case PROBLEM_NONE:
    case PROBLEM_TOO_LARGE:
    case PROBLEM_SCHEMA:
    case PROBLEM_UNSUPPORTED:
    case PROBLEM_PROTOCOL:
        break;
    }
    return "protocol";
}

static godwit_status store_wait(godwit *g, const pump *p, round_problem kind, slice error) {
    char key[160], text[48], counter[32];
    snprintf(counter, sizeof counter, "retry:%s", class_of(kind));
    snprintf(key, sizeof key, "round:" SLICE_FMT, SLICE_ARG(p->request.scope));
    snprintf(text, sizeof text, "%d %d", p->round.max_ops, p->round.alone_failures);
    godwit_status status = client_meta_set_int(g, "failures", p->round.failures);
    if (status == GODWIT_OK) {
        status = client_meta_set_int(g, "next_attempt_ms", p->wait_until_ms);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set_int(g, "last_attempt_ms", client_wall_ms(g));
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, "last_error", error);
    }
    if (status == GODWIT_OK) {
        status = count_add(g, counter, 1);
    }
    return status == GODWIT_OK ? client_meta_set(g, key, slice_of(text)) : status;
}

godwit_status answer_blame(godwit *g, pump *p, int http, round_problem kind, slice type,
                           slice detail) {
    bool counts = kind == PROBLEM_PROTOCOL || kind == PROBLEM_TOO_LARGE;
    char code[32];
    snprintf(code, sizeof code, "http-%d", http);
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    slice name = type.len ? type : http ? slice_of(code) : SLICE("unreachable");
    if (p->request.last_seq) {
        status = blame_ops(g, p, name, detail, counts);
    }
    if (status == GODWIT_OK) {
        status = store_wait(g, p, kind, name);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}
