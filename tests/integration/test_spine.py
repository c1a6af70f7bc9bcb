"""The main job, end to end: what is changed offline reaches the server exactly once and every other
device, merged, with nothing lost and nothing doubled."""
import json
import math
import time

import pytest

from harness import assert_converged, cli, settle


def ledger(server, where="1"):
    return server.query("SELECT entity.tbl, entity.pk, entity.kind, entity.policy, entity.winner, "
                        "entity.theirs, entity.ours, entity.chosen, entity.state "
                        f"FROM godwit_conflict AS entity WHERE {where} ORDER BY commit_seq")


def test_offline_edits_reach_everybody(server, devices):
    a, b, c = devices
    for i in range(40):
        a.run("INSERT INTO pins(id, title, lat, lng) VALUES (?, ?, ?, ?)", f"p{i}", f"Pin {i}", i / 7, -i / 3)
    a.run("UPDATE pins SET note = 'wet' WHERE id < 'p2'")
    a.run("DELETE FROM pins WHERE id = 'p9'")
    assert a.pending() > 0
    a.sync()
    assert a.pending() == 0
    b.sync()
    b.run("UPDATE pins SET title = 'Well' WHERE id = 'p3'")
    b.run("INSERT INTO forms VALUES ('f1', 'p3', 'Visit', 'all fine')")
    settle(a, b, c)
    assert_converged(server, devices)
    assert len(server.rows("pins")) == 39
    assert server.query("SELECT title FROM pins WHERE id = 'p3'") == [("Well",)]


def test_sync_inside_the_application(server, devices):
    a, b, _ = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'one'), ('p2', 'two')")
    a.sync_sql()
    b.sync_sql()
    assert b.rows("pins") == a.rows("pins") == server.rows("pins")
    b.run("UPDATE pins SET title = 'zwei' WHERE id = 'p2'")
    b.sync_sql()
    a.sync_sql()
    assert a.one("SELECT title FROM pins WHERE id = 'p2'") == "zwei"


def test_a_writer_without_the_extension_is_captured(world, server):
    a = world.device("plain", server, extension=False)
    b = world.device("other", server)
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'from the sqlite3 shell')")
    a.run("UPDATE pins SET note = 'n' WHERE id = 'p1'")
    a.sync()
    b.sync()
    assert b.rows("pins") == a.rows("pins") == server.rows("pins")


def test_different_columns_both_survive(server, devices):
    a, b, c = devices
    a.run("INSERT INTO pins(id, title, note) VALUES ('p1', 'title', 'note')")
    settle(a, b, c, rounds=1)
    a.run("UPDATE pins SET title = 'by a' WHERE id = 'p1'")
    b.run("UPDATE pins SET note = 'by b' WHERE id = 'p1'")
    settle(a, b, c)
    assert_converged(server, devices)
    assert a.run("SELECT title, note FROM pins") == [("by a", "by b")]
    assert ledger(server) == [], "nothing was discarded, so nothing is in the ledger"


def test_same_column_is_decided_and_the_loser_is_in_the_ledger(server, devices):
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'old')")
    settle(a, b, c, rounds=1)
    a.run("UPDATE pins SET title = 'earlier' WHERE id = 'p1'")
    time.sleep(0.02)
    b.run("UPDATE pins SET title = 'later' WHERE id = 'p1'")
    b.sync()
    a.sync()
    settle(a, b, c)
    assert_converged(server, devices)
    assert a.one("SELECT title FROM pins") == "later", "lww: the later edit, whoever arrives first"
    entries = ledger(server)
    assert len(entries) == 1
    table, pk, kind, policy, winner, theirs, ours, chosen, state = entries[0]
    assert (table, pk, kind, policy, state) == ("pins", "p1", "field", "lww", "auto")
    assert winner == "theirs"
    assert json.loads(theirs) == {"title": "later"}
    assert json.loads(ours) == {"title": "earlier"}
    assert json.loads(chosen) == {"title": "later"}


def test_a_wrong_clock_decides_nothing_but_ties(server, devices):
    """An edit made with knowledge of the other wins whatever the clocks say (I10)."""
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'old')")
    settle(a, b, c, rounds=1)
    a.run("UPDATE pins SET title = 'first' WHERE id = 'p1'")
    a.run("UPDATE godwit_log SET wall = wall + 3650 WHERE lsn = (SELECT max(lsn) FROM godwit_log)")
    a.sync()
    b.sync()
    b.run("UPDATE pins SET title = 'second, knowing the first' WHERE id = 'p1'")
    b.run("UPDATE godwit_log SET wall = wall - 3650 WHERE lsn = (SELECT max(lsn) FROM godwit_log)")
    settle(b, a, c)
    assert_converged(server, devices)
    assert a.one("SELECT title FROM pins") == "second, knowing the first"
    assert ledger(server) == []


