"""Bad input gets a specific answer and changes nothing. Every test compares the whole store before and
after."""
import base64
import gzip
import hashlib
import hmac
import json
import os
import resource
import socket
import sqlite3
import subprocess
import time

import pytest

from harness import SLOW, cli, settle
from stream import Stream
from test_wire import create, op

PUSH = "/v1/sync/operations"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for all refusals: none of them may leave a trace in it."""
    import harness
    world = harness.World(tmp_path_factory.mktemp("bad"))
    server = world.server()
    server.push([create("p1", title="good")])
    yield server
    world.close()


@pytest.fixture
def unchanged(shared):
    before = shared.state()
    yield shared
    assert shared.state() == before, "a refused request changed the store"


def text(**changes):
    body = {"operations": [create("p2", title="x")], "deviceId": "tool", "timestamp": "2026-01-02T03:04:05.678Z"}
    body.update(changes)
    return json.dumps(body).encode()


BODIES = {
    "empty": b"",
    "not JSON": b"hello",
    "truncated": text()[:-5],
    "truncated in a string": text()[:40],
    "trailing text": text() + b"x",
    "two values": text() + text(),
    "an array": b"[]",
    "a number": b"1",
    "duplicate key": text()[:-1] + b',"deviceId":"other"}',
    "duplicate key in a payload": text().replace(b'{"title": "x"}', b'{"title":"x","title":"y"}'),
    "duplicate key by escape": text().replace(b'{"title": "x"}', b'{"title":"x","\\u0074itle":"y"}'),
    "too deep": text().replace(b'"x"', b"[" * 100 + b"]" * 100),
    "very deep": b"[" * 1000000,
    "invalid UTF-8": text().replace(b'"x"', b'"\xff"'),
    "overlong UTF-8": text().replace(b'"x"', b'"\xc0\xaf"'),
    "encoded surrogate": text().replace(b'"x"', b'"\xed\xa0\x80"'),
    "lone surrogate escape": text().replace(b'"x"', b'"\\ud800"'),
    "raw control character": text().replace(b'"x"', b'"a\x01b"'),
    "NUL byte": text().replace(b'"x"', b'"a\x00b"'),
    "leading zero": text().replace(b'"x"', b"012"),
    "NaN": text().replace(b'"x"', b"NaN"),
    "comment": b"/* hi */" + text(),
    "trailing comma": text()[:-1] + b",}",
    "unknown field": text(surprise=1),
    "unknown field of an operation": text(operations=[dict(create("p2"), surprise=1)]),
    "operations missing": json.dumps({"deviceId": "tool"}).encode(),
    "operations no array": text(operations={}),
    "operation no object": text(operations=["x"]),
    "device missing": json.dumps({"operations": []}).encode(),
    "device id with a space": text(deviceId="a b"),
    "device id too long": text(deviceId="a" * 65),
    "device id no text": text(deviceId=7),
    "id missing": text(operations=[{k: v for k, v in create("p2").items() if k != "id"}]),
    "key missing": text(operations=[{k: v for k, v in create("p2").items() if k != "idempotencyKey"}]),
    "key empty": text(operations=[dict(create("p2"), idempotencyKey="")]),
    "key too long": text(operations=[dict(create("p2"), idempotencyKey="k" * 256)]),
    "operation no text": text(operations=[dict(create("p2"), operation=1)]),
    "entityId no text": text(operations=[dict(create("p2"), entityId=1)]),
    "entityId too long": text(operations=[create("i" * 2000)]),
    "payload an array": text(operations=[dict(create("p2"), payload=[])]),
    "payload a broken string": text(operations=[dict(create("p2"), payload="{")]),
    "payload with a duplicate key in its string": text(
        operations=[dict(create("p2"), payload='{"title":"a","title":"b"}')]),
    "baseSeq negative": text(operations=[dict(create("p2"), baseSeq=-1)]),
    "atomic no boolean": text(atomic="yes"),
    "timestamp broken": text(timestamp="yesterday"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_400(unchanged, name):
    answer = unchanged.post(PUSH, raw=BODIES[name])
    assert answer.status == 400, answer
    assert answer.problem in ("invalid-request", "too-large")
    assert answer.json["detail"], "it says what is wrong"


def test_one_key_twice_in_a_request(shared):
    """The same key with other content within one request: the second is refused."""
    answer = shared.post(PUSH, raw=text(operations=[create("twice-1", key="twice"), create("twice-2", key="twice")]))
    results = answer.json["results"]
    assert results[0]["status"] == "success"
    assert results[1]["error"]["code"] == "idempotency-mismatch"
    assert ("twice-2",) not in shared.query("SELECT id FROM pins")


@pytest.mark.parametrize("name, operation, code", [
    ("unknown operation", op("1", "upsert", "pins", "q", {}), "unknown-operation"),
    ("unknown entity", op("2", "create", "planets", "q", {}), "unknown-entity"),
    ("engine's own table", op("3", "create", "godwit_op", "q", {}), "unknown-entity"),
    ("sqlite's own table", op("3b", "create", "sqlite_schema", "q", {}), "unknown-entity"),
    ("unknown column", op("4", "create", "pins", "q", {"colour": "red"}), "unknown-column"),
    ("rowid is no column", op("4b", "create", "pins", "q", {"rowid": 7}), "unknown-column"),
    ("value is an array", op("5", "create", "pins", "q", {"title": [1]}), "invalid-value"),
    ("value is an object", op("6", "create", "pins", "q", {"title": {"a": 1}}), "invalid-value"),
    ("integer out of range", op("7", "create", "pins", "q", {"lat": {"$i64": "9223372036854775808"}}), "invalid-value"),
    ("base64 broken", op("8", "create", "pins", "q", {"title": {"$b64": "*"}}), "invalid-value"),
    ("base64 not canonical", op("9", "create", "pins", "q", {"title": {"$b64": "AB=="}}), "invalid-value"),
    ("key column disagrees", op("10", "create", "pins", "q", {"id": "r"}), "invalid-value"),
    ("update of nothing", op("11", "update", "pins", "nowhere", {"title": "x"}), "row-missing"),
    ("row over a mebibyte", op("12", "create", "pins", "q", {"title": "x" * (1100 << 10)}), "too-large"),
])
def test_a_bad_operation_is_refused_by_name(shared, name, operation, code):
    before = shared.state()["pins"]
    answer = shared.push([operation])
    if answer.status == 200:
        result = answer.json["results"][0]
        assert result["status"] == "error", answer
        assert result["error"]["code"] == code
        assert result["error"]["detail"]
    else:
        assert answer.status in (400, 413) and code in ("too-large", "invalid-value"), answer
        assert answer.problem in ("invalid-request", "too-large")
    assert shared.state()["pins"] == before


@pytest.mark.parametrize("name, schema, payload, code", [
    ("text in a STRICT integer", "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER) STRICT", {"v": "x"},
     ("invalid-value", "check-failed", "validation")),
    ("CHECK", "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER CHECK (v > 0))", {"v": -1}, ("check-failed",)),
    ("NOT NULL", "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER NOT NULL)", {"v": None}, ("not-null",)),
    ("NOT NULL absent", "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER NOT NULL)", {}, ("not-null",)),
    ("foreign key", "CREATE TABLE p (id TEXT PRIMARY KEY); CREATE TABLE t (id TEXT PRIMARY KEY, v TEXT REFERENCES p(id))",
     {"v": "nobody"}, ("fk-violation",)),
])
def test_constraints_refuse_the_guilty_only(world, name, schema, payload, code):
    server = world.server(schema=schema + ";")
    results = server.push([op("1", "create", "t", "bad", payload),
                           op("2", "create", "t", "good", {"v": None} if "foreign" in name else
                              ({"v": 1}))]).json["results"]
    assert results[0]["status"] == "error" and results[0]["error"]["code"] in code, results
    assert results[1]["status"] == "success", results
    assert [r[0] for r in server.rows("t")] == ["good"]


def test_a_body_over_the_limit_is_413(unchanged):
    answer = unchanged.post(PUSH, raw=text(operations=[create("p9", title="x" * (17 << 20))]))
    assert answer.status == 413 and answer.problem == "too-large"


def test_a_declared_length_over_the_limit_is_refused_unread(unchanged):
    with socket.create_connection(("127.0.0.1", unchanged.port), timeout=10) as s:
        s.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {unchanged.token()}\r\n"
                  "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert b" 413 " in s.recv(4096).split(b"\r\n")[0] + b" "


def test_a_compressed_bomb_is_413(unchanged):
    answer = unchanged.post(PUSH, raw=gzip.compress(b" " * (200 << 20)), headers={"Content-Encoding": "gzip"})
    assert answer.status == 413, answer


def test_broken_compression_is_400(unchanged):
    assert unchanged.post(PUSH, raw=b"\x1f\x8bnonsense", headers={"Content-Encoding": "gzip"}).status == 400
    whole = gzip.compress(text())
    assert unchanged.post(PUSH, raw=whole[:-9], headers={"Content-Encoding": "gzip"}).status == 400


def test_too_many_operations(unchanged):
    many = [create(f"m{i}", key=f"m{i}") for i in range(10001)]
    answer = unchanged.push(many)
    assert answer.status in (400, 413), answer.status


# ---- streams ----

def one_stream(server, name):
    return Stream(server, device=hashlib.md5(name.encode()).hexdigest())


def test_a_correct_stream_is_accepted(shared):
    s = one_stream(shared, "good")
    answer = s.push([s.create("s1", 1, title="x"), s.create("s2", 2, title="y")])
    assert answer.status == 200, answer
    assert [r["status"] for r in answer.json["results"]] == ["success"] * 2
    assert answer.json["appliedSeq"] == 2
    again = Stream.push(s, [s.create("s3", 3, title="z")])
    assert again.status == 200 and again.json["appliedSeq"] == 3


def check_stream(server, name, make, status, problem, member=None):
    s = one_stream(server, name)
    assert s.push([s.create(f"{name}-1", 1)]).status == 200
    before = server.state()
    answer = make(s)
    assert answer.status == status, answer
    assert answer.problem == problem
    if member:
        assert member in answer.json, answer
    assert server.state() == before


def test_a_sequence_gap(shared):
    check_stream(shared, "gap", lambda s: s.push([s.create("gap-3", 3)], first=3), 409, "sequence-gap", "appliedSeq")


def test_a_hole_inside_a_push(shared):
    check_stream(shared, "hole", lambda s: s.push([s.create("h2", 2), s.create("h4", 4)]), 400, "invalid-request")


def test_a_group_split_over_two_pushes(shared):
    def first_half(s):
        group = {"first": 2, "size": 2}
        return s.push([s.op("create", "pins", "g2", {}, seq=2, group=group)])

    def second_half(s):
        group = {"first": 1, "size": 2}
        return s.push([s.op("create", "pins", "g2", {}, seq=2, group=group)])

    check_stream(shared, "half", first_half, 400, "invalid-request")
    check_stream(shared, "otherhalf", second_half, 400, "invalid-request")


def test_a_key_that_does_not_match_its_content(shared):
    def forged(s):
        operation = s.create("k2", 2, title="honest")
        operation["payload"] = json.dumps({"title": "changed on the way"})
        return s.push([operation])

    check_stream(shared, "forged", forged, 400, "key-mismatch")


def test_a_key_of_another_scope(shared):
    def moved(s):
        operation = s.create("k2", 2)
        s.scope = "field"
        operation["origin"]["lsn"] += 1
        return s.push([operation])

    check_stream(shared, "moved", moved, 400, "key-mismatch")


def test_another_previous_key_is_a_fork(shared):
    check_stream(shared, "prev", lambda s: s.push([s.create("f2", 2)], prev="ab" * 32), 409, "device-forked", "lastKey")


def test_another_operation_at_a_used_number_is_a_fork(shared):
    def reuse(s):
        return s.push([s.op("create", "pins", "other", {"title": "clone"}, seq=1)], first=1, prev="")

    check_stream(shared, "reuse", reuse, 409, "device-forked")


def test_an_acknowledgement_of_the_future_is_a_regression(shared):
    check_stream(shared, "future", lambda s: s.push([s.create("r2", 2)], ackedSeq=9), 409, "history-regressed")


def test_a_resent_operation_is_answered_from_the_ledger(shared):
    s = one_stream(shared, "resend")
    operations = [s.create("re1", 1, title="x")]
    first = s.push(operations).json["results"][0]
    before = shared.state()
    answer = s.push(operations, first=1, prev="", ackedSeq=0)
    result = answer.json["results"][0]
    assert result["status"] == "already_processed"
    assert result["idempotencyKey"] == first["idempotencyKey"] and result["commitSeq"] == first["commitSeq"]
    assert shared.state() == before


def test_an_unregistered_device_is_told_so(unchanged):
    s = Stream(unchanged, device="0" * 31 + "9", register=False)
    answer = s.push([s.create("n1", 1)])
    assert answer.status == 409 and answer.problem == "device-unknown"


def test_the_device_of_another_user(unchanged):
    s = one_stream(unchanged, "good")
    s.seq = 3
    answer = unchanged.post(PUSH, s.body([s.create("theft", 4)]), token=unchanged.token(sub="mallory"))
    assert answer.status in (403, 409), answer
    assert answer.status != 200


# ---- tokens ----

def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(server, header=None, claims=None, key=None):
    """A token signed as asked, with the server's own key unless another is given."""
    if key is None:
        with open(os.path.join(server.data, "secret")) as stream:
            key = stream.read().strip().encode()
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    claims = dict({"sub": "ana", "exp": int(time.time()) + 600, "scopes": ["field"]}, **(claims or {}))
    signed = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return signed + "." + b64(hmac.new(key, signed.encode(), hashlib.sha256).digest())


