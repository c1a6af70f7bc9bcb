/* godwit-torture-sockets: one call about a socket fails, then all is well, and nothing may be lost,
 * doubled, damaged, leaked or stuck.
 *
 *   godwit-torture-sockets --list                   scenarios and how many calls each makes
 *   godwit-torture-sockets --sample 200 --seed 7    points chosen at random, evenly over calls
 *   godwit-torture-sockets --all --stride 1 --jobs 2
 *   godwit-torture-sockets --scenario push --side server --call accept --error EMFILE --point 1
 *                          [--forever]
 *
 * Each point runs in a process of its own, with a daemon of its own on a free port: a crash is one
 * failed point. A failed point is printed with the command that repeats it. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "folder.h"
#include "server/log.h"
#include "sim/random.h"
#include "torture/socket_scenario.h"

#define SCENARIOS_MAX 16
#define POINT_SECONDS 30
#define SHOWN_MAX     60
#define PAUSE_MS      100 /* of the daemon after an accept that failed: see server/loop.c */

typedef struct {
    uint8_t scenario;
    socket_plan plan; /* of a cell: point = how many there are */
} point;

typedef struct { /* shared by all processes of this program */
    _Atomic int64_t passed, failed, untouched, next;
    int64_t counts[SCENARIOS_MAX][SIDE_COUNT][CALL_COUNT];
    char digests[SCENARIOS_MAX][DIGEST_MAX]; /* of the run in which nothing fails */
    char messages[16][4096];                 /* of the point that failed, by job */
} shared_state;

typedef struct {
    int scenario; /* -1 = all */
    socket_plan plan;
    int call, error; /* -1 = all */
    int64_t sample, stride;
    int jobs;
    uint32_t seed;
    bool list, all;
} options;

static world the_world;
static shared_state *shared;
static int job;
static char root[PATH_BYTES - 64];

void world_fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(shared->messages[job], sizeof shared->messages[job], format, args);
    va_end(args);
    world_remove(the_world.folder);
    _exit(1);
}

static void template_of(int scenario, char out[PATH_BYTES]) {
    snprintf(out, PATH_BYTES, "%s/%s", root, socket_scenarios[scenario].name);
}

/* ---- one point ---- */

/* Of an interrupted call, a short write and the like nobody is to know; but libcurl's resolver
 * takes a signal while it reports for a name that is not found. */
static bool is_quiet(const point *p) {
    return p->plan.point && !p->plan.forever &&
           socket_error_of(p->plan.call, p->plan.error)->unheard &&
           !(p->plan.side == SIDE_CLIENT && p->plan.call == CALL_pipe_write);
}

/* A call that fails may make a step wait or fail for the moment, nothing else; one that fails once
 * leaves nobody waiting until his time is over. */
static void judge(const point *p, godwit_status status, const char *step, int64_t took_ms) {
    godwit_class cls = godwit_status_class(status);
    const device *d = &the_world.devices[the_world.devices[2].g ? 2 : 0];
    if (status != GODWIT_OK && is_quiet(p)) {
        world_fail("the step '%s' fails with %s (%s): nobody was to know", step,
                   godwit_status_name(status), godwit_message(d->g));
    }
    if (status != GODWIT_OK && !p->plan.forever && took_ms >= PATIENCE_MS) {
        world_fail("the step '%s' hangs after one failure", step);
    }
    if (cls != GODWIT_CLASS_OK && cls != GODWIT_CLASS_RETRY) {
        world_fail("the step '%s' says %s: %s", step, godwit_status_name(status),
                   godwit_message(d->g));
    }
}

/* Where nothing can be accepted the daemon waits before it tries again. */
static void judge_pace(const point *p, int64_t took_ms) {
    const int code = socket_error_of(p->plan.call, p->plan.error)->code;
    bool short_of = code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
    int64_t most = LOOPS * (took_ms / PAUSE_MS + 3);
    if (p->plan.call == CALL_accept && p->plan.forever && short_of && sockets_hits() > most) {
        world_fail("accept was tried %lld times in %lld ms", (long long)sockets_hits(),
                   (long long)took_ms);
    }
}

