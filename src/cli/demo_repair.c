/* A step of the demo: the server refuses a transaction; what depends on it waits, the rest goes on;
 * it is repaired from the command line. */
#include "cli/cli.h"
#include "cli/demo.h"

#define WELL                                                                                       \
    "SELECT p.description || ', ' || f.content FROM pins AS p JOIN forms AS f ON"                  \
    " f.pin_id = p.id WHERE p.id = 'well-2'"

/* The devices do not enforce foreign keys here, the server does. */
static bool make(demo_world *w) {
    return demo_app(w, ANA, 2,
                    "PRAGMA foreign_keys = OFF;"
                    "BEGIN;"
                    "INSERT INTO pins VALUES ('well-2', 'Second well', 'new', 'CH', 47.2, 8.6);"
                    "INSERT INTO forms VALUES ('well-2-a', 'well-22', 'survey', 'depth 9 m');"
                    "COMMIT;") &&
           demo_app(w, ANA, 1, "UPDATE pins SET description = 'dry' WHERE id = 'well-2'") &&
           demo_app(w, ANA, 1, "INSERT INTO forms VALUES ('well-1-c', 'well-1', 'note', 'later')");
}

bool demo_refused(demo_world *w) {
    static const int order[] = {ANA, BEN, CORA};
    char id[64];
    if (!make(w) || demo_sync(w, ANA) < 0 || !demo_sync_all(w, order)) {
        return false;
    }
    w->refused += 3;
    demo_check(w,
               demo_device_int(w, ANA,
                               "SELECT count(*) = 3 AND sum(code = 'fk-violation') = 1 FROM"
                               " godwit_dead_letters") == 1 &&
                   demo_text_everywhere(w, "SELECT count(*) FROM pins WHERE id = 'well-2'", "0"),
               "refused as a whole, and the edit that builds on it waits with it: 3 operations");
    demo_check(w,
               demo_text_everywhere(w, "SELECT content FROM forms WHERE id = 'well-1-c'", "later"),
               "Ana's next form is everywhere: nothing else was held up");
    demo_device_text(w, ANA, "SELECT id FROM godwit_dead_letters WHERE code = 'fk-violation'", id,
                     sizeof id);
    const char *edit[] = {
        "queue",     w->devices[ANA].path,
        "edit",      id,
        "--payload", "{\"pin_id\":\"well-2\",\"kind\":\"survey\",\"content\":\"depth 9 m\"}",
        NULL};
    int code = demo_godwit(w, NULL, edit);
    demo_check(w,
               code == CLI_OK &&
                   demo_device_int(w, ANA, "SELECT count(*) FROM godwit_dead_letters") == 0,
               "'godwit queue edit' corrects the form; pin and later edit come back with it");
    if (!demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w, demo_text_everywhere(w, WELL, "dry, depth 9 m"),
               "every replica has all of it: \"dry, depth 9 m\"");
    demo_check(
        w,
        demo_device_int(w, ANA,
                        "SELECT count(*) FROM godwit_receipts WHERE outcome = 'superseded' AND"
                        " superseded_by IS NOT NULL") == 3,
        "the receipts say what took the place of what");
    return true;
}
