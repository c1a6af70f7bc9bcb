"""Row level security: the policies of the database decide what a token's role writes and sees, row by row, with
policies of the kinds that people write. The server's own role is an ordinary owner of the tables."""
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.parse

import pytest

import harness
from postgres import Cluster
from stream import Stream
from test_isolation import register, secret_of, signed

TABLES = """
CREATE SCHEMA auth;
CREATE FUNCTION auth.uid() RETURNS text STABLE LANGUAGE sql AS
  $$SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'$$;
CREATE TABLE members(user_id text, team text);
CREATE TABLE pins(id text PRIMARY KEY, title text, note text, owner text, locked boolean);
CREATE TABLE docs(id text PRIMARY KEY, team text, body text, readers text[]);
CREATE TABLE plain(id text PRIMARY KEY, body text);
GRANT USAGE ON SCHEMA auth TO authenticated;
GRANT SELECT ON members TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON pins, docs TO authenticated;
GRANT SELECT ON plain TO authenticated;
ALTER TABLE pins ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON pins FOR SELECT TO authenticated USING (owner = auth.uid());
CREATE POLICY make ON pins FOR INSERT TO authenticated WITH CHECK (owner = auth.uid());
CREATE POLICY change ON pins FOR UPDATE TO authenticated USING (owner = auth.uid() AND note IS DISTINCT FROM 'final');
CREATE POLICY remove ON pins FOR DELETE TO authenticated USING (owner = auth.uid() AND NOT coalesce(locked, false));
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY team ON docs TO authenticated
  USING (team IN (SELECT m.team FROM members m WHERE m.user_id = auth.uid()) OR auth.uid() = ANY (readers));
CREATE POLICY awake ON docs AS RESTRICTIVE FOR SELECT TO authenticated USING (auth.uid() <> 'asleep');
INSERT INTO members VALUES ('ana', 't1'), ('ana', 't2'), ('ben', 't1'), ('cleo', 't2'), ('asleep', 't1');
"""
DEVICE = """
CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT, note TEXT, owner TEXT, locked BOOLEAN);
CREATE TABLE docs(id TEXT PRIMARY KEY, team TEXT, body TEXT, readers TEXT);
"""
numbers = itertools.count(1)
CONFIG = "[server]\nrls_roles = authenticated\n[table pins]\npolicy.title = manual\n"


class Policies:
    def __init__(self, folder):
        self.world = harness.World(folder)
        self.cluster = Cluster()
        self.cluster.sql("CREATE ROLE authenticated NOLOGIN; CREATE ROLE service LOGIN; CREATE ROLE mighty NOLOGIN BYPASSRLS;"
                         "GRANT authenticated, mighty TO service; CREATE ROLE stranger NOLOGIN")
        self.count = 0

    def database(self):
        """Its URL as the server's own role, which owns everything in it."""
        self.count += 1
        self.cluster.sql(f"CREATE DATABASE p{self.count} OWNER service")
        url = self.cluster.url.replace("postgres@/postgres?", f"service@/p{self.count}?")
        self.cluster.sql("ALTER SCHEMA public OWNER TO service", url.replace("service@", "postgres@"))
        self.cluster.sql(TABLES, url)
        self.cluster.sql(harness.cli("pg", "install").out, url)
        self.cluster.sql(harness.cli("pg", "track", "pins", "docs", "plain").out, url)
        return url

    def server(self, url, config=CONFIG, **options):
        return self.world.server(schema=None, config=config, db=url, **options)

    def close(self):
        self.world.close()
        self.cluster.close()


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    p = Policies(tmp_path_factory.mktemp("policies"))
    yield p
    p.close()


@pytest.fixture(scope="module")
def base(policies):
    policies.url = policies.database()
    return policies.server(policies.url)


@pytest.fixture
def server(policies, base):
    """With empty tables; scopes are new ones each time."""
    base.scope = f"org{next(numbers)}"
    base.sql = lambda text: policies.cluster.sql(text, policies.url)
    return base


def token(server, user, **claims):
    claims = {"sub": user, "scopes": [server.scope], "role": "authenticated", **claims}
    return signed(secret_of(server), {k: v for k, v in claims.items() if v is not None})


def name(server, pin):
    return f"{server.scope}-{pin}"


def push(server, user, *operations):
    """Results of (kind, table, id, payload) in one request, each a group of its own."""
    push.count += 1
    body = {"deviceId": "tool", "scope": server.scope, "operations": [
        {"id": str(n), "operation": kind, "entityType": table, "entityId": name(server, key), "payload": payload,
         "idempotencyKey": f"k{push.count}-{n}", **(more[0] if more else {})}
        for n, (kind, table, key, payload, *more) in enumerate(operations)]}
    answer = server.post("/v1/sync/operations", body, token=token(server, user))
    assert answer.status == 200, answer
    return answer.json["results"]


