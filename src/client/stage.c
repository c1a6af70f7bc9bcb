/* Shadow tables: rows of a snapshot with their native values, until they replace the real ones.
 *
 * The columns have no type, so that a value stays exactly what it is. Which columns the server has
 * at all is remembered apart: a column only this device has must not be emptied by the swap. */
#include "client/bootstrap.h"
#include "client/count.h"

#include <stdio.h>

bool stage_wants(const settle *s, const client_table *t) {
    slice own = t->shape.scope.len ? t->shape.scope : s->default_scope;
    return t->active && !t->queue && (t->shape.scope_column >= 0 || slice_equal(own, s->scope));
}

static void seen_name(const client_table *t, char out[40]) {
    snprintf(out, 40, "stage_seen:%lld", (long long)t->tbl);
}

static godwit_status load_seen(settle *s, stage_table *st) {
    char name[40];
    slice text = {0};
    uint8_t raw[32];
    seen_name(st->table->t, name);
    godwit_status status = client_meta_text(s->g, &s->a, name, &text);
    if (status == GODWIT_OK && text.ptr && id_hex_decode(text, raw, sizeof raw)) {
        memcpy(st->seen, raw, sizeof st->seen);
    }
    return status;
}

godwit_status stage_save_seen(settle *s, const stage_table *st) {
    char name[40], hex[65];
    uint8_t raw[32];
    seen_name(st->table->t, name);
    memcpy(raw, st->seen, sizeof raw);
    id_hex_encode(raw, sizeof raw, hex);
    return client_meta_set(s->g, name, slice_of(hex));
}

static godwit_status prepare(settle *s, stage_table *st) {
    const client_table *t = st->table->t;
    size_t columns = t->shape.key_count + t->data_count;
    bytes put, get;
    bytes_init(&put, s->g->allocator, 0);
    bytes_init(&get, s->g->allocator, 0);
    bytes_printf(&put, "INSERT OR REPLACE INTO godwit_stage_%lld VALUES (?1, ?2, ?3, ?4",
                 (long long)t->tbl);
    for (size_t i = 0; i < columns; i++) {
        bytes_printf(&put, ", ?%zu", i + 5);
    }
    bytes_char(&put, ')');
    bytes_text(&get, "SELECT ver, clock");
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(&get, ", c%zu", i);
    }
    bytes_printf(&get, " FROM godwit_stage_%lld WHERE id = ?1", (long long)t->tbl);
    godwit_status status =
        put.failed || get.failed ? GODWIT_NOMEM : db_prepare(s->d, put.ptr, &st->put);
    if (status == GODWIT_OK) {
        status = db_prepare(s->d, get.ptr, &st->get);
    }
    bytes_deinit(&put);
    bytes_deinit(&get);
    return status;
}

godwit_status stage_open(settle *s, const client_table *t, stage_table *out) {
    char sql[80];
    memset(out, 0, sizeof *out);
    godwit_status status = apply_open(s, t, &out->table);
    if (status == GODWIT_OK) {
        status = load_seen(s, out);
    }
    if (status == GODWIT_OK) {
        status = prepare(s, out);
    }
    if (status == GODWIT_OK) {
        snprintf(sql, sizeof sql, "DELETE FROM godwit_stage_%lld WHERE id = ?1", (long long)t->tbl);
        status = db_prepare(s->d, sql, &out->drop);
    }
    return status;
}

void stage_close(settle *s, stage_table *st) {
    db_done(s->d, st->put);
    db_done(s->d, st->get);
    db_done(s->d, st->drop);
    memset(st, 0, sizeof *st);
}

godwit_status stage_put(settle *s, stage_table *st, arena *a, slice id, int64_t ver, slice clock,
                        const row_image *image) {
    const client_table *t = st->table->t;
    value key[16];
    godwit_status status = client_key_values(a, t, id, key);
    if (status == GODWIT_INVALID) {
        return GODWIT_OK; /* an id this table can't have: nothing to put it in */
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, st->put, 1, id);
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, st->put, 2, ver);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, st->put, 3, clock.len ? clock : (slice){0});
    }
    if (status == GODWIT_OK) { /* NULL: read back after the swap */
        status = image->odd ? db_status(s->d, sqlite3_bind_null(st->put, 4))
                            : db_bind_int(s->d, st->put, 4, client_row_digest(t, image->values));
    }
    for (size_t i = 0; i < t->shape.key_count && status == GODWIT_OK; i++) {
        status = db_bind_value(s->d, st->put, (int)i + 5, &key[i]);
    }
    for (size_t i = 0; i < t->data_count && status == GODWIT_OK; i++) {
        status = db_bind_value(s->d, st->put, (int)(t->shape.key_count + i) + 5, &image->values[i]);
        st->seen[i / 64] |= (uint64_t)image->known[i] << (i % 64);
    }
    if (status == GODWIT_OK) {
        status = db_status(s->d, sqlite3_step(st->put));
    }
    sqlite3_reset(st->put);
    return status;
}

