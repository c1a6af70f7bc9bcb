/* godwit-torture: one thing fails, then all is well, and nothing may be lost, doubled, half done,
 * damaged, leaked or stuck.
 *
 *   godwit-torture --list                       scenarios and how many points each has
 *   godwit-torture --sample 2000 --seed 7       points chosen at random, evenly over kinds
 *   godwit-torture --all --stride 1 --jobs 2    every point
 *   godwit-torture --scenario push --kind sync --side client --point 3 [--forever] [--seed 9]
 *
 * Each point runs in a process of its own, forked from a world made ready: a crash is one failed
 * point, and costs nobody else. A failed point is printed with the command that repeats it. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "torture/scenario.h"

#define KINDS_DEFAULT ((1u << FAULT_POWER) - 1) /* all but power, the last */
#define POINT_SECONDS 60
#define SHOWN_MAX     40

typedef struct {
    uint8_t scenario, journal;
    fault_plan plan;
    uint32_t seed; /* of a power cut: which sectors survive */
} point;

typedef struct { /* shared by all processes of this program */
    _Atomic int64_t passed, failed, untouched;
    fault_counts counts[32][4]; /* by scenario and journal mode */
    char digest[DIGEST_MAX];    /* of the run of a group in which nothing failed */
    char message[2048];         /* of the point that failed */
} shared_state;

typedef struct {
    const char *scenario;
    unsigned kinds;
    fault_plan plan;
    int64_t sample, stride;
    int jobs, journal;
    uint32_t seed;
    bool list, all;
} options;

static world the_world;
static int job;
static shared_state *shared; /* one per job */

void world_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(shared[job].message, sizeof shared[job].message, format, args);
    va_end(args);
    _exit(1);
}

/* ---- one point ---- */

/* A fault may make a call wait or fail for the moment. Anything else says that what the caller gave
 * is wrong, or that the file is damaged: which is not so. */
static void judge(godwit_status status, const char *step) {
    godwit_class class = godwit_status_class(status);
    if (class != GODWIT_CLASS_OK && class != GODWIT_CLASS_RETRY) {
        world_fail("the step '%s' says %s: %s", step, godwit_status_name(status),
                   the_world.devices[0].g ? godwit_message(the_world.devices[0].g) : "");
    }
}

static disk *disk_of(world *w, fault_side side) {
    return side == SIDE_CLIENT ? &w->devices[0].disk : &w->server_disk;
}

static void arm(world *w, const point *p) {
    disk *d = disk_of(w, p->plan.side);
    if (p->plan.kind == FAULT_POWER && p->seed % 2) {
        d->garbles = true;
        world_restart(w); /* SQLite asks when it opens a file what a power cut may do to it */
    }
    w->devices[0].disk.operations = w->server_disk.operations = 0;
    if (p->plan.kind == FAULT_POWER && p->plan.point) {
        fault_plan none = {0};
        d->crash_in = p->plan.point;
        w->random.state = p->seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)p->plan.point;
        fault_arm(&none);
    } else {
        fault_arm(&p->plan);
    }
}

