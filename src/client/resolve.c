/* godwit_resolve, godwit_revert: a person decides a conflict, or takes back what a policy decided.
 *
 * The decision is an ordinary change of the application's row, made through SQL so that the
 * triggers capture it, and a hint that this change resolves the conflict. Columns that were chosen
 * and have their value already are added to what was captured: the operation says all that was
 * decided, so that it meets other people's edits as a whole. Where nothing is captured at all (the
 * row has every chosen value, or it is gone and shall be) the log gets an update without effect,
 * which only carries the hint. One transaction, or part of the caller's. */
#include "client/relog.h"
#include "core/limits.h"

typedef struct {
    settle s; /* of this only what reading and writing rows needs: capture stays on */
    slice id, scope, kind, entity_id;
    const client_table *t;
    const json *record;
    apply_table *table;
    value key[KEY_COLUMNS_MAX];
    row_image before, after;
    row_image chosen; /* known: the columns chosen; present: false = the row shall be gone */
    bool whole;       /* they make a row by themselves */
    bool reverts;
    int64_t lsn;
} resolution;

#define REVERT "revert "

bool resolve_is_revert(slice *text) {
    size_t len = sizeof REVERT - 1;
    if (text->len <= len || memcmp(text->ptr, REVERT, len) != 0) {
        return false;
    }
    *text = (slice){text->ptr + len, text->len - len};
    return true;
}

/* ---- The record ---- */

/* By its whole id or the part that people say: c-5-0 of c-5-0-8f1e2d3c4b5a6978. */
#define CALLED(name)                                                                               \
    "(conflict_id = " name " OR length(conflict_id) = length(" name ") + 17 AND substr("           \
    "conflict_id, 1, length(" name ") + 1) = " name " || '-')"
#define FIND                                                                                       \
    " FROM godwit_conflict WHERE " CALLED("?1") " OR (scope = substr(?1, 1, instr(?1, '/') - 1)"   \
                                                " AND " CALLED(                                    \
                                                    "substr(?1, instr(?1, '/') + 1)") ")"

static godwit_status check_found(resolution *r, slice id) {
    godwit *g = r->s.g;
    int64_t count = 0;
    godwit_status status = db_int(r->s.d, &count, "SELECT count(*)" FIND, "s", id);
    if (status == GODWIT_OK && count == 0) {
        return client_fail(g, GODWIT_NOT_FOUND, "this device knows no conflict " SLICE_FMT,
                           SLICE_ARG(id));
    }
    if (status == GODWIT_OK && count > 1) {
        return client_fail(g, GODWIT_INVALID,
                           "there are several conflicts " SLICE_FMT ": name it scope/" SLICE_FMT
                           ", or by its whole id",
                           SLICE_ARG(id), SLICE_ARG(id));
    }
    return status;
}

