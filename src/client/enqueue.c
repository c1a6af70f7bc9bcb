/* godwit_enqueue: the requirements' explicit enqueue.
 *
 * On a tracked table the triggers have captured the change already: it is found, by its entity,
 * among captured and sealed operations and gets what the caller adds (dependencies, a name of the
 * application's own). On an entity that is no table a row of the log holds the payload. */
#include <stdio.h>

#include "client/enqueue.h"
#include "client/op_sql.h"
#include "client/track.h"
#include "core/limits.h"

#define UNSEALED "coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'sealed_lsn'), 0)"

typedef struct {
    godwit *g;
    arena a;
    op_kind kind;
    slice entity, entity_id, payload, client_key;
    slice depends_on; /* JSON list of ids; ptr NULL = none */
    const godwit_enqueue_options *options;
    int64_t lsn;
    bool sealed;
} request;

/* ---- Checks ---- */

static godwit_status check(request *r) {
    godwit *g = r->g;
    const json *root = NULL;
    json_error error = {0};
    if (r->kind != OP_CREATE && r->kind != OP_UPDATE && r->kind != OP_DELETE) {
        return client_fail(g, GODWIT_INVALID, "operation is \"create\", \"update\" or \"delete\"");
    }
    if (!id_name_valid(r->entity) || r->entity_id.len == 0 ||
        r->entity_id.len > ENTITY_ID_BYTES_MAX || !json_utf8_valid(r->entity_id)) {
        return client_fail(g, GODWIT_INVALID,
                           "entity type and id must be text within their limits");
    }
    if (r->payload.len > ROW_BYTES_MAX) {
        return client_fail(g, GODWIT_LIMIT, "the payload is over 1 MiB");
    }
    if (r->payload.ptr) {
        godwit_status status = json_parse(&r->a, r->payload, &root, &error);
        if (status == GODWIT_NOMEM) {
            return status;
        }
        if (status != GODWIT_OK || !json_is(root, JSON_OBJECT)) {
            return client_fail(g, GODWIT_INVALID, "the payload is not a JSON object%s%s",
                               error.reason ? ": " : "", error.reason ? error.reason : "");
        }
    }
    if (r->client_key.ptr && !id_name_valid(r->client_key)) {
        return client_fail(g, GODWIT_INVALID, "client_key has 1 to 128 bytes");
    }
    if (r->options && r->options->depends_on_count > DEPENDS_MAX) {
        return client_fail(g, GODWIT_LIMIT, "more than %d dependencies", DEPENDS_MAX);
    }
    return GODWIT_OK;
}

static godwit_status write_dependencies(request *r) {
    bytes b;
    bool first = true;
    if (!r->options || r->options->depends_on_count == 0) {
        return GODWIT_OK;
    }
    bytes_init(&b, r->g->allocator, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < r->options->depends_on_count; i++) {
        slice id = slice_of(r->options->depends_on[i]);
        if (id.len == 0 || id.len > 64 || !json_utf8_valid(id)) {
            bytes_deinit(&b);
            return client_fail(r->g, GODWIT_INVALID, "a dependency is not the id of an operation");
        }
        json_comma(&b, &first);
        json_write_text(&b, id);
    }
    bytes_char(&b, ']');
    r->depends_on = b.failed ? (slice){0} : arena_copy(&r->a, bytes_view(&b));
    bytes_deinit(&b);
    return r->depends_on.ptr ? GODWIT_OK : GODWIT_NOMEM;
}

/* ---- Finding the captured operation ---- */

/* How well a captured change fits: 2 the kind asked for, 1 the other way of saving a row (REPLACE
 * is captured as a create, UPSERT as an update), 0 not at all. */
static int fit(op_kind asked, int op) {
    if (asked == OP_DELETE) {
        return op == 3 || op == 5 ? 2 : 0;
    }
    if (op != 1 && op != 2) {
        return 0;
    }
    return (asked == OP_CREATE) == (op == 1) ? 2 : 1;
}