/* Runs in a child; the world is ready. leaks: what was allocated before it was made. */
static void run_point(const point *p, int64_t blocks, int64_t held) {
    world *w = &the_world;
    const scenario *s = &scenarios[p->scenario];
    const char *at = "";
    char digest[DIGEST_MAX];
    bool counting = p->plan.point == 0;
    arm(w, p);
    godwit_status status = scenario_run(s, w, &at);
    fault_disarm();
    w->devices[0].disk.crash_in = w->server_disk.crash_in = 0;
    bool cut = w->devices[0].disk.halted || w->server_disk.halted;
    if (counting) {
        shared[job].counts[p->scenario][p->journal] = *fault_counted();
        shared[job].counts[p->scenario][p->journal].calls[FAULT_POWER][SIDE_CLIENT] =
            w->devices[0].disk.operations;
        shared[job].counts[p->scenario][p->journal].calls[FAULT_POWER][SIDE_SERVER] =
            w->server_disk.operations;
        if (status != GODWIT_OK) {
            world_fail("without faults the step '%s' says %s: %s", at, godwit_status_name(status),
                       w->devices[0].g ? godwit_message(w->devices[0].g) : "");
        }
    }
    w->again = true;
    for (int i = 0; i < DEVICES && !cut; i++) {
        device *d = &w->devices[i];
        if (d->g && !sqlite3_get_autocommit(d->db)) {
            if (!w->own_transaction) {
                world_fail("the step '%s' left a transaction open on device %d", at, i);
            }
            device_run(d, "ROLLBACK");
        }
    }
    if (cut) {
        world_after_power_cut(w);
    } else {
        judge(status, at);
        if (p->plan.point % 2) {
            world_restart(w);
        }
    }
    for (int i = 0; i < 2; i++) { /* it was open before; 'open' as a step opens it itself */
        if (!w->devices[i].g && w->devices[i].disk.name_count &&
            (i || status == GODWIT_OK || cut)) {
            must(&w->devices[i], device_open(&w->devices[i]), "open afterwards");
        }
    }
    if (!w->service && server_open(w) != GODWIT_OK) {
        world_fail("the server does not start afterwards");
    }
    scenario_check(s, w);
    w->now_ms += 7200000;
    status = scenario_run(s, w, &at);
    if (status != GODWIT_OK) {
        world_fail("again, without faults, the step '%s' says %s: %s", at,
                   godwit_status_name(status),
                   w->devices[0].g ? godwit_message(w->devices[0].g) : "");
    }
    world_settle(w, digest);
    if (counting) {
        memcpy(shared[job].digest, digest, sizeof digest);
    } else if (strcmp(digest, shared[job].digest) != 0) {
        world_fail("it ends with other rows than without a fault\n  now  %s\n  then %s", digest,
                   shared[job].digest);
    }
    world_close(w);
    if (fault_live_blocks() != blocks || fault_live_bytes() != held) {
        world_fail("leak: %lld blocks, %lld bytes of SQLite",
                   (long long)(fault_live_blocks() - blocks),
                   (long long)(fault_live_bytes() - held));
    }
    if (!counting && !cut && !fault_hits()) {
        shared[job].untouched++;
    }
    exit(0); /* not _exit: a leak checker has its turn */
}

static void print_failure(const point *p, int wait_status) {
    const fault_plan *f = &p->plan;
    fprintf(stderr, "FAILED godwit-torture --scenario %s --kind %s --side %s --point %lld%s",
            scenarios[p->scenario].name, fault_kind_name(f->kind), fault_side_name(f->side),
            (long long)f->point, f->forever ? " --forever" : "");
    if (p->journal) {
        fprintf(stderr, " --journal %s", world_journals[p->journal]);
    }
    if (f->kind == FAULT_POWER) {
        fprintf(stderr, " --seed %u", p->seed);
    }
    if (WIFSIGNALED(wait_status)) {
        fprintf(stderr, "\n  ended by signal %d%s\n", WTERMSIG(wait_status),
                WTERMSIG(wait_status) == SIGALRM ? ": it hangs" : "");
    } else {
        fprintf(stderr, "\n  %s\n", shared[job].message);
    }
}

static void fork_point(const point *p, int64_t blocks, int64_t held) {
    int status = 0;
    snprintf(shared[job].message, sizeof shared[job].message, "it ended by itself");
    pid_t pid = fork();
    if (pid == 0) {
        alarm(POINT_SECONDS);
        run_point(p, blocks, held);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("godwit-torture");
        exit(2);
    }
    if (status == 0) {
        shared[job].passed += p->plan.point != 0;
    } else if (shared[job].failed++ < SHOWN_MAX) {
        print_failure(p, status);
    }
}

/* ---- many points ---- */

