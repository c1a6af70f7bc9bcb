/* The demo's processes and files. Every child is ended by its own id; nothing outlives the demo. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/demo.h"

extern char **environ;

const char demo_schema[] =
    "CREATE TABLE pins (\n"
    "  id TEXT PRIMARY KEY, title TEXT NOT NULL, description TEXT, country TEXT,\n"
    "  lat DOUBLE PRECISION NOT NULL, lng DOUBLE PRECISION NOT NULL);\n"
    "CREATE TABLE forms (\n"
    "  id TEXT PRIMARY KEY, pin_id TEXT NOT NULL REFERENCES pins(id) ON DELETE CASCADE,\n"
    "  kind TEXT NOT NULL, content TEXT);\n";

static bool fail(demo_world *w, const char *what) {
    snprintf(w->why, sizeof w->why, "%s: %s", what, strerror(errno));
    return false;
}

static bool write_file(demo_world *w, const char *path, const char *text, size_t len) {
    FILE *f = fopen(path, "w");
    if (!f) {
        return fail(w, path);
    }
    bool ok = fwrite(text, 1, len, f) == len;
    ok = fclose(f) == 0 && ok;
    return ok || fail(w, path);
}

bool demo_world_begin(demo_world *w, const char *db) {
    static const char *const names[DEMO_DEVICES] = {"Ana", "Ben", "Cora"};
    static const char *const users[DEMO_DEVICES] = {"ana", "ben", "cora"};
    const char *tmp = getenv("TMPDIR");
    memset(w, 0, sizeof *w);
    w->db = db;
    ssize_t len = readlink("/proc/self/exe", w->self, sizeof w->self - 1);
    if (len <= 0) {
        return fail(w, "/proc/self/exe");
    }
    w->self[len] = '\0';
    if (snprintf(w->dir, sizeof w->dir, "%s/godwit-demo-XXXXXX", tmp && *tmp ? tmp : "/tmp") >=
            (int)sizeof w->dir ||
        !mkdtemp(w->dir)) {
        w->dir[0] = '\0';
        return fail(w, "a temporary folder");
    }
    char dir[sizeof w->dir];
    memcpy(dir, w->dir, sizeof dir);
    snprintf(w->schema_path, sizeof w->schema_path, "%s/schema.sql", dir);
    snprintf(w->data_path, sizeof w->data_path, "%s/server", dir);
    snprintf(w->store_path, sizeof w->store_path, "%s/server/store.db", dir);
    snprintf(w->out_path, sizeof w->out_path, "%s/out", dir);
    snprintf(w->log_path, sizeof w->log_path, "%s/log", dir);
    for (int i = 0; i < DEMO_DEVICES; i++) {
        demo_device *d = &w->devices[i];
        d->name = names[i];
        d->user = users[i];
        snprintf(d->path, sizeof d->path, "%s/%s.db", dir, users[i]);
        snprintf(d->token_path, sizeof d->token_path, "%s/%s.token", dir, users[i]);
    }
    return write_file(w, w->schema_path, demo_schema, strlen(demo_schema)) && demo_proxy_start(w) &&
           demo_store_make(w);
}

static void remove_files(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) {
        return;
    }
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        (void)unlink(path);
    }
    closedir(d);
    (void)rmdir(dir);
}

void demo_world_end(demo_world *w) {
    demo_server_kill(w);
    demo_proxy_stop(w);
    if (w->dir[0]) {
        remove_files(w->data_path);
        remove_files(w->dir);
    }
}

/* ---- processes ---- */

/* The environment as it is, but no proxy of the machine's comes between devices and server. */
static char **child_environment(void) {
    static char no_proxy[] = "no_proxy=127.0.0.1";
    static char *variables[512];
    size_t count = 0;
    variables[count++] = no_proxy; /* the first of a name counts */
    for (size_t i = 0; environ[i] && count + 1 < COUNT_OF(variables); i++) {
        variables[count++] = environ[i];
    }
    variables[count] = NULL;
    return variables;
}

static void child(demo_world *w, const char *out_path, const char *const *arguments) {
    char *argv[32] = {w->self};
    int out = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int log = open(w->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int in = open("/dev/null", O_RDONLY);
    for (size_t i = 0; arguments[i] && i + 2 < COUNT_OF(argv); i++) {
        /* execve takes char *const[] for history's sake; it does not write to the strings */
        memcpy(&argv[i + 1], &arguments[i], sizeof argv[0]);
    }
    if (in >= 0 && out >= 0 && log >= 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1 &&
        dup2(log, 2) == 2) {
        if (w->proxy > 0) {
            close(w->proxy_control); /* the proxy must see the demo's end close */
        }
        execve(w->self, argv, child_environment());
    }
    _exit(127);
}

static pid_t start(demo_world *w, const char *out_path, const char *const *arguments) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        child(w, out_path, arguments);
    }
    return pid;
}

