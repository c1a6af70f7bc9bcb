/* The end: everything is connected and idle (I3, I14, I27, I29). See oracle.h. */
#include <string.h>

#include "sim/query.h"
#include "sim/sim.h"

static bool judged(const device *d) {
    return d->exists && !d->victim;
}

static bool device_settled(world *w, device *d, char reason[256]) {
    int64_t waiting = query_int(d->db, "SELECT (SELECT count(*) FROM godwit_op WHERE state IN"
                                       " ('pending', 'acked', 'parked')) + (SELECT count(*) FROM"
                                       " godwit_log WHERE lsn > coalesce((SELECT CAST(v AS INTEGER)"
                                       " FROM godwit_meta WHERE k = 'sealed_lsn'), 0))");
    int64_t at = query_int(d->db, "SELECT coalesce(max(commit_seq), 0) FROM godwit_cursor");
    const oracle_scope *s = &w->oracle.scopes[d->scope];
    if (waiting || at != s->head) {
        sqlite3_stmt *q = query(d->db, "SELECT state || ' ' || lsn || ' commit ' ||"
                                       " coalesce(commit_seq, '-') || ' seq ' || sequence_number ||"
                                       " ' of ' || substr(device_id, 1, 8) FROM godwit_op WHERE"
                                       " state IN ('pending', 'acked', 'parked') ORDER BY lsn");
        snprintf(reason, 256, "device %d: %lld waiting (%s), at %lld of %lld: %.90s", d->number,
                 (long long)waiting, query_next(q) ? query_text(q, 0) : "captured", (long long)at,
                 (long long)s->head, godwit_message(d->g));
        query_done(q);
        return false;
    }
    return true;
}

bool oracle_settled(world *w, char reason[256]) {
    bool all = true;
    for (int i = 0; i < w->device_count && all; i++) {
        device *d = &w->devices[i];
        if (judged(d)) {
            d->disk.quiet++;
            all = device_settled(w, d, reason);
            d->disk.quiet--;
        }
    }
    return all;
}

/* What the device shows is what the server has (I14); its file is whole. */
static void judge_device(world *w, device *d) {
    const oracle *o = &w->oracle;
    sqlite3_stmt *q = query(d->db, "PRAGMA integrity_check");
    if (!query_next(q) || strcmp(query_text(q, 0), "ok") != 0) {
        sim_fail(w, "I28", "device %d: the file is damaged: %s", d->number, query_text(q, 0));
    }
    query_done(q);
    for (int i = 0; i < o->row_count && judged(d); i++) {
        const known_row *r = &o->rows[i];
        const version *v = r->last >= 0 ? &o->versions[r->last] : NULL;
        const shown_row *s = &d->know.rows[i];
        bool there = v && v->present;
        if (r->scope != d->scope || (r->table == 1 && !d->has_forms)) {
            continue;
        }
        for (int c = 0; c < oracle_tables[r->table].columns && there && s->present; c++) {
            if (s->value[c] != v->value[c] && (r->table || c != 4 || d->upgraded)) {
                sim_fail(w, "I14", "device %d has %s as %s of %s, the server %s", d->number,
                         s->value[c]->text, oracle_tables[r->table].column[c], r->id->text,
                         v->value[c]->text);
            }
        }
        if (there != s->present) {
            sim_fail(w, "I14", "device %d and the server do not agree whether %s %s is there",
                     d->number, oracle_tables[r->table].name, r->id->text);
        }
    }
}

static bool kept_with_content(device *d, const known_op *k) {
    sqlite3_stmt *q =
        query(d->db, "SELECT 1 FROM godwit_outcome WHERE lower(hex(idempotency_key)) ="
                     " ?1 AND payload IS NOT NULL");
    sqlite3_bind_text(q, 1, k->key->text, -1, SQLITE_STATIC);
    bool found = query_next(q);
    query_done(q);
    return found;
}

/* With all of its group: a part of one can't be sent again. */
static bool in_archive(device *d, const known_op *k) {
    sqlite3_stmt *q = query(
        d->db, "SELECT 1 FROM godwit_op AS o WHERE lower(hex(idempotency_key)) = ?1 AND"
               " group_size = (SELECT count(*) FROM godwit_op AS m WHERE m.scope = o.scope AND"
               " m.device_id = o.device_id AND m.sequence_number BETWEEN o.group_first AND"
               " o.group_first + o.group_size - 1)");
    sqlite3_bind_text(q, 1, k->key->text, -1, SQLITE_STATIC);
    bool found = query_next(q);
    query_done(q);
    return found;
}

/* It was acknowledged, done with, and kept for the time that was asked for. A server restored from
 * a backup older than that does not get it back. */
static bool outlived(world *w, device *d, const known_op *k) {
    return w->swarm.short_archive && w->oracle.scopes[d->scope].lost_history && k->lost &&
           !in_archive(d, k);
}

/* Every operation that was ever sealed is decided, or kept where it was made (I2, I3). One whose
 * only replica was replaced by an older copy may be gone with it. */
