"""Scopes by a query of the operator's, on both stores: the token says who it is, the operator's own table what they
may. What is taken away there ends while requests are under way."""
import sqlite3
import threading
import time

import pytest

import harness
from harness import cli
from postgres import Cluster
from test_isolation import events, push, register

MEMBERS = "CREATE TABLE members(user_id TEXT, team TEXT, may_write INTEGER);"
QUERY = "SELECT team, may_write = 1 FROM members WHERE user_id = :sub AND ':sub' <> \"user_id\""


class Store:
    def __init__(self, folder, kind):
        self.world = harness.World(folder)
        self.cluster = Cluster() if kind == "postgres" else None
        self.url = self.cluster and self.cluster.database(
            harness.SCHEMA.replace("REAL", "double precision") + MEMBERS, ("pins", "forms"))

    def server(self, query=QUERY, ttl="0s", start=True):
        config = f"[server]\nscopes_sql = {query}\nscopes_ttl = {ttl}\n"
        schema = None if self.cluster else harness.SCHEMA + MEMBERS
        return self.world.server(schema=schema, config=config, db=self.url, start=start)

    def sql(self, server, text):
        if self.cluster:
            self.cluster.sql(text, self.url)
        else:
            with sqlite3.connect(server.store, timeout=20) as db:
                db.executescript(text)

    def close(self):
        self.world.close()
        if self.cluster:
            self.cluster.close()


@pytest.fixture(scope="module", params=("sqlite", "postgres"))
def store(request, tmp_path_factory):
    s = Store(tmp_path_factory.mktemp(request.param), request.param)
    yield s
    s.close()


@pytest.fixture(scope="module")
def server(store):
    s = store.server()
    store.sql(s, "INSERT INTO members VALUES ('ana', 'north', 1), ('ben', 'north', 0), ('ben', 'south', 1),"
                 " ('eve', 'x\nx', 1)")
    store.sql(s, ";".join(f"INSERT INTO members VALUES ('many', 't{i}', 1)" for i in range(65)))
    return s


def test_the_query_decides(server):
    """Whatever scopes the token carries."""
    ana, ben, nobody = (server.token(user, "south") for user in ("ana", "ben", "nobody"))
    assert register(server, ana, "north", "a-1").status == 200
    assert push(server, ana, "north", "create", "p", {"title": "t"}).status == 200
    assert server.get("/v1/sync/changes?scope=north", token=ana).json["head"] == 1
    assert server.get("/v1/sync/changes?scope=south", token=ana).problem == "scope-forbidden"
    assert server.get("/v1/sync/changes", token=ana).json["head"] == 1  # the first one is the default
    assert server.get("/v1/sync/changes?scope=north", token=ben).json["head"] == 1
    assert push(server, ben, "north", "update", "p", {"title": "u"}).problem == "scope-read-only"
    assert push(server, ben, "south", "create", "s", {"title": "u"}).status == 200
    for path in ("/v1/sync/changes?scope=north", "/v1/sync/changes?scope=user:nobody", "/v1/sync/changes"):
        assert server.get(path, token=nobody).problem == "scope-forbidden"
    assert events(server, ana, "scope=north").status == 200
    assert events(server, nobody, "scope=north").problem == "scope-forbidden"
    assert events(server, ana, "").problem == "scope-forbidden"


def test_answers_that_can_not_be_used(server):
    """Too many, or names that are none: nobody gets in."""
    many = server.get("/v1/sync/changes?scope=t1", token=server.token("many", "t1"))
    assert many.status == 403 and "64" in many.json["detail"]
    assert server.get("/v1/sync/changes?scope=x", token=server.token("eve", "x")).status == 503
    quoted = server.token("a' OR 'a' = 'a", "north")
    assert server.get("/v1/sync/changes?scope=north", token=quoted).problem == "scope-forbidden"


def test_a_right_is_taken_away_in_flight(store, server):
    """A long poll that waits is not told of what came after; a push is refused at once."""
    store.sql(server, "INSERT INTO members VALUES ('cleo', 'north', 1)")
    cleo, ana = server.token("cleo", "north"), server.token("ana", "north")
    page = server.get("/v1/sync/changes?scope=north", token=cleo).json
    answers = []
    poll = threading.Thread(target=lambda: answers.append(server.get(
        f"/v1/sync/changes?scope=north&wait=20&cursor={page['cursor']}", token=cleo)))
    poll.start()
    harness.wait_until(lambda: "godwit_parked_requests 1\n" in server.get("/metrics").body.decode(),
                       what="the poll waits")
    store.sql(server, "DELETE FROM members WHERE user_id = 'cleo'")
    assert push(server, ana, "north", "create", "after", {"title": "not for cleo"}).status == 200
    poll.join(20)
    assert answers[0].problem == "scope-forbidden" and "not for cleo" not in answers[0].body.decode()
    assert push(server, cleo, "north", "create", "q", {"title": "x"}).problem == "scope-forbidden"


def test_answers_are_remembered_for_a_while(store, server):
    other = store.server(ttl="2s")
    if not store.cluster:
        store.sql(other, "INSERT INTO members VALUES ('ana', 'north', 1)")
    store.sql(other, "INSERT INTO members VALUES ('dora', 'north', 1)")
    dora = other.token("dora", "north")
    assert other.get("/v1/sync/changes?scope=north", token=dora).status == 200
    store.sql(other, "DELETE FROM members WHERE user_id = 'dora'")
    begun = time.monotonic()
    harness.wait_until(lambda: other.get("/v1/sync/changes?scope=north", token=dora).status == 403, what="forgotten")
    assert time.monotonic() - begun < 3 * harness.SLOW
    other.stop()


def test_mistakes_are_found_at_the_start(store):
    for query, word in (("SELECT x FROM nowhere", "nowhere"), ("DELETE FROM members", "scopes_sql"),
                        ("SELECT team FROM members; DROP TABLE members", "scopes_sql")):
        server = store.server(query, start=False)
        with pytest.raises(harness.Failure, match="ended with"):
            server.start()
        assert "scopes_sql" in server.log() and word in server.log()


def test_a_query_that_takes_too_long(store):
    """It is ended, the request is told to come again, and the server goes on."""
    endless = ("SELECT n || '' AS team FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c"
               " WHERE :sub IS NOT NULL) SELECT n FROM c WHERE n < 0) e")
    slow = store.server(endless)
    begun = time.monotonic()
    refused = slow.get("/v1/sync/changes?scope=north", token=slow.token("ana", "north"))
    assert refused.status == 503 and time.monotonic() - begun < 10 * harness.SLOW
    assert cli("devices", *(("--db", store.url) if store.cluster else ("--data", slow.data))).code == 0
