/* The server killed in the middle of writing, again and again: what was answered is there, the log
 * has no hole, the typed tables are what the log says, and a device simply goes on. */
#include "service_kit.h"

#include <signal.h>
#include <sys/wait.h>

#define A      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define KILLS  50
#define GROUPS 6

/* Deterministic in (lsn): a re-sent push is the same bytes. */
static void make_op(kit *k, kit_device *d, wire_op *op) {
    uint64_t seed = (uint64_t)(d->lsn + 1) * 0x9e3779b97f4a7c15u;
    (void)unit_random(&seed);
    const char *id = arena_printf(&k->a, "p%02d", (int)(unit_random(&seed) % 30));
    uint64_t dice = unit_random(&seed) % 8;
    const char *payload =
        arena_printf(&k->a, "{\"title\":\"%d\",\"n\":%d}", (int)(unit_random(&seed) % 100),
                     (int)(unit_random(&seed) % 1100)); /* some fail the CHECK */
    if (dice == 0) {
        *op = kit_op(k, d, OP_DELETE, "pins", id, NULL);
    } else if (dice == 1) {
        *op = kit_op(k, d, OP_CREATE, "forms", arena_printf(&k->a, "f%lld", (long long)d->lsn),
                     arena_printf(&k->a, "{\"pin_id\":\"%s\"}", id));
    } else {
        *op = kit_op(k, d, dice < 5 ? OP_CREATE : OP_UPDATE, "pins", id, payload);
    }
    op->wall_ms = KIT_NOW;
}

/* Reads where the stream stands from the store itself. */
static kit_device resume(kit *k) {
    kit_device d = {.id = A, .scope = "field", .user = "ana", .lineage = SLICE(A)};
    d.seq = strtoll(kit_sql(k, "SELECT applied_seq FROM godwit_device"), NULL, 10);
    d.lsn = d.seq;
    const char *hex = kit_sql(k, "SELECT lower(hex(last_key)) FROM godwit_device");
    if (d.seq > 0) {
        assert_true(id_hex_decode(slice_of(hex), d.last_key, SHA256_BYTES));
    }
    return d;
}

/* Writes until it is killed; says after each answer how far the answer goes. */
static void child(kit *k, int out) {
    kit_reopen(k);
    kit_device d = resume(k);
    for (int round = 0; round < 10000; round++) {
        wire_op ops[GROUPS];
        for (size_t i = 0; i < GROUPS; i++) {
            make_op(k, &d, &ops[i]);
        }
        kit_group(ops + 1, 3);
        kit_answer r = kit_push(k, &d, ops, GROUPS);
        if (r.status != 200 || write(out, &d.seq, sizeof d.seq) != (ssize_t)sizeof d.seq) {
            _exit(1);
        }
        arena_reset(&k->a);
    }
    _exit(1);
}

static void verify(kit *k, int64_t answered) {
    assert_string_equal(kit_sql(k, "PRAGMA integrity_check"), "ok");
    int64_t applied = strtoll(kit_sql(k, "SELECT applied_seq FROM godwit_device"), NULL, 10);
    assert_true(applied >= answered);
    assert_int_equal(applied % GROUPS, 0); /* pushes are whole */
    /* the ledger is 1..applied and its last key is the watermark's */
    assert_string_equal(
        kit_sql(k, "SELECT (SELECT count(*) = ifnull(max(seq), 0) AND count(*) = (SELECT"
                   " applied_seq FROM godwit_device) FROM godwit_op) AND (SELECT last_key FROM"
                   " godwit_device) = ifnull((SELECT op_key FROM godwit_op ORDER BY seq DESC"
                   " LIMIT 1), x'')"),
        "1");
    assert_string_equal(kit_sql(k,
                                "SELECT ifnull((SELECT head FROM godwit_scope), 0) = count(*) AND"
                                " count(*) = ifnull(max(commit_seq), 0) FROM godwit_commit"),
                        "1");
    assert_string_equal(
        kit_sql(k, "SELECT count(*) FROM forms WHERE pin_id NOT IN (SELECT id FROM pins)"), "0");
    sqlite3 *from_log = replica_open();
    sqlite3 *from_rows = replica_open();
    slice token = {0}, cursor = {0};
    replica_pull(k, from_log, (slice){0});
    while (replica_snapshot(k, from_rows, "1000", &token, &cursor)) {
    }
    (void)sqlite3_exec(from_log, "DELETE FROM r WHERE e = '_conflicts'", NULL, NULL, NULL);
    assert_string_equal(replica_digest(k, from_rows), replica_digest(k, from_log));
    sqlite3_close(from_log);
    sqlite3_close(from_rows);
}

static void killed_while_writing(void **state) {
    (void)state;
    kit k;
    uint64_t seed = 88172645463325252u;
    kit_init(&k, KIT_PINS, NULL);
    (void)kit_register(&k, A, "ana", "field");
    kit_close(&k);
    k.s = NULL;
    for (int i = 0; i < KILLS; i++) {
        int pipe_ends[2];
        assert_int_equal(pipe(pipe_ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(pipe_ends[0]);
            child(&k, pipe_ends[1]);
        }
        (void)close(pipe_ends[1]);
        int64_t answered = 0;
        int64_t seq = 0;
        for (uint64_t n = unit_random(&seed) % 6; n > 0; n--) {
            assert_int_equal(read(pipe_ends[0], &seq, sizeof seq), sizeof seq);
            answered = seq;
        }
        for (volatile uint64_t spin = unit_random(&seed) % 400000; spin > 0; spin--) {
            /* anywhere in the next push, or the one after it */
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(pipe_ends[0], &seq, sizeof seq) == (ssize_t)sizeof seq) {
            answered = seq; /* answers on their way when it died */
        }
        (void)close(pipe_ends[0]);
        kit_reopen(&k);
        verify(&k, answered);
        kit_close(&k);
    }
    kit_reopen(&k);
    assert_true(strtoll(kit_sql(&k, "SELECT applied_seq FROM godwit_device"), NULL, 10) > GROUPS);
    kit_deinit(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_while_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
