"""The wire as other programs are written against it: names, shapes and status codes, spoken by curl and
by plain HTTP, without any of our client code."""
import json
import re
import subprocess
import threading
import time

import pytest

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def op(id, operation, entity, entity_id, payload=None, key=None, **more):
    body = {"id": id, "operation": operation, "entityType": entity, "entityId": entity_id,
            "idempotencyKey": key or f"key-{id}", "payload": {} if payload is None else payload}
    body.update(more)
    return body


def create(entity_id, key=None, **payload):
    return op(f"c-{entity_id}", "create", "pins", entity_id, payload, key)


def test_health_and_meta_need_no_token(server):
    assert server.get("/healthz", token="").status == 200
    assert server.get("/readyz", token="").status == 200
    answer = server.get("/v1/meta", token="")
    assert answer.status == 200
    meta = answer.json
    assert meta["protocol"] == 1 or str(meta["protocol"]).startswith("1")
    assert TIME.match(meta["serverTime"])
    assert isinstance(meta["limits"], dict) and meta["limits"]


def test_the_requirements_body_works_with_curl(server):
    body = {
        "deviceId": "phone-1", "timestamp": "2026-01-02T03:04:05.678Z",
        "operations": [
            {"id": "6f0b", "operation": "create", "entityType": "pins", "entityId": "pin-1",
             "idempotencyKey": "phone-1|create|pin-1|1", "payload": json.dumps({"id": "pin-1", "title": "Well"})},
            {"id": "6f0c", "operation": "update", "entityType": "pins", "entityId": "pin-1",
             "idempotencyKey": "phone-1|update|pin-1|2", "payload": {"note": "dry"}},
            {"id": "6f0d", "operation": "delete", "entityType": "pins", "entityId": "pin-0",
             "idempotencyKey": "phone-1|delete|pin-0|3", "payload": {}}]}
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code} %{content_type}", server.url + "/v1/sync/operations",
         "-H", "Authorization: Bearer " + server.token(), "-H", "Content-Type: application/json",
         "-d", json.dumps(body)], capture_output=True, text=True, timeout=30)
    text, trailer = done.stdout.rsplit("\n", 1)
    assert trailer == "200 application/json", done
    answer = json.loads(text)
    results = answer["results"]
    assert [(r["id"], r["status"]) for r in results] == [("6f0b", "success"), ("6f0c", "success"),
                                                         ("6f0d", "success")]
    assert results[0]["outcome"] == "applied"
    assert results[0]["result"]["title"] == "Well"
    assert results[1]["result"]["note"] == "dry" and results[1]["result"]["title"] == "Well"
    assert results[2]["outcome"] == "noop"
    assert results[0]["commitSeq"] < results[1]["commitSeq"], "each operation is its own group"
    assert server.rows("pins")[0][:3] == ("pin-1", "Well", "dry")


def test_a_replay_returns_the_stored_result(server):
    first = server.push([create("p1", title="Well")]).json["results"][0]
    changed = server.push([op("u1", "update", "pins", "p1", {"title": "Later"})])
    assert changed.json["results"][0]["status"] == "success"
    before = server.state()
    again = server.push([create("p1", title="Well")])
    assert again.status == 200
    result = again.json["results"][0]
    assert result["status"] == "already_processed"
    assert result["result"] == first["result"], "the result of then, not of now"
    assert result["commitSeq"] == first["commitSeq"]
    assert server.state() == before


def test_the_same_key_with_other_content_is_refused(server):
    server.push([create("p1", key="k", title="Well")])
    before = server.state()
    result = server.push([create("p1", key="k", title="Other")]).json["results"][0]
    assert result["status"] == "error"
    assert result["error"]["code"] == "idempotency-mismatch"
    assert result["error"]["retryable"] is False
    assert server.state() == before


def test_keys_belong_to_a_scope(server):
    one = server.push([create("p1", key="k", title="in north")], token=server.token(scope="north"))
    two = server.push([create("p2", key="k", title="in south")], token=server.token(scope="south"))
    assert one.json["results"][0]["status"] == two.json["results"][0]["status"] == "success"
    assert "north" not in two.body.decode()


