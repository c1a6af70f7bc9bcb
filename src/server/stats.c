/* Counters of the data side. See stats.h. */
#include "server/stats.h"

static const char *const outcome_names[STATS_OUTCOMES] = {
    [OUTCOME_NONE] = "none",           [OUTCOME_APPLIED] = "applied",
    [OUTCOME_MERGED] = "merged",       [OUTCOME_NOOP] = "noop",
    [OUTCOME_REJECTED] = "rejected",   [OUTCOME_CONFLICT] = "conflict",
    [OUTCOME_DUPLICATE] = "duplicate", [STATS_RESENT] = "resent",
};

static const char *const kinds[STATS_KINDS] = {
    "other",         "field",        "update_delete", "delete_update", "create_create",
    "delete_create", "unique",       "foreign_key",   "check",         "lost_base",
    "row_gone",      "unverifiable", "custom",        "hold_group",    "fk",
    "validation",
};

static const char *const step_names[STEP_COUNT] = {
    [STEP_BEGIN] = "begin", [STEP_DECIDE] = "decide", [STEP_COMMIT] = "commit",
    [STEP_READ] = "read",   [STEP_TIDY] = "tidy",
};

#define MINUTE_MS 60000LL
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
static const int64_t age_bounds[STATS_AGES - 1] = {0, MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS};
static const char *const age_names[STATS_AGES] = {"none", "minute", "hour", "day", "week", "more"};
static const int64_t queue_bounds[STATS_QUEUES - 1] = {0, 10, 100, 1000};
static const char *const queue_names[STATS_QUEUES] = {"0", "1-10", "11-100", "101-1000", "more"};

/* ---- One transaction ---- */

void stats_tally_reset(stats *s) {
    memset(&s->tally, 0, sizeof s->tally);
}

/* Where the entity is counted; a name seen for the first time gets a place while there is one. */
static size_t place_of(stats *s, slice entity) {
    size_t count = atomic_load_explicit(&s->entity_count, memory_order_relaxed);
    for (size_t i = 0; i < count; i++) {
        if (slice_is(entity, s->entities[i])) {
            return i;
        }
    }
    if (count == STATS_ENTITIES || entity.len == 0 || entity.len > NAME_BYTES_MAX) {
        return STATS_ENTITIES;
    }
    memcpy(s->entities[count], entity.ptr, entity.len); /* zero behind it */
    atomic_store_explicit(&s->entity_count, count + 1, memory_order_release);
    return count;
}

void stats_tally_operation(stats *s, slice entity, int outcome, op_code code) {
    ASSERT(outcome >= 0 && outcome < STATS_OUTCOMES && (size_t)code < CODE_COUNT);
    s->tally.operations[place_of(s, entity)][outcome]++;
    s->tally.codes[code] += code != CODE_NONE && outcome != STATS_RESENT;
}

void stats_tally_conflict(stats *s, slice kind, bool open) {
    size_t at = 0;
    for (size_t i = 1; i < STATS_KINDS; i++) {
        at = slice_is(kind, kinds[i]) ? i : at;
    }
    s->tally.conflicts[at][open]++;
}

static void add(_Atomic uint64_t *counter, int64_t n) {
    if (n) {
        atomic_fetch_add_explicit(counter, (uint64_t)n, memory_order_relaxed);
    }
}

void stats_tally_count(stats *s) {
    const stats_tally *t = &s->tally;
    for (size_t i = 0; i <= STATS_ENTITIES; i++) {
        for (size_t o = 0; o < STATS_OUTCOMES; o++) {
            add(&s->operations[i][o], t->operations[i][o]);
        }
    }
    for (size_t i = 0; i < CODE_COUNT; i++) {
        add(&s->codes[i], t->codes[i]);
    }
    for (size_t i = 0; i < STATS_KINDS; i++) {
        add(&s->conflicts[i][0], t->conflicts[i][0]);
        add(&s->conflicts[i][1], t->conflicts[i][1]);
    }
    add(&s->resolved, t->resolved);
    if (t->groups) {
        prom_observe(&s->groups, &prom_sizes, t->groups);
        prom_observe(&s->decided, &prom_sizes, t->decided);
    }
}

void stats_step_took(stats *s, stats_step step, int64_t micros) {
    prom_observe(&s->steps[step], &prom_seconds, micros);
}

void stats_hook(stats *s, bool answered) {
    add(&s->hooks[answered], 1);
}

/* ---- Devices ---- */

static size_t below(const int64_t *bounds, size_t count, int64_t value) {
    size_t i = 0;
    while (i < count && value > bounds[i]) {
        i++;
    }
    return i;
}

void stats_fleet_add(stats_fleet *f, int64_t pending, int64_t failed, int64_t oldest_ms,
                     int64_t silent_ms) {
    f->queues[below(queue_bounds, STATS_QUEUES - 1, pending)]++;
    f->ages[below(age_bounds, STATS_AGES - 1, oldest_ms)]++;
    f->seen[below(age_bounds + 1, STATS_AGES - 2, silent_ms) + 1]++;
    f->pending += pending;
    f->failed += failed;
    f->oldest_ms = oldest_ms > f->oldest_ms ? oldest_ms : f->oldest_ms;
}

void stats_fleet_publish(stats *s, const stats_fleet *f) {
    int64_t numbers[sizeof *f / sizeof(int64_t)];
    memcpy(numbers, f, sizeof numbers);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        atomic_store_explicit(&s->fleet[i], numbers[i], memory_order_relaxed);
    }
}