/* As it would after the faults: the background's thread is stopped, everything is there again. */
static void all_well(world *w, const point *p, godwit_status status, const char *step) {
    if (status != GODWIT_OK && godwit_running(w->devices[0].g)) {
        must(&w->devices[0], godwit_notify_network(w->devices[0].g), "notify");
    }
    if (!w->daemon && server_start(w) != GODWIT_OK) {
        world_fail("the server does not start afterwards");
    }
    if (!p->plan.point && status != GODWIT_OK) {
        world_fail("without faults the step '%s' says %s: %s", step, godwit_status_name(status),
                   godwit_message(w->devices[0].g));
    }
}

/* Steps that wait for the background may need the second look that its pace takes. */
static godwit_status run_again(const socket_scenario *s, world *w, const char **at) {
    godwit_status status = GODWIT_OK;
    for (int i = 0; i < 4; i++) {
        status = socket_scenario_run(s, w, at);
        if (status == GODWIT_OK || !godwit_running(w->devices[0].g)) {
            break;
        }
    }
    return status;
}

static void compare_digest(const point *p) {
    static char digest[DIGEST_MAX];
    char *then = shared->digests[p->scenario];
    world_settle(&the_world, digest);
    if (!p->plan.point) {
        memcpy(then, digest, sizeof digest);
    } else if (strcmp(digest, then) != 0) {
        world_fail("it ends with other rows than without a fault\n  now  %.1500s\n  then %.1500s",
                   digest, then);
    }
}

static void keep_counts(const point *p) {
    for (int side = SIDE_CLIENT; side <= SIDE_SERVER; side++) {
        for (int call = 0; call < CALL_COUNT; call++) {
            shared->counts[p->scenario][side][call] =
                sockets_counted((socket_side)side, (socket_call)call);
        }
    }
}

/* Runs in a child, which has made nothing yet. */
static void run_point(const point *p) {
    static char before[4096], after[4096];
    world *w = &the_world;
    const socket_scenario *s = &socket_scenarios[p->scenario];
    const char *at = "";
    char template[PATH_BYTES];
    (void)sockets_enter(SIDE_TEST);
    template_of(p->scenario, template);
    int had = world_descriptors(before, sizeof before);
    world_open(w, template, s->tls);
    int64_t begun_ms = sockets_now_ms();
    world_patience(p->plan.forever ? PATIENCE_SHORT_MS : PATIENCE_MS);
    sockets_arm(&p->plan);
    godwit_status status = socket_scenario_run(s, w, &at);
    sockets_disarm();
    world_patience(PATIENCE_MS);
    int64_t took_ms = sockets_now_ms() - begun_ms;
    if (p->plan.point) {
        judge(p, status, at, took_ms);
        judge_pace(p, took_ms);
    } else {
        keep_counts(p);
    }
    world_acknowledged(w);
    all_well(w, p, status, at);
    status = run_again(s, w, &at);
    if (status != GODWIT_OK) {
        world_fail("again, without faults, the step '%s' says %s: %s", at,
                   godwit_status_name(status), godwit_message(w->devices[0].g));
    }
    device_stop(&w->devices[0]);
    compare_digest(p);
    world_close(w);
    if (world_descriptors(after, sizeof after) != had) {
        world_fail("descriptors are left open\n  before%s\n  after %s", before, after);
    }
    world_remove(w->folder);
    shared->untouched += p->plan.point && !sockets_hits();
    exit(0); /* not _exit: a leak checker has its turn */
}

