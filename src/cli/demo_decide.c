/* A step of the demo: people decide what policies decided before them, from the command line of
 * devices that had no part in it. */
#include "cli/cli.h"
#include "cli/demo.h"

static bool conflict_of(demo_world *w, int device, const char *pin, char *id, size_t size) {
    char sql[192];
    snprintf(sql, sizeof sql,
             "SELECT conflict_id FROM godwit_conflicts WHERE entity_type = 'pins' AND entity_id ="
             " '%s' AND state = 'auto'",
             pin);
    demo_device_text(w, device, sql, id, size);
    return id[0] != '\0';
}

bool demo_decide(demo_world *w) {
    static const int order[] = {CORA, BEN, ANA};
    char rome[64], well[64];
    if (!conflict_of(w, CORA, "tz-Europe/Rome", rome, sizeof rome) ||
        !conflict_of(w, BEN, "well-1", well, sizeof well)) {
        snprintf(w->why, sizeof w->why, "the ledgers of the devices lack an entry");
        return false;
    }
    const char *revert[] = {"conflicts", w->devices[CORA].path, "revert", rome, NULL};
    const char *resolve[] = {
        "conflicts", w->devices[BEN].path, "resolve", well, "{\"description\":\"in use, ask Ana\"}",
        NULL};
    int reverted = demo_godwit(w, NULL, revert), resolved = demo_godwit(w, NULL, resolve);
    w->made += 2;
    if (!demo_sync_all(w, order)) {
        return false;
    }
    demo_check(
        w,
        reverted == CLI_OK &&
            demo_text_everywhere(w, "SELECT title FROM pins WHERE id = 'tz-Europe/Rome'", "Roma"),
        "'godwit conflicts revert': Ana's \"Roma\" is back, on every replica");
    demo_check(w,
               resolved == CLI_OK &&
                   demo_text_everywhere(w, "SELECT description FROM pins WHERE id = 'well-1'",
                                        "in use, ask Ana"),
               "'godwit conflicts resolve' with words of his own: everybody has Ben's decision");
    demo_check(w,
               demo_device_int(w, ANA,
                               "SELECT sum(state = 'reverted') = 1 AND sum(state = 'resolved') = 1"
                               " FROM godwit_conflicts") == 1,
               "the ledgers say who decided, and that nothing is left to decide");
    return true;
}
