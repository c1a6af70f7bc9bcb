/* Registration of a device: its declared tables against the registry (or, with --dev, into it), one
 * device row per scope. Registering again changes nothing and answers the present state. */
#include "server/service_inner.h"

#include <stdio.h>

/* SQLite's affinity of a declared type: what decides whether two declarations mean the same. */
static bool contains(slice type, const char *upper) {
    size_t n = strlen(upper);
    for (size_t i = 0; i + n <= type.len; i++) {
        size_t k = 0;
        while (k < n) {
            char c = type.ptr[i + k];
            c = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
            if (c != upper[k]) {
                break;
            }
            k++;
        }
        if (k == n) {
            return true;
        }
    }
    return false;
}

static char affinity(slice type) {
    if (contains(type, "INT")) {
        return 'I';
    }
    if (contains(type, "CHAR") || contains(type, "CLOB") || contains(type, "TEXT")) {
        return 'T';
    }
    if (type.len == 0 || contains(type, "BLOB") || contains(type, "ANY")) {
        return 'B';
    }
    if (contains(type, "REAL") || contains(type, "FLOA") || contains(type, "DOUB")) {
        return 'R';
    }
    return 'N';
}

static void mismatch(service_job *job, const char *what, const schema_table *t, slice column) {
    const char *detail = arena_printf(&job->memory, "%s: %.*s%s%.*s", what, SLICE_ARG(t->name),
                                      column.len ? "." : "", SLICE_ARG(column));
    service_problem(job, 409, "schema-mismatch", detail, NULL);
}

static bool same_key(const schema_table *a, const schema_table *b) {
    if (a->key_count != b->key_count) {
        return false;
    }
    for (size_t i = 0; i < a->key_count; i++) {
        if (!slice_equal(a->columns[a->key[i]].name, b->columns[b->key[i]].name)) {
            return false;
        }
    }
    return true;
}

/* Older applications may have had the column with another type. */
static bool translated(const schema_table *t, int column) {
    for (size_t i = 0; i < t->upcast_count; i++) {
        if (t->upcasts[i].column == column) {
            return true;
        }
    }
    return false;
}

/* grow: what the registry lacks is fine. false: the job is answered. */
static bool agrees(service_job *job, const schema *have, const schema *declared, bool grow) {
    for (size_t i = 0; i < declared->table_count; i++) {
        const schema_table *t = &declared->tables[i];
        const schema_table *mine = schema_find(have, t->name);
        if (!mine) {
            if (!grow) {
                mismatch(job, "the server has no table", t, (slice){0});
                return false;
            }
            continue;
        }
        if (!same_key(t, mine)) {
            mismatch(job, "the primary key is another one on the server", t, (slice){0});
            return false;
        }
        for (size_t c = 0; c < t->column_count; c++) {
            int at = schema_column_index(mine, t->columns[c].name);
            if (at < 0 && (grow || schema_column_dropped(mine, t->columns[c].name))) {
                continue;
            }
            if (at < 0) {
                mismatch(job, "the server has no column", t, t->columns[c].name);
                return false;
            }
            if (affinity(mine->columns[at].type) != affinity(t->columns[c].type) &&
                !mine->columns[at].any_type && !translated(mine, at)) {
                mismatch(job, "the type is another one on the server", t, t->columns[c].name);
                return false;
            }
        }
    }
    return true;
}

static bool is_news(const schema_table *mine, slice column) {
    return schema_column_index(mine, column) < 0 && !schema_column_dropped(mine, column);
}

/* The declaration with the names the registry has for what it knows under former ones. */
static godwit_status present_names(arena *a, const schema *have, const schema *declared,
                                   schema *out) {
    *out = *declared;
    out->tables = ARENA_ARRAY(a, schema_table, declared->table_count);
    for (size_t i = 0; out->tables && i < declared->table_count; i++) {
        schema_table *t = &out->tables[i];
        const schema_table *mine = schema_find(have, declared->tables[i].name);
        *t = declared->tables[i];
        t->columns = ARENA_ARRAY(a, schema_column, t->column_count);
        if (!t->columns) {
            return GODWIT_NOMEM;
        }
        t->name = mine ? mine->name : t->name;
        for (size_t c = 0; c < t->column_count; c++) {
            t->columns[c] = declared->tables[i].columns[c];
            int at = mine ? schema_column_index(mine, t->columns[c].name) : -1;
            t->columns[c].name = at < 0 ? t->columns[c].name : mine->columns[at].name;
        }
    }
    return out->tables ? GODWIT_OK : GODWIT_NOMEM;
}

