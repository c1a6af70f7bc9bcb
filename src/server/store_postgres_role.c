/* Rows seen and written as the token's database role, so that the policies of the database decide
 * (row level security; decision 039).
 *
 * Godwit's own tables and the search for what stands in the way are the service's; statements on
 * tracked rows run between pg_role_enter and pg_role_leave, in the transaction that the service
 * began: role and claims are local to it, and a savepoint that is undone takes them back.
 *
 * A row that is gone has no policy to ask. Its last image is put in the row's place, and the
 * conditions of the table's policies for SELECT are evaluated over it, as the role. */
#include <stdio.h>
#include <stdlib.h>

#include "server/store_postgres.h"

/* ---- the role ---- */

godwit_status pg_role_enter(pg_link *l, const store_role *role) {
    if (role->name.len == 0) {
        return GODWIT_OK;
    }
    pg_text(l, role->claims.len ? role->claims : SLICE("{}"));
    pg_text(l, role->name);
    godwit_status status = pg_send(l, "SELECT set_config('request.jwt.claims', $1, true),"
                                      " set_config('role', $2, true)");
    l->as_role = status == GODWIT_OK;
    return status;
}

godwit_status pg_role_leave(pg_link *l) {
    if (!l->as_role) {
        return GODWIT_OK;
    }
    l->as_role = false;
    return pg_send(l, "SELECT set_config('role', 'none', true),"
                      " set_config('request.jwt.claims', '', true)");
}

/* What keeps a role, or the service, from this way of working; the first that is found. */
#define CHECK_SQL                                                                                  \
    "SELECT why FROM ("                                                                            \
    " SELECT 0, n, 'there is no role ' || quote_ident(n) FROM unnest($1::text[]) n"                \
    "  WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = n)"                                \
    " UNION ALL SELECT 1, rolname, 'policies do not hold for role ' || quote_ident(rolname)"       \
    "  FROM pg_roles WHERE rolname = ANY ($1) AND (rolsuper OR rolbypassrls)"                      \
    " UNION ALL SELECT 2, rolname, 'the server may not take role ' || quote_ident(rolname) ||"     \
    "  ': GRANT it to the server''s own' FROM pg_roles WHERE rolname = ANY ($1)"                   \
    "  AND NOT pg_has_role(session_user, oid, 'MEMBER')"                                           \
    " UNION ALL SELECT 3, t.name, 'policies of ' || t.name || ' hold for the server''s own role:"  \
    " make it the owner of the table or give it BYPASSRLS' FROM godwit.tracked t WHERE"            \
    "  row_security_active(format('%I.%I', t.schema_name, t.name)::regclass)"                      \
    " UNION ALL SELECT 4, t.name, 'role ' || quote_ident(r.rolname) || ' may not SELECT from ' ||" \
    "  t.name FROM godwit.tracked t, pg_roles r WHERE r.rolname = ANY ($1) AND NOT"                \
    "  (has_schema_privilege(r.oid, quote_ident(t.schema_name), 'USAGE') AND"                      \
    "   has_table_privilege(r.oid, format('%I.%I', t.schema_name, t.name)::regclass, 'SELECT'))"   \
    " UNION ALL SELECT 5, t.name, 'role ' || quote_ident(r.rolname) || ' owns ' || t.name ||"      \
    "  ', so that its policies do not hold' FROM godwit.tracked t JOIN pg_class c ON"              \
    "  c.oid = format('%I.%I', t.schema_name, t.name)::regclass AND NOT c.relforcerowsecurity,"    \
    "  pg_roles r WHERE r.rolname = ANY ($1) AND pg_has_role(r.oid, c.relowner, 'USAGE')"          \
    ") AS found(rank, name, why) ORDER BY rank, name LIMIT 1"

