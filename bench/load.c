/* Sends pushes to a running server over HTTP: DEVICES connections, each with a stream of its own,
 * each sending PUSHES pushes of OPERATIONS creates and waiting for every answer. Prints the seconds
 * it took (bodies are built beforehand), the operations sent and those refused; then the
 * median and the 99th percentile of a push's time. With RATE, that many pushes a second are due,
 * evenly and in turn; a push that waits for the one before it has begun when it was due.
 *
 * Arguments: PORT TOKEN DEVICES PUSHES OPERATIONS GROUP FIRST_DEVICE [RATE] */
#include "pushes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int port;
    const char *token;
    int64_t pushes, operations, group;
    unsigned number;
    bytes *requests;
    int64_t refused;
    double *took;            /* seconds, one per push */
    double first_s, every_s; /* when pushes are due, from the start; 0 = at once */
    pthread_barrier_t *start;
} worker;

static int dial(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        bench_die("connect", "the server is not there");
    }
    return fd;
}

static void write_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) {
            bench_die("send", "the connection was closed");
        }
        data += n;
        len -= (size_t)n;
    }
}

/* Reads one answer with a Content-Length; returns its status. */
static int read_answer(int fd, bytes *in) {
    char chunk[65536];
    size_t head = 0, body = 0;
    bytes_clear(in);
    for (;;) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n <= 0) {
            bench_die("recv", "the connection was closed");
        }
        bytes_add(in, chunk, (size_t)n);
        if (!head) {
            const char *end = strstr(in->ptr, "\r\n\r\n");
            const char *length = strstr(in->ptr, "ontent-Length:");
            if (!length) {
                length = strstr(in->ptr, "ontent-length:");
            }
            if (!end || !length) {
                continue;
            }
            head = (size_t)(end - in->ptr) + 4;
            body = strtoull(length + 14, NULL, 10);
        }
        if (in->len >= head + body) {
            return (int)strtol(in->ptr + 9, NULL, 10);
        }
    }
}

static void frame(bytes *out, const worker *w, const char *path, const bytes *body) {
    bytes_clear(out);
    bytes_printf(out,
                 "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                 path, w->token, body->len);
    bytes_add(out, body->ptr, body->len);
}

static double wait_until(double when) {
    double left = when - bench_wall();
    if (left > 0) {
        struct timespec nap = {.tv_sec = (time_t)left,
                               .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&nap, NULL);
    }
    return when;
}

static void *work(void *argument) {
    worker *w = argument;
    bytes answer;
    bytes_init(&answer, NULL, 0);
    int fd = dial(w->port);
    write_all(fd, w->requests[0].ptr, w->requests[0].len);
    if (read_answer(fd, &answer) != 200) {
        bench_die("register", answer.ptr);
    }
    pthread_barrier_wait(w->start);
    double start = bench_wall();
    for (int64_t i = 1; i <= w->pushes; i++) {
        double begin = bench_wall();
        if (w->every_s > 0) {
            begin = wait_until(start + w->first_s + (double)(i - 1) * w->every_s);
        }
        write_all(fd, w->requests[i].ptr, w->requests[i].len);
        w->refused += read_answer(fd, &answer) != 200;
        w->took[i - 1] = bench_wall() - begin;
    }
    close(fd);
    bytes_deinit(&answer);
    return NULL;
}

static void build(worker *w) {
    bench_stream stream;
    bytes body;
    bytes_init(&body, NULL, 0);
    bench_stream_init(&stream, w->number);
    w->requests = calloc((size_t)w->pushes + 1, sizeof *w->requests);
    for (int64_t i = 0; i <= w->pushes; i++) {
        bytes_init(&w->requests[i], NULL, 0);
        if (i == 0) {
            bench_stream_register(&stream, &body);
        } else {
            bench_stream_push(&stream, w->operations, w->group, &body);
        }
        frame(&w->requests[i], w, i == 0 ? "/v1/devices" : "/v1/sync/operations", &body);
    }
    bytes_deinit(&body);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Middle and 99th of a hundred of all pushes, in seconds. */
static void print_latency(const worker *workers, int devices) {
    size_t count = (size_t)devices * (size_t)workers[0].pushes;
    double *all = calloc(count, sizeof *all);
    for (int i = 0; all && i < devices; i++) {
        memcpy(all + (size_t)i * (size_t)workers[0].pushes, workers[i].took,
               (size_t)workers[0].pushes * sizeof *all);
    }
    if (all && count) {
        qsort(all, count, sizeof *all, by_size);
        printf("%.9g %.9g\n", all[count / 2], all[count - 1 - count / 100]);
    }
    free(all);
}

int main(int argc, char **argv) {
    if (argc != 8 && argc != 9) {
        bench_die("usage", "load PORT TOKEN DEVICES PUSHES OPERATIONS GROUP FIRST_DEVICE [RATE]");
    }
    int devices = (int)strtol(argv[3], NULL, 10);
    double rate = argc == 9 ? strtod(argv[8], NULL) : 0;
    worker *workers = calloc((size_t)devices, sizeof *workers);
    pthread_t *threads = calloc((size_t)devices, sizeof *threads);
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)devices + 1);
    for (int i = 0; i < devices; i++) {
        workers[i] = (worker){.port = (int)strtol(argv[1], NULL, 10),
                              .token = argv[2],
                              .pushes = strtoll(argv[4], NULL, 10),
                              .operations = strtoll(argv[5], NULL, 10),
                              .group = strtoll(argv[6], NULL, 10),
                              .number = (unsigned)(i + strtol(argv[7], NULL, 10)),
                              .start = &start};
        if (rate > 0) {
            workers[i].first_s = i / rate;
            workers[i].every_s = devices / rate;
        }
        workers[i].took = calloc((size_t)workers[i].pushes + 1, sizeof(double));
        build(&workers[i]);
        if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0) {
            bench_die("thread", "");
        }
    }
    pthread_barrier_wait(&start);
    printf("ready\n");
    fflush(stdout);
    double wall = bench_wall();
    int64_t refused = 0;
    for (int i = 0; i < devices; i++) {
        pthread_join(threads[i], NULL);
        refused += workers[i].refused;
    }
    wall = bench_wall() - wall;
    printf("%.9g %lld %lld\n", wall,
           (long long)(devices * workers[0].pushes * workers[0].operations), (long long)refused);
    print_latency(workers, devices);
    return refused ? 1 : 0;
}