push.count = 0


def outcomes(results):
    return [r["error"]["code"] if "error" in r else r["outcome"] for r in results]


def feed(server, user, cursor=None):
    """[(id, kind, columns)] of all changes this user is shown."""
    commits, page = server.pull(server.scope, token=token(server, user), **({"cursor": cursor} if cursor else {}))
    feed.cursor = page["cursor"]
    return [(c["entityId"].removeprefix(server.scope + "-"), c["kind"], c.get("columns")) for commit in commits
            for c in commit["changes"] if c["entityType"] != "_conflicts"]


def snapshot(server, user):
    page = server.get(f"/v1/sync/snapshot?scope={server.scope}", token=token(server, user)).json
    return sorted(r["entityId"].removeprefix(server.scope + "-") for r in page["rows"] if r["entityType"] != "_conflicts")


def audit(server, user, table, key):
    return server.get(f"/v1/audit?scope={server.scope}&entityType={table}&entityId={name(server, key)}",
                      token=token(server, user)).json["changes"]


def test_rows_of_their_owner_only(server):
    """Another user's row can't be told from one that is not there, whatever is done to it."""
    assert outcomes(push(server, "ana", ("create", "pins", "p", {"title": "secret", "owner": "ana"}))) == ["applied"]
    assert [c[:2] for c in feed(server, "ana")] == [("p", "upsert")] and snapshot(server, "ana") == ["p"]
    assert feed(server, "ben") == [] and snapshot(server, "ben") == [] and audit(server, "ben", "pins", "p") == []
    assert len(audit(server, "ana", "pins", "p")) == 1
    for kind, payload in (("update", {"title": "mine"}), ("delete", {})):
        there, absent = (push(server, "ben", (kind, "pins", key, payload))[0] for key in ("p", "none"))
        for result in (there, absent):
            result.pop("commitSeq"), result.pop("id")
        assert json.dumps(there).replace(name(server, "p"), "?") == json.dumps(absent).replace(name(server, "none"), "?")
    taken = push(server, "ben", ("create", "pins", "p", {"title": "x", "owner": "ben"}))
    assert outcomes(taken) == ["id-unavailable"] and "secret" not in json.dumps(taken)
    assert snapshot(server, "ana") == ["p"]


def test_conflicts_are_as_hidden_as_their_rows(server):
    push(server, "ana", ("create", "pins", "p", {"title": "secret", "owner": "ana"}))
    at = audit(server, "ana", "pins", "p")[0]["seq"]
    push(server, "ana", ("update", "pins", "p", {"title": "one"}, {"baseSeq": at}))
    push(server, "ana", ("update", "pins", "p", {"title": "two"}, {"baseSeq": at}))
    for user, count in (("ana", 1), ("ben", 0)):
        answer = server.get(f"/v1/conflicts?scope={server.scope}", token=token(server, user))
        assert len(answer.json["conflicts"]) == count, (user, answer)
        rows = server.get(f"/v1/sync/snapshot?scope={server.scope}", token=token(server, user)).json["rows"]
        assert len([r for r in rows if r["entityType"] == "_conflicts"]) == count
        commits, _ = server.pull(server.scope, token=token(server, user))
        assert len([c for m in commits for c in m["changes"] if c["entityType"] == "_conflicts"]) == count


def test_what_a_policy_refuses_is_refused_alone(server):
    """The check of an INSERT, an UPDATE and a DELETE that hit no row, a table that may only be read: each is that
    group's rejection, and the others of the request are applied."""
    push(server, "ana", *(("create", "pins", key, {"owner": "ana", **more}) for key, more in (
        ("a", {}), ("final", {"note": "final"}), ("locked", {"locked": True}))))
    results = push(server, "ana", ("create", "pins", "b", {"owner": "ben"}), ("update", "pins", "a", {"title": "1"}),
                   ("update", "pins", "final", {"title": "2"}), ("delete", "pins", "locked", {}),
                   ("create", "plain", "x", {"body": "x"}), ("update", "pins", "a", {"owner": "ben"}),
                   ("create", "pins", "c", {"owner": "ana"}))
    assert outcomes(results) == ["forbidden", "applied", "forbidden", "forbidden", "forbidden", "forbidden", "applied"]
    rows = {r[0].removeprefix(server.scope + "-"): r[1:] for r in server.sql(
        f"SELECT id, title, owner FROM pins WHERE id LIKE '{server.scope}-%'")}
    assert rows == {"a": ["1", "ana"], "final": ["", "ana"], "locked": ["", "ana"], "c": ["", "ana"]}
    assert {c[0] for c in feed(server, "ana")} == set(rows)


