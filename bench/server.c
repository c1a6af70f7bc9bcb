/* What the server's decision costs, in one process without sockets: pushes of 1,000 creates through
 * prepare (parse, check, hash) and write (load, decide, save, commit), against bare loops over the
 * same tables; then the bare loop with one table or index left out at a time, which shows what each
 * costs; then one operation per push, decided alone or 64 at a time.
 *
 * Arguments: DIRECTORY REPETITIONS OPERATIONS BATCH */
#include "bare.h"
#include "pushes.h"
#include "server/service.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    service *service;
    char data[1024], store[1200], bare[1200];
} bench;

static int64_t fixed_now(void *context) {
    (void)context;
    return INT64_C(1767323050000);
}

static void open_service(bench *b, const char *directory) {
    char schema_path[1100], message[512];
    snprintf(b->data, sizeof b->data, "%s/server", directory);
    snprintf(b->store, sizeof b->store, "%s/store.db", b->data);
    snprintf(b->bare, sizeof b->bare, "%s/bare.db", directory);
    snprintf(schema_path, sizeof schema_path, "%s/schema.sql", directory);
    bench_remove(b->store);
    FILE *file = fopen(schema_path, "w");
    if (!file || fprintf(file, "%s;\n", BENCH_TABLE) < 0 || fclose(file) != 0) {
        bench_die(schema_path, "can't be written");
    }
    service_options options = {
        .store = b->data, .schema_file = schema_path, .now_ms = fixed_now};
    if (service_open(&options, &b->service, message) != GODWIT_OK) {
        bench_die("service", message);
    }
}

static void job_begin(service_job *job, service_verb verb, const bytes *body) {
    service_job_init(job, verb);
    job->who.user = SLICE("u");
    job->who.scopes[0] = SLICE("s");
    job->who.scope_count = 1;
    job->body = bytes_view(body);
}

static void job_end(service_job *job) {
    if (job->status != 200) {
        bench_die("answer", job->answer.ptr);
    }
    service_job_deinit(job);
}

/* Several bodies decided in one write. Adds the CPU of the stages. */
static void decide(bench *b, service_verb verb, const bytes *bodies, size_t count, double *prepare,
                   double *write) {
    service_job *jobs = calloc(count, sizeof *jobs);
    service_job **list = calloc(count, sizeof *list);
    double start = bench_cpu();
    for (size_t i = 0; i < count; i++) {
        job_begin(&jobs[i], verb, &bodies[i]);
        service_prepare(b->service, &jobs[i]);
        list[i] = &jobs[i];
    }
    double middle = bench_cpu();
    service_write(b->service, list, count, NULL, NULL);
    double end = bench_cpu();
    *prepare += middle - start;
    *write += end - middle;
    for (size_t i = 0; i < count; i++) {
        job_end(&jobs[i]);
    }
    free(jobs);
    free(list);
}

static void register_stream(bench *b, const bench_stream *s) {
    bytes body;
    double unused = 0;
    bytes_init(&body, NULL, 0);
    bench_stream_register(s, &body);
    decide(b, VERB_REGISTER, &body, 1, &unused, &unused);
    bytes_deinit(&body);
}

static void sample(const char *name, const char *what, const char *variant, double value) {
    char metric[96];
    snprintf(metric, sizeof metric, "server %s %s", name, what);
    bench_sample(metric, variant, value);
}

static void batches(const char *directory, const char *name, int64_t ops, int64_t batch,
                    int64_t group) {
    bench b;
    bench_stream stream;
    double prepare = 0, write = 0, cpu = 0, wall = 0;
    open_service(&b, directory);
    bench_stream_init(&stream, 0);
    register_stream(&b, &stream);
    for (int64_t at = 0; at < ops; at += batch) {
        bytes body;
        bytes_init(&body, NULL, 0);
        bench_stream_push(&stream, batch, group, &body);
        double start = bench_wall();
        decide(&b, VERB_PUSH, &body, 1, &prepare, &write);
        wall += bench_wall() - start;
        bytes_deinit(&body);
    }
    service_close(b.service);
    sample(name, "cpu", "godwit", prepare + write);
    sample(name, "cpu parse", "godwit", prepare);
    sample(name, "cpu decide+save", "godwit", write);
    sample(name, "wall", "godwit", wall);

    bare *loop = bare_load(b.store);
    int64_t written = bare_write(loop, b.bare, batch, NULL, &cpu, &wall);
    if (written != ops) {
        bench_die("bare loop", "the store holds another number of rows");
    }
    sample(name, "cpu", "same tables", cpu);
    sample(name, "wall", "same tables", wall);
    static const char *const parts[] = {"godwit_op_origin", "godwit_op", "godwit_change",
                                        "godwit_row", "godwit_commit"};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        (void)bare_write(loop, b.bare, batch, parts[i], &cpu, &wall);
        sample(name, "cpu without", parts[i], cpu);
    }
    bare_free(loop);
    bare_smallest(b.bare, ops, batch, &cpu, &wall);
    sample(name, "cpu", "smallest", cpu);
    sample(name, "wall", "smallest", wall);
    bench_remove(b.store);
}

/* `rounds` times one operation of each of 64 devices, `together` pushes per transaction. */
static void singles(const char *directory, const char *variant, int rounds, size_t together) {
    enum { DEVICES = 64 };
    static bench_stream streams[DEVICES];
    static bytes bodies[DEVICES];
    bench b;
    double prepare = 0, write = 0, wall = 0;
    open_service(&b, directory);
    for (unsigned d = 0; d < DEVICES; d++) {
        bench_stream_init(&streams[d], d);
        register_stream(&b, &streams[d]);
        bytes_init(&bodies[d], NULL, 0);
    }
    for (int r = 0; r < rounds; r++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            bench_stream_push(&streams[d], 1, 1, &bodies[d]);
        }
        double start = bench_wall();
        for (size_t at = 0; at < DEVICES; at += together) {
            decide(&b, VERB_PUSH, &bodies[at], together, &prepare, &write);
        }
        wall += bench_wall() - start;
    }
    service_close(b.service);
    bench_remove(b.store);
    for (unsigned d = 0; d < DEVICES; d++) {
        bytes_deinit(&bodies[d]);
    }
    sample("single in process", "rate", variant, (double)rounds * DEVICES / wall);
    sample("single in process", "cpu per push", variant, (prepare + write) / rounds / DEVICES);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        bench_die("usage", "server DIRECTORY REPETITIONS OPERATIONS BATCH");
    }
    int repetitions = (int)strtol(argv[2], NULL, 10);
    int64_t ops = strtoll(argv[3], NULL, 10), batch = strtoll(argv[4], NULL, 10);
    for (int r = 0; r < repetitions; r++) {
        batches(argv[1], "groups of 1", ops, batch, 1);
        batches(argv[1], "groups of 1000", ops, batch, batch);
        singles(argv[1], "one transaction per push", 20, 1);
        singles(argv[1], "64 combined", 20, 64);
    }
    return 0;
}
