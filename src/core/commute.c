/* Counters, sets, extremes: what is there, what an operation's author saw and left -> what is there
 * then. Elements of sets are compared by their JSON text, as written here. */
#include "core/commute.h"

#include <math.h>

#include "core/limits.h"

/* ---- Counters ---- */

static bool numeric(const value *v) {
    return v->type == VALUE_NULL || v->type == VALUE_INT || v->type == VALUE_REAL;
}

static double as_real(const value *v) {
    return v->type == VALUE_REAL ? v->u.d : v->type == VALUE_INT ? (double)v->u.i : 0;
}

static int64_t as_int(const value *v) {
    return v->type == VALUE_INT ? v->u.i : 0;
}

static bool add(int64_t a, int64_t b, int64_t *out) {
    if ((b > 0 && a > INT64_MAX - b) || (b < 0 && a < INT64_MIN - b)) {
        return false;
    }
    *out = a + b;
    return true;
}

static bool subtract(int64_t a, int64_t b, int64_t *out) {
    if ((b < 0 && a > INT64_MAX + b) || (b > 0 && a < INT64_MIN + b)) {
        return false;
    }
    *out = a - b;
    return true;
}

/* present + now - old. The three partial sums are tried in another order where the first one leaves
 * the range on the way. */
static commute_result sum(const value *present, const value *old, const value *now, value *out) {
    if (present->type == VALUE_REAL || old->type == VALUE_REAL || now->type == VALUE_REAL) {
        double d = as_real(present) + (as_real(now) - as_real(old));
        *out = (value){.type = VALUE_REAL, .u.d = d};
        return isfinite(d) ? COMMUTE_OK : COMMUTE_BAD;
    }
    int64_t p = as_int(present), o = as_int(old), n = as_int(now), part = 0, total = 0;
    bool fits = (subtract(n, o, &part) && add(p, part, &total)) ||
                (subtract(p, o, &part) && add(part, n, &total)) ||
                (add(p, n, &part) && subtract(part, o, &total));
    *out = (value){.type = VALUE_INT, .u.i = total};
    return fits ? COMMUTE_OK : COMMUTE_BAD;
}

/* {"$inc":n}, and nothing else in it. */
static bool increment(const value *v, value *out) {
    if (v->type != VALUE_SPECIAL || !json_is(v->u.node, JSON_OBJECT) || v->u.node->count != 1) {
        return false;
    }
    const json *n = json_get(v->u.node, "$inc");
    if (json_is(n, JSON_INT)) {
        *out = (value){.type = VALUE_INT, .u.i = n->u.i};
    } else if (json_is(n, JSON_REAL)) {
        *out = (value){.type = VALUE_REAL, .u.d = n->u.d};
    } else {
        return false;
    }
    return true;
}

commute_result commute_counter(const value *present, const value *old, const value *now,
                               value *out) {
    static const value zero = {.type = VALUE_NULL};
    value by;
    if (now->type == VALUE_SPECIAL) {
        return increment(now, &by) && numeric(present) ? sum(present, &zero, &by, out)
                                                       : COMMUTE_BAD;
    }
    if (!numeric(now)) {
        return COMMUTE_BAD;
    }
    *out = *now; /* exactly what the author left, where he saw what is there */
    if (!old || !numeric(old) || !numeric(present)) {
        return COMMUTE_PLAIN;
    }
    return value_equal(present, old) ? COMMUTE_OK : sum(present, old, now, out);
}

/* ---- Sets ---- */

typedef struct {
    slice *items; /* JSON texts */
    size_t count;
} elements;

static bool has(const elements *set, slice item) {
    for (size_t i = 0; i < set->count; i++) {
        if (slice_equal(set->items[i], item)) {
            return true;
        }
    }
    return false;
}

