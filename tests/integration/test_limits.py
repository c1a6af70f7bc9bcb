"""What one address, user or device may do, over real sockets: refused with 429, and with no harm to
others."""
import json
import re
import socket
import time

import pytest

from harness import SLOW, wait_until
from rawhttp import OK, Reader, connect, create, events, read_event, read_head, request


def connect_from(server, source, timeout=10):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=timeout * SLOW,
                                 source_address=(source, 0))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def limited(server, by, reason):
    text = server.get("/metrics", token="").body.decode()
    return int(re.search(rf'godwit_limited_total{{by="{by}",reason="{reason}"}} (\d+)', text)[1])


def refused(answer):
    status, headers, body = answer
    if status != 429:
        return False
    assert int(headers["retry-after"]) >= 1
    assert json.loads(body)["type"].endswith("rate-limited")
    return True


def test_rate_of_an_address(world):
    server = world.server(config="[server]\nunlimited = 127.0.0.1\naddress_rate = 5\n")
    with connect_from(server, "127.0.0.2") as s:
        s.sendall(OK * 80)
        reader = Reader(s)
        answers = [reader.answer() for _ in range(80)]
        assert [refused(a) for a in answers[:49]] == [False] * 49
        assert sum(refused(a) for a in answers) >= 25
        # the connection goes on, others are not touched, and time heals
        with connect_from(server, "127.0.0.3") as other:
            other.sendall(OK)
            assert Reader(other).answer()[0] == 200
        time.sleep(int(answers[-1][1]["retry-after"]))
        s.sendall(OK)
        assert reader.answer()[0] == 200
    assert limited(server, "address", "rate") >= 25


def test_connections_of_an_address(world):
    server = world.server(config="[server]\nunlimited = none\naddress_connections = 20\n")
    peers = [connect_from(server, "127.0.0.2") for _ in range(20)]
    for s in peers:
        s.sendall(OK)
        assert Reader(s).answer()[0] == 200
    with connect_from(server, "127.0.0.2") as s:
        assert s.recv(1000).startswith(b"HTTP/1.1 429 ")
    with connect_from(server, "127.0.0.3") as s:
        s.sendall(OK)
        assert Reader(s).answer()[0] == 200
    peers.pop().close()

    def room():
        with connect_from(server, "127.0.0.2") as s:
            s.sendall(OK)
            return Reader(s).answer()[0] == 200

    wait_until(room, what="room for another")
    for s in peers:
        s.close()
    assert limited(server, "address", "concurrency") >= 1


def test_guessing_tokens_is_slow(world):
    server = world.server(config="[server]\nunlimited = none\naddress_rate = 20\n")
    token = server.token()
    with connect_from(server, "127.0.0.2") as s:
        reader = Reader(s)
        statuses = []
        for i in range(60):
            s.sendall(request("/v1/sync/changes?scope=field", token[:-4] + f"{i:04}"))
            statuses.append(reader.answer()[0])
        assert statuses.count(401) < 25 and statuses.count(401) + statuses.count(429) == 60
        s.sendall(request("/v1/sync/changes?scope=field", token))
        assert refused(reader.answer())
    with connect_from(server, "127.0.0.3") as s:
        s.sendall(request("/v1/sync/changes?scope=field", token))
        assert Reader(s).answer()[0] == 200


def ask(s, reader, path, token=None, headers=()):
    s.sendall(request(path, token, headers=headers))
    return reader.answer()


@pytest.mark.parametrize("kind,header,mine,others", [
    ("x-forwarded-for", "X-Forwarded-For", "9.9.9.{}, 192.0.2.1", "192.0.2.2"),
    ("forwarded", "Forwarded", "for=9.9.9.{}, for=192.0.2.1;proto=https", 'for="192.0.2.2:80"'),
])
def test_behind_a_proxy(world, kind, header, mine, others):
    """Clients are told apart by what the proxy says of them, not by what they say of themselves."""
    server = world.server(config="[server]\nunlimited = none\naddress_rate = 2\ntrusted_proxies = 127.0.0.1\n"
                          f"proxy_header = {kind}\n")
    with connect(server) as s:
        reader = Reader(s)
        statuses = [ask(s, reader, "/healthz", headers=[f"{header}: {mine.format(i)}"])[0] for i in range(60)]
        assert statuses[:20] == [200] * 20 and statuses.count(429) > 20
        assert ask(s, reader, "/healthz", headers=[f"{header}: {others}"])[0] == 200
    with connect_from(server, "127.0.0.9") as s:  # no proxy of ours: what it says counts for nothing
        reader = Reader(s)
        statuses = [ask(s, reader, "/healthz", headers=[f"{header}: for=192.0.2.{i}"])[0] for i in range(60)]
        assert statuses.count(429) > 20


