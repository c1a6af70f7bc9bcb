/* From an operation's public id to its number in the log. */
#include "client/op_sql.h"
#include "client/seal.h"

#define HAS_ID OP_HAS_ID("o", "?1")

/* The last twelve digits of the id are the lsn (core/id.h); the rest must agree. */
static bool id_lsn(slice id, int64_t *lsn) {
    if (id.len != UUID_TEXT_BYTES - 1) {
        return false;
    }
    int64_t v = 0;
    for (size_t i = id.len - 12; i < id.len; i++) {
        char c = id.ptr[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) {
            return false;
        }
        v = v * 16 + digit;
    }
    *lsn = v;
    return true;
}

godwit_status seal_find(godwit *g, slice id, int64_t *lsn) {
    slice lineage = {0};
    char own[UUID_TEXT_BYTES];
    arena a;
    *lsn = 0;
    arena_init(&a, g->allocator, 0);
    godwit_status status = client_meta_text(g, &a, "lineage", &lineage);
    if (status == GODWIT_OK && id_lsn(id, lsn)) {
        id_operation(lineage, *lsn, own);
        if (slice_is(id, own)) {
            arena_deinit(&a);
            return GODWIT_OK;
        }
    }
    if (status == GODWIT_OK) { /* made under another lineage, or by a later form of ids */
        status = db_int(&g->db, lsn, "SELECT o.lsn FROM godwit_op AS o WHERE " HAS_ID, "s", id);
    }
    arena_deinit(&a);
    return status;
}
