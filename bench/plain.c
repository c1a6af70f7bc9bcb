/* A plain insert of many rows in transactions of 1,000: what a bootstrap is compared with.
 *
 * Arguments: DIRECTORY REPETITIONS ROWS */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 4) {
        bench_die("usage", "plain DIRECTORY REPETITIONS ROWS");
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/plain.db", argv[1]);
    int64_t rows = strtoll(argv[3], NULL, 10);
    for (long r = strtol(argv[2], NULL, 10); r > 0; r--) {
        bench_remove(path);
        sqlite3 *db = bench_open(path);
        bench_exec(db, BENCH_TABLE);
        sqlite3_stmt *insert =
            bench_prepare(db, "INSERT INTO pins VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
        double cpu = 0;
        for (int64_t at = 0; at < rows; at += 1000) {
            static bench_row batch[1000];
            for (int64_t i = 0; i < 1000; i++) {
                bench_row_make(&batch[i], 1007, (uint64_t)(at + i + 1));
            }
            double start = bench_cpu();
            bench_exec(db, "BEGIN IMMEDIATE");
            for (int64_t i = 0; i < 1000; i++) {
                bench_row_bind(insert, &batch[i]);
                bench_step_done(db, insert);
            }
            bench_exec(db, "COMMIT");
            cpu += bench_cpu() - start;
        }
        bench_sample("bootstrap plain insert cpu", "plain", cpu);
        sqlite3_finalize(insert);
        sqlite3_close(db);
    }
    bench_remove(path);
    return 0;
}
