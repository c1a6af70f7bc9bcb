/* Random devices against decide, with a bookkeeping of its own that knows nothing of the merge: who
 * wrote which column last, and what every device had seen. After each group the invariants of the
 * reference are checked:
 *
 *   I4  no key has an effect twice, whatever identity carried it
 *   I6  a stream's commits hold consecutive numbers, in order      I8  commits are numbered 1,
 * 2, 3.. I10 what the author had seen is overwritten, whatever the clocks say I13 a refused group
 * leaves every row as it was, byte for byte I15 the same log gives the same plan      I26 without
 * lww, clocks change nothing at all I18 a value that did not become current, or was displaced
 * unseen, is in a record */
#include "decide_kit.h"

#ifndef RUNS
#define RUNS 2000 /* tools/mutate begins with fewer */
#endif
#define STEPS     24
#define DEVICES   4
#define GROUP_MAX 4
#define PIN_ROWS  3
#define ROWS      5 /* the rest are forms */
#define COLUMNS   11
#define NONE      (-1)

typedef struct {
    bool live;
    int v[COLUMNS]; /* NONE = NULL */
} image;

typedef struct {
    int64_t commit, seq;
    slice device;
} writer;

typedef struct {
    int row;
    op_kind kind;
    bool carried[COLUMNS];
    int v[COLUMNS], old[COLUMNS];
    uint64_t key;
} intent;

typedef struct {
    decide_device device;
    int64_t base;
    image view[ROWS];
    intent last[GROUP_MAX];
    wire_op last_ops[GROUP_MAX];
    size_t last_count;
    decide_ledger last_ledger[GROUP_MAX];
    int64_t wall_offset;
} replica;

typedef struct {
    kit k;
    schema_column pin_columns[COUNT_OF(kit_pins)];
    uint64_t random;
    decide_row *rows[ROWS];
    writer wrote[ROWS][COLUMNS];
    replica replicas[DEVICES];
    int identities;
    uint64_t keys;
    uint8_t effects[4096]; /* by key */
    bytes log;
    int seen_conflicts, seen_rejected, seen_open, seen_duplicates, seen_causal;
} world;

static int64_t below(world *w, int64_t n) { /* splitmix64 */
    uint64_t z = w->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int64_t)((z ^ (z >> 31)) % (uint64_t)n);
}

static const schema_table *table_of(const world *w, int row) {
    return &w->k.tables[row < PIN_ROWS ? PINS : FORMS];
}
/* Columns that devices write: all but the key and what the server maintains. */
static int column_limit(int row) {
    return row < PIN_ROWS ? COLUMNS - 1 : 3;
}

/* ---- the rows as the bookkeeping sees them ---- */

static int plain(const value *v) {
    if (v->type == VALUE_INT) {
        return (int)v->u.i;
    }
    return v->type == VALUE_TEXT ? v->u.s.ptr[1] - '0' : NONE; /* "p0" */
}

static void take_images(const world *w, image out[ROWS]) {
    for (int r = 0; r < ROWS; r++) {
        const merge_row *row = &w->rows[r]->row;
        out[r].live = row->exists && !row->deleted;
        for (int c = 1; c < column_limit(r); c++) {
            out[r].v[c] = plain(&row->values[c]);
        }
    }
}

static void rows_text(const world *w, bytes *b) {
    for (int r = 0; r < ROWS; r++) {
        const merge_row *row = &w->rows[r]->row;
        bytes_printf(b, "%d %d %d %lld %lld %lld ", row->exists, row->deleted, row->gen,
                     (long long)row->ver, (long long)row->del_ver, (long long)row->created.ver);
        clock_write(b, &w->rows[r]->clock);
        for (size_t c = 0; c < w->rows[r]->table->column_count; c++) {
            bytes_printf(b, " %lld:%lld:", (long long)row->meta[c].ver,
                         (long long)row->meta[c].seq);
            value_to_json(b, &row->values[c]);
        }
        bytes_char(b, '\n');
    }
}

/* ---- making work ---- */

