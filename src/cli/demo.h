/* The demo's stage: a folder, a server process, a proxy process, three devices, and a count of what
 * was made, so that the story in demo.c can be told in a few lines per step.
 *
 *   devices' `godwit sync` --> proxy --> `godwit serve`
 *
 * All processes are children of this one and end by their own id; the folder goes at the end. */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include <sys/types.h>

#include "core/bytes.h"
#include "core/sha256.h"
#include "db/sqlite.h"

enum { ANA, BEN, CORA, DEMO_DEVICES };
#define DEMO_SCOPE   "field-team"
#define DEMO_WAIT_MS 20000 /* the longest wait for any one thing */

typedef struct {
    const char *name; /* "Ana" */
    const char *user; /* "ana" */
    char path[320], token_path[320];
} demo_device;

typedef struct {
    char dir[256];
    char self[1024]; /* the godwit executable */
    char schema_path[320], data_path[320], store_path[320], out_path[320], log_path[320];
    demo_device devices[DEMO_DEVICES];
    const char *db; /* postgres://..; NULL: the server's store is an SQLite file */
    int server_port, proxy_port;
    pid_t server, proxy;
    int proxy_control;
    int64_t made;    /* changes of rows the demo committed, counted by itself */
    int64_t refused; /* operations the server refused, each made again in another form */
    int64_t doubled; /* changes in the server's feed beyond those made, where it was tempted */
    int checks, failed;
    char why[512]; /* last reason something could not be done */
} demo_world;

extern const char demo_schema[]; /* pins and forms */

/* ---- demo_world.c: processes. false: why says what happened. ---- */

/* db: of an empty PostgreSQL database, borrowed; NULL = SQLite. */
bool demo_world_begin(demo_world *w, const char *db) MUST_USE;
/* Ends every process, removes the folder. */
void demo_world_end(demo_world *w);
bool demo_server_start(demo_world *w) MUST_USE;
/* SIGTERM and its exit code (0 after a drain), or SIGKILL. */
int demo_server_stop(demo_world *w);
void demo_server_kill(demo_world *w);
/* Runs `godwit` with the arguments (NULL-terminated, without "godwit"); its stdout goes to *out
 * when not NULL. The exit code, 128 + signal, or -1. */
int demo_godwit(demo_world *w, bytes *out, const char *const *arguments);
pid_t demo_godwit_start(demo_world *w, const char *const *arguments);
int demo_wait(pid_t pid);
int demo_sync(demo_world *w, int device);
/* init and track: no network. */
bool demo_device_setup(demo_world *w, int device) MUST_USE;
bool demo_tokens_make(demo_world *w) MUST_USE;

/* ---- demo_proxy.c ---- */

/* GET on the loopback interface; true when the answer is 200. */
bool demo_http_ok(int port, const char *path);
bool demo_proxy_start(demo_world *w) MUST_USE;
void demo_proxy_stop(demo_world *w);
void demo_proxy_pass(demo_world *w);
/* From now on every request goes to the server twice; the second answer is given back. */
void demo_proxy_twice(demo_world *w);
/* Holds the answer to the n-th POST /v1/sync from now (1..9): the server has committed, the device
 * does not know. */
void demo_proxy_hold(demo_world *w, int nth);
/* Waits until an answer is being held. */
bool demo_proxy_wait_held(demo_world *w) MUST_USE;
/* Drops the held answer and its connection. */
void demo_proxy_drop(demo_world *w);
/* Requests doubled since demo_proxy_twice. */
int demo_proxy_doubled(demo_world *w);

/* ---- demo_checks.c ---- */

/* Prints what was claimed with a tick or a cross, and counts it. */
void demo_check(demo_world *w, bool ok, const char *format, ...) PRINTF_LIKE(3, 4);
/* Syncs in the order given until nothing is new. order: [DEMO_DEVICES] */
bool demo_sync_all(demo_world *w, const int *order) MUST_USE;
/* The query gives the same text on every device and on the server. */
bool demo_text_everywhere(demo_world *w, const char *sql, const char *expected) MUST_USE;

/* ---- demo_decide.c, demo_repair.c: a step each ---- */

bool demo_decide(demo_world *w) MUST_USE;
bool demo_refused(demo_world *w) MUST_USE;

/* ---- demo_data.c: SQL on the databases ---- */

/* Runs SQL of the app on a device's database, as the app would. `changes`: how many rows it
 * changes, cascades included; added to `made`. */
bool demo_app(demo_world *w, int device, int changes, const char *sql) MUST_USE;
/* Places of the time-zone table -> pins, every fifth with a form; one transaction. -1 on failure.
 */
int demo_import_places(demo_world *w, int device);
/* First column of the first row of a query on a device; -1 on failure. */
int64_t demo_device_int(demo_world *w, int device, const char *sql);
/* The same as text; "" on failure or without a row. */
void demo_device_text(demo_world *w, int device, const char *sql, char *out, size_t size);
void demo_file_text(demo_world *w, const char *path, const char *sql, char *out, size_t size);

typedef struct {
    int64_t pins, forms;
    char digest[17]; /* of every value of every row */
} demo_replica;
#define DEMO_PINS  "SELECT id, title, description, country, lat, lng FROM pins ORDER BY id"
#define DEMO_FORMS "SELECT id, pin_id, kind, content FROM forms ORDER BY id"
bool demo_file_replica(demo_world *w, const char *path, demo_replica *out) MUST_USE;
/* One value of a digest: its storage class in SQLite's numbers, length and bytes. */
void demo_digest_value(sha256 *hash, int type, const void *data, int len);

/* ---- demo_store.c: the server's data ---- */

/* With PostgreSQL: makes the tables and has them tracked. */
bool demo_store_make(demo_world *w) MUST_USE;
/* As of a device, on the server's store. */
int64_t demo_server_int(demo_world *w, const char *sql);
void demo_server_text(demo_world *w, const char *sql, char *out, size_t size);
/* device -1: the server's typed tables. */
bool demo_replica_of(demo_world *w, int device, demo_replica *out) MUST_USE;

#endif
