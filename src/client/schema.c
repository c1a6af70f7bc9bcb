/* Godwit's own tables and views in the application's database.
 *
 * Tables come from numbered steps, once each; views are compared with the wanted text and made anew
 * when they differ. Everything is plain SQL that any SQLite >= 3.38 reads without Godwit. Names:
 * tbl = number of a tracked table (registry.c), lsn = number of a captured change, pk in
 * godwit_row, godwit_base and godwit_conflict = entityId (semantics 13.1), so that composite keys
 * need no columns. */
#include <stdio.h>

#include "client/count.h"
#include "client/event.h"
#include "client/op_sql.h"
#include "client/receipt.h"

/* godwit_log: op 1 create, 2 update, 3 delete, 4 queue (entity without a table: pk = entity id,
 * mask = kind 1..3, v0 = payload text), 5 replaced (a row that REPLACE removed: like delete). pk =
 * first key column, k1.. the others; bit i of mask (63 per word: mask, m1..) and v{i}, o{i} = data
 * column i. NULL mask = all. v = new value, o = old value, both only where the mask says so. The
 * newest row is never deleted, so that lsn never repeats. The further columns come by ALTER TABLE
 * when a table needs them. */
#define OP_COLUMNS                                                                                 \
    "lsn, operation, tbl, entity_type, entity_id, idempotency_key, client_key, payload, base,"     \
    " state, attempts, last_error, last_error_code, last_attempt_at, next_attempt_at, scope,"      \
    " device_id, sequence_number, group_first, group_size, base_seq, base_salt, nonce, wall_ms,"   \
    " rekeyed, schema_ver, commit_seq, outcome, supersedes, row_hash, resolves"
/* What is not stored here is computed: op_sql.h. Copied twice instead of renamed: ALTER TABLE would
 * look at every view of the application, and godwit_op is not there at that moment. The CHECKs are
 * not IN (..): SQLite would build a table of the list for every row written. The index by hash is a
 * third of the size and half the work of one on (tbl, entity_id). */
#define LEANER_OPERATIONS                                                                          \
    "CREATE TABLE godwit_op_old AS SELECT " OP_COLUMNS                                             \
    ", nullif(lineage, device_id) AS lineage FROM godwit_op;"                                      \
    "DROP TABLE godwit_op;"                                                                        \
    "CREATE TABLE godwit_op ("                                                                     \
    " lsn INTEGER PRIMARY KEY, operation TEXT NOT NULL CHECK (operation = 'create' OR operation =" \
    " 'update' OR operation = 'delete' OR operation = 'void'), tbl INTEGER NOT NULL,"              \
    " entity_type TEXT NOT NULL, entity_id TEXT NOT NULL, idempotency_key BLOB NOT NULL,"          \
    " client_key TEXT, payload TEXT NOT NULL, base TEXT, state TEXT NOT NULL DEFAULT 'pending'"    \
    " CHECK (state = 'pending' OR state = 'acked' OR state = 'retired' OR state = 'rejected' OR"   \
    " state = 'conflict' OR state = 'blocked' OR state = 'parked'),"                               \
    " attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT, last_error_code TEXT,"                 \
    " last_attempt_at TEXT, next_attempt_at INTEGER, scope TEXT NOT NULL, device_id TEXT NOT "     \
    "NULL,"                                                                                        \
    " sequence_number INTEGER NOT NULL, group_first INTEGER NOT NULL, group_size INTEGER NOT "     \
    "NULL,"                                                                                        \
    " base_seq INTEGER NOT NULL, base_salt INTEGER NOT NULL, nonce BLOB NOT NULL,"                 \
    " wall_ms INTEGER NOT NULL, rekeyed INTEGER NOT NULL DEFAULT 0, schema_ver INTEGER NOT NULL,"  \
    " commit_seq INTEGER, outcome TEXT, supersedes TEXT, row_hash INTEGER NOT NULL, resolves "     \
    "TEXT,"                                                                                        \
    " lineage TEXT);"                                                                              \
    "INSERT INTO godwit_op (" OP_COLUMNS ", lineage) SELECT " OP_COLUMNS                           \
    ", lineage FROM godwit_op_old;"                                                                \
    "DROP TABLE godwit_op_old;"                                                                    \
    "CREATE INDEX godwit_op_ready ON godwit_op (scope, state, lsn) WHERE state <> 'retired';"      \
    "CREATE INDEX godwit_op_row ON godwit_op (row_hash) WHERE state <> 'retired';"                 \
    "CREATE UNIQUE INDEX godwit_op_client_key ON godwit_op (client_key) WHERE client_key IS NOT"   \
    " NULL;"

