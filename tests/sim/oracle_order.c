/* What comes before what (I7, I9), and the clocks that say so (I21). See oracle.h.
 *
 * An operation happened before another when its author had it: in its own queue, or in the log up
 * to the base it names. What was lost with a server's history may come again later than what
 * followed it, if its device no longer has it: in such seeds order is not judged. */
#include <string.h>

#include "core/clock.h"
#include "sim/query.h"
#include "sim/sim.h"

/* ---- what a device had when it sealed ---- */

void oracle_learn_order(world *w, int number, int op, int64_t lsn) {
    device *d = &w->devices[number];
    known_op *k = &w->oracle.ops[op];
    if (k->maker == number && k->previous == 0) {
        k->previous = d->know.last_op;
    }
    d->know.last_op = op + 1;
    sqlite3_stmt *q = query(d->db, "SELECT lower(hex(p.idempotency_key)) FROM godwit_dep AS d JOIN"
                                   " godwit_op AS p ON p.lsn = d.depends_on AND p.scope = (SELECT"
                                   " scope FROM godwit_op WHERE lsn = ?1) WHERE d.lsn = ?1 AND"
                                   " d.hard");
    sqlite3_bind_int64(q, 1, lsn);
    while (k->dep_count < DEPS_MAX && query_next(q)) {
        k->deps[k->dep_count++] = oracle_atom(&w->oracle, query_text(q, 0));
    }
    query_done(q);
}

/* ---- order ---- */

/* What it needs is there, and has taken effect (I7). */
static void judge_needs(world *w, int scope, int64_t seq, const known_op *k) {
    const oracle *o = &w->oracle;
    for (int i = 0; i < k->dep_count; i++) {
        const atom *key = oracle_atom(&w->oracle, k->deps[i]->text);
        const decision *d = key->decided ? &o->decisions[key->decided - 1] : NULL;
        if (d && d->scope != scope) {
            continue;
        }
        if (!d || !d->effect) {
            sim_fail(w, "I7", "commit %lld of s%d takes effect, and %.16s, which it needs, %s",
                     (long long)seq, scope, key->text, d ? "was refused" : "is not there");
        }
        w->seen[SEEN_DEPENDENCY]++;
    }
}

/* Nothing its author had before comes after it (I9). */
static void judge_order(world *w, int scope, int64_t seq, known_op *k) {
    oracle *o = &w->oracle;
    const oracle_scope *s = &o->scopes[scope];
    if (k->passed) {
        sim_fail(w, "I9", "commit %lld of s%d comes after %lld, whose author had it before",
                 (long long)seq, scope, (long long)k->passed);
    }
    if (k->base_seq >= seq || (k->base_seq > 0 && s->salts[k->base_seq - 1] != k->base_salt)) {
        sim_fail(w, "I9", "commit %lld of s%d has seen %lld, which is not before it",
                 (long long)seq, scope, (long long)k->base_seq);
    }
    for (int at = k->previous; at; at = o->ops[at - 1].previous) {
        known_op *before = &o->ops[at - 1];
        if (before->key->decided || before->passed) {
            break;
        }
        before->passed = seq;
    }
}

/* ---- clocks ---- */

typedef struct {
    world *w;
    int scope;
} place;

static int64_t position(void *context, slice name, int64_t seq) {
    const place *p = context;
    const oracle *o = &p->w->oracle;
    for (int i = o->decision_count - 1; i >= 0; i--) {
        const decision *d = &o->decisions[i];
        if (d->scope == p->scope && d->seq == seq && slice_is(name, d->device->text)) {
            return d->commit;
        }
    }
    return 0;
}

static void clock_fail(const place *p, int64_t seq, const char *what) {
    sim_fail(p->w, "I21", "clocks of s%d at commit %lld: %s", p->scope, (long long)seq, what);
}

static vclock merged(const place *p, arena *a, const vclock *x, const vclock *y) {
    vclock out = {.floor = x->floor};
    for (size_t i = 0; i < x->count; i++) {
        if (clock_set(a, &out, x->entries[i].device, x->entries[i].version) != GODWIT_OK) {
            clock_fail(p, 0, "no memory");
        }
    }
    if (clock_merge(a, &out, y) != GODWIT_OK) {
        clock_fail(p, 0, "no memory");
    }
    return out;
}

static bool same(arena *a, const vclock *x, const vclock *y) {
    return slice_equal(clock_text(a, x), clock_text(a, y));
}

