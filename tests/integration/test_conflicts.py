"""Conflicts that a policy leaves to people: every device has the record, one decides, all follow."""
import json

import pytest

from harness import SCHEMA, assert_converged, chaos, cli, settle

MANUAL = "[table pins]\npolicy.title = manual\n"
STRICT = SCHEMA.replace("status TEXT", "status TEXT CHECK (status <> 'refused')")


@pytest.fixture
def contested(world):
    """Server and three devices; 'from a' was there first, b's operation met the conflict."""
    server = world.server(schema=STRICT, config=MANUAL)
    devices = [world.device(name, server) for name in ("a", "b", "c")]
    a, b, _ = devices
    a.run("INSERT INTO pins(id, title, note) VALUES ('p', 'old', 'n')")
    settle(a, b, rounds=1)
    a.run("UPDATE pins SET title = 'from a'")
    b.run("UPDATE pins SET title = 'from b', note = 'b'")
    settle(*devices)
    return server, devices


def ledger(device):
    return device.run("SELECT conflict_id, state, json(body) FROM godwit_conflicts ORDER BY conflict_id")


def assert_ledgers(server, devices, states):
    """All devices say the same, and what the server says."""
    listed = {entry["id"]: entry for entry in server.get("/v1/conflicts?scope=field").json["conflicts"]}
    first = ledger(devices[0])
    assert sorted(state for _, state, _ in first) == sorted(states)
    for device in devices:
        assert ledger(device) == first, device.name
    for conflict_id, state, text in first:
        body, entry = json.loads(text), listed[conflict_id]
        assert state == body["state"] == entry["state"]
        for name in set(entry) - {"id"}:
            assert body[name] == entry[name], name
        assert body["conflictId"] == conflict_id and len(body["opKey"]) == 64


def test_every_device_lists_an_open_conflict(world, contested):
    server, devices = contested
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["open"])
    late = world.device("late", server)
    late.sync()
    assert_ledgers(server, [late, *devices], ["open"])
    for device in (devices[2], late):
        body = json.loads(device.one("SELECT body FROM godwit_conflicts WHERE state = 'open'"))
        assert (body["base"], body["theirs"], body["ours"], body["chosen"]) == (
            {"title": "old"}, {"title": "from a"}, {"title": "from b"}, None)
        assert (body["columns"], body["policy"], body["winner"]) == (["title"], "manual", "none")


@pytest.mark.parametrize("choice, title", [
    ("mine", "from b"), ("theirs", "from a"), ('{"title": "both"}', "both"), ("{}", "from a")])
@pytest.mark.parametrize("who", [0, 1, 2])
def test_one_device_decides_and_all_follow(contested, who, choice, title):
    server, devices = contested
    conflict_id = devices[who].one("SELECT conflict_id FROM godwit_conflicts")
    operation = devices[who].one("SELECT godwit_resolve(?, ?)", conflict_id, choice)
    assert devices[who].one("SELECT title FROM pins") == title
    assert devices[who].one("SELECT status FROM sync_queue WHERE id = ?", operation) == "pending"
    settle(*devices)
    assert_converged(server, devices)
    assert devices[0].run("SELECT title, note FROM pins") == [(title, "b")]
    assert_ledgers(server, devices, ["resolved"])
    body = json.loads(devices[0].one("SELECT body FROM godwit_conflicts"))
    assert body["resolvedBy"] == "ana" and body["resolvedCommit"] > body["commitSeq"]


def test_two_people_decide_at_once(contested):
    """The first to arrive resolves; the other is a concurrent edit, and a conflict of its own."""
    server, devices = contested
    a, b, _ = devices
    a.run("SELECT godwit_resolve(conflict_id, '{\"title\":\"by a\"}') FROM godwit_conflicts")
    b.run("SELECT godwit_resolve(conflict_id, '{\"title\":\"by b\"}') FROM godwit_conflicts")
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved", "open"])
    assert a.one("SELECT title FROM pins") == "by a"
    b.run("SELECT godwit_resolve(conflict_id, 'mine') FROM godwit_conflicts WHERE state = 'open'")
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved", "resolved"])
    assert a.one("SELECT title FROM pins") == "by b"


def test_a_decision_survives_a_bad_network(world, contested):
    server, devices = contested
    a = devices[0]
    proxy = world.proxy(server, chaos(7, 0.5))
    a.run("SELECT godwit_resolve(conflict_id, 'mine') FROM godwit_conflicts")
    assert cli("init", a.path, "--url", proxy.url).code == 0
    for _ in range(40):
        if a.sync_cli("--timeout", "5000").code == 0:
            break
    assert cli("init", a.path, "--url", server.url).code == 0
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved"])


