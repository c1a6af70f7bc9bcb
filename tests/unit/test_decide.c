/* Groups: all or nothing, one net change per row, delete units, clocks, and what a refusal leaves.
 */
#include "decide_kit.h"

static wire_op update(kit *k, const char *id, int64_t base, const char *payload, const char *old) {
    return kit_op(k, OP_UPDATE, "pins", id, base, payload, old);
}
static wire_op create(kit *k, const char *entity, const char *id, int64_t base,
                      const char *payload) {
    return kit_op(k, OP_CREATE, entity, id, base, payload, NULL);
}
static wire_op delete_op(kit *k, const char *entity, const char *id, int64_t base) {
    return kit_op(k, OP_DELETE, entity, id, base, NULL, NULL);
}

/* ---- net change ---- */

static void create_and_update_are_one_insert(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    wire_op ops[] = {
        create(&k, "pins", "p", 4, "{\"id\":\"p\",\"title\":\"A\",\"lat\":1}"),
        update(&k, "p", 4, "{\"title\":\"B\",\"note\":\"n\"}", "{\"title\":\"A\",\"note\":null}")};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(out.change_count, 1);
    decide_change *c = &out.changes[0];
    assert_true(c->full && !c->is_delete);
    assert_int_equal(c->prev_seq, 0);
    for (size_t i = 0; i < COUNT_OF(kit_pins); i++) {
        assert_true(c->columns[i]);
        assert_int_equal(c->given[i], i <= 3); /* id title note lat */
    }
    assert_true(value_is(c->row, "title", "\"B\"") && value_is(c->row, "id", "\"p\""));
    assert_true(slice_is(c->clock_json, "{\"$\":0,\"dev\":2}"));
    assert_true(slice_is(out.results[0].clock_json, "{\"$\":0,\"dev\":2}"));
    assert_int_equal(c->row->row.gen, 1);
    assert_int_equal(c->row->row.created_ver, 5);
    assert_int_equal(out.conflict_count, 0); /* an own overwrite */
    assert_ptr_equal(out.results[1].row, c->row);
    kit_deinit(&k);
}

static void create_and_delete_are_nothing(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    wire_op ops[] = {create(&k, "pins", "p", 4, "{\"title\":\"A\"}"),
                     delete_op(&k, "pins", "p", 4)};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(out.change_count, 0);
    assert_null(out.results[0].row);
    decide_row *row = decide_row_find(&k.c, &k.tables[PINS], SLICE("p"));
    assert_false(row->row.exists);
    assert_true(value_is(row, "title", "null"));
    wire_op again = create(&k, "pins", "p", 4, "{\"title\":\"Z\"}"); /* as if it had never been */
    out = kit_group(&k, &again, 1);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(row->row.gen, 1);
    kit_deinit(&k);
}

static void several_updates_are_one(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\",\"note\":\"n\"}", 2, "x", 1);
    wire_op ops[] = {
        update(&k, "p", 4, "{\"title\":\"B\"}", "{\"title\":\"A\"}"),
        update(&k, "p", 4, "{\"title\":\"C\",\"lat\":1}", "{\"title\":\"B\",\"lat\":null}")};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.change_count, 1);
    assert_false(out.changes[0].full);
    for (int i = 0; i < (int)COUNT_OF(kit_pins); i++) {
        assert_int_equal(out.changes[0].columns[i], i == 1 || i == 3);
    }
    assert_int_equal(out.changes[0].prev_seq, 2);
    assert_true(value_is(row, "title", "\"C\""));
    assert_int_equal(row->row.meta[1].seq, 2);
    assert_int_equal(row->row.meta[1].ver, 5);
    assert_int_equal(row->row.meta[2].ver, 0); /* untouched: still the creator's */
    kit_deinit(&k);
}

static void delete_and_create_are_one_new_version(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\",\"note\":\"n\"}", 2, "x", 1);
    wire_op ops[] = {delete_op(&k, "pins", "p", 4),
                     create(&k, "pins", "p", 4, "{\"title\":\"B\"}")};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(out.conflict_count, 0);
    assert_int_equal(out.change_count, 1);
    assert_true(out.changes[0].full && !out.changes[0].is_delete);
    assert_int_equal(row->row.gen, 2);
    assert_true(value_is(row, "note", "null"));
    assert_false(out.changes[0].given[2]);
    kit_deinit(&k);
}

