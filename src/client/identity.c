/* Identities, principals, and the database's place. See identity.h.
 *
 * Guarantee: an operation is sent only under an identity that its principal made, and only while
 * that principal's token is in use. What is parked stays in the overlay: its user's rows look as he
 * left them. */
#include "client/identity.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/count.h"
#include "client/pump.h"

#define MACHINE_ID_BYTES_MAX 64

/* ---- Identities ---- */

static godwit_status make(godwit *g, arena *a, slice scope, slice *device_id) {
    uint8_t entropy[16];
    char hex[33];
    int64_t n = 0;
    godwit_status status =
        db_int(&g->db, &n, "SELECT coalesce(max(n), 0) + 1 FROM godwit_identity WHERE scope = ?1",
               "s", scope);
    if (status == GODWIT_OK && n == 1) {
        status = client_meta_text(g, a, "lineage", device_id);
    } else if (status == GODWIT_OK) {
        status = client_entropy(g, entropy, sizeof entropy);
        id_hex_encode(entropy, sizeof entropy, hex);
        *device_id = arena_copy(a, slice_of(hex));
    }
    if (status == GODWIT_OK && !device_id->ptr) {
        status = a->failed ? GODWIT_NOMEM
                           : client_fail(g, GODWIT_CORRUPT, "the database has lost its lineage");
    }
    return status == GODWIT_OK
               ? db_run(&g->db,
                        "INSERT INTO godwit_identity (scope, device_id, n, user_id, server_id)"
                        " VALUES (?1, ?2, ?3, (SELECT v FROM godwit_meta WHERE k = 'user'),"
                        " (SELECT v FROM godwit_meta WHERE k = 'server'))",
                        "ssi", scope, *device_id, n)
               : status;
}

godwit_status identity_current(godwit *g, arena *a, slice scope, slice *device_id) {
    godwit_status status = db_text(
        &g->db, a, device_id,
        "SELECT device_id FROM godwit_identity WHERE scope = ?1 AND current = 1", "s", scope);
    return status == GODWIT_NOT_FOUND ? make(g, a, scope, device_id) : status;
}

/* Operations of one group stand together and keep the order they have. */
static godwit_status renumber(godwit *g, slice scope, slice device_id, int64_t *next_seq) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    int64_t group_was = -1, group_is = 0;
    arena a;
    arena_init(&a, g->allocator, 0);
    slice device_was = {0};
    *next_seq = 1;
    godwit_status status =
        db_prepare(&g->db,
                   "SELECT lsn, device_id, group_first FROM godwit_op WHERE scope = ?1 AND state ="
                   " 'pending' AND state <> 'retired' AND sequence_number > 0 ORDER BY lsn",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, scope);
    }
    while (status == GODWIT_OK && row) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        slice device = db_column_slice(stmt, 1);
        if (sqlite3_column_int64(stmt, 2) != group_was || !slice_equal(device, device_was)) {
            group_was = sqlite3_column_int64(stmt, 2);
            group_is = *next_seq;
            if (!slice_equal(device, device_was)) {
                device_was = arena_copy(&a, device);
            }
        }
        status = a.failed ? GODWIT_NOMEM
                          : db_run(&g->db,
                                   "UPDATE godwit_op SET lineage = coalesce(lineage,"
                                   " device_id), device_id = ?2, sequence_number = ?3,"
                                   " group_first = ?4, rekeyed = 1 WHERE lsn = ?1",
                                   "isii", sqlite3_column_int64(stmt, 0), device_id, *next_seq,
                                   group_is);
        (*next_seq)++;
    }
    db_done(&g->db, stmt);
    arena_deinit(&a);
    return status;
}

godwit_status identity_rekey(godwit *g, slice scope) {
    slice device_id = {0};
    int64_t next_seq = 1;
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status =
        db_run(&g->db, "UPDATE godwit_identity SET current = 0 WHERE scope = ?1 AND current = 1",
               "s", scope);
    if (status == GODWIT_OK) {
        status = make(g, &a, scope, &device_id);
    }
    if (status == GODWIT_OK) {
        status = renumber(g, scope, device_id, &next_seq);
    }
    if (status == GODWIT_OK) {
        status = db_run(
            &g->db, "UPDATE godwit_identity SET next_seq = ?3 WHERE scope = ?1 AND device_id = ?2",
            "ssi", scope, device_id, next_seq);
    }
    if (status == GODWIT_OK) {
        status = count_add(g, "rekey", 1);
    }
    if (status == GODWIT_OK) {
        client_log(g, GODWIT_LOG_INFO, "event=rekey device=" SLICE_FMT " operations=%lld",
                   SLICE_ARG(device_id), (long long)next_seq - 1);
    }
    arena_deinit(&a);
    return status;
}

/* ---- Reconciliation wanted ---- */

static void reconcile_key(char out[160], slice scope) {
    snprintf(out, 160, "reconcile:" SLICE_FMT, SLICE_ARG(scope));
}

