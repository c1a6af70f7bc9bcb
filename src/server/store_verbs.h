/* The verbs of store.h as one list, for what differs from store to store: their declarations, the
 * table a store brings, and the calls through it (store.c). A new verb is one line here, a
 * declaration with its contract in store.h, and one function in each store. */
#ifndef SERVER_STORE_VERBS_H
#define SERVER_STORE_VERBS_H

#include "server/store.h"

/* VERB(result, name, (parameters), the store, reader or signal, (arguments)); VOID without a result. */
#define STORE_VERBS(VERB, VOID)                                                                    \
    VOID(close, (store * st), st, (st))                                                            \
    VERB(const char *, message, (const store *st), st, (st))                                       \
    VERB(godwit_status, schema_file, (store * st, const char *path, char *message), st,            \
         (st, path, message))                                                                      \
    VERB(godwit_status, schema_adopt, (store * st, const schema *declared, bool *changed), st,     \
         (st, declared, changed))                                                                  \
    VERB(godwit_status, column_rename, (store * st, slice table, slice from, slice to), st,        \
         (st, table, from, to))                                                                    \
    VERB(godwit_status, schema_read, (store * st, arena * a, schema * out), st, (st, a, out))      \
    VERB(godwit_status, tables_build,                                                              \
         (store * st, arena * a, const schema *all, store_tables **out), st, (st, a, all, out))    \
    VERB(godwit_status, use, (store * st, const store_tables *tables), st, (st, tables))           \
    VERB(godwit_status, id, (store * st, char out[33]), st, (st, out))                             \
    VOID(write_as, (store * st, const store_role *role), st, (st, role))                           \
    VOID(read_as, (store_reader * r, const store_role *role), r, (r, role))                        \
    VERB(godwit_status, roles_check,                                                               \
         (store * st, const slice *roles, size_t count, char *message), st,                        \
         (st, roles, count, message))                                                              \
    VERB(godwit_status, begin, (store * st), st, (st))                                             \
    VERB(godwit_status, commit, (store * st), st, (st))                                            \
    VOID(rollback, (store * st), st, (st))                                                         \
    VERB(godwit_status, savepoint, (store * st), st, (st))                                         \
    VOID(rollback_to, (store * st), st, (st))                                                      \
    VERB(godwit_status, release, (store * st), st, (st))                                           \
    VERB(godwit_status, scope_load, (store * st, slice scope, store_scope * out), st,              \
         (st, scope, out))                                                                         \
    VERB(godwit_status, device_load,                                                               \
         (store * st, arena * a, slice scope, slice device_id, decide_device * out), st,           \
         (st, a, scope, device_id, out))                                                           \
    VERB(godwit_status, devices_load,                                                              \
         (store * st, arena * a, slice scope, const slice *ids, size_t count,                      \
          decide_device *out),                                                                     \
         st, (st, a, scope, ids, count, out))                                                      \
    VERB(godwit_status, ledger_by_seq,                                                             \
         (store * st, arena * a, slice scope, slice device_id, const wire_op *ops, size_t count,   \
          decide_ledger *out),                                                                     \
         st, (st, a, scope, device_id, ops, count, out))                                           \
    VERB(godwit_status, ledger_by_origin,                                                          \
         (store * st, arena * a, slice scope, const wire_op *ops, size_t count,                    \
          decide_ledger *out, bool *any),                                                          \
         st, (st, a, scope, ops, count, out, any))                                                 \
    VERB(godwit_status, outcome,                                                                   \
         (store * st, slice scope, slice device_id, int64_t seq, op_outcome * outcome,             \
          op_code * code),                                                                         \
         st, (st, scope, device_id, seq, outcome, code))                                           \
    VERB(godwit_status, salts_load,                                                                \
         (store * st, slice scope, const int64_t *seqs, size_t count, decide_salt *out,            \
          size_t *found),                                                                          \
         st, (st, scope, seqs, count, out, found))                                                 \
    VERB(godwit_status, rows_load,                                                                 \
         (store * st, decide_context * c, decide_row *const *rows, size_t count, bool exact), st,  \
         (st, c, rows, count, exact))                                                              \
    VERB(godwit_status, rows_known,                                                                \
         (store * st, decide_context * c, decide_row *const *rows, size_t count), st,              \
         (st, c, rows, count))                                                                     \
    VERB(godwit_status, outbox_any, (store * st, bool *any), st, (st, any))                        \
    VERB(godwit_status, outbox_take,                                                               \
         (store * st, arena * a, size_t max, store_fact * *out, size_t * count), st,               \
         (st, a, max, out, count))                                                                 \
    VERB(godwit_status, outbox_done, (store * st, const store_fact *facts, size_t count), st,      \
         (st, facts, count))                                                                       \
    VERB(godwit_status, outbox_again, (store * st), st, (st))                                      \
    VERB(godwit_status, signal_open, (store * st, store_signal * *out), st, (st, out))             \
    VOID(signal_close, (store_signal * g), g, (g))                                                 \
    VERB(godwit_status, signal_send, (store_signal * g, const slice *scopes, size_t count), g,     \
         (g, scopes, count))                                                                       \
    VERB(godwit_status, signal_heads,                                                              \
         (store_signal * g, const slice *scopes, int64_t *heads, bool *moved, size_t count), g,    \
         (g, scopes, heads, moved, count))                                                         \
    VERB(godwit_status, signal_wait,                                                               \
         (store_signal * g, int wake_fd, int64_t timeout_ms, store_heard_fn heard, void *context), \
         g, (g, wake_fd, timeout_ms, heard, context))                                              \
    VERB(godwit_status, conflict_known,                                                            \
         (store * st, slice scope, slice id, slice table, slice entity_id, bool *known), st,       \
         (st, scope, id, table, entity_id, known))                                                 \
    VERB(godwit_status, commit_load,                                                               \
         (store * st, arena * a, slice scope, int64_t seq, store_commit_row * out), st,            \
         (st, a, scope, seq, out))                                                                 \
    VERB(godwit_status, deleted_load,                                                              \
         (store * st, arena * a, slice scope, int64_t seq, store_key * *out, size_t * count), st,  \
         (st, a, scope, seq, out, count))                                                          \
    VERB(godwit_status, group_save,                                                                \
         (store * st, decide_context * c, const store_author *author, const wire_op *ops,          \
          decide_commit *commit, decide_refusal *refusal),                                         \
         st, (st, c, author, ops, commit, refusal))                                                \
    VERB(godwit_status, rows_settle,                                                               \
         (store * st, const decide_context *c, const wire_op *ops, size_t count,                   \
          decide_refusal *refusal),                                                                \
         st, (st, c, ops, count, refusal))                                                         \
    VERB(godwit_status, flush, (store * st, decide_refusal * refusal), st, (st, refusal))          \
    VERB(godwit_status, devices_save,                                                              \
         (store * st, slice scope, const store_standing *list, size_t count, int64_t now_ms), st,  \
         (st, scope, list, count, now_ms))                                                         \
    VERB(godwit_status, device_seen,                                                               \
         (store * st, slice scope, slice device_id, int64_t pulled_seq, int64_t confirmed_seq,     \
          int64_t now_ms, slice report),                                                           \
         st, (st, scope, device_id, pulled_seq, confirmed_seq, now_ms, report))                    \
    VERB(godwit_status, scope_save,                                                                \
         (store * st, slice scope, const store_scope *state, int64_t head), st,                    \
         (st, scope, state, head))                                                                 \
    VERB(godwit_status, device_insert,                                                             \
         (store * st, slice scope, const decide_device *device, slice label, int64_t now_ms), st,  \
         (st, scope, device, label, now_ms))                                                       \
    VERB(godwit_status, devices,                                                                   \
         (store * st, arena * a, slice scope, store_device_row * *out, size_t * count), st,        \
         (st, a, scope, out, count))                                                               \
    VERB(godwit_status, device_mark,                                                               \
         (store * st, slice scope, slice device_id, device_state state, int64_t * changed), st,    \
         (st, scope, device_id, state, changed))                                                   \
    VERB(godwit_status, idem_find,                                                                 \
         (store * st, arena * a, slice scope, const slice *keys, size_t count, store_idem *out),   \
         st, (st, a, scope, keys, count, out))                                                     \
    VERB(godwit_status, idem_add,                                                                  \
         (store * st, slice scope, slice key, const uint8_t fingerprint[SHA256_BYTES],             \
          int64_t commit_seq, slice response, int64_t now_ms),                                     \
         st, (st, scope, key, fingerprint, commit_seq, response, now_ms))                          \
    VERB(godwit_status, keeping_next,                                                              \
         (store * st, arena * a, slice after, int64_t seen_ms, store_keeping * out, bool *row),    \
         st, (st, a, after, seen_ms, out, row))                                                    \
    VERB(                                                                                          \
        godwit_status, commits_before,                                                             \
        (store * st, slice scope, int64_t from, int64_t count, int64_t before_ms, int64_t * upto), \
        st, (st, scope, from, count, before_ms, upto))                                             \
    VERB(godwit_status, marks_save, (store * st, slice scope, const retain_scope *marks), st,      \
         (st, scope, marks))                                                                       \
    VERB(godwit_status, forget,                                                                    \
         (store * st, slice scope, const store_past *past, int64_t *rows_left), st,                \
         (st, scope, past, rows_left))                                                             \
    VERB(godwit_status, probe, (store * st, bool write), st, (st, write))                          \
    VERB(godwit_status, device_reports,                                                            \
         (store * st, arena * a, slice after_scope, slice after_device, store_device_report * out, \
          size_t max, size_t * count),                                                             \
         st, (st, a, after_scope, after_device, out, max, count))                                  \
    VOID(durable, (store * st, bool durable), st, (st, durable))                                   \
    VOID(tidy, (store * st, int64_t budget_ms), st, (st, budget_ms))                               \
    VERB(godwit_status, reader_open, (store * st, store_reader * *out), st, (st, out))             \
    VOID(reader_close, (store_reader * r), r, (r))                                                 \
    VERB(const char *, reader_message, (const store_reader *r), r, (r))                            \
    VERB(godwit_status, read_begin, (store_reader * r, const store_tables *tables), r,             \
         (r, tables))                                                                              \
    VOID(read_end, (store_reader * r), r, (r))                                                     \
    VERB(godwit_status, read_scope, (store_reader * r, slice scope, store_scope * out), r,         \
         (r, scope, out))                                                                          \
    VERB(godwit_status, read_salt, (store_reader * r, slice scope, int64_t seq, int64_t * salt),   \
         r, (r, scope, seq, salt))                                                                 \
    VERB(godwit_status, read_device,                                                               \
         (store_reader * r, arena * a, slice scope, slice device_id, decide_device * out), r,      \
         (r, a, scope, device_id, out))                                                            \
    VERB(godwit_status, read_grants,                                                               \
         (store_reader * r, arena * a, const char *sql, slice sub, slice claims,                   \
          store_grants *out),                                                                      \
         r, (r, a, sql, sub, claims, out))                                                         \
    VERB(godwit_status, feed_open, (store_reader * r, slice scope, int64_t after_seq), r,          \
         (r, scope, after_seq))                                                                    \
    VERB(godwit_status, feed_commit, (store_reader * r, store_commit_row * out, bool *row), r,     \
         (r, out, row))                                                                            \
    VERB(godwit_status, feed_change,                                                               \
         (store_reader * r, int64_t seq, store_change_row * out, bool *row), r,                    \
         (r, seq, out, row))                                                                       \
    VOID(feed_close, (store_reader * r), r, (r))                                                   \
    VERB(godwit_status, ledger_open,                                                               \
         (store_reader * r, slice scope, slice device_id, int64_t first, int64_t last), r,         \
         (r, scope, device_id, first, last))                                                       \
    VERB(godwit_status, ledger_next, (store_reader * r, store_ledger_row * out, bool *row), r,     \
         (r, out, row))                                                                            \
    VOID(ledger_close, (store_reader * r), r, (r))                                                 \
    VERB(godwit_status, live_open,                                                                 \
         (store_reader * r, slice scope, const schema_table *t, slice after), r,                   \
         (r, scope, t, after))                                                                     \
    VERB(godwit_status, live_next, (store_reader * r, store_live_row * out, bool *row), r,         \
         (r, out, row))                                                                            \
    VOID(live_close, (store_reader * r), r, (r))                                                   \
    VERB(godwit_status, conflicts_open,                                                            \
         (store_reader * r, slice scope, slice state, int64_t before), r,                          \
         (r, scope, state, before))                                                                \
    VERB(godwit_status, conflicts_waiting, (store_reader * r, slice scope, slice after), r,        \
         (r, scope, after))                                                                        \
    VERB(godwit_status, conflicts_next, (store_reader * r, store_conflict_row * out, bool *row),   \
         r, (r, out, row))                                                                         \
    VOID(conflicts_close, (store_reader * r), r, (r))                                              \
    VERB(godwit_status, history,                                                                   \
         (store_reader * r, slice scope, const schema_table *t, slice id, int64_t seq,             \
          store_commit_row *commit, store_change_row *change),                                     \
         r, (r, scope, t, id, seq, commit, change))

typedef struct {
#define MEMBER_VERB(result, name, parameters, from, arguments) result(*name) parameters;
#define MEMBER_VOID(name, parameters, from, arguments)         void(*name) parameters;
    STORE_VERBS(MEMBER_VERB, MEMBER_VOID)
#undef MEMBER_VERB
#undef MEMBER_VOID
} store_verbs;

/* Every store and every reader begins with this. */
typedef struct {
    const store_verbs *verbs;
} store_base;

/* ---- the stores there are ---- */

extern const store_verbs store_sqlite_verbs;
/* Opens the file store.db in `data_dir`. */
godwit_status store_sqlite_open(const char *data_dir, store **out, char *message) MUST_USE;
extern const store_verbs store_postgres_verbs;
/* Connects to postgres://.. and makes schema godwit where there is none. */
godwit_status store_postgres_open(const char *url, store **out, char *message) MUST_USE;

#endif