/* All points of one scenario and journal mode, from one world. count 0: only counts. */
static void run_group(uint8_t number, uint8_t journal, const point *points, size_t count) {
    pid_t pid = fork();
    if (pid == 0) {
        int64_t blocks = fault_live_blocks(), held = fault_live_bytes();
        const point nothing = {.scenario = number, .journal = journal};
        world_open(&the_world, journal);
        scenarios[number].prepare(&the_world);
        fork_point(&nothing, blocks, held);
        for (size_t i = 0; i < count; i++) {
            fork_point(&points[i], blocks, held);
        }
        world_remove(&the_world);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        shared[job].failed++;
        fprintf(stderr, "FAILED scenario %s can't be prepared: %s\n", scenarios[number].name,
                shared[job].message);
    }
}

static int by_group(const void *a, const void *b) {
    const point *p = a, *q = b;
    if (p->scenario != q->scenario || p->journal != q->journal) {
        return p->scenario != q->scenario ? p->scenario - q->scenario : p->journal - q->journal;
    }
    return p->plan.point < q->plan.point ? -1 : p->plan.point > q->plan.point;
}

static void run_points(point *points, size_t count) {
    qsort(points, count, sizeof *points, by_group);
    for (size_t from = 0, to = 0; from < count; from = to) {
        while (to < count && points[to].scenario == points[from].scenario &&
               points[to].journal == points[from].journal) {
            to++;
        }
        run_group(points[from].scenario, points[from].journal, points + from, to - from);
    }
}

static void run_jobs(const point *points, size_t count, int jobs) {
    pid_t pids[16];
    for (job = 0; job < jobs; job++) {
        pids[job] = fork();
        if (pids[job] == 0) {
            point *mine = calloc(count + 1, sizeof *mine);
            size_t n = 0;
            for (size_t i = (size_t)job; mine && i < count; i += (size_t)jobs) {
                mine[n++] = points[i];
            }
            run_points(mine, n);
            free(mine);
            _exit(0);
        }
    }
    for (int i = 0; i < jobs; i++) {
        int status = 0;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            shared[i].failed++;
        }
    }
    job = 0;
}

/* ---- which points ---- */

static bool journal_wanted(const options *o, unsigned kind, fault_side side, int journal) {
    /* the server's store is always in WAL mode; other faults than power cuts look at WAL */
    bool sensible = kind == FAULT_POWER ? side == SIDE_CLIENT || journal == 0 : journal == 0;
    return o->journal >= 0 ? journal == o->journal : sensible;
}

typedef struct {
    uint8_t scenario, journal;
    fault_plan plan; /* point = how many there are */
} cell;

static size_t list_cells(const options *o, cell *out, size_t max) {
    size_t n = 0;
    for (unsigned s = 0; s < scenario_count; s++) {
        for (unsigned k = 0; k < FAULT_KINDS; k++) {
            for (unsigned v = 0; v < 16; v++) { /* side, forever, journal */
                cell c = {(uint8_t)s,
                          (uint8_t)(v / 4),
                          {(fault_kind)k, v % 2 ? SIDE_SERVER : SIDE_CLIENT, 0, v / 2 % 2}};
                c.plan.point = shared[0].counts[s][c.journal].calls[k][c.plan.side];
                bool wanted = (!o->scenario || strcmp(o->scenario, scenarios[s].name) == 0) &&
                              o->kinds >> k & 1 && journal_wanted(o, k, c.plan.side, c.journal) &&
                              !(k == FAULT_POWER && c.plan.forever);
                if (wanted && c.plan.point && n < max) {
                    out[n++] = c;
                }
            }
        }
    }
    return n;
}

static point point_of(const cell *c, int64_t number, uint32_t seed) {
    point p = {c->scenario, c->journal, c->plan, seed};
    p.plan.point = number;
    return p;
}

