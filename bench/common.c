/* Clocks, rows and SQLite helpers of the benchmarks. See common.h. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double bench_cpu(void) {
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}
double bench_wall(void) {
    return seconds(CLOCK_MONOTONIC);
}

long bench_peak_kib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

void bench_sample(const char *metric, const char *variant, double value) {
    printf("%s\t%s\t%.9g\n", metric, variant, value);
    fflush(stdout);
}

void bench_die(const char *what, const char *detail) {
    fprintf(stderr, "bench: %s: %s\n", what, detail ? detail : "");
    exit(1);
}

static void check(sqlite3 *db, int rc, const char *what) {
    if (rc != SQLITE_OK && rc != SQLITE_ROW && rc != SQLITE_DONE) {
        bench_die(what, sqlite3_errmsg(db));
    }
}

sqlite3 *bench_open(const char *path) {
    sqlite3 *db = NULL;
    check(db, sqlite3_open(path, &db), path);
    bench_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    return db;
}

void bench_remove(const char *path) {
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char name[1024];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        (void)unlink(name);
    }
}

void bench_exec(sqlite3 *db, const char *sql) {
    check(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

sqlite3_stmt *bench_prepare(sqlite3 *db, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    check(db, sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), sql);
    return stmt;
}

void bench_step_done(sqlite3 *db, sqlite3_stmt *stmt) {
    int rc;
    do {
        rc = sqlite3_step(stmt);
    } while (rc == SQLITE_ROW);
    check(db, rc, sqlite3_sql(stmt));
    sqlite3_reset(stmt);
}

int64_t bench_int(sqlite3 *db, const char *sql) {
    sqlite3_stmt *stmt = bench_prepare(db, sql);
    check(db, sqlite3_step(stmt), sql);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

void bench_load_extension(sqlite3 *db, const char *path) {
    char *message = NULL;
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, path, NULL, &message) != SQLITE_OK) {
        bench_die(path, message);
    }
}

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void words(char *out, size_t size, uint64_t state) {
    static const char *const list[] = {"well ", "field ", "north ", "gate ",
                                       "old ",  "stone ", "dry ",   "mark "};
    size_t used = 0;
    while (used + 1 < size) {
        const char *word = list[state & 7];
        state = mix(state);
        size_t len = strlen(word);
        len = len < size - 1 - used ? len : size - 1 - used;
        memcpy(out + used, word, len);
        used += len;
    }
    out[used] = '\0';
}

void bench_row_make(bench_row *row, uint64_t seed, uint64_t n) {
    uint64_t a = mix(seed * UINT64_C(1000003) + n), b = mix(a), c = mix(b);
    snprintf(row->id, sizeof row->id, "%08x-%04x-4%03x-a%03x-%012llx", (unsigned)(a >> 32),
             (unsigned)(a >> 16) & 0xffff, (unsigned)a & 0xfff, (unsigned)(b >> 48) & 0xfff,
             (unsigned long long)(b & UINT64_C(0xffffffffffff)));
    words(row->title, sizeof row->title, c);
    words(row->note, sizeof row->note, mix(c));
    memcpy(row->status, "surveyed", sizeof row->status);
    memcpy(row->updated_at, "2026-01-02T03:04:05.678Z", sizeof row->updated_at);
    row->lat = (double)(c % 180000) / 1000.0 - 90.0;
    row->lng = (double)(b % 360000) / 1000.0 - 180.0;
}

void bench_row_bind(sqlite3_stmt *stmt, const bench_row *row) {
    sqlite3_bind_text(stmt, 1, row->id, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, row->title, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 3, row->note, -1, SQLITE_STATIC);
    sqlite3_bind_double(stmt, 4, row->lat);
    sqlite3_bind_double(stmt, 5, row->lng);
    sqlite3_bind_text(stmt, 6, row->status, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 7, row->updated_at, -1, SQLITE_STATIC);
}
