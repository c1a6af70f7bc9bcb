/* The operator's query about a user's scopes, in a transaction of its own that can't write and that
 * the database ends when it takes too long. */
#include "server/store_postgres.h"

#include <stdio.h>

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The number of characters at `at` that are a parameter's name; *as is what stands for it. */
static size_t parameter(const char *text, const char *at, const char **as) {
    static const char *const names[][2] = {{":sub", "$1::text"}, {":claims", "$2::jsonb"}};
    if (at > text && at[-1] == ':') {
        return 0; /* a cast */
    }
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        size_t len = strlen(names[i][0]);
        if (strncmp(at, names[i][0], len) == 0 && !is_name(at[len])) {
            *as = names[i][1];
            return len;
        }
    }
    return 0;
}

/* With numbers for names, outside of quotes. */
static void write_query(bytes *b, const char *sql) {
    char quote = 0;
    bytes_text(b, "WITH godwit_token(sub, claims) AS (SELECT $1::text, $2::jsonb) SELECT * FROM (");
    for (const char *at = sql; *at; at++) {
        const char *as = NULL;
        size_t len = quote ? 0 : parameter(sql, at, &as);
        if (len) {
            bytes_text(b, as);
            at += len - 1;
            continue;
        }
        if (quote ? *at == quote : *at == '\'' || *at == '"') {
            quote = quote ? 0 : *at;
        }
        bytes_char(b, *at);
    }
    bytes_printf(b, ") AS godwit_scopes LIMIT %d", SCOPES_MAX + 1);
}

static godwit_status ask(pg_link *l, const char *sql, slice sub, slice claims, PGresult **r) {
    char limit[32];
    godwit_status status = pg_transaction(l, false);
    if (status == GODWIT_OK) {
        snprintf(limit, sizeof limit, "%d", SCOPES_SQL_MS);
        pg_text(l, slice_of(limit));
        status = pg_send(l, "SELECT set_config('statement_timeout', $1, true)");
    }
    if (status != GODWIT_OK) {
        return status;
    }
    pg_text(l, sub);
    pg_text(l, claims);
    return pg_query(l, sql, r);
}

godwit_status pg_grants(pg_link *l, arena *a, const char *sql, slice sub, slice claims,
                        store_grants *out) {
    PGresult *r = NULL;
    bytes text;
    *out = (store_grants){0};
    bytes_init(&text, NULL, 0);
    write_query(&text, sql);
    godwit_status status = text.failed ? GODWIT_NOMEM : ask(l, text.ptr, sub, claims, &r);
    bytes_deinit(&text);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        slice write = PQnfields(r) > 1 ? pg_field(r, i, 1) : SLICE("t");
        status = store_grant_add(a, pg_field(r, i, 0), slice_is(write, "t") || slice_is(write, "1"),
                                 out);
    }
    return status;
}
