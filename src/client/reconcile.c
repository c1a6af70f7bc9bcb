/* See reconcile.h. What is collected lives in memory: a reconciliation that is cut short begins
 * anew.
 *
 * Only operations of which the server says something new are kept, so that a long archive costs
 * requests but no memory. */
#include "client/reconcile.h"

#include "client/count.h"
#include "client/identity.h"
#include "client/settle.h"
#include "core/limits.h"

/* One identity. */
typedef struct {
    slice device_id;
    bool current, active;
    int64_t below_lsn; /* operations from here on have been sent */
    bool done;
    int64_t floor_seq; /* newest acknowledged, in case its operation is gone */
    uint8_t floor_key[SHA256_BYTES];
    bool floor_due;
    int64_t applied_seq, matched_seq; /* matched 0: nothing in common */
    uint8_t matched_key[SHA256_BYTES];
} place;

/* One key of the page that is out. */
typedef struct {
    int64_t seq, lsn; /* lsn 0: the floor */
    op_state state;
    op_outcome outcome;
    int64_t commit_seq;
    uint8_t key[SHA256_BYTES];
} sent_key;

typedef struct {
    place *place;
    size_t first, count; /* of sent */
} sent_run;

typedef struct reconciliation {
    arena memory;
    slice scope;
    place *places;
    size_t place_count;
    sent_key *sent;
    size_t sent_count;
    sent_run runs[IDENTITIES_MAX];
    size_t run_count;
    settle_fact *facts;
    size_t fact_count, fact_cap;
    bool cursor_valid;
    bool lost_rows; /* the server lacks operations whose effect the rows have */
} reconciliation;

void reconcile_forget(godwit *g, struct reconciliation *r) {
    if (r) {
        mem_free(g->allocator, r->facts);
        arena_deinit(&r->memory);
        mem_free(g->allocator, r);
    }
}

/* ---- Beginning ---- */

static godwit_status load_places(godwit *g, reconciliation *r) {
    sqlite3_stmt *stmt = NULL;
    int64_t count = 0;
    bool row = true;
    godwit_status status = db_int(
        &g->db, &count, "SELECT count(*) FROM godwit_identity WHERE scope = ?1 AND current >= 0",
        "s", r->scope);
    r->places = ARENA_ARRAY(&r->memory, place, (size_t)count + 1);
    if (status == GODWIT_OK) {
        status = r->places ? db_prepare(&g->db,
                                        "SELECT device_id, current, floor_seq, floor_key FROM"
                                        " godwit_identity WHERE scope = ?1 AND current >= 0 ORDER"
                                        " BY n DESC",
                                        &stmt)
                           : GODWIT_NOMEM;
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 1, r->scope);
    }
    while (status == GODWIT_OK && row && r->place_count < (size_t)count) {
        status = db_step(&g->db, stmt, &row);
        if (status != GODWIT_OK || !row) {
            break;
        }
        place *p = &r->places[r->place_count++];
        slice key = db_column_slice(stmt, 3);
        *p = (place){.device_id = arena_copy(&r->memory, db_column_slice(stmt, 0)),
                     .current = sqlite3_column_int(stmt, 1) == 1,
                     .active = true,
                     .below_lsn = INT64_MAX,
                     .floor_seq = sqlite3_column_int64(stmt, 2)};
        p->floor_due = p->floor_seq > 0 && key.len == SHA256_BYTES;
        if (p->floor_due) {
            memcpy(p->floor_key, key.ptr, SHA256_BYTES);
        }
    }
    db_done(&g->db, stmt);
    return status == GODWIT_OK && r->memory.failed ? GODWIT_NOMEM : status;
}