/* ---- Text ---- */

static int64_t load(const _Atomic uint64_t *counter) {
    return (int64_t)atomic_load_explicit(counter, memory_order_relaxed);
}

static void write_operations(const stats *s, bytes *b) {
    size_t count = atomic_load_explicit(&s->entity_count, memory_order_acquire);
    prom_heading(b, "godwit_operations_total", "counter",
                 "Operations decided, by table and outcome.");
    for (size_t i = 0; i <= STATS_ENTITIES; i++) {
        if (i >= count && i < STATS_ENTITIES) {
            continue;
        }
        for (size_t o = 1; o < STATS_OUTCOMES; o++) {
            int64_t n = load(&s->operations[i][o]);
            if (n) {
                bytes_printf(b, "godwit_operations_total{outcome=\"%s\",", outcome_names[o]);
                prom_label(b, "entity", slice_of(i == STATS_ENTITIES ? "other" : s->entities[i]));
                bytes_printf(b, "} %lld\n", (long long)n);
            }
        }
    }
    prom_heading(b, "godwit_rejections_total", "counter", "Operations rejected, by code.");
    for (size_t i = 1; i < CODE_COUNT; i++) {
        if (load(&s->codes[i])) {
            prom_line(b, "godwit_rejections_total", "code", slice_of(op_code_name((op_code)i)),
                      load(&s->codes[i]));
        }
    }
}

static void write_conflicts(const stats *s, bytes *b) {
    prom_heading(b, "godwit_conflicts_total", "counter",
                 "Entries made in the conflict ledger, by kind and state.");
    for (size_t i = 0; i < STATS_KINDS; i++) {
        for (int open = 0; open < 2; open++) {
            if (load(&s->conflicts[i][open])) {
                bytes_printf(b, "godwit_conflicts_total{kind=\"%s\",state=\"%s\"} %lld\n", kinds[i],
                             open ? "open" : "auto", (long long)load(&s->conflicts[i][open]));
            }
        }
    }
    prom_single(b, "godwit_conflicts_resolved_total", "counter",
                "Operations with effect that decided an entry of the ledger.", load(&s->resolved));
}

static void write_store(const stats *s, bytes *b) {
    prom_heading(b, "godwit_commit_groups", "histogram",
                 "Groups of operations decided in one database transaction.");
    prom_histogram_write(b, "godwit_commit_groups", NULL, NULL, &s->groups, &prom_sizes);
    prom_heading(b, "godwit_commit_operations", "histogram",
                 "Operations decided in one database transaction.");
    prom_histogram_write(b, "godwit_commit_operations", NULL, NULL, &s->decided, &prom_sizes);
    prom_heading(b, "godwit_store_seconds", "histogram", "Time in the store, by step.");
    for (size_t i = 0; i < STEP_COUNT; i++) {
        prom_histogram_write(b, "godwit_store_seconds", "step", step_names[i], &s->steps[i],
                             &prom_seconds);
    }
    prom_heading(b, "godwit_hook_questions_total", "counter", "Questions put to hooks.");
    bytes_printf(b, "godwit_hook_questions_total{outcome=\"answered\"} %lld\n",
                 (long long)load(&s->hooks[true]));
    bytes_printf(b, "godwit_hook_questions_total{outcome=\"failed\"} %lld\n",
                 (long long)load(&s->hooks[false]));
    prom_single(b, "godwit_store_failures_total", "counter",
                "Write transactions that were undone as a whole.", load(&s->failures));
}

static void write_series(bytes *b, const char *name, const char *label, const char *const *values,
                         const int64_t *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        prom_line(b, name, label, slice_of(values[i]), numbers[i]);
    }
}

static void write_fleet(const stats *s, bytes *b) {
    int64_t numbers[COUNT_OF(s->fleet)];
    stats_fleet f;
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        numbers[i] = atomic_load_explicit(&s->fleet[i], memory_order_relaxed);
    }
    memcpy(&f, numbers, sizeof f);
    prom_heading(b, "godwit_devices", "gauge", "Devices by operations pending, as they reported.");
    write_series(b, "godwit_devices", "pending", queue_names, f.queues, STATS_QUEUES);
    prom_heading(b, "godwit_devices_oldest_pending", "gauge",
                 "Devices by age of their oldest pending operation, at most.");
    write_series(b, "godwit_devices_oldest_pending", "age", age_names, f.ages, STATS_AGES);
    prom_heading(b, "godwit_devices_seen", "gauge",
                 "Devices by how long ago they pushed, at most.");
    write_series(b, "godwit_devices_seen", "ago", age_names + 1, f.seen + 1, STATS_AGES - 1);
    prom_single(b, "godwit_device_pending_operations", "gauge",
                "Operations pending on all devices, as they reported.", f.pending);
    prom_single(b, "godwit_dead_letters", "gauge",
                "Refused operations that wait for a person on all devices, as they reported.",
                f.failed);
    prom_single(b, "godwit_device_oldest_pending_seconds", "gauge",
                "Age of the oldest operation pending on any device.", f.oldest_ms / 1000);
}

void stats_write(const stats *s, bytes *b) {
    write_operations(s, b);
    write_conflicts(s, b);
    write_store(s, b);
    write_fleet(s, b);
}
