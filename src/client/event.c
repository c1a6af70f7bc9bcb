/* Writing, keeping and delivering events. See event.h. */
#include "client/event.h"
#include "client/op_sql.h"

#include "core/limits.h"

#define EVENTS_MAX       100000 /* kept for a host that does not come; older ones go */
#define DELIVER_BATCH    100
#define TEXT_OF(x)       TEXT_OF_VALUE(x)
#define TEXT_OF_VALUE(x) #x

static const char *const kind_names[] = {
    [GODWIT_EVENT_QUEUED] = "queued",           [GODWIT_EVENT_SENT] = "sent",
    [GODWIT_EVENT_OUTCOME] = "outcome",         [GODWIT_EVENT_CONFLICT] = "conflict",
    [GODWIT_EVENT_DEAD_LETTER] = "dead_letter", [GODWIT_EVENT_ONLINE] = "online",
    [GODWIT_EVENT_OFFLINE] = "offline",         [GODWIT_EVENT_PROGRESS] = "progress",
};

const char *godwit_event_name(godwit_event_kind kind) {
    return kind > 0 && (size_t)kind < COUNT_OF(kind_names) ? kind_names[kind] : "unknown";
}

void event_view(bytes *b, int64_t further_keys) {
    (void)further_keys;
    bytes_text(b,
               "CREATE VIEW godwit_events AS SELECT seq, strftime('%Y-%m-%dT%H:%M:%fZ', at_ms /"
               " 86400000.0 + 2440587.5) AS at, kind, ref AS id, scope, entity_type, entity_id,"
               " outcome, code, detail, n AS count FROM godwit_event WHERE seq > coalesce((SELECT"
               " CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'events_done'), 0)");
}

/* ---- Writing ---- */

godwit_status event_wanted(godwit *g, bool *out) {
    int64_t wanted = 0;
    godwit_status status = client_meta_int(g, "events", 0, &wanted);
    *out = wanted != 0;
    return status;
}

static godwit_status trim(godwit *g) {
    return db_exec(&g->db, "DELETE FROM godwit_event WHERE seq <= (SELECT max(seq) FROM"
                           " godwit_event) - " TEXT_OF(EVENTS_MAX));
}

#define INSERT                                                                                     \
    "INSERT INTO godwit_event (at_ms, kind, ref, scope, entity_type, entity_id, outcome, code,"    \
    " detail, n) "

godwit_status event_queued(godwit *g, int64_t after) {
    bool wanted = false;
    godwit_status status = event_wanted(g, &wanted);
    if (status != GODWIT_OK || !wanted) {
        return status;
    }
    status = db_run(
        &g->db,
        INSERT "SELECT ?1, CASE state WHEN 'rejected' THEN 'dead_letter' ELSE 'queued'"
               " END, " OP_ID ", scope, entity_type, entity_id, CASE state WHEN 'rejected' THEN"
               " 'rejected' ELSE '' END, coalesce(last_error_code, ''),"
               " coalesce(last_error, ''), 1 FROM godwit_op AS o WHERE lsn > ?2 ORDER BY lsn",
        "ii", client_wall_ms(g), after);
    return status == GODWIT_OK ? trim(g) : status;
}

/* Known for the first time, or known better. */
static bool is_news(const own_event *e) {
    return !e->hollow && (e->from != OP_ACKED || e->event == OP_EVENT_REJECT ||
                          e->event == OP_EVENT_OPEN_CONFLICT);
}

static godwit_status tell_outcome(settle *s, sqlite3_stmt *stmt, const own_event *e,
                                  const char *kind) {
    godwit_status status = db_bind_int(s->d, stmt, 1, s->now_ms);
    if (status == GODWIT_OK) {
        status = db_bind_slice(s->d, stmt, 2, slice_of(kind));
    }
    if (status == GODWIT_OK) {
        status = db_bind_int(s->d, stmt, 3, e->lsn);
    }
    if (status == GODWIT_OK) {
        status = db_status(s->d, sqlite3_step(stmt));
        sqlite3_reset(stmt);
    }
    return status;
}

