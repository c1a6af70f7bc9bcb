"""The edits tools/mutants makes: `old` must be in `file` exactly once; `tests` must then fail. sample: part
of `make test`; all of them: `make soak`."""

SPINE = "test_spine.py::"
GUARANTEE = "test_guarantees.py::test_guarantee_"

MUTANTS = [
    # 1: durable in the queue in the transaction that made it
    {"guarantee": 1, "name": "weak synchronous", "file": "src/client/durable.c",
     "old": '"PRAGMA main.synchronous=FULL"', "new": '"PRAGMA main.synchronous=NORMAL"',
     "tests": [GUARANTEE + "1_commits_reach_the_disk"]},
    {"guarantee": 1, "name": "inserts not captured", "file": "src/client/capture.c",
     "old": 'log_row(b, t, 1, "NEW");\n    end_trigger(w, hook);\n}',
     "new": "end_trigger(w, hook);\n}",
     "tests": [GUARANTEE + "1_row_and_operation_live_and_die_together"]},
    {"guarantee": 1, "name": "capture forgets every 7th", "file": "src/client/capture.c",
     "old": 'b = begin_trigger(w, \'i\', "AFTER INSERT", OF_ALL);\n    bytes_text(b, CAPTURING " BEGIN");',
     "new": 'b = begin_trigger(w, \'i\', "AFTER INSERT", OF_ALL);\n'
            '    bytes_text(b, "(SELECT coalesce(max(lsn), 0) % 7 FROM godwit_log) <> 6 AND " CAPTURING " BEGIN");',
     "tests": [GUARANTEE + "1_row_and_operation_live_and_die_together"]},
    # 2: at most once, never dropped
    {"guarantee": 2, "name": "keys of tools not looked up", "file": "src/server/push_ledger.c",
     "old": "        if (idem.found) {\n            known++;", "new": "        if (idem.found && known > count) {\n            known++;",
     "tests": [GUARANTEE + "2_tools_without_a_stream"]},
    {"guarantee": 2, "name": "silence taken as success", "file": "src/client/sync.c",
     "old": "    godwit_status status = sync_exchange(g, &call, &answer);\n",
     "new": "    godwit_status status = sync_exchange(g, &call, &answer);\n    if (status == GODWIT_OK && answer.status == 0) {\n"
            "        status = db_exec(&g->db, \"UPDATE godwit_op SET state = 'retired' WHERE state = 'pending'\");\n    }\n",
     "tests": ["test_bad_input.py::test_a_broken_answer_changes_nothing", GUARANTEE + "2_answers_lost"], "sample": True},
    {"guarantee": 2, "name": "a fork goes unnoticed", "file": "src/core/decide.c",
     "old": "        return STREAM_FORKED;\n    }\n    return resent_forked(device, request, by_seq) ? STREAM_FORKED : STREAM_OK;",
     "new": "        return STREAM_OK;\n    }\n    return STREAM_OK;",
     "tests": ["test_bad_input.py::test_another_previous_key_is_a_fork",
               "test_bad_input.py::test_another_operation_at_a_used_number_is_a_fork"]},
    {"guarantee": 2, "name": "unconfirmed decisions are forgotten", "file": "src/server/store_sqlite_retain.c",
     "old": "WHEN 'active' THEN\"\n                                \" d.confirmed_seq ELSE",
     "new": "WHEN 'active' THEN\"\n                                \" ?4 ELSE",
     "tests": ["test_retention.py::test_a_device_away_longer_than_the_ledger"]},
    {"guarantee": 2, "name": "a gap goes unnoticed", "file": "src/core/decide.c",
     "old": "if (request->first_seq - 1 > device->applied_seq) {", "new": "if (request->first_seq - 1 > device->applied_seq + 1000) {",
     "tests": ["test_bad_input.py::test_a_sequence_gap"]},
    # 3: what was committed together travels together
    {"guarantee": 3, "name": "groups not marked", "file": "src/client/group.c",
     "old": "last < m->before + 2", "new": "last >= 0",
     "tests": [GUARANTEE + "3_groups_are_never_seen_in_half", SPINE + "test_a_transaction_arrives_as_one"], "sample": True},
    {"guarantee": 3, "name": "refused group not undone", "file": "src/core/decide.c",
     "old": "    decide_undo(w);\n    w->conflict_count = 0;", "new": "    w->conflict_count = 0;",
     "tests": [GUARANTEE + "3_a_refused_group_leaves_nothing_to_the_next"]},
    {"guarantee": 3, "name": "a repaired transaction falls apart", "file": "src/client/repair.c",
     "old": "if (status == GODWIT_OK && group->count > 1) {", "new": "if (status == GODWIT_OK && group->count > 1000000) {",
     "tests": ["test_recovery.py::test_what_waits_survives_a_killed_process"]},
    # 4: concurrent edits
    {"guarantee": 4, "name": "nothing is ever concurrent", "file": "src/core/merge.c",
     "old": "return meta->ver > eff_base && !own;", "new": "return meta->ver > eff_base && !own && seq < 0;",
     "tests": [SPINE + "test_same_column_is_decided_and_the_loser_is_in_the_ledger",
               GUARANTEE + "4_a_policy_decides_and_the_loser_is_kept"]},
    {"guarantee": 4, "name": "everything is concurrent", "file": "src/core/decide.c",
     "old": "return found && salt == op->base_salt ? op->base_seq : 0;",
     "new": "return found && salt == op->base_salt && op->seq < 0 ? op->base_seq : 0;",
     "tests": [GUARANTEE + "4_a_delete_that_saw_the_edit_deletes"]},
    {"guarantee": 4, "name": "losers not recorded", "file": "src/core/decide_record.c",
     "old": "    w->conflict_count++;\n    return &w->conflicts[index];", "new": "    return &w->conflicts[index];",
     "tests": [SPINE + "test_same_column_is_decided_and_the_loser_is_in_the_ledger"]},
    {"guarantee": 4, "name": "a counter takes the last value", "file": "src/core/commute.c",
     "old": "return value_equal(present, old) ? COMMUTE_OK : sum(present, old, now, out);", "new": "return COMMUTE_OK;",
     "tests": ["test_conflicts.py::test_counters_and_sets_add_up"]},
    {"guarantee": 4, "name": "a removal takes what it had not seen", "file": "src/core/commute.c",
     "old": "    return tag->ver == author->commit ||", "new": "    return tag->ver >= 0 || tag->ver == author->commit ||",
     "tests": ["test_conflicts.py::test_counters_and_sets_add_up"]},
    # 5: convergence
    {"guarantee": 5, "name": "deletes of others ignored", "file": "src/client/settle_touch.c",
     "old": "    row->change = CHANGE_DELETE;\n", "new": "    return status;\n",
     "tests": [GUARANTEE + "5_all_replicas_converge", SPINE + "test_offline_edits_reach_everybody"]},
    {"guarantee": 5, "name": "own merges not taken back", "file": "src/client/settle_touch.c",
     "old": "    row->ver = commit->seq;\n    row->vclock = change->vector_clock;\n    s->counts.received += !commit->own;\n",
     "new": "    row->ver = commit->seq;\n    row->vclock = change->vector_clock;\n    s->counts.received += !commit->own;\n"
            "    if (commit->seq % 3 == 0) {\n        return status;\n    }\n",
     "tests": [GUARANTEE + "5_all_replicas_converge", SPINE + "test_offline_edits_reach_everybody"]},
    # 7: no local transaction spans a request
    {"guarantee": 7, "name": "transaction around a request", "file": "src/client/sync.c",
     "old": "    godwit_status status = sync_exchange(g, &call, &answer);\n",
     "new": "    godwit_status status = db_exec(&g->db, \"BEGIN IMMEDIATE\");\n    status = sync_exchange(g, &call, &answer);\n"
            "    status = db_exec(&g->db, \"COMMIT\") == GODWIT_OK ? status : GODWIT_IO;\n",
     "tests": [GUARANTEE + "7_writes_go_on_during_a_request"], "sample": True},
    # the thread in the background
    {"guarantee": 7, "name": "a stop waits for the network", "file": "src/client/runner.c",
     "old": "    return atomic_load(&((runner *)context)->stopping);", "new": "    return atomic_load(&((runner *)context)->stopping) && 0;",
     "tests": ["test_running.py::test_a_stop_does_not_wait_for_the_network"]},
    {"guarantee": 2, "name": "no turns between processes", "file": "src/client/lease.c",
     "old": "h.until > client_wall_ms(g) && alive(h.pid, h.started)", "new": "h.until > client_wall_ms(g) && alive(h.pid, h.started) && h.pid == 0",
     "tests": ["test_running.py::test_a_killed_holder_is_not_waited_for"]},
    {"guarantee": 6, "name": "what was held back stays behind", "file": "src/client/repair.c",
     "old": "if (!group->chosen && group->held_back) {", "new": "if (!group->chosen && group->held_back && i > 1000000) {",
     "tests": ["test_recovery.py::test_two_hundred_poison_operations_among_ten_thousand"]},
    {"guarantee": 1, "name": "what a migration did to renamed columns is forgotten", "file": "src/client/gained.c",
     "old": "status = queue_renamed(g, a, d, slice_of(name));", "new": "status = GODWIT_OK;\n        (void)queue_renamed;",
     "tests": ["test_versions.py::test_a_migration_changes_what_it_renames"]},
]