static godwit_status begin(godwit *g, pump *p) {
    reconciliation *r = mem_resize(g->allocator, NULL, sizeof *r);
    if (!r) {
        return GODWIT_NOMEM;
    }
    memset(r, 0, sizeof *r);
    arena_init(&r->memory, g->allocator, 0);
    p->reconciliation = r;
    r->scope = arena_copy(&r->memory, p->request.scope);
    r->sent = ARENA_ARRAY(&r->memory, sent_key, RECONCILE_KEYS_MAX);
    if (!r->scope.ptr || !r->sent) {
        return GODWIT_NOMEM;
    }
    return load_places(g, r);
}

/* ---- A page ---- */

static sent_key *add_key(reconciliation *r, int64_t seq, const void *key) {
    sent_key *s = &r->sent[r->sent_count++];
    *s = (sent_key){.seq = seq};
    memcpy(s->key, key, SHA256_BYTES);
    return s;
}

/* The floor goes where its operation would stand. */
static void add_floor(reconciliation *r, place *p, int64_t before_seq) {
    if (p->floor_due && before_seq <= p->floor_seq) {
        if (before_seq < p->floor_seq) {
            (void)add_key(r, p->floor_seq, p->floor_key);
        }
        p->floor_due = false;
    }
}

static godwit_status add_row(godwit *g, reconciliation *r, place *p, sqlite3_stmt *stmt) {
    slice key = db_column_slice(stmt, 2);
    int64_t lsn = sqlite3_column_int64(stmt, 0), seq = sqlite3_column_int64(stmt, 1);
    if (key.len != SHA256_BYTES) {
        return client_fail(g, GODWIT_CORRUPT, "operation %lld is damaged", (long long)lsn);
    }
    add_floor(r, p, seq);
    sent_key *s = add_key(r, seq, key.ptr);
    s->lsn = lsn;
    s->commit_seq = sqlite3_column_int64(stmt, 4);
    if (!op_outcome_parse(db_column_slice(stmt, 5), &s->outcome)) {
        s->outcome = OUTCOME_NONE;
    }
    p->below_lsn = lsn;
    return op_state_parse(db_column_slice(stmt, 3), &s->state)
               ? GODWIT_OK
               : client_fail(g, GODWIT_CORRUPT, "operation %lld has an unknown state",
                             (long long)lsn);
}

/* Fills the page with keys of one identity. */
static godwit_status add_keys(godwit *g, reconciliation *r, place *p) {
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    godwit_status status =
        db_prepare(&g->db,
                   "SELECT lsn, sequence_number, idempotency_key, state, commit_seq, outcome FROM"
                   " godwit_op WHERE lsn < ?1 AND scope = ?2 AND device_id = ?3 AND sequence_number"
                   " > 0 ORDER BY lsn DESC",
                   &stmt);
    if (status == GODWIT_OK) {
        status = db_bind_int(&g->db, stmt, 1, p->below_lsn);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 2, r->scope);
    }
    if (status == GODWIT_OK) {
        status = db_bind_slice(&g->db, stmt, 3, p->device_id);
    }
    while (status == GODWIT_OK && row && r->sent_count + 2 <= RECONCILE_KEYS_MAX) {
        status = db_step(&g->db, stmt, &row);
        if (status == GODWIT_OK && row) {
            status = add_row(g, r, p, stmt);
        }
    }
    db_done(&g->db, stmt);
    if (status == GODWIT_OK && !row) {
        add_floor(r, p, 0);
        p->done = true;
    }
    return status;
}

static godwit_status fill(godwit *g, reconciliation *r) {
    godwit_status status = GODWIT_OK;
    r->sent_count = 0;
    r->run_count = 0;
    for (size_t i = 0; i < r->place_count && status == GODWIT_OK; i++) {
        if (r->places[i].done || r->run_count == IDENTITIES_MAX ||
            r->sent_count + 2 > RECONCILE_KEYS_MAX) {
            continue;
        }
        sent_run *run = &r->runs[r->run_count++];
        *run = (sent_run){.place = &r->places[i], .first = r->sent_count};
        status = add_keys(g, r, &r->places[i]);
        run->count = r->sent_count - run->first;
    }
    return status;
}

