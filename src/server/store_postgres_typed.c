/* Tracked rows: the pending changes become statements over whole tables, in waves.
 *
 * A wave holds at most one change per row, so that every state a group left behind meets the
 * table's constraints. Inside a wave deletes come first (children before parents), then new rows
 * and updates (parents before children); a statement takes all changes of one table and one set of
 * columns, as arrays of text that the database casts to the columns' own types. All waves are sent
 * before anything is waited for; only values that may be stored as something else are sent back.
 *
 * A constraint that fails undoes the savepoint around it. The caller then comes with one group at a
 * time, and the order of deletes, new rows and updates is tried in the three ways that let
 * values and references change hands. */
#include <stdlib.h>

#include "server/store_postgres.h"

#define LATE        9 /* behind the places of all kinds; deletes behind all others */
#define LATE_DELETE 10
#define BROKEN_MAX  16 /* broken references left out in search of something else that is wrong */

typedef struct {
    const pg_change **changes; /* of one statement */
    size_t count;
    size_t statement; /* number since the last sync */
} batch;

typedef struct {
    store *st;
    const int *order; /* place of each kind in a wave */
    bool single;      /* a statement per change: to find the guilty one */
    const pg_change **sorted;
    size_t sorted_count;
    batch *batches;
    size_t batch_count;
    const pg_change *guilty; /* of the last refusal, where one is known */
    size_t wave_from;        /* first batch of the wave being sent */
    bool ahead;              /* metadata goes along, before the answers are there */
    pg_question questions[PG_QUESTIONS_MAX];
    slice now; /* RFC 3339 */
} writer;

static const pg_table *table_of(const store *st, const pg_change *p) {
    return pg_table_of(st->tables, p->change->row->table);
}

/* ---- sorting ---- */

/* qsort has no context: what it needs is copied into each item. */
typedef struct {
    const pg_change *p;
    unsigned wave;
    int kind;
    size_t rank;
    const pg_table *table;
} sort_item;

static int by_statement(const void *x, const void *y) {
    const sort_item *a = x;
    const sort_item *b = y;
    if (a->wave != b->wave) {
        return a->wave < b->wave ? -1 : 1;
    }
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    if (a->table != b->table) {
        return a->table < b->table ? -1 : 1;
    }
    int order = memcmp(a->p->write, b->p->write, a->table->table->column_count * sizeof(bool));
    if (order == 0) {
        order = (int)a->p->exact - (int)b->p->exact;
    }
    return order ? order : (a->p->place > b->p->place) - (a->p->place < b->p->place);
}

static bool same_statement(const sort_item *a, const sort_item *b) {
    return a->wave == b->wave && a->kind == b->kind && a->table == b->table &&
           a->p->exact == b->p->exact &&
           memcmp(a->p->write, b->p->write, a->table->table->column_count * sizeof(bool)) == 0;
}

static godwit_status make_batches(writer *w) {
    store *st = w->st;
    arena *a = st->context->a;
    sort_item *items = ARENA_ARRAY(a, sort_item, st->change_count);
    w->sorted = ARENA_ARRAY(a, const pg_change *, st->change_count);
    w->batches = ARENA_ARRAY(a, batch, st->change_count);
    if (!items || !w->sorted || !w->batches) {
        return GODWIT_NOMEM;
    }
    size_t count = 0;
    for (size_t i = 0; i < st->change_count; i++) {
        const pg_change *p = &st->changes[i];
        if (p->kind == PG_NOTHING) {
            continue;
        }
        const pg_table *info = table_of(st, p);
        size_t rank = p->kind == PG_DELETE ? SIZE_MAX - info->rank : info->rank;
        int kind = w->order[p->kind];
        if (w->single) { /* in the order of decisions; late ones behind all others */
            rank = p->late ? rank : p->place;
            kind = !p->late ? kind : p->kind == PG_DELETE ? LATE_DELETE : LATE;
        }
        items[count++] = (sort_item){p, p->wave, kind, rank, info};
    }
    qsort(items, count, sizeof *items, by_statement);
    w->sorted_count = count;
    w->batch_count = 0;
    for (size_t i = 0; i < count; i++) {
        w->sorted[i] = items[i].p;
        if (i == 0 || w->single || !same_statement(&items[i - 1], &items[i])) {
            w->batches[w->batch_count++] = (batch){.changes = &w->sorted[i]};
        }
        w->batches[w->batch_count - 1].count++;
    }
    return GODWIT_OK;
}

