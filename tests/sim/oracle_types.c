/* Columns whose concurrent writes commute (I22): a counter is the sum of the differences of the
 * operations with effect, a set follows add-wins, an extreme is the larger or smaller value. See
 * oracle.h.
 *
 * Sets are followed by tags, as the design has them: whoever adds an element leaves one, whoever
 * removes it takes away those that he had seen. Where the server forgets who wrote what (retention)
 * it may keep an element that was removed; then only additions are judged. */
#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

#define ELEMENTS "01234567" /* "e0".. "e7" */
#define SET_MAX  16

static int64_t number(const atom *a) {
    return strcmp(a->text, "NULL") == 0 ? 0 : strtoll(a->text, NULL, 10);
}

/* The digits of its elements, in their order. */
static void read_set(const atom *a, char out[SET_MAX]) {
    size_t count = 0;
    for (const char *c = a->text; *c && count + 1 < SET_MAX; c++) {
        if (c[0] == '"' && c[1] == 'e') {
            out[count++] = c[2];
        }
    }
    out[count] = 0;
}

static const atom *write_set(oracle *o, const char *set) {
    char text[8 * SET_MAX] = "'[";
    size_t len = 2;
    for (size_t i = 0; set[i]; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s\"e%c\"", i ? "," : "", set[i]);
    }
    snprintf(text + len, sizeof text - len, "]'");
    return oracle_atom(o, text);
}

static const atom *changed_set(oracle *o, const atom *present, const atom *old, const atom *now) {
    char there[SET_MAX], before[SET_MAX], after[SET_MAX], out[2 * SET_MAX];
    size_t count = 0;
    read_set(present, there);
    read_set(old, before);
    read_set(now, after);
    for (size_t i = 0; there[i]; i++) {
        if (!strchr(before, there[i]) || strchr(after, there[i])) {
            out[count++] = there[i];
        }
    }
    for (size_t i = 0; after[i]; i++) {
        if (!strchr(before, after[i]) && !strchr(there, after[i])) {
            out[count++] = after[i];
        }
    }
    out[count] = 0;
    return write_set(o, out);
}

static bool beyond(char kind, const atom *a, const atom *b) {
    if (strcmp(a->text, "NULL") == 0 || strcmp(b->text, "NULL") == 0) {
        return strcmp(b->text, "NULL") == 0;
    }
    return kind == 'x' ? number(a) > number(b) : number(a) < number(b);
}

const atom *oracle_commute(oracle *o, char kind, const atom *present, const atom *old,
                           const atom *now) {
    char text[32];
    if (kind == 'p' || present == old) {
        return now;
    }
    if (kind == 'c') {
        snprintf(text, sizeof text, "%lld",
                 (long long)(number(present) + number(now) - number(old)));
        return oracle_atom(o, text);
    }
    if (kind == 's') {
        return changed_set(o, present, old, now);
    }
    return beyond(kind, now, present) ? now : present;
}

/* ---- one operation with effect, alone on its row in its commit ---- */

typedef struct {
    world *w;
    int scope, author;
    int64_t seq, seen;
    const decision *d;
    const known_op *k;
    const version *before, *after;
    bool was, is; /* the row, before and after */
} step;

static bool alone(const oracle *o, int first, const known_op *k) {
    int count = 0;
    for (int i = first; i < o->decision_count; i++) {
        const atom *key = o->decisions[i].key;
        count += key->op && o->ops[key->op - 1].row == k->row;
    }
    return count == 1;
}

static void judge(const step *s, int c, const atom *want) {
    if (s->after->value[c] != want) {
        const known_row *r = &s->w->oracle.rows[s->k->row];
        sim_fail(s->w, "I22",
                 "commit %lld: %s of %s was %s, is written %s -> %s, and is %s, not %s",
                 (long long)s->seq, oracle_tables[r->table].column[c], r->id->text,
                 s->before ? s->before->value[c]->text : "nothing", s->k->old[c]->text,
                 s->k->now[c]->text, s->after->value[c]->text, want->text);
    }
    s->w->seen[SEEN_COMMUTED]++;
}

/* Others' later writes, which the author can't have known. */
static bool unseen(const step *s, int c) {
    return s->before->ver[c] > s->seen && s->before->changer[c] != s->author + 1 &&
           !(s->before->authors[c] >> s->author & 1);
}

static void judge_value(const step *s, int c, char kind) {
    const known_op *k = s->k;
    if (k->kind == 'c' && !s->was) {
        judge(s, c, k->now[c]);
    } else if (k->kind == 'u' && k->mask & k->old_mask & 1u << c && s->is) {
        if (kind == 'c' || (s->was && unseen(s, c))) {
            judge(s, c,
                  oracle_commute(&s->w->oracle, kind, s->before->value[c], k->old[c], k->now[c]));
        }
    }
}

/* ---- sets ---- */

