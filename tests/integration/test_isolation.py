"""Tenants are kept apart, on both stores: every endpoint, asked with every kind of credential, about things that
exist and things that do not. What belongs to somebody else and what is not there get the same answer, word
for word, and nothing that is answered or written crosses a scope. A device that was revoked is refused
everywhere."""
import base64
import hmac
import json
import time
import urllib.error
import urllib.request

import pytest

import harness
from harness import Answer, cli
from postgres import Cluster

CREDENTIALS = ("none", "expired", "forged", "other-tenant", "other-device", "revoked", "read-only", "own")
READS = ("sync", "changes", "snapshot", "conflicts", "audit")
ENDPOINTS = ("devices", "operations", "reconcile", *READS)


class Store:
    """One server over one kind of store, and the operator's view of it."""

    def __init__(self, folder, kind):
        self.world = harness.World(folder)
        self.cluster = Cluster() if kind == "postgres" else None
        config = "[server]\nread_only_scopes = archive, news\n[table pins]\npolicy.title = manual\n"
        if self.cluster:
            self.url = self.cluster.database(harness.SCHEMA.replace("REAL", "double precision"), ("pins", "forms"))
            self.server = self.world.server(schema=None, config=config, db=self.url)
        else:
            self.server = self.world.server(config=config)

    def rows(self, sql):
        """godwit_* are tables of schema godwit there."""
        if not self.cluster:
            return [[str(v) for v in row] for row in self.server.query(sql)]
        return self.cluster.sql(sql.replace("godwit_", "godwit."), self.url)

    def devices(self, *arguments):
        where = ("--db", self.url) if self.cluster else ("--data", self.server.data)
        done = cli("devices", *arguments, *where)
        assert done.code == 0, done

    def close(self):
        self.world.close()
        if self.cluster:
            self.cluster.close()


@pytest.fixture(scope="module", params=("sqlite", "postgres"))
def store(request, tmp_path_factory):
    """Ana in `north`, Ben in `south`; each has a pin and a device, Ana a second one that was revoked, and
    Cleo is in `north` too. Ana's pin has an open conflict."""
    s = Store(tmp_path_factory.mktemp(request.param), request.param)
    for user, scope, device, pin in (("ana", "north", "a-1", "pin-n"), ("ben", "south", "b-1", "pin-s"),
                                     ("ana", "north", "a-lost", None), ("cleo", "north", "c-1", None)):
        token = s.server.token(user, scope)
        assert register(s.server, token, scope, device).status == 200
        if pin:
            push(s.server, token, scope, "create", pin, {"title": f"secret of {scope}"})
            push(s.server, token, scope, "update", pin, {"title": "mine"}, baseSeq=1)
            push(s.server, token, scope, "update", pin, {"title": "theirs"}, baseSeq=1)
    s.devices("revoke", "a-lost")
    yield s
    s.close()


@pytest.fixture
def tenants(store):
    return store.server


def register(server, token, scope, device):
    return server.post("/v1/devices", {"deviceId": device, "lineage": device, "scopes": [scope]}, token=token)


def push(server, token, scope, operation, pin, payload, device="tool", **more):
    push.count += 1
    body = {"deviceId": device, "scope": scope, "operations": [
        {"id": "1", "operation": operation, "entityType": "pins", "entityId": pin, "payload": payload,
         "idempotencyKey": f"k{push.count}", **more}]}
    return server.post("/v1/sync/operations", body, token=token)


push.count = 0


def signed(secret, claims):
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in ({"alg": "HS256"}, claims)]
    mac = hmac.new(secret, b".".join(parts), "sha256").digest()
    return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def secret_of(server):
    with open(server.data + "/secret", "rb") as stream:
        return stream.read().strip()


def credential(server, kind):
    """What is sent to ask about `north`."""
    claims = {"sub": "ana", "scopes": ["north"], "exp": int(time.time()) + 600}
    return {"none": lambda: "",
            "expired": lambda: signed(secret_of(server), {**claims, "exp": int(time.time()) - 3600}),
            "forged": lambda: signed(b"x" * 64, claims),
            "other-tenant": lambda: server.token("ben", "south"),
            "other-device": lambda: server.token("cleo", "north"),
            "revoked": lambda: server.token("ana", "north"),
            "read-only": lambda: signed(secret_of(server), {**claims, "scopes": [], "read_scopes": ["north"]}),
            "own": lambda: server.token("ana", "north")}[kind]()


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
        return register(server, token, scope, device)
    if endpoint == "sync":
        return server.post("/v1/sync", {"deviceId": device, "scope": scope, "operations": []}, token=token)
    if endpoint == "operations":
        return push(server, token, scope, "update", pin, {"note": "n"}, device)
    if endpoint == "reconcile":
        return server.post("/v1/streams/reconcile", {"scope": scope, "identities": [
            {"deviceId": device, "keys": [[1, "00" * 32]]}]}, token=token)
    if endpoint == "events":
        return events(server, token, f"scope={scope}&device={device}")
    path = {"changes": "/v1/sync/changes?", "snapshot": "/v1/sync/snapshot?",
            "conflicts": "/v1/conflicts?",
            "audit": f"/v1/audit?entityType=pins&entityId={pin}&"}[endpoint]
    return server.get(f"{path}scope={scope}&device={device}", token=token)


