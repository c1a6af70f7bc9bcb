/* Reconciliation (semantics 4.5): a replica sends, for each identity it ever used, the keys of its
 * operations newest first; the answer says up to where the ledger has the same ones, and what
 * became of them.
 *
 * Reads only, and reveals only streams of the caller. A stream is a chain - the key before the
 * first new operation is checked at every push - so the highest place where both agree is the end
 * of what they have in common. What follows from that is the client's business. */
#include "server/service_inner.h"

typedef struct {
    service_reader *r;
    service_job *job;
    slice scope;
    bytes *b;
} reconciliation;

/* Is the cursor one of this history? */
static godwit_status check_cursor(reconciliation *c, slice text, const store_scope *scope,
                                  bool *valid) {
    wire_cursor cursor;
    int64_t salt = 0;
    *valid = text.len == 0;
    if (*valid) {
        return GODWIT_OK;
    }
    godwit_status status = wire_cursor_parse(&c->r->scratch, text, &cursor);
    if (status != GODWIT_OK || !slice_equal(cursor.scope, c->scope) || cursor.seq > scope->head) {
        return status == GODWIT_NOMEM ? status : GODWIT_OK;
    }
    status = store_read_salt(c->r->store, c->scope, cursor.seq, &salt);
    *valid = status == GODWIT_OK && salt == cursor.salt;
    return status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
}

/* keys[from..to) of one identity, whose numbers fall by one: the ledger beside them. *matched: the
 * highest place where both agree, or what it was before. */
static godwit_status compare_run(reconciliation *c, const reconcile_identity *identity, size_t from,
                                 size_t to, int64_t *matched, bool *first) {
    store_ledger_row row;
    bool found = true;
    int64_t newest = identity->keys[from].seq;
    godwit_status status = store_ledger_open(c->r->store, c->scope, identity->device_id,
                                             identity->keys[to - 1].seq, newest);
    while (status == GODWIT_OK && found) {
        status = store_ledger_next(c->r->store, &row, &found);
        if (status != GODWIT_OK || !found) {
            break;
        }
        const stream_key *key = &identity->keys[from + (size_t)(newest - row.seq)];
        if (row.key.len == SHA256_BYTES && memcmp(row.key.ptr, key->key, SHA256_BYTES) == 0) {
            *matched = row.seq > *matched ? row.seq : *matched;
            bytes_text(c->b, *first ? "" : ",");
            pull_write_result(c->b, &row);
            *first = false;
        }
    }
    store_ledger_close(c->r->store);
    return status;
}

static godwit_status compare(reconciliation *c, const reconcile_identity *identity,
                             int64_t *matched) {
    godwit_status status = GODWIT_OK;
    bool first = true;
    for (size_t from = 0; status == GODWIT_OK && from < identity->key_count;) {
        size_t to = from + 1;
        while (to < identity->key_count &&
               identity->keys[to].seq == identity->keys[to - 1].seq - 1) {
            to++;
        }
        status = compare_run(c, identity, from, to, matched, &first);
        from = to;
    }
    return status;
}

/* The watermark's own key outlives the ledger. */
static bool holds_last(const reconcile_identity *identity, const decide_device *device) {
    for (size_t i = 0; i < identity->key_count && device->has_last_key; i++) {
        if (identity->keys[i].seq == device->applied_seq) {
            return memcmp(identity->keys[i].key, device->last_key, SHA256_BYTES) == 0;
        }
    }
    return false;
}

static godwit_status write_identity(reconciliation *c, const reconcile_identity *identity,
                                    bool *revoked) {
    decide_device device = {0};
    bytes *b = c->b;
    godwit_status status =
        store_read_device(c->r->store, &c->r->scratch, c->scope, identity->device_id, &device);
    bool known = status == GODWIT_OK && slice_equal(device.user_id, c->job->who.user);
    if (status != GODWIT_OK && status != GODWIT_NOT_FOUND) {
        return status;
    }
    *revoked = known && device.state == DEVICE_REVOKED;
    int64_t matched = known && holds_last(identity, &device) ? device.applied_seq : -1;
    bytes_text(b, "{\"deviceId\":");
    json_write_text(b, identity->device_id);
    bytes_text(b, known && device.state != DEVICE_ACTIVE ? ",\"state\":\"retired\""
                                                         : ",\"state\":\"active\"");
    bytes_text(b, ",\"appliedSeq\":");
    bytes_int(b, known ? device.applied_seq : 0);
    bytes_text(b, ",\"outcomes\":[");
    status = known ? compare(c, identity, &matched) : GODWIT_OK;
    bytes_text(b, "],\"matchedSeq\":");
    if (matched < 0) {
        bytes_text(b, "null}");
    } else {
        bytes_int(b, matched);
        bytes_char(b, '}');
    }
    return status;
}

void reconcile_run(service_reader *r, service_job *job) {
    const job_state *state = job->state;
    const reconcile_request *request = &state->reconcile;
    reconciliation c = {.r = r, .job = job, .scope = state->scope, .b = &job->answer};
    store_scope scope = {0};
    bool valid = false;
    bool revoked = false;
    godwit_status status = store_read_scope(r->store, c.scope, &scope);
    if (status == GODWIT_OK) {
        status = check_cursor(&c, request->cursor, &scope, &valid);
    }
    bytes_text(c.b, "{\"head\":");
    bytes_int(c.b, scope.head);
    bytes_text(c.b, valid ? ",\"cursorValid\":true" : ",\"cursorValid\":false");
    bytes_text(c.b, ",\"identities\":[");
    for (size_t i = 0; status == GODWIT_OK && !revoked && i < request->identity_count; i++) {
        bytes_text(c.b, i ? "," : "");
        status = write_identity(&c, &request->identities[i], &revoked);
    }
    bytes_text(c.b, "]}");
    if (status != GODWIT_OK) {
        service_fail(job, status);
    } else if (revoked) {
        service_problem(job, 403, "device-revoked", "the device may no longer be used", NULL);
    } else {
        service_done(job);
    }
}
