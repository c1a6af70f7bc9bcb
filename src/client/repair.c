/* godwit_retry, godwit_edit, godwit_repair_many: refused operations are made again, as new ones
 * that supersede them.
 *
 *   all that wait for a person -> their groups -> those named, and those held back only by them
 *     -> each group in the old order: rows, log, dependencies -> seal -> tie old and new together
 *
 * What was one transaction comes back as one. Each group stands or falls alone, everything that is
 * made again is made in one local transaction. */
#include "client/repair.h"

#include <stdio.h>
#include <stdlib.h>

#include "client/count.h"
#include "client/seal.h"
#include "core/limits.h"

#define NO_ID          "the id of an operation is needed"
#define LOST_BASES_MAX 100 /* made again at a time */

typedef struct {
    size_t first, count; /* of letters */
    size_t failed;       /* the letter a failure is about */
    bool chosen, held_back;
    godwit_status status;
    const char *message; /* of a failure */
} letter_group;

typedef struct {
    settle s;
    letter *letters; /* by group */
    size_t count, cap;
    letter **by_lsn;      /* sorted */
    letter_group *groups; /* sorted by the lsn they begin with */
    size_t group_count;
    slice lineage;
    sqlite3_stmt *deps;
    bool nobody_asked; /* what is named is made again where its row is, else left as it is */
} repair;

/* ---- What waits for a person ---- */

static godwit_status add_letter(repair *r, sqlite3_stmt *q) {
    arena *a = &r->s.a;
    if (r->count == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 64;
        letter *grown = arena_resize(a, r->letters, r->cap * sizeof(letter), cap * sizeof(letter));
        if (!grown) {
            return GODWIT_NOMEM;
        }
        r->letters = grown;
        r->cap = cap;
    }
    letter *l = &r->letters[r->count];
    *l = (letter){.lsn = sqlite3_column_int64(q, 0),
                  .tbl = sqlite3_column_int64(q, 4),
                  .sequence_number = sqlite3_column_int64(q, 5),
                  .group_first = sqlite3_column_int64(q, 6)};
    l->held_back = slice_is(db_column_slice(q, 7), op_code_name(CODE_DEPENDENCY_FAILED));
    l->id = arena_copy(a, db_column_slice(q, 1));
    l->scope = arena_copy(a, db_column_slice(q, 2));
    l->device_id = arena_copy(a, db_column_slice(q, 3));
    r->count++;
    if (!op_state_parse(db_column_slice(q, 8), &l->state)) {
        return client_fail(r->s.g, GODWIT_CORRUPT, "operation %lld has an unknown state",
                           (long long)l->lsn);
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

static bool same_group(const letter *a, const letter *b) {
    return a->sequence_number > 0 && b->sequence_number > 0 && a->group_first == b->group_first &&
           slice_equal(a->scope, b->scope) && slice_equal(a->device_id, b->device_id);
}

static int compare_lsn(const void *a, const void *b) {
    const letter *x = *(letter *const *)a, *y = *(letter *const *)b;
    return (x->lsn > y->lsn) - (x->lsn < y->lsn);
}

/* Letters of a group follow each other; groups come in the order they were made. */
static godwit_status make_groups(repair *r) {
    arena *a = &r->s.a;
    r->groups = ARENA_ARRAY(a, letter_group, r->count + 1);
    r->by_lsn = ARENA_ARRAY(a, letter *, r->count + 1);
    if (!r->groups || !r->by_lsn) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < r->count; i++) {
        letter *l = &r->letters[i];
        if (i == 0 || !same_group(l - 1, l)) {
            r->groups[r->group_count++] = (letter_group){.first = i, .held_back = true};
        }
        letter_group *group = &r->groups[r->group_count - 1];
        l->group = r->group_count - 1;
        group->count++;
        group->held_back = group->held_back && l->held_back;
        r->by_lsn[i] = l;
    }
    qsort(r->by_lsn, r->count, sizeof *r->by_lsn, compare_lsn);
    return GODWIT_OK;
}

static godwit_status load_letters(repair *r) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status = db_prepare(
        r->s.d,
        "SELECT o.lsn, w.id, o.scope, o.device_id, o.tbl, o.sequence_number, o.group_first,"
        " o.last_error_code, o.state FROM godwit_dead_letters AS w JOIN godwit_op AS o ON o.lsn = "
        "w.lsn"
        " ORDER BY o.scope, o.device_id, o.sequence_number > 0, o.group_first, o.lsn",
        &stmt);
    while (status == GODWIT_OK && row) {
        status = db_step(r->s.d, stmt, &row);
        if (status == GODWIT_OK && row) {
            status = add_letter(r, stmt);
        }
    }
    db_done(r->s.d, stmt);
    return status == GODWIT_OK ? make_groups(r) : status;
}

