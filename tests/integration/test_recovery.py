"""When something goes wrong at scale: bad operations hold back only what depends on them, in both
directions, and everything can be put right."""
import json

from harness import assert_converged, cli, settle

STRICT = """
CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, n INTEGER CHECK (n < 10));
CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body TEXT);
"""
LOOSE = STRICT.replace(" CHECK (n < 10)", "")
CHAINS, OTHERS, THEIRS = 50, 9800, 600


def refused(device):
    return device.one("SELECT count(*) FROM godwit_dead_letters")


def fill(device):
    """10,000 operations of single transactions, 200 of them in chains that begin with a bad one, spread
    evenly: create a pin with a value the server refuses, its form, an update of each."""
    db = device.connect(extension=False)  # no group marker: each operation stands for itself
    db.execute("BEGIN")
    every = OTHERS // CHAINS
    for i in range(OTHERS):
        db.execute("INSERT INTO pins VALUES (?, ?, ?)", (f"good-{i:05}", f"title {i}", i % 10))
        if i % every == every // 2:
            c = i // every
            db.execute("INSERT INTO pins VALUES (?, 'bad', 99)", (f"bad-{c:02}",))
            db.execute("INSERT INTO forms VALUES (?, ?, 'new')", (f"form-{c:02}", f"bad-{c:02}"))
            db.execute("UPDATE forms SET body = 'written' WHERE id = ?", (f"form-{c:02}",))
            db.execute("UPDATE pins SET title = 'later' WHERE id = ?", (f"bad-{c:02}",))
    db.execute("COMMIT")
    db.close()


def test_two_hundred_poison_operations_among_ten_thousand(world):
    server = world.server(schema=STRICT)
    a, b = (world.device(name, server, schema=LOOSE) for name in ("a", "b"))
    fill(a)
    b.transaction(*[("INSERT INTO pins VALUES (?, 'of b', 1)", f"theirs-{i:04}") for i in range(THEIRS)])
    b.sync()
    assert a.one("SELECT pending_operations FROM godwit_metrics") == OTHERS + 4 * CHAINS

    a.sync_cli()
    settle(b)
    # all that can flow has flowed, both ways
    assert server.query("SELECT count(*) FROM pins") == [(OTHERS + THEIRS,)]
    assert_converged(server, [a, b])
    # the rest is here with its content and its reason, and nothing of it is in the tables
    assert a.run("SELECT code, count(*) FROM godwit_dead_letters GROUP BY code ORDER BY code") == [
        ("check-failed", CHAINS), ("dependency-failed", 3 * CHAINS)]
    assert a.one("SELECT count(*) FROM godwit_dead_letters WHERE payload IS NULL OR detail IS NULL") == 0
    assert a.one("SELECT queue_length FROM godwit_metrics") == 4 * CHAINS

    # still wrong: all of it comes back, and nothing else is disturbed
    done = cli("queue", a.path, "retry", "--failed")
    assert done.code == 0 and len(done.out.split()) == 4 * CHAINS, done
    assert a.one("SELECT count(*) FROM pins WHERE id LIKE 'bad%'") == CHAINS
    a.sync_cli()
    assert refused(a) == 4 * CHAINS
    assert_converged(server, [a, b])

    # put right: half by a file of edits, half by SQL, the dependants come along
    lines = [json.loads(line) for line in cli("queue", a.path, "export", "--failed").out.splitlines()]
    roots = [line for line in lines if line["code"] == "check-failed"]
    assert len(lines) == 4 * CHAINS and len(roots) == CHAINS
    edits = "\n".join(json.dumps({"id": r["id"], "payload": dict(r["payload"], n=7)}) for r in roots[::2])
    done = cli("queue", a.path, "edit", "--from", "-", "--json", input=edits)
    assert done.code == 0 and len(done.json) == 4 * len(roots[::2]), done
    answer = a.one("SELECT godwit_edit(?)", json.dumps({r["id"]: dict(r["payload"], n=8) for r in roots[1::2]}))
    assert {e["status"] for e in json.loads(answer)} == {"OK"}
    assert refused(a) == 0
    settle(a, b, rounds=2)

    assert refused(a) == 0 and a.one("SELECT queue_length FROM godwit_metrics") == 0
    assert_converged(server, [a, b])
    assert server.query("SELECT count(*), min(title), max(title), min(n) FROM pins WHERE id LIKE 'bad%'") == [
        (CHAINS, "later", "later", 7)]
    assert server.query("SELECT count(*), min(body), max(body) FROM forms") == [(CHAINS, "written", "written")]
    assert a.run("SELECT outcome, count(*) FROM godwit_receipts GROUP BY outcome ORDER BY outcome") == [
        ("applied", OTHERS + 4 * CHAINS), ("superseded", 8 * CHAINS)]
    assert cli("doctor", a.path).code == 0