/* Is there anything in the declaration that the registry lacks? */
static bool brings_news(const schema *have, const schema *declared) {
    for (size_t i = 0; i < declared->table_count; i++) {
        const schema_table *mine = schema_find(have, declared->tables[i].name);
        if (!mine) {
            return true;
        }
        for (size_t c = 0; c < declared->tables[i].column_count; c++) {
            if (is_news(mine, declared->tables[i].columns[c].name)) {
                return true;
            }
        }
    }
    return false;
}

/* One scope's device row. *forbidden: the id is another user's. */
static godwit_status register_scope_row(service *s, service_job *job, slice scope, int64_t now,
                                        decide_device *device, store_scope *state,
                                        bool *forbidden) {
    const job_state *js = job->state;
    godwit_status status = store_scope_load(s->store, scope, state);
    if (status == GODWIT_OK) {
        status = store_device_load(s->store, &s->batch, scope, js->reg.device_id, device);
    }
    if (status == GODWIT_NOT_FOUND) {
        *device = (decide_device){
            .device_id = js->reg.device_id, .user_id = job->who.user, .lineage = js->reg.lineage};
        return store_device_insert(s->store, scope, device, js->reg.label, now);
    }
    *forbidden = status == GODWIT_OK &&
                 (!slice_equal(device->user_id, job->who.user) || device->state == DEVICE_REVOKED);
    return status;
}

static void write_scope(bytes *b, slice scope, const store_scope *state,
                        const decide_device *device) {
    bytes_text(b, "{\"scope\":");
    json_write_text(b, scope);
    bytes_text(b, ",\"head\":");
    bytes_int(b, state->head);
    bytes_text(b, ",\"appliedSeq\":");
    bytes_int(b, device->applied_seq);
    bytes_text(b, ",\"lastKey\":");
    json_write_hex(b, device->last_key, device->has_last_key ? SHA256_BYTES : 0);
    bytes_char(b, '}');
}

static godwit_status register_scopes(service *s, service_job *job, bool *refused) {
    const job_state *js = job->state;
    bytes *b = &job->answer;
    int64_t now = service_now(s);
    bytes_text(b, "{\"deviceId\":");
    json_write_text(b, js->reg.device_id);
    bytes_printf(b, ",\"serverId\":\"%s\"", s->store_id);
    bytes_text(b, ",\"scopes\":[");
    for (size_t i = 0; i < js->reg.scope_count; i++) {
        decide_device device;
        store_scope state;
        bool forbidden = false;
        godwit_status status =
            register_scope_row(s, job, js->reg.scopes[i], now, &device, &state, &forbidden);
        if (status != GODWIT_OK) {
            return status;
        }
        if (forbidden) {
            service_problem(job, 403, "device-revoked", "this device id can't be used", NULL);
            *refused = true;
            return GODWIT_OK;
        }
        bytes_text(b, i ? "," : "");
        write_scope(b, js->reg.scopes[i], &state, &device);
    }
    bytes_text(b, "],\"tables\":");
    return GODWIT_OK;
}

/* Inside the transaction. *adopted: the registry must be made anew after the commit. */
static godwit_status register_in(service *s, service_job *job, bool *adopted, bool *refused) {
    const job_state *js = job->state;
    const registry *reg = service_registry(s);
    godwit_status status = GODWIT_OK;
    if (!agrees(job, &reg->schema, &js->declared, s->dev)) {
        *refused = true;
        return GODWIT_OK;
    }
    if (s->dev && brings_news(&reg->schema, &js->declared)) {
        schema named;
        status = present_names(&s->batch, &reg->schema, &js->declared, &named);
        if (status == GODWIT_OK) {
            status = store_schema_adopt(s->store, &named, adopted);
        }
        if (status == GODWIT_INVALID) {
            service_problem(job, 409, "schema-mismatch", store_message(s->store), NULL);
            *refused = true;
            return GODWIT_OK;
        }
    }
    return status == GODWIT_OK ? register_scopes(s, job, refused) : status;
}

void register_run(service *s, service_job *job) {
    bool adopted = false;
    bool refused = false;
    char message[512];
    arena_reset(&s->batch);
    godwit_status status = store_begin(s->store);
    if (status == GODWIT_OK) {
        status = register_in(s, job, &adopted, &refused);
    }
    if (status == GODWIT_OK && !refused) {
        status = store_commit(s->store);
    }
    if (status != GODWIT_OK || refused) {
        store_rollback(s->store);
    }
    if (status == GODWIT_OK && adopted && !refused) {
        status = service_reload(s, message);
    }
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else if (!refused) {
        bytes_slice(&job->answer, service_registry(s)->tables_json);
        names_write(&job->answer, service_registry(s));
        bytes_char(&job->answer, '}');
        service_done(job);
    }
}
