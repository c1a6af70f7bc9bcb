/* demo: the whole product as a story, with real processes and every claim checked.
 *
 * One server, three devices with a database each (pins, and forms that refer to pins), a proxy
 * between them. Each step does something that goes wrong in practice and checks what must hold
 * after it. The end counts: what was made, applied, doubled, lost. Exit 1 when any check fails. */
#include <signal.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/demo.h"

static const char help[] =
    "Usage: godwit demo [--db URL] [--keep-going]\n\n"
    "Starts a server and three devices as real processes in a temporary folder, imports the "
    "places\n"
    "of the system's time-zone table, and shows what happens to them: offline edits, concurrent\n"
    "edits, a device killed while syncing, the server killed between commit and reply, every\n"
    "request sent twice, a transaction refused and repaired. Every step is checked. Takes a few "
    "seconds and leaves nothing behind.\n\n"
    "Options:\n"
    "  --db URL       postgres://..: the server keeps its store in this database, which must be "
    "empty\n"
    "                 ('make demo DB=postgres' starts one of its own)\n"
    "  --keep-going   go on after a failed check\n\n"
    "Example:\n"
    "  godwit demo\n";

typedef struct {
    const char *title, *story;
    bool (*run)(demo_world *w); /* false: a step could not be carried out, w->why says why */
} demo_step;

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

/* A signal ends the story, not the cleaning up. */
static void catch_signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

/* ---- what holds ---- */

static bool replicas_equal(demo_world *w) {
    demo_replica server, device;
    if (!demo_replica_of(w, -1, &server)) {
        return false;
    }
    for (int i = 0; i < DEMO_DEVICES; i++) {
        if (!demo_replica_of(w, i, &device) || strcmp(server.digest, device.digest) != 0) {
            return false;
        }
    }
    return true;
}

static int64_t pending(demo_world *w, int device) {
    return demo_device_int(w, device, "SELECT count(*) FROM sync_queue WHERE status = 'pending'");
}

static int64_t ledger(demo_world *w) {
    return demo_server_int(w, "SELECT count(*) FROM godwit_op");
}

/* Changes of rows in the feed: what took effect, however it is written in the ledger. */
static int64_t effects(demo_world *w) {
    return demo_server_int(w, "SELECT count(*) FROM godwit_change WHERE tbl IN ('pins', 'forms')");
}

/* Since `ledger_before` and `effects_before` exactly `made` operations were decided and took
 * effect. */
static bool exactly_once(demo_world *w, int64_t ledger_before, int64_t effects_before,
                         int64_t made) {
    int64_t decided = ledger(w) - ledger_before, done = effects(w) - effects_before;
    w->doubled += done > made ? done - made : 0;
    return decided == made && done == made;
}

/* ---- the steps ---- */

static bool offline_import(demo_world *w) {
    for (int i = 0; i < DEMO_DEVICES; i++) {
        if (!demo_device_setup(w, i)) {
            return false;
        }
    }
    int places = demo_import_places(w, ANA);
    if (places < 0) {
        return false;
    }
    int64_t forms = demo_device_int(w, ANA, "SELECT count(*) FROM forms");
    w->made += places + forms;
    demo_check(w, places > 300 && pending(w, ANA) == w->made,
               "%d pins and %lld forms, %lld operations queued", places, (long long)forms,
               (long long)pending(w, ANA));
    int code = demo_sync(w, ANA);
    demo_check(w, code == CLI_UNREACHABLE && pending(w, ANA) == w->made,
               "without a server 'godwit sync' exits with %d; %lld operations still queued", code,
               (long long)pending(w, ANA));
    return true;
}

static bool first_sync(demo_world *w) {
    static const int order[] = {ANA, BEN, CORA};
    if (!demo_server_start(w) || !demo_tokens_make(w) || !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w, ledger(w) == w->made, "the server has decided %lld operations",
               (long long)ledger(w));
    demo_check(w, replicas_equal(w), "Ben and Cora have every pin and form that Ana made");
    return true;
}

static bool different_columns(demo_world *w) {
    static const int order[] = {BEN, CORA, ANA};
    int64_t conflicts = demo_server_int(w, "SELECT count(*) FROM godwit_conflict");
    if (!demo_app(w, BEN, 1, "UPDATE pins SET title = 'Zürich HB' WHERE id = 'tz-Europe/Zurich'") ||
        !demo_app(w, CORA, 1,
                  "UPDATE pins SET description = 'platform 3' WHERE id = 'tz-Europe/Zurich'") ||
        !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w,
               demo_text_everywhere(w,
                                    "SELECT title || ', ' || description FROM pins "
                                    "WHERE id = 'tz-Europe/Zurich'",
                                    "Zürich HB, platform 3"),
               "both edits are on every replica: \"Zürich HB, platform 3\"");
    demo_check(w, demo_server_int(w, "SELECT count(*) FROM godwit_conflict") == conflicts,
               "no conflict was recorded, there was none");
    return true;
}