godwit_status stage_get(settle *s, stage_table *st, arena *a, slice id, int64_t *ver, slice *clock,
                        row_image *image) {
    const client_table *t = st->table->t;
    bool row = false;
    *ver = -1;
    *clock = (slice){0};
    godwit_status status = image_init(a, t, image);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, st->get, 1, id);
    }
    if (status == GODWIT_OK) {
        status = db_step(s->d, st->get, &row);
    }
    if (status == GODWIT_OK && row) {
        slice text = db_column_slice(st->get, 1);
        *ver = sqlite3_column_int64(st->get, 0);
        *clock = text.ptr ? arena_copy(a, text) : text;
        image->present = true;
        for (size_t i = 0; i < t->data_count; i++) {
            value *v = &image->values[i];
            db_column_value(st->get, (int)i + 2, v);
            image->known[i] = st->seen[i / 64] >> (i % 64) & 1;
            if (v->type == VALUE_TEXT || v->type == VALUE_BLOB) {
                v->u.s = arena_copy(a, v->u.s);
            }
        }
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    sqlite3_reset(st->get);
    return status;
}

godwit_status stage_drop(settle *s, stage_table *st, slice id) {
    godwit_status status = db_bind_slice(s->d, st->drop, 1, id);
    if (status == GODWIT_OK) {
        status = db_status(s->d, sqlite3_step(st->drop));
    }
    sqlite3_reset(st->drop);
    return status;
}

/* ---- Conflicts ---- */

/* Records go to godwit_conflict at once, which shows nothing but more of the truth; godwit_stage_0
 * keeps their ids, so that the swap knows which open ones the server no longer has. */
godwit_status stage_conflict(settle *s, slice conflict_id) {
    return db_run(s->d, "INSERT OR IGNORE INTO godwit_stage_0 VALUES (?1)", "s", conflict_id);
}

#define GONE                                                                                       \
    " FROM godwit_conflict WHERE scope = ?1 AND state = 'open' AND conflict_id NOT IN (SELECT id"  \
    " FROM godwit_stage_0)"

godwit_status stage_forget_conflicts(settle *s) {
    godwit_status status =
        db_run(s->d,
               "INSERT INTO godwit_counter(name, n) SELECT 'conflict:' || kind || ':open',"
               " -count(*)" GONE " GROUP BY kind ON CONFLICT (name) DO UPDATE SET n = n +"
               " excluded.n",
               "s", s->scope);
    if (status == GODWIT_OK) { /* for a moment: what waited for them waits no longer */
        status = db_run(s->d,
                        "UPDATE godwit_conflict SET state = 'closed' WHERE scope = ?1 AND state ="
                        " 'open' AND conflict_id NOT IN (SELECT id FROM godwit_stage_0)",
                        "s", s->scope);
    }
    if (status == GODWIT_OK) {
        status = settle_end_conflicts(s);
    }
    return status == GODWIT_OK
               ? db_run(s->d, "DELETE FROM godwit_conflict WHERE scope = ?1 AND state = 'closed'",
                        "s", s->scope)
               : status;
}

/* ---- The set of them ---- */

static godwit_status create_one(settle *s, const client_table *t) {
    bytes b;
    bytes_init(&b, s->g->allocator, 0);
    bytes_printf(
        &b,
        "CREATE TABLE main.godwit_stage_%lld (id TEXT PRIMARY KEY, ver INTEGER NOT NULL, clock,"
        " digest",
        (long long)t->tbl);
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_printf(&b, ", k%zu", i);
    }
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(&b, ", c%zu", i);
    }
    bytes_text(&b, ") WITHOUT ROWID");
    godwit_status status = b.failed ? GODWIT_NOMEM : db_exec(s->d, b.ptr);
    bytes_deinit(&b);
    return status;
}

godwit_status stage_drop_all(godwit *g) {
    int64_t tbl = 0;
    char sql[64];
    godwit_status status = GODWIT_OK;
    while (status == GODWIT_OK) {
        status =
            db_int(&g->db, &tbl,
                   "SELECT CAST(substr(name, 14) AS INTEGER) FROM main.sqlite_schema WHERE type ="
                   " 'table' AND name GLOB 'godwit_stage_[0-9]*' LIMIT 1",
                   "");
        if (status == GODWIT_OK) {
            snprintf(sql, sizeof sql, "DROP TABLE main.godwit_stage_%lld", (long long)tbl);
            status = db_exec(&g->db, sql);
        }
    }
    if (status == GODWIT_NOT_FOUND) {
        status = db_exec(&g->db, "DELETE FROM godwit_meta WHERE k GLOB 'stage_*'");
    }
    return status;
}

godwit_status stage_create_all(settle *s) {
    godwit_status status = stage_drop_all(s->g);
    for (size_t i = 0; i < s->g->registry.count && status == GODWIT_OK; i++) {
        if (stage_wants(s, &s->g->registry.tables[i])) {
            status = create_one(s, &s->g->registry.tables[i]);
        }
    }
    if (status == GODWIT_OK) {
        status = db_exec(s->d, "CREATE TABLE main.godwit_stage_0 (id TEXT PRIMARY KEY)"
                               " WITHOUT ROWID");
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(s->g, "stage_scope", s->scope);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set_int(s->g, "stage_registry", s->g->registry.registry_version);
    }
    return status;
}
