/* The world of the simulator: devices, one server, the network between them, one clock and one
 * source of randomness. The code of both sides is the product's own; everything around it is here.
 *
 *   random.h    numbers from the seed
 *   disk.h      the disks (disk.c) behind a SQLite VFS (vfs.c)
 *   oracle.h    what must be true, and what the checker remembers for it
 *   device.c    an application with its database: life and death, writing
 *   sync.c      how it syncs: over the network with godwit_next/godwit_feed, or blocking
 *   server.c    the service, its operator, requests
 *   pieces.c    requests that come in two, of a client that does not wait for answers
 *   net.c       packets: dropped, doubled, late by days, cut, replayed
 *   swarm.c     parameters of a seed; choosing what happens next
 *   run.c       a seed from the beginning to convergence
 *   main.c      the command line
 *
 * One thread, one seed at a time. A violated invariant ends the process (sim_fail). */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "core/bytes.h"
#include "db/sqlite.h"
#include "godwit/godwit.h"
#include "server/auth.h"
#include "sim/disk.h"
#include "sim/oracle.h"
#include "sim/random.h"

#define DEVICES_MAX 8
#define PACKETS_MAX 96
#define OLD_MAX     12
#define SCOPES      2

/* What happened in a seed, counted: proof that the swarm really does it. */
#define SEEN(X)                                                                                    \
    X(FULL, "disk full")                                                                           \
    X(WRITE_ERROR, "write error")                                                                  \
    X(READ_ERROR, "read error")                                                                    \
    X(SYNC_ERROR, "fsync error")                                                                   \
    X(LOCKED, "locked by another")                                                                 \
    X(POWER_DEVICE, "device lost power")                                                           \
    X(KILLED_DEVICE, "device killed")                                                              \
    X(POWER_AGAIN, "server lost power after it was killed")                                        \
    X(POWER_SERVER, "server lost power")                                                           \
    X(KILLED_SERVER, "server killed")                                                              \
    X(EXPIRED, "token expired (401)")                                                              \
    X(FORBIDDEN, "scope taken away (403)")                                                         \
    X(FORKED, "stream refused (409)")                                                              \
    X(GONE, "start anew (410)")                                                                    \
    X(INVALID, "request refused (4xx)")                                                            \
    X(UNAVAILABLE, "server unavailable (503)")                                                     \
    X(HORIZON, "horizon passed a device")                                                          \
    X(SECOND_TENANT, "commit of the second tenant")                                                \
    X(ATTACK, "hostile request")                                                                   \
    X(ATTACK_OTHER, "hostile request across tenants")                                              \
    X(MANGLED, "hostile answer")                                                                   \
    X(CLONED, "database copied")                                                                   \
    X(SWAPPED, "databases swapped")                                                                \
    X(RESTORED_DEVICE, "device restored")                                                          \
    X(RESTORED_SERVER, "server restored, commits lost")                                            \
    X(REKEYED, "new identity")                                                                     \
    X(RECONCILED, "streams compared")                                                              \
    X(UPGRADED, "upgrade with a queue")                                                            \
    X(PIECES, "request in two pieces")                                                             \
    X(PAGED, "answer of several pages")                                                            \
    X(SNAPSHOT, "bootstrap by snapshot")                                                           \
    X(HELD, "held as a whole")                                                                     \
    X(DUPLICATE, "duplicate commit")                                                               \
    X(REJECTED, "refused operation")                                                               \
    X(CONFLICT, "conflict recorded")                                                               \
    X(RETRIED, "refused one tried again")                                                          \
    X(RESOLVED, "conflict resolved")                                                               \
    X(REVERTED, "decision reverted")                                                               \
    X(TAKEN_BACK, "value taken back")                                                              \
    X(DECIDED, "group decided twice")                                                              \
    X(DEPENDENCY, "dependency judged")                                                             \
    X(CLOCK, "vector clock judged")                                                                \
    X(COMMUTED, "counter, set or extreme judged")                                                  \
    X(POLICY, "policy of a column judged")                                                         \
    X(DELETE_WON, "delete won over an edit")                                                       \
    X(ROW_BACK, "row taken back whole")