godwit_status identity_reconcile_wanted(godwit *g, slice scope, bool *wanted) {
    char key[160];
    int64_t n = 0;
    reconcile_key(key, scope);
    godwit_status status =
        db_int(&g->db, &n, "SELECT count(*) FROM godwit_meta WHERE k = ?1", "s", slice_of(key));
    *wanted = n != 0;
    return status;
}

godwit_status identity_want_reconcile(godwit *g, slice scope, const char *why) {
    char key[160];
    reconcile_key(key, scope);
    if (why) {
        client_log(g, GODWIT_LOG_WARN, "event=reconcile reason=\"%s\"", why);
    }
    return client_meta_set(g, key, why ? slice_of(why) : (slice){0});
}

static void unproved_key(char out[160], slice scope) {
    snprintf(out, 160, "unproved:" SLICE_FMT, SLICE_ARG(scope));
}

godwit_status identity_note_unproved(godwit *g, slice scope) {
    char key[160];
    unproved_key(key, scope);
    return client_meta_set(g, key, SLICE("1"));
}

/* ---- Every scope, in one transaction ---- */

typedef godwit_status (*scope_step)(godwit *g, slice scope);

static godwit_status each_scope(godwit *g, const char *sql, scope_step step) {
    slice last = SLICE("");
    arena a;
    godwit_status status = GODWIT_OK;
    arena_init(&a, g->allocator, 0);
    while (status == GODWIT_OK) {
        slice scope = {0};
        status = db_text(&g->db, &a, &scope, sql, "s", last);
        if (status == GODWIT_OK) {
            status = step(g, scope);
            last = scope;
        }
    }
    arena_deinit(&a);
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

static godwit_status end(godwit *g, godwit_status status) {
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}

/* ---- The place ---- */

static void read_machine_id(char out[MACHINE_ID_BYTES_MAX]) {
    FILE *file = fopen("/etc/machine-id", "r");
    out[0] = '\0';
    if (file) {
        if (!fgets(out, MACHINE_ID_BYTES_MAX, file)) {
            out[0] = '\0';
        }
        (void)fclose(file);
    }
}

/* Machine and inode: no copy of the file has both. false: the database has no file. */
static bool default_place(godwit *g, uint8_t out[16]) {
    char machine[MACHINE_ID_BYTES_MAX], inode[32];
    uint8_t digest[SHA256_BYTES];
    struct stat info;
    sha256 h;
    const char *path = sqlite3_db_filename(g->db.handle, "main");
    if (!path || !*path || stat(path, &info) != 0) {
        return false;
    }
    read_machine_id(machine);
    snprintf(inode, sizeof inode, "%llu", (unsigned long long)info.st_ino);
    sha256_init(&h);
    sha256_update(&h, machine, strlen(machine) + 1);
    sha256_update(&h, inode, strlen(inode) + 1);
    sha256_final(&h, digest);
    memcpy(out, digest, 16);
    return true;
}

static bool place_of(godwit *g, char hex[33]) {
    uint8_t place[16];
    const godwit_host *host = &g->options.host;
    const char *path = sqlite3_db_filename(g->db.handle, "main");
    bool known = host->place ? host->place(host->context, path ? path : "", place) == 0
                             : default_place(g, place);
    if (known) {
        id_hex_encode(place, sizeof place, hex);
    }
    return known;
}

/* Where a snapshot has taken the place of the cursor only the identity that is given up knew what
 * had been acknowledged, and would have told by its next push that the server's history is another
 * one. */
static godwit_status rekey_moved(godwit *g, slice scope) {
    char key[160];
    int64_t unproved = 0;
    unproved_key(key, scope);
    godwit_status status = db_int(
        &g->db, &unproved, "SELECT count(*) FROM godwit_meta WHERE k = ?1", "s", slice_of(key));
    if (status == GODWIT_OK) {
        status = identity_rekey(g, scope);
    }
    if (status == GODWIT_OK && unproved) {
        status = client_meta_set(g, key, (slice){0});
    }
    return status == GODWIT_OK && unproved
               ? identity_want_reconcile(g, scope, "an identity was given up")
               : status;
}

static godwit_status rekey_everything(godwit *g, slice place) {
    bool more = true;
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    while (status == GODWIT_OK && more) {
        status = seal_run(g, INT64_MAX, &more);
    }
    if (status == GODWIT_OK) {
        status = each_scope(g,
                            "SELECT scope FROM godwit_identity WHERE current = 1 AND scope > ?1"
                            " ORDER BY scope LIMIT 1",
                            rekey_moved);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, "place", place);
    }
    return end(g, status);
}

godwit_status identity_check_place(godwit *g) {
    char hex[33];
    slice stored = {0};
    arena a;
    if (!place_of(g, hex)) {
        return GODWIT_OK;
    }
    arena_init(&a, g->allocator, 0);
    godwit_status status = client_meta_text(g, &a, "place", &stored);
    if (status == GODWIT_OK && !stored.ptr) {
        status = client_meta_set(g, "place", slice_of(hex));
    } else if (status == GODWIT_OK && !slice_is(stored, hex)) {
        client_log(g, GODWIT_LOG_INFO, "event=moved reason=\"the database is in another place\"");
        status = rekey_everything(g, slice_of(hex));
    }
    arena_deinit(&a);
    return status;
}