static void judge_operations(world *w) {
    const oracle *o = &w->oracle;
    for (int i = 0; i < o->op_count; i++) {
        const known_op *k = &o->ops[i];
        device *d = &w->devices[k->maker];
        if (!k->key->decided && judged(d) && !d->copied && !k->replaced &&
            !kept_with_content(d, k) && !outlived(w, d, k)) {
            sim_fail(w, "I3", "operation %.16s of device %d on %s is nowhere", k->key->text,
                     k->maker, o->rows[k->row].id->text);
        }
    }
}

/* What was acknowledged is in the log, also of a restored server, as long as the device has it: a
 * group of which it has forgotten a part can't be sent again. */
static void judge_delivered(world *w, device *d) {
    sqlite3_stmt *q =
        query(d->db, "SELECT lower(hex(idempotency_key)), lsn FROM godwit_op AS o WHERE state IN"
                     " ('acked', 'retired') AND group_size = (SELECT count(*) FROM godwit_op AS m"
                     " WHERE m.scope = o.scope AND m.device_id = o.device_id AND m.sequence_number"
                     " BETWEEN o.group_first AND o.group_first + o.group_size - 1)");
    while (query_next(q)) {
        int decided = oracle_atom(&w->oracle, query_text(q, 0))->decided;
        if (!decided) {
            sim_fail(w, "I2", "device %d: operation %lld was acknowledged and is lost", d->number,
                     (long long)sqlite3_column_int64(q, 1));
        }
        if (strcmp(w->oracle.decisions[decided - 1].outcome->text, "rejected") == 0) {
            sim_fail(w, "I2", "device %d: operation %lld was acknowledged, and had been refused",
                     d->number, (long long)sqlite3_column_int64(q, 1));
        }
    }
    query_done(q);
    int64_t entries =
        query_int(d->db, "SELECT coalesce(max((SELECT count(*) FROM json_each(vclock))), 0) FROM"
                         " godwit_row WHERE vclock IS NOT NULL");
    if (entries > 17) {
        sim_fail(w, "I29", "device %d: a clock of %lld entries", d->number, (long long)entries);
    }
}

/* The ledger says of each operation what it said first (I5). */
static void judge_ledger(world *w) {
    const oracle *o = &w->oracle;
    sqlite3_stmt *q =
        query(w->server.observer,
              "SELECT outcome, commit_seq FROM godwit_op WHERE scope = (SELECT no FROM"
              " godwit_name WHERE name = ?1) AND device_id = (SELECT no FROM"
              " godwit_name WHERE name = ?2) AND seq = ?3");
    for (int i = 0; i < o->decision_count; i++) {
        const decision *d = &o->decisions[i];
        if (d->scope < 0) {
            continue;
        }
        sqlite3_bind_text(q, 1, d->scope ? "s1" : "s0", -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 2, d->device->text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 3, d->seq);
        if (query_next(q) && (strcmp(query_text(q, 0), d->outcome->text) != 0 ||
                              sqlite3_column_int64(q, 1) != d->commit)) {
            sim_fail(w, "I5", "operation %lld of %.8s was %s in %lld, and now is %s in %lld",
                     (long long)d->seq, d->device->text, d->outcome->text, (long long)d->commit,
                     query_text(q, 0), (long long)sqlite3_column_int64(q, 1));
        }
        sqlite3_reset(q);
    }
    query_done(q);
}

static const atom *identity_of(world *w, device *d) {
    sqlite3_stmt *q = query(d->db, "SELECT device_id FROM godwit_identity WHERE current = 1");
    const atom *name = oracle_atom(&w->oracle, query_next(q) ? query_text(q, 0) : "");
    query_done(q);
    return name;
}

/* Has something in the log that only it can have made under this identity: what was captured
 * before a database was copied, both may send, with the same keys. */
static bool has_pushed(const world *w, const device *d, const atom *name) {
    const oracle *o = &w->oracle;
    for (int i = 0; i < o->decision_count; i++) {
        const decision *x = &o->decisions[i];
        const known_op *k = x->key->op ? &o->ops[x->key->op - 1] : NULL;
        if (k && !k->shared && k->maker == d->number && x->scope == d->scope && x->device == name) {
            return true;
        }
    }
    return false;
}

/* Two databases that both push are two devices (I24). */
static void judge_identities(world *w) {
    for (int i = 0; i < w->device_count; i++) {
        device *a = &w->devices[i];
        for (int k = 0; k < i; k++) {
            device *b = &w->devices[k];
            const atom *name =
                judged(a) && judged(b) && a->scope == b->scope ? identity_of(w, a) : NULL;
            if (name && name == identity_of(w, b) && has_pushed(w, a, name) &&
                has_pushed(w, b, name)) {
                sim_fail(w, "I24", "devices %d and %d both push as %.8s", k, i, name->text);
            }
        }
    }
}

void oracle_end(world *w) {
    for (int i = 0; i < w->device_count; i++) {
        oracle_device_check(w, i, false);
    }
    w->server.disk.quiet++;
    judge_ledger(w);
    w->server.disk.quiet--;
    for (int i = 0; i < w->device_count; i++) {
        device *d = &w->devices[i];
        d->disk.quiet++;
        judge_device(w, d);
        if (judged(d)) {
            judge_delivered(w, d);
        }
        d->disk.quiet--;
    }
    judge_operations(w);
    judge_identities(w);
}