static godwit_status write_page(godwit *g, const reconciliation *r, slice cursor, bytes *body) {
    arena a;
    arena_init(&a, g->allocator, 0);
    reconcile_request request = {.scope = r->scope, .cursor = cursor};
    request.identities = ARENA_ARRAY(&a, reconcile_identity, r->run_count + 1);
    stream_key *keys = ARENA_ARRAY(&a, stream_key, r->sent_count + 1);
    if (request.identities && keys) {
        for (size_t i = 0; i < r->sent_count; i++) {
            keys[i].seq = r->sent[i].seq;
            memcpy(keys[i].key, r->sent[i].key, SHA256_BYTES);
        }
        for (size_t i = 0; i < r->run_count; i++) {
            request.identities[i] = (reconcile_identity){.device_id = r->runs[i].place->device_id,
                                                         .keys = keys + r->runs[i].first,
                                                         .key_count = r->runs[i].count};
        }
        request.identity_count = r->run_count;
        wire_reconcile_write(body, &request);
    }
    arena_deinit(&a);
    return request.identities && keys && !body->failed ? GODWIT_OK : GODWIT_NOMEM;
}

godwit_status reconcile_page(godwit *g, pump *p) {
    arena a;
    slice cursor = {0};
    arena_init(&a, g->allocator, 0);
    if (p->reconciliation && !slice_equal(p->reconciliation->scope, p->request.scope)) {
        reconcile_forget(g, p->reconciliation);
        p->reconciliation = NULL;
    }
    godwit_status status = p->reconciliation ? GODWIT_OK : begin(g, p);
    if (status == GODWIT_OK) {
        status = fill(g, p->reconciliation);
    }
    if (status == GODWIT_OK) {
        status = db_text(&g->db, &a, &cursor,
                         "SELECT cursor FROM godwit_cursor WHERE scope = ?1 AND state = 'live'",
                         "s", p->request.scope);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status;
    }
    if (status == GODWIT_OK) {
        p->request.method = "POST";
        bytes_text(&p->request.path, "/v1/streams/reconcile");
        bytes_clear(&p->request.cursor);
        bytes_slice(&p->request.cursor, cursor);
        status = write_page(g, p->reconciliation, cursor, &p->request.body);
    }
    arena_deinit(&a);
    return status == GODWIT_OK && p->request.path.failed ? GODWIT_NOMEM : status;
}

/* ---- Its answer ---- */

/* Of the run, whose numbers fall; NULL. */
static const sent_key *find_sent(const reconciliation *r, const sent_run *run, int64_t seq) {
    size_t low = run->first, high = run->first + run->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->sent[middle].seq > seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < run->first + run->count && r->sent[low].seq == seq ? &r->sent[low] : NULL;
}

static bool undecided(const sent_key *s) {
    return s->state == OP_PENDING || s->state == OP_ACKED || s->state == OP_PARKED;
}

static godwit_status add_fact(godwit *g, reconciliation *r, const sent_key *s,
                              const wire_result *result) {
    if (!s->lsn ||
        (!undecided(s) && s->commit_seq == result->commit_seq && s->outcome == result->outcome)) {
        return GODWIT_OK; /* nothing new */
    }
    if (r->fact_count == r->fact_cap) {
        size_t cap = r->fact_cap ? r->fact_cap * 2 : 64;
        settle_fact *facts = mem_resize(g->allocator, r->facts, cap * sizeof *facts);
        if (!facts) {
            return GODWIT_NOMEM;
        }
        r->facts = facts;
        r->fact_cap = cap;
    }
    settle_fact *fact = &r->facts[r->fact_count++];
    *fact = (settle_fact){.lsn = s->lsn,
                          .commit_seq = result->commit_seq,
                          .outcome = result->outcome,
                          .code = arena_copy(&r->memory, result->code_text),
                          .detail = arena_copy(&r->memory, result->detail)};
    return r->memory.failed ? GODWIT_NOMEM : GODWIT_OK;
}