static void update_and_delete_are_a_delete(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 4);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[] = {update(&k, "p", 4, "{\"title\":\"B\"}", "{\"title\":\"A\"}"),
                     delete_op(&k, "pins", "p", 4)};
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.change_count, 1);
    assert_true(out.changes[0].is_delete && !out.changes[0].full);
    assert_true(row->row.deleted);
    assert_int_equal(row->row.del_ver, 5);
    assert_true(slice_is(row->row.del_device, "dev"));
    assert_true(value_is(row, "title", "\"B\"")); /* the salvage image */
    assert_null(out.results[0].row);
    kit_deinit(&k);
}

/* ---- refusal ---- */

/* Everything a row holds, as text. */
static void row_write(bytes *b, const decide_row *row) {
    const merge_row *r = &row->row;
    bytes_printf(b,
                 SLICE_FMT " %d%d%d %lld %lld %lld %d " SLICE_FMT " created %lld %lld " SLICE_FMT
                           " %lld\n",
                 SLICE_ARG(row->id), r->exists, r->deleted, r->foreign, (long long)r->ver,
                 (long long)r->created_ver, (long long)r->del_ver, r->gen, SLICE_ARG(r->del_device),
                 (long long)r->created.ver, (long long)r->created.at_ms,
                 SLICE_ARG(r->created.device), (long long)r->created.seq);
    for (size_t i = 0; i < row->table->column_count; i++) {
        bytes_printf(b, " %lld %lld " SLICE_FMT " %lld ", (long long)r->meta[i].ver,
                     (long long)r->meta[i].at_ms, SLICE_ARG(r->meta[i].device),
                     (long long)r->meta[i].seq);
        value_to_json(b, &r->values[i]);
    }
    bytes_char(b, '\n');
    clock_write(b, &row->clock);
}

static void rows_write(bytes *b, kit *k) {
    static const char *const ids[] = {"live", "edited", "gone", "new", "new2"};
    bytes_init(b, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        row_write(b, decide_row_of(&k->c, &k->tables[PINS], slice_of(ids[i])));
    }
}

static void set_up_rows(kit *k) {
    kit_row(k, PINS, "live", "{\"id\":\"live\",\"title\":\"A\",\"note\":\"n\"}", 2, "x", 1);
    kit_edit(k, kit_row(k, PINS, "edited", "{\"title\":\"A\"}", 2, "x", 2), "title", "\"C\"", 7,
             700, "y", 3);
    kit_tombstone(kit_row(k, PINS, "gone", "{\"title\":\"G\"}", 3, "x", 3), 8, "y");
}

/* One of everything, and at `bad` an update of a row that does not exist. */
static size_t busy_group(kit *k, wire_op *ops, size_t bad) {
    size_t n = 0;
    wire_op all[] = {
        update(k, "live", 4, "{\"title\":\"B\",\"note\":\"m\"}",
               "{\"title\":\"A\",\"note\":\"n\"}"),
        update(k, "edited", 4, "{\"title\":\"D\",\"lat\":2}", "{\"title\":\"A\",\"lat\":null}"),
        update(k, "gone", 4, "{\"title\":\"H\"}", "{\"title\":\"G\"}"),
        create(k, "pins", "new", 4, "{\"title\":\"N\"}"),
        create(k, "pins", "new2", 4, "{\"title\":\"N\"}"),
        update(k, "new", 4, "{\"note\":\"x\"}", "{\"note\":null}"),
        delete_op(k, "pins", "live", 4),
        create(k, "pins", "live", 4, "{\"title\":\"again\"}"),
        delete_op(k, "pins", "new2", 4),
    };
    for (size_t i = 0; i <= COUNT_OF(all); i++) {
        if (i == bad) {
            ops[n++] = update(k, "nowhere", 4, "{\"title\":\"B\"}", "{\"title\":\"A\"}");
        }
        if (i < COUNT_OF(all)) {
            ops[n++] = all[i];
        }
    }
    return n;
}

#define BUSY 9