typedef enum {
#define SEEN_NAME(name, text) SEEN_##name,
    SEEN(SEEN_NAME)
#undef SEEN_NAME
        SEEN_COUNT
} sim_seen;

typedef enum { TITLE_LWW, TITLE_SERVER_WINS, TITLE_CLIENT_WINS } title_policy;

/* What can go wrong in a seed. Rates are "one in n", 0 = not in this seed. */
typedef struct {
    int devices, steps;
    int page; /* commits or rows that devices ask for at a time, 0 = as many as there are */
    bool two_tenants, foreign_writer, upgrade, hostile_client, hostile_server;
    bool retain, forget_ledger; /* the server forgets early; keys and devices, too */
    bool place;                 /* devices know where their database belongs */
    bool crowd;                 /* that is somewhere else at every start, and all write one row */
    bool moves;         /* it is somewhere else now and then, and the server is restored often */
    bool short_archive; /* devices keep what is done with for hours only */
    bool schema_once; /* the server starts with its schema file once, then from what it remembers */
    int tables;       /* 3: with counters, sets and extremes, and policies of its own: */
    title_policy title;
    bool deletes_win;
    bool reals, unique_values, deletes, big_groups, resolves;
    unsigned drop, twice, late, days, cut, replay, one_way, blocking, pieces;
    unsigned kill_device, kill_server, power, clock_jump, freeze, restart_server, backup_server;
    unsigned power_again; /* the server loses power soon after it came back from being killed */
    unsigned restore_server, clone_device, restore_device, swap_devices, token, revoke, new_device;
    disk_faults device_disk, server_disk;
    int journal; /* of the applications: 0 WAL, 1 DELETE, 2 TRUNCATE, 3 PERSIST */
} swarm;

typedef struct { /* an HTTP message on its way */
    bool used, answer;
    int device, epoch; /* which process sent it / waits for it */
    int64_t at, id;
    char method[8];
    bytes path, body, token; /* token: value of the Authorization header */
    int status;
} packet;

struct world;

typedef struct {
    struct world *w;
    int number, scope;
    char path[32], folder[16], user[16];
    disk disk;
    godwit *g;
    sqlite3 *db;                   /* godwit's own connection, which the application writes with */
    int epoch;                     /* counts processes */
    bool exists, attached, victim; /* attached: connection of the application; victim: of a hostile
                                      server, whose data is not judged any more */
    bool migrating;                /* between the steps of its migration: nothing is captured */
    bool late_column; /* it got a column after rows had come: their values come with a snapshot */
    bool revoked, upgraded, has_forms, identity_stop;
    bool foreign; /* what was written last was not one transaction of the library's */
    bool writing; /* the application was at it when the process died, or is */
    bool copied;  /* another database has, or had, the same content */
    int64_t skew_ms, frozen_ms, boot_ms, wait_until, sent_at, out_id, token_exp;
    char out_verb;
    int64_t mute_up, mute_down; /* one-way partitions until */
    oracle_device know, saved_know;
    disk saved; /* its backup */
    bool has_saved, saved_migrating;
    struct {
        bool used;
        char verb;
        bytes body;
    } old[OLD_MAX]; /* answers it got, for replays */
    size_t old_at;
} device;

typedef struct {
    disk disk, backup;
    service *service;
    service_reader *reader;
    key_set *keys;
    sqlite3 *observer; /* the checker's, read only */
    bool has_backup, upgraded;
    bool knows_tables, killed; /* killed: when it ended last */
    int64_t down_until;
    int restores, starts;
    bool closing;
    char schema[2][300]; /* files with the tables, before and after the upgrade */
    char config[300];    /* and with their policies */
} server;

