/* The unit tests in one program that is asked about one mutant after the other: tools/mutate builds
 * and asks it.
 *
 *   in:  NUMBER CPU_SECONDS TEST TEST ..      out: the first of these tests that fails, or -1
 *
 * Each question is answered by a child, which has the state of a fresh start and may crash or never
 * end. MUTATE_TESTS is what main was called in each test. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define DECLARE(name) int name(void);
#define ENTRY(name)   name,
MUTATE_TESTS(DECLARE)

int mutant_chosen = -1;

#define MEMORY_BYTES (2ul << 30)

/* Tells of each test that it begins, and at the end that none failed. */
static void run_tests(char *list, rlim_t cpu_seconds, int report) {
    static int (*const tests[])(void) = {MUTATE_TESTS(ENTRY)};
    int null = open("/dev/null", O_RDWR), end = -1;
    (void)setrlimit(RLIMIT_CPU, &(struct rlimit){cpu_seconds, cpu_seconds});
    (void)setrlimit(RLIMIT_AS, &(struct rlimit){MEMORY_BYTES, MEMORY_BYTES});
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)dup2(null, 1);
    (void)dup2(null, 2);
    for (char *at = strtok(list, " \n"); at; at = strtok(NULL, " \n")) {
        int test = atoi(at);
        if (write(report, &test, sizeof test) != sizeof test || tests[test]() != 0) {
            _exit(1);
        }
    }
    _exit(write(report, &end, sizeof end) == sizeof end ? 0 : 1);
}

int main(void) {
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        char *list = line;
        int pipes[2], failed = -1, next;
        int number = (int)strtol(list, &list, 10);
        long cpu_seconds = strtol(list, &list, 10);
        if (pipe(pipes) != 0) {
            return 1;
        }
        pid_t child = fork();
        if (child == 0) {
            (void)close(pipes[0]);
            mutant_chosen = number;
            run_tests(list, (rlim_t)cpu_seconds, pipes[1]);
        }
        (void)close(pipes[1]);
        while (read(pipes[0], &next, sizeof next) == sizeof next) {
            failed = next;
        }
        (void)close(pipes[0]);
        if (child < 0 || waitpid(child, NULL, 0) != child) {
            return 1;
        }
        printf("%d\n", failed);
        (void)fflush(stdout);
    }
    return 0;
}
