"""Rules broken on purpose, for tests/sim/plant. How to add one: README.md beside this file.

    name    letters and digits; the build flag is GODWIT_BUG_<NAME>
    by      "checker": planted by whoever wrote the checker; "independent": by somebody who has not read it
    what    the rule that is broken, in one line
    breaks  the invariants this must show in: only a seed that fails by one of them has caught it
    file    the source it is in; old: text that occurs there exactly once; new: what stands in its place
"""

BUGS = [
    {"name": "storesync", "by": "checker", "breaks": ["I8", "I2", "I11"],
     "what": "the server's commits are not synced",
     "file": "src/server/store_sqlite.c", "old": "PRAGMA synchronous = FULL;", "new": "PRAGMA synchronous = NORMAL;"},
    {"name": "lookbeforesync", "by": "checker", "breaks": ["I8", "I11", "I2"],
     "what": "a server shows what a killed predecessor had not synced",
     "file": "src/server/store_sqlite.c", "old": "status = make_durable(&st->d);", "new": "status = GODWIT_OK;"},
    {"name": "oldpage", "by": "checker", "breaks": ["I11", "I12"],
     "what": "a page of another position is applied",
     "file": "src/client/answer.c", "old": "return page->from != asked.seq;", "new": "return false;"},
    {"name": "selfconflict", "by": "checker", "breaks": ["I10", "I18"],
     "what": "own earlier writes count as concurrent",
     "file": "src/core/merge.c", "old": "return meta->ver > eff_base && !own;", "new": "return meta->ver > eff_base + 0 * own;"},
    {"name": "neverconcurrent", "by": "checker", "breaks": ["I18"],
     "what": "a write nobody has seen is overwritten without a trace",
     "file": "src/core/merge.c", "old": "return meta->ver > eff_base && !own;", "new": "return meta->ver > eff_base + 2 && !own;"},
    {"name": "noreplay", "by": "checker", "breaks": ["I12"],
     "what": "waiting updates are not put back on top of what came",
     "file": "src/client/image.c",
     "old": "return image->present ? redo_update(a, table, op, image) : GODWIT_OK;", "new": "return GODWIT_OK;"},
    {"name": "nogroup", "by": "checker", "breaks": ["I13"],
     "what": "what was committed together is sent one by one",
     "file": "src/client/group.c", "old": "last < m->before + 2", "new": "last >= 0"},
    {"name": "captureoff", "by": "checker", "breaks": ["I1"],
     "what": "capture stays off after changes of others were applied",
     "file": "src/client/settle.c", "old": '"UPDATE godwit_state SET capture = 1"', "new": '"UPDATE godwit_state SET capture = 0"'},
    {"name": "norefusal", "by": "checker", "breaks": ["I12", "I20"],
     "what": "a refused operation stays in what the application sees",
     "file": "src/client/settle_own.c", "old": "event->row->ops[i].leaves = true;", "new": "event->row->ops[i].leaves = false;"},
    {"name": "deleteunrecorded", "by": "checker", "breaks": ["I18"],
     "what": "a delete wins over an edit, and nobody is told",
     "file": "src/core/decide_apply.c", "old": '        record_delete(w, in, "edit_wins", "theirs");\n        return;',
     "new": "        in->dropped = false;"},
    {"name": "expiredcursor", "by": "checker", "breaks": ["I11", "I12"],
     "what": "the log is served from below the horizon",
     "file": "src/server/pull.c", "old": "given.seq < p->scope.horizon", "new": "given.seq + 100000 < p->scope.horizon"},
    {"name": "nofork", "by": "checker", "breaks": ["I24", "I3", "I2"],
     "what": "two databases under one id go unnoticed",
     "file": "src/core/decide.c", "old": "return resent_forked(device, request, by_seq) ? STREAM_FORKED : STREAM_OK;",
     "new": "return STREAM_OK;"},
    {"name": "forgottenkeys", "by": "checker", "breaks": ["I4"],
     "what": "an operation that comes under another id is done again",
     "file": "src/server/push_load.c", "old": "p->by_key = any ? by_key : NULL;", "new": "p->by_key = NULL;"},
    {"name": "anyscope", "by": "checker", "breaks": ["I23"],
     "what": "a token opens every scope",
     "file": "src/server/service.c", "old": "    return among(p->scopes, p->scope_count, scope);",
     "new": "    return p->scope_count > 0 && scope.len > 0;"},
]