def test_what_waits_survives_a_killed_process(world):
    """Refusal, repair and their receipts are facts of the database, not of a process."""
    server = world.server(schema=STRICT)
    a = world.device("a", server, schema=LOOSE)
    a.transaction("INSERT INTO pins VALUES ('p', 'x', 99)", "INSERT INTO forms VALUES ('f', 'p', 'x')")
    a.sync_cli()
    a.disconnect()
    operation = a.one("SELECT id FROM godwit_dead_letters WHERE entity_id = 'p'")
    new = a.one("SELECT godwit_edit(?, '{\"n\": 1}')", operation)
    a.disconnect()
    process = a.spawn_sync()
    process.kill()
    process.wait()
    process.stderr.close()
    a.sync()
    assert a.one("SELECT superseded_by FROM godwit_receipts WHERE id = ?", operation) == new
    assert a.one("SELECT outcome FROM godwit_receipts WHERE id = ?", new) == "applied"
    assert_converged(server, [a])
    assert server.query("SELECT count(*) FROM forms") == [(1,)]
    assert server.query("SELECT count(DISTINCT commit_seq), count(*) FROM godwit_change WHERE tbl IN ('pins', 'forms')"
                        ) == [(1, 2)], "what was one transaction came back as one"


def test_a_retried_conflict_is_decided(world):
    """Retry and edit are a person's choice: the ledger closes on the server and everywhere else."""
    columns = "id TEXT PRIMARY KEY, title TEXT"
    server = world.server(schema=f"CREATE TABLE pins ({columns});", config="[table pins]\npolicy.title = manual\n")
    a, b = (world.device(n, server, schema=f"CREATE TABLE pins ({columns});", tables=("pins",)) for n in "ab")
    a.run("INSERT INTO pins VALUES ('p-1', 'x'), ('p-2', 'x'), ('p-3', 'x')")
    settle(a, b)
    b.run("UPDATE pins SET title = 'of b'")
    b.sync()
    for i in (1, 2, 3):
        a.run("UPDATE pins SET title = 'of a' WHERE id = ?", f"p-{i}")
    a.sync_cli()
    letters = dict(a.run("SELECT entity_id, id FROM godwit_dead_letters WHERE status = 'conflict'"))
    assert len(letters) == 3
    a.run("SELECT godwit_retry(?)", letters["p-1"])
    a.run("SELECT godwit_edit(?, '{\"title\":\"of both\"}')", letters["p-2"])
    for _ in range(2):
        a.sync_cli()
        b.sync()
    titles = [("p-1", "of a"), ("p-2", "of both"), ("p-3", "of b")]
    assert server.rows("pins") == a.rows("pins") == b.rows("pins") == titles
    ledger = [("p-1", "resolved"), ("p-2", "resolved"), ("p-3", "open")]
    assert server.query("SELECT pk, state FROM godwit_conflict ORDER BY pk") == ledger
    for device in (a, b):
        assert device.run("SELECT entity_id, state FROM godwit_conflicts ORDER BY entity_id") == ledger
    assert [r[0] for r in a.run("SELECT entity_id FROM godwit_dead_letters")] == ["p-3"]