static void add_tag(const step *s, char element) {
    oracle *o = &s->w->oracle;
    if (o->tag_count == o->tag_cap) {
        o->tag_cap = o->tag_cap ? o->tag_cap * 2 : 256;
        o->tags = realloc(o->tags, (size_t)o->tag_cap * sizeof *o->tags);
        if (!o->tags) {
            abort();
        }
    }
    o->tags[o->tag_count++] = (oracle_tag){.row = s->k->row,
                                           .author = s->author,
                                           .element = element,
                                           .commit = s->seq,
                                           .seq = s->d->seq};
}

/* Those of an element (0: of all) that the author had seen, or all of them. */
static void end_tags(const step *s, char element, bool all) {
    oracle *o = &s->w->oracle;
    for (int i = 0; i < o->tag_count; i++) {
        oracle_tag *t = &o->tags[i];
        bool seen = t->commit <= s->seen || (t->author == s->author && t->seq < s->d->seq);
        if (t->row == s->k->row && !t->gone && (!element || t->element == element) &&
            (all || seen)) {
            t->gone = s->seq;
        }
    }
}

static bool has_tag(const step *s, char element) {
    const oracle *o = &s->w->oracle;
    for (int i = 0; i < o->tag_count; i++) {
        const oracle_tag *t = &o->tags[i];
        if (t->row == s->k->row && !t->gone && t->element == element) {
            return true;
        }
    }
    return false;
}

/* false: what it means for the tags can't be told. */
static bool follow(const step *s, int c) {
    const known_op *k = s->k;
    char old[SET_MAX] = "", now[SET_MAX];
    read_set(k->now[c], now);
    if (k->kind == 'c' && !s->was) {
        end_tags(s, 0, true);
    } else if (k->kind == 'c' && (s->seen == 0 || s->w->swarm.retain)) {
        return false; /* first contact has a policy of its own, and a forgotten base is none */
    } else if (k->kind == 'c') {
        old[0] = 0; /* whoever makes what is there adds to it */
    } else if (k->kind != 'u' || !s->is || !(k->mask >> c & 1)) {
        return true;
    } else if (k->old_mask >> c & 1) {
        read_set(k->old[c], old);
    } else {
        return false;
    }
    for (const char *e = ELEMENTS; *e; e++) {
        bool added = strchr(now, *e) && !strchr(old, *e);
        if (added || (strchr(old, *e) && !strchr(now, *e))) {
            end_tags(s, *e, false);
        }
        if (added) {
            add_tag(s, *e);
        }
    }
    return true;
}

static void judge_set(const step *s, int c) {
    const known_row *r = &s->w->oracle.rows[s->k->row];
    char set[SET_MAX];
    read_set(s->after->value[c], set);
    for (const char *e = ELEMENTS; *e; e++) {
        bool there = strchr(set, *e) != NULL, tagged = has_tag(s, *e);
        if (there != tagged && (tagged || !s->w->swarm.retain)) {
            sim_fail(s->w, "I22", "commit %lld: e%c is %s %s of %s, which %s", (long long)s->seq,
                     *e, there ? "in" : "not in", oracle_tables[r->table].column[c], r->id->text,
                     there ? "nobody has added since it was removed"
                           : "was added by one whom nobody had seen who removed it");
        }
    }
    s->w->seen[SEEN_COMMUTED]++;
}

/* ---- a commit ---- */

static void judge_step(const step *s, bool single) {
    known_row *r = &s->w->oracle.rows[s->k->row];
    const oracle_table *t = &oracle_tables[r->table];
    for (int c = 0; c < t->columns; c++) {
        char kind = t->kinds[c];
        if (kind == 's') {
            bool fresh = s->k->kind == 'c' && !s->was;
            bool clear = single && follow(s, c);
            r->vague = !clear ? s->seq : fresh ? 0 : r->vague;
            if (clear && !r->vague && s->is) {
                judge_set(s, c);
            }
        } else if (kind != 'p' && single && s->is) {
            judge_value(s, c, kind);
        }
    }
}

void oracle_types(world *w, int scope, int64_t seq, int first) {
    oracle *o = &w->oracle;
    for (int i = first; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        const known_op *k = d->key->op && oracle_effective(d) ? &o->ops[d->key->op - 1] : NULL;
        if (!k || strcmp(d->outcome->text, "noop") == 0) {
            continue;
        }
        step s = {.w = w,
                  .scope = scope,
                  .author = oracle_author(o, d),
                  .seq = seq,
                  .seen = oracle_seen(o, scope, k),
                  .d = d,
                  .k = k,
                  .before = oracle_at(o, k->row, seq - 1),
                  .after = oracle_at(o, k->row, seq)};
        s.was = s.before && s.before->present;
        s.is = s.after && s.after->present;
        judge_step(&s, alone(o, first, k));
    }
}

void oracle_types_forget(oracle *o, int scope, int64_t seq) {
    int kept = 0;
    for (int i = 0; i < o->tag_count; i++) {
        oracle_tag t = o->tags[i];
        bool lost = o->rows[t.row].scope == scope && t.commit > seq;
        t.gone = o->rows[t.row].scope == scope && t.gone > seq ? 0 : t.gone;
        if (!lost) {
            o->tags[kept++] = t;
        }
    }
    o->tag_count = kept;
}
