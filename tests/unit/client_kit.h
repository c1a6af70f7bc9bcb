/* What tests of capturing share: a database in a temporary folder or in memory, short helpers for
 * SQL, and a replay of the log over a copy of a table. */
#ifndef TESTS_CLIENT_KIT_H
#define TESTS_CLIENT_KIT_H

#include <unistd.h>

#include "../folder.h"
#include "unit.h"

#include "client/client.h"

typedef struct {
    char folder[256];
    char path[300];
    godwit *g;
    sqlite3 *db;
    char text[65536]; /* the last answer of app_text */
} app;

static inline void app_open(app *a) {
    const godwit_options options = {.accept_weak_durability = 1};
    godwit_status status = godwit_open(a->path, &options, &a->g);
    if (status != GODWIT_OK) {
        fail_msg("opening %s: %s", a->path, godwit_status_name(status));
    }
    a->db = godwit_connection(a->g);
}

/* in_file false: a database in memory, which is as good where nobody else opens it. */
static inline void app_init(app *a, bool in_file) {
    memset(a, 0, sizeof *a);
    snprintf(a->path, sizeof a->path, ":memory:");
    if (in_file) {
        assert_true(folder_make(a->folder, sizeof a->folder));
        snprintf(a->path, sizeof a->path, "%s/app.db", a->folder);
    }
    app_open(a);
}

static inline void app_deinit(app *a) {
    static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
    godwit_close(a->g);
    for (size_t i = 0; a->folder[0] && i < COUNT_OF(endings); i++) {
        char file[320];
        snprintf(file, sizeof file, "%s%s", a->path, endings[i]);
        (void)unlink(file);
    }
    if (a->folder[0]) {
        assert_int_equal(rmdir(a->folder), 0);
    }
}

static inline int sql_try(sqlite3 *handle, const char *sql) {
    return sqlite3_exec(handle, sql, NULL, NULL, NULL);
}

static inline void sql_run(sqlite3 *handle, const char *sql) {
    if (sql_try(handle, sql) != SQLITE_OK) {
        fail_msg("%s\n  %s", sql, sqlite3_errmsg(handle));
    }
}

static inline int64_t sql_int(sqlite3 *handle, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fail_msg("%s\n  %s", sql, sqlite3_errmsg(handle));
    }
    int64_t v = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : -1;
    sqlite3_finalize(stmt);
    return v;
}

/* All rows: columns by '|', rows by ' ', values as SQL literals would be too long to read. */
static inline const char *app_text(app *a, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    size_t used = 0;
    a->text[0] = '\0';
    if (sqlite3_prepare_v2(a->db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fail_msg("%s\n  %s", sql, sqlite3_errmsg(a->db));
    }
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            const char *v = (const char *)sqlite3_column_text(stmt, i);
            int n = snprintf(a->text + used, sizeof a->text - used, "%s%s",
                             i      ? "|"
                             : used ? " "
                                    : "",
                             v ? v : "-");
            used += n > 0 && used + (size_t)n < sizeof a->text ? (size_t)n : 0;
        }
    }
    sqlite3_finalize(stmt);
    return a->text;
}

#define APP_OK(a, call)                                                                            \
    do {                                                                                           \
        godwit_status app_status = (call);                                                         \
        if (app_status != GODWIT_OK) {                                                             \
            fail_msg("%s: %s: %s", #call, godwit_status_name(app_status), godwit_message((a)->g)); \
        }                                                                                          \
    } while (0)

/* A fingerprint of a table's synced columns that tells storage classes apart. */
static inline const char *app_content(app *a, const char *from, const client_table *t) {
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_text(&b, "SELECT ");
    for (size_t i = 0; i < t->shape.column_count; i++) {
        bytes_text(&b, i ? ", " : "");
        bytes_text(&b, "typeof(");
        bytes_identifier(&b, t->shape.columns[i].name);
        bytes_text(&b, ") || quote(");
        bytes_identifier(&b, t->shape.columns[i].name);
        bytes_char(&b, ')');
    }
    bytes_printf(&b, " FROM %s ORDER BY ", from);
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(&b, i ? ", " : "");
        bytes_identifier(&b, t->shape.columns[t->shape.key[i]].name);
        bytes_text(&b, " COLLATE BINARY");
    }
    const char *text = app_text(a, b.ptr);
    bytes_deinit(&b);
    return text;
}

