/* Which store a verb goes to, and what all stores say alike. */
#include "server/store.h"

#include "core/id.h"

#include "server/store_verbs.h"

godwit_status store_open(const char *where, store **out, char *message) {
    bool url = strncmp(where, "postgres://", 11) == 0 || strncmp(where, "postgresql://", 13) == 0;
    return url ? store_postgres_open(where, out, message) : store_sqlite_open(where, out, message);
}

/* Stores, readers and signals begin with their verbs. */
static const store_verbs *verbs_of(const void *handle) {
    const store_base *base = handle;
    return base->verbs;
}

#define CALL_VERB(result, name, parameters, from, arguments)                                       \
    result store_##name parameters {                                                               \
        return verbs_of(from)->name arguments;                                                     \
    }
#define CALL_VOID(name, parameters, from, arguments)                                               \
    void store_##name parameters {                                                                 \
        if (from) {                                                                                \
            verbs_of(from)->name arguments;                                                        \
        }                                                                                          \
    }
/* verbs without a result do nothing to what is not there */
STORE_VERBS(CALL_VERB, CALL_VOID)

/* ---- texts ---- */

static const char *const device_states[] = {"active", "forked", "retired", "revoked"};

const char *store_device_state_name(device_state state) {
    ASSERT((size_t)state < COUNT_OF(device_states));
    return device_states[state];
}

device_state store_device_state_of(slice name) {
    for (size_t i = 0; i < COUNT_OF(device_states); i++) {
        if (slice_is(name, device_states[i])) {
            return (device_state)i;
        }
    }
    return DEVICE_REVOKED;
}

static void text_member(bytes *b, const char *name, slice text) {
    bytes_text(b, name);
    if (text.len) {
        json_write_text(b, text);
    } else {
        bytes_text(b, "null");
    }
}

static void json_member(bytes *b, const char *name, slice text) {
    bytes_text(b, name);
    bytes_slice(b, text.len ? text : SLICE("null"));
}

void store_conflict_json(bytes *b, slice entity, const store_conflict_row *row) {
    char at[32];
    wire_time_write(row->at_ms, at);
    text_member(b, "{\"conflictId\":", row->id);
    bytes_text(b, ",\"commitSeq\":");
    bytes_int(b, row->commit_seq);
    text_member(b, ",\"entityType\":", entity);
    text_member(b, ",\"entityId\":", row->entity_id);
    text_member(b, ",\"kind\":", row->kind);
    bytes_text(b, ",\"opKey\":");
    json_write_hex(b, row->op_key.ptr, row->op_key.len);
    text_member(b, ",\"operation\":", row->operation);
    text_member(b, ",\"deviceId\":", row->device_id);
    json_member(b, ",\"columns\":", row->columns);
    json_member(b, ",\"base\":", row->base);
    json_member(b, ",\"theirs\":", row->theirs);
    json_member(b, ",\"ours\":", row->ours);
    json_member(b, ",\"chosen\":", row->chosen);
    json_member(b, ",\"writers\":", row->writers);
    text_member(b, ",\"policy\":", row->policy);
    text_member(b, ",\"winner\":", row->winner);
    text_member(b, ",\"state\":", row->state);
    text_member(b, ",\"resolvedBy\":", row->resolved_by);
    bytes_text(b, ",\"resolvedCommit\":");
    if (row->resolved_commit) {
        bytes_int(b, row->resolved_commit);
    } else {
        bytes_text(b, "null");
    }
    text_member(b, ",\"at\":", slice_of(at));
    bytes_char(b, '}');
}

void store_row_json(const schema_table *t, const value *values, bytes *b) {
    bool first = true;
    bytes_char(b, '{');
    for (size_t i = 0; i < t->column_count; i++) {
        if (t->columns[i].local) {
            continue;
        }
        json_comma(b, &first);
        json_write_text(b, t->columns[i].name);
        bytes_char(b, ':');
        value_to_json(b, &values[i]);
    }
    bytes_char(b, '}');
}

godwit_status store_grant_add(arena *a, slice scope, bool write, store_grants *out) {
    if (out->count == SCOPES_MAX) {
        return GODWIT_LIMIT;
    }
    if (!id_name_valid(scope)) {
        return GODWIT_CORRUPT;
    }
    out->write[out->count] = write;
    out->scopes[out->count] = arena_copy(a, scope);
    return out->scopes[out->count++].ptr ? GODWIT_OK : GODWIT_NOMEM;
}
