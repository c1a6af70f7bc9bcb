/* Replays a store's rows without a server. See bare.h. */
#include "bare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_MAX 16

/* The tables a push of creates fills, and what orders their rows. */
static const struct {
    const char *name, *order;
    bool per_commit; /* one row per commit, not per operation */
} plan[] = {
    {"pins",
     "(SELECT ver FROM godwit_row r WHERE r.tbl = 'pins' AND r.pk = pins.id AND r.scope = 's'), "
     "rowid",
     false},
    {"godwit_row", "ver", false},
    {"godwit_change", "commit_seq, idx", false},
    {"godwit_op", "device_id, seq", false},
    {"godwit_commit", "commit_seq", true},
};
#define PLANNED (sizeof plan / sizeof plan[0])

typedef struct {
    sqlite3_value **values; /* [count][columns] */
    int64_t count;
    int columns;
} rowset;

struct bare {
    rowset rows[PLANNED];
    char *schema[64], *names[64];
    int schema_count;
};

static void load_rows(sqlite3 *db, rowset *out, const char *table, const char *order) {
    char sql[512];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM \"%s\"", table);
    out->count = bench_int(db, sql);
    snprintf(sql, sizeof sql, "SELECT * FROM \"%s\" ORDER BY %s", table, order);
    sqlite3_stmt *stmt = bench_prepare(db, sql);
    out->columns = sqlite3_column_count(stmt);
    out->values = calloc((size_t)out->count * (size_t)out->columns, sizeof *out->values);
    for (int64_t n = 0; n < out->count && sqlite3_step(stmt) == SQLITE_ROW; n++) {
        for (int c = 0; c < out->columns; c++) {
            out->values[n * out->columns + c] = sqlite3_value_dup(sqlite3_column_value(stmt, c));
        }
    }
    sqlite3_finalize(stmt);
}

bare *bare_load(const char *store_path) {
    bare *b = calloc(1, sizeof *b);
    sqlite3 *db = bench_open(store_path);
    sqlite3_stmt *stmt =
        bench_prepare(db, "SELECT sql, name FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT"
                          " LIKE 'sqlite_%' AND type IN ('table', 'index') ORDER BY type DESC");
    while (sqlite3_step(stmt) == SQLITE_ROW && b->schema_count < 64) {
        b->schema[b->schema_count] = strdup((const char *)sqlite3_column_text(stmt, 0));
        b->names[b->schema_count++] = strdup((const char *)sqlite3_column_text(stmt, 1));
    }
    sqlite3_finalize(stmt);
    for (size_t t = 0; t < PLANNED; t++) {
        load_rows(db, &b->rows[t], plan[t].name, plan[t].order);
    }
    sqlite3_close(db);
    return b;
}

void bare_free(bare *b) {
    for (size_t t = 0; t < PLANNED; t++) {
        for (int64_t i = 0; i < b->rows[t].count * b->rows[t].columns; i++) {
            sqlite3_value_free(b->rows[t].values[i]);
        }
        free(b->rows[t].values);
    }
    for (int i = 0; i < b->schema_count; i++) {
        free(b->schema[i]);
        free(b->names[i]);
    }
    free(b);
}

static sqlite3_stmt *insert_into(sqlite3 *db, const char *table, int columns) {
    char sql[1024];
    int used = snprintf(sql, sizeof sql, "INSERT INTO \"%s\" VALUES (?", table);
    for (int i = 1; i < columns; i++) {
        used += snprintf(sql + used, sizeof sql - (size_t)used, ",?");
    }
    snprintf(sql + used, sizeof sql - (size_t)used, ")");
    return bench_prepare(db, sql);
}

static void write_row(sqlite3 *db, sqlite3_stmt *stmt, const rowset *rows, int64_t n) {
    for (int c = 0; c < rows->columns; c++) {
        sqlite3_bind_value(stmt, c + 1, rows->values[n * rows->columns + c]);
    }
    bench_step_done(db, stmt);
}

static sqlite3 *make_tables(const bare *b, const char *path, const char *without) {
    bench_remove(path);
    sqlite3 *db = bench_open(path);
    for (int i = 0; i < b->schema_count; i++) {
        if (!without || strcmp(b->names[i], without) != 0) {
            int rc = sqlite3_exec(db, b->schema[i], NULL, NULL, NULL);
            if (rc != SQLITE_OK &&
                !without) { /* an index of a table left out fails: that is meant */
                bench_die(b->names[i], sqlite3_errmsg(db));
            }
        }
    }
    bench_exec(db, "INSERT INTO godwit_scope(scope) VALUES ('s');"
                   "INSERT INTO godwit_device(scope, device_id, user_id, lineage, registered_at)"
                   " VALUES ('s', 'd', 'u', 'd', 0)");
    return db;
}

