/* godwit-sim: runs seeds of the simulator, each in a process of its own.
 *
 * A seed that fails prints what does not hold and the command that shows it again. `--twice` runs
 * every seed two times and demands the same trace. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/sim.h"

#define PART 50 /* seeds between two lines of progress */

static const char usage[] =
    "godwit-sim - client, server, network and disks in one process, from one seed\n"
    "\n"
    "  godwit-sim --seed N [--verbose]        one seed, with what happens in it\n"
    "  godwit-sim --seeds A..B [--jobs 2]     many; stops never, lists the failing ones\n"
    "\n"
    "  --state FILE  keeps what was run there, tells how far it is, goes on from there\n"
    "  --minutes N   no new seeds after so long; the next run goes on (with --state)\n"
    "  --wide        by the seed also tables with counters, sets and other policies, databases "
    "that move\n"
    "                between places, requests that come in two pieces\n"
    "  --first       end at the first failing seed\n"
    "  --counts      what happened in them, how often, in how many seeds\n"
    "  --twice       each seed two times: the traces must be equal\n"
    "\n"
    "exit 0: every invariant held in every seed\n";

typedef struct {
    uint64_t from, to, failed, first_failed;
    int jobs, minutes;
    const char *state;
    bool verbose, wide, twice, first, counts;
} options;

typedef struct { /* what a child tells */
    uint64_t seed, trace;
    int64_t faults, steps, commits, rounds, seen[SEEN_COUNT];
} result;

typedef struct { /* of many seeds */
    int64_t passed, failed, faults, commits, rounds, times[SEEN_COUNT], seeds[SEEN_COUNT];
} sums;

static const char *const seen_texts[] = {
#define SEEN_TEXT(name, text) text,
    SEEN(SEEN_TEXT)
#undef SEEN_TEXT
};

void sim_trace(world *w, const char *format, ...) {
    char line[700];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (const char *c = line; *c; c++) {
        w->trace = (w->trace ^ (unsigned char)*c) * UINT64_C(1099511628211);
    }
    if (w->verbose) {
        printf("%5lld %+14.3f  %s\n", (long long)w->steps,
               (double)(w->now_ms - w->started_ms) / 1000.0, line);
    }
}

void sim_fail(world *w, const char *invariant, const char *format, ...) {
    char line[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("seed %llu FAILED %s at step %lld: %s\n  replay: godwit-sim --seed %llu%s --verbose\n",
           (unsigned long long)w->seed, invariant, (long long)w->steps, line,
           (unsigned long long)w->seed, w->wide ? " --wide" : "");
    fflush(stdout);
    (void)unlink(w->server.schema[0]);
    (void)unlink(w->server.schema[1]);
    (void)unlink(w->server.config);
    _exit(1);
}

bool sim_fault(world *w, unsigned n) {
    bool hit = !w->calm && n && sim_random_next(&w->random) % n == 0;
    w->faults += hit;
    return hit;
}

uint64_t sim_below(world *w, uint64_t n) {
    return n ? sim_random_next(&w->random) % n : 0;
}

bool sim_chance(world *w, unsigned n) {
    return n && sim_random_next(&w->random) % n == 0;
}

/* ---- processes ---- */

static void run_seed(const options *o, uint64_t seed, result *out) {
    static world w;
    memset(&w, 0, sizeof w);
    w.verbose = o->verbose;
    w.wide = o->wide;
    w.seed = seed;
    sim_run(&w, seed);
    *out = (result){.seed = seed,
                    .trace = w.trace,
                    .faults = w.faults,
                    .steps = w.steps,
                    .commits = w.commits,
                    .rounds = w.rounds};
    memcpy(out->seen, w.seen, sizeof out->seen);
}

/* false: it failed, and has said why. */
static bool run_child(const options *o, uint64_t seed, result *out) {
    int ends[2], status = 0;
    memset(out, 0, sizeof *out);
    fflush(stdout);
    if (pipe(ends) != 0) {
        abort();
    }
    pid_t pid = fork();
    if (pid == 0) {
        run_seed(o, seed, out);
        fflush(stdout);
        _exit(write(ends[1], out, sizeof *out) == (ssize_t)sizeof *out ? 0 : 2);
    }
    (void)close(ends[1]);
    bool told = read(ends[0], out, sizeof *out) == (ssize_t)sizeof *out;
    (void)close(ends[0]);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        abort();
    }
    if (WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) > 1)) {
        printf("seed %llu FAILED crash: signal or status %d\n  replay: godwit-sim --seed "
               "%llu%s --verbose\n",
               (unsigned long long)seed,
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
               (unsigned long long)seed, o->wide ? " --wide" : "");
    }
    return told && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_one(const options *o, uint64_t seed, result *out) {
    result again;
    if (!run_child(o, seed, out)) {
        return false;
    }
    if (o->twice && run_child(o, seed, &again) && again.trace != out->trace) {
        printf("seed %llu FAILED determinism: two runs, two traces\n", (unsigned long long)seed);
        return false;
    }
    return true;
}