def test_a_transaction_arrives_as_one(server, devices):
    a, b, c = devices
    a.transaction("INSERT INTO pins(id, title) VALUES ('p1', 'one')",
                  "INSERT INTO forms(id, pin_id, name) VALUES ('f1', 'p1', 'form')",
                  "UPDATE pins SET note = 'with a form' WHERE id = 'p1'")
    a.sync()
    commits, _ = server.pull()
    assert len(commits) == 1
    assert [(x["entityType"], x["entityId"]) for x in commits[0]["changes"]] == [("pins", "p1"), ("forms", "f1")]
    settle(b, c, rounds=1)
    assert_converged(server, devices)


def test_a_transaction_with_one_bad_operation_applies_nothing(world):
    server = world.server(schema="""
        CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT UNIQUE);
        CREATE TABLE forms (id TEXT PRIMARY KEY, name TEXT);""")
    local = """CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT);
               CREATE TABLE forms (id TEXT PRIMARY KEY, name TEXT);"""
    a, b = (world.device(n, server, schema=local) for n in "ab")
    a.run("INSERT INTO pins VALUES ('p1', 'taken')")
    a.sync()
    b.transaction("INSERT INTO forms VALUES ('f1', 'companion')", "INSERT INTO pins VALUES ('p2', 'taken')")
    b.run("INSERT INTO forms VALUES ('f2', 'independent')")
    b.sync_cli()
    settle(b, a)
    assert server.rows("forms") == [("f2", "independent")]
    assert server.rows("pins") == [("p1", "taken")]
    assert b.rows("pins") == server.rows("pins") and b.rows("forms") == server.rows("forms"), \
        "the refused group is undone where it was made"
    dead = b.run("SELECT entity_id, code FROM godwit_dead_letters ORDER BY entity_id")
    assert [x for x, _ in dead] == ["f1", "p2"], "the content is kept"
    assert ("p2", "unique-violation") in dead


def test_delete_against_edit(server, devices):
    """edit_wins: the edit survives, the decision is in the ledger."""
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x'), ('p2', 'y')")
    settle(a, b, c, rounds=1)
    a.run("DELETE FROM pins WHERE id IN ('p1', 'p2')")
    b.run("UPDATE pins SET note = 'still needed' WHERE id = 'p1'")
    a.sync()
    b.sync()
    settle(a, b, c)
    assert_converged(server, devices)
    assert [r[0] for r in a.rows("pins")] == ["p1"]
    assert a.run("SELECT title, note FROM pins") == [("x", "still needed")]
    assert [e[2] for e in ledger(server)] == ["delete_update"]


def test_edit_before_delete_protects_the_row(server, devices):
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
    settle(a, b, c, rounds=1)
    b.run("UPDATE pins SET note = 'still needed' WHERE id = 'p1'")
    a.run("DELETE FROM pins WHERE id = 'p1'")
    b.sync()
    a.sync()
    settle(a, b, c)
    assert_converged(server, devices)
    assert a.run("SELECT id, note FROM pins") == [("p1", "still needed")]
    assert [e[2] for e in ledger(server)] == ["update_delete"]


def test_deletes_cascade_as_one_unit(server, devices):
    a, b, c = devices
    a.transaction("INSERT INTO pins(id) VALUES ('p1'), ('p2')",
                  "INSERT INTO forms(id, pin_id) VALUES ('f1', 'p1'), ('f2', 'p1'), ('f3', 'p2')")
    settle(a, b, c, rounds=1)
    a.run("DELETE FROM pins WHERE id = 'p1'")
    assert [r[0] for r in a.rows("forms")] == ["f3"]
    settle(a, b, c)
    assert_converged(server, devices)
    assert [r[0] for r in b.rows("forms")] == ["f3"]


