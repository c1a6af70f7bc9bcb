/* The pass: every scope's round, one request after the other, with no transaction open in between.
 *
 *   pump_step -> request -> (host performs it) -> pump_answer -> pump_step ..
 *
 * core/round decides; this file gathers the facts it asks for and carries out what it says. A scope
 * that has to stop does not keep the others from syncing; a failure to reach the server ends the
 * pass. */
#include "client/event.h"
#include "client/identity.h"
#include "client/reconcile.h"
#include "client/repair.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/limits.h"

/* ---- The handle's pump ---- */

godwit_status pump_of(godwit *g, pump **out) {
    if (!g->pump) {
        pump *p = mem_resize(g->allocator, NULL, sizeof *p);
        if (!p) {
            return GODWIT_NOMEM;
        }
        memset(p, 0, sizeof *p);
        arena_init(&p->memory, g->allocator, 0);
        bytes_init(&p->request.path, g->allocator, 0);
        bytes_init(&p->request.body, g->allocator, 0);
        bytes_init(&p->request.cursor, g->allocator, 0);
        bytes_init(&p->json, g->allocator, 0);
        g->pump = p;
    }
    *out = g->pump;
    return GODWIT_OK;
}

void pump_close(godwit *g) {
    pump *p = g->pump;
    if (!p) {
        return;
    }
    lease_release(g, p);
    reconcile_forget(g, p->reconciliation);
    transport_destroy(p->transport);
    arena_deinit(&p->memory);
    bytes_deinit(&p->request.path);
    bytes_deinit(&p->request.body);
    bytes_deinit(&p->request.cursor);
    bytes_deinit(&p->json);
    mem_free(g->allocator, p);
    g->pump = NULL;
}

void pump_disconnect(godwit *g) {
    if (g->pump) {
        transport_destroy(g->pump->transport);
        g->pump->transport = NULL;
    }
}

void pump_abandon(godwit *g, pump *p) {
    lease_release(g, p);
    reconcile_forget(g, p->reconciliation);
    p->reconciliation = NULL;
    p->active = false;
    p->request.phase = ROUND_IDLE;
}

/* ---- Scopes ---- */

static godwit_status add_scope(pump *p, slice scope) {
    for (size_t i = 0; i < p->scope_count; i++) {
        if (slice_equal(p->scopes[i], scope)) {
            return GODWIT_OK;
        }
    }
    if (p->scope_count == SCOPES_MAX) {
        return GODWIT_LIMIT;
    }
    p->scopes[p->scope_count] = arena_copy(&p->memory, scope);
    return p->scopes[p->scope_count++].ptr ? GODWIT_OK : GODWIT_NOMEM;
}

static godwit_status list_scopes(godwit *g, pump *p) {
    slice scope = {0};
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    arena_reset(&p->memory);
    p->scopes = ARENA_ARRAY(&p->memory, slice, SCOPES_MAX);
    p->scope_count = 0;
    p->scope_at = 0;
    godwit_status status = p->scopes ? client_scope(g, &p->memory, &scope) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = add_scope(p, scope);
    }
    status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i];
        if (t->active && t->shape.scope.len) {
            status = add_scope(p, t->shape.scope);
        }
    }
    if (status == GODWIT_OK) {
        status = db_prepare(
            &g->db, "SELECT scope FROM godwit_identity WHERE current = 1 ORDER BY scope", &stmt);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(&g->db, stmt, &row);
        if (status == GODWIT_OK && row) {
            status = add_scope(p, db_column_slice(stmt, 0));
        }
    }
    db_done(&g->db, stmt);
    if (status == GODWIT_OK && p->scope_count == 0) {
        status = token_no_scope(g);
    }
    return status;
}

/* ---- Facts ---- */

static godwit_status sendable(godwit *g, slice scope, bool *out) {
    int64_t n = 0;
    godwit_status status =
        db_int(&g->db, &n,
               "SELECT EXISTS (SELECT 1 FROM godwit_identity WHERE scope = ?1 AND current"
               " = 1 AND next_seq - 1 > acked_seq)",
               "s", scope);
    *out = n != 0;
    return status;
}

