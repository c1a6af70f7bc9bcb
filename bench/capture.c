/* What capturing costs the application's own writes: insert, one-column update, delete; in one big
 * transaction, in transactions of 100, and one by one with synchronous=FULL.
 *
 *   plain    the table alone
 *   floor    plus a second prepared INSERT by hand into a log of the same shape, in the same
 *            transaction: nobody can be faster
 *   godwit   the table tracked, the extension loaded
 *
 * Arguments: DIRECTORY EXTENSION REPETITIONS ROWS ROWS_ONE_BY_ONE */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN, FLOOR, GODWIT, GODWIT_FILE, VARIANTS };
static const char *const variant_names[] = {"plain", "floor", "godwit", "file"};

typedef struct {
    sqlite3 *db;
    int variant;
    sqlite3_stmt *begin, *commit, *insert, *update, *delete, *log_insert, *log_update, *log_delete;
} bench;

static const char log_table[] =
    "CREATE TABLE log(lsn INTEGER PRIMARY KEY, op INTEGER NOT NULL, tbl INTEGER NOT NULL, pk, mask "
    "INTEGER,"
    " wall REAL, nonce INTEGER, v0, v1, v2, v3, v4, v5, v6, v7, o0, o1, o2, o3, o4, o5, o6, o7)";

static void open_bench(bench *b, const char *path, const char *extension, int variant) {
    memset(b, 0, sizeof *b);
    b->variant = variant;
    bench_remove(path);
    b->db = bench_open(path);
    bench_exec(b->db, BENCH_TABLE);
    if (variant >= GODWIT) {
        if (variant == GODWIT_FILE) {
            bench_exec(b->db, "PRAGMA temp_store=FILE");
        }
        bench_load_extension(b->db, extension);
        bench_exec(b->db, "SELECT godwit_init('{\"url\":\"http://127.0.0.1:9\",\"scope\":\"s\"}')");
        bench_exec(b->db, "SELECT godwit_track('pins')");
        bench_exec(b->db, "PRAGMA synchronous=FULL");
    } else if (variant == FLOOR) {
        bench_exec(b->db, log_table);
        b->log_insert =
            bench_prepare(b->db, "INSERT INTO log(op, tbl, pk, v0, v1, v2, v3, v4, v5, wall, nonce)"
                                 " VALUES (1, 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 2461042.5, ?8)");
        b->log_update =
            bench_prepare(b->db, "INSERT INTO log(op, tbl, pk, mask, v0, o0, wall, nonce)"
                                 " VALUES (2, 1, ?1, 1, ?2, ?3, 2461042.5, ?4)");
        b->log_delete =
            bench_prepare(b->db, "INSERT INTO log(op, tbl, pk, o0, o1, o2, o3, o4, o5, wall, nonce)"
                                 " VALUES (3, 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 2461042.5, ?8)");
    }
    b->begin = bench_prepare(b->db, "BEGIN IMMEDIATE");
    b->commit = bench_prepare(b->db, "COMMIT");
    b->insert = bench_prepare(b->db, "INSERT INTO pins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    b->update = bench_prepare(b->db, "UPDATE pins SET title = ?2 WHERE id = ?1");
    b->delete = bench_prepare(b->db, "DELETE FROM pins WHERE id = ?1");
}

static void close_bench(bench *b) {
    sqlite3_stmt *all[] = {b->begin,  b->commit,     b->insert,     b->update,
                           b->delete, b->log_insert, b->log_update, b->log_delete};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        sqlite3_finalize(all[i]);
    }
    sqlite3_close(b->db);
}

static void write_one(bench *b, int op, const bench_row *row, int64_t n) {
    static const char changed[] = "a title changed on the road";
    sqlite3_stmt *stmt = op == 1 ? b->insert : op == 2 ? b->update : b->delete;
    if (op == 1) {
        bench_row_bind(stmt, row);
    } else {
        sqlite3_bind_text(stmt, 1, row->id, -1, SQLITE_STATIC);
    }
    if (op == 2) {
        sqlite3_bind_text(stmt, 2, changed, -1, SQLITE_STATIC);
    }
    bench_step_done(b->db, stmt);
    if (b->variant != FLOOR) {
        return;
    }
    sqlite3_stmt *log = op == 1 ? b->log_insert : op == 2 ? b->log_update : b->log_delete;
    if (op == 2) {
        sqlite3_bind_text(log, 1, row->id, -1, SQLITE_STATIC);
        sqlite3_bind_text(log, 2, changed, -1, SQLITE_STATIC);
        sqlite3_bind_text(log, 3, row->title, -1, SQLITE_STATIC);
        sqlite3_bind_int64(log, 4, n);
    } else {
        bench_row_bind(log, row);
        sqlite3_bind_int64(log, 8, n * INT64_C(0x9e3779b97f4a7c1));
    }
    bench_step_done(b->db, log);
}

