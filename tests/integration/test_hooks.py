"""Rules of the server's owner: what they refuse, what they merge, and what happens when they misbehave.
The library under test is tests/hooks/unruly.c, which does what its input says, or the example."""
import json
import os
import shutil
import threading
import time

import pytest

from harness import SERVER_BUILD, SLOW, assert_converged, cli, free_port, settle, wait_until

TIMEOUT_MS = 300 * SLOW
CONFIG = """[server]
hooks = {library}
hook_timeout = {timeout}ms
[table pins]
validate = yes
policy.note = custom:lines
"""


def library(world, name, mode=0o755):
    built = {"notes": "examples/hooks", "unruly": "tests/hooks", "older": "tests/hooks"}[name]
    path = os.path.join(world.folder("hooks"), name + ".so")
    shutil.copy(os.path.join(SERVER_BUILD, built, name + ".so"), path)
    os.chmod(path, mode)
    return path


def ruled(world, name="unruly"):
    return world.server(config=CONFIG.format(library=library(world, name), timeout=TIMEOUT_MS))


def create(id, **payload):
    return {"id": f"op-{id}", "operation": "create", "entityType": "pins", "entityId": id,
            "idempotencyKey": f"key-{id}", "payload": payload}


def workers(server):
    """Processes of the server that run hooks."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stream:
                parent = int(stream.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == server.process.pid:
            found.append(int(pid))
    return found


def test_a_refused_operation_is_kept_with_the_reason(world):
    server = ruled(world, "notes")
    a, b = [world.device(name, server) for name in "ab"]
    a.run("INSERT INTO pins(id, title) VALUES ('good', 'Well')")
    a.run("INSERT INTO pins(id, title, note) VALUES ('bad', 'W', 'kept')")
    settle(a, b)
    assert_converged(server, [a, b])
    assert [row[0] for row in b.rows("pins")] == ["good"]
    code, detail, payload = a.run("SELECT code, detail, payload FROM godwit_dead_letters")[0]
    assert (code, detail) == ("validation", "a title has at least three letters")
    assert json.loads(payload)["note"] == "kept"
    a.run("SELECT godwit_edit(id, '{\"title\":\"Well 2\",\"note\":\"kept\"}') FROM sync_queue WHERE status = 'failed'")
    settle(a, b)
    assert_converged(server, [a, b])
    assert [row[:3] for row in b.rows("pins")] == [("bad", "Well 2", "kept"), ("good", "Well", None)]


def test_a_transaction_is_refused_as_a_whole(world):
    server = ruled(world)
    a = world.device("a", server)
    a.transaction("INSERT INTO pins(id, title) VALUES ('p1', 'fine')",
                  "INSERT INTO pins(id, title) VALUES ('p2', 'bad')")
    a.sync()
    assert a.rows("pins") == [] and server.rows("pins") == []
    assert sorted(a.run("SELECT code, detail FROM godwit_dead_letters")) == [
        ("dependency-failed", "rolled back with its group"), ("validation", 'p2 by ana is not "good"')]


def contested(world, name, ours, theirs="from a", base="base"):
    server = ruled(world, name)
    a, b = devices = [world.device(name, server) for name in "ab"]
    a.run("INSERT INTO pins(id, title, note) VALUES ('pin', 'Title', ?)", base)
    settle(*devices, rounds=1)
    a.run("UPDATE pins SET note = ?", theirs)
    b.run("UPDATE pins SET note = ?", ours)
    settle(*devices)
    assert_converged(server, devices)
    return server, devices


def entry(server):
    (found,) = server.get("/v1/conflicts?scope=field").json["conflicts"]
    return found


def test_two_texts_are_merged_on_all_replicas(world):
    server, (a, b) = contested(world, "notes", "milk\nbread\nham", "milk\neggs", "milk\nbread")
    assert a.run("SELECT note FROM pins") == b.run("SELECT note FROM pins") == [("milk\neggs\nham",)]
    found = entry(server)
    assert (found["state"], found["policy"], found["winner"]) == ("auto", "custom:lines", "merged")
    assert found["chosen"] == {"note": "milk\neggs\nham"}
    assert found["ours"] == {"note": "milk\nbread\nham"} and found["theirs"] == {"note": "milk\neggs"}
    a.run("SELECT godwit_revert(conflict_id) FROM godwit_conflicts")
    settle(a, b)
    assert b.run("SELECT note FROM pins") == [("milk\nbread\nham",)]


def test_the_next_edit_does_not_undo_a_merge_it_had_not_seen(world):
    for together in (False, True):
        server = ruled(world, "notes")
        a, b = devices = [world.device(f"{name}{together}", server) for name in "ab"]
        a.run("INSERT INTO pins(id, title, note) VALUES ('pin', 'Title', 'milk')")
        settle(*devices, rounds=1)
        a.run("UPDATE pins SET note = 'milk\neggs'")
        edits = ["UPDATE pins SET note = 'milk\nham'", "UPDATE pins SET note = 'milk\nham\nsalt'"]
        if together:
            b.transaction(*edits)
        else:
            for edit in edits:
                b.run(edit)
        settle(*devices)
        assert_converged(server, devices)
        assert a.run("SELECT note FROM pins") == [("milk\neggs\nham\nsalt",)], together


def test_many_conflicts_of_one_push_are_asked_in_one_round(world):
    server = ruled(world, "notes")
    a, b = devices = [world.device(name, server) for name in "ab"]
    a.transaction(*[f"INSERT INTO pins(id, title, note) VALUES ('p{i}', 'Title', 'x')" for i in range(200)])
    settle(*devices, rounds=1)
    a.run("UPDATE pins SET note = 'x\na'")
    for i in range(200):
        b.run(f"UPDATE pins SET note = 'x\nb' WHERE id = 'p{i}'")
    settle(*devices)
    assert_converged(server, devices)
    assert a.run("SELECT DISTINCT note FROM pins") == [("x\na\nb",)]


@pytest.mark.parametrize("what", ["crash", "end", "hang", "much", "garbage", "wild"])
def test_a_conflict_whose_rule_fails_is_left_to_people(world, what):
    server, (a, b) = contested(world, "unruly", what + " now")
    assert a.run("SELECT note FROM pins") == [("from a",)]
    found = entry(server)
    assert (found["state"], found["policy"], found["winner"]) == ("open", "custom:lines", "none")
    assert found["ours"] == {"note": what + " now"}
    b.run("UPDATE pins SET note = 'fine' WHERE id = 'pin'")  # and the rule works for the others
    a.run("UPDATE pins SET note = 'too' WHERE id = 'pin'")
    settle(a, b)
    assert_converged(server, [a, b])
    assert a.run("SELECT note FROM pins") == [("too+fine",)]


@pytest.mark.parametrize("what", ["crash", "end", "hang", "garbage"])
def test_an_operation_whose_rule_fails_is_refused_and_kept(world, what):
    server = ruled(world)
    a = world.device("a", server)
    a.run("INSERT INTO pins(id, title) VALUES ('p0', 'before')")
    a.run("INSERT INTO pins(id, title) VALUES ('p1', ?)", what)
    a.run("INSERT INTO pins(id, title) VALUES ('p2', 'behind')")
    a.sync()
    assert [row[0] for row in server.rows("pins")] == ["p0", "p2"]
    assert a.run("SELECT code FROM godwit_dead_letters") == [("hook-failed",)]
    assert 'godwit_hook_questions_total{outcome="failed"} 2' in server.get("/metrics").body.decode()
    os.chmod(server.config, 0o644)
    fixed = os.path.join(world.folder("fixed"), "notes.so")
    shutil.copy(library(world, "notes"), fixed)
    with open(server.config, "w") as stream:
        stream.write(CONFIG.format(library=fixed, timeout=TIMEOUT_MS))
    server.restart()
    a.run("SELECT godwit_retry(id) FROM sync_queue WHERE status = 'failed'")
    a.sync()
    assert len(server.rows("pins")) == 3


def test_a_broken_rule_costs_a_push_a_bounded_time(world):
    server = ruled(world)
    operations = [create(f"p{i}", title="hang") for i in range(40)]
    begun = time.monotonic()
    answer = server.push(operations)
    assert time.monotonic() - begun < 10 * TIMEOUT_MS / 1000 + 4 * SLOW
    assert {r["error"]["code"] for r in answer.json["results"]} == {"hook-failed"}


def test_others_are_not_delayed_by_a_rule_that_hangs(world):
    server = ruled(world)
    stop = threading.Event()
    answers = []

    def hang(number):
        count = 0
        while not stop.is_set():
            count += 1
            answers.append(server.push([create(f"h{number}-{count}-{i}", title="hang") for i in range(3)]))

    def took(operation):
        begun = time.monotonic()
        answer = server.push([operation])
        assert answer.status == 200 and answer.json["results"][0]["status"] == "success", answer
        return time.monotonic() - begun

    threads = [threading.Thread(target=hang, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: 'outcome="failed"} 0' not in server.get("/metrics").body.decode(), what="a failure")
        plain = [took({"id": f"f{i}", "operation": "create", "entityType": "forms", "entityId": f"f{i}",
                       "idempotencyKey": f"f{i}", "payload": {"name": "x"}}) for i in range(50)]
        asked = [took(create(f"g{i}", title="good")) for i in range(3)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sorted(plain)[-3] < TIMEOUT_MS / 1000 / 3, plain  # who needs no rule does not notice
    assert max(asked) < 4 * TIMEOUT_MS / 1000 + 2 * SLOW, asked  # who does waits for a few turns of others
    assert all(answer.status == 200 for answer in answers)


def test_processes_come_back_and_end_with_the_server(world):
    server = ruled(world)
    server.push([create("p1", title="fine")])
    first = workers(server)
    assert len(first) >= 1
    for pid in first:
        os.kill(pid, 9)
    assert server.push([create("p2", title="fine")]).json["results"][0]["status"] == "success"
    last = workers(server)
    server.kill()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") and "godwit" in open(
        f"/proc/{pid}/cmdline").read() for pid in last), what="the end of the processes")


def test_a_library_that_is_gone_delays_and_loses_nothing(world):
    server = ruled(world)
    path = os.path.join(world.path, "away.so")
    with open(server.config) as stream:
        loaded = next(line.split(" = ")[1].strip() for line in stream if line.startswith("hooks"))
    os.rename(loaded, path)
    answer = server.push([create("p1", title="fine")])
    assert (answer.status, answer.problem) == (503, "overloaded") and answer.headers["Retry-After"]
    os.rename(path, loaded)
    assert server.push([create("p1", title="fine")]).json["results"][0]["status"] == "success"


@pytest.mark.parametrize("case, says", [
    ("missing", "No such file"), ("older", "made for version 0"), ("writable", "written by others"),
    ("text", "can't be loaded"), ("relative", "absolute path"), ("none", "needs a library of hooks")])
def test_a_bad_library_is_refused_before_anything_starts(world, case, says):
    path = {"missing": "/nowhere/x.so", "relative": "x.so"}.get(case)
    if case in ("older", "writable"):
        path = library(world, "older" if case == "older" else "unruly", 0o777 if case == "writable" else 0o755)
    if case == "text":
        path = os.path.join(world.folder("hooks"), "text.so")
        with open(path, "w") as stream:
            stream.write("not a library")
        os.chmod(path, 0o644)
    text = CONFIG.format(library=path, timeout=100)
    config = os.path.join(world.folder("config"), "godwit.conf")
    schema = os.path.join(world.folder("schema"), "schema.sql")
    with open(config, "w") as stream:
        stream.write(text if case != "none" else text.split("hook_timeout")[0].split("hooks")[0]
                     + text[text.index("[table"):])
    with open(schema, "w") as stream:
        stream.write("CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, note TEXT)")
    data = world.folder("data")
    for last in (["--check-config"], ["--listen", f"127.0.0.1:{free_port()}"]):
        done = cli("serve", "--config", config, "--schema", schema, "--data", data, *last)
        assert done.code == 1 and says in done.err, done


def test_a_library_is_tried_without_a_server(world):
    question = {"hook": "resolve", "rule": "lines", "scope": "s", "table": "pins", "id": "1",
                "columns": [{"name": "note", "base": "a", "theirs": "a\nb", "ours": "a\nc"}]}
    done = cli("hook", library(world, "notes"), input=json.dumps(question) + "\nnonsense\n")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0 and lines == [
        {"godwitHooks": 1, "validate": True, "resolve": True},
        {"answer": "decided", "values": ["a\nb\nc"]}, {"error": "not a question"}]