def test_rate_of_a_user(world):
    server = world.server(config="[server]\nuser_rate = 3\n")
    ana, bob = server.token(), server.token(sub="bob")
    with connect(server) as s:
        reader = Reader(s)
        answers = [ask(s, reader, "/v1/sync/changes?scope=field", ana) for _ in range(60)]
        assert [a[0] for a in answers[:30]] == [200] * 30 and sum(map(refused, answers)) > 15
        assert ask(s, reader, "/v1/sync/changes?scope=field", bob)[0] == 200
        assert ask(s, reader, "/v1/meta")[0] == 200
    assert limited(server, "user", "rate") > 15


def test_what_is_under_way_of_a_user(world):
    """Streams and long polls count; they are counted back when they end."""
    server = world.server(config="[server]\nuser_requests = 5\n")
    streams = []
    for _ in range(5):
        s, lines = events(server)
        assert read_head(lines)[0] == 200
        read_event(lines)
        streams.append((s, lines))
    answer = server.get("/v1/sync/changes?scope=field")
    assert (answer.status, answer.problem, answer.headers["Retry-After"]) == (429, "rate-limited", "1")
    assert server.get("/v1/sync/changes?scope=field", token=server.token(sub="bob")).status == 200
    for s, lines in streams:
        lines.close()
        s.close()
    wait_until(lambda: server.get("/v1/sync/changes?scope=field").status == 200, what="room again")
    for _ in range(20):
        assert server.get("/v1/sync/changes?scope=field").status == 200
    assert limited(server, "user", "concurrency") >= 1


def test_rate_of_a_device(world):
    server = world.server(config="[server]\ndevice_rate = 2\n")
    statuses = [server.push([create(i)], device="loud").status for i in range(40)]
    assert statuses[:20] == [200] * 20 and statuses.count(429) > 10
    assert server.push([create(100)], device="quiet").status == 200
    assert server.get("/v1/sync/changes?scope=field&device=loud").status == 429
    # what was refused left nothing behind
    assert len(server.rows("pins")) == statuses.count(200) + 1
    assert limited(server, "device", "rate") > 10


def test_polls_of_a_device(world):
    server = world.server(config="[server]\ndevice_requests = 3\n")
    assert server.post("/v1/devices", {"deviceId": "d", "lineage": "d", "scopes": ["field"]}).status == 200
    _, page = server.pull()
    path = f"/v1/sync/changes?scope=field&cursor={page['cursor']}&device=d&wait=20"
    peers = [connect(server) for _ in range(3)]
    for s in peers:
        s.sendall(request(path, server.token()))
    wait_until(lambda: "godwit_parked_requests 3" in server.get("/metrics").body.decode(), what="parked")
    assert server.get(path).status == 429
    for s in peers:
        s.close()
    wait_until(lambda: server.get(path.replace("wait=20", "wait=0")).status == 200, what="room again")


def test_a_device_waits_and_loses_nothing(world):
    """429 is a wait: it is no attempt of the operation, and everything arrives."""
    server = world.server(config="[server]\ndevice_rate = 1\n")
    device = world.device("a", server)
    for i in range(40):
        device.run("INSERT INTO pins(id, title) VALUES (?, ?)", f"p{i}", "x")
        if device.sync_cli().code != 0:
            break
    assert limited(server, "device", "rate") >= 1
    waiting = device.queue("status = 'pending'")
    assert len(waiting) == 1 and waiting[0]["attempts"] == 0, waiting
    wait_until(lambda: device.sync_cli().code == 0, timeout=30, every=0.3, what="its turn")
    assert len(server.rows("pins")) == i + 1 and device.pending() == 0


def test_a_device_back_after_a_day_is_not_hindered(world):
    """What one device and its neighbours behind one address do on their worst day, under the usual limits
    and without the exception for this machine's own addresses."""
    server = world.server(config="[server]\nunlimited = none\n")
    device = world.device("a", server)
    device.transaction(*[("INSERT INTO pins(id, title) VALUES (?, ?)", f"p{i}", "x" * 200)
                         for i in range(5000)])
    for i in range(200):
        device.run("UPDATE pins SET title = ? WHERE id = ?", f"t{i}", f"p{i}")
    device.sync()
    assert len(server.rows("pins")) == 5000
    text = server.get("/metrics").body.decode()
    assert not re.search(r'godwit_limited_total{[^}]*} [1-9]', text)


def test_answers_nobody_reads_are_bounded(world):
    """Large answers to clients that do not take them are memory as well."""
    server = world.server(config="[server]\nmemory = 64\n")
    assert server.push([create(i, title="x" * 1000000) for i in range(12)], atomic=True).status == 200
    peers, token = [], server.token()
    try:
        for _ in range(16):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(10)
            s.connect(("127.0.0.1", server.port))
            s.sendall(request("/v1/sync/changes?scope=field", token))
            peers.append(s)
        wait_until(lambda: 'changes",status="503"' in server.get("/metrics").body.decode(), what="no room")
        text = server.get("/metrics").body.decode()
        assert int(re.search(r"\ngodwit_held_bytes (\d+)", text)[1]) <= 64 << 20
        assert server.get("/healthz").status == 200
    finally:
        for s in peers:
            s.close()
    wait_until(lambda: "\ngodwit_held_bytes 0\n" in server.get("/metrics").body.decode(), what="all given back")
    assert server.pull()[0]
