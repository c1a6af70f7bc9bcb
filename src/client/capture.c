/* Capture: the text of a tracked table's triggers (semantics 5.2).
 *
 *   godwit_T_i  AFTER INSERT            log NEW
 *   godwit_T_u  AFTER UPDATE, same key  log the columns that differ, new and old
 *   godwit_T_k  AFTER UPDATE, other key log a delete of OLD and a create of NEW
 *   godwit_T_d  AFTER DELETE            log OLD
 *   godwit_T_s  AFTER UPDATE            refuse another value in the scope column
 *   godwit_T_b  BEFORE INSERT, godwit_T_c BEFORE UPDATE   only with further UNIQUE indexes: note
 * the rows a REPLACE would remove; i, u and k log those that are gone (op 5)
 *
 * The bodies use only what every SQLite >= 3.38 has built in, so that any program may write to the
 * table. Differences are exact: COLLATE BINARY, and the storage class where a column may change it.
 */
#include <stdio.h>

#include "client/track.h"

#define CAPTURING "(SELECT capture FROM godwit_state)"
#define MASK_BITS 63

/* ---- Pieces ---- */

static const schema_column *data_column(const client_table *t, size_t i) {
    return &t->shape.columns[t->data_columns[i]];
}

static const schema_column *key_column(const client_table *t, size_t i) {
    return &t->shape.columns[t->shape.key[i]];
}

static void column_ref(bytes *b, const char *row, const schema_column *c) {
    bytes_text(b, row);
    bytes_char(b, '.');
    bytes_identifier(b, c->name);
}

static bool has_word(slice type, const char *word) {
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= type.len; i++) {
        size_t same = 0;
        while (same < len && (type.ptr[i + same] & ~0x20) == word[same]) {
            same++;
        }
        if (same == len) {
            return true;
        }
    }
    return false;
}

/* 1 and 1.0 compare equal, but only a column without affinity can hold either. */
static bool holds_any_class(const schema_column *c) {
    return c->type.len == 0 || has_word(c->type, "BLOB") || has_word(c->type, "ANY");
}

void capture_differs(bytes *b, const schema_column *c, const char *a, const char *z) {
    bytes_char(b, '(');
    column_ref(b, a, c);
    bytes_text(b, " IS NOT ");
    column_ref(b, z, c);
    bytes_text(b, " COLLATE BINARY");
    if (holds_any_class(c)) {
        bytes_text(b, " OR typeof(");
        column_ref(b, a, c);
        bytes_text(b, ") <> typeof(");
        column_ref(b, z, c);
        bytes_char(b, ')');
    }
    bytes_char(b, ')');
}

static void key_differs(bytes *b, const client_table *t, const char *a, const char *z) {
    bytes_char(b, '(');
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? " OR " : "");
        capture_differs(b, key_column(t, i), a, z);
    }
    bytes_char(b, ')');
}

void capture_same_key(bytes *b, const client_table *t, const char *a, const char *z) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? " AND " : "(");
        column_ref(b, a, key_column(t, i));
        bytes_text(b, " = ");
        column_ref(b, z, key_column(t, i));
    }
    bytes_text(b, " AND NOT ");
    key_differs(b, t, a, z);
    bytes_char(b, ')');
}

void capture_key_columns(bytes *b, const client_table *t) {
    bytes_text(b, "pk");
    for (size_t i = 1; i < t->shape.key_count; i++) {
        bytes_printf(b, ", k%zu", i);
    }
}

void capture_key_values(bytes *b, const client_table *t, const char *row) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? ", " : "");
        column_ref(b, row, key_column(t, i));
    }
}

void capture_data_columns(bytes *b, const client_table *t, char letter) {
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(b, "%s%c%zu", i ? ", " : "", letter, i);
    }
}

static void data_values(bytes *b, const client_table *t, const char *row) {
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(b, i ? ", " : "");
        column_ref(b, row, data_column(t, i));
    }
}

static void mask_columns(bytes *b, const client_table *t) {
    bytes_text(b, ", mask");
    for (size_t word = 1; word * MASK_BITS < t->data_count; word++) {
        bytes_printf(b, ", m%zu", word);
    }
}

/* `<<` and `|` bind alike: every term is in parentheses. */
static void mask_values(bytes *b, const client_table *t) {
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(b, i % MASK_BITS ? " | " : ", ");
        if (i % MASK_BITS) {
            bytes_char(b, '(');
        }
        capture_differs(b, data_column(t, i), "OLD", "NEW");
        if (i % MASK_BITS) {
            bytes_printf(b, " << %zu)", i % MASK_BITS);
        }
    }
}