static void value_text(bytes *b, int row, int column, int v) {
    if (v == NONE) {
        bytes_text(b, "null");
    } else if (row >= PIN_ROWS && column == 1) {
        bytes_printf(b, "\"p%d\"", v % PIN_ROWS);
    } else {
        bytes_int(b, v);
    }
}

static char *object_text(world *w, const intent *in, const int *values) {
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    bytes_char(&b, '{');
    for (int c = 1; c < COLUMNS; c++) {
        if (in->carried[c]) {
            json_comma(&b, &first);
            json_write_text(&b, table_of(w, in->row)->columns[c].name);
            bytes_char(&b, ':');
            value_text(&b, in->row, c, values[c]);
        }
    }
    bytes_char(&b, '}');
    char *text = arena_printf(&w->k.a, "%s", b.ptr);
    bytes_deinit(&b);
    return text;
}

static intent make_intent(world *w, replica *d) {
    intent in = {.row = (int)below(w, ROWS), .key = w->keys++};
    image *view = &d->view[in.row];
    in.kind = !view->live ? OP_CREATE : below(w, 5) == 0 ? OP_DELETE : OP_UPDATE;
    if (in.kind == OP_DELETE) {
        view->live = false;
        return in;
    }
    for (int c = 1; c < column_limit(in.row); c++) {
        in.old[c] = in.kind == OP_CREATE ? NONE : view->v[c];
        in.carried[c] = below(w, in.kind == OP_CREATE ? 2 : 3) == 0;
        in.v[c] = (int)below(w, 5) - 1;
        if (in.row >= PIN_ROWS && c == 1 && in.v[c] != NONE) {
            in.v[c] %= PIN_ROWS;
        }
        if (in.carried[c] && in.v[c] == in.old[c] && in.kind == OP_UPDATE) {
            in.carried[c] = false; /* no change, no capture */
        }
        view->v[c] = in.carried[c] ? in.v[c] : in.kind == OP_CREATE ? NONE : view->v[c];
    }
    view->live = true;
    return in;
}

static wire_op make_op(world *w, const replica *d, const intent *in) {
    bool writes = in->kind != OP_DELETE;
    bool updates = in->kind == OP_UPDATE;
    slice id = w->rows[in->row]->id;
    wire_op op = kit_op(&w->k, in->kind, in->row < PIN_ROWS ? "pins" : "forms",
                        arena_printf(&w->k.a, SLICE_FMT, SLICE_ARG(id)), d->base,
                        writes ? object_text(w, in, in->v) : NULL,
                        updates ? object_text(w, in, in->old) : NULL);
    op.wall_ms = KIT_NOW + d->wall_offset + (int64_t)w->keys;
    memset(op.key, 0, sizeof op.key);
    memcpy(op.key, &in->key, sizeof in->key);
    static const op_kind odd[] = {OP_VOID, OP_NONE,
                                  OP_UPDATE}; /* refused early, or in the middle */
    int64_t pick = below(w, 60);
    if (pick < 3) {
        op.kind = odd[pick];
        op.entity_id = SLICE("nowhere");
    }
    return op;
}

/* ---- invariants ---- */

static bool unseen(const world *w, const wire_op *op, int row, int column, slice device) {
    const writer *last = &w->wrote[row][column];
    bool own = slice_equal(last->device, device) && last->seq < op->seq;
    return last->commit > op->base_seq && !own;
}

/* Is the column's whole unit as its author had seen it? */
static bool unit_seen(const world *w, const wire_op *op, int row, int column, slice device) {
    const schema_table *t = table_of(w, row);
    for (int c = 1; c < column_limit(row); c++) {
        bool together =
            c == column || t->row_atomic ||
            (t->columns[c].group > 0 && t->columns[c].group == t->columns[column].group);
        if (together && unseen(w, op, row, c, device)) {
            return false;
        }
    }
    return true;
}

