"""Growth is bounded: the server forgets what is old, and a device that was away for longer than that
keeps its queue, starts from a snapshot and delivers."""
import json
import threading

from harness import SCHEMA, cli, settle, wait_until

SHORT = """
[server]
keep_log = 1s
keep_log_max = 1s
keep_log_commits = 5
keep_ledger = {ledger}
janitor_every = 50ms
"""


def horizon(server):
    rows = server.query("SELECT horizon, head FROM godwit_scope")
    return rows[0] if rows else (0, 0)


def forgotten(server):
    """The log has been cut to what must stay."""
    low, head = horizon(server)
    return head - low == 5 and server.query(
        "SELECT count(*) FROM godwit_change WHERE commit_seq <= ?", low) == [(0,)]


def test_a_device_away_longer_than_the_horizon(world):
    server = world.server(config=SHORT.format(ledger="1h"))
    a, b = world.device("a", server), world.device("b", server)
    a.run("INSERT INTO pins(id, title, note) VALUES ('p-1', 'Well', 'n'), ('p-2', 'Tree', 'n'),"
          " ('p-3', 'gone', 'n'), ('p-4', 'gone, too', 'n')")
    settle(a, b)
    # b goes away with a queue; meanwhile everything it knew of becomes history
    b.run("UPDATE pins SET title = 'Well of b' WHERE id = 'p-1'")
    b.run("UPDATE pins SET note = 'of b' WHERE id = 'p-2'")
    b.run("UPDATE pins SET note = 'late' WHERE id = 'p-3'")
    b.run("DELETE FROM pins WHERE id = 'p-4'")
    b.transaction("INSERT INTO pins(id, title) VALUES ('p-5', 'new')",
                  "INSERT INTO forms(id, pin_id, name) VALUES ('f-1', 'p-5', 'of the new pin')")
    a.run("UPDATE pins SET title = 'Old tree' WHERE id = 'p-2'")
    a.run("DELETE FROM pins WHERE id = 'p-3'")
    for i in range(20):
        a.run("INSERT INTO pins(id, title) VALUES (?, 'x')", f"q-{i}")
        a.sync()
    wait_until(lambda: forgotten(server), what="the log is cut")
    assert server.query("SELECT count(*) FROM godwit_row WHERE pk = 'p-3'") == [(0,)]
    cursor = b.one("SELECT cursor FROM godwit_cursor")
    answer = server.get(f"/v1/sync/changes?scope=field&cursor={cursor}")
    assert answer.status == 410 and answer.problem == "cursor-expired"
    queued = b.pending()
    assert queued == 6
    b.sync()
    settle(a, b)
    assert a.rows("pins") == server.rows("pins")
    assert a.rows("forms") == server.rows("forms") == [("f-1", "p-5", "of the new pin", None)]
    titles = dict(a.run("SELECT id, title FROM pins WHERE id LIKE 'p-%'"))
    assert titles == {"p-1": "Well of b", "p-2": "Old tree", "p-5": "new"}
    assert a.one("SELECT note FROM pins WHERE id = 'p-2'") == "of b"
    # nobody knows any more whether p-3 was deleted: what b wanted is kept for a person
    letters = b.run("SELECT entity_id, code FROM godwit_dead_letters")
    assert [row[0] for row in letters] == ["p-3"], letters
    b.run("SELECT godwit_discard(id) FROM godwit_dead_letters")
    settle(b, a)
    assert b.rows("pins") == server.rows("pins")
    for device in (a, b):
        assert cli("doctor", device.path).code == 0


def test_a_long_queue_and_a_new_beginning(world):
    """The queue does not fit into the request that is told to begin anew."""
    server = world.server(config=SHORT.format(ledger="1h"))
    a, b = world.device("a", server), world.device("b", server)
    a.run("INSERT INTO pins(id, title) VALUES ('p-1', 'Well')")
    settle(a, b)
    b.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
          " INSERT INTO pins(id, title) SELECT 'b-' || i, 'of b' FROM n")
    b.run("UPDATE pins SET note = 'of b' WHERE id = 'p-1'")
    for i in range(20):
        a.run("INSERT INTO pins(id, title) VALUES (?, 'x')", f"q-{i}")
        a.sync()
    wait_until(lambda: forgotten(server), what="the log is cut")
    b.sync()
    assert server.query("SELECT count(*) FROM pins WHERE title = 'of b'") == [(4000,)]
    assert server.query("SELECT note FROM pins WHERE id = 'p-1'") == [("of b",)]
    settle(b)
    assert b.rows("pins") == server.rows("pins")


