/* Differences between a tracked table and a copy of it as rows of the log. The SQL is put together
 * out of the texts the caller gives for each column; see the header. */
#include "client/difference.h"

#define MASK_BITS 63

static const schema_column *key_of(const client_table *t, size_t i) {
    return &t->shape.columns[t->shape.key[i]];
}

static slice kept(arena *a, bytes *b) {
    slice out = b->failed ? (slice){0} : arena_copy(a, bytes_view(b));
    a->failed = a->failed || b->failed;
    bytes_deinit(b);
    return out;
}

slice difference_column(arena *a, const schema_column *c) {
    bytes b;
    bytes_init(&b, a->allocator, 0);
    bytes_text(&b, "n.");
    bytes_identifier(&b, c->name);
    return kept(a, &b);
}

slice difference_test(arena *a, slice x, slice z, bool differ) {
    bytes b;
    bytes_init(&b, a->allocator, 0);
    bytes_printf(&b, "(" SLICE_FMT " %s " SLICE_FMT " COLLATE BINARY %s typeof(" SLICE_FMT ") %s",
                 SLICE_ARG(x), differ ? "IS NOT" : "IS", SLICE_ARG(z), differ ? "OR" : "AND",
                 SLICE_ARG(x), differ ? "<>" : "=");
    bytes_printf(&b, " typeof(" SLICE_FMT "))", SLICE_ARG(z));
    return kept(a, &b);
}

static void same_key(bytes *b, const client_table *t) {
    for (size_t i = 0; i < t->shape.key_count; i++) {
        bytes_text(b, i ? " AND n." : "n.");
        bytes_identifier(b, key_of(t, i)->name);
        bytes_printf(b, " = s.k%zu AND n.", i);
        bytes_identifier(b, key_of(t, i)->name);
        bytes_printf(b, " IS s.k%zu COLLATE BINARY", i);
    }
}

slice difference_from(arena *a, const client_table *t, slice copy) {
    bytes b;
    bytes_init(&b, a->allocator, 0);
    bytes_text(&b, "main.");
    bytes_identifier(&b, t->shape.name);
    bytes_text(&b, " AS n");
    if (copy.len) {
        bytes_printf(&b, " JOIN " SLICE_FMT " AS s ON ", SLICE_ARG(copy));
        same_key(&b, t);
    }
    return kept(a, &b);
}

static void log_head(bytes *b, const client_table *t, int op) {
    bytes_text(b, "INSERT INTO godwit_log(op, tbl, wall, nonce, ");
    capture_key_columns(b, t);
    if (op == 2) {
        bytes_text(b, ", mask");
        for (size_t word = 1; word * MASK_BITS < t->data_count; word++) {
            bytes_printf(b, ", m%zu", word);
        }
    }
    if (op != 3 && t->data_count) {
        bytes_text(b, ", ");
        capture_data_columns(b, t, 'v');
    }
    if (op != 1 && t->data_count) {
        bytes_text(b, ", ");
        capture_data_columns(b, t, 'o');
    }
    bytes_printf(b, ") SELECT %d, %lld, julianday('now'), random(), ", op, (long long)t->tbl);
}

static void old_value(bytes *b, const difference *d, size_t i) {
    bytes_slice(b, d->was[i].len ? d->was[i] : SLICE("NULL"));
}

static void new_value(bytes *b, const difference *d, size_t i) {
    if (d->is[i].len) {
        bytes_slice(b, d->is[i]);
    } else {
        bytes_text(b, "n.");
        bytes_identifier(b, d->t->shape.columns[d->t->data_columns[i]].name);
    }
}

static void changed(bytes *b, const difference *d, size_t i) {
    bytes_slice(b, d->changed[i].len ? d->changed[i] : SLICE("0"));
}

static godwit_status run(godwit *g, bytes *b) {
    godwit_status status = b->failed ? GODWIT_NOMEM : db_exec(&g->db, b->ptr);
    bytes_deinit(b);
    return status;
}

godwit_status difference_deleted(godwit *g, const difference *d) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    log_head(&b, d->t, 3);
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_printf(&b, "%ss.k%zu", i ? ", " : "", i);
    }
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&b, ", ");
        old_value(&b, d, i);
    }
    bytes_printf(&b, " FROM " SLICE_FMT " AS s WHERE NOT EXISTS (SELECT 1 FROM main.",
                 SLICE_ARG(d->copy));
    bytes_identifier(&b, d->t->shape.name);
    bytes_text(&b, " AS n WHERE ");
    same_key(&b, d->t);
    bytes_char(&b, ')');
    return run(g, &b);
}

godwit_status difference_updated(godwit *g, const difference *d) {
    bool any = false;
    bytes b;
    for (size_t i = 0; i < d->t->data_count; i++) {
        any = any || d->changed[i].len;
    }
    if (!any) {
        return GODWIT_OK;
    }
    bytes_init(&b, g->allocator, 0);
    log_head(&b, d->t, 2);
    capture_key_values(&b, d->t, "n");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&b, i % MASK_BITS ? " | (" : ", (");
        changed(&b, d, i);
        bytes_printf(&b, " << %zu)", i % MASK_BITS);
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < d->t->data_count; i++) {
            bool scope = side == 0 && d->t->data_columns[i] == d->t->shape.scope_column;
            bytes_text(&b, scope ? ", " : ", CASE WHEN ");
            if (!scope) {
                changed(&b, d, i);
                bytes_text(&b, " THEN ");
            }
            if (side == 0) {
                new_value(&b, d, i);
            } else {
                old_value(&b, d, i);
            }
            bytes_text(&b, scope ? "" : " END");
        }
    }
    bytes_text(&b, " FROM ");
    bytes_slice(&b, d->from);
    bytes_text(&b, " WHERE ");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&b, i ? " OR " : "");
        changed(&b, d, i);
    }
    return run(g, &b);
}

godwit_status difference_created(godwit *g, const difference *d) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    log_head(&b, d->t, 1);
    capture_key_values(&b, d->t, "n");
    for (size_t i = 0; i < d->t->data_count; i++) {
        bytes_text(&b, ", ");
        new_value(&b, d, i);
    }
    bytes_text(&b, " FROM main.");
    bytes_identifier(&b, d->t->shape.name);
    bytes_printf(&b, " AS n WHERE NOT EXISTS (SELECT 1 FROM " SLICE_FMT " AS s",
                 SLICE_ARG(d->copy));
    for (size_t i = 0; i < d->t->shape.key_count; i++) {
        bytes_printf(&b, "%ss.k%zu IS n.", i ? " AND " : " WHERE ", i);
        bytes_identifier(&b, key_of(d->t, i)->name);
        bytes_text(&b, " COLLATE BINARY");
    }
    bytes_char(&b, ')');
    return run(g, &b);
}
