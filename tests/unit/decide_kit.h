/* A small world for tests of decide: tables with one column of every policy, operations from JSON
 * texts, one device, commits with predictable salts. Header only; everything static. */
#ifndef TESTS_DECIDE_KIT_H
#define TESTS_DECIDE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/decide.h"
#include "core/limits.h"

#define KIT_NOW       1000000
#define KIT_SALT(seq) ((seq)*7 + 1)
#define KIT_UNUSED    __attribute__((unused))

enum { PINS, FORMS, CELLS, FILES, TENANTS, TABLES };

typedef struct {
    arena a;
    schema_table tables[TABLES];
    schema schema;
    decide_context c;
    decide_device device;
    push_request request;
    decide_salt *salts;
    uint64_t ops_made;
} kit;

static schema_column kit_pins[] = {
    {.name = {"id", 2}, .type = {"TEXT", 4}, .is_key = true},
    {.name = {"title", 5}, .policy = POLICY_LWW},
    {.name = {"note", 4}, .policy = POLICY_LWW},
    {.name = {"lat", 3}, .group = 1},
    {.name = {"lng", 3}, .group = 1},
    {.name = {"high", 4}, .policy = POLICY_MAX},
    {.name = {"low", 3}, .policy = POLICY_MIN},
    {.name = {"checked", 7}, .policy = POLICY_MANUAL},
    {.name = {"owner", 5}, .policy = POLICY_SERVER_WINS},
    {.name = {"tag", 3}, .policy = POLICY_CLIENT_WINS},
    {.name = {"stamp", 5}, .local = true},
    {.name = {"count", 5}, .policy = POLICY_COUNTER},
    {.name = {"labels", 6}, .policy = POLICY_SET},
};
static schema_column kit_forms[] = {
    {.name = {"id", 2}, .is_key = true},
    {.name = {"pin_id", 6}},
    {.name = {"body", 4}},
};
static schema_column kit_cells[] = {
    {.name = {"x", 1}, .is_key = true},
    {.name = {"y", 1}, .is_key = true},
    {.name = {"v", 1}},
};
static schema_column kit_files[] = {
    {.name = {"h", 1}, .is_key = true},
    {.name = {"name", 4}},
};
static schema_column kit_tenants[] = {
    {.name = {"id", 2}, .is_key = true},
    {.name = {"tenant", 6}},
    {.name = {"v", 1}},
};
static const int kit_fk_columns[] = {1};
static const slice kit_fk_refs[] = {{"id", 2}};
static schema_fk kit_forms_fk[] = {{.table = {"pins", 4},
                                    .columns = kit_fk_columns,
                                    .ref_columns = kit_fk_refs,
                                    .count = 1,
                                    .on_delete = {"CASCADE", 7}}};

static KIT_UNUSED void kit_table(kit *k, int number, const char *name, schema_column *columns,
                                 size_t count) {
    schema_table *t = &k->tables[number];
    *t = (schema_table){.name = slice_of(name),
                        .entity = slice_of(name),
                        .columns = columns,
                        .column_count = count,
                        .key_count = 1,
                        .key_kinds = {KEY_TEXT},
                        .scope_column = -1,
                        .initial_column = -1,
                        .deleted_column = -1,
                        .created_by_device_column = -1,
                        .updated_at_column = -1,
                        .vector_clock_column = -1,
                        .number = number};
}

/* A scope whose head is `head`, with no rows, and an active device "dev" that has sent nothing. */
static KIT_UNUSED void kit_init(kit *k, int64_t head) {
    memset(k, 0, sizeof *k);
    arena_init(&k->a, NULL, 0);
    kit_table(k, PINS, "pins", kit_pins, COUNT_OF(kit_pins));
    kit_table(k, FORMS, "forms", kit_forms, COUNT_OF(kit_forms));
    kit_table(k, CELLS, "cells", kit_cells, COUNT_OF(kit_cells));
    kit_table(k, FILES, "files", kit_files, COUNT_OF(kit_files));
    kit_table(k, TENANTS, "tenants", kit_tenants, COUNT_OF(kit_tenants));
    k->tables[FORMS].fks = kit_forms_fk;
    k->tables[FORMS].fk_count = 1;
    k->tables[CELLS].key_count = 2;
    k->tables[CELLS].key[1] = 1;
    k->tables[CELLS].key_kinds[0] = KEY_INTEGER;
    k->tables[FILES].key_kinds[0] = KEY_BLOB;
    k->tables[TENANTS].scope_column = 1;
    k->schema = (schema){.tables = k->tables, .table_count = TABLES, .version = 1};
    k->salts = ARENA_ARRAY(&k->a, decide_salt, (size_t)head + 1);
    for (int64_t i = 0; i < head; i++) {
        k->salts[i] = (decide_salt){i + 1, KIT_SALT(i + 1)};
    }
    k->c = (decide_context){.a = &k->a,
                            .schema = &k->schema,
                            .scope = SLICE("s1"),
                            .head = head,
                            .now_ms = KIT_NOW,
                            .salts = k->salts,
                            .salt_count = (size_t)head};
    assert_int_equal(decide_init(&k->c, 16), GODWIT_OK);
    k->device = (decide_device){.device_id = SLICE("dev"), .user_id = SLICE("alice")};
    k->request = (push_request){.device_id = SLICE("dev"), .stream = true, .wall_ms = KIT_NOW};
}