def test_teams_by_a_join(server):
    push(server, "ana", ("create", "docs", "d1", {"team": "t1"}), ("create", "docs", "d2", {"team": "t2"}))
    assert [snapshot(server, user) for user in ("ana", "ben", "cleo", "dora", "asleep")] == [
        ["d1", "d2"], ["d1"], ["d2"], [], []]
    assert outcomes(push(server, "ben", ("create", "docs", "d3", {"team": "t2"}),
                         ("update", "docs", "d1", {"body": "ben's"}))) == ["forbidden", "applied"]


def test_a_row_moves_from_one_team_to_another(server):
    """Who loses it is told that it is gone, who gets it is given the whole row, others hear nothing."""
    push(server, "ana", ("create", "docs", "d", {"team": "t1", "body": "text"}))
    cursors = {}
    for user in ("ben", "cleo", "dora"):
        feed(server, user)
        cursors[user] = feed.cursor
    push(server, "ana", ("update", "docs", "d", {"team": "t2"}))
    assert feed(server, "ben", cursors["ben"]) == [("d", "delete", None)]
    [(_, kind, columns)] = feed(server, "cleo", cursors["cleo"])
    assert kind == "upsert" and columns["body"] == "text" and columns["team"] == "t2"
    cursors["ben"] = feed.cursor
    push(server, "ana", ("update", "docs", "d", {"body": "not for ben"}))
    assert feed(server, "ben", cursors["ben"]) == []


def test_a_row_is_moved_by_somebody_else(server):
    """By SQL, past Godwit."""
    push(server, "ana", ("create", "docs", "d", {"team": "t1", "body": "text"}))
    feed(server, "ben")
    cursor = feed.cursor
    server.sql(f"UPDATE docs SET team = 't2' WHERE id = '{name(server, 'd')}'")
    harness.wait_until(lambda: feed(server, "ben", cursor) == [("d", "delete", None)], what="it is gone for Ben")
    assert [(c[0], c[2]["body"]) for c in feed(server, "cleo") if c[1] == "upsert"][-1] == ("d", "text")


def test_deleted_rows_are_as_hidden_as_they_were(server):
    push(server, "ana", ("create", "docs", "d", {"team": "t1"}), ("create", "docs", "e", {"team": "t2"}))
    assert outcomes(push(server, "cleo", ("create", "docs", "r", {"readers": '["cleo"]'}))) == ["applied"]
    assert outcomes(push(server, "cleo", ("delete", "docs", "r", {}))) == ["applied"]
    push(server, "ana", ("delete", "docs", "d", {}))
    deleted = {user: [c[0] for c in feed(server, user) if c[1] == "delete"] for user in ("ana", "ben", "cleo")}
    assert deleted == {"ana": ["d"], "ben": ["d"], "cleo": ["r"]}
    assert outcomes(push(server, "cleo", ("update", "docs", "d", {"body": "x"}))) == ["row-missing"]
    assert outcomes(push(server, "cleo", ("create", "docs", "d", {"team": "t2"}))) == ["id-unavailable"]
    assert audit(server, "cleo", "docs", "d") == [] and len(audit(server, "ben", "docs", "d")) == 2


def test_operations_and_keys_of_others(server):
    """An answer that is kept is for the user who got it; what became of an operation is its user's to ask."""
    body = {"deviceId": "tool", "scope": server.scope, "operations": [
        {"id": "1", "operation": "create", "entityType": "docs", "entityId": name(server, "k"), "idempotencyKey": "known",
         "payload": {"team": "t2"}}]}
    for headers in ({}, {"Idempotency-Key": "all"}):
        answers = {user: server.post("/v1/sync/operations", body, token=token(server, user), headers=headers).json
                   for user in ("ana", "ben", "ana")}
        assert "t2" in json.dumps(answers["ana"]) and "t2" not in json.dumps(answers["ben"]), answers
    s = Stream(server, device="a" * 32, scope=server.scope, register=False)
    assert register(server, token(server, "ana"), server.scope, s.device).status == 200
    made = s.op("create", "docs", name(server, "s"), {"team": "t2"}, seq=1)
    assert server.post("/v1/sync/operations", s.body([made]), token=token(server, "ana")).status == 200
    path = f"/v1/audit?scope={server.scope}&device={s.device}&sequenceNumber=1"
    assert server.get(path, token=token(server, "ana")).status == 200
    assert server.get(path, token=token(server, "ben")).status == 404


def test_many_users_in_one_batch(server):
    """Pushes that wait together are decided in one transaction, each with its own rights."""
    users = [f"u{n}" for n in range(12)]
    results = {}

    def work(user):
        results[user] = outcomes(push(server, user, ("create", "pins", user, {"owner": user}),
                                      ("create", "pins", "x" + user, {"owner": "u0x"}),
                                      ("update", "pins", user, {"title": user})))
    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(results[user] == ["applied", "forbidden", "applied"] for user in users), results
    for user in users:
        assert snapshot(server, user) == [user]