/* One text for each scalar, however it was written. */
static slice element_text(arena *a, const json *node) {
    bytes b;
    bytes_init(&b, a->allocator, 0);
    switch ((json_type)node->type) {
    case JSON_NULL:
        bytes_text(&b, "null");
        break;
    case JSON_FALSE:
    case JSON_TRUE:
        json_write_bool(&b, node->type == JSON_TRUE);
        break;
    case JSON_INT:
        json_write_int(&b, node->u.i);
        break;
    case JSON_REAL:
        json_write_real(&b, node->u.d);
        break;
    case JSON_STRING:
        json_write_text(&b, node->u.s);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break; /* stays empty: not an element */
    }
    a->failed = a->failed || b.failed; /* no memory is not a bad element */
    slice text = b.failed || !b.len ? (slice){0} : arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    return text;
}

static commute_result read_array(arena *a, const json *list, elements *out) {
    *out = (elements){0};
    if (!list) {
        return COMMUTE_OK;
    }
    if (!json_is(list, JSON_ARRAY) || list->count > SET_ELEMENTS_MAX) {
        return COMMUTE_BAD;
    }
    out->items = ARENA_ARRAY(a, slice, list->count + 1);
    if (!out->items) {
        return COMMUTE_NOMEM;
    }
    const json *item = json_first(list);
    for (uint32_t i = 0; i < list->count; i++, item = json_after(item)) {
        slice text = element_text(a, item);
        if (!text.ptr) {
            return a->failed ? COMMUTE_NOMEM : COMMUTE_BAD;
        }
        if (!has(out, text)) {
            out->items[out->count++] = text;
        }
    }
    return COMMUTE_OK;
}

static commute_result read_set(arena *a, const value *v, elements *out) {
    const json *root = NULL;
    *out = (elements){0};
    if (!v || v->type == VALUE_NULL) {
        return COMMUTE_OK;
    }
    if (v->type != VALUE_TEXT) {
        return COMMUTE_BAD;
    }
    godwit_status status = json_parse(a, v->u.s, &root, NULL);
    if (status == GODWIT_NOMEM) {
        return COMMUTE_NOMEM;
    }
    return status == GODWIT_OK ? read_array(a, root, out) : COMMUTE_BAD;
}

/* What an operation adds and removes. */
typedef struct {
    elements added, removed;
    const value *exact; /* the value that its author left, NULL = not told */
} difference;

static commute_result read_members(arena *a, const value *now, difference *out) {
    const json *node = now->u.node;
    const json *added = json_get(node, "$add"), *removed = json_get(node, "$remove");
    uint32_t members = (added != NULL) + (uint32_t)(removed != NULL);
    if (!json_is(node, JSON_OBJECT) || node->count != members || members == 0) {
        return COMMUTE_BAD;
    }
    commute_result result = read_array(a, added, &out->added);
    return result == COMMUTE_OK ? read_array(a, removed, &out->removed) : result;
}

/* what is in `from` and not in `without` */
static bool subtract_set(arena *a, const elements *from, const elements *without, elements *out) {
    *out = (elements){.items = ARENA_ARRAY(a, slice, from->count + 1)};
    for (size_t i = 0; out->items && i < from->count; i++) {
        if (!has(without, from->items[i])) {
            out->items[out->count++] = from->items[i];
        }
    }
    return out->items != NULL;
}

static commute_result read_difference(arena *a, const value *old, const value *now,
                                      difference *out) {
    elements before, after;
    *out = (difference){0};
    if (now->type == VALUE_SPECIAL) {
        return read_members(a, now, out);
    }
    commute_result result = read_set(a, now, &after);
    if (result != COMMUTE_OK) {
        return result;
    }
    result = read_set(a, old, &before);
    if (result == COMMUTE_BAD) {
        return COMMUTE_PLAIN; /* it was no set before */
    }
    out->exact = now;
    if (result == COMMUTE_OK && (!subtract_set(a, &after, &before, &out->added) ||
                                 !subtract_set(a, &before, &after, &out->removed))) {
        result = COMMUTE_NOMEM;
    }
    return result;
}

