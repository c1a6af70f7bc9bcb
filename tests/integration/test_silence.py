"""A PostgreSQL that says nothing: its processes stand still, and the kernel goes on confirming what they get. Servers
notice in bounded time, who waits at them goes on waiting, and afterwards everything is there once."""
import os
import signal
import threading
import time

import pytest

import harness
import nodes as several
import postgres
from rawhttp import events, read_event, read_head

PATIENCE_MS = 4000
NOTICED_S = (PATIENCE_MS / 1000 + 4) * harness.SLOW  # and a busy machine


@pytest.fixture
def cluster():
    c = postgres.Cluster(durable=True)
    yield c
    c.thaw()
    c.close()


@pytest.fixture
def two(cluster, world):
    db = cluster.fresh()
    db.run(several.PINS)
    db.track("pins", scope="field")
    return several.start(world, f"{db.url}&tcp_user_timeout={PATIENCE_MS}", 2)


def create(name):
    return {"id": name, "idempotencyKey": name, "operation": "create", "entityType": "pins", "entityId": name,
            "payload": {"title": name}}


def took(call):
    began = time.monotonic()
    return call(), time.monotonic() - began


def test_a_database_that_stands_still(cluster, two):
    here, there = two
    assert here.push([create("before")]).status == 200
    s, stream = events(there, token=here.token())
    with s:
        assert read_head(stream)[0] == 200 and read_event(stream)["head"] == 1
        cluster.freeze()
        answer, seconds = took(lambda: here.push([create("meanwhile")], timeout=60))
        assert answer.status == 503 and answer.headers["Retry-After"], answer
        assert seconds < NOTICED_S, f"noticed after {seconds:.1f} s"
        answer, seconds = took(lambda: there.get("/v1/sync/changes?scope=field", token=here.token(), timeout=60))
        assert answer.status == 503 and seconds < NOTICED_S, (answer, seconds)
        assert here.get("/readyz", token="").status == 503 and here.get("/healthz", token="").status == 200
        time.sleep(PATIENCE_MS / 1000)  # the servers try again, in vain
        cluster.thaw()
        harness.wait_until(lambda: here.push([create("meanwhile")], timeout=60).status == 200, 20, every=0.1,
                           what="it is taken")
        head = read_event(stream)["head"]
        while head < 2:
            head = read_event(stream)["head"]
    for node in two:
        harness.wait_until(lambda node=node: several.metric(node, "godwit_listening") == 1, 30, what="it listens again")
    several.check_feed(two, ["before", "meanwhile"])


def test_a_long_statement_is_no_silence(cluster, world):
    """Somebody holds the scope's row for longer than PostgreSQL may be silent: the server waits, and is answered."""
    db = cluster.fresh()
    db.run(several.PINS)
    db.track("pins", scope="field")
    server = world.server(schema=None, env={"GODWIT_DB": f"{db.url}&tcp_user_timeout=3000"})
    assert server.push([create("first")]).status == 200
    other = db.session()
    other.run("BEGIN; SELECT head FROM godwit.scope WHERE scope = 'field' FOR UPDATE;")
    done = threading.Timer(6, lambda: other.run("COMMIT;"))
    done.start()
    answer, seconds = took(lambda: server.push([create("second")], timeout=60))
    done.join()
    assert answer.status == 200 and seconds > 4, (answer, seconds)
    assert "does not answer" not in server.log()
    db.close()


def test_what_stood_still_with_a_transaction_open(cluster, two):
    """A server that is frozen in the middle of a transaction keeps the scope from others no longer than that."""
    here, there = two
    assert here.push([create("before")]).status == 200
    inside = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'godwit'"
    with several.Load([here], writers=2) as load:
        load.wait_for(20)

        def stop_in_the_middle():
            os.kill(here.process.pid, signal.SIGSTOP)
            time.sleep(0.1)  # what was under way comes to its end
            caught = cluster.sql(inside) != [["0"]]
            if not caught:
                os.kill(here.process.pid, signal.SIGCONT)
            return caught
        try:
            harness.wait_until(stop_in_the_middle, 60, what="a server stopped in the middle of a transaction")
            began = time.monotonic()
            harness.wait_until(lambda: there.push([create("other")], timeout=60).status == 200, 40, every=0.1,
                               what="the other server writes")
            assert time.monotonic() - began < 30 * harness.SLOW
        finally:
            os.kill(here.process.pid, signal.SIGCONT)
        load.wait_for(20)
    assert not load.strange, load.strange[0]
    several.check_feed(two, [*load.acked, "before", "other"])
