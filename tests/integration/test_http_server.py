"""The daemon's network side, seen from raw sockets: what it refuses, how it treats slow and broken
peers, waiting, streaming, compression, and how it starts and stops."""
import gzip
import json
import os
import random
import re
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

from harness import SERVER_BUILD, SLOW, cli, wait_until

OK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
OK_CLOSE = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def connect(server, timeout=10):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=timeout * SLOW)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_all(s):
    data = b""
    while True:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def exchange(server, data):
    """Everything the server says until it closes."""
    with connect(server) as s:
        s.sendall(data)
        return read_all(s)


class Reader:
    """Answers of one connection, one by one."""

    def __init__(self, s):
        self.stream = s.makefile("rb")

    def answer(self, head_only=False):
        line = self.stream.readline()
        if not line:
            return None
        version, status = line.split(b" ")[:2]
        assert version == b"HTTP/1.1"
        headers = {}
        while True:
            header = self.stream.readline()
            if header == b"\r\n":
                break
            name, value = header.rstrip(b"\r\n").split(b": ", 1)
            headers[name.decode().lower()] = value.decode()
        length = 0 if head_only or status == b"304" else int(headers.get("content-length", "0"))
        return int(status), headers, self.stream.read(length)


def request(path, token=None, method="GET", body=None, headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: a"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += headers
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


def create(number, entity="pins", **payload):
    return {"id": f"op{number}", "operation": "create", "entityType": entity,
            "entityId": f"p{number}", "idempotencyKey": f"k{number}",
            "payload": payload or {"title": f"t{number}"}}


# ---- what is refused ----

POST = b"POST /v1/sync HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
# a request that a confused server would answer as a second one
HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
PROBES = {
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "equal lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "listed length": POST + b"Content-Length: 0, 0\r\n\r\n",
    "signed length": POST + b"Content-Length: +0\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x0\r\n\r\n",
    "length with zeros": POST + b"Content-Length: 00\r\n\r\n",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "length that wraps": POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    "length name with a blank": POST + b"Content-Length : 0\r\n\r\n",
    "folded length": POST + b"Content-Length:\r\n 0\r\n\r\n",
    "coding listed twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding sent twice": POST + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "coding with a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding in 1.0": b"POST /v1/sync HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": GET + b"Host: a\n\r\n",
    "bare CR": GET + b"Host: a\rX: b\r\n\r\n",
    "NUL": GET + b"Host: a\r\nX: \0\r\n\r\n",
    "folded header": GET + b"Host: a\r\nX: a\r\n b\r\n\r\n",
    "blank before a colon": GET + b"Host: a\r\nX : b\r\n\r\n",
    "no colon": GET + b"Host: a\r\nX\r\n\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + b"Host: a\r\nHost: b\r\n\r\n",
    "host with a path": GET + b"Host: a/healthz\r\n\r\n",
    "version 2.0": b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    "version 0.9": b"GET /healthz\r\n\r\n",
    "version nonsense": b"GET /healthz HTTP/x.y\r\nHost: a\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "double blank": b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "target with a fragment": b"GET /healthz#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "expectation": POST + b"Content-Length: 0\r\nExpect: the-unexpected\r\n\r\n",
    "long target": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long head": GET + b"Host: a\r\n" + b"X: " + b"x" * 17000 + b"\r\n\r\n",
    "many headers": GET + b"Host: a\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    "body of a route without one": GET + b"Host: a\r\nContent-Length: 3\r\n\r\nabc",
    "body without a token": POST + b"Content-Length: 1000000\r\n\r\n",
}


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_refused_and_the_connection_closed(server, name):
    answer = exchange(server, PROBES[name] + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 "), answer
    status = int(answer.split(b" ")[1])
    assert 400 <= status < 500 or status == 505, answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"godwit_" not in answer, answer
    assert b"Connection: close\r\n" in answer
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert body["status"] == status and body["type"] and body["detail"]


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = {
    "extension": b"3;a=b\r\n{ }\r\n0\r\n\r\n",
    "sign": b"+3\r\n{ }\r\n0\r\n\r\n",
    "0x": b"0x3\r\n{ }\r\n0\r\n\r\n",
    "blank": b"3 \r\n{ }\r\n0\r\n\r\n",
    "wraps": b"10000000000000003\r\n{ }\r\n0\r\n\r\n",
    "huge": b"FFFFFFFF\r\n{ }",
    "LF": b"3\n{ }\n0\n\n",
    "longer than its size": b"3\r\n{  }\r\n0\r\n\r\n",
    "trailer": b"3\r\n{ }\r\n0\r\nContent-Length: 5\r\n\r\n",
    "no size": b"\r\n{ }\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_bad_chunks_are_refused(server, name):
    head = POST + f"Authorization: Bearer {server.token()}\r\n".encode() + CHUNKED
    answer = exchange(server, head + CHUNKS[name] + HIDDEN)
    assert 400 <= int(answer.split(b" ")[1]) < 500, answer
    assert answer.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in answer


def test_too_large_is_refused_before_the_body_is_read(server):
    head = POST + f"Authorization: Bearer {server.token()}\r\n".encode()
    start = time.monotonic()
    with connect(server) as s:
        s.sendall(head + b"Content-Length: 16777217\r\nExpect: 100-continue\r\n\r\n")
        status, headers, body = Reader(s).answer()
    assert status == 413 and json.loads(body)["type"].endswith("too-large")
    assert headers["connection"] == "close"
    assert time.monotonic() - start < 2 * SLOW


def test_refused_before_the_body(server):
    with connect(server) as s:
        s.sendall(POST + b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        assert Reader(s).answer()[0] == 401
    with connect(server) as s:
        s.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
        assert Reader(s).answer()[0] == 404


def test_refusal_reaches_a_client_that_is_still_sending(server):
    """A close with unread bytes would be a reset, and the answer lost."""
    with connect(server) as s:
        s.sendall(POST + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(8):
            try:
                s.sendall(b"x" * 1000000)
            except OSError:
                break
        assert Reader(s).answer()[0] == 401


def test_unknown_paths_and_methods(server):
    assert server.get("/v1/nothing").problem == "not-found"
    answer = server.get("/v1/sync")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    answer = server.request("DELETE", "/healthz")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert server.get("/v1/sync/changes?nonsense=1").status == 400
    assert server.get("/v1/sync/changes?scope=field&scope=field").status == 400
    assert server.get("/v1/sync/changes?scope=%zz").status == 400


def test_tokens(server):
    answer = server.get("/v1/sync/changes", token="")
    assert (answer.status, answer.problem) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    good = server.token()
    for bad in ("x", good[:-1], good + "x", good.rsplit(".", 1)[0] + ".", "a.b.c", "." * 3):
        assert server.get("/v1/sync/changes", token=bad).status == 401, bad
    assert server.get("/v1/sync/changes", token="x" * 9000).status == 401
    basic = server.get("/v1/sync/changes", token="", headers={"Authorization": "Basic YTpi"})
    assert basic.status == 401
    with open(server.log_path) as log:
        text = log.read()
    assert good not in text and good.split(".")[1] not in text


# ---- connections ----

def test_pipelined_requests_are_answered_in_order(server):
    token = server.token()
    with connect(server) as s:
        s.sendall(request("/v1/sync/changes?scope=field", token) + OK
                  + request("/v1/sync", token, "POST", b"not json") + request("/nowhere") + OK * 500
                  + request("/v1/meta") + OK_CLOSE)
        reader = Reader(s)
        answers = [reader.answer() for _ in range(506)]
        assert reader.answer() is None
    assert [a[0] for a in answers[:4]] == [200, 200, 400, 404]
    assert all(a[0] == 200 for a in answers[4:])
    assert b"commits" in answers[0][2] and b"protocol" in answers[504][2]


def test_bytes_may_come_one_by_one(server):
    token = server.token()
    with connect(server) as s:
        for byte in request("/v1/sync/changes?scope=field", token) + OK_CLOSE:
            s.sendall(bytes([byte]))
        reader = Reader(s)
        assert [reader.answer()[0] for _ in range(2)] == [200, 200]


def test_http_1_0(server):
    answer = exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"Connection: close" in answer
    with connect(server) as s:
        s.sendall(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        reader = Reader(s)
        assert reader.answer()[1]["connection"] == "keep-alive"
        s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert reader.answer()[0] == 200 and reader.answer() is None


def test_head_has_no_body(server):
    with connect(server) as s:
        s.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
                  b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + OK_CLOSE)
        reader = Reader(s)
        status, headers, _ = reader.answer(head_only=True)
        assert status == 200 and headers["content-length"] == "3"
        assert reader.answer(head_only=True)[0] == 404
        assert reader.answer()[2] == b"ok\n"


def test_100_continue(server):
    body = json.dumps({"deviceId": "d", "operations": [create(1)]}).encode()
    with connect(server) as s:
        head = request("/v1/sync/operations", server.token(), "POST", body, ["Expect: 100-continue"])
        s.sendall(head[:-len(body)])
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert Reader(s).answer()[0] == 200


def test_half_closed_client_gets_its_answer(server):
    with connect(server) as s:
        s.sendall(request("/v1/sync/changes?scope=field&wait=20", server.token()))
        s.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        assert Reader(s).answer()[0] == 200
        assert time.monotonic() - start < 5 * SLOW


def test_headers_of_answers(server):
    answer = server.get("/v1/meta", token="")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Date"].endswith(" GMT")


def test_garbage_does_no_harm(server):
    generator = random.Random(7)
    pieces = [OK, POST, CHUNKED, b"\r\n", b"0\r\n\r\n", b"Content-Length: 10\r\n", b"\0", b"GET ",
              b"Transfer-Encoding: chunked\r\n", b" ", b"Host: a\r\n", b"{}", b"\n"]
    for _ in range(300):
        with connect(server) as s:
            data = b"".join(generator.choice(pieces) if generator.random() < 0.8 else
                            generator.randbytes(20) for _ in range(generator.randrange(1, 9)))
            try:
                s.sendall(data)
                if generator.random() < 0.5:
                    s.shutdown(socket.SHUT_WR)
                    read_all(s)
            except OSError:
                pass
    assert server.get("/healthz").status == 200


def slow_peers(server, count, first, more):
    """Connections that send a little and then a byte now and then, until told to stop."""
    peers = []
    for _ in range(count):
        s = socket.socket()
        s.connect(("127.0.0.1", server.port))
        s.sendall(first)
        peers.append(s)
    stop = threading.Event()

    def drip():
        while not stop.wait(0.5):
            for s in peers:
                try:
                    s.send(more)
                except OSError:
                    pass

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    return peers, stop, thread


@pytest.mark.parametrize("first,more", [
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n"),
    (b"", b""),
], ids=["head byte by byte", "silent"])
def test_slow_connections_do_not_delay_a_good_client(server, first, more):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 5000
    if hard < count + 100:
        pytest.skip("not enough file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    peers, stop, thread = slow_peers(server, count, first, more)
    try:
        wait_until(lambda: f"godwit_connections {count + 1}\n" in server.get("/metrics").body.decode(),
                   what="all accepted")
        token = server.token()
        times = []
        end = time.monotonic() + 5
        with connect(server) as s:
            reader = Reader(s)
            while time.monotonic() < end:
                start = time.monotonic()
                s.sendall(request("/v1/sync/changes?scope=field", token))
                assert reader.answer()[0] == 200
                times.append(time.monotonic() - start)
                time.sleep(0.005)
        start = time.monotonic()
        assert server.get("/healthz").status == 200  # a new connection
        times.append(time.monotonic() - start)
        times.sort()
        assert times[int(len(times) * 0.99)] < 0.1 * SLOW, times[-20:]

        # and they are gone when their time is over
        def gone():
            text = server.get("/metrics").body.decode()
            return int(text.split("\ngodwit_connections ")[1].split("\n")[0]) < 10

        wait_until(gone, timeout=25, every=0.5, what="slow connections closed")
    finally:
        stop.set()
        thread.join()
        for s in peers:
            s.close()


def test_slow_head_gets_408(server):
    with connect(server, timeout=20) as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\n")
        start = time.monotonic()
        assert Reader(s).answer()[0] == 408
        assert 8 < time.monotonic() - start < 14 * SLOW


def test_too_many_connections_get_503(world):
    server = world.server(wrapper=["prlimit", "--nofile=400:400"])
    peers = [connect(server) for _ in range(400)]
    try:
        def turned_away():
            return select.select(peers, [], [], 0)[0]

        # which of them depends on the loop that took it: each loop has a queue of its own
        wait_until(lambda: len(turned_away()) >= 20, what="refusals")
        refused = turned_away()
        assert all(s.recv(1000).startswith(b"HTTP/1.1 503 ") for s in refused)
        for s in peers:
            if s not in refused:
                s.sendall(OK)
        assert 200 in {Reader(s).answer()[0] for s in peers if s not in refused}
    finally:
        for s in peers:
            s.close()
    wait_until(lambda: exchange(server, OK_CLOSE).startswith(b"HTTP/1.1 200"), what="room again")


# ---- compression ----

def test_gzip_of_requests(server):
    body = json.dumps({"deviceId": "d", "operations": [create(1, title="x" * 5000)]}).encode()
    packed = gzip.compress(body)
    token = server.token()

    def post(data, coding):
        return server.request("POST", "/v1/sync/operations", raw=data, token=token,
                              headers={"Content-Encoding": coding})

    assert post(packed, "gzip").json["results"][0]["status"] == "success"
    assert post(body, "identity").json["results"][0]["status"] == "already_processed"
    for coding in ("br", "zstd", "gzip, gzip", "deflate"):
        answer = post(packed, coding)
        assert answer.status == 415 and answer.headers["Accept-Encoding"] == "gzip", coding
    assert post(body, "gzip").status == 400
    assert post(packed[:-5], "gzip").status == 400
    assert post(packed + b"x", "gzip").status == 400
    assert post(packed + packed, "gzip").status == 400


def test_gzip_bomb(server):
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert len(bomb) < 1 << 20
    before = memory(server)
    answer = server.request("POST", "/v1/sync", raw=bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.problem) == (413, "too-large")
    if SLOW == 1:
        assert memory(server) - before < 64 << 20


def memory(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    raise AssertionError


def test_gzip_of_answers(server):
    operations = [create(i, title="same again " * 20) for i in range(20)]
    assert server.push(operations).status == 200
    with connect(server) as s:
        reader = Reader(s)
        s.sendall(request("/v1/sync/changes?scope=field", server.token(),
                          headers=["Accept-Encoding: br, gzip"]))
        _, headers, packed = reader.answer()
        assert headers["content-encoding"] == "gzip"
        s.sendall(request("/v1/sync/changes?scope=field", server.token(),
                          headers=["Accept-Encoding: gzip;q=0"]))
        _, headers, plain = reader.answer()
        assert "content-encoding" not in headers
        assert gzip.decompress(packed) == plain and len(packed) < len(plain) / 2


# ---- waiting and streaming ----

def test_long_poll_is_woken(server):
    _, page = server.pull()
    results = []

    def wait():
        start = time.monotonic()
        answer = server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20")
        results.append((time.monotonic() - start, answer.json))

    threads = [threading.Thread(target=wait) for _ in range(20)]
    for t in threads:
        t.start()
    wait_until(lambda: "godwit_parked_requests 20" in server.get("/metrics").body.decode(),
               what="all parked")
    other = server.token(sub="bob", scope="other")
    server.push([create(0)], scope="other", token=other)
    time.sleep(0.3)
    assert not results
    server.push([create(1)])
    for t in threads:
        t.join()
    assert len(results) == 20
    for seconds, answer in results:
        assert seconds < 10 * SLOW
        assert [c["entityId"] for commit in answer["commits"] for c in commit["changes"]] == ["p1"]
    assert "godwit_parked_requests 0" in server.get("/metrics").body.decode()


def test_long_poll_ends_by_itself(server):
    _, page = server.pull()
    start = time.monotonic()
    answer = server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=1")
    assert answer.status == 200 and answer.json["commits"] == []
    assert 0.9 < time.monotonic() - start < 5 * SLOW


def test_no_wakeup_is_lost(server):
    """Commits race with polls that are just being parked."""
    _, page = server.pull()
    cursor, seen = page["cursor"], []

    def push():
        for i in range(60):
            server.push([create(1000 + i)])

    pusher = threading.Thread(target=push)
    pusher.start()
    start = time.monotonic()
    while len(seen) < 60:
        answer = server.get(f"/v1/sync/changes?scope=field&cursor={cursor}&wait=20").json
        assert answer["commits"], "a poll ran out although there was a commit"
        seen += [c["entityId"] for commit in answer["commits"] for c in commit["changes"]]
        cursor = answer["cursor"]
    pusher.join()
    assert seen == [f"p{1000 + i}" for i in range(60)]
    assert time.monotonic() - start < 20 * SLOW


def test_abandoned_polls_are_forgotten(server):
    _, page = server.pull()
    for _ in range(50):
        with connect(server) as s:
            s.sendall(request(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20",
                              server.token()))
    wait_until(lambda: "godwit_parked_requests 0" in server.get("/metrics").body.decode(),
               what="nobody parked")
    server.push([create(1)])
    assert server.get("/healthz").status == 200


def events(server, scope="field", token=None):
    s = connect(server, timeout=20)
    s.sendall(request(f"/v1/sync/events?scope={scope}", token or server.token()))
    return s, s.makefile("rb")


def read_event(stream):
    lines = []
    while True:
        line = stream.readline()
        if not line:
            return None
        if line == b"\n":
            if lines[0].startswith(b":"):
                lines = []
                continue
            assert lines[0] == b"event: head\n" and lines[1].startswith(b"data: ")
            return json.loads(lines[1][6:])
        lines.append(line)


def read_head(stream):
    status = stream.readline()
    headers = b""
    while not headers.endswith(b"\r\n\r\n"):
        headers += stream.readline()
        if headers == b"\r\n":
            break
    return int(status.split(b" ")[1]), headers.decode().lower()


def test_events(server):
    s, stream = events(server)
    with s, stream:
        status, headers = read_head(stream)
        assert status == 200 and "content-type: text/event-stream" in headers
        assert read_event(stream) == {"scope": "field", "head": 0}
        head = 0
        for i in range(5):
            server.push([create(i)])
            head = read_event(stream)["head"]
        assert head == 5
        assert "godwit_event_streams 1" in server.get("/metrics").body.decode()
    s, stream = events(server)
    with s, stream:
        read_head(stream)
        assert read_event(stream)["head"] == 5
    wait_until(lambda: "godwit_event_streams 0" in server.get("/metrics").body.decode(),
               what="streams closed")


def test_events_need_the_scope_and_end_with_the_token(server):
    assert server.get("/v1/sync/events?scope=other").status == 403
    assert server.get("/v1/sync/events?scope=field", token="").status == 401
    token = server.token(ttl=2)
    start = time.monotonic()
    s, stream = events(server, token=token)
    with s, stream:
        read_head(stream)
        assert read_event(stream)["head"] == 0
        assert read_event(stream) is None
        assert time.monotonic() - start < 6 * SLOW


def test_events_say_that_they_live(server):
    s, stream = events(server)
    with s, stream:
        read_head(stream)
        read_event(stream)
        start = time.monotonic()
        assert stream.readline() == b": keep-alive\n"
        assert 10 < time.monotonic() - start < 18


# ---- load ----

def test_full_queues_answer_503(server):
    """The store is held by another process: requests pile up, memory is bounded, nothing is lost."""
    store = sqlite3.connect(server.store, isolation_level=None, timeout=10)
    store.execute("BEGIN IMMEDIATE")
    operations = [create(i, title="x" * 1000000) for i in range(15)]
    packed = gzip.compress(json.dumps({"deviceId": "d", "operations": operations}).encode(), 1)
    token, statuses, retry = server.token(), [], []

    def push():
        answer = server.request("POST", "/v1/sync/operations", raw=packed, token=token,
                                headers={"Content-Encoding": "gzip"}, timeout=60)
        statuses.append(answer.status)
        retry.append(answer.headers.get("Retry-After"))

    threads = [threading.Thread(target=push) for _ in range(60)]
    try:
        for t in threads:
            t.start()
        wait_until(lambda: 503 in statuses, timeout=30, what="overloaded")
        assert server.get("/healthz").status == 200
    finally:
        store.execute("ROLLBACK")
        store.close()
        for t in threads:
            t.join()
    assert set(statuses) <= {200, 503} and len(statuses) == 60
    assert all(int(r) >= 1 for s, r in zip(statuses, retry) if s == 503)
    answer = server.push(operations)
    assert {r["status"] for r in answer.json["results"]} <= {"success", "already_processed"}
    assert len(server.rows("pins")) == 15


def test_many_writers_are_combined(server):
    token = server.token()
    errors = []

    def push(worker):
        with connect(server) as s:
            reader = Reader(s)
            for i in range(20):
                body = json.dumps({"deviceId": f"d{worker}",
                                   "operations": [create(worker * 100 + i)]}).encode()
                s.sendall(request("/v1/sync/operations", token, "POST", body))
                status, _, answer = reader.answer()
                if status != 200 or json.loads(answer)["results"][0]["status"] != "success":
                    errors.append(answer)

    threads = [threading.Thread(target=push, args=(w,)) for w in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    assert len(server.rows("pins")) == 640
    metrics = server.get("/metrics").body.decode()
    batches = int(metrics.split("\ngodwit_write_batches_total ")[1].split("\n")[0])
    jobs = int(metrics.split("\ngodwit_write_requests_total ")[1].split("\n")[0])
    assert jobs == 640 and batches < jobs


def test_metrics_are_well_formed(server):
    server.push([create(1)])
    server.get("/v1/nothing")
    text = server.get("/metrics", token="").body.decode()
    assert 'godwit_http_requests_total{route="/v1/sync/operations",status="200"} 1\n' in text
    assert 'godwit_http_requests_total{route="none",status="404"} 1\n' in text
    names = set()
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("# TYPE "):
            names.add(line.split(" ")[2])
        elif not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            assert name in names or re.sub("_(bucket|sum|count)$", "", name) in names, line
            float(line.rsplit(" ", 1)[1])


# ---- starting and stopping ----

def test_graceful_stop(server):
    _, page = server.pull()
    answers = []

    def poll():
        answers.append(server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20"))

    poller = threading.Thread(target=poll)
    poller.start()
    wait_until(lambda: "godwit_parked_requests 1" in server.get("/metrics").body.decode(),
               what="parked")
    idle = connect(server)
    idle.sendall(OK)
    assert Reader(idle).answer()[0] == 200
    stream, lines = events(server)
    read_head(lines)
    half = connect(server)
    half.sendall(b"GET /readyz HTTP/1.1\r\n")
    time.sleep(0.2)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    poller.join(10 * SLOW)
    assert answers and answers[0].status == 200 and answers[0].json["commits"] == []
    assert idle.recv(10) == b""
    assert read_event(lines) is not None and read_event(lines) is None
    half.sendall(b"Host: a\r\n\r\n")  # begun before the signal: answered, and says what is happening
    assert Reader(half).answer()[0] == 503
    assert server.process.wait(10 * SLOW) == 0
    assert time.monotonic() - start < 8 * SLOW
    with pytest.raises(OSError):
        connect(server)
    for s in (idle, stream, half):
        s.close()
    assert "event=stopped" in server.log()


def test_stop_under_load_loses_no_answer(server):
    """Every push that was answered is in the store; the others can be sent again."""
    token, answered = server.token(), []

    def push(worker):
        i = 0
        while True:
            number = worker * 10000 + i
            try:
                if server.push([create(number)], token=token).status == 200:
                    answered.append(number)
            except OSError:
                return
            i += 1

    threads = [threading.Thread(target=push, args=(w,)) for w in range(8)]
    for t in threads:
        t.start()
    wait_until(lambda: len(answered) > 100, timeout=30, what="some pushes")
    assert server.stop() == 0
    for t in threads:
        t.join()
    assert {f"p{n}" for n in answered} <= {row[0] for row in server.rows("pins")}


def test_second_signal_ends_at_once(server):
    half = connect(server)
    half.sendall(b"GET /readyz HTTP/1.1\r\n")
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "event=stopping" in server.log(), what="stopping")
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(3 * SLOW) == -signal.SIGTERM
    half.close()


def serve(*arguments, timeout=10, **options):
    done = subprocess.run([os.path.join(SERVER_BUILD, "godwit"), "serve", *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout * SLOW, **options)
    return done.returncode, done.stdout, done.stderr


def test_first_line_is_the_address(tmp_path):
    process = subprocess.Popen([os.path.join(SERVER_BUILD, "godwit"), "serve", "--listen",
                                "127.0.0.1:0", "--data", str(tmp_path / "data")],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        port = int(line.rsplit(":", 1)[1])
        assert port > 0
        assert "godwit token --data" in process.stdout.readline()
        assert os.stat(tmp_path / "data").st_mode & 0o777 == 0o700
        assert os.stat(tmp_path / "data" / "secret").st_mode & 0o777 == 0o600
        with open(tmp_path / "data" / "secret") as secret:
            assert len(secret.read().strip()) == 64
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10 * SLOW) == 0
        process.stdout.close()


def test_one_folder_one_server(server, tmp_path):
    code, out, err = serve("--listen", "127.0.0.1:0", "--data", server.data)
    assert code == 1 and out == "" and "another server" in err and str(server.process.pid) in err


def test_port_in_use(server, tmp_path):
    code, _, err = serve("--listen", f"127.0.0.1:{server.port}", "--data", tmp_path / "other")
    assert code == 1 and "in use" in err and "--listen" in err


@pytest.mark.parametrize("arguments,message", [
    (["--schema", "/nonexistent/schema.sql"], "schema"),
    (["--config", "/nonexistent/godwit.ini"], "configuration"),
    (["--data", "/proc/godwit"], "--data"),
    (["--listen", "0.0.0.0:0"], "jwt_secret_file"),
    (["--listen", "203.0.113.7:0", "--dev"], "not an address of this machine"),
    (["--threads", "0"], "threads"),
    (["--listen", "nonsense"], "listen"),
], ids=["schema", "config", "data", "open to others", "address", "threads", "listen"])
def test_mistakes_are_explained(tmp_path, arguments, message):
    if "--data" not in arguments:
        arguments = [*arguments, "--data", str(tmp_path / "data")]
    code, out, err = serve(*arguments)
    assert code == 1 and out == "" and message in err, err


def test_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    code, _, err = serve("--listen", "127.0.0.1:0", "--data", folder)
    assert code == 1 and "can't be written" in err


def test_wrong_usage(tmp_path):
    for arguments in (["--nonsense"], ["extra"], ["--listen"]):
        code, out, err = serve(*arguments)
        assert code == 2 and out == "" and err, arguments
    code, out, _ = serve("--help")
    assert code == 0 and "Examples:" in out


def test_check_config(tmp_path):
    good = tmp_path / "good.ini"
    good.write_text("[server]\nlisten = 127.0.0.1:0\nthreads = 2\n[table pins]\npolicy.title = manual\n")
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT);")
    code, out, _ = serve("--config", good, "--schema", schema, "--check-config", "--data", tmp_path / "data")
    assert code == 0 and "good" in out and not (tmp_path / "data").exists()
    code, _, err = serve("--config", good, "--check-config", "--data", tmp_path / "data")
    assert code == 1 and "pins" in err  # a section about a table that nothing makes
    bad = tmp_path / "bad.ini"
    bad.write_text("[server]\nlisten = 127.0.0.1:0\nlisen = 1\n")
    code, _, err = serve("--config", bad, "--check-config")
    assert code == 1 and "bad.ini:3" in err and "lisen" in err


def test_secret_that_others_can_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o644)
    code, _, err = serve("--listen", "127.0.0.1:0", "--data", tmp_path / "data",
                         env=dict(os.environ, GODWIT_JWT_SECRET_FILE=str(secret)))
    assert code == 1 and "chmod 600" in err


def test_token_settings(world, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    secret.chmod(0o600)
    config = (f"[server]\njwt_secret_file = {secret}\njwt_issuer = me\njwt_audience = sync\n"
              "scopes_claim = app.scopes\n")
    server = world.server(config=config)

    def token(*arguments):
        done = cli("token", "--data", server.data, "--sub", "u", "--scope", "s", *arguments)
        assert done.code == 0 and done.out.count("\n") == 1, done
        return done.out.strip()

    good = token("--config", server.config)
    assert server.get("/v1/sync/changes?scope=s", token=good).status == 200
    env = {"GODWIT_JWT_SECRET_FILE": str(secret)}
    done = cli("token", "--data", server.data, "--sub", "u", "--scope", "s", env=env)
    answer = server.get("/v1/sync/changes?scope=s", token=done.out.strip())
    assert answer.status == 401 and "issuer" in answer.json["detail"]


def test_token_verb(server):
    done = cli("token", "--data", server.data, "--sub", "u", "--scope", "a", "--scope=b",
               "--read-scope", "field", "--ttl", "60")
    assert done.code == 0 and done.err == "" and done.out.count("\n") == 1
    token = done.out.strip()
    assert server.get("/v1/sync/changes?scope=b", token=token).status == 200
    assert server.get("/v1/sync/changes?scope=field", token=token).status == 200
    assert server.get("/v1/sync/changes?scope=c", token=token).status == 403
    assert server.push([create(1)], scope="field", token=token).status == 403
    assert cli("token", "--data", server.data).code == 2
    assert cli("token", "--data", server.data, "--sub", "u", "--ttl", "0").code == 2
    assert cli("token", "--data", server.data, "--sub", "u", "--scope").code == 2
    assert cli("token", "--data", server.data + "x", "--sub", "u").code == 1