godwit_status pg_roles_check(store *st, const slice *roles, size_t count, char *message) {
    pg_link *l = &st->link;
    PGresult *r = NULL;
    godwit_status status = pg_link_up(l);
    pg_array(l, PG_OID_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        pg_item(l, roles[i]);
    }
    if (status == GODWIT_OK) {
        status = pg_query(l, CHECK_SQL, &r);
    }
    pg_give_up(l);
    if (status != GODWIT_OK) {
        snprintf(message, 512, "rls_roles can't be checked: %.400s", l->message);
    } else if (PQntuples(r)) {
        snprintf(message, 512, "rls_roles: %.400s", PQgetvalue(r, 0, 0));
        status = GODWIT_INVALID;
    }
    return status;
}

/* ---- looking ---- */

/* The rows of one table among those looked at. */
typedef struct {
    const pg_table *info;
    pg_sight **rows;
    size_t count;
    size_t live, dead, seen; /* numbers of statements */
    size_t images;           /* rows with an image */
    slice condition;         /* of its policies; empty = nothing is visible */
    const json *telling;
} part;

typedef struct {
    pg_link *l;
    arena *a;
    const store_role *role;
    slice scope;
    part *parts;
    size_t part_count;
    bytes sql;
} look;

static int by_table(const void *x, const void *y) {
    const pg_sight *a = *(pg_sight *const *)x;
    const pg_sight *b = *(pg_sight *const *)y;
    return (a->info > b->info) - (a->info < b->info);
}

static godwit_status make_parts(look *k, pg_sight *sights, size_t count) {
    pg_sight **sorted = ARENA_ARRAY(k->a, pg_sight *, count);
    k->parts = ARENA_ARRAY(k->a, part, count);
    size_t used = 0;
    if (!sorted || !k->parts) {
        return GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        if (sights[i].info) {
            sorted[used++] = &sights[i];
        }
    }
    qsort(sorted, used, sizeof *sorted, by_table);
    for (size_t i = 0; i < used; i++) {
        if (i == 0 || sorted[i]->info != sorted[i - 1]->info) {
            k->parts[k->part_count++] = (part){.info = sorted[i]->info, .rows = &sorted[i]};
        }
        k->parts[k->part_count - 1].count++;
    }
    return GODWIT_OK;
}

static godwit_status send_keys(look *k, const part *p, const char *sql) {
    slice *ids = ARENA_ARRAY(k->a, slice, p->count);
    for (size_t i = 0; ids && i < p->count; i++) {
        ids[i] = p->rows[i]->id;
    }
    godwit_status status = ids ? pg_key_arrays(k->l, k->a, p->info, ids, p->count) : GODWIT_NOMEM;
    return status == GODWIT_OK ? pg_send(k->l, sql) : status;
}

/* As the service: which rows are there, and the images of those that were deleted. */
static godwit_status ask_what_is(look *k, part *p) {
    bytes_clear(&k->sql);
    bytes_printf(&k->sql, "SELECT k.n FROM %s JOIN " SLICE_FMT " t ON %s", p->info->key_list,
                 SLICE_ARG(p->info->sql_name), p->info->key_join);
    p->live = k->l->sent;
    godwit_status status = k->sql.failed ? GODWIT_NOMEM : send_keys(k, p, k->sql.ptr);
    if (status != GODWIT_OK) {
        return status;
    }
    p->dead = k->l->sent;
    pg_text(k->l, k->scope);
    pg_text(k->l, p->info->table->name);
    pg_array(k->l, PG_OID_TEXT, p->count);
    for (size_t i = 0; i < p->count; i++) {
        pg_item(k->l, p->rows[i]->id.ptr ? p->rows[i]->id : SLICE(""));
    }
    return pg_send(k->l, "SELECT k.n, r.last_image FROM unnest($3::text[]) WITH ORDINALITY k(pk, n)"
                         " JOIN godwit.row r ON r.scope = $1 AND r.tbl = $2 AND r.pk = k.pk"
                         " WHERE r.del_ver IS NOT NULL");
}