typedef struct world {
    uint64_t seed;
    sim_random random;
    swarm swarm;
    int64_t now_ms, started_ms;
    int current; /* device whose code runs, -1 = the server */
    device devices[DEVICES_MAX];
    int device_count;
    server server;
    packet packets[PACKETS_MAX];
    packet requests[OLD_MAX]; /* seen on the wire, for a hostile client */
    size_t request_at;
    oracle oracle;
    int64_t faults, steps, commits, rounds;
    bool calm; /* faults are over */
    bool verbose, wide;
    int64_t seen[SEEN_COUNT];
    uint64_t trace;
    const char *doing;
} world;

/* ---- memory.c ---- */
/* Before SQLite is used: no locks and its own lists of blocks, for a process of one thread. */
void sim_memory(void);

/* ---- main.c ---- */
/* Adds a line to the trace; printed when verbose. */
void sim_trace(world *w, const char *format, ...) PRINTF_LIKE(2, 3);
/* An invariant does not hold: says so, and how to see it again, and ends the process. */
NORETURN void sim_fail(world *w, const char *invariant, const char *format, ...) PRINTF_LIKE(3, 4);
/* One in n, and counted as a fault; never when calm. */
bool sim_fault(world *w, unsigned n);
uint64_t sim_below(world *w, uint64_t n);
bool sim_chance(world *w, unsigned n); /* one in n; 0 = never; not a fault */

/* ---- run.c, swarm.c ---- */
void sim_run(world *w, uint64_t seed);
void swarm_pick(world *w);
void swarm_step(world *w);

/* ---- device.c ---- */
void device_create(world *w, int scope);
bool device_open(device *d);                /* false: it could not be opened now */
void device_close(device *d);               /* in order */
void device_die(device *d, disk_loss loss); /* in the middle of what it does */
void device_reap(device *d);     /* after any call: a disk that halted takes the process with it */
void device_write(device *d);    /* a random transaction of the application */
void device_settings(device *d); /* a fresh token */
void device_upgrade(device *d);  /* the application's own migration */
void device_decide(device *d);   /* a person looks at conflicts and refusals */
void device_copy(device *from, device *to);   /* both closed */
void device_forget(device *d);                /* at the end */
bool device_exec(device *d, const char *sql); /* false: refused */
void device_track(device *d);

/* ---- sync.c ---- */
void device_sync(device *d);  /* blocking, through the network's faults */
void device_poll(device *d);  /* one godwit_next; sends what it wants */
void device_nudge(device *d); /* the application says that the network is back */
void device_answer(device *d, packet *p);
void device_exchange(void *context, const godwit_http_request *request, godwit_http_answer *answer);

/* ---- server.c ---- */
void server_init(world *w);
void server_start(world *w);
void server_stop(world *w, bool killed, disk_loss loss);
void server_deinit(world *w);
void server_backup(world *w);
void server_restore(world *w);
void server_upgrade(world *w);
void server_tidy(world *w);
void server_mint(world *w, const device *d, bytes *token);
/* Answers requests[0..count) together; status 0 = no answer came. */
void server_serve(world *w, packet **requests, size_t count, packet *answers);
void server_attack(world *w); /* a hostile client repeats what it saw, changed */

/* ---- pieces.c ---- */
/* Now and then serves the request in two, whose answers nobody reads. */
void server_pieces(world *w, const packet *p);

/* ---- net.c ---- */
void net_send(world *w, packet *p); /* takes the contents of *p */
void net_run(world *w);             /* delivers what is due */
void net_clear(world *w);
void net_drop_device(world *w, int number); /* nobody waits for its answers any more */
void packet_init(packet *p);
void packet_deinit(packet *p);
void packet_copy(packet *to, const packet *from);
/* Damages an answer's bytes as a hostile server would. */
void net_mangle(world *w, packet *p);

#endif