static letter *letter_of(const repair *r, int64_t lsn) {
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (r->by_lsn[mid]->lsn < lsn) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < r->count && r->by_lsn[low]->lsn == lsn ? r->by_lsn[low] : NULL;
}

/* ---- Which of them ---- */

static godwit_status explain_absent(repair *r, const char *id, int64_t lsn) {
    godwit *g = r->s.g;
    arena *a = &r->s.a;
    slice state = {0};
    op_state parsed = OP_PENDING;
    godwit_status status =
        db_text(r->s.d, a, &state, "SELECT state FROM godwit_op WHERE lsn = ?1", "i", lsn);
    if (status == GODWIT_NOT_FOUND) {
        return client_fail(g, status, "no operation has the id %.36s", id);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    if (op_state_parse(state, &parsed) &&
        (parsed == OP_REJECTED || parsed == OP_BLOCKED || parsed == OP_CONFLICT)) {
        return client_fail(g, GODWIT_MISUSE, "operation %.36s has been dealt with already", id);
    }
    return client_fail(g, GODWIT_MISUSE, "operation %.36s was not refused: it is " SLICE_FMT, id,
                       SLICE_ARG(state));
}

static godwit_status check_payload(repair *r, const char *payload) {
    const json *object = NULL;
    slice text = slice_of(payload);
    godwit_status status = json_parse(&r->s.a, text, &object, NULL);
    if (status == GODWIT_NOMEM) {
        return status;
    }
    if (status != GODWIT_OK || !json_is(object, JSON_OBJECT)) {
        return client_fail(r->s.g, GODWIT_INVALID, "the payload must be a JSON object");
    }
    return text.len > ROW_BYTES_MAX ? client_fail(r->s.g, GODWIT_LIMIT, "the payload is over 1 MiB")
                                    : GODWIT_OK;
}

static godwit_status choose(repair *r, const godwit_repair *wanted) {
    int64_t lsn = 0;
    godwit_status status = wanted->id ? seal_find(r->s.g, slice_of(wanted->id), &lsn)
                                      : client_fail(r->s.g, GODWIT_MISUSE, NO_ID);
    letter *l = status == GODWIT_OK ? letter_of(r, lsn) : NULL;
    if (!l) {
        return status == GODWIT_OK || status == GODWIT_NOT_FOUND
                   ? explain_absent(r, wanted->id, lsn)
                   : status;
    }
    if (wanted->payload) {
        status = check_payload(r, wanted->payload);
        l->payload = slice_of(wanted->payload);
    }
    l->named = true;
    r->groups[l->group].chosen = true;
    return status;
}

/* Steps through what an operation depends on and what is not over; *lsn 0 at the end. */
static godwit_status next_dependency(repair *r, int64_t *lsn) {
    bool row = false;
    godwit_status status = db_step(r->s.d, r->deps, &row);
    *lsn = status == GODWIT_OK && row ? sqlite3_column_int64(r->deps, 0) : 0;
    return status;
}

static godwit_status first_dependency(repair *r, const letter *l, int64_t *lsn) {
    *lsn = 0;
    godwit_status status = GODWIT_OK;
    if (!r->deps) {
        status = db_prepare(
            r->s.d,
            "SELECT d.depends_on FROM godwit_dep AS d JOIN godwit_op AS o ON o.lsn = d.depends_on"
            " WHERE d.lsn = ?1 AND d.hard = 1 AND (o.state IN ('pending', 'acked', 'parked') OR"
            " (" LETTER_OF_O ")) ORDER BY 1",
            &r->deps);
    } else {
        sqlite3_reset(r->deps);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(r->s.d, r->deps, 1, l->lsn);
    }
    return status == GODWIT_OK ? next_dependency(r, lsn) : status;
}

/* Whether all that held the group back is chosen. */
static godwit_status freed(repair *r, const letter_group *group, bool *out) {
    bool waits = false, free = false;
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < group->count && status == GODWIT_OK && !waits; i++) {
        int64_t lsn = 0;
        status = first_dependency(r, &r->letters[group->first + i], &lsn);
        while (status == GODWIT_OK && lsn && !waits) {
            const letter *before = letter_of(r, lsn);
            const letter_group *cause = before ? &r->groups[before->group] : NULL;
            waits = cause && cause != group && !cause->chosen;
            free = free || (cause && cause != group && cause->chosen);
            status = next_dependency(r, &lsn);
        }
    }
    *out = free && !waits;
    return status;
}

