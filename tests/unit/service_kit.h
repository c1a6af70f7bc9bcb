/* What tests of the service share: a store in a temporary folder (or, where GODWIT_POSTGRES names a
 * server, in a database of its own), jobs run through all their stages
 * at once, answers read by path ("results.0.status"), and devices that make correct pushes. */
#ifndef TESTS_SERVICE_KIT_H
#define TESTS_SERVICE_KIT_H

#include "../folder.h"
#include "unit.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/wire.h"
#include "postgres_kit.h"
#include "server/service.h"

#define KIT_NOW INT64_C(1767323045678) /* 2026-01-02T03:04:05.678Z */
#define KIT_PINS                                                                                   \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, lat REAL, n INTEGER CHECK (n "  \
    "< 1000),"                                                                                     \
    " slug TEXT UNIQUE, kind TEXT DEFAULT 'plain');"                                               \
    "CREATE TABLE forms(id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE,"   \
    " body TEXT);"                                                                                 \
    "CREATE TABLE counts(k INTEGER PRIMARY KEY, v ANY);"

typedef struct {
    char dir[256];
    const char *url; /* of the database; NULL: the folder */
    service *s;
    service_reader *r;
    arena a;
    int64_t now_ms;
    bool dev;
    const char *schema_path, *config_path;
    const retain_policy *retain; /* NULL = the default */
    char message[512];
    int commits; /* reported by on_commit */
} kit;

typedef struct {
    int status;
    slice text;
    const json *root; /* NULL when it is not JSON */
    bool parked;
    char etag[32];
} kit_answer;

typedef struct {
    const char *id, *scope, *user;
    slice lineage;
    int64_t seq, lsn;
    uint8_t last_key[SHA256_BYTES];
} kit_device;

static inline int64_t kit_now(void *context) {
    return ((kit *)context)->now_ms;
}

static inline const char *kit_file(kit *k, const char *name, const char *text) {
    const char *path = arena_printf(&k->a, "%s/%s", k->dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline godwit_status kit_try_open(kit *k) {
    service_options options = {.store = k->url ? k->url : arena_printf(&k->a, "%s/data", k->dir),
                               .schema_file = k->url ? NULL : k->schema_path,
                               .config_tables = k->config_path,
                               .dev = k->dev,
                               .retain = k->retain,
                               .now_ms = kit_now,
                               .context = k};
    godwit_status status = service_open(&options, &k->s, k->message);
    if (status == GODWIT_OK) {
        assert_int_equal(service_reader_open(k->s, &k->r), GODWIT_OK);
    }
    return status;
}

static inline void kit_close(kit *k) {
    service_reader_close(k->r);
    service_close(k->s);
    k->s = NULL;
    k->r = NULL;
}

static inline void kit_reopen(kit *k) {
    if (k->s) {
        kit_close(k);
    }
    if (kit_try_open(k) != GODWIT_OK) {
        fail_msg("%s", k->message);
    }
}

static inline void kit_prepare_on(kit *k, bool sqlite, const char *schema_sql,
                                  const char *config_text) {
    memset(k, 0, sizeof *k);
    arena_init(&k->a, NULL, 0);
    assert_true(folder_make(k->dir, sizeof k->dir));
    k->now_ms = KIT_NOW;
    if (postgres_server() && !sqlite) {
        k->url = postgres_database(&k->a);
        postgres_schema(&k->a, k->url, schema_sql ? schema_sql : "");
    }
    k->schema_path = schema_sql ? kit_file(k, "schema.sql", schema_sql) : NULL;
    k->config_path = config_text ? kit_file(k, "godwit.conf", config_text) : NULL;
}

static inline void kit_prepare(kit *k, const char *schema_sql, const char *config_text) {
    kit_prepare_on(k, false, schema_sql, config_text);
}

static inline void kit_init(kit *k, const char *schema_sql, const char *config_text) {
    kit_prepare(k, schema_sql, config_text);
    kit_reopen(k);
}

static inline void kit_deinit(kit *k) {
    kit_close(k);
    if (k->url) {
        postgres_drop(&k->a, k->url);
    }
    static const char *const names[] = {"data/store.db",
                                        "data/store.db-wal",
                                        "data/store.db-shm",
                                        "data",
                                        "schema.sql",
                                        "godwit.conf",
                                        ""};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)remove(arena_printf(&k->a, "%s/%s", k->dir, names[i]));
    }
    arena_deinit(&k->a);
}

/* ---- jobs ---- */

static inline void kit_on_commit(void *context, slice scope, int64_t head) {
    assert_true(scope.len > 0 && head > 0);
    ((kit *)context)->commits++;
}

