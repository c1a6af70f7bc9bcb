/* The same input, the same decision (I15). Every group is decided twice: first on a copy of what
 * was loaded, kept in other memory and in another order, then for the server; both must say the
 * same to the last byte. The linker puts this in the way of decide_group (--wrap). See oracle.h. */
#include <stdlib.h>
#include <string.h>

#include "core/decide.h"
#include "sim/sim.h"

/* the linker's names */
godwit_status __real_decide_group(decide_context *c, decide_device *side,
                                  const push_request *request, const wire_op *ops, size_t count,
                                  const decide_ledger *by_key, bool dep_failed,
                                  const decide_refusal *forced, decide_commit *out);
godwit_status __wrap_decide_group(decide_context *c, decide_device *side,
                                  const push_request *request, const wire_op *ops, size_t count,
                                  const decide_ledger *by_key, bool dep_failed,
                                  const decide_refusal *forced, decide_commit *out);

static world *watched;

void oracle_twice(world *w) {
    watched = w;
}

/* ---- a copy of what was loaded ---- */

static void copy_row(decide_context *to, const decide_row *row) {
    decide_row *copy = decide_row_of(to, row->table, row->id);
    size_t columns = row->table->column_count;
    if (!copy) {
        abort();
    }
    value *values = copy->row.values;
    merge_meta *meta = copy->row.meta;
    copy->row = row->row;
    copy->row.values = values;
    copy->row.meta = meta;
    memcpy(values, row->row.values, columns * sizeof *values);
    memcpy(meta, row->row.meta, columns * sizeof *meta);
    copy->clock = (vclock){.floor = row->clock.floor};
    for (size_t i = 0; i < row->clock.count; i++) {
        const clock_entry *e = &row->clock.entries[i];
        if (clock_set(to->a, &copy->clock, e->device, e->version) != GODWIT_OK) {
            abort();
        }
    }
    copy->row_scope = row->row_scope;
    copy->typed = row->typed;
    copy->unwritten = row->unwritten;
    copy->unsettled = row->unsettled;
    copy->change = row->change;
}

static void copy_context(decide_context *to, const decide_context *from, arena *a) {
    *to = *from;
    to->a = a;
    to->hash_seed = ~from->hash_seed;
    if (decide_init(to, from->row_count) != GODWIT_OK) {
        abort();
    }
    for (size_t i = from->bucket_count; i > 0; i--) {
        for (const decide_row *row = from->buckets[i - 1]; row; row = row->next) {
            copy_row(to, row);
        }
    }
}

/* ---- a decision in words ---- */

static void say(bytes *b, slice s) {
    bytes_printf(b, "%lld:", (long long)s.len);
    bytes_slice(b, s);
}

static void say_row(bytes *b, const decide_row *row) {
    if (!row) {
        return;
    }
    say(b, row->id);
    bytes_printf(b, "%d%d %lld %lld %lld %d ", row->row.exists, row->row.deleted,
                 (long long)row->row.ver, (long long)row->row.created_ver,
                 (long long)row->row.del_ver, row->row.gen);
    clock_write(b, &row->clock);
    for (size_t i = 0; row->row.exists && i < row->table->column_count; i++) {
        const merge_meta *m = &row->row.meta[i];
        value_to_json(b, &row->row.values[i]);
        bytes_printf(b, " %lld %lld %lld ", (long long)m->ver, (long long)m->at_ms,
                     (long long)m->seq);
        say(b, m->device);
        say(b, m->tags);
    }
}

static void say_change(bytes *b, const decide_change *c) {
    bytes_printf(b, "change %d%d %lld ", c->is_delete, c->full, (long long)c->prev_seq);
    for (size_t i = 0; c->columns && i < c->row->table->column_count; i++) {
        bytes_char(b, c->columns[i] ? '1' : '0');
    }
    say(b, c->clock_json);
    say_row(b, c->row);
}

static void say_conflict(bytes *b, const decide_conflict *c) {
    const slice texts[] = {c->id,           c->entity_id, c->kind,   c->their_clock,
                           c->columns_json, c->base,      c->theirs, c->ours,
                           c->chosen,       c->policy,    c->winner};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        say(b, texts[i]);
    }
    bytes_printf(b, "%lld %lld %lld %d ", (long long)c->our_at_ms, (long long)c->our_base,
                 (long long)c->their_commit, c->open);
}

static void say_decision(bytes *b, const decide_context *c, const decide_device *side,
                         const decide_commit *d) {
    bytes_printf(b, "%lld %lld %d %lld %lld %lld ", (long long)d->commit_seq, (long long)d->at_ms,
                 (int)d->outcome, (long long)d->first_seq, (long long)d->last_seq,
                 (long long)c->head);
    for (size_t i = 0; i < d->result_count; i++) {
        const decide_result *r = &d->results[i];
        bytes_printf(b, "result %d %d %lld ", (int)r->outcome, (int)r->code,
                     (long long)r->first_commit);
        say(b, r->detail);
        say(b, r->conflicts_json);
        say(b, r->clock_json);
        say_row(b, r->row);
    }
    for (size_t i = 0; i < d->change_count; i++) {
        say_change(b, &d->changes[i]);
    }
    for (size_t i = 0; i < d->conflict_count; i++) {
        say_conflict(b, &d->conflicts[i]);
    }
    if (side) {
        bytes_printf(b, "device %lld %lld ", (long long)side->applied_seq,
                     (long long)side->last_at_ms);
        json_write_hex(b, side->last_key, SHA256_BYTES);
    }
}

godwit_status __wrap_decide_group(decide_context *c, decide_device *side,
                                  const push_request *request, const wire_op *ops, size_t count,
                                  const decide_ledger *by_key, bool dep_failed,
                                  const decide_refusal *forced, decide_commit *out) {
    arena a;
    bytes first, second;
    decide_context copy;
    decide_commit other;
    decide_device twin = side ? *side : (decide_device){0};
    arena_init(&a, NULL, 0);
    bytes_init(&first, NULL, 0);
    bytes_init(&second, NULL, 0);
    copy_context(&copy, c, &a);
    godwit_status before = __real_decide_group(&copy, side ? &twin : NULL, request, ops, count,
                                               by_key, dep_failed, forced, &other);
    godwit_status status =
        __real_decide_group(c, side, request, ops, count, by_key, dep_failed, forced, out);
    if (before == GODWIT_OK && status == GODWIT_OK) {
        say_decision(&first, &copy, side ? &twin : NULL, &other);
        say_decision(&second, c, side, out);
    }
    if (before != status || !slice_equal(bytes_view(&first), bytes_view(&second))) {
        sim_fail(watched, "I15", "commit %lld was decided in two ways from the same input",
                 (long long)out->commit_seq);
    }
    watched->seen[SEEN_DECIDED]++;
    bytes_deinit(&first);
    bytes_deinit(&second);
    arena_deinit(&a);
    return status;
}