def test_a_decision_that_a_retry_brings_home(contested):
    """The operation is refused, its edit still resolves what it was made for."""
    server, devices = contested
    a, b, _ = devices
    conflict_id = b.one("SELECT conflict_id FROM godwit_conflicts")
    operation = b.one("SELECT godwit_resolve(?, ?)", conflict_id, '{"title": "x", "status": "refused"}')
    b.sync_cli()
    assert b.one("SELECT state FROM sync_queue WHERE id = ?", operation) == "rejected"
    assert b.one("SELECT state FROM godwit_conflicts WHERE conflict_id = ?", conflict_id) == "open"
    b.run("SELECT godwit_edit(?, ?)", operation, '{"title": "short"}')
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved", "auto"])  # the refusal has an entry of its own
    assert a.one("SELECT title FROM pins") == "short"


def test_a_tool_resolves_over_http(contested):
    """Without a stream and without a device: an operation with `resolves`."""
    server, devices = contested
    conflict_id = devices[0].one("SELECT conflict_id FROM godwit_conflicts")
    operation = {"id": "r", "operation": "update", "entityType": "pins", "entityId": "p",
                 "payload": {"title": "by a tool"}, "idempotencyKey": "r-1", "resolves": conflict_id}
    wrong = dict(operation, idempotencyKey="r-0", resolves="c-999-0")
    result = server.push([wrong]).json["results"][0]
    assert result["error"]["code"] == "validation" and "c-999-0" in result["error"]["detail"]
    assert server.push([operation]).json["results"][0]["status"] == "success"
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved"])
    assert devices[2].one("SELECT title FROM pins") == "by a tool"


def test_the_command_line_lists_shows_and_resolves(contested):
    server, devices = contested
    path = devices[2].path
    listed = cli("conflicts", path, "list", "--state", "open", "--json").json
    assert [(e["entityType"], e["entityId"], e["columns"], e["state"]) for e in listed] == [
        ("pins", "p", ["title"], "open")]
    conflict_id = listed[0]["id"]
    shown = cli("conflicts", path, "show", conflict_id)
    assert shown.code == 0 and "from b" in shown.out
    for arguments, code in ((("resolve", conflict_id), 2), (("resolve",), 2), (("resolve", "c-999-0", "mine"), 1),
                            (("resolve", conflict_id, "neither"), 1), (("list", "mine"), 2)):
        done = cli("conflicts", path, *arguments)
        assert done.code == code, done
        assert done.err
    assert devices[2].pending() == 0
    done = cli("conflicts", path, "resolve", conflict_id, "mine")
    assert done.code == 0 and len(done.out.strip()) == 36
    settle(*devices)
    assert_converged(server, devices)
    assert_ledgers(server, devices, ["resolved"])
    assert devices[0].one("SELECT title FROM pins") == "from b"
    done = cli("conflicts", path, "resolve", conflict_id, "theirs")
    assert done.code == 1 and "resolved already" in done.err


def test_counters_and_sets_add_up(world):
    """Three devices edit one counter and one set, offline, and so does a tool: everything counts."""
    server = world.server(schema=SCHEMA.replace("note TEXT", "note INTEGER"),
                          config="[table pins]\npolicy.note = counter\npolicy.status = set\n")
    devices = [world.device(name, server, schema=SCHEMA.replace("note TEXT", "note INTEGER")) for name in "abc"]
    a, b, c = devices
    a.run("INSERT INTO pins(id, note, status) VALUES ('p', 10, '[\"x\"]')")
    settle(*devices, rounds=1)
    a.run("UPDATE pins SET note = note + 5, status = '[\"x\",\"a\"]'")
    b.run("UPDATE pins SET note = note - 2, status = '[\"b\"]'")
    c.run("UPDATE pins SET status = '[]'")
    c.run("UPDATE pins SET note = note + 1, status = '[\"x\"]'")
    server.push([{"id": "t", "operation": "update", "entityType": "pins", "entityId": "p", "idempotencyKey": "t-1",
                  "payload": {"note": {"$inc": 100}, "status": {"$add": ["t"]}}}])
    settle(c, b, a)
    assert_converged(server, devices)
    assert a.one("SELECT note FROM pins") == 114
    # b took away the x it had seen, c has put one there since: add wins
    assert sorted(json.loads(a.one("SELECT status FROM pins"))) == ["a", "b", "t", "x"]
    assert a.one("SELECT count(*) FROM godwit_conflicts") == 0