/* ---- parameters ---- */

static godwit_status key_arrays(writer *w, const pg_table *info, const batch *b) {
    arena *a = w->st->context->a;
    slice *ids = ARENA_ARRAY(a, slice, b->count);
    if (!ids) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < b->count; i++) {
        ids[i] = b->changes[i]->change->row->id;
    }
    return pg_key_arrays(&w->st->link, a, info, ids, b->count);
}

/* ---- statements ---- */

static bool writes_any(const pg_table *info, const bool *write) {
    for (size_t i = 0; i < info->table->column_count; i++) {
        if (write[i]) {
            return true;
        }
    }
    return false;
}

static godwit_status send_write(writer *w, const pg_table *info, batch *b) {
    store *st = w->st;
    const bool *write = b->changes[0]->write;
    bool update = b->changes[0]->kind == PG_UPDATE;
    bool nothing = update && !writes_any(info, write); /* a table of nothing but its key */
    bool folded[COLUMNS_MAX];
    size_t used = 0;
    godwit_status status = GODWIT_OK;
    bytes_clear(&st->sql);
    for (size_t i = 0; !nothing && status == GODWIT_OK && i < info->table->column_count; i++) {
        status = write[i] ? pg_column_array(st, w->now, info, b->changes, b->count, i) : GODWIT_OK;
        if (status == GODWIT_OK && write[i]) { /* of many new rows one column must say how many */
            folded[used] = (update || used > 0 || b->count == 1) && pg_fold(&st->link, used);
            used++;
        }
    }
    if (status == GODWIT_OK && update) {
        status = key_arrays(w, info, b);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    if (nothing) {
        bytes_text(&st->sql, info->load_sql);
    } else if (update) {
        pg_update_text(&st->sql, info, write, folded);
    } else {
        pg_insert_text(&st->sql, info, write, folded, !b->changes[0]->exact);
    }
    if (!nothing && !b->changes[0]->exact) {
        bytes_printf(&st->sql, " RETURNING %s, %s", update ? "k.n" : "0", info->select_list);
    }
    b->statement = st->link.sent;
    return st->sql.failed ? GODWIT_NOMEM : pg_send(&st->link, st->sql.ptr);
}

/* Rows that triggers may touch once more after the statement are looked at again. */
static godwit_status send_again(writer *w, const pg_table *info, batch *b) {
    if (!info->after_triggers || b->changes[0]->exact) {
        return GODWIT_OK;
    }
    godwit_status status = key_arrays(w, info, b);
    return status == GODWIT_OK ? pg_send(&w->st->link, info->load_sql) : status;
}

/* As the service: rows that the role does not see count, too. */
static godwit_status ask_children(writer *w, const pg_table *info, const batch *b, size_t *asked) {
    godwit_status status = info->child_count ? pg_role_leave(&w->st->link) : GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < info->child_count; i++) {
        if (*asked == PG_QUESTIONS_MAX) {
            return GODWIT_LIMIT;
        }
        status = key_arrays(w, info, b);
        if (status == GODWIT_OK) {
            w->questions[(*asked)++] =
                (pg_question){info->children[i], b->changes[0], w->st->link.sent};
            status = pg_send(&w->st->link, info->children[i]->child_sql);
        }
    }
    return status == GODWIT_OK && info->child_count ? pg_role_enter(&w->st->link, &w->st->role)
                                                    : status;
}