static godwit_status bootstrapping(godwit *g, slice scope, bool *out) {
    int64_t n = 0;
    godwit_status status =
        db_int(&g->db, &n,
               "SELECT EXISTS (SELECT 1 FROM godwit_cursor WHERE scope = ?1 AND state ="
               " 'bootstrap')",
               "s", scope);
    *out = n != 0;
    return status;
}

static godwit_status registered(godwit *g, slice scope, bool *out) {
    arena a;
    bytes text;
    char hash[65], key[160];
    slice stored = {0};
    snprintf(key, sizeof key, "registered:" SLICE_FMT, SLICE_ARG(scope));
    arena_init(&a, g->allocator, 0);
    bytes_init(&text, g->allocator, 0);
    godwit_status status = request_declaration(g, scope, hash, &text);
    if (status == GODWIT_OK) {
        status = client_meta_text(g, &a, key, &stored);
    }
    *out = status == GODWIT_OK && slice_is(stored, hash);
    bytes_deinit(&text);
    arena_deinit(&a);
    return status;
}

static godwit_status facts(godwit *g, pump *p, round_event *e) {
    godwit_status status = client_entropy(g, &e->random, sizeof e->random);
    if (status == GODWIT_OK) {
        status = sendable(g, p->request.scope, &e->sendable);
    }
    if (status == GODWIT_OK) {
        status = bootstrapping(g, p->request.scope, &e->bootstrapping);
    }
    if (status == GODWIT_OK) {
        status = identity_reconcile_wanted(g, p->request.scope, &e->reconciling);
    }
    return status;
}

/* ---- One scope ---- */

static godwit_status load_round(godwit *g, pump *p) {
    arena a;
    char key[160];
    slice text = {0};
    int64_t failures = 0;
    snprintf(key, sizeof key, "round:" SLICE_FMT, SLICE_ARG(p->request.scope));
    arena_init(&a, g->allocator, 0);
    round_init(&p->round);
    godwit_status status = client_meta_int(g, "failures", 0, &failures);
    if (status == GODWIT_OK) {
        status = client_meta_text(g, &a, key, &text);
    }
    p->round.failures = failures > 0 && failures < 1000 ? (int)failures : 0;
    p->round_kept = text.ptr != NULL;
    if (text.ptr) {
        char *rest = NULL;
        long max_ops = strtol(text.ptr, &rest, 10);
        long alone = strtol(rest, NULL, 10);
        p->round.max_ops = max_ops >= 1 && max_ops <= PUSH_FILL_OPS ? (int)max_ops : PUSH_FILL_OPS;
        p->round.alone_failures = alone > 0 && alone < POISON_LIMIT ? (int)alone : 0;
    }
    arena_deinit(&a);
    return status;
}

static godwit_status seal_all(godwit *g) {
    bool more = true;
    godwit_status status = GODWIT_OK;
    while (more && status == GODWIT_OK) {
        status = seal_run(g, SEAL_PORTION, &more);
    }
    return status;
}

static godwit_status send(godwit *g, pump *p, round_phase phase, int max_ops) {
    godwit_status status = lease_take(g, p, client_wall_ms(g) + LEASE_MAX_MS);
    bytes_clear(&p->request.path);
    bytes_clear(&p->request.body);
    bytes_clear(&p->request.cursor);
    p->request.first_seq = p->request.last_seq = 0;
    if (status == GODWIT_OK) {
        status = phase == ROUND_REGISTER    ? request_register(g, p)
                 : phase == ROUND_SYNC      ? request_sync(g, p, max_ops)
                 : phase == ROUND_RECONCILE ? reconcile_page(g, p)
                                            : request_snapshot(g, p);
    }
    if (status == GODWIT_OK) {
        p->request.phase = phase;
        p->request.id = ++p->last_id;
        p->request.made_mono_ms = client_mono_ms(g);
        p->request.made_wall_ms = client_wall_ms(g);
        p->report.requests++;
        p->requests++;
        p->sent_bytes += (int64_t)p->request.body.len;
    }
    if (status == GODWIT_OK && p->request.last_seq) {
        status = event_sent(g, p->request.scope, p->request.first_seq,
                            p->request.last_seq - p->request.first_seq + 1);
    }
    return status;
}