/* The values of `row` in the columns that differ. Sealing needs the scope column's in any case. */
static void changed_values(bytes *b, const client_table *t, const char *row, bool with_scope) {
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(b, ", ");
        if (with_scope && t->data_columns[i] == t->shape.scope_column) {
            column_ref(b, row, data_column(t, i));
            continue;
        }
        bytes_text(b, "CASE WHEN ");
        capture_differs(b, data_column(t, i), "OLD", "NEW");
        bytes_text(b, " THEN ");
        column_ref(b, row, data_column(t, i));
        bytes_text(b, " END");
    }
}

/* INSERT of a whole row: op 1 from NEW, op 3 from OLD. */
static void log_row(bytes *b, const client_table *t, int op, const char *row) {
    bytes_text(b, " INSERT INTO godwit_log(op, tbl, ");
    capture_key_columns(b, t);
    bytes_text(b, ", wall, nonce");
    bytes_text(b, t->data_count ? ", " : "");
    capture_data_columns(b, t, op == 1 ? 'v' : 'o');
    bytes_printf(b, ") VALUES (%d, %lld, ", op, (long long)t->tbl);
    capture_key_values(b, t, row);
    bytes_text(b, ", julianday('now'), random()");
    bytes_text(b, t->data_count ? ", " : "");
    data_values(b, t, row);
    bytes_text(b, ");");
}

static void log_update(bytes *b, const client_table *t) {
    bytes_text(b, " INSERT INTO godwit_log(op, tbl, ");
    capture_key_columns(b, t);
    bytes_text(b, ", wall, nonce");
    mask_columns(b, t);
    bytes_text(b, ", ");
    capture_data_columns(b, t, 'v');
    bytes_text(b, ", ");
    capture_data_columns(b, t, 'o');
    bytes_printf(b, ") VALUES (2, %lld, ", (long long)t->tbl);
    capture_key_values(b, t, "NEW");
    bytes_text(b, ", julianday('now'), random()");
    mask_values(b, t);
    changed_values(b, t, "NEW", true);
    changed_values(b, t, "OLD", false);
    bytes_text(b, ");");
}

/* ---- Rows removed by REPLACE ---- */

typedef struct {
    const client_table *t;
    const shape_unique *uniques;
    size_t unique_count;
    bool rowid_key;
    arena *a;
    slice *out; /* next text */
    bytes b;
} writer;

static void unique_columns(bytes *b, const shape_unique *u, const char *between, const char *a,
                           const char *compare, const char *z) {
    for (size_t i = 0; i < u->count; i++) {
        bytes_text(b, i ? between : "");
        bytes_text(b, a);
        bytes_identifier(b, u->columns[i]);
        bytes_text(b, compare);
        bytes_text(b, z);
        bytes_identifier(b, u->columns[i]);
        bytes_text(b, " COLLATE ");
        bytes_identifier(b, u->collations[i]);
    }
}

/* Every row, other than the one written, that holds a value the new row needs for itself. */
static void note_rows(bytes *b, const client_table *t, const shape_unique *uniques, size_t count,
                      bool update) {
    bytes_printf(b, " DELETE FROM godwit_note WHERE tbl = %lld AND owner IS ", (long long)t->tbl);
    column_ref(b, "NEW", key_column(t, 0));
    bytes_text(b, "; INSERT INTO godwit_note(tbl, owner, lsn, ");
    capture_key_columns(b, t);
    bytes_text(b, t->data_count ? ", " : "");
    capture_data_columns(b, t, 'o');
    bytes_printf(b, ") SELECT %lld, ", (long long)t->tbl);
    column_ref(b, "NEW", key_column(t, 0));
    bytes_text(b, ", coalesce((SELECT max(lsn) FROM godwit_log), 0), ");
    capture_key_values(b, t, "r");
    bytes_text(b, t->data_count ? ", " : "");
    data_values(b, t, "r");
    bytes_text(b, " FROM ");
    bytes_identifier(b, t->shape.name);
    bytes_text(b, " AS r WHERE (");
    for (size_t i = 0; i < count; i++) {
        bytes_text(b, i ? " OR (" : "(");
        unique_columns(b, &uniques[i], " AND ", "r.", " = ", "NEW.");
        if (uniques[i].where.len) {
            bytes_text(b, " AND (");
            bytes_slice(b, uniques[i].where);
            bytes_text(b, "\n)");
        }
        bytes_char(b, ')');
    }
    bytes_text(b, ") AND ");
    key_differs(b, t, "r", "NEW");
    if (update) {
        bytes_text(b, " AND ");
        key_differs(b, t, "r", "OLD");
    }
    bytes_char(b, ';');
}

