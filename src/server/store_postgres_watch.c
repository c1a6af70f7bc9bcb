/* Looking after the database: can it be reached and written to, what do devices report. */
#include "server/store_postgres.h"

godwit_status pg_probe(store *st, bool write) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    godwit_status status = pg_link_up(l);
    if (status != GODWIT_OK || !write) {
        return status;
    }
    status = pg_begin(st);
    if (status == GODWIT_OK) {
        status = pg_query(l,
                          "INSERT INTO godwit.meta(k, v) VALUES ('probe', 1)"
                          " ON CONFLICT (k) DO UPDATE SET v = 1",
                          &r);
    }
    if (status == GODWIT_OK) {
        status = pg_commit(st);
    }
    if (status != GODWIT_OK) {
        pg_rollback(st);
    }
    return status;
}

godwit_status pg_device_reports(store *st, arena *a, slice after_scope, slice after_device,
                                store_device_report *out, size_t max, size_t *count) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    *count = 0;
    godwit_status status = pg_link_up(l);
    pg_text(l, after_scope.len ? after_scope : SLICE(""));
    pg_text(l, after_device.len ? after_device : SLICE(""));
    pg_int(l, (int64_t)max);
    if (status == GODWIT_OK) {
        status = pg_query(l,
                          "SELECT scope, device_id, report, (extract(epoch FROM"
                          " coalesce(last_seen, registered_at)) * 1000)::bigint FROM godwit.device"
                          " WHERE (scope, device_id) > ($1, $2) AND state <> 'revoked'"
                          " ORDER BY scope, device_id LIMIT $3",
                          &r);
    }
    pg_give_up(l);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        out[(*count)++] = (store_device_report){.scope = pg_field_copy(a, r, i, 0),
                                                .device_id = pg_field_copy(a, r, i, 1),
                                                .report = pg_field_copy(a, r, i, 2),
                                                .last_seen_ms = pg_field_int(r, i, 3)};
    }
    return status == GODWIT_OK && a->failed ? GODWIT_NOMEM : status;
}