static godwit_status find_captured(request *r, const client_table *t) {
    sqlite3_stmt *stmt = NULL;
    bytes b;
    bool row = false;
    int best = 0;
    value key[KEY_COLUMNS_MAX];
    db *d = &r->g->db;
    godwit_status status = client_key_values(&r->a, t, r->entity_id, key);
    if (status != GODWIT_OK) {
        return status == GODWIT_INVALID
                   ? client_fail(r->g, GODWIT_INVALID, "the entity id does not fit the table's key")
                   : status;
    }
    bytes_init(&b, r->g->allocator, 0);
    bytes_text(&b, "SELECT lsn, op FROM godwit_log WHERE lsn > " UNSEALED " AND tbl = ?1");
    for (size_t i = 0; i < t->shape.key_count; i++) {
        if (i) {
            bytes_printf(&b, " AND k%zu IS ?%zu", i, i + 2);
        } else {
            bytes_text(&b, " AND pk IS ?2");
        }
    }
    bytes_text(&b, " ORDER BY lsn DESC");
    status = b.failed ? GODWIT_NOMEM : db_prepare(d, b.ptr, &stmt);
    bytes_deinit(&b);
    if (status == GODWIT_OK) {
        status = db_bind_int(d, stmt, 1, t->tbl);
    }
    for (size_t i = 0; i < t->shape.key_count && status == GODWIT_OK; i++) {
        status = db_bind_value(d, stmt, (int)i + 2, &key[i]);
    }
    while (status == GODWIT_OK && best < 2) {
        status = db_step(d, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        int fits = fit(r->kind, sqlite3_column_int(stmt, 1));
        if (fits > best) {
            best = fits;
            r->lsn = sqlite3_column_int64(stmt, 0);
        }
    }
    db_done(d, stmt);
    return status == GODWIT_OK && !best ? GODWIT_NOT_FOUND : status;
}

static godwit_status find_sealed(request *r, const client_table *t) {
    r->sealed = true;
    return db_int(
        &r->g->db, &r->lsn,
        "SELECT lsn FROM godwit_op WHERE row_hash = ?4 AND tbl = ?1 AND entity_id = ?2 AND"
        " state IN ('pending', 'parked') AND state <> 'retired' AND (operation = ?3 OR"
        " (operation <> 'delete' AND ?3 <> 'delete'))"
        " ORDER BY operation = ?3 DESC, lsn DESC LIMIT 1",
        "issi", t->tbl, r->entity_id, slice_of(op_kind_name(r->kind)),
        (int64_t)client_row_hash(t->tbl, r->entity_id));
}

/* ---- What the caller adds ---- */

static godwit_status name_captured(request *r) {
    return db_run(&r->g->db,
                  "INSERT INTO godwit_hint(lsn, client_key, depends_on) VALUES (?1, ?2, ?3) ON"
                  " CONFLICT(lsn) DO UPDATE SET client_key = coalesce(?2, client_key), depends_on ="
                  " coalesce(?3, depends_on)",
                  "iss", r->lsn, r->client_key, r->depends_on);
}

#define NAMED OP_HAS_ID("o", "j.value")

static godwit_status name_sealed(request *r) {
    godwit_status status = db_run(
        &r->g->db, "UPDATE godwit_op SET client_key = coalesce(?2, client_key) WHERE lsn = ?1",
        "is", r->lsn, r->client_key);
    if (status == GODWIT_OK && r->depends_on.ptr) {
        status = db_run(&r->g->db,
                        "INSERT OR IGNORE INTO godwit_dep(lsn, depends_on) SELECT ?1, o.lsn FROM"
                        " json_each(?2) AS j JOIN godwit_op AS o ON " NAMED " WHERE o.lsn < ?1",
                        "is", r->lsn, r->depends_on);
    }
    return status;
}

/* The operation that has the caller's name already; NOT_FOUND when the name is free. */
static godwit_status find_client_key(request *r, int64_t *lsn) {
    godwit_status status =
        r->client_key.ptr
            ? db_int(&r->g->db, lsn,
                     "SELECT lsn FROM godwit_hint WHERE client_key = ?1 UNION ALL SELECT lsn FROM"
                     " godwit_op WHERE client_key = ?1 LIMIT 1",
                     "s", r->client_key)
            : GODWIT_NOT_FOUND;
    return status;
}

/* ---- Entities without a table ---- */

static godwit_status queue_table(request *r, int64_t *tbl) {
    bytes b;
    const client_table *t = client_table_by_entity(r->g, r->entity);
    if (t && t->queue) {
        *tbl = t->tbl;
        return GODWIT_OK;
    }
    bytes_init(&b, r->g->allocator, 0);
    bytes_text(&b, "{\"entity\":");
    json_write_text(&b, r->entity);
    bytes_text(&b, ",\"queue\":true}");
    godwit_status status = b.failed ? GODWIT_NOMEM : GODWIT_OK;
    if (status == GODWIT_OK) {
        /* "queue:": no table of the application's is in the way later */
        status =
            db_run(&r->g->db, "INSERT INTO godwit_table(name, spec) VALUES ('queue:' || ?1, ?2)",
                   "ss", r->entity, bytes_view(&b));
        *tbl = sqlite3_last_insert_rowid(r->g->db.handle);
    }
    bytes_deinit(&b);
    return status == GODWIT_OK ? registry_changed(r->g) : status;
}

static godwit_status queue_payload(request *r) {
    int64_t tbl = 0;
    godwit_status status = queue_table(r, &tbl);
    if (status == GODWIT_OK) {
        status = db_exec(&r->g->db, "DELETE FROM godwit_hook WHERE 0"); /* belongs to the group */
    }
    if (status == GODWIT_OK) {
        status = db_run(&r->g->db,
                        "INSERT INTO godwit_log(op, tbl, pk, mask, wall, nonce, v0) VALUES (4, ?1,"
                        " ?2, ?3, julianday('now'), random(), ?4)",
                        "isis", tbl, r->entity_id, (int64_t)(r->kind - OP_CREATE + 1),
                        r->payload.ptr ? r->payload : SLICE("{}"));
        r->lsn = sqlite3_last_insert_rowid(r->g->db.handle);
    }
    return status;
}

/* ---- The call ---- */

static godwit_status enqueue(request *r) {
    int64_t taken = 0;
    const client_table *t = client_table_by_entity(r->g, r->entity);
    if (!t) {
        t = registry_by_name(r->g, r->entity);
    }
    bool tracked = t && !t->queue && t->active;
    godwit_status status = GODWIT_OK;
    if (tracked) {
        status = find_captured(r, t);
        if (status == GODWIT_NOT_FOUND) {
            status = find_sealed(r, t);
        }
        if (status == GODWIT_NOT_FOUND) {
            return client_fail(r->g, status,
                               "no %s of this entity is captured or waiting: write to the table"
                               " first",
                               op_kind_name(r->kind));
        }
    }
    if (status == GODWIT_OK) {
        status = find_client_key(r, &taken);
    }
    if (status == GODWIT_OK && (!tracked || taken != r->lsn)) {
        r->lsn = taken;
        return client_fail(r->g, GODWIT_EXISTS, "client_key is taken by another operation");
    }
    if (status == GODWIT_NOT_FOUND) {
        status = GODWIT_OK;
    }
    if (status == GODWIT_OK && !tracked) {
        status = queue_payload(r);
    }
    if (status == GODWIT_OK) {
        status = r->sealed ? name_sealed(r) : name_captured(r);
    }
    return status;
}

static godwit_status run(request *r, char id[37]) {
    slice lineage = {0};
    godwit_status status = check(r);
    if (status == GODWIT_OK) {
        status = write_dependencies(r);
    }
    if (status == GODWIT_OK) {
        status = client_meta_text(r->g, &r->a, "lineage", &lineage);
    }
    if (status == GODWIT_OK) {
        status = db_begin(&r->g->db);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    status = enqueue(r);
    godwit_status done = status;
    if (status == GODWIT_OK) {
        done = db_commit(&r->g->db);
    }
    if (done != GODWIT_OK) {
        db_rollback(&r->g->db);
    }
    if (status != GODWIT_OK && status != GODWIT_EXISTS) {
        r->g->registry.loaded = false; /* a new entity is undone */
    }
    if (done == GODWIT_OK || done == GODWIT_EXISTS) {
        id_operation(lineage, r->lsn, id);
    }
    return done;
}

godwit_status enqueue_run(godwit *g, const enqueue_call *call, char id[37]) {
    request r = {.g = g,
                 .kind = op_kind_parse(call->operation),
                 .entity = call->entity_type,
                 .entity_id = call->entity_id,
                 .payload = call->payload,
                 .client_key = slice_of(call->options ? call->options->client_key : NULL),
                 .options = call->options};
    arena_init(&r.a, g->allocator, 0);
    godwit_status status = run(&r, id);
    arena_deinit(&r.a);
    return status;
}

godwit_status godwit_enqueue(godwit *g, const char *operation, const char *entity_type,
                             const char *entity_id, const char *payload,
                             const godwit_enqueue_options *options, char id[37]) {
    memset(id, 0, UUID_TEXT_BYTES);
    godwit_status status = client_enter(g);
    if (status != GODWIT_OK) {
        return status;
    }
    const enqueue_call call = {slice_of(operation), slice_of(entity_type), slice_of(entity_id),
                               slice_of(payload), options};
    return client_leave(g, enqueue_run(g, &call, id));
}