/* Half of them evenly over cells, half evenly over points. */
static size_t choose(const options *o, const cell *cells, size_t cell_count, point *out) {
    sim_random random = {o->seed};
    int64_t all = 0;
    size_t n = 0;
    for (size_t i = 0; i < cell_count; i++) {
        all += cells[i].plan.point;
    }
    for (; n < (size_t)o->sample && all; n++) {
        size_t at = (size_t)(sim_random_next(&random) % cell_count);
        if (n % 2) {
            int64_t skip = (int64_t)(sim_random_next(&random) % (uint64_t)all);
            for (at = 0; skip >= cells[at].plan.point; at++) {
                skip -= cells[at].plan.point;
            }
        }
        int64_t number = 1 + (int64_t)(sim_random_next(&random) % (uint64_t)cells[at].plan.point);
        out[n] = point_of(&cells[at], number, (uint32_t)sim_random_next(&random));
    }
    return n;
}

static size_t choose_all(const options *o, const cell *cells, size_t cell_count, point *out) {
    size_t n = 0;
    int64_t at = 0;
    for (size_t i = 0; i < cell_count; i++) {
        for (int64_t k = 1; k <= cells[i].plan.point; k++) {
            if (at++ % o->stride == o->seed % o->stride) {
                if (out) {
                    out[n] = point_of(&cells[i], k, o->seed + (uint32_t)k);
                }
                n++;
            }
        }
    }
    return n;
}

/* ---- command line ---- */

static void usage(FILE *to) {
    fputs("usage: godwit-torture --list\n"
          "       godwit-torture --sample N [--seed N] [--kind K[,K..]] [--scenario S] [--jobs N]\n"
          "       godwit-torture --all [--stride N] [--kind K[,K..]] [--scenario S] [--jobs N]\n"
          "       godwit-torture --scenario S --kind K --side client|server --point N [--forever]\n"
          "                      [--journal wal|delete|truncate|persist] [--seed N]\n"
          "kinds: alloc sqlite read write sync power (a power cut; not among the defaults)\n",
          to);
}

static int name_of(const char *text, const char *(*name)(int), int count) {
    for (int i = 0; i < count; i++) {
        if (strcmp(text, name(i)) == 0) {
            return i;
        }
    }
    fprintf(stderr, "godwit-torture: no such thing as '%s'\n", text);
    usage(stderr);
    exit(2);
}

static const char *kind_name(int i) {
    return fault_kind_name((fault_kind)i);
}
static const char *side_name(int i) {
    return fault_side_name((fault_side)i);
}
static const char *journal_name(int i) {
    return world_journals[i];
}
static const char *scenario_name(int i) {
    return scenarios[i].name;
}

static unsigned kinds_of(char *text) {
    unsigned out = 0;
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        out |= 1u << name_of(word, kind_name, FAULT_KINDS);
    }
    return out;
}

