/* Staging a snapshot: pages, and the log that goes on meanwhile. See bootstrap.h.
 *
 * Pages are fuzzy: each row carries the commit that made it. A change of the log counts only where
 * it is newer than the staged row; columns of a row that is not staged are passed over, its delete
 * must follow. A page asked with another token than the stored one is an answer that came late:
 * ignored. */
#include "client/bootstrap.h"

godwit_status bootstrap_token(godwit *g, arena *a, slice scope, slice *token) {
    int64_t version = 0;
    slice staged = {0};
    *token = (slice){0};
    godwit_status status = client_meta_text(g, a, "stage_scope", &staged);
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "stage_registry", -1, &version);
    }
    if (status != GODWIT_OK || !slice_equal(staged, scope) ||
        version != g->registry.registry_version) {
        return status; /* another scope took the place, or the tables have changed: from the start
                        */
    }
    status =
        db_text(&g->db, a, token,
                "SELECT boot_token FROM godwit_cursor WHERE scope = ?1 AND state = 'bootstrap'",
                "s", scope);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status in_transaction(godwit *g, godwit_status status) {
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}

godwit_status bootstrap_require(godwit *g, slice scope) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = stage_drop_all(g);
    if (status == GODWIT_OK) { /* another scope may have been staged in these tables */
        status =
            db_exec(&g->db, "UPDATE godwit_cursor SET boot_token = NULL, state = CASE state WHEN"
                            " 'staging' THEN 'bootstrap' ELSE state END");
    }
    if (status == GODWIT_OK) {
        status =
            db_run(&g->db,
                   "INSERT INTO godwit_cursor (scope, state) VALUES (?1, 'bootstrap') ON CONFLICT"
                   " (scope) DO UPDATE SET state = 'bootstrap', boot_token = NULL",
                   "s", scope);
    }
    return in_transaction(g, status);
}

/* ---- Snapshot pages ---- */

static godwit_status stage_row(settle *s, stage_table *open, const snapshot_row *row, arena *a) {
    const client_table *t = client_table_by_entity(s->g, row->entity_type);
    row_image image;
    godwit_status status = GODWIT_OK;
    if (slice_is(row->entity_type, "_conflicts")) {
        return row->columns ? settle_take_conflict(s, row->entity_id, row->columns) : status;
    }
    if (!t || ((!open->table || open->table->t != t) && !stage_wants(s, t))) {
        return GODWIT_OK;
    }
    if (!open->table || open->table->t != t) {
        if (open->table) {
            status = stage_save_seen(s, open);
            stage_close(s, open);
        }
        if (status == GODWIT_OK) {
            status = stage_open(s, t, open);
        }
    }
    arena_reset(a);
    if (status == GODWIT_OK) {
        status = image_init(a, t, &image);
    }
    if (status == GODWIT_OK) {
        image.present = true;
        status = image_set(a, open->table, row->columns, &image);
    }
    return status == GODWIT_OK
               ? stage_put(s, open, a, row->entity_id, row->ver, row->vector_clock, &image)
               : status;
}

static godwit_status stage_rows(settle *s, const snapshot_answer *page) {
    stage_table open = {0};
    arena a;
    godwit_status status = GODWIT_OK;
    arena_init(&a, s->g->allocator, 0);
    for (size_t i = 0; i < page->row_count && status == GODWIT_OK; i++) {
        status = stage_row(s, &open, &page->rows[i], &a);
    }
    if (status == GODWIT_OK && open.table) {
        status = stage_save_seen(s, &open);
    }
    stage_close(s, &open);
    arena_deinit(&a);
    return status;
}

static godwit_status take(settle *s, slice token_before, const snapshot_answer *page) {
    slice stored = {0};
    int64_t newest = 0;
    godwit_status status = bootstrap_token(s->g, &s->a, s->scope, &stored);
    if (status != GODWIT_OK || !slice_equal(stored, token_before)) {
        return status;
    }
    if (!token_before.len) {
        status = stage_create_all(s);
    }
    if (status == GODWIT_OK) {
        status = stage_rows(s, page);
    }
    if (status == GODWIT_OK) {
        status = client_meta_int(s->g, "stage_newest", 0, &newest);
    }
    if (status == GODWIT_OK && page->head > newest) {
        status = client_meta_set_int(s->g, "stage_newest", page->head);
    }
    if (status == GODWIT_OK && page->more) {
        return db_run(
            s->d,
            "INSERT INTO godwit_cursor (scope, state, boot_token) VALUES (?1, 'bootstrap', ?2) ON"
            " CONFLICT (scope) DO UPDATE SET state = 'bootstrap', boot_token = ?2",
            "ss", s->scope, page->token);
    }
    if (status == GODWIT_OK) {
        status = db_run(
            s->d,
            "INSERT INTO godwit_cursor (scope, cursor, commit_seq, salt, state) VALUES (?1, ?2,"
            " ?3, ?4, 'staging') ON CONFLICT (scope) DO UPDATE SET cursor = ?2, commit_seq ="
            " ?3, salt = ?4, state = 'staging', boot_token = NULL",
            "ssii", s->scope, page->cursor, page->as_of, page->salt);
    }
    return status;
}

