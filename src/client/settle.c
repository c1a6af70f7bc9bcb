/* Settling: what the server answered becomes the local state, in one transaction
 * (semantics 9.3, 10.3).
 *
 *   seal what is captured -> take results and page -> cascade -> images -> move operations -> write
 * rows
 *   -> remember bases and versions -> cursor, mark, identity -> COMMIT
 *
 * Guarantees: capture is off and foreign keys are not enforced meanwhile, both restored; a page
 * that does not follow the cursor is ignored; after a failure nothing has changed. Leaves to others
 * what to ask the server for (pump.c) and snapshots (bootstrap.c). */
#include "client/event.h"

#include "client/bootstrap.h"

#define CACHE_KIB        "-16384" /* of memory, as SQLite's pragma wants it */
#define CHECKPOINT_PAGES 4000

/* ---- The frame ---- */

static godwit_status load_identity(settle *s) {
    godwit_status status = db_text(
        s->d, &s->a, &s->device_id,
        "SELECT device_id FROM godwit_identity WHERE scope = ?1 AND current = 1", "s", s->scope);
    if (status == GODWIT_NOT_FOUND) { /* nothing was ever sealed for this scope */
        s->device_id = SLICE("");
        s->next_seq = 1;
        return GODWIT_OK;
    }
    if (status == GODWIT_OK) {
        status = db_int(s->d, &s->next_seq,
                        "SELECT next_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", s->scope, s->device_id);
    }
    if (status == GODWIT_OK) {
        status = db_int(s->d, &s->acked_seq,
                        "SELECT acked_seq FROM godwit_identity WHERE scope = ?1 AND device_id = ?2",
                        "ss", s->scope, s->device_id);
    }
    s->new_acked_seq = s->acked_seq;
    return status;
}

