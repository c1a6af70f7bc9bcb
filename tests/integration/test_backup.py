"""`godwit backup` and `godwit restore` with real processes that go on writing meanwhile."""
import os
import shutil
import sqlite3
import subprocess
import sys

from harness import BUILD, SCHEMA, assert_converged, cli, settle, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = "CREATE TABLE shared (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER);"


def writing(device, path, count=20):
    """An application that writes until it is killed: per transaction a pin, its form and its number in `shared`."""
    side = os.path.join(str(path), device.name + ".done")
    device.script(SHARED + "INSERT INTO shared(id) VALUES (1);")
    device.disconnect()
    process = subprocess.Popen([sys.executable, os.path.join(HERE, "writer.py"), os.path.join(BUILD, "godwit"),
                                device.path, device.name, side, "0.0005"])
    wait_until(lambda: os.path.exists(side) and os.path.getsize(side) > 3 * count, what="the application writes")
    return process


def stop(process):
    process.kill()
    process.wait()


def ask(path, *queries):
    """The first column of the first row of each; closed at once: the file may get another name."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [db.execute(sql).fetchone()[0] for sql in queries]
    finally:
        db.close()


def fill(device, rows, name="big", size=900):
    device.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO pins(id, title)"
               f" SELECT '{name}-' || i, printf('%.*c', ?, 'x') FROM n", rows, size)


def test_a_database_is_backed_up_while_the_application_writes(world):
    server = world.server()
    a = world.device("a", server)
    fill(a, 20000)
    target = os.path.join(str(world.path), "backup.db")
    process = writing(a, world.path)
    try:
        before = a.one("SELECT a FROM shared")
        done = cli("backup", a.path, target, "--json")
        after = a.one("SELECT a FROM shared")
    finally:
        stop(process)
    assert done.code == 0 and done.json["bytes"] == os.path.getsize(target) > 18_000_000, done
    assert before < after, "nothing was written meanwhile"
    number, pins, forms, queued = ask(
        target, "SELECT a FROM shared", "SELECT count(*) FROM pins WHERE id LIKE 'a-%'", "SELECT count(*) FROM forms",
        "SELECT count(*) FROM sync_queue WHERE operation = 'create'")
    assert before <= number <= after
    assert pins == forms == number and queued == 20000 + 2 * number
    assert [n for n in os.listdir(str(world.path)) if "part" in n] == []
    again = cli("backup", a.path, target)
    assert again.code == 1 and "exists already" in again.err


def test_a_restored_database_is_a_device_of_its_own(world):
    server = world.server()
    a = world.device("a", server)
    saved = os.path.join(str(world.path), "saved.db")
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    a.sync()
    a.run("INSERT INTO pins(id) VALUES ('p2')")
    assert cli("backup", a.path, saved).code == 0
    a.run("INSERT INTO pins(id) VALUES ('p3')")
    a.sync()
    assert cli("restore", saved, a.path).code == 1, "it was overwritten without --force"
    opened_still = cli("restore", saved, a.path, "--force")
    assert opened_still.code == 1 and "open in another process" in opened_still.err
    assert a.one("SELECT count(*) FROM pins") == 3
    a.disconnect()
    assert cli("restore", saved, a.path, "--force").code == 0
    assert ask(a.path + ".replaced", "SELECT count(*) FROM pins") == [3]
    assert [r[0] for r in a.rows("pins")] == ["p1", "p2"]
    a.run("INSERT INTO pins(id) VALUES ('p4')")
    settle(a)
    assert_converged(server, [a])
    assert [r[0] for r in a.rows("pins")] == ["p1", "p2", "p3", "p4"]
    assert a.one("SELECT rekeys FROM godwit_metrics") == 1 and a.one("SELECT reconciles FROM godwit_metrics") == 0
    assert server.query("SELECT count(*) FROM godwit_device") == [(2,)]
    # by hand, over the file it was made of: its place is the old one, and it is another device all the same
    a.disconnect()
    for suffix in ("-wal", "-shm"):
        if os.path.exists(a.path + suffix):
            os.remove(a.path + suffix)
    os.replace(a.path + ".replaced", a.path)
    shutil.copyfile(saved, a.path)
    a.run("INSERT INTO pins(id) VALUES ('p5')")
    settle(a)
    assert_converged(server, [a])
    assert len(a.rows("pins")) == 5
    assert a.one("SELECT rekeys FROM godwit_metrics") == 1 and a.one("SELECT reconciles FROM godwit_metrics") == 0


def test_a_running_server_is_backed_up_and_restored(world):
    server = world.server(schema=SCHEMA + SHARED)
    a, b = (world.device(name, server) for name in "ab")
    saved = os.path.join(str(world.path), "saved")
    fill(a, 3000)
    settle(a, b)
    b.run("DELETE FROM pins WHERE id = 'big-1'")
    process = writing(a, world.path)
    syncing = subprocess.Popen([os.path.join(BUILD, "godwit"), "sync", a.path, "--watch"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        head = server.query("SELECT head FROM godwit_scope")[0][0]
        wait_until(lambda: server.query("SELECT head FROM godwit_scope")[0][0] > head + 2, what="commits arrive")
        done = cli("backup", server.data, saved)
        backed_up, = ask(os.path.join(saved, "store.db"), "SELECT head FROM godwit_scope")
        wait_until(lambda: server.query("SELECT head FROM godwit_scope")[0][0] > backed_up + 2, what="it goes on")
    finally:
        stop(process)
        stop(syncing)
    assert done.code == 0, done
    assert os.stat(saved).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(saved, "secret")).st_mode & 0o777 == 0o600
    settle(a, b)
    running = cli("restore", saved, server.data, "--force")
    assert running.code == 1 and "another server" in running.err
    assert server.stop() == 0
    assert cli("restore", saved, server.data).code == 1, "it was overwritten without --force"
    assert cli("restore", saved, server.data, "--force").code == 0
    server.start()
    assert server.query("SELECT head FROM godwit_scope")[0][0] == backed_up
    settle(a, b)
    settle(a, b)
    assert_converged(server, [a, b])
    assert server.query("SELECT count(*) FROM pins WHERE id LIKE 'a-%'")[0][0] == a.one(
        "SELECT count(*) FROM pins WHERE id LIKE 'a-%'") > 20
    assert server.query("SELECT count(*) FROM pins WHERE id LIKE 'big-%'") == [(2999,)]
    assert a.one("SELECT reconciles FROM godwit_metrics") >= 1


def test_what_is_no_backup_is_refused_and_nothing_changed(world):
    server = world.server()
    a = world.device("a", server)
    a.run("INSERT INTO pins(id) VALUES ('p1')")
    a.disconnect()
    before = open(a.path, "rb").read()
    bad = os.path.join(str(world.path), "bad.db")
    with open(bad, "wb") as stream:
        stream.write(before[:100] + b"\xa5" * (len(before) - 100))
    plain = os.path.join(str(world.path), "plain.db")
    sqlite3.connect(plain).execute("CREATE TABLE t (x)")
    for source, word in ((bad, "malformed"), (plain, "not one of Godwit's"), (server.store, "name its folder"),
                         (bad + "x", "no such file"), (server.data, "a data folder")):
        done = cli("restore", source, a.path, "--force")
        assert done.code == 1 and word in done.err, (source, done)
    done = cli("restore", a.path, server.data, "--force")
    assert done.code == 1 and "is a folder" in done.err, done
    assert open(a.path, "rb").read() == before
    assert [n for n in os.listdir(str(world.path)) if "part" in n or "replaced" in n] == []