godwit_status identity_mark_copy(db *d) {
    return db_exec(d, "INSERT INTO godwit_meta (k, v) VALUES ('place', 'none') ON CONFLICT (k) DO"
                      " UPDATE SET v = excluded.v");
}

/* ---- The principal ---- */

static godwit_status resume_scope(godwit *g, slice scope) {
    godwit_status status =
        db_run(&g->db,
               "UPDATE godwit_identity SET current = 1 WHERE scope = ?1 AND current = 0 AND n ="
               " (SELECT max(n) FROM godwit_identity WHERE scope = ?1 AND current = 0)",
               "s", scope);
    return status == GODWIT_OK ? identity_want_reconcile(g, scope, "the account is in use again")
                               : status;
}

#define MINE                                                                                       \
    "user_id IS (SELECT v FROM godwit_meta WHERE k = 'user') AND (server_id IS NULL OR server_id"  \
    " IS (SELECT v FROM godwit_meta WHERE k = 'server'))"

static godwit_status move_states(godwit *g, op_state from, op_event event, const char *sql) {
    op_state to = from;
    if (!op_transition(&to, event)) {
        return GODWIT_INTERNAL;
    }
    return db_run(&g->db, sql, "ss", slice_of(op_state_name(from)), slice_of(op_state_name(to)));
}

#define MOVE_WHERE(owner)                                                                          \
    "UPDATE godwit_op SET state = ?2 WHERE state = ?1 AND state <> 'retired' AND EXISTS (SELECT 1" \
    " FROM godwit_identity AS i WHERE i.scope = godwit_op.scope AND i.device_id ="                 \
    " godwit_op.device_id AND i.current " owner ")"

/* Inside a transaction, with the new principal in godwit_meta and everything captured sealed. */
static godwit_status change_over(godwit *g) {
    godwit_status status = db_exec(&g->db, "UPDATE godwit_identity SET current = -1");
    if (status == GODWIT_OK) {
        status = db_exec(&g->db, "UPDATE godwit_identity SET current = 0 WHERE " MINE);
    }
    if (status == GODWIT_OK) {
        status = move_states(g, OP_PENDING, OP_EVENT_PARK, MOVE_WHERE("< 0"));
    }
    if (status == GODWIT_OK) {
        status = move_states(g, OP_PARKED, OP_EVENT_UNPARK, MOVE_WHERE(">= 0"));
    }
    if (status == GODWIT_OK) {
        status = each_scope(g,
                            "SELECT scope FROM godwit_identity WHERE current = 0 AND scope > ?1"
                            " ORDER BY scope LIMIT 1",
                            resume_scope);
    }
    return status == GODWIT_OK ? count_again(g) : status;
}

static godwit_status change_principal(godwit *g, const char *key, slice who) {
    bool more = true;
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    while (status == GODWIT_OK && more) {
        status = seal_run(g, INT64_MAX, &more);
    }
    if (status == GODWIT_OK) {
        status = client_meta_set(g, key, who);
    }
    if (status == GODWIT_OK) {
        client_log(g, GODWIT_LOG_INFO, "event=principal reason=\"another %s\"", key);
        status = change_over(g);
    }
    return end(g, status);
}

static godwit_status bind(godwit *g, const char *key, slice who, const char *sql) {
    godwit_status status = db_begin(&g->db);
    if (status != GODWIT_OK) {
        return status;
    }
    status = client_meta_set(g, key, who);
    if (status == GODWIT_OK) {
        status = db_run(&g->db, sql, "s", who);
    }
    return end(g, status);
}

godwit_status identity_check_user(godwit *g) {
    slice user = {0}, stored = {0};
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = token_user(g, &a, &user);
    if (status == GODWIT_OK && user.ptr) { /* else the request will say what is wrong */
        status = client_meta_text(g, &a, "user", &stored);
        if (status == GODWIT_OK && !stored.ptr) {
            status = bind(g, "user", user,
                          "UPDATE godwit_identity SET user_id = ?1 WHERE user_id IS NULL");
        } else if (status == GODWIT_OK && !slice_equal(stored, user)) {
            status = change_principal(g, "user", user);
        }
    }
    arena_deinit(&a);
    return status;
}

godwit_status identity_check_server(godwit *g, slice server_id, bool *changed) {
    slice stored = {0};
    arena a;
    *changed = false;
    if (!server_id.len) {
        return GODWIT_OK;
    }
    arena_init(&a, g->allocator, 0);
    godwit_status status = client_meta_text(g, &a, "server", &stored);
    if (status == GODWIT_OK && !stored.ptr) {
        status = bind(g, "server", server_id,
                      "UPDATE godwit_identity SET server_id = ?1 WHERE server_id IS NULL");
    } else if (status == GODWIT_OK && !slice_equal(stored, server_id)) {
        *changed = true;
        status = change_principal(g, "server", server_id);
    }
    arena_deinit(&a);
    return status;
}