static bool overwritten(const intent *group, size_t count, size_t i, int column) {
    for (size_t j = i + 1; j < count; j++) {
        if (group[j].row == group[i].row &&
            (group[j].kind != OP_UPDATE || group[j].carried[column])) {
            return true;
        }
    }
    return false;
}

static bool row_met_before(const intent *group, size_t i) {
    for (size_t j = 0; j < i; j++) {
        if (group[j].row == group[i].row) {
            return true;
        }
    }
    return false;
}

static bool contains(slice text, slice part) {
    for (size_t i = 0; i + part.len <= text.len; i++) {
        if (memcmp(text.ptr + i, part.ptr, part.len) == 0) {
            return true;
        }
    }
    return false;
}

/* A record of this operation that tells about the column (or the whole row). */
static const decide_conflict *record_of(world *w, const decide_commit *out, const wire_op *op,
                                        int row, int column) {
    char *quoted = arena_printf(&w->k.a, "\"" SLICE_FMT "\"",
                                SLICE_ARG(table_of(w, row)->columns[column].name));
    for (size_t i = 0; i < out->conflict_count; i++) {
        const decide_conflict *c = &out->conflicts[i];
        if (c->op == op && slice_equal(c->entity_id, op->entity_id) &&
            (contains(c->columns_json, slice_of(quoted)) || slice_is(c->columns_json, "[]"))) {
            return c;
        }
    }
    return NULL;
}

static void check_column(world *w, const decide_commit *out, const wire_op *op, const intent *group,
                         size_t count, size_t i, int c, const image *before, slice device) {
    const intent *in = &group[i];
    const merge_row *row = &w->rows[in->row]->row;
    bool current = row->exists && !row->deleted && plain(&row->values[c]) == in->v[c];
    const decide_conflict *record = record_of(w, out, op, in->row, c);
    if (overwritten(group, count, i, c)) {
        return;
    }
    assert_true(current || record); /* I18, the author's side */
    if (row_met_before(group, i) || !before[in->row].live) {
        return;
    }
    if (in->kind == OP_UPDATE && unit_seen(w, op, in->row, c, device)) {
        assert_true(current && !record); /* I10 */
        w->seen_causal++;
    }
    merge_policy policy = table_of(w, in->row)->columns[c].policy;
    bool displaced = current && unseen(w, op, in->row, c, device) &&
                     before[in->row].v[c] != in->v[c] &&
                     (in->kind == OP_CREATE || before[in->row].v[c] != in->old[c]);
    if (displaced && policy != POLICY_MAX && policy != POLICY_MIN) {
        assert_non_null(record); /* I18, the other side */
        assert_true(slice_is(record->winner, "ours"));
    }
}

static void check_effects(world *w, const decide_commit *out, const wire_op *ops,
                          const intent *group, size_t count, const image *before, slice device) {
    for (size_t i = 0; i < count; i++) {
        const merge_row *row = &w->rows[group[i].row]->row;
        assert_true(w->effects[group[i].key % sizeof w->effects]++ == 0); /* I4 */
        if (group[i].kind == OP_DELETE) {
            bool gone = !row->exists || row->deleted;
            assert_true(gone || overwritten(group, count, i, 0) ||
                        record_of(w, out, &ops[i], group[i].row, 1));
        }
        for (int c = 1; group[i].kind != OP_DELETE && c < column_limit(group[i].row); c++) {
            if (group[i].carried[c]) {
                check_column(w, out, &ops[i], group, count, i, c, before, device);
            }
        }
    }
}

static void note_writers(world *w, const decide_commit *out, const wire_op *ops,
                         const intent *group, size_t count, slice device) {
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < out->change_count; k++) {
            const decide_change *change = &out->changes[k];
            if (change->row != w->rows[group[i].row]) {
                continue;
            }
            const merge_row *row = &change->row->row;
            bool fresh = row->created.ver == out->commit_seq;
            for (int c = 1; c < column_limit(group[i].row); c++) {
                bool now = row->meta[c].ver == out->commit_seq;
                if (fresh || (now && group[i].carried[c])) { /* of a deleted row: its last image */
                    w->wrote[group[i].row][c] = (writer){out->commit_seq, ops[i].seq, device};
                }
            }
        }
    }
}

