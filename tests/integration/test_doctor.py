"""The doctor finds what is wrong, says it, and repairs what is safe."""
import json
import time

from harness import cli


def codes(device, *arguments):
    done = cli("doctor", device.path, "--json", *arguments)
    assert done.code in (0, 1), done
    report = json.loads(done.out)
    assert done.code == (1 if report["remaining"] else 0)
    return [f["code"] for f in report["findings"]]


def test_a_healthy_device(world):
    server = world.server()
    a = world.device("a", server)
    a.run("INSERT INTO pins(id) VALUES ('p-1')")
    a.sync()
    assert codes(a) == []


def test_a_server_that_cannot_be_reached(world):
    server = world.server()
    a = world.device("a", server)
    server.stop()
    assert codes(a) == ["unreachable"] and codes(a, "--offline") == []
    for _ in range(3):
        assert a.sync_cli().code == 3
    assert codes(a, "--offline") == ["failing"]
    server.start()
    a.sync()
    assert codes(a) == []


def test_a_server_whose_clock_differs(world):
    server = world.server()

    def other_time(raw):
        head, body = raw.split(b"\r\n\r\n", 1)
        document = json.loads(body)
        document["serverTime"] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - 7200))
        body = json.dumps(document).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    proxy = world.proxy(server, lambda n, head, body: other_time if b" /v1/meta" in head else "pass")
    a = world.device("a", server, url=proxy.url)
    assert codes(a) == ["clock"]
    report = json.loads(cli("doctor", a.path, "--json").out)
    assert "ahead" in report["findings"][0]["text"]


def test_drift_and_leftovers_are_repaired(world):
    server = world.server()
    a = world.device("a", server)
    a.run("INSERT INTO pins(id, title) VALUES ('p-1', 'x'), ('p-2', 'y')")
    a.sync()
    a.script("UPDATE godwit_state SET capture = 0; UPDATE pins SET title = 'slipped' WHERE id = 'p-1';"
             "DELETE FROM pins WHERE id = 'p-2'; INSERT INTO pins(id) VALUES ('p-3');"
             "CREATE TABLE godwit_before_1 (x)")
    a.disconnect()
    found = codes(a)
    assert {"capture-off", "changed-rows", "missing-rows", "unknown-rows", "leftover"} <= set(found), found
    codes(a, "--fix")
    assert codes(a) == []
    a.sync()
    assert [row[:2] for row in server.rows("pins")] == [("p-1", "slipped"), ("p-3", None)]
