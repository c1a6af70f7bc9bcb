/* Questions for rules of somebody else's, see ask.h. The list is searched from where the last one
 * was found: a push is decided in the same order each time. */
#include "core/ask.h"

#include "core/limits.h"

static uint64_t hash_of(slice text) {
    const value v = {.type = VALUE_TEXT, .u.s = text};
    return value_hash(&v, 0);
}

static bool grow(ask_list *l) {
    if (l->count < l->cap) {
        return true;
    }
    size_t cap = l->cap ? l->cap * 2 : 8;
    ask_item *items = ARENA_ARRAY(l->a, ask_item, cap);
    if (!items) {
        return false;
    }
    if (l->count > 0) {
        memcpy(items, l->items, l->count * sizeof *items);
    }
    l->items = items;
    l->cap = cap;
    return true;
}

static void add(ask_list *l, slice question, uint64_t hash, size_t count) {
    if (l->closed || question.len > HOOK_TEXT_MAX || l->bytes + question.len > HOOK_LIST_MAX ||
        !grow(l)) {
        return;
    }
    slice copy = arena_copy(l->a, question);
    if (copy.ptr) {
        l->items[l->count++] = (ask_item){.question = copy, .hash = hash, .count = count};
        l->bytes += question.len;
        l->waiting++;
    }
}

const ask_item *ask_find(ask_list *l, slice question, size_t count) {
    uint64_t hash = hash_of(question);
    for (size_t i = 0; i < l->count; i++) {
        size_t place = (l->at + i) % l->count;
        const ask_item *item = &l->items[place];
        if (item->hash == hash && slice_equal(item->question, question)) {
            l->at = place + 1;
            bool waits = item->state == ASK_WAITING;
            l->waiting += waits && !l->closed;
            return waits ? NULL : item;
        }
    }
    add(l, question, hash, count);
    return NULL;
}

static void member(bytes *b, bool *first, const char *name, slice text) {
    if (text.len > 0) {
        json_key(b, first, name);
        json_write_text(b, text);
    }
}

void ask_begin(bytes *b, const ask_head *h) {
    bool first = true;
    bytes_char(b, '{');
    member(b, &first, "hook", h->hook);
    member(b, &first, "rule", h->rule);
    member(b, &first, "scope", h->scope);
    member(b, &first, "table", h->table);
    member(b, &first, "id", h->id);
    member(b, &first, "user", h->user);
    member(b, &first, "device", h->device);
    member(b, &first, "kind", h->kind);
    json_key(b, &first, "columns");
    bytes_char(b, '[');
}

static void side(bytes *b, const char *name, const value *v) {
    bool first = false;
    if (!v) {
        return;
    }
    json_key(b, &first, name);
    value_to_json(b, v);
}

void ask_column(bytes *b, bool *first, slice name, const value *base, const value *theirs,
                const value *ours) {
    json_comma(b, first);
    bytes_text(b, "{\"name\":");
    json_write_text(b, name);
    side(b, "base", base);
    side(b, "theirs", theirs);
    side(b, "ours", ours);
    bytes_char(b, '}');
}

void ask_end(bytes *b) {
    bytes_text(b, "]}");
}
