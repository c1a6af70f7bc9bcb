/* The registry: which tables are tracked and how, kept in memory beside the database.
 *
 * Every call begins with client_registry_refresh, which costs two reads when nothing has changed.
 * When the schema's cookie has moved, the triggers are compared with what they should be and put
 * back: an application's migration may have dropped, rebuilt or widened a table. */
#include "client/track.h"
#include "core/limits.h"

const client_table *client_table_by_number(const godwit *g, int64_t tbl) {
    for (size_t i = 0; i < g->registry.count; i++) {
        if (g->registry.tables[i].tbl == tbl) {
            return &g->registry.tables[i];
        }
    }
    return NULL;
}

const client_table *client_table_by_entity(const godwit *g, slice entity) {
    const client_table *inactive = NULL;
    for (size_t i = 0; i < g->registry.count; i++) {
        const client_table *t = &g->registry.tables[i];
        if (slice_equal(t->shape.entity, entity)) {
            if (t->active) {
                return t;
            }
            inactive = t;
        }
    }
    return inactive;
}

static bool same_name(slice a, slice b) {
    bool same = a.len == b.len;
    for (size_t i = 0; same && i < a.len; i++) {
        char x = a.ptr[i] >= 'A' && a.ptr[i] <= 'Z' ? (char)(a.ptr[i] | 0x20) : a.ptr[i];
        char y = b.ptr[i] >= 'A' && b.ptr[i] <= 'Z' ? (char)(b.ptr[i] | 0x20) : b.ptr[i];
        same = x == y;
    }
    return same;
}

const client_table *registry_by_name(const godwit *g, slice name) {
    for (size_t i = 0; i < g->registry.count; i++) {
        const client_table *t = &g->registry.tables[i];
        if (!t->queue && same_name(t->shape.name, name)) {
            return t;
        }
    }
    return NULL;
}

void client_declaration(const godwit *g, schema *out) {
    memset(out, 0, sizeof *out);
    out->tables = g->registry.declared;
    out->table_count = g->registry.declared_count;
    out->version = g->registry.registry_version;
}

/* ---- Loading ---- */

static godwit_status load_row(godwit *g, arena *a, sqlite3_stmt *stmt, client_table *t) {
    track_options options;
    int64_t tbl = sqlite3_column_int64(stmt, 0);
    slice name = arena_copy(a, db_column_slice(stmt, 1));
    slice spec = arena_copy(a, db_column_slice(stmt, 2));
    if (!name.ptr || !spec.ptr) {
        return GODWIT_NOMEM;
    }
    godwit_status status = shape_from_spec(g, a, name, spec, t, &options);
    t->tbl = tbl;
    t->shape.number = (int)tbl;
    t->active = sqlite3_column_int(stmt, 3) != 0;
    return status;
}

static godwit_status load_tables(godwit *g, client_registry *r) {
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    int64_t count = 0;
    godwit_status status = db_int(&g->db, &count, "SELECT count(*) FROM godwit_table", "");
    if (status == GODWIT_OK) {
        r->tables = ARENA_ARRAY(&r->memory, client_table, (size_t)count + 1);
        r->declared = ARENA_ARRAY(&r->memory, schema_table, (size_t)count + 1);
        status = r->tables && r->declared ? GODWIT_OK : GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        status = db_prepare(&g->db, "SELECT tbl, name, spec, active FROM godwit_table ORDER BY tbl",
                            &stmt);
    }
    while (status == GODWIT_OK && r->count < (size_t)count) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        client_table *t = &r->tables[r->count];
        status = load_row(g, &r->memory, stmt, t);
        r->count += status == GODWIT_OK;
        if (status == GODWIT_OK && t->active && !t->queue) {
            r->declared[r->declared_count++] = t->shape;
        }
    }
    db_done(&g->db, stmt);
    return status;
}

static slice entity_of(const client_registry *r, slice table) {
    for (size_t i = 0; i < r->count; i++) {
        const client_table *t = &r->tables[i];
        if (t->active && !t->queue && same_name(t->shape.name, table)) {
            return t->shape.entity;
        }
    }
    return table;
}

/* The server is told entities: what a table is called here is no business of others. */
static godwit_status name_declared(client_registry *r) {
    for (size_t i = 0; i < r->declared_count; i++) {
        schema_table *t = &r->declared[i];
        schema_fk *fks = ARENA_ARRAY(&r->memory, schema_fk, t->fk_count + 1);
        if (!fks) {
            return GODWIT_NOMEM;
        }
        t->name = t->entity;
        for (size_t k = 0; k < t->fk_count; k++) {
            fks[k] = t->fks[k];
            fks[k].table = entity_of(r, fks[k].table);
        }
        t->fks = fks;
    }
    return GODWIT_OK;
}

godwit_status registry_load(godwit *g) {
    client_registry fresh = {0};
    arena_init(&fresh.memory, g->allocator, 0);
    godwit_status status = client_meta_int(g, "registry_version", 0, &fresh.registry_version);
    if (status == GODWIT_OK) {
        status = load_tables(g, &fresh);
    }
    if (status == GODWIT_OK) {
        status = name_declared(&fresh);
    }
    if (status == GODWIT_OK) {
        status = column_types_apply(g, &fresh);
    }
    if (status == GODWIT_OK) {
        status = former_apply(g, &fresh);
    }
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "app_schema", 0, &fresh.app_schema);
    }
    if (status != GODWIT_OK) {
        arena_deinit(&fresh.memory);
        return status;
    }
    fresh.schema_cookie = g->registry.schema_cookie;
    fresh.loaded = true;
    arena_deinit(&g->registry.memory);
    g->registry = fresh;
    return GODWIT_OK;
}