static godwit_status take_match(godwit *g, reconciliation *r, const sent_run *run,
                                const reconcile_match *match) {
    place *p = run->place;
    godwit_status status = GODWIT_OK;
    if (!slice_equal(match->device_id, p->device_id)) {
        return GODWIT_PROTOCOL;
    }
    p->active = match->active;
    p->applied_seq = match->applied_seq;
    if (match->matched_seq > p->matched_seq) {
        const sent_key *s = find_sent(r, run, match->matched_seq);
        if (!s) {
            return GODWIT_PROTOCOL;
        }
        p->matched_seq = match->matched_seq;
        memcpy(p->matched_key, s->key, SHA256_BYTES);
    }
    for (size_t i = 0; i < match->outcome_count && status == GODWIT_OK; i++) {
        const wire_result *result = &match->outcomes[i];
        const sent_key *s = find_sent(r, run, result->seq);
        if (!s || !result->has_key || memcmp(s->key, result->key, SHA256_BYTES) != 0) {
            return GODWIT_PROTOCOL;
        }
        status = add_fact(g, r, s, result);
    }
    return status;
}

/* ---- The end ---- */

/* Operations of the identity that the server does not have. *lost_rows: some were done with. A
 * group of which a part is no longer kept can't be sent, and stays behind. */
static godwit_status requeue(settle *s, const place *p, bool *lost_rows) {
    static const op_state from[] = {OP_ACKED, OP_RETIRED, OP_CONFLICT};
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < COUNT_OF(from) && status == GODWIT_OK; i++) {
        op_state to = from[i];
        ASSERT(op_transition(&to, OP_EVENT_REQUEUE));
        status = db_run(
            s->d,
            "UPDATE godwit_op SET state = ?5, commit_seq = NULL, outcome = NULL"
            " WHERE scope = ?1 AND device_id = ?2 AND sequence_number > ?3 AND state = ?4 AND"
            " NOT EXISTS (SELECT 1 FROM godwit_outcome AS x WHERE x.lsn = godwit_op.lsn AND"
            " x.resolution = 'discarded') AND group_size = (SELECT count(*) FROM godwit_op AS m"
            " WHERE m.scope = ?1 AND m.device_id = ?2 AND m.sequence_number BETWEEN"
            " godwit_op.group_first AND godwit_op.group_first + godwit_op.group_size - 1)",
            "ssiss", s->scope, p->device_id, p->matched_seq, slice_of(op_state_name(from[i])),
            slice_of(op_state_name(to)));
        *lost_rows = *lost_rows || (from[i] != OP_ACKED && sqlite3_changes(s->d->handle) > 0);
    }
    /* what was refused keeps its place in the stream, if it keeps it, as a void */
    return status == GODWIT_OK
               ? db_run(s->d,
                        "UPDATE godwit_op SET commit_seq = NULL WHERE scope = ?1 AND device_id ="
                        " ?2 AND sequence_number > ?3 AND state IN ('rejected', 'blocked',"
                        " 'conflict')",
                        "ssi", s->scope, p->device_id, p->matched_seq)
               : status;
}

static godwit_status keep_identity(settle *s, const place *p) {
    slice key = {(const char *)p->matched_key, p->matched_seq ? SHA256_BYTES : 0};
    s->acked_seq = s->new_acked_seq = p->matched_seq;
    return db_run(s->d,
                  "UPDATE godwit_identity SET acked_seq = ?3, floor_seq = ?3, floor_key = ?4 WHERE"
                  " scope = ?1 AND device_id = ?2",
                  "ssib", s->scope, p->device_id, p->matched_seq,
                  p->matched_seq ? key : (slice){0});
}

/* Operations that wait and have no place in the stream as it goes on: of earlier identities, or
 * from a part of it of which the server has forgotten what became of each. */
