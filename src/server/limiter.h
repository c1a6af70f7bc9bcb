/* How much one address, user or device may do: a bucket of tokens that fills with time, and a count
 * of what is under way. Pure: no lock, no clock; gate.h has both.
 *
 * A table has a fixed number of places. One that has rested until its bucket is full says nothing
 * that a new one would not say, so that it can be given to another name; where none has rested the
 * fullest goes. A place with something under way stays. Memory is the same whoever comes. */
#ifndef SERVER_LIMITER_H
#define SERVER_LIMITER_H

#include "core/base.h"

#define LIMITER_KEY_BYTES 16
#define LIMITER_WAYS      8 /* places that a key can be in */

typedef struct {
    int64_t rate;       /* tokens a second; 0 = no limit */
    int64_t burst;      /* tokens that gather at most; >= 1 */
    int64_t inside_max; /* under way at a time; 0 = no limit */
} allowance;

typedef struct {
    unsigned char key[LIMITER_KEY_BYTES];
    int64_t at_ms;   /* when `milli` was right; 0 = nobody's place */
    int64_t milli;   /* thousandths of tokens */
    uint32_t inside; /* under way */
} limiter_place;

typedef struct {
    limiter_place *places; /* [count], zeroed by the caller at first */
    size_t count;          /* a multiple of LIMITER_WAYS */
    allowance allowed;
} limiter;

typedef enum { LIMITER_IN, LIMITER_TOO_FAST, LIMITER_TOO_MANY } limiter_answer;

/* The place of a key that is evenly distributed; one is made when it has none. NULL: all places it
 * could have are in use. now_ms > 0. */
limiter_place *limiter_find(limiter *l, const unsigned char key[LIMITER_KEY_BYTES], int64_t now_ms);
/* Takes `cost` tokens and counts one more inside (`stay`), or changes nothing and says in *wait_ms
 * after what time it is worth another try. A cost over the burst counts as the burst. */
limiter_answer limiter_enter(const allowance *allowed, limiter_place *p, int64_t cost, bool stay,
                             int64_t now_ms, int64_t *wait_ms);
/* Takes tokens whatever is there; it may leave a debt of at most one burst. */
void limiter_charge(const allowance *allowed, limiter_place *p, int64_t cost, int64_t now_ms);
void limiter_leave(limiter_place *p);

#endif