/* The scope is through, or has to stop: note the first reason and go to the next. What it could not
 * push does not make the pass a failure. */
static void leave_scope(godwit *g, pump *p, godwit_status status) {
    if (p->round.read_only && status == GODWIT_FORBIDDEN) {
        snprintf(p->unpushed, sizeof p->unpushed,
                 "scope " SLICE_FMT " may only be read: what was changed in it waits",
                 SLICE_ARG(p->request.scope));
    } else if (status != GODWIT_OK && p->failure == GODWIT_OK) {
        p->failure = status;
        snprintf(p->reason, sizeof p->reason, "%s", g->message);
    }
    p->scope_at++;
    p->round.phase = ROUND_IDLE;
}

static godwit_status finish_pass(godwit *g, pump *p) {
    godwit_status status = p->failure;
    if (status == GODWIT_OK) {
        status = pump_note_success(g, p);
        if (status == GODWIT_OK) {
            status = repair_lost_bases(g);
        }
        if (status == GODWIT_OK) {
            status = client_tidy(g);
        }
        if (status == GODWIT_OK && p->unpushed[0]) {
            status = client_fail(g, GODWIT_FORBIDDEN, "%s", p->unpushed);
        }
    } else {
        status = client_fail(g, p->failure, "%s", p->reason);
    }
    pump_abandon(g, p);
    return status;
}

static godwit_status begin_pass(godwit *g, pump *p) {
    int64_t migrating = 0;
    p->failure = GODWIT_OK;
    p->unpushed[0] = '\0';
    p->wait_until_ms = 0;
    godwit_status status = client_meta_int(g, "migrating", 0, &migrating);
    if (status == GODWIT_OK && migrating) {
        return client_fail(g, GODWIT_BUSY,
                           "a migration is open: end it with godwit_migrate('end')");
    }
    if (status == GODWIT_OK) {
        status = lease_take(g, p, client_wall_ms(g) + LEASE_MAX_MS);
    }
    if (status == GODWIT_OK) {
        status = identity_check_user(g);
    }
    if (status == GODWIT_OK) {
        status = identity_check_place(g);
    }
    if (status == GODWIT_OK) {
        status = list_scopes(g, p);
    }
    p->active = status == GODWIT_OK;
    return status;
}

/* Carries out one action. *request: something is to be sent now. */
static godwit_status act(godwit *g, pump *p, round_action action, bool *request) {
    *request = false;
    switch (action.kind) {
    case ROUND_SEND_REGISTER:
        *request = true;
        return send(g, p, ROUND_REGISTER, 0);
    case ROUND_SEND_SYNC:
        *request = true;
        return send(g, p, ROUND_SYNC, action.max_ops);
    case ROUND_SEND_SNAPSHOT:
        *request = true;
        return send(g, p, ROUND_SNAPSHOT, 0);
    case ROUND_SEND_RECONCILE:
        *request = true;
        return send(g, p, ROUND_RECONCILE, 0);
    case ROUND_FINISH:
        leave_scope(g, p, GODWIT_OK);
        return GODWIT_OK;
    case ROUND_STOP:
        leave_scope(g, p, action.status);
        return GODWIT_OK;
    case ROUND_QUARANTINE:
    case ROUND_WAIT: /* pump_answer has dealt with them */
        break;
    }
    return GODWIT_INTERNAL;
}

static godwit_status go_on(godwit *g, pump *p, round_event_kind kind, bool more, bool *request) {
    round_event e = {.kind = kind, .retry_after_ms = -1, .more = more};
    godwit_status status = facts(g, p, &e);
    e.registered = p->round.phase == ROUND_SYNC || p->round.phase == ROUND_SNAPSHOT;
    if (status == GODWIT_OK && !e.registered) {
        status = registered(g, p->request.scope, &e.registered);
    }
    return status == GODWIT_OK ? act(g, p, round_step(&p->round, &e), request) : status;
}