/* Whether an UPDATE may run into another row: the condition of the trigger that notes. */
static void uniques_differ(bytes *b, const shape_unique *uniques, size_t count) {
    bytes_char(b, '(');
    for (size_t i = 0; i < count; i++) {
        bytes_text(b, i ? " OR " : "");
        unique_columns(b, &uniques[i], " OR ", "OLD.", " IS NOT ", "NEW.");
        /* another column may bring the row under a partial index */
        bytes_text(b, uniques[i].where.len ? " OR 1" : "");
    }
    bytes_char(b, ')');
}

/* Logs the noted rows that are gone and that no DELETE trigger has logged (recursive_triggers may
 * be on). A statement that was ignored leaves its notes behind: an UPDATE looks only where its own
 * BEFORE trigger has cleared them. In a BEFORE trigger a key that SQLite is still to choose reads
 * -1. */
static void log_replaced(writer *w, bool update) {
    bytes *b = &w->b;
    const client_table *t = w->t;
    bytes owner;
    bytes_init(&owner, b->allocator, 0);
    bytes_printf(&owner, "tbl = %lld AND (owner IS ", (long long)t->tbl);
    column_ref(&owner, "NEW", key_column(t, 0));
    bytes_text(&owner, w->rowid_key ? " OR owner = -1)" : ")");
    if (update) {
        bytes_text(&owner, " AND ");
        uniques_differ(&owner, w->uniques, w->unique_count);
    }

    bytes_text(b, " INSERT INTO godwit_log(op, tbl, ");
    capture_key_columns(b, t);
    bytes_text(b, ", wall, nonce");
    bytes_text(b, t->data_count ? ", " : "");
    capture_data_columns(b, t, 'o');
    bytes_text(b, ") SELECT 5, n.tbl, n.pk");
    for (size_t i = 1; i < t->shape.key_count; i++) {
        bytes_printf(b, ", n.k%zu", i);
    }
    bytes_text(b, ", julianday('now'), random()");
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_printf(b, ", n.o%zu", i);
    }
    bytes_text(b, " FROM godwit_note AS n WHERE ");
    bytes_slice(b, bytes_view(&owner));
    bytes_text(b, " AND NOT EXISTS (SELECT 1 FROM ");
    bytes_identifier(b, t->shape.name);
    bytes_text(b, " AS r WHERE ");
    for (size_t i = 0; i < t->shape.key_count; i++) {
        char column[24] = "pk";
        if (i) {
            snprintf(column, sizeof column, "k%zu", i);
        }
        bytes_text(b, i ? " AND " : "");
        column_ref(b, "r", key_column(t, i));
        bytes_printf(b, " = n.%s AND ", column);
        column_ref(b, "r", key_column(t, i));
        bytes_printf(b, " IS n.%s COLLATE BINARY", column);
    }
    bytes_printf(b,
                 ") AND NOT EXISTS (SELECT 1 FROM godwit_log AS l WHERE l.lsn > n.lsn AND l.tbl ="
                 " %lld AND l.op = 3 AND l.pk IS n.pk COLLATE BINARY",
                 (long long)t->tbl);
    for (size_t i = 1; i < t->shape.key_count; i++) {
        bytes_printf(b, " AND l.k%zu IS n.k%zu COLLATE BINARY", i, i);
    }
    bytes_text(b, "); DELETE FROM godwit_note WHERE ");
    bytes_slice(b, bytes_view(&owner));
    bytes_char(b, ';');
    b->failed = b->failed || owner.failed;
    bytes_deinit(&owner);
}

/* ---- Whole triggers ---- */

static void trigger_name(bytes *b, slice table, char letter) {
    bytes name;
    bytes_init(&name, b->allocator, 0);
    bytes_text(&name, "godwit_");
    bytes_slice(&name, table);
    bytes_char(&name, '_');
    bytes_char(&name, letter);
    bytes_identifier(b, bytes_view(&name));
    b->failed = b->failed || name.failed;
    bytes_deinit(&name);
}

/* OF: what SQLite can tell when it compiles a statement costs nothing when it runs. */
typedef enum { OF_ALL, OF_KEY, OF_SCOPE } of_columns;

static void update_of(writer *w, of_columns of) {
    if (of == OF_SCOPE) {
        bytes_text(&w->b, " OF ");
        bytes_identifier(&w->b, w->t->shape.columns[w->t->shape.scope_column].name);
    }
    for (size_t i = 0; of == OF_KEY && i < w->t->shape.key_count; i++) {
        bytes_text(&w->b, i ? ", " : " OF ");
        bytes_identifier(&w->b, key_column(w->t, i)->name);
    }
}

