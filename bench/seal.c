/* What it costs to turn captured rows into requests: seal (sequence, key, JSON, one row each),
 * encode (push bodies of about 500 operations) and compress, against a bare loop that reads the
 * same rows, takes two SHA-256 of each and inserts one row.
 *
 * Arguments: DIRECTORY REPETITIONS ROWS */
#include "client/pump.h"
#include "common.h"
#include "core/limits.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS_PER_TRANSACTION 100

static void must(godwit *g, godwit_status status, const char *what) {
    if (status != GODWIT_OK) {
        bench_die(what, godwit_message(g));
    }
}

static godwit *captured(const char *path, int64_t count, uint64_t seed) {
    godwit *g = NULL;
    bench_remove(path);
    must(g, godwit_open(path, NULL, &g), "open");
    sqlite3 *connection = godwit_connection(g);
    godwit_settings settings = {.url = "http://127.0.0.1:9", .scope = "s", .token = "t"};
    bench_exec(connection, BENCH_TABLE);
    must(g, godwit_init(g, &settings), "init");
    must(g, godwit_track(g, "pins", NULL), "track");
    sqlite3_stmt *insert =
        bench_prepare(connection, "INSERT INTO pins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    for (int64_t i = 0; i < count; i++) {
        bench_row row;
        if (i % ROWS_PER_TRANSACTION == 0) {
            bench_exec(connection, "BEGIN IMMEDIATE");
        }
        bench_row_make(&row, seed, (uint64_t)i);
        bench_row_bind(insert, &row);
        bench_step_done(connection, insert);
        if (i % ROWS_PER_TRANSACTION == ROWS_PER_TRANSACTION - 1) {
            bench_exec(connection, "COMMIT");
        }
    }
    sqlite3_finalize(insert);
    return g;
}

/* Two SHA-256 of each row, both over the row's bytes; or (`short_key`) the second over the first
 * and a prefix only, which is half of the work. */
static void hash_row(sqlite3_stmt *row, bool short_key, uint8_t out[SHA256_BYTES]) {
    sha256 first, second;
    sha256_init(&first);
    sha256_init(&second);
    for (int i = 0; i < sqlite3_column_count(row); i++) {
        const void *bytes_of = sqlite3_column_blob(row, i);
        size_t len = bytes_of ? (size_t)sqlite3_column_bytes(row, i) : 0;
        sha256_update(&first, bytes_of ? bytes_of : "", len);
        if (!short_key) {
            sha256_update(&second, bytes_of ? bytes_of : "", len);
        }
    }
    sha256_final(&first, out);
    if (short_key) {
        sha256_update(&second, "godwit-op-v1", 12);
        sha256_update(&second, out, SHA256_BYTES);
    }
    sha256_final(&second, out);
}