def test_a_device_away_longer_than_the_ledger(world):
    """Its last answer was lost and its ledger rows are confirmed by nobody: they are kept."""
    server = world.server(schema=SCHEMA.replace("status TEXT", "status TEXT CHECK (status <> 'bad')"),
                          config=SHORT.format(ledger="1s"))
    a, b = world.device("a", server), world.device("b", server)
    a.run("INSERT INTO pins(id, title) VALUES ('p-1', 'Well')")
    settle(a, b)
    proxy = world.proxy(server, lambda n, head, body: "swallow" if b"POST /v1/sync" in head else "pass")
    b.run("UPDATE pins SET title = 'of b'")
    b.run("INSERT INTO pins(id, title, status) VALUES ('p-3', 'refused', 'bad')")
    cli("init", b.path, "--url", proxy.url)
    assert b.sync_cli().code == 3
    assert server.rows("pins")[0][1] == "of b" and b.pending() == 2
    for i in range(20):
        a.run("INSERT INTO pins(id, title) VALUES (?, 'x')", f"q-{i}")
        a.sync()
    wait_until(lambda: forgotten(server) and
               server.query("SELECT ledger_floor FROM godwit_scope")[0][0] >= 15, what="the ledger is cut")
    assert server.query("SELECT count(*) FROM godwit_op")[0][0] < 12
    cli("init", b.path, "--url", server.url)
    b.run("INSERT INTO pins(id, title) VALUES ('p-2', 'also of b')")
    b.sync()
    settle(a, b)
    assert a.rows("pins") == b.rows("pins") == server.rows("pins")
    assert server.query("SELECT title FROM pins WHERE id = 'p-1'") == [("of b",)]
    assert b.run("SELECT entity_id, code FROM godwit_dead_letters") == [("p-3", "check-failed")]


def test_growth_is_bounded_under_load(world):
    """Writers never notice the janitor; what is kept does not depend on how much there was."""
    server = world.server(config=SHORT.format(ledger="1s"))
    devices = [world.device(f"d{i}", server) for i in range(3)]

    def work(device):
        db = device.connect()
        for i in range(30):
            db.execute("INSERT OR REPLACE INTO pins(id, title) VALUES (?, ?)",
                       (f"{device.name}-{i % 7}", str(i)))
            if i % 10 == 9:
                db.execute("DELETE FROM pins WHERE id = ?", (f"{device.name}-{i % 7}",))
            assert cli("sync", device.path).code == 0
        db.close()

    threads = [threading.Thread(target=work, args=(d,)) for d in devices]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    wait_until(lambda: forgotten(server), what="the log is cut")
    settle(*devices)
    for device in devices:
        assert device.rows("pins") == server.rows("pins")
    live = len(server.rows("pins"))
    wait_until(lambda: server.query("SELECT count(*) FROM godwit_row")[0][0] <= live + 10,
               what="tombstones are gone")
    assert server.query("PRAGMA integrity_check") == [("ok",)]


def test_settings_of_retention_are_checked(world):
    for text, part in [("keep_log = 30", "keep_log"), ("keep_log = 3 days", "keep_log"),
                       ("keep_log = 5d\nkeep_log_max = 1d", "keep_log_max"),
                       ("keep_ledger = 1d", "keep_ledger"), ("janitor_every = 1ms", "janitor_every"),
                       ("keep_log_commits = many", "keep_log_commits")]:
        server = world.server(config=f"[server]\n{text}\n", start=False)
        done = cli("serve", "--config", server.config, "--data", server.data, "--check-config")
        assert done.code == 1 and part in done.err, (text, done)
    server = world.server(config="[server]\nkeep_log = forever\nkeep_conflicts = 10d\n", start=False)
    done = cli("serve", "--config", server.config, "--data", server.data, "--check-config")
    assert done.code == 0, done