/* Makes copy_N, without constraints, with the rows the table has now. */
static inline void app_copy(app *a, const client_table *t) {
    bytes b;
    bytes_init(&b, NULL, 0);
    bytes_printf(&b, "DROP TABLE IF EXISTS copy_%lld; CREATE TABLE copy_%lld(", (long long)t->tbl,
                 (long long)t->tbl);
    for (size_t i = 0; i < t->shape.column_count; i++) {
        bytes_text(&b, i ? ", " : "");
        bytes_identifier(&b, t->shape.columns[i].name);
    }
    bytes_printf(&b, "); INSERT INTO copy_%lld SELECT ", (long long)t->tbl);
    for (size_t i = 0; i < t->shape.column_count; i++) {
        bytes_text(&b, i ? ", " : "");
        bytes_identifier(&b, t->shape.columns[i].name);
    }
    bytes_text(&b, " FROM ");
    bytes_identifier(&b, t->shape.name);
    sql_run(a->db, b.ptr);
    bytes_deinit(&b);
}

static inline void replay_key(bytes *b, const client_table *t) {
    bytes_text(b, " WHERE ");
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? " AND " : "");
        bytes_identifier(b, t->shape.columns[t->shape.key[i]].name);
        bytes_text(b, " IS ");
        bytes_printf(b, i ? "l.k%zu" : "l.pk", i);
    }
}

/* One log row over the copy: the log is the statement's FROM, so that values pass untouched. */
static inline void replay_row(app *a, const client_table *t, int64_t lsn, int op) {
    bytes b;
    bytes_init(&b, NULL, 0);
    if (op == 2) {
        bytes_printf(&b, "UPDATE copy_%lld SET ", (long long)t->tbl);
        for (size_t i = 0; i < t->data_count; i++) {
            const char *word = i < 63 ? "mask" : i < 126 ? "m1" : i < 189 ? "m2" : "m3";
            bytes_text(&b, i ? ", " : "");
            bytes_identifier(&b, t->shape.columns[t->data_columns[i]].name);
            bytes_printf(&b, " = CASE WHEN l.%s >> %zu & 1 THEN l.v%zu ELSE ", word, i % 63, i);
            bytes_identifier(&b, t->shape.columns[t->data_columns[i]].name);
            bytes_text(&b, " END");
        }
        bytes_printf(&b, " FROM (SELECT * FROM godwit_log WHERE lsn = %lld) AS l", (long long)lsn);
        replay_key(&b, t);
    } else {
        bytes_printf(&b, "DELETE FROM copy_%lld WHERE EXISTS (SELECT 1 FROM godwit_log AS l",
                     (long long)t->tbl);
        replay_key(&b, t);
        bytes_printf(&b, " AND l.lsn = %lld)", (long long)lsn);
    }
    if (op == 1) {
        bytes_printf(&b, "; INSERT INTO copy_%lld(", (long long)t->tbl);
        for (size_t i = 0; i < t->shape.key_count + t->data_count; i++) {
            size_t keys = t->shape.key_count;
            bytes_text(&b, i ? ", " : "");
            bytes_identifier(
                &b, t->shape.columns[i < keys ? t->shape.key[i] : t->data_columns[i - keys]].name);
        }
        bytes_text(&b, ") SELECT pk");
        for (size_t i = 1; i < t->shape.key_count; i++) {
            bytes_printf(&b, ", k%zu", i);
        }
        for (size_t i = 0; i < t->data_count; i++) {
            bytes_printf(&b, ", v%zu", i);
        }
        bytes_printf(&b, " FROM godwit_log WHERE lsn = %lld", (long long)lsn);
    }
    sql_run(a->db, b.ptr);
    if (sqlite3_changes(a->db) != 1) {
        fail_msg("change %lld is of a row that is not there", (long long)lsn);
    }
    bytes_deinit(&b);
}

/* Everything captured after `after`, of all tables. Returns the newest lsn. */
static inline int64_t app_replay(app *a, int64_t after) {
    sqlite3_stmt *stmt = NULL;
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT lsn, op, tbl FROM godwit_log WHERE lsn > %lld ORDER BY lsn",
             (long long)after);
    assert_int_equal(sqlite3_prepare_v2(a->db, sql, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        after = sqlite3_column_int64(stmt, 0);
        const client_table *t = client_table_by_number(a->g, sqlite3_column_int64(stmt, 2));
        assert_non_null(t);
        replay_row(a, t, after, sqlite3_column_int(stmt, 1));
    }
    sqlite3_finalize(stmt);
    return after;
}

/* The copies must equal the tables. */
static inline void app_compare(app *a, const char *about) {
    for (size_t i = 0; i < a->g->registry.count; i++) {
        const client_table *t = &a->g->registry.tables[i];
        char name[32];
        bytes quoted;
        if (t->queue || !t->active) {
            continue;
        }
        bytes_init(&quoted, NULL, 0);
        bytes_identifier(&quoted, t->shape.name);
        char *want = strdup(app_content(a, quoted.ptr, t));
        snprintf(name, sizeof name, "copy_%lld", (long long)t->tbl);
        const char *got = app_content(a, name, t);
        if (strcmp(want, got) != 0) {
            fail_msg("%s: table %s\n  has    %s\n  replay %s", about, quoted.ptr, want, got);
        }
        free(want);
        bytes_deinit(&quoted);
    }
}

#endif
