/* Reading sides of the PostgreSQL store: each has its own connection and sees one state of the
 * database from begin to end (REPEATABLE READ, READ ONLY). What may be long comes through cursors,
 * a few hundred rows at a time; they live no longer than the transaction, so that a pooler may
 * stand between. */
#include <stdlib.h>

#include "server/store_postgres.h"

#define FETCH_ROWS 500
#define FETCH_TEXT "500"

/* One cursor: rows at hand, and more behind them. */
typedef struct {
    const char *declare, *fetch, *close;
    PGresult *rows;
    int at;
    bool open;
} stream;

#define CURSOR(name, sql)                                                                          \
    {                                                                                              \
        .declare = "DECLARE " name " NO SCROLL CURSOR FOR " sql,                                   \
        .fetch = "FETCH " FETCH_TEXT " FROM " name, .close = "CLOSE " name                         \
    }

enum { COMMITS, CHANGES, LEDGER, LIVE, CONFLICTS, WAITING, STREAMS };

struct store_reader {
    store_base base;
    pg_link link;
    const store_tables *tables;
    stream streams[STREAMS];
    bool change_done;
    int conflicts; /* the stream that lists conflicts now */
    arena memory;  /* of what is borrowed from one row */
    arena page;    /* of the live rows at hand */
    const pg_table *live;
    store_role role;
    slice scope;             /* of what is open */
    pg_sight *seen[STREAMS]; /* [rows at hand] of streams that name rows, where a role reads */
    arena sights[STREAMS];   /* their memory */
    PGresult *typed;         /* tracked rows of the live rows at hand */
    int *typed_at;           /* [rows at hand] row of `typed`, -1 = none */
};

#define COMMIT_COLUMNS                                                                             \
    "c.commit_seq, c.salt, (extract(epoch FROM c.committed_at) * 1000)::bigint, c.first_seq,"      \
    " c.last_seq, c.device_id, c.user_id, c.outcome"
#define CHANGE_COLUMNS                                                                             \
    "h.commit_seq, h.prev_seq, h.tbl, h.pk, h.kind, h.full_row, h.clock_seq, h.vclock, h.cols"

static const stream cursors[STREAMS] = {
    [COMMITS] = CURSOR("commits", "SELECT " COMMIT_COLUMNS
                                  " FROM godwit.commit c WHERE c.scope = $1 AND c.commit_seq > $2"
                                  " ORDER BY c.commit_seq"),
    [CHANGES] = CURSOR("changes", "SELECT " CHANGE_COLUMNS
                                  " FROM godwit.change h WHERE h.scope = $1 AND h.commit_seq > $2"
                                  " ORDER BY h.commit_seq, h.idx"),
    [LEDGER] =
        CURSOR("ledger", "SELECT seq, lsn, commit_seq, lineage, op_key, outcome, code, detail,"
                         " conflicts FROM godwit.op WHERE scope = $1 AND device_id = $2"
                         " AND seq BETWEEN $3 AND $4 ORDER BY seq"),
    [LIVE] = CURSOR("live", "SELECT r.pk, r.ver, r.created_seq, r.vclock, c.device_id"
                            " FROM godwit.row r LEFT JOIN godwit.commit c ON r.vclock IS NULL"
                            " AND r.created_seq > 0 AND c.scope = $1 AND c.commit_seq ="
                            " r.created_ver WHERE r.scope = $1 AND r.tbl = $2 AND r.pk > $3"
                            " AND r.del_ver IS NULL ORDER BY r.pk"),
    [CONFLICTS] =
        CURSOR("conflicts", "SELECT " PG_CONFLICT_COLUMNS " FROM godwit.conflict WHERE scope = $1"
                            " AND ($2 = '' OR state = $2) AND commit_seq < $3"
                            " ORDER BY commit_seq DESC, length(conflict_id),"
                            " conflict_id"),
    [WAITING] = CURSOR("waiting", "SELECT " PG_CONFLICT_COLUMNS
                                  " FROM godwit.conflict WHERE scope = $1 AND state = 'open'"
                                  " AND conflict_id > $2 ORDER BY conflict_id"),
};

/* ---- streams ---- */

static void stream_reset(stream *s) {
    PQclear(s->rows);
    s->rows = NULL;
    s->at = 0;
    s->open = false;
}

/* With the parameters made before. Rows come with the next stream_ready. */
static godwit_status stream_open(store_reader *r, int which) {
    stream *s = &r->streams[which];
    pg_link *l = &r->link;
    ASSERT(!s->open);
    godwit_status status = pg_send(l, s->declare);
    if (status == GODWIT_OK) {
        s->open = true;
        status = pg_send(l, s->fetch);
    }
    return status;
}