static clock_order turned(clock_order order) {
    return order == CLOCK_BEFORE ? CLOCK_AFTER : order == CLOCK_AFTER ? CLOCK_BEFORE : order;
}

/* Merging is commutative, associative, idempotent; comparing, antisymmetric; whatever is merged is
 * not after the result. */
static void judge_laws(const place *p, arena *a, int64_t seq, vclock c[3]) {
    void *context = (void *)(uintptr_t)p;
    vclock xy = merged(p, a, &c[0], &c[1]), yx = merged(p, a, &c[1], &c[0]);
    vclock yz = merged(p, a, &c[1], &c[2]);
    vclock left = merged(p, a, &xy, &c[2]), right = merged(p, a, &c[0], &yz);
    vclock again = merged(p, a, &xy, &xy);
    if (!same(a, &xy, &yx) || !same(a, &left, &right) || !same(a, &again, &xy)) {
        clock_fail(p, seq, "merging is not commutative, associative and idempotent");
    }
    for (int known = 0; known < 2; known++) {
        clock_position_fn where = known ? position : NULL;
        clock_order forth = clock_compare(&c[0], &c[1], where, context);
        if (turned(forth) != clock_compare(&c[1], &c[0], where, context)) {
            clock_fail(p, seq, "comparing depends on which comes first");
        }
        clock_order up = clock_compare(&c[0], &xy, where, context);
        if (up != CLOCK_BEFORE && up != CLOCK_EQUAL) {
            clock_fail(p, seq, "a clock is not before what it was merged into");
        }
    }
}

static void keep_clock(oracle *o, const char *text) {
    o->clocks[o->clock_at++ % CLOCKS_KEPT] = oracle_atom(o, text);
}

/* The row's clock covers the group that made it so, and does not say of another that it was
 * included before it was. */
static void judge_row_clock(const place *p, arena *a, int64_t seq, const known_op *k,
                            const decision *d) {
    int64_t oldest = d->seq - (k->seq - k->group_first); /* of its group, whichever stayed */
    const known_row *r = &p->w->oracle.rows[k->row];
    vclock clock;
    sqlite3_stmt *q = query(p->w->server.observer,
                            "SELECT vclock FROM godwit_row WHERE scope = (SELECT no FROM"
                            " godwit_name WHERE name = ?1) AND tbl = ?2 AND pk = ?3 AND ver = ?4"
                            " AND vclock IS NOT NULL");
    sqlite3_bind_text(q, 1, p->scope ? "s1" : "s0", -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 2, oracle_tables[r->table].name, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 3, r->id->text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(q, 4, seq);
    if (query_next(q)) {
        if (clock_parse(a, slice_of(query_text(q, 0)), &clock) != GODWIT_OK) {
            clock_fail(p, seq, "unreadable");
        }
        if (clock_get(&clock, slice_of(d->device->text)) < oldest && clock.floor < seq) {
            clock_fail(p, seq, "the row's clock lacks the operation that wrote it");
        }
        if (clock.floor > seq) {
            clock_fail(p, seq, "the row's clock knows the future");
        }
        keep_clock(&p->w->oracle, query_text(q, 0));
        p->w->seen[SEEN_CLOCK]++;
    }
    query_done(q);
}

static void judge_clocks(world *w, int scope, int64_t seq, const known_op *k, const decision *d) {
    arena a;
    place p = {.w = w, .scope = scope};
    vclock c[3];
    bool all = true;
    arena_init(&a, NULL, 0);
    judge_row_clock(&p, &a, seq, k, d);
    for (unsigned i = 0; i < 3; i++) {
        const atom *text = w->oracle.clocks[((unsigned)seq * (i + 1) + i) % CLOCKS_KEPT];
        all = all && text && clock_parse(&a, slice_of(text->text), &c[i]) == GODWIT_OK;
    }
    if (all) {
        judge_laws(&p, &a, seq, c);
    }
    arena_deinit(&a);
}

void oracle_order(world *w, int scope, int64_t seq, int first) {
    oracle *o = &w->oracle;
    for (int i = first; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        known_op *k = d->key->op ? &o->ops[d->key->op - 1] : NULL;
        if (!k || !oracle_effective(d)) {
            continue;
        }
        if (!o->scopes[scope].lost_history && !w->devices[k->maker].victim) {
            judge_needs(w, scope, seq, k);
            judge_order(w, scope, seq, k);
        }
        judge_clocks(w, scope, seq, k, d);
    }
}