static bool same_column(demo_world *w) {
    static const int order[] = {BEN, ANA, CORA};
    const struct timespec moment = {0, 20000000}; /* so that Ben's edit is later by any clock */
    char loser[256];
    if (!demo_app(w, ANA, 1, "UPDATE pins SET title = 'Roma' WHERE id = 'tz-Europe/Rome'") ||
        nanosleep(&moment, NULL) != 0 ||
        !demo_app(w, BEN, 1, "UPDATE pins SET title = 'Rom' WHERE id = 'tz-Europe/Rome'") ||
        !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w,
               demo_text_everywhere(w, "SELECT title FROM pins WHERE id = 'tz-Europe/Rome'", "Rom"),
               "policy lww: the later edit, Ben's \"Rom\", is on every replica");
    demo_server_text(w,
                     "SELECT (ours ->> 'title') || ' ' || kind || ' ' || winner FROM "
                     "godwit_conflict WHERE tbl = 'pins' AND pk = 'tz-Europe/Rome'",
                     loser, sizeof loser);
    demo_check(w, strcmp(loser, "Roma field theirs") == 0,
               "the ledger keeps the loser: Ana's \"Roma\"");
    return true;
}

static bool one_transaction(demo_world *w) {
    static const int order[] = {CORA, BEN, ANA};
    if (!demo_app(w, CORA, 3,
                  "BEGIN;"
                  "INSERT INTO pins VALUES ('well-1', 'Well', 'new', 'CH', 47.1, 8.5);"
                  "INSERT INTO forms VALUES ('well-1-a', 'well-1', 'survey', 'depth 12 m');"
                  "INSERT INTO forms VALUES ('well-1-b', 'well-1', 'water', 'clear');"
                  "COMMIT;") ||
        !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w,
               demo_server_int(w, "SELECT count(*) = 3 AND count(DISTINCT commit_seq) = 1 FROM "
                                  "godwit_change WHERE pk LIKE 'well-1%'") == 1,
               "one commit on the server holds the pin and both forms");
    demo_check(w,
               demo_text_everywhere(w,
                                    "SELECT count(*) FROM forms JOIN pins ON pins.id = pin_id "
                                    "WHERE pins.id = 'well-1'",
                                    "2"),
               "every device has all three rows");
    return true;
}

static bool delete_against_edit(demo_world *w) {
    static const int order[] = {BEN, ANA, CORA};
    if (!demo_app(w, ANA, 3, "DELETE FROM pins WHERE id = 'well-1'") || /* the forms cascade */
        !demo_app(w, BEN, 1, "UPDATE pins SET description = 'in use' WHERE id = 'well-1'") ||
        !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w,
               demo_text_everywhere(
                   w,
                   "SELECT description || ', ' || (SELECT count(*) FROM forms WHERE pin_id "
                   "= 'well-1') || ' forms' FROM pins WHERE id = 'well-1'",
                   "in use, 2 forms"),
               "edit wins: the pin and its forms are back on Ana's device, with Ben's edit");
    demo_check(
        w,
        demo_server_int(w, "SELECT count(*) FROM godwit_conflict WHERE kind = 'update_delete' AND "
                           "pk = 'well-1'") == 1,
        "the ledger says that Ana's delete was overruled");
    return true;
}

static bool device_killed(demo_world *w) {
    static const int order[] = {CORA, ANA, BEN};
    char sql[256];
    int64_t before = ledger(w), effects_before = effects(w), edits = 0;
    for (int i = 1; i <= 4; i++) {
        int64_t rows = demo_device_int(w, CORA, "SELECT count(*) FROM pins");
        snprintf(sql, sizeof sql, "UPDATE pins SET description = 'visit %d of ' || id", i);
        if (!demo_app(w, CORA, (int)rows, sql)) {
            return false;
        }
        edits += rows;
    }
    const char *sync[] = {"sync", w->devices[CORA].path, NULL};
    demo_proxy_hold(w, 2);
    pid_t pid = demo_godwit_start(w, sync);
    bool held = pid > 0 && demo_proxy_wait_held(w);
    if (pid > 0) {
        kill(pid, SIGKILL);
    }
    int code = pid > 0 ? demo_wait(pid) : -1;
    demo_proxy_drop(w);
    if (!held) {
        return false;
    }
    int64_t arrived = ledger(w) - before;
    demo_check(w, code == 128 + SIGKILL && arrived > 0 && arrived < edits,
               "killed with %lld of %lld operations at the server, the last answer unread",
               (long long)arrived, (long long)edits);
    if (!demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w, exactly_once(w, before, effects_before, edits) && pending(w, CORA) == 0,
               "started again: all %lld there, each once", (long long)edits);
    return true;
}

