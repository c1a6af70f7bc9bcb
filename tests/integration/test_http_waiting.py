"""Waiting and streaming over HTTP, and the daemon under load."""
import gzip
import json
import re
import sqlite3
import threading
import time

from harness import SLOW, wait_until
from rawhttp import Reader, connect, create, events, read_event, read_head, request


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
