/* A server and some devices in one process, on disks in memory (tests/sim/disk.h), and what must be
 * true of them whatever has failed. Everything in it is deterministic.
 *
 * The application of a device does each thing in one transaction together with a line in a table of
 * its own, `marks`: so it can tell, as a careful application would, whether something that failed
 * has happened all the same, and does nothing twice. */
#ifndef TESTS_TORTURE_WORLD_H
#define TESTS_TORTURE_WORLD_H

#include "db/sqlite.h"
#include "godwit/godwit.h"
#include "server/service.h"
#include "sim/disk.h"
#include "sim/random.h"
#include "torture/fault.h"

#define DEVICES    3
#define IDS        8
#define DIGEST_MAX 8192

typedef struct world world;

typedef struct {
    world *w;
    int number;
    disk disk;
    char path[32];
    godwit *g;
    sqlite3 *db; /* NULL = closed */
} device;

struct world {
    sim_random random;
    disk_host host;
    int64_t now_ms;
    int journal; /* of device 0: 0 = WAL by godwit_open, else attached: DELETE, TRUNCATE, PERSIST */
    char folder[64], schema[96], config[96];
    disk server_disk, backup;
    service *service;
    service_reader *reader;
    device devices[DEVICES];
    char ids[IDS][37];    /* of operations, for scenarios */
    char made[37];        /* id an enqueue has given */
    uint64_t done;        /* steps of the scenario that have succeeded */
    bool own_transaction; /* the application has not been able to roll back */
    bool again;           /* after a failure: a step may have had its effect although it failed */
    bool forgetful;       /* the server keeps the past for an hour only */
};

extern const char *const world_journals[4]; /* "wal".. */

/* Empty disks, a running server. */
void world_open(world *w, int journal);
/* Ends everything; fails when something can't be closed. */
void world_close(world *w);
/* Removes the files in the real folder. */
void world_remove(const world *w);

/* Reports what is wrong and ends the process. */
void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- what a step may do: faults count ---- */

godwit_status device_open(device *d);
void device_close(device *d);
godwit_status device_init(device *d);
godwit_status device_sync(device *d);
/* BEGIN, the statements, the mark, COMMIT; ROLLBACK when something fails. */
godwit_status device_write(device *d, int mark, const char *sql);
/* One exchange with the server as the library's callback does it. */
void world_exchange(void *context, const godwit_http_request *request, godwit_http_answer *answer);
godwit_status server_open(world *w);
void server_close(world *w);

/* ---- the test itself: no faults ---- */

void device_run(device *d, const char *sql);
int64_t device_int(device *d, const char *sql);
/* First column of every row, one after the other; at most max - 1 bytes. */
void device_text(device *d, const char *sql, char *out, size_t max);
void server_run(world *w, const char *sql);
/* A device with the application's tables, open, initialized, tracking both tables. */
void device_setup(device *d);
void must(device *d, godwit_status status, const char *what);

/* The power went: what was open is closed, disks are as they came out of it, all is open again. */
void world_after_power_cut(world *w);
/* All processes end and begin again. */
void world_restart(world *w);
/* No faults any more: syncs until nothing is left to do, checks every database, and that device 0,
 * 1 and the server have the same rows and every operation was decided once. digest: what they have.
 */
void world_settle(world *w, char digest[DIGEST_MAX]);

#endif