static KIT_UNUSED void kit_deinit(kit *k) {
    arena_deinit(&k->a);
}

static KIT_UNUSED const json *kit_json(kit *k, const char *text) {
    const json *node;
    slice copy = arena_copy(&k->a, slice_of(text));
    assert_int_equal(json_parse(&k->a, copy, &node, NULL), GODWIT_OK);
    return node;
}

static KIT_UNUSED value kit_value(kit *k, const char *text) {
    value v;
    assert_int_equal(value_from_json(&k->a, kit_json(k, text), &v), GODWIT_OK);
    return v;
}

static KIT_UNUSED int kit_column(const schema_table *t, slice name) {
    int column = schema_column_index(t, name);
    assert_true(column >= 0);
    return column;
}

/* Sets columns of a row from a JSON object. */
static KIT_UNUSED void kit_values(kit *k, decide_row *row, const json *object) {
    const json *key = json_first(object);
    for (uint32_t i = 0; object && i < object->count; i++) {
        int column = kit_column(row->table, key->u.s);
        assert_int_equal(value_from_json(&k->a, key + 1, &row->row.values[column]), GODWIT_OK);
        key = json_after(key + 1);
    }
}

/* A live row as loaded: created in commit `ver` by `device` (its operation seq). */
static KIT_UNUSED decide_row *kit_row(kit *k, int table, const char *id, const char *values,
                                      int64_t ver, const char *device, int64_t seq) {
    decide_row *row = decide_row_of(&k->c, &k->tables[table], slice_of(id));
    row->row.exists = true;
    row->row.ver = row->row.created_ver = ver;
    row->row.gen = 1;
    row->row.created =
        (merge_meta){.ver = ver, .at_ms = ver * 10, .device = slice_of(device), .seq = seq};
    kit_values(k, row, kit_json(k, values));
    if (device[0]) {
        assert_int_equal(clock_set(&k->a, &row->clock, slice_of(device), seq), GODWIT_OK);
    } else {
        row->clock.floor = ver;
    }
    return row;
}

/* A column written later, in commit `ver`. */
static KIT_UNUSED void kit_edit(kit *k, decide_row *row, const char *column, const char *v,
                                int64_t ver, int64_t at_ms, const char *device, int64_t seq) {
    int index = kit_column(row->table, slice_of(column));
    row->row.values[index] = kit_value(k, v);
    row->row.meta[index] =
        (merge_meta){.ver = ver, .at_ms = at_ms, .device = slice_of(device), .seq = seq};
    if (row->row.ver < ver) {
        row->row.ver = ver;
    }
}

static KIT_UNUSED void kit_tombstone(decide_row *row, int64_t ver, const char *device) {
    row->row.deleted = true;
    row->row.del_ver = row->row.ver = ver;
    row->row.del_device = slice_of(device);
}

/* An operation of the stream; base: a commit number (its salt is right), texts may be NULL. */
static KIT_UNUSED wire_op kit_op(kit *k, op_kind kind, const char *entity, const char *id,
                                 int64_t base, const char *payload, const char *old) {
    wire_op op = {.kind = kind,
                  .entity_type = slice_of(entity),
                  .entity_id = slice_of(id),
                  .base_seq = base,
                  .base_salt = base ? KIT_SALT(base) : 0,
                  .wall_ms = KIT_NOW - 500,
                  .lineage = SLICE("dev"),
                  .base_commit = -1};
    op.payload = slice_of(payload ? payload : "{}");
    op.base = slice_of(old ? old : "{}");
    op.payload_node = kit_json(k, payload ? payload : "{}");
    op.base_node = kit_json(k, old ? old : "{}");
    op.lsn = (int64_t)++k->ops_made;
    memcpy(op.key, &k->ops_made, sizeof k->ops_made);
    return op;
}

