/* What the benchmarks share: CPU and wall clocks, reproducible rows, samples as lines on stdout.
 *
 * A program measures every variant several times in turn (so that a change of the machine's mood
 * hits all of them) and prints one line per sample: "metric<TAB>variant<TAB>value". bench/run takes
 * medians and ratios. A failure ends the program with a message. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* seconds of CPU of this process (all threads), and of the wall */
double bench_cpu(void);
double bench_wall(void);
/* peak resident set of this process in KiB */
long bench_peak_kib(void);

void bench_sample(const char *metric, const char *variant, double value);
_Noreturn void bench_die(const char *what, const char *detail);

/* Opens (creating) a database with WAL, synchronous=FULL. */
sqlite3 *bench_open(const char *path);
void bench_remove(const char *path); /* with -wal and -shm */
void bench_exec(sqlite3 *db, const char *sql);
sqlite3_stmt *bench_prepare(sqlite3 *db, const char *sql);
void bench_step_done(sqlite3 *db, sqlite3_stmt *stmt); /* steps to the end and resets */
int64_t bench_int(sqlite3 *db, const char *sql);
void bench_load_extension(sqlite3 *db, const char *path);

/* The row of every benchmark: 225 bytes of content in seven columns. */
#define BENCH_TABLE                                                                                \
    "CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, lat REAL, lng REAL, status "    \
    "TEXT,"                                                                                        \
    " updated_at TEXT)"
#define BENCH_COLUMNS 7
typedef struct {
    char id[37], title[33], note[110], status[9], updated_at[25];
    double lat, lng;
} bench_row;
/* Row n of the series `seed`; ids look like random UUIDs, so they come in no order. */
void bench_row_make(bench_row *row, uint64_t seed, uint64_t n);
void bench_row_bind(sqlite3_stmt *stmt, const bench_row *row); /* parameters 1..7 */

#endif