/* ---- one step ---- */

static void pull(world *w, replica *d) {
    d->base = w->k.c.head;
    take_images(w, d->view);
}

static void become(world *w, replica *d) {
    const char *id = arena_printf(&w->k.a, "id%d", w->identities++);
    d->device = (decide_device){.device_id = slice_of(id), .user_id = SLICE("alice")};
}

static decide_commit call(world *w, replica *d, const wire_op *ops, size_t count,
                          const decide_ledger *by_key, const decide_refusal *forced) {
    decide_commit out;
    kit *k = &w->k;
    int64_t head = k->c.head, applied = d->device.applied_seq;
    k->request = (push_request){
        .device_id = d->device.device_id, .stream = true, .wall_ms = KIT_NOW + d->wall_offset};
    assert_int_equal(
        decide_group(&k->c, &d->device, &k->request, ops, count, by_key, false, forced, &out),
        GODWIT_OK);
    assert_int_equal(out.commit_seq, head + 1); /* I8 */
    assert_int_equal(k->c.head, head + 1);
    assert_int_equal(out.first_seq, applied + 1); /* I6 */
    assert_int_equal(out.last_seq, applied + (int64_t)count);
    assert_int_equal(d->device.applied_seq, out.last_seq);
    k->salts[head] = (decide_salt){head + 1, KIT_SALT(head + 1)};
    k->c.salt_count = (size_t)head + 1;
    plan_write(&w->log, &out);
    return out;
}

static void number(replica *d, wire_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ops[i].seq = d->device.applied_seq + 1 + (int64_t)i;
        ops[i].group_first = d->device.applied_seq + 1;
        ops[i].group_size = (int64_t)count;
    }
}

/* The store refuses what was decided: the rows come back from its database, and decide is told. */
static decide_commit refused_by_store(world *w, replica *d, const wire_op *ops, size_t count) {
    decide_row saved[ROWS];
    decide_device device = d->device;
    for (int r = 0; r < ROWS; r++) {
        size_t n = w->rows[r]->table->column_count;
        saved[r] = *w->rows[r];
        saved[r].row.values = ARENA_ARRAY(&w->k.a, value, n);
        saved[r].row.meta = ARENA_ARRAY(&w->k.a, merge_meta, n);
        saved[r].clock = (vclock){0};
        memcpy(saved[r].row.values, w->rows[r]->row.values, n * sizeof(value));
        memcpy(saved[r].row.meta, w->rows[r]->row.meta, n * sizeof(merge_meta));
        assert_int_equal(clock_merge(&w->k.a, &saved[r].clock, &w->rows[r]->clock), GODWIT_OK);
    }
    (void)call(w, d, ops, count, NULL, NULL);
    for (int r = 0; r < ROWS; r++) {
        *w->rows[r] = saved[r];
    }
    d->device = device;
    w->k.c.head--;
    decide_refusal refusal = {.code = CODE_UNIQUE_VIOLATION, .detail = SLICE("unique")};
    return call(w, d, ops, count, NULL, &refusal);
}

static void remember(replica *d, const decide_commit *out, const intent *group, const wire_op *ops,
                     size_t count) {
    memcpy(d->last, group, count * sizeof *group);
    memcpy(d->last_ops, ops, count * sizeof *ops);
    d->last_count = count;
    for (size_t i = 0; i < count; i++) {
        d->last_ledger[i] = (decide_ledger){.found = true,
                                            .commit_seq = out->commit_seq,
                                            .outcome = out->results[i].outcome,
                                            .code = out->results[i].code};
        memcpy(d->last_ledger[i].key, ops[i].key, SHA256_BYTES);
    }
}

