/* Vector clocks {"deviceId": version, "$": floor} (semantics 4.3) and corrected time (4.4).
 *
 * The floor says: every operation on this row with commit number <= floor is included. Correctness
 * of the merge never depends on this structure; it is the readable form of causality. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include "core/json.h"

typedef struct {
    slice device;
    int64_t version;
} clock_entry;

typedef struct {
    int64_t floor;
    clock_entry *entries; /* sorted by device, versions > 0 */
    size_t count, cap;
} vclock;

typedef enum { CLOCK_EQUAL, CLOCK_BEFORE, CLOCK_AFTER, CLOCK_CONCURRENT } clock_order;
const char *clock_order_name(clock_order order); /* "equal" "before" "after" "concurrent" */

/* Log position of (device, version) where it is known, else 0. May be NULL: nothing is known. */
typedef int64_t (*clock_position_fn)(void *context, slice device, int64_t version);

/* Empty text, a missing node or {} is {"$":0}. Keys ^[A-Za-z0-9_-]{1,64}$ or "$", values integers
 * in [0, 2^63), at most CLOCK_PARSE_ENTRIES_MAX entries; anything else INVALID. Devices are
 * borrowed from the text. */
godwit_status clock_parse(arena *a, slice text, vclock *out) MUST_USE;
godwit_status clock_from_json(arena *a, const json *node, vclock *out) MUST_USE;
void clock_write(bytes *b, const vclock *c); /* canonical: "$" first, then by device */
/* The same text in the arena; ptr NULL when the arena failed. */
slice clock_text(arena *a, const vclock *c) MUST_USE;
int64_t clock_get(const vclock *c, slice device);
/* Raises one entry (never lowers). NOMEM. */
godwit_status clock_set(arena *a, vclock *c, slice device, int64_t version) MUST_USE;
clock_order clock_compare(const vclock *a, const vclock *b, clock_position_fn position,
                          void *context);
/* dst = max of both. Commutative, associative, idempotent. */
godwit_status clock_merge(arena *a, vclock *dst, const vclock *src) MUST_USE;
/* Keeps the CLOCK_ENTRIES_MAX entries of the highest log position and raises the floor to the
 * highest dropped one. `positions[i]` belongs to entries[i] and moves with it; an entry of position
 * 0 is never dropped. Only for the clock of a row, which includes every operation on the row: for
 * any other clock a raised floor would claim what is not so. */
void clock_compact(vclock *c, int64_t *positions);

/* min(wall_ms + skew_ms, server_now_ms), not below previous_ms; saturating. */
int64_t clock_corrected_ms(int64_t wall_ms, int64_t skew_ms, int64_t server_now_ms,
                           int64_t previous_ms);
/* How far a device's clock is behind the server's; device_now_ms 0 = unknown = no skew. Saturating.
 */
int64_t clock_skew_ms(int64_t server_now_ms, int64_t device_now_ms);

#endif