int64_t bare_write(bare *b, const char *path, int64_t batch, const char *without, double *cpu,
                   double *wall) {
    sqlite3 *db = make_tables(b, path, without);
    sqlite3_stmt *stmts[PLANNED] = {0};
    for (size_t t = 0; t < PLANNED; t++) {
        if (!without || strcmp(plan[t].name, without) != 0) {
            stmts[t] = insert_into(db, plan[t].name, b->rows[t].columns);
        }
    }
    sqlite3_stmt *head = bench_prepare(db, "UPDATE godwit_scope SET head = ?1 WHERE scope = 's'");
    sqlite3_stmt *device =
        bench_prepare(db, "UPDATE godwit_device SET applied_seq = ?1, last_seen = ?1, last_at = ?1,"
                          " last_key = zeroblob(32) WHERE scope = 's' AND device_id = 'd'");
    int64_t ops = b->rows[0].count, commit = 0, commits = b->rows[PLANNED - 1].count;
    *cpu = bench_cpu();
    *wall = bench_wall();
    for (int64_t at = 0; at < ops; at += batch) {
        int64_t end = at + batch < ops ? at + batch : ops;
        bench_exec(db, "BEGIN IMMEDIATE");
        for (size_t t = 0; t + 1 < PLANNED; t++) {
            for (int64_t n = at; stmts[t] && n < end && n < b->rows[t].count; n++) {
                write_row(db, stmts[t], &b->rows[t], n);
            }
        }
        int64_t commit_end = ops ? commits * end / ops : 0;
        for (; stmts[PLANNED - 1] && commit < commit_end; commit++) {
            write_row(db, stmts[PLANNED - 1], &b->rows[PLANNED - 1], commit);
        }
        sqlite3_bind_int64(head, 1, commit);
        bench_step_done(db, head);
        sqlite3_bind_int64(device, 1, end);
        bench_step_done(db, device);
        bench_exec(db, "COMMIT");
    }
    *cpu = bench_cpu() - *cpu;
    *wall = bench_wall() - *wall;
    for (size_t t = 0; t < PLANNED; t++) {
        sqlite3_finalize(stmts[t]);
    }
    sqlite3_finalize(head);
    sqlite3_finalize(device);
    sqlite3_close(db);
    bench_remove(path);
    return ops;
}

void bare_smallest(const char *path, int64_t ops, int64_t batch, double *cpu, double *wall) {
    bench_remove(path);
    sqlite3 *db = bench_open(path);
    bench_exec(db, BENCH_TABLE);
    bench_exec(
        db, "CREATE TABLE change(seq INTEGER PRIMARY KEY, pk TEXT, title TEXT, note TEXT, "
            "lat REAL, lng REAL,"
            " status TEXT, updated_at TEXT);"
            "CREATE TABLE done(device TEXT, seq INTEGER, PRIMARY KEY (device, seq)) WITHOUT ROWID");
    sqlite3_stmt *row = bench_prepare(
        db,
        "INSERT INTO pins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(id) DO UPDATE SET title "
        "= excluded.title,"
        " note = excluded.note, lat = excluded.lat, lng = excluded.lng, status = excluded.status,"
        " updated_at = excluded.updated_at");
    sqlite3_stmt *change =
        bench_prepare(db, "INSERT INTO change(pk, title, note, lat, lng, status, updated_at)"
                          " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    sqlite3_stmt *device =
        bench_prepare(db, "INSERT INTO done VALUES ('00000000000000000000000000000001', ?1)");
    bench_row *rows = calloc((size_t)ops, sizeof *rows);
    for (int64_t n = 0; n < ops; n++) {
        bench_row_make(&rows[n], 1000, (uint64_t)n + 1);
    }
    *cpu = bench_cpu();
    *wall = bench_wall();
    for (int64_t at = 0; at < ops; at += batch) {
        bench_exec(db, "BEGIN IMMEDIATE");
        for (int64_t n = at; n < at + batch && n < ops; n++) {
            bench_row_bind(row, &rows[n]);
            bench_step_done(db, row);
            bench_row_bind(change, &rows[n]);
            bench_step_done(db, change);
            sqlite3_bind_int64(device, 1, n + 1);
            bench_step_done(db, device);
        }
        bench_exec(db, "COMMIT");
    }
    *cpu = bench_cpu() - *cpu;
    *wall = bench_wall() - *wall;
    free(rows);
    sqlite3_finalize(row);
    sqlite3_finalize(change);
    sqlite3_finalize(device);
    sqlite3_close(db);
    bench_remove(path);
}