def without_names(answer, *names):
    text = answer.body.decode()
    for name in names:
        text = text.replace(name, "?")
    return answer.status, text


def counts(store):
    return store.rows("SELECT (SELECT count(*) FROM godwit_change), (SELECT count(*) FROM godwit_device),"
                      " (SELECT count(*) FROM godwit_commit)")


@pytest.mark.parametrize("kind", ("none", "expired", "forged", "other-tenant"))
@pytest.mark.parametrize("endpoint", (*ENDPOINTS, "events"))
def test_what_is_not_mine_is_as_good_as_absent(store, tenants, endpoint, kind):
    token = credential(tenants, kind)
    before = counts(store)
    there = ask(tenants, endpoint, token, "north", "a-1", "pin-n")
    absent = ask(tenants, endpoint, token, "east", "x-9", "pin-x")
    assert there.status == (403 if kind == "other-tenant" else 401)
    assert without_names(there, "north", "a-1", "pin-n") == without_names(absent, "east", "x-9", "pin-x")
    assert "secret of" not in there.body.decode()
    assert counts(store) == before


@pytest.mark.parametrize("endpoint", (*ENDPOINTS, "events"))
def test_a_device_of_another_user_is_as_good_as_absent(store, tenants, endpoint):
    """In one scope: Cleo says she is Ana's device, or one that nobody has."""
    token = credential(tenants, "other-device")
    before = counts(store)
    there = ask(tenants, endpoint, token, "north", "a-1", "pin-n")
    if endpoint == "devices":
        assert there.status == 403 and there.problem == "device-revoked"  # an id can be taken only once
    elif endpoint == "reconcile":
        absent = ask(tenants, endpoint, token, "north", "x-9", "pin-x")
        assert there.status == 200 and without_names(there, "a-1") == without_names(absent, "x-9")
    else:
        assert there.status == 409 and there.problem == "device-unknown", there
        if endpoint not in ("sync", "operations"):  # those two do not ask that a device be registered
            absent = ask(tenants, endpoint, token, "north", "x-9", "pin-n")
            assert without_names(there, "a-1") == without_names(absent, "x-9")
    assert counts(store) == before


@pytest.mark.parametrize("pin", ("pin-n", "pin-x"))
@pytest.mark.parametrize("endpoint", (*ENDPOINTS, "events"))
def test_a_revoked_device_is_refused_everywhere(store, tenants, endpoint, pin):
    before = counts(store)
    answer = ask(tenants, endpoint, credential(tenants, "revoked"), "north", "a-lost", pin)
    assert answer.status == 403 and answer.problem == "device-revoked", answer
    assert "secret of" not in answer.body.decode() and counts(store) == before


@pytest.mark.parametrize("endpoint", (*READS, "events"))
def test_a_retired_device_is_told_so(store, tenants, endpoint):
    token = credential(tenants, "own")
    assert register(tenants, token, "north", "a-old").status == 200
    store.devices("retire", "a-old")
    answer = ask(tenants, endpoint, token, "north", "a-old", "pin-n")
    assert answer.status == 409 and answer.problem == "device-retired", answer


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reader_reads_and_a_writer_writes(tenants, endpoint):
    reads = ask(tenants, endpoint, credential(tenants, "read-only"), "north", "a-1", "pin-n")
    assert reads.status == (403 if endpoint == "operations" else 200), reads
    own = ask(tenants, endpoint, credential(tenants, "own"), "north", "a-1", "pin-n")
    assert own.status == 200, own
    absent = ask(tenants, endpoint, credential(tenants, "own"), "north", "a-1", "pin-x")
    assert absent.status == 200, absent


def test_scopes_that_may_only_be_read(store, tenants):
    """By the token, or by the configuration whatever the token says: pulls work, pushes are told why not."""
    before = counts(store)
    for token, scope, device in ((credential(tenants, "read-only"), "north", "a-1"),
                                 (tenants.token("ana", "news"), "news", "n-1")):
        assert register(tenants, token, scope, device).status == 200
        for pin in ("pin-n", "pin-x"):
            refused = push(tenants, token, scope, "update", pin, {"title": "over"})
            assert refused.status == 403 and refused.problem == "scope-read-only", refused
        for endpoint in (*READS, "reconcile", "events"):
            assert ask(tenants, endpoint, token, scope, device, "pin-n").status == 200, endpoint
    after = counts(store)
    assert (after[0][0], after[0][2]) == (before[0][0], before[0][2])