static inline void kit_job(kit *k, service_job *job, service_verb verb, const char *user,
                           const char *scope) {
    (void)k;
    service_job_init(job, verb);
    job->who.user = slice_of(user);
    job->who.scopes[0] = slice_of(scope);
    job->who.scope_count = 1;
}

static inline kit_answer kit_finish(kit *k, service_job *job) {
    kit_answer out = {.status = job->status, .parked = job->park};
    if (!job->park) {
        assert_int_not_equal(job->status, 0);
        out.text = arena_copy(&k->a, bytes_view(&job->answer));
        if (out.text.len && json_parse(&k->a, out.text, &out.root, NULL) != GODWIT_OK) {
            fail_msg("not JSON: %s", out.text.ptr);
        }
    }
    memcpy(out.etag, job->etag, sizeof out.etag);
    service_job_deinit(job);
    return out;
}

/* All stages of one job. */
static inline kit_answer kit_run(kit *k, service_job *job) {
    service_prepare(k->s, job);
    if (job->wants_write) {
        service_write(k->s, &job, 1, kit_on_commit, k);
    }
    if (job->wants_read) {
        service_read(k->s, k->r, job);
    }
    return kit_finish(k, job);
}

static inline kit_answer kit_body(kit *k, service_verb verb, const char *user, const char *scope,
                                  slice body) {
    service_job job;
    kit_job(k, &job, verb, user, scope);
    job.body = body;
    return kit_run(k, &job);
}

static inline kit_answer kit_push_text(kit *k, const char *body) {
    return kit_body(k, VERB_PUSH, "ana", "field", slice_of(body));
}

static inline kit_answer kit_changes(kit *k, const char *scope, slice cursor, const char *device,
                                     const char *limit) {
    service_job job;
    kit_job(k, &job, VERB_CHANGES, "ana", scope);
    job.q_cursor = cursor;
    job.q_device = slice_of(device);
    job.q_limit = slice_of(limit);
    return kit_run(k, &job);
}

/* ---- answers ---- */

static inline const json *kit_at(const json *node, const char *path) {
    while (node && *path) {
        size_t n = strcspn(path, ".");
        if (node->type == JSON_ARRAY) {
            size_t index = (size_t)strtoul(path, NULL, 10);
            const json *item = index < node->count ? json_first(node) : NULL;
            for (; item && index; index--) {
                item = json_after(item);
            }
            node = item;
        } else {
            node = json_find(node, (slice){path, n});
        }
        path += n + (path[n] == '.');
    }
    return node;
}

static inline slice kit_text(const kit_answer *answer, const char *path) {
    slice s = {0};
    const json *node = kit_at(answer->root, path);
    if (node &&
        (node->type == JSON_STRING || node->type == JSON_ARRAY || node->type == JSON_OBJECT)) {
        s = node->u.s;
    }
    return s;
}

static inline int64_t kit_int(const kit_answer *answer, const char *path) {
    int64_t v = INT64_MIN;
    (void)json_int(kit_at(answer->root, path), &v);
    return v;
}

static inline size_t kit_count(const kit_answer *answer, const char *path) {
    const json *node = kit_at(answer->root, path);
    return node ? node->count : 0;
}

static inline bool kit_flag(const kit_answer *answer, const char *path) {
    bool v = false;
    (void)json_bool(kit_at(answer->root, path), &v);
    return v;
}

#define assert_text(answer, path, expected)                                                        \
    do {                                                                                           \
        const kit_answer answer_ = (answer);                                                       \
        slice got_ = kit_text(&answer_, (path));                                                   \
        if (!slice_is(got_, (expected))) {                                                         \
            fail_msg("%s is '%.*s', not '%s', in %s", (path), SLICE_ARG(got_), (expected),         \
                     answer_.text.ptr);                                                            \
        }                                                                                          \
    } while (0)
#define assert_status(answer, expected)                                                            \
    do {                                                                                           \
        if ((answer).status != (expected)) {                                                       \
            fail_msg("status %d, not %d: %s", (answer).status, (expected), (answer).text.ptr);     \
        }                                                                                          \
    } while (0)
#define assert_problem(answer, code, name)                                                         \
    do {                                                                                           \
        assert_status(answer, code);                                                               \
        assert_text(answer, "type", "/problems/" name);                                            \
    } while (0)

/* One value of a query on the store, by a connection of its own; text in the arena, "NULL" for
 * NULL. */
static inline const char *kit_sql(kit *k, const char *sql) {
    if (k->url) {
        return postgres_run(&k->a, k->url, sql);
    }
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    const char *path = arena_printf(&k->a, "%s/data/store.db", k->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    }
    const char *out = "";
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(stmt, 0);
        out = arena_printf(&k->a, "%s", text ? (const char *)text : "NULL");
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return out;
}

/* The whole id of conflict `number` ("c-3-0"), which ends in something random; the number where
 * there is none. */