static godwit_status count_strangers(settle *s, int64_t matched_seq, int64_t *count) {
    return db_int(s->d, count,
                  "SELECT count(*) FROM godwit_op AS o JOIN godwit_identity AS i ON i.scope ="
                  " o.scope AND i.device_id = o.device_id WHERE o.scope = ?1 AND o.state ="
                  " 'pending' AND o.state <> 'retired' AND o.sequence_number > 0 AND (i.current = 0"
                  " OR i.current = 1 AND o.sequence_number <= ?2)",
                  "si", s->scope, matched_seq);
}

/* How many numbers behind what both have have no operation any more: what was done with long ago is
 * not kept, and a server may come back from a backup older than that. */
static godwit_status count_missing(settle *s, const place *p, int64_t *count) {
    return db_int(s->d, count,
                  "SELECT next_seq - 1 - ?3 - (SELECT count(*) FROM godwit_op WHERE scope = ?1 AND"
                  " device_id = ?2 AND sequence_number > ?3 AND state IN ('pending', 'rejected',"
                  " 'blocked', 'conflict')) FROM godwit_identity WHERE scope = ?1 AND device_id ="
                  " ?2",
                  "ssi", s->scope, p->device_id, p->matched_seq);
}

static godwit_status choose_identity(settle *s, const reconciliation *r) {
    int64_t strangers = 0, missing = 0;
    const place *current = NULL;
    for (size_t i = 0; i < r->place_count; i++) {
        current = r->places[i].current ? &r->places[i] : current;
    }
    godwit_status status = count_strangers(s, current ? current->matched_seq : 0, &strangers);
    if (status == GODWIT_OK && current) {
        status = count_missing(s, current, &missing);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    bool ours = current && current->active && current->applied_seq == current->matched_seq;
    return ours && !strangers && !missing ? keep_identity(s, current)
                                          : identity_rekey(s->g, s->scope);
}

/* Every operation has the state the server's ledger gives it. */
static godwit_status go_on(settle *s, const void *context) {
    const reconciliation *r = context;
    godwit_status status = choose_identity(s, r);
    if (status == GODWIT_OK && (r->lost_rows || !r->cursor_valid)) {
        /* what the rows were made of is not this history: begin anew, and replay what waits */
        status = bootstrap_require(s->g, s->scope);
    }
    if (status == GODWIT_OK) {
        status = count_add(s->g, "reconcile", 1);
    }
    return status == GODWIT_OK ? identity_want_reconcile(s->g, s->scope, NULL) : status;
}

static godwit_status finish_in(settle *s, reconciliation *r) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; i < r->place_count && status == GODWIT_OK; i++) {
        status = requeue(s, &r->places[i], &r->lost_rows);
    }
    if (status == GODWIT_OK) {
        status = count_again(s->g);
    }
    s->after_moves = go_on;
    s->context = r;
    return status == GODWIT_OK ? settle_take_facts(s, r->facts, r->fact_count, r->cursor_valid)
                               : status;
}

static godwit_status finish(godwit *g, reconciliation *r) {
    settle s;
    settle_counts counts;
    godwit_status status = settle_open(&s, g, r->scope);
    if (status == GODWIT_OK) {
        status = finish_in(&s, r);
    }
    return settle_close(&s, status, &counts);
}

godwit_status reconcile_take(godwit *g, pump *p, const reconcile_answer *answer, bool *more) {
    reconciliation *r = p->reconciliation;
    godwit_status status = GODWIT_OK;
    *more = false;
    if (!r || answer->identity_count != r->run_count) {
        return GODWIT_PROTOCOL;
    }
    for (size_t i = 0; i < r->run_count && status == GODWIT_OK; i++) {
        status = take_match(g, r, &r->runs[i], &answer->identities[i]);
    }
    r->cursor_valid = answer->cursor_valid;
    for (size_t i = 0; i < r->place_count; i++) {
        *more = *more || !r->places[i].done;
    }
    if (status == GODWIT_OK && !*more) {
        status = finish(g, r);
    }
    if (status != GODWIT_OK || !*more) {
        reconcile_forget(g, r);
        p->reconciliation = NULL;
    }
    return status;
}
