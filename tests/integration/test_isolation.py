"""Tenants are kept apart: every endpoint, asked with every kind of credential, about things that exist and things
that do not. What belongs to somebody else and what is not there get the same answer, word for word, and
nothing that is answered or written crosses a scope."""
import base64
import hmac
import json
import time
import urllib.error
import urllib.request

import pytest

from harness import Answer


CREDENTIALS = ("none", "expired", "forged", "other-tenant", "read-only", "own")


@pytest.fixture(scope="module")
def tenants(tmp_path_factory):
    """Ana in `north`, Ben in `south`; each has a pin and a device. Ana's pin has an open conflict."""
    import harness
    world = harness.World(tmp_path_factory.mktemp("tenants"))
    server = world.server(config="[table pins]\npolicy.title = manual\n")
    for user, scope, device, pin in (("ana", "north", "a-1", "pin-n"), ("ben", "south", "b-1", "pin-s")):
        token = server.token(user, scope)
        assert server.post("/v1/devices", {"deviceId": device, "lineage": device, "scopes": [scope]},
                           token=token).status == 200
        push(server, token, scope, "create", pin, {"title": f"secret of {scope}"})
        push(server, token, scope, "update", pin, {"title": "mine"}, baseSeq=1)
        push(server, token, scope, "update", pin, {"title": "theirs"}, baseSeq=1)
    yield server
    world.close()


def push(server, token, scope, operation, pin, payload, **more):
    push.count += 1
    body = {"deviceId": "tool", "scope": scope, "operations": [
        {"id": "1", "operation": operation, "entityType": "pins", "entityId": pin, "payload": payload,
         "idempotencyKey": f"k{push.count}", **more}]}
    return server.post("/v1/sync/operations", body, token=token)


push.count = 0


def signed(secret, claims):
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in ({"alg": "HS256"}, claims)]
    mac = hmac.new(secret, b".".join(parts), "sha256").digest()
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def credential(server, kind):
    """What is sent to ask about `north`."""
    if kind == "none":
        return ""
    with open(server.data + "/secret", "rb") as stream:
        secret = stream.read().strip()
    claims = {"sub": "ana", "scopes": ["north"], "exp": int(time.time()) + 600}
    if kind == "expired":
        return signed(secret, {**claims, "exp": int(time.time()) - 3600})
    if kind == "forged":
        return signed(b"x" * 64, claims)
    if kind == "other-tenant":
        return server.token("ben", "south")
    if kind == "read-only":
        return signed(secret, {**claims, "scopes": [], "read_scopes": ["north"]})
    return server.token("ana", "north")


def events(server, token, query):
    """Endless where it is allowed: then only the head is read."""
    request = urllib.request.Request(f"{server.url}/v1/sync/events?{query}",
                                     headers={"Authorization": "Bearer " + token} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, b"")
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def ask(server, endpoint, token, scope, device, pin):
    """One request to `endpoint` about these names."""
    if endpoint == "devices":
        return server.post("/v1/devices", {"deviceId": device, "lineage": device, "scopes": [scope]}, token=token)
    if endpoint == "sync":
        return server.post("/v1/sync", {"deviceId": device, "scope": scope, "operations": []}, token=token)
    if endpoint == "operations":
        ask.count += 1
        return server.post("/v1/sync/operations", {"deviceId": "tool", "scope": scope, "operations": [
            {"id": "1", "operation": "update", "entityType": "pins", "entityId": pin, "payload": {"note": "n"},
             "idempotencyKey": f"i{ask.count}"}]}, token=token)
    if endpoint == "events":
        return events(server, token, f"scope={scope}&device={device}")
    path = {"changes": "/v1/sync/changes?", "snapshot": "/v1/sync/snapshot?",
            "conflicts": "/v1/conflicts?",
            "audit": f"/v1/audit?entityType=pins&entityId={pin}&"}[endpoint]
    return server.get(f"{path}scope={scope}&device={device}", token=token)


ask.count = 0
ENDPOINTS = ("devices", "sync", "operations", "changes", "snapshot", "conflicts", "audit")
WRITES = ("devices", "operations")


def without_names(answer, *names):
    text = answer.body.decode()
    for name in names:
        text = text.replace(name, "?")
    return answer.status, text


