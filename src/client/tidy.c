/* Local retention (semantics 5.7): operations that are retired and were so long enough ago are
 * deleted, a few hundred after each sync, so that the database does not grow with its history.
 *
 * When an operation retired is not stored with it. Instead, about once a day, it is noted up to
 * which lsn nothing waits any more:
 *
 *   meta "archive" = [[ms,lsn],..]     everything sealed up to lsn had left the queue by then
 *
 * The newest note that is old enough says what may go. What waits for a person stays, and of each
 * identity the operation the server saw last, whose key tells histories apart. */
#include "client/pump.h"

#define DAY_MS     INT64_C(86400000)
#define KEEP_MS    (14 * DAY_MS) /* must exceed the server's backup interval */
#define CHUNK_ROWS 500
#define NOTES_MAX  64

typedef struct {
    int64_t at_ms, lsn;
} note;

static godwit_status read_notes(godwit *g, arena *a, note *notes, size_t *count) {
    slice text = {0};
    const json *root = NULL;
    *count = 0;
    godwit_status status = client_meta_text(g, a, "archive", &text);
    if (status != GODWIT_OK || !text.ptr) {
        return status;
    }
    status = json_parse(a, text, &root, NULL);
    const json *item = status == GODWIT_OK ? json_first(root) : NULL;
    for (uint32_t i = 0; item && i < root->count && *count < NOTES_MAX; i++) {
        const json *at = json_first(item);
        note *n = &notes[*count];
        *count += at && item->count == 2 && json_int(at, &n->at_ms) && json_int(at + 1, &n->lsn);
        item = json_after(item);
    }
    return status == GODWIT_NOMEM ? status : GODWIT_OK; /* what can't be read is begun anew */
}

static godwit_status write_notes(godwit *g, const note *notes, size_t count) {
    bytes b;
    bytes_init(&b, g->allocator, 0);
    bytes_char(&b, '[');
    for (size_t i = 0; i < count; i++) {
        bytes_printf(&b, "%s[%lld,%lld]", i ? "," : "", (long long)notes[i].at_ms,
                     (long long)notes[i].lsn);
    }
    bytes_char(&b, ']');
    godwit_status status = b.failed ? GODWIT_NOMEM : client_meta_set(g, "archive", bytes_view(&b));
    bytes_deinit(&b);
    return status;
}

/* The newest lsn up to which nothing is under way. */
static godwit_status settled_lsn(godwit *g, int64_t *out) {
    return db_int(&g->db, out,
                  "SELECT min(coalesce((SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k ="
                  " 'sealed_lsn'), 0), coalesce((SELECT min(lsn) - 1 FROM godwit_op WHERE state IN"
                  " ('pending', 'acked', 'parked') AND state <> 'retired'), 9223372036854775807))",
                  "");
}

/* Adds today's note, drops those that are behind the one that counts. *lsn: what may go. */
static godwit_status keep_notes(godwit *g, int64_t now_ms, int64_t keep_ms, int64_t *lsn) {
    note notes[NOTES_MAX + 1];
    size_t count = 0, first = 0;
    arena a;
    arena_init(&a, g->allocator, 0);
    *lsn = 0;
    godwit_status status = read_notes(g, &a, notes, &count);
    bool due = status == GODWIT_OK && (count == 0 || now_ms - notes[count - 1].at_ms >
                                                         (keep_ms < DAY_MS ? keep_ms : DAY_MS));
    if (due) {
        notes[count].at_ms = now_ms;
        status = settled_lsn(g, &notes[count].lsn);
        count++;
    }
    for (size_t i = 0; status == GODWIT_OK && i < count; i++) {
        if (notes[i].at_ms <= now_ms - keep_ms) {
            *lsn = notes[i].lsn > *lsn ? notes[i].lsn : *lsn;
            first = i;
        }
    }
    first = count - first > NOTES_MAX ? count - NOTES_MAX : first;
    if (status == GODWIT_OK && (due || first > 0)) {
        status = write_notes(g, notes + first, count - first);
    }
    arena_deinit(&a);
    return status;
}

godwit_status client_tidy(godwit *g) {
    int64_t keep_ms = KEEP_MS, lsn = 0;
    godwit_status status = client_meta_int(g, "archive_ms", KEEP_MS, &keep_ms);
    if (status == GODWIT_OK) {
        status = db_begin(&g->db);
    }
    if (status != GODWIT_OK) {
        return status;
    }
    status = keep_notes(g, client_wall_ms(g), keep_ms, &lsn);
    if (status == GODWIT_OK && lsn > 0) {
        status =
            db_run(&g->db,
                   "DELETE FROM godwit_op WHERE lsn IN (SELECT o.lsn FROM godwit_op AS o WHERE"
                   " o.lsn <= ?1 AND o.state = 'retired' AND NOT EXISTS (SELECT 1 FROM"
                   " godwit_identity AS i WHERE i.scope = o.scope AND i.device_id = o.device_id"
                   " AND i.acked_seq = o.sequence_number) ORDER BY o.lsn LIMIT ?2)",
                   "ii", lsn, (int64_t)CHUNK_ROWS);
    }
    if (status == GODWIT_OK) {
        status = db_commit(&g->db);
    }
    if (status != GODWIT_OK) {
        db_rollback(&g->db);
    }
    return status;
}