int demo_wait(pid_t pid) {
    int status = 0;
    pid_t got = 0;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    if (got != pid) {
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool read_file(const char *path, bytes *out) {
    char buffer[4096];
    FILE *f = fopen(path, "r");
    if (!f) {
        return false;
    }
    bytes_clear(out);
    for (size_t n = fread(buffer, 1, sizeof buffer, f); n > 0;
         n = fread(buffer, 1, sizeof buffer, f)) {
        bytes_add(out, buffer, n);
    }
    fclose(f);
    return !out->failed;
}

pid_t demo_godwit_start(demo_world *w, const char *const *arguments) {
    return start(w, w->out_path, arguments);
}

int demo_godwit(demo_world *w, bytes *out, const char *const *arguments) {
    pid_t pid = start(w, w->out_path, arguments);
    int code = pid > 0 ? demo_wait(pid) : -1;
    if (out && !read_file(w->out_path, out)) {
        return -1;
    }
    return code;
}

static void pause_ms(int ms) {
    const struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&t, NULL);
}

bool demo_server_start(demo_world *w) {
    char address[32], out_path[320];
    snprintf(address, sizeof address, "127.0.0.1:%d", w->server_port);
    snprintf(out_path, sizeof out_path, "%s/server.out", w->dir);
    const char *arguments[] = {"serve",
                               "--listen",
                               address,
                               "--data",
                               w->data_path,
                               w->db ? "--db" : "--schema",
                               w->db ? w->db : w->schema_path,
                               NULL};
    w->server = start(w, out_path, arguments);
    for (int waited_ms = 0; w->server > 0 && waited_ms < DEMO_WAIT_MS; waited_ms += 20) {
        int status = 0;
        if (demo_http_ok(w->server_port, "/readyz")) {
            return true;
        }
        if (waitpid(w->server, &status, WNOHANG) == w->server) {
            w->server = 0;
            snprintf(w->why, sizeof w->why, "the server ended at once");
            return false;
        }
        pause_ms(20);
    }
    snprintf(w->why, sizeof w->why, "the server did not get ready");
    return false;
}

static int end_server(demo_world *w, int signal_number) {
    if (w->server <= 0) {
        return -1;
    }
    kill(w->server, signal_number);
    int code = demo_wait(w->server);
    w->server = 0;
    return code;
}

int demo_server_stop(demo_world *w) {
    return end_server(w, SIGTERM);
}
void demo_server_kill(demo_world *w) {
    (void)end_server(w, SIGKILL);
}

/* ---- devices ---- */

int demo_sync(demo_world *w, int device) {
    const char *arguments[] = {"sync", w->devices[device].path, "--json", NULL};
    return demo_godwit(w, NULL, arguments);
}

bool demo_device_setup(demo_world *w, int device) {
    const demo_device *d = &w->devices[device];
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", w->proxy_port);
    const char *init[] = {"init",    d->path,    "--url",        url,           "--label", d->name,
                          "--scope", DEMO_SCOPE, "--token-file", d->token_path, NULL};
    const char *track[] = {"track", d->path, "pins", "forms", NULL};
    /* the real token comes from the server, which is not there yet */
    if (!write_file(w, d->token_path, "not-yet\n", 8) || demo_godwit(w, NULL, init) != 0 ||
        !demo_app(w, device, 0, demo_schema) || demo_godwit(w, NULL, track) != 0) {
        snprintf(w->why, sizeof w->why, "setting up %s's database failed", d->name);
        return false;
    }
    return true;
}

bool demo_tokens_make(demo_world *w) {
    bool ok = true;
    bytes token;
    bytes_init(&token, NULL, 0);
    for (int i = 0; i < DEMO_DEVICES && ok; i++) {
        const char *arguments[] = {"token",   "--data",   w->data_path, "--sub", w->devices[i].user,
                                   "--scope", DEMO_SCOPE, NULL};
        ok = demo_godwit(w, &token, arguments) == 0 &&
             write_file(w, w->devices[i].token_path, token.ptr, token.len);
    }
    bytes_deinit(&token);
    if (!ok) {
        snprintf(w->why, sizeof w->why, "making a token failed");
    }
    return ok;
}
