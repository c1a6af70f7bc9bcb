/* The real daemon, devices with the real transport, and loopback TCP between them, in one process.
 * What must be true of them when the faults are over is in socket_settle.c.
 *
 * A world is made from a template: the databases of a server and of devices, made once per scenario
 * and copied for every point. */
#ifndef TESTS_TORTURE_SOCKET_WORLD_H
#define TESTS_TORTURE_SOCKET_WORLD_H

#include "core/arena.h"
#include "db/sqlite.h"
#include "godwit/godwit.h"
#include "server/daemon.h"
#include "torture/socket_fault.h"

#define DEVICES    3
#define LOOPS      2
#define PATH_BYTES 256
#define DIGEST_MAX 65536

typedef struct world world;

typedef struct {
    world *w;
    int number;
    char path[PATH_BYTES];
    godwit *g;
    sqlite3 *db; /* NULL = closed */
} device;

struct world {
    const char *template; /* folder of certificate, schema and settings */
    char folder[PATH_BYTES];
    bool tls;
    config settings;
    arena memory;
    keyring *keys;
    daemon_server *daemon; /* NULL = it does not run */
    char port[8];          /* "0" = none yet */
    char token[512];
    device devices[DEVICES];
    int stream;             /* socket of server-sent events, -1 = closed */
    int64_t stream_head;    /* the highest that was heard */
    _Atomic int bad_status; /* of a pass in the background: one that is not of the class RETRY */
    uint64_t done;          /* steps of the scenario that have succeeded */
};

/* How long a request or a condition may take: as long as a busy machine needs, or hardly at all
 * while calls fail for good. */
#define PATIENCE_MS       10000
#define PATIENCE_SHORT_MS 700
void world_patience(int ms);

/* Reports what is wrong and ends the process. */
void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- by anybody ---- */

/* Writes schema, settings, certificate and key into the folder. */
void world_files(const char *folder);
/* Copies the databases of `template` to a new folder. The server runs, devices that have a database
 * are open. */
void world_open(world *w, const char *template, bool tls);
/* The same with nothing but empty folders, in which a scenario makes its template. */
void world_make(world *w, const char *template, bool tls);
void world_close(world *w);
/* Copies the databases of a closed world to the template's folder. */
void world_keep(const world *w, const char *folder);
void world_remove(const char *folder); /* with all in it */

/* ---- what a step may do: faults count ---- */

godwit_status server_start(world *w);
void server_stop(world *w);
godwit_status device_sync(device *d);
godwit_status device_start(device *d); /* in the background */
void device_stop(device *d);
/* Until SQL over the device gives something other than 0. */
godwit_status device_wait(device *d, const char *sql);
godwit_status stream_open(world *w);
/* Until a head above `head` is heard. */
godwit_status stream_wait(world *w, int64_t head);
void stream_close(world *w);

/* ---- the test itself: no faults ---- */

void must(const device *d, godwit_status status, const char *what);
void device_open(device *d);
void device_close(device *d);
void device_make(device *d); /* a new one with the application's tables, tracked */
void device_run(device *d, const char *sql);
int64_t device_int(device *d, const char *sql);
/* The first column of all rows, one after the other, appended to `out`. */
void texts(sqlite3 *db, const char *sql, char *out, size_t max);
sqlite3 *world_store(const world *w);
int64_t world_store_int(const world *w, const char *sql);
/* One exchange over a connection of its own; the HTTP status, 0 = none. */
int world_probe(world *w);

/* ---- socket_settle.c ---- */

/* At the moment when faults end: what a device takes for acknowledged is in the store. */
void world_acknowledged(world *w);
/* All is well again: syncs until nothing is left to do, checks every database and the daemon.
 * digest: the rows all have. */
void world_settle(world *w, char digest[DIGEST_MAX]);
/* Open descriptors; `out` receives what they are. */
int world_descriptors(char *out, size_t max);

#endif