def test_roles_come_from_the_configuration(policies, server):
    for bad in ({"role": "mighty"}, {"role": "service"}, {"role": None}, {"role": "postgres"}):
        refused = server.get(f"/v1/sync/changes?scope={server.scope}", token=token(server, "ana", **bad))
        assert refused.status == 401, refused


def test_the_start_refuses_roles_that_policies_do_not_hold_for(policies):
    url = policies.database()
    for role, reason in (("mighty", "policies do not hold"), ("nobody", "no role"), ("stranger", "may not take"),
                         ("service", "owns")):
        server = policies.server(url, f"[server]\nrls_roles = {role}\n", start=False)
        with pytest.raises(harness.Failure, match="ended with"):
            server.start()
        assert reason in server.log(), server.log()
    policies.cluster.sql("ALTER TABLE pins FORCE ROW LEVEL SECURITY", url)
    server = policies.server(url, start=False)
    with pytest.raises(harness.Failure, match="ended with"):
        server.start()
    assert "BYPASSRLS" in server.log()
    server = policies.world.server(config=CONFIG, start=False)
    with pytest.raises(harness.Failure, match="ended with"):
        server.start()
    assert "rls_roles" in server.log()


def test_devices_hold_what_their_users_may_see(policies, server):
    """Real devices, offline edits on both sides, rows that change hands."""
    devices = {}
    for user in ("ana", "ben", "cleo"):
        d = policies.world.device(f"{server.scope}-{user}", server, schema=DEVICE, tables=("pins", "docs"), scope=server.scope)
        with open(d.token_file, "w") as stream:
            stream.write(token(server, user))
        devices[user] = d
    for user, d in devices.items():
        d.run("INSERT INTO pins VALUES (?, 'mine', NULL, ?, 0)", name(server, user), user)
    devices["ana"].run("INSERT INTO docs VALUES (?, 't1', 'body', NULL)", name(server, "d"))
    for _ in range(2):
        for d in devices.values():
            d.sync()
    ids = {user: sorted(r[0].removeprefix(server.scope + "-") for r in d.rows("pins") + d.rows("docs"))
           for user, d in devices.items()}
    assert ids == {"ana": ["ana", "d"], "ben": ["ben", "d"], "cleo": ["cleo"]}
    devices["ana"].run("UPDATE docs SET team = 't2' WHERE id = ?", name(server, "d"))
    devices["ben"].run("INSERT INTO pins VALUES (?, 'stolen', NULL, 'ana', 0)", name(server, "stolen"))
    for _ in range(2):
        for d in devices.values():
            d.sync_cli()
    assert [len(d.rows("docs")) for d in devices.values()] == [1, 0, 1]
    assert devices["cleo"].rows("docs") == devices["ana"].rows("docs")
    refused = devices["ben"].run("SELECT state, last_error FROM sync_queue WHERE entity_id = ?", name(server, "stolen"))
    assert refused == [("rejected", 'new row violates row-level security policy for table "pins"')]


def test_roles_through_a_transaction_pooler(policies):
    """Role and claims end with the transaction: one connection serves everybody in turn."""
    url = policies.database()
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    where = urllib.parse.parse_qs(url.split("?")[1])["host"][0]
    with open(folder + "/bouncer.ini", "w") as stream:
        stream.write(f"[databases]\n* = host={where} user=service\n[pgbouncer]\npool_mode = transaction\nauth_type = any\n"
                     f"listen_addr =\nunix_socket_dir = {folder}\nlisten_port = 6432\ndefault_pool_size = 1\n"
                     f"auth_file = {folder}/users\n")
    with open(folder + "/users", "w") as stream:
        stream.write('"service" ""\n')
    with open(folder + "/log", "w") as log:
        user = [] if os.getuid() else ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        bouncer = subprocess.Popen([*user, "/usr/sbin/pgbouncer", folder + "/bouncer.ini"], stdout=log, stderr=log)
    try:
        harness.wait_until(lambda: os.path.exists(folder + "/.s.PGSQL.6432"), what="pgbouncer listens")
        server = policies.server(url.replace(where, folder) + "&port=6432")
        server.scope = "pooled"
        for user in ("ana", "ben", "cleo") * 2:
            done = push(server, user, ("create", "pins", f"{user}{push.count}", {"owner": user}),
                        ("create", "pins", "x", {"owner": "x" + user}))
            assert outcomes(done) == ["applied", "forbidden"]
            assert all(row.startswith(user) for row in snapshot(server, user)), user
        assert [len(snapshot(server, user)) for user in ("ana", "ben", "cleo", "dora")] == [2, 2, 2, 0]
        server.stop()
    finally:
        bouncer.terminate()
        bouncer.wait(10)
        shutil.rmtree(folder)