static const char *const steps[] = {
    "CREATE TABLE godwit_meta (k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
    "CREATE TABLE godwit_state (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " capture INTEGER NOT NULL DEFAULT 1);"
    "INSERT INTO godwit_state VALUES (1, 1);"
    "CREATE TABLE godwit_lease (one INTEGER PRIMARY KEY CHECK (one = 1), pid INTEGER,"
    " started INTEGER, until INTEGER);"
    /* spec: see registry.c; active: triggers wanted */
    "CREATE TABLE godwit_table (tbl INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " spec TEXT NOT NULL, active INTEGER NOT NULL DEFAULT 1);"
    /* tables whose existing rows are still being queued: creates go to next_lsn.., below end_lsn;
     * k0.. is the last key done */
    "CREATE TABLE godwit_initial (tbl INTEGER PRIMARY KEY, next_lsn INTEGER NOT NULL,"
    " end_lsn INTEGER NOT NULL, started INTEGER NOT NULL DEFAULT 0, k0, k1, k2, k3, k4, k5, k6, k7,"
    " k8, k9, k10, k11, k12, k13, k14, k15);"
    "CREATE TABLE godwit_log (lsn INTEGER PRIMARY KEY, op INTEGER NOT NULL, tbl INTEGER NOT NULL, "
    "pk,"
    " mask INTEGER, wall REAL, nonce INTEGER, v0, v1, v2, v3, v4, v5, v6, v7,"
    " o0, o1, o2, o3, o4, o5, o6, o7);"
    "CREATE TABLE godwit_group (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);"
    "CREATE TABLE godwit_hint (lsn INTEGER PRIMARY KEY, client_key TEXT UNIQUE, depends_on TEXT);"
    "CREATE TABLE godwit_mark (lsn INTEGER NOT NULL, scope TEXT NOT NULL, commit_seq INTEGER NOT "
    "NULL,"
    " salt INTEGER NOT NULL, PRIMARY KEY (scope, lsn)) WITHOUT ROWID;"
    "CREATE TABLE godwit_hook (x);"
    "CREATE TABLE godwit_op ("
    " lsn INTEGER PRIMARY KEY, id TEXT NOT NULL, created_at TEXT NOT NULL,"
    /* not IN (..): SQLite would build a table of the list for every row written */
    " operation TEXT NOT NULL CHECK (operation = 'create' OR operation = 'update' OR operation ="
    " 'delete' OR operation = 'void'),"
    " tbl INTEGER NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT NOT NULL,"
    " idempotency_key BLOB NOT NULL, client_key TEXT, payload TEXT NOT NULL, base TEXT,"
    " state TEXT NOT NULL DEFAULT 'pending' CHECK (state = 'pending' OR state = 'acked' OR state ="
    "  'retired' OR state = 'rejected' OR state = 'conflict' OR state = 'blocked' OR state ="
    "  'parked'),"
    " attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT, last_error_code TEXT,"
    " last_attempt_at TEXT, next_attempt_at INTEGER, scope TEXT NOT NULL, device_id TEXT NOT NULL,"
    " sequence_number INTEGER NOT NULL, group_first INTEGER NOT NULL, group_size INTEGER NOT NULL,"
    " base_seq INTEGER NOT NULL, base_salt INTEGER NOT NULL, lineage TEXT NOT NULL,"
    " nonce BLOB NOT NULL, wall_ms INTEGER NOT NULL, rekeyed INTEGER NOT NULL DEFAULT 0,"
    " schema_ver INTEGER NOT NULL, commit_seq INTEGER, outcome TEXT, supersedes TEXT,"
    " row_hash INTEGER NOT NULL);"
    "CREATE INDEX godwit_op_ready ON godwit_op (scope, state, lsn) WHERE state <> 'retired';"
    /* by hash: a third of the size and half the work of one on (tbl, entity_id) */
    "CREATE INDEX godwit_op_row ON godwit_op (row_hash) WHERE state <> 'retired';"
    "CREATE UNIQUE INDEX godwit_op_client_key ON godwit_op (client_key) WHERE client_key IS NOT "
    "NULL;"
    "CREATE TABLE godwit_dep (lsn INTEGER NOT NULL, depends_on INTEGER NOT NULL,"
    " hard INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (lsn, depends_on)) WITHOUT ROWID;"
    "CREATE TABLE godwit_identity (scope TEXT NOT NULL, device_id TEXT NOT NULL, n INTEGER NOT "
    "NULL,"
    " next_seq INTEGER NOT NULL DEFAULT 1, acked_seq INTEGER NOT NULL DEFAULT 0,"
    " floor_seq INTEGER NOT NULL DEFAULT 0, floor_key BLOB, current INTEGER NOT NULL DEFAULT 1,"
    " PRIMARY KEY (scope, device_id)) WITHOUT ROWID;"
    "CREATE TABLE godwit_cursor (scope TEXT PRIMARY KEY, cursor TEXT,"
    " commit_seq INTEGER NOT NULL DEFAULT 0, salt INTEGER, state TEXT NOT NULL DEFAULT 'bootstrap'"
    " CHECK (state IN ('bootstrap', 'staging', 'live', 'reset', 'revoked')), boot_token TEXT)"
    " WITHOUT ROWID;"
    "CREATE TABLE godwit_row (tbl INTEGER NOT NULL, pk TEXT NOT NULL, ver INTEGER NOT NULL,"
    " vclock TEXT, digest INTEGER, synced_at INTEGER, PRIMARY KEY (tbl, pk)) WITHOUT ROWID;"
    "CREATE TABLE godwit_base (tbl INTEGER NOT NULL, pk TEXT NOT NULL, image TEXT,"
    " PRIMARY KEY (tbl, pk)) WITHOUT ROWID;"
    "CREATE TABLE godwit_outcome (id INTEGER PRIMARY KEY, lsn INTEGER NOT NULL,"
    " idempotency_key BLOB NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT, detail "
    "TEXT,"
    " payload TEXT, base TEXT, server_row TEXT, resolution TEXT, resolution_op TEXT);"
    "CREATE INDEX godwit_outcome_lsn ON godwit_outcome (lsn);"
    "CREATE TABLE godwit_conflict (conflict_id TEXT PRIMARY KEY, scope TEXT NOT NULL,"
    " tbl INTEGER NOT NULL, pk TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,"
    " state TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE godwit_blob (sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, path TEXT,"
    " media_type TEXT, state TEXT NOT NULL CHECK (state IN ('local', 'uploading', 'uploaded',"
    " 'wanted', 'downloading', 'cached', 'failed', 'evicted')), upload_url TEXT,"
    " offset INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " next_attempt_at INTEGER, last_error TEXT) WITHOUT ROWID;"
    /* rows a REPLACE may remove: written by BEFORE triggers, read and cleared by AFTER triggers of
     * the same statement. owner = first key column of the row that comes in; lsn = newest before */
    "CREATE TABLE godwit_note (id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, owner, lsn INTEGER, "
    "pk);",
    /* conflict ids are unique within a scope; stages begun before have no godwit_stage_0 */
    "ALTER TABLE godwit_op ADD COLUMN resolves TEXT;"
    "ALTER TABLE godwit_hint ADD COLUMN resolves TEXT;"
    "CREATE TABLE godwit_conflict_old AS SELECT * FROM godwit_conflict;"
    "DROP TABLE godwit_conflict;"
    "CREATE TABLE godwit_conflict (scope TEXT NOT NULL, conflict_id TEXT NOT NULL,"
    " tbl INTEGER NOT NULL, pk TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,"
    " state TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (scope, conflict_id)) WITHOUT ROWID;"
    "INSERT INTO godwit_conflict SELECT scope, conflict_id, tbl, pk, kind, body, state, at"
    " FROM godwit_conflict_old;"
    "DROP TABLE godwit_conflict_old;"
    "UPDATE godwit_cursor SET state = 'bootstrap', boot_token = NULL WHERE state = 'staging';"
    "DELETE FROM godwit_meta WHERE k = 'stage_scope';",
    /* counters, so that looking at them costs the same whatever the queue's length */
    COUNT_TABLES,
    /* from an operation to its conflicts; the few outcomes that can still change */
    "ALTER TABLE godwit_conflict ADD COLUMN op_key TEXT;"
    "UPDATE godwit_conflict SET op_key = json_extract(body, '$.opKey');"
    "CREATE INDEX godwit_conflict_op ON godwit_conflict (op_key) WHERE op_key IS NOT NULL;"
    "CREATE INDEX IF NOT EXISTS godwit_outcome_open ON godwit_outcome (outcome) WHERE resolution "
    "IS NULL;",
    EVENT_TABLE,
    /* current: see identity.h */
    ("ALTER TABLE godwit_identity ADD COLUMN user_id TEXT;"
     "ALTER TABLE godwit_identity ADD COLUMN server_id TEXT;"),
    LEANER_OPERATIONS,
    RECEIPT_TABLE,
};