static void add_result(sums *s, const result *r, bool ok) {
    s->passed += ok;
    s->failed += !ok;
    s->faults += r->faults;
    s->commits += r->commits;
    s->rounds = r->rounds > s->rounds ? r->rounds : s->rounds;
    for (size_t i = 0; i < SEEN_COUNT; i++) {
        s->times[i] += r->seen[i];
        s->seeds[i] += r->seen[i] > 0;
    }
}

static void add_sums(sums *s, const sums *more) {
    s->passed += more->passed;
    s->failed += more->failed;
    s->faults += more->faults;
    s->commits += more->commits;
    s->rounds = more->rounds > s->rounds ? more->rounds : s->rounds;
    for (size_t i = 0; i < SEEN_COUNT; i++) {
        s->times[i] += more->times[i];
        s->seeds[i] += more->seeds[i];
    }
}

/* Every jobs-th seed from `from`; the sums go to the parent. */
static int run_share(const options *o, uint64_t from, int out) {
    sums s = {0};
    for (uint64_t seed = from; seed <= o->to; seed += (uint64_t)o->jobs) {
        result r;
        bool ok = run_one(o, seed, &r);
        add_result(&s, &r, ok);
        if (!ok && o->first) {
            break;
        }
    }
    return write(out, &s, sizeof s) == (ssize_t)sizeof s ? 0 : 2;
}

static void print_seen(const sums *s) {
    printf("%-34s %10s %8s\n", "what happened", "times", "seeds");
    for (size_t i = 0; i < SEEN_COUNT; i++) {
        printf("%-34s %10lld %8lld\n", seen_texts[i], (long long)s->times[i],
               (long long)s->seeds[i]);
    }
}

/* Seeds from..to of the options, into *total. false: some could not be run. */
static bool run_range(const options *o, sums *total) {
    int ends[2];
    sums s;
    if (pipe(ends) != 0) {
        return false;
    }
    fflush(stdout);
    for (int j = 0; j < o->jobs; j++) {
        if (fork() == 0) {
            _exit(run_share(o, o->from + (uint64_t)j, ends[1]));
        }
    }
    (void)close(ends[1]);
    while (read(ends[0], &s, sizeof s) == (ssize_t)sizeof s) {
        add_sums(total, &s);
    }
    (void)close(ends[0]);
    while (wait(NULL) > 0) {
    }
    return true;
}

/* ---- long runs, in parts ---- */

/* What an earlier run of the same seeds has done; false: nothing, or of other seeds. */
static bool load_state(const options *o, uint64_t *next, sums *total, double *seconds) {
    unsigned long long from = 0, to = 0, at = 0;
    long long v[5];
    FILE *file = fopen(o->state, "r");
    bool ok = file && fscanf(file, "godwit-sim %llu..%llu next %llu: %lld %lld %lld %lld %lld %lf",
                             &from, &to, &at, &v[0], &v[1], &v[2], &v[3], &v[4], seconds) == 9;
    if (file) {
        (void)fclose(file);
    }
    if (!ok || from != o->from || to != o->to) {
        return false;
    }
    *next = at;
    *total =
        (sums){.passed = v[0], .failed = v[1], .faults = v[2], .commits = v[3], .rounds = v[4]};
    return true;
}

static void save_state(const options *o, uint64_t next, const sums *s, double seconds) {
    char path[4200];
    snprintf(path, sizeof path, "%s.new", o->state);
    FILE *file = fopen(path, "w");
    if (!file ||
        fprintf(file, "godwit-sim %llu..%llu next %llu: %lld %lld %lld %lld %lld %.0f\n",
                (unsigned long long)o->from, (unsigned long long)o->to, (unsigned long long)next,
                (long long)s->passed, (long long)s->failed, (long long)s->faults,
                (long long)s->commits, (long long)s->rounds, seconds) < 0 ||
        fclose(file) != 0 || rename(path, o->state) != 0) {
        fprintf(stderr, "godwit-sim: can't write %s\n", o->state);
        exit(2);
    }
}