godwit_status event_settled(settle *s) {
    sqlite3_stmt *stmt = NULL;
    bool wanted = false;
    godwit_status status = s->event_count ? event_wanted(s->g, &wanted) : GODWIT_OK;
    if (status != GODWIT_OK || !wanted) {
        return status;
    }
    status = db_prepare(
        s->d,
        INSERT "SELECT ?1, ?2, " OP_ID
               ", scope, entity_type, entity_id, CASE WHEN state IN ('rejected',"
               " 'blocked') THEN 'rejected' WHEN state = 'conflict' THEN 'conflict' ELSE"
               " coalesce(outcome, '') END, CASE WHEN state IN ('rejected', 'blocked', 'conflict')"
               " THEN coalesce(last_error_code, '') ELSE '' END, CASE WHEN state IN ('rejected',"
               " 'blocked', 'conflict') THEN coalesce(last_error, '') ELSE '' END, 1 FROM godwit_op"
               " AS o WHERE lsn = ?3",
        &stmt);
    for (size_t i = 0; i < s->event_count && status == GODWIT_OK; i++) {
        const own_event *e = &s->events[i];
        if (!is_news(e)) {
            continue;
        }
        status = tell_outcome(s, stmt, e, "outcome");
        if (status == GODWIT_OK && (e->event == OP_EVENT_REJECT || e->event == OP_EVENT_BLOCK ||
                                    e->event == OP_EVENT_OPEN_CONFLICT)) {
            status = tell_outcome(s, stmt, e, "dead_letter");
        }
    }
    db_done(s->d, stmt);
    return status == GODWIT_OK ? trim(s->g) : status;
}

godwit_status event_conflict(settle *s, slice conflict_id, slice kind, slice state, slice entity,
                             slice entity_id) {
    bool wanted = false;
    int64_t same = 0;
    godwit_status status = event_wanted(s->g, &wanted);
    if (status == GODWIT_OK && wanted) {
        status = db_int(s->d, &same,
                        "SELECT EXISTS (SELECT 1 FROM godwit_conflict WHERE scope = ?1 AND"
                        " conflict_id = ?2 AND state = ?3)",
                        "sss", s->scope, conflict_id, state);
    }
    if (status != GODWIT_OK || !wanted || same) {
        return status;
    }
    return db_run(s->d, INSERT "VALUES (?1, 'conflict', ?2, ?3, ?4, ?5, ?6, ?7, '', 1)", "issssss",
                  s->now_ms, conflict_id, s->scope, entity, entity_id, state, kind);
}

godwit_status event_sent(godwit *g, slice scope, int64_t first_seq, int64_t count) {
    bool wanted = false;
    godwit_status status = event_wanted(g, &wanted);
    if (status != GODWIT_OK || !wanted) {
        return status;
    }
    return db_run(&g->db,
                  INSERT
                  "SELECT ?1, 'sent', " OP_ID ", o.scope, o.entity_type, o.entity_id, '', '', '',"
                  " ?4 FROM godwit_op AS o JOIN godwit_identity AS i ON i.scope = o.scope AND"
                  " i.current AND i.device_id = o.device_id WHERE o.scope = ?2 AND"
                  " o.sequence_number = ?3 AND o.state IN ('pending', 'rejected', 'blocked')"
                  " AND o.state <> 'retired' LIMIT 1",
                  "isii", client_wall_ms(g), scope, first_seq, count);
}

godwit_status event_online(godwit *g, bool online, slice detail) {
    bool wanted = false;
    int64_t before = -1;
    godwit_status status = event_wanted(g, &wanted);
    if (status == GODWIT_OK && wanted) {
        status = client_meta_int(g, "online", -1, &before);
    }
    if (status != GODWIT_OK || !wanted || before == (int64_t)online) {
        return status;
    }
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_set_int(g, "online", online);
    if (status == GODWIT_OK) {
        status = db_run(&g->db, INSERT "VALUES (?1, ?2, '', '', '', '', '', '', ?3, 0)", "iss",
                        client_wall_ms(g),
                        slice_of(kind_names[online ? GODWIT_EVENT_ONLINE : GODWIT_EVENT_OFFLINE]),
                        detail.ptr ? detail : SLICE(""));
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}

/* ---- Delivering ---- */

static godwit_event_kind kind_of(slice name) {
    for (size_t i = 1; i < COUNT_OF(kind_names); i++) {
        if (slice_is(name, kind_names[i])) {
            return (godwit_event_kind)i;
        }
    }
    return GODWIT_EVENT_UNKNOWN;
}

/* The statement must not be open while the host is called: texts are copied. */
static godwit_status load_batch(godwit *g, arena *a, godwit_event *events, size_t *count) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    *count = 0;
    godwit_status status = db_prepare(
        &g->db,
        "SELECT seq, at_ms, kind, ref, scope, entity_type, entity_id, outcome, code, detail, n FROM"
        " godwit_event WHERE seq > coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
        " 'events_done'), 0) ORDER BY seq LIMIT " TEXT_OF(DELIVER_BATCH),
        &stmt);
    while (status == GODWIT_OK && row) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        godwit_event *e = &events[(*count)++];
        *e = (godwit_event){.seq = sqlite3_column_int64(stmt, 0),
                            .at_ms = sqlite3_column_int64(stmt, 1),
                            .kind = kind_of(db_column_slice(stmt, 2)),
                            .count = sqlite3_column_int64(stmt, 10)};
        const char **const texts[] = {&e->id,      &e->scope, &e->entity_type, &e->entity_id,
                                      &e->outcome, &e->code,  &e->detail};
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
            *texts[i] = arena_copy(a, db_column_slice(stmt, (int)i + 3)).ptr;
        }
        status = a->failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    db_done(&g->db, stmt);
    return status;
}

