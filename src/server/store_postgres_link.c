/* One connection to PostgreSQL: statements are sent without waiting, and waited for together.
 *
 * Everything is an unnamed statement in pipeline mode, and all state is local to the transaction,
 * so that a pooler in transaction mode may stand between. A connection that is lost is not brought
 * back inside a transaction: the caller rolls back, and the next transaction connects again, after
 * a pause with jitter when that failed before. The URL is never shown: it may hold a password. */
#include "server/store_postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/backoff.h"
#include "core/id.h"

#define PG_TEXTS   1009 /* OID of text[] */
#define ARRAY_HEAD 20   /* bytes before the first item of an array that is not empty */
/* The pause grows to 2 s: long enough to spare the database, short enough not to prolong an outage.
 */
#define ATTEMPTS_COUNTED 1

static int64_t mono_ms(void) {
    struct timespec now;
    return clock_gettime(CLOCK_MONOTONIC, &now) == 0
               ? (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000
               : 0;
}

godwit_status pg_link_init(pg_link *l, const char *url) {
    memset(l, 0, sizeof *l);
    bytes_init(&l->text, NULL, 0);
    bytes_init(&l->roles, NULL, 0);
    size_t size = strlen(url) + 1;
    l->url = malloc(size);
    if (!l->url) {
        return GODWIT_NOMEM;
    }
    memcpy(l->url, url, size);
    return GODWIT_OK;
}

static void clear_results(pg_link *l) {
    for (size_t i = 0; i < l->result_count; i++) {
        PQclear(l->results[i]);
    }
    l->result_count = 0;
}

void pg_link_drop(pg_link *l) {
    clear_results(l);
    PQfinish(l->conn);
    l->conn = NULL;
    l->sent = 0;
    l->silent = false;
    l->transaction = false;
    l->as_role = false;
    l->param_count = 0;
    bytes_clear(&l->text);
    bytes_clear(&l->roles);
}

void pg_link_deinit(pg_link *l) {
    pg_link_drop(l);
    free(l->results);
    bytes_deinit(&l->text);
    bytes_deinit(&l->roles);
    if (l->url) {
        memset(l->url, 0, strlen(l->url));
    }
    free(l->url);
    memset(l, 0, sizeof *l);
}

/* ---- connecting ---- */

/* The first line of what libpq says; it names hosts and files, never the password. */
static void note(pg_link *l, const char *what, const char *text) {
    size_t len = text ? strcspn(text, "\n") : 0;
    snprintf(l->message, sizeof l->message, "%s%.*s", what, (int)len, text ? text : "");
}

static void plan_next_attempt(pg_link *l) {
    uint64_t seed = (uint64_t)mono_ms() ^ (uint64_t)(uintptr_t)l;
    int attempt = l->failures < ATTEMPTS_COUNTED ? l->failures++ : ATTEMPTS_COUNTED;
    seed = (seed ^ seed >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    l->retry_at_ms = mono_ms() + backoff_delay_ms(RETRY_BUSY, attempt, -1, seed);
}

godwit_status pg_link_up(pg_link *l) {
    if (l->conn && PQstatus(l->conn) == CONNECTION_OK) {
        return GODWIT_OK;
    }
    pg_link_drop(l);
    if (l->failures > 0 && mono_ms() < l->retry_at_ms) {
        return GODWIT_IO;
    }
    /* what the URL says comes after these and counts; a connection that nobody waits on
     * (LISTEN) asks by itself whether the other end is there */
    static const char *const names[] = {
        "connect_timeout",     "tcp_user_timeout", "keepalives_idle",
        "keepalives_interval", "keepalives_count", "dbname",
        "application_name",    "client_encoding",  NULL};
    const char *const values[] = {"5", "10000", "5", "2", "3", l->url, "godwit", "UTF8", NULL};
    l->conn = PQconnectdbParams(names, values, 1);
    if (!l->conn || PQstatus(l->conn) != CONNECTION_OK || PQenterPipelineMode(l->conn) != 1 ||
        PQsetnonblocking(l->conn, 1) != 0) {
        note(l, "", l->conn ? PQerrorMessage(l->conn) : "out of memory");
        pg_link_drop(l);
        plan_next_attempt(l);
        return GODWIT_IO;
    }
    l->failures = 0;
    pg_wait_init(l);
    return GODWIT_OK;
}

/* ---- parameters ---- */

static pg_param *add_param(pg_link *l, unsigned type) {
    ASSERT(l->param_count < PG_PARAMS_MAX && l->array_left == 0);
    pg_param *p = &l->params[l->param_count++];
    *p = (pg_param){.from = l->text.len, .type = type};
    return p;
}

/* The database's text can't hold the NUL that JSON can. What is looked up by such a text is not
 * there; what is kept of it is for people. */
static void cover_nuls(pg_link *l, size_t from) {
    if (l->text.failed) {
        return;
    }
    char *nul = memchr(l->text.ptr + from, '\0', l->text.len - from);
    for (; nul; nul = memchr(nul, '\0', (size_t)(l->text.ptr + l->text.len - nul))) {
        *nul = '?';
    }
}

void pg_text(pg_link *l, slice s) {
    pg_param *p = add_param(l, PG_OID_TEXT);
    p->null = !s.ptr;
    p->binary = true;
    p->len = s.len;
    bytes_slice(&l->text, s);
    cover_nuls(l, p->from);
    bytes_char(&l->text, '\0');
}

void pg_bytea(pg_link *l, slice s) {
    pg_param *p = add_param(l, PG_OID_BYTEA);
    p->null = !s.ptr;
    p->binary = true;
    p->len = s.len;
    bytes_slice(&l->text, s);
    bytes_char(&l->text, '\0'); /* an empty one needs a place, too */
}

void pg_int(pg_link *l, int64_t v) {
    pg_param *p = add_param(l, PG_OID_INT8);
    p->binary = true;
    p->len = 8;
    bytes_u64be(&l->text, (uint64_t)v);
}

/* The binary form: dimensions, has-nulls, element type, length, lower bound, then length and bytes
 * of each item (-1 = NULL). */
void pg_array(pg_link *l, unsigned type, size_t count) {
    static const struct {
        unsigned item, array;
    } types[] = {{PG_OID_BOOL, 1000},
                 {PG_OID_BYTEA, 1001},
                 {PG_OID_INT8, 1016},
                 {PG_OID_FLOAT8, 1022},
                 {PG_OID_TEXT, PG_TEXTS}};
    unsigned array = 0;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        array = types[i].item == type ? types[i].array : array;
    }
    ASSERT(array != 0);
    pg_param *p = add_param(l, array);
    p->item = type;
    p->binary = true;
    bytes_u32be(&l->text, count ? 1 : 0);
    bytes_u32be(&l->text, 1);
    bytes_u32be(&l->text, type);
    if (count) {
        bytes_u32be(&l->text, (uint32_t)count);
        bytes_u32be(&l->text, 1);
    }
    p->len = l->text.len - p->from;
    l->array_left = count;
}

static void item_done(pg_link *l) {
    ASSERT(l->array_left > 0);
    pg_param *p = &l->params[l->param_count - 1];
    p->len = l->text.len - p->from;
    l->array_left--;
}

void pg_item(pg_link *l, slice s) {
    bytes_u32be(&l->text, s.ptr ? (uint32_t)s.len : UINT32_MAX);
    size_t from = l->text.len;
    bytes_slice(&l->text, s);
    if (l->params[l->param_count - 1].type == PG_TEXTS && s.len) {
        cover_nuls(l, from);
    }
    item_done(l);
}

void pg_item_int(pg_link *l, int64_t v) {
    bytes_u32be(&l->text, 8);
    bytes_u64be(&l->text, (uint64_t)v);
    item_done(l);
}

void pg_item_int_if(pg_link *l, bool set, int64_t v) {
    if (set) {
        pg_item_int(l, v);
    } else {
        pg_item(l, (slice){0});
    }
}

void pg_item_real(pg_link *l, double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    pg_item_int(l, (int64_t)bits);
}

bool pg_fold(pg_link *l, size_t n) {
    pg_param *p = &l->params[n];
    ASSERT(n < l->param_count && l->array_left == 0);
    if (l->text.failed || p->item == 0 || p->len < ARRAY_HEAD + 4) {
        return false;
    }
    const char *first = l->text.ptr + p->from + ARRAY_HEAD;
    const char *end = l->text.ptr + p->from + p->len;
    bool null = memcmp(first, "\377\377\377\377", 4) == 0;
    const uint8_t *size = (const uint8_t *)first;
    size_t len = null ? 0
                      : (size_t)size[0] << 24 | (size_t)size[1] << 16 | (size_t)size[2] << 8 |
                            (size_t)size[3];
    for (const char *at = first; at < end; at += 4 + len) {
        if ((size_t)(end - at) < 4 + len || memcmp(at, first, 4 + len) != 0) {
            return false;
        }
    }
    *p = (pg_param){.from = p->from + ARRAY_HEAD + 4,
                    .len = len,
                    .type = p->item,
                    .binary = true,
                    .null = null};
    return true;
}

void pg_give_up(pg_link *l) {
    l->param_count = 0;
    l->array_left = 0;
    bytes_clear(&l->text);
}

/* ---- statements ---- */

static godwit_status lost(pg_link *l) {
    const char *why = l->silent ? "it does not answer" : PQerrorMessage(l->conn);
    note(l, "the connection to the database was lost: ", l->conn ? why : "");
    l->error = (pg_error){0};
    pg_link_drop(l);
    return GODWIT_IO;
}

godwit_status pg_send(pg_link *l, const char *sql) {
    const char *values[PG_PARAMS_MAX];
    int lengths[PG_PARAMS_MAX];
    int formats[PG_PARAMS_MAX];
    Oid types[PG_PARAMS_MAX];
    size_t count = l->param_count;
    ASSERT(l->array_left == 0);
    bool failed = l->text.failed;
    for (size_t i = 0; i < count && !failed; i++) {
        const pg_param *p = &l->params[i];
        values[i] = p->null ? NULL : l->text.ptr + p->from;
        lengths[i] = (int)p->len;
        formats[i] = p->binary;
        types[i] = p->type;
    }
    l->param_count = 0;
    if (l->sent == 0) {
        clear_results(l);
    }
    if (failed) {
        bytes_clear(&l->text);
        return GODWIT_NOMEM;
    }
    if (!l->conn) {
        bytes_clear(&l->text);
        return GODWIT_IO;
    }
    int done = PQsendQueryParams(l->conn, sql, (int)count, types, values, lengths, formats, 0);
    bytes_clear(&l->text);
    if (done != 1) {
        return lost(l);
    }
    l->sent++;
    bytes_char(&l->roles, l->as_role ? 'r' : '-');
    return GODWIT_OK;
}

static void copy_field(char *out, size_t size, const PGresult *r, int field) {
    const char *text = PQresultErrorField(r, field);
    snprintf(out, size, "%s", text ? text : "");
}

static void note_error(pg_link *l, const PGresult *r, size_t statement) {
    pg_error *e = &l->error;
    copy_field(e->state, sizeof e->state, r, PG_DIAG_SQLSTATE);
    copy_field(e->text, sizeof e->text, r, PG_DIAG_MESSAGE_PRIMARY);
    copy_field(e->table, sizeof e->table, r, PG_DIAG_TABLE_NAME);
    copy_field(e->column, sizeof e->column, r, PG_DIAG_COLUMN_NAME);
    copy_field(e->constraint, sizeof e->constraint, r, PG_DIAG_CONSTRAINT_NAME);
    e->statement = statement;
    /* data exceptions quote the value: invalid input syntax for type integer: "12a" */
    char *quoted = strncmp(e->state, "22", 2) == 0 ? strstr(e->text, ": \"") : NULL;
    if (quoted) {
        *quoted = '\0';
    }
    (void)snprintf(l->message, sizeof l->message, "%s (%s)", e->text, e->state);
}

static godwit_status status_of(const pg_error *e) {
    static const struct {
        const char *state; /* or its beginning */
        godwit_status status;
    } states[] = {{"40", GODWIT_BUSY},       {"55P03", GODWIT_BUSY},    {"53100", GODWIT_FULL},
                  {"53", GODWIT_NOMEM},      {"57", GODWIT_IO},         {"08", GODWIT_IO},
                  {"25006", GODWIT_IO},      {"23", GODWIT_CONSTRAINT}, {"22", GODWIT_CONSTRAINT},
                  {"P0", GODWIT_CONSTRAINT}, {"44", GODWIT_CONSTRAINT}, {"54", GODWIT_CONSTRAINT}};
    for (size_t i = 0; i < COUNT_OF(states); i++) {
        if (strncmp(e->state, states[i].state, strlen(states[i].state)) == 0) {
            return states[i].status;
        }
    }
    return GODWIT_INTERNAL;
}

static bool keep_result(pg_link *l, PGresult *r) {
    if (l->result_count == l->result_cap) {
        size_t cap = l->result_cap ? l->result_cap * 2 : 16;
        PGresult **grown = realloc(l->results, cap * sizeof(PGresult *));
        if (!grown) {
            PQclear(r);
            return false;
        }
        l->results = grown;
        l->result_cap = cap;
    }
    l->results[l->result_count++] = r;
    return true;
}

/* Results of one statement of the pipeline; the last of them is kept. */
static godwit_status take_result(pg_link *l, size_t statement, bool *failed) {
    PGresult *kept = NULL;
    bool there = pg_wait_result(l);
    for (PGresult *r = NULL; there && (r = PQgetResult(l->conn)) != NULL;) {
        PQclear(kept);
        kept = r;
        there = PQstatus(l->conn) == CONNECTION_OK && pg_wait_result(l);
    }
    if (!there || !kept) {
        PQclear(kept);
        return lost(l);
    }
    ExecStatusType kind = PQresultStatus(kept);
    if (kind == PGRES_FATAL_ERROR && !*failed) {
        note_error(l, kept, statement);
        *failed = true;
    }
    return keep_result(l, kept) ? GODWIT_OK : GODWIT_NOMEM;
}

godwit_status pg_sync(pg_link *l) {
    bool failed = false;
    if (!l->conn) {
        return GODWIT_IO;
    }
    if (PQpipelineSync(l->conn) != 1 || !pg_wait_sent(l)) {
        return lost(l);
    }
    clear_results(l);
    l->error = (pg_error){0};
    for (size_t i = 0; i < l->sent; i++) {
        godwit_status status = take_result(l, i, &failed);
        if (status != GODWIT_OK) {
            pg_link_drop(l);
            return status;
        }
    }
    bool as_role = failed && !l->roles.failed && l->error.statement < l->roles.len &&
                   l->roles.ptr[l->error.statement] == 'r';
    bytes_clear(&l->roles);
    l->sent = 0;
    PGresult *end = pg_wait_result(l) ? PQgetResult(l->conn) : NULL;
    bool synced = end && PQresultStatus(end) == PGRES_PIPELINE_SYNC;
    PQclear(end);
    if (!synced) {
        return lost(l);
    }
    if (!failed) {
        return GODWIT_OK;
    }
    godwit_status status = status_of(&l->error);
    if (as_role && strcmp(l->error.state, "42501") == 0) {
        status = GODWIT_CONSTRAINT; /* the policies or grants of a user: an answer, no fault */
    }
    if (status == GODWIT_IO) {
        pg_link_drop(l);
    }
    return status;
}

PGresult *pg_take(pg_link *l, size_t n) {
    PGresult *r = pg_result(l, n);
    l->results[n] = NULL;
    return r;
}

godwit_status pg_query(pg_link *l, const char *sql, PGresult **out) {
    *out = NULL;
    size_t at = l->sent;
    godwit_status status = pg_send(l, sql);
    if (status == GODWIT_OK) {
        status = pg_sync(l);
    }
    if (status == GODWIT_OK) {
        *out = pg_result(l, at);
    }
    return status;
}

/* ---- fields ---- */

slice pg_field(const PGresult *r, int row, int column) {
    if (PQgetisnull(r, row, column)) {
        return (slice){0};
    }
    return (slice){PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column)};
}

int64_t pg_field_int(const PGresult *r, int row, int column) {
    return PQgetisnull(r, row, column) ? 0 : strtoll(PQgetvalue(r, row, column), NULL, 10);
}

slice pg_field_copy(arena *a, const PGresult *r, int row, int column) {
    slice s = pg_field(r, row, column);
    return s.ptr ? arena_copy(a, s) : s;
}

bool pg_field_key(const PGresult *r, int row, int column, uint8_t out[SHA256_BYTES]) {
    slice s = pg_field(r, row, column);
    return s.len == 2 + 2 * SHA256_BYTES &&
           id_hex_decode((slice){s.ptr + 2, s.len - 2}, out, SHA256_BYTES);
}

slice pg_field_bytea(arena *a, const PGresult *r, int row, int column) {
    slice s = pg_field(r, row, column);
    size_t len = s.len >= 2 ? (s.len - 2) / 2 : 0;
    uint8_t *data = arena_alloc(a, len);
    if (!s.ptr || !data || !id_hex_decode((slice){s.ptr + 2, s.len - 2}, data, len)) {
        return (slice){0};
    }
    return (slice){(const char *)data, len};
}