/* The entity id of a captured row, as semantics 13.1 writes it. %s: text of part i. */
#define PART(column)                                                                               \
    "CASE typeof(l." column ") WHEN 'blob' THEN lower(hex(l." column ")) ELSE CAST(l." column      \
    " AS TEXT) END"

static void entity_id(bytes *b, int64_t further_keys) {
    if (further_keys > 0) {
        bytes_text(b, "CASE coalesce(json_array_length(t.spec, '$.table.primaryKey'), 1) ");
        for (int64_t n = further_keys; n > 0; n--) {
            bytes_printf(b, "WHEN %d THEN json_array(" PART("pk"), (int)n + 1);
            for (int64_t i = 1; i <= n; i++) {
                bytes_printf(b,
                             ", CASE typeof(l.k%d) WHEN 'blob' THEN lower(hex(l.k%d)) ELSE"
                             " CAST(l.k%d AS TEXT) END",
                             (int)i, (int)i, (int)i);
            }
            bytes_text(b, ") ");
        }
        bytes_text(b, "ELSE " PART("pk") " END");
    } else {
        bytes_text(b, PART("pk"));
    }
}

#define CAPTURED_ID "(SELECT " OP_ID_OF("v", "l.lsn") " FROM godwit_meta WHERE k = 'lineage')"
#define CAPTURED_FROM                                                                              \
    " FROM godwit_log AS l JOIN godwit_table AS t ON t.tbl = l.tbl WHERE l.lsn >"                  \
    " coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'sealed_lsn'), 0)"