/* Rows that were only marked as deleted in the wave that ends before batch `end`. */
static godwit_status ask_marked(writer *w, size_t end, size_t *asked) {
    godwit_status status = GODWIT_OK;
    for (size_t i = w->wave_from; status == GODWIT_OK && i < end; i++) {
        const batch *b = &w->batches[i];
        const pg_change **marked = ARENA_ARRAY(w->st->context->a, const pg_change *, b->count);
        size_t count = 0;
        for (size_t k = 0; marked && k < b->count; k++) {
            if (b->changes[k]->kind == PG_UPDATE && b->changes[k]->change->is_delete) {
                marked[count++] = b->changes[k];
            }
        }
        const batch part = {.changes = marked, .count = count};
        status = !marked ? GODWIT_NOMEM
                 : count ? ask_children(w, table_of(w->st, marked[0]), &part, asked)
                         : GODWIT_OK;
    }
    w->wave_from = end;
    return status;
}

/* Before the rows go: does a live row still refer to one of them? The database's own cascades would
 * take rows away that no operation names. */
static godwit_status send_delete(writer *w, const pg_table *info, batch *b, size_t *asked) {
    pg_link *l = &w->st->link;
    godwit_status status = ask_children(w, info, b, asked);
    if (status == GODWIT_OK) {
        status = key_arrays(w, info, b);
    }
    b->statement = l->sent;
    return status == GODWIT_OK ? pg_send(l, info->delete_sql) : status;
}

/* ---- refusals ---- */

size_t pg_op_of(const store *st, const pg_change *p) {
    const pg_group *group = &st->groups[p->group];
    for (size_t i = 0; i < group->commit->result_count; i++) {
        const wire_op *op = group->commit->results[i].op;
        if (op && slice_equal(op->entity_id, p->change->row->id) &&
            (slice_equal(op->entity_type, p->change->row->table->entity) ||
             slice_equal(op->entity_type, p->change->row->table->name))) {
            return i;
        }
    }
    return 0;
}

static godwit_status refuse(writer *w, decide_refusal *refusal, op_code code, const char *detail,
                            const pg_change *p) {
    slice text = arena_copy(w->st->context->a, slice_of(detail));
    w->guilty = p;
    *refusal = (decide_refusal){code, text, p ? pg_op_of(w->st, p) : 0};
    return text.ptr ? GODWIT_CONSTRAINT : GODWIT_NOMEM;
}

static op_code code_of(const char *state) {
    static const struct {
        const char *state;
        op_code code;
    } codes[] = {{"23505", CODE_UNIQUE_VIOLATION}, {"23P01", CODE_UNIQUE_VIOLATION},
                 {"23503", CODE_FK_VIOLATION},     {"23514", CODE_CHECK_FAILED},
                 {"23502", CODE_NOT_NULL},         {"22", CODE_INVALID_VALUE},
                 {"54", CODE_TOO_LARGE},           {"42501", CODE_FORBIDDEN}};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        if (strncmp(state, codes[i].state, strlen(codes[i].state)) == 0) {
            return codes[i].code;
        }
    }
    return CODE_VALIDATION;
}

static godwit_status explain(writer *w, decide_refusal *refusal) {
    const pg_error *e = &w->st->link.error;
    const pg_change *p = NULL;
    for (size_t i = 0; i < w->batch_count; i++) {
        p = w->batches[i].statement == e->statement ? w->batches[i].changes[0] : p;
    }
    const char *detail = e->text;
    for (size_t i = 0; i < w->st->tables->schema->table_count; i++) {
        const pg_table *info = &w->st->tables->infos[i];
        for (size_t k = 0; e->constraint[0] && k < info->parent_count; k++) {
            if (slice_is(info->table->name, e->table) &&
                slice_is(info->parents[k].name, e->constraint)) {
                detail = info->parents[k].detail;
            }
        }
    }
    return refuse(w, refusal, code_of(e->state), detail, p);
}