def test_a_protected_child_keeps_its_deleted_parent(server, devices):
    """A cascade delete is one unit: a concurrent edit of a member drops the whole delete."""
    a, b, c = devices
    a.transaction("INSERT INTO pins(id) VALUES ('p1')",
                  "INSERT INTO forms(id, pin_id, body) VALUES ('f1', 'p1', ''), ('f2', 'p1', '')")
    settle(a, b, c, rounds=1)
    b.run("UPDATE forms SET body = 'important' WHERE id = 'f2'")
    b.sync()
    a.run("DELETE FROM pins WHERE id = 'p1'")
    a.sync()
    settle(a, b, c)
    assert_converged(server, devices)
    assert [r[0] for r in c.rows("pins")] == ["p1"]
    assert [r[0] for r in c.rows("forms")] == ["f1", "f2"]


OWNED = """CREATE TABLE slots (id TEXT PRIMARY KEY, place INTEGER UNIQUE NOT NULL, who TEXT, made_by TEXT, at TEXT);"""


def test_a_ring_of_unique_values_turns(world):
    """Three rows pass a NOT NULL UNIQUE value around; what the server keeps in the rows itself stays."""
    server = world.server(schema=OWNED, config="[table slots]\ncreated_by_device_column = made_by\n"
                          "updated_at_column = at\n")
    local = "CREATE TABLE slots (id TEXT PRIMARY KEY, place INTEGER UNIQUE NOT NULL, who TEXT);"
    a, b = (world.device(n, server, schema=local, tables=["slots"]) for n in "ab")
    a.run("INSERT INTO slots VALUES ('x', 1, 'ana'), ('y', 2, 'bo'), ('z', 3, 'cy')")
    settle(a, b, rounds=1)
    made_by = server.query("SELECT DISTINCT made_by FROM slots")
    b.transaction("UPDATE slots SET place = place + 100", "UPDATE slots SET place = (place - 100) % 3 + 1")
    settle(b, a)
    assert a.rows("slots") == b.rows("slots") == [("x", 2, "ana"), ("y", 3, "bo"), ("z", 1, "cy")]
    assert server.query("SELECT id, place, who FROM slots ORDER BY 1") == a.rows("slots")
    assert server.query("SELECT DISTINCT made_by FROM slots") == made_by and len(made_by) == 1
    b.run("UPDATE slots SET place = 5 WHERE id = 'x'")
    a.run("UPDATE slots SET place = 5 WHERE id = 'y'")
    b.sync()
    a.sync_cli()
    settle(a, b)
    assert a.rows("slots") == b.rows("slots") == [("x", 5, "ana"), ("y", 3, "bo"), ("z", 1, "cy")]
    assert a.one("SELECT code FROM godwit_dead_letters") == "unique-violation"


UNIQUE = "CREATE TABLE slots (id TEXT PRIMARY KEY, place INTEGER UNIQUE, who TEXT);"


def test_unique_values_swap(world):
    server = world.server(schema=UNIQUE)
    a, b = (world.device(n, server, schema=UNIQUE, tables=["slots"]) for n in "ab")
    a.run("INSERT INTO slots VALUES ('x', 1, 'ana'), ('y', 2, 'bo')")
    settle(a, b, rounds=1)
    a.transaction("UPDATE slots SET place = 99 WHERE id = 'x'", "UPDATE slots SET place = 1 WHERE id = 'y'",
                  "UPDATE slots SET place = 2 WHERE id = 'x'")
    settle(a, b)
    assert_converged(server, [a, b], ["slots"])
    assert b.rows("slots") == [("x", 2, "ana"), ("y", 1, "bo")]


def test_replace_and_upsert(world):
    server = world.server(schema=UNIQUE)
    a, b = (world.device(n, server, schema=UNIQUE, tables=["slots"]) for n in "ab")
    a.run("INSERT INTO slots VALUES ('x', 1, 'ana'), ('y', 2, 'bo'), ('z', 3, 'cy')")
    settle(a, b, rounds=1)
    a.run("REPLACE INTO slots VALUES ('x', 1, 'replaced')")
    a.run("INSERT INTO slots VALUES ('y', 5, 'no') ON CONFLICT(id) DO UPDATE SET who = 'upserted'")
    a.run("REPLACE INTO slots VALUES ('w', 3, 'took the place of z')")
    assert a.one("PRAGMA recursive_triggers") == 0
    settle(a, b)
    assert_converged(server, [a, b], ["slots"])
    assert b.rows("slots") == [("w", 3, "took the place of z"), ("x", 1, "replaced"), ("y", 2, "upserted")]


VALUES = """
CREATE TABLE vals (id TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, "odd ""name" TEXT,
                   "order" TEXT, untyped);
"""


