/* Devices as operators see them, the states they give them, and the store's own id. What a push
 * needs of a device is in store_postgres.c. */
#include <stdlib.h>
#include <sys/random.h>

#include "core/id.h"
#include "server/store_postgres.h"

#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"

godwit_status pg_devices(store *st, arena *a, slice scope, store_device_row **out, size_t *count) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *out = NULL;
    *count = 0;
    godwit_status status = pg_link_up(l);
    if (status != GODWIT_OK) {
        return status;
    }
    pg_text(l, scope.len ? scope : (slice){0});
    status =
        pg_query(l,
                 "SELECT scope, device_id, user_id, label, state, " MS("registered_at") ", " MS(
                     "last_seen") ", applied_seq, pulled_seq FROM godwit.device"
                                  " WHERE $1::text IS NULL OR scope = $1 ORDER BY scope, device_id",
                 &r);
    if (status != GODWIT_OK) {
        return status;
    }
    *out = ARENA_ARRAY(a, store_device_row, (size_t)PQntuples(r) + 1);
    for (int i = 0; *out && i < PQntuples(r); i++) {
        (*out)[(*count)++] = (store_device_row){.scope = pg_field_copy(a, r, i, 0),
                                                .device_id = pg_field_copy(a, r, i, 1),
                                                .user_id = pg_field_copy(a, r, i, 2),
                                                .label = pg_field_copy(a, r, i, 3),
                                                .state = store_device_state_of(pg_field(r, i, 4)),
                                                .registered_ms = pg_field_int(r, i, 5),
                                                .last_seen_ms = pg_field_int(r, i, 6),
                                                .applied_seq = pg_field_int(r, i, 7),
                                                .pulled_seq = pg_field_int(r, i, 8)};
    }
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

godwit_status pg_device_seen(store *st, slice scope, slice device_id, int64_t pulled_seq,
                             int64_t confirmed_seq, int64_t now_ms, slice report) {
    pg_link *l = &st->link;
    pg_text(l, scope);
    pg_text(l, device_id);
    pg_int(l, pulled_seq);
    pg_int(l, confirmed_seq);
    pg_int(l, now_ms);
    pg_text(l, report.len ? report : (slice){0});
    return pg_send(
        l, "UPDATE godwit.device SET last_seen = greatest(last_seen,"
           " to_timestamp($5::double precision / 1000)), pulled_seq = greatest(pulled_seq, $3),"
           " pulled_at = CASE WHEN $3 >= 0 THEN to_timestamp($5::double precision / 1000) ELSE"
           " pulled_at END, confirmed_seq = greatest(confirmed_seq, least($4, applied_seq)),"
           " report = coalesce($6::json, report)"
           " WHERE scope = $1 AND device_id = $2 AND state = 'active'");
}

godwit_status pg_device_mark(store *st, slice scope, slice device_id, device_state state,
                             int64_t *changed) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    slice wanted = scope.len ? scope : (slice){0};
    *changed = 0;
    pg_text(l, wanted);
    pg_text(l, device_id);
    godwit_status status = pg_query(l,
                                    "SELECT 1 FROM godwit.device WHERE device_id = $2"
                                    " AND ($1::text IS NULL OR scope = $1) LIMIT 1",
                                    &r);
    if (status != GODWIT_OK || PQntuples(r) == 0) {
        return status == GODWIT_OK ? GODWIT_NOT_FOUND : status;
    }
    pg_text(l, wanted);
    pg_text(l, device_id);
    pg_text(l, slice_of(store_device_state_name(state)));
    status = pg_query(l,
                      "UPDATE godwit.device SET state = $3 WHERE device_id = $2"
                      " AND ($1::text IS NULL OR scope = $1) AND state <> $3",
                      &r);
    if (status == GODWIT_OK) {
        *changed = strtoll(PQcmdTuples(r), NULL, 10);
    }
    return status;
}

godwit_status pg_id(store *st, char out[33]) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    uint8_t noise[16];
    char fresh[33];
    out[0] = '\0';
    if (getrandom(noise, sizeof noise, 0) != (ssize_t)sizeof noise) {
        return GODWIT_IO;
    }
    id_hex_encode(noise, sizeof noise, fresh);
    godwit_status status = pg_link_up(l);
    if (status != GODWIT_OK) {
        return status;
    }
    pg_text(l, slice_of(fresh));
    status = pg_query(l,
                      "INSERT INTO godwit.meta AS m (k, v, note) VALUES ('store_id', 0, $1)"
                      " ON CONFLICT (k) DO UPDATE SET note = m.note RETURNING note",
                      &r);
    if (status == GODWIT_OK && pg_field(r, 0, 0).len != 32) {
        status = GODWIT_CORRUPT;
    }
    if (status == GODWIT_OK) {
        memcpy(out, pg_field(r, 0, 0).ptr, 32);
        out[32] = '\0';
    }
    return status;
}