TOKENS = {
    "nonsense": lambda s: "nonsense",
    "two dots only": lambda s: "..",
    "forged with another key": lambda s: forge(s, key=b"x" * 32),
    "forged with an empty key": lambda s: forge(s, key=b""),
    "alg none": lambda s: ".".join(forge(s, header={"alg": "none"}).split(".")[:2]) + ".",
    "alg none with a signature": lambda s: forge(s, header={"alg": "none"}),
    "alg HS512": lambda s: forge(s, header={"alg": "HS512"}),
    "alg RS256": lambda s: forge(s, header={"alg": "RS256"}),
    "expired": lambda s: forge(s, claims={"exp": int(time.time()) - 3600}),
    "without exp": lambda s: forge(s, claims={"exp": None}),
    "exp as text": lambda s: forge(s, claims={"exp": "tomorrow"}),
    "not yet valid": lambda s: forge(s, claims={"nbf": int(time.time()) + 3600}),
    "changed claims": lambda s: forge(s).split(".")[0] + "." + b64(
        b'{"sub":"root","exp":9999999999,"scopes":["field"]}') + "." + forge(s).split(".")[2],
    "cut signature": lambda s: forge(s)[:-3],
    "padded": lambda s: forge(s) + "==",
    "too long": lambda s: forge(s, claims={"x": "y" * 9000}),
    "without sub": lambda s: forge(s, claims={"sub": None}),
    "scopes no array": lambda s: forge(s, claims={"scopes": "field"}),
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_bad_token_is_401(unchanged, name):
    answer = unchanged.push([create("t1")], token=TOKENS[name](unchanged))
    assert answer.status == 401 and answer.problem == "unauthenticated", answer
    assert "WWW-Authenticate" in answer.headers


def test_a_good_token_made_by_hand(shared):
    assert shared.get("/v1/sync/changes?scope=field", token=forge(shared)).status == 200


def test_no_token(unchanged):
    for path in ("/v1/sync/changes?scope=field", "/v1/sync/snapshot?scope=field", "/v1/conflicts?scope=field"):
        assert unchanged.get(path, token="").status == 401
    assert unchanged.push([create("t1")], token="").status == 401
    assert unchanged.push([create("t1")], token="", headers={"Authorization": "Basic YTpi"}).status == 401


def test_a_token_that_expires(shared):
    token = shared.token(ttl=1)
    assert shared.get("/v1/sync/changes?scope=field", token=forge(shared, claims={"exp": int(time.time()) - 61})
                      ).status == 401
    assert token.count(".") == 2


def test_a_token_for_another_scope(unchanged):
    other = unchanged.token(scope="elsewhere")
    answer = unchanged.push([create("t1")], token=other, scope="field")
    assert answer.status == 403 and answer.problem == "scope-forbidden"
    for path in ("/v1/sync/changes?scope=field", "/v1/sync/snapshot?scope=field", "/v1/conflicts?scope=field",
                 "/v1/audit?scope=field&entityType=pins&entityId=p1"):
        answer = unchanged.get(path, token=other)
        assert answer.status == 403 and b"good" not in answer.body, path


def test_a_read_only_token(unchanged):
    token = forge(unchanged, claims={"scopes": [], "read_scopes": ["field"]})
    assert unchanged.get("/v1/sync/changes?scope=field", token=token).status == 200
    answer = unchanged.push([create("t1")], token=token, scope="field")
    assert answer.status == 403 and answer.problem == "scope-read-only"


# ---- cursors, queries, HTTP ----

def test_a_cursor_from_elsewhere(world, shared):
    other = world.server()
    other.push([create("p1"), create("p2")])
    _, page = other.pull()
    answer = shared.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}")
    assert answer.status == 410, answer
    assert answer.problem in ("cursor-invalid", "bootstrap-required") and answer.json["detail"]