static bool server_killed(demo_world *w) {
    static const int order[] = {ANA, BEN, CORA};
    int64_t before = ledger(w), effects_before = effects(w);
    if (!demo_app(w, ANA, 25,
                  "UPDATE pins SET country = lower(country) WHERE id IN (SELECT id FROM pins WHERE "
                  "country <> lower(country) ORDER BY id LIMIT 25)")) {
        return false;
    }
    const char *sync[] = {"sync", w->devices[ANA].path, NULL};
    demo_proxy_hold(w, 1);
    pid_t pid = demo_godwit_start(w, sync);
    bool held = pid > 0 && demo_proxy_wait_held(w);
    demo_server_kill(w);
    demo_proxy_drop(w);
    int code = pid > 0 ? demo_wait(pid) : -1;
    if (!held) {
        return false;
    }
    int64_t committed = ledger(w) - before, waiting = pending(w, ANA);
    demo_check(w, committed == 25 && waiting == 25,
               "the server had committed %lld operations; Ana does not know, %lld are pending",
               (long long)committed, (long long)waiting);
    demo_check(w, code == CLI_UNREACHABLE, "her sync exits with %d", code);
    if (!demo_server_start(w) || !demo_sync_all(w, order)) {
        return false;
    }
    demo_check(w, exactly_once(w, before, effects_before, 25) && pending(w, ANA) == 0,
               "after a restart she sends them again: known already, none applied twice");
    return true;
}

static bool sent_twice(demo_world *w) {
    static const int order[] = {BEN, CORA, ANA};
    int64_t before = ledger(w), effects_before = effects(w);
    demo_proxy_twice(w);
    for (int i = 0; i < DEMO_DEVICES; i++) {
        char sql[512];
        snprintf(
            sql, sizeof sql,
            "BEGIN;"
            "UPDATE pins SET title = title || ' (%s)' WHERE id IN (SELECT id FROM pins ORDER BY "
            "id LIMIT 10 OFFSET %d);"
            "INSERT INTO forms VALUES ('twice-%d', 'well-1', 'note', 'by %s');"
            "COMMIT;",
            w->devices[i].user, 10 * i, i, w->devices[i].user);
        if (!demo_app(w, i, 11, sql)) {
            return false;
        }
    }
    bool ok = demo_sync_all(w, order);
    int doubled = demo_proxy_doubled(w);
    demo_proxy_pass(w);
    if (!ok) {
        return false;
    }
    demo_check(w, doubled > 0 && exactly_once(w, before, effects_before, 33),
               "%d requests sent twice, 33 operations applied once", doubled);
    demo_check(w, replicas_equal(w), "all replicas agree");
    return true;
}

static bool graceful_end(demo_world *w) {
    int code = demo_server_stop(w);
    demo_check(w, code == 0, "asked to stop, the server finishes its work and exits with %d", code);
    return true;
}

static const demo_step steps[] = {
    {"Bulk import, offline", "Ana imports the time-zone table's places. There is no server yet.",
     offline_import},
    {"Sync", "The server starts; all three devices sync.", first_sync},
    {"Different columns of one pin", "Offline, Ben changes Zurich's title, Cora its description.",
     different_columns},
    {"The same column", "Offline, Ana renames Rome, then Ben does. Ben is online first.",
     same_column},
    {"A transaction over two tables", "Cora adds a pin with two forms in one transaction.",
     one_transaction},
    {"Delete against edit", "Ana deletes that pin, forms and all, while Ben edits it.",
     delete_against_edit},
    {"People decide",
     "Cora takes back what the policy decided about Rome; Ben decides about the pin in dispute.",
     demo_decide},
    {"A device dies",
     "Cora edits every pin four times; her process is killed in the middle of a sync.",
     device_killed},
    {"The server dies", "It is killed after it has committed and before it has answered Ana.",
     server_killed},
    {"Every request twice", "The proxy repeats whatever the devices send.", sent_twice},
    {"A change the server refuses",
     "Ana adds a pin with a form that names a pin nobody has, in one transaction; and goes on.",
     demo_refused},
    {"The end", "The server is told to stop.", graceful_end},
};