godwit_status registry_changed(godwit *g) {
    godwit_status status = db_run(&g->db,
                                  "INSERT INTO godwit_meta(k, v) VALUES ('registry_version', 1)"
                                  " ON CONFLICT(k) DO UPDATE SET v = v + 1",
                                  "");
    return status == GODWIT_OK ? registry_load(g) : status;
}

/* Both or neither: what is kept is never learned again, so a registry that was not told of it would
 * go on without. */
static godwit_status take_learned(godwit *g, const char *key, slice text) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_set(g, key, text);
    if (status == GODWIT_OK) {
        status = registry_changed(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    return status;
}

godwit_status registry_learn(godwit *g, const char *key, const json *tables,
                             void (*write)(bytes *b, const json *tables)) {
    slice known = {0};
    arena a;
    bytes b;
    if (!json_is(tables, JSON_ARRAY) || tables->count > TABLES_MAX) {
        return GODWIT_OK;
    }
    arena_init(&a, g->allocator, 0);
    bytes_init(&b, g->allocator, 0);
    write(&b, tables);
    godwit_status status = b.failed ? GODWIT_NOMEM : client_meta_text(g, &a, key, &known);
    known = known.ptr ? known : SLICE("{}");
    if (status == GODWIT_OK && !slice_equal(known, bytes_view(&b))) {
        status = take_learned(g, key, bytes_view(&b));
    }
    bytes_deinit(&b);
    arena_deinit(&a);
    return status;
}

godwit_status registry_version_taken(godwit *g) {
    int64_t version = 0;
    godwit_status status = db_int(&g->db, &version, "PRAGMA main.user_version", "");
    if (status == GODWIT_OK) {
        status = client_meta_set_int(g, "app_schema", version > 0 ? version : 0);
        g->registry.app_schema = version;
    }
    return status;
}

/* ---- Keeping triggers in place ---- */

/* Renewing loads the registry anew, so tables are found again by number each time. */
static godwit_status repair(godwit *g) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    int64_t last = 0;
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK; i++) {
        const client_table *t = &g->registry.tables[i]; /* in the order of their numbers */
        bool fits = true;
        bool found = false;
        if (t->tbl <= last || !t->active || t->queue) {
            continue;
        }
        last = t->tbl;
        status = track_fits(g, t, &fits);
        if (status == GODWIT_OK && !fits) {
            client_log(g, GODWIT_LOG_WARN, "table=%d triggers=restored", (int)t->tbl);
            status = track_renew(g, t, &found);
        }
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    return status;
}

static godwit_status verify(godwit *g) {
    int64_t migrating = 0;
    bool fits = true;
    godwit_status status = client_meta_int(g, "migrating", 0, &migrating);
    if (status != GODWIT_OK || migrating) {
        return status;
    }
    status = track_follow(g);
    for (size_t i = 0; i < g->registry.count && status == GODWIT_OK && fits; i++) {
        const client_table *t = &g->registry.tables[i];
        if (t->active && !t->queue) {
            status = track_fits(g, t, &fits);
        }
    }
    return status == GODWIT_OK && !fits ? repair(g) : status;
}

/* The application's schema has another version: what was captured so far is of the one before. */
static godwit_status notice_version(godwit *g) {
    int64_t version = 0, migrating = 0;
    godwit_status status = db_int(&g->db, &version, "PRAGMA main.user_version", "");
    if (status != GODWIT_OK || version == g->registry.app_schema) {
        return status;
    }
    status = client_meta_int(g, "migrating", 0, &migrating);
    if (status != GODWIT_OK || migrating) {
        return status; /* the end of the migration sees to it */
    }
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = track_seal_first(g);
    if (status == GODWIT_OK) {
        status = registry_version_taken(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
        g->registry.loaded = false;
    }
    return status;
}

godwit_status client_registry_refresh(godwit *g) {
    int64_t cookie = 0;
    int64_t version = 0;
    godwit_status status = db_int(&g->db, &cookie, "PRAGMA main.schema_version", "");
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "registry_version", 0, &version);
    }
    if (status == GODWIT_OK && (!g->registry.loaded || version != g->registry.registry_version)) {
        status = registry_load(g);
        g->registry.schema_cookie = -1;
    }
    if (status == GODWIT_OK) {
        status = notice_version(g);
    }
    if (status == GODWIT_OK && cookie != g->registry.schema_cookie) {
        status = verify(g);
        if (status == GODWIT_OK) {
            status = db_int(&g->db, &cookie, "PRAGMA main.schema_version", "");
        }
        g->registry.schema_cookie = status == GODWIT_OK ? cookie : -1;
    }
    if (status == GODWIT_OK) {
        status = group_ensure(g);
    }
    if (status == GODWIT_OK) {
        status = initial_finish(g);
    }
    return status;
}