static godwit_status ask_rows(look *k) {
    godwit_status status = GODWIT_OK;
    for (size_t i = 0; status == GODWIT_OK && i < k->part_count; i++) {
        status = ask_what_is(k, &k->parts[i]);
    }
    if (status == GODWIT_OK) {
        status = pg_role_enter(k->l, k->role);
    }
    for (size_t i = 0; status == GODWIT_OK && i < k->part_count; i++) {
        k->parts[i].seen = k->l->sent;
        status = send_keys(k, &k->parts[i], k->parts[i].info->load_sql);
    }
    if (status == GODWIT_OK) {
        status = pg_role_leave(k->l);
    }
    return status == GODWIT_OK ? pg_sync(k->l) : status;
}

static godwit_status take_columns(look *k, const part *p, const PGresult *r, int row,
                                  pg_sight *out) {
    const schema_table *t = p->info->table;
    value *values = ARENA_ARRAY(k->a, value, t->column_count);
    godwit_status status = values ? GODWIT_OK : GODWIT_NOMEM;
    for (size_t i = 0; status == GODWIT_OK && i < t->column_count; i++) {
        status = pg_value_read(&p->info->columns[i], r, row, (int)i + 1, k->a, &values[i]);
    }
    if (status == GODWIT_OK) {
        bytes_clear(&k->sql);
        store_row_json(t, values, &k->sql);
        out->columns = arena_copy(k->a, bytes_view(&k->sql));
        status = k->sql.failed || !out->columns.ptr ? GODWIT_NOMEM : GODWIT_OK;
    }
    return status;
}

static godwit_status take_rows(look *k, part *p) {
    const PGresult *r = pg_result(k->l, p->live);
    godwit_status status = GODWIT_OK;
    for (int i = 0; i < PQntuples(r); i++) {
        p->rows[pg_field_int(r, i, 0) - 1]->live = true;
    }
    r = pg_result(k->l, p->dead);
    for (int i = 0; i < PQntuples(r); i++) {
        pg_sight *s = p->rows[pg_field_int(r, i, 0) - 1];
        s->dead = true;
        s->image = s->live ? (slice){0} : pg_field_copy(k->a, r, i, 1);
        p->images += s->image.len > 0;
    }
    r = pg_result(k->l, p->seen);
    for (int i = 0; status == GODWIT_OK && i < PQntuples(r); i++) {
        pg_sight *s = p->rows[pg_field_int(r, i, 0) - 1];
        s->visible = true;
        status = take_columns(k, p, r, i, s);
    }
    return k->a->failed ? GODWIT_NOMEM : status;
}

/* ---- policies ---- */

/* The conditions of one kind that hold for the role. */
#define CONDITIONS(which, between)                                                                 \
    "(SELECT string_agg('(' || pg_get_expr(p.polqual, p.polrelid) || ')', '" between "')"          \
    " FROM pg_policy p WHERE p.polrelid = c.oid AND " which " p.polpermissive"                     \
    " AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL AND (0 = ANY (p.polroles) OR EXISTS"    \
    " (SELECT 1 FROM unnest(p.polroles) r(oid) WHERE r.oid <> 0"                                   \
    "  AND pg_has_role($2::name, r.oid, 'USAGE'))))"
#define POLICIES_SQL                                                                               \
    "SELECT c.relrowsecurity, " CONDITIONS("", " OR ") ", " CONDITIONS(                            \
        "NOT", " AND ") ","                                                                        \
                        " (SELECT json_agg(DISTINCT a.attname) FROM pg_policy p JOIN pg_depend d"  \
                        "   ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND "         \
                        "d.refobjsubid > 0"                                                        \
                        "   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid"        \
                        "  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid" \
                        "  WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*'))"                   \
                        " FROM pg_class c WHERE c.oid = $1::regclass"

static bool wants_policies(const part *p) {
    bool hidden = false;
    for (size_t i = 0; i < p->count; i++) {
        hidden = hidden || (p->rows[i]->live && !p->rows[i]->visible);
    }
    return hidden || p->images > 0;
}

