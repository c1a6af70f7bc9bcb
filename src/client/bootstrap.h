/* Bootstrap by snapshot (semantics 9.5): pages are staged in shadow tables, the log is followed
 * there until it has passed the newest page, then staging becomes the application's tables in one
 * transaction.
 *
 *   godwit_cursor.state:  bootstrap --first page--> bootstrap(boot_token) --last page--> staging
 * --> live
 *
 * One scope is staged at a time; nothing the application sees changes before the swap. */
#ifndef CLIENT_BOOTSTRAP_H
#define CLIENT_BOOTSTRAP_H

#include "client/settle.h"

/* Forgets what is staged and makes the scope start a snapshot. The queue and all rows stay. */
godwit_status bootstrap_require(godwit *g, slice scope) MUST_USE;
/* Token of the next page to ask for; ptr NULL = the first. */
godwit_status bootstrap_token(godwit *g, arena *a, slice scope, slice *token) MUST_USE;
/* Stages one page. token_before: what the page was asked with; another one than stored is ignored.
 */
godwit_status bootstrap_take_snapshot(godwit *g, slice scope, slice token_before,
                                      const snapshot_answer *page) MUST_USE;
/* A page of the log while staging; seq, salt: the position it ends at. */
godwit_status bootstrap_take_page(settle *s, const pull_answer *page, int64_t seq,
                                  int64_t salt) MUST_USE;
/* Swaps when the scope is staged and the log position has passed every page. *received = rows. */
godwit_status bootstrap_advance(godwit *g, slice scope, int64_t *received) MUST_USE;

/* bootstrap_swap.c: inside a settle transaction */
godwit_status bootstrap_swap(settle *s) MUST_USE;

/* stage.c: one shadow table: id, ver, clock, digest, k0.., c0.. */
typedef struct {
    apply_table *table;
    sqlite3_stmt *put, *get, *drop;
    uint64_t seen[4]; /* data columns some row of the server has had */
} stage_table;
/* Whether rows of the table can belong to the scope at hand. */
bool stage_wants(const settle *s, const client_table *t);
godwit_status stage_open(settle *s, const client_table *t, stage_table *out) MUST_USE;
void stage_close(settle *s, stage_table *st);
godwit_status stage_save_seen(settle *s, const stage_table *st) MUST_USE;
godwit_status stage_put(settle *s, stage_table *st, arena *a, slice id, int64_t ver, slice clock,
                        const row_image *image) MUST_USE;
/* *ver -1: the row is not staged (image absent). */
godwit_status stage_get(settle *s, stage_table *st, arena *a, slice id, int64_t *ver, slice *clock,
                        row_image *image) MUST_USE;
godwit_status stage_drop(settle *s, stage_table *st, slice id) MUST_USE;
/* Notes a conflict record that was delivered; removes the open ones that were not. */
godwit_status stage_conflict(settle *s, slice conflict_id) MUST_USE;
godwit_status stage_forget_conflicts(settle *s) MUST_USE;
/* Creates the shadow tables of the scope, empty; removes all that are there. */
godwit_status stage_create_all(settle *s) MUST_USE;
godwit_status stage_drop_all(godwit *g) MUST_USE;

#endif