/* Reads from the log of a captured database, writes into another table of it. */
static double bare(sqlite3 *connection, int64_t count, bool short_key) {
    bench_exec(connection,
               "CREATE TABLE bare(lsn INTEGER PRIMARY KEY, key BLOB, pk, v0, v1, v2, v3, v4, v5)");
    sqlite3_stmt *read =
        bench_prepare(connection, "SELECT lsn, pk, v0, v1, v2, v3, v4, v5 FROM godwit_log");
    sqlite3_stmt *insert =
        bench_prepare(connection, "INSERT INTO bare VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    double start = bench_cpu();
    int64_t n = 0;
    bench_exec(connection, "BEGIN IMMEDIATE");
    while (sqlite3_step(read) == SQLITE_ROW) {
        uint8_t key[SHA256_BYTES];
        hash_row(read, short_key, key);
        sqlite3_bind_value(insert, 1, sqlite3_column_value(read, 0));
        sqlite3_bind_blob(insert, 2, key, sizeof key, SQLITE_STATIC);
        for (int i = 1; i < 8; i++) {
            sqlite3_bind_value(insert, i + 2, sqlite3_column_value(read, i));
        }
        bench_step_done(connection, insert);
        n++;
    }
    sqlite3_finalize(read);
    sqlite3_finalize(insert);
    bench_exec(connection, "COMMIT");
    double cpu = bench_cpu() - start;
    if (n != count) {
        bench_die("bare", "captured rows are missing");
    }
    bench_exec(connection, "DROP TABLE bare");
    return cpu;
}

static double seal(godwit *g, int64_t count) {
    bool more = true;
    double start = bench_cpu();
    while (more) {
        must(g, seal_run(g, SEAL_PORTION, &more), "seal");
    }
    double cpu = bench_cpu() - start;
    if (bench_int(godwit_connection(g), "SELECT count(*) FROM godwit_op WHERE state = 'pending'") !=
        count) {
        bench_die("seal", "operations are missing");
    }
    return cpu;
}

/* As if the server had acknowledged everything up to last_seq. Here an operation's lsn is its
 * number: one database, one scope, nothing coalesced. */
static void acknowledge(godwit *g, int64_t sent, int64_t last_seq) {
    char sql[512];
    snprintf(
        sql, sizeof sql,
        "BEGIN; UPDATE godwit_op SET state = 'acked', commit_seq = 1 WHERE lsn > %lld AND lsn <="
        " %lld;"
        "UPDATE godwit_identity SET acked_seq = %lld, floor_seq = %lld, floor_key ="
        " (SELECT idempotency_key FROM godwit_op WHERE lsn = %lld); COMMIT",
        (long long)sent, (long long)last_seq, (long long)last_seq, (long long)last_seq,
        (long long)last_seq);
    bench_exec(godwit_connection(g), sql);
}

static void encode(godwit *g, int64_t count, double *encoding, double *compressing) {
    pump *p = NULL;
    bytes packed;
    int64_t sent = 0, plain_bytes = 0, packed_bytes = 0;
    must(g, pump_of(g, &p), "pump");
    p->request.scope = SLICE("s");
    bytes_init(&packed, NULL, 0);
    while (sent < count) {
        double start = bench_cpu();
        bytes_clear(&p->request.path);
        bytes_clear(&p->request.body);
        must(g, request_sync(g, p, PUSH_FILL_OPS), "encode");
        double middle = bench_cpu();
        bytes_clear(&packed);
        if (!transport_gzip(bytes_view(&p->request.body), &packed)) {
            bench_die("compress", "");
        }
        *compressing += bench_cpu() - middle;
        *encoding += middle - start;
        plain_bytes += (int64_t)p->request.body.len;
        packed_bytes += (int64_t)packed.len;
        if (p->request.last_seq <= sent) {
            bench_die("encode", "no progress");
        }
        acknowledge(g, sent, p->request.last_seq);
        sent = p->request.last_seq;
    }
    bench_sample("seal bytes per operation", "plain", (double)plain_bytes / (double)count);
    bench_sample("seal bytes per operation", "compressed", (double)packed_bytes / (double)count);
    bytes_deinit(&packed);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        bench_die("usage", "seal DIRECTORY REPETITIONS ROWS");
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/seal.db", argv[1]);
    int64_t count = strtoll(argv[3], NULL, 10) / ROWS_PER_TRANSACTION * ROWS_PER_TRANSACTION;
    for (long r = strtol(argv[2], NULL, 10); r > 0; r--) {
        godwit *g = captured(path, count, (uint64_t)r);
        double encoding = 0, compressing = 0;
        for (int i = 0; i < 2; i++) { /* in turns first: the first one makes the file grow */
            bool short_key = (r + i) % 2 == 1;
            bench_sample("seal total", short_key ? "bare, short key" : "bare",
                         bare(godwit_connection(g), count, short_key));
        }
        double sealing = seal(g, count);
        encode(g, count, &encoding, &compressing);
        bench_sample("seal seal", "godwit", sealing);
        bench_sample("seal encode", "godwit", encoding);
        bench_sample("seal compress", "godwit", compressing);
        bench_sample("seal total", "godwit", sealing + encoding + compressing);
        godwit_close(g);
        bench_remove(path);
    }
    return 0;
}