@pytest.mark.parametrize("column, value", [
    ("i", 0), ("i", 2**53), ("i", 2**53 + 1), ("i", -(2**53) - 1), ("i", 2**63 - 1), ("i", -(2**63)),
    ("r", 0.1), ("r", 1 / 3), ("r", 5e-324), ("r", 1.7976931348623157e308), ("r", math.inf), ("r", -math.inf),
    ("r", 1.0), ("r", 123456789.123456789), ("r", -0.0),
    ("t", ""), ("t", "žluťoučký 🐦 \u0000 nul"), ("t", '"quoted" \\ \b\n\r\t\u2028'), ("t", "x" * 100000),
    ("b", b""), ("b", bytes(range(256)) * 8), ("b", b"\xff\xfe"),
    ("i", None), ("untyped", 7), ("untyped", 7.0), ("untyped", "7"), ("untyped", b"7"),
    ('odd "name', "quoted name"), ("order", "keyword"),
    ("i", "text in an integer column"), ("n", "12.5"),
])
def test_values_round_trip(column, value, values_world):
    server, a, b = values_world
    quoted = '"' + column.replace('"', '""') + '"'
    key = f"{column}-{value!r}"[:60]
    a.run(f"INSERT INTO vals(id, {quoted}) VALUES (?, ?)", key, value)
    a.sync_sql()
    b.sync_sql()
    look = f"SELECT {quoted}, typeof({quoted}) FROM vals WHERE id = ?"
    here, there, stored = a.run(look, key), b.run(look, key), server.query(look, key)
    assert here == there == stored
    if isinstance(value, float) and value == 0:
        assert math.copysign(1, there[0][0]) == math.copysign(1, here[0][0])
    a.run(f"UPDATE vals SET {quoted} = NULL WHERE id = ?", key)
    a.sync_sql()
    b.sync_sql()
    assert b.run(look, key) == server.query(look, key) == [(None, "null")]


@pytest.fixture(scope="module")
def values_world(tmp_path_factory):
    import harness
    world = harness.World(tmp_path_factory.mktemp("values"))
    server = world.server(schema=VALUES)
    yield [server] + [world.device(n, server, schema=VALUES, tables=["vals"]) for n in "ab"]
    world.close()


KEYS = """
CREATE TABLE ints (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE bin (id BLOB PRIMARY KEY, v TEXT);
CREATE TABLE pair (a TEXT, b INTEGER, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE late (v TEXT, z TEXT NOT NULL, y TEXT NOT NULL, PRIMARY KEY (y, z)) STRICT;
CREATE TABLE gen (id TEXT PRIMARY KEY, v INTEGER, twice INTEGER GENERATED ALWAYS AS (v * 2) STORED,
                  thrice INTEGER AS (v * 3));
"""
KEY_NAMES = {"ints": "id", "bin": "id", "pair": "a, b", "late": "y, z", "gen": "id"}


def test_keys_of_every_kind(world):
    server = world.server(schema=KEYS)
    a, b = (world.device(n, server, schema=KEYS, tables=[]) for n in "ab")
    for d in (a, b):
        d.init()
        d.track("ints", ids="app")
        for table in ("bin", "pair", "late", "gen"):
            d.track(table)
    a.run("INSERT INTO ints VALUES (1, 'x'), (-9223372036854775808, 'low'), (9223372036854775807, 'high')")
    a.run("INSERT INTO bin VALUES (?, 'b'), (?, 'c')", b"\x00\xff", b"\x01")
    a.run("INSERT INTO pair VALUES ('[\"', 1, 'x'), ('', -1, 'y'), ('a', 2, 'z')")
    a.run("INSERT INTO late VALUES ('v', 'z1', 'y1'), (NULL, 'z2', 'y1')")
    a.run("INSERT INTO gen(id, v) VALUES ('g', 21)")
    settle(a, b, rounds=1)
    assert_converged(server, [a, b], list(KEY_NAMES), KEY_NAMES)
    b.run("UPDATE ints SET v = 'u' WHERE id < 0")
    b.run("UPDATE pair SET v = 'u' WHERE b = -1")
    b.run("DELETE FROM pair WHERE a = 'a'")
    b.run("UPDATE late SET v = 'w' WHERE z = 'z2'")
    b.run("UPDATE gen SET v = 4")
    b.run("DELETE FROM bin WHERE id = ?", b"\x01")
    settle(b, a)
    assert_converged(server, [a, b], list(KEY_NAMES), KEY_NAMES)
    assert a.rows("gen") == [("g", 4, 8, 12)]
    b.run("UPDATE pair SET b = 7 WHERE a = ''")
    settle(b, a)
    assert_converged(server, [a, b], list(KEY_NAMES), KEY_NAMES)
    assert ("", 7, "u") in a.rows("pair", "a, b"), "a changed key is a delete and a create"


