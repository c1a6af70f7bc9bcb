"""What operators do with a server over PostgreSQL: devices listed, revoked, let in again while it runs; the
store's own id; queues that devices report; readiness."""
import pytest

from harness import cli, wait_until

PINS = "CREATE TABLE pins (id text PRIMARY KEY, title text);"
DEVICE = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT);"


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    d.run(PINS)
    d.track("pins")
    yield d
    d.close()


def devices(db, *arguments):
    done = cli("devices", "list", "--db", db.url, "--json", *arguments)
    assert done.code == 0, done
    return done.json


def test_devices_of_a_running_server(db, world):
    server = db.server(world)
    ana = world.device("ana", server, schema=DEVICE, tables=("pins",))
    ben = world.device("ben", server, schema=DEVICE, tables=("pins",), sub="ben", scope="other")
    for device in (ana, ben):
        device.run("INSERT INTO pins VALUES (?, 'x')", device.name)
        device.sync()
    listed = {d["user"]: d for d in devices(db)}
    assert {u: (d["scope"], d["state"]) for u, d in listed.items()} == {"ana": ("field", "active"),
                                                                       "ben": ("other", "active")}
    assert [d["user"] for d in devices(db, "--scope", "other")] == ["ben"]
    known = listed["ana"]["deviceId"]
    assert cli("devices", "revoke", known[:10], "--db", db.url).code == 0
    ana.run("INSERT INTO pins VALUES ('later', 'x')")
    refused = ana.sync_cli()
    assert refused.code == 1 and "revoked" in refused.err and ana.pending() == 1, refused
    ben.run("UPDATE pins SET title = 'y'")
    ben.sync()  # nobody else is
    assert cli("devices", "allow", known, "--db", db.url).code == 0
    ana.sync()
    assert db.rows("SELECT id, title FROM pins ORDER BY 1") == [["ana", "x"], ["ben", "y"], ["later", "x"]]
    assert sorted(d["state"] for d in devices(db, "--scope", "field")) in (["active", "forked"], ["active", "retired"])
    assert cli("devices", "revoke", "nobody", "--db", db.url).code == 1


def test_the_stores_id_stays(db, world):
    """It is the database's: another server over it says the same, and devices go on."""
    def told(server, name):
        body = {"deviceId": name, "lineage": name, "scopes": ["field"]}
        return server.post("/v1/devices", body).json["serverId"]
    first = db.server(world)
    known = told(first, "d1")
    assert len(known) == 32 and int(known, 16)
    second = db.server(world)
    assert told(second, "d2") == known
    first.restart()
    assert told(first, "d1") == known


def test_queues_that_devices_report(db, world):
    server = db.server(world)
    device = world.device("ana", server, schema=DEVICE, tables=("pins",))
    device.run("INSERT INTO pins VALUES ('a', 'x')")
    device.sync()
    report = db.run("SELECT report FROM godwit.device")
    assert '"pending":0' in report

    wait_until(lambda: 'godwit_devices{pending="0"} 1\n' in server.get("/metrics", token="").body.decode(),
               what="a walk through the devices")
    db.run("""UPDATE godwit.device SET report = '{"pending":500,"failed":7,"oldestPendingMs":7200000}'""")
    wait_until(lambda: 'godwit_devices{pending="101-1000"} 1\n' in server.get("/metrics", token="").body.decode(),
               what="another walk")


def test_it_says_when_it_cannot_write(db, world):
    server = db.server(world)
    assert server.get("/readyz", token="").status == 200
    name = db.name
    db.cluster.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on;"
                   f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    db.cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    db.cluster.sql(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    wait_until(lambda: server.get("/readyz", token="").status == 503, what="it says so")
    db.cluster.sql(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true; ALTER DATABASE {name} CONNECTION LIMIT -1;"
                   f"ALTER DATABASE {name} RESET default_transaction_read_only")
    wait_until(lambda: server.get("/readyz", token="").status == 200, timeout=20, what="it is ready again")