def test_atomic_is_all_or_nothing(server):
    bad = [create("p1", title="fine"), op("x", "update", "pins", "missing", {"title": "no"})]
    before = server.state()
    results = server.push(bad, atomic=True).json["results"]
    assert [r["status"] for r in results] == ["error", "error"]
    assert "row-missing" in [r["error"]["code"] for r in results]
    assert server.rows("pins") == []
    assert server.state()["pins"] == before["pins"]
    good = [create("p2", key="a", title="one"), op("f", "create", "forms", "f1", {"pin_id": "p2"}, key="b")]
    results = server.push(good, atomic=True).json["results"]
    assert [r["status"] for r in results] == ["success", "success"]
    assert results[0]["commitSeq"] == results[1]["commitSeq"], "one commit"


def test_without_atomic_each_operation_stands_alone(server):
    results = server.push([create("p1", title="fine"), op("x", "update", "pins", "missing", {"title": "no"}),
                           create("p2", title="fine")]).json["results"]
    assert [r["status"] for r in results] == ["success", "error", "success"]
    assert results[1]["error"]["code"] == "row-missing"
    assert set(results[1]["error"]) >= {"code", "retryable", "detail"}
    assert [r[0] for r in server.rows("pins")] == ["p1", "p2"]


def test_base_seq_says_what_the_author_had_seen(server):
    seq = server.push([create("p1", title="a", note="b")]).json["results"][0]["commitSeq"]
    server.push([op("u1", "update", "pins", "p1", {"title": "newer"})])
    result = server.push([op("u2", "update", "pins", "p1", {"note": "merged"}, baseSeq=seq)]).json["results"][0]
    assert result["status"] == "success" and result["result"]["title"] == "newer"
    result = server.push([op("u3", "update", "pins", "p1", {"title": "concurrent"}, baseSeq=seq)],
                         device="tool-2").json["results"][0]
    assert result["outcome"] == "merged", result
    assert result["conflicts"], "the ledger entry is named"
    assert len(server.query("SELECT 1 FROM godwit_conflict")) == 1
    absent = server.push([op("u4", "update", "pins", "p1", {"title": "over"})], device="tool-3").json["results"][0]
    assert absent["outcome"] == "applied" and absent["result"]["title"] == "over"


def test_scope_defaults_to_the_tokens_first(server):
    token = server.token(scope=["east", "west"])
    server.push([create("p1")], token=token)
    server.push([create("p2")], token=token, scope="west")
    assert [c["changes"][0]["entityId"] for c in server.pull("east", token=token)[0]] == ["p1"]
    assert [c["changes"][0]["entityId"] for c in server.pull("west", token=token)[0]] == ["p2"]


def test_aliases_of_operation_names(server):
    results = server.push([op("1", "PUT", "pins", "p1", {"title": "x"}), op("2", "PATCH", "pins", "p1", {"note": "y"}),
                           op("3", "DELETE", "pins", "p1")]).json["results"]
    assert [r["status"] for r in results] == ["success"] * 3
    assert server.rows("pins") == []


def test_changes_have_the_documented_shape(server):
    server.push([create("p1", title="x", lat=1.5)], device="tool-9", token=server.token(sub="ana"))
    server.push([op("u", "update", "pins", "p1", {"title": "y"})])
    server.push([op("d", "delete", "pins", "p1")])
    commits, page = server.pull()
    assert set(page) >= {"commits", "cursor", "head", "more"}
    assert page["head"] == 3 and page["more"] is False
    assert [c["seq"] for c in commits] == [1, 2, 3]
    first = commits[0]
    assert TIME.match(first["at"]) and re.match(r"^[0-9a-f]{16}$", first["salt"])
    assert first["author"]["deviceId"] == "tool-9" and first["author"]["userId"] == "ana"
    change = first["changes"][0]
    assert (change["entityType"], change["entityId"], change["kind"], change["full"]) == ("pins", "p1", "upsert", True)
    assert change["columns"]["title"] == "x" and change["columns"]["lat"] == 1.5
    assert set(change["columns"]) >= {"title", "note", "lat", "lng", "status", "updated_at"}
    update = commits[1]["changes"][0]
    assert update["full"] is False and update["columns"] == {"title": "y"}
    assert commits[2]["changes"][0]["kind"] == "delete"


