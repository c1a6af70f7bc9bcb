/* The merge table of semantics 7.2: one unit in, one verdict out.
 *
 * Nothing here knows rows, operations or JSON: who calls has built the unit, and carries the
 * verdict out. */
#include "core/merge.h"

static const char *const POLICY_NAMES[] = {[POLICY_LWW] = "lww",
                                           [POLICY_SERVER_WINS] = "server_wins",
                                           [POLICY_CLIENT_WINS] = "client_wins",
                                           [POLICY_MANUAL] = "manual",
                                           [POLICY_MAX] = "max",
                                           [POLICY_MIN] = "min",
                                           [POLICY_COUNTER] = "counter",
                                           [POLICY_SET] = "set",
                                           [POLICY_HOLD] = "hold_group",
                                           [POLICY_CUSTOM] = "custom"};
static const char *const VERDICT_NAMES[] = {
    [MERGE_CAUSAL] = "causal", [MERGE_AGREE] = "agree",
    [MERGE_ABA] = "aba",       [MERGE_COMMUTATIVE] = "commutative",
    [MERGE_OURS] = "ours",     [MERGE_THEIRS] = "theirs",
    [MERGE_OPEN] = "open",     [MERGE_HOLD] = "hold",
    [MERGE_ASK] = "ask"};

const char *merge_policy_name(merge_policy policy) {
    ASSERT((size_t)policy < COUNT_OF(POLICY_NAMES));
    return POLICY_NAMES[policy];
}

const char *merge_verdict_name(merge_verdict verdict) {
    ASSERT((size_t)verdict < COUNT_OF(VERDICT_NAMES));
    return VERDICT_NAMES[verdict];
}

bool merge_newer(const merge_meta *meta, int64_t eff_base, slice device, int64_t seq) {
    bool own = device.len > 0 && meta->seq < seq && slice_equal(meta->device, device);
    return meta->ver > eff_base && !own;
}

int merge_write_order(int64_t at_ms, slice device, int64_t seq, int64_t other_at_ms,
                      slice other_device, int64_t other_seq) {
    if (at_ms != other_at_ms) {
        return at_ms > other_at_ms ? 1 : -1;
    }
    int order = slice_compare(device, other_device);
    return order ? order : (seq > other_seq) - (seq < other_seq);
}

static int order_int_real(int64_t i, double d) {
    if (d != d) {
        return 1;
    }
    /* 2^63 and -2^63 are exact as doubles; between them the cast is defined. */
    if (d >= 9223372036854775808.0) {
        return -1;
    }
    if (d < -9223372036854775808.0) {
        return 1;
    }
    int64_t whole = (int64_t)d;
    if (i != whole) {
        return i > whole ? 1 : -1;
    }
    double rest = d - (double)whole;
    return (rest < 0) - (rest > 0);
}

static int order_real(double a, double b) {
    bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) {
        return (int)b_nan - (int)a_nan;
    }
    return (a > b) - (a < b);
}

/* NULL, numbers, TEXT, BLOB, and last what is no value yet. */
static int rank(const value *v) {
    switch ((value_type)v->type) {
    case VALUE_NULL:
        return 0;
    case VALUE_INT:
    case VALUE_REAL:
        return 1;
    case VALUE_TEXT:
        return 2;
    case VALUE_BLOB:
        return 3;
    case VALUE_SPECIAL:
        break;
    }
    return 4;
}

int merge_value_order(const value *a, const value *b) {
    int rank_a = rank(a), rank_b = rank(b);
    if (rank_a != rank_b) {
        return rank_a > rank_b ? 1 : -1;
    }
    if (rank_a == 1) {
        if (a->type == VALUE_INT) {
            return b->type == VALUE_INT ? (a->u.i > b->u.i) - (a->u.i < b->u.i)
                                        : order_int_real(a->u.i, b->u.d);
        }
        return b->type == VALUE_INT ? -order_int_real(b->u.i, a->u.d) : order_real(a->u.d, b->u.d);
    }
    return rank_a == 2 || rank_a == 3 ? slice_compare(a->u.s, b->u.s) : 0;
}

static bool all_agree(const merge_unit *unit) {
    for (size_t i = 0; i < unit->count; i++) {
        if (!value_equal(&unit->ours[i], &unit->theirs[i])) {
            return false;
        }
    }
    return true;
}

/* Has the other side, member by member, either left what the author started from or come to the
 * same as the author? Then ours contains everything that theirs does. */
static bool nothing_lost(const merge_unit *unit) {
    for (size_t i = 0; i < unit->count; i++) {
        bool back = unit->old_known[i] && value_equal(&unit->theirs[i], &unit->old[i]);
        if (!back && !value_equal(&unit->ours[i], &unit->theirs[i])) {
            return false;
        }
    }
    return true;
}

bool merge_extreme(merge_policy policy, const value *ours, const value *theirs) {
    if (ours->type == VALUE_NULL || theirs->type == VALUE_NULL) {
        return theirs->type == VALUE_NULL;
    }
    int order = merge_value_order(ours, theirs);
    return policy == POLICY_MAX ? order > 0 : order < 0;
}

static merge_verdict latest(const merge_unit *unit) {
    /* A writer without a stream is timed by the server's own clock, where arrival is the order. */
    if (unit->our_device.len == 0 && unit->our_at_ms >= unit->their_at_ms) {
        return MERGE_OURS;
    }
    int order = merge_write_order(unit->our_at_ms, unit->our_device, unit->our_seq,
                                  unit->their_at_ms, unit->their_device, unit->their_seq);
    return order > 0 ? MERGE_OURS : MERGE_THEIRS;
}

merge_verdict merge_unit_decide(const merge_unit *unit) {
    ASSERT(unit->count > 0);
    if (!unit->newer) {
        return MERGE_CAUSAL;
    }
    if (!unit->incomplete && all_agree(unit)) {
        return MERGE_AGREE;
    }
    if (!unit->incomplete && nothing_lost(unit)) {
        return MERGE_ABA;
    }
    if (unit->policy == POLICY_MANUAL) {
        return MERGE_OPEN;
    }
    if (unit->policy == POLICY_HOLD) {
        return MERGE_HOLD;
    }
    if (unit->policy == POLICY_CUSTOM) {
        return unit->incomplete ? MERGE_OPEN : MERGE_ASK;
    }
    if (unit->incomplete) {
        return MERGE_THEIRS;
    }
    switch (unit->policy) {
    case POLICY_SERVER_WINS:
        return MERGE_THEIRS;
    case POLICY_CLIENT_WINS:
        return MERGE_OURS;
    case POLICY_MAX:
    case POLICY_MIN:
        if (unit->count == 1) {
            return merge_extreme(unit->policy, &unit->ours[0], &unit->theirs[0]) ? MERGE_COMMUTATIVE
                                                                                 : MERGE_THEIRS;
        }
        return latest(unit);
    case POLICY_LWW:
    case POLICY_COUNTER:
    case POLICY_SET:
    case POLICY_MANUAL:
    case POLICY_HOLD:
    case POLICY_CUSTOM:
        break;
    }
    return latest(unit);
}