def test_a_devices_own_history_is_bounded(world):
    server = world.server()
    a = world.device("a", server)
    for i in range(5):
        a.run("INSERT INTO pins(id, title) VALUES (?, 'x')", f"p-{i}")
        a.sync()
    ids = [r[0] for r in a.run("SELECT id FROM sync_queue ORDER BY lsn")]
    assert a.one("SELECT count(*) FROM godwit_op") == 5  # kept for a server that forgets
    a.run("SELECT godwit_init('{\"keepArchive\":\"50ms\"}')")
    a.run("DELETE FROM godwit_meta WHERE k = 'archive'")
    a.sync()
    assert a.one("SELECT count(*) FROM godwit_op") == 5  # noted only now

    def gone():
        a.sync()
        return a.one("SELECT count(*) FROM godwit_op") == 1
    wait_until(gone, what="old operations are gone", every=0.06)
    # what became of them is known still
    receipts = a.run("SELECT id, outcome, commit_seq, decided_at FROM godwit_receipts ORDER BY lsn")
    assert [r[:3] for r in receipts] == [(id_, "applied", i + 1) for i, id_ in enumerate(ids)]
    assert all(r[3].startswith("20") for r in receipts)
    assert json.loads(a.one("SELECT godwit_wait(?)", ids[0]))["outcome"] == "applied"
    # a clock that was far ahead once stops nothing
    a.run("INSERT INTO pins(id, title) VALUES ('p-7', 'x')")
    a.sync()
    a.run("UPDATE godwit_meta SET v = '[[32503680000000,0]]' WHERE k = 'archive'")
    a.run("UPDATE godwit_meta SET v = 32503680000000 WHERE k = 'history'")
    wait_until(gone, what="they are gone all the same", every=0.06)
    assert a.one("SELECT CAST(v AS INTEGER) FROM godwit_meta WHERE k = 'history'") < 32503680000000
    a.run("UPDATE godwit_receipt SET at = 1600000000 WHERE lsn < 3")
    a.run("DELETE FROM godwit_meta WHERE k = 'history'")
    a.sync()
    assert a.one("SELECT min(lsn) FROM godwit_receipts") == 3
    # the last one stays: its key tells histories apart
    a.run("INSERT INTO pins(id, title) VALUES ('p-9', 'after')")
    a.sync()
    assert len(server.rows("pins")) == 7 and cli("doctor", a.path).code == 0


def test_what_has_been_dealt_with_goes_and_what_waits_stays(world):
    columns = "id TEXT PRIMARY KEY, title TEXT, note TEXT"
    server = world.server(schema=f"CREATE TABLE pins ({columns}, CHECK (title <> 'bad'));",
                          config="[table pins]\npolicy.note = manual\n")
    a, b = (world.device(n, server, schema=f"CREATE TABLE pins ({columns});", tables=("pins",)) for n in "ab")
    a.run("INSERT INTO pins VALUES ('p-1', 'x', 'n')")
    settle(a, b)
    b.run("UPDATE pins SET title = 'of b', note = 'of b'")
    b.sync()
    a.run("UPDATE pins SET title = 'of a', note = 'of a'")
    for i in range(1, 4):
        a.run("INSERT INTO pins VALUES (?, 'bad', '')", f"x-{i}")
    a.sync_cli()
    letters = dict(a.run("SELECT entity_id, id FROM godwit_dead_letters WHERE status = 'failed'"))
    assert sorted(letters) == ["x-1", "x-2", "x-3"]
    a.run("SELECT godwit_discard(?, 'no')", letters["x-1"])
    a.run("SELECT godwit_edit(?, '{\"title\":\"good\"}')", letters["x-2"])
    settle(a, b)
    a.run("INSERT INTO pins VALUES ('p-2', 'after', '')")
    a.sync_cli()
    states = set(r[0] for r in a.run("SELECT state FROM godwit_conflict"))
    assert states == {"open", "auto"}
    waiting = a.run("SELECT id FROM godwit_dead_letters ORDER BY id")
    before = a.one("SELECT count(*) FROM godwit_outcome")
    bad = cli("init", a.path, "--keep-history", "soon")
    assert bad.code != 0 and "keep_history" in bad.err, bad
    assert cli("init", a.path, "--keep-history", "50ms", "--keep-archive", "50ms").code == 0

    def gone():
        a.sync_cli()
        return a.one("SELECT count(*) FROM godwit_outcome WHERE resolution IS NOT NULL") == 0 and before
    wait_until(gone, what="what has been dealt with is gone", every=0.06)
    assert a.run("SELECT DISTINCT state FROM godwit_conflict") == [("open",)]
    assert a.run("SELECT id FROM godwit_dead_letters ORDER BY id") == waiting
    assert a.run("SELECT payload FROM godwit_dead_letters WHERE entity_id = 'x-3'")[0][0]
    findings = cli("doctor", a.path).out.splitlines()  # the counters are right
    assert len(findings) == 1 and findings[0].startswith("failed"), findings
    a.run("SELECT godwit_edit(?, '{\"title\":\"good, too\"}')", letters["x-3"])
    settle(a, b)
    assert len(server.rows("pins")) == 4