/* Gives a group its place behind what the device has sent, and decides it. */
static KIT_UNUSED decide_commit kit_group(kit *k, wire_op *ops, size_t count) {
    decide_commit out;
    for (size_t i = 0; i < count && k->request.stream; i++) {
        ops[i].seq = k->device.applied_seq + 1 + (int64_t)i;
        ops[i].group_first = k->device.applied_seq + 1;
        ops[i].group_size = (int64_t)count;
    }
    assert_int_equal(
        decide_group(&k->c, &k->device, &k->request, ops, count, NULL, false, NULL, &out),
        GODWIT_OK);
    assert_int_equal(out.result_count, count);
    assert_int_equal(out.commit_seq, k->c.head);
    return out;
}

/* The device stands at seq, so that its next operation is seq + 1. */
static KIT_UNUSED void kit_stand_at(kit *k, int64_t seq) {
    k->device.applied_seq = seq;
    k->device.has_last_key = seq > 0;
}

static KIT_UNUSED bool value_is(const decide_row *row, const char *column, const char *text) {
    bytes b;
    bytes_init(&b, NULL, 0);
    value_to_json(&b, &row->row.values[kit_column(row->table, slice_of(column))]);
    bool equal = slice_is(bytes_view(&b), text);
    if (!equal) {
        print_message("%s is " SLICE_FMT ", not %s\n", column, SLICE_ARG(bytes_view(&b)), text);
    }
    bytes_deinit(&b);
    return equal;
}

/* Everything a commit says, as text: for comparing plans byte by byte. */
static KIT_UNUSED void plan_write(bytes *b, const decide_commit *commit) {
    bytes_printf(b, "commit %lld %s %lld-%lld at %lld\n", (long long)commit->commit_seq,
                 op_outcome_name(commit->outcome), (long long)commit->first_seq,
                 (long long)commit->last_seq, (long long)commit->at_ms);
    for (size_t i = 0; i < commit->result_count; i++) {
        const decide_result *r = &commit->results[i];
        const char *code = op_code_name(r->code);
        bytes_printf(b, " result %s %s " SLICE_FMT " row=%d " SLICE_FMT " " SLICE_FMT "\n",
                     op_outcome_name(r->outcome), code ? code : "-", SLICE_ARG(r->detail),
                     r->row != NULL, SLICE_ARG(r->conflicts_json), SLICE_ARG(r->clock_json));
    }
    for (size_t i = 0; i < commit->change_count; i++) {
        const decide_change *c = &commit->changes[i];
        bytes_printf(b, " %s " SLICE_FMT "/" SLICE_FMT " full=%d prev=%lld " SLICE_FMT "\n",
                     c->is_delete ? "delete" : "upsert", SLICE_ARG(c->row->table->name),
                     SLICE_ARG(c->row->id), c->full, (long long)c->prev_seq,
                     SLICE_ARG(c->clock_json));
        for (size_t k = 0; !c->is_delete && k < c->row->table->column_count; k++) {
            if (c->columns[k]) {
                bytes_printf(b, "  " SLICE_FMT "=", SLICE_ARG(c->row->table->columns[k].name));
                value_to_json(b, &c->row->row.values[k]);
                bytes_text(b, c->full && c->given[k] ? " given\n" : "\n");
            }
        }
    }
    for (size_t i = 0; i < commit->conflict_count; i++) {
        const decide_conflict *c = &commit->conflicts[i];
        bytes_printf(b,
                     " conflict " SLICE_FMT " " SLICE_FMT " " SLICE_FMT "/" SLICE_FMT " " SLICE_FMT
                     " policy=" SLICE_FMT " winner=" SLICE_FMT " open=%d\n",
                     SLICE_ARG(c->id), SLICE_ARG(c->kind), SLICE_ARG(c->table->name),
                     SLICE_ARG(c->entity_id), SLICE_ARG(c->columns_json), SLICE_ARG(c->policy),
                     SLICE_ARG(c->winner), c->open);
        bytes_printf(b, "  " SLICE_FMT " " SLICE_FMT " " SLICE_FMT " " SLICE_FMT "\n",
                     SLICE_ARG(c->base), SLICE_ARG(c->theirs), SLICE_ARG(c->ours),
                     SLICE_ARG(c->chosen));
    }
}

#endif