def test_a_cursor_of_another_scope(shared):
    token = shared.token(scope=["field", "second"])
    shared.push([create("second-1")], token=token, scope="second")
    _, page = shared.pull("second", token=token)
    assert shared.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}", token=token).status in (400, 410)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "%00", "a" * 600, "../../etc/passwd", "eyJhIjoxfQ"])
def test_a_damaged_cursor(unchanged, cursor):
    answer = unchanged.get(f"/v1/sync/changes?scope=field&cursor={cursor}")
    assert answer.status in (400, 410), answer
    assert answer.problem in ("cursor-invalid", "invalid-request")


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "wait=x", "wait=-5", "scope=field&scope=field", "surprise=1",
                                   "tables=nosuchtable"])
def test_a_bad_query(unchanged, query):
    answer = unchanged.get("/v1/sync/changes?scope=field&" + query)
    assert answer.status == 400 and answer.problem == "invalid-request", answer


RAW = {
    "no version": b"GET /healthz\r\n\r\n",
    "bare LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "two lengths": b"POST %p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunked": b"POST %p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "signed length": b"POST %p HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
    "space before colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "head over the limit": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 40000 + b"\r\n\r\n",
    "target over the limit": b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "too many headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "unknown coding": b"POST %p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
}


@pytest.mark.parametrize("name", RAW)
def test_http_that_must_be_refused(unchanged, name):
    with socket.create_connection(("127.0.0.1", unchanged.port), timeout=10 * SLOW) as s:
        s.sendall(RAW[name].replace(b"%p", PUSH.encode()))
        s.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            answer += part
    if answer:
        status = int(answer.split(b" ")[1])
        assert 400 <= status < 506 and status not in (401, 404), answer[:300]
        assert b"connection: close" in answer.lower()
    assert unchanged.get("/healthz", token="").status == 200