def test_the_feed_goes_on_from_its_cursor(server):
    for i in range(25):
        server.push([create(f"p{i:02}", title=str(i))])
    seen, cursor, pages = [], None, 0
    while True:
        query = f"/v1/sync/changes?scope=field&limit=10{'&cursor=' + cursor if cursor else ''}"
        page = server.get(query).json
        seen += [c["seq"] for c in page["commits"]]
        cursor, pages = page["cursor"], pages + 1
        if not page["more"]:
            break
    assert seen == list(range(1, 26)) and pages == 3
    empty = server.get(f"/v1/sync/changes?scope=field&cursor={cursor}").json
    assert empty["commits"] == [] and empty["head"] == 25
    assert server.get("/v1/sync/changes?scope=field&limit=1&cursor=").status in (200, 400)


def test_only_the_asked_tables(server):
    server.push([create("p1"), op("f", "create", "forms", "f1", {"pin_id": "p1"})])
    commits, page = server.pull(tables="forms")
    types = [x["entityType"] for c in commits for x in c["changes"]]
    assert types == ["forms"] and page["head"] == 2


def test_etag_saves_an_answer(server):
    server.push([create("p1")])
    _, page = server.pull()
    path = f"/v1/sync/changes?scope=field&cursor={page['cursor']}"
    answer = server.get(path)
    tag = answer.headers.get("ETag")
    assert tag
    assert server.get(path, headers={"If-None-Match": tag}).status == 304


def test_long_poll_wakes_on_a_commit(server):
    server.push([create("p0")])
    _, page = server.pull()
    result = {}

    def wait():
        started = time.monotonic()
        result["page"] = server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20").json
        result["seconds"] = time.monotonic() - started

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    server.push([create("p1")])
    thread.join(25)
    assert [c["seq"] for c in result["page"]["commits"]] == [2]
    assert 0.2 < result["seconds"] < 10


def test_long_poll_ends_empty(server):
    server.push([create("p0")])
    _, page = server.pull()
    started = time.monotonic()
    answer = server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=1")
    assert answer.status in (200, 304)
    assert 0.8 < time.monotonic() - started < 8
    if answer.status == 200:
        assert answer.json["commits"] == []


def test_registering_a_device(server):
    tables = [{"name": "pins", "primaryKey": ["id"], "columns": [
        {"name": "id", "type": "TEXT"}, {"name": "title", "type": "TEXT"}]}]
    body = {"deviceId": "d" * 32, "lineage": "d" * 32, "scopes": ["field"], "label": "Ana's phone", "tables": tables}
    answer = server.post("/v1/devices", body)
    assert answer.status == 200, answer
    document = answer.json
    assert document["deviceId"] == "d" * 32
    assert document["scopes"][0]["scope"] == "field"
    assert document["scopes"][0]["head"] == 0 and document["scopes"][0]["appliedSeq"] == 0
    assert "pins" in [t["name"] for t in document["tables"]]
    assert server.post("/v1/devices", body).status == 200, "registering is idempotent"


def test_a_declaration_that_disagrees_is_refused_by_name(world):
    server = world.server(dev=True, schema=None)
    table = {"name": "t", "primaryKey": ["id"], "columns": [{"name": "id", "type": "TEXT"},
                                                            {"name": "v", "type": "INTEGER"}]}
    body = {"deviceId": "a" * 32, "lineage": "a" * 32, "scopes": ["field"], "tables": [table]}
    assert server.post("/v1/devices", body).status == 200
    table["columns"][1]["type"] = "BLOB"
    answer = server.post("/v1/devices", dict(body, deviceId="b" * 32, lineage="b" * 32))
    assert answer.status == 409 and answer.problem == "schema-mismatch", answer
    assert "v" in answer.json["detail"]