static godwit_status done(godwit *g, int64_t seq) {
    int64_t before = 0, newest = 0;
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_int(g, "events_done", 0, &before);
    if (status == GODWIT_OK) {
        status = db_int(&g->db, &newest, "SELECT coalesce(max(seq), 0) FROM godwit_event", "");
    }
    seq = seq < newest ? seq : newest; /* what has not happened yet can't have been read */
    if (status == GODWIT_OK && seq > before) {
        status = client_meta_set_int(g, "events_done", seq);
        if (status == GODWIT_OK) {
            status = db_run(&g->db,
                            "DELETE FROM godwit_event WHERE seq <= ?1 AND seq < (SELECT max(seq)"
                            " FROM godwit_event)",
                            "i", seq);
        }
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}

godwit_status event_deliver(godwit *g) {
    const godwit_host *host = &g->options.host;
    size_t count = DELIVER_BATCH;
    godwit_status status = GODWIT_OK;
    arena a;
    if (!host->on_event || !sqlite3_get_autocommit(g->db.handle)) {
        return GODWIT_OK;
    }
    arena_init(&a, g->allocator, 0);
    while (status == GODWIT_OK && count == DELIVER_BATCH) {
        arena_reset(&a);
        godwit_event *events = ARENA_ARRAY(&a, godwit_event, DELIVER_BATCH);
        status = events ? load_batch(g, &a, events, &count) : GODWIT_NOMEM;
        for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
            host->on_event(host->context, &events[i]);
        }
        if (status == GODWIT_OK && count) { /* only now: what a crash cuts off comes again */
            status = done(g, events[count - 1].seq);
        }
    }
    arena_deinit(&a);
    return status;
}

void event_progress(godwit *g, slice scope, int64_t progress, int64_t total) {
    char name[NAME_BYTES_MAX + 1];
    const godwit_host *host = &g->options.host;
    if (!host->on_event) {
        return;
    }
    size_t len = scope.len < NAME_BYTES_MAX ? scope.len : NAME_BYTES_MAX;
    memcpy(name, scope.ptr ? scope.ptr : "", len);
    name[len] = '\0';
    const godwit_event e = {.kind = GODWIT_EVENT_PROGRESS,
                            .at_ms = client_wall_ms(g),
                            .id = "",
                            .scope = name,
                            .entity_type = "",
                            .entity_id = "",
                            .outcome = "",
                            .code = "",
                            .detail = "",
                            .count = progress,
                            .total = total};
    host->on_event(host->context, &e);
}

/* ---- For hosts that ask ---- */

godwit_status event_keep(godwit *g, bool on) {
    bool wanted = false;
    godwit_status status = event_wanted(g, &wanted);
    if (status != GODWIT_OK || wanted == on) {
        return status;
    }
    status = db_begin(&g->db);
    if (status == GODWIT_OK) {
        status = client_meta_set_int(g, "events", on);
        if (status == GODWIT_OK) { /* what was so before is no news, and nobody is online yet */
            status = client_meta_set(g, "online", (slice){0});
        }
        if (status == GODWIT_OK && !on) {
            status = db_exec(&g->db, "DELETE FROM godwit_event WHERE seq < (SELECT max(seq) FROM"
                                     " godwit_event)");
        }
        if (status == GODWIT_OK) {
            status = db_commit(&g->db);
        }
        if (status != GODWIT_OK) {
            db_rollback(&g->db);
        }
    }
    return status;
}

godwit_status godwit_events_keep(godwit *g, int on) {
    godwit_status status = client_enter(g);
    return status == GODWIT_OK ? client_leave(g, event_keep(g, on != 0)) : status;
}

godwit_status godwit_events_done(godwit *g, int64_t seq) {
    godwit_status status = client_enter(g);
    if (status == GODWIT_OK && seq < 0) {
        return client_leave(g, client_fail(g, GODWIT_INVALID, "events are numbered from 1"));
    }
    return status == GODWIT_OK ? client_leave(g, done(g, seq)) : status;
}