static commute_result write_set(arena *a, const elements *set, value *out) {
    bytes b;
    bytes_init(&b, a->allocator, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < set->count; i++) {
        bytes_text(&b, i ? "," : "");
        bytes_slice(&b, set->items[i]);
    }
    bytes_char(&b, ']');
    *out = (value){.type = VALUE_TEXT};
    a->failed = a->failed || b.failed;
    out->u.s = b.failed ? (slice){0} : arena_copy(a, bytes_view(&b));
    bytes_deinit(&b);
    if (!out->u.s.ptr) {
        return COMMUTE_NOMEM;
    }
    return set->count > SET_ELEMENTS_MAX ? COMMUTE_BAD : COMMUTE_OK;
}

/* The set's new value: as the author wrote it, where he saw what was there and all of it came true.
 */
static commute_result result_of(arena *a, const value *present, const value *old,
                                const difference *d, const elements *set, value *out) {
    static const value nothing = {.type = VALUE_NULL};
    elements told;
    if (d->exact && value_equal(present, old ? old : &nothing)) {
        commute_result result = read_set(a, d->exact, &told);
        bool same = result == COMMUTE_OK && told.count == set->count;
        for (size_t i = 0; same && i < told.count; i++) {
            same = has(set, told.items[i]);
        }
        if (result != COMMUTE_OK || same) {
            *out = *d->exact;
            return result;
        }
    }
    return write_set(a, set, out);
}

/* ---- Tags ---- */

/* {"\"red\"":[[12,"device",4],..],..}: for every element the writes that added it */
static bool seen(const commute_author *author, const merge_meta *tag) {
    return tag->ver == author->commit ||
           !merge_newer(tag, author->eff_base, author->device, author->seq);
}

static void write_tag(bytes *b, bool *first, const merge_meta *tag) {
    json_comma(b, first);
    bytes_char(b, '[');
    bytes_int(b, tag->ver);
    bytes_char(b, ',');
    json_write_text(b, tag->device);
    bytes_char(b, ',');
    bytes_int(b, tag->seq);
    bytes_char(b, ']');
}

static bool read_tag(const json *node, merge_meta *out) {
    *out = (merge_meta){0};
    return json_is(node, JSON_ARRAY) && node->count == 3 && json_int(json_first(node), &out->ver) &&
           json_text(json_first(node) + 1, &out->device) &&
           json_int(json_first(node) + 2, &out->seq);
}

typedef struct {
    arena *a;
    const commute_set_write *w;
    const json *tags; /* NULL = every element has the inherited one */
    difference d;
    bytes text; /* the new tags */
    bool first; /* of the elements in it */
    elements set;
} rewrite;

/* The tags an element keeps, and whether it stays. */
static void keep_element(rewrite *r, slice item, bool present) {
    const commute_author *author = &r->w->author;
    bool added = has(&r->d.added, item), removed = has(&r->d.removed, item);
    bool touched = added || removed, first_tag = true;
    size_t start = r->text.len;
    bool first_before = r->first;
    json_comma(&r->text, &r->first);
    json_write_text(&r->text, item);
    bytes_text(&r->text, ":[");
    const json *list = r->tags ? json_find(r->tags, item) : NULL, *tag = json_first(list);
    merge_meta meta;
    for (uint32_t i = 0; present && list && i < list->count; i++, tag = json_after(tag)) {
        if (read_tag(tag, &meta) && !(touched && seen(author, &meta))) {
            write_tag(&r->text, &first_tag, &meta);
        }
    }
    if (present && !list && !(touched && seen(author, r->w->inherited))) {
        write_tag(&r->text, &first_tag, r->w->inherited);
    }
    if (added) {
        meta = (merge_meta){.ver = author->commit, .device = author->device, .seq = author->seq};
        write_tag(&r->text, &first_tag, &meta);
    }
    bytes_char(&r->text, ']');
    if (first_tag) { /* no tag is left */
        r->text.len = start;
        r->first = first_before;
    } else {
        r->set.items[r->set.count++] = item;
    }
}