static bytes *begin_trigger(writer *w, char letter, const char *event, of_columns of) {
    bytes_clear(&w->b);
    bytes_text(&w->b, "CREATE TRIGGER ");
    trigger_name(&w->b, w->t->shape.name, letter);
    bytes_printf(&w->b, " %s", event);
    update_of(w, of);
    bytes_text(&w->b, " ON ");
    bytes_identifier(&w->b, w->t->shape.name);
    bytes_text(&w->b, " WHEN ");
    return &w->b;
}

static void end_trigger(writer *w, const char *end) {
    bytes_text(&w->b, end);
    *w->out = w->b.failed ? (slice){0} : arena_copy(w->a, bytes_view(&w->b));
    w->a->failed = w->a->failed || w->b.failed;
    w->out++;
}

static const char hook[] = " DELETE FROM godwit_hook WHERE 0; END";

static void any_differs(bytes *b, const client_table *t) {
    bytes_char(b, '(');
    for (size_t i = 0; i < t->data_count; i++) {
        bytes_text(b, i ? " OR " : "");
        capture_differs(b, data_column(t, i), "OLD", "NEW");
    }
    bytes_char(b, ')');
}

static void write_before(writer *w) {
    bytes *b = begin_trigger(w, 'b', "BEFORE INSERT", OF_ALL);
    bytes_text(b, CAPTURING " BEGIN");
    note_rows(b, w->t, w->uniques, w->unique_count, false);
    end_trigger(w, " END");

    b = begin_trigger(w, 'c', "BEFORE UPDATE", OF_ALL);
    uniques_differ(b, w->uniques, w->unique_count);
    bytes_text(b, " AND " CAPTURING " BEGIN");
    note_rows(b, w->t, w->uniques, w->unique_count, true);
    end_trigger(w, " END");
}

static void write_scope_guard(writer *w) {
    const schema_column *c = &w->t->shape.columns[w->t->shape.scope_column];
    bytes *b = begin_trigger(w, 's', "AFTER UPDATE", OF_SCOPE);
    capture_differs(b, c, "OLD", "NEW");
    bytes_text(b, " AND " CAPTURING
                  " BEGIN SELECT RAISE(ABORT, 'the scope column of a tracked row can''t be changed:"
                  " delete the row and insert it again');");
    end_trigger(w, " END");
}

static void write_triggers(writer *w) {
    const client_table *t = w->t;
    bytes *b = NULL;
    bool replaces = w->unique_count > 0;
    if (replaces) {
        write_before(w);
    }
    if (t->shape.scope_column >= 0 && !t->shape.columns[t->shape.scope_column].is_key) {
        write_scope_guard(w);
    }
    /* SET rowid = .. changes a key that is the rowid without naming it */
    b = begin_trigger(w, 'k', "AFTER UPDATE", w->rowid_key ? OF_ALL : OF_KEY);
    key_differs(b, t, "OLD", "NEW");
    bytes_text(b, " AND " CAPTURING " BEGIN");
    if (replaces) {
        log_replaced(w, true);
    }
    log_row(b, t, 3, "OLD");
    log_row(b, t, 1, "NEW");
    end_trigger(w, hook);

    if (t->data_count) {
        b = begin_trigger(w, 'u', "AFTER UPDATE", OF_ALL);
        bytes_text(b, "NOT ");
        key_differs(b, t, "OLD", "NEW");
        bytes_text(b, " AND ");
        any_differs(b, t);
        bytes_text(b, " AND " CAPTURING " BEGIN");
        if (replaces) {
            log_replaced(w, true);
        }
        log_update(b, t);
        end_trigger(w, hook);
    }
    b = begin_trigger(w, 'd', "AFTER DELETE", OF_ALL);
    bytes_text(b, CAPTURING " BEGIN");
    log_row(b, t, 3, "OLD");
    end_trigger(w, hook);

    b = begin_trigger(w, 'i', "AFTER INSERT", OF_ALL);
    bytes_text(b, CAPTURING " BEGIN");
    if (replaces) {
        log_replaced(w, false);
    }
    log_row(b, t, 1, "NEW");
    end_trigger(w, hook);
}

