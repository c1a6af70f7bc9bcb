"""What people get wrong when they repair: they are told what it is, and nothing changes."""
import json
import sqlite3
import time

import pytest
from harness import SLOW, cli

DEVICE = """
CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT NOT NULL, depth INTEGER);
CREATE TABLE forms (id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id), body TEXT);
"""
SERVER = DEVICE.replace("depth INTEGER", "depth INTEGER CHECK (depth < 100)")


@pytest.fixture
def device(world):
    return world.device("a", world.server(schema=SERVER), schema=DEVICE)


def refused(device, *pins):
    for pin in pins:
        device.run("INSERT INTO pins VALUES (?, 'Well', 1200)", pin)
    device.sync_cli()
    return [r[0] for r in device.run("SELECT id FROM godwit_dead_letters ORDER BY lsn")]


def message(device, sql, *values):
    with pytest.raises(sqlite3.Error) as error:
        device.run(sql, *values)
    return str(error.value)


def test_edits_that_are_none(device):
    device.transaction("INSERT INTO pins VALUES ('p-1', 'Well', 1)", "INSERT INTO pins VALUES ('p-2', 'Deep', 1200)")
    device.sync_cli()
    first, second = [r[0] for r in device.run("SELECT id FROM godwit_dead_letters ORDER BY lsn")]
    before = device.run("SELECT * FROM godwit_dead_letters")
    for payload, part in [('{"titel": "Deep", "title": "Deep"}', "no column titel"),
                          ('{"id": "p-3", "title": "Deep"}', "the same row, p-2"),
                          ('{"id": "p-2", "depth": 9}', "NOT NULL"), ("{}", "NOT NULL"),
                          ("[]", "JSON object"), ("nonsense", "JSON object"), (None, "needs a payload")]:
        said = message(device, "SELECT godwit_edit(?, ?)", second, payload)
        assert part in said and first not in said, said
    for call in ("godwit_retry(NULL)", "godwit_discard(NULL)", "godwit_wait(NULL)"):
        assert "the id of an operation is needed" in message(device, f"SELECT {call}")
    assert "2,000 bytes" in message(device, "SELECT godwit_discard(?, ?)", second, "x" * 2001)
    assert device.run("SELECT * FROM godwit_dead_letters") == before and device.rows("pins") == []
    device.run("SELECT godwit_edit(?, ?)", second, '{"id": "p-2", "title": "Deep", "depth": 9}')
    device.sync()
    assert [r[0] for r in device.rows("pins")] == ["p-1", "p-2"]


def test_many_are_one_call(device):
    refused(device, "p-1", "p-2", "p-3")
    device.run("UPDATE pins SET title = title")
    made = json.loads(device.one("SELECT godwit_retry(json_group_array(id)) FROM godwit_dead_letters WHERE"
                                 " code = 'check-failed' AND entity_id < 'p-3'"))
    assert [m["status"] for m in made] == ["OK", "OK"]
    assert device.run("SELECT entity_id FROM godwit_dead_letters") == [("p-3",)]
    device.run("SELECT godwit_discard(id, 'test') FROM godwit_dead_letters")
    device.sync_cli()
    assert device.one("SELECT count(*) FROM sync_queue WHERE entity_id = 'p-1'") == 2
    assert cli("doctor", device.path, "--json").json["findings"][0]["code"] == "failed"


def test_row_by_row(device):
    """A statement may deal with the rows it reads, and those it takes along are done as well."""
    refused(device, *(f"p-{i}" for i in range(20)))
    device.transaction("INSERT INTO pins VALUES ('t-1', 'Well', 1200)", "INSERT INTO pins VALUES ('t-2', 'Well', 1)")
    device.sync_cli()
    letters = device.run("SELECT id, entity_id FROM godwit_dead_letters ORDER BY lsn")
    assert len(letters) == 22
    made = device.run("SELECT godwit_retry(id) FROM godwit_dead_letters WHERE entity_id > 'p-5'")
    assert len(made) == 6 and len(set(made)) == 6
    device.sync_cli()
    edited = device.run("SELECT godwit_edit(id, json_set(payload, '$.depth', 7)) FROM godwit_dead_letters WHERE"
                        " entity_id < 'p-3' AND code = 'check-failed'")
    assert len(edited) == 13
    device.run("SELECT godwit_discard(id, 'twice') FROM godwit_dead_letters WHERE entity_id LIKE 'p-%'")
    assert [r[0] for r in device.run("SELECT entity_id FROM godwit_dead_letters ORDER BY lsn")] == ["t-1", "t-2"]
    device.sync_cli()
    assert device.server.query("SELECT count(*), max(depth) FROM pins") == [(13, 7)]
    findings = [f["code"] for f in cli("doctor", device.path, "--json").json["findings"]]
    assert findings == ["failed"]  # the counters are right


def test_waiting_beside_a_reader(device):
    """A statement that still reads has the database as it was: waiting would wait in vain."""
    device.run("SELECT godwit_start()")
    device.run("INSERT INTO pins VALUES ('p-1', 'Well', 1)")
    begun = time.monotonic()
    said = message(device, "SELECT godwit_wait((SELECT id FROM sync_queue), 20000)")
    assert "still reading" in said and time.monotonic() - begun < 5 * SLOW
    id_ = device.one("SELECT id FROM sync_queue")
    assert json.loads(device.one("SELECT godwit_wait(?, 20000)", id_))["outcome"] == "applied"
    device.run("SELECT godwit_stop()")
    cursor = device.db.execute("SELECT 1 FROM pins UNION ALL SELECT 2 FROM pins")
    cursor.fetchone()
    other = device.connect()
    other.execute("INSERT INTO pins VALUES ('p-2', 'Well', 1)")
    other.close()
    assert "finish it first" in message(device, "SELECT godwit_sync()")
    cursor.close()
    assert json.loads(device.one("SELECT godwit_sync()"))["applied"] == 1


def test_events_of_the_future_are_not_forgotten(device):
    device.run("SELECT godwit_events_keep(1)")
    device.run("SELECT godwit_events_done(9000000000)")
    device.run("INSERT INTO pins VALUES ('p-1', 'Well', 1)")
    device.sync()
    kinds = [r[0] for r in device.run("SELECT kind FROM godwit_events")]
    assert kinds.count("queued") == 1 and kinds.count("outcome") == 1, kinds


def test_status_tells_of_errors_that_last(device):
    id_ = refused(device, "p-1")[0]
    assert "CHECK" in cli("status", device.path, "--json").json["lastError"]
    device.run("SELECT godwit_edit(?, '{\"title\": \"Well\", \"depth\": 1}')", id_)
    device.sync()
    assert cli("status", device.path, "--json").json["lastError"] is None


def test_starting_and_stopping_in_any_order(device):
    device.run("SELECT godwit_stop()")
    for _ in range(20):
        device.run("SELECT godwit_start('{\"localMs\": 10}'), godwit_start(), godwit_notify_network()")
        device.run("INSERT INTO pins VALUES (godwit_uuid7(), 'Well', 1)")
        device.run("SELECT godwit_stop(), godwit_stop()")
    device.run("SELECT godwit_start()")
    device.run("INSERT INTO pins VALUES ('last', 'Well', 1)")
    id_ = device.one("SELECT id FROM sync_queue WHERE entity_id = 'last'")
    assert json.loads(device.one("SELECT godwit_wait(?, 20000)", id_))["outcome"] == "applied"
    device.disconnect()  # while it runs
    device.sync()
    assert device.server.query("SELECT count(*) FROM pins") == [(21,)]
    assert device.one("SELECT count(*) FROM sync_queue") == 21