/* Takes the rows of a fetch that has been synced: result n. */
static void stream_take(store_reader *r, int which, size_t n) {
    stream *s = &r->streams[which];
    PQclear(s->rows);
    s->rows = pg_take(&r->link, n);
    s->at = 0;
}

/* The row that a row of the feed or a conflict is about. */
static pg_sight sight_of(store_reader *r, arena *a, int which, int at) {
    const PGresult *rows = r->streams[which].rows;
    bool feed = which == CHANGES;
    slice table = pg_field(rows, at, feed ? 2 : 5);
    slice id = pg_field(rows, at, feed ? 3 : 6);
    if (feed && slice_is(table, "_conflicts")) {
        const json *record = NULL;
        table = id = (slice){0};
        if (json_parse(a, pg_field_copy(a, rows, at, 8), &record, NULL) != GODWIT_OK ||
            !json_text(json_get(record, "entityType"), &table) ||
            !json_text(json_get(record, "entityId"), &id)) {
            return (pg_sight){0};
        }
    }
    const schema_table *t = schema_find(r->tables->schema, table);
    return (pg_sight){.info = t ? pg_table_of(r->tables, t) : NULL, .id = id};
}

/* What the role sees of the rows that the rows at hand are about. */
static godwit_status stream_look(store_reader *r, int which) {
    stream *s = &r->streams[which];
    arena *a = &r->sights[which];
    if (r->role.name.len == 0 || (which != CHANGES && which != CONFLICTS && which != WAITING)) {
        return GODWIT_OK;
    }
    arena_reset(a);
    size_t count = (size_t)PQntuples(s->rows);
    r->seen[which] = ARENA_ARRAY(a, pg_sight, count);
    for (size_t i = 0; r->seen[which] && i < count; i++) {
        r->seen[which][i] = sight_of(r, a, which, (int)i);
    }
    return r->seen[which] && !a->failed
               ? pg_role_look(&r->link, a, &r->role, r->scope, r->seen[which], count)
               : GODWIT_NOMEM;
}

/* Is there a row at s->at? */
static godwit_status stream_more(store_reader *r, int which, bool *row) {
    stream *s = &r->streams[which];
    pg_link *l = &r->link;
    godwit_status status = GODWIT_OK;
    *row = false;
    if (s->rows && s->at >= PQntuples(s->rows) && PQntuples(s->rows) == FETCH_ROWS) {
        size_t n = l->sent;
        status = pg_send(l, s->fetch);
        if (status == GODWIT_OK) {
            status = pg_sync(l);
        }
        if (status == GODWIT_OK) {
            stream_take(r, which, n);
            status = stream_look(r, which);
        }
    }
    *row = status == GODWIT_OK && s->rows && s->at < PQntuples(s->rows);
    return status;
}

static void stream_close(store_reader *r, int which) {
    stream *s = &r->streams[which];
    if (s->open && r->link.transaction && pg_send(&r->link, s->close) != GODWIT_OK) {
        pg_link_drop(&r->link); /* what comes next says so */
    }
    stream_reset(s);
}

/* Opens one stream and brings its first rows. */
static godwit_status stream_start(store_reader *r, int which) {
    size_t n = r->link.sent + 1;
    godwit_status status = stream_open(r, which);
    if (status == GODWIT_OK) {
        status = pg_sync(&r->link);
    }
    if (status == GODWIT_OK) {
        stream_take(r, which, n);
        status = stream_look(r, which);
    }
    return status;
}

/* ---- life ---- */

godwit_status pg_reader_open(store *st, store_reader **out) {
    *out = NULL;
    store_reader *r = calloc(1, sizeof *r);
    if (!r) {
        return GODWIT_NOMEM;
    }
    r->base.verbs = &store_postgres_verbs;
    arena_init(&r->memory, NULL, 0);
    arena_init(&r->page, NULL, 0);
    for (int i = 0; i < STREAMS; i++) {
        arena_init(&r->sights[i], NULL, 0);
    }
    memcpy(r->streams, cursors, sizeof cursors);
    godwit_status status = pg_link_init(&r->link, st->link.url);
    if (status != GODWIT_OK) {
        pg_reader_close(r);
        return status;
    }
    *out = r;
    return GODWIT_OK;
}