/* Draws in what was refused only because of the chosen ones. */
static godwit_status draw_in(repair *r) {
    bool again = true;
    godwit_status status = GODWIT_OK;
    while (again && status == GODWIT_OK) {
        again = false;
        for (size_t i = 0; i < r->group_count && status == GODWIT_OK; i++) {
            letter_group *group = &r->groups[i];
            if (!group->chosen && group->held_back) {
                status = freed(r, group, &group->chosen);
                again = again || group->chosen;
            }
        }
    }
    return status;
}

/* ---- Making groups again ---- */

/* What the operation depends on, by the ids it has now, as a hint to sealing. */
static godwit_status carry_dependencies(repair *r, const letter *l) {
    int64_t lsn = 0;
    bytes b;
    char id[UUID_TEXT_BYTES];
    bool first = true;
    bytes_init(&b, r->s.g->allocator, 0);
    bytes_char(&b, '[');
    godwit_status status = first_dependency(r, l, &lsn);
    while (status == GODWIT_OK && lsn) {
        const letter *before = letter_of(r, lsn);
        if (before && before->group == l->group) {
            status = next_dependency(r, &lsn);
            continue;
        }
        if (before && !before->new_lsn) {
            status = client_fail(r->s.g, GODWIT_MISUSE,
                                 "it depends on operation " SLICE_FMT
                                 ", which was refused: retry that one, and this one goes with it",
                                 SLICE_ARG(before->id));
            break;
        }
        id_operation(r->lineage, before ? before->new_lsn : lsn, id);
        json_comma(&b, &first);
        json_write_text(&b, slice_of(id));
        status = next_dependency(r, &lsn);
    }
    bytes_char(&b, ']');
    if (status == GODWIT_OK && !first) {
        status = b.failed ? GODWIT_NOMEM
                          : db_run(r->s.d, "UPDATE godwit_hint SET depends_on = ?2 WHERE lsn = ?1",
                                   "is", l->new_lsn, bytes_view(&b));
    }
    bytes_deinit(&b);
    return status;
}

static godwit_status redo_group(repair *r, letter_group *group) {
    letter *letters = &r->letters[group->first];
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < group->count && status == GODWIT_OK; i++) {
        group->failed = group->first + i;
        letters[i].row_wanted = r->nobody_asked && letters[i].named;
        status = repair_redo(&r->s, &letters[i]);
        if (status == GODWIT_OK) {
            status = carry_dependencies(r, &letters[i]);
        }
    }
    for (size_t i = 0; i < group->count && status == GODWIT_OK; i++) {
        group->failed = group->first + i;
        status = repair_check_parents(&r->s, &letters[i]);
    }
    if (status == GODWIT_OK && group->count > 1) {
        status = db_run(r->s.d, "INSERT INTO godwit_group (first, last) VALUES (?1, ?2)", "ii",
                        letters[0].new_lsn, letters[group->count - 1].new_lsn);
    }
    return status;
}

/* Only what is about this group: anything else ends the whole call. */
static bool groups_own(godwit_status status) {
    return status == GODWIT_CONSTRAINT || status == GODWIT_MISUSE || status == GODWIT_INVALID ||
           status == GODWIT_NOT_FOUND || status == GODWIT_LIMIT;
}

