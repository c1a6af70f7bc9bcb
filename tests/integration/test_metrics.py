"""What the server tells operators: /metrics under promtool, its numbers against what was done, a fleet's queues
from the devices' own reports, and /readyz when the disk is full."""
import os
import shutil
import subprocess

import pytest

from harness import SCHEMA, SLOW, settle, wait_until

PROMTOOL = shutil.which("promtool")


def scrape(server):
    answer = server.get("/metrics", token="")
    assert answer.status == 200
    return answer.body.decode()


def numbers(server):
    """{'name{labels}': value}, labels as they are written."""
    found = {}
    for line in scrape(server).splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in found, name
            found[name] = float(value)
    return found


def test_promtool_accepts_it(world, server):
    if not PROMTOOL:
        pytest.skip("promtool is not installed: tools/setup")
    for fill in (False, True):
        if fill:
            busy(world, server)
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=scrape(server), capture_output=True, text=True)
        assert done.returncode == 0 and not done.stdout and not done.stderr, done


def test_names_that_look_like_metrics(world):
    """A device of a server that takes any table chooses their names."""
    server = world.server(schema=None, dev=True)
    names = ['p"} 1', "back\\slash", "{x='y'}", "ü,=\"", "up 0 #"]
    a = world.device("a", server, schema=None, tables=())
    a.init()
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        a.run(f"CREATE TABLE {quoted} (id TEXT PRIMARY KEY, x)")
        a.run("SELECT godwit_track(?)", name)
        a.run(f"INSERT INTO {quoted} VALUES ('1', 1)")
    a.sync()
    text = scrape(server)
    operations = [line for line in text.splitlines() if line.startswith("godwit_operations_total{")]
    for name in names:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        assert sum(f'"{escaped}"' in line for line in operations) >= 1, (name, operations)
    assert len([line for line in text.splitlines() if line.startswith("godwit_ready")]) == 1
    assert "\n\n" not in text.strip()
    if PROMTOOL:
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stdout and not done.stderr, done


def busy(world, server):
    """A bit of everything; returns two devices."""
    a, b = world.device("a", server), world.device("b", server)
    a.transaction("INSERT INTO pins(id, title) VALUES ('1', 'one')", "INSERT INTO forms(id, pin_id) VALUES ('f', '1')")
    settle(a, b)
    a.run("UPDATE pins SET title = 'from a'")
    b.run("UPDATE pins SET title = 'from b'")
    settle(a, b)
    refused = {"id": "x", "operation": "create", "entityType": "forms", "entityId": "g", "idempotencyKey": "k-1",
               "payload": {"id": "g", "pin_id": "no such pin"}}
    assert server.push([refused], scope="field").json["results"][0]["status"] == "error"
    unknown = dict(refused, id="y", entityType="made up", idempotencyKey="k-2")
    assert server.push([unknown], scope="field").json["results"][0]["status"] == "error"
    assert server.push([refused], scope="field").json["results"][0]["status"] == "already_processed"
    return a, b


def test_numbers_are_what_happened(world, server):
    busy(world, server)
    n = numbers(server)
    operations = {key: value for key, value in n.items() if key.startswith("godwit_operations_total")}
    total = server.query("SELECT count(*) FROM godwit_op")[0][0]
    streams = sum(v for k, v in operations.items() if 'entity="other"' not in k and "resent" not in k
                  and "rejected" not in k)
    assert streams == total, operations
    assert operations['godwit_operations_total{outcome="rejected",entity="forms"}'] == 1
    assert operations['godwit_operations_total{outcome="rejected",entity="other"}'] == 1  # no label of a client's making
    assert operations['godwit_operations_total{outcome="resent",entity="forms"}'] == 1
    assert n['godwit_rejections_total{code="fk-violation"}'] == 1
    assert n['godwit_rejections_total{code="unknown-entity"}'] == 1
    assert n['godwit_conflicts_total{kind="field",state="auto"}'] == \
        server.query("SELECT count(*) FROM godwit_conflict WHERE kind = 'field'")[0][0] == 1
    assert n["godwit_commit_groups_count"] <= n["godwit_write_batches_total"]
    assert n["godwit_commit_operations_sum"] == sum(v for k, v in operations.items() if "resent" not in k)
    assert n["godwit_push_seconds_count"] >= 5 and n["godwit_pull_seconds_count"] >= 2
    assert n['godwit_push_seconds_bucket{le="+Inf"}'] == n["godwit_push_seconds_count"]
    for step in ("begin", "decide", "commit", "read"):
        assert n[f'godwit_store_seconds_count{{step="{step}"}}'] > 0, step
    assert n["godwit_connections"] >= 1 and n["godwit_ready"] == 1