static void print_failure(const point *p, int wait_status) {
    const socket_plan *f = &p->plan;
    fprintf(stderr, "FAILED godwit-torture-sockets --scenario %s",
            socket_scenarios[p->scenario].name);
    if (f->point) {
        fprintf(stderr, " --side %s --call %s --error %s --point %lld%s", socket_side_name(f->side),
                socket_call_name(f->call), socket_error_of(f->call, f->error)->name,
                (long long)f->point, f->forever ? " --forever" : "");
    }
    if (WIFSIGNALED(wait_status)) {
        fprintf(stderr, "\n  ended by signal %d%s\n", WTERMSIG(wait_status),
                WTERMSIG(wait_status) == SIGALRM ? ": it hangs" : "");
    } else {
        fprintf(stderr, "\n  %s\n", shared->messages[job]);
    }
}

static void fork_point(const point *p) {
    int status = 0;
    snprintf(shared->messages[job], sizeof shared->messages[job], "it ended by itself");
    pid_t pid = fork();
    if (pid == 0) {
        alarm(POINT_SECONDS);
        run_point(p);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("godwit-torture-sockets");
        exit(2);
    }
    if (status == 0) {
        shared->passed += p->plan.point != 0;
    } else if (shared->failed++ < SHOWN_MAX) {
        print_failure(p, status);
    }
}

static void run_jobs(const point *points, size_t count, int jobs) {
    pid_t pids[16];
    shared->next = 0;
    fflush(stdout);
    for (job = 0; job < jobs; job++) {
        pids[job] = fork();
        if (pids[job] == 0) {
            for (int64_t i; (i = shared->next++) < (int64_t)count;) {
                fork_point(&points[i]);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < jobs; i++) {
        int status = 0;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            shared->failed++;
        }
    }
    job = 0;
}

/* ---- templates, and what each scenario does without faults ---- */

static void make_template(int scenario) {
    char folder[PATH_BYTES];
    template_of(scenario, folder);
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(POINT_SECONDS);
        (void)sockets_enter(SIDE_TEST);
        if (mkdir(folder, 0700) != 0) {
            world_fail("%s can't be made", folder);
        }
        world_files(folder);
        socket_scenario_template(&socket_scenarios[scenario], folder);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        shared->failed++;
        fprintf(stderr, "FAILED scenario %s can't be prepared: %s\n",
                socket_scenarios[scenario].name, shared->messages[job]);
    }
}

static void prepare_all(const options *o) {
    for (size_t i = 0; i < socket_scenario_count; i++) {
        if (o->scenario < 0 || o->scenario == (int)i) {
            const point nothing = {.scenario = (uint8_t)i,
                                   .plan = {.shortage = socket_scenarios[i].shortage}};
            make_template((int)i);
            fork_point(&nothing);
        }
    }
}

static void remove_all(void) {
    for (size_t i = 0; i < socket_scenario_count; i++) {
        char folder[PATH_BYTES];
        template_of((int)i, folder);
        world_remove(folder);
    }
    (void)rmdir(root);
}

/* ---- which points ---- */

static bool wanted(const options *o, const point *cell) {
    /* libcurl does not look whether its socket waits: nothing of ours can mend that, and no kernel
     * refuses it */
    if (cell->plan.side == SIDE_CLIENT && cell->plan.call == CALL_fcntl) {
        return false;
    }
#if defined(__SANITIZE_ADDRESS__)
    /* libcurl loses the addresses it has found when its resolver's word of them can't be written */
    if (cell->plan.side == SIDE_CLIENT && cell->plan.call == CALL_pipe_write) {
        return false;
    }
#endif
    return (o->scenario < 0 || o->scenario == cell->scenario) &&
           (o->plan.side == SIDE_UNTOLD || o->plan.side == cell->plan.side) &&
           (o->call < 0 || o->call == (int)cell->plan.call) &&
           (o->error < 0 || o->error == cell->plan.error) &&
           shared->counts[cell->scenario][cell->plan.side][cell->plan.call] > 0;
}

