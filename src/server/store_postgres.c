/* The PostgreSQL store: life, transactions, and the small tables.
 *
 * One connection writes. A transaction is READ COMMITTED and begins with the row lock of its scope:
 * that serializes all writers of the scope on all nodes, and nothing else is locked on purpose.
 * Statements are sent as they come and waited for only where their results are needed. A commit
 * whose answer is lost is unknown: the caller goes back, and the keys tell what happened. */
#include "server/store_postgres.h"

#include <stdio.h>
#include <stdlib.h>

const store_verbs store_postgres_verbs = {
#define PG_VERB(result, name, parameters, from, arguments) .name = pg_##name,
#define PG_VOID(name, parameters, from, arguments)         .name = pg_##name,
    STORE_VERBS(PG_VERB, PG_VOID)
#undef PG_VERB
#undef PG_VOID
};

/* ---- life ---- */

/* More than one statement, outside any transaction of ours. */
static godwit_status run_script(pg_link *l, const char *sql) {
    bool done = PQexitPipelineMode(l->conn) == 1;
    PGresult *r = done ? PQexec(l->conn, sql) : NULL;
    ExecStatusType kind = PQresultStatus(r);
    done = kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK;
    if (!done) {
        const char *why = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
        snprintf(l->message, sizeof l->message, "%s", why ? why : "the connection was lost");
    }
    PQclear(r);
    return PQenterPipelineMode(l->conn) == 1 && done ? GODWIT_OK : GODWIT_IO;
}

static godwit_status schema_version(pg_link *l, int64_t *out) {
    PGresult *r = NULL;
    *out = 0;
    godwit_status status = pg_query(l, "SELECT to_regclass('godwit.meta') IS NOT NULL", &r);
    if (status != GODWIT_OK || PQgetvalue(r, 0, 0)[0] != 't') {
        return status;
    }
    status = pg_query(l, "SELECT v FROM godwit.meta WHERE k = 'schema_version'", &r);
    if (status == GODWIT_OK) {
        *out = PQntuples(r) ? pg_field_int(r, 0, 0) : 0;
    }
    return status;
}

/* Makes the schema where there is none, and brings an older one up to date. Servers that start at
 * the same time may get in each other's way: then one of them looks again. */
static godwit_status prepare_schema(pg_link *l, char *message) {
    int64_t version = 0;
    godwit_status status = schema_version(l, &version);
    for (int tries = 0; status == GODWIT_OK && version < PG_DDL_VERSION; tries++) {
        status = run_script(l, pg_ddl);
        if (status != GODWIT_OK && tries == 1) {
            snprintf(message, 512,
                     "schema godwit can't be %s: %.200s; run the output of 'godwit pg install' as a"
                     " role that may",
                     version ? "brought up to date" : "made", l->message);
            return status;
        }
        status = schema_version(l, &version);
    }
    if (status == GODWIT_OK && version > PG_DDL_VERSION) {
        snprintf(message, 512,
                 "schema godwit has version %lld, this server knows version %d: use a newer server",
                 (long long)version, PG_DDL_VERSION);
        return GODWIT_INVALID;
    }
    if (status != GODWIT_OK) {
        snprintf(message, 512, "the database can't be used: %.400s", l->message);
    }
    return status;
}

godwit_status store_postgres_open(const char *url, store **out, char *message) {
    *out = NULL;
    store *st = calloc(1, sizeof *st);
    if (!st) {
        snprintf(message, 512, "out of memory");
        return GODWIT_NOMEM;
    }
    st->base.verbs = &store_postgres_verbs;
    bytes_init(&st->json, NULL, 0);
    bytes_init(&st->sql, NULL, 0);
    godwit_status status = pg_link_init(&st->link, url);
    if (status == GODWIT_OK) {
        status = pg_link_up(&st->link);
        snprintf(message, 512, "the database can't be reached: %.400s", st->link.message);
    }
    if (status == GODWIT_OK) {
        status = prepare_schema(&st->link, message);
    }
    if (status != GODWIT_OK) {
        pg_close(st);
        return status;
    }
    *out = st;
    return GODWIT_OK;
}

void pg_close(store *st) {
    pg_link_deinit(&st->link);
    bytes_deinit(&st->json);
    bytes_deinit(&st->sql);
    free(st->groups);
    free(st->changes);
    free(st->refs);
    free(st->barriers);
    free(st);
}

const char *pg_message(const store *st) {
    return st->link.message;
}