def test_labels_are_bounded(world):
    """Tables a client makes up are told apart up to a number."""
    server = world.server(schema=None, dev=True)
    tables = [{"name": f"t{n}", "columns": [{"name": "id", "type": "TEXT"}], "primaryKey": ["id"]} for n in range(90)]
    answer = server.post("/v1/devices", {"deviceId": "d-1", "lineage": "d-1", "scopes": ["field"], "tables": tables})
    assert answer.status == 200, answer
    for n in range(90):
        done = server.push([{"id": "x", "operation": "create", "entityType": f"t{n}", "entityId": "1",
                             "idempotencyKey": f"k{n}", "payload": {"id": "1"}}], scope="field").json
        assert done["results"][0]["outcome"] == "applied", done
    found = [key for key in numbers(server) if key.startswith("godwit_operations_total")]
    assert len(found) == 65, found
    assert numbers(server)['godwit_operations_total{outcome="applied",entity="other"}'] == 26


def test_devices_report_their_queues(world, server):
    devices = [world.device(name, server) for name in "abc"]
    settle(*devices)
    a = devices[0]
    a.run("INSERT INTO pins(id, title) VALUES ('1', 'one')")
    a.run("INSERT INTO forms(id, pin_id) VALUES ('f', 'nowhere')") if False else None
    settle(*devices)
    told = dict(server.query("SELECT device_id, report FROM godwit_device WHERE report IS NOT NULL"))
    assert list(told.values()) == ['{"pending":0,"failed":0,"oldestPendingMs":0,"lastError":null}'], told
    n = wait_until(lambda: (lambda m: m if m['godwit_devices{pending="0"}'] == 3 else None)(numbers(server)), timeout=15,
                   what="a walk through the devices")
    assert n['godwit_devices_seen{ago="minute"}'] == 3 and n["godwit_dead_letters"] == 0
    # a device far behind, whatever its name for itself
    body = {"deviceId": a.meta("lineage"), "scope": "field", "timestamp": "2026-01-02T03:04:05.678Z", "ackedSeq": 1,
            "confirmedSeq": 1, "wallMs": 1, "operations": []}
    for wrong in ({"pending": -1}, {"pending": "many"}, {"lastError": "Not a code!"}, {"failed": 1e300},
                  {"x": "y" * 2000}, []):
        answer = server.post("/v1/sync", dict(body, report=wrong))
        assert answer.status == 400 and answer.problem == "invalid-request", (wrong, answer)
    assert server.post("/v1/sync", dict(body, report={"pending": 5, "news": True})).status == 200
    with server_store(server) as store:
        store.execute("UPDATE godwit_device SET report = '{\"pending\":500,\"failed\":7,\"oldestPendingMs\":7200000}'"
                      " WHERE device_id = ?", (a.meta("lineage"),))
    n = wait_until(lambda: (lambda m: m if m["godwit_dead_letters"] == 7 else None)(numbers(server)), timeout=15,
                   what="another walk")
    assert n['godwit_devices{pending="101-1000"}'] == 1 and n["godwit_device_pending_operations"] == 500
    assert n['godwit_devices_oldest_pending{age="day"}'] == 1
    assert 7200 <= n["godwit_device_oldest_pending_seconds"] < 7300


