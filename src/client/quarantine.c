/* Operations that are given up: by the engine (poison), or by a person (discard). Making one again
 * is repair.c. */
#include "client/repair.h"
#include "client/count.h"
#include "client/pump.h"
#include "client/seal.h"

#define NO_ID            "the id of an operation is needed"
#define REASON_BYTES_MAX 2000 /* of a person who gives up */

/* ---- Poison ---- */

static godwit_status refuse_group(settle *s, int64_t first_lsn) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    int64_t group = 0;
    godwit_status status =
        db_int(s->d, &group, "SELECT group_first FROM godwit_op WHERE lsn = ?1", "i", first_lsn);
    if (status == GODWIT_OK) {
        status = db_prepare(
            s->d,
            "SELECT lsn, group_first, last_error FROM godwit_op WHERE lsn >= ?1 AND scope ="
            " ?2 AND sequence_number > 0 ORDER BY lsn",
            &stmt);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 1, first_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 2, s->scope);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(s->d, stmt, &row);
        if (status != GODWIT_OK || !row || sqlite3_column_int64(stmt, 1) != group) {
            break;
        }
        slice detail = arena_copy(&s->a, db_column_slice(stmt, 2));
        status = settle_refuse(s, sqlite3_column_int64(stmt, 0), op_code_name(CODE_POISON), detail);
    }
    db_done(s->d, stmt);
    return status;
}

godwit_status quarantine_first(godwit *g, slice scope) {
    settle s;
    int64_t lsn = INT64_MAX;
    godwit_status status = settle_open(&s, g, scope);
    if (status == GODWIT_OK) {
        status = request_first_lsn(g, scope, &lsn);
    }
    if (status == GODWIT_OK && lsn != INT64_MAX) {
        client_log(g, GODWIT_LOG_WARN, "event=quarantine lsn=%lld", (long long)lsn);
        status = refuse_group(&s, lsn);
    }
    return settle_close(&s, status, NULL);
}

/* ---- Giving up by hand ---- */

static godwit_status explain_absent(godwit *g, const char *id, int64_t lsn) {
    slice state = {0};
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status =
        db_text(&g->db, &a, &state, "SELECT state FROM godwit_op WHERE lsn = ?1", "i", lsn);
    if (status == GODWIT_OK) {
        status = client_fail(g, GODWIT_MISUSE,
                             "operation %.36s does not wait for a decision: it is " SLICE_FMT, id,
                             SLICE_ARG(state));
    } else if (status == GODWIT_NOT_FOUND) {
        status = client_fail(g, status, "no refused operation has the id %.36s", id);
    }
    arena_deinit(&a);
    return status;
}

/* The state it waits in. */
static godwit_status find_waiting(godwit *g, const char *id, int64_t *lsn, op_state *state) {
    slice text = {0};
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status =
        id ? seal_find(g, slice_of(id), lsn) : client_fail(g, GODWIT_MISUSE, NO_ID);
    if (status == GODWIT_OK) {
        status = db_text(&g->db, &a, &text,
                         "SELECT o.state FROM godwit_op AS o WHERE o.lsn = ?1 AND " LETTER_OF_O,
                         "i", *lsn);
    }
    if (status == GODWIT_OK && !op_state_parse(text, state)) {
        status = GODWIT_CORRUPT;
    }
    arena_deinit(&a);
    return status == GODWIT_NOT_FOUND ? explain_absent(g, id, *lsn) : status;
}

static godwit_status discard_one(godwit *g, const char *id, slice reason) {
    int64_t lsn = 0;
    op_state state = OP_REJECTED;
    char at[32];
    wire_time_write(client_wall_ms(g), at);
    godwit_status status = find_waiting(g, id, &lsn, &state);
    if (status == GODWIT_OK) {
        status = db_run(
            &g->db,
            "INSERT INTO godwit_outcome (lsn, idempotency_key, at, outcome, code, detail,"
            " payload, base, resolution) SELECT lsn, idempotency_key, ?2, state, 'discarded', ?3,"
            " payload, base, 'discarded' FROM godwit_op WHERE lsn = ?1",
            "iss", lsn, slice_of(at), reason);
    }
    if (status == GODWIT_OK) {
        status = count_resolved(g, state);
    }
    if (status == GODWIT_OK && state == OP_CONFLICT) {
        status = resolve_give_up(g, lsn);
    }
    return status == GODWIT_OK ? db_run(&g->db, "DELETE FROM godwit_dep WHERE lsn = ?1", "i", lsn)
                               : status;
}

static godwit_status discard_all(godwit *g, const char *const *ids, size_t count,
                                 const char *reason) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    for (size_t i = 0; i < count && status == GODWIT_OK; i++) {
        status = discard_one(g, ids[i], slice_of(reason ? reason : ""));
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}

godwit_status godwit_discard_many(godwit *g, const char *const *ids, size_t count,
                                  const char *reason) {
    if (!ids && count) {
        return client_refuse(g, GODWIT_MISUSE, NO_ID);
    }
    if (reason && strlen(reason) > REASON_BYTES_MAX) {
        return client_refuse(g, GODWIT_LIMIT, "the reason is over 2,000 bytes");
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, discard_all(g, ids, count, reason)) : status;
}

godwit_status godwit_discard(godwit *g, const char *id, const char *reason) {
    return id ? godwit_discard_many(g, &id, 1, reason) : client_refuse(g, GODWIT_MISUSE, NO_ID);
}
