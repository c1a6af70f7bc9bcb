"""Rules broken on purpose by somebody who had read the design and the product, but not the checker.

The format is that of bugs.py, which takes these in. `breaks` is what the design says (semantics, section 16), decided
before the first run."""

INDEPENDENT = [
    {"name": "gapafterrollback", "by": "independent", "breaks": ["I8", "I11"],
     "what": "a push undone in the database keeps the commit numbers it had taken",
     "file": "src/server/push.c", "old": "    p->scope->c.head = m->head;\n    p->device = m->device;",
     "new": "    p->device = m->device;"},
    {"name": "undometa", "by": "independent", "breaks": ["I10", "I18"],
     "what": "a refused group leaves its authorship on the columns it had written in memory",
     "file": "src/core/decide_rows.c", "old": "        memcpy(meta, touch->before.meta, count * sizeof *meta);",
     "new": "        ASSERT(meta);"},
    {"name": "basefromtarget", "by": "independent", "breaks": ["I12", "I20", "I14"],
     "what": "the image kept for undo is what the row shows, not what the server has",
     "file": "src/client/settle_write.c",
     "old": "    if (row->base.present) {\n        image_write_json(&b, row->table->t, &row->base);",
     "new": "    if (row->target.present) {\n        image_write_json(&b, row->table->t, &row->target);"},
    {"name": "coalesceold", "by": "independent", "breaks": ["I18", "I22"],
     "what": "two updates of a row in one group keep the old values of the second",
     "file": "src/client/seal_group.c",
     "old": "            seal_set_bit(into->mask, i);\n            if (into->old) {\n"
            "                into->old[i] = later->old[i];\n            }\n        }",
     "new": "            seal_set_bit(into->mask, i);\n        }\n        if (into->old && later->old) {\n"
            "            into->old[i] = later->old[i];\n        }"},
    {"name": "acknokey", "by": "independent", "breaks": ["I2", "I3", "I24"],
     "what": "a decision is taken for an own operation by its number, without a look at its key",
     "file": "src/client/settle_own.c",
     "old": "        (result->has_key && memcmp(key.ptr, result->key, SHA256_BYTES) != 0)) {\n        return forked",
     "new": "        (result->has_key && result->seq <= 0)) {\n        return forked"},
    {"name": "pageborder", "by": "independent", "breaks": ["I11", "I8"],
     "what": "the commit that does not fit a page any more is counted as sent",
     "file": "src/server/pull.c",
     "old": """        if ((int64_t)p->commits >= made->key.limit || b->len - begin_len >= PAGE_BYTES_MAX ||
            scanned >= SCAN_COMMITS_MAX) {
            made->full = true;
            break;
        }
        status = store_feed_commit(p->r->store, &commit, &row);
        if (status == GODWIT_OK && row) {
            p->cursor.seq = commit.seq;
            p->cursor.salt = commit.salt;
""",
     "new": """        status = store_feed_commit(p->r->store, &commit, &row);
        if (status == GODWIT_OK && row) {
            p->cursor.seq = commit.seq;
            p->cursor.salt = commit.salt;
            if ((int64_t)p->commits >= made->key.limit || b->len - begin_len >= PAGE_BYTES_MAX ||
                scanned >= SCAN_COMMITS_MAX) {
                break;
            }
"""},
    {"name": "archiveearly", "by": "independent", "breaks": ["I2", "I3"],
     "what": "operations that are done with are deleted without the time the archive is to be kept",
     "file": "src/client/tidy.c", "old": "if (notes[i].at_ms <= now_ms - keep_ms) {",
     "new": "if (notes[i].at_ms <= now_ms) {"},
    {"name": "renumberbyseq", "by": "independent", "breaks": ["I9", "I13", "I10", "I7"],
     "what": "under a new identity operations are put in the order of their old numbers, not of their making",
     "file": "src/client/identity.c",
     "old": '" \'pending\' AND state <> \'retired\' AND sequence_number > 0 ORDER BY lsn"',
     "new": '" \'pending\' AND state <> \'retired\' AND sequence_number > 0 ORDER BY sequence_number"'},
    {"name": "removewins", "wide": True, "by": "independent", "breaks": ["I22"],
     "what": "removing an element of a set removes additions its author had not seen",
     "file": "src/core/commute.c",
     "old": "    return tag->ver == author->commit ||\n"
            "           !merge_newer(tag, author->eff_base, author->device, author->seq);",
     "new": "    return tag->ver <= author->commit;"},
    {"name": "dupsuccess", "by": "independent", "breaks": ["I5", "I2"],
     "what": "an operation that comes again under another identity is told it was applied, whatever was decided",
     "file": "src/core/decide.c",
     "old": "        out->results[i].outcome = by_key[i].outcome;\n        out->results[i].code = by_key[i].code;",
     "new": "        out->results[i].outcome = OUTCOME_APPLIED;"},
    {"name": "tombstonereborn", "by": "independent", "breaks": ["I10", "I14", "I16", "I18"],
     "what": "the server forgets the versions of a row whose tombstone is old, though it was made again since",
     "file": "src/server/store_sqlite_retain.c",
     "old": '"DELETE FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3 AND"\n'
            '                            " del_ver = ?4"',
     "new": '"DELETE FROM godwit_row WHERE scope = ?1 AND tbl = ?2 AND pk = ?3 AND ?4 > 0"'},
    {"name": "cursorfirst", "by": "independent", "breaks": ["I11", "I12", "I28", "I1"],
     "what": "the cursor is committed before the rows of its page",
     "file": "src/client/settle.c", "old": '        status = settle_cursor(s, page->cursor, seq, salt, "live");\n    }',
     "new": '        status = settle_cursor(s, page->cursor, seq, salt, "live");\n    }\n'
            "    if (status == GODWIT_OK) {\n        status = db_commit(s->d);\n    }\n"
            "    if (status == GODWIT_OK) {\n        status = db_begin(s->d);\n    }"},
    {"name": "hashorder", "by": "independent", "breaks": ["I15"],
     "what": "rows that come back together do so in the order of a hash",
     "file": "src/core/decide_family.c", "old": "    qsort(out, count, sizeof *out, by_name);\n", "new": ""},
    {"name": "clockbound", "by": "independent", "breaks": ["I29"],
     "what": "vector clocks are compacted at the bound of the parser instead of their own",
     "file": "src/core/decide_rows.c", "old": "if (row->clock.count > CLOCK_ENTRIES_MAX) {",
     "new": "if (row->clock.count > CLOCK_PARSE_ENTRIES_MAX) {"},
    {"name": "revertpartial", "wide": True, "by": "independent", "breaks": ["I19"],
     "what": "a deletion taken back makes the row again with the edited columns only",
     "file": "src/core/decide_apply.c", "old": "            record->ours = edited_row(w, in);",
     "new": "            record->ours = object_or_none(in->op->payload);"},
    {"name": "blockhalf", "by": "independent", "breaks": ["I13", "I20"],
     "what": "of a dependant's group, what comes before it stays when the group is blocked",
     "file": "src/client/settle_own.c", "old": 'MEMBER " WHERE lsn < ?1 AND scope = ?2',
     "new": 'MEMBER " WHERE lsn < ?1 AND lsn > ?1 AND scope = ?2'},
    {"name": "liftpartial", "by": "independent", "breaks": ["I11", "I14"],
     "what": "a row that comes back from its tombstone goes out with the changed columns only",
     "file": "src/core/decide_family.c",
     "old": "    touch->full = true;\n    for (size_t i = 0; i < row->table->column_count; i++) {\n"
            "        touch->columns[i] = true;\n    }\n",
     "new": ""},
    {"name": "swapearly", "by": "independent", "breaks": ["I11", "I16"],
     "what": "a snapshot of several pages is shown before the log has caught up with the newest of them",
     "file": "src/client/bootstrap.c", "old": "if (status != GODWIT_OK || position < newest) {",
     "new": "if (status != GODWIT_OK) {"},
]