def test_dev_adopts_what_devices_declare(world):
    server = world.server(dev=True, schema=None)
    table = {"name": "trees", "primaryKey": ["id"],
             "columns": [{"name": "id", "type": "TEXT"}, {"name": "height", "type": "REAL"}]}
    body = {"deviceId": "a" * 32, "lineage": "a" * 32, "scopes": ["field"], "tables": [table]}
    assert server.post("/v1/devices", body).status == 200
    result = server.push([op("1", "create", "trees", "t1", {"height": 3.5})]).json["results"][0]
    assert result["status"] == "success"
    server.restart()
    assert server.rows("trees") == [("t1", 3.5)], "adopted durably"
    assert server.push([op("2", "create", "trees", "t2", {})]).json["results"][0]["status"] == "success"


def test_without_dev_an_unknown_table_is_refused_by_name(server):
    table = {"name": "trees", "primaryKey": ["id"], "columns": [{"name": "id", "type": "TEXT"}]}
    body = {"deviceId": "a" * 32, "lineage": "a" * 32, "scopes": ["field"], "tables": [table]}
    answer = server.post("/v1/devices", body)
    assert answer.status in (409, 400) and "trees" in answer.json["detail"], answer


def test_values_on_the_wire(world):
    server = world.server(schema="CREATE TABLE v (id TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB);")
    payload = {"i": {"$i64": "9007199254740993"}, "r": 0.1, "t": "ž", "b": {"$b64": "AP8="}}
    result = server.push([op("1", "create", "v", "x", payload)]).json["results"][0]["result"]
    assert result["i"] == {"$i64": "9007199254740993"} and result["r"] == 0.1 and result["b"] == {"$b64": "AP8="}
    assert server.query("SELECT i, r, t, b FROM v") == [(9007199254740993, 0.1, "ž", b"\x00\xff")]
    result = server.push([op("2", "update", "v", "x", {"i": 9007199254740992, "r": {"$real": "-inf"}})])
    row = result.json["results"][0]["result"]
    assert row["i"] == 9007199254740992 and row["r"] == {"$real": "-inf"}


def test_sync_pushes_and_pulls_in_one_round_trip(server):
    server.push([create("p1", title="x")])
    device = "e" * 32
    assert server.post("/v1/devices", {"deviceId": device, "lineage": device, "scopes": ["field"]}).status == 200
    answer = server.post("/v1/sync", {"deviceId": device, "timestamp": "2026-01-02T03:04:05.678Z",
                                      "scope": "field", "operations": []})
    assert answer.status == 200, answer
    body = answer.json
    assert body["results"] == [] and body["head"] == 1
    assert [c["seq"] for c in body["changes"]["commits"]] == [1]
    assert body["changes"]["cursor"] and TIME.match(body["serverTime"])
    more = server.post("/v1/sync", {"deviceId": device, "timestamp": "2026-01-02T03:04:05.678Z",
                                    "scope": "field", "operations": [], "cursor": body["changes"]["cursor"]})
    assert more.json["changes"]["commits"] == []


def test_snapshot_pages_hold_every_row(server):
    server.push([create(f"p{i:03}", title=str(i)) for i in range(120)])
    rows, token = [], None
    while True:
        page = server.get("/v1/sync/snapshot?scope=field" + (f"&token={token}" if token else "")).json
        assert set(page) >= {"rows", "asOf", "salt", "head", "more"}
        rows += page["rows"]
        if not page["more"]:
            assert page["cursor"]
            break
        token = page["token"]
    assert sorted(r["entityId"] for r in rows) == [f"p{i:03}" for i in range(120)]
    assert rows[0]["columns"]["title"] is not None and rows[0]["ver"] > 0
    after = server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}").json
    assert after["commits"] == []


def test_problems_are_rfc_9457(server):
    answer = server.get("/v1/nothing-here")
    assert answer.status == 404 and answer.problem
    answer = server.request("DELETE", "/v1/sync/operations")
    assert answer.status == 405 and answer.problem
    answer = server.post("/v1/sync/operations", raw=b"{")
    assert answer.status == 400 and answer.problem == "invalid-request"