godwit_status pg_use(store *st, const store_tables *tables) {
    size_t count = tables->schema->table_count;
    pg_barrier *barriers = calloc(count + 1, sizeof *barriers);
    if (!barriers) {
        return GODWIT_NOMEM;
    }
    free(st->barriers);
    st->barriers = barriers;
    st->barrier_count = count;
    st->tables = tables;
    return GODWIT_OK;
}

void pg_write_as(store *st, const store_role *role) {
    st->role = *role;
}

void pg_tidy(store *st, int64_t budget_ms) {
    (void)st;
    (void)budget_ms; /* autovacuum does it */
}

/* ---- transactions ---- */

/* What must not depend on how the database or the role is set up. */
#define SETTINGS                                                                                   \
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, MDY', true),"       \
    " set_config('IntervalStyle', 'postgres', true), set_config('bytea_output', 'hex', true),"     \
    " set_config('extra_float_digits', '1', true), set_config('client_min_messages', 'warning', "  \
    "true)"
#define WRITER_SETTINGS                                                                            \
    ", set_config('godwit.writing', 'yes', true), set_config('lock_timeout', '10s', true),"        \
    " set_config('idle_in_transaction_session_timeout', '15s', true),"                             \
    " CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"                         \
    " THEN set_config('synchronous_commit', 'on', true) END"

godwit_status pg_transaction(pg_link *l, bool write) {
    godwit_status status = pg_link_up(l);
    if (status == GODWIT_OK) {
        status = pg_send(l, write ? "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
                                  : "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    }
    if (status == GODWIT_OK) {
        l->transaction = true;
        status = pg_send(l, write ? SETTINGS WRITER_SETTINGS : SETTINGS);
    }
    return status;
}

godwit_status pg_begin(store *st) {
    pg_drop_pending(st);
    st->role = (store_role){0};
    st->depth = 0;
    godwit_status status = pg_transaction(&st->link, true);
    return status == GODWIT_OK && st->lazy
               ? pg_send(&st->link, "SELECT set_config('synchronous_commit', 'off', true)")
               : status;
}

godwit_status pg_commit(store *st) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    ASSERT(st->depth == 0 && st->group_count == 0);
    godwit_status status = pg_query(l, "COMMIT", &r);
    if (status == GODWIT_OK) {
        l->transaction = false;
        /* what failed before and was not looked at would show here */
        status = strcmp(PQcmdStatus(r), "COMMIT") == 0 ? GODWIT_OK : GODWIT_INTERNAL;
    }
    /* the tables of the engine have no constraint that input can violate */
    return status == GODWIT_CONSTRAINT ? GODWIT_INTERNAL : status;
}

/* Lets what was sent come to its end, well or badly. */
static bool settle(pg_link *l) {
    return l->conn && (l->sent == 0 || pg_sync(l) != GODWIT_IO) && l->conn;
}

void pg_rollback(store *st) {
    pg_link *l = &st->link;
    pg_drop_pending(st);
    st->depth = 0;
    if (!l->transaction) {
        return;
    }
    if (settle(l) && (pg_send(l, "ROLLBACK") != GODWIT_OK || pg_sync(l) != GODWIT_OK)) {
        pg_link_drop(l);
    }
    l->transaction = false;
}

#define DEPTH_MAX 3
static const char *const save[DEPTH_MAX] = {"SAVEPOINT a", "SAVEPOINT b", "SAVEPOINT c"};
static const char *const back[DEPTH_MAX] = {"ROLLBACK TO SAVEPOINT a", "ROLLBACK TO SAVEPOINT b",
                                            "ROLLBACK TO SAVEPOINT c"};
static const char *const done[DEPTH_MAX] = {"RELEASE SAVEPOINT a", "RELEASE SAVEPOINT b",
                                            "RELEASE SAVEPOINT c"};

godwit_status pg_savepoint(store *st) {
    ASSERT(st->depth < DEPTH_MAX && st->group_count == 0);
    return pg_send(&st->link, save[st->depth++]);
}

void pg_rollback_to(store *st) {
    pg_link *l = &st->link;
    ASSERT(st->depth > 0);
    pg_drop_pending(st);
    st->depth--;
    if (!settle(l) || pg_send(l, back[st->depth]) != GODWIT_OK ||
        pg_send(l, done[st->depth]) != GODWIT_OK) {
        pg_link_drop(l); /* whatever comes next fails */
    }
}

godwit_status pg_release(store *st) {
    ASSERT(st->depth > 0 && st->group_count == 0);
    return pg_send(&st->link, done[--st->depth]);
}

/* ---- scope ---- */

static void read_scope(const PGresult *r, store_scope *out) {
    *out = (store_scope){0};
    if (PQntuples(r)) {
        *out = (store_scope){true, pg_field_int(r, 0, 0), pg_field_int(r, 0, 1),
                             pg_field_int(r, 0, 2), 0};
    }
}

godwit_status pg_scope_read(pg_link *l, slice scope, store_scope *out) {
    PGresult *r = NULL;
    pg_text(l, scope);
    *out = (store_scope){0};
    godwit_status status =
        pg_query(l, "SELECT head, horizon, ledger_floor FROM godwit.scope WHERE scope = $1", &r);
    if (status == GODWIT_OK) {
        read_scope(r, out);
    }
    return status;
}

/* Other servers may hold a scope for a while; others' rows are not worth waiting for: a transaction
 * that waits for this one would then stand still, and the database might end it, not us. */
#define SOON "SELECT set_config('lock_timeout', '200ms', true)"

/* Makes the row if it is not there: a lock needs something to hold. */
godwit_status pg_scope_load(store *st, slice scope, store_scope *out) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *out = (store_scope){0};
    godwit_status status = pg_send(l, "SELECT set_config('lock_timeout', '10s', true)");
    size_t at = l->sent;
    pg_text(l, scope);
    if (status == GODWIT_OK) {
        status = pg_send(l, "INSERT INTO godwit.scope AS s (scope) VALUES ($1)"
                            " ON CONFLICT (scope) DO UPDATE SET head = s.head"
                            " RETURNING head, horizon, ledger_floor");
    }
    if (status == GODWIT_OK) {
        status = pg_query(l, SOON, &r);
    }
    if (status == GODWIT_OK) {
        read_scope(pg_result(l, at), out);
        status = pg_next_salt(st, &out->salt);
    }
    return status;
}