def test_open_conflicts_outlive_the_janitor(world):
    columns = "id TEXT PRIMARY KEY, title TEXT, note TEXT"
    server = world.server(schema=f"CREATE TABLE pins ({columns});",
                          config=SHORT.format(ledger="2s") + "keep_conflicts = 1s\n[table pins]\npolicy.note = manual\n")
    a, b = (world.device(n, server, schema=f"CREATE TABLE pins ({columns});", tables=("pins",)) for n in "ab")
    a.run("INSERT INTO pins VALUES ('p-1', 'x', 'n')")
    settle(a, b)
    b.run("UPDATE pins SET title = 'of b', note = 'of b'")
    b.sync()
    a.run("UPDATE pins SET title = 'of a', note = 'of a'")
    a.sync_cli()
    for i in range(20):
        b.run("INSERT INTO pins VALUES (?, 'x', 'x')", f"q-{i}")
        b.sync()
    wait_until(lambda: forgotten(server) and server.query("SELECT state FROM godwit_conflict") == [("open",)],
               what="what is decided is gone, what is open is there")
    a.run("SELECT godwit_resolve(conflict_id, 'mine') FROM godwit_conflicts WHERE state = 'open'")
    settle(a, b)
    assert server.query("SELECT note FROM pins WHERE id = 'p-1'") == [("of a",)]
    assert b.one("SELECT note FROM pins WHERE id = 'p-1'") == "of a"


def test_a_device_keeps_what_was_decided_late(world):
    """Age counts from the decision, not from what was decided."""
    columns = "id TEXT PRIMARY KEY, title TEXT, note TEXT"
    server = world.server(schema=f"CREATE TABLE pins ({columns}, CHECK (title <> 'bad'));",
                          config="[table pins]\npolicy.note = manual\n")
    a, b = (world.device(n, server, schema=f"CREATE TABLE pins ({columns});", tables=("pins",)) for n in "ab")
    a.run("INSERT INTO pins VALUES ('p-1', 'x', 'n')")
    settle(a, b)
    b.run("UPDATE pins SET note = 'of b'")
    b.sync()
    a.run("UPDATE pins SET note = 'of a'")
    a.run("INSERT INTO pins VALUES ('p-2', 'bad', '')")
    a.sync_cli()
    settle(b)
    for device in (a, b):  # a year passes
        for table in ("godwit_conflict", "godwit_outcome"):
            device.run(f"UPDATE {table} SET at = '2020-01-02T03:04:05.678Z'")
    a.run("SELECT godwit_resolve(conflict_id, 'mine') FROM godwit_conflicts WHERE state = 'open'")
    letter = a.one("SELECT id FROM godwit_dead_letters WHERE status = 'failed'")
    a.run("SELECT godwit_edit(?, '{\"id\":\"p-2\",\"title\":\"good\"}')", letter)
    settle(a, b)
    for device in (a, b):
        device.run("DELETE FROM godwit_meta WHERE k = 'history'")  # tomorrow
        device.sync()
        assert device.run("SELECT state FROM godwit_conflicts") == [("resolved",)]
    assert [r[0] for r in a.run("SELECT resolution FROM godwit_outcome ORDER BY 1")] == ["edited", "resolved"]
    # and goes when it is old itself
    a.run("UPDATE godwit_conflict SET at = '2020-01-02T03:04:05.678Z'")
    a.run("DELETE FROM godwit_meta WHERE k = 'history'")
    a.sync()
    assert a.run("SELECT state FROM godwit_conflicts") == []