void pg_reader_close(store_reader *r) {
    for (int i = 0; i < STREAMS; i++) {
        stream_reset(&r->streams[i]);
        arena_deinit(&r->sights[i]);
    }
    PQclear(r->typed);
    arena_deinit(&r->memory);
    arena_deinit(&r->page);
    pg_link_deinit(&r->link);
    free(r);
}

const char *pg_reader_message(const store_reader *r) {
    return r->link.message;
}

godwit_status pg_read_begin(store_reader *r, const store_tables *tables) {
    r->tables = tables;
    return pg_transaction(&r->link, false);
}

void pg_read_as(store_reader *r, const store_role *role) {
    r->role = *role;
}

void pg_read_end(store_reader *r) {
    pg_link *l = &r->link;
    for (int i = 0; i < STREAMS; i++) {
        stream_reset(&r->streams[i]);
    }
    if (!l->transaction) {
        return;
    }
    bool settled = l->sent == 0 || pg_sync(l) != GODWIT_IO;
    if (settled && l->conn && (pg_send(l, "ROLLBACK") != GODWIT_OK || pg_sync(l) != GODWIT_OK)) {
        pg_link_drop(l);
    }
    l->transaction = false;
}

/* ---- scope, salt, device ---- */

godwit_status pg_read_scope(store_reader *r, slice scope, store_scope *out) {
    return pg_scope_read(&r->link, scope, out);
}

godwit_status pg_read_salt(store_reader *r, slice scope, int64_t seq, int64_t *salt) {
    PGresult *found = NULL;
    *salt = 0;
    if (seq == 0) {
        return GODWIT_OK;
    }
    pg_text(&r->link, scope);
    pg_int(&r->link, seq);
    godwit_status status = pg_query(
        &r->link, "SELECT salt FROM godwit.commit WHERE scope = $1 AND commit_seq = $2", &found);
    if (status == GODWIT_OK && PQntuples(found) == 0) {
        return GODWIT_NOT_FOUND;
    }
    if (status == GODWIT_OK) {
        *salt = pg_field_int(found, 0, 0);
    }
    return status;
}

godwit_status pg_read_device(store_reader *r, arena *a, slice scope, slice device_id,
                             decide_device *out) {
    return pg_device_read(&r->link, a, scope, device_id, out);
}

godwit_status pg_read_grants(store_reader *r, arena *a, const char *sql, slice sub, slice claims,
                             store_grants *out) {
    godwit_status status = pg_grants(&r->link, a, sql, sub, claims, out);
    pg_read_end(r);
    return status;
}

/* ---- feed ---- */

static godwit_status read_commit(const PGresult *r, int row, store_commit_row *out) {
    *out = (store_commit_row){.seq = pg_field_int(r, row, 0),
                              .salt = pg_field_int(r, row, 1),
                              .at_ms = pg_field_int(r, row, 2),
                              .first_seq = pg_field_int(r, row, 3),
                              .last_seq = pg_field_int(r, row, 4),
                              .device_id = pg_field(r, row, 5),
                              .user_id = pg_field(r, row, 6)};
    return op_outcome_parse(pg_field(r, row, 7), &out->outcome) ? GODWIT_OK : GODWIT_CORRUPT;
}

static void read_change(const PGresult *r, int row, int from, store_change_row *out) {
    *out = (store_change_row){.commit_seq = pg_field_int(r, row, from),
                              .prev_seq = pg_field_int(r, row, from + 1),
                              .table = pg_field(r, row, from + 2),
                              .id = pg_field(r, row, from + 3),
                              .is_delete = slice_is(pg_field(r, row, from + 4), "D"),
                              .full = slice_is(pg_field(r, row, from + 5), "t"),
                              .clock_seq = pg_field_int(r, row, from + 6),
                              .clock = pg_field(r, row, from + 7),
                              .columns = pg_field(r, row, from + 8)};
}

godwit_status pg_feed_open(store_reader *r, slice scope, int64_t after_seq) {
    pg_link *l = &r->link;
    size_t n = l->sent;
    r->scope = scope;
    pg_text(l, scope);
    pg_int(l, after_seq);
    godwit_status status = stream_open(r, COMMITS);
    pg_text(l, scope);
    pg_int(l, after_seq);
    if (status == GODWIT_OK) {
        status = stream_open(r, CHANGES);
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status == GODWIT_OK) {
        stream_take(r, COMMITS, n + 1);
        stream_take(r, CHANGES, n + 3);
        status = stream_look(r, CHANGES);
    }
    pg_give_up(l);
    return status;
}