static void push_group(world *w, replica *d) {
    intent group[GROUP_MAX];
    wire_op *ops = ARENA_ARRAY(&w->k.a, wire_op, GROUP_MAX);
    size_t count = 1 + (size_t)below(w, GROUP_MAX);
    image before[ROWS];
    bytes was, is;
    bytes_init(&was, NULL, 0);
    bytes_init(&is, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        group[i] = make_intent(w, d);
        ops[i] = make_op(w, d, &group[i]);
    }
    number(d, ops, count);
    take_images(w, before);
    rows_text(w, &was);
    decide_commit out =
        below(w, 12) == 0 ? refused_by_store(w, d, ops, count) : call(w, d, ops, count, NULL, NULL);
    if (out.outcome == OUTCOME_REJECTED) {
        rows_text(w, &is);
        assert_true(slice_equal(bytes_view(&was), bytes_view(&is))); /* I13 */
        assert_int_equal(out.change_count, 0);
        assert_true(out.conflict_count == 0 || slice_is(out.conflicts[0].kind, "unique"));
        pull(w, d); /* the device takes its changes back */
        w->seen_rejected++;
    } else {
        check_effects(w, &out, ops, group, count, before, d->device.device_id);
        note_writers(w, &out, ops, group, count, d->device.device_id);
        w->seen_conflicts += out.conflict_count > 0;
        w->seen_open += out.outcome == OUTCOME_CONFLICT;
    }
    remember(d, &out, group, ops, count);
    bytes_deinit(&was);
    bytes_deinit(&is);
}

static push_request resend_request(const replica *d, const wire_op *ops) {
    return (push_request){.stream = true,
                          .first_seq = ops[0].seq,
                          .ops = (wire_op *)(uintptr_t)ops,
                          .op_count = d->last_count};
}

/* The answer was lost: the same again, or by a clone that made something else of the same place. */
static void send_again(world *w, replica *d) {
    push_request request = resend_request(d, d->last_ops);
    stream_verdict verdict =
        decide_stream(&w->k.c, &d->device, SLICE("alice"), &request, d->last_ledger);
    assert_int_equal(verdict, STREAM_OK);
    d->last_ops[d->last_count - 1].key[31] ^= 0x80;
    verdict = decide_stream(&w->k.c, &d->device, SLICE("alice"), &request, d->last_ledger);
    assert_int_equal(verdict, STREAM_FORKED);
    d->last_ops[d->last_count - 1].key[31] ^= 0x80;
}

/* A new identity sends what the server has already. */
static void send_rekeyed(world *w, replica *d) {
    bytes was, is;
    bytes_init(&was, NULL, 0);
    bytes_init(&is, NULL, 0);
    become(w, d);
    wire_op *ops = ARENA_ARRAY(&w->k.a, wire_op, GROUP_MAX);
    memcpy(ops, d->last_ops, sizeof d->last_ops);
    number(d, ops, d->last_count);
    rows_text(w, &was);
    decide_commit out = call(w, d, ops, d->last_count, d->last_ledger, NULL);
    rows_text(w, &is);
    assert_int_equal(out.outcome, OUTCOME_DUPLICATE); /* I4 */
    assert_true(slice_equal(bytes_view(&was), bytes_view(&is)));
    assert_int_equal(out.results[0].first_commit, d->last_ledger[0].commit_seq);
    d->last_count = 0;
    pull(w, d);
    w->seen_duplicates++;
    bytes_deinit(&was);
    bytes_deinit(&is);
}