godwit_status pg_scope_save(store *st, slice scope, const store_scope *state, int64_t head) {
    pg_link *l = &st->link;
    if (state->exists && state->head == head) {
        return GODWIT_OK;
    }
    pg_text(l, scope);
    pg_int(l, head);
    return pg_send(l, "UPDATE godwit.scope SET head = $2 WHERE scope = $1");
}

/* ---- device ---- */

#define DEVICE_COLUMNS                                                                             \
    "d.user_id, d.lineage, d.state, d.applied_seq, d.confirmed_seq, d.last_key, d.last_at,"        \
    " (extract(epoch FROM coalesce(d.last_seen, d.registered_at)) * 1000)::bigint"

static void read_device(arena *a, const PGresult *r, int row, slice id, decide_device *out) {
    out->device_id = arena_copy(a, id);
    out->user_id = pg_field_copy(a, r, row, 0);
    out->lineage = pg_field_copy(a, r, row, 1);
    out->state = store_device_state_of(pg_field(r, row, 2));
    out->applied_seq = pg_field_int(r, row, 3);
    out->confirmed_seq = pg_field_int(r, row, 4);
    out->has_last_key = pg_field_key(r, row, 5, out->last_key);
    out->last_at_ms = pg_field_int(r, row, 6);
    out->last_seen_ms = pg_field_int(r, row, 7);
}

godwit_status pg_device_read(pg_link *l, arena *a, slice scope, slice device_id,
                             decide_device *out) {
    PGresult *r = NULL;
    memset(out, 0, sizeof *out);
    pg_text(l, scope);
    pg_text(l, device_id);
    godwit_status status = pg_query(l,
                                    "SELECT " DEVICE_COLUMNS " FROM godwit.device d"
                                    " WHERE d.scope = $1 AND d.device_id = $2",
                                    &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    read_device(a, r, 0, device_id, out);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status pg_device_load(store *st, arena *a, slice scope, slice device_id,
                             decide_device *out) {
    return pg_device_read(&st->link, a, scope, device_id, out);
}

godwit_status pg_devices_load(store *st, arena *a, slice scope, const slice *ids, size_t count,
                              decide_device *out) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    memset(out, 0, count * sizeof *out);
    pg_text(l, scope);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, ids[i]);
    }
    godwit_status status =
        pg_query(l,
                 "SELECT " DEVICE_COLUMNS ", k.n FROM unnest($2::text[]) WITH ORDINALITY k(id, n)"
                 " JOIN godwit.device d ON d.scope = $1 AND d.device_id = k.id",
                 &r);
    for (int row = 0; status == GODWIT_OK && row < PQntuples(r); row++) {
        size_t at = (size_t)pg_field_int(r, row, 8) - 1;
        ASSERT(at < count);
        read_device(a, r, row, ids[at], &out[at]);
    }
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}