#define DEPENDS_ON_ID OP_ID_OF(OP_LINEAGE_OF("p"), "p.lsn")
#define ITEM_OF(lsn)                                                                               \
    "coalesce((SELECT CASE WHEN g.last >= " lsn " THEN g.first END FROM godwit_group AS g WHERE"   \
    " g.first <= " lsn " ORDER BY g.first DESC LIMIT 1), " lsn ")"

static void queue_view(bytes *b, int64_t further_keys) {
    bytes_text(b, "CREATE VIEW sync_queue AS SELECT " OP_ID " AS id, " OP_CREATED
                  " AS created_at, o.operation AS"
                  " operation, o.entity_type AS entity_type, o.entity_id AS entity_id,"
                  " lower(hex(o.idempotency_key)) AS idempotency_key, o.payload AS payload, CASE "
                  "o.state"
                  " WHEN 'pending' THEN 'pending' WHEN 'parked' THEN 'pending' WHEN 'acked' THEN "
                  "'completed'"
                  " WHEN 'retired' THEN 'completed' WHEN 'conflict' THEN 'conflict' ELSE 'failed' "
                  "END AS"
                  " status, o.attempts AS attempts, 5 AS max_attempts, o.last_error AS last_error,"
                  " o.last_attempt_at AS last_attempt_at, o.sequence_number AS sequence_number,"
                  " (SELECT group_concat(" DEPENDS_ON_ID
                  ", ',') FROM godwit_dep AS d JOIN godwit_op AS p ON p.lsn ="
                  " d.depends_on WHERE d.lsn = o.lsn) AS depends_on, o.state AS state, "
                  "o.scope AS scope,"
                  " o.group_first AS group_first, o.outcome AS outcome, o.next_attempt_at "
                  "AS"
                  " next_attempt_at, o.client_key AS client_key, o.lsn AS lsn FROM "
                  "godwit_op AS o"
                  " UNION ALL SELECT " CAPTURED_ID
                  ", strftime('%Y-%m-%dT%H:%M:%fZ', l.wall), CASE WHEN"
                  " l.op = 1 OR (l.op = 4 AND l.mask = 1) THEN 'create' WHEN l.op = 2 OR "
                  "(l.op = 4 AND"
                  " l.mask = 2) THEN 'update' ELSE 'delete' END, json_extract(t.spec, "
                  "'$.entity'), ");
    entity_id(b, further_keys);
    bytes_text(
        b,
        ", NULL, CASE l.op WHEN 4 THEN l.v0 END, 'pending', 0, 5, NULL, NULL, NULL, (SELECT"
        " group_concat(j.value, ',') FROM godwit_hint AS h, json_each(h.depends_on) AS j WHERE"
        " h.lsn = l.lsn), 'captured', CASE WHEN json_extract(t.spec, '$.scopeColumn') IS NULL THEN"
        " coalesce(json_extract(t.spec, '$.scope'), (SELECT v FROM godwit_meta WHERE k ="
        " 'scope')) END, " ITEM_OF("l.lsn") ", NULL, NULL, (SELECT h.client_key FROM godwit_hint"
                                            " AS h WHERE h.lsn = l.lsn), l.lsn" CAPTURED_FROM);
}