static void a_refusal_leaves_no_trace(void **state) {
    (void)state;
    for (size_t bad = 0; bad <= BUSY; bad++) {
        kit k;
        bytes before, after;
        wire_op ops[BUSY + 1];
        kit_init(&k, 9);
        set_up_rows(&k);
        rows_write(&before, &k);
        size_t n = busy_group(&k, ops, bad);
        assert_int_equal(n, BUSY + 1);
        decide_commit out = kit_group(&k, ops, n);
        rows_write(&after, &k);
        assert_true(slice_equal(bytes_view(&before), bytes_view(&after)));
        assert_int_equal(out.outcome, OUTCOME_REJECTED);
        assert_int_equal(out.change_count, 0);
        assert_int_equal(out.conflict_count, 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(out.results[i].outcome, OUTCOME_REJECTED);
            assert_int_equal(out.results[i].code,
                             i == bad ? CODE_ROW_MISSING : CODE_DEPENDENCY_FAILED);
            assert_null(out.results[i].row);
            assert_int_equal(out.results[i].conflicts_json.len, 0);
            assert_true(i == bad || slice_is(out.results[i].detail, "rolled back with its group"));
        }
        assert_int_equal(k.device.applied_seq, (int64_t)n); /* the stream goes on all the same */
        assert_int_equal(k.c.head, 10);
        assert_int_equal(k.device.last_at_ms, 0);
        bytes_deinit(&before);
        bytes_deinit(&after);
        kit_deinit(&k);
    }
}

static void the_same_group_without_the_bad_one_applies(void **state) {
    (void)state;
    kit k;
    wire_op ops[BUSY + 1];
    kit_init(&k, 9);
    set_up_rows(&k);
    size_t n = busy_group(&k, ops, BUSY + 1);
    decide_commit out = kit_group(&k, ops, n);
    assert_int_equal(out.outcome, OUTCOME_MERGED);
    assert_int_equal(out.change_count, 4);
    static const char *const order[] = {"live", "edited", "gone", "new"}; /* as first touched */
    for (size_t i = 0; i < 4; i++) {
        assert_true(slice_is(out.changes[i].row->id, order[i]));
        assert_int_equal(out.changes[i].full, i != 1);
    }
    kit_deinit(&k);
}

/* The store refuses: the caller reloads the rows and asks again. */
static void forced_refusals(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    wire_op ops[2] = {create(&k, "pins", "a", 4, "{}"), create(&k, "pins", "b", 4, "{}")};
    decide_device device = k.device;
    (void)kit_group(&k, ops, 2);
    k.c.head = 9;
    k.device = device;
    decide_refusal refusal = {
        .code = CODE_UNIQUE_VIOLATION, .detail = SLICE("title"), .op_index = 1};
    decide_commit out;
    assert_int_equal(decide_group(&k.c, &k.device, &k.request, ops, 2, NULL, false, &refusal, &out),
                     GODWIT_OK);
    assert_int_equal(out.commit_seq, 10);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    assert_int_equal(out.results[0].code, CODE_DEPENDENCY_FAILED);
    assert_int_equal(out.results[1].code, CODE_UNIQUE_VIOLATION);
    assert_true(slice_is(out.results[1].detail, "title"));
    assert_int_equal(k.device.applied_seq, 2);
    kit_deinit(&k);
}

static void failed_dependencies_and_voids(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op op = update(&k, "p", 9, "{\"title\":\"B\"}", NULL);
    decide_commit out;
    op.seq = 1;
    assert_int_equal(decide_group(&k.c, &k.device, &k.request, &op, 1, NULL, true, NULL, &out),
                     GODWIT_OK);
    assert_int_equal(out.results[0].code, CODE_DEPENDENCY_FAILED);
    assert_int_equal(out.outcome, OUTCOME_REJECTED);
    wire_op ops[3] = {update(&k, "p", 9, "{\"title\":\"B\"}", NULL),
                      kit_op(&k, OP_VOID, "pins", "p", 9, NULL, NULL),
                      update(&k, "p", 9, "{\"title\":\"C\"}", NULL)};
    ops[1].payload_node = NULL;
    ops[1].payload = (slice){0};
    out = kit_group(&k, ops, 3);
    assert_int_equal(out.results[0].code, CODE_DEPENDENCY_FAILED);
    assert_int_equal(out.results[1].code, CODE_DISCARDED);
    assert_true(value_is(row, "title", "\"A\""));
    kit_deinit(&k);
}

/* Held whole: one operation's base is of another history, so all of the group waits for a person.
 */