godwit_status pg_feed_commit(store_reader *r, store_commit_row *out, bool *row) {
    stream *s = &r->streams[COMMITS];
    godwit_status status = stream_more(r, COMMITS, row);
    return *row ? read_commit(s->rows, s->at++, out) : status;
}

godwit_status pg_feed_change(store_reader *r, int64_t seq, store_change_row *out, bool *row) {
    stream *s = &r->streams[CHANGES];
    bool more = true;
    *row = false;
    for (;;) {
        godwit_status status = stream_more(r, CHANGES, &more);
        if (status != GODWIT_OK || !more) {
            return status;
        }
        int64_t at = pg_field_int(s->rows, s->at, 0);
        if (at > seq) {
            return GODWIT_OK; /* kept for the next commit */
        }
        s->at++;
        if (at == seq) {
            read_change(s->rows, s->at - 1, 0, out);
            *row =
                r->role.name.len == 0 || pg_role_show(&r->role, &r->seen[CHANGES][s->at - 1], out);
            if (*row) {
                return GODWIT_OK;
            }
        }
    }
}

void pg_feed_close(store_reader *r) {
    stream_close(r, COMMITS);
    stream_close(r, CHANGES);
}

/* ---- ledger ---- */

godwit_status pg_ledger_open(store_reader *r, slice scope, slice device_id, int64_t first,
                             int64_t last) {
    pg_text(&r->link, scope);
    pg_text(&r->link, device_id);
    pg_int(&r->link, first);
    pg_int(&r->link, last);
    return stream_start(r, LEDGER);
}

godwit_status pg_ledger_next(store_reader *r, store_ledger_row *out, bool *row) {
    stream *s = &r->streams[LEDGER];
    godwit_status status = stream_more(r, LEDGER, row);
    if (!*row) {
        return status;
    }
    int at = s->at++;
    arena_reset(&r->memory);
    *out = (store_ledger_row){.seq = pg_field_int(s->rows, at, 0),
                              .lsn = pg_field_int(s->rows, at, 1),
                              .commit_seq = pg_field_int(s->rows, at, 2),
                              .lineage = pg_field(s->rows, at, 3),
                              .key = pg_field_bytea(&r->memory, s->rows, at, 4),
                              .detail = pg_field(s->rows, at, 7),
                              .conflicts = pg_field(s->rows, at, 8)};
    (void)op_code_parse(pg_field(s->rows, at, 6), &out->code);
    return out->key.len == SHA256_BYTES && op_outcome_parse(pg_field(s->rows, at, 5), &out->outcome)
               ? GODWIT_OK
               : GODWIT_CORRUPT;
}

void pg_ledger_close(store_reader *r) {
    stream_close(r, LEDGER);
}

/* ---- live rows ---- */

/* Tracked rows of the live rows at hand. */
static godwit_status bring_typed(store_reader *r) {
    stream *s = &r->streams[LIVE];
    pg_link *l = &r->link;
    size_t count = (size_t)PQntuples(s->rows);
    arena_reset(&r->page);
    PQclear(r->typed);
    r->typed = NULL;
    r->typed_at = ARENA_ARRAY(&r->page, int, count);
    slice *ids = ARENA_ARRAY(&r->page, slice, count);
    if (!r->typed_at || !ids) {
        return GODWIT_NOMEM;
    }
    if (count == 0) {
        return GODWIT_OK;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = pg_field(s->rows, (int)i, 0);
        r->typed_at[i] = -1;
    }
    godwit_status status = pg_role_enter(l, &r->role);
    size_t n = l->sent;
    if (status == GODWIT_OK) {
        status = pg_key_arrays(l, &r->page, r->live, ids, count);
    }
    if (status == GODWIT_OK) {
        status = pg_send(l, r->live->load_sql);
    }
    if (status == GODWIT_OK) {
        status = pg_role_leave(l);
    }
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status == GODWIT_OK) {
        r->typed = pg_take(l, n);
    }
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r->typed); i++) {
        r->typed_at[pg_field_int(r->typed, i, 0) - 1] = i;
    }
    return status;
}

godwit_status pg_live_open(store_reader *r, slice scope, const schema_table *t, slice after) {
    pg_link *l = &r->link;
    r->live = pg_table_of(r->tables, t);
    pg_text(l, scope);
    pg_text(l, t->name);
    pg_text(l, after.ptr ? after : SLICE(""));
    godwit_status status = stream_start(r, LIVE);
    return status == GODWIT_OK ? bring_typed(r) : status;
}