static void row_status_view(bytes *b, int64_t further_keys) {
    bytes_text(
        b,
        "CREATE VIEW godwit_row_status AS WITH live(tbl, id, rank, failed_at, reason) AS ("
        "SELECT tbl, entity_id, CASE state WHEN 'pending' THEN 1 WHEN 'parked' THEN 1 WHEN"
        " 'conflict' THEN 2 WHEN 'acked' THEN 0 ELSE 3 END, CASE WHEN last_error IS NULL OR state ="
        " 'acked'"
        " THEN NULL ELSE last_attempt_at END, last_error FROM godwit_op AS o WHERE state <>"
        " 'retired' AND (state IN ('pending', 'parked', 'acked') OR NOT EXISTS (SELECT 1"
        " FROM godwit_outcome AS x WHERE x.lsn = o.lsn AND x.resolution IS NOT NULL)) UNION ALL"
        " SELECT l.tbl, ");
    entity_id(b, further_keys);
    bytes_text(
        b,
        ", 1, NULL, NULL" CAPTURED_FROM " UNION ALL SELECT tbl, pk, 0, NULL, NULL FROM godwit_row)"
        " SELECT json_extract(t.spec, '$.entity') AS entity_type, n.id AS entity_id,"
        " CASE max(n.rank) WHEN 0 THEN 'synced' WHEN 1 THEN 'pending' WHEN 2 THEN 'conflict' ELSE"
        " 'failed' END AS status, r.synced_at AS last_synced_at, max(n.failed_at) AS"
        " last_failed_sync_at, max(n.reason) AS failure_reason, r.ver AS version, r.vclock AS"
        " vector_clock FROM live AS n JOIN godwit_table AS t ON t.tbl = n.tbl LEFT JOIN godwit_row"
        " AS r ON r.tbl = n.tbl AND r.pk = n.id GROUP BY n.tbl, n.id");
}

static const char conflicts_view[] =
    "CREATE VIEW godwit_conflicts AS SELECT c.conflict_id AS conflict_id, c.scope AS scope,"
    " json_extract(t.spec, '$.entity') AS entity_type, c.pk AS entity_id, c.kind AS kind, c.state "
    "AS"
    " state, coalesce(json_extract(c.body, '$.at'), c.at) AS at, c.body AS body FROM "
    "godwit_conflict AS c JOIN godwit_table AS t ON t.tbl ="
    " c.tbl";

/* Materialized: a statement over it has read all of it when its first row is there, and its rows
 * may be dealt with one by one while it runs. */
static const char dead_letters_view[] =
    "CREATE VIEW godwit_dead_letters AS WITH w AS MATERIALIZED (SELECT " OP_ID
    " AS id, o.operation AS operation, o.entity_type "
    "AS"
    " entity_type, o.entity_id AS entity_id, CASE o.state WHEN 'conflict' THEN 'conflict' ELSE"
    " 'failed' END AS status, o.last_error_code AS code, o.last_error AS detail, o.payload AS"
    " payload, coalesce((SELECT at FROM godwit_outcome AS x WHERE x.lsn = o.lsn ORDER BY x.id "
    "DESC"
    " LIMIT 1), o.last_attempt_at, " OP_CREATED ") AS at, o.scope AS scope, o.group_first AS"
    " group_first, (SELECT group_concat(" DEPENDS_ON_ID
    ", ',') FROM godwit_dep AS d JOIN godwit_op AS p ON "
    "p.lsn"
    " = d.depends_on WHERE d.lsn = o.lsn) AS depends_on, o.lsn AS lsn FROM "
    "godwit_op AS o WHERE"
    " o.state IN"
    " ('rejected', 'blocked', 'conflict') AND o.state <> 'retired' AND NOT "
    "EXISTS (SELECT 1 FROM"
    " godwit_outcome AS x WHERE x.lsn = o.lsn AND"
    " x.resolution IS NOT NULL)) SELECT * FROM w";

static const char applying_view[] =
    "CREATE VIEW godwit_applying AS SELECT 1 - capture AS applying FROM godwit_state";