def test_concurrent_pushes_are_each_decided_once(server):
    """Many connections at once: combining may join them, nothing may be lost or doubled."""
    server.token()
    failures = []

    def work(n):
        try:
            for i in range(20):
                operations = [create(f"p-{n}-{i}", title="x"),
                              op(f"u-{n}-{i}", "update", "pins", f"p-{n}-{i}", {"note": "y"})]
                for attempt in range(2):  # every request twice
                    answer = server.push(operations, device=f"tool-{n}")
                    wanted = "success" if attempt == 0 else "already_processed"
                    assert [r["status"] for r in answer.json["results"]] == [wanted] * 2, answer
        except BaseException as error:  # noqa: B902 - reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    commits, page = server.pull()
    assert [c["seq"] for c in commits] == list(range(1, 321)) and page["head"] == 320
    assert server.query("SELECT count(*), count(DISTINCT idem_key) FROM godwit_idem") == [(320, 320)]
    assert len(server.rows("pins")) == 160


def test_events_are_hints(server):
    server.push([create("p0")])
    done = subprocess.Popen(["curl", "-sSN", "--max-time", "8", server.url + "/v1/sync/events?scope=field",
                             "-H", "Authorization: Bearer " + server.token()], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.4)
        server.push([create("p1")])
        lines, end = [], time.monotonic() + 8
        while time.monotonic() < end:
            line = done.stdout.readline().strip()
            lines.append(line)
            if line.startswith("data:") and json.loads(line[5:])["head"] >= 2:
                break
        assert json.loads(lines[-1][5:]) == {"scope": "field", "head": 2}, lines
        assert "event: head" in lines
    finally:
        done.kill()
        done.wait()


def test_gzip_both_ways(server):
    import gzip
    operations = [create(f"p{i}", title="x" * 50) for i in range(50)]
    body = json.dumps({"operations": operations, "deviceId": "tool", "timestamp": "2026-01-02T03:04:05.678Z"})
    answer = server.post("/v1/sync/operations", raw=gzip.compress(body.encode()),
                         headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert answer.status == 200 and len(answer.json["results"]) == 50
    answer = server.get("/v1/sync/changes?scope=field", headers={"Accept-Encoding": "gzip"})
    assert answer.headers.get("Content-Encoding") == "gzip" and len(answer.json["commits"]) == 50


@pytest.mark.parametrize("verb", ["keep-alive", "close"])
def test_connections(server, verb):
    done = subprocess.run(["curl", "-sS", "-H", f"Connection: {verb}", server.url + "/healthz", server.url + "/readyz",
                           "-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} "], capture_output=True, text=True)
    assert done.stdout.split() == ["200", "200"]


def test_history_of_a_row(server):
    server.push([create("p1", title="x")])
    server.push([op("u", "update", "pins", "p1", {"title": "y"})])
    answer = server.get("/v1/audit?scope=field&entityType=pins&entityId=p1")
    assert answer.status == 200, answer
    assert "x" in answer.body.decode() and "y" in answer.body.decode()


def test_conflicts_are_listed(server):
    seq = server.push([create("p1", title="a")]).json["results"][0]["commitSeq"]
    server.push([op("1", "update", "pins", "p1", {"title": "b"})], device="one")
    server.push([op("2", "update", "pins", "p1", {"title": "c"}, baseSeq=seq)], device="two")
    answer = server.get("/v1/conflicts?scope=field")
    assert answer.status == 200
    entries = answer.json["conflicts"] if isinstance(answer.json, dict) else answer.json
    assert len(entries) == 1


OPTIONS = """
[table pins]
entity = pin
deleted_column = deleted_at
created_by_device_column = made_by
updated_at_column = updated_at
"""


def test_table_options_for_other_readers(world):
    server = world.server(schema="CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, deleted_at TEXT, made_by TEXT, "
                          "updated_at TEXT);", config=OPTIONS)
    results = server.push([op("1", "create", "pin", "p1", {"title": "x"}), op("2", "create", "pin", "p2", {}),
                           op("3", "delete", "pin", "p2")], device="tool-5").json["results"]
    assert [r["status"] for r in results] == ["success"] * 3, results
    rows = server.query("SELECT id, title, deleted_at IS NOT NULL, made_by, updated_at IS NOT NULL FROM pins ORDER BY id")
    assert rows[0] == ("p1", "x", 0, "tool-5", 1)
    assert rows[1][0] == "p2" and rows[1][2] == 1, "soft delete: the row stays"
    commits, _ = server.pull()
    assert commits[2]["changes"][0]["kind"] == "delete", "for devices it is a delete"
