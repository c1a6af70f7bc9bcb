/* Names that columns have had, as the server has told them: operations that wait may use an older
 * one than the table does now, and the table of an application not yet updated an older one than
 * the server. Any name of a column then means the column the table has of it. */
#include "client/track.h"

#define META_KEY "formerNames"

/* {"pins":[["name","title"],..],..} out of the tables of a registration's answer. */
static void write_names(bytes *b, const json *tables) {
    const json *table = json_first(tables);
    bool first = true;
    bytes_char(b, '{');
    for (uint32_t i = 0; i < tables->count; i++, table = json_after(table)) {
        const json *list = json_get(table, "columns"), *column = json_first(list);
        slice entity, name;
        bool any = false;
        if (!json_text(json_get(table, "entity"), &entity) &&
            !json_text(json_get(table, "name"), &entity)) {
            continue;
        }
        for (uint32_t c = 0; json_is(list, JSON_ARRAY) && c < list->count; c++) {
            const json *former = json_get(column, "former"), *old = json_first(former);
            bool known = json_is(former, JSON_ARRAY) && json_text(json_get(column, "name"), &name);
            column = json_after(column);
            if (!known || former->count == 0) {
                continue;
            }
            if (!any) {
                json_comma(b, &first);
                json_write_text(b, entity);
            }
            bytes_text(b, any ? ",[" : ":[[");
            json_write_text(b, name);
            for (uint32_t k = 0; k < former->count; k++, old = json_after(old)) {
                if (json_text(old, &name)) {
                    bytes_char(b, ',');
                    json_write_text(b, name);
                }
            }
            bytes_char(b, ']');
            any = true;
        }
        bytes_text(b, any ? "]" : "");
    }
    bytes_char(b, '}');
}

godwit_status former_learn(godwit *g, const json *tables) {
    return registry_learn(g, META_KEY, tables, write_names);
}

/* The column the table has among these names, the newest first; the others become its former ones.
 */
static bool apply_names(client_registry *r, client_table *t, const json *names) {
    slice *former = ARENA_ARRAY(&r->memory, slice, names->count);
    const json *item = json_first(names);
    schema_column *mine = NULL;
    size_t count = 0;
    for (uint32_t i = 0; former && i < names->count; i++, item = json_after(item)) {
        slice name;
        int at = json_text(item, &name) ? schema_column_index(&t->shape, name) : -1;
        bool own = at >= 0 && slice_equal(t->shape.columns[at].name, name);
        if (own && !mine) {
            mine = &t->shape.columns[at];
        } else if (!own && json_is(item, JSON_STRING)) {
            former[count++] = name;
        }
    }
    if (former && mine) {
        mine->former = former;
        mine->former_count = count;
    }
    return former != NULL;
}

godwit_status former_apply(godwit *g, client_registry *r) {
    slice text = {0};
    const json *root = NULL;
    godwit_status status = client_meta_text(g, &r->memory, META_KEY, &text);
    if (status != GODWIT_OK || !text.ptr) {
        return status;
    }
    status = json_parse(&r->memory, text, &root, NULL);
    for (size_t i = 0; status == GODWIT_OK && i < r->count; i++) {
        schema_table *shape = &r->tables[i].shape;
        schema_column *columns = ARENA_ARRAY(&r->memory, schema_column, shape->column_count + 1);
        if (!columns) {
            return GODWIT_NOMEM;
        }
        if (shape->column_count) { /* what is declared to the server does not have them */
            memcpy(columns, shape->columns, shape->column_count * sizeof *columns);
        }
        shape->columns = columns;
        const json *list = r->tables[i].queue ? NULL : json_find(root, r->tables[i].shape.entity);
        const json *names = json_first(list);
        for (uint32_t k = 0; list && k < list->count; k++, names = json_after(names)) {
            if (!json_is(names, JSON_ARRAY) || !apply_names(r, &r->tables[i], names)) {
                return json_is(names, JSON_ARRAY) ? GODWIT_NOMEM : GODWIT_CORRUPT;
            }
        }
    }
    return status;
}
