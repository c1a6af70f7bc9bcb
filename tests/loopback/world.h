/* Devices around a loopback server, for tests of identity: made, copied, saved, put back, settled.
 */
#ifndef TESTS_LOOPBACK_WORLD_H
#define TESTS_LOOPBACK_WORLD_H

#include "loopback/kit.h"
#include "loopback/loopback.h"

#define DEVICES 8

typedef struct {
    loopback l;
    godwit *devices[DEVICES];
    bool placed; /* the database's place is told truly; else a copy can't see that it is one */
    int made;    /* rows */
} world;

/* File of device or slot i: name "device" or "saved". */
void path_of(const world *w, const char *name, int i, char out[400]);
godwit *open_device(world *w, int i);
void close_device(world *w, int i);
godwit *new_device(world *w, int i);
/* The database of a device as it is, into a file, and such a file into the place of a device. */
void save_device(world *w, int i, int slot);
void load_device(world *w, int i, int slot);
void world_open(world *w);
void world_close(world *w);
/* One more row, by device i. */
void insert(world *w, int i);
void settle(world *w, int i);
/* Everybody syncs until nobody has anything waiting, and still not after everybody has once more:
 * what came last may be what an edit was waiting for. */
void settle_all(world *w);
/* The server's store as "store" beside the device's database; mode: ro or rw. */
void attach_store(world *w, godwit *g, const char *mode);
/* What must hold when everything is settled. */
void check_all(world *w);
int64_t identities(world *w);

#endif