static void world_init(world *w, uint64_t seed, bool clockless, int64_t clock_unit) {
    memset(w, 0, sizeof *w);
    w->random = seed;
    kit_init(&w->k, 2 * STEPS);
    w->k.c.head = 0;
    w->k.c.salt_count = 0;
    bytes_init(&w->log, NULL, 0);
    memcpy(w->pin_columns, kit_pins, sizeof kit_pins);
    for (size_t c = 0; clockless && c < COUNT_OF(kit_pins); c++) {
        if (w->pin_columns[c].policy == POLICY_LWW) {
            w->pin_columns[c].policy = c % 2 ? POLICY_CLIENT_WINS : POLICY_SERVER_WINS;
        }
    }
    schema_table *t = &w->k.tables[PINS];
    t->columns = w->pin_columns;
    t->row_atomic = !clockless && below(w, 6) == 0;
    t->on_conflicting_delete = below(w, 3) ? DELETE_EDIT_WINS : DELETE_DELETE_WINS;
    t->initial = (initial_policy)below(w, 3);
    for (int r = 0; r < ROWS; r++) {
        const char *id = arena_printf(&w->k.a, "%c%d", r < PIN_ROWS ? 'p' : 'f', r);
        w->rows[r] = decide_row_of(&w->k.c, table_of(w, r), slice_of(id));
    }
    for (int d = 0; d < DEVICES; d++) {
        become(w, &w->replicas[d]);
        w->replicas[d].wall_offset = clock_unit * (d - 1) * (d % 2 ? 1 : 1000);
    }
}

static void world_run(world *w) {
    for (int step = 0; step < STEPS; step++) {
        replica *d = &w->replicas[below(w, DEVICES)];
        switch (below(w, 10)) {
        case 0:
        case 1:
        case 2:
            pull(w, d);
            break;
        case 3:
            if (d->last_count > 0) {
                send_again(w, d);
            }
            break;
        case 4:
            if (d->last_count > 0) {
                send_rekeyed(w, d);
            }
            break;
        default:
            push_group(w, d);
            break;
        }
    }
}

static void world_deinit(world *w) {
    bytes_deinit(&w->log);
    kit_deinit(&w->k);
}

/* Forms have lww columns only; without lww they must not be met by clocks either. */
static schema_column clockless_forms[COUNT_OF(kit_forms)];

static void use_clockless_forms(world *w) {
    memcpy(clockless_forms, kit_forms, sizeof kit_forms);
    clockless_forms[1].policy = POLICY_SERVER_WINS;
    clockless_forms[2].policy = POLICY_CLIENT_WINS;
    w->k.tables[FORMS].columns = clockless_forms;
}

static void invariants_hold_and_plans_repeat(void **state) {
    (void)state;
    int conflicts = 0, rejected = 0, open = 0, duplicates = 0, causal = 0;
    static world one, two;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        world_init(&one, seed, false, 1000);
        world_run(&one);
        if (seed % 4 == 0) {
            world_init(&two, seed, false, 1000);
            two.k.c.hash_seed = seed; /* where rows lie in memory decides nothing */
            decide_row *rows[ROWS];
            assert_int_equal(decide_init(&two.k.c, 1), GODWIT_OK);
            for (int r = 0; r < ROWS; r++) {
                rows[r] = decide_row_of(&two.k.c, table_of(&two, r), two.rows[r]->id);
            }
            memcpy(two.rows, rows, sizeof rows);
            world_run(&two);
            assert_true(slice_equal(bytes_view(&one.log), bytes_view(&two.log))); /* I15 */
            world_deinit(&two);
        }
        conflicts += one.seen_conflicts;
        rejected += one.seen_rejected;
        open += one.seen_open;
        duplicates += one.seen_duplicates;
        causal += one.seen_causal;
        world_deinit(&one);
    }
    assert_true(conflicts > RUNS / 2 && rejected > RUNS / 2 && duplicates > RUNS / 4);
    assert_true(open > RUNS / 20 && causal > RUNS);
}

static void without_lww_clocks_change_nothing(void **state) {
    (void)state;
    static world right, wrong;
    for (uint64_t seed = 1; seed <= RUNS / 4; seed++) {
        world_init(&right, seed, true, 0);
        use_clockless_forms(&right);
        world_run(&right);
        world_init(&wrong, seed, true, (int64_t)86400 * 365 * 1000); /* years off, both ways */
        use_clockless_forms(&wrong);
        world_run(&wrong);
        assert_true(slice_equal(bytes_view(&right.log), bytes_view(&wrong.log))); /* I26 */
        world_deinit(&right);
        world_deinit(&wrong);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(invariants_hold_and_plans_repeat),
        cmocka_unit_test(without_lww_clocks_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
