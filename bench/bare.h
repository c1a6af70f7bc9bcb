/* The bare loop: the rows a server's store ended up with, written again into fresh tables of the
 * same shape from prepared statements, without parsing, hashing, merging or HTTP. */
#ifndef BENCH_BARE_H
#define BENCH_BARE_H

#include "common.h"

typedef struct bare bare;
/* Reads all rows of the store into memory, in the order in which the server made them. */
bare *bare_load(const char *store_path);
void bare_free(bare *b);
/* Writes the first `ops` operations into a new file in transactions of `batch`. `without`: a table
 * or index to leave out, or NULL. Returns the operations written. */
int64_t bare_write(bare *b, const char *path, int64_t batch, const char *without, double *cpu,
                   double *wall);
/* The smallest useful loop: upsert + change-log row + (device, seq) row. */
void bare_smallest(const char *path, int64_t ops, int64_t batch, double *cpu, double *wall);

#endif