/* All rows once with `op`, in transactions of `per` rows. One row is committed by itself, but for
 * the floor, whose two statements belong together. */
static void phase(bench *b, int op, const bench_row *rows, int64_t count, int64_t per) {
    bool together = per > 1 || b->variant == FLOOR;
    for (int64_t at = 0; at < count; at += per) {
        if (together) {
            bench_step_done(b->db, b->begin);
        }
        for (int64_t i = at; i < count && i < at + per; i++) {
            write_one(b, op, &rows[i], i);
        }
        if (together) {
            bench_step_done(b->db, b->commit);
        }
    }
}

static int64_t log_bytes(bench *b) {
    const char *sql = b->variant >= GODWIT
                          ? "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name LIKE 'godwit_%'"
                          : "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name = 'log'";
    return b->variant == PLAIN ? 0 : bench_int(b->db, sql);
}

static void measure(const char *path, const char *extension, int variant, const char *name,
                    const bench_row *rows, int64_t count, int64_t per) {
    static const char *const ops[] = {"", "insert", "update", "delete"};
    bench b;
    open_bench(&b, path, extension, variant);
    for (int op = 1; op <= 3; op++) {
        char metric[64];
        int64_t before = per >= count ? log_bytes(&b) : 0;
        double cpu = bench_cpu(), wall = bench_wall();
        phase(&b, op, rows, count, per);
        cpu = bench_cpu() - cpu;
        wall = bench_wall() - wall;
        snprintf(metric, sizeof metric, "capture %s %s cpu", name, ops[op]);
        bench_sample(metric, variant_names[variant], cpu);
        snprintf(metric, sizeof metric, "capture %s %s wall", name, ops[op]);
        bench_sample(metric, variant_names[variant], wall);
        if (per >= count && variant != PLAIN) {
            snprintf(metric, sizeof metric, "capture bytes %s", ops[op]);
            bench_sample(metric, variant_names[variant],
                         (double)(log_bytes(&b) - before) / (double)count);
        }
        if (variant >= GODWIT && per >= count) {
            int64_t captured = bench_int(b.db, "SELECT count(*) FROM godwit_log");
            if (captured != count * op) {
                bench_die("capture", "operations are missing from the log");
            }
        }
    }
    close_bench(&b);
    bench_remove(path);
}

/* One row per transaction. The time is the disk's, and the disk has moods: the variants take turns
 * every few rows, so that each gets its share of them. */
static void measure_singles(const char *directory, const char *extension, const bench_row *rows,
                            int64_t count) {
    static const char *const ops[] = {"", "insert", "update", "delete"};
    enum { BLOCK = 20 };
    bench all[VARIANTS];
    char paths[VARIANTS][1100];
    for (int v = 0; v < VARIANTS; v++) {
        snprintf(paths[v], sizeof paths[v], "%s/single-%s.db", directory, variant_names[v]);
        open_bench(&all[v], paths[v], extension, v);
    }
    for (int op = 1; op <= 3; op++) {
        double wall[VARIANTS] = {0};
        for (int64_t at = 0; at < count; at += BLOCK) {
            for (int v = 0; v < VARIANTS; v++) {
                double start = bench_wall();
                phase(&all[v], op, rows + at, at + BLOCK < count ? BLOCK : count - at, 1);
                wall[v] += bench_wall() - start;
            }
        }
        for (int v = 0; v < VARIANTS; v++) {
            char metric[64];
            snprintf(metric, sizeof metric, "capture single %s wall", ops[op]);
            bench_sample(metric, variant_names[v], wall[v]);
        }
    }
    for (int v = 0; v < VARIANTS; v++) {
        close_bench(&all[v]);
        bench_remove(paths[v]);
    }
}

int main(int argc, char **argv) {
    if (argc != 6) {
        bench_die("usage", "capture DIRECTORY EXTENSION REPETITIONS ROWS ROWS_ONE_BY_ONE");
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/capture.db", argv[1]);
    int repetitions = (int)strtol(argv[3], NULL, 10);
    int64_t count = strtoll(argv[4], NULL, 10), single = strtoll(argv[5], NULL, 10);
    bench_row *rows = calloc((size_t)count, sizeof *rows);
    if (!rows) {
        bench_die("memory", "");
    }
    for (int r = 0; r < repetitions; r++) {
        for (int64_t i = 0; i < count; i++) {
            bench_row_make(&rows[i], (uint64_t)r, (uint64_t)i);
        }
        for (int variant = 0; variant < VARIANTS; variant++) {
            measure(path, argv[2], variant, "bulk", rows, count, count);
            measure(path, argv[2], variant, "100", rows, count, 100);
        }
        measure_singles(argv[1], argv[2], rows, single);
    }
    free(rows);
    return 0;
}
