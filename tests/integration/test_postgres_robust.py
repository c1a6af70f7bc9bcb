"""PostgreSQL restarted, its connections cut at the worst moment, a pooler in between, several servers at
once: nothing acknowledged is lost, nothing is done twice, and it goes on by itself."""
import shutil
import threading
import time

import pytest

import postgres
from harness import wait_until

PINS = "CREATE TABLE pins (id text PRIMARY KEY, title text, n bigint DEFAULT 0);"
DEVICE = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, n INTEGER);"


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    d.run(PINS)
    d.track("pins", scope="field")
    yield d
    d.close()


@pytest.fixture
def proxy(db):
    import tempfile
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")  # a socket's path must be short
    p = postgres.Proxy(folder, db)
    yield p
    p.close()
    shutil.rmtree(folder)


def create(name, key=None, **payload):
    return {"id": name, "idempotencyKey": key or name, "operation": "create", "entityType": "pins", "entityId": name,
            "payload": payload}


def until_taken(server, operations, timeout=20, **fields):
    """As a client does: the same again, until it is answered."""
    answers = []

    def taken():
        answers.append(server.push(operations, scope="field", **fields))
        return answers[-1].status == 200
    wait_until(taken, timeout, every=0.1, what=f"the push is taken {answers[-1:]}")
    return answers


def test_it_goes_on_after_a_restart_of_the_database(db, world):
    server = db.server(world)
    assert until_taken(server, [create("a")])[0].status == 200
    db.cluster.control("stop", "-m", "immediate")
    down = server.push([create("b")], scope="field")
    assert down.status == 503 and down.headers["Retry-After"]
    wait_until(lambda: server.get("/readyz", token="").status == 503, what="it says so")
    assert server.get("/healthz", token="").status == 200
    db.cluster.control("restart")  # with the options it had
    until_taken(server, [create("b")])
    assert server.get("/readyz", token="").status == 200
    assert db.rows("SELECT id FROM pins ORDER BY 1") == [["a"], ["b"]]
    assert len(server.pull()[0]) == 2


def test_attempts_to_connect_are_few_and_apart(db, proxy, world):
    server = db.server(world, url=proxy.url)
    until_taken(server, [create("a")])
    proxy.closed = True
    db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'godwit'")
    proxy.attempts.clear()
    end = time.monotonic() + 4
    while time.monotonic() < end:  # clients that do not wait as they are told
        assert server.push([create("b")], scope="field").status == 503
        time.sleep(0.02)
    count = len(proxy.attempts)
    pauses = {round(b - a, 2) for a, b in zip(proxy.attempts, proxy.attempts[1:])}
    assert 1 <= count <= 40 and len(pauses) > count / 3, (count, pauses)
    proxy.closed = False
    until_taken(server, [create("b")], timeout=30)


@pytest.mark.parametrize("when", ["after", "before"])
def test_the_answer_to_a_commit_is_lost(db, proxy, world, when):
    server = db.server(world, url=proxy.url)
    device = world.device("phone", server, schema=DEVICE, tables=("pins",))
    device.sync()
    heads = [int(db.run("SELECT head FROM godwit.scope"))]
    proxy.cut = when
    answers = until_taken(server, [create("a", n=1)], headers={"Idempotency-Key": "k-1"})
    assert proxy.cuts == 1 and answers[0].status == 503 and len(answers) == 2, answers
    heads.append(int(db.run("SELECT head FROM godwit.scope")))
    device.run("UPDATE pins SET n = n + 1") if device.run("SELECT 1 FROM pins") else None
    device.run("INSERT INTO pins VALUES ('d', 'device', 1), ('e', 'device', 1)")
    proxy.cut = when
    for _ in range(5):
        if device.sync_cli().code == 0:
            break
    assert proxy.cuts == 2
    assert device.pending() == 0
    assert db.rows("SELECT id, n FROM pins ORDER BY 1") == [["a", "1"], ["d", "1"], ["e", "1"]]
    # one decision each, however often it was sent
    assert heads == [0, 1]
    assert db.run("SELECT count(*), count(DISTINCT (lineage, lsn)) FROM godwit.op") == "2|2"
    assert db.run("SELECT count(*) FROM godwit.change") == "3"


def test_backends_are_ended_all_the_time(db, world):
    server = db.server(world)
    device = world.device("phone", server, schema=DEVICE, tables=("pins",))
    stop = threading.Event()

    def end_backends():
        while not stop.is_set():
            db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'godwit'")
            time.sleep(0.15)
    killer = threading.Thread(target=end_backends)
    killer.start()
    try:
        for i in range(40):
            device.run("INSERT INTO pins VALUES (?, 'x', 1)", f"p{i}")
            device.sync_cli()
    finally:
        stop.set()
        killer.join()
    wait_until(lambda: device.sync_cli().code == 0, timeout=20)
    assert db.run("SELECT count(*), sum(n) FROM pins") == "40|40"
    assert db.run("SELECT count(*), count(DISTINCT lsn) FROM godwit.op") == "40|40"