/* ---- what the database made of it ---- */

/* Who wrote the columns of this change. */
static merge_meta cause_of(const writer *w, const pg_change *p) {
    const merge_row *r = &p->change->row->row;
    int64_t commit = w->st->groups[p->group].commit->commit_seq;
    for (size_t i = 0; i < p->change->row->table->column_count; i++) {
        if (p->change->columns[i] && r->meta[i].ver == commit) {
            return r->meta[i];
        }
    }
    return (merge_meta){.ver = commit, .at_ms = w->st->context->now_ms};
}

static godwit_status take_row(writer *w, const pg_table *info, const pg_change *p,
                              const PGresult *r, int row) {
    const schema_table *t = info->table;
    merge_row *m = &p->change->row->row;
    const merge_meta cause = cause_of(w, p);
    for (size_t i = 0; i < t->column_count; i++) {
        value stored;
        if (t->columns[i].local || t->columns[i].is_key) {
            continue;
        }
        godwit_status status =
            pg_value_read(&info->columns[i], r, row, (int)i + 1, w->st->context->a, &stored);
        if (status != GODWIT_OK) {
            return status;
        }
        if (value_equal(&stored, &p->values[i])) {
            continue;
        }
        if (!p->change->columns[i]) {
            p->change->columns[i] = true; /* the database's doing: the author caused it */
            m->meta[i] = cause;
        }
        p->values[i] = stored;
        m->values[i] = stored;
    }
    return GODWIT_OK;
}

static godwit_status take_batch(writer *w, const batch *b, decide_refusal *refusal) {
    const pg_table *info = table_of(w->st, b->changes[0]);
    PGresult *r = pg_result(&w->st->link, b->statement);
    int kind = b->changes[0]->kind;
    bool exact = b->changes[0]->exact;
    bool as_role = w->st->role.name.len > 0;
    if (kind == PG_DELETE && !as_role) {
        return GODWIT_OK;
    }
    size_t hit =
        PQnfields(r) == 0 ? (size_t)strtoull(PQcmdTuples(r), NULL, 10) : (size_t)PQntuples(r);
    if (hit != b->count && as_role) { /* silently passed over */
        return refuse(w, refusal, CODE_FORBIDDEN, "a policy of the database does not allow it",
                      b->changes[0]);
    }
    if (kind == PG_DELETE) {
        return GODWIT_OK;
    }
    if (hit != b->count) {
        return refuse(w, refusal, CODE_VALIDATION, "the database did not take the row",
                      b->changes[0]);
    }
    bool again = info->after_triggers && !exact;
    r = again ? pg_result(&w->st->link, b->statement + 1) : r;
    godwit_status status = GODWIT_OK;
    for (int i = 0; !exact && status == GODWIT_OK && i < PQntuples(r); i++) {
        int64_t n = again || kind == PG_UPDATE ? pg_field_int(r, i, 0) - 1 : i;
        ASSERT(n >= 0 && (size_t)n < b->count);
        status = take_row(w, info, b->changes[n], r, i);
    }
    return status;
}

/* ---- all of it ---- */

static godwit_status send_all(writer *w, size_t *asked) {
    godwit_status status = make_batches(w);
    w->wave_from = 0;
    if (status == GODWIT_OK) {
        status = pg_role_enter(&w->st->link, &w->st->role);
    }
    for (size_t i = 0; status == GODWIT_OK && i < w->batch_count; i++) {
        batch *b = &w->batches[i];
        const pg_table *info = table_of(w->st, b->changes[0]);
        if (i > 0 && b->changes[0]->wave != w->batches[i - 1].changes[0]->wave) {
            status = ask_marked(w, i, asked);
        }
        if (status != GODWIT_OK) {
            break;
        }
        if (b->changes[0]->kind == PG_DELETE) {
            status = send_delete(w, info, b, asked);
        } else {
            status = send_write(w, info, b);
            if (status == GODWIT_OK) {
                status = send_again(w, info, b);
            }
        }
    }
    if (status == GODWIT_OK) {
        status = ask_marked(w, w->batch_count, asked);
    }
    if (status == GODWIT_OK) {
        status = pg_role_leave(&w->st->link);
    }
    return status == GODWIT_OK ? pg_refs_ask(w->st, w->questions, asked) : status;
}

