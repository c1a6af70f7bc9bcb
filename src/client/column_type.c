/* Column types as the server has told them (counter, set, max, min): remembered per entity, so that
 * waiting operations are shown over a row that others have changed as the server will merge them.
 *
 * Nothing that travels depends on them. A device that has not been told yet shows the operation's
 * own value until the server's arrives. */
#include "client/track.h"

#define META_KEY "columnTypes"

/* {"pins":{"visits":"counter"},..} out of the tables of a registration's answer. */
static void write_types(bytes *b, const json *tables) {
    const json *table = json_first(tables);
    bool first = true;
    bytes_char(b, '{');
    for (uint32_t i = 0; i < tables->count; i++, table = json_after(table)) {
        const json *list = json_get(table, "columns"), *column = json_first(list);
        slice name, type;
        bool any = false, first_column = true;
        if (!json_text(json_get(table, "entity"), &name) &&
            !json_text(json_get(table, "name"), &name)) {
            continue;
        }
        for (uint32_t c = 0; json_is(list, JSON_ARRAY) && c < list->count; c++) {
            if (json_text(json_get(column, "merge"), &type) &&
                schema_policy_of_type(type) != POLICY_LWW) {
                if (!any) {
                    json_comma(b, &first);
                    json_write_text(b, name);
                    bytes_text(b, ":{");
                }
                any = json_text(json_get(column, "name"), &name) || any;
                json_comma(b, &first_column);
                json_write_text(b, name);
                bytes_char(b, ':');
                json_write_text(b, type);
            }
            column = json_after(column);
        }
        bytes_text(b, any ? "}" : "");
    }
    bytes_char(b, '}');
}

godwit_status column_types_learn(godwit *g, const json *tables) {
    return registry_learn(g, META_KEY, tables, write_types);
}

static bool apply(client_registry *r, client_table *t, const json *types) {
    slice type = {0};
    for (size_t i = 0; json_is(types, JSON_OBJECT) && i < t->data_count; i++) {
        const schema_column *column = &t->shape.columns[t->data_columns[i]];
        if (!json_text(json_find(types, column->name), &type)) {
            continue;
        }
        t->types = t->types ? t->types : ARENA_ARRAY(&r->memory, merge_policy, t->data_count);
        if (!t->types) {
            return false;
        }
        t->types[i] = schema_policy_of_type(type);
    }
    return true;
}

godwit_status column_types_apply(godwit *g, client_registry *r) {
    slice text = {0};
    const json *root = NULL;
    godwit_status status = client_meta_text(g, &r->memory, META_KEY, &text);
    if (status != GODWIT_OK || !text.ptr) {
        return status;
    }
    status = json_parse(&r->memory, text, &root, NULL);
    bool ok = status == GODWIT_OK;
    for (size_t i = 0; ok && i < r->count; i++) {
        ok = r->tables[i].queue ||
             apply(r, &r->tables[i], json_find(root, r->tables[i].shape.entity));
    }
    return ok || status != GODWIT_OK ? status : GODWIT_NOMEM;
}