/* ---- the summary ---- */

static void replica_row(demo_world *w, cli_table *t, const char *name, int device) {
    demo_replica r;
    if (!demo_replica_of(w, device, &r)) {
        snprintf(r.digest, sizeof r.digest, "unreadable");
    }
    cli_table_cell(t, slice_of(name));
    cli_table_printf(t, "%lld", (long long)r.pins);
    cli_table_printf(t, "%lld", (long long)r.forms);
    cli_table_cell(t, slice_of(r.digest));
}

static void summary(demo_world *w) {
    cli_table t;
    cli_table_init(&t, 4);
    const char *const heading[] = {"REPLICA", "PINS", "FORMS", "DIGEST OF ALL ROWS"};
    for (size_t i = 0; i < COUNT_OF(heading); i++) {
        cli_table_cell(&t, slice_of(heading[i]));
    }
    replica_row(w, &t, "server", -1);
    for (int i = 0; i < DEMO_DEVICES; i++) {
        replica_row(w, &t, w->devices[i].name, i);
    }
    putchar('\n');
    cli_table_print(&t, stdout);
    cli_table_deinit(&t);

    int64_t rows = ledger(w);
    int64_t distinct = demo_server_int(
        w, "SELECT count(*) FROM (SELECT DISTINCT lineage, lsn FROM godwit_op) AS d");
    int64_t applied = demo_server_int(w, "SELECT count(*) FROM godwit_op WHERE outcome IN "
                                         "('applied', 'merged', 'noop')");
    cli_table_init(&t, 4);
    const char *const counts[] = {"OPERATIONS MADE", "APPLIED", "DOUBLED", "LOST"};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        cli_table_cell(&t, slice_of(counts[i]));
    }
    cli_table_printf(&t, "%lld", (long long)w->made);
    cli_table_printf(&t, "%lld", (long long)applied);
    cli_table_printf(&t, "%lld", (long long)(rows - distinct + w->doubled));
    cli_table_printf(&t, "%lld", (long long)(w->made + w->refused - distinct));
    putchar('\n');
    cli_table_print(&t, stdout);
    cli_table_deinit(&t);
    putchar('\n');
    demo_check(w, replicas_equal(w), "all four replicas hold the same rows");
    demo_check(w,
               applied == w->made && rows == distinct && distinct == w->made + w->refused &&
                   w->doubled == 0,
               "every operation took effect exactly once");
}

static void tell(demo_world *w, bool keep_going) {
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        const demo_step *s = &steps[i];
        printf("\n%s%2d  %s%s\n    %s\n", cli_style_on(stdout, CLI_BOLD), (int)i + 1, s->title,
               cli_style_off(stdout), s->story);
        fflush(stdout);
        int failed_before = w->failed;
        bool done = s->run(w);
        if (interrupted) {
            demo_check(w, false, "interrupted");
            return;
        }
        if (!done) {
            demo_check(w, false, "%s", w->why[0] ? w->why : "this step could not be carried out");
            return;
        }
        if (w->failed > failed_before && !keep_going) {
            return;
        }
    }
    summary(w);
}

int cli_demo(int argc, char **argv) {
    static demo_world w; /* a few KiB of paths */
    bool keep_going = false;
    const char *db = NULL;
    const cli_option options[] = {{.name = "--db", .text = &db},
                                  {.name = "--keep-going", .flag = &keep_going}};
    const cli_spec spec = {"demo", help, options, COUNT_OF(options), 0, 0};
    int count = 0;
    int code = cli_parse(&spec, argc, argv, &count);
    if (code != CLI_GO) {
        return code;
    }
    int64_t start_ms = cli_now_ms();
    catch_signals();
    if (demo_world_begin(&w, db)) {
        printf("Godwit demo: one server%s, three devices, real processes in %s\n",
               db ? " over PostgreSQL" : "", w.dir);
        tell(&w, keep_going);
    } else {
        demo_check(&w, false, "%s", w.why);
    }
    demo_world_end(&w);
    printf("\n%d checks, %d failed, %.1f s\n", w.checks, w.failed,
           (double)(cli_now_ms() - start_ms) / 1000.0);
    return w.failed ? CLI_FAILED : CLI_OK;
}