static double now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* In parts; after each, what was done is kept and told. false: not all of it was done in time. */
static bool run_parts(const options *o, sums *total, double *seconds) {
    uint64_t next = o->from;
    double began = now_s(), before = 0;
    if (o->state && load_state(o, &next, total, &before)) {
        printf("seeds %llu..%llu were run before\n", (unsigned long long)o->from,
               (unsigned long long)next - 1);
    }
    for (*seconds = before; next <= o->to; next += PART) {
        options part = *o;
        part.from = next;
        part.to = o->to - next < PART ? o->to : next + PART - 1;
        if (!run_range(&part, total)) {
            exit(2);
        }
        *seconds = before + now_s() - began;
        if (o->state) {
            save_state(o, part.to + 1, total, *seconds);
            printf("%llu of %llu: %lld failed, %.0f s\n", (unsigned long long)part.to,
                   (unsigned long long)o->to, (long long)total->failed, *seconds);
        }
        if (o->minutes && now_s() - began > o->minutes * 60.0) {
            return part.to == o->to;
        }
    }
    return true;
}

static int run_many(const options *o) {
    sums total = {0};
    double seconds = 0;
    bool done = run_parts(o, &total, &seconds);
    if (o->counts) {
        print_seen(&total);
    }
    printf("seeds %llu..%llu: %lld passed, %lld failed; %lld faults, %lld commits, at most %lld "
           "rounds to"
           " converge, %.0f s\n",
           (unsigned long long)o->from, (unsigned long long)o->to, (long long)total.passed,
           (long long)total.failed, (long long)total.faults, (long long)total.commits,
           (long long)total.rounds + 1, seconds);
    if (!done) {
        printf("not all yet: the same command goes on\n");
    }
    return total.failed == 0 && (done || o->minutes) ? 0 : 1;
}

/* ---- the command line ---- */

static bool parse_range(const char *text, options *o) {
    char *rest = NULL;
    o->from = strtoull(text, &rest, 10);
    o->to = o->from;
    if (strncmp(rest, "..", 2) == 0) {
        o->to = strtoull(rest + 2, &rest, 10);
    }
    return rest != text && *rest == 0 && o->to >= o->from;
}

int main(int argc, char **argv) {
    options o = {.from = 1, .to = 1, .jobs = 1};
    bool single = false, good = argc > 1;
    sim_memory();
    for (int i = 1; i < argc && good; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--seeds") == 0) {
            single = argv[i][6] == 0;
            good = parse_range(next, &o);
            i++;
        } else if (strcmp(argv[i], "--jobs") == 0) {
            o.jobs = (int)strtol(next, NULL, 10);
            good = o.jobs >= 1 && o.jobs <= 64;
            i++;
        } else if (strcmp(argv[i], "--state") == 0) {
            o.state = next;
            good = *next && strlen(next) < 4096;
            i++;
        } else if (strcmp(argv[i], "--minutes") == 0) {
            o.minutes = (int)strtol(next, NULL, 10);
            good = o.minutes >= 1;
            i++;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            o.verbose = true;
        } else if (strcmp(argv[i], "--wide") == 0) {
            o.wide = true;
        } else if (strcmp(argv[i], "--counts") == 0) {
            o.counts = true;
        } else if (strcmp(argv[i], "--first") == 0) {
            o.first = true;
        } else if (strcmp(argv[i], "--twice") == 0) {
            o.twice = true;
        } else {
            good = false;
        }
    }
    if (!good) {
        fputs(usage, stderr);
        return 2;
    }
    if (single && !o.twice) {
        result r;
        run_seed(&o, o.from, &r);
        printf(
            "seed %llu passed: %lld steps, %lld faults, %lld commits, %lld rounds, trace %016llx\n",
            (unsigned long long)r.seed, (long long)r.steps, (long long)r.faults,
            (long long)r.commits, (long long)r.rounds + 1, (unsigned long long)r.trace);
        return 0;
    }
    return run_many(&o);
}