def test_ids_with_odd_characters(server, devices):
    a, b, c = devices
    ids = ["", " ", "a b", "a/b?c=d&e#f", "ünïcödé", "日本", "'; DROP TABLE pins; --", '"', "\\", "[1]",
           '["a","b"]', "\t", "%00", "null", "x" * 1024]
    for i in ids:
        a.run("INSERT INTO pins(id, title) VALUES (?, ?)", i, f"title of {i[:20]}")
    a.sync()
    b.sync()
    for i in ids:
        b.run("UPDATE pins SET note = ? WHERE id = ?", i, i)
    settle(b, a, c)
    assert_converged(server, devices)
    assert sorted(r[0] for r in c.rows("pins")) == sorted(ids)


def test_a_rowid_key_is_refused_with_advice(world, server):
    a = world.device("a", server, schema="CREATE TABLE bad (id INTEGER PRIMARY KEY, v);", tables=[])
    a.init()
    done = cli("track", a.path, "bad")
    assert done.code == 1 and "godwit_uuid7" in done.err, done


def test_add_column_is_picked_up_by_tracking_again(world):
    server = world.server(schema=None, dev=True)
    a, b = (world.device(n, server, schema="CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT);", tables=["t"])
            for n in "ab")
    a.run("INSERT INTO t VALUES ('1', 'v')")
    settle(a, b, rounds=1)
    for d in (a, b):
        d.run("ALTER TABLE t ADD COLUMN w TEXT")
        d.track("t")
        d.track("t")
    a.run("UPDATE t SET w = 'new' WHERE id = '1'")
    a.run("INSERT INTO t VALUES ('2', 'v2', 'w2')")
    settle(a, b)
    assert b.rows("t") == [("1", "v", "new"), ("2", "v2", "w2")] == server.rows("t")


def test_existing_rows_are_uploaded(world, server):
    a = world.device("a", server, tables=[])
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'was here before'), ('p2', 'too')")
    a.init()
    a.track("pins")
    a.track("forms")
    b = world.device("b", server)
    settle(a, b)
    assert_converged(server, [a, b])
    assert len(b.rows("pins")) == 2


def test_savepoints_and_rollbacks_capture_what_was_committed(server, devices):
    a, b, c = devices
    a.db.execute("BEGIN")
    a.run("INSERT INTO pins(id) VALUES ('kept')")
    a.db.execute("SAVEPOINT one")
    a.run("INSERT INTO pins(id) VALUES ('gone')")
    a.db.execute("SAVEPOINT two")
    a.run("INSERT INTO pins(id) VALUES ('gone too')")
    a.db.execute("ROLLBACK TO one")
    a.run("INSERT INTO pins(id) VALUES ('kept too')")
    a.db.execute("COMMIT")
    a.db.execute("BEGIN")
    a.run("INSERT INTO pins(id) VALUES ('never')")
    a.db.execute("ROLLBACK")
    settle(a, b, c)
    assert_converged(server, devices)
    assert [r[0] for r in b.rows("pins")] == ["kept", "kept too"]
    commits, _ = server.pull()
    assert len(commits) == 1 and len(commits[0]["changes"]) == 2


def test_insert_then_delete_in_one_transaction_is_nothing(server, devices):
    a, _, _ = devices
    a.transaction("INSERT INTO pins(id) VALUES ('p')", "UPDATE pins SET title = 'x'", "DELETE FROM pins")
    a.sync()
    commits, page = server.pull()
    assert commits == [] and page["head"] == 0


def test_migration_of_the_application(world):
    server = world.server(schema=None, dev=True)
    schema = "CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT, old TEXT);"
    a, b = (world.device(n, server, schema=schema, tables=["t"]) for n in "ab")
    a.run("INSERT INTO t VALUES ('1', 'v', 'o')")
    settle(a, b, rounds=1)
    a.run("SELECT godwit_migrate('begin')")
    a.run("ALTER TABLE t DROP COLUMN old")
    a.script("CREATE TABLE t2 (id TEXT PRIMARY KEY, v TEXT); INSERT INTO t2 SELECT id, v FROM t; "
             "DROP TABLE t; ALTER TABLE t2 RENAME TO t;")
    a.run("SELECT godwit_migrate('end')")
    a.run("UPDATE t SET v = 'after' WHERE id = '1'")
    a.run("INSERT INTO t VALUES ('2', 'new')")
    settle(a, b)
    assert [r[:2] for r in b.rows("t")] == [("1", "after"), ("2", "new")]
    assert a.rows("t") == [("1", "after"), ("2", "new")]


