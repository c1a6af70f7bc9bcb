"""The daemon's network side, seen from raw sockets: what it refuses, and how it treats slow and broken
peers."""
import gzip
import json
import random
import resource
import select
import socket
import threading
import time

import pytest

from harness import SLOW, wait_until
from rawhttp import OK, OK_CLOSE, Reader, connect, create, exchange, read_all, request


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