static godwit_status live_values(store_reader *r, int row, store_live_row *out) {
    const schema_table *t = r->live->table;
    value *values = ARENA_ARRAY(&r->memory, value, t->column_count);
    godwit_status status = values ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        status =
            pg_value_read(&r->live->columns[i], r->typed, row, (int)i + 1, &r->memory, &values[i]);
    }
    out->values = values;
    return status;
}

godwit_status pg_live_next(store_reader *r, store_live_row *out, bool *row) {
    stream *s = &r->streams[LIVE];
    for (;;) {
        PGresult *before = s->rows;
        godwit_status status = stream_more(r, LIVE, row);
        if (status == GODWIT_OK && s->rows != before) {
            status = bring_typed(r);
        }
        if (status != GODWIT_OK || !*row) {
            return status;
        }
        int at = s->at++;
        if (r->typed_at[at] < 0) {
            continue; /* gone by other hands, or nothing for this role */
        }
        arena_reset(&r->memory);
        *out = (store_live_row){.id = pg_field(s->rows, at, 0),
                                .ver = pg_field_int(s->rows, at, 1),
                                .clock = pg_field(s->rows, at, 3)};
        if (!out->clock.ptr) {
            out->clock_seq = pg_field_int(s->rows, at, 2);
            out->clock_device = pg_field(s->rows, at, 4);
        }
        return live_values(r, r->typed_at[at], out);
    }
}

void pg_live_close(store_reader *r) {
    stream_close(r, LIVE);
    PQclear(r->typed);
    r->typed = NULL;
}

/* ---- conflicts and history ---- */

godwit_status pg_conflicts_open(store_reader *r, slice scope, slice state, int64_t before) {
    r->conflicts = CONFLICTS;
    r->scope = scope;
    pg_text(&r->link, scope);
    pg_text(&r->link, state.ptr ? state : SLICE(""));
    pg_int(&r->link, before > 0 ? before : INT64_MAX);
    return stream_start(r, CONFLICTS);
}

godwit_status pg_conflicts_waiting(store_reader *r, slice scope, slice after) {
    r->conflicts = WAITING;
    r->scope = scope;
    pg_text(&r->link, scope);
    pg_text(&r->link, after.ptr ? after : SLICE(""));
    return stream_start(r, WAITING);
}

godwit_status pg_conflicts_next(store_reader *r, store_conflict_row *out, bool *row) {
    stream *s = &r->streams[r->conflicts];
    godwit_status status = stream_more(r, r->conflicts, row);
    while (*row && r->role.name.len && !r->seen[r->conflicts][s->at].visible) {
        s->at++;
        status = stream_more(r, r->conflicts, row);
    }
    if (*row) {
        arena_reset(&r->memory);
        pg_conflict_read(s->rows, s->at++, &r->memory, out);
        status = r->memory.failed ? GODWIT_NOMEM : GODWIT_OK;
    }
    return status;
}

void pg_conflicts_close(store_reader *r) {
    stream_close(r, r->conflicts);
}

godwit_status pg_history(store_reader *r, slice scope, const schema_table *t, slice id, int64_t seq,
                         store_commit_row *commit, store_change_row *change) {
    pg_link *l = &r->link;
    PGresult *found = NULL;
    godwit_status status = GODWIT_OK;
    if (r->role.name.len) {
        pg_sight sight = {.info = pg_table_of(r->tables, t), .id = id};
        arena_reset(&r->memory);
        status = pg_role_look(l, &r->memory, &r->role, scope, &sight, 1);
        if (status != GODWIT_OK || !sight.visible) {
            return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
        }
    }
    pg_text(l, scope);
    pg_text(l, t->name);
    pg_text(l, id.ptr ? id : SLICE(""));
    pg_int(l, seq);
    status = pg_query(l,
                      "SELECT " COMMIT_COLUMNS ", " CHANGE_COLUMNS
                      " FROM godwit.change h JOIN godwit.commit c USING (scope, commit_seq)"
                      " WHERE h.scope = $1 AND h.tbl = $2 AND h.pk = $3 AND h.commit_seq ="
                      " CASE WHEN $4 > 0 THEN $4 ELSE (SELECT ver FROM godwit.row r"
                      "  WHERE r.scope = $1 AND r.tbl = $2 AND r.pk = $3) END",
                      &found);
    if (status != GODWIT_OK || PQntuples(found) == 0) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    read_change(found, 0, 8, change);
    return read_commit(found, 0, commit);
}