/* The broken reference of the change that comes first. */
static godwit_status check_references(writer *w, size_t asked, decide_refusal *refusal) {
    const store *st = w->st;
    const pg_change *first = NULL;
    const pg_fk *key = NULL;
    for (size_t i = 0; i < asked; i++) {
        const pg_change *p = pg_refs_answer(st, &w->questions[i]);
        if (p && (!first || p->place < first->place)) {
            first = p;
            key = w->questions[i].key;
        }
    }
    for (size_t i = 0; i < st->ref_count; i++) {
        const pg_change *p = &st->changes[st->refs[i].place];
        if (st->refs[i].dead && !p->left_out && p->kind != PG_NOTHING &&
            (!first || p->place < first->place)) {
            first = p;
            key = st->refs[i].key;
        }
    }
    return first ? refuse(w, refusal, CODE_FK_VIOLATION, key->detail, first) : GODWIT_OK;
}

/* May metadata be sent before the database has said what became of the values? A refusal undoes it
 * together with them. */
static bool may_go_ahead(const store *st) {
    for (size_t i = 0; i < st->change_count; i++) {
        if (!st->changes[i].exact || st->groups[st->changes[i].group].author.elsewhere) {
            return false;
        }
    }
    return true;
}

static godwit_status send_ahead(store *st) {
    godwit_status status = pg_texts_write(st);
    return status == GODWIT_OK ? pg_metadata_send(st) : status;
}

static godwit_status attempt(writer *w, decide_refusal *refusal) {
    pg_link *l = &w->st->link;
    size_t asked = 0;
    godwit_status status = send_all(w, &asked);
    if (status == GODWIT_INVALID || status == GODWIT_LIMIT) {
        pg_give_up(l);
        l->as_role = false; /* with the savepoint that is undone */
        godwit_status sent = pg_sync(l);
        return sent != GODWIT_OK && sent != GODWIT_CONSTRAINT
                   ? sent
                   : refuse(w, refusal, CODE_INVALID_VALUE, "a column can't hold the value", NULL);
    }
    const size_t own = l->sent;
    if (status == GODWIT_OK && w->ahead) {
        status = send_ahead(w->st);
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status ==
        GODWIT_CONSTRAINT) { /* no input can violate a constraint of the engine's tables */
        return l->error.statement < own ? explain(w, refusal) : GODWIT_INTERNAL;
    }
    if (status == GODWIT_OK) {
        status = check_references(w, asked, refusal);
    }
    for (size_t i = 0; status == GODWIT_OK && i < w->batch_count; i++) {
        status = take_batch(w, &w->batches[i], refusal);
    }
    return status;
}

/* May the change break a reference by itself? If all that it refers to is known to be live, it only
 * fails because of another change that was left out. */
static bool may_break(const store *st, const pg_change *p) {
    const pg_table *info = table_of(st, p);
    bool may = p->change->is_delete;
    for (size_t k = 0; k < info->parent_count; k++) {
        may = may || !info->parents[k].parent || !info->parents[k].by_key;
    }
    for (size_t i = 0; i < st->ref_count; i++) {
        may = may || st->refs[i].place == p->place;
    }
    return may;
}

/* What broke a reference: the change that refers, or an earlier one of the group that deletes what
 * is referred to. */