/* Every way to fail of every call that a scenario makes. out NULL: only counts. */
static size_t list_cells(const options *o, point *out) {
    size_t n = 0;
    for (size_t s = 0; s < socket_scenario_count; s++) {
        for (int call = 0; call < CALL_COUNT; call++) {
            for (int v = 0; v < 4; v++) {
                point c = {.scenario = (uint8_t)s,
                           .plan = {.shortage = socket_scenarios[s].shortage}};
                c.plan.side = v % 2 ? SIDE_SERVER : SIDE_CLIENT;
                c.plan.forever = v / 2;
                c.plan.call = (socket_call)call;
                for (; socket_error_of(c.plan.call, c.plan.error); c.plan.error++) {
                    c.plan.point = shared->counts[s][c.plan.side][call];
                    if (wanted(o, &c) && out) {
                        out[n] = c;
                    }
                    n += wanted(o, &c);
                }
            }
        }
    }
    return n;
}

static size_t choose(const options *o, const point *cells, size_t cell_count, point *out) {
    sim_random random = {o->seed};
    for (size_t n = 0; n < (size_t)o->sample; n++) {
        out[n] = cells[sim_random_next(&random) % cell_count];
        out[n].plan.point = 1 + (int64_t)(sim_random_next(&random) % (uint64_t)out[n].plan.point);
    }
    return (size_t)o->sample;
}

static size_t choose_all(const options *o, const point *cells, size_t cell_count, point *out) {
    size_t n = 0;
    int64_t at = 0;
    for (size_t i = 0; i < cell_count; i++) {
        for (int64_t k = 1; k <= cells[i].plan.point; k++) {
            if (at++ % o->stride == o->seed % o->stride) {
                if (out) {
                    out[n] = cells[i];
                    out[n].plan.point = k;
                }
                n++;
            }
        }
    }
    return n;
}

/* *out: transferred. */
static size_t choose_points(const options *o, point **out) {
    size_t cell_count = list_cells(o, NULL);
    point *cells = calloc(cell_count + 1, sizeof *cells);
    if (!cells) {
        return 0;
    }
    (void)list_cells(o, cells);
    size_t count = !cell_count ? 0
                   : o->sample ? (size_t)o->sample
                   : o->all    ? choose_all(o, cells, cell_count, NULL)
                               : o->plan.point > 0;
    *out = calloc(count + 1, sizeof **out);
    if (!*out) {
        count = 0;
    } else if (count && o->sample) {
        (void)choose(o, cells, cell_count, *out);
    } else if (count && o->all) {
        (void)choose_all(o, cells, cell_count, *out);
    } else if (count) {
        **out = cells[0];
        (*out)->plan.point = o->plan.point;
        (*out)->plan.forever = o->plan.forever;
    }
    free(cells);
    return count;
}

/* ---- command line ---- */

static void usage(FILE *to) {
    fputs("usage: godwit-torture-sockets --list\n"
          "       godwit-torture-sockets --sample N [--seed N] [--jobs N] [ONLY]\n"
          "       godwit-torture-sockets --all [--stride N] [--seed N] [--jobs N] [ONLY]\n"
          "       godwit-torture-sockets --scenario S --side client|server --call C --error E"
          " --point N [--forever]\n"
          "ONLY: any of --scenario S, --side client|server, --call C, --error E\n",
          to);
}

static int unknown(const char *text) {
    fprintf(stderr, "godwit-torture-sockets: no such thing as '%s'\n", text);
    usage(stderr);
    exit(2);
}

static int scenario_of(const char *text) {
    for (size_t i = 0; i < socket_scenario_count; i++) {
        if (strcmp(text, socket_scenarios[i].name) == 0) {
            return (int)i;
        }
    }
    return unknown(text);
}

static int call_of(const char *text) {
    for (int i = 0; i < CALL_COUNT; i++) {
        if (strcmp(text, socket_call_name((socket_call)i)) == 0) {
            return i;
        }
    }
    return unknown(text);
}

static int error_of(int call, const char *text) {
    for (int i = 0; call >= 0 && socket_error_of((socket_call)call, i); i++) {
        if (strcmp(text, socket_error_of((socket_call)call, i)->name) == 0) {
            return i;
        }
    }
    return unknown(text);
}