static godwit_status try_group(repair *r, letter_group *group) {
    godwit *g = r->s.g;
    g->message[0] = '\0';
    godwit_status status = db_begin(r->s.d);
    if (status != GODWIT_OK) {
        return status;
    }
    group->status = redo_group(r, group);
    if (group->status == GODWIT_OK) {
        return db_commit(r->s.d);
    }
    db_rollback(r->s.d);
    for (size_t i = 0; i < group->count; i++) {
        r->letters[group->first + i].new_lsn = 0;
    }
    if (!groups_own(group->status)) {
        return group->status;
    }
    group->message = arena_printf(&r->s.a, "operation " SLICE_FMT ": %s",
                                  SLICE_ARG(r->letters[group->failed].id),
                                  g->message[0] ? g->message : godwit_status_text(group->status));
    return group->message ? GODWIT_OK : GODWIT_NOMEM;
}

static int compare_groups(const void *a, const void *b) {
    const letter *const *x = a, *const *y = b;
    return ((*x)->lsn > (*y)->lsn) - ((*x)->lsn < (*y)->lsn);
}

/* Oldest first: dependencies point backwards. */
static godwit_status redo_chosen(repair *r) {
    letter **heads = ARENA_ARRAY(&r->s.a, letter *, r->group_count + 1);
    size_t count = 0;
    if (!heads) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < r->group_count; i++) {
        if (r->groups[i].chosen) {
            heads[count++] = &r->letters[r->groups[i].first];
        }
    }
    qsort(heads, count, sizeof *heads, compare_groups);
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < count && status == GODWIT_OK; i++) {
        status = try_group(r, &r->groups[heads[i]->group]);
    }
    return status;
}

/* ---- Old and new ---- */

static godwit_status tie(repair *r, const letter *l) {
    char id[UUID_TEXT_BYTES], at[32];
    wire_time_write(r->s.now_ms, at);
    id_operation(r->lineage, l->new_lsn, id);
    godwit_status status = db_run(r->s.d, "UPDATE godwit_op SET supersedes = ?2 WHERE lsn = ?1",
                                  "is", l->new_lsn, l->id);
    if (status == GODWIT_OK) {
        status = db_run(r->s.d,
                        "UPDATE godwit_outcome SET resolution = ?2, resolution_op = ?3, at = ?4"
                        " WHERE lsn = ?1 AND resolution IS NULL",
                        "isss", l->lsn, l->payload.ptr ? SLICE("edited") : SLICE("retried"),
                        slice_of(id), slice_of(at));
    }
    if (status == GODWIT_OK) {
        status = count_resolved(r->s.g, l->state);
    }
    return status == GODWIT_OK
               ? db_run(r->s.d, "DELETE FROM godwit_dep WHERE lsn = ?1", "i", l->lsn)
               : status;
}

static godwit_status tie_all(repair *r) {
    bool more = false;
    godwit_status status = seal_run(r->s.g, INT64_MAX, &more);
    for (size_t i = 0; i < r->count && status == GODWIT_OK; i++) {
        if (r->letters[i].new_lsn) {
            status = tie(r, &r->letters[i]);
        }
    }
    return status;
}

static godwit_status run(repair *r, const godwit_repair *wanted, size_t count) {
    godwit_status status = client_meta_text(r->s.g, &r->s.a, "lineage", &r->lineage);
    if (status == GODWIT_OK) {
        status = load_letters(r);
    }
    for (size_t i = 0; i < count && status == GODWIT_OK; i++) {
        status = choose(r, &wanted[i]);
    }
    for (size_t i = 0; !wanted && status == GODWIT_OK && i < r->count; i++) {
        r->letters[i].named = true;
        r->groups[r->letters[i].group].chosen = true;
    }
    if (status == GODWIT_OK) {
        status = draw_in(r);
    }
    if (status == GODWIT_OK) {
        status = redo_chosen(r);
    }
    if (status == GODWIT_OK) {
        status = tie_all(r);
    }
    db_done(r->s.d, r->deps);
    return status;
}

/* ---- The calls ---- */

typedef struct {
    godwit_repair_fn report;
    void *context;
    char *new_id; /* of the only operation that was named */
} listener;