static godwit_status load_record(resolution *r, slice id) {
    godwit *g = r->s.g;
    arena *a = &r->s.a;
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    slice body = {0}, state = {0};
    godwit_status status =
        db_prepare(r->s.d, "SELECT conflict_id, scope, kind, pk, state, body, tbl" FIND, &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(r->s.d, stmt, 1, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(r->s.d, stmt, &row);
    }
    if (status == GODWIT_OK && row) {
        slice *const texts[] = {&r->id, &r->scope, &r->kind, &r->entity_id, &state, &body};
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
            *texts[i] = arena_copy(a, db_column_slice(stmt, (int)i));
        }
        r->t = client_table_by_number(g, sqlite3_column_int64(stmt, 6));
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    db_done(r->s.d, stmt);
    if (status == GODWIT_OK && r->reverts && slice_is(state, "open")) {
        return client_fail(g, GODWIT_MISUSE,
                           "conflict " SLICE_FMT " waits for a decision: resolve it, there is"
                           " nothing to take back",
                           SLICE_ARG(r->id));
    }
    if (status == GODWIT_OK && !slice_is(state, "open") && !slice_is(state, "auto")) {
        return client_fail(g, GODWIT_MISUSE, "conflict " SLICE_FMT " is " SLICE_FMT " already",
                           SLICE_ARG(r->id), SLICE_ARG(state));
    }
    if (status == GODWIT_OK && (!r->t || r->t->queue || !r->t->active)) {
        return client_fail(g, GODWIT_NOT_FOUND,
                           "the table of conflict " SLICE_FMT " is not tracked", SLICE_ARG(r->id));
    }
    return status == GODWIT_OK ? json_parse(a, body, &r->record, NULL) : status;
}

static godwit_status load_row(resolution *r) {
    arena *a = &r->s.a;
    godwit_status status = apply_open(&r->s, r->t, &r->table);
    if (status == GODWIT_OK && r->table->missing) {
        return client_fail(r->s.g, GODWIT_NOT_FOUND, "table " SLICE_FMT " is gone",
                           SLICE_ARG(r->t->shape.name));
    }
    if (status == GODWIT_OK) {
        status = client_key_values(a, r->t, r->entity_id, r->key);
    }
    if (status == GODWIT_OK) {
        status = apply_read(&r->s, r->table, r->key, &r->before);
    }
    if (status == GODWIT_OK) { /* from what is there, so that {"$inc":1} can be chosen */
        status = image_copy(a, r->t, &r->before, &r->chosen);
    }
    if (status == GODWIT_OK) {
        memset(r->chosen.known, 0, r->t->data_count * sizeof *r->chosen.known);
        r->chosen.odd = false;
        r->chosen.present = true;
    }
    return status;
}

/* ---- The choice ---- */

/* The side of the record that was a delete has no values. */
static bool side_deleted(const resolution *r, bool mine) {
    slice operation = {0};
    bool deletes =
        json_text(json_get(r->record, "operation"), &operation) && slice_is(operation, "delete");
    return mine ? deletes || slice_is(r->kind, "update_delete")
                : slice_is(r->kind, "delete_update") || slice_is(r->kind, "delete_create");
}

/* A side that says enough to make the row again where it is gone. */
static bool side_whole(const resolution *r, bool mine) {
    slice operation = {0};
    bool creates =
        json_text(json_get(r->record, "operation"), &operation) && slice_is(operation, "create");
    return mine ? creates || slice_is(r->kind, "delete_update")
                : slice_is(r->kind, "update_delete");
}

static godwit_status choose_side(resolution *r, bool mine) {
    const json *values = json_get(r->record, mine ? "ours" : "theirs");
    if (side_deleted(r, mine)) {
        r->chosen.present = false;
        return GODWIT_OK;
    }
    r->whole = side_whole(r, mine);
    if (json_is(values, JSON_OBJECT)) {
        return image_set(&r->s.a, r->table, values, &r->chosen);
    }
    if (mine) {
        return client_fail(r->s.g, GODWIT_INVALID,
                           "conflict " SLICE_FMT " has no values of the operation: choose theirs,"
                           " or give the values",
                           SLICE_ARG(r->id));
    }
    return GODWIT_OK; /* nothing of the operation was applied: what is there stays */
}

static godwit_status check_columns(resolution *r, const json *values) {
    const schema_table *shape = &r->t->shape;
    const json *name = json_first(values);
    for (uint32_t i = 0; i < values->count; i++, name = json_after(name + 1)) {
        int column = schema_column_index(shape, name->u.s);
        if (column < 0 || r->table->data_of[column] < 0) {
            return client_fail(r->s.g, GODWIT_INVALID,
                               column < 0 ? "there is no column " SLICE_FMT
                                          : "column " SLICE_FMT " is part of the key",
                               SLICE_ARG(name->u.s));
        }
    }
    return GODWIT_OK;
}

static godwit_status choose_values(resolution *r, slice choice) {
    const json *values = NULL;
    godwit_status status =
        choice.len > ROW_BYTES_MAX ? GODWIT_INVALID : json_parse(&r->s.a, choice, &values, NULL);
    if (status == GODWIT_NOMEM) {
        return status;
    }
    if (status != GODWIT_OK || !json_is(values, JSON_OBJECT)) {
        return client_fail(r->s.g, GODWIT_INVALID,
                           "the choice is mine, theirs or a JSON object of columns");
    }
    status = check_columns(r, values);
    if (status == GODWIT_OK) {
        status = image_set(&r->s.a, r->table, values, &r->chosen);
        if (status == GODWIT_INVALID) {
            return client_fail(r->s.g, status, "the choice has something that is no value");
        }
    }
    return status;
}

static bool chooses_columns(const resolution *r) {
    for (size_t i = 0; i < r->t->data_count; i++) {
        if (r->chosen.known[i]) {
            return true;
        }
    }
    return false;
}

/* Nobody has touched since what the policy decided about: else taking it back would take that away,
 * too. */
static godwit_status check_untouched(resolution *r, bool ours_won) {
    const json *chosen = json_get(r->record, "chosen");
    row_image then = {0};
    godwit_status status = image_copy(&r->s.a, r->t, &r->before, &then);
    if (status != GODWIT_OK) {
        return status;
    }
    memset(then.known, 0, r->t->data_count * sizeof *then.known);
    then.present = !side_deleted(r, ours_won);
    if (then.present && !json_is(chosen, JSON_OBJECT)) {
        return GODWIT_OK; /* nothing of the operation was taken */
    }
    if (then.present) {
        status = image_set(&r->s.a, r->table, chosen, &then);
    }
    if (status == GODWIT_OK && !image_equal(r->t, &then, &r->before)) {
        return client_fail(r->s.g, GODWIT_MISUSE,
                           "the row has been changed since conflict " SLICE_FMT
                           " was decided: look at it, then resolve with mine, theirs or values",
                           SLICE_ARG(r->id));
    }
    return status;
}

/* choice ptr NULL: the side that lost. */
static godwit_status choose(resolution *r, slice choice) {
    slice winner = {0};
    bool mine = slice_is(choice, "mine"), side = mine || slice_is(choice, "theirs");
    godwit_status status = GODWIT_OK;
    if (r->reverts) {
        (void)json_text(json_get(r->record, "winner"), &winner);
        mine = !slice_is(winner, "ours");
        side = true;
        status = check_untouched(r, !mine);
    }
    if (status == GODWIT_OK) {
        status = side ? choose_side(r, mine) : choose_values(r, choice);
    }
    if (status == GODWIT_OK && r->chosen.present && !r->before.present && !r->whole &&
        chooses_columns(r)) {
        return client_fail(r->s.g, GODWIT_NOT_FOUND,
                           "the row of conflict " SLICE_FMT
                           " is gone: insert it again, or leave it so with the choice {}",
                           SLICE_ARG(r->id));
    }
    return status;
}

/* ---- The change ---- */

static godwit_status write_row(resolution *r) {
    const client_table *t = r->t;
    row_image next;
    if (!r->before.present && !(r->whole && r->chosen.present)) {
        return GODWIT_OK;
    }
    godwit_status status = image_copy(&r->s.a, t, &r->before, &next);
    next.present = r->chosen.present;
    next.odd = r->chosen.odd;
    for (size_t i = 0; status == GODWIT_OK && i < t->data_count; i++) {
        if (r->chosen.known[i]) {
            next.values[i] = r->chosen.values[i];
            next.known[i] = true;
        }
    }
    if (status == GODWIT_OK) {
        status = apply_change(&r->s, r->table, r->key, &r->before, &next);
    }
    if (status == GODWIT_CONSTRAINT) {
        return client_fail(r->s.g, status, "table " SLICE_FMT " refuses the choice: %s",
                           SLICE_ARG(t->shape.name), r->s.d->message);
    }
    if (status == GODWIT_OK) {
        status = apply_read(&r->s, r->table, r->key, &r->after);
    }
    /* a trigger of the application's that ignores the change in silence */
    if (status == GODWIT_OK && !next.odd && !image_equal(t, &next, &r->before) &&
        image_equal(t, &r->after, &r->before)) {
        return client_fail(r->s.g, GODWIT_CONSTRAINT, "table " SLICE_FMT " did not take the choice",
                           SLICE_ARG(t->shape.name));
    }
    return status;
}

/* The captured change says all that was chosen; without one, a change that only carries the hint.
 */
static godwit_status capture(resolution *r, int64_t after_lsn) {
    const client_table *t = r->t;
    godwit *g = r->s.g;
    bool *columns = ARENA_ARRAY(&r->s.a, bool, t->data_count + 1);
    row_image told = r->after;
    relog_change change = {.t = t,
                           .key = r->key,
                           .kind = !r->chosen.present   ? OP_DELETE
                                   : !r->before.present ? OP_CREATE
                                                        : OP_UPDATE,
                           .now = &told,
                           .old = &r->after,
                           .now_ms = client_wall_ms(g)};
    if (!columns) {
        return GODWIT_NOMEM;
    }
    godwit_status status = relog_find(g, &change, after_lsn, &r->lsn, columns);
    if (status == GODWIT_OK && r->lsn && change.kind == OP_UPDATE) {
        for (size_t i = 0; i < t->data_count; i++) {
            columns[i] = r->chosen.known[i] && !columns[i];
        }
        return relog_widen(g, &change, r->lsn, columns);
    }
    if (status != GODWIT_OK || r->lsn) {
        return status;
    }
    change.kind = OP_UPDATE;
    told = r->before.present ? r->after : r->before;
    told.known = r->chosen.known; /* nothing of a row that is gone */
    change.old = &r->before;
    status = db_exec(&g->db, "DELETE FROM godwit_hook WHERE 0"); /* belongs to the group */
    if (status == GODWIT_OK) {
        status = relog_write(g, &change);
    }
    return status == GODWIT_OK ? db_int(&g->db, &r->lsn, "SELECT max(lsn) FROM godwit_log", "")
                               : status;
}

static godwit_status hint(const resolution *r) {
    return db_run(r->s.d,
                  "INSERT INTO godwit_hint (lsn, resolves) VALUES (?1, ?3 || ?2) ON CONFLICT (lsn)"
                  " DO UPDATE SET resolves = excluded.resolves",
                  "iss", r->lsn, r->id, r->reverts ? SLICE(REVERT) : SLICE(""));
}

static godwit_status decide(resolution *r, slice id, slice choice) {
    int64_t before_lsn = 0;
    godwit_status status = check_found(r, id);
    if (status == GODWIT_OK) {
        status = load_record(r, id);
    }
    if (status == GODWIT_OK) {
        status = load_row(r);
    }
    if (status == GODWIT_OK) {
        status = choose(r, choice);
    }
    if (status == GODWIT_OK) {
        status = db_int(r->s.d, &before_lsn, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    if (status == GODWIT_OK) {
        status = write_row(r);
    }
    if (status == GODWIT_OK) {
        status = capture(r, before_lsn);
    }
    return status == GODWIT_OK ? hint(r) : status;
}

/* choice ptr NULL: revert. */
static godwit_status resolve(godwit *g, slice id, slice choice, char new_id[37]) {
    slice lineage = {0};
    resolution r = {.s = {.g = g, .d = &g->db}, .reverts = !choice.ptr};
    arena_init(&r.s.a, g->allocator, 0);
    r.s.tables = ARENA_ARRAY(&r.s.a, apply_table *, g->registry.count + 1);
    godwit_status status =
        r.s.tables ? client_meta_text(g, &r.s.a, "lineage", &lineage) : GODWIT_NOMEM;
    if (status == GODWIT_OK) {
        status = db_begin(&g->db);
    }
    if (status == GODWIT_OK) {
        status = decide(&r, id, choice);
        apply_close(&r.s);
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
        }
    }
    if (status == GODWIT_OK && new_id) {
        id_operation(lineage, r.lsn, new_id);
    }
    arena_deinit(&r.s.a);
    return status;
}

/* ---- Giving up ---- */

static godwit_status load_open(resolution *r, int64_t lsn) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    godwit_status status = db_prepare(r->s.d,
                                      "SELECT (" RESOLVE_OPEN_OF_O "), o.tbl, o.entity_id FROM"
                                      " godwit_op AS o WHERE o.lsn = ?1",
                                      &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(r->s.d, stmt, 1, lsn);
    }
    if (status == GODWIT_OK) {
        status = db_step(r->s.d, stmt, &row);
    }
    slice ids = status == GODWIT_OK && row ? db_column_slice(stmt, 0) : (slice){0};
    if (ids.len) {
        r->id = arena_copy(&r->s.a, ids);
        r->entity_id = arena_copy(&r->s.a, db_column_slice(stmt, 2));
        r->t = client_table_by_number(r->s.g, sqlite3_column_int64(stmt, 1));
    }
    db_done(r->s.d, stmt);
    return status == GODWIT_OK && r->s.a.failed ? GODWIT_NOMEM : status;
}

static godwit_status give_up(resolution *r, int64_t lsn) {
    int64_t newest = 0;
    godwit_status status = load_open(r, lsn);
    if (status != GODWIT_OK || !r->id.len || !r->t || r->t->queue || !r->t->active) {
        return status;
    }
    status = load_row(r);
    if (status == GODWIT_NOT_FOUND || status == GODWIT_INVALID) { /* not the table it was */
        r->s.g->message[0] = '\0';
        return GODWIT_OK;
    }
    r->after = r->before;
    if (status == GODWIT_OK) {
        status = db_int(r->s.d, &newest, "SELECT coalesce(max(lsn), 0) FROM godwit_log", "");
    }
    if (status == GODWIT_OK) {
        status = capture(r, newest);
    }
    return status == GODWIT_OK ? hint(r) : status;
}

godwit_status resolve_give_up(godwit *g, int64_t lsn) {
    resolution r = {.s = {.g = g, .d = &g->db}};
    arena_init(&r.s.a, g->allocator, 0);
    r.s.tables = ARENA_ARRAY(&r.s.a, apply_table *, g->registry.count + 1);
    godwit_status status = r.s.tables ? give_up(&r, lsn) : GODWIT_NOMEM;
    apply_close(&r.s);
    arena_deinit(&r.s.a);
    return status;
}

/* ---- The calls ---- */

godwit_status godwit_resolve(godwit *g, const char *conflict_id, const char *choice,
                             char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    if (!conflict_id || !choice) {
        return client_refuse(g, GODWIT_MISUSE, "the id of a conflict and a choice are needed");
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK
               ? client_leave(g, resolve(g, slice_of(conflict_id), slice_of(choice), new_id))
               : status;
}

godwit_status godwit_revert(godwit *g, const char *conflict_id, char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    if (!conflict_id) {
        return client_refuse(g, GODWIT_MISUSE, "the id of a conflict is needed");
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK
               ? client_leave(g, resolve(g, slice_of(conflict_id), (slice){0}, new_id))
               : status;
}
