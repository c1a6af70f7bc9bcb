"""Parts that die under several servers: a server, PostgreSQL, the primary with a standby that has everything
and with one that lacks the last commits. Nothing acknowledged is lost, nothing is applied twice."""
import random

import pytest

import harness
import nodes as several
import postgres


@pytest.fixture(scope="module")
def cluster():
    c = postgres.Cluster(durable=True)
    yield c
    c.close()


@pytest.fixture
def db(cluster):
    d = cluster.fresh()
    d.run(several.PINS)
    d.track("pins", scope="field")
    yield d
    d.close()


def both(primary, standby, name):
    """The URL that finds whichever of the two may be written to."""
    return (f"postgresql://postgres@/{name}?host={primary.folder},{standby.folder}"
            "&target_session_attrs=read-write")


def test_servers_killed_at_any_time(db, world):
    three = several.start(world, db.url)
    generator = random.Random(5)
    with several.Load(three, writers=4) as load:
        for turn in range(6):
            load.wait_for(generator.randrange(5, 40))
            node = three[turn % 3]
            node.kill()
            load.wait_for(5)
            node.start()
        load.wait_for(10)
    assert not load.strange, load.strange[0]
    assert load.again > 0
    several.check_feed(three, load.acked)


def test_postgres_killed_under_load(cluster, db, world):
    three = several.start(world, db.url)
    with several.Load(three, writers=4) as load:
        for _ in range(2):
            load.wait_for(20)
            cluster.crash()
            harness.wait_until(lambda: "503" in str([n.get("/readyz", token="").status for n in three]), 30,
                               what="servers say that they can't write")
            cluster.start()
            load.wait_for(20)
    assert not load.strange, load.strange[0]
    assert load.again > 0
    written = several.check_feed(three, load.acked)
    assert db.run("SELECT count(*) FROM pins") == str(len(written))
    for node in three:
        harness.wait_until(lambda node=node: several.metric(node, "godwit_listening") == 1, 30, what="it listens again")


def test_a_standby_with_everything_takes_over(cluster, world):
    db = cluster.fresh()
    db.run(several.PINS)
    db.track("pins", scope="field")
    standby = postgres.Standby(cluster)
    try:
        cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf();")
        three = several.start(world, both(cluster, standby, db.name))
        with several.Load(three, writers=4) as load:
            load.wait_for(40)
            cluster.crash()
            standby.promote()
            load.wait_for(40)
        assert not load.strange, load.strange[0]
        written = several.check_feed(three, load.acked)
        assert standby.sql("SELECT count(*) FROM pins", standby.url.replace("/postgres?", f"/{db.name}?")) == \
            [[str(len(written))]]
        for node in three:
            assert node.stop() == 0
    finally:
        standby.close()
        cluster.start()
        cluster.sql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();")


def test_a_standby_that_lacks_the_last_commits(cluster, world):
    db = cluster.fresh()
    db.run(several.PINS)
    db.track("pins", scope="field")
    standby = postgres.Standby(cluster)
    try:
        two = several.start(world, both(cluster, standby, db.name), 2)
        devices = [world.device(name, node, schema=several.DEVICE, tables=("pins",))
                   for name, node in zip("abc", (two[0], two[1], two[0]))]
        for device in devices:
            device.run("INSERT INTO pins VALUES (?, 'old', NULL, 1)", device.name)
        harness.settle(*devices, rounds=2)
        standby.wait_for(cluster)
        standby.cut_off(cluster)
        # acknowledged by the primary, seen by the others, unknown to the standby
        for number in range(3):
            for device in devices[:2]:
                device.run("INSERT INTO pins VALUES (?, 'new', NULL, 1)", f"{device.name}{number}")
                device.run("UPDATE pins SET note = ? WHERE id = ?", f"n{number}", device.name)
                device.run("UPDATE pins SET title = ? WHERE id = 'c'", f"{device.name}{number}")
            harness.settle(*devices[:2], rounds=1)
        harness.settle(*devices, rounds=2)
        before = devices[0].run("SELECT * FROM pins ORDER BY id")
        assert len(before) == 9
        cluster.crash()
        standby.promote()
        url = standby.url.replace("/postgres?", f"/{db.name}?")
        assert standby.sql("SELECT count(*) FROM pins", url) == [["3"]]  # the others are lost
        for device in devices:  # 503 until its server has found the new primary
            harness.wait_until(lambda device=device: device.sync_cli().code == 0, 40, every=0.2, what="it syncs again")
        harness.settle(*devices, rounds=3)
        after = [device.run("SELECT * FROM pins ORDER BY id") for device in devices]
        assert after[0] == after[1] == after[2]
        assert [row[0] for row in after[0]] == [row[0] for row in before]
        assert {row[0]: row[2] for row in after[0]} == {row[0]: row[2] for row in before}
        assert [row[:3] for row in standby.sql("SELECT id, title, coalesce(note, '') FROM pins ORDER BY id", url)] == \
            [[row[0], row[1], row[2] or ""] for row in after[0]]
        for device in devices:
            assert device.pending() == 0
        # created once each, whoever sent it again
        commits = two[0].pull()[0]
        created = [c["entityId"] for commit in commits for c in commit["changes"]
                   if c["entityType"] == "pins" and c.get("full")]
        assert sorted(created) == sorted(row[0] for row in before)
        assert [commit["seq"] for commit in commits] == list(range(1, len(commits) + 1))
        for node in two:
            assert node.stop() == 0
    finally:
        standby.close()
        cluster.start()