static void lost_base_holds_the_group(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 2, "x", 1);
    wire_op ops[2] = {update(&k, "p", 9, "{\"title\":\"B\"}", NULL),
                      update(&k, "q", 5, "{\"title\":\"C\"}", NULL)};
    ops[1].base_salt++;
    k.c.salt = 7;
    decide_commit out = kit_group(&k, ops, 2);
    assert_int_equal(out.outcome, OUTCOME_CONFLICT);
    assert_int_equal(out.results[0].code, CODE_DEPENDENCY_FAILED);
    assert_int_equal(out.results[1].code, CODE_LOST_BASE);
    assert_int_equal(out.conflict_count, 2);
    assert_true(slice_is(out.conflicts[0].ours, "{\"title\":\"B\"}"));
    assert_true(slice_is(out.results[0].conflicts_json, "[\"c-10-0-0000000000000007\"]"));
    assert_true(slice_is(out.results[1].conflicts_json, "[\"c-10-1-0000000000000007\"]"));
    assert_true(value_is(row, "title", "\"A\""));
    kit_deinit(&k);
}

/* ---- delete units ---- */

static void family_rows(kit *k) {
    kit_row(k, PINS, "p", "{\"id\":\"p\"}", 2, "x", 1);
    kit_row(k, PINS, "q", "{\"id\":\"q\"}", 2, "x", 2);
    kit_row(k, FORMS, "f1", "{\"id\":\"f1\",\"pin_id\":\"p\"}", 2, "x", 3);
    kit_row(k, FORMS, "f2", "{\"id\":\"f2\",\"pin_id\":\"p\"}", 2, "x", 4);
    kit_row(k, FORMS, "g", "{\"id\":\"g\",\"pin_id\":\"q\"}", 2, "x", 5);
    kit_row(k, FORMS, "h", "{\"id\":\"h\",\"pin_id\":null}", 2, "x", 6);
}

static const char *const FAMILY[][2] = {{"forms", "f1"}, {"pins", "p"}, {"forms", "g"},
                                        {"forms", "f2"}, {"pins", "q"}, {"forms", "h"}};

/* Deletes all of them in one group; which are gone afterwards? */
static unsigned delete_family(kit *k, int64_t base, decide_commit *out) {
    wire_op ops[COUNT_OF(FAMILY)];
    unsigned gone = 0;
    for (size_t i = 0; i < COUNT_OF(FAMILY); i++) {
        ops[i] = delete_op(k, FAMILY[i][0], FAMILY[i][1], base);
    }
    *out = kit_group(k, ops, COUNT_OF(FAMILY));
    for (size_t i = 0; i < COUNT_OF(FAMILY); i++) {
        const schema_table *t = &k->tables[FAMILY[i][0][0] == 'p' ? PINS : FORMS];
        gone |= (unsigned)decide_row_find(&k->c, t, slice_of(FAMILY[i][1]))->row.deleted << i;
    }
    return gone;
}

static void families_stand_together(void **state) {
    (void)state;
    static const struct {
        int table;
        const char *id, *column;
        unsigned gone; /* bits in the order of FAMILY: f1 p g f2 q h */
        size_t records;
    } rows[] = {
        {PINS, "p", "title", 0x34, 3}, /* the parent is edited: p, f1, f2 stay */
        {FORMS, "f2", "body", 0x34,
         3}, /* one child is edited: its parent and its sibling stay too */
        {FORMS, "h", "body", 0x1f, 1}, /* a child of nobody stays alone */
        {PINS, "q", "title", 0x2b, 2}, /* q and g stay */
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit k;
        decide_commit out;
        kit_init(&k, 9);
        family_rows(&k);
        decide_row *row = decide_row_find(&k.c, &k.tables[rows[i].table], slice_of(rows[i].id));
        kit_edit(&k, row, rows[i].column, "\"new\"", 7, 70, "y", 1);
        assert_int_equal(delete_family(&k, 4, &out), rows[i].gone);
        assert_int_equal(out.conflict_count, rows[i].records);
        assert_int_equal(out.outcome, OUTCOME_MERGED);
        for (size_t c = 0; c < out.conflict_count; c++) {
            assert_true(slice_is(out.conflicts[c].kind, "update_delete"));
            assert_true(slice_is(out.conflicts[c].winner, "theirs"));
        }
        kit_deinit(&k);
    }
}