/* The first failure of a group somebody asked for. */
static godwit_status tell(const repair *r, const listener *to) {
    godwit_status status = GODWIT_OK;
    char id[UUID_TEXT_BYTES];
    for (size_t i = 0; i < r->count; i++) {
        const letter *l = &r->letters[i];
        const letter_group *group = &r->groups[l->group];
        if (!group->chosen) {
            continue;
        }
        id[0] = '\0';
        if (l->new_lsn) {
            id_operation(r->lineage, l->new_lsn, id);
        }
        if (l->named && status == GODWIT_OK && group->status != GODWIT_OK) {
            status = client_fail(r->s.g, group->status, "%s", group->message);
        }
        if (l->named && to->new_id) {
            memcpy(to->new_id, id, sizeof id);
        }
        if (to->report) {
            to->report(to->context, l->id.ptr, id, group->status,
                       group->message ? group->message : "");
        }
    }
    return status;
}

/* to: NULL = nobody asked for it */
static godwit_status make_again(godwit *g, const godwit_repair *wanted, size_t count,
                                const listener *to) {
    repair r;
    memset(&r, 0, sizeof r);
    r.nobody_asked = !to;
    godwit_status status = settle_open(&r.s, g, SLICE(""));
    if (status == GODWIT_OK) {
        status = run(&r, wanted, count);
    }
    arena kept = r.s.a; /* what is told lives longer than the transaction */
    arena_init(&r.s.a, g->allocator, 0);
    status = settle_close(&r.s, status, NULL);
    if (status == GODWIT_OK && to) {
        status = tell(&r, to);
    }
    arena_deinit(&kept);
    return status;
}

godwit_status godwit_repair_many(godwit *g, const godwit_repair *repairs, size_t count,
                                 godwit_repair_fn report, void *context) {
    const listener to = {report, context, NULL};
    if (!repairs && count) {
        return client_refuse(g, GODWIT_MISUSE, NO_ID);
    }
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, make_again(g, repairs, count, &to)) : status;
}

/* One that was made again before names what it supersedes: that is how it stays with one try. A
 * group whose row is not there fails and stays as it is. */
static const char lost_bases[] =
    "SELECT w.id FROM godwit_dead_letters AS w JOIN godwit_op AS o ON o.lsn = w.lsn WHERE w.code ="
    " 'lost-base' AND o.supersedes IS NULL ORDER BY w.lsn LIMIT ?1";

godwit_status repair_lost_bases(godwit *g) {
    godwit_repair wanted[LOST_BASES_MAX];
    sqlite3_stmt *stmt = NULL;
    size_t count = 0;
    bool row = true;
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = db_prepare(&g->db, lost_bases, &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, stmt, 1, LOST_BASES_MAX);
    }
    while (status == GODWIT_OK && row && count < LOST_BASES_MAX) {
        status = db_step(&g->db, stmt, &row);
        if (status == GODWIT_OK && row) {
            const char *id = arena_printf(&a, SLICE_FMT, SLICE_ARG(db_column_slice(stmt, 0)));
            status = id ? GODWIT_OK : GODWIT_NOMEM;
            wanted[count++] = (godwit_repair){.id = id};
        }
    }
    db_done(&g->db, stmt);
    if (status == GODWIT_OK && count) {
        status = make_again(g, wanted, count, NULL);
        g->message[0] = status == GODWIT_OK ? '\0' : g->message[0];
    }
    arena_deinit(&a);
    return status;
}

static godwit_status one(godwit *g, const char *id, const char *payload, char new_id[37]) {
    char made[UUID_TEXT_BYTES] = "";
    const godwit_repair wanted = {id, payload};
    const listener to = {NULL, NULL, made};
    godwit_status status = client_enter(g);
    if (status == GODWIT_OK) {
        status = client_leave(g, make_again(g, &wanted, 1, &to));
    }
    if (new_id && status == GODWIT_OK) {
        memcpy(new_id, made, sizeof made);
    }
    return status;
}

godwit_status godwit_retry(godwit *g, const char *id, char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    return id ? one(g, id, NULL, new_id) : client_refuse(g, GODWIT_MISUSE, NO_ID);
}

godwit_status godwit_edit(godwit *g, const char *id, const char *payload, char new_id[37]) {
    if (new_id) {
        new_id[0] = 0;
    }
    if (!id || !payload) {
        return client_refuse(g, GODWIT_MISUSE, id ? "an edit needs a payload" : NO_ID);
    }
    return one(g, id, payload, new_id);
}
