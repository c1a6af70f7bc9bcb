"""The promises of ARCHITECTURE.md, one test each (1 to 5 and 7). tools/mutants breaks the code on purpose,
one line at a time, and demands that the test of the broken promise fails."""
import json
import os
import random
import signal
import subprocess
import threading
import time

from harness import BUILD, Proxy, assert_converged, chaos, settle
from stream import Stream
from test_kill import SHARED, WRITER


# ---- 1: a change is durable in the queue in the transaction that made it ----

def test_guarantee_1_row_and_operation_live_and_die_together(world, server, tmp_path):
    """Killed at 15 random moments: every row has its operation, every operation its row."""
    server.schema = None
    a = world.device("a", server, schema=SHARED)
    a.track("shared", ids="app")
    a.disconnect()
    generator = random.Random(7)
    for _ in range(15):
        process = subprocess.Popen(["/usr/bin/python3", WRITER, os.path.join(BUILD, "godwit"), a.path, "a",
                                    str(tmp_path / "side"), "0"])
        time.sleep(0.12 + generator.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    rows = {r[0] for r in a.rows("pins")} | {r[0] for r in a.rows("forms")}
    operations = {q["entity_id"] for q in a.queue("operation = 'create'")}
    assert len(rows) > 30
    assert rows == operations
    # groups: each transaction is one
    a.sync_cli()


def test_guarantee_1_commits_reach_the_disk(world, server):
    """A connection whose settings would lose commits in a power cut is raised to WAL + FULL before Godwit
    works with it; a rolled-back change leaves nothing."""
    a = world.device("a", server)
    a.run("PRAGMA synchronous = NORMAL")
    a.track("pins", initial="ignore")
    assert a.one("PRAGMA journal_mode") == "wal"
    assert a.one("PRAGMA synchronous") == 2
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    a.db.execute("BEGIN")
    a.run("INSERT INTO pins(id) VALUES ('p2')")
    a.db.execute("ROLLBACK")
    assert [q["entity_id"] for q in a.queue()] == ["p1"]


# ---- 2: at most once, never dropped ----

def test_guarantee_2_every_request_twice(world, server):
    """Each request is delivered two times; the client sees only the second answer."""
    proxy = world.proxy(server, lambda n, head, body: "twice")
    a = world.device("a", server, url=proxy.url)
    b = world.device("b", server, url=proxy.url)
    for i in range(20):
        a.run("INSERT INTO pins(id, title) VALUES (?, 'x')", f"p{i}")
    a.run("DELETE FROM pins WHERE id = 'p0'")
    settle(a, b)
    a.run("INSERT INTO pins(id, title) VALUES ('p0', 'again')")
    settle(a, b)
    assert_converged(server, [a, b])
    assert server.query("SELECT count(*), count(DISTINCT lineage || lsn) FROM godwit_op") == [(22, 22)]
    assert server.query("SELECT count(*) FROM godwit_commit") == [(22,)]


def test_guarantee_2_answers_lost(world, server):
    """The server decides, the answer never arrives; nothing is doubled and nothing stays behind."""
    lost = {"left": 4}

    def swallow(_n, head, _body):
        if head.startswith(b"POST /v1/sync") and lost["left"]:
            lost["left"] -= 1
            return "swallow"
        return "pass"

    proxy = world.proxy(server, swallow)
    a = world.device("a", server, url=proxy.url)
    a.run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
    for _ in range(6):
        a.sync_cli()
        a.run("UPDATE pins SET note = coalesce(note, '') || '+' WHERE id = 'p1'")
    a.sync()
    assert lost["left"] == 0
    assert_converged(server, [a])
    assert server.query("SELECT note FROM pins") == [("++++++",)]
    assert server.query("SELECT count(*), count(DISTINCT lineage || lsn) FROM godwit_op") == [(7, 7)]


def test_guarantee_2_tools_without_a_stream(server):
    """The requirements' body sent three times takes effect once."""
    operation = {"id": "1", "operation": "create", "entityType": "pins", "entityId": "p", "idempotencyKey": "k",
                 "payload": {"title": "x"}}
    first = server.push([operation]).json["results"][0]
    server.push([{"id": "2", "operation": "delete", "entityType": "pins", "entityId": "p", "idempotencyKey": "k2",
                  "payload": {}}])
    for _ in range(2):
        again = server.push([operation]).json["results"][0]
        assert again["status"] == "already_processed" and again["result"] == first["result"]
    assert server.rows("pins") == [], "a replay does not bring the row back"


def test_guarantee_2_what_is_refused_is_kept(world):
    server = world.server(schema="CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER CHECK (n < 10));")
    a = world.device("a", server, schema="CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER);", tables=["pins"])
    a.run("INSERT INTO pins VALUES ('good', 1)")
    a.run("INSERT INTO pins VALUES ('bad', 11)")
    a.sync_cli()
    a.sync_cli()
    assert a.rows("pins") == server.rows("pins") == [("good", 1)]
    letters = a.run("SELECT id, entity_id, code, payload FROM godwit_dead_letters")
    assert len(letters) == 1 and letters[0][1:3] == ("bad", "check-failed")
    assert json.loads(letters[0][3])["n"] == 11, "content kept"
    a.run("SELECT godwit_edit(?, ?)", letters[0][0], '{"n": 9}')
    a.sync()
    assert_converged(server, [a], ["pins"])
    assert ("bad", 9) in server.rows("pins")
    assert a.run("SELECT count(*) FROM godwit_dead_letters") == [(0,)]


# ---- 3: what was committed together is applied and becomes visible together ----

def test_guarantee_3_groups_are_never_seen_in_half(world, server):
    """A reader on another device sees both rows of a transaction or none, at every instant."""
    a, b = world.device("a", server), world.device("b", server)
    for i in range(60):
        a.transaction(("INSERT INTO pins(id) VALUES (?)", f"p{i}"),
                      ("INSERT INTO forms(id, pin_id) VALUES (?, ?)", f"f{i}", f"p{i}"))
    stop, seen = threading.Event(), []

    def watch():
        reader = b.connect(extension=False)
        while not stop.is_set():
            pins, forms = reader.execute("SELECT (SELECT count(*) FROM pins), (SELECT count(*) FROM forms)").fetchone()
            if pins != forms:
                seen.append((pins, forms))
        reader.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        a.sync()
        b.sync()
    finally:
        stop.set()
        watcher.join()
    assert not seen
    assert_converged(server, [a, b])
    assert server.query("SELECT count(*) FROM godwit_commit") == [(60,)]
    assert server.query("SELECT DISTINCT n FROM (SELECT count(*) n FROM godwit_change GROUP BY commit_seq)") == [(2,)]


def test_guarantee_3_one_bad_member_refuses_the_whole(world):
    server = world.server(schema="CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER CHECK (n < 10));")
    a = world.device("a", server, schema="CREATE TABLE pins (id TEXT PRIMARY KEY, n INTEGER);", tables=["pins"])
    a.transaction("INSERT INTO pins VALUES ('one', 1)", "INSERT INTO pins VALUES ('two', 11)",
                  "INSERT INTO pins VALUES ('three', 3)")
    a.run("INSERT INTO pins VALUES ('four', 4)")
    a.sync_cli()
    a.sync_cli()
    assert server.rows("pins") == [("four", 4)] == a.rows("pins")
    assert a.run("SELECT count(*) FROM godwit_dead_letters") == [(3,)]


def test_guarantee_3_a_refused_group_leaves_nothing_to_the_next(server):
    """In one push: a group that is refused at its second operation, then one that builds on its first."""
    s = Stream(server)
    pair = {"first": 1, "size": 2}
    results = s.push([s.op("create", "pins", "p1", {"title": "x"}, seq=1, group=pair),
                      s.op("update", "pins", "missing", {"title": "x"}, seq=2, group=pair),
                      s.op("update", "pins", "p1", {"title": "y"}, seq=3)]).json["results"]
    assert [r["status"] for r in results] == ["error"] * 3
    assert [r["error"]["code"] for r in results[1:]] == ["row-missing"] * 2
    assert server.rows("pins") == []
    assert [c["changes"] for c in server.pull()[0] if c.get("changes")] == []


# ---- 4: concurrent edits ----

def test_guarantee_4_columns_merge(server, devices):
    a, b, c = devices
    a.run("INSERT INTO pins(id, title, note) VALUES ('p', 't', 'n')")
    settle(a, b, c, rounds=1)
    a.run("UPDATE pins SET title = 'a'")
    b.run("UPDATE pins SET note = 'b'")
    c.run("UPDATE pins SET lat = 1.5")
    settle(c, b, a)
    assert_converged(server, devices)
    assert a.run("SELECT title, note, lat FROM pins") == [("a", "b", 1.5)]


def test_guarantee_4_a_policy_decides_and_the_loser_is_kept(world):
    server = world.server(config="[table pins]\npolicy.title = server_wins\npolicy.note = client_wins\n")
    a, b = world.device("a", server), world.device("b", server)
    a.run("INSERT INTO pins(id, title, note) VALUES ('p', 't', 'n')")
    settle(a, b, rounds=1)
    a.run("UPDATE pins SET title = 'first', note = 'first'")
    b.run("UPDATE pins SET title = 'second', note = 'second'")
    a.sync()
    b.sync()
    settle(a, b)
    assert_converged(server, [a, b])
    assert a.run("SELECT title, note FROM pins") == [("first", "second")]
    entries = server.query("SELECT policy, winner, theirs, ours FROM godwit_conflict ORDER BY policy")
    kept = " ".join(t + o for _, _, t, o in entries)
    assert sorted(e[0] for e in entries) == ["client_wins", "server_wins"]
    assert kept.count("first") == 2 and kept.count("second") == 2


def test_guarantee_4_no_clock_decides_alone(server, devices):
    """An edit made with knowledge of another wins over it, even if its device's clock is decades behind."""
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p', 't')")
    settle(a, b, rounds=1)
    a.run("UPDATE pins SET title = 'from the future'")
    a.run("UPDATE godwit_log SET wall = wall + 36500 WHERE lsn = (SELECT max(lsn) FROM godwit_log)")
    settle(a, b, rounds=1)
    b.run("UPDATE pins SET title = 'saw it and changed it'")
    b.run("UPDATE godwit_log SET wall = wall - 9000 WHERE lsn = (SELECT max(lsn) FROM godwit_log)")
    settle(b, a, c)
    assert_converged(server, devices)
    assert c.one("SELECT title FROM pins") == "saw it and changed it"


def test_guarantee_4_a_delete_that_saw_the_edit_deletes(server, devices):
    """edit_wins protects edits the deleting user could not know of, not those on the screen."""
    a, b, c = devices
    a.run("INSERT INTO pins(id, title) VALUES ('p', 't')")
    a.run("UPDATE pins SET title = 'edited'")
    settle(a, b, rounds=1)
    b.run("DELETE FROM pins")
    settle(b, a, c)
    assert_converged(server, devices)
    assert server.rows("pins") == []
    assert server.query("SELECT count(*) FROM godwit_conflict") == [(0,)]


# ---- 5: convergence ----

def random_edit(generator, device, ids):
    id = generator.choice(ids)
    kind = generator.random()
    column = generator.choice(["title", "note", "status"])
    if kind < 0.3:
        device.run("INSERT OR IGNORE INTO pins(id, title) VALUES (?, ?)", id, f"{device.name}{generator.random():.3f}")
    elif kind < 0.75:
        device.run(f"UPDATE pins SET {column} = ? WHERE id = ?", f"{device.name}{generator.random():.3f}", id)
    elif kind < 0.9:
        device.run("DELETE FROM pins WHERE id = ?", id)
    else:
        device.transaction(("INSERT OR REPLACE INTO pins(id, title) VALUES (?, 'r')", id),
                           ("INSERT OR IGNORE INTO forms(id, pin_id, body) VALUES (?, ?, 'x')",
                            f"f{generator.randrange(9)}", id))


def test_guarantee_5_all_replicas_converge(world, server):
    """Random edits on three devices through a network that loses, cuts, repeats and delays."""
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    proxy = world.proxy(server, chaos(seed, 0.4))
    devices = [world.device(n, server, url=proxy.url) for n in "abc"]
    ids = [f"p{i}" for i in range(8)]
    for _ in range(60):
        device = generator.choice(devices)
        for _ in range(generator.randrange(1, 4)):
            random_edit(generator, device, ids)
        if generator.random() < 0.5:
            device.sync_cli()
    proxy.behave = lambda n, head, body: "pass"
    settle(*devices)
    assert_converged(server, devices)
    operations = server.query("SELECT count(*), count(DISTINCT lineage || ':' || lsn) FROM godwit_op")[0]
    assert operations[0] == operations[1]


# ---- 7: the application never waits for the network ----

def test_guarantee_7_writes_go_on_during_a_request(world, server):
    """The server takes 3 s for every answer; meanwhile the application writes at its own speed."""
    proxy = Proxy(server, lambda n, head, body: ("delay", 3))
    world.add(proxy)
    a = world.device("a", server, url=proxy.url)
    a.run("INSERT INTO pins(id) VALUES ('first')")
    sync = a.spawn_sync()
    slowest, written = 0.0, 0
    while sync.poll() is None and written < 2000:
        started = time.monotonic()
        a.run("INSERT INTO pins(id) VALUES (?)", f"p{written}")
        slowest = max(slowest, time.monotonic() - started)
        written += 1
        time.sleep(0.01)
        if len(proxy.requests) >= 2:
            proxy.behave = lambda n, head, body: "pass"
    sync.stderr.close()
    sync.wait()
    assert written > 50
    assert slowest < 1.0, f"a write waited {slowest:.1f} s"
    a.sync()
    assert_converged(server, [a])