static void families_nobody_edited(void **state) {
    (void)state;
    kit k;
    decide_commit out;
    kit_init(&k, 9);
    family_rows(&k);
    assert_int_equal(delete_family(&k, 4, &out), 0x3f);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    kit_deinit(&k);
    kit_init(&k, 9); /* delete_wins on the edited table: nothing protects */
    family_rows(&k);
    k.tables[FORMS].on_conflicting_delete = DELETE_DELETE_WINS;
    kit_edit(&k, decide_row_find(&k.c, &k.tables[FORMS], SLICE("f2")), "body", "\"new\"", 7, 70,
             "y", 1);
    assert_int_equal(delete_family(&k, 4, &out), 0x3f);
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].winner, "ours"));
    assert_true(
        slice_is(out.conflicts[0].theirs, "{\"id\":\"f2\",\"pin_id\":\"p\",\"body\":\"new\"}"));
    kit_deinit(&k);
    kit_init(&k, 9); /* seen edits do not protect */
    family_rows(&k);
    kit_edit(&k, decide_row_find(&k.c, &k.tables[PINS], SLICE("p")), "title", "\"new\"", 7, 70, "y",
             1);
    assert_int_equal(delete_family(&k, 7, &out), 0x3f);
    kit_deinit(&k);
}

/* ---- clocks ---- */

static void times_are_corrected_and_monotone(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{}", 2, "x", 1);
    k.request.wall_ms = KIT_NOW - 50000; /* the device's clock is 50 s behind */
    wire_op op = update(&k, "p", 9, "{\"title\":\"B\"}", NULL);
    op.wall_ms = KIT_NOW - 51000; /* one second before it was sent */
    decide_commit out = kit_group(&k, &op, 1);
    assert_int_equal(row->row.meta[1].at_ms, KIT_NOW - 1000);
    assert_int_equal(k.device.last_at_ms, KIT_NOW - 1000);
    op = update(&k, "p", 9, "{\"note\":\"B\"}", NULL);
    op.wall_ms = 5; /* set back by years */
    out = kit_group(&k, &op, 1);
    assert_int_equal(row->row.meta[2].at_ms, KIT_NOW - 1000);
    op = update(&k, "p", 9, "{\"lat\":1}", NULL);
    op.wall_ms = INT64_MAX; /* and forward */
    out = kit_group(&k, &op, 1);
    assert_int_equal(row->row.meta[3].at_ms, KIT_NOW);
    assert_int_equal(out.at_ms, KIT_NOW);
    kit_deinit(&k);
}

static void vector_clocks_of_rows(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    decide_row *row = kit_row(&k, PINS, "p", "{}", 2, "x", 1);
    kit_stand_at(&k, 6);
    wire_op op = update(&k, "p", 9, "{\"title\":\"B\"}", NULL);
    decide_commit out = kit_group(&k, &op, 1);
    assert_true(slice_is(out.changes[0].clock_json, "{\"$\":0,\"dev\":7,\"x\":1}"));
    k.request.stream = false; /* a writer without a stream raises the floor */
    op = update(&k, "p", 9, "{\"title\":\"C\"}", NULL);
    out = kit_group(&k, &op, 1);
    assert_true(slice_is(out.changes[0].clock_json, "{\"$\":11,\"dev\":7,\"x\":1}"));
    assert_int_equal(out.first_seq, 0);
    assert_int_equal(k.device.applied_seq, 7);
    k.request.stream = true;
    for (int i = 0; i < CLOCK_ENTRIES_MAX + 4; i++) {
        char *name = arena_printf(&k.a, "d%02d", i);
        k.device = (decide_device){.device_id = slice_of(name), .user_id = SLICE("alice")};
        op = update(&k, "p", 9, arena_printf(&k.a, "{\"tag\":%d}", i), NULL);
        int64_t former = row->row.ver;
        out = kit_group(&k, &op, 1);
        assert_true(row->clock.count <= CLOCK_ENTRIES_MAX);
        assert_int_equal(clock_get(&row->clock, slice_of(name)),
                         1);                     /* the newest is always there */
        assert_true(row->clock.floor <= former); /* and covered by no floor */
    }
    assert_true(row->clock.floor > 11);
    kit_deinit(&k);
}

