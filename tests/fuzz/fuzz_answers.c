/* What a server, or something that stands in for one, sends to a client. The first byte chooses the
 * kind of message. A length or a count that was read is within what arrived. */
#include "fuzz.h"

#include "core/wire.h"

static void look_at_commits(const pull_answer *pull, size_t size) {
    FUZZ_CHECK(pull->commit_count <= size);
    for (size_t i = 0; i < pull->commit_count; i++) {
        const wire_commit *c = &pull->commits[i];
        FUZZ_CHECK(c->change_count <= size && c->own_count <= size);
        for (size_t j = 0; j < c->change_count; j++) {
            FUZZ_CHECK(c->changes[j].is_delete || json_is(c->changes[j].columns, JSON_OBJECT));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    unsigned kind = fuzz_byte(&data, &size) % 5;
    slice text = fuzz_slice(data, size);
    arena a;
    arena_init(&a, NULL, 0);
    push_answer push;
    pull_answer pull;
    register_answer registered;
    snapshot_answer snapshot;
    problem p;
    if (kind == 0 && wire_push_answer_parse(&a, text, &push) == GODWIT_OK) {
        FUZZ_CHECK(push.result_count <= size);
        if (push.has_changes && push.changes_problem.len == 0) {
            look_at_commits(&push.changes, size);
        }
    } else if (kind == 1 && wire_pull_answer_parse(&a, text, &pull) == GODWIT_OK) {
        look_at_commits(&pull, size);
    } else if (kind == 2 && wire_register_answer_parse(&a, text, &registered) == GODWIT_OK) {
        FUZZ_CHECK(registered.scope_count <= size);
    } else if (kind == 3 && wire_snapshot_answer_parse(&a, text, &snapshot) == GODWIT_OK) {
        FUZZ_CHECK(snapshot.row_count <= size);
    } else if (kind == 4) {
        wire_problem_parse(&a, text, &p);
        FUZZ_CHECK(p.type.len <= size);
    }
    arena_deinit(&a);
    return 0;
}
