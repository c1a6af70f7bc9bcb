/* Conflicts under the policy custom: the unit becomes a question, its answer the unit's values.
 *
 * The question holds what the unit says and nothing else. Times are left out: they are corrected by
 * the server's clock, so that the same conflict would ask something else on each try. */
#include "core/decide_inner.h"

const value *decide_custom(decide_work *w, const decide_input *in) {
    const decide_columns *u = &w->unit;
    bytes *b = &w->scratch;
    bool first = true;
    if (!w->c->asks) {
        return NULL;
    }
    bytes_clear(b);
    ask_begin(b, &(ask_head){.hook = SLICE("resolve"),
                             .rule = u->rule,
                             .scope = w->c->scope,
                             .table = in->table->name,
                             .id = in->op->entity_id});
    for (size_t i = 0; i < u->merge.count; i++) {
        ask_column(b, &first, in->table->columns[u->columns[i]].name,
                   u->old_known[i] ? &u->old[i] : NULL, &u->theirs[i], &u->ours[i]);
    }
    ask_end(b);
    if (b->failed) {
        return NULL; /* noticed at the end of the group */
    }
    const ask_item *item = ask_find(w->c->asks, bytes_view(b), u->merge.count);
    return item && item->state == ASK_VALUES ? item->values : NULL;
}

const char *decide_custom_name(decide_work *w) {
    slice rule = w->unit.rule;
    return rule.len ? arena_printf(w->c->a, "custom:%.*s", SLICE_ARG(rule)) : "custom";
}
