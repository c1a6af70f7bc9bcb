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

from harness import SLOW, World, wait_until
from http_probes import CHUNKED, CHUNKS, POST, PROBES
from rawhttp import OK, OK_CLOSE, Reader, connect, create, exchange, read_all, request


# ---- what is refused ----

# a request that a confused server would answer as a second one
HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """One server for all probes: none may leave a mark."""
    world = World(tmp_path_factory.mktemp("probes"))
    yield world.server()
    world.close()


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_refused_and_the_connection_closed(probed, name):
    answer = exchange(probed, PROBES[name] + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 "), answer
    status = int(answer.split(b" ")[1])
    assert 400 <= status < 500 or status == 505, answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert b"godwit_" not in answer, answer
    assert b"Connection: close\r\n" in answer
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert body["status"] == status and body["type"] and body["detail"]


@pytest.mark.parametrize("name", CHUNKS)
def test_bad_chunks_are_refused(probed, name):
    head = POST + f"Authorization: Bearer {probed.token()}\r\n".encode() + CHUNKED
    answer = exchange(probed, head + CHUNKS[name] + HIDDEN)
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