static inline const char *kit_conflict(kit *k, const char *number) {
    const char *id =
        kit_sql(k, arena_printf(&k->a,
                                "SELECT coalesce(min(conflict_id), '%s') FROM godwit_conflict WHERE"
                                " substr(conflict_id, 1, %zu) = '%s-'",
                                number, strlen(number) + 1, number));
    assert_true(strlen(id) == strlen(number) || strlen(id) == strlen(number) + 17);
    return id;
}

/* ---- devices ---- */

static inline kit_device kit_register(kit *k, const char *id, const char *user, const char *scope) {
    kit_device d = {.id = id, .scope = scope, .user = user, .lineage = slice_of(id)};
    const char *body = arena_printf(
        &k->a, "{\"deviceId\":\"%s\",\"lineage\":\"%s\",\"scopes\":[\"%s\"]}", id, id, scope);
    kit_answer answer = kit_body(k, VERB_REGISTER, user, scope, slice_of(body));
    assert_status(answer, 200);
    return d;
}

/* An operation at the device's next place; a group of its own until kit_group. */
static inline wire_op kit_op(kit *k, kit_device *d, op_kind kind, const char *entity,
                             const char *id, const char *payload) {
    int64_t seq = ++d->seq;
    int64_t lsn = ++d->lsn;
    return (wire_op){.id = slice_of(arena_printf(&k->a, "op-%lld", (long long)lsn)),
                     .kind = kind,
                     .entity_type = slice_of(entity),
                     .entity_id = slice_of(id),
                     .seq = seq,
                     .group_first = seq,
                     .group_size = 1,
                     .payload = slice_of(payload ? payload : "{}"),
                     .base = SLICE("{}"),
                     .wall_ms = k->now_ms - 1000,
                     .nonce = lsn * 7919,
                     .lineage = d->lineage,
                     .lsn = lsn};
}

static inline void kit_group(wire_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ops[i].group_first = ops[0].seq;
        ops[i].group_size = (int64_t)count;
    }
}

static inline void kit_seal(const kit_device *d, wire_op *op) {
    id_key_parts parts = {.scope = slice_of(d->scope),
                          .lineage = op->lineage,
                          .lsn = op->lsn,
                          .nonce = op->nonce,
                          .kind = op->kind,
                          .entity_type = op->entity_type,
                          .entity_id = op->entity_id,
                          .base_seq = op->base_seq,
                          .base_salt = op->base_salt,
                          .wall_ms = op->wall_ms,
                          .payload = op->payload,
                          .base = op->base};
    id_operation_key(&parts, op->key);
}

/* The body of a push of these operations as they are; prev is the key before the first, NULL =
 * none. */
static inline slice kit_push_body(kit *k, const kit_device *d, const wire_op *ops, size_t count,
                                  const uint8_t *prev, slice cursor, bool pull) {
    bytes b;
    bool first = true;
    bytes_init(&b, NULL, 0);
    push_head head = {.device_id = slice_of(d->id),
                      .scope = slice_of(d->scope),
                      .placed = count > 0,
                      .first_seq = count ? ops[0].seq : 0,
                      .prev_key = prev,
                      .acked_seq = count ? ops[0].seq - 1 : d->seq,
                      .wall_ms = k->now_ms,
                      .cursor = cursor,
                      .pull = pull};
    wire_push_begin(&b, &head);
    for (size_t i = 0; i < count; i++) {
        wire_push_op(&b, &first, head.device_id, &ops[i]);
    }
    wire_push_end(&b);
    slice body = arena_copy(&k->a, bytes_view(&b));
    bytes_deinit(&b);
    return body;
}

/* Seals and pushes; the device's last key moves when the server took it. */
static inline kit_answer kit_push(kit *k, kit_device *d, wire_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        kit_seal(d, &ops[i]);
    }
    slice body =
        kit_push_body(k, d, ops, count, ops[0].seq > 1 ? d->last_key : NULL, (slice){0}, false);
    kit_answer answer = kit_body(k, VERB_PUSH, d->user, d->scope, body);
    if (answer.status == 200) {
        memcpy(d->last_key, ops[count - 1].key, SHA256_BYTES);
    }
    return answer;
}

static inline kit_answer kit_push_one(kit *k, kit_device *d, op_kind kind, const char *entity,
                                      const char *id, const char *payload) {
    wire_op op = kit_op(k, d, kind, entity, id, payload);
    return kit_push(k, d, &op, 1);
}

/* Based on commit `seq` as the store knows it. */
static inline void kit_base(kit *k, const kit_device *d, wire_op *op, int64_t seq,
                            const char *base) {
    const char *sql = arena_printf(
        &k->a,
        "SELECT salt FROM godwit_commit WHERE scope = (SELECT no FROM godwit_name WHERE name ="
        " '%s') AND commit_seq = %lld",
        d->scope, (long long)seq);
    op->base_seq = seq;
    op->base_salt = strtoll(kit_sql(k, sql), NULL, 10);
    op->base = slice_of(base);
}