/* Whether one view is there with this text. A table of the same name (an application that has the
 * requirements' sync_queue of its own) is left alone. */
static godwit_status view_current(godwit *g, const char *name, slice wanted, bool *current) {
    int64_t n = 0;
    godwit_status status = db_int(
        &g->db, &n,
        "SELECT count(*) FROM sqlite_schema WHERE name = ?1 AND (type <> 'view' OR sql = ?2)", "ss",
        slice_of(name), wanted);
    *current = n > 0;
    return status;
}

static godwit_status view_install(godwit *g, const char *name, slice wanted) {
    char drop[64];
    snprintf(drop, sizeof drop, "DROP VIEW IF EXISTS %s", name);
    godwit_status status = db_exec(&g->db, drop);
    return status == GODWIT_OK ? db_exec(&g->db, wanted.ptr) : status;
}

/* install false: only looks, and *current says whether all are as they should be. */
static godwit_status views(godwit *g, bool install, bool *current) {
    static const struct {
        const char *name, *text;
        void (*build)(bytes *b, int64_t further_keys);
    } list[] = {
        {"sync_queue", NULL, queue_view},
        {"godwit_conflicts", conflicts_view, NULL},
        {"godwit_dead_letters", dead_letters_view, NULL},
        {"godwit_receipts", NULL, receipt_view},
        {"godwit_events", NULL, event_view},
        {"godwit_captured", NULL, count_captured_view},
        {"godwit_metrics", NULL, count_metrics_view},
        {"godwit_conflict_counts", NULL, count_conflicts_view},
        {"godwit_retry_counts", NULL, count_retries_view},
        {"godwit_row_status", NULL, row_status_view},
        {"godwit_applying", applying_view, NULL},
    };
    int64_t further_keys = 0;
    godwit_status status = db_int(&g->db, &further_keys,
                                  "SELECT count(*) FROM pragma_table_info('godwit_log') WHERE name"
                                  " GLOB 'k[0-9]*'",
                                  "");
    bytes b;
    bytes_init(&b, g->allocator, 0);
    *current = true;
    for (size_t i = 0; i < COUNT_OF(list) && status == GODWIT_OK; i++) {
        bool same = false;
        bytes_clear(&b);
        if (list[i].build) {
            list[i].build(&b, further_keys);
        } else {
            bytes_text(&b, list[i].text);
        }
        status = b.failed ? GODWIT_NOMEM : view_current(g, list[i].name, bytes_view(&b), &same);
        if (status == GODWIT_OK && !same && install) {
            status = view_install(g, list[i].name, bytes_view(&b));
        }
        *current = *current && same;
    }
    bytes_deinit(&b);
    return status;
}

godwit_status client_views_install(godwit *g) {
    bool current = false;
    return views(g, true, &current);
}

static godwit_status lineage_install(godwit *g) {
    uint8_t entropy[16];
    char hex[33];
    godwit_status status = client_entropy(g, entropy, sizeof entropy);
    if (status == GODWIT_OK) {
        id_hex_encode(entropy, sizeof entropy, hex);
        status = db_run(&g->db, "INSERT OR IGNORE INTO godwit_meta(k, v) VALUES ('lineage', ?1)",
                        "s", slice_of(hex));
    }
    return status;
}

godwit_status client_installed(godwit *g, bool *installed, bool *current) {
    int64_t n = 0;
    int64_t version = 0;
    *installed = false;
    *current = false;
    godwit_status status = db_int(&g->db, &n,
                                  "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND"
                                  " name IN ('godwit_meta', 'godwit_log', 'godwit_table')",
                                  "");
    if (status == GODWIT_OK && n == 3) {
        *installed = true;
        status = client_meta_int(g, "schema_version", 0, &version);
        *current = version == (int64_t)COUNT_OF(steps);
    }
    return status;
}

godwit_status client_install(godwit *g) {
    bool current = false;
    int64_t lineage = 0;
    godwit_status status = db_migrate(&g->db, "godwit_meta", steps, (int)COUNT_OF(steps));
    if (status == GODWIT_OK) {
        status =
            db_int(&g->db, &lineage, "SELECT count(*) FROM godwit_meta WHERE k = 'lineage'", "");
    }
    if (status == GODWIT_OK) {
        status = views(g, false, &current);
    }
    /* where all is there no write transaction is begun: even an empty one has to wait for readers
     */
    if (status != GODWIT_OK || (lineage && current)) {
        return status;
    }
    status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = lineage_install(g);
    if (status == GODWIT_OK) {
        status = client_views_install(g);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}
