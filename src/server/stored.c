/* The stored texts, read strictly: what a store wrote itself and does not understand is corruption.
 */
#include "server/stored.h"

godwit_status stored_meta_read(arena *a, slice text, const schema_table *t, merge_meta *out) {
    const json *root = NULL;
    if (text.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, text, &root, NULL);
    if (status != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
        return status == GODWIT_NOMEM ? status : GODWIT_CORRUPT;
    }
    const json *key = json_first(root);
    for (uint32_t i = 0; i < root->count; i++) {
        const json *entry = key + 1;
        int column = schema_column_index(t, key->u.s);
        key = json_after(entry);
        if (column < 0) {
            continue; /* no longer synced */
        }
        if (!json_is(entry, JSON_ARRAY) || entry->count < 4 || entry->count > 5) {
            return GODWIT_CORRUPT;
        }
        const json *item = json_first(entry);
        merge_meta *meta = &out[column];
        if (!json_int(item, &meta->ver) || !json_int(item + 1, &meta->at_ms) ||
            !json_text(item + 2, &meta->device) || !json_int(item + 3, &meta->seq)) {
            return GODWIT_CORRUPT;
        }
        meta->tags = entry->count == 5 ? (item + 4)->u.s : (slice){0};
    }
    return GODWIT_OK;
}

void stored_meta_write(bytes *b, slice json_key, const merge_meta *m) {
    bytes_slice(b, json_key);
    bytes_char(b, '[');
    bytes_int(b, m->ver);
    bytes_char(b, ',');
    bytes_int(b, m->at_ms);
    bytes_char(b, ',');
    json_write_text(b, m->device);
    bytes_char(b, ',');
    bytes_int(b, m->seq);
    if (m->tags.len) {
        bytes_char(b, ',');
        bytes_slice(b, m->tags);
    }
    bytes_char(b, ']');
}

godwit_status stored_image_read(arena *a, slice text, const schema_table *t, value *out) {
    const json *root = NULL;
    if (text.len == 0) {
        return GODWIT_OK;
    }
    godwit_status status = json_parse(a, text, &root, NULL);
    if (status != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
        return status == GODWIT_NOMEM ? status : GODWIT_CORRUPT;
    }
    const json *key = json_first(root);
    for (uint32_t i = 0; status == GODWIT_OK && i < root->count; i++) {
        const json *node = key + 1;
        int column = schema_column_index(t, key->u.s);
        key = json_after(node);
        if (column >= 0) {
            status = value_from_json(a, node, &out[column]);
        }
    }
    return status == GODWIT_INVALID ? GODWIT_CORRUPT : status;
}

void stored_reference_write(bytes *b, const schema_table *child, const schema_fk *fk) {
    bytes_slice(b, child->name);
    bytes_char(b, '(');
    for (size_t i = 0; i < fk->count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_slice(b, child->columns[fk->columns[i]].name);
    }
    bytes_text(b, ") refers to ");
    bytes_slice(b, fk->table);
    bytes_char(b, '(');
    for (size_t i = 0; i < fk->count; i++) {
        bytes_text(b, i ? ", " : "");
        bytes_slice(b, fk->ref_columns[i]);
    }
    bytes_char(b, ')');
}