static godwit_status take_policies(look *k, part *p, const PGresult *r) {
    slice any = pg_field(r, 0, 1);
    slice all = pg_field(r, 0, 2);
    slice columns = pg_field_copy(k->a, r, 0, 3);
    if (!slice_is(pg_field(r, 0, 0), "t")) {
        p->condition = SLICE("true");
    } else if (any.len) {
        p->condition =
            slice_of(arena_printf(k->a, "(" SLICE_FMT ") AND (" SLICE_FMT ")", SLICE_ARG(any),
                                  SLICE_ARG(all.len ? all : SLICE("true"))));
    }
    godwit_status status = columns.len ? json_parse(k->a, columns, &p->telling, NULL) : GODWIT_OK;
    for (size_t i = 0; i < p->count; i++) {
        p->rows[i]->telling = p->telling;
    }
    return k->a->failed ? GODWIT_NOMEM : status;
}

static godwit_status ask_policies(look *k) {
    godwit_status status = GODWIT_OK;
    size_t first = k->l->sent, n = 0;
    for (size_t i = 0; status == GODWIT_OK && i < k->part_count; i++) {
        if (wants_policies(&k->parts[i])) {
            pg_text(k->l, k->parts[i].info->sql_name);
            pg_text(k->l, k->role->name);
            status = pg_send(k->l, POLICIES_SQL);
        }
    }
    if (status == GODWIT_OK && k->l->sent > first) {
        status = pg_sync(k->l);
    }
    for (size_t i = 0; status == GODWIT_OK && i < k->part_count; i++) {
        if (wants_policies(&k->parts[i])) {
            status = take_policies(k, &k->parts[i], pg_result(k->l, first + n++));
        }
    }
    return status;
}

/* ---- images of rows that are gone ---- */

/* Numbers and arrays in the form the database reads, bytes left out. */
#define IMAGE_ROW                                                                                  \
    "(SELECT jsonb_object_agg(e.key, CASE WHEN e.key = ANY ($2) THEN (e.value #>> '{}')::jsonb"    \
    " WHEN jsonb_typeof(e.value) = 'object' THEN coalesce(e.value -> '$i64', e.value -> '$real')"  \
    " ELSE e.value END) FROM jsonb_each(u.image::jsonb) e WHERE e.key = ANY ($3))"

/* Of the columns policies look at; arrays: only those that travel as JSON. */
static void add_columns(look *k, const part *p, bool arrays) {
    const schema_table *t = p->info->table;
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < t->column_count; i++) {
            const json *name = p->telling ? json_first(p->telling) : NULL;
            bool told = false;
            for (uint32_t n = 0; name && n < p->telling->count; n++, name = json_after(name)) {
                told = told || slice_equal(name->u.s, t->columns[i].name);
            }
            if (!told || (arrays && p->info->columns[i].class != PG_CLASS_ARRAY)) {
                continue;
            }
            if (pass == 0) {
                count++;
            } else {
                pg_item(k->l, t->columns[i].name);
            }
        }
        if (pass == 0) {
            pg_array(k->l, PG_OID_TEXT, count);
        }
    }
}

static godwit_status ask_images(look *k, part *p) {
    pg_array(k->l, PG_OID_TEXT, p->count);
    for (size_t i = 0; i < p->count; i++) {
        pg_item(k->l, p->rows[i]->image.len ? p->rows[i]->image : (slice){0});
    }
    add_columns(k, p, true);
    add_columns(k, p, false);
    bytes_clear(&k->sql);
    bytes_text(&k->sql, "SELECT g.godwit_n FROM (SELECT u.n AS godwit_n, " IMAGE_ROW
                        " AS godwit_image FROM unnest($1::text[]) WITH ORDINALITY u(image, n)"
                        " WHERE u.image IS NOT NULL) g CROSS JOIN LATERAL"
                        " jsonb_populate_record(NULL::");
    bytes_slice(&k->sql, p->info->sql_name);
    bytes_text(&k->sql, ", coalesce(g.godwit_image, '{}'::jsonb)) AS ");
    bytes_identifier(&k->sql, p->info->table->name);
    bytes_text(&k->sql, " WHERE ");
    bytes_slice(&k->sql, p->condition);
    p->seen = k->l->sent;
    return k->sql.failed ? GODWIT_NOMEM : pg_send(k->l, k->sql.ptr);
}

