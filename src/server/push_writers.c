/* Who met whom in a conflict: for each record of a decided group the two writers, with the times
 * and the clocks that were compared. decide knows commits; who made them is in the store. */
#include "server/push.h"

static void text_member(bytes *b, bool *first, const char *name, slice text) {
    if (text.len) {
        json_key(b, first, name);
        json_write_text(b, text);
    }
}

static void int_member(bytes *b, bool *first, const char *name, int64_t n) {
    if (n > 0) {
        json_key(b, first, name);
        json_write_int(b, n);
    }
}

static void time_member(bytes *b, bool *first, int64_t ms) {
    char text[32];
    if (ms > 0) {
        wire_time_write(ms, text);
        text_member(b, first, "at", slice_of(text));
    }
}

static void write_ours(bytes *b, const push *p, const decide_conflict *record) {
    const store_author *author = &p->author;
    bool first = true;
    bytes_char(b, '{');
    text_member(b, &first, "deviceId", author->device_id);
    text_member(b, &first, "userId", author->user_id);
    time_member(b, &first, record->our_at_ms);
    int_member(b, &first, "sequenceNumber", record->op->seq);
    json_key(b, &first, "clock");
    bytes_text(b, "{\"$\":");
    bytes_int(b, record->our_base);
    if (author->stream) {
        bytes_char(b, ',');
        json_write_text(b, author->device_id);
        bytes_char(b, ':');
        bytes_int(b, record->op->seq - 1);
    }
    bytes_text(b, "}}");
}

static void write_theirs(bytes *b, const decide_conflict *record, const store_commit_row *commit) {
    bool first = true;
    bytes_char(b, '{');
    text_member(b, &first, "deviceId", commit->device_id);
    text_member(b, &first, "userId", commit->user_id);
    time_member(b, &first, commit->at_ms);
    int_member(b, &first, "commitSeq", commit->seq);
    if (record->their_clock.len) {
        json_key(b, &first, "clock");
        bytes_slice(b, record->their_clock);
    }
    bytes_char(b, '}');
}

static godwit_status tell(const push *p, bytes *b, decide_conflict *record) {
    scope_run *run = p->scope;
    store_commit_row commit = {0};
    godwit_status status = GODWIT_OK;
    if (record->their_commit > 0) {
        status = store_commit_load(run->st, run->a, run->c.scope, record->their_commit, &commit);
        status = status == GODWIT_NOT_FOUND ? GODWIT_OK : status; /* no longer kept */
    }
    bytes_clear(b);
    bytes_text(b, "{\"ours\":");
    write_ours(b, p, record);
    bytes_text(b, ",\"theirs\":");
    if (record->their_commit > 0) {
        write_theirs(b, record, &commit);
    } else {
        bytes_text(b, "null");
    }
    bytes_char(b, '}');
    record->writers = b->failed ? (slice){0} : arena_copy(run->a, bytes_view(b));
    return status == GODWIT_OK && !record->writers.ptr ? GODWIT_NOMEM : status;
}

godwit_status push_writers(const push *p, decide_commit *commit) {
    godwit_status status = GODWIT_OK;
    bytes b;
    bytes_init(&b, NULL, 0);
    for (size_t i = 0; status == GODWIT_OK && i < commit->conflict_count; i++) {
        status = tell(p, &b, &commit->conflicts[i]);
    }
    bytes_deinit(&b);
    return status;
}