def test_vector_clocks_are_readable(server, devices):
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
    settle(a, b, rounds=1)
    b.run("UPDATE pins SET title = 'y'")
    settle(b, a)
    clocks = [json.loads(d.one("SELECT vclock FROM godwit_row")) for d in (a, b)]
    assert clocks[0] == clocks[1]
    assert len([k for k in clocks[0] if k != "$"]) == 2
    a.run("SELECT 1")
    compare = "SELECT godwit_clock_compare(?, ?)"
    assert a.one(compare, '{"x":1}', '{"x":2}') == "before"
    assert a.one(compare, '{"x":2}', '{"x":1}') == "after"
    assert a.one(compare, '{"x":1}', '{"x":1}') == "equal"
    assert a.one(compare, '{"x":1}', '{"y":1}') == "concurrent"
    assert json.loads(a.one("SELECT godwit_clock_merge(?, ?)", '{"x":1,"y":3}', '{"x":2}')) == {
        "$": 0, "x": 2, "y": 3}


def test_enqueue_names_the_captured_operation(server, devices):
    a, _, _ = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
    before = a.one("SELECT count(*) FROM sync_queue")
    first = a.one("SELECT godwit_enqueue('create', 'pins', 'p1', '{}')")
    assert a.one("SELECT count(*) FROM sync_queue") == before, "no second operation"
    assert a.one("SELECT id FROM sync_queue") == first
    a.sync()
    assert a.one("SELECT count(*) FROM sync_queue WHERE id = ? AND status = 'completed'", first) <= 1
    assert len(server.pull()[0]) == 1


def test_the_queue_has_the_columns_of_the_requirements(server, devices):
    a, _, _ = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
    entry = a.queue()[0]
    for column in ("id", "created_at", "operation", "entity_type", "entity_id", "idempotency_key", "payload",
                   "status", "attempts", "max_attempts", "last_error", "last_attempt_at", "sequence_number",
                   "depends_on"):
        assert column in entry, column
    assert (entry["operation"], entry["entity_type"], entry["entity_id"]) == ("create", "pins", "p1")
    assert entry["status"] == "pending"


def test_many_rows_in_pages(server, devices):
    a, b, _ = devices
    a.db.execute("BEGIN")
    for i in range(6000):
        a.db.execute("INSERT INTO pins(id, title, note) VALUES (?, ?, ?)", (f"p{i:05}", f"t{i}", "n" * 150))
    a.db.execute("COMMIT")
    a.sync()
    b.sync()
    assert b.rows("pins") == a.rows("pins") == server.rows("pins")
    assert len(b.rows("pins")) == 6000


def test_sync_without_a_server_exits_3_and_keeps_the_queue(server, devices):
    a, b, _ = devices
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    server.stop()
    done = a.sync_cli()
    assert done.code == 3, done
    assert a.pending() == 1
    assert all(entry["attempts"] == 0 for entry in a.queue()), "no answer is no attempt"
    server.start()
    settle(a, b)
    assert_converged(server, [a, b])


def test_devices_ignore_tables_they_do_not_have(world, server):
    a = world.device("a", server)
    b = world.device("b", server, schema="CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, note TEXT, "
                     "lat REAL, lng REAL, status TEXT, updated_at TEXT);", tables=["pins"])
    a.transaction("INSERT INTO pins(id) VALUES ('p1')", "INSERT INTO forms(id, pin_id) VALUES ('f1', 'p1')")
    settle(a, b)
    assert b.rows("pins") == server.rows("pins")


def test_scopes_are_apart(world, server):
    a = world.device("a", server, scope="north", sub="ana")
    b = world.device("b", server, scope="south", sub="bo")
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    b.run("INSERT INTO pins(id) VALUES ('p2')")
    settle(a, b)
    assert [r[0] for r in a.rows("pins")] == ["p1"]
    assert [r[0] for r in b.rows("pins")] == ["p2"]
    b.run("INSERT INTO pins(id, title) VALUES ('p1', 'taken elsewhere')")
    b.sync_cli()
    assert b.one("SELECT code FROM godwit_dead_letters") == "id-unavailable"


def test_graceful_stop_ends_with_0(server, devices):
    a, _, _ = devices
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    a.sync()
    assert server.stop() == 0