static const pg_change *breaker(const store *st, const pg_change *p) {
    const pg_change *first = p;
    for (size_t i = 0; i < st->ref_count; i++) {
        const pg_ref *ref = &st->refs[i];
        for (size_t k = 0; ref->place == p->place && ref->dead && k < first->place; k++) {
            const decide_change *change = st->changes[k].change;
            if (change->is_delete && change->row->table == ref->key->parent &&
                slice_equal(change->row->id, ref->id)) {
                first = &st->changes[k];
            }
        }
    }
    return first;
}

/* Tried behind all others: perhaps what it refers to comes later. Refused there too, it is left
 * out, and its row with it, as what the row referred to before proves nothing about the end. */
static void step_back(const store *st, pg_change *p) {
    bool there = p->kind == PG_UPDATE && !p->change->is_delete && st->role.name.len == 0;
    if (p->late) {
        p->kind = there ? PG_DELETE : PG_NOTHING;
        p->left_out = true;
    }
    p->late = !p->left_out;
}

/* One change after the other, to name the guilty one. References come last, as everything else is
 * wrong before they are looked at. What is left out makes the group a refused one. */
static godwit_status find_guilty(writer *w, decide_refusal *refusal) {
    store *st = w->st;
    decide_refusal reference = {0};
    size_t place = SIZE_MAX;
    godwit_status status = GODWIT_CONSTRAINT;
    w->single = true;
    for (int i = 0; i < BROKEN_MAX && status == GODWIT_CONSTRAINT; i++) {
        *refusal = (decide_refusal){0};
        status = pg_send(&st->link, "SAVEPOINT attempt");
        if (status == GODWIT_OK) {
            status = attempt(w, refusal);
        }
        if (status != GODWIT_CONSTRAINT || refusal->code != CODE_FK_VIOLATION || !w->guilty) {
            break;
        }
        pg_change *guilty = &st->changes[w->guilty->place];
        const pg_change *cause = breaker(st, guilty);
        if (guilty->late && cause->place < place && may_break(st, guilty)) {
            place = cause->place;
            reference = *refusal;
            reference.op_index = pg_op_of(st, cause);
        }
        step_back(st, guilty);
        status = pg_send(&st->link, "ROLLBACK TO SAVEPOINT attempt");
        status = status == GODWIT_OK ? GODWIT_CONSTRAINT : status;
    }
    if (reference.code != CODE_NONE &&
        (status == GODWIT_OK || refusal->code == CODE_FK_VIOLATION)) {
        *refusal = reference;
        status = GODWIT_CONSTRAINT;
    }
    return status;
}

godwit_status pg_typed_write(store *st, bool *ahead, decide_refusal *refusal) {
    /* places of PG_NOTHING, PG_DELETE, PG_INSERT, PG_UPDATE; the last is SQLite's way */
    static const int orders[][4] = {{0, 1, 2, 3}, {0, 3, 1, 2}, {0, 1, 3, 2}};
    const size_t last = COUNT_OF(orders) - 1;
    char now[32];
    wire_time_write(st->groups[0].author.now_ms, now);
    writer w = {.st = st, .now = slice_of(now)};
    *ahead = false;
    if (st->change_count == 0) {
        return GODWIT_OK;
    }
    bool alone = st->group_count == 1 && st->depth > 0 && st->change_count > 1;
    *ahead = w.ahead = !alone && may_go_ahead(st);
    for (size_t i = 0;; i++) {
        w.order = orders[i];
        if (alone && i == last) {
            return find_guilty(&w, refusal);
        }
        godwit_status status = alone ? pg_send(&st->link, "SAVEPOINT attempt") : GODWIT_OK;
        if (status == GODWIT_OK) {
            status = attempt(&w, refusal);
        }
        if (!alone || status != GODWIT_CONSTRAINT) {
            return status;
        }
        if (refusal->code != CODE_UNIQUE_VIOLATION && refusal->code != CODE_FK_VIOLATION) {
            i = last - 1;
        }
        status = pg_send(&st->link, "ROLLBACK TO SAVEPOINT attempt");
        if (status != GODWIT_OK) {
            return status;
        }
    }
}