static socket_side side_of(const char *text) {
    return strcmp(text, "client") == 0   ? SIDE_CLIENT
           : strcmp(text, "server") == 0 ? SIDE_SERVER
                                         : (socket_side)unknown(text);
}

static void take_option(options *o, int c, const char **error) {
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
    case 'd':
        o->plan.side = side_of(optarg);
        break;
    case 'k':
        o->call = call_of(optarg);
        break;
    case 'e':
        *error = optarg;
        break;
    case 'p':
        o->plan.point = strtoll(optarg, NULL, 10);
        break;
    case 'f':
        o->plan.forever = true;
        break;
    case 'c':
        o->scenario = scenario_of(optarg);
        break;
    default:
        usage(c == 'h' ? stdout : stderr);
        exit(c == 'h' ? 0 : 2);
    }
}

static void read_options(int argc, char **argv, options *o) {
    static const struct option names[] = {
        {"list", 0, NULL, 'l'},  {"all", 0, NULL, 'a'},     {"sample", 1, NULL, 'n'},
        {"seed", 1, NULL, 's'},  {"stride", 1, NULL, 't'},  {"jobs", 1, NULL, 'j'},
        {"side", 1, NULL, 'd'},  {"call", 1, NULL, 'k'},    {"error", 1, NULL, 'e'},
        {"point", 1, NULL, 'p'}, {"forever", 0, NULL, 'f'}, {"scenario", 1, NULL, 'c'},
        {"help", 0, NULL, 'h'},  {NULL, 0, NULL, 0}};
    const char *error = NULL;
    int c = 0;
    *o = (options){.stride = 1, .jobs = 1, .seed = 1, .scenario = -1, .call = -1, .error = -1};
    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        take_option(o, c, &error);
    }
    o->error = error ? error_of(o->call, error) : -1;
    if (o->stride < 1 || o->jobs < 1 || o->jobs > 16 || o->sample < 0 || o->plan.point < 0) {
        usage(stderr);
        exit(2);
    }
}

static int list(void) {
    int64_t all = 0;
    for (size_t s = 0; s < socket_scenario_count; s++) {
        printf("%s: %s\n", socket_scenarios[s].name, socket_scenarios[s].about);
        for (int side = SIDE_CLIENT; side <= SIDE_SERVER; side++) {
            printf("  %s", socket_side_name((socket_side)side));
            for (int call = 0; call < CALL_COUNT; call++) {
                int64_t n = shared->counts[s][side][call];
                for (int e = 0; socket_error_of((socket_call)call, e); e++) {
                    all += 2 * n;
                }
                if (n) {
                    printf(" %s:%lld", socket_call_name((socket_call)call), (long long)n);
                }
            }
            printf("\n");
        }
    }
    printf("%lld points: each call fails in each way, once and for good from there on\n",
           (long long)all);
    return shared->failed ? 1 : 0;
}

static int report(const options *o) {
    printf("godwit-torture-sockets: %lld points passed, %lld failed", (long long)shared->passed,
           (long long)shared->failed);
    if (shared->untouched) {
        printf(" (%lld were never reached)", (long long)shared->untouched);
    }
    printf("; seed %u\n", o->seed);
    return shared->failed || !shared->passed ? 1 : 0;
}

static void say_nothing(int severity, const char *text) {
    (void)severity;
    (void)text;
}

int main(int argc, char **argv) {
    options o;
    point *points = NULL;
    int code = 2;
    read_options(argc, argv, &o);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || !folder_make(root, sizeof root)) {
        perror("godwit-torture-sockets");
        return 2;
    }
    log_set_level(LOG_OFF);
    event_set_log_callback(say_nothing);
    setvbuf(stdout, NULL, _IOLBF, 0);
    prepare_all(&o);
    size_t count = o.list || shared->failed ? 0 : choose_points(&o, &points);
    if (o.list) {
        code = list();
    } else if (count) {
        run_jobs(points, count, o.jobs);
        code = report(&o);
    } else {
        usage(stderr);
    }
    free(points);
    remove_all();
    return code;
}
