/* What there is to do: local commits by SQLite's own counter, remote ones by a request that the
 * server answers when the scope moves.
 *
 * A long poll and not an event stream: it works through the host's own HTTP, which gives whole
 * answers only, and through proxies that collect what streams. Its content is not used: the pass
 * that follows fetches by cursor. */
#include "client/identity.h"
#include "client/runner.h"

#include <stdio.h>

#define LISTEN_GRACE_MS 10000 /* for the answer, after the server's wait */

int64_t listen_version(godwit *g) {
    int64_t version = -1;
    return db_int(&g->db, &version, "PRAGMA main.data_version", "") == GODWIT_OK ? version : -1;
}

godwit_status listen_for_work(godwit *g, bool *work) {
    int64_t n = 0;
    godwit_status status = db_int(&g->db, &n,
                                  "SELECT captured + coalesce((SELECT n FROM godwit_counter WHERE"
                                  " name = 'op:pending'), 0) FROM godwit_captured",
                                  "");
    *work = status == GODWIT_OK && n > 0;
    return status;
}

#define LIVE                                                                                       \
    " FROM godwit_cursor AS c WHERE c.state = 'live' AND EXISTS (SELECT 1 FROM godwit_identity AS" \
    " i WHERE i.scope = c.scope AND i.current = 1)"

/* Several scopes have their turns, each a share of the time: what is new in one that waits is found
 * when its turn comes, by the cursor. */
static godwit_status write_path(godwit *g, arena *a, bytes *path, slice *cursor,
                                listen_turn *turn) {
    slice scope = {0}, device = {0};
    int64_t scopes = 0;
    godwit_status status = db_int(&g->db, &scopes, "SELECT count(*)" LIVE, "");
    turn->share_s = scopes > turn->wait_s ? 1 : (int)(turn->wait_s / (scopes ? scopes : 1));
    turn->scope = scopes ? (turn->scope + 1) % scopes : 0;
    if (status == GODWIT_OK) {
        status = db_text(&g->db, a, &scope, "SELECT scope" LIVE " ORDER BY scope LIMIT 1 OFFSET ?1",
                         "i", turn->scope);
    }
    if (status == GODWIT_OK) {
        status = db_text(&g->db, a, cursor, "SELECT cursor FROM godwit_cursor WHERE scope = ?1",
                         "s", scope);
    }
    if (status == GODWIT_OK && cursor->len) {
        status = identity_current(g, a, scope, &device);
        bytes_text(path, "/v1/sync/changes?scope=");
        request_percent(path, scope);
        bytes_text(path, "&cursor=");
        request_percent(path, *cursor);
        bytes_text(path, "&device=");
        request_percent(path, device);
        bytes_printf(path, "&limit=1&wait=%d", turn->share_s);
    }
    return status == GODWIT_OK && path->failed ? GODWIT_NOMEM : status;
}

/* Another cursor than the one asked with: something is behind it. */
static listen_result judge(arena *a, const godwit_http_answer *answer, slice cursor) {
    pull_answer page;
    if (answer->status == 304) {
        return LISTEN_NOTHING;
    }
    if (answer->status != 200 ||
        wire_pull_answer_parse(a, (slice){answer->body, answer->body_bytes}, &page) != GODWIT_OK) {
        return LISTEN_FAILED;
    }
    return page.commit_count || !slice_equal(page.cursor, cursor) ? LISTEN_NEWS : LISTEN_NOTHING;
}

listen_result listen_for_news(godwit *g, listen_turn *turn) {
    arena a;
    bytes path;
    pump *p = NULL;
    slice cursor = {0};
    godwit_http_answer answer = {0};
    sync_call call = {.method = "GET", .timeout_ms = turn->wait_s * 1000 + LISTEN_GRACE_MS};
    listen_result result = LISTEN_FAILED;
    if (client_enter(g) != GODWIT_OK) {
        return result;
    }
    arena_init(&a, g->allocator, 0);
    bytes_init(&path, g->allocator, 0);
    godwit_status status = pump_of(g, &p);
    if (status == GODWIT_OK) {
        status = sync_check(g, &call.url, &a);
    }
    if (status == GODWIT_OK) {
        status = sync_way_of(g, p, &call.way);
    }
    if (status == GODWIT_OK) {
        status = write_path(g, &a, &path, &cursor, turn);
    }
    if (status == GODWIT_OK && cursor.len) {
        call.path = path.ptr;
        status = sync_exchange(g, &call, &answer);
        result = status == GODWIT_OK          ? judge(&a, &answer, cursor)
                 : status == GODWIT_CANCELLED ? LISTEN_NOTHING
                                              : LISTEN_FAILED;
        mem_free(g->allocator, answer.body);
    }
    bytes_deinit(&path);
    arena_deinit(&a);
    (void)client_leave(g, GODWIT_OK); /* the pass that follows has the words for what is wrong */
    return result;
}