static godwit_status next_request(godwit *g, pump *p, bool *request) {
    godwit_status status = GODWIT_OK;
    *request = false;
    while (status == GODWIT_OK && !*request && p->scope_at < p->scope_count) {
        p->request.scope = p->scopes[p->scope_at];
        if (p->round.phase == ROUND_IDLE) {
            status = load_round(g, p);
            if (status == GODWIT_OK) {
                status = seal_all(g);
            }
            int64_t received = 0;
            if (status == GODWIT_OK) {
                status = bootstrap_advance(g, p->request.scope, &received);
            }
            p->report.received += received;
            if (status == GODWIT_OK) {
                status = go_on(g, p, ROUND_EVENT_START, false, request);
            }
        } else {
            status = GODWIT_INTERNAL;
        }
    }
    return status;
}

static pump_kind step(godwit *g, pump *p, godwit_status *status) {
    bool request = false;
    *status = GODWIT_OK;
    if (p->request.phase != ROUND_IDLE) {
        return PUMP_REQUEST;
    }
    if (!p->active && p->wait_until_ms) {
        *status = p->failure;
        return PUMP_WAIT;
    }
    if (!p->active) {
        p->round.phase = ROUND_IDLE;
        *status = begin_pass(g, p);
    }
    if (*status == GODWIT_OK) {
        *status = next_request(g, p, &request);
    }
    if (*status != GODWIT_OK) {
        pump_abandon(g, p);
        return PUMP_DONE;
    }
    if (request) {
        return PUMP_REQUEST;
    }
    *status = finish_pass(g, p);
    return PUMP_DONE;
}

pump_kind pump_step(godwit *g, pump *p, godwit_status *status) {
    bool fresh = p->request.phase == ROUND_IDLE;
    pump_kind kind = step(g, p, status);
    if (fresh && *status == GODWIT_OK) {
        *status = event_deliver(g);
        if (*status != GODWIT_OK) {
            pump_abandon(g, p);
            kind = PUMP_DONE;
        }
    }
    return kind;
}

/* ---- Answers ---- */

static godwit_status progress(godwit *g, const pump *p) {
    int64_t left = 0;
    if (!g->options.host.on_event) {
        return GODWIT_OK;
    }
    godwit_status status =
        db_int(&g->db, &left,
               "SELECT coalesce((SELECT n FROM godwit_counter WHERE name = 'op:pending'), 0)", "");
    if (status == GODWIT_OK) {
        event_progress(g, p->request.scope, p->report.sent, p->report.sent + left);
    }
    return status;
}

static void explain(godwit *g, int http, const problem *found, const char *reason) {
    if (http == 0) {
        (void)client_fail(g, GODWIT_UNREACHABLE, "the server could not be reached: %s",
                          reason && *reason ? reason : "no answer");
    } else if (found->type.len) {
        (void)client_fail(g, GODWIT_PROTOCOL, "the server answered %d " SLICE_FMT "%s" SLICE_FMT,
                          http, SLICE_ARG(found->type), found->detail.len ? ": " : "",
                          SLICE_ARG(found->detail));
    } else if (http >= 200 && http < 300) {
        (void)client_fail(g, GODWIT_PROTOCOL, "the server's answer can't be understood");
    } else {
        (void)client_fail(g, GODWIT_PROTOCOL, "the server answered %d, and not as Godwit does",
                          http);
    }
}

static godwit_status wait_until(godwit *g, pump *p, const round_action *action) {
    p->wait_until_ms = client_wall_ms(g) + action->delay_ms;
    p->failure = action->status;
    snprintf(p->reason, sizeof p->reason, "%s", g->message);
    return action->status;
}