static commute_result rewrite_set(rewrite *r, const elements *present, slice *tags_out) {
    r->set.items = ARENA_ARRAY(r->a, slice, present->count + r->d.added.count + 1);
    if (!r->set.items) {
        return COMMUTE_NOMEM;
    }
    bytes_init(&r->text, r->a->allocator, 0);
    bytes_char(&r->text, '{');
    r->first = true;
    for (size_t i = 0; i < present->count; i++) {
        keep_element(r, present->items[i], true);
    }
    for (size_t i = 0; i < r->d.added.count; i++) {
        if (!has(present, r->d.added.items[i])) {
            keep_element(r, r->d.added.items[i], false);
        }
    }
    bytes_char(&r->text, '}');
    r->a->failed = r->a->failed || r->text.failed;
    *tags_out = r->text.failed ? (slice){0} : arena_copy(r->a, bytes_view(&r->text));
    bytes_deinit(&r->text);
    return tags_out->ptr ? COMMUTE_OK : COMMUTE_NOMEM;
}

commute_result commute_set(arena *a, const commute_set_write *write, value *out, slice *tags_out) {
    rewrite r = {.a = a, .w = write};
    elements present;
    *tags_out = (slice){0};
    *out = *write->now;
    commute_result result = read_difference(a, write->old, write->now, &r.d);
    if (result != COMMUTE_OK) {
        return result;
    }
    result = read_set(a, write->present, &present);
    if (result == COMMUTE_BAD) {
        return write->now->type == VALUE_SPECIAL ? COMMUTE_BAD : COMMUTE_PLAIN;
    }
    if (result == COMMUTE_OK && write->tags.len) {
        godwit_status status = json_parse(a, write->tags, &r.tags, NULL);
        result = status == GODWIT_NOMEM ? COMMUTE_NOMEM : COMMUTE_OK;
    }
    if (result == COMMUTE_OK) {
        result = rewrite_set(&r, &present, tags_out);
    }
    return result == COMMUTE_OK ? result_of(a, write->present, write->old, &r.d, &r.set, out)
                                : result;
}

/* ---- Either ---- */

commute_result commute_first(arena *a, merge_policy policy, const value *now, value *out) {
    static const value nothing = {.type = VALUE_NULL};
    *out = *now;
    if (policy == POLICY_COUNTER) {
        return commute_counter(&nothing, &nothing, now, out);
    }
    if (policy != POLICY_SET) {
        return now->type == VALUE_SPECIAL ? COMMUTE_BAD : COMMUTE_OK;
    }
    difference d;
    commute_result result = read_difference(a, &nothing, now, &d);
    return result == COMMUTE_OK && !d.exact ? write_set(a, &d.added, out) : result;
}

static commute_result replay_extreme(merge_policy policy, const value *present, const value *now,
                                     value *out) {
    if (now->type == VALUE_SPECIAL) {
        return COMMUTE_PLAIN;
    }
    *out = merge_extreme(policy, now, present) ? *now : *present;
    return COMMUTE_OK;
}

commute_result commute_replay(arena *a, merge_policy policy, const value *present, const value *old,
                              const value *now, value *out) {
    const merge_meta everybody = {0};
    commute_set_write write = {.present = present, .old = old, .now = now, .inherited = &everybody};
    commute_result result = COMMUTE_PLAIN;
    slice tags;
    if (policy == POLICY_COUNTER) {
        result = commute_counter(present, old, now, out);
    } else if (policy == POLICY_SET && (old || now->type == VALUE_SPECIAL)) {
        result = commute_set(a, &write, out, &tags);
    } else if ((policy == POLICY_MAX || policy == POLICY_MIN) && old &&
               !value_equal(old, present)) {
        result = replay_extreme(policy, present, now, out);
    }
    return result == COMMUTE_BAD && now->type != VALUE_SPECIAL ? COMMUTE_PLAIN : result;
}