def test_5000_slow_connections(world):
    """Half a request each, never finished; a good client keeps working."""
    server = world.server()
    token = server.token()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5000
    if hard < wanted + 200:
        wanted = hard - 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 500), hard))
    held = []
    try:
        for i in range(wanted):
            s = socket.socket()
            s.settimeout(5)
            try:
                s.connect(("127.0.0.1", server.port))
                s.sendall(b"POST /v1/sync HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            except OSError:
                s.close()
                continue
            held.append(s)
            if i % 1000 == 999:
                started = time.monotonic()
                answer = server.push([create(f"p{i}")], token=token)
                assert answer.json["results"][0]["status"] == "success"
                assert time.monotonic() - started < 5 * SLOW
        assert len(held) > wanted * 0.9 or len(held) > 900
        started = time.monotonic()
        for i in range(20):
            assert server.push([create(f"good{i}")], token=token).status == 200
        assert time.monotonic() - started < 10 * SLOW
    finally:
        for s in held:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- database files ----

def test_a_tracked_table_dropped(world, server):
    a, b = world.device("a", server), world.device("b", server)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    b.run("INSERT INTO pins(id) VALUES ('p2')")
    a.run("DROP TABLE forms")
    done = a.sync_cli()
    assert done.code in (0, 1)
    assert a.pending() == 0 or done.code == 1
    settle(b)
    a.sync_cli()
    assert ("p1",) in b.run("SELECT id FROM pins"), "the other table goes on"
    doctor = cli("doctor", a.path)
    assert "forms" in doctor.out + doctor.err, doctor


def test_a_read_only_file(world, server, tmp_path):
    a = world.device("a", server)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    a.disconnect()
    if os.geteuid() == 0:
        # root writes where the mode forbids it: an immutable copy through a read-only URI is the same error
        db = sqlite3.connect(f"file:{a.path}?mode=ro", uri=True, isolation_level=None)
        db.enable_load_extension(True)
        import harness
        db.load_extension(os.path.join(harness.BUILD, "godwit"))
        with pytest.raises(sqlite3.Error) as error:
            db.execute("SELECT godwit_track('pins')")
        assert "read" in str(error.value).lower() or "written" in str(error.value).lower(), error.value
        db.close()
    else:
        os.chmod(a.path, 0o444)
        done = a.sync_cli()
        assert done.code == 1 and "read" in done.err.lower(), done
        os.chmod(a.path, 0o644)
    a.sync()
    assert server.rows("pins")[0][0] == "p1"


def test_a_file_locked_for_long(world, server):
    a = world.device("a", server)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    locker = sqlite3.connect(a.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    done = a.sync_cli()
    assert done.code == 1, done
    assert "lock" in done.err.lower() or "busy" in done.err.lower(), done
    assert time.monotonic() - started < 30 * SLOW
    locker.execute("ROLLBACK")
    locker.close()
    assert a.pending() == 1
    a.sync()
    assert a.pending() == 0


def test_a_full_disk(world, server):
    a = world.device("a", server)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    pages = a.one("PRAGMA page_count")
    a.run(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(sqlite3.Error) as error:
        a.transaction(*[("INSERT INTO pins(id, title) VALUES (?, ?)", f"big{i}", "x" * 4000) for i in range(50)])
    assert "full" in str(error.value)
    assert a.one("SELECT count(*) FROM pins") == 1, "no row"
    assert a.one("SELECT count(*) FROM sync_queue") == 1, "and no operation"
    a.disconnect()
    a.sync()
    assert [r[0] for r in server.rows("pins")] == ["p1"]


def test_a_file_that_is_no_database(world, server, tmp_path):
    path = tmp_path / "picture.db"
    path.write_bytes(b"\x89PNG\r\n" + os.urandom(8192))
    before = path.read_bytes()
    for arguments in (["init", path, "--url", server.url], ["sync", path], ["status", path], ["track", path, "pins"]):
        done = cli(*arguments)
        assert done.code == 1, (arguments, done)
        assert "database" in done.err, done
    assert path.read_bytes() == before


def test_a_folder_and_a_missing_file(server, tmp_path):
    assert cli("status", tmp_path).code == 1
    done = cli("sync", tmp_path / "nothing.db")
    assert done.code == 1 and not (tmp_path / "nothing.db").exists(), done


def test_a_database_that_was_never_set_up(tmp_path):
    path = tmp_path / "plain.db"
    sqlite3.connect(path).execute("CREATE TABLE t (id TEXT PRIMARY KEY)").connection.close()
    done = cli("sync", path)
    assert done.code == 1 and "init" in done.err, done


def test_a_server_store_that_is_no_database(world):
    server = world.server(start=False)
    os.makedirs(server.data)
    with open(server.store, "wb") as stream:
        stream.write(b"this is not a database" * 500)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "store.db" in done.stderr, done
    with open(server.store, "rb") as stream:
        assert stream.read(4) == b"this"


def test_a_bad_schema_file(world):
    server = world.server(schema="CREATE TABLE t (id TEXT PRIMARY KEY; nonsense", start=False)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=30)
    assert done.returncode in (1, 2) and "schema" in done.stderr.lower(), done


def test_a_port_that_is_taken(world, server):
    other = world.server(start=False)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        other.port = s.getsockname()[1]
        done = subprocess.run(other.command(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and str(other.port) in done.stderr, done


# ---- answers a client must not believe ----

@pytest.mark.parametrize("action", ["truncate", "garble", "swallow", "drop"])
def test_a_broken_answer_changes_nothing(world, server, action):
    proxy = world.proxy(server)
    a = world.device("a", server, url=proxy.url)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    proxy.behave = lambda n, head, body: action
    done = a.sync_cli()
    assert done.code != 0, done
    assert a.pending() == 1 and a.one("SELECT count(*) FROM pins") == 1
    proxy.behave = lambda n, head, body: "pass"
    a.sync()
    assert a.pending() == 0
    assert [r[0] for r in server.rows("pins")] == ["p1"]
    assert server.query("SELECT count(*) FROM godwit_op") == [(1,)]