@pytest.mark.parametrize("kind", [k for k in CREDENTIALS if k not in ("own", "read-only")])
@pytest.mark.parametrize("endpoint", ENDPOINTS + ("events",))
def test_what_is_not_mine_is_as_good_as_absent(tenants, endpoint, kind):
    token = credential(tenants, kind)
    before = tenants.query("SELECT count(*) FROM godwit_change")
    there = ask(tenants, endpoint, token, "north", "a-1", "pin-n")
    absent = ask(tenants, endpoint, token, "east", "x-9", "pin-x")
    assert there.status in ((403,) if kind == "other-tenant" else (401,))
    assert without_names(there, "north", "a-1", "pin-n") == without_names(absent, "east", "x-9", "pin-x")
    assert "secret of" not in there.body.decode()
    assert tenants.query("SELECT count(*) FROM godwit_change") == before


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reader_reads_and_a_writer_writes(tenants, endpoint):
    reads = ask(tenants, endpoint, credential(tenants, "read-only"), "north", "a-1", "pin-n")
    assert reads.status == (403 if endpoint == "operations" else 200), reads
    own = ask(tenants, endpoint, credential(tenants, "own"), "north", "a-1", "pin-n")
    assert own.status == 200, own


@pytest.mark.parametrize("endpoint", ("sync", "changes", "snapshot", "conflicts", "audit"))
def test_answers_hold_nothing_of_others(tenants, endpoint):
    """In one's own scope, asking about the other's row and device."""
    token = tenants.token("ben", "south")
    answer = ask(tenants, endpoint, token, "south", "b-1", "pin-n")
    assert answer.status == 200
    for word in ("north", "pin-n", "a-1", "ana"):
        assert f'"{word}"' not in answer.body.decode().replace('"entityId":"pin-n"', ""), word


def test_writes_stay_in_their_scope(tenants):
    """Ben may not change, delete, take over or even notice Ana's row."""
    ben = tenants.token("ben", "south")
    row = tenants.query("SELECT title, note FROM pins WHERE id = 'pin-n'")
    outcomes = {}
    for operation in ("update", "delete"):
        for pin in ("pin-n", "pin-none"):
            done = push(tenants, ben, "south", operation, pin, {"title": "taken"} if operation == "update" else {})
            assert done.status == 200
            outcomes[operation, pin] = without_names(done, pin)[1].replace(f'k{push.count}', "?")
        first, second = (json.loads(outcomes[operation, p])["results"][0] for p in ("pin-n", "pin-none"))
        for result in (first, second):
            result.pop("commitSeq", None)
            result.pop("key", None)
        assert first == second, operation
    made = push(tenants, ben, "south", "create", "pin-n", {"title": "taken"}).json["results"][0]
    assert made["status"] == "error" and made["error"]["code"] == "id-unavailable"
    assert tenants.query("SELECT title, note FROM pins WHERE id = 'pin-n'") == row


def test_keys_and_devices_of_others(tenants):
    """Knowing a key, a device id, a cursor or a token of a page of somebody else is of no use."""
    ana, ben = tenants.token("ana", "north"), tenants.token("ben", "south")
    cursor = tenants.get("/v1/sync/changes?scope=north", token=ana).json["cursor"]
    stolen = tenants.get(f"/v1/sync/changes?scope=south&cursor={cursor}", token=ben)
    damaged = tenants.get(f"/v1/sync/changes?scope=south&cursor={cursor[:-4]}AAAA", token=ben)
    assert stolen.status in (400, 410) and damaged.status in (400, 410)
    taken = tenants.post("/v1/devices", {"deviceId": "a-1", "lineage": "a-1", "scopes": ["south"]}, token=ben)
    assert taken.status == 200 and taken.json["scopes"] == [
        {"scope": "south", "head": taken.json["scopes"][0]["head"], "appliedSeq": 0, "lastKey": ""}]  # another stream
    conflict = tenants.get("/v1/conflicts?scope=north", token=ana).json["conflicts"][0]["id"]
    closing = push(tenants, ben, "south", "update", "pin-s", {"title": "x"}, resolves=conflict)
    assert closing.status == 200
    still = [c for c in tenants.get("/v1/conflicts?scope=north", token=ana).json["conflicts"] if c["id"] == conflict]
    assert still and still[0]["state"] == "open"