godwit_status bootstrap_take_snapshot(godwit *g, slice scope, slice token_before,
                                      const snapshot_answer *page) {
    settle s = {.g = g, .d = &g->db, .scope = scope, .staging = true};
    arena_init(&s.a, g->allocator, 0);
    s.tables = ARENA_ARRAY(&s.a, apply_table *, g->registry.count + 1);
    godwit_status status = client_scope(g, &s.a, &s.default_scope);
    status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    if (status == GODWIT_OK) {
        status = s.tables ? db_begin(&g->db) : GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        status = take(&s, token_before, page);
        apply_close(&s);
        status = in_transaction(g, status);
    }
    arena_deinit(&s.a);
    return status;
}

/* ---- The log while staging ---- */

static godwit_status stage_change(settle *s, stage_table *st, const wire_commit *commit,
                                  const wire_change *change, arena *a) {
    int64_t ver = -1;
    slice clock = {0};
    row_image image;
    godwit_status status = stage_get(s, st, a, change->entity_id, &ver, &clock, &image);
    if (status != GODWIT_OK || commit->seq <= ver) {
        return status;
    }
    if (change->is_delete) {
        return stage_drop(s, st, change->entity_id);
    }
    if (ver < 0 && !change->full) {
        return GODWIT_OK;
    }
    if (change->full) {
        status = image_init(a, st->table->t, &image);
        image.present = true;
    }
    if (status == GODWIT_OK) {
        status = image_set(a, st->table, change->columns, &image);
    }
    return status == GODWIT_OK
               ? stage_put(s, st, a, change->entity_id, commit->seq, change->vector_clock, &image)
               : status;
}

static godwit_status stage_one(settle *s, const wire_commit *commit, const wire_change *change,
                               arena *a) {
    stage_table st = {0};
    const client_table *t = client_table_by_entity(s->g, change->entity_type);
    if (slice_is(change->entity_type, "_conflicts")) {
        return settle_take_change(s, commit, change);
    }
    if (!t || !stage_wants(s, t)) {
        return GODWIT_OK;
    }
    arena_reset(a);
    godwit_status status = stage_open(s, t, &st);
    if (status == GODWIT_OK) {
        status = stage_change(s, &st, commit, change, a);
    }
    if (status == GODWIT_OK) {
        status = stage_save_seen(s, &st);
    }
    stage_close(s, &st);
    return status;
}

godwit_status bootstrap_take_page(settle *s, const pull_answer *page, int64_t seq, int64_t salt) {
    arena a;
    godwit_status status = GODWIT_OK;
    arena_init(&a, s->g->allocator, 0);
    for (size_t c = 0; c < page->commit_count && status == GODWIT_OK; c++) {
        const wire_commit *commit = &page->commits[c];
        for (size_t i = 0; i < commit->change_count && status == GODWIT_OK; i++) {
            status = stage_one(s, commit, &commit->changes[i], &a);
        }
    }
    arena_deinit(&a);
    return status == GODWIT_OK ? db_run(s->d,
                                        "UPDATE godwit_cursor SET cursor = ?2, commit_seq = "
                                        "max(commit_seq, ?3), salt ="
                                        " ?4 WHERE scope = ?1",
                                        "ssii", s->scope, page->cursor, seq, salt)
                               : status;
}

godwit_status bootstrap_advance(godwit *g, slice scope, int64_t *received) {
    int64_t position = 0, newest = 0, version = 0;
    settle s;
    *received = 0;
    godwit_status status =
        db_int(&g->db, &position,
               "SELECT commit_seq FROM godwit_cursor WHERE scope = ?1 AND state ="
               " 'staging'",
               "s", scope);
    if (status != GODWIT_OK) {
        return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    status = client_meta_int(g, "stage_newest", 0, &newest);
    if (status == GODWIT_OK) {
        status = client_meta_int(g, "stage_registry", -1, &version);
    }
    if (status == GODWIT_OK && version != g->registry.registry_version) {
        return bootstrap_require(g, scope); /* the tables have changed since */
    }
    if (status != GODWIT_OK || position < newest) {
        return status;
    }
    status = settle_open(&s, g, scope);
    if (status == GODWIT_OK) {
        status = bootstrap_swap(&s);
    }
    settle_counts counts = {0};
    status = settle_close(&s, status, &counts);
    *received = counts.received;
    return status;
}