@pytest.mark.parametrize("endpoint", READS)
def test_answers_hold_nothing_of_others(tenants, endpoint):
    """In one's own scope, asking about the other's row."""
    answer = ask(tenants, endpoint, tenants.token("ben", "south"), "south", "b-1", "pin-n")
    assert answer.status == 200
    for word in ("north", "pin-n", "a-1", "ana"):
        assert f'"{word}"' not in answer.body.decode().replace('"entityId":"pin-n"', ""), word


def test_writes_stay_in_their_scope(store, tenants):
    """Ben may not change, delete, take over or even notice Ana's row."""
    ben = tenants.token("ben", "south")
    row = store.rows("SELECT title, note FROM pins WHERE id = 'pin-n'")
    for operation in ("update", "delete"):
        results = []
        for pin in ("pin-n", "pin-none"):
            done = push(tenants, ben, "south", operation, pin, {"title": "taken"} if operation == "update" else {})
            assert done.status == 200
            results.append(json.loads(done.body.decode().replace(pin, "?").replace(f"k{push.count}", "?"))["results"][0])
            results[-1].pop("commitSeq", None)
            results[-1].pop("key", None)
        assert results[0] == results[1], operation
    made = push(tenants, ben, "south", "create", "pin-n", {"title": "taken"}).json["results"][0]
    assert made["status"] == "error" and made["error"]["code"] == "id-unavailable"
    assert store.rows("SELECT title, note FROM pins WHERE id = 'pin-n'") == row


def test_keys_and_devices_of_others(tenants):
    """Knowing a key, a device id, a cursor or a token of a page of somebody else is of no use."""
    ana, ben = tenants.token("ana", "north"), tenants.token("ben", "south")
    cursor = tenants.get("/v1/sync/changes?scope=north", token=ana).json["cursor"]
    stolen = tenants.get(f"/v1/sync/changes?scope=south&cursor={cursor}", token=ben)
    damaged = tenants.get(f"/v1/sync/changes?scope=south&cursor={cursor[:-4]}AAAA", token=ben)
    assert stolen.status in (400, 410) and damaged.status in (400, 410)
    taken = register(tenants, ben, "south", "a-1")
    assert taken.status == 200 and taken.json["scopes"] == [
        {"scope": "south", "head": taken.json["scopes"][0]["head"], "appliedSeq": 0, "lastKey": ""}]  # another stream
    conflict = tenants.get("/v1/conflicts?scope=north", token=ana).json["conflicts"][0]["id"]
    closing = push(tenants, ben, "south", "update", "pin-s", {"title": "x"}, resolves=conflict)
    assert closing.status == 200
    still = [c for c in tenants.get("/v1/conflicts?scope=north", token=ana).json["conflicts"] if c["id"] == conflict]
    assert still and still[0]["state"] == "open"


def test_a_token_of_one_device(world):
    """With device_claim a token is good for the device it names, whatever the request says of itself."""
    server = world.server(config="[server]\ndevice_claim = app.device\n")
    config = ("--config", server.config, "--data", server.data, "--sub", "ana", "--scope", "field")
    nameless = cli("token", *config)
    assert nameless.code == 2 and "--device" in nameless.err
    token = cli("token", *config, "--device", "a-1").out.strip()
    assert register(server, token, "field", "a-1").status == 200
    assert push(server, token, "field", "create", "p", {"title": "t"}, device="a-1").status == 200
    for endpoint in ("devices", "operations", "sync", "changes", "snapshot", "conflicts", "audit", "events"):
        other = ask(server, endpoint, token, "field", "a-2", "p")
        assert other.status == 403 and other.problem == "device-revoked", (endpoint, other)
    without = signed(secret_of(server), {"sub": "ana", "scopes": ["field"]})
    assert server.get("/v1/sync/changes?scope=field", token=without).status == 401
    hidden = "/v1/sync/changes?scope=field", "/v1/audit?scope=field&entityType=pins&entityId=p", "/v1/conflicts?scope=field"
    assert [server.get(path, token=token).status for path in hidden] == [200] * 3
    assert cli("devices", "revoke", "a-1", "--data", server.data).code == 0
    assert [server.get(path, token=token).problem for path in hidden] == ["device-revoked"] * 3
    assert events(server, token, "scope=field").problem == "device-revoked"