class server_store:
    """As an operator with a shell who must not do this."""

    def __init__(self, server):
        import sqlite3
        self.connection = sqlite3.connect(server.store, isolation_level=None, timeout=10)

    def __enter__(self):
        return self.connection

    def __exit__(self, *_):
        self.connection.close()


def test_a_refused_operation_is_a_dead_letter(world):
    server = world.server(SCHEMA.replace("note TEXT", "note TEXT CHECK (note <> 'bad')"))
    d = world.device("a", server)
    d.sync()
    d.run("INSERT INTO pins(id, note) VALUES ('1', 'bad')")
    d.sync()
    assert server.query("SELECT report FROM godwit_device") == \
        [('{"pending":0,"failed":1,"oldestPendingMs":0,"lastError":null}',)]
    d.run("SELECT godwit_discard(id, 'wrong') FROM godwit_dead_letters")
    d.run("INSERT INTO pins(id) VALUES ('2')")
    d.sync()
    assert '"failed":0' in server.query("SELECT report FROM godwit_device")[0][0]


def test_one_stream_per_device(world, server):
    """A device that opens another has lost the first, whatever the network thinks."""
    import http.client

    def stream(device, sub="ana"):
        registered = server.post("/v1/devices", {"deviceId": device, "lineage": device, "scopes": ["field"]},
                                 token=server.token(sub=sub))
        assert registered.status == 200
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10 * SLOW)
        c.request("GET", f"/v1/sync/events?scope=field&device={device}",
                  headers={"Authorization": "Bearer " + server.token(sub=sub)})
        answer = c.getresponse()
        assert answer.status == 200 and answer.readline() == b"event: head\n"
        return c, answer

    first, first_answer = stream("phone")
    others = [stream("tablet"), stream("watch", sub="ben")]
    assert numbers(server)["godwit_event_streams"] == 3
    second, second_answer = stream("phone")
    assert b"event" not in first_answer.read()  # ends
    wait_until(lambda: numbers(server)["godwit_event_streams"] == 3, what="the first is closed")
    assert numbers(server)["godwit_streams_replaced_total"] == 1
    server.push([{"id": "x", "operation": "create", "entityType": "pins", "entityId": "1", "idempotencyKey": "k",
                  "payload": {"id": "1"}}], scope="field")
    for _, answer in [*others, (second, second_answer)]:
        lines = [answer.readline() for _ in range(4)]
        assert any(b'"head":1' in line for line in lines), lines
    for c, _ in [*others, (first, first_answer), (second, second_answer)]:
        c.close()


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a mount of its own")
def test_not_ready_with_a_full_disk(world):
    script = 'mkdir -p "$0" && mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"'
    server = world.server(start=False)
    server.wrapper = ["unshare", "-m", "sh", "-c", script, server.data]
    server.start()
    inside = f"/proc/{server.process.pid}/root{server.data}"
    shutil.copy(os.path.join(inside, "secret"), os.path.join(server.folder, "secret"))
    os.makedirs(server.data, exist_ok=True)
    shutil.copy(os.path.join(inside, "secret"), os.path.join(server.data, "secret"))
    operation = {"id": "x", "operation": "create", "entityType": "pins", "entityId": "1", "idempotencyKey": "k",
                 "payload": {"id": "1"}}
    assert server.push([operation], scope="field").status == 200
    filler = os.path.join(inside, "filler")
    with open(filler, "wb") as stream:
        try:
            while True:
                stream.write(b"x" * 65536)
        except OSError:
            pass
    full = wait_until(lambda: (lambda r: r if r.status == 503 else None)(server.get("/readyz", token="")), timeout=15,
                      what="not ready")
    assert b"disk is full" in full.body
    assert server.get("/healthz", token="").status == 200  # it lives, and reads
    assert server.get("/v1/sync/changes?scope=field").status == 200
    assert numbers(server)["godwit_ready"] == 0
    os.remove(filler)
    wait_until(lambda: server.get("/readyz", token="").status == 200, timeout=15, what="ready again")
    assert server.push([dict(operation, id="y", entityId="2", payload={"id": "2"}, idempotencyKey="k2")],
                       scope="field").status == 200