static godwit_status prepare(settle *s) {
    int64_t n = 0;
    bool more = false;
    godwit_status status = db_exec(s->d, "UPDATE godwit_state SET capture = 0");
    if (status == GODWIT_OK) {
        status = seal_run(s->g, INT64_MAX, &more);
    }
    if (status == GODWIT_OK) { /* what comes later may be captured already, but is not sealed */
        status = db_int(s->d, &n, "SELECT count(*) FROM godwit_initial", "");
        if (status == GODWIT_OK && n) {
            return client_fail(s->g, GODWIT_BUSY,
                               "the rows of a newly tracked table are being queued");
        }
    }
    if (status == GODWIT_OK) {
        status = client_scope(s->g, &s->a, &s->default_scope);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    if (status == GODWIT_OK) {
        status = load_identity(s);
    }
    if (status == GODWIT_OK) {
        status = db_int(
            s->d, &s->cursor_seq,
            "SELECT coalesce(max(commit_seq), 0) FROM godwit_cursor WHERE scope = ?1 AND state ="
            " 'live'",
            "s", s->scope);
    }
    if (status == GODWIT_OK) {
        status = db_int(
            s->d, &n,
            "SELECT EXISTS (SELECT 1 FROM godwit_cursor WHERE scope = ?1 AND state = 'staging')",
            "s", s->scope);
        s->staging = n != 0;
    }
    if (status == GODWIT_OK) {
        status = db_int(
            s->d, &n,
            "SELECT EXISTS (SELECT 1 FROM godwit_identity AS i, godwit_op AS o WHERE o.scope ="
            " i.scope AND o.state IN ('pending', 'acked', 'parked') AND o.state <> 'retired')",
            "");
        s->overlay = n != 0;
    }
    s->tables = ARENA_ARRAY(&s->a, apply_table *, s->g->registry.count + 1);
    return status == GODWIT_OK && !s->tables ? GODWIT_NOMEM : status;
}

/* Foreign keys: a cascade here would delete rows the server still has; inside a transaction the
 * setting can't be changed. Triggers: where no table has any but Godwit's, writing without them
 * costs half. */
static void switch_off(settle *s) {
    sqlite3 *handle = s->d->handle;
    int64_t others = 1;
    (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_FKEY, -1, &s->foreign_keys);
    if (s->foreign_keys) {
        (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_FKEY, 0, NULL);
    }
    godwit_status status =
        db_int(s->d, &others,
               "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger'"
               " AND name NOT GLOB 'godwit_*')",
               "");
    (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, -1, &s->triggers);
    if (status == GODWIT_OK && !others && s->triggers) {
        (void)sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    } else {
        s->app_triggers = s->triggers != 0;
        s->triggers = 0; /* nothing to put back */
    }
}

static void switch_on(settle *s) {
    if (s->foreign_keys) {
        (void)sqlite3_db_config(s->d->handle, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
    }
    if (s->triggers) {
        (void)sqlite3_db_config(s->d->handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
    }
}

void client_make_room(godwit *g) {
    if (g->db.owned) {
        (void)sqlite3_wal_autocheckpoint(g->db.handle, CHECKPOINT_PAGES);
        (void)sqlite3_exec(g->db.handle, "PRAGMA main.cache_size = " CACHE_KIB, NULL, NULL, NULL);
    }
}

godwit_status settle_open(settle *s, godwit *g, slice scope) {
    memset(s, 0, sizeof *s);
    s->g = g;
    s->d = &g->db;
    s->now_ms = client_wall_ms(g);
    arena_init(&s->a, g->allocator, 0);
    if (!sqlite3_get_autocommit(g->db.handle)) {
        return client_fail(g, GODWIT_MISUSE, "not inside an open transaction: commit it first");
    }
    s->scope = arena_copy(&s->a, scope);
    godwit_status status = s->scope.ptr ? client_registry_refresh(g) : GODWIT_NOMEM;
    if (status != GODWIT_OK) {
        return status;
    }
    client_make_room(g);
    switch_off(s);
    status = db_begin(s->d);
    s->begun = status == GODWIT_OK;
    return s->begun ? prepare(s) : status;
}

static void release(settle *s) {
    sqlite3_stmt *all[] = {s->ops_of_row, s->base_of_row, s->put_base, s->drop_base,
                           s->put_row,    s->drop_row,    s->move_op};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        db_done(s->d, all[i]);
    }
    apply_close(s);
}

static godwit_status save_identity(settle *s) {
    if (s->new_acked_seq <= s->acked_seq) {
        return GODWIT_OK;
    }
    slice key = {(const char *)s->new_acked_key, SHA256_BYTES};
    return db_run(
        s->d,
        "UPDATE godwit_identity SET acked_seq = ?3, floor_seq = ?3, floor_key = ?4 WHERE scope ="
        " ?1 AND device_id = ?2",
        "ssib", s->scope, s->device_id, s->new_acked_seq, key);
}

/* An acknowledged operation whose commit the log has passed without it: another history (4.5). */
static godwit_status check_history(settle *s) {
    int64_t lsn = 0;
    godwit_status status = db_int(
        s->d, &lsn,
        "SELECT o.lsn FROM godwit_op AS o, godwit_cursor AS c WHERE o.scope = ?1 AND o.state ="
        " 'acked' AND o.state <> 'retired' AND c.scope = ?1 AND c.state = 'live' AND o.commit_seq "
        "<= c.commit_seq AND o.device_id IN (SELECT device_id FROM godwit_identity WHERE scope = "
        "?1 AND current >= 0) LIMIT 1",
        "s", s->scope);
    if (status == GODWIT_NOT_FOUND) {
        return GODWIT_OK;
    }
    return status == GODWIT_OK
               ? client_fail(
                     s->g, GODWIT_IDENTITY,
                     "the server has acknowledged operation %lld but its log does not have it: it"
                     " was restored from a backup; the queue is intact",
                     (long long)lsn)
               : status;
}

static godwit_status write_everything(settle *s) {
    godwit_status status = settle_cascade(s);
    if (status == GODWIT_OK) {
        status = settle_images(s);
    }
    if (status == GODWIT_OK) {
        status = settle_move_ops(s);
    }
    if (status == GODWIT_OK) {
        status = event_settled(s);
    }
    if (status == GODWIT_OK && s->closes_conflict) {
        status = settle_end_conflicts(s);
    }
    if (status == GODWIT_OK && s->after_moves) {
        status = s->after_moves(s, s->context);
    }
    if (status == GODWIT_OK) {
        status = check_history(s);
    }
    if (status == GODWIT_OK) {
        status = settle_write(s);
    }
    if (status == GODWIT_OK && s->app_triggers) {
        status = settle_set_right(s);
    }
    if (status == GODWIT_OK) {
        status = settle_remember(s);
    }
    if (status == GODWIT_OK) {
        status = save_identity(s);
    }
    if (status == GODWIT_OK && s->needs_snapshot && !s->staging) {
        status =
            db_run(s->d,
                   "UPDATE godwit_cursor SET state = 'bootstrap', boot_token = NULL WHERE scope ="
                   " ?1",
                   "s", s->scope);
    }
    if (status == GODWIT_OK) {
        status = db_exec(s->d, "UPDATE godwit_state SET capture = 1");
    }
    return status;
}

godwit_status settle_close(settle *s, godwit_status status, settle_counts *counts) {
    if (status == GODWIT_OK) {
        status = write_everything(s);
    }
    release(s);
    if (s->begun) {
        if (status == GODWIT_OK) {
            status = db_commit(s->d);
        }
        if (status != GODWIT_OK) {
            db_rollback(s->d);
        }
    }
    switch_on(s);
    if (status == GODWIT_OK && counts) {
        *counts = s->counts;
    }
    mem_free(s->g->allocator, s->rows);
    mem_free(s->g->allocator, s->events);
    arena_deinit(&s->a);
    return status;
}

/* ---- Cursor ---- */

godwit_status settle_cursor(settle *s, slice text, int64_t seq, int64_t salt, const char *state) {
    godwit_status status = db_run(
        s->d,
        "INSERT INTO godwit_cursor (scope, cursor, commit_seq, salt, state) VALUES (?1, ?2, ?3, ?4,"
        " ?5) ON CONFLICT (scope) DO UPDATE SET cursor = excluded.cursor, commit_seq ="
        " excluded.commit_seq, salt = excluded.salt, state = excluded.state",
        "ssiis", s->scope, text, seq, salt, slice_of(state));
    if (status != GODWIT_OK || strcmp(state, "live") != 0) {
        return status;
    }
    /* everything captured is sealed: no operation needs an older mark */
    status = db_run(s->d, "DELETE FROM godwit_mark WHERE scope = ?1", "s", s->scope);
    if (status == GODWIT_OK) {
        status = db_run(
            s->d,
            "INSERT INTO godwit_mark (lsn, scope, commit_seq, salt) SELECT coalesce(max(lsn), 0),"
            " ?1, ?2, ?3 FROM godwit_log",
            "sii", s->scope, seq, salt);
    }
    return status;
}

/* The log position a cursor stands for: what it says itself, else the last commit of the page. */
static void position_of(settle *s, const pull_answer *page, int64_t *seq, int64_t *salt) {
    wire_cursor cursor;
    if (wire_cursor_parse(&s->a, page->cursor, &cursor) == GODWIT_OK) {
        *seq = cursor.seq;
        *salt = cursor.salt;
    } else if (page->commit_count) {
        *seq = page->commits[page->commit_count - 1].seq;
        *salt = page->commits[page->commit_count - 1].salt;
    }
}

static godwit_status take_page(settle *s, const pull_answer *page) {
    int64_t seq = 0, salt = 0;
    godwit_status status = settle_take_own(s, page);
    if (status == GODWIT_OK && s->staging) {
        position_of(s, page, &seq, &salt);
        return bootstrap_take_page(s, page, seq, salt);
    }
    for (size_t c = 0; c < page->commit_count && status == GODWIT_OK; c++) {
        const wire_commit *commit = &page->commits[c];
        for (size_t i = 0; i < commit->change_count && status == GODWIT_OK; i++) {
            status = settle_take_change(s, commit, &commit->changes[i]);
        }
    }
    if (status == GODWIT_OK) {
        status = db_int(s->d, &seq,
                        "SELECT coalesce(max(commit_seq), 0) FROM godwit_cursor WHERE scope = ?1",
                        "s", s->scope);
    }
    if (status == GODWIT_OK) {
        status =
            db_int(s->d, &salt, "SELECT coalesce(max(salt), 0) FROM godwit_cursor WHERE scope = ?1",
                   "s", s->scope);
    }
    if (status == GODWIT_OK) {
        position_of(s, page, &seq, &salt);
        status = settle_cursor(s, page->cursor, seq, salt, "live");
    }
    return status;
}

/* true: the page follows the stored cursor. Anything else is a late or repeated answer. */
static godwit_status follows(godwit *g, slice scope, slice cursor_before, bool *out) {
    arena a;
    slice stored = {0};
    arena_init(&a, g->allocator, 0);
    godwit_status status = db_text(&g->db, &a, &stored,
                                   "SELECT cursor FROM godwit_cursor WHERE scope = ?1", "s", scope);
    status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    *out = status == GODWIT_OK && slice_equal(stored, cursor_before);
    arena_deinit(&a);
    return status;
}

static bool nothing_new(const push_answer *push, slice cursor_before, const pull_answer *pull) {
    return (!push || push->result_count == 0) &&
           (!pull || (pull->commit_count == 0 && cursor_before.len &&
                      slice_equal(pull->cursor, cursor_before)));
}

godwit_status settle_answer(godwit *g, slice scope, slice cursor_before, const push_answer *push,
                            const pull_answer *pull, settle_counts *counts) {
    settle s;
    bool fits = false;
    memset(counts, 0, sizeof *counts);
    if (nothing_new(push, cursor_before, pull)) {
        return GODWIT_OK;
    }
    godwit_status status = settle_open(&s, g, scope);
    if (status == GODWIT_OK && pull) {
        status = follows(g, scope, cursor_before, &fits);
    }
    if (status == GODWIT_OK && push && push->result_count && g->round_trip_ms >= 0) {
        status = count_average(g, "round_trip_ms", g->round_trip_ms);
    }
    int64_t first = 0, last = 0;
    if (fits && pull->commit_count && !s.staging) {
        first = pull->commits[0].seq;
        last = pull->commits[pull->commit_count - 1].seq;
    }
    if (status == GODWIT_OK && push) {
        status = settle_take_results(&s, push, first, last);
    }
    if (status == GODWIT_OK && fits) {
        status = take_page(&s, pull);
    }
    return settle_close(&s, status, counts);
}

godwit_status settle_push(godwit *g, slice scope, const push_answer *answer,
                          settle_counts *counts) {
    return settle_answer(g, scope, (slice){0}, answer, NULL, counts);
}

godwit_status settle_pull(godwit *g, slice scope, slice cursor_before, const pull_answer *answer,
                          settle_counts *counts) {
    return settle_answer(g, scope, cursor_before, NULL, answer, counts);
}