#define TIME(n) "to_timestamp($" n "::double precision / 1000)"

godwit_status pg_device_insert(store *st, slice scope, const decide_device *device, slice label,
                               int64_t now_ms) {
    pg_link *l = &st->link;
    pg_text(l, scope);
    pg_text(l, device->device_id);
    pg_text(l, device->user_id);
    pg_text(l, device->lineage);
    pg_text(l, label);
    pg_int(l, now_ms);
    return pg_send(
        l, "INSERT INTO godwit.device(scope, device_id, user_id, lineage, label,"
           " registered_at, last_seen) VALUES ($1, $2, $3, $4, $5, " TIME("6") ", " TIME("6") ")");
}

godwit_status pg_devices_save(store *st, slice scope, const store_standing *list, size_t count,
                              int64_t now_ms) {
    pg_link *l = &st->link;
#define DEVICES(type, item)                                                                        \
    do {                                                                                           \
        pg_array(l, type, count);                                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            const decide_device *d = list[i].device;                                               \
            item;                                                                                  \
        }                                                                                          \
    } while (0)
    pg_text(l, scope);
    pg_int(l, now_ms);
    DEVICES(PG_OID_TEXT, pg_item(l, d->device_id));
    DEVICES(PG_OID_INT8, pg_item_int(l, d->applied_seq));
    DEVICES(PG_OID_INT8, pg_item_int(l, d->confirmed_seq));
    DEVICES(PG_OID_BYTEA,
            pg_item(l, (slice){(const char *)d->last_key, d->has_last_key ? SHA256_BYTES : 0}));
    DEVICES(PG_OID_INT8, pg_item_int(l, d->last_at_ms));
    DEVICES(PG_OID_INT8, ((void)d, pg_item_int(l, list[i].pulled_seq)));
    DEVICES(PG_OID_TEXT, ((void)d, pg_item(l, list[i].report.len ? list[i].report : (slice){0})));
#undef DEVICES
    return pg_send(
        l, "UPDATE godwit.device d SET applied_seq = v.applied, confirmed_seq = v.confirmed,"
           " last_key = v.key, last_at = v.at, last_seen = " TIME(
               "2") ", pulled_seq = greatest(d.pulled_seq, v.pulled), pulled_at = CASE WHEN"
                    " v.pulled >= 0 THEN " TIME(
                        "2") " ELSE d.pulled_at END, report = coalesce(v.report::json, d.report)"
                             " FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[],"
                             " $7::bigint[], $8::bigint[], $9::text[])"
                             " v(id, applied, confirmed, key, at, pulled, report)"
                             " WHERE d.scope = $1 AND d.device_id = v.id");
}

/* ---- keys of callers without a stream ---- */

godwit_status pg_idem_find(store *st, arena *a, slice scope, const slice *keys, size_t count,
                           store_idem *out) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    pg_text(l, scope);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        out[i] = (store_idem){0};
        pg_item(l, keys[i].ptr ? keys[i] : SLICE(""));
    }
    godwit_status status =
        pg_query(l,
                 "SELECT k.n, i.fingerprint, i.response FROM unnest($2::text[]) WITH ORDINALITY"
                 " k(key, n) JOIN godwit.idem i ON i.scope = $1 AND i.idem_key = k.key",
                 &r);
    for (int row = 0; status == GODWIT_OK && row < PQntuples(r); row++) {
        size_t at = (size_t)pg_field_int(r, row, 0) - 1;
        ASSERT(at < count);
        out[at].found = true;
        out[at].response = pg_field_copy(a, r, row, 2);
        status = !pg_field_key(r, row, 1, out[at].fingerprint) ? GODWIT_CORRUPT
                 : a->failed                                   ? GODWIT_NOMEM
                                                               : GODWIT_OK;
    }
    return status;
}

/* Not waited for. */
godwit_status pg_idem_add(store *st, slice scope, slice key,
                          const uint8_t fingerprint[SHA256_BYTES], int64_t commit_seq,
                          slice response, int64_t now_ms) {
    pg_link *l = &st->link;
    pg_text(l, scope);
    pg_text(l, key);
    pg_bytea(l, (slice){(const char *)fingerprint, SHA256_BYTES});
    pg_int(l, commit_seq);
    pg_int(l, now_ms);
    pg_text(l, response);
    return pg_send(l,
                   "INSERT INTO godwit.idem(scope, idem_key, fingerprint, commit_seq, at, response)"
                   " VALUES ($1, $2, $3, $4, " TIME("5") ", $6)");
}