static void read_options(int argc, char **argv, options *o) {
    static const struct option names[] = {
        {"list", 0, NULL, 'l'},    {"all", 0, NULL, 'a'},     {"sample", 1, NULL, 'n'},
        {"seed", 1, NULL, 's'},    {"stride", 1, NULL, 't'},  {"jobs", 1, NULL, 'j'},
        {"kind", 1, NULL, 'k'},    {"side", 1, NULL, 'd'},    {"point", 1, NULL, 'p'},
        {"forever", 0, NULL, 'f'}, {"journal", 1, NULL, 'm'}, {"scenario", 1, NULL, 'c'},
        {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0}};
    int c = 0;
    *o = (options){.kinds = KINDS_DEFAULT, .stride = 1, .jobs = 1, .journal = -1, .seed = 1};
    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'l':
            o->list = true;
            break;
        case 'a':
            o->all = true;
            break;
        case 'n':
            o->sample = strtoll(optarg, NULL, 10);
            break;
        case 's':
            o->seed = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 't':
            o->stride = strtoll(optarg, NULL, 10);
            break;
        case 'j':
            o->jobs = (int)strtol(optarg, NULL, 10);
            break;
        case 'k':
            o->kinds = kinds_of(optarg);
            break;
        case 'd':
            o->plan.side = (fault_side)name_of(optarg, side_name, SIDES);
            break;
        case 'p':
            o->plan.point = strtoll(optarg, NULL, 10);
            break;
        case 'f':
            o->plan.forever = true;
            break;
        case 'm':
            o->journal = name_of(optarg, journal_name, 4);
            break;
        case 'c':
            (void)name_of(optarg, scenario_name, (int)scenario_count);
            o->scenario = optarg;
            break;
        default:
            usage(c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (o->stride < 1 || o->jobs < 1 || o->jobs > 16 || o->sample < 0 || o->plan.point < 0) {
        usage(stderr);
        exit(2);
    }
}

/* How many calls each scenario makes, which needs a run of each without faults. */
static void count_all(const options *o) {
    for (unsigned s = 0; s < scenario_count; s++) {
        for (int j = 0; j < 4; j++) {
            bool power = o->kinds >> FAULT_POWER & 1 || o->list;
            if ((!o->scenario || strcmp(o->scenario, scenarios[s].name) == 0) &&
                (j == 0 || power || o->journal == j)) {
                run_group((uint8_t)s, (uint8_t)j, NULL, 0);
            }
        }
    }
}

static int list(void) {
    int64_t once = 0;
    printf("%-12s %-6s", "scenario", "side");
    for (unsigned k = 0; k < FAULT_KINDS; k++) {
        printf(" %8s", fault_kind_name((fault_kind)k));
    }
    printf("\n");
    for (unsigned s = 0; s < scenario_count; s++) {
        for (unsigned side = 0; side < SIDES; side++) {
            printf("%-12s %-6s", scenarios[s].name, fault_side_name((fault_side)side));
            for (unsigned k = 0; k < FAULT_KINDS; k++) {
                int64_t n = shared[0].counts[s][0].calls[k][side];
                printf(" %8lld", (long long)n);
                once += k == FAULT_POWER ? 0 : n;
            }
            printf("  %s\n", side == SIDE_CLIENT ? scenarios[s].about : "");
        }
    }
    printf("%lld points: each of %lld calls fails once, and for good from there on\n",
           (long long)once * 2, (long long)once);
    return shared[0].failed ? 1 : 0;
}

static int report(const options *o) {
    int64_t passed = 0, failed = 0, untouched = 0;
    for (int i = 0; i < 16; i++) {
        passed += shared[i].passed;
        failed += shared[i].failed;
        untouched += shared[i].untouched;
    }
    printf("godwit-torture: %lld points passed, %lld failed", (long long)passed, (long long)failed);
    if (untouched) {
        printf(" (%lld were never reached)", (long long)untouched);
    }
    printf("; seed %u\n", o->seed);
    return failed || !passed ? 1 : 0;
}

int main(int argc, char **argv) {
    options o;
    static cell cells[4096];
    read_options(argc, argv, &o);
    shared =
        mmap(NULL, 16 * sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("godwit-torture");
        return 2;
    }
    fault_install();
    setvbuf(stdout, NULL, _IOLBF, 0);
    count_all(&o);
    if (o.list) {
        return list();
    }
    size_t cell_count = list_cells(&o, cells, COUNT_OF(cells));
    size_t count = o.sample       ? (size_t)o.sample
                   : o.all        ? choose_all(&o, cells, cell_count, NULL)
                   : o.plan.point ? 1
                                  : 0;
    point *points = calloc(count + 1, sizeof *points);
    if (!points || !count || shared[0].failed) {
        usage(stderr);
        return 2;
    }
    if (o.sample) {
        count = choose(&o, cells, cell_count, points);
    } else if (o.all) {
        count = choose_all(&o, cells, cell_count, points);
    } else {
        points[0] = (point){
            (uint8_t)name_of(o.scenario ? o.scenario : "", scenario_name, (int)scenario_count),
            (uint8_t)(o.journal < 0 ? 0 : o.journal), o.plan, o.seed};
        for (points[0].plan.kind = 0; !(o.kinds >> points[0].plan.kind & 1);) {
            points[0].plan.kind++;
        }
    }
    run_jobs(points, count, o.jobs);
    free(points);
    return report(&o);
}