static godwit_status look_at_images(look *k) {
    bool any = false;
    godwit_status status = pg_role_enter(k->l, k->role);
    for (size_t i = 0; status == GODWIT_OK && i < k->part_count; i++) {
        if (k->parts[i].images && k->parts[i].condition.len) {
            status = ask_images(k, &k->parts[i]);
            any = true;
        }
    }
    if (status == GODWIT_OK) {
        status = pg_role_leave(k->l);
    }
    if (status == GODWIT_OK) {
        status = pg_sync(k->l);
    }
    for (size_t i = 0; any && status == GODWIT_OK && i < k->part_count; i++) {
        const part *p = &k->parts[i];
        const PGresult *r = p->images && p->condition.len ? pg_result(k->l, p->seen) : NULL;
        for (int n = 0; r && n < PQntuples(r); n++) {
            p->rows[pg_field_int(r, n, 0) - 1]->visible = true;
        }
    }
    return status;
}

godwit_status pg_role_look(pg_link *l, arena *a, const store_role *role, slice scope,
                           pg_sight *sights, size_t count) {
    look k = {.l = l, .a = a, .role = role, .scope = scope};
    size_t images = 0;
    bytes_init(&k.sql, NULL, 0);
    godwit_status status = make_parts(&k, sights, count);
    if (status == GODWIT_OK && k.part_count) {
        status = ask_rows(&k);
    }
    for (size_t i = 0; status == GODWIT_OK && i < k.part_count; i++) {
        status = take_rows(&k, &k.parts[i]);
        images += k.parts[i].images;
    }
    if (status == GODWIT_OK) {
        status = ask_policies(&k);
    }
    if (status == GODWIT_OK && images) {
        status = look_at_images(&k);
    }
    bytes_deinit(&k.sql);
    return status;
}

/* ---- what becomes of it ---- */

/* Does one of these columns decide who sees the row? */
static bool tells(const pg_sight *sight, slice columns) {
    const json *root = NULL;
    bool found = false;
    arena a;
    arena_init(&a, NULL, 0);
    if (sight->telling && json_parse(&a, columns, &root, NULL) == GODWIT_OK) {
        const json *name = json_first(sight->telling);
        for (uint32_t i = 0; i < sight->telling->count; i++, name = json_after(name)) {
            found = found || json_find(root, name->u.s);
        }
    }
    arena_deinit(&a);
    return found;
}

/* A row is shown as it is now, because it may have come into sight by a change of a few columns;
 * one that went out of sight by a change of what policies look at is gone for the role. A change of
 * a row that was deleted later says nothing: the deletion follows. */
bool pg_role_show(const store_role *role, const pg_sight *sight, store_change_row *out) {
    if (!sight->info || !role->state || slice_is(out->table, "_conflicts")) {
        return sight->info && sight->visible;
    }
    if (out->is_delete) {
        return sight->visible || sight->live;
    }
    if (sight->live && sight->visible) {
        out->columns = sight->columns;
        out->full = true;
        return true;
    }
    out->is_delete = sight->live && !out->full && tells(sight, out->columns);
    out->full = false;
    out->columns = (slice){0};
    return out->is_delete;
}

godwit_status pg_role_hide(store *st, decide_context *c, decide_row *const *rows, size_t count) {
    pg_sight *sights = ARENA_ARRAY(c->a, pg_sight, count);
    if (!sights || count == 0) {
        return sights ? GODWIT_OK : GODWIT_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        sights[i] = (pg_sight){.info = pg_table_of(st->tables, rows[i]->table), .id = rows[i]->id};
    }
    godwit_status status = pg_role_look(&st->link, c->a, &st->role, c->scope, sights, count);
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        bool there = sights[i].live || sights[i].dead;
        if (rows[i]->row.exists && there && !sights[i].visible) {
            pg_row_clear(rows[i]);
            rows[i]->row.foreign = true; /* as good as another scope's */
        }
    }
    return status;
}