godwit_status capture_texts(godwit *g, arena *a, const client_table *t,
                            slice out[CAPTURE_TRIGGERS + 1]) {
    writer w = {.t = t, .a = a, .out = out};
    shape_unique *uniques = NULL;
    memset(out, 0, (CAPTURE_TRIGGERS + 1) * sizeof *out);
    godwit_status status = shape_uniques(g, a, t, &uniques, &w.unique_count);
    if (status == GODWIT_OK) {
        status = shape_rowid_key(g, t, &w.rowid_key);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    w.uniques = uniques;
    bytes_init(&w.b, g->allocator, 0);
    write_triggers(&w);
    bytes_deinit(&w.b);
    ASSERT(w.out <= out + CAPTURE_TRIGGERS);
    return a->failed ? GODWIT_NOMEM : GODWIT_OK;
}

/* ---- In the database ---- */

godwit_status capture_intact(godwit *g, const client_table *t, bool *intact) {
    slice texts[CAPTURE_TRIGGERS + 1];
    arena a;
    *intact = false;
    arena_init(&a, g->allocator, 0);
    godwit_status status = capture_texts(g, &a, t, texts);
    int64_t found = 0;
    size_t count = 0;
    for (; status == GODWIT_OK && texts[count].len; count++) {
        int64_t same = 0;
        status = db_int(&g->db, &same,
                        "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND sql ="
                        " ?1 AND tbl_name = ?2 COLLATE NOCASE",
                        "ss", texts[count], t->shape.name);
        found += same;
    }
    int64_t late = 0; /* triggers of the application that would run before ours */
    if (status == GODWIT_OK) {
        status =
            db_int(&g->db, &late,
                   "SELECT count(*) FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name"
                   " = ?1 COLLATE NOCASE AND name NOT GLOB 'godwit_*' AND rowid > (SELECT"
                   " min(rowid) FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1"
                   " COLLATE NOCASE AND name GLOB 'godwit_*')",
                   "s", t->shape.name);
    }
    *intact = status == GODWIT_OK && found == (int64_t)count && late == 0;
    arena_deinit(&a);
    return status;
}

godwit_status capture_triggers_create(godwit *g, const client_table *t) {
    slice texts[CAPTURE_TRIGGERS + 1];
    arena a;
    arena_init(&a, g->allocator, 0);
    godwit_status status = capture_texts(g, &a, t, texts);
    for (size_t i = 0; status == GODWIT_OK && texts[i].len; i++) {
        status = db_exec(&g->db, texts[i].ptr);
    }
    arena_deinit(&a);
    return status;
}

godwit_status capture_triggers_drop(godwit *g, slice table_name) {
    static const char letters[] = "iukdsbc";
    godwit_status status = GODWIT_OK;
    bytes b;
    bytes_init(&b, g->allocator, 0);
    for (size_t i = 0; letters[i]; i++) {
        bytes_text(&b, "DROP TRIGGER IF EXISTS main.");
        trigger_name(&b, table_name, letters[i]);
        bytes_char(&b, ';');
    }
    status = b.failed ? GODWIT_NOMEM : db_exec(&g->db, b.ptr);
    bytes_deinit(&b);
    return status;
}

/* ---- Room in the log ---- */

static godwit_status add_columns(godwit *g, const char *table, char letter, size_t first,
                                 size_t end) {
    int64_t have = 0;
    char pattern[8];
    char sql[96];
    snprintf(pattern, sizeof pattern, "%c[0-9]*", letter);
    godwit_status status = db_int(&g->db, &have,
                                  "SELECT count(*) FROM pragma_table_info(?1, 'main') WHERE name"
                                  " GLOB ?2",
                                  "ss", slice_of(table), slice_of(pattern));
    for (size_t i = first + (size_t)have; i < end && status == GODWIT_OK; i++) {
        snprintf(sql, sizeof sql, "ALTER TABLE main.%s ADD COLUMN %c%zu", table, letter, i);
        status = db_exec(&g->db, sql);
    }
    return status;
}

godwit_status capture_widen(godwit *g, const client_table *t) {
    size_t words = (t->data_count + MASK_BITS - 1) / MASK_BITS;
    godwit_status status = add_columns(g, "godwit_log", 'v', 0, t->data_count);
    if (status == GODWIT_OK) {
        status = add_columns(g, "godwit_log", 'o', 0, t->data_count);
    }
    if (status == GODWIT_OK) {
        status = add_columns(g, "godwit_log", 'm', 1, words);
    }
    if (status == GODWIT_OK) {
        status = add_columns(g, "godwit_log", 'k', 1, t->shape.key_count);
    }
    if (status == GODWIT_OK) {
        status = add_columns(g, "godwit_note", 'o', 0, t->data_count);
    }
    if (status == GODWIT_OK) {
        status = add_columns(g, "godwit_note", 'k', 1, t->shape.key_count);
    }
    return status == GODWIT_OK ? client_views_install(g) : status;
}