static godwit_status take_failure(godwit *g, pump *p, int http, const problem *found,
                                  round_problem kind, int64_t retry_after_ms) {
    round_event e = {.kind = ROUND_EVENT_PROBLEM,
                     .problem = kind,
                     .retry_after_ms = retry_after_ms,
                     .pull_only = p->request.last_seq == 0};
    bool request = false;
    godwit_status status = GODWIT_OK;
    if (kind == PROBLEM_BOOTSTRAP) {
        status = bootstrap_require(g, p->request.scope);
    }
    if (status == GODWIT_OK && (kind == PROBLEM_BOOTSTRAP || kind == PROBLEM_IDENTITY)) {
        status = identity_want_reconcile(g, p->request.scope, g->message);
    }
    if (status == GODWIT_OK) {
        status = facts(g, p, &e);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    round_action action = round_step(&p->round, &e);
    if (action.kind == ROUND_WAIT) {
        status = wait_until(g, p, &action);
    }
    if (kind == PROBLEM_IDENTITY) { /* no operation is to blame */
        p->request.last_seq = 0;
    }
    godwit_status stored = answer_blame(g, p, http, kind, found->type, slice_of(g->message));
    if (stored != GODWIT_OK) {
        return stored;
    }
    p->round_kept = true;
    if (action.kind == ROUND_WAIT) {
        pump_abandon(g, p);
        return GODWIT_OK;
    }
    p->request.phase = ROUND_IDLE;
    if (action.kind == ROUND_QUARANTINE) {
        status = quarantine_first(g, p->request.scope);
        return status == GODWIT_OK ? go_on(g, p, ROUND_EVENT_OK, true, &request) : status;
    }
    return act(g, p, action, &request);
}

static bool local_failure(godwit_status status) {
    return status != GODWIT_OK && status != GODWIT_INVALID && status != GODWIT_LIMIT &&
           status != GODWIT_PROTOCOL;
}

static godwit_status take_answer(godwit *g, pump *p, const godwit_http_answer *answer) {
    bool more = false, request = false;
    round_problem kind = round_problem_of(answer->status, (slice){0});
    problem found = {0};
    arena a;
    slice body = {answer->body, answer->body_bytes};
    arena_init(&a, g->allocator, 0);
    godwit_status status = GODWIT_OK;
    bool good = answer->status >= 200 && answer->status < 300;
    p->received_bytes += (int64_t)answer->body_bytes;
    if (good) {
        status = answer_take(g, p, body, &more, &kind);
        if (local_failure(status) && status != GODWIT_IDENTITY) {
            arena_deinit(&a);
            pump_abandon(g, p);
            p->failure = status;
            return status;
        }
        kind = status == GODWIT_OK         ? kind
               : status == GODWIT_IDENTITY ? PROBLEM_IDENTITY
                                           : PROBLEM_PROTOCOL;
    } else if (answer->status) {
        wire_problem_parse(&a, body, &found);
        kind = round_problem_of(answer->status, found.type);
    }
    if (good && kind == PROBLEM_NONE) {
        status = p->round.read_only ? GODWIT_OK : pump_forget_failures(g, p);
        p->request.phase = ROUND_IDLE;
        if (status == GODWIT_OK) {
            status = seal_all(g);
        }
        if (status == GODWIT_OK) {
            status = go_on(g, p, ROUND_EVENT_OK, more, &request);
        }
    } else {
        if (status != GODWIT_IDENTITY) { /* else settling has said what it found */
            explain(g, answer->status, &found, answer->reason);
        }
        status = take_failure(g, p, answer->status, &found, kind, answer->retry_after_ms);
    }
    arena_deinit(&a);
    if (status != GODWIT_OK) {
        pump_abandon(g, p);
    }
    return status;
}

/* What an answer has shown, in the order it happened: reachable or not first, then what it brought.
 */
godwit_status pump_answer(godwit *g, pump *p, const godwit_http_answer *answer) {
    const char *why = answer->reason[0] ? answer->reason : "no answer";
    godwit_status told = event_online(g, answer->status != 0, slice_of(answer->status ? "" : why));
    godwit_status status = take_answer(g, p, answer);
    if (answer->status && told == GODWIT_OK) {
        told = progress(g, p);
    }
    if (told == GODWIT_OK) {
        told = event_deliver(g);
    }
    return status == GODWIT_OK ? told : status;
}