/* ---- replicas ---- */

/* Applies feed commits or snapshot rows to a table of texts "entity id columns" in SQLite, as the
 * protocol says: full rows replace, others patch, and only above the version of a row at hand.
 * Conflict records are left out: a snapshot has only those that are open. */
static inline sqlite3 *replica_open(void) {
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "CREATE TABLE r(e, i, ver, c, PRIMARY KEY(e, i))", NULL, NULL, NULL),
        SQLITE_OK);
    return db;
}

static inline void replica_run(sqlite3 *db, const char *sql, slice e, slice i, int64_t ver,
                               slice c) {
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    sqlite3_bind_text(stmt, 1, e.ptr, (int)e.len, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, i.ptr, (int)i.len, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, ver);
    sqlite3_bind_text(stmt, 4, c.ptr, (int)c.len, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    sqlite3_finalize(stmt);
}

static inline void replica_change(sqlite3 *db, const json *change, int64_t seq) {
    slice e = {0}, i = {0}, kind = {0};
    bool full = false;
    (void)json_text(json_get(change, "entityType"), &e);
    (void)json_text(json_get(change, "entityId"), &i);
    (void)json_text(json_get(change, "kind"), &kind);
    (void)json_bool(json_get(change, "full"), &full);
    if (slice_is(e, "_conflicts")) {
        return;
    }
    const json *columns = json_get(change, "columns");
    slice c = columns ? columns->u.s : (slice){0};
    if (slice_is(kind, "delete")) {
        replica_run(db, "DELETE FROM r WHERE e = ?1 AND i = ?2 AND ver < ?3", e, i, seq, c);
    } else if (full) {
        replica_run(
            db,
            "INSERT INTO r VALUES (?1, ?2, ?3, json(?4)) ON CONFLICT DO UPDATE SET ver = ?3,"
            " c = json(?4) WHERE ver < ?3",
            e, i, seq, c);
    } else {
        replica_run(
            db, "UPDATE r SET ver = ?3, c = json_patch(c, ?4) WHERE e = ?1 AND i = ?2 AND ver < ?3",
            e, i, seq, c);
    }
}

static inline void replica_pull(kit *k, sqlite3 *db, slice cursor) {
    for (bool more = true; more;) {
        kit_answer r = kit_changes(k, "field", cursor, "", "7");
        assert_status(r, 200);
        const json *commits = kit_at(r.root, "commits");
        const json *commit = json_first(commits);
        for (uint32_t i = 0; i < commits->count; i++, commit = json_after(commit)) {
            int64_t seq = 0;
            (void)json_int(json_get(commit, "seq"), &seq);
            const json *changes = json_get(commit, "changes");
            const json *change = json_first(changes);
            for (uint32_t c = 0; c < changes->count; c++, change = json_after(change)) {
                replica_change(db, change, seq);
            }
        }
        more = kit_flag(&r, "more");
        cursor = kit_text(&r, "cursor");
    }
}

static inline const char *replica_digest(kit *k, sqlite3 *db) {
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(
                         db,
                         "SELECT count(*) || ':' || group_concat(e || i || c) FROM (SELECT * FROM r"
                         " ORDER BY e, i)",
                         -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    const char *out = arena_printf(&k->a, "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    return out;
}

/* One page of a snapshot into the replica; *token is moved on. false after the last. */
static inline bool replica_snapshot(kit *k, sqlite3 *db, const char *limit, slice *token,
                                    slice *cursor) {
    service_job job;
    kit_job(k, &job, VERB_SNAPSHOT, "ana", "field");
    job.q_token = *token;
    job.q_limit = slice_of(limit);
    kit_answer page = kit_run(k, &job);
    assert_status(page, 200);
    const json *rows = kit_at(page.root, "rows");
    const json *row = json_first(rows);
    for (uint32_t i = 0; i < rows->count; i++, row = json_after(row)) {
        slice e = {0}, id = {0};
        int64_t ver = 0;
        (void)json_text(json_get(row, "entityType"), &e);
        (void)json_text(json_get(row, "entityId"), &id);
        (void)json_int(json_get(row, "ver"), &ver);
        if (slice_is(e, "_conflicts")) {
            continue;
        }
        assert_non_null(json_get(row, "vectorClock"));
        replica_run(db, "INSERT INTO r VALUES (?1, ?2, ?3, json(?4))", e, id, ver,
                    json_get(row, "columns")->u.s);
    }
    *token = kit_text(&page, "token");
    *cursor = kit_text(&page, "cursor");
    return kit_flag(&page, "more");
}

#endif