def test_a_batch_costs_the_same_whatever_its_size(db, proxy, world):
    server = db.server(world, url=proxy.url)

    def cost(count, kind, start):
        operations = [{"id": str(i), "idempotencyKey": f"{kind}{start}-{i}", "operation": kind, "entityType": "pins",
                       "entityId": f"p{start + i}", "payload": {"title": kind} if kind != "delete" else {}}
                      for i in range(count)]
        proxy.waits.clear()
        assert server.push(operations, scope="field", atomic=atomic).status == 200
        return proxy.waits
    for atomic in (True, False):
        for kind in ("create", "update", "delete"):
            start = 100000 * atomic
            small, large = cost(10, kind, start), cost(1000, kind, start + 1000)
            assert small == large and len(small) == 1 and small[0] <= 8, (kind, atomic, small, large)


def test_a_devices_queue_costs_the_same_whatever_its_length(db, proxy, world):
    server = db.server(world, url=proxy.url)
    device = world.device("phone", server, schema=DEVICE, tables=("pins",))
    device.sync()

    def cost(count, name):
        device.transaction(*[("INSERT INTO pins VALUES (?, 'x', ?)", f"{name}{i}", i) for i in range(count)])
        proxy.waits.clear()
        device.sync()
        return list(proxy.waits)
    cost(1, "first")
    small, large = cost(5, "a"), cost(400, "b")
    assert small == large and len(small) == 1 and small[0] <= 8, (small, large)


def test_through_a_pooler(db, world):
    import tempfile
    if not shutil.which("pgbouncer"):
        pytest.skip("pgbouncer is not installed")
    folder = tempfile.mkdtemp(prefix="pg-", dir="/tmp")
    pooler = postgres.Pooler(folder, db)
    try:
        server = db.server(world, url=pooler.url)
        devices = [world.device(f"d{i}", server, schema=DEVICE, tables=("pins",)) for i in range(3)]
        for round_number in range(4):
            for i, device in enumerate(devices):
                device.run("INSERT INTO pins VALUES (?, 'x', ?)", f"p{round_number}-{i}", i)
                device.run("UPDATE pins SET title = ? WHERE n = ?", f"by {i}", i)
            syncs = [threading.Thread(target=device.sync) for device in devices]
            for sync in syncs:
                sync.start()
            db.run(f"INSERT INTO pins VALUES ('outside-{round_number}')")
            for sync in syncs:
                sync.join()
        db.drained()
        for device in devices:
            device.sync()
        expected = db.rows("SELECT id, coalesce(title, ''), coalesce(n, 0) FROM pins ORDER BY id COLLATE \"C\"")
        assert len(expected) == 16
        for device in devices:
            got = device.run("SELECT id, ifnull(title, ''), ifnull(n, 0) FROM pins ORDER BY id")
            assert [[str(x) for x in row] for row in got] == expected
        # settings are those of transactions: the pooler's connections keep none
        assert postgres.psql(pooler.url, "SELECT coalesce(current_setting('godwit.writing', true), '')").strip() == ""
    finally:
        pooler.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_what_passes_is_tried_again(db, world, state):
    """A trigger fails as a serialization failure, a deadlock, a lock would; the third time it does not."""
    db.run("CREATE SEQUENCE tries; CREATE FUNCTION moody() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
           f" IF nextval('tries') < 3 THEN RAISE 'not now' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$;"
           "CREATE TRIGGER moody AFTER INSERT ON pins FOR EACH STATEMENT EXECUTE FUNCTION moody()")
    server = db.server(world)
    assert server.push([create("a")], scope="field").json["results"][0]["status"] == "success"
    assert db.run("SELECT last_value FROM tries") == "3"
    assert db.run("SELECT head FROM godwit.scope WHERE scope = 'field'") == "1"


def test_two_servers_over_many_scopes(db, world):
    """Pushes of many scopes, in every order, through two servers: nobody is ended by a deadlock."""
    db.run("CREATE TABLE notes (id text PRIMARY KEY, body text)")
    db.track("notes")
    servers = [db.server(world), db.server(world)]
    scopes = [f"s{i}" for i in range(12)]
    failures = []

    def work(server, order, number):
        token = server.token(scope=scopes)
        for turn in range(3):
            for scope in order:
                name = f"{number}-{turn}-{scope}"
                body = dict(create(name), entityType="notes")
                answer = server.push([body], scope=scope, token=token)
                if answer.status != 200 or answer.json["results"][0]["status"] != "success":
                    failures.append(answer)
    threads = [threading.Thread(target=work, args=(servers[n % 2], scopes[::1 if n < 4 else -1], n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert db.run("SELECT count(*) FROM notes") == str(8 * 3 * len(scopes))
    assert db.run("SELECT sum(head) FROM godwit.scope WHERE scope LIKE 's%'") == str(8 * 3 * len(scopes))
    assert db.run("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == "0"