static void without_a_stream_or_device(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 9);
    kit_row(&k, PINS, "p", "{\"title\":\"A\"}", 8, "x", 1);
    push_request request = {.device_id = SLICE("dev")};
    wire_op ops[2] = {update(&k, "p", 0, "{\"title\":\"B\"}", NULL),
                      update(&k, "p", 0, "{\"title\":\"C\"}", NULL)};
    decide_commit out; /* atomic: true */
    assert_int_equal(decide_group(&k.c, NULL, &request, ops, 2, NULL, false, NULL, &out),
                     GODWIT_OK);
    assert_int_equal(out.outcome, OUTCOME_APPLIED);
    assert_int_equal(out.conflict_count, 0);
    assert_int_equal(out.changes[0].row->row.meta[1].device.len, 0);
    assert_int_equal(out.changes[0].row->row.meta[1].at_ms, KIT_NOW);
    assert_int_equal(k.c.head, 10);
    ops[0] =
        create(&k, "pins", "p", 0, "{\"title\":\"D\"}"); /* over a live row: kept in the ledger */
    assert_int_equal(decide_group(&k.c, NULL, &request, ops, 1, NULL, false, NULL, &out),
                     GODWIT_OK);
    assert_int_equal(out.outcome, OUTCOME_MERGED);
    assert_int_equal(out.conflict_count, 1);
    assert_true(slice_is(out.conflicts[0].kind, "create_create"));
    assert_true(slice_is(out.conflicts[0].winner, "ours"));
    kit_deinit(&k);
}

/* ---- the container ---- */

static void many_rows(void **state) {
    (void)state;
    kit k;
    kit_init(&k, 0);
    k.c.hash_seed = 0x1234567;
    for (int i = 0; i < 5000; i++) {
        char *id = arena_printf(&k.a, "row-%d", i);
        decide_row *row = decide_row_of(&k.c, &k.tables[i % 2], slice_of(id));
        row->row.ver = i;
    }
    assert_int_equal(k.c.row_count, 5000);
    for (int i = 0; i < 5000; i++) {
        char *id = arena_printf(&k.a, "row-%d", i);
        assert_int_equal(decide_row_of(&k.c, &k.tables[i % 2], slice_of(id))->row.ver, i);
        assert_null(decide_row_find(&k.c, &k.tables[(i + 1) % 2], slice_of(id)));
    }
    assert_int_equal(k.c.row_count, 5000);
    kit_deinit(&k);
}

/* Every allocation fails once: NOMEM or a whole plan, never half of one. */
static void memory_runs_out(void **state) {
    (void)state;
    int refused = 0;
    for (size_t room = 0;; room += 64) {
        kit k;
        wire_op ops[BUSY + 1];
        decide_commit out;
        kit_init(&k, 9);
        set_up_rows(&k);
        size_t n = busy_group(&k, ops, BUSY + 1);
        for (size_t i = 0; i < n; i++) {
            ops[i].seq = (int64_t)i + 1;
        }
        k.a.max_bytes = k.a.used_bytes + room + 1;
        godwit_status status =
            decide_group(&k.c, &k.device, &k.request, ops, n, NULL, false, NULL, &out);
        bool done = status == GODWIT_OK;
        if (!done) {
            assert_int_equal(status, GODWIT_NOMEM);
            assert_null(out.results);
            assert_int_equal(k.c.head, 9);
            assert_int_equal(k.device.applied_seq, 0);
            refused++;
        }
        kit_deinit(&k);
        if (done) {
            break;
        }
    }
    assert_true(refused > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_and_update_are_one_insert),
        cmocka_unit_test(create_and_delete_are_nothing),
        cmocka_unit_test(several_updates_are_one),
        cmocka_unit_test(delete_and_create_are_one_new_version),
        cmocka_unit_test(update_and_delete_are_a_delete),
        cmocka_unit_test(a_refusal_leaves_no_trace),
        cmocka_unit_test(the_same_group_without_the_bad_one_applies),
        cmocka_unit_test(forced_refusals),
        cmocka_unit_test(failed_dependencies_and_voids),
        cmocka_unit_test(lost_base_holds_the_group),
        cmocka_unit_test(families_stand_together),
        cmocka_unit_test(families_nobody_edited),
        cmocka_unit_test(times_are_corrected_and_monotone),
        cmocka_unit_test(vector_clocks_of_rows),
        cmocka_unit_test(without_a_stream_or_device),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
